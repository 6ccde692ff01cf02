//! DTMF as telephone events (RFC 4733), received and sent. No I/O and no clock.
//!
//! A received digit is identified by SSRC, timestamp and event, and counts once, however often,
//! late, duplicated or truncated its packets arrive (docs/reference/media.md#dtmf-received).
//! Sending yields one packet per 20 ms tick. `sdp` negotiates the payload types.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use model::Digit;

/// Time since the last packet after which an event without an end packet is reported.
const LOST_END: Duration = Duration::from_millis(200);
/// Maximum pause after which an event that has not ended may continue under another SSRC: the
/// sender changed its SSRC during the key press.
const CARRIED_OVER: Duration = Duration::from_secs(1);
/// Minimum length of a segment that another one may follow. A key that is held longer than the
/// 16-bit duration allows continues in a new segment, whose timestamp is the end of the one before
/// (RFC 4733 §2.5.1.3). Senders use most of the range before they start one.
const SEGMENT_MIN: u32 = 0xF000;
/// Maximum part of a segment's end that may be lost: 200 ms at 48 kHz. Without this bound, pressing
/// the same key again a second after one whose end was lost would count as its continuation.
const SEGMENT_GAP_MAX: u32 = 9_600;
/// Number of events that are remembered, so that a late or duplicate packet does not count again.
const REMEMBERED: usize = 32;

/// Identifies an event. Timestamps are only compared for equality.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    ssrc: u32,
    timestamp: u32,
    digit: Digit,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    name: Name,
    /// The SSRC before the last change, if it changed.
    began_as: Option<u32>,
    /// Timestamp of the previous segment, if there is one.
    segment_before: Option<u32>,
    /// Duration in the latest packet of this segment.
    duration: u16,
    last_packet: Instant,
    /// An end packet has arrived.
    ended: bool,
    reported: bool,
}

impl Event {
    /// Returns whether a packet with this id belongs to this event.
    fn holds(&self, name: Name, now: Instant) -> bool {
        let is_of_it =
            self.name.timestamp == name.timestamp || self.segment_before == Some(name.timestamp);
        self.name.digit == name.digit
            && is_of_it
            && (self.name.ssrc == name.ssrc
                || self.began_as == Some(name.ssrc)
                || self.may_go_on(now))
    }

    /// Returns whether a packet with this id starts the next segment of this event.
    fn goes_on_as(&self, name: Name, now: Instant) -> bool {
        let later = name.timestamp.wrapping_sub(self.name.timestamp);
        (self.name.ssrc, self.name.digit) == (name.ssrc, name.digit)
            && self.may_go_on(now)
            && (SEGMENT_MIN..=u32::from(u16::MAX)).contains(&later)
            && later.saturating_sub(self.duration.into()) <= SEGMENT_GAP_MAX
    }

    fn may_go_on(&self, now: Instant) -> bool {
        !self.ended && now.saturating_duration_since(self.last_packet) < CARRIED_OVER
    }
}

/// Turns telephone-event packets into digits.
#[derive(Debug, Default)]
pub struct Receiver {
    /// In the order in which they were first seen.
    events: VecDeque<Event>,
}

impl Receiver {
    /// Processes the payload of one authenticated event packet and appends the digits that it
    /// completes to `digits`.
    ///
    /// Ignores payloads that are too short, flash (16) and higher events.
    pub fn packet(
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
        let name = Name { ssrc, timestamp, digit };
        let goes_on = |e: &Event| e.holds(name, now) || e.goes_on_as(name, now);
        match self.events.iter_mut().find(|e| goes_on(e)) {
            Some(known) => {
                if known.goes_on_as(name, now) {
                    known.segment_before =
                        Some(std::mem::replace(&mut known.name.timestamp, timestamp));
                }
                if known.name.timestamp == timestamp {
                    known.duration = duration;
                }
                if known.name.ssrc != ssrc && known.began_as != Some(ssrc) {
                    known.began_as = Some(std::mem::replace(&mut known.name.ssrc, ssrc));
                }
                known.last_packet = now;
                known.ended |= ended;
            }
            None => {
                if self.events.len() == REMEMBERED
                    && let Some(oldest) = self.events.pop_front()
                    && !oldest.reported
                {
                    digits.push(oldest.name.digit);
                }
                let began_as = None;
                let segment_before = None;
                let event = Event {
                    name,
                    began_as,
                    segment_before,
                    duration,
                    last_packet: now,
                    ended,
                    reported: false,
                };
                self.events.push_back(event);
            }
        }
        if ended {
            // A key that was pressed before this one and whose end is lost is reported first.
            self.report(digits, |e| {
                e.holds(name, now)
                    || (e.name.ssrc == ssrc
                        && e.name.timestamp.wrapping_sub(timestamp) > u32::MAX / 2)
            });
        }
    }

