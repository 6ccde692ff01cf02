//! Each rule at its edges, with a manual clock. `oracle` compares the state machine with a model
//! that keeps every event.

mod fleet;
mod graph;
mod oracle;

use super::*;
use model::Timestamp;

const NOW: i64 = 1_790_000_000;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;

/// A pair under the default rules, with a clock in seconds.
struct Fixture {
    pair: Pair,
    rules: Rules,
    now: i64,
}

impl Fixture {
    fn new() -> Self {
        Self { pair: Pair::default(), rules: Rules::default(), now: NOW }
    }

    /// With a temporary permission granted now.
    fn granted() -> Self {
        let mut fixture = Self::new();
        fixture.reply(accept(None));
        fixture
    }

    fn with(mut self, change: impl FnOnce(&mut Rules)) -> Self {
        change(&mut self.rules);
        self
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_secs(self.now)
    }

    fn step(&mut self, seconds: i64) {
        self.now += seconds;
    }

    fn event(&mut self, event: Event) -> bool {
        let now = self.time();
        self.pair.apply(&self.rules, now, event)
    }

    fn reply(&mut self, reply: Reply) -> bool {
        let at = Some(self.time());
        self.event(Event::Replied { at, reply })
    }

    fn times(&mut self, n: usize, event: &Event) {
        (0..n).for_each(|_| assert!(self.event(event.clone())));
    }

    fn state(&self) -> State {
        self.pair.state(&self.rules, self.time())
    }

    /// The reason why a call is refused, and for how many more seconds.
    fn call(&self) -> Option<(RefusalReason, Option<i64>)> {
        self.refusal(self.pair.may_call(&self.rules, self.time()))
    }

    fn request(&self) -> Option<(RefusalReason, Option<i64>)> {
        self.refusal(self.pair.may_request(&self.rules, self.time()))
    }

    fn refusal(&self, may: Result<(), Refusal>) -> Option<(RefusalReason, Option<i64>)> {
        may.err().map(|refusal| (refusal.why, refusal.again.map(|at| at.secs() - self.now)))
    }

