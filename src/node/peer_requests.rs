//! Answers the requests of the other nodes of a fleet.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, Uri};
use tower::ServiceExt as _;
use tracing::{info, warn};
use uuid::Uuid;

use super::fleet::{
    CLIENT, LIVE, LIVE_MAX, NODE, ROOMS, ROOMS_MAX, Relayed, RoomQuery, SETTINGS, TURNS, WAITING,
};
use super::live::Live;
use super::operator::ThisNode;
use super::shared_counts::{self, SharedCounts};
use super::{shared_feed, shared_queues};
use crate::api::LiveCalls as _;
use crate::api::server::{Pause, Peer};
use crate::phone::{self, PhoneListener};
use engine::call::registry::CallKey;
use engine::call::rooms::Rooms;
use engine::call::seats::ByteStream;
use engine::call::seats::host::RoomHosting;
use engine::call::{Dialer, Outbox, Registry};
use engine::cluster::{self, Cluster, PeerHandler, Peers};
use engine::feed::Feed;
use engine::inbox::Inbox;
use engine::shared_settings::SharedSettings;
use engine::webhook::{self, HandOver, SignedWebhook, WebhookHandler};
use model::{AuthId, CallUuid};
use store::Scope;

/// Responds to the requests of other nodes.
pub(super) struct PeerRequests {
    pub(super) cluster: Arc<Cluster>,
    pub(super) webhooks: Arc<WebhookHandler<Registry>>,
    pub(super) node: Arc<ThisNode>,
    pub(super) inbox: Inbox,
    pub(super) feed: Feed,
    pub(super) outbox: Outbox,
    pub(super) live: Arc<Live>,
    pub(super) rooms: Rooms,
    pub(super) hosting: RoomHosting,
    pub(super) dialer: Dialer,
    pub(super) phones: PhoneListener,
    pub(super) counts: SharedCounts,
    pub(super) settings: Arc<SharedSettings>,
    /// Pauses the node while another process takes over.
    pub(super) pause: Pause,
    /// The routes of the public listener, without forwarding, so that a request is forwarded only
    /// once.
    pub(super) router: Router,
    /// The same with forwarding, for requests to a node that has lost the database.
    pub(super) forwarding: Router,
}

impl PeerRequests {
    /// Responds to a client's request that another node has received. Its path is below `prefix`.
    fn rest(
        &self,
        mut request: Request<Bytes>,
        prefix: &str,
        router: &Router,
    ) -> BoxFuture<'static, Response<Body>> {
        let router = router.clone();
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let Some(Ok(uri)) = path.strip_prefix(prefix).map(str::parse::<Uri>) else {
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
    fn handle(&self, sender: Uuid, request: Request<Bytes>) -> BoxFuture<'static, Response<Body>> {
        let Some(running) = self.pause.try_enter() else {
            return Box::pin(std::future::ready(Peers::moving()));
        };
        let response = self.respond(sender, request);
        // Not cancelled with the connection: a call that was claimed must begin, and a pause must wait
        // for it.
        let response = tokio::spawn(async move {
            let response = response.await;
            drop(running);
            response
        });
        Box::pin(async move {
            match response.await {
                Ok(response) => response,
                Err(_) => empty(StatusCode::INTERNAL_SERVER_ERROR).await,
            }
        })
    }

    fn serve_seats(&self, from: Uuid, stream: Box<dyn ByteStream>) -> BoxFuture<'static, ()> {
        let hosting = self.hosting.clone();
        Box::pin(async move { hosting.serve(from, stream).await })
    }
}

