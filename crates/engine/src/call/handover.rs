//! Hands live calls over to another process of the node (`docs/operations.md#upgrade`).
//!
//! The old process suspends each call at a moment without requests in progress and gets a
//! [`SuspendedCall`]: a [`CallSnapshot`] and the leg. Inputs are queued meanwhile. The new process
//! rebuilds the machine from the snapshot's event log ([`IncomingCall::rebuild`]) and resumes the
//! call when its services have started ([`Registry::resume`]). Until the call has left the old
//! process ([`SuspendedCall::leave`]), that one can resume it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::captions::CaptionOptions;
use super::course::CourseSnapshot;
use super::hearing::MovedHearing;
use super::live_call::LiveCall;
use super::mailbox::{Envelope, Mailbox, Message, MuteReason, Period, mailbox};
use super::phones::{KeyFilter, MovedLine};
use super::registry::Registry;
use super::rooms::RoomSnapshot;
use super::shell::{MovedRecording, Report};
use super::streams::StreamView;
use crate::admission::{Directory, Slot};
use crate::stream::{DetachedSocket, MovedStream, Relays, StreamFrames};
use machine::replay::{self, RebuildError, UnredactedInputs};
use machine::{CallSetup, CallTime, GraphAction, Input, Machine, Output, PlayId, Sound};
use media::opus::Rate;
use media::{
    Buffering, ContinuedLeg, FRAME_MS, Feed, HeldTap, LegHandle, LegSnapshot, Media, MediaError,
    OfferedLeg, OfferedLegSnapshot, PromptTable, Quality, RoomJack, TapReader, TapSides,
};
use model::{CallType, CallUuid, Clock, Timestamp, Wacid};

/// The version of all that crosses: calls, legs, queued calls, rooms and phones. A process that does
/// not know it refuses the calls.
pub const VERSION: u32 = 7;

/// The version that a node of a fleet sends instead, because its membership crosses, too.
pub const FLEET_VERSION: u32 = VERSION + 1_000;

/// Maximum time for all calls to say why they were not suspended.
const OBSTACLE_TIME: Duration = Duration::from_millis(100);

/// Microseconds per tick of a leg.
#[allow(clippy::as_conversions, reason = "a constant")]
const TICK_US: u64 = FRAME_MS as u64 * 1_000;

/// The state of a machine for comparison: the lines of each field.
type MachineFields = BTreeMap<String, Vec<String>>;

/// A live call that runs nowhere. Contains secrets of the call.
#[derive(Serialize, Deserialize)]
pub struct CallSnapshot {
    pub call: CallUuid,
    /// The zero of the call's time, in microseconds since the machine was booted.
    pub(super) zero_us: u64,
    /// The time of the last input.
    pub(super) last: CallTime,
    /// The lines of the event log, trace included.
    pub(super) log: Vec<Arc<str>>,
    pub(super) unredacted: UnredactedInputs,
    pub(super) machine: MachineFields,
    pub(super) wacid: Option<Wacid>,
    pub(super) phone_rank: u8,
    /// The pending request that ends the call at Meta.
    pub(super) farewell: Option<GraphAction>,
    /// Whether the call holds a slot of its number.
    pub(super) holds_slot: bool,
    /// The id of the reservation of the call's user, in a fleet.
    #[serde(default)]
    pub(super) reservation: Option<Uuid>,
    pub(super) report: Report,
    /// Number of callbacks that count towards the limit of a call.
    #[serde(default)]
    pub(super) callbacks: u32,
    /// Our session description.
    pub(super) sdp: Arc<str>,
    /// The leg of a call whose SDP answer is awaited.
    offered_leg: Option<OfferedLegSnapshot>,
    pub(super) course: Option<CourseSnapshot>,
    /// The taps of the leg that the other process continues.
    pub(super) taps: Vec<TapSides>,
    /// The streams of the call, newest first.
    pub(super) streams: Vec<StreamView>,
    /// The B-legs of the call.
    pub(super) legs: Vec<CallUuid>,
    /// The connection to the phone of a web leg.
    pub(super) phone: Option<MovedPhone>,
}

