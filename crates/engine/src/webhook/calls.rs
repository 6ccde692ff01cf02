//! The interface between the webhook handler and the calls.

use std::sync::Arc;
use std::time::Instant;

use super::items::{CallKey, Connect};
use crate::admission::{Admitted, NumberEntry, Reason};
use machine::{PhoneStatus, Termination};
use model::{CallUuid, PhoneNumberId, Timestamp, Wacid};

/// Runs the calls. No method may block or wait, since Meta waits for the response.
pub trait Calls: Send + Sync {
    /// A usable SDP offer.
    type Offer;
    /// Capacity for one call. Released on drop.
    type Room;

    /// Reserves capacity for a call to this number (`docs/reference/reliability.md#r10`). Called
    /// before the offer is parsed, so that a refusal is cheap.
    fn room(&self, number: &PhoneNumberId) -> Option<Self::Room>;

    /// Parses an SDP offer, or an answer to our offer (`docs/reference/meta.md#usable-offer`).
    /// Returns `None` if it is unusable.
    fn read_offer(&self, sdp: &str) -> Option<Self::Offer>;

    /// Starts a call.
    ///
    /// # Errors
    /// Returns the admission if the node is overloaded after all. The call is then rejected as
    /// `overloaded`.
    fn start(
        &self,
        room: Self::Room,
        admitted: Admitted,
        incoming: Incoming<Self::Offer>,
    ) -> Result<(), Busy>;

    /// Reports Meta's `terminate`. `named` is the call that its opaque data name.
    fn terminated(
        &self,
        key: &CallKey,
        named: Option<CallUuid>,
        termination: Termination,
    ) -> TerminateOutcome;

    /// Reports an event of an outbound call.
    fn placed(
        &self,
        key: &CallKey,
        named: Option<CallUuid>,
        said: CallUpdate<Self::Offer>,
    ) -> UpdateOutcome;

    /// Sends `reject` to Graph for a call that was not admitted.
    ///
    /// # Errors
    /// Returns an error if the queue of rejects is full. Meta is then answered with 503 and
    /// retries.
    fn reject(&self, number: &Arc<NumberEntry>, wacid: Wacid, reason: Reason) -> Result<(), Full>;
}

/// An event of an outbound call other than its end.
#[derive(Clone, Debug)]
pub enum CallUpdate<O> {
    /// The SDP answer to our offer. `None` if it is unusable.
    Answer(Option<O>),
    Status(PhoneStatus),
}

/// How an event of an outbound call was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// Delivered to its call.
    Delivered,
    /// The call has passed that state or has ended.
    Late,
    /// The call is not known yet.
    Parked,
    /// The call's mailbox is full. Meta is asked to retry.
    Busy,
}

/// A user-initiated call before its start.
#[derive(Debug)]
pub struct Incoming<O> {
    pub connect: Connect,
    pub offer: O,
    /// When the webhook request arrived, before its body was read and its signature checked.
    pub received: Instant,
    /// When it had been parsed. The zero of the call's time and of `offhook_setup_seconds`.
    pub arrived: Instant,
    pub arrived_wall: Timestamp,
}

/// The node has no capacity for a call.
#[derive(Debug)]
pub struct Busy(pub Admitted);

/// The queue of rejects is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// How a `terminate` was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminateOutcome {
    /// Delivered to a live call.
    Ended,
    /// The call does not exist or has ended.
    Unknown,
    /// The call is live but its mailbox is full. Meta is asked to retry.
    Busy,
}
