//! Whole calls with real services on loopback, for behaviour after a panic and for hand-overs.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::admission::permission::Consents;
use crate::admission::{AccountSpec, Directory, Gate, NumberSpec, Pressure};
use crate::answer::{AT_ONCE_PER_HOST, Fetcher, Notifier, RandomSource, SigningKeys};
use crate::call::handover::{CallSnapshot, IncomingCall, SuspendedCall};
use crate::call::recordings::RecordingRequest;
use crate::call::rooms::{RoomChoice, Rooms};
use crate::call::{
    CallSettings, Outbox, OutboxLimits, PermissionService, Recordings, RecordingsConfig,
    RejectThread, farewell,
};
use crate::meta::{Graph, GraphConfig};
use crate::stream::Streams;
use egress::testing::{Reply, Server, egress, open_guard};
use machine::{
    CallbackKind, CallbackRequest, Command, MachineLimits, MediaEvent, RecordingOrder, RoomKind,
};
use media::{Media, MediaConfig, Mixer};
use model::Clock;
use model::Health;
use model::Method;
use model::Secret;
use model::{Digit, Leg};
use speech::config::SpeechConfig;
use speech::library::Library;
use speech::recognise::Recognisers;
use store::{FaultInjector, Scope, Store, StoreOptions, StorePart};
use uuid::Uuid;
use xml::ast::{DocUrl, Target};

const MAIN: &str = "MAAAAAAAAAAAAAAAAAAA";
const PHONE_NUMBER_ID: &str = "106540352242922";

/// A document that answers the call when its media is up.
const ANSWER: &str = "<Response><DTMF>9</DTMF><Wait length=\"60\"/></Response>";

