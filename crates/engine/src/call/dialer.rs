//! Places outbound calls. The calls of each account wait in order for its calls per second
//! (`docs/reference/limits.md#l6`) and never go out faster. `queues` decides which call goes next.
//!
//! Placing a call tries the queue immediately; a task tries again when the next permit is due. A
//! call that cannot be placed gets a record and a hangup callback like every other call.
//!
//! In a fleet, a call that has to wait is also a row of the database, written before the request is
//! answered. The node deletes the row before it places the call. If the node dies, another node
//! adopts the remaining rows into its own queues, so each call is placed once or ended once. The
//! process that takes over at an upgrade gets the queues ([`Dialer::hand_over`]).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::handover::{instant_of, micros_of};
use super::queues::{
    Exit, NotPlaced, QUEUE_MAX, QueueRecord, Queues, RequestLimits, Rules, Waiting,
};
use super::record;
use super::registry::{CallAdmission, Outgoing, Registry};
use super::services::Services;
use crate::admission::permission::Reservation;
use crate::admission::{Admitted, Gate, NumberEntry};
use crate::answer::SigningKeys;
use machine::{
    CallSetup, CallTime, CallUrls, Outbound, RING_MAX_MS, add_participant_failed, orphan_summary,
};
use model::{CallType, CallUuid, Direction, E164, HangupCause, Method, metric};
use store::{
    AdoptedCall, CallEnd, CallStart, Conclusion, NewWaitingCall, StoreError, run_of_owner,
};
use xml::ast::DocUrl;

/// Timeout for writing waiting calls to the database, or taking them from it.
const DATABASE_TIME: Duration = Duration::from_secs(2);

/// Maximum number of queued calls that are taken from the database at the same time.
const TAKEN_AT_ONCE: usize = 8;

/// Interval between attempts to take a call out of the fleet's queue.
const TAKE_RETRY: Duration = Duration::from_millis(500);

/// Interval at which [`Dialer::until_settled`] looks.
const SETTLE_INTERVAL: Duration = Duration::from_millis(10);

/// Calls to place: one to each entry of `to`, with the same properties.
#[derive(Clone, Debug)]
pub struct CallOrder {
    pub number: Arc<NumberEntry>,
    pub to: Vec<E164>,
    pub answer: (DocUrl, Method),
    pub fallback: Option<(DocUrl, Method)>,
    /// URL of the hangup callback. It equals the answer URL if none was set.
    pub hangup: (DocUrl, Method),
    pub caller_name: String,
    pub headers: Vec<(String, String)>,
    /// Maximum duration after the answer. The node's own limit applies as well.
    pub time_limit: Duration,
    pub outbound: Outbound,
    /// Settings of individual targets, in the order of `to`. May be shorter than `to`.
    pub each: Vec<TargetSettings>,
}

/// Properties of one target.
#[derive(Clone, Copy, Debug, Default)]
pub struct TargetSettings {
    /// Overrides the ring timeout of the order.
    pub ring_timeout_ms: Option<u64>,
    /// Delay before this target is called.
    pub after: Duration,
}

/// A queued call on its way to another process.
#[derive(Debug, Serialize, Deserialize)]
pub struct MovedCall {
    pub setup: CallSetup,
    /// The time before which the call must not be placed, in microseconds since the machine was
    /// booted.
    since_us: u64,
    /// Whether the call has an open record, outside a fleet.
    is_recorded: bool,
    /// The call's row in a fleet.
    #[serde(default)]
    row: Option<MovedRow>,
}

/// The row of a queued call in the fleet's waiting calls.
#[derive(Debug, Serialize, Deserialize)]
struct MovedRow {
    /// Whether the row is known to exist.
    is_certain: bool,
    /// The id of the reservation of the called user.
    engagement: Option<Uuid>,
}

