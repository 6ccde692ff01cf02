//! `/webhooks/meta` on the public listener (`docs/reference/meta.md#webhook-endpoint`).

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{ALLOW, CONTENT_TYPE, EXPECT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;

use super::calls::Calls;
use super::claims::{HandOver, SignedWebhook};
use super::effect::Effect;
use super::kind::Kind;
use super::route::WebhookHandler;
use crate::limiter::RequestClaims;
use model::metric;

/// Maximum body size: 3 MiB, as documented by Meta.
const BODY_MAX: usize = 3 * 1024 * 1024;
/// Timeout for writes to the store. After that, Meta is asked to redeliver, since it waits only
/// some seconds for a response.
const STORE_TIME: Duration = Duration::from_secs(3);
/// Maximum number of bytes of an oversized body that are still read before the response is sent.
const REST_MAX: usize = 16 * 1024 * 1024;
const REST_TIME: Duration = Duration::from_secs(2);

/// Answers a request to `/webhooks/meta`. All items have been processed when the response is sent.
pub async fn handle<C, B>(
    handler: &Arc<WebhookHandler<C>>,
    request: Request<B>,
) -> Response<Full<Bytes>>
where
    C: Calls + 'static,
    B: Body,
{
    match *request.method() {
        Method::GET => verification(handler, request.uri().query().unwrap_or_default()),
        Method::POST => event(handler, request).await,
        _ => {
            let mut answer = empty(StatusCode::METHOD_NOT_ALLOWED);
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
            answer
        }
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

fn verification<C: Calls>(handler: &WebhookHandler<C>, query: &str) -> Response<Full<Bytes>> {
    let Some(challenge) = handler.secrets().challenge(query) else {
        return empty(StatusCode::FORBIDDEN);
    };
    let mut answer = Response::new(Full::from(challenge));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

/// Answers a webhook that another node of the fleet has received. The status is 200 if the events
/// of this node's calls were processed, and 503 if Meta must deliver them again.
pub fn handle_forwarded<C: Calls>(
    handler: &WebhookHandler<C>,
    webhook: &SignedWebhook,
) -> StatusCode {
    if !handler.secrets().signed(&webhook.headers, &webhook.body) {
        return StatusCode::UNAUTHORIZED;
    }
    match handler.deliver_forwarded(&webhook.body) {
        Ok(true) => StatusCode::OK,
        Ok(false) => StatusCode::SERVICE_UNAVAILABLE,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

/// Handles a webhook of which another node of the fleet hands the inbound calls or the messages
/// over. The status is 200 if this node takes them, and 503 if it can't take them either.
pub async fn handle_handed_over<C: Calls>(
    handler: &WebhookHandler<C>,
    webhook: &SignedWebhook,
    reason: HandOver,
) -> StatusCode {
    if !handler.secrets().signed(&webhook.headers, &webhook.body) {
        return StatusCode::UNAUTHORIZED;
    }
    match handler.take_over(&webhook.body, reason, STORE_TIME).await {
        Ok(true) => StatusCode::OK,
        Ok(false) => StatusCode::SERVICE_UNAVAILABLE,
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

async fn event<C: Calls + 'static, B: Body>(
    handler: &Arc<WebhookHandler<C>>,
    request: Request<B>,
) -> Response<Full<Bytes>> {
    let received = handler.clock.now();
    let (head, body) = request.into_parts();
    let mut body = std::pin::pin!(body);
    let refused = |effect, status| {
        handler.count(&Kind::BODY, effect);
        empty(status)
    };
    // Checked before the body is read and its signature verified: refusing is cheapest here, and
    // Meta retries.
    if !handler.accepts_webhook() {
        crate::count_refused(metric::queue::WEBHOOKS);
        return refused(Effect::Busy, StatusCode::SERVICE_UNAVAILABLE);
    }
    let body = match read(body.as_mut()).await {
        Ok(body) => body,
        Err(ReadError::TooLarge) => {
            if !head.headers.contains_key(EXPECT) {
                let _ = tokio::time::timeout(REST_TIME, drop_rest(body)).await;
            }
            return refused(Effect::TooLarge, StatusCode::PAYLOAD_TOO_LARGE);
        }
        // The sender closed the connection, or the listener gave up on the body. Nothing was read,
        // so nothing is counted.
        Err(ReadError::Broken) => return empty(StatusCode::BAD_REQUEST),
    };
    if !handler.secrets().signed(&head.headers, &body) {
        return refused(Effect::BadSignature, StatusCode::UNAUTHORIZED);
    }
    if let Some(claims) = head.extensions.get::<RequestClaims>() {
        claims.authenticate();
    }
    let webhook = SignedWebhook { body: body.into(), headers: head.headers };
    let has_messages = !handler.hand_messages_over(&webhook).await;
    let mut busy = false;
    match handler.deliver_received(received, &webhook.body, has_messages, |handled| {
        busy |= handled.effect == Effect::Busy;
    }) {
        Err(_) => refused(Effect::BadJson, StatusCode::BAD_REQUEST),
        Ok(waiting) => {
            let is_settled = if waiting.is_empty() {
                true
            } else {
                // Not cancelled if Meta closes the connection: a call that was claimed must begin,
                // and an event that was not written must be accepted when it is delivered again.
                let handler = handler.clone();
                let settled =
                    async move { handler.settle_shared(waiting, Some(webhook), STORE_TIME).await };
                tokio::spawn(settled).await.unwrap_or(false)
            };
            busy |= !is_settled;
            if busy {
                refused(Effect::Busy, StatusCode::SERVICE_UNAVAILABLE)
            } else {
                empty(StatusCode::OK)
            }
        }
    }
}

enum ReadError {
    TooLarge,
    Broken,
}

/// Reads a body and enforces its limit on the actual size, whatever its declared length. The
/// listener limits the time and the size of all bodies.
async fn read<B: Body>(mut body: Pin<&mut B>) -> Result<Vec<u8>, ReadError> {
    let claimed = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if claimed > BODY_MAX {
        return Err(ReadError::TooLarge);
    }
    let mut read = Vec::new();
    while let Some(frame) = body.as_mut().frame().await {
        let Ok(mut data) = frame.map_err(|_| ReadError::Broken)?.into_data() else { continue };
        if read.len() + data.remaining() > BODY_MAX {
            return Err(ReadError::TooLarge);
        }
        while data.has_remaining() {
            let chunk = data.chunk();
            read.extend_from_slice(chunk);
            let taken = chunk.len();
            data.advance(taken);
        }
    }
    Ok(read)
}

/// Reads and discards the rest of an oversized body. Closing a connection with unread bytes resets
/// it, and the response would be lost (RFC 9112, section 9.6). Not needed with `Expect:
/// 100-continue`, where the body is not sent.
async fn drop_rest<B: Body>(mut body: Pin<&mut B>) {
    let mut dropped = 0;
    while let Some(Ok(frame)) = body.as_mut().frame().await {
        dropped += frame.into_data().map_or(0, |data| data.remaining());
        if dropped > REST_MAX {
            return;
        }
    }
}
