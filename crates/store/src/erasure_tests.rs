//! Tests that an erasure finds all of a user's data: by all their ids, in calls that dialled them,
//! and in rooms that they were in.

use uuid::Uuid;

use crate::rows::call::{CallStart, Conclusion};
use crate::rows::recording::{RecordingConclusion, RecordingEnd, RecordingStart};
use crate::sample::setup;
use crate::scope::Scope;
use crate::sql;
use crate::store::Store;
use crate::tables::erasures::{CallRecordings, Erasure, ErasureCutoff};
use crate::testing::pool;
use crate::tests::{MAIN, callback, end, secs, start, uuid};
use machine::RecordingEndReason;
use model::{CallUuid, Health};

const PERSON: &str = "919412341234";

const BSUID: &str = "IN.4711";

fn erasure(wa_id: &str) -> Erasure {
    let (account, id) = (MAIN.into(), Uuid::from_u128(99));
    Erasure {
        id,
        account,
        main_account: MAIN.into(),
        wa_id: wa_id.to_owned(),
        known_as: Vec::new(),
        asked: secs(99),
    }
}

fn recording(n: u128, call: CallUuid, conference: Option<&str>) -> RecordingStart {
    RecordingStart {
        id: Uuid::from_u128(n),
        account: MAIN.into(),
        main_account: MAIN.into(),
        call,
        conference: conference.map(str::to_owned),
        room: None,
        multi_party: false,
        format: "wav".to_owned(),
        stereo: false,
        node_id: "node".to_owned(),
        started: secs(10),
        notices: Vec::new(),
        transcript: None,
    }
}

async fn recorded(store: &Store, start: RecordingStart) {
    let end = RecordingEnd {
        ended: secs(20),
        duration_ms: 10_000,
        end: RecordingEndReason::HungUp,
        upload: None,
        transcribe: None,
    };
    store
        .recordings()
        .conclude(RecordingConclusion { start, end, callbacks: Vec::new() })
        .await
        .unwrap();
}

async fn ended(store: &Store, start: CallStart, event: u128) {
    let callbacks = vec![callback(start.call.0.as_u128(), event)];
    let conclusion = Conclusion { start, end: end(1, 7), callbacks, farewell: None };
    assert!(store.calls().conclude(conclusion).await.unwrap().changed);
}

async fn call_recordings(store: &Store, call: u128) -> CallRecordings {
    store.flush().await;
    store.erasures().call_recordings(&Scope::of(MAIN.into()), uuid(call)).await.unwrap()
}

fn over(recordings: &[u128]) -> CallRecordings {
    CallRecordings {
        is_over: true,
        recordings: recordings.iter().copied().map(Uuid::from_u128).collect(),
    }
}