/// The connection of a web leg to its endpoint's phone, on the way to another process.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct MovedPhone {
    pub(super) line: MovedLine,
    /// Whether the phone that accepts the call will send an offer.
    pub(super) is_awaited: bool,
    /// Reasons why the phone's audio is muted.
    pub(super) mute_reasons: Vec<MuteReason>,
    pub(super) captions: Option<CaptionOptions>,
}

/// An input that arrived while its call was suspended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueuedInput {
    /// Microseconds since the zero of the call's time.
    at_us: u64,
    pub(super) input: Input,
}

/// What crosses when a call has left, after its leg.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Leftover {
    /// The inputs that arrived until the call left.
    queued: Vec<QueuedInput>,
    pub(super) recordings: Vec<MovedRecording>,
    pub(super) hearing: Option<MovedHearing>,
    pub(super) stream: Option<MovedStream>,
    pub(super) dialogue: Option<MovedDialogue>,
    /// The time since boot of the leg's last tick in this process, in microseconds.
    ticked_at_us: u64,
}

impl Leftover {
    pub(super) fn new(
        queued: Vec<QueuedInput>,
        recordings: Vec<MovedRecording>,
        hearing: Option<MovedHearing>,
        stream: Option<MovedStream>,
        dialogue: Option<MovedDialogue>,
    ) -> Self {
        Self { queued, recordings, hearing, stream, dialogue, ticked_at_us: 0 }
    }
}

/// A dialogue of an AI agent with its caller. `Debug` redacts the text.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct MovedDialogue {
    /// The dialogue, in the form of its [`Author`](super::author::Author).
    pub(super) dialogue: Value,
    /// The playback that the caller can interrupt, and its start in microseconds since the zero of
    /// the call's time.
    pub(super) playing: Option<(PlayId, u64)>,
    /// The start of that playback's pause, if it is paused.
    #[serde(default)]
    pub(super) paused_us: Option<u64>,
}

impl std::fmt::Debug for MovedDialogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MovedDialogue({:?})", self.playing)
    }
}

/// What happens to a suspended call.
pub(super) enum Decision {
    /// The call goes on in this process, with this leg.
    Resume(HeldLeg),
    /// The call goes on in another process.
    Leave(oneshot::Sender<Left>),
}

/// The leg of a suspended call. Both are `None` if the media is closed.
#[derive(Default)]
pub(super) struct HeldLeg {
    pub(super) leg: Option<LegHandle>,
    /// The leg, if our offer awaits its answer. It keeps its port open.
    pub(super) offered: Option<Box<OfferedLeg>>,
}

/// What a call leaves behind: what crosses, and the socket of its stream.
pub(super) type Left = (Leftover, Option<DetachedSocket>);

/// The answer of a call's task to the request to suspend itself: the suspended call, or why the call
/// cannot be handed over.
pub(super) type SuspendReply = Result<Box<SuspendedCall>, &'static str>;

/// A call that waits for its hand-over. Dropping the value resumes the call in this process, unless
/// it has left.
pub struct SuspendedCall {
    pub snapshot: CallSnapshot,
    leg: HeldLeg,
    /// What crosses after the leg. Complete when the call [has left](SuspendedCall::has_left).
    pub leftover: Leftover,
    stream_frames: Option<StreamFrames>,
    decide: Option<oneshot::Sender<Decision>>,
    leaving: Option<oneshot::Receiver<Left>>,
}

impl SuspendedCall {
    pub(super) fn new(
        snapshot: CallSnapshot,
        leg: HeldLeg,
        stream_frames: Option<StreamFrames>,
        decide: oneshot::Sender<Decision>,
    ) -> Self {
        let (leftover, leaving) = (Leftover::default(), None);
        Self { snapshot, leg, leftover, stream_frames, decide: Some(decide), leaving }
    }

    /// The leg. `None` if the media is closed, or if our offer awaits its answer.
    pub fn leg(&self) -> Option<&LegHandle> {
        self.leg.leg.as_ref()
    }

    /// Prepares the leg to leave: its stream supplies no more frames.
    pub fn stop_frames(&self) {
        if let Some(frames) = &self.stream_frames {
            frames.stop();
        }
    }

    /// Notes the snapshot with which the leg leaves.
    pub fn leg_leaves(&mut self, leg: &LegSnapshot) {
        self.leftover.ticked_at_us = micros(leg.ticked_at());
    }

