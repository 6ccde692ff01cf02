//! The shell runs one call: it executes the machine's outputs, collects inputs, and writes both to
//! the event log.
//!
//! Each call has one task and one bounded mailbox. Inputs are stamped when they arrive, and the
//! machine's time never runs backwards. The shell makes no decisions; what to do after a failed
//! fetch or a hang-up is the machine's task. Outputs for the other party go to Graph, or to an
//! endpoint's phone (`phone`). Long operations, such as a fetch or a Graph request, run in tasks of
//! their own and return their result as an input.

mod asking;
mod begin;
mod ending;
mod legs;
mod mailbox;
mod phone;
mod quality;
mod rooms;
mod sound;
mod speech;
mod stream;
mod tapes;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::{Instrument, debug, info, warn};

use super::captions::Captions;
use super::farewell;
use super::phones::{KeySource, Line};
use super::registry::Registry;
use super::services::Services;
use super::step::{Step, Stepper};
use super::trace::{EventLogWriter, Trace};
use super::web::MuteReason;
use crate::admission::permission::{Engaged, Event};
use crate::admission::{NumberEntry, Slot};
use crate::answer::SigningKeys;
use crate::stream::StreamHandle;
use machine::log;
use machine::{
    BLegCommand, CallState, CallTime, CallbackKind, Command, Input, InstructionOutcome, Output,
    RecordingEvent,
};
use media::sdp::{self, Offer};
use media::{BridgeEnd, LegEvent, LegHandle, OfferedLeg};
use model::metric;
use model::{CallQuality, CallUuid, Direction, HangupCause, Leg, Wacid};
use sound::Playback;
use speech::Recognition;
use store::{NewCallback, StoreError};

use asking::Requests;
pub(super) use begin::{Peer, StartMode, StartParams};
use ending::Report;
pub(super) use ending::end_after_fault;
pub(super) use mailbox::{Envelope, Mailbox, Message, mailbox};

/// A caller with this name makes the call's task panic when its document arrives.
#[cfg(any(test, feature = "test-util"))]
pub const PANICS: &str = "brings it down";

/// State of the A-leg's media.
enum Media {
    /// Set-up failed, or the leg is closed.
    None,
    /// Our offer was sent; the answer is pending.
    Offered(Box<OfferedLeg>),
    /// The phone that accepts the call will send an offer.
    Awaited,
    Leg(LegHandle),
}

/// The A-leg: the media towards the user or the endpoint's phone.
struct ALeg {
    media: Media,
    /// Our session description.
    sdp: Arc<str>,
    /// Meta's answer to our offer, until the leg uses it.
    answer: Option<Box<Offer>>,
    /// A bridge end, until the leg uses it. The mutex is uncontended: it makes the shell `Sync`,
    /// which a bridge end is not.
    bridge: Mutex<Option<Box<BridgeEnd>>>,
    /// Reasons why the phone's audio is muted.
    mute_reasons: Vec<MuteReason>,
    /// Live captions for the phone.
    captions: Option<Captions>,
    /// Whether the user's phone has rung.
    rung: bool,
    /// Quality of a closed leg.
    quality: Option<CallQuality>,
}

impl ALeg {
    fn new(media: Media, sdp: String) -> Self {
        Self {
            media,
            sdp: Arc::from(sdp),
            answer: None,
            bridge: Mutex::default(),
            mute_reasons: Vec::new(),
            captions: None,
            rung: false,
            quality: None,
        }
    }

