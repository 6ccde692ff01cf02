//! The process that takes over from this one, as controlled by this one.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tracing::warn;

use super::Sockets;
use super::channel::{Channel, FromNew, FromOld, SOCKETS_MAX, VERSION};

/// The argument with which `offhook serve` takes over.
const TAKE_OVER: &str = "--take-over";

/// Timeout for a new process to become ready. No state has changed until then.
const READY_TIME: Duration = Duration::from_secs(5);

/// Timeout from the hand-over of the store until the new process serves requests. Connections wait
/// meanwhile. A large store may have to be migrated.
const SERVE_TIME: Duration = Duration::from_secs(30);

/// A started process. It is killed when dropped, unless it serves requests.
#[derive(Debug)]
pub(super) struct Successor {
    child: Child,
    channel: Channel,
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
}

impl Successor {
    /// Starts a binary with the arguments of this process, and waits until it is ready.
    pub(super) async fn start(binary: &Path, sockets: &Sockets) -> Result<Self, SuccessorError> {
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
        let mut new = Self { child, channel };
        let offer = FromOld::Offer {
            version: VERSION,
            offhook: env!("CARGO_PKG_VERSION").to_owned(),
            listeners: sockets.listeners.len(),
        };
        let listeners = sockets.listeners.iter().map(|socket| socket.as_fd());
        let media = sockets.media.iter().map(|socket| socket.as_fd());
        let all: Vec<_> = listeners.chain(media).take(SOCKETS_MAX).collect();
        // If the process has ended, `until` says so.
        let _ = new.channel.send(&offer, &all).await;
        match new.answer(READY_TIME).await {
            Ok(FromNew::Ready { .. }) => Ok(new),
            Ok(FromNew::Refused { why }) => Err(new.failed(SuccessorError::Refused(why)).await),
            Ok(FromNew::Serving) => {
                let why = "it served before its time".to_owned();
                Err(new.failed(SuccessorError::Refused(why)).await)
            }
            Err(error) => Err(new.failed(error).await),
        }
    }

    /// Lets the process take over, and waits until it serves requests. Returns its id.
    pub(super) async fn take_over(mut self) -> Result<u32, SuccessorError> {
        let _ = self.channel.send(&FromOld::Released, &[]).await;
        let answer = self.answer(SERVE_TIME).await;
        match (answer, self.child.id()) {
            (Ok(FromNew::Serving), Some(id)) => {
                // It outlives this process.
                std::mem::forget(self.child);
                Ok(id)
            }
            (Ok(FromNew::Refused { why }), _) => {
                Err(self.failed(SuccessorError::Refused(why)).await)
            }
            (Ok(FromNew::Serving | FromNew::Ready { .. }), _) => {
                let why = "it sent an unexpected message".to_owned();
                Err(self.failed(SuccessorError::Refused(why)).await)
            }
            (Err(error), _) => Err(self.failed(error).await),
        }
    }

    async fn answer(&mut self, within: Duration) -> Result<FromNew, SuccessorError> {
        match tokio::time::timeout(within, self.channel.receive()).await {
            Ok(Ok((message, _))) => Ok(message),
            Ok(Err(error)) => Err(SuccessorError::Ended(error.to_string())),
            Err(_) => Err(SuccessorError::Silent(within)),
        }
    }

    /// Ends the process if it still runs, so that it can't use the store later. Returns the error
    /// with its exit status.
    async fn failed(mut self, error: SuccessorError) -> SuccessorError {
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
