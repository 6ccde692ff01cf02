//! Tests of the store against real files or a PostgreSQL server.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::backup::{Backup, BackupError};
use crate::error::StoreError;
use crate::rows::call::{
    CallEnd, CallFilter, CallStart, Compare, Conclusion, ConclusionResult, Farewell, Orphan,
    StartedCall,
};
use crate::rows::callback::{CallbackRow, DeliveryOutcome, NewCallback, NumberEvent, Settlement};
use crate::rows::event_key::{KeyKind, SeenKey};
use crate::sample::setup;
use crate::scope::Scope;
use crate::sql;
use crate::store::Store;
use crate::tables::deliveries::Receiver;
use crate::tables::outbox::{Rearm, rearm};
use crate::testing::{pool, skipped_on_postgres};
use crate::write::Write;
use machine::{CallSetup, CallbackKind, CallbackRequest, GraphAction, MPC_END, Param};
use model::{CallType, CallUuid, Direction, HangupCause, Health, Method, PhoneNumberId, Timestamp};
use xml::ast::{DocUrl, Finding, Position, Severity};

pub(crate) const MAIN: &str = "MAAAAAAAAAAAAAAAAAAA";

const SUB: &str = "SAAAAAAAAAAAAAAAAAAA";

const OTHER: &str = "MABBBBBBBBBBBBBBBBBB";

pub(crate) fn uuid(n: u128) -> CallUuid {
    CallUuid(uuid::Uuid::from_u128(n))
}

pub(crate) fn secs(n: i64) -> Timestamp {
    Timestamp::from_secs(1_795_000_000 + n)
}

pub(crate) fn start(n: u128, account: &str, main: &str) -> CallStart {
    CallStart {
        call: uuid(n),
        account: account.into(),
        main_account: main.into(),
        direction: if n.is_multiple_of(2) { Direction::Inbound } else { Direction::Outbound },
        call_type: CallType::Whatsapp,
        from: format!("91981234567{}", n % 10),
        to: "918035737458".to_owned(),
        caller_name: "Zoë \"Z\"".to_owned(),
        wacid: Some(format!("wacid.{n}").into()),
        phone_number_id: "7".into(),
        parent_call: None,
        node_id: "node".to_owned(),
        started: secs(n as i64),
    }
}

/// Starts the call of [`start`].
pub(crate) fn begin(store: &Store, n: u128) {
    assert!(store.calls().begin(start(n, MAIN, MAIN), &setup(n), secs(0)));
}

pub(crate) fn end(n: i64, bill_secs: u64) -> CallEnd {
    CallEnd {
        answered: Some(secs(n)),
        duration_secs: bill_secs + 2,
        bill_secs,
        meta_duration_secs: Some(bill_secs),
        remarks: vec!["it rang".to_owned()],
        findings: vec![Finding {
            rule: "W404".to_owned(),
            severity: Severity::Warning,
            at: Position::default(),
            message: "m".to_owned(),
            hint: "h".to_owned(),
        }],
        ..CallEnd::unanswered(HangupCause::CallerHangup, Direction::Inbound, secs(n + 60))
    }
}

struct Fixture {
    folder: tempfile::TempDir,
}

impl Fixture {
    async fn backup(&self, out: &Path) -> Result<Backup, BackupError> {
        crate::backup(&self.file(), self.file().parent().unwrap(), out).await
    }

    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> std::path::PathBuf {
        self.folder.path().join("data/offhook.db")
    }

    async fn open(&self) -> Store {
        Store::open(&self.file(), Health::new()).await.unwrap()
    }
}

/// Keeps the version in `deploy/NATIVE.md` up to date.
#[tokio::test]
async fn r27_sqlite_is_the_version_that_native_md_names() {
    if skipped_on_postgres() {
        return;
    }
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let version: String =
        sql::query_scalar("SELECT sqlite_version()").fetch_one(&store.shared.read).await.unwrap();
    let native = include_str!("../../../deploy/NATIVE.md");
    assert!(
        native.contains(&format!("| SQLite | {version} |")),
        "SQLite is {version}: say so in deploy/NATIVE.md"
    );
    store.close().await;
}

