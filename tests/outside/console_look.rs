//! Accessibility and speed of the console's pages in a real Chromium: axe-core, light and dark, a
//! small screen, load times.

use serde_json::{Value, json};
use sim::{CallScript, caller};

use crate::console::{Session, call, signed_in, with_people};
use crate::outbound::World;
use crate::support::browser::{Browser, READY, axe, has_chromium};
use crate::support::node::NUMBER;
use crate::support::{figures, http};

/// Fills a world with data for every page. Returns the paths of the pages.
async fn fill_pages(world: &World) -> Vec<String> {
    let uuid = call(world).await;
    world.node.record(&uuid).await;
    let asha = Session::of(world, "asha").await;
    let endpoint = world.app.url("/agent");
    let agent =
        [("name", "Desk"), ("kind", "http"), ("endpoint", &endpoint), ("language", "en-US")];
    let agent: Vec<_> =
        agent.into_iter().chain([("channel.whatsapp", "on"), ("enabled", "on")]).collect();
    assert_eq!(asha.post("/console/agents/", &agent).await.status, 303);
    let hook = world.app.url("/hook");
    assert_eq!(
        asha.post("/console/webhooks/", &[("name", "crm"), ("url", &hook)]).await.status,
        303
    );
    let key = [("name", "crm"), ("role", "admin")];
    assert_eq!(asha.post("/console/people/keys", &key).await.status, 303);
    let picture = json!({"message": {"type": "image", "image": {"mime_type": "image/png", "caption": "The parcel"}},
        "file": PIXEL, "from": "919812345678", "name": "Asha Verma"});
    for order in [json!({"message": "Where is my order?", "from": "919812345678"}), picture] {
        writes(world, &order).await;
    }
    let after = |text: &str, mark: &str| {
        let rest = text.split(mark).nth(1).unwrap_or_else(|| panic!("{mark} in {text}"));
        format!("{mark}{}/", rest.split('/').next().unwrap()).replacen("row-link\" href=\"", "", 1)
    };
    let mut paths: Vec<String> = [
        "/console/",
        "/console/calls/",
        "/console/recordings/",
        "/console/errors/",
        "/console/operations/",
        "/console/playground/",
        "/console/playground/debugger/",
        "/console/phone/",
        "/console/notifications/",
        "/console/inbox/",
        "/console/inbox/settings/",
        "/console/numbers/",
        "/console/numbers/new/",
        "/console/agents/",
        "/console/agents/new/",
        "/console/webhooks/",
        "/console/account/",
        "/console/reference/?q=endpoint",
        "/console/people/",
        "/console/people/audit/",
        "/console/nowhere/",
    ]
    .map(str::to_owned)
    .into();
    for list in ["inbox", "agents", "webhooks"] {
        let mark = format!("row-link\" href=\"/console/{list}/");
        paths.push(after(&asha.get(&format!("/console/{list}/")).await.text(), &mark));
    }
    let number = format!("/console/numbers/{NUMBER}/");
    let chat = paths.iter().find(|path| path.starts_with("/console/inbox/") && path.len() > 40);
    paths.extend(chat.map(|chat| format!("{chat}template/")));
    paths.extend([
        format!("{number}agent/"),
        format!("{number}register/"),
        number,
        format!("/console/calls/{uuid}/"),
    ]);
    paths
}

