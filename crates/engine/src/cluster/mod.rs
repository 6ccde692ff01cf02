//! Keeps this process in a fleet: several nodes on one PostgreSQL database.
//!
//! One task sends the beats, and another one watches the other nodes. The rules are those of the
//! `fleet` crate. The node does not use this yet: the configuration refuses `cluster.peer`.

mod beats;
#[cfg(test)]
mod tests;
mod watcher;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fleet::{LimitKey, Supply};
use futures_util::future::BoxFuture;
use model::Clock;
use store::{RunInfo, Store, StoreError};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::beats::Beats;
use self::watcher::Watcher;

/// For how long an earlier process of this node must not have beaten before this one takes its
/// place.
const STILL: Duration = Duration::from_secs(2);

/// Time between two readings of the other nodes.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// What a process brings into a fleet.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    pub node_id: String,
    /// JSON: what the node says about itself.
    pub about: String,
    /// Admits nothing while nobody of the fleet hears this node.
    pub strict: bool,
    /// The limits that this node uses, and their caps until a beat tells them.
    pub limits: Vec<(LimitKey, u32)>,
}

/// The reason why a process can't join a fleet.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "another process runs as node {0} of this fleet; stop it, or set another cluster.node_id for this one"
    )]
    NameInUse(String),
}

/// Ends what a dead process has left.
pub trait Reaper: Send + Sync + 'static {
    /// Ends the calls of a run that was declared dead. Called again before the run's units are given
    /// back, which waits until it succeeds.
    fn end_calls(&self, run: RunInfo) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// This process as a member of a fleet. Dropping it stops its beats: the others declare it dead.
#[derive(Debug)]
pub struct Cluster {
    run: Uuid,
    shared: Arc<Shared>,
    store: Store,
    beats: JoinHandle<()>,
    watcher: JoinHandle<()>,
}

/// What the tasks and admission share.
#[derive(Debug)]
struct Shared {
    clock: Clock,
    origin: Instant,
    /// Until when calls may be admitted, in microseconds since `origin`. 0: not now.
    admits_until: AtomicU64,
    /// Number of members.
    members: AtomicU32,
    /// A beat is wanted at once.
    urgent: AtomicBool,
    hurry: Notify,
    settled: watch::Sender<bool>,
    dead: CancellationToken,
    stop: CancellationToken,
}

impl Shared {
    /// Time since the origin.
    fn now(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.origin)
    }
}

impl Cluster {
    /// Takes the place of an earlier process of this node, if there was one, and starts to beat.
    /// `supply` has the counters of admission, all of them at 0.
    ///
    /// # Errors
    /// Fails if the database does not answer, or if another process runs as this node.
    pub async fn join(
        store: Store,
        clock: Clock,
        options: JoinOptions,
        supply: impl Supply + Send + 'static,
        reaper: impl Reaper,
    ) -> Result<Self, JoinError> {
        let shared = Arc::new(Shared {
            origin: clock.now(),
            clock,
            admits_until: AtomicU64::new(0),
            members: AtomicU32::new(1),
            urgent: AtomicBool::new(false),
            hurry: Notify::new(),
            settled: watch::Sender::new(false),
            dead: CancellationToken::new(),
            stop: CancellationToken::new(),
        });
        wait_for_silence(&store, &shared, &options.node_id).await?;
        let run = Uuid::new_v4();
        let beats = Beats::new(run, store.clone(), shared.clone(), options, supply);
        let watcher = Watcher::new(run, store.clone(), shared.clone(), reaper);
        let (beats, watcher) = (tokio::spawn(beats.run()), tokio::spawn(watcher.run()));
        Ok(Self { run, shared, store, beats, watcher })
    }

    /// The id of this process in the fleet.
    pub fn run(&self) -> Uuid {
        self.run
    }

    /// Whether a call may be admitted. To be asked after its slot and permit were taken, so that a
    /// process that was paused in between asks the database first.
    pub fn admits(&self) -> bool {
        let until = self.shared.admits_until.load(Ordering::Acquire);
        self.shared.now() <= Duration::from_micros(until) && until > 0
    }

    /// Asks for a beat at once, because a unit is missing.
    pub fn hurry(&self) {
        self.shared.urgent.store(true, Ordering::Release);
        self.shared.hurry.notify_one();
    }

    /// Waits until units can be given out.
    pub async fn settled(&self) {
        let mut settled = self.shared.settled.subscribe();
        // The sender lives as long as this.
        let _ = settled.wait_for(|settled| *settled).await;
    }

    /// Cancelled once others have declared this process dead. It must end: its calls are theirs.
    pub fn dead(&self) -> CancellationToken {
        self.shared.dead.clone()
    }

    /// Leaves the fleet. The process has no calls, and none was admitted within the last second.
    ///
    /// # Errors
    /// Fails if the database does not answer. The others declare this process dead then.
    pub async fn leave(mut self) -> Result<(), StoreError> {
        self.shared.stop.cancel();
        let _ = (&mut self.beats).await;
        let mut session = self.store.fleet_session().await?;
        session.leave(self.run).await?;
        session.close().await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.beats.abort();
        self.watcher.abort();
    }
}

/// Waits until no earlier process of this node beats. The node's name is unique in the fleet.
async fn wait_for_silence(store: &Store, shared: &Shared, node_id: &str) -> Result<(), JoinError> {
    let mut session = store.fleet_session().await?;
    let mut first: Option<(Uuid, i64, Duration)> = None;
    loop {
        let (_, _, runs) = session.runs().await?;
        let other = runs.iter().find(|row| row.state.is_member() && row.node_id == node_id);
        match (other, first) {
            (None, _) => break,
            (Some(other), None) => first = Some((other.run, other.seq, shared.now())),
            (Some(other), Some((run, seq, since))) => {
                if (other.run, other.seq) != (run, seq) {
                    return Err(JoinError::NameInUse(node_id.to_owned()));
                }
                if shared.now().saturating_sub(since) >= STILL {
                    break;
                }
            }
        }
        tokio::time::sleep(READ_INTERVAL).await;
    }
    Ok(session.close().await?)
}