    /// Lets go of the call: its task ends without ending the call.
    pub fn leave(&mut self) {
        let (reply, leaving) = oneshot::channel();
        if let Some(decide) = self.decide.take() {
            let _ = decide.send(Decision::Leave(reply));
            self.leaving = Some(leaving);
        }
    }

    /// Whether the call has left this process.
    pub fn is_away(&self) -> bool {
        self.decide.is_none()
    }

    /// Waits until the call that [leaves](SuspendedCall::leave) has left. The socket of its stream
    /// stays in this process, in `relays`.
    pub async fn has_left(&mut self, relays: &Relays) {
        if let Some(leaving) = self.leaving.take() {
            let ticked_at_us = self.leftover.ticked_at_us;
            let (mut leftover, socket) = leaving.await.unwrap_or_default();
            if let (Some(stream), Some(socket)) = (&mut leftover.stream, socket) {
                stream.keep(socket, relays);
            }
            self.leftover = Leftover { ticked_at_us, ..leftover };
        }
    }
}

impl Drop for SuspendedCall {
    fn drop(&mut self) {
        if let Some(decide) = self.decide.take() {
            let _ = decide.send(Decision::Resume(std::mem::take(&mut self.leg)));
        }
    }
}

impl std::fmt::Debug for SuspendedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SuspendedCall({})", self.snapshot.call)
    }
}

/// The parts of a call that its task knows.
pub(super) struct SnapshotParts<'a> {
    pub(super) view: &'a LiveCall,
    pub(super) machine: &'a Machine,
    pub(super) last: CallTime,
    pub(super) unredacted: &'a UnredactedInputs,
    pub(super) farewell: Option<GraphAction>,
    pub(super) holds_slot: bool,
    pub(super) reservation: Option<Uuid>,
    pub(super) report: &'a Report,
    pub(super) callbacks: u32,
    pub(super) sdp: &'a Arc<str>,
    pub(super) offered_leg: Option<OfferedLegSnapshot>,
    pub(super) taps: Vec<TapSides>,
    pub(super) phone: Option<MovedPhone>,
}

impl CallSnapshot {
    pub(super) fn of(parts: SnapshotParts<'_>, clock: &Clock) -> Self {
        Self {
            call: parts.view.setup.call,
            zero_us: micros_of(parts.view.arrived, clock),
            last: parts.last,
            log: parts.view.log.snapshot(),
            unredacted: parts.unredacted.clone(),
            machine: fields_of(parts.machine),
            wacid: parts.view.wacid().cloned(),
            phone_rank: parts.view.at_meta.phone_rank(),
            farewell: parts.farewell,
            holds_slot: parts.holds_slot,
            reservation: parts.reservation,
            report: parts.report.clone(),
            callbacks: parts.callbacks,
            sdp: parts.sdp.clone(),
            offered_leg: parts.offered_leg,
            course: parts.view.sampler.snapshot(),
            taps: parts.taps,
            streams: parts.view.streams.list(),
            legs: parts.view.legs(),
            phone: parts.phone,
        }
    }
}

impl QueuedInput {
    /// Converts the messages of a mailbox. Only inputs of the machine cross; other messages are
    /// about the trace.
    pub(super) fn of(envelope: Envelope, zero: Instant) -> Option<Self> {
        let Envelope { at, message: Message::Input(input) } = envelope else { return None };
        Some(Self { at_us: micros(at.saturating_duration_since(zero)), input })
    }
}

/// Why a call cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum IncomingError {
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    #[error("the rebuilt call differs in the field {0}")]
    State(String),
    #[error("the event log does not contain the call's setup")]
    Setup,
}

/// The leg of a call before the call is resumed. Dropping the value does not say goodbye to the peer,
/// because another process may continue the call if this one fails.
#[derive(Default)]
pub struct AdoptedLeg {
    leg: Option<LegHandle>,
    /// The taps that continue those of the other process.
    taps: Vec<(TapSides, HeldTap)>,
    /// The feed that continues that of the other process.
    feed: Option<Feed>,
    /// The number of ticks that the leg was in no process.
    gap: u32,
}

impl AdoptedLeg {
    /// Takes the leg. `None` if the media is closed.
    pub fn take(&mut self) -> Option<LegHandle> {
        self.leg.take()
    }

