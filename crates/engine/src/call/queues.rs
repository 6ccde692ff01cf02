//! Queues of outbound calls that wait for the calls per second of their account
//! (`docs/reference/limits.md#l6`). This module has no I/O.
//!
//! `dialer` executes the decisions under tokio, `tests/simulation` in simulated time. Admission is
//! only tried at the head of a queue, so calls of one account cannot overtake each other. Among the
//! heads, the one that has waited longest is tried first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admission::permission::{Consents, Engaged, Reservation};
use crate::admission::{Admitted, Denied, Gate, NumberEntry, Reason};
use machine::CallSetup;
use model::Clock;
use model::metric;
use model::{AuthId, CallUuid, Direction, E164, HangupCause};

/// Maximum number of queued calls of an account.
pub const QUEUE_MAX: usize = 1_000;
/// Maximum time that a call waits in the queue.
pub const WAIT_MAX: Duration = Duration::from_secs(120);
/// Number of calls that a main account may request at once, beyond its calls per second. It exceeds
/// a full queue, so that only an account that cancels its calls again and again reaches it.
const REQUESTS_MAX: u32 = 2_000;
/// Maximum interval between two attempts. It bounds the delay after a change of the account's rate.
const LOOK: Duration = Duration::from_millis(500);

/// A queued call.
#[derive(Debug)]
pub struct Waiting {
    /// The setup as ordered. `started` is set again when the call is placed.
    pub setup: CallSetup,
    pub number: Arc<NumberEntry>,
    /// Time before which the call must not be placed.
    pub since: Instant,
    /// Keeps the other nodes of a fleet from calling the user.
    pub(super) reservation: Option<Reservation>,
    pub(super) record: QueueRecord,
    /// Time before which the call is not tried.
    pub(super) retry: Instant,
    /// Time since which the call has waited for units that other nodes of the fleet may release.
    pub(super) lacking: Option<Instant>,
}

/// The state of a queued call in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QueueRecord {
    Nothing,
    /// The record is open: a crash of the node ends the call.
    Open,
    /// The call is a row of the fleet's waiting calls and has an open record. If the node dies,
    /// another one adopts the call. The node removes the row before it places the call.
    Shared,
    /// The state is unknown, because the database did not answer. It may be [`Self::Shared`].
    Unknown,
}

impl Waiting {
    /// Creates a call that may be placed from `since` on.
    pub fn new(
        number: Arc<NumberEntry>,
        setup: CallSetup,
        since: Instant,
        reservation: Option<Reservation>,
    ) -> Self {
        let record = QueueRecord::Nothing;
        Self { setup, number, since, reservation, record, retry: since, lacking: None }
    }

    fn account(&self) -> AuthId {
        self.number.account.auth_id.clone()
    }

    /// Whether the call must be taken out of the fleet's queue before it is placed.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.record, QueueRecord::Shared | QueueRecord::Unknown)
    }
}

/// Receives the calls that leave the queue. Called with the queues locked, so no method may block
/// or wait.
pub trait Exit {
    /// Starts the call, which then holds its admission.
    ///
    /// # Errors
    /// Returns the admission if the node has no capacity for the call.
    fn start(
        &self,
        waiting: &Waiting,
        admission: (Admitted, Engaged),
        now: Instant,
    ) -> Result<(), Box<Admitted>>;

    /// Returns the hangup cause and an explanation if the purpose of the call no longer exists.
    fn is_late(&self, _: &CallSetup) -> Option<(HangupCause, String)> {
        None
    }

    /// Ends a call that never began: writes its record with a duration of zero and its hangup
    /// callback.
    fn give_up(&self, waiting: Waiting, cause: HangupCause, why: Option<String>);

    /// Writes the record of a queued call, so that it survives a crash. Returns `false` if the
    /// store did not accept it; the write is then retried.
    fn note(&self, setup: &CallSetup) -> bool;
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
    /// The account has requested, and cancelled, calls faster than it may place them. `after` is
    /// when to try again.
    TooManyRequests {
        after: Duration,
    },
    Draining,
    /// The node can neither store nor journal a call.
    StoreBroken,
}

