//! Rooms whose members are at several nodes of a fleet, with real media (`docs/fleet.md`).
//!
//! Each node has a simulated Meta of its own, which sends its calls to that node.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sim::{CallEvent, CallScript, HangupRule, Sim};

use super::dial::{recorded, tone};
use super::fleet::World;
use super::support::app::ReceivedRequest;
use super::support::database::skipped_without_postgres;
use super::support::http::{self, Answer};
use super::support::node::{AUTH_ID, NUMBER, Node, basic, sim_options};

/// A node with its simulated Meta.
pub struct Place {
    pub node: Node,
    pub sim: Sim,
}

impl Place {
    pub async fn rest(&self, method: &str, path: &str, body: &Value) -> Answer {
        let url = format!("{}/v1/Account/{AUTH_ID}/{path}", self.node.public);
        let basic = basic();
        let headers = [("authorization", &*basic), ("content-type", "application/json")];
        http::send(method, &url, &headers, body.to_string()).await
    }
}

/// Starts nodes whose callers get this document.
pub async fn places(world: &World, count: usize, document: &str) -> Vec<Place> {
    world.app.xml("/answer", document.replace("{app}", &world.app.base));
    for path in ["/events", "/recorded"] {
        world.app.xml(path, "<Response/>");
    }
    world.app.xml("/left", "<Response><Wait length=\"60\"/></Response>");
    let start = async |n: usize| {
        let sim = Sim::start(sim_options()).await.expect("the simulated Meta");
        let mut config = world.config(&format!("n{n}"));
        config.graph_url = sim.graph_url();
        let node = Node::start(&config).await;
        sim.set_node_url(node.public.clone());
        Place { node, sim }
    };
    join_all((0..count).map(start)).await
}

/// The tones of callers: multiples of 50 Hz, which can be told apart. No tone is
/// a product of distortion of the others.
const TONES: [f64; 6] = [450.0, 550.0, 800.0, 1_300.0, 1_950.0, 2_900.0];

/// The phone number and the tone of each caller.
fn caller(n: usize) -> (String, f64) {
    (format!("9198123456{n:02}"), TONES[n % TONES.len()])
}

pub fn script(n: usize, hangup: HangupRule) -> CallScript {
    let (from, hz) = caller(n);
    CallScript { from, say: tone(hz, 30), record: true, hangup, ..CallScript::default() }
}

/// Returns how many milliseconds of the recorded audio contain a tone.
fn tone_ms(events: &[CallEvent], hz: f64) -> usize {
    let step = hz * std::f64::consts::TAU / 16_000.0;
    let has_tone = |piece: &&[f64]| {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in piece.iter().enumerate() {
            let at = step * n as f64;
            (re, im) = (re + sample * at.cos(), im + sample * at.sin());
        }
        (re * re + im * im).sqrt() * 2.0 / piece.len() as f64 > 3_000.0
    };
    // A gap at a busy machine has all tones, but not for 100 ms.
    recorded(events).chunks_exact(1_600).filter(has_tone).count() * 100
}

pub async fn event(world: &World, action: &str, from: &str) -> ReceivedRequest {
    let is_it = |seen: &ReceivedRequest| {
        seen.param("ConferenceAction") == action && seen.param("From") == from
    };
    world.app.wait_where("/events", is_it).await
}

pub const TEAM: &str = "<Response><Conference callbackUrl=\"{app}/events\" action=\"{app}/left\">Team room</Conference></Response>";

