//! Request and response bodies of a call on its page and over the API, and its step-by-step replay,
//! in a real Chromium.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sim::{CallScript, HangupRule, caller};

use crate::console::{Session, people, signed_in};
use crate::console_look::look;
use crate::outbound::{World, world};
use crate::support::browser::{axe, has_chromium};
use crate::support::http;
use crate::support::node::API_KEY;

const HOSTILE: &str = "<img src=x onerror=alert(1)>";

async fn with_menu() -> World {
    world(|node, _| {
        node.extra.push_str(&people());
        node.accept_wait_ms = 3_000;
    })
    .await
}

/// Runs a call by a caller with a hostile name who presses 1 in a menu. Returns its UUID after the
/// hangup callback has been delivered.
async fn menu(world: &World) -> String {
    let menu = "<Response>\n  <GetInput action=\"MENU\" numDigits=\"1\">\n    <Speak>For sales, press 1.</Speak>\n  \
                </GetInput>\n</Response>";
    world.app.xml("/unused", menu.replace("MENU", &world.app.url("/menu")));
    world.app.xml(
        "/menu",
        "<Response>\n  <Speak>Thank you.</Speak>\n  <Wait length=\"600\"/>\n</Response>",
    );
    let script = CallScript {
        name: HOSTILE.to_owned(),
        keys: caller::parse_keys("w1").expect("keys"),
        say: vec![Arc::from([0x48, 1, 2].as_slice()); 300],
        hangup: HangupRule::AfterAnswer(Duration::from_secs(4)),
        ..CallScript::default()
    };
    world.sim.place_call(script).all().await;
    let hangup = world.app.wait_where("/unused", |seen| seen.param("Event") == "Hangup").await;
    let uuid = hangup.param("CallUUID").to_owned();
    world.node.record(&uuid).await;
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for _ in 0..500 {
        every.tick().await;
        let fall = waterfall(world, &uuid).await;
        if fall["bars"]
            .as_array()
            .is_some_and(|bars| bars.iter().any(|bar| bar["name"] == "callback hangup"))
        {
            return uuid;
        }
    }
    panic!("no callback's bar");
}

async fn waterfall(world: &World, uuid: &str) -> Value {
    let url = format!("{}/api/v1/calls/{uuid}/waterfall/", world.node.public);
    let answer = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Returns the bodies of a waterfall bar.
fn bodies<'f>(fall: &'f Value, name: &str) -> Vec<&'f Value> {
    let bars = fall["bars"].as_array().expect("bars");
    let bar =
        bars.iter().find(|bar| bar["name"] == name).unwrap_or_else(|| panic!("{name} in {fall}"));
    bar["bodies"].as_array().unwrap_or_else(|| panic!("bodies of {name}")).iter().collect()
}