/// Limits the calls that main accounts request, because each one that is cancelled in its queue has
/// a record and a callback, too: 2,000 at once, then as many as their calls per second.
///
/// For each account, contains the time at which its calls per second would have covered its requests
/// (the generic cell rate algorithm).
#[derive(Debug, Default)]
pub struct RequestLimits(BTreeMap<AuthId, Instant>);

impl RequestLimits {
    /// Counts `calls` more requested calls of a number's main account.
    ///
    /// # Errors
    /// Returns [`NotPlaced::TooManyRequests`]. The calls are not counted then.
    pub fn count(
        &mut self,
        now: Instant,
        account: &AuthId,
        cps: u32,
        calls: u32,
    ) -> Result<(), NotPlaced> {
        let each = Duration::from_secs(1) / cps.max(1);
        let covered = self.0.get(account).copied().unwrap_or(now).max(now) + each * calls;
        let most = now + each * REQUESTS_MAX;
        if covered > most {
            let after = covered.saturating_duration_since(most);
            return Err(NotPlaced::TooManyRequests { after });
        }
        self.0.retain(|_, covered| *covered > now);
        self.0.insert(account.clone(), covered);
        Ok(())
    }
}

/// The limits that a call must satisfy to leave its queue.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    pub gate: &'a Gate,
    pub consents: &'a Consents,
    pub clock: &'a Clock,
}

/// Queued calls by account.
#[derive(Debug, Default)]
pub struct Queues(BTreeMap<AuthId, VecDeque<Waiting>>);

/// Result of trying the first call of a queue.
enum TryResult {
    Gone,
    /// The call stays queued. Try again at this time.
    Until(Instant),
}

impl Queues {
    /// Checks whether calls from `number` to all of these users may be queued.
    ///
    /// # Errors
    /// Returns the first limit or rule that forbids it.
    pub fn check_order(
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
        // The error with the highest priority wins, whichever user it concerns: users that may not
        // be called at all, then busy users, then a full number.
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

    /// Appends a call to the queue of its account. Calls behind it may overtake it until `since`.
    pub fn push(
        &mut self,
        number: Arc<NumberEntry>,
        setup: CallSetup,
        since: Instant,
        reservation: Option<Reservation>,
    ) {
        self.put(Waiting::new(number, setup, since, reservation));
    }

    /// Appends a call to the queue of its account.
    pub(super) fn put(&mut self, waiting: Waiting) {
        self.0.entry(waiting.account()).or_default().push_back(waiting);
    }

    /// Returns a call to the head of the queue of its account.
    pub(super) fn put_back(&mut self, waiting: Waiting) {
        self.0.entry(waiting.account()).or_default().push_front(waiting);
    }

    /// Places a call at once, or returns it if it has to wait.
    pub(super) fn place_now(
        &mut self,
        waiting: Waiting,
        rules: Rules<'_>,
        exit: &impl Exit,
    ) -> Option<Waiting> {
        let is_later = waiting.since > rules.clock.now();
        // It must not overtake calls that share the main account's calls per second.
        let main = &waiting.number.account.main().auth_id;
        let now = rules.clock.now();
        let waits_for_permit =
            |queued: &Waiting| queued.number.account.main().auth_id == *main && queued.since <= now;
        if is_later || self.0.values().flatten().any(waits_for_permit) {
            return Some(waiting);
        }
        let mut queue = VecDeque::new();
        match try_one(waiting, &mut queue, rules, exit) {
            TryResult::Gone | TryResult::Until(_) => queue.pop_front(),
        }
    }

    /// Iterates over the queued calls, in order per account.
    pub fn iter(&self) -> impl Iterator<Item = &Waiting> {
        self.0.values().flatten()
    }

    /// Removes a queued call.
    pub fn remove(&mut self, call: CallUuid) -> Option<Waiting> {
        self.0.values_mut().find_map(|queue| {
            let at = queue.iter().position(|waiting| waiting.setup.call == call)?;
            queue.remove(at)
        })
    }

    /// Places the calls that are due and gives up those that waited too long. Returns when to try
    /// again, or `None` if the queues are empty.
    pub fn release(&mut self, rules: Rules<'_>, exit: &impl Exit) -> Option<Instant> {
        let now = rules.clock.now();
        let mut next: Option<Instant> = None;
        let mut look_at = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        let first_due = |queue: &VecDeque<Waiting>| {
            let first = queue.iter().position(|waiting| waiting.retry <= now)?;
            Some((queue.get(first)?.since, first))
        };
        // The accounts with a due call, ordered by how long it has waited: those with the same main
        // account share its calls per second, and none of them may starve the others.
        let due = |(account, queue): (&AuthId, _)| Some((first_due(queue)?.0, account.clone()));
        let mut due: BTreeSet<(Instant, AuthId)> = self.0.iter().filter_map(due).collect();
        while let Some((_, account)) = due.pop_first() {
            let Some(queue) = self.0.get_mut(&account) else { continue };
            let first = first_due(queue).and_then(|(_, first)| queue.remove(first));
            let Some(waiting) = first else { continue };
            match try_one(waiting, queue, rules, exit) {
                TryResult::Gone => due.extend(first_due(queue).map(|(since, _)| (since, account))),
                TryResult::Until(at) => look_at(at),
            }
        }
        let retries = self.0.values().flatten().map(|waiting| waiting.retry);
        retries.filter(|retry| *retry > now).for_each(look_at);
        self.0.retain(|_, queue| !queue.is_empty());
        let unrecorded = |waiting: &&mut Waiting| waiting.record == QueueRecord::Nothing;
        for waiting in self.0.values_mut().flatten().filter(unrecorded) {
            if exit.note(&waiting.setup) {
                waiting.record = QueueRecord::Open;
            }
        }
        next
    }
}

impl IntoIterator for Queues {
    type Item = Waiting;
    type IntoIter =
        std::iter::Flatten<std::collections::btree_map::IntoValues<AuthId, VecDeque<Waiting>>>;

