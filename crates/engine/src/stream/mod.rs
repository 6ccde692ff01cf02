//! A call's sound on a customer's WebSocket, and the customer's sound in the call (`plivo-xml.md` §5.11,
//! `plivo-callbacks.md` §3.9).
//!
//! `call::shell` opens a stream and lets its sound flow; what happens comes back as [`StreamFact`]s. `socket` is the task
//! that speaks with the server, `sound` the job beside the shards that takes frames from the leg and gives it some,
//! `outbox` and `queue` what waits between the two, `message` the protocol, `mulaw` and `rate` how sound is written.
//! When a stream begins, what ends it and which callbacks are sent is the machine's business (`call::machine`).

mod hush;
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

use crate::answer::{Dice, SigningKeys};
use egress::Egress;
use machine::{StreamEvent, StreamFormat, StreamOrder, StreamTrack};
use media::opus::Rate;
use media::workers::Workers;
use media::{CableEnd, Feed, LegHandle, Tap, TapSides};
use message::{Ours, Phrases};
use model::Clock;
use model::{AuthId, CallUuid, Digit, StreamId, Timestamp};
use outbox::Outbox;
use queue::Queue;
use sound::Sound;
#[doc(hidden)]
pub use trial::{Trial, read_messages};

/// Frames of the server's that are at the leg before sound begins: what comes in time is heard at once, and what comes
/// late makes room for itself.
pub const LEAD: usize = 1;
const NO_ROOM: &str = "this node has no room for its sound";

/// Where a stream's facts go. Called from its task and from a worker: must not wait.
pub type StreamSink = Arc<dyn Fn(StreamEvent) + Send + Sync>;

/// What a stream is opened with.
pub struct StreamJob {
    pub call: CallUuid,
    pub stream: StreamId,
    /// The call's owner.
    pub account: AuthId,
    pub order: StreamOrder,
    /// What the upgrade is signed with.
    pub keys: SigningKeys,
    pub sink: StreamSink,
}

/// Opens streams; cheap to clone.
#[derive(Clone)]
pub struct Streams {
    egress: Egress,
    clock: Clock,
    dice: Dice,
    tasks: TaskTracker,
}

impl Streams {
    /// `tasks`: where sockets are served; whoever stops the node waits for it.
    pub fn new(egress: Egress, clock: Clock, dice: Dice, tasks: TaskTracker) -> Self {
        Self { egress, clock, dice, tasks }
    }

    /// Connects; what comes of it is told to the job's sink.
    pub fn open(&self, job: StreamJob) -> StreamHandle {
        let StreamJob { call, stream, account, order, keys, sink } = job;
        let shared = Arc::new(Shared {
            phrases: Phrases {
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
        let way =
            socket::Way { egress: self.egress.clone(), dice: self.dice.clone(), keys, stream };
        self.tasks.spawn(socket::run(shared.clone(), way).in_current_span());
        StreamHandle { stream, shared }
    }
}

/// A call's hold on its stream. Dropping it ends the stream.
pub struct StreamHandle {
    stream: StreamId,
    shared: Arc<Shared>,
}

impl StreamHandle {
    /// Its name.
    pub fn id(&self) -> StreamId {
        self.stream
    }

    /// The sound flows between `leg` and the server from now on.
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

    /// The same with what is at the end of a cable, in place of a leg; none: there is nothing.
    pub fn begin_at(&self, end: Option<CableEnd>, workers: &Workers) {
        match end {
            Some(CableEnd { tap, feed }) => self.flow(tap, Some(feed), workers),
            None => self.shared.tell(StreamEvent::Lost { reason: NO_ROOM.to_owned() }),
        }
    }

    /// Whether it is for the room that the call is in.
    pub fn is_in_room(&self) -> bool {
        self.shared.order.in_room
    }

    fn flow(&self, tap: Tap, feed: Option<Feed>, workers: &Workers) {
        if !workers.add(Box::new(Sound::new(self.shared.clone(), tap, feed))) {
            self.shared.tell(StreamEvent::Lost { reason: NO_ROOM.to_owned() });
        }
    }

    /// The caller has pressed a key.
    pub fn key(&self, digit: Digit) {
        if self.shared.opened.load(Ordering::Acquire) {
            let at_ms = epoch_ms(self.shared.clock.wall());
            self.shared.say(Ours::Dtmf { digit: digit.as_char(), at_ms });
        }
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// What a stream's task, its job and its handle share.
struct Shared {
    order: StreamOrder,
    phrases: Phrases,
    outbox: Outbox,
    play: Mutex<Play>,
    sink: StreamSink,
    clock: Clock,
    /// The server has been told of the stream.
    opened: AtomicBool,
    /// Nothing more is to come of it.
    stopped: CancellationToken,
}

/// What the server has sent to be played.
struct Play {
    queue: Queue,
    /// How often it was thrown away since the job looked last.
    cleared: u32,
}

impl Shared {
    fn play(&self) -> MutexGuard<'_, Play> {
        self.play.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, ours: Ours<'_>) {
        self.outbox.other(|sequence| self.phrases.text(sequence, ours));
    }

    fn tell(&self, fact: StreamEvent) {
        if !self.stopped.is_cancelled() {
            (self.sink)(fact);
        }
    }

    /// Tells what nobody but the status callback wants to know.
    fn report(&self, fact: StreamEvent) {
        if self.order.status.is_some() {
            self.tell(fact);
        }
    }

    fn stop(&self) {
        if !self.stopped.is_cancelled() {
            self.outbox.close(|sequence| self.phrases.text(sequence, Ours::Stop));
            self.stopped.cancel();
        }
    }
}

/// The rate at which a stream's sound is decoded and encoded: its own, nothing is resampled.
fn rate(format: StreamFormat) -> Rate {
    match format {
        StreamFormat::Mulaw8000 | StreamFormat::L16At8000 => Rate::Hz8000,
        StreamFormat::L16At16000 => Rate::Hz16000,
        StreamFormat::L16At24000 => Rate::Hz24000,
    }
}

/// `timestamp` of a message.
fn epoch_ms(at: Timestamp) -> i64 {
    at.micros().div_euclid(1_000)
}
