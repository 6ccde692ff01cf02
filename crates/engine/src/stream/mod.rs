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
mod relay;
mod socket;
mod sound;
#[cfg(test)]
mod tests;
mod trial;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::answer::{RandomSource, SigningKeys};
use egress::Egress;
use machine::{StreamEvent, StreamFormat, StreamOrder, StreamTrack};
use media::opus::Rate;
use media::workers::Workers;
use media::{Buffering, CableEnd, FEED_MAX, Feed, LegHandle, Tap, TapReader, TapSides};
use message::{ServerMessage, StreamIds};
use model::Clock;
use model::{AuthId, CallUuid, Digit, StreamId, Timestamp};
use outbox::{Outbox, OutboxState};
use queue::{Queue, QueueState};
pub use relay::{RelayAddress, Relays};
pub(crate) use socket::DetachedSocket;
use sound::{AHEAD, Sound, SoundJob, SoundPosition};
#[doc(hidden)]
pub use trial::{Trial, read_messages};

/// Number of frames of the server's audio that are buffered at the leg before playback starts.
pub const LEAD: usize = 1;
/// Time for a message that is being sent when a stream is detached, and for the last ones of another
/// process.
const DETACH: Duration = Duration::from_secs(3);
/// Amplitude from which on a sample can be heard, of 32,768.
const AUDIBLE: u16 = 256;
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
    /// The main account of the owner.
    pub main_account: AuthId,
    pub order: StreamOrder,
    /// Signing keys for the WebSocket upgrade.
    pub keys: SigningKeys,
    pub sink: StreamSink,
    /// Called once, when the caller gets the first audible frame of the server. Like the sink, it
    /// must not block.
    pub on_first_sound: Arc<dyn Fn() + Send + Sync>,
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
        let (stream, keys) = (job.stream, job.keys.clone());
        let egress = self.egress.of(job.main_account.as_str());
        let play = Play { queue: Queue::new(job.order.format.hz()), cleared: 0 };
        let shared = self.share(job, Outbox::default(), play);
        let way = socket::Connector { egress, random: self.random.clone(), keys, stream };
        let task = self.tasks.spawn(socket::run(shared.clone(), way).in_current_span());
        StreamHandle { stream, shared, sound: None, task }
    }

    /// Continues a stream of another process. `moved` must be for the stream of the job.
    pub(crate) fn resume(
        &self,
        job: StreamJob,
        moved: MovedStream,
        audio: MovedAudio,
    ) -> StreamHandle {
        let MovedStream { outbox, queue, cleared, position, relay, .. } = moved;
        let stream = job.stream;
        let waiting = audio.feed.as_ref().map_or(0, Feed::waiting);
        let play = Play { queue: Queue::resume(job.order.format.hz(), queue, waiting), cleared };
        let shared = self.share(job, Outbox::resume(outbox), play);
        shared.opened.store(true, Ordering::Release);
        // The other process has reported it.
        shared.has_sounded.store(true, Ordering::Relaxed);
        let task = self.tasks.spawn(socket::resume(shared.clone(), relay).in_current_span());
        let mut handle = StreamHandle { stream, shared, sound: None, task };
        if let (Some(position), Some(line)) = (position, audio.line) {
            let mut sound = Sound::new(handle.shared.clone(), line, audio.feed);
            sound.resume_at(position);
            handle.process(sound, audio.workers);
        }
        handle
    }

    fn share(&self, job: StreamJob, outbox: Outbox, play: Play) -> Arc<Shared> {
        let StreamJob {
            call,
            stream,
            account,
            main_account: _,
            order,
            keys: _,
            sink,
            on_first_sound,
        } = job;
        Arc::new(Shared {
            ids: StreamIds {
                call: call.to_string(),
                stream: stream.to_string(),
                account: account.to_string(),
                extra_headers: order.extra_headers_text(),
            },
            outbox,
            play: Mutex::new(play),
            order,
            sink,
            on_first_sound,
            has_sounded: AtomicBool::new(false),
            clock: self.clock.clone(),
            opened: AtomicBool::new(false),
            stopped: CancellationToken::new(),
        })
    }
}

