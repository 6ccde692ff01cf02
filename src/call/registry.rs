//! The live calls: who starts them, finds them and speaks to them.
//!
//! The doors start calls here and tell of their end, ask and command (`node` brings them together). Nobody reaches
//! into a call: what they get is a [`LiveCall`], a view with a mailbox.

mod legs;
mod live_call;

use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tracing::{Instrument, error, info, info_span};

pub use self::live_call::LiveCall;
use super::author;
use super::binding::{AtMeta, Bindings, CallEvent, Parties};
pub use super::binding::{CallKey, EventTold};
use super::course::Sampler;
use super::farewell;
use super::live::LiveLog;
use super::services::Services;
use super::shell::{self, Begin, Peer, Way};
use super::streams::StreamViews;
use super::trace::{Journal, Traced};
use super::turns::Turns;
use crate::admission::permission::{Engaged, PairKey};
use crate::admission::{Admitted, Gate, NumberEntry, Reason, SetUpTicket, Strain};
use crate::meta::ActionRequest;
use crate::observe;
use machine::{CallSetup, CallState, CallUrls, GraphAction, Input, Termination};
use media::sdp::Offer;
use model::Secret;
use model::metric;
use model::{CallType, CallUuid, Direction, HangupCause, PhoneNumberId, Timestamp, TraceId, Wacid};
use store::{CallStart, PlacedCall};

/// Calls of a node, whatever the numbers' limits allow: past it they are refused as `overloaded` (R10).
const LIVE_MAX: usize = 20_000;
/// Rejects on their way to Graph; past it the webhook is answered 503, and Meta comes again: more work than to let one
/// wait. Not more than wait for Graph in one number's queue (`meta::GraphConfig`), so that one that was taken on is sent.
const REJECTS_MAX: usize = 4_000;

/// What a call holds while it is up: its slot, and that its user is on the line.
pub type LetIn = (Admitted, Engaged);

/// A user-initiated call with all that it begins with.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub key: CallKey,
    /// The user as callbacks name them (`meta-calling.md` §1.2).
    pub from: String,
    pub caller_name: String,
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
    pub offer: Offer,
    /// When its webhook's request came.
    pub received: Instant,
    /// When that had been read: the zero of the call's time.
    pub arrived: Instant,
    pub arrived_wall: Timestamp,
}

/// A business-initiated call with all that it begins with.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// As it is to be from the moment at which the call may start.
    pub setup: CallSetup,
    /// When its request came, and when it could start: the zero of the call's time.
    pub received: Instant,
    pub placed: Instant,
}

/// Whether a call could be told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Yes,
    /// Its mailbox is full.
    Full,
    /// No such call, or one that is over.
    Unknown,
}

/// No room for a further reject just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectsFull;

/// The live calls of a node; cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    /// Lets in the legs that calls dial.
    gate: Arc<Gate>,
    live: DashMap<CallUuid, Arc<LiveCall>>,
    bindings: Bindings,
    rejects: Arc<Semaphore>,
    turns: Turns,
    /// Woken each time a call is over.
    one_over: Notify,
    /// Of inbound calls, and of outbound ones.
    gauges: [OnceLock<metrics::Gauge>; 2],
}

impl Registry {
    /// An empty registry.
    pub fn new(services: Arc<Services>, gate: Arc<Gate>) -> Self {
        Self(Arc::new(Inner {
            services,
            gate,
            live: DashMap::new(),
            bindings: Bindings::default(),
            rejects: Arc::new(Semaphore::new(REJECTS_MAX)),
            turns: Turns::for_this_machine(),
            one_over: Notify::new(),
            gauges: Default::default(),
        }))
    }

    /// A live call.
    pub fn get(&self, call: CallUuid) -> Option<Arc<LiveCall>> {
        self.0.live.get(&call).map(|entry| entry.value().clone())
    }

    /// Live calls, in no order.
    pub fn list(&self) -> Vec<Arc<LiveCall>> {
        self.0.live.iter().map(|entry| entry.value().clone()).collect()
    }

    /// Shows each live call, in no order. `look` must not come back to the registry.
    pub fn each(&self, mut look: impl FnMut(&LiveCall)) {
        self.0.live.iter().for_each(|entry| look(entry.value()));
    }

