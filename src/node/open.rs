//! Opens what the services of a node need: listeners, media path, store, membership of the fleet.

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::StartError;
use super::fleet::{self, FILE_FOLDERS, Place};
use super::settings::{Bound, base_url};
use super::upgrade::{Inherited, Predecessor, TakenOver};
use crate::api;
use crate::api::server::{Pause, ServerConfig};
use crate::observe::{self, Metrics};
use crate::public_address;
use egress::{Egress, EgressConfig, Guard, OwnFiles, warm_up};
use engine::admission::book::Keeper;
use engine::admission::{Directory, Gate};
use engine::answer::RandomSource;
use engine::call::handover::IncomingCall;
use engine::config::Config;
use engine::feed::Feed;
use media::turn::TurnServer;
use media::{Media, MediaConfig};
use model::Clock;
use model::Health;
use store::{NodeLock, Store, StoreOptions};
use tls::Tls;

/// Timeout after which the media of a leg that receives no packets counts as dead.
const MEDIA_DEAD: Duration = Duration::from_secs(30);
/// How long a start waits for a database server that does not answer.
const DATABASE_PATIENCE: Duration = Duration::from_secs(60);

/// What a process has, or has taken over from another one, before its services start.
pub(super) struct Opened {
    pub(super) public: (Arc<TcpListener>, SocketAddr),
    pub(super) https: Option<(Arc<TcpListener>, SocketAddr)>,
    pub(super) admin: SocketAddr,
    /// All of them, for as long as they are open.
    pub(super) listeners: Vec<Weak<TcpListener>>,
    pub(super) admin_pause: Pause,
    /// Serves the admin listener. `None` if that has begun.
    pub(super) serve_admin: Option<BoxFuture<'static, ()>>,
    pub(super) tls: Option<Tls>,
    pub(super) taken_over: TakenOver,
    /// Whether another process handed over.
    pub(super) is_moved: bool,
    /// Its calls that cannot go on.
    pub(super) dropped: Vec<IncomingCall>,
}

/// What all services of a node are built from.
pub(super) struct Base {
    pub(super) config: Config,
    pub(super) bound: Bound,
    pub(super) own_id: String,
    /// The name of this process in the store: the node's id, or that of its run in the fleet.
    pub(super) node_id: String,
    pub(super) clock: Clock,
    pub(super) random: RandomSource,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) feed: Feed,
    pub(super) store: Store,
    pub(super) directory: Arc<Directory>,
    pub(super) keeper: Keeper,
    pub(super) gate: Arc<Gate>,
    pub(super) place: Place,
    /// Which addresses customers' URLs may have.
    pub(super) guard: Guard,
    pub(super) egress: Egress,
    pub(super) tasks: TaskTracker,
    pub(super) stop_public: CancellationToken,
    pub(super) stop_all: CancellationToken,
}

/// Opens the listeners, the store and the media path, or takes them over from another process, and
/// joins the fleet.
pub(super) async fn open(
    mut predecessor: Option<&mut Predecessor>,
    mut config: Config,
    clock: Clock,
) -> Result<(Base, Opened), StartError> {
    // Runs beside the opening of the store: the two take most of the start-up time.
    tokio::task::spawn_blocking(warm_up);
    public_address::resolve(&mut config).await?;
    // Before all services: they register their metric handles when they are created.
    let metrics = Metrics::install().map_err(StartError::Metrics)?;
    let health = Health::new();
    let certificates = load_certificates(&config).await?;
    let inherited = predecessor.as_mut().map(|other| other.take_sockets());
    let listeners = Listeners::open(inherited, &config).await?;
    let bound = listeners.bound();
    let own_id = config.cluster.own_id();
    let turn = public_address::turn_server(&config).await.map_err(StartError::Turn)?;
    let start_media = |sockets| media(&config, &clock, turn.clone(), sockets);
    // The media of the calls goes on before the store can be opened.
    let taken_over = match predecessor {
        Some(other) => {
            let member = config.cluster.peer.as_ref().map(|_| own_id.as_str());
            Some(other.take_over(&config.store.database, member, &clock, start_media).await?)
        }
        None => None,
    };
    let weak_listeners = listeners.weak();
    let Listeners { public, https, admin: (admin_listener, admin), peer: peer_listener } =
        listeners;
    let admin_pause = Pause::default();
    let stop_all = CancellationToken::new();
    tokio::spawn(metrics.clone().upkeep(stop_all.clone()));
    let admin_pages = observe::exporter::router(metrics.clone(), health.clone());
    let admin_config = ServerConfig {
        pause: admin_pause.clone(),
        ..ServerConfig::admin(admin_pages, config.listen.local_hosts_only, clock.clone())
    };
    let serve_admin = Box::pin(api::server::serve(admin_listener, admin_config, stop_all.clone()));
    // The other process was ready: connections wait until this one is, too.
    let serve_admin: Option<BoxFuture<'static, ()>> = match taken_over {
        Some(_) => Some(serve_admin),
        None => {
            tokio::spawn(serve_admin);
            None
        }
    };

    // The other process of an upgrade has just used the database.
    if taken_over.is_none() {
        store::wait_until_reachable(&config.store.database, DATABASE_PATIENCE).await;
    }
    let (store, lock) = open_store(&config, &own_id, &health).await?;
    fleet::refuse_beside_fleet(&config, &store, &clock).await?;
    let tls = match certificates {
        Some(loaded) => Some(Tls::open(loaded, store.clone(), clock.clone(), own_id.clone()).await),
        None => None,
    };
    let directory = Arc::new(match lock {
        Some(_) => Directory::new(config.limits.default_cps),
        None => Directory::shared(config.limits.default_cps),
    });
    let keeper =
        Keeper::open(store.clone(), directory.clone(), config.admission(), clock.wall()).await?;
    let gate = Arc::new(Gate::new(directory.clone(), clock.now()));
    let is_moved = taken_over.is_some();
    let mut taken_over = match taken_over {
        Some(taken_over) => taken_over,
        None => TakenOver::nothing(start_media(Vec::new())?),
    };
    let (calls, dropped) = known_calls(std::mem::take(&mut taken_over.calls), &directory);
    taken_over.calls = calls;
    let moved = std::mem::take(&mut taken_over.node);
    gate.spend_permits(&moved.permits, clock.now());
    let place = match (lock, &config.cluster.peer) {
        (None, Some(peer)) => {
            let moved = (moved.member, peer_listener);
            let cluster = fleet::join(&config, peer, &own_id, &store, &clock, &gate, moved).await?;
            Place::Member(Arc::new(cluster))
        }
        (lock, _) => Place::Alone(lock),
    };
    if let Some(cluster) = place.cluster() {
        tokio::spawn(fleet::exit_if_dead(cluster.clone(), stop_all.clone()));
        tokio::spawn(fleet::follow_contact(cluster.clone(), health.clone(), stop_all.clone()));
    }
    let guard = Guard::new(
        config.answer.allow_insecure,
        [bound.public, admin].into_iter().chain(bound.https).collect(),
    );
    // Every client of the network may fetch these files, and `base_url` is the operator's.
    let own_files =
        OwnFiles::new(&base_url(&config, bound), &FILE_FOLDERS, Guard::new(true, vec![admin]));
    let egress = Egress::new(EgressConfig {
        clock: clock.clone(),
        own_files: own_files.ok(),
        ..EgressConfig::new(guard.clone())
    })?;
    let base = Base {
        node_id: place.owner(&own_id),
        random: RandomSource::system(),
        feed: Feed::since(clock.wall()),
        stop_public: stop_all.child_token(),
        tasks: TaskTracker::new(),
        config,
        bound,
        own_id,
        clock,
        health,
        metrics,
        store,
        directory,
        keeper,
        gate,
        place,
        guard,
        egress,
        stop_all,
    };
    let opened = Opened {
        public,
        https,
        admin,
        listeners: weak_listeners,
        admin_pause,
        serve_admin,
        tls,
        taken_over,
        is_moved,
        dropped,
    };
    Ok((base, opened))
}

