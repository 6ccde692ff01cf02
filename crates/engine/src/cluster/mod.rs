//! Keeps this process in a fleet: several nodes on one PostgreSQL database.
//!
//! `beats` sends the beats, `watcher` watches the other nodes, and `reaper` ends the calls of
//! dead ones and adopts their work. `lost` gives up data that exists only on the disk of a lost
//! node. `lease` gives admission the units that this process holds. `claims` decides which node an
//! inbound call belongs to, and `rooms` which node hosts a room. `peers` connects the nodes with
//! each other. The rules are those of the `fleet` crate.

mod beats;
mod claims;
mod lease;
mod lost;
mod peers;
mod reaper;
mod rooms;
mod status;
#[cfg(test)]
mod tests;
mod watcher;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
pub use fleet::RunState;
use fleet::{Answer, Beat, LimitKey, OVERDUE, RunSnapshot, TermState};
use futures_util::future::BoxFuture;
use model::Clock;
use serde::{Deserialize, Serialize};
use store::{FleetSession, RunInfo, Store, StoreError, owner_name};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::beats::{Beats, Order};
pub use self::claims::{FleetClaims, SessionPurpose};
pub use self::lease::FleetLease;
use self::lease::{Demand, Units};
pub use self::lost::LostNodes;
use self::peers::MovedIdentity;
pub use self::peers::{
    BindError, MovedPeers, PeerAddress, PeerError, PeerHandler, PeerTimes, Peers, hold_until_end,
    post,
};
pub use self::reaper::NodeReaper;
pub use self::rooms::FleetRooms;
pub use self::status::Status;
use self::watcher::Watcher;
use crate::admission::Gate;

/// Time without a beat from an earlier process of this node, after which this process replaces it.
const STILL: Duration = Duration::from_secs(2);

/// Time between two readings of the other nodes.
const READ_INTERVAL: Duration = Duration::from_millis(500);

/// Path of forwarded webhooks, with Meta's signature.
pub const WEBHOOK: &str = "/webhook";

/// Path of webhooks with inbound calls that the sending node does not admit, with Meta's signature.
pub const CALLS: &str = "/calls";

/// Path of webhooks with inbound calls for which the sending node holds no units, while the database
/// is away, with Meta's signature.
pub const HELD_CALLS: &str = "/held-calls";

/// Path of webhooks with messages that arrived at a node which the database does not answer, with
/// Meta's signature.
pub const MESSAGES: &str = "/messages";

/// Path of the question whether a node has a live call: a JSON array with the call's
/// [`CallKey`](crate::call::registry::CallKey) and the id in the event's opaque data or null. The
/// status is 200 if it has the call, otherwise 404.
pub const HAS_CALL: &str = "/has-call";

/// Path of requests for units: a JSON array with the names of the limits that lack them.
pub const WANT: &str = "/want";

/// Path of a beat of a node that the database does not answer: JSON. Another node sends it to the
/// database, and responds with the answer.
pub const BEAT: &str = "/beat";

/// Path at which two nodes exchange the ids of their terms.
pub const TERM: &str = "/term";

/// Path of the announcement that another process takes over from the sender.
pub const MOVING: &str = "/moving";

/// Prefix of the paths of forwarded client requests. The receiver executes them itself.
pub const REST: &str = "/rest";

/// Prefix of the paths of client requests to a node that has lost the database. The receiver treats
/// them like those of its own clients.
pub const RELAY: &str = "/relay";

/// Number of answered beats after which a unit that was not received is known to be free or in use
/// elsewhere.
const EVIDENCE: usize = 8;

/// Maximum number of reported terms between two beats.
const PEER_TERMS_MAX: usize = 64;

/// Time for which beats are sent at a shorter interval after another node has requested units.
const EAGER: Duration = Duration::from_millis(120);

/// The options with which a process joins a fleet.
#[derive(Clone, Debug)]
pub struct JoinOptions {
    pub node_id: String,
    pub about: About,
    /// Whether the node admits no calls while the database does not answer its beats.
    pub strict: bool,
    pub peers: Peers,
}

/// A process's description of itself in the table of runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct About {
    /// Host and port at which the other nodes reach the process.
    pub peer: String,
    /// SHA-256 of the process's certificate, in hexadecimal.
    pub pin: String,
    pub version: String,
    /// Fingerprint of the process's `store.secret_key`.
    pub key: String,
    /// Digest of the numbers in the process's configuration ([`Config::numbers_digest`]).
    ///
    /// [`Config::numbers_digest`]: crate::config::Config::numbers_digest
    pub numbers: String,
    /// The media addresses of the process.
    pub media: Vec<SocketAddr>,
    /// By how many microseconds the process's clock for stored deadlines is ahead of the database's
    /// clock.
    pub clock_us: i64,
    /// The runs that the process can reach.
    pub sees: Vec<Uuid>,
}

