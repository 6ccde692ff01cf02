//! Tests of a failing database: on demand, locked, full, unreachable. Everything reported as
//! written must be stored afterwards, exactly once.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::error::StoreError;
use crate::options::{StoreOptions, StorePart};
use crate::rows::call::Conclusion;
use crate::rows::callback::{DeliveryOutcome, Settlement};
use crate::rows::recording::{RecordingConclusion, RecordingEnd, RecordingFilter, RecordingStart};
use crate::scope::Scope;
use crate::sql;
use crate::store::Store;
use crate::testing::{is_postgres, pool, skipped_on_postgres};
use crate::tests::{MAIN, begin, callback, end, secs, start, uuid};
use machine::RecordingEndReason;
use model::{Health, Secret};

/// What fails at present, and the number of failed attempts.
#[derive(Default)]
struct Switch {
    store: AtomicBool,
    journal: AtomicBool,
    tries: AtomicU32,
}

impl Switch {
    fn set(&self, store: bool, journal: bool) {
        self.store.store(store, Ordering::SeqCst);
        self.journal.store(journal, Ordering::SeqCst);
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    switch: Arc<Switch>,
    health: Health,
}

impl Fixture {
    fn new() -> Self {
        let health = Health::new();
        health.set_ready();
        Self { folder: tempfile::tempdir().unwrap(), switch: Arc::default(), health }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("db/offhook.db")
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("data/store.journal")
    }

    async fn open(&self) -> Store {
        self.open_at(self.file(), self.folder.path().join("data")).await
    }

    async fn open_at(&self, file: PathBuf, journal: PathBuf) -> Store {
        let switch = self.switch.clone();
        let fail = move |part| {
            let fails = match part {
                StorePart::Store => switch.store.load(Ordering::SeqCst),
                StorePart::Journal => switch.journal.load(Ordering::SeqCst),
            };
            switch.tries.fetch_add(u32::from(fails), Ordering::SeqCst);
            fails
        };
        let options = StoreOptions {
            busy: Duration::from_millis(50),
            fail: Some(Arc::new(fail)),
            ..StoreOptions::with_journal_in(journal)
        };
        Store::open_with(&file, options, self.health.clone()).await.unwrap()
    }

