//! The leg's RTP stream to the peer: selects the packet that is sent at each tick, and assigns its
//! sequence number and timestamp.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::audio::{AudioSources, AudioState};
use super::digits::{DigitQueue, DigitQueueState, DigitStep};
use super::network::Network;
use super::reporter::Reporter;
use crate::jitter_buffer::PACKET_TICKS;
use crate::prompt::Frame;
use crate::send_buffer::SendBuffer;
use crate::snapshot::PromptTable;
use crate::tap::{TapEntry, Taps};
use crate::transport::OutgoingPacket;

/// End of the extended sequence numbers, which have 48 bits (RFC 3711 §3.3.1).
const SEQUENCE_END: u64 = 1 << 48;

/// The state of the stream to the peer.
pub(super) struct Outbound {
    pub(super) audio: AudioSources,
    pub(super) digits: DigitQueue,
    stream: Stream,
    /// The number of RTP clock ticks for which no bridge audio has been sent yet. Negative after a
    /// packet longer than 20 ms.
    pub(super) due_ticks: i64,
}

/// The state of an [`Outbound`] in the snapshot of a leg.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OutboundState {
    audio: AudioState,
    digits: DigitQueueState,
    stream: Stream,
}

/// The sequence numbers and timestamps of the packets.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Stream {
    opus_pt: u8,
    /// Whether the last packet contained audio, so that the next one needs no marker.
    sent_audio: bool,
    timestamp: u32,
    /// Extended sequence number.
    sequence: u64,
}

/// The destination of the packets of a tick.
pub(super) struct PacketSink<'a> {
    pub(super) network: &'a mut Network,
    pub(super) reporter: &'a mut Reporter,
    pub(super) taps: &'a mut Taps,
    pub(super) out: &'a mut SendBuffer,
}

impl Outbound {
    pub(super) fn new(
        opus_pt: u8,
        (sequence, timestamp): (u16, u32),
        digits: DigitQueue,
        audio: AudioSources,
    ) -> Self {
        let sequence = u64::from(sequence);
        let stream = Stream { opus_pt, sent_audio: false, timestamp, sequence };
        Self { audio, digits, stream, due_ticks: 0 }
    }

    pub(super) fn snapshot(&self, prompts: &PromptTable) -> OutboundState {
        let (audio, digits) = (self.audio.snapshot(prompts), self.digits.snapshot());
        OutboundState { audio, digits, stream: self.stream }
    }

    /// Creates the state of a snapshot. Returns `None` if the snapshot is inconsistent, or if
    /// `prompts` lacks a prompt.
    pub(super) fn restore(
        state: OutboundState,
        prompts: &PromptTable,
        silence: Frame,
    ) -> Option<Self> {
        let audio = AudioSources::restore(state.audio, prompts, silence)?;
        let digits = DigitQueue::restore(state.digits)?;
        let is_consistent = state.stream.sequence < SEQUENCE_END && state.stream.opus_pt < 128;
        is_consistent.then_some(Self { audio, digits, stream: state.stream, due_ticks: 0 })
    }

    /// Skips the packets of this many ticks.
    pub(super) fn skip_ticks(&mut self, ticks: u32) {
        self.stream.skip(ticks.into(), ticks.wrapping_mul(PACKET_TICKS));
    }

    /// Sends the packets of this tick.
    pub(super) fn tick(&mut self, now: Instant, sink: &mut PacketSink<'_>) {
        if !self.send_bridged(now, sink) {
            self.send_packet(now, sink);
        }
    }