    fn view(&self) -> View {
        self.pair.view(&self.rules, self.time())
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(seconds)
}

fn accept(expiration: Option<i64>) -> Reply {
    Reply::Accept { permanent: false, expiration: expiration.map(at), automatic: false }
}

const FOREVER: Reply = Reply::Accept { permanent: true, expiration: None, automatic: false };

#[test]
fn an_unknown_user_may_be_asked_but_not_called() {
    let fixture = Fixture::new();
    assert_eq!(fixture.state(), State::None);
    assert_eq!(fixture.call(), Some((RefusalReason::NotAsked, None)));
    assert_eq!(fixture.request(), None);
    let view = fixture.view();
    assert_eq!((view.calls_left, view.requests_left, view.missed, view.warned), (0, 1, 0, false));
    assert!(!view.by_meta && view.checked.is_none());
}

#[test]
fn l13_one_request_in_a_day() {
    let mut fixture = Fixture::new();
    fixture.event(Event::Requested);
    assert_eq!(fixture.state(), State::Requested);
    assert_eq!(fixture.call(), Some((RefusalReason::NotAnswered, None)));
    assert_eq!(fixture.request(), Some((RefusalReason::RequestLimit, Some(DAY))));
    fixture.step(DAY - 1);
    assert_eq!(fixture.request(), Some((RefusalReason::RequestLimit, Some(1))), "23:59:59 later");
    fixture.step(1);
    assert_eq!(fixture.request(), None, "a day later");
}

#[test]
fn l14_two_requests_in_a_week() {
    let mut fixture = Fixture::new();
    fixture.event(Event::Requested);
    fixture.step(DAY);
    fixture.event(Event::Requested);
    assert_eq!(fixture.view().requests_left, 0);
    fixture.step(DAY);
    assert_eq!(
        fixture.request(),
        Some((RefusalReason::RequestLimit, Some(WEEK - 2 * DAY))),
        "the day has room, the week has none"
    );
    assert_eq!(fixture.view().next_request, Some(at(NOW + WEEK)));
    fixture.step(WEEK - 2 * DAY - 1);
    assert_eq!(fixture.request(), Some((RefusalReason::RequestLimit, Some(1))));
    fixture.step(1);
    assert_eq!(fixture.request(), None);
    fixture.event(Event::Requested);
    // The second request is six days old and this one new, so the limits of the day and of the week
    // both end in 24 hours.
    assert_eq!(fixture.request(), Some((RefusalReason::RequestLimit, Some(DAY))));
}

#[test]
fn l13_a_connected_call_of_either_direction_clears_the_requests() {
    for (event, clears) in
        [(Event::UserConnected, true), (Event::Connected, true), (Event::Unanswered, false)]
    {
        let mut fixture = Fixture::new();
        fixture.event(Event::Requested);
        fixture.reply(accept(None));
        fixture.step(HOUR);
        fixture.event(event.clone());
        assert_eq!(fixture.request().is_none(), clears, "{event:?}");
    }
}

#[test]
fn l15_five_connected_calls_in_a_day_and_the_sixth_a_day_after_the_first() {
    let mut fixture = Fixture::granted();
    for left in (0..5).rev() {
        assert_eq!(fixture.call(), None);
        fixture.event(Event::Connected);
        assert_eq!(fixture.view().calls_left, left);
        fixture.step(HOUR);
    }
    assert_eq!(fixture.call(), Some((RefusalReason::DailyLimit, Some(DAY - 5 * HOUR))));
    assert_eq!(fixture.view().next_call, Some(at(NOW + DAY)));
    fixture.step(DAY - 5 * HOUR - 1);
    assert_eq!(fixture.call(), Some((RefusalReason::DailyLimit, Some(1))));
    fixture.step(1);
    assert_eq!(fixture.call(), None);
    fixture.event(Event::Connected);
    assert_eq!(
        fixture.call(),
        Some((RefusalReason::DailyLimit, Some(HOUR))),
        "allowed again when the second is a day old"
    );
}

#[test]
fn l15_unanswered_calls_do_not_count() {
    let mut fixture = Fixture::granted();
    fixture.times(4, &Event::Connected);
    fixture.times(3, &Event::Unanswered);
    fixture.times(3, &Event::UserConnected);
    assert_eq!(fixture.call(), None);
    assert_eq!(fixture.view().calls_left, 1);
    let text = Fixture::granted().with(|rules| rules.calls_per_day = 0);
    assert_eq!(text.call(), Some((RefusalReason::DailyLimit, None)), "never");
}

#[test]
fn l16_a_permission_lasts_seven_days_to_the_second() {
    let mut fixture = Fixture::granted();
    assert_eq!(fixture.state(), State::Temporary { until: at(NOW + WEEK) });
    fixture.step(WEEK - 1);
    assert_eq!(fixture.call(), None, "6 d 23:59:59");
    fixture.step(1);
    assert_eq!(fixture.state(), State::None, "7 d 00:00:00");
    assert_eq!(fixture.call(), Some((RefusalReason::Expired, None)));
    let mut fixture = Fixture::new();
    fixture.reply(FOREVER);
    fixture.step(1_000 * DAY);
    assert_eq!((fixture.state(), fixture.call()), (State::Permanent, None));
}

#[test]
fn l16_a_request_lives_seven_days_to_the_second() {
    let mut fixture = Fixture::new();
    fixture.event(Event::Requested);
    fixture.step(WEEK - 1);
    assert_eq!(fixture.state(), State::Requested);
    fixture.step(1);
    assert_eq!(fixture.state(), State::None);
    assert_eq!(fixture.call(), Some((RefusalReason::Expired, None)));
}

#[test]
fn l17_two_misses_warn_and_four_revoke() {
    let mut fixture = Fixture::granted();
    fixture.times(1, &Event::Unanswered);
    assert!(!fixture.view().warned);
    fixture.times(1, &Event::Unanswered);
    assert!(fixture.view().warned);
    assert_eq!(fixture.call(), None, "nothing is blocked");
    fixture.times(1, &Event::Unanswered);
    assert_eq!(fixture.call(), None);
    fixture.times(1, &Event::Unanswered);
    assert_eq!(
        (fixture.state(), fixture.call()),
        (State::None, Some((RefusalReason::Revoked, None)))
    );
    assert_eq!(fixture.view().missed, 4);
    fixture.step(200);
    fixture.reply(Reply::Reject);
    assert_eq!(fixture.call(), Some((RefusalReason::Revoked, None)), "Meta's automatic reply");
    fixture.step(200);
    fixture.reply(accept(None));
    assert_eq!((fixture.call(), fixture.view().missed), (None, 0), "the user may grant again");
}

#[test]
fn l17_only_consecutive_misses_count_and_a_new_permission_resets_them() {
    let mut fixture = Fixture::granted();
    fixture.times(3, &Event::Unanswered);
    fixture.event(Event::Connected);
    fixture.times(3, &Event::Unanswered);
    assert_eq!(fixture.call(), None, "three, answered, three");
    fixture.step(DAY);
    fixture.reply(accept(None));
    assert_eq!(
        fixture.state(),
        State::Temporary { until: at(NOW + DAY + WEEK) },
        "seven days from the new one"
    );
    fixture.times(3, &Event::Unanswered);
    assert_eq!(fixture.call(), None);
    // A call from the user does not count as an outbound call.
    fixture.event(Event::UserConnected);
    fixture.times(1, &Event::Unanswered);
    assert_eq!(fixture.call(), Some((RefusalReason::Revoked, None)));
    let mut forever = Fixture::new();
    forever.reply(FOREVER);
    forever.times(4, &Event::Unanswered);
    assert_eq!(forever.state(), State::None, "both kinds");
    let mut off =
        Fixture::granted().with(|rules| (rules.prompt_after, rules.revoke_after) = (0, 0));
    off.times(100, &Event::Unanswered);
    assert_eq!((off.call(), off.view().warned), (None, false), "0: never");
}

#[test]
fn replies_set_the_documented_states() {
    const AHEAD: i64 = 400 * DAY;
    let until = |seconds| State::Temporary { until: at(seconds) };
    let usual = until(NOW + WEEK);
    let rows = [
        (FOREVER, State::Permanent),
        (
            Reply::Accept { permanent: true, expiration: Some(at(NOW + 5)), automatic: false },
            State::Permanent,
        ),
        (accept(Some(NOW + 5)), until(NOW + 5)),
        (accept(Some(NOW + 20 * DAY)), until(NOW + 20 * DAY)),
        (accept(Some(NOW + AHEAD)), until(NOW + AHEAD)),
        (accept(Some(NOW + AHEAD + 1)), usual),
        (accept(Some((NOW + DAY) * 1_000)), usual),
        (accept(None), usual),
        (accept(Some(NOW)), State::None),
        (accept(Some(NOW - 10)), State::None),
        (accept(Some(-1)), usual),
        (Reply::Reject, State::None),
    ];
    for (reply, state) in rows {
        for before in [None, Some(FOREVER), Some(accept(Some(NOW + 60))), Some(Reply::Reject)] {
            let mut fixture = Fixture::new();
            before.map(|before| fixture.reply(before));
            assert!(fixture.reply(reply));
            assert_eq!(fixture.state(), state, "{reply:?} after {before:?}");
        }
    }
    // A user's call does not shorten a permanent permission.
    let automatic =
        |permanent| Reply::Accept { permanent, expiration: Some(at(NOW + 5)), automatic: true };
    for (before, state) in [
        (FOREVER, State::Permanent),
        (accept(Some(NOW + 60)), until(NOW + 5)),
        (Reply::Reject, until(NOW + 5)),
    ] {
        let mut fixture = Fixture::new();
        fixture.reply(before);
        assert_eq!(fixture.reply(automatic(false)), before != FOREVER);
        assert_eq!(fixture.state(), state, "after {before:?}");
        assert!(fixture.reply(automatic(true)));
        assert_eq!(fixture.state(), State::Permanent);
    }
    // The validity counts from when the message was sent, not from its arrival.
    let mut fixture = Fixture::new();
    fixture.event(Event::Replied { at: Some(at(NOW - 100)), reply: accept(None) });
    assert_eq!(fixture.state(), until(NOW - 100 + WEEK));
    let mut fixture = Fixture::new();
    fixture.event(Event::Replied { at: None, reply: accept(None) });
    assert_eq!(fixture.state(), usual);
}

#[test]
fn replies_are_ordered_by_their_time_then_by_arrival() {
    let mut fixture = Fixture::granted();
    let late = |seconds| Event::Replied { at: Some(at(NOW + seconds)), reply: Reply::Reject };
    fixture.step(5);
    assert!(!fixture.event(late(-100)), "older than the row");
    assert!(!fixture.event(late(-1)));
    assert_eq!(fixture.call(), None);
    assert!(fixture.event(late(0)), "of the same second: the later arrival counts");
    assert_eq!(fixture.call(), Some((RefusalReason::Rejected, None)));
    // A reply dated far ahead does not outdate later ones.
    let mut fixture = Fixture::new();
    fixture.event(Event::Replied { at: Some(at(NOW + 100 * DAY)), reply: accept(None) });
    fixture.step(301);
    assert!(fixture.reply(Reply::Reject));
}

#[test]
fn a_reply_is_accepted_from_a_clock_that_is_behind() {
    let mut fixture = Fixture::new();
    fixture.event(Event::Requested);
    fixture.step(1);
    assert!(fixture.event(Event::Replied { at: Some(at(NOW - 120)), reply: accept(None) }));
    assert_eq!(fixture.call(), None);
}

#[test]
fn a_request_during_a_permission_and_before_a_rejection() {
    let mut fixture = Fixture::granted();
    fixture.event(Event::Requested);
    assert_eq!(
        (fixture.state(), fixture.call()),
        (State::Temporary { until: at(NOW + WEEK) }, None),
        "stays temporary"
    );
    fixture.step(1);
    fixture.reply(Reply::Reject);
    assert_eq!(fixture.state(), State::None);
    assert_eq!(
        fixture.request(),
        Some((RefusalReason::RequestLimit, Some(DAY - 1))),
        "a rejection gives no request back"
    );
    fixture.step(1);
    fixture.reply(accept(None));
    assert_eq!(fixture.call(), None, "the open request may be accepted later");
}

#[test]
fn a_call_from_the_user_only_resets_the_request_count() {
    let mut fixture = Fixture::new();
    fixture.event(Event::UserConnected);
    assert_eq!(
        (fixture.state(), fixture.call()),
        (State::None, Some((RefusalReason::NotAsked, None))),
        "only Meta's reply grants"
    );
    fixture.reply(accept(Some(NOW + WEEK)));
    assert_eq!(fixture.state(), State::Temporary { until: at(NOW + WEEK) });
}

#[test]
fn limits_are_configurable() {
    // Meta's limits for test numbers.
    let mut fixture = Fixture::granted().with(|rules| {
        (rules.calls_per_day, rules.requests_per_day, rules.requests_per_week) = (100, 25, 100);
        (rules.prompt_after, rules.revoke_after) = (5, 10);
    });
    fixture.times(99, &Event::Connected);
    assert_eq!(fixture.call(), None);
    fixture.times(1, &Event::Connected);
    assert_eq!(fixture.call(), Some((RefusalReason::DailyLimit, Some(DAY))));
    fixture.times(24, &Event::Requested);
    assert_eq!((fixture.request(), fixture.view().requests_left), (None, 1));
    fixture.times(1, &Event::Requested);
    assert_eq!(fixture.request(), Some((RefusalReason::RequestLimit, Some(DAY))));
    fixture.times(4, &Event::Unanswered);
    assert!(!fixture.view().warned);
    fixture.times(5, &Event::Unanswered);
    assert!(fixture.view().warned && fixture.state() != State::None);
    fixture.times(1, &Event::Unanswered);
    assert_eq!(fixture.state(), State::None);
    let mut short =
        Fixture::new().with(|rules| (rules.temporary_seconds, rules.request_seconds) = (10, 20));
    short.event(Event::Requested);
    short.step(19);
    assert_eq!(short.state(), State::Requested);
    short.reply(accept(None));
    short.step(9);
    assert_eq!(short.call(), None);
    short.step(1);
    assert_eq!(short.call(), Some((RefusalReason::Expired, None)));
    let off = Fixture::new().with(|rules| rules.enforce = false);
    assert_eq!((off.call(), off.request()), (None, None), "left to Meta");
}

#[test]
fn a_pair_round_trips_through_json_and_missing_fields_have_defaults() {
    let mut fixture = Fixture::granted();
    fixture.times(2, &Event::Connected);
    fixture.times(2, &Event::Unanswered);
    let text = serde_json::to_string(&fixture.pair).unwrap();
    assert_eq!(serde_json::from_str::<Pair>(&text).unwrap(), fixture.pair);
    assert_eq!(serde_json::from_str::<Pair>("{\"state\":\"none\"}").unwrap(), Pair::default());
    assert!(text.contains("\"state\":\"temporary\""), "{text}");
}

#[test]
fn a_pair_is_blank_when_nothing_in_it_is_in_force() {
    let mut fixture = Fixture::granted();
    let blank = |fixture: &Fixture| fixture.pair.is_blank(&fixture.rules, fixture.time());
    fixture.event(Event::Connected);
    assert!(!blank(&fixture));
    fixture.step(WEEK - 1);
    assert!(!blank(&fixture));
    fixture.step(1);
    assert!(blank(&fixture));
    let mut forever = Fixture::new();
    forever.reply(FOREVER);
    forever.step(1_000 * DAY);
    assert!(!blank(&forever));
}
