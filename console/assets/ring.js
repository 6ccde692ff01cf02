// @ts-check
// Shows incoming calls on every page. The tab with the phone (`phone.js`) announces calls to the other tabs of the browser, and
// these send it commands. The phone's tab holds one Web Lock while it is registered and one while it rings. Locks end with the
// tab, even if it crashes, so that no banner remains.

import { toast } from "./ask.js";

const CHANNEL = "offhook-phone";
const IS_PHONE = "offhook-is-phone";
/** Time after which a tab that navigated away counts as unregistered. */
const PAUSE_MS = 1500;

/** @typedef {{ call: string, name: string, number: string, via: string }} Ringing */

/** Holds a lock until the returned function is called or the tab closes. @param {string} name @param {"shared" | "exclusive"} mode @param {() => void} [held] */
function hold(name, mode, held) {
  /** @type {(value?: unknown) => void} */
  let free = () => {};
  const freed = new Promise((done) => { free = done; });
  if (navigator.locks) void navigator.locks.request(name, { mode }, () => { held?.(); return freed; }).catch(() => {});
  else held?.();
  return free;
}

/** The side of the tab with the phone. */
export class Bell {
  channel = new BroadcastChannel(CHANNEL);
  tab = String(Math.random());
  on = false;
  /** @type {Ringing | null} */ ringing = null;
  quiet = () => {};
  off = () => {};

  /** @param {(command: string) => void} asked called with the command of another tab for the ringing call */
  constructor(asked) {
    this.channel.onmessage = ({ data }) => {
      if (data.is === "who") this.announce();
      if (data.is === "command" && data.tab === this.tab && this.ringing && data.call === this.ringing.call) asked(data.command);
    };
    addEventListener("pagehide", () => { this.is(false); this.rings(null); });
  }

  /** Sets whether this tab has a registered phone. @param {boolean} on */
  is(on) {
    if (on === this.on) return;
    this.on = on;
    this.off();
    if (on) this.off = hold(IS_PHONE, "shared", () => this.announce()); else this.announce();
  }

  /** Sets the ringing call; null if none rings. @param {Ringing | null} who */
  rings(who) {
    if (who === this.ringing) return;
    this.ringing = who;
    this.quiet();
    if (who) this.quiet = hold(`${CHANNEL}:${this.tab}:${who.call}`, "exclusive", () => this.announce()); else this.announce();
  }

  /** Reports why a command of another tab failed. @param {string} text */
  trouble(text) { this.channel.postMessage({ is: "trouble", text }); }

  /** Announces that the call was answered. @param {string} call */
  taken(call) { this.channel.postMessage({ is: "taken", call }); }

  announce() { this.channel.postMessage({ is: "phone", tab: this.tab, on: this.on, ringing: this.ringing }); }
}

/** The side of all other pages. */
export function watchPhone() {
  const place = document.getElementById("ringing");
  const pattern = /** @type {HTMLTemplateElement | null} */ (document.getElementById("ringing-card"));
  if (!place || !pattern || !("BroadcastChannel" in window)) return;
  const channel = new BroadcastChannel(CHANNEL);
  /** @type {Map<string, { card: Element, tab: string, gone: AbortController }>} */
  const shown = new Map();

  /** The call that was answered from this tab. */
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
      channel.postMessage({ is: "command", command: button.value, call: who.call, tab });
      if (button.value === "accept") taking = who.call;
    });
    const gone = new AbortController();
    shown.set(who.call, { card, tab, gone });
    // The phone releases the lock: the call was answered or ended, or the tab closed.
    void navigator.locks?.request(`${CHANNEL}:${tab}:${who.call}`, { mode: "shared", signal: gone.signal }, () => take(who.call)).catch(() => {});
    // Screen readers announce only what is added to a visible alert.
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
    // A page with a phone shows its own calls.
    if (who && !shown.has(who.call) && !document.querySelector("offhook-phone:not([data-draft])")) show(data.tab, who);
    if (data.on) known = true;
    if (data.on) void look(); else setTimeout(look, PAUSE_MS);
  };

  // "Phone is off": the person has an endpoint, or this browser had one, that is not registered anywhere we know of.
  const off = document.getElementById("phone-off");
  /** A phone was seen since the page was rendered, so the server's state is outdated. */
  let known = false;
  async function look() {
    if (!off || off.dataset.here !== undefined) return;
    let kept = null;
    try { kept = localStorage.getItem(`offhook-endpoint:${off.dataset.person}`); } catch { /* no local storage */ }
    const held = (await navigator.locks?.query().catch(() => null))?.held ?? [];
    const elsewhere = off.dataset.is === "on" && !known;
    off.hidden = held.some((lock) => lock.name === IS_PHONE) || elsewhere || off.dataset.is === "none" && !kept;
  }
  document.addEventListener("visibilitychange", () => { if (!document.hidden) { channel.postMessage({ is: "who" }); void look(); } });
  void look();
  channel.postMessage({ is: "who" });
}
