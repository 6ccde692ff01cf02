// @ts-check
// What every page has: it stays live, its times are the reader's, and what can't be taken back asks first. Custom elements
// come only to pages that have them.

import { keepLive } from "./live.js";

/** Times of the server as the reader's clock has them. @param {ParentNode} root */
export function localise(root) {
  const lang = document.documentElement.lang;
  const day = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" });
  const hour = new Intl.DateTimeFormat(lang, { timeStyle: "short" });
  const today = new Date().toDateString();
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(/** @type {HTMLTimeElement} */ (time).dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.textContent = (at.toDateString() === today ? hour : day).format(at);
    time.setAttribute("title", at.toLocaleString(lang));
  }
}

/** Calls that go on. */
function tick() {
  for (const clock of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".ticking[data-since]"))) {
    const seconds = Math.max(0, Math.floor((Date.now() - Date.parse(clock.dataset.since ?? "")) / 1000));
    const text = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    if (clock.textContent !== text) clock.textContent = text;
  }
}

document.addEventListener("click", (event) => {
  const button = event.target instanceof Element ? event.target.closest("[data-confirm]") : null;
  if (button instanceof HTMLElement && !window.confirm(button.dataset.confirm)) event.preventDefault();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("details.me[open]")?.removeAttribute("open");
});

localise(document);
tick();
setInterval(tick, 1000);
keepLive((root) => { localise(root); tick(); });

for (const [name, file] of [["offhook-phone", "phone"], ["offhook-xml-editor", "editor"], ["offhook-waveform", "waveform"]]) {
  if (document.querySelector(name)) void import(`./${file}.js`);
}
