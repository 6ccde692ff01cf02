//! Audio quality of a call over time, the data behind the quality graph of a call.
//!
//! This module has no I/O. The counters of a leg are cumulative (`media::quality`); the difference
//! between two readings is a [`Sample`]. The shell reads the counters when its timer fires, and
//! writes the whole [`Course`] into the trace when the audio ends. Memory is bounded: at
//! `SAMPLES_MAX` samples, neighbours are merged and the interval doubles.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sound;
use media::{Quality, StreamStats};
use model::CallQuality;

/// Initial milliseconds between two readings. Most peers send RTCP receiver reports at this
/// interval.
const EVERY_MS: u32 = 5_000;
/// Maximum number of samples of a call: twenty minutes at the initial interval. Even, because
/// samples are merged in pairs.
const SAMPLES_MAX: usize = 240;
/// Minimum duration of the last sample. A shorter one is merged into the sample before it, because
/// a percentage of a few packets means nothing.
const REST_MIN_MS: u32 = 1_000;
/// Maximum number of samples that are read from a log line, which is untrusted input.
const READ_MAX: usize = 4 * SAMPLES_MAX;

/// Quality of one stretch of a call. Serialized in the event log as an array of eight numbers in
/// this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u32; 8]", into = "[u32; 8]")]
pub struct Sample {
    /// End of the stretch in milliseconds of the call. It begins where the previous one ends.
    pub until_ms: u32,
    inbound: Stretch,
    outbound: Stretch,
    /// Round-trip time in microseconds. 0 if unknown.
    round_trip_us: u32,
}

/// Packet counts of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stretch {
    packets: u32,
    lost: u32,
    jitter_us: u32,
}

/// The course of a call: its audio quality over time, as samples.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Start of the first sample, in milliseconds of the call.
    pub from_ms: u32,
    /// Minimum duration of a sample. The last one may be shorter.
    pub every_ms: u32,
    pub samples: Vec<Sample>,
}

/// Quality of one stretch, as reported to users.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moment {
    /// Start of the stretch, in milliseconds of the call.
    pub from_ms: u32,
    pub until_ms: u32,
    /// The quality. `None` if nothing was measured.
    pub quality: Option<CallQuality>,
}

impl From<[u32; 8]> for Sample {
    fn from(
        [until_ms, in_packets, in_lost, in_jitter, out_packets, out_lost, out_jitter, trip]: [u32;
            8],
    ) -> Self {
        Self {
            until_ms,
            inbound: Stretch { packets: in_packets, lost: in_lost, jitter_us: in_jitter },
            outbound: Stretch { packets: out_packets, lost: out_lost, jitter_us: out_jitter },
            round_trip_us: trip,
        }
    }
}

impl From<Sample> for [u32; 8] {
    fn from(sample: Sample) -> Self {
        let Sample { until_ms, inbound: i, outbound: o, round_trip_us } = sample;
        [until_ms, i.packets, i.lost, i.jitter_us, o.packets, o.lost, o.jitter_us, round_trip_us]
    }
}

impl Stretch {
    /// Returns the difference of two readings, and the number of packets that were counted as lost
    /// before but arrived late.
    fn between(before: &StreamStats, now: &StreamStats) -> (Self, u32) {
        // A smaller count means that another stream is counted now.
        let before = if now.packets < before.packets { &StreamStats::default() } else { before };
        let packets = whole(now.packets - before.packets);
        let lost = whole(now.lost.saturating_sub(before.lost)).min(packets);
        let jitter_us = if packets > 0 { micros(now.jitter) } else { 0 };
        (Self { packets, lost, jitter_us }, whole(before.lost.saturating_sub(now.lost)))
    }

    /// Merges two stretches. Packets add up. The larger jitter is kept, so that a short disturbance
    /// stays visible.
    fn with(self, next: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(next.packets),
            lost: self.lost.saturating_add(next.lost),
            jitter_us: self.jitter_us.max(next.jitter_us),
        }
    }

    fn way(self) -> StreamStats {
        let jitter = Duration::from_micros(self.jitter_us.into());
        StreamStats { packets: self.packets.into(), lost: self.lost.into(), jitter }
    }
}

