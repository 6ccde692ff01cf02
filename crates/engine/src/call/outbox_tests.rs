//! Tests with real HTTP servers on loopback and a store on disk.

use std::sync::atomic::{AtomicU32, Ordering};

use uuid::Uuid;

use super::*;
use crate::admission::AccountSpec;
use crate::answer::{AT_ONCE_PER_HOST, RandomSource};
use egress::testing::{Reply, Server, egress, open_guard};
use machine::{CallbackKind, CallbackRequest, Param};
use model::Secret;
use model::{CallUuid, Disk, Health, Method};
use store::{Archive, CallbackState, CallbackView, Callbacks, NewCallback, Rearm, rearm};
use store::{Database, FailedRequestFilter, Scope};
use xml::ast::DocUrl;

const MAIN: &str = "MAAAAAAAAAAAAAAAAAAA";

struct Room {
    folder: tempfile::TempDir,
}

/// An outbox on a store that outlives it.
struct Node {
    store: Store,
    outbox: Outbox,
}

impl Room {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    async fn node(&self, limits: OutboxLimits) -> Node {
        let store = Store::open(&self.folder.path().join("o.db"), Health::new()).await.unwrap();
        let directory = Directory::new(10);
        let tokens = vec![Secret::new("token")];
        directory
            .replace(
                vec![AccountSpec { auth_id: MAIN.into(), parent: None, cps: None, tokens }],
                Vec::new(),
            )
            .unwrap();
        let egress = egress(open_guard(), Vec::new());
        let notifier =
            Notifier::new(egress, Clock::real(), RandomSource::from_fn(|| 0), AT_ONCE_PER_HOST);
        let node_id = "node".to_owned();
        let outbox = Outbox::new(
            store.clone(),
            notifier,
            Arc::new(directory),
            Clock::real(),
            node_id,
            limits,
        );
        Node { store, outbox }
    }
}

impl Node {
    fn new_callback(&self, call: u128, event: u128, kind: CallbackKind, url: &str) -> NewCallback {
        let params = [("Digits".into(), Param::Secret("4711".to_owned()))].into();
        NewCallback {
            event_id: Uuid::from_u128(event),
            call: CallUuid(Uuid::from_u128(call)),
            account: MAIN.into(),
            main_account: MAIN.into(),
            node_id: "node".to_owned(),
            origin: self.outbox.queue(&MAIN.into(), url),
            notice: CallbackRequest { kind, url: DocUrl(url.into()), method: Method::Post, params },
            number_event: None,
            shut: None,
            created: Clock::real().steady(),
        }
    }

    /// Writes the row, then sends the callback, as a call does.
    async fn notify(&self, call: u128, event: u128, kind: CallbackKind, url: &str) {
        let written =
            self.store.outbox().insert(self.new_callback(call, event, kind, url)).await.unwrap();
        self.outbox.send(written, SigningKeys::of_main(&[Secret::new("token")]));
    }

    /// Simulates a kill: waits for nothing and writes nothing.
    async fn kill(self) {
        self.outbox.0.stopping.cancel();
        self.outbox.0.aborted.cancel();
        self.outbox.0.tasks.close();
        self.outbox.0.tasks.wait().await;
        self.store.close().await;
    }
}

fn events(server: &Server) -> Vec<u128> {
    server
        .seen()
        .iter()
        .map(|s| s.header("x-offhook-event-id").parse::<Uuid>().unwrap().as_u128())
        .collect()
}

#[tokio::test]
async fn callbacks_of_a_call_and_url_go_out_in_order_one_after_another() {
    let server = Server::start(|_| Reply::status(204)).await;
    let room = Room::new();
    let node = room.node(OutboxLimits::default()).await;
    node.outbox.start();
    for event in 0..40 {
        node.notify(event % 2, event, CallbackKind::Hangup, &server.url("/hangup")).await;
    }
    server.until_seen(40).await;
    for call in 0..2 {
        let of_call: Vec<u128> = events(&server).into_iter().filter(|e| e % 2 == call).collect();
        assert!(of_call.is_sorted() && of_call.len() == 20, "{of_call:?}");
    }
    assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
    assert_eq!(node.outbox.held(), 0);
    node.store.close().await;
}

