//! Connects the node to a fleet, if `[cluster] peer` is set.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use axum::{Extension, Router};
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, RETRY_AFTER, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::StartError;
use crate::api::server::{Download, Peer};
use crate::api::{
    Apis, Caller, FileElsewhere, LiveCall, LiveList, NodeState, NodeStatus, TOO_MANY_IN_PROGRESS,
    listener_error, name_silent,
};
use crate::console::FleetPages;
use engine::admission::{Gate, UnitCounts};
use engine::call::queues::Waiting;
use engine::call::rooms::{OtherRooms, RoomList, RoomView, Rooms};
use engine::call::seats::NoAnswer;
use engine::call::{Dialer, Registry};
use engine::cluster::{
    self, About, Cluster, FleetClaims, FleetRooms, JoinOptions, MovedMember, MovedPeers,
    NodeReaper, PeerTimes, Peers, RunState, SessionPurpose, has_members, post,
};
use engine::config::Config;
use engine::inbox::Inbox;
use engine::limiter::{Pool, RequestClaims};
use engine::shared_settings::SharedSettings;
use engine::webhook::Unreachable;
use machine::RoomKind;
use model::metric::{self, unit};
use model::{AuthId, CallUuid, Clock, Health};
use store::{Database, NodeLock, Scope, Store, StoreError, node_of_owner};

/// Header with the client's address in a forwarded request. Only other nodes can send it.
pub(super) const CLIENT: HeaderName = HeaderName::from_static("x-offhook-client");

/// Path at which a node is notified that settings have changed. It responds when the new settings
/// are in effect.
pub(super) const SETTINGS: &str = "/settings";

/// Number of files of other nodes that clients read at a time. Beyond it, the connection with the
/// oldest one is closed, of the network with most of them.
const FILES_MAX: usize = 64;

/// Returns the limit on files of other nodes.
pub(super) fn file_pool() -> Pool {
    Pool::new(FILES_MAX, None)
}

/// Maximum time that the response to a change waits for the other nodes.
const SETTINGS_TIME: Duration = Duration::from_secs(1);

/// Header with the number of nodes at which a change is in effect: "3/3".
const APPLIED: HeaderName = HeaderName::from_static("x-offhook-applied");

/// Path at which a node is notified that another one has stored messages that its agents must
/// answer.
pub(super) const TURNS: &str = "/turns";

/// Path of the request that announces that the sender is draining. The receiver adopts the sender's
/// waiting calls.
pub(super) const WAITING: &str = "/waiting";

/// Timeout for another node to adopt the waiting calls of this node when it drains.
const HAND_OVER_TIME: Duration = Duration::from_secs(10);

/// Path at which a node lists the live calls of an account.
pub(super) const LIVE: &str = "/live";

/// Maximum number of live calls per node in a list of all nodes. The newest ones are used, which
/// are about 2 MB.
pub(super) const LIVE_MAX: usize = 5_000;

/// Path at which a node lists its live rooms.
pub(super) const ROOMS: &str = "/rooms";

/// Maximum number of rooms per node in a list of all nodes.
pub(super) const ROOMS_MAX: usize = 1_000;

/// Path at which a node returns its status.
pub(super) const NODE: &str = "/node";

/// Timeout for another node to return its status.
const STATUS_TIME: Duration = Duration::from_millis(300);

/// Maximum size in bytes of the body of a forwarded request.
const BODY_MAX: usize = 3 * 1024 * 1024;

/// Maximum time that the start waits for the fleet to give out units. Without them the node would
/// reject all calls. After a restart of all nodes or of the database, the fleet gives out none for
/// 10 s, in which lost nodes may come back.
const SETTLE_TIME: Duration = Duration::from_secs(15);

/// The guard that makes this process the only one that works on the rows of its owner.
pub(super) enum Place {
    /// The node is not part of a fleet. Contains the node's lock.
    Alone(Option<NodeLock>),
    Member(Arc<Cluster>),
}

impl Place {
    /// Returns the fleet that the node is part of.
    pub(super) fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::Alone(_) => None,
            Self::Member(cluster) => Some(cluster),
        }
    }

    /// Returns the node's id, if the node is part of a fleet.
    pub(super) fn member(&self) -> Option<&str> {
        self.cluster().map(|cluster| cluster.node_id())
    }

    /// Returns a token that is cancelled once another process has become this node. This process
    /// then drains.
    pub(super) fn lost(&self) -> CancellationToken {
        match self {
            Self::Alone(lock) => lock.as_ref().map(NodeLock::lost).unwrap_or_default(),
            // A process that was declared dead exits at once, see `exit_if_dead`.
            Self::Member(_) => CancellationToken::new(),
        }
    }

    /// Returns the name under which this process owns rows.
    pub(super) fn owner(&self, node_id: &str) -> String {
        match self {
            Self::Alone(_) => node_id.to_owned(),
            Self::Member(cluster) => cluster.owner(),
        }
    }
}

