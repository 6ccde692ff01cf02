//! `offhook serve`: a production node.

use std::path::PathBuf;

use super::Exit;

/// Options of `offhook serve`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "offhook.toml")]
    pub config: PathBuf,
}

/// Runs it until SIGINT or SIGTERM, then drains.
pub fn run(_args: Args) -> Exit {
    Exit::failed("`serve` is not built yet")
}