impl About {
    /// Parses a run's description. Unknown and unreadable fields are ignored, because they may come
    /// from a later version.
    pub fn read(info: &RunInfo) -> Self {
        serde_json::from_str(&info.about).unwrap_or_default()
    }

    /// The address of the run that describes itself so.
    fn address(&self, run: Uuid) -> PeerAddress {
        PeerAddress { run, address: self.peer.clone(), pin: self.pin.clone() }
    }

    fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether both processes are of one version and have different numbers in their files. Digests
    /// of different versions can't be compared.
    pub fn numbers_differ(&self, other: &Self) -> bool {
        let is_known = !self.numbers.is_empty() && !other.numbers.is_empty();
        is_known && self.version == other.version && self.numbers != other.numbers
    }
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
    #[error(
        "node {node_id} of this fleet has the media address {media}, too; set another listen.media or public.media_ips for this one"
    )]
    MediaInUse { node_id: String, media: SocketAddr },
    #[error(
        "other nodes are not on this machine and can't connect to {0}; set cluster.peer or cluster.advertise to an address that they reach"
    )]
    Loopback(String),
    #[error(
        "node {0} of this fleet has another store.secret_key, so that neither can read the secrets that the other stores; give all nodes the same key"
    )]
    OtherKey(String),
    #[error(
        "the other nodes have declared this node dead and ended its calls, because it sent no beat for too long; start it again"
    )]
    DeclaredDead,
}

/// A member on its way to another process of its node, which continues its run.
#[derive(Serialize, Deserialize)]
pub struct MovedMember {
    run: RunSnapshot,
    /// The machine's uptime when the run began, which is the origin of its times.
    origin: Duration,
    identity: MovedIdentity,
}

impl MovedMember {
    /// The certificate for the connections to the other members.
    pub fn identity(&self) -> MovedIdentity {
        self.identity.clone()
    }

    /// Lets a further process continue the run, after one that may have done so has ended.
    pub fn for_next_process(&mut self) {
        self.run.for_next_process();
    }
}

impl std::fmt::Debug for MovedMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MovedMember({})", self.run.run)
    }
}

/// Ends the calls of dead processes and adopts their work.
pub trait Reaper: Send + Sync + 'static {
    /// Ends the calls of a run that was declared dead, and adopts its other work. It is called
    /// again before the run's units are given back, and they are only given back once it succeeds.
    fn reap(&self, run: RunInfo) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// This process as a member of a fleet. Dropping it stops its beats, so that the other nodes
/// declare it dead.
#[derive(Debug)]
pub struct Cluster {
    node_id: String,
    about: About,
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    store: Store,
    beats: Mutex<Option<JoinHandle<()>>>,
    orders: mpsc::Sender<Order>,
    watcher: Mutex<Option<JoinHandle<()>>>,
    /// The connection for beats of other nodes.
    carrier: tokio::sync::Mutex<Option<FleetSession>>,
}

/// State shared by the tasks and admission.
#[derive(Debug)]
struct Shared {
    run: Uuid,
    strict: bool,
    clock: Clock,
    /// The machine's uptime when the run began. The others go on while this machine is
    /// suspended, so that time counts.
    origin: Duration,
    /// Time until which calls may be admitted, in microseconds since `origin`. 0 if they may not.
    admits_until: AtomicU64,
    /// Whether the process takes calls: units were given out, or waited for in vain.
    has_started: AtomicBool,
    /// Number of members.
    members: AtomicU32,
    /// Whether a beat must be sent immediately.
    urgent: AtomicBool,
    hurry: Notify,
    /// Time at which the beat before the last [`EVIDENCE`] ones was sent, in microseconds since
    /// `origin`.
    evidence: AtomicU64,
    /// Time until which beats are sent at a shorter interval because another node lacks units, in
    /// microseconds since `origin`.
    eager_until: AtomicU64,
    demand: Demand,
    peers: Peers,
    /// The terms that other nodes have reported since the last beat.
    peer_terms: Mutex<BTreeSet<Uuid>>,
    state: watch::Sender<MemberState>,
    /// Earlier runs of this node whose processes have ended, and whose units are not given back
    /// yet.
    ended: watch::Sender<BTreeSet<Uuid>>,
    /// The other runs, from the last reading.
    others: Mutex<Vec<RunInfo>>,
    /// [`About::numbers`].
    numbers: Mutex<String>,
    dead: CancellationToken,
    stop: CancellationToken,
    /// Cancelled with `stop`.
    stop_watching: CancellationToken,
}

