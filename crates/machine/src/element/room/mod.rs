//! A call in a room, for `Conference` and `MultiPartyCall`: entering, waiting with music, sounds,
//! digits and leaving (docs/reference/xml.md#conference).
//!
//! The room manages its members and reports changes with [`RoomEvent`]s. The modules `conference`
//! and `multi_party` contain the differences between the two elements and their callbacks.

pub(crate) mod add_participant;
mod ai_agent;
mod attributes;
mod conference;
mod multi_party;
mod sounds;

use super::Flow;
use super::patterns::DigitPatterns;
use super::stream::DROPPED;
use crate::activity::{Action, Activity, Completion, Env, Progress, Readiness, StopReason};
use crate::context::CallContext;
use crate::contract::display::foreign;
use crate::contract::recording;
use crate::contract::{
    CallTime, CallbackRequest, FetchFailure, FetchId, FetchResponse, InstructionOutcome,
    LeaveReason, MediaCommand, MemberId, Output, Param, Params, PlayId, RecordingEndReason,
    RecordingEvent, RecordingId, RecordingOrder, RoomCommand, RoomEntry, RoomEvent, TrackCommand,
    TranscriptOrder,
};
use crate::digits::Key;
use crate::params::Event;
use crate::snapshot::{SnapshotBuilder, brief, text, word};
use crate::stream;
use crate::timers::DocumentTimer;
use conference::ConferenceElement;
use model::{Digit, HangupCause};
use multi_party::MultiPartyElement;
pub(crate) use multi_party::lost_participant_params;
use sounds::Sounds;
use uuid::Uuid;
use xml::ast::Target;

/// A call that is in a room or enters it.
struct RoomVisit {
    element: Element,
    rules: Rules,
    /// The room, even if it was full and the call has not entered it.
    room: Option<Uuid>,
    membership: Option<Membership>,
    /// Whether the call is waiting and does not take part in the room.
    waiting: bool,
    held: bool,
    muted: bool,
    /// Whether the caller speaks, according to the last report of the room.
    speaking: bool,
    sounds: Sounds,
    patterns: DigitPatterns,
    /// The id and the URL of the room's recording.
    recorded: Option<(Uuid, String)>,
    /// The callback for the start of the recording that this call has requested.
    recording_start_callback: Option<CallbackRequest>,
    /// The separate recording of this participant.
    track: Option<RecordingId>,
}

/// The element, with its attributes.
enum Element {
    Conference(Box<ConferenceElement>),
    MultiParty(Box<MultiPartyElement>),
}

/// The attributes that both elements have.
struct Rules {
    hangup_on_star: bool,
    digits_match: Vec<String>,
    /// Maximum time in the room, in milliseconds from entering it.
    limit_ms: Option<u64>,
    /// Maximum time for which the call waits to take part, in milliseconds.
    wait_ms: Option<u64>,
    /// Digits that are sent to the caller after entering.
    send_digits: Option<String>,
    relays_keys: bool,
}

/// The membership of the call in the room.
#[derive(Clone, Copy, Debug)]
struct Membership {
    room: Uuid,
    member: MemberId,
    first: bool,
    since: CallTime,
}

/// The reason why the call left the room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VisitEnd {
    Full,
    /// The room is hosted by another node, which can't be reached.
    Elsewhere,
    /// The connection to the node that hosted the room is lost.
    Lost,
    Out(LeaveReason),
    /// The caller pressed `*`.
    Star,
    /// The time of `timeLimit` or `waitTime` has elapsed.
    TimeLimit,
    /// The stream of the AI agent has ended. `dropped` is true if it could not connect or was lost.
    AgentGone {
        dropped: bool,
    },
}

/// An event that is reported to the customer's server.
#[derive(Clone, Copy, Debug)]
enum MemberEvent<'a> {
    Entered { starts: bool },
    Started,
    Digits(&'a str),
    Key(Digit),
    Floor { has: bool },
    Speech { on: bool },
    Audio { on: bool },
    Muted { on: bool },
    Held { on: bool },
}

