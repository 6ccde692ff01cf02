//! Graph's answers and refusals.

use super::*;
use model::PermissionStatus;

fn report(status: PermissionStatus) -> Event {
    Event::GraphReport(GraphPermission { status, ..GraphPermission::default() })
}

fn counters(calls: Option<Counter>, day: Option<Counter>, week: Option<Counter>) -> Event {
    let status = PermissionStatus::Temporary { until: Some(at(NOW + DAY)) };
    Event::GraphReport(GraphPermission {
        status,
        asked: None,
        calls,
        requests_of_day: day,
        requests_of_week: week,
    })
}

fn used(used: u32) -> Option<Counter> {
    Some(Counter { used, room_at: None })
}

fn used_up(used: u32, room_at: i64) -> Option<Counter> {
    Some(Counter { used, room_at: Some(at(room_at)) })
}

#[test]
fn a_state_reported_by_graph_is_applied() {
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
        let mut fixture = Fixture::new();
        fixture.event(report(status));
        assert_eq!(fixture.state(), state, "{status:?}");
        let view = fixture.view();
        assert_eq!((view.by_meta, view.checked), (true, Some(at(NOW))));
    }
    let mut fixture = Fixture::granted();
    fixture.step(1);
    fixture.event(report(PermissionStatus::NoPermission));
    assert_eq!(fixture.call(), Some((RefusalReason::ReportedByMeta, None)));
    let mut fixture = Fixture::new();
    fixture.event(Event::Requested);
    fixture.event(report(PermissionStatus::NoPermission));
    assert_eq!(fixture.state(), State::Requested, "Graph does not report open requests");
}

#[test]
fn l17_a_permission_reported_by_graph_resets_missed_calls() {
    let mut fixture = Fixture::granted();
    fixture.times(4, &Event::Unanswered);
    fixture.event(report(PermissionStatus::Temporary { until: Some(at(NOW + WEEK)) }));
    assert_eq!(
        (fixture.call(), fixture.view().missed),
        (None, 0),
        "another permission than the one that was revoked"
    );
    fixture.times(2, &Event::Unanswered);
    fixture.event(report(PermissionStatus::Temporary { until: Some(at(NOW + WEEK)) }));
    assert_eq!(fixture.view().missed, 2, "the same one");
}

#[test]
fn l15_graphs_call_counters_replace_local_ones() {
    // The fixture: five of five used, with the time at which Meta allows the next.
    let mut fixture = Fixture::new();
    fixture.event(counters(used_up(5, NOW + HOUR), used(0), used(1)));
    assert_eq!(fixture.call(), Some((RefusalReason::DailyLimit, Some(HOUR))));
    fixture.step(HOUR - 1);
    assert_eq!(fixture.call(), Some((RefusalReason::DailyLimit, Some(1))));
    fixture.step(1);
    assert_eq!(fixture.call(), None);
    // Meta counts fewer than this node: the newest local events stay.
    let mut fixture = Fixture::granted();
    for _ in 0..5 {
        fixture.event(Event::Connected);
        fixture.step(HOUR);
    }
    fixture.event(counters(used(2), None, None));
    assert_eq!(fixture.view().calls_left, 3);
    fixture.times(3, &Event::Connected);
    assert_eq!(
        fixture.call(),
        Some((RefusalReason::DailyLimit, Some(DAY - 2 * HOUR))),
        "the fourth of the five is the oldest"
    );
    // Meta counts more than this node: the additional ones count for as long as they might.
    let mut fixture = Fixture::granted();
    fixture.event(counters(used(4), None, None));
    assert_eq!(fixture.view().calls_left, 1);
    fixture.event(Event::Connected);
    fixture.step(DAY - 1);
    assert!(fixture.pair.may_call(&fixture.rules, fixture.time()).is_err());
    // Meta allows fewer than the local rules.
    let mut fixture = Fixture::new();
    fixture.event(counters(used_up(3, NOW + HOUR), None, None));
    assert_eq!(fixture.call(), Some((RefusalReason::DailyLimit, Some(HOUR))));
    // Meta allows more: the local rules refuse earlier.
    let mut fixture = Fixture::new();
    fixture.event(counters(used(50), None, None));
    assert_eq!(fixture.view().calls_left, 0);
}

