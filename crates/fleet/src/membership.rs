//! The state of a run in its fleet: the units that it holds, and whether it may admit calls with
//! them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::beat::{Answer, Ask, Beat, LimitKey, Register, Request, TermState, Verdict};
use crate::share::{Share, Usage};

/// Time between two beats.
const INTERVAL: Duration = Duration::from_millis(500);

/// Time between two beats if an admission waits for the second one.
const URGENT_INTERVAL: Duration = Duration::from_millis(20);

/// Time after which a beat without an answer has failed. Its connection must be closed.
pub const OVERDUE: Duration = Duration::from_secs(1);

/// Time for which a run may admit calls after it has sent a beat that was answered. Other runs give
/// its units back after [`STILL_RELEASE`](crate::watch::STILL_RELEASE) at the earliest.
pub(crate) const FRESH: Duration = Duration::from_millis(4_500);

/// Time for which a failed beat is evidence that the database is unreachable.
const CUT_OFF: Duration = Duration::from_secs(1);

/// A run gets no more units until its beats have been answered for this long without a gap of the
/// same length. By then every other run has sent a beat, and would have detected a loss of its
/// earlier beats.
const STEADY: Duration = Duration::from_secs(2);

/// A run that has not been polled for this long counts as paused.
const PAUSE: Duration = Duration::from_secs(2);

/// A term stays closed for at least this long, so that runs with lost rows can register again.
const OPEN_AFTER: Duration = Duration::from_secs(10);

/// A limit that was used within this time gets a standing share.
const RECENT: Duration = Duration::from_secs(24 * 60 * 60);

/// Added to the sequence number of beats when another process continues a run. A process sends fewer
/// beats than this, so a late beat of the earlier process always has a lower number.
const SKIPPED: i64 = 1 << 32;

/// Maximum number of limits in a beat that is not whole.
pub const ASKS_MAX: usize = 256;

/// Maximum number of unchanged limits in a beat. The answer states how many units of them other
/// runs need.
const UNCHANGED_MAX: usize = 32;

/// The counters that admission works with.
pub trait Supply {
    /// Returns the usage of a limit.
    fn usage(&mut self, key: &LimitKey) -> Usage;

    /// Lowers the limit of a counter to `to`, or to the number of units in use if that is larger.
    /// Returns the new limit. From then on, no admission takes a unit above it.
    fn lower(&mut self, key: &LimitKey, to: u32) -> u32;

    /// Raises the limit of a counter.
    fn raise(&mut self, key: &LimitKey, to: u32);
}

/// Whether the database has recently confirmed this run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contact {
    /// The last answered beat was sent at most 4.5 s ago. The run may admit calls.
    Fresh,
    /// A beat failed within the last second, no peer can forward one, and the run was not paused
    /// since the last answer. The run may use the units that it holds.
    CutOff,
    /// The run must not admit calls until a beat is answered.
    Stale,
}

/// The state of one run of a node.
///
/// The caller sends what [`Membership::poll`] returns, and reports each answer or failure.
#[derive(Clone, Debug)]
pub struct Membership {
    run: Uuid,
    row: Row,
    term: Option<Term>,
    /// The terms that this run has left. The run never returns to one of them, because it may hold
    /// more units than that term has recorded.
    left: BTreeSet<Uuid>,
    refused: Option<Uuid>,
    seq: i64,
    acked: i64,
    last_sent: Option<Duration>,
    under_way: Option<Duration>,
    /// Time at which the newest answered beat was sent.
    fresh: Option<Duration>,
    /// Start of the period in which beats have been answered without a long gap.
    steady: Option<Duration>,
    cut_off: Option<Duration>,
    /// Time of the last poll.
    polled: Option<Duration>,
    /// Whether the run was paused and no beat has been answered since.
    paused: bool,
    /// Whether the run may have been declared dead in a past that the database has lost.
    doubtful: bool,
    /// The setting `cluster.strict`.
    strict: bool,
    limits: BTreeMap<LimitKey, Limit>,
    /// The last limit that a beat contained unchanged.
    cursor: Option<LimitKey>,
    members: u32,
    reconnect: bool,
    /// Limits that the database does not know.
    missing: BTreeSet<LimitKey>,
    /// Whether beats only prove that the run is alive.
    is_frozen: bool,
}

