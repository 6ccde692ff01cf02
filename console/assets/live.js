// @ts-check
// Live updates: `/console/events` sends the parts of the page that have changed, and single rows of lists. They replace the
// elements with the same id. If that is not possible (an event was missed, a dialog is open), the whole page is fetched, and
// only the differences are applied. Focus, selection and scroll positions are kept.

import { isAsking } from "./ask.js";
import { isChanged, isTicked, showSignedOut } from "./drafts.js";

/** Minimum interval between fetches of the whole page. */
const PAUSE_MS = 400;
/** Interval of fetches while the page shows something in progress that sends no events (`data-soon`). */
const SOON_MS = 1500;
/** Rows that are updated at a time. In between, the browser renders and handles input. */
const ROWS_PER_BATCH = 10;
/** How long a lost connection is hidden: the server ends each stream after two minutes. */
const BANNER_MS = 1000;
/** Interval of attempts to connect, which grows with their number to the maximum. */
const RETRY_MS = 500;
const RETRY_MAX_MS = 5000;
/** A stream without an event for this long is lost. The server sends one every second. */
const SILENCE_MS = 2_500;
/** The replaceable parts of a page, as in `src/console/page_diff.rs`. */
const PARTS = "#unread, #unread-inbox, main > [id], main .columns > [id], main .card > [id]";

/** HTML of the parts as the server sent it, without list rows. The DOM differs: it has local times. @type {WeakMap<Element, string>} */
const sources = new WeakMap();

/** @param {Element} part */
const list = (part) => part.querySelector("tbody[data-rows]");
/** @param {Element | null} body @param {string} id */
const row = (body, id) => (id ? body?.querySelector(`:scope > #${CSS.escape(id)}`) : null) ?? null;

/** Stores the HTML of a part. @param {Element} part */
function remember(part) {
  const rows = [...list(part)?.children ?? []];
  for (const one of rows) sources.set(one, one.outerHTML);
  list(part)?.replaceChildren();
  sources.set(part, part.outerHTML);
  list(part)?.replaceChildren(...rows);
}

/** Stores the HTML of all parts. Must run before anything changes the DOM. */
export function rememberPage() {
  for (const part of document.querySelectorAll(PARTS)) remember(part);
}

/**
 * @param {(root: ParentNode, old: Element) => void} changed called with each inserted element and the one it replaced
 * @returns {{ refresh: () => void, go: (to: string) => Promise<void> }} `refresh` fetches the page now; `go` shows another view of it
 */
