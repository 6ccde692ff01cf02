//! Tests of calls' ends that are reported before they are in the database.

use std::path::Path;

use crate::files::with_suffix;
use crate::rows::call::Conclusion;
use crate::rows::callback::{CallbackRow, DeliveryOutcome, QueuedCallback, Settlement};
use crate::scope::Scope;
use crate::sql;
use crate::store::Store;
use crate::testing::{pool, skipped_on_postgres};
use crate::tests::{MAIN, begin, callback, end, secs, start, uuid};
use model::Health;

/// The end of call `n`, with callback `n`.
fn conclusion(n: u128) -> Conclusion {
    Conclusion {
        start: start(n, MAIN, MAIN),
        end: end(1, 7),
        callbacks: vec![callback(n, n)],
        farewell: None,
    }
}

async fn open(folder: &Path) -> Store {
    Store::open(&folder.join("offhook.db"), Health::new()).await.unwrap()
}

async fn conclude(store: &Store, n: u128) -> QueuedCallback {
    let mut concluded = store.calls().conclude(conclusion(n)).await.unwrap();
    assert!(concluded.changed && concluded.callbacks.len() == 1, "{concluded:?}");
    concluded.callbacks.remove(0)
}

fn is_early(queued: &QueuedCallback) -> bool {
    matches!(queued.callback.row, CallbackRow::Pending { .. })
}

/// Ends calls from `first` on until one of them is reported early. Returns its callback.
async fn end_until_early(store: &Store, first: u128) -> (u128, QueuedCallback) {
    for n in first..first + 500 {
        begin(store, n);
        let queued = conclude(store, n).await;
        if is_early(&queued) {
            return (n, queued);
        }
    }
    panic!("no end was reported early");
}

async fn has_ended(store: &Store, n: u128) -> bool {
    let record = store.calls().get(&Scope::of(MAIN.into()), uuid(n)).await.unwrap();
    record.is_some_and(|record| record.end.is_some())
}

/// Event ids of the callbacks that are due.
async fn due(store: &Store) -> Vec<u128> {
    let origin = &callback(1, 1).origin;
    let due = store.outbox().due("node", origin, secs(9), 1_000).await.unwrap();
    due.iter().map(|callback| callback.new.event_id.as_u128()).collect()
}

fn delivered(queued: &QueuedCallback) -> Settlement {
    Settlement {
        row: queued.callback.row,
        attempts: 1,
        at: secs(3),
        outcome: DeliveryOutcome::Delivered,
        last: "200".to_owned(),
    }
}

#[tokio::test]
async fn an_end_with_an_event_of_a_conversation_is_not_reported_early() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let conversation = 1_000_000;
    store.outbox().insert(callback(conversation, 1)).await.unwrap();
    for n in 2..200 {
        begin(&store, n);
        let event = callback(conversation, n);
        let end = Conclusion { callbacks: vec![callback(n, n), event], ..conclusion(n) };
        let concluded = store.calls().conclude(end).await.unwrap();
        let [hangup, event] = &concluded.callbacks[..] else { panic!("{concluded:?}") };
        assert!(hangup.first && !event.first && !is_early(event), "{n}: behind the first one");
    }
    store.close().await;
}

#[tokio::test]
async fn a_reader_finds_the_end_that_was_reported_early() {
    if skipped_on_postgres() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut next = 1;
    for _ in 0..20 {
        let (n, queued) = end_until_early(&store, next).await;
        assert!(has_ended(&store, n).await, "{n}");
        assert!(queued.first && due(&store).await.contains(&n), "{n}");
        next = n + 1;
    }
    store.close().await;
}

#[tokio::test]
async fn a_result_is_stored_whether_it_comes_before_or_after_the_row() {
    if skipped_on_postgres() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let (before, queued) = end_until_early(&store, 1).await;
    assert!(!store.outbox().settle(delivered(&queued)).await.unwrap(), "no other callback waits");
    let (after, queued) = end_until_early(&store, before + 1).await;
    assert!(due(&store).await.contains(&after), "the row is written");
    store.outbox().settle(delivered(&queued)).await.unwrap();
    let (retried, queued) = end_until_early(&store, after + 1).await;
    let outcome = DeliveryOutcome::Retry { due: secs(8) };
    let retry = Settlement { outcome, last: "503".to_owned(), ..delivered(&queued) };
    store.outbox().settle(retry).await.unwrap();
    store.flush().await;

    let database = pool(&folder.path().join("offhook.db")).await;
    let select = "SELECT delivered, attempts, retries, coalesce(next_us, 0), coalesce(done_us, 0), \
        sealed_params IS NULL FROM callbacks WHERE call_uuid = $1";
    let (done, again) = (secs(3).micros(), secs(8).micros());
    for (n, wanted) in [
        (before, (true, 1, 0, 0, done, true)),
        (after, (true, 1, 0, 0, done, true)),
        (retried, (false, 1, 1, again, 0, false)),
    ] {
        let row: (bool, i64, i64, i64, i64, bool) =
            sql::query_as(select).bind(uuid(n).to_string()).fetch_one(&database).await.unwrap();
        assert_eq!(row, wanted, "{n}");
    }
    database.close().await;
    store.close().await;
}

/// A kill after the report and before the transaction: the next process finds the end in the
/// pending log, and sends the callback again.
#[tokio::test]
async fn r03_a_kill_loses_no_end_that_was_reported_early() {
    if skipped_on_postgres() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offhook.db");
    let store = open(folder.path()).await;
    let (n, _) = end_until_early(&store, 1).await;
    let logs = [".births", ".births.2"].map(|suffix| with_suffix(&file, suffix));
    let left = logs.clone().map(|log| std::fs::read(log).unwrap());
    store.close().await;
    let database = pool(&file).await;
    for delete in ["DELETE FROM callbacks", "DELETE FROM calls"] {
        sql::query(delete).execute(&database).await.unwrap();
    }
    database.close().await;

    // Killed once, and once more before the log is emptied.
    for _ in 0..2 {
        for (log, left) in logs.iter().zip(&left) {
            std::fs::write(log, left).unwrap();
        }
        let store = open(folder.path()).await;
        assert!(has_ended(&store, n).await);
        assert_eq!(due(&store).await.iter().filter(|event| **event == n).count(), 1);
        assert!(logs.iter().all(|log| std::fs::metadata(log).unwrap().len() == 0));
        store.close().await;
    }
}

#[tokio::test]
async fn an_end_waits_for_the_other_callbacks_of_its_call() {
    if skipped_on_postgres() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    let mut next = 1;
    for _ in 0..5 {
        // Others are reported early at this time.
        let (n, _) = end_until_early(&store, next).await;
        begin(&store, n + 1);
        let other = store.outbox().insert(callback(n + 1, 10_000 + n)).await.unwrap();
        let queued = conclude(&store, n + 1).await;
        assert!(other.first && !queued.first && !is_early(&queued));
        // Not known to be open: it may have callbacks of an earlier process.
        assert!(!is_early(&conclude(&store, n + 2).await));
        next = n + 3;
    }
    store.close().await;
}