struct World {
    registry: Registry,
    services: Arc<Services>,
    directory: Arc<Directory>,
    gate: Arc<Gate>,
    graph: Server,
    app: Server,
    _folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let world = Self::with_failing_store(Arc::new(|_| false)).await;
        tokio::spawn(farewell::send_pending(
            world.services.clone(),
            world.directory.clone(),
            CancellationToken::new(),
        ));
        world
    }

    /// Without the task that ends calls at Meta later.
    async fn with_failing_store(fail: FaultInjector) -> Self {
        let clock = Clock::real();
        let graph = Server::start(|_| {
            Reply::ok(r#"{"messaging_product":"whatsapp","success":true}"#.as_bytes().to_vec())
        })
        .await;
        let app = Server::start(|seen| match seen.target.as_str() {
            "/answer" => Reply::ok(ANSWER.as_bytes().to_vec()),
            _ => Reply::status(200),
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let options =
            StoreOptions { fail: Some(fail), ..StoreOptions::with_journal_in(folder.path()) };
        let file = folder.path().join("o.db");
        let store = Store::open_with(file.as_path(), options, Health::new()).await.unwrap();
        let directory = Arc::new(Directory::new(100));
        let url = |path: &str| Some((DocUrl(app.url(path).into()), Method::Post));
        let number = NumberSpec {
            answer: url("/answer"),
            hangup: url("/hangup"),
            calls_per_number: 2,
            ..NumberSpec::for_tests("918035737458", PHONE_NUMBER_ID, MAIN)
        };
        let tokens = vec![Secret::new("token")];
        let account = AccountSpec { auth_id: MAIN.into(), parent: None, cps: None, tokens };
        directory.replace(vec![account], vec![number]).unwrap();
        let media = MediaConfig {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            max_ports: 1,
            turn: None,
            public_ips: vec![Ipv4Addr::LOCALHOST.into()],
            shards: 1,
            media_dead: Duration::from_secs(30),
            loopback_offers: false,
            inherited: Vec::new(),
        };
        let out = egress(open_guard(), Vec::new());
        let (random, node_id) = (RandomSource::system(), "node".to_owned());
        let runtime = tokio::runtime::Handle::current();
        let notifier = Notifier::new(out.clone(), clock.clone(), random.clone(), AT_ONCE_PER_HOST);
        let outbox = OutboxLimits::default();
        let outbox = Outbox::new(
            store.clone(),
            notifier.clone(),
            directory.clone(),
            clock.clone(),
            node_id.clone(),
            outbox,
        );
        let graph_client = Arc::new(
            Graph::new(GraphConfig::new(graph.url(""), Secret::new("t")), clock.clone()).unwrap(),
        );
        let media = Media::start(media, clock.clone()).unwrap();
        let recordings = {
            let data_dir = folder.path().to_owned();
            let (base_url, node_id) = ("http://node".to_owned(), node_id.clone());
            let recognisers = Recognisers::new(&SpeechConfig::default()).unwrap();
            let made = RecordingsConfig {
                data_dir,
                base_url,
                node_id,
                threads: 1,
                copies: None,
                recognisers,
                link_lifetime: None,
                space: crate::disk_space::DiskSpace::new(
                    folder.path(),
                    None,
                    Box::new(|| false),
                    clock.clone(),
                ),
            };
            let (store, outbox, clock) = (store.clone(), outbox.clone(), clock.clone());
            Recordings::start(made, store, outbox, clock, random.clone(), TaskTracker::new())
                .unwrap()
        };
        let services = Arc::new(Services {
            clock: clock.clone(),
            feed: crate::feed::Feed::new(),
            random: random.clone(),
            node_id,
            pressure: Pressure::new(Health::new(), clock.now()),
            rooms: crate::call::rooms::Rooms::silent(clock.clone()),
            seats: None,
            media,
            sounds: Library::new(
                SpeechConfig::default(),
                clock.clone(),
                runtime,
                Arc::new(out.clone()),
            )
            .unwrap(),
            recognisers: Recognisers::new(&SpeechConfig::default()).unwrap(),
            permissions: PermissionService::new(
                graph_client.clone(),
                Arc::new(Consents::new()),
                clock.clone(),
            ),
            graph: graph_client,
            rejects: RejectThread::start().unwrap(),
            streams: Streams::new(out.clone(), clock.clone(), random.clone(), TaskTracker::new()),
            fetcher: Fetcher::new(out, clock.clone(), random),
            notifier,
            outbox,
            author: Arc::new(crate::call::author::NoAuthor),
            notices: crate::notices::Notices::new(
                store.clone(),
                crate::feed::Feed::new(),
                clock.clone(),
            ),
            store,
            phones: crate::call::phones::Phones::default(),
            recordings,
            news: std::sync::OnceLock::new(),
            traces: None,
            settings: ArcSwap::from_pointee(CallSettings {
                limits: MachineLimits::default(),
                max_body: 102_400,
            }),
            tasks: TaskTracker::new(),
        });
        let gate = Arc::new(Gate::new(directory.clone(), clock.now()));
        Self {
            registry: Registry::new(services.clone(), gate.clone()),
            services,
            directory,
            gate,
            graph,
            app,
            _folder: folder,
        }
    }

    fn call(&self, wacid: &str, caller_name: &str) -> Arc<LiveCall> {
        let clock = &self.services.clock;
        let sdp = include_str!("../../../../fixtures/meta/sdp/offer_relay_full.sdp")
            .replace("198.51.100.62", "127.0.0.1");
        let offer = |_: &_| Offer::parse(&sdp, true).map_err(|_| Reason::BadOffer);
        let id: PhoneNumberId = PHONE_NUMBER_ID.into();
        let (admitted, offer) =
            self.gate.admit(clock.now(), &id, Direction::Inbound, offer).unwrap();
        let incoming = Incoming {
            key: CallKey { phone_number_id: id, wacid: wacid.into() },
            call: None,
            from: "919412341234".to_owned(),
            caller_name: caller_name.to_owned(),
            cta_payload: None,
            deeplink_payload: None,
            offer,
            received: clock.now(),
            arrived: clock.now(),
            arrived_wall: clock.wall(),
        };
        let room = self.registry.room(admitted.number()).unwrap();
        self.registry.start(room, admitted, incoming).unwrap();
        self.registry.list().into_iter().find(|c| c.setup.wacid == Some(wacid.into())).unwrap()
    }

    fn slots(&self) -> u32 {
        self.gate.directory().slots_in_use()[0].1
    }
}

#[tokio::test]
async fn r03_a_panic_inside_one_call_ends_that_call_only() {
    let world = World::new().await;
    let other = world.call("wacid.other", "Asha");
    let broken = world.call("wacid.broken", crate::call::PANICS);
    assert_eq!(world.slots(), 2);
    // The two answer requests and the hangup callback of the broken call.
    world.app.until_seen(3).await;
    let hangup = world.app.seen().into_iter().find(|s| s.target == "/hangup").unwrap();
    let body = String::from_utf8(hangup.body.to_vec()).unwrap();
    assert!(body.contains(&format!("CallUUID={}", broken.setup.call)), "{body}");
    assert!(body.contains("HangupCauseCode=5010") && body.contains("HangupSource=Error"), "{body}");
    let scope = Scope::of(MAIN.into());
    let record =
        world.services.store.calls().get(&scope, broken.setup.call).await.unwrap().unwrap();
    assert_eq!(record.end.unwrap().cause, "internal_error");
    let terminate = async {
        for requests in 1.. {
            world.graph.until_seen(requests).await;
            let seen = world.graph.seen();
            let body = String::from_utf8(seen[requests - 1].body.to_vec()).unwrap();
            if body.contains("wacid.broken") && body.contains("terminate") {
                return;
            }
        }
    };
    terminate.await;

    while world.registry.get(broken.setup.call).is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.slots(), 1, "its slot is free, the other's is not");
    assert!(
        !other.is_closing() && world.registry.get(other.setup.call).is_some(),
        "the other goes on"
    );
    assert_eq!(other.command(Command::Hangup), crate::call::SendOutcome::Delivered);
    assert_eq!(world.registry.until_empty(Duration::from_secs(20)).await, 0);
    assert_eq!(world.slots(), 0);
    world.app.until_seen(4).await;
}

/// Graph's answer may come before, while, or after the record of the call is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_request_that_ends_a_call_is_settled_whenever_graph_answers() {
    let world = World::new().await;
    let Services { store, clock, node_id, .. } = &*world.services;
    for n in 0..20 {
        let call = world.call(&format!("wacid.{n}"), "Asha");
        assert_eq!(call.command(Command::Hangup), crate::call::SendOutcome::Delivered);
        assert_eq!(world.registry.until_empty(Duration::from_secs(20)).await, 0);
    }
    let later = clock.steady().plus(Duration::from_secs(3_600));
    let settled = async {
        while !store.calls().due_farewells(node_id, later, 100).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), settled).await.expect("all are settled");
}

