//! Mixes Opus packets of several sources for one peer: decodes them, adds them and encodes the sum.

use crate::opus::{Decoder, Encoder, Rate};

use super::bridge::BridgeEnd;
use super::jitter_buffer::{PACKET_TICKS, PlayoutPacket};
use super::prompt::Frame;

/// Maximum number of frames that are buffered for a source: those of the longest packet (RFC 6716
/// §3.2.5).
const BUFFERED_FRAMES_MAX: usize = 6;

/// Mixes `N` sources. The output is wideband, with the encoder settings of prompts.
#[derive(Debug)]
pub(super) struct PacketMixer<const N: usize> {
    sources: [Source; N],
    encoder: Encoder,
}

/// A source. Its decoder keeps its state from packet to packet.
#[derive(Debug, Default)]
struct Source {
    decoder: Option<Decoder>,
    pcm: Vec<i16>,
}

impl<const N: usize> Default for PacketMixer<N> {
    fn default() -> Self {
        Self {
            sources: std::array::from_fn(|_| Source::default()),
            encoder: Encoder::for_prompts(),
        }
    }
}

impl<const N: usize> PacketMixer<N> {
    /// Buffers a packet of any length for source `at`. [`PacketMixer::mix`] consumes 20 ms of it at
    /// a time.
    pub(super) fn push(&mut self, at: usize, packet: &Frame) {
        if let Some(source) = self.sources.get_mut(at) {
            source.decode(packet);
        }
    }

    /// Returns the number of whole frames that are buffered for source `at`.
    pub(super) fn buffered_frames(&self, at: usize) -> usize {
        self.sources.get(at).map_or(0, |source| source.pcm.len() / Rate::Hz16000.frame())
    }

    /// Returns whether nothing is buffered for source `at`.
    pub(super) fn is_empty(&self, at: usize) -> bool {
        self.sources.get(at).is_none_or(|source| source.pcm.is_empty())
    }

    /// Mixes the next 20 ms: one optional frame per source, plus the buffered audio. Each source
    /// must keep its index, because decoders are stateful.
    pub(super) fn mix(&mut self, frames: [Option<&Frame>; N]) -> Frame {
        let mut sum = [0_i32; Rate::Hz16000.frame()];
        for (source, frame) in self.sources.iter_mut().zip(frames) {
            if let Some(frame) = frame {
                source.decode(frame);
            }
            source.add_to(&mut sum);
        }
        let clipped =
            sum.map(|sum| i16::try_from(sum).unwrap_or(if sum < 0 { i16::MIN } else { i16::MAX }));
        self.encoder.encode(&clipped)
    }
}

/// The audio of the bridged peer for one tick.
pub(super) enum BridgeAudio<'a> {
    Nothing,
    /// A 20 ms packet that can be forwarded unchanged.
    Frame(Frame),
    /// Packets of another length. They are buffered as source 0 of the mixer, which produces 20 ms
    /// frames from them.
    Packets(&'a mut PacketMixer<2>),
}

/// Takes the next 20 ms from a bridge.
pub(super) fn next_bridge_audio<'a>(
    bridge: &mut BridgeEnd,
    mixer: &'a mut Option<Box<PacketMixer<2>>>,
) -> BridgeAudio<'a> {
    if mixer.as_ref().is_none_or(|mixer| mixer.is_empty(0)) {
        match bridge.next_packet() {
            None => return BridgeAudio::Nothing,
            Some(PlayoutPacket { payload, ticks: PACKET_TICKS, .. }) => {
                return BridgeAudio::Frame(payload);
            }
            Some(packet) => mixer.get_or_insert_default().push(0, &packet.payload),
        }
    }
    let mixer = mixer.get_or_insert_default();
    while mixer.buffered_frames(0) == 0 {
        let Some(packet) = bridge.next_packet() else { break };
        mixer.push(0, &packet.payload);
    }
    BridgeAudio::Packets(mixer)
}

