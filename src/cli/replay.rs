//! `offhook replay`: the same decisions again, or the first difference.

use std::path::PathBuf;

use super::Exit;

/// Options of `offhook replay`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// A call's event log, JSON lines; `-` for standard input
    #[arg(value_name = "EVENTS.jsonl")]
    pub events: PathBuf,
}

/// Replays: 0 the same, 1 a difference, 2 unreadable.
pub fn run(_args: Args) -> Exit {
    Exit::failed("`replay` is not built yet")
}