    /// Gives what calls have in their logs to whoever exports traces, where their end will not be waited for.
    pub fn export_live(&self) {
        let Some(sink) = &self.0.services.traces else { return };
        self.list()
            .iter()
            .filter_map(|call| call.log.export())
            .for_each(|lines| sink(Traced::Call(lines)));
    }

    /// What calls are run with.
    pub(super) fn services(&self) -> &Arc<Services> {
        &self.0.services
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.live.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.live.is_empty()
    }

    /// Ends every call with this cause.
    pub fn cut_all(&self, cause: HangupCause) {
        for call in self.list() {
            call.mailbox.tell(Input::HangUp { cause });
        }
    }

    /// Waits until no call is live, at most so long; gives how many are left.
    pub async fn until_empty(&self, at_most: Duration) -> usize {
        let wait = async {
            loop {
                let woken = self.0.one_over.notified();
                if self.is_empty() {
                    return;
                }
                woken.await;
            }
        };
        let _ = tokio::time::timeout(at_most, wait).await;
        self.len()
    }

    /// What people call a number; may be empty.
    pub(super) fn alias(&self, number: &PhoneNumberId) -> String {
        self.0
            .gate
            .directory()
            .number(number)
            .map(|number| number.spec.alias.clone())
            .unwrap_or_default()
    }

    fn setup(&self, number: &NumberEntry, incoming: &Incoming) -> Option<CallSetup> {
        let spec = &number.spec;
        // Without an application, the number's agent takes the call.
        let (answer, answer_method) = author::answer_of(self.0.gate.directory(), spec)?;
        let hangup = spec.hangup.clone().unwrap_or_else(|| (answer.clone(), answer_method));
        Some(CallSetup {
            call: CallUuid(self.0.services.uuid()),
            direction: Direction::Inbound,
            call_type: CallType::Whatsapp,
            wacid: Some(incoming.key.1.clone()),
            phone_number_id: incoming.key.0.clone(),
            from: incoming.from.clone(),
            to: spec.number.to_string(),
            caller_name: incoming.caller_name.clone(),
            cta_payload: incoming.cta_payload.clone(),
            deeplink_payload: incoming.deeplink_payload.clone(),
            account: number.account.auth_id.clone(),
            parent_account: number.account.main().auth_id.clone(),
            urls: CallUrls { answer, answer_method, fallback: spec.fallback.clone(), hangup },
            started: incoming.arrived_wall,
            limits: self.0.services.settings.load().limits.clone(),
            headers: Vec::new(),
            outbound: None,
        })
    }

    fn gauge(&self, direction: Direction) -> &metrics::Gauge {
        let [inbound, outbound] = &self.0.gauges;
        let gauge = match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        };
        gauge.get_or_init(
            || metrics::gauge!(metric::CALLS_ACTIVE, "direction" => direction.as_str()),
        )
    }
}

/// Takes a call out of the tables, whatever way its task ends.
struct Leaving {
    registry: Registry,
    view: Arc<LiveCall>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let inner = &self.registry.0;
        let setup = &self.view.setup;
        inner.live.remove(&setup.call);
        self.view.tell_news(&inner.services.feed);
        // A web leg has no name at Meta.
        if self.view.line.is_none() {
            inner.bindings.leave(&*self.view, inner.services.clock.now());
        }
        self.registry.gauge(setup.direction).decrement(1);
        inner.one_over.notify_waiters();
        self.registry.leave_legs(&self.view);
        // A machine that came to its end has left already.
        inner.services.rooms.leave(setup.call, &[], drop);
    }
}

impl Registry {
    /// Starts a call; what follows happens behind it.
    ///
    /// # Errors
    /// A store that takes no more, or no answer URL: the admission comes back, to be withdrawn.
    pub fn start(
        &self,
        starting: SetUpTicket,
        admitted: Admitted,
        incoming: Incoming,
    ) -> Result<(), Box<Admitted>> {
        let Some(setup) = self.setup(admitted.number(), &incoming) else {
            error!(number = %admitted.number().spec.number, "calling is enabled without an answer URL; set one");
            return Err(Box::new(admitted));
        };
        let Incoming { offer, received, arrived, .. } = incoming;
        if !self.born(&setup) {
            return Err(Box::new(admitted));
        }
        let engaged = self
            .0
            .services
            .permissions
            .consents()
            .engage(PairKey::new(&setup.phone_number_id, &setup.from));
        let way = Way::Offered(Box::new(offer));
        self.begin(Peer::user((admitted, engaged)), starting, setup, way, [received, arrived]);
        Ok(())
    }

