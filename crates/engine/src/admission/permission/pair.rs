//! The state machine of one (business number, user): what the user agreed to, what was used of it, what was missed.
//!
//! Every row of `meta-calling.md` §6.3 is an [`Event`]; [`Pair::may_call`] and [`Pair::may_request`] decide, naming the
//! rule that refuses and when it will not any more. Meta has the last word: what it says overwrites what was counted
//! here, which only ever refuses earlier.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::window::{Never, Times};
use crate::admission::settings::Permissions;
use model::{PermissionStatus, Timestamp};

const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// An expiration further ahead counts as none given (§6.2): it is in milliseconds, or a mistake.
const EXPIRATION_AHEAD_MAX: Duration = Duration::from_secs(400 * 86_400);
/// By how much Meta's clock and ours may differ: a reply that much older than a change of our own is no older one.
const CLOCKS_APART_MAX: i64 = 120_000_000;
/// A reply from further ahead of our clock than that is taken to be from then: it would bar all later ones.
const REPLY_AHEAD_MAX: Duration = Duration::from_secs(300);

/// The numbers of the rules: `[permissions]`, with a number's own laid over.
pub type Rules = Permissions;

/// What the user allows, as it stands at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    #[default]
    None,
    /// Asked, and not answered yet.
    Requested,
    /// Until just before then.
    Temporary {
        until: Timestamp,
    },
    Permanent,
}

impl State {
    /// The word of the number API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Requested => "requested",
            Self::Temporary { .. } => "temporary",
            Self::Permanent => "permanent",
        }
    }

    fn is_granted(self) -> bool {
        matches!(self, Self::Temporary { .. } | Self::Permanent)
    }
}

/// What happened to a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Graph took our request, or is about to be asked to take it.
    Requested,
    /// The latest of those did not reach the user, and counts no more.
    Withdrawn,
    /// The user's answer, or Meta's in their name, sent at `at` by Meta's clock (none: now).
    Replied { at: Option<Timestamp>, reply: Reply },
    /// The user called the business, and was answered.
    UserConnected,
    /// The user took our call.
    Connected,
    /// The user rejected our call, did not answer it, or was not reached after it rang.
    Unanswered,
    /// Graph refused a call: there is no permission (138006).
    NoPermission,
    /// Graph refused a call: as many were connected as may be (138012), until then.
    CallsUsedUp { until: Option<Timestamp> },
    /// Graph knows more than this row: it refused a request (138009), or may have sent one.
    Doubted,
    /// Graph's `call_permissions`.
    Told(Told),
}

/// A `call_permission_reply` (§6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "lowercase")]
pub enum Reply {
    /// `expiration` as it came; none: not given, or unreadable.
    Accept {
        permanent: bool,
        expiration: Option<Timestamp>,
    },
    Reject,
}

/// What Graph says of a pair (§4.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// [`State::Requested`] never comes from there; a temporary one may come without its end.
    pub status: PermissionStatus,
    /// When Graph was asked: a reply of the user's that came since is newer. None: just now.
    pub asked: Option<Timestamp>,
    /// Connected calls in 24 hours.
    pub calls: Option<Counter>,
    /// Requests in 24 hours.
    pub requests_of_day: Option<Counter>,
    /// Requests in seven days.
    pub requests_of_week: Option<Counter>,
}

/// One of `limits[]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    pub used: u32,
    /// When there is room again; only where it is used up.
    pub room_at: Option<Timestamp>,
}

/// Why a call or a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The user was never asked.
    NotAsked,
    /// Asked, not answered yet.
    NotAnswered,
    Rejected,
    /// The permission or the request has run out.
    Expired,
    /// So many calls in a row were missed that Meta took it back.
    Revoked,
    /// Meta says so.
    ToldByMeta,
    /// As many calls were connected in 24 hours as may be.
    DailyLimit,
    /// As many requests were sent as may be.
    RequestLimit,
}

impl Why {
    /// The word in answers and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::NotAnswered => "not_answered",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::ToldByMeta => "told_by_meta",
            Self::DailyLimit => "daily_limit",
            Self::RequestLimit => "request_limit",
        }
    }
}

