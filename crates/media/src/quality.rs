//! Audio quality of a leg: measured loss, jitter and round-trip time, and an estimated opinion
//! score.
//!
//! [`Reception`] counts one received stream as in RFC 3550 A.3 and A.8. [`Quality`] covers both
//! directions of a leg. The score is that of the E-model (ITU-T G.107), reduced to delay and loss;
//! the impairment of the codec is not included (docs/reference/media.md#quality-figures).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// RTP ticks of Opus per millisecond (RFC 7587).
const TICKS_PER_MS: u32 = 48;
/// Delay at both ends in milliseconds: 20 ms of packetisation, and 40 ms in which a receiver waits
/// for late packets.
const ENDPOINT_DELAY_MS: f32 = 60.0;
/// Rating without delay and loss, with the default values of G.107.
const R_MAX: f32 = 93.2;
/// Delay above which conversation suffers, in milliseconds (G.107, simplified).
const DELAY_LIMIT_MS: f32 = 177.3;
/// The effectiveness of concealment against random loss. The value from G.113 is for G.711 with
/// concealment, because there is none for Opus.
const LOSS_ROBUSTNESS: f32 = 25.1;

/// Statistics for one direction of a leg.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StreamStats {
    /// The number of packets sent, as known to the receiver.
    pub packets: u64,
    /// The number of these packets that did not arrive.
    pub lost: u64,
    /// Interarrival jitter (RFC 3550 §6.4.1).
    pub jitter: Duration,
}

impl StreamStats {
    /// Returns the share of lost packets, 0 to 1.
    pub fn loss(&self) -> f32 {
        // The share is computed in millionths, which cannot overflow.
        let millionths = u128::from(self.lost.min(self.packets)) * 1_000_000;
        let millionths = millionths.checked_div(self.packets.into()).unwrap_or_default();
        Duration::from_micros(u64::try_from(millionths).unwrap_or_default()).as_secs_f32()
    }
}

/// Measured quality of a leg so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Quality {
    /// Audio from the peer to this side.
    pub inbound: StreamStats,
    /// Audio from this side to the peer, as reported by the peer. Zero packets if it has not
    /// reported.
    pub outbound: StreamStats,
    /// Latest round-trip time, from the peer's reports.
    pub round_trip: Option<Duration>,
}

impl Quality {
    /// Returns the E-model's rating of one direction, 0 to 93.2.
    pub fn r_factor(&self, stats: &StreamStats) -> f32 {
        let ms = |time: Duration| time.as_secs_f32() * 1_000.0;
        let delay =
            self.round_trip.map_or(0.0, ms) / 2.0 + ENDPOINT_DELAY_MS + 2.0 * ms(stats.jitter);
        let delay_impairment = 0.024 * delay + 0.11 * (delay - DELAY_LIMIT_MS).max(0.0);
        let loss = stats.loss() * 100.0;
        let loss_impairment = 95.0 * loss / (loss + LOSS_ROBUSTNESS);
        (R_MAX - delay_impairment - loss_impairment).clamp(0.0, R_MAX)
    }

    /// Returns the mean opinion score for that rating, 1 to 4.5 (G.107 Annex B). `None` if the
    /// direction had no packets.
    pub fn mos(&self, stats: &StreamStats) -> Option<f32> {
        let r = self.r_factor(stats);
        let mos = 1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6;
        (stats.packets > 0).then_some(mos.clamp(1.0, 4.5))
    }
}

/// A leg's quality, written by its shard and readable from any thread.
#[derive(Debug, Default)]
pub(super) struct SharedQuality {
    inbound: SharedStreamStats,
    outbound: SharedStreamStats,
    /// The round-trip time in microseconds. 0 if it is unknown.
    round_trip: AtomicU32,
}

#[derive(Debug, Default)]
struct SharedStreamStats {
    packets: AtomicU64,
    lost: AtomicU64,
    /// The jitter in microseconds.
    jitter: AtomicU32,
}

