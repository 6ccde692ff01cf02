//! Sessions of phones: a client that lost its socket and knows the session's secret can reclaim its
//! calls. Sessions are identified by the hash of their secret. In a fleet, each node knows the
//! sessions of all phones.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use engine::call::phones::RegistrationId;
use engine::call::web::BACK_WITHIN;
use model::{CallUuid, EndpointId};

/// Sessions by the hash of their secret.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Session>>);

struct Session {
    endpoint: EndpointId,
    state: State,
}

enum State {
    /// The socket is assumed to be open.
    Here {
        place: RegistrationId,
        over: CancellationToken,
    },
    Gone {
        calls: Vec<CallUuid>,
        since: Instant,
    },
}

/// A session with calls, on the way to another process of the node.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MovedSession {
    /// The hash of the session's secret.
    hash: String,
    endpoint: EndpointId,
    calls: Vec<CallUuid>,
}

/// State of a session that is resumed.
pub(super) enum Resumed {
    /// The old socket was assumed to be open. It is closed now.
    Here {
        place: RegistrationId,
        over: CancellationToken,
    },
    Gone(Vec<CallUuid>),
}

impl Sessions {
    /// Adds a session.
    pub(super) fn begin(
        &self,
        hash: &str,
        endpoint: EndpointId,
        place: RegistrationId,
        over: CancellationToken,
    ) {
        self.table()
            .insert(hash.to_owned(), Session { endpoint, state: State::Here { place, over } });
    }

    /// Marks a session's socket as lost.
    pub(super) fn lost(&self, hash: &str, calls: Vec<CallUuid>, now: Instant) {
        let mut table = self.table();
        table.retain(|_, session| match &session.state {
            State::Here { .. } => true,
            State::Gone { since, .. } => now.saturating_duration_since(*since) < BACK_WITHIN,
        });
        match table.get_mut(hash) {
            Some(session) if !calls.is_empty() => session.state = State::Gone { calls, since: now },
            _ => drop(table.remove(hash)),
        }
    }

    /// Removes a session.
    pub(super) fn end(&self, hash: &str) {
        self.table().remove(hash);
    }

    /// Removes a session to resume it. Returns `None` if the endpoint has no such session.
    pub(super) fn take(&self, hash: &str, endpoint: &EndpointId) -> Option<Resumed> {
        let mut table = self.table();
        table.get(hash).filter(|session| session.endpoint == *endpoint)?;
        Some(match table.remove(hash)?.state {
            State::Here { place, over } => Resumed::Here { place, over },
            State::Gone { calls, .. } => Resumed::Gone(calls),
        })
    }

    /// Returns the sessions with their calls, which `calls` finds for an open socket.
    pub(super) fn list(
        &self,
        calls: impl Fn(RegistrationId) -> Vec<CallUuid>,
        now: Instant,
    ) -> Vec<MovedSession> {
        let table = self.table();
        let moved = table.iter().filter_map(|(hash, session)| {
            let calls = match &session.state {
                State::Here { place, .. } => calls(*place),
                State::Gone { since, .. }
                    if now.saturating_duration_since(*since) >= BACK_WITHIN =>
                {
                    return None;
                }
                State::Gone { calls, .. } => calls.clone(),
            };
            Some(MovedSession { hash: hash.clone(), endpoint: session.endpoint.clone(), calls })
        });
        moved.filter(|session| !session.calls.is_empty()).collect()
    }

    /// Adds the sessions of another process of the node. Their sockets are lost.
    pub(super) fn expect(&self, sessions: Vec<MovedSession>, now: Instant) {
        let gone = sessions.into_iter().map(|MovedSession { hash, endpoint, calls }| {
            (hash, Session { endpoint, state: State::Gone { calls, since: now } })
        });
        self.table().extend(gone);
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