#[tokio::test]
async fn r16_no_event_goes_to_a_webhook_of_another_account() {
    let server = Server::start(|_| Reply::status(204)).await;
    let room = Room::new();
    let node = room.node(OutboxLimits::default()).await;
    let webhook = |id: u128, account: &str| Webhook {
        id: Uuid::from_u128(id),
        account: account.into(),
        name: "crm".to_owned(),
        url: DocUrl(server.url("/hook").into()),
        secrets: [Secret::new("whsec")].into(),
        created: Timestamp::default(),
        in_file: false,
    };
    let (foreign, own) = (Arc::new(webhook(1, "MA9")), Arc::new(webhook(2, MAIN)));
    node.outbox
        .0
        .directory
        .message_routes()
        .change_webhooks(|all| all.extend([&foreign, &own].map(|w| (w.id, w.clone()))));
    for (event, webhook) in [(1, &foreign), (2, &own)] {
        node.notify(event, event, CallbackKind::Event, &format!("{WEBHOOK}{}", webhook.id)).await;
    }
    server.until_seen(1).await;
    assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
    assert_eq!(events(&server), [2]);
    node.store.close().await;
}

#[tokio::test]
async fn callbacks_of_a_deleted_subaccount_are_signed_by_its_main_account() {
    let server = Server::start(|_| Reply::status(204)).await;
    let room = Room::new();
    let node = room.node(OutboxLimits::default()).await;
    let mut callback = node.new_callback(1, 1, CallbackKind::Hangup, &server.url("/hangup"));
    callback.account = "SAGONEGONEGONEGONE00".into();
    node.store.outbox().insert(callback).await.unwrap();
    node.outbox.start();
    server.until_seen(1).await;
    let seen = server.seen();
    let (own, main) =
        (seen[0].header("x-plivo-signature-v3"), seen[0].header("x-plivo-signature-ma-v3"));
    assert!(!own.is_empty() && own == main, "{own} {main}");
    assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
    node.store.close().await;
}

/// Results of deliveries are stored twice a second, unless another callback waits for one.
#[tokio::test]
async fn a_callback_behind_another_one_follows_without_delay() {
    let server = Server::start(|_| Reply::status(200)).await;
    let room = Room::new();
    let node = room.node(OutboxLimits::default()).await;
    node.outbox.start();
    // A busy disk takes a part of the half second for each, too.
    let until_seen = async |count: u16| {
        let seen = server.until_seen(usize::from(count));
        let most = Duration::from_millis(300) * u32::from(count);
        tokio::time::timeout(most, seen).await.expect("one after another");
        assert!(events(&server).is_sorted());
    };
    for event in 0..60 {
        node.notify(1, event, CallbackKind::Message, &server.url("/message")).await;
    }
    until_seen(60).await;
    // The next process sends a callback again if its result was not stored.
    assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
    node.store.close().await;

    // Those of an earlier process, too.
    let node = room.node(OutboxLimits::default()).await;
    for event in 100..1_000 {
        let url = server.url("/message");
        let callback = node.new_callback(1, event, CallbackKind::Message, &url);
        node.store.outbox().insert(callback).await.unwrap();
    }
    node.outbox.start();
    until_seen(960).await;
    assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
    assert!(node.outbox.0.held().followed.is_empty());
    node.store.close().await;
}