/// A rule that says no, and when it will not any more; none: a time can't do it, or it is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub why: Why,
    pub again: Option<Timestamp>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.why {
            Why::NotAsked => "the user has not been asked for permission to be called",
            Why::NotAnswered => "the user has not answered the request for permission yet",
            Why::Rejected => "the user does not want to be called",
            Why::Expired => "the user's permission has expired",
            Why::Revoked => {
                "the user missed so many calls in a row that the permission was revoked"
            }
            Why::ToldByMeta => "Meta knows of no permission of this user",
            Why::DailyLimit => {
                "daily_limit: as many calls were connected in 24 hours as are allowed"
            }
            Why::RequestLimit => "as many requests were sent as are allowed",
        })?;
        self.again.map_or(Ok(()), |at| write!(f, "; the next is allowed at {at}"))
    }
}

/// What the number API shows of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub state: State,
    pub missed: u32,
    /// So many were missed that Meta asks the user whether they still want calls.
    pub warned: bool,
    /// Calls that may be connected yet; 0 without a permission.
    pub calls_left: u32,
    /// Where none is left and a time will help.
    pub next_call: Option<Timestamp>,
    pub requests_left: u32,
    pub next_request: Option<Timestamp>,
    /// Whether the state is as Meta told it.
    pub by_meta: bool,
    /// When Graph was asked last.
    pub checked: Option<Timestamp>,
}

/// A (business number, user), as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pair {
    #[serde(flatten)]
    state: State,
    /// Why the state is none.
    lost: Option<Why>,
    /// When the request that is open was sent.
    request: Option<Timestamp>,
    requests: Times,
    connected: Times,
    misses: u32,
    /// The last change, by Meta's clock: older replies change nothing.
    changed: Option<Timestamp>,
    /// When the last reply that changed it came, by our clock.
    heard: Option<Timestamp>,
    checked: Option<Timestamp>,
    /// Graph contradicted this row: it may be asked once.
    doubtful: bool,
    by_meta: bool,
    /// Meta's own word for when calls, and requests, are allowed again.
    no_call_before: Option<Timestamp>,
    no_request_before: Option<Timestamp>,
}

impl Pair {
    /// The state at `now`: what has run out is none.
    pub fn state(&self, rules: &Rules, now: Timestamp) -> State {
        match self.state {
            State::Temporary { until } if now >= until => State::None,
            State::Requested if !self.is_request_open(rules, now) => State::None,
            state => state,
        }
    }

    fn is_request_open(&self, rules: &Rules, now: Timestamp) -> bool {
        self.request
            .is_some_and(|sent| now.since(sent) < Duration::from_secs(rules.request_seconds))
    }

    /// May a call to the user go out, as far as their permission goes (L15–L17)?
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn may_call(&self, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
        if !rules.enforce {
            return Ok(());
        }
        let state = self.state(rules, now);
        if !state.is_granted() {
            return Err(Refusal { why: self.why_none(state), again: None });
        }
        let room = self.connected.room_at(now, DAY, rules.calls_per_day);
        refuse(Why::DailyLimit, [room], self.no_call_before, now)
    }

    fn why_none(&self, state: State) -> Why {
        match (state, self.state) {
            (State::Requested, _) => Why::NotAnswered,
            (_, State::Temporary { .. } | State::Requested) => Why::Expired,
            _ => self.lost.unwrap_or(Why::NotAsked),
        }
    }

    /// May the user be asked for permission (L13, L14)?
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn may_request(&self, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
        if !rules.enforce {
            return Ok(());
        }
        let of_day = self.requests.room_at(now, DAY, rules.requests_per_day);
        let of_week = self.requests.room_at(now, WEEK, rules.requests_per_week);
        refuse(Why::RequestLimit, [of_day, of_week], self.no_request_before, now)
    }