/// The state of a run on its way to another process of its node, which continues the run. It has no
/// units: the other process holds those that its calls use.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSnapshot {
    pub run: Uuid,
    term: Option<Uuid>,
    left: BTreeSet<Uuid>,
    refused: Option<Uuid>,
    seq: i64,
    acked: i64,
    fresh: Option<Duration>,
    steady: Option<Duration>,
    polled: Option<Duration>,
    paused: bool,
    doubtful: bool,
}

impl RunSnapshot {
    /// Lets a further process continue the run, after one that may have sent beats has ended. The
    /// database ignores beats of that one which it gets later.
    pub fn for_next_process(&mut self) {
        self.seq = self.seq.saturating_add(SKIPPED);
    }
}

/// The state of this run's row in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Row {
    Missing,
    /// The database has lost the row.
    Lost,
    Present,
    Dead,
}

#[derive(Clone, Copy, Debug)]
struct Term {
    id: Uuid,
    phase: Phase,
    /// Whether the database has recorded, in this term, all units that this run holds.
    restated: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed { since: Duration },
    Open,
}

#[derive(Clone, Copy, Debug, Default)]
struct Limit {
    cap: u32,
    /// The units that admission may use, at most the number that the database has granted to this
    /// run.
    limit: u32,
    /// The number of units requested by the last answered beat.
    last_wanted: u32,
    /// Whether a beat with this limit was sent and not answered.
    unanswered: bool,
    others: u32,
    requested: u32,
    last_used: Option<Duration>,
    /// Whether the limit is not configured any more, so that the run gives back its units.
    gone: bool,
}

impl Membership {
    /// Creates the state of a run that holds nothing and has no row yet. If `strict`, the run
    /// admits nothing while the database does not answer its beats.
    pub fn new(run: Uuid, strict: bool) -> Self {
        Self {
            run,
            row: Row::Missing,
            term: None,
            left: BTreeSet::new(),
            refused: None,
            seq: 0,
            acked: 0,
            last_sent: None,
            under_way: None,
            fresh: None,
            steady: None,
            cut_off: None,
            polled: None,
            paused: false,
            doubtful: false,
            strict,
            limits: BTreeMap::new(),
            cursor: None,
            members: 1,
            reconnect: false,
            missing: BTreeSet::new(),
            is_frozen: false,
        }
    }

    /// Sets whether beats only prove that the run is alive, and neither request units nor give any
    /// back: while another process is about to continue the run, the calls that use them have left
    /// this one.
    pub fn set_frozen(&mut self, is_frozen: bool) {
        self.is_frozen = is_frozen;
    }

    /// Returns the state with which another process can continue the run. This one must send no
    /// more beats, and admit no more calls.
    pub fn snapshot(&self) -> RunSnapshot {
        RunSnapshot {
            run: self.run,
            term: self.term(),
            left: self.left.clone(),
            refused: self.refused,
            seq: self.seq,
            acked: self.acked,
            fresh: self.fresh,
            steady: self.steady,
            polled: self.polled,
            paused: self.paused,
            doubtful: self.doubtful,
        }
    }

    /// Continues the run of another process. The times of `snapshot` and `now` have the same origin.
    /// Before the first poll, the limits must be tracked, and the units in use held
    /// ([`Membership::hold_used`]).
    pub fn resume(snapshot: RunSnapshot, strict: bool, now: Duration) -> Self {
        let phase = Phase::Closed { since: now };
        Self {
            // Without a term, the row has not been written yet.
            row: snapshot.term.map_or(Row::Missing, |_| Row::Present),
            term: snapshot.term.map(|id| Term { id, phase, restated: false }),
            left: snapshot.left,
            refused: snapshot.refused,
            seq: snapshot.seq,
            acked: snapshot.acked,
            fresh: snapshot.fresh,
            steady: snapshot.steady,
            polled: snapshot.polled,
            paused: snapshot.paused,
            doubtful: snapshot.doubtful,
            ..Self::new(snapshot.run, strict)
        }
    }

    /// Holds the units in use of all limits. The previous process of the run has been granted them.
    /// The first beat states them, and gives back all others of the run.
    pub fn hold_used(&mut self, supply: &mut impl Supply) {
        for (key, limit) in &mut self.limits {
            limit.limit = supply.usage(key).used;
            supply.raise(key, limit.limit);
        }
    }

    /// Adds a limit, of which the run holds nothing. The answers to later beats update its maximum.
    /// It counts as used now: other runs may use it, and without a standing share this one could
    /// not take its calls if the database failed.
    pub fn track(&mut self, key: LimitKey, cap: u32, now: Duration) {
        let new = Limit { cap, last_used: Some(now), ..Limit::default() };
        let limit = self.limits.entry(key).or_insert(new);
        limit.gone = false;
    }

