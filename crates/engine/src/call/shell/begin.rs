//! What a call is begun with, and who is at its other end.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::super::phones::Line;
use super::super::registry::{LetIn, LiveCall, Registry};
use super::super::trace::Journal;
use super::super::turns::Turn;
use super::{Fact, Mailbox};
use crate::admission::permission::Engaged;
use crate::admission::{AccountEntry, NumberEntry, Slot};
use machine::CallSetup;
use media::sdp::Offer;

/// What a call is begun with.
pub(in crate::call) struct Begin {
    pub(in crate::call) registry: Registry,
    pub(in crate::call) setup: CallSetup,
    pub(in crate::call) way: Way,
    pub(in crate::call) peer: Peer,
    /// Held until Graph and the application have been asked.
    pub(in crate::call) turn: Turn,
    /// When the webhook's request came, when it had been read, when the call was let in.
    pub(in crate::call) received: Instant,
    pub(in crate::call) arrived: Instant,
    pub(in crate::call) admitted: Instant,
    pub(in crate::call) mailbox: Mailbox,
    pub(in crate::call) inbox: mpsc::Receiver<Box<Fact>>,
    pub(in crate::call) journal: Journal,
    pub(in crate::call) view: Arc<LiveCall>,
}

/// Who is at the other end, and what the call holds of it as long as it is up.
pub(in crate::call) enum Peer {
    /// A WhatsApp user. The number as it stood when the call began: its token and signing keys stay the call's (S0.25).
    User { number: Arc<NumberEntry>, slot: Slot, engaged: Engaged },
    /// An endpoint's phone.
    Phone { account: Arc<AccountEntry>, line: Arc<Line> },
}

impl Peer {
    pub(in crate::call) fn user((admitted, engaged): LetIn) -> Self {
        let (number, slot) = admitted.begin();
        Self::User { number, slot, engaged }
    }

    pub(in crate::call) fn account(&self) -> &AccountEntry {
        match self {
            Self::User { number, .. } => &number.account,
            Self::Phone { account, .. } => account,
        }
    }

    pub(in crate::call) fn number(&self) -> Option<&Arc<NumberEntry>> {
        match self {
            Self::User { number, .. } => Some(number),
            Self::Phone { .. } => None,
        }
    }

    pub(in crate::call) fn line(&self) -> Option<&Arc<Line>> {
        match self {
            Self::User { .. } => None,
            Self::Phone { line, .. } => Some(line),
        }
    }
}

/// How a call begins.
pub(in crate::call) enum Way {
    /// With the user's offer.
    Offered(Box<Offer>),
    /// With an offer of ours: Meta's id of the call is to come.
    Placed,
    /// An endpoint is rung: whichever phone takes the call makes the offer.
    Rung,
}