/// Refuses to run outside the fleet on the database of a fleet with running nodes.
///
/// # Errors
/// Returns an error if the database does not answer, or if such a node runs.
pub(super) async fn refuse_beside_fleet(
    config: &Config,
    store: &Store,
    clock: &Clock,
) -> Result<(), StartError> {
    if let (None, Database::Postgres(_)) = (&config.cluster.peer, &config.store.database)
        && let Some(other) = has_members(store, clock).await?
    {
        return Err(StartError::BesideFleet(other));
    }
    Ok(())
}

/// Joins the fleet of `[cluster] peer`, or continues the membership of another process of this node
/// that has `moved`, with its listener.
///
/// # Errors
/// Returns an error if the peer port can't be bound, the database does not answer, or this node and
/// another one exclude each other.
pub(super) async fn join(
    config: &Config,
    peer: &str,
    node_id: &str,
    store: &Store,
    clock: &Clock,
    gate: &Arc<Gate>,
    (moved, listener): (Option<MovedMember>, Option<TcpListener>),
) -> Result<Cluster, StartError> {
    let advertise = config.cluster.advertise.as_deref();
    let moved_peers = moved.as_ref().zip(listener);
    let moved_peers =
        moved_peers.map(|(moved, listener)| MovedPeers { listener, identity: moved.identity() });
    let times = PeerTimes::default();
    let peers = Peers::bind(peer, advertise, times, clock.clone(), moved_peers).await;
    let peers = peers
        .map_err(|error| StartError::Listen { why: error.to_string(), key: "cluster.peer" })?;
    let about = About {
        peer: peers.address().to_owned(),
        pin: peers.pin(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        key: store.key_fingerprint(),
        numbers: config.numbers_digest(),
        media: media_addresses(config),
        ..About::default()
    };
    let (node_id, strict) = (node_id.to_owned(), config.cluster.strict);
    let options = JoinOptions { node_id, about, strict, peers };
    let is_moved = moved.is_some();
    let cluster = Cluster::join(store.clone(), clock.clone(), options, gate.clone(), moved).await?;
    store.write_as(cluster.run());
    match is_moved {
        true => info!(run = %cluster.run(), "continued as a member of the fleet"),
        false => info!(run = %cluster.run(), "joined the fleet"),
    }
    Ok(cluster)
}

/// Returns the media addresses in SDP answers.
fn media_addresses(config: &Config) -> Vec<SocketAddr> {
    let at = config.listen.media;
    let ips = match config.public.media_ips.listed() {
        [] => vec![at.ip()],
        ips => ips.to_vec(),
    };
    // Relayed addresses are different for each process.
    let is_given = |address: &SocketAddr| {
        config.turn.is_none() && address.port() != 0 && !address.ip().is_unspecified()
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, at.port())).filter(is_given).collect()
}

/// Ends the calls and other unfinished work of this node's earlier processes, under any of their
/// names: as a node outside a fleet, or as another run of a fleet.
///
/// # Errors
/// Returns an error if the database does not answer.
pub(super) async fn settle_earlier(
    owners: &[String],
    reaper: &NodeReaper,
) -> Result<(), StoreError> {
    for owner in owners {
        reaper.settle(owner).await?;
    }
    Ok(())
}

/// Takes over the recordings of this node's earlier processes. Returns the owners of other
/// unfinished work.
///
/// # Errors
/// Returns an error if the database does not answer.
pub(super) async fn inherit(
    config: &Config,
    store: &Store,
    node_id: &str,
    owner: &str,
) -> Result<Vec<String>, StoreError> {
    let Database::Postgres(_) = config.store.database else { return Ok(Vec::new()) };
    let mut session = store.fleet_session().await?;
    let owners = session.inherit(node_id, owner).await?;
    session.close().await?;
    Ok(owners)
}

/// Forwards REST requests about a live call or another node to the responsible node.
pub(super) struct Forwarder {
    pub(super) apis: Apis,
    /// The files of other nodes that clients read.
    pub(super) files: Pool,
    pub(super) node_id: String,
    pub(super) cluster: Arc<Cluster>,
    pub(super) claims: Arc<FleetClaims>,
    pub(super) registry: Registry,
    pub(super) dialer: Dialer,
    pub(super) rooms: Rooms,
    pub(super) room_hosts: Arc<FleetRooms>,
    pub(super) settings: Arc<SharedSettings>,
    pub(super) store: Store,
    /// The count of changed settings that was last sent to the other nodes.
    pub(super) announced: AtomicI64,
}

