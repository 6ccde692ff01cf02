//! The sending half of a simulated phone: audio, keys as RFC 4733 events, and silence in between,
//! one packet every 20 ms.
//!
//! It does no I/O: the relay calls [`AudioSender::tick`] and sends the resulting packet.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::keys::KeyStep;
use model::Digit;

/// 20 ms in units of the 48 kHz RTP clock.
pub(crate) const TICK_SAMPLES: u32 = 960;
/// 20 ms in units of the 8 kHz clock of event durations.
const TICK_EVENT_UNITS: u16 = 160;
const TICK: Duration = Duration::from_millis(20);
/// Number of packets of a key: 500 ms, the last with the E bit.
const KEY_PACKETS: u16 = 25;
/// Retransmissions of the last packet, which is sent three times in all.
const END_REPEATS: u16 = 2;
/// Pause after a key: 100 ms.
const PAUSE_TICKS: u32 = 5;
/// Capacity of the key queue. Further keys are dropped.
const KEYS_MAX: usize = 1_000;
/// Volume in events: −10 dBm0.
const VOLUME: u8 = 10;

/// A packet to send now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OutgoingPacket {
    Audio { payload: Arc<[u8]>, timestamp: u32, marker: bool },
    Event { payload: [u8; 4], timestamp: u32, marker: bool },
}

/// The sending half of a phone.
#[derive(Debug)]
pub(crate) struct AudioSender {
    /// Frames that are still to be sent.
    audio: VecDeque<Arc<[u8]>>,
    /// Frame to send when there is nothing else. `None` if packets of a bridged leg are sent
    /// instead.
    silence: Option<Arc<[u8]>>,
    keys: VecDeque<KeyStep>,
    state: State,
    /// RTP timestamp of the next packet.
    timestamp: u32,
    /// Separate clock of telephone events, if they have one.
    digit_clock: Option<u32>,
    first: bool,
    /// The key that was completed by the last packet of the current tick.
    sent_key: Option<Digit>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Idle,
    Pressing { digit: Digit, packet: u16, timestamp: u32 },
    Waiting { ticks: u32 },
}

impl AudioSender {
    /// Creates a sender with an RTP clock that begins at `start`. Without `silence`, nothing is
    /// sent between audio and keys.
    pub(crate) fn new(
        audio: Vec<Arc<[u8]>>,
        silence: Option<Arc<[u8]>>,
        separate_digit_clock: bool,
        start: u32,
    ) -> Self {
        Self {
            audio: audio.into(),
            silence,
            keys: VecDeque::new(),
            state: State::Idle,
            timestamp: start,
            digit_clock: separate_digit_clock.then_some(0),
            first: true,
            sent_key: None,
        }
    }

    /// Appends keys to the queue.
    pub(crate) fn press(&mut self, keys: impl IntoIterator<Item = KeyStep>) {
        let space = KEYS_MAX.saturating_sub(self.keys.len());
        self.keys.extend(keys.into_iter().take(space));
    }

    /// Whether nothing is left to play or press.
    pub(crate) fn is_done(&self) -> bool {
        self.audio.is_empty() && self.keys.is_empty() && matches!(self.state, State::Idle)
    }

    /// Whether a key is being sent. Forwarded audio is dropped in the meantime.
    pub(crate) fn is_pressing(&self) -> bool {
        matches!(self.state, State::Pressing { .. })
    }

    /// Takes the key that the latest tick completed, if any.
    pub(crate) fn take_sent_key(&mut self) -> Option<Digit> {
        self.sent_key.take()
    }

    /// Sets the RTP clock from a forwarded stream, so that events share its timestamps.
    pub(crate) fn set_clock(&mut self, timestamp: u32) {
        self.timestamp = timestamp;
    }

    /// Stops sending silence, as a phone with DTX does.
    pub(crate) fn disable_silence(&mut self) {
        self.silence = None;
    }

    /// Advances the RTP clock by this many samples.
    pub(crate) fn advance_clock(&mut self, samples: u32) {
        self.timestamp = self.timestamp.wrapping_add(samples);
    }

