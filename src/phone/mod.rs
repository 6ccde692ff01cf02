//! `/phone`: the WebSocket of endpoints' phones (`plivo-xml.md` §6, `docs/phone.md`).
//!
//! A door: `message` decodes what a phone says and encodes what it is told, `session` is one socket's life, `login` says
//! who it is, `sessions` lets a phone whose socket was lost come back to its calls. What becomes of a call is the registry's
//! business (`call::web`). Everything from outside is bounded: sockets, messages and their rate, tries at a password, the
//! time until somebody says who they are.

mod login;
mod message;
mod session;
mod sessions;
mod transfer;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Router};
use http::{HeaderMap, StatusCode};
use tokio_util::sync::CancellationToken;

use crate::admission::Gate;
use crate::answer::Dice;
use crate::call::Registry;
use crate::call::drafts::Drafts;
use crate::call::phones::Phones;
use crate::people::{Failures, People, cookie};
use model::Clock;
use sessions::Sessions;
use speech::recognise::Recognisers;
use store::{Passwords, Store};

/// The longest message, in bytes: an offer of 16 KiB as JSON has it.
const MESSAGE_BYTES_MAX: usize = 48 << 10;
/// Sockets at a time.
const SOCKETS_MAX: usize = 5_000;

/// What phones are answered from.
pub struct PhoneDoor {
    pub clock: Clock,
    pub dice: Dice,
    pub store: Store,
    pub passwords: Passwords,
    /// Who is signed in to the console.
    pub people: People,
    /// The outside comes by https: the session's cookie has another name.
    pub secure: bool,
    pub gate: Arc<Gate>,
    pub registry: Registry,
    pub phones: Phones,
    /// Documents that people are writing in the console.
    pub drafts: Drafts,
    /// Who can write what is said.
    pub recognisers: Recognisers,
    /// The host of this platform's SIP addresses.
    pub sip_host: String,
    /// Ends the sockets.
    pub stop: CancellationToken,
}

/// The door with what it keeps.
struct Inner {
    door: PhoneDoor,
    failures: Failures,
    sessions: Sessions,
    sockets: AtomicUsize,
}

impl std::ops::Deref for Inner {
    type Target = PhoneDoor;
    fn deref(&self) -> &PhoneDoor {
        &self.door
    }
}

/// Who asks, as the listener found out.
#[derive(Clone, Copy, Debug)]
pub struct From(pub IpAddr);

/// The path of phones. Every origin may ask; a cookie counts from our own pages only (R20).
pub fn router(door: PhoneDoor) -> Router {
    let inner = Inner {
        door,
        failures: Failures::default(),
        sessions: Sessions::default(),
        sockets: AtomicUsize::new(0),
    };
    Router::new().route("/phone", get(upgrade)).with_state(Arc::new(inner))
}

/// A socket's place among them, given back on drop.
struct Seat(Arc<Inner>);

impl Seat {
    fn take(inner: &Arc<Inner>) -> Option<Self> {
        let room = |taken| (taken < SOCKETS_MAX).then_some(taken + 1);
        inner.sockets.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).ok()?;
        Some(Self(inner.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.sockets.fetch_sub(1, Ordering::AcqRel);
    }
}

async fn upgrade(
    State(inner): State<Arc<Inner>>,
    from: Option<Extension<From>>,
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
    let Some(seat) = Seat::take(&inner) else {
        return (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "5")], "too many phones\n")
            .into_response();
    };
    let signed_in =
        cookie::is_same_origin(&headers).then(|| cookie::token(&headers, inner.secure)).flatten();
    let from = from.map_or(IpAddr::from([0, 0, 0, 0]), |Extension(From(ip))| ip);
    upgrade
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
        .on_upgrade(move |socket| session::run(socket, inner, from, signed_in, seat))
}
