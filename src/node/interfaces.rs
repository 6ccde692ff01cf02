//! Builds what people, applications, other nodes and Meta reach a node through: APIs, console,
//! browser phones, and the handler of Meta's webhooks.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::call_parts::{CallParts, LiveCalls};
use super::ledger::{self, StoredKeys};
use super::live::Live;
use super::open::Base;
use super::operator::{Drain, ThisNode};
use super::reload::{Loader, Parts, Reloader, Tunables};
use super::settings::{Bound, base_url, host, webhook_config};
use super::shared_counts::SharedCounts;
use super::watch::Memory;
use super::{StartError, changes, routes};
use crate::api;
use crate::api::server::Pause;
use crate::console::{self, Console, DRAFT_PATH, Drafts, OpenStreams, RequestLog, SignUpWindow};
use crate::phone::{PhoneListener, PhoneService};
use engine::admission::settings::NumberSettings;
use engine::answer::Fetcher;
use engine::call::Registry;
use engine::call::orphan::Orphans;
use engine::call::registry::CallKey;
use engine::call::walk::Walker;
use engine::cluster::LostNodes;
use engine::config::Config;
use engine::erasure::{Eraser, ErasureParts};
use engine::limiter::{Failures, Offenders};
use engine::numbers::{self, Numbers};
use engine::openid::Provider;
use engine::people::{People, UserSettings};
use engine::shared_settings::SharedSettings;
use engine::webhook::WebhookHandler;
use model::{AuthId, Clock};
use sim::world;
use store::Passwords;
use tls::Tls;

/// Longest time that a sign-in waits for its turn after too many wrong passwords. It is shorter than
/// the usual timeouts of proxies.
const SIGN_IN_PATIENCE: Duration = Duration::from_secs(30);

/// What a node is reached through, and what it shares with the other nodes.
pub(super) struct Interfaces {
    /// The paths of the public listener, without the forwarding to other nodes.
    pub(super) router: Router,
    pub(super) webhooks: Arc<WebhookHandler<Registry>>,
    pub(super) phones: PhoneListener,
    pub(super) numbers: Numbers,
    pub(super) people: People,
    pub(super) reloader: Reloader,
    pub(super) tunables: Arc<Tunables>,
    pub(super) drain: Drain,
    pub(super) live: Arc<Live>,
    pub(super) this_node: Arc<ThisNode>,
    /// Takes over the recordings of nodes that do not come back. `None` outside a fleet.
    pub(super) lost: Option<Arc<LostNodes>>,
    pub(super) apis: api::Apis,
    pub(super) shared_counts: SharedCounts,
    pub(super) shared_settings: Arc<SharedSettings>,
    pub(super) offenders: Offenders,
    /// Pauses the public listener.
    pub(super) pause: Pause,
    pub(super) memory: Memory,
}