#[tokio::test]
async fn records_and_lines_survive_a_restart_and_end_once() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let scope = Scope::of(MAIN.into());
    let (begun, ended) = (start(1, MAIN, MAIN), end(1, 49));
    begin(&store, 1);
    begin(&store, 2);
    for seq in 0..1_200 {
        assert!(store.event_log().append(uuid(1), seq, format!("{{\"seq\":{seq}}}")));
    }
    assert!(store.calls().conclude_without_callbacks(begun.clone(), ended.clone()).await.unwrap());
    assert!(
        !store.calls().conclude_without_callbacks(begun.clone(), end(5, 7)).await.unwrap(),
        "a second end changes nothing"
    );
    store.event_log().append_late(uuid(1), "first".to_owned());
    store.event_log().append_late(uuid(1), "second".to_owned());
    store.event_log().append_late(uuid(9), "of no log".to_owned());
    store.close().await;
    assert!(matches!(
        store.calls().conclude_without_callbacks(begun.clone(), end(5, 7)).await,
        Err(StoreError::Closed)
    ));

    let store = fixture.open().await;
    let record = store.calls().get(&scope, uuid(1)).await.unwrap().unwrap();
    assert_eq!((record.start, record.end), (begun, Some(ended)));
    assert_eq!(store.other_nodes("node").await.unwrap(), []);
    let others = store.other_nodes("another").await.unwrap();
    assert!(matches!(&others[..], [(name, 1..)] if name == "node"), "{others:?}");
    let orphans = store.calls().orphans("node").await.unwrap();
    assert_eq!(orphans.iter().map(|o| &o.start).collect::<Vec<_>>(), [&start(2, MAIN, MAIN)]);
    assert!(store.calls().orphans("another").await.unwrap().is_empty());

    let first = store.calls().events(&scope, uuid(1), None, 1_000).await.unwrap();
    let rest = store.calls().events(&scope, uuid(1), Some(999), 1_000).await.unwrap();
    assert_eq!(
        (first.len(), rest.len(), rest[0].clone()),
        (1_000, 202, (1_000, "{\"seq\":1000}".to_owned()))
    );
    let late = [(1_000_000, "first".to_owned()), (1_000_001, "second".to_owned())];
    assert_eq!(rest[200..], late, "after all lines of the call's own task");
    assert!(store.calls().events(&scope, uuid(9), None, 10).await.unwrap().is_empty());
    assert!(
        store.calls().events(&Scope::of(OTHER.into()), uuid(1), None, 10).await.unwrap().is_empty()
    );

    store.calls().delete_history(secs(0), secs(62)).await.unwrap();
    assert!(
        store.calls().conclude_without_callbacks(start(2, MAIN, MAIN), end(2, 0)).await.unwrap()
    );
    assert!(store.calls().events(&scope, uuid(1), None, 10).await.unwrap().is_empty(), "forgotten");
    assert!(store.calls().get(&scope, uuid(1)).await.unwrap().is_some(), "its record stays");
    store.close().await;
}

#[tokio::test]
async fn the_end_restores_a_lost_start() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    assert!(
        store.calls().conclude_without_callbacks(start(3, MAIN, MAIN), end(3, 1)).await.unwrap()
    );
    begin(&store, 3);
    assert!(
        !store.calls().conclude_without_callbacks(start(3, MAIN, MAIN), end(3, 1)).await.unwrap()
    );
    let record = store.calls().get(&Scope::of(MAIN.into()), uuid(3)).await.unwrap().unwrap();
    assert!(record.end.is_some(), "a late beginning does not open it again");
    store.close().await;
}

#[tokio::test]
async fn lists_filter_page_and_keep_tenants_apart() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    for n in 0..30 {
        let account = if n < 10 { SUB } else { MAIN };
        assert!(
            store
                .calls()
                .conclude_without_callbacks(start(n, account, MAIN), end(n as i64, n as u64))
                .await
                .unwrap()
        );
    }
    assert!(
        store
            .calls()
            .conclude_without_callbacks(start(99, OTHER, OTHER), end(99, 1))
            .await
            .unwrap()
    );
    begin(&store, 50);
    let main = Scope::of(MAIN.into());

    let (page, total) = store.calls().list(&main, &CallFilter::default(), 20, 0).await.unwrap();
    assert_eq!((page.len(), total), (20, 30), "without open calls and other accounts");
    assert_eq!((page[0].start.call, page[19].start.call), (uuid(29), uuid(10)), "newest first");
    let (page, total) = store.calls().list(&main, &CallFilter::default(), 20, 20).await.unwrap();
    assert_eq!((page.len(), total, page[9].start.call), (10, 30, uuid(0)));
    assert_eq!(
        store.calls().list(&main, &CallFilter::default(), 20, u64::MAX).await.unwrap().0.len(),
        0
    );
    assert_eq!(
        store.calls().list(&Scope::of(SUB.into()), &CallFilter::default(), 20, 0).await.unwrap().1,
        10
    );
    assert!(
        store.calls().get(&Scope::of(SUB.into()), uuid(20)).await.unwrap().is_none(),
        "a subaccount sees only its own"
    );
    assert!(store.calls().get(&main, uuid(99)).await.unwrap().is_none());

    let none = CallFilter::default();
    let cases: Vec<(CallFilter, u64)> = vec![
        (CallFilter { from: Some("919812345673".to_owned()), ..none.clone() }, 3),
        (CallFilter { to: Some("918035737458".to_owned()), ..none.clone() }, 30),
        (CallFilter { to: Some("' OR 1=1 --".to_owned()), ..none.clone() }, 0),
        (CallFilter { direction: Some(Direction::Inbound), ..none.clone() }, 15),
        (CallFilter { subaccount: Some(SUB.into()), ..none.clone() }, 10),
        (CallFilter { subaccount: Some(OTHER.into()), ..none.clone() }, 0),
        (CallFilter { parent_call: Some(uuid(1)), ..none.clone() }, 0),
        (CallFilter { hangup_codes: Some(4000..=4000), ..none.clone() }, 30),
        (CallFilter { hangup_codes: Some(1000..=3999), ..none.clone() }, 0),
        (CallFilter { hangup_source: Some("Caller".to_owned()), ..none.clone() }, 30),
        (CallFilter { bill_secs: vec![(Compare::Equal, 7)], ..none.clone() }, 1),
        (
            CallFilter {
                bill_secs: vec![(Compare::Greater, 7), (Compare::LessEqual, 9)],
                ..none.clone()
            },
            2,
        ),
        (CallFilter { ended: vec![(Compare::GreaterEqual, secs(60 + 25))], ..none.clone() }, 5),
        (
            CallFilter {
                ended: vec![(Compare::Less, secs(60 + 25))],
                direction: Some(Direction::Outbound),
                ..none
            },
            12,
        ),
    ];
    for (filter, expected) in cases {
        let (_, total) = store.calls().list(&main, &filter, 1, 0).await.unwrap();
        assert_eq!(total, expected, "{filter:?}");
    }
    store.close().await;
}

