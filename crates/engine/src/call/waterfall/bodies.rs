//! Bodies that were sent and received: webhooks, Graph requests, documents and callbacks. `attach`
//! assigns them to bars.
//!
//! Bodies are derived from the event log and the outbox, without further storage. Requests to
//! customers are shown unchanged. Meta's messages are reconstructed from the log and marked as
//! such. None of them contains a token, signature or password.

use serde_json::{Value, json};

use crate::meta::{CallAnswer, CallId, CallRequest, SdpType, Session, callback_data};
use machine::{
    CallSetup, CallbackRequest, FetchFailure, FetchResponse, GraphAction, GraphOutcome, Outbound,
    Params, PhoneStatus, Refusal, Termination,
};
use media::sdp::REDACTED_MAX;
use model::{CallType, Direction, Method, Wacid};

/// Maximum number of bytes of a body that are shown.
pub const BODY_MAX: usize = 4 * 1024;

/// A body and its headline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body {
    pub way: Flow,
    /// The request line, or the status of the response.
    pub head: String,
    pub kind: Kind,
    /// The text of the body, cut at [`BODY_MAX`].
    pub text: String,
    /// Total length in bytes if the text was cut.
    pub cut_of: Option<usize>,
    pub kept: Fidelity,
}

/// Direction of a body, as seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    Out,
    In,
}

/// Format of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Json,
    /// One name and value per line. Each character of a secret value is shown as `x`.
    Form,
    Xml,
    Sdp,
    /// No body, or it is not available.
    None,
}

/// Accuracy of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fidelity {
    /// The body as sent, except for the encoding.
    Whole,
    /// The body was reconstructed from the event log, without unused fields.
    Rebuilt,
    /// The body is not available.
    Not,
}

impl Flow {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Out => "sent",
            Self::In => "received",
        }
    }
}

impl Kind {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Form => "form",
            Self::Xml => "xml",
            Self::Sdp => "sdp",
            Self::None => "none",
        }
    }
}

impl Fidelity {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Rebuilt => "rebuilt",
            Self::Not => "not_kept",
        }
    }
}

impl Body {
    fn new(way: Flow, head: impl Into<String>, kind: Kind, text: &str, kept: Fidelity) -> Self {
        let end = text.floor_char_boundary(BODY_MAX);
        let cut = text.get(..end).unwrap_or_default().to_owned();
        let cut_of = (end < text.len()).then_some(text.len());
        Self { way, head: head.into(), kind, text: cut, cut_of, kept }
    }

    fn json(way: Flow, head: impl Into<String>, value: &Value) -> Self {
        Self::rebuilt(way, head, &serde_json::to_string_pretty(value).unwrap_or_default())
    }

    fn rebuilt(way: Flow, head: impl Into<String>, text: &str) -> Self {
        Self::new(way, head, Kind::Json, text, Fidelity::Rebuilt)
    }

    /// Creates an entry that has only a headline.
    pub(super) fn none(way: Flow, head: impl Into<String>, kept: Fidelity) -> Self {
        Self::new(way, head, Kind::None, "", kept)
    }

    /// Creates a session description, which may have been shortened in the log.
    pub(super) fn sdp(way: Flow, kind: SdpType, text: &str) -> Self {
        let kept = if text.contains('…') { Fidelity::Rebuilt } else { Fidelity::Whole };
        const { assert!(REDACTED_MAX <= BODY_MAX, "an SDP is cut where it is kept") };
        Self::new(way, sdp_head(kind), Kind::Sdp, text, kept)
    }

    /// Creates an entry for a session description that the log does not contain.
    pub(super) fn no_sdp(way: Flow, kind: SdpType) -> Self {
        Self::none(way, sdp_head(kind), Fidelity::Not)
    }

    /// Creates the body of a request with parameters to a customer.
    pub(super) fn form(method: Method, url: &str, params: &Params) -> Self {
        let line = |(name, value): (&_, &machine::Param)| {
            let value = serde_json::to_value(value).ok();
            let value = value.as_ref().and_then(Value::as_str).unwrap_or_default();
            format!("{name}={value}\n")
        };
        let text: String = params.iter().map(line).collect();
        Self::new(
            Flow::Out,
            format!("{} {url}", method.as_str()),
            Kind::Form,
            &text,
            Fidelity::Whole,
        )
    }

    /// Creates the body of a callback.
    pub(super) fn notice(notice: &CallbackRequest) -> Self {
        Self::form(notice.method, &notice.url.0, &notice.params)
    }

