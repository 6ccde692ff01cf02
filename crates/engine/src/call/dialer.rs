//! Places outbound calls. The calls of each account wait in order for its calls per second
//! (`docs/reference/limits.md#l6`) and never go out faster. `queues` decides which call goes next.
//!
//! Placing a call tries the queue immediately; a task tries again when the next permit is due. A
//! call that cannot be placed gets a record and a hangup callback like every other call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::queues::{Exit, Queues, Rules, Waiting};
use super::registry::{CallAdmission, Outgoing, Registry};
use super::services::Services;
use crate::admission::permission::Reservation;
use crate::admission::{Admitted, Denied, Gate, NumberEntry};
use crate::answer::SigningKeys;
use machine::{
    CallSetup, CallTime, CallUrls, Outbound, RING_MAX_MS, add_participant_failed, orphan_summary,
};
use model::{CallType, CallUuid, Direction, E164, HangupCause, Method};
use store::{CallEnd, CallStart, Conclusion};
use xml::ast::DocUrl;

/// Calls to place: one to each entry of `to`, with the same properties.
#[derive(Clone, Debug)]
pub struct CallOrder {
    pub number: Arc<NumberEntry>,
    pub to: Vec<E164>,
    pub answer: (DocUrl, Method),
    pub fallback: Option<(DocUrl, Method)>,
    /// Equal to the answer URL if none was set.
    pub hangup: (DocUrl, Method),
    pub caller_name: String,
    pub headers: Vec<(String, String)>,
    /// Counted from the answer. The node's own limit applies as well.
    pub time_limit: Duration,
    pub outbound: Outbound,
    /// Differences of single targets, in the order of `to`. May be shorter than `to`.
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

/// Why no call of an order was placed.
#[derive(Clone, Debug)]
pub enum NotPlaced {
    /// The call to this user was denied.
    Denied {
        to: E164,
        denied: Denied,
    },
    /// The account's queue is full. `after` is when to try again.
    QueueFull {
        after: Duration,
    },
    Draining,
}

/// Places calls from the queues. Cheap to clone.
#[derive(Clone)]
pub struct Dialer(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    registry: Registry,
    gate: Arc<Gate>,
    queues: Mutex<Queues>,
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
            filled: Notify::new(),
        }))
    }

    /// Accepts an order as a whole or not at all. Returns the call ids in the order of `to`. Calls
    /// that have a permit are placed before this returns.
    ///
    /// # Errors
    /// Returns the limit or rule that forbids the order.
    pub async fn place(&self, order: &CallOrder) -> Result<Vec<CallUuid>, NotPlaced> {
        let services = &self.0.services;
        let mut reservations = self.reserve(order).await?.into_iter();
        let mut queues = self.queues();
        queues.check_order(self.rules(), &order.number, &order.to)?;
        let calls: Vec<CallUuid> = order.to.iter().map(|_| CallUuid(services.uuid())).collect();
        let now = services.clock.now();
        for (n, (call, to)) in calls.iter().zip(&order.to).enumerate() {
            let each = order.each.get(n).copied().unwrap_or_default();
            let (setup, since) = (self.setup(order, *call, to, each), now + each.after);
            queues.push(order.number.clone(), setup, since, reservations.next().flatten());
        }
        if queues.release(self.rules(), &*self.0).is_some() {
            self.0.filled.notify_one();
        }
        Ok(calls)
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

    /// Passes the setup of each queued call to `look`.
    pub fn each(&self, mut look: impl FnMut(&CallSetup)) {
        self.queues().iter().for_each(|waiting| look(&waiting.setup));
    }

    /// Returns the setups of all queued calls.
    pub fn queued(&self) -> Vec<CallSetup> {
        self.queues().iter().map(|waiting| waiting.setup.clone()).collect()
    }

    /// Returns the setup of a queued call.
    pub fn find(&self, call: CallUuid) -> Option<CallSetup> {
        self.queues()
            .iter()
            .find(|waiting| waiting.setup.call == call)
            .map(|waiting| waiting.setup.clone())
    }

    /// Removes a call from its queue. Returns `false` if it is not queued.
    pub fn cancel(&self, call: CallUuid) -> bool {
        let waiting = self.queues().remove(call);
        let waited = waiting.is_some();
        waiting
            .into_iter()
            .for_each(|waiting| self.0.give_up(waiting, HangupCause::CancelledByApi, None));
        waited
    }

    /// Gives up all queued calls because the node is draining.
    pub fn drain(&self) {
        let all = std::mem::take(&mut *self.queues());
        all.into_iter().for_each(|waiting| self.0.give_up(waiting, HangupCause::Drained, None));
    }

    /// Places queued calls when their time comes, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let next = self.queues().release(self.rules(), &*self.0);
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

    fn queues(&self) -> std::sync::MutexGuard<'_, Queues> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exit for Inner {
    fn start(
        &self,
        waiting: &Waiting,
        admission: CallAdmission,
        now: Instant,
    ) -> Result<(), Box<Admitted>> {
        let mut setup = waiting.setup.clone();
        setup.started = self.services.clock.wall();
        self.registry.place(admission, Outgoing { setup, received: waiting.since, placed: now })
    }

    fn is_late(&self, setup: &CallSetup) -> Option<(HangupCause, String)> {
        let why = "the multi-party call that it was to enter has ended";
        self.services.rooms.is_gone(setup).then(|| (HangupCause::MpcEnded, why.to_owned()))
    }

    fn note(&self, setup: &CallSetup) -> bool {
        let services = &self.services;
        services.store.calls().begin(
            CallStart::of(setup, &services.node_id),
            setup,
            services.clock.steady(),
        )
    }

    fn give_up(&self, waiting: Waiting, cause: HangupCause, why: Option<String>) {
        let services = self.services.clone();
        let Waiting { mut setup, number, .. } = waiting;
        info!(call_uuid = %setup.call, cause = cause.as_str(), "queued call given up");
        setup.started = services.clock.wall();
        let summary = orphan_summary(setup.clone(), None, CallTime(0), cause);
        let end = CallEnd::of(&summary, setup.started, why.into_iter().collect(), Vec::new());
        let conclusion = Conclusion {
            start: CallStart::of(&setup, &services.node_id),
            end,
            callbacks: add_participant_failed(&setup, cause)
                .map(|notice| services.callback(&setup, notice))
                .into_iter()
                .chain(services.reports(&setup, &summary))
                .collect(),
            farewell: None,
        };
        let keys: SigningKeys = services.keys(&number.account);
        // The write is enqueued in the store before this returns.
        let concluded = services.store.calls().conclude(conclusion);
        let outbox = services.outbox.clone();
        services.tasks.spawn(async move {
            match concluded.await {
                Ok(concluded) => concluded
                    .callbacks
                    .into_iter()
                    .for_each(|written| outbox.send(written, keys.clone())),
                Err(error) => error!(%error, "call record not written"),
            }
        });
    }
}
