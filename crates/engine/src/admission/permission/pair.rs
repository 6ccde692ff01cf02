//! The state machine of one business number and one user: the user's permission, the requests and
//! calls counted against the limits, and the missed calls.
//!
//! Each row of the table in `docs/reference/meta.md#permission-states` is an [`Event`].
//! [`Pair::may_call`] and [`Pair::may_request`] check the limits; a refusal names the rule and when
//! it ends. Meta is authoritative: its values overwrite the local counts, which can only refuse
//! earlier.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::window::{Never, Times};
use crate::admission::settings::Permissions;
use model::{PermissionStatus, Timestamp};

const DAY: Duration = Duration::from_secs(86_400);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
/// Maximum time that an expiration may lie in the future. A later one is in milliseconds or a
/// mistake, and is ignored.
const EXPIRATION_AHEAD_MAX: Duration = Duration::from_secs(400 * 86_400);
/// Tolerated difference between Meta's clock and the node's, in microseconds. A reply this much
/// older than a local change is not outdated.
const CLOCKS_APART_MAX: i64 = 120_000_000;
/// Maximum time that a reply may be ahead of the node's clock. A later one is dated back to this,
/// because it would otherwise outdate all later replies.
const REPLY_AHEAD_MAX: Duration = Duration::from_secs(300);

/// The limits: `[permissions]`, with the number's own values applied.
pub type Rules = Permissions;

/// The user's permission.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    #[default]
    None,
    /// Requested but not answered yet.
    Requested,
    /// Granted until just before `until`.
    Temporary {
        until: Timestamp,
    },
    Permanent,
}

impl State {
    /// The word in the number API.
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

/// An event of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A permission request was sent, or is about to be.
    Requested,
    /// The latest request failed and no longer counts.
    Withdrawn,
    /// The user's reply, or Meta's on the user's behalf, sent at `at` by Meta's clock. `None` means
    /// now.
    Replied { at: Option<Timestamp>, reply: Reply },
    /// The user called the business and the call was answered.
    UserConnected,
    /// The user answered an outbound call.
    Connected,
    /// The user rejected an outbound call, did not answer it, or was not reached after it rang.
    Unanswered,
    /// Graph refused a call for lack of a permission (138006).
    NoPermission,
    /// Graph refused a call until the given time, because the limit of connected calls is reached
    /// (138012).
    CallsUsedUp { until: Option<Timestamp> },
    /// The local counts may be wrong: Graph refused a request (138009), or may have sent a request
    /// that was not counted.
    Doubted,
    /// Graph's answer to `call_permissions`.
    GraphReport(GraphPermission),
}

/// A `call_permission_reply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "response", rename_all = "lowercase")]
pub enum Reply {
    /// The user accepts, or has called where that counts as acceptance (`automatic`). `expiration`
    /// is the received value, or `None` if it is missing or unreadable.
    Accept {
        permanent: bool,
        expiration: Option<Timestamp>,
        #[serde(default)]
        automatic: bool,
    },
    Reject,
}

/// Graph's answer to `call_permissions` about a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphPermission {
    /// The reported status. Graph never reports [`State::Requested`]. A temporary permission may
    /// lack its end.
    pub status: PermissionStatus,
    /// When the request was sent to Graph, or `None` for now. A user's reply received since is
    /// newer.
    pub asked: Option<Timestamp>,
    /// Connected calls in 24 hours.
    pub calls: Option<Counter>,
    /// Permission requests in 24 hours.
    pub requests_of_day: Option<Counter>,
    /// Permission requests in seven days.
    pub requests_of_week: Option<Counter>,
}

/// An entry of `limits[]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    pub used: u32,
    /// When the next event is allowed. Only set if the limit is reached.
    pub room_at: Option<Timestamp>,
}

/// Why a call or a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalReason {
    /// The user was never asked.
    NotAsked,
    /// The user has not answered yet.
    NotAnswered,
    Rejected,
    /// The permission or the request has expired.
    Expired,
    /// Meta revoked the permission after too many missed calls in a row.
    Revoked,
    /// Meta reported no permission.
    #[serde(rename = "told_by_meta")]
    ReportedByMeta,
    /// The limit of connected calls in 24 hours is reached.
    DailyLimit,
    /// The limit of permission requests is reached.
    RequestLimit,
}

