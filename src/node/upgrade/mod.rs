//! Replaces the running process by one of another binary. See `docs/operations.md#upgrade`.
//!
//! The running process starts the new one and gives it its listening and media sockets over a pair
//! of Unix sockets (`channel`). The new process (`predecessor`) reads its configuration, checks the
//! store's schema and reports that it is ready. Only then does the running one pause its listeners,
//! finish the requests in progress and close the store. Connections wait in the kernel until the
//! new process serves requests. Until then, any failure leaves the running process unchanged. After
//! that, the binary of the running process is started again in the same way (`successor`).
//!
//! Calls are not handed over: an upgrade waits for a moment without calls, or is refused.

mod channel;
mod control;
mod notify;
mod predecessor;
mod successor;

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::timeout;
use tracing::{error, info, warn};

use super::Node;
use super::drain::{EndTimes, Signals, drain_and_end};
use crate::api::server::Pause;
use control::{Client, Control};
use engine::admission::Gate;
use model::Clock;
use successor::Successor;

pub use control::{UpgradeProgress, UpgradeRequest, request_upgrade};
pub use notify::notify_ready;
pub use predecessor::{Predecessor, TakeOverError};

/// Maximum time for requests in progress once the listener is paused. Connections wait meanwhile.
const PAUSE_TIME: Duration = Duration::from_secs(3);

/// Interval at which the queues of outbound calls are checked while an upgrade waits.
const WAIT_INTERVAL: Duration = Duration::from_millis(200);

/// Maximum number of calls that a refusal lists.
const CALLS_MAX: usize = 100;

/// The executable of this process, even if its file was replaced.
const OWN_BINARY: &str = "/proc/self/exe";

/// The sockets that are handed over.
#[derive(Debug)]
struct Sockets {
    listeners: Vec<OwnedFd>,
    media: Vec<Arc<UdpSocket>>,
}

/// Runs a node until SIGINT or SIGTERM, then drains it, or until another process has taken over.
/// `offhook upgrade` reaches it through a socket in `data_dir`. Returns whether the node ended
/// gracefully.
pub async fn until_replaced(
    node: Node,
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
            () = node.until_told_to_stop(&mut signals) => break,
            asked = next => asked,
        };
        let prepared = tokio::select! {
            () = node.until_told_to_stop(&mut signals) => break,
            prepared = prepare(&node, &request, &mut client) => prepared,
        };
        match prepared {
            Ok(prepared) => return hand_over(node, prepared, client, clock).await,
            Err(Refusal { why, calls }) => {
                warn!(why, calls = calls.len(), "upgrade refused; this process continues");
                client.report(&UpgradeProgress::Refused { why, calls }).await;
            }
        }
    }
    drain_and_end(&node, signals).await;
    true
}

/// Why an upgrade does not take place.
struct Refusal {
    why: String,
    /// Calls that cannot be handed over.
    calls: Vec<String>,
}

impl<E: std::error::Error> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self { why: error.to_string(), calls: Vec::new() }
    }
}

/// A node that has no calls and takes none until this is dropped.
struct Paused {
    pause: Pause,
    gate: Arc<Gate>,
    /// Whether the node ends and must not resume.
    is_final: bool,
}

impl Paused {
    async fn begin(node: &Node) -> Result<Self, Refusal> {
        let (pause, gate) = (node.pause.clone(), node.drain.gate.clone());
        let paused = Self { pause, gate, is_final: false };
        let refusal = |_| Refusal {
            why: format!("requests were still running after {} s", PAUSE_TIME.as_secs()),
            calls: Vec::new(),
        };
        timeout(PAUSE_TIME, paused.pause.begin()).await.map_err(refusal)?;
        paused.gate.drain();
        Ok(paused)
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if !self.is_final {
            self.gate.resume();
            self.pause.end();
        }
    }
}

/// A new process that waits for the store, and a node that is ready to end.
struct Prepared {
    successor: Successor,
    sockets: Sockets,
    paused: Paused,
}

