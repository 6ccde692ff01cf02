// @ts-check
// <offhook-choose>: adds search and a clear button to a list of radio buttons.

class Choose extends HTMLElement {
  connectedCallback() {
    const search = this.querySelector("input[type=search]");
    if (!(search instanceof HTMLInputElement)) return;
    for (const part of this.querySelectorAll("[data-scripted]")) part.removeAttribute("hidden");
    const choices = [...this.querySelectorAll(".choice")];
    const radios = () => choices.filter((choice) => !(/** @type {HTMLElement} */ (choice).hidden)).map((choice) => choice.querySelector("input"));
    search.addEventListener("input", () => {
      const wanted = search.value.trim().toLocaleLowerCase();
      for (const choice of choices) {
        /** @type {HTMLElement} */ (choice).hidden = !(choice.textContent ?? "").toLocaleLowerCase().includes(wanted);
      }
      this.querySelector("[data-none]")?.toggleAttribute("hidden", radios().length > 0);
    });
    // Enter selects the first match.
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      const first = radios()[0];
      if (first) { first.checked = true; first.focus(); }
    });
    this.querySelector("[data-clear]")?.addEventListener("click", () => {
      search.value = "";
      search.dispatchEvent(new Event("input"));
      const none = /** @type {HTMLInputElement | null} */ (this.querySelector("input[type=radio][value='']"));
      if (none) { none.checked = true; none.focus(); }
    });
    search.focus();
  }
}
customElements.define("offhook-choose", Choose);
