//! Benchmark of memory: what live calls use and what remains after they end.

use std::time::Duration;

use super::load::{self, LoadOptions};
use super::process::Process;
use super::subject::{Offhook, Setup};
use super::{World, env_number, say};

/// Number of calls after which a long sequence reports its memory.
const PART: u64 = 20_000;

pub(crate) async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let bytes_live = env_number("OFFHOOK_BENCH_LIVE", 1_000);
    let media_live = env_number("OFFHOOK_BENCH_MEDIA_LIVE", 200);
    let behind = env_number("OFFHOOK_BENCH_SEQUENCE", 20_000);
    let world = World::new().await?;
    one(
        &world,
        "without media",
        65_536,
        LoadOptions { rate: 200.0, calls: bytes_live, hold_s: 0.0, media: false },
    )
    .await?;
    one(
        &world,
        "with media",
        204_800,
        LoadOptions { rate: 25.0, calls: media_live, hold_s: 0.0, media: true },
    )
    .await?;
    sequence(&world, behind).await
}

/// Measures live calls: the growth of resident memory from the second half of them. One-time
/// initialisation and the allocator's reserve fall into the first half.
async fn one(
    world: &World,
    what: &str,
    target: u64,
    load_options: LoadOptions,
) -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let node = start(world, folder.path(), if load_options.media { 3_000 } else { 0 }).await?;
    load::run(
        &world.client,
        world.sim.url(),
        &node.url,
        LoadOptions { calls: 20, hold_s: 1.0, ..load_options },
    )
    .await?;
    let half = load_options.calls / 2;
    let arriving = Duration::from_secs_f64(half as f64 / load_options.rate);
    let (settle, whole) = (Duration::from_secs(4), Duration::from_secs(12));
    let load_of = |calls: u64, hold: Duration| {
        let load_options = LoadOptions { calls, hold_s: hold.as_secs_f64(), ..load_options };
        load::run(&world.client, world.sim.url(), &node.url, load_options)
    };
    let first = load_of(half, arriving * 2 + whole);
    let second = async {
        tokio::time::sleep(arriving + settle).await;
        let before = node.process.rss();
        let (summary, after) = tokio::join!(load_of(half, arriving + settle), async {
            tokio::time::sleep(arriving + settle).await;
            node.process.rss()
        });
        summary.map(|_| after.saturating_sub(before))
    };
    let (summary, added) = tokio::join!(first, second);
    summary?;
    let each = added? / half;
    say(format_args!(
        "memory of a live call {what}: {:.1} KiB, of {} at once (target {:.0})",
        each as f64 / 1024.0,
        load_options.calls,
        target as f64 / 1024.0
    ));
    Ok(())
}

/// Runs calls one after another and compares resident memory and threads before and after.
async fn sequence(world: &World, calls: u64) -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let node = start(world, folder.path(), 0).await?;
    let parts = (calls / PART).max(4);
    let rate = env_number("OFFHOOK_BENCH_SEQUENCE_RATE", 200) as f64;
    let load_options = LoadOptions { rate, calls: calls / parts, hold_s: 0.0, media: false };
    let mut after = Vec::new();
    for _ in 0..parts {
        load::run(&world.client, world.sim.url(), &node.url, load_options).await?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        after.push((node.process.rss(), threads(&node.process)));
    }
    let mebibytes: Vec<String> =
        after.iter().map(|(rss, _)| format!("{:.1}", *rss as f64 / 1_048_576.0)).collect();
    let (Some(first), Some(last)) = (after.first(), after.last()) else { return Ok(()) };
    say(format_args!(
        "memory after each of {parts} parts of {calls} calls: {} MiB; last over first, ratio {:.3} (target 1 ± 0.02); \
         threads {} and {}",
        mebibytes.join(", "),
        last.0 as f64 / first.0 as f64,
        first.1,
        last.1
    ));
    Ok(())
}

fn threads(process: &Process) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", process.0.id())).map_or(0, Iterator::count)
}

pub(crate) async fn start(
    world: &World,
    folder: &std::path::Path,
    accept_wait_ms: u64,
) -> Result<Offhook, Box<dyn std::error::Error>> {
    let places = world.places();
    let setup = Setup {
        folder,
        graph: &places.graph,
        answer: &places.answer,
        hangup: &places.hangup,
        accept_wait_ms,
    };
    Ok(Offhook::start(&world.client, &setup).await?)
}