/// A stream on its way to another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MovedStream {
    pub(crate) stream: StreamId,
    pub(crate) order: StreamOrder,
    outbox: OutboxState,
    queue: QueueState,
    cleared: u32,
    /// `None` if the audio had not started.
    position: Option<SoundPosition>,
    /// Where the stream's socket is. `None` until it is known.
    relay: Option<RelayAddress>,
}

impl MovedStream {
    /// Whether the audio had started.
    pub(crate) fn has_audio(&self) -> bool {
        self.position.is_some()
    }

    /// Keeps the stream's socket in `relays`, unless another process has it already.
    pub(crate) fn keep(&mut self, socket: DetachedSocket, relays: &Relays) {
        self.relay = Some(match socket {
            DetachedSocket::Own(socket) => relays.add(*socket),
            DetachedSocket::Relayed(address) => address,
        });
    }
}

/// The audio of the call to which a stream of another process is connected.
pub(crate) struct MovedAudio<'a> {
    /// The leg's or room's audio at [`line_rate`].
    pub(crate) line: Option<TapReader>,
    /// The feed with the frames that were not sent in the other process.
    pub(crate) feed: Option<Feed>,
    pub(crate) workers: &'a Workers,
}

impl<'a> MovedAudio<'a> {
    /// The audio of the call's room. `None` has no audio.
    pub(crate) fn of_room(
        end: Option<CableEnd>,
        order: &StreamOrder,
        workers: &'a Workers,
    ) -> Self {
        let (tap, feed) = end.map(|CableEnd { tap, feed }| (tap, feed)).unzip();
        let line = tap.map(|tap| TapReader::new(tap, line_rate(order), Buffering::Immediate));
        Self { line, feed, workers }
    }
}

/// The rate at which a stream reads the leg's audio.
pub(crate) fn line_rate(order: &StreamOrder) -> Rate {
    Sound::line_rate(order)
}

/// The sides of the leg that a stream taps.
pub(crate) fn sides(order: &StreamOrder) -> TapSides {
    match order.track {
        StreamTrack::Inbound => TapSides::Received,
        StreamTrack::Outbound => TapSides::Sent,
        StreamTrack::Both => TapSides::Both,
    }
}

/// The frames that a leg gets from its stream. They can be stopped while the leg leaves for another
/// process, so that none is lost between the two.
#[derive(Clone)]
pub(crate) struct StreamFrames(Arc<Mutex<Sound>>);

impl StreamFrames {
    /// Keeps as many frames at the leg as it can queue, because the next ones will come late. Frames
    /// at a room would not move with it.
    pub(crate) fn run_ahead(&self) {
        let mut sound = sound::lock(&self.0);
        if !sound.is_in_room() {
            sound.keep_ahead(FEED_MAX);
        }
    }

    /// Supplies no more frames.
    pub(crate) fn stop(&self) {
        sound::lock(&self.0).keep_ahead(0);
    }

    /// Supplies frames as usual.
    pub(crate) fn go_on(&self) {
        sound::lock(&self.0).keep_ahead(AHEAD);
    }
}

/// A call's handle of its stream. Dropping it ends the stream.
pub struct StreamHandle {
    stream: StreamId,
    shared: Arc<Shared>,
    /// `None` until the audio starts.
    sound: Option<Arc<Mutex<Sound>>>,
    /// Returns the socket if the stream was detached.
    task: JoinHandle<Option<DetachedSocket>>,
}

impl StreamHandle {
    /// The stream's id.
    pub fn id(&self) -> StreamId {
        self.stream
    }

    /// What the stream is for.
    pub(crate) fn order(&self) -> &StreamOrder {
        &self.shared.order
    }