fn field<'f>(body: &'f Value, key: &str) -> &'f str {
    body[key].as_str().unwrap_or_else(|| panic!("{key} of {body}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_on_the_page_and_in_the_api_without_secrets() {
    let world = with_menu().await;
    let uuid = menu(&world).await;
    let fall = waterfall(&world, &uuid).await;

    // Meta's webhook: the call, its parties, and the offer.
    let webhook = bodies(&fall, "webhook");
    assert_eq!((field(webhook[0], "way"), field(webhook[0], "kept")), ("received", "rebuilt"));
    let webhook_body: Value = serde_json::from_str(field(webhook[0], "text")).expect("JSON");
    assert_eq!(webhook_body["value"]["calls"][0]["event"], "connect");
    assert_eq!(webhook_body["value"]["contacts"][0]["profile"]["name"], HOSTILE);
    assert_eq!(field(webhook[1], "kind"), "sdp");
    assert!(
        field(webhook[1], "text").starts_with("v=0\n")
            && field(webhook[1], "text").contains("a=ice-pwd:…")
    );

    // Graph: the request with our SDP answer, and the response.
    for action in ["pre_accept", "accept"] {
        let graph = bodies(&fall, &format!("graph {action}"));
        let asked: Value = serde_json::from_str(field(graph[0], "text")).expect("JSON");
        assert_eq!(
            (&asked["action"], &asked["session"]["sdp_type"]),
            (&action.into(), &"answer".into())
        );
        assert!(
            field(graph[0], "head").starts_with("POST /")
                && field(graph[0], "head").ends_with("/calls")
        );
        assert!(field(graph[1], "text").contains("a=setup:") && field(graph[1], "way") == "sent");
        let answer: Value = serde_json::from_str(field(graph[2], "text")).expect("JSON");
        assert_eq!((field(graph[2], "head"), &answer["success"]), ("200", &Value::Bool(true)));
    }

    // The customer's server: the request byte for byte, and the document.
    let fetch = bodies(&fall, "fetch answer");
    assert!(
        field(fetch[0], "text").contains("CallStatus=ringing\n")
            && field(fetch[0], "kept") == "whole"
    );
    assert!(field(fetch[1], "text").contains("<GetInput") && field(fetch[1], "kind") == "xml");
    assert!(field(bodies(&fall, "fetch action")[0], "text").contains("Digits=1\n"));
    let hangup = bodies(&fall, "callback hangup");
    assert_eq!(field(hangup[0], "head"), format!("POST {}", world.app.url("/unused")));
    assert!(field(hangup[0], "text").contains(&format!("CallUUID={uuid}\n")), "{hangup:?}");
    assert_eq!((field(hangup[1], "head"), field(hangup[1], "kept")), ("200", "not_kept"));

    // Other accounts can't see the call. The page shows the same data as the API, and neither
    // contains secrets.
    let url = format!("{}/api/v1/calls/{uuid}/waterfall/", world.node.public);
    assert_eq!(
        http::send("GET", &url, &[("x-api-key", "test-key-of-other-account")], "").await.status,
        404
    );
    let asha = Session::of(&world, "asha").await;
    let page = asha.get(&format!("/console/calls/{uuid}/")).await.text();
    for text in [
        "&#34;connect&#34;",
        "&#34;pre_accept&#34;",
        "a=ice-pwd:…",
        "HangupCause=",
        "Digits=1",
        "does not contain the body",
        "<dt>Voice</dt><dd class=\"names\"><span dir=\"ltr\">builtin en-US</span></dd>",
    ] {
        assert!(page.contains(text), "{text}");
    }
    assert!(!page.contains(HOSTILE) && page.contains("&#60;img src=x"));
    let log = asha.get(&format!("/console/calls/{uuid}/log.jsonl")).await.text();
    for text in [page, fall.to_string(), log] {
        let sdp_passwords = text.matches("a=ice-pwd:").count();
        assert!(sdp_passwords > 0 && sdp_passwords == text.matches("a=ice-pwd:…").count());
        for secret in
            ["X-Plivo-Signature", "Authorization", "Bearer", crate::support::node::ACCESS_TOKEN]
        {
            assert!(!text.contains(secret), "{secret}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stepping_through_a_call_shows_the_machines_state() {
    if !has_chromium() {
        return;
    }
    let world = with_menu().await;
    let uuid = menu(&world).await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit(&format!("/console/calls/{uuid}/")).await;
    browser.eval("globalThis.marked = 1").await;
    // Without a step the replay shows the end.
    browser.says("#holds-state td", "ended").await;
    browser.says("#holds-slot td", "released").await;

    browser.click("#replay [data-to=first]").await;
    browser.until("document.querySelector('#step-1.chosen')").await;
    browser.says("#holds-state.changed td", "preparing").await;
    browser.says("#holds-slot td", "in use").await;
    browser.says("#holds-graph td", "pre_accept pending").await;
    let place = "(() => { const box = (s) => document.querySelector(s).getBoundingClientRect(); \
                 return [box('#replay').height, box('#replay').top, box('.holds').height, box('[data-to=forward]').left]; })()";
    browser.eval("document.querySelector('#replay').scrollIntoView()").await;
    let before = browser.eval(place).await;

    // Step with the button, which keeps its place and the focus, and with the arrow keys in both
    // directions.
    browser.eval("document.querySelector('#replay [data-to=forward]').focus()").await;
    browser.click("#replay [data-to=forward]").await;
    browser.until("document.querySelector('#step-2.chosen') && document.activeElement.dataset.to === 'forward'").await;
    assert_eq!(browser.eval(place).await, before, "nothing jumps");
    let key = |key: &str| {
        format!(
            "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true, cancelable: true }}))"
        )
    };
    browser.eval(&key("ArrowLeft")).await;
    browser.until("document.querySelector('#step-1.chosen')").await;
    let steps = browser
        .eval("document.querySelectorAll('#replay tbody[data-rows] tr').length")
        .await
        .as_u64()
        .unwrap();
    let mut seen = String::new();
    for step in 2..=steps {
        browser.eval(&key("ArrowRight")).await;
        browser.until(&format!("document.querySelector('#step-{step}.chosen')")).await;
        assert_eq!(browser.eval(place).await, before, "step {step}: nothing jumps");
        seen += browser
            .eval("document.querySelector('.held-fields').innerText")
            .await
            .as_str()
            .unwrap();
        let row = "(() => { const [row, list] = ['.chosen', '.step-list'].map((s) => document.querySelector('#replay ' + s)\
                   .getBoundingClientRect()); return row.top >= list.top - 1 && row.top < list.bottom; })()";
        assert_eq!(browser.eval(row).await, true, "step {step} is in sight");
    }
    for text in [
        "media path",
        "accepting",
        "live",
        "<GetInput>",
        "or input",
        "<Speak>",
        "media connected",
        "maximum call duration",
    ] {
        assert!(seen.contains(text), "{text}: {seen}");
    }
    assert_eq!(browser.eval("globalThis.marked").await, 1, "without loading the page again");
    assert_eq!(
        browser.eval("new URLSearchParams(location.search).get('step')").await,
        steps.to_string()
    );

    // The same without JavaScript.
    let asha = Session::of(&world, "asha").await;
    let second = asha.get(&format!("/console/calls/{uuid}/?step=2")).await.text();
    assert!(
        second.contains("id=\"step-2\" class=\"chosen\" aria-current=\"step\"")
            && second.contains("After step 2 of")
    );

    let Some(axe) = axe() else { return };
    let mut found = Vec::new();
    browser.visit(&format!("/console/calls/{uuid}/?step=9")).await;
    browser
        .eval("for (const one of document.querySelectorAll('.bodies details')) one.open = true")
        .await;
    look(&mut browser, &axe, "bodies", &mut found).await;
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(browser.errors, [""; 0]);
}

/// Failed requests of all calls, by URL and kind, with what was sent and received; those of another
/// account are absent.
#[tokio::test(flavor = "multi_thread")]
async fn failed_requests_of_all_calls_are_on_the_errors_page() {
    let world = with_menu().await;
    let gone = world.app.url("/gone");
    let document = format!(
        "<Response><Play>{gone}.mp3?token=canary</Play><GetInput action=\"{gone}?token=canary\" numDigits=\"1\">\
         <Speak>Press 1.</Speak></GetInput></Response>"
    );
    world.app.route("/unused", move |seen| match seen.param("Event") {
        "Hangup" => (503, "busy".to_owned()),
        _ => (200, document.clone()),
    });
    world.app.route("/gone", |_| (404, "no such page".to_owned()));
    for _ in 0..2 {
        let script = CallScript {
            name: HOSTILE.to_owned(),
            keys: caller::parse_keys("w1").expect("keys"),
            say: vec![Arc::from([0x48, 1, 2].as_slice()); 300],
            hangup: HangupRule::AfterAnswer(Duration::from_secs(4)),
            ..CallScript::default()
        };
        world.sim.place_call(script).all().await;
    }
    let api = async |key: &str, path: &str| {
        let url = format!("{}/api/v1/failed-requests/{path}", world.node.public);
        let answer = http::send("GET", &url, &[("x-api-key", key)], "").await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let mut tries = 0;
    let groups = loop {
        let groups = api(API_KEY, "groups/").await;
        let items = groups["items"].as_array().expect("groups").clone();
        let has =
            |kind: &str| items.iter().any(|group| group["kind"] == kind && group["calls"] == 2);
        if has("fetch action") && has("callback hangup") && has("fetch file") {
            break items;
        }
        tries += 1;
        assert!(tries < 1_000, "{groups}");
        every.tick().await;
    };
    let action = groups.iter().find(|group| group["kind"] == "fetch action").expect("a group");
    assert_eq!(
        (&action["url"], &action["requests"]),
        (&Value::from(gone.as_str()), &Value::from(2)),
        "without the query"
    );
    let encoded: String = url::form_urlencoded::byte_serialize(gone.as_bytes()).collect();
    let first = api(API_KEY, &format!("?url={encoded}&kind=fetch+action&limit=1")).await;
    let next = first["next"].as_str().expect("another page");
    let second = api(API_KEY, &format!("?url={encoded}&limit=1&cursor={next}")).await;
    let (first, second) = (&first["items"][0], &second["items"][0]);
    assert_ne!(first["callUuid"], second["callUuid"]);
    assert!(field(first, "outcome").contains("404"), "{first}");
    assert_eq!(first["response"], "no such page");
    let hangups = api(API_KEY, "?kind=callback+hangup&limit=1").await;
    assert_eq!(hangups["items"][0]["response"], "busy", "{hangups}");
    let files = api(API_KEY, "?kind=fetch+file&limit=1").await;
    let file = &files["items"][0];
    assert_eq!(file["url"], format!("{gone}.mp3"), "{files}");
    assert!(field(file, "outcome").contains("404"), "{files}");
    for kind in ["x", "fetch", "fetch+hangup"] {
        let url = format!("{}/api/v1/failed-requests/?kind={kind}", world.node.public);
        let wrong = http::send("GET", &url, &[("x-api-key", API_KEY)], "").await;
        assert_eq!((wrong.status, &wrong.json()["error"]["field"]), (400, &Value::from("kind")));
    }
    assert_eq!(api("test-key-of-other-account", "").await["items"], Value::Array(Vec::new()));

    let asha = Session::of(&world, "asha").await;
    let all = asha.get("/console/errors/").await.text();
    assert!(all.contains(&gone) && !all.contains("canary"), "{all}");
    let one = asha.get(&format!("/console/errors/?url={encoded}&kind=fetch+action")).await.text();
    for part in [
        "404",
        "no such page",
        "Digits=1",
        "/gone",
        &format!("/console/calls/{}/", field(first, "callUuid")),
        &format!("/console/calls/{}/", field(second, "callUuid")),
    ] {
        assert!(one.contains(part), "{part} in {one}");
    }
    assert!(!one.contains(HOSTILE));
    let file =
        asha.get(&format!("/console/errors/?url={encoded}.mp3&kind=fetch+file")).await.text();
    assert!(file.contains("fetch audio file") && file.contains("404"), "{file}");
    assert!(!file.contains("event log"), "{file}");
    let eve = Session::of(&world, "eve").await;
    assert!(!eve.get("/console/errors/").await.text().contains(&gone));
    let foreign = eve.get(&format!("/console/errors/?url={encoded}")).await.text();
    assert!(!foreign.contains("Digits=1"), "{foreign}");
    assert_eq!(eve.get("/console/errors/?cursor=x&url=%00").await.status, 200);
    assert_eq!(eve.get("/console/errors/?hours=-1").await.status, 400);

    // A refused document: its request, and the beginning of the body.
    let document = "<!doctype html><title>Sign in to the shop</title>";
    world.app.route("/unused", move |seen| match seen.param("Event") {
        "Hangup" => (200, String::new()),
        _ => (200, document.to_owned()),
    });
    world.sim.place_call(CallScript::default()).all().await;
    let answer = world.app.url("/unused");
    let encoded_answer: String = url::form_urlencoded::byte_serialize(answer.as_bytes()).collect();
    let path = format!("?url={encoded_answer}&kind=fetch+answer");
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let refused = loop {
        every.tick().await;
        let list = api(API_KEY, &path).await;
        if let Some(refused) = list["items"].get(0) {
            break refused.clone();
        }
    };
    assert_eq!(refused["response"], document, "{refused}");
    let page = asha.get(&format!("/console/errors/{path}")).await.text();
    for part in ["Sign in to the shop", "CallStatus=ringing", "refused"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("not available") && !page.contains("does not contain"), "{page}");
    assert!(!one.contains("does not contain the body"), "{one}");

    if !has_chromium() {
        return;
    }
    let Some(axe) = axe() else { return };
    let mut found = Vec::new();
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/errors/").await;
    look(&mut browser, &axe, "errors", &mut found).await;
    browser.visit(&format!("/console/errors/?url={encoded}&kind=fetch+action")).await;
    browser.eval("document.querySelector('.failures details').open = true").await;
    look(&mut browser, &axe, "errors-url", &mut found).await;
    assert!(found.is_empty(), "{found:#?}");
    assert!(browser.errors.is_empty(), "{:#?}", browser.errors);
}
