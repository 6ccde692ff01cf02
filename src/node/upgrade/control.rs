//! The Unix socket through which `offhook upgrade` talks to the node: `upgrade.sock` in the data
//! directory. Only the user of the node, and root, may use it.
//!
//! The path of a socket has at most 107 bytes (`unix(7)`), so that of a longer data directory goes
//! through a descriptor of the directory.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

/// Name of the socket in the data directory.
const NAME: &str = "upgrade.sock";

/// Maximum length of a socket's path, in bytes.
const PATH_MAX: usize = 107;

/// Maximum length of a line, in bytes.
const LINE_MAX: u64 = 64 * 1024;

/// Timeout for a client to send its request.
const REQUEST_TIME: Duration = Duration::from_secs(5);

/// A request of `offhook upgrade`.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct UpgradeRequest {
    /// The binary to start. `None` for the file that the running process was started from.
    pub binary: Option<PathBuf>,
    /// How long to wait for calls to end, in seconds.
    pub wait_seconds: u64,
    /// Whether to upgrade only if that file was replaced since the process was started.
    #[serde(default)]
    pub only_if_replaced: bool,
}

/// The progress of an upgrade. One JSON object per line.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum UpgradeProgress {
    /// The upgrade waits for calls that can't be handed over to end.
    Waiting { calls: usize },
    /// The new process is ready, and this one closes the store.
    HandingOver,
    /// The new process serves.
    Done {
        pid: u32,
        /// Time during which connections waited, in milliseconds.
        gap_ms: u64,
        /// Number of calls that were handed over.
        #[serde(default)]
        calls: usize,
        /// Time during which no packet of these calls was sent or read, in milliseconds.
        #[serde(default)]
        media_gap_ms: u64,
    },
    /// The file of the binary was not replaced, so the running process reloads its configuration. `why`
    /// says why it does not.
    Reloading {
        why: Option<String>,
        #[serde(default)]
        binary: Option<PathBuf>,
    },
    /// The upgrade was refused, and the running process continues.
    Refused {
        why: String,
        /// Calls that cannot be handed over.
        calls: Vec<String>,
    },
    /// The new process failed after the hand-over. The old binary was started again.
    RolledBack { why: String, pid: u32 },
    /// Neither binary runs.
    Failed { why: String },
}

/// The path of the socket in a data directory, while `_directory` is open.
struct SocketPath {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

impl SocketPath {
    fn of(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(NAME);
        if path.as_os_str().len() <= PATH_MAX {
            return Ok(Self { path, _directory: None });
        }
        let directory = rustix::fs::open(data_dir, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
        Ok(Self { path: path.into(), _directory: Some(directory) })
    }
}

/// The listening socket.
#[derive(Debug)]
pub(super) struct Control(UnixListener);

impl Control {
    /// Listens in a data directory. A socket of an earlier process is replaced.
    pub(super) fn bind(data_dir: &Path) -> io::Result<Self> {
        let at = SocketPath::of(data_dir)?;
        match std::fs::remove_file(&at.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&at.path)?;
        rustix::fs::chmod(&at.path, Mode::RUSR | Mode::WUSR)?;
        Ok(Self(listener))
    }

    /// Waits for a request.
    pub(super) async fn next(&self) -> (UpgradeRequest, Client) {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => match Client::read(stream).await {
                    Ok(asked) => return asked,
                    Err(error) => warn!(%error, "upgrade request not read"),
                },
                Err(error) => {
                    warn!(%error, "accept failed; retrying in 1 s");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

/// The client that requested an upgrade.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) progress: ProgressWriter,
    pub(super) connection: ClientConnection,
}

/// Reports the progress to a client.
#[derive(Debug)]
pub(super) struct ProgressWriter(OwnedWriteHalf);

/// The receiving half of a client's connection. A client sends nothing after its request.
#[derive(Debug)]
pub(super) struct ClientConnection(OwnedReadHalf);

impl Client {
    async fn read(mut stream: UnixStream) -> io::Result<(UpgradeRequest, Self)> {
        let user = stream.peer_cred()?.uid();
        if user != 0 && user != geteuid().as_raw() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the request is from another user",
            ));
        }
        let mut line = String::new();
        let mut lines = BufReader::new((&mut stream).take(LINE_MAX));
        tokio::time::timeout(REQUEST_TIME, lines.read_line(&mut line)).await??;
        let (connection, progress) = stream.into_split();
        let (progress, connection) = (ProgressWriter(progress), ClientConnection(connection));
        Ok((serde_json::from_str(&line)?, Self { progress, connection }))
    }
}

impl ClientConnection {
    /// Waits until the client disconnects.
    pub(super) async fn closed(&mut self) {
        let mut unexpected = [0; 64];
        while self.0.read(&mut unexpected).await.is_ok_and(|read| read > 0) {}
    }
}

impl ProgressWriter {
    /// Reports progress. Ignores a client that has disconnected.
    pub(super) async fn report(&mut self, progress: &UpgradeProgress) {
        if let Ok(mut line) = serde_json::to_vec(progress) {
            line.push(b'\n');
            let _ = self.0.write_all(&line).await;
        }
    }
}

/// Requests an upgrade from the node with this data directory. Passes each step to `report` and
/// returns the last one.
///
/// # Errors
/// Returns an error if no node listens there, or an [`io::ErrorKind::UnexpectedEof`] if it ends the
/// connection without a result.
pub async fn request_upgrade(
    data_dir: &Path,
    request: &UpgradeRequest,
    mut report: impl FnMut(&UpgradeProgress),
) -> io::Result<UpgradeProgress> {
    let at = SocketPath::of(data_dir)?;
    let mut stream = UnixStream::connect(&at.path).await?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await.map_err(ended)?;
    let mut lines = BufReader::new(stream.take(LINE_MAX * 64)).lines();
    while let Some(line) = lines.next_line().await.map_err(ended)? {
        let progress: UpgradeProgress = serde_json::from_str(&line)?;
        match progress {
            UpgradeProgress::Waiting { .. } | UpgradeProgress::HandingOver => report(&progress),
            UpgradeProgress::Done { .. }
            | UpgradeProgress::Reloading { .. }
            | UpgradeProgress::Refused { .. }
            | UpgradeProgress::RolledBack { .. }
            | UpgradeProgress::Failed { .. } => return Ok(progress),
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

/// The error for a connection that the node has reset or closed.
fn ended(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            io::ErrorKind::UnexpectedEof.into()
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_node_is_reached_in_a_data_directory_with_a_long_path() {
        let temporary = tempfile::tempdir().unwrap();
        for data_dir in [temporary.path().to_owned(), temporary.path().join("d".repeat(200))] {
            std::fs::create_dir_all(&data_dir).unwrap();
            let control = Control::bind(&data_dir).unwrap();
            let answer = async {
                let (request, mut client) = control.next().await;
                assert_eq!(request.wait_seconds, 7);
                let done = UpgradeProgress::Done { pid: 1, gap_ms: 2, calls: 0, media_gap_ms: 0 };
                client.progress.report(&done).await;
            };
            let request = UpgradeRequest { wait_seconds: 7, ..UpgradeRequest::default() };
            let asked = request_upgrade(&data_dir, &request, |_| {});
            let (outcome, ()) = tokio::join!(asked, answer);
            assert!(matches!(outcome.unwrap(), UpgradeProgress::Done { pid: 1, gap_ms: 2, .. }));
            assert!(data_dir.join(NAME).exists());
        }
    }
}
