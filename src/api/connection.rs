//! One connection of the public listener, seen from outside hyper: how long it has been idle, whether its peer
//! dawdles, and what the head of its request looked like on the wire.
//!
//! hyper's own header timeout runs through keep-alive idleness and misses the first byte, and hyper repairs heads
//! that R14 wants refused. So the stream is watched: by a sweep once a second (`server`), and at each request.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use hyper::body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::server::HttpLimits;
use crate::clock::Clock;

/// Longest head (R14).
pub(super) const HEAD_BYTES_MAX: usize = 32 << 10;

/// What is known of a connection; shared by its stream, its requests and the sweep.
pub(super) struct Conn {
    clock: Clock,
    epoch: Instant,
    /// Requests whose answers are not out yet.
    in_flight: AtomicU32,
    /// When it last became idle; milliseconds since `epoch`, as all below.
    idle_since: AtomicU64,
    /// When a byte came after that; 0: none yet.
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
    /// Bytes since it became idle, to the end of a head.
    head: Mutex<Head>,
    /// Ends it at once.
    pub(super) kill: CancellationToken,
}

#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    whole: bool,
}

/// Why a head is refused with 400, though hyper took it (R14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHead {
    LengthAndChunking,
    TwoLengths,
    BareLineFeed,
    /// A body comes with it, and it stood behind another request: what it looked like is not known.
    Pipelined,
    /// A transfer coding other than `chunked`, or more than one.
    Coding,
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
            head: Mutex::default(),
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
        (self.in_flight.load(Ordering::Relaxed) == 0).then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// Why it has been kept waiting for too long: the metric's word.
    pub(super) fn overdue(&self, limits: &HttpLimits) -> Option<&'static str> {
        let now = self.now();
        let past = |since: u64, bound: Duration| Duration::from_millis(now.saturating_sub(since)) > bound;
        let stalled = self.stalled_since.load(Ordering::Relaxed);
        if stalled != 0 && past(stalled, limits.stalled) {
            return Some("slow");
        }
        // HTTP/2 has windows of its own: a peer that opens none takes nothing, though TCP flows.
        if self.untaken.load(Ordering::Relaxed) > 0 && past(self.taken_at.load(Ordering::Relaxed), limits.stalled) {
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

    fn read(&self, bytes: &[u8]) {
        if bytes.is_empty() || self.http2.load(Ordering::Relaxed) {
            return;
        }
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return;
        }
        let _ = self.first_byte.compare_exchange(0, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if head.whole {
            return;
        }
        // Empty lines before a request are nothing (RFC 9112 §2.2).
        let bytes = if head.bytes.is_empty() { bytes.trim_ascii_start() } else { bytes };
        // The end of a head can lie across two reads: look again from a little before.
        let from = head.bytes.len().saturating_sub(3);
        let room = HEAD_BYTES_MAX.saturating_sub(head.bytes.len());
        head.bytes.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        if head.bytes.starts_with(b"PRI * HTTP/2.0") {
            self.http2.store(true, Ordering::Relaxed);
            *head = Head::default();
            return;
        }
        let tail = head.bytes.get(from..).unwrap_or_default();
        let bare = tail.windows(2).position(|w| w == b"\n\n").map(|at| at + 2);
        let end = tail.windows(3).position(|w| w == b"\n\r\n").map(|at| at + 3);
        let end = bare.into_iter().chain(end).min();
        if let Some(end) = end {
            head.bytes.truncate(from + end);
            head.whole = true;
        }
    }

    /// What is wrong with the head of the HTTP/1 request that just came, as it was on the wire. `headers` is what
    /// hyper made of it.
    pub(super) fn bad_head(&self, headers: &HeaderMap) -> Option<BadHead> {
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let chunked = match (codings.next(), codings.next()) {
            (None, _) => false,
            (Some(one), None) if one.as_bytes().eq_ignore_ascii_case(b"chunked") => true,
            _ => return Some(BadHead::Coding),
        };
        let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        if !head.whole {
            return (chunked || headers.contains_key(header::CONTENT_LENGTH)).then_some(BadHead::Pipelined);
        }
        let mut lengths = 0;
        for line in head.bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
            if line.last() != Some(&b'\r') {
                return Some(BadHead::BareLineFeed);
            }
            let name = b"content-length:";
            lengths += usize::from(line.get(..name.len()).is_some_and(|n| n.eq_ignore_ascii_case(name)));
        }
        match lengths {
            0 => None,
            _ if chunked => Some(BadHead::LengthAndChunking),
            1 => None,
            _ => Some(BadHead::TwoLengths),
        }
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
        *conn.head.lock().unwrap_or_else(PoisonError::into_inner) = Head::default();
        conn.first_byte.store(0, Ordering::Relaxed);
        conn.idle_since.store(conn.now(), Ordering::Relaxed);
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

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
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
            Poll::Ready(_) if stalled.load(Ordering::Relaxed) != 0 => stalled.store(0, Ordering::Relaxed),
            Poll::Pending => {
                let _ = stalled.compare_exchange(0, self.conn.now(), Ordering::Relaxed, Ordering::Relaxed);
            }
            Poll::Ready(_) => {}
        }
        outcome
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.conn.read(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
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

    use http::{HeaderMap, HeaderValue, header};

    use super::{BadHead, Clock, Conn, HttpLimits};
    use crate::model::Timestamp;

    #[test]
    fn r14_heads_that_hyper_repairs_are_seen() {
        let cases: &[(&[&str], bool, Option<BadHead>)] = &[
            (&["POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc"], false, None),
            (
                &["POST / HTTP/1.1\r\nhost: a\r\nContent-Le", "ngth: 3\r\nTransfer-Encoding: chunked\r", "\n\r\n"],
                true,
                Some(BadHead::LengthAndChunking),
            ),
            (&["POST / HTTP/1.1\r\ncontent-length: 3\r\nCONTENT-LENGTH: 3\r\n\r\n"], false, Some(BadHead::TwoLengths)),
            (&["POST / HTTP/1.1\r\nhost: a\n\r\n"], false, Some(BadHead::BareLineFeed)),
            (&["POST / HTTP/1.1\nhost: a\n\n"], false, Some(BadHead::BareLineFeed)),
            (&["POST / HTTP/1.1\r\nhost: a\r\n\r\ncontent-length: 1\n\ncontent-length: 2\n"], false, None),
            (&[""], true, Some(BadHead::Pipelined)),
            (&["GET / HTT"], false, None),
            (&["\r\n\r\n", "POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\n"], true, Some(BadHead::LengthAndChunking)),
        ];
        for (reads, chunked, expected) in cases {
            let clock = Clock::stepped(Timestamp::default());
            let conn = Conn::new(&clock, clock.now());
            reads.iter().for_each(|r| conn.read(r.as_bytes()));
            let mut headers = HeaderMap::new();
            if *chunked {
                headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("Chunked"));
            }
            assert_eq!(conn.bad_head(&headers), *expected, "{reads:?}");
            headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static("gzip"));
            assert_eq!(conn.bad_head(&headers), Some(BadHead::Coding), "{reads:?}");
            let length = HeaderMap::from_iter([(header::CONTENT_LENGTH, HeaderValue::from_static("3"))]);
            let unseen = reads.concat().trim().is_empty().then_some(BadHead::Pipelined);
            assert!(unseen.is_none() || conn.bad_head(&length) == unseen, "{reads:?}");
        }
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

        let request = conn.begin();
        step(1000);
        assert_eq!((conn.overdue(&limits), conn.idle_since()), (None, None), "an answer takes as long as it takes");
        drop(request);
        step(74);
        assert_eq!(conn.overdue(&limits), None);
        step(2);
        assert_eq!(conn.overdue(&limits), Some("idle"));
        conn.read(b"G");
        assert_eq!(conn.overdue(&limits), None);
        step(11);
        assert_eq!(conn.overdue(&limits), Some("slow"));
    }
}