    /// Takes in what happened. `false`: it is a reply older than what is known, and changes nothing.
    pub fn apply(&mut self, rules: &Rules, now: Timestamp, event: Event) -> bool {
        match event {
            Event::Requested => {
                self.requests.add(now, now, WEEK);
                self.request = Some(now);
                if !self.state(rules, now).is_granted() {
                    // Why there was none is true again where it is withdrawn.
                    self.set(State::Requested, self.lost, false);
                }
            }
            Event::Withdrawn => {
                self.requests.take_back();
                self.request = self.request.and(self.requests.last());
                if self.state == State::Requested && !self.is_request_open(rules, now) {
                    self.set(State::None, self.lost, false);
                }
            }
            Event::Replied { at, reply } => return self.replied(rules, now, at, reply),
            Event::UserConnected => self.forget_requests(),
            Event::Connected => {
                self.connected.add(now, now, DAY);
                self.misses = 0;
                self.forget_requests();
            }
            Event::Unanswered => {
                self.misses = self.misses.saturating_add(1);
                let revoked = rules.revoke_after > 0 && self.misses >= rules.revoke_after;
                if revoked && self.state(rules, now).is_granted() {
                    self.set(State::None, Some(Why::Revoked), false);
                    self.changed_here(now);
                }
            }
            Event::NoPermission => {
                self.set(State::None, Some(Why::ToldByMeta), true);
                self.doubtful = true;
                self.changed_here(now);
            }
            Event::CallsUsedUp { until } => {
                self.no_call_before =
                    until.filter(|until| *until > now).map(|until| until.min(now.plus(DAY)));
            }
            Event::Doubted => self.doubtful = true,
            Event::Told(told) => self.told(rules, now, &told),
        }
        true
    }

    fn set(&mut self, state: State, lost: Option<Why>, by_meta: bool) {
        (self.state, self.lost, self.by_meta) = (state, lost, by_meta);
    }

    /// A connected call of either direction clears the count of requests (L13).
    fn forget_requests(&mut self) {
        self.requests.clear();
        self.no_request_before = None;
    }

    /// It changed by our own clock.
    fn changed_here(&mut self, now: Timestamp) {
        let at = Timestamp::from_micros(now.micros().saturating_sub(CLOCKS_APART_MAX));
        self.changed = self.changed.max(Some(at));
    }

    fn replied(
        &mut self,
        rules: &Rules,
        now: Timestamp,
        at: Option<Timestamp>,
        reply: Reply,
    ) -> bool {
        let at = at.unwrap_or(now).min(now.plus(REPLY_AHEAD_MAX));
        if self.changed.is_some_and(|changed| at < changed) {
            return false;
        }
        self.changed = Some(at);
        self.heard = Some(now);
        match reply {
            Reply::Reject => self.set(State::None, Some(Why::Rejected), true),
            Reply::Accept { permanent: true, .. } => self.granted(State::Permanent),
            Reply::Accept { expiration, .. } => {
                let usual = at.plus(Duration::from_secs(rules.temporary_seconds));
                let sound = |until: &Timestamp| {
                    until.micros() >= 0 && *until <= now.plus(EXPIRATION_AHEAD_MAX)
                };
                self.granted(State::Temporary { until: expiration.filter(sound).unwrap_or(usual) });
            }
        }
        true
    }

    /// A new permission takes the place of the old one, and what was missed under that.
    fn granted(&mut self, state: State) {
        self.set(state, None, true);
        self.misses = 0;
        self.request = None;
        self.doubtful = false;
    }

    fn told(&mut self, rules: &Rules, now: Timestamp, told: &Told) {
        let before = self.state(rules, now);
        let overtaken =
            told.asked.is_some_and(|asked| self.heard.is_some_and(|heard| heard > asked));
        match told.status {
            // What Graph said before the user did.
            _ if overtaken => {}
            // Graph has no word for a request that is open.
            PermissionStatus::NoPermission if before == State::Requested => self.by_meta = true,
            PermissionStatus::NoPermission => {
                let why = self.lost.filter(|_| before == self.state).unwrap_or(Why::ToldByMeta);
                self.set(State::None, Some(why), true);
            }
            PermissionStatus::Permanent => self.told_granted(before, State::Permanent),
            PermissionStatus::Temporary { until } => {
                let known =
                    if let State::Temporary { until } = before { Some(until) } else { None };
                let usual = || now.plus(Duration::from_secs(rules.temporary_seconds));
                let until = until.or(known).unwrap_or_else(usual);
                self.told_granted(before, State::Temporary { until });
            }
        }
        self.checked = Some(now);
        self.doubtful = false;
        self.changed_here(now);
        self.take_over(now, told);
    }

