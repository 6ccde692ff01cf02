//! `offhook xml check`: the linter of answer documents.

use super::Exit;

/// `offhook xml …`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with documents.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Lint a document: each finding with line, column, rule and a hint (exit 0 clean, 1 findings, 2 unreadable)
    Check(CheckArgs),
}

/// Options of `offhook xml check`.
#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// A file, an http(s) URL, or `-` for standard input
    #[arg(required = true, value_name = "FILE|URL|-")]
    pub sources: Vec<String>,
    /// One JSON object a file
    #[arg(long)]
    pub json: bool,
}

/// Lints.
pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Check(_args) => Exit::failed("`xml check` is not built yet"),
    }
}
