//! Benchmark of call lists: a page of a history of one million records, and a page of ten thousand
//! live calls.
//!
//! `cargo bench --bench lists`. The lower bound for a history page reads the same twenty rows by
//! primary key. Every figure is the best of several runs, with the database file in the page cache.
//! `OFFHOOK_BENCH_RECORDS` shortens the history. `OFFHOOK_BENCH_STORE` names a file that keeps it
//! for later runs.

#![allow(clippy::print_stdout, reason = "a bench prints its figures")]

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use model::Clock;
use model::Health;
use model::{AuthId, CallUuid, Direction, Timestamp};
use offhook::api::{CallSummary, LiveFilter, newest_page};
use rusqlite::{Connection, OpenFlags};
use store::{CallFilter, Compare, Scope, Store};

const MAIN: &str = "MA000000000000000000";
/// 2026-11-20. With six calls per second, two days yield about a million records.
const BEGAN_US: i64 = 1_795_132_800_000_000;
const APART_US: i64 = 166_667;
const LIVE: u64 = 10_000;
const ROUNDS: usize = 15;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let records = std::env::var("OFFHOOK_BENCH_RECORDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    live();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(history(records))
}

/// Measures a page of `?status=live`, from the registry to the list of UUIDs.
fn live() {
    let account = AuthId::from(MAIN);
    let (user, number) = ("919812345678", "918035737458");
    let calls: Vec<CallSummary<'_>> = (0..LIVE)
        .map(|n| CallSummary {
            call: CallUuid(uuid::Uuid::from_u128(u128::from(n) * 0x9e37_79b9_7f4a_7c15)),
            account: &account,
            direction: if n % 2 == 0 { Direction::Inbound } else { Direction::Outbound },
            from: user,
            to: number,
            started: Timestamp::from_micros(
                BEGAN_US + i64::try_from(n * 7_919 % LIVE).unwrap_or_default(),
            ),
        })
        .collect();
    let clock = Clock::real();
    for (what, direction, skip) in
        [("all", None, 0), ("outbound", Some(Direction::Outbound), 0), ("the last", None, 9_980)]
    {
        let filter = LiveFilter { direction, from: Some(user.to_owned()), ..LiveFilter::default() };
        let best = best(&clock, || {
            let found = calls
                .iter()
                .filter(|call| filter.matches(call))
                .map(|call| (call.started, call.call))
                .collect();
            std::hint::black_box(newest_page(found, skip, 20));
        });
        println!("{LIVE} live calls, {what}: {:.2} ms (target 50)", millis(best));
    }
}