#[tokio::test]
async fn r04_outbox_survives_kill() {
    let tries = Arc::new(AtomicU32::new(0));
    let counted = tries.clone();
    let server = Server::start(move |seen| match seen.target.as_str() {
        "/stuck" if counted.fetch_add(1, Ordering::SeqCst) == 0 => Reply::Never,
        "/down" if seen.header("x-offhook-attempt") == "1" => Reply::status(503),
        _ => Reply::status(200),
    })
    .await;
    let room = Room::new();
    let node = room.node(OutboxLimits::default()).await;
    // One in progress, one postponed, one written but not sent.
    node.notify(1, 1, CallbackKind::Hangup, &server.url("/stuck#rc=0")).await;
    node.notify(2, 2, CallbackKind::Hangup, &server.url("/down#rc=0")).await;
    server.until_seen(2).await;
    let unsent = node.new_callback(3, 3, CallbackKind::Hangup, &server.url("/unsent"));
    node.store.outbox().insert(unsent).await.unwrap();
    node.kill().await;

    let node = room.node(OutboxLimits::default()).await;
    node.outbox.start();
    server.until_seen(5).await;
    let mut seen = events(&server);
    seen.sort_unstable();
    assert_eq!(seen, [1, 1, 2, 2, 3], "each again with its identity, none lost");
    let body = |event: u128| {
        let event = Uuid::from_u128(event).to_string();
        let of: Vec<_> =
            server.seen().into_iter().filter(|s| s.header("x-offhook-event-id") == event).collect();
        assert!(of.iter().all(|s| s.body == "Digits=4711"), "the parameters are what they were");
        assert_ne!(of.first().unwrap().header("x-plivo-signature-v3-nonce"), "");
    };
    (1..=3).for_each(body);
    assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
    let now = Clock::real().steady();
    assert!(
        node.store.outbox().due_origins("node", now).await.unwrap().0.is_empty(),
        "all delivered"
    );
    node.store.close().await;
}

#[tokio::test]
async fn r08_callbacks_written_while_the_clock_was_ahead_are_sent_at_the_next_start() {
    let server = Server::start(|_| Reply::status(200)).await;
    let room = Room::new();
    let node = room.node(OutboxLimits::default()).await;
    let now = Clock::real().steady();
    for (event, ahead) in [(1, Duration::from_secs(86_400 * 365)), (2, Duration::from_secs(3_600))]
    {
        let mut callback =
            node.new_callback(event, event, CallbackKind::Hangup, &server.url("/hangup"));
        callback.created = now.plus(ahead);
        node.store.outbox().insert(callback).await.unwrap();
    }
    node.kill().await;

    let node = room.node(OutboxLimits::default()).await;
    node.outbox.start();
    server.until_seen(1).await;
    assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
    assert_eq!(events(&server), [1], "the other one may be a retry that is due in an hour");
    node.store.close().await;
    let at = Database::from(&room.folder.path().join("o.db"));
    let all = Archive::open(&at).await.unwrap().callbacks(Callbacks::All, 2).await.unwrap();
    let is_first = |one: &&CallbackView| matches!(one.state, CallbackState::Delivered { .. });
    let first = all.iter().find(is_first).unwrap();
    assert!(first.created < now.plus(Duration::from_secs(60)), "{first:?}");
}

/// Callbacks that fail must not fill the disk with records of their failures.
#[tokio::test]
async fn r11_failed_callbacks_are_not_listed_without_disk_space() {
    let server = Server::start(|_| Reply::status(404)).await;
    for (free, listed) in [(1 << 40, 1), (1, 0)] {
        let room = Room::new();
        let node = room.node(OutboxLimits::default()).await;
        let probe = move || Ok(Disk { size: 1 << 40, free });
        let several = Box::new(|| false);
        let space = DiskSpace::with_probe(Box::new(probe), None, several, Clock::real());
        node.outbox.set_space(space);
        node.notify(1, 1, CallbackKind::Hangup, &server.url("/gone")).await;
        server.until_seen(1).await;
        assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
        let scope = Scope::of(MAIN.into());
        let filter = FailedRequestFilter::default();
        let all = node.store.failed_requests().list(&scope, &filter, 10).await.unwrap();
        assert_eq!(all.len(), listed);
        node.store.close().await;
    }
}