impl RefusalReason {
    /// The word in API responses and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotAsked => "not_asked",
            Self::NotAnswered => "not_answered",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::ReportedByMeta => "told_by_meta",
            Self::DailyLimit => "daily_limit",
            Self::RequestLimit => "request_limit",
        }
    }
}

/// The rule that refuses. `again` is the time at which it no longer applies, or `None` if that is
/// unknown or does not depend on time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub why: RefusalReason,
    pub again: Option<Timestamp>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.why {
            RefusalReason::NotAsked => "the user has not been asked for permission to be called",
            RefusalReason::NotAnswered => {
                "the user has not answered the request for permission yet"
            }
            RefusalReason::Rejected => "the user does not want to be called",
            RefusalReason::Expired => "the user's permission has expired",
            RefusalReason::Revoked => {
                "the user missed so many calls in a row that the permission was revoked"
            }
            RefusalReason::ReportedByMeta => {
                "Meta knows of no permission of this user: send the user a permission request first"
            }
            RefusalReason::DailyLimit => {
                "as many calls were connected in 24 hours as are allowed (daily_limit)"
            }
            RefusalReason::RequestLimit => "as many requests were sent as are allowed",
        })?;
        self.again.map_or(Ok(()), |at| write!(f, "; the next is allowed at {at}"))
    }
}

/// A pair in the number API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub state: State,
    pub missed: u32,
    /// Whether so many calls were missed that Meta asks the user whether to keep receiving them.
    pub warned: bool,
    /// Number of calls that may still be connected. 0 without a permission.
    pub calls_left: u32,
    /// When the next call is allowed, if none is left and waiting helps.
    pub next_call: Option<Timestamp>,
    pub requests_left: u32,
    pub next_request: Option<Timestamp>,
    /// Whether the state was reported by Meta.
    pub by_meta: bool,
    /// When Graph was last queried.
    pub checked: Option<Timestamp>,
    /// When the user last answered a request or changed the permission.
    pub replied: Option<Timestamp>,
}

/// The stored state of one business number and one user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pair {
    #[serde(flatten)]
    state: State,
    /// The reason why the permission is missing.
    lost: Option<RefusalReason>,
    /// When the open request was sent.
    request: Option<Timestamp>,
    requests: Times,
    connected: Times,
    misses: u32,
    /// Time of the last change, by Meta's clock. Older replies are ignored.
    changed: Option<Timestamp>,
    /// Time at which the last effective reply was received, by the node's clock.
    #[serde(rename = "heard")]
    replied_at: Option<Timestamp>,
    checked: Option<Timestamp>,
    /// Whether Graph has contradicted this state, so that Graph may be queried once.
    doubtful: bool,
    by_meta: bool,
    /// Times reported by Meta at which calls and requests are allowed again.
    no_call_before: Option<Timestamp>,
    no_request_before: Option<Timestamp>,
}

impl Pair {
    /// The state at `now`. An expired state is [`State::None`].
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

    /// Checks whether the user's permission allows a call: permission granted and not revoked,
    /// daily limit of connected calls not reached.
    ///
    /// # Errors
    ///
    /// Returns the rule that refuses it.
    pub fn may_call(&self, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
        if !rules.enforce {
            return Ok(());
        }
        let state = self.state(rules, now);
        if !state.is_granted() {
            return Err(Refusal { why: self.reason_for_none(state), again: None });
        }
        let room = self.connected.room_at(now, DAY, rules.calls_per_day);
        refuse(RefusalReason::DailyLimit, [room], self.no_call_before, now)
    }

    fn reason_for_none(&self, state: State) -> RefusalReason {
        match (state, self.state) {
            (State::Requested, _) => RefusalReason::NotAnswered,
            (_, State::Temporary { .. } | State::Requested) => RefusalReason::Expired,
            _ => self.lost.unwrap_or(RefusalReason::NotAsked),
        }
    }

