// @ts-check
// Form features beyond HTML: confirmation (`data-confirm`), protection against double submits, validation while typing, and a
// warning before unsaved input is lost (`data-guard`). The server validates everything too.

import { ask } from "./ask.js";

/** @param {HTMLFormElement} form */
const state = (form) => new URLSearchParams(/** @type {any} */ (new FormData(form))).toString();

/** Whether a form differs from its initial state. @param {ParentNode} root */
export function isChanged(root) {
  const forms = /** @type {NodeListOf<HTMLFormElement>} */ (root.querySelectorAll("form[data-guard]"));
  return [...forms].some((form) => form.dataset.before !== undefined && form.dataset.before !== state(form));
}

/** @param {Element} field @param {string} rule */
function isRuleMet(field, rule) {
  const [name, wanted] = rule.split("=");
  const form = field.closest("form");
  const value = form ? new FormData(form).get(name) : null;
  return wanted === undefined ? value !== null : value === wanted;
}

/** Whether the field, or the one its rule depends on, was changed. Unchanged fields are not validated. @param {HTMLInputElement} field @param {string} rule */
function isNew(field, rule) {
  const [name] = rule.split("=");
  const on = /** @type {NodeListOf<HTMLInputElement>} */ (field.form?.querySelectorAll(`[name="${name}"]`) ?? []);
  return field.value !== field.defaultValue || [...on].some((choice) => choice.checked !== choice.defaultChecked);
}

/** The error message of a field. Empty if it is valid. @param {HTMLInputElement} field */
function errorOf(field) {
  const text = field.value.trim();
  const { needs, unless, missing, badUrl } = field.dataset;
  const spared = unless !== undefined && (unless.includes("=") ? isRuleMet(field, unless) : field.defaultValue === "" && field.form && new FormData(field.form).get(unless));
  const needed = needs !== undefined && isRuleMet(field, needs) && !spared;
  if (needs !== undefined) field.setAttribute("aria-required", String(needed && (isNew(field, needs) || field.defaultValue !== "")));
  if (!text) return needed && isNew(field, needs) ? missing ?? "" : "";
  if (badUrl === undefined) return "";
  try {
    const url = new URL(text);
    const fits = url.protocol === "https:" || url.protocol === "http:" && field.dataset.insecure !== undefined;
    return fits && url.hostname && !/\s/.test(text) ? "" : badUrl;
  } catch { return badUrl; }
}

/** @param {HTMLInputElement} field @param {boolean} report */
function validate(field, report) {
  const text = errorOf(field);
  field.setCustomValidity(text);
  if (!text || report) show(field, text);
}

/** @param {HTMLInputElement} field @param {string} text */
function show(field, text) {
  const place = field.closest(".field")?.querySelector(".wrong");
  if (place) place.textContent = text;
  if (text) field.setAttribute("aria-invalid", "true"); else field.removeAttribute("aria-invalid");
}

/** Prepares new forms and fields. @param {ParentNode} root */
export function prepare(root) {
  for (const form of /** @type {NodeListOf<HTMLFormElement>} */ (root.querySelectorAll("form[data-guard]"))) {
    // A rejected form counts as changed, since it was not saved.
    form.dataset.before = form.dataset.guard === "refused" ? "" : state(form);
  }
  for (const field of /** @type {NodeListOf<HTMLInputElement>} */ (root.querySelectorAll("[data-needs], [data-bad-url]"))) {
    field.setCustomValidity(errorOf(field));
  }
}

/** Installs the handlers for all forms. */
export function watchForms() {
  prepare(document);
  document.addEventListener("input", (event) => {
    const field = event.target;
    if (!(field instanceof HTMLElement)) return;
    if (field instanceof HTMLInputElement && (field.dataset.badUrl !== undefined || field.dataset.needs !== undefined)) validate(field, true);
    // The browser's own error, which `invalid` showed.
    else if (field instanceof HTMLInputElement && field.getAttribute("aria-invalid") === "true" && field.validity.valid) show(field, "");
    // Another field may make this one required.
    for (const other of /** @type {NodeListOf<HTMLInputElement>} */ (field.closest("form")?.querySelectorAll("[data-needs]") ?? [])) {
      if (other !== field) validate(other, other.getAttribute("aria-invalid") === "true");
    }
  });
  document.addEventListener("invalid", (event) => {
    const field = event.target;
    if (field instanceof HTMLInputElement && field.validationMessage && field.closest(".field")?.querySelector(".wrong")) show(field, field.validationMessage);
  }, true);

  let confirmed = /** @type {Element | null} */ (null);
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-confirm]") : null;
    if (!(button instanceof HTMLElement) || button === confirmed) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    // In a list, the question begins with the name of the row.
    const row = button.closest("tr")?.querySelector("strong")?.textContent ?? "";
    void ask(`${row}\n${button.dataset.confirm ?? ""}`.trim()).then((yes) => {
      if (!yes) return;
      confirmed = button;
      // Without scripts, this address asks.
      button.removeAttribute("formaction");
      button.click();
      confirmed = null;
    });
  }, true);

  let leaving = false;
  document.addEventListener("submit", (event) => {
    const form = /** @type {HTMLFormElement} */ (event.target);
    // Ignore a double submit.
    if (form.dataset.busy !== undefined) { event.preventDefault(); event.stopImmediatePropagation(); return; }
    // `form.method` may be a field of that name.
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

/** Allows the form to be submitted again. @param {HTMLFormElement} form */
export function idle(form) {
  delete form.dataset.busy;
  form.querySelector("[aria-busy]")?.removeAttribute("aria-busy");
}
