//! Receives and sends DTMF as telephone events (RFC 4733), without I/O or a clock.
//!
//! A received digit is identified by SSRC, timestamp and event, and counts once, even if its
//! packets arrive repeated, late or truncated (docs/reference/media.md#dtmf-received). Sending
//! yields one packet per 20 ms tick. `sdp` negotiates the payload types.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use model::Digit;
use serde::{Deserialize, Serialize};

use crate::snapshot::{Offset, TimeBase};

/// Time since the last packet after which an event is reported even without an end packet.
const END_TIMEOUT: Duration = Duration::from_millis(200);
/// Maximum pause after which an event that has not ended may continue under another SSRC: the
/// sender changed its SSRC during the key press.
const CONTINUATION_MAX: Duration = Duration::from_secs(1);
/// Minimum length of a segment that may be followed by another segment. A key that is held longer
/// than the 16-bit duration allows continues in a new segment that starts at the end of the one
/// before (RFC 4733 §2.5.1.3). Senders use most of the range before they start a new segment.
const SEGMENT_MIN: u32 = 0xF000;
/// Maximum part of a segment's end that may be lost: 200 ms at 48 kHz. Without this bound, pressing
/// a key again a second after its end packets were lost would count as a continuation.
const SEGMENT_GAP_MAX: u32 = 9_600;
/// Number of events that are remembered, so that a late or duplicate packet does not count again.
const EVENTS_MAX: usize = 32;

/// Identifies an event. Timestamps are only compared for equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EventId {
    ssrc: u32,
    timestamp: u32,
    digit: Digit,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Event<T = Instant> {
    id: EventId,
    /// The SSRC before the last change, if it changed.
    previous_ssrc: Option<u32>,
    /// Timestamp of the previous segment, if there is one.
    previous_segment: Option<u32>,
    /// Duration in the latest packet of this segment.
    duration: u16,
    last_packet: T,
    /// Whether an end packet has arrived.
    ended: bool,
    reported: bool,
}

impl<T> Event<T> {
    fn map_time<U>(self, time: impl Fn(T) -> U) -> Event<U> {
        Event {
            id: self.id,
            previous_ssrc: self.previous_ssrc,
            previous_segment: self.previous_segment,
            duration: self.duration,
            last_packet: time(self.last_packet),
            ended: self.ended,
            reported: self.reported,
        }
    }
}

impl Event {
    /// Returns whether a packet with this id belongs to this event.
    fn includes(&self, id: EventId, now: Instant) -> bool {
        let same_segment =
            self.id.timestamp == id.timestamp || self.previous_segment == Some(id.timestamp);
        self.id.digit == id.digit
            && same_segment
            && (self.id.ssrc == id.ssrc
                || self.previous_ssrc == Some(id.ssrc)
                || self.can_continue(now))
    }

    /// Returns whether a packet with this id starts the next segment of this event.
    fn is_continued_by(&self, id: EventId, now: Instant) -> bool {
        let distance = id.timestamp.wrapping_sub(self.id.timestamp);
        (self.id.ssrc, self.id.digit) == (id.ssrc, id.digit)
            && self.can_continue(now)
            && (SEGMENT_MIN..=u32::from(u16::MAX)).contains(&distance)
            && distance.saturating_sub(self.duration.into()) <= SEGMENT_GAP_MAX
    }

    fn can_continue(&self, now: Instant) -> bool {
        !self.ended && now.saturating_duration_since(self.last_packet) < CONTINUATION_MAX
    }
}

/// Converts telephone-event packets to digits.
#[derive(Debug, Default)]
pub struct Receiver {
    /// The events in the order in which they first appeared.
    events: VecDeque<Event>,
}

/// The state of a [`Receiver`] in the snapshot of a leg.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ReceiverState(Vec<Event<Offset>>);

impl Receiver {
    pub(crate) fn snapshot(&self, base: TimeBase) -> ReceiverState {
        let events = self.events.iter().map(|event| event.map_time(|at| base.offset(at)));
        ReceiverState(events.collect())
    }

