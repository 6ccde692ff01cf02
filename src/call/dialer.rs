//! Calls that are to be placed: each account's wait in their order for its calls per second (L6), and go out as soon as
//! there are some, never faster.
//!
//! Who places a call tries its queue at once; a task tries again when the next permit is due. What a call needs is asked
//! for at the head of its queue alone, so that none overtakes another. A call that can't go out after all has its record
//! and its hangup callback like every other (`plivo-callbacks.md` §2).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::machine::{CallSetup, CallTime, CallUrls, Outbound, abandoned};
use super::registry::{Outgoing, Registry};
use super::services::Services;
use crate::admission::{Denied, Gate, NumberEntry, Reason};
use crate::answer::SigningKeys;
use crate::model::{AuthId, CallType, CallUuid, Direction, E164, HangupCause, Method};
use crate::observe::names;
use crate::store::{CallEnd, CallStart, Conclusion};
use crate::xml::ast::DocUrl;

/// Calls of an account that wait, and how long one does at most (L6).
pub const QUEUE_MAX: usize = 1_000;
const WAIT_MAX: Duration = Duration::from_secs(120);
/// T_ring: Meta ends an unanswered call itself (L26).
const RING_MAX_MS: u64 = 60_000;
/// A queue is looked at so often at least, since a rate may be changed meanwhile.
const LOOK: Duration = Duration::from_millis(500);

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
    queues: Mutex<BTreeMap<AuthId, VecDeque<Waiting>>>,
    /// A queue has something to wait for.
    filled: Notify,
}

/// A call that waits.
struct Waiting {
    setup: CallSetup,
    number: Arc<NumberEntry>,
    since: Instant,
    /// It has an open record already.
    born: bool,
}

/// What became of a queue's first call.
enum Tried {
    Gone,
    /// It waits on, until then at least.
    Until(Instant),
}

impl Dialer {
    /// A dialer with nothing to do; [`Dialer::run`] has to run.
    pub fn new(services: Arc<Services>, registry: Registry, gate: Arc<Gate>) -> Self {
        Self(Arc::new(Inner { services, registry, gate, queues: Mutex::default(), filled: Notify::new() }))
    }

    /// Takes an order on, all of it or nothing; gives the calls in the order of `to`. Those that may go out at once do.
    ///
    /// # Errors
    /// What forbids it.
    pub fn place(&self, order: &CallOrder) -> Result<Vec<CallUuid>, NotPlaced> {
        let Inner { services, gate, .. } = &*self.0;
        if gate.is_draining() {
            return Err(NotPlaced::Draining);
        }
        let account = order.number.account.auth_id.clone();
        let now = services.clock.now();
        let mut queues = self.queues();
        let queued: BTreeSet<&str> = queues
            .values()
            .flatten()
            .filter(|waiting| waiting.setup.phone_number_id == order.number.spec.phone_number_id)
            .map(|waiting| waiting.setup.to.as_str())
            .collect();
        for to in &order.to {
            let denied = |denied| NotPlaced::Denied { to: to.clone(), denied };
            gate.may_be_placed(services.clock.wall(), &order.number, to.as_str(), services.permissions.consents())
                .map_err(denied)?;
            if queued.contains(to.as_str()) {
                return Err(denied(gate.user_busy(&order.number)));
            }
        }
        let queue = queues.entry(account).or_default();
        if queue.len() + order.to.len() > QUEUE_MAX {
            names::queue::refused(names::queue::DIALER);
            let next = gate.next_permit(now, &order.number.account);
            return Err(NotPlaced::QueueFull { after: next.saturating_duration_since(now) });
        }
        let calls: Vec<CallUuid> = order.to.iter().map(|_| CallUuid(services.uuid())).collect();
        for (call, to) in calls.iter().zip(&order.to) {
            let setup = self.setup(order, *call, to);
            queue.push_back(Waiting { setup, number: order.number.clone(), since: now, born: false });
        }
        if self.try_all(&mut queues).is_some() {
            self.0.filled.notify_one();
        }
        Ok(calls)
    }

    fn setup(&self, order: &CallOrder, call: CallUuid, to: &E164) -> CallSetup {
        let services = &self.0.services;
        let spec = &order.number.spec;
        let mut limits = services.settings.load().limits.clone();
        let time_limit_ms = u64::try_from(order.time_limit.as_millis()).unwrap_or(u64::MAX);
        limits.max_call_ms = limits.max_call_ms.min(time_limit_ms);
        let mut outbound = order.outbound.clone();
        outbound.ring_timeout_ms = outbound.ring_timeout_ms.min(RING_MAX_MS);
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

    /// The calls that wait, as they will begin.
    pub fn queued(&self) -> Vec<CallSetup> {
        self.queues().values().flatten().map(|waiting| waiting.setup.clone()).collect()
    }

    /// One of them.
    pub fn find(&self, call: CallUuid) -> Option<CallSetup> {
        self.queues().values().flatten().find(|waiting| waiting.setup.call == call).map(|w| w.setup.clone())
    }

    /// Takes a call out of its queue; `false`: it does not wait.
    pub fn cancel(&self, call: CallUuid) -> bool {
        let mut queues = self.queues();
        for queue in queues.values_mut() {
            if let Some(at) = queue.iter().position(|waiting| waiting.setup.call == call)
                && let Some(waiting) = queue.remove(at)
            {
                drop(queues);
                self.give_up(waiting, HangupCause::CancelledByApi, None);
                return true;
            }
        }
        false
    }

    /// Gives up all that wait: the node stops (R9).
    pub fn drain(&self) {
        let all = std::mem::take(&mut *self.queues());
        for waiting in all.into_values().flatten() {
            self.give_up(waiting, HangupCause::Drained, None);
        }
    }

    /// Lets calls out as their time comes, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let next = self.try_all(&mut self.queues());
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

    /// Lets out what may go out now; gives when to look again, if something waits.
    fn try_all(&self, queues: &mut BTreeMap<AuthId, VecDeque<Waiting>>) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        for queue in queues.values_mut() {
            while let Some(waiting) = queue.pop_front() {
                match self.try_one(waiting, queue) {
                    Tried::Gone => {}
                    Tried::Until(at) => {
                        next = Some(next.map_or(at, |next| next.min(at)));
                        break;
                    }
                }
            }
        }
        queues.retain(|_, queue| !queue.is_empty());
        for waiting in queues.values_mut().flatten().filter(|waiting| !waiting.born) {
            self.note(waiting);
        }
        next
    }