/// Creates the order for a recording of the whole room.
fn room_recording(
    mp3: bool,
    callback: Option<CallbackRequest>,
    transcript: Option<TranscriptOrder>,
) -> RecordingOrder {
    RecordingOrder {
        id: None,
        held: false,
        mp3,
        stereo: false,
        peer_only: false,
        max_ms: super::record::SESSION_MAX_MS,
        silence_ms: None,
        callback,
        action: None,
        transcript,
    }
}

fn start(
    element: Element,
    rules: Rules,
    entry: RoomEntry,
    sounds: Sounds,
    ctx: &mut CallContext,
) -> Flow {
    let visit = RoomVisit {
        element,
        patterns: DigitPatterns::new(&rules.digits_match),
        rules,
        room: None,
        membership: None,
        waiting: true,
        held: entry.held,
        muted: entry.muted,
        speaking: false,
        sounds,
        recorded: None,
        recording_start_callback: None,
        track: None,
    };
    ctx.emit(Output::Room { command: RoomCommand::Enter { entry: Box::new(entry) } });
    Flow::run(visit)
}

impl RoomVisit {
    fn entered(&mut self, ctx: &mut CallContext, starts: bool, room_left_ms: Option<u64>) {
        self.report(ctx, MemberEvent::Entered { starts });
        if let Some((order, when_alone)) =
            self.membership.as_ref().and_then(|membership| self.element.record(ctx, membership))
        {
            self.record_room(ctx, order, when_alone);
        }
        if let Some(order) =
            self.membership.as_ref().and_then(|membership| self.element.track(ctx, membership))
        {
            self.track = Some(ctx.record(order));
        }
        if let Some(ms) = self.rules.limit_ms.or(room_left_ms) {
            ctx.set_timer(DocumentTimer::RoomLimit, ms);
        }
        if self.waiting {
            self.wait(ctx);
        }
        self.element.begin_agent(ctx);
        if let Some(digits) = self.rules.send_digits.clone() {
            let play = ctx.next_play();
            ctx.media(MediaCommand::SendDigits { play, digits });
        }
        self.sounds.entered(ctx, self.waiting, self.held);
    }

    fn record_room(&mut self, ctx: &mut CallContext, order: Box<RecordingOrder>, when_alone: bool) {
        self.recording_start_callback = order.callback.clone();
        ctx.emit(Output::Room { command: RoomCommand::Record { order, when_alone } });
    }

    /// Stores the id and URL of the room's recording. A conference also reports its start
    /// (docs/reference/callbacks.md#conference).
    fn handle_recording(&mut self, ctx: &mut CallContext, id: Uuid, url: &str, begun: bool) {
        self.recorded = Some((id, url.to_owned()));
        if begun {
            self.sounds.record_begun(ctx);
        }
        let callback = self.recording_start_callback.take_if(|_| begun);
        if let (Element::Conference(_), Some(mut callback)) = (&self.element, callback) {
            let mut params = recording::started_params(id, url);
            // `Digits` is a parameter of the element `Record`. No digit ends the recording of a
            // room.
            params.remove("Digits");
            callback.params.extend(params);
            ctx.emit(Output::Callback { callback });
        }
    }

    /// Executes an API request about the separate recording of this participant.
    fn record_track(&mut self, ctx: &mut CallContext, command: &TrackCommand) {
        match (command, self.track) {
            (TrackCommand::Begin { order, callback }, None) => {
                let Some(membership) = &self.membership else { return };
                let callback = callback
                    .as_ref()
                    .map(|target| self.element.recording_callback(ctx, membership, target));
                let transcript = super::record::transcript_if_able(ctx, order.transcript.clone());
                self.track =
                    Some(ctx.record(RecordingOrder { callback, transcript, ..(**order).clone() }));
            }
            (TrackCommand::Stop, Some(record)) => {
                ctx.media(MediaCommand::RecordStop {
                    recording: record,
                    reason: RecordingEndReason::Stopped,
                    key: None,
                });
                self.track = None;
            }
            (TrackCommand::Pause { on }, Some(record)) => {
                ctx.media(MediaCommand::RecordPause { recording: record, on: *on })
            }
            // Two requests have arrived at the same time.
            (TrackCommand::Begin { .. }, Some(_))
            | (TrackCommand::Stop | TrackCommand::Pause { .. }, None) => {}
        }
    }

