//! Members of a fleet on a real PostgreSQL.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fleet::{LimitKey, LimitKind, Supply, Usage};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use model::{Clock, Health};
use store::testing::{place, skipped_on_sqlite};
use store::{RunInfo, Store, StoreError, StoreOptions};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Cluster, JoinError, JoinOptions, Reaper};
use crate::admission::{Ring, Slot, Slots};

const SLOTS: u32 = 12;
const PERMITS: u32 = 6;

/// The counters of a node.
#[derive(Clone)]
struct Counters {
    slots: &'static Slots,
    ring: Arc<Ring>,
    waiting: Arc<AtomicU32>,
    clock: Arc<dyn Fn() -> u64 + Send + Sync>,
}

impl Supply for Counters {
    fn usage(&mut self, key: &LimitKey) -> Usage {
        let used = match key.kind() {
            LimitKind::Slots => self.slots.in_use(),
            LimitKind::Permits => u32::try_from(self.ring.spent((self.clock)())).unwrap(),
        };
        Usage { used, waiting: self.waiting.load(Ordering::Acquire), starts: 0 }
    }

    fn lower(&mut self, key: &LimitKey, to: u32) -> u32 {
        match key.kind() {
            LimitKind::Slots => self.slots.lower_to(to),
            LimitKind::Permits => u32::try_from(self.ring.lower_to(to, (self.clock)())).unwrap(),
        }
    }

    fn raise(&mut self, key: &LimitKey, to: u32) {
        match key.kind() {
            LimitKind::Slots => self.slots.set_limit(to),
            LimitKind::Permits => self.ring.set_limit(to),
        }
    }
}

/// Calls of all nodes, as Meta counts them.
#[derive(Default)]
struct Meta {
    live: AtomicU32,
    most: AtomicU32,
    /// Times of admissions.
    admitted: Mutex<Vec<u64>>,
}

/// Reports the runs whose calls are to be ended.
struct Reports(mpsc::Sender<Uuid>);

impl Reaper for Reports {
    fn end_calls(&self, run: RunInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let _ = self.0.send(run.run).await;
            Ok(())
        }
        .boxed()
    }
}

struct Node {
    cluster: Cluster,
    counters: Counters,
}

fn keys() -> [(LimitKey, u32); 2] {
    [(LimitKey::number("7"), SLOTS), (LimitKey::account("MA"), PERMITS)]
}

async fn open(folder: &tempfile::TempDir) -> Store {
    let at = place(&folder.path().join("offhook.db")).await;
    let journal = folder.path().join(Uuid::new_v4().to_string());
    Store::open_with(at, StoreOptions::with_journal_in(&journal), Health::new()).await.unwrap()
}

/// Starts a node. Runs whose calls it ends are sent to `report`.
async fn join(
    store: &Store,
    clock: &Clock,
    node_id: &str,
    report: &mpsc::Sender<Uuid>,
) -> Result<Node, JoinError> {
    let (origin, real) = (clock.now(), clock.clone());
    let nanos = move || {
        u64::try_from(real.now().saturating_duration_since(origin).as_nanos()).unwrap()
            + 10_000_000_000
    };
    let counters = Counters {
        slots: Slots::new(0),
        ring: Arc::new(Ring::new(0)),
        waiting: Arc::default(),
        clock: Arc::new(nanos),
    };
    let reaper = Reports(report.clone());
    let options = JoinOptions {
        node_id: node_id.to_owned(),
        about: "{}".to_owned(),
        strict: true,
        limits: keys().to_vec(),
    };
    let join = Cluster::join(store.clone(), clock.clone(), options, counters.clone(), reaper);
    Ok(Node { cluster: join.await?, counters })
}

impl Node {
    /// Admits a call, or asks for units.
    fn admit(&self, meta: &Meta, now: u64) -> Option<Slot> {
        let slot = self.counters.slots.acquire();
        let permit = self.counters.ring.take((self.counters.clock)());
        let (Some(slot), Some(_)) = (slot, permit) else {
            self.counters.waiting.store(1, Ordering::Release);
            self.cluster.hurry();
            return None;
        };
        self.counters.waiting.store(0, Ordering::Release);
        if !self.cluster.admits() {
            return None;
        }
        let live = meta.live.fetch_add(1, Ordering::AcqRel) + 1;
        meta.most.fetch_max(live, Ordering::AcqRel);
        meta.admitted.lock().unwrap().push(now);
        Some(slot)
    }

    fn end(meta: &Meta, slot: Slot) {
        // First Meta's count, then the unit.
        meta.live.fetch_sub(1, Ordering::AcqRel);
        drop(slot);
    }
}