/// A graceful stop that cuts off an attempt counts it as one of the callback's attempts.
#[tokio::test]
async fn r04_an_attempt_cut_off_by_a_stop_is_counted() {
    let server = Server::start(move |seen| match seen.header("x-offhook-attempt") {
        "1" => Reply::Never,
        _ => Reply::status(200),
    })
    .await;
    let room = Room::new();
    let node = room.node(OutboxLimits::default()).await;
    node.notify(1, 1, CallbackKind::Hangup, &server.url("/hangup")).await;
    node.notify(2, 2, CallbackKind::Action, &server.url("/twice#rc=1")).await;
    node.notify(3, 3, CallbackKind::Action, &server.url("/once#rc=0")).await;
    server.until_seen(3).await;
    let before = Clock::real().steady();
    assert_eq!(node.outbox.drain(Duration::ZERO).await, 3);
    node.store.close().await;
    let at = Database::from(&room.folder.path().join("o.db"));
    let archive = Archive::open(&at).await.unwrap();
    let mut rows = archive.callbacks(Callbacks::All, 9).await.unwrap();
    rows.sort_by_key(|row| row.id);
    let states: Vec<_> = rows.iter().map(|row| (row.attempts, row.state.as_str())).collect();
    assert_eq!(states, [(1, "waiting"), (1, "waiting"), (1, "failed")]);
    assert!(rows.iter().all(|row| row.last.contains("stopped")), "{rows:?}");
    match rows.first().unwrap().state {
        CallbackState::Waiting { due } => {
            assert!(due.since(before) >= Duration::from_millis(800), "the schedule's first pause");
        }
        state => panic!("{state:?}"),
    }

    let node = room.node(OutboxLimits::default()).await;
    node.outbox.start();
    server.until_seen(5).await;
    while !archive.callbacks(Callbacks::Waiting, 9).await.unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
    let mut sent: Vec<_> = server
        .seen()
        .into_iter()
        .map(|s| (s.target.clone(), s.header("x-offhook-attempt").to_owned()))
        .collect();
    sent.sort();
    let sent: Vec<_> = sent.iter().map(|(to, attempt)| (to.as_str(), attempt.as_str())).collect();
    assert_eq!(
        sent,
        [("/hangup", "1"), ("/hangup", "2"), ("/once", "1"), ("/twice", "1"), ("/twice", "2")]
    );
    node.store.close().await;
}

/// A callback that waited for a connection slot of its host was not in progress.
#[tokio::test]
async fn a_stop_leaves_waiting_callbacks_due_unchanged() {
    let hole = Server::start(|_| Reply::Never).await;
    let room = Room::new();
    let node = room.node(OutboxLimits::default()).await;
    for event in 0..40 {
        node.notify(event, event, CallbackKind::Hangup, &hole.url("/hangup")).await;
    }
    hole.until_seen(AT_ONCE_PER_HOST).await;
    assert_eq!(node.outbox.drain(Duration::ZERO).await, 40);
    node.store.close().await;
    let at = Database::from(&room.folder.path().join("o.db"));
    let rows = Archive::open(&at).await.unwrap().callbacks(Callbacks::Waiting, 99).await.unwrap();
    let begun = rows.iter().filter(|row| row.attempts == 1).count();
    assert_eq!((rows.len(), begun), (40, AT_ONCE_PER_HOST));
    assert!(rows.iter().all(|row| row.attempts == u32::from(!row.last.is_empty())), "{rows:?}");
}

#[tokio::test]
async fn r04_a_black_hole_delays_no_other_host() {
    let hole = Server::start(|_| Reply::Never).await;
    let alive = Server::start(|_| Reply::status(200)).await;
    let room = Room::new();
    let node = room.node(OutboxLimits::default()).await;
    let waiting: Vec<_> = (0..10_000)
        .map(|event| {
            node.store.outbox().insert(node.new_callback(
                event,
                event,
                CallbackKind::Hangup,
                &hole.url("/hangup"),
            ))
        })
        .collect();
    for written in waiting {
        written.await.unwrap();
    }
    node.outbox.start();
    hole.until_seen(32).await;
    let mut waits = Vec::new();
    for event in 10_000..10_100 {
        let begun = Clock::real().now();
        node.notify(event, event, CallbackKind::Hangup, &alive.url("/hangup")).await;
        alive.until_seen(usize::try_from(event - 9_999).unwrap()).await;
        waits.push(Clock::real().now().duration_since(begun));
    }
    waits.sort();
    assert!(waits[98] < Duration::from_millis(500), "p99 {:?}", waits[98]);
    assert!(hole.connections() <= 32, "{} at once", hole.connections());
    // Rows of the live host may still be in the write queue.
    assert!(node.outbox.held() <= 64 + 100, "the rest waits in the store: {}", node.outbox.held());
    node.outbox.drain(Duration::from_millis(50)).await;
    node.store.close().await;
}