impl PeerRequests {
    fn respond(
        &self,
        sender: Uuid,
        mut request: Request<Bytes>,
    ) -> BoxFuture<'static, Response<Body>> {
        match request.uri().path() {
            cluster::WEBHOOK => {
                let (head, body) = request.into_parts();
                let webhook = SignedWebhook { body, headers: head.headers };
                empty(webhook::handle_forwarded(&self.webhooks, &webhook))
            }
            path @ (cluster::CALLS | cluster::HELD_CALLS | cluster::MESSAGES) => {
                let reason = match path {
                    cluster::CALLS => HandOver::NotAdmitted,
                    cluster::HELD_CALLS => HandOver::NoUnits,
                    _ => HandOver::Messages,
                };
                let (head, body) = request.into_parts();
                let (webhooks, headers) = (self.webhooks.clone(), head.headers);
                Box::pin(async move {
                    let webhook = SignedWebhook { body, headers };
                    empty(webhook::handle_handed_over(&webhooks, &webhook, reason).await).await
                })
            }
            cluster::HAS_CALL => {
                let query = serde_json::from_slice::<(CallKey, Option<CallUuid>)>(request.body());
                empty(match query {
                    Ok((key, named)) if self.webhooks.has_call(&key, named) => StatusCode::OK,
                    Ok(_) => StatusCode::NOT_FOUND,
                    Err(_) => StatusCode::BAD_REQUEST,
                })
            }
            SETTINGS => {
                let settings = self.settings.clone();
                Box::pin(async move {
                    let caught_up = settings.catch_up().await;
                    empty(match caught_up {
                        Ok(_) => StatusCode::OK,
                        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
                    })
                    .await
                })
            }
            shared_feed::FEED => empty(match shared_feed::receive(&self.feed, request.body()) {
                true => StatusCode::OK,
                false => StatusCode::BAD_REQUEST,
            }),
            shared_queues::QUEUES => {
                empty(match shared_queues::receive(&self.outbox, request.body()) {
                    true => StatusCode::OK,
                    false => StatusCode::BAD_REQUEST,
                })
            }
            LIVE => {
                let account = String::from_utf8_lossy(request.body());
                let mut calls = self.live.list(&Scope::of(AuthId::from(&*account)));
                calls.truncate(LIVE_MAX);
                let calls = serde_json::to_vec(&calls).unwrap_or_default();
                Box::pin(std::future::ready(Response::new(Body::from(calls))))
            }
            ROOMS => {
                let (status, rooms) = match serde_json::from_slice::<RoomQuery>(request.body()) {
                    Ok(RoomQuery { account, kind }) => {
                        let mut rooms = self.rooms.list(&Scope::of(account), kind);
                        rooms.truncate(ROOMS_MAX);
                        (StatusCode::OK, serde_json::to_vec(&rooms).unwrap_or_default())
                    }
                    Err(_) => (StatusCode::BAD_REQUEST, Vec::new()),
                };
                let mut response = Response::new(Body::from(rooms));
                *response.status_mut() = status;
                Box::pin(std::future::ready(response))
            }
            TURNS => {
                self.inbox.turns().notify_stored();
                empty(StatusCode::OK)
            }
            // All nodes may drain at the same time.
            WAITING if self.node.is_draining() => empty(StatusCode::SERVICE_UNAVAILABLE),
            WAITING => {
                let sender = self.cluster.others().into_iter().find(|other| other.run == sender);
                let dialer = self.dialer.clone();
                Box::pin(async move {
                    let adopted = match sender {
                        Some(sender) => dialer.adopt(&sender.owner()).await,
                        None => return empty(StatusCode::NOT_FOUND).await,
                    };
                    empty(match adopted {
                        Ok(calls) => {
                            info!(calls, "adopted waiting calls of a draining node");
                            StatusCode::OK
                        }
                        Err(error) => {
                            warn!(%error, "waiting calls not adopted");
                            StatusCode::SERVICE_UNAVAILABLE
                        }
                    })
                    .await
                })
            }
            shared_counts::COUNTS => empty(match self.counts.receive(request.body()) {
                true => StatusCode::OK,
                false => StatusCode::BAD_REQUEST,
            }),
            phone::PEER_PATH => match self.phones.answer_peer(sender, request.body()) {
                Some(answer) => Box::pin(std::future::ready(Response::new(Body::from(answer)))),
                None => empty(StatusCode::BAD_REQUEST),
            },
            NODE => {
                let status = serde_json::to_vec(&self.node.status()).unwrap_or_default();
                Box::pin(std::future::ready(Response::new(Body::from(status))))
            }
            cluster::BEAT => {
                let cluster = self.cluster.clone();
                Box::pin(async move {
                    match cluster.carry(sender, request.body()).await {
                        Some(answer) => Response::new(Body::from(answer)),
                        None => empty(StatusCode::SERVICE_UNAVAILABLE).await,
                    }
                })
            }
            cluster::MOVING => {
                self.cluster.peers().expect_move(sender);
                empty(StatusCode::OK)
            }
            cluster::TERM => {
                let own = self.cluster.exchange_term(request.body());
                Box::pin(std::future::ready(Response::new(Body::from(own))))
            }
            cluster::WANT => match serde_json::from_slice::<Vec<&str>>(request.body()) {
                Ok(keys) => {
                    self.cluster.give(&keys);
                    empty(StatusCode::OK)
                }
                Err(_) => empty(StatusCode::BAD_REQUEST),
            },
            path if path.starts_with(cluster::REST) => {
                self.rest(request, cluster::REST, &self.router)
            }
            path if path.starts_with(cluster::RELAY) => {
                request.extensions_mut().insert(Relayed);
                self.rest(request, cluster::RELAY, &self.forwarding)
            }
            _ => empty(StatusCode::NOT_FOUND),
        }
    }
}
