//! Faults of the application: slow, endless or oversized responses, no document, redirect loops,
//! redirects to other hosts; and jumps of the wall clock.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Redirect};
use axum::routing::any;
use model::Clock;
use offhook::node::dev::{Dev, DevOptions};
use sim::{CallEventKind, CallScript, HangupRule, HangupSource, SimNumber, world};

use super::{Call, World, with_media, without_media};
use crate::support::app::App;
use crate::support::http;

const LIMIT: usize = 102_400;

/// Starts an application with misbehaving paths. Returns its base URL.
async fn bad_application() -> String {
    let bytes_slowly = |pause: u64| {
        let byte = move |nr: usize| async move {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let document = super::HELLO.as_bytes();
            Some((
                Ok::<_, std::convert::Infallible>(Bytes::copy_from_slice(
                    &document[nr % document.len()..][..1],
                )),
                nr + 1,
            ))
        };
        Body::from_stream(futures_util::stream::unfold(0, byte))
    };
    let endless = || {
        let blank = std::iter::repeat_with(|| {
            Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b' '; 4_096]))
        });
        Body::from_stream(futures_util::stream::iter(blank))
    };
    let padded = |size: usize| {
        let document = "<Response><Hangup reason=\"busy\"/></Response>";
        format!("{}{document}", " ".repeat(size - document.len()))
    };
    let router = Router::new()
        .route("/drip", any(move || async move { bytes_slowly(1_000).into_response() }))
        .route("/drop-by-drop", any(move || async move { bytes_slowly(50).into_response() }))
        .route("/endless", any(move || async move { endless().into_response() }))
        .route("/exact", any(move || async move { padded(LIMIT) }))
        .route("/over", any(move || async move { padded(LIMIT + 1) }))
        .route("/html", any(|| async { "<!doctype html><html><body>Sign in</body></html>" }))
        .route(
            "/to-metadata",
            any(|| async { Redirect::temporary("http://169.254.169.254/latest/") }),
        )
        .route("/to-a-file", any(|| async { Redirect::temporary("file:///etc/passwd") }))
        .route("/round", any(|| async { Redirect::temporary("/round") }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let base = format!("http://{}", listener.local_addr().expect("its address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

/// A business number with its own answer URL.
fn number(nr: usize) -> SimNumber {
    SimNumber {
        number: format!("91804000{nr:04}"),
        phone_number_id: format!("10650000{nr:04}"),
        ..SimNumber::default()
    }
}

/// Returns `[[number]]` tables for [`number`]s with these answer URLs, in order.
fn numbers(urls: &[String], more: &str) -> String {
    let table = |(nr, url): (usize, &String)| {
        let SimNumber { number, phone_number_id, waba, .. } = number(nr);
        format!(
            "[[number]]\nnumber = \"{number}\"\nphone_number_id = \"{phone_number_id}\"\nwaba = \"{waba}\"\n\
             calling_enabled = true\nanswer_url = \"{url}\"\n{more}\n"
        )
    };
    urls.iter().enumerate().map(table).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_slow_endless_and_invalid_responses_end_in_time_with_their_cause() {
    let base = bad_application().await;
    // Path and fragment, hangup cause, maximum duration in seconds.
    let rows = [
        ("/drip", "7011", 3.0),
        ("/drip#rc=5&rp=all", "7011", 3.0),
        ("/drip#tt=300", "7011", 1.4),
        ("/drip#rt=100&rc=0", "7011", 1.4),
        ("/drop-by-drop", "7011", 3.0),
        ("/endless", "8011", 3.0),
        ("/over", "8011", 1.5),
        ("/html", "8011", 1.5),
        ("/to-metadata", "7011", 1.5),
        ("/to-a-file", "7011", 1.5),
        ("/round", "7011", 1.5),
        ("/exact", "3010", 1.5),
    ];
    let world = World::start("", |w, app| {
        let urls: Vec<String> = rows.iter().map(|(path, ..)| format!("{base}{path}")).collect();
        w.extra = numbers(&urls, &format!("hangup_url = \"{}\"", app.url("/hangup")));
        w.answer = "timeout_ms = 1500".to_owned();
    })
    .await;
    let calls = world
        .calls((0..rows.len()).map(|nr| CallScript { to: number(nr), ..without_media(1) }))
        .await;
    for (call, (path, code, seconds)) in calls.iter().zip(rows) {
        assert_eq!(world.graph_requests(&call.wacid), ["pre_accept 200", "reject 200"], "{path}");
        let hangup = world.hangup(&call.wacid).await;
        let ended = call
            .events
            .iter()
            .find(|e| e.kind == CallEventKind::Hangup { by: HangupSource::Rejected });
        let ended = ended.map_or(u64::MAX, |e| e.at_ms) as f64 / 1_000.0;
        assert_eq!(
            (hangup.param("HangupCauseCode"), ended < seconds),
            (code, true),
            "{path} after {ended} s"
        );
    }
    for (outcome, count) in [("timeout", 5.0), ("too_large", 2.0), ("refused", 2.0)] {
        let counted =
            world.node.metric("offhook_answer_fetch_seconds_count", &[("outcome", outcome)]).await;
        assert_eq!(counted, count, "{outcome}");
    }
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_a_document_loop_ends() {
    let world = World::start("", |_, _| ()).await;
    let (here, there) = (world.app.url("/answer"), world.app.url("/there"));
    world.app.xml("/answer", format!("<Response><Redirect>{there}</Redirect></Response>"));
    world.app.xml("/there", format!("<Response><Redirect>{here}</Redirect></Response>"));
    let call = world.call(without_media(1)).await;
    assert_eq!(world.hangup(&call.wacid).await.param("HangupCauseCode"), "8014");
    let asked = world.app.count("/answer") + world.app.count("/there");
    assert!((100..=102).contains(&asked), "{asked} documents");
    assert_eq!(world.graph_requests(&call.wacid), ["pre_accept 200", "reject 200"]);
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_the_fallback_runs_once_and_only_for_the_first_document() {
    let base = bad_application().await;
    let paths = ["/over", "/html", "/to-metadata", "/drip"];
    let world = World::start("", |w, app| {
        let urls: Vec<String> = paths.iter().map(|path| format!("{base}{path}")).collect();
        let more = format!(
            "fallback_url = \"{}\"\nhangup_url = \"{}\"",
            app.url("/fallback"),
            app.url("/hangup")
        );
        w.extra = numbers(&urls, &more);
        w.answer = "timeout_ms = 1000".to_owned();
    })
    .await;
    // The fallback works, but the document it redirects to does not, and there is no further
    // fallback.
    world.app.xml("/fallback", format!("<Response><Redirect>{base}/html</Redirect></Response>"));
    let calls = world
        .calls((0..paths.len()).map(|nr| CallScript { to: number(nr), ..without_media(1) }))
        .await;
    for (call, path) in calls.iter().zip(paths) {
        assert_eq!(world.hangup(&call.wacid).await.param("HangupCauseCode"), "8014", "{path}");
    }
    assert_eq!(world.app.count("/fallback"), paths.len(), "once a call");
    world.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_a_call_stuck_in_a_fetch_leaves_nothing_a_second_after_its_end() {
    let base = bad_application().await;
    let world = World::start("", |w, app| {
        w.extra =
            numbers(&[format!("{base}/drip")], &format!("hangup_url = \"{}\"", app.url("/hangup")));
        w.answer = "timeout_ms = 30000".to_owned();
    })
    .await;
    let hangup = HangupRule::WhileRinging(Duration::from_millis(700));
    let call = world.call(CallScript { to: number(0), hangup, ..without_media(1) }).await;
    let ended = Clock::real().now();
    for gauge in ["offhook_number_slots_in_use", "offhook_calls_active"] {
        world.node.until_metric(gauge, &[], 0.0).await;
    }
    assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
    assert_eq!(world.hangup(&call.wacid).await.param("HangupCauseCode"), "1000");
    world.assert_clean().await;
}

/// Runs in this process, because the test steps the clock: the node's wall time jumps an hour ahead
/// and back during a call.
#[tokio::test(flavor = "multi_thread")]
async fn r08_wall_clock_jumps_affect_no_timer_and_no_duration() {
    let app = App::start().await;
    app.xml("/answer", "<Response><Speak>Hello</Speak><Wait length=\"2\"/></Response>");
    let clock = Clock::jumping();
    let options = DevOptions {
        clock: clock.clone(),
        answer_url: Some(app.url("/answer")),
        ..DevOptions::default()
    };
    let dev = Dev::boot(options).await.expect("a node in this process");
    for (nr, hours) in [(1, 0), (2, 1), (3, -1)] {
        let script = CallScript { api_key: Some(dev.api_key.clone()), ..with_media(nr) };
        let (mut events, mut seen) = (dev.sim.place_call(script), Vec::new());
        while let Some(event) = events.next().await {
            if event.kind == CallEventKind::Answered {
                clock.jump(hours * 3_600);
            }
            seen.push(event);
        }
        clock.jump(-hours * 3_600);
        let call = Call::of(seen);
        assert!(call.end().ok, "{:#?}", call.events);
        let hangup = |s: &crate::support::app::ReceivedRequest| {
            (s.param("Event"), s.param("WhatsAppCallID")) == ("Hangup", call.wacid.as_str())
        };
        let hangup = app.wait_where("/answer", hangup).await;
        let uuid = hangup.param("CallUUID");
        let events = format!("{}/api/v1/calls/{uuid}/events", dev.node_url);
        let log = http::send("GET", &events, &[("x-api-key", &dev.api_key)], "").await.text();
        let (began, ended) = (wait(&log, "started"), wait(&log, "done"));
        // A timer on wall time would be off by an hour. The tolerance is for a busy machine.
        assert!(
            (2_000..20_000).contains(&(ended - began)),
            "hours {hours}: {began} to {ended} ms\n{log}"
        );
        let seconds: u64 = hangup.param("Duration").parse().expect("seconds");
        assert!((2..=60).contains(&seconds), "hours {hours}: {seconds} s");
        // Measured by the monotonic clock from the answer to the end, independent of wall time.
        let record = record(&dev, uuid).await;
        let at = |name: &str| {
            let time = record[name].as_str().expect("a time").replace(' ', "T");
            time.parse::<jiff::Timestamp>().expect("RFC 3339").as_second()
        };
        assert!(
            (0..=60).contains(&(at("end_time") - at("answer_time"))),
            "hours {hours}: {record}"
        );
    }
    dev.stop().await;
}

/// Returns the time of a `Wait` outcome in the event log.
fn wait(log: &str, outcome: &str) -> u64 {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let is =
        |output: &serde_json::Value| output["element"] == "Wait" && output["outcome"] == outcome;
    let mut lines = lines
        .filter(|line| line["outputs"].as_array().is_some_and(|outputs| outputs.iter().any(is)));
    lines
        .next()
        .and_then(|line| line["at"].as_u64())
        .unwrap_or_else(|| panic!("no Wait {outcome}:\n{log}"))
}

async fn record(dev: &Dev, uuid: &str) -> serde_json::Value {
    use base64::Engine as _;
    let login = format!("{}:{}", world::ACCOUNT, world::AUTH_TOKEN);
    let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(login));
    let url = format!("{}/v1/Account/{}/Call/{uuid}/", dev.node_url, world::ACCOUNT);
    let mut every = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..100 {
        every.tick().await;
        let answer = http::send("GET", &url, &[("authorization", &basic)], "").await;
        if answer.status == 200 && answer.json()["end_time"].is_string() {
            return answer.json();
        }
    }
    panic!("no record of {uuid}");
}