impl Sample {
    fn with(self, next: Self) -> Self {
        Self {
            until_ms: next.until_ms,
            inbound: self.inbound.with(next.inbound),
            outbound: self.outbound.with(next.outbound),
            round_trip_us: self.round_trip_us.max(next.round_trip_us),
        }
    }

    /// Loss, jitter, round trip and estimated MOS of this stretch alone.
    fn quality(self) -> Option<CallQuality> {
        let round_trip =
            (self.round_trip_us > 0).then(|| Duration::from_micros(self.round_trip_us.into()));
        sound::quality(&Quality {
            inbound: self.inbound.way(),
            outbound: self.outbound.way(),
            round_trip,
        })
    }
}

impl Course {
    /// Iterates over the stretches in order.
    pub fn moments(&self) -> impl Iterator<Item = Moment> {
        self.samples.iter().take(READ_MAX).scan(self.from_ms, |from, sample| {
            let from_ms = std::mem::replace(from, sample.until_ms);
            Some(Moment { from_ms, until_ms: sample.until_ms, quality: sample.quality() })
        })
    }

    /// Whether any packet was counted in either direction.
    fn has_sound(&self) -> bool {
        self.samples.iter().any(|sample| sample.inbound.packets > 0 || sample.outbound.packets > 0)
    }
}

/// The samples of a live call. The shell adds to it and the API reads it.
#[derive(Debug, Default)]
pub(super) struct Sampler(Mutex<Option<SamplerState>>);

/// The course of a live call at a moment, for another process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CourseSnapshot {
    course: Course,
    due_ms: Option<u32>,
}

#[derive(Debug)]
struct SamplerState {
    course: Course,
    /// The counters at the last reading.
    before: Quality,
    /// Time of the next reading. `None` after the audio has ended.
    due_ms: Option<u32>,
}

