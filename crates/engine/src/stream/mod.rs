//! Audio streams: a call's audio on a customer's WebSocket, and the customer's audio in the call
//! (`docs/reference/xml.md#stream`, `docs/stream.md`).
//!
//! `call::shell` opens a stream and starts its audio; events are reported to a [`StreamSink`].
//! `socket` is the task that talks to the server. `sound` is a worker job that takes frames from
//! the leg and supplies frames to it. `outbox` and `queue` buffer data between the two. `message`
//! is the protocol; `mulaw`, `rate` and `denoise` convert audio. The call's machine decides when a
//! stream begins, what ends it and which callbacks are sent.

mod denoise;
mod message;
mod mulaw;
mod outbox;
mod queue;
mod rate;
mod socket;
mod sound;
#[cfg(test)]
mod tests;
mod trial;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::answer::{RandomSource, SigningKeys};
use egress::Egress;
use machine::{StreamEvent, StreamFormat, StreamOrder, StreamTrack};
use media::opus::Rate;
use media::workers::Workers;
use media::{CableEnd, Feed, LegHandle, Tap, TapSides};
use message::{ServerMessage, StreamIds};
use model::Clock;
use model::{AuthId, CallUuid, Digit, StreamId, Timestamp};
use outbox::Outbox;
use queue::Queue;
use sound::Sound;
#[doc(hidden)]
pub use trial::{Trial, read_messages};

/// Number of frames of the server's audio that are buffered at the leg before playback starts.
pub const LEAD: usize = 1;
const NO_ROOM: &str = "this node has no capacity for its audio";

/// Receives the events of a stream. Called from the stream's task and from a worker, so it must not
/// block.
pub type StreamSink = Arc<dyn Fn(StreamEvent) + Send + Sync>;

/// The parameters of a stream.
pub struct StreamJob {
    pub call: CallUuid,
    pub stream: StreamId,
    /// The owner of the call.
    pub account: AuthId,
    pub order: StreamOrder,
    /// Signing keys for the WebSocket upgrade.
    pub keys: SigningKeys,
    pub sink: StreamSink,
}

/// Opens streams. Cheap to clone.
#[derive(Clone)]
pub struct Streams {
    egress: Egress,
    clock: Clock,
    random: RandomSource,
    tasks: TaskTracker,
}

impl Streams {
    /// Creates the value. Sockets are served by tasks in `tasks`, for which the node waits at
    /// shutdown.
    pub fn new(egress: Egress, clock: Clock, random: RandomSource, tasks: TaskTracker) -> Self {
        Self { egress, clock, random, tasks }
    }

    /// Connects to the server. Events are reported to the job's sink.
    pub fn open(&self, job: StreamJob) -> StreamHandle {
        let StreamJob { call, stream, account, order, keys, sink } = job;
        let shared = Arc::new(Shared {
            ids: StreamIds {
                call: call.to_string(),
                stream: stream.to_string(),
                account: account.to_string(),
                extra_headers: order.extra_headers_text(),
            },
            outbox: Outbox::default(),
            play: Mutex::new(Play { queue: Queue::new(order.format.hz()), cleared: 0 }),
            order,
            sink,
            clock: self.clock.clone(),
            opened: AtomicBool::new(false),
            stopped: CancellationToken::new(),
        });
        let way = socket::Connector {
            egress: self.egress.clone(),
            random: self.random.clone(),
            keys,
            stream,
        };
        self.tasks.spawn(socket::run(shared.clone(), way).in_current_span());
        StreamHandle { stream, shared }
    }
}

/// A call's handle of its stream. Dropping it ends the stream.
pub struct StreamHandle {
    stream: StreamId,
    shared: Arc<Shared>,
}

impl StreamHandle {
    /// The stream's id.
    pub fn id(&self) -> StreamId {
        self.stream
    }

    /// Starts the audio between `leg` and the server.
    pub fn begin(&self, leg: &LegHandle, workers: &Workers) {
        let order = &self.shared.order;
        let sides = match order.track {
            StreamTrack::Inbound => TapSides::Received,
            StreamTrack::Outbound => TapSides::Sent,
            StreamTrack::Both => TapSides::Both,
        };
        let feed = order.bidirectional.then(|| leg.feed(LEAD));
        self.flow(leg.tap(sides), feed, workers);
    }

    /// Starts the audio with a cable end instead of a leg. `None` reports the stream as lost.
    pub fn begin_at(&self, end: Option<CableEnd>, workers: &Workers) {
        match end {
            Some(CableEnd { tap, feed }) => self.flow(tap, Some(feed), workers),
            None => self.shared.tell(StreamEvent::Lost { reason: NO_ROOM.to_owned() }),
        }
    }

    /// Whether the stream is connected to the call's room.
    pub fn is_in_room(&self) -> bool {
        self.shared.order.in_room
    }

    fn flow(&self, tap: Tap, feed: Option<Feed>, workers: &Workers) {
        if !workers.add(Box::new(Sound::new(self.shared.clone(), tap, feed))) {
            self.shared.tell(StreamEvent::Lost { reason: NO_ROOM.to_owned() });
        }
    }

    /// Sends a digit of the caller to the server.
    pub fn key(&self, digit: Digit) {
        if self.shared.opened.load(Ordering::Acquire) {
            let at_ms = epoch_ms(self.shared.clock.wall());
            self.shared.say(ServerMessage::Dtmf { digit: digit.as_char(), at_ms });
        }
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// State shared by a stream's task, its job and its handle.
struct Shared {
    order: StreamOrder,
    ids: StreamIds,
    outbox: Outbox,
    play: Mutex<Play>,
    sink: StreamSink,
    clock: Clock,
    /// Whether the `start` message was sent.
    opened: AtomicBool,
    /// Cancelled when the stream has ended.
    stopped: CancellationToken,
}

/// The server's audio.
struct Play {
    queue: Queue,
    /// Number of `clearAudio` commands that the job has not executed yet.
    cleared: u32,
}

impl Shared {
    fn play(&self) -> MutexGuard<'_, Play> {
        self.play.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, ours: ServerMessage<'_>) {
        self.outbox.other(|sequence| self.ids.text(sequence, ours));
    }

    fn tell(&self, fact: StreamEvent) {
        if !self.stopped.is_cancelled() {
            (self.sink)(fact);
        }
    }

    /// Reports an event that only status callbacks need.
    fn report(&self, fact: StreamEvent) {
        if self.order.status.is_some() {
            self.tell(fact);
        }
    }

    fn stop(&self) {
        if !self.stopped.is_cancelled() {
            self.outbox.close(|sequence| self.ids.text(sequence, ServerMessage::Stop));
            self.stopped.cancel();
        }
    }
}

/// The rate at which the stream's audio is decoded and encoded. It equals the stream's own rate, so
/// nothing is resampled.
fn rate(format: StreamFormat) -> Rate {
    match format {
        StreamFormat::Mulaw8000 | StreamFormat::L16At8000 => Rate::Hz8000,
        StreamFormat::L16At16000 => Rate::Hz16000,
        StreamFormat::L16At24000 => Rate::Hz24000,
    }
}

/// Returns the `timestamp` of a message.
fn epoch_ms(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000)
}
