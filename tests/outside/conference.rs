//! Conferences through the whole binary with real media: WhatsApp users call, hear each other but
//! not themselves, and REST shows the room.

use std::time::Duration;

use serde_json::Value;
use sim::{CallEvent, CallEventKind, CallOutcome, CallScript, HangupRule};

use super::dial::{heard_ms, tone};
use super::outbound::{World, world};
use super::record::{assert_finished, channels, tone_ms};
use crate::support::app::ReceivedRequest;
use crate::support::http::{self, Answer};

const ASHA: &str = "919812345678";
const RAVI: &str = "919412341234";
const MEERA: &str = "919512341235";
const ASHA_HZ: f64 = 700.0;
const RAVI_HZ: f64 = 1_100.0;
const MEERA_HZ: f64 = 1_700.0;

/// Starts a node with a number that sends callers into a conference. The document may depend on the
/// caller.
async fn conference(
    document: impl Fn(&ReceivedRequest, &str) -> String + Send + Sync + 'static,
) -> World {
    let world = world(|node_config, _| {
        node_config.accept_wait_ms = 0;
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/hangup");
    })
    .await;
    for path in ["/events", "/left"] {
        world.app.xml(path, "<Response/>");
    }
    let base = world.app.base.clone();
    world.app.route("/unused", move |seen| (200, document(seen, &base)));
    world
}

fn says(from: &str, hz: f64, hangup: HangupRule) -> CallScript {
    let say = if hz > 0.0 { tone(hz, 12) } else { Vec::new() };
    CallScript { from: from.to_owned(), say, record: true, hangup, ..CallScript::default() }
}

fn after(seconds: u64) -> HangupRule {
    HangupRule::AfterAnswer(Duration::from_secs(seconds))
}

fn end(events: &[CallEvent]) -> &CallOutcome {
    match events.last().map(|e| &e.kind) {
        Some(CallEventKind::Ended(end)) => end,
        other => panic!("no end: {other:?}"),
    }
}

impl World {
    async fn conference(&self, method: &str, path: &str, body: &Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.rest(method, &format!("Conference/{path}"), &json, body.to_string()).await
    }