#[tokio::test]
async fn a_pending_termination_is_sent_once_while_the_database_rejects_writes() {
    let fails = Arc::new(AtomicBool::new(false));
    let flag = fails.clone();
    let fail: FaultInjector =
        Arc::new(move |part| part == StorePart::Store && flag.load(Ordering::SeqCst));
    let world = World::with_failing_store(fail).await;
    let store = &world.services.store;
    let call = world.call("wacid.ended", "Asha");
    assert_eq!(call.command(Command::Hangup), crate::call::SendOutcome::Delivered);
    assert_eq!(world.registry.until_empty(Duration::from_secs(20)).await, 0);
    let terminations = || {
        let bodies = world.graph.seen().into_iter().map(|seen| seen.body);
        bodies.filter(|body| String::from_utf8_lossy(body).contains("terminate")).count()
    };
    let later = world.services.clock.steady().plus(Duration::from_secs(3_600));
    let is_pending = async || {
        !store.calls().due_farewells(&world.services.node_id, later, 1).await.unwrap().is_empty()
    };
    let scope = Scope::of(MAIN.into());
    let has_ended = async || {
        let record = store.calls().get(&scope, call.setup.call).await.unwrap();
        record.is_some_and(|record| record.end.is_some())
    };
    while !has_ended().await || is_pending().await {
        tokio::task::yield_now().await;
    }
    let at_its_end = terminations();
    // As if the request at its end had failed.
    store.calls().set_wacid(call.setup.call, "wacid.ended".into(), Timestamp::from_micros(0));
    store.flush().await;
    fails.store(true, Ordering::SeqCst);

    let mut outcomes = farewell::Outcomes::new();
    for _ in 0..3 {
        let sent = farewell::send_all(&world.services, &world.directory, &mut outcomes);
        let sent = tokio::time::timeout(Duration::from_secs(20), sent).await;
        sent.expect("it ends").unwrap();
        assert_eq!(terminations(), at_its_end + 1);
    }
    assert!(store.is_journalling());

    fails.store(false, Ordering::SeqCst);
    store.until_database_works().await;
    farewell::send_all(&world.services, &world.directory, &mut outcomes).await.unwrap();
    assert_eq!(terminations(), at_its_end + 1);
    assert!(outcomes.is_empty(), "nothing to remember of a call that the store has as settled");
}