    /// Creates the body of a fetch's response, with its status if known.
    pub(super) fn fetched(result: &Result<FetchResponse, FetchFailure>) -> Self {
        match result {
            Ok(FetchResponse::Document { document }) => {
                Self::new(Flow::In, "200", Kind::Xml, &document.source, Fidelity::Whole)
            }
            Ok(FetchResponse::Refused { refusal: Refusal { findings, .. } }) => Self::none(
                Flow::In,
                format!("200, document refused, findings: {}", findings.len()),
                Fidelity::Not,
            ),
            Ok(FetchResponse::Ignored) => Self::none(Flow::In, "2xx", Fidelity::Not),
            Err(FetchFailure::Status { status }) => {
                Self::none(Flow::In, status.to_string(), Fidelity::Not)
            }
            Err(failure) => Self::none(Flow::In, failure.to_string(), Fidelity::Not),
        }
    }
}

fn sdp_head(kind: SdpType) -> &'static str {
    match kind {
        SdpType::Offer => "SDP offer",
        SdpType::Answer => "SDP answer",
    }
}

const CALLS: &str = "calls";

/// Messages between an endpoint's phone and the node.
const PHONE: &str = "/phone (WebSocket)";

/// Meta's word for the direction of a call.
fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "USER_INITIATED",
        Direction::Outbound => "BUSINESS_INITIATED",
    }
}

/// Adds a field to an object.
fn put(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}

/// Builds a calls webhook's `value` that contains `item` in `list`.
fn of_calls(setup: &CallSetup, list: &str, item: Value) -> Value {
    let (business, user) = match setup.direction {
        Direction::Inbound => (&setup.to, &setup.from),
        Direction::Outbound => (&setup.from, &setup.to),
    };
    let mut value = json!({
        "messaging_product": "whatsapp",
        "metadata": { "display_phone_number": business, "phone_number_id": setup.phone_number_id.as_str() },
    });
    if list == CALLS {
        put(
            &mut value,
            "contacts",
            json!([{ "profile": { "name": setup.caller_name }, "wa_id": user }]),
        );
    }
    put(&mut value, list, json!([item]));
    json!({ "field": CALLS, "value": value })
}

/// Builds the body that started the call: Meta's webhook or a request to place it.
pub(super) fn began(setup: &CallSetup) -> Body {
    match (&setup.outbound, setup.call_type) {
        (Some(placed), _) => return ordered(setup, placed),
        (None, CallType::Web) => return Body::none(Flow::In, PHONE, Fidelity::Not),
        (None, CallType::Whatsapp) => {}
    }
    let mut call = json!({
        "event": "connect", "from": setup.from, "to": setup.to, "direction": direction(setup.direction),
        "session": { "sdp_type": "offer", "sdp": "…" },
    });
    if let Some(wacid) = &setup.wacid {
        put(&mut call, "id", json!(wacid.as_str()));
    }
    for (name, value) in
        [("cta_payload", &setup.cta_payload), ("deeplink_payload", &setup.deeplink_payload)]
    {
        if let Some(value) = value {
            put(&mut call, name, json!(value));
        }
    }
    Body::json(Flow::In, "POST /webhooks/meta", &of_calls(setup, CALLS, call))
}

fn ordered(setup: &CallSetup, placed: &Outbound) -> Body {
    let mut order = json!({
        "from": setup.from, "to": setup.to, "answer_url": &*setup.urls.answer.0,
        "answer_method": setup.urls.answer_method.as_str(), "hangup_url": &*setup.urls.hangup.0.0,
        "ring_timeout_ms": placed.ring_timeout_ms,
    });
    if let Some((url, _)) = &placed.ring {
        put(&mut order, "ring_url", json!(&*url.0));
    }
    if let Some(parent) = placed.parent_call {
        put(&mut order, "parent_call_uuid", json!(parent));
    }
    Body::json(Flow::In, "the request to place the call", &order)
}

/// Builds the webhook with Meta's answer to the node's offer.
pub(super) fn answered(setup: &CallSetup, wacid: Option<&Wacid>) -> Body {
    let call = json!({
        "id": wacid.map(Wacid::as_str), "event": "connect", "from": setup.from, "to": setup.to,
        "direction": direction(setup.direction), "session": { "sdp_type": "answer", "sdp": "…" },
    });
    Body::json(Flow::In, "POST /webhooks/meta", &of_calls(setup, CALLS, call))
}

/// Builds the webhook with the status of the user's phone.
pub(super) fn status(setup: &CallSetup, wacid: Option<&Wacid>, status: PhoneStatus) -> Body {
    let item = json!({
        "id": wacid.map(Wacid::as_str), "type": "call", "status": status.as_str().to_uppercase(),
        "recipient_id": setup.to,
    });
    Body::json(Flow::In, "POST /webhooks/meta", &of_calls(setup, "statuses", item))
}