    fn wait(&self, ctx: &mut CallContext) {
        if let Some(ms) = self.rules.wait_ms {
            ctx.set_timer(DocumentTimer::RoomWait, ms);
        }
    }

    /// Plays the music for the current state of the call: waiting, on hold, or neither.
    fn update_music(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        if self.membership.is_some() {
            self.sounds.update_music(ctx, readiness, self.waiting, self.held);
        }
    }

    /// Whether the room uses the caller's digits. They are then reported to the customer's server
    /// and are not kept out of logs.
    fn takes_digits(&self) -> bool {
        self.membership.is_some()
            && (self.rules.hangup_on_star
                || !self.rules.digits_match.is_empty()
                || self.element.reports_digits())
    }

    fn leave(&mut self, ctx: &mut CallContext, reason: VisitEnd) -> Progress {
        self.leave_room(ctx);
        let (outcome, note) = reason.outcome();
        let mut action = self.action(ctx);
        if let (VisitEnd::Elsewhere | VisitEnd::Lost, Some(action)) = (reason, &mut action) {
            action.params.insert("RoomError".into(), Param::Plain(note.into()));
        }
        Progress::Finished(Completion {
            outcome,
            note: note.into(),
            action,
            end_cause: self.end_cause(reason),
        })
    }

    /// Leaves the room and reports it.
    fn leave_room(&mut self, ctx: &mut CallContext) {
        for timer in [DocumentTimer::RoomLimit, DocumentTimer::RoomWait] {
            ctx.timers.clear(timer);
        }
        if let Some(record) = self.track.take() {
            ctx.media(MediaCommand::RecordStop {
                recording: record,
                reason: RecordingEndReason::HungUp,
                key: None,
            });
        }
        self.element.stop_agent(ctx);
        // Leaving the room ends the speech.
        if std::mem::take(&mut self.speaking) {
            self.report(ctx, MemberEvent::Speech { on: false });
        }
        self.sounds.stop(ctx);
        let sounds =
            if self.membership.is_some() { self.sounds.take_exit_sounds() } else { Vec::new() };
        let [others_stay, was_last] = match &self.membership {
            Some(membership) => [false, true].map(|last| {
                self.element.exit_callback(ctx, membership, last).into_iter().collect()
            }),
            None => Default::default(),
        };
        let end_params = self
            .membership
            .as_ref()
            .and_then(|membership| self.element.end_params(ctx, membership))
            .map(Box::new);
        ctx.emit(Output::Room {
            command: RoomCommand::Leave {
                sounds,
                if_others_stay: others_stay,
                if_last: was_last,
                end_params,
            },
        });
    }

    fn report(&self, ctx: &mut CallContext, event: MemberEvent<'_>) {
        let Some(membership) = &self.membership else { return };
        for callback in self.element.event_callbacks(ctx, membership, event) {
            ctx.emit(Output::Callback { callback });
        }
    }

    /// Returns the cause with which the call ends if no element follows. `None` for
    /// [`HangupCause::EndOfInstructions`].
    fn end_cause(&self, reason: VisitEnd) -> Option<HangupCause> {
        match (&self.element, reason) {
            (Element::Conference(_), _) => None,
            (Element::MultiParty(_), VisitEnd::Out(reason)) => match reason {
                LeaveReason::Kicked => Some(HangupCause::MpcKicked),
                LeaveReason::Ended | LeaveReason::TimeUp => Some(HangupCause::MpcEnded),
                LeaveReason::Stopped => Some(HangupCause::MpcStopped),
                LeaveReason::Alone => None,
            },
            (
                Element::MultiParty(_),
                VisitEnd::Full
                | VisitEnd::Elsewhere
                | VisitEnd::Lost
                | VisitEnd::Star
                | VisitEnd::TimeLimit
                | VisitEnd::AgentGone { .. },
            ) => None,
        }
    }

    /// Returns the request that reports the result, or `None` if the element has no action.
    fn action(&self, ctx: &CallContext) -> Option<Action> {
        let (target, redirect, params) = match &self.element {
            Element::Conference(conference) => {
                conference.action(self.room, self.membership.as_ref(), self.recorded.as_ref())
            }
            Element::MultiParty(multi_party) => {
                multi_party.action(ctx, self.room, self.membership.as_ref())
            }
        }?;
        Some(Action { target, redirect, params, repeat_after_hangup: false })
    }
}

