// @ts-check
// Texts of the browser phone: steps of a call, hangup causes, permissions and microphone errors.

/** The party that a step belongs to. @typedef {"meta" | "offhook" | "you"} Lane */

/** @type {Record<string, string>} */
const causes = {
  caller_hangup: "You hung up.",
  caller_cancelled: "You hung up before the call was answered.",
  business_hangup: "The business hung up.",
  xml_hangup: "The application hung up.",
  xml_rejected: "The application rejected the call.",
  xml_busy: "The application was busy.",
  end_of_instructions: "The application's document ended.",
  scheduled_hangup: "The application had scheduled a hangup.",
  api_hangup: "The call was ended over the API.",
  time_limit: "The call reached its time limit.",
  not_answered: "The call was not accepted in time.",
  rejected: "The business rejected the call.",
  number_full: "The number has reached its limit of simultaneous calls.",
  cps_exceeded: "The account has reached its limit of calls per second.",
  calling_disabled: "Calling is disabled on this number.",
  media_setup_timeout: "The media connection could not be established.",
  media_timeout: "The media connection was lost.",
  graph_error: "Meta refused a request of the node.",
  graph_timeout: "Meta did not respond to the node.",
  answer_url_unreachable: "The answer URL could not be reached.",
  action_url_unreachable: "An action URL could not be reached.",
  redirect_url_unreachable: "The URL of a Redirect could not be reached.",
  invalid_answer_xml: "The answer URL returned an invalid document.",
  invalid_action_xml: "An action URL returned an invalid document.",
  invalid_redirect_xml: "The URL of a Redirect returned an invalid document.",
  element_not_built: "The document has an element that this version does not support.",
  instruction_loop: "The documents form an endless loop.",
  internal_error: "Internal error of the node.",
  drained: "The node was shut down.",
};

/** @param {string} cause */
export function causeWords(cause) {
  const [word, more] = cause.split(/:(.*)/s);
  if (word === "webhook_not_verified") return `The node did not pass Meta's verification:${more ?? ""}`;
  if (word === "no_node") return "The simulated Meta has no node configured.";
  return causes[cause] ?? cause.replaceAll("_", " ");
}

/** @type {Record<string, string>} */
const hungUp = {
  caller: "You hang up",
  business: "terminate: the business hangs up",
  rejected: "reject: the business does not take the call",
  meta: "Meta ends the call: not accepted in time",
};

/** @type {Record<string, string>} */
const outcomes = { started: "started", done: "finished", skipped: "skipped", failed: "failed", cut: "interrupted" };

/**
 * The text of a step, or `undefined` if the event is not shown.
 * @param {any} event
 * @returns {{lane: Lane, who: string, what: string, more?: string} | undefined}
 */
export function stepWords(event) {
  switch (event.event) {
    case "verified":
      return { lane: "meta", who: "Meta → node", what: "Verification passed" };
    case "placed":
      return { lane: "meta", who: "Meta → node", what: "connect webhook, with Meta's SDP offer", more: event.call_id };
    case "webhook":
      return event.status === 200
        ? { lane: "offhook", who: "Node → Meta", what: `${event.kind} webhook accepted (200)` }
        : { lane: "meta", who: "Meta", what: `${event.kind} webhook: ${event.status || "no response"}, will be sent again` };
    case "ringing":
      return { lane: "offhook", who: "Node → Meta", what: "pre_accept: the node's SDP answer; media is being set up" };
    case "answered":
      return { lane: "offhook", who: "Node → Meta", what: "accept: the call is answered" };
    case "media_up":
      return { lane: "meta", who: "Media", what: "ICE and DTLS connected: audio can flow" };
    case "media_failed":
      return { lane: "meta", who: "Media", what: "The media connection failed", more: event.reason };
    case "first_audio":
      return { lane: "you", who: "You", what: "hear the business" };
    case "refused":
      return { lane: "meta", who: "Meta", what: `refuses ${event.action}`, more: event.details };
    case "instruction":
      return {
        lane: "offhook",
        who: "Node",
        what: `${event.element} ${outcomes[event.outcome] ?? event.outcome}`,
        more: [event.line ? `line ${event.line}` : "", event.note].filter(Boolean).join(", "),
      };
    case "finding":
      return { lane: "offhook", who: "Node", what: `refuses the document: ${event.rule} in line ${event.line}`, more: event.message };
    case "sound":
      return { lane: "you", who: "You", what: /^https?:/.test(event.text) ? `hear ${event.text}` : `hear: “${event.text}”` };
    case "digit_sent":
      return { lane: "you", who: "You", what: `press ${event.digit}`, more: "RFC 4733 event, 500 ms" };
    case "hangup":
      return { lane: event.by === "caller" ? "you" : "offhook", who: event.by === "caller" ? "You" : "Node → Meta", what: hungUp[event.by] ?? "Hangup" };
    case "ended":
      return {
        lane: "meta",
        who: event.ok ? "Ended" : "Failed",
        what: causeWords(event.cause),
        more: `${(event.heard_ms / 1000).toFixed(1)} s of audio received`,
      };
    default:
      return undefined;
  }
}

/**
 * The text of a permission.
 * @param {{status?: string, expiration_time?: number}} permission
 */
export function allowedWords(permission) {
  if (permission.status === "permanent") return "The business may call you.";
  if (permission.status !== "temporary" || !permission.expiration_time) return "";
  return `The business may call you until ${new Date(permission.expiration_time * 1000).toLocaleString()}.`;
}

/** The text of a chat message, or its type in brackets. @param {any} message */
export function messageWords(message) {
  if (typeof message === "string") return message;
  const parts = [message?.text?.body, message?.interactive?.body?.text, message?.[message?.type]?.caption, message?.template?.name];
  return parts.find((part) => typeof part === "string" && part) ?? `[${message?.type ?? "message"}]`;
}

/** The text of a microphone error, with the remedy. @param {unknown} error */
export function microphoneWords(error) {
  const name = error instanceof DOMException ? error.name : "";
  const consequence = "You can listen and press keys, but the business cannot hear you.";
  switch (name) {
    case "NotAllowedError":
      return `This page has no permission to use the microphone. ${consequence} To speak, allow it in the browser's site settings and call again.`;
    case "NotFoundError":
      return `No microphone was found. ${consequence}`;
    case "NotReadableError":
      return `The microphone is in use by another program. ${consequence}`;
    default:
      return `The microphone is not available here: browsers allow it on https pages and localhost only. ${consequence}`;
  }
}
