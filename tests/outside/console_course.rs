//! The quality graph of a call, in a real Chromium with real media: it grows during the call and
//! shows packet loss.

use std::sync::Arc;

use serde_json::Value;
use sim::{CallScript, Faults, HangupRule};

use crate::console::{people, signed_in};
use crate::outbound::{World, world};
use crate::support::browser::{axe, has_chromium};
use crate::support::database;
use crate::support::http::{self, Answer};
use crate::support::node::API_KEY;

/// The network loses a third of the packets from the eighth second on.
const WEATHER: &str = "[[fault]]\ndo = \"media\"\nloss = 35\nweather_after_ms = 8000\n";

async fn stormy() -> World {
    world(|node, sim| {
        node.extra.push_str(&people());
        node.accept_wait_ms = 3_000;
        sim.faults = Faults::parse(WEATHER).expect("rules");
    })
    .await
}

async fn asked(world: &World, path: &str) -> Answer {
    let answer = http::send(
        "GET",
        &format!("{}/api/v1/{path}", world.node.public),
        &[("x-api-key", API_KEY)],
        "",
    )
    .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

async fn quality(world: &World, call: &str) -> Value {
    asked(world, &format!("calls/{call}/quality/")).await.json()
}

/// Returns the caller's packet loss in percent, by sample.
fn losses(course: &Value) -> Vec<f64> {
    let samples = course["samples"].as_array().expect("samples").iter();
    samples.map(|sample| sample["inbound"]["lossPercent"].as_f64().unwrap_or(0.0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_calls_graph_grows_and_shows_packet_loss() {
    if !has_chromium() {
        return;
    }
    let world = stormy().await;
    world
        .app
        .xml("/unused", "<Response><Speak>One moment.</Speak><Wait length=\"17\"/></Response>");
    let mut browser = signed_in(&world, "asha").await;
    let say = vec![Arc::from([0x48, 1, 2].as_slice()); 1_100];
    let script = CallScript { say, hangup: HangupRule::Never, ..CallScript::default() };
    let (placed, ()) = tokio::join!(world.sim.place_call(script).all(), async {
        browser.visit("/console/calls/").await;
        browser.click("#up a.row-link").await;
        browser.until("location.pathname !== '/console/calls/'").await;
        browser.eval("globalThis.marked = 1").await;
        // The page receives updates without requests.
        browser
            .until("document.querySelector('#sound:not([hidden]) #graph-mos path.line.in')")
            .await;
        let call = browser.eval("location.pathname.split('/')[3]").await;
        let so_far = quality(&world, call.as_str().expect("a UUID")).await;
        assert_eq!(losses(&so_far)[0], 0.0, "{so_far:#}");
        let rows = browser.eval("document.querySelectorAll('table.course tbody tr').length").await;
        let more = format!("document.querySelectorAll('table.course tbody tr').length > {rows}");
        browser.until(&more).await;
        assert_eq!(browser.eval("globalThis.marked").await, 1, "without loading the page again");
    });
    assert!(!placed.is_empty());
    let call =
        browser.eval("location.pathname.split('/')[3]").await.as_str().expect("a UUID").to_owned();
    world.node.record(&call).await;
    browser.until("document.querySelector('#sound .gauge')").await;
    browser.until("document.querySelectorAll('table.course tbody tr').length >= 4").await;

    let course = quality(&world, &call).await;
    let lost = losses(&course);
    assert_eq!((course["intervalSeconds"].as_u64(), lost[0]), (Some(5), 0.0), "{course:#}");
    assert!(lost.iter().any(|percent| (15.0..60.0).contains(percent)), "{lost:?}");
    let mos = |n: usize| course["samples"][n]["inbound"]["mos"].as_f64().expect("an estimate");
    assert!(mos(0) > 4.0 && mos(2) < 3.0, "{course:#}");
    let whole = asked(&world, &format!("calls/{call}/")).await.json();
    let packets = |way: &Value| way["inbound"]["packets"].as_u64().expect("packets");
    let sum: u64 = course["samples"].as_array().expect("samples").iter().map(packets).sum();
    assert_eq!(sum, packets(&whole["quality"]), "samples are the call cut in pieces");

    // The page has the same data: a table, closed at first, and three graphs with text
    // descriptions.
    let cells = browser
        .eval("[...document.querySelectorAll('table.course tbody tr')].map((r) => r.cells[2].textContent)")
        .await;
    let shown: Vec<f64> = cells
        .as_array()
        .expect("cells")
        .iter()
        .map(|cell| cell.as_str().unwrap().trim_end_matches(" %").parse().unwrap())
        .collect();
    assert!(
        shown.iter().zip(&lost).all(|(shown, lost)| (shown - lost).abs() < 0.1),
        "{shown:?} {lost:?}"
    );
    assert_eq!(browser.eval("document.querySelector('#sound details').open").await, false);
    let titles =
        browser.eval("[...document.querySelectorAll('#sound svg[role=img] title')].map((t) => t.textContent)").await;
    let titles = titles.to_string();
    assert!(
        titles.contains("opinion score (MOS) · From the person: ")
            && titles.contains("From the person: 0–"),
        "{titles}"
    );
    if let Some(axe) = axe() {
        for scheme in ["light", "dark"] {
            browser.prefer(scheme).await;
            browser.eval("document.querySelector('#sound details').open = true").await;
            assert_eq!(browser.barriers(&axe).await, [""; 0], "{scheme}");
        }
    }
    assert_eq!(browser.errors, [""; 0]);

    // `offhook calls show` prints them too.
    let show = std::process::Command::new(env!("CARGO_BIN_EXE_offhook"))
        .args(["calls", "show", &call])
        .args(database::place(world.node.dir.path()))
        .output()
        .expect("run offhook");
    let show = String::from_utf8_lossy(&show.stdout).into_owned();
    assert!(
        show.contains("from the user  MOS  ▇") || show.contains("from the user  MOS  █"),
        "{show}"
    );
    let log = asked(&world, &format!("calls/{call}/events")).await.text();
    assert_eq!(
        log.matches("\"trace\":\"course\"").count(),
        1,
        "one line, whatever the call's length"
    );
}
