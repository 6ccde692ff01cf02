//! Many simultaneous calls, and many simultaneous faults under a seed.

use std::time::Duration;

use sim::log::LogEvent;
use sim::{CallScript, HangupRule};

use super::media::presses;
use super::{World, rules, short_timeouts, user, without_media};

impl World {
    /// Waits until the storm of a rule is over. Returns how many of its calls were answered.
    async fn storm_over(&self) -> u32 {
        let mut every = tokio::time::interval(Duration::from_millis(100));
        loop {
            every.tick().await;
            for line in self.sim.log() {
                if let LogEvent::Fault { details, .. } = &line.event
                    && let Some(count) = details.strip_prefix("storm ended: ")
                {
                    return count.split(' ').next().and_then(|n| n.parse().ok()).expect("a count");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn h11_r01_two_hundred_connects_in_a_second_respect_the_limits_exactly() {
    let storm =
        "do = \"storm\"\ncalls = 199\nover_ms = 950\nhangup_ms = 3000\nhangup_most_ms = 4000";
    let world = World::start(&rules(&[(1, storm)]), |w, _| {
        w.cps = 120;
        w.limits = "calls_per_number = 100".to_owned();
    })
    .await;
    let first =
        CallScript { hangup: HangupRule::AfterPlaced(Duration::from_secs(3)), ..without_media(1) };
    world.call(first).await;
    let answered = world.storm_over().await;
    let (full, cps) = (world.admission("number_full").await, world.admission("cps_exceeded").await);
    assert_eq!(answered + 1, 100, "{full} number_full, {cps} cps_exceeded");
    assert_eq!((world.admission("admitted").await, full + cps), (100.0, 100.0));
    let rejects =
        world.node.metric("offhook_graph_request_seconds_count", &[("action", "reject")]).await;
    assert_eq!(rejects, 100.0, "who is refused is told so");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h11_r03_a_hundred_calls_of_one_user_leave_nothing_behind() {
    let storm = "do = \"storm\"\ncalls = 99\nin_a_row = true\nhangup_ms = 0\nhangup_most_ms = 60";
    let world = World::start(&rules(&[(1, storm)]), |_, _| ()).await;
    world.call(without_media(1)).await;
    world.storm_over().await;
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    let hangups = world.hangups();
    assert!(hangups.len() <= 100 && hangups.iter().all(|s| s.param("From") == user(1)));
    world.assert_clean().await;
}

/// Random failures of Graph and webhooks, with their shares.
const BY_CHANCE: [&str; 9] = [
    "do = \"answer\"\non = \"accept\"\nstatus = 503\npercent = 20",
    "do = \"answer\"\non = \"accept\"\nstatus = 400\ncode = 131009\npercent = 10",
    "do = \"answer\"\non = \"pre_accept\"\nstatus = 500\nbody = \"html\"\npercent = 20",
    "do = \"answer\"\non = \"reject\"\nstatus = 200\nbody = \"cut\"\npercent = 20\ndone = true",
    "do = \"reset\"\non = \"accept\"\ndone = true\npercent = 15",
    "do = \"reset\"\non = \"terminate\"\npercent = 20",
    "do = \"silence\"\nms = 400\npercent = 15",
    "do = \"delay\"\nms = 0\nmost_ms = 400\npercent = 50",
    "do = \"duplicate\"\ncopies = 2\nafter_ms = 100\npercent = 30",
];

/// Returns these rules for each of `users` users.
fn for_all<'a>(users: u32, of_each: &[&'a str]) -> String {
    rules(
        &(1..=users)
            .flat_map(|nr| of_each.iter().map(move |rule| (nr, *rule)))
            .collect::<Vec<(u32, &'a str)>>(),
    )
}

/// Users hang up at every moment, and the application fails too.
#[tokio::test(flavor = "multi_thread")]
async fn r06_no_call_is_both_rejected_and_accepted() {
    let times = short_timeouts(Duration::from_secs(20));
    let world = World::start_with(&for_all(80, &BY_CHANCE), times, |_, _| ()).await;
    world.app.route("/answer", |seen| {
        match seen.param("From").bytes().last().unwrap_or_default() % 5 {
            0 => (200, "<Response><Hangup reason=\"busy\"/></Response>".to_owned()),
            1 => (500, String::new()),
            2 => (200, "<Response><Wait length=\"1\"/><Speak>Hello</Speak></Response>".to_owned()),
            _ => (200, super::HELLO.to_owned()),
        }
    });
    let script = |nr: u32| {
        let hangup = match nr % 7 {
            0 => HangupRule::BeforeAcceptAnswer,
            1 => HangupRule::AfterAcceptAnswer,
            2 => HangupRule::WhileRinging(Duration::from_millis(u64::from(nr) * 3)),
            3 => HangupRule::AfterPlaced(Duration::from_millis(u64::from(nr) * 10)),
            _ => HangupRule::AfterAnswer(Duration::from_millis(u64::from(nr) * 5)),
        };
        CallScript { hangup, ..without_media(nr) }
    };
    let calls = world.calls((1..=80).map(script)).await;
    let answered = calls.iter().filter(|call| call.was_answered()).count();
    assert!((8..72).contains(&answered), "{answered} of 80: the rules bite, and most is well");
    world.assert_clean().await;
}

/// The same with media faults and a menu.
#[tokio::test(flavor = "multi_thread")]
async fn r12_r03_media_webhooks_and_graph_at_once_leave_nothing_behind() {
    let media = [
        "do = \"media\"\nloss = 15\nreorder = 10\nduplicate = 5\ncorrupt = 2\njitter_ms = 60",
        "do = \"media\"\nhow = \"new_ssrc\"\nafter_ms = 900\npercent = 30",
        "do = \"media\"\nhow = \"bad_rtcp\"\npercent = 30",
        "do = \"media\"\nhow = \"replay\"\npercent = 30",
    ];
    let all: Vec<&str> = BY_CHANCE.iter().chain(&media).copied().collect();
    let world =
        World::start_with(&for_all(16, &all), short_timeouts(Duration::from_secs(20)), |w, _| {
            w.accept_wait_ms = 1_000;
            w.media_ports = 32;
        })
        .await;
    world.menu(2);
    let script = |nr: u32| {
        let hangup = match nr % 4 {
            0 => HangupRule::AfterAnswer(Duration::from_millis(u64::from(nr) * 100)),
            _ => HangupRule::AfterPlaced(Duration::from_secs(9)),
        };
        CallScript { hangup, ..presses(nr, "W4w2") }
    };
    let calls = world.calls((1..=16).map(script)).await;
    for seen in world.app.requests().iter().filter(|seen| seen.path == "/menu") {
        let wacid = seen.param("WhatsAppCallID");
        assert!(
            ["42", "4", ""].contains(&seen.param("Digits")),
            "no digit twice: {:?} {:#?}",
            seen.params,
            world
                .sim
                .log()
                .iter()
                .filter(|line| format!("{:?}", line.event).contains(wacid))
                .collect::<Vec<_>>()
        );
    }
    assert!(calls.iter().any(super::Call::was_answered));
    world.assert_clean().await;
}
