//! Tests with the fixtures of `fixtures/meta` and with hostile input.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ::http::{Request, StatusCode};
use aws_lc_rs::hmac;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, poll};
use http_body_util::{BodyExt as _, Full};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::admission::permission::{Consents, PairKey, Rules, State};
use crate::admission::{
    AccountSpec, Admitted, Directory, Gate, NumberEntry, NumberSpec, Pressure, Reason, Slot,
};
use crate::call::CallEvent;
use crate::call::registry::{CallKey, EventOutcome, Incoming, OnSettled, RejectsFull};
use machine::{PhoneStatus, Termination};
use media::sdp::Offer;
use model::Clock;
use model::Health;
use model::Secret;
use model::{CallUuid, E164, Timestamp, WabaId, Wacid};
use store::{Birth, Store};
use tokio::sync::Notify;
use uuid::Uuid;

pub(super) fn fixture(file: &str) -> Vec<u8> {
    let path =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/meta").join(file);
    std::fs::read(&path)
        .unwrap_or_else(|error| panic!("could not read {}: {error}", path.display()))
}

fn index() -> Value {
    serde_json::from_slice(&fixture("index.json")).unwrap()
}

/// A fake registry that records all calls of its methods.
#[derive(Default)]
struct Phones {
    live: Mutex<BTreeMap<CallKey, Slot>>,
    started: Mutex<Vec<Started>>,
    rejected: Mutex<Vec<(CallKey, Reason)>>,
    ended: Mutex<Vec<(CallKey, Termination)>>,
    placed: Mutex<Vec<Placed>>,
    no_room: AtomicBool,
    no_room_to_start: AtomicBool,
    no_room_to_reject: AtomicBool,
    no_room_to_tell: AtomicBool,
}

#[derive(Clone, Debug)]
struct Started {
    number: E164,
    incoming: Incoming,
}

/// An event of an outbound call.
#[derive(Clone, Debug)]
struct Placed {
    call: CallUuid,
    wacid: Option<CallKey>,
    phone: Option<PhoneStatus>,
}

impl Placed {
    /// Builds the event from a row of the index.
    fn of(row: &Value) -> Self {
        let number = row["phone_number_id"].as_str().unwrap();
        let key = |id: &str| CallKey { phone_number_id: number.into(), wacid: id.into() };
        let live = row["state"] == "live";
        Self {
            call: crate::meta::call_named(row["biz_opaque_callback_data"].as_str().unwrap())
                .unwrap(),
            wacid: row["call_id"].as_str().map(key),
            phone: live.then_some(PhoneStatus::Accepted),
        }
    }
}

impl Phones {
    fn placed(&self, key: &CallKey, named: Option<CallUuid>, event: &CallEvent) -> EventOutcome {
        let mut placed = self.placed.lock().unwrap();
        let of = |one: &&mut Placed| {
            one.wacid.as_ref() == Some(key) || (one.wacid.is_none() && named == Some(one.call))
        };
        let Some(one) = placed.iter_mut().find(of) else { return EventOutcome::Parked };
        one.wacid.get_or_insert_with(|| key.clone());
        if let CallEvent::Status(status) = event {
            if one.phone >= Some(*status) {
                return EventOutcome::Late;
            }
            one.phone = Some(*status);
        }
        EventOutcome::Delivered
    }

    fn terminated(&self, key: &CallKey, termination: Termination) -> EventOutcome {
        if self.placed.lock().unwrap().iter().any(|one| one.wacid.as_ref() == Some(key)) {
            self.placed.lock().unwrap().retain(|one| one.wacid.as_ref() != Some(key));
            return EventOutcome::Delivered;
        }
        if self.no_room_to_tell.load(Ordering::SeqCst) {
            return EventOutcome::Full;
        }
        match self.live.lock().unwrap().remove(key) {
            Some(_) => {
                self.ended.lock().unwrap().push((key.clone(), termination));
                EventOutcome::Delivered
            }
            None => EventOutcome::Late,
        }
    }
}

impl Calls for Phones {
    type Room = ();

    fn room(&self, _: &NumberEntry) -> Option<()> {
        (!self.no_room.load(Ordering::SeqCst)).then_some(())
    }

    fn read_offer(&self, sdp: &str) -> Option<Offer> {
        Offer::parse(sdp, false).ok()
    }

    fn birth(&self, _: &NumberEntry, _: &mut Incoming) -> Option<Birth> {
        None
    }

    fn has(&self, key: &CallKey, _: Option<CallUuid>) -> bool {
        self.live.lock().unwrap().contains_key(key)
    }

    fn start(
        &self,
        (): (),
        admitted: Admitted,
        incoming: Incoming,
    ) -> Result<(), (Box<Admitted>, Reason)> {
        if self.no_room_to_start.load(Ordering::SeqCst) {
            return Err((Box::new(admitted), Reason::Overloaded));
        }
        let (number, slot) = admitted.begin();
        self.live.lock().unwrap().insert(incoming.key.clone(), slot);
        let started = Started { number: number.spec.number.clone(), incoming };
        self.started.lock().unwrap().push(started);
        Ok(())
    }

    fn event(&self, key: &CallKey, named: Option<CallUuid>, event: CallEvent) -> EventOutcome {
        match event {
            CallEvent::Terminated(termination) => self.terminated(key, termination),
            event => self.placed(key, named, &event),
        }
    }

    fn reject(
        &self,
        number: &Arc<NumberEntry>,
        wacid: Wacid,
        reason: Reason,
        _: Option<OnSettled>,
    ) -> Result<(), RejectsFull> {
        if self.no_room_to_reject.load(Ordering::SeqCst) {
            return Err(RejectsFull);
        }
        let key = CallKey { phone_number_id: number.spec.phone_number_id.clone(), wacid };
        self.rejected.lock().unwrap().push((key, reason));
        Ok(())
    }
}

/// A webhook handler with the configuration that the fixtures assume.
struct World {
    door: Arc<WebhookHandler<Phones>>,
    gate: Arc<Gate>,
    clock: Clock,
    consents: Arc<Consents>,
}

impl World {
    fn at(now: i64) -> Self {
        Self::with(now, 1_000, 1_000)
    }