#[test]
fn l14_graphs_request_counters_replace_local_ones() {
    let mut fixture = Fixture::new();
    fixture.event(counters(None, used(0), used(1)));
    assert_eq!((fixture.request(), fixture.view().requests_left), (None, 1));
    fixture.event(Event::Requested);
    fixture.step(DAY);
    assert_eq!(
        fixture.request(),
        Some((RefusalReason::RequestLimit, Some(WEEK - 2 * DAY))),
        "one before, one now"
    );
    let mut fixture = Fixture::new();
    fixture.event(counters(None, used_up(1, NOW + HOUR), used(1)));
    assert_eq!(fixture.request(), Some((RefusalReason::RequestLimit, Some(HOUR))));
    let mut fixture = Fixture::new();
    fixture.event(counters(None, used(0), used_up(2, NOW + 2 * DAY)));
    assert_eq!(fixture.request(), Some((RefusalReason::RequestLimit, Some(2 * DAY))));
    // Counts that Meta has reset are reset here.
    let mut fixture = Fixture::new();
    fixture.event(Event::Requested);
    fixture.event(counters(None, used(0), used(0)));
    assert_eq!(fixture.request(), None);
}

#[test]
fn graphs_refusals_update_the_pair() {
    let mut fixture = Fixture::granted();
    fixture.event(Event::NoPermission);
    assert_eq!(fixture.call(), Some((RefusalReason::ReportedByMeta, None)));
    assert!(fixture.pair.is_doubtful());
    fixture.event(report(PermissionStatus::Permanent));
    assert!(!fixture.pair.is_doubtful());
    assert_eq!(fixture.call(), None);
    fixture.event(Event::CallsUsedUp { until: Some(at(NOW + HOUR)) });
    assert_eq!(fixture.call(), Some((RefusalReason::DailyLimit, Some(HOUR))));
    fixture.step(HOUR);
    assert_eq!(fixture.call(), None);
    fixture.event(Event::CallsUsedUp { until: Some(at(NOW + 900 * DAY)) });
    assert_eq!(
        fixture.call(),
        Some((RefusalReason::DailyLimit, Some(DAY))),
        "no longer than the rule itself"
    );
    let mut fixture = Fixture::granted();
    fixture.event(Event::CallsUsedUp { until: Some(at(NOW - 1)) });
    assert_eq!(fixture.call(), None);
    fixture.event(Event::Doubted);
    assert!(fixture.pair.is_doubtful());
}

#[test]
fn graph_is_queried_once_about_a_user_who_does_not_answer() {
    let mut fixture = Fixture::new();
    fixture.event(Event::Requested);
    assert!(fixture.pair.is_doubtful(), "the user may have permitted calls before");
    fixture.event(report(PermissionStatus::NoPermission));
    assert_eq!(fixture.call(), Some((RefusalReason::NotAnswered, None)));
    assert!(!fixture.pair.is_doubtful());
    fixture.event(report(PermissionStatus::Permanent));
    assert_eq!(fixture.call(), None);
}

#[test]
fn a_reply_received_while_asking_graph_wins() {
    let mut fixture = Fixture::new();
    let asked = Some(fixture.time());
    fixture.step(1);
    fixture.reply(accept(None));
    fixture.event(Event::GraphReport(GraphPermission {
        asked,
        calls: used(1),
        ..GraphPermission::default()
    }));
    assert_eq!(
        (fixture.call(), fixture.view().calls_left),
        (None, 4),
        "the counters are applied nevertheless"
    );
    let asked = Some(at(NOW + 2));
    fixture.step(2);
    fixture.event(Event::GraphReport(GraphPermission { asked, ..GraphPermission::default() }));
    assert_eq!(fixture.call(), Some((RefusalReason::ReportedByMeta, None)));
}

#[test]
fn a_reply_sent_before_asking_graph_is_outdated() {
    let mut fixture = Fixture::new();
    fixture.event(report(PermissionStatus::Permanent));
    let reject = |seconds| Event::Replied { at: Some(at(NOW + seconds)), reply: Reply::Reject };
    assert!(!fixture.event(reject(-121)));
    assert_eq!(fixture.call(), None);
    assert!(fixture.event(reject(-120)), "the clocks may be two minutes apart");
}
