//! Child processes that read standard input and write standard output. They get no environment and
//! are killed when dropped.

use std::io;
use std::process::Stdio;

use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A running child process. Dropping `input` closes its standard input.
pub(super) struct Subprocess {
    pub(super) child: Child,
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
}

/// Starts a child process.
///
/// # Errors
///
/// Fails if the program cannot be started.
pub(super) fn spawn(command: &mut Command) -> io::Result<Subprocess> {
    let command =
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn()?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("the process has no pipes"));
    };
    Ok(Subprocess { child, input, output })
}
