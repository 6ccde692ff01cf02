// @ts-check
// Input that was not sent. If the session has ended, it stays on the page, and in the tab's session storage until the same person
// has signed in again. Replies in the inbox stay there while the person looks at other pages.

const KEY = "offhook-drafts";
const REPLIES = "offhook-replies";
const REPLIES_MAX = 50;
const SIGN_IN = "/console/sign-in";

/** @typedef {HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement} Field */
/** @typedef {{ action: string, name: string, nth: number, value: string | boolean }} Entry `nth` counts the fields of this name in forms with this action. */
/** @typedef {{ person: string, interrupted: boolean, entries: Entry[] }} Drafts */

/** The fields of a page that a person fills in, with their place. @returns {Map<Field, { action: string, name: string, nth: number }>} */
function fields() {
  const found = new Map();
  /** @type {Map<string, number>} */
  const counts = new Map();
  for (const field of /** @type {NodeListOf<Field>} */ (document.querySelectorAll("input[name], textarea[name], select[name]"))) {
    if (field.form?.getAttribute("method") !== "post" || ["hidden", "password", "file", "submit"].includes(field.type)) continue;
    const action = field.form.getAttribute("action") ?? "";
    const place = `${action} ${field.name}`;
    const nth = counts.get(place) ?? 0;
    counts.set(place, nth + 1);
    found.set(field, { action, name: field.name, nth });
  }
  return found;
}

/** Whether a field is a checkbox or radio button. @param {Field} field */
export const isTicked = (field) => field instanceof HTMLInputElement && ["checkbox", "radio"].includes(field.type);

/** Whether a field differs from what the server sent. @param {Field} field */
export function isChanged(field) {
  if (field instanceof HTMLSelectElement) {
    const initial = [...field.options].findLast((one) => one.defaultSelected) ?? [...field.options].find((one) => !one.disabled);
    return field.value !== (initial?.value ?? "");
  }
  return isTicked(field) ? /** @type {HTMLInputElement} */ (field).checked !== /** @type {HTMLInputElement} */ (field).defaultChecked : field.value !== field.defaultValue;
}

/** Stores the changed fields of the page. @param {boolean} interrupted whether the session is known to have ended */
function keep(interrupted) {
  const { person } = document.body.dataset;
  if (person === undefined) return;
  const changed = [...fields()].filter(([field]) => isChanged(field));
  const entries = changed.map(([field, place]) => ({ ...place, value: isTicked(field) ? /** @type {HTMLInputElement} */ (field).checked : field.value }));
  write(entries.length ? { person, interrupted, entries } : null);
}

/** @param {Drafts | null} drafts */
function write(drafts) {
  try {
    if (drafts) sessionStorage.setItem(KEY, JSON.stringify(drafts)); else sessionStorage.removeItem(KEY);
  } catch { /* no storage, or too much input: the fields on the page are unchanged */ }
}

/** @returns {Drafts | null} */
function read() {
  try { return JSON.parse(sessionStorage.getItem(KEY) ?? "null"); } catch { return null; }
}

/** Whether a response is the sign-in page, because the session has ended. @param {Response | null} answer */
export const isSignIn = (answer) => !!answer?.redirected && new URL(answer.url).pathname === SIGN_IN;

/** Says that the session has ended, with a link to sign in. @param {Element | null} [form] the form that was not sent */
export function showSignedOut(form) {
  const banner = document.getElementById("signed-out");
  if (!banner) return;
  const dialog = form?.closest("dialog");
  // Content beside an open dialog can't be clicked. The panel's page has the same form.
  const path = dialog ? form?.getAttribute("action") ?? location.pathname : location.pathname + location.search;
  let place = banner;
  if (dialog && form) {
    place = dialog.querySelector(".signed-out") ?? /** @type {HTMLElement} */ (banner.cloneNode(true));
    place.id = "";
    place.className = "alert signed-out";
    form.prepend(place);
  }
  const link = place.querySelector("a");
  if (link) {
    link.href = `${SIGN_IN}?${new URLSearchParams({ to: path })}`;
    link.onclick = () => keep(true);
  }
  place.hidden = false;
  keep(true);
}

/** Keeps what is submitted, until the next page shows whether it was accepted; and fills in what was kept. @param {(root: ParentNode) => void} changed */
export function watchDrafts(changed) {
  document.addEventListener("submit", (event) => {
    const form = /** @type {HTMLFormElement} */ (event.target);
    const action = form.getAttribute("action") ?? "";
    if (form.getAttribute("method") !== "post") return;
    if (action === "/console/sign-out") { write(null); writeReplies([]); }
    // A script keeps the page, and says when the session has ended.
    else if (!event.defaultPrevented) keep(false);
  });
  const drafts = read();
  if (!drafts) return;
  const { person } = document.body.dataset;
  if (person === undefined) { write({ ...drafts, interrupted: true }); return; }
  write(null);
  if (!drafts.interrupted || drafts.person !== person) return;
  for (const [field, { action, name, nth }] of fields()) {
    const entry = drafts.entries.find((one) => one.action === action && one.name === name && one.nth === nth);
    if (!entry) continue;
    if (typeof entry.value === "boolean") /** @type {HTMLInputElement} */ (field).checked = entry.value; else field.value = entry.value;
    field.closest("details")?.setAttribute("open", "");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  changed(document);
}

/** The fields for replies and notes, with the keys under which they are kept. @returns {[Field, string][]} */
const replies = () => [...fields()].filter(([field]) => field instanceof HTMLTextAreaElement && field.closest(".composer"))
  .map(([field, { action, name, nth }]) => [field, `${document.body.dataset.person} ${action} ${name} ${nth}`]);

/** @returns {[string, string][]} */
function readReplies() {
  try { return JSON.parse(sessionStorage.getItem(REPLIES) ?? "[]"); } catch { return []; }
}

/** @param {[string, string][]} kept the latest last */
function writeReplies(kept) {
  try {
    if (kept.length) sessionStorage.setItem(REPLIES, JSON.stringify(kept.slice(-REPLIES_MAX))); else sessionStorage.removeItem(REPLIES);
  } catch { /* no storage, or too much text */ }
}

/** Keeps replies that were not sent when the page is left, and fills them in when it is opened again. */
export function watchReplies() {
  const kept = new Map(readReplies());
  for (const [field, key] of replies()) {
    const text = kept.get(key);
    if (!text || field.value) continue;
    field.value = text;
    field.closest("details")?.setAttribute("open", "");
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }
  addEventListener("pagehide", () => {
    const all = new Map(readReplies());
    for (const [field, key] of replies()) {
      all.delete(key);
      // A form that is being submitted shows its text again if it is refused.
      if (field.value.trim() && field.form?.dataset.busy === undefined) all.set(key, field.value);
    }
    writeReplies([...all]);
  });
}