#[tokio::test]
async fn r04_an_account_with_slow_callbacks_delays_no_other_at_the_same_host() {
    let host = Server::start(|request| match request.target.starts_with("/slow") {
        true => Reply::Never,
        false => Reply::status(200),
    })
    .await;
    let room = Room::new();
    let node = room.node(OutboxLimits::default()).await;
    node.outbox.start();
    for event in 0..200 {
        node.notify(event, event, CallbackKind::Hangup, &host.url("/slow")).await;
    }
    host.until_seen(AT_ONCE_PER_HOST).await;
    let url = host.url("/hangup");
    let other = AuthId::from("MAOTHER");
    let callback = NewCallback {
        account: other.clone(),
        origin: node.outbox.queue(&other, &url),
        main_account: other,
        ..node.new_callback(1_000, 1_000, CallbackKind::Hangup, &url)
    };
    let written = node.store.outbox().insert(callback).await.unwrap();
    node.outbox.send(written, SigningKeys::of_main(&[Secret::new("token")]));
    host.until_seen(AT_ONCE_PER_HOST + 1).await;
    assert_eq!(host.seen().last().unwrap().target, "/hangup");
    node.outbox.drain(Duration::ZERO).await;
    node.store.close().await;
}

#[tokio::test]
async fn many_dead_hosts_leave_space_for_a_live_one() {
    let room = Room::new();
    let limits = OutboxLimits { held: 40, held_per_host: 8, ..OutboxLimits::default() };
    let node = room.node(limits).await;
    node.outbox.start();
    let mut holes = Vec::new();
    for _ in 0..20 {
        holes.push(Server::start(|_| Reply::Never).await);
    }
    let dead = |n: u128| {
        let url = holes[usize::try_from(n % 20).unwrap()].url("/");
        let node = &node;
        async move { node.notify(n, n, CallbackKind::Hangup, &url).await }
    };
    futures_util::future::join_all((0..160).map(dead)).await;
    assert!(node.outbox.held() < 40, "{}", node.outbox.held());
    let alive = Server::start(|_| Reply::status(200)).await;
    for event in 0..5 {
        node.notify(1_000 + event, event, CallbackKind::Hangup, &alive.url("/")).await;
    }
    alive.until_seen(5).await;
    node.outbox.drain(Duration::from_millis(50)).await;
    node.store.close().await;
}

#[tokio::test]
async fn the_dead_hosts_of_one_account_take_its_own_share_of_the_memory_only() {
    let room = Room::new();
    let limits =
        OutboxLimits { held: 400, held_per_account: 40, held_per_host: 8, ..Default::default() };
    let node = room.node(limits).await;
    node.outbox.start();
    let mut holes = Vec::new();
    for _ in 0..60 {
        holes.push(Server::start(|_| Reply::Never).await);
    }
    let dead = |n: u128| {
        let url = holes[usize::try_from(n % 60).unwrap()].url("/");
        let node = &node;
        async move { node.notify(n, n, CallbackKind::Hangup, &url).await }
    };
    futures_util::future::join_all((0..240).map(dead)).await;
    assert_eq!(node.outbox.held(), 40);
    let held = || node.outbox.0.held().of_account.clone();
    assert_eq!(held(), [(MAIN.to_owned(), 40)].into());
    node.outbox.drain(Duration::from_millis(50)).await;
    assert_eq!(held(), [].into());
    node.store.close().await;
}

#[tokio::test]
async fn events_of_an_account_are_dropped_while_too_many_of_its_callbacks_wait() {
    let room = Room::new();
    let limits = OutboxLimits { waiting_per_account: 10, ..OutboxLimits::default() };
    let node = room.node(limits).await;
    let (own, other) = (AuthId::from(MAIN), AuthId::from("MAOTHER"));
    let server = Server::start(|_| Reply::status(200)).await;
    for event in 0..10 {
        assert!(node.outbox.admits_event(&own));
        let callback = node.new_callback(1, event, CallbackKind::Stream, &server.url("/events"));
        node.store.outbox().insert(callback).await.unwrap();
    }
    while node.outbox.admits_event(&own) {
        tokio::task::yield_now().await;
    }
    assert!(node.outbox.admits_event(&other), "another account's server may answer");
    node.outbox.start();
    server.until_seen(10).await;
    // The count is repeated after a second.
    while !node.outbox.admits_event(&own) {
        tokio::task::yield_now().await;
    }
    node.outbox.drain(Duration::from_secs(5)).await;
    node.store.close().await;
}