impl VisitEnd {
    /// Returns the outcome of the instruction, and a note.
    fn outcome(self) -> (InstructionOutcome, &'static str) {
        match self {
            Self::Full => (InstructionOutcome::Failed, "full"),
            Self::Elsewhere => (InstructionOutcome::Failed, "room_elsewhere"),
            Self::Lost => (InstructionOutcome::Failed, "room_lost"),
            Self::Out(reason) => (InstructionOutcome::Done, reason.as_str()),
            Self::Star => (InstructionOutcome::Done, "star"),
            Self::TimeLimit => (InstructionOutcome::Done, "time limit"),
            Self::AgentGone { dropped: true } => (InstructionOutcome::Failed, DROPPED),
            Self::AgentGone { dropped: false } => (InstructionOutcome::Done, "its agent has gone"),
        }
    }
}

impl Activity for RoomVisit {
    fn room_event(&mut self, env: &mut Env<'_>, event: &RoomEvent) -> Progress {
        let ctx = &mut *env.ctx;
        let is_about_entering = matches!(
            event,
            RoomEvent::Entered { .. }
                | RoomEvent::Full { .. }
                | RoomEvent::Elsewhere
                | RoomEvent::Lost
                | RoomEvent::MustLeave { .. }
        );
        // The others come from the room of the element before, which the call has left.
        if self.membership.is_none() && !is_about_entering {
            return Progress::Pending;
        }
        match *event {
            RoomEvent::Entered {
                room,
                member,
                first,
                active: begins,
                starts_room: starts,
                room_left_ms,
            } => {
                if self.membership.is_none() {
                    self.room = Some(room);
                    self.membership = Some(Membership { room, member, first, since: ctx.now });
                    self.waiting = !begins;
                    if matches!(self.element, Element::Conference(_)) {
                        ctx.conference = Some(room);
                    }
                    self.entered(ctx, starts, room_left_ms);
                }
            }
            RoomEvent::Full { room } => {
                if self.membership.is_none() {
                    self.room = Some(room);
                    return self.leave(ctx, VisitEnd::Full);
                }
            }
            RoomEvent::Elsewhere => {
                if self.membership.is_none() {
                    ctx.remark(
                        "the room is at another node, which can't be reached (room_elsewhere); the \
                         document goes on"
                            .to_owned(),
                    );
                    return self.leave(ctx, VisitEnd::Elsewhere);
                }
            }
            RoomEvent::Lost => {
                ctx.remark(
                    "the node that had the room is gone (room_lost); the document goes on"
                        .to_owned(),
                );
                return self.leave(ctx, VisitEnd::Lost);
            }
            RoomEvent::MustLeave { reason } => return self.leave(ctx, VisitEnd::Out(reason)),
            RoomEvent::Active { starts_room: starts } => {
                self.waiting = false;
                ctx.timers.clear(DocumentTimer::RoomWait);
                if starts {
                    self.report(ctx, MemberEvent::Started);
                }
            }
            RoomEvent::Waiting => {
                self.waiting = true;
                self.wait(ctx);
            }
            RoomEvent::Floor { has } => self.report(ctx, MemberEvent::Floor { has }),
            RoomEvent::Speech { on } => {
                self.speaking = on;
                self.report(ctx, MemberEvent::Speech { on });
            }
            RoomEvent::Audio { on } => self.report(ctx, MemberEvent::Audio { on }),
            RoomEvent::RecordingEnded => self.sounds.record_ended(ctx),
            RoomEvent::RecordingFailed { ref reason } => {
                ctx.remark(format!(
                    "the recording of the room failed: {}; the room goes on",
                    foreign(reason)
                ));
            }
            RoomEvent::Muted { on } => {
                self.muted = on;
                self.report(ctx, MemberEvent::Muted { on });
            }
            RoomEvent::Held { on } => {
                self.held = on;
                self.report(ctx, MemberEvent::Held { on });
            }
            RoomEvent::Coaching { on } => self.element.set_coaching(on),
            RoomEvent::Record { ref order, ref callback } => {
                if let Some(membership) = &self.membership {
                    let callback = callback
                        .as_ref()
                        .map(|target| self.element.recording_callback(ctx, membership, target));
                    let transcript =
                        super::record::transcript_if_able(ctx, order.transcript.clone());
                    let order =
                        Box::new(RecordingOrder { callback, transcript, ..(**order).clone() });
                    self.record_room(ctx, order, true);
                }
            }
            RoomEvent::Track { ref command } => self.record_track(ctx, command),
            RoomEvent::Recording { id, ref url, begun } => {
                self.handle_recording(ctx, id, url, begun)
            }
        }
        self.update_music(ctx, env.readiness);
        Progress::Pending
    }

