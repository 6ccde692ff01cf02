//! Tests that each write of a large batch has the same result as alone.

use serde_json::json;
use uuid::Uuid;

use crate::rows::call::{Conclusion, ConclusionResult};
use crate::rows::callback::{DeliveryOutcome, Settlement};
use crate::rows::conversation::{Pair, UserName};
use crate::rows::message::{EventDraft, EventForm, InboxResult, NewMessage, TimelineEntry};
use crate::scope::Scope;
use crate::store::Store;
use crate::tests::{MAIN, begin, callback, end, secs, start, uuid};
use model::{Direction, E164, Health, MessageStatus, Routing};

/// Message `n` of a user, reported to the number's webhook URL.
pub(crate) fn came(n: u128, user: u128) -> TimelineEntry {
    TimelineEntry {
        pair: Pair {
            conversation: Uuid::from_u128(1_000 + user),
            account: MAIN.into(),
            main_account: MAIN.into(),
            number: E164::parse("918035737458").unwrap(),
            phone_number_id: "7".into(),
            user: UserName { id: format!("91981234567{user}"), bsuid: None, name: String::new() },
        },
        message: NewMessage {
            id: Uuid::from_u128(2_000 + n),
            wamid: Some(format!("wamid.{n}")),
            direction: Direction::Inbound,
            kind: "text".to_owned(),
            text: "hello".to_owned(),
            content: json!({"text": {"body": "hello"}}),
            status: MessageStatus::Received,
            sender: None,
            at: secs(n as i64),
        },
        inbound_at: Some(secs(n as i64)),
        counts: true,
        routing: Routing::Webhook(None),
        draft: Some(EventDraft {
            event_id: Uuid::from_u128(3_000 + n),
            account: MAIN.into(),
            main_account: MAIN.into(),
            node_id: "node".to_owned(),
            created: secs(1),
            event: "message.received".to_owned(),
            body: json!({}),
            form: Some(EventForm {
                event_id: Uuid::from_u128(3_000 + n),
                number: None,
                url: "https://app.example.com/messages".to_owned(),
                origin: "https://app.example.com".to_owned(),
                params: Vec::new(),
            }),
        }),
        turn: None,
    }
}

/// If `apart`, the batch includes a write that does not commute with the others.
async fn each_has_its_own(apart: bool) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("offhook.db"), Health::new()).await.unwrap();
    let before = store.outbox().insert(callback(50, 500)).await.unwrap();
    // More than one round trip to SQLite's thread holds, and one call with a lost start.
    (2..12).for_each(|n| begin(&store, n));
    let conclusion = |n: u128| Conclusion {
        start: start(n, MAIN, MAIN),
        end: end(n as i64, n as u64),
        callbacks: vec![callback(n, n)],
        farewell: None,
    };
    let ends: Vec<_> = (2..13).map(|n| store.calls().conclude(conclusion(n))).collect();
    let again = store.calls().conclude(conclusion(3));
    if apart {
        store.calls().set_wacid(uuid(4), "wacid.bound".into(), secs(99));
    }
    let inserted = store.outbox().insert(callback(50, 501));
    let outcome = DeliveryOutcome::Delivered;
    let settlement = Settlement {
        row: before.callback.row,
        attempts: 1,
        at: secs(3),
        outcome,
        last: "200".to_owned(),
    };
    let settled = store.outbox().settle(settlement);
    // Two messages of one user, the second one twice, interleaved with those of another user.
    let all = [came(1, 1), came(2, 2), came(3, 1), came(3, 1), came(4, 2)];
    let messages: Vec<_> =
        all.into_iter().map(|came| store.messages().receive(came).unwrap()).collect();

    for (n, concluded) in (2..13).zip(ends) {
        let concluded = concluded.await.unwrap();
        assert!(concluded.changed, "call {n}");
        let events: Vec<_> = concluded
            .callbacks
            .iter()
            .map(|c| (c.callback.new.event_id.as_u128(), c.first))
            .collect();
        assert_eq!(events, [(n, true)]);
    }
    assert_eq!(again.await.unwrap(), ConclusionResult::default());
    let inserted = inserted.await.unwrap();
    assert_eq!(
        (inserted.callback.new.event_id.as_u128(), inserted.first),
        (501, true),
        "the callback before it is settled"
    );
    assert!(!settled.await.unwrap());
    let mut found = Vec::new();
    for message in messages {
        let InboxResult::Entry(standing, written) = message.await.unwrap() else {
            panic!("no entry")
        };
        let events: Vec<_> =
            written.iter().map(|w| (w.callback.new.event_id.as_u128() - 3_000, w.first)).collect();
        found.push((standing.map(|(_, unread)| unread), events));
    }
    let wanted = [
        (Some(1), vec![(1, true)]),
        (Some(1), vec![(2, true)]),
        (Some(2), vec![(3, false)]),
        (None, vec![]),
        (Some(2), vec![(4, false)]),
    ];
    assert_eq!(found, wanted);
    let record = store.calls().get(&Scope::of(MAIN.into()), uuid(4)).await.unwrap().unwrap();
    let wacid = record.start.wacid.map(|wacid| wacid.as_str().to_owned());
    assert_eq!(wacid.as_deref(), Some(if apart { "wacid.bound" } else { "wacid.4" }));
    store.close().await;
}

#[tokio::test]
async fn commuting_writes_of_a_batch_are_executed_by_kind() {
    each_has_its_own(false).await;
}

#[tokio::test]
async fn a_write_that_does_not_commute_keeps_the_order() {
    each_has_its_own(true).await;
}
