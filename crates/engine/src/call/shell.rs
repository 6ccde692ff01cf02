//! The shell runs one call: it executes the machine's outputs, collects inputs, and writes both to
//! the event log.
//!
//! Each call has one task and one bounded mailbox. Inputs are stamped when they arrive, and the
//! machine's time never runs backwards. The shell makes no decisions; what to do after a failed
//! fetch or a hang-up is the machine's task. Outputs for the other party go to Graph, or to an
//! endpoint's phone (`phone`). Long operations, such as a fetch or a Graph request, run in tasks of
//! their own and return their result as an input.

mod a_leg;
mod asking;
mod begin;
mod context;
mod ending;
mod handover;
mod legs;
mod phone;
mod quality;
mod rooms;
mod sound;
mod speech;
mod stream;
mod tapes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, info, warn};

use super::author;
use super::call_clock::CallClock;
use super::captions::CaptionOptions;
use super::farewell;
use super::handover::SuspendReply;
use super::mailbox::{Envelope, Message, Period};
use super::phones::ToPhone;
use super::services::Services;
use super::trace::Trace;
use crate::admission::Slot;
use crate::admission::permission::{Engaged, Event};
use machine::log;
use machine::replay::UnredactedInputs;
use machine::{
    BLegCommand, CallState, CallTime, CallbackKind, Command, Destination, FetchResponse, Input,
    InstructionOutcome, Machine, MachineStep, MediaCommand, Output, PhoneStatus, RecordingEvent,
    SpeechEvent, Timer,
};
use media::sdp::{self, Offer};
use model::metric;
use model::{CallUuid, Direction, HangupCause, Leg};
use store::Farewell;

use a_leg::ALeg;
use asking::Requests;
pub(super) use begin::{Peer, ResumeParams, StartMode, StartParams};
use context::Context;
pub(super) use ending::{Report, end_after_fault};
use handover::Obstacle;
pub(super) use handover::resume;
use sound::Playback;
use speech::Recognition;
use stream::CallStream;
use tapes::CallRecordings;
pub(super) use tapes::MovedRecording;

/// A caller with this name makes the call's task panic when its document arrives. For tests.
#[cfg(any(test, feature = "test-util"))]
pub const PANICS: &str = "brings it down";

/// Maximum number of callbacks of a call besides those of [`CallbackKind::Ring`], of the end and of
/// recordings. A caller can cause one with each key.
const CALLBACKS_MAX: u32 = 5_000;

/// A running call: the machine, and the parts that execute its outputs.
struct Shell {
    context: Context,
    machine: Machine,
    clock: CallClock,
    /// The call's slot and its user's busy mark. Held until the call ends.
    held: Option<(Slot, Engaged)>,
    a_leg: ALeg,
    /// The B-leg as shown in the view.
    b_leg: Option<CallUuid>,
    playback: Playback,
    recognition: Recognition,
    stream: CallStream,
    recordings: CallRecordings,
    requests: Requests,
    /// Number of callbacks besides those of [`CallbackKind::Ring`], of the end and of recordings.
    callbacks: u32,
    /// Whether one of them was dropped because too many of the account wait.
    is_callback_dropped: bool,
    report: Report,
    /// Outputs that wait until the call has left a room of another node, each with the time of its
    /// step and whether it is the call's last step.
    outputs: VecDeque<(CallTime, Output, bool)>,
    leaving: Option<rooms::Leaving>,
    /// The inputs that the event log contains in another form, for a hand-over.
    unredacted: UnredactedInputs,
    /// The request to suspend the call, until no request of the call is in progress.
    suspension: Option<oneshot::Sender<SuspendReply>>,
    over: bool,
}

