//! The command line: arguments, output and exit codes, one file per command.
//!
//! Every command has an `Args` (a clap derive; its doc comments are the help text and the manual
//! page) and a `run` function that returns an [`Exit`]. Only this module prints, through
//! [`mod@print`]. All other modules log.

pub mod backup;
pub mod call;
pub mod callbacks;
pub mod calls;
mod completions;
pub mod config;
pub mod conversations;
pub mod dev;
mod dev_fleet;
pub mod doctor;
pub mod exit;
pub mod init;
pub mod load;
mod man;
mod models;
mod node_api;
pub mod nodes;
pub mod numbers;
mod numbers_file;
mod openapi;
pub mod print;
pub mod replay;
pub mod serve;
mod simulated;
mod speech_helper;
mod target;
pub mod upgrade;
pub mod voices;
pub mod xml;

use clap::{CommandFactory as _, Parser, Subcommand};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit};
use tokio::runtime::{Builder, Runtime};

pub use exit::Exit;

use crate::observe::logs::{self, LogFormat, LogLevel, LogSettings};

/// `offhook`: call control for WhatsApp calls.
#[derive(Parser)]
#[command(
    name = "offhook",
    version,
    about = "Call control for WhatsApp calls: Plivo-style XML, own WebRTC media, one binary",
    after_help = "Exit codes: 0 done, 1 the thing asked about failed, 2 wrong usage or configuration, 130 ended early by Ctrl-C."
)]
struct Cli {
    #[command(flatten)]
    logs: LogArgs,
    #[command(subcommand)]
    command: Command,
}

/// Log options of all commands.
#[derive(clap::Args)]
struct LogArgs {
    /// Log format: JSON lines or text [default: pretty; json for `serve` without a terminal]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = "Logging")]
    log_format: Option<LogFormat>,
    /// Log level; overrides RUST_LOG [default: info for `serve` and `dev` without --nodes, else warn]
    #[arg(long, global = true, value_enum, value_name = "LEVEL", help_heading = "Logging")]
    log_level: Option<LogLevel>,
}

#[derive(Subcommand)]
enum Command {
    /// Run a node, a simulated Meta, a demo application and the console, all on loopback
    Dev(dev::Args),
    /// Write the configuration of a new node: asks for the settings, generates the secrets, and
    /// prints what to enter at Meta
    Init(init::Args),
    /// Run a production node
    Serve(serve::Args),
    /// Replace a running node by a process of a new binary, without closing its ports
    Upgrade(upgrade::Args),
    /// Place one simulated WhatsApp call with real WebRTC media and print its events
    Call(call::Args),
    /// List calls, and show where the time of a call went
    Calls(calls::Args),
    /// Export conversations
    Conversations(conversations::Args),
    /// List callbacks, and send failed ones again
    Callbacks(callbacks::Args),
    /// Manage business numbers: list, connect, register, export and import settings
    Numbers(numbers::Args),
    /// List the nodes of a fleet, and drain one
    Nodes(nodes::Args),
    /// Load a node with simulated calls
    Load(load::Args),
    /// Copy the store to a file and check the copy, while the node runs
    Backup(backup::Args),
    /// Check answer documents, and test an application without a call
    Xml(xml::Args),
    /// Replay the event log of a call and show the first difference
    Replay(replay::Args),
    /// Check whether this installation can take a real call
    Doctor(doctor::Args),
    /// Check the configuration, or list all keys
    Config(config::Args),
    /// List the languages and voices of documents, and the engines that speak them
    Voices(voices::Args),
    /// Install speech models: list, add a file, fetch, remove
    Models(models::Args),
    /// Print the OpenAPI 3.1 document
    Openapi,
    /// Print shell completions
    Completions(completions::Args),
    /// Print the manual page (roff), or the command-line reference (Markdown)
    Man(man::Args),
    /// Runs the synthesiser in its own process; started by a node
    #[command(hide = true)]
    SpeechHelper,
}

/// Parses the path of a file that exists.
fn existing_file(text: &str) -> Result<std::path::PathBuf, String> {
    match std::fs::metadata(text) {
        Ok(about) if about.is_file() => Ok(text.into()),
        Ok(_) => Err("it is not a file".to_owned()),
        Err(e) => Err(e.to_string()),
    }
}

/// Returns a parser of whole numbers in a range.
fn whole<T: std::str::FromStr + PartialOrd + std::fmt::Display + Clone>(
    range: std::ops::RangeInclusive<T>,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let expected =
            || format!("expected a whole number from {} to {}", range.start(), range.end());
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(expected)
    }
}

/// Parses a whole number that is not zero.
fn positive(text: &str) -> Result<u64, String> {
    let parsed = text.parse().ok().filter(|number| *number > 0);
    parsed.ok_or_else(|| "expected a whole number from 1".to_owned())
}

/// Parses a number of calls per second.
fn rate(text: &str) -> Result<f64, String> {
    text.parse().map_err(|_| "expected calls per second, such as 50 or 0.5".to_owned())
}

