//! The fleet's functions on a real PostgreSQL.

use std::collections::BTreeMap;

use fleet::{Answer, Ask, Beat, Ledger, LimitKey, RunRow, RunState, TermState, Units, Verdict};
use futures_util::future::try_join_all;
use sqlx::{Connection as _, Row as _};
use uuid::Uuid;

use crate::error::StoreError;
use crate::store::Store;
use crate::tables::erasures::Erasure;
use crate::tables::fleet::{ClaimKey, ClaimOutcome, FleetSession, ForgetOutcome};
use crate::tables::room_hosts::{RoomHost, RoomRef};
use crate::testing::skipped_on_sqlite;
use machine::RoomKind;
use model::{AuthId, Clock, Health, Timestamp};

/// Opens a store of a test.
async fn open(folder: &tempfile::TempDir) -> Store {
    Store::open(&folder.path().join("data/offhook.db"), Health::new()).await.unwrap()
}

/// SplitMix64: the same numbers on every machine.
struct Rng(u64);

impl Rng {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn small(&mut self, end: u32) -> u32 {
        u32::try_from(self.below(end.into())).unwrap()
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).unwrap()].clone()
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, usize::try_from(self.below(end as u64 + 1)).unwrap());
        }
    }
}

fn key(number: u64) -> LimitKey {
    LimitKey::number(&number.to_string())
}

/// Executes statements of the test itself.
async fn execute(session: &mut FleetSession, text: &'static str) {
    sqlx::raw_sql(text).execute(&mut session.connection).await.unwrap();
}

/// The tables as the twin has them.
async fn tables(session: &mut FleetSession) -> Ledger {
    let on = &mut session.connection;
    let fleet = "SELECT mark, term::text, open, book, members FROM fleet";
    let fleet = sqlx::query(fleet).fetch_one(&mut *on).await.unwrap();
    let id = |text: &str| text.parse::<Uuid>().unwrap();
    let mut ledger = Ledger {
        mark: fleet.get("mark"),
        term: TermState {
            id: id(fleet.get("term")),
            open: fleet.get("open"),
            book: fleet.get("book"),
            members: fleet.get("members"),
        },
        ..Ledger::new()
    };
    let runs = "SELECT run::text, node_id, state, seq, restated::text FROM runs";
    for row in sqlx::query(runs).fetch_all(&mut *on).await.unwrap() {
        let run = RunRow {
            node_id: row.get("node_id"),
            state: RunState::parse(row.get("state")).unwrap(),
            seq: row.get("seq"),
            restated: row.get::<Option<&str>, _>("restated").map(id),
        };
        ledger.runs.insert(id(row.get("run")), run);
    }
    let number = |value: i32| u32::try_from(value).unwrap();
    for row in sqlx::query("SELECT key, cap FROM limits").fetch_all(&mut *on).await.unwrap() {
        ledger.limits.insert(LimitKey::from(row.get::<&str, _>("key")), number(row.get("cap")));
    }
    let units = "SELECT key, run::text, held, wish FROM units";
    for row in sqlx::query(units).fetch_all(&mut *on).await.unwrap() {
        let holder = (LimitKey::from(row.get::<&str, _>("key")), id(row.get("run")));
        let units = Units { held: number(row.get("held")), requested: number(row.get("wish")) };
        ledger.units.insert(holder, units);
    }
    ledger
}

/// A random beat of a run: usually the next one in the current term.
fn random_beat(rng: &mut Rng, ledger: &Ledger, run: Uuid, old_terms: &[Uuid]) -> Beat {
    let term = ledger.term.id;
    let seq = ledger.runs.get(&run).map_or(0, |row| row.seq);
    let mut keys: Vec<_> = (0..6).map(key).collect();
    rng.shuffle(&mut keys);
    keys.truncate(usize::try_from(rng.below(7)).unwrap());
    let restated = ledger.runs.get(&run).is_some_and(|row| row.restated == Some(term));
    Beat {
        sent: std::time::Duration::ZERO,
        run,
        term: if rng.once_in(15) { rng.pick(old_terms) } else { term },
        refused: rng.once_in(100).then_some(term),
        seq: if rng.once_in(10) { seq } else { seq + 1 },
        acked: if rng.once_in(30) { seq + 1 } else { seq },
        whole: if restated { rng.once_in(10) } else { !rng.once_in(5) },
        may_open: rng.once_in(2),
        asks: keys.into_iter().map(|key| Ask { key, want: rng.small(12) }).collect(),
    }
}

