//! The task of a call: `call::shell` in simulated time. The machine and the code that steps it are
//! real; its outputs go to simulated services.

use std::collections::{BTreeSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::admission::Slot;
use engine::admission::permission::{self, Engaged};
use engine::call::binding::CallKey;
use engine::call::call_clock::CallClock;
use machine::log;
use machine::replay::replay;
use machine::{
    BLegEvent, CallSetup, CallState, CallTime, DialError, FetchFailure, FetchId, FetchResponse,
    GraphAction, GraphOutcome, Input, Machine, MachineStep, MediaCommand, Output, PlayId,
    RecordingEndReason, RecordingEvent, VoiceEvent,
};
use model::{CallUuid, Direction, HangupCause, Leg, Wacid};
use store::CallEnd;
use xml::ast::Repeat;

use crate::meta::CallIx;
use crate::node::{Node, QueuedInput, StartingCall, View};
use crate::plan::MS;
use crate::store::{Conclusion, Write};
use crate::world::{Event, Interruption, StepResult, World};

/// A running call.
pub struct Call {
    pub uuid: CallUuid,
    pub ix: CallIx,
    pub view: Arc<View>,
    pub wacid: Option<Wacid>,
    pub setup: CallSetup,
    machine: Machine,
    pub clock: CallClock,
    leg: Option<FakeLeg>,
    /// The node has an SDP answer to send.
    pub has_sdp: bool,
    /// The last request to Graph.
    pub asked: Option<(usize, GraphAction)>,
    /// The last request to end the call at Graph, while its response is pending.
    pub farewell: Option<GraphAction>,
    answered: Option<CallTime>,
    fetches: BTreeSet<FetchId>,
    log: Option<String>,
    remarks: Vec<String>,
    turn: u64,
    over: bool,
    rung: bool,
    /// Held until the call ends: its slot, and its user's engagement.
    held: Option<(Slot, Option<Engaged>)>,
}

/// The media of a leg: the current playback, and whether the path is up.
#[derive(Default)]
struct FakeLeg {
    /// Both sides know the SDP.
    begun: bool,
    open: bool,
    connected: bool,
    listens: bool,
    /// A playback that has not started.
    waiting: Option<(PlayId, Option<u64>)>,
    playing: Option<PlayId>,
}

impl Call {
    pub fn has_leg(&self) -> bool {
        self.leg.is_some()
    }

    pub fn holds_a_slot(&self) -> bool {
        self.held.is_some()
    }

    /// Returns true if the user can be heard.
    pub fn hears(&self) -> bool {
        self.leg.as_ref().is_some_and(|leg| leg.connected)
    }

    pub fn state(&self) -> Option<CallState> {
        self.machine.state()
    }

    fn deadline(&self) -> Option<std::time::Instant> {
        self.clock.deadline(&self.machine)
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.state(), Some(CallState::Closing | CallState::Over))
    }
}

impl World {
    /// Wakes the task of a call, which starts it or reads the next input from its mailbox.
    pub fn run_call(&mut self, uuid: CallUuid) -> StepResult {
        let life = self.life;
        if let Some(begin) = self.node().beginning.remove(&uuid) {
            self.in_order(0, Event::Run { life, call: uuid });
            let call = self.begin(uuid, begin);
            return self.guarded(call, |world, call| world.first_steps(call));
        }
        let Some(call) = self.node().calls.remove(&uuid) else { return Ok(()) };
        let input = self.node().book().mailboxes.get_mut(&uuid).and_then(VecDeque::pop_front);
        let Some(QueuedInput { at, input }) = input else {
            self.node().calls.insert(uuid, call);
            return Ok(());
        };
        self.guarded(call, |world, call| world.step(call, at, input))
    }

    /// The machine's deadline. If the mailbox is not empty, it is read first, and the deadline is
    /// requested again.
    pub fn timer_fires(&mut self, uuid: CallUuid, turn: u64) -> StepResult {
        let waiting =
            self.node().book().mailboxes.get(&uuid).is_some_and(|mailbox| !mailbox.is_empty());
        let is_due = |node: &mut Node| node.calls.get(&uuid).is_some_and(|call| call.turn == turn);
        if waiting || !is_due(self.node()) {
            return Ok(());
        }
        let call = self.node().calls.remove(&uuid).expect("it is due");
        let at = self.instant();
        self.guarded(call, |world, call| world.step(call, at, Input::Timer))
    }

