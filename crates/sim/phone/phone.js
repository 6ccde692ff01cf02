// @ts-check
// The browser phone: places one call at a time, plays its audio, sends keys and lists the steps of the call.

import { allowedWords, causeWords, messageWords, microphoneWords, stepWords } from "./words.js";

/** @template {HTMLElement} T @param {string} id @returns {T} */
const at = (id) => /** @type {T} */ (document.getElementById(id));
const callButton = at("call");
const muteButton = /** @type {HTMLButtonElement} */ (at("mute"));
const keys = /** @type {NodeListOf<HTMLButtonElement>} */ (document.querySelectorAll("[data-key]"));

/**
 * @typedef {object} Call
 * @property {RTCPeerConnection} peer
 * @property {MediaStreamTrack} track
 * @property {string} id
 * @property {EventSource} [events]
 * @property {number} [answeredAt]
 * @property {() => void} stopMeters
 */
/** @type {Call | undefined} */
let call;
let calling = false;

/** @param {string} text @param {string} [state] */
function showState(text, state) {
  at("state").textContent = text;
  if (state) document.body.dataset.state = state;
}

/** @param {boolean} busy */
function setButtons(busy) {
  callButton.textContent = busy ? "Hang up" : "Call";
  callButton.dataset.does = busy ? "hangup" : "call";
  muteButton.disabled = !busy;
  keys.forEach((key) => (key.disabled = !busy));
  if (!busy) mute(false);
}

/** @param {string} path @param {object} body */
async function post(path, body) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const text = await answer.text();
  const read = text ? JSON.parse(text) : {};
  if (!answer.ok) throw new Error(read.error ?? `the simulator responded with status ${answer.status}`);
  return read;
}

/** The microphone, or a silent stream if it is not available. @param {AudioContext} context */
async function microphone(context) {
  try {
    const stream = await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
    at("microphone").textContent = "";
    return stream;
  } catch (error) {
    at("microphone").textContent = microphoneWords(error);
    // Without a source no packets are sent at all. A muted phone sends silence.
    const silence = new ConstantSourceNode(context, { offset: 0 });
    const destination = context.createMediaStreamDestination();
    silence.connect(destination);
    silence.start();
    return destination.stream;
  }
}

/** Shows the level of a stream in a meter. Returns a function that stops it. @param {AudioContext} context @param {MediaStream} stream @param {string} id */
function meter(context, stream, id) {
  const analyser = context.createAnalyser();
  analyser.fftSize = 512;
  const source = context.createMediaStreamSource(stream);
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);
  const bar = /** @type {HTMLMeterElement} */ (at(id));
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    const power = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
    // The meter covers −60 to 0 dBFS.
    bar.value = power > 0 ? Math.min(1, Math.max(0, 1 + (10 * Math.log10(power)) / 60)) : 0;
  }, 80);
  return () => {
    clearInterval(timer);
    source.disconnect();
    bar.value = 0;
  };
}

async function start() {
  calling = true;
  at("steps").replaceChildren();
  at("empty").hidden = true;
  at("console").hidden = true;
  setButtons(true);
  showState("Calling…", "calling");
  const context = new AudioContext();
  const stops = [() => void context.close()];
  try {
    const own = await microphone(context);
    const [track] = own.getAudioTracks();
    stops.push(() => track.stop(), meter(context, own, "say-level"));
    const peer = new RTCPeerConnection();
    stops.push(() => peer.close());
    call = { peer, track, id: "", stopMeters: () => stops.splice(0).reverse().forEach((stop) => stop()) };
    peer.addTrack(track, own);
    peer.addEventListener("track", (event) => {
      const stream = event.streams[0] ?? new MediaStream([event.track]);
      const sound = /** @type {HTMLAudioElement} */ (at("sound"));
      sound.srcObject = stream;
      sound.play().catch(() => showState("Press a key to start the audio: the browser has blocked it"));
      stops.push(meter(context, stream, "hear-level"));
    });
    await peer.setLocalDescription();
    const { id, sdp } = await post("/_sim/phone/calls", { sdp: peer.localDescription?.sdp, to: new URLSearchParams(location.search).get("to") ?? undefined });
    if (!calling) {
      await post(`/_sim/phone/calls/${id}/hangup`, {});
    }
    call.id = id;
    listen(call);
    await peer.setRemoteDescription({ type: "answer", sdp });
  } catch (error) {
    stops.splice(0).reverse().forEach((stop) => stop());
    finish(`The call could not be placed: ${error instanceof Error ? error.message : error}`);
  }
}

/** Reads the events of a call. @param {Call} current */
function listen(current) {
  const events = new EventSource(`/_sim/phone/calls/${current.id}/events`);
  current.events = events;
  events.addEventListener("message", (message) => onEvent(JSON.parse(message.data)));
  events.addEventListener("error", () => {
    if (call === current) finish("The connection to the simulator was lost");
  });
}

/** @param {any} event */
function onEvent(event) {
  const words = stepWords(event);
  if (words) addStep(event, words);
  if (event.event === "call_known") {
    at("console").hidden = false;
    at("console").querySelector("a")?.setAttribute("href", `${world.node}/console/calls/${event.call_uuid}/`);
  }
  if (event.event === "ringing") showState("Ringing…", "ringing");
  if (event.event === "answered") {
    showState("Connected", "live");
    if (call) call.answeredAt = performance.now();
  }
  if (event.event === "ended") finish(causeWords(event.cause));
}

