//! Runs an application without a call: with the real machine and real signed requests, and with a
//! simulated caller who presses keys. Used by `offhook xml run`.
//!
//! No audio is played and no timer runs: simulated time advances from one input to the next. Graph
//! requests succeed, media connects, and a prompt ends after its estimated duration (`length`).
//! Only HTTP requests take real time. Progress is reported as [`Event`]s and the result as
//! [`WalkResult`].

mod event;
mod length;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use event::{Event, PromptPiece, Step, WalkResult};

use crate::answer::{Fetcher, Notifier, RandomSource, SigningKeys};
use machine::{
    BLegCommand, BLegEvent, CallSetup, CallState, CallTime, CallUrls, CallbackKind, Destination,
    DialOrder, GraphAction, GraphOutcome, Input, InstructionOutcome, LeaveReason, Machine,
    MachineLimits, MediaCommand, MediaEvent, Output, PlayId, RecordingEndReason, RecordingEvent,
    RoomCommand, RoomEvent, StreamCommand, StreamEvent, Summary, Termination,
};
use model::Clock;
use model::{
    AuthId, CallType, CallUuid, Digit, Direction, HangupCause, Leg, PhoneNumberId, StreamId, Wacid,
};
use xml::ast::Severity;

/// Delay from the end of a prompt to the first key, and between keys. Shorter than every timeout of
/// a collection.
const FIRST_KEY_MS: u64 = 300;
const NEXT_KEY_MS: u64 = 150;
/// Time in milliseconds for which the phone of a dialled party rings.
const CALLEE_RINGS_MS: u64 = 2_000;
/// Time in milliseconds for which a dialled party talks.
const CALLEE_TALKS_MS: u64 = 10_000;
/// Time in milliseconds after which the simulated server closes a stream for which the document
/// waits.
const STREAMS_MS: u64 = 10_000;
/// Maximum number of reported findings. Further ones are only counted.
const FINDINGS_MAX: usize = 500;

/// The services that a walk needs.
#[derive(Clone)]
pub struct Walker {
    pub fetcher: Fetcher,
    pub notifier: Notifier,
    pub clock: Clock,
    pub random: RandomSource,
}

/// The parties and the application of a call.
#[derive(Clone, Debug)]
pub struct CallParties {
    /// The caller, as digits without `+`.
    pub from: String,
    /// The called number, as digits without `+`.
    pub to: String,
    pub caller_name: String,
    /// The payloads of a call button and a deep link.
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
    pub phone_number_id: PhoneNumberId,
    pub account: AuthId,
    pub parent_account: AuthId,
    pub urls: CallUrls,
    pub limits: MachineLimits,
}

/// The parameters of a walk.
#[derive(Clone, Debug)]
pub struct Job {
    pub calling: CallParties,
    pub keys: SigningKeys,
    /// Maximum size of a decoded document in bytes (`answer.max_body_bytes`).
    pub max_body: usize,
    /// The answer document. If set, the answer URL is not requested, neither for the document nor
    /// for callbacks.
    pub document: Option<Bytes>,
    pub caller: Caller,
    /// Whether callbacks are sent or only displayed.
    pub callbacks: bool,
    pub bounds: Bounds,
}

/// Behaviour of the caller.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// Keys for each collection, in order. Further collections get no keys.
    pub keys: VecDeque<Vec<Key>>,
    /// Time after the answer at which the caller hangs up.
    pub hangs_up_after: Option<Duration>,
    /// Behaviour of the parties that the application dials.
    pub callee: Callee,
}

/// Behaviour of a dialled party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Callee {
    /// Answers, confirms if asked to, and hangs up after a while.
    #[default]
    Answers,
    Declines,
    Busy,
    /// Does not answer.
    Absent,
}

/// A key and the pause before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub after: Duration,
    pub digit: Digit,
}

/// Limits of a walk.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub documents: u32,
    /// Maximum real time, including callbacks.
    pub time: Duration,
}

