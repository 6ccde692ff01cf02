//! Talking with users from the console, in a real Chromium: the softphone with captions, transfer
//! and network quality, a call from a chat, outgoing files, the transcript of an agent's call, and
//! the toggle that disables an agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use sim::{CallScript, CalleeAction, EventOrder, HangupRule, caller};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;

use crate::agents::is_begin_of;
use crate::console::{Session, people, signed_in, with_people};
use crate::console_flows::{orders, with_numbers};
use crate::console_look::{picture, writes};
use crate::endpoints::{PASSWORD, dial_asha};
use crate::outbound::{World, world};
use crate::recognise::say;
use crate::support::agent::{AgentServer, reply};
use crate::support::browser::{Browser, axe, has_chromium};
use crate::support::http;
use crate::support::node::{API_KEY, NUMBER};
use crate::support::phone::{OFFER, Phone};
use crate::uploads::PIXEL;

const USER: &str = "919812345678";
/// A microphone that plays a tone while `mouth.gain.value` is 1.
const MICROPHONE: &str = "navigator.mediaDevices.getUserMedia = async () => { const context = new AudioContext(); const tone = \
    new OscillatorNode(context, { frequency: 900 }); globalThis.mouth = new GainNode(context, { gain: 0 }); const to = \
    context.createMediaStreamDestination(); tone.connect(mouth).connect(to); tone.start(); return to.stream; }; 0";

/// How the test's recogniser treats the end of an utterance.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RecogniserMode {
    /// Withholds the last word for now.
    Holds,
    Answers,
    /// Accepts no further utterances.
    Refuses,
}

/// The languages requested from a recogniser.
type Languages = Arc<std::sync::Mutex<std::collections::BTreeSet<String>>>;

/// Starts a recogniser that speaks Vosk's protocol and only distinguishes a tone from speech.
/// Returns its URL, the number of utterances and their languages.
async fn recogniser(
    mode: watch::Receiver<RecogniserMode>,
) -> (String, Arc<AtomicUsize>, Languages) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let languages = Languages::default();
    let requested = languages.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            if *mode.borrow() == RecogniserMode::Refuses {
                continue;
            }
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(hear(stream, mode.clone(), requested.clone()));
        }
    });
    (url, asked, languages)
}

/// Handles one utterance.
async fn hear(
    stream: tokio::net::TcpStream,
    mut mode: watch::Receiver<RecogniserMode>,
    languages: Languages,
) -> Option<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
    let (mut pcm, mut has_partial) = (Vec::new(), false);
    loop {
        match socket.next().await?.ok()? {
            Message::Binary(bytes) => {
                pcm.extend(
                    bytes
                        .chunks_exact(2)
                        .map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]]))),
                );
                if !std::mem::replace(&mut has_partial, true) {
                    socket
                        .send(Message::text(json!({"partial": "I would like"}).to_string()))
                        .await
                        .ok()?;
                }
            }
            Message::Text(text) if text.contains("eof") => break,
            Message::Text(text) => {
                let config: Value = serde_json::from_str(&text).ok()?;
                languages.lock().unwrap().insert(config["config"]["language"].as_str()?.to_owned());
            }
            _ => {}
        }
    }
    mode.wait_for(|mode| *mode != RecogniserMode::Holds).await.ok()?;
    let text = if is_tone(&pcm) { "At what time?" } else { "I would like to book a table." };
    socket.send(Message::text(json!({ "text": text }).to_string())).await.ok()?;
    socket.close(None).await.ok()
}

/// Returns true if most of the signal's power is at 900 Hz.
fn is_tone(pcm: &[f64]) -> bool {
    let share = pcm.chunks_exact(320).map(|frame| {
        let turn = |n: usize| 2.0 * std::f64::consts::PI * 900.0 * n as f64 / 16_000.0;
        let (re, im) = frame.iter().enumerate().fold((0.0, 0.0), |(re, im), (n, sample)| {
            (re + sample * turn(n).cos(), im + sample * turn(n).sin())
        });
        let all: f64 = frame.iter().map(|sample| sample * sample).sum();
        (2.0 * (re * re + im * im) / 320.0, all)
    });
    let (at, all) = share.fold((0.0, 0.0), |(at, all), (a, b)| (at + a, all + b));
    at > all * 0.5
}

/// Opens the console's phone, registered as asha's endpoint.
pub async fn softphone(world: &World) -> Browser {
    let mut phone = signed_in(world, "asha").await;
    phone.visit("/console/phone/").await;
    phone.until("document.querySelector('[data-at=login] button:enabled')").await;
    phone.eval(MICROPHONE).await;
    phone.fill("[data-at=login] [name=endpoint]", "asha").await;
    phone.press("[data-at=login]", "Register").await;
    phone.says("[data-at=state]", "sip:asha@").await;
    // The table of endpoints follows without a reload.
    phone
        .until(
            "[...document.querySelectorAll('#endpoints-card tbody tr')].some((row) => \
             row.textContent.includes('sip:asha@') && row.textContent.includes('Registered'))",
        )
        .await;
    phone
}

