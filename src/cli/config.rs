//! `offhook config`: validates a configuration, and prints the reference of all keys. Other commands
//! use [`load`] to read a configuration.

use std::path::{Path, PathBuf};

use super::{Exit, print};
use crate::speech_settings;
use engine::config::{Config, ConfigError, Reference};
use speech::config::SpeechConfig;
use speech::recognise::check_recognisers;

/// `offhook config …`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

/// Subcommands.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Validate a configuration file with its environment variables, secret files, certificates and recognisers
    Check(CheckArgs),
    /// Print every key with its type, default and meaning, and whether a reload applies it
    Keys(KeysArgs),
}

/// Options of `offhook config check`.
#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "offhook.toml")]
    pub config: PathBuf,
}

/// Options of `offhook config keys`.
#[derive(clap::Args, Clone, Debug)]
pub struct KeysArgs {
    /// Print one JSON object per key and line
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Print Markdown, as in docs/reference/configuration.md
    #[arg(long)]
    pub markdown: bool,
}

/// Runs `offhook config …`.
pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Check(args) => check(&args),
        Command::Keys(args) => keys(&args),
    }
}

/// Prints the reference of all keys.
fn keys(args: &KeysArgs) -> Exit {
    let reference = Reference::collect();
    if args.json {
        reference.descriptions().for_each(|key| print::json(&key));
    } else if args.markdown {
        print::text(&reference.markdown());
    } else {
        print::text(&reference.to_string());
    }
    Exit::Done
}

/// Validates a configuration: exit code 0 if it is valid, 2 if not.
fn check(args: &CheckArgs) -> Exit {
    match load(&args.config) {
        Ok(config) => {
            if let Err(e) = load_certificates(&config) {
                return Exit::usage(e);
            }
            // `serve` does not start without a recogniser that the file names.
            if let Some(Err(e)) = speech_settings::read(&config).ok().map(|s| check_recognisers(&s))
            {
                return Exit::usage(format_args!("[speech]: {e}"));
            }
            print::line(format_args!("{}: ok", args.config.display()));
            print::text(&summary(&config));
            for warning in speech_settings::warnings(&config) {
                print::error_text(&format!("warning: {}\n", print::plain_lines(&warning)));
            }
            Exit::Done
        }
        Err(exit) => exit,
    }
}

/// Loads the certificate files of `listen.https` as `serve` does.
fn load_certificates(config: &Config) -> Result<(), tls::LoadError> {
    let settings = config.tls.clone().filter(|_| config.listen.https.is_some());
    settings.map_or(Ok(()), |settings| tls::Prepared::load(settings).map(drop))
}

/// Loads a configuration from a file and the environment, and also validates `[speech]`. Prints the
/// errors.
///
/// # Errors
/// Returns [`Exit::Usage`] if the configuration is unreadable or invalid.
pub fn load(file: &Path) -> Result<Config, Exit> {
    let error = match read(file) {
        Ok(config) => return Ok(config),
        Err(error) => error,
    };
    match &error {
        ConfigError::Unreadable { .. } => print::error(format_args!(
            "{error}; name the file with --config, or let `offhook init` write one"
        )),
        ConfigError::Invalid(problems) => {
            problems.0.iter().for_each(print::error);
            if problems.0.len() > 1 {
                print::error_text(&format!("{} errors\n", problems.0.len()));
            }
        }
    }
    Err(Exit::Usage)
}

/// Like [`load`], but prints nothing.
///
/// # Errors
/// Returns an error if the configuration is unreadable or invalid.
pub(super) fn read(file: &Path) -> Result<Config, ConfigError> {
    let speech = |table| SpeechConfig::from_table(table).map(drop).map_err(|e| e.to_string());
    Config::load(file, &speech)
}

/// A summary of the configuration, without secrets.
fn summary(c: &Config) -> String {
    let base = c.public.base_url.as_ref().map_or("the bound address", url::Url::as_str);
    let https = c.listen.https.map(|https| format!("  https    {https}\n")).unwrap_or_default();
    let enabled = c.numbers.iter().filter(|n| n.calling_enabled).count();
    let (last_port, media) =
        (u32::from(c.listen.media.port()) + u32::from(c.listen.media_ports) - 1, c.listen.media);
    format!(
        "  public   {} as {base}\n{https}  admin    {}\n  media    {media}, up to port {last_port}\n  graph    {}\n  \
         store    {}\n  accounts {} ({} of them subaccounts), users {}, WABAs {}, numbers {} ({enabled} with calling)\n",
        c.listen.public,
        c.listen.admin,
        c.meta.graph_url,
        c.store.database,
        c.accounts.len(),
        c.accounts.iter().filter(|a| a.parent.is_some()).count(),
        c.users.len(),
        c.wabas.len(),
        c.numbers.len(),
    )
}