    /// Checks whether the user may be asked for permission, by the limits per day and per week.
    ///
    /// # Errors
    ///
    /// Returns the rule that refuses it.
    pub fn may_request(&self, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
        if !rules.enforce {
            return Ok(());
        }
        let of_day = self.requests.room_at(now, DAY, rules.requests_per_day);
        let of_week = self.requests.room_at(now, WEEK, rules.requests_per_week);
        refuse(RefusalReason::RequestLimit, [of_day, of_week], self.no_request_before, now)
    }

    /// Applies an event. Returns `false` if it is a reply that changes nothing: an outdated one,
    /// or an automatic one while the permission is permanent.
    pub fn apply(&mut self, rules: &Rules, now: Timestamp, event: Event) -> bool {
        match event {
            Event::Requested => {
                self.requests.add(now, now, WEEK);
                self.request = Some(now);
                if !self.state(rules, now).is_granted() {
                    // The reason is kept, because a withdrawal restores it.
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
            Event::Replied { at, reply } => return self.apply_reply(rules, now, at, reply),
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
                    self.set(State::None, Some(RefusalReason::Revoked), false);
                    self.record_local_change(now);
                }
            }
            Event::NoPermission => {
                self.set(State::None, Some(RefusalReason::ReportedByMeta), true);
                self.doubtful = true;
                self.record_local_change(now);
            }
            Event::CallsUsedUp { until } => {
                self.no_call_before =
                    until.filter(|until| *until > now).map(|until| until.min(now.plus(DAY)));
            }
            Event::Doubted => self.doubtful = true,
            Event::GraphReport(report) => self.apply_report(rules, now, &report),
        }
        true
    }

    fn set(&mut self, state: State, lost: Option<RefusalReason>, by_meta: bool) {
        (self.state, self.lost, self.by_meta) = (state, lost, by_meta);
    }

    /// Resets the count of requests, after a connected call in either direction.
    fn forget_requests(&mut self) {
        self.requests.clear();
        self.no_request_before = None;
    }

    /// Records a change by the node's own clock.
    fn record_local_change(&mut self, now: Timestamp) {
        let at = Timestamp::from_micros(now.micros().saturating_sub(CLOCKS_APART_MAX));
        self.changed = self.changed.max(Some(at));
    }

    fn apply_reply(
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
        let is_by_call = matches!(reply, Reply::Accept { permanent: false, automatic: true, .. });
        if is_by_call && self.state(rules, now) == State::Permanent {
            return false;
        }
        self.changed = Some(at);
        self.replied_at = Some(now);
        match reply {
            Reply::Reject => {
                // With such a reply, Meta also revokes a permission after missed calls.
                let is_revoked = self.lost == Some(RefusalReason::Revoked)
                    && self.state(rules, now) == State::None;
                let lost =
                    if is_revoked { RefusalReason::Revoked } else { RefusalReason::Rejected };
                self.set(State::None, Some(lost), true);
            }
            Reply::Accept { permanent: true, .. } => self.grant(State::Permanent),
            Reply::Accept { expiration, .. } => {
                let usual = at.plus(Duration::from_secs(rules.temporary_seconds));
                let is_plausible = |until: &Timestamp| {
                    until.micros() >= 0 && *until <= now.plus(EXPIRATION_AHEAD_MAX)
                };
                self.grant(State::Temporary {
                    until: expiration.filter(is_plausible).unwrap_or(usual),
                });
            }
        }
        true
    }

    /// Replaces the permission with a new one and resets the missed calls.
    fn grant(&mut self, state: State) {
        self.set(state, None, true);
        self.misses = 0;
        self.request = None;
        self.doubtful = false;
    }