    /// Returns a handle that connects the leg to a room. `None` if the media is closed.
    pub(super) fn room_jack(&self) -> Option<RoomJack> {
        self.leg.as_ref().map(LegHandle::room_jack)
    }

    /// Takes the feed. `None` if the leg had none.
    pub(super) fn take_feed(&mut self) -> Option<Feed> {
        self.feed.take()
    }

    /// Takes a reader of a tap of these sides. `None` if the media is closed.
    pub(super) fn take_tap(
        &mut self,
        sides: TapSides,
        rate: Rate,
        buffering: Buffering,
    ) -> Option<TapReader> {
        let index = self.taps.iter().position(|(of, _)| *of == sides)?;
        let tap = self.taps.swap_remove(index).1.take()?;
        let mut reader = TapReader::new(tap, rate, buffering);
        reader.begin_with_silence(self.gap);
        Some(reader)
    }

    /// The quality that the leg has measured.
    pub(super) fn quality(&self) -> Quality {
        self.leg.as_ref().map(|leg| leg.stats().quality).unwrap_or_default()
    }
}

impl Drop for AdoptedLeg {
    fn drop(&mut self) {
        std::mem::forget(self.leg.take());
    }
}

/// A call of another process, with its machine, before it is resumed here.
pub struct IncomingCall {
    pub(super) snapshot: CallSnapshot,
    pub(super) setup: CallSetup,
    pub(super) machine: Machine,
    /// The sounds of the current document.
    pub(super) sounds: Vec<Sound>,
    pub(super) mailbox: Mailbox,
    pub(super) inbox: mpsc::Receiver<Box<Envelope>>,
    /// The filter of the phone's keys, if this is a web leg.
    pub(super) keys: Option<Arc<KeyFilter>>,
    pub(super) zero: Instant,
    pub leg: AdoptedLeg,
    /// The leg, if our offer awaits its answer.
    pub(super) offered_leg: Option<Box<OfferedLeg>>,
    /// The time since boot of the leg's last tick in the other process, in microseconds.
    ticked_at_us: u64,
    pub(super) leftover: Leftover,
    /// The slot of the call's number, once it is held.
    pub(super) slot: Option<Slot>,
}

impl IncomingCall {
    /// Rebuilds the machine, and checks that it is in the same state as in the other process.
    ///
    /// # Errors
    /// Returns an error if the machine cannot be rebuilt or its state differs.
    pub fn rebuild(snapshot: CallSnapshot, clock: &Clock) -> Result<Self, IncomingError> {
        let mut lines = Vec::with_capacity(snapshot.log.iter().map(|line| line.len() + 1).sum());
        for line in &snapshot.log {
            lines.extend_from_slice(line.as_bytes());
            lines.push(b'\n');
        }
        let mut sounds = Vec::new();
        let machine = replay::rebuild(lines.as_slice(), &snapshot.unredacted, |step| {
            if let Input::Fetched { .. } = step.input {
                sounds.clear();
            }
            for output in step.outputs {
                if let Output::Prepare { sounds: wanted } = output {
                    sounds.extend(wanted.iter().cloned());
                }
            }
        })?;
        // Another version may have other fields.
        let fields = fields_of(&machine);
        let differs = |(name, lines): &(&String, &Vec<String>)| {
            fields.get(*name).is_some_and(|own| own != *lines)
        };
        if let Some((name, _)) = snapshot.machine.iter().find(differs) {
            return Err(IncomingError::State(name.clone()));
        }
        let setup = machine.setup().cloned().ok_or(IncomingError::Setup)?;
        let (mailbox, inbox) = mailbox(snapshot.call, clock);
        let zero = instant_of(snapshot.zero_us, clock);
        let keys = snapshot.phone.as_ref().map(|phone| phone.line.keys());
        Ok(Self {
            keys,
            snapshot,
            setup,
            machine,
            sounds,
            mailbox,
            inbox,
            zero,
            leg: AdoptedLeg::default(),
            offered_leg: None,
            ticked_at_us: 0,
            leftover: Leftover::default(),
            slot: None,
        })
    }

    /// Takes the slot that the call holds in the other process, even if the number has reached its
    /// limit.
    pub fn hold_slot(&mut self, directory: &Directory) {
        let is_held = self.snapshot.holds_slot && self.setup.call_type == CallType::Whatsapp;
        let number = is_held.then(|| directory.number(&self.setup.phone_number_id)).flatten();
        self.slot = number.map(|number| number.slots.acquire_admitted());
    }

