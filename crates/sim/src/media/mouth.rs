//! What a simulated phone sends: a sound, keys as RFC 4733 events, silence otherwise; one packet each 20 ms.
//!
//! Pure: the relay's tick asks [`Mouth::tick`], and timestamps are counted here. Sending is `peer`'s.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::caller::KeyStep;
use model::Digit;

/// Samples of 20 ms on the 48 kHz RTP clock.
pub(crate) const TICK_SAMPLES: u32 = 960;
/// The same at 8 kHz, the clock of an event's duration.
const TICK_EVENT_UNITS: u16 = 160;
const TICK: Duration = Duration::from_millis(20);
/// A key lasts 500 ms (`meta-calling.md` §5.4): 25 packets, the last with the E bit.
const KEY_PACKETS: u16 = 25;
/// The end packet goes out three times in all.
const END_REPEATS: u16 = 2;
/// 100 ms between two keys.
const GAP_TICKS: u32 = 5;
/// Keys that may wait; what is pressed past it is lost, as on a phone.
const KEYS_MAX: usize = 1_000;
/// Tone power in events, −10 dBm0.
const VOLUME: u8 = 10;

/// One packet to send now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Audio { payload: Arc<[u8]>, time: u32, marker: bool },
    Event { payload: [u8; 4], time: u32, marker: bool },
}

/// The sending half of a phone.
#[derive(Debug)]
pub(crate) struct Mouth {
    /// Frames that still have to be said.
    say: VecDeque<Arc<[u8]>>,
    /// Said where there is nothing to say; none where another leg's packets go out instead.
    silence: Option<Arc<[u8]>>,
    keys: VecDeque<KeyStep>,
    state: State,
    /// RTP time of the next packet.
    time: u32,
    /// A clock of their own for digits (M13).
    digit_clock: Option<u32>,
    first: bool,
    /// The key whose end packet has just gone out.
    sent: Option<Digit>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Free,
    Pressing { digit: Digit, packet: u16, time: u32 },
    Waiting { ticks: u32 },
}

impl Mouth {
    /// `silence`: the frame to send where there is nothing else; none: only keys are sent.
    pub(crate) fn new(
        say: Vec<Arc<[u8]>>,
        silence: Option<Arc<[u8]>>,
        own_digit_clock: bool,
        start: u32,
    ) -> Self {
        Self {
            say: say.into(),
            silence,
            keys: VecDeque::new(),
            state: State::Free,
            time: start,
            digit_clock: own_digit_clock.then_some(0),
            first: true,
            sent: None,
        }
    }

    /// Appends keys.
    pub(crate) fn press(&mut self, keys: impl IntoIterator<Item = KeyStep>) {
        let room = KEYS_MAX.saturating_sub(self.keys.len());
        self.keys.extend(keys.into_iter().take(room));
    }

    /// Nothing is left to say or press.
    pub(crate) fn is_done(&self) -> bool {
        self.say.is_empty() && self.keys.is_empty() && matches!(self.state, State::Free)
    }

    /// A key is being pressed: passed-on audio makes way for it.
    pub(crate) fn is_pressing(&self) -> bool {
        matches!(self.state, State::Pressing { .. })
    }

    /// The key whose first end packet went out with the last tick, once.
    pub(crate) fn take_sent(&mut self) -> Option<Digit> {
        self.sent.take()
    }

    /// Follows the timestamps of a stream that is passed on, so that keys stand on its clock.
    pub(crate) fn follow_clock(&mut self, time: u32) {
        self.time = time;
    }

    /// Sends no silence any more, as a phone with DTX (H6).
    pub(crate) fn keep_silent(&mut self) {
        self.silence = None;
    }

    /// The clock jumps ahead by so many samples (H6).
    pub(crate) fn jump(&mut self, samples: u32) {
        self.time = self.time.wrapping_add(samples);
    }

