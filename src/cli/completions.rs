//! `offhook completions`: prints a completion script.

use super::{Exit, print};

/// Options of `offhook completions`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Shell to print completions for
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Prints the script.
pub(super) fn run(args: Args, command: &mut clap::Command) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "offhook", &mut script);
    print::bytes(&script);
    Exit::Done
}