    /// Starts a call that we place; what follows happens behind it.
    ///
    /// # Errors
    /// No room, or a store that takes no more: the admission comes back, to be withdrawn.
    pub fn place(
        &self,
        (admitted, engaged): LetIn,
        outgoing: Outgoing,
    ) -> Result<(), Box<Admitted>> {
        let Some(starting) = self.room(&outgoing.setup.phone_number_id) else {
            return Err(Box::new(admitted));
        };
        let Outgoing { setup, received, placed } = outgoing;
        if !self.born(&setup) {
            return Err(Box::new(admitted));
        }
        let peer = Peer::user((admitted, engaged));
        self.begin(peer, starting, setup, Way::Placed, [received, placed]);
        Ok(())
    }

    /// Before anybody hears of the call: from here on it has a record, whatever becomes of this process (R3). `false`: the
    /// store takes no more.
    pub(super) fn born(&self, setup: &CallSetup) -> bool {
        let services = &self.0.services;
        let start = CallStart::of(setup, &services.node_id);
        let born = services.store.calls().begin(start, setup, services.clock.steady());
        if !born {
            Strain::Store.count();
        }
        born
    }

    /// A call that is [`Registry::born`] begins. `times`: when its request came, and the zero of its time.
    pub(super) fn begin(
        &self,
        peer: Peer,
        starting: SetUpTicket,
        setup: CallSetup,
        way: Way,
        [received, arrived]: [Instant; 2],
    ) {
        let services = self.0.services.clone();
        let call = setup.call;
        let (mailbox, inbox) = shell::mailbox(call, &self.0.services.clock);
        let log = LiveLog::new();
        let view = Arc::new(LiveCall {
            setup: setup.clone(),
            log: log.clone(),
            arrived,
            keys: self.0.services.keys(peer.account()),
            token: peer.number().and_then(|number| number.spec.access_token.clone()),
            mailbox: mailbox.clone(),
            state: AtomicU8::new(CallState::Dialing as u8),
            answered: OnceLock::new(),
            at_meta: AtMeta::new(setup.wacid.clone()),
            legs: Mutex::default(),
            b_leg: Mutex::default(),
            streams: StreamViews::default(),
            sampler: Sampler::default(),
            recorded: AtomicBool::new(false),
            record_asked: AtomicBool::new(false),
            line: peer.line().cloned(),
        });
        if view.line.is_none() {
            self.0.bindings.enter(&*view, arrived);
        }
        self.0.live.insert(call, view.clone());
        if let Some(news) = self.0.services.news.get() {
            news.started(&view.setup);
        }
        view.tell_news(&self.0.services.feed);
        services.rooms.expect(&setup, &mailbox);
        self.gauge(setup.direction).increment(1);
        let leaving = Leaving { registry: self.clone(), view: view.clone() };
        // `trace_id` is what requests to the customer's server carry in `traceparent`.
        let number =
            peer.number().map(|number| tracing::field::display(number.spec.number.clone()));
        let span = info_span!("call", call_uuid = %call, trace_id = %TraceId::from(call), number);
        let journal =
            Journal::new(call, arrived, log, services.store.event_log(), services.traces.clone());
        let admitted = services.clock.now();
        let (turns, registry) = (self.0.turns.clone(), self.clone());
        let task = async move {
            let turn = turns.wait(starting).await;
            let begin = Begin {
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
            };
            // A future has room for all that it is ever given, as long as it lives.
            let begin = Box::new(begin);
            // A fault inside one call ends that call only; the slot went back with the call's future (R3).
            let ran =
                std::panic::AssertUnwindSafe(shell::run(services, begin)).catch_unwind().await;
            if ran.is_err() {
                error!("a fault of ours ended the call");
                leaving.registry.mourn(&leaving.view).await;
            }
            drop(leaving);
        };
        self.0.services.tasks.spawn(task.instrument(span));
    }

