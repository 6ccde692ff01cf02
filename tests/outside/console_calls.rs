//! The list of calls in the console: dense rows, legs below their calls, sorting, saved filters, the
//! CSV file, and the links between a call, its person and its number.

use std::time::Duration;

use serde_json::{Value, json};
use sim::{CallScript, CalleeBehaviour, HangupRule};

use crate::console::{Session, call, people, signed_in};
use crate::console_look::{picture, writes};
use crate::console_talk::api;
use crate::outbound::{World, world};
use crate::support::browser::has_chromium;
use crate::support::node::NUMBER;

const CALLER: &str = "919812345678";
const CALLEE: &str = "919412341234";

/// A call that dials another user and lasts two seconds. Returns the UUIDs of both legs.
async fn dialled_call(world: &World) -> (String, String) {
    let action = world.app.url("/dialled");
    world.app.xml(
        "/unused",
        format!(
            "<Response><Dial callType=\"whatsapp\" callerId=\"{NUMBER}\" action=\"{action}\"><User>+{CALLEE}</User>\
             </Dial></Response>"
        ),
    );
    world.app.xml("/dialled", "<Response><Hangup/></Response>");
    let callee = CallScript {
        callee: CalleeBehaviour { acts_after: Duration::ZERO, ..CalleeBehaviour::default() },
        hangup: HangupRule::AfterAnswer(Duration::from_secs(2)),
        ..CallScript::default()
    };
    let callee = world.sim.expect_call(callee);
    let caller = CallScript {
        from: CALLER.to_owned(),
        name: "Asha Verma".to_owned(),
        hangup: HangupRule::Never,
        ..CallScript::default()
    };
    let caller = world.sim.place_call(caller);
    tokio::join!(callee.all(), caller.all());
    let dialled = world.app.wait("/dialled").await;
    let legs = ["CallUUID", "DialBLegUUID"].map(|name| dialled.param(name).to_owned());
    for leg in &legs {
        world.node.record(leg).await;
    }
    let [a_leg, b_leg] = legs;
    (a_leg, b_leg)
}

