//! Two nodes that write to one PostgreSQL.

use std::path::Path;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, future};
use sqlx::{Connection as _, Row as _};
use uuid::Uuid;

use crate::database::Database;
use crate::options::StoreOptions;
use crate::rows::call::{CallStart, Conclusion};
use crate::rows::callback::NewCallback;
use crate::rows::conversation::ConversationChange;
use crate::rows::message::{EnqueueResult, InboxResult, NewMessage, OutgoingMessages};
use crate::rows::number::RoutingChange;
use crate::rows::permission::{ChangedPermission, PermissionRow, PermissionWrite};
use crate::sample::setup;
use crate::scope::Scope;
use crate::store::Store;
use crate::tables::fleet::FleetSession;
use crate::testing::{place, skipped_on_sqlite};
use crate::tests::{MAIN, callback, end, secs, start};
use crate::writer::batch::tests::came;
use model::{Direction, Health, MessageStatus, Routing, Secret};

const SUB: &str = "SAAAAAAAAAAAAAAAAAAA";
/// Users of a test.
const USERS: u64 = 4;

async fn open(folder: &Path, node: &str) -> Store {
    let at = place(&folder.join("data/offhook.db")).await;
    let options = StoreOptions::with_journal_in(folder.join(node));
    Store::open_with(at, options, Health::new()).await.unwrap()
}

/// One write of a node, about a user.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A message. Meta sends some of them to both nodes.
    Message { n: u128, user: u128 },
    /// A call and its callback.
    Call { n: u128, is_sub: bool },
    /// Mutes the agent, which counts up the conversation's epoch.
    Mute { user: u128 },
    /// Routes the number, which counts up its generation.
    Route,
    /// Counts a missed call.
    Miss { user: u128 },
}

/// SplitMix64: the same numbers on every machine.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }

    fn user(&mut self) -> u128 {
        u128::from(self.below(USERS))
    }
}

/// The writes of both nodes.
fn random_steps(rng: &mut Rng) -> [Vec<Step>; 2] {
    let mut steps = [Vec::new(), Vec::new()];
    for n in 100..500_u128 {
        let at = usize::from(rng.below(2) == 1);
        let step = match rng.below(20) {
            0..9 => Step::Message { n, user: rng.user() },
            9..14 => Step::Call { n, is_sub: rng.below(2) == 0 },
            14..16 => Step::Mute { user: rng.user() },
            16 => Step::Route,
            _ => Step::Miss { user: rng.user() },
        };
        steps[at].push(step);
        if matches!(step, Step::Message { .. }) && rng.below(4) == 0 {
            steps[1 - at].push(step);
        }
    }
    steps
}

fn call(n: u128, is_sub: bool, node: &str) -> (CallStart, NewCallback) {
    let account = if is_sub { SUB } else { MAIN };
    // Two nodes have calls of the same hours.
    let start = CallStart {
        node_id: node.to_owned(),
        started: secs((n % 3) as i64),
        ..start(n, account, MAIN)
    };
    (start, NewCallback { node_id: node.to_owned(), ..callback(n, n) })
}

/// Queues a write. The future completes when it is stored, and fails the test if the database has
/// not taken it.
fn queue(store: &Store, node: &str, step: Step) -> BoxFuture<'static, ()> {
    match step {
        Step::Message { n, user } => {
            let stored = store.messages().receive(came(n, user)).unwrap();
            async move { assert!(matches!(stored.await.unwrap(), InboxResult::Entry(..))) }.boxed()
        }
        Step::Call { n, is_sub } => {
            let (start, callback) = call(n, is_sub, node);
            assert!(store.calls().begin(start.clone(), &setup(n), secs(0)));
            let end = end(n as i64, n as u64);
            let conclusion = Conclusion { start, end, callbacks: vec![callback], farewell: None };
            let ended = store.calls().conclude(conclusion);
            async move { assert_eq!(ended.await.unwrap().callbacks.len(), 1) }.boxed()
        }
        Step::Mute { user } => {
            let store = store.clone();
            async move {
                let mute = ConversationChange { ai_enabled: Some(false), ..Default::default() };
                let id = Uuid::from_u128(1_000 + user);
                let scope = Scope::of(MAIN.into());
                let done = store.conversations().change(&scope, id, mute, Vec::new()).await;
                assert!(done.unwrap().0);
            }
            .boxed()
        }
        Step::Route => {
            let store = store.clone();
            async move {
                let routing = Routing::Webhook(None);
                let change = RoutingChange {
                    phone_number_id: "7".into(),
                    account: MAIN.into(),
                    routing,
                    all: true,
                };
                store.numbers().set_routing(change).await.unwrap();
            }
            .boxed()
        }
        Step::Miss { user } => {
            let row = PermissionRow {
                number: "7".into(),
                user: format!("91981234567{user}"),
                state: "none".to_owned(),
                pair: "1".to_owned(),
                updated: secs(1),
            };
            let count = |pair: Option<&str>| {
                let before: u64 = pair.map_or(0, |pair| pair.parse().unwrap());
                let (state, pair) = ("none".to_owned(), (before + 1).to_string());
                Some(ChangedPermission { state, pair, applied: true })
            };
            let write = PermissionWrite { row, reply: None, change: Some(Box::new(count)) };
            let stored = store.permissions().put(write).unwrap();
            async move { stored.await.unwrap() }.boxed()
        }
    }
}

