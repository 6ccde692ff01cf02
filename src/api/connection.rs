//! One connection of a listener, seen from outside hyper: how long it has been idle, whether its peer dawdles, and what the
//! heads of its requests looked like on the wire (`heads`).
//!
//! hyper's own header timeout runs through keep-alive idleness and misses the first byte. So the stream is watched: by a
//! sweep once a second (`server`), and at each request.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::heads::{BadHead, Heads};
use super::server::HttpLimits;
use model::Clock;

/// What is known of a connection; shared by its stream, its requests and the sweep.
pub(super) struct Conn {
    clock: Clock,
    epoch: Instant,
    /// Requests whose answers are not out yet.
    in_flight: AtomicU32,
    /// When it last became idle; milliseconds since `epoch`, as all below.
    idle_since: AtomicU64,
    /// When a byte of a request came after that; 0: none yet.
    first_byte: AtomicU64,
    /// Since when the peer takes no bytes; 0: it does.
    stalled_since: AtomicU64,
    /// Answers that have something which the peer has not taken; those that wait for their handlers are none.
    untaken: AtomicU32,
    /// When a piece of an answer was asked for last.
    taken_at: AtomicU64,
    /// Had a request already.
    used: AtomicBool,
    http2: AtomicBool,
    heads: Mutex<Heads>,
    /// Ends it at once.
    pub(super) kill: CancellationToken,
}

impl Conn {
    pub(super) fn new(clock: &Clock, epoch: Instant) -> Arc<Self> {
        let conn = Self {
            clock: clock.clone(),
            epoch,
            in_flight: AtomicU32::new(0),
            idle_since: AtomicU64::new(0),
            first_byte: AtomicU64::new(0),
            stalled_since: AtomicU64::new(0),
            untaken: AtomicU32::new(0),
            taken_at: AtomicU64::new(0),
            used: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            heads: Mutex::default(),
            kill: CancellationToken::new(),
        };
        conn.idle_since.store(conn.now(), Ordering::Relaxed);
        Arc::new(conn)
    }

