//! Limits for reading from connections: of the rate, and of what is read before other tasks can run.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use model::Clock;

/// What a frame counts beside its bytes. Frames are read one by one, even those without content.
const FRAME_BYTES: usize = 256;
/// The empty line that ends the head of a response.
const BLANK_LINE: &[u8] = b"\r\n\r\n";
/// Pause between reads above the rate.
const READ_PAUSE: Duration = Duration::from_millis(50);

/// Maximum number of bytes that a connection receives before other tasks can run. Parsing them takes
/// some 100 microseconds at worst.
const BYTES_PER_TURN: usize = 16 * 1024;

/// Lets other tasks run while a peer always has sent something.
#[derive(Default)]
pub struct ReadTurn {
    /// Number of bytes received since other tasks could run.
    bytes: usize,
}

impl ReadTurn {
    /// Waits for other tasks if the peer has sent enough.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes < BYTES_PER_TURN {
            return Poll::Ready(());
        }
        self.bytes = 0;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Counts what a read returned. A read that waits lets other tasks run.
    pub fn record<T>(&mut self, read: &Poll<T>, bytes: usize) {
        self.bytes = if read.is_pending() { 0 } else { self.bytes + bytes };
    }
}

/// Rate limit for reading from a connection.
pub struct ReadBudget {
    clock: Clock,
    at_once: i64,
    a_ms: i64,
    /// The units that may be read at present. Negative after a read of more.
    left: i64,
    /// The time up to which `left` was refilled.
    refilled: Instant,
    pause: Option<Pin<Box<Sleep>>>,
}

impl ReadBudget {
    /// Allows a burst of `at_once` units, such as bytes, and `a_ms` units per millisecond.
    pub fn new(clock: Clock, at_once: i64, a_ms: i64) -> Self {
        let refilled = clock.now();
        Self { clock, at_once, a_ms, left: at_once, refilled, pause: None }
    }

    /// Waits until something may be read.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let passed = self.clock.now().saturating_duration_since(self.refilled).as_millis();
            let ms = u32::try_from(passed).unwrap_or(u32::MAX);
            self.refilled += Duration::from_millis(ms.into());
            let refill = i64::from(ms).saturating_mul(self.a_ms);
            self.left = self.left.saturating_add(refill).min(self.at_once);
            if self.left > 0 {
                return Poll::Ready(());
            }
            self.pause = Some(Box::pin(sleep(READ_PAUSE)));
        }
    }

    /// Allows units that were counted to be read once more.
    pub fn give_back(&mut self, units: usize) {
        let units = i64::try_from(units).unwrap_or(i64::MAX);
        self.left = self.left.saturating_add(units).min(self.at_once);
    }

    /// Counts units that were read.
    pub fn take(&mut self, units: usize) {
        self.left = self.left.saturating_sub(i64::try_from(units).unwrap_or(i64::MAX));
    }
}

/// Rate limit for reading from a WebSocket, in bytes. It counts bytes and frames rather than
/// messages, because frames without content, such as empty fragments, belong to no message.
pub struct SocketBudget {
    budget: ReadBudget,
    frames: FrameCounter,
}

impl SocketBudget {
    /// The bytes begin with the head of the server's response.
    pub(crate) fn of_client(budget: ReadBudget) -> Self {
        Self { budget, frames: FrameCounter::default() }
    }

    /// The bytes begin with the client's first frame.
    pub fn of_server(budget: ReadBudget) -> Self {
        Self { budget, frames: FrameCounter { blank_line: BLANK_LINE.len(), ..Default::default() } }
    }

    /// Waits until something may be read.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.budget.poll_ready(cx)
    }

    /// Counts bytes that were read.
    pub fn take(&mut self, bytes: &[u8]) {
        self.budget.take(bytes.len() + self.frames.count(bytes) * FRAME_BYTES);
    }
}

