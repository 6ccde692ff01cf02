//! The live calls of a node: starts calls, finds them and sends them inputs.
//!
//! The listeners and APIs start calls here, report their end, query and command them. They get a
//! [`LiveCall`], a handle with a mailbox, and never the call's own state.

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
use super::binding::{Bindings, CallEvent, MetaState, Parties};
pub use super::binding::{CallKey, EventOutcome};
use super::course::Sampler;
use super::farewell;
use super::live::LiveLog;
use super::services::Services;
use super::shell::{self, Peer, StartMode, StartParams};
use super::streams::StreamViews;
use super::trace::{EventLogWriter, ExportedTrace};
use super::turns::Turns;
use crate::admission::permission::{Engaged, PairKey};
use crate::admission::{Admitted, Gate, NumberEntry, Reason, SetUpTicket, Strain};
use crate::meta::ActionRequest;
use machine::{CallSetup, CallState, CallUrls, GraphAction, Input};
use media::sdp::Offer;
use model::Secret;
use model::metric;
use model::{CallType, CallUuid, Direction, HangupCause, PhoneNumberId, Timestamp, TraceId, Wacid};
use store::{Birth, CallStart, PlacedCall};

/// Maximum number of live calls of a node, whatever the limits of its numbers. Further calls are
/// rejected as `overloaded` (`docs/reference/reliability.md#r10`).
const LIVE_MAX: usize = 20_000;
/// Maximum number of pending rejects. Above that the webhook is answered with 503 and Meta retries
/// it, which is more work than to let a reject wait. Not larger than the Graph queue of one number
/// (`meta::GraphConfig`), so that an accepted reject is always sent.
const REJECTS_MAX: usize = 4_000;

/// The admission of a live call: its slot, and the mark that its user is busy.
pub type CallAdmission = (Admitted, Engaged);

/// A user-initiated call that has not started yet.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub key: CallKey,
    /// The call's id, if it was chosen before the start.
    pub call: Option<CallUuid>,
    /// The user's id as in callbacks (`docs/reference/meta.md#identifiers`).
    pub from: String,
    pub caller_name: String,
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
    pub offer: Offer,
    /// When the webhook request arrived, before its body was read and its signature checked.
    pub received: Instant,
    /// When the webhook had been parsed. The call's time and `offhook_setup_seconds` count from
    /// here.
    pub arrived: Instant,
    pub arrived_wall: Timestamp,
}

/// A business-initiated call that has not started yet.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The setup as of the moment when the call may start.
    pub setup: CallSetup,
    /// When the request for the call arrived.
    pub received: Instant,
    /// When the call could start. The call's time counts from here.
    pub placed: Instant,
}

/// Whether an input was delivered to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOutcome {
    Delivered,
    /// The call's mailbox is full.
    Full,
    /// The call does not exist or has ended.
    Unknown,
}

/// The limit on pending rejects is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectsFull;

/// The live calls of a node. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    /// Admits B-legs.
    gate: Arc<Gate>,
    live: DashMap<CallUuid, Arc<LiveCall>>,
    bindings: Bindings,
    rejects: Arc<Semaphore>,
    turns: Turns,
    /// Notified each time a call begins.
    one_begun: Notify,
    /// Notified each time a call ends.
    one_over: Notify,
    /// The gauges of inbound and outbound calls.
    gauges: [OnceLock<metrics::Gauge>; 2],
}

impl Registry {
    /// Creates an empty registry.
    pub fn new(services: Arc<Services>, gate: Arc<Gate>) -> Self {
        Self(Arc::new(Inner {
            services,
            gate,
            live: DashMap::new(),
            bindings: Bindings::default(),
            rejects: Arc::new(Semaphore::new(REJECTS_MAX)),
            turns: Turns::for_this_machine(),
            one_begun: Notify::new(),
            one_over: Notify::new(),
            gauges: Default::default(),
        }))
    }

