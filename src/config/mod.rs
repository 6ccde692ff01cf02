//! TOML and environment to plain typed values ([`Config`]); every fault with its line and column.
//!
//! `tree` parses and overlays `OFFHOOK_A__B`, `reader` reads typed values, `read` knows the keys (`storage` those of
//! `[recordings]`, `oidc` those of `[oidc]`), `fault` shows what is wrong without showing secrets. Nothing below `node` reads the configuration: rooms get what they need.

mod fault;
mod oidc;
mod read;
mod reader;
mod storage;
mod tree;
mod types;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use egress::{CustomerUrl, Guard, Refusal};
use fault::Fault;
pub use fault::Problem;
pub use types::{Cluster, Config, Listen, Media, Public, Recordings, Retention, Store};

impl Config {
    /// What is not wrong, but hardly meant: URLs of numbers that the node would refuse to ask, whatever a name resolves
    /// to (R17). A line each, for whoever starts or checks the node; calls meet the refusal at the fetch.
    pub fn warnings(&self) -> Vec<String> {
        let insecure = self.answer.allow_insecure;
        let guard = Guard::new(insecure, Vec::new());
        let mut warnings = Vec::new();
        if let Some(oidc) = &self.oidc {
            warnings.extend(oidc::warnings(oidc, self.public.base_url.is_some()));
        }
        let mut judge = |key: &str, of: &str, url: &str| {
            let Err(refusal) = CustomerUrl::parse(url, &guard) else { return };
            let hint = match refusal {
                Refusal::Address(_) if !insecure => {
                    "name a public address; [answer] allow_insecure = true opens private ones for development"
                }
                _ => "name another host or port",
            };
            warnings
                .push(format!("`{key}` of {of} would never be asked: could not {refusal}; {hint}"));
        };
        for number in &self.numbers {
            let urls = [
                ("answer_url", &number.answer_url),
                ("fallback_url", &number.fallback_url),
                ("hangup_url", &number.hangup_url),
                ("webhook_url", &number.webhook_url),
            ];
            for (key, url) in urls {
                if let Some(url) = url {
                    judge(key, number.number.as_str(), &url.0);
                }
            }
        }
        for webhook in &self.webhooks {
            judge("url", &format!("the webhook {}", webhook.name), &webhook.url.0);
        }
        warnings
    }
}

/// A configuration is a page of text.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Faults that are told, the first ones: a file that is no configuration at all has one on each line.
const PROBLEMS_MAX: usize = 50;
/// So is a secret, at most.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("could not read {}: {source}", file.display())]
    Unreadable {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// It was read, and these things are wrong with it.
    #[error("{0}")]
    Wrong(Problems),
}

/// Everything that is wrong with a configuration, in the order of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if nth == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

/// Says what is wrong with `[speech]`, whose keys another room knows.
pub type SpeechCheck<'a> = &'a dyn Fn(toml::Table) -> Result<(), String>;

/// Where secrets come from (the environment and small files), and who knows of speech.
struct Sources<'a> {
    env: &'a dyn Fn(&str) -> Option<String>,
    file: &'a dyn Fn(&str) -> std::io::Result<String>,
    speech: SpeechCheck<'a>,
}

impl Config {
    /// Reads a file, lays this process's environment over it, and fetches the secrets that it names.
    ///
    /// # Errors
    /// The file is not there, or something in it or in the environment is wrong.
    pub fn load(file: &Path, speech: SpeechCheck<'_>) -> Result<Self, ConfigError> {
        let text = read_bounded(file, FILE_BYTES_MAX)
            .map_err(|source| ConfigError::Unreadable { file: file.to_owned(), source })?;
        let env: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::from_parts(&file.display().to_string(), &text, &env, speech)
            .map_err(ConfigError::Wrong)
    }

    /// Reads text, with an environment; `name` stands for the file in messages. Secrets' files are read.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn from_parts(
        name: &str,
        text: &str,
        env: &BTreeMap<String, String>,
        speech: SpeechCheck<'_>,
    ) -> Result<Self, Problems> {
        let sources = Sources {
            env: &|name| env.get(name).cloned(),
            file: &|path| read_bounded(Path::new(path), SECRET_BYTES_MAX),
            speech,
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let (mut table, mut faults) = tree::parse(text);
        // What could not be parsed would be missed below: only the parser speaks then.
        let config = faults.is_empty().then(|| {
            tree::overlay(&mut table, env, &mut faults);
            let cx = reader::Context {
                sources: &sources,
                faults: RefCell::new(std::mem::take(&mut faults)),
            };
            let config = read::config(table, &cx);
            faults = cx.faults.into_inner();
            config
        });
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => {
                faults.sort_by_key(Fault::order);
                faults.truncate(PROBLEMS_MAX);
                Err(Problems(
                    faults.into_iter().map(|fault| Problem::locate(fault, name, text)).collect(),
                ))
            }
        }
    }
}

fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    let read = file.take(bytes_max.saturating_add(1)).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read > bytes_max) {
        return Err(std::io::Error::other(format!("it is longer than {bytes_max} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