/// Runs a call to its end. The slot is released when this future completes or is dropped.
pub(super) async fn run(services: Arc<Services>, begin: Box<StartParams>) {
    let StartParams {
        registry,
        setup,
        way,
        peer,
        turn,
        received,
        arrived,
        admitted,
        mailbox,
        inbox,
        journal,
        view,
    } = *begin;
    let running = services.clock.now();
    let theirs = match &way {
        StartMode::Offered(offer) => Some(offer.redacted.to_string()),
        StartMode::Placed | StartMode::Rung => None,
    };
    let a_leg = ALeg::begin(&services.media, way, &mailbox, peer.line());
    let mut shell = Shell {
        machine: Machine::new(),
        clock: CallClock::new(arrived),
        a_leg,
        b_leg: None,
        playback: Playback::default(),
        recognition: Recognition::default(),
        stream: CallStream::default(),
        recordings: CallRecordings::default(),
        requests: Requests::new(setup.wacid.clone()),
        callbacks: 0,
        is_callback_dropped: false,
        report: Report::default(),
        outputs: VecDeque::new(),
        leaving: None,
        unredacted: UnredactedInputs::default(),
        suspension: None,
        over: false,
        context: Context {
            id: setup.call,
            number: peer.number().cloned(),
            line: peer.line().cloned(),
            mailbox,
            journal,
            view,
            registry,
            services,
        },
        held: match peer {
            Peer::User { slot, engaged, .. } => Some((slot, engaged)),
            Peer::Phone { .. } => None,
        },
    };
    let (journal, clock) = (&shell.context.journal, &shell.context.services.clock);
    journal.keep(log::header_line(&log::Header::of(setup.call)));
    journal.trace(&Trace::Begun {
        received_us: journal.us(received),
        admitted_us: journal.us(admitted),
        running_us: journal.us(running),
        media_us: journal.us(clock.now()),
    });
    let has_media = !shell.a_leg.is_gone();
    info!(direction = setup.direction.as_str(), "call started");
    let setup = Box::new(setup);
    let first = match setup.direction {
        Direction::Outbound => Input::Placed { setup },
        Direction::Inbound => Input::Offered { setup },
    };
    shell.step(arrived, first);
    // After the first step, so that `pre_accept` is not delayed.
    shell.trace_sdp(theirs);
    if !has_media {
        shell.step(arrived, Input::HangUp { cause: HangupCause::InternalError });
    }
    drop(turn);
    shell.serve(inbox).await;
}

/// Waits for the next message, the machine's timer or the next quality reading. One timer serves
/// both.
async fn next_message(
    inbox: &mut mpsc::Receiver<Box<Envelope>>,
    call: &Context,
    deadline: Option<Instant>,
) -> Envelope {
    let sample = call.next_sample().map(|at| (at, Message::Sample));
    let deadline = deadline.map(|at| (at, Message::Input(Input::Timer)));
    let next = deadline.into_iter().chain(sample).min_by_key(|(at, _)| *at);
    let timer = async {
        match next {
            Some((at, message)) => {
                tokio::time::sleep_until(at.into()).await;
                message
            }
            None => std::future::pending().await,
        }
    };
    let message = tokio::select! {
        biased; envelope = inbox.recv() => match envelope {
            Some(envelope) => return *envelope,
            None => Message::Input(Input::HangUp { cause: HangupCause::InternalError }),
        },
        message = timer => message,
    };
    Envelope { at: call.services.clock.now(), message }
}

