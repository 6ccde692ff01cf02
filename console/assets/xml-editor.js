// @ts-check
// <offhook-xml-editor>: adds syntax colours, linter marks and completion to a textarea. The textarea keeps the text, so undo,
// search and screen readers work as usual.

const ELEMENTS = {
  Speak: ["voice", "language", "loop"], Play: ["loop"], GetInput: ["action", "method", "inputType", "numDigits", "executionTimeout", "digitEndTimeout", "speechEndTimeout", "finishOnKey", "retries", "language", "hints", "redirect", "log"],
  GetDigits: ["action", "method", "timeout", "digitTimeout", "finishOnKey", "numDigits", "retries", "redirect", "playBeep", "validDigits", "invalidDigitsSound", "log"],
  Record: ["action", "method", "fileFormat", "redirect", "timeout", "maxLength", "recordSession", "playBeep", "finishOnKey", "callbackUrl", "callbackMethod"],
  Dial: ["action", "method", "hangupOnStar", "timeLimit", "timeout", "callerId", "callerName", "confirmSound", "confirmKey", "dialMusic", "callbackUrl", "redirect", "sequential"],
  Number: ["sendDigits", "sendOnPreanswer"], User: ["sendDigits", "sipHeaders"], Conference: ["muted", "enterSound", "exitSound", "startConferenceOnEnter", "endConferenceOnExit", "stayAlone", "waitSound", "maxMembers", "record", "hangupOnStar", "callbackUrl"],
  MultiPartyCall: ["role", "maxDuration", "maxParticipants", "record", "startMpcOnEnter", "endMpcOnExit"], Stream: ["bidirectional", "audioTrack", "streamTimeout", "contentType", "keepCallAlive", "statusCallbackUrl"],
  Redirect: ["method"], Wait: ["length", "silence", "minSilence", "beep"], Hangup: ["reason", "schedule"], DTMF: ["async"], PreAnswer: [], Message: ["src", "dst", "type", "callbackUrl"], Response: [],
};
const PAUSE_MS = 300;

class XmlEditor extends HTMLElement {
  connectedCallback() {
    const area = this.querySelector("textarea");
    if (!area) return;
    this.area = area;
    this.layer = Object.assign(document.createElement("pre"), { className: "layer" });
    this.gutter = Object.assign(document.createElement("div"), { className: "gutter" });
    for (const part of [this.layer, this.gutter]) part.setAttribute("aria-hidden", "true");
    this.prepend(this.layer, this.gutter);
    this.classList.add("layered");
    /** @type {Map<number, string>} */
    this.marks = new Map();
    area.addEventListener("input", () => { this.paint(); this.lintSoon(); this.offer(); });
    area.addEventListener("scroll", () => this.follow());
    area.addEventListener("keydown", (event) => this.key(event));
    area.addEventListener("blur", () => setTimeout(() => this.shut(), 150));
    this.paint();
    void this.lint();
  }

  follow() {
    if (!this.area || !this.layer || !this.gutter) return;
    this.layer.scrollTop = this.gutter.scrollTop = this.area.scrollTop;
    this.layer.scrollLeft = this.area.scrollLeft;
  }

  paint() {
    if (!this.area || !this.layer || !this.gutter) return;
    const text = this.area.value;
    this.layer.replaceChildren(...coloured(text), "\n");
    this.gutter.replaceChildren(...text.split("\n").map((_, n) =>
      Object.assign(document.createElement("b"), { textContent: String(n + 1), className: this.marks?.get(n + 1) ?? "" })));
    this.follow();
  }

  lintSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => void this.lint(), PAUSE_MS);
  }

  async lint() {
    const area = this.area;
    const text = area?.value ?? "";
    const answer = await fetch("/api/v1/xml/check/", {
      method: "POST", body: text, headers: { "content-type": "application/xml", "x-csrf-token": document.body.dataset.csrf ?? "" },
    }).catch(() => null);
    if (!answer?.ok || area?.value !== text) return;
    const report = await answer.json();
    this.marks = new Map();
    for (const finding of report.findings.slice(0, 500)) {
      const bad = finding.severity === "error" || this.marks.get(finding.line) === "bad";
      this.marks.set(finding.line, bad ? "bad" : "warn");
    }
    this.paint();
    showFindings(report);
  }

  /** Shows completions at the caret. */
  offer() {
    this.shut();
    const area = this.area;
    if (!area) return;
    const before = area.value.slice(0, area.selectionStart);
    const name = /<(\w*)$/.exec(before);
    const attribute = /<(\w+)(?:\s+[\w:]+\s*=\s*"[^"]*")*\s+(\w*)$/.exec(before);
    const known = /** @type {Record<string, string[]>} */ (ELEMENTS);
    const typed = name?.[1] ?? attribute?.[2];
    const from = name ? Object.keys(known) : attribute ? known[attribute[1]] ?? [] : [];
    if (typed === undefined) return;
    const fits = from.filter((word) => word.toLowerCase().startsWith(typed.toLowerCase()) && word !== typed).slice(0, 30);
    if (!fits.length) return;
    const list = Object.assign(document.createElement("ul"), { className: "complete" });
    list.setAttribute("role", "listbox");
    fits.forEach((word, n) => {
      const item = Object.assign(document.createElement("li"), { textContent: word });
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", String(n === 0));
      item.addEventListener("mousedown", (event) => { event.preventDefault(); this.choose(word, typed, Boolean(attribute)); });
      list.append(item);
    });
    const lines = before.split("\n");
    list.style.top = `${1 + lines.length * 1.3923 - area.scrollTop / 16}rem`;
    list.style.left = `${3.6 + (lines.at(-1)?.length ?? 0) * 0.507}rem`;
    this.list = list;
    this.typed = { typed, attribute: Boolean(attribute) };
    this.append(list);
  }

  /** @param {string} word @param {string} typed @param {boolean} attribute */
  choose(word, typed, attribute) {
    const area = this.area;
    if (!area) return;
    area.setSelectionRange(area.selectionStart - typed.length, area.selectionStart);
    // `execCommand` keeps the undo history.
    document.execCommand("insertText", false, attribute ? `${word}=""` : word);
    if (attribute) area.setSelectionRange(area.selectionStart - 1, area.selectionStart - 1);
    this.shut();
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    const items = [...(this.list?.children ?? [])];
    const at = items.findIndex((item) => item.getAttribute("aria-selected") === "true");
    if (!items.length || !this.typed) return;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const next = (at + (event.key === "ArrowDown" ? 1 : items.length - 1)) % items.length;
      items.forEach((item, n) => item.setAttribute("aria-selected", String(n === next)));
      items[next].scrollIntoView({ block: "nearest" });
    } else if (event.key === "Tab" || event.key === "Enter") {
      event.preventDefault();
      this.choose(items[at]?.textContent ?? "", this.typed.typed, this.typed.attribute);
    } else if (event.key === "Escape") {
      this.shut();
    }
  }

  shut() {
    this.list?.remove();
    this.list = undefined;
  }
}

/** @param {string} text */
function* coloured(text) {
  const parts = /(<!--[\s\S]*?(?:-->|$))|(<\/?|\/?>)([\w:]*)|([\w:]+)(?=\s*=\s*")|("[^"<]*"?)|([^<>"\w]+|\w+)/g;
  let inside = false;
  for (const [all, comment, mark, name, attribute, value] of text.matchAll(parts)) {
    if (comment) { yield span("x-comment", comment); continue; }
    if (mark) {
      inside = mark.startsWith("<");
      yield span("x-mark", mark);
      if (name) yield inside ? span("x-name", name) : name;
      continue;
    }
    if (inside && attribute) yield span("x-attr", attribute);
    else if (inside && value) yield span("x-value", value);
    else yield all;
  }
}

/** @param {string} kind @param {string} text */
function span(kind, text) {
  return Object.assign(document.createElement("span"), { className: kind, textContent: text });
}

/** Shows the findings of the linter. @param {any} report */
function showFindings(report) {
  const list = /** @type {HTMLElement | null} */ (document.querySelector("#findings ul"));
  const verdict = document.getElementById("verdict");
  if (verdict) {
    verdict.className = `pill ${report.ok ? "good" : "bad"}`;
    verdict.textContent = (report.ok ? verdict.dataset.good : verdict.dataset.bad) ?? "";
  }
  if (!list) return;
  const items = report.findings.slice(0, 50).map((/** @type {any} */ finding) => {
    const item = document.createElement("li");
    if (finding.severity === "error") item.className = "bad";
    const text = document.createElement("span");
    text.append(`${(list.dataset.line ?? "{0}").replace("{0}", String(finding.line))}: ${finding.message}`);
    if (finding.hint) text.append(Object.assign(document.createElement("em"), { textContent: ` ${finding.hint}` }));
    item.append(span("rule", finding.rule), text);
    return item;
  });
  if (!items.length) {
    const item = Object.assign(document.createElement("li"), { className: "good" });
    item.append("✓ ", list.dataset.none ?? "");
    items.push(item);
  }
  list.replaceChildren(...items);
}
customElements.define("offhook-xml-editor", XmlEditor);