    /// Looks up a live call.
    pub fn get(&self, call: CallUuid) -> Option<Arc<LiveCall>> {
        self.0.live.get(&call).map(|entry| entry.value().clone())
    }

    /// Returns the live calls in no particular order.
    pub fn list(&self) -> Vec<Arc<LiveCall>> {
        self.0.live.iter().map(|entry| entry.value().clone()).collect()
    }

    /// Passes each live call to `look`, in no particular order. `look` must not call the registry.
    pub fn each(&self, mut look: impl FnMut(&LiveCall)) {
        self.0.live.iter().for_each(|entry| look(entry.value()));
    }

    /// Exports the traces of calls that are still live, at shutdown.
    pub fn export_live(&self) {
        let Some(sink) = &self.0.services.traces else { return };
        self.list()
            .iter()
            .filter_map(|call| call.log.export())
            .for_each(|lines| sink(ExportedTrace::Call(lines)));
    }

    /// The services that calls run with.
    pub(super) fn services(&self) -> &Arc<Services> {
        &self.0.services
    }

    /// Number of live calls.
    pub fn len(&self) -> usize {
        self.0.live.len()
    }

    /// Whether there are no live calls.
    pub fn is_empty(&self) -> bool {
        self.0.live.is_empty()
    }

    /// Ends all calls with `cause`.
    pub fn cut_all(&self, cause: HangupCause) {
        for call in self.list() {
            call.mailbox.tell(Input::HangUp { cause });
        }
    }

    /// Waits until no call is live, for `at_most`. Returns the number of remaining calls.
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

    /// Waits until a call is live. Returns at once if one is.
    pub(super) async fn until_live(&self) {
        loop {
            let woken = self.0.one_begun.notified();
            if !self.is_empty() {
                return;
            }
            woken.await;
        }
    }

