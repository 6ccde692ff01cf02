// @ts-check
// <offhook-model-upload>: uploads the file of a speech model with a progress bar. The page then shows what is in it.

import { MIB, Upload, UploadError } from "./upload.js";

class ModelUpload extends Upload {
  /** The chosen file, and why it cannot be sent. */
  chosenFile() {
    const file = /** @type {HTMLInputElement} */ (this.form?.elements.namedItem("file")).files?.[0];
    const max = Number(this.dataset.max);
    const wrong = file && file.size > max * MIB ? (this.dataset.tooLarge ?? "").replace("{0}", `${max} MB`) : "";
    return { file, type: "application/octet-stream", kind: "", wrong };
  }

  async send() {
    const { file, type, wrong } = this.chosenFile();
    if (!file || wrong || this.request) return;
    this.busy(true);
    try {
      await this.post(`?filename=${encodeURIComponent(file.name.slice(-240))}`, type, file);
      this.form?.reset();
      location.assign(this.dataset.done ?? "");
    } catch (error) {
      if (this.wrong) this.wrong.textContent = error instanceof UploadError ? error.message : String(error);
    }
    this.busy(false);
  }
}
customElements.define("offhook-model-upload", ModelUpload);
