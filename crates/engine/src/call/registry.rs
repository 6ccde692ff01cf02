//! The live calls of a node: starts calls, finds them and sends them inputs.
//!
//! The listeners and APIs start calls here, report their end, query and command them. They get a
//! [`LiveCall`], a handle with a mailbox, and never the call's own state.

mod legs;
mod start;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::info;

use super::binding::{Bindings, CallEvent, Parties};
pub use super::binding::{CallKey, EventOutcome};
use super::farewell;
use super::live_call::LiveCall;
use super::services::Services;
use super::trace::ExportedTrace;
use super::turns::Turns;
use crate::admission::permission::Engaged;
use crate::admission::{AccountEntry, Admitted, Gate, NumberEntry, Reason, SetUpTicket, Strain};
use crate::meta::ActionRequest;
use machine::{CallSetup, GraphAction, Input};
use media::sdp::Offer;
use model::Secret;
use model::metric;
use model::{AuthId, CallUuid, Direction, HangupCause, PhoneNumberId, Timestamp, Wacid};
use store::PlacedCall;

/// Maximum number of live calls of a node, whatever the limits of its numbers. Further calls are
/// rejected as `overloaded` (`docs/reference/reliability.md#r10`).
const LIVE_MAX: usize = 20_000;
/// Number of live calls that a main account may always have. Beyond, it may have no more than are left
/// for the others.
const ACCOUNT_LIVE_MIN: usize = 1_000;
/// Number of live calls that a main account may have while memory is scarce. Beyond, it may have half
/// of all calls.
const ACCOUNT_SCARCE_MIN: usize = 100;
/// Maximum number of pending rejects. Above that the webhook is answered with 503 and Meta retries
/// it, which is more work than to let a reject wait. Not larger than the Graph queue of one number
/// (`meta::GraphConfig`), so that an accepted reject is always sent.
const REJECTS_MAX: usize = 4_000;

/// Decides whether a main account that has `own` of the node's `live` calls may have another one beside
/// those of others.
fn share_of_live_calls(own: usize, live: usize, is_memory_scarce: bool) -> Result<(), Strain> {
    if own >= ACCOUNT_LIVE_MIN.max(LIVE_MAX.saturating_sub(live)) {
        return Err(Strain::Calls);
    }
    if is_memory_scarce && own >= ACCOUNT_SCARCE_MIN.max(live / 2) {
        return Err(Strain::Memory);
    }
    Ok(())
}

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

/// Called once Graph has answered a reject.
pub type OnSettled = Box<dyn FnOnce() + Send>;

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
    /// Number of calls in `live` that are over.
    over: AtomicUsize,
    /// Number of live calls of each main account.
    of_account: DashMap<AuthId, usize>,
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
            over: AtomicUsize::new(0),
            of_account: DashMap::new(),
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

    /// See [`Gate::webhooks_late`].
    pub(in crate::call) fn webhooks_late(&self, now: Instant) -> Duration {
        self.0.gate.webhooks_late(now)
    }

    /// Number of live calls.
    pub fn len(&self) -> usize {
        self.0.live.len().saturating_sub(self.0.over.load(Ordering::Acquire))
    }

    /// Whether there are no live calls.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No longer counts a call as live.
    pub(super) fn note_over(&self, call: &LiveCall) {
        if !call.over.swap(true, Ordering::AcqRel) {
            self.0.over.fetch_add(1, Ordering::AcqRel);
            self.0.of_account.remove_if_mut(&call.setup.parent_account, |_, own| {
                *own = own.saturating_sub(1);
                *own == 0
            });
            self.gauge(call.setup.direction).decrement(1);
            self.0.one_over.notify_waiters();
        }
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

impl Registry {
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

    /// Reserves capacity for a new call of this number. Returns `None` and counts the reason if the
    /// node is overloaded.
    pub fn room(&self, number: &NumberEntry) -> Option<SetUpTicket> {
        if self.0.services.graph.is_behind(&number.spec.phone_number_id) {
            Strain::Graph.count();
            return None;
        }
        self.reserve_locally(&number.account)
    }

    /// How much of its capacity the node uses, from 0 to 1: the largest share of live calls, waiting
    /// set-ups and the time of media threads.
    pub fn load(&self) -> f64 {
        let calls = self.len() as f64 / LIVE_MAX as f64;
        let services = &self.0.services;
        calls.max(services.pressure.load()).max(services.media.load()).min(1.0)
    }

    /// Like [`Registry::room`] but ignores the state of Graph, for calls without Meta.
    pub(super) fn reserve_locally(&self, account: &AccountEntry) -> Option<SetUpTicket> {
        let (services, main) = (&self.0.services, &account.main().auth_id);
        let room = match services.media.is_behind() {
            _ if self.len() >= LIVE_MAX => Err(Strain::Calls),
            true => Err(Strain::Media),
            false => self
                .check_share(main)
                .and_then(|()| services.pressure.begin(services.clock.now(), main)),
        };
        room.inspect_err(|strain| strain.count()).ok()
    }

    /// Checks that a main account leaves capacity for the others.
    fn check_share(&self, main: &AuthId) -> Result<(), Strain> {
        let own = self.0.of_account.get(main).map_or(0, |own| *own);
        let shared = share_of_live_calls(own, self.len(), self.0.services.pressure.is_scarce());
        shared.or_else(|strain| {
            let tables = self.0.gate.directory().tables();
            let mut others =
                tables.accounts().filter(|one| one.parent.is_none() && one.auth_id != *main);
            if others.next().is_none() { Ok(()) } else { Err(strain) }
        })
    }

    /// Sends `reject` to Graph for a call that was not admitted. `settled` runs once Graph has
    /// answered.
    ///
    /// # Errors
    /// Returns an error if too many rejects are pending.
    pub fn reject(
        &self,
        number: &Arc<NumberEntry>,
        wacid: Wacid,
        reason: Reason,
        settled: Option<OnSettled>,
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
        self.send_reject(number, wacid, settled, room);
        Ok(())
    }

    /// Rejects a call for a dead node, which had decided that. Waits while too many rejects are
    /// pending.
    pub async fn reject_for_other(
        &self,
        number: &Arc<NumberEntry>,
        wacid: Wacid,
        settled: OnSettled,
    ) {
        if let Ok(room) = self.0.rejects.clone().acquire_owned().await {
            self.send_reject(number, wacid, Some(settled), room);
        }
    }

    fn send_reject(
        &self,
        number: &NumberEntry,
        wacid: Wacid,
        settled: Option<OnSettled>,
        room: OwnedSemaphorePermit,
    ) {
        let (id, token) = (number.spec.phone_number_id.clone(), number.spec.access_token.clone());
        let request = ActionRequest::ending(id, token, wacid, GraphAction::Reject);
        let graph = self.0.services.graph.clone();
        self.0.services.rejects.spawn(&self.0.services.tasks, async move {
            let outcome = graph.call_action_to_the_end(request).await;
            if let Some(settled) = settled.filter(|_| outcome.is_settled()) {
                settled();
            }
            drop(room);
        });
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

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