#[tokio::test(flavor = "multi_thread")]
async fn f31_members_on_three_nodes_hear_each_other_and_not_themselves() {
    if skipped_without_postgres() {
        return;
    }
    const MEMBERS: usize = 6;
    let world = World::new(20, 1_000).await;
    let places = places(&world, 3, TEAM).await;
    let mut calls = Vec::new();
    let mut rooms = Vec::new();
    for n in 0..MEMBERS {
        calls.push(places[n % 3].sim.place_call(script(n, HangupRule::Never)));
        let entered = event(&world, "enter", &caller(n).0).await;
        assert_eq!(entered.param("ConferenceFirstMember"), if n == 0 { "true" } else { "false" });
        let id = |name: &str| entered.param(name).to_owned();
        rooms.push((id("ConferenceUUID"), id("ConferenceMemberID")));
    }
    assert!(rooms.iter().all(|(room, _)| *room == rooms[0].0), "{rooms:?}");
    // Any node lists the room and commands its members.
    for place in &places {
        let list = place.rest("GET", "Conference/", &Value::Null).await;
        assert_eq!(list.json()["conferences"], serde_json::json!(["Team room"]));
        let room = place.rest("GET", "Conference/Team%20room/", &Value::Null).await;
        assert_eq!(room.json()["conference_member_count"], "6", "{}", room.text());
    }
    // All of them speak for some seconds.
    let first = &places[0];
    let mut every = tokio::time::interval(Duration::from_millis(100));
    loop {
        every.tick().await;
        let room = first.rest("GET", "Conference/Team%20room/", &Value::Null).await.json();
        let youngest = room["members"]
            .as_array()
            .unwrap()
            .iter()
            .map(|member| member["join_time"].as_str().unwrap().parse::<u64>().unwrap());
        if youngest.min() >= Some(4) {
            break;
        }
    }
    // A member of the third node is muted at the second one, and kicked at the first one.
    let path = format!("Conference/Team%20room/Member/{}/", rooms[5].1);
    let muted = places[1].rest("POST", &format!("{path}Mute/"), &Value::Null).await;
    assert_eq!(muted.status, 202, "{}", muted.text());
    let room = places[2].rest("GET", "Conference/Team%20room/", &Value::Null).await.json();
    assert_eq!(room["members"][5]["muted"], true, "{room}");
    let kicked = places[1].rest("POST", &format!("{path}Kick/"), &Value::Null).await;
    assert_eq!(kicked.status, 202, "{}", kicked.text());
    let is_its = |seen: &ReceivedRequest| seen.param("From") == caller(5).0;
    let left = world.app.wait_where("/left", is_its).await;
    assert_eq!(
        (left.param("ConferenceMemberID"), left.param("CallStatus")),
        (&*rooms[5].1, "in-progress")
    );
    // One request at one node ends all calls in all rooms.
    let ended = places[2].rest("DELETE", "Conference/", &Value::Null).await;
    assert_eq!(ended.status, 204, "{}", ended.text());
    for n in 0..MEMBERS - 1 {
        let last = event(&world, "exit", &caller(n).0).await;
        assert_eq!(last.param("ConferenceUUID"), rooms[0].0);
    }
    let exits = world.app.requests();
    let exits = exits.iter().filter(|seen| seen.param("ConferenceAction") == "exit");
    let last: Vec<_> = exits.map(|seen| seen.param("ConferenceLastMember") == "true").collect();
    assert_eq!(last.iter().filter(|last| **last).count(), 1, "{last:?}");
    for (n, call) in calls.into_iter().take(MEMBERS - 1).enumerate() {
        let events = call.all().await;
        let durations: Vec<usize> = TONES.iter().map(|hz| tone_ms(&events, *hz)).collect();
        let others = durations.iter().enumerate().filter(|(other, _)| *other != n);
        let least = others.map(|(_, ms)| *ms).min().unwrap_or_default();
        assert!(least > 2_000 && durations[n] * 10 < least, "member {n} hears {durations:?} ms");
    }
    // The name is free: the next call opens a room at its own node.
    let next = places[2].sim.place_call(script(7, HangupRule::Never));
    let entered = event(&world, "enter", &caller(7).0).await;
    assert_eq!(entered.param("ConferenceFirstMember"), "true");
    assert_ne!(entered.param("ConferenceUUID"), rooms[0].0);
    drop(next);
}

/// A subaccount may give its room any name.
#[tokio::test(flavor = "multi_thread")]
async fn f31_a_name_means_the_accounts_own_room_at_each_node() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let places = places(&world, 2, TEAM).await;
    let sub = places[0].rest("POST", "Subaccount/", &json!({"name": "Night"})).await.json();
    let number = format!("Number/{NUMBER}/");
    let mut calls = Vec::new();
    for (n, owner) in [&sub["auth_id"], &json!("")].into_iter().enumerate() {
        let moved = places[n].rest("POST", &number, &json!({"subaccount": owner})).await;
        assert_eq!(moved.status, 202, "{}", moved.text());
        calls.push(places[n].sim.place_call(script(n, HangupRule::Never)));
        let entered = event(&world, "enter", &caller(n).0).await;
        assert_eq!(entered.param("ConferenceFirstMember"), "true", "a room of its own");
    }
    for place in &places {
        let room = place.rest("GET", "Conference/Team%20room/", &Value::Null).await.json();
        assert_eq!(room["members"][0]["from"], caller(1).0, "{room}");
    }
    let ended = places[0].rest("DELETE", "Conference/Team%20room/", &Value::Null).await;
    assert_eq!(ended.status, 204);
    event(&world, "exit", &caller(1).0).await;
    // Then it is the name of the subaccount's room.
    let room = places[1].rest("GET", "Conference/Team%20room/", &Value::Null).await.json();
    assert_eq!(room["members"][0]["from"], caller(0).0, "{room}");
}

