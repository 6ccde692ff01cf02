//! Endpoints: created over REST, registered at `/phone`, calling through their application; and the
//! example page in a real Chromium.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::console::Session;
use crate::console_talk::api;
use crate::outbound::{World, world};
use crate::support::browser::{Browser, has_chromium};
use crate::support::http;
use crate::support::node::{API_KEY, nodes};
use crate::support::phone::{OFFER, Phone};

pub const PASSWORD: &str = "correct horse";
/// The tone that the page plays in place of the microphone; Chromium treats the fake device's audio
/// as noise.
const PAGE_HZ: f64 = 900.0;
const MICROPHONE: &str = "navigator.mediaDevices.getUserMedia = async () => { const context = new AudioContext(); const tone = \
    new OscillatorNode(context, { frequency: 900 }); const to = context.createMediaStreamDestination(); tone.connect(to); \
    tone.start(); return to.stream; }; 0";
/// Lets both sides talk for a while.
const LISTEN: &str = "new Promise((done) => setTimeout(done, 4000))";

impl World {
    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self
            .rest("POST", path, &[("content-type", "application/json")], body.to_string())
            .await;
        assert!(matches!(answer.status, 201 | 202), "{path}: {}", answer.text());
        answer.json()
    }

    /// Creates an application that answers from `/answer` and an endpoint with this name. Returns
    /// the endpoint's id.
    pub async fn endpoint(&self, name: &str) -> String {
        let application = json!({
            "app_name": name, "answer_url": self.app.url("/answer"), "hangup_url": self.app.url("/hangup"),
        });
        let app_id = self.post("Application/", application).await["app_id"].take();
        let endpoint = json!({"username": name, "password": PASSWORD, "alias": "Asha's phone", "app_id": app_id});
        let made = self.post("Endpoint/", endpoint).await;
        assert_eq!(
            (&made["username"], &made["message"]),
            (&name.into(), &"created".into()),
            "{made}"
        );
        made["endpoint_id"].as_str().expect("an id").to_owned()
    }

    async fn one(&self, endpoint: &str) -> Value {
        self.rest("GET", &format!("Endpoint/{endpoint}/"), &[], String::new()).await.json()
    }

    async fn phone(&self, name: &str) -> Phone {
        Phone::registered(&self.node.public, name, PASSWORD).await.0
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_requests_at_once_creates_an_endpoint() {
    let world = endpoints().await;
    let endpoint = json!({"username": "uniq", "password": PASSWORD}).to_string();
    let json = [("content-type", "application/json")];
    let create = || world.rest("POST", "Endpoint/", &json, endpoint.clone());
    let answers = futures_util::future::join_all((0..10).map(|_| create())).await;
    let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [&[201][..], &[409; 9]].concat());
}

async fn endpoints() -> World {
    let world = world(|node_config, _| node_config.accept_wait_ms = 0).await;
    world.app.xml(
        "/answer",
        "<Response><Wait length=\"1\"/><Speak>Welcome.</Speak><Wait length=\"60\"/></Response>",
    );
    world
}

