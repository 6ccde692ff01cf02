//! Takes the pictures of `docs/images`: the console of a busy node and the browser phone, in a real
//! Chromium. Takes two minutes, because the call with the audio graph lasts that long.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sim::{CallScript, Faults, HangupRule, caller};

use crate::console::{people, signed_in};
use crate::console_flows::orders;
use crate::console_look::{picture, writes};
use crate::outbound::{World, world};
use crate::phone::Dev;
use crate::support::browser::{Browser, has_chromium};

const CALLER: &str = "919820011223";
const WRITER: &str = "919812345678";
/// A network with little loss, jitter and a short outage.
const WEATHER: &str = "seed = 7\n[[fault]]\nuser = \"919820011223\"\ndo = \"media\"\nloss = 1.5\njitter_ms = 25\n\
    weather_after_ms = 21000\nafter_ms = 52000\ngap_ms = 1300\n";

const MENU: &str = "<Response>\n  <GetInput action=\"ACTION\" numDigits=\"1\" executionTimeout=\"30\">\n    \
    <Speak>Welcome to Acme. For sales, press 1. For support, press 2.</Speak>\n  </GetInput>\n</Response>";
const SUPPORT: &str = "<Response>\n  <Speak>Support is with you in a moment.</Speak>\n  <Wait length=\"600\"/>\n</Response>";

fn call(from: &str, name: &str, after: u64) -> CallScript {
    let hangup = match after {
        0 => HangupRule::Never,
        seconds => HangupRule::AfterAnswer(Duration::from_secs(seconds)),
    };
    let keys = caller::parse_keys("W2").expect("keys");
    let say = vec![Arc::from([0x48, 1, 2].as_slice()); 5_500];
    CallScript {
        from: from.to_owned(),
        name: name.to_owned(),
        keys,
        hangup,
        say,
        ..CallScript::default()
    }
}

async fn acme() -> World {
    let world = world(|node, sim| {
        node.extra.push_str(&people());
        node.accept_wait_ms = 3_000;
        sim.faults = Faults::parse(WEATHER).expect("rules");
    })
    .await;
    world.app.xml("/unused", MENU.replace("ACTION", &world.app.url("/menu")));
    world.app.xml("/menu", SUPPORT);
    world
}

async fn conversation(world: &World, browser: &mut Browser) {
    for text in ["Hello, is my order on its way?", "It is number 4711."] {
        writes(world, &json!({"message": text, "from": WRITER, "name": "Asha Verma"})).await;
    }
    writes(world, &json!({"message": "Do you deliver to Pune?", "from": "919845098450", "name": "Ravi Menon"})).await;
    browser.visit("/console/inbox/").await;
    browser.until("document.querySelectorAll('#conversations a.row-link').length === 2").await;
    browser.eval("[...document.querySelectorAll('#conversations a.row-link')].find((a) => a.textContent.includes('Asha')).click()").await;
    for (answer, then) in [
        ("Good morning, Asha. One moment, I am looking it up.", "Thank you so much!"),
        (
            "It left our warehouse today and will be with you tomorrow by noon.",
            "Great. Could you call me before?",
        ),
    ] {
        browser.fill("#text", answer).await;
        browser.press(".composer", "Send").await;
        browser.says(".bubble.ours:last-of-type", "Read").await;
        writes(world, &json!({"message": then, "from": WRITER, "name": "Asha Verma"})).await;
        browser.says("#timeline", then).await;
    }
    browser.press("#about", "Generate insights").await;
    browser.until("document.querySelector('#about .pairs dd .pill')").await;
    browser.press("#about", "Request permission").await;
    browser.says("#about", "Requested").await;
    orders(world, "permissions/answer", json!({"user": WRITER, "answer": "accept"})).await;
    browser.says("#about", "Granted until").await;
}

async fn shot(browser: &mut Browser, name: &str, height: u32) {
    browser.devtools("Emulation.setScrollbarsHidden", json!({"hidden": true})).await;
    browser.size(1280, height).await;
    browser.eval("document.activeElement?.blur(); scrollTo(0, 0)").await;
    picture(browser, name).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "name a folder for the pictures with OFFHOOK_TEST_SHOTS"]
async fn the_pictures_of_the_console() {
    if !has_chromium() {
        return;
    }
    let world = acme().await;
    let mut browser = signed_in(&world, "asha").await;
    browser.size(1280, 860).await;
    browser.prefer("light").await;
    let long = world.sim.place_call(call(CALLER, "Meera Joshi", 108));
    let short = [
        ("919930077665", "Ravi Menon", 6),
        ("919845098450", "Lena Fischer", 9),
        ("919867543210", "Omar Haddad", 14),
        ("919812345678", "Asha Verma", 19),
        ("919811122334", "", 4),
    ];
    let ended = short.map(|(from, name, after)| world.sim.place_call(call(from, name, after)));
    let brief = CallScript {
        hangup: HangupRule::AfterPlaced(Duration::from_secs(11)),
        ..call("919700012345", "Sara Khan", 0)
    };
    let brief = world.sim.place_call(brief);
    conversation(&world, &mut browser).await;
    shot(&mut browser, "console-inbox", 900).await;

    browser.visit("/console/playground/").await;
    browser.press("main", "Menu").await;
    browser.until("document.querySelector('textarea')?.value.includes('GetInput')").await;
    browser.press("main", "Run").await;
    browser.until("document.querySelector('.walk li')").await;
    shot(&mut browser, "console-playground", 860).await;

    for call in ended {
        call.all().await;
    }
    brief.all().await;
    let up = [("919900112233", "Priya Nair"), ("919822334455", "Jonas Weber")]
        .map(|(from, name)| world.sim.place_call(call(from, name, 0)));
    browser.visit("/console/").await;
    browser.until("document.querySelectorAll('tr[id^=call-] .pill.live').length === 3").await;
    shot(&mut browser, "console-overview", 860).await;

    long.all().await;
    browser.visit("/console/calls/?from=919820011223").await;
    browser.click("#history a.row-link").await;
    browser
        .until(
            "document.querySelector('#sound .gauge') && document.querySelectorAll('table.course tbody tr').length > 15",
        )
        .await;
    browser.until("!document.body.dataset.live?.includes('call:')").await;
    shot(&mut browser, "console-call", 1180).await;
    let quality: Value = browser.eval("document.querySelector('#sound').innerText").await;
    assert!(quality.as_str().is_some_and(|text| text.contains("MOS")), "{quality}");
    drop(up);
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "name a folder for the pictures with OFFHOOK_TEST_SHOTS"]
async fn the_picture_of_the_browser_phone() {
    if !has_chromium() {
        return;
    }
    let dev = Dev::start(&[]);
    let mut page = Browser::open(&dev.address("browser phone")).await;
    page.prefer("light").await;
    page.eval("document.getElementById('call').click()").await;
    page.says("#steps", "Welcome to Offhook").await;
    page.eval("document.querySelector('[data-key=\"1\"]').click()").await;
    page.until("(document.getElementById('steps').innerText.match(/GetInput/g) ?? []).length >= 3")
        .await;
    shot(&mut page, "browser-phone", 860).await;
    assert_eq!(page.errors, [""; 0]);
}
