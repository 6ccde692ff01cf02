//! Runs one call: carries the machine's wishes out, brings facts in, writes both down.
//!
//! One task a call, one bounded mailbox. Every input is stamped where it came in; the machine is given times
//! that never run backwards. Nothing is decided here: what to do when a fetch fails or a user hangs up is the
//! machine's business. What it wishes of the other side goes to Graph, or over a line to an endpoint's phone (`phone`). Long work (a fetch, a Graph request) runs in tasks of its own and comes back as a fact.

mod legs;
mod rooms;
mod speech;
mod tapes;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, info, warn};

use super::author::{self, Wish};
use super::captions::Captions;
use super::consent::refusal_of;
use super::hearing::Hearing;
use super::log;
use super::machine::{
    Aside, CallSetup, CallState, CallTime, Command, FetchFailure, FetchId, FetchKind, Fetched, GraphAction,
    GraphOutcome, Input, InstructionOutcome, LegWish, MediaFact, MediaFault, MediaOrder, NoticeKind, Output, Params,
    PlayId, RecordFact, Sound, Summary, abandoned,
};
use super::phones::{KeyWay, Line};
use super::registry::{LetIn, Registry};
use super::services::Services;
use super::step::{Step, Stepper};
use super::trace::{Journal, Request, Trace};
use super::turns::Turn;
use super::web::Silence;
use super::{farewell, record};
use crate::admission::permission::{Engaged, Event};
use crate::admission::{AccountEntry, NumberEntry, Slot};
use crate::answer::{DocumentBody, FetchJob, Hops, SigningKeys, Validity};
use crate::media::prompt::Prompt;
use crate::media::sdp::{self, Offer};
use crate::media::{BridgeEnd, LegEvent, LegHandle, Missing, OfferedLeg, PlayItem};
use crate::meta::{About, ActionRequest};
use crate::model::{CallQuality, CallUuid, Direction, HangupCause, Leg, Method, NoticeTopic, Wacid};
use crate::notices::Notice;
use crate::observe::names;
use crate::store::{CallEnd, CallStart, Conclusion, Farewell, NewCallback, StoreError};
use crate::stream::StreamHandle;
use crate::xml::ast::DocUrl;
use speech::Interims;

mod phone;
mod quality;
mod stream;

/// A caller of this name brings a call's task down when its document comes.
#[cfg(test)]
pub(crate) const PANICS: &str = "brings it down";

/// Facts waiting for one call. A call sees a few a second; a full mailbox is a fault, counted and logged.
const MAILBOX: usize = 256;
/// Prompts a call keeps ready ahead of their playing.
const PREPARED_MAX: usize = 64;

/// How long a request to Graph waits for the answer to the one before it, so that Meta sees a call's requests in
/// the order they were decided on, whatever connections carry them; past it, it goes out all the same.
const IN_ORDER: Duration = Duration::from_millis(250);

/// A fact and when it came in.
#[derive(Debug)]
pub(super) struct Fact {
    pub at: Instant,
    pub what: What,
}

/// What a call is told.
#[derive(Debug)]
pub(super) enum What {
    /// What its machine decides by.
    Fact(Input),
    /// Meta's answer to our offer: the machine is told that it is there.
    Answer(Box<Offer>),
    /// The leg that dialled this one has brought the two together: this end of the bridge is its.
    Joined(Box<BridgeEnd>),
    /// An endpoint's phone takes the call, by an offer of its own.
    Taken(Box<Offer>),
    /// An endpoint's phone is to be heard by nobody, or by all again.
    Silence(Silence, bool),
    /// An endpoint's phone wants to read what is said in this language, or nothing any more.
    Captions(Option<Box<str>>),
    /// What only its trace is about: the first packet of ours went out.
    FirstSent,
    /// Time to look how its sound goes.
    Look,
    /// What its media lacks some seconds after `accept`, and how long it has been waited for; whether we send the checks.
    Missing(Missing, Duration, bool),
}

/// Where a call's facts go; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Mailbox {
    call: CallUuid,
    /// Boxed: the channel keeps room for 32 at a time, for each call.
    facts: mpsc::Sender<Box<Fact>>,
    clock: crate::clock::Clock,
}

impl Mailbox {
    /// Whether the call still reads its mailbox.
    pub(super) fn is_open(&self) -> bool {
        !self.facts.is_closed()
    }

    /// Puts a fact in, stamped now. `false`: the call is over, or its mailbox is full.
    pub(super) fn tell(&self, input: Input) -> bool {
        self.put(What::Fact(input))
    }

    pub(super) fn put(&self, what: What) -> bool {
        let fact = Fact { at: self.clock.now(), what };
        match self.facts.try_send(Box::new(fact)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(fact)) => {
                names::queue::refused(names::queue::MAILBOX);
                warn!(call_uuid = %self.call, fact = ?std::mem::discriminant(&fact.what), "mailbox full, fact lost");
                false
            }
        }
    }
}