#[tokio::test]
async fn r04_an_operator_redelivers_failed_callbacks() {
    let server = Server::start(|seen| match seen.header("x-offhook-attempt") {
        "1" => Reply::status(410),
        _ => Reply::status(200),
    })
    .await;
    let room = Room::new();
    let file = room.folder.path().join("o.db");
    let now = Clock::real().steady();
    let no_store = Database::File(file.clone());
    assert!(rearm(&no_store, Rearm::AllFailed, now).await.is_err(), "no store yet");
    let at = Database::from(&file);
    let node = room.node(OutboxLimits::default()).await;
    node.outbox.start();
    node.notify(1, 1, CallbackKind::Hangup, &server.url("/hangup")).await;
    node.notify(2, 2, CallbackKind::Action, &server.url("/action")).await;
    let archive = Archive::open(&at).await.unwrap();
    while archive.callbacks(Callbacks::Failed, 9).await.unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rearm(&at, Rearm::One("no-such-id"), now).await.unwrap(), 0);
    // The first by its event id while the node runs, the second with `AllFailed`.
    let event = Uuid::from_u128(1);
    assert_eq!(rearm(&at, Rearm::One(&event.to_string().to_uppercase()), now).await.unwrap(), 1);
    server.until_seen(3).await;
    let failed = archive.callbacks(Callbacks::Failed, 9).await.unwrap();
    assert_eq!(
        failed.iter().map(|c| (c.event_id.as_str(), c.attempts)).collect::<Vec<_>>(),
        [(Uuid::from_u128(2).to_string().as_str(), 1)]
    );
    assert_eq!(rearm(&at, Rearm::AllFailed, now).await.unwrap(), 1);
    server.until_seen(4).await;
    let seen = server.seen();
    let sent =
        seen.iter().map(|s| (s.target.as_str(), s.header("x-offhook-attempt"))).collect::<Vec<_>>();
    assert_eq!(sent[2..], [("/hangup", "2"), ("/action", "2")]);
    assert!(
        seen[2].header("x-offhook-event-id") == event.to_string() && seen[2].body == "Digits=4711"
    );
    while !archive
        .callbacks(Callbacks::All, 9)
        .await
        .unwrap()
        .iter()
        .all(|c| c.state.as_str() == "delivered")
    {
        tokio::task::yield_now().await;
    }
    assert_eq!(
        rearm(&at, Rearm::One(&event.to_string()), now).await.unwrap(),
        0,
        "what was delivered stays so"
    );
    assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
    node.store.close().await;
}

#[tokio::test]
async fn r22_callbacks_sealed_with_another_key_are_not_sent() {
    let server = Server::start(|_| Reply::status(200)).await;
    let room = Room::new();
    let (file, key) = (room.folder.path().join("o.db"), room.folder.path().join("store.key"));
    let node = room.node(OutboxLimits::default()).await;
    node.store
        .outbox()
        .insert(node.new_callback(1, 1, CallbackKind::Hangup, &server.url("/hangup")))
        .await
        .unwrap();
    node.kill().await;
    let ours = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();

    let node = room.node(OutboxLimits::default()).await;
    node.outbox.start();
    let at = Database::from(&file);
    let archive = Archive::open(&at).await.unwrap();
    let failed = loop {
        let failed = archive.callbacks(Callbacks::Failed, 9).await.unwrap();
        match failed.first() {
            Some(failed) => break failed.clone(),
            None => tokio::task::yield_now().await,
        }
    };
    assert!(failed.last.contains("store.secret_key"), "{}", failed.last);
    node.kill().await;
    assert!(server.seen().is_empty());

    std::fs::write(&key, ours).unwrap();
    let node = room.node(OutboxLimits::default()).await;
    node.outbox.start();
    assert_eq!(rearm(&at, Rearm::AllFailed, Clock::real().steady()).await.unwrap(), 1);
    server.until_seen(1).await;
    assert_eq!(server.seen()[0].body, "Digits=4711");
    assert_eq!(node.outbox.drain(Duration::from_secs(5)).await, 0);
    node.store.close().await;
}