impl SharedStreamStats {
    fn write(&self, stats: &StreamStats) {
        self.packets.store(stats.packets, Ordering::Relaxed);
        self.lost.store(stats.lost, Ordering::Relaxed);
        self.jitter.store(micros(stats.jitter), Ordering::Relaxed);
    }

    fn read(&self) -> StreamStats {
        StreamStats {
            packets: self.packets.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            jitter: Duration::from_micros(self.jitter.load(Ordering::Relaxed).into()),
        }
    }
}

impl SharedQuality {
    pub(super) fn write(&self, quality: &Quality) {
        self.inbound.write(&quality.inbound);
        self.outbound.write(&quality.outbound);
        self.round_trip
            .store(quality.round_trip.map_or(0, |rtt| micros(rtt).max(1)), Ordering::Relaxed);
    }

    /// Reads the figures, which may be from slightly different times.
    pub(super) fn read(&self) -> Quality {
        let rtt = self.round_trip.load(Ordering::Relaxed);
        Quality {
            inbound: self.inbound.read(),
            outbound: self.outbound.read(),
            round_trip: (rtt > 0).then(|| Duration::from_micros(rtt.into())),
        }
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// Statistics of one received stream.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Reception<T = Instant> {
    /// Index of the first packet.
    first: u64,
    /// Index of the newest packet.
    newest: u64,
    received: u64,
    /// The numbers of packets at the last report.
    expected_before: u64,
    received_before: u64,
    /// Arrival time and timestamp of the last audio packet.
    last: Option<(T, u32)>,
    /// The jitter in sixteenths of an RTP tick.
    jitter: u32,
}

impl<T> Reception<T> {
    pub(super) fn map_time<U>(self, time: impl Fn(T) -> U) -> Reception<U> {
        Reception {
            first: self.first,
            newest: self.newest,
            received: self.received,
            expected_before: self.expected_before,
            received_before: self.received_before,
            last: self.last.map(|(at, timestamp)| (time(at), timestamp)),
            jitter: self.jitter,
        }
    }

    /// Returns whether the figures fit each other. Those of a snapshot may not.
    pub(super) fn is_consistent(&self) -> bool {
        self.newest < 1 << 48
            && self.first <= self.newest
            && self.expected_before <= self.newest - self.first + 1
            && self.received_before <= self.received
            && self.received < 1 << 48
            && self.jitter < 1 << 24
    }
}

impl Reception {
    /// Starts the statistics of a stream at the index of its first packet.
    pub(super) fn starting_at(index: u64) -> Self {
        Self {
            first: index,
            newest: index,
            received: 0,
            expected_before: 0,
            received_before: 0,
            last: None,
            jitter: 0,
        }
    }

    /// Records a packet that is new and authentic. `sound` is false for telephone events, because
    /// all packets of an event have the timestamp of its start.
    pub(super) fn record(&mut self, now: Instant, index: u64, timestamp: u32, sound: bool) {
        self.first = self.first.min(index);
        self.newest = self.newest.max(index);
        self.received += 1;
        if !sound {
            return;
        }
        if let Some((at, before)) = self.last.replace((now, timestamp)) {
            let micros = now.saturating_duration_since(at).as_micros();
            let arrived = i64::try_from(micros)
                .unwrap_or(i64::MAX / 64)
                .saturating_mul(i64::from(TICKS_PER_MS))
                / 1_000;
            let sent = i64::from(timestamp.wrapping_sub(before).cast_signed());
            // A deviation of a second or more is a pause or a clock change, not jitter.
            let deviation =
                u32::try_from(arrived.saturating_sub(sent).unsigned_abs()).unwrap_or(u32::MAX);
            if deviation < 1_000 * TICKS_PER_MS {
                self.jitter = self.jitter + deviation - (self.jitter + 8) / 16;
            }
        }
    }

    /// Returns the figures so far.
    pub(super) fn stats(&self) -> StreamStats {
        let packets = self.expected();
        let jitter =
            Duration::from_micros(u64::from(self.jitter / 16) * 1_000 / u64::from(TICKS_PER_MS));
        StreamStats { packets, lost: packets.saturating_sub(self.received), jitter }
    }