/// The state of this process in its fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberState {
    /// Whether units can be given out.
    pub is_settled: bool,
    /// Whether the node is strict and admits no calls because the database does not answer its
    /// beats.
    pub is_cut_off: bool,
    /// Whether the last beat was answered.
    pub is_connected: bool,
    /// The run that has sent that beat, because the database does not answer this node.
    pub carrier: Option<Uuid>,
    /// Number of answered beats.
    pub beats: u64,
    /// Time at which the last answered beat was sent, since the run began.
    pub beat: Option<Duration>,
    /// Time from sending the last answered beat to its answer.
    pub beat_time: Duration,
    /// The database's term in the last answer.
    pub term: Option<TermState>,
}

impl MemberState {
    /// Whether the database answers the process itself.
    fn is_direct(&self) -> bool {
        self.is_connected && self.carrier.is_none()
    }
}

impl Shared {
    /// Returns the time since the origin.
    fn now(&self) -> Duration {
        self.clock.uptime().saturating_sub(self.origin)
    }

    fn admits(&self) -> bool {
        let until = self.admits_until.load(Ordering::Acquire);
        until > 0 && self.now() <= Duration::from_micros(until)
    }

    /// Returns whether so many beats have been answered since then that no more units will be
    /// received.
    fn is_evident(&self, since: Instant) -> bool {
        let age = self.clock.now().saturating_duration_since(since);
        let since = self.now().saturating_sub(age);
        Duration::from_micros(self.evidence.load(Ordering::Acquire)) > since
    }

    /// Whether the database answers this process itself.
    fn is_direct(&self) -> bool {
        self.state.borrow().is_direct()
    }

    /// The term in the last answer of the database.
    fn term(&self) -> Option<Uuid> {
        self.state.borrow().term.map(|term| term.id)
    }

    /// Records the term of another node.
    fn report_term(&self, term: Uuid) {
        let mut terms = self.peer_terms.lock().unwrap_or_else(PoisonError::into_inner);
        if terms.len() < PEER_TERMS_MAX {
            terms.insert(term);
        }
    }