/** @param {any} event @param {{lane: string, who: string, what: string, more?: string}} words */
function addStep(event, words) {
  const step = document.createElement("li");
  step.dataset.lane = words.lane;
  const time = document.createElement("time");
  time.textContent = `${(event.at_ms / 1000).toFixed(3)} s`;
  const who = document.createElement("span");
  who.className = "lane";
  who.textContent = words.who;
  const what = document.createElement("span");
  what.textContent = words.what;
  if (event.event === "ended") what.className = "end";
  if (words.more) {
    const more = document.createElement("small");
    more.textContent = words.more;
    if (event.event === "placed") more.className = "id";
    what.append(" ", more);
  }
  step.append(time, who, what);
  const steps = at("steps");
  // Keeps the newest step in view, unless the list was scrolled back.
  const follows = steps.scrollHeight - steps.scrollTop - steps.clientHeight < 40;
  steps.append(step);
  if (follows) steps.scrollTop = steps.scrollHeight;
}

/** @param {string} text */
function finish(text) {
  calling = false;
  call?.events?.close();
  call?.stopMeters();
  call = undefined;
  setButtons(false);
  showState(text, "over");
}

function hangUp() {
  calling = false;
  showState("Hanging up…", "over");
  if (call?.id) post(`/_sim/phone/calls/${call.id}/hangup`, {}).catch(() => finish("Hung up"));
}

/** @param {boolean} on */
function mute(on) {
  muteButton.setAttribute("aria-pressed", String(on));
  muteButton.textContent = on ? "Muted" : "Mute";
  if (call) call.track.enabled = !on;
}

/** @param {string} key */
function press(key) {
  const button = document.querySelector(`[data-key="${CSS.escape(key)}"]`);
  if (!call?.id || !button) return;
  button.classList.add("down");
  setTimeout(() => button.classList.remove("down"), 200);
  post(`/_sim/phone/calls/${call.id}/keys`, { keys: key }).catch(() => undefined);
}

callButton.addEventListener("click", () => (callButton.dataset.does === "hangup" ? hangUp() : start()));
muteButton.addEventListener("click", () => mute(muteButton.getAttribute("aria-pressed") !== "true"));
keys.forEach((button) => button.addEventListener("click", () => press(button.dataset.key ?? "")));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (/^[0-9*#]$/.test(event.key)) press(event.key);
});
setInterval(() => {
  const seconds = call?.answeredAt ? Math.floor((performance.now() - call.answeredAt) / 1000) : undefined;
  if (seconds !== undefined) at("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}, 250);

/** Rejected requests. Meta still accepts another answer, but the page does not ask again. @type {Set<string>} */
const rejected = new Set();
let requestId = "";

/** Shows the newest open permission request and the current permission. */
async function showRequests() {
  const { pairs } = await (await fetch("/_sim/permissions")).json();
  const pair = pairs.find((/** @type {any} */ of) => of.phone_number_id === world.phone_number_id && of.user === world.from);
  const request = pair?.requests.at(-1);
  requestId = request?.id ?? "";
  at("request").hidden = !request || rejected.has(requestId);
  at("request-text").textContent = request?.text ?? "";
  at("allowed").textContent = allowedWords(pair?.permission ?? {});
}

/** @param {string} answer */
async function answerRequest(answer) {
  try {
    if (answer === "reject") rejected.add(requestId);
    await post("/_sim/permissions/answer", { phone_number_id: world.phone_number_id, user: world.from, answer });
  } catch (error) {
    showState(`The answer could not be sent: ${error instanceof Error ? error.message : error}`);
  }
  await showRequests();
}

document.querySelectorAll("[data-answer]").forEach((button) => {
  button.addEventListener("click", () => answerRequest(/** @type {HTMLElement} */ (button).dataset.answer ?? ""));
});

/** Shows the messages between this user and the number. */
async function showMessages() {
  /** @type {any[]} */
  const all = await (await fetch("/_sim/messages")).json();
  const own = all.filter((of) => of.phone_number_id === world.phone_number_id && of.user === world.from).slice(-200);
  const list = at("messages");
  if (list.dataset.last === own.at(-1)?.id) return;
  list.dataset.last = own.at(-1)?.id ?? "";
  list.replaceChildren(...own.map((of) => {
    const item = document.createElement("li");
    item.className = of.by_business ? "business" : "own";
    item.dir = "auto";
    item.textContent = messageWords(of.message);
    return item;
  }));
  list.scrollTop = list.scrollHeight;
}

at("write").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = /** @type {HTMLInputElement} */ (at("text"));
  try {
    await post("/_sim/messages", { phone_number_id: world.phone_number_id, from: world.from, name: world.user, message: text.value });
    text.value = "";
    at("not-sent").textContent = "";
  } catch (error) {
    at("not-sent").textContent = `The message was not sent: ${error instanceof Error ? error.message : error}`;
  }
  await showMessages();
});

setButtons(false);
const world = await (await fetch(`/_sim/phone/world${location.search}`)).json();
at("business").textContent = world.business || "The business";
at("number").textContent = `+${world.number}`;
showState(`${world.user} can call now`, "ready");
const refresh = () => Promise.all([showRequests(), showMessages()]).catch(() => undefined);
await refresh();
setInterval(refresh, 2000);
