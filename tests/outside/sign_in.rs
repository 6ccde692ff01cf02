//! Signing in to the console with OpenID Connect: who is accepted, who is refused and why, and that
//! a sign-in started in another browser can't be used.

use serde_json::{Value, json};

use crate::outbound::{World, world};
use crate::support::browser::{Browser as Chromium, has_chromium};
use crate::support::http::{self, Answer};
use crate::support::node::{API_KEY, AUTH_ID, Node, nodes};
use crate::support::provider::{CLIENT_ID, Key, Provider, SECRET};

/// Starts a node with this provider. Asha is known by her email address, Ravi by his user name.
async fn with(provider: &Provider, more: &str) -> World {
    let user = |name: &str| {
        format!(
            "[[user]]\nname = \"{name}\"\npassword = \"correct horse\"\naccount = \"{AUTH_ID}\"\nrole = \"admin\"\n"
        )
    };
    let oidc = format!(
        "[oidc]\nissuer = \"{}\"\nclient_id = \"{CLIENT_ID}\"\nname = \"Example Login\"\n{more}\n",
        provider.issuer()
    );
    world(|node_config, _| {
        node_config.listen = "trusted_proxies = [\"127.0.0.1\"]".to_owned();
        node_config.extra.push_str(&format!("{oidc}{}{}", user("asha@example.com"), user("ravi")))
    })
    .await
}

/// A browser, represented by its cookies.
struct Browser<'w> {
    public: &'w str,
    /// Its address, as a proxy reports it.
    from: &'w str,
    cookies: Vec<(String, String)>,
}

impl<'w> Browser<'w> {
    fn of(world: &'w World) -> Self {
        Self::at(world, "192.0.2.9")
    }

    fn at(world: &'w World, from: &'w str) -> Self {
        Self { public: &world.node.public, from, cookies: Vec::new() }
    }

    async fn get(&mut self, url: &str) -> Answer {
        let cookies: Vec<String> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let url =
            if url.starts_with('/') { format!("{}{url}", self.public) } else { url.to_owned() };
        let headers = [("cookie", cookies.join("; ")), ("x-forwarded-for", self.from.to_owned())];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        let answer = http::send("GET", &url, &headers, "").await;
        for line in answer.headers.get_all("set-cookie") {
            let line = line.to_str().unwrap();
            let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
            self.cookies.retain(|(known, _)| known != name);
            if !line.contains("Max-Age=0") {
                self.cookies.push((name.to_owned(), value.to_owned()));
            }
        }
        answer
    }

    /// Starts a sign-in. Returns the redirect to the provider.
    async fn begin(&mut self, to: &str) -> String {
        let answer = self.get(&format!("/console/sign-in/openid?to={to}")).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        assert!(cookie.contains("; HttpOnly; SameSite=Lax; Max-Age=600"), "{cookie}");
        answer.headers["location"].to_str().unwrap().to_owned()
    }

    /// Runs a whole sign-in with these claims.
    async fn sign_in(&mut self, provider: &Provider, claims: &Value) -> Answer {
        let location = self.begin("/console/calls/").await;
        let back = provider.grant(&location, claims);
        self.get(&back).await
    }

    /// Returns true if the browser is signed in.
    async fn is_in(&mut self) -> bool {
        self.get("/console/").await.status == 200
    }
}

fn asha() -> Value {
    json!({"email": "Asha@Example.com", "email_verified": true, "name": "Asha"})
}

