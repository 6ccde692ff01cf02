//! Live pages in a real Chromium: a changed row is replaced without requests. Also measures how
//! long a list of a thousand live calls keeps the browser busy.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use sim::{CallScript, CalleeAction, EventOrder, PhoneKind, Sim};

use crate::console::{EventStream, Session, people, signed_in, with_people};
use crate::console_look::picture;
use crate::outbound::{World, user, world};
use crate::support::app::App;
use crate::support::browser::{Browser, has_chromium};
use crate::support::meta::{Graph, connect, silent_offer};
use crate::support::node::{API_KEY, Node, NodeConfig, sim_options};
use crate::support::{figures, http};

/// Starts a node with `count` users' phones ringing.
async fn with_calls_up(count: usize, change: impl FnOnce(&mut NodeConfig)) -> (World, Vec<String>) {
    let world = world(|node, sim| {
        node.extra.push_str(&people());
        node.cps = 1_000;
        change(node);
        sim.times.unanswered = Duration::from_secs(600);
        sim.callee = CallScript {
            phone: PhoneKind::SignallingOnly,
            ..user(CalleeAction::Ignore, EventOrder::ConnectFirst)
        };
    })
    .await;
    let calls = ring(&world, &(0..count).collect::<Vec<_>>()).await;
    (world, calls)
}

/// Calls these users. Returns the calls' UUIDs.
async fn ring(world: &World, users: &[usize]) -> Vec<String> {
    let mut order = world.order();
    order["to"] =
        users.iter().map(|n| format!("91940000{n:04}")).collect::<Vec<_>>().join("<").into();
    order["ring_timeout"] = 600.into();
    let answer = world.place(&order).await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    match answer.json()["request_uuid"].clone() {
        Value::String(one) => vec![one],
        several => serde_json::from_value(several).expect("UUIDs"),
    }
}

/// Ends a call.
async fn cancel(world: &World, call: &str) {
    let path = format!("Call/{call}/");
    assert_eq!(world.rest("DELETE", &path, &[], String::new()).await.status, 204, "{call}");
}

const ROWS: &str = "document.querySelectorAll('#up tr[id]').length";

/// The requests of the page, without those for events and assets.
const PAGES_ASKED: &str = "performance.getEntriesByType('resource')\
    .filter((r) => !r.name.includes('/events') && !r.name.includes('/assets/'))";

/// Starts counting changes to the page: rows inserted and removed by id, the tasks in which that
/// happened, page requests, and the longest task.
async fn watch(browser: &mut Browser) {
    let script = "globalThis.seen = { put: [], gone: [], turns: 0, longest: 0, most: 0, since: performance.now() }; \
        performance.clearResourceTimings(); globalThis.watching?.disconnect(); \
        globalThis.watching = new MutationObserver((records) => { \
            const rows = (list) => [...list].filter((n) => n.nodeName === 'TR').map((n) => n.id); \
            const [put, gone] = [records.flatMap((r) => rows(r.addedNodes)), records.flatMap((r) => rows(r.removedNodes))]; \
            seen.put.push(...put); seen.gone.push(...gone); seen.turns += put.length + gone.length ? 1 : 0; \
            seen.most = Math.max(seen.most, document.querySelectorAll('#up tr[id]').length); \
        }); watching.observe(document.querySelector('main'), { childList: true, subtree: true }); \
        new PerformanceObserver((list) => { for (const task of list.getEntries()) seen.longest = Math.max(seen.longest, \
            task.duration); }).observe({ type: 'longtask' }); 0";
    browser.eval(script).await;
}