/// A PNG of one pixel.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// A simulated user sends a message.
pub async fn writes(world: &World, order: &Value) {
    let answer =
        http::send("POST", &format!("{}/_sim/messages", world.sim.url()), &[], order.to_string())
            .await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Saves a screenshot if `OFFHOOK_TEST_SHOTS` names a folder.
pub async fn picture(browser: &mut Browser, name: &str) {
    if let Some(folder) = std::env::var_os("OFFHOOK_TEST_SHOTS") {
        browser.screenshot(&std::path::Path::new(&folder).join(format!("{name}.png"))).await;
    }
}

/// Returns true if the page has an element wider than the window.
async fn is_too_wide(browser: &mut Browser) -> bool {
    let wide = browser.eval("document.documentElement.scrollWidth - innerWidth").await;
    wide.as_i64().is_none_or(|wide| wide > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_has_a_barrier_in_light_or_dark_or_on_a_small_screen() {
    if !has_chromium() {
        return;
    }
    let Some(axe) = axe() else { return };
    let world = with_people().await;
    let paths = fill_pages(&world).await;
    let mut found = Vec::new();
    // Before sign-in.
    let mut browser = Browser::open(&format!("{}/console/", world.node.public)).await;
    for scheme in ["light", "dark"] {
        browser.prefer(scheme).await;
        found.extend(
            browser
                .barriers(&axe)
                .await
                .into_iter()
                .map(|what| format!("sign-in {scheme}: {what}")),
        );
    }
    drop(browser);
    let mut browser = signed_in(&world, "asha").await;
    for (n, path) in paths.iter().enumerate() {
        for (scheme, width) in [("light", 1280), ("dark", 1280), ("dark", 390)] {
            browser.size(width, 900).await;
            browser.prefer(scheme).await;
            browser.visit(path).await;
            assert!(!is_too_wide(&mut browser).await, "{path} at {width}");
            if width > 1000 {
                let sideways = "[...document.querySelectorAll('#numbers')].some((e) => e.scrollWidth > e.clientWidth)";
                assert_eq!(browser.eval(sideways).await, false, "{path} at {width}");
                found.extend(
                    browser
                        .barriers(&axe)
                        .await
                        .into_iter()
                        .map(|what| format!("{path} {scheme}: {what}")),
                );
            }
            picture(&mut browser, &format!("{n:02}-{scheme}-{width}")).await;
        }
    }
    // Dialogs that open beside a page.
    browser.size(1280, 900).await;
    for (path, link) in [
        ("/console/numbers/", "a.row-link"),
        ("/console/numbers/", "a[href$='/agent/']"),
        ("/console/numbers/", "a[href$='/new/']"),
    ] {
        for scheme in ["light", "dark"] {
            browser.prefer(scheme).await;
            browser.visit(path).await;
            browser.click(link).await;
            browser.until("document.querySelector('dialog.panel[open] h1')").await;
            found.extend(
                browser
                    .barriers(&axe)
                    .await
                    .into_iter()
                    .map(|what| format!("{link} {scheme}: {what}")),
            );
            picture(
                &mut browser,
                &format!(
                    "panel-{}-{scheme}",
                    link.trim_matches(|c: char| !c.is_alphanumeric())
                        .replace(['/', '\'', '$', '='], "")
                ),
            )
            .await;
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    // The missing page responds 404, which the browser logs as an error.
    browser.errors.retain(|error| !error.contains("/console/nowhere/"));
    assert_eq!(browser.errors, [""; 0]);
}

/// Tables whose right edge can't be scrolled to, because an element around them hides it.
const HIDDEN_TABLES: &str = "[...document.querySelectorAll('main table')].filter((table) => table.checkVisibility()).flatMap((table) => {
    for (let box = table.parentElement; box && box !== document.body; box = box.parentElement) {
        const { overflowX } = getComputedStyle(box);
        if (overflowX === 'auto' || overflowX === 'scroll') return [];
        if (overflowX !== 'visible' && box.scrollWidth > box.clientWidth) return [`${box.id || box.className} ${box.scrollWidth} > ${box.clientWidth}`];
    }
    return [];
})";

/// Tables that need scrolling on a page at this width.
const SCROLLED_TABLES: &str = "[...document.querySelectorAll('main .card.flush')].filter((card) => card.scrollWidth > card.clientWidth).map((card) => `${card.id || card.className}: ${card.innerText}`)";

#[tokio::test(flavor = "multi_thread")]
async fn every_column_of_every_table_is_within_reach() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let mut paths = fill_pages(&world).await;
    // A recorded call, and one with a long cause.
    for document in [
        "<Response><Record recordSession=\"true\" redirect=\"false\"/><Wait length=\"2\"/></Response>",
        "<!doctype html><p>Sign in to continue.",
    ] {
        world.app.xml("/unused", document);
        let name = "Alexandra Verma".to_owned();
        world.sim.place_call(CallScript { name, ..CallScript::default() }).all().await;
    }
    paths.push(format!("/console/numbers/{NUMBER}/deliveries/"));
    let mut browser = signed_in(&world, "asha").await;
    let mut found = Vec::new();
    for path in &paths {
        for width in [1280, 1024, 390] {
            browser.size(width, 900).await;
            browser.visit(path).await;
            assert!(!is_too_wide(&mut browser).await, "{path} at {width}");
            for (what, script) in [("hidden", HIDDEN_TABLES), ("scrolled", SCROLLED_TABLES)] {
                let tables = browser.eval(script).await;
                if tables != json!([]) {
                    found.push(format!("{path} at {width}: {what} {tables}"));
                }
            }
        }
    }
    // The person is readable beside a long cause.
    for path in ["/console/", "/console/calls/"] {
        for width in [1280, 1024] {
            browser.size(width, 900).await;
            browser.visit(path).await;
            browser.says("main", "Invalid document from answer URL").await;
            let names = browser
                .eval("[...document.querySelectorAll('main .calls .parties strong')].filter((name) => name.scrollWidth > name.clientWidth).map((name) => name.textContent)")
                .await;
            if names != json!([]) {
                found.push(format!("{path} at {width}: cut {names}"));
            }
            picture(&mut browser, &format!("names-{}-{width}", path.len())).await;
        }
    }
    for (path, name) in [("people/audit/", "audit"), ("recordings/", "recordings")] {
        for (scheme, width) in [("light", 1280), ("dark", 1024), ("light", 1024), ("dark", 390)] {
            browser.prefer(scheme).await;
            browser.size(width, 900).await;
            browser.visit(&format!("/console/{path}")).await;
            picture(&mut browser, &format!("table-{name}-{scheme}-{width}")).await;
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_in_a_pages_console_are_detected() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let complaints: [&str; 4] = [
        "console.error('spoken'); 0",
        "setTimeout(() => { throw new Error('thrown'); }); 0",
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'globalThis.ran = 1'})); 0",
        "document.body.append(Object.assign(document.createElement('img'), {src: 'https://evil.example/x.png'})); 0",
    ];
    let mut browser = signed_in(&world, "asha").await;
    for complaint in complaints {
        assert_eq!(browser.errors, [""; 0], "before {complaint}");
        browser.eval(complaint).await;
        let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
        for _ in 0..100 {
            every.tick().await;
            browser.eval("0").await;
            if !browser.errors.is_empty() {
                break;
            }
        }
        assert!(!browser.errors.is_empty(), "{complaint}");
        browser.errors.clear();
    }
    assert_eq!(browser.eval("typeof ran").await, "undefined", "the policy holds");
}

/// Returns the size of the first page over the network in bytes, and the time until its scripts
/// have run in milliseconds, from the browser's Performance API.
async fn first_load(browser: &mut Browser, public: &str) -> (f64, f64) {
    browser.devtools("Network.enable", json!({})).await;
    browser.devtools("Network.setCacheDisabled", json!({"cacheDisabled": true})).await;
    browser.devtools("Page.navigate", json!({"url": format!("{public}/console/")})).await;
    browser.until("document.documentElement?.dataset.ready !== undefined && document.readyState === 'complete'").await;
    let measured = browser
        .eval(
            "(() => { const [page] = performance.getEntriesByType('navigation'); const all = [page, \
             ...performance.getEntriesByType('resource').filter((r) => !r.name.includes('/events'))]; \
             return [all.reduce((sum, r) => sum + r.transferSize, 0), page.domContentLoadedEventEnd]; })()",
        )
        .await;
    (measured[0].as_f64().expect("bytes"), measured[1].as_f64().expect("milliseconds"))
}

#[allow(clippy::print_stderr, reason = "figures are told")]
#[tokio::test(flavor = "multi_thread")]
async fn the_first_page_is_small_and_loads_fast() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let mut browser = signed_in(&world, "asha").await;
    let (bytes, ms) = first_load(&mut browser, &world.node.public).await;
    eprintln!("first page: {:.1} KiB, interactive after {ms:.0} ms", bytes / 1_024.0);
    assert!(bytes < 200.0 * 1_024.0, "{bytes} bytes");
    // Other tests run on the same cores.
    assert!(ms < if figures() { 300.0 } else { 5_000.0 }, "{ms} ms");
}