    /// Notices that the separate recording has reached its maximum or failed.
    fn recording(
        &mut self,
        env: &mut Env<'_>,
        recording: RecordingId,
        event: &RecordingEvent,
    ) -> Progress {
        if matches!(event, RecordingEvent::Ended { .. })
            && self.track.take_if(|track| *track == recording).is_some()
        {
            env.ctx.emit(Output::Room { command: RoomCommand::TrackEnded });
        }
        Progress::Pending
    }

    fn fetched(
        &mut self,
        env: &mut Env<'_>,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
    ) -> Progress {
        self.sounds.fetched(env.ctx, fetch, result);
        self.update_music(env.ctx, env.readiness);
        Progress::Pending
    }

    fn played(&mut self, env: &mut Env<'_>, play: PlayId) -> Progress {
        self.sounds.played(env.ctx, env.readiness, play);
        Progress::Pending
    }

    fn play_failed(&mut self, env: &mut Env<'_>, play: PlayId, item: u16, reason: &str) {
        if let Some(place) = env.place
            && self.sounds.is_playing(play)
        {
            env.ctx.remark(format!(
                "item {} of the music of {place} could not be played: {reason}; it is skipped",
                item + 1
            ));
        }
    }

    fn digit(&mut self, env: &mut Env<'_>, key: Key) -> Progress {
        if self.membership.is_none() {
            env.keys.push(key);
            return Progress::Pending;
        }
        let digit = key.digit;
        for pattern in self.patterns.pressed(digit) {
            self.report(env.ctx, MemberEvent::Digits(&pattern));
        }
        self.report(env.ctx, MemberEvent::Key(digit));
        if self.rules.hangup_on_star && digit.as_char() == '*' {
            return self.leave(env.ctx, VisitEnd::Star);
        }
        if self.rules.relays_keys {
            env.ctx.emit(Output::Room { command: RoomCommand::Digit { digit } });
        }
        if !self.takes_digits() {
            env.keys.push(key);
        }
        Progress::Pending
    }

    /// Leaves the room if the stream was the AI agent's.
    fn stream_ended(&mut self, env: &mut Env<'_>, ended: stream::EndedStream) -> Progress {
        let is_agent_stream = match &mut self.element {
            Element::MultiParty(multi_party) => multi_party.agent.ended(ended.stream),
            Element::Conference(_) => false,
        };
        match is_agent_stream {
            true => self.leave(env.ctx, VisitEnd::AgentGone { dropped: ended.dropped }),
            false => Progress::Pending,
        }
    }

    fn timer(&mut self, env: &mut Env<'_>, timer: DocumentTimer) -> Progress {
        match timer {
            // Without its own limit, the call has reached the limit of the whole multi-party call.
            DocumentTimer::RoomLimit if self.rules.limit_ms.is_none() => {
                self.leave(env.ctx, VisitEnd::Out(LeaveReason::TimeUp))
            }
            DocumentTimer::RoomLimit | DocumentTimer::RoomWait => {
                self.leave(env.ctx, VisitEnd::TimeLimit)
            }
            DocumentTimer::Fetch => {
                self.sounds.fetch_timed_out(env.ctx);
                self.update_music(env.ctx, env.readiness);
                Progress::Pending
            }
            // Timers of other instructions.
            _ => Progress::Pending,
        }
    }

    fn readiness_changed(&mut self, env: &mut Env<'_>) -> Progress {
        self.update_music(env.ctx, env.readiness);
        Progress::Pending
    }