    fn apply_report(&mut self, rules: &Rules, now: Timestamp, report: &GraphPermission) {
        let before = self.state(rules, now);
        let overtaken = report
            .asked
            .is_some_and(|asked| self.replied_at.is_some_and(|replied_at| replied_at > asked));
        match report.status {
            // The user replied after Graph was asked.
            _ if overtaken => {}
            // Graph does not report open requests.
            PermissionStatus::NoPermission if before == State::Requested => self.by_meta = true,
            PermissionStatus::NoPermission => {
                let why = self
                    .lost
                    .filter(|_| before == self.state)
                    .unwrap_or(RefusalReason::ReportedByMeta);
                self.set(State::None, Some(why), true);
            }
            PermissionStatus::Permanent => self.grant_from_graph(before, State::Permanent),
            PermissionStatus::Temporary { until } => {
                let known =
                    if let State::Temporary { until } = before { Some(until) } else { None };
                let usual = || now.plus(Duration::from_secs(rules.temporary_seconds));
                let until = until.or(known).unwrap_or_else(usual);
                self.grant_from_graph(before, State::Temporary { until });
            }
        }
        self.checked = Some(now);
        self.doubtful = false;
        self.record_local_change(now);
        self.replace_counters(now, report);
    }

    /// Applies a permission reported by Graph. Calls missed under another permission do not count
    /// against it.
    fn grant_from_graph(&mut self, before: State, state: State) {
        let misses = if before == state { self.misses } else { 0 };
        self.grant(state);
        self.misses = misses;
    }

    /// Replaces local counts by Graph's. Events that this node did not see count for the whole
    /// window, because their times are unknown.
    fn replace_counters(&mut self, now: Timestamp, report: &GraphPermission) {
        let seen = |counter: &Counter, window: Duration| {
            let begun = |room: Timestamp| before(room, window).clamp(before(now, window), now);
            counter.room_at.map_or(now, begun)
        };
        if let Some(calls) = &report.calls {
            self.connected.replace_count(calls.used, seen(calls, DAY), now, DAY);
            self.no_call_before = calls.room_at;
        }
        let of_week = |requests: &mut Times| {
            if let Some(week) = &report.requests_of_week {
                // At least a day ago, since the last day has its own counter.
                let latest = if report.requests_of_day.is_some() { before(now, DAY) } else { now };
                requests.replace_count(week.used, seen(week, WEEK).min(latest), now, WEEK);
            }
        };
        of_week(&mut self.requests);
        if let Some(day) = &report.requests_of_day {
            self.requests.replace_count(day.used, seen(day, DAY), now, DAY);
            of_week(&mut self.requests);
        }
        if report.requests_of_day.is_some() || report.requests_of_week.is_some() {
            let of = |counter: &Option<Counter>| counter.and_then(|counter| counter.room_at);
            self.no_request_before = of(&report.requests_of_day).max(of(&report.requests_of_week));
        }
    }

    /// Whether Graph may know better: it has contradicted this state, or was never queried about a
    /// user who has not answered a request or of whom nothing is known. The user may have permitted
    /// calls before this node knew the number, or while it did not enforce permissions.
    pub fn is_doubtful(&self) -> bool {
        let is_open = match self.state {
            State::Requested => true,
            State::None => self.lost.is_none(),
            State::Temporary { .. } | State::Permanent => false,
        };
        self.doubtful || is_open && self.checked.is_none()
    }

    /// When Graph last reported the permission.
    pub fn checked(&self) -> Option<Timestamp> {
        self.checked
    }

    /// Whether the state has no effect any more, so that it can be deleted.
    pub fn is_blank(&self, rules: &Rules, now: Timestamp) -> bool {
        let recently = |at: Option<Timestamp>, window| at.is_some_and(|at| now.since(at) < window);
        self.state(rules, now) == State::None
            && !self.is_request_open(rules, now)
            && !recently(self.requests.last(), WEEK)
            && !recently(self.connected.last(), DAY)
            && !recently(self.changed, WEEK)
            && !recently(self.checked, DAY)
    }

    /// The pair in the number API.
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
            replied: self.replied_at,
        }
    }
}

/// Returns the refusal that applies until all windows allow the event and the time reported by Meta
/// has passed.
fn refuse<const N: usize>(
    why: RefusalReason,
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