#[tokio::test]
async fn r11_a_backup_made_under_load_is_complete() {
    if skipped_on_postgres() {
        return;
    }
    use std::sync::atomic::{AtomicU64, Ordering};
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let (done, stop) = (AtomicU64::new(0), AtomicU64::new(0));
    let calls = async {
        for n in 0.. {
            let call = u128::from(n);
            begin(&store, call);
            for seq in 0..20 {
                store.event_log().append(uuid(call), seq, format!("{{\"at\":{seq}}}"));
            }
            if n % 10 != 9 {
                assert!(
                    store
                        .calls()
                        .conclude_without_callbacks(start(call, MAIN, MAIN), end(n as i64, n))
                        .await
                        .unwrap()
                );
                done.fetch_add(1, Ordering::SeqCst);
            }
            if stop.load(Ordering::SeqCst) == 1 {
                return;
            }
        }
    };
    let copies = async {
        let mut made = Vec::new();
        for n in 0..3 {
            while done.load(Ordering::SeqCst) < 5 * (n + 1) {
                tokio::task::yield_now().await;
            }
            let before = done.load(Ordering::SeqCst);
            let out = fixture.folder.path().join(format!("copy-{n}.db"));
            let backup = fixture.backup(&out).await.unwrap();
            assert!(
                (before..=done.load(Ordering::SeqCst) + 1).contains(&backup.ended),
                "{backup:?} after {before}"
            );
            made.push((out, before, backup));
        }
        stop.store(1, Ordering::SeqCst);
        made
    };
    let ((), made) = tokio::join!(calls, copies);
    let (again, _, _) = &made[0];
    let refused = fixture.backup(again).await.unwrap_err();
    assert!(matches!(refused, BackupError::Exists(_)), "{refused}");
    store.close().await;
    let names: Vec<_> =
        std::fs::read_dir(fixture.folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "only the copies and the data: {names:?}");

    for (copy, before, backup) in made {
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&copy).unwrap().len(), backup.bytes);
        // Restores the copy as the documentation says, without side files.
        std::fs::remove_dir_all(fixture.file().parent().unwrap()).unwrap();
        std::fs::create_dir(fixture.file().parent().unwrap()).unwrap();
        std::fs::copy(&copy, fixture.file()).unwrap();
        let store = fixture.open().await;
        let all = store
            .calls()
            .list(&Scope::of(MAIN.into()), &CallFilter::default(), 1, 0)
            .await
            .unwrap()
            .1;
        assert!(all >= before && all == backup.ended, "{all} of {before}: {backup:?}");
        assert_eq!(store.calls().orphans("node").await.unwrap().len() as u64, backup.open);
        store.close().await;
    }
}

#[tokio::test]
async fn a_failed_backup_leaves_no_file() {
    if skipped_on_postgres() {
        return;
    }
    let fixture = Fixture::new();
    let out = fixture.folder.path().join("copy.db");
    let none = fixture.backup(&out).await.unwrap_err();
    assert!(matches!(none, BackupError::NoStore(_)), "{none}");
    fixture.open().await.close().await;
    let nowhere = fixture.backup(&fixture.folder.path().join("no/copy.db")).await.unwrap_err();
    assert!(matches!(nowhere, BackupError::File { what: "write", .. }), "{nowhere}");
    assert!(
        !fixture.file().with_extension("db-wal").exists(),
        "a closed store has no write-ahead log"
    );
    std::fs::write(fixture.file(), "this is not a database, it is a text of some length").unwrap();
    let damaged = fixture.backup(&out).await.unwrap_err();
    assert!(
        damaged.to_string().starts_with("could not copy the store")
            || damaged.to_string().starts_with("could not open"),
        "{damaged}"
    );
    assert_eq!(std::fs::read_dir(fixture.folder.path()).unwrap().count(), 1, "only the data");
}

#[tokio::test]
async fn files_are_for_the_owner_only() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    assert!(
        store.calls().conclude_without_callbacks(start(1, MAIN, MAIN), end(1, 1)).await.unwrap()
    );
    let folder = fixture.file().parent().unwrap().to_owned();
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{:?}",
            entry.path()
        );
        files += 1;
    }
    assert!(files >= 2, "the database and its log");
    store.close().await;
}

#[tokio::test]
async fn damage_is_found_and_its_remedy_named() {
    if skipped_on_postgres() {
        return;
    }
    let fixture = Fixture::new();
    let store = fixture.open().await;
    for call in 1..=100 {
        let ended = store.calls().conclude_without_callbacks(start(call, MAIN, MAIN), end(1, 1));
        assert!(ended.await.unwrap());
    }
    store.close().await;
    let at = crate::Database::File(fixture.file());
    let within = std::time::Duration::from_secs(60);
    let damage = async || match crate::Archive::open(&at).await {
        Ok(archive) => archive.damage(within).await.unwrap(),
        Err(error) => Some(error.to_string()),
    };
    assert_eq!(damage().await, None);
    let mut bytes = std::fs::read(fixture.file()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 40_000].fill(0x5a);
    std::fs::write(fixture.file(), &bytes).unwrap();
    assert!(damage().await.is_some());
    // The page of the schema.
    bytes[100..4_000].fill(0x5a);
    std::fs::write(fixture.file(), &bytes).unwrap();
    let refused = Store::open(&fixture.file(), Health::new()).await.unwrap_err().to_string();
    assert!(refused.contains("restore a backup"), "{refused}");
}