    /// Runs a part of a call's task under its supervisor: a panic ends only this call.
    fn guarded(
        &mut self,
        mut call: Call,
        piece: impl FnOnce(&mut Self, &mut Call) -> StepResult,
    ) -> StepResult {
        match piece(self, &mut call) {
            Ok(()) if call.over => {
                self.finish(call);
                Ok(())
            }
            Ok(()) => {
                self.arm(&mut call);
                self.node().calls.insert(call.uuid, call);
                Ok(())
            }
            Err(Interruption::Panic) => {
                let (uuid, view, setup) = (call.uuid, call.view.clone(), call.setup.clone());
                let (arrived, answered) = (call.clock.arrived(), call.answered);
                self.note(format_args!("call {uuid}: PANIC"));
                self.watch.panicked(uuid);
                // As in the real code, the slot is freed while the task unwinds.
                let unwound = catch_unwind(AssertUnwindSafe(move || {
                    let _task = call;
                    resume_unwind(Box::new("a fault of ours"));
                }));
                assert!(unwound.is_err());
                self.node().book().mailboxes.remove(&uuid);
                self.conclude_panicked(&view, setup, arrived, answered);
                Ok(())
            }
            Err(Interruption::Crash) => Err(Interruption::Crash),
        }
    }

    fn begin(&mut self, uuid: CallUuid, begin: StartingCall) -> Call {
        let StartingCall { ix, view, slot, engaged, setup, arrived } = begin;
        let has_media = !self.rng.chance(self.faults.no_media);
        let replayed = self.plan.replayed;
        Call {
            uuid,
            ix,
            view,
            wacid: setup.wacid.clone(),
            machine: Machine::new(),
            clock: CallClock::new(arrived),
            leg: has_media.then(FakeLeg::default),
            has_sdp: has_media,
            asked: None,
            farewell: None,
            answered: None,
            fetches: BTreeSet::new(),
            log: replayed.then(|| log::header_line(&log::Header::of(uuid)).expect("JSON")),
            remarks: Vec::new(),
            turn: 0,
            over: false,
            rung: false,
            held: Some((slot, engaged)),
            setup,
        }
    }

    fn first_steps(&mut self, call: &mut Call) -> StepResult {
        if self.rng.chance(self.faults.hang_up_by_api) {
            let us = self.rng.between(0, 15_000) * MS;
            let (life, call) = (self.life, call.uuid);
            self.after(us, Event::HangUpOverApi { life, call });
        }
        let at = call.clock.arrived();
        let setup = Box::new(call.setup.clone());
        let first = match call.setup.direction {
            Direction::Inbound => Input::Offered { setup },
            Direction::Outbound => Input::Placed { setup },
        };
        self.step(call, at, first)?;
        if call.leg.is_none() && !call.over {
            self.step(call, at, Input::HangUp { cause: HangupCause::InternalError })?;
        }
        Ok(())
    }

