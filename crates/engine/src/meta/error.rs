//! Classifies Graph's answers (`docs/reference/meta.md#error-codes`).

use std::ops::RangeInclusive;
use std::time::Duration;

use super::types::{CallAnswer, ErrorBody, ErrorDetail};
use machine::GraphAction;
use model::Wacid;

/// Error codes that need specific handling.
pub mod code {
    /// The user can't be reached.
    pub const UNDELIVERABLE: i64 = 131_026;
    /// The user has not written or called for 24 hours.
    pub const WINDOW_CLOSED: i64 = 131_047;
    /// The user has given no permission.
    pub const NO_PERMISSION: i64 = 138_006;
    /// The limit of permission requests is reached.
    pub const REQUESTS_USED_UP: i64 = 138_009;
    /// The limit of connected calls in 24 hours is reached.
    pub const CALLS_USED_UP: i64 = 138_012;
}

/// The meaning of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Success.
    Done,
    /// Success of a `connect`, with the id of the new call.
    Connected { wacid: Wacid },
    /// Code 100: the call is unknown or over. For `terminate` and `reject` that is a success.
    Gone,
    /// Code 100: the call was accepted before. A success if the outcome of an earlier attempt is
    /// unknown.
    AlreadyAccepted { details: String },
    /// A retry may succeed.
    Retryable(Retryable),
    /// A retry can't succeed.
    Refused { status: u16, code: i64, details: String },
}

/// Why and how a request may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retryable {
    pub trouble: TemporaryFailure,
    /// Whether at most one retry is allowed.
    pub once: bool,
    /// The value of `Retry-After`.
    pub after: Option<Duration>,
}

/// The kind of a temporary failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TemporaryFailure {
    /// Graph is temporarily unavailable. `code` is 0 if only the HTTP status says so.
    Server { status: u16, code: i64 },
    /// Too many requests. `code` is 0 if only the HTTP status says so.
    Rate { code: i64 },
}

/// The class of an error code. It does not depend on the HTTP status, because that is not
/// documented for the 138xxx codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Permanent,
    Transient,
    TransientOnce,
    Rate,
    RateOnce,
    /// The error's `is_transient` decides.
    ByFlag,
}

/// The classes of the error codes. The first row that contains a code applies.
const TABLE: &[(RangeInclusive<i64>, Class)] = &[
    (1..=2, Class::Transient),
    (3..=3, Class::Permanent),
    (4..=4, Class::Rate),
    (10..=10, Class::Permanent),
    (33..=33, Class::Permanent),
    (100..=100, Class::Permanent),
    (190..=190, Class::Permanent),
    (200..=299, Class::Permanent),
    (368..=368, Class::Permanent),
    (613..=613, Class::Rate),
    (80_007..=80_008, Class::Rate),
    (130_429..=130_429, Class::Rate),
    (131_000..=131_000, Class::Transient),
    (131_005..=131_009, Class::Permanent),
    (131_016..=131_016, Class::Transient),
    (131_026..=131_047, Class::Permanent),
    (131_048..=131_048, Class::Rate),
    (131_051..=131_051, Class::Permanent),
    (131_056..=131_056, Class::Rate),
    // Calling not enabled, receiver unreachable, number at its limit, user busy.
    (138_000..=138_003, Class::Permanent),
    (138_004..=138_004, Class::TransientOnce),
    (138_005..=138_005, Class::RateOnce),
    // No permission, SDP not applied in time, limit of requests or calls reached, prerequisites
    // missing.
    (138_006..=138_012, Class::Permanent),
    (138_013..=138_013, Class::Rate),
    (138_018..=138_018, Class::Permanent),
    (138_000..=138_999, Class::ByFlag),
];

/// Returns whether no request can succeed until an operator acts: token, policy, account or
/// payment.
pub fn is_alarm(status: u16, code: i64) -> bool {
    // Code 0 is an invalid token with status 401, and otherwise the absence of a code.
    matches!((code, status), (0, 401) | (190 | 368 | 131_031 | 131_042 | 131_044, _))
}

/// Returns whether the token was refused: expired, revoked or missing.
pub fn is_token_refused(status: u16, code: i64) -> bool {
    matches!((code, status), (190, _) | (0, 401))
}

/// The maximum length of Graph's error text, in characters.
const DETAILS_MAX: usize = 500;

/// The maximum length of a call id (`docs/reference/meta.md#bounds`), in bytes.
const ID_BYTES_MAX: usize = 512;

