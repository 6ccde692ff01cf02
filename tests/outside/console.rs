//! The console in a real Chromium and as plain HTML: sign-in, pages, a live list, roles, tenants,
//! hostile names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sim::{CallScript, HangupRule};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::console_look::picture;
use crate::outbound::{World, world};
use crate::support::app::ReceivedRequest;
use crate::support::browser::{Browser, has_chromium};
use crate::support::http::{self, Answer};
use crate::support::meta::{connect, silent_offer};
use crate::support::node::{API_KEY, AUTH_ID, AUTH_TOKEN};

pub const OTHER: &str = "MATESTOFFHOOK0000002";
pub const PASSWORD: &str = "correct horse battery";

/// Configuration of a person with [`PASSWORD`].
pub fn user(name: &str, account: &str, role: &str) -> String {
    format!(
        "\n[[user]]\nname = \"{name}\"\npassword = \"{PASSWORD}\"\naccount = \"{account}\"\nrole = \"{role}\"\n"
    )
}

/// Configuration of people in two accounts with two roles.
pub fn people() -> String {
    format!(
        "\n[[account]]\nauth_id = \"{OTHER}\"\nauth_token = \"test-token-of-other-account\"\napi_keys = [\"test-key-of-other-account\"]\n{}{}{}",
        user("asha", AUTH_ID, "owner"),
        user("ravi", AUTH_ID, "agent"),
        user("eve", OTHER, "owner"),
    )
}

pub async fn with_people() -> World {
    world(|expected, _| {
        expected.extra.push_str(&people());
        expected.accept_wait_ms = 0;
    })
    .await
}

/// A person with a session cookie.
pub struct Session<'w> {
    public: &'w str,
    pub cookie: String,
}

pub async fn form(
    public: &str,
    path: &str,
    headers: &[(&str, &str)],
    pairs: &[(&str, &str)],
) -> Answer {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    let headers: Vec<_> = headers
        .iter()
        .copied()
        .chain([("content-type", "application/x-www-form-urlencoded")])
        .collect();
    http::send("POST", &format!("{public}{path}"), &headers, body).await
}

impl<'w> Session<'w> {
    pub async fn of(world: &'w World, name: &str) -> Self {
        Self::at(&world.node.public, name).await
    }

    pub async fn at(public: &'w str, name: &str) -> Self {
        let answer =
            form(public, "/console/sign-in", &[], &[("name", name), ("password", PASSWORD)]).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let cookie = answer.headers["set-cookie"].to_str().unwrap().to_owned();
        assert!(
            cookie.contains("; HttpOnly; SameSite=Strict") && !cookie.contains("Secure"),
            "{cookie}"
        );
        Self { public, cookie: cookie.split(';').next().unwrap().to_owned() }
    }

    pub async fn get(&self, path: &str) -> Answer {
        http::send("GET", &format!("{}{path}", self.public), &[("cookie", &self.cookie)], "").await
    }