    /// Sends one packet, which contains a digit, audio or silence.
    fn send_packet(&mut self, now: Instant, sink: &mut PacketSink<'_>) {
        let stream = &mut self.stream;
        let now_timestamp = stream.timestamp;
        stream.timestamp = now_timestamp.wrapping_add(PACKET_TICKS);
        match self.digits.step(now_timestamp, sink.reporter) {
            DigitStep::Event { payload_type, payload, timestamp, marker } => {
                stream.sent_audio = false;
                // The timestamp of an event is that of its start. The time must correspond to it,
                // or sender reports would be wrong.
                let ticks = now_timestamp.wrapping_sub(timestamp);
                let offset = Duration::from_micros(u64::from(ticks) * 1_000 / 48);
                let at = now.checked_sub(offset).unwrap_or(now);
                stream.send(at, (payload_type, marker), timestamp, &payload, sink);
            }
            DigitStep::Tone(frame) => {
                stream.sent_audio = false;
                stream.send(now, (stream.opus_pt, false), now_timestamp, &frame, sink);
            }
            DigitStep::Pause => {
                stream.send_audio(now, now_timestamp, None, &self.audio.silence, sink);
            }
            DigitStep::Free => {
                let frame = self.audio.next(sink.reporter);
                stream.send_audio(now, now_timestamp, frame, &self.audio.silence, sink);
            }
        }
    }

    /// Sends the bridge's packets for this tick, or silence. Returns `false` without sending if the
    /// leg is not bridged, or if other audio has precedence or must be mixed with it. Packets that
    /// are not 20 ms long are sent at the tick at which they are due.
    fn send_bridged(&mut self, now: Instant, sink: &mut PacketSink<'_>) -> bool {
        let Some(bridge) = &mut self.audio.bridge else { return false };
        bridge.receive();
        let silence = self.audio.silence.clone();
        let is_free = self.digits.is_empty();
        let Some(bridge) = is_free.then(|| self.audio.sole_bridge()).flatten() else {
            self.due_ticks = 0;
            return false;
        };
        self.due_ticks += i64::from(PACKET_TICKS);
        while self.due_ticks > 0 {
            let (payload, ticks) = match bridge.next_packet() {
                Some(packet) => {
                    // A loss is kept in our stream, so that the receiving decoder conceals it.
                    let (ticks_lost, packets_lost) = packet.lost;
                    self.stream.skip(packets_lost, ticks_lost);
                    self.due_ticks -= i64::from(ticks_lost);
                    (Some(packet.payload), packet.ticks)
                }
                None if self.due_ticks >= i64::from(PACKET_TICKS) => (None, PACKET_TICKS),
                None => break,
            };
            let timestamp = self.stream.timestamp;
            self.stream.skip(0, ticks);
            self.due_ticks -= i64::from(ticks);
            self.stream.send_audio(now, timestamp, payload, &silence, sink);
        }
        true
    }
}

impl Stream {
    /// Advances the sequence number and the timestamp without sending.
    fn skip(&mut self, packets: u64, ticks: u32) {
        self.sequence += packets;
        self.timestamp = self.timestamp.wrapping_add(ticks);
    }

    /// Sends a frame of audio and copies it to the taps, or sends silence.
    fn send_audio(
        &mut self,
        at: Instant,
        timestamp: u32,
        frame: Option<Frame>,
        silence: &Frame,
        sink: &mut PacketSink<'_>,
    ) {
        if let Some(frame) = &frame
            && !sink.taps.is_empty()
        {
            sink.taps.push(&TapEntry::Sent(frame.clone()));
        }
        let marker = frame.is_some() && !self.sent_audio;
        self.sent_audio = frame.is_some();
        let payload = frame.as_ref().unwrap_or(silence);
        self.send(at, (self.opus_pt, marker), timestamp, payload, sink);
    }

    /// Sends a packet with this payload type and marker bit. `at` is the time of its timestamp.
    fn send(
        &mut self,
        at: Instant,
        (payload_type, marker): (u8, bool),
        timestamp: u32,
        payload: &Frame,
        sink: &mut PacketSink<'_>,
    ) {
        let sequence = self.sequence;
        let packet = OutgoingPacket { payload_type, marker, sequence, timestamp, payload, at };
        if sink.network.send(packet, sink.out) {
            self.sequence += 1;
            sink.reporter.count_sent();
        }
    }
}