    /// Gives back the units of all limits but these, once they are not in use.
    pub fn retain(&mut self, mut is_known: impl FnMut(&LimitKey) -> bool) {
        for (key, limit) in &mut self.limits {
            limit.gone |= !is_known(key);
        }
    }

    /// Takes the limits that the database did not know in its last answers. Their caps must be
    /// written again.
    pub fn take_missing(&mut self) -> BTreeSet<LimitKey> {
        std::mem::take(&mut self.missing)
    }

    /// Includes a limit in the next beat, because another run lacks units of it.
    pub fn include(&mut self, key: &LimitKey) {
        if let Some(limit) = self.limits.get_mut(key) {
            limit.unanswered = true;
        }
    }

    /// Sets the number of runs in the fleet, which determines the share of each run.
    pub fn set_members(&mut self, members: u32) {
        self.members = members;
    }

    pub fn run(&self) -> Uuid {
        self.run
    }

    /// Returns the term in which this run holds its units. `None` before the first term.
    pub fn term(&self) -> Option<Uuid> {
        self.term.map(|term| term.id)
    }

    /// Returns whether units can be granted: the term is open, and the database has recorded all
    /// units that this run holds.
    pub fn is_settled(&self) -> bool {
        let open = |term: Term| term.restated && matches!(term.phase, Phase::Open);
        self.row == Row::Present && self.term.is_some_and(open)
    }

    /// Returns whether this run may get more units: units can be granted, and its beats have been
    /// answered for long enough.
    pub fn may_grow(&self, now: Duration) -> bool {
        let age = |at: Option<Duration>| at.map(|at| now.saturating_sub(at));
        self.is_settled()
            && age(self.steady).is_some_and(|age| age >= STEADY)
            && age(self.fresh).is_some_and(|age| age < STEADY)
    }

    /// Returns whether this run was declared dead. It must end its media, write nothing and exit.
    pub fn is_dead(&self) -> bool {
        self.row == Row::Dead
    }

    /// Returns the number of units that admission may use.
    pub fn limit(&self, key: &LimitKey) -> u32 {
        self.limits.get(key).map_or(0, |limit| limit.limit)
    }

    /// Returns whether the run may admit calls. Call this after taking a unit, so that a run that
    /// was paused in between waits for the database first.
    pub fn contact(&self, now: Duration) -> Contact {
        let within =
            |at: Option<Duration>, time| at.is_some_and(|at| now.saturating_sub(at) <= time);
        if self.row == Row::Dead || self.doubtful {
            Contact::Stale
        } else if within(self.fresh, FRESH) {
            Contact::Fresh
        } else if within(self.cut_off, CUT_OFF) && !self.paused && !self.strict {
            Contact::CutOff
        } else {
            Contact::Stale
        }
    }

    /// Returns the time until which the run may admit calls if nothing else happens. `None` if a
    /// beat must be answered first.
    pub fn admits_until(&self) -> Option<Duration> {
        if self.row == Row::Dead || self.doubtful {
            return None;
        }
        let fresh = self.fresh.map(|sent| sent.saturating_add(FRESH));
        let cut_off = self.cut_off.filter(|_| !self.paused && !self.strict);
        fresh.max(cut_off.map(|at| at.saturating_add(CUT_OFF)))
    }

    /// Returns when the next request is due. `urgent` is true if an admission waits for a unit or
    /// the reserve is low.
    pub fn due(&self, urgent: bool) -> Duration {
        let hurry = match self.term {
            _ if self.row != Row::Present || self.refused.is_some() => true,
            Some(Term { restated, .. }) => !restated || (urgent && self.is_settled()),
            None => true,
        };
        let interval = if hurry { URGENT_INTERVAL } else { INTERVAL };
        self.last_sent.map_or(Duration::ZERO, |sent| sent.saturating_add(interval))
    }