#[tokio::test]
async fn refuses_a_file_that_is_not_a_database() {
    if skipped_on_postgres() {
        return;
    }
    let fixture = Fixture::new();
    std::fs::create_dir_all(fixture.file().parent().unwrap()).unwrap();
    std::fs::write(fixture.file(), "this is not a database, it is a text of some length").unwrap();
    let refused = Store::open(&fixture.file(), Health::new()).await.unwrap_err().to_string();
    assert!(
        refused.starts_with("could not open the store") && refused.contains("offhook.db"),
        "{refused}"
    );
}

pub(crate) fn callback(call: u128, event: u128) -> NewCallback {
    NewCallback {
        event_id: uuid::Uuid::from_u128(event),
        call: uuid(call),
        account: MAIN.into(),
        main_account: MAIN.into(),
        node_id: "node".to_owned(),
        origin: "https://app.example.com".to_owned(),
        notice: CallbackRequest {
            kind: CallbackKind::Hangup,
            url: DocUrl("https://app.example.com/hangup".into()),
            method: Method::Post,
            params: [
                ("Digits".into(), Param::Secret("4711".to_owned())),
                ("From".into(), Param::Plain("919812345678".into())),
            ]
            .into(),
        },
        number_event: None,
        shut: None,
        created: secs(1),
    }
}

/// The write of Meta's id of an outbound call may be lost when the store's queue is full.
#[tokio::test]
async fn r06_a_call_without_metas_id_holds_up_no_farewell_and_its_end_has_the_id() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    for n in [3, 5] {
        let start = CallStart { wacid: None, ..start(n, MAIN, MAIN) };
        assert!(store.calls().begin(start, &setup(n), secs(0)));
    }
    for (n, wacid) in [(3, None), (5, Some("wacid.5".into()))] {
        let conclusion = Conclusion {
            start: CallStart { wacid, ..start(n, MAIN, MAIN) },
            end: end(9, 7),
            callbacks: Vec::new(),
            farewell: Some(Farewell { action: GraphAction::Terminate, due: secs(90) }),
        };
        assert!(store.calls().conclude(conclusion).await.unwrap().changed);
    }
    let due = store.calls().due_farewells("node", secs(90), 9).await.unwrap();
    assert_eq!(
        due.iter().map(|due| (due.call, due.wacid.as_str())).collect::<Vec<_>>(),
        [(uuid(5), "wacid.5")]
    );
    store.close().await;
}

#[tokio::test]
async fn r03_the_end_and_its_callback_are_one_transaction() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    begin(&store, 2);
    let farewell = Some(Farewell { action: GraphAction::Terminate, due: secs(90) });
    let conclusion = Conclusion {
        start: start(2, MAIN, MAIN),
        end: end(2, 7),
        callbacks: vec![callback(2, 1)],
        farewell,
    };
    let mut again = conclusion.clone();
    again.callbacks = vec![callback(2, 2)];
    again.end.bill_secs = 9;
    let (first, second) = (store.calls().conclude(conclusion), store.calls().conclude(again));
    let first = first.await.unwrap();
    assert!(first.changed && first.callbacks.len() == 1 && first.callbacks[0].first);
    assert_eq!(
        second.await.unwrap(),
        ConclusionResult::default(),
        "a second end changes nothing and reports nothing"
    );
    assert_eq!(store.calls().due_farewells("node", secs(89), 9).await.unwrap(), []);
    store.close().await;

    let store = fixture.open().await;
    assert!(store.calls().orphans("node").await.unwrap().is_empty());
    let record = store.calls().get(&Scope::of(MAIN.into()), uuid(2)).await.unwrap().unwrap();
    assert_eq!(record.end.unwrap().bill_secs, 7);
    let (origins, _) = store.outbox().due_origins("node", secs(2)).await.unwrap();
    assert_eq!(origins, ["https://app.example.com"]);
    let due = store.outbox().due("node", &origins[0], secs(2), 9).await.unwrap();
    assert_eq!(due.iter().map(|c| &c.new).collect::<Vec<_>>(), [&callback(2, 1)], "unchanged");

    // A farewell left by another process is due at once, then put off, then done.
    store.calls().take_over_farewells("node");
    store.flush().await;
    let farewells = store.calls().due_farewells("node", secs(0), 9).await.unwrap();
    assert_eq!(
        farewells.iter().map(|f| (f.call, f.action, f.tries)).collect::<Vec<_>>(),
        [(uuid(2), GraphAction::Terminate, 0)]
    );
    store.calls().settle_farewell(uuid(2), Some(secs(300)));
    store.flush().await;
    assert_eq!(store.calls().due_farewells("node", secs(299), 9).await.unwrap(), []);
    assert_eq!(store.calls().due_farewells("node", secs(300), 9).await.unwrap()[0].tries, 1);
    store.calls().settle_farewell(uuid(2), None);
    store.flush().await;
    assert_eq!(store.calls().due_farewells("node", secs(9_999), 9).await.unwrap(), []);
    store.close().await;
}

