// @ts-check
// <offhook-upload>: uploads a file with a progress bar, then sends it as a message. Allowed types, size limits and texts come
// from the page.

import { showSignedOut } from "./drafts.js";

/** Media types by extension, where browsers know none or another one than WhatsApp. @type {Record<string, string>} */
const BY_NAME = { m4a: "audio/mp4", ogg: "audio/ogg", opus: "audio/ogg", amr: "audio/amr", aac: "audio/aac", "3gp": "video/3gpp" };
export const MIB = 1 << 20;

/** A failed upload with its message. Empty if it was cancelled. */
export class UploadError extends Error {}

export class Upload extends HTMLElement {
  /** @type {XMLHttpRequest | null} */ request = null;

  connectedCallback() {
    this.hidden = false;
    /** @type {Record<string, [string, number]>} */ this.kinds = JSON.parse(this.dataset.kinds ?? "{}");
    this.form = /** @type {HTMLFormElement} */ (this.querySelector("form"));
    this.bar = /** @type {HTMLProgressElement} */ (this.querySelector("progress"));
    this.wrong = /** @type {HTMLElement} */ (this.querySelector(".wrong"));
    this.form.addEventListener("submit", (event) => { event.preventDefault(); void this.send(); });
    this.form.addEventListener("change", () => { this.wrong.textContent = this.chosenFile().wrong; });
    this.button("cancel").addEventListener("click", () => this.request?.abort());
  }

  disconnectedCallback() { this.request?.abort(); }

  /** @param {string} name */
  button(name) { return /** @type {HTMLButtonElement} */ (this.querySelector(`[data-at="${name}"]`)); }

  /** The chosen file, its type, and why it cannot be sent. @returns {{file?: File, type: string, kind: string, wrong: string}} */
  chosenFile() {
    const file = /** @type {HTMLInputElement} */ (this.form?.elements.namedItem("file")).files?.[0];
    const type = BY_NAME[file?.name.split(".").at(-1)?.toLowerCase() ?? ""] ?? file?.type ?? "";
    const [kind, most] = this.kinds?.[type] ?? ["", 0];
    const { wrongType = "", tooLarge = "", empty = "" } = this.dataset;
    if (!file) return { type, kind, wrong: "" };
    if (!kind) return { file, type, kind, wrong: wrongType };
    if (!file.size) return { file, type, kind, wrong: empty };
    const wrong = file.size > most ? tooLarge.replace("{0}", most < MIB ? `${most / 1024} KB` : `${most / MIB} MB`) : "";
    return { file, type, kind, wrong };
  }

  async send() {
    const { file, type, kind, wrong } = this.chosenFile();
    if (!file || wrong || this.request) return;
    this.busy(true);
    try {
      const name = file.name.slice(-240);
      const media = await this.post(`media/?filename=${encodeURIComponent(name)}`, type, file);
      const caption = String(new FormData(this.form).get("caption") ?? "").trim();
      const named = kind === "document" ? { filename: name } : {};
      // Audio and stickers have no caption.
      const said = caption && kind !== "audio" && kind !== "sticker" ? { caption } : {};
      const message = { type: kind, [kind]: { id: media.id, mime_type: media.mimeType, ...named, ...said } };
      await this.post("messages/", "application/json", JSON.stringify(message));
      this.form?.reset();
    } catch (error) {
      if (this.wrong) this.wrong.textContent = error instanceof UploadError ? error.message : String(error);
    }
    this.busy(false);
  }

  /** @param {string} path @param {string} type @param {File | string} body @returns {Promise<any>} */
  post(path, type, body) {
    return new Promise((done, failed) => {
      const request = this.request = new XMLHttpRequest();
      request.open("POST", this.dataset.to + path);
      request.setRequestHeader("content-type", type);
      request.setRequestHeader("x-csrf-token", document.body.dataset.csrf ?? "");
      request.upload.onprogress = ({ loaded, total }) => { if (this.bar && total && body instanceof File) this.bar.value = loaded / total; };
      request.onload = () => {
        let said;
        try { said = JSON.parse(request.responseText); } catch { said = {}; }
        if (request.status === 401) showSignedOut(this.form);
        if (request.status >= 200 && request.status < 300) done(said);
        else failed(new UploadError(said.error?.message ?? this.dataset.lost));
      };
      request.onerror = () => failed(new UploadError(this.dataset.lost));
      request.onabort = () => failed(new UploadError(""));
      request.send(body);
    });
  }

  /** @param {boolean} busy */
  busy(busy) {
    if (!busy) this.request = null;
    if (this.bar) { this.bar.hidden = !busy; this.bar.value = 0; }
    if (this.wrong && busy) this.wrong.textContent = "";
    this.button("cancel").hidden = !busy;
    this.button("send").disabled = busy;
    this.form?.setAttribute("aria-busy", String(busy));
  }
}
customElements.define("offhook-upload", Upload);
