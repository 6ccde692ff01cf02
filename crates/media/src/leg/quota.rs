//! Limits on what the peer of a leg may send. Its packets are opened and partly decoded on the thread
//! that serves other calls, too, so a peer that sends far more than a call needs would take their
//! time.

use std::time::{Duration, Instant};

use crate::jitter_buffer::opus_ticks;

/// Maximum number of authentic packets a second. Audio in packets of 2.5 ms needs 400, and digits
/// need 50 more.
const PACKETS_MAX: u32 = 1_000;
const SECOND: Duration = Duration::from_secs(1);

/// Audio that may arrive at once, for example after a stall of the network. The rest must come in
/// real time, up to a quarter faster.
const AUDIO_BURST: Duration = Duration::from_secs(4);

/// Duration at which an invalid packet counts, in RTP ticks: 20 ms.
const INVALID_TICKS: u32 = 960;
/// RTP ticks of a millisecond of Opus.
const TICKS_PER_MS: u32 = 48;

/// What a peer may still send.
#[derive(Debug, Default)]
pub(super) struct PeerQuota {
    /// Beginning of the second in which `packets` arrived.
    second: Option<Instant>,
    packets: u32,
    /// The time at which the audio so far is due, if it arrives a quarter faster than in real time.
    audio_due: Option<Instant>,
}

impl PeerQuota {
    /// Returns whether the peer may send another packet. One that is not authentic does not count.
    pub(super) fn has_packets(&mut self, now: Instant) -> bool {
        let is_over = |begun: Instant| now.saturating_duration_since(begun) >= SECOND;
        if self.second.is_none_or(is_over) {
            (self.second, self.packets) = (Some(now), 0);
        }
        self.packets < PACKETS_MAX
    }

    /// Counts an authentic packet.
    pub(super) fn count_packet(&mut self) {
        self.packets = self.packets.saturating_add(1);
    }

    /// Counts an Opus packet. Returns `false` if the peer has sent too much audio and the packet must
    /// be dropped.
    pub(super) fn take_audio(&mut self, now: Instant, payload: &[u8]) -> bool {
        let due = self.audio_due.map_or(now, |due| due.max(now));
        if due.saturating_duration_since(now) > AUDIO_BURST {
            return false;
        }
        let ms = opus_ticks(payload).unwrap_or(INVALID_TICKS).div_ceil(TICKS_PER_MS);
        self.audio_due = Some(due + Duration::from_millis(ms.into()) * 4 / 5);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{PACKETS_MAX, PeerQuota};
    use model::{Clock, Timestamp};

    /// Wideband SILK in one frame of 20 ms, and in two of 60 ms.
    const SHORT: [u8; 2] = [9 << 3, 0];
    const LONG: [u8; 2] = [(11 << 3) | 1, 0];

    #[test]
    fn audio_in_real_time_passes_for_ever_and_a_flood_of_long_packets_does_not() {
        let start = Clock::stepped(Timestamp::from_secs(1_000)).now();
        let mut quota = PeerQuota::default();
        for n in 0..3_000 {
            // Bursts of a second every second.
            assert!(quota.take_audio(start + Duration::from_secs(n / 50), &SHORT), "{n}");
        }
        let mut quota = PeerQuota::default();
        let passed = (0..70_000)
            .filter(|n| quota.take_audio(start + Duration::from_micros(n * 143), &LONG))
            .count();
        // Ten seconds, a quarter faster, and a burst.
        assert!((100..=150).contains(&passed), "{passed}");
        assert!(
            quota.take_audio(start + Duration::from_secs(12), &LONG),
            "later audio is accepted again"
        );
    }

    #[test]
    fn packets_are_counted_by_the_second() {
        let start = Clock::stepped(Timestamp::from_secs(1_000)).now();
        let mut quota = PeerQuota::default();
        for _ in 0..PACKETS_MAX {
            assert!(quota.has_packets(start));
            quota.count_packet();
        }
        assert!(!quota.has_packets(start + Duration::from_millis(999)));
        assert!(quota.has_packets(start + Duration::from_secs(1)));
    }
}
