//! Upgrades while calls wait to be placed, ring, or are connected with each other by `Dial` or in a
//! conference.

use std::time::Duration;

use sim::{
    CallEvent, CallEventKind, CallEvents, CallScript, CalleeAction, CalleeBehaviour, EventOrder,
    HangupRule, caller,
};

use super::control::level;
use super::dial::{dominates_ms, heard_ms, recorded, tone};
use super::outbound::{self, user};
use super::record::{assert_finished, channels, tone_ms};
use super::upgrade::{
    World, check_output, check_replay, end, fail_to_play, fail_to_serve, until, until_recording,
};
use crate::support::app::ReceivedRequest;
use crate::support::bot::{Bot, BotServer};
use crate::support::http;
use crate::support::node::NUMBER;

const CALLER: &str = "919812345678";
const CALLEE: &str = "919412341234";
const CALLER_HZ: f64 = 700.0;
const CALLEE_HZ: f64 = 1_100.0;

/// Reads the rest of a call's events.
async fn rest(mut events: CallEvents) -> Vec<CallEvent> {
    let mut all = Vec::new();
    while let Some(event) = events.next().await {
        all.push(event);
    }
    all
}

/// Checks that a tone was heard in the last three seconds of a recording. A key takes half a second.
fn check_end(events: &[CallEvent], hz: f64) {
    let samples = recorded(events);
    let durations: Vec<_> =
        samples.rchunks(16_000).map(|second| dominates_ms(second, hz)).collect();
    let last: u64 = durations.iter().take(3).sum();
    assert!(last > 1_000, "ms of each second, latest first: {durations:?}");
}

