//! Reloads the configuration while calls continue: on SIGHUP and through `POST /api/v1/reload/`.
//!
//! The new configuration is read and validated first; an invalid one changes nothing. A setting
//! that can change takes effect with the next call, webhook or request. Live calls keep the
//! settings they started with, and a lower limit ends none of them. Keys that need a restart are
//! reported.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::settings;
use crate::api::{ConfigFinding, ReloadOutcome, ReloadSummary};
use crate::speech_settings;
use engine::admission::book::Keeper;
use engine::call::Services;
use engine::cluster::Cluster;
use engine::config::{Config, ConfigError};
use engine::inbox::{Inbox, MissingWebhook};
use engine::people::People;
use engine::webhook::WebhookConfig;
use model::Clock;
use model::E164;
use speech::model_manager::ModelManager;
use tls::Tls;

/// Reads the configuration again, from the source given on the command line.
pub type Loader = Arc<dyn Fn() -> Result<Config, ConfigError> + Send + Sync>;

/// Numeric settings that are read at each use, so that a reload takes effect.
#[derive(Debug)]
pub(super) struct Tunables {
    drain_seconds: AtomicU64,
    event_log_days: AtomicU64,
    audit_days: AtomicU64,
    recording_days: AtomicU64,
    message_days: AtomicU64,
}

impl Tunables {
    pub(super) fn of(config: &Config) -> Self {
        let tunables = Self {
            drain_seconds: AtomicU64::new(0),
            event_log_days: AtomicU64::new(0),
            audit_days: AtomicU64::new(0),
            recording_days: AtomicU64::new(0),
            message_days: AtomicU64::new(0),
        };
        tunables.set(config);
        tunables
    }

    fn set(&self, config: &Config) {
        self.drain_seconds.store(config.limits.drain_seconds, Ordering::Relaxed);
        self.recording_days.store(u64::from(config.retention.recording_days), Ordering::Relaxed);
        self.message_days.store(u64::from(config.retention.message_days), Ordering::Relaxed);
        self.event_log_days.store(u64::from(config.retention.event_log_days), Ordering::Relaxed);
        self.audit_days.store(u64::from(config.retention.audit_days), Ordering::Relaxed);
    }

    /// `[limits].drain_seconds`.
    pub(super) fn drain_at_most(&self) -> Duration {
        Duration::from_secs(self.drain_seconds.load(Ordering::Relaxed))
    }

    /// `[retention].message_days`.
    pub(super) fn message_days(&self) -> u64 {
        self.message_days.load(Ordering::Relaxed)
    }

    /// `[retention].recording_days`.
    pub(super) fn recording_days(&self) -> u64 {
        self.recording_days.load(Ordering::Relaxed)
    }

    /// `[retention].event_log_days`.
    pub(super) fn event_log_days(&self) -> u64 {
        self.event_log_days.load(Ordering::Relaxed)
    }

    /// `[retention].audit_days`.
    pub(super) fn audit_days(&self) -> u64 {
        self.audit_days.load(Ordering::Relaxed)
    }
}

/// Services that a reload updates.
pub(super) struct Parts {
    pub(super) keeper: Keeper,
    pub(super) people: People,
    pub(super) clock: Clock,
    pub(super) services: Arc<Services>,
    pub(super) tunables: Arc<Tunables>,
    pub(super) inbox: Inbox,
    pub(super) models: ModelManager,
    /// The certificates of `listen.https`.
    pub(super) tls: Option<Tls>,
    /// The fleet, if the node is part of one.
    pub(super) cluster: Option<Arc<Cluster>>,
    /// Replaces the webhook's secrets.
    pub(super) set_webhook_secrets: Box<dyn Fn(&WebhookConfig) + Send + Sync>,
}

/// Reloads the configuration, one reload at a time. Cheap to clone.
#[derive(Clone)]
pub(super) struct Reloader(Arc<Inner>);

struct Inner {
    loader: Option<Loader>,
    parts: Parts,
    /// The configuration that the node was started with.
    started: Config,
    /// Whether the current configuration has several main accounts.
    shared: AtomicBool,
    one_at_a_time: Mutex<()>,
}

impl Reloader {
    pub(super) fn new(loader: Option<Loader>, parts: Parts, started: Config) -> Self {
        let shared = AtomicBool::new(is_shared(&started));
        Self(Arc::new(Inner { loader, parts, started, shared, one_at_a_time: Mutex::new(()) }))
    }

    /// Reloads at each SIGHUP.
    pub(super) async fn on_hangup(self, mut hangup: Signal, stop: CancellationToken) {
        while let Some(Some(())) = stop.run_until_cancelled(hangup.recv()).await {
            let this = self.clone();
            // `run` has logged the outcome.
            let _ = tokio::task::spawn_blocking(move || this.run()).await;
        }
    }

    /// Reads and applies the configuration. Blocks on files and the store.
    pub(super) fn run(&self) -> ReloadOutcome {
        let _turn = self.0.one_at_a_time.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(loader) = &self.0.loader else { return ReloadOutcome::NoFile };
        match loader() {
            Ok(config) => self.0.apply(&config),
            Err(ConfigError::Unreadable { file, source }) => {
                warn!(file = %file.display(), error = %source, "configuration not reloaded; nothing changed");
                refused(vec![ConfigFinding::new(
                    None,
                    format!("the configuration file could not be read: {source}"),
                    "",
                )])
            }
            Err(ConfigError::Invalid(problems)) => {
                for problem in &problems.0 {
                    warn!(%problem, "configuration not reloaded; nothing changed");
                }
                refused(
                    problems
                        .0
                        .iter()
                        .map(|p| ConfigFinding::new(p.position, p.message.clone(), &p.hint))
                        .collect(),
                )
            }
        }
    }
}