/// Carries out steps at a node and waits until all are stored.
async fn carry_out(store: &Store, node: &str, steps: &[Step]) {
    // Not all at once: then there would be a single batch.
    for some in steps.chunks(7) {
        future::join_all(some.iter().map(|step| queue(store, node, *step))).await;
    }
}

/// What must not depend on the number of writers.
async fn contents(session: &mut FleetSession) -> Vec<String> {
    let tables = [
        "SELECT message_id, conversation_id, status FROM messages",
        "SELECT conversation_id, unread, epoch, heard_us, last_us, ai_enabled FROM conversations",
        "SELECT owner, first_owner, generation, routing FROM number_tenures",
        "SELECT call_uuid, auth_id, ended_us, bill_secs FROM calls",
        "SELECT event_id, call_uuid, kind FROM callbacks",
        "SELECT \"user\", pair FROM permissions",
        "SELECT scope, hour, auth_id, direction, hangup_code, hangup_source, sum(calls) FROM call_hours \
         GROUP BY 1, 2, 3, 4, 5, 6",
        "SELECT scope, day, auth_id, direction, hangup_code, hangup_source, sum(calls), max(longest_us) FROM call_days \
         GROUP BY 1, 2, 3, 4, 5, 6",
    ];
    let mut rows = Vec::new();
    for table in tables {
        let text = format!("SELECT t::text AS row FROM ({table}) t ORDER BY 1");
        let found = sqlx::query(sqlx::AssertSqlSafe(text));
        let found = found.fetch_all(&mut session.connection).await.unwrap();
        assert!(!found.is_empty(), "{table}");
        rows.extend(found.iter().map(|row| row.get::<String, _>("row")));
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn f22_two_writers() {
    if skipped_on_sqlite() {
        return;
    }
    for seed in 1..=4 {
        let (shared, alone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (a, b) = (open(shared.path(), "a").await, open(shared.path(), "b").await);
        let one = open(alone.path(), "one").await;
        let steps = random_steps(&mut Rng(seed));
        // The conversations exist, so that each can be muted.
        let first: Vec<_> =
            (0..u128::from(USERS)).map(|user| Step::Message { n: user, user }).collect();
        carry_out(&a, "a", &first).await;
        tokio::join!(carry_out(&a, "a", &steps[0]), carry_out(&b, "b", &steps[1]));
        carry_out(&one, "a", &first).await;
        carry_out(&one, "a", &steps[0]).await;
        carry_out(&one, "b", &steps[1]).await;
        let mut both = a.fleet_session().await.unwrap();
        let mut single = one.fleet_session().await.unwrap();
        assert_eq!(contents(&mut both).await, contents(&mut single).await, "seed {seed}");
        for store in [a, b, one] {
            store.close().await;
        }
    }
}

/// A session that holds locks, as another node does.
async fn other_node(store: &Store, statements: &'static str) -> FleetSession {
    let mut session = store.fleet_session().await.unwrap();
    sqlx::raw_sql(statements).execute(&mut session.connection).await.unwrap();
    session
}

/// Waits until somebody waits for a lock of this session.
async fn blocks(session: &mut FleetSession) {
    let waiters = "SELECT count(*) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))";
    let mut every = tokio::time::interval(Duration::from_millis(5));
    for _ in 0..1_000 {
        every.tick().await;
        let waiters = sqlx::query_scalar::<_, i64>(waiters);
        if waiters.fetch_one(&mut session.connection).await.unwrap() > 0 {
            return;
        }
    }
    panic!("nobody waits");
}

async fn commit(mut session: FleetSession) {
    sqlx::raw_sql("COMMIT").execute(&mut session.connection).await.unwrap();
    session.close().await.unwrap();
}

fn reply(n: u128, epoch: u64) -> OutgoingMessages {
    let message = NewMessage {
        id: Uuid::from_u128(9_000 + n),
        direction: Direction::Outbound,
        status: MessageStatus::Queued,
        wamid: None,
        ..came(n, 1).message
    };
    OutgoingMessages {
        conversation: Uuid::from_u128(1_001),
        messages: vec![message],
        node_id: "a".to_owned(),
        epoch: Some(epoch),
        answers: None,
    }
}

#[tokio::test]
async fn f20_an_answer_of_an_agent_waits_for_another_nodes_change_of_routing() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "a").await;
    carry_out(&store, "a", &[Step::Message { n: 1, user: 1 }]).await;
    let agent = Routing::Agent(Uuid::from_u128(7));
    let change = ConversationChange { routing: Some(agent), ..Default::default() };
    let (scope, id) = (Scope::of(MAIN.into()), Uuid::from_u128(1_001));
    store.conversations().change(&scope, id, change, Vec::new()).await.unwrap();
    let epoch = store.conversations().get(&scope, id).await.unwrap().unwrap().standing.epoch;
    for n in [1, 3] {
        assert_eq!(store.messages().enqueue(reply(n, epoch)).await.unwrap(), EnqueueResult::Stored);
    }
    let begin =
        async |n: u128| store.messages().begin_sending(Uuid::from_u128(9_000 + n), secs(9)).await;
    assert!(begin(3).await.unwrap());

    // The conversation is routed elsewhere, then the whole number.
    for change in [
        "BEGIN; UPDATE conversations SET epoch = epoch + 1",
        "BEGIN; UPDATE number_tenures SET generation = generation + 1, routing = 'none'",
    ] {
        let now = store.conversations().get(&scope, id).await.unwrap().unwrap().standing;
        assert_eq!(now.routing, agent);
        let mut other = other_node(&store, change).await;
        let late = store.messages();
        let late = late.enqueue(reply(2, now.epoch));
        let ((), late) = tokio::join!(
            async {
                blocks(&mut other).await;
                commit(other).await;
            },
            late
        );
        assert_eq!(late.unwrap(), EnqueueResult::Refused, "{change}");
    }
    assert!(!begin(1).await.unwrap(), "nor is one sent that was queued before");
    store.close().await;
}

#[tokio::test]
async fn f22_a_conversation_that_another_node_adds_to_is_not_deleted_as_empty() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "a").await;
    carry_out(&store, "a", &[Step::Message { n: 1, user: 1 }]).await;
    assert!(!store.messages().delete_older(secs(2), 1_000).await.unwrap());
    let (scope, id) = (Scope::of(MAIN.into()), Uuid::from_u128(1_001));
    assert!(store.conversations().get(&scope, id).await.unwrap().is_none());

    carry_out(&store, "a", &[Step::Message { n: 1, user: 1 }]).await;
    sqlx::raw_sql("DELETE FROM messages")
        .execute(&mut store.fleet_session().await.unwrap().connection)
        .await
        .unwrap();
    // The other node stores a new message.
    let mut other =
        other_node(&store, "BEGIN; UPDATE conversations SET last_us = 9e15, unread = 1").await;
    let deletes = store.messages();
    let ((), more) = tokio::join!(
        async {
            blocks(&mut other).await;
            commit(other).await;
        },
        deletes.delete_older(secs(2), 1_000)
    );
    assert!(!more.unwrap());
    assert_eq!(store.conversations().get(&scope, id).await.unwrap().unwrap().unread, 1);
    store.close().await;
}

