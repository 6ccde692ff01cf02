// @ts-check
// Features of every page: live updates, local times, forms and panels. Modules of custom elements are loaded on the pages that
// use them.

import { toast } from "./ask.js";
import { watchDrafts, watchReplies } from "./drafts.js";
import { watchForms } from "./forms.js";
import { keepLive, rememberPage } from "./live.js";
import { watchKeys } from "./palette.js";
import { openPanels } from "./panel.js";
import { watchPhone } from "./ring.js";

const lang = document.documentElement.lang;
const day = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" });
const regions = new Intl.DisplayNames(lang || "en", { type: "region" });
const brief = new Intl.DateTimeFormat(lang, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });
const hour = new Intl.DateTimeFormat(lang, { timeStyle: "short" });

/** Shows times in local time, and countries in the language of the page. @param {ParentNode} root */
function localise(root) {
  const now = new Date();
  const today = now.toDateString();
  for (const time of /** @type {NodeListOf<HTMLTimeElement>} */ (root.querySelectorAll("time[datetime]"))) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const date = "brief" in time.dataset && at.getFullYear() === now.getFullYear() ? brief : day;
    time.textContent = (at.toDateString() === today ? hour : date).format(at);
    time.setAttribute("title", at.toLocaleString(lang));
  }
  for (const place of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-region]"))) {
    try { place.textContent = regions.of(place.dataset.region ?? "") ?? place.textContent; } catch { /* unknown region code */ }
  }
}

/** Copies a download (`data-copy`) or the text of an element (`data-copy-of`) to the clipboard. */
document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-copy], button[data-copy-of]") : null;
  if (!(button instanceof HTMLElement)) return;
  const { copy, copyOf } = button.dataset;
  const download = async () => {
    const answer = await fetch(copy ?? "");
    if (!answer.ok) throw new Error(String(answer.status));
    return await answer.text();
  };
  try {
    await navigator.clipboard.writeText(copyOf ? document.getElementById(copyOf)?.textContent ?? "" : await download());
    toast(button.dataset.copied ?? "");
  } catch { toast(button.dataset.failed ?? "", true); }
});

/** Visible clocks. Others are not updated, as a list may have a thousand calls. @type {Set<Element>} */
const inSight = new Set();
const sight = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (isIntersecting) inSight.add(target); else inSight.delete(target);
    if (!target.isConnected) sight.unobserve(target);
  }
  tick(document);
});

/** Updates clocks of live calls, and countdowns of disabled buttons. @param {ParentNode} root */
function tick(root) {
  const now = Date.now();
  for (const clock of /** @type {Set<HTMLElement>} */ (inSight)) {
    const seconds = Math.max(0, Math.floor((now - Date.parse(clock.dataset.since ?? "")) / 1000));
    const text = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    if (clock.textContent !== text) clock.textContent = text;
  }
  for (const wait of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-until]"))) {
    const seconds = Math.ceil((Date.parse(wait.dataset.until ?? "") - now) / 1000);
    const button = wait.closest("button") ?? wait.parentElement?.querySelector("button");
    button?.toggleAttribute("disabled", seconds > 0);
    wait.textContent = seconds > 0 ? (wait.dataset.text ?? "{0}").replace("{0}", String(seconds)) : "";
  }
}

/** @param {ParentNode} root */
function watch(root) {
  for (const clock of root.querySelectorAll(".ticking[data-since]")) sight.observe(clock);
}

/** Loads the modules of custom elements. Returns when they have run. @param {ParentNode} root */
function enhance(root) {
  const names = ["phone", "replies", "xml-editor", "waveform", "choose", "share", "sign-up", "template", "upload", "model-upload", "sample"];
  const modules = names.filter((name) => root.querySelector(`offhook-${name}`)).map((name) => import(`./${name}.js`));
  if (root.querySelector(".plot[data-values]")) modules.push(import("./chart.js"));
  return Promise.allSettled(modules);
}

/** Prepares inserted elements, and shows their new toasts. @param {ParentNode} root @param {Element} [old] */
function changed(root, old) {
  localise(root);
  watch(root);
  tick(root);
  void enhance(root);
  if (!old) return;
  const known = new Set([...old.querySelectorAll("[data-toast]")].map((element) => element.getAttribute("data-toast")));
  for (const element of root.querySelectorAll("[data-toast]")) {
    const text = element.getAttribute("data-toast") ?? "";
    if (!known.has(text)) toast(text, element.hasAttribute("data-bad"));
  }
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("details.me[open]")?.removeAttribute("open");
  // Enter sends a message, and Ctrl+Enter or Cmd+Enter any form of the composer. Keyboards on glass have no Shift+Enter for a new line.
  const area = event.key === "Enter" && !event.isComposing && event.target instanceof HTMLTextAreaElement && event.target.closest(".composer") ? event.target : null;
  const isSend = event.ctrlKey || event.metaKey || (!event.shiftKey && !event.altKey && !!area && area.dataset.enter !== undefined && !matchMedia("(pointer: coarse)").matches);
  if (area && isSend) {
    event.preventDefault();
    if (area.value.trim()) area.form?.requestSubmit(area.form.querySelector("button.primary"));
  }
});

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[data-window]") : null;
  if (!(link instanceof HTMLAnchorElement)) return;
  event.preventDefault();
  window.open(link.href, link.target, "popup,width=620,height=760");
});

// Errors of players do not bubble.
document.addEventListener("error", (event) => {
  const player = event.target instanceof HTMLAudioElement ? event.target : null;
  const text = player?.dataset.fileMissing;
  if (!player || !text || player.nextElementSibling?.matches(".player-error")) return;
  const note = document.createElement("small");
  note.className = "error player-error";
  note.setAttribute("role", "alert");
  note.textContent = text;
  player.after(note);
}, true);

rememberPage();
localise(document);
watch(document);
tick(document);
setInterval(() => { if (!document.hidden && !document.body.hasAttribute("data-lost")) tick(document); }, 1000);
watchForms();
const live = keepLive(changed);
openPanels(changed, live.refresh);
// After the panels, which prevent the submits that they do themselves.
watchDrafts(changed);
watchReplies();
if (document.getElementById("replay")) void import("./step.js").then(({ stepThrough }) => stepThrough(live.go));
const enhanced = enhance(document);
watchPhone();
watchKeys();
void enhanced.then(() => { document.documentElement.dataset.ready = ""; });
