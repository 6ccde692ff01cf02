//! Requests a number's URLs as a call would, and reports the status, the latency and the linter's
//! findings.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::NO_NUMBER;
use super::entries::Entries;
use super::errors::NumberError;
use crate::admission::book::{Book, Number};
use crate::answer::{DocumentBody, FetchJob, Fetcher, Hops, SigningKeys, Validity};
use machine::{FetchFailure, FetchKind, Param, Params};
use model::{AuthId, CallUuid, Clock, E164, Method};
use store::Scope;
use xml::MAX_BODY;
use xml::ast::{DocUrl, Finding};

/// Deadline of each URL.
const DEADLINE: Duration = Duration::from_secs(10);

/// The result for one URL.
#[derive(Clone, Debug)]
pub struct UrlCheck {
    /// The field of the number resource that holds the URL.
    pub field: &'static str,
    pub url: DocUrl,
    pub method: Method,
    pub checked: Checked,
    pub latency: Duration,
}

/// The outcome of the request.
#[derive(Clone, Debug)]
pub enum Checked {
    /// The status, and for documents the findings of the linter.
    Answered { status: u16, findings: Vec<Finding>, valid: bool },
    /// No usable response was received.
    Failed { status: Option<u16>, why: String },
}

impl Checked {
    /// Whether a call or callback could use the response.
    pub fn is_ok(&self) -> bool {
        matches!(self, Self::Answered { valid: true, .. })
    }
}

/// URLs with the fields that hold them.
pub(super) type FieldUrls = Vec<(&'static str, (DocUrl, Method))>;

/// Returns a number's effective URLs by field, and its main account with the keys that sign requests
/// to them.
pub fn urls_of(book: &Book, entry: &Number) -> (FieldUrls, (AuthId, SigningKeys)) {
    let set = &entry.set;
    let answer = book.answer_of(entry);
    let links =
        [("answerUrl", &answer), ("fallbackUrl", &set.fallback), ("hangupUrl", &set.hangup)];
    let mut urls: Vec<_> =
        links.into_iter().filter_map(|(field, link)| Some((field, link.get()?))).collect();
    urls.extend(set.webhook_url.clone().map(|url| ("webhookUrl", (url, Method::Post))));
    let tokens = |id| book.account(id).map(|account| account.tokens.clone()).unwrap_or_default();
    let owner = book.owner(entry);
    let main = book.main_of(owner);
    (urls, (main.clone(), SigningKeys::new(&tokens(owner), &tokens(main))))
}

/// Checks URLs.
pub struct UrlChecks {
    pub(super) entries: Arc<Entries>,
    pub(super) fetcher: Fetcher,
    pub(super) clock: Clock,
    /// The host of the SIP addresses of the node's endpoints.
    pub(super) sip_host: String,
}

impl UrlChecks {
    /// Requests every effective URL of the number.
    ///
    /// # Errors
    ///
    /// Returns an error if the number does not exist.
    pub async fn check(&self, scope: &Scope, number: &E164) -> Result<Vec<UrlCheck>, NumberError> {
        let (urls, signer) = {
            let book = self.entries.book();
            urls_of(&book, book.number(scope, number).ok_or(NumberError::Missing(NO_NUMBER))?)
        };
        let asked = urls.into_iter().map(|(field, url)| {
            let fetcher = (&self.fetcher, self.sip_host.as_str());
            check_url(fetcher, &self.clock, number, field, url, signer.clone())
        });
        Ok(futures_util::future::join_all(asked).await)
    }
}

/// Requests one URL for a main account. `sip_host` is the host of the SIP addresses of the node's
/// endpoints.
pub async fn check_url(
    (fetcher, sip_host): (&Fetcher, &str),
    clock: &Clock,
    number: &E164,
    field: &'static str,
    (url, method): (DocUrl, Method),
    (main_account, keys): (AuthId, SigningKeys),
) -> UrlCheck {
    let call = CallUuid(Uuid::new_v4());
    let kind = if field == "fallbackUrl" { FetchKind::Fallback } else { FetchKind::Answer };
    let job = FetchJob {
        call,
        main_account,
        kind,
        url: url.clone(),
        method,
        params: params(field, number, call),
        keys,
        event_id: Uuid::new_v4(),
        deadline: DEADLINE,
        max_body: MAX_BODY,
        hops: Hops::new(),
    };
    let begun = clock.now();
    let is_document = matches!(field, "answerUrl" | "fallbackUrl");
    let read = async |body: DocumentBody| {
        let parse = || {
            let parsed = xml::parse(&body.bytes, body.charset.as_deref()).allow_sip_host(sip_host);
            if fetcher.allows_http() { parsed.allow_plain_urls() } else { parsed }
        };
        let parsed = is_document.then(parse);
        let valid = parsed.as_ref().is_none_or(xml::ParseOutcome::is_ok);
        let findings = parsed.map(|parsed| parsed.findings).unwrap_or_default();
        let validity = if valid { Validity::Valid } else { Validity::Invalid };
        (Checked::Answered { status: body.status, findings, valid }, validity)
    };
    let checked = fetcher.document(&job, read).await.unwrap_or_else(failed);
    let latency = clock.now().saturating_duration_since(begun);
    UrlCheck { field, url, method, checked, latency }
}

fn failed(failure: FetchFailure) -> Checked {
    let (status, why) = match failure {
        FetchFailure::Status { status } => {
            (Some(status), format!("the response status was {status}"))
        }
        FetchFailure::Handshake => (None, "the TLS handshake got no response".to_owned()),
        FetchFailure::Timeout => (None, format!("no response within {} s", DEADLINE.as_secs())),
        FetchFailure::TooLarge => (None, format!("the response is larger than {MAX_BODY} bytes")),
        FetchFailure::Unreachable { detail: what }
        | FetchFailure::UrlRefused { detail: what }
        | FetchFailure::Invalid { detail: what } => (None, what),
    };
    Checked::Failed { status, why }
}

/// The parameters of a call's first request, for a call that does not exist. `OffhookCheck` marks
/// the request as a check.
fn params(field: &str, number: &E164, call: CallUuid) -> Params {
    let call = call.to_string();
    let event = match field {
        "hangupUrl" => "Hangup",
        "webhookUrl" => "Check",
        _ => "StartApp",
    };
    let all = [
        ("CallStatus", if field == "hangupUrl" { "completed" } else { "ringing" }),
        ("CallUUID", call.as_str()),
        ("Direction", "inbound"),
        ("Event", event),
        ("From", number.as_str()),
        ("OffhookCheck", "true"),
        ("To", number.as_str()),
    ];
    all.into_iter()
        .map(|(name, value)| (name.into(), Param::Plain(value.to_owned().into())))
        .collect()
}
