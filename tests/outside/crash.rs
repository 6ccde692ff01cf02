//! Crashes with `kill -9`: no call, record or callback is lost or duplicated
//! (`docs/reference/reliability.md#r3`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use machine::{CallSetup, CallUrls, MachineLimits};
use model::Clock;
use model::{CallType, CallUuid, Direction, Method};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use store::{CallFilter, CallStart, Scope};
use xml::ast::DocUrl;

use super::support::app::{App, ReceivedRequest};
use super::support::database;
use super::support::http::get;
use super::support::meta::{self, Graph, connect_body, silent_offer, terminate_body};
use super::support::node::{AUTH_ID, NUMBER, Node, NodeConfig, PHONE_NUMBER_ID, program};

/// Answers immediately and holds the call.
const HELD: &str = "<Response><Speak>Please hold.</Speak><Wait length=\"60\"/></Response>";
/// Documents that never answer, or answer and hang up.
const SHORT: [&str; 2] = [
    "<Response><Wait length=\"1\"/><Hangup/></Response>",
    "<Response><Speak>Bye.</Speak><Hangup/></Response>",
];
const NODE_ID: &str = "[cluster]\nnode_id = \"crash\"\n";

fn node_config(graph: &Graph, app: &App) -> NodeConfig {
    NodeConfig {
        hangup_url: app.url("/hangup"),
        extra: NODE_ID.to_owned(),
        accept_wait_ms: 0,
        cps: 10_000,
        limits: "calls_per_number = 10000".to_owned(),
        ..NodeConfig::new(&graph.url, &app.url("/answer"))
    }
}

pub(super) fn event_id(seen: &ReceivedRequest) -> String {
    seen.headers.get("x-offhook-event-id").expect("an event id").to_str().expect("text").to_owned()
}

fn say(what: std::fmt::Arguments<'_>) {
    #[allow(clippy::print_stderr, reason = "figures are told")]
    {
        eprintln!("{what}");
    }
}

#[tokio::test]
async fn r03_a_kill_in_the_middle_of_a_call_ends_it_once() {
    let (graph, app) = (Graph::start().await, App::start().await);
    app.xml("/answer", HELD).route("/hangup", |_| (200, String::new()));
    let mut node = Node::start(&node_config(&graph, &app)).await;
    let wacid = meta::wacid();
    let body = connect_body(&wacid, &silent_offer()).to_string();
    assert_eq!(node.post_webhook(&body).await.status, 200);
    graph.wait(&wacid, "accept").await;
    let call = app.wait("/answer").await.param("CallUUID").to_owned();
    // Long enough for a heartbeat to be stored.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    node.kill();
    let killed = graph.asked().len();
    node.start_again().await;

    graph.wait(&wacid, "terminate").await;
    let hangup = app.wait("/hangup").await;
    assert_eq!(hangup.param("CallUUID"), call);
    assert_eq!((hangup.param("HangupCauseCode"), hangup.param("HangupSource")), ("5010", "Error"));
    let secs = |name: &str| hangup.param(name).parse::<u32>().expect("seconds");
    assert!(
        (2..=3).contains(&secs("Duration")) && (2..=3).contains(&secs("BillDuration")),
        "{:?}",
        hangup.params
    );
    let record = node.record(&call).await;
    assert_eq!(
        (record["hangup_cause_code"].as_i64(), record["call_duration"].as_i64()),
        (Some(5010), Some(3)),
        "{record}"
    );
    assert_eq!(node.metric("offhook_calls_active", &[]).await, 0.0);
    assert_eq!(node.metric("offhook_number_slots_in_use", &[]).await, 0.0);

    // Meta resends the connect, as it does for a week. It is recognised as a duplicate.
    assert_eq!(node.post_webhook(&body).await.status, 200);
    assert_eq!(node.metric("offhook_webhook_events_total", &[("result", "duplicate")]).await, 1.0);
    let since: Vec<_> = graph.asked().split_off(killed);
    assert!(since.iter().all(|asked| asked["action"] == "terminate"), "{since:?}");

    // Kill again after the delivery has been stored: nothing remains to be done.
    tokio::time::sleep(Duration::from_millis(500)).await;
    node.kill();
    node.start_again().await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(app.count("/hangup"), 1);
}

