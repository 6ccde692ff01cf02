//! Replaces the running process by one of another binary. See `docs/operations.md#upgrade`.
//!
//! The running process starts the new one and gives it its listening sockets over a pair of Unix
//! sockets (`channel`). The new process (`predecessor`) reads its configuration, checks the store's
//! schema and reports that it is ready. Only then does the running one pause its listeners, finish
//! the requests in progress, and suspend its calls (`moving`). The new process rebuilds the calls,
//! continues their media and starts to serve requests when the running one has closed the store.
//! Connections wait in the kernel until then.
//!
//! A failure before the store is closed leaves the running process unchanged. After that, the
//! binary of the running process is started again in the same way (`successor`).

mod channel;
mod control;
mod moving;
mod notify;
mod predecessor;
mod successor;
mod transfer;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::Node;
use super::drain::{EndTimes, Signals, drain_and_end};
use crate::api::server::Pause;
use control::{Client, Control, ProgressWriter};
use engine::admission::Gate;
use engine::call::dialer::Dialer;
use engine::call::seats::host::RoomHosting;
use engine::cluster::Cluster;
use engine::stream::Relays;
use media::{Media, OtherProcess};
use model::Clock;
use moving::{MoveError, MovingCalls};
use successor::{Successor, SuccessorError};

pub use control::{UpgradeProgress, UpgradeRequest, request_upgrade};
pub use notify::notify_ready;
pub(super) use predecessor::{Inherited, TakenOver};
pub use predecessor::{Predecessor, TakeOverError};

/// Maximum time for requests in progress once the listener is paused. Connections wait meanwhile.
const PAUSE_TIME: Duration = Duration::from_secs(3);

/// Maximum time to settle the work of dead nodes that has begun. Connections wait meanwhile.
const WATCH_TIME: Duration = Duration::from_secs(2);

/// Maximum time for calls to report whether they can be handed over.
const ASK_TIME: Duration = Duration::from_secs(1);

/// Interval at which the calls are checked while an upgrade waits.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);

/// The same, after calls were suspended in vain. Connections wait while they are.
const SUSPEND_INTERVAL: Duration = Duration::from_secs(5);

/// Time after the drain for which connections of streams are kept, while the other process ends its
/// calls.
const RELAY_MARGIN: Duration = Duration::from_secs(5);

/// Maximum number of calls that a refusal lists.
const CALLS_MAX: usize = 100;

/// The executable of this process, even if its file was replaced.
const OWN_BINARY: &str = "/proc/self/exe";

/// Runs a node until SIGINT or SIGTERM, then drains it, or until another process has taken over.
/// `offhook upgrade` reaches it through a socket in `data_dir`. Returns whether the node ended
/// gracefully.
pub async fn until_replaced(
    mut node: Node,
    mut signals: Signals,
    data_dir: &Path,
    clock: &Clock,
) -> bool {
    let control = match Control::bind(data_dir) {
        Ok(control) => Some(control),
        Err(error) => {
            warn!(%error, "no socket for upgrades; this process cannot be upgraded");
            None
        }
    };
    loop {
        let next = async {
            match &control {
                Some(control) => control.next().await,
                None => std::future::pending().await,
            }
        };
        let (request, mut client) = tokio::select! {
            () = node.until_stop_requested(&mut signals) => break,
            asked = next => asked,
        };
        let Client { progress, connection } = &mut client;
        if request.only_if_replaced && !is_replaced() {
            // The handler of the signal reloads the configuration.
            let reloaded = rustix::process::kill_process(rustix::process::getpid(), Signal::HUP);
            let why = reloaded.err().map(|error| error.to_string());
            let binary = own_file().ok();
            progress.report(&UpgradeProgress::Reloading { why, binary }).await;
            continue;
        }
        let prepared = tokio::select! {
            () = node.until_stop_requested(&mut signals) => break,
            () = connection.closed() => {
                info!("upgrade cancelled by the command that requested it; this process continues");
                continue;
            }
            prepared = prepare(&node, &request, progress, clock) => prepared,
        };
        let refusal = match prepared {
            Ok(prepared) => match Box::pin(hand_over(node, prepared, client, clock)).await {
                HandOver::Ended { is_served, relays, drain_time } => {
                    relay_until_closed(&relays, drain_time, signals, clock).await;
                    return is_served;
                }
                HandOver::Abandoned(same, other, refusal) => {
                    (node, client) = (same, other);
                    refusal
                }
            },
            Err(refusal) => refusal,
        };
        let Refusal { why, calls } = refusal;
        for call in &calls {
            info!(call, "call cannot be handed over");
        }
        warn!(why, calls = calls.len(), "upgrade refused; this process continues");
        client.progress.report(&UpgradeProgress::Refused { why, calls }).await;
    }
    let drained = drain_and_end(&node, signals);
    let refuse = async {
        while let Some(control) = &control {
            let (_, mut client) = control.next().await;
            let why = "the node is draining; start it again once it has ended".to_owned();
            client.progress.report(&UpgradeProgress::Refused { why, calls: Vec::new() }).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = drained => {}
        () = refuse => {}
    }
    true
}

/// Why an upgrade does not take place.
struct Refusal {
    why: String,
    /// Calls that cannot be handed over.
    calls: Vec<String>,
}

impl Refusal {
    fn new(why: &str) -> Self {
        Self { why: why.to_owned(), calls: Vec::new() }
    }

    fn of_calls(calls: Vec<String>) -> Self {
        Self {
            calls,
            ..Self::new(
                "some calls cannot be handed over; use --wait, or drain the node and restart it",
            )
        }
    }
}

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self { why: error.to_string(), calls: Vec::new() }
    }
}

