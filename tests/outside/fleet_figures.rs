//! What a fleet of three nodes promises in figures: deaths, an unreachable database, settings and
//! claims. `.ci/fleet` measures them; each test also checks that nothing was lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use model::Clock;
use tokio_util::sync::CancellationToken;

use super::chaos::{load, post, settle};
use super::fleet::{Replacement, World, replace_nodes};
use super::support::cable::Cable;
use super::support::database::{self, counts, skipped_without_postgres};
use super::support::http;
use super::support::meta::{connect_body, silent_offer, wacid};
use super::support::node::{
    ACCESS_TOKEN, APP_SECRET, AUTH_ID, NUMBER, Node, NodeConfig, PHONE_NUMBER_ID, VERIFY_TOKEN,
    basic, free_port, program,
};
use super::upgrade_load::{percentiles, report};

/// Number of calls of the node that dies.
const CALLS: usize = 1_000;
/// Number of requests that are sent at the same time.
const AT_ONCE: usize = 20;
/// How long a rate is tried.
const LOAD_SECONDS: u32 = 10;
/// A rate is too high if set-ups take longer, in milliseconds.
const SETUP_MAX_MS: f64 = 250.0;
/// How long the database is unreachable, if `OFFHOOK_OUTAGE_SECONDS` says nothing else.
const OUTAGE: u64 = 60;

async fn place_calls(urls: &[String], count: usize) -> BTreeSet<String> {
    let placed = stream::iter(0..count).map(|_| async {
        let id = wacid();
        assert!(post(urls, connect_body(&id, &silent_offer()).to_string()).await, "{id}");
        id
    });
    placed.buffer_unordered(AT_ONCE).collect().await
}

async fn until_accepted(world: &World, calls: &BTreeSet<String>) {
    let mut every = tokio::time::interval(Duration::from_millis(100));
    while !calls.is_subset(&world.with_action("accept")) {
        every.tick().await;
    }
}