#[tokio::test]
async fn f22_a_deadlock_with_another_node_is_tried_again() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "a").await;
    let first: Vec<_> = (1..4).map(|n| Step::Message { n, user: n }).collect();
    carry_out(&store, "a", &first).await;
    // The writer waits for this row, while the next batch is gathered.
    let mut earlier = other_node(
        &store,
        "BEGIN; UPDATE conversations SET unread = 0 WHERE conversation_id LIKE '%3eb'",
    )
    .await;
    let third = store.messages().receive(came(13, 3)).unwrap();
    blocks(&mut earlier).await;
    // The other node has the second row and wants the first one, which the batch has by then. It
    // never gives way.
    let mut other = other_node(
        &store,
        "SET deadlock_timeout = '1h'; SET lock_timeout = 0; BEGIN; \
         UPDATE conversations SET unread = 10 WHERE conversation_id LIKE '%3ea'",
    )
    .await;
    let late = [came(11, 1), came(12, 2)].map(|came| store.messages().receive(came).unwrap());
    commit(earlier).await;
    assert!(matches!(third.await.unwrap(), InboxResult::Entry(Some((_, 1)), _)));
    blocks(&mut other).await;
    sqlx::raw_sql("UPDATE conversations SET unread = 20 WHERE conversation_id LIKE '%3e9'")
        .execute(&mut other.connection)
        .await
        .unwrap();
    commit(other).await;
    let unread = future::join_all(late).await.into_iter().map(|done| match done.unwrap() {
        InboxResult::Entry(Some((_, unread)), _) => unread,
        result => panic!("{result:?}"),
    });
    assert_eq!(unread.collect::<Vec<_>>(), [21, 11]);
    store.close().await;
}