    /// Leaves the room. No action is requested.
    fn stop(&mut self, env: &mut Env<'_>, _: StopReason) {
        self.leave_room(env.ctx);
    }

    fn hides_digits(&self) -> Option<bool> {
        self.takes_digits().then_some(false)
    }

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        let label = match self.element {
            Element::Conference(_) => "conference",
            Element::MultiParty(_) => "multi_party_call",
        };
        match &self.membership {
            Some(membership) => {
                snapshot.add("room", [word(label), text(brief(membership.room)), word("inside")])
            }
            None => snapshot.add("room", [word(label), word("outside")]),
        }
        for (is, label) in
            [(self.waiting, "room_waits"), (self.held, "room_held"), (self.muted, "room_muted")]
        {
            if is {
                snapshot.add("room", [word(label)]);
            }
        }
        if let Some(track) = self.track {
            snapshot.add("recording", [word("own_track"), text(track.0)]);
        }
        let waits_for = if self.membership.is_some() { "room_to_end" } else { "room_to_enter" };
        snapshot.add("waits_for", [word(waits_for)]);
    }
}

impl Element {
    fn event_callbacks(
        &self,
        ctx: &CallContext,
        membership: &Membership,
        event: MemberEvent<'_>,
    ) -> Vec<CallbackRequest> {
        match self {
            Self::Conference(conference) => {
                conference.event_callback(ctx, membership, event).into_iter().collect()
            }
            Self::MultiParty(multi_party) => multi_party.event_callbacks(ctx, membership, event),
        }
    }

    fn exit_callback(
        &self,
        ctx: &CallContext,
        membership: &Membership,
        last: bool,
    ) -> Option<CallbackRequest> {
        match self {
            Self::Conference(conference) => conference.exit_callback(ctx, membership, last),
            Self::MultiParty(multi_party) => multi_party.exit_callback(ctx, membership),
        }
    }

    fn end_params(&self, ctx: &CallContext, membership: &Membership) -> Option<Params> {
        match self {
            Self::Conference(_) => None,
            Self::MultiParty(multi_party) => Some(multi_party.end_params(ctx, membership)),
        }
    }

    /// Returns the callback that reports the recording of the room to `target`.
    fn recording_callback(
        &self,
        ctx: &CallContext,
        membership: &Membership,
        target: &Target,
    ) -> CallbackRequest {
        match self {
            Self::Conference(conference) => conference.callback_to(
                target,
                ctx,
                membership,
                (Event::ConferenceRecord, "record"),
                false,
                None,
            ),
            Self::MultiParty(multi_party) => {
                multi_party.recording_callback(target, ctx, membership)
            }
        }
    }

    /// Returns the order for the recording of the room, and whether recording continues while the
    /// room has only one member. `None` if the element does not request a recording.
    fn record(
        &self,
        ctx: &mut CallContext,
        membership: &Membership,
    ) -> Option<(Box<RecordingOrder>, bool)> {
        match self {
            Self::Conference(conference) => conference.record(ctx, membership),
            Self::MultiParty(multi_party) => multi_party.record(ctx, membership),
        }
    }

    /// Returns the order for the separate recording of this participant. `None` if the element does
    /// not request one.
    fn track(&self, ctx: &mut CallContext, membership: &Membership) -> Option<RecordingOrder> {
        match self {
            Self::Conference(_) => None,
            Self::MultiParty(multi_party) => multi_party.track(ctx, membership),
        }
    }

    fn begin_agent(&mut self, ctx: &mut CallContext) {
        match self {
            Self::Conference(_) => {}
            Self::MultiParty(multi_party) => multi_party.agent.begin(ctx),
        }
    }

    fn stop_agent(&mut self, ctx: &mut CallContext) {
        match self {
            Self::Conference(_) => {}
            Self::MultiParty(multi_party) => multi_party.agent.stop(ctx),
        }
    }

    fn set_coaching(&mut self, on: bool) {
        match self {
            Self::Conference(_) => {}
            Self::MultiParty(multi_party) => multi_party.coaching = on,
        }
    }

    fn reports_digits(&self) -> bool {
        match self {
            Self::Conference(_) => false,
            Self::MultiParty(multi_party) => multi_party.reports_digits(),
        }
    }
}
