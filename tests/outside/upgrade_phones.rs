//! Upgrades while endpoints' phones ring or talk: a client of the protocol, and the console's phone in
//! a real Chromium.

use serde_json::{Value, json};
use sim::{CallScript, HangupRule};

use crate::console::people;
use crate::console_talk::softphone;
use crate::dial::{dominates_ms, recorded, tone};
use crate::endpoints::{PASSWORD, dial_asha};
use crate::outbound::{self, world};
use crate::support::browser::has_chromium;
use crate::support::phone::{OFFER, Phone};
use crate::upgrade::{World, check_output, check_replay, end, fail_to_serve, text};

/// The tone of the page's microphone.
const PAGE_HZ: f64 = 900.0;

async fn register(public: &str, resume: &str) -> (Phone, Value) {
    let mut phone = Phone::open(public).await;
    let register =
        json!({"type": "register", "endpoint": "asha", "password": PASSWORD, "resume": resume});
    phone.say(register).await;
    let registered = phone.receive("registered").await;
    (phone, registered)
}

/// A node whose calls ring asha, with her endpoint.
async fn with_asha(extra: &str) -> outbound::World {
    let world = world(|node_config, _| {
        node_config.extra.push_str(extra);
        node_config.accept_wait_ms = 0;
    })
    .await;
    for path in ["/events", "/dialled", "/hangup"] {
        world.app.xml(path, "<Response/>");
    }
    world.app.xml("/unused", dial_asha(&world));
    world.endpoint("asha").await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_rings_takes_the_call_in_the_new_process() {
    let outbound::World { node, sim, app } = with_asha("").await;
    let Some(mut world) = World::of(node, sim, app).await else { return };
    let (mut phone, session) = Phone::registered(&world.node.public, "asha", PASSWORD).await;
    let script = CallScript { hangup: HangupRule::Never, ..CallScript::default() };
    let caller = world.sim.as_ref().expect("a simulated Meta").place_call(script.clone());
    let rung = phone.receive("ring").await;
    check_output(&world.upgrade(&["--wait", "20"]).await, 2);
    assert_eq!(phone.closed().await, Some(1001));

    // A further call comes before the phone is back.
    let early = CallScript { from: "919812349999".to_owned(), ..script };
    let early = world.sim.as_ref().expect("a simulated Meta").place_call(early);
    world.node.until_metric("offhook_calls_active", &[], 4.0).await;
    let (mut phone, registered) = register(&world.node.public, &session).await;
    assert_eq!(registered["calls"], json!([]), "it only rang");
    let [first, second] = [phone.receive("ring").await, phone.receive("ring").await];
    let again = [&first, &second].into_iter().find(|ring| ring["call"] == rung["call"]);
    assert_eq!(again, Some(&rung), "{first} {second}");
    let later = if first["call"] == rung["call"] { &second } else { &first };
    assert_eq!(later["from"], "919812349999");
    phone.say(json!({"type": "reject", "call": later["call"]})).await;
    phone.receive("cancelled").await;
    assert_eq!(world.app.wait("/dialled").await.param("DialStatus"), "busy");

    phone.say(json!({"type": "accept", "call": rung["call"], "sdp": OFFER})).await;
    phone.receive("answer").await;
    phone.say(json!({"type": "hangup", "call": rung["call"]})).await;
    assert_eq!(phone.receive("ended").await["source"], "Callee");
    let (caller, early) = tokio::join!(end(caller), end(early));
    assert!(caller.ok && early.ok, "{caller:?} {early:?}");
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    let uuid = rung["call"].as_str().expect("a UUID");
    check_replay(&world, uuid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_whose_media_is_not_connected_goes_on_in_its_process() {
    let outbound::World { node, sim, app } = with_asha("").await;
    app.xml("/answer", "<Response><Wait length=\"60\"/></Response>");
    let Some(mut world) = World::of(node, sim, app).await else { return };
    let (mut phone, _) = Phone::registered(&world.node.public, "asha", PASSWORD).await;
    phone.say(json!({"type": "call", "to": "support", "sdp": OFFER})).await;
    let call = phone.receive("calling").await["call"].clone();
    let refused = world.upgrade(&[]).await;
    let printed = format!("{}{}", text(&refused.stdout), text(&refused.stderr));
    assert!(printed.contains(&format!("{}: ", call.as_str().expect("a UUID"))), "{printed}");
    phone.say(json!({"type": "hangup", "call": call})).await;
    phone.receive("ended").await;
    let output = world.upgrade(&["--wait", "20"]).await;
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_consoles_phone_goes_on_talking_in_the_new_process() {
    if !has_chromium() {
        return;
    }
    let world = with_asha(&people()).await;
    let mut page = softphone(&world).await;
    let outbound::World { node, sim, app } = world;
    let Some(mut world) = World::of(node, sim, app).await else { return };
    let script = CallScript {
        say: tone(700.0, 120),
        record: true,
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let caller = world.sim.as_ref().expect("a simulated Meta").place_call(script);
    page.until("document.querySelector('[data-at=accept]:not([hidden])')").await;
    page.press(".handset", "Answer").await;
    page.says("[data-at=state]", "In a call").await;
    page.eval("mouth.gain.value = 1").await;
    page.until("document.querySelector('[data-at=them]').value > 0.01").await;
    let connected =
        world.app.wait_where("/events", |seen| seen.param("Event") == "DialConnected").await;

    // Counts the registrations.
    let count = "globalThis.registered = 0; const phone = document.querySelector('offhook-phone'); const receive = \
        phone.receive.bind(phone); phone.receive = (message) => { if (message.type === 'registered') registered++; return receive(message); }; 0";
    page.eval(count).await;
    for times in 1..=2 {
        check_output(&world.upgrade(&["--wait", "20"]).await, 2);
        page.until(&format!("registered === {times}")).await;
        page.says("[data-at=state]", "In a call").await;
    }
    fail_to_serve(&mut world).await;
    page.until("registered >= 3").await;
    page.says("[data-at=state]", "In a call").await;
    page.until("document.querySelector('[data-at=them]').value > 0.01").await;
    // The caller hears the page for a while.
    page.eval("new Promise((done) => setTimeout(done, 3000))").await;
    page.press(".handset", "Hang up").await;
    page.says("[data-at=state]", "Ended").await;
    assert_eq!(world.app.wait("/dialled").await.param("DialStatus"), "completed");
    let events = caller.all().await;
    let samples = recorded(&events);
    let durations: Vec<_> =
        samples.rchunks(16_000).map(|second| dominates_ms(second, PAGE_HZ)).collect();
    assert!(
        durations.iter().take(4).sum::<u64>() > 2_000,
        "ms of each second, latest first: {durations:?}"
    );
    for uuid in [connected.param("CallUUID"), connected.param("DialBLegUUID")] {
        check_replay(&world, uuid).await;
    }
    assert_eq!(page.errors, [""; 0]);
}
