//! A program that is fed on its standard input and answers on its standard output: it gets no environment, and is killed when
//! nobody waits for it any more.

use std::io;
use std::process::Stdio;

use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A program that runs. Dropping `input` is the end of what it is fed.
pub(super) struct Program {
    pub(super) child: Child,
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
}

/// Starts it.
pub(super) fn start(command: &mut Command) -> io::Result<Program> {
    let command =
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.kill_on_drop(true).spawn()?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("no pipes"));
    };
    Ok(Program { child, input, output })
}