    fn with(now: i64, cps: u32, calls_per_number: u32) -> Self {
        let clock = Clock::stepped(Timestamp::from_secs(now));
        let world = &index()["world"];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let account = AccountSpec {
            auth_id: text(&world["account"]).into(),
            parent: None,
            cps: Some(cps),
            tokens: Vec::new(),
        };
        let numbers = world["numbers"].as_array().unwrap().iter().map(|row| NumberSpec {
            waba: WabaId::from(text(&row["waba"])),
            calling_enabled: row["calling_enabled"].as_bool().unwrap(),
            calls_per_number,
            ..NumberSpec::for_tests(
                row["number"].as_str().unwrap(),
                &text(&row["phone_number_id"]),
                account.auth_id.as_str(),
            )
        });
        let directory = Directory::new(10);
        directory.replace(vec![account.clone()], numbers.collect()).unwrap();
        let gate = Arc::new(Gate::new(Arc::new(directory), clock.now()));
        let config = WebhookConfig {
            app_secret: Secret::new(text(&world["app_secret"])),
            app_secret_previous: None,
            verify_token: Secret::new(text(&world["verify_token"])),
        };
        let consents = Arc::new(Consents::new());
        let door = WebhookHandler::new(Phones::default(), gate.clone(), clock.clone(), &config)
            .with_consents(consents.clone());
        Self { door: Arc::new(door), gate, clock, consents }
    }

    fn phones(&self) -> &Phones {
        self.door.calls()
    }

    fn deliver(&self, body: &[u8]) -> Vec<ItemResult> {
        let mut handled = Vec::new();
        self.door.deliver(body, |item| handled.push(item)).unwrap();
        handled
    }

    fn effects(&self, body: &[u8]) -> Vec<Effect> {
        self.deliver(body).into_iter().map(|handled| handled.effect).collect()
    }

    async fn post(&self, body: impl Into<Bytes>) -> StatusCode {
        handle(&self.door, signed(body)).await.status()
    }
}

fn signed(body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let body = body.into();
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"offhook-fixture-app-secret-0001");
    let tag = format!("sha256={}", hex::encode(hmac::sign(&key, &body)));
    Request::post("/webhooks/meta")
        .header("X-Hub-Signature-256", tag)
        .body(Full::new(body))
        .unwrap()
}

const NOW: i64 = 1_790_000_000;

/// `connect_user.json` with its call changed.
fn connect(id: &str, change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(&fixture("webhooks/connect_user.json")).unwrap();
    let call = &mut body["entry"][0]["changes"][0]["value"]["calls"][0];
    call["id"] = json!(id);
    change(call);
    serde_json::to_vec(&body).unwrap()
}

fn terminate(id: &str) -> Vec<u8> {
    connect(id, |call| *call = json!({"id": id, "event": "terminate", "timestamp": "1790000000"}))
}

/// Maps an effect of the index to the effect in this version.
fn for_now(promised: &str) -> String {
    match promised {
        "account_noted" | "settings_noted" => "ignored",
        other => other,
    }
    .to_owned()
}

#[tokio::test]
async fn every_webhook_fixture_has_the_effect_of_its_row() {
    let index = index();
    let rows = index["webhooks"].as_array().unwrap();
    assert_eq!(rows.len(), 94);
    for row in rows {
        let file = row["file"].as_str().unwrap();
        let now = row["now"].as_i64().unwrap();
        let (world, listener) = (World::at(now), World::at(now));
        for placed in row["setup"]["outbound"].as_array().into_iter().flatten() {
            for one in [&world, &listener] {
                one.phones().placed.lock().unwrap().push(Placed::of(placed));
            }
        }
        for before in row["precondition"].as_array().into_iter().flatten() {
            let body = fixture(before.as_str().unwrap());
            world.deliver(&body);
            assert_eq!(listener.post(body).await, StatusCode::OK, "{file}");
        }
        let forget = |phones: &Phones| {
            phones.started.lock().unwrap().clear();
            phones.rejected.lock().unwrap().clear();
        };
        forget(world.phones());
        let body = fixture(file);
        assert_eq!(u64::from(listener.post(body.clone()).await.as_u16()), row["status"], "{file}");
        let handled = world.deliver(&body);
        let items = row["items"].as_array().unwrap();
        assert_eq!(handled.len(), items.len(), "{file}: {handled:?}");
        let outbound = row["setup"]["outbound"].is_array();
        for (handled, item) in handled.iter().zip(items) {
            let kind = item["kind"].as_str().unwrap();
            assert_eq!(
                (handled.kind.as_str(), handled.id.as_deref()),
                (kind, item["id"].as_str()),
                "{file}"
            );
            let effect = for_now(item["effect"].as_str().unwrap());
            assert_eq!(handled.effect.as_str(), effect, "{file}");
            if !outbound {
                graph_and_call(&world, file, item);
            }
            if item["row"].is_object() {
                permission(&world, &body, &item["row"], file);
            }
        }
    }
}

/// Checks the permission of the pair in the first message of a body.
fn permission(world: &World, body: &[u8], expected: &Value, file: &str) {
    let body: Value = serde_json::from_slice(body).unwrap();
    let value = &body["entry"][0]["changes"][0]["value"];
    let number = value["metadata"]["phone_number_id"].as_str().unwrap().into();
    let key = PairKey::new(&number, value["messages"][0]["from"].as_str().unwrap());
    let state = world.consents.view(&key, &Rules::default(), world.clock.steady()).state;
    let shown = match state {
        State::Temporary { until } => json!({"state": "temporary", "until": until.secs()}),
        other => json!({"state": other.as_str()}),
    };
    assert_eq!(&shown, expected, "{file}");
}

/// `permission_accept_temporary.json` with its message and context changed.
fn reply(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut body: Value =
        serde_json::from_slice(&fixture("webhooks/permission_accept_temporary.json")).unwrap();
    change(&mut body["entry"][0]["changes"][0]["value"]);
    serde_json::to_vec(&body).unwrap()
}