    /// Tries the call that was first in `queue`.
    fn try_one(&self, waiting: Waiting, queue: &mut VecDeque<Waiting>) -> Tried {
        let Inner { services, registry, gate, .. } = &*self.0;
        let now = services.clock.now();
        if now.saturating_duration_since(waiting.since) >= WAIT_MAX {
            let why = "it has waited two minutes for the account's calls per second; call more slowly, or raise cps";
            self.give_up(waiting, HangupCause::CpsExceeded, Some(why.to_owned()));
            return Tried::Gone;
        }
        let next = gate.next_permit(now, &waiting.number.account);
        if next > now {
            let at = next.min(now + LOOK).min(waiting.since + WAIT_MAX);
            queue.push_front(waiting);
            return Tried::Until(at);
        }
        let setup = &waiting.setup;
        match gate.admit_business(
            now,
            services.clock.wall(),
            &setup.phone_number_id,
            &setup.to,
            services.permissions.consents(),
        ) {
            Ok(let_in) => {
                let mut setup = setup.clone();
                setup.started = services.clock.wall();
                let outgoing = Outgoing { setup, received: waiting.since, placed: now };
                match registry.place(let_in, outgoing) {
                    Ok(()) => gate.count(Direction::Outbound, names::admission::ADMITTED),
                    Err(admitted) => {
                        admitted.withdraw();
                        gate.count(Direction::Outbound, Reason::Overloaded.as_str());
                        let why = "the node had no room for a further call".to_owned();
                        self.give_up(waiting, HangupCause::CpsExceeded, Some(why));
                    }
                }
                Tried::Gone
            }
            // Somebody else was faster by a hair.
            Err(denied) if denied.reason == Reason::CpsExceeded => {
                queue.push_front(waiting);
                Tried::Until(now + Duration::from_millis(1))
            }
            Err(denied) => {
                let cause = cause_of(denied.reason);
                self.give_up(waiting, cause, Some(format!("it was not placed: {denied}")));
                Tried::Gone
            }
        }
    }

    /// A call that waits has a record, whatever becomes of this process (R3).
    fn note(&self, waiting: &mut Waiting) {
        let services = &self.0.services;
        let start = CallStart::of(&waiting.setup, &services.node_id);
        waiting.born = services.store.call_born(start, &waiting.setup, services.clock.steady());
    }

    /// The call ends before it began: record and hangup callback, of no length.
    fn give_up(&self, waiting: Waiting, cause: HangupCause, why: Option<String>) {
        let services = self.0.services.clone();
        let Waiting { mut setup, number, .. } = waiting;
        info!(call_uuid = %setup.call, cause = cause.as_str(), "a call is not placed after all");
        setup.started = services.clock.wall();
        let summary = abandoned(setup.clone(), None, CallTime(0), cause);
        let end = CallEnd::of(&summary, setup.started, why.into_iter().collect(), Vec::new());
        let conclusion = Conclusion {
            start: CallStart::of(&setup, &services.node_id),
            end,
            callbacks: vec![services.callback(&setup, summary.hangup)],
            farewell: None,
        };
        let keys: SigningKeys = services.keys(&number);
        // Queued in the store before this returns.
        let concluded = services.store.conclude(conclusion);
        let outbox = services.outbox.clone();
        services.tasks.spawn(async move {
            match concluded.await {
                Ok(concluded) => concluded.callbacks.into_iter().for_each(|written| outbox.send(written, keys.clone())),
                Err(error) => error!(%error, "could not write the call's record"),
            }
        });
    }

    fn queues(&self) -> std::sync::MutexGuard<'_, BTreeMap<AuthId, VecDeque<Waiting>>> {
        self.0.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call that was denied when its turn came ends with (`plivo-callbacks.md` §6.3).
fn cause_of(reason: Reason) -> HangupCause {
    match reason {
        Reason::NumberFull => HangupCause::NumberFull,
        Reason::CpsExceeded | Reason::Overloaded => HangupCause::CpsExceeded,
        Reason::UnknownNumber | Reason::CallingDisabled => HangupCause::CallingDisabled,
        Reason::NoPermission => HangupCause::NoPermission,
        Reason::GeoBlocked => HangupCause::GeoBlocked,
        Reason::UserBusy => HangupCause::UserBusy,
        Reason::Draining => HangupCause::Drained,
        Reason::BadOffer | Reason::Duplicate => HangupCause::InternalError,
    }
}