/// Classifies the answer to a request about a call. `after` is the value of its `Retry-After`.
pub fn classify(action: GraphAction, status: u16, after: Option<Duration>, body: &[u8]) -> Verdict {
    let error = serde_json::from_slice::<ErrorBody>(body).ok().map(|body| body.error);
    let class = match &error {
        Some(error) => by_code(error, status),
        None => match success_verdict(action, status, body) {
            Some(done) => return done,
            None => by_status(status),
        },
    };
    let code = error.as_ref().map_or(0, |error| error.code);
    if let Some(verdict) = error.as_ref().and_then(by_text) {
        return verdict;
    }
    let again = |trouble, once| Verdict::Retryable(Retryable { trouble, once, after });
    let ending = matches!(action, GraphAction::Reject | GraphAction::Terminate);
    match class {
        // Ending a call is given up only after a clear refusal.
        Class::Permanent | Class::ByFlag if ending && status == 429 => {
            again(TemporaryFailure::Rate { code }, false)
        }
        Class::Permanent | Class::ByFlag if ending && !(400..500).contains(&status) => {
            again(TemporaryFailure::Server { status, code }, false)
        }
        Class::Permanent | Class::ByFlag => {
            let details =
                error.as_ref().map_or("", ErrorDetail::details).chars().take(DETAILS_MAX).collect();
            Verdict::Refused { status, code, details }
        }
        Class::Transient => again(TemporaryFailure::Server { status, code }, false),
        Class::TransientOnce => again(TemporaryFailure::Server { status, code }, !ending),
        Class::Rate => again(TemporaryFailure::Rate { code }, false),
        Class::RateOnce => again(TemporaryFailure::Rate { code }, !ending),
    }
}

/// Classifies the answer to a request that is not about a call. The caller reads the body of a
/// success.
pub(super) fn classify_request(status: u16, after: Option<Duration>, body: &[u8]) -> Verdict {
    let error = serde_json::from_slice::<ErrorBody>(body).ok().map(|body| body.error);
    if error.is_none() && is_success(status, body) {
        return Verdict::Done;
    }
    let code = error.as_ref().map_or(0, |error| error.code);
    let again = |trouble, once| Verdict::Retryable(Retryable { trouble, once, after });
    match error.as_ref().map_or_else(|| by_status(status), |error| by_code(error, status)) {
        Class::Permanent | Class::ByFlag => {
            let details =
                error.as_ref().map_or("", ErrorDetail::details).chars().take(DETAILS_MAX).collect();
            Verdict::Refused { status, code, details }
        }
        Class::Transient => again(TemporaryFailure::Server { status, code }, false),
        Class::TransientOnce => again(TemporaryFailure::Server { status, code }, true),
        Class::Rate => again(TemporaryFailure::Rate { code }, false),
        Class::RateOnce => again(TemporaryFailure::Rate { code }, true),
    }
}

/// Returns whether it is unknown if the request had an effect: a success that can't be read, or a
/// gateway that timed out waiting for Graph. An error in Graph's own format means that it had none,
/// whatever its status.
pub(super) fn is_ambiguous(trouble: TemporaryFailure, body: &[u8]) -> bool {
    let by_gateway = |status| matches!(status, 200..=299 | 502 | 504);
    match trouble {
        TemporaryFailure::Server { status, .. } => {
            by_gateway(status) && serde_json::from_slice::<ErrorBody>(body).is_err()
        }
        TemporaryFailure::Rate { .. } => false,
    }
}

/// Returns whether the answer is a success: status 200 and a JSON object without `error`. A `null`
/// counts as absent.
fn is_success(status: u16, body: &[u8]) -> bool {
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(body);
    status == 200
        && object.is_ok_and(|object| object.get("error").is_none_or(serde_json::Value::is_null))
}

/// The verdict of a success. For `connect` it must contain a call id.
fn success_verdict(action: GraphAction, status: u16, body: &[u8]) -> Option<Verdict> {
    let clean = is_success(status, body);
    if !clean || action != GraphAction::Connect {
        return clean.then_some(Verdict::Done);
    }
    let answer = serde_json::from_slice::<CallAnswer>(body).unwrap_or_default();
    let wacid = answer.calls.into_iter().next().map(|call| call.id);
    let usable =
        |id: &Wacid| (1..=ID_BYTES_MAX).contains(&id.as_str().len()) && id.as_str().is_ascii();
    wacid.filter(usable).map(|wacid| Verdict::Connected { wacid })
}

