//! `offhook xml`: documents, before a caller meets them. `check` lints, `run` walks an application without a call.
//!
//! Reads, prints and picks the exit code; what is right and wrong is `xml`'s business.

mod check;
mod draw;
mod explain;
mod run;
mod sarif;
mod source;
mod walked;

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
    /// Lint documents: each finding with line, column, rule and a hint (exit 0 clean, 1 findings, 2 unreadable)
    Check(check::Args),
    /// Walk an application without a call: each request, document, prompt and key (exit 0 good, 1 it failed)
    Run(run::Args),
}

/// Runs it.
pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Check(args) => check::run(&args),
        Command::Run(args) => run::run(args),
    }
}