#[tokio::test]
async fn callbacks_are_due_in_order_and_lose_their_secrets_once_delivered() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let first = store.outbox().insert(callback(1, 1)).await.unwrap();
    let second = store.outbox().insert(callback(1, 2)).await.unwrap();
    let third = store.outbox().insert(callback(3, 3)).await.unwrap();
    assert_eq!((first.first, second.first, third.first), (true, false, true));
    let origin = &callback(1, 1).origin;
    let due = |now| {
        let store = store.clone();
        async move {
            let rows = store.outbox().due("node", origin, now, 9).await.unwrap();
            rows.iter().map(|c| c.new.event_id.as_u128()).collect::<Vec<_>>()
        }
    };
    assert_eq!(due(secs(2)).await, [1, 3]);
    let settled = |row, outcome| Settlement {
        row,
        attempts: 2,
        at: secs(3),
        outcome,
        last: "503".to_owned(),
    };
    let put_off = settled(first.callback.row, DeliveryOutcome::Retry { due: secs(10) });
    assert!(!store.outbox().settle(put_off).await.unwrap(), "the next callback still waits");
    assert_eq!(due(secs(9)).await, [3]);
    assert_eq!(store.outbox().due_origins("node", secs(9)).await.unwrap().1, Some(secs(10)));
    assert_eq!(store.outbox().due_origins("another", secs(9)).await.unwrap(), (Vec::new(), None));
    let again = store.outbox().due("node", origin, secs(10), 9).await.unwrap();
    assert_eq!(again.iter().map(|c| (c.attempts, c.retries)).collect::<Vec<_>>(), [(0, 0), (2, 1)]);
    assert!(
        store
            .outbox()
            .settle(settled(first.callback.row, DeliveryOutcome::Delivered))
            .await
            .unwrap(),
        "the next callback can be sent"
    );
    assert_eq!(due(secs(2)).await, [2, 3]);
    store.outbox().settle(settled(third.callback.row, DeliveryOutcome::Failed)).await.unwrap();
    assert!(
        !store
            .outbox()
            .settle(settled(third.callback.row, DeliveryOutcome::Delivered))
            .await
            .unwrap(),
        "a finished callback stays as it is"
    );
    let pool = pool(&fixture.file()).await;
    let secrets: Vec<(i64, bool, i64)> =
        sql::query_as("SELECT id, sealed_params IS NOT NULL, delivered FROM callbacks ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
    let ids = [first, second, third].map(|w| match w.callback.row {
        CallbackRow::Id(id) => id,
        pending @ CallbackRow::Pending { .. } => panic!("{pending:?}"),
    });
    assert_eq!(secrets, [(ids[0], false, 1), (ids[1], true, 0), (ids[2], true, 0)]);
    store.calls().delete_history(secs(0), secs(4)).await.unwrap();
    let left: Vec<i64> =
        sql::query_scalar("SELECT id FROM callbacks").fetch_all(&pool).await.unwrap();
    assert_eq!(left, [ids[1]], "finished callbacks are deleted, waiting ones are not");
    pool.close().await;
    store.close().await;
}

/// An event can't be sent before older ones of its conversation, so these are sent again, too.
#[tokio::test]
async fn a_redelivery_sends_the_older_events_of_its_queue_first() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let number: PhoneNumberId = "106540352242922".into();
    let about = |call: u128, event: u128| {
        let number_event =
            Some(NumberEvent { number: number.clone(), event: "message.received".to_owned() });
        NewCallback { number_event, ..callback(call, event) }
    };
    for (call, event) in [(1, 1), (2, 2), (1, 3), (1, 4)] {
        let written = store.outbox().insert(about(call, event)).await.unwrap();
        if event < 3 {
            let outcome = DeliveryOutcome::Retry { due: secs(9_000) };
            let (row, at, last) = (written.callback.row, secs(3), "503".to_owned());
            let settlement = Settlement { row, attempts: 1, at, outcome, last };
            store.outbox().settle(settlement).await.unwrap();
        }
    }
    let due = async |now| {
        let rows = store.outbox().due("node", &callback(1, 1).origin, now, 9).await.unwrap();
        rows.iter().map(|c| c.new.event_id.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(due(secs(60)).await, [0_u128; 0]);
    let (receiver, scope) = (Receiver::Number(number.clone()), Scope::of(MAIN.into()));
    let third = uuid::Uuid::from_u128(3);
    assert!(store.webhooks().redeliver(&receiver, &scope, third, "node", secs(50)).await.unwrap());
    assert_eq!(due(secs(49)).await, [0_u128; 0]);
    assert_eq!(due(secs(60)).await, [1], "the second one is of another conversation");
    store.close().await;

    // The command line does the same.
    let database = crate::testing::place(&fixture.file()).await;
    let second = uuid::Uuid::from_u128(2).to_string();
    let rearmed = async |which| rearm(&database, which, secs(55)).await.unwrap();
    assert_eq!(rearmed(Rearm::One(&second)).await, 1);
    assert_eq!(rearmed(Rearm::One(&uuid::Uuid::from_u128(4).to_string())).await, 3);
    let store = fixture.open().await;
    let rows = store.outbox().due("node", &callback(1, 1).origin, secs(60), 9).await.unwrap();
    assert_eq!(rows.iter().map(|c| c.new.event_id.as_u128()).collect::<Vec<_>>(), [1, 2]);
    store.close().await;
}

/// A hangup callback is sent after every other callback of the call except recordings.
#[tokio::test]
async fn a_hangup_callback_follows_the_other_callbacks_of_its_call() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let about = |event: u128, kind: CallbackKind| {
        let mut new = callback(1, event);
        (new.notice.kind, new.notice.url) =
            (kind, DocUrl(format!("https://app.example.com/{event}").into()));
        new
    };
    let conference = store.outbox().insert(about(1, CallbackKind::Conference)).await.unwrap();
    let action = store.outbox().insert(about(2, CallbackKind::Ring)).await.unwrap();
    let recording = store.outbox().insert(about(3, CallbackKind::Recording)).await.unwrap();
    let stream = store.outbox().insert(about(4, CallbackKind::Stream)).await.unwrap();
    let hangup = store.outbox().insert(callback(1, 5)).await.unwrap();
    let written = [&conference, &action, &recording, &stream, &hangup];
    assert_eq!(written.map(|written| written.first), [true, true, true, true, false]);
    let due = async || {
        let rows = store.outbox().due("node", &callback(1, 1).origin, secs(2), 9).await.unwrap();
        rows.iter().map(|c| c.new.event_id.as_u128()).collect::<Vec<_>>()
    };
    assert_eq!(due().await, [1, 2, 3, 4]);
    let settled =
        |row, outcome| Settlement { row, attempts: 1, at: secs(3), outcome, last: String::new() };
    assert!(
        store
            .outbox()
            .settle(settled(conference.callback.row, DeliveryOutcome::Failed))
            .await
            .unwrap()
    );
    assert_eq!(due().await, [2, 3, 4]);
    let retry = settled(action.callback.row, DeliveryOutcome::Retry { due: secs(10) });
    store.outbox().settle(retry).await.unwrap();
    assert_eq!(due().await, [3, 4]);
    let sent = settled(stream.callback.row, DeliveryOutcome::Failed);
    store.outbox().settle(sent).await.unwrap();
    assert_eq!(due().await, [3, 5], "a retry delays nothing else, a recording not the end");
    store.close().await;
}