impl Source {
    /// Decodes a packet into the buffer. An invalid packet adds nothing.
    fn decode(&mut self, packet: &Frame) {
        let capacity = Rate::Hz16000.frame() * BUFFERED_FRAMES_MAX;
        self.pcm.drain(..self.pcm.len().saturating_sub(capacity));
        let decoder = self.decoder.get_or_insert_with(|| Decoder::new(Rate::Hz16000));
        let _ = decoder.decode(Some(packet), false, &mut self.pcm);
    }

    /// Adds the next 20 ms to `sum`.
    fn add_to(&mut self, sum: &mut [i32]) {
        let count = self.pcm.len().min(sum.len());
        sum.iter_mut()
            .zip(self.pcm.drain(..count))
            .for_each(|(sum, sample)| *sum += i32::from(sample));
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{packet_of, strength, tone};
    use super::{Decoder, PacketMixer, Rate};

    #[test]
    fn mixes_packets_of_any_length_in_20_ms_frames() {
        let (voice, fed) = (tone(500.0), tone(1_500.0));
        for frames in [2, 3, 6] {
            let (mut mixer, mut decoder, mut pcm) =
                (PacketMixer::<2>::default(), Decoder::new(Rate::Hz16000), Vec::new());
            let mut packets = voice.chunks_exact(frames).map(packet_of);
            for fed in fed.iter().take(36) {
                while mixer.buffered_frames(0) == 0 {
                    mixer.push(0, &packets.next().expect("enough"));
                }
                decoder
                    .decode(Some(&mixer.mix([None, Some(fed)])), false, &mut pcm)
                    .expect("a frame");
            }
            assert!(
                packets.next().is_some() && mixer.is_empty(0),
                "{frames} frames: consumed at the input rate"
            );
            for hz in [500.0, 1_500.0] {
                assert!(
                    strength(&pcm[3_200..], hz) > 0.1,
                    "{frames} frames, {hz} Hz: {}",
                    strength(&pcm[3_200..], hz)
                );
            }
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use crate::opus::Encoder;
    use crate::prompt::Frame;

    /// Combines frames into one packet (RFC 6716 §3.2.5).
    pub(crate) fn packet_of(frames: &[Frame]) -> Frame {
        let toc = (frames[0][0] & !3) | 3;
        let mut packet = vec![toc, 0x80 | u8::try_from(frames.len()).unwrap()];
        for frame in &frames[..frames.len() - 1] {
            match frame.len() - 1 {
                short @ 0..252 => packet.push(u8::try_from(short).unwrap()),
                long => packet.extend(
                    [252 + (long & 3), (long - (252 + (long & 3))) / 4]
                        .map(|n| u8::try_from(n).unwrap()),
                ),
            }
        }
        frames.iter().for_each(|frame| packet.extend(&frame[1..]));
        packet.as_slice().into()
    }

    /// A second of a tone.
    pub(crate) fn tone(hz: f64) -> Vec<Frame> {
        let mut encoder = Encoder::for_prompts();
        let wave =
            |n: usize| ((n as f64 * hz * std::f64::consts::TAU / 16_000.0).sin() * 6_000.0) as i16;
        (0..50)
            .map(|f| encoder.encode(&(0..320).map(|n| wave(f * 320 + n)).collect::<Vec<_>>()))
            .collect()
    }

    /// Strength of a tone (Goertzel) relative to full scale.
    pub(crate) fn strength(pcm: &[i16], hz: f64) -> f64 {
        let (mut re, mut im) = (0.0, 0.0);
        for (n, sample) in pcm.iter().enumerate() {
            let phase = n as f64 * hz * std::f64::consts::TAU / 16_000.0;
            re += f64::from(*sample) * phase.cos();
            im += f64::from(*sample) * phase.sin();
        }
        (re * re + im * im).sqrt() * 2.0 / pcm.len() as f64 / 32_768.0
    }
}
