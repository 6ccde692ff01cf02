//! `offhook config check`: validates a configuration and points at the offending line.

use std::path::PathBuf;

use super::Exit;

/// `offhook config …`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// What to do with the configuration.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Validate a configuration file, its environment variables and its secrets' whereabouts
    Check(CheckArgs),
}

/// Options of `offhook config check`.
#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "offhook.toml")]
    pub config: PathBuf,
}

/// Checks: 0 good, 2 not.
pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Check(_args) => Exit::failed("`config check` is not built yet"),
    }
}