    /// Size of the journal's entries in bytes.
    fn journalled(&self) -> usize {
        std::fs::read_to_string(self.journal()).unwrap().lines().skip(1).map(str::len).sum()
    }
}

fn conclusion(call: u128) -> Conclusion {
    let callbacks = vec![callback(call, call)];
    Conclusion {
        start: start(call, MAIN, MAIN),
        end: end(call as i64, 7),
        callbacks,
        farewell: None,
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let mut every = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..2_000 {
        every.tick().await;
        if done().await {
            return;
        }
    }
    panic!("not within 20 s: {what}");
}

async fn has_ended(store: &Store, call: u128) -> bool {
    let record = store.calls().get(&Scope::of(MAIN.into()), uuid(call)).await.unwrap();
    record.is_some_and(|record| record.end.is_some())
}

/// Event ids of waiting callbacks.
async fn waiting(store: &Store) -> Vec<u128> {
    let due = store.outbox().due("node", "https://app.example.com", secs(9), 1_000).await.unwrap();
    due.iter().map(|callback| callback.new.event_id.as_u128()).collect()
}

#[tokio::test]
async fn r11_rejected_writes_go_to_the_journal_and_are_replayed_once() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let written = store.outbox().insert(callback(9, 900)).await.unwrap();
    fixture.switch.set(true, false);

    begin(&store, 1);
    let concluded = store.calls().conclude(conclusion(1)).await.unwrap();
    assert!(
        concluded.changed && concluded.callbacks.is_empty(),
        "accepted; its callback is sent later"
    );
    assert!(matches!(store.outbox().insert(callback(2, 200)).await, Err(StoreError::Journalled)));
    if !is_postgres() {
        let (data, copy) = (fixture.folder.path().join("data"), fixture.folder.path().join("copy"));
        let made = crate::backup(&fixture.file(), &data, &copy).await.unwrap();
        assert!(
            made.ended == 0 && made.missing > 0,
            "a copy lacks what is in the journal: {made:?}"
        );
    }
    for seq in 0..700 {
        assert!(store.event_log().append(uuid(1), seq, format!("{{\"at\":{seq}}}")));
    }
    let settlement = Settlement {
        row: written.callback.row,
        attempts: 1,
        at: secs(2),
        outcome: DeliveryOutcome::Delivered,
        last: "200".to_owned(),
    };
    let settling = tokio::spawn(store.outbox().settle(settlement));
    store.flush().await;
    assert_eq!(fixture.health.unready_reason(), None, "the journal works, so calls are accepted");
    assert!(!has_ended(&store, 1).await && fixture.journalled() > 0);
    assert!(!settling.is_finished(), "the settlement waits for the database");

    fixture.switch.set(false, false);
    until("replayed", async || has_ended(&store, 1).await).await;
    settling.await.unwrap().unwrap();
    until("emptied", async || fixture.journalled() == 0).await;
    let record = store.calls().get(&Scope::of(MAIN.into()), uuid(1)).await.unwrap().unwrap();
    assert_eq!((record.start, record.end), (start(1, MAIN, MAIN), Some(end(1, 7))));
    assert_eq!(
        store.calls().events(&Scope::of(MAIN.into()), uuid(1), None, 1_000).await.unwrap().len(),
        700
    );
    let mut events = waiting(&store).await;
    events.sort_unstable();
    assert_eq!(events, [1, 200], "each once, without the delivered one");
    let due = store.outbox().due("node", "https://app.example.com", secs(9), 9).await.unwrap();
    assert_eq!(due[0].new.notice, callback(1, 1).notice, "secret parameters included");
    assert!(!store.calls().conclude(conclusion(1)).await.unwrap().changed);
    store.close().await;
}

#[tokio::test]
async fn r11_an_empty_recording_is_not_listed_after_a_failure_of_the_store() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let start = |n| RecordingStart {
        id: uuid(n).0,
        account: MAIN.into(),
        main_account: MAIN.into(),
        call: uuid(1),
        conference: None,
        room: None,
        multi_party: false,
        format: "wav".to_owned(),
        stereo: false,
        node_id: "node".to_owned(),
        started: secs(1),
        notices: Vec::new(),
        transcript: None,
    };
    let end = |duration_ms| RecordingEnd {
        ended: secs(2),
        duration_ms,
        end: RecordingEndReason::Failed,
        upload: None,
        transcribe: None,
    };
    let conclusion = |n, duration_ms, event| RecordingConclusion {
        start: start(n),
        end: end(duration_ms),
        callbacks: vec![callback(event, event)],
    };
    let listed = async || {
        let (scope, filter) = (Scope::of(MAIN.into()), RecordingFilter::default());
        let (list, total) = store.recordings().list(&scope, &filter, 20, 0).await.unwrap();
        (list.iter().map(|recording| recording.id).collect::<Vec<_>>(), total)
    };
    store.recordings().begin(start(1));
    assert_eq!(store.recordings().conclude(conclusion(1, 0, 11)).await.unwrap().len(), 1);
    assert_eq!(listed().await, (vec![], 0));
    store.recordings().begin(start(2));
    store.recordings().begin(start(3));
    store.flush().await;
    fixture.switch.set(true, false);
    let concluded = store.recordings().conclude(conclusion(2, 0, 12)).await.unwrap();
    assert!(concluded.is_empty() && fixture.journalled() > 0, "it is in the journal");
    store.recordings().conclude(conclusion(3, 1_000, 13)).await.unwrap();
    fixture.switch.set(false, false);
    until("emptied", async || fixture.journalled() == 0).await;
    assert_eq!(listed().await, (vec![uuid(3).0], 1), "the one of which a second was kept");
    let mut events = waiting(&store).await;
    events.sort_unstable();
    assert_eq!(events, [11, 12, 13], "each was reported once");
    store.recordings().conclude(conclusion(3, 0, 14)).await.unwrap();
    assert_eq!(listed().await.1, 1, "it has ended before");
    store.close().await;
}

#[tokio::test]
async fn r11_the_journal_is_replayed_at_the_next_start_each_entry_once() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    store.flush().await;
    fixture.switch.set(true, false);
    for call in 1..=600 {
        assert!(store.calls().conclude(conclusion(call)).await.unwrap().changed);
    }
    assert!(
        store.calls().conclude(conclusion(3)).await.is_ok(),
        "a second end is journaled and changes nothing"
    );
    store.close().await;
    assert!(fixture.journalled() > 0);

    // Simulates a process that was killed after it had replayed two entries and before it emptied
    // the journal.
    let name = std::fs::read_to_string(fixture.journal()).unwrap();
    let name = name.lines().next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let other = pool(&fixture.file()).await;
    sql::query("INSERT INTO store_journals VALUES ($1, 2)")
        .bind(name)
        .execute(&other)
        .await
        .unwrap();
    other.close().await;

    fixture.switch.set(false, false);
    let store = fixture.open().await;
    assert_eq!(fixture.journalled(), 0);
    assert!(!has_ended(&store, 2).await, "the database was marked as having this entry");
    for call in 3..=600 {
        assert!(has_ended(&store, call).await, "{call}");
    }
    let mut events = waiting(&store).await;
    events.sort_unstable();
    assert_eq!(events, (3..=600).collect::<Vec<u128>>());
    store.close().await;
}

