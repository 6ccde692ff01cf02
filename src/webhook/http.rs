//! `/webhooks/meta` on the public listener (`interface.md` §3, `meta-calling.md` §2.1).

use crate::observe;
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
use super::route::Door;
use model::metric;

/// 3 MiB: Meta's stated ceiling, and ours.
const BODY_MAX: usize = 3 * 1024 * 1024;
/// Bytes of all bodies that are being read at a time, signed or not: 8,192 connections of 3 MiB would be 24 GiB (R10).
const BODIES_MAX: usize = 96 * 1024 * 1024;
/// A body up to here, as those of calls are, may use all of that; a larger one only half.
const SMALL_MAX: usize = 64 * 1024;
/// A body that takes longer is given up (R10).
const BODY_TIME: Duration = Duration::from_secs(15);
/// What is not on the disk by then is to come again; Meta waits some seconds for an answer.
const STORE_TIME: Duration = Duration::from_secs(3);
/// What is still taken of a body that is too large, and for how long, before the answer is given.
const REST_MAX: usize = 16 * 1024 * 1024;
const REST_TIME: Duration = Duration::from_secs(2);

/// Answers one request to `/webhooks/meta`. Everything a body says has been taken on when the answer is given.
pub async fn handle<C, B>(door: &Door<C>, request: Request<B>) -> Response<Full<Bytes>>
where
    C: Calls,
    B: Body,
{
    handle_within(door, request, BODY_TIME).await
}

/// [`handle`] with another time for the body.
pub(super) async fn handle_within<C, B>(
    door: &Door<C>,
    request: Request<B>,
    body_time: Duration,
) -> Response<Full<Bytes>>
where
    C: Calls,
    B: Body,
{
    match *request.method() {
        Method::GET => verification(door, request.uri().query().unwrap_or_default()),
        Method::POST => event(door, request, body_time).await,
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

fn verification<C: Calls>(door: &Door<C>, query: &str) -> Response<Full<Bytes>> {
    let Some(challenge) = door.secrets().challenge(query) else {
        return empty(StatusCode::FORBIDDEN);
    };
    let mut answer = Response::new(Full::from(challenge));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

async fn event<C: Calls, B: Body>(
    door: &Door<C>,
    request: Request<B>,
    body_time: Duration,
) -> Response<Full<Bytes>> {
    let received = door.clock.now();
    let (head, body) = request.into_parts();
    let mut body = std::pin::pin!(body);
    let refused = |effect, status| {
        door.count(&Kind::BODY, effect);
        empty(status)
    };
    // Before the body is read and its signature reckoned: here a webhook costs the least, and Meta brings it again.
    if !door.accepts_webhook() {
        observe::count_refused(metric::queue::WEBHOOKS);
        return refused(Effect::Busy, StatusCode::SERVICE_UNAVAILABLE);
    }
    let mut room = Room { held: 0, shared: &door.reading };
    let body = match tokio::time::timeout(body_time, read(body.as_mut(), &mut room)).await {
        Ok(Ok(body)) => body,
        Ok(Err(Unread::NoRoom)) => {
            observe::count_refused(metric::queue::BODIES);
            return refused(Effect::Busy, StatusCode::SERVICE_UNAVAILABLE);
        }
        Ok(Err(Unread::TooLarge)) => {
            // Its bytes are gone already.
            drop(room);
            if !head.headers.contains_key(EXPECT) {
                let _ = tokio::time::timeout(REST_TIME, drop_rest(body)).await;
            }
            return refused(Effect::TooLarge, StatusCode::PAYLOAD_TOO_LARGE);
        }
        // The sender has gone, or dawdles: nobody to count, and nothing was read.
        Ok(Err(Unread::Broken)) => return empty(StatusCode::BAD_REQUEST),
        Err(_) => return empty(StatusCode::REQUEST_TIMEOUT),
    };
    if !door.secrets().signed(&head.headers, &body) {
        return refused(Effect::BadSignature, StatusCode::UNAUTHORIZED);
    }
    let mut busy = false;
    match door.deliver_received(received, &body, |handled| busy |= handled.effect == Effect::Busy) {
        Err(_) => refused(Effect::BadJson, StatusCode::BAD_REQUEST),
        Ok(waiting) => {
            busy |= !door.settle(waiting, STORE_TIME).await;
            if busy {
                refused(Effect::Busy, StatusCode::SERVICE_UNAVAILABLE)
            } else {
                empty(StatusCode::OK)
            }
        }
    }
}

enum Unread {
    TooLarge,
    Broken,
    /// Others are sending too much just now: Meta comes again.
    NoRoom,
}

/// What a body takes of [`BODIES_MAX`]; given back on drop.
struct Room<'a> {
    held: usize,
    shared: &'a AtomicUsize,
}

impl Room<'_> {
    fn take(&mut self, bytes: usize) -> Result<(), Unread> {
        self.held += bytes;
        let all = self.shared.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let bound = if self.held <= SMALL_MAX { BODIES_MAX } else { BODIES_MAX / 2 };
        if all <= bound { Ok(()) } else { Err(Unread::NoRoom) }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.shared.fetch_sub(self.held, Ordering::Relaxed);
    }
}

/// The body, counted while it is read, whatever length it claims.
async fn read<B: Body>(mut body: Pin<&mut B>, room: &mut Room<'_>) -> Result<Vec<u8>, Unread> {
    let claimed = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if claimed > BODY_MAX {
        return Err(Unread::TooLarge);
    }
    let mut read = Vec::new();
    while let Some(frame) = body.as_mut().frame().await {
        let Ok(mut data) = frame.map_err(|_| Unread::Broken)?.into_data() else { continue };
        if read.len() + data.remaining() > BODY_MAX {
            return Err(Unread::TooLarge);
        }
        room.take(data.remaining())?;
        while data.has_remaining() {
            let chunk = data.chunk();
            read.extend_from_slice(chunk);
            let taken = chunk.len();
            data.advance(taken);
        }
    }
    Ok(read)
}

/// Takes and drops what the sender of a body that is too large still writes: closed on unread bytes, a connection
/// is reset, and the answer is lost with it (RFC 9112 §9.6). One that waits to be asked for its body has none.
async fn drop_rest<B: Body>(mut body: Pin<&mut B>) {
    let mut dropped = 0;
    while let Some(Ok(frame)) = body.as_mut().frame().await {
        dropped += frame.into_data().map_or(0, |data| data.remaining());
        if dropped > REST_MAX {
            return;
        }
    }
}
