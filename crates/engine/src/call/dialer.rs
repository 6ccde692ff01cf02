//! Calls that are to be placed: each account's wait in their order for its calls per second (L6), and go out as soon as
//! there are some, never faster. Which goes when is decided in `queues`.
//!
//! Who places a call tries its queue at once; a task tries again when the next permit is due. A call that can't go out
//! after all has its record and its hangup callback like every other (`plivo-callbacks.md` §2).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::queues::{Exit, Queues, Rules, Waiting};
use super::registry::{LetIn, Outgoing, Registry};
use super::services::Services;
use crate::admission::{Admitted, Denied, Gate, NumberEntry};
use crate::answer::SigningKeys;
use machine::{
    CallSetup, CallTime, CallUrls, Outbound, RING_MAX_MS, add_participant_failed, orphan_summary,
};
use model::{CallType, CallUuid, Direction, E164, HangupCause, Method};
use store::{CallEnd, CallStart, Conclusion};
use xml::ast::DocUrl;

/// Calls to be placed: one to each of `to`, alike but for that.
#[derive(Clone, Debug)]
pub struct CallOrder {
    pub number: Arc<NumberEntry>,
    pub to: Vec<E164>,
    pub answer: (DocUrl, Method),
    pub fallback: Option<(DocUrl, Method)>,
    /// Already the answer URL where none was set.
    pub hangup: (DocUrl, Method),
    pub caller_name: String,
    pub headers: Vec<(String, String)>,
    /// From the answer; the node's own limit holds beside it.
    pub time_limit: Duration,
    pub outbound: Outbound,
    /// What is otherwise for some of `to`, in their order.
    pub each: Vec<Each>,
}

/// What is one target's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct Each {
    /// In place of the order's.
    pub ring_timeout_ms: Option<u64>,
    /// It is called so much later.
    pub after: Duration,
}

/// Why no call of an order was placed.
#[derive(Clone, Debug)]
pub enum NotPlaced {
    /// To this user.
    Denied {
        to: E164,
        denied: Denied,
    },
    /// As many calls of the account wait as may; try again after this.
    QueueFull {
        after: Duration,
    },
    Draining,
}

/// See the module's note; cheap to clone.
#[derive(Clone)]
pub struct Dialer(Arc<Inner>);

struct Inner {
    services: Arc<Services>,
    registry: Registry,
    gate: Arc<Gate>,
    queues: Mutex<Queues>,
    /// A queue has something to wait for.
    filled: Notify,
}

impl Dialer {
    /// A dialer with nothing to do; [`Dialer::run`] has to run.
    pub fn new(services: Arc<Services>, registry: Registry, gate: Arc<Gate>) -> Self {
        Self(Arc::new(Inner {
            services,
            registry,
            gate,
            queues: Mutex::default(),
            filled: Notify::new(),
        }))
    }

    /// Takes an order on, all of it or nothing; gives the calls in the order of `to`. Those that may go out at once do.
    ///
    /// # Errors
    /// What forbids it.
    pub fn place(&self, order: &CallOrder) -> Result<Vec<CallUuid>, NotPlaced> {
        let services = &self.0.services;
        let mut queues = self.queues();
        queues.may_take(self.rules(), &order.number, &order.to)?;
        let calls: Vec<CallUuid> = order.to.iter().map(|_| CallUuid(services.uuid())).collect();
        let now = services.clock.now();
        for (n, (call, to)) in calls.iter().zip(&order.to).enumerate() {
            let each = order.each.get(n).copied().unwrap_or_default();
            queues.push(order.number.clone(), self.setup(order, *call, to, each), now + each.after);
        }
        if queues.let_out(self.rules(), &*self.0).is_some() {
            self.0.filled.notify_one();
        }
        Ok(calls)
    }

    fn rules(&self) -> Rules<'_> {
        let Inner { services, gate, .. } = &*self.0;
        Rules { gate, consents: services.permissions.consents(), clock: &services.clock }
    }

    fn setup(&self, order: &CallOrder, call: CallUuid, to: &E164, each: Each) -> CallSetup {
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

    /// Shows each call that waits, as it will begin.
    pub fn each(&self, mut look: impl FnMut(&CallSetup)) {
        self.queues().iter().for_each(|waiting| look(&waiting.setup));
    }

    /// The calls that wait, as they will begin.
    pub fn queued(&self) -> Vec<CallSetup> {
        self.queues().iter().map(|waiting| waiting.setup.clone()).collect()
    }

    /// One of them.
    pub fn find(&self, call: CallUuid) -> Option<CallSetup> {
        self.queues()
            .iter()
            .find(|waiting| waiting.setup.call == call)
            .map(|waiting| waiting.setup.clone())
    }

    /// Takes a call out of its queue; `false`: it does not wait.
    pub fn cancel(&self, call: CallUuid) -> bool {
        let waiting = self.queues().remove(call);
        let waited = waiting.is_some();
        waiting
            .into_iter()
            .for_each(|waiting| self.0.give_up(waiting, HangupCause::CancelledByApi, None));
        waited
    }

    /// Gives up all that wait: the node stops (R9).
    pub fn drain(&self) {
        let all = std::mem::take(&mut *self.queues());
        all.into_iter().for_each(|waiting| self.0.give_up(waiting, HangupCause::Drained, None));
    }

    /// Lets calls out as their time comes, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let next = self.queues().let_out(self.rules(), &*self.0);
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
    fn start(&self, waiting: &Waiting, let_in: LetIn, now: Instant) -> Result<(), Box<Admitted>> {
        let mut setup = waiting.setup.clone();
        setup.started = self.services.clock.wall();
        self.registry.place(let_in, Outgoing { setup, received: waiting.since, placed: now })
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
        info!(call_uuid = %setup.call, cause = cause.as_str(), "a call is not placed after all");
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
        // Queued in the store before this returns.
        let concluded = services.store.calls().conclude(conclusion);
        let outbox = services.outbox.clone();
        services.tasks.spawn(async move {
            match concluded.await {
                Ok(concluded) => concluded
                    .callbacks
                    .into_iter()
                    .for_each(|written| outbox.send(written, keys.clone())),
                Err(error) => error!(%error, "could not write the call's record"),
            }
        });
    }
}
