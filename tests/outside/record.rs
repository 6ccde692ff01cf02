//! Recordings through the whole binary with real media: the file contains all speech, for any end,
//! and the callbacks report it.

use std::time::Duration;

use serde_json::{Value, json};
use sim::{CallEvent, CallScript, CalleeBehaviour, HangupRule, caller};

use super::console::{Session, people};
use super::dial::{heard_ms, tone};
use super::outbound::{World, world};
use crate::support::app::ReceivedRequest;
use crate::support::database;
use crate::support::http;
use crate::support::node::{API_KEY, program};

const CALLER_HZ: f64 = 700.0;

/// Starts a node with this document for callers. `APP` is the application's URL.
async fn recording(document: &str) -> World {
    recording_with(document, "").await
}

async fn recording_with(document: &str, config: &str) -> World {
    let world = world(|node_config, _| {
        node_config.accept_wait_ms = 0;
        node_config.hangup_url = node_config.answer_url.replace("/unused", "/hangup");
        node_config.extra = format!("{config}[cluster]\nnode_id = \"recording\"\n");
    })
    .await;
    for path in ["/recorded", "/recording"] {
        world.app.xml(path, "<Response/>");
    }
    world.app.xml(
        "/unused",
        format!("<Response>{}</Response>", document.replace("APP", &world.app.base)),
    );
    world
}

/// A caller who speaks for `seconds`.
fn speaker(seconds: u32, keys: &str) -> CallScript {
    CallScript {
        say: tone(CALLER_HZ, seconds),
        keys: caller::parse_keys(keys).expect("keys"),
        ..CallScript::default()
    }
}

async fn call(world: &World, script: CallScript) -> Vec<CallEvent> {
    world.sim.place_call(script).all().await
}

/// Returns the samples of a recording by channel.
pub(super) fn channels(wav: &[u8]) -> Vec<Vec<i16>> {
    let mut reader = hound::WavReader::new(wav).expect("a WAV file");
    let count = usize::from(reader.spec().channels);
    assert_eq!((reader.spec().sample_rate, reader.spec().bits_per_sample), (16_000, 16));
    let all: Vec<i16> = reader.samples::<i16>().map(|sample| sample.expect("whole")).collect();
    (0..count).map(|n| all.iter().skip(n).step_by(count).copied().collect()).collect()
}

/// Returns for how many milliseconds this tone dominates.
pub(super) fn tone_ms(pcm: &[i16], hz: f64) -> u64 {
    let step = hz * std::f64::consts::TAU / 16_000.0;
    let is_it = |frame: &&[i16]| {
        let energy: f64 = frame.iter().map(|s| f64::from(*s).powi(2)).sum();
        let (mut re, mut im) = (0.0, 0.0);
        for (n, s) in frame.iter().enumerate() {
            let at = step * n as f64;
            (re, im) = (re + f64::from(*s) * at.cos(), im + f64::from(*s) * at.sin());
        }
        energy > 1e8 && (re * re + im * im) * 2.0 / frame.len() as f64 > energy * 0.8
    };
    pcm.chunks_exact(320).filter(is_it).count() as u64 * 20
}

fn number(seen: &ReceivedRequest, name: &str) -> i64 {
    seen.param(name).parse().unwrap_or_else(|_| panic!("{name} is {:?}", seen.param(name)))
}

/// Returns the remarks in a call's record, and the record.
async fn remarks_of(world: &World, call: &str) -> (String, Value) {
    let key = [("x-api-key", crate::support::node::API_KEY)];
    let url = format!("{}/api/v1/calls/{call}/", world.node.public);
    let record = http::send("GET", &url, &key, String::new()).await.json();
    (record["remarks"].to_string(), record)
}

