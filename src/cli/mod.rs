//! Arguments, printing, exit codes; a file a command.
//!
//! Every command has an `Args` (clap derive; the help text is its documentation, `man` is made from it) and a
//! `run`, which gives an [`Exit`]. Only this room prints, through [`mod@print`]; the rest of the house logs.

pub mod backup;
pub mod call;
pub mod callbacks;
pub mod calls;
mod completions;
pub mod config;
pub mod conversations;
pub mod dev;
pub mod doctor;
pub mod exit;
pub mod load;
mod man;
mod node_api;
pub mod numbers;
mod numbers_file;
mod openapi;
pub mod print;
pub mod replay;
pub mod serve;
mod simulated;
mod speech_helper;
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
    after_help = "Exit codes: 0 done, 1 the thing asked about failed, 2 wrong usage or configuration."
)]
struct Cli {
    #[command(flatten)]
    logs: LogArgs,
    #[command(subcommand)]
    command: Command,
}

/// How the program logs; the same for every command.
#[derive(clap::Args)]
struct LogArgs {
    /// One JSON object a line, or text for people [default: pretty; json for `serve` away from a terminal]
    #[arg(long, global = true, value_enum, value_name = "FORMAT", help_heading = "Logging")]
    log_format: Option<LogFormat>,
    /// What to log; RUST_LOG is read where this is not given [default: info for `serve` and `dev`, else warn]
    #[arg(long, global = true, value_enum, value_name = "LEVEL", help_heading = "Logging")]
    log_level: Option<LogLevel>,
}

#[derive(Subcommand)]
enum Command {
    /// A node, a simulated Meta, a demo answer application and the console, all on loopback
    Dev(dev::Args),
    /// A production node
    Serve(serve::Args),
    /// Place one simulated WhatsApp call with real WebRTC media and print it as it unfolds
    Call(call::Args),
    /// The latest calls, and where one's time went
    Calls(calls::Args),
    /// What users and businesses wrote to each other, as JSON lines
    Conversations(conversations::Args),
    /// What became of callbacks, and once more for those that were given up
    Callbacks(callbacks::Args),
    /// A node's business numbers: listed, connected, registered, their settings exported and imported
    Numbers(numbers::Args),
    /// Generate load through the same simulator
    Load(load::Args),
    /// Copy the store to a file, checked, while the node runs
    Backup(backup::Args),
    /// Answer documents
    Xml(xml::Args),
    /// Run a recorded call's event log through the call machine again and show the first difference
    Replay(replay::Args),
    /// Tell whether this installation can take a real call, and what to do where it can't
    Doctor(doctor::Args),
    /// The configuration
    Config(config::Args),
    /// The languages and voices that documents may name, and who says them here
    Voices(voices::Args),
    /// Print the OpenAPI 3.1 document
    Openapi,
    /// Print completions for a shell
    Completions(completions::Args),
    /// Print the manual page (roff), or the command-line reference (Markdown)
    Man(man::Args),
    /// The synthesiser's own process; started by a node, not by people
    #[command(hide = true)]
    SpeechHelper,
}

/// An address that a web server answers at.
fn http_url(text: &str) -> Result<url::Url, String> {
    match url::Url::parse(text.trim()) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
        Ok(url) => Err(format!("{} is neither http nor https", url.scheme())),
        Err(e) => Err(format!("{e}; write it like http://127.0.0.1:5000/answer")),
    }
}

impl Command {
    /// Nodes tell what they do; the others print it.
    fn is_node(&self) -> bool {
        matches!(self, Self::Dev(_) | Self::Serve(_))
    }
}

/// Runs the program: reads the arguments, does what they say.
pub fn main() -> std::process::ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        // Help and version are answers (0, standard output); all else is wrong usage (2, standard error).
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
            return if failed { Exit::Usage.into() } else { print::settled(Exit::Done).into() };
        }
    };
    logs::install(LogSettings {
        format: cli.logs.log_format.unwrap_or_else(|| default_format(&cli.command)),
        level: cli.logs.log_level,
        default: if cli.command.is_node() { LogLevel::Info } else { LogLevel::Warn },
    });
    // A core dump would hold secrets.
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(e) = rustix::process::setrlimit(Resource::Core, no_core) {
        tracing::warn!(error = %e, "core dumps could not be disabled");
    }
    if cli.command.is_node() || matches!(cli.command, Command::Backup(_)) {
        // Files that the node creates are for their owner only.
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
    }
    print::settled(run(cli.command)).into()
}

fn run(command: Command) -> Exit {
    match command {
        Command::Dev(args) => dev::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Call(args) => call::run(args),
        Command::Calls(args) => calls::run(args),
        Command::Conversations(args) => conversations::run(args),
        Command::Callbacks(args) => callbacks::run(args),
        Command::Numbers(args) => numbers::run(args),
        Command::Load(args) => load::run(args),
        Command::Backup(args) => backup::run(args),
        Command::Xml(args) => xml::run(args),
        Command::Replay(args) => replay::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Config(args) => config::run(args),
        Command::Voices(args) => voices::run(args),
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

/// Runs a command's asynchronous work to its end, on all cores. What it left on blocking threads (a synthesiser in the
/// middle of a prompt) is not waited for.
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

/// The runtime that a command's asynchronous work runs on: all cores, named threads.
///
/// # Errors
/// The system gives no threads; the message is for people.
pub fn runtime() -> Result<Runtime, String> {
    built(&mut Builder::new_multi_thread())
}

/// A node's: half of the cores. The others have its media threads, its store's and the sound workers, and workers that have little to
/// do wake each other to look for more: on two cores the second one made each call a quarter dearer for them, and no faster
/// (`benches/README.md`).
fn node_runtime() -> Result<Runtime, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    built(Builder::new_multi_thread().worker_threads((cores / 2).max(1)))
}

fn built(builder: &mut Builder) -> Result<Runtime, String> {
    builder
        .enable_all()
        .thread_name("offhook")
        .build()
        .map_err(|e| format!("could not start the runtime: {e}"))
}