    fn bridge(&mut self) -> &mut Option<Box<BridgeEnd>> {
        self.bridge.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of a running call.
struct Shell {
    services: Arc<Services>,
    call: CallUuid,
    wacid: Option<Wacid>,
    /// The business number. `None` for a web leg.
    number: Option<Arc<NumberEntry>>,
    /// The connection to an endpoint's phone. `None` unless this is a web leg.
    line: Option<Arc<Line>>,
    keys: SigningKeys,
    stepper: Stepper,
    mailbox: Mailbox,
    journal: EventLogWriter,
    view: Arc<super::registry::LiveCall>,
    /// The call's slot and its user's busy mark. Held until the call ends.
    held: Option<(Slot, Engaged)>,
    /// Binds Meta's ids of outbound calls and finds other legs.
    registry: Registry,
    a_leg: ALeg,
    /// The B-leg as shown in `view`.
    b_leg: Option<CallUuid>,
    playback: Playback,
    recognition: Recognition,
    /// The open or opening stream.
    streaming: Option<StreamHandle>,
    tapes: tapes::CallRecordings,
    requests: Requests,
    report: Report,
    /// Outputs that wait until the call has left a room of another node, with the time of their
    /// step and whether it is the last one.
    outputs: VecDeque<(CallTime, Output, bool)>,
    leaving: Option<rooms::Leaving>,
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
        mut inbox,
        journal,
        view,
    } = *begin;
    let running = services.clock.now();
    let events = leg_events(&mailbox, peer.line());
    let theirs = match &way {
        StartMode::Offered(offer) => Some(offer.redacted.to_string()),
        StartMode::Placed | StartMode::Rung => None,
    };
    let made = match way {
        StartMode::Offered(offer) => {
            let answered = services.media.answer(&offer, events);
            answered.map(|(leg, sdp)| (Media::Leg(leg), sdp))
        }
        StartMode::Placed => {
            let offered = services.media.offer();
            offered.map(|(leg, sdp)| (Media::Offered(Box::new(leg)), sdp))
        }
        StartMode::Rung => Ok((Media::Awaited, String::new())),
    };
    let (media, sdp) = made.unwrap_or_else(|e| {
        warn!(error = %e, "media set-up failed");
        (Media::None, String::new())
    });
    let mut shell = Shell {
        call: setup.call,
        wacid: setup.wacid.clone(),
        keys: services.keys(peer.account()),
        number: peer.number().cloned(),
        line: peer.line().cloned(),
        stepper: Stepper::new(arrived),
        mailbox,
        journal,
        view,
        held: match peer {
            Peer::User { slot, engaged, .. } => Some((slot, engaged)),
            Peer::Phone { .. } => None,
        },
        registry,
        a_leg: ALeg::new(media, sdp),
        b_leg: None,
        playback: Playback::default(),
        recognition: Recognition::default(),
        streaming: None,
        tapes: tapes::CallRecordings::default(),
        requests: Requests::default(),
        report: Report::default(),
        outputs: VecDeque::new(),
        leaving: None,
        over: false,
        services,
    };
    shell.journal.keep(log::header_line(&log::Header::of(shell.call)));
    shell.journal.trace(&Trace::Begun {
        received_us: shell.journal.us(received),
        admitted_us: shell.journal.us(admitted),
        running_us: shell.journal.us(running),
        media_us: shell.journal.us(shell.services.clock.now()),
    });
    let has_media = !matches!(shell.a_leg.media, Media::None);
    info!(direction = setup.direction.as_str(), "call started");
    let setup = Box::new(setup);
    let first = match setup.direction {
        Direction::Outbound => Input::Placed { setup },
        Direction::Inbound => Input::Offered { setup },
    };
    shell.step(arrived, first);
    // After the first step, so that `pre_accept` is not delayed.
    shell.keep_sdp(theirs);
    if !has_media {
        shell.step(arrived, Input::HangUp { cause: HangupCause::InternalError });
    }
    drop(turn);
    while !shell.over {
        if let Some(leaving) = shell.leaving.take() {
            shell.finish_leaving(leaving).await;
            shell.execute_outputs();
            continue;
        }
        shell.requests.forget_finished();
        let envelope = shell.next_message(&mut inbox).await;
        match envelope.message {
            Message::Input(input) => shell.step(envelope.at, input),
            Message::Answer(answer) => {
                let shown = answer.redacted.to_string();
                shell.a_leg.answer = Some(answer);
                shell.step(envelope.at, Input::SdpAnswer { usable: true });
                shell.journal.trace(&Trace::Sdp { offer: None, answer: Some(shown) });
            }
            Message::Joined(end) => {
                *shell.a_leg.bridge() = Some(end);
                shell.step(envelope.at, Input::ALeg { command: BLegCommand::Join });
                // Unused if the machine no longer accepts it.
                *shell.a_leg.bridge() = None;
            }
            Message::Taken(offer) => shell.taken(envelope.at, &offer),
            Message::MuteReason(silence, on) => shell.silence(silence, on),
            Message::Captions(language) => shell.caption(language.as_deref()),
            Message::Sample => shell.sample(envelope.at),
            Message::Missing(missing, waited, checking) => {
                shell.missing(envelope.at, missing, waited, checking)
            }
            Message::FirstSent => {
                shell.journal.trace(&Trace::FirstSent { at_us: shell.journal.us(envelope.at) })
            }
        }
    }
    shell.journal.close();
}

/// Returns a sink that converts a leg's events to inputs of the call.
fn leg_events(mailbox: &Mailbox, line: Option<&Arc<Line>>) -> media::EventSink {
    let (mailbox, line) = (mailbox.clone(), line.cloned());
    Arc::new(move |event| {
        let leg = Leg::A;
        let input = match event {
            LegEvent::FirstSent => {
                mailbox.put(Message::FirstSent);
                return;
            }
            LegEvent::NoAudio { missing, waited, checking } => {
                mailbox.put(Message::Missing(missing, waited, checking));
                return;
            }
            LegEvent::Media(what) => Input::Media { leg, event: what },
            LegEvent::PlayStarted(play) => Input::PlayStarted { leg, play },
            LegEvent::Played(play) => Input::Played { leg, play },
            LegEvent::PlayFailed { play, item, reason } => {
                Input::PlayFailed { leg, play, item, reason }
            }
            // Phones may also send keys over their socket. Only one way counts.
            LegEvent::Digit(_)
                if line.as_ref().is_some_and(|line| !line.takes_key(KeySource::Stream)) =>
            {
                return;
            }
            LegEvent::Digit(digit) => Input::Digit { leg, digit },
            LegEvent::Voice(what) => Input::Voice { leg, event: what },
            LegEvent::DigitsSent(play) => Input::DigitsSent { leg, play },
        };
        mailbox.tell(input);
    })
}

impl Shell {
    /// Writes the initial session descriptions of both sides to the trace.
    fn keep_sdp(&self, theirs: Option<String>) {
        let ours = (!self.a_leg.sdp.is_empty()).then(|| sdp::redacted(&self.a_leg.sdp));
        let (offer, answer) = match theirs {
            Some(theirs) => (Some(theirs), ours),
            None => (ours, None),
        };
        if offer.is_some() {
            self.journal.trace(&Trace::Sdp { offer, answer });
        }
    }