/// Places calls from the queues. Cheap to clone.
#[derive(Clone)]
pub struct Dialer(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    registry: Registry,
    gate: Arc<Gate>,
    queues: Mutex<Queues>,
    requests: Mutex<RequestLimits>,
    /// Calls that are in no queue because a database statement about them is in progress. Removing
    /// a call from here cancels it.
    in_transit: Mutex<BTreeMap<CallUuid, CallSetup>>,
    /// Whether adopted calls may be missing from the queues.
    has_missed: AtomicBool,
    /// Whether no call leaves the queues. Changed and read with the queues locked.
    is_paused: AtomicBool,
    /// Wakes the task when a queue is no longer empty.
    filled: Notify,
}

impl Dialer {
    /// Creates an idle dialer. [`Dialer::run`] must run for queued calls to go out.
    pub fn new(services: Arc<Services>, registry: Registry, gate: Arc<Gate>) -> Self {
        Self(Arc::new(Inner {
            services,
            registry,
            gate,
            queues: Mutex::default(),
            requests: Mutex::default(),
            in_transit: Mutex::default(),
            has_missed: AtomicBool::new(false),
            is_paused: AtomicBool::new(false),
            filled: Notify::new(),
        }))
    }

    /// Accepts an order as a whole or not at all. Returns the call ids in the order of `to`. Calls
    /// that have a permit are placed before this returns.
    ///
    /// # Errors
    /// Returns the limit or rule that forbids the order.
    pub async fn place(&self, order: &CallOrder) -> Result<Vec<CallUuid>, NotPlaced> {
        let reservations = self.reserve(order).await?;
        let (calls, waiting) = self.place_now(order, reservations)?;
        if !waiting.is_empty() {
            // In a task, because the client may close its connection in the meantime.
            let dialer = self.clone();
            let written = tokio::spawn(async move { dialer.enqueue(waiting).await }).await;
            written.unwrap_or(Err(NotPlaced::Draining))?;
        }
        Ok(calls)
    }

    /// Places or queues the calls of an order. In a fleet, returns the calls that have to wait and
    /// are in no queue yet.
    fn place_now(
        &self,
        order: &CallOrder,
        reservations: Vec<Option<Reservation>>,
    ) -> Result<(Vec<CallUuid>, Vec<Waiting>), NotPlaced> {
        let services = &self.0.services;
        let mut reservations = reservations.into_iter();
        let mut queues = self.queues();
        queues.check_order(self.rules(), &order.number, &order.to)?;
        self.count_requests(order)?;
        let calls: Vec<CallUuid> = order.to.iter().map(|_| services.call_uuid()).collect();
        let now = services.clock.now();
        let mut waiting = Vec::with_capacity(calls.len());
        for (n, (call, to)) in calls.iter().zip(&order.to).enumerate() {
            let each = order.each.get(n).copied().unwrap_or_default();
            let (setup, since) = (self.setup(order, *call, to, each), now + each.after);
            let (number, reservation) = (order.number.clone(), reservations.next().flatten());
            waiting.push(Waiting::new(number, setup, since, reservation));
        }
        if !self.is_shared() {
            waiting.into_iter().for_each(|waiting| queues.put(waiting));
            if queues.release(self.rules(), self).is_some() {
                self.0.filled.notify_one();
            }
            return Ok((calls, Vec::new()));
        }
        // All of several calls are written, or none.
        if waiting.len() == 1
            && let Some(single) = waiting.pop()
        {
            waiting.extend(queues.place_now(single, self.rules(), self));
        }
        Ok((calls, waiting))
    }

    /// Counts the calls of an order against those that its main account may request.
    fn count_requests(&self, order: &CallOrder) -> Result<(), NotPlaced> {
        let Inner { services, gate, requests, .. } = &*self.0;
        if services.pressure.is_store_broken() {
            return Err(NotPlaced::StoreBroken);
        }
        let (now, main) = (services.clock.now(), order.number.account.main());
        let (cps, _) = gate.cps(now, main);
        let [cps, calls] = [cps, order.to.len()].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.count(now, &main.auth_id, cps, calls)
    }

