//! `offhook serve`: runs a production node.

use std::path::PathBuf;
use std::sync::Arc;

use super::Exit;
use crate::node::{Node, Signals, until_stopped};
use model::Clock;

/// Options of `offhook serve`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "offhook.toml")]
    pub config: PathBuf,
}

/// Runs the node until SIGINT or SIGTERM, then drains it. SIGHUP reloads the configuration.
pub fn run(args: Args) -> Exit {
    let config = match super::config::load(&args.config) {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    super::run_on(super::node_runtime(), async {
        let file = args.config.clone();
        let loader = Arc::new(move || super::config::read(&file));
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(e) => return Exit::failed(format_args!("could not wait for signals: {e}")),
        };
        let node =
            match signals.through(Node::start_with(config, Clock::real(), Some(loader))).await {
                Some(Ok(node)) => node,
                Some(Err(e)) => return Exit::not_started(&e, format_args!("{e}")),
                None => return Exit::Done,
            };
        let https = node.https.map(tracing::field::display);
        tracing::info!(public = %node.public, https, admin = %node.admin, "ready");
        until_stopped(node, signals).await;
        Exit::Done
    })
}