#[test]
fn permission_replies_are_read_tolerantly() {
    type Change = fn(&mut Value);
    let set_reply = |value: &mut Value, name: &str, to: Value| {
        value["messages"][0]["interactive"]["call_permission_reply"][name] = to;
    };
    let until = |user: &str, world: &World| {
        let key = PairKey::new(&"106540352242922".into(), user);
        world.consents.view(&key, &Rules::default(), world.clock.steady()).state
    };
    let soon = State::Temporary { until: Timestamp::from_secs(NOW + 60) };
    let usual = State::Temporary { until: Timestamp::from_secs(NOW + 604_800) };
    let rows: [(Value, Value, State); 8] = [
        (json!((NOW + 60).to_string()), json!(false), soon),
        (json!(NOW + 60), Value::Null, soon),
        (json!(NOW + 60), json!("true"), State::Permanent),
        (json!(NOW + 60), json!("yes"), soon),
        (json!("soon"), json!(false), usual),
        (json!(-5), json!(false), usual),
        (json!((NOW + 60) * 1_000), json!(0), usual),
        (json!({}), json!(true), State::Permanent),
    ];
    for (expiration, permanent, state) in rows {
        let world = World::at(NOW);
        let body = reply(|value| {
            set_reply(value, "expiration_timestamp", expiration.clone());
            set_reply(value, "is_permanent", permanent.clone());
            set_reply(value, "response", json!("ACCEPT"));
        });
        assert_eq!(world.effects(&body), [Effect::PermissionUpdated]);
        assert_eq!(until("919412341234", &world), state, "{expiration} {permanent}");
    }
    let world = World::at(NOW);
    for (id, permanent, source, effect) in [
        ("wamid.1", true, "user_action", Effect::PermissionUpdated),
        ("wamid.2", false, "automatic", Effect::MessageStored),
    ] {
        let body = reply(|value| {
            value["messages"][0]["id"] = json!(id);
            set_reply(value, "is_permanent", json!(permanent));
            set_reply(value, "response_source", json!(source));
        });
        assert_eq!(world.effects(&body), [effect]);
        assert_eq!(until("919412341234", &world), State::Permanent, "{source}");
    }
    let users: [(Change, &str); 4] = [
        (|value| value["messages"][0]["from"] = json!("+91 94123-41234"), "919412341234"),
        (|value| value["messages"][0]["from"] = Value::Null, "919412341234"),
        (
            |value| {
                value["messages"][0]["from"] = Value::Null;
                value["contacts"] = json!([{"user_id": "IN.30155408211934477"}]);
            },
            "IN.30155408211934477",
        ),
        (
            |value| {
                value["messages"][0]["from"] = Value::Null;
                value["messages"][0]["from_user_id"] = json!("IN.7");
                value["contacts"] = Value::Null;
            },
            "IN.7",
        ),
    ];
    for (change, user) in users {
        let world = World::at(NOW);
        assert_eq!(world.effects(&reply(change)), [Effect::PermissionUpdated], "{user}");
        assert_ne!(until(user, &world), State::None, "{user}");
    }
    let world = World::at(NOW);
    let unusable: [Change; 4] = [
        |value| value["messages"][0]["interactive"]["call_permission_reply"] = Value::Null,
        |value| {
            value["messages"][0]["interactive"]["call_permission_reply"]["response"] = json!(true)
        },
        |value| value["messages"][0]["id"] = json!(""),
        |value| {
            value["messages"][0]["from"] = json!("");
            value["contacts"] = json!([]);
        },
    ];
    for change in unusable {
        assert_eq!(world.effects(&reply(change)), [Effect::Malformed]);
    }
    let foreign = reply(|value| value["metadata"]["phone_number_id"] = json!("1"));
    assert_eq!(world.effects(&foreign), [Effect::UnknownNumber]);
}

#[test]
fn r05_a_permission_reply_counts_once_and_in_its_order() {
    let world = World::at(NOW);
    let accept = reply(|_| ());
    assert_eq!(world.effects(&accept), [Effect::PermissionUpdated]);
    assert_eq!(world.effects(&accept), [Effect::Duplicate]);
    let reject = |id: &str, at: i64| {
        reply(|value| {
            value["messages"][0]["id"] = json!(id);
            value["messages"][0]["timestamp"] = json!(at.to_string());
            value["messages"][0]["interactive"]["call_permission_reply"] =
                json!({"response": "reject"});
        })
    };
    assert_eq!(
        world.effects(&reject("wamid.1", NOW - 1)),
        [Effect::MessageStored],
        "older than the row"
    );
    assert_eq!(
        world.effects(&reject("wamid.2", NOW)),
        [Effect::PermissionUpdated],
        "the same second, later"
    );
}

#[tokio::test]
async fn r05_a_permission_reply_is_durable_before_its_200() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("o.db");
    let mut world = World::at(NOW);
    let store = Store::open(&file, Health::new()).await.unwrap();
    world.consents = Arc::new(Consents::load(store.clone()).await.unwrap());
    let door = Arc::into_inner(world.door).unwrap();
    world.door = Arc::new(door.with_consents(world.consents.clone()));
    assert_eq!(world.post(reply(|_| ())).await, StatusCode::OK);
    // The store is not closed in order: items answered with 200 must be stored already.
    let rows = store.permissions().list(None, 10).await.unwrap();
    assert_eq!(
        (rows.len(), rows[0].state.as_str(), rows[0].user.as_str()),
        (1, "temporary", "919412341234")
    );
    store.close().await;
    let refused = reply(|value| value["messages"][0]["id"] = json!("wamid.later"));
    assert_eq!(
        world.post(refused.clone()).await,
        StatusCode::SERVICE_UNAVAILABLE,
        "Meta comes again"
    );
    let again = Store::open(&file, Health::new()).await.unwrap();
    world.consents = Arc::new(Consents::load(again.clone()).await.unwrap());
    let door = Arc::into_inner(world.door).unwrap();
    world.door = Arc::new(door.with_consents(world.consents.clone()));
    let key = PairKey::new(&"106540352242922".into(), "919412341234");
    let granted = State::Temporary { until: Timestamp::from_secs(NOW + 604_800) };
    assert_eq!(
        world.consents.view(&key, &Rules::default(), world.clock.steady()).state,
        granted,
        "over a restart"
    );
    assert_eq!(world.post(refused).await, StatusCode::OK, "it was not taken for a copy");
    again.close().await;
}

/// Checks the Graph actions, the reason and the call's event of one item.
fn graph_and_call(world: &World, file: &str, item: &Value) {
    let Some(id) = item["id"].as_str() else { return };
    let number = item["number"].as_str();
    let started = world.phones().started.lock().unwrap().clone();
    let started: Vec<_> = started
        .iter()
        .filter(|call| {
            call.incoming.key.wacid.as_str() == id
                && number.is_none_or(|n| call.number.as_str() == n)
        })
        .collect();
    let rejected = world.phones().rejected.lock().unwrap().clone();
    let rejected: Vec<_> = rejected.iter().filter(|(key, _)| key.wacid.as_str() == id).collect();
    if let Some(actions) = item["graph"].as_array() {
        let pre_accepts = started.iter().map(|_| "pre_accept");
        let done: Vec<&str> = pre_accepts.chain(rejected.iter().map(|_| "reject")).collect();
        assert_eq!(done, actions.iter().map(|a| a.as_str().unwrap()).collect::<Vec<_>>(), "{file}");
    }
    if let Some(reason) = item["reason"].as_str() {
        assert_eq!(rejected[0].1.as_str(), reason, "{file}");
    }
    let call = started.first();
    let check = |name: &str, is: Option<&str>| {
        if let Some(expected) = item[name].as_str() {
            assert_eq!(is, Some(expected), "{file}: {name}");
        }
    };
    check("from", call.map(|call| call.incoming.from.as_str()));
    check("to", call.map(|call| call.number.as_str()));
    check("cta_payload", call.and_then(|call| call.incoming.cta_payload.as_deref()));
    check("deeplink_payload", call.and_then(|call| call.incoming.deeplink_payload.as_deref()));
    if let Some(code) = item["error_code"].as_i64() {
        assert_eq!(world.phones().ended.lock().unwrap()[0].1.error_code, Some(code), "{file}");
    }
}