    pub(crate) fn restore(state: ReceiverState, base: TimeBase) -> Self {
        let events = state.0.into_iter().take(EVENTS_MAX);
        Self { events: events.map(|event| event.map_time(|at| base.at(at))).collect() }
    }

    /// Processes the payload of one authenticated event packet and appends the digits that it
    /// completes to `digits`.
    ///
    /// Ignores payloads that are too short, flash (16) and higher events.
    pub fn receive(
        &mut self,
        now: Instant,
        ssrc: u32,
        timestamp: u32,
        payload: &[u8],
        digits: &mut Vec<Digit>,
    ) {
        let [event, flags, high, low, ..] = payload else { return };
        let duration = u16::from_be_bytes([*high, *low]);
        let Some(digit) = Digit::from_event(*event) else { return };
        let ended = flags & 0x80 != 0;
        let id = EventId { ssrc, timestamp, digit };
        let belongs = |e: &Event| e.includes(id, now) || e.is_continued_by(id, now);
        match self.events.iter_mut().find(|e| belongs(e)) {
            Some(event) => {
                if event.is_continued_by(id, now) {
                    event.previous_segment =
                        Some(std::mem::replace(&mut event.id.timestamp, timestamp));
                }
                if event.id.timestamp == timestamp {
                    event.duration = duration;
                }
                if event.id.ssrc != ssrc && event.previous_ssrc != Some(ssrc) {
                    event.previous_ssrc = Some(std::mem::replace(&mut event.id.ssrc, ssrc));
                }
                event.last_packet = now;
                event.ended |= ended;
            }
            None => {
                if self.events.len() == EVENTS_MAX
                    && let Some(oldest) = self.events.pop_front()
                    && !oldest.reported
                {
                    digits.push(oldest.id.digit);
                }
                let previous_ssrc = None;
                let previous_segment = None;
                let event = Event {
                    id,
                    previous_ssrc,
                    previous_segment,
                    duration,
                    last_packet: now,
                    ended,
                    reported: false,
                };
                self.events.push_back(event);
            }
        }
        if ended {
            // An earlier key without end packets is reported first.
            self.report(digits, |e| {
                e.includes(id, now)
                    || (e.id.ssrc == ssrc && e.id.timestamp.wrapping_sub(timestamp) > u32::MAX / 2)
            });
        }
    }

    /// Appends the digits with overdue end packets to `digits`. Must be called at every tick.
    pub fn tick(&mut self, now: Instant, digits: &mut Vec<Digit>) {
        self.report(digits, |e| now.saturating_duration_since(e.last_packet) >= END_TIMEOUT);
    }

    fn report(&mut self, digits: &mut Vec<Digit>, due: impl Fn(&Event) -> bool) {
        for event in self.events.iter_mut().filter(|e| !e.reported) {
            if due(event) {
                event.reported = true;
                digits.push(event.id.digit);
            }
        }
    }
}

/// Number of ticks of 20 ms that a digit lasts by default.
const DIGIT_TICKS: u16 = 8;
/// Number of ticks between two digits: 80 ms.
const PAUSE_TICKS: u16 = 4;
/// Number of ticks of the longer wait: one second.
const WAIT_TICKS_MAX: u16 = 50;
/// Length of a tick in milliseconds.
const TICK_MS: u16 = 20;
/// Maximum length of a digit in milliseconds.
const DIGIT_MS_MAX: u16 = 2_000;
/// Number of end packets (RFC 4733 §2.5.1.4).
const END_PACKETS: u16 = 3;
/// Volume of an event: −10 dBm0.
const VOLUME: u8 = 10;
/// Maximum number of characters; the rest is ignored.
const DIGITS_MAX: usize = 256;

