//! Members of a fleet on a real PostgreSQL.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use model::{AuthId, Clock, Direction, Health, WabaId};
use store::testing::{place, skipped_on_sqlite};
use store::{RunInfo, Store, StoreError, StoreOptions};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::{About, Cluster, JoinError, JoinOptions, PeerTimes, Peers, Reaper};
use crate::admission::{AccountSpec, Directory, Gate, NumberSpec, Slot};

const SLOTS: u32 = 12;
const PERMITS: u32 = 6;

/// Calls of all nodes, as Meta counts them.
#[derive(Default)]
struct Meta {
    live: AtomicU32,
    most: AtomicU32,
    /// Times of admissions.
    admitted: Mutex<Vec<u64>>,
}

/// Reports the runs whose calls are to be ended, and waits until the test has ended them.
#[derive(Clone)]
struct Reports(mpsc::Sender<Uuid>, watch::Receiver<bool>);

impl Reaper for Reports {
    fn reap(&self, run: RunInfo) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let _ = self.0.send(run.run).await;
            let _ = self.1.clone().wait_for(|ended| *ended).await;
            Ok(())
        }
        .boxed()
    }
}

/// Reports to nobody.
fn reports() -> Reports {
    Reports(mpsc::channel(1).0, watch::Sender::new(true).subscribe())
}

struct Node {
    cluster: Cluster,
    gate: Arc<Gate>,
    clock: Clock,
}

const NUMBER_ID: &str = "106540352242922";

/// One number with 12 slots, of an account with 6 calls per second.
fn directory() -> Arc<Directory> {
    let directory = Arc::new(Directory::shared(1));
    let auth_id: AuthId = "MA".into();
    let account =
        AccountSpec { auth_id: auth_id.clone(), parent: None, cps: Some(PERMITS), tokens: vec![] };
    let number = NumberSpec {
        calls_per_number: SLOTS,
        waba: WabaId::from(String::new()),
        ..NumberSpec::for_tests("918035737458", NUMBER_ID, auth_id.as_str())
    };
    directory.replace(vec![account], vec![number]).unwrap();
    directory
}

async fn open(folder: &tempfile::TempDir) -> Store {
    let at = place(&folder.path().join("offhook.db")).await;
    let journal = folder.path().join(Uuid::new_v4().to_string());
    Store::open_with(at, StoreOptions::with_journal_in(&journal), Health::new()).await.unwrap()
}

/// Starts a node that reports the runs whose calls it ends.
async fn join(
    store: &Store,
    clock: &Clock,
    node_id: &str,
    report: &Reports,
) -> Result<Node, JoinError> {
    let gate = Arc::new(Gate::new(directory(), clock.now() - Duration::from_secs(10)));
    let (node_id, about) = (node_id.to_owned(), About::default());
    let peers = Peers::bind("127.0.0.1:0", None, PeerTimes::default(), clock.clone(), None);
    let peers = peers.await.unwrap();
    let options = JoinOptions { node_id, about, strict: true, peers };
    let cluster = Cluster::join(store.clone(), clock.clone(), options, gate.clone(), None).await?;
    cluster.watch(report.clone());
    Ok(Node { cluster, gate, clock: clock.clone() })
}

impl Node {
    /// Admits a call, or asks for units.
    fn admit(&self, meta: &Meta, now: u64) -> Option<Slot> {
        let id = NUMBER_ID.into();
        let asked = self.gate.admit(self.clock.now(), &id, Direction::Inbound, |_| Ok(()));
        let (admitted, ()) = asked.ok()?;
        let live = meta.live.fetch_add(1, Ordering::AcqRel) + 1;
        meta.most.fetch_max(live, Ordering::AcqRel);
        meta.admitted.lock().unwrap().push(now);
        Some(admitted.begin().1)
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
    let (clock, meta) = (Clock::real(), Meta::default());
    let origin = clock.now();
    let now = || u64::try_from(clock.now().saturating_duration_since(origin).as_micros()).unwrap();
    let (sender, mut ended) = mpsc::channel(16);
    let orphans_ended = watch::Sender::new(false);
    let report = Reports(sender, orphans_ended.subscribe());
    let mut nodes = Vec::new();
    for name in ["one", "two", "three"] {
        nodes.push(join(&store, &clock, name, &report).await.unwrap());
    }
    for node in &nodes {
        node.cluster.settled().await;
    }
    let number = AtomicU64::new(0);
    // First each node admits a call, with units that the others leave to it. Then calls come every
    // 5 ms at each node until some were admitted. A call ends after 900 more have come.
    let load = async |nodes: &[Node], calls: usize| {
        let mut live: Vec<Vec<(u64, Slot)>> = nodes.iter().map(|_| Vec::new()).collect();
        let before = meta.admitted.lock().unwrap().len();
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        for (index, node) in nodes.iter().enumerate() {
            let slot = loop {
                match node.admit(&meta, now()) {
                    Some(slot) => break slot,
                    None => pace.tick().await,
                };
            };
            live[index].push((number.fetch_add(1, Ordering::AcqRel), slot));
        }
        while meta.admitted.lock().unwrap().len() < before + calls {
            for (index, node) in nodes.iter().enumerate() {
                let attempt = number.fetch_add(1, Ordering::AcqRel);
                if let Some(slot) = node.admit(&meta, now()) {
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
    orphans_ended.send_replace(true);

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
    let (clock, report) = (Clock::real(), reports());
    let first = join(&store, &clock, "one", &report).await.unwrap();
    first.cluster.settled().await;
    let refused = join(&store, &clock, "one", &report).await.map(drop).unwrap_err();
    assert!(matches!(refused, JoinError::NameInUse(_)), "{refused}");
    assert!(first.cluster.shared.admits());
    // Once it no longer beats, another process takes its place.
    let run = first.cluster.run();
    drop(first);
    let second = join(&store, &clock, "one", &report).await.unwrap();
    second.cluster.settled().await;
    let mut session = store.fleet_session().await.unwrap();
    let (_, _, runs) = session.runs().await.unwrap();
    let state = |run| runs.iter().find(|row| row.run == run).map(|row| row.state.as_str());
    // The units of the first one are given back, because it is known to have ended.
    assert_eq!((state(run), state(second.cluster.run())), (None, Some("up")));
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
    let report = reports();
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
    assert!(!node.cluster.shared.admits());
    store.close().await;
}

#[test]
fn f40_what_a_node_of_another_version_says_is_read() {
    let info = |about: &str| RunInfo {
        run: Uuid::from_u128(1),
        node_id: "a".to_owned(),
        state: fleet::RunState::Up,
        seq: 1,
        restated: None,
        about: about.to_owned(),
    };
    let sees = Uuid::from_u128(2);
    let later = format!(r#"{{"peer":"h:1","pin":"p","sees":["{sees}"],"later":{{"x":[1]}}}}"#);
    let (later, earlier) = (About::read(&info(&later)), About::read(&info(r#"{"peer":"h:1"}"#)));
    assert_eq!((later.peer.as_str(), later.pin.as_str(), later.sees), ("h:1", "p", vec![sees]));
    assert_eq!(earlier, About { peer: "h:1".to_owned(), ..About::default() });
    assert_eq!(About::read(&info("not JSON")), About::default());
}
