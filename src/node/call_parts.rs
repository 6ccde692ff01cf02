//! Builds the services that calls are made of, and recovers what an earlier process left of its
//! calls.

use std::collections::HashSet;
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tracing::{info, warn};
use uuid::Uuid;

use super::StartError;
use super::fleet;
use super::open::Base;
use super::settings::{base_url, call_settings};
use super::watch::Memory;
use crate::speech_settings;
use egress::{Egress, EgressConfig, Guard};
use engine::admission::Pressure;
use engine::admission::permission::Consents;
use engine::agents::{Agents, AgentsParts, VoiceAgents};
use engine::answer::{AT_ONCE_PER_HOST, Fetcher, Notifier};
use engine::call::drafts::{self, WithDrafts};
use engine::call::news::CallNews;
use engine::call::orphan::Orphans;
use engine::call::phones::Phones;
use engine::call::recordings::Copies;
use engine::call::rooms::{RoomSnapshot, Rooms};
use engine::call::seats::Seats;
use engine::call::seats::host::RoomHosting;
use engine::call::{
    Dialer, Outbox, OutboxLimits, PermissionService, Recordings, RecordingsConfig, Registry,
    RejectThread, Services, farewell, orphan,
};
use engine::cluster::{FleetClaims, FleetRooms, NodeReaper};
use engine::config::Config;
use engine::disk_space::DiskSpace;
use engine::inbox::{Inbox, InboxParts};
use engine::meta::{Graph, GraphConfig};
use engine::notices::Notices;
use engine::objects::Bucket;
use engine::stream::Streams;
use media::{Media, Mixer};
use model::{CallUuid, Clock, Secret};
use speech::config::SpeechConfig;
use speech::http::EndpointError;
use speech::library::Library;
use speech::model_manager::ModelManager;
use speech::recognise::Recognisers;
use store::{Database, Store, StoreError};

/// What calls are made of, before there is one.
pub(super) struct CallParts {
    pub(super) services: Arc<Services>,
    pub(super) consents: Arc<Consents>,
    pub(super) models: ModelManager,
    /// The fleet's register of calls. `None` outside a fleet.
    pub(super) claims: Option<Arc<FleetClaims>>,
    /// Where the fleet's rooms are. `None` outside a fleet.
    pub(super) room_hosts: Option<Arc<FleetRooms>>,
    pub(super) space: Arc<DiskSpace>,
    pub(super) agents: Agents,
    pub(super) inbox: Inbox,
    /// The documents that people try out in the console.
    pub(super) drafts: drafts::Drafts,
    /// For the model server and the receiver of alerts. The operator configures them, so they may
    /// be at a private address and use plain HTTP.
    pub(super) operator_egress: Egress,
    #[cfg(feature = "otel")]
    pub(super) otel: Option<super::otel::Export>,
}

/// The calls of a node, and what finds, places and ends them.
pub(super) struct LiveCalls {
    pub(super) registry: Registry,
    pub(super) hosting: RoomHosting,
    pub(super) dialer: Dialer,
    pub(super) reaper: NodeReaper,
}

/// The calls and recordings that go on in this process, by their ids.
pub(super) struct Kept {
    pub(super) calls: HashSet<CallUuid>,
    pub(super) recordings: HashSet<Uuid>,
}