    /// Feeds one input to the machine and executes its outputs.
    fn step(&mut self, call: &mut Call, at: std::time::Instant, input: Input) -> StepResult {
        let stale = match &input {
            Input::Fetched { fetch, .. } => !call.fetches.remove(fetch),
            _ => false,
        };
        if let Input::Bound { wacid } = &input {
            call.wacid = Some(wacid.clone());
            let key = CallKey {
                phone_number_id: call.setup.phone_number_id.clone(),
                wacid: wacid.clone(),
            };
            call.ix = self.call_of(&key);
            self.watch.bound(call.uuid, call.ix);
            let farewell = self.farewell_later(GraphAction::Terminate, false);
            self.write(Write::Bound(call.uuid, wacid.clone(), farewell));
        }
        if let Input::Terminated { .. } = &input {
            self.watch.end_reported_us(call.uuid, self.now);
            if call.farewell.take().is_some() {
                self.write(Write::Farewell(call.uuid, None));
            }
        }
        if let Input::Graph { action, outcome } = &input
            && call.farewell == Some(*action)
            && outcome.is_settled()
        {
            call.farewell = None;
        }
        let overdue = call.deadline().is_some_and(|due| due < at);
        let was = call.state();
        let accepted = matches!(
            &input,
            Input::Graph { action: GraphAction::Accept, outcome }
                if *outcome == GraphOutcome::Done
        );
        let step = call.machine.step(call.clock.time_at(at), input);
        if let Some((asked, _)) = call.asked.filter(|(_, action)| step.overtakes(*action)) {
            self.overtake(asked);
        }
        let MachineStep { at, logged, outputs, worth_a_line } = step;
        self.note(format_args!("call {}: {logged} ({was:?} to {:?})", call.ix, call.state()));
        if worth_a_line && let Some(log) = &mut call.log {
            log.push_str(&log::entry_line(at, &logged, &outputs).expect("JSON"));
        }
        if stale && !overdue && !outputs.is_empty() {
            self.fail(format!(
                "call {}: a fetch that nothing waits for led to {outputs:?}",
                call.ix
            ));
        }
        // The user has answered a business-initiated call.
        let picked_up =
            call.setup.direction == Direction::Outbound && call.state() == Some(CallState::Live);
        self.watch.stepped(call.uuid, self.now, was, call.state(), accepted || picked_up);
        let last = outputs.iter().any(|output| matches!(output, Output::Over));
        for output in outputs {
            self.note(format_args!("  {output}"));
            self.check_output(call.uuid, &output);
            self.carry_out(call, at, output, last)?;
        }
        Ok(())
    }

    /// Schedules the machine's next deadline.
    fn arm(&mut self, call: &mut Call) {
        call.turn += 1;
        let Some(deadline) = call.deadline() else { return };
        let until = deadline.saturating_duration_since(self.instant());
        let us = u64::try_from(until.as_micros()).expect("a while");
        let late = if self.rng.chance(300) { self.rng.between(0, 3 * MS) } else { 0 };
        let (life, uuid, turn) = (self.life, call.uuid, call.turn);
        self.after(us + late, Event::Timer { life, call: uuid, turn });
    }

    fn carry_out(
        &mut self,
        call: &mut Call,
        at: CallTime,
        output: Output,
        last: bool,
    ) -> StepResult {
        match output {
            Output::Graph { .. }
            | Output::State { .. }
            | Output::Fetch { .. }
            | Output::Media { .. }
            | Output::Speech { .. }
            | Output::Callback { .. }
            | Output::Concluded { .. } => {
                self.effect()?;
                if self.rng.chance(self.faults.panic) {
                    return Err(Interruption::Panic);
                }
            }
            _ => {}
        }
        match output {
            Output::Graph { action } => self.ask_graph(call, action),
            Output::Fetch { fetch, kind, deadline_ms, .. } => {
                call.fetches.insert(fetch);
                self.document(self.life, call.uuid, fetch, kind, deadline_ms);
            }
            Output::CancelFetch { fetch } => {
                // The result may already be on its way.
                if !self.rng.chance(self.faults.abort_late) {
                    call.fetches.remove(&fetch);
                }
            }
            Output::Media { command: order, .. } => self.media(call, order),
            // No document here dials; see `tests/outside/dial.rs`.
            Output::Dial { order } => {
                let news =
                    BLegEvent::Refused { error: DialError::Overloaded, detail: String::new() };
                self.tell(call.uuid, Input::BLeg { call: order.call, event: news });
            }
            // Nor do documents use rooms or streams; see `tests/outside/conference.rs` and
            // `tests/outside/stream.rs`.
            Output::BLeg { .. }
            | Output::ALeg { .. }
            | Output::Room { .. }
            | Output::Speech { .. }
            | Output::Stream { .. } => {}
            Output::Concluded { summary } => {
                let hangup = self.callback_of(call.uuid, &summary.hangup);
                let end = CallEnd::of(
                    &summary,
                    call.setup.started,
                    std::mem::take(&mut call.remarks),
                    Vec::new(),
                );
                self.watch.concluded(call.uuid, self.now, at, &summary);
                let missed = summary.answered.is_none()
                    && (call.rung || summary.cause == HangupCause::Rejected);
                if missed && call.setup.direction == Direction::Outbound {
                    self.permission(call.uuid, permission::Event::Unanswered);
                    if let Some((number, user)) = self.pair_of(call.ix) {
                        self.watch.missed(number, user);
                    }
                }
                let farewell = call.farewell.map(|action| self.farewell_later(action, last));
                let setup = call.setup.clone();
                let conclusion = Conclusion { setup, end, hangup, farewell, after_panic: false };
                self.write(Write::Concluded(Box::new(conclusion)));
            }
            Output::Remark { text } => call.remarks.push(text),
            Output::FreeSlot => {
                call.held = None;
                self.watch.records_end(call.uuid, self.now);
            }
            Output::Over => call.over = true,
            Output::Callback { callback: notice } => {
                let (id, callback) = self.callback_of(call.uuid, &notice);
                self.write(Write::Callback(id, callback));
            }
            Output::State { state } => {
                call.rung |= state == CallState::Ringing;
                call.view.closing.store(
                    matches!(state, CallState::Closing | CallState::Over),
                    Ordering::Relaxed,
                );
                if state != CallState::Live {
                    return Ok(());
                }
                if call.setup.direction == Direction::Outbound {
                    self.permission(call.uuid, permission::Event::Connected);
                    if let Some((number, user)) = self.pair_of(call.ix) {
                        self.watch.connected(number, user);
                    }
                }
                call.answered = Some(at);
                let wall = call.setup.started.plus(Duration::from_millis(at.0));
                self.write(Write::Answered(call.uuid, wall));
            }
            Output::Prepare { .. } | Output::Instruction { .. } | Output::Findings { .. } => {}
        }
        Ok(())
    }