impl Sampler {
    fn with<T>(&self, act: impl FnOnce(&mut Option<SamplerState>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts sampling at `at_ms` of the call. A second call has no effect.
    pub(super) fn begin(&self, at_ms: u32) {
        self.with(|state| {
            state.get_or_insert_with(|| SamplerState {
                course: Course { from_ms: at_ms, every_ms: EVERY_MS, samples: Vec::new() },
                before: Quality::default(),
                due_ms: Some(at_ms.saturating_add(EVERY_MS)),
            });
        });
    }

    /// Continues the course of a call that another process has handed over. `before` are the
    /// current counters of the leg.
    pub(super) fn resumed(course: Option<CourseSnapshot>, before: Quality) -> Self {
        let state =
            course.map(|CourseSnapshot { course, due_ms }| SamplerState { course, before, due_ms });
        Self(Mutex::new(state))
    }

    /// Returns the state for another process.
    pub(super) fn snapshot(&self) -> Option<CourseSnapshot> {
        self.with(|state| {
            let state = state.as_ref()?;
            Some(CourseSnapshot { course: state.course.clone(), due_ms: state.due_ms })
        })
    }

    /// Time of the next reading, in milliseconds of the call.
    pub(super) fn due_ms(&self) -> Option<u32> {
        self.with(|state| state.as_ref()?.due_ms)
    }

    /// Adds a reading of the leg's counters.
    pub(super) fn look(&self, at_ms: u32, now: &Quality) {
        self.with(|state| {
            if let Some(state) = state {
                state.look(at_ms, now);
            }
        });
    }

    /// Adds the last reading and returns the course. Returns `None` if there was no audio or if
    /// sampling had already ended.
    pub(super) fn end(&self, at_ms: u32, now: &Quality) -> Option<Course> {
        self.with(|state| {
            let state = state.as_mut().filter(|state| state.due_ms.is_some())?;
            state.look(at_ms, now);
            state.due_ms = None;
            state.course.has_sound().then(|| state.course.clone())
        })
    }

    /// Returns the course so far. `None` if there was no audio.
    pub(super) fn course(&self) -> Option<Course> {
        self.with(|state| state.as_ref().map(|state| state.course.clone()))
            .filter(Course::has_sound)
    }
}

impl SamplerState {
    fn look(&mut self, at_ms: u32, now: &Quality) {
        let (inbound, in_late) = Stretch::between(&self.before.inbound, &now.inbound);
        let (outbound, out_late) = Stretch::between(&self.before.outbound, &now.outbound);
        let round_trip_us = now.round_trip.map_or(0, micros);
        let sample = Sample { until_ms: at_ms, inbound, outbound, round_trip_us };
        self.before = *now;
        let samples = &mut self.course.samples;
        if let Some(last) = samples.last_mut() {
            last.inbound.lost = last.inbound.lost.saturating_sub(in_late);
            last.outbound.lost = last.outbound.lost.saturating_sub(out_late);
        }
        let since =
            at_ms.saturating_sub(samples.last().map_or(self.course.from_ms, |last| last.until_ms));
        match samples.last_mut().filter(|_| since < REST_MIN_MS) {
            Some(last) => *last = last.with(sample),
            None => samples.push(sample),
        }
        self.course.thin();
        let every = self.course.every_ms;
        // Relative to the due time, since this reading may be late.
        let due = self.due_ms.unwrap_or(at_ms).saturating_add(every);
        self.due_ms = Some(if due > at_ms { due } else { at_ms.saturating_add(every) });
    }
}

impl Course {
    fn thin(&mut self) {
        if self.samples.len() >= SAMPLES_MAX {
            let both =
                |pair: &[Sample]| pair.iter().copied().reduce(Sample::with).unwrap_or_default();
            self.samples = self.samples.chunks(2).map(both).collect();
            self.every_ms = self.every_ms.saturating_mul(2);
        }
    }
}

fn whole(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(packets: u64, lost: u64, jitter_ms: u64) -> StreamStats {
        StreamStats { packets, lost, jitter: Duration::from_millis(jitter_ms) }
    }

    fn account(inbound: StreamStats, outbound: StreamStats, trip_ms: u64) -> Quality {
        let round_trip = (trip_ms > 0).then(|| Duration::from_millis(trip_ms));
        Quality { inbound, outbound, round_trip }
    }

    /// One row per sample: end, packets and lost packets in each direction.
    fn table(course: &Course) -> Vec<[u32; 5]> {
        let row = |s: &Sample| {
            [s.until_ms, s.inbound.packets, s.inbound.lost, s.outbound.packets, s.outbound.lost]
        };
        course.samples.iter().map(row).collect()
    }

    #[test]
    fn a_sample_covers_only_its_stretch() {
        let sampler = Sampler::default();
        assert_eq!((sampler.due_ms(), sampler.course()), (None, None), "nothing to hear yet");
        sampler.look(1, &Quality::default());
        sampler.begin(1_200);
        sampler.begin(9_999);
        assert_eq!(sampler.due_ms(), Some(6_200));
        sampler.look(6_203, &account(way(250, 10, 4), way(240, 0, 3), 80));
        assert_eq!(sampler.due_ms(), Some(11_200), "by the clock");
        sampler.look(11_200, &account(way(500, 10, 6), way(240, 0, 3), 90));
        // Two packets that counted as lost arrived late, and the next reading is late too.
        sampler.look(31_000, &account(way(1_400, 8, 40), way(1_200, 60, 3), 700));
        assert_eq!(sampler.due_ms(), Some(36_000));
        // Another stream counts from zero.
        let course =
            sampler.end(33_000, &account(way(100, 5, 1), way(1_300, 60, 3), 60)).expect("a course");
        let expected = [
            [6_203, 250, 10, 240, 0],
            [11_200, 250, 0, 0, 0],
            [31_000, 900, 0, 960, 60],
            [33_000, 100, 5, 100, 0],
        ];
        assert_eq!(table(&course), expected);
        assert_eq!((course.from_ms, sampler.due_ms()), (1_200, None));
        assert_eq!(sampler.end(34_000, &Quality::default()), None, "it is over once");
        assert_eq!(sampler.course(), Some(course.clone()));

        let moments: Vec<Moment> = course.moments().collect();
        assert_eq!(
            (moments[0].from_ms, moments[0].until_ms, moments[1].from_ms),
            (1_200, 6_203, 6_203)
        );
        let first = moments[0].quality.expect("measured");
        let (inbound, outbound) = (first.inbound.expect("in"), first.outbound.expect("out"));
        assert!(
            (inbound.loss_percent - 4.0).abs() < 0.01 && outbound.loss_percent == 0.0,
            "{first:?}"
        );
        assert!(inbound.mos < outbound.mos && first.round_trip_ms == Some(80.0), "{first:?}");
        assert_eq!(moments[1].quality.expect("one way").outbound, None, "no report came");
    }

    #[test]
    fn late_packets_are_subtracted_from_earlier_losses() {
        let sampler = Sampler::default();
        sampler.begin(0);
        sampler.look(5_000, &account(way(250, 12, 4), StreamStats::default(), 0));
        let course = sampler
            .end(10_000, &account(way(500, 9, 4), StreamStats::default(), 0))
            .expect("a course");
        assert_eq!(table(&course), [[5_000, 250, 9, 0, 0], [10_000, 250, 0, 0, 0]]);
    }

    #[test]
    fn a_short_last_sample_is_merged_and_silence_has_no_course() {
        let sampler = Sampler::default();
        sampler.begin(0);
        sampler.look(5_000, &account(way(250, 0, 4), StreamStats::default(), 0));
        let course = sampler
            .end(5_400, &account(way(270, 10, 9), StreamStats::default(), 0))
            .expect("a course");
        assert_eq!(table(&course), [[5_400, 270, 10, 0, 0]]);

        let short = Sampler::default();
        short.begin(0);
        let course = short
            .end(300, &account(way(15, 0, 4), StreamStats::default(), 0))
            .expect("short calls have one");
        assert_eq!(table(&course), [[300, 15, 0, 0, 0]]);
        let silent = Sampler::default();
        silent.begin(0);
        silent.look(5_000, &Quality::default());
        assert_eq!((silent.course(), silent.end(7_000, &Quality::default())), (None, None));
    }

    #[test]
    fn a_long_call_merges_samples_without_losing_packets() {
        let sampler = Sampler::default();
        sampler.begin(0);
        let mut account = Quality::default();
        let mut readings = 0_u32;
        // Ten hours at 50 packets a second, with five bad seconds in the ninth minute.
        while let Some(due) = sampler.due_ms().filter(|due| *due <= 36_000_000) {
            readings += 1;
            account.inbound.packets = u64::from(due) / 20;
            let bad = (540_000..545_000).contains(&(due - 1));
            account.inbound.lost += if bad { 100 } else { 0 };
            account.inbound.jitter = Duration::from_millis(if bad { 90 } else { 5 });
            sampler.look(due, &account);
        }
        let course = sampler.end(36_000_100, &account).expect("a course");
        assert!(
            (SAMPLES_MAX / 2..SAMPLES_MAX).contains(&course.samples.len()),
            "{}",
            course.samples.len()
        );
        assert!(
            readings < 1_500 && course.every_ms == 160_000,
            "{readings} readings, each {} ms",
            course.every_ms
        );
        let sum = |of: fn(&Sample) -> u32| course.samples.iter().map(of).sum::<u32>();
        assert_eq!((sum(|s| s.inbound.packets), sum(|s| s.inbound.lost)), (1_800_000, 100));
        assert!(
            course.samples.iter().any(|s| s.inbound.jitter_us == 90_000),
            "the bad moment is still to be seen"
        );
        assert!(course.samples.is_sorted_by_key(|s| s.until_ms));
        let line = serde_json::to_string(&course).expect("JSON");
        assert!(line.len() < 16_000, "{} bytes", line.len());
    }
}