#[tokio::test]
async fn f10_sql() {
    const REQUESTS: u32 = 6_000;
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    let (mark, first, runs) = session.runs().await.unwrap();
    assert_eq!((runs, first.open), (vec![], false));
    let mut twin = tables(&mut session).await;
    assert_eq!(twin, Ledger { term: first, ..Ledger::new() });
    let mut rng = Rng(1);
    let mut old_terms = vec![first.id];
    let mut runs: Vec<Uuid> = Vec::new();
    let mut verdicts = BTreeMap::<&str, u32>::new();
    let (mut grown, mut refused) = (0, 0);
    for request in 0..REQUESTS {
        if runs.len() < 3 || rng.once_in(60) {
            runs.push(Uuid::from_u128(rng.number().into()));
        }
        // The last ones are the most likely to be members.
        let newest = runs.len() - rng.below(4.min(runs.len() as u64)) as usize - 1;
        let run = runs[newest];
        let row = twin.runs.get(&run).cloned();
        match rng.below(100) {
            0 if !rng.once_in(3) => {
                // Another server is the primary.
                execute(&mut session, "UPDATE fleet SET mark = 'another'").await;
                twin.mark = "another".to_owned();
            }
            0 => {
                // The database has forgotten a beat of everybody.
                execute(&mut session, "UPDATE runs SET seq = greatest(0, seq - 1)").await;
                twin.runs.values_mut().for_each(|row| row.seq = (row.seq - 1).max(0));
            }
            1 => {
                // The database has forgotten a run.
                let forget = "DELETE FROM runs WHERE run = $1::uuid";
                let forget = sqlx::query(forget).bind(run.to_string());
                forget.execute(&mut session.connection).await.unwrap();
                twin.runs.remove(&run);
            }
            2..=4 => {
                let cap = (key(rng.below(6)), rng.small(20));
                session.set_caps(std::slice::from_ref(&cap)).await.unwrap();
                twin.limits.insert(cap.0, cap.1);
            }
            5..=6 => {
                let seq = row.map_or(0, |row| row.seq) + i64::from(rng.once_in(3));
                let dead = session.declare_dead(run, seq).await.unwrap();
                assert_eq!(dead, twin.declare_dead(run, seq));
            }
            7..=9 => {
                let run = rng.pick(&runs);
                assert_eq!(session.release(run).await.unwrap(), twin.release(run));
            }
            10 => assert_eq!(session.leave(run).await.unwrap(), twin.leave(run)),
            11..=20 => {
                let (node, again) = (rng.below(4).to_string(), rng.once_in(3));
                let term = session.register(run, &node, "{}", again).await.unwrap();
                let new_term = tables(&mut session).await.term.id;
                assert_eq!(term, twin.register(&mark, new_term, run, &node, again));
            }
            _ => {
                let beat = random_beat(&mut rng, &twin, run, &old_terms);
                let answer = session.beat(&beat).await.unwrap();
                assert_eq!(answer, twin.beat(&mark, answer.term.id, &beat), "{beat:?}");
                *verdicts.entry(answer.verdict.as_str()).or_default() += 1;
                for (ask, grant) in beat.asks.iter().zip(&answer.grants) {
                    grown += u32::from(!beat.whole && grant.held > 0);
                    refused += u32::from(grant.held < ask.want);
                }
            }
        }
        if old_terms.last() != Some(&twin.term.id) {
            old_terms.push(twin.term.id);
        }
        if request % 50 == 0 {
            assert_eq!(tables(&mut session).await, twin);
        }
    }
    assert_eq!(tables(&mut session).await, twin);
    assert!(verdicts.len() == 6 && verdicts.values().all(|count| *count > 20), "{verdicts:?}");
    assert!(grown > 1_000 && refused > 1_000 && old_terms.len() > 20, "{grown} {refused}");
    session.close().await.unwrap();
    store.close().await;
}

/// The next beat of a run in an open term.
fn next_beat(run: Uuid, term: Uuid, seq: i64, whole: bool, asks: Vec<Ask>) -> Beat {
    let sent = std::time::Duration::ZERO;
    Beat { sent, run, term, refused: None, seq, acked: 0, whole, may_open: false, asks }
}

/// Registers a run and lets it state that it holds nothing.
async fn join(session: &mut FleetSession, run: Uuid) -> Result<Uuid, StoreError> {
    let state = session.register(run, &run.to_string(), "{}", false).await?;
    let term = state.expect("registered").id;
    let answer = session.beat(&next_beat(run, term, 1, true, Vec::new())).await?;
    assert_eq!(answer.verdict, Verdict::Ok);
    Ok(term)
}

