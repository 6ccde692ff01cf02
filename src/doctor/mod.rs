//! Checks whether an installation can take real calls. Everything that a call needs is checked from
//! the outside, as Meta or a caller would use it. Each problem is reported with a remedy.
//!
//! `local` checks this machine, `fleet` the PostgreSQL server and the other nodes, `certificate`
//! the public URL's certificate and those of `[tls]`, `oidc` the sign-in provider, `meta` the Graph
//! API, `numbers` the numbers and their URLs. The checks change nothing: Graph and the store are
//! only read, URLs are requested once as a call would, and a file that tests write access is
//! removed again. `cli` prints the result.

mod certificate;
mod fleet;
mod local;
mod meta;
mod numbers;
mod oidc;

pub(crate) use meta::describe;

use serde::Serialize;

use egress::{Egress, EgressConfig, Guard};
use engine::admission::book::Book;
use engine::answer::{Fetcher, RandomSource};
use engine::config::Config;
use engine::inbox::WebhookSettings;
use engine::meta::{Graph, GraphConfig};
use model::Clock;
use model::Secret;
use store::Database;
use store::{Archive, Setting, StoreError, WebhookUse};

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// The checked object works or may work, but needs attention.
    Warning,
    /// Calls will fail.
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

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check: `configuration`, `clock`, `node`, `store`, `database`, `fleet`, `public_url`, `certificate`, `webhook`,
    /// `oidc`, `token`, `waba`, `number`, `routing`, `media`, `speech` or `url`.
    pub check: &'static str,
    /// The checked object, if there are several.
    pub subject: Option<String>,
    pub state: State,
    /// The observation.
    pub what: String,
    /// The remedy. `None` if there is no problem.
    pub fix: Option<String>,
}

impl Finding {
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

/// Returns the worst state of some findings.
pub fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|line| line.state).max().unwrap_or(State::Ok)
}

/// Checks an installation.
pub struct Doctor {
    config: Config,
    /// The book from the configuration and the store, or from the configuration alone if the store
    /// can't be read.
    book: Book,
    /// Why the store could not be read. `Err(None)` if it does not exist yet.
    store: Result<(), Option<String>>,
    /// Routes to webhooks that no longer exist.
    dangling: Vec<WebhookUse>,
    graph: Graph,
    egress: Egress,
    fetcher: Fetcher,
    clock: Clock,
    /// Whether Meta is simulated.
    simulated: bool,
    /// Whether the node of this configuration runs. `None` if that can't be found out.
    runs: Option<bool>,
}

impl Doctor {
    /// Creates a doctor for this configuration.
    ///
    /// # Errors
    ///
    /// Returns an error message if the TLS library rejects its own defaults.
    pub async fn of(config: Config, clock: Clock) -> Result<Self, String> {
        let token = config.meta.access_token.clone().unwrap_or_else(|| Secret::new(""));
        let graph =
            Graph::new(GraphConfig::new(config.meta.graph_url.as_str(), token), clock.clone());
        let graph = graph.map_err(|e| e.to_string())?;
        // The node's own public URL may be anywhere; customers' URLs are requested under the node's
        // rules.
        let tls = |e: rustls::Error| format!("could not set up TLS: {e}");
        let egress = Egress::new(EgressConfig::new(Guard::new(true, Vec::new()))).map_err(tls)?;
        let guard = Guard::new(config.answer.allow_insecure, Vec::new());
        let strict = Egress::new(EgressConfig::new(guard)).map_err(tls)?;
        let fetcher = Fetcher::new(strict, clock.clone(), RandomSource::system());
        let (settings, dangling, store) = settings(&config).await;
        let (book, ..) = Book::read(config.admission(), settings, clock.wall());
        let simulated = config.meta.is_simulated();
        let runs = store::is_open(&config.store.database, &config.store.data_dir);
        Ok(Self { config, book, store, dangling, graph, egress, fetcher, clock, simulated, runs })
    }

    /// Runs all checks, in the order in which a call depends on them.
    pub async fn examine(&self) -> Vec<Finding> {
        let mut findings = self.local().await;
        findings.extend(self.fleet().await);
        findings.push(self.clock_line().await);
        findings.extend(self.readiness().await);
        findings.push(self.public_url().await);
        findings.extend(self.certificate_files());
        findings.extend(self.certificate().await);
        findings.extend(self.sign_in().await);
        findings.extend(self.webhooks().await);
        findings.extend(self.tokens().await);
        findings.extend(self.numbers().await);
        findings
    }
}

/// Returns the settings made at run time, and the routes to webhooks that no longer exist. The node
/// need not run.
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
        // The store of an earlier version may have no webhooks yet.
        Ok::<_, StoreError>((
            settings,
            archive.unknown_webhook_uses(&named).await.unwrap_or_default(),
        ))
    };
    match read.await {
        Ok((settings, dangling)) => (settings, dangling, Ok(())),
        Err(e) => (Vec::new(), Vec::new(), Err(Some(e.to_string()))),
    }
}

#[cfg(test)]
mod tests;