#[tokio::test]
async fn r11_without_database_and_journal_the_node_is_unready_and_retries_slowly() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    store.flush().await;
    fixture.switch.set(true, true);
    let concluding = tokio::spawn(store.calls().conclude(conclusion(1)));
    until("not ready", async || fixture.health.is_store_broken()).await;
    let before = fixture.switch.tries.load(Ordering::SeqCst);
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.tick().await;
    second.tick().await;
    let tries = fixture.switch.tries.load(Ordering::SeqCst) - before;
    assert!((1..=11).contains(&tries), "{tries} tries in a second");
    assert!(!concluding.is_finished());
    let change = store.recordings().delete(vec![uuid(1).0]).await;
    assert!(matches!(change, Err(StoreError::NotTaken)), "no change waits for the disk");
    fixture.switch.set(true, false);
    assert!(concluding.await.unwrap().unwrap().changed);
    until("ready", async || fixture.health.unready_reason().is_none()).await;
    fixture.switch.set(false, false);
    until("replayed", async || has_ended(&store, 1).await).await;

    // The database works again before the journal.
    fixture.switch.set(true, true);
    let concluding = tokio::spawn(store.calls().conclude(conclusion(2)));
    until("not ready", async || fixture.health.is_store_broken()).await;
    fixture.switch.set(false, true);
    assert!(concluding.await.unwrap().unwrap().changed);
    let change = store.recordings().delete(vec![uuid(1).0]).await;
    assert!(change.is_ok(), "changes are taken again: {change:?}");
    store.close().await;
}

#[tokio::test]
async fn r11_a_failure_lasts_until_a_transaction_succeeds() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    fixture.switch.set(true, false);
    // Never journalled, so that nothing waits for the database.
    store.recordings().delete(vec![uuid(1).0]).await.unwrap_err();
    let tries = fixture.switch.tries.load(Ordering::SeqCst);
    until("it is tried again", async || {
        assert!(store.is_journalling(), "no transaction has succeeded");
        fixture.switch.tries.load(Ordering::SeqCst) >= tries + 2
    })
    .await;
    fixture.switch.set(false, false);
    until("it works again", async || !store.is_journalling()).await;
    store.close().await;
}

#[tokio::test]
async fn r11_a_locked_database_delays_no_call() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    let other = pool(&fixture.file()).await;
    let mut other = other.acquire().await.unwrap();
    other.begin(false).await.unwrap();
    // On SQLite, the transaction begins with its first statement and then has the write lock.
    let lock = if is_postgres() { "LOCK TABLE calls" } else { "SELECT 1" };
    sql::query(lock).execute(&mut other).await.unwrap();
    for call in 1..=20 {
        assert!(store.calls().conclude(conclusion(call)).await.unwrap().changed);
    }
    assert_eq!(fixture.health.unready_reason(), None);
    other.commit().await.unwrap();
    drop(other);
    for call in 1..=20 {
        until("replayed", async || has_ended(&store, call).await).await;
    }
    assert_eq!(waiting(&store).await.len(), 20);
    store.close().await;
}

/// A proxy in front of a server, which can be stopped or frozen.
struct Proxy {
    address: std::net::SocketAddr,
    listening: CancellationToken,
    flowing: Arc<tokio::sync::Semaphore>,
}

impl Proxy {
    async fn to(server: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (listening, flowing) =
            (CancellationToken::new(), Arc::new(tokio::sync::Semaphore::new(1)));
        let proxy = Self { address, listening: listening.clone(), flowing: flowing.clone() };
        let each = listening.clone();
        tokio::spawn(listening.run_until_cancelled_owned(async move {
            while let Ok((from, _)) = listener.accept().await {
                #[allow(clippy::disallowed_methods, reason = "the proxy of a test")]
                let to = tokio::net::TcpStream::connect(&server).await.unwrap();
                tokio::spawn(each.clone().run_until_cancelled_owned(carry(
                    from,
                    to,
                    flowing.clone(),
                )));
            }
        }));
        proxy
    }
}