/// Forwards requests to the APIs and the console to the responsible node. The event streams of the
/// console render their pages by such requests.
pub(super) fn with_forwarding(router: Router, forwarder: Forwarder) -> Router {
    let forwarding = router.layer(from_fn_with_state(Arc::new(forwarder), forward));
    forwarding.clone().layer(Extension(FleetPages(forwarding)))
}

async fn forward(
    State(forwarder): State<Arc<Forwarder>>,
    request: axum::extract::Request,
    next: Next,
) -> Response<Body> {
    let Forwarder { node_id, cluster, claims, registry, dialer, .. } = &*forwarder;
    if is_file(request.uri().path()) {
        return forwarder.file(request, next).await;
    }
    let subject = subject_of(request.uri().path())
        .filter(|subject| *subject != Subject::All || request.method() == Method::DELETE);
    let is_here = match subject {
        Some(Subject::Call(call)) => registry.get(call).is_some() || dialer.find(call).is_some(),
        _ => false,
    };
    if is_here {
        return next.run(request).await;
    }
    if !is_of_this_node(request.uri().path())
        && let Some(carrier) = carrier(cluster, &request)
    {
        return forwarder.relay(carrier, request).await;
    }
    if subject.is_some() {
        match forwarder.apis.caller(request.headers()).await {
            // This node refuses it, before it costs the database or other nodes anything.
            Caller::Unknown => return next.run(request).await,
            Caller::Of(account) => {
                let claims = request.extensions().get::<RequestClaims>();
                if claims.is_some_and(|claims| !claims.admit_caller(&account)) {
                    return listener_error(
                        StatusCode::TOO_MANY_REQUESTS,
                        "in_progress",
                        TOO_MANY_IN_PROGRESS,
                    );
                }
            }
            Caller::NotChecked => {}
        }
    }
    let is_node = matches!(subject, Some(Subject::Node(_)));
    let owner = match subject {
        Some(Subject::Call(call)) => match claims.owner_of(call, SessionPurpose::Request).await {
            Ok(owner) => owner.filter(|owner| *owner != cluster.run()),
            Err(Unreachable) => return unreachable(OWNER_UNREACHABLE),
        },
        Some(Subject::Node(id)) if id != *node_id => {
            let others = cluster.others();
            others.iter().find(|other| other.node_id == id).map(|other| other.run)
        }
        Some(Subject::Room(room)) => match forwarder.host_of(&room).await {
            Ok(host) => host,
            Err(NoAnswer) => return unreachable(OWNER_UNREACHABLE),
        },
        Some(Subject::All) => return forwarder.at_all_nodes(request, next).await,
        Some(Subject::Node(_)) | None => None,
    };
    let Some(owner) = owner else {
        let is_change = !request.method().is_safe();
        let response = next.run(request).await;
        let is_refused = response.status().is_client_error() || response.status().is_server_error();
        return match is_change && !is_refused {
            true => forwarder.announce(response).await,
            false => response,
        };
    };
    let Some(forwarded) = forwardable(request, cluster::REST).await else { return too_large() };
    match cluster.peers().open(owner, forwarded).await {
        Ok(response) => without_hop_headers(response),
        Err(error) => {
            warn!(%owner, %error, "request not forwarded to another node");
            unreachable(if is_node { NODE_UNREACHABLE } else { OWNER_UNREACHABLE })
        }
    }
}

/// The paths of recordings and of users' files.
pub(super) const FILE_FOLDERS: [&str; 2] = ["/recordings/", "/media/"];

fn is_file(path: &str) -> bool {
    FILE_FOLDERS.iter().any(|folder| path.starts_with(folder))
}

/// Whether a request concerns this node's own files: its configuration or speech models.
fn is_of_this_node(path: &str) -> bool {
    ["/api/v1/reload", "/api/v1/models"].iter().any(|prefix| path.starts_with(prefix))
}

/// Marks a request that another node has relayed. It is not relayed again.
#[derive(Clone, Copy)]
pub(super) struct Relayed;

/// Returns the run that relays a request to the APIs or the console: this node has lost the
/// database, so that its accounts, keys and settings may be outdated. `None` if it has not.
fn carrier(cluster: &Cluster, request: &axum::extract::Request) -> Option<Uuid> {
    let is_api = ["/v1/", "/api/", "/console/"]
        .iter()
        .any(|prefix| request.uri().path().starts_with(prefix));
    let is_first = request.extensions().get::<Relayed>().is_none();
    let can_be_relayed = is_api && is_first && !request.headers().contains_key(UPGRADE);
    cluster.state().borrow().carrier.filter(|_| can_be_relayed)
}