impl Shell {
    /// Processes messages until the call ends, here or by a hand-over.
    async fn serve(&mut self, mut inbox: mpsc::Receiver<Box<Envelope>>) {
        while !self.over {
            if let Some(leaving) = self.leaving.take() {
                leaving.finish(&self.context).await;
                self.execute_outputs();
                continue;
            }
            self.requests.forget_finished();
            if let Some(reply) = self.take_suspension()
                && self.suspend(reply, &mut inbox).await
            {
                break;
            }
            let held = self.webhooks_held_until();
            let deadline = self.clock.deadline(&self.machine).filter(|_| held.is_none());
            // An agent that comes to rest sends no message.
            let author = &self.context.services.author;
            let at_rest =
                self.suspension.as_ref().and_then(|_| author.until_at_rest(self.context.id));
            let next = next_message(&mut inbox, &self.context, deadline);
            let next = async {
                match held {
                    Some(until) => tokio::time::timeout_at(until.into(), next).await.ok(),
                    None => Some(next.await),
                }
            };
            let envelope = match at_rest {
                Some(at_rest) => tokio::select! {
                    biased; envelope = next => envelope,
                    () = at_rest => continue,
                },
                None => next.await,
            };
            if let Some(envelope) = envelope {
                self.receive(envelope);
            }
        }
        self.context.journal.close();
    }

    /// Returns until when the machine's timer waits, because it would conclude that no webhook explains
    /// the end of the media path, and webhooks may be waiting. `None` otherwise.
    fn webhooks_held_until(&self) -> Option<Instant> {
        let (_, timer) = self.machine.poll_timeout()?;
        if timer != Timer::PathClosed {
            return None;
        }
        let now = self.context.services.clock.now();
        let late = self.context.registry.webhooks_late(now);
        (!late.is_zero()).then(|| now + late)
    }

    /// Writes the initial session descriptions of both sides to the trace.
    fn trace_sdp(&self, theirs: Option<String>) {
        let ours = (!self.a_leg.sdp.is_empty()).then(|| sdp::redacted(&self.a_leg.sdp));
        let (offer, answer) = match theirs {
            Some(theirs) => (Some(theirs), ours),
            None => (ours, None),
        };
        if offer.is_some() {
            self.context.journal.trace(&Trace::Sdp { offer, answer });
        }
    }

    /// Processes a message of the mailbox.
    fn receive(&mut self, Envelope { at, message }: Envelope) {
        let journal = &self.context.journal;
        match message {
            Message::Input(input) => self.step(at, input),
            Message::Answer(answer) => {
                let answered =
                    Trace::Sdp { offer: None, answer: Some(answer.redacted.to_string()) };
                self.a_leg.answer = Some(answer);
                self.step(at, Input::SdpAnswer { usable: true });
                self.context.journal.trace(&answered);
            }
            Message::Joined(end) => {
                self.a_leg.bridge = Some(end);
                self.step(at, Input::ALeg { command: BLegCommand::Join });
                // Unused if the machine no longer accepts it.
                self.a_leg.bridge = None;
            }
            Message::Taken(offer) => self.phone_accepted(at, &offer),
            Message::MuteReason(reason, on) => self.a_leg.mute(reason, on),
            Message::Captions(language) => {
                let options = language.map(|language| CaptionOptions { language, lines: 0 });
                self.a_leg.caption(&self.context, options);
            }
            Message::Sample => self.a_leg.sample(&self.context, at),
            Message::Missing(missing, waited, checking) => quality::report_missing(
                &self.context,
                &mut self.report,
                at,
                (missing, waited, checking),
            ),
            Message::StreamSounds => {
                journal.trace(&Trace::StreamSounds { at_us: journal.us(at) });
            }
            Message::FirstSent => journal.trace(&Trace::FirstSent { at_us: journal.us(at) }),
            Message::Cancel(reply) => {
                let view = &self.context.view;
                let is_cancelled = !view.is_answered() && !view.is_closing();
                if is_cancelled {
                    self.step(at, Input::Command { command: Command::Hangup });
                }
                let _ = reply.send(is_cancelled);
            }
            Message::CanLeave(period, reply) => {
                let counts = |why: &Obstacle| period == Period::Now || !why.passes;
                let _ = reply.send(self.obstacle().filter(counts).map(|why| why.text));
            }
            Message::Suspend(reply) => self.suspension = Some(reply),
        }
    }