/// Builds Meta's terminate webhook.
pub(super) fn terminated(
    setup: &CallSetup,
    wacid: Option<&Wacid>,
    termination: &Termination,
) -> Body {
    let mut call = json!({
        "id": wacid.map(Wacid::as_str), "event": "terminate", "from": setup.from, "to": setup.to,
        "direction": direction(setup.direction),
    });
    let Termination { status, start_time, end_time, duration_secs, error_code } = termination;
    for (name, value) in [
        ("status", status.as_ref().map(|status| json!(status))),
        ("start_time", start_time.map(|at| json!(at.to_string()))),
        ("end_time", end_time.map(|at| json!(at.to_string()))),
        ("duration", duration_secs.map(|secs| json!(secs))),
        ("errors", error_code.map(|code| json!([{ "code": code }]))),
    ] {
        if let Some(value) = value {
            put(&mut call, name, value);
        }
    }
    Body::json(Flow::In, "POST /webhooks/meta", &of_calls(setup, CALLS, call))
}

/// Builds the body of a Graph request.
pub(super) fn asked(setup: &CallSetup, wacid: Option<&Wacid>, action: GraphAction) -> Body {
    if setup.call_type == CallType::Web {
        return Body::none(Flow::Out, PHONE, Fidelity::Not);
    }
    let mut body = match (action, wacid) {
        (GraphAction::Connect, _) => CallRequest::connect(&setup.to, "…".to_owned()),
        (_, Some(wacid)) => CallRequest::about(wacid.clone(), action),
        (_, None) => return Body::none(Flow::Out, "POST", Fidelity::Not),
    };
    if matches!(action, GraphAction::PreAccept | GraphAction::Accept) {
        body.session = Some(Session { sdp_type: SdpType::Answer, sdp: "…".to_owned() });
    }
    if matches!(action, GraphAction::Connect | GraphAction::Accept) {
        // The node id is not in the event log.
        body.biz_opaque_callback_data = Some(callback_data(setup.call, "…"));
    }
    let head = format!("POST /{}/calls", setup.phone_number_id.as_str());
    Body::rebuilt(Flow::Out, head, &serde_json::to_string_pretty(&body).unwrap_or_default())
}