/// Whether the configuration has several main accounts. Subaccounts do not count.
fn is_shared(config: &Config) -> bool {
    config.accounts.iter().filter(|account| account.parent.is_none()).count() > 1
}

fn refused(findings: Vec<ConfigFinding>) -> ReloadOutcome {
    ReloadOutcome::Invalid(findings)
}

impl Reloader {
    /// Whether several main accounts share this node. Their owners may not reload it.
    pub(super) fn is_shared(&self) -> bool {
        self.0.shared.load(Ordering::Relaxed)
    }

    /// Reloads on behalf of an owner.
    pub(super) fn reload(&self) -> BoxFuture<'static, ReloadOutcome> {
        let this = self.clone();
        Box::pin(async move {
            if this.is_shared() {
                return ReloadOutcome::SharedNode;
            }
            let run = tokio::task::spawn_blocking(move || this.run());
            run.await.unwrap_or_else(|_| {
                refused(vec![ConfigFinding::new(None, "internal error; see the log", "")])
            })
        })
    }
}

impl Inner {
    /// Applies `[[user]]`. Blocks on the store. If the store is not writable, the users stay
    /// unchanged.
    fn people(&self, config: &Config) {
        let book = self.parts.keeper.book().clone();
        let taken = self
            .parts
            .people
            .sync_configured(&config.users, |account| book.main_of(account).clone());
        if let Err(error) = tokio::runtime::Handle::current().block_on(taken) {
            warn!(%error, "configured users not stored; reload again");
        }
    }

    /// Returns findings for webhooks that are in use but no longer in the file. `None` if there are
    /// none. Blocks on the store.
    fn dropped(&self, config: &Config) -> Option<Vec<ConfigFinding>> {
        let book = self.parts.keeper.book();
        let stays = |id: &E164| {
            config.numbers.iter().any(|number| number.number == *id)
                || book.any_number(id).is_some_and(|n| !n.in_file && !n.set.disconnected)
        };
        let look = self.parts.inbox.webhooks().missing(&config.webhooks, stays);
        let dropped = match tokio::runtime::Handle::current().block_on(look) {
            Ok(dropped) => dropped,
            Err(error) => {
                return Some(vec![ConfigFinding::new(None, error.to_string(), "")]);
            }
        };
        let finding = |dropped: &MissingWebhook| {
            let what =
                format!("[[webhook]] {:?} is missing, but {} use it", dropped.name, dropped.uses());
            let hint = "put it back, or route them elsewhere first: POST …/phone-numbers/{number}/subscribe/ with \
                applyToExisting, or connect-agent/; then reload";
            ConfigFinding::new(None, what, hint)
        };
        (!dropped.is_empty()).then(|| dropped.iter().map(finding).collect())
    }

    /// Loads the certificates of `[tls]`. `None` if the node has no HTTPS listener.
    fn certificates(&self, config: &Config) -> Result<Option<tls::Prepared>, tls::LoadError> {
        let settings = config.tls.clone().filter(|_| self.parts.tls.is_some());
        settings.map(tls::Prepared::load).transpose()
    }

    /// Applies a valid configuration. Steps that can fail are first.
    fn apply(&self, config: &Config) -> ReloadOutcome {
        let parts = &self.parts;
        if let Some(findings) = self.dropped(config) {
            for finding in &findings {
                warn!(why = finding.message, "configuration not reloaded; nothing changed");
            }
            return refused(findings);
        }
        let certificates = match self.certificates(config) {
            Ok(certificates) => certificates,
            Err(e) => {
                warn!(error = %e, "configuration not reloaded; nothing changed");
                let message = format!("the certificate could not be loaded: {e}");
                return refused(vec![ConfigFinding::new(None, message, "see [tls]")]);
            }
        };
        if let Err(e) = parts.keeper.reload(config.admission(), parts.clock.wall()) {
            warn!(error = %e, "configuration not reloaded; nothing changed");
            return refused(vec![ConfigFinding::new(None, e.to_string(), "")]);
        }
        if let Some(cluster) = &parts.cluster {
            cluster.set_numbers(config.numbers_digest());
        }
        if let (Some(tls), Some(certificates)) = (&parts.tls, certificates) {
            tls.apply(certificates);
        }
        if let Err(error) = parts.models.use_installed_now() {
            warn!(%error, "installed speech models not in use");
        }
        let transcribes = parts.services.recordings.can_transcribe();
        self.people(config);
        parts.services.settings.store(Arc::new(settings::call_settings(config, transcribes)));
        (parts.set_webhook_secrets)(&settings::webhook_config(config));
        parts.inbox.webhooks().replace_configured(&config.webhooks);
        // Until the new owners are stored, nothing that a former owner has set is used.
        if let Err(error) = tokio::runtime::Handle::current().block_on(parts.inbox.router().claim())
        {
            warn!(%error, "new owners of numbers not stored; reload again when the store is writable");
        }
        parts.tunables.set(config);
        self.shared.store(is_shared(config), Ordering::Relaxed);
        let needs_restart = config.needs_restart(&self.started);
        let reloaded = ReloadSummary {
            accounts: config.accounts.len(),
            wabas: config.wabas.len(),
            numbers: config.numbers.len(),
            needs_restart,
            warnings: speech_settings::warnings(config),
        };
        info!(
            accounts = reloaded.accounts,
            wabas = reloaded.wabas,
            numbers = reloaded.numbers,
            "configuration reloaded"
        );
        if !reloaded.needs_restart.is_empty() {
            warn!(keys = reloaded.needs_restart.join(", "), "changed keys need a restart");
        }
        reloaded.warnings.iter().for_each(|warning| warn!("{warning}"));
        ReloadOutcome::Applied(reloaded)
    }
}