    /// Answers the offer of the phone that accepts the call.
    fn phone_accepted(&mut self, at: Instant, offer: &Offer) {
        let Some(line) = self.context.line.clone() else { return };
        match self.a_leg.answer_phone(&self.context, &line, offer) {
            Some(true) => {
                line.tell(ToPhone::Answer { call: self.context.id, sdp: self.a_leg.sdp.clone() });
                self.step(at, Input::SdpAnswer { usable: true });
                self.step(at, Input::Status { status: PhoneStatus::Accepted });
            }
            Some(false) => self.step(at, Input::HangUp { cause: HangupCause::InternalError }),
            None => {}
        }
    }

    #[cfg(any(test, feature = "test-util"))]
    fn fault(&self, input: &Input) {
        let Context { services, number, view, .. } = &self.context;
        let wanted = view.setup.caller_name == PANICS && matches!(input, Input::Fetched { .. });
        // The panic message must redact everything here.
        let held = (&view.setup, number, &services.graph, &view.keys);
        assert!(!wanted, "as a test wants it: {held:?}");
    }

    #[cfg(not(any(test, feature = "test-util")))]
    fn fault(&self, _: &Input) {}

    /// Processes one input: runs the machine, logs the outputs, then executes them.
    fn step(&mut self, at: Instant, input: Input) {
        self.fault(&input);
        let call = &self.context;
        match &input {
            Input::Fetched { fetch, .. } => {
                if let Some(took) = self.requests.fetched(*fetch, at) {
                    self.report.answer_ms = u64::try_from(took.as_millis()).ok();
                }
                self.playback.begin_document();
            }
            Input::Bound { wacid } => {
                self.requests.wacid = Some(wacid.clone());
                let due = call.services.clock.steady().plus(farewell::RETRY_TIME);
                call.services.store.calls().set_wacid(call.id, wacid.clone(), due);
            }
            Input::Terminated { .. } => self.requests.farewell.with(|pending| {
                if pending.take().is_some() {
                    call.services.store.calls().settle_farewell(call.id, None);
                }
            }),
            Input::Command {
                command: Command::Transfer { aleg: Some(_), .. } | Command::Run { .. },
            } => {
                self.report.transferred = true;
            }
            Input::ALeg { command: BLegCommand::Forward { command } } => {
                self.report.transferred |=
                    matches!(**command, Command::Transfer { aleg: Some(_), .. });
            }
            Input::Digit { leg: Leg::A, digit } => self.stream.key(*digit),
            Input::PlayStarted { leg: Leg::A, play } => self.playback.started(call, *play),
            Input::Played { leg: Leg::A, play } => self.playback.ended(call, *play),
            Input::PlayFailed { leg: Leg::A, play, item, reason } => {
                self.playback.failed(call, *play, *item, reason);
            }
            Input::Recording { recording: record, event: RecordingEvent::Ended { .. } } => {
                let awaited = self.machine.awaits_recording(*record);
                self.recordings.ended(*record, awaited);
            }
            Input::Speech {
                recognition,
                event: SpeechEvent::Understood { .. } | SpeechEvent::Failed { .. },
            } => self.recognition.ended(*recognition),
            Input::Graph { action, .. } => self.requests.graph_answered(*action),
            _ => {}
        }
        // All other inputs lead to the same state as their lines in the event log.
        let unredacted = match &input {
            Input::Digit { .. }
            | Input::Speech { .. }
            | Input::Fetched { result: Ok(FetchResponse::Document { .. }), .. } => {
                Some(input.clone())
            }
            _ => None,
        };
        let asks_to_record = matches!(&input, Input::Command { command: Command::Record { .. } });
        let step = self.machine.step(self.clock.time_at(at), input);
        self.requests.cancel_if(|action| step.overtakes(action));
        let MachineStep { at, logged, outputs, worth_a_line } = step;
        if worth_a_line
            && let Some(line) = call.journal.keep(log::entry_line(at, &logged, &outputs))
            && let Some(input) = unredacted
        {
            self.unredacted.note(line + 1, input, &logged);
        }
        call.view.set_recorded(self.machine.is_recorded());
        if asks_to_record {
            call.view.looked_at_recording();
        }
        let b_leg = self.machine.b_leg();
        if b_leg != std::mem::replace(&mut self.b_leg, b_leg) {
            call.view.set_b_leg(b_leg);
        }
        let is_end = |output: &Output| {
            matches!(output, Output::State { state: CallState::Closing | CallState::Over })
        };
        if outputs.iter().any(is_end) {
            // A recording that an earlier output of this step ends would report a live call.
            call.view.set_state(CallState::Closing);
        }
        let last = outputs.iter().any(|output| matches!(output, Output::Over));
        self.outputs.extend(outputs.into_iter().map(|output| (at, output, last)));
        self.execute_outputs();
    }