#[test]
fn reads_a_terminate_in_every_shape() {
    for (file, status, duration) in [
        ("terminate_completed", "completed", Some(52)),
        ("terminate_failed_no_times", "failed", None),
        ("terminate_status_array", "completed", Some(38)),
        ("terminate_duration_string", "completed", Some(52)),
    ] {
        let world = World::at(NOW);
        world.deliver(&fixture("webhooks/connect_user.json"));
        world.deliver(&fixture(&format!("webhooks/{file}.json")));
        let ended = world.phones().ended.lock().unwrap().clone();
        let (_, termination) = &ended[0];
        assert_eq!(termination.status.as_deref(), Some(status), "{file}");
        assert_eq!(termination.duration_secs.is_some(), duration.is_some(), "{file}");
        assert_eq!(termination.start_time.is_some(), duration.is_some(), "{file}");
        if file != "terminate_duration_string" {
            assert_eq!(termination.duration_secs, duration, "{file}");
        }
    }
}

#[tokio::test]
async fn verification_matches_the_fixtures() {
    let world = World::at(NOW);
    for row in index()["verification"].as_array().unwrap() {
        let uri = format!("/webhooks/meta?{}", row["query"].as_str().unwrap());
        let answer =
            handle(&world.door, Request::get(uri).body(Full::<Bytes>::default()).unwrap()).await;
        assert_eq!(u64::from(answer.status().as_u16()), row["status"], "{row}");
        if let Some(expected) = row["body"].as_str() {
            assert_eq!(answer.headers()["content-type"], "text/plain");
            assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), expected.as_bytes());
        }
    }
    for method in ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"] {
        let request = Request::builder()
            .method(method)
            .uri("/webhooks/meta")
            .body(Full::<Bytes>::default())
            .unwrap();
        assert_eq!(
            handle(&world.door, request).await.status(),
            StatusCode::METHOD_NOT_ALLOWED,
            "{method}"
        );
    }
}

