// @ts-check
// Confirmation dialogs and toasts. Texts and buttons come from the page.

/** Resolves the open question. Set until its caller has handled the answer. @type {((yes: boolean) => void) | null} */
let waiting = null;

/** Whether a question is open or its answer is being handled. The page must not change meanwhile. */
export const isAsking = () => waiting !== null;

/** Asks for confirmation. @param {string} text @param {boolean} [lost] whether input would be lost @returns {Promise<boolean>} whether it was confirmed */
export function ask(text, lost = false) {
  const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById("ask"));
  const words = document.getElementById("ask-text");
  if (!dialog || !words || dialog.open) return Promise.resolve(false);
  // The previous question was closed, but its event has not come yet.
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
      // After the code that awaits the promise.
      queueMicrotask(() => { if (waiting === answer) waiting = null; });
    };
    // `close` is fired asynchronously: ignore the event of the previous question.
    const closed = () => { if (!dialog.open) answer(dialog.returnValue === "yes"); };
    waiting = answer;
    dialog.addEventListener("close", closed);
  });
}

/** Duration of a toast. */
const TOAST_MS = 8000;

/** Shows a toast. @param {string} text @param {boolean} [bad] */
export function toast(text, bad = false) {
  const place = document.getElementById("toasts");
  if (!place || !text.trim()) return;
  const one = Object.assign(document.createElement("p"), { textContent: text.trim(), className: bad ? "toast bad" : "toast" });
  one.dir = "auto";
  place.append(one);
  // Showing it again puts it above open dialogs.
  if (place.matches(":popover-open")) place.hidePopover();
  place.showPopover();
  const leave = () => { one.remove(); if (!place.childElementCount) place.hidePopover(); };
  one.addEventListener("click", leave);
  setTimeout(leave, bad ? TOAST_MS * 2 : TOAST_MS);
}
