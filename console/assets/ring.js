// @ts-check
// The phone rings on every page. The tab that is the phone (`phone.js`) tells the others of this browser who calls, and they
// tell it what to do. A lock that it holds as long as it rings, and one as long as it is a phone, end with its tab, however
// that ends: no banner outlives what it is of.

import { toast } from "./ask.js";

const CHANNEL = "offhook-phone";
const IS_PHONE = "offhook-is-phone";
/** A tab that is left for another page is no phone for so long. */
const PAUSE_MS = 1500;

/** @typedef {{ call: string, name: string, number: string, via: string }} Ringing */

/** Holds a lock until what it gives is called, or the tab is gone. @param {string} name @param {"shared" | "exclusive"} mode @param {() => void} [held] */
function hold(name, mode, held) {
  /** @type {(value?: unknown) => void} */
  let free = () => {};
  const freed = new Promise((done) => { free = done; });
  if (navigator.locks) void navigator.locks.request(name, { mode }, () => { held?.(); return freed; }).catch(() => {});
  else held?.();
  return free;
}

/** The phone's side. */
export class Bell {
  channel = new BroadcastChannel(CHANNEL);
  tab = String(Math.random());
  on = false;
  /** @type {Ringing | null} */ ringing = null;
  quiet = () => {};
  off = () => {};

  /** @param {(deed: string) => void} asked is told what another tab wants of the call that rings */
  constructor(asked) {
    this.channel.onmessage = ({ data }) => {
      if (data.is === "who") this.tell();
      if (data.is === "deed" && data.tab === this.tab && this.ringing && data.call === this.ringing.call) asked(data.deed);
    };
    addEventListener("pagehide", () => { this.is(false); this.rings(null); });
  }

  /** Whether this tab is a phone. @param {boolean} on */
  is(on) {
    if (on === this.on) return;
    this.on = on;
    this.off();
    if (on) this.off = hold(IS_PHONE, "shared", () => this.tell()); else this.tell();
  }

  /** Who calls; null: it rings no longer. @param {Ringing | null} who */
  rings(who) {
    if (who === this.ringing) return;
    this.ringing = who;
    this.quiet();
    if (who) this.quiet = hold(`${CHANNEL}:${this.tab}:${who.call}`, "exclusive", () => this.tell()); else this.tell();
  }

  /** Tells what kept it from doing what another tab wanted. @param {string} text */
  trouble(text) { this.channel.postMessage({ is: "trouble", text }); }

  /** The call that rang is up. @param {string} call */
  taken(call) { this.channel.postMessage({ is: "taken", call }); }

  tell() { this.channel.postMessage({ is: "phone", tab: this.tab, on: this.on, ringing: this.ringing }); }
}

/** Every other page's side. */
export function watchPhone() {
  const place = document.getElementById("ringing");
  const pattern = /** @type {HTMLTemplateElement | null} */ (document.getElementById("ringing-card"));
  if (!place || !pattern || !("BroadcastChannel" in window)) return;
  const channel = new BroadcastChannel(CHANNEL);
  /** @type {Map<string, { card: Element, tab: string, gone: AbortController }>} */
  const shown = new Map();

  /** What was answered from here. */
  let taking = "";

  /** @param {string} call */
  function take(call) {
    const one = shown.get(call);
    if (!one) return;
    shown.delete(call);
    one.gone.abort();
    const focused = one.card.contains(document.activeElement);
    one.card.remove();
    if (!shown.size) place?.hidePopover();
    if (focused) document.getElementById("main")?.focus();
  }

  /** @param {string} tab @param {Ringing} who */
  function show(tab, who) {
    const card = /** @type {Element} */ (/** @type {DocumentFragment} */ (pattern?.content.cloneNode(true)).firstElementChild);
    for (const [name, text] of Object.entries({ name: who.name || who.number, number: who.name ? who.number : "", via: who.via })) {
      const part = /** @type {HTMLElement} */ (card.querySelector(`[data-at="${name}"]`));
      part.textContent = name === "via" && text ? (part.dataset.text ?? "{0}").replace("{0}", text) : text;
      part.hidden = !text;
    }
    card.addEventListener("click", (event) => {
      const button = event.target instanceof Element ? event.target.closest("button") : null;
      if (!button) return;
      channel.postMessage({ is: "deed", deed: button.value, call: who.call, tab });
      if (button.value === "accept") taking = who.call;
    });
    const gone = new AbortController();
    shown.set(who.call, { card, tab, gone });
    // The phone lets go of it: answered, over, or the tab is closed.
    void navigator.locks?.request(`${CHANNEL}:${tab}:${who.call}`, { mode: "shared", signal: gone.signal }, () => take(who.call)).catch(() => {});
    // Shown first: what comes into an alert that is there is read out.
    if (!place?.matches(":popover-open")) place?.showPopover();
    place?.append(card);
  }

  channel.onmessage = ({ data }) => {
    if (data.is === "trouble" && taking) toast(String(data.text), true);
    if (data.is === "taken" && data.call === taking) toast(place.dataset.answered ?? "");
    if (data.is !== "phone") return;
    /** @type {Ringing | null} */
    const who = data.ringing;
    for (const [call, one] of [...shown]) if (one.tab === data.tab && call !== who?.call) take(call);
    // A phone rings for itself.
    if (who && !shown.has(who.call) && !document.querySelector("offhook-phone:not([data-draft])")) show(data.tab, who);
    if (data.on) known = true;
    if (data.on) void look(); else setTimeout(look, PAUSE_MS);
  };

  // "Phone is off": an endpoint of theirs, or one that this browser was, is registered nowhere that we know of.
  const off = document.getElementById("phone-off");
  /** A phone has been here since the page was made: what it said of phones elsewhere is old. */
  let known = false;
  async function look() {
    if (!off || off.dataset.here !== undefined) return;
    let kept = null;
    try { kept = localStorage.getItem(`offhook-endpoint:${off.dataset.person}`); } catch { /* a browser that keeps nothing */ }
    const held = (await navigator.locks?.query().catch(() => null))?.held ?? [];
    const elsewhere = off.dataset.is === "on" && !known;
    off.hidden = held.some((lock) => lock.name === IS_PHONE) || elsewhere || off.dataset.is === "none" && !kept;
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { channel.postMessage({ is: "who" }); void look(); } });
  void look();
  channel.postMessage({ is: "who" });
}