    /// Iterates over the queued calls, in order per account.
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_values().flatten()
    }
}

/// Tries to place `waiting`, which was the first call of `queue`.
fn try_one(
    mut waiting: Waiting,
    queue: &mut VecDeque<Waiting>,
    rules: Rules<'_>,
    exit: &impl Exit,
) -> TryResult {
    let Rules { gate, consents, clock } = rules;
    let now = clock.now();
    if now.saturating_duration_since(waiting.since) >= WAIT_MAX {
        let why = "the call waited two minutes for the account's calls per second: place fewer calls or raise cps";
        gate.count(Direction::Outbound, metric::admission::CPS_EXCEEDED);
        exit.give_up(waiting, HangupCause::CpsExceeded, Some(why.to_owned()));
        return TryResult::Gone;
    }
    if let Some((cause, why)) = exit.is_late(&waiting.setup) {
        exit.give_up(waiting, cause, Some(why));
        return TryResult::Gone;
    }
    let number = gate.directory().number(&waiting.setup.phone_number_id);
    if number.is_some_and(|number| number.account.auth_id != waiting.setup.account) {
        let why = "the number was assigned to another account while the call waited";
        gate.count(Direction::Outbound, metric::admission::CALLING_DISABLED);
        exit.give_up(waiting, HangupCause::CallingDisabled, Some(why.to_owned()));
        return TryResult::Gone;
    }
    let next = gate.next_permit(now, &waiting.number.account);
    if next > now {
        let at = next.min(now + LOOK).min(waiting.since + WAIT_MAX);
        queue.push_front(waiting);
        return TryResult::Until(at);
    }
    let setup = &waiting.setup;
    match gate.try_business(now, clock.wall(), &setup.phone_number_id, &setup.to, consents) {
        Ok(mut admission) => {
            let is_reserved = waiting.reservation.is_some();
            admission.1.hold(waiting.reservation.take());
            match exit.start(&waiting, admission, now) {
                Ok(()) => gate.count(Direction::Outbound, metric::admission::ADMITTED),
                // To give the call up now would be more work for a node that has too much.
                Err(admitted) if !is_reserved => {
                    admitted.withdraw();
                    queue.push_front(waiting);
                    return TryResult::Until(now + LOOK);
                }
                // The reservation is gone: another node of the fleet may call the user.
                Err(admitted) => {
                    admitted.withdraw();
                    gate.count(Direction::Outbound, metric::admission::OVERLOADED);
                    let why = "the node is overloaded".to_owned();
                    exit.give_up(waiting, HangupCause::CpsExceeded, Some(why));
                }
            }
            TryResult::Gone
        }
        Err(denied)
            if let Some(at) = gate.retry_at(now, *waiting.lacking.get_or_insert(now), &denied) =>
        {
            queue.push_front(waiting);
            TryResult::Until(at)
        }
        // Another call took the permit in the meantime.
        Err(denied) if denied.reason == Reason::CpsExceeded => {
            queue.push_front(waiting);
            TryResult::Until(now + Duration::from_millis(1))
        }
        Err(denied) => {
            // No unit came in time. The next call of the number does not wait again.
            let is_of_number =
                |next: &&mut Waiting| next.setup.phone_number_id == waiting.setup.phone_number_id;
            if let Some(next) = queue.iter_mut().find(is_of_number) {
                next.lacking = next.lacking.or(waiting.lacking);
            }
            // Not counted for its number: unlike a call that is refused at once, it has a record.
            gate.count(Direction::Outbound, denied.reason.as_str());
            exit.give_up(
                waiting,
                cause_of(denied.reason),
                Some(format!("the call was not placed: {denied}")),
            );
            TryResult::Gone
        }
    }
}

