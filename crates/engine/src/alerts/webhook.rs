//! Posts alerts to a URL, signed like events of an account (`docs/webhooks.md`).

use std::time::Duration;

use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::{Channel, Message, WebhookTarget};
use crate::answer::{EVENT_SIGNATURE, sign_event};
use egress::{BodyPolicy, Egress, EgressRequest};
use model::Clock;

const TIMEOUT: Duration = Duration::from_secs(10);
const EVENT_ID: HeaderName = HeaderName::from_static("x-offhook-event-id");
const ATTEMPT: HeaderName = HeaderName::from_static("x-offhook-attempt");

pub(super) struct Webhook {
    target: WebhookTarget,
    egress: Egress,
    clock: Clock,
}

impl Webhook {
    pub(super) fn new(target: WebhookTarget, egress: Egress, clock: Clock) -> Self {
        Self { target, egress, clock }
    }

    async fn post(&self, message: &Message, attempt: u32) -> Result<(), String> {
        let url = self.egress.url(&self.target.url).map_err(|e| e.to_string())?;
        let body = message.json();
        let secrets = std::slice::from_ref(&self.target.secret);
        let signature = sign_event(body.as_bytes(), secrets, self.clock.wall().secs());
        let text = |value: &str| HeaderValue::from_str(value).map_err(|e| e.to_string());
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (USER_AGENT, HeaderValue::from_static(egress::USER_AGENT)),
            (EVENT_ID, text(&message.id.to_string())?),
            (ATTEMPT, HeaderValue::from(attempt)),
            (EVENT_SIGNATURE, text(&signature)?),
        ]);
        let request = EgressRequest {
            method: Method::POST,
            url: &url,
            headers,
            body: body.into(),
            connect: TIMEOUT,
            read: TIMEOUT,
            body_policy: BodyPolicy::Discard,
        };
        let answer = self.egress.request(request).await.map_err(|e| e.to_string())?;
        match answer.status.is_success() {
            true => Ok(()),
            false => Err(format!("the response status was {}", answer.status.as_u16())),
        }
    }
}

/// Requests the URL without a body, which a receiver need not allow: any response will do.
pub(super) async fn check(target: &WebhookTarget, egress: &Egress) -> Result<(), String> {
    let url = egress.url(&target.url).map_err(|e| e.to_string())?;
    let request = EgressRequest {
        method: Method::HEAD,
        url: &url,
        headers: HeaderMap::from_iter([(USER_AGENT, HeaderValue::from_static(egress::USER_AGENT))]),
        body: bytes::Bytes::new(),
        connect: TIMEOUT,
        read: TIMEOUT,
        body_policy: BodyPolicy::Discard,
    };
    egress.request(request).await.map(drop).map_err(|e| e.to_string())
}

impl Channel for Webhook {
    fn name(&self) -> &'static str {
        "webhook"
    }

    fn send<'a>(&'a self, message: &'a Message, attempt: u32) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.post(message, attempt))
    }
}