/// The end of a multi-party call is reported to a URL after every member's exit.
#[tokio::test]
async fn the_end_of_a_multi_party_call_follows_other_calls_callbacks_to_the_same_url() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let about = |call: u128, event: u128, name: &'static str, url: &str| {
        let mut new = callback(call, event);
        (new.notice.kind, new.notice.url) =
            (CallbackKind::MultiParty, DocUrl(format!("https://app.example.com/{url}").into()));
        new.notice.params = [("EventName".into(), Param::Plain(name.into()))].into_iter().collect();
        new
    };
    let exit = store.outbox().insert(about(1, 1, "ParticipantExit", "a")).await.unwrap();
    let another = store.outbox().insert(about(2, 2, "ParticipantExit", "a")).await.unwrap();
    let end = store.outbox().insert(about(3, 3, MPC_END, "a")).await.unwrap();
    let elsewhere = store.outbox().insert(about(3, 4, MPC_END, "b")).await.unwrap();
    let later = store.outbox().insert(about(4, 5, "ParticipantJoin", "a")).await.unwrap();
    let firsts = [&exit, &another, &end, &elsewhere, &later].map(|written| written.first);
    assert_eq!(firsts, [true, true, false, true, true], "only an end waits for other calls");
    let due = async || {
        let rows = store.outbox().due("node", &callback(1, 1).origin, secs(2), 9).await.unwrap();
        rows.iter().map(|c| c.new.event_id.as_u128()).collect::<Vec<_>>()
    };
    let settled =
        |row, outcome| Settlement { row, attempts: 1, at: secs(3), outcome, last: String::new() };
    assert_eq!(due().await, [1, 2, 4, 5]);
    store.outbox().settle(settled(exit.callback.row, DeliveryOutcome::Delivered)).await.unwrap();
    assert_eq!(due().await, [2, 4, 5]);
    store
        .outbox()
        .settle(settled(another.callback.row, DeliveryOutcome::Retry { due: secs(10) }))
        .await
        .unwrap();
    assert_eq!(due().await, [3, 4, 5], "a retry delays nothing else");

    // A callback that waits behind a retry delays neither the end of another room nor its own
    // call's hangup.
    for done in [&end, &elsewhere, &later] {
        store
            .outbox()
            .settle(settled(done.callback.row, DeliveryOutcome::Delivered))
            .await
            .unwrap();
    }
    let exit = store.outbox().insert(about(2, 6, "ParticipantExit", "a")).await.unwrap();
    let end = store.outbox().insert(about(6, 7, MPC_END, "a")).await.unwrap();
    let mut hangup = callback(2, 8);
    (hangup.notice.kind, hangup.notice.url) =
        (CallbackKind::Hangup, DocUrl("https://app.example.com/c".into()));
    let hangup = store.outbox().insert(hangup).await.unwrap();
    assert_eq!([&exit, &end, &hangup].map(|written| written.first), [false, true, true]);
    assert_eq!(due().await, [7, 8]);
    store.close().await;
}