    /// The call's id.
    pub fn call(&self) -> CallUuid {
        self.snapshot.call
    }

    /// When the call was answered, or `None`.
    pub(super) fn answered(&self) -> Option<Timestamp> {
        let answered = self.machine.answered()?;
        Some(self.setup.started.plus(Duration::from_millis(answered.0)))
    }

    /// Whether the call's number, or the account of a web leg, is still configured.
    pub fn is_configured(&self, directory: &Directory) -> bool {
        match self.setup.call_type {
            CallType::Whatsapp => directory.number(&self.setup.phone_number_id).is_some(),
            CallType::Web => directory.tables().account(&self.setup.account).is_some(),
        }
    }

    /// Continues the call's leg. Its audio is kept for recordings until the call is resumed.
    ///
    /// # Errors
    /// Returns an error if the leg cannot be continued.
    pub fn adopt_leg(
        &mut self,
        media: &Media,
        leg: LegSnapshot,
        prompts: &PromptTable,
    ) -> Result<(), MediaError> {
        self.ticked_at_us = micros(leg.ticked_at());
        let events = self.mailbox.leg_events(self.keys.as_ref());
        let sides = &self.snapshot.taps;
        let ContinuedLeg { leg, taps, feed } = media.adopt(leg, prompts, events, sides)?;
        let hold = |(sides, tap): (&TapSides, _)| (*sides, HeldTap::new(tap, media.workers()));
        let taps = sides.iter().zip(taps).map(hold).collect();
        self.leg = AdoptedLeg { leg: Some(leg), taps, feed, gap: 0 };
        Ok(())
    }

    /// Continues the leg of a call whose SDP answer is awaited. Does nothing for other calls.
    ///
    /// # Errors
    /// Returns an error if the leg cannot be continued.
    pub fn adopt_offered_leg(&mut self, media: &Media) -> Result<(), MediaError> {
        if let Some(snapshot) = self.snapshot.offered_leg.take() {
            self.offered_leg = Some(Box::new(media.adopt_offered(snapshot)?));
        }
        Ok(())
    }

    /// Adds what the other process has sent after the leg.
    pub fn complete(&mut self, leftover: Leftover) {
        // A process between the two may have failed.
        let away_us = self.ticked_at_us.saturating_sub(leftover.ticked_at_us);
        let ticks = (away_us + TICK_US / 2) / TICK_US;
        self.leg.gap = u32::try_from(ticks).unwrap_or(u32::MAX);
        self.leftover = leftover;
    }

    /// The recordings that this process continues.
    pub fn recordings(&self) -> impl Iterator<Item = Uuid> {
        let is_tapped = self.leg.leg.is_some();
        let recordings = self.leftover.recordings.iter().filter(move |_| is_tapped);
        recordings.filter_map(MovedRecording::running)
    }

    /// Takes the queued inputs as messages of the mailbox, in order.
    pub(super) fn take_queued(&mut self) -> Vec<Envelope> {
        let zero = self.zero;
        let queued = std::mem::take(&mut self.leftover.queued).into_iter();
        let envelope = |QueuedInput { at_us, input }| Envelope {
            at: zero + Duration::from_micros(at_us),
            message: Message::Input(input),
        };
        queued.map(envelope).collect()
    }
}

impl std::fmt::Debug for IncomingCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IncomingCall({})", self.snapshot.call)
    }
}

/// A call that cannot be handed over, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StayingCall {
    pub call: CallUuid,
    pub why: &'static str,
}

impl std::fmt::Display for StayingCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.call, self.why)
    }
}

impl Registry {
    /// Returns the calls that can't be handed over for longer than a request takes. Waits at most
    /// `within` for their tasks.
    pub async fn staying_calls(&self, within: Duration) -> Vec<StayingCall> {
        let asked = self.ask(self.list(), |reply| Message::CanLeave(Period::Lasting, reply));
        let end = (self.services().clock.now() + within).into();
        let mut staying = Vec::new();
        for (call, answer) in asked {
            // A call that does not answer has ended, or `suspend_all` reports it.
            if let Ok(Ok(Some(why))) = tokio::time::timeout_at(end, answer).await {
                staying.push(StayingCall { call: call.setup.call, why });
            }
        }
        staying
    }