fn call(to: &str) -> Value {
    json!({"type": "call", "ref": "mine", "to": to, "sdp": OFFER})
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_calls_through_its_application_and_is_hung_up_over_the_api() {
    let world = endpoints().await;
    let endpoint = world.endpoint("asha").await;
    let shown = world.one(&endpoint).await;
    assert_eq!(
        (&shown["sip_uri"], &shown["sip_registered"]),
        (&"sip:asha@127.0.0.1".into(), &"false".into()),
        "{shown}"
    );
    assert_eq!((&shown["password"], &shown["alias"]), (&"".into(), &"Asha's phone".into()));
    let mut phone = world.phone("asha").await;
    assert_eq!(world.one(&endpoint).await["sip_registered"], "true");
    phone.say(call("+91 98123-45678")).await;
    let calling = phone.receive("calling").await;
    assert_eq!(calling["ref"], "mine");
    let uuid = calling["call"].as_str().expect("a UUID").to_owned();
    let answer = phone.receive("answer").await;
    let sdp = answer["sdp"].as_str().expect("an SDP");
    for line in [
        "a=ice-lite\r\n",
        "a=setup:active\r\n",
        "a=rtpmap:111 opus/48000/2\r\n",
        "a=rtpmap:126 telephone-event/8000\r\n",
    ] {
        assert!(sdp.contains(line), "{line} in {sdp}");
    }
    let asked = world.app.wait("/answer").await;
    for (name, value) in [
        ("From", "sip:asha@127.0.0.1"),
        ("To", "919812345678"),
        ("Direction", "inbound"),
        ("CallType", "web"),
        ("CallStatus", "ringing"),
        ("Event", "StartApp"),
        ("CallerName", "Asha's phone"),
        ("WhatsAppCallID", "(absent)"),
        ("CallUUID", &*uuid),
    ] {
        assert_eq!(asked.param(name), value, "{name}");
    }
    assert!(asked.headers.contains_key("x-plivo-signature-v3"));
    phone.receive("answered").await;
    let live = world.rest("GET", "Call/?status=live", &[], String::new()).await.json();
    assert_eq!(live["calls"], json!([uuid]));
    let one =
        world.rest("GET", &format!("Call/{uuid}/?status=live"), &[], String::new()).await.json();
    assert_eq!(
        (&one["from"], &one["call_status"]),
        (&"sip:asha@127.0.0.1".into(), &"in-progress".into()),
        "{one}"
    );
    assert_eq!(
        world.rest("DELETE", &format!("Call/{uuid}/"), &[], String::new()).await.status,
        204
    );
    let ended = phone.receive("ended").await;
    assert_eq!(
        (&ended["code"], &ended["source"]),
        (&4000.into(), &"API Request".into()),
        "{ended}"
    );
    let hangup = world.app.wait("/hangup").await;
    for (name, value) in
        [("CallType", "web"), ("CallStatus", "completed"), ("HangupSource", "API Request")]
    {
        assert_eq!(hangup.param(name), value, "{name}");
    }
    let record = world.node.record(&uuid).await;
    assert_eq!(
        (&record["call_type"], &record["whatsapp_call_id"]),
        (&"web".into(), &Value::Null),
        "{record}"
    );
    assert_eq!(
        (&record["call_state"], &record["from_number"]),
        (&"ANSWER".into(), &"sip:asha@127.0.0.1".into())
    );
    let key = [("x-api-key", crate::support::node::API_KEY)];
    let log =
        http::send("GET", &format!("{}/api/v1/calls/{uuid}/events", world.node.public), &key, "")
            .await
            .text();
    assert!(
        log.contains("\"call_type\":\"web\"")
            && !log.contains("P2uYro0UCOQ4zxjKXaWCBui1")
            && !log.contains(PASSWORD),
        "{log}"
    );
    let replayed = machine::replay::replay(log.as_bytes(), |_| {}).expect("the log reads");
    assert_eq!(replayed.difference, None);
    assert!(!world.node.log().contains(PASSWORD), "no password in a log");
    assert_eq!(world.node.metric("offhook_calls_active", &[]).await, 0.0);
    assert_eq!(
        world.node.metric("offhook_number_slots_in_use", &[]).await,
        0.0,
        "a web leg takes no slot"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_registers_and_receives_errors() {
    let world = endpoints().await;
    let endpoint = world.endpoint("asha").await;
    let public = &world.node.public;
    let mut phone = Phone::open(public).await;
    phone.say(json!({"type": "call", "to": "1", "sdp": OFFER})).await;
    assert_eq!(phone.receive("error").await["code"], "not_registered");
    phone.send("nonsense").await;
    assert_eq!(phone.receive("error").await["code"], "bad_message");
    phone.say(json!({"type": "dance"})).await;
    assert_eq!(phone.receive("error").await["code"], "unknown_type");
    for name in ["asha", "nobody", "no such name"] {
        phone.say(json!({"type": "register", "endpoint": name, "password": "wrong one"})).await;
        assert_eq!(phone.receive("error").await["code"], "unauthorized");
    }
    assert_eq!(phone.closed().await, Some(4401), "three tries");
    let (mut phone, _) = Phone::registered(public, "sip:asha@127.0.0.1", PASSWORD).await;
    for (message, code) in [
        (
            json!({"type": "register", "endpoint": "asha", "password": PASSWORD}),
            "already_registered",
        ),
        (json!({"type": "call", "to": "", "sdp": OFFER}), "bad_number"),
        (json!({"type": "call", "to": "1", "sdp": "v=0"}), "bad_offer"),
        (json!({"type": "hangup", "call": "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11"}), "no_call"),
        (
            json!({"type": "accept", "call": "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11", "sdp": OFFER}),
            "no_call",
        ),
        (
            json!({"type": "digits", "call": "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11", "digits": "x"}),
            "bad_digits",
        ),
    ] {
        phone.say(message).await;
        assert_eq!(phone.receive("error").await["code"], code);
    }
    phone.say(json!({"type": "ping"})).await;
    phone.receive("pong").await;
    // A phone can't control another phone's call.
    let mut other = world.phone("asha").await;
    phone.say(call("support")).await;
    let uuid = phone.receive("calling").await["call"].clone();
    other.say(json!({"type": "hangup", "call": uuid})).await;
    assert_eq!(other.receive("error").await["code"], "no_call");
    phone.say(json!({"type": "hangup", "call": uuid})).await;
    assert_eq!(phone.receive("ended").await["source"], "Caller");
    other.say(json!({"type": "unregister"})).await;
    other.receive("unregistered").await;
    assert_eq!(other.closed().await, Some(1000));
    // Without an application a phone can't place calls.
    world.post(&format!("Endpoint/{endpoint}/"), json!({"app_id": ""})).await;
    let mut lonely = world.phone("asha").await;
    lonely.say(call("support")).await;
    assert_eq!(lonely.receive("error").await["code"], "no_application");
    // A changed password ends the registration.
    world.post(&format!("Endpoint/{endpoint}/"), json!({"password": "battery staple"})).await;
    assert_eq!(phone.receive("unregistered").await["why"], "password_changed");
    let (mut phone, _) = Phone::registered(public, "asha", "battery staple").await;
    assert_eq!(
        world.rest("DELETE", &format!("Endpoint/{endpoint}/"), &[], String::new()).await.status,
        204
    );
    assert_eq!(phone.receive("unregistered").await["why"], "endpoint_removed");
    // Too many calls and messages are refused.
    world.endpoint("ravi").await;
    let mut chatty = world.phone("ravi").await;
    assert_eq!(chatty.say_until_closed("{\"type\":\"ping\"}").await, Some(1008));
    let mut large = Phone::open(&world.node.public).await;
    large.send(&"a".repeat((48 << 10) + 1)).await;
    assert_eq!(large.closed().await, Some(1009));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_phones_of_a_disabled_subaccount_are_refused_and_inherited_with_it() {
    let world = endpoints().await;
    let public = &world.node.public;
    for cascade in [false, true] {
        let made = world.post("Subaccount/", json!({"name": "Branch", "enabled": true})).await;
        let [id, token] = ["auth_id", "auth_token"].map(|name| made[name].as_str().expect("text"));
        let basic = format!("Basic {}", STANDARD.encode(format!("{id}:{token}")));
        let as_branch = async |path: &str, body: Value| {
            let url = format!("{public}/v1/Account/{id}/{path}");
            let headers = [("authorization", &*basic), ("content-type", "application/json")];
            http::send("POST", &url, &headers, body.to_string()).await
        };
        let app = json!({"app_name": "a", "answer_url": world.app.url("/answer"), "default_endpoint_app": true});
        assert_eq!(as_branch("Application/", app).await.status, 201);
        let endpoint = json!({"username": "till", "password": PASSWORD});
        assert_eq!(as_branch("Endpoint/", endpoint).await.status, 201);
        let mut phone = world.phone("till").await;
        phone.say(call("support")).await;
        phone.receive("calling").await;

        let path = format!("Subaccount/{id}/");
        world.post(&path, json!({"name": "Branch", "enabled": false})).await;
        assert_eq!(phone.receive("unregistered").await["why"], "account_disabled");
        let mut again = Phone::open(public).await;
        let register = json!({"type": "register", "endpoint": "till", "password": PASSWORD});
        again.say(register.clone()).await;
        assert_eq!(again.receive("error").await["code"], "account_disabled");
        world.post(&path, json!({"name": "Branch", "enabled": true})).await;
        again.say(register.clone()).await;
        again.receive("registered").await;

        let delete = format!("{path}?cascade={cascade}");
        assert_eq!(world.rest("DELETE", &delete, &[], String::new()).await.status, 204);
        assert_eq!(again.receive("unregistered").await["why"], "account_disabled");
        let listed = world.rest("GET", "Endpoint/", &[], String::new()).await.json();
        let left = listed["objects"].as_array().expect("a list");
        let mut after = Phone::open(public).await;
        after.say(register).await;
        if cascade {
            assert!(left.is_empty(), "{listed}");
            assert_eq!(after.receive("error").await["code"], "unauthorized");
        } else {
            assert_eq!((left.len(), &left[0]["username"]), (1, &"till".into()), "{listed}");
            after.receive("registered").await;
            let id = left[0]["endpoint_id"].as_str().expect("an id");
            let endpoint = format!("Endpoint/{id}/");
            assert_eq!(world.rest("DELETE", &endpoint, &[], String::new()).await.status, 204);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_session_registers_its_accounts_endpoints_without_a_password() {
    let world = crate::console::with_people().await;
    world.endpoint("asha").await;
    world.endpoint("support").await;
    let public = &world.node.public;
    let asha = Session::of(&world, "asha").await;
    let signed_in = [("cookie", asha.cookie.as_str())];
    let by_session = |endpoint: Option<&str>| match endpoint {
        Some(name) => json!({"type": "register", "endpoint": name}),
        None => json!({"type": "register"}),
    };
    let mut own = Phone::open_with(public, &signed_in).await;
    own.say(by_session(None)).await;
    assert_eq!(
        own.receive("registered").await["endpoint"],
        "asha",
        "the one that bears their name"
    );
    let ravi = Session::of(&world, "ravi").await;
    let mut other = Phone::open_with(public, &[("cookie", &ravi.cookie)]).await;
    other.say(by_session(None)).await;
    assert_eq!(other.receive("error").await["code"], "unauthorized", "there is no endpoint ravi");
    // Agents register their own endpoint only, which they make themselves, once.
    other.say(by_session(Some("sip:support@127.0.0.1"))).await;
    assert_eq!(other.receive("error").await["code"], "unauthorized");
    let make = async || ravi.post("/console/phone/endpoints", &[("do", "own")]).await.status;
    let at_once = tokio::join!(make(), make(), make());
    let mut made: [u16; 3] = at_once.into();
    made.sort_unstable();
    assert_eq!(made, [303, 400, 400]);
    other.say(by_session(None)).await;
    assert_eq!(other.receive("registered").await["endpoint"], "ravi");
    // A colleague with the same name at another mail domain.
    let colleague =
        json!({"name": "ravi@b.example", "role": "agent", "password": crate::console::PASSWORD});
    let users = format!("{public}/api/v1/users/");
    let made = http::send("POST", &users, &[("x-api-key", API_KEY)], colleague.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let colleague = Session::of(&world, "ravi@b.example").await;
    let made = colleague.post("/console/phone/endpoints", &[("do", "own")]).await;
    assert_eq!(made.status, 303, "{}", made.text());
    let mut theirs = Phone::open_with(public, &[("cookie", &colleague.cookie)]).await;
    theirs.say(by_session(None)).await;
    assert_eq!(theirs.receive("registered").await["endpoint"], "ravi2");
    let mut shared = Phone::open_with(public, &signed_in).await;
    shared.say(by_session(Some("sip:support@127.0.0.1"))).await;
    assert_eq!(shared.receive("registered").await["endpoint"], "support", "an owner may");
    // Refused: people of another account, pages of another site, and requests without a cookie.
    let eve = Session::of(&world, "eve").await;
    let far = [("cookie", asha.cookie.as_str()), ("origin", "https://elsewhere.example")];
    for headers in [&[("cookie", eve.cookie.as_str())] as &[_], &far, &[]] {
        let mut phone = Phone::open_with(public, headers).await;
        phone.say(by_session(Some("asha"))).await;
        assert_eq!(phone.receive("error").await["code"], "unauthorized", "{headers:?}");
    }
    let mut elsewhere = Phone::open_with(public, &far).await;
    elsewhere.say(json!({"type": "register", "endpoint": "asha", "password": PASSWORD})).await;
    elsewhere.receive("registered").await;
    // The end of a console session ends its phone's registration, and no other.
    assert_eq!(asha.post("/console/sign-out", &[("everywhere", "1")]).await.status, 303);
    assert_eq!(own.receive("unregistered").await["why"], "signed_out");
    assert_eq!(own.closed().await, Some(1000));
    for phone in [&mut other, &mut elsewhere] {
        phone.say(json!({"type": "ping"})).await;
        phone.receive("pong").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_created_in_the_console_with_an_answer_url_and_removed() {
    let world = crate::console::with_people().await;
    world.app.xml("/mine", "<Response><Wait length=\"60\"/></Response>");
    let asha = Session::of(&world, "asha").await;
    let url = world.app.url("/mine");
    let desk = [("name", "desk"), ("alias", "The <desk>"), ("answer_url", url.as_str())];
    assert_eq!(asha.post("/console/phone/endpoints", &desk).await.status, 303);
    let page = asha.get("/console/phone/").await.text();
    assert!(
        page.contains("The &#60;desk&#62;")
            && page.contains("&lt;User&gt;sip:desk@127.0.0.1&lt;/User&gt;"),
        "{page}"
    );
    let again = asha.post("/console/phone/endpoints", &desk).await;
    assert_eq!(again.status, 409);
    assert!(
        again.text().contains("username desk is used by your endpoint")
            && again.text().contains("value=\"desk\"")
    );
    let applications = world.rest("GET", "Application/", &[], String::new()).await.json();
    assert_eq!(
        applications["objects"].as_array().map(Vec::len),
        Some(1),
        "no trace of the refused requests is left"
    );
    let bad = asha.post("/console/phone/endpoints", &[("name", "a b"), ("password", "1234")]).await;
    assert!(bad.status == 400 && bad.text().contains("role=\"alert\""), "{}", bad.text());
    let ravi = Session::of(&world, "ravi").await;
    assert_eq!(ravi.post("/console/phone/endpoints", &[("name", "mine")]).await.status, 403);
    // Agents make their own endpoint, and neither others nor applications.
    let page = ravi.get("/console/phone/").await.text();
    assert!(page.contains("value=\"own\"") && !page.contains("name=\"answer_url\""), "{page}");
    // Its own calls run that document.
    let mut phone = Phone::open_with(&world.node.public, &[("cookie", &asha.cookie)]).await;
    phone.say(json!({"type": "register", "endpoint": "desk"})).await;
    phone.receive("registered").await;
    phone.say(call("support")).await;
    assert_eq!(world.app.wait("/mine").await.param("From"), "sip:desk@127.0.0.1");
    phone.receive("answered").await;
    let listed = world.rest("GET", "Endpoint/", &[], String::new()).await.json();
    let id = listed["objects"][0]["endpoint_id"].as_str().expect("an id").to_owned();
    let eve = Session::of(&world, "eve").await;
    assert_eq!(eve.post(&format!("/console/phone/endpoints/{id}"), &[]).await.status, 404, "R16");
    assert_eq!(asha.post(&format!("/console/phone/endpoints/{id}"), &[]).await.status, 303);
    assert_eq!(phone.receive("unregistered").await["why"], "endpoint_removed");
    assert_eq!(world.rest("GET", &format!("Endpoint/{id}/"), &[], String::new()).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disconnected_phone_resumes_its_call_and_one_that_leaves_hangs_up() {
    let world = endpoints().await;
    world.endpoint("asha").await;
    let (mut phone, session) = Phone::registered(&world.node.public, "asha", PASSWORD).await;
    phone.say(call("support")).await;
    let uuid = phone.receive("calling").await["call"].clone();
    phone.receive("answered").await;
    phone.disconnect();
    let back = |session: &str| json!({"type": "register", "endpoint": "asha", "password": PASSWORD, "resume": session});
    let mut phone = Phone::open(&world.node.public).await;
    phone.say(back(&session)).await;
    let registered = phone.receive("registered").await;
    assert_eq!(registered["calls"], json!([uuid]), "it has its call again");
    // The same while the old socket seems to be alive: it is closed.
    let mut third = Phone::open(&world.node.public).await;
    third.say(back(registered["session"].as_str().expect("a session"))).await;
    assert_eq!(third.receive("registered").await["calls"], json!([uuid]));
    assert_eq!(phone.closed().await, Some(4409));
    third.say(json!({"type": "mute", "call": uuid})).await;
    third.receive("muted").await;
    third.leave().await;
    let hangup = world.app.wait("/hangup").await;
    assert_eq!((hangup.param("HangupSource"), hangup.param("HangupCauseCode")), ("Caller", "4000"));
}

#[tokio::test(flavor = "multi_thread")]
async fn r09_a_drain_is_reported_to_phones_and_ends_their_calls() {
    let mut world =
        world(|node_config, _| (node_config.accept_wait_ms, node_config.drain_seconds) = (0, 1))
            .await;
    world.app.xml("/answer", "<Response><Wait length=\"60\"/></Response>");
    world.endpoint("asha").await;
    let mut phone = world.phone("asha").await;
    phone.say(call("support")).await;
    phone.receive("answer").await;
    world.app.wait("/answer").await;
    world.node.signal("TERM");
    phone.receive("draining").await;
    phone.say(call("support")).await;
    assert_eq!(phone.receive("error").await["code"], "draining");
    assert_eq!(phone.receive("ended").await["code"], 5010);
    assert_eq!(phone.closed().await, Some(1001));
    assert_eq!(world.node.wait(), Some(0));
    assert_eq!(world.app.wait("/hangup").await.param("CallType"), "web");
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_a_web_leg_of_a_killed_node_is_ended_at_the_next_start() {
    let mut world = endpoints().await;
    world.endpoint("asha").await;
    let mut phone = world.phone("asha").await;
    phone.say(call("support")).await;
    let uuid = phone.receive("calling").await["call"].as_str().expect("a UUID").to_owned();
    phone.receive("answered").await;
    world.node.kill();
    world.node.start_again().await;
    let hangup = world.app.wait("/hangup").await;
    assert_eq!((hangup.param("CallUUID"), hangup.param("HangupCauseCode")), (&*uuid, "5010"));
    assert_eq!(world.node.record(&uuid).await["call_type"], "web");
    world.phone("asha").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_calls_from_the_example_page_hears_a_prompt_and_presses_a_key() {
    if !has_chromium() {
        return;
    }
    let world = endpoints().await;
    let menu = format!(
        "<Response><GetInput action=\"{}\" numDigits=\"1\"><Speak loop=\"3\">Welcome. Please press a key, whichever you \
         like.</Speak></GetInput></Response>",
        world.app.url("/key")
    );
    world.app.xml("/answer", menu).xml("/key", "<Response><Speak>Thank you.</Speak></Response>");
    world.endpoint("asha").await;
    let mut page = registered_page(&world, "asha").await;
    page.eval("document.querySelector('#dial button').click()").await;
    page.until("document.getElementById('log').innerText.includes('answered')").await;
    page.until("document.getElementById('level').value > 0.01").await;
    page.eval("document.querySelector('#keys button').click()").await;
    assert_eq!(world.app.wait("/key").await.param("Digits"), "1");
    page.until("document.getElementById('log').innerText.includes('ended: End Of XML Instructions (4010, Plivo)')")
        .await;
    assert!(page.errors.is_empty(), "the page's console: {:#?}", page.errors);
}

/// Opens the node's example page and registers it.
async fn registered_page(world: &World, endpoint: &str) -> Browser {
    let mut page = Browser::open(&format!("{}/examples/phone.html", world.node.public)).await;
    page.eval(MICROPHONE).await;
    let fill = format!(
        "for (const [id, value] of [['endpoint', '{endpoint}'], ['password', '{PASSWORD}']]) \
         document.getElementById(id).value = value; document.querySelector('#login button').click()"
    );
    page.eval(&fill).await;
    page.until(&format!(
        "document.getElementById('state').innerText.includes('registered as sip:{endpoint}@')"
    ))
    .await;
    page
}

/// A WhatsApp user who plays a tone and hangs up some time after the answer.
fn user(hangs_up_after_s: u64) -> sim::CallScript {
    sim::CallScript {
        say: crate::dial::tone(700.0, 30),
        record: true,
        hangup: sim::HangupRule::AfterAnswer(std::time::Duration::from_secs(hangs_up_after_s)),
        ..sim::CallScript::default()
    }
}

pub fn dial_asha(world: &World) -> String {
    format!(
        "<Response><Dial action=\"{}\" callbackUrl=\"{}\" sipHeaders=\"Order=42\" colour=\"red\"><User>sip:asha@127.0.0.1</User></Dial>\
         <Speak>Nobody is here.</Speak></Response>",
        world.app.url("/dialled"),
        world.app.url("/events")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dial_rings_all_phones_of_an_endpoint_and_the_first_answer_wins() {
    let world = endpoints().await;
    for path in ["/events", "/dialled"] {
        world.app.xml(path, "<Response/>");
    }
    world.app.xml("/unused", dial_asha(&world));
    world.endpoint("asha").await;
    let (mut desk, mut home) = (world.phone("asha").await, world.phone("asha").await);
    let caller = world.sim.place_call(user(60));
    let rung = desk.receive("ring").await;
    assert_eq!(
        (&rung["to"], &rung["headers"]["X-PH-Order"]),
        (&"sip:asha@127.0.0.1".into(), &"42".into()),
        "{rung}"
    );
    let call = rung["call"].clone();
    assert_eq!(home.receive("ring").await["call"], call);
    home.say(json!({"type": "accept", "call": call, "sdp": "v=0"})).await;
    assert_eq!(home.receive("error").await["code"], "bad_offer", "and it rings on");
    home.say(json!({"type": "accept", "call": call, "sdp": OFFER})).await;
    assert_eq!(desk.receive("cancelled").await["why"], "answered_elsewhere");
    home.receive("answer").await;
    desk.say(json!({"type": "accept", "call": call, "sdp": OFFER})).await;
    let code = desk.receive("error").await["code"].clone();
    // Another node than the phone's has forgotten the call.
    assert!(code == "not_ringing" || nodes() > 1 && code == "no_call", "{code}");
    let answered =
        world.app.wait_where("/events", |seen| seen.param("Event") == "DialAnswer").await;
    assert_eq!(answered.param("DialBLegUUID"), call.as_str().unwrap());
    home.say(json!({"type": "hangup", "call": call})).await;
    assert_eq!(home.receive("ended").await["source"], "Callee");
    let action = world.app.wait("/dialled").await;
    assert_eq!((action.param("DialStatus"), action.param("DialRingStatus")), ("completed", "true"));
    assert_eq!(world.node.record(call.as_str().unwrap()).await["call_type"], "web");
    drop(caller.all().await);

    // All phones decline.
    let caller = world.sim.place_call(user(60));
    for phone in [&mut desk, &mut home] {
        let call = phone.receive("ring").await["call"].clone();
        phone.say(json!({"type": "reject", "call": call})).await;
        assert_eq!(phone.receive("cancelled").await["why"], "declined");
    }
    world.app.wait_where("/dialled", |seen| seen.param("DialStatus") == "busy").await;
    drop(caller.all().await);

    // The caller hangs up while it rings.
    let caller = world.sim.place_call(user(2));
    desk.receive("ring").await;
    assert_eq!(desk.receive("cancelled").await["why"], "cancelled");
    drop(caller.all().await);

    // No phone is registered any more.
    desk.leave().await;
    home.leave().await;
    let caller = world.sim.place_call(user(60));
    let failed =
        world.app.wait_where("/dialled", |seen| seen.param("DialStatus") == "failed").await;
    assert_eq!(failed.param("DialError"), "endpoint_not_registered");
    drop(caller.all().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_nobody_answers_at_the_phones_is_notified_and_shown() {
    let world = endpoints().await;
    let dial = |name: &str| format!("<Dial><User>sip:{name}@127.0.0.1</User></Dial>");
    world.app.xml(
        "/unused",
        format!(
            "<Response>{}{}<Speak>Nobody is here.</Speak></Response>",
            dial("asha"),
            dial("ravi")
        ),
    );
    world.endpoint("asha").await;
    world.endpoint("ravi").await;
    let (mut asha, mut ravi) = (world.phone("asha").await, world.phone("ravi").await);
    let declines = async |phone: &mut Phone| {
        let call = phone.receive("ring").await["call"].clone();
        phone.say(json!({"type": "reject", "call": call})).await;
        phone.receive("cancelled").await;
    };
    // The second phone answers.
    let caller = world.sim.place_call(user(60));
    declines(&mut asha).await;
    let call = ravi.receive("ring").await["call"].clone();
    ravi.say(json!({"type": "accept", "call": call, "sdp": OFFER})).await;
    ravi.receive("answer").await;
    ravi.say(json!({"type": "hangup", "call": call})).await;
    ravi.receive("ended").await;
    drop(caller.all().await);
    // Both decline.
    let caller = world.sim.place_call(user(60));
    declines(&mut asha).await;
    declines(&mut ravi).await;
    drop(caller.all().await);
    // The caller hangs up while the first phone rings.
    let caller = world.sim.place_call(user(2));
    asha.receive("cancelled").await;
    drop(caller.all().await);

    let mut every = tokio::time::interval(std::time::Duration::from_millis(50));
    let (path, calls) = loop {
        every.tick().await;
        let all = api(&world, "GET", "conversations/", Value::Null).await;
        let Some(id) = all["items"][0]["id"].as_str() else { continue };
        let path = format!("conversations/{id}/");
        let timeline = format!("{path}timeline/");
        let calls = api(&world, "GET", &timeline, Value::Null).await["items"].take();
        if calls.as_array().unwrap().len() == 3 {
            break (path, calls);
        }
    };
    let shown = |call: &Value| {
        let text = call["call"]["text"].as_str().unwrap();
        assert_eq!(call["call"]["missed"], false, "{call}");
        (call["call"]["phonesUnanswered"] == true, text.ends_with(" s, phones not answered"))
    };
    let shown: Vec<_> = calls.as_array().unwrap().iter().map(shown).collect();
    assert_eq!(shown, [(false, false), (true, true), (true, true)], "{calls}");
    assert_eq!(api(&world, "GET", &path, Value::Null).await["unread"], 2);
    let notices = api(&world, "GET", "notifications/", Value::Null).await["items"].take();
    let notices = notices.as_array().unwrap();
    assert_eq!(notices.len(), 2, "{notices:?}");
    for notice in notices {
        let text = "Nobody answered the phones for Asha Verma, who called +918035737458";
        assert_eq!((&notice["type"], &notice["text"]), (&json!("missed_call"), &json!(text)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transferred_call_is_transferred_again() {
    let world = endpoints().await;
    for path in ["/events", "/dialled"] {
        world.app.xml(path, "<Response/>");
    }
    world.app.xml("/unused", dial_asha(&world));
    world.endpoint("asha").await;
    world.endpoint("ravi").await;
    let (mut asha, mut ravi) = (world.phone("asha").await, world.phone("ravi").await);
    let caller = world.sim.place_call(user(60));
    let call = asha.receive("ring").await["call"].clone();
    let on = |to: &str| json!({"type": "transfer", "call": call, "to": to});
    asha.say(on("ravi")).await;
    assert_eq!(asha.receive("error").await["code"], "no_call", "it only rings");
    asha.say(json!({"type": "accept", "call": call, "sdp": OFFER})).await;
    asha.receive("answer").await;
    world.app.wait_where("/events", |seen| seen.param("Event") == "DialAnswer").await;
    for nobody in ["nobody", "asha", "", "<User>"] {
        asha.say(on(nobody)).await;
        assert_eq!(asha.receive("error").await["code"], "no_such_endpoint", "{nobody}");
    }
    ravi.say(on("asha")).await;
    assert_eq!(ravi.receive("error").await["code"], "no_call", "another's");
    asha.say(on("sip:ravi@127.0.0.1")).await;
    asha.receive("transferred").await;
    assert_eq!(asha.receive("ended").await["call"], call);
    let rung = ravi.receive("ring").await;
    let second = rung["call"].clone();
    assert!(second != call && rung["from"].as_str().is_some_and(|from| !from.is_empty()), "{rung}");
    ravi.say(json!({"type": "accept", "call": second, "sdp": OFFER})).await;
    ravi.receive("answer").await;
    ravi.say(json!({"type": "hangup", "call": second})).await;
    assert_eq!(ravi.receive("ended").await["source"], "Callee");
    drop(caller.all().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whatsapp_caller_and_a_person_at_the_example_page_hear_each_other() {
    if !has_chromium() {
        return;
    }
    let world = endpoints().await;
    for path in ["/events", "/dialled"] {
        world.app.xml(path, "<Response/>");
    }
    world.app.xml("/unused", dial_asha(&world));
    world.endpoint("asha").await;
    let mut page = registered_page(&world, "asha").await;
    let caller = world.sim.place_call(user(60));
    page.until("!document.getElementById('accept').disabled").await;
    page.eval("document.getElementById('accept').click()").await;
    page.until("document.getElementById('level').value > 0.05").await;
    world.app.wait_where("/events", |seen| seen.param("Event") == "DialConnected").await;
    // Hold and resume.
    page.eval("document.getElementById('hold').click()").await;
    page.until("document.getElementById('log').innerText.includes('held')").await;
    page.eval("document.getElementById('hold').click()").await;
    page.until("document.getElementById('log').innerText.includes('unheld')").await;
    page.eval(LISTEN).await;
    page.eval("document.getElementById('hangup').click()").await;
    page.until(
        "document.getElementById('log').innerText.includes('ended: Normal Hangup (4000, Callee)')",
    )
    .await;
    let action = world.app.wait("/dialled").await;
    assert_eq!(action.param("DialStatus"), "completed");
    let events = caller.all().await;
    let page_ms = crate::dial::heard_ms(&events, PAGE_HZ);
    assert!(page_ms > 1_500, "the caller heard the page: {page_ms} ms");
    assert!(page.errors.is_empty(), "the page's console: {:#?}", page.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_the_example_page_calls_a_whatsapp_user() {
    if !has_chromium() {
        return;
    }
    let world = endpoints().await;
    world.app.xml("/dialled", "<Response/>").route("/answer", {
        let (number, action) = (crate::support::node::NUMBER, world.app.url("/dialled"));
        move |seen| {
            let to = seen.param("To").to_owned();
            let dial = format!(
                "<Dial callType=\"whatsapp\" callerId=\"{number}\" action=\"{action}\"><User>{to}</User></Dial>"
            );
            (200, format!("<Response>{dial}</Response>"))
        }
    });
    world.endpoint("asha").await;
    let mut script =
        crate::outbound::user(sim::CalleeAction::Accept, sim::EventOrder::ConnectFirst);
    (script.say, script.record) = (crate::dial::tone(1_100.0, 30), true);
    let callee = world.sim.expect_call(script);
    let mut page = registered_page(&world, "asha").await;
    page.eval(
        "document.getElementById('to').value = '+91 94123 41234'; document.querySelector('#dial button').click()",
    )
    .await;
    page.until("document.getElementById('level').value > 0.05").await;
    page.eval(LISTEN).await;
    page.eval("document.getElementById('hangup').click()").await;
    page.until(
        "document.getElementById('log').innerText.includes('ended: Normal Hangup (4000, Caller)')",
    )
    .await;
    let events = callee.all().await;
    let page_ms = crate::dial::heard_ms(&events, PAGE_HZ);
    assert!(page_ms > 1_500, "the user heard the page: {page_ms} ms");
}
