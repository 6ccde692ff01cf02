//! `offhook dev`: everything on loopback, nothing else installed.

use std::path::PathBuf;

use super::Exit;

/// Options of `offhook dev`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Port of the node's public listener, on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 8080)]
    pub port: u16,
    /// Your answer URL instead of the demo application's; http and private addresses are allowed here
    #[arg(long, value_name = "URL")]
    pub answer_url: Option<url::Url>,
    /// Where records, caches and keys are kept [default: a folder of its own, gone when the program ends]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Runs it until SIGINT or SIGTERM.
pub fn run(_args: Args) -> Exit {
    Exit::failed("`dev` is not built yet")
}
