//! Child processes that end with this one.

use std::io;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// The user and group of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: u32,
    pub(super) group: u32,
}

/// A child process. It is killed when this is dropped, and if this process is killed.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    id: Pid,
    /// A shell that reads from this process, and kills the child at the end of the input.
    _guard: Child,
}

impl Process {
    /// Starts a command in its own process group, so that Ctrl-C does not reach it.
    ///
    /// # Errors
    /// Returns an error if the program can't be started.
    pub(super) fn start(command: &mut Command, owner: Option<Owner>) -> io::Result<Self> {
        let child = as_owner(command, owner).spawn()?;
        let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let id = id.ok_or_else(|| io::Error::other("the process ended immediately"))?;
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", "read -r line; kill -KILL \"$1\"", "sh"]);
        guard.arg(id.as_raw_nonzero().to_string());
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let guard = as_owner(&mut guard, owner).spawn()?;
        Ok(Self { child, id, _guard: guard })
    }

    /// Sends a signal. Has no effect if the process has ended.
    pub(super) fn signal(&mut self, signal: Signal) {
        // The id belongs to the process until it was waited for.
        if let Ok(None) = self.child.try_wait() {
            let _ = kill_process(self.id, signal);
        }
    }

    /// Returns how the process ended. `None` if it is still running.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// Returns an error if the system can't report the exit status.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Standard error, if it was piped and not taken.
    pub(super) fn take_stderr(&mut self) -> Option<tokio::process::ChildStderr> {
        self.child.stderr.take()
    }
}

fn as_owner(command: &mut Command, owner: Option<Owner>) -> &mut Command {
    if let Some(Owner { user, group }) = owner {
        command.uid(user).gid(group);
    }
    command.current_dir("/").process_group(0).kill_on_drop(true)
}
