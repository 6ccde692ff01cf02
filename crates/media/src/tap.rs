//! A tap copies the packets that pass a leg, for recording, streaming, speech recognition or
//! mixing.
//!
//! The shard copies references and decodes nothing; readers process the packets on their own
//! threads. The queue is bounded: a reader that is too slow loses the newest packets and can query
//! their number. DTMF events are not audio and are not copied.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};

use serde::{Deserialize, Serialize};

use super::jitter_buffer::InboundPacket;
use super::prompt::Frame;

/// Maximum number of taps of a leg: recordings, a stream, speech recognition, a room.
const TAPS_MAX: usize = 8;
/// Capacity of the queue: two seconds of both directions with their ticks.
const QUEUE_MAX: usize = 320;
/// Maximum number of entries that a reader holds: 30 seconds of both directions with their ticks.
const HELD_MAX: usize = 4_800;

/// The direction of a leg that is tapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TapSides {
    /// The audio from the peer.
    Received,
    /// The audio to the peer.
    Sent,
    Both,
}

/// An entry of a tap.
#[derive(Clone, Debug)]
pub(super) enum TapEntry {
    /// A packet from the peer as it arrived. There is none while the peer is muted.
    Received(InboundPacket),
    /// An Opus packet that was sent to the peer. Silence is not copied.
    Sent(Frame),
    /// 20 ms have passed on the leg.
    Tick,
    /// This number of ticks was left out, because the leg stood still for a hand-over.
    Gap(u32),
}

/// The reader's end. Dropping it ends the tap.
#[derive(Debug)]
pub struct Tap {
    from: Receiver<TapEntry>,
    /// Entries that were taken from the queue before the reader needs them.
    held: VecDeque<TapEntry>,
    dropped: Arc<AtomicU64>,
    over: bool,
}

/// The leg's end of a tap. The leg writes a copy of its audio to it.
#[derive(Debug)]
pub(super) struct TapEnd {
    sides: TapSides,
    /// Whether the leg can move to another process without this tap.
    is_movable: bool,
    to: SyncSender<TapEntry>,
    dropped: Arc<AtomicU64>,
}

/// The taps of a leg.
#[derive(Debug, Default)]
pub(super) struct Taps(Vec<TapEnd>);

impl Taps {
    /// Adds a tap. If there are too many, it is dropped, which ends it immediately.
    pub(super) fn add(&mut self, tap: TapEnd) {
        if self.0.len() < TAPS_MAX {
            self.0.push(tap);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the leg can move to another process without its taps.
    pub(super) fn are_movable(&self) -> bool {
        self.0.iter().all(|tap| tap.is_movable)
    }

    /// Copies an entry to the taps.
    pub(super) fn push(&mut self, entry: &TapEntry) {
        self.0.retain(|tap| tap.push(entry));
    }
}

/// Creates a tap and returns both ends.
pub(super) fn tap(sides: TapSides) -> (TapEnd, Tap) {
    let (to, from) = sync_channel(QUEUE_MAX);
    let dropped = Arc::new(AtomicU64::new(0));
    let end = TapEnd { sides, is_movable: false, to, dropped: dropped.clone() };
    (end, Tap { from, held: VecDeque::new(), dropped, over: false })
}

impl Tap {
    /// Returns the next entry, or `None` if there is none.
    pub(super) fn next(&mut self) -> Option<TapEntry> {
        if let Some(entry) = self.held.pop_front() {
            return Some(entry);
        }
        match self.from.try_recv() {
            Ok(entry) => Some(entry),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.over = true;
                None
            }
        }
    }

    /// Takes the entries from the queue and keeps them for [`Tap::next`], because they are not read
    /// yet and the queue is short.
    pub(super) fn hold(&mut self) {
        for entry in self.from.try_iter() {
            if self.held.len() < HELD_MAX {
                self.held.push_back(entry);
            } else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Returns whether the leg has ended and all entries have been read.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Returns the number of entries that were dropped because the reader was too slow.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl TapEnd {
    /// Lets the leg move to another process without this tap.
    pub(super) fn movable(self) -> Self {
        Self { is_movable: true, ..self }
    }

    /// Copies `entry` to the reader if it requested this kind. Returns `false` if the reader was
    /// dropped.
    pub(super) fn push(&self, entry: &TapEntry) -> bool {
        let wanted = match entry {
            TapEntry::Received(_) => self.sides != TapSides::Sent,
            TapEntry::Sent(_) => self.sides != TapSides::Received,
            TapEntry::Tick | TapEntry::Gap(_) => true,
        };
        if !wanted {
            return true;
        }
        match self.to.try_send(entry.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}
