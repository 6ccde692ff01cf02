//! Keypad events of RFC 4733, in and out, as values: no RTP stack, no clock.
//!
//! In: one digit per (SSRC, timestamp, event), however often, late, doubled or cut its packets come
//! (`meta-calling.md` §5.4). Out: what to send at each 20 ms tick. The negotiation is `sdp`'s.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::model::Digit;

/// An event without an end packet counts this long after its last packet.
const LOST_END: Duration = Duration::from_millis(200);
/// A key that has not ended goes on if its timestamp comes under another SSRC and its last packet is no older: the stream
/// changed its SSRC in the middle of it (H6).
const CARRIED_OVER: Duration = Duration::from_secs(1);
/// Events that are remembered, so that a late or doubled packet does not count again.
const REMEMBERED: usize = 32;

/// What an event is called by. Only the timestamp's being the same matters, never its value (§5.4 [D]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Name {
    ssrc: u32,
    timestamp: u32,
    digit: Digit,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    name: Name,
    /// The SSRC under which it began, if it went on under another.
    began_as: Option<u32>,
    last_packet: Instant,
    /// An end packet has come.
    ended: bool,
    reported: bool,
}

impl Event {
    /// Whether a packet of that name is of this event.
    fn holds(&self, name: Name, now: Instant) -> bool {
        let carried_over = !self.ended && now.saturating_duration_since(self.last_packet) < CARRIED_OVER;
        (self.name.timestamp, self.name.digit) == (name.timestamp, name.digit)
            && (self.name.ssrc == name.ssrc || self.began_as == Some(name.ssrc) || carried_over)
    }
}

/// Makes digits of event packets.
#[derive(Debug, Default)]
pub struct Receiver {
    /// In the order in which they were first seen.
    events: VecDeque<Event>,
}

impl Receiver {
    /// Takes in the payload of one authenticated event packet; digits that count now are added to `digits`.
    ///
    /// A payload that is too short, flash (16) and whatever lies above are passed over.
    pub fn packet(&mut self, now: Instant, ssrc: u32, timestamp: u32, payload: &[u8], digits: &mut Vec<Digit>) {
        let [event, flags, _, _, ..] = payload else { return };
        let Some(digit) = Digit::from_event(*event) else { return };
        let ended = flags & 0x80 != 0;
        let name = Name { ssrc, timestamp, digit };
        match self.events.iter_mut().find(|e| e.holds(name, now)) {
            Some(known) => {
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
                self.events.push_back(Event { name, began_as: None, last_packet: now, ended, reported: false });
            }
        }
        if ended {
            // A key that was pressed before this one and whose end is lost was pressed before it.
            self.report(digits, |e| {
                e.holds(name, now) || (e.name.ssrc == ssrc && e.name.timestamp.wrapping_sub(timestamp) > u32::MAX / 2)
            });
        }
    }

    /// Digits whose end packets never came; ask every tick.
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

/// Ticks of 20 ms that a digit sounds.
const ON_TICKS: u16 = 8;
/// Ticks between two keys: 80 ms.
const OFF_TICKS: u16 = 4;
/// Milliseconds of a tick, and of the longest key.
const TICK_MS: u16 = 20;
const ON_MS_MAX: u16 = 2_000;
/// The end packet is sent so often (RFC 4733 §2.5.1.4).
const END_PACKETS: u16 = 3;
/// −10 dBm0.
const VOLUME: u8 = 10;
/// The most characters of one order: longer ones are cut.
const DIGITS_MAX: usize = 256;

/// What goes out at one tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// This payload, with the RTP timestamp of the digit's begin.
    Event { payload: [u8; 4], timestamp: u32, marker: bool },
    /// No event: silence.
    Pause,
    /// All digits have gone out.
    Done,
}

/// Sends a string of digits: `0-9 * # A-D`, `w` waits half a second, `W` a second; behind `@` may stand how many
/// milliseconds each key lasts.
#[derive(Debug)]
pub struct Sender {
    rest: VecDeque<Tone>,
    /// Ticks that a key sounds.
    on_ticks: u16,
    /// Ticks spent on the first of `rest`.
    spent: u16,
    /// Event duration of one tick, in the payload type's clock.
    ticks_duration: u16,
    /// RTP timestamp of the running digit's begin.
    began: u32,
}

#[derive(Clone, Copy, Debug)]
enum Tone {
    Key(Digit),
    Wait { ticks: u16 },
}