fn and(mut claims: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_with_the_provider_and_is_recognised_by_subject() {
    let provider = Provider::start(Key::rsa()).await;
    let world = with(&provider, &format!("client_secret = \"{SECRET}\"")).await;
    let page = http::get(&format!("{}/console/sign-in?to=/console/calls/", world.node.public))
        .await
        .text();
    assert!(
        page.contains("Sign in with Example Login") && page.contains("/console/sign-in/openid?to="),
        "{page}"
    );
    let url = format!("{}/console/sign-in", world.node.public);
    let german = http::send("GET", &url, &[("accept-language", "de")], "").await.text();
    assert!(german.contains("Mit Example Login anmelden"));

    let mut browser = Browser::of(&world);
    let came = browser.sign_in(&provider, &asha()).await;
    assert_eq!(came.status, 200, "{}", came.text());
    assert_eq!(came.headers["refresh"], "0; url=/console/calls/");
    let cookies: Vec<_> =
        came.headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap()).collect();
    assert!(
        cookies.iter().any(
            |line| line.starts_with("offhook=") && line.contains("; HttpOnly; SameSite=Strict")
        )
    );
    assert!(browser.is_in().await && browser.cookies.len() == 1, "the way's cookie is gone");
    world.node.until_log("\"action\":\"signInWithProvider\"").await;
    // The same person with a new address is accepted; another person with the old address is not.
    let moved = and(asha(), json!({"email": "asha@elsewhere.test", "email_verified": false}));
    let mut other = Browser::of(&world);
    assert_eq!(other.sign_in(&provider, &moved).await.status, 200);
    let heir = Browser::of(&world).sign_in(&provider, &and(asha(), json!({"sub": "8"}))).await;
    assert!(heir.status == 403 && heir.text().contains("different"), "{}", heir.text());
    // Each node caches the provider's keys, and fetches them again for a token with an unknown key.
    for file in ["configuration", "keys"] {
        let fetched = provider.request_count(file);
        assert!((1..=nodes()).contains(&fetched), "{file}: {fetched}");
    }

    // `offhook doctor` checks it.
    let config = world.node.dir.path().join("offhook.toml");
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_offhook"))
        .args(["doctor", "--json", "--config"])
        .arg(&config)
        .output()
        .expect("the doctor");
    let lines = String::from_utf8_lossy(&run.stdout).into_owned();
    let line = lines.lines().find(|line| line.contains("\"oidc\"")).expect("a line about it");
    let redirect = format!("{}/console/sign-in/openid/back", world.node.public);
    assert!(
        line.contains("\"ok\"") && line.contains(provider.issuer()) && line.contains(&redirect),
        "{line}"
    );
    let log = world.node.log();
    assert!(!log.contains(SECRET) && !log.contains("Asha@Example.com"), "r22");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_codes_of_other_sign_ins_are_refused() {
    let provider = Provider::start(Key::ec()).await;
    let world = with(&provider, &format!("client_secret = \"{SECRET}\"")).await;
    let now = jiff::Timestamp::now().as_second();
    for (claims, status, words) in [
        (json!({"nonce": "another"}), 401, "could not be verified"),
        (json!({"aud": "another"}), 401, "could not be verified"),
        (json!({"aud": [CLIENT_ID, "another"]}), 401, "could not be verified"),
        (json!({"iss": "https://elsewhere.test"}), 401, "could not be verified"),
        (json!({"exp": now - 120}), 401, "could not be verified"),
        (json!({"iat": now + 600}), 401, "could not be verified"),
        (json!({"alg": "none"}), 401, "could not be verified"),
        (json!({"alg": "HS256"}), 401, "could not be verified"),
        (json!({"alg": "forged"}), 401, "could not be verified"),
        (json!({"email": "mallory@example.com"}), 403, "Ask an owner to invite you"),
        (json!({"email": "asha@example.com<b>", "sub": "9"}), 403, "asha@example.com&#60;b&#62;"),
        (json!({"email_verified": false}), 403, "has not verified"),
        (json!({"email": null}), 403, "did not send your email address"),
    ] {
        let mut browser = Browser::of(&world);
        let answer = browser.sign_in(&provider, &and(asha(), claims.clone())).await;
        let text = answer.text();
        assert!(
            answer.status == status && text.contains(words),
            "{claims}: {} {text}",
            answer.status
        );
        assert!(
            text.contains("name=\"password\"") && !browser.is_in().await,
            "{claims}: the sign-in page, and nobody in"
        );
    }

    // Invalid state: of another browser, missing, unknown; and a refusal by the provider.
    let (mut victim, mut mallory) = (Browser::of(&world), Browser::of(&world));
    let location = mallory.begin("/console/").await;
    let back = provider.grant(&location, &asha());
    let with_none = victim.get(&back).await;
    assert!(with_none.status == 400 && with_none.text().contains("was started in another browser"));
    victim.begin("/console/").await;
    assert_eq!(victim.get(&back).await.status, 400, "state of another browser");
    assert!(!victim.is_in().await);
    victim.begin("/console/").await;
    assert_eq!(victim.get("/console/sign-in/openid/back?code=x").await.status, 400, "no state");
    let location = mallory.begin("/console/").await;
    let state = location.split("state=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let no = mallory
        .get(&format!("/console/sign-in/openid/back?error=access_denied%3Cb%3E&state={state}"))
        .await;
    assert!(no.status == 403 && no.text().contains("(access_deniedb)"), "{}", no.text());
    let location = mallory.begin("/console/").await;
    let mixed = provider
        .grant(&location, &asha())
        .replace("&iss=", "&iss=https%3A%2F%2Felsewhere.test&was=");
    assert_eq!(mallory.get(&mixed).await.status, 401, "another issuer's answer");

    // A code can be used once, even with the cookie kept.
    let mut browser = Browser::of(&world);
    let location = browser.begin("/console/").await;
    let kept = browser.cookies.clone();
    let back = provider.grant(&location, &asha());
    assert_eq!(browser.get(&back).await.status, 200);
    let mut again = Browser { cookies: kept, ..Browser::of(&world) };
    let replay = again.get(&back).await;
    assert!(
        replay.status == 400 && replay.text().contains("was already used or has expired"),
        "{}",
        replay.text()
    );
    assert!(browser.is_in().await && !again.is_in().await);

    // Redirects never lead to another host.
    for to in [
        "https%3A%2F%2Fevil.test%2F",
        "%2F%2Fevil.test",
        "%2Fconsole%2F%0d%0ax",
        "%5C%5Cevil",
        "%2Fconsole%2Fsign-in",
    ] {
        let mut browser = Browser::of(&world);
        let location = browser.begin(to).await;
        let back = provider.grant(&location, &asha());
        assert_eq!(browser.get(&back).await.headers["refresh"], "0; url=/console/", "{to}");
    }
}

/// Wrong codes cost requests to the provider. One network makes few of them, and browsers of other
/// networks sign in meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn r15_wrong_codes_of_one_network_keep_nobody_else_from_signing_in() {
    let provider = Provider::start(Key::ec()).await;
    let world = with(&provider, &format!("client_secret = \"{SECRET}\"")).await;
    let attacker = || Browser::at(&world, "198.51.100.7");
    let wrong = async |mut browser: Browser<'_>, nr: usize| {
        let location = browser.begin("/console/").await;
        let state = url::Url::parse(&location).unwrap();
        let state = state.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
        let back = format!("/console/sign-in/openid/back?code=wrong-{nr}&state={state}");
        browser.get(&back).await.status
    };
    provider.stall(true);
    let stalled = futures_util::future::join_all((0..24).map(|nr| wrong(attacker(), nr)));
    let others = async {
        while provider.request_count("token") < 4 {
            tokio::task::yield_now().await;
        }
        for from in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
            let came = Browser::at(&world, from).sign_in(&provider, &asha()).await;
            assert_eq!(came.status, 200, "{}", came.text());
        }
    };
    tokio::select! {
        _ = stalled => panic!("the provider answers no wrong code"),
        () = others => {}
    }
    provider.stall(false);
    let before = provider.request_count("token");
    let spammer = || Browser::at(&world, "203.0.113.7");
    let mut is_refused = false;
    for nr in 0..14 {
        is_refused = wrong(spammer(), nr).await == 429;
        if is_refused {
            break;
        }
    }
    assert!(is_refused, "too many wrong codes");
    let requests = provider.request_count("token") - before;
    assert!(requests <= 12, "{requests} requests to the provider");
    assert_eq!(Browser::of(&world).sign_in(&provider, &asha()).await.status, 200);
    assert!(world.node.metric("offhook_limited_total", &[("resource", "sign_ins")]).await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn new_people_are_created_if_allowed_with_the_providers_role() {
    let provider = Provider::start(Key::ec()).await;
    // A public client without a secret.
    let more = format!(
        "allow = \"anyone\"\naccount = \"{AUTH_ID}\"\nrole = \"agent\"\ndomains = [\"example.com\"]\nrole_claim = \
         \"realm.groups\"\nroles = {{ owner = \"chiefs\", admin = [\"leads\", \"ops\"] }}"
    );
    let world = with(&provider, &more).await;
    let role = async |name: &str| {
        let headers = [("x-api-key", API_KEY)];
        let users =
            http::send("GET", &format!("{}/api/v1/users/", world.node.public), &headers, "")
                .await
                .json();
        let found =
            users["items"].as_array().unwrap().iter().find(|user| user["name"] == name).cloned();
        found.map(|user| {
            assert_eq!(
                user["invited"], false,
                "a person who has signed in is not shown as invited: {user}"
            );
            user["role"].as_str().unwrap().to_owned()
        })
    };
    let mira = |groups: Value| {
        // The ID token has only the subject and the groups; the userinfo endpoint has the rest.
        let claims = json!({"sub": "m", "email": "mira@example.com", "email_verified": true, "name": "Mira"});
        json!({"sub": "m", "realm": {"groups": groups}, "elsewhere": claims})
    };
    for (groups, is) in [
        (json!(["x"]), "agent"),
        (json!(["ops"]), "admin"),
        (json!("chiefs"), "owner"),
        (json!(null), "agent"),
    ] {
        let mut browser = Browser::of(&world);
        let came = browser.sign_in(&provider, &mira(groups.clone())).await;
        assert_eq!(came.status, 200, "{}", came.text());
        assert!(browser.is_in().await);
        assert_eq!(role("mira@example.com").await.as_deref(), Some(is), "{groups}");
    }
    let stranger = json!({"sub": "s", "email": "s@evil.test", "email_verified": true});
    assert_eq!(
        Browser::of(&world).sign_in(&provider, &stranger).await.status,
        403,
        "of another domain"
    );
    assert_eq!(role("s@evil.test").await, None);
    // The userinfo response is rejected if its subject differs.
    let claims = json!({"sub": "x", "email": "mira@example.com", "email_verified": true});
    let mixed =
        Browser::of(&world).sign_in(&provider, &json!({"sub": "y", "elsewhere": claims})).await;
    assert_eq!(mixed.status, 401);
    // A person in the configuration has the role configured there.
    let asha = and(asha(), json!({"sub": "a", "realm": {"groups": ["chiefs"]}}));
    assert_eq!(Browser::of(&world).sign_in(&provider, &asha).await.status, 200);
    assert_eq!(role("asha@example.com").await.as_deref(), Some("admin"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_browser_signs_in_through_the_provider() {
    if !has_chromium() {
        return;
    }
    let provider = Provider::start(Key::rsa()).await;
    provider.sign_in(asha());
    let world = with(&provider, &format!("client_secret = \"{SECRET}\"")).await;
    let mut browser = Chromium::open(&format!("{}/console/calls/", world.node.public)).await;
    let button = "document.querySelector('a[href*=\"/sign-in/openid\"]')";
    browser.until(button).await;
    browser.eval(&format!("{button}.click()")).await;
    browser
        .until("location.pathname === '/console/calls/' && document.querySelector('.side nav')")
        .await;
}

const OTHER: &str = "MAOTHEROFFHOOK000001";

/// Another tenant's user with the same mail address receives nobody, and its name is not refused.
#[tokio::test(flavor = "multi_thread")]
async fn names_are_separate_between_accounts() {
    let provider = Provider::start(Key::rsa()).await;
    let other = format!(
        "account = \"{AUTH_ID}\"\n[[account]]\nauth_id = \"{OTHER}\"\nauth_token = \"test-token-of-other-account\"\n\
         api_keys = [\"test-key-of-other-account\"]\n"
    );
    let world = with(&provider, &other).await;
    let make = async |key: &str, name: &str| {
        let headers = [("x-api-key", key), ("content-type", "application/json")];
        let body = json!({"name": name, "role": "owner", "password": "password of the other"});
        let url = format!("{}/api/v1/users/", world.node.public);
        http::send("POST", &url, &headers, body.to_string()).await
    };
    for name in ["ceo@example.com", "ravi"] {
        let made = make("test-key-of-other-account", name).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    let taken = make(API_KEY, "ravi").await;
    assert_eq!((taken.status, taken.json()["error"]["code"].as_str()), (409, Some("name_taken")));
    let ceo = json!({"sub": "1", "email": "ceo@example.com", "email_verified": true});
    let refused = Browser::of(&world).sign_in(&provider, &ceo).await;
    assert!(refused.status == 403 && refused.text().contains("no user here has it"));
    assert_eq!(Browser::of(&world).sign_in(&provider, &asha()).await.status, 200);

    let url = format!("{}/console/sign-in?account={OTHER}", world.node.public);
    assert!(http::get(&url).await.text().contains(&format!("name=\"account\" value=\"{OTHER}\"")));
    let sign_in = async |account: &str, password: &str| {
        let body = format!("account={account}&name=ravi&password={password}&to=");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let url = format!("{}/console/sign-in", world.node.public);
        http::send("POST", &url, &headers, body).await.status
    };
    for (account, password, status) in [
        ("", "correct+horse", 303),
        ("", "password+of+the+other", 303),
        (AUTH_ID, "correct+horse", 303),
        (OTHER, "password+of+the+other", 303),
        (OTHER, "correct+horse", 401),
        (AUTH_ID, "password+of+the+other", 401),
    ] {
        assert_eq!(sign_in(account, password).await, status, "{account} {password}");
    }
}

/// Waits for the `nth` set-up link in a node's log.
pub async fn set_up_link(node: &Node, nth: usize) -> String {
    let mut every = tokio::time::interval(std::time::Duration::from_millis(10));
    for _ in 0..1_000 {
        let log = node.log();
        if let Some(line) = log.lines().filter(|line| line.contains("no owner exists")).nth(nth) {
            let line: Value = serde_json::from_str(line).expect("a line of JSON");
            return line["link"].as_str().expect("a link").to_owned();
        }
        every.tick().await;
    }
    panic!("no set-up link: {}", node.log());
}

/// The first start without an owner prints a link for the first one. It works once, and not when it
/// was guessed, has been replaced by a restart, or an owner exists.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_owner_signs_up_with_the_link_of_the_log() {
    let mut world = world(|node, _| node.is_single = true).await;
    let public = world.node.public.clone();
    let sign_in = format!("{public}/console/sign-in");
    assert!(http::get(&sign_in).await.text().contains("No owner exists yet"));
    let german = http::send("GET", &sign_in, &[("accept-language", "de")], "").await.text();
    assert!(german.contains("Es gibt noch keinen Inhaber"), "{german}");
    let old = set_up_link(&world.node, 0).await;
    assert_eq!(world.node.log().matches(&old).count(), 1, "printed once");

    // A restart replaces the link.
    world.node.kill();
    world.node.start_again().await;
    let public = world.node.public.clone();
    let link = set_up_link(&world.node, 1).await;
    assert!(link != old && link.starts_with(&format!("{public}/console/set-up/")), "{link}");
    let token = old.rsplit('/').next().expect("a token").to_owned();
    assert!(token.len() >= 43, "256 bits: {token}");
    let stale = format!("{public}/console/set-up/{token}");
    assert_eq!(http::get(&stale).await.status, 404);

    let page = http::get(&link).await;
    assert_eq!(page.status, 200, "{}", page.text());
    assert!(page.text().contains(AUTH_ID) && page.text().contains("name=\"again\""));
    let post = |url: &str, name: &str, password: &str, again: &str| {
        let body = format!("name={name}&password={password}&again={again}");
        let (url, origin) = (url.to_owned(), public.clone());
        async move {
            let head = [
                ("content-type", "application/x-www-form-urlencoded"),
                ("origin", origin.as_str()),
                ("sec-fetch-site", "same-origin"),
            ];
            http::send("POST", &url, &head, body).await
        }
    };
    let good = "correct-horse-7";
    assert_eq!(post(&stale, "asha", good, good).await.status, 404);
    for (name, password, again, words) in [
        ("asha", good, "another-horse", "do not match"),
        ("asha", "short", "short", "too short"),
        ("%20", good, good, "1 to 64 characters"),
    ] {
        let answer = post(&link, name, password, again).await;
        assert!(
            answer.status == 400 && answer.text().contains(words),
            "{} {}",
            answer.status,
            answer.text()
        );
    }
    // Of two at the same time one gets in.
    let (one, two) =
        tokio::join!(post(&link, "asha", good, good), post(&link, "mallory", good, good));
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [303, 404]);
    let (answer, name) = if one.status == 303 { (one, "asha") } else { (two, "mallory") };
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    assert!(cookie.contains("; HttpOnly; SameSite=Strict"), "{cookie}");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let people =
        http::send("GET", &format!("{public}/console/people/"), &[("cookie", cookie.as_str())], "")
            .await;
    assert_eq!(people.status, 200, "an owner: {}", people.text());

    // It is over, and the sign-in page is as usual.
    for url in [&link, &stale] {
        let over = http::get(url).await;
        assert!(over.status == 404 && over.text().contains("not valid"), "{}", over.text());
    }
    assert_eq!(post(&link, "eve", good, good).await.status, 404);
    assert!(!http::get(&sign_in).await.text().contains("No owner exists yet"));
    let audit = format!("{public}/api/v1/audit/?limit=5");
    let audit = http::send("GET", &audit, &[("x-api-key", API_KEY)], "").await;
    let record = &audit.json()["items"][0];
    assert_eq!(
        (&record["action"], &record["actor"], &record["after"]["role"]),
        (&json!("setUp"), &json!(format!("user:{name}")), &json!("owner"))
    );
    assert!(world.node.log().contains("set-up-link"), "refusals are in the log");
    world.node.kill();
    world.node.start_again().await;
    let log = world.node.log();
    assert_eq!(log.matches("no owner exists").count(), 2, "no link once an owner exists: {log}");
}

/// Guesses are limited like wrong passwords, and do not lock out the right link of another address.
#[tokio::test(flavor = "multi_thread")]
async fn guesses_of_the_set_up_link_are_limited() {
    let world = world(|node, _| node.is_single = true).await;
    let mut last = 0;
    for n in 0..12 {
        let guess = format!("{}/console/set-up/{n:043}", world.node.public);
        let answer = http::get(&guess).await;
        last = answer.status;
        assert!(matches!(last, 404 | 429), "{last}");
        assert_eq!(last == 429, answer.headers.contains_key("retry-after"));
    }
    assert_eq!(last, 429);
}

/// Passwords that can be guessed are refused wherever they are set.
#[tokio::test(flavor = "multi_thread")]
async fn r15_passwords_of_fewer_than_ten_characters_are_refused() {
    let world = world(|_, _| {}).await;
    let public = &world.node.public;
    let ask = async |method: &str, path: &str, body: Value| {
        let headers = [("x-api-key", API_KEY), ("content-type", "application/json")];
        http::send(method, &format!("{public}/api/v1/{path}"), &headers, body.to_string()).await
    };
    let user = |password: &str| json!({"name": "ravi", "role": "agent", "password": password});
    let refused = ask("POST", "users/", user("012345678")).await;
    let error = &refused.json()["error"];
    assert_eq!((refused.status, &error["field"]), (400, &json!("password")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("10 to"), "{error}");
    let created = ask("POST", "users/", user("0123456789")).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let path = format!("users/{}/", created.json()["id"].as_str().unwrap());
    for (password, status) in [("012345678", 400), ("9876543210", 200)] {
        let changed = ask("PATCH", &path, json!({"password": password})).await;
        assert_eq!(changed.status, status, "{password}: {}", changed.text());
    }
    let invited = ask("POST", "users/", json!({"name": "mira", "role": "agent"})).await;
    let link = invited.json()["invitation"].as_str().unwrap().to_owned();
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (password, status) in [("012345678", 400), ("0123456789", 303)] {
        let body = format!("password={password}&again={password}");
        let accepted = http::send("POST", &link, &form, body).await;
        assert_eq!(accepted.status, status, "{password}: {}", accepted.text());
    }
}