#[tokio::test(flavor = "multi_thread")]
async fn f53_sql() {
    const SESSIONS: u64 = 8;
    const BEATS: i64 = 60;
    const LIMITS: u64 = 30;
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let caps: Vec<_> = (0..LIMITS).map(|number| (key(number), 40)).collect();
    store.fleet_session().await.unwrap().set_caps(&caps).await.unwrap();

    // Each session is one run after another. Those that die leave their units to the next one.
    let node = async |store: Store, seed: u64| -> Result<u64, StoreError> {
        let (mut rng, mut session) = (Rng(seed), store.fleet_session().await?);
        let mut grants = 0;
        for life in 0..3 {
            let run = Uuid::from_u128(rng.number().into());
            let term = join(&mut session, run).await?;
            for seq in 2..BEATS {
                let mut asks: Vec<_> =
                    (0..LIMITS).map(|n| Ask { key: key(n), want: rng.small(20) }).collect();
                rng.shuffle(&mut asks);
                let answer = session.beat(&next_beat(run, term, seq, false, asks)).await?;
                assert_eq!(answer.verdict, Verdict::Ok);
                grants += answer.grants.iter().map(|grant| u64::from(grant.held)).sum::<u64>();
            }
            if life == 2 {
                assert!(session.leave(run).await?);
            } else {
                assert!(session.declare_dead(run, BEATS - 1).await?);
                assert!(session.release(run).await?);
            }
        }
        Ok(grants)
    };
    let nodes = (0..SESSIONS).map(|seed| tokio::spawn(node(store.clone(), seed)));
    let nodes = tokio::spawn(try_join_all(nodes));
    let mut observer = store.fleet_session().await.unwrap();
    let mut seen = 0;
    while !nodes.is_finished() {
        let over = "SELECT count(*), count(*) FILTER (WHERE held > cap) FROM limits l \
            JOIN (SELECT key, sum(held) AS held FROM units GROUP BY key) u ON u.key = l.key";
        let counts = sqlx::query(over).fetch_one(&mut observer.connection).await.unwrap();
        assert_eq!(counts.get::<i64, _>(1), 0, "more units than a limit has");
        seen += counts.get::<i64, _>(0);
        // Caps that change take the same locks.
        observer.set_caps(&caps).await.unwrap();
    }
    for granted in nodes.await.unwrap().unwrap() {
        assert!(granted.unwrap() > 0);
    }
    assert!(seen > 0);
    let left = tables(&mut observer).await;
    assert!(left.units.is_empty());
    assert!(left.runs.values().all(|row| matches!(row.state, RunState::Reaped | RunState::Left)));
    store.close().await;
}

#[tokio::test]
async fn f12_restored_units_begin_a_closed_term() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    session.set_caps(&[(key(1), 10)]).await.unwrap();
    let run = Uuid::from_u128(1);
    let term = join(&mut session, run).await.unwrap();
    let asks = || vec![Ask { key: key(1), want: 7 }];
    let held = |answer: &Answer| answer.grants.first().map(|grant| grant.held);
    let answer = session.beat(&next_beat(run, term, 2, false, asks())).await.unwrap();
    assert_eq!((answer.verdict, answer.term.open, held(&answer)), (Verdict::Ok, true, Some(7)));

    // A restore in place empties the table, as this does, and fills it again.
    execute(&mut session, "TRUNCATE units").await;
    let answer = session.beat(&next_beat(run, term, 3, false, asks())).await.unwrap();
    assert_eq!((answer.verdict, answer.term.open), (Verdict::Term, false));
    assert_ne!(answer.term.id, term);
    let term = answer.term.id;
    let answer = session.beat(&next_beat(run, term, 4, true, asks())).await.unwrap();
    assert_eq!((answer.verdict, held(&answer)), (Verdict::Ok, Some(7)));
    let more = vec![Ask { key: key(1), want: 8 }];
    let answer = session.beat(&next_beat(run, term, 5, false, more.clone())).await.unwrap();
    assert_eq!((answer.verdict, held(&answer)), (Verdict::Ok, Some(7)));
    let opens = Beat { may_open: true, ..next_beat(run, term, 6, false, more) };
    let answer = session.beat(&opens).await.unwrap();
    assert_eq!((answer.term.open, held(&answer)), (true, Some(8)));
    store.close().await;
}

