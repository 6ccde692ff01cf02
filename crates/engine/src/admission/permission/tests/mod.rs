//! Each rule at its edges under a clock that is moved by hand; `model` holds the machine against one that remembers
//! everything and counts it again each time.

mod graph;
mod oracle;

use super::*;
use model::Timestamp;

const NOW: i64 = 1_790_000_000;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;

/// A pair under the seed's rules, and a clock in seconds.
struct Desk {
    pair: Pair,
    rules: Rules,
    now: i64,
}

impl Desk {
    fn new() -> Self {
        Self { pair: Pair::default(), rules: Rules::default(), now: NOW }
    }

    /// With a temporary permission that has just been given.
    fn granted() -> Self {
        let mut desk = Self::new();
        desk.reply(accept(None));
        desk
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

    /// The word of what refuses a call, and in how many seconds it will not any more.
    fn call(&self) -> Option<(Why, Option<i64>)> {
        self.refusal(self.pair.may_call(&self.rules, self.time()))
    }

    fn request(&self) -> Option<(Why, Option<i64>)> {
        self.refusal(self.pair.may_request(&self.rules, self.time()))
    }

    fn refusal(&self, may: Result<(), Refusal>) -> Option<(Why, Option<i64>)> {
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
    Reply::Accept { permanent: false, expiration: expiration.map(at) }
}

const FOREVER: Reply = Reply::Accept { permanent: true, expiration: None };

#[test]
fn a_stranger_is_not_called_and_may_be_asked() {
    let desk = Desk::new();
    assert_eq!(desk.state(), State::None);
    assert_eq!(desk.call(), Some((Why::NotAsked, None)));
    assert_eq!(desk.request(), None);
    let view = desk.view();
    assert_eq!((view.calls_left, view.requests_left, view.missed, view.warned), (0, 1, 0, false));
    assert!(!view.by_meta && view.checked.is_none());
}

#[test]
fn l13_one_request_in_a_day() {
    let mut desk = Desk::new();
    desk.event(Event::Requested);
    assert_eq!(desk.state(), State::Requested);
    assert_eq!(desk.call(), Some((Why::NotAnswered, None)));
    assert_eq!(desk.request(), Some((Why::RequestLimit, Some(DAY))));
    desk.step(DAY - 1);
    assert_eq!(desk.request(), Some((Why::RequestLimit, Some(1))), "23:59:59 later");
    desk.step(1);
    assert_eq!(desk.request(), None, "a day later");
}

#[test]
fn l14_two_requests_in_a_week() {
    let mut desk = Desk::new();
    desk.event(Event::Requested);
    desk.step(DAY);
    desk.event(Event::Requested);
    assert_eq!(desk.view().requests_left, 0);
    desk.step(DAY);
    assert_eq!(
        desk.request(),
        Some((Why::RequestLimit, Some(WEEK - 2 * DAY))),
        "the day has room, the week has none"
    );
    assert_eq!(desk.view().next_request, Some(at(NOW + WEEK)));
    desk.step(WEEK - 2 * DAY - 1);
    assert_eq!(desk.request(), Some((Why::RequestLimit, Some(1))));
    desk.step(1);
    assert_eq!(desk.request(), None);
    desk.event(Event::Requested);
    // The second is six days old, this one new: the day forbids it for 24 hours, and so does the week.
    assert_eq!(desk.request(), Some((Why::RequestLimit, Some(DAY))));
}

#[test]
fn l13_a_connected_call_of_either_direction_clears_the_requests() {
    for (event, clears) in
        [(Event::UserConnected, true), (Event::Connected, true), (Event::Unanswered, false)]
    {
        let mut desk = Desk::new();
        desk.event(Event::Requested);
        desk.reply(accept(None));
        desk.step(HOUR);
        desk.event(event.clone());
        assert_eq!(desk.request().is_none(), clears, "{event:?}");
    }
}

#[test]
fn l15_five_connected_calls_in_a_day_and_the_sixth_a_day_after_the_first() {
    let mut desk = Desk::granted();
    for left in (0..5).rev() {
        assert_eq!(desk.call(), None);
        desk.event(Event::Connected);
        assert_eq!(desk.view().calls_left, left);
        desk.step(HOUR);
    }
    assert_eq!(desk.call(), Some((Why::DailyLimit, Some(DAY - 5 * HOUR))));
    assert_eq!(desk.view().next_call, Some(at(NOW + DAY)));
    desk.step(DAY - 5 * HOUR - 1);
    assert_eq!(desk.call(), Some((Why::DailyLimit, Some(1))));
    desk.step(1);
    assert_eq!(desk.call(), None);
    desk.event(Event::Connected);
    assert_eq!(
        desk.call(),
        Some((Why::DailyLimit, Some(HOUR))),
        "room again when the second is a day old"
    );
}

#[test]
fn l15_what_was_not_connected_does_not_count() {
    let mut desk = Desk::granted();
    desk.times(4, &Event::Connected);
    desk.times(3, &Event::Unanswered);
    desk.times(3, &Event::UserConnected);
    assert_eq!(desk.call(), None);
    assert_eq!(desk.view().calls_left, 1);
    let text = Desk::granted().with(|rules| rules.calls_per_day = 0);
    assert_eq!(text.call(), Some((Why::DailyLimit, None)), "never");
}

#[test]
fn l16_a_permission_lasts_seven_days_to_the_second() {
    let mut desk = Desk::granted();
    assert_eq!(desk.state(), State::Temporary { until: at(NOW + WEEK) });
    desk.step(WEEK - 1);
    assert_eq!(desk.call(), None, "6 d 23:59:59");
    desk.step(1);
    assert_eq!(desk.state(), State::None, "7 d 00:00:00");
    assert_eq!(desk.call(), Some((Why::Expired, None)));
    let mut desk = Desk::new();
    desk.reply(FOREVER);
    desk.step(1_000 * DAY);
    assert_eq!((desk.state(), desk.call()), (State::Permanent, None));
}

#[test]
fn l16_a_request_lives_seven_days_to_the_second() {
    let mut desk = Desk::new();
    desk.event(Event::Requested);
    desk.step(WEEK - 1);
    assert_eq!(desk.state(), State::Requested);
    desk.step(1);
    assert_eq!(desk.state(), State::None);
    assert_eq!(desk.call(), Some((Why::Expired, None)));
}

#[test]
fn l17_two_misses_warn_and_four_revoke() {
    let mut desk = Desk::granted();
    desk.times(1, &Event::Unanswered);
    assert!(!desk.view().warned);
    desk.times(1, &Event::Unanswered);
    assert!(desk.view().warned);
    assert_eq!(desk.call(), None, "nothing is blocked");
    desk.times(1, &Event::Unanswered);
    assert_eq!(desk.call(), None);
    desk.times(1, &Event::Unanswered);
    assert_eq!((desk.state(), desk.call()), (State::None, Some((Why::Revoked, None))));
    assert_eq!(desk.view().missed, 4);
    desk.step(200);
    desk.reply(accept(None));
    assert_eq!((desk.call(), desk.view().missed), (None, 0), "the user may grant again");
}

#[test]
fn l17_only_misses_in_a_row_count_and_a_new_permission_begins_anew() {
    let mut desk = Desk::granted();
    desk.times(3, &Event::Unanswered);
    desk.event(Event::Connected);
    desk.times(3, &Event::Unanswered);
    assert_eq!(desk.call(), None, "three, answered, three");
    desk.step(DAY);
    desk.reply(accept(None));
    assert_eq!(
        desk.state(),
        State::Temporary { until: at(NOW + DAY + WEEK) },
        "seven days from the new one"
    );
    desk.times(3, &Event::Unanswered);
    assert_eq!(desk.call(), None);
    // A call of the user's is none of ours.
    desk.event(Event::UserConnected);
    desk.times(1, &Event::Unanswered);
    assert_eq!(desk.call(), Some((Why::Revoked, None)));
    let mut forever = Desk::new();
    forever.reply(FOREVER);
    forever.times(4, &Event::Unanswered);
    assert_eq!(forever.state(), State::None, "both kinds");
    let mut off = Desk::granted().with(|rules| (rules.prompt_after, rules.revoke_after) = (0, 0));
    off.times(100, &Event::Unanswered);
    assert_eq!((off.call(), off.view().warned), (None, false), "0: never");
}

#[test]
fn replies_as_the_table_has_them() {
    const AHEAD: i64 = 400 * DAY;
    let until = |seconds| State::Temporary { until: at(seconds) };
    let usual = until(NOW + WEEK);
    let rows = [
        (FOREVER, State::Permanent),
        (Reply::Accept { permanent: true, expiration: Some(at(NOW + 5)) }, State::Permanent),
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
            let mut desk = Desk::new();
            before.map(|before| desk.reply(before));
            assert!(desk.reply(reply));
            assert_eq!(desk.state(), state, "{reply:?} after {before:?}");
        }
    }
    // From the message's own time, not from its arrival.
    let mut desk = Desk::new();
    desk.event(Event::Replied { at: Some(at(NOW - 100)), reply: accept(None) });
    assert_eq!(desk.state(), until(NOW - 100 + WEEK));
    let mut desk = Desk::new();
    desk.event(Event::Replied { at: None, reply: accept(None) });
    assert_eq!(desk.state(), usual);
}

#[test]
fn replies_go_by_their_time_then_by_arrival() {
    let mut desk = Desk::granted();
    let late = |seconds| Event::Replied { at: Some(at(NOW + seconds)), reply: Reply::Reject };
    desk.step(5);
    assert!(!desk.event(late(-100)), "older than the row");
    assert!(!desk.event(late(-1)));
    assert_eq!(desk.call(), None);
    assert!(desk.event(late(0)), "of the same second: the later arrival counts");
    assert_eq!(desk.call(), Some((Why::Rejected, None)));
    // Somebody's clock far ahead does not bar what comes after.
    let mut desk = Desk::new();
    desk.event(Event::Replied { at: Some(at(NOW + 100 * DAY)), reply: accept(None) });
    desk.step(301);
    assert!(desk.reply(Reply::Reject));
}

#[test]
fn a_request_is_answered_by_a_clock_that_is_behind() {
    let mut desk = Desk::new();
    desk.event(Event::Requested);
    desk.step(1);
    assert!(desk.event(Event::Replied { at: Some(at(NOW - 120)), reply: accept(None) }));
    assert_eq!(desk.call(), None);
}

#[test]
fn a_request_beside_a_permission_and_after_a_rejection() {
    let mut desk = Desk::granted();
    desk.event(Event::Requested);
    assert_eq!(
        (desk.state(), desk.call()),
        (State::Temporary { until: at(NOW + WEEK) }, None),
        "stays temporary"
    );
    desk.step(1);
    desk.reply(Reply::Reject);
    assert_eq!(desk.state(), State::None);
    assert_eq!(
        desk.request(),
        Some((Why::RequestLimit, Some(DAY - 1))),
        "a rejection gives no request back"
    );
    desk.step(1);
    desk.reply(accept(None));
    assert_eq!(desk.call(), None, "the open request may be accepted later");
}

#[test]
fn a_users_own_call_changes_nothing_but_the_count_of_requests() {
    let mut desk = Desk::new();
    desk.event(Event::UserConnected);
    assert_eq!(
        (desk.state(), desk.call()),
        (State::None, Some((Why::NotAsked, None))),
        "only Meta's reply grants"
    );
    desk.reply(accept(Some(NOW + WEEK)));
    assert_eq!(desk.state(), State::Temporary { until: at(NOW + WEEK) });
}

#[test]
fn with_other_numbers_the_rules_are_others() {
    // Meta's for test numbers.
    let mut desk = Desk::granted().with(|rules| {
        (rules.calls_per_day, rules.requests_per_day, rules.requests_per_week) = (100, 25, 100);
        (rules.prompt_after, rules.revoke_after) = (5, 10);
    });
    desk.times(99, &Event::Connected);
    assert_eq!(desk.call(), None);
    desk.times(1, &Event::Connected);
    assert_eq!(desk.call(), Some((Why::DailyLimit, Some(DAY))));
    desk.times(24, &Event::Requested);
    assert_eq!((desk.request(), desk.view().requests_left), (None, 1));
    desk.times(1, &Event::Requested);
    assert_eq!(desk.request(), Some((Why::RequestLimit, Some(DAY))));
    desk.times(4, &Event::Unanswered);
    assert!(!desk.view().warned);
    desk.times(5, &Event::Unanswered);
    assert!(desk.view().warned && desk.state() != State::None);
    desk.times(1, &Event::Unanswered);
    assert_eq!(desk.state(), State::None);
    let mut short =
        Desk::new().with(|rules| (rules.temporary_seconds, rules.request_seconds) = (10, 20));
    short.event(Event::Requested);
    short.step(19);
    assert_eq!(short.state(), State::Requested);
    short.reply(accept(None));
    short.step(9);
    assert_eq!(short.call(), None);
    short.step(1);
    assert_eq!(short.call(), Some((Why::Expired, None)));
    let off = Desk::new().with(|rules| rules.enforce = false);
    assert_eq!((off.call(), off.request()), (None, None), "left to Meta");
}

#[test]
fn a_row_is_kept_as_json_and_what_is_not_there_is_as_new() {
    let mut desk = Desk::granted();
    desk.times(2, &Event::Connected);
    desk.times(2, &Event::Unanswered);
    let text = serde_json::to_string(&desk.pair).unwrap();
    assert_eq!(serde_json::from_str::<Pair>(&text).unwrap(), desk.pair);
    assert_eq!(serde_json::from_str::<Pair>("{\"state\":\"none\"}").unwrap(), Pair::default());
    assert!(text.contains("\"state\":\"temporary\""), "{text}");
}

#[test]
fn a_row_is_blank_when_nothing_of_it_counts() {
    let mut desk = Desk::granted();
    let blank = |desk: &Desk| desk.pair.is_blank(&desk.rules, desk.time());
    desk.event(Event::Connected);
    assert!(!blank(&desk));
    desk.step(WEEK - 1);
    assert!(!blank(&desk));
    desk.step(1);
    assert!(blank(&desk));
    let mut forever = Desk::new();
    forever.reply(FOREVER);
    forever.step(1_000 * DAY);
    assert!(!blank(&forever));
}