async fn carry(
    from: tokio::net::TcpStream,
    to: tokio::net::TcpStream,
    flowing: Arc<tokio::sync::Semaphore>,
) {
    let (mut asks, mut replies) = from.into_split();
    let (mut answers, mut asked) = to.into_split();
    let back = tokio::io::copy(&mut answers, &mut replies);
    let forth = async {
        let mut bytes = [0; 4096];
        while let Ok(read @ 1..) = asks.read(&mut bytes).await {
            drop(flowing.acquire().await);
            let _ = asked.write_all(&bytes[..read]).await;
        }
    };
    tokio::select! { _ = back => {}, () = forth => {} }
}

#[tokio::test]
async fn r11_a_stopped_or_frozen_server_loses_nothing_and_delays_no_end() {
    if crate::testing::skipped_on_sqlite() {
        return;
    }
    for frozen in [false, true] {
        let fixture = Fixture::new();
        let Database::Postgres(url) = crate::testing::place(&fixture.file()).await else {
            panic!("a server")
        };
        let (scheme, rest) = url.reveal().split_once('@').unwrap();
        let (server, path) = rest.split_once('/').unwrap();
        let proxy = Proxy::to(server.to_owned()).await;
        let at = Database::Postgres(Secret::new(format!("{scheme}@{}/{path}", proxy.address)));
        let options = StoreOptions {
            busy: Duration::from_millis(50),
            ..StoreOptions::with_journal_in(fixture.folder.path().join("data"))
        };
        let store = Store::open_with(at, options, fixture.health.clone()).await.unwrap();
        for call in 1..=3 {
            begin(&store, call);
        }
        store.flush().await;
        let held =
            if frozen { Some(proxy.flowing.clone().acquire_owned().await.unwrap()) } else { None };
        if !frozen {
            proxy.listening.cancel();
        }
        for call in 1..=2 {
            let within = tokio::time::timeout(
                Duration::from_secs(20),
                store.calls().conclude(conclusion(call)),
            );
            assert!(within.await.expect("completed").unwrap().changed);
            assert!(fixture.journalled() > 0);
        }
        let before = fixture.journalled();
        let third =
            tokio::time::timeout(Duration::from_secs(5), store.calls().conclude(conclusion(3)));
        third.await.expect("completed during a reconnect").unwrap();
        assert!(fixture.journalled() > before, "a write during an attempt goes to the journal");
        assert_eq!(fixture.health.unready_reason(), None);
        tokio::time::timeout(Duration::from_secs(5), store.close()).await.expect("closed in time");
        drop(held);
        let store = fixture.open().await;
        for call in 1..=3 {
            assert!(has_ended(&store, call).await, "{call}");
        }
        assert_eq!(waiting(&store).await.len(), 3);
        store.close().await;
    }
}

#[tokio::test]
async fn r11_a_file_that_was_moved_away_and_back_is_complete() {
    if skipped_on_postgres() {
        return;
    }
    let fixture = Fixture::new();
    let store = fixture.open().await;
    assert!(store.calls().conclude(conclusion(1)).await.unwrap().changed);
    let (db, away) = (fixture.folder.path().join("db"), fixture.folder.path().join("away"));
    std::fs::rename(&db, &away).unwrap();
    assert!(store.calls().conclude(conclusion(2)).await.unwrap().changed);
    assert!(fixture.journalled() > 0, "not written to the moved file");
    std::fs::rename(&away, &db).unwrap();
    until("replayed", async || has_ended(&store, 2).await).await;
    store.close().await;

    // Another file is put in its place, as in a restore. Later writes go to the new one.
    let store = fixture.open().await;
    std::fs::rename(&db, &away).unwrap();
    assert!(store.calls().conclude(conclusion(3)).await.unwrap().changed);
    std::fs::create_dir(&db).unwrap();
    std::fs::copy(away.join("offhook.db"), fixture.file()).unwrap();
    until("replayed", async || fixture.journalled() == 0).await;
    assert!(store.calls().conclude(conclusion(4)).await.unwrap().changed);
    for call in 1..=4 {
        until("readers follow", async || has_ended(&store, call).await).await;
    }
    store.close().await;
    let there = pool(&fixture.file()).await;
    let ended = "SELECT count(*) FROM calls WHERE ended_us IS NOT NULL";
    assert_eq!(sql::query_scalar::<i64>(ended).fetch_one(&there).await.unwrap(), 4);
}