#[tokio::test]
async fn r14_the_order_of_checks_is_size_signature_json() {
    let world = World::at(NOW);
    let unsigned =
        |body: Vec<u8>| Request::post("/webhooks/meta").body(Full::new(Bytes::from(body))).unwrap();
    const MAX: usize = 3 * 1024 * 1024;
    let mut padded = fixture("webhooks/connect_user.json");
    padded.resize(MAX, b' ');
    assert_eq!(world.post(padded.clone()).await, StatusCode::OK);
    padded.push(b' ');
    assert_eq!(world.post(padded.clone()).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        handle(&world.door, unsigned(padded.clone())).await.status(),
        StatusCode::PAYLOAD_TOO_LARGE
    );
    // Without a declared length: counted while it is read.
    let chunks = padded.chunks(60_000).map(|c| {
        Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(Bytes::copy_from_slice(c)))
    });
    let chunked =
        http_body_util::StreamBody::new(futures_util::stream::iter(chunks.collect::<Vec<_>>()));
    let answer = handle(&world.door, Request::post("/webhooks/meta").body(chunked).unwrap()).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        handle(&world.door, unsigned(b"not json".to_vec())).await.status(),
        StatusCode::UNAUTHORIZED
    );
    let unsigned_answer =
        handle(&world.door, unsigned(fixture("webhooks/batch_two_numbers.json"))).await;
    assert_eq!(unsigned_answer.status(), StatusCode::UNAUTHORIZED);
    assert!(unsigned_answer.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert_eq!(world.phones().started.lock().unwrap().len(), 1, "an unsigned body has no effect");
    let deep = |levels: usize| format!("{{\"x\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
    for (body, status) in [
        (String::new(), StatusCode::BAD_REQUEST),
        ("\u{feff}{}".to_owned(), StatusCode::BAD_REQUEST),
        ("{\"a\":NaN}".to_owned(), StatusCode::BAD_REQUEST),
        (deep(200), StatusCode::BAD_REQUEST),
        (deep(1_000_000), StatusCode::BAD_REQUEST),
        (deep(127), StatusCode::OK),
        ("{}".to_owned(), StatusCode::OK),
        ("[]".to_owned(), StatusCode::OK),
        ("17".to_owned(), StatusCode::OK),
        ("null".to_owned(), StatusCode::OK),
    ] {
        let shown: String = body.chars().take(20).collect();
        assert_eq!(world.post(body).await, status, "{shown}");
    }
    // gzip is not decoded: the signature is valid, but the body is not JSON.
    assert_eq!(world.post(vec![0x1f, 0x8b, 8, 0, 0]).await, StatusCode::BAD_REQUEST);
}

/// The body is not read, and a redelivery counts as the first delivery.
#[tokio::test]
async fn r10_an_overloaded_handler_refuses_webhooks_unread() {
    let mut world = World::at(NOW);
    let pressure = Pressure::new(Health::new(), world.clock.now());
    let door = Arc::into_inner(world.door).unwrap();
    world.door = Arc::new(door.with_pressure(pressure.clone()));
    let body = connect("wacid.A", |_| {});
    pressure.shed(Some(0));
    let unread = futures_util::stream::poll_fn(
        |_| -> std::task::Poll<
            Option<Result<hyper::body::Frame<Bytes>, std::convert::Infallible>>,
        > { panic!("it was read") },
    );
    let request =
        Request::post("/webhooks/meta").body(http_body_util::StreamBody::new(unread)).unwrap();
    assert_eq!(handle(&world.door, request).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.post(body.clone()).await, StatusCode::SERVICE_UNAVAILABLE);
    assert!(world.phones().started.lock().unwrap().is_empty());
    pressure.shed(Some(1));
    assert_eq!(world.post(body.clone()).await, StatusCode::OK, "one is let in");
    assert_eq!(world.phones().started.lock().unwrap().len(), 1);
    assert_eq!(world.post(body.clone()).await, StatusCode::SERVICE_UNAVAILABLE);
    pressure.shed(None);
    assert_eq!(world.effects(&body), [Effect::Duplicate]);
}

#[test]
fn malformed_items_do_not_affect_others() {
    let good = |id: &str| {
        let body: Value = serde_json::from_slice(&connect(id, |_| {})).unwrap();
        body["entry"][0]["changes"][0].clone()
    };
    let whole = |entry: Value| json!({"object": "whatsapp_business_account", "entry": entry});
    let value = |value: Value| {
        whole(json!([{"id": 5, "changes": [{"field": "calls", "value": value}, good("wacid.Z")]}]))
    };
    let metadata = json!({"phone_number_id": "106540352242922"});
    use Effect::{Admitted, Ignored, Malformed};
    let rows: Vec<(Value, Vec<Effect>)> = vec![
        (json!({"object": 5, "entry": []}), vec![Ignored]),
        (whole(json!({})), vec![Malformed]),
        (json!({"object": "whatsapp_business_account"}), vec![Malformed]),
        (
            whole(json!([1, null, {"changes": 5}, {"changes": [7, {}, {"field": 8}]}])),
            vec![Malformed; 6],
        ),
        (value(json!(null)), vec![Malformed, Admitted]),
        (value(json!({})), vec![Malformed, Admitted]),
        (value(json!({"metadata": metadata, "calls": {}})), vec![Malformed, Admitted]),
        (
            value(json!({"metadata": 3, "calls": [{"id": "wacid.Y", "event": "terminate"}]})),
            vec![Malformed, Admitted],
        ),
        (
            value(json!({"metadata": {}, "statuses": [1], "calls": [2]})),
            vec![Malformed, Malformed, Admitted],
        ),
        (
            value(
                json!({"metadata": metadata, "calls": [[], null, {"event": 3}, {"event": "connect"},
                {"event": "connect", "id": ""}, {"event": "terminate", "id": "x".repeat(513)},
                {"event": "connect", "id": "wacid.\u{e9}"}]}),
            ),
            vec![
                Malformed, Malformed, Malformed, Malformed, Malformed, Malformed, Malformed,
                Admitted,
            ],
        ),
        (
            whole(
                json!([{"changes": [{"field": "messages", "value": {"metadata": metadata, "messages": [4, {"id": "wamid.1"}],
                "statuses": [{"id": "wamid.1"}, {"id": "wamid.1", "status": "seen"}]}}]}]),
            ),
            vec![Malformed, Malformed, Malformed, Ignored],
        ),
    ];
    for (body, effects) in rows {
        let world = World::at(NOW);
        assert_eq!(world.effects(&serde_json::to_vec(&body).unwrap()), effects, "{body}");
    }
}

#[test]
fn offers_and_directions_of_every_kind() {
    let sdp: Value = serde_json::from_slice(&connect("x", |_| {})).unwrap();
    let sdp = sdp["entry"][0]["changes"][0]["value"]["calls"][0]["session"]["sdp"].clone();
    let long = "x".repeat(16_385);
    let bad = Effect::Rejected(Reason::BadOffer);
    let rows: Vec<(&str, Value, Effect)> = vec![
        ("session", json!(null), Effect::Ignored),
        ("session", json!({}), Effect::Ignored),
        ("session", json!({"sdp_type": "offer", "sdp": null}), Effect::Ignored),
        ("session", json!("v=0"), bad),
        ("session", json!({"sdp_type": "offer", "sdp": 5}), bad),
        ("session", json!({"sdp_type": "offer", "sdp": long}), bad),
        ("session", json!({"sdp_type": "pranswer", "sdp": sdp}), bad),
        ("session", json!({"sdp_type": 7, "sdp": sdp}), bad),
        ("session", json!({"sdp_type": "OFFER", "sdp": sdp}), Effect::Admitted),
        ("session", json!({"sdp": sdp}), Effect::Admitted),
        ("direction", json!("user_initiated"), Effect::Admitted),
        ("direction", json!("Sideways"), Effect::Ignored),
        ("direction", json!(1), Effect::Ignored),
        ("direction", json!("BUSINESS_INITIATED"), Effect::Parked),
        ("event", json!("Connect"), Effect::Admitted),
        ("event", json!("hold"), Effect::Ignored),
        ("id", json!(17), Effect::Admitted),
        ("timestamp", json!("soon"), Effect::Admitted),
        ("timestamp", json!(-5), Effect::Admitted),
        ("timestamp", json!(1), Effect::Stale),
    ];
    for (member, value, effect) in rows {
        let world = World::at(NOW);
        let body = connect("wacid.A", |call| call[member] = value.clone());
        assert_eq!(
            world.effects(&body),
            [effect],
            "{member} {}",
            value.to_string().chars().take(60).collect::<String>()
        );
    }
    let legacy = |direction: Value| {
        connect("wacid.A", |call| {
            call["session"] = json!(null);
            call["connection"] = json!({"webrtc": {"sdp": sdp}});
            call["direction"] = direction;
        })
    };
    assert_eq!(World::at(NOW).effects(&legacy(json!("USER_INITIATED"))), [Effect::Admitted]);
    assert_eq!(World::at(NOW).effects(&legacy(json!(null))), [Effect::Admitted], "told by `to`");
    let nothing = connect("wacid.A", |call| {
        call["direction"] = json!(null);
        call["session"] = json!({"sdp": sdp});
        call["to"] = json!(null);
    });
    assert_eq!(World::at(NOW).effects(&nothing), [Effect::Malformed]);
    let placed = connect("wacid.A", |call| {
        call["direction"] = json!(null);
        call["session"] = json!({"sdp": sdp});
        call["to"] = json!(null);
        call["biz_opaque_callback_data"] = json!("oh1.5b54a1a6-4e8a-4f0e-9d2b-0c4d3b2a1f60.n1");
    });
    assert_eq!(World::at(NOW).effects(&placed), [Effect::Parked], "the answer to a placed call");
}

#[test]
fn connects_are_stale_after_one_minute_or_five_minutes_ahead() {
    for (offset, effect) in [
        (-60, Effect::Admitted),
        (-61, Effect::Stale),
        (300, Effect::Admitted),
        (301, Effect::Stale),
        (i64::MAX - NOW, Effect::Stale),
    ] {
        let body = connect("wacid.A", |call| call["timestamp"] = json!((NOW + offset).to_string()));
        assert_eq!(World::at(NOW).effects(&body), [effect], "{offset}");
    }
}

#[test]
fn a_caller_without_ids_is_anonymous_and_names_lose_control_characters() {
    let body = connect("wacid.A", |call| call["from"] = json!(null));
    let mut body: Value = serde_json::from_slice(&body).unwrap();
    let value = &mut body["entry"][0]["changes"][0]["value"];
    value["contacts"] = json!([{"profile": {"name": "A\u{0}sha\r\n<b>\u{9b}"}}]);
    let world = World::at(NOW);
    world.deliver(&serde_json::to_vec(&body).unwrap());
    let started = world.phones().started.lock().unwrap();
    assert_eq!(started[0].incoming.from, "anonymous");
    assert_eq!(started[0].incoming.caller_name, "Asha<b>");
    let mut shown = String::new();
    decode(&serde_json::to_vec(&body).unwrap(), |item| shown += &format!("{item:?}")).unwrap();
    assert!(!shown.contains("ice-pwd") && !shown.contains("Asha"), "{shown}");
}

#[test]
fn every_call_of_a_body_has_the_contact_of_its_own_user() {
    let mut body: Value = serde_json::from_slice(&connect("wacid.A", |_| {})).unwrap();
    let value = &mut body["entry"][0]["changes"][0]["value"];
    let mut call = value["calls"][0].clone();
    let mut calls = vec![];
    // By number, by numbers in another order, by business-scoped id, an unknown user, and no user.
    for (id, from, to, bsuid) in [
        ("wacid.1", json!("15550002222"), json!("918035737458"), json!(null)),
        ("wacid.2", json!("918035737458"), json!("15550001111"), json!(null)),
        ("wacid.3", json!(null), json!("918035737458"), json!("IN.33")),
        ("wacid.4", json!("15550009999"), json!("918035737458"), json!(null)),
        ("wacid.5", json!(null), json!("918035737458"), json!(null)),
    ] {
        call["id"] = json!(id);
        (call["from"], call["to"], call["from_user_id"]) = (from, to, bsuid);
        calls.push(call.clone());
    }
    value["calls"] = json!(calls);
    value["contacts"] = json!([
        {"profile": {"name": "One"}, "wa_id": "15550001111", "user_id": "IN.11"},
        {"profile": {"name": "Two"}, "wa_id": "15550002222"},
        7,
        {"profile": {"name": "Three"}, "user_id": "IN.33"},
    ]);
    let world = World::at(NOW);
    world.deliver(&serde_json::to_vec(&body).unwrap());
    let started = world.phones().started.lock().unwrap();
    let seen: Vec<_> = started
        .iter()
        .map(|call| (call.incoming.from.as_str(), call.incoming.caller_name.as_str()))
        .collect();
    assert_eq!(
        seen,
        [
            ("15550002222", "Two"),
            ("15550001111", "One"),
            ("IN.33", "Three"),
            ("15550009999", ""),
            ("15550001111", "One"),
        ]
    );
    // A single contact belongs to the user, even if Meta writes the number differently.
    let mut body: Value =
        serde_json::from_slice(&connect("wacid.B", |call| call["from"] = json!("5511912345678")))
            .unwrap();
    body["entry"][0]["changes"][0]["value"]["contacts"] =
        json!([{"profile": {"name": "Bia"}, "wa_id": "551112345678"}]);
    let world = World::at(NOW);
    world.deliver(&serde_json::to_vec(&body).unwrap());
    let started = world.phones().started.lock().unwrap();
    assert_eq!(
        (started[0].incoming.from.as_str(), started[0].incoming.caller_name.as_str()),
        ("5511912345678", "Bia")
    );
    // A contact with another user id is another person, even if it is the only one.
    let mut body: Value = serde_json::from_slice(&connect("wacid.C", |call| {
        call["from"] = json!(null);
        call["from_user_id"] = json!("IN.554");
    }))
    .unwrap();
    body["entry"][0]["changes"][0]["value"]["contacts"] =
        json!([{"profile": {"name": "Frida"}, "wa_id": "919400000553", "user_id": "IN.553"}]);
    let world = World::at(NOW);
    world.deliver(&serde_json::to_vec(&body).unwrap());
    let started = world.phones().started.lock().unwrap();
    assert_eq!(
        (started[0].incoming.from.as_str(), started[0].incoming.caller_name.as_str()),
        ("IN.554", "")
    );
}

#[test]
fn r05_a_terminate_leaves_its_tombstone_for_ten_minutes() {
    let world = World::at(NOW);
    let late_connect = |world: &World| {
        let now = world.clock.wall().secs();
        connect("wacid.A", |call| call["timestamp"] = json!(now))
    };
    assert_eq!(world.effects(&terminate("wacid.A")), [Effect::Late]);
    world.clock.step(Duration::from_secs(599));
    assert_eq!(world.effects(&late_connect(&world)), [Effect::Late]);
    let world = World::at(NOW);
    world.effects(&terminate("wacid.A"));
    world.clock.step(Duration::from_secs(600));
    assert_eq!(world.effects(&late_connect(&world)), [Effect::Admitted]);
    assert_eq!(world.effects(&terminate("wacid.A")), [Effect::Duplicate], "its key is kept a week");
    world.clock.step(Duration::from_secs(7 * 86_400));
    assert_eq!(world.effects(&terminate("wacid.A")), [Effect::Ended]);
}

#[test]
fn r05_a_call_of_the_previous_process_is_not_started_again() {
    let world = World::at(NOW);
    let key = CallKey { phone_number_id: "106540352242922".into(), wacid: "wacid.A".into() };
    world.door.remember(key);
    assert_eq!(world.effects(&connect("wacid.A", |_| {})), [Effect::Duplicate]);
    assert_eq!(world.effects(&connect("wacid.B", |_| {})), [Effect::Admitted]);
    assert_eq!(world.effects(&terminate("wacid.A")), [Effect::Late]);
}

#[test]
fn r05_ten_copies_at_once_make_one_call() {
    let world = World::at(NOW);
    let body = fixture("webhooks/connect_user.json");
    let mut effects: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(|| world.effects(&body)[0])).collect();
        threads.into_iter().map(|thread| thread.join().unwrap().as_str()).collect()
    });
    effects.sort_unstable();
    assert_eq!(effects[0], "admitted");
    assert!(effects[1..].iter().all(|effect| *effect == "duplicate"), "{effects:?}");
}