#[tokio::test]
async fn beats_need_the_isolation_level_read_committed() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    let term = join(&mut session, Uuid::from_u128(1)).await.unwrap();
    execute(&mut session, "SET default_transaction_isolation = 'repeatable read'").await;
    let beat = next_beat(Uuid::from_u128(1), term, 2, false, Vec::new());
    let refused = session.beat(&beat).await.unwrap_err();
    assert!(refused.to_string().contains("read committed"), "{refused}");
    session.connection.ping().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn runs_are_read_with_what_they_say_about_themselves() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    let [one, two] = [1, 2].map(Uuid::from_u128);
    join(&mut session, one).await.unwrap();
    join(&mut session, two).await.unwrap();
    session.describe(one, r#"{"peer":"10.0.0.1:7900"}"#).await.unwrap();
    assert!(session.leave(two).await.unwrap());
    let (_, _, runs) = session.runs().await.unwrap();
    let [run] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!((run.run, run.state, run.seq), (one, RunState::Up, 1));
    assert_eq!(run.about, r#"{"peer":"10.0.0.1:7900"}"#);
    // Another run of the node ends this one.
    let term = session.register(two, &one.to_string(), "{}", false).await.unwrap();
    assert!(term.is_some(), "a run that left has a row");
    let three = Uuid::from_u128(3);
    session.register(three, &one.to_string(), "{}", false).await.unwrap().unwrap();
    let (_, _, runs) = session.runs().await.unwrap();
    let states: Vec<_> = runs.iter().map(|run| (run.run, run.state)).collect();
    assert_eq!(states, [(one, RunState::Dead), (three, RunState::Up)]);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn f04_of_copies_at_several_nodes_one_claims_the_call() {
    const NODES: u128 = 3;
    const CALLS: u128 = 200;
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    // Each node has three copies of every call.
    let copies = (0..NODES * 3).map(|copy| {
        let (store, run) = (store.clone(), Uuid::from_u128(1 + copy % NODES));
        tokio::spawn(async move {
            let mut session = store.fleet_session().await?;
            session.register(run, &run.to_string(), "{}", false).await?;
            let mut outcomes = Vec::new();
            for hash in 0..CALLS {
                let wacid = format!("wacid.{hash}");
                let key = ClaimKey { hash, phone_number_id: "7", wacid: &wacid };
                let call = Uuid::from_u128(hash * 100 + copy);
                outcomes.push(match session.claim(key, run, call, b"birth").await? {
                    ClaimOutcome::Mine => run,
                    ClaimOutcome::Other { run, .. } => run,
                    other => panic!("{other:?}"),
                });
            }
            Ok::<_, StoreError>(outcomes)
        })
    });
    let owners: Result<Vec<_>, _> = try_join_all(copies).await.unwrap().into_iter().collect();
    let owners = owners.unwrap();
    assert!(owners.windows(2).all(|pair| pair[0] == pair[1]), "one owner for each call");
    let mut session = store.fleet_session().await.unwrap();
    let count = sqlx::query("SELECT count(*), count(DISTINCT key) FROM claims");
    let count = count.fetch_one(&mut session.connection).await.unwrap();
    let calls = i64::try_from(CALLS).unwrap();
    assert_eq!((count.get::<i64, _>(0), count.get::<i64, _>(1)), (calls, calls));
    store.close().await;
}

#[tokio::test]
async fn f05_claims_name_the_owner_of_a_call() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    let [one, two, call] = [1, 2, 3].map(Uuid::from_u128);
    let key = |hash, wacid| ClaimKey { hash, phone_number_id: "7", wacid };
    assert_eq!(
        session.claim(key(1, "a"), one, call, b"birth").await.unwrap(),
        ClaimOutcome::NotMember
    );
    for run in [one, two] {
        join(&mut session, run).await.unwrap();
    }
    let other = ClaimOutcome::Other { run: one, call };
    for (run, outcome) in [(one, ClaimOutcome::Mine), (one, ClaimOutcome::Mine), (two, other)] {
        assert_eq!(session.claim(key(1, "a"), run, call, b"birth").await.unwrap(), outcome);
    }
    // The end of the call comes to the other node.
    assert_eq!(session.bury(key(1, "a"), two).await.unwrap(), other);
    // The end of another call comes before its start.
    assert_eq!(session.bury(key(2, "b"), two).await.unwrap(), ClaimOutcome::Mine);
    let late = session.claim(key(2, "b"), one, Uuid::from_u128(4), b"birth").await.unwrap();
    assert_eq!(late, ClaimOutcome::Tombstone);

    // A run that could not reject a call decides again. Once Meta has answered, the call is over.
    let (reject, own) = (key(4, "d"), Uuid::from_u128(5));
    for hash in [4, 5] {
        let outcome = session.claim_rejection(key(hash, "d"), one, b"rejection").await.unwrap();
        assert_eq!(outcome, ClaimOutcome::Mine);
    }
    let again = session.claim_rejection(reject, one, b"rejection").await.unwrap();
    assert_eq!(again, ClaimOutcome::Mine);
    assert_eq!(session.bury(reject, two).await.unwrap(), ClaimOutcome::Tombstone);
    session.settle_rejections(&[4]).await.unwrap();
    assert_eq!(session.claim(reject, one, own, b"birth").await.unwrap(), ClaimOutcome::Tombstone);

    // A claim that was written without this being known is withdrawn.
    let lost = key(6, "e");
    assert_eq!(session.claim(lost, one, own, b"birth").await.unwrap(), ClaimOutcome::Mine);
    session.withdraw_claims(one, &[6]).await.unwrap();
    assert_eq!(session.claim(lost, two, own, b"birth").await.unwrap(), ClaimOutcome::Mine);
    session.withdraw_claims(one, &[6]).await.unwrap();
    let theirs = ClaimOutcome::Other { run: two, call: own };
    assert_eq!(session.claim(lost, one, own, b"birth").await.unwrap(), theirs);
    session.withdraw_claims(two, &[6]).await.unwrap();

    // The owner dies before the call has a row, and before another one is rejected.
    assert!(session.declare_dead(one, 1).await.unwrap());
    let rejections = session.unsettled_rejections(one, 10).await.unwrap();
    assert_eq!(rejections, [b"rejection".to_vec()]);
    let orphans = session.orphan_claims(one, 10).await.unwrap();
    let [orphan] = &orphans[..] else { panic!("{orphans:?}") };
    assert_eq!((orphan.hash, orphan.call, &orphan.birth[..]), (1, call, &b"birth"[..]));
    let row = "INSERT INTO calls (call_uuid, auth_id, main_auth_id, direction, call_type, from_number, to_number, \
        caller_name, wacid, phone_number_id, node_id, started_us) \
        VALUES ('00000000-0000-0000-0000-000000000003', '', '', '', '', '', '', '', 'a', '7', '', 0)";
    execute(&mut session, row).await;
    assert!(session.orphan_claims(one, 10).await.unwrap().is_empty());
    let recorded = ClaimOutcome::Recorded { call };
    assert_eq!(session.claim(key(1, "a"), two, call, b"birth").await.unwrap(), recorded);
    // A claim goes a minute after its call was written, and a tombstone after 10 minutes.
    session.expire_claims(one).await.unwrap();
    assert_eq!(session.claim(key(1, "a"), two, call, b"birth").await.unwrap(), recorded);
    execute(&mut session, "UPDATE claims SET at = at - interval '11 minutes'").await;
    assert_eq!(session.bury(key(3, "c"), two).await.unwrap(), ClaimOutcome::Mine);
    for run in [one, two] {
        session.expire_claims(run).await.unwrap();
    }
    let left = sqlx::query_scalar("SELECT encode(key, 'hex') FROM claims");
    let left: Vec<String> = left.fetch_all(&mut session.connection).await.unwrap();
    assert_eq!(left, [format!("{:032x}", 3)]);
    store.close().await;
}

#[tokio::test]
async fn a_fleet_needs_postgresql() {
    if crate::testing::skipped_on_postgres() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let refused = store.fleet_session().await.unwrap_err();
    assert!(refused.to_string().contains("a fleet needs PostgreSQL"), "{refused}");
    store.close().await;
}

#[tokio::test]
async fn f19_the_work_of_a_dead_node_is_adopted() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    let (dead, other) =
        (crate::owner_name("a", Uuid::from_u128(1)), crate::owner_name("ab", Uuid::from_u128(2)));
    for (call, owner, ended, farewell) in [
        (1, &dead, None, None),
        (2, &dead, Some(5), Some(7)),
        (3, &dead, Some(5), None),
        (4, &other, Some(5), Some(7)),
    ] {
        let row = "INSERT INTO calls (call_uuid, auth_id, main_auth_id, direction, call_type, from_number, to_number, \
            caller_name, phone_number_id, node_id, started_us, ended_us, farewell_us) VALUES ($1, '', '', '', '', '', '', '', '7', $2, 0, $3, $4)";
        let row = sqlx::query(row).bind(Uuid::from_u128(call).to_string()).bind(owner);
        let row = row.bind::<Option<i64>>(ended).bind::<Option<i64>>(farewell);
        row.execute(&mut session.connection).await.unwrap();
    }
    let mine = crate::owner_name("a", Uuid::from_u128(3));
    assert_eq!(session.inherit("a", &mine).await.unwrap(), std::slice::from_ref(&dead));
    assert_eq!(session.adopt(&dead, &mine).await.unwrap(), 1);
    assert_eq!(session.adopt(&dead, &mine).await.unwrap(), 0);
    let owners =
        sqlx::query_scalar("SELECT coalesce(farewell_node, node_id) FROM calls ORDER BY call_uuid");
    let owners: Vec<String> = owners.fetch_all(&mut session.connection).await.unwrap();
    // An open call is first ended under its owner's name.
    assert_eq!(owners, [dead.clone(), mine.clone(), dead.clone(), other]);
    store.close().await;
}

