//! Participants of multi-party calls through the whole binary with real media: calling them over
//! REST, audio for those who wait, and playback to them.

use std::time::Duration;

use serde_json::{Value, json};
use sim::{
    CallEvent, CallEventKind, CallScript, CalleeAction, CalleeBehaviour, EventOrder, HangupRule,
    caller,
};

use super::control::{in_order, level, only, received_sounds, tones};
use super::dial::{heard_ms, tone};
use super::outbound::{USER, World, user, world};
use crate::support::bot::BotServer;
use crate::support::node::NUMBER;

const ASHA: &str = "919812345678";
const RAVI: &str = "919512341234";
const OTHER: &str = "919412341235";

/// Starts a node with this document for callers. `APP` is the application's URL, and `/status` its
/// status callback.
async fn meeting(document: &str) -> World {
    let world = world(|expected, _| {
        expected.accept_wait_ms = 0;
        expected.hangup_url = expected.answer_url.replace("/unused", "/hangup");
    })
    .await;
    for path in ["/status", "/agent"] {
        world.app.xml(path, "");
    }
    world.app.xml("/unused", document.replace("APP", &world.app.base));
    world
}

fn comes(from: &str, say_hz: f64, keys: &str) -> CallScript {
    CallScript {
        from: from.to_owned(),
        say: if say_hz > 0.0 { tone(say_hz, 30) } else { Vec::new() },
        keys: caller::parse_keys(keys).expect("keys"),
        record: true,
        hangup: HangupRule::Never,
        ..CallScript::default()
    }
}

fn digits_received(events: &[CallEvent]) -> String {
    let digit = |event: &CallEvent| match event.kind {
        CallEventKind::DigitHeard { digit } => Some(digit),
        _ => None,
    };
    events.iter().filter_map(digit).collect()
}

impl World {
    async fn joined(&self, from: &str) -> String {
        let is_it = |seen: &crate::support::app::ReceivedRequest| {
            let name = seen.param("EventName");
            let joined = name == "ParticipantJoin" || seen.param("ConferenceAction") == "enter";
            joined && [seen.param("From"), seen.param("To")].contains(&from)
        };
        let seen = self.app.wait_where("/status", is_it).await;
        seen.params
            .get("MemberID")
            .or(seen.params.get("ConferenceMemberID"))
            .expect("an id")
            .clone()
    }

