//! Tests that secret parameters of callbacks are encrypted in the database and the journal, and are
//! complete when the callback is sent; and that secrets survive another `store.secret_key`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::archive::Archive;
use crate::options::{StoreOptions, StorePart};
use crate::rows::call::Conclusion;
use crate::rows::callback::{Callback, DeliveryOutcome, NewCallback, Settlement};
use crate::rows::webhook::{WebhookRow, WebhookWrite};
use crate::scope::Scope;
use crate::sql;
use crate::store::Store;
use crate::tables::agents::{Agent, AgentSecrets, AgentSpec};
use crate::testing::{is_postgres, pool};
use crate::tests::{MAIN, callback, end, secs, start};
use machine::Param;
use model::{Health, Secret};
use uuid::Uuid;

/// Longer than any digits that occur in numbers and ids by chance.
const DIGITS: &str = "47110815471108154711";

fn sensitive(call: u128) -> NewCallback {
    let mut new = callback(call, call);
    new.notice.params.insert("Digits".into(), Param::Secret(DIGITS.to_owned()));
    new
}

async fn open(folder: &Path, key: Option<&str>, fails: &Arc<AtomicBool>) -> Store {
    let fails = fails.clone();
    let options = StoreOptions {
        secret_key: key.map(Secret::new),
        fail: Some(Arc::new(move |part| part == StorePart::Store && fails.load(Ordering::SeqCst))),
        ..StoreOptions::with_journal_in(folder)
    };
    Store::open_with(&folder.join("offhook.db"), options, Health::new()).await.unwrap()
}

async fn due(store: &Store) -> Vec<Callback> {
    store.outbox().due("node", &callback(1, 1).origin, secs(9), 9).await.unwrap()
}

/// The files that contain the digits in plain text.
fn telling(folder: &Path) -> Vec<String> {
    let holds = |path: &Path| {
        std::fs::read(path).unwrap().windows(DIGITS.len()).any(|w| w == DIGITS.as_bytes())
    };
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.filter(|path| holds(path)).map(|path| path.display().to_string()).collect()
}

#[tokio::test]
async fn r22_digits_are_encrypted_in_store_and_journal_and_deleted_after_delivery() {
    let folder = tempfile::tempdir().unwrap();
    let fails = Arc::default();
    let store = open(folder.path(), None, &fails).await;
    store.outbox().insert(sensitive(1)).await.unwrap();
    fails.store(true, Ordering::SeqCst);
    let conclusion = Conclusion {
        start: start(2, MAIN, MAIN),
        end: end(2, 7),
        callbacks: vec![sensitive(2)],
        farewell: None,
    };
    store.calls().conclude(conclusion).await.unwrap();
    let journal = std::fs::metadata(folder.path().join("store.journal")).unwrap().len();
    assert!(journal > 100, "the second one is in the journal");
    assert_eq!(telling(folder.path()), [""; 0]);
    store.close().await;
    assert_eq!(telling(folder.path()), [""; 0]);

    fails.store(false, Ordering::SeqCst);
    let store = open(folder.path(), None, &fails).await;
    let found = due(&store).await;
    assert_eq!(
        found.iter().map(|c| c.new.clone()).collect::<Vec<_>>(),
        [sensitive(1), sensitive(2)],
        "complete again"
    );
    for callback in found {
        let outcome = DeliveryOutcome::Delivered;
        let settled = Settlement {
            row: callback.row,
            attempts: 1,
            at: secs(9),
            outcome,
            last: "200".to_owned(),
        };
        store.outbox().settle(settled).await.unwrap();
    }
    store.close().await;
    let file = pool(&folder.path().join("offhook.db")).await;
    let kept = "SELECT count(*) FROM callbacks WHERE sealed_params IS NOT NULL OR secret_params IS NOT NULL";
    let kept: i64 = sql::query_scalar(kept).fetch_one(&file).await.unwrap();
    assert_eq!(kept, 0, "parameters of delivered callbacks are deleted");
    file.close().await;
}

