// @ts-check
// <offhook-share>: creates a link that contains the compressed document in its fragment, which is not sent to any server. Also
// opens the browser phone beside the playground when the document is ready to be called.

const MARK = "#xml=";
/** Maximum size of an uncompressed document, in bytes. */
const DOCUMENT_BYTES_MAX = 100 * 1024;

/** @param {ReadableStream} stream @param {number} most */
async function read(stream, most) {
  const parts = [];
  let size = 0;
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > most) { await reader.cancel(); throw new RangeError("document too large"); }
    parts.push(value);
  }
  return new Blob(parts);
}

/** @param {string} text */
async function pack(text) {
  const packed = await read(new Blob([text]).stream().pipeThrough(new CompressionStream("deflate-raw")), DOCUMENT_BYTES_MAX);
  const bytes = new Uint8Array(await packed.arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** @param {string} text */
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (c) => c.charCodeAt(0));
  return (await read(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")), DOCUMENT_BYTES_MAX)).text();
}

class Share extends HTMLElement {
  async connectedCallback() {
    const area = /** @type {HTMLTextAreaElement | null} */ (document.getElementById("source"));
    if (!area || !("CompressionStream" in window)) return;
    const { toast } = await import("./ask.js");
    this.querySelector("button")?.addEventListener("click", async () => {
      history.replaceState(null, "", MARK + await pack(area.value));
      await navigator.clipboard?.writeText(location.href).catch(() => {});
      toast(this.dataset.copied ?? "");
    });
    // The button works now.
    this.hidden = false;
    const phone = /** @type {HTMLElement | null} */ (document.querySelector("button[data-phone]"));
    phone?.addEventListener("click", (event) => {
      event.preventDefault();
      const form = phone.closest("form");
      if (!form) return;
      window.open(phone.dataset.phone, "offhook-caller");
      void fetch(form.getAttribute("action") ?? "", { method: "POST", body: new URLSearchParams(/** @type {any} */ (new FormData(form, phone))), keepalive: true });
    });
    if (!location.hash.startsWith(MARK)) return;
    try {
      area.value = await unpack(location.hash.slice(MARK.length));
      area.dispatchEvent(new Event("input", { bubbles: true }));
    } catch { toast(this.dataset.broken ?? "", true); }
  }
}
customElements.define("offhook-share", Share);
