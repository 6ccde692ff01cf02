//! Replay protection and index estimation (RFC 3711 §3.3.1, §3.3.2, Appendix A).
//!
//! An index numbers the packets of a stream under one key: 48 bits for SRTP (rollover counter and
//! sequence number), 31 for SRTCP. The window covers 128 packets. It must only be updated with
//! authenticated packets.

use serde::{Deserialize, Serialize};

/// Number of tracked packets behind the newest one.
const WINDOW_SIZE: u64 = 128;

/// The newest index of a stream, and the set of earlier indices that were received.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct ReplayWindow {
    newest: u64,
    /// Bit n is set if the packet with index `newest - n` was received.
    #[serde(with = "halves")]
    seen: u128,
}

/// Serialises the bits as two numbers, because not every serde format has 128-bit numbers.
mod halves {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
    pub(super) fn serialize<S: Serializer>(seen: &u128, to: S) -> Result<S::Ok, S::Error> {
        let [low, high] = [*seen, *seen >> 64].map(|half| half & u128::from(u64::MAX));
        [high, low].map(|half| u64::try_from(half).unwrap_or_default()).serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<u128, D::Error> {
        let [high, low] = <[u64; 2]>::deserialize(from)?;
        Ok(u128::from(high) << 64 | u128::from(low))
    }
}

impl ReplayWindow {
    /// Creates the window of a stream at the index of its first authentic packet.
    pub(crate) fn starting_at(index: u64) -> Self {
        Self { newest: index, seen: 1 }
    }

    /// Creates the window of a stream that was known before. No index up to this one is accepted.
    pub(crate) fn closed_at(index: u64) -> Self {
        Self { newest: index, seen: u128::MAX }
    }

    /// Returns the newest index.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    /// Estimates the index of a sequence number: the one nearest to the newest. Returns `None` for
    /// an index before the first rollover.
    pub(crate) fn index_of(&self, sequence: u16) -> Option<u64> {
        let (rollovers, newest) = (self.newest >> 16, self.newest & 0xffff);
        let sequence = u64::from(sequence);
        let rollovers = if newest < 0x8000 && sequence > newest + 0x8000 {
            rollovers.checked_sub(1)?
        } else if newest >= 0x8000 && sequence < newest - 0x8000 {
            rollovers + 1
        } else {
            rollovers
        };
        Some(rollovers << 16 | sequence)
    }

    /// Returns whether a packet with this index may be new. An index behind the window counts as
    /// received.
    pub(crate) fn is_new(&self, index: u64) -> bool {
        match self.newest.checked_sub(index) {
            None => true,
            Some(behind) => behind < WINDOW_SIZE && self.seen >> behind & 1 == 0,
        }
    }

    /// Records an authenticated packet with a new index.
    pub(crate) fn insert(&mut self, index: u64) {
        match index.checked_sub(self.newest) {
            Some(0) => self.seen |= 1,
            Some(ahead) => {
                self.seen = if ahead < WINDOW_SIZE { self.seen << ahead | 1 } else { 1 };
                self.newest = index;
            }
            None => {
                let behind = self.newest - index;
                if behind < WINDOW_SIZE {
                    self.seen |= 1 << behind;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn estimates_the_nearest_index() {
        for (newest, sequence, index) in [
            (0, 0, Some(0)),
            (0, 0x8000, Some(0x8000)),
            (0, 0x8001, None),
            (5, 0xffff, None),
            (0x1_0005, 0xffff, Some(0xffff)),
            (0xfff0, 3, Some(0x1_0003)),
            (0x8000, 0, Some(0)),
            (0x8001, 0, Some(0x1_0000)),
            (0x7_ffff, 0, Some(0x8_0000)),
            (0x8_0000, 0xffff, Some(0x7_ffff)),
        ] {
            assert_eq!(
                ReplayWindow::starting_at(newest).index_of(sequence),
                index,
                "{newest:x} {sequence:x}"
            );
        }
    }

    #[test]
    fn r19_rejects_replays_and_old_packets() {
        let mut window = ReplayWindow::starting_at(1_000);
        assert!(!window.is_new(1_000));
        assert!(window.is_new(1_000 - 127));
        assert!(!window.is_new(1_000 - 128), "past the window");
        window.insert(1_003);
        assert!(window.is_new(1_002) && !window.is_new(1_000) && !window.is_new(1_003));
        window.insert(1_002);
        assert!(!window.is_new(1_002));
        window.insert(5_000);
        assert!(!window.is_new(1_003) && window.is_new(4_999));
        assert!(
            !ReplayWindow::closed_at(7).is_new(7)
                && !ReplayWindow::closed_at(7).is_new(0)
                && ReplayWindow::closed_at(7).is_new(8)
        );
    }

    proptest! {
        #[test]
        fn tracks_the_last_128_indices(offsets in proptest::collection::vec(0_u64..300, 1..200)) {
            let mut seen = BTreeSet::from([1_000]);
            let mut window = ReplayWindow::starting_at(1_000);
            for (n, offset) in offsets.iter().enumerate() {
                let index = 900 + offset + n as u64;
                let newest = *seen.last().expect("one");
                let new = index + 128 > newest && !seen.contains(&index);
                prop_assert_eq!(window.is_new(index), new);
                if new {
                    window.insert(index);
                    seen.insert(index);
                }
                prop_assert_eq!(window.newest(), *seen.last().expect("one"));
            }
        }

        /// However the sequence proceeds, no two packets within half the range get the same index.
        #[test]
        fn indices_continue_across_rollovers(start in 0_u64..0x8000, steps in proptest::collection::vec(1_u64..0x4000, 1..40)) {
            let mut window = ReplayWindow::starting_at(start);
            let mut at = start;
            for step in steps {
                at += step;
                let index = window.index_of((at & 0xffff) as u16);
                prop_assert_eq!(index, Some(at));
                window.insert(at);
            }
        }
    }
}