    /// Whether waiting calls are also stored in the database.
    fn is_shared(&self) -> bool {
        self.0.services.permissions.consents().is_shared()
    }

    /// Writes calls of one account to the fleet's waiting calls and puts them into the queue.
    async fn enqueue(&self, mut waiting: Vec<Waiting>) -> Result<(), NotPlaced> {
        let services = &self.0.services;
        let now = services.clock.now();
        let row = |waiting: &Waiting| NewWaitingCall {
            setup: waiting.setup.clone(),
            delay: waiting.since.saturating_duration_since(now),
            engagement: waiting.reservation.as_ref().map(Reservation::id),
        };
        let rows: Vec<NewWaitingCall> = waiting.iter().map(row).collect();
        self.in_transit().extend(rows.iter().map(|row| (row.setup.call, row.setup.clone())));
        let table = services.store.waiting_calls();
        let insert = table.insert(&services.node_id, &rows, services.clock.steady(), QUEUE_MAX);
        let record = match tokio::time::timeout(DATABASE_TIME, insert).await {
            Ok(Ok(true)) => QueueRecord::Shared,
            Ok(Ok(false)) => {
                let mut in_transit = self.in_transit();
                rows.iter().for_each(|row| drop(in_transit.remove(&row.setup.call)));
                crate::count_refused(metric::queue::DIALER);
                let after = waiting.first().map(|first| {
                    let now = services.clock.now();
                    let next = self.0.gate.next_permit(now, &first.number.account);
                    next.saturating_duration_since(now)
                });
                return Err(NotPlaced::QueueFull { after: after.unwrap_or_default() });
            }
            Ok(Err(error)) => {
                warn!(%error, "waiting calls not stored; they end if this node dies");
                QueueRecord::Unknown
            }
            Err(_) => {
                warn!("writing waiting calls timed out; they end if this node dies");
                QueueRecord::Unknown
            }
        };
        waiting.iter_mut().for_each(|waiting| waiting.record = record);
        self.fill(waiting);
        Ok(())
    }

    /// Moves calls in transit to the queues. Cancelled ones are given up.
    fn fill(&self, waiting: Vec<Waiting>) {
        let mut cancelled = Vec::new();
        {
            let (mut queues, mut in_transit) = (self.queues(), self.in_transit());
            for waiting in waiting {
                match in_transit.remove(&waiting.setup.call) {
                    Some(_) => queues.put(waiting),
                    None => cancelled.push(waiting),
                }
            }
        }
        for waiting in cancelled {
            self.give_up(waiting, HangupCause::CancelledByApi, None);
        }
        self.0.filled.notify_one();
    }

    /// Adopts the waiting calls of a process that has died or is draining into the queues of this
    /// node. Returns their number.
    ///
    /// # Errors
    /// Fails if the database does not answer. Call it again then.
    pub async fn adopt(&self, owner: &str) -> Result<usize, StoreError> {
        let Inner { services, has_missed, .. } = &*self.0;
        let (table, me) = (services.store.waiting_calls(), services.node_id.as_str());
        let mut count = 0;
        if has_missed.load(Ordering::Acquire) {
            count += self.take_in(table.of(me).await?);
            has_missed.store(false, Ordering::Release);
        }
        loop {
            let adopted = table.adopt(owner, me, run_of_owner(me), services.clock.steady()).await;
            let adopted = adopted.inspect_err(|_| has_missed.store(true, Ordering::Release))?;
            if adopted.is_empty() {
                return Ok(count);
            }
            count += self.take_in(adopted);
        }
    }