/// Refuses requests with credentials that another node, which has the database, does not accept.
/// Only requests about this node and its calls get here while it has lost the database.
pub(super) async fn confirm_credentials(
    State(cluster): State<Arc<Cluster>>,
    request: axum::extract::Request,
    next: Next,
) -> Response<Body> {
    let Some(carrier) = carrier(&cluster, &request) else { return next.run(request).await };
    let account = match request.uri().path().strip_prefix("/v1/Account/") {
        Some(path) => format!("/v1/Account/{}/", path.split('/').next().unwrap_or_default()),
        None => "/api/v1/account/".to_owned(),
    };
    let account = account.parse().unwrap_or_default();
    let mut question = without_body(&request, &Method::GET, &account);
    question.headers_mut().remove(CONTENT_TYPE);
    let Some(question) = forwardable(question, cluster::RELAY).await else { return too_large() };
    match cluster.peers().open(carrier, question).await {
        Ok(answer) if answer.status().is_success() => {
            let response = next.run(request).await;
            match response.status() {
                StatusCode::UNAUTHORIZED => unreachable(NEW_CREDENTIALS),
                _ => response,
            }
        }
        Ok(refused) => without_hop_headers(refused),
        Err(_) => unreachable(CARRIER_UNREACHABLE),
    }
}

fn without_hop_headers(mut response: Response<Body>) -> Response<Body> {
    remove_hop_headers(response.headers_mut());
    response
}

impl Forwarder {
    /// Has another node execute a request, because this one has lost the database.
    async fn relay(&self, carrier: Uuid, request: axum::extract::Request) -> Response<Body> {
        let Some(relayed) = forwardable(request, cluster::RELAY).await else { return too_large() };
        match self.cluster.peers().open(carrier, relayed).await {
            Ok(response) => without_hop_headers(response),
            Err(error) => {
                warn!(%carrier, %error, "request not relayed to another node");
                unreachable(CARRIER_UNREACHABLE)
            }
        }
    }

    /// Returns the other node that hosts a room.
    async fn host_of(&self, room: &RoomSubject) -> Result<Option<Uuid>, NoAnswer> {
        let RoomSubject { account, kind, name } = room;
        let here = self.rooms.find(&Scope::of(account.clone()), *kind, name);
        // An id is that of one room.
        let is_id = *kind == RoomKind::MultiParty && name.starts_with("uuid_");
        if here.as_ref().is_some_and(|here| here.account == *account || is_id) {
            return Ok(None);
        }
        let named = match (kind, name.strip_prefix("name_"), name.strip_prefix("uuid_")) {
            (RoomKind::Conference, _, _) => Ok(name.as_str()),
            (RoomKind::MultiParty, Some(name), _) => Ok(name),
            (RoomKind::MultiParty, None, Some(id)) => match id.parse() {
                Ok(id) => Err(id),
                Err(_) => return Ok(None),
            },
            (RoomKind::MultiParty, None, None) => return Ok(None),
        };
        // The account's own room precedes that of a subaccount, wherever it is.
        let own_only = here.is_some();
        let host = self.room_hosts.find(account, *kind, named, own_only).await?;
        Ok(host.filter(|host| *host != self.cluster.run()))
    }