/// Returns what [`watch`] counted: rows inserted and removed, tasks, milliseconds, the longest
/// task, and page requests.
async fn seen(browser: &mut Browser) -> Value {
    browser
        .eval(
            &format!(
                "({{ ...seen, took: performance.now() - seen.since, asked: {PAGES_ASKED}.map((r) => r.name) }})"
            ),
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_list_replaces_changed_rows_without_requesting_the_page() {
    if !has_chromium() {
        return;
    }
    let (world, calls) = with_calls_up(60, |_| ()).await;
    let mut browser = signed_in(&world, "asha").await;
    // All phones ring, and no event is in flight that a loading page could miss.
    browser.visit("/console/calls/?up_state=ringing").await;
    browser.until(&format!("{ROWS} === 60")).await;
    browser.visit("/console/calls/").await;
    browser.until(&format!("{ROWS} === 60")).await;
    // The page is listening once it shows another call. A call before that makes it ask for itself.
    ring(&world, &[8_999]).await;
    browser.until(&format!("{ROWS} === 61")).await;
    browser
        .until(&format!("{PAGES_ASKED}.every((r) => performance.now() - r.responseEnd > 1000)"))
        .await;
    let before =
        browser.eval("[...document.querySelectorAll('#up tr[id]')].map((row) => row.id)").await;
    let before: Vec<String> = serde_json::from_value(before).unwrap();
    watch(&mut browser).await;
    for n in 60..100 {
        ring(&world, &[9_000 + n]).await;
    }
    browser.until(&format!("{ROWS} === 101")).await;
    browser.until("document.querySelector('#up-head .count').textContent === '101'").await;
    let measured = seen(&mut browser).await;
    let ids = |what: &str| serde_json::from_value::<Vec<String>>(measured[what].clone()).unwrap();
    let touched: Vec<_> =
        ids("put").into_iter().chain(ids("gone")).filter(|id| before.contains(id)).collect();
    assert_eq!(touched, [""; 0], "rows that stayed as they were");
    assert_eq!(measured["asked"], json!([]), "no page is asked for");
    // Updates are batched: at most five per second, regardless of the number of events.
    let (turns, took) = (measured["turns"].as_f64().unwrap(), measured["took"].as_f64().unwrap());
    assert!(turns <= took / 200.0 + 4.0, "{turns} in {took} ms");
    // Each call waits and then rings.
    assert!(ids("put").len() <= 3 * 40, "{measured}");

    // A call ends: its row moves to the history.
    watch(&mut browser).await;
    cancel(&world, &calls[7]).await;
    browser
        .until(&format!(
            "{ROWS} === 100 && document.querySelectorAll('#history tr[id]').length === 1"
        ))
        .await;
    let measured = seen(&mut browser).await;
    assert_eq!(measured["gone"].as_array().unwrap().len(), 1, "{measured}");
    assert_eq!(measured["asked"], json!([]));
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_list_keeps_the_filter_of_its_url_as_calls_come_and_go() {
    if !has_chromium() {
        return;
    }
    let (world, calls) = with_calls_up(12, |_| ()).await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/calls/").await;
    browser.until(&format!("{ROWS} === 12")).await;
    browser.fill("[name=up]", "+91 94 0000 001").await;
    browser.eval("document.querySelector('.up-filters').requestSubmit()").await;
    browser.until(&format!("location.search.includes('up=') && {ROWS} === 2")).await;
    browser.until("document.querySelector('#up-head .count').textContent === '2 of 12'").await;
    // A matching call appears and a non-matching one does not, without a reload.
    browser.eval("globalThis.marked = 1").await;
    ring(&world, &[50]).await;
    ring(&world, &[12]).await;
    browser.until(&format!("{ROWS} === 3")).await;
    browser.until("document.querySelector('#up-head .count').textContent === '3 of 14'").await;
    cancel(&world, &calls[10]).await;
    browser.until(&format!("{ROWS} === 2")).await;
    assert_eq!(browser.eval("globalThis.marked").await, 1);
    // A link sets the same filter, and the history's filter is independent.
    browser.visit("/console/calls/?up=0011&from=918035737458").await;
    browser
        .until(&format!(
            "{ROWS} === 1 && document.querySelectorAll('#history tr[id]').length === 1"
        ))
        .await;
    assert_eq!(
        browser.eval("document.querySelector('.up-filters [name=from]').value").await,
        "918035737458"
    );
    browser.visit("/console/calls/?up_direction=inbound").await;
    browser
        .until(&format!("{ROWS} === 0 && document.querySelector('#up-none').checkVisibility()"))
        .await;
    browser.says("#up-none", "No live call matches").await;
    browser.visit("/console/calls/?up_state=ringing&up_direction=outbound").await;
    browser.until(&format!("{ROWS} === 13")).await;
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hidden_page_or_one_with_an_open_dialog_catches_up() {
    if !has_chromium() {
        return;
    }
    let (world, calls) = with_calls_up(3, |_| ()).await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/calls/").await;
    browser.until(&format!("{ROWS} === 3")).await;
    // The list does not change while a dialog is open.
    browser
        .eval("globalThis.kept = document.querySelector('#up tr[id]'); document.querySelector('#ask').showModal()")
        .await;
    cancel(&world, &calls[0]).await;
    cancel(&world, &calls[2]).await;
    world.node.until_log("call ended").await;
    browser.eval("document.querySelector('#ask').close()").await;
    browser
        .until(&format!(
            "{ROWS} === 1 && document.querySelectorAll('#history tr[id]').length === 2"
        ))
        .await;
    assert_eq!(
        browser.eval("document.querySelectorAll('[id^=call-]').length").await,
        3,
        "none is there twice"
    );
    // Events during another page's visit are shown on returning.
    let hidden = |state: &str| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ value: {state}, configurable: true }}); \
             document.dispatchEvent(new Event('visibilitychange')); 0"
        )
    };
    browser.eval(&hidden("true")).await;
    cancel(&world, &calls[1]).await;
    ring(&world, &[9_000]).await;
    browser.eval(&hidden("false")).await;
    browser.until("document.querySelectorAll('#history tr[id]').length === 3").await;
    browser.until(&format!("{ROWS} === 1")).await;
    assert_eq!(browser.errors, [""; 0]);
}

