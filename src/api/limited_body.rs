//! The body of a request on its way to a handler: it must keep arriving, and its bytes are claimed
//! from the node's [`Pool`](engine::limiter::Pool). See `docs/reference/reliability.md#r10`.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::connection::Connection;
use engine::limiter::Claim;
use model::Clock;

/// Minimum average rate at which a body must arrive, in bytes per second.
const RATE_MIN: u64 = 16 << 10;

/// Why the rest of a body is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyFault {
    #[error("the request body arrives too slowly")]
    TooSlow,
    #[error("too many request bodies are being received; try again")]
    Evicted,
}

/// A request's body. It fails if it is too slow or evicted. The listener answers such a failure.
pub struct LimitedBody {
    body: Incoming,
    clock: Clock,
    begun: Instant,
    grace: Duration,
    received: u64,
    claim: Arc<Claim>,
    connection: Arc<Connection>,
    fault: Arc<OnceLock<BodyFault>>,
    /// Wakes the reader when the body is too late or evicted; set while it waits for data.
    wait: Option<Wait>,
}

type Wait = (Pin<Box<Sleep>>, Pin<Box<WaitForCancellationFutureOwned>>);

impl LimitedBody {
    /// `fault` receives the reason if the body fails.
    pub(super) fn new(
        body: Incoming,
        clock: Clock,
        grace: Duration,
        claim: Arc<Claim>,
        connection: Arc<Connection>,
        fault: Arc<OnceLock<BodyFault>>,
    ) -> Self {
        let begun = clock.now();
        Self { body, clock, begun, grace, received: 0, claim, connection, fault, wait: None }
    }

    /// The body without limits, to discard it.
    pub(super) fn into_inner(self) -> Incoming {
        self.body
    }

    /// The time that is left for the next bytes.
    fn time_left(&self) -> Duration {
        let allowed =
            self.grace + Duration::from_millis(self.received.saturating_mul(1_000) / RATE_MIN);
        allowed.saturating_sub(self.clock.now().saturating_duration_since(self.begun))
    }

    fn fail<T>(&mut self, fault: BodyFault) -> Poll<Option<Result<T, axum::Error>>> {
        let _ = self.fault.set(fault);
        Poll::Ready(Some(Err(axum::Error::new(fault))))
    }
}

impl Body for LimitedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.wait = None;
            let Some(Ok(frame)) = frame else {
                return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
            };
            self.connection.count_body_frame();
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.received = self.received.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
            return match self.claim.grow(bytes) {
                true => Poll::Ready(Some(Ok(frame))),
                false => self.fail(BodyFault::Evicted),
            };
        }
        let left = self.time_left();
        let evicted = self.claim.evicted().clone();
        let (late, evicted) = self
            .wait
            .get_or_insert_with(|| (Box::pin(sleep(left)), Box::pin(evicted.cancelled_owned())));
        let (is_late, is_evicted) = (late.as_mut().poll(cx), evicted.as_mut().poll(cx));
        match (is_late, is_evicted) {
            (_, Poll::Ready(())) => self.fail(BodyFault::Evicted),
            (Poll::Ready(()), _) => self.fail(BodyFault::TooSlow),
            _ => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