#[tokio::test]
async fn a_request_is_cancelled_unless_its_call_was_answered() {
    let world = World::new().await;
    let ringing = world.call("wacid.ringing", "Asha");
    assert!(ringing.cancel().await);
    assert!(!ringing.cancel().await, "it has ended");
    assert_eq!(world.registry.until_empty(Duration::from_secs(20)).await, 0);

    let call = world.call("wacid.answered", "Asha");
    // Answered, as far as the API does not know yet.
    call.mailbox.tell(Input::Media { leg: Leg::A, event: MediaEvent::Connected });
    drop(suspend(&world).await);
    assert!(call.is_answered() && !call.cancel().await);
    assert!(!call.is_closing(), "it goes on");
}

/// Rotates the account's token: `newer` signs beside the one before.
fn rotate(world: &World, newer: &str) -> SigningKeys {
    let tokens = vec![Secret::new(newer), Secret::new("token")];
    let keys = SigningKeys::of_main(&tokens);
    let number = world.directory.number(&PHONE_NUMBER_ID.into()).unwrap();
    let account = AccountSpec { auth_id: MAIN.into(), parent: None, cps: None, tokens };
    world.directory.replace(vec![account], vec![number.spec.clone()]).unwrap();
    keys
}

#[tokio::test]
async fn requests_of_a_live_call_are_signed_with_the_current_tokens() {
    let world = World::new().await;
    let call = world.call("wacid.rotated", "Asha");
    call.mailbox.tell(Input::Media { leg: Leg::A, event: MediaEvent::Connected });
    drop(suspend(&world).await);
    let keys = rotate(&world, "newer");
    let url = DocUrl(world.app.url("/transferred").into());
    let aleg = Some(Target { url, method: Method::Post });
    let sent = call.command(Command::Transfer { aleg, bleg: None });
    assert_eq!(sent, crate::call::SendOutcome::Delivered);
    // The response is no document, which ends the call.
    world.app.until_seen(3).await;
    let seen = world.app.seen();
    let targets: Vec<_> = seen.iter().map(|request| request.target.as_str()).collect();
    assert_eq!(targets, ["/answer", "/transferred", "/hangup"]);
    for (seen, count) in seen.iter().zip([1, 2, 2]) {
        let form: Vec<_> = url::form_urlencoded::parse(&seen.body).into_owned().collect();
        let pairs: Vec<_> = form.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let nonce = seen.header("x-plivo-signature-v3-nonce").to_owned();
        let url = world.app.url(&seen.target);
        for (name, value) in crate::answer::sign(Method::Post, &url, &pairs, &keys, nonce) {
            let signed = seen.header(name.as_str());
            match count {
                2 => assert_eq!(signed, value, "{name} of {url}"),
                _ => assert!(!signed.contains(','), "{name} of {url}"),
            }
        }
    }
}

#[tokio::test]
async fn a_room_can_be_recorded_again_after_a_recording_that_ended_by_itself() {
    let world = World::new().await;
    let call = world.call("wacid.recorded", "Asha");
    let (services, setup) = (&world.services, &call.setup);
    let mixing = services.clone();
    let rooms = Rooms::new(
        services.clock.clone(),
        move |sink| Mixer::start(mixing.media.mixers(), sink),
        |_, _| media::prompt::Prompt::from_frames([]),
    );
    let entry = serde_json::json!({"kind": "conference", "name": "Sales", "starts": true,
        "stays_alone": true, "members_max": 20});
    let entry = serde_json::from_value(entry).unwrap();
    let [theirs, _ours] = media::cable(services.media.mixers(), [1, 1]).unwrap();
    let room = RoomChoice::OpenOr(Uuid::from_u128(1));
    assert!(rooms.enter(setup, entry, &call.mailbox, || theirs, room));
    let order = RecordingOrder {
        id: None,
        held: false,
        mp3: false,
        stereo: false,
        peer_only: false,
        max_ms: 100,
        silence_ms: None,
        callback: Some(CallbackRequest {
            kind: CallbackKind::Recording,
            url: DocUrl(world.app.url("/recorded").into()),
            method: Method::Post,
            params: Default::default(),
        }),
        action: None,
        transcript: None,
    };
    let request = RecordingRequest {
        id: Uuid::from_u128(2),
        started: services.clock.wall(),
        state: None,
        account: MAIN.into(),
        main_account: MAIN.into(),
        call: setup.call,
        room: None,
        order: order.clone(),
        keys: call.keys.clone(),
        action: None,
        answered: Box::new(|| None),
        is_up: Box::new(|| true),
    };
    let url = "http://node/recordings/2.wav".to_owned();
    rooms.record(&services.recordings, request, url.clone(), true).unwrap();
    // The answer URL is requested, too.
    world.app.until_seen(2).await;
    let scope = Scope::of(MAIN.into());
    let kind = RoomKind::Conference;
    assert_eq!(rooms.find(&scope, kind, "Sales").unwrap().recording, Some(url));
    assert_eq!(rooms.begin_recording(&scope, kind, "Sales", order, None), Some(true));
}