impl Walker {
    /// Runs a walk. `on_step` is called with each event as it happens.
    pub async fn walk(&self, job: Job, mut on_step: impl FnMut(Step) + Send) -> WalkResult {
        let begun = self.clock.now();
        let setup = self.setup(job.calling.clone());
        let mut walk = Walk {
            walker: self,
            setup: setup.clone(),
            machine: Machine::new(),
            now: CallTime(0),
            coming: BTreeMap::new(),
            order: 0,
            playing: None,
            prompt_ends: CallTime(0),
            typing: None,
            begun,
            on_step: &mut on_step,
            walked: WalkResult::default(),
            why_hung_up: "as scripted",
            gave_up: false,
            is_handed_over: false,
            over: false,
            job,
        };
        walk.run(setup).await;
        walk.walked.unused_keys = walk.job.caller.keys.len();
        walk.walked.took_ms = event::millis(self.clock.now().saturating_duration_since(begun));
        walk.walked
    }

    fn setup(&self, calling: CallParties) -> CallSetup {
        let call = CallUuid(self.uuid());
        CallSetup {
            call,
            direction: Direction::Inbound,
            call_type: CallType::Whatsapp,
            wacid: Some(Wacid::new(format!("wacid.{}", call.0.simple()))),
            phone_number_id: calling.phone_number_id,
            from: calling.from,
            to: calling.to,
            caller_name: calling.caller_name,
            cta_payload: calling.cta_payload,
            deeplink_payload: calling.deeplink_payload,
            account: calling.account,
            parent_account: calling.parent_account,
            urls: calling.urls,
            started: self.clock.wall(),
            limits: calling.limits,
            headers: Vec::new(),
            outbound: None,
        }
    }

    fn uuid(&self) -> uuid::Uuid {
        let (high, low) = (self.random.next(), self.random.next());
        uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
            .into_uuid()
    }
}

/// State of a running walk.
struct Walk<'a> {
    walker: &'a Walker,
    job: Job,
    setup: CallSetup,
    machine: Machine,
    now: CallTime,
    /// Scheduled inputs, ordered by time and then by order of scheduling.
    coming: BTreeMap<(CallTime, u64), Input>,
    order: u64,
    playing: Option<PlayId>,
    /// When the latest prompt has been played once.
    prompt_ends: CallTime,
    /// Keys for the collection that has just begun.
    typing: Option<Vec<Key>>,
    begun: Instant,
    on_step: &'a mut (dyn FnMut(Step) + Send),
    walked: WalkResult,
    why_hung_up: &'static str,
    /// Whether a limit was reached.
    gave_up: bool,
    /// Whether an AI agent has taken the call over, with which the walk ends.
    is_handed_over: bool,
    over: bool,
}

