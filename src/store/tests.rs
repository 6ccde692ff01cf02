//! Against real files.

use std::os::unix::fs::PermissionsExt as _;

use super::{CallEnd, CallFilter, CallStart, Compare, Scope, Store, StoreError};
use crate::model::{CallType, CallUuid, Direction, HangupCause, Timestamp};
use crate::observe::Health;
use crate::xml::ast::{Finding, Position, Severity};

const MAIN: &str = "MAAAAAAAAAAAAAAAAAAA";
const SUB: &str = "SAAAAAAAAAAAAAAAAAAA";
const OTHER: &str = "MABBBBBBBBBBBBBBBBBB";

fn uuid(n: u128) -> CallUuid {
    CallUuid(uuid::Uuid::from_u128(n))
}

fn secs(n: i64) -> Timestamp {
    Timestamp::from_secs(1_795_000_000 + n)
}

fn start(n: u128, account: &str, main: &str) -> CallStart {
    CallStart {
        call: uuid(n),
        account: account.into(),
        main_account: main.into(),
        direction: if n.is_multiple_of(2) { Direction::Inbound } else { Direction::Outbound },
        call_type: CallType::Whatsapp,
        from: format!("91981234567{}", n % 10),
        to: "918035737458".to_owned(),
        caller_name: "Zoë \"Z\"".to_owned(),
        wacid: Some("wacid.x".into()),
        phone_number_id: "7".into(),
        parent_call: None,
        node_id: "node".to_owned(),
        started: secs(n as i64),
    }
}