/// Suspends the only call.
async fn suspend(world: &World) -> SuspendedCall {
    let mut calls = world.registry.suspend_all(Duration::from_secs(20)).await.unwrap();
    calls.pop().expect("a call")
}

/// A snapshot as it arrives in the other process.
fn crossed(snapshot: &CallSnapshot) -> CallSnapshot {
    serde_json::from_str(&serde_json::to_string(snapshot).unwrap()).unwrap()
}

#[tokio::test]
async fn a_snapshot_of_an_earlier_build_counts_no_callbacks() {
    let world = World::new().await;
    let call = world.call("wacid.earlier", "Asha");
    call.mailbox.tell(Input::Media { leg: Leg::A, event: MediaEvent::Connected });
    let mut snapshot = serde_json::to_value(&suspend(&world).await.snapshot).unwrap();
    snapshot.as_object_mut().unwrap().remove("callbacks").unwrap();
    assert_eq!(serde_json::from_value::<CallSnapshot>(snapshot).unwrap().callbacks, 0);
}

#[tokio::test]
async fn a_suspended_call_goes_on_here_or_in_another_process() {
    let world = World::new().await;
    let clock = &world.services.clock;
    let call = world.call("wacid.moved", "Asha");
    let connected = MediaEvent::Connected;
    call.mailbox.tell(Input::Media { leg: Leg::A, event: connected });
    let suspended = suspend(&world).await;
    assert!(call.is_answered(), "the set-up is complete");
    // Inputs wait meanwhile.
    let lines = call.log.snapshot().len();
    let digit = |key: char| Input::Digit { leg: Leg::A, digit: Digit::try_from(key).unwrap() };
    call.mailbox.tell(digit('1'));
    tokio::task::yield_now().await;
    assert_eq!(call.log.snapshot().len(), lines);
    assert!(suspended.leg().is_some());
    drop(suspended);
    assert!(world.registry.staying_calls(Duration::from_secs(20)).await.is_empty());
    assert_eq!(call.log.snapshot().len(), lines + 1, "the call has resumed");

    let mut suspended = suspend(&world).await;
    let mut snapshot = crossed(&suspended.snapshot);
    snapshot.callbacks = 7;
    let mut incoming = IncomingCall::rebuild(snapshot, clock).unwrap();
    call.mailbox.tell(digit('2'));
    suspended.leave();
    suspended.has_left(&crate::stream::Relays::listen().unwrap()).await;
    assert_eq!(world.registry.until_empty(Duration::from_secs(20)).await, 0);
    assert_eq!(world.slots(), 0, "the process that takes over counts the call");
    let leftover = serde_json::to_string(&suspended.leftover).unwrap();
    incoming.complete(serde_json::from_str(&leftover).unwrap());
    // Nothing reports the end of the call.
    assert!(world.app.seen().iter().all(|request| request.target == "/answer"));

    world.registry.resume(vec![incoming], Vec::new(), &[]);
    assert_eq!(world.slots(), 1);
    let same = world.registry.get(call.setup.call).unwrap();
    assert_eq!(same.setup, call.setup);
    assert_eq!((same.wacid(), same.answered()), (call.wacid(), call.answered()));
    let skew = same.arrived.max(call.arrived).duration_since(same.arrived.min(call.arrived));
    assert!(skew < Duration::from_millis(100), "the call's time has jumped by {skew:?}");
    assert_eq!(suspend(&world).await.snapshot.callbacks, 7, "their limit is the call's");
    assert_eq!(same.command(Command::Hangup), crate::call::SendOutcome::Delivered);
    // Meta confirms the end.
    let key = CallKey { phone_number_id: PHONE_NUMBER_ID.into(), wacid: "wacid.moved".into() };
    let ended = crate::call::CallEvent::Terminated(machine::Termination::default());
    assert_eq!(world.registry.event(&key, None, ended), EventOutcome::Delivered);
    assert_eq!(world.registry.until_empty(Duration::from_secs(20)).await, 0);
    assert_eq!(world.slots(), 0);
    let lines = same.log.snapshot();
    let of = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((of("\"digit\":\"1\""), of("\"digit\":\"2\"")), (1, 1), "{lines:#?}");
    let log = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let replayed = machine::replay::replay(log.as_bytes(), |_| {}).unwrap();
    assert_eq!((replayed.difference, replayed.over), (None, true));
    world.app.until_seen(2).await;
    let targets: Vec<_> = world.app.seen().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/answer", "/hangup"]);
}