#[test]
fn r05_a_concurrent_connect_and_terminate_leave_no_call() {
    let world = World::at(NOW);
    for n in 0..500 {
        let id = format!("wacid.{n}");
        let (connect, terminate) = (connect(&id, |_| {}), terminate(&id));
        std::thread::scope(|scope| {
            scope.spawn(|| world.effects(&connect));
            scope.spawn(|| world.effects(&terminate));
        });
        assert!(world.phones().live.lock().unwrap().is_empty(), "{id} goes on for ever");
    }
}

#[tokio::test]
async fn r10_overload_rejects_and_a_full_reject_queue_returns_503() {
    let world = World::with(NOW, 1, 1_000);
    let phones = world.phones();
    phones.no_room.store(true, Ordering::SeqCst);
    let unread = connect("wacid.0", |call| call["session"]["sdp"] = json!("no offer"));
    assert_eq!(world.effects(&unread), [Effect::Rejected(Reason::Overloaded)]);
    phones.no_room.store(false, Ordering::SeqCst);
    phones.no_room_to_start.store(true, Ordering::SeqCst);
    assert_eq!(world.effects(&connect("wacid.A", |_| {})), [Effect::Rejected(Reason::Overloaded)]);
    phones.no_room_to_reject.store(true, Ordering::SeqCst);
    let b = connect("wacid.B", |_| {});
    assert_eq!(world.post(b.clone()).await, StatusCode::SERVICE_UNAVAILABLE);
    phones.no_room_to_start.store(false, Ordering::SeqCst);
    phones.no_room_to_reject.store(false, Ordering::SeqCst);
    assert_eq!(
        world.effects(&b),
        [Effect::Admitted],
        "nothing was spent on the two before, and B is no duplicate"
    );
    phones.no_room_to_tell.store(true, Ordering::SeqCst);
    assert_eq!(world.post(terminate("wacid.B")).await, StatusCode::SERVICE_UNAVAILABLE);
    phones.no_room_to_tell.store(false, Ordering::SeqCst);
    assert_eq!(world.effects(&terminate("wacid.B")), [Effect::Ended]);
    world.gate.drain();
    world.clock.step(Duration::from_secs(1));
    assert_eq!(world.effects(&connect("wacid.C", |_| {})), [Effect::Rejected(Reason::Draining)]);
}