impl Base {
    /// Builds the services of calls. `moved_rooms` are the rooms of a process that handed over, and
    /// `graph_max` limits the requests to Graph that are under way.
    pub(super) async fn call_parts(
        &self,
        media: &Arc<Media>,
        moved_rooms: &[RoomSnapshot],
        graph_max: Option<usize>,
    ) -> Result<CallParts, StartError> {
        let Self { config, node_id, clock, random, feed, store, directory, .. } = self;
        let Self { place, egress, tasks, stop_all, stop_public, .. } = self;
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
        let space = self.disk_space();
        outbox.set_space(space.clone());
        let graph = Arc::new(self.graph(graph_max)?);
        let consents = Arc::new(Consents::load(store.clone()).await?);
        if let Some(cluster) = place.cluster() {
            consents.share(cluster.run());
        }
        let permissions = PermissionService::new(graph.clone(), consents.clone(), clock.clone());
        let (sounds, recognisers, models) = speech(config, clock, egress)?;
        #[cfg(feature = "otel")]
        let otel = super::otel::Export::start(clock, &self.own_id).map_err(StartError::Otel)?;
        #[cfg(feature = "otel")]
        let traces = otel.as_ref().map(super::otel::Export::sink);
        #[cfg(not(feature = "otel"))]
        let traces = warn_without_traces();
        if let Some(sink) = &traces {
            outbox.export_traces(sink.clone());
        }
        let phones = Phones::new(feed.clone());
        let rooms = rooms(clock, media, &sounds);
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
        let pressure = Pressure::new(self.health.clone(), clock.now());
        tokio::spawn(super::watch::watch(pressure.clone(), clock.clone(), stop_all.clone()));
        let recordings = self.recordings(&outbox, &recognisers, &space)?;
        let notices = Notices::new(store.clone(), feed.clone(), clock.clone());
        let operator_egress = EgressConfig {
            clock: clock.clone(),
            ..EgressConfig::new(Guard::new(true, Vec::new()))
        };
        let operator_egress = Egress::new(operator_egress)?;
        let agents = Agents::new(AgentsParts {
            store: store.clone(),
            directory: directory.clone(),
            notices: notices.clone(),
            egress: egress.clone(),
            model_egress: operator_egress.clone(),
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
            base_url: base_url(config, self.bound),
            media: config.store.data_dir.join("messages"),
            space: space.clone(),
            consents: consents.clone(),
            tasks: tasks.clone(),
            stop: stop_public.clone(),
        });
        inbox.open(&config.webhooks).await?;
        let drafts = drafts::Drafts::default();
        let services = Arc::new(Services {
            author: Arc::new(WithDrafts {
                drafts: drafts.clone(),
                others: Arc::new(VoiceAgents::new(agents.clone(), inbox.clone(), sounds.clone())),
            }),
            feed: feed.clone(),
            pressure,
            clock: clock.clone(),
            random: random.clone(),
            node_id: node_id.clone(),
            media: media.clone(),
            sounds,
            recognisers,
            notifier,
            graph,
            rejects: RejectThread::start().map_err(StartError::Rejects)?,
            permissions,
            streams: Streams::new(egress.clone(), clock.clone(), random.clone(), tasks.clone()),
            fetcher: Fetcher::new(egress.clone(), clock.clone(), random.clone()),
            outbox,
            store: store.clone(),
            phones,
            rooms,
            seats,
            settings: ArcSwap::from_pointee(call_settings(config, recordings.can_transcribe())),
            recordings,
            notices,
            news: OnceLock::from(inbox.calls().clone() as Arc<dyn CallNews>),
            traces,
            tasks: tasks.clone(),
        });
        follow_models(&models, &services);
        Ok(CallParts {
            services,
            consents,
            models,
            claims,
            room_hosts,
            space,
            agents,
            inbox,
            drafts,
            operator_egress,
            #[cfg(feature = "otel")]
            otel,
        })
    }

    /// Ends the calls that an earlier process left open, except those that are `kept`, and recovers
    /// its other unfinished work. Returns what the webhooks of the ended calls need, too.
    pub(super) async fn recover_calls(
        &self,
        parts: &CallParts,
        kept: Kept,
    ) -> Result<(LiveCalls, Orphans), StartError> {
        let Self { config, own_id, node_id, store, directory, gate, stop_all, .. } = self;
        let services = &parts.services;
        let earlier = fleet::inherit(config, store, own_id, node_id).await?;
        if matches!(config.store.database, Database::File(_)) {
            continue_other_names(config, store, node_id).await?;
        }
        let orphans = orphan::end_all(services, node_id, &kept.calls).await?;
        services.recordings.recover(&kept.recordings).await?;
        store.calls().take_over_farewells(node_id);
        tokio::spawn(farewell::send_pending(services.clone(), directory.clone(), stop_all.clone()));
        let registry = Registry::new(services.clone(), gate.clone());
        let hosting = RoomHosting::new(services.clone());
        let dialer = Dialer::new(services.clone(), registry.clone(), gate.clone());
        let reaper = NodeReaper {
            services: services.clone(),
            registry: registry.clone(),
            dialer: dialer.clone(),
            directory: directory.clone(),
            claims: parts.claims.clone(),
        };
        fleet::settle_earlier(&earlier, &reaper).await?;
        tokio::spawn(orphan::keep_alive(services.clone(), registry.clone(), stop_all.clone()));
        Ok((LiveCalls { registry, hosting, dialer, reaper }, orphans))
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
            base_url: base_url(&self.config, self.bound),
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
}

/// Lets calls transcribe recordings once a model for it is installed, and no longer when it is
/// removed.
fn follow_models(models: &ModelManager, services: &Arc<Services>) {
    let services = Arc::downgrade(services);
    models.on_change(move || {
        let Some(services) = services.upgrade() else { return };
        let can_transcribe = services.recordings.can_transcribe();
        services.settings.rcu(|settings| {
            let mut settings = settings.as_ref().clone();
            settings.limits.can_transcribe = can_transcribe;
            settings
        });
    });
}

/// Continues the work of a node with another name in the SQLite file, such as that of a node that ran
/// on another machine. With a name in the configuration, which makes a copy of a store harmless, this
/// only warns of it.
async fn continue_other_names(
    config: &Config,
    store: &Store,
    node_id: &str,
) -> Result<(), StoreError> {
    let others = store.other_nodes(node_id).await?;
    for (owner, records) in others.iter().filter(|(_, records)| *records > 0) {
        match config.cluster.node_id {
            None => info!(
                node_id = owner,
                records,
                "continuing the work of this store's former node, because cluster.node_id is not set and the host has another name"
            ),
            Some(_) => warn!(
                node_id = owner,
                records,
                "unfinished work of another node in the store; if this node takes its place, set cluster.node_id to its name and restart"
            ),
        }
    }
    // Its recordings have its name even if nothing is unfinished.
    if config.cluster.node_id.is_none() && !others.is_empty() {
        store.take_over(node_id).await?;
    }
    Ok(())
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
        move |sink| Mixer::start(media.mixers(), sink),
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