/// Three nodes admit as many calls as they can. One of them is killed with its calls: the others end
/// them and share its units.
#[tokio::test(flavor = "multi_thread")]
async fn f10_f29_three_nodes_share_limits_and_outlive_one_of_them() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    store.fleet_session().await.unwrap().set_caps(&keys()).await.unwrap();
    let (clock, meta) = (Clock::real(), Meta::default());
    let origin = clock.now();
    let now = || u64::try_from(clock.now().saturating_duration_since(origin).as_micros()).unwrap();
    let (report, mut ended) = mpsc::channel(16);
    let mut nodes = Vec::new();
    for name in ["one", "two", "three"] {
        nodes.push(join(&store, &clock, name, &report).await.unwrap());
    }
    for node in &nodes {
        node.cluster.settled().await;
    }
    let number = AtomicU64::new(0);
    // Calls come every 5 ms at each node until some were admitted, at each node at least one. A call
    // ends after 900 more have come.
    let load = async |nodes: &[Node], calls: usize| {
        let mut live: Vec<Vec<(u64, Slot)>> = nodes.iter().map(|_| Vec::new()).collect();
        let before = meta.admitted.lock().unwrap().len();
        let mut served = BTreeSet::new();
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        while meta.admitted.lock().unwrap().len() < before + calls || served.len() < nodes.len() {
            for (index, node) in nodes.iter().enumerate() {
                let attempt = number.fetch_add(1, Ordering::AcqRel);
                if let Some(slot) = node.admit(&meta, now()) {
                    served.insert(index);
                    live[index].push((attempt, slot));
                }
                while let Some(over) = live[index].iter().position(|(n, _)| n + 900 < attempt) {
                    Node::end(&meta, live[index].remove(over).1);
                }
            }
            pace.tick().await;
        }
        live
    };
    let live = load(&nodes, 40).await;

    // One is killed. Its calls are up until another node ends them.
    let killed = nodes.remove(0);
    let run = killed.cluster.run();
    drop(killed.cluster);
    let mut live = live.into_iter();
    let orphans = live.next().unwrap();
    for (_, slot) in live.flatten() {
        Node::end(&meta, slot);
    }
    for (_, slot) in load(&nodes, 20).await.into_iter().flatten() {
        Node::end(&meta, slot);
    }
    assert_eq!(ended.recv().await, Some(run));
    assert!(meta.most.load(Ordering::Acquire) <= SLOTS);
    for (_, slot) in orphans {
        Node::end(&meta, slot);
    }

    // The units come back: the survivors fill the number.
    let mut session = store.fleet_session().await.unwrap();
    while session.runs().await.unwrap().2.iter().any(|row| row.run == run) {}
    meta.most.store(0, Ordering::Release);
    let live = load(&nodes, 60).await;
    assert_eq!(meta.most.load(Ordering::Acquire), SLOTS, "the number is full");
    let admitted = meta.admitted.lock().unwrap().clone();
    let most = PERMITS as usize;
    let window = |calls: &[u64]| calls[most] - calls[0] >= 1_000_000;
    assert!(admitted.windows(most + 1).all(window), "more than {PERMITS} calls within a second");
    for (_, slot) in live.into_iter().flatten() {
        Node::end(&meta, slot);
    }
    for node in nodes {
        node.cluster.leave().await.unwrap();
    }
    assert!(session.runs().await.unwrap().2.is_empty());
    store.close().await;
}

#[tokio::test]
async fn f25_a_second_process_of_a_node_does_not_start() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let (clock, (report, _ended)) = (Clock::real(), mpsc::channel(16));
    let first = join(&store, &clock, "one", &report).await.unwrap();
    first.cluster.settled().await;
    let refused = join(&store, &clock, "one", &report).await.map(drop).unwrap_err();
    assert!(matches!(refused, JoinError::NameInUse(_)), "{refused}");
    assert!(first.cluster.admits());
    // Once it no longer beats, another process takes its place.
    let run = first.cluster.run();
    drop(first);
    let second = join(&store, &clock, "one", &report).await.unwrap();
    second.cluster.settled().await;
    let mut session = store.fleet_session().await.unwrap();
    let (_, _, runs) = session.runs().await.unwrap();
    let state = |run| runs.iter().find(|row| row.run == run).map(|row| row.state.as_str());
    assert_eq!((state(run), state(second.cluster.run())), (Some("dead"), Some("up")));
    second.cluster.leave().await.unwrap();
    store.close().await;
}

#[tokio::test]
async fn f28_a_node_that_was_declared_dead_learns_of_it() {
    if skipped_on_sqlite() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let (report, _ended) = mpsc::channel(16);
    let node = join(&store, &Clock::real(), "one", &report).await.unwrap();
    node.cluster.settled().await;
    let mut session = store.fleet_session().await.unwrap();
    let run = node.cluster.run();
    loop {
        let (_, _, runs) = session.runs().await.unwrap();
        if session.declare_dead(run, runs[0].seq).await.unwrap() {
            break;
        }
    }
    node.cluster.dead().cancelled().await;
    assert!(!node.cluster.admits());
    store.close().await;
}