    /// Ends a call: it leaves the tables, and its slot is freed.
    fn finish(&mut self, call: Call) {
        self.watch.over(call.uuid);
        self.leave(call.uuid);
        if let Some(log) = &call.log {
            match replay(log.as_bytes(), |_| {}) {
                Ok(replayed) if replayed.difference.is_none() => {}
                other => self
                    .fail(format!("call {}: its event log replays otherwise: {other:?}", call.ix)),
            }
        }
    }

    /// Handles the result of a document fetch.
    pub fn fetch_ends(
        &mut self,
        uuid: CallUuid,
        fetch: FetchId,
        result: Result<FetchResponse, FetchFailure>,
        late: bool,
    ) -> StepResult {
        // A fetch that was aborted in time is not reported.
        let open = self.node().calls.get(&uuid).is_some_and(|call| call.fetches.contains(&fetch));
        if open || late {
            self.tell(uuid, Input::Fetched { fetch, result });
        }
        Ok(())
    }

    // --- media ---

    fn media(&mut self, call: &mut Call, order: MediaCommand) {
        let is_listening = order == MediaCommand::DetectVoice { on: true };
        let Some(leg) = &mut call.leg else { return };
        match order {
            // No one speaks in these documents.
            MediaCommand::Overlay { .. }
            | MediaCommand::DetectBeep { .. }
            | MediaCommand::Join
            | MediaCommand::Unjoin => {}
            // A user's offer was answered when the call began.
            MediaCommand::Begin if call.setup.direction == Direction::Inbound => {}
            MediaCommand::Begin => {
                let first = !std::mem::replace(&mut leg.begun, true);
                if first {
                    self.has_sdp(call.ix);
                }
            }
            MediaCommand::DetectVoice { on } => leg.listens = on,
            MediaCommand::Open => leg.open = true,
            MediaCommand::Play { play, items } => {
                let endless = items.iter().any(|item| item.repeat == Repeat::Endless);
                leg.playing = None;
                leg.waiting = Some((play, (!endless).then_some(items.len() as u64)));
            }
            MediaCommand::Stop { play } => {
                leg.waiting = leg.waiting.filter(|(waiting, _)| *waiting != play);
                leg.playing = leg.playing.filter(|playing| *playing != play);
            }
            MediaCommand::SendDigits { play, digits } => {
                let us = (digits.len() as u64) * 600 * MS;
                let (life, call) = (self.life, call.uuid);
                self.after(
                    us,
                    Event::Leg { life, call, input: Input::DigitsSent { leg: Leg::A, play } },
                );
            }
            MediaCommand::Record { recording: record, order: how } => {
                let (life, call) = (self.life, call.uuid);
                let ready = RecordingEvent::Ready {
                    id: uuid::Uuid::nil(),
                    url: "https://a.example.com/r.mp3".to_owned(),
                };
                self.after(
                    MS,
                    Event::Leg {
                        life,
                        call,
                        input: Input::Recording { recording: record, event: ready },
                    },
                );
                let ms = self.rng.between(1, how.silence_ms.unwrap_or(how.max_ms).max(2));
                let input = Input::Recording {
                    recording: record,
                    event: recorded(RecordingEndReason::Silence, ms),
                };
                self.after(ms * MS, Event::Leg { life, call, input });
            }
            MediaCommand::RecordStart { .. }
            | MediaCommand::RecordPause { .. }
            | MediaCommand::PlayPause { .. } => {}
            MediaCommand::RecordStop { recording: record, reason: end, .. } => {
                let (life, call) = (self.life, call.uuid);
                let input = Input::Recording { recording: record, event: recorded(end, 20) };
                self.after(20 * MS, Event::Leg { life, call, input });
            }
            MediaCommand::Close => call.leg = None,
        }
        if is_listening {
            self.speaks(call.uuid);
        }
        self.play(call);
    }