    /// Puts adopted calls into the queues, unless they are known here.
    fn take_in(&self, calls: Vec<AdoptedCall>) -> usize {
        let Inner { services, gate, registry, .. } = &*self.0;
        let now = services.clock.now();
        let tables = gate.directory().tables().clone();
        let (mut waiting, mut without_number) = (Vec::new(), Vec::new());
        for AdoptedCall { setup, waited, delay, engagement } in calls {
            let is_known = || {
                self.find(setup.call)
                    .or_else(|| registry.get(setup.call).map(|call| call.setup.clone()))
            };
            if is_known().is_some() {
                continue;
            }
            let Some(number) = tables.number(&setup.phone_number_id).cloned() else {
                without_number.push(setup);
                continue;
            };
            let since = now.checked_sub(waited).unwrap_or(now) + delay;
            let reservation = engagement.and_then(|id| services.permissions.consents().adopted(id));
            self.in_transit().insert(setup.call, setup.clone());
            let record = QueueRecord::Shared;
            waiting.push(Waiting { record, ..Waiting::new(number, setup, since, reservation) });
        }
        for setup in without_number {
            self.end(setup, None, HangupCause::CallingDisabled, None);
        }
        let count = waiting.len();
        self.fill(waiting);
        count
    }

    /// Reserves the users of an order, in a fleet. Returns nothing if there is nothing to reserve.
    async fn reserve(&self, order: &CallOrder) -> Result<Vec<Option<Reservation>>, NotPlaced> {
        let Inner { services, gate, .. } = &*self.0;
        if !services.permissions.consents().is_shared() {
            return Ok(Vec::new());
        }
        self.queues().check_order(self.rules(), &order.number, &order.to)?;
        let mut reservations = Vec::with_capacity(order.to.len());
        for to in &order.to {
            let reserved = services.permissions.reserve(gate, &order.number, to.as_str()).await;
            match reserved {
                Ok(reservation) => reservations.push(reservation),
                Err(denied) => return Err(NotPlaced::Denied { to: to.clone(), denied }),
            }
        }
        Ok(reservations)
    }