    /// 20 ms pass: what goes out now.
    pub(crate) fn tick(&mut self) -> Option<Spoken> {
        let now = self.time;
        self.time = now.wrapping_add(TICK_SAMPLES);
        if let Some(clock) = &mut self.digit_clock {
            *clock = clock.wrapping_add(u32::from(TICK_EVENT_UNITS));
        }
        if let State::Waiting { ticks } = self.state {
            self.state = if ticks > 1 { State::Waiting { ticks: ticks - 1 } } else { State::Free };
        } else if let State::Free = self.state {
            match self.keys.pop_front() {
                Some(KeyStep::Press(digit)) => {
                    self.state =
                        State::Pressing { digit, packet: 0, time: self.digit_clock.unwrap_or(now) };
                }
                Some(KeyStep::Pause(length)) => {
                    let ticks =
                        u32::try_from(length.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
                    // This tick is the first of them.
                    self.state =
                        if ticks > 1 { State::Waiting { ticks: ticks - 1 } } else { State::Free };
                }
                None => {}
            }
        }
        if let State::Pressing { digit, packet, time } = self.state {
            return Some(self.event(digit, packet, time));
        }
        let payload = self.say.pop_front().or_else(|| self.silence.clone())?;
        let marker = std::mem::take(&mut self.first);
        Some(Spoken::Audio { payload, time: now, marker })
    }

    fn event(&mut self, digit: Digit, packet: u16, time: u32) -> Spoken {
        let number = packet + 1;
        let end = number >= KEY_PACKETS;
        if number == KEY_PACKETS {
            self.sent = Some(digit);
        }
        // The repeats of the end packet fall into the pause after the key.
        self.state = if number >= KEY_PACKETS + END_REPEATS {
            State::Waiting { ticks: GAP_TICKS.saturating_sub(u32::from(END_REPEATS)) }
        } else {
            State::Pressing { digit, packet: number, time }
        };
        let [high, low] = (number.min(KEY_PACKETS) * TICK_EVENT_UNITS).to_be_bytes();
        let flags = VOLUME | if end { 0x80 } else { 0 };
        Spoken::Event { payload: [digit.event(), flags, high, low], time, marker: packet == 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Mouth, Spoken};
    use crate::caller::parse_keys;
    use std::sync::Arc;

    fn mouth(own_clock: bool) -> Mouth {
        Mouth::new(Vec::new(), Some(Arc::from([1u8])), own_clock, 48_000)
    }

    #[test]
    fn m13_a_key_is_25_packets_and_two_more_ends_then_100_ms() {
        let mut mouth = mouth(false);
        mouth.press(parse_keys("59").expect("keys"));
        let ticks: Vec<_> = (0..60).filter_map(|_| mouth.tick()).collect();
        let events: Vec<_> = ticks
            .iter()
            .enumerate()
            .filter_map(|(at, s)| match s {
                Spoken::Event { payload, time, marker } => Some((at, *payload, *time, *marker)),
                Spoken::Audio { .. } => None,
            })
            .collect();
        assert_eq!(events.len(), 54);
        // The first key: constant timestamp, duration growing to 4000 (500 ms at 8 kHz), E three times.
        let (first, second) = events.split_at(27);
        assert!(first.iter().all(|(_, p, time, _)| p[0] == 5 && *time == 48_000));
        assert_eq!(first.iter().filter(|(_, p, ..)| p[1] & 0x80 != 0).count(), 3);
        let durations: Vec<u16> =
            first.iter().map(|(_, p, ..)| u16::from_be_bytes([p[2], p[3]])).collect();
        assert_eq!(durations.first(), Some(&160));
        assert_eq!(durations.get(24..), Some([4000, 4000, 4000].as_slice()));
        assert_eq!(first.iter().filter(|(.., marker)| *marker).count(), 1);
        // The second starts 600 ms after the first.
        assert_eq!(second.first().map(|e| e.0), Some(30));
        assert_eq!(second.first().map(|e| e.2), Some(48_000 + 30 * 960));
    }

    #[test]
    fn m13_the_digit_clock_may_be_its_own() {
        let mut mouth = mouth(true);
        let _ = (mouth.tick(), mouth.tick());
        mouth.press(parse_keys("1").expect("keys"));
        assert!(matches!(mouth.tick(), Some(Spoken::Event { time: 480, marker: true, .. })));
    }

    #[test]
    fn a_key_is_told_once_and_pauses_are_kept() {
        let mut mouth = mouth(false);
        mouth.press(parse_keys("W1").expect("keys"));
        let mut told = Vec::new();
        for tick in 0..100 {
            mouth.tick();
            told.extend(mouth.take_sent().map(|d| (tick, d.as_char())));
        }
        assert_eq!(told, [(74, '1')]);
        assert!(mouth.is_done());
    }
}
