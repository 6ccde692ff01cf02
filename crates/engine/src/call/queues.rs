//! The calls that wait to go out: each account's in their order, for its calls per second (L6). Decided without IO.
//!
//! `dialer` carries out what becomes of them under tokio, `tests/simulation` in simulated time. What a call needs is
//! asked for at the head of its queue alone, so that none overtakes another.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dialer::NotPlaced;
use crate::admission::permission::{Consents, Engaged};
use crate::admission::{Admitted, Denied, Gate, NumberEntry, Reason};
use machine::CallSetup;
use model::Clock;
use model::metric;
use model::{AuthId, CallUuid, Direction, E164, HangupCause};

/// Calls of an account that wait, and how long one does at most (L6).
pub const QUEUE_MAX: usize = 1_000;
pub const WAIT_MAX: Duration = Duration::from_secs(120);
/// A queue is looked at so often at least, since a rate may be changed meanwhile.
const LOOK: Duration = Duration::from_millis(500);

/// A call that waits.
#[derive(Debug)]
pub struct Waiting {
    /// As it was ordered; `started` is set anew when it goes out.
    pub setup: CallSetup,
    pub number: Arc<NumberEntry>,
    /// It is not to go out before.
    pub since: Instant,
    /// It has an open record already.
    noted: bool,
}

/// Where calls leave the queue to. Asked with the queues locked: nothing here may block or wait.
pub trait Exit {
    /// The call begins now, and holds what it was let in with.
    ///
    /// # Errors
    /// No room for it, for a reason that is ours: the admission comes back.
    fn start(
        &self,
        waiting: &Waiting,
        let_in: (Admitted, Engaged),
        now: Instant,
    ) -> Result<(), Box<Admitted>>;

    /// What the call was to be placed for is over: with which cause it is given up, and why.
    fn is_late(&self, _: &CallSetup) -> Option<(HangupCause, String)> {
        None
    }

    /// The call ends before it began: record and hangup callback, of no length.
    fn give_up(&self, waiting: Waiting, cause: HangupCause, why: Option<String>);

    /// A call that waits gets its record, whatever becomes of this process (R3); `false`: it is to be tried again.
    fn note(&self, setup: &CallSetup) -> bool;
}

/// What calls are let out by.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub gate: &'a Gate,
    pub consents: &'a Consents,
    pub clock: &'a Clock,
}

/// The calls that wait, by account.
#[derive(Debug, Default)]
pub struct Queues(BTreeMap<AuthId, VecDeque<Waiting>>);

/// What became of a queue's first call.
enum Tried {
    Gone,
    /// It waits on, until then at least.
    Until(Instant),
}

impl Queues {
    /// Whether calls from `number` to these users may be ordered now: all of them, or none.
    ///
    /// # Errors
    /// What forbids it.
    pub fn may_take(
        &self,
        rules: Rules<'_>,
        number: &Arc<NumberEntry>,
        to: &[E164],
    ) -> Result<(), NotPlaced> {
        let Rules { gate, consents, clock } = rules;
        if gate.is_draining() {
            return Err(NotPlaced::Draining);
        }
        let of_number =
            |waiting: &&Waiting| waiting.setup.phone_number_id == number.spec.phone_number_id;
        let queued: BTreeSet<&str> =
            self.iter().filter(of_number).map(|waiting| waiting.setup.to.as_str()).collect();
        // Check by check, not user by user (`plivo-call-api.md` §2.1): who may not be called at all is told of before who is
        // on the line, and that before a number that is full.
        let mut later: Option<(&E164, Denied)> = None;
        for to in to {
            let asked = gate.may_be_placed(clock.wall(), number, to.as_str(), consents);
            let is_queued = queued.contains(to.as_str());
            let rank = |denied: &Denied| match denied.reason {
                Reason::NumberFull => 2,
                Reason::UserBusy => 1,
                _ => 0,
            };
            let denied = match asked {
                Ok(()) if !is_queued => continue,
                Ok(()) => gate.user_busy(number),
                Err(denied) if rank(&denied) == 0 => {
                    return Err(NotPlaced::Denied { to: to.clone(), denied });
                }
                Err(denied) => denied,
            };
            if later.as_ref().is_none_or(|(_, first)| rank(&denied) < rank(first)) {
                later = Some((to, denied));
            }
        }
        if let Some((to, denied)) = later {
            return Err(NotPlaced::Denied { to: to.clone(), denied });
        }
        let waiting = self.0.get(&number.account.auth_id).map_or(0, VecDeque::len);
        if waiting + to.len() > QUEUE_MAX {
            crate::count_refused(metric::queue::DIALER);
            let now = clock.now();
            let next = gate.next_permit(now, &number.account);
            return Err(NotPlaced::QueueFull { after: next.saturating_duration_since(now) });
        }
        Ok(())
    }

