//! Reports the events of a leg to its call, and counts packets.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::quality::{Quality, SharedQuality};
use crate::{EventSink, LegEvent};
use machine::{MediaEvent, MediaFault};

/// Counters of a leg, written by its shard and readable from any thread.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rtp_in: AtomicU64,
    pub(crate) rtp_out: AtomicU64,
    /// The measured quality, updated every second.
    pub(crate) quality: SharedQuality,
}

/// Reports events and counts packets.
pub(super) struct Reporter {
    pub(super) counters: Arc<Counters>,
    /// The numbers of received and sent RTP packets that the shard has not added to its counters
    /// yet.
    uncounted: (u64, u64),
    /// Whether a fault was reported, after which no further event follows.
    ended: bool,
    sink: EventSink,
}

impl Counters {
    /// Creates the counters of a leg that has received and sent packets in another process.
    pub(super) fn starting_at((rtp_in, rtp_out): (u64, u64), quality: &Quality) -> Self {
        let counters = Self { rtp_in: rtp_in.into(), rtp_out: rtp_out.into(), ..Self::default() };
        counters.quality.write(quality);
        counters
    }

    pub(super) fn totals(&self) -> (u64, u64) {
        (self.rtp_in.load(Ordering::Relaxed), self.rtp_out.load(Ordering::Relaxed))
    }
}

impl Reporter {
    pub(super) fn new(sink: EventSink, counters: Arc<Counters>) -> Self {
        Self { counters, uncounted: (0, 0), ended: false, sink }
    }

    pub(super) fn report(&self, event: LegEvent) {
        if !self.ended {
            (self.sink)(event);
        }
    }

    /// Reports the fault that ends the leg.
    pub(super) fn fail(&mut self, fault: MediaFault) {
        self.report(LegEvent::Media(MediaEvent::Lost { fault }));
        self.ended = true;
    }

    /// Suppresses all further events.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn count_received(&mut self) {
        count(&self.counters.rtp_in);
        self.uncounted.0 += 1;
    }

    pub(super) fn count_sent(&mut self) {
        if self.counters.rtp_out.load(Ordering::Relaxed) == 0 {
            self.report(LegEvent::FirstSent);
        }
        count(&self.counters.rtp_out);
        self.uncounted.1 += 1;
    }

    pub(super) fn report_quality(&self, quality: &Quality) {
        self.counters.quality.write(quality);
    }

    /// Returns the number of received RTP packets that were authentic.
    pub(super) fn packets_received(&self) -> u64 {
        self.counters.rtp_in.load(Ordering::Relaxed)
    }

    /// Returns the numbers of received and sent RTP packets since the last call.
    pub(super) fn take_counts(&mut self) -> (u64, u64) {
        std::mem::take(&mut self.uncounted)
    }
}

/// Increments a counter. Only the shard writes, so no atomic read-modify-write is needed.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}