    /// Appends the digits whose end packets are overdue. Must be called at every tick.
    pub fn tick(&mut self, now: Instant, digits: &mut Vec<Digit>) {
        self.report(digits, |e| now.saturating_duration_since(e.last_packet) >= LOST_END);
    }

    fn report(&mut self, digits: &mut Vec<Digit>, due: impl Fn(&Event) -> bool) {
        for event in self.events.iter_mut().filter(|e| !e.reported) {
            if due(event) {
                event.reported = true;
                digits.push(event.name.digit);
            }
        }
    }
}

/// Ticks of 20 ms that a digit lasts by default.
const ON_TICKS: u16 = 8;
/// Ticks between two digits: 80 ms.
const OFF_TICKS: u16 = 4;
/// Length of a tick in milliseconds.
const TICK_MS: u16 = 20;
/// Maximum length of a digit in milliseconds.
const ON_MS_MAX: u16 = 2_000;
/// Number of end packets (RFC 4733 §2.5.1.4).
const END_PACKETS: u16 = 3;
/// Volume of an event: −10 dBm0.
const VOLUME: u8 = 10;
/// Maximum number of characters; the rest is ignored.
const DIGITS_MAX: usize = 256;

/// What to send at one tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A telephone event with this payload. `timestamp` is the RTP timestamp at the start of the
    /// digit.
    Event { payload: [u8; 4], timestamp: u32, marker: bool },
    /// Silence after a digit.
    Pause,
    /// A pause before the next digit, in which other audio may be sent.
    Wait,
    /// All digits have been sent.
    Done,
}

/// Sends a string of digits: `0-9 * # A-D`. `w` waits half a second, `W` one second. `@` and a
/// number after the digits set the length of each digit in milliseconds.
#[derive(Debug)]
pub struct Sender {
    rest: VecDeque<Tone>,
    /// Ticks that a digit lasts.
    on_ticks: u16,
    /// Ticks spent on the first item of the queue.
    spent: u16,
    /// Duration of one tick in the payload type's clock.
    ticks_duration: u16,
    /// RTP timestamp at the start of the current digit.
    began: u32,
}

#[derive(Clone, Copy, Debug)]
enum Tone {
    Key(Digit),
    Wait { ticks: u16 },
}

impl Sender {
    /// Creates a sender. `clock` is the clock rate of the payload type, 8000 or 48000. Characters
    /// that are not keys are ignored.
    pub fn new(digits: &str, clock: u32) -> Self {
        let (digits, on_ms) = digits.split_once('@').unwrap_or((digits, ""));
        let on_ms = on_ms.parse().unwrap_or(ON_TICKS * TICK_MS).min(ON_MS_MAX);
        let rest = digits
            .chars()
            .take(DIGITS_MAX)
            .filter_map(|c| match c {
                'w' => Some(Tone::Wait { ticks: 25 }),
                'W' => Some(Tone::Wait { ticks: 50 }),
                key => Digit::try_from(key).ok().map(Tone::Key),
            })
            .collect();
        let on_ticks = on_ms.div_ceil(TICK_MS).max(1);
        Self {
            rest,
            on_ticks,
            spent: 0,
            ticks_duration: u16::try_from(clock / 50).unwrap_or(160),
            began: 0,
        }
    }