    /// Returns the next request if it is due and none is in progress. Call this at least once a
    /// second, because a longer time between two calls counts as a pause of the process.
    pub fn poll(
        &mut self,
        now: Duration,
        urgent: bool,
        supply: &mut impl Supply,
    ) -> Option<Request> {
        self.paused |= self.polled.is_some_and(|at| now.saturating_sub(at) > PAUSE);
        self.polled = Some(now);
        if self.under_way.is_some() || now < self.due(urgent) {
            return None;
        }
        let request = match (self.row, self.term) {
            // A frozen run has no units to state: the process that continues it does.
            (_, term)
                if self.is_frozen
                    && (self.refused.is_some() || term.is_none_or(|term| !term.restated)) =>
            {
                return None;
            }
            (Row::Dead, _) => return None,
            (Row::Present, Some(term)) => Request::Beat(self.beat(now, term, supply)),
            (Row::Lost, _) => Request::Register(Register { sent: now, again: true }),
            (Row::Missing | Row::Present, _) => {
                Request::Register(Register { sent: now, again: false })
            }
        };
        self.last_sent = Some(now);
        self.under_way = Some(now);
        Some(request)
    }

    fn beat(&mut self, now: Duration, term: Term, supply: &mut impl Supply) -> Beat {
        self.seq = self.seq.saturating_add(1);
        let whole = !term.restated;
        if self.doubtful {
            for (key, limit) in &mut self.limits {
                limit.limit = limit.limit.min(supply.lower(key, 0));
            }
        }
        let asks = match whole {
            true => self.state_all(),
            false if self.is_frozen => Vec::new(),
            false => self.ask_changes(now, supply),
        };
        for ask in &asks {
            if let Some(limit) = self.limits.get_mut(&ask.key) {
                limit.unanswered = true;
            }
        }
        let may_open = match term.phase {
            Phase::Closed { since } => now.saturating_sub(since) >= OPEN_AFTER,
            Phase::Open => false,
        };
        Beat {
            sent: now,
            run: self.run,
            term: term.id,
            refused: self.refused,
            seq: self.seq,
            acked: self.acked,
            whole,
            may_open,
            asks,
        }
    }

    /// Returns all units that this run holds.
    fn state_all(&self) -> Vec<Ask> {
        let held = self.limits.iter().filter(|(_, limit)| limit.limit > 0);
        held.map(|(key, limit)| Ask { key: key.clone(), want: limit.limit }).collect()
    }

    /// Returns the limits that have changed, and some of the others. Limits are lowered before the
    /// database is informed.
    fn ask_changes(&mut self, now: Duration, supply: &mut impl Supply) -> Vec<Ask> {
        let may_grow = self.may_grow(now);
        let (mut changed, mut unchanged) = (Vec::new(), Vec::new());
        for (key, limit) in &mut self.limits {
            let usage = supply.usage(key);
            if usage != Usage::default() {
                limit.last_used = Some(now);
            }
            let share = Share {
                kind: key.kind(),
                cap: limit.cap,
                members: self.members,
                usage,
                limit: limit.limit,
                others: limit.others,
                requested: limit.requested,
                recent: limit.last_used.is_some_and(|at| now.saturating_sub(at) <= RECENT),
            };
            let wanted = if limit.gone { usage.used } else { share.want() };
            let fits = limit.limit.saturating_add(limit.others) <= limit.cap;
            let want = match (self.term.map(|term| term.phase), may_grow) {
                // Units that are given back in a closed term cannot be granted again in it.
                (Some(Phase::Closed { .. }), _) if fits => limit.limit,
                (Some(Phase::Closed { .. }) | None, _) | (_, false) => wanted.min(limit.limit),
                (Some(Phase::Open), true) => wanted,
            };
            let ask = Ask { key: key.clone(), want };
            if limit.unanswered || ask.want != limit.last_wanted || ask.want != limit.limit {
                // Limits with waiting admissions come first.
                changed.push((usage.waiting == 0, ask));
            } else if limit.limit > 0 {
                unchanged.push(ask);
            }
        }
        changed.sort_by_key(|(idle, _)| *idle);
        let mut asks: Vec<Ask> = changed.into_iter().map(|(_, ask)| ask).take(ASKS_MAX).collect();
        // The unchanged limits take turns.
        let turn = unchanged.partition_point(|ask| self.cursor.as_ref() >= Some(&ask.key));
        unchanged.rotate_left(turn);
        let room = ASKS_MAX.saturating_sub(asks.len()).min(UNCHANGED_MAX);
        unchanged.truncate(room);
        if let Some(last) = unchanged.last() {
            self.cursor = Some(last.key.clone());
        }
        asks.append(&mut unchanged);
        for ask in &mut asks {
            let Some(limit) = self.limits.get_mut(&ask.key) else { continue };
            if ask.want < limit.limit {
                limit.limit = supply.lower(&ask.key, ask.want);
                ask.want = limit.limit;
            }
        }
        asks
    }