    /// Returns the figures for a report block: the share lost since the last call (of 256), the
    /// total lost, and the jitter in ticks.
    pub(super) fn report_figures(&mut self) -> (u8, i32, u32) {
        let expected = self.expected() - self.expected_before;
        let received = self.received - self.received_before;
        self.expected_before = self.expected();
        self.received_before = self.received;
        let lost = expected.saturating_sub(received);
        let fraction = (lost * 256).checked_div(expected).unwrap_or_default();
        let fraction = u8::try_from(fraction).unwrap_or(u8::MAX);
        let total = i64::try_from(self.expected()).unwrap_or(i64::MAX)
            - i64::try_from(self.received).unwrap_or(i64::MAX);
        (fraction, i32::try_from(total).unwrap_or(i32::MAX), self.jitter / 16)
    }

    fn expected(&self) -> u64 {
        self.newest - self.first + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Clock;

    fn reception(packets: impl IntoIterator<Item = (u64, u64)>) -> Reception {
        let start = Clock::real().now();
        let mut packets = packets.into_iter().peekable();
        let first = packets.peek().expect("one").1;
        let mut reception = Reception::starting_at(first);
        for (ms, index) in packets {
            reception.record(start + Duration::from_millis(ms), index, index as u32 * 960, true);
        }
        reception
    }

    #[test]
    fn measures_loss_and_jitter() {
        let even = reception((0..100).map(|n| (n * 20, n)));
        assert_eq!(even.stats(), StreamStats { packets: 100, lost: 0, jitter: Duration::ZERO });

        let mut gaps = reception((0..100).filter(|n| n % 4 != 1).map(|n| (n * 20, n)));
        assert_eq!((gaps.stats().packets, gaps.stats().lost), (100, 25));
        assert_eq!(gaps.report_figures(), (64, 25, 0));
        assert_eq!(gaps.report_figures(), (0, 25, 0), "no packets since the last report");

        let uneven = reception((0..200).map(|n| (n * 20 + n % 2 * 8, n)));
        let jitter = uneven.stats().jitter;
        assert!((7..=8).contains(&jitter.as_millis()), "{jitter:?}");

        let reordered = reception([(0, 5), (20, 4), (40, 7), (60, 6)]);
        assert_eq!((reordered.stats().packets, reordered.stats().lost), (4, 0));
        let pause = reception([(0, 0), (60_000, 1), (60_020, 2)]);
        assert_eq!(pause.stats().jitter, Duration::ZERO, "a pause is not jitter");
    }

    #[test]
    fn the_score_follows_the_e_model() {
        let stats = |packets, lost| StreamStats { packets, lost, jitter: Duration::ZERO };
        let quality =
            |ms| Quality { round_trip: Some(Duration::from_millis(ms)), ..Quality::default() };
        assert_eq!(quality(0).mos(&stats(0, 0)), None, "no packets");
        let good = quality(80).mos(&stats(1_000, 0)).expect("a figure");
        assert!((4.3..4.45).contains(&good), "{good}");
        let far = quality(800).mos(&stats(1_000, 0)).expect("a figure");
        assert!((2.5..3.5).contains(&far), "{far}");
        let lossy = quality(80).mos(&stats(1_000, 300)).expect("a figure");
        assert!((1.0..2.7).contains(&lossy), "{lossy}");
        let mut last = 100.0;
        for lost in (0..=1_000).step_by(50) {
            let r = quality(50).r_factor(&stats(1_000, lost));
            assert!(r < last && r >= 0.0, "{lost}: {r}");
            last = r;
        }
    }

    #[test]
    fn shared_quality_returns_what_was_written() {
        let shared = SharedQuality::default();
        assert_eq!(shared.read(), Quality::default());
        let stats =
            |n: u64| StreamStats { packets: n, lost: n / 10, jitter: Duration::from_micros(n) };
        let quality = Quality {
            inbound: stats(100),
            outbound: stats(50),
            round_trip: Some(Duration::from_micros(77)),
        };
        shared.write(&quality);
        assert_eq!(shared.read(), quality);
    }
}
