// @ts-check
// What every page has: it stays live, its times are the reader's, forms and panels. Custom elements come only to pages that
// have them.

import { toast } from "./ask.js";
import { watchForms } from "./forms.js";
import { keepLive, rememberPage } from "./live.js";
import { openPanels } from "./panel.js";
import { watchPhone } from "./ring.js";

const lang = document.documentElement.lang;
const day = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" });
const regions = new Intl.DisplayNames(lang || "en", { type: "region" });
const hour = new Intl.DateTimeFormat(lang, { timeStyle: "short" });

/** Times of the server as the reader's clock has them, and countries in the reader's words. @param {ParentNode} root */
function localise(root) {
  const today = new Date().toDateString();
  for (const time of /** @type {NodeListOf<HTMLTimeElement>} */ (root.querySelectorAll("time[datetime]"))) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    time.textContent = (at.toDateString() === today ? hour : day).format(at);
    time.setAttribute("title", at.toLocaleString(lang));
  }
  for (const place of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-region]"))) {
    try { place.textContent = regions.of(place.dataset.region ?? "") ?? place.textContent; } catch { /* none, or one without a code */ }
  }
}

/** What a link would download, for pasting instead. */
document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-copy]") : null;
  if (!(button instanceof HTMLElement)) return;
  try {
    const answer = await fetch(button.dataset.copy ?? "");
    if (!answer.ok) throw new Error(String(answer.status));
    await navigator.clipboard.writeText(await answer.text());
    toast(button.dataset.copied ?? "");
  } catch { toast(button.dataset.failed ?? "", true); }
});

/** Clocks that are in sight: of a thousand calls the few whose seconds anybody sees go by. @type {Set<Element>} */
const inSight = new Set();
const sight = new IntersectionObserver((seen) => {
  for (const { target, isIntersecting } of seen) {
    if (isIntersecting) inSight.add(target); else inSight.delete(target);
    if (!target.isConnected) sight.unobserve(target);
  }
  tick(document);
});

/** Calls that go on, and buttons that wait for their time. @param {ParentNode} root */
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

/** Elements that only some pages have. @param {ParentNode} root */
function enhance(root) {
  for (const name of ["phone", "xml-editor", "waveform", "choose", "share", "sign-up", "upload"]) {
    if (root.querySelector(`offhook-${name}`)) void import(`./${name}.js`);
  }
}

/** What was put into the page; news in it that was not there before is told. @param {ParentNode} root @param {Element} [old] */
function changed(root, old) {
  localise(root);
  watch(root);
  tick(root);
  enhance(root);
  if (!old) return;
  const known = new Set([...old.querySelectorAll("[data-toast]")].map((told) => told.getAttribute("data-toast")));
  for (const told of root.querySelectorAll("[data-toast]")) {
    const text = told.getAttribute("data-toast") ?? "";
    if (!known.has(text)) toast(text, told.hasAttribute("data-bad"));
  }
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") document.querySelector("details.me[open]")?.removeAttribute("open");
  // A message goes out by the keys that send one elsewhere.
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target instanceof HTMLTextAreaElement && event.target.closest(".composer")) {
    event.target.form?.requestSubmit(event.target.form.querySelector("button.primary"));
  }
});

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[data-window]") : null;
  if (!(link instanceof HTMLAnchorElement)) return;
  event.preventDefault();
  window.open(link.href, link.target, "popup,width=620,height=760");
});

rememberPage();
localise(document);
watch(document);
tick(document);
setInterval(() => { if (!document.hidden) tick(document); }, 1000);
watchForms();
const live = keepLive(changed);
openPanels(changed, live.refresh);
if (document.getElementById("replay")) void import("./step.js").then(({ stepThrough }) => stepThrough(live.go));
enhance(document);
watchPhone();
document.documentElement.dataset.ready = "";
