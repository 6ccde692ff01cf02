//! Multi-party calls through the whole binary with real media: a customer waits, REST adds an
//! agent, they hear each other, and REST ends the call.

use serde_json::{Value, json};
use sim::{CallScript, CalleeAction, EventOrder, HangupRule};

use super::crash::event_id;
use super::dial::{heard_ms, tone};
use super::outbound::{USER, World, user, world};
use crate::support::app::ReceivedRequest;
use crate::support::http::{self, Answer};
use crate::support::node::NUMBER;

const CUSTOMER: &str = "919812345678";
const CUSTOMER_HZ: f64 = 700.0;
const AGENT_HZ: f64 = 1_100.0;

impl World {
    pub(super) async fn mpc(&self, method: &str, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.rest(method, &format!("MultiPartyCall/{path}"), &json, body.to_string()).await
    }

    /// Waits for `seconds` of packets from callers who all talk.
    pub(super) async fn until_talked(&self, seconds: u32) {
        let packets =
            async || self.node.metric("offhook_media_packets_total", &[("direction", "in")]).await;
        let live = self.node.metric("offhook_calls_active", &[]).await.max(1.0);
        let enough = packets().await + live * 50.0 * f64::from(seconds);
        let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
        let talks = async {
            while packets().await < enough {
                every.tick().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(40), talks).await.expect("they talk");
    }

    pub(super) async fn status_event(&self, name: &str) -> ReceivedRequest {
        self.app.wait_where("/status", |seen| seen.param("EventName") == name).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_waits_an_agent_is_added_and_rest_ends_the_call() {
    let world = world(|node_config, _| {
        node_config.accept_wait_ms = 0;
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/hangup");
    })
    .await;
    for path in ["/status", "/agent"] {
        world.app.xml(path, "");
    }
    let status = world.app.url("/status");
    world.app.xml(
        "/unused",
        format!(
            "<Response><MultiPartyCall role=\"customer\" startMpcOnEnter=\"false\" enterSound=\"none\" exitSound=\"none\" \
             statusCallbackUrl=\"{status}\">Care &amp; more</MultiPartyCall></Response>"
        ),
    );
    let customer = CallScript {
        from: CUSTOMER.to_owned(),
        say: tone(CUSTOMER_HZ, 20),
        record: true,
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let customer = world.sim.place_call(customer);
    let joined = world.status_event("ParticipantJoin").await;
    assert_eq!(
        (joined.param("ParticipantRole"), joined.param("MPCName")),
        ("customer", "Care & more")
    );
    assert!(
        world.app.requests().iter().all(|seen| seen.param("EventName") != "MPCStart"),
        "it waits"
    );

    let (null, at) = (Value::Null, "name_Care%20%26%20more/");
    let mpc = world.mpc("GET", at, &null).await.json();
    assert_eq!(
        (&mpc["status"], &mpc["friendly_name"]),
        (&"Initialized".into(), &"Care & more".into()),
        "{mpc}"
    );
    assert_eq!(mpc["mpc_uuid"], joined.param("MPCUUID"));

    let agent = world.sim.expect_call(CallScript {
        say: tone(AGENT_HZ, 20),
        record: true,
        ..user(CalleeAction::Accept, EventOrder::ConnectFirst)
    });
    let body = json!({
        "role": "agent", "from": NUMBER, "to": USER, "enter_sound": "none", "exit_sound": "none",
        "status_callback_url": status, "call_status_callback_url": world.app.url("/agent"),
        "status_callback_events": "mpc-state-changes,participant-state-changes,add-participant-api-events",
        "ring_timeout": "45", "delay_dial": 1, "send_digits": "12@100", "create_mpc_with_single_participant": false,
    });
    for (what, wrong) in [
        ("role", json!({"role": "boss"})),
        ("role", json!({"role": null})),
        ("from", json!({"from": "x"})),
        ("ring_timeout", json!({"ring_timeout": "30<45"})),
        ("delay_dial", json!({"delay_dial": 121})),
        ("send_digits", json!({"send_digits": "x"})),
    ] {
        let mut bad = body.clone();
        bad.as_object_mut()
            .expect("an object")
            .extend(wrong.as_object().expect("an object").clone());
        let answer = world.mpc("POST", &format!("{at}Participant/"), &bad).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(
            answer.json()["error"].as_str().is_some_and(|why| why.starts_with(what)),
            "{}",
            answer.text()
        );
    }
    let added = world.mpc("POST", &format!("{at}Participant/"), &body).await;
    assert_eq!(added.status, 201, "{}", added.text());
    let added = added.json();
    assert_eq!(
        (&added["calls"][0]["to"], &added["calls"][0]["from"]),
        (&USER.into(), &NUMBER.into()),
        "{added}"
    );
    world.status_event("MPCStart").await;
    for event in ["AddParticipantInitiated", "AddParticipantRinging", "AddParticipantAnswered"] {
        let callback = world.status_event(event).await;
        assert_eq!(
            callback.param("ParticipantCallUUID"),
            added["calls"][0]["call_uuid"],
            "{event}"
        );
        assert_eq!(
            (callback.param("ParticipantRole"), callback.param("MPCName")),
            ("agent", "Care & more"),
            "{event}"
        );
        assert_eq!(
            (callback.param("MPCUUID"), callback.param("MemberID")),
            (joined.param("MPCUUID"), ""),
            "{event}"
        );
    }
    assert!(
        world.app.requests().iter().all(|seen| seen.param("EventName") != "AddParticipantFailed")
    );

    let members = world.mpc("GET", &format!("{at}Participant/"), &null).await.json();
    assert_eq!(members["meta"]["total_count"], 2, "{members}");
    let agent_id = members["objects"][1]["member_id"].as_str().expect("an id").to_owned();
    assert_eq!(
        (&members["objects"][1]["role"], &members["objects"][0]["mute"]),
        (&"agent".into(), &false.into())
    );
    assert_eq!(members["objects"][1]["call_uuid"], added["calls"][0]["call_uuid"]);
    let held =
        world.mpc("POST", &format!("{at}Participant/{agent_id}/"), &json!({"hold": true})).await;
    assert_eq!((held.status, &held.json()["hold"]), (202, &true.into()), "{}", held.text());
    assert_eq!(world.status_event("ParticipantHold").await.param("MemberID"), agent_id);
    world.mpc("POST", &format!("{at}Participant/{agent_id}/"), &json!({"hold": false})).await;
    world.status_event("ParticipantUnhold").await;
    let played = world
        .mpc("POST", &format!("{at}Member/{agent_id}/Speak/"), &json!({"text": "Please be brief."}))
        .await;
    assert_eq!(
        (played.status, &played.json()["mpcName"]),
        (202, &"Care & more".into()),
        "{}",
        played.text()
    );
    for path in ["name_Other/", "uuid_nonsense/", "Care/"] {
        assert_eq!(world.mpc("GET", path, &null).await.status, 404, "{path}");
    }
    let talk =
        tokio::time::timeout(std::time::Duration::from_secs(3), world.status_event("MPCEnd")).await;
    assert!(talk.is_err(), "nothing ends it but REST");

    let stopped = world.mpc("DELETE", at, &null).await;
    assert_eq!((stopped.status, stopped.text()), (204, String::new()));
    let (there, here) = tokio::join!(agent.all(), customer.all());
    assert!(
        heard_ms(&there, CUSTOMER_HZ) > 1_500,
        "the agent hears: {} ms",
        heard_ms(&there, CUSTOMER_HZ)
    );
    assert!(
        heard_ms(&here, AGENT_HZ) > 1_500,
        "the customer hears: {} ms",
        heard_ms(&here, AGENT_HZ)
    );
    assert_eq!(
        (heard_ms(&there, AGENT_HZ), heard_ms(&here, CUSTOMER_HZ)),
        (0, 0),
        "nobody hears himself"
    );

    let hangup = world.app.wait("/hangup").await;
    assert_eq!(
        (hangup.param("HangupCauseCode"), hangup.param("HangupSource")),
        ("4020", "API Request")
    );
    let agents = world.app.wait_where("/agent", |seen| seen.param("Event") == "Hangup").await;
    assert_eq!(agents.param("HangupCauseName"), "Multiparty Call Ended");
    let end = world.status_event("MPCEnd").await;
    assert!(end.param("MPCDuration").parse::<u64>().is_ok_and(|secs| secs >= 2), "{end:?}");
    let over = world.mpc("GET", &format!("uuid_{}/", end.param("MPCUUID")), &null).await.json();
    assert_eq!(
        (&over["status"], &over["termination_cause_code"]),
        (&"Ended".into(), &4_020.into()),
        "{over}"
    );
    let ended = world.mpc("GET", "?status=ended", &null).await.json();
    assert_eq!(
        (&ended["meta"]["total_count"], &ended["objects"][0]["status"]),
        (&1.into(), &"ended".into()),
        "{ended}"
    );
    assert_eq!(over["stay_alone"], false, "{over}");
    let were = world
        .mpc("GET", &format!("uuid_{}/Participant/", end.param("MPCUUID")), &null)
        .await
        .json();
    assert_eq!(were["meta"]["total_count"], 2, "{were}");
    for was in were["objects"].as_array().expect("a list") {
        assert_eq!(was["exit_cause"], "Multiparty Call Ended", "{was}");
        assert!(
            was["exit_time"]
                .as_str()
                .is_some_and(|at| at > was["join_time"].as_str().expect("a time")),
            "{was}"
        );
    }
    let one = world
        .mpc("GET", &format!("uuid_{}/Participant/{agent_id}/", end.param("MPCUUID")), &null)
        .await
        .json();
    assert_eq!((&one["member_id"], &one["role"]), (&agent_id.into(), &"agent".into()), "{one}");
    for (filter, count) in [
        ("creation_time__gt=2020-01-01", 1),
        ("creation_time__lt=2020-01-01", 0),
        ("end_time__gte=2020-01-01", 1),
    ] {
        let found = world.mpc("GET", &format!("?{filter}"), &null).await.json();
        assert_eq!(found["meta"]["total_count"], count, "{filter}: {found}");
    }
    assert_eq!(world.mpc("GET", "?creation_time__gt=soon", &null).await.status, 400);
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_records_the_call_and_one_participant_with_pauses() {
    use super::record::{assert_finished, channels, tone_ms};
    let world = world(|node_config, _| node_config.accept_wait_ms = 0).await;
    for path in ["/status", "/filed", "/track"] {
        world.app.xml(path, "<Response/>");
    }
    let status = world.app.url("/status");
    world.app.route("/unused", move |seen| {
        let role = if seen.param("From") == CUSTOMER { "customer" } else { "agent" };
        (
            200,
            format!(
                "<Response><MultiPartyCall role=\"{role}\" stayAlone=\"true\" enterSound=\"none\" exitSound=\"none\" \
                 statusCallbackUrl=\"{status}\">Desk</MultiPartyCall></Response>"
            ),
        )
    });
    let says = |from: &str, hz| CallScript {
        from: from.to_owned(),
        say: tone(hz, 40),
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let null = json!({});
    assert_eq!(world.mpc("POST", "name_Desk/Record/", &null).await.status, 404, "nobody is in");
    let customer = world.sim.place_call(says(CUSTOMER, CUSTOMER_HZ));
    let joined = world.status_event("ParticipantJoin").await;
    let agent = world.sim.place_call(says("919811111111", AGENT_HZ));
    world.app.wait_where("/status", |seen| seen.param("ParticipantRole") == "agent").await;
    let one = format!("name_Desk/Participant/{}/Record/", joined.param("MemberID"));
    for path in ["name_Desk/Record/", one.as_str()] {
        assert_eq!(
            world.mpc("DELETE", path, &null).await.status,
            404,
            "{path}: it is not recorded"
        );
        assert_eq!(world.mpc("POST", &format!("{path}Pause/"), &null).await.status, 404, "{path}");
        assert_eq!(
            world.mpc("POST", path, &json!({"file_format": "ogg"})).await.status,
            400,
            "{path}"
        );
    }
    assert_eq!(world.mpc("POST", "name_Desk/Participant/77/Record/", &null).await.status, 404);

    let order = |to| json!({"file_format": "wav", "recording_callback_url": world.app.url(to)});
    let all = world.mpc("POST", "name_Desk/Record/", &order("/filed")).await;
    assert_eq!(
        (all.status, &all.json()["message"]),
        (202, &"MPC recording started".into()),
        "{}",
        all.text()
    );
    let track = world.mpc("POST", &one, &order("/track")).await;
    assert_eq!(track.status, 202, "{}", track.text());
    for path in ["name_Desk/Record/", one.as_str()] {
        assert_eq!(world.mpc("POST", path, &order("/filed")).await.status, 409, "{path}");
    }
    let shown = world.mpc("GET", "name_Desk/", &null).await.json();
    assert_eq!(shown["recording"], all.json()["recording_url"], "{shown}");
    // Two seconds of both, two of the customer alone, two of both.
    world.until_talked(2).await;
    assert_eq!(world.mpc("POST", "name_Desk/Record/Pause/", &null).await.status, 204);
    world.until_talked(3).await;
    assert_eq!(world.mpc("POST", "name_Desk/Record/Resume/", &null).await.status, 204);
    world.until_talked(2).await;
    assert_eq!(world.mpc("DELETE", "name_Desk/Record/", &null).await.status, 204);
    assert_eq!(world.mpc("DELETE", &one, &null).await.status, 204);

    let (all_filed, own_filed) = (world.app.wait("/filed").await, world.app.wait("/track").await);
    let (all_ms, own_ms) =
        (assert_finished(&all_filed, "Stopped"), assert_finished(&own_filed, "Stopped"));
    assert!(own_ms > all_ms + 1_500 && all_ms > 2_000, "{all_ms} ms of all, {own_ms} ms of one");
    for filed in [&all_filed, &own_filed] {
        assert_eq!(
            (filed.param("MPCName"), filed.param("MPCUUID")),
            ("Desk", joined.param("MPCUUID"))
        );
    }
    assert_eq!(own_filed.param("RecordUrl"), track.json()["recording_url"]);
    let own = channels(&http::get(own_filed.param("RecordUrl")).await.body);
    assert_eq!(own.len(), 1);
    assert!(tone_ms(&own[0], CUSTOMER_HZ) + 1_000 > own_ms, "the customer, and nobody else");
    let both = channels(&http::get(all_filed.param("RecordUrl")).await.body);
    assert!(tone_ms(&both[0], CUSTOMER_HZ) < all_ms / 2, "two at once are no single tone");
    world.mpc("DELETE", "name_Desk/", &null).await;
    tokio::join!(customer.all(), agent.all());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_participants_track_is_recorded_on_request() {
    use super::record::{assert_finished, channels, tone_ms};
    let world = world(|node_config, _| node_config.accept_wait_ms = 0).await;
    world.app.xml("/filed", "<Response/>");
    world.app.xml(
        "/unused",
        format!(
            "<Response><MultiPartyCall role=\"agent\" record=\"true\" recordParticipantTrack=\"true\" recordFileFormat=\"wav\" \
             stayAlone=\"true\" enterSound=\"none\" exitSound=\"none\" recordingCallbackUrl=\"{}\">Desk</MultiPartyCall></Response>",
            world.app.url("/filed")
        ),
    );
    let script =
        CallScript { say: tone(AGENT_HZ, 20), hangup: HangupRule::Never, ..CallScript::default() };
    let agent = world.sim.place_call(script);
    world.until_talked(3).await;
    world.mpc("DELETE", "name_Desk/", &Value::Null).await;
    agent.all().await;
    let first = world.app.wait("/filed").await;
    let second = world
        .app
        .wait_where("/filed", |seen| seen.param("RecordingID") != first.param("RecordingID"))
        .await;
    for filed in [first, second] {
        let ms = assert_finished(&filed, "HungUp");
        let pcm = channels(&http::get(filed.param("RecordUrl")).await.body).remove(0);
        assert!(tone_ms(&pcm, AGENT_HZ) + 1_500 > ms && ms > 1_000, "{ms} ms");
        assert_eq!(filed.param("MPCName"), "Desk");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_a_kill_ends_the_call_with_its_participants_and_callbacks() {
    let mut world = world(|node_config, _| {
        node_config.accept_wait_ms = 0;
        node_config.extra = "[cluster]\nnode_id = \"mpc-crash\"\n".to_owned();
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/status");
    })
    .await;
    world.app.xml("/status", "");
    let status = world.app.url("/status");
    world.app.xml(
        "/unused",
        format!(
            "<Response><MultiPartyCall role=\"agent\" stayAlone=\"true\" enterSound=\"none\" exitSound=\"none\" \
             statusCallbackUrl=\"{status}\">Desk</MultiPartyCall></Response>"
        ),
    );
    let script = |from: &str| CallScript {
        from: from.to_owned(),
        say: tone(AGENT_HZ, 20),
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let first = world.sim.place_call(script(CUSTOMER));
    let joined = world.status_event("ParticipantJoin").await;
    world.status_event("MPCStart").await;
    let second = world.sim.place_call(script("919811111111"));
    let both = |seen: &ReceivedRequest| {
        seen.param("EventName") == "ParticipantJoin"
            && seen.param("MemberID") != joined.param("MemberID")
    };
    world.app.wait_where("/status", both).await;
    let null = json!({});
    let at = format!("name_Desk/Participant/{}/", joined.param("MemberID"));
    assert_eq!(world.mpc("POST", &at, &json!({"mute": true})).await.status, 202);
    world.status_event("ParticipantMute").await;

    // Everything reported to the application has been stored.
    world.node.kill();
    world.node.start_again().await;
    drop((first, second));
    for _ in 0..2 {
        assert_eq!(
            world.mpc("GET", "?status=active", &null).await.json()["meta"]["total_count"],
            0
        );
        let one = format!("uuid_{}/", joined.param("MPCUUID"));
        let over = world.mpc("GET", &one, &null).await.json();
        assert_eq!(
            (
                &over["status"],
                &over["termination_cause"],
                &over["termination_cause_code"],
                &over["friendly_name"]
            ),
            (&"Ended".into(), &"Internal Error".into(), &5_010.into(), &"Desk".into()),
            "{over}"
        );
        assert!(
            over["start_time"].is_string()
                && over["end_time"].as_str() >= over["start_time"].as_str(),
            "{over}"
        );
        let were = world.mpc("GET", &format!("{one}Participant/"), &null).await.json();
        assert_eq!(were["meta"]["total_count"], 2, "{were}");
        for was in were["objects"].as_array().expect("a list") {
            assert_eq!(was["exit_cause"], "Internal Error", "{was}");
            assert_eq!(was["exit_time"], over["end_time"], "{was}");
        }
        assert_eq!(
            (&were["objects"][0]["mute"], &were["objects"][1]["mute"]),
            (&true.into(), &false.into())
        );
        for (code, count) in [("5010", 1), ("4020", 0)] {
            let found =
                world.mpc("GET", &format!("?termination_cause_code={code}"), &null).await.json();
            assert_eq!(found["meta"]["total_count"], count, "{code}: {found}");
        }
        let end = world.status_event("MPCEnd").await;
        let secs = over["duration"].as_u64().expect("seconds").to_string();
        assert_eq!(
            (end.param("MPCDuration"), end.param("MPCBilledDuration")),
            (&*secs, &*secs),
            "{over}"
        );
        // The hangup callbacks come last.
        for was in were["objects"].as_array().expect("a list") {
            let of_it = |seen: &ReceivedRequest| {
                seen.param("Event") == "Hangup" && was["call_uuid"] == seen.param("CallUUID")
            };
            world.app.wait_where("/status", of_it).await;
        }
        // The call is over after the restart.
        world.node.kill();
        world.node.start_again().await;
    }
    let mut events = Vec::new();
    let mut ids = std::collections::BTreeSet::new();
    for seen in world.app.requests() {
        let what = if seen.param("Event") == "Hangup" { "Hangup" } else { seen.param("EventName") };
        if ["ParticipantExit", "MPCEnd", "Hangup"].contains(&what) && ids.insert(event_id(&seen)) {
            events.push((what.to_owned(), seen.param("MemberID").to_owned()));
        }
    }
    let count = |what: &str| events.iter().filter(|(event, _)| event == what).count();
    assert_eq!(
        [count("ParticipantExit"), count("MPCEnd"), count("Hangup")],
        [2, 1, 2],
        "{events:?}"
    );
    let place = |what: &str| events.iter().rposition(|(event, _)| event == what);
    assert!(place("ParticipantExit") < place("MPCEnd"), "{events:?}");
}