    /// Makes the user speak, in some runs.
    fn speaks(&mut self, call: CallUuid) {
        let (life, mut us) = (self.life, 0);
        while self.rng.chance(600) {
            us += self.rng.between(20, 3_000) * MS;
            self.after(
                us,
                Event::Leg {
                    life,
                    call,
                    input: Input::Voice { leg: Leg::A, event: VoiceEvent::Began },
                },
            );
            us += self.rng.between(200, 4_000) * MS;
            let what = VoiceEvent::Ended { ago_ms: self.rng.between(200, 900) };
            self.after(
                us,
                Event::Leg { life, call, input: Input::Voice { leg: Leg::A, event: what } },
            );
        }
    }

    /// Starts the requested playback when the path is up.
    fn play(&mut self, call: &mut Call) {
        let (life, uuid) = (self.life, call.uuid);
        let Some(leg) = &mut call.leg else { return };
        if !(leg.open && leg.connected) {
            return;
        }
        let Some((play, items)) = leg.waiting.take() else { return };
        leg.playing = Some(play);
        self.after(
            20 * MS,
            Event::Leg { life, call: uuid, input: Input::PlayStarted { leg: Leg::A, play } },
        );
        if self.rng.chance(self.faults.play_fails) {
            let input =
                Input::PlayFailed { leg: Leg::A, play, item: 0, reason: "it is gone".to_owned() };
            self.after(20 * MS, Event::Leg { life, call: uuid, input });
        }
        if let Some(items) = items {
            let us = (20 + items * self.rng.between(1, 2_500)) * MS;
            self.after(
                us,
                Event::Leg { life, call: uuid, input: Input::Played { leg: Leg::A, play } },
            );
        }
    }

    /// Handles an event of a leg. Events of a replaced playback are dropped.
    pub fn leg_event(&mut self, uuid: CallUuid, input: Input) -> StepResult {
        let Some(leg) = self.node().calls.get_mut(&uuid).and_then(|call| call.leg.as_mut()) else {
            return Ok(());
        };
        if matches!(input, Input::Voice { .. }) && !leg.listens {
            return Ok(());
        }
        if let Input::Played { play, .. } = &input
            && leg.playing.take_if(|playing| playing == play).is_none()
        {
            return Ok(());
        }
        self.tell(uuid, input);
        Ok(())
    }

    /// Reports that the media path of a call is up.
    pub fn leg_connects(&mut self, uuid: CallUuid) {
        let Some(mut call) = self.node().calls.remove(&uuid) else { return };
        if let Some(leg) = &mut call.leg {
            leg.connected = true;
        }
        self.play(&mut call);
        self.node().calls.insert(uuid, call);
    }
}

/// Returns the event of a finished recording.
fn recorded(end: RecordingEndReason, duration_ms: u64) -> RecordingEvent {
    RecordingEvent::Ended { reason: end, duration_ms, start_ms: 0, end_ms: 0, error: None }
}
