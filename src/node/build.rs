//! Builds the services of a node in dependency order and connects them.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::connections::Connections;
use super::fleet::{self, Forwarder};
use super::ledger::{self, StoredKeys};
use super::live::Live;
use super::open::{Base, Opened, open};
use super::operator::{Drain, ThisNode, node_load};
use super::peer_requests::PeerRequests;
use super::reload::{Loader, Parts, Reloader, Tunables};
use super::settings::{Bound, base_url, call_settings, host, https_url, webhook_config};
use super::shared_counts::SharedCounts;
use super::shared_feed;
use super::upgrade::{Predecessor, TakenOver};
use super::watch::Memory;
use super::{Node, StartError, changes, retention, routes};
use crate::api;
use crate::api::https::Https;
use crate::api::server::{Pause, ServerConfig};
use crate::console::{self, Console, DRAFT_PATH, Drafts, RequestLog, SignUpWindow};
use crate::phone::{PhoneListener, PhoneService};
use crate::speech_settings;
use egress::{Egress, EgressConfig, Guard};
use engine::admission::Pressure;
use engine::admission::permission::Consents;
use engine::admission::settings::NumberSettings;
use engine::agents::{Agents, AgentsParts, VoiceAgents, answer_messages};
use engine::alerts::{self, AlertParts};
use engine::answer::{AT_ONCE_PER_HOST, Fetcher, Notifier};
use engine::call::drafts::{self, WithDrafts};
use engine::call::handover::IncomingCall;
use engine::call::news::CallNews;
use engine::call::orphan::Orphans;
use engine::call::phones::Phones;
use engine::call::recordings::Copies;
use engine::call::registry::CallKey;
use engine::call::rooms::{RoomSnapshot, Rooms};
use engine::call::seats::Seats;
use engine::call::seats::host::RoomHosting;
use engine::call::walk::Walker;
use engine::call::{
    Dialer, Outbox, OutboxLimits, PermissionService, Recordings, RecordingsConfig, Registry,
    RejectThread, Services, farewell, orphan,
};
use engine::cluster::{Cluster, FleetClaims, LostNodes, NodeReaper};
use engine::config::Config;
use engine::disk_space::DiskSpace;
use engine::erasure::{Eraser, ErasureParts};
use engine::inbox::{Inbox, InboxParts};
use engine::limiter::{Failures, Offenders};
use engine::meta::{Graph, GraphConfig};
use engine::notices::Notices;
use engine::numbers::{self, Numbers};
use engine::objects::Bucket;
use engine::openid::Provider;
use engine::people::{People, UserSettings};
use engine::shared_settings::SharedSettings;
use engine::stream::Streams;
use engine::webhook::{self, WebhookHandler};
use media::{Media, Mixer};
use model::AuthId;
use model::Clock;
use model::Secret;
use sim::world;
use speech::config::SpeechConfig;
use speech::http::EndpointError;
use speech::library::Library;
use speech::model_manager::ModelManager;
use speech::recognise::Recognisers;
use store::{Database, Passwords};

/// Longest time that a sign-in waits for its turn after too many wrong passwords. It is shorter than
/// the usual timeouts of proxies.
const SIGN_IN_PATIENCE: Duration = Duration::from_secs(30);

impl Node {
    /// Starts a node. It serves requests when this returns.
    ///
    /// # Errors
    /// Returns an error if a listener or media port cannot be bound, the store cannot be opened, or
    /// a library cannot be initialised.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        Self::start_with(config, clock, None).await
    }

    /// Like [`Node::start`], for a node that can reload its configuration through `loader`, on
    /// SIGHUP or through the API.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_with(
        config: Config,
        clock: Clock,
        loader: Option<Loader>,
    ) -> Result<Self, StartError> {
        Self::start_after(None, config, clock, loader).await
    }

    /// Like [`Node::start_with`], but takes over from another process, if there is one.
    ///
    /// # Errors
    /// As [`Node::start`], or if the other process does not hand over.
    pub async fn start_after(
        predecessor: Option<&mut Predecessor>,
        config: Config,
        clock: Clock,
        loader: Option<Loader>,
    ) -> Result<Self, StartError> {
        // Installed first, so that a SIGHUP during start-up does not kill the process.
        let hangup = loader
            .is_some()
            .then(|| signal(SignalKind::hangup()))
            .transpose()
            .map_err(StartError::Signals)?;
        let (base, opened) = open(predecessor, config, clock).await?;
        base.start_services(opened, hangup, loader).await
    }
}