/// See `docs/operations.md#start-a-copy`.
#[tokio::test]
async fn a_copy_with_another_node_id_leaves_live_calls_alone() {
    if database::skipped_on_postgres() {
        return;
    }
    let (graph, app) = (Graph::start().await, App::start().await);
    app.xml("/answer", HELD).route("/hangup", |_| (200, String::new()));
    let config = node_config(&graph, &app);
    let node = Node::start(&config).await;
    let wacid = meta::wacid();
    let body = connect_body(&wacid, &silent_offer()).to_string();
    assert_eq!(node.post_webhook(&body).await.status, 200);
    graph.wait(&wacid, "accept").await;
    app.wait("/answer").await;

    let copy = tempfile::tempdir().expect("a directory");
    let mut backup = std::process::Command::new(program());
    backup.arg("backup").arg(copy.path().join("offhook.db"));
    backup.arg("--data-dir").arg(node.dir.path()).env_remove("RUST_LOG");
    let made = tokio::task::spawn_blocking(move || backup.output().expect("it runs"));
    let made = made.await.expect("it ends");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let key = std::fs::copy(node.dir.path().join("store.key"), copy.path().join("store.key"));
    key.expect("a copy of the key");

    let other = NodeConfig { extra: NODE_ID.replace("crash", "copy"), ..config.clone() };
    let mut second = Node::start_in(copy, &other).await;
    let ended = async |node: &Node| node.metric("offhook_calls_total", &[]).await;
    assert_eq!(ended(&second).await, 0.0);
    let is_end = |asked: &serde_json::Value| asked["action"] == "terminate";
    assert!(!graph.asked().iter().any(is_end), "{:?}", graph.asked());
    assert_eq!((app.count("/hangup"), node.metric("offhook_calls_active", &[]).await), (0, 1.0));

    // With the node's own name, a start ends the call at Meta, although its node runs.
    second.kill();
    let file = second.dir.path().join("offhook.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, text.replace("\"copy\"", "\"crash\"")).expect("written");
    second.start_again().await;
    graph.wait(&wacid, "terminate").await;
}

fn seed(n: u128, hangup: &str) -> CallSetup {
    let url = DocUrl(hangup.into());
    CallSetup {
        call: CallUuid(uuid::Uuid::from_u128(n)),
        direction: Direction::Inbound,
        call_type: CallType::Whatsapp,
        wacid: Some(format!("wacid.{n}").as_str().into()),
        phone_number_id: PHONE_NUMBER_ID.into(),
        from: "919412341234".to_owned(),
        to: NUMBER.to_owned(),
        caller_name: "Asha".to_owned(),
        cta_payload: None,
        deeplink_payload: None,
        account: AUTH_ID.into(),
        parent_account: AUTH_ID.into(),
        urls: CallUrls {
            answer: url.clone(),
            answer_method: Method::Post,
            fallback: None,
            hangup: (url, Method::Post),
        },
        started: Clock::real().wall(),
        limits: MachineLimits::default(),
        headers: Vec::new(),
        outbound: None,
    }
}

#[tokio::test]
async fn r03_a_thousand_orphans_are_ended_before_the_node_is_ready() {
    const ORPHANS: usize = 1_000;
    let (graph, app) = (Graph::start().await, App::start().await);
    app.route("/hangup", |_| (200, String::new()));
    let dir = tempfile::tempdir().unwrap();
    let store = database::open(dir.path()).await;
    for n in 0..ORPHANS {
        let setup = seed(n as u128, &app.url("/hangup"));
        assert!(store.calls().begin(
            CallStart::of(&setup, "crash"),
            &setup,
            Clock::real().steady()
        ));
    }
    store.close().await;

    let begun = Clock::real().now();
    let node = Node::start_in(dir, &node_config(&graph, &app)).await;
    let took = Clock::real().now().duration_since(begun);
    // The node is ready only after all orphans are closed.
    let list = node.api("Call/?limit=1").await.json();
    assert_eq!(list["meta"]["total_count"], ORPHANS, "{list}");
    let own = node
        .log()
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(search_time);
    say(format_args!(
        "{ORPHANS} orphans: ready {took:?} after the start, of which {own:?} ms were theirs"
    ));

    let mut count = 0;
    while count < ORPHANS {
        tokio::time::sleep(Duration::from_millis(50)).await;
        count = app.requests().iter().map(event_id).collect::<BTreeSet<_>>().len();
    }
    for n in 0..ORPHANS {
        graph.wait(&format!("wacid.{n}"), "terminate").await;
    }
    assert_eq!(app.count("/hangup"), ORPHANS, "one each");
}

