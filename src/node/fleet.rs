//! Makes the node part of a fleet, if `[cluster] peer` is set.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::middleware::{Next, from_fn_with_state};
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderName, RETRY_AFTER, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::StartError;
use crate::api::listener_error;
use crate::api::server::Peer;
use engine::admission::Gate;
use engine::call::{Dialer, Registry};
use engine::cluster::{
    self, About, Cluster, FleetClaims, JoinOptions, NodeReaper, PeerHandler, PeerTimes, Peers,
    has_members,
};
use engine::config::Config;
use engine::shared_settings::SharedSettings;
use engine::webhook::{self, SignedWebhook, Unreachable, WebhookHandler};
use model::{CallUuid, Clock, metric};
use store::{Database, NodeLock, Store, StoreError};

/// Prefix of the paths of clients' requests that a node passes on.
const REST: &str = "/rest";

/// Header with the client's address in such a request. Only other nodes can send it.
const CLIENT: HeaderName = HeaderName::from_static("x-offhook-client");

/// Header with the names of the nodes that are missing in a list.
const PARTIAL: HeaderName = HeaderName::from_static("x-offhook-partial");

/// The largest body of a request that is passed on.
const BODY_MAX: usize = 3 * 1024 * 1024;

/// How long a start waits until the fleet gives out units. The node is ready without them, too: it
/// waits for a unit with each call.
const SETTLE_TIME: Duration = Duration::from_secs(5);

/// What makes this process the only one that works on the rows of its owner.
pub(super) enum Place {
    /// The node is alone.
    Alone(Option<NodeLock>),
    Member(Arc<Cluster>),
}

impl Place {
    /// The fleet that the node is part of.
    pub(super) fn cluster(&self) -> Option<&Arc<Cluster>> {
        match self {
            Self::Alone(_) => None,
            Self::Member(cluster) => Some(cluster),
        }
    }

    /// Cancelled once another process has become this node. This one drains.
    pub(super) fn lost(&self) -> CancellationToken {
        match self {
            Self::Alone(lock) => lock.as_ref().map(NodeLock::lost).unwrap_or_default(),
            // A process that was declared dead exits at once, see `exit_if_dead`.
            Self::Member(_) => CancellationToken::new(),
        }
    }

    /// The name under which this process owns rows.
    pub(super) fn owner(&self, node_id: &str) -> String {
        match self {
            Self::Alone(_) => node_id.to_owned(),
            Self::Member(cluster) => cluster.owner(),
        }
    }
}

/// Refuses to run alone on the database of a fleet whose nodes run.
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

