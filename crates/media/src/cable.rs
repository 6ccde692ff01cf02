//! A cable connects two users of taps and feeds without a leg in between, such as a room and a
//! stream. Frames pushed to one end's feed appear at the other end's tap, at the 20 ms rhythm of a
//! leg.
//!
//! It runs on the media workers and forwards packets without decoding them.

use std::time::Instant;

use super::feed::{Feed, FeedEnd, feed};
use super::jitter_buffer::{InboundPacket, PACKET_TICKS};
use super::pace::Pace;
use super::tap::{Tap, TapEnd, TapEntry, TapSides, tap};
use super::workers::{Job, JobStatus, Workers};

/// One end of a cable: a tap and a feed like those of a leg.
#[derive(Debug)]
pub struct CableEnd {
    pub tap: Tap,
    pub feed: Feed,
}

/// Creates a cable. `leads` are the numbers of frames that the feeds of the two ends buffer before
/// audio starts. Returns `None` if no worker thread accepts the job. The cable ends when either end
/// is dropped. The tap of the other end then reports its end.
pub fn cable(workers: &Workers, leads: [usize; 2]) -> Option<[CableEnd; 2]> {
    let [first, second] = leads.map(feed);
    let taps = [tap(TapSides::Received), tap(TapSides::Received)];
    let [(first_tap_end, first_tap), (second_tap_end, second_tap)] = taps;
    let directions =
        [Direction::new(first.1, second_tap_end), Direction::new(second.1, first_tap_end)];
    let ends =
        [CableEnd { tap: first_tap, feed: first.0 }, CableEnd { tap: second_tap, feed: second.0 }];
    workers.add(Box::new(Cable { directions, pace: Pace::default() })).then_some(ends)
}

/// The job that forwards frames between the two ends.
struct Cable {
    directions: [Direction; 2],
    pace: Pace,
}

/// One direction of a cable.
struct Direction {
    from: FeedEnd,
    to: TapEnd,
    /// Number of ticks so far. Only ticks with audio have a packet.
    ticks: u32,
    packets: u64,
}

impl Direction {
    fn new(from: FeedEnd, to: TapEnd) -> Self {
        Self { from, to, ticks: 0, packets: 0 }
    }

    /// Forwards one frame. Returns `false` if an end was dropped.
    fn tick(&mut self) -> bool {
        let (frame, has_writer) = self.from.next();
        let mut has_reader = true;
        if let Some(payload) = frame {
            let timestamp = self.ticks.wrapping_mul(PACKET_TICKS);
            let packet = InboundPacket { ssrc: 1, sequence: self.packets, timestamp, payload };
            self.packets += 1;
            has_reader &= self.to.push(&TapEntry::Received(packet));
        }
        self.ticks = self.ticks.wrapping_add(1);
        has_reader &= self.to.push(&TapEntry::Tick);
        has_writer && has_reader
    }
}

impl Job for Cable {
    fn run(&mut self, now: Instant) -> JobStatus {
        for _ in 0..self.pace.steps(now) {
            // Both directions must run, even if the first one has ended.
            let open = self.directions.each_mut().map(Direction::tick);
            if open.contains(&false) {
                return JobStatus::Done;
            }
        }
        JobStatus::Running
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::opus::{Encoder, Rate};
    use crate::pace::STEP;
    use crate::test_peer::now;
    use crate::{Buffering, TapReader};

    /// A cable that no worker runs.
    fn unscheduled() -> (Cable, [CableEnd; 2]) {
        let [(a_feed, from_a), (b_feed, from_b)] = [feed(1), feed(1)];
        let [(to_a, a_tap), (to_b, b_tap)] = [tap(TapSides::Received), tap(TapSides::Received)];
        let cable = Cable {
            directions: [Direction::new(from_a, to_b), Direction::new(from_b, to_a)],
            pace: Pace::default(),
        };
        (cable, [CableEnd { tap: a_tap, feed: a_feed }, CableEnd { tap: b_tap, feed: b_feed }])
    }

    #[test]
    fn forwards_frames_at_every_tick() {
        let (mut cable, [a, b]) = unscheduled();
        let start = now();
        let mut encoder = Encoder::for_prompts();
        let buzz: Vec<i16> = (0..320).map(|n| if n % 16 < 8 { 8_000 } else { -8_000 }).collect();
        let mut readers =
            [a.tap, b.tap].map(|tap| TapReader::new(tap, Rate::Hz16000, Buffering::Jitter));
        let mut peak = [0u16; 2];
        let mut ticks = 0;
        for tick in 0..50u64 {
            assert!(a.feed.push(encoder.encode(&buzz)), "tick {tick}: the feed accepts a frame");
            assert_eq!(cable.run(start + Duration::from_millis(tick * 20)), JobStatus::Running);
            for (reader, peak) in readers.iter_mut().zip(&mut peak) {
                while let Some(frame) = reader.next() {
                    assert_eq!(frame.received.len(), 320);
                    ticks += 1;
                    *peak = frame
                        .received
                        .iter()
                        .map(|s| s.unsigned_abs())
                        .max()
                        .unwrap_or(0)
                        .max(*peak);
                }
            }
        }
        assert_eq!(ticks, 100, "one frame per tick at each end");
        assert!(peak[1] > 4_000 && peak[0] == 0, "{peak:?}");
        // A thread that was suspended for long does not catch up completely.
        cable.run(start + Duration::from_secs(60));
        assert!(readers[1].next().is_some() && readers[1].next().is_none());
    }

    #[test]
    fn ends_when_either_end_is_dropped() {
        let (mut cable, [a, b]) = unscheduled();
        assert_eq!(cable.run(now()), JobStatus::Running);
        drop(a);
        assert_eq!(cable.run(now() + STEP), JobStatus::Done);
        drop(cable);
        let mut reader = TapReader::new(b.tap, Rate::Hz16000, Buffering::Jitter);
        while reader.next().is_some() {}
        assert!(reader.is_over());
    }
}