/// A mailbox and the end the shell reads.
pub(super) fn mailbox(call: CallUuid, clock: &crate::clock::Clock) -> (Mailbox, mpsc::Receiver<Box<Fact>>) {
    let (facts, inbox) = mpsc::channel(MAILBOX);
    (Mailbox { call, facts, clock: clock.clone() }, inbox)
}

/// What a call is begun with.
pub(super) struct Begin {
    pub(super) registry: Registry,
    pub(super) setup: CallSetup,
    pub(super) way: Way,
    pub(super) peer: Peer,
    /// Held until Graph and the application have been asked.
    pub(super) turn: Turn,
    /// When the webhook's request came, when it had been read, when the call was let in.
    pub(super) received: Instant,
    pub(super) arrived: Instant,
    pub(super) admitted: Instant,
    pub(super) mailbox: Mailbox,
    pub(super) inbox: mpsc::Receiver<Box<Fact>>,
    pub(super) journal: Journal,
    pub(super) view: Arc<super::registry::LiveCall>,
}

/// Who is at the other end, and what the call holds of it as long as it is up.
pub(super) enum Peer {
    /// A WhatsApp user. The number as it stood when the call began: its token and signing keys stay the call's (S0.25).
    User { number: Arc<NumberEntry>, slot: Slot, engaged: Engaged },
    /// An endpoint's phone.
    Phone { account: Arc<AccountEntry>, line: Arc<Line> },
}

impl Peer {
    pub(super) fn user((admitted, engaged): LetIn) -> Self {
        let (number, slot) = admitted.begin();
        Self::User { number, slot, engaged }
    }

    pub(super) fn account(&self) -> &AccountEntry {
        match self {
            Self::User { number, .. } => &number.account,
            Self::Phone { account, .. } => account,
        }
    }

    pub(super) fn number(&self) -> Option<&Arc<NumberEntry>> {
        match self {
            Self::User { number, .. } => Some(number),
            Self::Phone { .. } => None,
        }
    }

    pub(super) fn line(&self) -> Option<&Arc<Line>> {
        match self {
            Self::User { .. } => None,
            Self::Phone { line, .. } => Some(line),
        }
    }
}

/// How a call begins.
pub(super) enum Way {
    /// With the user's offer.
    Offered(Box<Offer>),
    /// With an offer of ours: Meta's id of the call is to come.
    Placed,
    /// An endpoint is rung: whichever phone takes the call makes the offer.
    Rung,
}

/// The A-leg's media.
enum Media {
    /// It could not be had, or is over.
    None,
    /// We have offered, and wait for the answer.
    Offered(Box<OfferedLeg>),
    /// It comes with the offer of whoever takes the call.
    Awaited,
    Leg(LegHandle),
}

/// A request to Graph.
struct Asked {
    action: GraphAction,
    answered: JoinHandle<()>,
    /// Ends its tries.
    overtaken: CancellationToken,
}

/// A running call.
struct Shell {
    services: Arc<Services>,
    call: CallUuid,
    wacid: Option<Wacid>,
    /// The business number; none of a web leg.
    number: Option<Arc<NumberEntry>>,
    /// The way to an endpoint's phone; of a web leg only.
    line: Option<Arc<Line>>,
    keys: SigningKeys,
    stepper: Stepper,
    mailbox: Mailbox,
    journal: Journal,
    view: Arc<super::registry::LiveCall>,
    /// Held until the call is over: its slot, and that its user is on the line.
    held: Option<(Slot, Engaged)>,
    /// Where Meta's id of a call that we place is told, and other legs are found.
    registry: Registry,
    media: Media,
    /// The user's phone has rung.
    rung: bool,
    /// Meta's answer to our offer, until it is put to use.
    answer: Option<Box<Offer>>,
    /// An end of a bridge, likewise. Nobody else looks in there: a bridge's end can't be shared, and a shell must.
    bridge: Mutex<Option<Box<BridgeEnd>>>,
    /// As its view has it.
    b_leg: Option<CallUuid>,
    /// It has got a document over REST: from then on it tells its own end, also if another call had dialled it.
    transferred: bool,
    sdp: Arc<str>,
    /// Why its phone is not heard.
    silences: Vec<Silence>,
    /// What is said is written for its phone.
    captions: Option<Captions>,
    fetches: BTreeMap<FetchId, AbortHandle>,
    /// The last request to Graph.
    asked: Option<Asked>,
    prepared: HashMap<Sound, Arc<Prompt>>,
    /// This node writes its documents: what plays now, and since when.
    written: bool,
    playing: Option<(PlayId, Instant)>,
    /// Whoever listens for a recogniser now, and interim results on their way.
    hearing: Option<Hearing>,
    interims: Option<Interims>,
    /// The stream that is open, or being opened.
    streaming: Option<StreamHandle>,
    tapes: tapes::Tapes,
    /// What Graph was last asked to end the call with, while its answer is out.
    farewell: Option<GraphAction>,
    remarks: Vec<String>,
    /// Of a leg that is closed.
    quality: Option<CallQuality>,
    findings: record::Findings,
    over: bool,
}

