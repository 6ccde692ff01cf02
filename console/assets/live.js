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
  let busy = false;

  async function refresh() {
    if (busy) { wanted = true; return; }
    busy = true;
    try {
      const answer = await fetch(location.href, { headers: { accept: "text/html" }, redirect: "error" });
      if (answer.ok) put(new DOMParser().parseFromString(await answer.text(), "text/html"), changed);
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

/** @param {Document} fresh @param {(root: ParentNode, old: Element) => void} changed */
function put(fresh, changed) {
  for (const now of fresh.querySelectorAll("#unread, main > [id], main .columns > [id], main .card > [id]")) {
    const old = document.getElementById(now.id);
    // What the reader is in stays: a form half filled in, an opened table.
    if (!old || old.contains(document.activeElement) && old.querySelector("input:not([type=hidden]), textarea, select")) continue;
    const fields = /** @type {NodeListOf<HTMLInputElement>} */ (old.querySelectorAll("input:not([type=hidden]), textarea"));
    if ([...fields].some((field) => field.value !== field.defaultValue)) continue;
    const before = old.dataset.source ?? old.outerHTML;
    if (before === now.outerHTML) continue;
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
}
