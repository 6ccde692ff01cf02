// @ts-check
// <offhook-sample>: speaks a text with the voice of a row, and plays it.

import { toast } from "./ask.js";
import { showSignedOut } from "./drafts.js";

class Sample extends HTMLElement {
  /** URL of the latest sample. */ url = "";

  connectedCallback() {
    this.form = /** @type {HTMLFormElement} */ (this.querySelector("form"));
    this.audio = /** @type {HTMLAudioElement} */ (this.querySelector("audio"));
    this.status = /** @type {HTMLElement} */ (this.querySelector("[role=status]"));
    this.wrong = /** @type {HTMLElement} */ (this.querySelector("[data-at=wrong]"));
    this.form.hidden = false;
    this.form.addEventListener("submit", (event) => event.preventDefault());
    const names = new Intl.DisplayNames(document.documentElement.lang || "en", { type: "language" });
    for (const option of /** @type {NodeListOf<HTMLOptionElement>} */ (this.parentElement?.querySelectorAll("select[name=language] option") ?? [])) {
      // With the tag, because several tags have the same name.
      try { const name = names.of(option.value); if (name && name !== option.value) option.textContent = `${name} (${option.value})`; } catch { /* unknown language code */ }
    }
    for (const button of /** @type {NodeListOf<HTMLButtonElement>} */ (this.querySelectorAll("button[data-voice]"))) {
      button.hidden = false;
      button.addEventListener("click", () => void this.play(button));
    }
  }

  disconnectedCallback() {
    this.audio?.pause();
    URL.revokeObjectURL(this.url);
  }

  /** @param {HTMLButtonElement} button */
  async play(button) {
    const { form, audio, status, wrong } = this;
    if (!form || !audio || !status || !wrong || this.getAttribute("aria-busy") || !form.reportValidity()) return;
    const { voice, language } = button.dataset;
    const text = String(new FormData(form).get("text") ?? "");
    for (const busy of [this, button]) busy.setAttribute("aria-busy", "true");
    wrong.hidden = true;
    status.textContent = "…";
    try {
      const answer = await fetch(this.dataset.to ?? "", {
        method: "POST",
        headers: { "content-type": "application/json", "x-csrf-token": document.body.dataset.csrf ?? "" },
        body: JSON.stringify({ text, voice, language }),
      });
      if (!answer.ok) {
        if (answer.status === 401) showSignedOut(form);
        const said = await answer.json().catch(() => ({}));
        throw new Error(said.error?.message ?? this.dataset.lost);
      }
      URL.revokeObjectURL(this.url);
      this.url = URL.createObjectURL(await answer.blob());
      audio.src = this.url;
      audio.hidden = false;
      status.textContent = (this.dataset.by ?? "").replace("{0}", answer.headers.get("x-offhook-voice") ?? "");
      await audio.play().catch(() => { /* the controls are there */ });
    } catch (error) {
      status.textContent = "";
      wrong.textContent = error instanceof TypeError ? this.dataset.lost ?? "" : error instanceof Error ? error.message : String(error);
      wrong.hidden = false;
      // The text may be out of sight.
      toast(wrong.textContent, true);
    }
    for (const busy of [this, button]) busy.removeAttribute("aria-busy");
  }
}
customElements.define("offhook-sample", Sample);