    /// Waits until this event has been reported `times` times.
    async fn until_events(&self, event: &str, times: usize) {
        let seen = |_: &crate::support::app::ReceivedRequest| {
            let all = self.app.requests();
            all.iter().filter(|seen| seen.param("EventName") == event).count() >= times
        };
        self.app.wait_where("/status", seen).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn digits_are_relayed_to_whatsapp_users_on_request() {
    for (element, relayed) in [
        (
            "MultiPartyCall role=\"agent\" relayDTMFInputs=\"true\" statusCallbackUrl=\"APP/status\"",
            "42",
        ),
        ("MultiPartyCall role=\"agent\" statusCallbackUrl=\"APP/status\"", ""),
        ("Conference callbackUrl=\"APP/status\"", "42"),
        ("Conference relayDTMF=\"false\" callbackUrl=\"APP/status\"", ""),
    ] {
        let name = element.split(' ').next().expect("a name");
        let world = meeting(&format!("<Response><{element}>Desk</{name}></Response>")).await;
        let hears = world.sim.place_call(comes(ASHA, 0.0, ""));
        world.joined(ASHA).await;
        let presses = world.sim.place_call(comes(RAVI, 0.0, ""));
        world.joined(RAVI).await;
        presses.control().press(caller::parse_keys("4w2w").expect("keys")).await;
        // The audio after the digits is not sent before them.
        world.node.until_metric("offhook_calls_active", &[("direction", "inbound")], 2.0).await;
        world.until_talked(4).await;
        let room =
            if name == "Conference" { "Conference/Desk/" } else { "MultiPartyCall/name_Desk/" };
        assert_eq!(world.rest("DELETE", room, &[], String::new()).await.status, 204);
        let (there, here) = tokio::join!(hears.all(), presses.all());
        assert_eq!(
            (digits_received(&there).as_str(), digits_received(&here).as_str()),
            (relayed, ""),
            "{element}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_added_participant_confirms_by_a_key_while_members_hear_ringing() {
    let world = meeting(
        "<Response><MultiPartyCall role=\"customer\" enterSound=\"none\" exitSound=\"none\" stayAlone=\"true\" \
         statusCallbackUrl=\"APP/status\">Desk</MultiPartyCall></Response>",
    )
    .await;
    let sounds = tones().await;
    world.app.xml("/ringing", format!("<Response><Play>{sounds}/tone/600/1000</Play></Response>"));
    world.app.xml("/confirm", format!("<Response><Play>{sounds}/tone/1500/1000</Play></Response>"));
    let customer = world.sim.place_call(comes(ASHA, 700.0, ""));
    world.joined(ASHA).await;
    let body = json!({
        "role": "agent", "from": NUMBER, "to": USER, "enter_sound": "none", "exit_sound": "none",
        "status_callback_url": world.app.url("/status"), "call_status_callback_url": world.app.url("/agent"),
        "status_callback_events": "participant-state-changes,add-participant-api-events",
        "confirm_key": "1", "confirm_key_sound_url": world.app.url("/confirm"), "dial_music": world.app.url("/ringing"),
    });
    let path = "name_Desk/Participant/";
    for (what, wrong) in [
        ("confirm_key", json!({"confirm_key": "12"})),
        ("confirm_key", json!({"confirm_key": "A"})),
        ("confirm_key_sound_url", json!({"confirm_key_sound_url": "ftp://x"})),
        ("confirm_key_sound_method", json!({"confirm_key_sound_method": "PUT"})),
        ("dial_music", json!({"dial_music": "loud"})),
    ] {
        let mut bad = body.clone();
        bad.as_object_mut()
            .expect("an object")
            .extend(wrong.as_object().expect("an object").clone());
        let answer = world.mpc("POST", path, &bad).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(
            answer.json()["error"].as_str().is_some_and(|why| why.starts_with(what)),
            "{}",
            answer.text()
        );
    }

    // The phone rings and the callee hangs up without pressing the key.
    let rings = |acts_after_ms| CalleeBehaviour {
        action: CalleeAction::Accept,
        order: EventOrder::ConnectFirst,
        rings_after: Duration::from_millis(50),
        acts_after: Duration::from_millis(acts_after_ms),
    };
    let hangup = HangupRule::AfterAnswer(Duration::from_millis(3_000));
    let script = CallScript {
        callee: rings(2_500),
        hangup,
        record: true,
        say: tone(1_100.0, 10),
        ..comes(USER, 0.0, "2")
    };
    let leaves = world.sim.expect_call(script);
    assert_eq!(world.mpc("POST", path, &body).await.status, 201);
    let failed = world.status_event("AddParticipantFailed").await;
    assert_eq!(failed.param("ParticipantRole"), "agent");
    let leaves = leaves.all().await;
    let confirm = world.app.wait("/confirm").await;
    assert_eq!(
        (confirm.method.as_str(), confirm.param("Event"), confirm.param("To")),
        ("GET", "DialConfirm", USER)
    );
    assert_eq!(world.app.wait("/ringing").await.param("Event"), "DialMusic");
    assert!(
        in_order(&received_sounds(&leaves), &[only(1_500)]),
        "it hears what it is to confirm: {:?}",
        received_sounds(&leaves)
    );
    assert_eq!(heard_ms(&leaves, 700.0), 0, "and nobody of the room");
    world.app.wait_where("/agent", |seen| seen.param("Event") == "Hangup").await;

    // The second time the callee presses the key, and music plays during ringing.
    let mut body = body;
    body["dial_music"] = "Real".into();
    let script =
        CallScript { callee: rings(2_500), say: tone(1_100.0, 10), ..comes(USER, 0.0, "wwww1") };
    let stays = world.sim.expect_call(script);
    assert_eq!(world.mpc("POST", path, &body).await.status, 201);
    world.joined(USER).await;
    world.until_talked(2).await;
    world.mpc("DELETE", "name_Desk/", &Value::Null).await;
    let (there, here) = tokio::join!(stays.all(), customer.all());
    assert!(heard_ms(&there, 700.0) > 1_000, "the agent hears: {} ms", heard_ms(&there, 700.0));
    assert!(
        heard_ms(&here, 600.0) > 900,
        "the customer hears it ring: {} ms",
        heard_ms(&here, 600.0)
    );
    assert!(
        (900..2_100).contains(&heard_ms(&here, 425.0)),
        "and then a tone: {} ms",
        heard_ms(&here, 425.0)
    );
    assert!(
        heard_ms(&here, 1_100.0) > 1_000,
        "the customer hears: {} ms",
        heard_ms(&here, 1_100.0)
    );
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_participant_waits_while_others_are_called() {
    let world = meeting("<Response><Hangup/></Response>").await;
    let first = world.sim.expect_call(comes(USER, 0.0, ""));
    let second = world.sim.expect_call(CallScript {
        from: OTHER.to_owned(),
        ..user(CalleeAction::Accept, EventOrder::ConnectFirst)
    });
    let body = json!({
        "role": "agent", "from": NUMBER, "to": format!("{USER}<{OTHER}<{RAVI}"), "delay_dial": "3<0<120",
        "status_callback_url": world.app.url("/status"), "stay_alone": true,
        "status_callback_events": "participant-state-changes,add-participant-api-events",
        "call_status_callback_url": world.app.url("/agent"),
    });
    let added = world.mpc("POST", "name_Desk/Participant/", &body).await;
    assert_eq!(added.status, 201, "{}", added.text());
    let calls: Vec<String> = (0..3)
        .map(|n| added.json()["calls"][n]["call_uuid"].as_str().expect("a UUID").to_owned())
        .collect();
    let queued = async || {
        let list = world.rest("GET", "Call/?status=queued", &[], String::new()).await.json();
        let list = list["calls"].as_array().expect("a list").iter();
        list.map(|call| call.as_str().expect("a UUID").to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    let waits = |of: &[usize]| of.iter().map(|n| calls[*n].clone()).collect();
    // The queue's earlier entries do not delay a participant that is due.
    world.joined(OTHER).await;
    assert_eq!(queued().await, waits(&[0, 2]));
    world.joined(USER).await;
    assert_eq!(queued().await, waits(&[2]));
    let initiated = |call: &str| {
        let is_it = |seen: &crate::support::app::ReceivedRequest| {
            (seen.param("EventName"), seen.param("ParticipantCallUUID"))
                == ("AddParticipantInitiated", call)
        };
        let at = world.app.requests().into_iter().find(is_it).expect("it was called");
        at.param("EventTimestamp").to_owned()
    };
    let secs = |at: &str| {
        let at: Vec<f64> =
            at[11..].split(':').map(|part| part.parse().expect("a number")).collect();
        at[0] * 3_600.0 + at[1] * 60.0 + at[2]
    };
    let later = (secs(&initiated(&calls[0])) - secs(&initiated(&calls[1]))).rem_euclid(86_400.0);
    assert!((2.5..6.0).contains(&later), "{later} s later");

    // A waiting participant can be cancelled, which is reported.
    let cancelled =
        world.rest("DELETE", &format!("Request/{}/", calls[2]), &[], String::new()).await;
    assert_eq!(cancelled.status, 204, "{}", cancelled.text());
    let failed = world.status_event("AddParticipantFailed").await;
    assert_eq!(failed.param("ParticipantCallUUID"), calls[2]);
    assert!(queued().await.is_empty());
    world.mpc("DELETE", "name_Desk/", &Value::Null).await;
    tokio::join!(first.all(), second.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_playback_replaces_the_music_for_waiting_and_held_members() {
    let sounds = tones().await;
    let world = meeting(
        "<Response><MultiPartyCall role=\"customer\" startMpcOnEnter=\"false\" enterSound=\"none\" exitSound=\"none\" \
         stayAlone=\"true\" waitMusicUrl=\"APP/wait\" customerHoldMusicUrl=\"APP/hold\" statusCallbackUrl=\"APP/status\" \
         statusCallbackEvents=\"participant-state-changes,participant-audio-events\">Desk</MultiPartyCall></Response>",
    )
    .await;
    world.app.xml(
        "/wait",
        format!("<Response><Play loop=\"0\">{sounds}/tone/300/2000</Play></Response>"),
    );
    world.app.xml(
        "/hold",
        format!("<Response><Play loop=\"0\">{sounds}/tone/600/2000</Play></Response>"),
    );
    let customer = world.sim.place_call(comes(ASHA, 440.0, ""));
    let member = world.joined(ASHA).await;
    let play = |hz: u32| json!({"url": format!("{sounds}/tone/{hz}/1000")});
    let path = format!("name_Desk/Member/{member}/Play/");
    world.app.wait("/wait").await;
    world.until_talked(2).await;
    let played = world.mpc("POST", &path, &play(1_000)).await;
    assert_eq!(
        (played.status, &played.json()["mpcMemberId"]),
        (202, &json!([member])),
        "{}",
        played.text()
    );
    world.until_events("ParticipantAudioStop", 1).await;
    world.until_talked(1).await;

    let hold = world
        .mpc("POST", &format!("name_Desk/Participant/{member}/"), &json!({"hold": true}))
        .await;
    assert_eq!(hold.status, 202, "{}", hold.text());
    world.app.wait("/hold").await;
    world.until_talked(2).await;
    // Playback to all members, stopped before its end.
    let long = json!({"url": format!("{sounds}/tone/1500/20000")});
    assert_eq!(world.mpc("POST", "name_Desk/Member/all/Play/", &long).await.status, 202);
    world.until_events("ParticipantAudioStart", 2).await;
    world.until_talked(1).await;
    assert_eq!(world.mpc("DELETE", "name_Desk/Member/all/Play/", &Value::Null).await.status, 204);
    world.until_events("ParticipantAudioStop", 2).await;
    world.until_talked(1).await;
    world.mpc("DELETE", "name_Desk/", &Value::Null).await;
    let events = customer.all().await;
    let received = received_sounds(&events);
    let expected = [300, 1_000, 300, 600, 1_500, 600].map(only);
    assert!(in_order(&received, &expected), "{received:#?}");
    assert_eq!(heard_ms(&events, 440.0), 0, "nobody hears himself");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_behind_a_websocket_hears_and_speaks_in_the_room() {
    use base64::Engine as _;
    let mut server = BotServer::start().await;
    let world = world(|expected, _| expected.accept_wait_ms = 0).await;
    for path in ["/status", "/stream", "/left"] {
        world.app.xml(path, "<Response/>");
    }
    let (base, url) = (world.app.base.clone(), server.url.clone());
    world.app.route("/unused", move |seen| {
        let how = match seen.param("From") {
            RAVI => format!(
                "role=\"ai-agent\" aiAgentStreamServiceUrl=\"{url}\" aiAgentStreamContentType=\"audio/x-l16;rate=16000\" \
                 aiAgentStreamStatusCallbackUrl=\"{base}/stream\" aiAgentStreamExtraHeaders=\"user=42\" onExitActionUrl=\"{base}/left\""
            ),
            _ => "role=\"customer\" waitForAgent=\"true\"".to_owned(),
        };
        let call = format!(
            "<MultiPartyCall {how} stayAlone=\"true\" enterSound=\"none\" exitSound=\"none\" \
             statusCallbackUrl=\"{base}/status\">Desk</MultiPartyCall>"
        );
        (200, format!("<Response>{call}</Response>"))
    });
    let customer = world.sim.place_call(comes(ASHA, 600.0, ""));
    world.joined(ASHA).await;
    // The call that connects the agent is silent.
    let brings = world.sim.place_call(comes(RAVI, 0.0, ""));
    let member = world.joined(RAVI).await;
    let mut bot = server.accept().await;
    let start = bot.receive("start").await;
    assert_eq!(
        (&start["start"]["tracks"], &start["extra_headers"]),
        (&json!(["inbound"]), &json!("user=42"))
    );
    let began = world.app.wait_where("/stream", |seen| seen.param("Event") == "StartStream").await;
    assert_eq!(
        (began.param("bidirectional"), began.param("StreamID")),
        ("true", start["start"]["streamId"].as_str().unwrap())
    );

    // The agent hears the customer.
    let mut loudest: f64 = 0.0;
    for _ in 0..300 {
        let media = bot.receive("media").await;
        let bytes = media["media"]["payload"].as_str().expect("a payload");
        let bytes = base64::engine::general_purpose::STANDARD.decode(bytes).expect("Base64");
        let pcm: Vec<i16> =
            bytes.chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect();
        loudest = loudest.max(level(&pcm, 600));
        if loudest > 0.08 {
            break;
        }
    }
    assert!(loudest > 0.08, "{loudest}");
    // Both hear the playback.
    let pcm = |hz: f64, ms: u32| -> Vec<i16> {
        let wave = |n: u32| {
            ((f64::from(n) * hz * std::f64::consts::TAU / 16_000.0).sin() * 8_000.0) as i16
        };
        (0..ms * 16).map(wave).collect()
    };
    bot.play(16_000, &pcm(1_000.0, 1_500)).await;
    bot.say(json!({"event": "checkpoint", "name": "said"})).await;
    assert_eq!(bot.receive("playedStream").await["name"], "said");
    // Actions on the participant apply to its agent.
    let muted = world
        .mpc("POST", &format!("name_Desk/Participant/{member}/"), &json!({"mute": true}))
        .await;
    assert_eq!(muted.status, 202, "{}", muted.text());
    world.status_event("ParticipantMute").await;
    bot.play(16_000, &pcm(1_500.0, 1_000)).await;
    bot.say(json!({"event": "checkpoint", "name": "unheard"})).await;
    assert_eq!(bot.receive("playedStream").await["name"], "unheard");
    brings.control().press(caller::parse_keys("7").expect("keys")).await;
    assert_eq!(bot.receive("dtmf").await["dtmf"]["digit"], "7");

    // When the agent leaves, so does its participant, and the customer waits again.
    bot.close().await;
    let left = world.app.wait("/left").await;
    assert_eq!((left.param("MemberID"), left.param("ParticipantRole")), (&*member, "ai-agent"));
    world.app.wait_where("/stream", |seen| seen.param("Event") == "StopStream").await;
    let brings = brings.all().await;
    world.mpc("DELETE", "name_Desk/", &Value::Null).await;
    let customer = customer.all().await;
    let (there, here) = (received_sounds(&customer), received_sounds(&brings));
    assert!(in_order(&there, &[only(1_000)]) && !there.contains(&only(1_500)), "{there:#?}");
    assert!(!there.contains(&only(600)), "nobody hears himself: {there:#?}");
    let with_the_customer = super::control::Sound::Tones(vec![600, 1_000]);
    assert!(in_order(&here, &[with_the_customer, only(600)]), "{here:#?}");
    world.node.until_metric("offhook_streams_active", &[], 0.0).await;
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn participants_of_an_ended_multi_party_call_are_not_called() {
    for rest in [true, false] {
        let world = meeting(
            "<Response><MultiPartyCall role=\"customer\" enterSound=\"none\" exitSound=\"none\" stayAlone=\"true\" \
             statusCallbackUrl=\"APP/status\">Desk</MultiPartyCall></Response>",
        )
        .await;
        let customer = world.sim.place_call(comes(ASHA, 700.0, ""));
        world.joined(ASHA).await;
        let rings = world.sim.expect_call(user(CalleeAction::Ignore, EventOrder::ConnectFirst));
        let body = |to: &str, delay: u32| {
            json!({
                "role": "agent", "from": NUMBER, "to": to, "ring_timeout": 120, "delay_dial": delay,
                "status_callback_url": world.app.url("/status"), "call_status_callback_url": world.app.url("/agent"),
                "status_callback_events": "add-participant-api-events",
            })
        };
        for (to, delay) in [(USER, 0), (OTHER, 6)] {
            let added = world.mpc("POST", "name_Desk/Participant/", &body(to, delay)).await;
            assert_eq!(added.status, 201, "{}", added.text());
        }
        world.status_event("AddParticipantRinging").await;
        if rest {
            assert_eq!(world.mpc("DELETE", "name_Desk/", &Value::Null).await.status, 204);
        } else {
            customer.control().hangup().await;
        }
        // The ringing phone stops, and the scheduled call is not placed.
        let ended = tokio::time::timeout(Duration::from_secs(20), rings.all())
            .await
            .expect("it rings no longer");
        assert!(
            ended.iter().all(|event| !matches!(event.kind, CallEventKind::Answered)),
            "{ended:#?}"
        );
        world.until_events("AddParticipantFailed", 2).await;
        let source = if rest { "API Request" } else { "Plivo" };
        for (to, source) in [(USER, source), (OTHER, "Plivo")] {
            let is_its = |seen: &crate::support::app::ReceivedRequest| {
                seen.param("Event") == "Hangup" && seen.param("To") == to
            };
            let hangup = world.app.wait_where("/agent", is_its).await;
            let params = [
                "HangupCauseName",
                "HangupCauseCode",
                "HangupSource",
                "CallStatus",
                "BillDuration",
            ];
            let params = params.map(|name| hangup.param(name));
            assert_eq!(params, ["Multiparty Call Ended", "4020", source, "failed", "0"], "{to}");
        }
        let rang = world
            .app
            .requests()
            .iter()
            .filter(|seen| seen.param("EventName") == "AddParticipantRinging")
            .count();
        assert_eq!(rang, 1);
        world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
        customer.all().await;
    }
}