fn best(clock: &Clock, mut piece: impl FnMut()) -> Duration {
    let time = |piece: &mut dyn FnMut()| {
        let begun = clock.now();
        piece();
        clock.now() - begun
    };
    (0..ROUNDS * 10).map(|_| time(&mut piece)).min().unwrap_or_default()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

async fn history(records: i64) -> Outcome<()> {
    let dir = tempfile::tempdir()?;
    let kept = std::env::var_os("OFFHOOK_BENCH_STORE").map(std::path::PathBuf::from);
    let file = kept.unwrap_or_else(|| dir.path().join("offhook.db"));
    if !file.exists() {
        Store::open(&file, Health::new()).await?.close().await;
        let begun = Clock::real().now();
        fill(&file, records)?;
        println!(
            "{records} records written in {:.0} s",
            (Clock::real().now() - begun).as_secs_f64()
        );
    }
    let keys = keys(&file, records)?;

    let clock = Clock::real();
    let db = Connection::open_with_flags(&file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut row = db.prepare("SELECT * FROM calls WHERE call_uuid = ?1")?;
    let mut floor = Duration::MAX;
    for _ in 0..ROUNDS {
        let begun = clock.now();
        for key in &keys {
            row.query_one([key], |row| row.get::<_, String>(0))?;
        }
        floor = floor.min(clock.now() - begun);
    }
    println!("twenty records by their keys: {:.2} ms", millis(floor));

    let store = Store::open(&file, Health::new()).await?;
    let (main, sub) = (Scope::of(MAIN.into()), Scope::of("SA000000000000000001".into()));
    let all = CallFilter::default;
    let at =
        |part: f64| Timestamp::from_micros(BEGAN_US + (records as f64 * part) as i64 * APART_US);
    let half = u64::try_from(records / 2)?;
    let lists = [
        ("the first page", &main, all(), 0),
        ("in the middle", &main, all(), half),
        ("the last page", &main, all(), half * 2 - 20),
        ("a subaccount's, deep", &sub, all(), half / 4),
        (
            "outbound, deep",
            &main,
            CallFilter { direction: Some(Direction::Outbound), ..all() },
            half / 3,
        ),
        (
            "one cause, deep",
            &main,
            CallFilter { hangup_codes: Some(4_010..=4_010), ..all() },
            half / 5,
        ),
        ("from one user", &main, CallFilter { from: Some("919800000123".to_owned()), ..all() }, 0),
        ("to one number", &main, CallFilter { to: Some("918000000007".to_owned()), ..all() }, 40),
        (
            "ended within an hour, half way",
            &main,
            CallFilter {
                ended: vec![(Compare::GreaterEqual, at(0.5)), (Compare::Less, at(0.52))],
                ..all()
            },
            40,
        ),
        (
            "longer than 590 s",
            &main,
            CallFilter { bill_secs: vec![(Compare::Greater, 590)], ..all() },
            40,
        ),
    ];
    for (what, scope, filter, offset) in &lists {
        let (mut best, mut found) = (Duration::MAX, 0);
        for _ in 0..ROUNDS {
            let begun = clock.now();
            found = store.calls().list(scope, filter, 20, *offset).await?.1;
            best = best.min(clock.now() - begun);
        }
        println!(
            "{what} (of {found}): {:.2} ms, {:.1} times the floor (target 20 ms)",
            millis(best),
            ratio(best, floor)
        );
    }
    store.close().await;
    Ok(())
}

fn ratio(ours: Duration, floor: Duration) -> f64 {
    ours.as_secs_f64() / floor.as_secs_f64()
}

/// Returns the keys of twenty records spread over the history.
fn keys(file: &Path, records: i64) -> Outcome<Vec<String>> {
    let db = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut keys =
        db.prepare("SELECT call_uuid FROM calls WHERE rowid % (?1 / 20) = 1 LIMIT 20")?;
    let keys = keys.query_map([records], |row| row.get(0))?;
    Ok(keys.collect::<rusqlite::Result<_>>()?)
}

/// Writes the history and its tallies. The triggers count calls that end, not rows inserted as
/// ended, so the tallies are written here.
fn fill(file: &Path, records: i64) -> Outcome<()> {
    const ROWS: &str = "WITH RECURSIVE n(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n + 1 < ?1) \
        INSERT INTO calls (call_uuid, auth_id, main_auth_id, direction, call_type, from_number, to_number, caller_name, \
            wacid, phone_number_id, node_id, started_us, ended_us, answered_us, duration_secs, bill_secs, hangup_code, \
            hangup_name, hangup_source, hangup_word, cause, remarks, findings) \
        SELECT lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-a' || \
                substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))), \
            CASE n % 3 WHEN 0 THEN printf('SA%018d', n / 3 % 3) ELSE 'MA000000000000000000' END, \
            'MA000000000000000000', CASE n % 4 WHEN 0 THEN 'outbound' ELSE 'inbound' END, 'whatsapp', \
            CASE n % 4 WHEN 0 THEN printf('9180%08d', n * 7919 % 200) ELSE printf('9198%08d', n * 7919 % 200000) END, \
            CASE n % 4 WHEN 0 THEN printf('9198%08d', n * 7919 % 200000) ELSE printf('9180%08d', n * 7919 % 200) END, \
            '', 'wacid.' || hex(randomblob(16)), '1', 'node', ?2 + n * ?3, ?2 + n * ?3 + n * 7919 % 600 * 1000000, \
            ?2 + n * ?3 + 2000000, n * 7919 % 600, n * 7919 % 600, CASE n % 5 WHEN 0 THEN 4010 ELSE 4000 END, \
            'Normal Hangup', CASE n % 5 WHEN 0 THEN 'Plivo' ELSE 'Caller' END, 'NORMAL_CLEARING', 'caller_hangup', '[]', \
            '[]' FROM n";
    let db = Connection::open(file)?;
    db.execute_batch("PRAGMA synchronous = OFF")?;
    db.execute(ROWS, (records, BEGAN_US, APART_US))?;
    // A call counts for its main account, and for its subaccount if it has one.
    for (scope, only) in [("main_auth_id", ""), ("auth_id", "AND auth_id <> main_auth_id")] {
        for (table, unit_us, longest) in [
            ("call_hours", "3600000000", ""),
            ("call_days", "86400000000", ", max(ended_us - started_us)"),
        ] {
            let tally = format!(
                "INSERT INTO {table} SELECT {scope}, started_us / {unit_us}, auth_id, direction, hangup_code, \
                 hangup_source, node_id, count(*){longest} FROM calls WHERE ended_us IS NOT NULL {only} \
                 GROUP BY 1, 2, 3, 4, 5, 6, 7"
            );
            db.execute_batch(&tally)?;
        }
    }
    Ok(())
}