    /// Advances by 20 ms and returns the packet to send.
    pub(crate) fn tick(&mut self) -> Option<OutgoingPacket> {
        let now = self.timestamp;
        self.timestamp = now.wrapping_add(TICK_SAMPLES);
        if let Some(clock) = &mut self.digit_clock {
            *clock = clock.wrapping_add(u32::from(TICK_EVENT_UNITS));
        }
        if let State::Waiting { ticks } = self.state {
            self.state = if ticks > 1 { State::Waiting { ticks: ticks - 1 } } else { State::Idle };
        } else if let State::Idle = self.state {
            match self.keys.pop_front() {
                Some(KeyStep::Press(digit)) => {
                    self.state = State::Pressing {
                        digit,
                        packet: 0,
                        timestamp: self.digit_clock.unwrap_or(now),
                    };
                }
                Some(KeyStep::Pause(length)) => {
                    let ticks =
                        u32::try_from(length.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
                    // The current tick is part of the pause.
                    self.state =
                        if ticks > 1 { State::Waiting { ticks: ticks - 1 } } else { State::Idle };
                }
                None => {}
            }
        }
        if let State::Pressing { digit, packet, timestamp } = self.state {
            return Some(self.event(digit, packet, timestamp));
        }
        let payload = self.audio.pop_front().or_else(|| self.silence.clone())?;
        let marker = std::mem::take(&mut self.first);
        Some(OutgoingPacket::Audio { payload, timestamp: now, marker })
    }

    fn event(&mut self, digit: Digit, packet: u16, timestamp: u32) -> OutgoingPacket {
        let number = packet + 1;
        let end = number >= KEY_PACKETS;
        if number == KEY_PACKETS {
            self.sent_key = Some(digit);
        }
        // The retransmissions use up part of the pause after the key.
        self.state = if number >= KEY_PACKETS + END_REPEATS {
            State::Waiting { ticks: PAUSE_TICKS.saturating_sub(u32::from(END_REPEATS)) }
        } else {
            State::Pressing { digit, packet: number, timestamp }
        };
        let [high, low] = (number.min(KEY_PACKETS) * TICK_EVENT_UNITS).to_be_bytes();
        let flags = VOLUME | if end { 0x80 } else { 0 };
        OutgoingPacket::Event {
            payload: [digit.event(), flags, high, low],
            timestamp,
            marker: packet == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AudioSender, OutgoingPacket};
    use crate::keys::parse_keys;
    use std::sync::Arc;

    fn sender(separate_clock: bool) -> AudioSender {
        AudioSender::new(Vec::new(), Some(Arc::from([1u8])), separate_clock, 48_000)
    }

    #[test]
    fn m13_a_key_has_25_packets_two_retransmissions_and_a_pause() {
        let mut sender = sender(false);
        sender.press(parse_keys("59").expect("keys"));
        let ticks: Vec<_> = (0..60).filter_map(|_| sender.tick()).collect();
        let events: Vec<_> = ticks
            .iter()
            .enumerate()
            .filter_map(|(at, s)| match s {
                OutgoingPacket::Event { payload, timestamp, marker } => {
                    Some((at, *payload, *timestamp, *marker))
                }
                OutgoingPacket::Audio { .. } => None,
            })
            .collect();
        assert_eq!(events.len(), 54);
        // First key: constant timestamp, duration up to 4000 (500 ms at 8 kHz), E bit three times.
        let (first, second) = events.split_at(27);
        assert!(first.iter().all(|(_, p, timestamp, _)| p[0] == 5 && *timestamp == 48_000));
        assert_eq!(first.iter().filter(|(_, p, ..)| p[1] & 0x80 != 0).count(), 3);
        let durations: Vec<u16> =
            first.iter().map(|(_, p, ..)| u16::from_be_bytes([p[2], p[3]])).collect();
        assert_eq!(durations.first(), Some(&160));
        assert_eq!(durations.get(24..), Some([4000, 4000, 4000].as_slice()));
        assert_eq!(first.iter().filter(|(.., marker)| *marker).count(), 1);
        // The second key starts 600 ms after the first.
        assert_eq!(second.first().map(|e| e.0), Some(30));
        assert_eq!(second.first().map(|e| e.2), Some(48_000 + 30 * 960));
    }

    #[test]
    fn m13_digits_can_have_a_separate_clock() {
        let mut sender = sender(true);
        let _ = (sender.tick(), sender.tick());
        sender.press(parse_keys("1").expect("keys"));
        assert!(matches!(
            sender.tick(),
            Some(OutgoingPacket::Event { timestamp: 480, marker: true, .. })
        ));
    }

    #[test]
    fn reports_each_key_once_and_keeps_pauses() {
        let mut sender = sender(false);
        sender.press(parse_keys("W1").expect("keys"));
        let mut sent = Vec::new();
        for tick in 0..100 {
            sender.tick();
            sent.extend(sender.take_sent_key().map(|d| (tick, d.as_char())));
        }
        assert_eq!(sent, [(74, '1')]);
        assert!(sender.is_done());
    }
}
