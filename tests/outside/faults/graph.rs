//! Faults of Graph: errors, HTML pages, empty responses, timeouts, a connection reset after success
//! (`docs/reference/reliability.md#r6`).

use std::time::Duration;

use sim::{CallEventKind, CallScript, HangupRule, HangupSource};

use super::{World, rules, short_timeouts, with_media, without_media};
use crate::support::app::App;
use crate::support::node::NodeConfig;

#[tokio::test(flavor = "multi_thread")]
async fn h04_r06_temporary_faults_of_accept_are_retried() {
    let user_rules = [
        (1, "do = \"answer\"\non = \"accept\"\ntimes = 2\nstatus = 503\nbody = \"html\""),
        (2, "do = \"answer\"\non = \"accept\"\ntimes = 1\nstatus = 200\nbody = \"empty\""),
        (3, "do = \"answer\"\non = \"accept\"\ntimes = 1\nstatus = 200\nbody = \"cut\""),
        (4, "do = \"answer\"\non = \"accept\"\ntimes = 1\nstatus = 200\ncode = 131000"),
        (5, "do = \"reset\"\non = \"accept\"\ntimes = 1\ndone = true\nafter_bytes = 40"),
        (6, "do = \"reset\"\non = \"accept\"\ntimes = 1\nafter_bytes = 0"),
        (
            7,
            "do = \"answer\"\non = \"accept\"\ntimes = 1\nstatus = 429\ncode = 80007\nretry_after = 1",
        ),
        (8, "do = \"answer\"\non = \"accept\"\ntimes = 1\nstatus = 500\ndone = true"),
    ];
    let world = World::start(&rules(&user_rules), |_, _| ()).await;
    let stays = |nr| CallScript {
        hangup: HangupRule::AfterAnswer(Duration::from_secs(2)),
        ..without_media(nr)
    };
    let calls = world.calls((1..=8).map(stays)).await;
    let tries: Vec<Vec<String>> =
        calls.iter().map(|call| world.graph_requests(&call.wacid).split_off(1)).collect();
    for (nr, (call, tries)) in (1..).zip(calls.iter().zip(&tries)) {
        assert_eq!(tries.len(), if nr == 1 { 3 } else { 2 }, "user {nr}: {tries:?}");
        assert_eq!(tries.last().map(String::as_str), Some("accept 200"), "user {nr}: {tries:?}");
        assert_eq!(call.count(&CallEventKind::Answered), 1, "user {nr}");
        assert_eq!(world.hangup(&call.wacid).await.param("HangupCauseCode"), "4000", "user {nr}");
    }
    assert_eq!(tries[0][..2], ["accept 503", "accept 503"]);
    let waited = |nr: usize| {
        calls[nr].events.iter().find(|e| e.kind == CallEventKind::Answered).map_or(0, |e| e.at_ms)
    };
    assert!(waited(6) >= 1_000, "Retry-After was obeyed: {} ms", waited(6));
    assert!(waited(1) < 1_000, "other pauses are short: {} ms", waited(1));
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h04_r06_a_permanently_failed_accept_is_terminated_never_rejected() {
    let user_rules = [
        (1, "do = \"answer\"\non = \"accept\"\nstatus = 503\nbody = \"html\""),
        (2, "do = \"answer\"\non = \"accept\"\nstatus = 400\ncode = 131009"),
        (3, "do = \"answer\"\non = \"accept\"\nstatus = 429\ncode = 138005"),
        (4, "do = \"answer\"\non = \"accept\"\nstatus = 429\ncode = 4"),
        (5, "do = \"answer\"\non = \"accept\"\nstatus = 200\nbody = \"cut\""),
    ];
    let world = World::start(&rules(&user_rules), |_, _| ()).await;
    let calls = world
        .calls((1..=5).map(|nr| CallScript { hangup: HangupRule::Never, ..without_media(nr) }))
        .await;
    for (call, (tries, code, word)) in calls.iter().zip([
        (3, "3080", "NORMAL_TEMPORARY_FAILURE"),
        (1, "3080", "NORMAL_TEMPORARY_FAILURE"),
        (2, "3010", "USER_BUSY"),
        (3, "3090", "SWITCH_CONGESTION"),
        (3, "3080", "NORMAL_TEMPORARY_FAILURE"),
    ]) {
        let asked = world.graph_requests(&call.wacid);
        assert_eq!(world.attempts(&call.wacid, "accept"), tries, "{asked:?}");
        assert_eq!(
            asked.last().map(String::as_str),
            Some("terminate 200"),
            "the user is not left ringing: {asked:?}"
        );
        assert_eq!(call.count(&CallEventKind::Hangup { by: HangupSource::Business }), 1);
        let hangup = world.hangup(&call.wacid).await;
        assert_eq!(
            (hangup.param("HangupCauseCode"), hangup.param("HangupCause")),
            (code, word),
            "{asked:?}"
        );
        assert_eq!((hangup.param("AnswerTime"), hangup.param("BillDuration")), ("", "0"));
        let record = world.node.record(hangup.param("CallUUID")).await;
        assert_eq!(record["hangup_cause_code"].to_string(), code, "{record}");
    }
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h04_r06_pre_accept_reject_and_terminate_survive_faults() {
    let user_rules = [
        // pre_accept is optional, so accept follows anyway.
        (1, "do = \"answer\"\non = \"pre_accept\"\nstatus = 500\nbody = \"html\""),
        (2, "do = \"silence\"\non = \"pre_accept\""),
        (3, "do = \"answer\"\non = \"reject\"\ntimes = 2\nstatus = 502\nbody = \"html\""),
        (4, "do = \"reset\"\non = \"reject\"\ntimes = 1\ndone = true"),
        (5, "do = \"answer\"\non = \"terminate\"\ntimes = 2\nstatus = 503"),
        (6, "do = \"reset\"\non = \"terminate\"\ntimes = 1\ndone = true"),
        // A terminate webhook that arrives before the retry makes the retry unnecessary.
        (4, "do = \"delay\"\non = \"terminate\"\nms = 2000"),
        (6, "do = \"delay\"\non = \"terminate\"\nms = 2000"),
    ];
    let world = World::start(&rules(&user_rules), |_, _| ()).await;
    let busy = [super::user(3), super::user(4)];
    world.app.route("/answer", move |seen| {
        let busy = busy.iter().any(|user| seen.param("From") == user);
        let document =
            if busy { "<Response><Hangup reason=\"busy\"/></Response>" } else { super::HELLO };
        (200, document.to_owned())
    });
    let calls = world
        .calls([
            without_media(1),
            without_media(2),
            with_media(3),
            with_media(4),
            with_media(5),
            with_media(6),
        ])
        .await;
    let codes = ["4000", "4000", "3010", "3010", "4010", "4010"];
    for (nr, (call, code)) in (1..).zip(calls.iter().zip(codes)) {
        let hangup = world.hangup(&call.wacid).await;
        assert_eq!(
            hangup.param("HangupCauseCode"),
            code,
            "user {nr}: {:?}",
            world.graph_requests(&call.wacid)
        );
        assert_eq!(call.was_answered(), nr != 3 && nr != 4, "user {nr}");
    }
    // The last request of a call may be retried after its end was reported.
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    assert_eq!(
        world.graph_requests(&calls[2].wacid),
        ["pre_accept 200", "reject 502", "reject 502", "reject 200"]
    );
    // On the second attempt the call is already over, which counts as success.
    assert_eq!(world.graph_requests(&calls[3].wacid)[1..], ["reject 200", "reject 400"]);
    assert_eq!(
        world.graph_requests(&calls[4].wacid)[2..],
        ["terminate 503", "terminate 503", "terminate 200"]
    );
    assert_eq!(world.graph_requests(&calls[5].wacid)[2..], ["terminate 200", "terminate 400"]);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h04_r06_each_attempt_ends_within_five_seconds() {
    let user_rules = [
        (1, "do = \"silence\"\non = \"accept\"\ntimes = 1"),
        (2, "do = \"silence\"\non = \"accept\"\ntimes = 1\ndone = true"),
        (3, "do = \"silence\"\non = \"accept\"\nms = 60000"),
    ];
    let world = World::start(&rules(&user_rules), |_, _| ()).await;
    let stays = |nr, hangup| CallScript { hangup, ..without_media(nr) };
    let later = HangupRule::AfterAnswer(Duration::from_secs(7));
    let calls = world.calls([without_media(1), stays(2, later), stays(3, HangupRule::Never)]).await;
    for call in &calls[..2] {
        let answered =
            call.events.iter().find(|e| e.kind == CallEventKind::Answered).map_or(0, |e| e.at_ms);
        assert_eq!(world.hangup(&call.wacid).await.param("HangupCauseCode"), "4000");
        assert!(answered < 8_000, "{answered} ms");
    }
    // Three attempts of five seconds each, with pauses between them.
    let timeouts = [("action", "accept"), ("status", "timeout")];
    assert_eq!(world.node.metric("offhook_graph_request_seconds_count", &timeouts).await, 5.0);
    let spent = world.node.metric("offhook_graph_request_seconds_sum", &timeouts).await;
    assert!((25.0..26.5).contains(&spent), "{spent} s");
    let ended = calls[2]
        .events
        .iter()
        .find(|e| e.kind == CallEventKind::Hangup { by: HangupSource::Business });
    assert!(ended.is_some_and(|e| (15_000..20_000).contains(&e.at_ms)), "{ended:?}");
    assert_eq!(world.hangup(&calls[2].wacid).await.param("HangupCauseCode"), "3070");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h04_r06_retries_stay_within_the_budget_and_no_phone_keeps_ringing() {
    let down = "do = \"answer\"\non = \"accept\"\nstatus = 503\nbody = \"html\"";
    let once = "do = \"answer\"\non = \"terminate\"\nstatus = 500\ntimes = 1";
    let user_rules: Vec<(u32, &str)> = (1..=60).flat_map(|nr| [(nr, down), (nr, once)]).collect();
    let times = short_timeouts(Duration::from_secs(40));
    let single = |config: &mut NodeConfig, _: &App| config.is_single = true;
    let world = World::start_with(&rules(&user_rules), times, single).await;
    let calls = world
        .calls((1..=60).map(|nr| CallScript { hangup: HangupRule::Never, ..without_media(nr) }))
        .await;
    let retries: usize = calls.iter().map(|call| world.attempts(&call.wacid, "accept") - 1).sum();
    assert!((10..=18).contains(&retries), "{retries} further tries of at most 180 requests");
    for call in &calls {
        assert_eq!(world.hangup(&call.wacid).await.param("HangupCauseCode"), "3080");
        assert_eq!(
            call.count(&CallEventKind::Hangup { by: HangupSource::Business }),
            1,
            "{:?}",
            world.graph_requests(&call.wacid)
        );
    }
    world.assert_clean().await;
}