#[tokio::test]
async fn f19_runs_that_leave_together_pass_their_work_to_one_that_stays() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    let [one, two, three] = [1, 2, 3].map(Uuid::from_u128);
    for run in [one, two] {
        join(&mut session, run).await.unwrap();
    }
    let owner = |run: Uuid| crate::owner_name(&run.to_string(), run);
    let row = "INSERT INTO calls (call_uuid, auth_id, main_auth_id, direction, call_type, from_number, to_number, \
        caller_name, phone_number_id, node_id, started_us, ended_us, farewell_us) \
        VALUES ('1', '', '', '', '', '', '', '', '7', $1, 0, 5, 7)";
    let row = sqlx::query(row).bind(owner(one)).execute(&mut session.connection).await;
    row.unwrap();
    let heir = async |session: &mut FleetSession| {
        let heir = sqlx::query_scalar("SELECT coalesce(farewell_node, node_id) FROM calls");
        heir.fetch_one(&mut session.connection).await.unwrap()
    };
    for run in [one, two] {
        session.set_draining(run).await.unwrap();
    }
    session.bequeath(one, &owner(one)).await.unwrap();
    let kept: String = heir(&mut session).await;
    assert_eq!(kept, owner(one), "the other one leaves, too");
    join(&mut session, three).await.unwrap();
    session.bequeath(one, &owner(one)).await.unwrap();
    let passed: String = heir(&mut session).await;
    assert_eq!(passed, owner(three));
    store.close().await;
}