async fn with_bridging() -> World {
    world(|node, _| {
        node.extra.push_str(&people());
        node.limits = "allow_wa_bridge = true".to_owned();
        node.accept_wait_ms = 0;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_sorted_filtered_saved_and_downloaded() {
    if !has_chromium() {
        return;
    }
    let world = with_bridging().await;
    writes(&world, &json!({"message": "Hello", "from": CALLEE, "name": "=Ravi, \"R\""})).await;
    let (a_leg, b_leg) = dialled_call(&world).await;
    let placed = call(&world).await;
    world.node.record(&placed).await;

    let mut browser = signed_in(&world, "asha").await;
    browser.size(1440, 900).await;
    browser.visit("/console/calls/").await;
    let order =
        "[...document.querySelectorAll('#history tbody tr')].map((row) => row.id).join(' ')";
    assert_eq!(
        browser.eval(order).await,
        format!("call-{placed} call-{a_leg} call-{b_leg}"),
        "a leg is below the call that dialled it"
    );
    let leg = format!("document.querySelector('#call-{b_leg}').matches('.leg')");
    assert_eq!(browser.eval(&leg).await, true);
    let heights = "[...document.querySelectorAll('#history tbody tr')].map((row) => Math.round(row.offsetHeight)).join()";
    assert_eq!(browser.eval(heights).await, "36,36,36");
    // Outbound calls are titled by the person, inbound ones by the caller's name.
    for (call, person, number) in [
        (&a_leg, "Asha Verma", NUMBER),
        (&b_leg, "=Ravi, \"R\"", NUMBER),
        (&placed, "+919812345678", NUMBER),
    ] {
        let cells = format!(
            "(([person, , number]) => `${{person}}|${{number}}`)([document.querySelector('#call-{call} strong').textContent, \
             '', document.querySelector('#call-{call} .own').textContent])"
        );
        let shown = browser.eval(&cells).await;
        let (title, own) = shown.as_str().unwrap().split_once('|').unwrap();
        assert!(title == person || call == &placed, "{shown}");
        assert_eq!(own, format!("+{number}"));
    }
    // The first request to the answer URL is measured, and so is the audio.
    let measured = format!("document.querySelectorAll('#call-{a_leg} .more')");
    for cell in [0, 1] {
        let text = browser.eval(&format!("{measured}[{cell}].textContent")).await;
        assert!(text.as_str().unwrap().contains(|c: char| c.is_ascii_digit()), "{text}");
    }
    for (scheme, width, name) in
        [("light", 1440, "calls-light"), ("dark", 1440, "calls-dark"), ("light", 390, "calls-390")]
    {
        browser.prefer(scheme).await;
        browser.size(width, 900).await;
        let wide = browser.eval("document.documentElement.scrollWidth - innerWidth").await;
        assert!(wide.as_i64().is_some_and(|wide| wide <= 0), "{wide} too wide at {width}");
        picture(&mut browser, name).await;
    }
    // Numbers of people and causes are not cut.
    browser.size(1280, 900).await;
    let cut = "[...document.querySelectorAll('#history tbody :is(bdi, .pill)')] \
        .filter((part) => part.scrollWidth > part.clientWidth + 1 && part.clientWidth > 0 || \
            part.getBoundingClientRect().right > part.closest('td').getBoundingClientRect().right) \
        .map((part) => part.textContent).join()";
    picture(&mut browser, "calls-1280").await;
    assert_eq!(browser.eval(cut).await, "");
    browser.size(1440, 900).await;

    // A click on a heading sorts; the order is in the URL.
    browser.click("#history th:nth-child(4) a").await;
    browser.until("location.search === '?sort=longest'").await;
    let first = browser.eval("document.querySelector('#history tbody tr').id").await;
    assert_eq!(first, format!("call-{a_leg}"));
    browser.click("#history th:nth-child(4) a").await;
    browser.until("location.search === '?sort=shortest'").await;
    assert_eq!(
        browser.eval("document.querySelector('#history th:nth-child(4)').ariaSort").await,
        "ascending"
    );
    browser.visit("/console/calls/?sort=oldest").await;
    let first = browser.eval("document.querySelector('#history tbody tr').id").await;
    assert_eq!(first, format!("call-{a_leg}"));

    // A filter is saved, chosen and deleted.
    browser.visit(&format!("/console/calls/?party=%2B{CALLEE}&direction=outbound")).await;
    assert_eq!(browser.eval(order).await, format!("call-{b_leg}"));
    browser.fill("#saved [name=name]", "Ravi <b>").await;
    browser.click("#saved button[value=save]").await;
    browser.until("document.querySelector('#saved .chip a[aria-current]')").await;
    picture(&mut browser, "calls-saved").await;
    browser.visit("/console/calls/").await;
    assert_eq!(
        browser.eval("document.querySelector('#saved .chip a').textContent").await,
        "Ravi <b>"
    );
    browser.click("#saved .chip a").await;
    browser.until("location.search.includes('direction=outbound')").await;
    let ravi = Session::of(&world, "ravi").await;
    assert!(!ravi.get("/console/calls/").await.text().contains("class=\"chip\""), "not theirs");

    // The file has the calls that match the filter, and a name like a formula is escaped.
    let asha = Session::of(&world, "asha").await;
    let href = browser.eval("document.querySelector('a[download]').getAttribute('href')").await;
    let file = asha.get(href.as_str().unwrap()).await;
    assert_eq!(file.headers["content-type"], "text/csv; charset=utf-8");
    let text = file.text();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[1].starts_with(&format!("\"{b_leg}\",\"{a_leg}\",")), "{text}");
    let cells = format!(",\"{CALLEE}\",\"'=Ravi, \"\"R\"\"\",\"{NUMBER}\",\"IN\",");
    assert!(lines[1].contains(&cells), "{text}");
    assert!(lines[0].contains(",country,duration_seconds,bill_seconds,cause,"), "{text}");
    let call = api(&world, "GET", &format!("calls/{b_leg}/"), Value::Null).await;
    let seconds = format!(",\"IN\",\"{}\",\"{}\",", call["durationSeconds"], call["billSeconds"]);
    assert!(lines[1].contains(&seconds), "{text}, {call}");
    assert_eq!(asha.get("/console/calls/calls.csv").await.text().lines().count(), 4);

    browser.visit("/console/calls/").await;
    browser.click("#saved .chip button").await;
    browser.until("document.readyState === 'complete' && !document.querySelector('#saved')").await;
    for n in 0..20 {
        let fields = [("name", &*n.to_string()), ("query", "?direction=inbound")];
        assert_eq!(asha.post("/console/calls/filters", &fields).await.status, 303);
    }
    let more = [("name", "more"), ("query", "?direction=inbound")];
    assert_eq!(asha.post("/console/calls/filters", &more).await.status, 400);
    let long = "x".repeat(61);
    let again = [("name", "0"), ("query", "?direction=outbound")];
    assert_eq!(asha.post("/console/calls/filters", &again).await.status, 303, "replaced");
    let long = [("name", &*long), ("query", "?direction=inbound")];
    assert_eq!(ravi.post("/console/calls/filters", &long).await.status, 400);

    // A call leads to its conversation, number and person, and these lead to their calls.
    browser.visit(&format!("/console/calls/{b_leg}/")).await;
    assert_eq!(browser.eval("document.querySelector('h1').textContent").await, "=Ravi, \"R\"");
    picture(&mut browser, "call-links").await;
    for (link, words) in [
        (format!("a[href='/console/calls/{a_leg}/']"), "Parent call"),
        (format!("a[href='/console/numbers/{NUMBER}/']"), "Business number"),
        (format!("a[href='/console/calls/?party=%2B{CALLEE}']"), "All calls of this person"),
    ] {
        let text = format!("document.querySelector(\"#call-head {link}\")?.textContent");
        assert_eq!(browser.eval(&text).await, words);
    }
    browser.click("#call-head a[href^='/console/inbox/']").await;
    browser.until("location.pathname.startsWith('/console/inbox/')").await;
    browser.click(&format!("a[href='/console/calls/?party={CALLEE}']")).await;
    browser.until(&format!("document.querySelector('#history #call-{b_leg}')")).await;
    browser.visit(&format!("/console/calls/{a_leg}/")).await;
    browser.until(&format!("document.querySelector('#legs #call-{b_leg}')")).await;
    let number = asha.get(&format!("/console/numbers/{NUMBER}/")).await.text();
    assert!(number.contains(&format!("href=\"/console/calls/?party={NUMBER}\"")));

    // The overview shows each call in one line.
    browser.visit("/console/").await;
    let heights = "[...document.querySelectorAll('#latest tbody tr')].map((row) => Math.round(row.offsetHeight)).join()";
    assert_eq!(browser.eval(heights).await, "36,36");
    for (scheme, width, name) in
        [("light", 1440, "home-light"), ("dark", 1024, "home-dark"), ("light", 390, "home-390")]
    {
        browser.prefer(scheme).await;
        browser.size(width, 900).await;
        picture(&mut browser, name).await;
    }
    assert_eq!(browser.errors, [""; 0]);
}