/// A node that serves no requests and takes no calls until this is dropped.
struct Paused {
    pause: Pause,
    gate: Arc<Gate>,
    dialer: Dialer,
    hosting: RoomHosting,
    cluster: Option<Arc<Cluster>>,
    clock: Clock,
    /// Whether the node ends and must not resume.
    is_final: bool,
}

impl Paused {
    async fn begin(node: &Node, clock: &Clock) -> Result<Self, Refusal> {
        let (gate, dialer) = (node.drain.gate.clone(), node.drain.dialer.clone());
        let (hosting, cluster) = (node.hosting.clone(), node.place.cluster().cloned());
        let pause = node.pause.clone();
        let clock = clock.clone();
        let paused = Self { pause, gate, dialer, hosting, cluster, clock, is_final: false };
        let refusal = |_| {
            Refusal::new(&format!("requests were still running after {} s", PAUSE_TIME.as_secs()))
        };
        if let Some(cluster) = &paused.cluster {
            cluster.peers().announce_move().await;
        }
        timeout(PAUSE_TIME, paused.pause.begin()).await.map_err(refusal)?;
        paused.gate.pause();
        paused.dialer.pause();
        paused.hosting.set_paused(true);
        if let Some(cluster) = &paused.cluster {
            cluster.set_frozen(true).await;
            let busy = |_| Refusal::new("queued calls were still being read from the database");
            timeout(PAUSE_TIME, paused.dialer.until_settled()).await.map_err(busy)?;
        }
        Ok(paused)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if !self.is_final {
            if let Some(cluster) = self.cluster.take() {
                tokio::spawn(async move { cluster.set_frozen(false).await });
            }
            self.hosting.set_paused(false);
            self.dialer.resume();
            self.gate.resume(self.clock.now());
            self.pause.end();
        }
    }
}

/// A new process that can take over the suspended calls, and a node that is ready to hand them over.
struct Prepared {
    // Declared first, so that the calls resume before requests are served again.
    moving: MovingCalls,
    paused: Paused,
    successor: Successor,
    listeners: Vec<OwnedFd>,
    relays: Relays,
    /// When the connections began to wait.
    since: Instant,
}

/// Starts the new process, suspends the calls and has the new process rebuild them. Waits for calls
/// that can't be handed over. Dropping the future undoes everything.
async fn prepare(
    node: &Node,
    request: &UpgradeRequest,
    progress: &mut ProgressWriter,
    clock: &Clock,
) -> Result<Prepared, Refusal> {
    refuse_without_fleet(node)?;
    if std::process::id() == 1 {
        return Err(Refusal::new(
            "process 1 of a container cannot be replaced: start a new container",
        ));
    }
    refuse_while_journalling(node)?;
    let binary = match &request.binary {
        Some(binary) => binary.clone(),
        None => own_file()?,
    };
    let listeners = node.listeners()?;
    let relays = Relays::listen()?;
    let end = clock.now() + Duration::from_secs(request.wait_seconds);
    let mut ready = None;
    let mut reported = 0;
    let mut interval = WAIT_INTERVAL;
    loop {
        let mut staying = node.staying_calls().await;
        if staying.is_empty() {
            let mut successor = match ready.take() {
                Some(successor) => successor,
                None => Successor::start(&binary, &listeners, node.place.member()).await?,
            };
            let since = clock.now();
            let paused = Paused::begin(node, clock).await?;
            match MovingCalls::suspend(node, &mut successor).await {
                Ok(moving) => {
                    node.store.flush().await;
                    refuse_while_journalling(node)?;
                    refuse_without_fleet(node)?;
                    return Ok(Prepared { moving, paused, successor, listeners, relays, since });
                }
                Err(MoveError::Stay(calls)) => staying = calls,
                Err(MoveError::Successor(error)) => {
                    return Err(successor.failed(error).await.into());
                }
            }
            ready = Some(successor);
            interval = SUSPEND_INTERVAL;
        }
        if clock.now() >= end {
            return Err(Refusal::of_calls(staying));
        }
        if staying.len() != reported {
            reported = staying.len();
            progress.report(&UpgradeProgress::Waiting { calls: reported }).await;
        }
        tokio::time::sleep_until(end.min(clock.now() + interval).into()).await;
    }
}

