//! Compares the state machine with a model that keeps every event and recounts them for each
//! question.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(i64),
    Request,
    Accept(Option<i64>),
    AcceptForever,
    Reject,
    UserConnected,
    Connected,
    Unanswered,
}

/// The history of events, with their times in seconds.
#[derive(Default)]
struct Model {
    history: Vec<(i64, Step)>,
}

impl Model {
    fn since(&self, from: i64, now: i64, what: impl Fn(&Step) -> bool) -> usize {
        let inside = |(at, step): &&(i64, Step)| *at > now - from && what(step);
        self.history.iter().filter(inside).count()
    }

    fn after_last(&self, is_end: impl Fn(&Step) -> bool) -> &[(i64, Step)] {
        let end = self.history.iter().rposition(|(_, step)| is_end(step)).map_or(0, |at| at + 1);
        &self.history[end..]
    }

    /// When the permission ends, or `None` without one.
    fn granted(&self, now: i64) -> Option<i64> {
        let is_reply =
            |step: &Step| matches!(step, Step::Accept(_) | Step::AcceptForever | Step::Reject);
        let (at, last) = self.history.iter().rfind(|(_, step)| is_reply(step))?;
        let until = match last {
            Step::AcceptForever => i64::MAX,
            Step::Accept(for_seconds) => at + for_seconds.unwrap_or(WEEK),
            _ => return None,
        };
        // Revoked if four calls in a row were missed while it was in force.
        let (mut row, mut revoked) = (0, false);
        for (when, step) in self.after_last(is_reply) {
            match step {
                Step::Connected => row = 0,
                Step::Unanswered => {
                    row += 1;
                    revoked |= row >= 4 && *when < until;
                }
                _ => {}
            }
        }
        (now < until && !revoked).then_some(until)
    }

    fn may_call(&self, now: i64) -> bool {
        self.granted(now).is_some()
            && self.since(DAY, now, |step| matches!(step, Step::Connected)) < 5
    }

    fn may_request(&self, now: i64) -> bool {
        let sent = self.after_last(|step| matches!(step, Step::Connected | Step::UserConnected));
        let within = |time: i64| {
            sent.iter()
                .filter(|(at, step)| *at > now - time && matches!(step, Step::Request))
                .count()
        };
        within(DAY) < 1 && within(WEEK) < 2
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let wait = prop_oneof![
        Just(1),
        Just(HOUR),
        Just(DAY - 1),
        Just(DAY),
        Just(WEEK - 1),
        Just(WEEK),
        0..2 * DAY
    ];
    let step = prop_oneof![
        5 => wait.prop_map(Step::Wait),
        3 => Just(Step::Request),
        2 => prop_oneof![Just(None), (1..20 * DAY).prop_map(Some)].prop_map(Step::Accept),
        1 => Just(Step::AcceptForever),
        1 => Just(Step::Reject),
        1 => Just(Step::UserConnected),
        4 => Just(Step::Connected),
        5 => Just(Step::Unanswered),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// For any sequence of events both allow the same calls and requests, and a reported time is
    /// the first at which they are allowed.
    #[test]
    fn l13_to_l17_agree_with_the_model(steps in steps()) {
        let (mut fixture, mut model) = (Fixture::new(), Model::default());
        for step in steps {
            let event = match step {
                Step::Wait(seconds) => {
                    fixture.step(seconds);
                    None
                }
                // Like the program, take only allowed actions.
                Step::Request => model.may_request(fixture.now).then_some(Event::Requested),
                Step::Connected => model.may_call(fixture.now).then_some(Event::Connected),
                Step::Unanswered => model.may_call(fixture.now).then_some(Event::Unanswered),
                Step::UserConnected => Some(Event::UserConnected),
                Step::Accept(seconds) => {
                    let reply = accept(seconds.map(|seconds| fixture.now + seconds));
                    Some(Event::Replied { at: Some(fixture.time()), reply })
                }
                Step::AcceptForever => Some(Event::Replied { at: Some(fixture.time()), reply: FOREVER }),
                Step::Reject => Some(Event::Replied { at: Some(fixture.time()), reply: Reply::Reject }),
            };
            if let Some(event) = event {
                model.history.push((fixture.now, step));
                prop_assert!(fixture.event(event));
            }
            prop_assert_eq!(fixture.call().is_none(), model.may_call(fixture.now), "{:?}", model.history);
            prop_assert_eq!(fixture.request().is_none(), model.may_request(fixture.now), "{:?}", model.history);
            if let Some((_, Some(wait))) = fixture.request() {
                prop_assert!(model.may_request(fixture.now + wait) && !model.may_request(fixture.now + wait - 1));
            }
            if let Some((RefusalReason::DailyLimit, Some(wait))) = fixture.call()
                && model.granted(fixture.now + wait).is_some()
            {
                prop_assert!(model.may_call(fixture.now + wait) && !model.may_call(fixture.now + wait - 1));
            }
        }
    }
}
