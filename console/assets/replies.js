// @ts-check
// <offhook-replies>: offers the canned replies of the page while the message of its form begins with a slash.

class Replies extends HTMLElement {
  connectedCallback() {
    /** @type {[string, string][]} */ this.replies = JSON.parse(this.dataset.replies ?? "[]");
    this.area = this.closest("form")?.querySelector("textarea");
    if (!this.area || !this.replies.length) return;
    this.list = document.createElement("ul");
    this.list.id = "replies";
    this.list.hidden = true;
    this.list.setAttribute("role", "listbox");
    this.list.setAttribute("aria-label", this.dataset.label ?? "");
    this.replaceChildren(this.list);
    this.area.setAttribute("aria-autocomplete", "list");
    this.area.setAttribute("aria-controls", "replies");
    this.stop = new AbortController();
    const { signal } = this.stop;
    this.area.addEventListener("input", () => this.show(), { signal });
    this.area.addEventListener("blur", () => this.hide(), { signal });
    this.area.addEventListener("keydown", (event) => this.key(event), { signal });
    // The field keeps the focus.
    this.list.addEventListener("mousedown", (event) => event.preventDefault());
    this.list.addEventListener("click", (event) => {
      const option = event.target instanceof Element ? event.target.closest("li") : null;
      if (option) this.choose(option);
    });
  }

  disconnectedCallback() { this.stop?.abort(); }

  options() { return /** @type {HTMLLIElement[]} */ ([...(this.list?.children ?? [])]); }

  show() {
    const typed = /^\/([a-z0-9_-]*)$/i.exec(this.area?.value ?? "")?.[1]?.toLowerCase();
    const found = typed === undefined ? [] : (this.replies ?? []).filter(([shortcut]) => shortcut.startsWith(typed));
    if (!this.list || !found.length) { this.hide(); return; }
    this.list.replaceChildren(...found.map(([shortcut, text], at) => {
      const option = document.createElement("li");
      option.id = `reply-${at}`;
      option.setAttribute("role", "option");
      const name = document.createElement("strong");
      name.textContent = `/${shortcut}`;
      const words = document.createElement("span");
      words.dir = "auto";
      words.textContent = text;
      option.append(name, words);
      option.dataset.text = text;
      return option;
    }));
    this.list.hidden = false;
    this.mark(0);
  }

  hide() {
    if (this.list) this.list.hidden = true;
    this.area?.removeAttribute("aria-activedescendant");
  }

  /** @param {number} at */
  mark(at) {
    const all = this.options();
    all.forEach((option, n) => option.setAttribute("aria-selected", String(n === at)));
    all[at]?.scrollIntoView({ block: "nearest" });
    if (all[at]) this.area?.setAttribute("aria-activedescendant", all[at].id);
  }

  /** @param {Element} option */
  choose(option) {
    if (this.area) {
      this.area.value = /** @type {HTMLElement} */ (option).dataset.text ?? "";
      this.area.focus();
    }
    this.hide();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    if (!this.list || this.list.hidden || event.isComposing || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const all = this.options();
    const at = all.findIndex((option) => option.getAttribute("aria-selected") === "true");
    const chosen = all[at];
    if (event.key === "ArrowDown") this.mark((at + 1) % all.length);
    else if (event.key === "ArrowUp") this.mark((at + all.length - 1) % all.length);
    else if (event.key === "Escape") this.hide();
    else if ((event.key === "Enter" || event.key === "Tab") && chosen) this.choose(chosen);
    else return;
    event.preventDefault();
    // Otherwise Enter would send the message.
    event.stopPropagation();
  }
}
customElements.define("offhook-replies", Replies);