#[tokio::test]
async fn f22_a_node_that_stops_in_a_transaction_does_not_stop_the_others() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "a").await;
    carry_out(&store, "a", &[Step::Message { n: 1, user: 1 }]).await;
    let mut stopped = other_node(&store, "BEGIN; UPDATE conversations SET unread = 10").await;
    let late = store.messages().receive(came(2, 1)).unwrap();
    assert!(
        matches!(late.await.unwrap(), InboxResult::Entry(Some((_, 2)), _)),
        "neither in the journal nor after the other node's change"
    );
    let resumed = sqlx::raw_sql("COMMIT").execute(&mut stopped.connection).await;
    assert!(resumed.is_err(), "its transaction is gone");
    store.close().await;
}

/// Opens the store of a node that is a member of the fleet.
async fn open_member(folder: &Path, node: &str) -> (Store, Uuid) {
    let (store, run) = (open(folder, node).await, Uuid::new_v4());
    let mut session = store.fleet_session().await.unwrap();
    assert!(session.register(run, node, "{}", false).await.unwrap().is_some());
    session.close().await.unwrap();
    store.write_as(run);
    (store, run)
}

/// Begins and ends a call with a callback. Returns the number of callbacks of its end.
async fn one_call(store: &Store, n: u128) -> Option<usize> {
    let (start, callback) = call(n, false, "a");
    assert!(store.calls().begin(start.clone(), &setup(n), secs(0)));
    store.flush().await;
    let end = end(n as i64, n as u64);
    let conclusion = Conclusion { start, end, callbacks: vec![callback], farewell: None };
    store.calls().conclude(conclusion).await.ok().map(|concluded| concluded.callbacks.len())
}

/// Reads a number.
async fn number(store: &Store, text: &'static str) -> i64 {
    let mut session = store.fleet_session().await.unwrap();
    sqlx::query_scalar(text).fetch_one(&mut session.connection).await.unwrap()
}

/// A failover that has lost the last commits, as this test makes it: everything of these calls is
/// gone, and the number of the last batch is that of an earlier one.
#[tokio::test]
async fn f22_replay_batches_that_a_failover_has_lost_are_written_again() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open_member(folder.path(), "a").await;
    assert_eq!(one_call(&store, 100).await, Some(1));
    let before = number(&store, "SELECT batch FROM run_batches").await;
    for n in 101..110 {
        assert_eq!(one_call(&store, n).await, Some(1));
    }
    assert!(store.calls().begin(call(110, false, "a").0, &setup(110), secs(0)));
    store.flush().await;
    assert!(number(&store, "SELECT batch FROM run_batches").await > before + 9);

    let mut session = store.fleet_session().await.unwrap();
    let text = "UPDATE run_batches SET batch = $1";
    sqlx::query(text).bind(before).execute(&mut session.connection).await.unwrap();
    // All but the first call.
    let text = "DELETE FROM calls WHERE call_uuid NOT LIKE '%64'; \
        DELETE FROM callbacks WHERE call_uuid NOT LIKE '%64'";
    sqlx::raw_sql(text).execute(&mut session.connection).await.unwrap();
    session.close().await.unwrap();

    // The next batch finds that.
    let _ = one_call(&store, 111).await;
    let mut every = tokio::time::interval(Duration::from_millis(20));
    let ended = "SELECT count(*) FROM calls WHERE ended_us IS NOT NULL";
    while number(&store, ended).await < 11 {
        every.tick().await;
    }
    assert_eq!(number(&store, "SELECT count(*) FROM calls").await, 12);
    let callbacks = "SELECT count(*) * 1000 + count(DISTINCT event_id) FROM callbacks";
    assert_eq!(number(&store, callbacks).await, 11_011, "one callback a call");
    store.close().await;
}