fn by_code(error: &ErrorDetail, status: u16) -> Class {
    let row = TABLE.iter().find(|(codes, _)| codes.contains(&error.code));
    match row.map(|(_, class)| *class) {
        Some(Class::ByFlag) | None if error.is_transient == Some(true) => Class::Transient,
        Some(class) => class,
        None => by_status(status),
    }
}

fn by_status(status: u16) -> Class {
    match status {
        429 => Class::Rate,
        // A 2xx that is not a success has an empty, truncated or invalid body.
        200..=299 | 500.. => Class::Transient,
        _ => Class::Permanent,
    }
}

/// Classifies code 100 by its text. The code has many meanings, and two of them can only be
/// recognized by their text, since Meta sets no subcode.
fn by_text(error: &ErrorDetail) -> Option<Verdict> {
    if error.code != 100 || error.error_subcode == Some(33) {
        return None;
    }
    let text = error.details().to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["already accepted", "already been accepted", "already connected"]) {
        return Some(Verdict::AlreadyAccepted {
            details: error.details().chars().take(DETAILS_MAX).collect(),
        });
    }
    let of_call = says(&["call"]);
    let over = says(&[
        "not found",
        "ended",
        "terminated",
        "does not exist",
        "is over",
        "already over",
        "unknown call",
    ]);
    (of_call && over).then_some(Verdict::Gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::types::CallRequest;

    /// The expected verdict of a fixture.
    #[derive(Debug, PartialEq)]
    enum Want {
        Done,
        Gone,
        No(i64),
        Server { once: bool },
        Rate { code: i64, once: bool },
    }

    fn kind_of(verdict: &Verdict) -> Want {
        match verdict {
            Verdict::Done | Verdict::Connected { .. } => Want::Done,
            Verdict::Gone => Want::Gone,
            Verdict::AlreadyAccepted { .. } => panic!("no fixture says so"),
            Verdict::Refused { code, .. } => Want::No(*code),
            Verdict::Retryable(Retryable {
                trouble: TemporaryFailure::Server { .. },
                once,
                ..
            }) => Want::Server { once: *once },
            Verdict::Retryable(Retryable {
                trouble: TemporaryFailure::Rate { code },
                once,
                ..
            }) => Want::Rate { code: *code, once: *once },
        }
    }

    #[test]
    fn classifies_every_fixture() {
        let want = |file: &str| match file {
            "error_100_call_ended" => Want::Gone,
            "error_131016_overloaded" | "ok_status_with_error" | "error_html_502" => {
                Want::Server { once: false }
            }
            "error_138004" => Want::Server { once: true },
            "error_138005" => Want::Rate { code: 138_005, once: true },
            "error_4_rate" => Want::Rate { code: 4, once: false },
            "error_80007_rate" => Want::Rate { code: 80_007, once: false },
            "error_613_permissions" => Want::Rate { code: 613, once: false },
            "error_190_token" => Want::No(190),
            "error_100_fingerprint" | "error_data_is_string" | "error_unregistered_waba" => {
                Want::No(100)
            }
            code if code.starts_with("error_138") => {
                Want::No(code["error_".len()..].parse().unwrap())
            }
            _ => Want::Done,
        };
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/meta/graph");
        let mut seen = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let file = path.file_stem().unwrap().to_str().unwrap();
            let row: serde_json::Value =
                serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            let body = match row["response_text"].as_str() {
                Some(text) => text.as_bytes().to_vec(),
                None => serde_json::to_vec(&row["response"]).unwrap(),
            };
            let status = u16::try_from(row["status"].as_u64().unwrap()).unwrap();
            let verdict = classify(GraphAction::Accept, status, None, &body);
            assert_eq!(kind_of(&verdict), want(file), "{file}");
            if let Verdict::Refused { details, .. } = &verdict {
                assert!(!details.is_empty(), "{file}: the reason is kept for the log");
            }
            // Our request types round-trip the fixtures.
            if row["path"].as_str().is_some_and(|path| path.ends_with("/calls")) {
                let request: CallRequest = serde_json::from_value(row["request"].clone()).unwrap();
                assert_eq!(serde_json::to_value(&request).unwrap(), row["request"], "{file}");
                let answer: CallAnswer = serde_json::from_value(row["response"].clone()).unwrap();
                assert_eq!(serde_json::to_value(&answer).unwrap(), row["response"], "{file}");
            }
            seen += 1;
        }
        assert_eq!(seen, 36);
    }

    #[test]
    fn a_connect_without_an_id_is_not_a_success() {
        let none = br#"{"messaging_product":"whatsapp","calls":[]}"#;
        let one = br#"{"messaging_product":"whatsapp","calls":[{"id":"wacid.A"}]}"#;
        assert_eq!(
            kind_of(&classify(GraphAction::Connect, 200, None, none)),
            Want::Server { once: false }
        );
        assert_eq!(
            classify(GraphAction::Connect, 200, None, one),
            Verdict::Connected { wacid: "wacid.A".into() }
        );
        for bad in ["", "wacid.\u{e9}", &"w".repeat(513)] {
            let body = serde_json::json!({"calls": [{"id": bad}]}).to_string();
            assert_eq!(
                kind_of(&classify(GraphAction::Connect, 200, None, body.as_bytes())),
                Want::Server { once: false }
            );
        }
        assert_eq!(classify(GraphAction::Accept, 200, None, none), Verdict::Done);
    }

    #[test]
    fn classifies_non_json_bodies_by_status() {
        let rows: [(u16, &[u8], Want); 9] = [
            (200, b"", Want::Server { once: false }),
            (200, b"{\"success\":tr", Want::Server { once: false }),
            (200, b"[]", Want::Server { once: false }),
            (200, b"{}", Want::Done),
            (200, b"{\"error\":null}", Want::Done),
            (503, b"<html>", Want::Server { once: false }),
            (429, b"", Want::Rate { code: 0, once: false }),
            (404, b"<html>", Want::No(0)),
            (302, b"", Want::No(0)),
        ];
        for (status, body, want) in rows {
            assert_eq!(
                kind_of(&classify(GraphAction::PreAccept, status, None, body)),
                want,
                "{status} {body:?}"
            );
        }
    }

    #[test]
    fn gives_up_ending_a_call_only_after_a_clear_refusal() {
        let error = |code: i64, text: &str| {
            serde_json::to_vec(&serde_json::json!({"error": {"message": text, "code": code}}))
                .unwrap()
        };
        for (status, code, tried_again) in [
            (400, 100, false),
            (401, 190, false),
            (401, 138_006, false),
            (500, 138_007, true),
            (200, 138_000, true),
            (500, 138_999, true),
            (400, 138_999, false),
            (429, 138_002, true),
            (400, 131_016, true),
        ] {
            let verdict = classify(GraphAction::Terminate, status, None, &error(code, "no"));
            assert_eq!(matches!(verdict, Verdict::Retryable(_)), tried_again, "{status} {code}");
        }
        assert_eq!(
            classify(GraphAction::Reject, 400, None, &error(100, "Call not found or ended")),
            Verdict::Gone
        );
        let accepted =
            classify(GraphAction::Accept, 400, None, &error(100, "Call already accepted"));
        assert!(matches!(accepted, Verdict::AlreadyAccepted { .. }));
        let gone_number = br#"{"error":{"message":"Object does not exist for calls","code":100,"error_subcode":33}}"#;
        assert_eq!(
            kind_of(&classify(GraphAction::Terminate, 400, None, gone_number)),
            Want::No(100)
        );
    }

    #[test]
    fn r06_a_gateways_error_is_ambiguous_and_graphs_is_not() {
        let overloaded = br#"{"error":{"message":"overloaded","code":131016}}"#;
        for (status, body, open) in [
            (200, &b""[..], true),
            (200, b"{\"messages\":[{\"id\":\"wam", true),
            (502, b"<html>", true),
            (504, b"", true),
            (503, b"<html>", false),
            (200, overloaded, false),
            (502, overloaded, false),
        ] {
            let Verdict::Retryable(again) = classify_request(status, None, body) else {
                panic!("{status}")
            };
            assert_eq!(is_ambiguous(again.trouble, body), open, "{status}");
        }
    }

    #[test]
    fn classifies_unknown_codes_by_their_transient_flag() {
        let error = |code: i64, transient: Option<bool>| {
            serde_json::to_vec(&serde_json::json!({"error": {"message": "x", "code": code, "is_transient": transient}}))
                .unwrap()
        };
        for (status, code, transient, want) in [
            (400, 138_500, Some(true), Want::Server { once: false }),
            (500, 138_500, Some(false), Want::No(138_500)),
            (500, 138_500, None, Want::No(138_500)),
            (400, 777, Some(true), Want::Server { once: false }),
            (400, 777, None, Want::No(777)),
            (503, 777, None, Want::Server { once: false }),
            (429, 777, None, Want::Rate { code: 777, once: false }),
            (500, 100, Some(true), Want::No(100)),
        ] {
            let verdict = classify(GraphAction::Accept, status, None, &error(code, transient));
            assert_eq!(kind_of(&verdict), want, "{status} {code} {transient:?}");
        }
    }
}