/// A user who is called rings for seconds in one process, answers in the second, talks in the third,
/// and hangs up in the fourth.
async fn dial(order: EventOrder) {
    let outbound::World { node, sim, app } = outbound::world(|node_config, _| {
        node_config.limits = "allow_wa_bridge = true".to_owned();
        node_config.accept_wait_ms = 0;
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/hangup");
    })
    .await;
    let (action, events) = (app.url("/dialled"), app.url("/events"));
    app.xml("/events", "<Response/>");
    app.xml(
        "/unused",
        format!(
            "<Response><Dial callType=\"whatsapp\" callerId=\"{NUMBER}\" action=\"{action}\" callbackUrl=\"{events}\" \
             digitsMatch=\"5\"><User>{CALLEE}</User></Dial></Response>"
        ),
    );
    app.xml("/dialled", "<Response><Speak>Goodbye.</Speak></Response>");
    let callee = CalleeBehaviour {
        action: CalleeAction::Accept,
        order,
        rings_after: Duration::from_millis(50),
        acts_after: Duration::from_secs(8),
    };
    let say = |hz: f64| CallScript {
        hangup: HangupRule::Never,
        record: true,
        say: tone(hz, 120),
        ..CallScript::default()
    };
    let mut there = sim.expect_call(CallScript { callee, ..say(CALLEE_HZ) });
    let here = sim.place_call(CallScript { from: CALLER.to_owned(), ..say(CALLER_HZ) });
    let Some(mut world) = World::of(node, sim, app).await else { return };

    until(&mut there, |event| *event == CallEventKind::Ringing).await;
    check_output(&world.upgrade(&["--wait", "20"]).await, 2);
    let connected =
        world.app.wait_where("/events", |seen| seen.param("Event") == "DialConnected").await;
    let (a_leg, b_leg) = (connected.param("CallUUID"), connected.param("DialBLegUUID"));
    check_output(&world.upgrade(&["--wait", "20"]).await, 2);
    fail_to_play(&mut world).await;
    fail_to_serve(&mut world).await;
    // After three seconds.
    here.control().press(caller::parse_keys("wwwwww5").expect("a key")).await;
    world.app.wait_where("/events", |seen| seen.param("Event") == "DialDigitsMatch").await;
    there.control().hangup().await;
    let (there, here) = tokio::join!(rest(there), rest(here));

    let durations = (heard_ms(&there, CALLER_HZ), heard_ms(&here, CALLEE_HZ));
    assert!(durations.0 > 2_000 && durations.1 > 2_000, "{order:?}: {durations:?} ms");
    let nobody = (heard_ms(&there, CALLEE_HZ), heard_ms(&here, CALLER_HZ));
    assert_eq!(nobody, (0, 0), "nobody hears himself");
    check_end(&there, CALLER_HZ);
    let hangup = world.app.wait("/hangup").await;
    assert_eq!(hangup.param("CallUUID"), a_leg);
    assert_eq!(world.app.wait("/dialled").await.param("DialStatus"), "completed");
    let shown: Vec<_> = world
        .app
        .requests()
        .iter()
        .filter(|seen| seen.path == "/events")
        .map(|seen| seen.param("Event").to_owned())
        .collect();
    assert_eq!(
        shown,
        ["DialAnswer", "DialConnected", "DialDigitsMatch", "DialHangup"],
        "{order:?}"
    );
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    for uuid in [a_leg, b_leg] {
        let record = world.node.record(uuid).await;
        assert_eq!(record["call_state"], "ANSWER", "{record:#}");
        check_replay(&world, uuid).await;
    }
    assert_eq!((world.app.count("/dialled"), world.app.count("/hangup")), (1, 1), "{order:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_goes_on_in_the_new_process() {
    dial(EventOrder::ConnectFirst).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_whose_user_answers_in_the_new_process_goes_on() {
    dial(EventOrder::RingFirst).await;
}

/// The end of an A-leg ends its B-leg, also after an upgrade.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_after_an_upgrade_ends_both_legs() {
    let outbound::World { node, sim, app } = outbound::world(|node_config, _| {
        node_config.limits = "allow_wa_bridge = true".to_owned();
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/hangup");
    })
    .await;
    let events = app.url("/events");
    app.xml("/events", "<Response/>");
    app.xml(
        "/unused",
        format!(
            "<Response><Dial callType=\"whatsapp\" callerId=\"{NUMBER}\" callbackUrl=\"{events}\">\
             <User>{CALLEE}</User></Dial></Response>"
        ),
    );
    let there = sim.expect_call(user(CalleeAction::Accept, EventOrder::ConnectFirst));
    let script =
        CallScript { from: CALLER.to_owned(), hangup: HangupRule::Never, ..CallScript::default() };
    let here = sim.place_call(script);
    let Some(mut world) = World::of(node, sim, app).await else { return };
    world.app.wait_where("/events", |seen| seen.param("Event") == "DialConnected").await;
    check_output(&world.upgrade(&["--wait", "20"]).await, 2);
    here.control().hangup().await;
    let (there, here) = tokio::join!(end(there), end(here));
    assert!(there.ok && here.ok, "{there:?} {here:?}");
    let last = world.app.wait_where("/events", |seen| seen.param("Event") == "DialHangup").await;
    assert_eq!(last.param("DialBLegHangupSource"), "Caller");
    world.app.wait("/hangup").await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    assert_eq!(world.app.count("/hangup"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_ring_and_calls_that_wait_are_placed_once() {
    let outbound::World { node, sim, app } = outbound::world(|node_config, sim| {
        // The last call waits for some seconds.
        node_config.cps = 1;
        let mut script = user(CalleeAction::Accept, EventOrder::RingFirst);
        script.callee.acts_after = Duration::from_secs(6);
        sim.callee = script;
    })
    .await;
    let Some(mut world) = World::of(node, sim, app).await else { return };
    world.app.xml("/answer", "<Response><Speak>Your order is on its way.</Speak></Response>");
    let users: Vec<String> = (0..6).map(|n| format!("91941234123{n}")).collect();
    let order = serde_json::json!({
        "from": NUMBER, "to": users.join("<"), "answer_url": world.app.url("/answer"),
        "ring_url": world.app.url("/ring"), "hangup_url": world.app.url("/hangup"),
    });
    let placed = world.post("Call/", &order).await;
    let uuids: Vec<String> =
        serde_json::from_value(placed["request_uuid"].clone()).expect("a list");
    assert_eq!(uuids.len(), users.len());
    world.app.wait_where("/ring", |seen| seen.param("CallUUID") == uuids[0]).await;
    let output = world.upgrade(&["--wait", "20"]).await;
    assert!(output.status.success(), "{output:?}");
    fail_to_play(&mut world).await;
    fail_to_serve(&mut world).await;
    world.app.wait_where("/hangup", |seen| seen.param("CallUUID") == uuids[5]).await;
    for uuid in &uuids {
        let hangup = world.app.wait_where("/hangup", |seen| seen.param("CallUUID") == uuid).await;
        assert_eq!(hangup.param("HangupCauseName"), "End Of XML Instructions");
        assert_eq!(world.node.record(uuid).await["call_state"], "ANSWER");
        check_replay(&world, uuid).await;
    }
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    for path in ["/ring", "/answer", "/hangup"] {
        let seen = world.app.requests();
        let of: Vec<_> = seen.iter().filter(|seen| seen.path == path).collect();
        assert_eq!(of.len(), uuids.len(), "{path}");
        if path == "/ring" {
            let to: Vec<_> = of.iter().map(|seen| seen.param("To")).collect();
            assert_eq!(to, users, "in order");
        }
    }
    let sim = world.sim.as_ref().expect("a simulated Meta");
    let is_connect = |line: &sim::log::LogLine| matches!(&line.event, sim::log::LogEvent::Graph { action, .. } if action == "connect");
    assert_eq!(sim.log().iter().filter(|line| is_connect(line)).count(), uuids.len());
}

/// Each call that rings has a UDP port of its own. One message carries the sockets of 198.
#[tokio::test(flavor = "multi_thread")]
async fn more_calls_ring_than_a_message_has_places_for_sockets() {
    const CALLS: usize = 210;
    let outbound::World { node, sim, app } = outbound::world(|node_config, sim| {
        node_config.media_ports = 300;
        node_config.cps = 1_000;
        let mut script = user(CalleeAction::Accept, EventOrder::RingFirst);
        script.callee.acts_after = Duration::from_secs(600);
        sim.callee = script;
    })
    .await;
    let Some(mut world) = World::of(node, sim, app).await else { return };
    let mut uuids = Vec::new();
    for n in 0..CALLS {
        let order = serde_json::json!({
            "from": NUMBER, "to": format!("919412341{n:03}"), "answer_url": world.app.url("/answer"),
            "ring_url": world.app.url("/ring"), "hangup_url": world.app.url("/hangup"),
        });
        let placed = world.post("Call/", &order).await;
        uuids.push(placed["request_uuid"].as_str().expect("a call").to_owned());
    }
    for uuid in &uuids {
        world.app.wait_where("/ring", |seen| seen.param("CallUUID") == uuid).await;
    }
    let output = world.upgrade(&["--wait", "20"]).await;
    assert!(output.status.success(), "{output:?}");
    world.node.until_metric("offhook_calls_active", &[], CALLS as f64).await;
    for uuid in &uuids {
        world.delete(&format!("Call/{uuid}/")).await;
    }
    for uuid in &uuids {
        world.app.wait_where("/hangup", |seen| seen.param("CallUUID") == uuid).await;
    }
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    assert_eq!((world.app.count("/ring"), world.app.count("/hangup")), (CALLS, CALLS));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conference_goes_on_in_the_new_process() {
    const SILENT_HZ: f64 = 1_700.0;
    const SILENT: &str = "919512341235";
    let outbound::World { node, sim, app } = outbound::world(|node_config, _| {
        node_config.accept_wait_ms = 0;
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/hangup");
    })
    .await;
    app.xml("/events", "<Response/>");
    let events = app.url("/events");
    app.route("/unused", move |seen| {
        let how = match seen.param("From") {
            SILENT => "muted=\"true\"",
            CALLER => "endConferenceOnExit=\"true\" digitsMatch=\"5\"",
            _ => "",
        };
        let document = format!(
            "<Response><Conference callbackUrl=\"{events}\" {how}>lobby</Conference></Response>"
        );
        (200, document)
    });
    let place = |from: &str, hz: f64| {
        sim.place_call(CallScript {
            from: from.to_owned(),
            say: tone(hz, 120),
            record: true,
            hangup: HangupRule::Never,
            ..CallScript::default()
        })
    };
    let (one, other) = (place(CALLER, CALLER_HZ), place(CALLEE, CALLEE_HZ));
    let silent = place(SILENT, SILENT_HZ);
    let Some(mut world) = World::of(node, sim, app).await else { return };
    let event = async |world: &World, action: &str, from: &str| {
        let is_it = |seen: &ReceivedRequest| {
            seen.param("ConferenceAction") == action && seen.param("From") == from
        };
        world.app.wait_where("/events", is_it).await
    };
    for from in [CALLER, CALLEE, SILENT] {
        event(&world, "enter", from).await;
    }
    let room = async |world: &World| {
        let mut room = world.get("Conference/lobby/").await;
        let members = room["members"].as_array_mut().expect("members");
        assert_eq!(members.len(), 3);
        members.sort_by_key(|member| member["member_id"].to_string());
        for member in members {
            member["join_time"].take();
        }
        room["conference_run_time"].take();
        room["api_id"].take();
        room
    };
    let before = room(&world).await;
    check_output(&world.upgrade(&["--wait", "20"]).await, 3);
    assert_eq!(room(&world).await, before);
    check_output(&world.upgrade(&["--wait", "20"]).await, 3);
    fail_to_play(&mut world).await;
    fail_to_serve(&mut world).await;
    one.control().press(caller::parse_keys("wwwwww5").expect("a key")).await;
    event(&world, "digits", CALLER).await;
    assert_eq!(room(&world).await, before);

    // The ids of members are not used again.
    let sim = world.sim.as_ref().expect("a simulated Meta");
    let late = sim.place_call(CallScript {
        from: "919512341236".to_owned(),
        hangup: HangupRule::Never,
        ..CallScript::default()
    });
    let entered = event(&world, "enter", "919512341236").await;
    let ids = before["members"].as_array().expect("members").iter();
    assert!(ids.clone().all(|member| member["member_id"] != entered.param("ConferenceMemberID")));
    late.control().hangup().await;
    assert!(end(late).await.ok);

    other.control().hangup().await;
    let there = rest(other).await;
    check_end(&there, CALLER_HZ);
    one.control().hangup().await;
    let (here, silent) = tokio::join!(rest(one), rest(silent));
    let durations = (heard_ms(&there, CALLER_HZ), heard_ms(&here, CALLEE_HZ));
    assert!(durations.0 > 2_000 && durations.1 > 2_000, "{durations:?} ms");
    for events in [&there, &here, &silent] {
        assert_eq!(heard_ms(events, SILENT_HZ), 0, "muted");
    }
    world.app.wait_where("/hangup", |_| world.app.count("/hangup") >= 4).await;
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    let requests = world.app.requests();
    let of = |action: &str| {
        requests.iter().filter(|seen| seen.param("ConferenceAction") == action).count()
    };
    assert_eq!((of("enter"), of("digits"), of("exit")), (4, 1, 4));
    for seen in requests.iter().filter(|seen| seen.path == "/hangup") {
        check_replay(&world, seen.param("CallUUID")).await;
    }
    assert_eq!(world.app.count("/hangup"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_of_a_conference_goes_on_in_the_same_file() {
    let outbound::World { node, sim, app } = outbound::world(|node_config, _| {
        node_config.accept_wait_ms = 0;
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/hangup");
    })
    .await;
    app.xml("/events", "<Response/>");
    app.xml(
        "/unused",
        format!(
            "<Response><Conference callbackUrl=\"{}\" record=\"true\" recordFileFormat=\"wav\" recordWhenAlone=\"false\" \
             enterSound=\"\" exitSound=\"\">Minutes</Conference></Response>",
            app.url("/events")
        ),
    );
    let place = |from: &str, say| {
        let from = from.to_owned();
        sim.place_call(CallScript { from, say, hangup: HangupRule::Never, ..CallScript::default() })
    };
    let talker = place(CALLER, tone(CALLER_HZ, 120));
    let listener = place(CALLEE, Vec::new());
    let Some(mut world) = World::of(node, sim, app).await else { return };
    until_recording(&world, 1).await;
    check_output(&world.upgrade(&["--wait", "20"]).await, 2);
    check_output(&world.upgrade(&["--wait", "20"]).await, 2);
    fail_to_play(&mut world).await;
    // This process takes over the recording, and then dies.
    fail_to_serve(&mut world).await;
    for mut call in [listener, talker] {
        until(&mut call, |event| *event == CallEventKind::MediaUp).await;
        call.control().hangup().await;
        assert!(end(call).await.ok);
    }

    let of_recording = |seen: &ReceivedRequest| seen.param("ConferenceAction") == "record";
    let is_over =
        |seen: &ReceivedRequest| of_recording(seen) && seen.param("RecordingDuration") != "-1";
    let ended = world.app.wait_where("/events", is_over).await;
    let ms = assert_finished(&ended, "HungUp");
    let file = http::get(ended.param("RecordUrl")).await;
    let tracks = channels(&file.body);
    assert_eq!((tracks.len(), tracks[0].len() as u64), (1, ms * 16));
    let caller_ms = tone_ms(&tracks[0], CALLER_HZ);
    // For about a second, no process received the caller's audio.
    assert!(caller_ms > 1_000 && caller_ms + 2_000 > ms, "{caller_ms} ms of the tone in {ms}");
    let requests = world.app.requests();
    let [begun, _] = requests.iter().filter(|seen| of_recording(seen)).collect::<Vec<_>>()[..]
    else {
        panic!("a beginning and an end: {requests:#?}");
    };
    for name in ["RecordUrl", "RecordingID", "ConferenceUUID", "From"] {
        assert_eq!(begun.param(name), ended.param(name), "{name}");
    }
    world.app.wait_where("/hangup", |_| world.app.count("/hangup") == 2).await;
    for seen in world.app.requests().iter().filter(|seen| seen.path == "/hangup") {
        check_replay(&world, seen.param("CallUUID")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_multi_party_call_goes_on_in_the_new_process() {
    const AGENT_HZ: f64 = 1_700.0;
    let [leaver, agent, ringing, waiting, absent] =
        [5, 6, 7, 8, 9].map(|n| format!("91941234123{n}"));
    let outbound::World { node, sim, app } = outbound::world(|node_config, _| {
        node_config.accept_wait_ms = 0;
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/hangup");
    })
    .await;
    for path in ["/status", "/agent"] {
        app.xml(path, "");
    }
    let (status, agents) = (app.url("/status"), app.url("/agent"));
    app.xml(
        "/unused",
        format!(
            "<Response><MultiPartyCall role=\"customer\" enterSound=\"none\" exitSound=\"none\" stayAlone=\"true\" \
             statusCallbackUrl=\"{status}\">Desk</MultiPartyCall></Response>"
        ),
    );
    let place = |from: &str, say| {
        let from = from.to_owned();
        sim.place_call(CallScript {
            from,
            say,
            record: true,
            hangup: HangupRule::Never,
            ..CallScript::default()
        })
    };
    let expect = |to: &str, action, acts_after| {
        let mut script = user(action, EventOrder::ConnectFirst);
        script.callee.acts_after = Duration::from_secs(acts_after);
        let from = to.to_owned();
        sim.expect_call(CallScript { from, say: tone(AGENT_HZ, 120), record: true, ..script })
    };
    let customer = place(CALLER, tone(CALLER_HZ, 120));
    let accepts = expect(&agent, CalleeAction::Accept, 0);
    let rings = expect(&ringing, CalleeAction::Accept, 12);
    let waits = expect(&waiting, CalleeAction::Accept, 0);
    let rings_on = expect(&absent, CalleeAction::Ignore, 60);
    let Some(mut world) = World::of(node, sim, app).await else { return };
    let event = async |world: &World, name: &str, call: &str| {
        let is_it = |seen: &ReceivedRequest| {
            let of = [seen.param("ParticipantCallUUID"), seen.param("CallUUID")];
            seen.param("EventName") == name && of.contains(&call)
        };
        world.app.wait_where("/status", is_it).await
    };
    let joined = |from: &'static str| {
        move |seen: &ReceivedRequest| {
            seen.param("EventName") == "ParticipantJoin" && seen.param("From").ends_with(from)
        }
    };
    world.app.wait_where("/status", joined("5678")).await;

    let add = async |world: &World, to: &str, delay: u32| {
        let body = serde_json::json!({
            "role": "agent", "from": NUMBER, "to": to, "enter_sound": "none", "exit_sound": "none",
            "status_callback_url": status, "call_status_callback_url": agents, "stay_alone": true,
            "status_callback_events": "mpc-state-changes,participant-state-changes,add-participant-api-events",
            "ring_timeout": 120, "delay_dial": delay,
        });
        let added = world.post("MultiPartyCall/name_Desk/Participant/", &body).await;
        added["calls"][0]["call_uuid"].as_str().expect("an id").to_owned()
    };
    let agent = add(&world, &agent, 0).await;
    event(&world, "ParticipantJoin", &agent).await;
    // The latest id is that of a member who has left.
    let gone = world.sim.as_ref().expect("a simulated Meta").place_call(CallScript {
        from: leaver,
        hangup: HangupRule::Never,
        ..CallScript::default()
    });
    world.app.wait_where("/status", joined("1235")).await;
    gone.control().hangup().await;
    assert!(end(gone).await.ok);
    world.app.wait_where("/status", |seen| seen.param("EventName") == "ParticipantExit").await;
    let ringing = add(&world, &ringing, 0).await;
    let absent = add(&world, &absent, 0).await;
    let waiting = add(&world, &waiting, 12).await;
    for call in [&ringing, &absent] {
        event(&world, "AddParticipantRinging", call).await;
    }
    let members = async |world: &World| {
        let mut list = world.get("MultiPartyCall/name_Desk/Participant/").await["objects"].take();
        for member in list.as_array_mut().expect("a list") {
            for name in ["resource_uri", "duration", "billed_duration", "join_time"] {
                member[name].take();
            }
        }
        list
    };
    let before = members(&world).await;
    assert_eq!(before.as_array().map(Vec::len), Some(3), "{before}");
    check_output(&world.upgrade(&["--wait", "20"]).await, 4);
    assert_eq!(members(&world).await, before);
    fail_to_play(&mut world).await;
    fail_to_serve(&mut world).await;
    assert_eq!(members(&world).await, before);
    for call in [&ringing, &waiting] {
        event(&world, "ParticipantJoin", call).await;
    }
    let after = members(&world).await;
    let ids: std::collections::BTreeSet<String> = after
        .as_array()
        .expect("a list")
        .iter()
        .map(|member| member["member_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 5, "{after}");

    world.delete("MultiPartyCall/name_Desk/").await;
    let (here, there) = tokio::join!(rest(customer), rest(accepts));
    // A process failed to serve, so that they did not hear each other for seconds.
    let durations = (heard_ms(&here, AGENT_HZ), heard_ms(&there, CALLER_HZ));
    assert!(durations.0 > 2_000 && durations.1 > 2_000, "{durations:?} ms");
    for call in [rings, waits, rings_on] {
        rest(call).await;
    }
    world.app.wait_where("/status", |seen| seen.param("EventName") == "MPCEnd").await;
    let hung_up = |seen: &ReceivedRequest, call: &str| {
        seen.param("Event") == "Hangup" && seen.param("CallUUID") == call
    };
    for call in [&agent, &ringing, &waiting, &absent] {
        let hangup = world.app.wait_where("/agent", |seen| hung_up(seen, call)).await;
        assert_eq!(hangup.param("HangupCauseName"), "Multiparty Call Ended", "{call}");
        check_replay(&world, call).await;
    }
    world.app.wait_where("/hangup", |_| world.app.count("/hangup") == 2).await;
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    let requests = world.app.requests();
    let count = |name| requests.iter().filter(|seen| seen.param("EventName") == name).count();
    let counts = ["ParticipantJoin", "ParticipantExit", "MPCStart", "MPCEnd"].map(count);
    assert_eq!(counts, [5, 5, 1, 1]);
    let ended = world.get("MultiPartyCall/?status=ended").await;
    assert_eq!(ended["meta"]["total_count"], 1, "{ended}");
    let hangups =
        requests.iter().filter(|seen| seen.param("Event") == "Hangup" && seen.path == "/agent");
    assert_eq!(hangups.count(), 4);
}

/// Waits until an agent hears a caller.
async fn until_hears(bot: &mut Bot) {
    use base64::Engine as _;
    // 20 ms each.
    for _ in 0..1_000 {
        let media = bot.receive("media").await;
        let bytes = media["media"]["payload"].as_str().expect("a payload");
        let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).expect("Base64");
        let pcm: Vec<i16> =
            bytes.as_chunks().0.iter().map(|two| i16::from_le_bytes(*two)).collect();
        if level(&pcm, CALLER_HZ as u32) > 0.08 {
            return;
        }
    }
    panic!("the agent hears nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ai_agent_of_a_multi_party_call_goes_on_in_the_new_process() {
    const AGENT_HZ: f64 = 1_700.0;
    let mut server = BotServer::start().await;
    let outbound::World { node, sim, app } = outbound::world(|node_config, _| {
        node_config.accept_wait_ms = 0;
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/hangup");
    })
    .await;
    app.xml("/status", "");
    let (status, url) = (app.url("/status"), server.url.clone());
    app.route("/unused", move |seen| {
        let how = match seen.param("From") {
            CALLEE => format!(
                "role=\"ai-agent\" aiAgentStreamServiceUrl=\"{url}\" aiAgentStreamContentType=\"audio/x-l16;rate=16000\""
            ),
            _ => "role=\"customer\"".to_owned(),
        };
        let call = format!(
            "<MultiPartyCall {how} stayAlone=\"true\" enterSound=\"none\" exitSound=\"none\" \
             statusCallbackUrl=\"{status}\">Desk</MultiPartyCall>"
        );
        (200, format!("<Response>{call}</Response>"))
    });
    let place = |from: &str, say| {
        let from = from.to_owned();
        sim.place_call(CallScript {
            from,
            say,
            record: true,
            hangup: HangupRule::Never,
            ..CallScript::default()
        })
    };
    let customer = place(CALLER, tone(CALLER_HZ, 120));
    let brings = place(CALLEE, Vec::new());
    let Some(mut world) = World::of(node, sim, app).await else { return };
    let mut bot = server.accept().await;
    bot.receive("start").await;
    until_hears(&mut bot).await;
    let wave = |n: u32| {
        ((f64::from(n) * AGENT_HZ * std::f64::consts::TAU / 16_000.0).sin() * 8_000.0) as i16
    };
    let pcm: Vec<i16> = (0..16_000).map(wave).collect();
    for (n, name) in ["before", "after", "later"].into_iter().enumerate() {
        if n > 0 {
            // Ten seconds of audio wait here, and go on there.
            for _ in 0..10 {
                bot.play(16_000, &pcm).await;
            }
            check_output(&world.upgrade(&["--wait", "20"]).await, 2);
            until_hears(&mut bot).await;
        } else {
            bot.play(16_000, &pcm).await;
        }
        bot.say(serde_json::json!({"event": "checkpoint", "name": name})).await;
        assert_eq!(bot.receive("playedStream").await["name"], name);
    }
    bot.close().await;
    world.app.wait_where("/status", |seen| seen.param("EventName") == "ParticipantExit").await;
    rest(brings).await;
    world.delete("MultiPartyCall/name_Desk/").await;
    let customer = rest(customer).await;
    // 21 seconds were played, of which each upgrade cuts some.
    let agent_ms = heard_ms(&customer, AGENT_HZ);
    assert!(agent_ms > 19_000, "{agent_ms} ms");
    world.app.wait_where("/hangup", |_| world.app.count("/hangup") == 2).await;
    for seen in world.app.requests().iter().filter(|seen| seen.path == "/hangup") {
        check_replay(&world, seen.param("CallUUID")).await;
    }
}