    /// Lets go of the rooms, whose members are suspended, and of their recordings.
    pub async fn detach_rooms(&self) -> Vec<RoomSnapshot> {
        self.services().rooms.detach().await
    }

    /// Suspends all calls. Waits at most `within` for requests in progress.
    ///
    /// # Errors
    /// Returns the calls that can't be handed over. The others are resumed.
    pub async fn suspend_all(
        &self,
        within: Duration,
    ) -> Result<Vec<SuspendedCall>, Vec<StayingCall>> {
        let end: tokio::time::Instant = (self.services().clock.now() + within).into();
        let (mut suspended, mut staying) = (Vec::new(), Vec::new());
        let mut asked = HashSet::new();
        loop {
            // A B-leg comes after its A-leg, so that the commands of that one reach it before. Calls
            // that are not suspended yet may dial.
            let mut calls = self.list();
            calls.retain(|call| !asked.contains(&call.setup.call));
            let waiting: HashSet<_> = calls.iter().map(|call| call.setup.call).collect();
            let a_leg = |call: &LiveCall| call.setup.b_leg().map(|dialled| dialled.a_leg);
            calls.retain(|call| a_leg(call).is_none_or(|a_leg| !waiting.contains(&a_leg)));
            if calls.is_empty() || !staying.is_empty() {
                return if staying.is_empty() { Ok(suspended) } else { Err(staying) };
            }
            asked.extend(calls.iter().map(|call| call.setup.call));
            for (call, answer) in self.ask(calls, Message::Suspend) {
                let why = match tokio::time::timeout_at(end, answer).await {
                    Ok(Ok(Ok(one))) => {
                        suspended.push(*one);
                        continue;
                    }
                    Ok(Ok(Err(why))) => why,
                    Ok(Err(_)) if call.mailbox.is_open() => "its queue of inputs is full",
                    // The call has ended.
                    Ok(Err(_)) => continue,
                    Err(_) => Self::obstacle_of(&call, end + OBSTACLE_TIME).await,
                };
                staying.push(StayingCall { call: call.setup.call, why });
            }
        }
    }

    /// Returns why a call was not suspended in time, if it says so until `end`.
    async fn obstacle_of(call: &LiveCall, end: tokio::time::Instant) -> &'static str {
        let (reply, answer) = oneshot::channel();
        call.put(Message::CanLeave(Period::Now, reply));
        let answer = tokio::time::timeout_at(end, answer).await;
        let why = answer.ok().and_then(Result::ok).flatten();
        why.unwrap_or("it was busy until now")
    }

    /// Sends these calls a message with a channel for the answer.
    fn ask<A>(
        &self,
        calls: Vec<Arc<LiveCall>>,
        message: impl Fn(oneshot::Sender<A>) -> Message,
    ) -> Vec<(Arc<LiveCall>, oneshot::Receiver<A>)> {
        let ask = |call: Arc<LiveCall>| {
            let (reply, answer) = oneshot::channel();
            call.put(message(reply));
            (call, answer)
        };
        calls.into_iter().map(ask).collect()
    }
}

fn fields_of(machine: &Machine) -> MachineFields {
    let lines = |field: machine::Field| field.lines.iter().map(ToString::to_string).collect();
    machine.snapshot().into_iter().map(|field| (field.name.to_owned(), lines(field))).collect()
}

pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// A time in microseconds since the machine was booted.
pub(super) fn micros_of(at: Instant, clock: &Clock) -> u64 {
    let now = clock.now();
    let since_boot = clock.uptime() + at.saturating_duration_since(now);
    micros(since_boot.saturating_sub(now.saturating_duration_since(at)))
}

/// The time that [`micros_of`] has converted. A time that the system cannot represent is now.
pub(super) fn instant_of(since_boot_us: u64, clock: &Clock) -> Instant {
    let (now, uptime) = (clock.now(), clock.uptime());
    let at = Duration::from_micros(since_boot_us);
    let instant = match at.checked_sub(uptime) {
        Some(ahead) => now.checked_add(ahead),
        None => now.checked_sub(uptime.saturating_sub(at)),
    };
    instant.unwrap_or(now)
}
