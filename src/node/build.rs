//! Builds the services of a node in dependency order and connects them.

use std::net::UdpSocket;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::connections::Connections;
use super::fleet::{self, Forwarder, Place};
use super::ledger::{self, StoredKeys};
use super::live::Live;
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
use crate::observe::{self, Metrics};
use crate::phone::{PhoneListener, PhoneService};
use crate::{public_address, speech_settings};
use egress::{Egress, EgressConfig, Guard, warm_up};
use engine::admission::book::Keeper;
use engine::admission::permission::Consents;
use engine::admission::settings::NumberSettings;
use engine::admission::{Directory, Gate, Pressure};
use engine::agents::{Agents, AgentsParts, VoiceAgents, answer_messages};
use engine::alerts::{self, AlertParts};
use engine::answer::{AT_ONCE_PER_HOST, Fetcher, Notifier, RandomSource};
use engine::call::drafts::{self, WithDrafts};
use engine::call::handover::IncomingCall;
use engine::call::news::CallNews;
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
use engine::cluster::{LostNodes, NodeReaper};
use engine::config::Config;
use engine::disk_space::DiskSpace;
use engine::erasure::{Eraser, ErasureParts};
use engine::feed::Feed;
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
use media::turn::TurnServer;
use media::{Media, MediaConfig, Mixer};
use model::AuthId;
use model::Clock;
use model::Health;
use model::Secret;
use sim::world;
use speech::config::SpeechConfig;
use speech::http::EndpointError;
use speech::library::Library;
use speech::model_manager::ModelManager;
use speech::recognise::Recognisers;
use store::{Database, NodeLock, Passwords, Store, StoreOptions};
use tls::Tls;