    async fn event(&self, action: &str, from: &str) -> ReceivedRequest {
        self.app
            .wait_where("/events", |e| {
                e.param("ConferenceAction") == action && e.param("From") == from
            })
            .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_share_a_room_and_rest_shows_mutes_and_kicks_them() {
    let world = conference(|_, app| {
        format!(
            "<Response><Conference callbackUrl=\"{app}/events\" action=\"{app}/left\" digitsMatch=\"5\">Team room</Conference>\
             </Response>"
        )
    })
    .await;
    let asha = world.sim.place_call(says(ASHA, ASHA_HZ, HangupRule::Never));
    let entered = world.event("enter", ASHA).await;
    let ravi = world.sim.place_call(says(RAVI, RAVI_HZ, after(6)));
    let other = world.event("enter", RAVI).await;
    for (seen, first) in [(&entered, "true"), (&other, "false")] {
        for (name, value) in [
            ("Event", "ConferenceEnter"),
            ("ConferenceName", "Team room"),
            ("ConferenceFirstMember", first),
            ("ConferenceLastMember", "false"),
            ("ConferenceUUID", entered.param("ConferenceUUID")),
            ("CallStatus", "in-progress"),
        ] {
            assert_eq!(seen.param(name), value, "{name}");
        }
    }
    let (first, second) = (entered.param("ConferenceMemberID"), other.param("ConferenceMemberID"));
    assert!(first != second && first.parse::<u64>().is_ok(), "{first} {second}");

    let null = Value::Null;
    assert_eq!(
        world.conference("GET", "", &null).await.json()["conferences"],
        serde_json::json!(["Team room"])
    );
    let room = world.conference("GET", "Team%20room/", &null).await.json();
    assert_eq!(
        (&room["conference_name"], &room["conference_member_count"]),
        (&"Team room".into(), &"2".into())
    );
    let member = &room["members"][0];
    for (name, value) in [
        ("member_id", first.into()),
        ("muted", false.into()),
        ("deaf", false.into()),
        ("from", ASHA.into()),
        ("call_uuid", entered.param("CallUUID").into()),
        ("direction", Value::from("inbound")),
    ] {
        assert_eq!(member[name], value, "{name}: {room}");
    }
    assert!(member["join_time"].as_str().is_some_and(|secs| secs.parse::<u64>().is_ok()), "{room}");
    for (path, status) in
        [("Other/", 404), ("Team%20room/Member/99/Mute/", 404), ("team%20room/", 404)]
    {
        let method = if path.contains("Mute") { "POST" } else { "GET" };
        assert_eq!(world.conference(method, path, &null).await.status, status, "{path}");
    }

    let there = ravi.all().await;
    assert!(
        heard_ms(&there, ASHA_HZ) > 3_500,
        "the second hears the first: {} ms",
        heard_ms(&there, ASHA_HZ)
    );
    assert_eq!((heard_ms(&there, RAVI_HZ), end(&there).audio_gaps), (0, 0), "and not itself");
    let exit = world.event("exit", RAVI).await;
    assert_eq!(
        (exit.param("Event"), exit.param("ConferenceLastMember")),
        ("ConferenceExit", "false")
    );

    let muted = world.conference("POST", &format!("Team%20room/Member/{first}/Mute/"), &null).await;
    assert_eq!((muted.status, muted.json()["message"].clone()), (202, "muted".into()));
    assert_eq!(muted.json()["member_id"], first);
    let room = world.conference("GET", "Team%20room/", &null).await.json();
    assert_eq!(
        (&room["members"][0]["muted"], &room["conference_member_count"]),
        (&true.into(), &"1".into())
    );
    let unmuted = world.conference("DELETE", "Team%20room/Member/all/Mute/", &null).await;
    assert_eq!((unmuted.status, unmuted.text()), (204, String::new()));
    let kicked = world.conference("POST", "Team%20room/Member/all/Kick/", &null).await;
    assert_eq!(kicked.json()["member_id"], serde_json::json!([first]));
    let action = world.app.wait_where("/left", |seen| seen.param("From") == ASHA).await;
    assert_eq!(
        (action.param("ConferenceMemberID"), action.param("ConferenceName")),
        (first, "Team room")
    );
    assert_eq!(action.param("Event"), "Redirect");
    assert_eq!(world.event("exit", ASHA).await.param("ConferenceLastMember"), "true");
    assert_eq!(
        world.conference("GET", "", &null).await.json()["conferences"],
        serde_json::json!([])
    );

    let here = asha.all().await;
    assert!(
        heard_ms(&here, RAVI_HZ) > 3_500,
        "the first hears the second: {} ms",
        heard_ms(&here, RAVI_HZ)
    );
    assert_eq!((heard_ms(&here, ASHA_HZ), end(&here).audio_gaps), (0, 0));
    assert_eq!(end(&here).cause, "end_of_instructions");
    assert_eq!(world.app.count("/left"), 1, "who hung up is asked for nothing more");
    world.node.until_metric("offhook_number_slots_in_use", &[], 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_muted_member_is_not_heard_and_the_room_ends_with_its_moderator() {
    let world = conference(|seen, app| {
        let how = match seen.param("From") {
            ASHA => "startConferenceOnEnter=\"false\"",
            RAVI => "startConferenceOnEnter=\"false\" muted=\"true\"",
            _ => "endConferenceOnExit=\"true\" hangupOnStar=\"true\"",
        };
        format!(
            "<Response><Conference callbackUrl=\"{app}/events\" floorEvent=\"true\" {how}>room</Conference><Speak>It is over.</Speak></Response>"
        )
    })
    .await;
    let asha = world.sim.place_call(says(ASHA, ASHA_HZ, HangupRule::Never));
    world.event("enter", ASHA).await;
    let ravi = world.sim.place_call(says(RAVI, RAVI_HZ, HangupRule::Never));
    world.event("enter", RAVI).await;
    // The first two wait for the third and hear no one until then.
    let meera = world.sim.place_call(says(MEERA, MEERA_HZ, after(5)));
    world.event("enter", MEERA).await;
    let floor = world.app.wait_where("/events", |e| e.param("ConferenceAction") == "floor").await;
    assert!(floor.param("From") != RAVI && floor.param("Event") == "ConferenceFloor", "{floor:?}");
    let there = meera.all().await;
    let (asha, ravi) = tokio::join!(asha.all(), ravi.all());
    assert!(heard_ms(&there, ASHA_HZ) > 2_500, "{} ms", heard_ms(&there, ASHA_HZ));
    for (name, events, own) in
        [("asha", &asha, ASHA_HZ), ("ravi", &ravi, RAVI_HZ), ("meera", &there, MEERA_HZ)]
    {
        assert_eq!(
            (heard_ms(events, RAVI_HZ), heard_ms(events, own)),
            (0, 0),
            "{name} hears nobody who is muted"
        );
        assert_eq!(end(events).audio_gaps, 0, "{name}");
    }
    assert!(heard_ms(&asha, MEERA_HZ) > 2_500, "{} ms", heard_ms(&asha, MEERA_HZ));
    for (name, events) in [("asha", &asha), ("ravi", &ravi)] {
        assert_eq!(end(events).cause, "end_of_instructions", "{name}: the document goes on");
    }
    assert_eq!(
        world
            .app
            .requests()
            .iter()
            .filter(|seen| seen.param("ConferenceLastMember") == "true")
            .count(),
        1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_with_two_members_is_recorded_and_each_action_has_the_url() {
    let world = conference(|_, app| {
        format!(
            "<Response><Conference callbackUrl=\"{app}/events\" action=\"{app}/left\" record=\"true\" recordFileFormat=\"wav\" \
             recordWhenAlone=\"false\" enterSound=\"\" exitSound=\"\">Minutes</Conference></Response>"
        )
    })
    .await;
    let asha = world.sim.place_call(says(ASHA, 0.0, HangupRule::Never));
    world.event("enter", ASHA).await;
    let ravi = world.sim.place_call(says(RAVI, RAVI_HZ, after(4)));
    let there = ravi.all().await;
    world.event("exit", RAVI).await;
    let kicked = world.conference("POST", "Minutes/Member/all/Kick/", &Value::Null).await;
    assert_eq!(kicked.status, 202, "{}", kicked.text());
    let action = world.app.wait_where("/left", |seen| seen.param("From") == ASHA).await;
    drop(asha);

    let is_over = |seen: &ReceivedRequest| {
        seen.param("ConferenceAction") == "record" && seen.param("RecordingDuration") != "-1"
    };
    let record = world.app.wait_where("/events", is_over).await;
    let begun: Vec<ReceivedRequest> = world
        .app
        .requests()
        .into_iter()
        .filter(|e| e.param("ConferenceAction") == "record")
        .collect();
    assert_eq!(begun.len(), 2, "its beginning and its end");
    for name in ["RecordingDuration", "RecordingDurationMs", "RecordingStartMs", "RecordingEndMs"] {
        assert_eq!(begun[0].param(name), "-1", "{name}");
    }
    for name in ["RecordUrl", "RecordingID", "ConferenceUUID", "From"] {
        assert_eq!(begun[0].param(name), record.param(name), "{name}");
    }
    let ms = assert_finished(&record, "HungUp");
    for (name, value) in [
        ("Event", "ConferenceRecord"),
        ("ConferenceName", "Minutes"),
        ("ConferenceUUID", action.param("ConferenceUUID")),
        ("RecordUrl", action.param("RecordUrl")),
        ("RecordingID", action.param("RecordingID")),
    ] {
        assert_eq!(record.param(name), value, "{name}");
    }
    let file = http::get(record.param("RecordUrl")).await;
    assert_eq!(file.status, 200);
    let tracks = channels(&file.body);
    assert_eq!((tracks.len(), tracks[0].len() as u64), (1, ms * 16));
    let ravi_ms = tone_ms(&tracks[0], RAVI_HZ);
    assert!(
        (2_000..6_000).contains(&ms) && ravi_ms + 1_000 > ms,
        "{ravi_ms} ms of Ravi in {ms}; {there:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_records_a_conference_once_at_a_time_and_stops() {
    let world = conference(|_, app| {
        format!(
            "<Response><Conference callbackUrl=\"{app}/events\" action=\"{app}/left\">Board</Conference></Response>"
        )
    })
    .await;
    let order = serde_json::json!({"file_format": "wav", "callback_url": format!("{}/filed", world.app.base)});
    world.app.xml("/filed", "<Response/>");
    assert_eq!(world.conference("POST", "Board/Record/", &order).await.status, 404, "nobody is in");
    let ravi = world.sim.place_call(says(RAVI, RAVI_HZ, HangupRule::Never));
    world.event("enter", RAVI).await;
    assert_eq!(
        world.conference("DELETE", "Board/Record/", &Value::Null).await.status,
        404,
        "it is not recorded"
    );
    let wrong = serde_json::json!({"file_format": "ogg"});
    assert_eq!(world.conference("POST", "Board/Record/", &wrong).await.status, 400);
    let begun = world.conference("POST", "Board/Record/", &order).await;
    assert_eq!(
        (begun.status, &begun.json()["message"]),
        (202, &"conference recording started".into())
    );
    assert_eq!(world.conference("POST", "Board/Record/", &order).await.status, 409);
    // Record while they talk.
    let packets =
        || async { world.node.metric("offhook_media_packets_total", &[("direction", "in")]).await };
    let before = packets().await;
    let mut every = tokio::time::interval(Duration::from_millis(50));
    let talks = async {
        while packets().await < before + 100.0 {
            every.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), talks).await.expect("two seconds of sound");
    assert_eq!(world.conference("DELETE", "Board/Record/", &Value::Null).await.status, 204);
    let filed =
        world.app.wait_where("/filed", |seen| seen.param("RecordingDuration") != "-1").await;
    let ms = assert_finished(&filed, "Stopped");
    assert_eq!(
        (filed.param("ConferenceAction"), filed.param("ConferenceName")),
        ("record", "Board")
    );
    assert_eq!(filed.param("RecordUrl"), begun.json()["url"]);
    let file = http::get(filed.param("RecordUrl")).await;
    let ravi_ms = tone_ms(&channels(&file.body)[0], RAVI_HZ);
    assert!(ms > 1_000 && ravi_ms + 800 > ms, "{ravi_ms} ms in {ms}");
    let listed =
        world.rest("GET", "Recording/?conference_name=Board", &[], String::new()).await.json();
    assert_eq!(listed["objects"][0]["recording_type"], "conference");
    let room = filed.param("ConferenceUUID");
    for (filter, count) in [("conference_uuid", 1), ("mpc_uuid", 0)] {
        let found = world
            .rest("GET", &format!("Recording/?{filter}={room}"), &[], String::new())
            .await
            .json();
        assert_eq!(found["meta"]["total_count"], count, "{filter}: {found}");
    }
    world.conference("DELETE", "Board/", &Value::Null).await;
    ravi.all().await;
    let call = filed.param("CallUUID");
    world.node.record(call).await;
    let record = world.rest("GET", &format!("Call/{call}/"), &[], String::new()).await.json();
    assert_eq!(record["conference_uuid"], room, "{record}");
}
