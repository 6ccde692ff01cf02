//! Benchmark of start-up: time until `/readyz` succeeds, with an empty store, and with a million
//! records and a thousand calls left open by a crash.

use std::time::{Duration, Instant};

use model::Clock;
use rusqlite::Connection;

use super::{World, env_number, memory, say};

pub(crate) async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let records = env_number("OFFHOOK_BENCH_RECORDS", 1_000_000);
    let world = World::new().await?;
    let clock = Clock::real();
    let mut took = Vec::new();
    for _ in 0..10 {
        let folder = tempfile::tempdir()?;
        took.push(timed(&clock, &world, folder.path()).await?);
    }
    print_times("with an empty store", &mut took, 50);
    let folder = tempfile::tempdir()?;
    drop(memory::start(&world, folder.path(), 0).await?);
    fill(&folder.path().join("offhook.db"), records, 1_000)?;
    let mut took = vec![timed(&clock, &world, folder.path()).await?];
    print_times(&format!("with 1000 orphans and {records} records"), &mut took, 1_000);
    Ok(())
}

async fn timed(
    clock: &Clock,
    world: &World,
    folder: &std::path::Path,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let begun: Instant = clock.now();
    let node = memory::start(world, folder, 0).await?;
    let took = clock.now() - begun;
    drop(node);
    Ok(took)
}

fn print_times(what: &str, took: &mut [Duration], target_ms: u64) {
    took.sort_unstable();
    let (Some(best), Some(median)) = (took.first(), took.get(took.len() / 2)) else { return };
    let ms = |d: &Duration| d.as_secs_f64() * 1e3;
    say(format_args!(
        "ready {what}: best {:.0} ms, median {:.0} ms (target {target_ms})",
        ms(best),
        ms(median)
    ));
}

/// Writes records of ended calls and of calls that were left open.
fn fill(store: &std::path::Path, records: u64, orphans: u64) -> rusqlite::Result<()> {
    let to = Connection::open(store)?;
    for (count, ended) in [(records, "n * 1000 + 60000000"), (orphans, "NULL")] {
        let insert = format!(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count}) \
             INSERT INTO calls (call_uuid, auth_id, main_auth_id, direction, call_type, from_number, to_number, \
             caller_name, wacid, phone_number_id, node_id, started_us, ended_us, hangup_code, cause) \
             SELECT lower(hex(randomblob(16))), 'MADEVOFFHOOK00000001', 'MADEVOFFHOOK00000001', 'inbound', 'whatsapp', \
             '919412341234', '918035737458', 'Asha', 'wacid.' || n || '.' || ({ended}), '106540352242922', '{node}', \
             1700000000000000 + n * 1000, {ended}, 4000, 'caller_hangup' FROM numbers",
            node = host_name()
        );
        to.execute_batch(&insert)?;
    }
    Ok(())
}

/// Returns the node id that the node derives from the host name.
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect()
}