    /// What was missed under another permission does not count against this one.
    fn told_granted(&mut self, before: State, state: State) {
        let misses = if before == state { self.misses } else { 0 };
        self.granted(state);
        self.misses = misses;
    }

    /// Graph's counters take the place of ours. Of what we did not see we know only that it was in the window: it
    /// counts as long as it might.
    fn take_over(&mut self, now: Timestamp, told: &Told) {
        let seen = |counter: &Counter, window: Duration| {
            let begun = |room: Timestamp| before(room, window).clamp(before(now, window), now);
            counter.room_at.map_or(now, begun)
        };
        if let Some(calls) = &told.calls {
            self.connected.take_over(calls.used, seen(calls, DAY), now, DAY);
            self.no_call_before = calls.room_at;
        }
        let of_week = |requests: &mut Times| {
            if let Some(week) = &told.requests_of_week {
                // A day ago at the latest: those of the last day have a counter of their own.
                let latest = if told.requests_of_day.is_some() { before(now, DAY) } else { now };
                requests.take_over(week.used, seen(week, WEEK).min(latest), now, WEEK);
            }
        };
        of_week(&mut self.requests);
        if let Some(day) = &told.requests_of_day {
            self.requests.take_over(day.used, seen(day, DAY), now, DAY);
            of_week(&mut self.requests);
        }
        if told.requests_of_day.is_some() || told.requests_of_week.is_some() {
            let of = |counter: &Option<Counter>| counter.and_then(|counter| counter.room_at);
            self.no_request_before = of(&told.requests_of_day).max(of(&told.requests_of_week));
        }
    }

    /// Whether Graph said something that this row can't be right beside.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether nothing of it is in force any more: as good as no row.
    pub fn is_blank(&self, rules: &Rules, now: Timestamp) -> bool {
        let recently = |at: Option<Timestamp>, window| at.is_some_and(|at| now.since(at) < window);
        self.state(rules, now) == State::None
            && !self.is_request_open(rules, now)
            && !recently(self.requests.last(), WEEK)
            && !recently(self.connected.last(), DAY)
            && !recently(self.changed, WEEK)
            && !recently(self.checked, DAY)
    }

    /// What the number API shows.
    pub fn view(&self, rules: &Rules, now: Timestamp) -> View {
        let state = self.state(rules, now);
        let used = self.connected.count(now, DAY);
        let (may_call, may_request) = (self.may_call(rules, now), self.may_request(rules, now));
        let calls_left = match may_call {
            Ok(()) if state.is_granted() => rules.calls_per_day.saturating_sub(used),
            _ => 0,
        };
        let of_day = rules.requests_per_day.saturating_sub(self.requests.count(now, DAY));
        let of_week = rules.requests_per_week.saturating_sub(self.requests.count(now, WEEK));
        View {
            state,
            missed: self.misses,
            warned: rules.prompt_after > 0 && self.misses >= rules.prompt_after,
            calls_left,
            next_call: may_call.err().and_then(|refusal| refusal.again),
            requests_left: may_request.map_or(0, |()| of_day.min(of_week)),
            next_request: may_request.err().and_then(|refusal| refusal.again),
            by_meta: self.by_meta,
            checked: self.checked,
        }
    }
}

/// Refuses until every window has room and Meta's own time has come.
fn refuse<const N: usize>(
    why: Why,
    rooms: [Result<Option<Timestamp>, Never>; N],
    by_meta: Option<Timestamp>,
    now: Timestamp,
) -> Result<(), Refusal> {
    let mut again = by_meta.filter(|at| *at > now);
    for room in rooms {
        match room {
            Ok(at) => again = again.max(at),
            Err(Never) => return Err(Refusal { why, again: None }),
        }
    }
    again.map_or(Ok(()), |at| Err(Refusal { why, again: Some(at) }))
}

fn before(at: Timestamp, by: Duration) -> Timestamp {
    Timestamp::from_micros(
        at.micros().saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)),
    )
}