#[test]
fn account_events_are_deduplicated_by_content_not_by_order() {
    let world = World::at(NOW);
    let one = br#"{"object":"whatsapp_business_account","entry":[{"changes":[{"field":"account_update","value":{"event":"X","a":[1,{"c":2,"b":1}]}}]}]}"#;
    let same = br#"{"object":"whatsapp_business_account","entry":[{"changes":[{"value":{"a":[1,{"b":1,"c":2}],"event":"X"},"field":"account_update"}]}]}"#;
    let other = br#"{"object":"whatsapp_business_account","entry":[{"changes":[{"value":{"a":[2,{"b":1,"c":2}],"event":"X"},"field":"account_update"}]}]}"#;
    assert_eq!(world.effects(one), [Effect::Ignored]);
    assert_eq!(world.effects(same), [Effect::Duplicate]);
    assert_eq!(world.effects(other), [Effect::Ignored]);
    world.clock.step(Duration::from_secs(86_400));
    assert_eq!(world.effects(one), [Effect::Ignored]);
}

#[test]
fn handles_more_than_a_thousand_items_of_one_array() {
    let mut body: Value = serde_json::from_slice(&fixture("webhooks/connect_user.json")).unwrap();
    let calls = &mut body["entry"][0]["changes"][0]["value"]["calls"];
    let ids = (0..1_500).map(|n| json!({"id": format!("wacid.{n}"), "event": "terminate"}));
    *calls = ids.collect();
    let effects = World::at(NOW).effects(&serde_json::to_vec(&body).unwrap());
    assert_eq!(effects, vec![Effect::Late; 1_500]);
}

#[test]
fn r23_labels_are_a_closed_set() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let rendered = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        let world = World::at(NOW);
        world.deliver(&fixture("webhooks/connect_user.json"));
        world.deliver(&fixture("webhooks/connect_user_duplicate.json"));
        world.deliver(&fixture("webhooks/connect_unknown_number.json"));
        for n in 0..200 {
            let field = json!({"object": "whatsapp_business_account", "entry": [{"changes": [{"field": format!("f{n}")}]}]});
            world.deliver(field.to_string().as_bytes());
            world.deliver(&connect(&format!("wacid.{n}"), |call| {
                call["event"] = json!(format!("event{n}"))
            }));
        }
        world.gate.publish_gauges();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let unsigned = Request::post("/webhooks/meta").body(Full::<Bytes>::default()).unwrap();
            handle(&world.door, unsigned).await;
            world.post("no json").await;
            world.post(vec![b' '; 3 * 1024 * 1024 + 1]).await;
            world.phones().no_room_to_tell.store(true, Ordering::SeqCst);
            world.post(terminate("wacid.Q")).await;
        });
    });
    let text = rendered.render();
    for line in [
        r#"offhook_webhook_events_total{kind="calls.connect",result="admitted"} 1"#,
        r#"offhook_webhook_events_total{kind="calls.connect",result="duplicate"} 1"#,
        r#"offhook_webhook_events_total{kind="calls.connect",result="unknown_number"} 1"#,
        r#"offhook_webhook_events_total{kind="other",result="ignored"} 400"#,
        r#"offhook_admission_total{direction="inbound",result="admitted"} 1"#,
        r#"offhook_admission_total{direction="inbound",result="duplicate"} 1"#,
        r#"offhook_admission_total{direction="inbound",result="unknown_number"} 1"#,
        r#"offhook_number_slots_in_use{number="918035737458"} 1"#,
        r#"offhook_webhook_events_total{kind="body",result="bad_signature"} 1"#,
        r#"offhook_webhook_events_total{kind="body",result="bad_json"} 1"#,
        r#"offhook_webhook_events_total{kind="body",result="too_large"} 1"#,
        r#"offhook_webhook_events_total{kind="body",result="busy"} 1"#,
        r#"offhook_webhook_events_total{kind="calls.terminate",result="busy"} 1"#,
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let kinds: BTreeSet<&str> =
        text.lines().filter(|line| line.starts_with("offhook_webhook")).collect();
    assert_eq!(kinds.len(), 9);
}

/// Replaces the `nth` value of a document, counted depth first, with `with`.
fn replace(value: &mut Value, nth: &mut usize, with: &Value) {
    if *nth == 0 {
        *value = with.clone();
    }
    *nth = nth.wrapping_sub(1);
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, nth, with)),
        Value::Object(members) => {
            members.values_mut().for_each(|member| replace(member, nth, with))
        }
        _ => {}
    }
}