    /// Returns what to send at this tick. `timestamp` is the current RTP timestamp of the stream.
    pub fn step(&mut self, timestamp: u32) -> Step {
        let Some(tone) = self.rest.front().copied() else { return Step::Done };
        let tick = self.spent;
        self.spent += 1;
        let length = match tone {
            // The pause is long enough for the end packets.
            Tone::Key(_) => self.on_ticks + OFF_TICKS,
            Tone::Wait { ticks } => ticks,
        };
        if self.spent >= length {
            self.rest.pop_front();
            self.spent = 0;
        }
        let Tone::Key(digit) = tone else { return Step::Wait };
        if tick == 0 {
            self.began = timestamp;
        }
        // The last packet of the tone is the first end packet.
        if tick >= self.on_ticks + END_PACKETS - 1 {
            return Step::Pause;
        }
        let end = if tick + 1 >= self.on_ticks { 0x80 } else { 0 };
        // The duration has 16 bits, which is 1.36 s at 48 kHz. A longer key continues in a new
        // segment that starts where the previous one ends, without a marker (RFC 4733 §2.5.1.3).
        let sounded = (tick + 1).min(self.on_ticks);
        let segment_ticks = u16::MAX / self.ticks_duration.max(1);
        let before = (sounded - 1) / segment_ticks * segment_ticks;
        let [high, low] = (sounded - before).saturating_mul(self.ticks_duration).to_be_bytes();
        let timestamp = self.began.wrapping_add(u32::from(before) * u32::from(self.ticks_duration));
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

    const S: u32 = 7;

    /// Packets as (milliseconds, timestamp, event, end); returns digits as (milliseconds, key).
    fn heard(packets: &[(u64, u32, u8, bool)]) -> Vec<(u64, char)> {
        let start = Clock::real().now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut receiver = Receiver::default();
        let mut heard = Vec::new();
        let mut digits = Vec::new();
        let last = packets.iter().map(|p| p.0).max().unwrap_or_default();
        for ms in 0..=last + 400 {
            for (_, timestamp, event, end) in packets.iter().filter(|p| p.0 == ms) {
                let flags = if *end { 0x8A } else { 0x0A };
                receiver.packet(at(ms), S, *timestamp, &[*event, flags, 0, 160], &mut digits);
            }
            if ms % 20 == 0 {
                receiver.tick(at(ms), &mut digits);
            }
            heard.extend(digits.drain(..).map(|d| (ms, d.as_char())));
        }
        heard
    }

    #[test]
    fn r12_a_key_that_goes_on_under_another_ssrc_is_one_key() {
        let start = Clock::real().now();
        let mut receiver = Receiver::default();
        let mut digits = Vec::new();
        let mut packet = |ms: u64, ssrc: u32, timestamp: u32, flags: u8| {
            let now = start + Duration::from_millis(ms);
            receiver.tick(now, &mut digits);
            receiver.packet(now, ssrc, timestamp, &[4, flags, 0, 160], &mut digits);
            digits.len()
        };
        assert_eq!(packet(0, 1, 480, 0x0A), 0);
        assert_eq!(packet(20, 2, 480, 0x0A), 0);
        assert_eq!(packet(40, 1, 480, 0x0A), 0, "overtaken on its way");
        assert_eq!(packet(60, 2, 480, 0x8A), 1);
        assert_eq!(packet(80, 2, 480, 0x8A), 1);
        assert_eq!(packet(90, 1, 480, 0x0A), 1, "overtaken by the end");
        // A pause, the digit is counted, and it continues under a third SSRC.
        assert_eq!(packet(600, 2, 30_000, 0x0A), 1);
        assert_eq!(packet(900, 3, 30_000, 0x0A), 2);
        assert_eq!(packet(920, 3, 30_000, 0x8A), 2);
        // The same timestamp by chance, much later.
        assert_eq!(packet(5_000, 4, 30_000, 0x8A), 3);
        assert_eq!(packet(5_020, 5, 30_000, 0x8A), 4, "that key had ended: by its name, another");
    }

    #[test]
    fn one_key_press_is_one_digit() {
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
                "over the timestamp's wrap",
                vec![(0, u32::MAX - 10, 1, false), (60, 20, 2, true)],
                vec![(60, '1'), (60, '2')],
            ),
            (
                "an end of an earlier key comes late",
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
            assert_eq!(heard(&packets), want, "{name}");
        }
    }

    proptest! {
        /// A key of which any packet arrives counts once, and the keys keep their order, whatever
        /// is lost, duplicated or delayed by less than 200 ms (docs/reference/reliability.md#r12).
        #[test]
        fn a_bad_network_neither_loses_nor_doubles_a_key(
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
            let heard: String = heard(&packets).into_iter().map(|(_, key)| key).collect();
            prop_assert_eq!(heard, pressed);
        }
    }

    #[test]
    fn another_ssrc_is_another_event_and_short_payloads_are_none() {
        let now = Clock::real().now();
        let mut receiver = Receiver::default();
        let mut digits = Vec::new();
        receiver.packet(now, 1, 9, &[1, 0x8A, 0], &mut digits);
        receiver.packet(now, 1, 9, &[], &mut digits);
        assert!(digits.is_empty());
        receiver.packet(now, 1, 9, &[1, 0x8A, 0, 0], &mut digits);
        receiver.packet(now, 2, 9, &[1, 0x8A, 0, 0], &mut digits);
        assert_eq!(digits.len(), 2);
    }

