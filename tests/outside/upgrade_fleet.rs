//! `offhook upgrade` of a node of a fleet (`docs/operations.md#upgrade`).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use sim::{CallEventKind, HangupRule, Sim};

use super::fleet::World as Fleet;
use super::fleet_rooms::{TEAM, event, places, script};
use super::support::app::App;
use super::support::database::skipped_without_postgres;
use super::support::http;
use super::support::node::{AUTH_ID, Node, NodeConfig, basic, program, sim_options};
use super::upgrade::{
    CALLERS, MENU, World, callers, check_calls, check_output, end, fail_to_serve, press, text,
    until,
};

/// Interval of the requests that another node forwards.
const REQUEST_INTERVAL: Duration = Duration::from_millis(20);

/// Starts two nodes of a fleet, and a simulated Meta that sends the calls to the first one. That one
/// is in the world, the other one is returned.
async fn start() -> (World, Node, Fleet) {
    let fleet = Fleet::new(u32::try_from(CALLERS).unwrap(), 1_000).await;
    let app = App::start().await;
    app.xml("/hangup", "");
    app.xml("/answer", MENU.replace("ACTION", &app.url("/menu")));
    app.xml("/menu", "<Response><Speak>Thank you.</Speak></Response>");
    let sim = Sim::start(sim_options()).await.expect("the simulated Meta");
    let config = |name| NodeConfig {
        graph_url: sim.graph_url(),
        answer_url: app.url("/answer"),
        hangup_url: app.url("/hangup"),
        ..fleet.config(name)
    };
    let (one, two) = (Node::start(&config("n0")).await, Node::start(&config("n1")).await);
    sim.set_node_url(one.public.clone());
    (World::of_member(one, sim, app).await, two, fleet)
}

/// Requests a live call at another node until `stop`. Returns how many requests failed, and how many
/// there were.
async fn request_until(stop: Arc<AtomicBool>, url: String) -> (Vec<String>, usize) {
    let mut every = tokio::time::interval(REQUEST_INTERVAL);
    let (mut failed, mut sent) = (Vec::new(), 0);
    while !stop.load(Ordering::Relaxed) {
        every.tick().await;
        let basic = basic();
        let answer = http::try_send("GET", &url, &[("authorization", &basic)], String::new()).await;
        sent += 1;
        match answer {
            Ok(answer) if answer.status == 200 => {}
            other => failed.push(format!("{other:?}")),
        }
    }
    (failed, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn f40_a_node_is_upgraded_with_its_calls_and_units() {
    if skipped_without_postgres() {
        return;
    }
    let (mut world, other, _fleet) = start().await;
    let mut calls = callers(&world).await;
    for call in &mut calls {
        press(call, "12").await;
        until(call, |event| *event == CallEventKind::DigitSent { digit: '2' }).await;
    }
    let answer = world.app.wait("/answer").await;
    let stop = Arc::new(AtomicBool::new(false));
    let call = format!("{}/v1/Account/{AUTH_ID}/Call/{}/", other.public, answer.param("CallUUID"));
    let requests = tokio::spawn(request_until(stop.clone(), format!("{call}?status=live")));
    for _ in 0..2 {
        check_output(&world.upgrade(&[]).await, CALLERS);
        world.node.until_metric("offhook_calls_active", &[], CALLERS as f64).await;
    }
    stop.store(true, Ordering::Relaxed);
    let (failed, sent) = requests.await.unwrap();
    assert!(failed.is_empty(), "{} of {sent}: {}", failed.len(), failed[0]);
    // A caller's next digit must come within ten seconds.
    for call in &calls {
        press(call, "3").await;
    }
    // The units of its calls are in use, so no node admits another one.
    let sim = world.sim.as_ref().expect("a simulated Meta");
    for url in [&world.node.public, &other.public] {
        sim.set_node_url(url.clone());
        assert!(!end(world.place("919412349999")).await.ok, "the limit is reached");
    }
    let log = world.node.log();
    assert!(log.contains("continued as a member of the fleet"), "{log}");
    // The ends of the calls come to the other node, which forwards them.
    for call in &calls {
        press(call, "4").await;
    }
    check_calls(&world, calls).await;
    let another = end_with(&world, "1234").await;
    assert!(another.ok, "the units are free again: {another:?}");
    assert!(!other.log().contains("declared dead"), "{}", other.log());
}

/// Places a call that presses these keys when it hears the menu.
async fn end_with(world: &World, keys: &str) -> sim::CallOutcome {
    let mut call = world.place("919412340042");
    until(&mut call, |event| *event == CallEventKind::FirstAudio).await;
    press(&call, keys).await;
    end(call).await
}

#[tokio::test(flavor = "multi_thread")]
async fn f40_a_node_goes_on_as_a_member_if_its_upgrade_fails() {
    if skipped_without_postgres() {
        return;
    }
    let (mut world, other, _fleet) = start().await;
    let calls = callers(&world).await;
    fail_to_serve(&mut world).await;
    world.node.until_metric("offhook_calls_active", &[], CALLERS as f64).await;
    world.sim.as_ref().expect("a simulated Meta").set_node_url(other.public.clone());
    assert!(!end(world.place("919412349999")).await.ok, "the limit is reached");
    for call in &calls {
        press(call, "1234").await;
    }
    check_calls(&world, calls).await;
    assert!(!other.log().contains("declared dead"), "{}", other.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn f40_calls_in_a_room_of_another_node_are_listed_by_both() {
    if skipped_without_postgres() {
        return;
    }
    let fleet = Fleet::new(20, 1_000).await;
    let places = places(&fleet, 2, TEAM).await;
    let mut calls = Vec::new();
    for (n, place) in places.iter().enumerate() {
        let script = script(n, HangupRule::Never);
        let from = script.from.clone();
        calls.push(place.sim.place_call(script));
        event(&fleet, "enter", &from).await;
    }
    for (place, why) in places.iter().zip(["another node has it", "of another node"]) {
        let mut command = std::process::Command::new(program());
        command.args(["upgrade", "--data-dir"]).arg(place.node.dir.path());
        let output = tokio::task::block_in_place(|| command.output().expect("it runs"));
        let printed = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert!(!output.status.success() && printed.contains(why), "{printed}");
    }
    let room = places[0].rest("GET", "Conference/Team%20room/", &Value::Null).await.json();
    assert_eq!(room["conference_member_count"], "2", "nothing has changed: {room}");
}
