//! Can this installation take a real call? Each thing a call needs is looked at from outside, as Meta or a caller meets it;
//! what is not as it must be is told with what to do about it.
//!
//! `local` looks at this machine, `certificate` reads how long the public URL's is good, `oidc` asks the sign-in provider,
//! `meta` Graph, `numbers` goes through the numbers and their URLs. Nothing is
//! left behind: Graph is only read, the store's file opened for reading, URLs asked once as a call would, and a file is made
//! and removed again where one is to be written. Printing is `cli`'s.

mod certificate;
mod local;
mod meta;
mod numbers;
mod oidc;

use serde::Serialize;

use egress::{Egress, EgressConfig, Guard};
use engine::admission::book::Book;
use engine::answer::{Dice, Fetcher};
use engine::config::Config;
use engine::inbox::WebhookSettings;
use engine::meta::{Graph, GraphConfig};
use model::Clock;
use model::Secret;
use model::is_loopback;
use store::Database;
use store::{Archive, Setting, StoreError, WebhookUse};

/// How one thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// It works, or may; somebody should look.
    Warning,
    /// Calls will not go through like that.
    Failed,
}

impl State {
    /// The word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// What it is about: `configuration`, `clock`, `store`, `public_url`, `certificate`, `webhook`, `oidc`, `token`, `waba`, `number`, `routing`, `media`, `url`.
    pub check: &'static str,
    /// Which of several.
    pub subject: Option<String>,
    pub state: State,
    /// How it is.
    pub what: String,
    /// What to do; none where it is well.
    pub fix: Option<String>,
}

impl Line {
    fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, subject: None, state: State::Ok, what: what.into(), fix: None }
    }

    fn warning(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            subject: None,
            state: State::Warning,
            what: what.into(),
            fix: Some(fix.into()),
        }
    }

    fn failed(check: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            check,
            subject: None,
            state: State::Failed,
            what: what.into(),
            fix: Some(fix.into()),
        }
    }

    fn of(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }
}

/// The worst of some lines.
pub fn worst(lines: &[Line]) -> State {
    lines.iter().map(|line| line.state).max().unwrap_or(State::Ok)
}

/// Looks at an installation.
pub struct Doctor {
    config: Config,
    /// What configuration and store say together; the configuration alone where the store can't be read.
    book: Book,
    /// Why the store could not be read; the inner none: there is none yet.
    store: Result<(), Option<String>>,
    /// What goes to webhooks that are not there.
    missed: Vec<WebhookUse>,
    graph: Graph,
    egress: Egress,
    fetcher: Fetcher,
    clock: Clock,
    /// Meta is at loopback: simulated, or a test's.
    simulated: bool,
}

impl Doctor {
    /// One for this configuration.
    ///
    /// # Errors
    /// The TLS library refuses its own defaults; for people.
    pub async fn of(config: Config, clock: Clock) -> Result<Self, String> {
        let token = config.meta.access_token.clone().unwrap_or_else(|| Secret::new(""));
        let graph =
            Graph::new(GraphConfig::new(config.meta.graph_url.as_str(), token), clock.clone());
        let graph = graph.map_err(|e| format!("could not {e}"))?;
        // The node's own public URL may be anywhere; the customers' URLs are asked by the node's rules.
        let tls = |e: rustls::Error| format!("could not set up TLS: {e}");
        let egress = Egress::new(EgressConfig::new(Guard::new(true, Vec::new()))).map_err(tls)?;
        let guard = Guard::new(config.answer.allow_insecure, Vec::new());
        let strict = Egress::new(EgressConfig::new(guard)).map_err(tls)?;
        let fetcher = Fetcher::new(strict, clock.clone(), Dice::system());
        let (settings, missed, store) = settings(&config).await;
        let (book, ..) = Book::read(config.admission(), settings, clock.wall());
        let simulated = is_loopback(&config.meta.graph_url);
        Ok(Self { config, book, store, missed, graph, egress, fetcher, clock, simulated })
    }

    /// Looks at everything; the lines come in the order of a call's way.
    pub async fn examine(&self) -> Vec<Line> {
        let mut lines = self.local();
        lines.push(self.clock_line().await);
        lines.push(self.public_url().await);
        lines.extend(self.certificate().await);
        lines.extend(self.sign_in().await);
        lines.extend(self.webhooks().await);
        lines.extend(self.tokens().await);
        lines.extend(self.numbers().await);
        lines
    }
}

/// What was set while a node ran, beside that node or without it.
/// And what goes to webhooks that are not there.
async fn settings(config: &Config) -> (Vec<Setting>, Vec<WebhookUse>, Result<(), Option<String>>) {
    let at = &config.store.database;
    if let Database::File(file) = at
        && !file.exists()
    {
        return (Vec::new(), Vec::new(), Err(None));
    }
    let read = async {
        let archive = Archive::open(at).await?;
        let settings =
            archive.settings(config.store.secret_key.as_ref(), &config.store.data_dir).await?;
        let named: Vec<_> = config.webhooks.iter().map(WebhookSettings::id).collect();
        // A store that an earlier version made may not know of webhooks yet.
        Ok::<_, StoreError>((
            settings,
            archive.unknown_webhook_uses(&named).await.unwrap_or_default(),
        ))
    };
    match read.await {
        Ok((settings, missed)) => (settings, missed, Ok(())),
        Err(e) => (Vec::new(), Vec::new(), Err(Some(e.to_string()))),
    }
}

#[cfg(test)]
mod tests;
