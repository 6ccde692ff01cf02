//! Benchmark of media: processor time of a live call that plays a prompt, against a lower bound
//! that only carries the same packets (`media_floor`), and the delay until the caller hears the
//! first audio.

use std::time::Duration;

use sim::LOAD_RELAYS;

use super::load::{self, LoadOptions};
use super::media_floor::{Floor, Peers, SECONDS, median};
use super::{World, env_number, memory, say};

pub(crate) async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let calls = env_number("OFFHOOK_BENCH_MEDIA", 100);
    let relays = env_number("OFFHOOK_BENCH_RELAYS", LOAD_RELAYS.into()).clamp(1, calls.max(1));
    // Calls that share a peer address are told apart by local port, as in the node.
    let ports = calls.div_ceil(relays) as usize;
    let floor_of = |ports, peers| async move {
        let floor = Floor { calls: calls as usize, ports, peers };
        let measured = tokio::task::spawn_blocking(move || floor.measure()).await?;
        measured.map_err(|e| Box::<dyn std::error::Error>::from(e.to_string()))
    };
    let waiting = Peers::Waiting(relays as usize);
    let before = floor_of(ports, waiting).await?;
    let world = World::new().await?;
    let folder = tempfile::tempdir()?;
    let node = memory::start(&world, folder.path(), 3_000).await?;
    let load_options = LoadOptions { rate: 20.0, calls, hold_s: 2.0, media: true };
    let summary = load::run(
        &world.client,
        world.sim.url(),
        &node.url,
        LoadOptions { calls: 40, ..load_options },
    )
    .await?;
    let arriving = Duration::from_secs_f64(calls as f64 / load_options.rate + 3.0);
    let live = load::run(
        &world.client,
        world.sim.url(),
        &node.url,
        LoadOptions {
            hold_s: (arriving + Duration::from_secs(SECONDS)).as_secs_f64() + 2.0,
            ..load_options
        },
    );
    let look = async {
        tokio::time::sleep(arriving).await;
        let mut seconds = Vec::new();
        for _ in 0..SECONDS {
            let before = node.process.cpu();
            tokio::time::sleep(Duration::from_secs(1)).await;
            seconds.push((
                node.process.cpu_since(&before),
                node.process.cpu_since_of(&before, "media"),
            ));
        }
        let (mut all, mut threads) = (seconds.iter().map(|s| s.0), seconds.iter().map(|s| s.1));
        (median(|| all.next().unwrap_or_default()), median(|| threads.next().unwrap_or_default()))
    };
    let (live, (ours, threads)) = tokio::join!(live, look);
    live?;
    let after = floor_of(ports, waiting).await?;
    let one_port = floor_of(1, waiting).await?;
    let passing = floor_of(1, Peers::Passing).await?;
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / calls as f64;
    let floor = (before + after) / 2;
    say(format_args!(
        "media CPU of a live call, of {calls}: floor {:.0} µs a second ({:.0} before, {:.0} after), offhook {:.0} µs a second, \
         ratio {:.2} (target 1.4); the media threads alone {:.0} µs, ratio {:.2}",
        each(floor),
        each(before),
        each(after),
        each(ours),
        each(ours) / each(floor),
        each(threads),
        each(threads) / each(floor),
    ));
    say(format_args!(
        "over a floor of one port instead of {ports}, {:.0} µs: {:.2}; over one of one port whose peers don't wait, {:.0} µs: {:.2}",
        each(one_port),
        each(ours) / each(one_port),
        each(passing),
        each(ours) / each(passing),
    ));
    let first_audio = summary.first_audio_ms;
    say(format_args!(
        "first audio after media is connected: p50 {:.1} ms (target 40), p99 {:.1} ms",
        first_audio.p50.unwrap_or(f64::NAN),
        first_audio.p99.unwrap_or(f64::NAN)
    ));
    Ok(())
}