/// Checks the parameters common to all requests about a finished recording. Returns its duration.
pub(super) fn assert_finished(seen: &ReceivedRequest, end: &str) -> u64 {
    let ms = number(seen, "RecordingDurationMs");
    assert_eq!(number(seen, "RecordingDuration"), (ms + 999) / 1_000);
    assert_eq!(number(seen, "RecordingEndMs") - number(seen, "RecordingStartMs"), ms);
    assert_eq!(seen.param("RecordingEndReason"), end);
    assert_eq!(seen.param("RecordUrl"), seen.param("RecordFile"));
    assert!(
        seen.param("RecordUrl").contains(&format!("/recordings/{}.", seen.param("RecordingID")))
    );
    u64::try_from(ms).expect("no less than nothing")
}

#[tokio::test(flavor = "multi_thread")]
async fn links_to_recordings_expire_if_the_configuration_says_so() {
    let document = "<Record action=\"APP/recorded\" fileFormat=\"wav\" maxLength=\"2\"/>";
    let world = recording_with(document, "[recordings]\nlink_days = 1\n").await;
    call(&world, speaker(4, "")).await;
    let action = world.app.wait("/recorded").await;
    let url = action.param("RecordUrl");
    assert_eq!(http::get(url).await.status, 200, "{url}");
    let (file, query) = url.split_once('?').expect("a signed link");
    let until = query.strip_prefix("until=").unwrap().split('&').next().unwrap();
    let other = url.replace(action.param("RecordingID"), "00000000-0000-4000-8000-000000000000");
    for wrong in [
        file.to_owned(),
        other,
        url.replace(until, "1"),
        url.replace(until, "9999999999"),
        format!("{file}?until={until}&tag="),
    ] {
        let answer = http::get(&wrong).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (403, &json!("link_expired")),
            "{wrong}"
        );
    }
    let listed = world.rest("GET", "Recording/", &[], String::new()).await.json();
    let again = listed["objects"][0]["recording_url"].as_str().unwrap();
    assert_eq!(http::get(again).await.status, 200, "reading the recording gives a link");
}