/// Counts the frames of a WebSocket in the bytes of its peer (RFC 6455 §5.2).
#[derive(Default)]
struct FrameCounter {
    /// Number of bytes of the empty line that ends the head of the response.
    blank_line: usize,
    /// Number of bytes of the present header, up to the length of 7 bits.
    position: u8,
    /// Remaining bytes of the longer length and of the mask.
    extended: u8,
    mask: u8,
    /// Length of the content. While the header is incomplete, what is known of it.
    length: u64,
    /// Remaining bytes of the content.
    content: u64,
}

impl FrameCounter {
    /// Returns the number of frames whose headers end in the next bytes.
    fn count(&mut self, mut bytes: &[u8]) -> usize {
        let mut frames = 0;
        while let Some((first, rest)) = bytes.split_first() {
            if self.blank_line < BLANK_LINE.len() {
                self.blank_line = match BLANK_LINE.get(self.blank_line) == Some(first) {
                    true => self.blank_line + 1,
                    false => usize::from(*first == b'\r'),
                };
                bytes = rest;
            } else if self.content > 0 {
                let part = usize::try_from(self.content).unwrap_or(usize::MAX).min(bytes.len());
                self.content -= u64::try_from(part).unwrap_or_default();
                bytes = bytes.get(part..).unwrap_or_default();
            } else {
                self.header(*first);
                frames += usize::from(self.position == 0);
                bytes = rest;
            }
        }
        frames
    }

    /// Takes the next byte of a header. Afterwards `position` is 0 if it was the last one.
    fn header(&mut self, byte: u8) {
        match self.position {
            0 => {
                self.position = 1;
                return;
            }
            1 => {
                self.position = 2;
                self.mask = if byte & 0x80 == 0 { 0 } else { 4 };
                (self.extended, self.length) = match byte & 0x7f {
                    126 => (2, 0),
                    127 => (8, 0),
                    length => (0, length.into()),
                };
            }
            _ if self.extended > 0 => {
                self.extended -= 1;
                self.length = self.length << 8 | u64::from(byte);
            }
            _ => self.mask -= 1,
        }
        if self.extended == 0 && self.mask == 0 {
            self.position = 0;
            self.content = self.length;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::{FrameCounter, READ_PAUSE, ReadBudget};
    use model::{Clock, Timestamp};

    #[tokio::test]
    async fn bytes_above_the_rate_are_read_later() {
        let clock = Clock::stepped(Timestamp::default());
        let mut budget = ReadBudget::new(clock.clone(), 1_000_000, 1_048);
        let is_ready =
            |budget: &mut ReadBudget| budget.poll_ready(&mut Context::from_waker(Waker::noop()));
        budget.take(999_999);
        assert_eq!(is_ready(&mut budget), Poll::Ready(()));
        budget.take(16_384);
        assert_eq!(is_ready(&mut budget), Poll::Pending);
        clock.step(READ_PAUSE * 10);
        budget.pause = None;
        assert_eq!(is_ready(&mut budget), Poll::Ready(()));
        assert_eq!(budget.left, 1 - 16_384 + 500 * 1_048, "the debt counts");
        clock.step(READ_PAUSE * 1_000);
        assert_eq!(is_ready(&mut budget), Poll::Ready(()));
        assert_eq!(budget.left, 1_000_000, "no more than a burst");
    }

    #[test]
    fn frames_are_counted_in_pieces_of_any_size() {
        let long = |header: &[u8], content: usize| [header, &vec![0x81; content]].concat();
        let stream = [
            b"HTTP/1.1 101 Switching Protocols\r\nx: \r\r\n\r\n".to_vec(),
            long(&[0x01, 1], 1),
            // Empty fragments, one of them masked.
            vec![0x00, 0, 0x00, 0, 0x00, 0x80, 1, 2, 3, 4],
            long(&[0x82, 126, 1, 0], 256),
            long(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
            long(&[0x89, 125], 125),
        ]
        .concat();
        for size in [1, 2, 3, 7, 100, stream.len()] {
            let mut counter = FrameCounter::default();
            let frames: usize = stream.chunks(size).map(|piece| counter.count(piece)).sum();
            assert_eq!((frames, counter.position, counter.content), (7, 0, 0), "{size}");
        }
    }
}
