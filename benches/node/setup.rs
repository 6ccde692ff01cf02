//! Benchmark of call set-up without media: webhook → 200, answer document, `pre_accept`, `accept`,
//! terminate, hangup callback, record. The lower bound writes no record.

use std::process::Command;
use std::time::Duration;

use sim::load::Summary;

use super::load::{self, LoadOptions};
use super::process::Process;
use super::subject::{Offhook, Setup};
use super::{World, env_number, say};

/// Results of one round of one program.
struct Round {
    cpu_us: f64,
    /// Processor time by prefix of the thread name.
    by_thread: [(&'static str, f64); 4],
    summary: Summary,
}

pub(crate) async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let calls = env_number("OFFHOOK_BENCH_CALLS", 1_000);
    let rounds = env_number("OFFHOOK_BENCH_ROUNDS", 5);
    let rate = env_number("OFFHOOK_BENCH_RATE", 100) as f64;
    let mut world = World::new().await?;
    let places = world.places();
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["floor", &places.graph, &places.answer, &places.hangup]);
    let (floor, at) = Process::start(&mut command, true)?;
    let floor_url = format!("http://{at}");
    let folder = tempfile::tempdir()?;
    let setup = Setup {
        folder: folder.path(),
        graph: &places.graph,
        answer: &places.answer,
        hangup: &places.hangup,
        accept_wait_ms: 0,
    };
    let node = Offhook::start(&world.client, &setup).await?;
    let load_options = LoadOptions { rate, calls, hold_s: 0.1, media: false };
    let warm = LoadOptions { calls: 200, ..load_options };
    round(&mut world, &floor, &floor_url, warm).await?;
    round(&mut world, &node.process, &node.url, warm).await?;
    say(format_args!(
        "set-up path, {rate} calls/s, {calls} calls a round, floor and offhook by turns"
    ));
    let (mut floors, mut offhooks) = (Vec::new(), Vec::new());
    for number in 1..=rounds {
        let ours = round(&mut world, &floor, &floor_url, load_options).await?;
        let theirs = round(&mut world, &node.process, &node.url, load_options).await?;
        let [floor_us, offhook_us] = [ours.cpu_us, theirs.cpu_us];
        let by_thread: Vec<String> =
            theirs.by_thread.iter().map(|(name, us)| format!("{name} {us:.0}")).collect();
        say(format_args!(
            "  round {number}: floor {floor_us:.0} µs, offhook {offhook_us:.0} µs a call ({})",
            by_thread.join(", ")
        ));
        floors.push(ours);
        offhooks.push(theirs);
    }
    let (floor_us, offhook_us) = (median(&floors, |r| r.cpu_us), median(&offhooks, |r| r.cpu_us));
    say(format_args!(
        "set-up CPU per call: floor {floor_us:.0} µs, offhook {offhook_us:.0} µs, ratio {:.2} (target 1.5)",
        offhook_us / floor_us
    ));
    let accept = |r: &Round| r.summary.setup_ms.p99.unwrap_or(f64::NAN);
    let (low, high) = (median(&floors, accept), median(&offhooks, accept));
    say(format_args!(
        "p99 due → accept: floor {low:.2} ms, offhook {high:.2} ms, {:.2} ms above (target 5)",
        high - low
    ));
    let webhook = |r: &Round| r.summary.webhook_ms.p99.unwrap_or(f64::NAN);
    let (low, high) = (median(&floors, webhook), median(&offhooks, webhook));
    say(format_args!("p99 webhook → 200: floor {low:.2} ms, offhook {high:.2} ms (target 2)"));
    Ok(())
}

async fn round(
    world: &mut World,
    process: &Process,
    url: &str,
    load_options: LoadOptions,
) -> Result<Round, Box<dyn std::error::Error>> {
    let hangups = world.customer.hangups();
    let before = process.cpu();
    let summary = load::run(&world.client, world.sim.url(), url, load_options).await?;
    let all = world.customer.until_hangups(hangups + load_options.calls);
    tokio::time::timeout(Duration::from_secs(10), all).await?;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / load_options.calls as f64;
    let by_thread = ["offhook", "store", "media", "rejects"]
        .map(|of| (of, each(process.cpu_since_of(&before, of))));
    Ok(Round { cpu_us: each(process.cpu_since(&before)), by_thread, summary })
}

fn median(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    let mut all: Vec<f64> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
