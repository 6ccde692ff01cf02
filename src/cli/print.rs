//! The only place that prints.
//!
//! A reader who closes the pipe (`offhook call | head`) has seen enough: BrokenPipe is success. Any other failure
//! to write standard output (a full disk) is remembered, and `settled` makes an exit code 1 of it.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

static OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// One line on standard output, at once.
pub fn line(what: impl Display) {
    bytes(format!("{what}\n").as_bytes());
}

/// One JSON object on a line of its own, at once.
pub fn json(object: &impl serde::Serialize) {
    match serde_json::to_string(object) {
        Ok(text) => line(text),
        Err(e) => error(format_args!("could not write an object as JSON: {e}")),
    }
}

/// Text on standard output as it is.
pub fn text(what: &str) {
    bytes(what.as_bytes());
}

/// The longest [`plain`] text, in characters.
const PLAIN_MAX: usize = 300;

/// What customers, their servers or a node wrote, for a line on a terminal: without control characters (R22), and bounded.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PLAIN_MAX).collect()
}

/// Bytes on standard output as they are.
pub fn bytes(what: &[u8]) {
    match write_stdout(what) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => OUTPUT_LOST.store(true, Ordering::Relaxed),
        Ok(()) | Err(_) => {}
    }
}

#[cfg(not(test))]
fn write_stdout(what: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(what).and_then(|()| out.flush())
}

/// Prints with a macro, since the test harness captures nothing else.
#[cfg(test)]
#[allow(clippy::print_stdout, clippy::unnecessary_wraps, reason = "tests")]
fn write_stdout(what: &[u8]) -> std::io::Result<()> {
    print!("{}", String::from_utf8_lossy(what));
    Ok(())
}

/// `error: …` on standard error, a line or a few.
pub fn error(what: impl Display) {
    error_text(&format!("error: {what}\n"));
}

/// Text on standard error as it is. There is nobody left to tell if that fails.
pub fn error_text(what: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(what.as_bytes()).and_then(|()| err.flush());
}

/// Whether to colour standard error (`true`) or standard output: a terminal, and no `NO_COLOR`.
pub fn colour(stderr: bool) -> bool {
    let terminal =
        if stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
    terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// The exit of a command, `Failed` if its output could not be written.
pub(super) fn settled(exit: super::Exit) -> super::Exit {
    if exit == super::Exit::Done && OUTPUT_LOST.load(Ordering::Relaxed) {
        return super::Exit::failed("could not write to standard output");
    }
    exit
}