#[tokio::test]
async fn finds_recordings_of_the_parent_call_and_of_rooms() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offhook.db");
    let store = Store::open(&file, Health::new()).await.unwrap();
    let scope = Scope::of(MAIN.into());
    // Call 1 is connected to the user by the B-leg, call 2. The recording belongs to call 1.
    assert!(store.calls().begin(start(1, MAIN, MAIN), &setup(1), secs(0)));
    let leg =
        CallStart { to: PERSON.to_owned(), parent_call: Some(uuid(1)), ..start(2, MAIN, MAIN) };
    ended(&store, leg, 2).await;
    assert!(!call_recordings(&store, 2).await.is_over, "the parent call is open");
    store.recordings().begin(recording(1, uuid(1), None));
    ended(&store, start(1, MAIN, MAIN), 1).await;
    assert!(!call_recordings(&store, 2).await.is_over, "it is still being recorded");
    recorded(&store, recording(1, uuid(1), None)).await;
    assert_eq!(call_recordings(&store, 2).await, over(&[1]));

    // Call 3 has a room recorded. The user's call 4 was in that room, their call 5 was not.
    for (call, name) in [(3, "sales \"50%\""), (4, "sales \"50%\""), (5, "support")] {
        ended(&store, start(call, MAIN, MAIN), call).await;
        let line = serde_json::json!({"enter": {"name": name}}).to_string();
        assert!(store.event_log().append(uuid(call), 0, line));
    }
    store.recordings().begin(recording(2, uuid(3), Some("sales \"50%\"")));
    assert!(!call_recordings(&store, 4).await.is_over);
    recorded(&store, recording(2, uuid(3), Some("sales \"50%\""))).await;
    assert_eq!(call_recordings(&store, 4).await, over(&[2]));
    assert_eq!(call_recordings(&store, 5).await, over(&[]));

    let mut found = Vec::new();
    let mut after = None;
    while let Some(last) =
        store.erasures().calls(&erasure(PERSON), true, after, 1).await.unwrap().pop()
    {
        found.push(last);
        after = Some(last);
    }
    assert_eq!(found, [uuid(2)]);
    store.erasures().erase_call(uuid(2), Uuid::nil()).await.unwrap();
    let due = store.outbox().due("node", "https://app.example.com", secs(9), 9).await.unwrap();
    let mut left: Vec<u128> = due.iter().map(|callback| callback.new.event_id.as_u128()).collect();
    left.sort_unstable();
    assert_eq!(left, [3, 4, 5], "callbacks of the user's call and its parent are deleted");
    let record = store.calls().get(&scope, uuid(1)).await.unwrap().unwrap();
    assert!(
        record.end.unwrap().remarks.is_empty() && !record.start.from.is_empty(),
        "the other party stays in the record"
    );
    store.close().await;
}

#[tokio::test]
async fn a_user_is_resolved_to_all_ids_even_after_the_conversations_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offhook.db");
    let store = Store::open(&file, Health::new()).await.unwrap();
    let other = pool(&file).await;
    for (n, account, user, bsuid) in [
        (1, MAIN, PERSON, Some(BSUID)),
        (2, MAIN, "919876543210", Some("IN.1")),
        (3, "MAOTHER", BSUID, Some("IN.2")),
    ] {
        let insert = "INSERT INTO conversations (conversation_id, auth_id, main_auth_id, number, phone_number_id, user_id, \
            bsuid, name, status, routing, last_text, last_direction, last_us, created_us) \
            VALUES ($1, $2, $2, '918035737458', '7', $3, $4, '', 'open', 'none', '', 'inbound', 1, 1)";
        let insert =
            sql::query(insert).bind(Uuid::from_u128(n).to_string()).bind(account).bind(user);
        insert.bind(bsuid).execute(&other).await.unwrap();
    }
    store.erasures().request(erasure(BSUID)).await.unwrap();
    let asked = store.erasures().list().await.unwrap().remove(0);
    let resolved = store.erasures().resolve(asked).await.unwrap();
    assert_eq!(resolved.ids(), [BSUID, PERSON]);
    let theirs = store.erasures().conversations(&resolved, Uuid::nil(), 9).await.unwrap();
    assert_eq!(theirs.iter().map(|c| c.pair.conversation.as_u128()).collect::<Vec<_>>(), [1]);
    // The conversations are deleted first. The ids found in them must be kept.
    sql::query("DELETE FROM conversations").execute(&other).await.unwrap();
    other.close().await;
    let again = store.erasures().list().await.unwrap().remove(0);
    assert_eq!(store.erasures().resolve(again).await.unwrap().ids(), [BSUID, PERSON]);
    store.close().await;
}