/// The open listeners of a node, and their addresses.
struct Listeners {
    public: (Arc<TcpListener>, SocketAddr),
    https: Option<(Arc<TcpListener>, SocketAddr)>,
    admin: (Arc<TcpListener>, SocketAddr),
    /// The listener for the other nodes of the fleet, if it was taken over from another process.
    peer: Option<TcpListener>,
}

impl Listeners {
    /// Takes over the listeners of another process, which gives up nothing before, or opens them.
    async fn open(inherited: Option<Inherited>, config: &Config) -> Result<Self, StartError> {
        let is_upgrade = inherited.is_some();
        let mut inherited = inherited.unwrap_or_default();
        let listen = &config.listen;
        let public = inherited.listen(listen.public).map_err(no_listener("listen.public"))?;
        let https = match listen.https {
            Some(at) => Some(inherited.listen(at).map_err(no_listener("listen.https"))?),
            None => None,
        };
        let admin = inherited.listen(listen.admin).map_err(no_listener("listen.admin"))?;
        let peer = match &config.cluster.peer {
            Some(peer) if is_upgrade => {
                let listener = inherited.listener_at(peer).await;
                Some(listener.map_err(|error| {
                    no_listener("cluster.peer")(format!("could not listen on {peer}: {error}"))
                })?)
            }
            _ => None,
        };
        Ok(Self { public, https, admin, peer })
    }

    fn bound(&self) -> Bound {
        Bound { public: self.public.1, https: self.https.as_ref().map(|(_, at)| *at) }
    }

    /// The listeners that clients connect to, for as long as they are open.
    fn weak(&self) -> Vec<Weak<TcpListener>> {
        let all = [Some(&self.public), self.https.as_ref(), Some(&self.admin)];
        all.into_iter().flatten().map(|(listener, _)| Arc::downgrade(listener)).collect()
    }
}

/// Opens the store. A node outside a fleet locks its database first: otherwise the open calls of
/// another running process with this node id would be taken for orphans of a crash. In a fleet, the
/// node's row takes the place of the lock.
async fn open_store(
    config: &Config,
    own_id: &str,
    health: &Health,
) -> Result<(Store, Option<NodeLock>), StartError> {
    let database = &config.store.database;
    let lock = match config.cluster.peer {
        None => Some(NodeLock::acquire(database, own_id).await?),
        Some(_) => None,
    };
    if let Some(warning) = config.store.unused_file() {
        warn!("{warning}");
    }
    let options = StoreOptions {
        secret_key: config.store.secret_key.clone(),
        ..StoreOptions::with_journal_in(&config.store.data_dir)
    };
    Ok((Store::open_with(database.clone(), options, health.clone()).await?, lock))
}

/// Returns the calls of another process that continue, and those that end because their number or
/// account is no longer configured. The records of the latter are closed like those of a killed
/// process.
fn known_calls(
    calls: Vec<IncomingCall>,
    directory: &Directory,
) -> (Vec<IncomingCall>, Vec<IncomingCall>) {
    let (mut known, mut dropped): (Vec<_>, Vec<_>) =
        calls.into_iter().partition(|call| call.is_configured(directory));
    for call in &mut dropped {
        warn!(call_uuid = %call.call(), "call ended: its number or account is not configured any more");
        drop(call.leg.take());
    }
    known.iter_mut().for_each(|call| call.hold_slot(directory));
    (known, dropped)
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