fn search_time(line: serde_json::Value) -> Option<u64> {
    line["took_ms"].as_str()?.parse().ok()
}

/// Runs one call of the load. Returns its id and whether the connect was accepted.
async fn one_call(node: &Node, wacid: String, hang_up: Option<Duration>) -> (String, bool) {
    let body = connect_body(&wacid, &silent_offer()).to_string();
    let taken = node.try_webhook(&body).await.is_some_and(|answer| answer.status == 200);
    if let (true, Some(after)) = (taken, hang_up) {
        tokio::time::sleep(after).await;
        // Requests may be lost while the node is down.
        let _ = node.try_webhook(&terminate_body(&wacid).to_string()).await;
    }
    (body, taken)
}

/// Returns true for first attempts that the application refuses.
fn fails_first(seen: &ReceivedRequest) -> bool {
    event_id(seen).starts_with('0') && seen.headers["x-offhook-attempt"] == "1"
}

#[tokio::test]
async fn r03_repeated_kills_lose_and_duplicate_nothing() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(otherwise)
    };
    let (rounds, seed) = (number("OFFHOOK_KILL_ROUNDS", 10), number("OFFHOOK_KILL_SEED", 7));
    let mut dice = StdRng::seed_from_u64(seed);
    let (graph, app) = (Graph::start().await, App::start().await);
    app.route("/answer", |seen| {
        let last = seen.param("WhatsAppCallID").bytes().last().unwrap_or_default();
        let document = if last.is_multiple_of(2) { HELD } else { SHORT[usize::from(last / 2) % 2] };
        (200, document.to_owned())
    });
    // Some first attempts fail; retries keep the callback's id.
    app.route("/hangup", |seen| (if fails_first(seen) { 503 } else { 200 }, String::new()));
    let mut node = Node::start(&node_config(&graph, &app)).await;
    let mut admitted = BTreeSet::new();
    let mut unanswered = 0;
    let mut slowest = Duration::ZERO;
    for _ in 0..rounds {
        let kill_after = dice.random_range(1..600);
        let calls: Vec<_> = (0..dice.random_range(5..25))
            .map(|_| {
                let hang_up = dice.random_bool(0.4).then(|| dice.random_range(0..300));
                (meta::wacid(), dice.random_range(0..kill_after + 20), hang_up)
            })
            .collect();
        let load = calls.iter().map(|(wacid, after, hang_up)| {
            let node = &node;
            async move {
                tokio::time::sleep(Duration::from_millis(*after)).await;
                one_call(node, wacid.clone(), hang_up.map(Duration::from_millis)).await
            }
        });
        let pid = node.pid().to_string();
        let kill = async {
            tokio::time::sleep(Duration::from_millis(kill_after)).await;
            std::process::Command::new("kill").args(["-9", &pid]).status().expect("kill");
        };
        let (bodies, ()) = tokio::join!(futures_util::future::join_all(load), kill);
        node.kill();
        let begun = Clock::real().now();
        node.start_again().await;
        slowest = slowest.max(Clock::real().now().duration_since(begun));
        // Meta resends the webhooks without a 200, and some others too.
        for ((wacid, ..), (body, taken)) in calls.iter().zip(bodies) {
            unanswered += usize::from(!taken);
            if !taken || dice.random_bool(0.2) {
                assert_eq!(node.post_webhook(&body).await.status, 200);
            }
            admitted.insert(wacid.clone());
        }
    }
    // The users end the remaining calls, and all callbacks arrive.
    for wacid in &admitted {
        assert_eq!(node.post_webhook(&terminate_body(wacid).to_string()).await.status, 200);
    }
    node.until_metric("offhook_calls_active", &[], 0.0).await;
    let hangups = || {
        let mut of: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
        for seen in app.requests().iter().filter(|s| s.path == "/hangup") {
            let identity = (event_id(seen), seen.param("CallUUID").to_owned());
            of.entry(seen.param("WhatsAppCallID").to_owned()).or_default().insert(identity);
        }
        of
    };
    let taken = || {
        let taken = |seen: &&ReceivedRequest| seen.path == "/hangup" && !fails_first(seen);
        app.requests()
            .iter()
            .filter(taken)
            .map(|seen| seen.param("WhatsAppCallID").to_owned())
            .collect::<BTreeSet<_>>()
    };
    for _ in 0..600 {
        if taken().len() >= admitted.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let hangups = hangups();
    assert_eq!(node.metric("offhook_number_slots_in_use", &[]).await, 0.0, "seed {seed}");
    node.signal("TERM");
    assert_eq!(node.wait(), Some(0));
    let store = database::open(node.dir.path()).await;
    let records = store
        .calls()
        .list(&Scope::of(AUTH_ID.into()), &CallFilter::default(), 1, 0)
        .await
        .unwrap()
        .1;
    let open = store.calls().orphans("crash").await.unwrap().len();
    let waiting = store.outbox().due_origins("crash", Clock::real().steady()).await.unwrap();
    store.close().await;
    say(format_args!(
        "{rounds} rounds, seed {seed}: admitted {}, records {records}, hangup identities {}, left open {open}, \
         webhooks cut off {unanswered}, slowest start {slowest:?}",
        admitted.len(),
        hangups.values().map(BTreeSet::len).sum::<usize>(),
    ));
    let doubled: Vec<_> = hangups.iter().filter(|(_, of)| of.len() > 1).collect();
    assert!(doubled.is_empty(), "one identity and one CallUUID a call; seed {seed}: {doubled:?}");
    assert_eq!(records, admitted.len() as u64, "seed {seed}");
    assert_eq!(hangups.keys().cloned().collect::<BTreeSet<_>>(), admitted, "seed {seed}");
    assert_eq!((open, waiting.0.len()), (0, 0), "seed {seed}");
    let mut asked: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for request in graph.asked() {
        let word = |name: &str| request[name].as_str().unwrap_or_default().to_owned();
        asked.entry(word("call_id")).or_default().insert(word("action"));
    }
    let both =
        asked.iter().find(|(_, actions)| actions.contains("accept") && actions.contains("reject"));
    assert_eq!(both, None, "never both; seed {seed}");
}