fn end(n: i64, bill_secs: u64) -> CallEnd {
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

struct Room {
    folder: tempfile::TempDir,
}

impl Room {
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

#[tokio::test]
async fn records_and_lines_survive_a_restart_and_end_once() {
    let room = Room::new();
    let store = room.open().await;
    let scope = Scope::of(MAIN.into());
    let (begun, ended) = (start(1, MAIN, MAIN), end(1, 49));
    store.call_started(begun.clone());
    store.call_started(start(2, MAIN, MAIN));
    for seq in 0..1_200 {
        assert!(store.event_log().append(uuid(1), seq, format!("{{\"seq\":{seq}}}")));
    }
    assert!(store.call_concluded(begun.clone(), ended.clone()).await.unwrap());
    assert!(!store.call_concluded(begun.clone(), end(5, 7)).await.unwrap(), "a second end changes nothing");
    store.close().await;
    assert!(matches!(store.call_concluded(begun.clone(), end(5, 7)).await, Err(StoreError::Closed)));

    let store = room.open().await;
    let record = store.call(&scope, uuid(1)).await.unwrap().unwrap();
    assert_eq!((record.start, record.end), (begun, Some(ended)));
    let orphans = store.orphans("node").await.unwrap();
    assert_eq!(orphans, [start(2, MAIN, MAIN)]);
    assert!(store.orphans("another").await.unwrap().is_empty());

    let first = store.events(&scope, uuid(1), None, 1_000).await.unwrap();
    let rest = store.events(&scope, uuid(1), Some(999), 1_000).await.unwrap();
    assert_eq!((first.len(), rest.len(), rest[0].clone()), (1_000, 200, (1_000, "{\"seq\":1000}".to_owned())));
    assert!(store.events(&Scope::of(OTHER.into()), uuid(1), None, 10).await.unwrap().is_empty());

    store.forget_events(secs(62));
    assert!(store.call_concluded(start(2, MAIN, MAIN), end(2, 0)).await.unwrap());
    assert!(store.events(&scope, uuid(1), None, 10).await.unwrap().is_empty(), "forgotten");
    assert!(store.call(&scope, uuid(1)).await.unwrap().is_some(), "its record stays");
    store.close().await;
}

#[tokio::test]
async fn a_lost_beginning_is_made_good_by_the_end() {
    let room = Room::new();
    let store = room.open().await;
    assert!(store.call_concluded(start(3, MAIN, MAIN), end(3, 1)).await.unwrap());
    store.call_started(start(3, MAIN, MAIN));
    assert!(!store.call_concluded(start(3, MAIN, MAIN), end(3, 1)).await.unwrap());
    let record = store.call(&Scope::of(MAIN.into()), uuid(3)).await.unwrap().unwrap();
    assert!(record.end.is_some(), "a late beginning does not open it again");
    store.close().await;
}

#[tokio::test]
async fn lists_filter_page_and_keep_tenants_apart() {
    let room = Room::new();
    let store = room.open().await;
    for n in 0..30 {
        let account = if n < 10 { SUB } else { MAIN };
        assert!(store.call_concluded(start(n, account, MAIN), end(n as i64, n as u64)).await.unwrap());
    }
    assert!(store.call_concluded(start(99, OTHER, OTHER), end(99, 1)).await.unwrap());
    store.call_started(start(50, MAIN, MAIN));
    let main = Scope::of(MAIN.into());

    let (page, total) = store.calls(&main, &CallFilter::default(), 20, 0).await.unwrap();
    assert_eq!((page.len(), total), (20, 30), "open calls and those of others are not in it");
    assert_eq!((page[0].start.call, page[19].start.call), (uuid(29), uuid(10)), "newest first");
    let (page, total) = store.calls(&main, &CallFilter::default(), 20, 20).await.unwrap();
    assert_eq!((page.len(), total, page[9].start.call), (10, 30, uuid(0)));
    assert_eq!(store.calls(&main, &CallFilter::default(), 20, u64::MAX).await.unwrap().0.len(), 0);
    assert_eq!(store.calls(&Scope::of(SUB.into()), &CallFilter::default(), 20, 0).await.unwrap().1, 10);
    assert!(store.call(&Scope::of(SUB.into()), uuid(20)).await.unwrap().is_none(), "a subaccount sees only its own");
    assert!(store.call(&main, uuid(99)).await.unwrap().is_none());

    let none = CallFilter::default();
    let cases: Vec<(CallFilter, u64)> = vec![
        (CallFilter { from: Some("919812345673".to_owned()), ..none.clone() }, 3),
        (CallFilter { to: Some("918035737458".to_owned()), ..none.clone() }, 30),
        (CallFilter { to: Some("' OR 1=1 --".to_owned()), ..none.clone() }, 0),
        (CallFilter { direction: Some(Direction::Inbound), ..none.clone() }, 15),
        (CallFilter { subaccount: Some(SUB.into()), ..none.clone() }, 10),
        (CallFilter { subaccount: Some(OTHER.into()), ..none.clone() }, 0),
        (CallFilter { parent_call: Some(uuid(1)), ..none.clone() }, 0),
        (CallFilter { hangup_code: Some(4000), ..none.clone() }, 30),
        (CallFilter { hangup_code: Some(1000), ..none.clone() }, 0),
        (CallFilter { hangup_source: Some("Caller".to_owned()), ..none.clone() }, 30),
        (CallFilter { bill_secs: vec![(Compare::Equal, 7)], ..none.clone() }, 1),
        (CallFilter { bill_secs: vec![(Compare::Greater, 7), (Compare::LessEqual, 9)], ..none.clone() }, 2),
        (CallFilter { ended: vec![(Compare::GreaterEqual, secs(60 + 25))], ..none.clone() }, 5),
        (CallFilter { ended: vec![(Compare::Less, secs(60 + 25))], direction: Some(Direction::Outbound), ..none }, 12),
    ];
    for (filter, expected) in cases {
        let (_, total) = store.calls(&main, &filter, 1, 0).await.unwrap();
        assert_eq!(total, expected, "{filter:?}");
    }
    store.close().await;
}

#[tokio::test]
async fn an_older_binary_refuses_a_newer_store() {
    let room = Room::new();
    let store = room.open().await;
    store.close().await;
    let later = "INSERT INTO _sqlx_migrations (version, description, installed_on, success, checksum, execution_time) \
        VALUES (9999, 'later', CURRENT_TIMESTAMP, 1, X'00', 1)";
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(room.file());
    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query(later).execute(&pool).await.unwrap();
    pool.close().await;
    let refused = Store::open(&room.file(), Health::new()).await.unwrap_err();
    assert!(matches!(refused, StoreError::Newer { version: 9999, .. }), "{refused}");
    assert!(refused.to_string().contains("newer Offhook"), "{refused}");
}

#[tokio::test]
async fn files_are_for_the_owner_only() {
    let room = Room::new();
    let store = room.open().await;
    assert!(store.call_concluded(start(1, MAIN, MAIN), end(1, 1)).await.unwrap());
    let folder = room.file().parent().unwrap().to_owned();
    assert_eq!(std::fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
        files += 1;
    }
    assert!(files >= 2, "the database and its log");
    store.close().await;
}

#[tokio::test]
async fn a_locked_store_delays_and_loses_nothing() {
    let room = Room::new();
    let health = Health::new();
    health.ready();
    let store = Store::open(&room.file(), health.clone()).await.unwrap();
    // A write that can't succeed until the table is back stands for a full disk.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(room.file());
    let other = sqlx::SqlitePool::connect_with(options).await.unwrap();
    sqlx::query("ALTER TABLE calls RENAME TO hidden").execute(&other).await.unwrap();
    let concluding = tokio::spawn({
        let store = store.clone();
        async move { store.call_concluded(start(1, MAIN, MAIN), end(1, 1)).await }
    });
    while health.not_ready().is_none() {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    sqlx::query("ALTER TABLE hidden RENAME TO calls").execute(&other).await.unwrap();
    assert!(concluding.await.unwrap().unwrap());
    assert_eq!(health.not_ready(), None);
    store.close().await;
}

#[tokio::test]
async fn a_file_that_is_no_store_is_refused() {
    let room = Room::new();
    std::fs::create_dir_all(room.file().parent().unwrap()).unwrap();
    std::fs::write(room.file(), "this is not a database, it is a text of some length").unwrap();
    let refused = Store::open(&room.file(), Health::new()).await.unwrap_err().to_string();
    assert!(refused.starts_with("could not open the store") && refused.contains("offhook.db"), "{refused}");
}