/// In this test, the link leads to the node's own listener.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_hears_the_recording_that_was_made() {
    let document = "<Record action=\"APP/recorded\" fileFormat=\"wav\" maxLength=\"2\"/>";
    let world = recording_with(document, "[recordings]\nlink_days = 1\n").await;
    call(&world, speaker(4, "")).await;
    let url = world.app.wait("/recorded").await.param("RecordUrl").replace('&', "&amp;");
    world.app.xml("/unused", format!("<Response><Play>{url}</Play></Response>"));
    let listener = CallScript { record: true, ..CallScript::default() };
    let events = call(&world, listener).await;
    assert!(heard_ms(&events, CALLER_HZ) > 1_500, "{events:#?}");
    // The node's other pages stay out of reach.
    let page = format!("{}/console/sign-in", world.node.public);
    world.app.xml("/unused", format!("<Response><Play>{page}</Play></Response>"));
    call(&world, CallScript::default()).await;
    let failed = world.rest("GET", "Call/?limit=1", &[], String::new()).await.json();
    let call = failed["objects"][0]["call_uuid"].as_str().unwrap();
    let (remarks, _) = remarks_of(&world, call).await;
    assert!(remarks.contains("a listener of this node"), "{remarks}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consoles_recordings_are_filtered_played_and_deleted() {
    let document = "<Record action=\"APP/recorded\" fileFormat=\"wav\" maxLength=\"2\"/>";
    let world = recording_with(document, &people()).await;
    call(&world, speaker(4, "")).await;
    let action = world.app.wait("/recorded").await;
    let (asha, eve) = (Session::of(&world, "asha").await, Session::of(&world, "eve").await);
    let file = format!("/recordings/{}.wav", action.param("RecordingID"));
    let shows = async |session: &Session<'_>, query: &str| {
        let page = session.get(&format!("/console/recordings/{query}")).await;
        assert_eq!(page.status, 200, "{query}");
        let text = page.text();
        text.contains("<audio controls") && text.contains(&file)
    };
    let from = action.param("From").trim_start_matches('+').to_owned();
    assert!(shows(&asha, "").await && shows(&asha, &format!("?from={from}")).await);
    assert!(!shows(&asha, "?from=911111111111").await && !shows(&asha, "?until=2020-01-01").await);
    assert!(!shows(&eve, "").await, "another account");
    let played = http::get(action.param("RecordUrl")).await;
    assert_eq!(played.status, 200);
    assert_eq!(played.headers["content-type"], "audio/wav");
    let delete = format!("/console/recordings/{}/delete", action.param("RecordingID"));
    assert_eq!(eve.post(&delete, &[]).await.status, 404);
    assert_eq!(asha.post(&delete, &[]).await.status, 303);
    assert!(!shows(&asha, "").await);
    let url = format!("{}/api/v1/audit/?action=removeRecording", world.node.public);
    let records = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await.json();
    let id = action.param("RecordingID");
    assert_eq!(records["items"][0]["actor"], "user:asha", "{records}");
    assert_eq!(records["items"][0]["object"], format!("Recording/{id}"), "{records}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_recorded_reported_and_downloaded() {
    let world = recording(
        "<Record action=\"APP/recorded\" callbackUrl=\"APP/recording\" fileFormat=\"wav\" maxLength=\"20\"/>",
    )
    .await;
    world.app.xml("/recorded", "<Response><Speak>Thank you.</Speak></Response>");
    let events = call(&world, speaker(8, "wwwwww5w#")).await;

    let action = world.app.wait("/recorded").await;
    let ms = assert_finished(&action, "FinishedOnKey");
    assert!((1_500..6_000).contains(&ms), "{ms} ms; {events:#?}");
    for (name, value) in [("Digits", "#"), ("Event", "Redirect"), ("CallStatus", "in-progress")] {
        assert_eq!(action.param(name), value, "{name}");
    }
    let callback = world.app.wait("/recording").await;
    assert_eq!(assert_finished(&callback, "FinishedOnKey"), ms);
    assert_eq!(
        (callback.param("Event"), callback.param("CallStatus")),
        ("RecordStop", "in-progress")
    );
    assert!(callback.params.iter().all(|(name, _)| name != "Digits"));
    assert_eq!(callback.param("CallUUID"), action.param("CallUUID"));

    // Left is the caller's audio, right is what the caller heard: nothing.
    let url = callback.param("RecordUrl").to_owned();
    let file = http::get(&url).await;
    assert_eq!(file.status, 200);
    for (name, value) in [
        ("content-type", "audio/wav"),
        ("cache-control", "private, no-store"),
        ("x-content-type-options", "nosniff"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(file.headers.get(name).expect(name), value, "{name}");
    }
    let both = channels(&file.body);
    assert_eq!((both.len(), both[0].len() as u64), (2, ms * 16));
    let caller_ms = tone_ms(&both[0], CALLER_HZ);
    assert!(
        caller_ms + 1_500 > ms,
        "{caller_ms} ms of the tone in {ms}: two keys take half a second each"
    );
    assert!(both[1].iter().all(|sample| sample.unsigned_abs() < 200), "no beep, no prompt");

    let part = http::send("GET", &url, &[("range", "bytes=44-143")], "").await;
    assert_eq!((part.status, part.body.len()), (206, 100));
    assert_eq!(part.body, file.body[44..144]);
    assert_eq!(
        part.headers.get("content-range").expect("a range"),
        &format!("bytes 44-143/{}", file.body.len())
    );
    let head = http::send("HEAD", &url, &[], "").await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.headers.get("content-length").expect("a length"), &file.body.len().to_string());
    let behind = http::send("GET", &url, &[("range", "bytes=99999999-")], "").await;
    assert_eq!(behind.status, 416);
    for other in [
        url.replace(".wav", ".mp3"),
        url.replace(".wav", ".wav.part"),
        url.replace("/recordings/", "/recordings/../"),
    ] {
        assert_eq!(http::get(&other).await.status, 404, "{other}");
    }
    world.app.wait("/hangup").await;
    let delivered = [("kind", "recording"), ("outcome", "delivered")];
    world.node.until_metric("offhook_callback_total", &delivered, 1.0).await;
    let done = [("element", "Record"), ("outcome", "done")];
    assert_eq!(world.node.metric("offhook_instructions_total", &done).await, 1.0);
}

