//! What Graph says, in answers and in refusals.

use super::*;
use model::PermissionStatus;

fn told(status: PermissionStatus) -> Event {
    Event::Told(Told { status, ..Told::default() })
}

fn counters(calls: Option<Counter>, day: Option<Counter>, week: Option<Counter>) -> Event {
    let status = PermissionStatus::Temporary { until: Some(at(NOW + DAY)) };
    Event::Told(Told { status, asked: None, calls, requests_of_day: day, requests_of_week: week })
}

fn used(used: u32) -> Option<Counter> {
    Some(Counter { used, room_at: None })
}

fn used_up(used: u32, room_at: i64) -> Option<Counter> {
    Some(Counter { used, room_at: Some(at(room_at)) })
}

#[test]
fn a_state_is_taken_as_told() {
    let rows = [
        (PermissionStatus::NoPermission, State::None),
        (PermissionStatus::Permanent, State::Permanent),
        (
            PermissionStatus::Temporary { until: Some(at(NOW + 60)) },
            State::Temporary { until: at(NOW + 60) },
        ),
        (PermissionStatus::Temporary { until: None }, State::Temporary { until: at(NOW + WEEK) }),
    ];
    for (status, state) in rows {
        let mut desk = Desk::new();
        desk.event(told(status));
        assert_eq!(desk.state(), state, "{status:?}");
        let view = desk.view();
        assert_eq!((view.by_meta, view.checked), (true, Some(at(NOW))));
    }
    let mut desk = Desk::granted();
    desk.step(1);
    desk.event(told(PermissionStatus::NoPermission));
    assert_eq!(desk.call(), Some((Why::ToldByMeta, None)));
    let mut desk = Desk::new();
    desk.event(Event::Requested);
    desk.event(told(PermissionStatus::NoPermission));
    assert_eq!(desk.state(), State::Requested, "Graph has no word for that");
}

#[test]
fn l17_meta_knows_better_what_was_missed() {
    let mut desk = Desk::granted();
    desk.times(4, &Event::Unanswered);
    desk.event(told(PermissionStatus::Temporary { until: Some(at(NOW + WEEK)) }));
    assert_eq!(
        (desk.call(), desk.view().missed),
        (None, 0),
        "another permission than the one that was revoked"
    );
    desk.times(2, &Event::Unanswered);
    desk.event(told(PermissionStatus::Temporary { until: Some(at(NOW + WEEK)) }));
    assert_eq!(desk.view().missed, 2, "the same one");
}

#[test]
fn l15_counters_of_calls_are_taken_over() {
    // The fixture: five of five, room at a time that Meta names.
    let mut desk = Desk::new();
    desk.event(counters(used_up(5, NOW + HOUR), used(0), used(1)));
    assert_eq!(desk.call(), Some((Why::DailyLimit, Some(HOUR))));
    desk.step(HOUR - 1);
    assert_eq!(desk.call(), Some((Why::DailyLimit, Some(1))));
    desk.step(1);
    assert_eq!(desk.call(), None);
    // Fewer than we counted: the newest of ours stay.
    let mut desk = Desk::granted();
    for _ in 0..5 {
        desk.event(Event::Connected);
        desk.step(HOUR);
    }
    desk.event(counters(used(2), None, None));
    assert_eq!(desk.view().calls_left, 3);
    desk.times(3, &Event::Connected);
    assert_eq!(
        desk.call(),
        Some((Why::DailyLimit, Some(DAY - 2 * HOUR))),
        "the fourth of the five is the oldest"
    );
    // More than we counted: they count as long as they might.
    let mut desk = Desk::granted();
    desk.event(counters(used(4), None, None));
    assert_eq!(desk.view().calls_left, 1);
    desk.event(Event::Connected);
    desk.step(DAY - 1);
    assert!(desk.pair.may_call(&desk.rules, desk.time()).is_err());
    // Meta lets fewer pass than our rules.
    let mut desk = Desk::new();
    desk.event(counters(used_up(3, NOW + HOUR), None, None));
    assert_eq!(desk.call(), Some((Why::DailyLimit, Some(HOUR))));
    // And more: ours are refused earlier.
    let mut desk = Desk::new();
    desk.event(counters(used(50), None, None));
    assert_eq!(desk.view().calls_left, 0);
}

#[test]
fn l14_counters_of_requests_are_taken_over() {
    let mut desk = Desk::new();
    desk.event(counters(None, used(0), used(1)));
    assert_eq!((desk.request(), desk.view().requests_left), (None, 1));
    desk.event(Event::Requested);
    desk.step(DAY);
    assert_eq!(
        desk.request(),
        Some((Why::RequestLimit, Some(WEEK - 2 * DAY))),
        "one before, one now"
    );
    let mut desk = Desk::new();
    desk.event(counters(None, used_up(1, NOW + HOUR), used(1)));
    assert_eq!(desk.request(), Some((Why::RequestLimit, Some(HOUR))));
    let mut desk = Desk::new();
    desk.event(counters(None, used(0), used_up(2, NOW + 2 * DAY)));
    assert_eq!(desk.request(), Some((Why::RequestLimit, Some(2 * DAY))));
    // What Meta forgot, we forget.
    let mut desk = Desk::new();
    desk.event(Event::Requested);
    desk.event(counters(None, used(0), used(0)));
    assert_eq!(desk.request(), None);
}

#[test]
fn refusals_of_graph_are_learnt_from() {
    let mut desk = Desk::granted();
    desk.event(Event::NoPermission);
    assert_eq!(desk.call(), Some((Why::ToldByMeta, None)));
    assert!(desk.pair.is_doubtful());
    desk.event(told(PermissionStatus::Permanent));
    assert!(!desk.pair.is_doubtful());
    assert_eq!(desk.call(), None);
    desk.event(Event::CallsUsedUp { until: Some(at(NOW + HOUR)) });
    assert_eq!(desk.call(), Some((Why::DailyLimit, Some(HOUR))));
    desk.step(HOUR);
    assert_eq!(desk.call(), None);
    desk.event(Event::CallsUsedUp { until: Some(at(NOW + 900 * DAY)) });
    assert_eq!(desk.call(), Some((Why::DailyLimit, Some(DAY))), "no longer than the rule itself");
    let mut desk = Desk::granted();
    desk.event(Event::CallsUsedUp { until: Some(at(NOW - 1)) });
    assert_eq!(desk.call(), None);
    desk.event(Event::Doubted);
    assert!(desk.pair.is_doubtful());
}

#[test]
fn a_reply_that_came_while_graph_was_asked_is_newer_than_its_answer() {
    let mut desk = Desk::new();
    let asked = Some(desk.time());
    desk.step(1);
    desk.reply(accept(None));
    desk.event(Event::Told(Told { asked, calls: used(1), ..Told::default() }));
    assert_eq!(
        (desk.call(), desk.view().calls_left),
        (None, 4),
        "the counters are taken over all the same"
    );
    let asked = Some(at(NOW + 2));
    desk.step(2);
    desk.event(Event::Told(Told { asked, ..Told::default() }));
    assert_eq!(desk.call(), Some((Why::ToldByMeta, None)));
}

#[test]
fn a_reply_from_before_graph_was_asked_is_older() {
    let mut desk = Desk::new();
    desk.event(told(PermissionStatus::Permanent));
    let reject = |seconds| Event::Replied { at: Some(at(NOW + seconds)), reply: Reply::Reject };
    assert!(!desk.event(reject(-121)));
    assert_eq!(desk.call(), None);
    assert!(desk.event(reject(-120)), "the clocks may be two minutes apart");
}