/// Parses the http or https URL of an application.
fn http_url(text: &str) -> Result<url::Url, String> {
    url_like(text, "http://127.0.0.1:5000/answer")
}

/// Parses the base URL of a node.
fn node_url(text: &str) -> Result<url::Url, String> {
    url_like(text, "http://127.0.0.1:8080")
}

fn url_like(text: &str, example: &str) -> Result<url::Url, String> {
    match url::Url::parse(text.trim()) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        // In `localhost:8080` the scheme is the host.
        Ok(url) => {
            Err(format!("{} is neither http nor https; write it like {example}", url.scheme()))
        }
        Err(e) => Err(format!("{e}; write it like {example}")),
    }
}

/// Parses a number of seconds up to a maximum.
fn seconds(max: f64) -> impl Fn(&str) -> Result<f64, String> + Clone {
    move |text| {
        let parsed = text.parse().ok().filter(|seconds| (0.0..=max).contains(seconds));
        parsed.ok_or_else(|| format!("expected seconds from 0 to {max}, such as 5"))
    }
}

impl Command {
    /// Whether the command runs a node.
    fn is_node(&self) -> bool {
        matches!(self, Self::Dev(_) | Self::Serve(_))
    }

    /// Whether the user wants to see the log as the command's output. The nodes of a development
    /// fleet have their own logs.
    fn shows_log(&self) -> bool {
        match self {
            Self::Dev(args) => args.nodes.is_none(),
            _ => self.is_node(),
        }
    }
}

/// Parses the arguments and runs the command.
pub fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version go to standard output with exit code 0, all else is wrong usage:
        // standard error, 2.
        Err(e) => {
            let failed = e.use_stderr();
            let text = if print::colour(failed) {
                e.render().ansi().to_string()
            } else {
                e.render().to_string()
            };
            if failed {
                print::error_text(&text);
            } else {
                print::text(&text);
            }
            return if failed {
                Exit::Usage.into()
            } else {
                print::exit_with_output_errors(Exit::Done).into()
            };
        }
    };
    logs::install(LogSettings {
        format: cli.logs.log_format.unwrap_or_else(|| default_format(&cli.command)),
        level: cli.logs.log_level,
        default: if cli.command.shows_log() { LogLevel::Info } else { LogLevel::Warn },
    });
    // A core dump would contain secrets.
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(e) = rustix::process::setrlimit(Resource::Core, no_core) {
        tracing::warn!(error = %e, "core dumps not disabled");
    }
    if cli.command.is_node() || matches!(cli.command, Command::Backup(_)) {
        // Only the owner may read files that the node creates.
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
    }
    print::exit_with_output_errors(run(cli.command)).into()
}

fn run(command: Command) -> Exit {
    match command {
        Command::Dev(args) => dev::run(args),
        Command::Init(args) => init::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Upgrade(args) => upgrade::run(args),
        Command::Call(args) => call::run(args),
        Command::Calls(args) => calls::run(args),
        Command::Conversations(args) => conversations::run(args),
        Command::Callbacks(args) => callbacks::run(args),
        Command::Numbers(args) => numbers::run(args),
        Command::Nodes(args) => nodes::run(args),
        Command::Load(args) => load::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Xml(args) => xml::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Config(args) => config::run(args),
        Command::Voices(args) => voices::run(args),
        Command::Models(args) => models::run(args),
        Command::Openapi => openapi::run(),
        Command::Completions(args) => completions::run(args, &mut Cli::command()),
        Command::Man(args) => man::run(&args, &Cli::command()),
        Command::SpeechHelper => speech_helper::run(),
    }
}

fn default_format(command: &Command) -> LogFormat {
    use std::io::IsTerminal as _;
    match command {
        Command::Serve(_) if !std::io::stderr().is_terminal() => LogFormat::Json,
        _ => LogFormat::Pretty,
    }
}

/// Runs the asynchronous work of a command on all cores. Does not wait for blocking threads, such
/// as a synthesiser in the middle of a prompt.
fn run_async(work: impl Future<Output = Exit>) -> Exit {
    run_on(runtime(), work)
}

fn run_on(runtime: Result<Runtime, String>, work: impl Future<Output = Exit>) -> Exit {
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return Exit::failed(e),
    };
    let exit = runtime.block_on(work);
    runtime.shutdown_background();
    exit
}

/// A Tokio runtime with a worker per core.
///
/// # Errors
/// Returns a message if the threads cannot be started.
pub fn runtime() -> Result<Runtime, String> {
    build_runtime(&mut Builder::new_multi_thread())
}

/// The runtime of a node, with a worker per two cores. The other cores are for media threads, the
/// store and audio workers. Idle workers wake each other to look for work: on two cores a second
/// worker made each call a quarter more expensive and no faster (`benches/README.md`).
fn node_runtime() -> Result<Runtime, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    build_runtime(Builder::new_multi_thread().worker_threads((cores / 2).max(1)))
}

fn build_runtime(builder: &mut Builder) -> Result<Runtime, String> {
    builder
        .enable_all()
        .thread_name("offhook")
        .build()
        .map_err(|e| format!("could not start the runtime: {e}"))
}