/// Refuses an upgrade while the database rejects writes: the new process, and this one's binary after
/// it, could not replay the journal and would end.
fn refuse_while_journalling(node: &Node) -> Result<(), Refusal> {
    match node.store.is_journalling() {
        true => Err(Refusal::new(
            "the database rejects writes, which wait in the journal; try again once it works (`offhook doctor`)",
        )),
        false => Ok(()),
    }
}

/// Refuses an upgrade of a node of a fleet while the database does not answer it, or gives out no units:
/// the new process, and this one's binary after it, could not continue as a member.
fn refuse_without_fleet(node: &Node) -> Result<(), Refusal> {
    match node.place.cluster() {
        Some(cluster) if !cluster.can_hand_over() => Err(Refusal::new(
            "the database does not answer this node, or gives out no units yet; try again in some seconds (`offhook nodes`)",
        )),
        _ => Ok(()),
    }
}

/// How a hand-over ended.
enum HandOver {
    /// This process ends when the sockets of streams are closed.
    Ended {
        /// Whether another one serves requests.
        is_served: bool,
        relays: Relays,
        drain_time: Duration,
    },
    /// This process continues.
    Abandoned(Node, Client, Refusal),
}

/// Hands over the calls, ends the node and lets the new process take over. If that fails, starts
/// this process's binary again.
async fn hand_over(
    mut node: Node,
    prepared: Prepared,
    mut client: Client,
    clock: &Clock,
) -> HandOver {
    let Prepared { mut moving, mut paused, mut successor, listeners, relays, since } = prepared;
    let drain_time = node.tunables.drain_at_most();
    client.progress.report(&UpgradeProgress::HandingOver).await;
    let frozen = clock.now();
    if let Err(error) = moving.move_legs(&node.media, &mut successor).await {
        let refusal = match error {
            MoveError::Stay(calls) => {
                node.media.resume(OtherProcess::SentNothing);
                Refusal::of_calls(calls)
            }
            MoveError::Successor(error) => {
                let error = successor.failed(error).await;
                // The process has ended.
                node.media.resume(OtherProcess::MayHaveSent);
                error.into()
            }
        };
        drop((moving, paused));
        return HandOver::Abandoned(node, client, refusal);
    }
    let media_gap_ms = ms(clock.now().saturating_duration_since(frozen));
    paused.is_final = true;
    let cluster = node.place.cluster().cloned();
    if let Some(cluster) = &cluster {
        // What it adopts from now on would be in no process.
        cluster.stop_watching(WATCH_TIME).await;
    }
    // Otherwise `/readyz` would fail until the new process serves it.
    let admin_paused = timeout(PAUSE_TIME, node.admin_pause.begin());
    let _ = tokio::join!(admin_paused, moving.leave(&node, &relays));
    node.end(EndTimes::HAND_OVER).await;
    let (responses, media) = (node.serving.take(), node.media.clone());
    if let Some(cluster) = &cluster {
        moving.node.member = cluster.hand_over().await;
    }
    moving.node.permits = node.drain.gate.spent_permits(clock.now());
    // Gives up the lock of the node.
    drop(node);
    let taken_over = match moving.leftovers() {
        Ok(left) => successor.take_over(&left).await,
        Err(error) => Err(successor.failed(error).await),
    };
    let calls = moving.calls.len();
    let progress = match taken_over {
        Ok(pid) => {
            let gap_ms = ms(clock.now().saturating_duration_since(since));
            info!(
                pid,
                gap_ms, calls, media_gap_ms, "upgrade completed; the new process serves requests"
            );
            UpgradeProgress::Done { pid, gap_ms, calls, media_gap_ms }
        }
        Err(failure) => {
            let why = failure.to_string();
            error!(why, "upgrade failed; starting the binary of this process again");
            // The process has ended.
            media.resume(OtherProcess::MayHaveSent);
            let member = cluster.as_ref().map(|cluster| cluster.node_id());
            match start_again(&mut moving, &media, &listeners, member).await {
                Ok(pid) => UpgradeProgress::RolledBack { why, pid },
                Err(again) => UpgradeProgress::Failed { why: format!("{why}; then {again}") },
            }
        }
    };
    if let Some(cluster) = cluster {
        cluster.stop();
    }
    let served_by = match &progress {
        UpgradeProgress::Done { pid, .. } | UpgradeProgress::RolledBack { pid, .. } => Some(*pid),
        _ => None,
    };
    match served_by {
        Some(pid) => notify::notify_main_process(pid),
        None => error!("upgrade failed and the old binary did not start again"),
    }
    client.progress.report(&progress).await;
    // Responses that are still being sent. The listener limits their time.
    if let Some(responses) = responses {
        let _ = responses.await;
    }
    HandOver::Ended { is_served: served_by.is_some(), relays, drain_time }
}

