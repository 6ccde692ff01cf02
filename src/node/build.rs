//! Starts a node: builds its services in dependency order, continues the calls of another process,
//! and serves requests.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::call_parts::{CallParts, Kept, LiveCalls};
use super::connections::Connections;
use super::fleet::{self, Forwarder};
use super::interfaces::Interfaces;
use super::open::{Base, Opened, open};
use super::operator::node_load;
use super::peer_requests::PeerRequests;
use super::reload::{Loader, Tunables};
use super::settings::https_url;
use super::upgrade::{Predecessor, TakenOver};
use super::watch::Memory;
use super::{Node, StartError, retention};
use super::{shared_feed, shared_queues};
use crate::api;
use crate::api::https::Https;
use crate::api::server::ServerConfig;
use crate::speech_settings;
use engine::agents::answer_messages;
use engine::alerts::{self, AlertParts};
use engine::call::Registry;
use engine::call::handover::IncomingCall;
use engine::call::rooms::RoomSnapshot;
use engine::cluster::{Cluster, NodeReaper};
use engine::config::Config;
use engine::people::People;
use engine::webhook;
use model::{AuthId, Clock};
use store::Database;

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
        let TakenOver { media, calls, queued, rooms, phones, .. } = taken_over;
        let Self { config, gate, place, tasks, stop_all, stop_public, .. } = &self;
        let connections = Connections::of_this_process();
        let parts = self.call_parts(&media, &rooms, connections.graph).await?;
        if config.meta.is_simulated() && config.meta.simulated.is_none() {
            tracing::info!(
                graph_url = %config.meta.graph_url,
                "Meta is assumed to be simulated, since graph_url is on loopback; set meta.simulated to change it"
            );
        }
        // Work left by an earlier process is recovered first. Until then no call is accepted and
        // `/readyz` answers 503.
        let waiting = queued.iter().map(|queued| queued.setup.call);
        let recorded = calls.iter().flat_map(IncomingCall::recordings);
        let kept = Kept {
            calls: calls.iter().map(IncomingCall::call).chain(waiting).collect(),
            recordings: recorded.chain(rooms.iter().filter_map(RoomSnapshot::recording)).collect(),
        };
        let (live_calls, orphans) = self.recover_calls(&parts, kept).await?;
        let interfaces =
            self.interfaces(&parts, &live_calls, orphans, tls.as_ref(), loader).await?;
        let LiveCalls { registry, dialer, .. } = &live_calls;
        let inbox = &parts.inbox;
        tokio::spawn(dialer.clone().run(stop_all.clone()));
        tasks.spawn(inbox.sender().clone().send_adopted());
        tasks.spawn(answer_messages(parts.agents.clone(), inbox.clone(), stop_public.clone()));
        interfaces.phones.expect(phones);
        if is_moved {
            gate.resume(self.clock.now());
        }
        // Before the first request, also of another node, so that the calls are found and counted.
        registry.resume(calls, rooms, &dropped);
        dialer.take_over(queued);
        if let Some(claims) = parts.claims.as_ref().filter(|_| is_moved) {
            claims.unsettle_all(registry);
        }
        let router = self.with_peers(&parts, &live_calls, &interfaces)?;
        let webhooks = interfaces.webhooks.clone();
        let webhook: api::server::WebhookHandler = Arc::new(move |request| {
            let webhooks = webhooks.clone();
            Box::pin(
                async move { webhook::handle(&webhooks, request).await.map(axum::body::Body::new) },
            )
        });
        let listener = ServerConfig {
            webhook: Some(webhook),
            router,
            https: match (https.clone(), &tls) {
                (Some((listener, _)), Some(tls)) => Some(Https {
                    listener,
                    config: tls.server_config()?,
                    tls: tls.clone(),
                    base_url: https_url(config, self.bound),
                }),
                _ => None,
            },
            trusted_proxies: config.listen.trusted_proxies.clone(),
            proxies_only: config.listen.proxies_only,
            local_hosts_only: config.listen.local_hosts_only,
            offenders: Some(interfaces.offenders),
            limits: connections.http,
            clock: self.clock.clone(),
            is_https: config.public.base_url.as_ref().is_some_and(|url| url.scheme() == "https"),
            has_metrics: true,
            pause: interfaces.pause.clone(),
        };
        let serving = tokio::spawn(api::server::serve(public.0, listener, stop_public.clone()));
        if let Some(tls) = tls {
            tokio::spawn(tls.run(stop_all.clone()));
        }
        self.publish_gauges(registry, interfaces.memory);
        self.start_clean_up(&parts, interfaces.people, &interfaces.tunables);
        let recordings = &parts.services.recordings;
        tokio::spawn(recordings.clone().run_background_work(stop_all.clone()));
        tokio::spawn(recordings.clone().set_unlisted_aside(stop_all.clone()));
        self.count_disk_space(&parts);
        parts.services.outbox.start();
        tokio::spawn(interfaces.numbers.reconciliation().run(stop_all.clone()));
        if let Some(hangup) = hangup {
            tokio::spawn(interfaces.reloader.on_hangup(hangup, stop_all.clone()));
        }
        if let Some(cluster) = place.cluster() {
            fleet::wait_until_settled(cluster).await;
        }
        alerts::start(self.alerts(&parts), stop_all)?;
        speech_settings::warnings(config).iter().for_each(|warning| tracing::warn!("{warning}"));
        self.health.set_ready();
        if let Some(serve_admin) = serve_admin {
            tokio::spawn(serve_admin);
        }
        Ok(Node {
            public: public.1,
            https: https.map(|(_, at)| at),
            admin,
            registry: live_calls.registry,
            phones: interfaces.phones,
            drain: interfaces.drain,
            hosting: live_calls.hosting,
            listeners,
            pause: interfaces.pause,
            admin_pause,
            serving: Some(serving),
            media,
            outbox: parts.services.outbox.clone(),
            store: self.store,
            tasks: self.tasks,
            stop_public: self.stop_public,
            stop_all: self.stop_all,
            recordings: recordings.clone(),
            tunables: interfaces.tunables,
            place: self.place,
            #[cfg(feature = "otel")]
            otel: parts.otel,
        })
    }

    /// In a fleet, serves the other nodes. Returns the paths of the public listener, with the
    /// forwarding of requests to the nodes that have the calls.
    fn with_peers(
        &self,
        parts: &CallParts,
        calls: &LiveCalls,
        interfaces: &Interfaces,
    ) -> Result<Router, StartError> {
        let router = interfaces.router.clone();
        let (Some(cluster), Some(claims), Some(room_hosts)) =
            (self.place.cluster(), &parts.claims, &parts.room_hosts)
        else {
            return Ok(router);
        };
        let confirm = from_fn_with_state(cluster.clone(), fleet::confirm_credentials);
        let router = router.layer(confirm);
        let forwarder = Forwarder {
            apis: interfaces.apis.clone(),
            files: fleet::file_pool(),
            node_id: self.own_id.clone(),
            cluster: cluster.clone(),
            claims: claims.clone(),
            registry: calls.registry.clone(),
            dialer: calls.dialer.clone(),
            rooms: parts.services.rooms.clone(),
            room_hosts: room_hosts.clone(),
            settings: interfaces.shared_settings.clone(),
            store: self.store.clone(),
            announced: AtomicI64::new(0),
        };
        let forwarding = fleet::with_forwarding(router.clone(), forwarder);
        let requests = PeerRequests {
            cluster: cluster.clone(),
            webhooks: interfaces.webhooks.clone(),
            node: interfaces.this_node.clone(),
            inbox: parts.inbox.clone(),
            feed: self.feed.clone(),
            outbox: parts.services.outbox.clone(),
            live: interfaces.live.clone(),
            rooms: parts.services.rooms.clone(),
            hosting: calls.hosting.clone(),
            dialer: calls.dialer.clone(),
            phones: interfaces.phones.clone(),
            counts: interfaces.shared_counts.clone(),
            settings: interfaces.shared_settings.clone(),
            pause: interfaces.pause.clone(),
            router,
            forwarding: forwarding.clone(),
        };
        self.serve_peers(cluster, requests, calls.reaper.clone())?;
        if let Some(lost) = interfaces.lost.clone() {
            tokio::spawn(lost.run(self.stop_all.clone()));
        }
        Ok(forwarding)
    }

    /// Keeps count of the space that recordings and users' files take.
    fn count_disk_space(&self, parts: &CallParts) {
        let (recordings, inbox) = (parts.services.recordings.clone(), parts.inbox.clone());
        let count = move || {
            let (recordings, inbox) = (recordings.clone(), inbox.clone());
            async move {
                let files = inbox.user_files().used_space().await?;
                Some(recordings.used_space().await?.into_iter().chain(files).collect())
            }
        };
        tokio::spawn(parts.space.clone().keep_counted(count, self.stop_all.clone()));
    }

    fn alerts(&self, parts: &CallParts) -> AlertParts {
        let metrics = self.metrics.clone();
        AlertParts {
            settings: self.config.alerts.clone(),
            node: self.own_id.clone(),
            clock: self.clock.clone(),
            metrics: Box::new(move || metrics.render()),
            egress: parts.operator_egress.clone(),
            notices: parts.services.notices.clone(),
            owner: only_account(&self.config),
            fired: self.config.store.data_dir.join("alerts.json"),
        }
    }

    /// Serves the other nodes of the fleet, and keeps what they share up to date.
    fn serve_peers(
        &self,
        cluster: &Arc<Cluster>,
        requests: PeerRequests,
        reaper: NodeReaper,
    ) -> Result<(), StartError> {
        let (inbox, counts) = (requests.inbox.clone(), requests.counts.clone());
        let outbox = requests.outbox.clone();
        let (rooms, settings) = (requests.rooms.clone(), requests.settings.clone());
        let stop = || self.stop_all.clone();
        rooms.list_others(Arc::new(fleet::RoomsOfOthers(cluster.clone())));
        cluster.peers().serve(Arc::new(requests))?;
        fleet::share_turns(&inbox, cluster.clone());
        tokio::spawn(shared_feed::share(cluster.clone(), self.feed.clone(), stop()));
        tokio::spawn(shared_queues::share(cluster.clone(), outbox, stop()));
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
    fn start_clean_up(&self, parts: &CallParts, people: People, tunables: &Arc<Tunables>) {
        let stop = || self.stop_all.clone();
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let (recordings, inbox) = (parts.services.recordings.clone(), parts.inbox.clone());
        if let Database::Postgres(_) = self.config.store.database {
            let (store, own_id) = (store.clone(), self.own_id.clone());
            let (recordings, inbox) = (recordings.clone(), inbox.clone());
            tokio::spawn(retention::remove_files(store, recordings, inbox, own_id, stop()));
        }
        tokio::spawn(retention::delete_expired_sessions(people, stop()));
        let (consents, gate) = (parts.consents.clone(), self.gate.clone());
        tokio::spawn(retention::drop_blank_permissions(consents, gate, clock.clone(), stop()));
        let expiry = retention::delete_expired(store, recordings, inbox, clock, tunables.clone());
        let stop = self.stop_public.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(expiry).await });
    }
}

/// The node's only main account, whose owner is its operator. `None` if several share the node.
fn only_account(config: &Config) -> Option<AuthId> {
    let mut main = config.accounts.iter().filter(|account| account.parent.is_none());
    let first = main.next()?;
    main.next().is_none().then(|| first.auth_id.clone())
}