    /// Executes the outputs until the call leaves a room of another node.
    fn execute_outputs(&mut self) {
        while self.leaving.is_none()
            && let Some((at, output, last)) = self.outputs.pop_front()
        {
            self.execute(at, output, last);
        }
    }

    /// Executes an output. `last` is set if the call ends with this step.
    fn execute(&mut self, at: CallTime, output: Output, last: bool) {
        let call = &self.context;
        match output {
            Output::Graph { action } => {
                self.requests.ask_graph(call, &self.clock, &self.a_leg.sdp, action);
            }
            Output::Fetch { fetch, kind, url, method, params, deadline_ms } => {
                // Interim results are useless after the final one was sent.
                self.recognition.discard_interims();
                let deadline = Duration::from_millis(deadline_ms);
                match author::path_of(&url.0) {
                    Some(path) => {
                        self.playback.written = true;
                        self.report.agent = self.report.agent.or_else(|| author::agent_of(path));
                        self.requests.have_written(call, fetch, path, params, deadline);
                    }
                    None => self.requests.fetch(call, fetch, kind, (url, method), params, deadline),
                }
            }
            Output::CancelFetch { fetch } => self.requests.cancel_fetch(fetch),
            Output::Prepare { sounds } => {
                for sound in sounds {
                    self.playback.prepare(call, &sound);
                }
            }
            Output::Media { leg: _, command } => self.media(command),
            Output::Speech { recognition, command } => {
                self.recognition.execute(call, self.a_leg.leg(), recognition, command);
            }
            Output::Dial { order } => {
                self.report.phones_unanswered |=
                    matches!(order.destination, Destination::Endpoint { .. });
                legs::dial(call, *order);
            }
            Output::BLeg { call: b_leg, command } => {
                if command == BLegCommand::Proceed {
                    self.report.phones_unanswered = false;
                }
                legs::command_b_leg(call, self.a_leg.leg(), b_leg, command);
            }
            Output::ALeg { event } => legs::tell_a_leg(call, event),
            Output::Room { command } => {
                let leaving = rooms::execute(call, self.a_leg.leg(), &mut self.report, command);
                self.leaving = leaving;
            }
            Output::Stream { stream, command } => {
                self.stream.execute(call, self.a_leg.leg(), at, stream, command);
            }
            Output::Callback { callback } => {
                match callback.kind {
                    CallbackKind::Interim => {
                        return self.recognition.send_interim(call, callback);
                    }
                    CallbackKind::Action => self.recognition.discard_interims(),
                    CallbackKind::Hangup
                    | CallbackKind::Ring
                    | CallbackKind::Recording
                    | CallbackKind::Transcription => {}
                    _ => {
                        self.callbacks = self.callbacks.saturating_add(1);
                        match self.callbacks {
                            ..CALLBACKS_MAX => {}
                            CALLBACKS_MAX => {
                                warn!("no further callbacks of events: a call has at most 5,000")
                            }
                            _ => return,
                        }
                        if !call.services.outbox.admits_event(&call.view.setup.parent_account) {
                            crate::count_refused(metric::queue::CALLBACKS);
                            if !std::mem::replace(&mut self.is_callback_dropped, true) {
                                warn!(
                                    "callbacks of events dropped: too many of the account's callbacks wait for its server"
                                );
                            }
                            return;
                        }
                    }
                }
                call.write_callback(call.callback(callback));
            }
            Output::Instruction { element, line, outcome, note } => {
                log_instruction(&element, line, outcome, &note);
            }
            Output::State { state } => self.state(at, state),
            Output::Remark { text } => {
                info!(remark = %text, "call remark");
                self.report.remarks.add(text);
            }
            Output::Findings { findings } => self.report.findings.add(findings),
            Output::Concluded { summary } => {
                let retry = if last { farewell::SHORT_RETRY_TIME } else { farewell::RETRY_TIME };
                let due = call.services.clock.steady().plus(retry);
                let quality = self.a_leg.final_quality(call);
                let report = std::mem::take(&mut self.report);
                self.requests.farewell.with(|pending| {
                    let farewell = pending.map(|action| Farewell { action, due });
                    report.conclude(call, at, &summary, quality, farewell);
                });
            }
            Output::FreeSlot => {
                self.held = None;
                call.registry.note_over(&call.view);
            }
            Output::Over => self.end(),
        }
    }

