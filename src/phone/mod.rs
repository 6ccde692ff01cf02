//! `/phone`: the WebSocket for endpoints' phones (`docs/phone.md`).
//!
//! `message` decodes and encodes messages, `session` serves one socket, `login` authenticates the
//! phone, and `sessions` lets a phone with a lost socket reclaim its calls. `fleet` lets the calls
//! of other nodes ring it. Calls are handled by the registry (`call::web`). All input is bounded:
//! sockets, message size and rate, password attempts, and the time until registration.

mod fleet;
mod login;
mod message;
mod session;
mod sessions;
mod transfer;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::fleet::PATH as PEER_PATH;
use self::fleet::PhoneFleet;
use self::sessions::{MovedSession, Sessions};
use crate::api::Apis;
use crate::api::server::Pause;
use engine::admission::Gate;
use engine::answer::RandomSource;
use engine::call::Registry;
use engine::call::drafts::Drafts;
use engine::call::phones::{Owner, Phones, RegistrationId};
use engine::call::web::BACK_WITHIN;
use engine::cluster::Cluster;
use engine::limiter::{Failures, Offenders, Pool, Resource, Shares};
use engine::people::{People, cookie};
use model::{AuthId, Clock};
use speech::recognise::Recognisers;
use store::{Passwords, Store};

/// Maximum time until a phone registers, and longest time that a log-in waits for its turn after too
/// many wrong passwords.
pub(crate) const LOGIN_WITHIN: Duration = Duration::from_secs(10);
/// Maximum message size in bytes: an SDP offer of 16 KiB, escaped as JSON.
const MESSAGE_BYTES_MAX: usize = 48 << 10;
/// Size of one read. Each socket allocates it at once, so the library's 128 KiB would let
/// connections that send nothing use much memory.
const READ_BYTES: usize = 4 << 10;
/// Maximum number of sockets. Beyond it, the oldest unregistered socket of the network with the
/// most sockets is closed. Half of the maximum is shared out among the main accounts, for registered
/// phones.
const SOCKETS_MAX: usize = 5_000;

/// The services behind the phone listener.
pub struct PhoneService {
    pub clock: Clock,
    pub random: RandomSource,
    pub store: Store,
    pub passwords: Passwords,
    /// The console sessions.
    pub people: People,
    /// Whether clients connect over https, which changes the name of the session cookie.
    pub secure: bool,
    pub gate: Arc<Gate>,
    pub registry: Registry,
    pub phones: Phones,
    /// Drafts that people write in the console.
    pub drafts: Drafts,
    /// Recognisers for captions.
    pub recognisers: Recognisers,
    /// The host of the node's SIP addresses.
    pub sip_host: String,
    /// Counts refused sockets and logins.
    pub offenders: Offenders,
    /// Records refused logins.
    pub apis: Apis,
    /// Limits failed logins.
    pub failures: Failures,
    /// The fleet that the node is part of.
    pub cluster: Option<Arc<Cluster>>,
    /// Pauses the public listener. Messages of phones wait, too.
    pub pause: Pause,
    /// Cancelled to end all sockets.
    pub stop: CancellationToken,
}

/// The services and the state of the listener.
struct Inner {
    service: PhoneService,
    fleet: Option<Arc<PhoneFleet>>,
    sessions: Sessions,
    sockets: Pool,
    /// The sockets of registered phones, by main account.
    registered: Shares<AuthId>,
}

impl std::ops::Deref for Inner {
    type Target = PhoneService;
    fn deref(&self) -> &PhoneService {
        &self.service
    }
}

/// The phones of a process on their way to another one of the node.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct MovedPhones {
    sessions: Vec<MovedSession>,
    /// The owners of registered phones.
    owners: Vec<Owner>,
    /// The number of the latest registration id.
    #[serde(default)]
    last_id: u64,
}

/// The client's address, set by the listener.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress(pub IpAddr);

/// The listener for phones. Cheap to clone.
#[derive(Clone)]
pub struct PhoneListener(Arc<Inner>);

impl PhoneListener {
    /// Creates the listener, and begins to compare its phones with those of the other nodes.
    pub fn new(service: PhoneService) -> Self {
        let inner = Arc::new(Inner {
            fleet: service
                .cluster
                .clone()
                .map(|cluster| Arc::new(PhoneFleet::new(cluster, &service.clock))),
            sockets: Pool::new(SOCKETS_MAX, Some((Resource::Sockets, service.offenders.clone()))),
            registered: Shares::new(SOCKETS_MAX, SOCKETS_MAX),
            sessions: Sessions::default(),
            service,
        });
        if inner.fleet.is_some() {
            let stop = inner.stop.clone();
            tokio::spawn(inner.clone().compare_phones(stop));
        }
        Self(inner)
    }

    /// Returns the route for phones. All origins may connect, but cookies are only accepted from the
    /// node's own pages (`docs/reference/reliability.md#r20`).
    pub fn router(&self) -> Router {
        Router::new().route("/phone", get(upgrade)).with_state(self.0.clone())
    }

    /// Returns what another process needs, so that the phones can go on with their calls there.
    pub fn hand_over(&self) -> MovedPhones {
        let (inner, now) = (&self.0, self.0.clock.now());
        let sessions = inner.sessions.list(|place| inner.phones.calls(place), now);
        let last_id = inner.phones.last_id().number();
        MovedPhones { sessions, owners: inner.phones.owners(), last_id }
    }

    /// Expects the phones of another process of the node to register here and to go on with their
    /// calls.
    pub fn expect(&self, phones: MovedPhones) {
        let (inner, now) = (&self.0, self.0.clock.now());
        inner.phones.continue_after(RegistrationId::of(phones.last_id));
        inner.sessions.expect(phones.sessions, now);
        inner.phones.expect(phones.owners, now + BACK_WITHIN);
    }

    /// Handles a message from another node about phones and returns the answer. Returns `None` if
    /// the message can't be parsed or is refused.
    pub fn answer_peer(&self, from: Uuid, body: &[u8]) -> Option<Vec<u8>> {
        serde_json::to_vec(&self.0.peer_message(from, body)?).ok()
    }
}

async fn upgrade(
    State(inner): State<Arc<Inner>>,
    from: Option<Extension<ClientAddress>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(why) => {
            return (StatusCode::UPGRADE_REQUIRED, [("upgrade", "websocket")], why.body_text())
                .into_response();
        }
    };
    let from = from.map_or(IpAddr::from([0, 0, 0, 0]), |Extension(ClientAddress(ip))| ip);
    let claim = inner.sockets.claim(from, 1);
    if claim.evicted().is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "5")], "too many phones\n")
            .into_response();
    }
    let signed_in =
        cookie::is_same_origin(&headers).then(|| cookie::token(&headers, inner.secure)).flatten();
    upgrade
        .read_buffer_size(READ_BYTES)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| session::run(socket, inner, from, signed_in, claim))
}
