// @ts-check
// Live captions of a call, as the node sends them (docs/phone.md). A line may be updated until it is final.

/** Maximum number of lines. The oldest are removed. */
const LINES_MAX = 200;

export class Captions {
  on = false;
  /** @type {HTMLSelectElement | undefined} */ choice;
  /** @type {HTMLOptionElement | undefined} */ own;
  /** @type {Map<number, HTMLElement>} */ lines = new Map();

  /**
   * @param {HTMLElement} list container of the lines
   * @param {HTMLElement} button turns captions on and off
   * @param {(speaker: string) => string} name returns the name of a speaker
   * @param {(on: boolean) => void} ask requests captions from the node
   */
  constructor(list, button, name, ask) {
    this.list = list;
    this.card = /** @type {HTMLElement} */ (list.closest("section"));
    this.button = button;
    this.name = name;
    this.ask = ask;
  }

  /** Resets the captions for a new call. */
  clear() {
    this.lines.clear();
    this.list.replaceChildren();
    this.card.hidden = true;
    this.turn(false);
  }

  /** @param {boolean} on */
  turn(on) {
    this.on = on;
    this.button.setAttribute("aria-pressed", String(on));
    if (on) this.card.hidden = false;
  }

  /**
   * Fills the language list, with names in the language of the page. The choice is stored in the browser.
   * @param {HTMLSelectElement} list @param {string[]} tags @param {string} own default language of the node
   */
  offer(list, tags, own) {
    const names = new Intl.DisplayNames([document.documentElement.lang || "en"], { type: "language" });
    const name = (/** @type {string} */ tag) => { try { return names.of(tag) ?? tag; } catch { return tag; } };
    const first = this.own ??= list.options[0];
    first.textContent = `${first.textContent?.split(" (")[0]} (${name(own)})`;
    const options = tags.map((tag) => new Option(name(tag), tag)).sort((a, b) => a.text.localeCompare(b.text));
    list.replaceChildren(...(tags.includes(own) ? [first] : []), ...options);
    const key = `offhook.captions.${list.dataset.person}`;
    // Without local storage, the choice lasts as long as the page.
    try { list.value = localStorage.getItem(key) ?? ""; } catch { /* keep the default */ }
    if (list.selectedIndex < 0) list.selectedIndex = 0;
    list.onchange = () => {
      try { localStorage.setItem(key, list.value); } catch { /* see above */ }
      if (this.on) this.ask(true);
    };
    this.choice = list;
  }

  /** The request to the node. @param {boolean} on */
  request(on) { return { type: "captions", on, ...(on && this.choice?.value ? { language: this.choice.value } : {}) }; }

  /** Adds, updates or removes a line. @param {{speaker: string, line: number, text: string, last: boolean}} caption */
  update({ speaker, line, text, last }) {
    const known = this.lines.get(line);
    if (!text) { known?.remove(); this.lines.delete(line); return; }
    // Do not scroll away from older lines.
    const atEnd = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40;
    const row = known ?? this.row(speaker, line);
    row.classList.toggle("saying", !last);
    const words = /** @type {HTMLElement} */ (row.lastElementChild);
    if (words.textContent !== text) words.textContent = text;
    if (atEnd) this.list.scrollTop = this.list.scrollHeight;
  }

  /** @param {string} speaker @param {number} line */
  row(speaker, line) {
    const row = document.createElement("p");
    row.className = speaker;
    const [who, words] = [document.createElement("strong"), document.createElement("span")];
    who.textContent = this.name(speaker);
    words.dir = "auto";
    row.append(who, words);
    this.list.append(row);
    this.lines.set(line, row);
    for (const [number, old] of this.lines) {
      if (this.lines.size <= LINES_MAX) break;
      old.remove();
      this.lines.delete(number);
    }
    return row;
  }
}