/// Lets a node with 1,000 calls die by `signal`, and measures when the calls are ended and when
/// their slots are usable.
async fn measure_death(signal: &str) {
    let world = World::new(u32::try_from(CALLS).unwrap(), 10_000).await;
    let mut nodes = world.nodes(3).await;
    let mut dying = nodes.pop().unwrap();
    let calls = place_calls(std::slice::from_ref(&dying.public), CALLS).await;
    until_accepted(&world, &calls).await;
    let clock = Clock::real();
    let begun = clock.now();
    dying.signal(signal);
    let ended = async {
        let query = "SELECT count(*), count(ended_us), 0::bigint, 0::bigint FROM calls";
        let mut every = tokio::time::interval(Duration::from_millis(50));
        while counts(world.folder(), query).await.1 < i64::try_from(CALLS).unwrap() {
            every.tick().await;
        }
        clock.now().duration_since(begun)
    };
    let usable = async {
        let mut every = tokio::time::interval(Duration::from_millis(100));
        loop {
            every.tick().await;
            let id = wacid();
            assert!(
                post(
                    std::slice::from_ref(&nodes[0].public),
                    connect_body(&id, &silent_offer()).to_string()
                )
                .await
            );
            if world.graph.first(&id).await == "pre_accept" {
                return clock.now().duration_since(begun);
            }
        }
    };
    let (ended, usable) = tokio::join!(ended, usable);
    if signal == "STOP" {
        dying.signal("CONT");
    }
    dying.wait();
    let outcome = settle(&world, &calls).await;
    report(&format!(
        "{CALLS} calls of a node that gets SIG{signal}: all ended in the database after {:.1} s, a slot usable after {:.1} s; \
         lost: {}, doubled: {}",
        ended.as_secs_f64(),
        usable.as_secs_f64(),
        outcome.lost.len(),
        outcome.doubled.len(),
    ));
    assert!(outcome.lost.is_empty() && outcome.doubled.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for a minute; run it with .ci/fleet"]
async fn f29_the_calls_of_a_dead_node_are_ended_and_their_slots_usable() {
    if skipped_without_postgres() {
        return;
    }
    measure_death("KILL").await;
    measure_death("STOP").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for two minutes; run it with .ci/fleet"]
async fn f15_no_call_is_dropped_while_the_database_is_away() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(2_000, 1_000).await;
    let mut cables = Vec::new();
    let mut nodes = Vec::new();
    for n in 0..3 {
        let cable = Cable::to(database::port()).await;
        let config = NodeConfig { store_port: Some(cable.port), ..world.config(&format!("n{n}")) };
        nodes.push(Node::start(&config).await);
        cables.push(cable);
    }
    let urls: Vec<String> = nodes.iter().map(|node| node.public.clone()).collect();
    let outage = std::env::var("OFFHOOK_OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok());
    let outage = Duration::from_secs(outage.unwrap_or(OUTAGE));
    let stop = CancellationToken::new();
    let loaded = tokio::spawn(load(urls.clone(), stop.clone()));
    tokio::time::sleep(Duration::from_secs(5)).await;
    cables.iter().for_each(Cable::cut);
    tokio::time::sleep(outage).await;
    let rejected = world.with_action("reject").len();
    cables.iter().for_each(Cable::mend);
    tokio::time::sleep(Duration::from_secs(5)).await;
    stop.cancel();
    let loaded = loaded.await.unwrap();
    let outcome = settle(&world, &loaded).await;
    let mut causes: BTreeMap<String, usize> = BTreeMap::new();
    for seen in world.app.requests().iter().filter(|seen| seen.path == "/hangup") {
        *causes.entry(seen.param("HangupCauseName").to_owned()).or_default() += 1;
    }
    let query = "SELECT count(*), count(DISTINCT wacid), count(ended_us), 0::bigint FROM calls";
    let expected = i64::try_from(loaded.len() - outcome.rejected).unwrap();
    let mut every = tokio::time::interval(Duration::from_millis(200));
    let mut rows = counts(world.folder(), query).await;
    for _ in 0..100 {
        if rows.0 >= expected {
            break;
        }
        every.tick().await;
        rows = counts(world.folder(), query).await;
    }
    report(&format!(
        "the database unreachable for {} s: {} calls, {rejected} rejected until its end, {} at all; how the others ended: \
         {causes:?}; {} rows of {expected}; lost: {:?}, doubled: {:?}",
        outage.as_secs(),
        loaded.len(),
        outcome.rejected,
        rows.0,
        outcome.lost,
        outcome.doubled,
    ));
    assert!(outcome.lost.is_empty() && outcome.doubled.is_empty());
    assert_eq!(causes.len(), 1, "callers have ended all calls");
    assert_eq!(rows.0, rows.1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for half a minute; run it with .ci/fleet"]
async fn f36_a_setting_is_in_force_at_all_nodes_before_the_response() {
    if skipped_without_postgres() {
        return;
    }
    let world = World::new(100, 1_000).await;
    let nodes = world.nodes(3).await;
    let headers = [("authorization", &*basic()), ("content-type", "application/json")];
    let clock = Clock::real();
    let mut times = Vec::new();
    let mut partial = 0;
    for n in 0..200 {
        let url = format!("{}/v1/Account/{AUTH_ID}/Application/", nodes[n % 3].public);
        let body = format!(
            "{{\"app_name\": \"menu{n}\", \"answer_url\": \"{}\"}}",
            world.app.url("/answer")
        );
        let begun = clock.now();
        let created = http::send("POST", &url, &headers, body).await;
        times.push(clock.now().duration_since(begun));
        assert_eq!(created.status, 201, "{}", created.text());
        partial += usize::from(created.headers["x-offhook-applied"] != "3/3");
    }
    let [p50, p99, max] = percentiles(&mut times);
    report(&format!(
        "a setting in force at 3 of 3 nodes, 200 changes: p50 {p50:.0} ms, p99 {p99:.0} ms, maximum {max:.0} ms; \
         {partial} not at all nodes within 1 s"
    ));
    assert_eq!(partial, 0);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for half a minute; run it with .ci/fleet"]
async fn f04_claims_are_fast() {
    if skipped_without_postgres() {
        return;
    }
    const SECONDS: u64 = 20;
    let world = World::new(1_000, 1_000).await;
    let nodes = world.nodes(3).await;
    let urls = nodes.iter().map(|node| node.public.clone()).collect();
    let stop = CancellationToken::new();
    let loaded = tokio::spawn(load(urls, stop.clone()));
    tokio::time::sleep(Duration::from_secs(SECONDS)).await;
    stop.cancel();
    let calls = loaded.await.unwrap();
    let mut count = 0.0;
    for node in &nodes {
        count += node.metric("offhook_claim_seconds_count", &[("outcome", "ours")]).await;
    }
    let mut within = Vec::new();
    for bound in ["0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25"] {
        let labels = [("outcome", "ours"), ("le", bound)];
        let mut share = 0.0;
        for node in &nodes {
            share += node.metric("offhook_claim_seconds_bucket", &labels).await / count;
        }
        within.push(format!("{:.1} % within {bound} s", share * 100.0));
    }
    report(&format!(
        "{count} claims of {} calls in {SECONDS} s: {}",
        calls.len(),
        within.join(", ")
    ));
    assert!(count >= calls.len() as f64);
}

/// The part of a processor that each node may use, in percent: `OFFHOOK_FLEET_SHARE`, 33 by default.
/// The balancer, the database, the load and all nodes must fit into the machine's processors, or the
/// machine is measured.
fn share() -> u32 {
    std::env::var("OFFHOOK_FLEET_SHARE").map_or(33, |text| text.parse().expect("percent"))
}

/// A control group that gives a process its share of a processor.
struct CpuLimit(std::path::PathBuf);

impl CpuLimit {
    fn of(process: u32) -> std::io::Result<Self> {
        let quota_us = share() * 300;
        let hybrid = std::path::Path::new("/sys/fs/cgroup/cpu");
        let root = if hybrid.is_dir() { hybrid } else { std::path::Path::new("/sys/fs/cgroup") };
        let group = root.join(format!("offhook-test-{process}"));
        std::fs::create_dir(&group)?;
        if hybrid.is_dir() {
            std::fs::write(group.join("cpu.cfs_period_us"), "30000")?;
            std::fs::write(group.join("cpu.cfs_quota_us"), quota_us.to_string())?;
        } else {
            std::fs::write(group.join("cpu.max"), format!("{quota_us} 30000"))?;
        }
        std::fs::write(group.join("cgroup.procs"), process.to_string())?;
        Ok(Self(group))
    }
}

impl Drop for CpuLimit {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// Places calls at a rate with `offhook load`. Returns the 99th percentile of the set-up in
/// milliseconds, and how many were rejected or failed.
async fn load_at(rate: u32, balancer: &str, meta: &str) -> (f64, u64) {
    let calls = (rate * LOAD_SECONDS).to_string();
    let output = tokio::process::Command::new(program())
        .args(["load", "--json", "--rate", &rate.to_string(), "--calls", &calls, "--hold", "2"])
        .args(["--node", balancer, "--meta-listen", meta, "--to", NUMBER])
        .args(["--phone-number-id", PHONE_NUMBER_ID, "--app-secret", APP_SECRET])
        .args(["--verify-token", VERIFY_TOKEN, "--access-token", ACCESS_TOKEN])
        .output()
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    let count = |name: &str| summary[name].as_u64().unwrap();
    (summary["setup_ms"]["p99"].as_f64().unwrap_or(f64::MAX), count("rejected") + count("failed"))
}

/// Returns the highest rate at which `count` nodes set calls up in time.
async fn highest_rate(count: usize, from: u32) -> u32 {
    let (balanced, meta) = (free_port(), format!("127.0.0.1:{}", free_port()));
    let world = World::new(5_000, 5_000).await;
    let mut nodes = Vec::new();
    for n in 0..count {
        let config = NodeConfig {
            graph_url: format!("http://{meta}/v23.0"),
            ..world.config(&format!("n{n}"))
        };
        nodes.push(Node::start(&config).await);
    }
    let servers: Vec<String> = nodes
        .iter()
        .enumerate()
        .map(|(n, node)| format!("server n{n} {}", node.public.trim_start_matches("http://")))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("haproxy.cfg");
    let text = format!(
        "defaults\n  mode http\n  timeout connect 2s\n  timeout client 65s\n  timeout server 65s\n\
         listen fleet\n  bind 127.0.0.1:{balanced}\n  balance roundrobin\n  {}\n",
        servers.join("\n  ")
    );
    std::fs::write(&file, text).unwrap();
    let mut balancer = tokio::process::Command::new("haproxy");
    let _balancer = balancer.arg("-db").arg("-f").arg(&file).kill_on_drop(true).spawn().unwrap();
    let url = format!("http://127.0.0.1:{balanced}");
    let mut every = tokio::time::interval(Duration::from_millis(20));
    #[allow(clippy::disallowed_methods, reason = "a test's own peer")]
    while tokio::net::TcpStream::connect(("127.0.0.1", balanced)).await.is_err() {
        every.tick().await;
    }
    // Connections, prompts and prepared statements exist before a rate is judged.
    load_at(from / 2, &url, &meta).await;
    let groups: Vec<_> = nodes.iter().map(|node| CpuLimit::of(node.pid()).unwrap()).collect();
    let (mut highest, mut rate) = (0, from);
    loop {
        let (p99, not_answered) = load_at(rate, &url, &meta).await;
        report(&format!(
            "{count} nodes, {rate} calls/s: p99 due → accept {p99:.0} ms, {not_answered} not answered"
        ));
        if p99 > SETUP_MAX_MS || not_answered > 0 {
            break;
        }
        (highest, rate) = (rate, rate + rate.div_ceil(10));
    }
    nodes.iter_mut().for_each(Node::kill);
    drop(groups);
    highest
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for minutes, needs root, control groups and haproxy; run it with .ci/fleet"]
async fn f41_three_nodes_take_more_calls_than_one() {
    if skipped_without_postgres() {
        return;
    }
    let one = highest_rate(1, share()).await;
    let three = highest_rate(3, one * 2).await;
    report(&format!(
        "nodes of {} % of a core, p99 due → accept up to {SETUP_MAX_MS} ms: one takes {one} calls/s, three {three}: {:.1}",
        share(),
        f64::from(three) / f64::from(one)
    ));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures for a minute; run it with .ci/fleet"]
async fn f40_nodes_are_replaced_under_fifty_calls_a_second() {
    if !skipped_without_postgres() {
        replace_nodes(50, Replacement::Drain).await;
        replace_nodes(50, Replacement::Upgrade).await;
    }
}