#[tokio::test]
async fn an_a_leg_that_does_not_go_on_ends_its_b_leg() {
    let world = World::new().await;
    let [a_leg, b_leg] = ["wacid.a", "wacid.b"].map(|wacid| {
        let call = world.call(wacid, "Asha");
        call.mailbox.tell(Input::Media { leg: Leg::A, event: MediaEvent::Connected });
        call.setup.call
    });
    world.registry.get(a_leg).unwrap().legs.lock().unwrap().push(b_leg);
    let mut suspended = world.registry.suspend_all(Duration::from_secs(20)).await.unwrap();
    let relays = crate::stream::Relays::listen().unwrap();
    let mut incoming = Vec::new();
    for one in &mut suspended {
        let clock = &world.services.clock;
        incoming.push(IncomingCall::rebuild(crossed(&one.snapshot), clock).unwrap());
        one.leave();
        one.has_left(&relays).await;
    }
    assert_eq!(world.registry.until_empty(Duration::from_secs(20)).await, 0);
    // The A-leg has left without ending its B-leg.
    assert!(world.app.seen().iter().all(|request| request.target == "/answer"));

    let (dropped, resumed): (Vec<_>, Vec<_>) =
        incoming.into_iter().partition(|call| call.call() == a_leg);
    world.registry.resume(resumed, Vec::new(), &dropped);
    assert!(world.registry.get(a_leg).is_none());
    let key = CallKey { phone_number_id: PHONE_NUMBER_ID.into(), wacid: "wacid.b".into() };
    let ended = crate::call::CallEvent::Terminated(machine::Termination::default());
    assert_eq!(world.registry.event(&key, None, ended), EventOutcome::Delivered);
    assert_eq!(world.registry.until_empty(Duration::from_secs(20)).await, 0);
    // Two answer requests and a hangup callback.
    world.app.until_seen(3).await;
    let record = world.services.store.calls().get(&Scope::of(MAIN.into()), b_leg).await;
    assert_eq!(record.unwrap().unwrap().end.unwrap().cause, "dial_ended");
}

#[tokio::test]
async fn a_call_that_cannot_be_rebuilt_is_refused() {
    let world = World::new().await;
    let call = world.call("wacid.other", "Asha");
    call.mailbox.tell(Input::Media { leg: Leg::A, event: MediaEvent::Connected });
    let suspended = suspend(&world).await;
    let refused = |change: &dyn Fn(&mut CallSnapshot)| {
        let mut snapshot = crossed(&suspended.snapshot);
        change(&mut snapshot);
        IncomingCall::rebuild(snapshot, &world.services.clock).unwrap_err().to_string()
    };
    let other_decision = refused(&|snapshot| {
        for line in &mut snapshot.log {
            *line = line.replace("pre_accept", "reject").into();
        }
    });
    assert!(other_decision.contains("decides differently at line"), "{other_decision}");
    let other_state = refused(&|snapshot| {
        snapshot.machine.insert("timers".to_owned(), Vec::new());
    });
    assert!(other_state.contains("timers"), "{other_state}");
    let cut = refused(&|snapshot| snapshot.log.truncate(0));
    assert!(cut.contains("empty"), "{cut}");
}

#[test]
fn r10_an_account_with_many_calls_leaves_room_for_others() {
    assert_eq!(share_of_live_calls(999, 19_999, true), Ok(()), "a small part of all");
    assert_eq!(share_of_live_calls(999, 19_999, false), Ok(()));
    assert_eq!(share_of_live_calls(1_000, 19_000, false), Err(Strain::Calls));
    assert_eq!(share_of_live_calls(9_999, 9_999, false), Ok(()));
    assert_eq!(share_of_live_calls(10_000, 10_000, false), Err(Strain::Calls));
    assert_eq!(share_of_live_calls(99, 99, true), Ok(()));
    assert_eq!(share_of_live_calls(100, 100, true), Err(Strain::Memory));
    assert_eq!(share_of_live_calls(100, 300, true), Ok(()));
}