impl Sender {
    /// `clock` is the payload type's: 8000 or 48000. Characters that are no key are passed over.
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
        Self { rest, on_ticks, spent: 0, ticks_duration: u16::try_from(clock / 50).unwrap_or(160), began: 0 }
    }

    /// The step of this tick; `timestamp` is the stream's RTP timestamp now.
    pub fn step(&mut self, timestamp: u32) -> Step {
        let Some(tone) = self.rest.front().copied() else { return Step::Done };
        let tick = self.spent;
        self.spent += 1;
        let length = match tone {
            // The end packets have their place also after the shortest.
            Tone::Key(_) => self.on_ticks + OFF_TICKS,
            Tone::Wait { ticks } => ticks,
        };
        if self.spent >= length {
            self.rest.pop_front();
            self.spent = 0;
        }
        let Tone::Key(digit) = tone else { return Step::Pause };
        if tick == 0 {
            self.began = timestamp;
        }
        // The last of the sounding packets is the first end packet.
        if tick >= self.on_ticks + END_PACKETS - 1 {
            return Step::Pause;
        }
        let end = if tick + 1 >= self.on_ticks { 0x80 } else { 0 };
        // The field has 16 bits: at 48 kHz that is 1.3 s, and whoever reads it hears a longer key by its packets.
        let [high, low] = (tick + 1).min(self.on_ticks).saturating_mul(self.ticks_duration).to_be_bytes();
        Step::Event { payload: [digit.event(), end | VOLUME, high, low], timestamp: self.began, marker: tick == 0 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{Receiver, Sender, Step};
    use crate::clock::Clock;

    const S: u32 = 7;

    /// Packets as (milliseconds, timestamp, event, end), digits as (milliseconds, key).
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
        // Silent for a while, counted, and gone on with under a third.
        assert_eq!(packet(600, 2, 30_000, 0x0A), 1);
        assert_eq!(packet(900, 3, 30_000, 0x0A), 2);
        assert_eq!(packet(920, 3, 30_000, 0x8A), 2);
        // The same timestamp by chance, long after.
        assert_eq!(packet(5_000, 4, 30_000, 0x8A), 3);
        assert_eq!(packet(5_020, 5, 30_000, 0x8A), 4, "that key had ended: by its name, another");
    }

    #[test]
    fn one_key_press_is_one_digit() {
        type Packets = Vec<(u64, u32, u8, bool)>;
        type Keys = Vec<(u64, char)>;
        let press = |from: u64, timestamp: u32, event: u8| -> Packets {
            let body = (0..25).map(move |n| (from + n * 20, timestamp, event, false));
            body.chain([0, 1, 2].map(move |n| (from + 500 + n * 20, timestamp, event, true))).collect()
        };
        let without = |packets: Packets, lost: fn(usize, bool) -> bool| -> Packets {
            packets.into_iter().enumerate().filter(|(n, p)| !lost(*n, p.3)).map(|(_, p)| p).collect()
        };
        let cases: Vec<(&str, Packets, Keys)> = vec![
            ("whole, counted at its first end packet", press(0, 1000, 5), vec![(500, '5')]),
            ("start lost", without(press(0, 1000, 5), |n, _| n < 10), vec![(500, '5')]),
            ("only one end packet came", without(press(0, 1000, 5), |n, _| n != 27), vec![(540, '5')]),
            ("ends lost: 200 ms after the last packet", without(press(0, 1000, 5), |_, e| e), vec![(680, '5')]),
            ("only one packet without end", vec![(0, 1000, 11, false)], vec![(200, '#')]),
            ("the same key twice", [press(0, 1000, 5), press(600, 5800, 5)].concat(), vec![(500, '5'), (1100, '5')]),
            (
                "reordered: an end first, the rest after it",
                vec![(0, 1000, 1, true), (10, 1000, 1, false), (20, 1000, 1, false), (30, 1000, 1, true)],
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
        /// R12: whatever is lost, doubled or late by less than 200 ms, a key of which anything came counts once, and
        /// the keys keep their order.
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
                    // 30 % lost, 5 % doubled.
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
                        assert_eq!(u16::from_be_bytes([payload[2], payload[3]]), (n + 1).min(8) * tick);
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
        for (digits, on, clock) in
            [("5@40", 2, 8_000), ("5@200", 10, 8_000), ("5@2000", 100, 48_000), ("5@9999", 100, 8_000)]
        {
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
