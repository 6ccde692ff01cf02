// @ts-check
// Keeps a page as things are: `/console/events` sends the parts of it that have changed, rows of lists one by one, and they
// are put in by element id. Where it can't (something was missed, a question is open), the page is asked for as a whole, and
// again only what is different is put in. Focus, selection and scrolling stay where they were.

import { isAsking } from "./ask.js";

/** The page as a whole is asked for at most so often. */
const PAUSE_MS = 400;
/** What changes without news, and is on its way, is looked at so often. */
const SOON_MS = 1500;
/** Rows that are put in at a time: in between the browser draws, and the reader is heard. */
const AT_ONCE = 10;
/** What may be put in: `src/console/parts.rs` sends the same. */
const PARTS = "#unread, main > [id], main .columns > [id], main .card > [id]";

/** As the server sent them, rows of lists left out: here, times are the reader's. @type {WeakMap<Element, string>} */
const sources = new WeakMap();

/** @param {Element} part */
const list = (part) => part.querySelector("tbody[data-rows]");
/** @param {Element | null} body @param {string} id */
const row = (body, id) => (id ? body?.querySelector(`:scope > #${CSS.escape(id)}`) : null) ?? null;

/** Remembers how a part came. @param {Element} part */
function remember(part) {
  const rows = [...list(part)?.children ?? []];
  for (const one of rows) sources.set(one, one.outerHTML);
  list(part)?.replaceChildren();
  sources.set(part, part.outerHTML);
  list(part)?.replaceChildren(...rows);
}

/** The page as it came: before anything is changed in it. */
export function rememberPage() {
  for (const part of document.querySelectorAll(PARTS)) remember(part);
}

/**
 * @param {(root: ParentNode, old: Element) => void} changed is told of each element that was put in, and what it replaced
 * @returns {{ refresh: () => void, go: (to: string) => Promise<void> }} asks for the page again, now; shows another view of it
 */
export function keepLive(changed) {
  let wanted = false;
  // Something stayed as it was, since the reader was in it.
  let left = false;
  let busy = false;
  // How often parts came, and how often in a row a page was older than they.
  let [came, late] = [0, 0];
  const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById("ask"));
  // What a question is about must still be there when it is answered.
  const asking = () => isAsking() || (dialog?.open ?? false);
  const again = () => { if (wanted && !asking()) { wanted = false; void refresh(); } };
  dialog?.addEventListener("close", () => setTimeout(again));
  document.addEventListener("focusout", () => { if (left) { left = false; setTimeout(() => void refresh()); } });

  async function refresh(page = location.href) {
    if (busy || asking()) { wanted = true; return; }
    busy = true;
    const before = came;
    try {
      const answer = await fetch(page, { headers: { accept: "text/html" }, redirect: "error" });
      const text = answer.ok ? await answer.text() : "";
      // What was asked for before the latest parts came may be older than they.
      const stale = came !== before && late < 3;
      late = stale ? late + 1 : 0;
      if (asking() || stale) wanted = true;
      else if (text) left = put(new DOMParser().parseFromString(text, "text/html").querySelectorAll(PARTS), changed) || left;
      soon();
    } catch { /* the next event, or the reader, asks again */ }
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
  const hands = { refresh: () => void refresh(), go };
  // The count beside the bell is on every page.
  if (!window.EventSource || live === undefined && !document.getElementById("unread")) return hands;
  const page = () => (live === undefined ? "/console/notifications/" : location.pathname + location.search);
  let since = at ?? "";
  /** @type {EventSource | undefined} */
  let events;
  function listen() {
    events = new EventSource(`/console/events?${new URLSearchParams({ page: page(), since })}`);
    for (const kind of ["hello", "change", "parts"]) events.addEventListener(kind, (event) => { since = event.lastEventId; });
    events.addEventListener("change", () => void refresh(page()));
    events.addEventListener("parts", (event) => { turn = turn.then(() => take(JSON.parse(event.data))); });
  }
  let turn = Promise.resolve();
  /** @param {{ parts: string[], rows: Moves[] }} told */
  async function take(told) {
    if (asking()) { wanted = true; return; }
    came += 1;
    left = put(new DOMParser().parseFromString(told.parts.join(""), "text/html").body.children, changed) || left;
    for (const moves of told.rows) {
      const body = bodyOf(moves.in);
      // A list that is not here: this page is behind.
      if (!body) { if (document.getElementById(moves.in)) void refresh(page()); continue; }
      for (const id of moves.gone) row(body, id)?.remove();
      for (let n = 0; n < moves.put.length; n += AT_ONCE) {
        if (n) await new Promise((done) => setTimeout(done));
        if (asking() || !body.isConnected) { wanted = true; again(); return; }
        for (const [after, text] of moves.put.slice(n, n + AT_ONCE)) place(body, after, parsed(text), changed);
      }
    }
    soon();
  }
  listen();
  document.addEventListener("visibilitychange", () => {
    events?.close();
    // Nobody looks: nothing is made for it.
    if (!document.hidden) listen();
  });
  addEventListener("pagehide", () => events?.close());
  // What is sent is of the view that is seen.
  if (live !== undefined) listenAgain = () => { events?.close(); if (!document.hidden) listen(); };
  return hands;
}

/** @typedef {{ in: string, gone: string[], put: [string, string][] }} Moves */

/** The list of a part. @param {string} id */
function bodyOf(id) {
  const part = document.getElementById(id);
  return part?.matches(PARTS) ? list(part) : null;
}

/** A row that came as text. @param {string} text */
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

/** Whether a reader is in an element, or has begun to fill something in. @param {Element} old */
function isInUse(old) {
  const fields = /** @type {HTMLInputElement[]} */ ([...old.querySelectorAll("input:not([type=hidden]), textarea, select")]);
  return fields.some((field) => field === document.activeElement || field.defaultValue !== undefined && field.value !== field.defaultValue);
}

/** @param {Iterable<Element>} fresh @param {(root: ParentNode, old: Element) => void} changed @returns {boolean} something was in use */
function put(fresh, changed) {
  let left = false;
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
    // What the reader is in stays: a form half filled in.
    if (isInUse(old)) { left = true; continue; }
    const focused = focusIn(old);
    const scrolled = [...old.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
    for (const details of old.querySelectorAll("details[open]")) {
      copy.querySelectorAll("details")[[...old.querySelectorAll("details")].indexOf(details)]?.setAttribute("open", "");
    }
    old.replaceWith(copy);
    copy.querySelectorAll(".scroll").forEach((box, n) => box.scrollTo(scrolled[n]?.[0] ?? 0, scrolled[n]?.[1] ?? 0));
    if (focused) focusOn(copy, focused);
    changed(copy, old);
  }
  return left;
}

/** Makes one list the other, row by row. @param {Element} body @param {Element} rows @param {(root: ParentNode, old: Element) => void} changed */
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