/// The action for one tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends a telephone event with this payload. `timestamp` is the RTP timestamp at the start of
    /// the digit.
    Event { payload: [u8; 4], timestamp: u32, marker: bool },
    /// Sends silence after a digit.
    Pause,
    /// Pauses before the next digit. Other audio may be sent.
    Wait,
    /// All digits have been sent.
    Done,
}

/// Sends a string of digits: `0-9 * # A-D`. `w` waits half a second, `W` one second. `@` and a
/// number after the digits set the length of each digit in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sender {
    queue: VecDeque<Item>,
    /// Number of ticks that a digit lasts.
    digit_ticks: u16,
    /// Number of ticks spent on the first item of the queue.
    elapsed: u16,
    /// Duration of one tick in the payload type's clock.
    tick_duration: u16,
    /// RTP timestamp at the start of the current digit.
    started_at: u32,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Item {
    Key(Digit),
    Wait { ticks: u16 },
}

impl Sender {
    /// Creates a sender. `clock` is the clock rate of the payload type, 8000 or 48000. Characters
    /// that are not keys are ignored.
    pub fn new(digits: &str, clock: u32) -> Self {
        let (digits, digit_ms) = digits.split_once('@').unwrap_or((digits, ""));
        let digit_ms = digit_ms.parse().unwrap_or(DIGIT_TICKS * TICK_MS).min(DIGIT_MS_MAX);
        let queue = digits
            .chars()
            .take(DIGITS_MAX)
            .filter_map(|c| match c {
                'w' => Some(Item::Wait { ticks: WAIT_TICKS_MAX / 2 }),
                'W' => Some(Item::Wait { ticks: WAIT_TICKS_MAX }),
                key => Digit::try_from(key).ok().map(Item::Key),
            })
            .collect();
        let digit_ticks = digit_ms.div_ceil(TICK_MS).max(1);
        Self {
            queue,
            digit_ticks,
            elapsed: 0,
            tick_duration: u16::try_from(clock / 50).unwrap_or(160),
            started_at: 0,
        }
    }

    /// Returns whether the fields fit each other. Those of a snapshot may not.
    pub(crate) fn is_consistent(&self) -> bool {
        let ticks_max = DIGIT_MS_MAX.div_ceil(TICK_MS);
        let is_short = |item: &Item| match item {
            Item::Key(_) => true,
            Item::Wait { ticks } => *ticks <= WAIT_TICKS_MAX,
        };
        self.queue.len() <= DIGITS_MAX
            && self.queue.iter().all(is_short)
            && (1..=ticks_max).contains(&self.digit_ticks)
            && self.elapsed <= ticks_max + PAUSE_TICKS
    }