    /// Reports that a request has failed or is overdue. Its connection is closed, and the next
    /// request is a new one.
    pub fn abandon(&mut self, sent: Duration) {
        if self.under_way == Some(sent) {
            self.under_way = None;
        }
    }

    /// Reports that a request has failed or is overdue, and that no peer can forward the next one.
    pub fn fail(&mut self, now: Duration, sent: Duration) {
        // A process that was paused in the meantime has not really waited for the answer.
        if self.under_way == Some(sent) && now.saturating_sub(sent) <= PAUSE {
            self.cut_off = Some(now);
        }
        self.abandon(sent);
    }

    /// Returns when the request in progress was sent. `None` if no request is in progress.
    pub fn under_way(&self) -> Option<Duration> {
        self.under_way
    }

    /// Reports the answer to [`Register`]: the current term, or `None` if the database refuses.
    pub fn registered(&mut self, now: Duration, register: &Register, term: Option<TermState>) {
        if self.under_way == Some(register.sent) {
            self.under_way = None;
        }
        if matches!(self.row, Row::Present | Row::Dead) {
            return;
        }
        let Some(term) = term else {
            self.row = Row::Dead;
            return;
        };
        self.row = Row::Present;
        self.acked = 0;
        let current = self.term.is_some_and(|own| own.id == term.id);
        if current {
            self.restate();
        } else if !self.left.contains(&term.id) {
            self.adopt(now, &term);
        }
    }

    /// Reports the answer to a beat.
    pub fn answered(
        &mut self,
        now: Duration,
        beat: &Beat,
        answer: &Answer,
        supply: &mut impl Supply,
    ) {
        let newest = beat.seq == self.seq;
        if self.under_way == Some(beat.sent) {
            self.under_way = None;
        }
        match answer.verdict {
            _ if self.row == Row::Dead => return,
            Verdict::Dead => {
                self.row = Row::Dead;
                return;
            }
            Verdict::Ok | Verdict::Term | Verdict::Lost | Verdict::Unknown if newest => {}
            // The database has stored this beat, so other runs can see that this run is alive.
            Verdict::Ok | Verdict::Term if !self.left.contains(&answer.term.id) => {
                self.fresh = self.fresh.max(Some(beat.sent));
                return;
            }
            Verdict::Ok | Verdict::Term | Verdict::Lost | Verdict::Unknown | Verdict::Old => return,
        }
        if self.left.contains(&answer.term.id) {
            self.refused = Some(answer.term.id);
            self.reconnect = true;
            return;
        }
        if self.term.is_none_or(|own| own.id != answer.term.id) {
            self.adopt(now, &answer.term);
        }
        match answer.verdict {
            Verdict::Ok | Verdict::Term => {
                let gap = self.fresh.is_none_or(|last| beat.sent.saturating_sub(last) >= STEADY);
                if gap {
                    self.steady = Some(now);
                }
                self.fresh = self.fresh.max(Some(beat.sent));
                (self.cut_off, self.paused) = (None, false);
                self.acked = self.acked.max(beat.seq);
                if beat.term != answer.term.id || answer.verdict == Verdict::Term {
                    self.restate();
                } else {
                    self.apply(now, beat, answer, supply);
                }
            }
            Verdict::Lost => {
                self.refused = Some(answer.term.id);
                self.acked = 0;
                self.restate();
            }
            Verdict::Unknown => {
                self.row = Row::Lost;
                self.restate();
            }
            Verdict::Old | Verdict::Dead => {}
        }
    }

    /// Applies the answer to the newest beat in the term of this run.
    fn apply(&mut self, now: Duration, beat: &Beat, answer: &Answer, supply: &mut impl Supply) {
        let Some(term) = &mut self.term else { return };
        term.restated |= beat.whole;
        term.phase = match (term.phase, answer.term.open) {
            (_, true) => Phase::Open,
            (Phase::Open, false) => Phase::Closed { since: now },
            (closed @ Phase::Closed { .. }, false) => closed,
        };
        self.doubtful &= !answer.term.open;
        self.refused = None;
        if beat.whole {
            // The database has discarded all other limits of this run. The run held no units of
            // them.
            for limit in self.limits.values_mut() {
                (limit.unanswered, limit.last_wanted) = (false, 0);
            }
        }
        for (ask, grant) in beat.asks.iter().zip(&answer.grants) {
            let Some(limit) = self.limits.get_mut(&ask.key) else { continue };
            limit.unanswered = false;
            limit.last_wanted = ask.want;
            limit.cap = grant.cap.unwrap_or(0);
            if grant.cap.is_none() && !limit.gone {
                self.missing.insert(ask.key.clone());
            }
            (limit.others, limit.requested) = (grant.others, grant.requested);
            if grant.held > limit.limit {
                supply.raise(&ask.key, grant.held);
                limit.limit = grant.held;
            }
        }
        self.limits.retain(|_, limit| !(limit.gone && limit.limit == 0 && !limit.unanswered));
    }