    #[test]
    fn memory_is_bounded_and_loses_no_digit() {
        let now = Clock::real().now();
        let mut receiver = Receiver::default();
        let mut digits = Vec::new();
        for n in 0..1_000 {
            receiver.packet(now, S, n, &[1, 0x0A, 0, 0], &mut digits);
        }
        assert!(receiver.events.len() <= super::REMEMBERED);
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
    fn a_sent_digit_is_160_ms_with_three_ends_and_80_ms_of_pause() {
        for (clock, tick) in [(8_000u32, 160u16), (48_000, 960)] {
            let steps = sent("5", clock);
            assert_eq!(steps.len(), 12, "160 + 80 ms");
            let mut ends = 0;
            for (n, step) in (0u16..).zip(&steps) {
                match step {
                    Step::Event { payload, timestamp, marker } => {
                        assert!(n < 10);
                        assert_eq!(*timestamp, 0, "one name for the whole event");
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
    fn a_key_lasts_as_long_as_it_was_asked_to() {
        for (digits, on, clock) in [
            ("5@40", 2, 8_000),
            ("5@200", 10, 8_000),
            ("5@2000", 100, 48_000),
            ("5@9999", 100, 8_000),
        ] {
            let steps = sent(digits, clock);
            assert_eq!(steps.len(), on + 4, "{digits}: and 80 ms of pause");
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
    fn r12_a_key_longer_than_its_duration_can_say_goes_on_as_a_new_segment() {
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
        let said: Vec<u32> = events
            .iter()
            .map(|(_, timestamp, duration, ..)| timestamp + u32::from(*duration))
            .collect();
        let sounded: Vec<u32> = (1..=100).chain([100, 100]).map(|ticks| ticks * 960).collect();
        assert_eq!(said, sounded, "each packet says where the key is by now");
        assert_eq!(events[67], (67, 0, 65_280, false, false), "as long as it can be");
        assert_eq!(events[68], (68, 65_280, 960, false, false), "and the next one where it ended");
        assert_eq!(
            events.iter().filter(|(.., end, _)| *end).count(),
            3,
            "the last segment has the ends"
        );
        assert_eq!(events.iter().filter(|(.., marker)| *marker).count(), 1, "it is one key");
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
    fn counted(packets: &[(u64, u32, u16, bool)]) -> usize {
        let start = Clock::real().now();
        let mut receiver = Receiver::default();
        let mut digits = Vec::new();
        for (ms, timestamp, duration, end) in packets {
            let now = start + Duration::from_millis(*ms);
            let [high, low] = duration.to_be_bytes();
            receiver.tick(now, &mut digits);
            receiver.packet(
                now,
                S,
                *timestamp,
                &[5, if *end { 0x8A } else { 0x0A }, high, low],
                &mut digits,
            );
        }
        receiver.tick(start + Duration::from_secs(60), &mut digits);
        digits.len()
    }

    #[test]
    fn r12_segments_of_one_key_are_one_key() {
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
        assert_eq!(counted(&long), 1);
        let without = |lost: fn(u64) -> bool| {
            counted(&long.iter().copied().filter(|p| !lost(p.0)).collect::<Vec<_>>())
        };
        assert_eq!(without(|ms| (1_300..1_440).contains(&ms)), 1, "the seam is lost");
        assert_eq!(without(|ms| ms == 4_000), 1, "the end is lost");
        let mut late = long.clone();
        late.extend([
            (4_020, first.wrapping_add(0xFFFF), 0xFFFF, false),
            (4_040, long[199].1, long[199].2, true),
        ]);
        assert_eq!(counted(&late), 1, "what is late of the segment before, and the end once more");
    }

    #[test]
    fn r12_the_same_key_again_is_no_segment_of_the_one_before() {
        let press = |ms: u64, end: bool| {
            let timestamp = u32::try_from(ms).expect("short") * 48;
            (1..=25u16).map(move |tick| {
                (ms + u64::from(tick) * 20, timestamp, tick * 960, end && tick == 25)
            })
        };
        // 1.3 s after the first, whose end arrived or was lost.
        for end in [true, false] {
            let packets: Vec<_> = press(0, end).chain(press(1_300, true)).collect();
            assert_eq!(counted(&packets), 2, "{end}");
        }
        // The first key was held for exactly one segment.
        let long: Vec<_> =
            (1..=68u16).map(|tick| (u64::from(tick) * 20, 0, tick * 960, tick == 68)).collect();
        assert_eq!(counted(&[long, press(1_361, true).collect()].concat()), 2);
    }

    #[test]
    fn what_is_sent_is_what_is_heard() {
        let start: Instant = Clock::real().now();
        let mut receiver = Receiver::default();
        let mut digits = Vec::new();
        for (n, step) in (0u32..).zip(sent("12w3Wx4*#AA", 8_000)) {
            let now = start + Duration::from_millis(20) * n;
            if let Step::Event { payload, timestamp, .. } = step {
                receiver.packet(now, S, timestamp, &payload, &mut digits);
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
