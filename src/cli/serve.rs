//! `offhook serve`: runs a production node.

use std::path::PathBuf;
use std::sync::Arc;

use super::Exit;
use crate::node::{Node, Predecessor, Signals, notify_ready, until_replaced};
use model::Clock;

/// Options of `offhook serve`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "offhook.toml")]
    pub config: PathBuf,
    /// Takes over from the node that has started this process; used by `offhook upgrade`
    #[arg(long, hide = true)]
    pub take_over: bool,
}

/// Runs the node until SIGINT or SIGTERM, then drains it. SIGHUP reloads the configuration.
pub fn run(args: Args) -> Exit {
    super::run_on(super::node_runtime(), async {
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(e) => return Exit::failed(format_args!("could not wait for signals: {e}")),
        };
        let mut predecessor = match args.take_over {
            false => None,
            true => match Predecessor::meet().await {
                Ok(predecessor) => Some(predecessor),
                Err(e) => return Exit::failed(e),
            },
        };
        let config = match super::config::load(&args.config) {
            Ok(config) => config,
            Err(exit) => {
                if let Some(predecessor) = predecessor {
                    let why = "its configuration is not valid; run `offhook config check`";
                    predecessor.refuse(why.to_owned()).await;
                }
                return exit;
            }
        };
        let data_dir = config.store.data_dir.clone();
        let file = args.config.clone();
        let loader = Arc::new(move || super::config::read(&file));
        let clock = Clock::real();
        let start = Node::start_after(predecessor.as_mut(), config, clock.clone(), Some(loader));
        let node = match signals.through(start).await {
            Some(Ok(node)) => node,
            Some(Err(e)) => {
                if let Some(predecessor) = predecessor {
                    predecessor.refuse(e.to_string()).await;
                }
                return Exit::not_started(&e, format_args!("{e}"));
            }
            None => return Exit::Done,
        };
        let https = node.https.map(tracing::field::display);
        tracing::info!(public = %node.public, https, admin = %node.admin, "ready");
        match predecessor {
            Some(predecessor) => predecessor.report_serving().await,
            None => notify_ready(),
        }
        match until_replaced(node, signals, &data_dir, &clock).await {
            true => Exit::Done,
            false => Exit::Failed,
        }
    })
}
