// @ts-check
// <offhook-phone>: an endpoint's phone by docs/phone.md, one call at a time. Its frame and words are the page's. With
// `data-draft` it is there for one call, which runs that document, and registered no longer than it.

import { Captions } from "./captions.js";
import { Bell } from "./ring.js";

const percents = new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

class Phone extends HTMLElement {
  /** @type {WebSocket | null} */ socket = null;
  /** @type {RTCPeerConnection | null} */ peer = null;
  /** @type {string | null} */ call = null;
  session = null;
  muted = false;
  held = false;
  /** The draft's call was placed. */ dialled = false;
  /** It rang here: it can be handed on. */ taken = false;
  /** @type {Captions | undefined} */ captions;
  /** Tells the other tabs. @type {Bell | undefined} */ bellElsewhere;
  /** A call that rings is being taken. */ taking = false;
  /** By which business number it came. */ via = "";
  /** With whom the call is. */ who = "";
  lost = 0;
  got = 0;
  /** @type {Record<string, string>} */ texts = {};

  connectedCallback() {
    this.texts = JSON.parse(this.dataset.texts ?? "{}");
    this.form("login").addEventListener("submit", (event) => { event.preventDefault(); this.register(); });
    this.form("dial").addEventListener("submit", (event) => { event.preventDefault(); void this.dial(); });
    this.at("keys").addEventListener("click", (event) => {
      const key = event.target instanceof HTMLButtonElement ? event.target.value : "";
      if (key && this.call) this.say({ type: "digits", call: this.call, digits: key });
    });
    this.at("accept").addEventListener("click", () => void this.accept());
    this.at("reject").addEventListener("click", () => this.say({ type: "reject", call: this.call }));
    this.at("hangup").addEventListener("click", () => this.say({ type: "hangup", call: this.call }));
    this.form("transfer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.say({ type: "transfer", call: this.call, to: new FormData(this.form("transfer")).get("to") });
    });
    this.at("mute").addEventListener("click", () => this.mute());
    this.at("hold").addEventListener("click", () => this.hold());
    this.captions = new Captions(this.at("lines"), this.at("captions"), (speaker) => this.t(`says_${speaker}`),
      (on) => this.say({ call: this.call, ...this.captions?.wish(on) }));
    this.at("captions").addEventListener("click", () => this.captions?.ask(!this.captions.on));
    this.at("speaker-field").hidden = !("setSinkId" in HTMLMediaElement.prototype);
    this.at("speakers").addEventListener("change", () => void this.speak());
    for (const name of ["devices", "speakers"]) this.at(name).addEventListener("change", () => this.keep(/** @type {HTMLSelectElement} */ (this.at(name)).value, name));
    void this.devices();
    // What was chosen for a draft counts for the next: there is no other moment to keep it at.
    if (this.draft) this.form("login").elements.namedItem("endpoint")?.addEventListener("change", (/** @type {any} */ event) => this.keep(event.target.value));
    this.at("leave").addEventListener("click", () => { this.keep(""); this.say({ type: "unregister" }); });
    // A page that is left hangs up and rings no more: links lead elsewhere while it is a phone, and who closes it in a call is asked.
    document.addEventListener("click", (event) => {
      const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
      if (!(link instanceof HTMLAnchorElement) || link.target || !this.isReady()) return;
      event.preventDefault();
      window.open(link.href, "offhook-console");
    });
    window.addEventListener("beforeunload", (event) => { if (this.peer) event.preventDefault(); });
    if (!this.draft) this.bellElsewhere = new Bell((deed) => { if (deed === "accept") void this.accept(); else this.say({ type: "reject", call: this.call }); });
    // Now that somebody listens.
    if (this.form("login").querySelector("[name=endpoint] option")) this.form("login").querySelector("button")?.removeAttribute("disabled");
    this.comeBack();
    if (this.draft) this.scrollIntoView({ block: "nearest" });
  }

  /** The document that it is here for. */
  get draft() { return this.dataset.draft ?? ""; }

  /** What this person chose in this browser: the endpoint that it is, what they speak into and hear from. @param {string} value @param {string} [what] */
  keep(value, what = "endpoint") {
    const key = `offhook-${what}:${this.form("login").dataset.person}`;
    try { if (value) localStorage.setItem(key, value); else localStorage.removeItem(key); } catch { /* a browser that keeps nothing */ }
  }

  /** @param {string} [what] */
  kept(what = "endpoint") {
    try { return localStorage.getItem(`offhook-${what}:${this.form("login").dataset.person}`) ?? ""; } catch { return ""; }
  }

  /** Who was registered here is so again: a page that was left and opened again rings. */
  comeBack() {
    const kept = this.kept();
    const list = /** @type {HTMLSelectElement} */ (this.form("login").elements.namedItem("endpoint"));
    const known = [...list.options].some((option) => option.value === kept);
    if (!known && !this.draft) return;
    if (known) list.value = kept;
    this.register();
  }

  /** @param {string} name @returns {HTMLElement} */
  at(name) { return /** @type {HTMLElement} */ (this.querySelector(`[data-at="${name}"]`)); }
  /** @param {string} name */
  form(name) { return /** @type {HTMLFormElement} */ (this.at(name)); }
  /** @param {string} key */
  t(key) { return this.texts[key] ?? key; }
  /** @param {object} message */
  say(message) { if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message)); }
  /** @param {string} text */
  show(text) { this.at("state").textContent = text; }

  async devices() {
    const found = await navigator.mediaDevices?.enumerateDevices().catch(() => []) ?? [];
    for (const [name, kind] of [["devices", "audioinput"], ["speakers", "audiooutput"]]) {
      const list = /** @type {HTMLSelectElement} */ (this.at(name));
      const known = new Set([...list.options].map((option) => option.value));
      const kept = this.kept(name);
      for (const device of found.filter((d) => d.kind === kind && d.label && !known.has(d.deviceId))) list.append(new Option(device.label, device.deviceId));
      if (!list.value && [...list.options].some((option) => option.value === kept)) list.value = kept;
    }
  }

  /** The other side is heard where the person wants it, at once. */
  async speak() {
    const sound = /** @type {any} */ (this.at("sound"));
    const wanted = /** @type {HTMLSelectElement} */ (this.at("speakers")).value;
    await sound.setSinkId?.(wanted).catch((/** @type {unknown} */ error) => this.refused(error));
  }

  register() {
    this.socket?.close();
    const fields = new FormData(this.form("login"));
    const socket = this.socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/phone`);
    socket.onopen = () => this.say({ type: "register", endpoint: fields.get("endpoint"), resume: this.session ?? undefined });
    socket.onmessage = (event) => void this.hear(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (socket !== this.socket) return;
      this.ready(false);
      this.at("leave").hidden = true;
      // How its call ended stands there.
      if (this.draft && this.dialled) return;
      this.show(event.code > 4000 ? event.reason : this.t("not_registered"));
      // Cut off, or the node was started anew: it is to ring again.
      if (event.code === 1006 || event.code === 1001) setTimeout(() => { if (socket === this.socket) this.register(); }, this.call ? 1000 : 5000);
    };
  }

  /** The microphone, and a connection that offers it. */
  async offer() {
    const wanted = /** @type {HTMLSelectElement} */ (this.at("devices")).value;
    const audio = { echoCancellation: true, noiseSuppression: true, ...(wanted ? { deviceId: { exact: wanted } } : {}) };
    const microphone = await navigator.mediaDevices.getUserMedia({ audio });
    const peer = this.peer = new RTCPeerConnection();
    peer.addTrack(microphone.getAudioTracks()[0], microphone);
    this.meter(microphone, "you");
    peer.ontrack = ({ track }) => {
      const stream = new MediaStream([track]);
      /** @type {HTMLAudioElement} */ (this.at("sound")).srcObject = stream;
      this.meter(stream, "them");
    };
    // Names of devices are told once one of them may be heard.
    void this.devices();
    await peer.setLocalDescription();
    return peer.localDescription?.sdp;
  }

  async dial() {
    if (this.peer) return;
    const to = new FormData(this.form("dial")).get("to");
    this.who = this.named("", String(to));
    try { this.say({ type: "call", to, sdp: await this.offer() }); } catch (error) { this.refused(error); }
  }

  /** Calls the document, once. */
  async run() {
    this.dialled = true;
    this.who = this.t("draft");
    this.show(this.t("calling"));
    try { this.say({ type: "call", to: "playground", draft: this.draft, sdp: await this.offer() }); } catch (error) { this.over(this.refused(error)); }
  }

  async accept() {
    if (this.taking || !this.call) return;
    this.taking = true;
    const call = this.call;
    try {
      const sdp = await this.offer();
      // It may have stopped ringing while the browser asked.
      if (this.call !== call) { this.over(this.t("missed")); return; }
      this.say({ type: "accept", call, sdp });
      this.ringing(false);
    } catch (error) {
      // It rings on: the reader may allow the microphone, or decline.
      this.peer?.close();
      this.peer = null;
      this.bellElsewhere?.trouble(this.refused(error));
    } finally { this.taking = false; }
  }

  /** @param {unknown} error */
  refused(error) {
    const name = error instanceof DOMException ? error.name : "";
    const text = this.t({ NotAllowedError: "denied", NotFoundError: "no_microphone", NotReadableError: "in_use" }[name] ?? "no_sound");
    this.show(text);
    return text;
  }

  mute() {
    this.muted = !this.muted;
    this.say({ type: this.muted ? "mute" : "unmute", call: this.call });
    for (const sender of this.peer?.getSenders() ?? []) if (sender.track) sender.track.enabled = !this.muted;
    this.at("mute").setAttribute("aria-pressed", String(this.muted));
  }

  hold() {
    this.held = !this.held;
    this.say({ type: this.held ? "hold" : "unhold", call: this.call });
    /** @type {HTMLAudioElement} */ (this.at("sound")).muted = this.held;
    this.at("hold").setAttribute("aria-pressed", String(this.held));
  }

  /** @param {MediaStream} stream @param {string} name */
  meter(stream, name) {
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(stream).connect(analyser);
    const samples = new Float32Array(analyser.fftSize);
    const bar = /** @type {HTMLMeterElement} */ (this.at(name));
    const look = () => {
      if (!this.peer || stream.getTracks()[0]?.readyState === "ended") { bar.value = 0; void context.close(); return; }
      analyser.getFloatTimeDomainData(samples);
      bar.value = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
      requestAnimationFrame(look);
    };
    look();
  }

  /** A name, and the number as people write it. @param {string} name @param {string} number */
  named(name, number) {
    const written = /^[0-9]{7,15}$/.test(number) ? `+${number}` : number.replace(/^sip:|@.*$/g, "");
    return name && name !== number ? `${name} (${written})` : written;
  }

  isReady() { return this.draft ? this.call !== null : !this.at("leave").hidden; }
  /** @param {boolean} registered */
  ready(registered) { this.bellElsewhere?.is(registered); this.form("dial").querySelector("button")?.toggleAttribute("disabled", !registered); }
  /** @param {boolean} rings */
  ringing(rings) {
    for (const name of ["accept", "reject"]) this.at(name).hidden = !rings;
    clearInterval(this.bell);
    this.mark(rings);
    if (!rings) { this.bellElsewhere?.rings(null); return; }
    this.strike();
    this.bell = setInterval(() => this.strike(), 3000);
  }

  /** Its tab is found among others. @param {boolean} busy */
  mark(busy) { document.title = `${busy ? "☎ " : ""}${document.title.replace(/^☎ /, "")}`; }

  /** A bell that needs no file. A browser that lets no page sound before it was touched stays silent; its tab still tells. */
  strike() {
    const context = new AudioContext();
    const volume = context.createGain();
    volume.gain.value = 0.08;
    volume.connect(context.destination);
    for (const [hertz, after] of [[660, 0], [880, 0.25], [660, 0.5]]) {
      const tone = context.createOscillator();
      tone.frequency.value = hertz;
      tone.connect(volume);
      tone.start(context.currentTime + after);
      tone.stop(context.currentTime + after + 0.2);
    }
    setTimeout(() => void context.close(), 1500);
  }
  /** @param {boolean} up */
  talking(up) {
    for (const name of ["mute", "hold", "captions", "hangup"]) this.at(name).toggleAttribute("disabled", !up);
    for (const key of this.at("keys").children) key.toggleAttribute("disabled", !up);
    clearInterval(this.clock);
    this.mark(up);
    this.at("transfer").hidden = !up || !this.taken;
    this.at("quality").hidden = true;
    if (!up) { this.captions?.turn(false); return; }
    this.captions?.clear();
    this.lost = this.got = 0;
    const begun = Date.now();
    this.clock = setInterval(() => {
      const seconds = Math.floor((Date.now() - begun) / 1000);
      this.at("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
      if (seconds % 2 === 0) void this.listen();
    }, 1000);
  }

  /** How the network does: what got lost of the last seconds, and how long a way the sound has. */
  async listen() {
    const told = [...(await this.peer?.getStats().catch(() => null) ?? new Map()).values()];
    const heard = told.find((one) => one.type === "inbound-rtp");
    if (!heard) return;
    const way = told.find((one) => one.type === "candidate-pair" && one.nominated)?.currentRoundTripTime ?? 0;
    const [lost, got] = [heard.packetsLost - this.lost, heard.packetsReceived - this.got];
    [this.lost, this.got] = [heard.packetsLost, heard.packetsReceived];
    const share = lost > 0 ? lost / (lost + Math.max(got, 0)) : 0;
    const word = share > 0.08 || way > 0.4 || heard.jitter > 0.08 ? "poor" : share > 0.02 || way > 0.2 || heard.jitter > 0.03 ? "fair" : "good";
    const place = this.at("quality");
    place.hidden = false;
    place.className = `sub quality ${word}`;
    place.textContent = `${this.t(`network_${word}`)} · ${Math.round(way * 1000)} ms · ${percents.format(share * 100)} %`;
  }

  /** @param {string} text */
  over(text) {
    for (const sender of this.peer?.getSenders() ?? []) sender.track?.stop();
    this.peer?.close();
    Object.assign(this, { call: null, peer: null, muted: false, held: false, taken: false });
    for (const name of ["mute", "hold"]) this.at(name).setAttribute("aria-pressed", "false");
    this.talking(false);
    this.ringing(false);
    this.show(text);
    if (this.draft) this.say({ type: "unregister" });
  }

  /** @param {any} told */
  async hear(told) {
    switch (told.type) {
      case "registered":
        this.session = told.session;
        if (!this.draft) this.keep(told.endpoint);
        this.at("leave").hidden = false;
        this.ready(true);
        this.at("captions").hidden = !told.captions;
        this.at("no-captions").hidden = told.captions;
        this.at("language-field").hidden = !told.captions;
        if (told.captions) this.captions?.offer(/** @type {HTMLSelectElement} */ (this.at("language")), told.caption_languages, told.caption_language);
        if (this.call && !told.calls.includes(this.call)) this.over(this.t("ended"));
        if (!this.draft) this.show(`${this.t("registered")} ${told.sip_uri}`);
        else if (!this.dialled) void this.run();
        break;
      case "ring":
        if (this.call || this.peer || this.draft) { this.say({ type: "reject", call: told.call }); break; }
        this.call = told.call;
        this.taken = true;
        this.at("see").hidden = true;
        this.ringing(true);
        this.who = this.named(told.caller_name, told.from);
        this.via = told.via ? [told.via_alias, this.named("", told.via)].filter(Boolean).join(" · ") : "";
        this.bellElsewhere?.rings({ call: told.call, name: told.caller_name === told.from ? "" : told.caller_name, number: this.named("", told.from), via: this.via });
        this.show(`${this.who} ${this.t("rings")}${this.via ? ` (${this.t("via").replace("{0}", this.via)})` : ""}`);
        this.at("accept").focus();
        break;
      case "calling":
        this.call = told.call;
        this.at("hangup").removeAttribute("disabled");
        this.at("see").hidden = false;
        this.at("see").querySelector("a")?.setAttribute("href", `/console/calls/${told.call}/`);
        this.show(this.t("calling"));
        break;
      case "answer":
        await this.peer?.setRemoteDescription({ type: "answer", sdp: told.sdp });
        // A call that was taken is up with that.
        if (this.taken) { this.bellElsewhere?.taken(told.call); this.talking(true); this.show(`${this.t("talking")}: ${this.who}`); }
        break;
      case "captions":
        this.captions?.turn(told.on);
        if (told.why) this.show(this.t("captions_failed"));
        break;
      case "caption":
        if (this.call === told.call) this.captions?.tell(told);
        break;
      case "transferred":
        this.show(this.t("transferred"));
        break;
      case "answered":
        this.talking(true);
        this.show(`${this.t("talking")}: ${this.who}`);
        break;
      case "cancelled":
        if (this.call === told.call) this.over(`${this.t("missed")}`);
        break;
      case "ended":
        if (this.call === told.call) this.over(`${this.t("ended")}: ${told.name}`);
        break;
      case "error":
        if (this.peer && (!this.call || told.code === "not_ringing")) this.over(told.message);
        else this.show(told.message);
        break;
      default:
    }
  }
}
customElements.define("offhook-phone", Phone);
