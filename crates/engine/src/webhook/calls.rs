//! What the door asks of whoever runs the calls.

use std::sync::Arc;
use std::time::Instant;

use super::items::{CallKey, Connect};
use crate::admission::{Admitted, NumberEntry, Reason};
use machine::{PhoneStatus, Termination};
use model::{CallUuid, PhoneNumberId, Timestamp, Wacid};

/// Who runs the calls. Nothing here may block or wait: the 200 comes after it.
pub trait Calls: Send + Sync {
    /// A usable SDP offer, ready to be answered.
    type Offer;
    /// A place for one further call; given back on drop.
    type Room;

    /// Room for a further call to this number (R10): asked before its offer is read, so that a refusal costs little.
    fn room(&self, number: &PhoneNumberId) -> Option<Self::Room>;

    /// Reads an offer as `meta-calling.md` §5.2 does, or an answer to ours; none if it is unusable (`bad_offer`).
    fn read_offer(&self, sdp: &str) -> Option<Self::Offer>;

    /// Starts a call, or can't after all; then it is rejected as `overloaded`.
    ///
    /// # Errors
    /// Gives the admission back, to be withdrawn.
    fn start(
        &self,
        room: Self::Room,
        admitted: Admitted,
        incoming: Incoming<Self::Offer>,
    ) -> Result<(), Busy>;

    /// Meta says that a call is over; `named`: the call of ours that it names itself, if it does.
    fn terminated(&self, key: &CallKey, named: Option<CallUuid>, termination: Termination)
    -> Known;

    /// Meta says something about a call that we placed.
    fn placed(&self, key: &CallKey, named: Option<CallUuid>, said: Said<Self::Offer>) -> Heard;

    /// Sends Graph `reject` for a call that was not admitted.
    ///
    /// # Errors
    /// The list of rejects under way is full: Meta is asked to come again (503).
    fn reject(&self, number: &Arc<NumberEntry>, wacid: Wacid, reason: Reason) -> Result<(), Full>;
}

/// What Meta says about a call that we placed, but for its end.
#[derive(Clone, Debug)]
pub enum Said<O> {
    /// The SDP answer to our offer; none: it is unusable.
    Answer(Option<O>),
    Status(PhoneStatus),
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Its call has been told.
    Yes,
    /// Its call is past that, or over.
    Late,
    /// Its call is not known, and may be within a moment.
    Parked,
    /// Its call could not be told: Meta is asked to come again.
    Busy,
}

/// A user-initiated call with all that it begins with.
#[derive(Debug)]
pub struct Incoming<O> {
    pub connect: Connect,
    pub offer: O,
    /// When its webhook's request came: before the body was read and the signature checked.
    pub received: Instant,
    /// When it had been read: the zero of the call's time, and of `offhook_setup_seconds`.
    pub arrived: Instant,
    pub arrived_wall: Timestamp,
}

/// No room for a further call just now.
#[derive(Debug)]
pub struct Busy(pub Admitted);

/// No room for a further reject just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Whether a call is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It was live here and has been told.
    Ended,
    /// No such call, or one that is over.
    Unknown,
    /// It is live here and could not be told: Meta is asked to come again.
    Busy,
}