impl Base {
    /// Creates the services of a node, continues the calls of another process, and serves requests.
    async fn start_services(
        self,
        opened: Opened,
        hangup: Option<Signal>,
        loader: Option<Loader>,
    ) -> Result<Node, StartError> {
        let Opened { public, https, admin, listeners, admin_pause, .. } = opened;
        let Opened { serve_admin, tls, taken_over, is_moved, dropped, .. } = opened;
        let TakenOver { media, calls, queued, rooms: moved_rooms, phones: moved_phones, .. } =
            taken_over;
        let Self { config, own_id, node_id, clock, random, .. } = &self;
        let Self { health, metrics, feed, store, directory, keeper, gate, .. } = &self;
        let Self { place, guard, egress, tasks, stop_all, stop_public, .. } = &self;
        let bound = self.bound;
        let notifier =
            Notifier::new(egress.clone(), clock.clone(), random.clone(), AT_ONCE_PER_HOST);
        let outbox = Outbox::new(
            store.clone(),
            notifier.clone(),
            directory.clone(),
            clock.clone(),
            node_id.clone(),
            OutboxLimits::default(),
        );
        let connections = Connections::of_this_process();
        let graph = Arc::new(self.graph(connections.graph)?);
        let consents = Arc::new(Consents::load(store.clone()).await?);
        if let Some(cluster) = place.cluster() {
            consents.share(cluster.run());
        }
        let permissions = PermissionService::new(graph.clone(), consents.clone(), clock.clone());
        let (sounds, recognisers, models) = speech(config, clock, egress)?;
        let prompts = sounds.clone();
        #[cfg(feature = "otel")]
        let otel = super::otel::Export::start(clock, own_id).map_err(StartError::Otel)?;
        #[cfg(feature = "otel")]
        let traces = otel.as_ref().map(super::otel::Export::sink);
        #[cfg(not(feature = "otel"))]
        let traces = warn_without_traces();
        if let Some(sink) = &traces {
            outbox.export_traces(sink.clone());
        }
        let phones = Phones::new(feed.clone());
        let rooms = rooms(clock, &media, &sounds);
        let moved = moved_rooms.iter().map(RoomSnapshot::id).collect();
        rooms
            .recover_and_store(store, node_id, &moved, |account, url| outbox.queue(account, url))
            .await?;
        let claims = place.cluster().map(|cluster| Arc::new(cluster.claims()));
        let room_hosts = place
            .cluster()
            .zip(claims.clone())
            .map(|(cluster, claims)| Arc::new(cluster.rooms(claims)));
        let seats = room_hosts
            .clone()
            .map(|hosts| Seats::new(rooms.clone(), hosts, media.clone(), clock.clone()));
        let pressure = Pressure::new(health.clone(), clock.now());
        tokio::spawn(super::watch::watch(pressure.clone(), clock.clone(), stop_all.clone()));
        let space = self.disk_space();
        let recordings = self.recordings(&outbox, &recognisers, &space)?;
        let notices = Notices::new(store.clone(), feed.clone(), clock.clone());
        // The operator configures the model server and the receiver of alerts, so they may be at a
        // private address and use plain HTTP.
        let operator_egress = EgressConfig {
            clock: clock.clone(),
            ..EgressConfig::new(Guard::new(true, Vec::new()))
        };
        let operator_egress = Egress::new(operator_egress)?;
        let alerts = self.alerts(operator_egress.clone(), notices.clone());
        let agents = Agents::new(AgentsParts {
            store: store.clone(),
            directory: directory.clone(),
            notices: notices.clone(),
            egress: egress.clone(),
            model_egress: operator_egress,
            model: config.model.clone(),
            clock: clock.clone(),
        });
        let inbox = Inbox::new(InboxParts {
            store: store.clone(),
            outbox: outbox.clone(),
            directory: directory.clone(),
            graph: graph.clone(),
            notices: notices.clone(),
            feed: feed.clone(),
            clock: clock.clone(),
            node_id: node_id.clone(),
            base_url: base_url(config, bound),
            media: config.store.data_dir.join("messages"),
            space: space.clone(),
            consents: consents.clone(),
            tasks: tasks.clone(),
            stop: stop_public.clone(),
        });
        inbox.open(&config.webhooks).await?;
        let passwords = Passwords::default();
        let pause = Pause::default();
        let SignInLimits { offenders, failures, phone_failures } =
            SignInLimits::start(clock, &pause, stop_all);
        let people = self.people(&passwords, &failures).await?;
        let fetcher = Fetcher::new(egress.clone(), clock.clone(), random.clone());
        let walker = Walker {
            fetcher,
            notifier: notifier.clone(),
            clock: clock.clone(),
            random: random.clone(),
        };
        let own_drafts = drafts::Drafts::default();
        let services = Arc::new(Services {
            author: Arc::new(WithDrafts {
                drafts: own_drafts.clone(),
                others: Arc::new(VoiceAgents::new(agents.clone(), inbox.clone(), sounds.clone())),
            }),
            feed: feed.clone(),
            pressure: pressure.clone(),
            clock: clock.clone(),
            random: random.clone(),
            node_id: node_id.clone(),
            media: media.clone(),
            sounds,
            recognisers: recognisers.clone(),
            notifier,
            graph,
            rejects: RejectThread::start().map_err(StartError::Rejects)?,
            permissions: permissions.clone(),
            streams: Streams::new(egress.clone(), clock.clone(), random.clone(), tasks.clone()),
            fetcher: Fetcher::new(egress.clone(), clock.clone(), random.clone()),
            outbox: outbox.clone(),
            store: store.clone(),
            phones: phones.clone(),
            rooms: rooms.clone(),
            seats,
            recordings: recordings.clone(),
            notices,
            news: OnceLock::from(inbox.calls().clone() as Arc<dyn CallNews>),
            traces,
            settings: ArcSwap::from_pointee(call_settings(config, recordings.can_transcribe())),
            tasks: tasks.clone(),
        });
        let simulated = config.meta.is_simulated();
        if simulated && config.meta.simulated.is_none() {
            tracing::info!(
                graph_url = %config.meta.graph_url,
                "Meta is assumed to be simulated, since graph_url is on loopback; set meta.simulated to change it"
            );
        }
        // Work left by an earlier process is recovered first. Until then no call is accepted and
        // `/readyz` answers 503.
        let earlier = fleet::inherit(config, store, own_id, node_id).await?;
        let waiting = queued.iter().map(|queued| queued.setup.call);
        let kept = calls.iter().map(IncomingCall::call).chain(waiting).collect();
        let orphans = orphan::end_all(&services, node_id, &kept).await?;
        let recorded = calls.iter().flat_map(IncomingCall::recordings);
        let recorded = recorded.chain(moved_rooms.iter().filter_map(RoomSnapshot::recording));
        recordings.recover(&recorded.collect()).await?;
        store.calls().take_over_farewells(node_id);
        tokio::spawn(farewell::send_pending(services.clone(), directory.clone(), stop_all.clone()));
        let registry = Registry::new(services.clone(), gate.clone());
        let hosting = RoomHosting::new(services.clone(), directory.clone());
        let dialer = Dialer::new(services.clone(), registry.clone(), gate.clone());
        let reaper = NodeReaper {
            services: services.clone(),
            registry: registry.clone(),
            dialer: dialer.clone(),
            directory: directory.clone(),
            claims: claims.clone(),
        };
        fleet::settle_earlier(&earlier, &reaper).await?;
        tokio::spawn(orphan::keep_alive(services.clone(), registry.clone(), stop_all.clone()));
        let numbers = Numbers::new(numbers::Parts {
            keeper: keeper.clone(),
            graph: services.graph.clone(),
            clock: clock.clone(),
            feed: feed.clone(),
            notices: services.notices.clone(),
            guard: guard.clone(),
            fetcher: services.fetcher.clone(),
            sip_host: host(config, bound),
            tasks: tasks.clone(),
        });
        let (messages, known) = (inbox.clone(), directory.clone());
        numbers
            .routing()
            .set(Box::new(move |number| changes::routing_of(&messages, &known, number)));
        let refused = numbers.clone();
        services
            .graph
            .on_refused_token(Box::new(move |id, token| refused.events().token_refused(id, token)));
        let webhook_handler = self
            .webhook_handler(WebhookParts {
                registry: &registry,
                numbers: numbers.clone(),
                consents: &consents,
                inbox: &inbox,
                pressure,
                claims: claims.as_ref(),
                orphans,
            })
            .await?;
        let credentials = api::auth::Credentials::new(&[]);
        changes::forward(keeper, &consents, credentials.clone(), &inbox, directory);
        tokio::spawn(changes::end_overlaps(keeper.clone(), clock.clone(), stop_all.clone()));
        let tunables = Arc::new(Tunables::of(config));
        let secrets_of = webhook_handler.clone();
        let settings_of = Arc::downgrade(&services);
        models.on_change(move || {
            let Some(services) = settings_of.upgrade() else { return };
            let can_transcribe = services.recordings.can_transcribe();
            services.settings.rcu(|settings| {
                let mut settings = settings.as_ref().clone();
                settings.limits.can_transcribe = can_transcribe;
                settings
            });
        });
        let parts = Parts {
            keeper: keeper.clone(),
            people: people.clone(),
            clock: clock.clone(),
            services,
            tunables: tunables.clone(),
            tls: tls.clone(),
            set_webhook_secrets: Box::new(move |config| secrets_of.replace_secrets(config)),
            inbox: inbox.clone(),
            models: models.clone(),
            cluster: place.cluster().cloned(),
        };
        let reloader = Reloader::new(loader, parts, config.clone());
        let webhooks_of_peers = webhook_handler.clone();
        let webhook: api::server::WebhookHandler = Arc::new(move |request| {
            let webhook_handler = webhook_handler.clone();
            Box::pin(async move {
                webhook::handle(&webhook_handler, request).await.map(axum::body::Body::new)
            })
        });
        let facts = routes::Discovery {
            gate: gate.clone(),
            simulated_graph: simulated.then(|| config.meta.graph_url.to_string()),
        };
        tokio::spawn(dialer.clone().run(stop_all.clone()));
        let drain = Drain {
            health: health.clone(),
            gate: gate.clone(),
            dialer: dialer.clone(),
            phones: phones.clone(),
            cluster: place.cluster().cloned(),
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
            recordings: recordings.clone(),
            prompts,
            inbox: inbox.clone(),
            consents: consents.clone(),
            keeper: keeper.clone(),
            clock: clock.clone(),
        });
        tokio::spawn(eraser.clone().run(stop_all.clone()));
        tasks.spawn(answer_messages(agents.clone(), inbox.clone(), stop_public.clone()));
        let shared_settings = Arc::new(SharedSettings::new(
            keeper.clone(),
            people.clone(),
            inbox.clone(),
            store.clone(),
            clock.clone(),
            tls.clone(),
        ));
        let memory = Memory::of_this_process();
        let lost = place.cluster().map(|cluster| {
            Arc::new(LostNodes {
                cluster: cluster.clone(),
                recordings: recordings.clone(),
                reaper: reaper.clone(),
                clock: clock.clone(),
            })
        });
        let this_node = Arc::new(ThisNode {
            id: own_id.clone(),
            started: clock.wall(),
            reloader: reloader.clone(),
            drain: drain.clone(),
            registry: registry.clone(),
            metrics: metrics.clone(),
            cluster: place.cluster().cloned(),
            memory: memory.clone(),
            lost: lost.clone(),
        });
        let api_services = api::Api {
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
            host: host(config, bound),
            keeper: keeper.clone(),
            permissions,
            passwords: passwords.clone(),
            people: people.clone(),
            base_url: base_url(config, bound),
            phones: phones.clone(),
            rooms: rooms.clone(),
            models,
            recordings: recordings.clone(),
            agents,
            eraser,
            offenders: Some(offenders.clone()),
        };
        let apis = api::Apis::new(api_services);
        let (stop, audited) = (stop_public.clone(), apis.clone());
        tasks.spawn(async move {
            stop.cancelled().await;
            audited.flush_audit().await;
        });
        let phone_listener = PhoneListener::new(PhoneService {
            clock: clock.clone(),
            random: random.clone(),
            store: store.clone(),
            passwords,
            people: people.clone(),
            secure: base_url(config, bound).starts_with("https:"),
            gate: gate.clone(),
            registry: registry.clone(),
            phones: phones.clone(),
            drafts: own_drafts.clone(),
            recognisers: recognisers.clone(),
            sip_host: host(config, bound),
            offenders: offenders.clone(),
            failures: phone_failures.clone(),
            apis: apis.clone(),
            cluster: place.cluster().cloned(),
            pause: pause.clone(),
            stop: stop_public.clone(),
        });
        phone_listener.expect(moved_phones);
        let shared_counts = SharedCounts {
            people: failures,
            phones: phone_failures,
            apis: apis.clone(),
            clock: clock.clone(),
        };
        let console = self.console(&apis, own_drafts, walker)?;
        let router = apis.router().merge(console::router(console));
        let router = router.merge(routes::router(facts)).merge(routes::phones(&phone_listener));
        if is_moved {
            gate.resume(clock.now());
        }
        // Before the first request, also of another node, so that the calls are found and counted.
        registry.resume(calls, moved_rooms, &dropped);
        dialer.take_over(queued);
        if let Some(claims) = claims.as_ref().filter(|_| is_moved) {
            claims.unsettle_all(&registry);
        }
        let router = match (place.cluster(), claims, room_hosts) {
            (Some(cluster), Some(claims), Some(room_hosts)) => {
                let requests = PeerRequests {
                    cluster: cluster.clone(),
                    webhooks: webhooks_of_peers,
                    node: this_node,
                    inbox: inbox.clone(),
                    feed: feed.clone(),
                    live: live.clone(),
                    rooms: rooms.clone(),
                    hosting: hosting.clone(),
                    dialer: dialer.clone(),
                    phones: phone_listener.clone(),
                    counts: shared_counts.clone(),
                    settings: shared_settings.clone(),
                    pause: pause.clone(),
                    router: router.clone(),
                };
                let forwarder = Forwarder {
                    node_id: own_id.clone(),
                    cluster: cluster.clone(),
                    claims,
                    registry: registry.clone(),
                    dialer: dialer.clone(),
                    rooms,
                    room_hosts,
                    settings: shared_settings,
                    store: store.clone(),
                    announced: AtomicI64::new(0),
                };
                self.serve_peers(cluster, requests, reaper)?;
                if let Some(lost) = lost {
                    tokio::spawn(lost.run(stop_all.clone()));
                }
                fleet::with_forwarding(router, forwarder)
            }
            _ => router,
        };
        let listener = ServerConfig {
            webhook: Some(webhook),
            router,
            https: match (https.clone(), &tls) {
                (Some((listener, _)), Some(tls)) => Some(Https {
                    listener,
                    config: tls.server_config()?,
                    tls: tls.clone(),
                    base_url: https_url(config, bound),
                }),
                _ => None,
            },
            trusted_proxies: config.listen.trusted_proxies.clone(),
            proxies_only: config.listen.proxies_only,
            local_hosts_only: config.listen.local_hosts_only,
            offenders: Some(offenders),
            limits: connections.http,
            clock: clock.clone(),
            is_https: config.public.base_url.as_ref().is_some_and(|url| url.scheme() == "https"),
            has_metrics: true,
            pause: pause.clone(),
        };
        let serving = tokio::spawn(api::server::serve(public.0, listener, stop_public.clone()));
        if let Some(tls) = tls {
            tokio::spawn(tls.run(stop_all.clone()));
        }
        self.publish_gauges(&registry, memory);
        self.start_clean_up(&recordings, &inbox, people, consents, &tunables);
        tokio::spawn(recordings.clone().run_background_work(stop_all.clone()));
        let recorded = recordings.clone();
        let count = move || {
            let (recorded, inbox) = (recorded.clone(), inbox.clone());
            async move {
                let files = inbox.user_files().used_space().await?;
                Some(recorded.used_space().await?.into_iter().chain(files).collect())
            }
        };
        tokio::spawn(space.keep_counted(count, stop_all.clone()));
        tokio::spawn(recordings.clone().set_unlisted_aside(stop_all.clone()));
        outbox.start();
        tokio::spawn(numbers.reconciliation().run(stop_all.clone()));
        if let Some(hangup) = hangup {
            tokio::spawn(reloader.on_hangup(hangup, stop_all.clone()));
        }
        if let Some(cluster) = place.cluster() {
            fleet::wait_until_settled(cluster).await;
        }
        alerts::start(alerts, stop_all)?;
        speech_settings::warnings(config).iter().for_each(|warning| tracing::warn!("{warning}"));
        health.set_ready();
        if let Some(serve_admin) = serve_admin {
            tokio::spawn(serve_admin);
        }
        Ok(Node {
            public: public.1,
            https: https.map(|(_, at)| at),
            admin,
            registry,
            phones: phone_listener,
            drain,
            hosting,
            listeners,
            pause,
            admin_pause,
            serving: Some(serving),
            media,
            outbox,
            store: self.store,
            tasks: self.tasks,
            stop_public: self.stop_public,
            stop_all: self.stop_all,
            recordings,
            tunables,
            place: self.place,
            #[cfg(feature = "otel")]
            otel,
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

/// What the webhook handler is built from, besides a [`Base`].
struct WebhookParts<'a> {
    registry: &'a Registry,
    numbers: Numbers,
    consents: &'a Arc<Consents>,
    inbox: &'a Inbox,
    pressure: Arc<Pressure>,
    claims: Option<&'a Arc<FleetClaims>>,
    /// The calls that an earlier process left open.
    orphans: Orphans,
}

impl Base {
    fn base_url(&self) -> String {
        base_url(&self.config, self.bound)
    }

    /// The client of Meta's Graph API. `under_way_max` limits its concurrent requests further.
    fn graph(&self, under_way_max: Option<usize>) -> Result<Graph, StartError> {
        let meta = &self.config.meta;
        let token = meta.access_token.clone().unwrap_or_else(|| Secret::new(""));
        let mut config = GraphConfig::new(meta.graph_url.as_str(), token);
        if let Some(most) = under_way_max {
            config.under_way_max = config.under_way_max.min(most);
        }
        Ok(Graph::new(config, self.clock.clone())?)
    }

    fn disk_space(&self) -> Arc<DiskSpace> {
        let accounts = self.keeper.clone();
        DiskSpace::new(
            &self.config.store.data_dir,
            self.config.recordings.reserve,
            Box::new(move || accounts.book().has_several_main_accounts()),
            self.clock.clone(),
        )
    }

    fn recordings(
        &self,
        outbox: &Outbox,
        recognisers: &Recognisers,
        space: &Arc<DiskSpace>,
    ) -> Result<Recordings, StartError> {
        let config = RecordingsConfig {
            data_dir: self.config.store.data_dir.clone(),
            base_url: self.base_url(),
            node_id: self.node_id.clone(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            copies: recording_copies(&self.config, &self.clock)?,
            recognisers: recognisers.clone(),
            link_lifetime: self.config.recordings.link_lifetime,
            space: space.clone(),
        };
        let (store, outbox, clock) = (self.store.clone(), outbox.clone(), self.clock.clone());
        Recordings::start(config, store, outbox, clock, self.random.clone(), self.tasks.clone())
            .map_err(StartError::Recordings)
    }

    fn alerts(&self, egress: Egress, notices: Notices) -> AlertParts {
        let metrics = self.metrics.clone();
        AlertParts {
            settings: self.config.alerts.clone(),
            node: self.own_id.clone(),
            clock: self.clock.clone(),
            metrics: Box::new(move || metrics.render()),
            egress,
            notices,
            owner: only_account(&self.config),
            fired: self.config.store.data_dir.join("alerts.json"),
        }
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
        parts: WebhookParts<'_>,
    ) -> Result<Arc<WebhookHandler<Registry>>, StartError> {
        let WebhookParts { registry, numbers, consents, inbox, pressure, claims, orphans } = parts;
        let Self { store, clock, .. } = self;
        let config = webhook_config(&self.config);
        let handler =
            WebhookHandler::new(registry.clone(), self.gate.clone(), clock.clone(), &config)
                .with_ledger(Arc::new(StoredKeys(store.clone())))
                .with_consents(consents.clone())
                .with_inbox(inbox.clone())
                .with_pressure(pressure)
                .with_changes(Box::new(move |heard| numbers.events().enqueue(heard)));
        let handler = match claims {
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

    fn console(
        &self,
        apis: &api::Apis,
        own_drafts: drafts::Drafts,
        walker: Walker,
    ) -> Result<Console, StartError> {
        let config = &self.config;
        let (counted, refusing) = (self.metrics.clone(), self.gate.clone());
        let tallies = Box::new(move || counted.tallies().with_refused(&refusing));
        let request_log = RequestLog::new(tallies, self.store.clone(), self.clock.clone());
        self.tasks.spawn(request_log.clone().run(self.stop_public.clone()));
        let provider = config
            .oidc
            .clone()
            .map(|oidc| Provider::new(oidc, &self.base_url(), self.clock.clone()));
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
            own_drafts,
            sign_up: sign_up_window(config, simulated),
            first_account: first_account(config).cloned(),
            walker: Some(walker),
            streams: console::open_streams(),
            stop: self.stop_public.clone(),
        })
    }

    /// Serves the other nodes of the fleet, and keeps what they share up to date.
    fn serve_peers(
        &self,
        cluster: &Arc<Cluster>,
        requests: PeerRequests,
        reaper: NodeReaper,
    ) -> Result<(), StartError> {
        let (inbox, counts) = (requests.inbox.clone(), requests.counts.clone());
        let (rooms, settings) = (requests.rooms.clone(), requests.settings.clone());
        let stop = || self.stop_all.clone();
        rooms.list_others(Arc::new(fleet::RoomsOfOthers(cluster.clone())));
        cluster.peers().serve(Arc::new(requests))?;
        fleet::share_turns(&inbox, cluster.clone());
        tokio::spawn(shared_feed::share(cluster.clone(), self.feed.clone(), stop()));
        tokio::spawn(counts.share(cluster.clone(), stop()));
        cluster.watch(reaper);
        let clock = self.clock.clone();
        tokio::spawn(fleet::follow_settings(cluster.clone(), settings, clock, stop()));
        Ok(())
    }

    /// Updates the gauges of limits and load whenever the metrics are read.
    fn publish_gauges(&self, registry: &Registry, memory: Memory) {
        let (gate, health) = (self.gate.clone(), self.health.clone());
        let (cluster, registry) = (self.place.cluster().cloned(), registry.clone());
        self.metrics.refresh_with(move || {
            gate.publish_gauges();
            metrics::gauge!(model::metric::NODE_LOAD).set(node_load(&registry, &memory));
            if let Some(cluster) = &cluster {
                fleet::publish_gauges(cluster, health.is_draining());
            }
        });
    }

    /// Starts to delete what has expired.
    fn start_clean_up(
        &self,
        recordings: &Recordings,
        inbox: &Inbox,
        people: People,
        consents: Arc<Consents>,
        tunables: &Arc<Tunables>,
    ) {
        let stop = || self.stop_all.clone();
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let (recordings, inbox) = (recordings.clone(), inbox.clone());
        if let Database::Postgres(_) = self.config.store.database {
            let (store, own_id) = (store.clone(), self.own_id.clone());
            let (recordings, inbox) = (recordings.clone(), inbox.clone());
            tokio::spawn(retention::remove_files(store, recordings, inbox, own_id, stop()));
        }
        tokio::spawn(retention::delete_expired_sessions(people, stop()));
        let gate = self.gate.clone();
        tokio::spawn(retention::drop_blank_permissions(consents, gate, clock.clone(), stop()));
        let expiry = retention::delete_expired(store, recordings, inbox, clock, tunables.clone());
        let stop = self.stop_public.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(expiry).await });
    }
}

/// The bucket of `[recordings.s3]`, if one is configured.
fn recording_copies(config: &Config, clock: &Clock) -> Result<Option<Copies>, StartError> {
    let Some(s3) = &config.recordings.s3 else { return Ok(None) };
    Ok(Some(Copies::new(Bucket::new(s3, clock.clone())?, s3)))
}

fn rooms(clock: &Clock, media: &Arc<Media>, sounds: &Library) -> Rooms {
    let (media, sounds) = (media.clone(), sounds.clone());
    Rooms::new(
        clock.clone(),
        move |sink| Mixer::start(media.workers(), sink),
        move |main_account, sound| sounds.prompt_for(main_account, sound),
    )
}

/// Creates the prompt library, the speech recognisers and the manager of their models.
fn speech(
    config: &Config,
    clock: &Clock,
    egress: &Egress,
) -> Result<(Library, Recognisers, ModelManager), StartError> {
    let unusable = |e: EndpointError| StartError::Speech(e.to_string());
    let speech = speech_settings::read(config).map_err(|e| StartError::Speech(e.to_string()))?;
    let speech = SpeechConfig { free_memory: Some(Memory::free), ..speech };
    let recognisers = Recognisers::new(&speech).map_err(unusable)?;
    let runtime = tokio::runtime::Handle::current();
    let fetch = Arc::new(egress.clone());
    let library = Library::new(speech.clone(), clock.clone(), runtime, fetch).map_err(unusable)?;
    let source = std::env::var("PIP_INDEX_URL").ok().filter(|source| !source.is_empty());
    let models = ModelManager::new(speech, library.clone(), recognisers.clone(), source);
    Ok((library, recognisers, models))
}

/// The node's only main account, whose owner is its operator. `None` if several share the node.
fn only_account(config: &Config) -> Option<AuthId> {
    let mut main = config.accounts.iter().filter(|account| account.parent.is_none());
    let first = main.next()?;
    main.next().is_none().then(|| first.auth_id.clone())
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

/// Warns if the environment configures a collector, since this build exports no traces.
#[cfg(not(feature = "otel"))]
fn warn_without_traces() -> Option<engine::call::trace::Sink> {
    let collectors = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    for name in collectors
        .into_iter()
        .filter(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
    {
        warn!(
            "{name} is set, but this binary was built without the feature `otel` and exports no traces"
        );
    }
    None
}