/// Waits until the sockets of streams whose calls run in the new process are closed. Their messages
/// are passed on to it meanwhile. After a signal, with which the new process drains, too, at most for the time that it has.
async fn relay_until_closed(
    relays: &Relays,
    drain_time: Duration,
    mut signals: Signals,
    clock: &Clock,
) {
    if relays.is_empty() {
        return;
    }
    let streams = relays.len();
    info!(streams, "the connections of audio streams stay in this process until they are closed");
    let end_requested = async {
        signals.next().await;
        let end = clock.now() + drain_time + RELAY_MARGIN;
        tokio::select! {
            () = signals.next() => "second signal",
            () = tokio::time::sleep_until(end.into()) => "drain time over",
        }
    };
    tokio::select! {
        () = relays.all_closed() => info!("all connections of audio streams are closed"),
        why = end_requested => {
            warn!(why, streams = relays.len(), "closing the connections of audio streams");
            relays.close().await;
        }
    }
}

/// Starts the binary of this process after the new one has failed, with the calls if possible.
async fn start_again(
    moving: &mut MovingCalls,
    media: &Arc<Media>,
    listeners: &[OwnedFd],
    member: Option<&str>,
) -> Result<u32, SuccessorError> {
    let mut successor = Successor::start(Path::new(OWN_BINARY), listeners, member).await?;
    if let Err(error) = moving.move_again(media, &mut successor).await {
        error!(%error, calls = moving.calls.len(), "calls lost: the old binary did not take them over");
        drop(successor.failed(SuccessorError::Refused(error.to_string())).await);
        moving.calls.clear();
        successor = Successor::start(Path::new(OWN_BINARY), listeners, member).await?;
        if let Err(error) = moving.move_again(media, &mut successor).await {
            return Err(successor.failed(error).await);
        }
    }
    let left = moving.leftovers()?;
    successor.take_over(&left).await
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the file that this process was started from was replaced or removed since.
fn is_replaced() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let id = |file: &Path| std::fs::metadata(file).map(|about| (about.dev(), about.ino())).ok();
    own_file().map_or(true, |file| id(&file) != id(Path::new(OWN_BINARY)))
}

/// The file that this process was started from.
fn own_file() -> io::Result<PathBuf> {
    let file = std::env::current_exe()?;
    // Linux adds this once the file was replaced.
    let replaced = file.to_str().and_then(|file| file.strip_suffix(" (deleted)"));
    Ok(replaced.map_or_else(|| file.clone(), PathBuf::from))
}

impl Node {
    /// Copies of the listening sockets.
    fn listeners(&self) -> io::Result<Vec<OwnedFd>> {
        let listeners = self.listeners.iter().filter_map(Weak::upgrade);
        let listeners = listeners.map(|listener| listener.as_fd().try_clone_to_owned());
        let mut listeners: Vec<_> = listeners.collect::<io::Result<_>>()?;
        if let Some(cluster) = self.place.cluster() {
            listeners.extend(cluster.peers().listener()?);
        }
        Ok(listeners)
    }

    /// Returns the calls of other nodes that keep this one from handing over, and why.
    fn guests(&self) -> Vec<String> {
        let text = |call| {
            format!(
                "{call}: another node has it, and it is in a conference or multi-party call of this one"
            )
        };
        self.hosting.calls().into_iter().take(CALLS_MAX).map(text).collect()
    }

    /// Returns the calls that cannot be handed over, at most [`CALLS_MAX`].
    async fn staying_calls(&self) -> Vec<String> {
        let live = self.registry.staying_calls(ASK_TIME).await;
        let live = live.iter().map(ToString::to_string);
        live.chain(self.guests()).take(CALLS_MAX).collect()
    }
}
