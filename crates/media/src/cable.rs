//! A cable connects two users of taps and feeds without a leg in between, such as a room and a
//! stream. Frames pushed to one end's feed appear at the other end's tap, at the 20 ms rhythm of a
//! leg.
//!
//! It runs on the media workers and forwards packets without decoding them.

use std::time::{Duration, Instant};

use super::feed::{Feed, FeedEnd, feed};
use super::inlet::{Heard, PACKET_TICKS};
use super::tap::{Sides, Tap, TapEnd, Tapped, tap};
use super::workers::{Going, Job, Workers};

/// Duration of a tick; [`PACKET_TICKS`] on the RTP clock.
const TICK: Duration = Duration::from_millis(20);
/// If the job is later than this, the missed ticks are skipped.
const LATE_MAX: Duration = Duration::from_millis(200);

/// One end of a cable: a tap and a feed as those of a leg.
#[derive(Debug)]
pub struct CableEnd {
    pub tap: Tap,
    pub feed: Feed,
}

/// Creates a cable. `leads` are the frames that each end's feed buffers before audio starts.
/// Returns `None` if no worker thread accepts the job. The cable ends when either end is dropped;
/// the other end's tap then reports that it is over.
pub fn cable(workers: &Workers, leads: [usize; 2]) -> Option<[CableEnd; 2]> {
    let [first, second] = leads.map(feed);
    let taps = [tap(Sides::Heard), tap(Sides::Heard)];
    let [(first_ear, first_tap), (second_ear, second_tap)] = taps;
    let ways = [Way::new(first.1, second_ear), Way::new(second.1, first_ear)];
    let ends =
        [CableEnd { tap: first_tap, feed: first.0 }, CableEnd { tap: second_tap, feed: second.0 }];
    workers.add(Box::new(Cable { ways, due: None })).then_some(ends)
}

/// The job that forwards frames between the two ends.
struct Cable {
    ways: [Way; 2],
    due: Option<Instant>,
}

/// One direction.
struct Way {
    from: FeedEnd,
    to: TapEnd,
    /// Ticks so far. Only ticks with audio have a packet.
    ticks: u32,
    packets: u64,
}

impl Way {
    fn new(from: FeedEnd, to: TapEnd) -> Self {
        Self { from, to, ticks: 0, packets: 0 }
    }

    /// Forwards one frame. Returns `false` if an end is gone.
    fn tick(&mut self) -> bool {
        let (frame, is_fed) = self.from.next();
        let mut is_heard = true;
        if let Some(payload) = frame {
            let timestamp = self.ticks.wrapping_mul(PACKET_TICKS);
            let heard = Heard { ssrc: 1, sequence: self.packets, timestamp, payload };
            self.packets += 1;
            is_heard &= self.to.pass(&Tapped::Heard(heard));
        }
        self.ticks = self.ticks.wrapping_add(1);
        is_heard &= self.to.pass(&Tapped::Tick);
        is_fed && is_heard
    }
}

impl Job for Cable {
    fn beat(&mut self, now: Instant) -> Going {
        let mut due = *self.due.get_or_insert(now);
        if now.saturating_duration_since(due) > LATE_MAX {
            due = now;
        }
        while due <= now {
            // Both directions run, even if the first has ended.
            let whole = self.ways.each_mut().map(Way::tick);
            if whole.contains(&false) {
                return Going::Over;
            }
            due += TICK;
        }
        self.due = Some(due);
        Going::On
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::opus::{Encoder, Rate};
    use crate::test_peer::now;
    use crate::{Line, Patience};

    /// A cable that no worker runs.
    fn by_hand() -> (Cable, [CableEnd; 2]) {
        let [(a_feed, from_a), (b_feed, from_b)] = [feed(1), feed(1)];
        let [(ear_a, a_tap), (ear_b, b_tap)] = [tap(Sides::Heard), tap(Sides::Heard)];
        let cable = Cable { ways: [Way::new(from_a, ear_b), Way::new(from_b, ear_a)], due: None };
        (cable, [CableEnd { tap: a_tap, feed: a_feed }, CableEnd { tap: b_tap, feed: b_feed }])
    }

    #[test]
    fn what_one_end_says_the_other_hears_by_the_tick() {
        let (mut cable, [a, b]) = by_hand();
        let start = now();
        let mut encoder = Encoder::for_prompts();
        let buzz: Vec<i16> = (0..320).map(|n| if n % 16 < 8 { 8_000 } else { -8_000 }).collect();
        let mut ears = [a.tap, b.tap].map(|tap| Line::new(tap, Rate::Hz16000, Patience::Network));
        let mut loudest = [0u16; 2];
        let mut ticks = 0;
        for tick in 0..50u64 {
            assert!(a.feed.push(encoder.encode(&buzz)), "tick {tick}: what was said is taken");
            assert_eq!(cable.beat(start + Duration::from_millis(tick * 20)), Going::On);
            for (ear, loudest) in ears.iter_mut().zip(&mut loudest) {
                while let Some(piece) = ear.next() {
                    assert_eq!(piece.heard.len(), 320);
                    ticks += 1;
                    *loudest = piece
                        .heard
                        .iter()
                        .map(|s| s.unsigned_abs())
                        .max()
                        .unwrap_or(0)
                        .max(*loudest);
                }
            }
        }
        assert_eq!(ticks, 100, "a piece each tick, at either end");
        assert!(loudest[1] > 4_000 && loudest[0] == 0, "{loudest:?}");
        // A thread that was suspended for long does not catch up completely.
        cable.beat(start + Duration::from_secs(60));
        assert!(ears[1].next().is_some() && ears[1].next().is_none());
    }

    #[test]
    fn it_is_gone_when_an_end_is() {
        let (mut cable, [a, b]) = by_hand();
        assert_eq!(cable.beat(now()), Going::On);
        drop(a);
        assert_eq!(cable.beat(now() + TICK), Going::Over);
        drop(cable);
        let mut ear = Line::new(b.tap, Rate::Hz16000, Patience::Network);
        while ear.next().is_some() {}
        assert!(ear.is_over());
    }
}