    /// Waits for the next input, the machine's timer or the next quality reading. One timer serves
    /// both.
    async fn next_message(&self, inbox: &mut mpsc::Receiver<Box<Envelope>>) -> Envelope {
        let look = self.next_sample().map(|at| (at, Message::Sample));
        let deadline = self.stepper.deadline().map(|at| (at, Message::Input(Input::Timer)));
        let next = deadline.into_iter().chain(look).min_by_key(|(at, _)| *at);
        let timer = async {
            match next {
                Some((at, what)) => {
                    tokio::time::sleep_until(at.into()).await;
                    what
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; envelope = inbox.recv() => match envelope {
                Some(envelope) => *envelope,
                None => Envelope {
                    at: self.services.clock.now(), message: Message::Input(Input::HangUp { cause: HangupCause::InternalError }),
                },
            },
            what = timer => Envelope { at: self.services.clock.now(), message: what },
        }
    }

    #[cfg(any(test, feature = "test-util"))]
    fn fault(&self, input: &Input) {
        let wanted =
            self.view.setup.caller_name == PANICS && matches!(input, Input::Fetched { .. });
        // The panic message must redact everything here.
        let held = (&self.view.setup, &self.number, &self.services.graph, &self.keys);
        assert!(!wanted, "as a test wants it: {held:?}");
    }

    #[cfg(not(any(test, feature = "test-util")))]
    fn fault(&self, _: &Input) {}

    /// Processes one input: runs the machine, logs the outputs, then executes them.
    fn step(&mut self, at: Instant, input: Input) {
        self.fault(&input);
        match &input {
            Input::Fetched { fetch, .. } => {
                if let Some(took) = self.requests.fetched(*fetch, at) {
                    self.report.answer_ms = u64::try_from(took.as_millis()).ok();
                }
            }
            Input::Bound { wacid } => {
                self.wacid = Some(wacid.clone());
                let due = self.services.clock.steady().plus(farewell::RETRY_TIME);
                self.services.store.calls().set_wacid(self.call, wacid.clone(), due);
            }
            Input::Terminated { .. } if self.requests.farewell.take().is_some() => {
                self.services.store.calls().settle_farewell(self.call, None);
            }
            Input::Command {
                command: Command::Transfer { aleg: Some(_), .. } | Command::Run { .. },
            } => {
                self.report.transferred = true;
            }
            Input::ALeg { command: BLegCommand::Forward { command } } => {
                self.report.transferred |=
                    matches!(**command, Command::Transfer { aleg: Some(_), .. });
            }
            Input::Digit { leg: Leg::A, digit } => self.key_to_stream(*digit),
            Input::Played { leg: Leg::A, play } => {
                self.playback.playing.take_if(|(playing, _)| playing == play);
            }
            Input::Recording { recording: record, event: RecordingEvent::Ended { .. } } => {
                let awaited = self.stepper.machine().awaits_recording(*record);
                self.tapes.ended(*record, awaited);
            }
            Input::Graph { action, outcome }
                if self.requests.farewell == Some(*action) && outcome.is_settled() =>
            {
                self.requests.farewell = None;
            }
            _ => {}
        }
        let asks_to_record = matches!(&input, Input::Command { command: Command::Record { .. } });
        let step = self.stepper.step(at, input);
        self.requests.cancel_if(|action| step.overtakes(action));
        let Step { at, logged, outputs, worth_a_line } = step;
        if worth_a_line {
            self.journal.keep(log::entry_line(at, &logged, &outputs));
        }
        self.view.set_recorded(self.stepper.machine().is_recorded());
        if asks_to_record {
            self.view.looked_at_recording();
        }
        let b_leg = self.stepper.machine().b_leg();
        if b_leg != std::mem::replace(&mut self.b_leg, b_leg) {
            self.view.set_b_leg(b_leg);
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
        match output {
            Output::Graph { action } => self.ask_graph(action),
            Output::Fetch { fetch, kind, url, method, params, deadline_ms } => {
                // Interim results are useless after the final one was sent.
                self.recognition.interims = None;
                self.fetch(fetch, kind, url, method, params, Duration::from_millis(deadline_ms));
            }
            Output::CancelFetch { fetch } => {
                self.requests.cancel_fetch(fetch);
            }
            Output::Prepare { sounds } => {
                for sound in sounds {
                    self.prompt(&sound);
                }
            }
            Output::Media { leg: _, command: order } => self.media(order),
            Output::Speech { recognition, command: order } => self.recognise(recognition, order),
            Output::Dial { order } => self.dial(*order),
            Output::BLeg { call, command: leg } => self.order_leg(call, leg),
            Output::ALeg { event: news } => self.tell_a_leg(news),
            Output::Callback { callback: notice } if notice.kind == CallbackKind::Interim => {
                self.interim(notice)
            }
            Output::Room { command: room } => self.room(room),
            Output::Stream { stream, command } => self.stream(at, stream, command),
            Output::Callback { callback: notice } => self.notify(notice),
            Output::Instruction { element, line, outcome, note } => {
                self.instruction(&element, line, outcome, &note)
            }
            Output::State { state } => self.state(at, state),
            Output::Remark { text } => {
                info!(remark = %text, "call remark");
                self.report.remarks.push(text);
            }
            Output::Findings { findings } => self.report.findings.add(findings),
            Output::Concluded { summary } => self.conclude(at, *summary, last),
            Output::FreeSlot => self.held = None,
            Output::Over => self.end(),
        }
    }

    fn callback(&self, notice: machine::CallbackRequest) -> NewCallback {
        self.services.callback(&self.view.setup, notice)
    }

    /// Writes a callback to the outbox, then sends it.
    fn notify(&mut self, notice: machine::CallbackRequest) {
        if notice.kind == CallbackKind::Action {
            self.recognition.interims = None;
        }
        self.write_callback(self.callback(notice));
    }

    fn write_callback(&self, new: NewCallback) {
        let written = self.services.store.outbox().insert(new);
        let (outbox, keys) = (self.services.outbox.clone(), self.keys.clone());
        let work = async move {
            match written.await {
                Ok(written) => outbox.send(written, keys),
                Err(error @ StoreError::Journalled) => {
                    debug!(%error, "callback journalled, delivery postponed")
                }
                Err(error) => tracing::error!(%error, "callback not written"),
            }
        };
        self.services.tasks.spawn(work.in_current_span());
    }

    fn instruction(&self, element: &str, line: u32, outcome: InstructionOutcome, note: &str) {
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

    fn state(&mut self, at: CallTime, state: CallState) {
        debug!(%state, "call state changed");
        self.view.set_state(state);
        self.a_leg.rung |= state == CallState::Ringing;
        if state == CallState::Live {
            self.view.set_answered(at);
            self.view.tell_news(&self.services.feed);
            let answered = self.view.setup.started.plus(Duration::from_millis(at.0));
            self.services.store.calls().set_answered(self.call, answered);
            if let Some(news) = self.services.news.get() {
                news.answered(&self.view.setup, answered);
            }
            let Some(number) = &self.number else { return };
            let (user, event) = match self.view.setup.direction {
                Direction::Inbound => (&self.view.setup.from, Event::UserConnected),
                Direction::Outbound => (&self.view.setup.to, Event::Connected),
            };
            self.services.permissions.note(number, user, event);
        }
    }
}
