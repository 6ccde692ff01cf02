//! `/webhooks/meta` on the public listener (`docs/reference/meta.md#webhook-endpoint`).

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{ALLOW, CONTENT_TYPE, EXPECT};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Body;

use super::calls::Calls;
use super::effect::Effect;
use super::kind::Kind;
use super::route::WebhookHandler;
use model::metric;

/// Maximum body size: 3 MiB, as documented by Meta.
const BODY_MAX: usize = 3 * 1024 * 1024;
/// Maximum size of all bodies that are being read, signed or not. Without it, 8,192 connections of
/// 3 MiB would need 24 GiB (`docs/reference/reliability.md#r10`).
const BODIES_MAX: usize = 96 * 1024 * 1024;
/// A body of up to this size, typical of calls, may use the whole budget. Larger ones may use half
/// of it.
const SMALL_MAX: usize = 64 * 1024;
/// Timeout for reading a body.
const BODY_TIME: Duration = Duration::from_secs(15);
/// Timeout for writes to the store. After that Meta is asked to redeliver; it waits only some
/// seconds for a response.
const STORE_TIME: Duration = Duration::from_secs(3);
/// How much of an oversized body is still read, and for how long, before the response is sent.
const REST_MAX: usize = 16 * 1024 * 1024;
const REST_TIME: Duration = Duration::from_secs(2);

/// Answers a request to `/webhooks/meta`. All items have been processed when the response is sent.
pub async fn handle<C, B>(handler: &WebhookHandler<C>, request: Request<B>) -> Response<Full<Bytes>>
where
    C: Calls,
    B: Body,
{
    handle_within(handler, request, BODY_TIME).await
}

/// Like [`handle`], with another timeout for the body.
pub(super) async fn handle_within<C, B>(
    handler: &WebhookHandler<C>,
    request: Request<B>,
    body_time: Duration,
) -> Response<Full<Bytes>>
where
    C: Calls,
    B: Body,
{
    match *request.method() {
        Method::GET => verification(handler, request.uri().query().unwrap_or_default()),
        Method::POST => event(handler, request, body_time).await,
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

async fn event<C: Calls, B: Body>(
    handler: &WebhookHandler<C>,
    request: Request<B>,
    body_time: Duration,
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
    let mut budget = BodyBudget { held: 0, shared: &handler.reading };
    let body = match tokio::time::timeout(body_time, read(body.as_mut(), &mut budget)).await {
        Ok(Ok(body)) => body,
        Ok(Err(ReadError::OverBudget)) => {
            crate::count_refused(metric::queue::BODIES);
            return refused(Effect::Busy, StatusCode::SERVICE_UNAVAILABLE);
        }
        Ok(Err(ReadError::TooLarge)) => {
            // Releases the budget before the rest is read, which is discarded.
            drop(budget);
            if !head.headers.contains_key(EXPECT) {
                let _ = tokio::time::timeout(REST_TIME, drop_rest(body)).await;
            }
            return refused(Effect::TooLarge, StatusCode::PAYLOAD_TOO_LARGE);
        }
        // The sender closed the connection or was too slow. Nothing was read, so nothing is
        // counted.
        Ok(Err(ReadError::Broken)) => return empty(StatusCode::BAD_REQUEST),
        Err(_) => return empty(StatusCode::REQUEST_TIMEOUT),
    };
    if !handler.secrets().signed(&head.headers, &body) {
        return refused(Effect::BadSignature, StatusCode::UNAUTHORIZED);
    }
    let mut busy = false;
    match handler
        .deliver_received(received, &body, |handled| busy |= handled.effect == Effect::Busy)
    {
        Err(_) => refused(Effect::BadJson, StatusCode::BAD_REQUEST),
        Ok(waiting) => {
            busy |= !handler.settle(waiting, STORE_TIME).await;
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
    /// The budget for bodies is exhausted. Meta is asked to retry.
    OverBudget,
}

/// A body's share of [`BODIES_MAX`]. Released on drop.
struct BodyBudget<'a> {
    held: usize,
    shared: &'a AtomicUsize,
}

impl BodyBudget<'_> {
    fn take(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.held += bytes;
        let all = self.shared.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let bound = if self.held <= SMALL_MAX { BODIES_MAX } else { BODIES_MAX / 2 };
        if all <= bound { Ok(()) } else { Err(ReadError::OverBudget) }
    }
}

impl Drop for BodyBudget<'_> {
    fn drop(&mut self) {
        self.shared.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// Reads a body and enforces the limits on the actual size, whatever its declared length.
async fn read<B: Body>(
    mut body: Pin<&mut B>,
    budget: &mut BodyBudget<'_>,
) -> Result<Vec<u8>, ReadError> {
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
        budget.take(data.remaining())?;
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
