//! Requests to a customer's URL: one attempt with its redirects, and the attempts that the URL's
//! own settings allow.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::fragment::Settings;
use super::hops::{Hops, Sent};
use super::random::RandomSource;
use super::sign::{EVENT_SIGNATURE, SigningKeys, sign, sign_event};
use super::{params, params::GetUrl};
use egress::{
    BodyPolicy, CustomerUrl, Egress, EgressError, EgressRequest, EgressResponse, REDIRECTS_MAX,
    USER_AGENT,
};
use model::Clock;
use model::Secret;
use model::{Method, SpanId, TraceId, traceparent};

const EVENT_ID: HeaderName = HeaderName::from_static("x-offhook-event-id");
const ATTEMPT: HeaderName = HeaderName::from_static("x-offhook-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRUNCATED: HeaderName = HeaderName::from_static("x-offhook-truncated");
/// Pause before the first retry. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A request to a customer's URL, identical in every attempt.
pub(super) struct UrlRequest<'a> {
    pub(super) url: &'a CustomerUrl,
    pub(super) method: Method,
    pub(super) pairs: &'a [(&'a str, &'a str)],
    pub(super) keys: &'a SigningKeys,
    /// An event that is posted as JSON instead of parameters.
    pub(super) event: Option<Event<'a>>,
    pub(super) event_id: Uuid,
    pub(super) accept: &'static str,
    pub(super) body_policy: BodyPolicy,
    /// The trace of the call.
    pub(super) trace: TraceId,
    pub(super) hops: &'a Hops,
    pub(super) clock: &'a Clock,
}

/// An event for a webhook.
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) json: &'a str,
    /// The webhook's secrets, newest first.
    pub(super) secrets: &'a [Secret],
}

/// The result of all attempts.
pub(super) struct Attempts {
    /// A response of any status, or the last error.
    pub(super) outcome: Result<EgressResponse, EgressError>,
    /// The number of the last attempt.
    pub(super) attempts: u32,
}

impl UrlRequest<'_> {
    /// Makes attempts, numbered from `before` + 1, until one succeeds or `settings` allow no more.
    /// Everything happens within `settings.total`.
    pub(super) async fn send(
        &self,
        egress: &Egress,
        random: &RandomSource,
        settings: &Settings,
        before: u32,
    ) -> Attempts {
        let (mut attempts, mut last) = (before, None);
        let asking = async {
            let (mut left, mut pause) = (settings.retries, FIRST_PAUSE);
            loop {
                attempts += 1;
                let outcome = self.attempt(egress, random, settings, attempts).await;
                if left == 0 || !settings.retry_on.includes(&outcome) {
                    return outcome;
                }
                last = outcome.err();
                sleep(random.spread(pause)).await;
                (left, pause) = (left - 1, pause * 2);
            }
        };
        let outcome = timeout(settings.total, asking).await;
        let late = || match last {
            // Report the handshake of the same server, which says more than the timeout.
            Some(error @ EgressError::HandshakeTimeout { .. }) => error,
            _ => EgressError::ReadTimeout { waited: settings.total },
        };
        let outcome = outcome.unwrap_or_else(|_| Err(late()));
        Attempts { outcome, attempts }
    }

    /// Makes one attempt with its redirects. Each target is checked like the first and signed with
    /// its own URL. An event stays a POST with its body, since its id alone reports nothing.
    async fn attempt(
        &self,
        egress: &Egress,
        random: &RandomSource,
        settings: &Settings,
        number: u32,
    ) -> Result<EgressResponse, EgressError> {
        let (mut url, mut method) = (self.url.clone(), self.method);
        let mut pairs = self.pairs.to_vec();
        for _ in 0..=REDIRECTS_MAX {
            let (target, body, sent) = match method {
                Method::Post => {
                    let json =
                        self.event.map(|event| Bytes::copy_from_slice(event.json.as_bytes()));
                    (url.clone(), json.unwrap_or_else(|| Bytes::from(params::form(&pairs))), None)
                }
                Method::Get => {
                    let sent = params::get_url(url.text(), &pairs);
                    (egress.url(&sent.text)?, Bytes::new(), Some(sent))
                }
            };
            let mut headers =
                self.headers(method, &url, &pairs, sent.as_ref(), number, random.nonce());
            let span = SpanId::from_u64(random.next());
            if let Ok(value) = HeaderValue::try_from(traceparent(self.trace, span)) {
                headers.insert(TRACEPARENT, value);
            }
            self.hops.sent(&Sent { attempt: number, method, url: url.text(), headers: &headers });
            let request = EgressRequest {
                method: match method {
                    Method::Get => http::Method::GET,
                    Method::Post => http::Method::POST,
                },
                url: &target,
                headers,
                body,
                connect: settings.connect,
                read: settings.read,
                body_policy: self.body_policy,
            };
            self.hops.begin(number, span, self.clock.now());
            let answer = egress.request_watched(request, &|stage| self.hops.stage(stage)).await;
            self.hops.end(self.clock.now(), answer.as_ref().map_err(EgressError::outcome));
            let answer = answer?;
            let status = answer.status.as_u16();
            // A 303 would be followed with GET, which carries no event.
            if self.event.is_some() && status == 303 {
                return Ok(answer);
            }
            match answer.redirect(&target, egress.guard()) {
                None => return Ok(answer),
                Some(next) => url = next?,
            }
            if self.event.is_none() && matches!(status, 301..=303) {
                method = Method::Get;
            }
            if method == Method::Get {
                pairs = params::missing(url.parsed().query(), self.pairs);
            }
        }
        Err(EgressError::Redirects)
    }

    fn headers(
        &self,
        method: Method,
        url: &CustomerUrl,
        pairs: &[(&str, &str)],
        sent: Option<&GetUrl<'_>>,
        number: u32,
        nonce: String,
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static(self.accept));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
        headers.insert(ATTEMPT, HeaderValue::from(number));
        if method == Method::Post {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded; charset=utf-8");
            let json = HeaderValue::from_static("application/json; charset=utf-8");
            headers.insert(CONTENT_TYPE, if self.event.is_some() { json } else { form });
        }
        if let Some(event) = &self.event {
            let signed = sign_event(event.json.as_bytes(), event.secrets, self.clock.wall().secs());
            for (name, value) in [(EVENT_SIGNATURE, signed), (EVENT_ID, self.event_id.to_string())]
            {
                // Always valid: only digits, hex, commas and hyphens.
                if let Ok(value) = HeaderValue::try_from(value) {
                    headers.insert(name, value);
                }
            }
            return headers;
        }
        if sent.is_some_and(|sent| sent.truncated) {
            headers.insert(TRUNCATED, HeaderValue::from_static("1"));
        }
        let signed =
            sign(method, url.text(), sent.map_or(pairs, |sent| &sent.pairs), self.keys, nonce);
        for (name, value) in signed.into_iter().chain([(EVENT_ID, self.event_id.to_string())]) {
            // Always valid: only base64, commas, digits and hyphens.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        headers
    }
}