#[allow(clippy::print_stderr, reason = "figures are told")]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a thousand calls: on a machine that does nothing else"]
async fn a_list_of_a_thousand_live_calls_updates_without_a_long_task() {
    if !has_chromium() {
        return;
    }
    let graph = Graph::start().await;
    let app = App::start().await;
    app.xml("/answer", "<Response><Wait length=\"120\"/></Response>");
    let mut node_config = NodeConfig::new(&graph.url, &app.url("/answer"));
    node_config.extra = people();
    node_config.cps = 1_000;
    node_config.accept_wait_ms = 0;
    let node = Node::start(&node_config).await;
    let world = World { node, sim: Sim::start(sim_options()).await.expect("sim"), app };
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/calls/").await;
    watch(&mut browser).await;
    // The calls have no audio, so the node ends each after fifteen seconds.
    let offer = silent_offer();
    futures_util::stream::iter(0..1_000)
        .for_each_concurrent(8, |_| async {
            connect(&world.node, &offer).await;
        })
        .await;
    browser.until("seen.most >= 900").await;
    let coming = seen(&mut browser).await;
    watch(&mut browser).await;
    for _ in 0..50 {
        connect(&world.node, &offer).await;
    }
    browser
        .until(&format!(
            "{ROWS} === 0 && document.querySelectorAll('#history tr[id]').length === 50"
        ))
        .await;
    let measured = seen(&mut browser).await;
    let longest = measured["longest"].as_f64().expect("milliseconds");
    eprintln!(
        "while a thousand calls came in {} turns, the longest task took {} ms; with up to {} in the list, while 50 came and \
         all went in {} turns of {} ms, {longest:.0} ms",
        coming["turns"], coming["longest"], measured["most"], measured["turns"], measured["took"]
    );
    assert!(longest < if figures() { 50.0 } else { 1_000.0 }, "{longest} ms");
    assert_eq!(browser.errors, [""; 0]);
}

