//! The parameters of a call's start and its peer.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

use super::super::handover::IncomingCall;
use super::super::live_call::LiveCall;
use super::super::mailbox::{Envelope, Mailbox};
use super::super::phones::Line;
use super::super::registry::{CallAdmission, Registry};
use super::super::trace::EventLogWriter;
use super::super::turns::Turn;
use crate::admission::permission::Engaged;
use crate::admission::{AccountEntry, NumberEntry, Slot};
use machine::CallSetup;
use media::sdp::Offer;

/// The parameters of a call's start.
pub(in crate::call) struct StartParams {
    pub(in crate::call) registry: Registry,
    pub(in crate::call) setup: CallSetup,
    pub(in crate::call) way: StartMode,
    pub(in crate::call) peer: Peer,
    /// The permission to set up the call, held until the requests to Graph and the application were
    /// sent.
    pub(in crate::call) turn: Turn,
    /// When the webhook request arrived.
    pub(in crate::call) received: Instant,
    /// When the webhook had been parsed.
    pub(in crate::call) arrived: Instant,
    /// When the call was admitted.
    pub(in crate::call) admitted: Instant,
    pub(in crate::call) mailbox: Mailbox,
    pub(in crate::call) inbox: mpsc::Receiver<Box<Envelope>>,
    pub(in crate::call) journal: EventLogWriter,
    pub(in crate::call) view: Arc<LiveCall>,
}

/// The parameters with which a call of another process is resumed.
pub(in crate::call) struct ResumeParams {
    pub(in crate::call) registry: Registry,
    pub(in crate::call) call: IncomingCall,
    pub(in crate::call) peer: Peer,
    pub(in crate::call) journal: EventLogWriter,
    pub(in crate::call) view: Arc<LiveCall>,
}

/// The peer of the call and the resources held for it.
pub(in crate::call) enum Peer {
    /// A WhatsApp user. The number's configuration, access token and signing keys stay those of the
    /// call's start.
    User { number: Arc<NumberEntry>, slot: Slot, engaged: Engaged },
    /// An endpoint's phone.
    Phone { account: Arc<AccountEntry>, line: Arc<Line> },
}

impl Peer {
    pub(in crate::call) fn user((admitted, engaged): CallAdmission) -> Self {
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
pub(in crate::call) enum StartMode {
    /// The call begins with the user's SDP offer.
    Offered(Box<Offer>),
    /// The call begins with the node's own SDP offer. Meta's id of the call is not known yet.
    Placed,
    /// The call begins by ringing an endpoint. The phone that accepts the call sends the offer.
    Rung,
}