    fn rules(&self) -> Rules<'_> {
        let Inner { services, gate, .. } = &*self.0;
        Rules { gate, consents: services.permissions.consents(), clock: &services.clock }
    }

    fn setup(
        &self,
        order: &CallOrder,
        call: CallUuid,
        to: &E164,
        each: TargetSettings,
    ) -> CallSetup {
        let services = &self.0.services;
        let spec = &order.number.spec;
        let mut limits = services.settings.load().limits.clone();
        let time_limit_ms = u64::try_from(order.time_limit.as_millis()).unwrap_or(u64::MAX);
        limits.max_call_ms = limits.max_call_ms.min(time_limit_ms);
        let mut outbound = order.outbound.clone();
        outbound.ring_timeout_ms =
            each.ring_timeout_ms.unwrap_or(outbound.ring_timeout_ms).min(RING_MAX_MS);
        CallSetup {
            call,
            direction: Direction::Outbound,
            call_type: CallType::Whatsapp,
            wacid: None,
            phone_number_id: spec.phone_number_id.clone(),
            from: spec.number.to_string(),
            to: to.to_string(),
            caller_name: order.caller_name.clone(),
            cta_payload: None,
            deeplink_payload: None,
            account: order.number.account.auth_id.clone(),
            parent_account: order.number.account.main().auth_id.clone(),
            urls: CallUrls {
                answer: order.answer.0.clone(),
                answer_method: order.answer.1,
                fallback: order.fallback.clone(),
                hangup: order.hangup.clone(),
            },
            started: services.clock.wall(),
            limits,
            headers: order.headers.clone(),
            outbound: Some(Box::new(outbound)),
        }
    }

    /// Calls `look` with the setup of each queued call.
    pub fn each(&self, mut look: impl FnMut(&CallSetup)) {
        self.queues().iter().for_each(|waiting| look(&waiting.setup));
        self.in_transit().values().for_each(look);
    }

    /// Returns the setups of all queued calls.
    pub fn queued(&self) -> Vec<CallSetup> {
        let mut queued = Vec::new();
        self.each(|setup| queued.push(setup.clone()));
        queued
    }

    /// Returns the setup of a queued call.
    pub fn find(&self, call: CallUuid) -> Option<CallSetup> {
        let queues = self.queues();
        let queued = queues.iter().find(|waiting| waiting.setup.call == call);
        queued
            .map(|waiting| waiting.setup.clone())
            .or_else(|| self.in_transit().get(&call).cloned())
    }

    /// Removes a call from its queue. Returns `false` if it is not queued.
    pub fn cancel(&self, call: CallUuid) -> bool {
        let (waiting, in_transit) = {
            let mut queues = self.queues();
            (queues.remove(call), self.in_transit().remove(&call))
        };
        let waited = waiting.is_some() || in_transit.is_some();
        waiting
            .into_iter()
            .for_each(|waiting| self.give_up(waiting, HangupCause::CancelledByApi, None));
        waited
    }

    /// Keeps the calls in the queues, for an upgrade, until [`Dialer::resume`].
    pub fn pause(&self) {
        let _queues = self.queues();
        self.0.is_paused.store(true, Ordering::Relaxed);
    }

    /// Ends a [`Dialer::pause`].
    pub fn resume(&self) {
        let _queues = self.queues();
        self.0.is_paused.store(false, Ordering::Relaxed);
        self.0.filled.notify_one();
    }

    /// Waits until no database statement about a queued call is in progress.
    pub async fn until_settled(&self) {
        let mut every = tokio::time::interval(SETTLE_INTERVAL);
        while !self.in_transit().is_empty() {
            every.tick().await;
        }
    }

    /// Empties the queues of a paused and [settled](Dialer::until_settled) dialer for another process
    /// of this node.
    pub fn hand_over(&self) -> Vec<MovedCall> {
        let clock = &self.0.services.clock;
        let queues = std::mem::take(&mut *self.queues());
        let moved = |mut waiting: Waiting| {
            let reservation = waiting.reservation.take();
            let engagement = reservation.as_ref().map(Reservation::id);
            // It goes on in the other process.
            reservation.into_iter().for_each(Reservation::dismiss);
            let is_certain = waiting.record == QueueRecord::Shared;
            MovedCall {
                since_us: micros_of(waiting.since, clock),
                is_recorded: waiting.record == QueueRecord::Open,
                row: waiting.is_shared().then_some(MovedRow { is_certain, engagement }),
                setup: waiting.setup,
            }
        };
        queues.into_iter().map(moved).collect()
    }

    /// Puts the calls of another process of this node into the queues.
    pub fn take_over(&self, calls: Vec<MovedCall>) {
        let Inner { services, gate, .. } = &*self.0;
        let tables = gate.directory().tables().clone();
        for MovedCall { setup, since_us, is_recorded, row } in calls {
            let Some(number) = tables.number(&setup.phone_number_id).cloned() else {
                self.end(setup, None, HangupCause::CallingDisabled, None);
                continue;
            };
            let since = instant_of(since_us, &services.clock);
            let record = match &row {
                Some(row) if row.is_certain => QueueRecord::Shared,
                Some(_) => QueueRecord::Unknown,
                None if is_recorded => QueueRecord::Open,
                None => QueueRecord::Nothing,
            };
            let engagement = row.and_then(|row| row.engagement);
            let reservation = engagement.and_then(|id| services.permissions.consents().adopted(id));
            self.queues()
                .put(Waiting { record, ..Waiting::new(number, setup, since, reservation) });
        }
        self.0.filled.notify_one();
    }

    /// Empties the queues because the node is draining. Gives up the calls that only this node can
    /// place, and returns those that another node can adopt.
    pub fn drain(&self) -> Vec<Waiting> {
        let all = std::mem::take(&mut *self.queues());
        let (shared, own) = all.into_iter().partition::<Vec<_>, _>(Waiting::is_shared);
        self.give_up_drained(own);
        shared
    }

    /// Gives up queued calls because this node is draining: they end with [`HangupCause::Drained`].
    pub fn give_up_drained(&self, calls: Vec<Waiting>) {
        calls.into_iter().for_each(|waiting| self.give_up(waiting, HangupCause::Drained, None));
    }

    /// Gives up queued calls of the fleet's queue that no node has adopted, as far as is known. Those
    /// that one has adopted after all go on there.
    pub async fn give_up_unadopted(&self, calls: Vec<Waiting>) {
        let taking = async |waiting: Waiting| {
            let is_ours = self.take(waiting.setup.call).await != Some(false);
            (waiting, is_ours)
        };
        let taken = futures_util::stream::iter(calls).map(taking).buffer_unordered(TAKEN_AT_ONCE);
        let (ours, adopted): (Vec<_>, Vec<_>) =
            taken.collect::<Vec<_>>().await.into_iter().partition(|(_, is_ours)| *is_ours);
        self.forget_adopted(adopted.into_iter().map(|(waiting, _)| waiting).collect());
        self.give_up_drained(ours.into_iter().map(|(waiting, _)| waiting).collect());
    }

    /// Forgets calls that another node has adopted.
    pub fn forget_adopted(&self, calls: Vec<Waiting>) {
        calls.into_iter().filter_map(|call| call.reservation).for_each(Reservation::dismiss);
    }

    /// Places queued calls when they are due, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let next = {
                let mut queues = self.queues();
                let is_paused = self.0.is_paused.load(Ordering::Relaxed);
                if is_paused { None } else { queues.release(self.rules(), &self) }
            };
            let filled = self.0.filled.notified();
            let wait = async {
                match next {
                    Some(at) => drop(tokio::time::timeout_at(at.into(), filled).await),
                    None => filled.await,
                }
            };
            if stop.run_until_cancelled(wait).await.is_none() {
                return;
            }
        }
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the lock of the calls in transit. It may be taken while [`Dialer::queues`] is
    /// locked, not the other way round.
    fn in_transit(&self) -> MutexGuard<'_, BTreeMap<CallUuid, CallSetup>> {
        self.0.in_transit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes a call from the fleet's queue. Returns `false` if another node has adopted the call, and
    /// `None` if the database did not answer, which may have removed it nevertheless.
    async fn take(&self, call: CallUuid) -> Option<bool> {
        let services = &self.0.services;
        let taken = services.store.waiting_calls().take(&services.node_id, call);
        match tokio::time::timeout(DATABASE_TIME, taken).await {
            Ok(Ok(taken)) => Some(taken),
            Ok(Err(error)) => {
                warn!(call_uuid = %call, %error, "queued call not taken from the database");
                None
            }
            Err(_) => {
                warn!(call_uuid = %call, "taking a queued call from the database timed out");
                None
            }
        }
    }

    /// Removes a call from the fleet's queue, and places it unless another node has adopted it.
    async fn take_and_place(self, mut waiting: Waiting, admission: CallAdmission, now: Instant) {
        let services = &self.0.services;
        let (call, (admitted, mut engaged)) = (waiting.setup.call, admission);
        let taken = self.take(call).await;
        let is_wanted = self.in_transit().remove(&call).is_some();
        match (taken, waiting.record) {
            (Some(false), QueueRecord::Shared) => {
                info!(call_uuid = %call, "queued call was adopted by another node");
                engaged.take_reservation().into_iter().for_each(Reservation::dismiss);
                admitted.withdraw();
            }
            _ if !is_wanted => {
                admitted.withdraw();
                self.give_up(waiting, HangupCause::CancelledByApi, None);
            }
            // If the delete was executed after all, the next attempt places the call.
            (None, QueueRecord::Shared) => {
                waiting.reservation = engaged.take_reservation();
                admitted.withdraw();
                waiting.record = QueueRecord::Unknown;
                waiting.retry = services.clock.now() + TAKE_RETRY;
                self.queues().put_back(waiting);
                self.0.filled.notify_one();
            }
            _ => {
                let outgoing =
                    Outgoing { setup: waiting.setup.clone(), received: waiting.since, placed: now };
                if let Err(admitted) = self.0.registry.place((admitted, engaged), outgoing) {
                    admitted.withdraw();
                    let why = "the node is overloaded".to_owned();
                    self.give_up(waiting, HangupCause::CpsExceeded, Some(why));
                }
            }
        }
    }
}