/// Checks a page at its full height in light, dark and on a small screen: collects axe findings and
/// takes screenshots.
pub async fn look(browser: &mut Browser, axe: &str, name: &str, found: &mut Vec<String>) {
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("dark", 390)] {
        browser.prefer(scheme).await;
        browser.size(width, 900).await;
        assert!(!is_too_wide(browser).await, "{name} at {width}");
        found.extend(
            browser
                .barriers(axe)
                .await
                .into_iter()
                .map(|what| format!("{name} {scheme} {width}: {what}")),
        );
        if std::env::var_os("OFFHOOK_TEST_SHOTS").is_some() {
            let tall =
                browser.eval("document.documentElement.scrollHeight").await.as_u64().unwrap_or(0);
            browser.size(width, u32::try_from(tall.clamp(900, 4_000)).expect("bounded")).await;
        }
        picture(browser, &format!("{name}-{scheme}-{width}")).await;
    }
    browser.size(1280, 900).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_pages_a_recorded_call_and_dialogs_have_no_barrier() {
    if !has_chromium() {
        return;
    }
    let Some(axe) = axe() else { return };
    let world = with_people().await;
    let mut browser = signed_in(&world, "asha").await;
    let mut found = Vec::new();
    for page in [
        "",
        "calls/",
        "operations/",
        "notifications/",
        "inbox/",
        "agents/",
        "webhooks/",
        "calls/?from=1",
        "recordings/",
    ] {
        browser.visit(&format!("/console/{page}")).await;
        look(&mut browser, &axe, &format!("empty-{}", page.replace(['/', '?'], "")), &mut found)
            .await;
    }
    // A recorded call with digits, a menu and speech.
    let menu = "<Response>\n  <Record recordSession=\"true\" redirect=\"false\" maxLength=\"60\"/>\n  <GetInput action=\"MENU\" \
                numDigits=\"1\">\n    <Speak>Welcome to Acme. For sales, press 1. For support, press 2.</Speak>\n  </GetInput>\n\
                </Response>"
        .replace("MENU", &world.app.url("/menu"));
    world.app.xml("/unused", menu);
    world.app.xml(
        "/menu",
        "<Response>\n  <Speak>Thank you. Somebody will call you back.</Speak>\n</Response>",
    );
    let script = CallScript {
        keys: caller::parse_keys("w1").expect("keys"),
        say: crate::dial::tone(440.0, 3),
        ..CallScript::default()
    };
    world.sim.place_call(script).all().await;
    for text in ["Where is my order?", "It was due on Monday."] {
        writes(&world, &json!({"message": text, "from": "919812345678", "name": "Asha Verma"}))
            .await;
    }
    browser.visit("/console/calls/").await;
    browser.click("#history a.row-link").await;
    browser.until("document.querySelector('offhook-waveform canvas')").await;
    browser.until("document.querySelector('#sound .gauge')").await;
    look(&mut browser, &axe, "call", &mut found).await;
    browser.eval("document.querySelector('.stepper a').click()").await;
    browser
        .until("document.querySelector('tr[aria-current=step]') && document.querySelector('offhook-waveform canvas')")
        .await;
    look(&mut browser, &axe, "call-step", &mut found).await;
    // The conversation plays it beside the call.
    browser.visit("/console/inbox/").await;
    browser
        .eval("[...document.querySelectorAll('#conversations tr')].find((row) => row.textContent.includes('Incoming call')).querySelector('a').click()")
        .await;
    browser
        .until("document.querySelector('#timeline .call-sound audio') && document.documentElement.dataset.ready === ''")
        .await;
    look(&mut browser, &axe, "chat-recording", &mut found).await;
    // The page of recordings plays and deletes it.
    browser.visit("/console/recordings/").await;
    let seconds = "(async () => { const sound = document.querySelector('.recordings audio'); sound.preload = 'metadata'; \
        await new Promise((done, failed) => { sound.onloadedmetadata = done; sound.onerror = failed; sound.load(); }); \
        return sound.duration; })()";
    assert!(browser.eval(seconds).await.as_f64().is_some_and(|seconds| seconds > 1.0));
    look(&mut browser, &axe, "recordings", &mut found).await;
    browser.press(".recordings", "Delete").await;
    browser.press("#ask[open]", "Confirm").await;
    browser.says("#main", "No recordings yet").await;
    browser.visit("/console/notifications/").await;
    look(&mut browser, &axe, "notifications", &mut found).await;
    // Overlays on a page: a confirmation, a menu, a secret that is shown once.
    browser.visit("/console/inbox/").await;
    browser.click("#conversations a.row-link").await;
    browser.click("#chat-head button.danger").await;
    browser.until("document.querySelector('#ask[open]')").await;
    look(&mut browser, &axe, "question", &mut found).await;
    browser.visit("/console/people/").await;
    browser.click(".me summary").await;
    look(&mut browser, &axe, "menu", &mut found).await;
    browser.visit("/console/people/").await;
    browser.fill("#users [name=full_name]", "Mira Rao").await;
    browser.fill("#users [name=name]", "mira@shop.example").await;
    browser.click("#users form.add button").await;
    browser.until("document.querySelector('.once')").await;
    look(&mut browser, &axe, "invited", &mut found).await;
    assert!(found.is_empty(), "{found:#?}");
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_screen_has_a_menu_that_the_keyboard_opens() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let mut browser = signed_in(&world, "asha").await;
    let places = "document.querySelector('#places').checkVisibility()";
    browser.size(1280, 900).await;
    browser.visit("/console/calls/").await;
    assert_eq!(
        browser
            .eval(&format!("{places} && !document.querySelector('.menu-open').checkVisibility()"))
            .await,
        true
    );
    browser.size(390, 844).await;
    browser.until(&format!("!{places}")).await;
    let key = |key: &str, code: u32| {
        let text = if key == "Enter" { "\r" } else { "" };
        ["keyDown", "keyUp"].map(
            |kind| json!({"type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code}),
        )
    };
    browser.eval("document.querySelector('.menu-open').focus()").await;
    for event in key("Enter", 13) {
        browser.devtools("Input.dispatchKeyEvent", event).await;
    }
    browser.until(places).await;
    picture(&mut browser, "menu").await;
    if let Some(axe) = axe() {
        assert_eq!(browser.barriers(&axe).await, [""; 0]);
    }
    for event in key("Escape", 27) {
        browser.devtools("Input.dispatchKeyEvent", event).await;
    }
    browser.until(&format!("!{places} && document.activeElement.matches('.menu-open')")).await;
    browser.eval("document.querySelector('.menu-open').click()").await;
    browser.until(places).await;
    browser.press("#places", "Operations").await;
    browser
        .until(&format!("location.pathname === '/console/operations/' && {READY} && !{places}"))
        .await;
    assert_eq!(browser.errors, [""; 0]);
}