export function keepLive(changed) {
  let wanted = false;
  // An update was skipped because the element was in use.
  let skipped = false;
  let busy = false;
  // Number of `parts` events, and of consecutive pages that were older than the latest one.
  let [received, outdated] = [0, 0];
  const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById("ask"));
  // The subject of an open question must not change.
  const asking = () => isAsking() || (dialog?.open ?? false);
  const again = () => { if (wanted && !asking()) { wanted = false; void refresh(); } };
  dialog?.addEventListener("close", () => setTimeout(again));
  document.addEventListener("focusout", () => { if (skipped) { skipped = false; setTimeout(() => void refresh()); } });

  async function refresh(page = location.href) {
    if (busy || asking()) { wanted = true; return; }
    busy = true;
    const before = received;
    try {
      const answer = await fetch(page, { headers: { accept: "text/html" }, redirect: "error" });
      const text = answer.ok ? await answer.text() : "";
      // The page was requested before the latest event, so it may be older.
      const stale = received !== before && outdated < 3;
      outdated = stale ? outdated + 1 : 0;
      if (asking() || stale) wanted = true;
      else if (text) skipped = put(new DOMParser().parseFromString(text, "text/html").querySelectorAll(PARTS), changed) || skipped;
      soon();
    } catch { /* the next event or action fetches it again */ }
    setTimeout(() => { busy = false; again(); }, PAUSE_MS);
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const soon = () => {
    clearTimeout(timer);
    if (document.querySelector("[data-soon]")) timer = setTimeout(() => void refresh(), SOON_MS);
  };
  soon();
  const { live, at } = document.body.dataset;
  /** @type {() => void} */
  let listenAgain = () => {};
  /** @param {string} to */
  async function go(to) {
    history.replaceState(null, "", to);
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" }).catch(() => null);
    if (!answer?.ok) { location.reload(); return; }
    put(new DOMParser().parseFromString(await answer.text(), "text/html").querySelectorAll(PARTS), changed);
    listenAgain();
  }
  const controls = { refresh: () => void refresh(), go };
  // Every page has the unread count.
  if (!window.EventSource || live === undefined && !document.getElementById("unread")) return controls;
  const page = () => (live === undefined ? "/console/notifications/" : location.pathname + location.search);
  let since = at ?? "";
  /** @type {EventSource | undefined} */
  let events;
  // Connection attempts since the last event, and the timers of the next attempt, of the banner and of a silent stream.
  let attempts = 0;
  /** @type {Record<"retry" | "banner" | "silence", ReturnType<typeof setTimeout> | undefined>} */
  const timers = { retry: undefined, banner: undefined, silence: undefined };
  function listen() {
    close();
    events = new EventSource(`/console/events?${new URLSearchParams({ page: page(), since })}`);
    for (const kind of ["hello", "change", "parts", "alive"]) events.addEventListener(kind, (event) => {
      since = event.lastEventId || since;
      connected();
    });
    events.addEventListener("change", () => void refresh(page()));
    events.addEventListener("parts", (event) => { turn = turn.then(() => take(JSON.parse(event.data))); });
    // The browser gives up for good after an error status, such as a proxy's 502, and otherwise waits for seconds.
    events.addEventListener("error", () => void reconnect());
    listenForSilence();
  }
  function close() {
    events?.close();
    clearTimeout(timers.retry);
    clearTimeout(timers.silence);
  }
  function listenForSilence() {
    clearTimeout(timers.silence);
    timers.silence = setTimeout(() => { showLost(!document.hidden); void reconnect(); }, SILENCE_MS);
  }
  function connected() {
    attempts = 0;
    clearTimeout(timers.banner);
    timers.banner = undefined;
    showLost(false);
    listenForSilence();
  }
  async function reconnect() {
    const refused = events?.readyState === EventSource.CLOSED;
    close();
    timers.banner ??= setTimeout(() => showLost(!document.hidden), BANNER_MS);
    if (refused) {
      const answer = await fetch(page(), { headers: { accept: "text/html" }, redirect: "manual" }).catch(() => null);
      // The session has ended, or the page no longer exists: it stays as it is.
      if (answer && (answer.type === "opaqueredirect" || answer.status >= 400 && answer.status < 500 && answer.status !== 429)) {
        clearTimeout(timers.banner);
        showLost(false);
        if (answer.type === "opaqueredirect") showSignedOut();
        else if (answer.status === 404) document.getElementById("gone")?.removeAttribute("hidden");
        return;
      }
      if (document.hidden) return;
    }
    clearTimeout(timers.retry);
    timers.retry = setTimeout(listen, Math.min(RETRY_MAX_MS, RETRY_MS * attempts) * (1 + Math.random() / 4));
    attempts += 1;
  }
  let turn = Promise.resolve();
  /** @param {{ parts: string[], rows: Moves[] }} update */
  async function take(update) {
    if (asking()) { wanted = true; return; }
    received += 1;
    skipped = put(new DOMParser().parseFromString(update.parts.join(""), "text/html").body.children, changed) || skipped;
    for (const moves of update.rows) {
      const body = bodyOf(moves.in);
      // The list does not exist here: this page is outdated.
      if (!body) { if (document.getElementById(moves.in)) void refresh(page()); continue; }
      for (const id of moves.gone) row(body, id)?.remove();
      for (let n = 0; n < moves.put.length; n += ROWS_PER_BATCH) {
        if (n) await new Promise((done) => setTimeout(done));
        if (asking() || !body.isConnected) { wanted = true; again(); return; }
        for (const [after, text] of moves.put.slice(n, n + ROWS_PER_BATCH)) place(body, after, parsed(text), changed);
      }
    }
    soon();
  }
  listen();
  document.addEventListener("visibilitychange", () => {
    close();
    // No updates for hidden pages.
    if (!document.hidden) listen();
  });
  addEventListener("pagehide", close);
  addEventListener("offline", () => { if (!document.hidden) void reconnect(); });
  // The events must be about the view that is shown.
  if (live !== undefined) listenAgain = () => { close(); if (!document.hidden) listen(); };
  return controls;
}

/** Shows or hides the banner about the lost connection, and dims the values, which may be out of date. @param {boolean} lost */
function showLost(lost) {
  const banner = document.getElementById("lost");
  if (!banner || banner.hidden !== lost) return;
  banner.hidden = !lost;
  document.body.toggleAttribute("data-lost", lost);
}

/** @typedef {{ in: string, gone: string[], put: [string, string][] }} Moves */

/** The list body of a part. @param {string} id */
function bodyOf(id) {
  const part = document.getElementById(id);
  return part?.matches(PARTS) ? list(part) : null;
}