/// Runs a call to its end. The slot goes back when this future is done or dropped, whatever way that is.
pub(super) async fn run(services: Arc<Services>, begin: Box<Begin>) {
    let Begin { registry, setup, way, peer, turn, received, arrived, admitted, mailbox, mut inbox, journal, view } =
        *begin;
    let running = services.clock.now();
    let events = leg_events(&mailbox, peer.line());
    let theirs = match &way {
        Way::Offered(offer) => Some(offer.shown.to_string()),
        Way::Placed | Way::Rung => None,
    };
    let made = match way {
        Way::Offered(offer) => {
            let answered = services.media.answer(&offer, events);
            answered.map(|(leg, sdp)| (Media::Leg(leg), sdp))
        }
        Way::Placed => {
            let offered = services.media.offer();
            offered.map(|(leg, sdp)| (Media::Offered(Box::new(leg)), sdp))
        }
        Way::Rung => Ok((Media::Awaited, String::new())),
    };
    let (media, sdp) = made.unwrap_or_else(|e| {
        warn!(error = %e, "could not set up media");
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
        media,
        rung: false,
        answer: None,
        bridge: Mutex::default(),
        b_leg: None,
        transferred: false,
        sdp: Arc::from(sdp),
        silences: Vec::new(),
        captions: None,
        fetches: BTreeMap::new(),
        asked: None,
        prepared: HashMap::new(),
        written: false,
        playing: None,
        hearing: None,
        interims: None,
        streaming: None,
        tapes: tapes::Tapes::default(),
        farewell: None,
        remarks: Vec::new(),
        quality: None,
        findings: record::Findings::default(),
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
    let has_media = !matches!(shell.media, Media::None);
    let setup = Box::new(setup);
    let first = match setup.direction {
        Direction::Outbound => Input::Placed { setup },
        Direction::Inbound => Input::Offered { setup },
    };
    shell.step(arrived, first);
    // Behind `pre_accept`, which waits for nothing.
    shell.keep_sdp(theirs);
    if !has_media {
        shell.step(arrived, Input::Cut { cause: HangupCause::InternalError });
    }
    drop(turn);
    while !shell.over {
        // A request that is over leaves its task's memory to whoever holds the handle.
        shell.asked.take_if(|asked| asked.answered.is_finished());
        let fact = shell.next_fact(&mut inbox).await;
        match fact.what {
            What::Fact(input) => shell.step(fact.at, input),
            What::Answer(answer) => {
                let shown = answer.shown.to_string();
                shell.answer = Some(answer);
                shell.step(fact.at, Input::SdpAnswer { usable: true });
                shell.journal.trace(&Trace::Sdp { offer: None, answer: Some(shown) });
            }
            What::Joined(end) => {
                *shell.bridge() = Some(end);
                shell.step(fact.at, Input::Ordered { leg: LegWish::Join });
                // Where it came too late, it is of no use.
                *shell.bridge() = None;
            }
            What::Taken(offer) => shell.taken(fact.at, &offer),
            What::Silence(silence, on) => shell.silence(silence, on),
            What::Captions(language) => shell.caption(language.as_deref()),
            What::Look => shell.look(fact.at),
            What::Missing(missing, waited, checking) => shell.missing(fact.at, missing, waited, checking),
            What::FirstSent => shell.journal.trace(&Trace::FirstSent { at_us: shell.journal.us(fact.at) }),
        }
    }
    shell.journal.close();
}

/// Where a leg's events go: the call's mailbox, as facts.
fn leg_events(mailbox: &Mailbox, line: Option<&Arc<Line>>) -> crate::media::EventSink {
    let (mailbox, line) = (mailbox.clone(), line.cloned());
    Arc::new(move |event| {
        let leg = Leg::A;
        let input = match event {
            LegEvent::FirstSent => {
                mailbox.put(What::FirstSent);
                return;
            }
            LegEvent::Missing { missing, waited, checking } => {
                mailbox.put(What::Missing(missing, waited, checking));
                return;
            }
            LegEvent::Fact(what) => Input::Media { leg, what },
            LegEvent::PlayStarted(play) => Input::PlayStarted { leg, play },
            LegEvent::Played(play) => Input::Played { leg, play },
            LegEvent::PlayFailed { play, item, reason } => Input::PlayFailed { leg, play, item, reason },
            // A phone may have told it over its socket.
            LegEvent::Digit(_) if line.as_ref().is_some_and(|line| !line.takes_key(KeyWay::Stream)) => return,
            LegEvent::Digit(digit) => Input::Digit { leg, digit },
            LegEvent::Voice(what) => Input::Voice { leg, what },
            LegEvent::DigitsSent(play) => Input::DigitsSent { leg, play },
        };
        mailbox.tell(input);
    })
}

impl Shell {
    /// What the call begins with of both sides' session descriptions, for whoever looks at it later.
    fn keep_sdp(&self, theirs: Option<String>) {
        let ours = (!self.sdp.is_empty()).then(|| sdp::shown(&self.sdp));
        let (offer, answer) = match theirs {
            Some(theirs) => (Some(theirs), ours),
            None => (ours, None),
        };
        if offer.is_some() {
            self.journal.trace(&Trace::Sdp { offer, answer });
        }
    }

    fn bridge(&mut self) -> &mut Option<Box<BridgeEnd>> {
        self.bridge.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next fact, the machine's own deadline, or that it is time to look how the sound goes: one timer for both.
    async fn next_fact(&self, inbox: &mut mpsc::Receiver<Box<Fact>>) -> Fact {
        let look = self.next_look().map(|at| (at, What::Look));
        let deadline = self.stepper.deadline().map(|at| (at, What::Fact(Input::Timer)));
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
            biased;
            fact = inbox.recv() => match fact {
                Some(fact) => *fact,
                None => Fact {
                    at: self.services.clock.now(),
                    what: What::Fact(Input::Cut { cause: HangupCause::InternalError }),
                },
            },
            what = timer => Fact { at: self.services.clock.now(), what },
        }
    }

    #[cfg(test)]
    fn fault(&self, input: &Input) {
        let wanted = self.view.setup.caller_name == PANICS && matches!(input, Input::Fetched { .. });
        // With all that a panic's words could have in them.
        let held = (&self.view.setup, &self.number, &self.services.graph, &self.keys);
        assert!(!wanted, "as a test wants it: {held:?}");
    }

    #[cfg(not(test))]
    fn fault(&self, _: &Input) {}

    /// One fact through the machine: what it wished for is written down, then carried out.
    fn step(&mut self, at: Instant, input: Input) {
        self.fault(&input);
        match &input {
            Input::Fetched { fetch, .. } => {
                self.fetches.remove(fetch);
            }
            Input::Bound { wacid } => {
                self.wacid = Some(wacid.clone());
                let due = self.services.clock.steady().plus(farewell::OURS);
                self.services.store.call_bound(self.call, wacid.clone(), due);
            }
            Input::Terminated { .. } if self.farewell.take().is_some() => {
                self.services.store.farewell(self.call, None);
            }
            Input::Command { command: Command::Transfer { aleg: Some(_), .. } | Command::Run { .. } } => {
                self.transferred = true;
            }
            Input::Ordered { leg: LegWish::Ask { command } } => {
                self.transferred |= matches!(**command, Command::Transfer { aleg: Some(_), .. });
            }
            Input::Digit { leg: Leg::A, digit } => self.key_to_stream(*digit),
            Input::Played { leg: Leg::A, play } => drop(self.playing.take_if(|(playing, _)| playing == play)),
            Input::Recorded { record, what: RecordFact::Ended { .. } } => {
                let awaited = self.stepper.machine().awaits(*record);
                self.tapes.ended(*record, awaited);
            }
            Input::Graph { action, outcome } if self.farewell == Some(*action) && outcome.is_settled() => {
                self.farewell = None;
            }
            _ => {}
        }
        let asks_to_record = matches!(&input, Input::Command { command: Command::Record { .. } });
        let step = self.stepper.step(at, input);
        if let Some(asked) = self.asked.as_ref().filter(|asked| step.overtakes(asked.action)) {
            asked.overtaken.cancel();
        }
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
        for output in outputs {
            self.carry_out(at, output, last);
        }
    }

    /// `last`: with this step the call is over.
    fn carry_out(&mut self, at: CallTime, output: Output, last: bool) {
        match output {
            Output::Graph { action } => self.ask_graph(action),
            Output::Fetch { fetch, kind, url, method, params, deadline_ms } => {
                // No interim result goes out once the application knows what was said.
                self.interims = None;
                self.fetch(fetch, kind, url, method, params, Duration::from_millis(deadline_ms));
            }
            Output::CancelFetch { fetch } => {
                if let Some(task) = self.fetches.remove(&fetch) {
                    task.abort();
                }
            }
            Output::Prepare { sounds } => {
                for sound in sounds {
                    self.prompt(&sound);
                }
            }
            Output::Media { leg: _, order } => self.media(order),
            Output::Speech { recognition, order } => self.recognise(recognition, order),
            Output::Dial { order } => self.dial(*order),
            Output::Order { call, leg } => self.order_leg(call, leg),
            Output::News { news } => self.tell_a_leg(news),
            Output::Notify { notice } if notice.kind == NoticeKind::Interim => self.interim(notice),
            Output::Room { room } => self.room(room),
            Output::Stream { stream, wish } => self.stream(at, stream, wish),
            Output::Notify { notice } => self.notify(notice),
            Output::Instruction { element, line, outcome, note } => self.instruction(&element, line, outcome, &note),
            Output::State { state } => self.state(at, state),
            Output::Remark { text } => {
                info!(remark = %text, "call");
                self.remarks.push(text);
            }
            Output::Findings { findings } => self.findings.add(findings),
            Output::Concluded { summary } => self.conclude(at, *summary, last),
            Output::FreeSlot => self.held = None,
            Output::Over => self.end(),
        }
    }

    fn ask_graph(&mut self, action: GraphAction) {
        let Some(number) = self.number.clone() else { return self.ask_phone(action) };
        let about = match (action, self.wacid.clone()) {
            (GraphAction::Connect, _) if self.sdp.is_empty() => {
                self.mailbox.tell(Input::Graph { action, outcome: GraphOutcome::Unreachable });
                return;
            }
            (GraphAction::Connect, _) => About::User(self.view.setup.to.clone()),
            (_, Some(wacid)) => About::Call(wacid),
            (_, None) => return,
        };
        if self.sdp.is_empty() && matches!(action, GraphAction::PreAccept | GraphAction::Accept) {
            return;
        }
        let request = ActionRequest {
            phone_number_id: number.spec.phone_number_id.clone(),
            token: number.spec.access_token.clone(),
            about,
            action,
            sdp: Some(self.sdp.clone()),
            opaque: Some(crate::meta::callback_data(self.call, &self.services.node_id)),
            deadline: self.stepper.answer_window(action),
            overtaken: CancellationToken::new(),
        };
        let ends = matches!(action, GraphAction::Reject | GraphAction::Terminate);
        if ends {
            self.farewell = Some(action);
        }
        let overtaken = request.overtaken.clone();
        let (store, call) = (self.services.store.clone(), self.call);
        let (graph, mailbox, journal) = (self.services.graph.clone(), self.mailbox.clone(), self.journal.clone());
        let (clock, arrived, before) = (self.services.clock.clone(), self.stepper.arrived(), self.asked.take());
        let permissions = self.services.permissions.clone();
        let user = self.view.setup.to.clone();
        let placed = (action == GraphAction::Connect).then(|| (self.registry.clone(), self.view.clone()));
        let from = clock.now();
        let gone = overtaken.clone();
        let ask = async move {
            if let Some(before) = before {
                // Overtaken while it waits, this one takes the one before it along.
                let _ = gone.run_until_cancelled(tokio::time::timeout(IN_ORDER, before.answered)).await;
                before.overtaken.cancel();
            }
            if action == GraphAction::Accept {
                let took = clock.now().saturating_duration_since(arrived);
                metrics::histogram!(names::SETUP_SECONDS).record(took.as_secs_f64());
            }
            let mut tries = Vec::new();
            let answered = graph.call_action_watched(request, |t| tries.push(journal.graph_try(&t))).await;
            let outcome = answered.outcome;
            let (from_us, to_us) = (journal.us(from), journal.us(clock.now()));
            journal.trace(&Trace::Graph { action, from_us, to_us, tries });
            match &outcome {
                GraphOutcome::Done | GraphOutcome::Gone => debug!(action = action.as_str(), ?outcome, "Graph"),
                failed => warn!(action = action.as_str(), outcome = ?failed, "Graph refused or failed"),
            }
            // The record is closed by now, and says what Graph has to be told; so that no other process does it again.
            if ends && outcome.is_settled() {
                store.farewell(call, None);
            }
            if let (GraphAction::Connect, GraphOutcome::Refused { code, details, .. }) = (action, &outcome)
                && let Some(event) = refusal_of(*code, details)
            {
                permissions.note(&number, &user, event);
            }
            if let (Some((registry, view)), Some(wacid)) = (placed, answered.made) {
                registry.bind(&view, wacid);
            }
            mailbox.tell(Input::Graph { action, outcome });
        };
        self.asked = Some(Asked { action, answered: self.services.tasks.spawn(ask.in_current_span()), overtaken });
    }

    fn fetch(
        &mut self,
        fetch: FetchId,
        kind: FetchKind,
        url: DocUrl,
        method: Method,
        params: Params,
        deadline: Duration,
    ) {
        if let Some(path) = author::path_of(&url.0) {
            return self.have_written(fetch, path, params, deadline);
        }
        let hops = Hops::new();
        let max_body = self.services.settings.load().max_body;
        let job = FetchJob {
            call: self.call,
            kind,
            url,
            method,
            params,
            keys: self.keys.clone(),
            event_id: self.services.uuid(),
            deadline,
            max_body,
            hops: hops.clone(),
        };
        let clock = self.services.clock.clone();
        let mut traced = TracedFetch {
            journal: self.journal.clone(),
            fetch,
            kind,
            from: clock.now(),
            hops,
            parse: None,
            clock: clock.clone(),
        };
        let (fetcher, mailbox) = (self.services.fetcher.clone(), self.mailbox.clone());
        let work = async move {
            let read = |body: DocumentBody| {
                let begun = clock.now();
                let parsed = crate::xml::parse_with_limit(&body.bytes, body.charset.as_deref(), max_body);
                traced.parse = Some(clock.now().saturating_duration_since(begun));
                let validity = if parsed.ok() { Validity::Valid } else { Validity::Invalid };
                (Fetched::from(parsed), validity)
            };
            let result = fetcher.document(&job, read).await;
            if let Err(failure) = &result {
                warn!(kind = kind.as_str(), outcome = failure.outcome(), ?failure, "could not fetch a document");
            }
            drop(traced);
            mailbox.tell(Input::Fetched { fetch, result });
        };
        let task = self.services.tasks.spawn(work.in_current_span());
        self.fetches.insert(fetch, task.abort_handle());
    }

    /// A document that this node writes itself.
    fn have_written(&mut self, fetch: FetchId, path: &str, params: Params, within: Duration) {
        self.written = true;
        let setup = &self.view.setup;
        let (account, main_account) = (setup.account.clone(), setup.parent_account.clone());
        let wish = Wish { call: self.call, account, main_account, path: path.to_owned(), params, within };
        let written = self.services.author.document(wish);
        let (mailbox, max_body) = (self.mailbox.clone(), self.services.settings.load().max_body);
        let work = async move {
            let late = |_| Err(FetchFailure::Timeout);
            let written = tokio::time::timeout(within, written).await.unwrap_or_else(late);
            let result = written.map(|xml| crate::xml::parse_with_limit(xml.as_bytes(), None, max_body).into());
            mailbox.tell(Input::Fetched { fetch, result });
        };
        let task = self.services.tasks.spawn(work.in_current_span());
        self.fetches.insert(fetch, task.abort_handle());
    }

    /// The prompt of a sound, being made from now on if it isn't ready.
    fn prompt(&mut self, sound: &Sound) -> Arc<Prompt> {
        if let Sound::File { url } = sound
            && let Some(prompt) = author::path_of(&url.0).and_then(|path| self.services.author.sound(self.call, path))
        {
            return prompt;
        }
        if let Some(prompt) = self.prepared.get(sound).filter(|prompt| prompt.failure().is_none()) {
            return prompt.clone();
        }
        let prompt = self.services.sounds.prompt(sound);
        if self.prepared.len() >= PREPARED_MAX {
            self.prepared.clear();
        }
        self.prepared.insert(sound.clone(), prompt.clone());
        prompt
    }

    fn media(&mut self, order: MediaOrder) {
        // Prompts are looked up before the leg is borrowed.
        let items = match &order {
            MediaOrder::Play { items, .. } | MediaOrder::Aside { aside: Aside { items, .. }, .. } => {
                items.iter().map(|i| PlayItem { prompt: self.prompt(&i.sound), repeat: i.repeat }).collect()
            }
            _ => Vec::new(),
        };
        if order == MediaOrder::Begin {
            self.take_answer();
        }
        self.note_playing(&order);
        if matches!(order, MediaOrder::Join | MediaOrder::Part) {
            let end = self.bridge().take();
            return self.bridge_media(&order, end);
        }
        if let MediaOrder::Record { .. }
        | MediaOrder::RecordGo { .. }
        | MediaOrder::RecordPause { .. }
        | MediaOrder::RecordStop { .. } = &order
        {
            return self.record(order);
        }
        if order == MediaOrder::Close {
            self.tapes.clear();
        }
        let Media::Leg(leg) = &self.media else {
            if order == MediaOrder::Close {
                self.media = Media::None;
            }
            return;
        };
        match order {
            MediaOrder::Begin => leg.begin(),
            MediaOrder::Open => {
                leg.open();
                self.begin_to_look();
            }
            MediaOrder::Play { play, .. } => leg.play(play, items),
            MediaOrder::Aside { play, aside } => leg.play_aside(play, aside, items),
            MediaOrder::Stop { play } => leg.stop(play),
            MediaOrder::SendDigits { play, digits } => leg.send_digits(play, &digits),
            MediaOrder::Listen { on } => leg.listen(on),
            MediaOrder::Beep { how } => leg.await_beep(how),
            MediaOrder::Join | MediaOrder::Part => {}
            MediaOrder::Record { .. }
            | MediaOrder::RecordGo { .. }
            | MediaOrder::RecordPause { .. }
            | MediaOrder::RecordStop { .. } => {}
            MediaOrder::Close => {
                let measured = leg.stats().quality;
                leg.close();
                self.media = Media::None;
                self.was_heard(&measured);
            }
        }
    }

    /// Whoever writes this call's documents is told how much of what it says is heard.
    fn note_playing(&mut self, order: &MediaOrder) {
        if !self.written {
            return;
        }
        let now = self.services.clock.now();
        let cut = match order {
            MediaOrder::Play { play, .. } => {
                self.playing = Some((*play, now));
                None
            }
            MediaOrder::Stop { play } => self.playing.take_if(|(playing, _)| playing == play),
            MediaOrder::Close => self.playing.take(),
            _ => None,
        };
        if let Some((_, since)) = cut {
            self.services.author.cut(self.call, now.saturating_duration_since(since));
        }
    }

    /// Puts Meta's answer to our offer to use.
    fn take_answer(&mut self) {
        let Some(answer) = self.answer.take() else { return };
        let Media::Offered(leg) = std::mem::replace(&mut self.media, Media::None) else { return };
        match self.services.media.answered(*leg, &answer, leg_events(&self.mailbox, None)) {
            Ok(leg) => self.media = Media::Leg(leg),
            Err(error) => {
                warn!(%error, "could not set up media");
                self.mailbox
                    .tell(Input::Media { leg: Leg::A, what: MediaFact::Lost { fault: MediaFault::DtlsFailed } });
            }
        }
    }

    fn callback(&self, notice: super::machine::Notice) -> NewCallback {
        self.services.callback(&self.view.setup, notice)
    }

    /// A callback goes out once it is in the outbox.
    fn notify(&mut self, notice: super::machine::Notice) {
        if notice.kind == NoticeKind::Action {
            self.interims = None;
        }
        let written = self.services.store.notify(self.callback(notice));
        let (outbox, keys) = (self.services.outbox.clone(), self.keys.clone());
        let work = async move {
            match written.await {
                Ok(written) => outbox.send(written, keys),
                Err(error @ StoreError::Journalled) => debug!(%error, "could not hand a callback on"),
                Err(error) => tracing::error!(%error, "could not write a callback"),
            }
        };
        self.services.tasks.spawn(work.in_current_span());
    }

    fn instruction(&self, element: &str, line: u32, outcome: InstructionOutcome, note: &str) {
        let word = match outcome {
            InstructionOutcome::Started => {
                debug!(element, line, "instruction");
                return;
            }
            InstructionOutcome::Done => names::instruction::DONE,
            InstructionOutcome::Skipped => names::instruction::SKIPPED,
            InstructionOutcome::Failed => names::instruction::FAILED,
            InstructionOutcome::Cut => names::instruction::CUT,
        };
        debug!(element, line, outcome = word, note, "instruction");
        metrics::counter!(names::INSTRUCTIONS_TOTAL, "element" => element.to_owned(), "outcome" => word).increment(1);
    }

    fn state(&mut self, at: CallTime, state: CallState) {
        info!(?state, "call");
        self.view.set_state(state);
        self.rung |= state == CallState::Ringing;
        if state == CallState::Live {
            self.view.set_answered(at);
            self.view.tell_news(&self.services.feed);
            let answered = self.view.setup.started.plus(Duration::from_millis(at.0));
            self.services.store.call_answered(self.call, answered);
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

    /// The call is terminal: its record is written and its hangup callback goes out. Neither is waited for.
    fn conclude(&mut self, at: CallTime, summary: Summary, last: bool) {
        let cause = summary.cause;
        info!(cause = cause.as_str(), duration_s = summary.duration_secs, at_ms = at.0, "call ended");
        let missed = summary.answered.is_none() && (self.rung || cause == HangupCause::Rejected);
        if let Some(number) =
            self.number.as_ref().filter(|_| missed && self.view.setup.direction == Direction::Outbound)
        {
            self.services.permissions.note(number, &self.view.setup.to, Event::Unanswered);
        }
        self.note_missed(&summary);
        if let Some(line) = &self.line {
            line.end(cause, phone::ended(&summary));
        }
        let direction = self.view.setup.direction.as_str();
        metrics::counter!(names::CALLS_TOTAL, "direction" => direction, "outcome" => record::outcome(&summary))
            .increment(1);
        let (remarks, findings) = (std::mem::take(&mut self.remarks), std::mem::take(&mut self.findings).kept());
        let ours = if last { farewell::OURS_AT_ONCE } else { farewell::OURS };
        let due = self.services.clock.steady().plus(ours);
        let conclusion = Conclusion {
            start: CallStart::of(&self.view.setup, &self.services.node_id),
            end: CallEnd {
                quality: self.heard_as(),
                ..CallEnd::of(&summary, self.view.setup.started, remarks, findings)
            },
            callbacks: match self.transferred {
                true => {
                    let mut reports = vec![self.callback(summary.hangup.clone())];
                    reports.extend(self.services.news_of_end(&self.view.setup, &summary));
                    reports
                }
                false => self.services.reports(&self.view.setup, &summary),
            },
            farewell: self.farewell.map(|action| Farewell { action, due }),
        };
        let concluded = self.services.store.conclude(conclusion);
        let (outbox, keys) = (self.services.outbox.clone(), self.keys.clone());
        let work = async move {
            match concluded.await {
                Ok(concluded) => concluded.callbacks.into_iter().for_each(|written| outbox.send(written, keys.clone())),
                Err(error) => tracing::error!(%error, "could not write the call's record"),
            }
        };
        self.services.tasks.spawn(work.in_current_span());
    }

    /// A user called, and nobody took it: people should know.
    fn note_missed(&self, summary: &Summary) {
        let setup = &self.view.setup;
        if self.number.is_none() || setup.direction == Direction::Outbound || summary.answered.is_some() {
            return;
        }
        let who = if setup.caller_name.is_empty() { format!("+{}", setup.from) } else { setup.caller_name.clone() };
        let text = format!("Missed call from {who} to +{}", setup.to);
        let (account, main) = (setup.account.clone(), setup.parent_account.clone());
        self.services.notices.note(Notice {
            number: Some(setup.to.clone()),
            user: Some(setup.from.clone()),
            call: Some(self.call),
            ..Notice::new(account, main, NoticeTopic::MissedCall, text)
        });
    }

    fn end(&mut self) {
        self.over = true;
        self.services.author.over(self.call);
        for task in self.fetches.values() {
            task.abort();
        }
        self.hearing = None;
        self.captions = None;
        self.interims = None;
        self.media = Media::None;
        self.streaming = None;
    }
}

/// A fetch's line of the trace: written when this is dropped, so that one that is broken off leaves its line too.
struct TracedFetch {
    journal: Journal,
    clock: crate::clock::Clock,
    fetch: FetchId,
    kind: FetchKind,
    from: Instant,
    hops: Hops,
    parse: Option<Duration>,
}

impl Drop for TracedFetch {
    fn drop(&mut self) {
        let (journal, now) = (&self.journal, self.clock.now());
        journal.trace(&Trace::Fetch {
            fetch: self.fetch,
            kind: self.kind,
            from_us: journal.us(self.from),
            to_us: journal.us(now),
            tries: self.hops.so_far().iter().map(|hop| Request::of(hop, journal.zero(), now)).collect(),
            parse_us: self.parse.and_then(|took| i64::try_from(took.as_micros()).ok()),
        });
    }
}

/// The end of a call whose task panicked: its record is closed, its hangup callback goes out and Graph is told, so that
/// the user isn't left hanging and nothing counts as live.
pub(super) async fn end_after_fault(services: &Services, view: &super::registry::LiveCall) {
    view.log.close();
    let setup = view.setup.clone();
    let lived = services.clock.now().saturating_duration_since(view.arrived);
    let summary = abandoned(setup, view.answered(), CallTime(0).after(lived), HangupCause::InternalError);
    let direction = summary.direction.as_str();
    metrics::counter!(names::CALLS_TOTAL, "direction" => direction, "outcome" => record::outcome(&summary))
        .increment(1);
    let remark = "a fault of ours ended the call; the node's log says which: please report it".to_owned();
    if let Some(line) = &view.line {
        line.end(summary.cause, phone::ended(&summary));
    }
    let farewell = Farewell { action: GraphAction::Terminate, due: services.clock.steady() };
    let conclusion = Conclusion {
        start: CallStart::of(&view.setup, &services.node_id),
        end: CallEnd::of(&summary, view.setup.started, vec![remark], Vec::new()),
        callbacks: services.reports(&view.setup, &summary),
        // `call::farewell` sees to it, and keeps at it where Graph does not hear.
        farewell: view.wacid().is_some().then_some(farewell),
    };
    // What was said in it has been reported above.
    services.author.over(view.setup.call);
    match services.store.conclude(conclusion).await {
        Ok(concluded) => {
            concluded.callbacks.into_iter().for_each(|written| services.outbox.send(written, view.keys.clone()));
        }
        Err(error) => tracing::error!(%error, "could not write the call's record"),
    }
}
