//! `offhook upgrade`: replaces the running node by a process of another binary.

use std::cell::Cell;
use std::path::PathBuf;

use super::{Exit, print};
use crate::node::{UpgradeProgress, UpgradeRequest, request_upgrade};

/// Options of `offhook upgrade`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// The configuration file of the node
    #[arg(long, value_name = "FILE", default_value = "offhook.toml")]
    pub config: PathBuf,
    /// The node's data directory, in place of --config
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub data_dir: Option<PathBuf>,
    /// The new binary [default: the file that the node was started from]
    #[arg(long, value_name = "FILE", value_parser = super::existing_file)]
    pub binary: Option<PathBuf>,
    /// Reload the configuration instead, as SIGHUP does, if that file was not replaced since the start
    #[arg(long, conflicts_with = "binary")]
    pub or_reload: bool,
    /// How long to wait for calls that cannot be handed over, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = super::whole(0_u64..=86_400), allow_negative_numbers = true)]
    pub wait: u64,
}

/// Requests the upgrade from the node and prints its progress.
pub fn run(args: Args) -> Exit {
    let data_dir = match args.data_dir {
        Some(data_dir) => data_dir,
        None => match super::config::load(&args.config) {
            Ok(config) => config.store.data_dir,
            Err(exit) => return exit,
        },
    };
    let binary = match args.binary.map(std::path::absolute).transpose() {
        Ok(binary) => binary,
        Err(e) => return Exit::usage(format_args!("--binary: {e}")),
    };
    let request =
        UpgradeRequest { binary, wait_seconds: args.wait, only_if_replaced: args.or_reload };
    super::run_async(async {
        let is_handing_over = Cell::new(false);
        let asked = request_upgrade(&data_dir, &request, |progress| match progress {
            UpgradeProgress::Waiting { calls } => {
                let calls = print::counted(*calls, "call");
                print::line(format_args!("waiting for {calls} that cannot be handed over"));
            }
            UpgradeProgress::HandingOver => {
                is_handing_over.set(true);
                print::line("the new process is ready; handing over");
            }
            UpgradeProgress::Done { .. }
            | UpgradeProgress::Reloading { .. }
            | UpgradeProgress::Refused { .. }
            | UpgradeProgress::RolledBack { .. }
            | UpgradeProgress::Failed { .. } => {}
        });
        let asked = tokio::select! {
            asked = asked => asked,
            _ = tokio::signal::ctrl_c() => {
                return Exit::interrupted(match is_handing_over.get() {
                    true => "too late to cancel: the node is handing over; see its log",
                    false => "upgrade cancelled; the node goes on as before",
                });
            }
        };
        match asked {
            Ok(UpgradeProgress::Done { pid, gap_ms, calls, media_gap_ms }) => {
                if calls > 0 {
                    print::line(format_args!(
                        "handed over {}; media paused for {media_gap_ms} ms",
                        print::counted(calls, "call")
                    ));
                }
                let binary = std::fs::read_link(format!("/proc/{pid}/exe"));
                print::line(format_args!(
                    "upgraded: process {pid}{} serves; connections waited {gap_ms} ms",
                    binary.map(|file| format!(" of {}", file.display())).unwrap_or_default()
                ));
                Exit::Done
            }
            Ok(UpgradeProgress::Reloading { why, binary }) => {
                let file = match &binary {
                    Some(binary) => binary.display().to_string(),
                    None => "the binary".to_owned(),
                };
                if let Some(why) = why {
                    return Exit::failed(format_args!(
                        "{file} was not replaced, and the node does not reload: {why}"
                    ));
                }
                print::line(format_args!(
                    "{file} was not replaced; the node reloads its configuration (see its log)"
                ));
                if let (Some(binary), Ok(own)) = (binary, std::env::current_exe())
                    && binary != own
                {
                    print::line(format_args!(
                        "the node was upgraded from another file than {own}; to run this one: offhook upgrade --binary {own}",
                        own = own.display()
                    ));
                }
                Exit::Done
            }
            Ok(UpgradeProgress::Refused { why, calls }) => {
                calls.iter().for_each(print::line);
                Exit::failed(format_args!("{why}; the node goes on as before"))
            }
            Ok(UpgradeProgress::RolledBack { why, pid }) => Exit::failed(format_args!(
                "{why}; the old binary was started again as process {pid}"
            )),
            Ok(UpgradeProgress::Failed { why }) => {
                Exit::failed(format_args!("{why}; the node does not run any more"))
            }
            Ok(UpgradeProgress::Waiting { .. } | UpgradeProgress::HandingOver) => no_result(),
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => no_result(),
            Err(e) => Exit::failed(format_args!(
                "could not reach the node in {}: {e}; it must run `offhook serve`, and this command \
                 must run as its user or as root",
                data_dir.display()
            )),
        }
    })
}

/// The result if the node closes the connection before it has reported one.
fn no_result() -> Exit {
    Exit::failed(
        "the node ended without a result; see its log. If it was being upgraded already, try again",
    )
}