    /// Whether the `start` message was sent.
    pub(crate) fn is_connected(&self) -> bool {
        self.shared.opened.load(Ordering::Acquire)
    }

    /// Whether audio flows.
    pub(crate) fn has_audio(&self) -> bool {
        self.sound.is_some()
    }

    /// The frames of the stream for the leg. `None` if no audio flows.
    pub(crate) fn frames(&self) -> Option<StreamFrames> {
        self.sound.clone().map(StreamFrames)
    }

    /// Starts the audio between `leg` and the server.
    pub fn begin(&mut self, leg: &LegHandle, workers: &Workers) {
        let order = &self.shared.order;
        let feed = order.bidirectional.then(|| leg.movable_feed(LEAD));
        self.flow(leg.movable_tap(sides(order)), feed, workers);
    }

    /// Starts the audio with a cable end instead of a leg. `None` reports the stream as lost.
    pub fn begin_at(&mut self, end: Option<CableEnd>, workers: &Workers) {
        match end {
            Some(CableEnd { tap, feed }) => self.flow(tap, Some(feed), workers),
            None => self.shared.tell(StreamEvent::Lost { reason: NO_ROOM.to_owned() }),
        }
    }

    /// Whether the stream is connected to the call's room.
    pub fn is_in_room(&self) -> bool {
        self.shared.order.in_room
    }

    fn flow(&mut self, tap: Tap, feed: Option<Feed>, workers: &Workers) {
        let line = TapReader::new(tap, line_rate(&self.shared.order), Buffering::Immediate);
        self.process(Sound::new(self.shared.clone(), line, feed), workers);
    }

    fn process(&mut self, sound: Sound, workers: &Workers) {
        let sound = Arc::new(Mutex::new(sound));
        if workers.add(Box::new(SoundJob(sound.clone()))) {
            self.sound = Some(sound);
        } else {
            self.shared.tell(StreamEvent::Lost { reason: NO_ROOM.to_owned() });
        }
    }

    /// Lets go of the stream, so that another process can continue it. The leg must have left. `None`
    /// if the stream has ended meanwhile; that was reported to its sink.
    pub(crate) async fn detach(mut self) -> Option<(MovedStream, DetachedSocket)> {
        let position = self.sound.take().map(|sound| sound::lock(&sound).finish());
        self.shared.outbox.detach();
        let Ok(socket) = timeout(DETACH, &mut self.task).await else {
            let reason = "its server did not read during an upgrade".to_owned();
            self.shared.tell(StreamEvent::Lost { reason });
            return None;
        };
        let socket = socket.ok().flatten();
        // Ends the audio job and the tasks of the stream, without a message to its server.
        self.shared.stopped.cancel();
        let (queue, cleared) = {
            let play = self.shared.play();
            (play.queue.state(), play.cleared)
        };
        let moved = MovedStream {
            stream: self.stream,
            order: self.shared.order.clone(),
            outbox: self.shared.outbox.state(),
            queue,
            cleared,
            position,
            relay: None,
        };
        Some((moved, socket?))
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
    on_first_sound: Arc<dyn Fn() + Send + Sync>,
    /// Whether `on_first_sound` was called.
    has_sounded: AtomicBool,
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

    fn tell(&self, event: StreamEvent) {
        if !self.stopped.is_cancelled() {
            (self.sink)(event);
        }
    }

    /// Reports the first audible frame that is played to the caller.
    fn note_frame(&self, pcm: &[i16]) {
        if !self.has_sounded.load(Ordering::Relaxed)
            && pcm.iter().any(|sample| sample.unsigned_abs() >= AUDIBLE)
            && !self.has_sounded.swap(true, Ordering::Relaxed)
        {
            (self.on_first_sound)();
        }
    }

    /// Reports an event that only status callbacks need.
    fn report(&self, event: StreamEvent) {
        if self.order.status.is_some() {
            self.tell(event);
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
