// @ts-check
// <offhook-phone>: a phone for an endpoint, over the protocol of docs/phone.md, with one call at a time. Markup and texts come
// from the page. With `data-draft` it places one call, which runs that document, and stays registered only during that call.

import { Captions } from "./captions.js";
import { Bell } from "./ring.js";

const percents = new Intl.NumberFormat(document.documentElement.lang, { minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** How long an error hides who is talked to, in milliseconds. */
const ERROR_SHOWN = 5000;

/** An error message of the API, for people. */
class ApiError extends Error {}

class Phone extends HTMLElement {
  /** @type {WebSocket | null} */ socket = null;
  /** @type {RTCPeerConnection | null} */ peer = null;
  /** @type {string | null} */ call = null;
  session = null;
  /** Name of the registered endpoint. */ endpoint = "";
  registered = false;
  /** Why the node ended the registration. Empty if it did not. */ dismissal = "";
  /** @type {ReturnType<typeof setTimeout> | undefined} */ asking;
  muted = false;
  held = false;
  /** The call of the draft was placed. */ dialled = false;
  /** The call is inbound, so it can be transferred. */ taken = false;
  /** @type {Captions | undefined} */ captions;
  /** Announces calls to other tabs. @type {Bell | undefined} */ bellElsewhere;
  /** A ringing call is being answered. */ taking = false;
  /** Business number of the call. */ via = "";
  /** Other party of the call. */ who = "";
  /** A call from a business number that this phone has ordered and not got yet. @type {{ to: string, call: string } | null} */ placed = null;
  /** The application answers the call, not the person who was dialled. */ byApplication = false;
  lost = 0;
  got = 0;
  /** @type {Record<string, string>} */ texts = {};

  connectedCallback() {
    this.texts = JSON.parse(this.dataset.texts ?? "{}");
    this.form("login").addEventListener("submit", (event) => { event.preventDefault(); this.register(); });
    this.form("dial").addEventListener("submit", (event) => { event.preventDefault(); void this.dial(); });
    this.at("keys").addEventListener("click", (event) => {
      const key = event.target instanceof HTMLButtonElement ? event.target.value : "";
      if (key && this.call) this.send({ type: "digits", call: this.call, digits: key });
    });
    this.at("accept").addEventListener("click", () => void this.accept());
    this.at("reject").addEventListener("click", () => this.send({ type: "reject", call: this.call }));
    this.at("hangup").addEventListener("click", () => {
      if (this.placed && !this.call) void this.api("POST", `calls/${this.placed.call}/hangup/`).catch(() => undefined);
      else this.send({ type: "hangup", call: this.call });
    });
    for (const event of ["input", "change"]) this.addEventListener(event, ({ target }) => {
      if (!(target instanceof HTMLElement) || !target.matches("#to, [data-at=from]")) return;
      clearTimeout(this.asking);
      this.asking = setTimeout(() => void this.showPermission(), 300);
    });
    this.at("ask")?.addEventListener("click", () => void this.askPermission());
    this.form("transfer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send({ type: "transfer", call: this.call, to: new FormData(this.form("transfer")).get("to") });
    });
    this.at("mute").addEventListener("click", () => this.mute());
    this.at("hold").addEventListener("click", () => this.hold());
    this.captions = new Captions(this.at("lines"), this.at("captions"), (speaker) => this.t(`says_${speaker}`),
      (on) => this.send({ call: this.call, ...this.captions?.request(on) }));
    this.at("captions").addEventListener("click", () => this.captions?.ask(!this.captions.on));
    this.at("speaker-field").hidden = !("setSinkId" in HTMLMediaElement.prototype);
    this.at("speakers").addEventListener("change", () => void this.applySpeaker());
    for (const name of ["devices", "speakers"]) this.at(name).addEventListener("change", () => this.store(/** @type {HTMLSelectElement} */ (this.at(name)).value, name));
    void this.devices();
    // The endpoint of a draft call is stored when it changes, as there is no form to submit.
    if (this.draft) this.form("login").elements.namedItem("endpoint")?.addEventListener("change", (/** @type {any} */ event) => this.store(event.target.value));
    this.at("leave").addEventListener("click", () => { this.store(""); this.send({ type: "unregister" }); });
    // Leaving the page hangs up and unregisters. So links open in another tab while registered, and closing during a call asks first.
    document.addEventListener("click", (event) => {
      const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
      if (!(link instanceof HTMLAnchorElement) || link.target || !this.isReady()) return;
      event.preventDefault();
      window.open(link.href, "offhook-console");
    });
    window.addEventListener("beforeunload", (event) => { if (this.peer) event.preventDefault(); });
    if (!this.draft) this.bellElsewhere = new Bell((deed) => { if (deed === "accept") void this.accept(); else this.send({ type: "reject", call: this.call }); });
    // The submit handler is installed now.
    this.offerRegistration();
    this.form("login").addEventListener("change", () => this.offerRegistration());
    this.restoreRegistration();
    if (this.draft) this.scrollIntoView({ block: "nearest" });
  }

  /** Id of the document to run. Empty if there is none. */
  get draft() { return this.dataset.draft ?? ""; }

  /** Stores a choice of this person in the browser: endpoint, microphone or speaker. @param {string} value @param {string} [what] */
  store(value, what = "endpoint") {
    const key = `offhook-${what}:${this.form("login").dataset.person}`;
    try { if (value) localStorage.setItem(key, value); else localStorage.removeItem(key); } catch { /* no local storage */ }
  }

  /** @param {string} [what] */
  stored(what = "endpoint") {
    try { return localStorage.getItem(`offhook-${what}:${this.form("login").dataset.person}`) ?? ""; } catch { return ""; }
  }

  /** Registers again with the stored endpoint, so that a reopened page receives calls. */
  restoreRegistration() {
    const stored = this.stored();
    const list = /** @type {HTMLSelectElement} */ (this.form("login").elements.namedItem("endpoint"));
    const known = [...list.options].some((option) => option.value === stored);
    if (!known && !this.draft) return;
    if (known) list.value = stored;
    this.register();
  }

  /** @param {string} name @returns {HTMLElement} */
  at(name) { return /** @type {HTMLElement} */ (this.querySelector(`[data-at="${name}"]`)); }
  /** @param {string} name */
  form(name) { return /** @type {HTMLFormElement} */ (this.at(name)); }
  /** @param {string} key */
  t(key) { return this.texts[key] ?? key; }
  /** @param {object} message */
  send(message) { if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message)); }
  /** @param {string} text */
  show(text) { this.at("state").textContent = text; }

  async devices() {
    const found = await navigator.mediaDevices?.enumerateDevices().catch(() => []) ?? [];
    for (const [name, kind] of [["devices", "audioinput"], ["speakers", "audiooutput"]]) {
      const list = /** @type {HTMLSelectElement} */ (this.at(name));
      const known = new Set([...list.options].map((option) => option.value));
      const stored = this.stored(name);
      for (const device of found.filter((d) => d.kind === kind && d.label && !known.has(d.deviceId))) list.append(new Option(device.label, device.deviceId));
      if (!list.value && [...list.options].some((option) => option.value === stored)) list.value = stored;
    }
  }

  /** Applies the chosen speaker. */
  async applySpeaker() {
    const sound = /** @type {any} */ (this.at("sound"));
    const wanted = /** @type {HTMLSelectElement} */ (this.at("speakers")).value;
    await sound.setSinkId?.(wanted).catch((/** @type {unknown} */ error) => this.showError(error));
  }

  register() {
    this.socket?.close();
    this.dismissal = "";
    const fields = new FormData(this.form("login"));
    const socket = this.socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/phone`);
    socket.onopen = () => this.send({ type: "register", endpoint: fields.get("endpoint"), resume: this.session ?? undefined });
    socket.onmessage = (event) => void this.receive(JSON.parse(event.data));
    socket.onclose = (event) => {
      if (socket !== this.socket) return;
      this.ready(false);
      this.at("leave").hidden = true;
      // The connection was lost, or the node was upgraded or restarted: register again. Otherwise the node has hung up.
      const returns = event.code === 1006 || event.code === 1001;
      // After an upgrade the node is there at once. Not all phones come at the same moment.
      const pause = event.code === 1001 ? 100 + 400 * Math.random() : this.call ? 1000 : 5000;
      const busy = this.call !== null || this.peer !== null || this.placed !== null;
      // Keep showing how the call ended.
      if (this.draft && this.dialled && !busy) return;
      const text = event.code > 4000 ? event.reason : this.dismissal || this.t("not_registered");
      if (busy && !returns) {
        if (this.placed?.call && !this.call) void this.api("POST", `calls/${this.placed.call}/hangup/`).catch(() => undefined);
        Object.assign(this, { placed: null, session: null });
        this.over(text);
      } else this.show(text);
      if (returns) setTimeout(() => { if (socket === this.socket) this.register(); }, pause);
    };
  }

  /** Opens the microphone and creates a peer connection. Returns the SDP offer. */
  async offer() {
    const wanted = /** @type {HTMLSelectElement} */ (this.at("devices")).value;
    const audio = { echoCancellation: true, noiseSuppression: true, ...(wanted ? { deviceId: { exact: wanted } } : {}) };
    const microphone = await navigator.mediaDevices.getUserMedia({ audio });
    const peer = this.peer = new RTCPeerConnection();
    peer.addTrack(microphone.getAudioTracks()[0], microphone);
    this.meter(microphone, "you");
    peer.onconnectionstatechange = () => { if (peer === this.peer && this.call && !this.at("mute").hasAttribute("disabled")) this.showCall(); };
    peer.ontrack = ({ track }) => {
      const stream = new MediaStream([track]);
      /** @type {HTMLAudioElement} */ (this.at("sound")).srcObject = stream;
      this.meter(stream, "them");
    };
    // Browsers reveal device names only after permission for a microphone.
    void this.devices();
    await peer.setLocalDescription();
    return peer.localDescription?.sdp;
  }

  /** The business number and the user to call from it. `null` if the application answers: for words, or if that is chosen. */
  pair() {
    const from = /** @type {HTMLSelectElement | null} */ (this.at("from"))?.value ?? "";
    const to = String(new FormData(this.form("dial")).get("to") ?? "").trim();
    const digits = to.replace(/[\s()+.-]/g, "");
    return from && /^\+?[\d\s().-]+$/.test(to) && /^\d{7,15}$/.test(digits) ? { from, to: digits } : null;
  }

  /** A request to the number API as the signed-in person. @param {string} method @param {string} path @param {object} [body] @returns {Promise<any>} */
  async api(method, path, body) {
    const headers = { "content-type": "application/json", "x-csrf-token": document.body.dataset.csrf ?? "" };
    const answer = await fetch(`/api/v1/${path}`, { method, headers, body: body && JSON.stringify(body) });
    const read = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new ApiError(read.error?.code === "no_permission" ? this.t("may_none") : read.error?.message ?? this.t("no_answer"));
    return read;
  }

  /** Shows whether the user may be called, before the call. With `refresh`, the node asks Meta. @param {boolean} [refresh] */
  async showPermission(refresh = false) {
    const pair = this.pair();
    const [place, ask] = [this.at("permission"), /** @type {HTMLButtonElement} */ (this.at("ask"))];
    if (!place) return;
    const known = pair && await this.api("GET", `permissions/${pair.from}/${pair.to}/${refresh ? "?refresh=true" : ""}`).catch(() => null);
    const now = this.pair();
    if (now?.to !== pair?.to || now?.from !== pair?.from) return;
    const until = known?.expiresAt ? new Date(known.expiresAt).toLocaleString(document.documentElement.lang) : "";
    place.hidden = !known;
    const from = /** @type {HTMLSelectElement} */ (this.at("from")).selectedOptions[0];
    const none = from?.hasAttribute("data-unchecked") ? "unchecked" : known?.checkedAt ? "none" : "unknown";
    const key = known?.status === "none" ? none : known?.status;
    place.textContent = known ? this.t(`may_${key}`).replace("{0}", until) : "";
    ask.hidden = !known || ["temporary", "permanent"].includes(known.status);
    ask.disabled = known?.requestsLeft === 0;
    clearTimeout(this.asking);
    // Only for numbers that are typed to the end.
    if (key === "unknown" && !refresh) this.asking = setTimeout(() => void this.showPermission(true), 700);
    if (known?.status === "requested") this.asking = setTimeout(() => void this.showPermission(), 2000);
  }

  async askPermission() {
    const pair = this.pair();
    if (!pair) return;
    try { await this.api("POST", `permissions/${pair.from}/${pair.to}/request/`, {}); } catch (error) { this.show(error instanceof ApiError ? error.message : this.t("no_answer")); }
    await this.showPermission();
  }

  /** Calls a user from a business number. When the user answers, the node rings this phone, which takes the call. @param {{ from: string, to: string }} pair */
  async callUser({ from, to }) {
    this.placed = { to, call: "" };
    this.clear();
    try {
      // Ask for the microphone before anyone is called.
      const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
      for (const track of microphone.getTracks()) track.stop();
    } catch (error) { this.placed = null; this.showError(error); return; }
    this.who = this.named("", to);
    this.show(this.t("calling"));
    try {
      const { callUuid } = await this.api("POST", "calls/", { from, to, endpoint: this.endpoint });
      this.placed.call = callUuid;
      this.seeCall(callUuid);
      void this.showPermission();
      this.at("hangup").removeAttribute("disabled");
      this.watchPlaced(callUuid);
    } catch (error) {
      this.placed = null;
      this.show(error instanceof ApiError ? error.message : this.t("no_answer"));
      void this.showPermission();
    }
  }

  /** Waits for the end of a call that the user does not answer. @param {string} call */
  watchPlaced(call) {
    setTimeout(async () => {
      if (this.placed?.call !== call) return;
      const now = await this.api("GET", `calls/${call}/`).catch(() => null);
      if (this.placed?.call !== call) return;
      if (now?.status !== "ended") { this.watchPlaced(call); return; }
      this.placed = null;
      this.over(this.endOf(now?.cause));
      void this.showPermission();
    }, 1000);
  }

  /** Describes the end of a call that was not answered. @param {string} [cause] */
  endOf(cause) {
    if (!cause || cause === "no_answer" || cause === "ring_timeout") return this.t("unanswered");
    return this.texts[`ended_${cause}`] ?? this.texts[`cause.${cause}`] ?? this.t("unanswered");
  }

  /** @param {string} call */
  seeCall(call) {
    this.at("see").hidden = false;
    this.at("see").querySelector("a")?.setAttribute("href", `/console/calls/${call}/`);
  }

  async dial() {
    if (this.peer || this.placed) return;
    const pair = this.pair();
    if (pair) { await this.callUser(pair); return; }
    const to = new FormData(this.form("dial")).get("to");
    const endpoint = /** @type {HTMLSelectElement} */ (this.form("login").elements.namedItem("endpoint"));
    this.byApplication = true;
    this.clear();
    this.who = endpoint.selectedOptions[0]?.dataset.application ?? "";
    try {
      const sdp = await this.offer();
      // The registration may have ended while the browser asked for permission.
      if (this.registered) this.send({ type: "call", to, sdp }); else this.over(this.dismissal || this.t("not_registered"));
    } catch (error) { this.showError(error); }
  }

  /** Places the call that runs the document. */
  async run() {
    this.dialled = true;
    this.who = this.t("draft");
    this.show(this.t("calling"));
    try { this.send({ type: "call", to: "playground", draft: this.draft, sdp: await this.offer() }); } catch (error) { this.over(this.showError(error)); }
  }

  async accept() {
    if (this.taking || !this.call) return;
    this.taking = true;
    const call = this.call;
    try {
      const sdp = await this.offer();
      // The call may have been cancelled while the browser asked for permission.
      if (this.call !== call) { this.over(this.t("missed")); return; }
      this.send({ type: "accept", call, sdp });
      this.ringing(false);
    } catch (error) {
      // The call keeps ringing: the person may allow the microphone or decline.
      this.peer?.close();
      this.peer = null;
      this.bellElsewhere?.trouble(this.showError(error));
    } finally { this.taking = false; }
  }

  /** @param {unknown} error */
  showError(error) {
    const name = error instanceof DOMException ? error.name : "";
    const text = this.t({ NotAllowedError: "denied", NotFoundError: "no_microphone", NotReadableError: "in_use" }[name] ?? "no_sound");
    this.show(text);
    return text;
  }

  mute() {
    this.muted = !this.muted;
    this.send({ type: this.muted ? "mute" : "unmute", call: this.call });
    for (const sender of this.peer?.getSenders() ?? []) if (sender.track) sender.track.enabled = !this.muted;
    this.at("mute").setAttribute("aria-pressed", String(this.muted));
  }

  hold() {
    this.held = !this.held;
    this.send({ type: this.held ? "hold" : "unhold", call: this.call });
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

  /** Formats a party: name and number. @param {string} name @param {string} number */
  named(name, number) {
    const written = /^[0-9]{7,15}$/.test(number) ? `+${number}` : number.replace(/^sip:|@.*$/g, "");
    return name && name !== number ? `${name} (${written})` : written;
  }

  isReady() { return this.draft ? this.call !== null : !this.at("leave").hidden; }
  /** @param {boolean} registered */
  ready(registered) {
    this.registered = registered;
    this.offerRegistration();
    this.bellElsewhere?.is(registered); this.form("dial").querySelector("button")?.toggleAttribute("disabled", !registered);
  }
  /** Disables "Register" while the chosen endpoint is registered. */
  offerRegistration() {
    const form = this.form("login");
    const chosen = /** @type {HTMLSelectElement | null} */ (form.querySelector("[name=endpoint]"))?.value;
    form.querySelector("button.primary")?.toggleAttribute("disabled", !chosen || (this.registered && chosen === this.endpoint));
  }
  /** @param {boolean} rings */
  ringing(rings) {
    for (const name of ["accept", "reject"]) this.at(name).hidden = !rings;
    clearInterval(this.bell);
    this.mark(rings);
    if (!rings) { this.bellElsewhere?.rings(null); return; }
    this.beep();
    this.bell = setInterval(() => this.beep(), 3000);
  }

  /** Marks the tab title during a call. @param {boolean} busy */
  mark(busy) { document.title = `${busy ? "☎ " : ""}${document.title.replace(/^☎ /, "")}`; }

  /** Plays a synthesised ring. Browsers may block audio before the first interaction; the tab title shows the call anyway. */
  beep() {
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
  /** Shows who is called or talked to, or that sound can't pass. */
  showCall() {
    const sound = this.peer?.connectionState ?? "";
    if (this.at("mute").hasAttribute("disabled")) this.show(this.t("calling"));
    else if (["new", "connecting"].includes(sound)) this.show(this.t("connecting"));
    else if (["disconnected", "failed"].includes(sound)) this.show(this.t("sound_lost"));
    else this.show(this.byApplication ? [this.t("application"), this.who].filter(Boolean).join(": ") : `${this.t("talking")}: ${this.who}`);
  }

  /** Removes what is shown of the previous call. */
  clear() {
    this.at("see").hidden = true;
    this.at("clock").textContent = "0:00";
    this.captions?.clear();
  }

  /** @param {boolean} up */
  setInCall(up) {
    for (const name of ["mute", "hold", "captions", "hangup"]) this.at(name).toggleAttribute("disabled", !up);
    for (const key of this.at("keys").children) key.toggleAttribute("disabled", !up);
    clearInterval(this.clock);
    this.mark(up);
    this.at("transfer").hidden = !up || !this.taken;
    this.at("quality").hidden = true;
    if (!up) { this.captions?.turn(false); return; }
    this.lost = this.got = 0;
    const begun = Date.now();
    this.clock = setInterval(() => {
      const seconds = Math.floor((Date.now() - begun) / 1000);
      this.at("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
      if (seconds % 2 === 0) void this.listen();
    }, 1000);
  }

  /** Shows network quality: recent packet loss and round-trip time. */
  async listen() {
    const stats = [...(await this.peer?.getStats().catch(() => null) ?? new Map()).values()];
    const heard = stats.find((one) => one.type === "inbound-rtp");
    if (!heard) return;
    const way = stats.find((one) => one.type === "candidate-pair" && one.nominated)?.currentRoundTripTime ?? 0;
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
    Object.assign(this, { call: null, peer: null, muted: false, held: false, taken: false, byApplication: false });
    for (const name of ["mute", "hold"]) this.at(name).setAttribute("aria-pressed", "false");
    this.setInCall(false);
    this.ringing(false);
    this.show(text);
    if (this.draft) this.send({ type: "unregister" });
  }

  /** @param {any} message */
  async receive(message) {
    switch (message.type) {
      case "registered":
        this.session = message.session;
        this.endpoint = message.endpoint;
        if (!this.draft) this.store(message.endpoint);
        this.at("leave").hidden = false;
        this.ready(true);
        this.at("captions").hidden = !message.captions;
        this.at("no-captions").hidden = message.captions;
        this.at("language-field").hidden = !message.captions;
        if (message.captions) this.captions?.offer(/** @type {HTMLSelectElement} */ (this.at("language")), message.caption_languages, message.caption_language);
        if (this.call && !message.calls.includes(this.call)) this.over(this.t("ended"));
        if (this.call) this.showCall();
        else if (!this.draft) this.show(`${this.t("registered")} ${message.sip_uri}`);
        else if (!this.dialled) void this.run();
        break;
      case "unregistered":
        this.dismissal = this.texts[`unregistered_${message.why}`] ?? "";
        break;
      case "ring":
        if (this.call || this.peer || this.draft) { this.send({ type: "reject", call: message.call }); break; }
        this.call = message.call;
        this.taken = true;
        if (this.placed && message.from === this.placed.to) {
          this.placed = null;
          await this.accept();
          // The microphone is gone: the call rings here until the person answers or declines.
          if (!this.peer) this.ringing(true);
          break;
        }
        this.clear();
        this.ringing(true);
        this.who = this.named(message.caller_name, message.from);
        this.via = message.via ? [message.via_alias, this.named("", message.via)].filter(Boolean).join(" · ") : "";
        this.bellElsewhere?.rings({ call: message.call, name: message.caller_name === message.from ? "" : message.caller_name, number: this.named("", message.from), via: this.via });
        this.show(`${this.who} ${this.t(message.outbound ? "was_called" : "rings")}${this.via ? ` (${this.t("via").replace("{0}", this.via)})` : ""}`);
        this.at("accept").focus();
        break;
      case "calling":
        this.call = message.call;
        this.at("hangup").removeAttribute("disabled");
        this.seeCall(message.call);
        this.show(this.t("calling"));
        break;
      case "answer":
        await this.peer?.setRemoteDescription({ type: "answer", sdp: message.sdp });
        // For an answered inbound call, this completes the set-up.
        if (this.taken) { this.bellElsewhere?.taken(message.call); this.setInCall(true); this.showCall(); }
        break;
      case "captions":
        this.captions?.turn(message.on);
        if (message.why) this.show(this.t("captions_failed"));
        break;
      case "caption":
        if (this.call === message.call) this.captions?.update(message);
        break;
      case "transferred":
        this.show(this.t("transferred"));
        break;
      case "answered":
        this.setInCall(true);
        this.showCall();
        break;
      case "cancelled":
        if (this.call === message.call) this.over(`${this.t("missed")}`);
        break;
      case "ended":
        if (this.call === message.call) this.over(`${this.t("ended")}: ${message.name}`);
        break;
      case "error": {
        // The message names fields of the API.
        const text = this.texts[`error_${message.code}`] ?? message.message;
        const call = this.call;
        if (this.peer && (!call || message.code === "not_ringing")) { this.over(text); break; }
        this.show(text);
        // The call goes on, and its other side is shown again.
        if (this.peer) setTimeout(() => { if (this.peer && this.call === call) this.showCall(); }, ERROR_SHOWN);
        break;
      }
      default:
    }
  }
}
customElements.define("offhook-phone", Phone);
