// @ts-check
// What the phone says in words: steps of a call, and why it ended.

/** Who is seen doing it. @typedef {"meta" | "offhook" | "you"} Lane */

/** @type {Record<string, string>} */
const causes = {
  caller_hangup: "You hung up.",
  caller_cancelled: "You hung up before the call was answered.",
  business_hangup: "The business hung up.",
  xml_hangup: "The application's document said Hangup.",
  xml_rejected: "The application rejected the call.",
  xml_busy: "The application said it is busy.",
  end_of_instructions: "The application's document came to its end.",
  scheduled_hangup: "A hangup that the application had scheduled.",
  api_hangup: "Somebody ended the call over the API.",
  time_limit: "The call reached its longest duration.",
  not_answered: "Nobody accepted the call in time.",
  rejected: "The business rejected the call.",
  number_full: "The number has as many calls as it may.",
  cps_exceeded: "The account had more calls in a second than it may.",
  calling_disabled: "Calling is switched off on this number.",
  media_setup_timeout: "The media path did not come up.",
  media_timeout: "The media path died.",
  graph_error: "Meta refused what the node asked.",
  graph_timeout: "Meta did not answer the node.",
  answer_url_unreachable: "The answer URL could not be reached.",
  action_url_unreachable: "An action URL could not be reached.",
  redirect_url_unreachable: "The URL of a Redirect could not be reached.",
  invalid_answer_xml: "The answer URL gave a document that is refused.",
  invalid_action_xml: "An action URL gave a document that is refused.",
  invalid_redirect_xml: "A Redirect led to a document that is refused.",
  element_not_built: "The document has an element that this version does not run yet.",
  instruction_loop: "The documents led round in circles.",
  internal_error: "A fault in the node.",
  drained: "The node was shut down.",
};

/** @param {string} cause */
export function causeWords(cause) {
  const [word, more] = cause.split(/:(.*)/s);
  if (word === "webhook_not_verified") return `The node did not pass Meta's verification:${more ?? ""}`;
  if (word === "no_node") return "The simulated Meta does not know where the node is.";
  return causes[cause] ?? cause.replaceAll("_", " ");
}

/** @type {Record<string, string>} */
const hungUp = {
  caller: "You hang up",
  business: "terminate: the business hangs up",
  rejected: "reject: the business does not take the call",
  meta: "Meta gives up: nobody accepted",
};

/** @type {Record<string, string>} */
const became = { started: "begins", done: "is done", skipped: "is skipped", failed: "fails", cut: "is cut short" };

/**
 * A step in words; none where there is nothing to show.
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
        ? { lane: "offhook", who: "Node → Meta", what: `${event.kind} webhook taken (200)` }
        : { lane: "meta", who: "Meta", what: `${event.kind} webhook: ${event.status || "no answer"}, will be sent again` };
    case "ringing":
      return { lane: "offhook", who: "Node → Meta", what: "pre_accept: the node's SDP answer; media is being set up" };
    case "answered":
      return { lane: "offhook", who: "Node → Meta", what: "accept: the call is answered" };
    case "media_up":
      return { lane: "meta", who: "Media", what: "ICE and DTLS are up: sound can flow" };
    case "media_failed":
      return { lane: "meta", who: "Media", what: "The media path ended", more: event.reason };
    case "first_audio":
      return { lane: "you", who: "You", what: "hear the business" };
    case "refused":
      return { lane: "meta", who: "Meta", what: `refuses ${event.action}`, more: event.details };
    case "instruction":
      return {
        lane: "offhook",
        who: "Node",
        what: `${event.element} ${became[event.outcome] ?? event.outcome}`,
        more: [event.line ? `line ${event.line}` : "", event.note].filter(Boolean).join(", "),
      };
    case "digit_sent":
      return { lane: "you", who: "You", what: `press ${event.digit}`, more: "RFC 4733 event, 500 ms" };
    case "hangup":
      return { lane: event.by === "caller" ? "you" : "offhook", who: event.by === "caller" ? "You" : "Node → Meta", what: hungUp[event.by] ?? "Hangup" };
    case "ended":
      return {
        lane: "meta",
        who: event.ok ? "Ended" : "Failed",
        what: causeWords(event.cause),
        more: `${(event.heard_ms / 1000).toFixed(1)} s of sound heard`,
      };
    default:
      return undefined;
  }
}

/**
 * What the user has allowed, in words.
 * @param {{status?: string, expiration_time?: number}} permission
 */
export function allowedWords(permission) {
  if (permission.status === "permanent") return "The business may call you.";
  if (permission.status !== "temporary" || !permission.expiration_time) return "";
  return `The business may call you until ${new Date(permission.expiration_time * 1000).toLocaleString()}.`;
}

/** Why there is no microphone, and what to do. @param {unknown} error */
export function microphoneWords(error) {
  const name = error instanceof DOMException ? error.name : "";
  const so = "You can listen and press keys; nobody hears you.";
  switch (name) {
    case "NotAllowedError":
      return `The microphone is not allowed for this page. ${so} To speak, allow it in the browser's site settings and call again.`;
    case "NotFoundError":
      return `There is no microphone on this machine. ${so}`;
    case "NotReadableError":
      return `Another program holds the microphone. ${so}`;
    default:
      return `The microphone can't be used here (browsers give it to https pages and to localhost only). ${so}`;
  }
}