    /// Forwards a request to all nodes, which execute it. Returns this node's response.
    async fn at_all_nodes(&self, request: axum::extract::Request, next: Next) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = axum::body::to_bytes(body, BODY_MAX).await else { return too_large() };
        let again = || axum::extract::Request::from_parts(head.clone(), Body::from(body.clone()));
        let others = self.cluster.others().into_iter().filter(|other| other.state.is_member());
        let failures = others.map(|other| async move {
            let forwarded = forwardable(again(), cluster::REST).await?;
            let answer = self.cluster.peers().send(other.run, forwarded).await;
            answer.is_err().then_some(other.node_id)
        });
        let silent: Vec<String> = join_all(failures).await.into_iter().flatten().collect();
        let mut response = next.run(again()).await;
        name_silent(&mut response, &silent);
        response
    }

    /// Responds to a request for a file, which may be on the disk of another node.
    async fn file(&self, request: axum::extract::Request, next: Next) -> Response<Body> {
        let client = request.extensions().get::<Peer>().map(|Peer(client)| *client);
        let claims = request.extensions().get::<RequestClaims>();
        let kill = claims.map(|claims| claims.connection.evicted().clone()).unwrap_or_default();
        let copy = without_body(&request, request.method(), request.uri());
        let response = next.run(request).await;
        let Some(FileElsewhere { owner }) = response.extensions().get().cloned() else {
            return response;
        };
        let Some(forwarded) = forwardable(copy, cluster::REST).await else { return response };
        let is_owner =
            |node_id: &str| owner.as_ref().is_none_or(|owner| node_of_owner(owner) == node_id);
        if owner.is_some() && is_owner(&self.node_id) {
            return response;
        }
        let members = self.cluster.others().into_iter().filter(|other| other.state.is_member());
        let client = client.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let claim = self.files.claim_until(client, 1, kill);
        let mut is_silent = false;
        for member in members.filter(|member| is_owner(&member.node_id)) {
            match self.cluster.peers().open(member.run, forwarded.clone()).await {
                Ok(found) if found.status() != StatusCode::NOT_FOUND => {
                    let mut found = cluster::hold_until_end(found, claim);
                    let length = found.headers().get(CONTENT_LENGTH).cloned();
                    remove_hop_headers(found.headers_mut());
                    // The response to HEAD has no body from which the length is known.
                    length.map(|length| found.headers_mut().insert(CONTENT_LENGTH, length));
                    found.extensions_mut().insert(Download);
                    return found;
                }
                Ok(_) => {}
                Err(error) => {
                    warn!(node_id = %member.node_id, %error, "file of another node not read");
                    is_silent = true;
                }
            }
        }
        // The node of a recording is known: its disk has the file.
        match is_silent || owner.is_some() {
            true => file_unreachable(),
            false => response,
        }
    }

    /// Waits until settings that a request has changed are in effect at all nodes, or for a second.
    /// Reports the number of these nodes to the client.
    async fn announce(&self, mut response: Response<Body>) -> Response<Body> {
        // The client finds what the request has written at other nodes, too.
        self.store.flush().await;
        let Ok(term) = self.settings.count().await else { return response };
        if self.announced.fetch_max(term.book, Ordering::AcqRel) >= term.book {
            return response;
        }
        let members = self.cluster.others().into_iter().filter(|other| other.state.is_member());
        let results = members.map(|member| async move {
            let request = post(SETTINGS, Bytes::new());
            let answer = self.cluster.peers().send(member.run, request);
            let answer = tokio::time::timeout(SETTINGS_TIME, answer).await;
            matches!(answer, Ok(Ok(answer)) if answer.status() == StatusCode::OK)
        });
        let results = join_all(results).await;
        // This node counts, too.
        let (applied, all) =
            (results.iter().filter(|is_applied| **is_applied).count() + 1, results.len() + 1);
        if let Ok(applied) = format!("{applied}/{all}").parse() {
            response.headers_mut().insert(APPLIED, applied);
        }
        response
    }
}

/// Returns a request from the same client with the same headers, without a body.
fn without_body(of: &axum::extract::Request, method: &Method, uri: &Uri) -> axum::extract::Request {
    let mut copy = axum::extract::Request::new(Body::empty());
    *copy.method_mut() = method.clone();
    *copy.uri_mut() = uri.clone();
    *copy.headers_mut() = of.headers().clone();
    of.extensions().get::<Peer>().map(|client| copy.extensions_mut().insert(*client));
    copy
}

/// Returns a request in the form in which it is sent to another node, with a path below `prefix`.
/// `None` if its body can't be read.
async fn forwardable(request: axum::extract::Request, prefix: &str) -> Option<Request<Bytes>> {
    let client = request.extensions().get::<Peer>().map(|Peer(client)| client.to_string());
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_MAX).await.ok()?;
    let mut forwarded = Request::new(body);
    *forwarded.method_mut() = head.method;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    *forwarded.uri_mut() = format!("{prefix}{path}").parse().ok()?;
    *forwarded.headers_mut() = head.headers;
    remove_hop_headers(forwarded.headers_mut());
    if let Some(client) = client.and_then(|client| client.parse().ok()) {
        forwarded.headers_mut().insert(CLIENT, client);
    }
    Some(forwarded)
}

/// The subject of a request that another node may have to answer.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    Call(CallUuid),
    Node(String),
    Room(RoomSubject),
    /// All calls or all conferences of an account, which a `DELETE` ends.
    All,
}

/// The room identified by a request path.
#[derive(Debug, PartialEq, Eq)]
struct RoomSubject {
    account: AuthId,
    kind: RoomKind,
    name: String,
}

