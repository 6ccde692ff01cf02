//! Where a call's facts wait for it: one bounded line, each stamped as it comes in.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tracing::warn;

use super::super::web::Silence;
use machine::Input;
use media::sdp::Offer;
use media::{BridgeEnd, MissingStep};
use model::CallUuid;
use model::metric;

/// Facts waiting for one call. A call sees a few a second; a full mailbox is a fault, counted and logged.
const MAILBOX: usize = 256;

/// A fact and when it came in.
#[derive(Debug)]
pub(in crate::call) struct Fact {
    pub at: Instant,
    pub what: What,
}

/// What a call is told.
#[derive(Debug)]
pub(in crate::call) enum What {
    /// What its machine decides by.
    Fact(Input),
    /// Meta's answer to our offer: the machine is told that it is there.
    Answer(Box<Offer>),
    /// The leg that dialled this one has brought the two together: this end of the bridge is its.
    Joined(Box<BridgeEnd>),
    /// An endpoint's phone takes the call, by an offer of its own.
    Taken(Box<Offer>),
    /// An endpoint's phone is to be heard by nobody, or by all again.
    Silence(Silence, bool),
    /// An endpoint's phone wants to read what is said in this language, or nothing any more.
    Captions(Option<Box<str>>),
    /// What only its trace is about: the first packet of ours went out.
    FirstSent,
    /// Time to look how its sound goes.
    Look,
    /// What its media lacks some seconds after `accept`, and how long it has been waited for; whether we send the checks.
    Missing(MissingStep, Duration, bool),
}

/// Where a call's facts go; cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::call) struct Mailbox {
    call: CallUuid,
    /// Boxed: the channel keeps room for 32 at a time, for each call.
    facts: mpsc::Sender<Box<Fact>>,
    clock: model::Clock,
}

impl Mailbox {
    /// Whether the call still reads its mailbox.
    pub(in crate::call) fn is_open(&self) -> bool {
        !self.facts.is_closed()
    }

    /// Puts a fact in, stamped now. `false`: the call is over, or its mailbox is full.
    pub(in crate::call) fn tell(&self, input: Input) -> bool {
        self.put(What::Fact(input))
    }

    pub(in crate::call) fn put(&self, what: What) -> bool {
        let fact = Fact { at: self.clock.now(), what };
        match self.facts.try_send(Box::new(fact)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(fact)) => {
                crate::count_refused(metric::queue::MAILBOX);
                warn!(call_uuid = %self.call, fact = ?std::mem::discriminant(&fact.what), "mailbox full, fact lost");
                false
            }
        }
    }
}

/// A mailbox and the end the shell reads.
pub(in crate::call) fn mailbox(
    call: CallUuid,
    clock: &model::Clock,
) -> (Mailbox, mpsc::Receiver<Box<Fact>>) {
    let (facts, inbox) = mpsc::channel(MAILBOX);
    (Mailbox { call, facts, clock: clock.clone() }, inbox)
}