    fn media(&mut self, command: MediaCommand) {
        let call = &self.context;
        let items = self.playback.items(call, &command);
        self.playback.note(call, &command);
        match command {
            MediaCommand::Record { .. }
            | MediaCommand::RecordStart { .. }
            | MediaCommand::RecordPause { .. }
            | MediaCommand::RecordStop { .. } => {
                if let MediaCommand::Record { order, .. } = &command {
                    self.report.note_format(order.mp3);
                }
                let (leg, machine) = (self.a_leg.leg(), &self.machine);
                return self.recordings.execute(call, leg, machine, command);
            }
            MediaCommand::Close => self.recordings.clear(),
            _ => {}
        }
        self.a_leg.execute(call, command, items);
    }

    fn state(&mut self, at: CallTime, state: CallState) {
        debug!(%state, "call state changed");
        let (services, view) = (&self.context.services, &self.context.view);
        view.set_state(state);
        self.report.rung |= state == CallState::Ringing;
        if state == CallState::Live {
            view.set_answered(at);
            view.tell_news(&services.feed);
            let answered = view.setup.started.plus(Duration::from_millis(at.0));
            services.store.calls().set_answered(self.context.id, answered);
            if let Some(news) = services.news.get() {
                news.answered(&view.setup, answered);
            }
            let Some(number) = &self.context.number else { return };
            let (user, event) = match view.setup.direction {
                Direction::Inbound => (&view.setup.from, Event::UserConnected),
                Direction::Outbound => (&view.setup.to, Event::Connected),
            };
            services.permissions.note(number, user, event);
        }
    }

    fn end(&mut self) {
        self.over = true;
        self.context.services.author.over(self.context.id);
        self.requests.cancel_fetches();
        self.recognition = Recognition::default();
        self.a_leg.end();
        self.stream = CallStream::default();
    }
}

fn log_instruction(element: &str, line: u32, outcome: InstructionOutcome, note: &str) {
    let word = match outcome {
        InstructionOutcome::Started => {
            debug!(element, line, "instruction started");
            return;
        }
        InstructionOutcome::Done => metric::instruction::DONE,
        InstructionOutcome::Skipped => metric::instruction::SKIPPED,
        InstructionOutcome::Failed => metric::instruction::FAILED,
        InstructionOutcome::Cut => metric::instruction::CUT,
    };
    debug!(element, line, outcome = word, note, "instruction ended");
    metrics::counter!(metric::INSTRUCTIONS_TOTAL, "element" => element.to_owned(), "outcome" => word).increment(1);
}