/// Joins the fleet of `[cluster] peer`.
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
) -> Result<Cluster, StartError> {
    let advertise = config.cluster.advertise.as_deref();
    let peers = Peers::bind(peer, advertise, PeerTimes::default()).await;
    let peers = peers.map_err(|error| StartError::Listen(format!("{error}; see cluster.peer")))?;
    let about = About {
        peer: peers.address().to_owned(),
        pin: peers.pin(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        media: media_addresses(config),
        ..About::default()
    };
    let (node_id, strict) = (node_id.to_owned(), config.cluster.strict);
    let options = JoinOptions { node_id, about, strict, peers };
    let cluster = Cluster::join(store.clone(), clock.clone(), options, gate.clone()).await?;
    info!(run = %cluster.run(), "joined the fleet");
    Ok(cluster)
}

/// The addresses of media in SDP answers.
fn media_addresses(config: &Config) -> Vec<SocketAddr> {
    let at = config.listen.media;
    let ips = match config.public.media_ips.is_empty() {
        true => vec![at.ip()],
        false => config.public.media_ips.clone(),
    };
    let is_given = |address: &SocketAddr| address.port() != 0 && !address.ip().is_unspecified();
    ips.into_iter().map(|ip| SocketAddr::new(ip, at.port())).filter(is_given).collect()
}

/// Ends what earlier processes of this node have left, under any name: it was alone, or another run
/// of a fleet.
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

/// Makes the recordings of earlier processes of this node its own. Returns the owners whose other
/// work is unfinished.
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

/// Passes REST requests about a live call or another node on to the right node.
pub(super) struct Forwarder {
    pub(super) node_id: String,
    pub(super) cluster: Arc<Cluster>,
    pub(super) claims: Arc<FleetClaims>,
    pub(super) registry: Registry,
    pub(super) dialer: Dialer,
}

/// Adds the forwarding of requests to the paths of the APIs.
pub(super) fn with_forwarding(router: Router, forwarder: Forwarder) -> Router {
    router.layer(from_fn_with_state(Arc::new(forwarder), forward))
}

async fn forward(
    State(forwarder): State<Arc<Forwarder>>,
    request: axum::extract::Request,
    next: Next,
) -> Response<Body> {
    let Forwarder { node_id, cluster, claims, registry, dialer } = &*forwarder;
    let owner = match subject_of(request.uri().path()) {
        Some(Subject::Call(call)) => {
            if registry.get(call).is_some() || dialer.find(call).is_some() {
                return next.run(request).await;
            }
            match claims.owner_of(call).await {
                Ok(owner) => owner.filter(|owner| *owner != cluster.run()),
                Err(Unreachable) => return unreachable(),
            }
        }
        Some(Subject::Node(id)) if id != *node_id => {
            let others = cluster.others();
            others.iter().find(|other| other.node_id == id).map(|other| other.run)
        }
        Some(Subject::AllNodes) => return all_nodes(cluster, request, next).await,
        Some(Subject::Node(_)) | None => None,
    };
    let Some(owner) = owner else { return next.run(request).await };
    let Some(forwarded) = forwardable(request).await else {
        let message = "the body could not be read or is larger than 3 MiB";
        return listener_error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message);
    };
    match cluster.peers().open(owner, forwarded).await {
        Ok(response) => {
            let mut response = response.map(Body::new);
            remove_hop_headers(response.headers_mut());
            response
        }
        Err(error) => {
            warn!(%owner, %error, "request not passed on to another node");
            unreachable()
        }
    }
}

/// Returns a request in the form in which it is sent to another node. `None` if its body can't be
/// read.
async fn forwardable(request: axum::extract::Request) -> Option<Request<Bytes>> {
    let client = request.extensions().get::<Peer>().map(|Peer(client)| client.to_string());
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_MAX).await.ok()?;
    let mut forwarded = Request::new(body);
    *forwarded.method_mut() = head.method;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    *forwarded.uri_mut() = format!("{REST}{path}").parse().ok()?;
    *forwarded.headers_mut() = head.headers;
    remove_hop_headers(forwarded.headers_mut());
    if let Some(client) = client.and_then(|client| client.parse().ok()) {
        forwarded.headers_mut().insert(CLIENT, client);
    }
    Some(forwarded)
}

/// Answers the request for the list of nodes with the lists of all of them. Nodes that do not
/// answer are named in a header.
async fn all_nodes(
    cluster: &Cluster,
    request: axum::extract::Request,
    next: Next,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let copy = axum::extract::Request::from_parts(head.clone(), Body::empty());
    let own = next.run(axum::extract::Request::from_parts(head, body)).await;
    let Some(copy) = forwardable(copy).await.filter(|_| own.status() == StatusCode::OK) else {
        return own;
    };
    let (mut head, body) = own.into_parts();
    let read = |body: &[u8]| serde_json::from_slice::<NodeItems>(body).ok();
    let body = axum::body::to_bytes(body, BODY_MAX).await.unwrap_or_default();
    let Some(NodeItems { mut items }) = read(&body) else {
        return Response::from_parts(head, body.into());
    };
    let others = cluster.others().into_iter().filter(|other| other.state.is_member());
    let asked = others.map(|other| {
        let (peers, request) = (cluster.peers().clone(), copy.clone());
        async move { (peers.send(other.run, request).await, other.node_id) }
    });
    let mut silent = Vec::new();
    for (answer, node_id) in join_all(asked).await {
        let answer = answer.ok().filter(|answer| answer.status() == StatusCode::OK);
        match answer.and_then(|answer| read(answer.body())) {
            Some(theirs) => items.extend(theirs.items),
            None => silent.push(node_id),
        }
    }
    if let Ok(names) = silent.join(", ").parse()
        && !silent.is_empty()
    {
        head.headers.insert(PARTIAL, names);
    }
    head.headers.remove(CONTENT_LENGTH);
    let body = serde_json::to_vec(&NodeItems { items }).unwrap_or_default();
    Response::from_parts(head, body.into())
}