impl Base {
    /// Builds the interfaces. Requests are served once a listener serves their paths. `orphans` are
    /// the calls that an earlier process left open.
    pub(super) async fn interfaces(
        &self,
        parts: &CallParts,
        calls: &LiveCalls,
        orphans: Orphans,
        tls: Option<&Tls>,
        loader: Option<Loader>,
    ) -> Result<Interfaces, StartError> {
        let Self { config, bound, clock, random, health, metrics, .. } = self;
        let Self { feed, store, directory, keeper, gate, place, guard, .. } = self;
        let Self { tasks, stop_all, stop_public, .. } = self;
        let CallParts { services, consents, models, inbox, agents, .. } = parts;
        let LiveCalls { registry, dialer, reaper, .. } = calls;
        let passwords = Passwords::default();
        let pause = Pause::default();
        let SignInLimits { offenders, failures, phone_failures } =
            SignInLimits::start(clock, &pause, stop_all);
        let people = self.people(&passwords, &failures).await?;
        let numbers = self.numbers(parts);
        let webhooks = self.webhook_handler(parts, registry, numbers.clone(), orphans).await?;
        let credentials = api::auth::Credentials::new(&[]);
        changes::forward(keeper, consents, credentials.clone(), inbox, directory);
        tokio::spawn(changes::end_overlaps(keeper.clone(), clock.clone(), stop_all.clone()));
        let tunables = Arc::new(Tunables::of(config));
        let secrets_of = webhooks.clone();
        let reloaded = Parts {
            keeper: keeper.clone(),
            people: people.clone(),
            clock: clock.clone(),
            services: services.clone(),
            tunables: tunables.clone(),
            tls: tls.cloned(),
            set_webhook_secrets: Box::new(move |config| secrets_of.replace_secrets(config)),
            inbox: inbox.clone(),
            models: models.clone(),
            cluster: place.cluster().cloned(),
        };
        let reloader = Reloader::new(loader, reloaded, config.clone());
        let drain = Drain {
            health: health.clone(),
            gate: gate.clone(),
            dialer: dialer.clone(),
            phones: services.phones.clone(),
            cluster: place.cluster().cloned(),
            tasks: services.tasks.clone(),
        };
        let live = Arc::new(Live {
            registry: registry.clone(),
            dialer: dialer.clone(),
            gate: gate.clone(),
            guard: guard.clone(),
            clock: clock.clone(),
            cluster: place.cluster().cloned(),
        });
        let eraser = Eraser::new(ErasureParts {
            store: store.clone(),
            recordings: services.recordings.clone(),
            prompts: services.sounds.clone(),
            inbox: inbox.clone(),
            consents: consents.clone(),
            keeper: keeper.clone(),
            clock: clock.clone(),
        });
        tokio::spawn(eraser.clone().run(stop_all.clone()));
        let shared_settings = Arc::new(SharedSettings::new(
            keeper.clone(),
            people.clone(),
            inbox.clone(),
            store.clone(),
            clock.clone(),
            tls.cloned(),
        ));
        let memory = Memory::of_this_process();
        let lost = place.cluster().map(|cluster| {
            Arc::new(LostNodes {
                cluster: cluster.clone(),
                recordings: services.recordings.clone(),
                reaper: reaper.clone(),
                clock: clock.clone(),
            })
        });
        let this_node = Arc::new(ThisNode {
            id: self.own_id.clone(),
            started: clock.wall(),
            reloader: reloader.clone(),
            drain: drain.clone(),
            registry: registry.clone(),
            metrics: metrics.clone(),
            cluster: place.cluster().cloned(),
            memory: memory.clone(),
            lost: lost.clone(),
        });
        let apis = api::Apis::new(api::Api {
            clock: clock.clone(),
            feed: feed.clone(),
            numbers: numbers.clone(),
            inbox: inbox.clone(),
            credentials,
            store: store.clone(),
            live: live.clone(),
            placer: live.clone(),
            operator: this_node.clone(),
            gate: gate.clone(),
            host: host(config, *bound),
            keeper: keeper.clone(),
            permissions: services.permissions.clone(),
            passwords: passwords.clone(),
            people: people.clone(),
            base_url: base_url(config, *bound),
            phones: services.phones.clone(),
            rooms: services.rooms.clone(),
            models: models.clone(),
            recordings: services.recordings.clone(),
            space: parts.space.clone(),
            agents: agents.clone(),
            eraser,
            offenders: Some(offenders.clone()),
        });
        let (stop, audited) = (stop_public.clone(), apis.clone());
        tasks.spawn(async move {
            stop.cancelled().await;
            audited.flush_audit().await;
        });
        let phones = PhoneListener::new(PhoneService {
            clock: clock.clone(),
            random: random.clone(),
            store: store.clone(),
            passwords,
            people: people.clone(),
            secure: base_url(config, *bound).starts_with("https:"),
            gate: gate.clone(),
            registry: registry.clone(),
            phones: services.phones.clone(),
            drafts: parts.drafts.clone(),
            recognisers: services.recognisers.clone(),
            sip_host: host(config, *bound),
            offenders: offenders.clone(),
            failures: phone_failures.clone(),
            apis: apis.clone(),
            cluster: place.cluster().cloned(),
            pause: pause.clone(),
            stop: stop_public.clone(),
        });
        let console = self.console(&apis, parts)?;
        let discovery = routes::Discovery {
            gate: gate.clone(),
            simulated_graph: config.meta.is_simulated().then(|| config.meta.graph_url.to_string()),
        };
        let router = apis.router().merge(console::router(console));
        let router = router.merge(routes::router(discovery)).merge(routes::phones(&phones));
        let shared_counts = SharedCounts {
            people: failures,
            phones: phone_failures,
            apis: apis.clone(),
            clock: clock.clone(),
        };
        Ok(Interfaces {
            router,
            webhooks,
            phones,
            numbers,
            people,
            reloader,
            tunables,
            drain,
            live,
            this_node,
            lost,
            apis,
            shared_counts,
            shared_settings,
            offenders,
            pause,
            memory,
        })
    }

