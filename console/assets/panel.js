// @ts-check
// Panels: a link with `data-panel` (`side` or `modal`) opens the `[data-panel-body]` of its page in a dialog. Forms in it, and
// forms with `data-quick`, are submitted without leaving the page.

import { ask, toast } from "./ask.js";
import { isSignIn, showSignedOut } from "./drafts.js";
import { idle, isChanged, prepare } from "./forms.js";

/** @param {(root: ParentNode) => void} changed called with inserted elements @param {() => void} refresh fetches the page again */
export function openPanels(changed, refresh) {
  document.addEventListener("click", (event) => {
    const link = event.target instanceof Element ? event.target.closest("a[data-panel]") : null;
    if (!(link instanceof HTMLAnchorElement) || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    void open(link);
  });
  document.addEventListener("submit", (event) => {
    const form = /** @type {HTMLFormElement} */ (event.target);
    const dialog = /** @type {HTMLDialogElement | null} */ (form.closest("dialog.panel"));
    if (event.defaultPrevented || form.getAttribute("method") !== "post" || !(dialog || form.dataset.quick !== undefined)) return;
    event.preventDefault();
    void send(form, event.submitter, dialog);
  });

  /** @param {HTMLAnchorElement} link */
  async function open(link) {
    const page = await documentOf(fetch(link.href, { headers: { accept: "text/html" } }));
    const body = page?.querySelector("[data-panel-body]");
    // Not a panel: navigate to the page.
    if (!page || !body) { location.href = link.href; return; }
    const dialog = document.createElement("dialog");
    dialog.className = `panel ${link.dataset.panel}`;
    put(dialog, body);
    dialog.addEventListener("cancel", (event) => { event.preventDefault(); void leave(dialog); });
    dialog.addEventListener("click", (event) => {
      const close = event.target === dialog || event.target instanceof Element && event.target.closest("[data-close]");
      if (close) { event.preventDefault(); void leave(dialog); }
    });
    // The browser may close the dialog itself.
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  }

  /** @param {HTMLDialogElement} dialog @param {Element} body */
  function put(dialog, body) {
    dialog.replaceChildren(...[...body.childNodes].map((node) => document.importNode(node, true)));
    const heading = dialog.querySelector("h1, h2");
    if (heading) {
      heading.id = "panel-title";
      dialog.setAttribute("aria-labelledby", heading.id);
    }
    prepare(dialog);
    changed(dialog);
  }

  /** Closes the dialog, after a confirmation if input would be lost. @param {HTMLDialogElement} dialog */
  async function leave(dialog) {
    const text = /** @type {HTMLElement | null} */ (dialog.querySelector("form[data-lost]"))?.dataset.lost ?? "";
    if (!isChanged(dialog) || await ask(text, true)) shut(dialog);
  }

  /** Closes and removes the dialog. The `close` event comes later, when another one may be open already. @param {HTMLDialogElement} dialog */
  function shut(dialog) {
    dialog.close();
    dialog.remove();
  }

  /** @param {HTMLFormElement} form @param {HTMLElement | null} by @param {HTMLDialogElement | null} dialog */
  async function send(form, by, dialog) {
    const body = new URLSearchParams(/** @type {any} */ (new FormData(form, by)));
    let [done, to, signedOut] = [false, "", false];
    const asked = fetch(form.getAttribute("action") ?? location.href, { method: "POST", body }).then((answer) => {
      [done, to, signedOut] = [answer.ok && answer.redirected, answer.url, isSignIn(answer)];
      return answer;
    });
    const answer = await documentOf(asked);
    idle(form);
    if (signedOut) { showSignedOut(form); return; }
    if (done && form.dataset.go !== undefined) { location.href = to; return; }
    const content = answer?.querySelector("[data-panel-body]");
    if (done) {
      if (dialog) shut(dialog);
      if (!dialog) {
        form.reset();
        // Keep the focus in the message field.
        const active = /** @type {HTMLElement | null} */ (document.activeElement);
        if (active?.id !== "text") active?.blur();
      }
      toast(answer?.querySelector("main .note[role=status]")?.textContent ?? "");
      refresh();
    } else if (dialog && content) {
      put(dialog, content);
    } else {
      const why = answer?.querySelector("main .alert[role=alert]") ?? answer?.querySelector("main h1");
      toast(why?.textContent ?? document.body.dataset.offline ?? "", true);
    }
  }
}

/** @param {Promise<Response>} asked */
async function documentOf(asked) {
  const answer = await asked.catch(() => null);
  return answer ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
}