impl Exit for Dialer {
    fn start(
        &self,
        waiting: &Waiting,
        admission: CallAdmission,
        now: Instant,
    ) -> Result<(), Box<Admitted>> {
        let Inner { services, registry, .. } = &*self.0;
        let mut setup = waiting.setup.clone();
        setup.started = services.clock.wall();
        if !waiting.is_shared() {
            let outgoing = Outgoing { setup, received: waiting.since, placed: now };
            return registry.place(admission, outgoing);
        }
        self.in_transit().insert(setup.call, setup.clone());
        let (number, record) = (waiting.number.clone(), waiting.record);
        let waiting = Waiting { record, ..Waiting::new(number, setup, waiting.since, None) };
        services.tasks.spawn(self.clone().take_and_place(waiting, admission, now));
        Ok(())
    }

    fn is_late(&self, setup: &CallSetup) -> Option<(HangupCause, String)> {
        let why = "the multi-party call that it was to enter has ended";
        self.0.services.rooms.is_gone(setup).then(|| (HangupCause::MpcEnded, why.to_owned()))
    }

    fn note(&self, setup: &CallSetup) -> bool {
        let mut setup = setup.clone();
        setup.outbound.iter_mut().for_each(|outbound| outbound.is_queued = true);
        self.0.services.write_record(&setup)
    }