    /// Puts a call behind those of its account; one that is wanted later than now is overtaken until then.
    pub fn push(&mut self, number: Arc<NumberEntry>, setup: CallSetup, since: Instant) {
        let account = number.account.auth_id.clone();
        self.0.entry(account).or_default().push_back(Waiting {
            setup,
            number,
            since,
            noted: false,
        });
    }

    /// The calls that wait; those of one account in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.0.values().flatten()
    }

    /// Takes a call out, if it waits.
    pub fn remove(&mut self, call: CallUuid) -> Option<Waiting> {
        self.0.values_mut().find_map(|queue| {
            let at = queue.iter().position(|waiting| waiting.setup.call == call)?;
            queue.remove(at)
        })
    }

    /// Lets out what may go out now, and ends what has waited too long; gives when to look again, if something waits.
    pub fn let_out(&mut self, rules: Rules<'_>, exit: &impl Exit) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut look_at = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        for queue in self.0.values_mut() {
            let now = rules.clock.now();
            while let Some(first) = queue.iter().position(|waiting| waiting.since <= now)
                && let Some(waiting) = queue.remove(first)
            {
                match try_one(waiting, queue, rules, exit) {
                    Tried::Gone => {}
                    Tried::Until(at) => {
                        look_at(at);
                        break;
                    }
                }
            }
            queue
                .iter()
                .map(|waiting| waiting.since)
                .filter(|since| *since > now)
                .for_each(&mut look_at);
        }
        self.0.retain(|_, queue| !queue.is_empty());
        for waiting in self.0.values_mut().flatten().filter(|waiting| !waiting.noted) {
            waiting.noted = exit.note(&waiting.setup);
        }
        next
    }
}

impl IntoIterator for Queues {
    type Item = Waiting;
    type IntoIter =
        std::iter::Flatten<std::collections::btree_map::IntoValues<AuthId, VecDeque<Waiting>>>;

    /// All that wait; those of one account in their order.
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values().flatten()
    }
}

/// Tries the call that was first in `queue`.
fn try_one(
    waiting: Waiting,
    queue: &mut VecDeque<Waiting>,
    rules: Rules<'_>,
    exit: &impl Exit,
) -> Tried {
    let Rules { gate, consents, clock } = rules;
    let now = clock.now();
    if now.saturating_duration_since(waiting.since) >= WAIT_MAX {
        let why = "it has waited two minutes for the account's calls per second; call more slowly, or raise cps";
        exit.give_up(waiting, HangupCause::CpsExceeded, Some(why.to_owned()));
        return Tried::Gone;
    }
    if let Some((cause, why)) = exit.is_late(&waiting.setup) {
        exit.give_up(waiting, cause, Some(why));
        return Tried::Gone;
    }
    let next = gate.next_permit(now, &waiting.number.account);
    if next > now {
        let at = next.min(now + LOOK).min(waiting.since + WAIT_MAX);
        queue.push_front(waiting);
        return Tried::Until(at);
    }
    let setup = &waiting.setup;
    match gate.admit_business(now, clock.wall(), &setup.phone_number_id, &setup.to, consents) {
        Ok(let_in) => {
            match exit.start(&waiting, let_in, now) {
                Ok(()) => gate.count(Direction::Outbound, metric::admission::ADMITTED),
                Err(admitted) => {
                    admitted.withdraw();
                    gate.count(Direction::Outbound, Reason::Overloaded.as_str());
                    let why = "the node had no room for a further call".to_owned();
                    exit.give_up(waiting, HangupCause::CpsExceeded, Some(why));
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
            exit.give_up(
                waiting,
                cause_of(denied.reason),
                Some(format!("it was not placed: {denied}")),
            );
            Tried::Gone
        }
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
