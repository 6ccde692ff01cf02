//! A tap: a copy of what passes at a leg, for somebody who records, streams, recognises or mixes it.
//!
//! The shard only copies (a packet is shared, not decoded); what is made of it, `line` and its readers make on threads of
//! their own. The queue is bounded: a reader who is too slow loses the newest and can see how much. Keys (RFC 4733) are no
//! sound and don't appear.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use super::inlet::Heard;
use super::prompt::Frame;

/// Entries that may wait for the reader: two seconds of both sides with their ticks.
const WAITING_MAX: usize = 320;

/// Which side of a leg is tapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sides {
    /// What the peer says.
    Heard,
    /// What the peer is sent.
    Sent,
    Both,
}

/// What passed, in its order.
#[derive(Clone, Debug)]
pub(super) enum Tapped {
    /// A packet of the peer's, as it came over the network. Not while the leg is muted.
    Heard(Heard),
    /// An Opus packet that went out; nothing is told of silence.
    Sent(Frame),
    /// 20 ms have passed at the leg.
    Tick,
}

/// The reader's end. Dropping it ends the tap.
#[derive(Debug)]
pub struct Tap {
    from: Receiver<Tapped>,
    missed: Arc<AtomicU64>,
    over: bool,
}

/// The leg's end.
#[derive(Debug)]
pub(super) struct TapEnd {
    sides: Sides,
    to: SyncSender<Tapped>,
    missed: Arc<AtomicU64>,
}

/// Both ends of a new tap.
pub(super) fn tap(sides: Sides) -> (TapEnd, Tap) {
    let (to, from) = sync_channel(WAITING_MAX);
    let missed = Arc::new(AtomicU64::new(0));
    (TapEnd { sides, to, missed: missed.clone() }, Tap { from, missed, over: false })
}

impl Tap {
    /// The next entry, if one waits.
    pub(super) fn next(&mut self) -> Option<Tapped> {
        match self.from.try_recv() {
            Ok(entry) => Some(entry),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.over = true;
                None
            }
        }
    }

    /// The leg is gone and all that it left has been read.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Entries that were left out because the reader was behind.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl TapEnd {
    /// Copies `entry` to the reader if it wants it; false: nobody reads any more.
    pub(super) fn pass(&self, entry: &Tapped) -> bool {
        let wanted = match entry {
            Tapped::Heard(_) => self.sides != Sides::Sent,
            Tapped::Sent(_) => self.sides != Sides::Heard,
            Tapped::Tick => true,
        };
        if !wanted {
            return true;
        }
        match self.to.try_send(entry.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.missed.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}