    fn give_up(&self, waiting: Waiting, cause: HangupCause, why: Option<String>) {
        let is_shared = waiting.is_shared();
        // The reservation ends after the record is written.
        let Waiting { mut setup, number, reservation, record, .. } = waiting;
        let call = setup.call;
        setup.started = self.0.services.clock.wall();
        if record != QueueRecord::Nothing {
            // The open record has the time of the request. If this fails, it keeps that.
            self.0.services.write_record(&setup);
        }
        self.end(setup, Some(&number), cause, why);
        if is_shared {
            self.0.services.store.waiting_calls().remove(call);
        }
        drop(reservation);
    }
}

impl Dialer {
    /// Ends a call that never began. If its number no longer exists, the outbox delivers its
    /// callbacks.
    fn end(
        &self,
        setup: CallSetup,
        number: Option<&NumberEntry>,
        cause: HangupCause,
        why: Option<String>,
    ) {
        let services = self.0.services.clone();
        info!(call_uuid = %setup.call, cause = cause.as_str(), "queued call given up");
        let summary = orphan_summary(setup.clone(), None, CallTime(0), cause);
        record::count(&summary);
        let end = CallEnd::of(&summary, setup.started, why.into_iter().collect(), Vec::new());
        let conclusion = Conclusion {
            start: CallStart::of(&setup, &services.node_id),
            end,
            callbacks: add_participant_failed(&setup, cause)
                .map(|notice| services.callback(&setup, notice))
                .into_iter()
                .chain(services.reports_of(&setup, &summary, &[], false))
                .collect(),
            farewell: None,
        };
        let keys: Option<SigningKeys> = number.map(|number| services.keys(&number.account));
        // The write is enqueued in the store before this returns.
        let concluded = services.store.calls().conclude(conclusion);
        let outbox = services.outbox.clone();
        services.tasks.spawn(async move {
            match (concluded.await, keys) {
                (Ok(concluded), Some(keys)) => concluded
                    .callbacks
                    .into_iter()
                    .for_each(|written| outbox.send(written, keys.clone())),
                (Ok(_), None) => {}
                (Err(error), _) => error!(%error, "call record not written"),
            }
        });
    }
}