    /// Meta's id of a call that we placed is known from Graph's answer.
    pub(super) fn bind(&self, call: &LiveCall, wacid: Wacid) {
        self.0.bindings.bind(self, call, wacid, self.0.services.clock.now());
    }

    /// Meta says something about a call that we placed. `named`: the call that its opaque data name.
    pub fn event(&self, key: &CallKey, named: Option<CallUuid>, event: CallEvent) -> EventTold {
        self.0.bindings.event(self, key, named, event, self.0.services.clock.now())
    }

    /// An earlier process placed this call: what turns up of it at Meta is ended.
    pub fn remember(&self, placed: PlacedCall, token: Option<Secret>) {
        self.0.bindings.remember(placed, token, self.0.services.clock.now());
    }

    /// A place for a further call; none where there is too much of something, which is counted.
    pub fn room(&self, number: &PhoneNumberId) -> Option<SetUpTicket> {
        if self.0.services.graph.is_behind(number) {
            Strain::Graph.count();
            return None;
        }
        self.room_here()
    }

    /// The same, whatever Graph does: for a call that Meta has no part in.
    pub(super) fn room_here(&self) -> Option<SetUpTicket> {
        let services = &self.0.services;
        let room = match services.media.is_behind() {
            _ if self.len() >= LIVE_MAX => Err(Strain::Calls),
            true => Err(Strain::Media),
            false => services.pressure.begin(services.clock.now()),
        };
        room.inspect_err(|strain| strain.count()).ok()
    }

    /// Meta says that a call is over.
    pub fn terminated(
        &self,
        key: &CallKey,
        named: Option<CallUuid>,
        termination: Termination,
    ) -> Told {
        match self.event(key, named, CallEvent::Terminated(termination)) {
            EventTold::Yes => Told::Yes,
            EventTold::Full => Told::Full,
            EventTold::Parked | EventTold::Late => Told::Unknown,
        }
    }

    /// Sends Graph `reject` for a call that was not admitted.
    ///
    /// # Errors
    /// Too many are under way.
    pub fn reject(
        &self,
        number: &Arc<NumberEntry>,
        wacid: Wacid,
        reason: Reason,
    ) -> Result<(), RejectsFull> {
        let full = || {
            observe::count_refused(metric::queue::REJECTS);
            RejectsFull
        };
        let room = self.0.rejects.clone().try_acquire_owned().map_err(|_| full())?;
        if self.0.services.graph.is_behind_with_rejects(&number.spec.phone_number_id) {
            return Err(full());
        }
        info!(number = %number.spec.number, reason = reason.as_str(), "a call is refused");
        let (id, token) = (number.spec.phone_number_id.clone(), number.spec.access_token.clone());
        let request = ActionRequest::ending(id, token, wacid, GraphAction::Reject);
        let graph = self.0.services.graph.clone();
        self.0.services.rejects.spawn(&self.0.services.tasks, async move {
            graph.call_action_to_the_end(request).await;
            drop(room);
        });
        Ok(())
    }
}

impl Parties for Registry {
    type Party = LiveCall;

    fn get(&self, call: CallUuid) -> Option<Arc<LiveCall>> {
        Self::get(self, call)
    }

    fn end_at_meta(
        &self,
        (phone_number_id, wacid): CallKey,
        token: Option<Secret>,
        late: Option<CallUuid>,
    ) {
        let services = &self.0.services;
        let (graph, store) = (services.graph.clone(), services.store.clone());
        if let Some(call) = late {
            // Should this process not come to it.
            store.calls().set_wacid(
                call,
                wacid.clone(),
                services.clock.steady().plus(farewell::OURS),
            );
        }
        let request = ActionRequest::ending(phone_number_id, token, wacid, GraphAction::Terminate);
        services.tasks.spawn(async move {
            let outcome = graph.call_action_to_the_end(request).await;
            if let Some(call) = late.filter(|_| outcome.is_settled()) {
                store.calls().settle_farewell(call, None);
            }
        });
    }
}

impl Registry {
    /// After a panic in a call's task: the user must not be left hanging, and the record must have an end.
    async fn mourn(&self, view: &LiveCall) {
        self.lost_leg(view);
        shell::end_after_fault(&self.0.services, view).await;
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
