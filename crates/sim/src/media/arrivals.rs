//! When the RTP packets of a call arrive, and whether an SRTP index is used twice.

use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Number of packet indexes of a stream that are remembered: more than five minutes.
const INDEXES_MAX: usize = 16_384;
/// Number of sequence numbers of RTP.
const SEQUENCES: u64 = 1 << 16;

/// The RTP packets that a phone receives, for [`CallScript::arrivals`].
///
/// [`CallScript::arrivals`]: crate::CallScript::arrivals
#[derive(Debug, Default)]
pub struct Arrivals(Mutex<State>);

/// Figures of the packets of a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArrivalReport {
    /// Number of packets of audio that were authentic, after the call was accepted.
    pub packets: u64,
    /// Longest time between two of them.
    pub longest_gap: Duration,
    /// Number of datagrams with the SSRC and the index (ROC and sequence number) of an earlier
    /// one and other content.
    pub reused_indexes: u64,
    /// The same with equal content.
    pub repeated_datagrams: u64,
}

#[derive(Debug, Default)]
struct State {
    report: ArrivalReport,
    last: Option<Instant>,
    /// By SSRC.
    streams: HashMap<u32, Stream>,
    hasher: foldhash::fast::RandomState,
}

/// A stream of packets with one SSRC.
#[derive(Debug, Default)]
struct Stream {
    /// Hashes of datagrams by index.
    datagrams: BTreeMap<u64, u64>,
}

impl Arrivals {
    /// Returns the figures since the last call. The time since the last packet counts as a gap in
    /// this period and as the begin of the next one's first gap.
    pub fn take(&self, now: Instant) -> ArrivalReport {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = state.last {
            let gap = now.saturating_duration_since(last);
            state.report.longest_gap = state.report.longest_gap.max(gap);
        }
        std::mem::take(&mut state.report)
    }

    /// Processes an RTP datagram as it was received.
    pub(crate) fn datagram(&self, bytes: &[u8]) {
        let (Some(sequence), Some(ssrc)) = (
            bytes.get(2..4).and_then(|b| b.try_into().ok()).map(u16::from_be_bytes),
            bytes.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes),
        ) else {
            return;
        };
        let state = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = state.hasher.hash_one(bytes);
        match state.streams.entry(ssrc).or_default().insert(sequence, hash) {
            None => {}
            Some(earlier) if earlier == hash => state.report.repeated_datagrams += 1,
            Some(_) => state.report.reused_indexes += 1,
        }
    }

    /// Processes an authentic packet of audio.
    pub(crate) fn audio(&self, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = state.last.replace(now) {
            let gap = now.saturating_duration_since(last);
            state.report.longest_gap = state.report.longest_gap.max(gap);
        }
        state.report.packets += 1;
    }
}

impl Stream {
    /// Adds a datagram. Returns the hash of the earlier one with the same index.
    fn insert(&mut self, sequence: u16, hash: u64) -> Option<u64> {
        // Several indexes have this sequence number: take the one closest to the highest index so far
        // (RFC 3711, section 3.3.1).
        let highest = self.datagrams.last_key_value().map_or(SEQUENCES, |(index, _)| *index);
        let ahead = sequence.wrapping_sub(u16::try_from(highest % SEQUENCES).unwrap_or_default());
        let index = highest.wrapping_add_signed(i64::from(ahead.cast_signed()));
        let earlier = self.datagrams.insert(index, hash);
        if self.datagrams.len() > INDEXES_MAX {
            self.datagrams.pop_first();
        }
        earlier
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Clock;

    fn datagram(sequence: u16, content: u8) -> Vec<u8> {
        let [high, low] = sequence.to_be_bytes();
        vec![0x80, 111, high, low, 0, 0, 0, 0, 1, 2, 3, 4, content]
    }

    #[test]
    fn an_index_is_used_twice_if_its_datagrams_differ() {
        let arrivals = Arrivals::default();
        for sequence in [65_534, 65_535, 1, 0, 2] {
            arrivals.datagram(&datagram(sequence, 1));
        }
        let now = Clock::real().now();
        assert_eq!(arrivals.take(now), ArrivalReport::default());
        arrivals.datagram(&datagram(65_535, 1));
        arrivals.datagram(&datagram(1, 2));
        // The next rollover has other indexes.
        for sequence in (3..=65_535).chain(0..100) {
            arrivals.datagram(&datagram(sequence, 3));
        }
        let report = arrivals.take(now);
        assert_eq!((report.repeated_datagrams, report.reused_indexes), (1, 1));
    }

    #[test]
    fn the_longest_gap_is_of_the_period() {
        let (arrivals, start) = (Arrivals::default(), Clock::real().now());
        let at = |ms| start + Duration::from_millis(ms);
        for ms in [0, 20, 90, 110] {
            arrivals.audio(at(ms));
        }
        let report = arrivals.take(at(120));
        assert_eq!((report.packets, report.longest_gap.as_millis()), (4, 70));
        arrivals.audio(at(130));
        assert_eq!(arrivals.take(at(300)).longest_gap.as_millis(), 170, "nothing has come since");
    }
}
