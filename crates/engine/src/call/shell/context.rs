//! The state and services that all parts of a call use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Instrument as _, debug};

use super::super::live_call::LiveCall;
use super::super::mailbox::Mailbox;
use super::super::phones::Line;
use super::super::registry::Registry;
use super::super::services::Services;
use super::super::trace::EventLogWriter;
use crate::admission::NumberEntry;
use crate::answer::SigningKeys;
use crate::call::seats::Seat;
use machine::{CallbackRequest, Input};
use model::{CallUuid, Timestamp};
use store::{NewCallback, StoreError};

/// The state and services that all parts of a call use. They stay the same from the call's start to
/// its end.
pub(super) struct Context {
    pub(super) services: Arc<Services>,
    pub(super) id: CallUuid,
    /// The business number. `None` for a web leg.
    pub(super) number: Option<Arc<NumberEntry>>,
    /// The connection to an endpoint's phone. `None` unless this is a web leg.
    pub(super) line: Option<Arc<Line>>,
    pub(super) mailbox: Mailbox,
    pub(super) journal: EventLogWriter,
    pub(super) view: Arc<LiveCall>,
    /// Binds Meta's ids of outbound calls and finds other legs.
    pub(super) registry: Registry,
}

impl Context {
    /// Sends an input to this call's own mailbox.
    pub(super) fn tell(&self, input: Input) {
        self.mailbox.tell(input);
    }

    /// The keys that sign a request now.
    pub(super) fn keys(&self) -> SigningKeys {
        self.services.outbox.current_keys(&self.view.setup, &self.view.keys)
    }

    pub(super) fn callback(&self, notice: CallbackRequest) -> NewCallback {
        self.services.callback(&self.view.setup, notice)
    }

    /// Writes a callback to the outbox, then sends it.
    pub(super) fn write_callback(&self, new: NewCallback) {
        let written = self.services.store.outbox().insert(new);
        let (outbox, keys) = (self.services.outbox.clone(), self.view.keys.clone());
        let work = async move {
            match written.await {
                Ok(written) => outbox.send(written, keys),
                Err(error @ StoreError::Journalled) => {
                    debug!(%error, "callback journalled, delivery postponed")
                }
                Err(error) => tracing::error!(%error, "callback not written"),
            }
        };
        self.services.tasks.spawn(work.in_current_span());
    }

    /// When the call was answered.
    pub(super) fn answered_at(&self) -> Option<Timestamp> {
        let answered = self.view.answered();
        answered.map(|at| self.view.setup.started.plus(Duration::from_millis(at.0)))
    }

    /// The call's seat in a room of another node.
    pub(super) fn seat(&self) -> Option<Seat> {
        self.services.seats.as_ref()?.seat_of(self.id)
    }

    /// Converts to milliseconds of the call.
    pub(super) fn ms(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.journal.zero());
        u32::try_from(since.as_millis()).unwrap_or(u32::MAX)
    }

    /// When to read the counters of the call's media again.
    pub(super) fn next_sample(&self) -> Option<Instant> {
        let due = self.view.sampler.due_ms()?;
        Some(self.journal.zero() + Duration::from_millis(due.into()))
    }
}