/// Answers every request on a port with 502 until dropped, as the proxy of a stopped node does.
async fn bad_gateway(port: u16) -> tokio::task::JoinHandle<()> {
    #[allow(clippy::disallowed_methods, reason = "a test's own peer")]
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.expect("the port");
    tokio::spawn(async move {
        let routes = axum::Router::new().fallback(|| async {
            (axum::http::StatusCode::BAD_GATEWAY, [("connection", "close")])
        });
        let _ = axum::serve(listener, routes).await;
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_that_the_node_is_gone_and_catches_up_when_it_is_back() {
    if !has_chromium() {
        return;
    }
    let (mut world, _calls) = with_calls_up(2, |node| node.is_single = true).await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/calls/").await;
    browser.until(&format!("{ROWS} === 2")).await;
    let watch = "globalThis.marked = 1; const banner = document.getElementById('lost'); \
        globalThis.shown = new Promise((done) => new MutationObserver(() => done(performance.now())) \
            .observe(banner, { attributes: true })); banner.hidden";
    assert_eq!(browser.eval(watch).await, true);
    let before = browser.eval("performance.now()").await.as_f64().unwrap();
    world.node.kill();
    let port = world.node.public.rsplit(':').next().and_then(|port| port.parse().ok());
    let proxy = bad_gateway(port.expect("a port")).await;
    let shown = browser.eval("shown").await.as_f64().unwrap();
    assert!(shown - before < 2_000.0, "{} ms", shown - before);
    assert_eq!(browser.eval("document.getElementById('lost').checkVisibility()").await, true);
    let opacity = "getComputedStyle(document.querySelector('main > *')).opacity";
    browser.until(&format!("{opacity} < 1")).await;
    for (scheme, width) in [("light", 1200), ("dark", 1200), ("light", 390)] {
        browser.prefer(scheme).await;
        browser.size(width, 844).await;
        picture(&mut browser, &format!("lost-{scheme}-{width}")).await;
    }
    // The calls are over when the node is back. The page updates without a reload.
    proxy.abort();
    let _ = proxy.await;
    world.node.start_again().await;
    browser.until("document.getElementById('lost').hidden").await;
    browser.until(&format!("{ROWS} === 0 && {opacity} == 1")).await;
    assert_eq!(browser.eval("globalThis.marked").await, 1);
    // Nothing was missed: the stream says so, and the banner stays away.
    let hello = "(async () => { \
        const { promise, resolve } = Promise.withResolvers(); const first = new EventSource('/console/events'); \
        first.addEventListener('hello', () => { first.close(); resolve(true); }); return await promise; })()";
    assert_eq!(browser.eval(hello).await, true);
}

/// The node's connections stay open, but it no longer responds.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_that_the_node_is_frozen() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/calls/").await;
    let banner = "document.getElementById('lost')";
    browser.until(&format!("{banner}.hidden")).await;
    let watch = format!(
        "globalThis.shown = new Promise((done) => new MutationObserver(() => done(performance.now())) \
         .observe({banner}, {{ attributes: true }})); performance.now()"
    );
    let before = browser.eval(&watch).await.as_f64().unwrap();
    world.node.signal("STOP");
    let shown = browser.eval("shown").await.as_f64().unwrap();
    world.node.signal("CONT");
    // The page waits for 2.5 s; the rest is for a busy machine.
    assert!(shown - before < 10_000.0, "{} ms", shown - before);
    browser.until(&format!("{banner}.hidden")).await;
}

/// Figures of the operations page come from the store: they outlast a restart, and a part of a chart
/// can be chosen.
#[tokio::test(flavor = "multi_thread")]
async fn operations_show_values_and_ranges_that_outlast_a_restart() {
    if !has_chromium() {
        return;
    }
    let mut world = with_people().await;
    world.app.xml("/unused", "<Response><Speak>Hello</Speak></Response>");
    for _ in 0..3 {
        drop(world.sim.place_call(CallScript::default()).all().await);
    }
    let asha = Session::of(&world, "asha").await;
    let ended = "3</p><p class=\"of\">";
    let mut every = tokio::time::interval(Duration::from_millis(20));
    for tries in 0.. {
        let page = asha.get("/console/operations/").await.text();
        if page.contains(ended) {
            break;
        }
        assert!(tries < 500, "{page}");
        every.tick().await;
    }
    world.node.kill();
    world.node.start_again().await;
    for range in ["1h", "6h", "24h", "7d", "30d"] {
        let path = format!("/console/operations/?range={range}");
        let page = Session::of(&world, "asha").await.get(&path).await.text();
        assert!(page.contains(ended), "{range}: {page}");
        assert!(page.contains(&format!("?range={range}\" aria-current=\"true\"")), "{range}");
    }
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/operations/").await;
    // The pointer over a column with calls shows their number.
    let plot = "document.querySelector('#chart-ended .plot')";
    // Middle of the first and of the last column with calls, of the height, and width of a column.
    let columns = format!(
        "(() => {{ const box = {plot}.querySelector('.chart').getBoundingClientRect(); \
         const values = JSON.parse({plot}.dataset.values), has = (column) => column.some((value) => value > 0); \
         const each = box.width / values.length, at = (column) => box.left + each * (column + 0.5); \
         return [at(values.findIndex(has)), at(values.findLastIndex(has)), box.top + box.height / 2, each]; }})()"
    );
    browser.until("document.querySelector('.chart-tip')").await;
    // Scrolling hides the values, and its event comes with the next frame.
    browser
        .eval(&format!(
            "{plot}.scrollIntoView({{ block: 'center' }}), new Promise((done) => \
             requestAnimationFrame(() => requestAnimationFrame(done)))"
        ))
        .await;
    let tip = "document.querySelector('.chart-tip')";
    // The columns move when a minute ends.
    for tries in 0.. {
        assert!(tries < 500, "the values of a column with calls were not shown");
        let [first, _, y, _] = numbers(&browser.eval(&columns).await);
        mouse(&mut browser, "mouseMoved", first, y).await;
        let is_shown = format!("!{tip}.hidden && /: [1-3]/.test({tip}.textContent)");
        if browser.eval(&is_shown).await == true {
            break;
        }
    }
    picture(&mut browser, "operations-tip").await;
    // So do the arrow keys.
    browser.eval(&format!("{plot}.focus({{ preventScroll: true }})")).await;
    for (key, shown) in [("End", true), ("Escape", false)] {
        let press = json!({"type": "keyDown", "key": key, "code": key});
        browser.devtools("Input.dispatchKeyEvent", press).await;
        browser.until(&format!("{tip}.hidden !== {shown}")).await;
    }
    browser.eval(&format!("{plot}.blur()")).await;
    // Dragging over the columns around the calls shows that time only. A call that ends meanwhile
    // does not take the chart away from the pointer.
    let pressed = format!("{plot}.hasAttribute('data-choosing')");
    let [first, y, each] = loop {
        let [first, last, y, each] = numbers(&browser.eval(&columns).await);
        mouse(&mut browser, "mousePressed", last, y).await;
        let is_chosen = browser.eval(&pressed).await == true;
        let [_, now, ..] = numbers::<4>(&browser.eval(&columns).await);
        if is_chosen && now == last {
            break [first, y, each];
        }
        mouse(&mut browser, "mouseReleased", last, y).await;
    };
    mouse(&mut browser, "mouseMoved", first, y).await;
    drop(world.sim.place_call(CallScript::default()).all().await);
    let calls = "document.querySelectorAll('#figures .figure')[2]?.textContent";
    browser.until(&format!("{calls} === '4'")).await;
    mouse(&mut browser, "mouseMoved", first - 2.0 * each, y).await;
    mouse(&mut browser, "mouseReleased", first - 2.0 * each, y).await;
    browser.until("location.search.includes('from=') && document.readyState === 'complete'").await;
    browser.until(&format!("/^[34]$/.test({calls}) && document.querySelector('#range a')")).await;
    assert_eq!(browser.eval(&format!("{plot}.dataset.step")).await, "5");
    for (scheme, width) in [("light", 1200), ("dark", 1200), ("light", 390)] {
        browser.prefer(scheme).await;
        browser.size(width, 844).await;
        picture(&mut browser, &format!("operations-zoom-{scheme}-{width}")).await;
    }
    assert_eq!(browser.errors, [""; 0]);
}

fn numbers<const N: usize>(list: &Value) -> [f64; N] {
    std::array::from_fn(|n| list[n].as_f64().expect("a number"))
}

async fn mouse(browser: &mut Browser, kind: &str, x: f64, y: f64) {
    let pressed = kind != "mouseMoved";
    let button = if pressed { "left" } else { "none" };
    let event = json!({"type": kind, "x": x, "y": y, "button": button, "clickCount": 1});
    browser.devtools("Input.dispatchMouseEvent", event).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn event_streams_are_numbered_by_account_and_bounded_by_user() {
    let world = world(|node, _| {
        node.is_single = true;
        node.extra.push_str(&people());
    })
    .await;
    let public = world.node.public.as_str();
    let [asha, eve] = [Session::of(&world, "asha").await, Session::of(&world, "eve").await];
    let id = |text: &str| text.split("id: ").nth(1).unwrap().lines().next().unwrap().to_owned();
    let (hers, theirs) = (
        id(&EventStream::open(public, &asha.cookie).await.text),
        id(&EventStream::open(public, &eve.cookie).await.text),
    );
    // A change in Asha's account leaves no trace in Eve's stream.
    let made = http::send(
        "POST",
        &format!("{public}/api/v1/users/"),
        &[("x-api-key", API_KEY), ("content-type", "application/json")],
        r#"{"name": "mira", "role": "agent"}"#,
    )
    .await;
    assert_eq!(made.status, 201, "{}", made.text());
    assert_ne!(id(&EventStream::open(public, &asha.cookie).await.text), hers);
    assert_eq!(id(&EventStream::open(public, &eve.cookie).await.text), theirs);

    let mut open = Vec::new();
    let refused = loop {
        let stream = EventStream::open(public, &asha.cookie).await;
        if stream.text.contains(" 429 ") {
            break stream.text;
        }
        open.push(stream);
        assert!(open.len() <= 32, "unbounded");
    };
    assert!(refused.to_lowercase().contains("retry-after"), "{refused}");
    assert!(EventStream::open(public, &eve.cookie).await.text.contains(" 200 "), "another user");
    // A closed stream makes room for another.
    drop(open);
    while EventStream::open(public, &asha.cookie).await.text.contains(" 429 ") {
        tokio::task::yield_now().await;
    }
}