    /// Reports the term of a peer. If it differs from the own term, one of the two runs uses a
    /// database that is no longer the primary. This run then ignores the answers to beats in
    /// progress and opens a new connection.
    pub fn report_peer_term(&mut self, term: Uuid) {
        if self.term.is_some_and(|own| own.id != term) {
            self.seq = self.seq.saturating_add(1);
            self.under_way = None;
            self.reconnect = true;
        }
    }

    /// Returns whether the next request needs a new connection, and resets this flag.
    pub fn take_reconnect(&mut self) -> bool {
        std::mem::take(&mut self.reconnect)
    }

    /// Replaces the current term. Answers to earlier beats can no longer raise a limit.
    fn adopt(&mut self, now: Duration, term: &TermState) {
        if let Some(own) = self.term {
            self.left.insert(own.id);
        }
        // After such a long time without contact, the run may have been declared dead and its units
        // given to others, in a past that the database has lost. It gives back the units that it
        // does not use and admits nothing until the term is open. A run that was cut off and not
        // paused continues with its units unless it is strict, because no run is declared dead
        // during an outage of the database.
        let long = self.fresh.is_some_and(|sent| now.saturating_sub(sent) > FRESH);
        self.doubtful |= long && (self.paused || self.strict);
        let phase = Phase::Closed { since: now };
        self.term = Some(Term { id: term.id, phase, restated: false });
        self.refused = None;
        self.seq = self.seq.saturating_add(1);
    }