    /// Milliseconds since the server began, never 0.
    fn now(&self) -> u64 {
        let since = self.clock.now().saturating_duration_since(self.epoch);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// Since when it is idle, if it is.
    pub(super) fn idle_since(&self) -> Option<u64> {
        (self.in_flight.load(Ordering::Relaxed) == 0)
            .then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// Why it has been kept waiting for too long: the metric's word.
    pub(super) fn overdue(&self, limits: &HttpLimits) -> Option<&'static str> {
        let now = self.now();
        let past =
            |since: u64, bound: Duration| Duration::from_millis(now.saturating_sub(since)) > bound;
        let stalled = self.stalled_since.load(Ordering::Relaxed);
        if stalled != 0 && past(stalled, limits.stalled) {
            return Some("slow");
        }
        // HTTP/2 has windows of its own: a peer that opens none takes nothing, though TCP flows.
        if self.untaken.load(Ordering::Relaxed) > 0
            && past(self.taken_at.load(Ordering::Relaxed), limits.stalled)
        {
            return Some("slow");
        }
        let idle = self.idle_since()?;
        if !self.used.load(Ordering::Relaxed) {
            return past(idle, limits.head).then_some("slow");
        }
        let first_byte = self.first_byte.load(Ordering::Relaxed);
        if first_byte != 0 && !self.http2.load(Ordering::Relaxed) {
            return past(first_byte, limits.head).then_some("slow");
        }
        past(idle, limits.idle).then_some("idle")
    }

    fn heads(&self) -> MutexGuard<'_, Heads> {
        self.heads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self, bytes: &[u8]) {
        if bytes.is_empty() || self.http2.load(Ordering::Relaxed) {
            return;
        }
        let mut heads = self.heads();
        heads.read(bytes);
        if heads.is_http2() {
            self.http2.store(true, Ordering::Relaxed);
        } else if self.in_flight.load(Ordering::Relaxed) == 0 && heads.under_way() {
            let _ = self.first_byte.compare_exchange(
                0,
                self.now(),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// What is wrong with the head of the HTTP/1 request that just came, as it was on the wire; `headers` is what hyper made
    /// of it. Once for each.
    pub(super) fn bad_head(&self, headers: &HeaderMap) -> Option<BadHead> {
        let Some(seen) = self.heads().next() else { return Some(BadHead::Unseen) };
        // Where nothing was repaired the two say the same; where they do not, one of them has lost its way.
        seen.bad.or_else(|| (seen.fields != headers.len()).then_some(BadHead::Unseen))
    }

    /// It is another protocol's now, or nobody's: what comes is not looked at.
    pub(super) fn over(&self) {
        *self.heads() = Heads::over();
    }

    /// A request begins; it ends with the last holder of what this gives.
    pub(super) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.used.store(true, Ordering::Relaxed);
        InFlight(self.clone())
    }
}

/// A request that is being answered.
pub(super) struct InFlight(Arc<Conn>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let conn = &self.0;
        let now = conn.now();
        // A request may have come behind this one, or a part of it.
        let next = if conn.heads().under_way() { now } else { 0 };
        conn.first_byte.store(next, Ordering::Relaxed);
        conn.idle_since.store(now, Ordering::Relaxed);
        conn.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An answer's body that keeps its request in flight until it is out, and notes whether its peer takes it: it is asked
/// for a piece only where there is room to send it.
pub(super) struct Answering {
    body: Body,
    /// Counted among its connection's untaken ones.
    untaken: bool,
    request: InFlight,
}

impl Answering {
    pub(super) fn new(body: Body, request: InFlight) -> Self {
        let mut answering = Self { body, untaken: false, request };
        answering.note(true);
        answering
    }

    fn note(&mut self, untaken: bool) {
        let conn = &self.request.0;
        conn.taken_at.store(conn.now(), Ordering::Relaxed);
        match (std::mem::replace(&mut self.untaken, untaken), untaken) {
            (false, true) => drop(conn.untaken.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(conn.untaken.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.note(false);
    }
}

impl hyper::body::Body for Answering {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.note(polled.is_ready());
        polled
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The stream, watched.
pub(super) struct Watched {
    pub(super) stream: TcpStream,
    pub(super) conn: Arc<Conn>,
}

impl Watched {
    fn wrote<T>(&self, outcome: Poll<T>) -> Poll<T> {
        let stalled = &self.conn.stalled_since;
        match outcome {
            Poll::Ready(_) if stalled.load(Ordering::Relaxed) != 0 => {
                stalled.store(0, Ordering::Relaxed)
            }
            Poll::Pending => {
                let _ = stalled.compare_exchange(
                    0,
                    self.conn.now(),
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
            }
            Poll::Ready(_) => {}
        }
        outcome
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.conn.read(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(outcome)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(outcome)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderMap;

    use super::{BadHead, Clock, Conn, HttpLimits};
    use model::Timestamp;

    #[test]
    fn r14_a_head_that_was_not_seen_as_hyper_shows_it_is_refused() {
        let clock = Clock::stepped(Timestamp::default());
        let conn = Conn::new(&clock, clock.now());
        let headers =
            HeaderMap::from_iter([(http::header::HOST, http::HeaderValue::from_static("a"))]);
        assert_eq!(conn.bad_head(&headers), Some(BadHead::Unseen));
        conn.read(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\nx: y\r\n\r\n");
        assert_eq!(conn.bad_head(&headers), None);
        assert_eq!(conn.bad_head(&headers), Some(BadHead::Unseen));
        conn.over();
        conn.read(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
        assert_eq!(conn.bad_head(&headers), Some(BadHead::Unseen));
    }

    #[test]
    fn idle_and_slow_connections_come_due() {
        let clock = Clock::stepped(Timestamp::default());
        let limits = HttpLimits::default();
        let conn = Conn::new(&clock, clock.now());
        let step = |secs| clock.step(Duration::from_secs(secs));
        step(9);
        conn.read(b"GET / HT");
        assert_eq!(conn.overdue(&limits), None);
        step(2);
        assert_eq!(conn.overdue(&limits), Some("slow"), "a first head has 10 s in all");

        conn.read(b"TP/1.1\r\n\r\n");
        let request = conn.begin();
        assert_eq!(conn.bad_head(&HeaderMap::new()), None);
        step(1000);
        assert_eq!(
            (conn.overdue(&limits), conn.idle_since()),
            (None, None),
            "an answer takes as long as it takes"
        );
        drop(request);
        step(74);
        assert_eq!(conn.overdue(&limits), None);
        step(2);
        assert_eq!(conn.overdue(&limits), Some("idle"));
        conn.read(b"G");
        assert_eq!(conn.overdue(&limits), None);
        step(11);
        assert_eq!(conn.overdue(&limits), Some("slow"));

        // One that began behind another has its time from when that is answered.
        let conn = Conn::new(&clock, clock.now());
        conn.read(b"GET / HTTP/1.1\r\n\r\n");
        let request = conn.begin();
        assert_eq!(conn.bad_head(&HeaderMap::new()), None);
        conn.read(b"GET / HT");
        step(1000);
        drop(request);
        assert_eq!(conn.overdue(&limits), None);
        step(11);
        assert_eq!(conn.overdue(&limits), Some("slow"));
    }
}
