//! Hostile names appear as plain text on every page, in a real Chromium: no script runs and no
//! external resource is requested (`docs/reference/reliability.md#r20`).

use serde_json::{Value, json};
use sim::{CallScript, HangupRule, PhoneKind};

use crate::console::{Session, signed_in, with_people};
use crate::console_look::writes;
use crate::support::browser::{Browser, READY, has_chromium};
use crate::support::http;
use crate::support::node::API_KEY;

/// Names that try to run scripts, break out of markup, or hide text.
const HOSTILE: &[&str] = &[
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'-alert(1)-'",
    "</title><script>alert(1)</script>",
    "</textarea><svg onload=alert(1)>",
    "{{7*7}}",
    "${alert(1)}",
    "javascript:alert(1)",
    "\u{202e}gnirts",
    "a\u{0}b",
    "<a href=//evil.example>x</a>",
    "&lt;b&gt;",
    "--><!--<script>",
    "]]><script>alert(1)</script>",
    "<math><mi//xlink:href=\"data:x,<script>alert(1)</script>\">",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "<base href=//evil.example/>",
    "<meta http-equiv=refresh content=0>",
    "<form action=//evil.example><button>",
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<style>*{display:none}</style>",
    "<link rel=stylesheet href=//evil.example>",
    "<object data=//evil.example>",
    "<embed src=//evil.example>",
    "<video><source onerror=alert(1)>",
    "<body onload=alert(1)>",
    "<template><script>alert(1)</script>",
    "\\x3cscript\\x3e",
    "%3Cscript%3Ealert(1)%3C/script%3E",
];