#[tokio::test]
async fn r03_orphans_have_their_set_up_and_duration() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    for n in 1..=2 {
        assert!(store.calls().begin(CallStart::of(&setup(n), "node"), &setup(n), secs(100)));
    }
    store.calls().set_answered(uuid(1), secs(3));
    store.calls().heartbeat("node", secs(104));
    store.calls().heartbeat("node", secs(107));
    store.calls().heartbeat("another", secs(200));
    assert!(
        store
            .calls()
            .conclude_without_callbacks(CallStart::of(&setup(2), "node"), end(2, 5))
            .await
            .unwrap()
    );
    store.close().await;
    let store = fixture.open().await;
    let orphan = Orphan {
        start: CallStart::of(&setup(1), "node"),
        setup: Some(setup(1)),
        answered: Some(secs(3)),
        lived: std::time::Duration::from_secs(7),
    };
    assert_eq!(store.calls().orphans("node").await.unwrap(), [orphan]);
    store.close().await;
}

#[tokio::test]
async fn the_work_of_a_renamed_node_is_taken_over() {
    if skipped_on_postgres() {
        return;
    }
    let fixture = Fixture::new();
    let store = fixture.open().await;
    begin(&store, 1);
    store.calls().heartbeat("node", secs(107));
    store.outbox().insert(callback(1, 1)).await.unwrap();
    store.flush().await;
    let before = store.calls().orphans("node").await.unwrap();
    store.take_over("renamed").await.unwrap();
    assert_eq!(store.other_nodes("renamed").await.unwrap(), []);
    assert_eq!(store.calls().orphans("renamed").await.unwrap()[0].lived, before[0].lived);
    let (origins, _) = store.outbox().due_origins("renamed", secs(9_999)).await.unwrap();
    assert_eq!(origins.len(), 1);
    store.take_over("renamed").await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn r03_a_wacid_after_the_end_makes_a_farewell_due() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let placed = |n| CallSetup { direction: Direction::Outbound, wacid: None, ..setup(n) };
    for n in 1..=3 {
        assert!(store.calls().begin(CallStart::of(&placed(n), "node"), &placed(n), secs(1)));
    }
    store.calls().set_wacid(uuid(1), "wacid.before".into(), secs(9));
    for (n, secs) in [(1, 5), (2, 6)] {
        assert!(
            store
                .calls()
                .conclude_without_callbacks(CallStart::of(&placed(n), "node"), end(secs, 5))
                .await
                .unwrap()
        );
    }
    store.calls().set_wacid(uuid(2), "wacid.late".into(), secs(9));
    store.flush().await;
    assert!(store.calls().due_farewells("node", secs(8), 9).await.unwrap().is_empty(), "not yet");
    let due = store.calls().due_farewells("node", secs(9), 9).await.unwrap();
    let due: Vec<_> = due.iter().map(|due| (due.call, due.wacid.as_str(), due.action)).collect();
    assert_eq!(due, [(uuid(2), "wacid.late", GraphAction::Terminate)]);
    let mut of_late = store.calls().placed_since("node", secs(0)).await.unwrap();
    of_late.sort_by_key(|placed| placed.call);
    let of_late: Vec<_> =
        of_late.iter().map(|p| (p.call, p.wacid.as_ref().map(|w| w.as_str()))).collect();
    assert_eq!(
        of_late,
        [(uuid(1), Some("wacid.before")), (uuid(2), Some("wacid.late"))],
        "call 3 is open"
    );
    assert!(store.calls().placed_since("node", secs(1_000_000)).await.unwrap().is_empty());
    assert!(store.calls().placed_since("another", secs(0)).await.unwrap().is_empty());
    store.close().await;
}

/// `docs/operations.md` promises that a power loss loses the starts of one batch at most.
#[test]
fn r03_starts_are_synced_like_ends() {
    let birth = StartedCall { start: start(1, MAIN, MAIN), setup: String::new(), born: secs(0) };
    assert!(Write::CallStarted(Box::new(birth)).is_synced());
    let ending = Conclusion {
        start: start(1, MAIN, MAIN),
        end: end(1, 7),
        callbacks: Vec::new(),
        farewell: None,
    };
    assert!(Write::CallEnded(Box::new(ending), tokio::sync::oneshot::channel().0).is_synced());
    let line = Write::LogLine { call: uuid(1), seq: 0, line: String::new() };
    assert!(
        !line.is_synced() && !Write::CallAnswered(uuid(1), secs(0)).is_synced(),
        "these are synced with the next start or end"
    );
}

#[tokio::test]
async fn r03_a_kill_before_the_row_is_written_loses_no_call() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    // The database rejects all writes, so the next process can read only the pending log.
    let other = pool(&fixture.file()).await;
    sql::query("ALTER TABLE calls RENAME TO hidden").execute(&other).await.unwrap();
    assert!(store.calls().begin(CallStart::of(&setup(1), "node"), &setup(1), secs(100)));
    assert!(store.calls().begin(CallStart::of(&setup(2), "node"), &setup(2), secs(100)));
    // An outbound call that has just got its id from Graph.
    let placed = CallSetup { direction: Direction::Outbound, wacid: None, ..setup(3) };
    assert!(store.calls().begin(CallStart::of(&placed, "node"), &placed, secs(100)));
    store.calls().set_wacid(uuid(3), "wacid.named".into(), secs(9));
    let pending_log = crate::files::with_suffix(&fixture.file(), ".births");
    let mut left = std::fs::read(&pending_log).unwrap();
    store.close().await;
    sql::query("ALTER TABLE hidden RENAME TO calls").execute(&other).await.unwrap();
    other.close().await;
    // After a kill, the journal would not have these entries.
    std::fs::remove_file(fixture.file().with_file_name("store.journal")).unwrap();
    // Neither a truncated line nor a repeated one affects the lines after it.
    let whole = left.clone();
    left.truncate(left.len() - 10);
    std::fs::write(&pending_log, [left, whole].concat()).unwrap();

    let store = fixture.open().await;
    let wacids = store.take_left_calls().into_iter().map(|(_, wacid)| wacid.as_str().to_owned());
    let connected = [setup(1), setup(2)].map(|of| of.wacid.unwrap().as_str().to_owned());
    assert_eq!(wacids.collect::<BTreeSet<_>>(), BTreeSet::from(connected), "not the outbound call");
    assert!(store.take_left_calls().is_empty());
    let orphans = store.calls().orphans("node").await.unwrap();
    assert_eq!(
        orphans.iter().map(|o| o.setup.clone().unwrap()).collect::<Vec<_>>(),
        [setup(1), setup(2), placed]
    );
    assert_eq!(orphans[2].start.wacid.as_ref().map(|w| w.as_str()), Some("wacid.named"));
    assert_eq!(
        std::fs::metadata(&pending_log).unwrap().len(),
        0,
        "all entries are in the database"
    );
    assert!(
        store
            .calls()
            .conclude_without_callbacks(CallStart::of(&setup(1), "node"), end(1, 5))
            .await
            .unwrap()
    );
    store.close().await;
}