    /// Returns the alias of a number. May be empty.
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
        // Without an application, the number's agent answers the call.
        let (answer, answer_method) = author::answer_of(self.0.gate.directory(), spec)?;
        let hangup = spec.hangup.clone().unwrap_or_else(|| (answer.clone(), answer_method));
        Some(CallSetup {
            call: incoming.call.unwrap_or_else(|| CallUuid(self.0.services.uuid())),
            direction: Direction::Inbound,
            call_type: CallType::Whatsapp,
            wacid: Some(incoming.key.wacid.clone()),
            phone_number_id: incoming.key.phone_number_id.clone(),
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

/// Removes a call from the tables on drop, however its task ends.
struct CallGuard {
    registry: Registry,
    view: Arc<LiveCall>,
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let inner = &self.registry.0;
        let setup = &self.view.setup;
        inner.live.remove(&setup.call);
        self.view.tell_news(&inner.services.feed);
        // A web leg has no id at Meta.
        if self.view.line.is_none() {
            inner.bindings.leave(&*self.view, inner.services.clock.now());
        }
        self.registry.gauge(setup.direction).decrement(1);
        inner.one_over.notify_waiters();
        self.registry.leave_legs(&self.view);
        // A call that ended normally has already left its room.
        if let Some(seats) = &inner.services.seats {
            drop(seats.leave(setup.call, &[]));
        }
        inner.services.rooms.leave(setup.call, &[], drop);
    }
}

impl Registry {
    /// Starts a user-initiated call in its own task.
    ///
    /// # Errors
    /// Returns the admission, to be withdrawn, if the store is overloaded or the number has no
    /// answer URL.
    pub fn start(
        &self,
        starting: SetUpTicket,
        admitted: Admitted,
        incoming: Incoming,
    ) -> Result<(), Box<Admitted>> {
        let Some(setup) = self.setup(admitted.number(), &incoming) else {
            error!(number = %admitted.number().spec.number, "calling is enabled but the number has no answer URL");
            return Err(Box::new(admitted));
        };
        let Incoming { offer, received, arrived, .. } = incoming;
        if !self.write_record(&setup) {
            return Err(Box::new(admitted));
        }
        let engaged = self
            .0
            .services
            .permissions
            .consents()
            .engage(PairKey::new(&setup.phone_number_id, &setup.from));
        let way = StartMode::Offered(Box::new(offer));
        self.begin(Peer::user((admitted, engaged)), starting, setup, way, [received, arrived]);
        Ok(())
    }

    /// Chooses the id of a user-initiated call before its start. Returns the data that another node
    /// needs to end the call, or `None` if the number has no answer URL.
    pub fn birth(&self, number: &NumberEntry, incoming: &mut Incoming) -> Option<Birth> {
        let setup = self.setup(number, incoming)?;
        incoming.call = Some(setup.call);
        let services = &self.0.services;
        Some(Birth { node_id: services.node_id.clone(), born: services.clock.steady(), setup })
    }

    /// Starts a business-initiated call in its own task.
    ///
    /// # Errors
    /// Returns the admission, to be withdrawn, if the node or the store is overloaded.
    pub fn place(
        &self,
        (admitted, engaged): CallAdmission,
        outgoing: Outgoing,
    ) -> Result<(), Box<Admitted>> {
        let Some(starting) = self.room(&outgoing.setup.phone_number_id) else {
            return Err(Box::new(admitted));
        };
        let Outgoing { setup, received, placed } = outgoing;
        if !self.write_record(&setup) {
            return Err(Box::new(admitted));
        }
        let peer = Peer::user((admitted, engaged));
        self.begin(peer, starting, setup, StartMode::Placed, [received, placed]);
        Ok(())
    }

    /// Writes the record of a call before the call becomes visible, so that it survives a crash.
    /// Returns `false` if the store does not accept it.
    pub(super) fn write_record(&self, setup: &CallSetup) -> bool {
        let services = &self.0.services;
        let start = CallStart::of(setup, &services.node_id);
        let write_record = services.store.calls().begin(start, setup, services.clock.steady());
        if !write_record {
            Strain::Store.count();
        }
        write_record
    }

    /// Starts a call whose record was written by [`Registry::write_record`].
    pub(super) fn begin(
        &self,
        peer: Peer,
        starting: SetUpTicket,
        setup: CallSetup,
        way: StartMode,
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
            at_meta: MetaState::new(setup.wacid.clone()),
            legs: Mutex::default(),
            b_leg: Mutex::default(),
            pending_legs: Mutex::default(),
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
        self.0.one_begun.notify_waiters();
        if let Some(news) = self.0.services.news.get() {
            news.started(&view.setup);
        }
        view.tell_news(&self.0.services.feed);
        services.rooms.expect(&setup, &mailbox);
        self.gauge(setup.direction).increment(1);
        let guard = CallGuard { registry: self.clone(), view: view.clone() };
        // `trace_id` is sent in `traceparent` with requests to the customer's server.
        let number =
            peer.number().map(|number| tracing::field::display(number.spec.number.clone()));
        let span = info_span!("call", call_uuid = %call, trace_id = %TraceId::from(call), number);
        let journal = EventLogWriter::new(
            call,
            arrived,
            log,
            services.store.event_log(),
            services.traces.clone(),
        );
        let admitted = services.clock.now();
        let (turns, registry) = (self.0.turns.clone(), self.clone());
        let task = async move {
            let turn = turns.wait(starting).await;
            let begin = StartParams {
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
            // Boxed because a future reserves space for all of its captures for its whole life.
            let begin = Box::new(begin);
            // A panic ends only this call. Its slot is released with the call's future.
            let ran =
                std::panic::AssertUnwindSafe(shell::run(services, begin)).catch_unwind().await;
            if ran.is_err() {
                error!("call task panicked");
                guard.registry.clean_up_after_panic(&guard.view).await;
            }
            drop(guard);
        };
        self.0.services.tasks.spawn(task.instrument(span));
    }

    /// Binds Meta's id of an outbound call, known from Graph's response.
    pub(super) fn bind(&self, call: &LiveCall, wacid: Wacid) {
        self.0.bindings.bind(self, call, wacid, self.0.services.clock.now());
    }

    /// Whether the node has a call. `named` is the outbound call in an event's opaque data.
    pub fn has(&self, key: &CallKey, named: Option<CallUuid>) -> bool {
        named.is_some_and(|call| self.0.live.contains_key(&call)) || self.0.bindings.has(key)
    }

    /// Delivers an event of a call. `named` is the outbound call in its opaque data.
    pub fn event(&self, key: &CallKey, named: Option<CallUuid>, event: CallEvent) -> EventOutcome {
        self.0.bindings.event(self, key, named, event, self.0.services.clock.now())
    }

    /// Remembers an outbound call of an earlier process. If it appears at Meta, it is ended there.
    pub fn remember(&self, placed: PlacedCall, token: Option<Secret>) {
        self.0.bindings.remember(placed, token, self.0.services.clock.now());
    }

    /// Parses an SDP offer, or an answer to our offer. Returns `None` if it is unusable.
    pub fn read_offer(&self, sdp: &str) -> Option<Offer> {
        self.0.services.media.read_offer(sdp)
    }

    /// Reserves capacity for a new call. Returns `None` and counts the reason if the node is
    /// overloaded.
    pub fn room(&self, number: &PhoneNumberId) -> Option<SetUpTicket> {
        if self.0.services.graph.is_behind(number) {
            Strain::Graph.count();
            return None;
        }
        self.reserve_locally()
    }

    /// How much of its capacity the node uses, from 0 to 1: the largest share of live calls, waiting
    /// set-ups and the time of media threads.
    pub fn load(&self) -> f64 {
        let calls = self.len() as f64 / LIVE_MAX as f64;
        let services = &self.0.services;
        calls.max(services.pressure.load()).max(services.media.load()).min(1.0)
    }

    /// Like [`Registry::room`] but ignores the state of Graph, for calls without Meta.
    pub(super) fn reserve_locally(&self) -> Option<SetUpTicket> {
        let services = &self.0.services;
        let room = match services.media.is_behind() {
            _ if self.len() >= LIVE_MAX => Err(Strain::Calls),
            true => Err(Strain::Media),
            false => services.pressure.begin(services.clock.now()),
        };
        room.inspect_err(|strain| strain.count()).ok()
    }

    /// Sends `reject` to Graph for a call that was not admitted.
    ///
    /// # Errors
    /// Returns an error if too many rejects are pending.
    pub fn reject(
        &self,
        number: &Arc<NumberEntry>,
        wacid: Wacid,
        reason: Reason,
    ) -> Result<(), RejectsFull> {
        let full = || {
            crate::count_refused(metric::queue::REJECTS);
            RejectsFull
        };
        let room = self.0.rejects.clone().try_acquire_owned().map_err(|_| full())?;
        if self.0.services.graph.is_behind_with_rejects(&number.spec.phone_number_id) {
            return Err(full());
        }
        info!(number = %number.spec.number, reason = reason.as_str(), "call rejected");
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
        CallKey { phone_number_id, wacid }: CallKey,
        token: Option<Secret>,
        late: Option<CallUuid>,
    ) {
        let services = &self.0.services;
        let (graph, store) = (services.graph.clone(), services.store.clone());
        if let Some(call) = late {
            // Stored, so that a later process ends the call if this one dies first.
            store.calls().set_wacid(
                call,
                wacid.clone(),
                services.clock.steady().plus(farewell::RETRY_TIME),
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
    /// After a panic in a call's task: ends the call at Meta and completes its record.
    async fn clean_up_after_panic(&self, view: &LiveCall) {
        self.lost_leg(view);
        shell::end_after_fault(&self.0.services, view).await;
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