impl Walk<'_> {
    async fn run(&mut self, setup: CallSetup) {
        self.take(Input::Offered { setup: Box::new(setup) }).await;
        while !self.over {
            let input = self.next_input();
            self.report_input(&input);
            self.take(input).await;
            self.bound();
        }
    }

    /// Reports an input that is an action of the caller.
    fn report_input(&mut self, input: &Input) {
        match input {
            Input::Digit { digit, .. } => {
                let key = if self.machine.hides_input() { 'x' } else { digit.as_char() };
                self.tell(Event::Key { key });
            }
            // In `closing` this is Meta's confirmation of our own hang-up.
            Input::Terminated { .. } if !self.is_closing() => {
                self.tell(Event::CallerHangsUp { why: self.why_hung_up });
            }
            _ => {}
        }
    }

    /// Takes the next input and advances the time to it.
    fn next_input(&mut self) -> Input {
        let timer = self.machine.poll_timeout().map(|(at, _)| at);
        if let Some((&(at, order), _)) = self.coming.first_key_value()
            && timer.is_none_or(|timer| at <= timer)
            && let Some(input) = self.coming.remove(&(at, order))
        {
            self.now = self.now.max(at);
            return input;
        }
        match timer {
            // Only the call's time limit is left: endless music. The caller hangs up after hearing
            // it once.
            Some(timer) if self.coming.is_empty() && Some(timer) == self.longest() => {
                self.now = self.now.max(self.prompt_ends);
                self.hang_up("nothing follows any more")
            }
            Some(timer) => {
                self.now = self.now.max(timer);
                Input::Timer
            }
            // A live machine always waits for something.
            None => Input::HangUp { cause: HangupCause::InternalError },
        }
    }

    /// Returns when the call's time limit is reached.
    fn longest(&self) -> Option<CallTime> {
        self.machine.answered().map(|answered| answered.plus(self.setup.limits.max_call_ms))
    }

    fn hang_up(&mut self, why: &'static str) -> Input {
        self.why_hung_up = why;
        terminated()
    }

    /// Hangs up and reports a fault if a limit of the walk is reached.
    fn bound(&mut self) {
        if self.over || self.gave_up {
            return;
        }
        let Bounds { documents, time } = self.job.bounds;
        let why = if self.walked.documents > documents && self.is_fetching() {
            format!("the application requested more than {documents} documents: it may loop")
        } else if self.left().is_zero() {
            format!("the walk took longer than {} s", time.as_secs())
        } else {
            return;
        };
        self.gave_up = true;
        self.fault(why);
        let input = self.hang_up("limit of the walk reached");
        self.coming.clear();
        self.comes(0, input);
    }

    fn is_closing(&self) -> bool {
        matches!(self.machine.state(), Some(CallState::Closing | CallState::Over))
    }

    /// Whether a document is being fetched.
    fn is_fetching(&self) -> bool {
        self.coming.values().any(|input| matches!(input, Input::Fetched { .. }))
    }

    /// Remaining real time.
    fn left(&self) -> Duration {
        let taken = self.walker.clock.now().saturating_duration_since(self.begun);
        self.job.bounds.time.saturating_sub(taken)
    }

    fn comes(&mut self, in_ms: u64, input: Input) {
        self.order += 1;
        self.coming.insert((self.now.plus(in_ms), self.order), input);
    }

    fn tell(&mut self, event: Event) {
        self.tell_in(0, event);
    }

    fn tell_in(&mut self, ms: u64, event: Event) {
        (self.on_step)(Step { at_ms: self.now.plus(ms).0, event });
    }

    fn fault(&mut self, what: String) {
        self.walked.faults.push(what);
    }

    /// Processes one input and executes the outputs immediately.
    async fn take(&mut self, input: Input) {
        self.machine.handle(self.now, input);
        while let Some(output) = self.machine.poll() {
            self.execute(output).await;
        }
        self.type_keys();
    }

    async fn execute(&mut self, output: Output) {
        match output {
            Output::Graph { action } => self.graph(action),
            Output::Fetch { fetch, kind, url, method, params, deadline_ms } => {
                self.fetch(requests::DocumentRequest {
                    fetch,
                    kind,
                    url,
                    method,
                    params,
                    deadline_ms,
                })
                .await;
            }
            Output::CancelFetch { fetch: unwanted } => {
                self.coming.retain(
                    |_, input| !matches!(input, Input::Fetched { fetch, .. } if *fetch == unwanted),
                );
            }
            Output::Media { leg: Leg::A, command: order } => self.media(order),
            // A walk has no second party, and prompts are displayed as text.
            Output::Media { leg: Leg::B(_), .. } | Output::Prepare { .. } => {}
            // The caller presses keys and does not speak.
            Output::Speech { .. } => {}
            Output::Dial { order } => self.dial(&order),
            Output::BLeg { call, command: leg } => self.order_leg(call, &leg),
            Output::Room { command: room } => self.room(&room),
            // A walked call has no A-leg.
            Output::ALeg { .. } => {}
            Output::Stream { stream, command } => self.stream(stream, command),
            Output::Callback { callback: notice } => self.callback(notice).await,
            Output::Instruction { element, line, outcome, note } => {
                if outcome == InstructionOutcome::Started
                    && matches!(element.as_str(), "GetInput" | "GetDigits")
                {
                    self.typing = self.job.caller.keys.pop_front();
                }
                if outcome == InstructionOutcome::Failed {
                    let why = if note.is_empty() { String::new() } else { format!(": {note}") };
                    self.fault(format!("{element} in line {line} failed{why}"));
                }
                self.tell(Event::Instruction { element, line, outcome, note });
            }
            Output::State { state } => self.state(state),
            Output::Remark { text } => self.tell(Event::Remark { text }),
            Output::Findings { findings } => {
                for finding in findings {
                    match finding.severity {
                        Severity::Error => self.walked.errors += 1,
                        Severity::Warning => self.walked.warnings += 1,
                    }
                    if self.walked.errors + self.walked.warnings <= FINDINGS_MAX {
                        self.tell(Event::Finding { finding });
                    }
                }
            }
            Output::Concluded { summary } => self.conclude(*summary).await,
            // A walked call has no slot.
            Output::FreeSlot => {}
            Output::Over => self.over = true,
        }
    }

    /// Simulates a dialled party.
    fn dial(&mut self, order: &DialOrder) {
        let call = order.call;
        let to = match &order.destination {
            Destination::Whatsapp { user, .. } => user.clone(),
            Destination::Endpoint { name, .. } => name.clone(),
        };
        self.tell(Event::Calls { to, position: order.position });
        let callee = self.job.caller.callee;
        let mut comes = |ms, news| self.comes(ms, Input::BLeg { call, event: news });
        comes(0, BLegEvent::Placed);
        comes(0, BLegEvent::Ringing);
        match callee {
            Callee::Answers => comes(CALLEE_RINGS_MS, BLegEvent::Answered),
            Callee::Declines => {
                comes(CALLEE_RINGS_MS, BLegEvent::Ended { cause: HangupCause::Rejected })
            }
            Callee::Busy => comes(0, BLegEvent::Ended { cause: HangupCause::UserBusy }),
            Callee::Absent => {}
        }
    }

    /// Simulates a room without other members that ends after a while.
    fn room(&mut self, command: &RoomCommand) {
        match command {
            RoomCommand::Enter { .. } => {
                let entered = RoomEvent::Entered {
                    room: uuid::Uuid::nil(),
                    member: 1,
                    first: true,
                    active: true,
                    starts_room: true,
                    room_left_ms: None,
                };
                self.comes(0, Input::Room { event: entered });
                self.comes(
                    CALLEE_TALKS_MS,
                    Input::Room { event: RoomEvent::MustLeave { reason: LeaveReason::Ended } },
                );
            }
            RoomCommand::Leave { .. } => {
                self.coming.retain(|_, input| !matches!(input, Input::Room { .. }))
            }
            RoomCommand::Sound { .. }
            | RoomCommand::Digit { .. }
            | RoomCommand::Record { .. }
            | RoomCommand::TrackEnded
            | RoomCommand::Ring { .. }
            | RoomCommand::StopRing => {}
        }
    }

    fn order_leg(&mut self, of: CallUuid, command: &BLegCommand) {
        match command {
            BLegCommand::Proceed => {
                self.comes(0, Input::BLeg { call: of, event: BLegEvent::Ready })
            }
            BLegCommand::Join => {
                let news = BLegEvent::Ended { cause: HangupCause::CallerHangup };
                self.comes(CALLEE_TALKS_MS, Input::BLeg { call: of, event: news });
            }
            BLegCommand::Forward { .. } => {}
            BLegCommand::HangUp { .. } => {
                self.coming
                    .retain(|_, input| !matches!(input, Input::BLeg { call, .. } if *call == of));
            }
        }
    }

    /// Simulates a stream's server, which accepts the stream and closes it after a while. No audio
    /// is sent.
    fn stream(&mut self, stream: StreamId, command: StreamCommand) {
        match command {
            StreamCommand::Open(order) => {
                self.tell(Event::Stream {
                    url: order.url.0.to_string(),
                    keeps_call: order.keep_call_alive,
                });
                self.comes(0, Input::Stream { stream, event: StreamEvent::Opened });
                if order.keep_call_alive {
                    self.comes(STREAMS_MS, Input::Stream { stream, event: StreamEvent::Closed });
                }
            }
            StreamCommand::Begin => {}
            StreamCommand::Close { .. } => {
                self.coming.retain(
                    |_, input| !matches!(input, Input::Stream { stream: of, .. } if *of == stream),
                );
            }
        }
    }

    fn graph(&mut self, action: GraphAction) {
        self.comes(0, Input::Graph { action, outcome: GraphOutcome::Done });
        if action == GraphAction::Terminate {
            // Meta's webhook follows.
            self.comes(0, terminated());
        }
    }

    fn media(&mut self, order: MediaCommand) {
        let leg = Leg::A;
        match order {
            MediaCommand::Begin => {
                self.comes(0, Input::Media { leg, event: MediaEvent::Connected })
            }
            // Only used by the REST API and by B-legs.
            MediaCommand::Open
            | MediaCommand::DetectVoice { .. }
            | MediaCommand::DetectBeep { .. }
            | MediaCommand::Overlay { .. }
            | MediaCommand::PlayPause { .. }
            | MediaCommand::RecordStart { .. }
            | MediaCommand::RecordPause { .. }
            | MediaCommand::Join
            | MediaCommand::Unjoin => {}
            MediaCommand::Play { play, items } => {
                self.stop_playing();
                let (pieces, length) = length::of(&items);
                self.playing = Some(play);
                self.prompt_ends = self.now.plus(length.once_ms);
                self.tell(Event::Prompt { pieces, ms: length.once_ms, endless: length.endless });
                self.comes(0, Input::PlayStarted { leg, play });
                if !length.endless {
                    self.comes(length.once_ms, Input::Played { leg, play });
                }
            }
            MediaCommand::Stop { play } => {
                if self.playing == Some(play) {
                    self.stop_playing();
                }
            }
            // The caller is silent.
            MediaCommand::Record { recording: record, order: how } => {
                let (id, url) = (uuid::Uuid::nil(), String::new());
                self.comes(
                    0,
                    Input::Recording {
                        recording: record,
                        event: RecordingEvent::Ready { id, url },
                    },
                );
                if let Some(silence_ms) = how.silence_ms {
                    let (end, ms) = match silence_ms < how.max_ms {
                        true => (RecordingEndReason::Silence, silence_ms),
                        false => (RecordingEndReason::MaxLength, how.max_ms),
                    };
                    self.comes(
                        ms,
                        Input::Recording { recording: record, event: recording_ended(end, ms) },
                    );
                }
            }
            MediaCommand::RecordStop { recording: stopped, reason: end, .. } => {
                let is_its = |input: &Input| matches!(input, Input::Recording { recording: record, event: RecordingEvent::Ended { .. } } if *record == stopped);
                self.coming.retain(|_, input| !is_its(input));
                self.comes(
                    0,
                    Input::Recording { recording: stopped, event: recording_ended(end, 0) },
                );
            }
            MediaCommand::SendDigits { play, digits } => {
                let ms = length::of_tones(&digits);
                self.tell(Event::Tones { digits, ms });
                self.comes(ms, Input::DigitsSent { leg, play });
            }
            MediaCommand::Close => self.stop_playing(),
        }
    }

    /// Stops the current prompt and discards its scheduled inputs.
    fn stop_playing(&mut self) {
        if let Some(stopped) = self.playing.take() {
            self.coming.retain(|_, input| match input {
                Input::Played { play, .. } | Input::PlayStarted { play, .. } => *play != stopped,
                _ => true,
            });
        }
    }

    /// Schedules the keys after the end of the prompt. An endless prompt plays once.
    fn type_keys(&mut self) {
        let Some(keys) = self.typing.take() else { return };
        let mut at = self.prompt_ends.0.saturating_sub(self.now.0) + FIRST_KEY_MS;
        for Key { after, digit } in keys {
            at += event::millis(after);
            self.comes(at, Input::Digit { leg: Leg::A, digit });
            at += NEXT_KEY_MS;
        }
    }

    fn state(&mut self, state: CallState) {
        if state == CallState::Live {
            self.tell(Event::Answered);
            if let Some(after) = self.job.caller.hangs_up_after {
                self.comes(event::millis(after), terminated());
            }
        }
    }

    async fn conclude(&mut self, summary: Summary) {
        if self.is_handed_over {
            // The call goes on, so its end is not reported.
            return;
        }
        let wire = summary.cause.wire(summary.direction);
        self.coming.retain(|_, input| !matches!(input, Input::Digit { .. }));
        self.tell(Event::Hangup {
            cause: summary.cause.as_str(),
            code: wire.code,
            name: wire.name,
            source: wire.source.as_str(),
            answered: summary.answered.is_some(),
            duration_s: summary.duration_secs,
        });
        if !event::is_good_end(&wire) {
            self.fault(format!(
                "the call ended with {} {} ({})",
                wire.code,
                wire.name,
                summary.cause.as_str()
            ));
        }
        self.walked.cause = Some(summary.cause);
        self.callback(summary.hangup).await;
    }

    /// Whether the callback has no receiver, because the answer document is a file.
    fn is_nowhere(&self, notice: &machine::CallbackRequest) -> bool {
        self.job.document.is_some()
            && notice.kind == CallbackKind::Hangup
            && notice.url == self.job.calling.urls.answer
    }
}

/// The end of a recording that was not made.
fn recording_ended(end: RecordingEndReason, duration_ms: u64) -> RecordingEvent {
    RecordingEvent::Ended { reason: end, duration_ms, start_ms: 0, end_ms: 0, error: None }
}

/// Meta's webhook about the end of a call.
fn terminated() -> Input {
    let status = Some("completed".to_owned());
    Input::Terminated { termination: Termination { status, ..Termination::default() } }
}