#[tokio::test]
async fn f31_a_room_has_one_host_until_it_ends_or_the_host_dies() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    let [one, two, three] = [1, 2, 3].map(Uuid::from_u128);
    let rooms = [11, 12, 13, 14].map(Uuid::from_u128);
    let (account, main) = (AuthId::from("SA1"), AuthId::from("MA1"));
    let room = RoomRef {
        account: &account,
        main_account: &main,
        kind: RoomKind::Conference,
        name: "Team room",
    };
    assert_eq!(session.host_room(room, rooms[0], one).await.unwrap(), None, "not a member");
    for run in [one, two] {
        join(&mut session, run).await.unwrap();
    }
    let host = |run, room, is_new| Some(RoomHost { run, room, is_new });
    let first = session.host_room(room, rooms[0], one).await.unwrap();
    assert_eq!(first, host(one, rooms[0], true));
    for run in [one, two] {
        let again = session.host_room(room, rooms[1], run).await.unwrap();
        assert_eq!(again, host(one, rooms[0], false));
    }
    // A multi-party call of the name is another room.
    let call = RoomRef { kind: RoomKind::MultiParty, ..room };
    let other = session.host_room(call, rooms[1], two).await.unwrap();
    assert_eq!(other, host(two, rooms[1], true));
    for (scope, kind, name, found) in [
        (&account, RoomKind::Conference, Ok("Team room"), host(one, rooms[0], false)),
        (&main, RoomKind::Conference, Ok("Team room"), host(one, rooms[0], false)),
        (&main, RoomKind::MultiParty, Err(rooms[1]), host(two, rooms[1], false)),
        (&main, RoomKind::Conference, Err(rooms[1]), None),
        (&main, RoomKind::Conference, Ok("team room"), None),
        (&main, RoomKind::Conference, Ok("\0"), None),
        (&AuthId::from("MA2"), RoomKind::Conference, Ok("Team room"), None),
    ] {
        assert_eq!(
            session.find_room(scope, kind, name, false).await.unwrap(),
            found,
            "{scope:?} {name:?}"
        );
    }
    // The main account opens a room of the same name at another node.
    let of_main = RoomRef { account: &main, ..room };
    let own = session.find_room(&main, RoomKind::Conference, Ok("Team room"), true).await;
    assert_eq!(own.unwrap(), None);
    session.host_room(of_main, rooms[3], two).await.unwrap();
    for own_only in [true, false] {
        assert_eq!(
            session
                .find_room(&main, RoomKind::Conference, Ok("Team room"), own_only)
                .await
                .unwrap(),
            host(two, rooms[3], false)
        );
    }
    session.release_room(rooms[3]).await.unwrap();
    // It ends, and another node opens the next one.
    session.release_room(rooms[0]).await.unwrap();
    let next = session.host_room(room, rooms[2], two).await.unwrap();
    assert_eq!(next, host(two, rooms[2], true));
    // A late release of the earlier one changes nothing.
    session.release_room(rooms[0]).await.unwrap();
    let same = session.host_room(room, rooms[3], one).await.unwrap();
    assert_eq!(same, host(two, rooms[2], false));
    // The host dies.
    assert!(session.declare_dead(two, 1).await.unwrap());
    assert_eq!(
        session.find_room(&main, RoomKind::MultiParty, Err(rooms[1]), false).await.unwrap(),
        None
    );
    let taken = session.host_room(room, rooms[3], one).await.unwrap();
    assert_eq!(taken, host(one, rooms[3], true));
    session.release_rooms_of(two).await.unwrap();
    session.release_rooms_of(three).await.unwrap();
    let left = sqlx::query("SELECT count(*) FROM room_hosts");
    let left = left.fetch_one(&mut session.connection).await.unwrap();
    assert_eq!(left.get::<i64, _>(0), 1);
    store.close().await;
}