#[tokio::test(flavor = "multi_thread")]
async fn f33_members_of_a_killed_nodes_room_go_on_with_their_documents() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let mut places = places(&world, 3, TEAM).await;
    let mut calls = Vec::new();
    let mut rooms = Vec::new();
    for (n, place) in places.iter().enumerate() {
        calls.push(place.sim.place_call(script(n, HangupRule::Never)));
        rooms.push(event(&world, "enter", &caller(n).0).await.param("ConferenceUUID").to_owned());
    }
    assert!(rooms.iter().all(|room| *room == rooms[0]), "{rooms:?}");
    places[0].node.kill();
    for n in 1..3 {
        let is_its = |seen: &ReceivedRequest| seen.param("From") == caller(n).0;
        let left = world.app.wait_where("/left", is_its).await;
        assert_eq!(
            (left.param("RoomError"), left.param("CallStatus")),
            ("room_lost", "in-progress")
        );
        let exit = event(&world, "exit", &caller(n).0).await;
        assert_eq!(exit.param("ConferenceLastMember"), "false");
    }
    // A call that enters while the node is not declared dead yet opens the room when it is.
    calls.push(places[1].sim.place_call(script(4, HangupRule::Never)));
    let entered = event(&world, "enter", &caller(4).0).await;
    assert_eq!(entered.param("ConferenceFirstMember"), "true");
    assert_ne!(entered.param("ConferenceUUID"), rooms[0]);
    calls.push(places[2].sim.place_call(script(5, HangupRule::Never)));
    let other = event(&world, "enter", &caller(5).0).await;
    assert_eq!(other.param("ConferenceUUID"), entered.param("ConferenceUUID"));
    // The calls of the others were not ended.
    let live = places[1].rest("GET", "Call/?status=live", &Value::Null).await;
    assert_eq!(live.json()["calls"].as_array().map(Vec::len), Some(4), "{}", live.text());
    drop(calls);
}

const CARE: &str = "<Response><MultiPartyCall role=\"agent\" stayAlone=\"true\" statusCallbackUrl=\"{app}/events\" \
    statusCallbackEvents=\"mpc-state-changes,participant-state-changes\">care</MultiPartyCall>\
    <Wait length=\"60\"/></Response>";

#[tokio::test(flavor = "multi_thread")]
async fn f33_each_end_of_a_multi_party_call_is_reported_once_whichever_node_dies() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(20, 1_000).await;
    let mut places = places(&world, 3, CARE).await;
    let reported = async |name: &str, call: Option<&str>| {
        let is_it = |seen: &ReceivedRequest| {
            let of = seen.param("ParticipantCallUUID");
            seen.param("EventName") == name && call.is_none_or(|call| of == call)
        };
        world.app.wait_where("/events", is_it).await
    };
    let (mut calls, mut ids) = (Vec::new(), Vec::new());
    for n in 0..3 {
        calls.push(places[n].sim.place_call(script(n, HangupRule::Never)));
        let is_its = |seen: &ReceivedRequest| seen.param("From") == caller(n).0;
        let answered = world.app.wait_where("/answer", is_its).await;
        ids.push(answered.param("CallUUID").to_owned());
        reported("ParticipantJoin", Some(&ids[n])).await;
    }
    // The node of a participant dies: the host reports the exit.
    places[1].node.kill();
    reported("ParticipantExit", Some(&ids[1])).await;
    let room = places[2].rest("GET", "MultiPartyCall/name_care/", &Value::Null).await;
    assert_eq!(room.status, 200, "{}", room.text());
    // The host has no participant of its own any more, and dies: its participants report their exit
    // themselves, and the node that takes its place reports the end.
    let ended = places[2].rest("DELETE", &format!("Call/{}/", ids[0]), &Value::Null).await;
    assert_eq!(ended.status, 204, "{}", ended.text());
    reported("ParticipantExit", Some(&ids[0])).await;
    places[0].node.kill();
    reported("ParticipantExit", Some(&ids[2])).await;
    let end = reported("MPCEnd", None).await;
    let seen = world.app.requests();
    for call in &ids {
        let exits = seen.iter().filter(|seen| {
            seen.param("EventName") == "ParticipantExit"
                && seen.param("ParticipantCallUUID") == call
        });
        let exits: std::collections::BTreeSet<_> = exits.map(super::crash::event_id).collect();
        assert_eq!(exits.len(), 1, "{call}");
    }
    let id = end.param("MPCUUID");
    let shown = places[2].rest("GET", &format!("MultiPartyCall/uuid_{id}/"), &Value::Null).await;
    assert_eq!((shown.status, &shown.json()["status"]), (200, &"Ended".into()), "{}", shown.text());
    drop(calls);
}
