//! The permissions of two nodes on a real PostgreSQL.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use model::{Health, Secret};
use store::testing::{place, skipped_on_sqlite};
use store::{Store, StoreOptions};
use uuid::Uuid;

use super::*;

fn now() -> Timestamp {
    Timestamp::from_secs(NOW)
}

fn key() -> PairKey {
    PairKey::new(&"106".into(), "919812345678")
}

struct Node {
    store: Store,
    consents: Arc<Consents>,
    run: Uuid,
}

impl Node {
    async fn start(folder: &tempfile::TempDir, name: &str) -> Self {
        let at = place(&folder.path().join("data/offhook.db")).await;
        let options = StoreOptions {
            secret_key: Some(Secret::new("the key of all nodes of this test")),
            ..StoreOptions::with_journal_in(folder.path().join(name))
        };
        let store = Store::open_with(at, options, Health::new()).await.unwrap();
        let run = Uuid::new_v4();
        let mut session = store.fleet_session().await.unwrap();
        assert!(session.register(run, name, "{}", false).await.unwrap().is_some());
        session.close().await.unwrap();
        let consents = Arc::new(Consents::load(store.clone()).await.unwrap());
        consents.share(run);
        Self { store, consents, run }
    }

    async fn reserve(&self) -> Result<Option<Reservation>, ReserveError> {
        self.consents.reserve(&key(), &Rules::default(), now()).await
    }

    /// Applies an event and waits until it is stored.
    async fn apply(&self, event: Event) {
        let taken = self.consents.take(&key(), &Rules::default(), now(), event);
        assert!(taken.stored.unwrap().await);
    }

    /// The user grants a permanent permission.
    async fn grant(&self) {
        self.reply(
            Reply::Accept { permanent: true, expiration: None, automatic: false },
            "wamid.1",
        )
        .await;
    }

    async fn reply(&self, reply: Reply, id: &str) {
        let rules = Rules::default();
        let taken = self.consents.reply(&key(), &rules, now(), Some(now()), reply, id);
        let Ok(taken) = taken else { panic!("full") };
        assert!(taken.stored.unwrap().await);
    }

    async fn leave(self) {
        let mut session = self.store.fleet_session().await.unwrap();
        assert!(session.leave(self.run).await.unwrap());
        session.close().await.unwrap();
        self.store.close().await;
    }
}

fn is_busy(result: &Result<Option<Reservation>, ReserveError>) -> bool {
    matches!(result, Err(ReserveError::UserBusy))
}

#[tokio::test]
async fn f23_one_of_many_orders_for_a_user_is_placed() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Node::start(&folder, "a").await, Node::start(&folder, "b").await);
    let refused = a.reserve().await;
    assert!(matches!(refused, Err(ReserveError::Refused(_))), "{refused:?}");
    // B does not know of the permission before it reads the pair.
    a.grant().await;
    let orders = (0..200).map(|n| if n % 2 == 0 { a.reserve() } else { b.reserve() });
    let (placed, refused): (Vec<_>, Vec<_>) =
        join_all(orders).await.into_iter().partition(Result::is_ok);
    assert_eq!((placed.len(), refused.len()), (1, 199));
    assert!(refused.iter().all(is_busy));
    drop(placed);
    a.store.flush().await;
    b.store.flush().await;
    let next = b.reserve().await;
    assert!(next.unwrap().is_some(), "the call has ended");
    a.leave().await;
    b.leave().await;
}