/// Starts the new process, and waits until no call is left that it would end. Dropping the future
/// undoes everything.
async fn prepare(
    node: &Node,
    request: &UpgradeRequest,
    client: &mut Client,
) -> Result<Prepared, Refusal> {
    let refusal = |why: &str| Refusal { why: why.to_owned(), calls: Vec::new() };
    if node.place.cluster().is_some() {
        return Err(refusal(
            "this node is part of a fleet: drain it with `offhook nodes drain` and restart it",
        ));
    }
    if std::process::id() == 1 {
        return Err(refusal("process 1 of a container cannot be replaced: start a new container"));
    }
    let binary = match &request.binary {
        Some(binary) => binary.clone(),
        None => own_file()?,
    };
    let sockets = node.sockets()?;
    let end = tokio::time::sleep(Duration::from_secs(request.wait_seconds));
    tokio::pin!(end);
    let mut ready = None;
    let mut reported = 0;
    loop {
        let calls = node.calls_in_the_way();
        if calls.is_empty() {
            let successor = match ready.take() {
                Some(successor) => successor,
                None => Successor::start(&binary, &sockets).await?,
            };
            let paused = Paused::begin(node).await?;
            // A call may have begun before the pause.
            if node.calls_in_the_way().is_empty() {
                return Ok(Prepared { successor, sockets, paused });
            }
            ready = Some(successor);
        } else if end.is_elapsed() {
            let why = "calls cannot be handed over; use --wait, or drain the node and restart it";
            return Err(Refusal { why: why.to_owned(), calls });
        } else if calls.len() != reported {
            reported = calls.len();
            client.report(&UpgradeProgress::Waiting { calls: reported }).await;
        }
        tokio::select! {
            () = &mut end, if !end.is_elapsed() => {}
            () = tokio::time::sleep(WAIT_INTERVAL) => {}
        }
    }
}

/// Ends the node and lets the new process take over. If that fails, starts this process's binary
/// again. Returns whether a process serves requests.
async fn hand_over(mut node: Node, prepared: Prepared, mut client: Client, clock: &Clock) -> bool {
    let Prepared { successor, sockets, mut paused } = prepared;
    let begun = clock.now();
    paused.is_final = true;
    client.report(&UpgradeProgress::HandingOver).await;
    node.end(EndTimes::HAND_OVER).await;
    let responses = node.serving.take();
    // Gives up the lock of the node.
    drop(node);
    let progress = match successor.take_over().await {
        Ok(pid) => {
            let gap = clock.now().saturating_duration_since(begun);
            let gap_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
            info!(pid, gap_ms, "upgrade completed; the new process serves requests");
            UpgradeProgress::Done { pid, gap_ms }
        }
        Err(failure) => {
            let why = failure.to_string();
            error!(why, "upgrade failed; starting the binary of this process again");
            let again = match Successor::start(Path::new(OWN_BINARY), &sockets).await {
                Ok(successor) => successor.take_over().await,
                Err(error) => Err(error),
            };
            match again {
                Ok(pid) => UpgradeProgress::RolledBack { why, pid },
                Err(again) => UpgradeProgress::Failed { why: format!("{why}; then {again}") },
            }
        }
    };
    let served_by = match &progress {
        UpgradeProgress::Done { pid, .. } | UpgradeProgress::RolledBack { pid, .. } => Some(*pid),
        _ => None,
    };
    match served_by {
        Some(pid) => notify::notify_main_process(pid),
        None => error!("upgrade failed and the old binary did not start again"),
    }
    client.report(&progress).await;
    // Responses that are still being sent. The listener limits their time.
    if let Some(responses) = responses {
        let _ = responses.await;
    }
    served_by.is_some()
}

/// The file that this process was started from.
fn own_file() -> io::Result<PathBuf> {
    let file = std::env::current_exe()?;
    // Linux adds this once the file was replaced.
    let replaced = file.to_str().and_then(|file| file.strip_suffix(" (deleted)"));
    Ok(replaced.map_or_else(|| file.clone(), PathBuf::from))
}

impl Node {
    /// Copies of the sockets that are handed over.
    fn sockets(&self) -> io::Result<Sockets> {
        let listeners = self.listeners.iter().filter_map(Weak::upgrade);
        Ok(Sockets {
            listeners: listeners
                .map(|listener| listener.as_fd().try_clone_to_owned())
                .collect::<io::Result<_>>()?,
            media: self.media.sockets(),
        })
    }

    /// Returns the calls that an upgrade would end, at most [`CALLS_MAX`].
    fn calls_in_the_way(&self) -> Vec<String> {
        let live = self.registry.list();
        let live = live.iter().map(|call| format!("{}: live", call.setup.call));
        let queued = self.drain.dialer.queued();
        let queued = queued.iter().map(|setup| format!("{}: waits to be placed", setup.call));
        live.chain(queued).take(CALLS_MAX).collect()
    }
}