#[tokio::test]
async fn r11_a_deleted_journal_is_written_again_and_without_its_folder_calls_are_refused() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    store.flush().await;
    fixture.switch.set(true, false);
    assert!(store.calls().conclude(conclusion(1)).await.unwrap().changed);
    std::fs::remove_file(fixture.journal()).unwrap();
    assert!(store.calls().conclude(conclusion(2)).await.unwrap().changed);
    let entries = std::fs::read_to_string(fixture.journal()).unwrap();
    assert_eq!(entries.lines().count(), 3, "its id and two ends: {entries}");

    let (data, away) = (fixture.folder.path().join("data"), fixture.folder.path().join("away"));
    std::fs::rename(&data, &away).unwrap();
    assert!(store.calls().conclude(conclusion(3)).await.unwrap().changed);
    assert!(!data.exists(), "the folder can be moved back");
    std::fs::remove_file(away.join("store.journal")).unwrap();
    let concluding = tokio::spawn(store.calls().conclude(conclusion(4)));
    until("refusing calls", async || fixture.health.is_store_broken()).await;
    std::fs::rename(&away, &data).unwrap();
    assert!(concluding.await.unwrap().unwrap().changed);
    fixture.switch.set(false, false);
    for call in 1..=4 {
        until("replayed", async || has_ended(&store, call).await).await;
    }
    store.close().await;
}

#[tokio::test]
async fn r11_writes_with_rejected_data_go_to_the_rejects_file_and_block_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixture = Fixture::new();
    let store = fixture.open().await;
    store.flush().await;
    let other = pool(&fixture.file()).await;
    let shut = if is_postgres() {
        "ALTER TABLE callbacks ADD CONSTRAINT fits CHECK (origin NOT LIKE '%long%')"
    } else {
        "CREATE TRIGGER fits BEFORE INSERT ON callbacks WHEN NEW.origin LIKE '%long%' \
            BEGIN SELECT RAISE(ABORT, 'it fits no index'); END"
    };
    sql::query(shut).execute(&other).await.unwrap();
    other.close().await;
    let refused = |call: u128| {
        let mut conclusion = conclusion(call);
        conclusion.callbacks[0].origin = "https://long.example.com".to_owned();
        conclusion
    };
    let set_aside = || {
        let file = fixture.folder.path().join("data/store.refused");
        let lines = std::fs::read_to_string(&file)
            .map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>());
        lines.inspect(|_| {
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600)
        })
    };

    let mut concluding = Vec::new();
    for call in 1..=40 {
        concluding.push(store.calls().conclude(if call == 17 {
            refused(call)
        } else {
            conclusion(call)
        }));
    }
    for concluded in concluding {
        assert!(concluded.await.unwrap().changed);
    }
    for call in 1..=40 {
        assert_eq!(has_ended(&store, call).await, call != 17, "{call}");
    }
    assert_eq!(fixture.journalled(), 0, "valid writes go to the database");
    assert_eq!(fixture.health.unready_reason(), None);
    let lines = set_aside().unwrap();
    assert!(
        lines.len() == 1 && lines[0].contains(&uuid(17).to_string()) && lines[0].contains("fits"),
        "{lines:?}"
    );

    // The same from the journal at the start, for entries among others and alone.
    fixture.switch.set(true, false);
    for call in 41..=80 {
        let end = if matches!(call, 41 | 60 | 80) { refused(call) } else { conclusion(call) };
        assert!(store.calls().conclude(end).await.unwrap().changed);
    }
    store.close().await;
    assert!(fixture.journalled() > 0);
    fixture.switch.set(false, false);
    let store = fixture.open().await;
    assert_eq!(fixture.journalled(), 0);
    for call in 41..=80 {
        assert_eq!(has_ended(&store, call).await, !matches!(call, 41 | 60 | 80), "{call}");
    }
    assert_eq!(set_aside().unwrap().len(), 4);
    // The same for the pending log of a killed process.
    let file =
        if is_postgres() { fixture.folder.path().join("data/offhook.db") } else { fixture.file() };
    let pending_log = crate::files::with_suffix(&file, ".births");
    begin(&store, 81);
    begin(&store, 82);
    let noted = std::fs::read(&pending_log).unwrap();
    store.close().await;
    let other = pool(&fixture.file()).await;
    sql::query("DELETE FROM calls").execute(&other).await.unwrap();
    let shut = if is_postgres() {
        format!("ALTER TABLE calls ADD CONSTRAINT fits CHECK (call_uuid <> '{}')", uuid(81))
    } else {
        format!(
            "CREATE TRIGGER fits_too BEFORE INSERT ON calls WHEN NEW.call_uuid = '{}' \
                BEGIN SELECT RAISE(ABORT, 'it fits no index'); END",
            uuid(81)
        )
    };
    sql::query(shut).execute(&other).await.unwrap();
    other.close().await;
    std::fs::write(&pending_log, noted).unwrap();
    let store = fixture.open().await;
    let orphans = store.calls().orphans("node").await.unwrap();
    assert_eq!(orphans.iter().map(|orphan| orphan.start.call).collect::<Vec<_>>(), [uuid(82)]);
    assert_eq!(set_aside().unwrap().len(), 5);
    store.close().await;
}