#[tokio::test]
async fn the_pending_log_does_not_grow() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let pending_log = crate::files::with_suffix(&fixture.file(), ".births");
    let mut largest = 0;
    for round in 0..20 {
        for n in 0..100 {
            let n = round * 100 + n;
            assert!(store.calls().begin(CallStart::of(&setup(n), "node"), &setup(n), secs(100)));
        }
        store.flush().await;
        // The file is emptied after the waiters are completed. After a second flush, that has
        // happened.
        store.flush().await;
        largest = largest.max(std::fs::metadata(&pending_log).unwrap().len());
    }
    assert!(largest < 512 * 1024, "{largest}");
    store.close().await;
    assert_eq!(std::fs::metadata(&pending_log).unwrap().len(), 0, "empty after an orderly close");
}

#[tokio::test]
async fn a_store_belongs_to_one_node_at_a_time() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let refused = Store::open(&fixture.file(), Health::new()).await.unwrap_err();
    assert!(matches!(refused, StoreError::InUse { .. }), "{refused}");
    store.close().await;
    drop(store);
    fixture.open().await.close().await;
}

/// If any code closes the file, the process loses SQLite's locks on it. Another process that reads
/// the database would then delete the write-ahead log and all writes after that.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn r03_no_operation_of_a_node_drops_sqlites_locks() {
    use std::os::unix::fs::MetadataExt as _;
    if skipped_on_postgres() {
        return;
    }
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let file = std::fs::metadata(fixture.file()).unwrap();
    let locks = || {
        let all = std::fs::read_to_string("/proc/locks").unwrap();
        let (inode, process) = (format!(":{}", file.ino()), std::process::id().to_string());
        let ours = |line: &&str| {
            line.contains(&format!(" {process} ")) && line.contains(&format!("{inode} "))
        };
        all.lines().filter(ours).count()
    };
    assert!(locks() > 0, "SQLite locks a file in WAL mode");
    assert!(store.erasures().scrub().await.is_ok());
    assert!(locks() > 0, "after an erasure");
    assert!(Store::open(&fixture.file(), Health::new()).await.is_err());
    assert!(locks() > 0, "after a second open was refused");
    let to = fixture.folder.path().join("copy.db");
    fixture.backup(&to).await.unwrap();
    assert!(locks() > 0, "after a copy");
    store.close().await;
}

#[tokio::test]
async fn r05_keys_are_listed_newest_first_and_old_ones_deleted() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let key = |n: i64| SeenKey {
        kind: if n == 3 { KeyKind::Tombstone } else { KeyKind::Event },
        key: u128::MAX - n as u128,
        seen: secs(n),
    };
    (1..=5).for_each(|n| store.event_keys().insert(key(n)));
    store.event_keys().remove(key(4).key);
    store.event_keys().insert(key(1));
    store.close().await;
    let store = fixture.open().await;
    assert_eq!(
        store.event_keys().list(secs(2), secs(9), 9).await.unwrap(),
        [key(5), key(3), key(2)]
    );
    assert_eq!(store.event_keys().list(secs(0), secs(5), 2).await.unwrap(), [key(3), key(2)]);
    store.event_keys().delete_older(secs(3));
    store.flush().await;
    assert_eq!(store.event_keys().list(secs(0), secs(9), 9).await.unwrap(), [key(5), key(3)]);
    // A key that was removed counts again once it is seen later.
    store.event_keys().insert(SeenKey { seen: secs(8), ..key(4) });
    store.flush().await;
    assert_eq!(
        store.event_keys().list(secs(4), secs(9), 9).await.unwrap(),
        [SeenKey { seen: secs(8), ..key(4) }, key(5)]
    );
    // A removal is deleted with the keys of its time.
    store.event_keys().delete_older(secs(6));
    store.flush().await;
    let db = pool(&fixture.file()).await;
    let counts =
        "SELECT (SELECT count(*) FROM webhook_keys), (SELECT count(*) FROM webhook_keys_removed)";
    let counts: (i64, i64) = sql::query_as(counts).fetch_one(&db).await.unwrap();
    assert_eq!(counts, (1, 0));
    db.close().await;
    store.close().await;
}