fn subject_of(path: &str) -> Option<Subject> {
    let console = path.strip_prefix("/console/operations/nodes/");
    if let Some(rest) = console.or(path.strip_prefix("/api/v1/nodes/")) {
        let (node, action) = rest.split_once('/').unwrap_or((rest, ""));
        // Any other node forgets a node.
        let is_asked = !node.is_empty() && action.trim_end_matches('/') != "forget";
        return is_asked.then(|| Subject::Node(node.to_owned()));
    }
    if let Some(room) = room_of(path) {
        return Some(room);
    }
    let mut segments = path.split('/').skip(1);
    let calls: &[&str] = match segments.next()? {
        // A request is a call that waits.
        "v1" => &["Call", "Request"],
        "api" | "console" => &["calls"],
        _ => return None,
    };
    let found = segments.find(|segment| calls.contains(segment))?;
    match segments.next()? {
        "" if found == "Call" => Some(Subject::All),
        call => call.parse().ok().map(Subject::Call),
    }
}

fn room_of(path: &str) -> Option<Subject> {
    let mut segments = path.strip_prefix("/v1/Account/")?.split('/');
    let account = AuthId::from(segments.next()?);
    let kind = match segments.next()? {
        "Conference" => RoomKind::Conference,
        "MultiPartyCall" => RoomKind::MultiParty,
        _ => return None,
    };
    let name = percent_decode_str(segments.next().unwrap_or_default()).decode_utf8().ok()?;
    match (kind, name.is_empty()) {
        (_, false) => Some(Subject::Room(RoomSubject { account, kind, name: name.into_owned() })),
        (RoomKind::Conference, true) => Some(Subject::All),
        (RoomKind::MultiParty, true) => None,
    }
}

fn too_large() -> Response<Body> {
    let message = "the body could not be read or is larger than 3 MiB";
    listener_error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
}

const OWNER_UNREACHABLE: &str =
    "the node that has this call or room does not answer; try again in a second";
const CARRIER_UNREACHABLE: &str = "the database does not answer this node, and the node that \
    answers in its place does not, either; try again in a second";
const NEW_CREDENTIALS: &str = "the database does not answer the node that has this call, and the \
    node does not know these credentials yet; try again later";
const NODE_UNREACHABLE: &str =
    "the node does not answer; if it does not run, other nodes end its calls by themselves";

/// The response for an unreachable node. It is never 404, because the call or room may be live.
fn unreachable(message: &str) -> Response<Body> {
    let mut response = listener_error(StatusCode::SERVICE_UNAVAILABLE, "node_unreachable", message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// The response for a file on the disk of a node that does not run, or does not answer.
fn file_unreachable() -> Response<Body> {
    let message =
        "the node that has this file does not answer, and there is no copy; try again when it runs";
    let mut response = listener_error(StatusCode::SERVICE_UNAVAILABLE, "node_unreachable", message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("30"));
    response
}

/// Removes the headers that belong to one connection (RFC 9110, section 7.6.1).
fn remove_hop_headers(headers: &mut HeaderMap) {
    for name in [CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// Waits until the fleet gives out units, with a timeout of some seconds.
pub(super) async fn wait_until_settled(cluster: &Cluster) {
    if tokio::time::timeout(SETTLE_TIME, cluster.settled()).await.is_err() {
        warn!("the fleet still gives out no units: calls are rejected until it does");
    }
    cluster.start();
}

/// Ends this process once the other nodes have declared it dead. Its calls, callbacks and rows
/// belong to them by then. It does not drain, because it must not report anything to Meta or
/// customers.
pub(super) async fn exit_if_dead(cluster: Arc<Cluster>, stop: CancellationToken) {
    let dead = cluster.dead();
    if stop.run_until_cancelled(dead.cancelled()).await.is_some() {
        error!("the other nodes have declared this process dead and ended its calls: exiting");
        std::process::exit(1);
    }
}

/// Reads settings that another node has changed. Each answer to a beat contains the number of
/// changes.
pub(super) async fn follow_settings(
    cluster: Arc<Cluster>,
    settings: Arc<SharedSettings>,
    clock: Clock,
    stop: CancellationToken,
) {
    let mut state = cluster.state();
    let mut behind_since = None;
    loop {
        let term = state.borrow_and_update().term;
        if let Some(term) = term {
            let now = clock.now();
            match settings.refresh(&term).await {
                Ok(_) => behind_since = None,
                Err(error) => {
                    warn!(%error, "settings of another node not read, trying again");
                    behind_since.get_or_insert(now);
                }
            }
        }
        let lag = behind_since
            .map_or(Duration::ZERO, |since| clock.now().saturating_duration_since(since));
        metrics::gauge!(metric::BOOK_LAG_SECONDS).set(lag.as_secs_f64());
        if !matches!(stop.run_until_cancelled(state.changed()).await, Some(Ok(()))) {
            return;
        }
    }
}

/// Adds the live calls of the other nodes to a list, and the names of nodes that do not answer.
pub(super) async fn add_live_calls(
    cluster: &Cluster,
    scope: &Scope,
    list: &mut LiveList<LiveCall>,
) {
    let account = Bytes::copy_from_slice(scope.auth_id().as_str().as_bytes());
    for (node_id, calls) in ask_others(cluster, LIVE, &account).await {
        match calls {
            Some::<Vec<LiveCall>>(calls) => list.calls.extend(calls),
            None => list.silent.push(node_id),
        }
    }
}

/// A request for the rooms of a node.
#[derive(Serialize, Deserialize)]
pub(super) struct RoomQuery {
    pub(super) account: AuthId,
    pub(super) kind: RoomKind,
}

/// The rooms of the other nodes.
pub(super) struct RoomsOfOthers(pub(super) Arc<Cluster>);

impl OtherRooms for RoomsOfOthers {
    fn add<'a>(
        &'a self,
        scope: &'a Scope,
        kind: RoomKind,
        list: &'a mut RoomList,
    ) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let query = RoomQuery { account: scope.auth_id().clone(), kind };
            let query = Bytes::from(serde_json::to_vec(&query).unwrap_or_default());
            for (node_id, rooms) in ask_others(&self.0, ROOMS, &query).await {
                match rooms {
                    Some::<Vec<RoomView>>(rooms) => list.rooms.extend(rooms),
                    None => list.silent.push(node_id),
                }
            }
        })
    }
}