/// A file system of two megabytes, unmounted on drop.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"])
            .arg(folder.path())
            .stderr(std::process::Stdio::null())
            .status();
        if mounted.is_ok_and(|s| s.success()) {
            return Some(Self(folder));
        }
        let required = std::env::var("OFFHOOK_TEST_REQUIRE").unwrap_or_default();
        assert!(
            !required.split_whitespace().any(|r| r == "tmpfs"),
            "tmpfs is required here and can't be mounted"
        );
        #[allow(clippy::print_stderr, reason = "reports a skipped test")]
        {
            eprintln!("skipped: a tmpfs can't be mounted (root is needed)");
        }
        None
    }

    fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let filler = self.0.path().join("filler");
        let mut file = std::fs::File::create(&filler).unwrap();
        while file.write_all(&[0; 1024]).is_ok() {}
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn r11_a_full_disk_loses_nothing() {
    if skipped_on_postgres() {
        return;
    }
    let Some(small) = SmallDisk::mount() else { return };
    let _ = tracing_subscriber::fmt()
        .with_test_writer()
        .with_max_level(tracing::Level::DEBUG)
        .try_init();
    let fixture = Fixture::new();
    let file = small.0.path().join("offhook.db");
    let store = fixture.open_at(file.clone(), fixture.folder.path().join("data")).await;
    assert!(store.calls().conclude(conclusion(1)).await.unwrap().changed);
    let filler = small.fill();
    let mut calls = 1;
    until("the disk is full", async || {
        calls += 1;
        assert!(store.calls().conclude(conclusion(calls)).await.unwrap().changed);
        fixture.journalled() > 0
    })
    .await;
    assert_eq!(fixture.health.unready_reason(), None);
    std::fs::remove_file(filler).unwrap();
    for call in 1..=calls {
        until("replayed to the first disk", async || has_ended(&store, call).await).await;
    }
    store.close().await;

    // With the journal on the same disk, nothing can be written until there is space.
    let store = fixture.open_at(file, small.0.path().join("data")).await;
    let filler = small.fill();
    let mut stuck = Vec::new();
    until("nothing is accepted", async || {
        calls += 1;
        stuck.push(tokio::spawn(store.calls().conclude(conclusion(calls))));
        fixture.health.is_store_broken()
    })
    .await;
    std::fs::remove_file(filler).unwrap();
    for concluded in stuck {
        assert!(concluded.await.unwrap().unwrap().changed);
    }
    for call in 1..=calls {
        until("replayed", async || has_ended(&store, call).await).await;
    }
    until("ready", async || fixture.health.unready_reason().is_none()).await;
    store.close().await;
}

#[tokio::test]
async fn r4_an_unreadable_callback_blocks_no_other() {
    let fixture = Fixture::new();
    let store = fixture.open().await;
    for call in 1..=3 {
        store.outbox().insert(callback(call, call)).await.unwrap();
    }
    let other = pool(&fixture.file()).await;
    let bend = "UPDATE callbacks SET kind = 'of tomorrow' WHERE event_id = $1";
    sql::query(bend).bind(uuid(2).to_string()).execute(&other).await.unwrap();
    assert_eq!(waiting(&store).await, [1, 3]);
    let row = "SELECT next_us, delivered, last FROM callbacks WHERE event_id = $1";
    let (next, delivered, last): (Option<i64>, bool, String) =
        sql::query_as(row).bind(uuid(2).to_string()).fetch_one(&other).await.unwrap();
    assert!(next.is_none() && !delivered && last.starts_with("unreadable row"), "{last}");
}
