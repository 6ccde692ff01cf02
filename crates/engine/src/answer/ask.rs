//! Asks a customer's URL: one attempt with its redirects, and the attempts that the URL's own settings allow.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::dice::Dice;
use super::fragment::Settings;
use super::hops::{Hops, Sent};
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
/// Pause before the first retry; doubled for each further one (`plivo-callbacks.md` §4.2).
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// What is asked, the same in every attempt.
pub(super) struct Question<'a> {
    pub(super) url: &'a CustomerUrl,
    pub(super) method: Method,
    pub(super) pairs: &'a [(&'a str, &'a str)],
    pub(super) keys: &'a SigningKeys,
    /// JSON to be posted, in place of parameters.
    pub(super) event: Option<Event<'a>>,
    pub(super) event_id: Uuid,
    pub(super) accept: &'static str,
    pub(super) body_policy: BodyPolicy,
    /// The call's.
    pub(super) trace: TraceId,
    pub(super) hops: &'a Hops,
    pub(super) clock: &'a Clock,
}

/// An event for a webhook (`number-api.md` §5).
#[derive(Clone, Copy)]
pub(super) struct Event<'a> {
    pub(super) json: &'a str,
    /// The webhook's, newest first.
    pub(super) secrets: &'a [Secret],
}

/// How the attempts ended.
pub(super) struct Tried {
    /// An answer of any status.
    pub(super) outcome: Result<EgressResponse, EgressError>,
    /// The number of the last attempt.
    pub(super) attempts: u32,
}

impl Question<'_> {
    /// Makes attempts, numbered on from `before`, until one succeeds or `settings` allow no other; all of it
    /// within `settings.total`.
    pub(super) async fn ask(
        &self,
        egress: &Egress,
        dice: &Dice,
        settings: &Settings,
        before: u32,
    ) -> Tried {
        let (mut attempts, mut last) = (before, None);
        let asking = async {
            let (mut left, mut pause) = (settings.retries, FIRST_PAUSE);
            loop {
                attempts += 1;
                let outcome = self.attempt(egress, dice, settings, attempts).await;
                if left == 0 || !settings.retry_on.wants(&outcome) {
                    return outcome;
                }
                last = outcome.err();
                sleep(dice.spread(pause)).await;
                (left, pause) = (left - 1, pause * 2);
            }
        };
        let outcome = timeout(settings.total, asking).await;
        let late = || match last {
            // It is the same server still.
            Some(error @ EgressError::HandshakeTimeout { .. }) => error,
            _ => EgressError::ReadTimeout { waited: settings.total },
        };
        let outcome = outcome.unwrap_or_else(|_| Err(late()));
        Tried { outcome, attempts }
    }

    /// One attempt, redirects included. Each hop is judged like a first target and signed for its own URL.
    async fn attempt(
        &self,
        egress: &Egress,
        dice: &Dice,
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
                self.headers(method, &url, &pairs, sent.as_ref(), number, dice.nonce());
            let span = SpanId::from_u64(dice.roll());
            if let Ok(value) = HeaderValue::try_from(traceparent(self.trace, span)) {
                headers.insert(TRACEPARENT, value);
            }
            self.hops.sent(&Sent { attempt: number, method, url: url.text(), headers: &headers });
            let ask = EgressRequest {
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
            let answer = egress.request_watched(ask, &|stage| self.hops.stage(stage)).await;
            let how = answer.as_ref().map(|a| a.status.as_u16()).map_err(EgressError::outcome);
            self.hops.end(self.clock.now(), how);
            let answer = answer?;
            match answer.redirect(&target, egress.guard()) {
                None => return Ok(answer),
                Some(next) => url = next?,
            }
            if matches!(answer.status.as_u16(), 301..=303) {
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
                // Digits, hex, commas, hyphens: always a header's value.
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
            // Base64, commas, digits, hyphens: always a header's value.
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        headers
    }
}