    pub async fn csrf(&self) -> String {
        let page = self.get("/console/").await.text();
        page.split("data-csrf=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .expect("a token")
            .to_owned()
    }

    pub async fn post(&self, path: &str, pairs: &[(&str, &str)]) -> Answer {
        let csrf = self.csrf().await;
        let pairs: Vec<_> = pairs.iter().copied().chain([("csrf", csrf.as_str())]).collect();
        form(self.public, path, &[("cookie", &self.cookie)], &pairs).await
    }

    /// Posts a form whose result is shown once, and returns the page that shows it. Reloading that
    /// page repeats nothing and does not show it again.
    pub async fn post_once(&self, path: &str, pairs: &[(&str, &str)]) -> Answer {
        let answer = self.post(path, pairs).await;
        assert_eq!(answer.status, 303, "{path}: {}", answer.text());
        let to = answer.headers["location"].to_str().unwrap().to_owned();
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Strict; Max-Age=60"), "{cookie}");
        let result = cookie.split(';').next().unwrap();
        let both = format!("{}; {result}", self.cookie);
        let page =
            http::send("GET", &format!("{}{to}", self.public), &[("cookie", &both)], "").await;
        let taken = page.headers["set-cookie"].to_str().unwrap();
        assert!(taken.contains("offhook-once=;") && taken.contains("Max-Age=0"), "{taken}");
        page
    }
}

/// The events of a console page.
pub struct EventStream {
    stream: TcpStream,
    /// All that has come.
    pub text: String,
}

impl EventStream {
    /// Opens a stream, and waits for its first event or its refusal.
    pub async fn open(public: &str, cookie: &str) -> Self {
        let host = public.strip_prefix("http://").unwrap();
        #[allow(clippy::disallowed_methods, reason = "a test's own peer")]
        let mut stream = TcpStream::connect(host).await.unwrap();
        let request =
            format!("GET /console/events HTTP/1.1\r\nHost: {host}\r\nCookie: {cookie}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut opened = Self { stream, text: String::new() };
        opened.until(|text| text.contains("data:") || text.contains(" 429 ")).await;
        opened
    }

    /// Reads until the condition on all that has come is met.
    pub async fn until(&mut self, is_met: impl Fn(&str) -> bool) {
        while !is_met(&self.text) {
            let mut buffer = [0; 1024];
            let n = self.stream.read(&mut buffer).await.unwrap();
            assert!(n > 0, "closed after {}", self.text);
            self.text.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
        }
    }
}

pub const PAGES: &[&str] = &[
    "/console/",
    "/console/calls/",
    "/console/recordings/",
    "/console/errors/",
    "/console/operations/",
    "/console/playground/",
    "/console/phone/",
    "/console/notifications/",
    "/console/inbox/",
    "/console/numbers/",
    "/console/agents/",
    "/console/reference/",
];

/// Pages for administrators.
const ADMIN_PAGES: &[&str] = &[
    "/console/account/",
    "/console/people/",
    "/console/people/audit/",
    "/console/webhooks/",
    "/console/agents/new/",
    "/console/numbers/new/",
    "/console/playground/debugger/",
];

#[tokio::test(flavor = "multi_thread")]
async fn r20_pages_need_a_session_and_have_security_headers() {
    let world = with_people().await;
    let public = &world.node.public;
    for path in PAGES.iter().chain(ADMIN_PAGES).chain(&["/console/calls/x/"]) {
        let answer = http::send("GET", &format!("{public}{path}"), &[], "").await;
        assert_eq!(answer.status, 303, "{path}");
        assert!(
            answer.headers["location"].to_str().unwrap().starts_with("/console/sign-in?to="),
            "{path}"
        );
    }
    assert_eq!(http::send("GET", &format!("{public}/console/events"), &[], "").await.status, 401);
    let asha = Session::of(&world, "asha").await;
    let nested = "/console/events?page=%2Fconsole%2Fevents%3Fpage%3D%252Fconsole%252F";
    assert_eq!(asha.get(nested).await.status, 404, "it would wait for its own turn");
    let wrong =
        form(public, "/console/sign-in", &[], &[("name", "asha"), ("password", "wrong")]).await;
    assert!(wrong.status == 401 && !wrong.headers.contains_key("set-cookie"));
    let cross =
        form(public, "/console/sign-in", &[("sec-fetch-site", "cross-site")], &[("name", "asha")])
            .await;
    assert_eq!(cross.status, 403);

    let asha = Session::of(&world, "asha").await;
    for path in PAGES.iter().chain(ADMIN_PAGES) {
        let answer = asha.get(path).await;
        let text = answer.text();
        assert_eq!(answer.status, 200, "{path}: {text}");
        let head = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        let policy = head("content-security-policy");
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        assert!(
            policy.contains("frame-ancestors 'none'") && policy.contains("base-uri 'none'"),
            "{policy}"
        );
        assert_eq!(
            [head("x-content-type-options"), head("referrer-policy"), head("cache-control")],
            ["nosniff", "no-referrer", "no-store"]
        );
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
        assert_eq!(text.matches("<h1").count(), 1, "{path} has one heading");
        assert!(
            text.contains("<main id=\"main\"")
                && text.contains("lang=\"en\"")
                && !text.contains(" style="),
            "{path}"
        );
    }
    let (url, likes) = (format!("{public}/console/calls/"), ("accept-language", "de-DE,de;q=0.9"));
    let german = http::send("GET", &url, &[("cookie", &asha.cookie), likes], "").await.text();
    assert!(german.contains("lang=\"de\"") && german.contains("Verlauf"));

    // Sign-out requires the CSRF token. Afterwards the cookie is invalid.
    let forged =
        form(public, "/console/sign-out", &[("cookie", &asha.cookie)], &[("csrf", "x")]).await;
    assert_eq!(forged.status, 403);
    assert_eq!(asha.get("/console/").await.status, 200);
    let second = Session::of(&world, "asha").await;
    assert_eq!(asha.post("/console/sign-out", &[]).await.status, 303);
    assert_eq!(
        (asha.get("/console/").await.status, second.get("/console/").await.status),
        (303, 200)
    );
    assert_eq!(second.post("/console/sign-out", &[("everywhere", "1")]).await.status, 303);
    assert_eq!(second.get("/console/").await.status, 303);
    let log = world.node.log();
    assert!(!log.contains(PASSWORD) && !log.contains(&asha.cookie), "r22");
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_show_the_limits_and_the_permission_rules_in_force() {
    let world = with_people().await;
    let asha = Session::of(&world, "asha").await;
    let page = asha.get("/console/operations/").await.text();
    for id in ["chart-live", "chart-cps", "chart-ended", "chart-set-up", "slots", "rules", "causes"]
    {
        assert!(page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    let rules = page
        .split("id=\"rules\"")
        .nth(1)
        .and_then(|rest| rest.split("</section>").next())
        .expect("the rules");
    for rule in [
        "1 per day, 2 in seven days",
        "<dd>5</dd>",
        "7 days",
        "US, CA, TR, EG, NG, VN",
        "after 2 Meta asks",
    ] {
        assert!(rules.contains(rule), "{rule}: {rules}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_show_refused_calls_with_number_and_reason() {
    let mut world = world(|expected, _| {
        expected.extra.push_str(&people());
        expected.limits = "calls_per_number = 1".to_owned();
        expected.accept_wait_ms = 0;
    })
    .await;
    let asha = Session::of(&world, "asha").await;
    assert!(!asha.get("/console/operations/").await.text().contains("id=\"refused\""));
    world.app.xml("/unused", "<Response><Wait length=\"60\"/></Response>");
    let script = CallScript { hangup: HangupRule::Never, ..CallScript::default() };
    let _phone = world.sim.place_call(script);
    world.app.wait("/unused").await;
    for _ in 0..2 {
        connect(&world.node, &silent_offer()).await;
    }
    let row = ">The number had its maximum of simultaneous calls</td><td class=\"num\" data-head=\"Calls\">2</td>";
    // A node of a fleet stores its counts every minute.
    let mut every = tokio::time::interval(std::time::Duration::from_millis(200));
    let clock = model::Clock::real();
    let begun = clock.now();
    loop {
        let page = asha.get("/console/operations/").await.text();
        if page.contains("<a href=\"#refused\">2 refused</a>") && page.contains(row) {
            break;
        }
        let part = page.split("id=\"refused\"").nth(1).unwrap_or("no refused calls");
        assert!((clock.now() - begun).as_secs() < 90, "{}", &part[..part.len().min(1_500)]);
        every.tick().await;
    }
    let eve = Session::of(&world, "eve").await;
    assert!(!eve.get("/console/operations/").await.text().contains("id=\"refused\""));
    world.node.kill();
    world.node.start_again().await;
    let page = Session::of(&world, "asha").await.get("/console/operations/").await.text();
    assert!(page.contains(row), "outlasts a restart: {page}");
}

/// Checks the security headers that every response has, for any path and status.
fn is_secured(answer: &Answer, what: &str) {
    let head = |name: &str| {
        answer.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    };
    let policy = head("content-security-policy");
    assert!(
        policy.starts_with("default-src 'none'")
            && !policy.contains("unsafe")
            && !policy.contains('*'),
        "{what}: {policy}"
    );
    assert!(
        policy.contains("frame-ancestors 'none'") || policy.contains("sandbox"),
        "{what}: {policy}"
    );
    assert_eq!(
        [head("x-content-type-options"), head("referrer-policy")],
        ["nosniff", "no-referrer"],
        "{what}"
    );
    assert!(!head("cache-control").is_empty() && head("x-frame-options") == "DENY", "{what}");
    let cors = answer.headers.keys().find(|name| name.as_str().starts_with("access-control-"));
    assert_eq!(cors, None, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_sees_the_node_and_failures_and_drains_it_unless_it_is_shared() {
    let shared = with_people().await;
    let page = Session::of(&shared, "asha").await.get("/console/operations/").await.text();
    assert!(!page.contains("id=\"nodes\"") && !page.contains("chart-graph"), "R16");
    let user = |name: &str, role: &str| {
        format!(
            "\n[[user]]\nname = \"{name}\"\npassword = \"{PASSWORD}\"\naccount = \"{AUTH_ID}\"\nrole = \"{role}\"\n"
        )
    };
    let mut world = world(|expected, _| {
        expected.is_single = true;
        expected.extra.push_str(&(user("asha", "owner") + &user("ravi", "admin")));
        expected.accept_wait_ms = 0;
    })
    .await;
    let fetches = |page: &str| {
        let rest = page.split("id=\"chart-fetches\"").nth(1).map(str::to_owned);
        rest.and_then(|rest| Some(rest.split("</section>").next()?.to_owned())).expect("a chart")
    };
    let failed = "<td class=\"mono\">answer</td><td><span class=\"pill bad\">";
    // The answer URL does not exist, so the fetch fails.
    let call = world.sim.place_call(sim::CallScript::default());
    drop(call.all().await);
    let asha = Session::of(&world, "asha").await;
    let page = asha.get("/console/operations/").await.text();
    assert!(fetches(&page).contains(failed), "{}", fetches(&page));
    assert!(page.contains("id=\"chart-graph\"") && page.contains("Ready"), "{page}");
    let ravi = Session::of(&world, "ravi").await;
    assert!(!ravi.get("/console/operations/").await.text().contains("id=\"nodes\""));
    let action = page
        .split("action=\"")
        .find_map(|rest| rest.split('"').next().filter(|path| path.ends_with("/drain")));
    let action = action.expect("a button");
    assert_eq!(ravi.post(action, &[]).await.status, 403);
    assert_eq!(asha.post("/console/operations/nodes/elsewhere/drain", &[]).await.status, 404);
    assert_eq!(asha.post(action, &[]).await.status, 303);
    let page = asha.get("/console/operations/").await.text();
    assert!(
        page.contains("<span class=\"pill missed\">Draining</span>") && !page.contains(action),
        "{page}"
    );
    let ready = http::send("GET", &format!("{}/readyz", world.node.admin), &[], "").await;
    assert_eq!((ready.status, ready.text().contains("draining")), (503, true));
    world.node.kill();
    world.node.start_again().await;
    let page = Session::of(&world, "asha").await.get("/console/operations/").await.text();
    assert!(fetches(&page).contains(failed), "outlasts a restart: {}", fetches(&page));
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_every_path_of_the_apis_and_the_console_has_the_headers() {
    let world = with_people().await;
    let public = &world.node.public;
    let asha = Session::of(&world, "asha").await;
    let document = http::get(&format!("{public}/openapi.json")).await;
    is_secured(&document, "/openapi.json");
    let mut seen = 0;
    let (key, basic) = (
        ("x-api-key", API_KEY),
        format!("Basic {}", STANDARD.encode(format!("{AUTH_ID}:{AUTH_TOKEN}"))),
    );
    for (path, operations) in document.json()["paths"].as_object().expect("paths") {
        // Fill in the parameters. Requests for unknown objects must respond too.
        let filled = path.replace("{auth_id}", AUTH_ID).replace(['{', '}'], "");
        for method in
            operations.as_object().expect("operations").keys().filter(|word| *word != "parameters")
        {
            let method = method.to_uppercase();
            // Skip routes that never end, or that would revoke the keys that this test uses.
            if filled.contains("/token/") || filled.ends_with("/reload/") {
                continue;
            }
            let url = format!("{public}{filled}");
            for headers in [vec![], vec![key, ("authorization", basic.as_str())]] {
                let answer = http::send(&method, &url, &headers, "").await;
                is_secured(&answer, &format!("{method} {path}: {}", answer.status));
                seen += 1;
            }
        }
    }
    assert!(seen > 200, "{seen}");
    // The console: pages with and without a session, assets, missing pages, refusals and unknown
    // paths.
    let assets = ["console.css", "console.js", "live.js", "phone.js", "mark.svg", "nothing.js"];
    let others = [
        "/",
        "/console",
        "/console/sign-in",
        "/console/nowhere/",
        "/console/calls/x/",
        "/console/calls/x/log.jsonl",
        "/app/x/whatsapp",
        "/nowhere",
        "/recordings/x.wav",
        "/media/x",
        "/webhooks/meta",
        "/phone",
        "/console/invitation/x",
    ];
    let paths = PAGES.iter().chain(ADMIN_PAGES).copied().map(str::to_owned);
    let paths = paths
        .chain(assets.map(|name| format!("/console/assets/x/{name}")))
        .chain(others.map(str::to_owned));
    for path in paths {
        is_secured(&asha.get(&path).await, &path);
        is_secured(&http::send("GET", &format!("{public}{path}"), &[], "").await, &path);
        is_secured(
            &form(public, &path, &[("sec-fetch-site", "cross-site")], &[("name", "x")]).await,
            &path,
        );
    }
    is_secured(&http::get(&format!("{public}/console/{}", "x".repeat(9_000))).await, "too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_shows_the_operations_of_the_api_and_is_searched() {
    let world = with_people().await;
    let asha = Session::of(&world, "asha").await;
    let document = http::get(&format!("{}/openapi.json", world.node.public)).await.json();
    let paths = document["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().values());
    let ids: Vec<&str> = operations.filter_map(|one| one["operationId"].as_str()).collect();
    let page = asha.get("/console/reference/").await.text();
    assert!(ids.len() > 100);
    for id in ids {
        assert!(page.contains(&format!("<details id=\"{id}\"")), "{id}");
    }
    let found = asha.get("/console/reference/?q=tryAgent").await.text();
    assert_eq!(found.matches("<details id=").count(), 1);
    assert!(found.contains("/api/v1/agents/{agent_id}/try/") && found.contains("curl"), "{found}");

    // Texts of the OpenAPI document are English in every language, and marked as such.
    let cookie = format!("{}; offhook-lang=de", asha.cookie);
    let url = format!("{}/console/reference/?q=tryAgent", world.node.public);
    let german = http::send("GET", &url, &[("cookie", &cookie)], "").await.text();
    for text in [
        "<html lang=\"de\"",
        "<h1>API-Referenz</h1>",
        "<h2>Nummern-API ",
        "<th scope=\"col\">Beschreibung</th>",
        "<td>Pfad</td>",
        "Kopieren</button>",
        "<span class=\"sub\" lang=\"en\">",
        "<td lang=\"en\">",
        "<dd lang=\"en\">",
    ] {
        assert!(german.contains(text), "{text}: {german}");
    }
}

/// A misspelt filter would show everything as if it matched.
#[tokio::test(flavor = "multi_thread")]
async fn lists_refuse_parameters_that_they_do_not_have() {
    let world = with_people().await;
    let asha = Session::of(&world, "asha").await;
    for list in [
        "",
        "calls/",
        "errors/",
        "recordings/",
        "inbox/",
        "numbers/",
        "agents/",
        "webhooks/",
        "notifications/",
        "operations/",
        "reference/",
        "people/",
        "people/audit/",
    ] {
        assert_eq!(asha.get(&format!("/console/{list}")).await.status, 200, "{list}");
        let refused = asha.get(&format!("/console/{list}?unreed=true")).await;
        assert_eq!(refused.status, 400, "{list}");
        assert!(refused.text().contains("unreed=true"), "{list}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r20_roles_limit_pages_and_a_session_uses_the_api_with_its_token() {
    let world = with_people().await;
    let public = &world.node.public;
    let [asha, ravi] = [Session::of(&world, "asha").await, Session::of(&world, "ravi").await];
    assert_eq!(
        (asha.get("/console/people/").await.status, ravi.get("/console/people/").await.status),
        (200, 403)
    );
    assert!(!ravi.get("/console/").await.text().contains("/console/people/"));
    let refused =
        ravi.post("/console/people/users", &[("name", "mallory"), ("role", "owner")]).await;
    assert_eq!(refused.status, 403);
    assert_eq!(ravi.post("/console/playground/", &[("source", "<Response/>")]).await.status, 403);
    let debugger = "/console/playground/debugger/";
    assert_eq!(ravi.get(debugger).await.status, 403);
    assert!(!ravi.get("/console/playground/").await.text().contains(debugger));
    let refused = asha.post("/console/account/", &[]).await;
    assert!(refused.status == 400 && refused.text().contains("in the field “do”"));

    let api = async |session: &Session<'_>, method: &str, path: &str, csrf: &str, body: &str| {
        let headers = [("cookie", session.cookie.as_str()), ("x-csrf-token", csrf)];
        http::send(method, &format!("{public}/api/v1/{path}"), &headers, body.to_owned()).await
    };
    assert_eq!(api(&asha, "GET", "account/", "", "").await.status, 200);
    assert_eq!(api(&asha, "POST", "xml/check/", "", "<Response/>").await.status, 403, "no token");
    let token = asha.csrf().await;
    assert_eq!(api(&asha, "POST", "xml/check/", &token, "<Response/>").await.status, 200);
    assert_eq!(
        api(&ravi, "POST", "xml/check/", &token, "<Response/>").await.status,
        403,
        "another's token"
    );
    assert_eq!(api(&ravi, "GET", "users/", "", "").await.status, 403);

    // Invite a person, let them sign in, and remove them.
    let made = asha
        .post_once(
            "/console/people/users",
            &[("name", "mira"), ("full_name", "Mira <b>"), ("role", "admin")],
        )
        .await;
    let page = made.text();
    assert!(made.status == 200 && page.contains("Mira &#60;b&#62;"), "{page}");
    assert!(!page.contains("Earlier links"), "{page}");
    let again = [("name", "mira"), ("full_name", "Mira Rao"), ("role", "admin")];
    let refused = asha.post("/console/people/users", &again).await;
    let text = refused.text();
    let kept = ["value=\"Mira Rao\"", "value=\"mira\"", "<option value=\"admin\" selected>"];
    assert!(refused.status == 409 && kept.iter().all(|field| text.contains(field)), "{text}");
    let link = page
        .split("/console/invitation/")
        .nth(1)
        .and_then(|rest| rest.split('<').next())
        .expect("a link");
    let link = format!("/console/invitation/{link}");
    assert!(http::send("GET", &format!("{public}{link}"), &[], "").await.text().contains("mira"));
    let short = form(public, &link, &[], &[("password", "short"), ("again", "short")]).await;
    assert_eq!(short.status, 400);
    let chosen = [("password", PASSWORD), ("again", PASSWORD)];
    assert_eq!(form(public, &link, &[], &chosen).await.status, 303);
    assert_eq!(form(public, &link, &[], &chosen).await.status, 404, "once");
    let mira = Session::of(&world, "mira").await;
    let users = api(&asha, "GET", "users/", "", "").await.json();
    let id = users["items"].as_array().unwrap().iter().find(|user| user["name"] == "mira").unwrap()
        ["id"]
        .clone();
    let one = format!("/console/people/users/{}", id.as_str().unwrap());
    let again = asha.post_once(&one, &[("do", "invite")]).await.text();
    assert!(again.contains("Earlier links for this person no longer work."), "{again}");
    assert_eq!(asha.post(&one, &[("do", "role"), ("role", "agent")]).await.status, 303);
    assert_eq!(asha.post(&one, &[("do", "remove")]).await.status, 303);
    assert_eq!(mira.get("/console/").await.status, 303, "her session went with her");

    // An API key is shown once, grants its role, and nothing after its deletion.
    let key = [("name", "ci"), ("role", "agent")];
    let page = asha.post_once("/console/people/keys", &key).await.text();
    let secret = page
        .split("data-copy>")
        .nth(1)
        .and_then(|rest| rest.split('<').next())
        .expect("a secret")
        .to_owned();
    let with = async |path: &str| {
        http::send("GET", &format!("{public}/api/v1/{path}"), &[("x-api-key", secret.as_str())], "")
            .await
            .status
    };
    assert_eq!((with("account/").await, with("api-keys/").await), (200, 403));
    assert!(!asha.get("/console/people/").await.text().contains(&secret));
    let key = api(&asha, "GET", "api-keys/", "", "").await.json()["items"][0]["id"].clone();
    let gone = asha.post(&format!("/console/people/keys/{}", key.as_str().unwrap()), &[]).await;
    assert_eq!((gone.status, with("account/").await), (303, 401));
}

/// Places a call over the REST API that its user answers and hangs up. Returns its UUID.
pub async fn call(world: &World) -> String {
    world.app.xml("/answer", "<Response><Speak>Hello.</Speak></Response>");
    let order = json!({"from": crate::support::node::NUMBER, "to": "919812345678", "answer_url": world.app.url("/answer")});
    let headers = [("content-type", "application/json")];
    let placed = world.rest("POST", "Call/", &headers, order.to_string()).await;
    assert_eq!(placed.status, 201, "{}", placed.text());
    placed.json()["request_uuid"].as_str().expect("a UUID").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_calls_page_is_visible_to_its_account_only() {
    let world = with_people().await;
    let uuid = call(&world).await;
    world.node.record(&uuid).await;
    let [asha, eve] = [Session::of(&world, "asha").await, Session::of(&world, "eve").await];
    let page = asha.get(&format!("/console/calls/{uuid}/")).await;
    let text = page.text();
    assert_eq!(page.status, 200, "{text}");
    for part in
        ["id=\"verdict\"", "id=\"waterfall\"", "fetch answer", "id=\"replay\"", "&#60;Speak"]
    {
        assert!(text.contains(part), "{part}");
    }
    assert!(asha.get("/console/calls/").await.text().contains(&uuid));
    assert!(
        asha.get(&format!("/console/calls/{uuid}/?step=2"))
            .await
            .text()
            .contains("aria-current=\"step\"")
    );
    let log = asha.get(&format!("/console/calls/{uuid}/log.jsonl")).await;
    let replayed = machine::replay::replay(log.text().as_bytes(), |_| {}).expect("the log reads");
    assert_eq!(replayed.difference, None);
    for path in [format!("/console/calls/{uuid}/"), format!("/console/calls/{uuid}/log.jsonl")] {
        assert_eq!(eve.get(&path).await.status, 404, "{path}");
    }
    assert!(!eve.get("/console/calls/").await.text().contains(&uuid));
    assert_eq!(asha.get("/console/calls/nonsense/").await.status, 404);
    // The first characters are enough, as in the commands.
    let short = format!("/console/calls/{}/", &uuid[..8]);
    let found = asha.get(&short).await;
    assert_eq!(
        (found.status, found.headers["location"].to_str().unwrap()),
        (303, format!("/console/calls/{uuid}/").as_str())
    );
    assert_eq!(eve.get(&short).await.status, 404);
    assert!(
        asha.get("/console/calls/?since=2026-09-02&until=2026-09-01")
            .await
            .text()
            .contains("The start of the period is after its end")
    );
    assert!(
        asha.get("/console/calls/?from=1&outcome=missed")
            .await
            .text()
            .contains("No matching calls")
    );
    let users = http::send(
        "GET",
        &format!("{}/api/v1/users/", world.node.public),
        &[("x-api-key", API_KEY)],
        "",
    )
    .await;
    let id = users.json()["items"][0]["id"].as_str().unwrap().to_owned();
    for (method, path) in
        [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "invite/"), ("POST", "sign-out/")]
    {
        let path = format!("{}/api/v1/users/{id}/{path}", world.node.public);
        assert_eq!(
            http::send(method, &path, &[("x-api-key", "test-key-of-other-account")], "{}")
                .await
                .status,
            404,
            "{method} {path}"
        );
    }
}

/// Signs in through the form in a browser.
pub async fn signed_in(world: &World, name: &str) -> Browser {
    let mut browser = Browser::open(&format!("{}/console/", world.node.public)).await;
    browser.until("document.querySelector('[name=password]')").await;
    let fill = format!(
        "document.querySelector('[name=name]').value = '{name}'; document.querySelector('[name=password]').value = \
         '{PASSWORD}'; document.querySelector('form.stack button').click()"
    );
    browser.eval(&fill).await;
    browser.until("document.querySelector('.side nav')").await;
    browser
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_sees_a_live_call_and_steps_through_it() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let mut browser = signed_in(&world, "asha").await;
    for path in PAGES.iter().chain(ADMIN_PAGES) {
        browser.visit(path).await;
        browser.until("document.querySelector('main h1')?.textContent.trim().length > 0").await;
        let wide = browser.eval("document.documentElement.scrollWidth - innerWidth").await;
        assert!(wide.as_i64().is_some_and(|wide| wide <= 0), "{path} is {wide} too wide");
    }
    browser.visit("/console/calls/").await;
    browser.eval("globalThis.marked = 1").await;
    let uuid = call(&world).await;
    browser.until(&format!("document.querySelector('#call-{uuid}')")).await;
    world.node.record(&uuid).await;
    browser.until(&format!("document.querySelector('#history #call-{uuid} .pill')")).await;
    assert_eq!(browser.eval("globalThis.marked").await, 1, "without loading the page again");
    browser.eval(&format!("document.querySelector('#call-{uuid} a').click()")).await;
    browser.until("document.querySelectorAll('.fall tbody tr').length > 3").await;
    browser.eval("document.querySelector('.stepper a').click()").await;
    browser.until("document.querySelector('tr[aria-current=step]')").await;
    // The editor marks the linter's findings.
    browser.visit("/console/playground/").await;
    browser
        .eval(
            "const area = document.querySelector('#source'); area.value = '<Response>\\n<Speek/>\\n</Response>'; \
             area.dispatchEvent(new Event('input', { bubbles: true }))",
        )
        .await;
    browser.until("document.querySelector('.gutter b:nth-child(2)')?.className === 'bad'").await;
    browser.until("document.querySelector('#findings li.bad')").await;
    browser.eval("document.querySelector('.chip:nth-child(1)').click()").await;
    browser.until("document.querySelector('#source')?.value.includes('Welcome')").await;
    browser.eval("document.querySelector('.run button').click()").await;
    browser.until("document.querySelectorAll('.walk li').length > 2").await;
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn s2_02_s3_17_numbers_inbox_agents_and_webhooks_open_for_each_role() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let uuid = call(&world).await;
    world.node.record(&uuid).await;
    let [asha, ravi] = [Session::of(&world, "asha").await, Session::of(&world, "ravi").await];
    let agent = [
        ("name", "Desk <b>"),
        ("kind", "http"),
        ("endpoint", &world.app.url("/agent")),
        ("language", "en-US"),
    ]
    .map(|(name, value)| (name, value.to_owned()));
    let mut agent: Vec<_> = agent.iter().map(|(name, value)| (*name, value.as_str())).collect();
    agent.extend([("channel.whatsapp", "on"), ("enabled", "on")]);
    let made = asha.post("/console/agents/", &agent).await;
    assert_eq!(made.status, 303, "{}", made.text());
    let shown = asha.get(made.headers["location"].to_str().unwrap()).await.text();
    assert!(shown.contains("role=\"status\">Saved. Changes apply from the next"), "{shown}");
    assert_eq!(ravi.post("/console/agents/", &agent).await.status, 403);
    let again = asha.post("/console/agents/", &agent).await;
    let shown = again.text().matches("Another agent has this name").count();
    assert_eq!((again.status, shown), (409, 2), "at the top and at the field: {}", again.text());
    let webhook = asha
        .post_once("/console/webhooks/", &[("name", "crm"), ("url", &world.app.url("/hook"))])
        .await
        .text();
    assert!(webhook.contains("data-copy>"), "its secret, once: {webhook}");
    let refused =
        ravi.post("/console/webhooks/", &[("name", "x"), ("url", &world.app.url("/hook"))]).await;
    assert_eq!((refused.status, ravi.get("/console/webhooks/").await.status), (403, 403));
    let again =
        asha.post("/console/webhooks/", &[("name", "crm"), ("url", &world.app.url("/hook"))]).await;
    let shown = again.text().matches("Another webhook has this name").count();
    assert_eq!((again.status, shown), (409, 2), "at the top and at the field: {}", again.text());
    let list = asha.get("/console/webhooks/").await.text();
    let after = |text: &str, mark: &str| {
        let rest = text.split(mark).nth(1).unwrap_or_else(|| panic!("{mark} in {text}"));
        rest.split('/').next().unwrap().to_owned()
    };
    let webhook =
        format!("/console/webhooks/{}/", after(&list, "row-link\" href=\"/console/webhooks/"));
    assert!(!list.contains("data-copy>"));
    assert_eq!(asha.post(&webhook, &[("do", "test")]).await.status, 303);
    let url = world.app.url("/hook");
    let saved = asha.post(&webhook, &[("do", "save"), ("name", "crm"), ("url", &url)]).await;
    assert_eq!(saved.headers["location"], format!("{webhook}?saved=1").as_str());
    let shown = asha.get(&format!("{webhook}?saved=1")).await.text();
    assert!(shown.contains("role=\"status\">Saved. Changes apply from the next event."), "{shown}");
    assert_eq!(ravi.post(&webhook, &[("do", "remove")]).await.status, 403);
    // A test does not wait behind an earlier one, which fails here for ever.
    world.app.route("/broken", |_| (500, String::new()));
    let broken = world.app.url("/broken");
    asha.post(&webhook, &[("do", "save"), ("name", "crm"), ("url", &broken)]).await;
    asha.post(&webhook, &[("do", "test")]).await;
    let event = |seen: &ReceivedRequest| seen.headers["x-offhook-event-id"].clone();
    let earlier = event(&world.app.wait("/broken").await);
    asha.post(&webhook, &[("do", "test")]).await;
    let later = world.app.wait_where("/broken", |seen| event(seen) != earlier).await;
    assert_eq!(later.headers["x-offhook-attempt"], "1");
    asha.post(&webhook, &[("do", "save"), ("name", "crm"), ("url", &url)]).await;
    // A number's messages are routed to it here.
    let number = crate::support::node::NUMBER;
    let routed = format!("<a href=\"/console/numbers/{number}/\">");
    let shown = asha.get(&webhook).await.text();
    assert!(
        !shown.contains(&routed) && shown.contains(&format!("<option value=\"{number}\"")),
        "{shown}"
    );
    assert_eq!(ravi.post(&webhook, &[("do", "route"), ("number", number)]).await.status, 403);
    let added = asha.post(&webhook, &[("do", "route"), ("number", number)]).await;
    assert_eq!(added.headers["location"], format!("{webhook}?added=1").as_str());
    let shown = asha.get(&format!("{webhook}?added=1")).await.text();
    assert!(shown.contains(&routed) && shown.contains("role=\"status\">Number added."), "{shown}");
    let inbox = asha.get("/console/inbox/").await.text();
    let chat = format!("/console/inbox/{}/", after(&inbox, "row-link\" href=\"/console/inbox/"));
    let agent = asha.get("/console/agents/").await.text();
    let agent = format!("/console/agents/{}/", after(&agent, "row-link\" href=\"/console/agents/"));
    let number = format!("/console/numbers/{}/", crate::support::node::NUMBER);
    let connect = asha.get("/console/numbers/new/").await.text();
    assert_eq!(connect.matches("(optional)").count(), 3, "number, WABA and agent: {connect}");
    // The columns in their order.
    let numbers = asha.get("/console/numbers/").await.text();
    let heads: Vec<&str> = numbers
        .split("<th scope=\"col\">")
        .skip(1)
        .filter_map(|rest| rest.split("</th>").next())
        .collect();
    let expected = [
        "Phone Number",
        "WhatsApp Agent",
        "Verified Name",
        "Platform Type",
        "ID",
        "Quality Rating",
        "Actions",
    ];
    assert_eq!(heads, expected);
    // Actions of other roles are hidden and refused.
    assert!(asha.get(&chat).await.text().contains("value=\"delete\""));
    assert!(!ravi.get(&chat).await.text().contains("value=\"delete\""));
    assert_eq!(ravi.post(&chat, &[("do", "delete")]).await.status, 403);
    assert_eq!(ravi.post(&chat, &[("do", "archive")]).await.status, 409, "open is closed first");
    assert_eq!(ravi.post(&chat, &[("do", "close")]).await.status, 303);
    assert_eq!(ravi.post(&chat, &[("do", "reopen")]).await.status, 303);
    assert_eq!(ravi.post(&chat, &[("do", "ai-off")]).await.status, 303);
    assert_eq!(ravi.post(&number, &[("do", "disconnect")]).await.status, 403);
    let saved =
        asha.post(&number, &[("do", "save"), ("alias", "Support — APAC"), ("was.alias", "")]).await;
    assert_eq!(saved.status, 303, "{}", saved.text());
    assert!(asha.get("/console/numbers/").await.text().contains("Support — APAC"));
    let app = asha.get("/app/acme/whatsapp").await;
    assert_eq!(app.headers["location"], "/console/inbox/");
    let own = asha.get(&format!("/app/{AUTH_ID}/whatsapp")).await;
    assert_eq!(own.headers["location"], "/console/inbox/");
    let foreign = asha.get("/app/MAOTHEROFFHOOK000001/whatsapp/notifications").await;
    assert_eq!(foreign.status, 404);
    assert!(foreign.text().contains("another account"), "{}", foreign.text());
    let eve = Session::of(&world, "eve").await;
    for path in [&chat, &number, &agent, &webhook] {
        assert_eq!(eve.get(path).await.status, 404, "r16 {path}");
    }
    for name in ["asha", "ravi"] {
        let mut browser = signed_in(&world, name).await;
        let mut paths = vec![
            "/console/inbox/",
            chat.as_str(),
            "/console/numbers/",
            number.as_str(),
            "/console/agents/",
        ];
        if name == "asha" {
            paths.extend([
                agent.as_str(),
                "/console/agents/new/",
                "/console/webhooks/",
                webhook.as_str(),
            ]);
        }
        for (n, path) in paths.iter().enumerate() {
            browser.visit(path).await;
            browser.until("document.querySelector('main h1')?.textContent.trim().length > 0").await;
            let wide = browser.eval("document.documentElement.scrollWidth - innerWidth").await;
            assert!(wide.as_i64().is_some_and(|wide| wide <= 0), "{path} is {wide} too wide");
            if let Some(folder) = std::env::var_os("OFFHOOK_TEST_SHOTS") {
                browser
                    .screenshot(&std::path::Path::new(&folder).join(format!("{name}-{n}.png")))
                    .await;
            }
        }
        assert_eq!(browser.errors, [""; 0], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn assets_are_compressed_and_kept_by_browsers() {
    let world = with_people().await;
    let page = http::get(&format!("{}/console/sign-in", world.node.public)).await.text();
    let style = page.split('"').find(|text| text.ends_with("/console.css")).expect("a link");
    let url = format!("{}{style}", world.node.public);
    let plain = http::get(&url).await;
    let gzip = http::send("GET", &url, &[("accept-encoding", "gzip, br")], "").await;
    assert_eq!(gzip.headers["content-encoding"], "gzip");
    assert_eq!(gzip.headers["vary"], "accept-encoding");
    assert!(gzip.body.len() * 3 < plain.body.len(), "{} {}", gzip.body.len(), plain.body.len());
    for answer in [&plain, &gzip] {
        let cache = answer.headers["cache-control"].to_str().expect("text");
        assert!(cache.contains("immutable"), "{cache}");
    }
    // A page of an older version finds its files, and the browser asks again.
    let old = http::get(&format!("{}/console/assets/0/live.js", world.node.public)).await;
    assert_eq!((old.status, &old.headers["cache-control"]), (200, &"no-cache".parse().unwrap()));
}

/// The address of a form's action leads to its page, also after a sign-in; and a result that is
/// shown once belongs to its session and its page.
#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_forms_lead_to_their_pages() {
    let world = with_people().await;
    let public = &world.node.public;
    let asha = Session::of(&world, "asha").await;
    let id = uuid::Uuid::nil();
    for (form, page) in [
        ("sign-out", ""),
        ("preferences", ""),
        ("calls/filters", "calls/"),
        (&format!("calls/{id}/hangup"), &*format!("calls/{id}/")),
        (&format!("recordings/{id}/delete"), "recordings/"),
        ("numbers/918035737458/do", "numbers/918035737458/"),
        ("notifications/read-all", "notifications/"),
        (&format!("notifications/{id}/read"), "notifications/"),
        ("operations/nodes/dev/drain", "operations/"),
        ("phone/endpoints", "phone/"),
        ("phone/endpoints/1", "phone/"),
        ("people/users", "people/"),
        (&format!("people/users/{id}"), "people/"),
        ("people/keys", "people/"),
        (&format!("people/keys/{id}"), "people/"),
    ] {
        let url = url::Url::parse(&format!("{public}/console/{form}")).unwrap();
        let answer = asha.get(url.path()).await;
        assert_eq!(answer.status, 303, "{form}");
        let to = url.join(answer.headers["location"].to_str().unwrap()).unwrap();
        assert_eq!(to.path(), format!("/console/{page}"), "{form}");
    }
    let ended = form(public, "/console/people/keys", &[], &[("name", "ci")]).await;
    assert_eq!(
        (ended.status, ended.headers["location"].to_str().unwrap()),
        (303, "/console/sign-in?to=%2Fconsole%2Fpeople%2Fkeys")
    );

    let key = [("name", "ci"), ("role", "agent")];
    let made = asha.post("/console/people/keys", &key).await;
    let result = made.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
    let with = async |session: &Session<'_>, path: &str| {
        let both = format!("{}; {result}", session.cookie);
        http::send("GET", &format!("{public}{path}"), &[("cookie", &both)], "").await.text()
    };
    assert!(with(&asha, "/console/people/").await.contains("data-copy>"));
    assert!(!with(&asha, "/console/account/").await.contains("data-copy>"));
    let other = Session::of(&world, "asha").await;
    assert!(!with(&other, "/console/people/").await.contains("data-copy>"), "another session");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_reveals_and_replaces_the_auth_token() {
    let world = with_people().await;
    let public = &world.node.public;
    let [asha, ravi] = [Session::of(&world, "asha").await, Session::of(&world, "ravi").await];
    assert_eq!(ravi.get("/console/account/").await.status, 403);
    assert_eq!(ravi.post("/console/account/", &[("do", "reveal")]).await.status, 403);
    let page = asha.get("/console/account/").await.text();
    for shown in [AUTH_ID, &format!("{public}/v1/Account/{AUTH_ID}/"), "RestClient"] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(!page.contains(AUTH_TOKEN), "it is not in the page until it is revealed");
    let token = |page: &str| {
        let (_, rest) = page.split_once("id=\"auth-token\">").expect("a token");
        rest.split('<').next().expect("its end").to_owned()
    };
    let page = asha.post_once("/console/account/", &[("do", "reveal")]).await.text();
    assert_eq!(token(&page), AUTH_TOKEN);
    // A browser without scripts asks first: the answer repeats the form.
    let asked = asha.post("/console/account/?ask=account.confirm_rotate", &[("do", "rotate")]);
    let asked = asked.await;
    assert_eq!(asked.status, 200);
    let asked = asked.text();
    assert!(asked.contains("Create a new token?"), "{asked}");
    assert!(asked.contains("action=\"/console/account/\""), "{asked}");
    assert!(asked.contains("name=\"do\" value=\"rotate\""), "{asked}");
    let page = asha.post_once("/console/account/", &[("do", "reveal")]).await.text();
    assert_eq!(token(&page), AUTH_TOKEN, "nothing was done");
    let page = asha.post_once("/console/account/", &[("do", "rotate")]).await.text();
    let new = token(&page);
    assert_ne!(new, AUTH_TOKEN);
    let status = async |token: &str| {
        use base64::Engine as _;
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{AUTH_ID}:{token}"));
        let url = format!("{public}/v1/Account/{AUTH_ID}/");
        http::send("GET", &url, &[("authorization", &format!("Basic {basic}"))], "").await.status
    };
    assert_eq!((status(&new).await, status(AUTH_TOKEN).await), (200, 200), "both for a while");
    assert_eq!(asha.post("/console/account/", &[("do", "end")]).await.status, 303);
    assert_eq!((status(&new).await, status(AUTH_TOKEN).await), (200, 401));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_copied_in_the_browser() {
    if !has_chromium() {
        return;
    }
    let world = with_people().await;
    let mut browser = signed_in(&world, "asha").await;
    browser.visit("/console/account/").await;
    browser
        .eval("navigator.clipboard.writeText = async (text) => { globalThis.copied = text; }; 0")
        .await;
    browser.click("[data-copy-of=auth-id]").await;
    browser.until_toast("Copied.").await;
    assert_eq!(browser.eval("globalThis.copied").await, AUTH_ID);
    browser.press("#main", "Reveal").await;
    browser.says("#auth-token", AUTH_TOKEN).await;
    for (scheme, width) in [("light", 1200), ("dark", 1200), ("light", 390)] {
        browser.prefer(scheme).await;
        browser.size(width, 1300).await;
        picture(&mut browser, &format!("account-{scheme}-{width}")).await;
    }
    assert_eq!(browser.errors, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_of_a_subaccount_are_shown_with_it_and_are_deleted_with_it() {
    let world = world(|expected, _| {
        expected.extra.push_str(&people());
        expected.is_single = true;
    })
    .await;
    let asha = Session::of(&world, "asha").await;
    let page = asha.get("/console/people/").await.text();
    assert!(!page.contains("name=\"account\""), "there is only one account");
    let url = format!("{}/v1/Account/{AUTH_ID}/Subaccount/", world.node.public);
    let basic = format!("Basic {}", STANDARD.encode(format!("{AUTH_ID}:{AUTH_TOKEN}")));
    let ask = async |method: &str, path: &str, body: Value| {
        let headers = [("authorization", &*basic), ("content-type", "application/json")];
        http::send(method, &format!("{url}{path}"), &headers, body.to_string()).await
    };
    let made = ask("POST", "", json!({"name": "Branch", "enabled": true})).await.json();
    let branch = made["auth_id"].as_str().expect("an id").to_owned();
    let of_branch = ("account", &*branch);
    let sam = [("name", "sam"), ("full_name", "Sam"), ("role", "owner"), of_branch];
    assert_eq!(asha.post("/console/people/users", &sam).await.status, 303);
    let key = [("name", "till"), ("role", "agent"), of_branch];
    assert_eq!(asha.post("/console/people/keys", &key).await.status, 303);
    let users = format!("{}/api/v1/users/", world.node.public);
    let kim = json!({"name": "kim", "role": "agent", "account": branch, "password": PASSWORD});
    let made = http::send("POST", &users, &[("x-api-key", API_KEY)], kim.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let page = asha.get("/console/people/").await.text();
    let (users, keys) = page.split_once("id=\"keys\"").expect("two lists");
    let shown = "<small class=\"under\" dir=\"auto\">Branch</small>";
    assert_eq!((users.matches(shown).count(), keys.matches(shown).count()), (2, 1), "{page}");

    let kim = Session::of(&world, "kim").await;
    assert_eq!(kim.get("/console/").await.status, 200);
    let path = format!("{branch}/");
    let off = ask("POST", &path, json!({"name": "Branch", "enabled": false})).await;
    assert_eq!(off.status, 202, "{}", off.text());
    let page = kim.get("/console/sign-in").await.text();
    assert!(page.contains("This account is disabled."), "{page}");
    assert_eq!(ask("DELETE", &path, Value::Null).await.status, 204);
    let page = asha.get("/console/people/").await.text();
    for name in ["sam", "kim", "till", "Branch"] {
        assert!(!page.contains(&format!(">{name}<")), "{name}: {page}");
    }
}