/** Parses the HTML of a row. @param {string} text */
function parsed(text) {
  const box = document.createElement("template");
  box.innerHTML = text;
  return box.content.firstElementChild ?? document.createElement("tr");
}

/** @param {Element} body @param {string} after @param {Element} copy @param {(root: ParentNode, old: Element) => void} changed */
function place(body, after, copy, changed) {
  sources.set(copy, copy.outerHTML);
  const [old, before] = [row(body, copy.id), row(body, after)];
  const focused = old && focusIn(old);
  if (old) keepChoices(old, copy);
  if (old && (old.previousElementSibling?.id ?? "") === after) old.replaceWith(copy);
  else {
    old?.remove();
    if (before) before.after(copy); else body.prepend(copy);
  }
  if (focused) focusOn(copy, focused);
  changed(copy, old ?? document.createElement("tr"));
}

/** @param {Element} old */
const focusIn = (old) => (old.contains(document.activeElement) ? document.activeElement?.getAttribute("href") : null);
/** @param {Element} copy @param {string} href */
const focusOn = (copy, href) => /** @type {HTMLElement | null} */ (copy.querySelector(`[href="${CSS.escape(href)}"]`))?.focus();

/** Whether an element has the focus in a field, a changed field, or a chart whose columns are being chosen. @param {Element} old */
function isInUse(old) {
  if (old.querySelector("[data-choosing]")) return true;
  const fields = /** @type {HTMLInputElement[]} */ ([...old.querySelectorAll("input:not([type=hidden]), textarea, select")]);
  return fields.some((field) => field === document.activeElement || field.defaultValue !== undefined && field.value !== field.defaultValue);
}

/** The selects, checkboxes and radio buttons of an element, by form, name and value. @param {Element} part @returns {Map<string, HTMLInputElement | HTMLSelectElement>} */
function choices(part) {
  const fields = /** @type {NodeListOf<HTMLInputElement | HTMLSelectElement>} */ (part.querySelectorAll("select, [type=checkbox], [type=radio]"));
  return new Map([...fields].map((field) => [`${field.form?.getAttribute("action")} ${field.name} ${isTicked(field) ? field.value : ""}`, field]));
}

/** Keeps choices that were not submitted. @param {Element} old @param {Element} copy */
function keepChoices(old, copy) {
  const fresh = choices(copy);
  for (const [key, field] of choices(old)) {
    const now = fresh.get(key);
    if (!now || !isChanged(field) || field.form?.dataset.busy !== undefined) continue;
    if (isTicked(field)) /** @type {HTMLInputElement} */ (now).checked = /** @type {HTMLInputElement} */ (field).checked;
    else if (now.querySelector(`option[value="${CSS.escape(field.value)}"]`)) now.value = field.value;
  }
}

/** @param {Iterable<Element>} fresh @param {(root: ParentNode, old: Element) => void} changed @returns {boolean} whether an update was skipped because an element was in use */
function put(fresh, changed) {
  let skipped = false;
  for (const now of [...fresh]) {
    const old = document.getElementById(now.id);
    if (!old?.matches(PARTS)) continue;
    const copy = /** @type {HTMLElement} */ (document.importNode(now, true));
    remember(copy);
    const [body, rows] = [list(old), list(copy)];
    if (sources.get(old) === sources.get(copy)) {
      if (body && rows) merge(body, rows, changed);
      continue;
    }
    // Do not overwrite input, or take a chart away from the pointer.
    if (isInUse(old)) { skipped = true; continue; }
    const focused = focusIn(old);
    const scrolled = [...old.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
    for (const details of old.querySelectorAll("details[open]")) {
      copy.querySelectorAll("details")[[...old.querySelectorAll("details")].indexOf(details)]?.setAttribute("open", "");
    }
    keepChoices(old, copy);
    old.replaceWith(copy);
    copy.querySelectorAll(".scroll").forEach((box, n) => box.scrollTo(scrolled[n]?.[0] ?? 0, scrolled[n]?.[1] ?? 0));
    if (focused) focusOn(copy, focused);
    changed(copy, old);
  }
  return skipped;
}

/** Updates a list row by row. @param {Element} body @param {Element} rows @param {(root: ParentNode, old: Element) => void} changed */
function merge(body, rows, changed) {
  const wanted = new Set([...rows.children].map((one) => one.id));
  for (const old of [...body.children]) if (!wanted.has(old.id)) old.remove();
  let after = "";
  for (const now of [...rows.children]) {
    const old = row(body, now.id);
    const stays = old && sources.get(old) === sources.get(now) && (old.previousElementSibling?.id ?? "") === after;
    if (!stays) place(body, after, now, changed);
    after = now.id;
  }
}