/// The list of nodes.
#[derive(Serialize, Deserialize)]
struct NodeItems {
    items: Vec<serde_json::Value>,
}

/// What a request is about, if another node may have to answer it.
#[derive(Debug, PartialEq, Eq)]
enum Subject {
    Call(CallUuid),
    Node(String),
    AllNodes,
}

fn subject_of(path: &str) -> Option<Subject> {
    let mut segments = path.split('/').skip(1);
    let calls = match segments.next()? {
        "v1" => "Call",
        "api" => "calls",
        _ => return None,
    };
    if let Some(rest) = path.strip_prefix("/api/v1/nodes/") {
        let node = rest.split('/').next().filter(|node| !node.is_empty());
        return Some(node.map_or(Subject::AllNodes, |node| Subject::Node(node.to_owned())));
    }
    segments.find(|segment| *segment == calls)?;
    segments.next()?.parse().ok().map(Subject::Call)
}

/// Never 404: the call may be live.
fn unreachable() -> Response<Body> {
    let message = "the node that has this call does not answer; try again in a second";
    let mut response = listener_error(StatusCode::SERVICE_UNAVAILABLE, "node_unreachable", message);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// Removes the headers that belong to one connection (RFC 9110, section 7.6.1).
fn remove_hop_headers(headers: &mut HeaderMap) {
    for name in [CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    headers.remove("keep-alive");
}

/// Answers the other nodes.
pub(super) struct PeerRequests {
    pub(super) cluster: Arc<Cluster>,
    pub(super) webhooks: Arc<WebhookHandler<Registry>>,
    /// The paths of the public listener, without forwarding: a request is passed on once.
    pub(super) router: Router,
}

impl PeerRequests {
    /// Answers a client's request that another node has received.
    fn rest(&self, mut request: Request<Bytes>) -> BoxFuture<'static, Response<Body>> {
        let router = self.router.clone();
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let Some(Ok(uri)) = path.strip_prefix(REST).map(str::parse::<Uri>) else {
            return empty(StatusCode::BAD_REQUEST);
        };
        *request.uri_mut() = uri;
        let client = request.headers_mut().remove(CLIENT);
        let client = client.and_then(|client| client.to_str().ok()?.parse::<IpAddr>().ok());
        if let Some(client) = client {
            request.extensions_mut().insert(Peer(client));
        }
        Box::pin(async move {
            let Ok(response) = router.oneshot(request.map(Body::from)).await;
            response
        })
    }
}

fn empty(status: StatusCode) -> BoxFuture<'static, Response<Body>> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    Box::pin(std::future::ready(response))
}

