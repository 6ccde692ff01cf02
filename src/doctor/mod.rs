//! Checks whether an installation can take real calls. Everything that a call needs is checked from
//! the outside, as Meta or a caller would use it. Each problem is reported with a remedy.
//!
//! `alerts` checks the receivers of alerts, `local` this machine, `fleet` the PostgreSQL server and the other nodes, `certificate`
//! the public URL's certificate and those of `[tls]`, `oidc` the sign-in provider, `meta` the Graph
//! API, `numbers` the numbers and their URLs. The checks change nothing: Graph and the store are
//! only read, URLs are requested once as a call would, and a file and an object that test write access are
//! removed again. `cli` prints the result.

mod alerts;
mod certificate;
mod fleet;
mod local;
mod meta;
mod numbers;
mod oidc;

pub(crate) use meta::describe;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use egress::{Egress, EgressConfig, Guard};
use engine::admission::book::Book;
use engine::answer::{Fetcher, RandomSource};
use engine::config::Config;
use engine::inbox::WebhookSettings;
use engine::meta::{Graph, GraphConfig};
use model::{Clock, E164, Secret};
use store::Database;
use store::{AgentSpec, Archive, SealedValues, Setting, StoreError, WebhookUse};

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
    /// The check: `configuration`, `clock`, `node`, `store`, `secret_key`, `alerts`, `database`, `fleet`, `public_url`, `certificate`, `webhook`,
    /// `oidc`, `token`, `waba`, `number`, `routing`, `media`, `recordings`, `speech`, `model` or `url`.
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
    /// The book in force, or as a start leaves it if the node does not run. It is from the
    /// configuration alone if the store can't be read.
    book: Book,
    /// The fields of numbers that a start or reload changes.
    overwritten: BTreeMap<E164, Vec<&'static str>>,
    /// Why the store could not be read. `Err(None)` if the file or the tables do not exist yet.
    store: Result<(), Option<String>>,
    /// Why this version can't work with the store: it has the schema of another version.
    unsupported: Option<String>,
    /// The damage of the store's file. `None` if none was found.
    damage: Option<String>,
    /// The values in the store that the configured key opens and does not open.
    sealed: Vec<SealedValues>,
    /// Routes to webhooks that no longer exist.
    dangling: Vec<WebhookUse>,
    /// The agents that answer calls.
    voice_agents: Vec<AgentSpec>,
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
        // A refusal is a finding.
        let graph = GraphConfig {
            logs_refusals: false,
            ..GraphConfig::new(config.meta.graph_url.as_str(), token)
        };
        let graph = Graph::new(graph, clock.clone()).map_err(|e| e.to_string())?;
        // The node's own public URL may be anywhere; customers' URLs are requested under the node's
        // rules.
        let tls = |e: rustls::Error| format!("could not set up TLS: {e}");
        let egress = Egress::new(EgressConfig::new(Guard::new(true, Vec::new()))).map_err(tls)?;
        let guard = Guard::new(config.answer.allow_insecure, Vec::new());
        let strict = Egress::new(EgressConfig::new(guard)).map_err(tls)?;
        let fetcher = Fetcher::new(strict, clock.clone(), RandomSource::system());
        let (contents, store) = match contents(&config).await {
            Ok(contents) => (contents, Ok(())),
            Err(why) => (Contents::default(), Err(why)),
        };
        let Contents { settings, unsupported, damage, sealed, dangling, voice_agents } = contents;
        let simulated = config.meta.is_simulated();
        let runs = store::is_open(&config.store.database, &config.store.data_dir);
        let (at_start, ..) = Book::read(config.admission(), settings.clone(), clock.wall());
        let (book, overwritten) = if runs != Some(false) {
            let in_force = Book::read_changed(config.admission(), settings, clock.wall());
            let overwritten = overwritten(&at_start, &in_force);
            (in_force, overwritten)
        } else {
            (at_start, BTreeMap::new())
        };
        let mut doctor = Self {
            config,
            book,
            overwritten,
            store,
            unsupported,
            damage,
            sealed,
            dangling,
            voice_agents,
            graph,
            egress,
            fetcher,
            clock,
            simulated,
            runs,
        };
        // A node that waits for its database at the start has its ports and not its store.
        if runs == Some(false) && doctor.is_starting().await {
            doctor.runs = None;
        }
        Ok(doctor)
    }

    /// Runs all checks, in the order in which a call depends on them.
    pub async fn examine(&self) -> Vec<Finding> {
        let mut findings = self.local().await;
        findings.extend(self.fleet().await);
        findings.extend(self.alerts().await);
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

/// Returns the fields of each number that a start or reload changes to the file's values.
fn overwritten(at_start: &Book, in_force: &Book) -> BTreeMap<E164, Vec<&'static str>> {
    let numbers = at_start.all_numbers().filter_map(|number| {
        let now = in_force.any_number(&number.number)?;
        Some((number.number.clone(), number.set.overwrites(&now.set)))
    });
    numbers.filter(|(_, fields)| !fields.is_empty()).collect()
}

/// Limit of the search for damage in the store's file.
const DAMAGE_WITHIN: Duration = Duration::from_secs(5);

/// What the store holds.
#[derive(Default)]
struct Contents {
    /// The settings made at run time.
    settings: Vec<Setting>,
    unsupported: Option<String>,
    damage: Option<String>,
    sealed: Vec<SealedValues>,
    dangling: Vec<WebhookUse>,
    voice_agents: Vec<AgentSpec>,
}

/// Reads the store. The node need not run. `Err(None)` if the file or the tables do not exist.
async fn contents(config: &Config) -> Result<Contents, Option<String>> {
    let at = &config.store.database;
    if let Database::File(file) = at
        && !file.exists()
    {
        return Err(None);
    }
    let (key, folder) = (config.store.secret_key.as_ref(), &config.store.data_dir);
    let read = async {
        let archive = Archive::open(at).await?;
        let damage = archive.damage(DAMAGE_WITHIN).await?;
        let settings = archive.settings(key, folder).await?;
        let named: Vec<_> = config.webhooks.iter().map(WebhookSettings::id).collect();
        // The store of an earlier version may lack the tables of the last ones.
        Ok::<_, StoreError>(Contents {
            settings,
            unsupported: store::check_schema(at).await.err().map(|error| error.to_string()),
            damage,
            sealed: archive.sealed_values(key, folder).await.unwrap_or_default(),
            dangling: archive.unknown_webhook_uses(&named).await.unwrap_or_default(),
            voice_agents: archive.voice_agents().await.unwrap_or_default(),
        })
    };
    read.await.map_err(|e| match e {
        StoreError::Empty { .. } => None,
        other => Some(other.to_string()),
    })
}

#[cfg(test)]
mod tests;