fn any_fixture() -> impl Strategy<Value = String> {
    let index = index();
    let files: Vec<String> = index["webhooks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["file"].as_str().unwrap().to_owned())
        .collect();
    prop::sample::select(files)
}

proptest! {
    #[test]
    fn r25_wrong_types_never_panic(
        file in any_fixture(),
        changes in prop::collection::vec((0usize..60, prop::sample::select(vec![
            json!(null), json!(true), json!(-1), json!(1.5), json!(1e300), json!(""), json!("x"), json!([]), json!({}),
            json!([[]]), json!({"a": {}}), json!("\u{0}"), json!(9_223_372_036_854_775_807i64), json!(["connect"]),
        ])), 1..4),
    ) {
        let mut body: Value = serde_json::from_slice(&fixture(&file)).unwrap();
        for (nth, with) in changes {
            replace(&mut body, &mut nth.clone(), &with);
        }
        let world = World::at(NOW);
        let handled = world.deliver(&serde_json::to_vec(&body).unwrap());
        let slots: u32 = world.gate.directory().slots_in_use().iter().map(|(_, used)| used).sum();
        prop_assert_eq!(slots as usize, world.phones().live.lock().unwrap().len());
        prop_assert!(handled.iter().all(|item| item.effect != Effect::Busy));
    }

    #[test]
    fn r25_corrupted_bytes_never_panic(
        file in any_fixture(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut body = fixture(&file);
        for (place, byte) in places {
            let place = place.index(body.len());
            body[place] = byte;
        }
        let end = if whole { body.len() } else { cut.index(body.len()) };
        let _ = decode(&body[..end], |_| {});
    }
}

#[test]
fn failed_writes_are_counted_as_busy() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let shown = recorder.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        let world = World::at(NOW);
        let settled = |stored: &[bool]| {
            runtime.block_on(
                world.door.settle(route::PendingWrite::all_of(stored), Duration::from_secs(1)),
            )
        };
        assert!(settled(&[true]));
        // One failed write is enough: Meta redelivers the whole item.
        assert!(!settled(&[true, false]));
        drop(route::PendingWrite::all_of(&[true]));
    });
    let text = shown.render();
    let counted = |result: &str, count: u8| {
        let line = format!(
            "offhook_webhook_events_total{{kind=\"messages.text\",result=\"{result}\"}} {count}"
        );
        assert!(text.contains(&line), "{line}: {text}");
    };
    counted("message_stored", 2);
    counted("busy", 1);
}

/// A fleet in which the first claim waits until it is denied. Later claims are granted.
#[derive(Default)]
struct OneClaim {
    claims: AtomicUsize,
    asked: Notify,
    denied: Notify,
    is_starting: AtomicBool,
}

impl OtherNodes for OneClaim {
    fn claim(&self, _: CallKey, _: ClaimPurpose) -> BoxFuture<'_, Claim> {
        async move {
            if self.claims.fetch_add(1, Ordering::SeqCst) > 0 {
                return Claim::Ours;
            }
            self.asked.notify_one();
            self.denied.notified().await;
            Claim::Denied
        }
        .boxed()
    }

    fn withdraw(&self, _: &CallKey) {}

    fn rejected(&self, _: &CallKey) {}

    fn owner(
        &self,
        _: CallKey,
        _: Option<CallUuid>,
    ) -> BoxFuture<'_, Result<Option<Uuid>, Unreachable>> {
        std::future::ready(Ok(None)).boxed()
    }

    fn forward(&self, _: Uuid, _: SignedWebhook) -> BoxFuture<'_, Result<(), Unreachable>> {
        std::future::ready(Err(Unreachable)).boxed()
    }

    fn is_cut_off(&self) -> bool {
        false
    }

    fn is_starting(&self) -> bool {
        self.is_starting.load(Ordering::SeqCst)
    }

    fn hand_over(&self, _: SignedWebhook, _: HandOver) -> BoxFuture<'_, Result<(), Unreachable>> {
        std::future::ready(Err(Unreachable)).boxed()
    }
}

#[tokio::test]
async fn a_copy_of_a_connect_in_flight_is_answered_like_the_connect() {
    let others = Arc::new(OneClaim::default());
    let mut world = World::at(NOW);
    let door = Arc::into_inner(world.door).unwrap().with_others(others.clone());
    world.door = Arc::new(door);
    let body = connect("wacid.copied", |_| {});
    let (mut first, mut copy) =
        (Box::pin(world.post(body.clone())), Box::pin(world.post(body.clone())));
    assert!(poll!(&mut first).is_pending());
    others.asked.notified().await;
    assert!(poll!(&mut copy).is_pending(), "the copy is answered before the connect is decided");
    others.denied.notify_one();
    // Meta delivers it again, although one of the two connections may be closed.
    assert_eq!(first.await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(copy.await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(world.post(body.clone()).await, StatusCode::OK);
    assert_eq!(world.post(body).await, StatusCode::OK);
    // The registry of these tests begins no calls of a fleet.
    assert_eq!(world.phones().rejected.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_node_without_units_rejects_no_call() {
    let others = Arc::new(OneClaim::default());
    others.is_starting.store(true, Ordering::SeqCst);
    others.denied.notify_one();
    let mut world = World::at(NOW);
    world.door = Arc::new(Arc::into_inner(world.door).unwrap().with_others(others.clone()));
    let body = connect("wacid.early", |_| {});
    assert_eq!(world.post(body.clone()).await, StatusCode::SERVICE_UNAVAILABLE, "Meta tries again");
    assert_eq!(others.claims.load(Ordering::SeqCst), 0);
    others.is_starting.store(false, Ordering::SeqCst);
    assert_eq!(
        world.post(body.clone()).await,
        StatusCode::SERVICE_UNAVAILABLE,
        "the claim is denied"
    );
    assert_eq!(others.claims.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_body_with_an_event_and_its_copy_is_answered() {
    let others = Arc::new(OneClaim::default());
    others.denied.notify_one();
    let mut world = World::at(NOW);
    world.door = Arc::new(Arc::into_inner(world.door).unwrap().with_others(others));
    let mut body: Value = serde_json::from_slice(&terminate("wacid.twice")).unwrap();
    let calls = &mut body["entry"][0]["changes"][0]["value"]["calls"];
    *calls = json!([calls[0], calls[0]]);
    let status = world.post(serde_json::to_vec(&body).unwrap()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}