#[tokio::test]
async fn r22_unencrypted_rows_are_sent_and_those_of_another_key_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let fails = Arc::default();
    let store = open(folder.path(), Some("one key"), &fails).await;
    store.outbox().insert(sensitive(1)).await.unwrap();
    store.outbox().insert(sensitive(2)).await.unwrap();
    store.close().await;
    let file = pool(&folder.path().join("offhook.db")).await;
    let as_before = "UPDATE callbacks SET secret_params = $1, sealed_params = NULL WHERE id = 1";
    let plain = format!("{{\"Digits\":\"{DIGITS}\"}}");
    sql::query(as_before).bind(plain).execute(&file).await.unwrap();
    file.close().await;

    let store = open(folder.path(), Some("another key"), &fails).await;
    let found = due(&store).await;
    assert_eq!(found[0].new, sensitive(1));
    assert!(
        found[1].new.shut.is_some() && found[1].new.notice.params.get("Digits").is_none(),
        "not sent without its parameters"
    );
    store.close().await;

    let store = open(folder.path(), Some("one key"), &fails).await;
    assert_eq!(due(&store).await[1].new, sensitive(2));
    store.close().await;
}

#[tokio::test]
async fn secrets_of_another_key_survive_a_change_until_that_key_returns() {
    let folder = tempfile::tempdir().unwrap();
    let fails = Arc::default();
    let scope = Scope::of(MAIN.into());
    let agent = Agent {
        id: Uuid::from_u128(1),
        account: MAIN.into(),
        main_account: MAIN.into(),
        spec: AgentSpec { name: "Asha".to_owned(), ..AgentSpec::blank() },
        secrets: AgentSecrets {
            api_key: Some(Secret::new("key")),
            signing_secret: Some(Secret::new("signs")),
            unreadable: None,
        },
        created: secs(1),
    };
    let webhook = WebhookRow {
        id: Uuid::from_u128(2),
        account: MAIN.into(),
        name: "crm".to_owned(),
        url: "https://crm.example/".to_owned(),
        secrets: vec![Secret::new("whsec_1")],
        created: secs(1),
        version: 0,
    };
    let store = open(folder.path(), Some("one key"), &fails).await;
    assert!(store.agents().create(agent.clone()).await.unwrap());
    assert!(store.webhooks().write(WebhookWrite::Put(webhook)).await.unwrap());
    store.close().await;

    let store = open(folder.path(), Some("another key"), &fails).await;
    let mut found = store.agents().get(&scope, agent.id).await.unwrap().unwrap();
    assert!(found.secrets.are_unreadable());
    let count = async |key: &str| {
        let archive = Archive::open(&(&folder.path().join("offhook.db")).into()).await.unwrap();
        let counts = archive.sealed_values(Some(&Secret::new(key)), folder.path()).await.unwrap();
        counts.iter().map(|kind| (kind.what, kind.readable, kind.unreadable)).collect::<Vec<_>>()
    };
    if !is_postgres() {
        let counts = |one, other| {
            vec![("secrets of webhooks", one, other), ("secrets of AI agents", one, other)]
        };
        assert_eq!(count("one key").await, counts(1, 0));
        assert_eq!(count("another key").await, counts(0, 1));
    }
    let before = std::mem::replace(&mut found.spec.greeting, "Hello".to_owned());
    let before = AgentSpec { greeting: before, ..found.spec.clone() };
    assert!(store.agents().change(found, before).await.unwrap());
    let mut row = store.webhooks().list().await.unwrap().remove(0);
    assert!(row.secrets.is_empty());
    row.name = "renamed".to_owned();
    assert!(store.webhooks().write(WebhookWrite::Put(row)).await.unwrap());
    store.close().await;

    let store = open(folder.path(), Some("one key"), &fails).await;
    let Agent { spec, secrets, .. } = store.agents().get(&scope, agent.id).await.unwrap().unwrap();
    assert_eq!(spec.greeting, "Hello");
    let secrets = [secrets.api_key, secrets.signing_secret].map(|secret| secret.unwrap());
    assert_eq!(secrets.each_ref().map(Secret::reveal), ["key", "signs"]);
    let row = store.webhooks().list().await.unwrap().remove(0);
    assert_eq!((row.name.as_str(), row.secrets[0].reveal()), ("renamed", "whsec_1"));
    store.close().await;

    // New secrets replace the unreadable ones.
    let store = open(folder.path(), Some("another key"), &fails).await;
    let mut found = store.agents().get(&scope, agent.id).await.unwrap().unwrap();
    found.secrets = AgentSecrets { api_key: Some(Secret::new("new")), ..AgentSecrets::default() };
    let before = found.spec.clone();
    assert!(store.agents().change(found, before).await.unwrap());
    let found = store.agents().get(&scope, agent.id).await.unwrap().unwrap();
    assert_eq!(found.secrets.api_key.unwrap().reveal(), "new");
    assert_eq!(found.secrets.unreadable, None);
    store.close().await;
}
