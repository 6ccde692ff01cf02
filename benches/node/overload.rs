//! Benchmark of overload: ten times the node's capacity for a minute. Reports the outcome of the
//! calls, the latency of accepted and rejected ones, memory, and the time to recover.
//!
//! The generator is a separate process on the same machine, so it takes a share of the processor
//! from the node before and during the overload.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use sim::client::fetch;
use sim::load::{Percentiles, Summary};

use super::load::{self, LoadOptions};
use super::subject::Offhook;
use super::{World, env_number, memory, say};

/// Duration of a call after the answer, in seconds.
const HOLD_S: f64 = 0.2;
/// The first seconds of an overload are reported separately, because the node cannot yet
/// distinguish it from a burst.
const BEGINNING_S: f64 = 3.0;

pub(crate) async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let usual = env_number("OFFHOOK_BENCH_RATE", 50) as f64;
    let seconds = env_number("OFFHOOK_BENCH_OVERLOAD_SECONDS", 60) as f64;
    let world = World::new().await?;
    let folder = tempfile::tempdir()?;
    let node = memory::start(&world, folder.path(), 0).await?;
    let at = |rate: f64, seconds: f64| {
        let calls = (rate * seconds) as u64;
        load::run_unchecked(
            &world.client,
            world.sim.url(),
            &node.url,
            LoadOptions { rate, calls, hold_s: HOLD_S, media: false },
        )
    };
    at(usual, 5.0).await?;
    let unloaded = at(usual, 20.0).await?;
    tell(&format!("unloaded, {usual} calls/s"), &unloaded);
    let capacity = match env_number("OFFHOOK_BENCH_CAPACITY", 0) {
        0 => capacity(at).await?,
        given => given as f64,
    };
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = node.process.rss();
    let rate = 10.0 * capacity;
    say(format_args!(
        "capacity {capacity:.0} calls/s; {rate:.0} calls/s for {seconds} s, RSS idle {} MiB",
        mib(idle)
    ));
    let watched = Observations::default();
    let over = Arc::new(AtomicBool::new(false));
    let rest = async {
        tokio::time::sleep(Duration::from_secs_f64(BEGINNING_S)).await;
        at(rate, seconds - BEGINNING_S).await
    };
    let both = async {
        let both = tokio::join!(at(rate, BEGINNING_S), rest);
        over.store(true, Ordering::Relaxed);
        both
    };
    let ((first, rest), ()) = tokio::join!(both, watched.watch(&world, &node, idle, &over));
    tell(&format!("the first {BEGINNING_S} s"), &first?);
    tell("the rest", &rest?);
    let peak = watched.rss.load(Ordering::Relaxed);
    say(format_args!(
        "RSS at most {} MiB, with {} live calls at most; {} of {} looks past idle + 256 KiB a live call + 128 MiB",
        mib(peak),
        watched.live.load(Ordering::Relaxed),
        watched.past.load(Ordering::Relaxed),
        watched.looks.load(Ordering::Relaxed),
    ));
    tokio::time::sleep(Duration::from_secs(5)).await;
    tell("from 5 s after, as before", &at(usual, 20.0).await?);
    say(format_args!("{}", refusals(&world, &node).await?));
    Ok(())
}

/// Returns how many calls per second are answered when many more arrive.
async fn capacity<F>(at: impl Fn(f64, f64) -> F) -> Result<f64, String>
where
    F: Future<Output = Result<Summary, String>>,
{
    let mut best: f64 = 0.0;
    for rate in [100.0, 200.0, 300.0, 400.0, 600.0, 800.0, 1_000.0] {
        let summary = at(rate, 8.0).await?;
        let answered = summary.answered as f64 / summary.wall_s;
        tell(&format!("{rate} calls/s"), &summary);
        best = best.max(answered);
        if summary.answered < summary.attempted || summary.late_ms.p99.is_none_or(|ms| ms > 200.0) {
            break;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    Ok(best)
}

/// Observations of the node from outside.
#[derive(Default)]
struct Observations {
    rss: AtomicU64,
    live: AtomicU64,
    past: AtomicU64,
    looks: AtomicU64,
}

impl Observations {
    async fn watch(&self, world: &World, node: &Offhook, idle: u64, over: &AtomicBool) {
        let mut every = tokio::time::interval(Duration::from_millis(250));
        while !over.load(Ordering::Relaxed) {
            every.tick().await;
            let Ok(text) = metrics(world, node).await else { continue };
            let live = text.lines().filter(|line| line.starts_with("offhook_calls_active{"));
            let live = live
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum::<f64>() as u64;
            let rss = node.process.rss();
            self.rss.fetch_max(rss, Ordering::Relaxed);
            self.live.fetch_max(live, Ordering::Relaxed);
            self.looks.fetch_add(1, Ordering::Relaxed);
            self.past.fetch_add(
                u64::from(rss > idle + live * (256 << 10) + (128 << 20)),
                Ordering::Relaxed,
            );
        }
    }
}

async fn metrics(world: &World, node: &Offhook) -> Result<String, String> {
    let request = Request::get(format!("{}/metrics", node.admin))
        .body(Bytes::new())
        .map_err(|e| e.to_string())?;
    let answer = fetch(&world.client, request, Duration::from_secs(5), 16 << 20).await?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

/// Returns the node's own count of refused calls by reason.
async fn refusals(world: &World, node: &Offhook) -> Result<String, String> {
    let is_count = |line: &&str| {
        [
            "offhook_overloaded_total{",
            "offhook_queue_refused_total{",
            "offhook_admission_total{",
            "offhook_media_late",
        ]
        .iter()
        .any(|name| line.starts_with(name))
            && !line.ends_with(" 0")
    };
    Ok(metrics(world, node).await?.lines().filter(is_count).collect::<Vec<_>>().join("\n"))
}

fn tell(what: &str, s: &Summary) {
    say(format_args!(
        "{what}: {} calls: {} answered, {} rejected, {} failed {:?}, {} webhooks put off (503)",
        s.attempted, s.answered, s.rejected, s.failed, s.causes, s.redelivered
    ));
    for (what, p) in [
        ("set-up", s.setup_ms),
        ("webhook → 200", s.webhook_ms),
        ("webhook → reject", s.reject_ms),
        ("generator late", s.late_ms),
    ] {
        let Percentiles { p50, p90, p99, max } = p;
        let [p50, p90, p99, max] = [p50, p90, p99, max].map(|ms| ms.unwrap_or(f64::NAN));
        say(format_args!("    {what}: p50 {p50:.1} ms, p90 {p90:.1}, p99 {p99:.1}, max {max:.1}"));
    }
}

fn mib(bytes: u64) -> u64 {
    bytes >> 20
}