/// Hangup cause of a call that is denied at the head of its queue
/// (`docs/reference/hangup-causes.md`).
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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::{Exit, NotPlaced, Queues, REQUESTS_MAX, RequestLimits, Rules, Waiting};
    use crate::admission::permission::{self, Consents, Engaged, PairKey};
    use crate::admission::{AccountSpec, Admitted, Directory, Gate, NumberEntry, NumberSpec};
    use machine::{CallSetup, CallUrls, MachineLimits};
    use model::{
        AuthId, CallType, CallUuid, Clock, Direction, HangupCause, Method, PhoneNumberId, Timestamp,
    };
    use xml::ast::DocUrl;

    /// The users of the started calls, in order.
    #[derive(Default)]
    struct Started(RefCell<Vec<String>>);

    impl Exit for Started {
        fn start(
            &self,
            waiting: &Waiting,
            _: (Admitted, Engaged),
            _: Instant,
        ) -> Result<(), Box<Admitted>> {
            self.0.borrow_mut().push(waiting.setup.to.clone());
            Ok(())
        }

        fn give_up(&self, waiting: Waiting, cause: HangupCause, why: Option<String>) {
            panic!("a call to {} is given up: {cause:?} {why:?}", waiting.setup.to);
        }

        fn note(&self, _: &CallSetup) -> bool {
            true
        }
    }

    /// A number of a subaccount without calls per second of its own.
    fn number(account: &str, digits: &str) -> NumberSpec {
        NumberSpec::for_tests(digits, digits, account)
    }

    fn setup(number: &NumberEntry, to: &str) -> CallSetup {
        let url = DocUrl("https://app.example.com/".into());
        CallSetup {
            call: CallUuid(uuid::Uuid::from_u128(to.parse().unwrap())),
            direction: Direction::Outbound,
            call_type: CallType::Whatsapp,
            wacid: None,
            phone_number_id: number.spec.phone_number_id.clone(),
            from: number.spec.number.to_string(),
            to: to.to_owned(),
            caller_name: String::new(),
            cta_payload: None,
            deeplink_payload: None,
            account: number.account.auth_id.clone(),
            parent_account: number.account.main().auth_id.clone(),
            urls: CallUrls {
                answer: url.clone(),
                answer_method: Method::Post,
                fallback: None,
                hangup: (url, Method::Post),
            },
            started: Timestamp::default(),
            limits: MachineLimits::default(),
            headers: Vec::new(),
            outbound: None,
        }
    }

    #[test]
    fn accounts_that_share_calls_per_second_are_served_in_the_order_of_their_calls() {
        let clock = Clock::stepped(Timestamp::from_secs(1_790_000_000));
        let account = |id: &str, parent: Option<&str>, cps| AccountSpec {
            auth_id: id.into(),
            parent: parent.map(AuthId::from),
            cps,
            tokens: Vec::new(),
        };
        let directory = Arc::new(Directory::new(10));
        let accounts = vec![
            account("MA1", None, Some(1)),
            account("SA1", Some("MA1"), None),
            account("SA2", Some("MA1"), None),
            account("MA2", None, Some(1)),
        ];
        let numbers = [("SA1", "918035737451"), ("SA2", "918035737452"), ("MA2", "918035737453")];
        let specs = numbers.map(|(account, digits)| number(account, digits));
        directory.replace(accounts, specs.to_vec()).unwrap();
        let gate = Gate::new(directory.clone(), clock.now());
        let (consents, exit, mut queues) = (Consents::new(), Started::default(), Queues::default());
        let rules = Rules { gate: &gate, consents: &consents, clock: &clock };
        let entry = |n: usize| directory.number(&PhoneNumberId::from(numbers[n].1)).unwrap();
        let waiting = |n: usize, to: &str| {
            let (number, at) = (entry(n), clock.steady());
            let reply =
                permission::Reply::Accept { permanent: true, expiration: None, automatic: false };
            let key = PairKey::new(&number.spec.phone_number_id, to);
            let granted = permission::Event::Replied { at: Some(at), reply };
            consents.apply(&key, &permission::Rules::default(), at, granted);
            let setup = setup(&number, to);
            Waiting::new(number, setup, clock.now(), None)
        };
        let second = Duration::from_secs(1);
        // SA1 always has calls to place, and SA2 only one.
        for call in [(0, "911"), (0, "912"), (1, "921"), (0, "913"), (2, "931")] {
            queues.put(waiting(call.0, call.1));
            clock.step(Duration::from_millis(1));
        }
        for _ in 0..4 {
            queues.release(rules, &exit);
            clock.step(second);
            queues.put(waiting(0, &format!("{}", 914 + exit.0.borrow().len())));
        }
        assert_eq!(*exit.0.borrow(), ["911", "931", "912", "921", "913"]);

        // In a fleet, a call does not overtake those of another account either.
        assert!(queues.place_now(waiting(1, "922"), rules, &exit).is_some());
        assert!(queues.place_now(waiting(2, "932"), rules, &exit).is_none());
    }

    #[test]
    fn an_account_that_cancels_its_calls_again_and_again_may_request_as_many_as_its_cps() {
        let mut limits = RequestLimits::default();
        let [own, other] = ["MA1", "MA2"].map(AuthId::from);
        let now: Instant = Clock::real().now();
        let later = |ms| now + Duration::from_millis(ms);
        for _ in 0..2 {
            limits.count(now, &own, 10, REQUESTS_MAX / 2).unwrap();
        }
        let refused = limits.count(now, &own, 10, 1_000);
        assert!(
            matches!(refused, Err(NotPlaced::TooManyRequests { after }) if after == Duration::from_secs(100)),
            "{refused:?}"
        );
        limits.count(now, &other, 10, REQUESTS_MAX).unwrap();
        assert!(limits.count(later(99), &own, 10, 1).is_err());
        limits.count(later(100), &own, 10, 1).unwrap();
        assert!(limits.count(later(100), &own, 10, 1).is_err());
        // Who places calls at the limit, or makes a pause, never notices.
        for n in 0..REQUESTS_MAX * 2 {
            let at = later(500_000) + Duration::from_millis(100) * n;
            limits.count(at, &own, 10, 1).unwrap();
        }
    }
}