/// Sends a request to all other nodes and returns their responses. `None` is for a node that does
/// not answer.
async fn ask_others<T: DeserializeOwned>(
    cluster: &Cluster,
    path: &'static str,
    body: &Bytes,
) -> Vec<(String, Option<T>)> {
    let others = cluster.others().into_iter().filter(|other| other.state.is_member());
    let asked = others.map(|other| async move {
        let request = post(path, body.clone());
        let answer = tokio::time::timeout(STATUS_TIME, cluster.peers().send(other.run, request));
        let answer = answer.await.ok().and_then(Result::ok);
        let read = |answer: Response<Bytes>| serde_json::from_slice(answer.body()).ok();
        (other.node_id, answer.and_then(read))
    });
    join_all(asked).await
}

/// Requests the status of all other nodes. Nodes that do not answer are included.
pub(super) fn other_nodes(cluster: &Arc<Cluster>) -> BoxFuture<'static, Vec<NodeStatus>> {
    let cluster = cluster.clone();
    Box::pin(async move {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = Uri::from_static(NODE);
        let asked = cluster.others().into_iter().map(|other| {
            let (peers, request) = (cluster.peers(), request.clone());
            async move {
                let version = About::read(&other).version;
                let silent = |state| NodeStatus::silent(&other.node_id, &version, state);
                if !other.state.is_member() {
                    return silent(NodeState::Dead);
                }
                let answer = tokio::time::timeout(STATUS_TIME, peers.send(other.run, request));
                let answer = answer.await.ok().and_then(Result::ok);
                let read = |answer: Response<Bytes>| serde_json::from_slice(answer.body()).ok();
                answer.and_then(read).unwrap_or_else(|| silent(NodeState::Unreachable))
            }
        });
        join_all(asked).await
    })
}

/// Makes the inbox notify other nodes about messages that their agents must answer.
pub(super) fn share_turns(inbox: &Inbox, cluster: Arc<Cluster>) {
    inbox.turns().share(Box::new(move |run| {
        let cluster = cluster.clone();
        tokio::spawn(async move {
            let request = post(TURNS, Bytes::new());
            // The other node looks for them every few seconds, too.
            let _ = cluster.peers().send(run, request).await;
        });
    }));
}

/// Announces to the other nodes that this one is draining, and hands its waiting calls over. Ends
/// these calls if no other node adopts them. The process does not end before, within its time limits.
pub(super) fn tell_drain(
    tasks: &TaskTracker,
    cluster: Arc<Cluster>,
    dialer: Dialer,
    waiting: Vec<Waiting>,
) {
    tasks.spawn(async move {
        // It takes no more work of others. If this is not written, they hand it work until it ends.
        if let Err(error) = cluster.drain().await {
            warn!(%error, "drain not announced to the fleet");
        }
        if waiting.is_empty() {
            return;
        }
        let others = cluster.others().into_iter().filter(|other| other.state == RunState::Up);
        for other in others {
            let request = post(WAITING, Bytes::new());
            let answer = cluster.peers().send_within(other.run, request, HAND_OVER_TIME).await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                info!(calls = waiting.len(), node_id = %other.node_id, "handed over waiting calls");
                return dialer.forget_adopted(waiting);
            }
        }
        dialer.give_up_unadopted(waiting).await;
    });
}

