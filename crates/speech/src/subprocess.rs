//! Child processes that read standard input and write standard output. They get no environment and
//! are killed when dropped.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Returns the first file with this name in the folders of `path`, the value of `PATH`.
pub(super) fn find_on_path(program: impl AsRef<Path>, path: Option<&OsStr>) -> Option<PathBuf> {
    std::env::split_paths(path?).map(|folder| folder.join(&program)).find(|file| file.is_file())
}

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