#[tokio::test]
async fn f42_a_node_is_forgotten_when_its_calls_have_ended() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    let [lost, other] = [1, 2].map(Uuid::from_u128);
    for (run, name) in [(lost, "a"), (other, "b")] {
        session.register(run, name, "{}", false).await.unwrap().unwrap();
    }
    let owner = crate::owner_name("a", lost);
    for (n, owner, ended, object) in [
        (1, &*owner, None, None),
        (2, &*owner, Some(5), None),
        (3, &*owner, Some(5), Some("copied.wav")),
        (4, "a", None, None),
        (5, "ab", None, None),
    ] {
        let row = "INSERT INTO recordings (recording_id, auth_id, main_auth_id, call_uuid, format, stereo, node_id, \
            started_us, ended_us, object, upload_us) VALUES ($1, '', '', '', 'wav', 0, $2, 0, $3, $4, $3)";
        let row = sqlx::query(row).bind(Uuid::from_u128(n).to_string()).bind(owner);
        let row = row.bind::<Option<i64>>(ended).bind::<Option<&str>>(object);
        row.execute(&mut session.connection).await.unwrap();
    }
    execute(
        &mut session,
        "INSERT INTO files_to_remove (node_id, file) VALUES ('a', 'x'), ('b', 'y')",
    )
    .await;
    assert_eq!(session.forget("c").await.unwrap(), ForgetOutcome::Unknown);
    assert_eq!(session.forget("a").await.unwrap(), ForgetOutcome::Running);
    assert!(session.take_recordings("a", "b/2").await.unwrap().is_empty(), "it may go on");
    assert_eq!(session.away_with_recordings().await.unwrap(), ["ab"]);
    assert!(session.declare_dead(lost, 0).await.unwrap());
    assert_eq!(session.forget("a").await.unwrap(), ForgetOutcome::Ending);
    assert!(session.release(lost).await.unwrap());
    let mut away = session.away_with_recordings().await.unwrap();
    away.sort();
    assert_eq!(away, ["a", "ab"]);
    assert_eq!(session.forget("a").await.unwrap(), ForgetOutcome::Forgotten);
    assert_eq!(session.forget("a").await.unwrap(), ForgetOutcome::Forgotten, "again");
    let mut taken = session.take_recordings("a", "b/2").await.unwrap();
    taken.sort();
    assert_eq!(taken, [1, 4].map(Uuid::from_u128));
    assert!(session.take_recordings("a", "b/3").await.unwrap().is_empty(), "by one node");
    assert_eq!(session.drop_recordings("a").await.unwrap(), 1);
    let left =
        "SELECT right(recording_id, 1) || coalesce(upload_us::text, '') FROM recordings ORDER BY 1";
    let left: Vec<String> =
        sqlx::query_scalar(left).fetch_all(&mut session.connection).await.unwrap();
    assert_eq!(left, ["1", "3", "4", "5"]);
    let files = sqlx::query_scalar("SELECT node_id FROM files_to_remove");
    let files: Vec<String> = files.fetch_all(&mut session.connection).await.unwrap();
    assert_eq!(files, ["b"]);
    // A process that was paused all the time learns that it is dead, in a closed term, too.
    execute(&mut session, "UPDATE fleet SET open = FALSE").await;
    let (_, term, _) = session.runs().await.unwrap();
    let beat = Beat {
        run: lost,
        term: term.id,
        refused: None,
        seq: 2,
        acked: 0,
        whole: true,
        may_open: false,
        asks: Vec::new(),
        sent: std::time::Duration::ZERO,
    };
    assert_eq!(session.beat(&beat).await.unwrap().verdict, Verdict::Dead);
    // It may come back as a new node.
    let again = session.register(Uuid::from_u128(3), "a", "{}", false).await.unwrap();
    assert!(again.is_some());
    assert_eq!(session.forget("a").await.unwrap(), ForgetOutcome::Running);
    store.close().await;
}