#[tokio::test]
async fn f23_a_call_from_the_user_and_a_dead_run() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Node::start(&folder, "a").await, Node::start(&folder, "b").await);
    a.grant().await;
    let inbound = a.consents.engage(key());
    a.store.flush().await;
    assert!(is_busy(&b.reserve().await));
    // The gate of B decides from its own memory after that, as without a fleet.
    assert!(!b.consents.is_engaged(&key()));
    drop(inbound);
    a.store.flush().await;
    let mut engaged = b.consents.engage_alone(key()).unwrap();
    engaged.hold(b.reserve().await.unwrap());
    assert!(is_busy(&a.reserve().await));
    // Its calls may still be up until its units are given back.
    let mut session = a.store.fleet_session().await.unwrap();
    let seq = session.runs().await.unwrap().2.iter().find(|run| run.run == b.run).unwrap().seq;
    assert!(session.declare_dead(b.run, seq).await.unwrap());
    assert!(is_busy(&a.reserve().await));
    assert!(session.release(b.run).await.unwrap());
    let placed = a.reserve().await.unwrap();
    assert!(placed.is_some());
    drop(engaged);
    b.store.flush().await;
    assert!(is_busy(&a.reserve().await), "the late end of B's call does not free the user");
    session.close().await.unwrap();
    drop(placed);
    b.store.close().await;
    a.leave().await;
}

#[tokio::test]
async fn f23_events_at_two_nodes_all_count() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Node::start(&folder, "a").await, Node::start(&folder, "b").await);
    // The row does not exist yet: both nodes insert it.
    tokio::join!(a.apply(Event::Unanswered), b.apply(Event::Unanswered));
    a.consents.fetch(&key()).await.unwrap();
    let view = a.consents.view(&key(), &Rules::default(), now());
    assert_eq!((view.missed, view.warned), (2, true));

    // Five calls a day, whichever node places them.
    a.grant().await;
    for n in 0..5 {
        let node = if n % 2 == 0 { &a } else { &b };
        let reserved = node.reserve().await.unwrap();
        node.consents.apply(&key(), &Rules::default(), now(), Event::Connected);
        drop(reserved);
        node.store.flush().await;
    }
    for node in [&a, &b] {
        let Err(ReserveError::Refused(refusal)) = node.reserve().await else {
            panic!("a sixth call")
        };
        assert_eq!(refusal.why, RefusalReason::DailyLimit);
    }
    a.leave().await;
    b.leave().await;
}

#[tokio::test]
async fn f23_one_request_a_day_is_sent_by_the_fleet() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (Node::start(&folder, "a").await, Node::start(&folder, "b").await);
    let rules = Rules::default();
    let (one, two) = (key(), key());
    let requests = (0..10).flat_map(|_| {
        let of_a = a.consents.claim_request(&one, &rules, now());
        [of_a, b.consents.claim_request(&two, &rules, now())]
    });
    let mut sent = 0;
    for result in join_all(requests).await {
        match result {
            Ok(()) => sent += 1,
            Err(error) => assert!(matches!(error, ClaimError::Refused(_)), "{error:?}"),
        }
    }
    assert_eq!(sent, 1);
    // A copy that has not been read again deletes nothing that others have changed.
    b.grant().await;
    a.consents.forget_blank(now(), |_, _| true);
    a.store.flush().await;
    assert!(b.reserve().await.unwrap().is_some());
    a.leave().await;
    b.leave().await;
}

#[tokio::test]
async fn f23_changes_are_reported_by_the_node_that_makes_them() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let nodes = [Node::start(&folder, "a").await, Node::start(&folder, "b").await];
    let reported = Arc::new(Mutex::new(Vec::new()));
    for (node, name) in nodes.iter().zip(["a", "b"]) {
        let reported = reported.clone();
        node.consents.tell(Box::new(move |_, state| {
            reported.lock().unwrap().push((name, state.as_str()));
        }));
    }
    let [a, b] = &nodes;
    a.consents.claim_request(&key(), &Rules::default(), now()).await.unwrap();
    a.grant().await;
    // B has not heard of the request, nor of the permission.
    b.reply(Reply::Reject, "wamid.2").await;
    a.reply(Reply::Reject, "wamid.3").await;
    assert_eq!(*reported.lock().unwrap(), [("a", "requested"), ("a", "permanent"), ("b", "none")]);
    for node in nodes {
        node.leave().await;
    }
}
