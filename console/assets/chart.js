// @ts-check
// Charts over time (`.plot[data-values]`): the values of the column under the pointer, or of the one chosen with the arrow keys.
// Dragging across a chart, or Enter, shows that part of the time. Without this module, the table below a chart has its values.

const lang = document.documentElement.lang;
const day = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" });
const second = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "medium" });
const count = new Intl.NumberFormat(lang);

/** @param {string} kind */
function overlay(kind) {
  const box = document.createElement("div");
  box.className = kind;
  box.hidden = true;
  return box;
}
const [tip, mark] = [overlay("chart-tip"), overlay("chart-mark")];
tip.setAttribute("role", "status");
document.body.append(mark, tip);

/** The values of a chart by column, their names, and the time of its columns in seconds. @param {HTMLElement} plot */
function data(plot) {
  const { values, names, from, step } = plot.dataset;
  return {
    values: /** @type {number[][]} */ (JSON.parse(values ?? "[]")),
    names: /** @type {string[]} */ (JSON.parse(names ?? "[]")),
    from: Number(from),
    step: Number(step),
  };
}

/** @param {HTMLElement} plot */
const area = (plot) => plot.querySelector(".chart")?.getBoundingClientRect() ?? plot.getBoundingClientRect();

/** The column at a horizontal position. @param {HTMLElement} plot @param {number} x */
function columnAt(plot, x) {
  const { left, width } = area(plot);
  const columns = data(plot).values.length;
  return Math.max(0, Math.min(columns - 1, Math.floor(((x - left) / width) * columns)));
}

/** Shows the values of a column, and marks the columns from `first` to it. @param {HTMLElement} plot @param {number} column @param {number} [first] */
function show(plot, column, first = column) {
  const { values, names, from, step } = data(plot);
  const box = area(plot);
  const each = box.width / Math.max(1, values.length);
  const [low, high] = [Math.min(first, column), Math.max(first, column)];
  const format = step < 60 ? second : day;
  const at = (/** @type {number} */ n) => format.format(new Date((from + n * step) * 1000));
  const lines = low === high
    ? names.map((name, n) => `${name}: ${count.format(values[column]?.[n] ?? 0)}`)
    : [`– ${at(high + 1)}`];
  tip.replaceChildren(...[at(low), ...lines].map((text) => Object.assign(document.createElement("p"), { textContent: text })));
  tip.hidden = mark.hidden = false;
  mark.style.left = `${box.left + low * each}px`;
  mark.style.top = `${box.top}px`;
  mark.style.width = `${Math.max(1, (high - low + 1) * each)}px`;
  mark.style.height = `${box.height}px`;
  const left = box.left + (column + 0.5) * each + 12;
  const fits = left + tip.offsetWidth < document.documentElement.clientWidth;
  tip.style.left = `${fits ? left : Math.max(4, left - tip.offsetWidth - 24)}px`;
  tip.style.top = `${Math.max(4, box.top - 8)}px`;
}

function hide() {
  tip.hidden = mark.hidden = true;
}

/** Shows the time of some columns. @param {HTMLElement} plot @param {number} first @param {number} last */
function zoom(plot, first, last) {
  const { from, step } = data(plot);
  const [low, high] = [Math.min(first, last), Math.max(first, last)];
  const to = new URL(location.href);
  to.search = new URLSearchParams({ from: String(from + low * step), to: String(from + (high + 1) * step) }).toString();
  location.assign(to);
}

/** Marks a chart whose columns are being chosen: `live.js` must not replace it. @param {HTMLElement} plot @param {boolean} is */
const markChoosing = (plot, is) => plot.toggleAttribute("data-choosing", is);

/** The chart that a drag began on, and its column. @type {{ plot: HTMLElement, column: number } | undefined} */
let drag;
/** The column chosen with the arrow keys. */
let chosen = -1;

/** @param {Event} event */
const plotOf = (event) => (event.target instanceof Element ? /** @type {HTMLElement | null} */ (event.target.closest(".plot[data-values]")) : null);

document.addEventListener("pointermove", (event) => {
  if (drag) { show(drag.plot, columnAt(drag.plot, event.clientX), drag.column); return; }
  const plot = plotOf(event);
  if (plot) show(plot, columnAt(plot, event.clientX));
  else if (chosen < 0) hide();
});
document.addEventListener("pointerdown", (event) => {
  const plot = plotOf(event);
  // A finger scrolls the page.
  if (!plot || event.button !== 0 || event.pointerType === "touch") return;
  event.preventDefault();
  drag = { plot, column: columnAt(plot, event.clientX) };
  markChoosing(plot, true);
});
/** Ends the drag, if there is one, and returns it. */
function endDrag() {
  const ended = drag;
  drag = undefined;
  if (ended) markChoosing(ended.plot, ended.plot === document.activeElement);
  return ended;
}
document.addEventListener("pointerup", (event) => {
  const begun = endDrag();
  if (!begun) return;
  const column = columnAt(begun.plot, event.clientX);
  if (column !== begun.column) zoom(begun.plot, begun.column, column);
});
document.addEventListener("pointercancel", () => { endDrag(); hide(); });
addEventListener("scroll", hide, { passive: true, capture: true });

document.addEventListener("keydown", (event) => {
  const plot = event.target instanceof HTMLElement && event.target.matches(".plot[data-values]") ? event.target : null;
  if (!plot || event.ctrlKey || event.metaKey || event.altKey) return;
  const last = data(plot).values.length - 1;
  const moves = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: last };
  if (event.key in moves) {
    chosen = Math.max(0, Math.min(last, moves[/** @type {keyof typeof moves} */ (event.key)]));
    show(plot, chosen);
  } else if (event.key === "Enter" && chosen >= 0) zoom(plot, chosen, chosen);
  else if (event.key === "Escape") { chosen = -1; hide(); return; }
  else return;
  event.preventDefault();
});
document.addEventListener("focusin", (event) => {
  const plot = plotOf(event);
  if (!plot) return;
  // The keys begin at the latest values.
  chosen = data(plot).values.length;
  markChoosing(plot, true);
});
document.addEventListener("focusout", (event) => {
  chosen = -1;
  hide();
  const plot = plotOf(event);
  if (plot) markChoosing(plot, plot === drag?.plot);
});