/// Timeout after which the media of a leg that receives no packets counts as dead.
const MEDIA_DEAD: Duration = Duration::from_secs(30);
/// Longest time that a sign-in waits for its turn after too many wrong passwords. It is shorter than
/// the usual timeouts of proxies.
const SIGN_IN_PATIENCE: Duration = Duration::from_secs(30);
/// How long a start waits for a database server that does not answer.
const DATABASE_PATIENCE: Duration = Duration::from_secs(60);
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
        mut predecessor: Option<&mut Predecessor>,
        mut config: Config,
        clock: Clock,
        loader: Option<Loader>,
    ) -> Result<Self, StartError> {
        // Installed first, so that a SIGHUP during start-up does not kill the process.
        let hangup = loader
            .is_some()
            .then(|| signal(SignalKind::hangup()))
            .transpose()
            .map_err(StartError::Signals)?;
        // Runs beside the opening of the store: the two take most of the start-up time.
        tokio::task::spawn_blocking(warm_up);
        public_address::resolve(&mut config).await?;
        // Before all services: they register their metric handles when they are created.
        let metrics = Metrics::install().map_err(StartError::Metrics)?;
        let health = Health::new();
        let mut inherited =
            predecessor.as_mut().map(|other| other.take_sockets()).unwrap_or_default();
        let (public_listener, public) =
            inherited.listen(config.listen.public).map_err(no_listener("listen.public"))?;
        let (https_listener, https) = match config.listen.https {
            Some(at) => inherited.listen(at).map(Some).map_err(no_listener("listen.https"))?,
            None => None,
        }
        .unzip();
        let certificates = load_certificates(&config).await?;
        let (admin_listener, admin) =
            inherited.listen(config.listen.admin).map_err(no_listener("listen.admin"))?;
        let own_id = config.cluster.own_id();
        let turn = public_address::turn_server(&config).await.map_err(StartError::Turn)?;
        // Before the other process gives anything up.
        let peer_listener = match (&predecessor, &config.cluster.peer) {
            (Some(_), Some(peer)) => {
                let listener = inherited.listener_at(peer).await;
                Some(listener.map_err(|error| {
                    no_listener("cluster.peer")(format!("could not listen on {peer}: {error}"))
                })?)
            }
            _ => None,
        };
        let start_media = |sockets| media(&config, &clock, turn.clone(), sockets);
        // The media of the calls goes on before the store can be opened.
        let taken_over = match predecessor {
            Some(other) => {
                let member = config.cluster.peer.as_ref().map(|_| own_id.as_str());
                Some(other.take_over(&config.store.database, member, &clock, start_media).await?)
            }
            None => None,
        };
        let listeners = [Some(&public_listener), https_listener.as_ref(), Some(&admin_listener)];
        let listeners = listeners.into_iter().flatten().map(Arc::downgrade).collect();
        let (pause, admin_pause) = (Pause::default(), Pause::default());
        let bound = Bound { public, https };
        let stop_all = CancellationToken::new();
        let stop_public = stop_all.child_token();
        let tasks = TaskTracker::new();
        tokio::spawn(metrics.clone().upkeep(stop_all.clone()));
        let admin_pages = observe::exporter::router(metrics.clone(), health.clone());
        let admin_config = ServerConfig {
            pause: admin_pause.clone(),
            ..ServerConfig::admin(admin_pages, config.listen.local_hosts_only, clock.clone())
        };
        let serve_admin =
            Box::pin(api::server::serve(admin_listener, admin_config, stop_all.clone()));
        // The other process was ready: connections wait until this one is, too.
        let serve_admin_later = match taken_over {
            Some(_) => Some(serve_admin),
            None => {
                tokio::spawn(serve_admin);
                None
            }
        };

        let random = RandomSource::system();
        let options = StoreOptions::with_journal_in(&config.store.data_dir);
        let options = StoreOptions { secret_key: config.store.secret_key.clone(), ..options };
        let feed = Feed::since(clock.wall());
        // The other process of an upgrade has just used it.
        if taken_over.is_none() {
            store::wait_until_reachable(&config.store.database, DATABASE_PATIENCE).await;
        }
        // Before any read: otherwise the open calls of another running process with this node id
        // would be taken for orphans of a crash.
        let lock = match config.cluster.peer {
            None => Some(NodeLock::acquire(&config.store.database, &own_id).await?),
            // Its row in the fleet takes the place of the lock.
            Some(_) => None,
        };
        if let Some(warning) = config.store.unused_file() {
            warn!("{warning}");
        }
        let store =
            Store::open_with(config.store.database.clone(), options, health.clone()).await?;
        fleet::refuse_beside_fleet(&config, &store, &clock).await?;
        let tls = match certificates {
            Some(loaded) => {
                Some(Tls::open(loaded, store.clone(), clock.clone(), own_id.clone()).await)
            }
            None => None,
        };
        let directory = Arc::new(match lock {
            Some(_) => Directory::new(config.limits.default_cps),
            None => Directory::shared(config.limits.default_cps),
        });
        let keeper =
            Keeper::open(store.clone(), directory.clone(), config.admission(), clock.wall())
                .await?;
        let gate = Arc::new(Gate::new(directory.clone(), clock.now()));
        let is_moved = taken_over.is_some();
        let TakenOver {
            media,
            calls,
            queued,
            rooms: moved_rooms,
            phones: moved_phones,
            node: moved,
        } = match taken_over {
            Some(taken_over) => taken_over,
            None => TakenOver::nothing(start_media(Vec::new())?),
        };
        let is_known = |call: &IncomingCall| call.is_configured(&directory);
        let (mut calls, mut dropped): (Vec<_>, Vec<_>) = calls.into_iter().partition(is_known);
        // Their records are closed like those of a process that was killed.
        for call in &mut dropped {
            warn!(call_uuid = %call.call(), "call ended: its number or account is not configured any more");
            drop(call.leg.take());
        }
        calls.iter_mut().for_each(|call| call.hold_slot(&directory));
        gate.spend_permits(&moved.permits, clock.now());
        let place = match (lock, &config.cluster.peer) {
            (None, Some(peer)) => {
                let moved = (moved.member, peer_listener);
                let cluster =
                    fleet::join(&config, peer, &own_id, &store, &clock, &gate, moved).await?;
                Place::Member(Arc::new(cluster))
            }
            (lock, _) => Place::Alone(lock),
        };
        if let Some(cluster) = place.cluster() {
            tokio::spawn(fleet::exit_if_dead(cluster.clone(), stop_all.clone()));
            tokio::spawn(fleet::follow_contact(cluster.clone(), health.clone(), stop_all.clone()));
        }
        let node_id = place.owner(&own_id);
        let guard = Guard::new(
            config.answer.allow_insecure,
            [public, admin].into_iter().chain(https).collect(),
        );
        let egress =
            Egress::new(EgressConfig { clock: clock.clone(), ..EgressConfig::new(guard.clone()) })?;
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
        let token = config.meta.access_token.clone().unwrap_or_else(|| Secret::new(""));
        let connections = Connections::of_this_process();
        let mut graph_config = GraphConfig::new(config.meta.graph_url.as_str(), token);
        graph_config.under_way_max = connections
            .graph
            .map_or(graph_config.under_way_max, |most| most.min(graph_config.under_way_max));
        let graph = Arc::new(Graph::new(graph_config, clock.clone())?);
        let consents = Arc::new(Consents::load(store.clone()).await?);
        if let Some(cluster) = place.cluster() {
            consents.share(cluster.run());
        }
        let permissions = PermissionService::new(graph.clone(), consents.clone(), clock.clone());
        let (sounds, recognisers, models) = speech(&config, &clock, &egress)?;
        let prompts = sounds.clone();
        #[cfg(feature = "otel")]
        let otel = super::otel::Export::start(&clock, &own_id).map_err(StartError::Otel)?;
        #[cfg(feature = "otel")]
        let traces = otel.as_ref().map(super::otel::Export::sink);
        #[cfg(not(feature = "otel"))]
        let traces = warn_without_traces();
        if let Some(sink) = &traces {
            outbox.export_traces(sink.clone());
        }
        let phones = Phones::new(feed.clone());
        let rooms = rooms(&clock, &media, &sounds);
        let moved = moved_rooms.iter().map(RoomSnapshot::id).collect();
        rooms
            .recover_and_store(&store, &node_id, &moved, |account, url| outbox.queue(account, url))
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
        let accounts = keeper.clone();
        let space = DiskSpace::new(
            &config.store.data_dir,
            config.recordings.reserve,
            Box::new(move || accounts.book().has_several_main_accounts()),
            clock.clone(),
        );
        let recordings_config = RecordingsConfig {
            data_dir: config.store.data_dir.clone(),
            base_url: base_url(&config, bound),
            node_id: node_id.clone(),
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            copies: recording_copies(&config, &clock)?,
            recognisers: recognisers.clone(),
            link_lifetime: config.recordings.link_lifetime,
            space: space.clone(),
        };
        let recordings = Recordings::start(
            recordings_config,
            store.clone(),
            outbox.clone(),
            clock.clone(),
            random.clone(),
            tasks.clone(),
        )
        .map_err(StartError::Recordings)?;
        let notices = Notices::new(store.clone(), feed.clone(), clock.clone());
        // The operator configures the model server and the receiver of alerts, so they may be at a
        // private address and use plain HTTP.
        let operator_egress = EgressConfig {
            clock: clock.clone(),
            ..EgressConfig::new(Guard::new(true, Vec::new()))
        };
        let operator_egress = Egress::new(operator_egress)?;
        let counted = metrics.clone();
        let alerts = AlertParts {
            settings: config.alerts.clone(),
            node: own_id.clone(),
            clock: clock.clone(),
            metrics: Box::new(move || counted.render()),
            egress: operator_egress.clone(),
            notices: notices.clone(),
            owner: only_account(&config),
            fired: config.store.data_dir.join("alerts.json"),
        };
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
            base_url: base_url(&config, bound),
            media: config.store.data_dir.join("messages"),
            space: space.clone(),
            consents: consents.clone(),
            tasks: tasks.clone(),
        });
        inbox.open(&config.webhooks).await?;
        let passwords = Passwords::default();
        let offenders = Offenders::new(clock.clone());
        tokio::spawn(offenders.clone().run(stop_all.clone()));
        let failures = Failures::new(Some(offenders.clone()), SIGN_IN_PATIENCE);
        let phone_failures = Failures::new(Some(offenders.clone()), crate::phone::LOGIN_WITHIN);
        // A pause waits for the requests in progress.
        let waits = [failures.clone(), phone_failures.clone()];
        let report = pause.clone().report(stop_all.clone(), move |is_running| {
            waits.iter().for_each(|failures| failures.set_patient(is_running));
        });
        tokio::spawn(report);
        let people = People::new(
            store.clone(),
            passwords.clone(),
            clock.clone(),
            feed.clone(),
            failures.clone(),
        );
        people.load().await?;
        // An unwritable store must not prevent calls. People who could sign in before still can.
        let stored = people
            .sync_configured(&config.users, |account| keeper.book().main_of(account).clone())
            .await;
        if let Err(error) = stored {
            warn!(%error, "configured users not stored; the stored ones stay in force until a reload");
        }
        begin_set_up(&people, &config, bound).await;
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
            node_id,
            media: media.clone(),
            sounds,
            recognisers: recognisers.clone(),
            notifier,
            graph,
            rejects: RejectThread::start().map_err(StartError::Rejects)?,
            permissions: permissions.clone(),
            streams: Streams::new(egress.clone(), clock.clone(), random.clone(), tasks.clone()),
            fetcher: Fetcher::new(egress, clock.clone(), random),
            outbox: outbox.clone(),
            store: store.clone(),
            phones: phones.clone(),
            rooms: rooms.clone(),
            seats,
            recordings: recordings.clone(),
            notices,
            news: OnceLock::from(inbox.calls().clone() as Arc<dyn CallNews>),
            traces,
            settings: ArcSwap::from_pointee(call_settings(&config, recordings.can_transcribe())),
            tasks: tasks.clone(),
        });
        let phone_dice = services.random.clone();
        let simulated = config.meta.is_simulated();
        if simulated && config.meta.simulated.is_none() {
            tracing::info!(
                graph_url = %config.meta.graph_url,
                "Meta is assumed to be simulated, since graph_url is on loopback; set meta.simulated to change it"
            );
        }
        // Work left by an earlier process is recovered first. Until then no call is accepted and
        // `/readyz` answers 503.
        let earlier = fleet::inherit(&config, &store, &own_id, &services.node_id).await?;
        let waiting = queued.iter().map(|queued| queued.setup.call);
        let kept = calls.iter().map(IncomingCall::call).chain(waiting).collect();
        let orphans = orphan::end_all(&services, &services.node_id, &kept).await?;
        let recorded = calls.iter().flat_map(IncomingCall::recordings);
        let recorded = recorded.chain(moved_rooms.iter().filter_map(RoomSnapshot::recording));
        recordings.recover(&recorded.collect()).await?;
        store.calls().take_over_farewells(&services.node_id);
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
            sip_host: host(&config, bound),
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
        let hearing = numbers.clone();
        let webhook_handler = WebhookHandler::new(
            registry.clone(),
            gate.clone(),
            clock.clone(),
            &webhook_config(&config),
        )
        .with_ledger(Arc::new(StoredKeys(store.clone())))
        .with_consents(consents.clone())
        .with_inbox(inbox.clone())
        .with_pressure(pressure)
        .with_changes(Box::new(move |heard| hearing.events().enqueue(heard)));
        let webhook_handler = match &claims {
            None => webhook_handler,
            Some(claims) => {
                tokio::spawn(claims.clone().clean_up());
                if let Some(withdrawn) = store.take_withdrawn() {
                    tokio::spawn(claims.clone().settle(registry.clone(), withdrawn));
                }
                webhook_handler.with_others(claims.clone())
            }
        };
        for placed in orphans.placed {
            let number = directory.number(&placed.phone_number_id);
            registry.remember(placed, number.and_then(|number| number.spec.access_token.clone()));
        }
        let left = store.take_left_calls().into_iter();
        let left = left.map(|(phone_number_id, wacid)| CallKey { phone_number_id, wacid });
        for key in orphans.named.into_iter().chain(left) {
            webhook_handler.remember(key);
        }
        let older = ledger::load_recent(&store, &webhook_handler, &clock).await?;
        let webhook_handler = Arc::new(webhook_handler);
        tokio::spawn(ledger::run(
            store.clone(),
            webhook_handler.clone(),
            clock.clone(),
            older,
            stop_all.clone(),
        ));
        let credentials = api::auth::Credentials::new(&[]);
        changes::forward(&keeper, &consents, credentials.clone(), &inbox, &directory);
        tokio::spawn(changes::end_overlaps(keeper.clone(), clock.clone(), stop_all.clone()));
        let tunables = Arc::new(Tunables::of(&config));
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
            guard,
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
        let room_handle = rooms.clone();
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
            host: host(&config, bound),
            keeper,
            permissions,
            passwords: passwords.clone(),
            people: people.clone(),
            base_url: base_url(&config, bound),
            phones: phones.clone(),
            rooms,
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
            random: phone_dice,
            store: store.clone(),
            passwords,
            people: people.clone(),
            secure: base_url(&config, bound).starts_with("https:"),
            gate: gate.clone(),
            registry: registry.clone(),
            phones: phones.clone(),
            drafts: own_drafts.clone(),
            recognisers: recognisers.clone(),
            sip_host: host(&config, bound),
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
        let (counted, refusing) = (metrics.clone(), gate.clone());
        let tallies = move || counted.tallies().with_refused(&refusing);
        let request_log = RequestLog::new(Box::new(tallies), store.clone(), clock.clone());
        tasks.spawn(request_log.clone().run(stop_public.clone()));
        let provider = config
            .oidc
            .clone()
            .map(|oidc| Provider::new(oidc, &base_url(&config, bound), clock.clone()));
        let console = Console {
            apis: apis.clone(),
            provider: provider.transpose()?,
            request_log,
            simulated_phone: simulated
                .then(|| routes::browser_phone(&config.meta.graph_url))
                .flatten(),
            guest: (config.meta.simulated == Some(true)).then(|| dev_user(&config)).flatten(),
            drafts: simulated.then(|| simulated_drafts(&config)).flatten(),
            own_drafts,
            sign_up: sign_up_window(&config, simulated),
            first_account: first_account(&config).cloned(),
            walker: Some(walker),
            streams: console::open_streams(),
            stop: stop_public.clone(),
        };
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
                let (cluster, registry) = (cluster.clone(), registry.clone());
                let requests = PeerRequests {
                    cluster: cluster.clone(),
                    webhooks: webhooks_of_peers,
                    node: this_node,
                    inbox: inbox.clone(),
                    feed: feed.clone(),
                    live: live.clone(),
                    rooms: room_handle.clone(),
                    hosting: hosting.clone(),
                    dialer: dialer.clone(),
                    phones: phone_listener.clone(),
                    counts: shared_counts.clone(),
                    settings: shared_settings.clone(),
                    pause: pause.clone(),
                    router: router.clone(),
                };
                room_handle.list_others(Arc::new(fleet::RoomsOfOthers(cluster.clone())));
                cluster.peers().serve(Arc::new(requests))?;
                fleet::share_turns(&inbox, cluster.clone());
                tokio::spawn(shared_feed::share(cluster.clone(), feed, stop_all.clone()));
                tokio::spawn(shared_counts.share(cluster.clone(), stop_all.clone()));
                cluster.watch(reaper);
                if let Some(lost) = lost {
                    tokio::spawn(lost.run(stop_all.clone()));
                }
                let stop = stop_all.clone();
                tokio::spawn(fleet::follow_settings(
                    cluster.clone(),
                    shared_settings.clone(),
                    clock.clone(),
                    stop,
                ));
                let dialer = dialer.clone();
                let node_id = own_id.clone();
                let forwarder = Forwarder {
                    node_id,
                    cluster,
                    claims,
                    registry,
                    dialer,
                    rooms: room_handle,
                    room_hosts,
                    settings: shared_settings,
                    store: store.clone(),
                    announced: AtomicI64::new(0),
                };
                fleet::with_forwarding(router, forwarder)
            }
            _ => router,
        };
        let listener = ServerConfig {
            webhook: Some(webhook),
            router,
            https: match (https_listener, &tls) {
                (Some(listener), Some(tls)) => Some(Https {
                    listener,
                    config: tls.server_config()?,
                    tls: tls.clone(),
                    base_url: https_url(&config, bound),
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
        let serving =
            tokio::spawn(api::server::serve(public_listener, listener, stop_public.clone()));
        if let Some(tls) = tls {
            tokio::spawn(tls.run(stop_all.clone()));
        }
        let counted = gate.clone();
        let (member, state) = (place.cluster().cloned(), health.clone());
        let loaded = registry.clone();
        metrics.refresh_with(move || {
            counted.publish_gauges();
            let load = node_load(&loaded, &memory);
            metrics::gauge!(model::metric::NODE_LOAD).set(load);
            if let Some(cluster) = &member {
                fleet::publish_gauges(cluster, state.is_draining());
            }
        });
        if let Database::Postgres(_) = config.store.database {
            let (store, recordings) = (store.clone(), recordings.clone());
            let (inbox, stop) = (inbox.clone(), stop_all.clone());
            tokio::spawn(retention::remove_files(store, recordings, inbox, own_id, stop));
        }
        tokio::spawn(retention::delete_expired_sessions(people, stop_all.clone()));
        tokio::spawn(retention::drop_blank_permissions(
            consents,
            gate.clone(),
            clock.clone(),
            stop_all.clone(),
        ));
        let (stop, expiry) = (
            stop_public.clone(),
            retention::delete_expired(
                store.clone(),
                recordings.clone(),
                inbox.clone(),
                clock,
                tunables.clone(),
            ),
        );
        tasks.spawn(async move { stop.run_until_cancelled(expiry).await });
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
        alerts::start(alerts, &stop_all)?;
        speech_settings::warnings(&config).iter().for_each(|warning| tracing::warn!("{warning}"));
        health.set_ready();
        if let Some(serve_admin) = serve_admin_later {
            tokio::spawn(serve_admin);
        }
        Ok(Self {
            public,
            https,
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
            store,
            tasks,
            stop_public,
            stop_all,
            recordings,
            tunables,
            place,
            #[cfg(feature = "otel")]
            otel,
        })
    }
}

fn media(
    config: &Config,
    clock: &Clock,
    turn: Option<TurnServer>,
    inherited: Vec<Arc<UdpSocket>>,
) -> Result<Arc<Media>, StartError> {
    let at = config.listen.media;
    let media = MediaConfig {
        listen: at,
        max_ports: config.listen.media_ports,
        public_ips: config.public.media_ips.listed().to_vec(),
        turn,
        shards: std::thread::available_parallelism()
            .map_or(1, usize::from)
            .min(usize::from(config.listen.media_ports)),
        media_dead: MEDIA_DEAD,
        loopback_offers: config.meta.is_simulated(),
        inherited,
    };
    Media::start(media, clock.clone()).map_err(|source| StartError::Media { at, source })
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

/// The first main account of the configuration. The first user is an owner of it.
fn first_account(config: &Config) -> Option<&AuthId> {
    let first = config.accounts.iter().find(|account| account.parent.is_none());
    first.map(|account| &account.auth_id)
}

/// If no user exists, logs the link for creating the first one. Without the link, the console can't
/// be used, but calls are accepted.
async fn begin_set_up(people: &People, config: &Config, bound: Bound) {
    let Some(account) = first_account(config) else { return };
    match people.begin_set_up(&config.cluster.own_id()).await {
        Ok(None) => {}
        Ok(Some(token)) => {
            let link = format!("{}{}{}", base_url(config, bound), console::SET_UP, token.reveal());
            warn!(
                link,
                %account,
                "no user exists; the first owner signs up with this link, once, within 24 hours"
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

/// The error of a listener that could not be bound. `key` names its address in the configuration.
fn no_listener(key: &'static str) -> impl Fn(String) -> StartError {
    move |why| StartError::Listen { why, key }
}

/// Loads the certificate files of `listen.https`. `None` without it.
async fn load_certificates(config: &Config) -> Result<Option<tls::Prepared>, StartError> {
    let Some(settings) = config.tls.clone().filter(|_| config.listen.https.is_some()) else {
        return Ok(None);
    };
    let prepared = tokio::task::spawn_blocking(move || tls::Prepared::load(settings)).await;
    match prepared {
        Ok(prepared) => Ok(Some(prepared?)),
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
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