/// The hang-up may occur while the file is open, while the action is requested, or after both.
#[tokio::test(flavor = "multi_thread")]
async fn the_action_is_requested_after_a_key_and_a_hang_up() {
    let world =
        recording("<Record action=\"APP/recorded\" fileFormat=\"wav\" playBeep=\"false\" finishOnKey=\"1#\"/>").await;
    world.app.xml("/recorded", "<Response><Wait length=\"30\"/></Response>");
    for after_ms in [2_900, 3_000, 3_050, 3_100, 3_200] {
        // The key is pressed two seconds after the answer, for half a second.
        let hangup = HangupRule::AfterAnswer(Duration::from_millis(after_ms));
        let before = world.app.requests().iter().filter(|seen| seen.path == "/recorded").count();
        call(&world, CallScript { hangup, ..speaker(4, "WWw1") }).await;
        let mut every = tokio::time::interval(Duration::from_millis(20));
        let comes = async {
            while world.app.requests().iter().filter(|seen| seen.path == "/recorded").count()
                == before
            {
                every.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), comes)
            .await
            .unwrap_or_else(|_| panic!("{after_ms}: no action"));
        let seen = world.app.requests();
        let action = seen.iter().rfind(|seen| seen.path == "/recorded").expect("it came");
        let by_key = action.param("RecordingEndReason") == "FinishedOnKey";
        assert_eq!(action.param("Digits"), if by_key { "1" } else { "" }, "{after_ms}: {action:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_or_a_hang_up_ends_a_message() {
    let world = recording(
        "<Record action=\"APP/recorded\" redirect=\"false\" timeout=\"2\" fileFormat=\"wav\" playBeep=\"false\" \
         recordChannelType=\"mono\"/><Record action=\"APP/recorded\" callbackUrl=\"APP/recording\" timeout=\"30\"/>",
    )
    .await;
    let hangup = HangupRule::AfterAnswer(Duration::from_millis(7_500));
    call(&world, CallScript { hangup, ..speaker(2, "") }).await;
    let first = world
        .app
        .wait_where("/recorded", |seen| seen.param("RecordingEndReason") == "Silence")
        .await;
    let ms = assert_finished(&first, "Silence");
    assert!((3_500..5_000).contains(&ms), "{ms} ms: two of voice, two of silence");
    let mono = channels(&http::get(first.param("RecordUrl")).await.body);
    assert_eq!((mono.len(), mono[0].len() as u64), (1, ms * 16));

    // In the second case the action is requested after the call, and its document is not run.
    let action = world
        .app
        .wait_where("/recorded", |seen| seen.param("RecordingEndReason") == "HungUp")
        .await;
    assert!(assert_finished(&action, "HungUp") > 500);
    assert_eq!((action.param("CallStatus"), action.param("Digits")), ("completed", ""));
    let callback = world.app.wait("/recording").await;
    assert_eq!(callback.param("CallStatus"), "completed");
    assert!(callback.param("RecordUrl").ends_with(if cfg!(feature = "mp3") {
        ".mp3"
    } else {
        ".wav"
    }));
    assert_eq!(http::get(callback.param("RecordUrl")).await.status, 200);
    world.app.wait("/hangup").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_keeps_the_recording_and_reports_it_after_a_restart() {
    let mut world = recording(
        "<Record recordSession=\"true\" callbackUrl=\"APP/recording\" action=\"APP/recorded\" redirect=\"false\" \
         fileFormat=\"wav\"/><Wait length=\"30\"/>",
    )
    .await;
    let _phone = world.sim.place_call(CallScript { hangup: HangupRule::Never, ..speaker(20, "") });
    let began = world.app.wait("/recorded").await;
    assert_eq!((began.param("RecordingDuration"), began.param("RecordingStartMs")), ("-1", "-1"));
    let url = began.param("RecordUrl").to_owned();
    let part = world
        .node
        .dir
        .path()
        .join("recordings")
        .join(format!("{}.wav.part", began.param("RecordingID")));
    let mut every = tokio::time::interval(Duration::from_millis(50));
    while std::fs::metadata(&part).map_or(0, |meta| meta.len()) < 3 * 64_000 {
        every.tick().await;
    }
    assert_eq!(http::get(&url).await.status, 404, "it is not complete");
    world.node.kill();
    world.node.start_again().await;
    let callback = world.app.wait("/recording").await;
    let ms = assert_finished(&callback, "HungUp");
    assert!(ms >= 3_000, "{ms} ms");
    assert_eq!(
        (callback.param("RecordUrl"), callback.param("CallStatus")),
        (url.as_str(), "completed")
    );
    let both = channels(&http::get(&url).await.body);
    assert_eq!(both[0].len() as u64, ms * 16);
    let caller_ms = tone_ms(&both[0], CALLER_HZ);
    assert!(caller_ms + 1_000 > ms, "{caller_ms} ms of the tone in {ms}");
    assert_eq!(world.app.count("/recording"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_records_a_live_call_and_lists_and_deletes_recordings() {
    let world = recording("<Wait length=\"30\"/>").await;
    // `Wait` alone does not answer a call; audible elements do.
    world.app.xml("/unused", "<Response><Speak>Hello.</Speak><Wait length=\"30\"/></Response>");
    let _phone = world.sim.place_call(CallScript { hangup: HangupRule::Never, ..speaker(20, "") });
    let call = world.app.wait("/unused").await.param("CallUUID").to_owned();
    let ask = async |method: &str, path: &str, body: Value| {
        let head = [("content-type", "application/json")];
        let answer = world.rest(method, path, &head, body.to_string()).await;
        (answer.status, if answer.body.is_empty() { Value::Null } else { answer.json() })
    };
    world
        .node
        .until_metric(
            "offhook_instructions_total",
            &[("element", "Speak"), ("outcome", "done")],
            1.0,
        )
        .await;
    let (path, order) = (
        format!("Call/{call}/Record/"),
        json!({
            "file_format": "wav", "record_channel_type": "mono", "time_limit": 30, "callback_url": world.app.url("/recording"),
        }),
    );
    assert_eq!(ask("DELETE", &path, json!({})).await.0, 404, "nothing is recorded");
    assert_eq!(ask("POST", &path, json!({"file_format": "ogg"})).await.0, 400);
    let (status, started) = ask("POST", &path, order.clone()).await;
    assert_eq!((status, &started["message"]), (202, &json!("call recording started")), "{started}");
    assert_eq!(ask("POST", &path, order).await.0, 409, "once at a time");
    let id = started["recording_id"].as_str().expect("an id").to_owned();
    let part = world.node.dir.path().join("recordings").join(format!("{id}.wav.part"));
    let mut every = tokio::time::interval(Duration::from_millis(50));
    while std::fs::metadata(&part).map_or(0, |meta| meta.len()) < 64_000 {
        every.tick().await;
    }
    assert_eq!(ask("DELETE", &path, json!({})).await.0, 204);
    let callback = world.app.wait("/recording").await;
    let ms = assert_finished(&callback, "Stopped");
    assert_eq!(
        (callback.param("RecordingID"), callback.param("CallStatus")),
        (id.as_str(), "in-progress")
    );
    let url = started["url"].as_str().expect("a URL").to_owned();
    assert_eq!(channels(&http::get(&url).await.body)[0].len() as u64, ms * 16);

    let (_, list) = ask("GET", &format!("Recording/?call_uuid={call}"), json!({})).await;
    assert_eq!(
        (&list["meta"]["total_count"], &list["objects"][0]["recording_id"]),
        (&json!(1), &json!(id)),
        "{list}"
    );
    let (_, one) = ask("GET", &format!("Recording/{id}/"), json!({})).await;
    assert_eq!(
        (&one["recording_url"], &one["recording_type"]),
        (&json!(url), &json!("normal")),
        "{one}"
    );
    assert_eq!(one["recording_duration_ms"], json!(format!("{ms}.00000")));
    let (_, none) = ask("GET", "Recording/?add_time__lt=2020-01-01", json!({})).await;
    assert_eq!(none["meta"]["total_count"], json!(0));
    assert_eq!(ask("DELETE", &format!("Recording/{id}/"), json!({})).await.0, 204);
    assert_eq!(http::get(&url).await.status, 404);
    assert_eq!(ask("GET", &format!("Recording/{id}/"), json!({})).await.0, 404);
    assert_eq!(ask("DELETE", &format!("Call/{call}/"), json!({})).await.0, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dials_recording_starts_when_the_callee_answers() {
    const CALLER: &str = "919812345678";
    const CALLEE: &str = "919412341234";
    const CALLEE_HZ: f64 = 1_100.0;
    let world = world(|node_config, _| {
        node_config.limits = "allow_wa_bridge = true".to_owned();
        node_config.accept_wait_ms = 0;
    })
    .await;
    for path in ["/recorded", "/recording"] {
        world.app.xml(path, "<Response/>");
    }
    let document = format!(
        "<Response><Record startOnDialAnswer=\"true\" action=\"APP/recorded\" redirect=\"false\" fileFormat=\"wav\" \
         callbackUrl=\"APP/recording\"/><Dial callType=\"whatsapp\" callerId=\"{}\"><User>{CALLEE}</User></Dial></Response>",
        crate::support::node::NUMBER
    );
    world.app.xml("/unused", document.replace("APP", &world.app.base));
    let callee_behaviour = CalleeBehaviour {
        rings_after: Duration::from_millis(50),
        acts_after: Duration::from_millis(2_500),
        ..CalleeBehaviour::default()
    };
    let hangup = HangupRule::AfterAnswer(Duration::from_secs(4));
    let callee = world.sim.expect_call(CallScript {
        callee: callee_behaviour,
        hangup,
        say: tone(CALLEE_HZ, 6),
        from: CALLEE.to_owned(),
        ..CallScript::default()
    });
    let caller = world.sim.place_call(CallScript {
        hangup: HangupRule::Never,
        record: true,
        from: CALLER.to_owned(),
        ..speaker(20, "")
    });
    let (_, here) = tokio::join!(callee.all(), caller.all());
    assert!(super::dial::heard_ms(&here, 425.0) > 900, "it rang before");
    let begun = world.app.wait("/recorded").await;
    // The callback is sent immediately, before the call is answered.
    assert_eq!((begun.param("RecordingDuration"), begun.param("CallStatus")), ("-1", "ringing"));
    let callback = world.app.wait("/recording").await;
    assert_eq!(begun.param("RecordUrl"), callback.param("RecordUrl"));
    let ms = assert_finished(&callback, "HungUp");
    assert!((2_500..5_500).contains(&ms), "{ms} ms: what was before the answer is not in it");
    let both = channels(&http::get(callback.param("RecordUrl")).await.body);
    assert_eq!(both.len(), 2);
    let (caller_ms, callee_ms) = (tone_ms(&both[0], CALLER_HZ), tone_ms(&both[1], CALLEE_HZ));
    assert!(
        caller_ms + 800 > ms && callee_ms + 1_500 > ms,
        "{caller_ms} ms of the caller, {callee_ms} ms of the callee, in {ms}"
    );
    assert_eq!(tone_ms(&both[1], 425.0), 0, "no ring-back tone");
}

/// A folder of limited size. The limit is lifted when this is dropped. `None` if this system does
/// not permit mounting.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn over(folder: std::path::PathBuf, size: &str) -> Option<Self> {
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "offhook-test"])
            .arg(&folder)
            .output();
        let done = mount.is_ok_and(|output| output.status.success());
        crate::support::has_peer("mount", done, "a tmpfs is mounted: run as root")
            .then_some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_a_conference_recording_with_a_file_and_a_remark() {
    let world = recording_with(
        "<Conference record=\"true\" recordFileFormat=\"wav\" callbackUrl=\"APP/recording\" enterSound=\"\" \
         exitSound=\"\">Board</Conference>",
        "[recordings]\nreserve_mib = 0\n",
    )
    .await;
    let folder = world.node.dir.path().join("recordings");
    let Some(_small) = SmallDisk::over(folder.clone(), "96k") else { return };
    let phone = world.sim.place_call(CallScript { hangup: HangupRule::Never, ..speaker(30, "") });
    let is_over = |seen: &ReceivedRequest| {
        !["", "-1"].contains(&seen.params.get("RecordingDuration").map_or("", String::as_str))
    };
    let over = world.app.wait_where("/recording", is_over).await;
    let ms = assert_finished(&over, "Failed");
    assert!((1_000..3_100).contains(&ms), "{ms} ms");
    assert_eq!(over.param("CallStatus"), "in-progress", "the conference goes on");
    // The file is complete, and no partial file is left.
    let both = channels(&http::get(over.param("RecordUrl")).await.body);
    assert_eq!(both.iter().map(|pcm| pcm.len() as u64 / 320 * 20).collect::<Vec<_>>(), [ms]);
    let files: Vec<_> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("one").path())
        .collect();
    assert!(
        matches!(files.as_slice(), [one] if one.extension().is_some_and(|wav| wav == "wav")),
        "{files:?}"
    );

    // The recording has stopped and can be started again.
    let stopped = world.rest("DELETE", "Conference/Board/Record/", &[], String::new()).await;
    assert_eq!(stopped.status, 404, "{}", stopped.text());
    phone.control().hangup().await;
    let hangup = world.app.wait("/hangup").await;
    world.node.record(hangup.param("CallUUID")).await;
    let (remarks, record) = remarks_of(&world, hangup.param("CallUUID")).await;
    assert!(remarks.contains("the recording of the room failed: the disk is full"), "{record:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_cannot_be_completed_is_reported_and_recorded() {
    let world = recording(
        "<Record recordSession=\"true\" callbackUrl=\"APP/recording\" action=\"APP/recorded\" redirect=\"false\" \
         fileFormat=\"wav\"/><Wait length=\"30\"/>",
    )
    .await;
    let _phone = world.sim.place_call(CallScript { hangup: HangupRule::Never, ..speaker(20, "") });
    let began = world.app.wait("/recorded").await;
    let part = world
        .node
        .dir
        .path()
        .join("recordings")
        .join(format!("{}.wav.part", began.param("RecordingID")));
    let mut every = tokio::time::interval(Duration::from_millis(20));
    // The file can be written but not renamed.
    while std::fs::remove_file(&part).is_err() {
        every.tick().await;
    }
    // If the user hung up, their media could end before the call does.
    let call = format!("Call/{}/", began.param("CallUUID"));
    assert_eq!(world.rest("DELETE", &call, &[], String::new()).await.status, 204);
    let callback = world.app.wait("/recording").await;
    assert_eq!(assert_finished(&callback, "Failed"), 0);
    assert_eq!(callback.param("CallStatus"), "completed");
    let hangup = world.app.wait("/hangup").await;
    world.node.record(hangup.param("CallUUID")).await;
    let (remarks, record) = remarks_of(&world, hangup.param("CallUUID")).await;
    assert!(
        remarks.contains("a recording could not be completed after the call: the file"),
        "{record:#}"
    );
    assert!(remarks.contains("nothing of it was kept"), "{record:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r11_below_the_reserve_of_the_disk_nothing_is_recorded_and_calls_go_on() {
    // No disk has this much free space.
    let document =
        "<Record action=\"APP/recorded\" callbackUrl=\"APP/recording\"/><Wait length=\"30\"/>";
    let world = recording_with(document, "[recordings]\nreserve_mib = 1073741824\n").await;
    let phone = world.sim.place_call(CallScript { hangup: HangupRule::Never, ..speaker(20, "") });
    let callback = world.app.wait("/recording").await;
    assert_eq!(assert_finished(&callback, "Failed"), 0);
    assert_eq!(callback.param("CallStatus"), "in-progress", "the call goes on");
    assert_eq!(http::get(callback.param("RecordUrl")).await.status, 404);
    let why = [("why", "disk_full")];
    assert!(world.node.metric("offhook_recordings_refused_total", &why).await >= 1.0);
    world.node.until_log("make room in store.data_dir").await;
    let (_, findings) = world.node.doctor().await;
    let is_full = |finding: &Value| finding["what"].to_string().contains("nothing is recorded");
    assert!(findings.iter().any(is_full), "{findings:#?}");
    phone.control().hangup().await;
    // Not from `/hangup`, which `doctor` requested, too.
    let call = callback.param("CallUUID");
    world.node.record(call).await;
    let (remarks, record) = remarks_of(&world, call).await;
    assert!(remarks.contains("the disk is full"), "{record:#}");
    // Neither is the event log, which may contain long documents.
    let url = format!("{}/api/v1/calls/{call}/events/", world.node.public);
    let key = [("x-api-key", crate::support::node::API_KEY)];
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let log = loop {
        every.tick().await;
        let log = http::send("GET", &url, &key, String::new()).await.text();
        // While the call lives, its log comes from memory and is whole.
        if log.contains("the rest of the event log is not stored") {
            break log;
        }
    };
    let is_of_callback = |line: &&str| line.contains("\"trace\":\"callback\"");
    assert_eq!(log.lines().filter(|line| !is_of_callback(line)).count(), 1, "{log}");
    assert!(world.node.metric("offhook_event_logs_cut_total", &why).await >= 1.0);
    let listed = world.rest("GET", "Recording/", &[], String::new()).await.json();
    assert_eq!(listed["objects"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_that_a_restored_backup_lacks_has_no_link_and_is_set_aside() {
    if database::skipped_on_postgres() {
        return;
    }
    let document = "<Record action=\"APP/recorded\" fileFormat=\"wav\" maxLength=\"2\"/>";
    let mut world = recording(document).await;
    let mut urls: Vec<(String, String)> = Vec::new();
    for _ in 0..2 {
        call(&world, speaker(4, "")).await;
        let is_new =
            |seen: &ReceivedRequest| urls.iter().all(|(_, id)| *id != seen.param("RecordingID"));
        let action = world.app.wait_where("/recorded", is_new).await;
        urls.push((action.param("RecordUrl").to_owned(), action.param("RecordingID").to_owned()));
    }
    let [(lost, id), (kept, _)] = &urls[..] else { panic!("{urls:?}") };
    assert_eq!(http::get(lost).await.status, 200);
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let listed = async || world.rest("GET", "Recording/", &[], String::new()).await.json();
    while listed().await["meta"]["total_count"] != 2 {
        every.tick().await;
    }
    world.node.kill();
    let data = world.node.dir.path().to_owned();
    let store = rusqlite::Connection::open(data.join("offhook.db")).unwrap();
    let delete = "DELETE FROM recordings WHERE recording_id = ?1";
    assert_eq!(store.execute(delete, [id]).unwrap(), 1);
    drop(store);
    let folder = data.join("recordings");
    let name = format!("{id}.wav");
    // Times of files count in seconds.
    let file = std::fs::File::options().write(true).open(folder.join(&name)).unwrap();
    let earlier = file.metadata().unwrap().modified().unwrap() - Duration::from_secs(60);
    file.set_modified(earlier).unwrap();
    world.node.start_again().await;
    world.node.until_log("recordings that the store does not know moved aside").await;
    assert!(folder.join("unlisted").join(&name).exists());
    assert_eq!(http::get(lost).await.status, 404);
    assert_eq!(http::get(kept).await.status, 200, "listed ones stay");

    // The backup says which files it lacks, and a start without them counts them.
    let mut backup = std::process::Command::new(program());
    backup.arg("backup").arg(data.join("copy.db")).arg("--data-dir").arg(&data);
    let made = tokio::task::block_in_place(|| backup.output()).expect("it runs");
    let out = String::from_utf8_lossy(&made.stdout);
    assert!(made.status.success(), "{made:?}");
    let line = format!("not in it: the files in {}; copy them, too", folder.display());
    assert!(out.contains(&line) && !out.contains("messages"), "{out}");
    world.node.kill();
    std::fs::remove_dir_all(&folder).unwrap();
    world.node.start_again().await;
    world.node.until_log("recordings have no file").await;
    assert_eq!(http::get(kept).await.status, 404);
}