#[tokio::test]
async fn f22_f28_a_process_that_was_declared_dead_writes_nothing() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (store, run) = open_member(folder.path(), "a").await;
    assert_eq!(one_call(&store, 100).await, Some(1));
    let mut survivor = store.fleet_session().await.unwrap();
    survivor.fence(run).await.unwrap();
    assert_eq!(one_call(&store, 101).await, Some(1), "members are not fenced off");
    assert!(survivor.declare_dead(run, 0).await.unwrap());

    // A batch that is being written is committed before the fence is up.
    let mut lock = other_node(&store, "BEGIN; LOCK TABLE calls IN SHARE MODE").await;
    assert!(store.calls().begin(call(102, false, "a").0, &setup(102), secs(0)));
    blocks(&mut lock).await;
    let fence = async {
        // The fence waits for a second at most.
        while survivor.fence(run).await.is_err() {}
    };
    let ((), ()) = tokio::join!(fence, commit(lock));
    assert_eq!(number(&store, "SELECT count(*) FROM calls").await, 3);

    assert_eq!(one_call(&store, 103).await, None);
    assert_eq!(number(&store, "SELECT count(*) FROM calls").await, 3);
    store.close().await;
    let journal = std::fs::read(folder.path().join("a/store.journal")).unwrap_or_default();
    let journal = String::from_utf8_lossy(&journal);
    assert!(!journal.contains("concluded"), "{journal}");
}

#[tokio::test]
async fn f04_of_two_records_of_one_call_the_first_remains() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (one, _) = open_member(folder.path(), "a").await;
    let (other, _) = open_member(folder.path(), "b").await;
    let (first, _) = call(100, false, "a");
    assert!(one.calls().begin(first, &setup(100), secs(0)));
    one.flush().await;
    let (copy, reported) = call(101, false, "b");
    let copy = CallStart { wacid: Some("wacid.100".into()), ..copy };
    let mut withdrawn = other.take_withdrawn().unwrap();
    assert!(other.calls().begin(copy.clone(), &setup(101), secs(0)));
    assert_eq!(withdrawn.recv().await, Some(copy.call));
    let conclusion =
        Conclusion { start: copy, end: end(101, 1), callbacks: vec![reported], farewell: None };
    let concluded = other.calls().conclude(conclusion).await.unwrap();
    assert!(!concluded.changed && concluded.callbacks.is_empty());
    assert_eq!(one_call(&one, 100).await, Some(1));
    assert_eq!(number(&one, "SELECT count(*) FROM calls").await, 1);
    one.close().await;
    other.close().await;
}

#[tokio::test]
async fn a_reached_connection_limit_is_explained() {
    if skipped_on_sqlite() {
        return;
    }
    let admin = std::env::var(crate::testing::VARIABLE).unwrap();
    let mut connection = sqlx::PgConnection::connect(&admin).await.unwrap();
    let role = format!("no_connections_{}", std::process::id());
    let make = format!("CREATE ROLE {role} LOGIN CONNECTION LIMIT 0");
    sqlx::query(sqlx::AssertSqlSafe(make)).execute(&mut connection).await.unwrap();
    let mut url = url::Url::parse(&admin).unwrap();
    url.set_username(&role).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = StoreOptions::with_journal_in(folder.path());
    let at = Database::Postgres(Secret::new(url.as_str()));
    let refused = Store::open_with(at, options, Health::new()).await.err().unwrap().to_string();
    let drop_role = format!("DROP ROLE {role}");
    sqlx::query(sqlx::AssertSqlSafe(drop_role)).execute(&mut connection).await.unwrap();
    assert!(refused.contains("too many connections for role"), "{refused}");
    assert!(refused.contains("raise max_connections of the PostgreSQL server"), "{refused}");
}
