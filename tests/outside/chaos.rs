//! A fleet whose nodes are killed and paused under load, for as long as `.ci/chaos` says. Counts the
//! calls that were lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::Clock;
use tokio_util::sync::CancellationToken;

use super::crash::event_id;
use super::fleet::World;
use super::support::database::skipped_without_postgres;
use super::support::meta::{connect_body, silent_offer, terminate_body, wacid};
use super::support::node::{APP_SECRET, Node};
use super::support::{http, sign};

/// Calls per second, if `OFFHOOK_CHAOS_RATE` says nothing else.
const RATE: u32 = 10;
/// How long a call is up.
const HELD: Duration = Duration::from_secs(2);
/// How long the load lasts before and after a fault.
const AROUND: Duration = Duration::from_secs(2);
/// Longer than a silent node is tolerated.
const PAUSE: Duration = Duration::from_secs(14);
/// How long Meta waits for an answer before it sends a webhook again.
const WEBHOOK_TIME: Duration = Duration::from_secs(3);
/// How long Meta sends a webhook again.
const WEBHOOK_TRIES: u32 = 40;
/// Within this time after the load, each call must have its hangup callback.
const SETTLE_TIME: Duration = Duration::from_secs(60);

fn random(below: usize) -> usize {
    let number = u64::try_from(uuid::Uuid::new_v4().as_u128() & 0xffff_ffff).unwrap_or_default();
    usize::try_from(number).unwrap_or_default() % below
}

/// Posts a webhook to the nodes as a balancer and Meta do, until one has answered 200.
pub async fn post(nodes: &[String], body: String) -> bool {
    let signature = sign(APP_SECRET, body.as_bytes());
    for _ in 0..WEBHOOK_TRIES {
        let url = format!("{}/webhooks/meta", nodes[random(nodes.len())]);
        let headers = [("x-hub-signature-256", &*signature)];
        let answer = http::try_send("POST", &url, &headers, body.clone());
        match tokio::time::timeout(WEBHOOK_TIME, answer).await {
            Ok(Ok(answer)) if answer.status == 200 => return true,
            _ => tokio::time::sleep(Duration::from_millis(250)).await,
        }
    }
    false
}

/// Places calls until `stop`. Returns the ids of those that a node has answered with 200.
pub async fn load(nodes: Vec<String>, stop: CancellationToken) -> BTreeSet<String> {
    let taken: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let rate = std::env::var("OFFHOOK_CHAOS_RATE").ok().and_then(|rate| rate.parse().ok());
    let mut every = tokio::time::interval(Duration::from_secs(1) / rate.unwrap_or(RATE));
    let mut calls = tokio::task::JoinSet::new();
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        let (nodes, taken) = (nodes.clone(), taken.clone());
        calls.spawn(async move {
            let id = wacid();
            if post(&nodes, connect_body(&id, &silent_offer()).to_string()).await {
                taken.lock().unwrap().insert(id.clone());
                tokio::time::sleep(HELD).await;
                post(&nodes, terminate_body(&id).to_string()).await;
            }
        });
    }
    calls.join_all().await;
    let taken = taken.lock().unwrap();
    taken.clone()
}

/// What came of the calls of a round.
pub struct Outcome {
    pub calls: usize,
    pub rejected: usize,
    pub node_failures: usize,
    pub lost: Vec<String>,
    pub doubled: Vec<String>,
}

/// Waits until each call was rejected or has its hangup callback, and counts those without, or with
/// two identities.
pub async fn settle(world: &World, calls: &BTreeSet<String>) -> Outcome {
    let clock = Clock::real();
    let begun = clock.now();
    let mut every = tokio::time::interval(Duration::from_millis(100));
    loop {
        every.tick().await;
        let mut callbacks: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut uuids: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut failed = BTreeSet::new();
        for seen in world.app.requests() {
            let id = seen.param("WhatsAppCallID").to_owned();
            uuids.entry(id.clone()).or_default().insert(seen.param("CallUUID").to_owned());
            if seen.path == "/hangup" {
                if seen.param("HangupCauseCode") == "5010" {
                    failed.insert(id.clone());
                }
                callbacks.entry(id).or_default().insert(event_id(&seen));
            }
        }
        let rejected = world.with_action("reject");
        let is_over = |call: &&String| callbacks.contains_key(*call) || rejected.contains(*call);
        let lost: Vec<String> = calls.iter().filter(|call| !is_over(call)).cloned().collect();
        if lost.is_empty() || clock.now().duration_since(begun) > SETTLE_TIME {
            let accepted = world.with_action("accept");
            let is_doubled = |call: &&String| {
                let several = |of: &BTreeMap<String, BTreeSet<String>>| {
                    of.get(*call).is_some_and(|ids| ids.len() > 1)
                };
                let both = rejected.contains(*call) && accepted.contains(*call);
                several(&callbacks) || several(&uuids) || both
            };
            return Outcome {
                calls: calls.len(),
                rejected: calls.intersection(&rejected).count(),
                node_failures: calls.intersection(&failed).count(),
                doubled: calls.iter().filter(is_doubled).cloned().collect(),
                lost,
            };
        }
    }
}

/// Kills a node, or pauses it for so long that the others declare it dead.
async fn harm(node: &mut Node) -> &'static str {
    let fault = match random(2) {
        0 => {
            node.kill();
            "killed"
        }
        _ => {
            node.signal("STOP");
            tokio::time::sleep(PAUSE).await;
            node.signal("CONT");
            // It learns that its calls are no longer its own.
            node.wait();
            "paused"
        }
    };
    tokio::time::sleep(AROUND).await;
    fault
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as OFFHOOK_CHAOS_SECONDS says; run it with .ci/chaos"]
#[allow(clippy::print_stdout, reason = "it reports its rounds")]
async fn no_call_is_lost_or_doubled_while_nodes_are_killed_and_paused() {
    if skipped_without_postgres() {
        return;
    }
    let seconds = std::env::var("OFFHOOK_CHAOS_SECONDS").ok().and_then(|text| text.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(60));
    let clock = Clock::real();
    let begun = clock.now();
    let (mut passed, mut failed, mut all) = (0, 0, 0);
    let world = World::new(2_000, 1_000).await;
    let mut nodes = world.nodes(3).await;
    let urls: Vec<String> = nodes.iter().map(|node| node.public.clone()).collect();
    while passed + failed == 0 || clock.now().duration_since(begun) < time {
        let stop = CancellationToken::new();
        let calls = tokio::spawn(load(urls.clone(), stop.clone()));
        tokio::time::sleep(AROUND).await;
        let victim = random(nodes.len());
        let fault = harm(&mut nodes[victim]).await;
        stop.cancel();
        let calls = calls.await.unwrap();
        let outcome = settle(&world, &calls).await;
        let is_good = outcome.lost.is_empty() && outcome.doubled.is_empty();
        (passed, failed) = (passed + usize::from(is_good), failed + usize::from(!is_good));
        let Outcome { calls, rejected, node_failures, lost, doubled } = outcome;
        all += calls;
        println!(
            "round {}: n{victim} {fault}: {calls} calls, {rejected} rejected, {node_failures} ended by the fault, \
             lost: {lost:?}, doubled: {doubled:?}",
            passed + failed
        );
        world.app.forget();
        world.graph.forget();
        nodes[victim].start_again().await;
    }
    println!("{all} calls in {} s", clock.now().duration_since(begun).as_secs());
    println!("{passed} passed, {failed} failed");
    assert_eq!(failed, 0);
}
