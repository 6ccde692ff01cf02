//! The process that takes over from this one, as controlled by this one.

use std::ffi::OsString;
use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::{Child, Command};
use tracing::warn;

use super::channel::{Channel, FromNew, FromOld, SOCKETS_MAX, VERSION};
use engine::call::handover;

/// The argument with which `offhook serve` takes over.
const TAKE_OVER: &str = "--take-over";

/// Timeout for a new process to become ready. No state has changed until then.
const READY_TIME: Duration = Duration::from_secs(5);

/// Timeout for a new process to rebuild the calls. They are suspended meanwhile.
const CHECK_TIME: Duration = Duration::from_secs(3);

/// Timeout for a new process to continue the media of the calls. Callers hear nothing meanwhile.
const LEGS_TIME: Duration = Duration::from_secs(1);

/// Timeout from the hand-over of the store until the new process serves requests. Connections wait
/// meanwhile. A large store may have to be migrated.
const SERVE_TIME: Duration = Duration::from_secs(30);

/// A started process. It is killed when dropped, unless it serves requests.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    channel: Channel,
    /// The version of the calls.
    version: u32,
}

/// Why a process did not take over.
#[derive(Debug, thiserror::Error)]
pub(super) enum SuccessorError {
    #[error("the new process could not be started: {0}")]
    Start(io::Error),
    #[error("the new process did not answer within {} s", .0.as_secs())]
    Silent(Duration),
    #[error("the new process ended ({0}); see its log")]
    Ended(String),
    #[error("the new process refused: {0}")]
    Refused(String),
    #[error("the calls could not be passed on: {0}")]
    Calls(#[from] io::Error),
}

impl Successor {
    /// Starts a binary with the arguments of this process, and waits until it is ready. `member` is
    /// the id of a node of a fleet.
    pub(super) async fn start(
        binary: &Path,
        listeners: &[OwnedFd],
        member: Option<&str>,
    ) -> Result<Self, SuccessorError> {
        let (channel, input) = Channel::pair().map_err(SuccessorError::Start)?;
        let is_ours = |argument: &OsString| argument == TAKE_OVER;
        let arguments = std::env::args_os().skip(1).filter(|argument| !is_ours(argument));
        let child = Command::new(binary)
            .args(arguments)
            .arg(TAKE_OVER)
            .stdin(Stdio::from(input))
            .kill_on_drop(true)
            .spawn()
            .map_err(SuccessorError::Start)?;
        let version = match member {
            Some(_) => handover::FLEET_VERSION,
            None => handover::VERSION,
        };
        let mut new = Self { child, channel, version };
        let offer = FromOld::Offer {
            version: VERSION,
            offhook: env!("CARGO_PKG_VERSION").to_owned(),
            member: member.map(str::to_owned),
        };
        let listeners: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        match new.ask(&offer, &listeners, READY_TIME).await {
            Ok(FromNew::Ready { .. }) => Ok(new),
            other => Err(new.failed(unexpected(other)).await),
        }
    }

    /// Offers the calls to the process. Returns those that it refuses. Nothing has changed until
    /// then. After an error, the process must be given up with [`Successor::failed`].
    pub(super) async fn offer_calls(
        &mut self,
        files: [BorrowedFd<'_>; 2],
        sockets: &[Arc<UdpSocket>],
    ) -> Result<Vec<String>, SuccessorError> {
        let sockets = sockets.iter().map(|socket| socket.as_fd());
        let all: Vec<_> = files.into_iter().chain(sockets).collect();
        let (first, others) = all.split_at(all.len().min(SOCKETS_MAX));
        for some in others.chunks(SOCKETS_MAX) {
            self.channel.send(&FromOld::Sockets, some).await?;
        }
        let calls = FromOld::Calls { version: self.version };
        match self.ask(&calls, first, CHECK_TIME).await {
            Ok(FromNew::Checked { refused }) => Ok(refused),
            other => Err(unexpected(other)),
        }
    }

    /// Lets the process continue the media of the calls. After an error, the process must be given
    /// up with [`Successor::failed`], and may have sent packets.
    pub(super) async fn move_legs(
        &mut self,
        files: [BorrowedFd<'_>; 2],
    ) -> Result<(), SuccessorError> {
        match self.ask(&FromOld::Legs, &files, LEGS_TIME).await {
            Ok(FromNew::Playing) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Lets the process take over, and waits until it serves requests. Returns its id.
    pub(super) async fn take_over(mut self, left: &[OwnedFd]) -> Result<u32, SuccessorError> {
        let left: Vec<_> = left.iter().map(AsFd::as_fd).collect();
        let answer = self.ask(&FromOld::Released, &left, SERVE_TIME).await;
        match (answer, self.child.id()) {
            (Ok(FromNew::Serving), Some(id)) => {
                // It outlives this process.
                std::mem::forget(self.child);
                Ok(id)
            }
            (other, _) => Err(self.failed(unexpected(other)).await),
        }
    }

    async fn ask(
        &mut self,
        message: &FromOld,
        files: &[BorrowedFd<'_>],
        within: Duration,
    ) -> Result<FromNew, SuccessorError> {
        // If the process has ended, `receive` says so.
        let _ = self.channel.send(message, files).await;
        match tokio::time::timeout(within, self.channel.receive()).await {
            Ok(Ok((message, _))) => Ok(message),
            Ok(Err(error)) => Err(SuccessorError::Ended(error.to_string())),
            Err(_) => Err(SuccessorError::Silent(within)),
        }
    }

    /// Ends the process if it still runs, so that it can't use the store or send media later.
    /// Returns the error with its exit status.
    pub(super) async fn failed(mut self, error: SuccessorError) -> SuccessorError {
        if let SuccessorError::Ended(_) = error
            && let Ok(Ok(status)) =
                tokio::time::timeout(Duration::from_secs(1), self.child.wait()).await
        {
            return SuccessorError::Ended(status.to_string());
        }
        if let Err(error) = self.child.kill().await {
            warn!(%error, "new process not killed");
        }
        error
    }
}

/// The error of an answer that was not the awaited one.
fn unexpected(answer: Result<FromNew, SuccessorError>) -> SuccessorError {
    match answer {
        Err(error) => error,
        Ok(FromNew::Refused { why }) => SuccessorError::Refused(why),
        Ok(
            FromNew::Ready { .. } | FromNew::Checked { .. } | FromNew::Playing | FromNew::Serving,
        ) => SuccessorError::Refused("it sent an unexpected message".to_owned()),
    }
}