/// Builds the body of Graph's final response.
pub(super) fn answer(action: GraphAction, outcome: &GraphOutcome, made: Option<&Wacid>) -> Body {
    let error = |status: u16, code: i64, details: &str| {
        let mut error = json!({ "code": code });
        if !details.is_empty() {
            put(&mut error, "error_data", json!({ "details": details }));
        }
        Body::json(Flow::In, status.to_string(), &json!({ "error": error }))
    };
    match outcome {
        GraphOutcome::Done => {
            let mut answer = CallAnswer {
                messaging_product: Some("whatsapp".to_owned()),
                ..CallAnswer::default()
            };
            match (action, made) {
                (GraphAction::Connect, Some(id)) => answer.calls = vec![CallId { id: id.clone() }],
                _ => answer.success = Some(true),
            }
            Body::rebuilt(
                Flow::In,
                "200",
                &serde_json::to_string_pretty(&answer).unwrap_or_default(),
            )
        }
        GraphOutcome::Refused { status, code, details } => error(*status, *code, details),
        GraphOutcome::RateLimited { code } => error(429, *code, ""),
        GraphOutcome::Gone => error(400, 100, ""),
        GraphOutcome::ServerError { status, code } if *code != 0 => error(*status, *code, ""),
        GraphOutcome::ServerError { status, .. } => {
            Body::none(Flow::In, status.to_string(), Fidelity::Not)
        }
        GraphOutcome::Timeout | GraphOutcome::Unreachable => {
            Body::none(Flow::In, outcome.to_string(), Fidelity::Not)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Waterfall;
    use super::{BODY_MAX, Body, Fidelity, Flow, Kind};

    const MENU: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/calls/menu_by_keys.jsonl"
    ));
    const HIDDEN: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/calls/log_false_hides_keys.jsonl"
    ));

    fn fall(log: &str) -> Waterfall {
        Waterfall::of(log.as_bytes()).expect("it reads")
    }

    fn bodies<'f>(fall: &'f Waterfall, name: &str) -> &'f [Body] {
        &fall.bars.iter().find(|bar| bar.name == name).unwrap_or_else(|| panic!("{name}")).bodies
    }

    #[test]
    fn cuts_a_body_between_characters_and_reports_its_length() {
        let long = "ä".repeat(BODY_MAX);
        let cut = Body::new(Flow::In, "200", Kind::Xml, &format!("x{long}"), Fidelity::Whole);
        assert_eq!((cut.text.len(), cut.cut_of), (BODY_MAX - 1, Some(2 * BODY_MAX + 1)));
        let whole = Body::new(Flow::In, "200", Kind::Xml, &long[..BODY_MAX], Fidelity::Whole);
        assert_eq!((whole.text.len(), whole.cut_of), (BODY_MAX, None));
    }

    #[test]
    fn an_old_log_shows_its_bodies_and_marks_missing_ones() {
        let trace = r#"{"trace":"begun","received_us":-850,"admitted_us":120,"running_us":180,"media_us":420}"#;
        let callback = r#"{"trace":"callback","kind":"hangup","began":1795154594120394,"took_us":9000,"attempts":1,"outcome":"delivered","tries":[{"attempt":1,"span":"0000000000000007","from_us":1,"to_us":8,"status":204}]}"#;
        let (head, rest) = MENU.split_once('\n').expect("lines");
        let fall = fall(&format!(
            "{head}\n{trace}\n{rest}{callback}\n{}\n",
            callback.replace("hangup", "recording")
        ));
        let kept = |name: &str| {
            bodies(&fall, name).iter().map(|b| (b.way, b.kind, b.kept)).collect::<Vec<_>>()
        };
        let (json, none) = ((Kind::Json, Fidelity::Rebuilt), (Kind::None, Fidelity::Not));
        assert_eq!(kept("webhook"), [(Flow::In, json.0, json.1), (Flow::In, none.0, none.1)]);
        let graph =
            [(Flow::Out, json.0, json.1), (Flow::Out, none.0, none.1), (Flow::In, json.0, json.1)];
        assert_eq!(
            (kept("graph pre_accept"), kept("graph accept")),
            (graph.to_vec(), graph.to_vec())
        );
        assert_eq!(kept("graph terminate").len(), 2, "no SDP goes with it");
        let fetch =
            [(Flow::Out, Kind::Form, Fidelity::Whole), (Flow::In, Kind::Xml, Fidelity::Whole)];
        assert_eq!(kept("fetch action"), fetch);
        assert!(bodies(&fall, "fetch action")[0].text.contains("\nDigits=1\n"));
        let hangup = bodies(&fall, "callback hangup");
        assert!(hangup[0].text.contains("HangupCauseName=End Of XML Instructions\n"), "{hangup:?}");
        assert_eq!(
            (hangup[0].head.as_str(), hangup[1].head.as_str()),
            ("POST https://app.example.com/hangup", "204")
        );
        assert_eq!(
            bodies(&fall, "callback recording")[0].kept,
            Fidelity::Not,
            "the machine wished for none"
        );
        let terminate = bodies(&fall, "terminate webhook");
        assert!(
            terminate[0].text.contains("\"duration\": 3")
                && terminate[0].text.contains("\"terminate\"")
        );
    }

    #[test]
    fn session_descriptions_are_attached_to_their_bars() {
        let sdp =
            r#"{"trace":"sdp","offer":"v=0\na=ice-pwd:…\n","answer":"v=0\na=setup:active\n"}"#;
        let begun = r#"{"trace":"begun","received_us":-850,"admitted_us":120,"running_us":180,"media_us":420}"#;
        let (head, rest) = MENU.split_once('\n').expect("lines");
        let fall = fall(&format!("{head}\n{begun}\n{rest}{sdp}\n"));
        let offer = &bodies(&fall, "webhook")[1];
        assert_eq!((offer.kind, offer.way, offer.kept), (Kind::Sdp, Flow::In, Fidelity::Rebuilt));
        let answer = &bodies(&fall, "graph accept")[1];
        assert_eq!(
            (answer.text.as_str(), answer.way, answer.kept),
            ("v=0\na=setup:active\n", Flow::Out, Fidelity::Whole)
        );
    }

    #[test]
    fn hidden_input_is_in_no_body() {
        let fall = fall(HIDDEN);
        let all: Vec<&Body> = fall.bars.iter().flat_map(|bar| &bar.bodies).collect();
        let digits: Vec<&str> =
            all.iter().flat_map(|b| b.text.lines()).filter(|l| l.starts_with("Digits=")).collect();
        assert!(
            !digits.is_empty()
                && digits.iter().all(|d| d["Digits=".len()..].bytes().all(|b| b == b'x')),
            "{digits:?}"
        );
    }
}