    /// Returns the action for this tick. `timestamp` is the current RTP timestamp of the stream.
    pub fn step(&mut self, timestamp: u32) -> Step {
        let Some(item) = self.queue.front().copied() else { return Step::Done };
        let tick = self.elapsed;
        self.elapsed += 1;
        let length = match item {
            // The pause is long enough for the end packets.
            Item::Key(_) => self.digit_ticks + PAUSE_TICKS,
            Item::Wait { ticks } => ticks,
        };
        if self.elapsed >= length {
            self.queue.pop_front();
            self.elapsed = 0;
        }
        let Item::Key(digit) = item else { return Step::Wait };
        if tick == 0 {
            self.started_at = timestamp;
        }
        // The last packet of the tone is the first end packet.
        if tick >= self.digit_ticks + END_PACKETS - 1 {
            return Step::Pause;
        }
        let end = if tick + 1 >= self.digit_ticks { 0x80 } else { 0 };
        // The duration has 16 bits, which is 1.36 s at 48 kHz. A longer key continues in a new
        // segment that starts where the previous one ends, without a marker (RFC 4733 §2.5.1.3).
        let sounded = (tick + 1).min(self.digit_ticks);
        let segment_ticks = u16::MAX / self.tick_duration.max(1);
        let before = (sounded - 1) / segment_ticks * segment_ticks;
        let [high, low] = (sounded - before).saturating_mul(self.tick_duration).to_be_bytes();
        let timestamp =
            self.started_at.wrapping_add(u32::from(before) * u32::from(self.tick_duration));
        Step::Event {
            payload: [digit.event(), end | VOLUME, high, low],
            timestamp,
            marker: tick == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{Receiver, Sender, Step};
    use model::Clock;

    const SSRC: u32 = 7;

    /// Packets as (milliseconds, timestamp, event, end); returns digits as (milliseconds, key).
    fn received(packets: &[(u64, u32, u8, bool)]) -> Vec<(u64, char)> {
        let start = Clock::real().now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut receiver = Receiver::default();
        let mut keys = Vec::new();
        let mut digits = Vec::new();
        let last = packets.iter().map(|p| p.0).max().unwrap_or_default();
        for ms in 0..=last + 400 {
            for (_, timestamp, event, end) in packets.iter().filter(|p| p.0 == ms) {
                let flags = if *end { 0x8A } else { 0x0A };
                receiver.receive(at(ms), SSRC, *timestamp, &[*event, flags, 0, 160], &mut digits);
            }
            if ms % 20 == 0 {
                receiver.tick(at(ms), &mut digits);
            }
            keys.extend(digits.drain(..).map(|d| (ms, d.as_char())));
        }
        keys
    }

    #[test]
    fn r12_counts_a_key_once_across_an_ssrc_change() {
        let start = Clock::real().now();
        let mut receiver = Receiver::default();
        let mut digits = Vec::new();
        let mut packet = |ms: u64, ssrc: u32, timestamp: u32, flags: u8| {
            let now = start + Duration::from_millis(ms);
            receiver.tick(now, &mut digits);
            receiver.receive(now, ssrc, timestamp, &[4, flags, 0, 160], &mut digits);
            digits.len()
        };
        assert_eq!(packet(0, 1, 480, 0x0A), 0);
        assert_eq!(packet(20, 2, 480, 0x0A), 0);
        assert_eq!(packet(40, 1, 480, 0x0A), 0, "reordered");
        assert_eq!(packet(60, 2, 480, 0x8A), 1);
        assert_eq!(packet(80, 2, 480, 0x8A), 1);
        assert_eq!(packet(90, 1, 480, 0x0A), 1, "reordered with the end packet");
        // A pause, the digit is counted, and it continues under a third SSRC.
        assert_eq!(packet(600, 2, 30_000, 0x0A), 1);
        assert_eq!(packet(900, 3, 30_000, 0x0A), 2);
        assert_eq!(packet(920, 3, 30_000, 0x8A), 2);
        // The same timestamp by chance, much later.
        assert_eq!(packet(5_000, 4, 30_000, 0x8A), 3);
        assert_eq!(packet(5_020, 5, 30_000, 0x8A), 4, "that key had ended: a new event");
    }

    #[test]
    fn reports_one_digit_per_key_press() {
        type Packets = Vec<(u64, u32, u8, bool)>;
        type Keys = Vec<(u64, char)>;
        let press = |from: u64, timestamp: u32, event: u8| -> Packets {
            let body = (0..25).map(move |n| (from + n * 20, timestamp, event, false));
            body.chain([0, 1, 2].map(move |n| (from + 500 + n * 20, timestamp, event, true)))
                .collect()
        };
        let without = |packets: Packets, lost: fn(usize, bool) -> bool| -> Packets {
            packets
                .into_iter()
                .enumerate()
                .filter(|(n, p)| !lost(*n, p.3))
                .map(|(_, p)| p)
                .collect()
        };
        let cases: Vec<(&str, Packets, Keys)> = vec![
            ("whole, counted at its first end packet", press(0, 1000, 5), vec![(500, '5')]),
            ("start lost", without(press(0, 1000, 5), |n, _| n < 10), vec![(500, '5')]),
            (
                "only one end packet came",
                without(press(0, 1000, 5), |n, _| n != 27),
                vec![(540, '5')],
            ),
            (
                "ends lost: 200 ms after the last packet",
                without(press(0, 1000, 5), |_, e| e),
                vec![(680, '5')],
            ),
            ("only one packet without end", vec![(0, 1000, 11, false)], vec![(200, '#')]),
            (
                "the same key twice",
                [press(0, 1000, 5), press(600, 5800, 5)].concat(),
                vec![(500, '5'), (1100, '5')],
            ),
            (
                "reordered: an end first, the rest after it",
                vec![
                    (0, 1000, 1, true),
                    (10, 1000, 1, false),
                    (20, 1000, 1, false),
                    (30, 1000, 1, true),
                ],
                vec![(0, '1')],
            ),
            (
                "a packet after the 200 ms had passed",
                vec![(0, 1000, 1, false), (300, 1000, 1, false), (320, 1000, 1, true)],
                vec![(200, '1')],
            ),
            (
                "the first key's end is lost, the second ends soon: order is kept",
                vec![(0, 1000, 1, false), (60, 2000, 2, false), (100, 2000, 2, true)],
                vec![(100, '1'), (100, '2')],
            ),
            (
                "across the timestamp's wrap",
                vec![(0, u32::MAX - 10, 1, false), (60, 20, 2, true)],
                vec![(60, '1'), (60, '2')],
            ),
            (
                "the end of an earlier key is late",
                vec![(0, 2000, 2, true), (30, 1000, 1, true)],
                vec![(0, '2'), (30, '1')],
            ),
            (
                "letters are read, flash is not",
                vec![(0, 1, 15, true), (5, 2, 16, true), (9, 3, 255, true)],
                vec![(0, 'D')],
            ),
        ];
        for (name, packets, want) in cases {
            assert_eq!(received(&packets), want, "{name}");
        }
    }

    proptest! {
        /// A key of which any packet arrives counts once, and the keys keep their order, whatever
        /// is lost, duplicated or delayed by less than 200 ms (docs/reference/reliability.md#r12).
        #[test]
        fn keeps_every_key_on_a_bad_network(
            fates in proptest::collection::vec(proptest::collection::vec((0u8..100, 0u64..150), 28), 1..6)
        ) {
            let mut packets = Vec::new();
            let mut pressed = String::new();
            for (n, fate) in (0u32..).zip(&fates) {
                let event = u8::try_from(n).expect("few");
                let mut came = false;
                for (k, (luck, delay)) in (0u64..).zip(fate) {
                    // 30 % lost, 5 % duplicated.
                    let at = u64::from(n) * 1_000 + k * 20 + delay;
                    let packet = (at, n * 48_000, event, k >= 25);
                    packets.extend((*luck >= 30).then_some(packet));
                    packets.extend((*luck >= 95).then_some((at + 40, packet.1, event, k >= 25)));
                    came |= *luck >= 30;
                }
                pressed.extend(came.then(|| char::from(b'0' + event)));
            }
            let keys: String = received(&packets).into_iter().map(|(_, key)| key).collect();
            prop_assert_eq!(keys, pressed);
        }
    }

    #[test]
    fn separates_events_by_ssrc_and_ignores_short_payloads() {
        let now = Clock::real().now();
        let mut receiver = Receiver::default();
        let mut digits = Vec::new();
        receiver.receive(now, 1, 9, &[1, 0x8A, 0], &mut digits);
        receiver.receive(now, 1, 9, &[], &mut digits);
        assert!(digits.is_empty());
        receiver.receive(now, 1, 9, &[1, 0x8A, 0, 0], &mut digits);
        receiver.receive(now, 2, 9, &[1, 0x8A, 0, 0], &mut digits);
        assert_eq!(digits.len(), 2);
    }

    #[test]
    fn bounds_memory_without_losing_digits() {
        let now = Clock::real().now();
        let mut receiver = Receiver::default();
        let mut digits = Vec::new();
        for n in 0..1_000 {
            receiver.receive(now, SSRC, n, &[1, 0x0A, 0, 0], &mut digits);
        }
        assert!(receiver.events.len() <= super::EVENTS_MAX);
        receiver.tick(now + Duration::from_secs(1), &mut digits);
        assert_eq!(digits.len(), 1_000);
    }

    fn sent(digits: &str, clock: u32) -> Vec<Step> {
        let mut sender = Sender::new(digits, clock);
        let mut steps = Vec::new();
        for tick in 0..2_000u32 {
            match sender.step(tick * 960) {
                Step::Done => return steps,
                step => steps.push(step),
            }
        }
        steps
    }

    #[test]
    fn sends_a_digit_of_160_ms_with_three_end_packets_and_an_80_ms_pause() {
        for (clock, tick) in [(8_000u32, 160u16), (48_000, 960)] {
            let steps = sent("5", clock);
            assert_eq!(steps.len(), 12, "160 + 80 ms");
            let mut ends = 0;
            for (n, step) in (0u16..).zip(&steps) {
                match step {
                    Step::Event { payload, timestamp, marker } => {
                        assert!(n < 10);
                        assert_eq!(*timestamp, 0, "one timestamp for the whole event");
                        assert_eq!(*marker, n == 0);
                        assert_eq!(payload[0], 5);
                        assert_eq!(
                            u16::from_be_bytes([payload[2], payload[3]]),
                            (n + 1).min(8) * tick
                        );
                        ends += u32::from(payload[1] & 0x80 != 0);
                    }
                    other => assert!(n >= 10, "{n}: {other:?}"),
                }
            }
            assert_eq!(ends, 3);
        }
    }

    #[test]
    fn sends_digits_of_the_requested_length() {
        for (digits, on, clock) in [
            ("5@40", 2, 8_000),
            ("5@200", 10, 8_000),
            ("5@2000", 100, 48_000),
            ("5@9999", 100, 8_000),
        ] {
            let steps = sent(digits, clock);
            assert_eq!(steps.len(), on + 4, "{digits}: with a pause of 80 ms");
            let ends: Vec<usize> = (0..)
                .zip(&steps)
                .filter(|(_, step)| matches!(step, Step::Event { payload, .. } if payload[1] & 0x80 != 0))
                .map(|(n, _)| n)
                .collect();
            assert_eq!(ends, [on - 1, on, on + 1], "{digits}");
        }
        assert_eq!(sent("12@60", 8_000).len(), 14);
    }

    #[test]
    fn r12_continues_a_long_digit_in_a_new_segment() {
        let mut events = Vec::new();
        for (n, step) in (0u32..).zip(sent("5@2000", 48_000)) {
            if let Step::Event { payload, timestamp, marker } = step {
                events.push((
                    n,
                    timestamp,
                    u16::from_be_bytes([payload[2], payload[3]]),
                    payload[1] & 0x80 != 0,
                    marker,
                ));
            }
        }
        let ends: Vec<u32> = events
            .iter()
            .map(|(_, timestamp, duration, ..)| timestamp + u32::from(*duration))
            .collect();
        let sounded: Vec<u32> = (1..=100).chain([100, 100]).map(|ticks| ticks * 960).collect();
        assert_eq!(ends, sounded, "timestamp plus duration is the current position");
        assert_eq!(events[67], (67, 0, 65_280, false, false), "the maximum duration");
        assert_eq!(
            events[68],
            (68, 65_280, 960, false, false),
            "the next segment starts at its end"
        );
        assert_eq!(
            events.iter().filter(|(.., end, _)| *end).count(),
            3,
            "end packets only in the last segment"
        );
        assert_eq!(events.iter().filter(|(.., marker)| *marker).count(), 1, "one marker");
        // At 8 kHz no key is that long.
        let short = sent("5@2000", 8_000);
        assert!(
            short
                .iter()
                .all(|step| !matches!(step, Step::Event { timestamp, .. } if *timestamp != 0))
        );
    }

    /// Takes packets of key 5 as (milliseconds, timestamp, duration, end); returns the number of
    /// digits.
    fn count_digits(packets: &[(u64, u32, u16, bool)]) -> usize {
        let start = Clock::real().now();
        let mut receiver = Receiver::default();
        let mut digits = Vec::new();
        for (ms, timestamp, duration, end) in packets {
            let now = start + Duration::from_millis(*ms);
            let [high, low] = duration.to_be_bytes();
            receiver.tick(now, &mut digits);
            receiver.receive(
                now,
                SSRC,
                *timestamp,
                &[5, if *end { 0x8A } else { 0x0A }, high, low],
                &mut digits,
            );
        }
        receiver.tick(start + Duration::from_secs(60), &mut digits);
        digits.len()
    }

    #[test]
    fn r12_counts_the_segments_of_a_key_once() {
        // Four seconds at 48 kHz, in segments of maximum length, starting shortly before the
        // timestamp wraps.
        let first = u32::MAX - 70_000;
        let long: Vec<(u64, u32, u16, bool)> = (1..=200u64)
            .map(|tick| {
                let sounded = u32::try_from(tick).expect("few") * 960;
                let segment = (sounded - 1) / 0xFFFF * 0xFFFF;
                let duration = u16::try_from(sounded - segment).expect("16 bits");
                (tick * 20, first.wrapping_add(segment), duration, tick == 200)
            })
            .collect();
        assert_eq!(count_digits(&long), 1);
        let without = |lost: fn(u64) -> bool| {
            count_digits(&long.iter().copied().filter(|p| !lost(p.0)).collect::<Vec<_>>())
        };
        assert_eq!(without(|ms| (1_300..1_440).contains(&ms)), 1, "the segment boundary is lost");
        assert_eq!(without(|ms| ms == 4_000), 1, "the end is lost");
        let mut late = long.clone();
        late.extend([
            (4_020, first.wrapping_add(0xFFFF), 0xFFFF, false),
            (4_040, long[199].1, long[199].2, true),
        ]);
        assert_eq!(
            count_digits(&late),
            1,
            "late packets of the previous segment, and a repeated end"
        );
    }

    #[test]
    fn r12_counts_a_repeated_key_twice() {
        let press = |ms: u64, end: bool| {
            let timestamp = u32::try_from(ms).expect("short") * 48;
            (1..=25u16).map(move |tick| {
                (ms + u64::from(tick) * 20, timestamp, tick * 960, end && tick == 25)
            })
        };
        // 1.3 s after the first, with and without its end packet.
        for end in [true, false] {
            let packets: Vec<_> = press(0, end).chain(press(1_300, true)).collect();
            assert_eq!(count_digits(&packets), 2, "{end}");
        }
        // The first key was held for exactly one segment.
        let long: Vec<_> =
            (1..=68u16).map(|tick| (u64::from(tick) * 20, 0, tick * 960, tick == 68)).collect();
        assert_eq!(count_digits(&[long, press(1_361, true).collect()].concat()), 2);
    }

    #[test]
    fn receives_what_it_sends() {
        let start: Instant = Clock::real().now();
        let mut receiver = Receiver::default();
        let mut digits = Vec::new();
        for (n, step) in (0u32..).zip(sent("12w3Wx4*#AA", 8_000)) {
            let now = start + Duration::from_millis(20) * n;
            if let Step::Event { payload, timestamp, .. } = step {
                receiver.receive(now, SSRC, timestamp, &payload, &mut digits);
            }
            receiver.tick(now, &mut digits);
        }
        let text: String = digits.into_iter().map(|d| d.as_char()).collect();
        assert_eq!(text, "1234*#AA");
        assert_eq!(sent("w", 8_000).len(), 25, "half a second");
        assert_eq!(sent("W", 8_000).len(), 50, "a second");
        assert_eq!(sent("", 8_000).len(), 0);
    }
}
