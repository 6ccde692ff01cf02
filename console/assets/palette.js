// @ts-check
// The command palette (Ctrl+K, Cmd+K), and keyboard shortcuts with their sheet (?). Texts and commands come from the page.

/** Name of the setting by which a browser turns off shortcuts of one character. */
const OFF = "offhook-single-keys-off";
/** Time within which the second key of a shortcut follows. */
const SECOND_KEY_MS = 1500;
const ROWS_MAX = 12;

const palette = () => /** @type {HTMLDialogElement | null} */ (document.getElementById("palette"));
const sheet = () => /** @type {HTMLDialogElement | null} */ (document.getElementById("shortcuts"));
const isOff = () => { try { return localStorage.getItem(OFF) !== null; } catch { return false; } };

/** Whether keys go into a field or a dialog. The field of a closed dialog keeps the focus until the next frame. @param {EventTarget | null} target */
const isTaken = (target) =>
  !!document.querySelector("dialog[open]") || (target instanceof HTMLElement && target.checkVisibility() && (target.isContentEditable || target.matches("input, textarea, select, audio, video, [role=slider]")));

/** A command: a link of the navigation or of the palette. @typedef {{ name: string, href: string, key: string }} Command */

/** @returns {Command[]} */
function commands() {
  const links = /** @type {NodeListOf<HTMLAnchorElement>} */ (document.querySelectorAll("#places a[data-key], #palette-more a"));
  return [...links].map((link) => ({ name: (link.querySelector("span") ?? link).textContent?.trim() ?? "", href: link.getAttribute("href") ?? "", key: link.dataset.key ?? "" }));
}

/** Commands that contain each word of the text, then searches for it. @param {string} text @returns {Command[]} */
function matching(text) {
  const words = text.toLocaleLowerCase().split(/\s+/u).filter(Boolean);
  const found = commands().filter(({ name }) => words.every((word) => name.toLocaleLowerCase().includes(word)));
  if (!words.length) return found.slice(0, ROWS_MAX);
  const typed = text.trim();
  const searches = [...document.querySelectorAll("#palette-search a")].flatMap((link) => {
    const { only } = /** @type {HTMLElement} */ (link).dataset;
    if (only && !new RegExp(only, "iu").test(typed)) return [];
    const href = (link.getAttribute("href") ?? "").replace("{0}", encodeURIComponent(typed));
    return [{ name: (link.textContent ?? "").replace("{0}", typed), href, key: "" }];
  });
  return [...found.slice(0, ROWS_MAX - searches.length), ...searches];
}

function openPalette() {
  const dialog = palette();
  if (!dialog || document.querySelector("dialog[open]")) return;
  const [input, list, none] = [dialog.querySelector("input"), dialog.querySelector("ul"), dialog.querySelector("p")];
  if (!input || !list || !none) return;
  /** @type {Command[]} */
  let rows = [];
  let at = 0;
  const choose = (/** @type {number} */ index) => {
    at = rows.length ? (index + rows.length) % rows.length : 0;
    [...list.children].forEach((row, n) => row.setAttribute("aria-selected", String(n === at)));
    const chosen = list.children[at];
    chosen?.scrollIntoView({ block: "nearest" });
    if (chosen) input.setAttribute("aria-activedescendant", chosen.id); else input.removeAttribute("aria-activedescendant");
  };
  const go = () => {
    const row = rows[at];
    if (!row) return;
    dialog.close();
    if (row.href === "#shortcuts") openSheet(); else location.assign(row.href);
  };
  const draw = () => {
    rows = matching(input.value);
    list.replaceChildren(...rows.map(({ name, key }, n) => {
      const row = Object.assign(document.createElement("li"), { id: `palette-${n}`, role: "option" });
      row.append(Object.assign(document.createElement("span"), { textContent: name, dir: "auto" }));
      if (key && !isOff()) row.append(Object.assign(document.createElement("kbd"), { textContent: key }));
      row.onclick = () => { choose(n); go(); };
      row.onmousemove = () => { if (at !== n) choose(n); };
      return row;
    }));
    list.hidden = !rows.length;
    none.hidden = !!rows.length;
    input.setAttribute("aria-expanded", String(!!rows.length));
    choose(0);
  };
  input.value = "";
  input.oninput = draw;
  input.onkeydown = (event) => {
    if (event.isComposing) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) choose(at + step);
    else if (event.key === "Enter") go();
    else return;
    event.preventDefault();
  };
  draw();
  dialog.showModal();
}

function openSheet() {
  const dialog = sheet();
  if (!dialog || document.querySelector("dialog[open]")) return;
  const off = dialog.querySelector("input");
  if (off) {
    off.checked = !isOff();
    off.onchange = () => {
      try { if (off.checked) localStorage.removeItem(OFF); else localStorage.setItem(OFF, ""); } catch { /* not stored */ }
    };
  }
  dialog.showModal();
}

/** Goes to the next or previous row of a list: opens it if the list is beside an open one. @param {number} step */
function move(step) {
  const rows = /** @type {HTMLAnchorElement[]} */ ([...document.querySelectorAll("[data-rows] a.row-link, .pane a")]);
  const open = rows.findIndex((row) => row.hasAttribute("aria-current"));
  const at = open < 0 ? rows.findIndex((row) => row === document.activeElement) : open;
  const next = rows[at < 0 ? 0 : at + step];
  if (!next) return false;
  if (open < 0) next.focus(); else next.click();
  return true;
}

/** The first key of a shortcut of two, and when it was pressed. */
let first = { key: "", at: 0 };

/** Listens for shortcuts. */
export function watchKeys() {
  if (!palette()) return;
  // A click outside of the content closes the dialog.
  for (const dialog of [palette(), sheet()]) dialog?.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.altKey) return;
    if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      if (palette()?.open) palette()?.close(); else openPalette();
      return;
    }
    if (event.ctrlKey || event.metaKey || isTaken(event.target) || isOff()) return;
    const sequence = `${event.timeStamp - first.at < SECOND_KEY_MS ? first.key : ""} ${event.key}`.trim();
    first = { key: event.key === "g" ? "g" : "", at: event.timeStamp };
    const place = /** @type {HTMLAnchorElement | null} */ (sequence.includes(" ") ? document.querySelector(`#places a[data-key="${CSS.escape(sequence)}"]`) : null);
    const search = /** @type {HTMLElement | null} */ (event.key === "/" ? document.querySelector("main input[type=search]") : null);
    if (place) location.assign(place.href);
    else if (event.key === "?") openSheet();
    else if (search) search.focus();
    else if (!((event.key === "j" && move(1)) || (event.key === "k" && move(-1)))) return;
    event.preventDefault();
  });
}