    /// The numbers, which know their routing, and hear of access tokens that Meta refuses.
    fn numbers(&self, parts: &CallParts) -> Numbers {
        let CallParts { services, inbox, .. } = parts;
        let numbers = Numbers::new(numbers::Parts {
            keeper: self.keeper.clone(),
            graph: services.graph.clone(),
            clock: self.clock.clone(),
            feed: self.feed.clone(),
            notices: services.notices.clone(),
            guard: self.guard.clone(),
            fetcher: services.fetcher.clone(),
            sip_host: host(&self.config, self.bound),
            tasks: self.tasks.clone(),
        });
        let (messages, known) = (inbox.clone(), self.directory.clone());
        numbers
            .routing()
            .set(Box::new(move |number| changes::routing_of(&messages, &known, number)));
        let refused = numbers.clone();
        services
            .graph
            .on_refused_token(Box::new(move |id, token| refused.events().token_refused(id, token)));
        numbers
    }

    /// The users, with those of the configuration. Logs the set-up link if no owner exists.
    async fn people(
        &self,
        passwords: &Passwords,
        failures: &Failures,
    ) -> Result<People, StartError> {
        let (store, clock, feed) = (self.store.clone(), self.clock.clone(), self.feed.clone());
        let people = People::new(store, passwords.clone(), clock, feed, failures.clone());
        people.load().await?;
        let main_of = |account: &AuthId| self.keeper.book().main_of(account).clone();
        // An unwritable store must not prevent calls. People who could sign in before still can.
        if let Err(error) = people.sync_configured(&self.config.users, main_of).await {
            warn!(%error, "configured users not stored; the stored ones stay in force until a reload");
        }
        begin_set_up(&people, &self.config, self.bound).await;
        Ok(people)
    }

    /// The handler of Meta's webhooks. It knows the calls and events of earlier processes.
    async fn webhook_handler(
        &self,
        parts: &CallParts,
        registry: &Registry,
        numbers: Numbers,
        orphans: Orphans,
    ) -> Result<Arc<WebhookHandler<Registry>>, StartError> {
        let Self { store, clock, .. } = self;
        let config = webhook_config(&self.config);
        let handler =
            WebhookHandler::new(registry.clone(), self.gate.clone(), clock.clone(), &config)
                .with_ledger(Arc::new(StoredKeys(store.clone())))
                .with_consents(parts.consents.clone())
                .with_inbox(parts.inbox.clone())
                .with_pressure(parts.services.pressure.clone())
                .with_changes(Box::new(move |event| numbers.events().enqueue(event)));
        let handler = match &parts.claims {
            None => handler,
            Some(claims) => {
                tokio::spawn(claims.clone().clean_up());
                if let Some(withdrawn) = store.take_withdrawn() {
                    tokio::spawn(claims.clone().settle(registry.clone(), withdrawn));
                }
                handler.with_others(claims.clone())
            }
        };
        for placed in orphans.placed {
            let number = self.directory.number(&placed.phone_number_id);
            registry.remember(placed, number.and_then(|number| number.spec.access_token.clone()));
        }
        let left = store.take_left_calls().into_iter();
        let left = left.map(|(phone_number_id, wacid)| CallKey { phone_number_id, wacid });
        orphans.named.into_iter().chain(left).for_each(|key| handler.remember(key));
        let older = ledger::load_recent(store, &handler, clock).await?;
        let handler = Arc::new(handler);
        let (store, clock, stop) = (store.clone(), clock.clone(), self.stop_all.clone());
        tokio::spawn(ledger::run(store, handler.clone(), clock, older, stop));
        Ok(handler)
    }

