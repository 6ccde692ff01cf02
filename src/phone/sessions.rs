//! Phones that may come back: whoever lost a socket and knows its session's secret takes its calls along.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use engine::call::phones::PlaceId;
use engine::call::web::BACK_WITHIN;
use model::{CallUuid, EndpointId};

/// By the secret.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Session>>);

struct Session {
    endpoint: EndpointId,
    state: State,
}

enum State {
    /// Its socket is open, as far as we know.
    Here {
        place: PlaceId,
        over: CancellationToken,
    },
    Gone {
        calls: Vec<CallUuid>,
        since: Instant,
    },
}

/// What somebody who comes back finds.
pub(super) enum Found {
    /// The old socket was not known to be dead; it is given up now.
    Here {
        place: PlaceId,
        over: CancellationToken,
    },
    Gone(Vec<CallUuid>),
}

impl Sessions {
    /// A session begins.
    pub(super) fn begin(
        &self,
        secret: &str,
        endpoint: EndpointId,
        place: PlaceId,
        over: CancellationToken,
    ) {
        self.table()
            .insert(secret.to_owned(), Session { endpoint, state: State::Here { place, over } });
    }

    /// Its socket was lost.
    pub(super) fn lost(&self, secret: &str, calls: Vec<CallUuid>, now: Instant) {
        let mut table = self.table();
        table.retain(|_, session| match &session.state {
            State::Here { .. } => true,
            State::Gone { since, .. } => now.saturating_duration_since(*since) < BACK_WITHIN,
        });
        match table.get_mut(secret) {
            Some(session) if !calls.is_empty() => session.state = State::Gone { calls, since: now },
            _ => drop(table.remove(secret)),
        }
    }

    /// It is over.
    pub(super) fn end(&self, secret: &str) {
        self.table().remove(secret);
    }

    /// The endpoint's phone is back, and its old session is over.
    pub(super) fn take(&self, secret: &str, endpoint: &EndpointId) -> Option<Found> {
        let mut table = self.table();
        table.get(secret).filter(|session| session.endpoint == *endpoint)?;
        Some(match table.remove(secret)?.state {
            State::Here { place, over } => Found::Here { place, over },
            State::Gone { calls, .. } => Found::Gone(calls),
        })
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