#[tokio::test]
async fn saved_filters_with_an_id_of_the_user_are_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offhook.db");
    let store = Store::open(&file, Health::new()).await.unwrap();
    let other = pool(&file).await;
    for (n, account) in [(1, MAIN), (2, "MAOTHER")] {
        let insert = "INSERT INTO users (user_id, auth_id, main_auth_id, name, full_name, role, in_file, created_us) \
            VALUES ($1, $2, $2, 'asha', '', 'owner', 0, 1)";
        let insert = sql::query(insert).bind(Uuid::from_u128(n).to_string()).bind(account);
        insert.execute(&other).await.unwrap();
    }
    other.close().await;
    let theirs = format!("?party=%2B{PERSON}");
    for (user, name, query) in [
        (1, "plain", theirs.as_str()),
        (1, "typed", "?from=%2B91+%2894123%29+412-34&direction=inbound"),
        (1, "someone else", "?party=%2B919876543210"),
        (2, "of another account", &theirs),
    ] {
        let user = Uuid::from_u128(user);
        let saved = store.saved_filters().put(user, name.to_owned(), query.to_owned());
        assert!(saved.await.unwrap());
    }
    let until = ErasureCutoff { wall: secs(99), steady: secs(99) };
    store.erasures().erase_remaining(&erasure(PERSON), until, Vec::new()).await.unwrap();
    for (user, left) in [(1, "someone else"), (2, "of another account")] {
        let list = store.saved_filters().list(Uuid::from_u128(user)).await.unwrap();
        assert_eq!(list.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), [left]);
    }
    store.close().await;
}

#[tokio::test]
async fn a_request_covers_data_stamped_before_the_clock_was_set_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offhook.db");
    let store = Store::open(&file, Health::new()).await.unwrap();
    let call = CallStart { from: PERSON.to_owned(), started: secs(200), ..start(1, MAIN, MAIN) };
    ended(&store, call, 1).await;
    store.flush().await;
    // The wall clock was set back after the user's call.
    store.erasures().request(erasure(PERSON)).await.unwrap();
    let asked = store.erasures().list().await.unwrap().remove(0);
    assert_eq!(asked.asked, secs(200));
    assert_eq!(store.erasures().calls(&asked, true, None, 9).await.unwrap(), [uuid(1)]);
    // A later call is not part of the request.
    let later = CallStart { from: PERSON.to_owned(), started: secs(201), ..start(2, MAIN, MAIN) };
    ended(&store, later, 2).await;
    assert_eq!(store.erasures().calls(&asked, true, None, 9).await.unwrap(), [uuid(1)]);
    store.close().await;
}

#[tokio::test]
async fn a_repeated_request_renews_the_first_and_accounts_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("offhook.db"), Health::new()).await.unwrap();
    let first = store.erasures().request(erasure(PERSON)).await.unwrap();
    let listed = store.erasures().list().await.unwrap().remove(0);
    let again = Erasure { id: Uuid::new_v4(), asked: secs(300), ..erasure(PERSON) };
    let renewed = store.erasures().request(again).await.unwrap();
    assert_eq!((renewed.id, renewed.asked), (first.id, secs(300)));
    assert!(!store.erasures().finish(&listed).await.unwrap(), "there may be later data");
    for n in 0..120_u32 {
        let user = format!("9198{n:08}");
        let of = |main: &str| Erasure {
            id: Uuid::new_v4(),
            account: main.into(),
            main_account: main.into(),
            asked: secs(400),
            ..erasure(&user)
        };
        store.erasures().request(of(MAIN)).await.unwrap();
        if n < 2 {
            store.erasures().request(of("MAOTHER")).await.unwrap();
        }
    }
    let list = store.erasures().list().await.unwrap();
    let accounts: Vec<_> = list.iter().map(|erasure| erasure.main_account.as_str()).collect();
    assert_eq!(accounts.len(), 102, "a hundred of one account at a time");
    let of_other = |part: &[&str]| part.iter().filter(|account| **account == "MAOTHER").count();
    assert_eq!((of_other(&accounts[..2]), of_other(&accounts[..4])), (1, 2));
    assert!(store.erasures().finish(&list[0]).await.unwrap());
    assert_eq!(store.erasures().list().await.unwrap().len(), 102, "the next one");
    store.close().await;
}
