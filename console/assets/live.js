// @ts-check
// Keeps a page as things are: `/console/events` names what has changed; a page that listens to it asks for itself again and
// puts in what is different, by element id. Focus, selection and scrolling stay where they were.

/** At most so often. */
const PAUSE_MS = 400;
/** What changes without news, and is on its way, is looked at so often. */
const SOON_MS = 1500;

/**
 * @param {(root: ParentNode, old: Element) => void} changed is told of each element that was put in, and what it replaced
 * @returns {() => void} asks for the page again, now
 */
export function keepLive(changed) {
  const kinds = new Set((document.body.dataset.live ?? "").split(" ").filter(Boolean));
  // The count beside the bell is on every page.
  if (document.getElementById("unread")) kinds.add("notification");
  let wanted = false;
  // Something stayed as it was, since the reader was in it.
  let left = false;
  const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById("ask"));
  // What a question is about must still be there when it is answered.
  const asking = () => dialog?.open ?? false;
  dialog?.addEventListener("close", () => setTimeout(() => { if (wanted) { wanted = false; void refresh(); } }));
  document.addEventListener("focusout", () => { if (left) { left = false; setTimeout(() => void refresh()); } });
  let busy = false;

  async function refresh() {
    if (busy || asking()) { wanted = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
      const text = answer.ok ? await answer.text() : "";
      if (asking()) wanted = true;
      else if (text) left = put(new DOMParser().parseFromString(text, "text/html"), changed);
      soon();
    } catch { /* the next event, or the reader, asks again */ }
    setTimeout(() => {
      busy = false;
      if (wanted) { wanted = false; void refresh(); }
    }, PAUSE_MS);
  }

  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const soon = () => {
    clearTimeout(timer);
    if (document.querySelector("[data-soon]")) timer = setTimeout(() => void refresh(), SOON_MS);
  };
  soon();
  if (!kinds.size || !window.EventSource) return () => void refresh();
  const events = new EventSource(`/console/events?since=${document.body.dataset.at ?? ""}`);
  events.addEventListener("change", (event) => {
    const told = event.data.split(" ");
    if (told.includes("all") || told.some((/** @type {string} */ kind) => kinds.has(kind))) {
      if (document.hidden) wanted = true; else void refresh();
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && wanted) { wanted = false; void refresh(); }
  });
  addEventListener("pagehide", () => events.close());
  return () => void refresh();
}

/** Whether a reader is in an element, or has begun to fill something in. @param {Element} old */
function isInUse(old) {
  const fields = /** @type {HTMLInputElement[]} */ ([...old.querySelectorAll("input:not([type=hidden]), textarea, select")]);
  return fields.some((field) => field === document.activeElement || field.defaultValue !== undefined && field.value !== field.defaultValue);
}

/** @param {Document} fresh @param {(root: ParentNode, old: Element) => void} changed @returns {boolean} something was in use */
function put(fresh, changed) {
  let left = false;
  for (const now of fresh.querySelectorAll("#unread, main > [id], main .columns > [id], main .card > [id]")) {
    const old = document.getElementById(now.id);
    if (!old) continue;
    const before = old.dataset.source ?? old.outerHTML;
    if (before === now.outerHTML) continue;
    // What the reader is in stays: a form half filled in.
    if (isInUse(old)) { left = true; continue; }
    const copy = /** @type {HTMLElement} */ (document.importNode(now, true));
    const focused = old.contains(document.activeElement) ? document.activeElement?.getAttribute("href") : null;
    const scrolled = [...old.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
    for (const details of old.querySelectorAll("details[open]")) {
      copy.querySelectorAll("details")[[...old.querySelectorAll("details")].indexOf(details)]?.setAttribute("open", "");
    }
    const source = now.outerHTML;
    old.replaceWith(copy);
    copy.dataset.source = source;
    copy.querySelectorAll(".scroll").forEach((box, n) => box.scrollTo(scrolled[n]?.[0] ?? 0, scrolled[n]?.[1] ?? 0));
    if (focused) /** @type {HTMLElement | null} */ (copy.querySelector(`[href="${CSS.escape(focused)}"]`))?.focus();
    changed(copy, old);
  }
  return left;
}
