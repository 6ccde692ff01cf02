//! `offhook xml`: works on answer documents. `check` lints them, `run` tests an application without
//! a call.
//!
//! This module reads, prints and selects the exit code. The crate `xml` defines the rules.

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

/// Subcommands.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Lint documents: findings with line, column, rule and hint (exit 0 clean, 1 findings, 2
    /// unreadable)
    Check(check::Args),
    /// Test an application without a call: shows requests, documents, prompts and keys (exit 0
    /// passed, 1 failed)
    Run(run::Args),
}

/// Output format of findings.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text, with the line and a caret
    Text,
    /// One JSON object per file
    Json,
    /// One SARIF 2.1.0 document
    Sarif,
}

/// Runs the subcommand.
pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Check(args) => check::run(&args),
        Command::Run(args) => run::run(args),
    }
}
