// @ts-check
// What a page asks back and tells by the way: a question before something that can't be taken back, and toasts. Their words
// and buttons are the page's.

/** The question that waits for its answer, or for what comes of it. @type {((yes: boolean) => void) | null} */
let waiting = null;

/** What a question is about is to stay as it is, until whoever asked has acted on the answer. */
export const isAsking = () => waiting !== null;

/** Asks; true when the reader wants it. @param {string} text @param {boolean} [lost] whether what was typed would be lost @returns {Promise<boolean>} */
export function ask(text, lost = false) {
  const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById("ask"));
  const words = document.getElementById("ask-text");
  if (!dialog || !words || dialog.open) return Promise.resolve(false);
  // One that has just been closed, and whose event is still to come.
  waiting?.(false);
  words.textContent = text;
  for (const button of dialog.querySelectorAll("button")) {
    button.dataset.plain ??= button.textContent ?? "";
    button.textContent = (lost ? button.dataset.lost : null) ?? button.dataset.plain;
  }
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => {
    const answer = (/** @type {boolean} */ yes) => {
      dialog.removeEventListener("close", closed);
      done(yes);
      // Behind whoever waits for the promise.
      queueMicrotask(() => { if (waiting === answer) waiting = null; });
    };
    // The event comes later than the closing: one of the question before this is none of ours.
    const closed = () => { if (!dialog.open) answer(dialog.returnValue === "yes"); };
    waiting = answer;
    dialog.addEventListener("close", closed);
  });
}

/** How long a toast stays. */
const STAYS_MS = 8000;

/** Tells something by the way. @param {string} text @param {boolean} [bad] */
export function toast(text, bad = false) {
  const place = document.getElementById("toasts");
  if (!place || !text.trim()) return;
  const one = Object.assign(document.createElement("p"), { textContent: text.trim(), className: bad ? "toast bad" : "toast" });
  one.dir = "auto";
  place.append(one);
  // Above whatever dialog is open.
  if (place.matches(":popover-open")) place.hidePopover();
  place.showPopover();
  const leave = () => { one.remove(); if (!place.childElementCount) place.hidePopover(); };
  one.addEventListener("click", leave);
  setTimeout(leave, bad ? STAYS_MS * 2 : STAYS_MS);
}