impl PeerHandler for PeerRequests {
    fn handle(&self, _: Uuid, request: Request<Bytes>) -> BoxFuture<'static, Response<Body>> {
        match request.uri().path() {
            cluster::WEBHOOK => {
                let (head, body) = request.into_parts();
                let webhook = SignedWebhook { body, headers: head.headers };
                empty(webhook::handle_forwarded(&self.webhooks, &webhook))
            }
            cluster::CALLS => {
                let (head, body) = request.into_parts();
                let (webhooks, headers) = (self.webhooks.clone(), head.headers);
                let taken = async move {
                    let webhook = SignedWebhook { body, headers };
                    webhook::handle_handed_over(&webhooks, &webhook).await
                };
                // Not cancelled with the connection: a call that was claimed must begin.
                let taken = tokio::spawn(taken);
                Box::pin(async move {
                    empty(taken.await.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)).await
                })
            }
            cluster::WANT => match serde_json::from_slice::<Vec<&str>>(request.body()) {
                Ok(keys) => {
                    self.cluster.give(&keys);
                    empty(StatusCode::OK)
                }
                Err(_) => empty(StatusCode::BAD_REQUEST),
            },
            path if path.starts_with(REST) => self.rest(request),
            _ => empty(StatusCode::NOT_FOUND),
        }
    }
}

/// Waits until the fleet gives out units, or for some seconds.
pub(super) async fn wait_until_settled(cluster: &Cluster) {
    if tokio::time::timeout(SETTLE_TIME, cluster.settled()).await.is_err() {
        warn!("the fleet gives out no units yet: a node that was lost may come back for 10 s");
    }
}

/// Ends this process once the other nodes have declared it dead. Its calls, its callbacks and its
/// rows are theirs by then: it must tell nobody anything, so it does not drain.
pub(super) async fn exit_if_dead(cluster: Arc<Cluster>, stop: CancellationToken) {
    let dead = cluster.dead();
    if stop.run_until_cancelled(dead.cancelled()).await.is_some() {
        error!("the other nodes have declared this process dead and ended its calls: exiting");
        std::process::exit(1);
    }
}

/// Reads settings again that another node has changed. Each answer to a beat has the number of
/// changes.
pub(super) async fn follow_settings(
    cluster: Arc<Cluster>,
    settings: SharedSettings,
    stop: CancellationToken,
) {
    let mut state = cluster.state();
    loop {
        let term = state.borrow_and_update().term;
        if let Some(term) = term
            && let Err(error) = settings.refresh(&term).await
        {
            warn!(%error, "settings of another node not read, trying again");
        }
        if !matches!(stop.run_until_cancelled(state.changed()).await, Some(Ok(()))) {
            return;
        }
    }
}

/// Keeps the metrics of the fleet up to date.
pub(super) async fn publish(cluster: Arc<Cluster>, stop: CancellationToken) {
    let mut state = cluster.state();
    loop {
        let now = *state.borrow_and_update();
        let degraded = if now.is_connected { 0.0 } else { 1.0 };
        metrics::gauge!(metric::CLUSTER_DEGRADED).set(degraded);
        let is_open = now.term.is_some_and(|term| term.open);
        metrics::gauge!(metric::TERM_OPEN).set(if is_open { 1.0 } else { 0.0 });
        if !matches!(stop.run_until_cancelled(state.changed()).await, Some(Ok(()))) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Subject, subject_of};

    #[test]
    fn f07_the_subject_of_a_request_is_in_its_path() {
        const CALL: &str = "0197c5f0-0000-7000-8000-000000000001";
        for path in [
            format!("/v1/Account/MA1/Call/{CALL}/"),
            format!("/v1/Account/MA1/Call/{CALL}/Speak/"),
            format!("/api/v1/calls/{CALL}/events"),
        ] {
            assert_eq!(subject_of(&path), Some(Subject::Call(CALL.parse().unwrap())), "{path}");
        }
        let node = Some(Subject::Node("a1".to_owned()));
        assert_eq!(subject_of("/api/v1/nodes/a1/drain/"), node);
        assert_eq!(subject_of("/api/v1/nodes/"), Some(Subject::AllNodes));
        for path in ["/v1/Account/MA1/Call/", "/api/v1/calls/", "/console/calls/x", "/", ""] {
            assert_eq!(subject_of(path), None, "{path}");
        }
    }
}