    fn console(&self, apis: &api::Apis, parts: &CallParts) -> Result<Console, StartError> {
        let Self { config, clock, random, egress, .. } = self;
        let (counted, refusing) = (self.metrics.clone(), self.gate.clone());
        let tallies = Box::new(move || counted.tallies().with_refused(&refusing));
        let request_log = RequestLog::new(tallies, self.store.clone(), self.clock.clone());
        self.tasks.spawn(request_log.clone().run(self.stop_public.clone()));
        let provider = config
            .oidc
            .clone()
            .map(|oidc| Provider::new(oidc, &base_url(config, self.bound), clock.clone()));
        let simulated = config.meta.is_simulated();
        Ok(Console {
            apis: apis.clone(),
            provider: provider.transpose()?,
            request_log,
            simulated_phone: simulated
                .then(|| routes::browser_phone(&config.meta.graph_url))
                .flatten(),
            guest: (config.meta.simulated == Some(true)).then(|| dev_user(config)).flatten(),
            drafts: simulated.then(|| simulated_drafts(config)).flatten(),
            own_drafts: parts.drafts.clone(),
            sign_up: sign_up_window(config, simulated),
            first_account: first_account(config).cloned(),
            walker: Some(Walker {
                fetcher: Fetcher::new(egress.clone(), clock.clone(), random.clone()),
                notifier: parts.services.notifier.clone(),
                clock: clock.clone(),
                random: random.clone(),
            }),
            streams: OpenStreams::default(),
            stop: self.stop_public.clone(),
        })
    }
}

/// The limits of wrong passwords.
struct SignInLimits {
    offenders: Offenders,
    failures: Failures,
    phone_failures: Failures,
}

impl SignInLimits {
    /// Starts to count failed sign-ins. While the listener is paused, a sign-in over the limit is
    /// refused at once instead of delayed, because the pause waits for the requests in progress.
    fn start(clock: &Clock, pause: &Pause, stop: &CancellationToken) -> Self {
        let offenders = Offenders::new(clock.clone());
        tokio::spawn(offenders.clone().run(stop.clone()));
        let failures = Failures::new(Some(offenders.clone()), SIGN_IN_PATIENCE);
        let phone_failures = Failures::new(Some(offenders.clone()), crate::phone::LOGIN_WITHIN);
        let waits = [failures.clone(), phone_failures.clone()];
        tokio::spawn(pause.clone().report(stop.clone(), move |is_running| {
            waits.iter().for_each(|failures| failures.set_patient(is_running));
        }));
        Self { offenders, failures, phone_failures }
    }
}

/// The first main account of the configuration. The set-up link creates an owner of it.
fn first_account(config: &Config) -> Option<&AuthId> {
    let first = config.accounts.iter().find(|account| account.parent.is_none());
    first.map(|account| &account.auth_id)
}

/// If no owner exists, logs the link for creating the first one. Calls are accepted without owners.
async fn begin_set_up(people: &People, config: &Config, bound: Bound) {
    let Some(account) = first_account(config) else { return };
    match people.begin_set_up(&config.cluster.own_id()).await {
        Ok(None) => {}
        Ok(Some(token)) => {
            let link = format!("{}{}{}", base_url(config, bound), console::SET_UP, token.reveal());
            warn!(
                link,
                %account,
                "no owner exists; the first one signs up with this link, once, within 24 hours"
            );
        }
        Err(error) => warn!(%error, "set-up link not stored; there is none until the next start"),
    }
}

/// The well-known name and password of the `offhook dev` user, if the configuration has it.
fn dev_user(config: &Config) -> Option<(String, String)> {
    let known = |user: &&UserSettings| {
        user.name == world::PERSON && user.password.reveal() == world::PASSWORD
    };
    config.users.iter().find(known).map(|user| (user.name.clone(), world::PASSWORD.to_owned()))
}

/// The playground number, if a number has the playground document as its answer URL.
fn simulated_drafts(config: &Config) -> Option<Drafts> {
    let is_draft = |number: &&NumberSettings| {
        number.answer_url.as_ref().is_some_and(|url| url.0.ends_with(DRAFT_PATH))
    };
    config.numbers.iter().find(is_draft).map(|number| Drafts { number: number.number.to_string() })
}

/// The address of Meta's Embedded Signup dialog, or of the simulated one. `None` if the app is not
/// configured for it.
fn sign_up_window(config: &Config, simulated: bool) -> Option<SignUpWindow> {
    let (app_id, config_id) = (config.meta.app_id.clone()?, config.meta.signup_config_id.clone());
    let graph = &config.meta.graph_url;
    let url = match (simulated, &config_id) {
        (true, _) => graph.join("/dialog/oauth").ok()?,
        (false, Some(_)) => {
            let version = graph.path().trim_matches('/');
            url::Url::parse(&format!("https://www.facebook.com/{version}/dialog/oauth")).ok()?
        }
        (false, None) => return None,
    };
    Some(SignUpWindow { url, app_id, config_id })
}