#[tokio::test]
async fn f19_deadlines_of_adopted_callbacks_are_times_of_the_new_owner() {
    if skipped_on_sqlite() {
        return;
    }
    const HOUR: i64 = 3_600_000_000;
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    // One clock is an hour ahead of the database's, one as far behind; one run is of an earlier version.
    let runs = [1, 2, 3].map(Uuid::from_u128);
    let abouts =
        [format!("{{\"clock_us\":{HOUR}}}"), format!("{{\"clock_us\":-{HOUR}}}"), "{}".to_owned()];
    for (run, about) in runs.iter().zip(&abouts) {
        session.register(*run, &run.to_string(), about, false).await.unwrap().unwrap();
    }
    let [ahead, behind, unknown] = runs.map(|run| crate::owner_name(&run.to_string(), run));
    let row = "INSERT INTO callbacks (event_id, call_uuid, auth_id, main_auth_id, node_id, kind, origin, url, method, \
        params, created_us, since_us, next_us) VALUES ('', '', '', '', $1, '', '', '', '', '', $2, $2, $3)";
    let row = sqlx::query(row).bind(&ahead).bind(10 * HOUR).bind(11 * HOUR);
    row.execute(&mut session.connection).await.unwrap();
    for (theirs, mine, expected) in [
        (&ahead, &behind, (8 * HOUR, 9 * HOUR)),
        (&ahead, &behind, (8 * HOUR, 9 * HOUR)),
        (&behind, &unknown, (8 * HOUR, 9 * HOUR)),
        (&unknown, &ahead, (8 * HOUR, 9 * HOUR)),
        (&ahead, &behind, (6 * HOUR, 7 * HOUR)),
    ] {
        session.adopt(theirs, mine).await.unwrap();
        let times =
            sqlx::query_as("SELECT created_us, next_us FROM callbacks WHERE since_us = created_us");
        let times: (i64, i64) = times.fetch_one(&mut session.connection).await.unwrap();
        assert_eq!(times, expected, "{theirs} {mine}");
    }
    let clock = Clock::jumping();
    assert!(session.clock_ahead(&clock).await.unwrap().abs() < HOUR);
    store.close().await;
}

#[tokio::test]
async fn f16_limits_of_which_nobody_holds_units_are_deleted() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    let caps: Vec<_> = (0..4).map(|n| (key(n), 10)).collect();
    session.set_caps(&caps).await.unwrap();
    execute(
        &mut session,
        "INSERT INTO units (key, run, held, wish) VALUES ('n:1', gen_random_uuid(), 0, 0), \
            ('n:2', gen_random_uuid(), 0, 3), ('n:3', gen_random_uuid(), 2, 0)",
    )
    .await;
    // One is known, one is wanted and one is held.
    assert_eq!(session.delete_other_caps([key(0)].iter()).await.unwrap(), 1);
    let left: Vec<LimitKey> = tables(&mut session).await.limits.into_keys().collect();
    assert_eq!(left, [key(0), key(2), key(3)]);
    session.close().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn f24_an_erasure_waits_for_the_disks_of_nodes_that_do_not_run() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut session = store.fleet_session().await.unwrap();
    session.register(Uuid::from_u128(1), "b", "{}", false).await.unwrap();
    // A node outside the fleet has had another name.
    execute(
        &mut session,
        "INSERT INTO files_to_remove (node_id, file) VALUES ('b', 'x'), ('earlier-name', 'y'); \
            UPDATE runs SET state = 'reaped'",
    )
    .await;
    let erasure = Erasure {
        id: Uuid::from_u128(7),
        account: "MA".into(),
        main_account: "MA".into(),
        wa_id: "919812345678".to_owned(),
        known_as: Vec::new(),
        asked: Timestamp::from_secs(1),
    };
    store.erasures().request(erasure.clone()).await.unwrap();
    assert!(!store.erasures().finish(&erasure).await.unwrap());
    assert_eq!(store.erasures().list().await.unwrap().len(), 1);
    assert_eq!(session.forget("b").await.unwrap(), ForgetOutcome::Forgotten);
    assert!(store.erasures().finish(&erasure).await.unwrap());
    assert!(store.erasures().list().await.unwrap().is_empty());
    session.close().await.unwrap();
    store.close().await;
}