#[tokio::test(flavor = "multi_thread")]
async fn a_softphone_shows_captions_and_network_quality_and_transfers_the_call() {
    if !has_chromium() {
        return;
    }
    let (mode, mode_receiver) = watch::channel(RecogniserMode::Holds);
    let (url, asked, languages) = recogniser(mode_receiver).await;
    let world = world(|node_config, _| {
        node_config.extra = format!(
            "{}\n[speech]\nrecogniser = \"websocket\"\n[speech.websocket]\nurl = \"{url}\"\ntimeout_ms = 60000\n",
            people()
        );
        node_config.accept_wait_ms = 0;
    })
    .await;
    for path in ["/events", "/dialled"] {
        world.app.xml(path, "<Response/>");
    }
    world.app.xml("/unused", dial_asha(&world));
    world.endpoint("asha").await;
    world.endpoint("ravi").await;
    let mut ravi = Phone::registered(&world.node.public, "ravi", PASSWORD).await.0;
    let mut phone = softphone(&world).await;
    // The caller repeats the sentence.
    let sentence = say(1_500, "I would like to book a table.").await;
    let sentences = std::iter::repeat_n(sentence, 40).flatten().collect();
    let caller = world.sim.place_call(CallScript {
        say: sentences,
        hangup: HangupRule::Never,
        ..CallScript::default()
    });
    phone.until("document.querySelector('[data-at=accept]:not([hidden])')").await;
    phone.press(".handset", "Answer").await;
    phone.says("[data-at=state]", "In a call").await;
    phone.until("document.querySelector('[data-at=them]').value > 0.01").await;
    assert_eq!(asked.load(Ordering::SeqCst), 0, "nobody is asked before captions are wanted");
    assert_eq!(phone.eval("document.querySelector('#captions').checkVisibility()").await, false);

    phone.press(".handset", "Captions").await;
    phone.until("document.querySelector('[data-at=captions][aria-pressed=true]')").await;
    phone.says("#captions .them.saying", "I would like").await;
    mode.send_replace(RecogniserMode::Answers);
    phone.says("#captions .them:not(.saying) span", "I would like to book a table.").await;
    phone.eval("mouth.gain.value = 1").await;
    phone.until("document.querySelector('#captions .you')").await;
    phone.eval("mouth.gain.value = 0").await;
    phone.says("#captions .you:not(.saying) span", "At what time?").await;
    picture(&mut phone, "captions").await;
    if let Some(axe) = axe() {
        assert_eq!(phone.barriers(&axe).await, [""; 0]);
    }
    for pressed in ["false", "true"] {
        phone.press(".handset", "Captions").await;
        phone
            .until(&format!("document.querySelector('[data-at=captions][aria-pressed={pressed}]')"))
            .await;
    }
    // A language change applies immediately and is saved for this person's next call.
    assert_eq!(languages.lock().unwrap().iter().collect::<Vec<_>>(), ["en-US"], "as configured");
    let list = "document.querySelector('[data-at=language]')";
    assert_eq!(phone.eval(&format!("{list}.options[0].text")).await, "Default (American English)");
    phone.fill("[data-at=language]", "hi-IN").await;
    assert_eq!(phone.eval(&format!("{list}.selectedOptions[0].text")).await, "Hindi (India)");
    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    while !languages.lock().unwrap().contains("hi-IN") {
        every.tick().await;
    }
    let kept = "Object.entries(localStorage).filter(([key]) => key.startsWith('offhook.captions.')).join()";
    assert_eq!(phone.eval(kept).await, "offhook.captions.asha,hi-IN");
    // The phone reports a failed recogniser and keeps working otherwise.
    mode.send_replace(RecogniserMode::Refuses);
    phone.says("[data-at=state]", "Captions stopped").await;
    phone.until("document.querySelector('[data-at=captions][aria-pressed=false]')").await;
    assert!(!world.node.log().contains("book a table"), "R22: what was said is in no log");

    let network = "document.querySelector('[data-at=quality]:not([hidden])')?.textContent ?? ''";
    phone
        .until(&format!("/^Network: (good|fair|poor) · \\d+ ms · \\d+\\.\\d %$/.test({network})"))
        .await;
    // Poor network statistics, as the browser would report them.
    let bad = "document.querySelector('offhook-phone').peer.getStats = async () => new Map([['a', { type: 'inbound-rtp', \
               packetsLost: performance.now(), packetsReceived: performance.now(), jitter: 0 }], ['b', { type: 'candidate-pair', \
               nominated: true, currentRoundTripTime: 0.5 }]]); 0";
    phone.eval(bad).await;
    phone.until(&format!("/^Network: poor · 500 ms · /.test({network})")).await;
    assert_eq!(
        phone.eval("document.querySelector('[data-at=quality]').className").await,
        "sub quality poor"
    );

    phone.fill("[data-at=transfer] [name=to]", "nobody").await;
    phone.press("[data-at=transfer]", "Transfer").await;
    phone.says("[data-at=state]", "no phone with this name").await;
    phone.fill("[data-at=transfer] [name=to]", "ravi").await;
    phone.press("[data-at=transfer]", "Transfer").await;
    let rung = ravi.receive("ring").await["call"].clone();
    phone.says("[data-at=state]", "Ended").await;
    assert_eq!(
        phone.eval("document.querySelector('[data-at=transfer]').checkVisibility()").await,
        false
    );
    ravi.say(json!({"type": "accept", "call": rung, "sdp": OFFER})).await;
    ravi.receive("answer").await;
    ravi.say(json!({"type": "hangup", "call": rung})).await;
    ravi.receive("ended").await;
    drop(caller.all().await);
    // The choice is kept the next time the phone is opened, and an unknown language is ignored.
    phone.visit("/console/phone/").await;
    // It registers automatically if it was registered before.
    phone.says("[data-at=state]", "sip:asha@").await;
    phone.until(&format!("{list}.value === 'hi-IN' && {list}.checkVisibility()")).await;
    assert_eq!(phone.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s1_11_a_user_is_called_from_their_chat_and_the_softphone_has_the_call() {
    if !has_chromium() {
        return;
    }
    let world = world(|node_config, _| {
        node_config.extra = format!("{}\n[speech]\nrecogniser = \"none\"\n", people());
        node_config.accept_wait_ms = 0;
    })
    .await;
    let asha = world.endpoint("asha").await;
    world.endpoint("ravi").await;
    // Without an application for its own calls.
    let (path, json) = (format!("Endpoint/{asha}/"), [("content-type", "application/json")]);
    let changed = world.rest("POST", &path, &json, json!({"app_id": ""}).to_string()).await;
    assert_eq!(changed.status, 202, "{}", changed.text());
    writes(&world, &json!({"message": "Please call me", "from": USER, "name": "Asha Verma"})).await;
    let mut phone = softphone(&world).await;
    // Without a recogniser the phone says so and offers no captions.
    assert_eq!(
        phone.eval("document.querySelector('[data-at=captions]').checkVisibility()").await,
        false
    );
    phone.says("[data-at=no-captions]:not([hidden])", "no speech recogniser is configured").await;

    let mut chat = signed_in(&world, "asha").await;
    chat.visit("/console/inbox/").await;
    chat.click("#conversations a.row-link").await;
    chat.says("#about", "Request permission").await;
    // Not allowed before the user has given permission.
    chat.press("#about", "Call").await;
    chat.press("dialog.panel", "Call").await;
    chat.until("document.querySelector('dialog.panel .alert')?.textContent.trim().length > 10")
        .await;
    chat.click("dialog [data-close]").await;
    chat.until("!document.querySelector('dialog.panel')").await;
    chat.press("#about", "Request permission").await;
    chat.says("#about", "Requested").await;
    orders(&world, "permissions/answer", json!({"user": USER, "answer": "accept"})).await;
    chat.says("#about", "Granted until").await;

    let user = crate::outbound::user(CalleeAction::Accept, EventOrder::ConnectFirst);
    let user = world.sim.expect_call(CallScript { from: USER.to_owned(), ..user });
    chat.press("#about", "Call").await;
    chat.until("document.querySelector('dialog [name=with]')?.value === 'endpoint:asha'").await;
    // Without a reachable phone no target is offered.
    let away = "document.querySelector('dialog option[value=\"endpoint:ravi\"]')";
    assert_eq!(
        chat.eval(&format!("{away}.disabled && {away}.textContent.includes('not registered')"))
            .await,
        true
    );
    chat.press("dialog.panel", "Call").await;
    chat.until("location.pathname.startsWith('/console/calls/')").await;
    let uuid = chat.eval("location.pathname.split('/')[3]").await.as_str().unwrap().to_owned();
    phone.until("document.querySelector('[data-at=accept]:not([hidden])')").await;
    phone.says("[data-at=state]", "was called and has answered").await;
    phone.press(".handset", "Answer").await;
    phone.says("[data-at=state]", "In a call").await;
    phone.press(".handset", "Hang up").await;
    phone.says("[data-at=state]", "Ended").await;
    drop(user.all().await);
    world.node.record(&uuid).await;
    // The page shows its own text, not that of the API.
    phone.fill("[data-at=dial] [name=to]", "support").await;
    phone.press("[data-at=dial]", "Call").await;
    phone.says("[data-at=state]", "choose a number under “Call from”").await;
    let state = phone.eval("document.querySelector('[data-at=state]').textContent").await;
    assert!(!state.to_string().contains('_'), "no name of the API: {state}");
    chat.visit("/console/inbox/").await;
    chat.click("#conversations a.row-link").await;
    chat.until(&format!("document.querySelector('#timeline a[href=\"/console/calls/{uuid}/\"]')"))
        .await;
    chat.errors.retain(|error| !error.contains("422"));
    assert_eq!(chat.errors.iter().chain(&phone.errors).collect::<Vec<_>>(), [""; 0]);

    // The protocol's answer to the same request.
    let mut other = Phone::open(&world.node.public).await;
    other.say(json!({"type": "register", "endpoint": "asha", "password": PASSWORD})).await;
    assert_eq!(other.receive("registered").await["captions"], false);
    other.say(json!({"type": "captions", "call": uuid, "on": true})).await;
    assert_eq!(other.receive("error").await["code"], "no_recogniser");
    other.say(json!({"type": "captions", "call": uuid, "on": true, "language": "<en>"})).await;
    assert_eq!(other.receive("error").await["code"], "bad_message");
    other.say(json!({"type": "captions", "call": uuid, "on": false})).await;
    assert_eq!(other.receive("error").await["code"], "no_call", "it is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_softphone_calls_a_user_with_permission_or_says_that_the_application_answers() {
    if !has_chromium() {
        return;
    }
    let world = world(|node_config, sim| {
        node_config.extra = people();
        node_config.accept_wait_ms = 0;
        sim.permission_policy = sim::PermissionPolicy::KnownUsers;
    })
    .await;
    world.endpoint("asha").await;
    writes(&world, &json!({"message": "Please call me", "from": USER, "name": "Asha Verma"})).await;
    let mut phone = softphone(&world).await;
    // The permission is shown before the call, also if only Meta knows it.
    phone.fill("#to", "+91 94123 41234").await;
    phone.says("[data-at=permission]", "Calls are allowed.").await;
    phone.until("document.querySelector('[data-at=ask]').hidden").await;
    phone.fill("#to", "+91 98123 45678").await;
    phone.says("[data-at=permission]", "has not allowed calls yet").await;
    phone.press("[data-at=dial]", "Call").await;
    phone.says("[data-at=state]", "has not allowed calls yet").await;
    assert!(!world.node.log().contains("call started"), "no one was called");
    picture(&mut phone, "softphone-light").await;
    phone.click("[data-at=ask]").await;
    phone.says("[data-at=permission]", "Permission requested").await;
    orders(&world, "permissions/answer", json!({"user": USER, "answer": "accept"})).await;
    phone.says("[data-at=permission]", "Calls are allowed until").await;
    phone.until("document.querySelector('[data-at=ask]').hidden").await;

    // The user's phone rings and is declined.
    let user = crate::outbound::user(CalleeAction::Reject, EventOrder::ConnectFirst);
    let user = world.sim.expect_call(CallScript { from: USER.to_owned(), ..user });
    phone.press("[data-at=dial]", "Call").await;
    phone.says("[data-at=state]", "Declined").await;
    drop(user.all().await);

    // The user answers, and this phone has the call.
    let user = crate::outbound::user(CalleeAction::Accept, EventOrder::ConnectFirst);
    let user = CallScript { from: USER.to_owned(), hangup: HangupRule::Never, ..user };
    let user = world.sim.expect_call(user);
    phone.press("[data-at=dial]", "Call").await;
    phone.says("[data-at=state]", "In a call: +919812345678").await;
    let call = phone.eval("document.querySelector('[data-at=see] a').pathname").await;
    phone.size(390, 900).await;
    phone.prefer("dark").await;
    picture(&mut phone, "softphone-390-dark").await;
    phone.press(".handset", "Hang up").await;
    phone.says("[data-at=state]", "Ended").await;
    drop(user.all().await);
    let record = world.node.record(call.as_str().unwrap().split('/').nth(3).unwrap()).await;
    assert_eq!(
        (&record["to_number"], &record["call_direction"]),
        (&USER.into(), &"outbound".into())
    );

    // Without a number, the application answers.
    let menu = "<Response><Speak>Welcome.</Speak><Wait length=\"60\"/></Response>";
    world.app.xml("/answer", menu);
    for (to, from) in [("sales", NUMBER), ("+91 98123 45678", "")] {
        phone.fill("[data-at=from]", from).await;
        phone.fill("#to", to).await;
        phone.press("[data-at=dial]", "Call").await;
        phone.says("[data-at=state]", "Your application is answering: asha").await;
        phone.press(".handset", "Hang up").await;
        phone.says("[data-at=state]", "Ended").await;
    }
    phone.errors.retain(|error| !error.contains("422"));
    assert_eq!(phone.errors, [""; 0]);
}

/// A node that leaves the permissions to Meta.
#[tokio::test(flavor = "multi_thread")]
async fn the_softphone_says_that_meta_refused_a_call_without_permission() {
    if !has_chromium() {
        return;
    }
    let world = world(|node_config, sim| {
        node_config.extra = format!("{}[permissions]\nenforce = false\n", people());
        node_config.accept_wait_ms = 0;
        sim.permission_policy = sim::PermissionPolicy::AskFirst;
    })
    .await;
    world.endpoint("asha").await;
    let mut phone = softphone(&world).await;
    phone.fill("#to", "+91 98123 45678").await;
    phone.says("[data-at=permission]", "Meta decides when you call").await;
    phone.press("[data-at=dial]", "Call").await;
    phone.says("[data-at=state]", "has not given permission for calls").await;
    assert_eq!(phone.errors, [""; 0]);
}

/// Returns a script that chooses a file of `bytes` bytes that starts with a one-pixel picture.
fn choose(name: &str, kind: &str, bytes: usize) -> String {
    format!(
        "(() => {{ const bytes = new Uint8Array(Math.max({bytes}, 1)); const head = Uint8Array.from(atob('{PIXEL}'), (c) => \
         c.charCodeAt(0)); if (head.length <= bytes.length) bytes.set(head); const files = new DataTransfer(); \
         files.items.add(new File([bytes], '{name}', {{ type: '{kind}' }})); const field = \
         document.querySelector('offhook-upload [name=file]'); field.files = files.files; field.dispatchEvent(new \
         Event('change', {{ bubbles: true }})); }})()"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_chosen_in_the_composer_uploaded_with_progress_and_shown() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    writes(&world, &json!({"message": "A picture, please", "from": USER, "name": "Asha Verma"}))
        .await;
    // The role `agent` may send messages and therefore files.
    let mut browser = signed_in(&world, "ravi").await;
    browser.visit("/console/inbox/").await;
    browser.click("#conversations a.row-link").await;
    browser.press("offhook-upload:not([hidden])", "Send a file").await;
    let wrong = "document.querySelector('offhook-upload .wrong').textContent";
    for (name, kind, bytes, why) in [
        ("setup.exe", "application/x-msdownload", 10, "does not support this file type"),
        ("large.png", "image/png", (5 << 20) + 1, "The limit for this type is 5 MB"),
        ("sticker.webp", "image/webp", 600 << 10, "The limit for this type is 500 KB"),
    ] {
        browser.eval(&choose(name, kind, bytes)).await;
        browser.until(&format!("{wrong}.includes({why:?})")).await;
        browser.press("offhook-upload", "Send").await;
        assert_eq!(
            browser.eval("document.querySelector('offhook-upload progress').hidden").await,
            true,
            "{name}"
        );
    }
    // A slow connection makes the progress visible; the upload is cancelled.
    browser.devtools("Network.enable", json!({})).await;
    let line = |bytes: i64| json!({"offline": false, "latency": 0, "downloadThroughput": -1, "uploadThroughput": bytes});
    browser.devtools("Network.emulateNetworkConditions", line(100_000)).await;
    browser.eval(&choose("parcel.png", "image/png", 2_000_000)).await;
    browser.fill("offhook-upload [name=caption]", "Your parcel").await;
    browser.press("offhook-upload", "Send").await;
    let bar = "document.querySelector('offhook-upload progress:not([hidden])')?.value";
    browser.until(&format!("{bar} > 0 && {bar} < 1")).await;
    browser.press("offhook-upload", "Cancel").await;
    browser.until("document.querySelector('offhook-upload progress').hidden").await;
    assert_eq!(browser.eval("document.querySelectorAll('.bubble.ours').length").await, 0);
    browser.devtools("Network.emulateNetworkConditions", line(-1)).await;

    // Meta's refusal is shown, and the chosen file is kept.
    orders(
        &world,
        "failures",
        json!([{"what": "media", "status": 400, "code": 131_053, "details": "Media upload error"}]),
    )
    .await;
    browser.press("offhook-upload", "Send").await;
    browser.until(&format!("{wrong}.includes('Media upload error')")).await;
    browser.press("offhook-upload", "Send").await;
    browser.until("document.querySelector('.bubble.ours .picture img')?.naturalWidth === 1").await;
    browser.says(".bubble.ours", "Your parcel").await;
    browser.says(".bubble.ours:last-of-type", "Read").await;
    assert_eq!(
        browser.eval("document.querySelector('offhook-upload [name=file]').value").await,
        ""
    );

    // The browser does not know the type, so the file name decides.
    browser.eval(&choose("voice.m4a", "audio/x-m4a", 4_000)).await;
    browser.press("offhook-upload", "Send").await;
    browser.until("document.querySelector('.bubble.ours audio')").await;
    picture(&mut browser, "composer").await;
    if let Some(axe) = axe() {
        assert_eq!(browser.barriers(&axe).await, [""; 0]);
    }
    let shown = http::get(&format!("{}/_sim/messages", world.sim.url())).await.json();
    let sent: Vec<&Value> =
        shown.as_array().unwrap().iter().filter(|m| m["by_business"] == true).collect();
    let kinds: Vec<_> = sent.iter().map(|m| m["message"]["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["image", "audio"], "{sent:#?}");
    browser.errors.retain(|error| !error.contains("502"));
    assert_eq!(browser.errors, [""; 0]);
}

pub async fn api(world: &World, method: &str, path: &str, body: Value) -> Value {
    let url = format!("{}/api/v1/{path}", world.node.public);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = http::send(method, &url, &[("x-api-key", API_KEY)], body).await;
    assert!((200..300).contains(&answer.status), "{method} {path}: {}", answer.text());
    answer.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_28_the_transcript_of_an_agents_call_is_in_the_chat() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let server = AgentServer::start(|turn| match turn.body["turn"].as_u64() {
        Some(1) => reply("You pressed <one> and two.", json!("hangup")),
        _ => reply("Goodbye.", json!("hangup")),
    })
    .await;
    let agent = json!({"name": "Night desk", "kind": "http", "endpoint": server.url, "channels": ["voice", "whatsapp"],
        "greeting": "Welcome. How can I help you?"});
    let agent = api(&world, "POST", "agents/", agent).await["id"].clone();
    api(
        &world,
        "POST",
        &format!("phone-numbers/{NUMBER}/connect-agent/"),
        json!({ "agent": agent }),
    )
    .await;
    api(
        &world,
        "PATCH",
        &format!("phone-numbers/{NUMBER}/"),
        json!({"configurationType": "agent"}),
    )
    .await;
    let keys = caller::parse_keys("12#").expect("keys");
    let script = CallScript { keys, hangup: HangupRule::Never, ..CallScript::default() };
    drop(world.sim.place_call(script).all().await);
    let mut browser = signed_in(&world, "ravi").await;
    browser.visit("/console/inbox/").await;
    browser.click("#conversations a.row-link").await;
    browser.press("#timeline .event", "Transcript").await;
    browser.until("document.querySelector('.transcript[open] dl')?.checkVisibility()").await;
    let script = "[...document.querySelectorAll('.transcript dl > *')].map((e) => e.textContent)";
    let transcript = browser.eval(script).await;
    let transcript: Vec<_> =
        transcript.as_array().unwrap().iter().map(|part| part.as_str().unwrap()).collect();
    let name = "Asha Verma";
    assert_eq!(transcript.len(), 6, "{transcript:?}");
    assert!(
        is_begin_of(&json!(transcript[1]), "Welcome. How can I help you?"),
        "the key came into it: {transcript:?}"
    );
    let others = [transcript[0], transcript[2], transcript[3], transcript[4], transcript[5]];
    assert_eq!(others, ["Agent", name, "12", "Agent", "You pressed <one> and two."]);
    picture(&mut browser, "transcript").await;
    if let Some(axe) = axe() {
        assert_eq!(browser.barriers(&axe).await, [""; 0]);
    }
    // Unrelated events leave the panel open.
    writes(&world, &json!({"message": "Thank you", "from": crate::support::chat::USER})).await;
    browser.says("#timeline", "Thank you").await;
    browser.until("document.querySelector('.transcript[open]')").await;
    // The call leads to its agent, and the agent to its calls.
    let id = agent.as_str().unwrap();
    browser.visit(&format!("/console/calls/?agent={id}")).await;
    browser.says(".filters select[name=agent]", "Night desk").await;
    browser.click("#history a.row-link").await;
    browser.says("#call-head .links", "Night desk").await;
    let asha = Session::of(&world, "asha").await;
    let page = asha.get(&format!("/console/agents/{id}/")).await.text();
    assert!(page.contains(&format!("href=\"/console/calls/?agent={id}\"")));
    // With a simulated Meta, its user can call and write to the agent.
    assert!(page.contains(&format!("/_sim/phone?to={NUMBER}\"")), "{page}");
    let other = asha.get(&format!("/console/calls/?agent={}", uuid::Uuid::nil())).await.text();
    assert!(other.contains("No matching calls"));
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_takes_over_one_existing_conversation_or_all() {
    if !has_chromium() {
        return;
    }
    let world = with_numbers().await;
    let server = AgentServer::start(|_| reply("Good evening.", Value::Null)).await;
    let mut agents = Vec::new();
    for name in ["Night desk", "Day desk"] {
        let agent =
            json!({"name": name, "kind": "http", "endpoint": server.url, "channels": ["whatsapp"]});
        agents.push(api(&world, "POST", "agents/", agent).await["id"].clone());
    }
    writes(&world, &json!({"message": "Where is my order?", "from": USER})).await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/inbox/").await;
    browser.says("#conversations", "Where is my order?").await;
    let body = json!({"agent": agents[0]});
    api(&world, "POST", &format!("phone-numbers/{NUMBER}/connect-agent/"), body).await;
    browser.click("#conversations a.row-link").await;
    browser.says("#about", "Night desk answers new conversations of this number, not this").await;
    browser.press("#about", "Let Night desk answer").await;
    browser
        .until("document.querySelector('#about .pill.good')?.textContent === 'Night desk'")
        .await;
    writes(&world, &json!({"message": "And now?", "from": USER})).await;
    assert_eq!(server.until_requests(1).await.remove(0).body["input"]["text"], "And now?");
    picture(&mut browser, "agent-of-chat").await;

    browser.visit(&format!("/console/numbers/{NUMBER}/agent/")).await;
    let chosen = agents[1].as_str().expect("an id");
    browser.click(&format!("input[name=agent][value=\"{chosen}\"]")).await;
    browser.click("input[name=existing]").await;
    for (scheme, width) in [("light", 1200), ("dark", 390)] {
        browser.prefer(scheme).await;
        browser.size(width, 844).await;
        picture(&mut browser, &format!("agent-of-number-{scheme}")).await;
    }
    browser.press("form", "Save").await;
    browser.until("location.search.includes('done=agent')").await;
    browser.visit("/console/inbox/").await;
    browser.says("#conversations", "Day desk").await;
    picture(&mut browser, "agent-in-inbox").await;
    if let Some(axe) = axe() {
        assert_eq!(browser.barriers(&axe).await, [""; 0]);
    }
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_13_a_number_is_activated_and_deactivated_with_the_toggle() {
    if !has_chromium() {
        return;
    }
    let world = with_numbers().await;
    let server = AgentServer::start(|_| reply("Good evening.", Value::Null)).await;
    let agent = json!({"name": "Night desk", "kind": "http", "endpoint": server.url, "channels": ["whatsapp"]});
    let agent = api(&world, "POST", "agents/", agent).await["id"].clone();
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/numbers/").await;
    browser.click(&format!("#number-{NUMBER} button[value=sync]")).await;
    let toggle = format!("#number-{NUMBER} [role=switch]");
    let is = |checked: &str| format!("document.querySelector('{toggle}[aria-checked={checked}]')");
    // Enabling without an agent is refused with an explanation.
    browser.until(&is("false")).await;
    browser.click(&toggle).await;
    browser.until_toast("Select one with “Assign…”").await;
    browser.until(&is("false")).await;
    api(
        &world,
        "POST",
        &format!("phone-numbers/{NUMBER}/connect-agent/"),
        json!({ "agent": agent }),
    )
    .await;
    browser.until(&is("true")).await;
    browser.click(&toggle).await;
    browser.until_toast("The agent is inactive").await;
    browser.until(&is("false")).await;
    browser.says(&toggle, "Inactive").await;
    assert_eq!(
        api(&world, "GET", &format!("phone-numbers/{NUMBER}/"), Value::Null).await["active"],
        false
    );
    writes(&world, &json!({"message": "Is anybody there?", "from": USER})).await;
    browser.click(&toggle).await;
    browser.until_toast("The agent is active").await;
    browser.until(&is("true")).await;
    // The agent's first turn contains only messages after that.
    writes(&world, &json!({"message": "And now?", "from": USER})).await;
    let turn = server.until_requests(1).await.remove(0);
    assert_eq!(turn.body["input"]["text"], "And now?");

    picture(&mut browser, "toggle").await;
    if let Some(axe) = axe() {
        assert_eq!(browser.barriers(&axe).await, [""; 0]);
    }
    // A person who may only view sees the state. Another account's number is not found.
    let ravi = Session::of(&world, "ravi").await;
    let page = ravi.get("/console/numbers/").await.text();
    assert!(page.contains("Night desk") && !page.contains("role=\"switch\""));
    assert_eq!(
        ravi.post(&format!("/console/numbers/{NUMBER}/do"), &[("do", "inactive")]).await.status,
        403
    );
    let eve = Session::of(&world, "eve").await;
    assert_eq!(
        eve.post(&format!("/console/numbers/{NUMBER}/do"), &[("do", "inactive")]).await.status,
        404
    );
    assert_eq!(
        api(&world, "GET", &format!("phone-numbers/{NUMBER}/"), Value::Null).await["active"],
        true
    );
    browser.errors.retain(|error| !error.contains("400"));
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_playgrounds_document_runs_on_its_authors_phone() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let next = world.app.url("/next");
    world.app.xml("/next", "<Response><Speak>Thank you</Speak></Response>");
    let document = format!(
        "<Response><GetInput action=\"{next}\" numDigits=\"1\" executionTimeout=\"60\"><Speak loop=\"0\">Press a key</Speak>\
         </GetInput></Response>"
    );
    let mut page = signed_in(&world, "asha").await;
    page.visit("/console/playground/").await;
    page.fill("#source", &document).await;
    page.press(".run", "Call from this browser").await;
    // No phone exists yet: one click creates it and places the call.
    page.says(".note.act", "Your account has none yet").await;
    picture(&mut page, "playground-no-endpoint").await;
    // Enter in a field activates the first submit button of its form, which runs the document.
    let default = "[...document.querySelector('#draft-form').elements].find((one) => one.type === 'submit').value";
    assert_eq!(page.eval(default).await, "");
    page.press(".note.act", "Create endpoint and call").await;
    page.says("[data-at=state]", "In a call: Your document").await;
    page.until("document.querySelector('[data-at=them]').value > 0.01").await;
    picture(&mut page, "playground-call").await;
    if let Some(axe) = axe() {
        assert_eq!(page.barriers(&axe).await, [""; 0]);
    }
    page.press("[data-at=keys]", "4").await;
    let asked = world.app.wait("/next").await;
    let params = ["Digits", "From", "To", "CallType"]
        .map(|name| asked.param(name).split('@').next().unwrap().to_owned());
    assert_eq!(params, ["4", "sip:asha", "playground", "web"]);
    page.says("[data-at=state]", "Ended: End Of XML Instructions").await;
    assert_eq!(
        page.eval("document.querySelector('#source').value.includes('Press a key')").await,
        true
    );
    let asha = Session::of(&world, "asha").await;
    assert!(
        asha.get("/console/phone/").await.text().contains("Not registered"),
        "for one call only"
    );
    let call = page
        .eval("document.querySelector('[data-at=see]:not([hidden]) a').getAttribute('href')")
        .await;
    let call = call.as_str().expect("a link").to_owned();
    let log = asha.get(&format!("{call}log.jsonl")).await.text();
    assert!(log.contains("Press a key") && log.contains("Thank you"), "{log}");
    assert!(asha.get(&call).await.text().contains("call from the phone"), "what it began with");
    assert_eq!(world.app.requests().len(), 1, "no answer URL and no hangup callback was asked");

    // With an endpoint one click suffices. Other people don't see the saved draft.
    page.press(".run", "Call from this browser").await;
    page.says("[data-at=state]", "In a call: Your document").await;
    page.press(".handset", "Hang up").await;
    page.says("[data-at=state]", "Ended").await;
    let kept =
        asha.post("/console/playground/", &[("source", &document), ("do", "call")]).await.text();
    let id = kept
        .split("data-draft=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("a draft")
        .to_owned();
    world.endpoint("ravi").await;
    let mut ravi = Phone::registered(&world.node.public, "ravi", PASSWORD).await.0;
    ravi.say(json!({"type": "call", "to": "playground", "sdp": OFFER, "draft": id})).await;
    assert_eq!(ravi.receive("error").await["code"], "no_draft");
    let ravi = Session::of(&world, "ravi").await;
    let refused = ravi.post("/console/playground/", &[("source", &document), ("do", "call")]).await;
    assert_eq!(refused.status, 403, "agents write no documents that are run");
    assert_eq!(page.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_loses_its_registration_in_a_call_says_why_and_frees_the_microphone() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    world.app.xml("/unused", dial_asha(&world));
    for path in ["/events", "/dialled"] {
        world.app.xml(path, "<Response/>");
    }
    for (reason, shown) in
        [("deleted", "the endpoint was deleted"), ("signed out", "you were signed out")]
    {
        let endpoint = world.endpoint("asha").await;
        let mut phone = softphone(&world).await;
        let caller =
            world.sim.place_call(CallScript { hangup: HangupRule::Never, ..CallScript::default() });
        phone.until("document.querySelector('[data-at=accept]:not([hidden])')").await;
        phone.press(".handset", "Answer").await;
        phone.says("[data-at=state]", "In a call").await;
        phone
            .eval(
                "globalThis.track = document.querySelector('offhook-phone').peer.getSenders()[0].track; 0",
            )
            .await;
        let gone = match reason {
            "deleted" => {
                let path = format!("Endpoint/{endpoint}/");
                world.rest("DELETE", &path, &[], String::new()).await.status == 204
            }
            _ => {
                let asha = Session::of(&world, "asha").await;
                asha.post("/console/sign-out", &[("everywhere", "1")]).await.status == 303
            }
        };
        assert!(gone, "{reason}");
        phone.says("[data-at=state]", shown).await;
        assert_eq!(phone.eval("track.readyState").await, "ended", "{reason}");
        let is_over = "document.querySelector('[data-at=hangup]').disabled";
        assert_eq!(phone.eval(is_over).await, true, "{reason}");
        drop(caller.all().await);
        phone.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phone_rings_on_every_page_in_the_browser() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    world.endpoint("asha").await;
    world.app.xml("/unused", dial_asha(&world));
    for path in ["/events", "/dialled"] {
        world.app.xml(path, "<Response/>");
    }
    let mut phone = softphone(&world).await;
    let mut page = phone.another(&format!("{}/console/calls/", world.node.public)).await;
    let off = "document.querySelector('#phone-off').checkVisibility()";
    page.until("document.documentElement.dataset.ready !== undefined").await;
    assert_eq!(page.eval(off).await, false, "a phone is on");
    let rings = |name: &str| {
        let script = CallScript {
            name: name.to_owned(),
            from: USER.to_owned(),
            hangup: HangupRule::Never,
            ..CallScript::default()
        };
        world.sim.place_call(script)
    };
    let shown = "(document.querySelector('#ringing')?.innerText ?? '')";

    // The banner names the caller and the number. A call that is taken there moves to the phone.
    let caller = rings("Ravi Menon");
    page.says(".ringing-card", "Ravi Menon").await;
    page.says(".ringing-card", "+919812345678").await;
    page.says(".ringing-card", &format!("via +{NUMBER}")).await;
    for (scheme, width) in [("dark", 390), ("light", 1200)] {
        page.prefer(scheme).await;
        page.size(width, 844).await;
        picture(&mut page, &format!("ringing-{scheme}")).await;
        if let Some(axe) = axe() {
            assert_eq!(page.barriers(&axe).await, [""; 0]);
        }
    }
    page.press(".ringing-card", "Answer").await;
    phone.says("[data-at=state]", "In a call: Ravi Menon").await;
    page.says("#toasts", "the tab of your phone").await;
    page.until(&format!("{shown} === ''")).await;
    phone.press(".handset", "Hang up").await;
    phone.says("[data-at=state]", "Ended").await;
    drop(caller.all().await);
    // W403 is not reported, since the address has the host of this node. W311 is not, since the node requests http URLs. The other leg starts when dialling starts.
    page.visit("/console/calls/?direction=inbound").await;
    page.click("#history a.row-link").await;
    page.says("#notes", "W301").await;
    let reported = "/W403|W311/.test(document.querySelector('#notes').textContent)";
    assert_eq!(page.eval(reported).await, false);
    page.visit("/console/calls/?direction=outbound").await;
    page.click("#history a.row-link").await;
    page.says("#waterfall", "dialled by the A-leg").await;

    // Decline from the banner.
    let caller = rings("Omar Haddad");
    page.says(".ringing-card", "Omar Haddad").await;
    page.press(".ringing-card", "Decline").await;
    phone.says("[data-at=state]", "Stopped ringing").await;
    page.until(&format!("{shown} === ''")).await;
    drop(caller.all().await);

    // The caller hangs up, or the phone's tab closes while it rings: the banner disappears.
    let caller = world.sim.place_call(CallScript {
        hangup: HangupRule::AfterPlaced(std::time::Duration::from_secs(2)),
        ..CallScript::default()
    });
    page.until("document.querySelector('.ringing-card')").await;
    page.until("!document.querySelector('.ringing-card')").await;
    drop(caller.all().await);
    let caller = rings("Sara Khan");
    page.says(".ringing-card", "Sara Khan").await;
    phone.close().await;
    page.until("!document.querySelector('.ringing-card')").await;
    page.until(off).await;
    drop(caller);
    page.click("#phone-off").await;
    page.says("[data-at=state]", "sip:asha@").await;
    assert_eq!(page.errors, [""; 0]);
}