/// Updates `/readyz`: a strict node admits no calls while the database does not answer its beats.
pub(super) async fn follow_contact(cluster: Arc<Cluster>, health: Health, stop: CancellationToken) {
    let mut state = cluster.state();
    loop {
        health.set_cut_off(state.borrow_and_update().is_cut_off);
        if !matches!(stop.run_until_cancelled(state.changed()).await, Some(Ok(()))) {
            return;
        }
    }
}

/// Sets the gauges of the fleet.
pub(super) fn publish_gauges(cluster: &Cluster, is_draining: bool) {
    let status = cluster.status();
    let flag = |is: bool| if is { 1.0 } else { 0.0 };
    metrics::gauge!(metric::CLUSTER_DEGRADED).set(flag(!status.is_connected));
    metrics::gauge!(metric::TERM_OPEN).set(flag(status.term.is_some_and(|term| term.open)));
    let age = status.beat_age.unwrap_or_default();
    metrics::gauge!(metric::BEAT_AGE_SECONDS).set(age.as_secs_f64());
    for (state, count) in status.counts(is_draining) {
        metrics::gauge!(metric::NODES, "state" => state).set(count as f64);
    }
    let UnitCounts { slots_held, slots_used, permits_held, permits_used } = status.units;
    for (kind, what, count) in [
        (unit::SLOT, unit::HELD, slots_held),
        (unit::SLOT, unit::USED, slots_used),
        (unit::PERMIT, unit::HELD, permits_held),
        (unit::PERMIT, unit::USED, permits_used),
    ] {
        metrics::gauge!(metric::UNITS, "kind" => kind, "what" => what).set(count as f64);
    }
}

#[cfg(test)]
mod tests {
    use machine::RoomKind;
    use model::AuthId;

    use super::{NodeStatus, RoomSubject, Subject, subject_of};

    #[test]
    fn f40_the_status_of_a_node_of_another_version_is_read() {
        let earlier = serde_json::json!({
            "id": "a1", "version": "0.0.9", "state": "ready", "liveCalls": 3, "fetches": [], "graph": [],
        });
        let mut later = earlier.clone();
        later["load"] = 0.5.into();
        later["later"] = serde_json::json!({"x": [1]});
        for (status, load) in [(earlier, None), (later, Some(0.5))] {
            let status: NodeStatus = serde_json::from_value(status).unwrap();
            assert_eq!((status.live_calls, status.load), (Some(3), load));
        }
    }

    #[test]
    fn f07_the_subject_of_a_request_is_in_its_path() {
        const CALL: &str = "0197c5f0-0000-7000-8000-000000000001";
        for path in [
            format!("/v1/Account/MA1/Call/{CALL}/"),
            format!("/v1/Account/MA1/Call/{CALL}/Speak/"),
            format!("/api/v1/calls/{CALL}/events"),
            format!("/console/calls/{CALL}/hangup"),
        ] {
            assert_eq!(subject_of(&path), Some(Subject::Call(CALL.parse().unwrap())), "{path}");
        }
        let node = Some(Subject::Node("a1".to_owned()));
        assert_eq!(subject_of("/api/v1/nodes/a1/drain/"), node);
        assert_eq!(subject_of("/console/operations/nodes/a1/drain"), node);
        let room = |kind, name: &str| {
            let (account, name) = (AuthId::from("MA1"), name.to_owned());
            Some(Subject::Room(RoomSubject { account, kind, name }))
        };
        for (path, subject) in [
            ("Conference/Team%20room/", room(RoomKind::Conference, "Team room")),
            ("Conference/Call/Member/7/Mute/", room(RoomKind::Conference, "Call")),
            ("MultiPartyCall/name_care/Participant/", room(RoomKind::MultiParty, "name_care")),
            ("Conference/", Some(Subject::All)),
            ("Call/", Some(Subject::All)),
            ("MultiPartyCall/", None),
            ("Conference/%ff/", None),
        ] {
            assert_eq!(subject_of(&format!("/v1/Account/MA1/{path}")), subject, "{path}");
        }
        for path in [
            "/api/v1/nodes/",
            "/api/v1/nodes/a1/forget/",
            "/v1/Account/MA1/Request/",
            "/api/v1/calls/",
            "/console/calls/x",
            "/",
            "",
        ] {
            assert_eq!(subject_of(path), None, "{path}");
        }
    }
}