    fn take_peer_terms(&self) -> BTreeSet<Uuid> {
        std::mem::take(&mut *self.peer_terms.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn is_eager(&self) -> bool {
        self.now() <= Duration::from_micros(self.eager_until.load(Ordering::Acquire))
    }

    /// Requests an immediate beat.
    fn hurry(&self) {
        self.urgent.store(true, Ordering::Release);
        self.hurry.notify_one();
    }
}

impl Cluster {
    /// Continues the run of another process of this node that has `moved`, or else replaces an
    /// earlier one, if there was one, and starts to send beats. The counters of `gate` must contain
    /// the calls and permits of the process that has moved, and nothing else.
    ///
    /// # Errors
    /// Fails if the database does not answer, if this process and another one of the fleet exclude
    /// each other, or if the run was declared dead.
    pub async fn join(
        store: Store,
        clock: Clock,
        mut options: JoinOptions,
        gate: Arc<Gate>,
        moved: Option<MovedMember>,
    ) -> Result<Self, JoinError> {
        let stop = CancellationToken::new();
        let run = moved.as_ref().map_or_else(Uuid::new_v4, |moved| moved.run.run);
        let origin = moved.as_ref().map_or_else(|| clock.uptime(), |moved| moved.origin);
        let shared = Arc::new(Shared {
            run,
            strict: options.strict,
            origin,
            clock,
            admits_until: AtomicU64::new(0),
            has_started: AtomicBool::new(false),
            members: AtomicU32::new(1),
            urgent: AtomicBool::new(false),
            hurry: Notify::new(),
            evidence: AtomicU64::new(0),
            eager_until: AtomicU64::new(0),
            demand: Demand::default(),
            peers: options.peers.clone(),
            peer_terms: Mutex::default(),
            state: watch::Sender::default(),
            ended: watch::Sender::default(),
            others: Mutex::default(),
            numbers: Mutex::new(options.about.numbers.clone()),
            dead: CancellationToken::new(),
            stop_watching: stop.child_token(),
            stop,
        });
        let mut session = match &moved {
            Some(_) => store.fleet_session().await?,
            None => take_place(&store, &shared, &options).await?,
        };
        options.about.clock_us = session.clock_ahead(&shared.clock).await?;
        let (_, _, runs) = session.runs().await?;
        // Otherwise their connections would be refused until the first reading.
        let others = runs.iter().filter(|row| row.state.is_member() && row.run != run);
        let others: Vec<_> = others.map(|row| About::read(row).address(row.run)).collect();
        let members = u32::try_from(others.len() + 1).unwrap_or(u32::MAX);
        shared.members.store(members, Ordering::Release);
        shared.peers.set_members(others);
        shared.ended.send_replace(note_run(&store, run, &options.node_id, &runs));
        session.close().await?;
        gate.join(Arc::new(FleetLease::new(shared.clone())));
        let (node_id, about) = (options.node_id.clone(), options.about.clone());
        let units = Units::new(shared.clone(), gate.clone());
        let moved = moved.map(|moved| moved.run);
        let beats = Beats::new(store.clone(), shared.clone(), options, units, moved);
        // The first request writes the row of this run, which owns what it writes from then on.
        let registered = beats.register().await?;
        if shared.dead.is_cancelled() {
            return Err(JoinError::DeclaredDead);
        }
        let (orders, received) = mpsc::channel(1);
        let beats = tokio::spawn(registered.run(received));
        Ok(Self {
            node_id,
            about,
            shared,
            gate,
            store,
            beats: Mutex::new(Some(beats)),
            orders,
            watcher: Mutex::default(),
            carrier: tokio::sync::Mutex::default(),
        })
    }

    /// Starts to watch the other nodes. `reaper` handles dead ones.
    pub fn watch(&self, reaper: impl Reaper) {
        let about = self.about.clone();
        let watcher = Watcher::new(self.store.clone(), self.shared.clone(), about, reaper);
        let watcher = tokio::spawn(watcher.run());
        *self.watcher.lock().unwrap_or_else(PoisonError::into_inner) = Some(watcher);
    }

    /// Announces a new digest of the numbers in the configuration.
    pub fn set_numbers(&self, digest: String) {
        *self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner) = digest;
    }

    /// The node's id.
    pub fn node_id(&self) -> &str {
        &self.node_id
    }

    /// The id of this process in the fleet.
    pub fn run(&self) -> Uuid {
        self.shared.run
    }

    /// The state of this process in its fleet.
    pub fn state(&self) -> watch::Receiver<MemberState> {
        self.shared.state.subscribe()
    }

    /// The other runs, from the last reading: members, and dead ones whose units are not given back
    /// yet.
    pub fn others(&self) -> Vec<RunInfo> {
        self.shared.others.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets this process take calls. Until then, other nodes take those that come to it.
    pub fn start(&self) {
        self.shared.has_started.store(true, Ordering::Release);
    }

    /// Waits until units can be given out, and until those of earlier processes of this node are
    /// given back, as far as these are known to have ended. The other nodes must be watched.
    pub async fn settled(&self) {
        let mut state = self.shared.state.subscribe();
        // The senders live as long as this.
        let _ = state.wait_for(|state| state.is_settled).await;
        let _ = self.shared.ended.subscribe().wait_for(BTreeSet::is_empty).await;
    }

    /// Returns a token that is cancelled once the others have declared this process dead. The
    /// process must end then, because its calls belong to them.
    pub fn dead(&self) -> CancellationToken {
        self.shared.dead.clone()
    }

    /// Gives units of these limits to another node that lacks them, if they are free.
    pub fn give(&self, keys: &[&str]) {
        let until = self.shared.now().saturating_add(EAGER);
        let until = u64::try_from(until.as_micros()).unwrap_or(u64::MAX);
        self.shared.eager_until.fetch_max(until, Ordering::AcqRel);
        self.shared.demand.look_at(keys.iter().map(|key| LimitKey::from(*key)));
        self.shared.hurry();
    }

    /// Sends a beat of another node to the database. Returns the answer as JSON, or `None` if the
    /// database does not answer this node itself.
    pub async fn carry(&self, from: Uuid, beat: &[u8]) -> Option<Bytes> {
        let beat: Beat = serde_json::from_slice(beat).ok()?;
        // A node can only speak for itself.
        if beat.run != from || !self.shared.is_direct() {
            return None;
        }
        let answer = async {
            let mut carrier = self.carrier.lock().await;
            // Taken, so that a beat without an answer closes the connection.
            let mut session = match carrier.take() {
                Some(session) => session,
                None => self.store.fleet_session().await?,
            };
            let answer = session.beat(&beat).await?;
            *carrier = Some(session);
            Ok::<Answer, StoreError>(answer)
        };
        let answer = tokio::time::timeout(OVERDUE, answer).await.ok()?;
        let failed = |error: &StoreError| tracing::debug!(%error, %from, "beat not carried");
        let answer = answer.inspect_err(failed).ok()?;
        serde_json::to_vec(&answer).ok().map(Bytes::from)
    }

    /// Records the term of another node. Returns the term of this one.
    pub fn exchange_term(&self, theirs: &[u8]) -> Bytes {
        let theirs = std::str::from_utf8(theirs).ok().and_then(|term| term.parse().ok());
        if let Some(theirs) = theirs {
            self.shared.report_term(theirs);
        }
        Bytes::from(self.shared.term().map(|term| term.to_string()).unwrap_or_default())
    }

    /// The connections to the other nodes.
    pub fn peers(&self) -> &Peers {
        &self.shared.peers
    }

    /// The claims of inbound calls.
    pub fn claims(&self) -> FleetClaims {
        FleetClaims::new(self.store.clone(), self.shared.clone())
    }

    /// The hosts of rooms.
    pub fn rooms(&self, claims: Arc<FleetClaims>) -> FleetRooms {
        FleetRooms::new(claims, self.shared.clone())
    }

    /// Informs the other nodes that this one drains. It leaves soon, and adopts no work.
    ///
    /// # Errors
    /// Fails if the database does not answer.
    pub async fn drain(&self) -> Result<(), StoreError> {
        let mut session = self.store.fleet_session().await?;
        session.set_draining(self.shared.run).await?;
        session.close().await
    }

    /// Leaves the fleet, and transfers the remaining work to another member. The process must have
    /// no calls, have admitted none within the last second, and not write to the store any more.
    ///
    /// # Errors
    /// Fails if the database does not answer. The others declare this process dead then.
    pub async fn leave(&self) -> Result<(), StoreError> {
        self.shared.stop.cancel();
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(beats) = beats {
            let _ = beats.await;
        }
        let mut session = self.store.fleet_session().await?;
        let (run, owner) = (self.shared.run, self.owner());
        // From now on, no run that leaves passes its work to this one.
        session.set_draining(run).await?;
        session.bequeath(run, &owner).await?;
        session.leave(run).await?;
        // Another node may have given it work until it left.
        session.bequeath(run, &owner).await?;
        session.close().await
    }

    /// Whether nothing keeps another process of this node from continuing the run: the database
    /// answers this process itself, and gives out units.
    pub fn can_hand_over(&self) -> bool {
        let state = *self.shared.state.borrow();
        state.is_direct() && state.term.is_some_and(|term| term.open)
    }

    /// Sets whether the beats only prove that the run is alive. Before calls leave this process for
    /// another one, they must, because the units of these calls would be given back otherwise.
    pub async fn set_frozen(&self, is_frozen: bool) {
        let (done, is_done) = oneshot::channel();
        if self.orders.send(Order::Freeze(is_frozen, done)).await.is_ok() {
            let _ = is_done.await;
        }
    }

    /// Stops to watch the other nodes, and waits until the work of dead ones is settled that this
    /// process has begun, for `at_most`.
    pub async fn stop_watching(&self, at_most: Duration) {
        self.shared.stop_watching.cancel();
        let watcher = self.watcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut watcher) = watcher
            && tokio::time::timeout(at_most, &mut watcher).await.is_err()
        {
            tracing::warn!(
                "work of a dead node not settled in time; another process does it again"
            );
            watcher.abort();
        }
    }

    /// Stops to send beats, after another process has continued the run.
    pub fn stop(&self) {
        self.shared.stop.cancel();
    }

    /// Stops to answer other nodes, so that another process of this node can continue the run. The
    /// beats must be frozen; they go on until [`Cluster::stop`], so that the others do not declare the
    /// run dead. `None` if the run has ended.
    pub async fn hand_over(&self) -> Option<MovedMember> {
        let (reply, run) = oneshot::channel();
        self.orders.send(Order::Snapshot(reply)).await.ok()?;
        let run = run.await.ok()?;
        let identity = self.shared.peers.hand_over().await;
        Some(MovedMember { run, origin: self.shared.origin, identity })
    }

    /// The name under which this process owns rows.
    pub fn owner(&self) -> String {
        owner_name(&self.node_id, self.shared.run)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for task in [&self.beats, &self.watcher] {
            if let Some(task) = task.lock().unwrap_or_else(PoisonError::into_inner).take() {
                task.abort();
            }
        }
    }
}

/// Checks that no other member excludes this process, and waits until no earlier process of this
/// node sends beats. The node's name is unique in the fleet.
async fn take_place(
    store: &Store,
    shared: &Shared,
    options: &JoinOptions,
) -> Result<FleetSession, JoinError> {
    let JoinOptions { node_id, about, .. } = options;
    let mut session = store.fleet_session().await?;
    let mut first: Option<(Uuid, i64, Duration)> = None;
    loop {
        let (_, _, runs) = session.runs().await?;
        let members: Vec<&RunInfo> = runs.iter().filter(|row| row.state.is_member()).collect();
        for other in members.iter().filter(|row| row.node_id != *node_id) {
            exclude(about, other)?;
        }
        let earlier = members.into_iter().find(|row| row.node_id == *node_id);
        match (earlier, first) {
            (None, _) => break,
            // This process listens at its address, so it has ended.
            (Some(other), _) if !about.peer.is_empty() && About::read(other).peer == about.peer => {
                break;
            }
            (Some(other), None) => first = Some((other.run, other.seq, shared.now())),
            (Some(other), Some((run, seq, since))) => {
                if (other.run, other.seq) != (run, seq) {
                    return Err(JoinError::NameInUse(node_id.clone()));
                }
                if shared.now().saturating_sub(since) >= STILL {
                    break;
                }
            }
        }
        tokio::time::sleep(READ_INTERVAL).await;
    }
    Ok(session)
}

/// Notes this run in the store's folder. Returns the earlier runs of this node whose processes have
/// ended, and that still have a row.
fn note_run(store: &Store, run: Uuid, node_id: &str, rows: &[RunInfo]) -> BTreeSet<Uuid> {
    let earlier = store.earlier_runs();
    let is_earlier =
        |row: &&RunInfo| row.node_id == node_id && row.run != run && earlier.contains(&row.run);
    let ended: BTreeSet<Uuid> = rows.iter().filter(is_earlier).map(|row| row.run).collect();
    let runs: Vec<Uuid> = ended.iter().copied().chain([run]).collect();
    if let Err(error) = store.set_runs(&runs) {
        tracing::warn!(%error, "run not noted in store.data_dir: after a crash, its units come back later");
    }
    ended
}

/// Returns an error if a member has the same media address, or can't reach this process.
fn exclude(about: &About, other: &RunInfo) -> Result<(), JoinError> {
    let theirs = About::read(other);
    if !about.key.is_empty() && !theirs.key.is_empty() && about.key != theirs.key {
        return Err(JoinError::OtherKey(other.node_id.clone()));
    }
    if let Some(media) = about.media.iter().find(|media| theirs.media.contains(media)) {
        return Err(JoinError::MediaInUse { node_id: other.node_id.clone(), media: *media });
    }
    let is_loopback = |peer: &str| {
        peer.rsplit_once(':').is_some_and(|(host, _)| {
            let host = host.trim_matches(['[', ']']);
            host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        })
    };
    match !theirs.peer.is_empty() && is_loopback(&about.peer) && !is_loopback(&theirs.peer) {
        true => Err(JoinError::Loopback(about.peer.clone())),
        false => Ok(()),
    }
}

/// Returns an error if the database belongs to a fleet with running nodes, so that a node outside
/// the fleet must not use it. Waits up to 2 s for beats of runs that have not left gracefully.
///
/// # Errors
/// Fails if the database does not answer.
pub async fn has_members(store: &Store, clock: &Clock) -> Result<Option<String>, StoreError> {
    let mut session = store.fleet_session().await?;
    let begun = clock.now();
    let (_, _, mut before) = session.runs().await?;
    before.retain(|row| row.state.is_member());
    let mut found = None;
    while !before.is_empty() && clock.now().saturating_duration_since(begun) < STILL {
        tokio::time::sleep(READ_INTERVAL).await;
        let (_, _, runs) = session.runs().await?;
        let beats = |old: &RunInfo| {
            let is_its = |row: &&RunInfo| row.run == old.run && row.state != RunState::Dead;
            runs.iter().find(is_its).is_some_and(|row| row.seq != old.seq)
        };
        if let Some(alive) = before.iter().find(|row| beats(row)) {
            found = Some(alive.node_id.clone());
            break;
        }
    }
    session.close().await?;
    Ok(found)
}
