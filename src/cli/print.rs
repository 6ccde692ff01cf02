//! Standard output and standard error of the commands.
//!
//! A reader that closes the pipe (`offhook call | head`) is not a failure: `BrokenPipe` is ignored.
//! Any other failure to write to standard output (a full disk) is remembered and results in exit
//! code 1.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::observe::logs::{escaped, is_harmful};

static OUTPUT_LOST: AtomicBool = AtomicBool::new(false);

/// Prints a line to standard output and flushes it.
pub fn line(what: impl Display) {
    bytes(format!("{what}\n").as_bytes());
}

/// Prints a JSON object on one line and flushes it.
pub fn json(object: &impl serde::Serialize) {
    match serde_json::to_string(object) {
        Ok(text) => line(escaped(&text)),
        Err(e) => error(format_args!("could not write an object as JSON: {e}")),
    }
}

/// Prints text to standard output unchanged.
pub fn text(what: &str) {
    bytes(what.as_bytes());
}

/// Maximum length of a [`plain`] text, in characters.
const PLAIN_MAX: usize = 300;

/// Makes untrusted text safe for a terminal: replaces control characters, and marks that change the
/// direction of text, by spaces and limits the length.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if is_harmful(c) { ' ' } else { c }).take(PLAIN_MAX).collect()
}

/// Formats a number and its noun, which takes an `s` in the plural: `1 error`, `2 errors`.
pub fn counted<N: Display + PartialEq + From<u8>>(n: N, noun: &str) -> String {
    let ending = if n == N::from(1) { "" } else { "s" };
    format!("{n} {noun}{ending}")
}

/// Formats rows as a table. Each column is as wide as its longest cell. The first row is the
/// header. Cells are made [`plain`].
pub fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let rows: Vec<[String; COLUMNS]> =
        rows.iter().map(|row| row.each_ref().map(|cell| plain(cell))).collect();
    let widths: [usize; COLUMNS] = std::array::from_fn(|n| {
        rows.iter().filter_map(|row| row.get(n)).map(|c| c.chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Writes bytes to standard output and flushes them.
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

/// Prints with a macro, because the test harness captures only the output of macros.
#[cfg(test)]
#[allow(clippy::print_stdout, clippy::unnecessary_wraps, reason = "tests")]
fn write_stdout(what: &[u8]) -> std::io::Result<()> {
    print!("{}", String::from_utf8_lossy(what));
    Ok(())
}

/// Prints `error: …` to standard error. Its lines are made [safe](plain_lines), because errors quote
/// files that may come from others.
pub fn error(what: impl Display) {
    error_text(&format!("error: {}\n", plain_lines(&what.to_string())));
}

/// Maximum length of a line of [`plain_lines`], in characters.
const LINE_MAX: usize = 2_000;

/// Like [`plain`] for each line of a text, but with tabs and longer lines.
pub fn plain_lines(text: &str) -> String {
    let safe = |c| if c != '\t' && is_harmful(c) { ' ' } else { c };
    let lines = text.split('\n').map(|line| line.chars().map(safe).take(LINE_MAX).collect());
    lines.collect::<Vec<String>>().join("\n")
}

/// Prints text to standard error unchanged. Failures are ignored.
pub fn error_text(what: &str) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(what.as_bytes()).and_then(|()| err.flush());
}

/// Whether to colour standard error (`true`) or standard output (`false`): only on a terminal and
/// without `NO_COLOR`.
pub fn colour(stderr: bool) -> bool {
    let terminal =
        if stderr { std::io::stderr().is_terminal() } else { std::io::stdout().is_terminal() };
    terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// The exit code of a command: `Failed` if its output could not be written.
pub(super) fn exit_with_output_errors(exit: super::Exit) -> super::Exit {
    if exit == super::Exit::Done && OUTPUT_LOST.load(Ordering::Relaxed) {
        return super::Exit::failed("could not write to standard output");
    }
    exit
}

#[cfg(test)]
mod tests {
    use super::{LINE_MAX, escaped, plain, plain_lines};

    #[test]
    fn json_and_tables_have_no_characters_that_change_a_terminal() {
        let text = "a\u{9b}31m\u{202e}b";
        assert_eq!(plain(text), "a 31m b");
        let json = serde_json::to_string(text).expect("JSON");
        assert_eq!(escaped(&json), r#""a\u009b31m\u202eb""#);
        assert_eq!(serde_json::from_str::<String>(&escaped(&json)).expect("JSON"), text);
        assert_eq!(escaped(r#"{"a":"é"}"#), r#"{"a":"é"}"#);
    }

    #[test]
    fn lines_of_errors_are_safe_and_of_limited_length() {
        assert_eq!(plain_lines("a\u{1b}[31m\tb\r\n\u{202e}c"), "a [31m\tb \n c");
        let long = "x".repeat(LINE_MAX * 2);
        assert_eq!(plain_lines(&format!("{long}\ny")), format!("{}\ny", &long[..LINE_MAX]));
    }
}