/// Converts a payload to a value that length-limited fields accept.
fn sanitised(name: &str, most: usize) -> String {
    name.chars().filter(|c| !c.is_control()).take(most).collect::<String>().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_hostile_names_are_text_on_every_page() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let asha = Session::of(&world, "asha").await;
    let api = async |method: &str, path: &str, body: Value| {
        let url = format!("{}/api/v1/{path}", world.node.public);
        http::send(method, &url, &[("x-api-key", API_KEY)], body.to_string()).await
    };
    let mut webhooks = 0;
    for (n, name) in HOSTILE.iter().enumerate() {
        let shown = sanitised(name, 64);
        let login = format!("user{n}");
        let made = asha
            .post(
                "/console/people/users",
                &[("name", &login), ("full_name", &shown), ("role", "agent")],
            )
            .await;
        assert_eq!(made.status, 303, "{name}: {}", made.text());
        let key = asha.post("/console/people/keys", &[("name", &shown), ("role", "agent")]).await;
        assert_eq!(key.status, 303, "{name}: {}", key.text());
        // A user with that name sends it as a message.
        let user = format!("9198123450{n:02}");
        writes(&world, &json!({"message": *name, "from": user, "name": *name})).await;
        let agent = json!({"name": shown, "kind": "http", "endpoint": world.app.url("/agent"), "greeting": *name});
        let made = api("POST", "agents/", agent).await;
        assert_eq!(made.status, 201, "{name}: {}", made.text());
        // The number of webhooks is limited.
        let hook = world.app.url("/hook");
        webhooks += usize::from(
            asha.post("/console/webhooks/", &[("name", &shown), ("url", &hook)]).await.status
                == 303,
        );
        // Numbers have such names at Meta and in the console.
        let number = format!("9180357380{n:02}");
        let id = format!("10654035224{n:04}");
        let order =
            json!({"number": number, "phone_number_id": id, "waba": "1029384756", "name": *name});
        let ordered = http::send(
            "POST",
            &format!("{}/_sim/numbers", world.sim.url()),
            &[],
            order.to_string(),
        )
        .await;
        assert_eq!(ordered.status, 204, "{}", ordered.text());
    }
    assert!(webhooks >= 10, "{webhooks}");
    assert_eq!(api("POST", "wabas/1029384756/sync/", Value::Null).await.status, 200);
    for (n, name) in HOSTILE.iter().enumerate() {
        let changed = api(
            "PATCH",
            &format!("phone-numbers/9180357380{n:02}/"),
            json!({"alias": sanitised(name, 100)}),
        )
        .await;
        assert_eq!(changed.status, 200, "{name}: {}", changed.text());
    }
    let mut browser = signed_in(&world, "asha").await;
    let inbox = asha.get("/console/inbox/").await.text();
    let chats: Vec<String> = inbox
        .split("row-link\" href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect();
    assert!(chats.len() >= HOSTILE.len(), "{}", chats.len());
    let agents = asha.get("/console/agents/").await.text();
    let agents = agents
        .split("row-link\" href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_owned());
    let hooks = asha.get("/console/webhooks/").await.text();
    let hooks = hooks
        .split("row-link\" href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap().to_owned());
    let lists = ["people", "inbox", "numbers", "agents", "webhooks", "notifications"]
        .map(|page| format!("/console/{page}/"));
    let numbers = (0..HOSTILE.len()).map(|n| format!("/console/numbers/9180357380{n:02}/"));
    let mut texts = String::new();
    for path in lists.into_iter().chain(chats).chain(agents).chain(hooks).chain(numbers) {
        let text = visit_and_check(&mut browser, &path).await;
        if ["/console/people/", "/console/inbox/", "/console/numbers/", "/console/agents/"]
            .contains(&path.as_str())
        {
            for name in HOSTILE {
                assert!(text.contains(&sanitised(name, 64)), "{name} on {path}");
            }
        }
        texts.push_str(&text);
    }
    assert!(texts.contains("49") || texts.contains("{{7*7}}"));
    assert_eq!(browser.errors, [""; 0]);
}

/// Elements and attributes that no name may create.
const ODD: &[&str] = &[
    "main script",
    "main iframe",
    "main img[src=x]",
    "base",
    "main style",
    "main object",
    "main embed",
    "main math",
    "main details[ontoggle]",
    "main a[href*='evil.example']",
    "[onerror], [onload], [onfocus]",
];

/// Escapes the text of an XML element.
fn escaped(name: &str) -> String {
    sanitised(name, 200).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Visits a page, checks that no name was interpreted as markup, and returns the page's text.
async fn visit_and_check(browser: &mut Browser, path: &str) -> String {
    browser.visit(path).await;
    check_page(browser).await
}

async fn check_page(browser: &mut Browser) -> String {
    browser.until(READY).await;
    let path = browser.eval("location.pathname + location.search").await;
    for odd in ODD {
        assert_eq!(
            browser.eval(&format!("document.querySelectorAll({odd:?}).length")).await,
            0,
            "{odd} on {path}"
        );
    }
    let fields = "[...document.querySelectorAll('main input, main textarea')].map((f) => '\\n' + f.value).join('')";
    let text =
        browser.eval(&format!("document.querySelector('main').textContent + {fields}")).await;
    text.as_str().expect("a page").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_callers_with_hostile_names_are_text_in_lists_and_on_the_pages_of_their_calls() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    // The document contains each name too.
    world.app.route("/unused", |seen| {
        let name = seen
            .param("From")
            .get(10..)
            .and_then(|n| HOSTILE.get(n.parse::<usize>().ok()?))
            .unwrap_or(&"");
        let name = escaped(name);
        (200, format!("<Response><Speak>{name}</Speak><Wait length=\"120\"/></Response>"))
    });
    let mut browser = signed_in(&world, "asha").await;
    // Watch the page while calls arrive: live updates must be text as well.
    browser.visit("/console/calls/").await;
    let mut calls = Vec::new();
    for (n, name) in HOSTILE.iter().enumerate() {
        let script = CallScript {
            from: format!("9198123450{n:02}"),
            name: (*name).to_owned(),
            phone: PhoneKind::Counting,
            hangup: HangupRule::Never,
            ..CallScript::default()
        };
        calls.push(world.sim.place_call(script));
    }
    let all = format!("document.querySelectorAll('#up tr[id]').length === {}", HOSTILE.len());
    browser.until(&all).await;
    let here = check_page(&mut browser).await;
    let live = visit_and_check(&mut browser, "/console/calls/").await;
    browser.until("[...document.querySelectorAll('#up .pill')].every((p) => p.classList.contains('live'))").await;
    for name in HOSTILE {
        let name = sanitised(name, 64);
        assert!(here.contains(&name) && live.contains(&name), "{name}");
    }
    let found = browser
        .eval("[...document.querySelectorAll('#up tr a')].map((a) => a.getAttribute('href'))")
        .await;
    let pages: Vec<String> = serde_json::from_value(found).unwrap();
    assert_eq!(pages.len(), HOSTILE.len());
    let mut texts = String::new();
    for page in &pages {
        texts.push_str(&visit_and_check(&mut browser, page).await);
    }
    for name in HOSTILE {
        assert!(texts.contains(&sanitised(name, 64)), "{name}: the caller's");
        assert!(texts.contains(&escaped(name)), "{name}: in the document");
    }
    visit_and_check(&mut browser, "/console/").await;
    visit_and_check(&mut browser, "/console/operations/").await;
    // The callers hang up; check the pages of ended calls and the history.
    drop(calls);
    browser.visit("/console/calls/").await;
    browser
        .until(&format!(
            "document.querySelectorAll('#history tr[id]').length === {}",
            HOSTILE.len()
        ))
        .await;
    let history = check_page(&mut browser).await;
    for (name, page) in HOSTILE.iter().zip(&pages) {
        assert!(history.contains(&sanitised(name, 64)), "{name}");
        visit_and_check(&mut browser, &format!("{page}?step=2")).await;
    }
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_search_terms_and_playground_input_are_text() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let asha = Session::of(&world, "asha").await;
    let mut browser = signed_in(&world, "asha").await;
    for (n, name) in HOSTILE.iter().enumerate() {
        let sought = url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>();
        for path in [
            format!("/console/calls/?from={sought}&to={sought}"),
            format!("/console/calls/?direction={sought}&outcome={sought}"),
            format!("/console/inbox/?q={sought}"),
            format!("/console/numbers/?q={sought}"),
            format!("/console/playground/?source={sought}"),
        ] {
            // The browser checks some pages of each kind, and plain HTML all of them.
            let page = asha.get(&path).await;
            // A direction is one of two words.
            let status = if path.contains("direction=") { 400 } else { 200 };
            assert_eq!(page.status, status, "{path}");
            assert!(!name.contains(['<', '"']) || !page.text().contains(*name), "{path}");
            if n % 6 == 1 && status == 200 {
                visit_and_check(&mut browser, &path).await;
            }
        }
        let debugged = [("url", *name), ("from", name), ("to", name), ("keys", name)];
        let tried = [("source", *name), ("keys", *name)];
        for (path, form) in
            [("/console/playground/debugger/", &debugged[..]), ("/console/playground/", &tried[..])]
        {
            let page = asha.post(path, form).await;
            assert!(!name.contains(['<', '"']) || !page.text().contains(*name), "{name} on {path}");
            assert!(
                page.headers["content-security-policy"]
                    .to_str()
                    .unwrap()
                    .starts_with("default-src 'none'")
            );
        }
    }
    // Run `xml check` and `xml run` on the raw payloads, which are not documents, and on escaped
    // ones.
    let speaks: String =
        HOSTILE.iter().map(|name| format!("<Speak>{}</Speak>\n", escaped(name))).collect();
    let valid = format!("<Response>\n{speaks}</Response>");
    for document in [HOSTILE.join("\n"), valid] {
        browser.visit("/console/playground/").await;
        browser.fill("#source", &document).await;
        browser.until("document.querySelector('#findings li')").await;
        check_page(&mut browser).await;
        browser
            .eval("globalThis.before = 1; document.querySelector('.run button.primary').click()")
            .await;
        browser
            .until(&format!(
                "typeof before === 'undefined' && {READY} && document.querySelector('.walk li')"
            ))
            .await;
        let text = check_page(&mut browser).await;
        assert!(text.contains("<iframe srcdoc"), "{text}");
    }
    assert_eq!(browser.errors, [""; 0]);
}
