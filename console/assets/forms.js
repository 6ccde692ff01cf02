// @ts-check
// What forms have beyond HTML: a question first (`data-confirm`), once at a time, fields that are judged while one types, and
// no way out that loses what was typed (`data-guard`). Without it the server says the same.

import { ask } from "./ask.js";

/** @param {HTMLFormElement} form */
const state = (form) => new URLSearchParams(/** @type {any} */ (new FormData(form))).toString();

/** Whether a form says something else than when it came. @param {ParentNode} root */
export function isChanged(root) {
  const forms = /** @type {NodeListOf<HTMLFormElement>} */ (root.querySelectorAll("form[data-guard]"));
  return [...forms].some((form) => form.dataset.before !== undefined && form.dataset.before !== state(form));
}

/** @param {Element} field @param {string} rule */
function holds(field, rule) {
  const [name, wanted] = rule.split("=");
  const form = field.closest("form");
  const value = form ? new FormData(form).get(name) : null;
  return wanted === undefined ? value !== null : value === wanted;
}

/** Whether what a rule hangs on, or the field itself, is another than it was: what was stored before is judged with `data-always` only. @param {HTMLInputElement} field @param {string} rule */
function isNew(field, rule) {
  const [name] = rule.split("=");
  const on = /** @type {NodeListOf<HTMLInputElement>} */ (field.form?.querySelectorAll(`[name="${name}"]`) ?? []);
  return field.value !== field.defaultValue || [...on].some((choice) => choice.checked !== choice.defaultChecked);
}

/** What is wrong with a field, in the page's words. @param {HTMLInputElement} field */
function wrong(field) {
  const text = field.value.trim();
  const { needs, missing, badUrl } = field.dataset;
  const needed = needs !== undefined && holds(field, needs);
  if (needs !== undefined) field.setAttribute("aria-required", String(needed));
  if (!text) return needed && (field.dataset.always !== undefined || isNew(field, needs)) ? missing ?? "" : "";
  if (badUrl === undefined) return "";
  try {
    const url = new URL(text);
    const fits = url.protocol === "https:" || url.protocol === "http:" && field.dataset.insecure !== undefined;
    return fits && url.hostname && !/\s/.test(text) ? "" : badUrl;
  } catch { return badUrl; }
}

/** @param {HTMLInputElement} field @param {boolean} aloud */
function judge(field, aloud) {
  const text = wrong(field);
  field.setCustomValidity(text);
  if (!text || aloud) show(field, text);
}

/** @param {HTMLInputElement} field @param {string} text */
function show(field, text) {
  const place = field.closest(".field")?.querySelector(".wrong");
  if (place) place.textContent = text;
  if (text) field.setAttribute("aria-invalid", "true"); else field.removeAttribute("aria-invalid");
}

/** Fields and forms that came. @param {ParentNode} root */
export function prepare(root) {
  for (const form of /** @type {NodeListOf<HTMLFormElement>} */ (root.querySelectorAll("form[data-guard]"))) {
    // What was refused is not saved: it differs from what there was.
    form.dataset.before = form.dataset.guard === "refused" ? "" : state(form);
  }
  for (const field of /** @type {NodeListOf<HTMLInputElement>} */ (root.querySelectorAll("[data-needs], [data-bad-url]"))) {
    field.setCustomValidity(wrong(field));
  }
}

/** Every form of the page from now on. */
export function watchForms() {
  prepare(document);
  document.addEventListener("input", (event) => {
    const field = event.target;
    if (!(field instanceof HTMLElement)) return;
    if (field instanceof HTMLInputElement && (field.dataset.badUrl !== undefined || field.dataset.needs !== undefined)) judge(field, true);
    // Another choice may make a field needed.
    for (const other of /** @type {NodeListOf<HTMLInputElement>} */ (field.closest("form")?.querySelectorAll("[data-needs]") ?? [])) {
      if (other !== field) judge(other, other.getAttribute("aria-invalid") === "true");
    }
  });
  document.addEventListener("invalid", (event) => {
    const field = event.target;
    if (field instanceof HTMLInputElement && field.validationMessage && field.closest(".field")?.querySelector(".wrong")) show(field, field.validationMessage);
  }, true);

  let sure = /** @type {Element | null} */ (null);
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-confirm]") : null;
    if (!(button instanceof HTMLElement) || button === sure) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    void ask(button.dataset.confirm ?? "").then((yes) => {
      if (!yes) return;
      sure = button;
      button.click();
      sure = null;
    });
  }, true);

  let leaving = false;
  document.addEventListener("submit", (event) => {
    const form = /** @type {HTMLFormElement} */ (event.target);
    // Twice is once.
    if (form.dataset.busy !== undefined) { event.preventDefault(); event.stopImmediatePropagation(); return; }
    // A field may be named `method`.
    if (form.getAttribute("method") !== "post") return;
    form.dataset.busy = "";
    event.submitter?.setAttribute("aria-busy", "true");
    leaving = true;
  }, true);
  addEventListener("pageshow", () => {
    leaving = false;
    for (const form of document.querySelectorAll("form[data-busy]")) idle(/** @type {HTMLFormElement} */ (form));
  });
  addEventListener("beforeunload", (event) => {
    if (!leaving && isChanged(document)) event.preventDefault();
  });
}

/** May be sent again. @param {HTMLFormElement} form */
export function idle(form) {
  delete form.dataset.busy;
  form.querySelector("[aria-busy]")?.removeAttribute("aria-busy");
}