    /// Makes the next beat state all units that this run holds.
    fn restate(&mut self) {
        if let Some(term) = &mut self.term {
            term.restated = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beat::Grant;

    const RUN: Uuid = Uuid::from_u128(1);
    const TERM: Uuid = Uuid::from_u128(2);
    const OTHER_TERM: Uuid = Uuid::from_u128(3);

    /// One counter, in use to some extent.
    #[derive(Default)]
    struct Counter {
        usage: Usage,
        limit: u32,
    }

    impl Supply for Counter {
        fn usage(&mut self, _: &LimitKey) -> Usage {
            self.usage
        }

        fn lower(&mut self, _: &LimitKey, to: u32) -> u32 {
            self.limit = to.max(self.usage.used);
            self.limit
        }

        fn raise(&mut self, _: &LimitKey, to: u32) {
            self.limit = to;
        }
    }

    struct Fixture {
        now: Duration,
        member: Membership,
        counter: Counter,
    }

    impl Fixture {
        /// A strict member whose beats have been answered for 3 s, in an open term.
        fn new() -> Self {
            let mut member = Membership::new(RUN, true);
            member.track(key(), 100, Duration::ZERO);
            let mut fixture = Self { now: Duration::ZERO, member, counter: Counter::default() };
            let Some(Request::Register(register)) = fixture.poll() else {
                panic!("not registered")
            };
            fixture.member.registered(fixture.now, &register, Some(state(TERM, true)));
            for _ in 0..6 {
                let beat = fixture.beat();
                fixture.answer(&beat, Verdict::Ok, state(TERM, true), 0);
            }
            assert!(fixture.member.is_settled());
            fixture
        }

        fn poll(&mut self) -> Option<Request> {
            self.now += INTERVAL;
            self.member.poll(self.now, false, &mut self.counter)
        }

        fn beat(&mut self) -> Beat {
            match self.poll() {
                Some(Request::Beat(beat)) => beat,
                other => panic!("no beat: {other:?}"),
            }
        }

        /// Answers a beat. Each limit that it asks for gets what it wants, up to `most`.
        fn answer(&mut self, beat: &Beat, verdict: Verdict, term: TermState, most: u32) {
            let grant = |ask: &Ask| Grant {
                held: ask.want.min(most),
                cap: Some(100),
                others: 0,
                requested: 0,
            };
            let grants = match verdict {
                Verdict::Ok => beat.asks.iter().map(grant).collect(),
                _ => Vec::new(),
            };
            let answer = Answer { verdict, term, grants };
            self.member.answered(self.now, beat, &answer, &mut self.counter);
        }

        /// Sets the usage, and waits until the limit is granted.
        fn use_units(&mut self, used: u32) {
            self.counter.usage = Usage { used, waiting: 0, starts: 0 };
            let beat = self.beat();
            self.answer(&beat, Verdict::Ok, state(TERM, true), 100);
            assert!(self.counter.limit >= used);
        }
    }

    fn key() -> LimitKey {
        LimitKey::number("1")
    }

    fn state(id: Uuid, open: bool) -> TermState {
        TermState { id, open, book: 0, members: 0 }
    }

    #[test]
    fn i1_a_limit_is_lowered_before_the_database_is_told() {
        let mut fixture = Fixture::new();
        fixture.use_units(60);
        fixture.counter.usage.used = 10;
        let beat = fixture.beat();
        let [ask] = &beat.asks[..] else { panic!("{beat:?}") };
        assert!(ask.want < 60);
        assert_eq!((fixture.counter.limit, fixture.member.limit(&key())), (ask.want, ask.want));
    }

    #[test]
    fn i1_only_the_answer_to_the_newest_beat_raises_a_limit() {
        let mut fixture = Fixture::new();
        fixture.counter.usage.waiting = 5;
        let first = fixture.beat();
        fixture.now += OVERDUE - INTERVAL;
        fixture.member.abandon(first.sent);
        let second = fixture.beat();
        fixture.answer(&first, Verdict::Ok, state(TERM, true), 100);
        assert_eq!(fixture.counter.limit, 0);
        assert!(second.asks.iter().any(|ask| ask.want > 0), "asked again");
        fixture.answer(&second, Verdict::Ok, state(TERM, true), 100);
        assert!(fixture.counter.limit >= 5);
    }

    #[test]
    fn f13_a_new_run_gets_a_standing_share() {
        let mut fixture = Fixture::new();
        let beat = fixture.beat();
        fixture.answer(&beat, Verdict::Ok, state(TERM, true), 100);
        assert_eq!(fixture.counter.limit, 25, "a quarter of the cap of 100");
        fixture.now += RECENT;
        loop {
            let beat = fixture.beat();
            fixture.answer(&beat, Verdict::Ok, state(TERM, true), 100);
            if fixture.member.may_grow(fixture.now) && fixture.counter.limit == 0 {
                return;
            }
        }
    }

    #[test]
    fn f12_a_term_once_left_is_refused() {
        let mut fixture = Fixture::new();
        let beat = fixture.beat();
        fixture.answer(&beat, Verdict::Term, state(OTHER_TERM, false), 0);
        assert_eq!(fixture.member.term(), Some(OTHER_TERM));
        let beat = fixture.beat();
        assert!(beat.whole);
        fixture.answer(&beat, Verdict::Term, state(TERM, true), 0);
        assert_eq!(fixture.member.term(), Some(OTHER_TERM));
        assert!(fixture.member.take_reconnect());
        assert_eq!(fixture.beat().refused, Some(TERM));
    }

    #[test]
    fn f12_a_term_may_be_opened_after_ten_seconds() {
        let mut fixture = Fixture::new();
        let beat = fixture.beat();
        fixture.answer(&beat, Verdict::Term, state(OTHER_TERM, false), 0);
        let adopted = fixture.now;
        loop {
            let beat = fixture.beat();
            assert_eq!(beat.may_open, beat.sent - adopted >= Duration::from_secs(10));
            fixture.answer(&beat, Verdict::Ok, state(OTHER_TERM, false), 100);
            if beat.may_open {
                return;
            }
        }
    }

    #[test]
    fn f16_units_of_a_deleted_limit_are_given_back_when_they_are_not_in_use() {
        let mut fixture = Fixture::new();
        fixture.use_units(60);
        fixture.member.retain(|_| false);
        for used in [60, 20, 0] {
            fixture.counter.usage = Usage { used, waiting: 0, starts: 0 };
            let beat = fixture.beat();
            assert_eq!(beat.asks, [Ask { key: key(), want: used }]);
            fixture.answer(&beat, Verdict::Ok, state(TERM, true), 100);
            assert_eq!(fixture.counter.limit, used);
        }
        assert!(fixture.beat().asks.is_empty(), "the limit is forgotten");
    }

    #[test]
    fn f16_a_limit_that_the_database_does_not_know_is_reported() {
        let mut fixture = Fixture::new();
        fixture.use_units(60);
        let beat = fixture.beat();
        let grants = vec![Grant { held: 60, cap: None, others: 0, requested: 0 }];
        let answer = Answer { verdict: Verdict::Ok, term: state(TERM, true), grants };
        fixture.member.answered(fixture.now, &beat, &answer, &mut fixture.counter);
        assert_eq!(fixture.member.take_missing(), BTreeSet::from([key()]));
        assert!(fixture.member.take_missing().is_empty());
    }

    #[test]
    fn f12_units_are_kept_in_a_closed_term() {
        let mut fixture = Fixture::new();
        fixture.use_units(60);
        let limit = fixture.counter.limit;
        for verdict in [Verdict::Term, Verdict::Ok, Verdict::Ok] {
            let beat = fixture.beat();
            fixture.answer(&beat, verdict, state(OTHER_TERM, false), 100);
            fixture.counter.usage = Usage::default();
        }
        assert_eq!((fixture.counter.limit, fixture.member.limit(&key())), (limit, limit));
    }

    #[test]
    fn f12_a_database_without_an_acknowledged_beat_is_refused() {
        let mut fixture = Fixture::new();
        let beat = fixture.beat();
        fixture.answer(&beat, Verdict::Lost, state(TERM, true), 0);
        let beat = fixture.beat();
        assert_eq!((beat.refused, beat.acked, beat.whole), (Some(TERM), 0, true));
    }

    #[test]
    fn f12_a_lost_row_is_written_again_in_a_closed_term_only() {
        let mut fixture = Fixture::new();
        let beat = fixture.beat();
        fixture.answer(&beat, Verdict::Unknown, state(OTHER_TERM, false), 0);
        let Some(Request::Register(register)) = fixture.poll() else { panic!("not registered") };
        assert!(register.again);
        fixture.member.registered(fixture.now, &register, None);
        assert!(fixture.member.is_dead());
        assert!(fixture.poll().is_none());
    }

    #[test]
    fn f11_a_run_admits_for_four_and_a_half_seconds_after_its_last_answered_beat() {
        let mut fixture = Fixture::new();
        let beat = fixture.beat();
        fixture.answer(&beat, Verdict::Ok, state(TERM, true), 0);
        let at = |ms| fixture.member.contact(beat.sent + Duration::from_millis(ms));
        assert_eq!((at(4_500), at(4_501)), (Contact::Fresh, Contact::Stale));
    }

    #[test]
    fn f11_a_run_that_is_cut_off_keeps_its_units_unless_it_was_paused() {
        for (pause, expected) in [(0, Contact::CutOff), (3, Contact::Stale)] {
            let mut fixture = Fixture::new();
            fixture.member.strict = false;
            fixture.now += Duration::from_secs(pause);
            for _ in 0..20 {
                if let Some(request) = fixture.poll() {
                    fixture.now += OVERDUE;
                    fixture.member.fail(fixture.now, request.sent());
                }
            }
            assert_eq!(fixture.member.contact(fixture.now), expected);
        }
    }

    #[test]
    fn f12_a_run_back_from_a_long_absence_waits_for_an_open_term() {
        let mut fixture = Fixture::new();
        fixture.use_units(60);
        fixture.now += Duration::from_secs(8);
        let beat = fixture.beat();
        fixture.counter.usage.used = 40;
        fixture.answer(&beat, Verdict::Term, state(OTHER_TERM, false), 0);
        assert_eq!(fixture.member.contact(fixture.now), Contact::Stale);
        let beat = fixture.beat();
        assert_eq!((fixture.counter.limit, beat.asks[0].want), (40, 40));
        fixture.answer(&beat, Verdict::Ok, state(OTHER_TERM, false), 100);
        assert_eq!(fixture.member.contact(fixture.now), Contact::Stale);
        let beat = fixture.beat();
        fixture.answer(&beat, Verdict::Ok, state(OTHER_TERM, true), 100);
        assert_eq!(fixture.member.contact(fixture.now), Contact::Fresh);
    }

    #[test]
    fn a_run_that_has_just_come_gets_no_units_for_two_seconds() {
        let mut fixture = Fixture::new();
        fixture.now += Duration::from_secs(3);
        fixture.counter.usage.waiting = 5;
        let returned = fixture.now + INTERVAL;
        loop {
            let beat = fixture.beat();
            fixture.answer(&beat, Verdict::Ok, state(TERM, true), 100);
            if fixture.counter.limit > 0 {
                assert!(fixture.now - returned >= STEADY);
                return;
            }
        }
    }
}