/// Otherwise it would end the first process's calls as orphans.
#[tokio::test(flavor = "multi_thread")]
async fn r03_a_second_process_with_the_same_node_id_is_refused() {
    let (graph, app) = (Graph::start().await, App::start().await);
    let node = Node::start(&node_config(&graph, &app)).await;
    let (config, log) = (node.dir.path().join("second.toml"), node.dir.path().join("second.log"));
    let mut text = std::fs::read_to_string(node.dir.path().join("offhook.toml")).unwrap();
    for address in [&node.public, &node.admin] {
        let address = address.trim_start_matches("http://");
        text = text.replace(&format!("\"{address}\""), "\"127.0.0.1:0\"");
    }
    std::fs::write(&config, text).unwrap();
    let file = std::fs::File::create(&log).unwrap();
    let mut second = std::process::Command::new(env!("CARGO_BIN_EXE_offhook"))
        .args(["serve", "--config"])
        .arg(&config)
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let mut every = tokio::time::interval(Duration::from_millis(20));
    // A file's lock fails immediately. A database's lock waits, in case its holder died.
    let is_refused = |text: &str| {
        text.contains("uses it as node") || text.contains("node lock held by another process")
    };
    for _ in 0..1_500 {
        if is_refused(&std::fs::read_to_string(&log).unwrap()) {
            break;
        }
        every.tick().await;
    }
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(is_refused(&log), "{log}");
    assert_eq!(get(&format!("{}/readyz", node.admin)).await.status, 200, "the first one goes on");
    let _ = second.kill();
    let ended = second.wait().unwrap();
    assert!(!ended.success());
}
