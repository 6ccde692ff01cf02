//! The interface between the webhook handler and the calls.

use std::sync::Arc;

use crate::admission::{Admitted, NumberEntry, Reason, SetUpTicket};
use crate::call::CallEvent;
use crate::call::registry::{CallKey, EventOutcome, Incoming, OnSettled, Registry, RejectsFull};
use media::sdp::Offer;
use model::{CallUuid, Wacid};
use store::Birth;

/// Runs the calls. No method may block or wait, since Meta waits for the response.
pub trait Calls: Send + Sync {
    /// Capacity for one call. Released on drop.
    type Room: Send;

    /// Reserves capacity for a call to this number (`docs/reference/reliability.md#r10`). Called
    /// before the offer is parsed, so that a refusal is cheap.
    fn room(&self, number: &NumberEntry) -> Option<Self::Room>;

    /// Parses an SDP offer, or an answer to our offer (`docs/reference/meta.md#usable-offer`).
    /// Returns `None` if it is unusable.
    fn read_offer(&self, sdp: &str) -> Option<Offer>;

    /// Chooses the id of a call before its start. Returns the data that another node of the fleet
    /// needs to end the call, or `None` if the number has neither an answer URL nor an AI agent.
    fn birth(&self, number: &NumberEntry, incoming: &mut Incoming) -> Option<Birth>;

    /// Starts a call.
    ///
    /// # Errors
    /// Returns the admission and the reason for which the call is rejected after all.
    fn start(
        &self,
        room: Self::Room,
        admitted: Admitted,
        incoming: Incoming,
    ) -> Result<(), (Box<Admitted>, Reason)>;

    /// Whether the node has a call. `named` is the outbound call in an event's opaque data.
    fn has(&self, key: &CallKey, named: Option<CallUuid>) -> bool;

    /// Reports an event of a call. `named` is the outbound call in its opaque data.
    fn event(&self, key: &CallKey, named: Option<CallUuid>, event: CallEvent) -> EventOutcome;

    /// Sends `reject` to Graph for a call that was not admitted. `settled` runs once Graph has
    /// answered.
    ///
    /// # Errors
    /// Returns an error if the queue of rejects is full. Meta is then answered with 503 and
    /// retries.
    fn reject(
        &self,
        number: &Arc<NumberEntry>,
        wacid: Wacid,
        reason: Reason,
        settled: Option<OnSettled>,
    ) -> Result<(), RejectsFull>;
}

impl Calls for Registry {
    type Room = SetUpTicket;

    fn room(&self, number: &NumberEntry) -> Option<SetUpTicket> {
        Self::room(self, number)
    }

    fn read_offer(&self, sdp: &str) -> Option<Offer> {
        Self::read_offer(self, sdp)
    }

    fn birth(&self, number: &NumberEntry, incoming: &mut Incoming) -> Option<Birth> {
        Self::birth(self, number, incoming)
    }

    fn start(
        &self,
        room: SetUpTicket,
        admitted: Admitted,
        incoming: Incoming,
    ) -> Result<(), (Box<Admitted>, Reason)> {
        Self::start(self, room, admitted, incoming)
    }

    fn has(&self, key: &CallKey, named: Option<CallUuid>) -> bool {
        Self::has(self, key, named)
    }

    fn event(&self, key: &CallKey, named: Option<CallUuid>, event: CallEvent) -> EventOutcome {
        Self::event(self, key, named, event)
    }

    fn reject(
        &self,
        number: &Arc<NumberEntry>,
        wacid: Wacid,
        reason: Reason,
        settled: Option<OnSettled>,
    ) -> Result<(), RejectsFull> {
        Self::reject(self, number, wacid, reason, settled)
    }
}
