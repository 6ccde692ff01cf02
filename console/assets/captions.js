// @ts-check
// Live captions of a call: what is said, line by line, as the node tells it (docs/phone.md). Words that are still being said
// stand there too, and give way to what comes next of the same line.

/** Lines that are kept: the oldest go. */
const LINES_MAX = 200;

export class Captions {
  on = false;
  /** @type {HTMLSelectElement | undefined} */ choice;
  /** @type {HTMLOptionElement | undefined} */ own;
  /** @type {Map<number, HTMLElement>} */ lines = new Map();

  /**
   * @param {HTMLElement} list where lines stand
   * @param {HTMLElement} button turns them on and off
   * @param {(speaker: string) => string} name of who speaks
   * @param {(on: boolean) => void} ask asks the node for them
   */
  constructor(list, button, name, ask) {
    this.list = list;
    this.card = /** @type {HTMLElement} */ (list.closest("section"));
    this.button = button;
    this.name = name;
    this.ask = ask;
  }

  /** Of a call that begins. */
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
   * The languages to choose from, by their names in the page's language; the person's choice is kept in this browser.
   * @param {HTMLSelectElement} list @param {string[]} tags @param {string} own what the node takes where none is chosen
   */
  offer(list, tags, own) {
    const names = new Intl.DisplayNames([document.documentElement.lang || "en"], { type: "language" });
    const name = (/** @type {string} */ tag) => { try { return names.of(tag) ?? tag; } catch { return tag; } };
    const first = this.own ??= list.options[0];
    first.textContent = `${first.textContent?.split(" (")[0]} (${name(own)})`;
    const options = tags.map((tag) => new Option(name(tag), tag)).sort((a, b) => a.text.localeCompare(b.text));
    list.replaceChildren(...(tags.includes(own) ? [first] : []), ...options);
    const key = `offhook.captions.${list.dataset.person}`;
    // A browser may keep nothing: then the choice lasts as long as the page.
    try { list.value = localStorage.getItem(key) ?? ""; } catch { /* as it is */ }
    if (list.selectedIndex < 0) list.selectedIndex = 0;
    list.onchange = () => {
      try { localStorage.setItem(key, list.value); } catch { /* see above */ }
      if (this.on) this.ask(true);
    };
    this.choice = list;
  }

  /** What the node is asked for. @param {boolean} on */
  wish(on) { return { type: "captions", on, ...(on && this.choice?.value ? { language: this.choice.value } : {}) }; }

  /** @param {{speaker: string, line: number, text: string, last: boolean}} told */
  tell({ speaker, line, text, last }) {
    const known = this.lines.get(line);
    if (!text) { known?.remove(); this.lines.delete(line); return; }
    // Who reads further up is left there.
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
