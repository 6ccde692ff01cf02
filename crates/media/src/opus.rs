//! A safe interface to Opus: an encoder and a decoder of mono 20 ms frames, and a shared frame of
//! silence.
//!
//! Built on `unsafe-libopus`, a Rust port of libopus (RFC 6716). Input from the network cannot make
//! it panic: a panic inside the codec is caught, its state is recreated, and the frame counts as
//! lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::OnceLock;

use unsafe_libopus as unsafe_opus;

use crate::conceal::Concealer;
use crate::prompt::Frame;

/// Maximum size of an Opus frame in bytes (RFC 6716 §3.2.1).
const FRAME_BYTES_MAX: usize = 1275;
/// Maximum length of a packet in 20 ms frames: 120 ms (RFC 6716 §3.2.5).
const PACKET_FRAMES_MAX: usize = 6;
/// Loss rate for which in-band FEC is generated. With 0, libopus generates none.
const EXPECTED_LOSS_PERCENT: i32 = 10;

/// The sample rates in use. Encoder and decoder may use different rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rate {
    Hz8000,
    Hz16000,
    Hz24000,
    Hz48000,
}

impl Rate {
    /// Returns the number of samples per second.
    pub const fn hz(self) -> u32 {
        match self {
            Self::Hz8000 => 8_000,
            Self::Hz16000 => 16_000,
            Self::Hz24000 => 24_000,
            Self::Hz48000 => 48_000,
        }
    }

    /// Returns the number of samples of a 20 ms frame.
    pub const fn frame(self) -> usize {
        match self {
            Self::Hz8000 => 160,
            Self::Hz16000 => 320,
            Self::Hz24000 => 480,
            Self::Hz48000 => 960,
        }
    }
}

/// The reason why a packet could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpusError {
    #[error("could not parse an Opus packet: it is malformed")]
    Malformed,
    #[error("could not decode an Opus packet: the codec returned error {0}")]
    Codec(i32),
    #[error("could not decode an Opus packet: the codec panicked and was reset")]
    Fault,
}

/// Encodes mono voice in frames of 20 ms, at most wideband, with in-band FEC.
pub struct Encoder {
    state: NonNull<unsafe_opus::OpusEncoder>,
    rate: Rate,
    complexity: u8,
    bitrate: u32,
}

// SAFETY: the state is one heap block of plain numbers to which only this value points; libopus
// keeps no thread-local state.
unsafe impl Send for Encoder {}

impl Encoder {
    /// Creates an encoder. `complexity` is 0 to 10 (higher values are reduced to 10), `bitrate` is
    /// in bits per second (500 to 300,000).
    pub fn new(rate: Rate, complexity: u8, bitrate: u32) -> Self {
        let complexity = complexity.min(10);
        Self { state: new_encoder(rate, complexity, bitrate), rate, complexity, bitrate }
    }

    /// Creates an encoder with the settings of prompts: 16 kHz, complexity 5, 24 kbit/s. WhatsApp
    /// requests `maxplaybackrate=16000`.
    pub fn for_prompts() -> Self {
        Self::new(Rate::Hz16000, 5, 24_000)
    }

    /// Returns the sample rate of the input.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Encodes one frame. `pcm` is 20 ms, [`Rate::frame`] samples; shorter input is padded with
    /// silence, longer input is truncated.
    pub fn encode(&mut self, pcm: &[i16]) -> Frame {
        let samples_per_frame = self.rate.frame();
        let mut padded = [0i16; Rate::Hz48000.frame()];
        let pcm = match pcm.get(..samples_per_frame) {
            Some(whole) => whole,
            None => {
                padded[..pcm.len()].copy_from_slice(pcm);
                &padded[..samples_per_frame]
            }
        };
        self.encode_frame(pcm).unwrap_or_else(|| {
            self.reset();
            silence_frame()
        })
    }

    /// Like [`Encoder::encode`], with as little reference to the previous frame as possible: for a
    /// frame that will be played after another frame than the one encoded before it.
    pub fn encode_independent(&mut self, pcm: &[i16]) -> Frame {
        self.set_prediction(false);
        let frame = self.encode(pcm);
        self.set_prediction(true);
        frame
    }

    fn set_prediction(&mut self, on: bool) {
        let request = unsafe_opus::OPUS_SET_PREDICTION_DISABLED_REQUEST;
        // SAFETY: `state` is live and exclusively ours; the request takes one `i32`, 0 or 1.
        unsafe {
            let _ = unsafe_opus::opus_encoder_ctl_impl(
                self.state.as_ptr(),
                request,
                unsafe_opus::varargs!(i32::from(!on)),
            );
        }
    }

    /// Encodes exactly one frame. Returns `None` if the codec fails.
    fn encode_frame(&mut self, pcm: &[i16]) -> Option<Frame> {
        debug_assert_eq!(pcm.len(), self.rate.frame());
        let mut packet = [0u8; FRAME_BYTES_MAX];
        let state = self.state.as_ptr();
        let written = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `state` is live and exclusively ours (`&mut self`); `pcm` holds the samples
            // of the one channel, `packet` has the stated number of bytes; both counts are small.
            unsafe {
                unsafe_opus::opus_encode(
                    state,
                    pcm.as_ptr(),
                    pcm.len() as i32,
                    packet.as_mut_ptr(),
                    packet.len() as i32,
                )
            }
        }));
        let written = usize::try_from(written.ok()?).ok()?;
        packet.get(..written).filter(|frame| !frame.is_empty()).map(Frame::from)
    }

    /// Discards the encoder's history. The next frame starts a new stream.
    pub fn reset(&mut self) {
        let fresh = new_encoder(self.rate, self.complexity, self.bitrate);
        let old = std::mem::replace(&mut self.state, fresh);
        // SAFETY: `old` came from `opus_encoder_create`, and no other pointer to it exists.
        unsafe { unsafe_opus::opus_encoder_destroy(old.as_ptr()) };
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_encoder_create` and is destroyed once.
        unsafe { unsafe_opus::opus_encoder_destroy(self.state.as_ptr()) };
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder")
            .field("rate", &self.rate)
            .field("bitrate", &self.bitrate)
            .finish_non_exhaustive()
    }
}

fn new_encoder(rate: Rate, complexity: u8, bitrate: u32) -> NonNull<unsafe_opus::OpusEncoder> {
    let bitrate = i32::try_from(bitrate).unwrap_or(i32::MAX).max(500);
    let settings = [
        (unsafe_opus::OPUS_SET_BITRATE_REQUEST, bitrate),
        (unsafe_opus::OPUS_SET_COMPLEXITY_REQUEST, i32::from(complexity)),
        (unsafe_opus::OPUS_SET_SIGNAL_REQUEST, unsafe_opus::OPUS_SIGNAL_VOICE),
        (unsafe_opus::OPUS_SET_MAX_BANDWIDTH_REQUEST, unsafe_opus::OPUS_BANDWIDTH_WIDEBAND),
        (unsafe_opus::OPUS_SET_INBAND_FEC_REQUEST, 1),
        (unsafe_opus::OPUS_SET_PACKET_LOSS_PERC_REQUEST, EXPECTED_LOSS_PERCENT),
    ];
    // SAFETY: a null error pointer is allowed; the arguments are values that libopus accepts; every
    // request above takes one `i32`.
    unsafe {
        let state = unsafe_opus::opus_encoder_create(
            rate.hz() as i32,
            1,
            unsafe_opus::OPUS_APPLICATION_VOIP,
            std::ptr::null_mut(),
        );
        let state = NonNull::new(state)
            .expect("libopus takes every `Rate`, and running out of memory aborts");
        for (request, value) in settings {
            let _ = unsafe_opus::opus_encoder_ctl_impl(
                state.as_ptr(),
                request,
                unsafe_opus::varargs!(value),
            );
        }
        state
    }
}

/// Decodes packets of any Opus stream to mono PCM at one rate.
pub struct Decoder {
    state: NonNull<unsafe_opus::OpusDecoder>,
    rate: Rate,
    concealer: Concealer,
}

// SAFETY: as for `Encoder`.
unsafe impl Send for Decoder {}

impl Decoder {
    /// Creates a decoder with this output rate.
    pub fn new(rate: Rate) -> Self {
        Self { state: new_decoder(rate), rate, concealer: Concealer::new(rate.hz()) }
    }

    /// Returns the sample rate of the output.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Decodes a packet, appends the audio to `out` and returns the number of samples: 20 ms, or up
    /// to 120 ms if the sender packs more.
    ///
    /// `packet` is `None` for a lost packet, of which 20 ms are concealed. With `fec`, `packet` is
    /// the *successor* of a lost packet, and 20 ms of the lost packet are recovered from its
    /// redundancy, or concealed if it has none. Afterwards decode the packet again without `fec`. A
    /// packet without audio (DTX) is a pause.
    ///
    /// # Errors
    ///
    /// Returns an error if the packet is malformed or the codec fails. `out` is unchanged, and the
    /// next packet can be decoded.
    pub fn decode(
        &mut self,
        packet: Option<&[u8]>,
        fec: bool,
        out: &mut Vec<i16>,
    ) -> Result<usize, OpusError> {
        let concealed = match packet {
            Some([]) => return Err(OpusError::Malformed),
            // A frame of at most one byte is a pause (RFC 6716 §3.2.1). The codec would conceal it
            // itself.
            Some(packet @ [toc] | packet @ [toc, _]) if toc & 3 == 0 => Some(self.length(packet)?),
            Some(packet) if fec && !has_fec(packet) => Some(self.rate.frame()),
            Some(_) => None,
            None => Some(self.rate.frame()),
        };
        let before = out.len();
        if let Some(samples) = concealed {
            self.concealer.conceal(samples, out);
            return Ok(samples);
        }
        let samples = self.decode_sound(packet.unwrap_or_default(), fec, out)?;
        self.concealer.push(out.get_mut(before..).unwrap_or_default());
        Ok(samples)
    }

    /// Returns the duration of a packet in samples.
    fn length(&self, packet: &[u8]) -> Result<usize, OpusError> {
        let len = i32::try_from(packet.len()).map_err(|_| OpusError::Malformed)?;
        // SAFETY: `packet` has `len` bytes, at least one; only the first two are read.
        let samples = unsafe {
            unsafe_opus::opus_packet_get_nb_samples(packet.as_ptr(), len, self.rate.hz() as i32)
        };
        usize::try_from(samples).map_err(|_| OpusError::Malformed)
    }

    /// Decodes a packet with the codec. The codec never gets a packet that it would have to
    /// conceal.
    fn decode_sound(
        &mut self,
        packet: &[u8],
        fec: bool,
        out: &mut Vec<i16>,
    ) -> Result<usize, OpusError> {
        let len = i32::try_from(packet.len()).map_err(|_| OpusError::Malformed)?;
        let frames = if fec { 1 } else { PACKET_FRAMES_MAX };
        let mut pcm = [0i16; Rate::Hz48000.frame() * PACKET_FRAMES_MAX];
        let capacity = self.rate.frame() * frames;
        let state = self.state.as_ptr();
        let decoded = catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `state` is live and exclusively ours; `packet` is a slice of `len` bytes;
            // `pcm` has space for `room` mono samples.
            unsafe {
                unsafe_opus::opus_decode(
                    state,
                    packet.as_ptr(),
                    len,
                    pcm.as_mut_ptr(),
                    capacity as i32,
                    i32::from(fec),
                )
            }
        }));
        let Ok(decoded) = decoded else {
            self.reset();
            return Err(OpusError::Fault);
        };
        if decoded == unsafe_opus::OPUS_INVALID_PACKET {
            return Err(OpusError::Malformed);
        }
        let samples = usize::try_from(decoded)
            .ok()
            .and_then(|n| pcm.get(..n))
            .ok_or(OpusError::Codec(decoded))?;
        out.extend_from_slice(samples);
        Ok(samples.len())
    }

    fn reset(&mut self) {
        let old = std::mem::replace(&mut self.state, new_decoder(self.rate));
        // SAFETY: `old` came from `opus_decoder_create`, and no other pointer to it exists.
        unsafe { unsafe_opus::opus_decoder_destroy(old.as_ptr()) };
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        // SAFETY: the state came from `opus_decoder_create` and is destroyed once.
        unsafe { unsafe_opus::opus_decoder_destroy(self.state.as_ptr()) };
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("rate", &self.rate).finish_non_exhaustive()
    }
}

/// Returns whether a packet of one 20 ms frame carries a copy of the frame before it (LBRR, RFC
/// 6716 §4.2.4). The flag follows the voice activity flag of the SILK frame.
fn has_fec(packet: &[u8]) -> bool {
    let [toc, first, _, ..] = packet else { return false };
    let silk_of_20_ms = match toc >> 3 {
        config @ 0..=11 => config & 3 == 1,
        config @ 12..=15 => config & 1 == 1,
        _ => false,
    };
    toc & 3 == 0 && silk_of_20_ms && first & 0x40 != 0
}

fn new_decoder(rate: Rate) -> NonNull<unsafe_opus::OpusDecoder> {
    // SAFETY: a null error pointer is allowed; libopus accepts the rate and the channel count.
    let state =
        unsafe { unsafe_opus::opus_decoder_create(rate.hz() as i32, 1, std::ptr::null_mut()) };
    NonNull::new(state).expect("libopus takes every `Rate`, and running out of memory aborts")
}

/// Returns an encoded frame of silence. An open leg sends it between prompts.
pub fn silence_frame() -> Frame {
    /// The frame of silence that is used if encoding silence fails: 20 ms for any decoder (RFC 6716
    /// §3.1: CELT, full band, one frame).
    const FALLBACK: [u8; 3] = [0xf8, 0xff, 0xfe];
    static SILENCE: OnceLock<Frame> = OnceLock::new();
    let make = || {
        let mut encoder = Encoder::for_prompts();
        // The first frames still contain the initial state of the encoder.
        (0..10)
            .filter_map(|_| encoder.encode_frame(&[0; Rate::Hz16000.frame()]))
            .last()
            .unwrap_or_else(|| Frame::from(FALLBACK))
    };
    SILENCE.get_or_init(make).clone()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Decoder, Encoder, Frame, OpusError, Rate, silence_frame};

    const RATES: [Rate; 4] = [Rate::Hz8000, Rate::Hz16000, Rate::Hz24000, Rate::Hz48000];

    fn tone(rate: Rate, hz: f64, frames: usize) -> Vec<i16> {
        let step = std::f64::consts::TAU * hz / f64::from(rate.hz());
        (0..rate.frame() * frames).map(|n| ((step * n as f64).sin() * 10_000.0) as i16).collect()
    }

    fn encoded(rate: Rate, pcm: &[i16]) -> Vec<Frame> {
        let mut encoder = Encoder::new(rate, 5, 24_000);
        pcm.chunks(rate.frame()).map(|frame| encoder.encode(frame)).collect()
    }

    /// Frequency in hertz, from upward zero crossings.
    fn pitch(rate: Rate, pcm: &[i16]) -> f64 {
        let crossings = pcm.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
        crossings as f64 * f64::from(rate.hz()) / pcm.len() as f64
    }

    fn loudness(pcm: &[i16]) -> f64 {
        (pcm.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / pcm.len() as f64).sqrt()
    }

    #[test]
    fn keeps_pitch_and_level_between_any_rates() {
        for from in RATES {
            let frames = encoded(from, &tone(from, 440.0, 50));
            for to in RATES {
                let mut decoder = Decoder::new(to);
                let mut pcm = Vec::new();
                for frame in &frames {
                    assert_eq!(decoder.decode(Some(frame), false, &mut pcm), Ok(to.frame()));
                }
                let settled = &pcm[to.frame() * 5..];
                let measured = pitch(to, settled);
                assert!((measured - 440.0).abs() < 3.0, "{from:?} to {to:?}: {measured} Hz");
                let loud = loudness(settled);
                assert!((5_000.0..9_000.0).contains(&loud), "{from:?} to {to:?}: {loud}");
            }
        }
    }

    #[test]
    fn keeps_the_bitrate() {
        let frames = encoded(Rate::Hz16000, &tone(Rate::Hz16000, 440.0, 100));
        let bits = frames.iter().map(|f| f.len() * 8).sum::<usize>() / 2;
        assert!((8_000..32_000).contains(&bits), "{bits} bit/s");
    }

    #[test]
    fn recovers_a_lost_frame_from_its_successor() {
        let frames = encoded(Rate::Hz16000, &tone(Rate::Hz16000, 300.0, 20));
        let mut decoder = Decoder::new(Rate::Hz16000);
        let mut pcm = Vec::new();
        for frame in &frames[..10] {
            decoder.decode(Some(frame), false, &mut pcm).unwrap();
        }
        let mut concealed = Vec::new();
        assert_eq!(decoder.decode(Some(&frames[11]), true, &mut concealed), Ok(320));
        assert!(loudness(&concealed) > 4_000.0, "{}", loudness(&concealed));
        assert_eq!(decoder.decode(None, false, &mut concealed), Ok(320));
    }

    #[test]
    fn losses_and_pauses_cause_no_bursts() {
        for rate in RATES {
            for hz in [200.0, 440.0, 1_000.0] {
                let frames = encoded(Rate::Hz16000, &tone(Rate::Hz16000, hz, 60));
                let mut decoder = Decoder::new(rate);
                let mut pcm = Vec::new();
                for (n, frame) in frames.iter().enumerate() {
                    let given = match n % 12 {
                        5 | 6 => decoder.decode(None, false, &mut pcm),
                        // Lost; the successor may contain its redundancy.
                        8 => decoder.decode(frames.get(n + 1).map(|f| &f[..]), n < 59, &mut pcm),
                        // A DTX pause of one byte.
                        10 => decoder.decode(Some(&frame[..1]), false, &mut pcm),
                        _ => decoder.decode(Some(frame), false, &mut pcm),
                    };
                    assert_eq!(given, Ok(rate.frame()), "frame {n}");
                }
                let settled = &pcm[rate.frame() * 3..];
                let loudest = settled.iter().map(|s| s.unsigned_abs()).max();
                assert!(loudest < Some(16_000), "{hz} Hz at {rate:?}: {loudest:?}");
            }
        }
    }

    #[test]
    fn silence_is_small_and_silent() {
        let frame = silence_frame();
        assert!(frame.len() < 40, "{} bytes", frame.len());
        let mut pcm = Vec::new();
        let mut decoder = Decoder::new(Rate::Hz48000);
        for _ in 0..10 {
            decoder.decode(Some(&frame), false, &mut pcm).unwrap();
        }
        assert!(pcm.iter().all(|s| s.abs() < 10));
    }

    #[test]
    fn pads_or_truncates_input_to_one_frame() {
        let mut encoder = Encoder::for_prompts();
        for samples in [0, 1, 319, 320, 321, 5_000] {
            let frame = encoder.encode(&vec![100; samples]);
            assert_eq!(
                Decoder::new(Rate::Hz8000).decode(Some(&frame), false, &mut Vec::new()),
                Ok(160)
            );
        }
    }

    #[test]
    fn rejects_invalid_packets() {
        let mut decoder = Decoder::new(Rate::Hz16000);
        let mut pcm = Vec::new();
        assert_eq!(decoder.decode(Some(&[]), false, &mut pcm), Err(OpusError::Malformed));
        assert_eq!(decoder.decode(Some(&[0xff, 0xff]), false, &mut pcm), Err(OpusError::Malformed));
        assert!(pcm.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_decode_or_are_rejected(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20), fec: bool) {
            let mut decoder = Decoder::new(Rate::Hz16000);
            for packet in &packets {
                let mut pcm = Vec::new();
                if let Ok(samples) = decoder.decode(Some(packet), fec, &mut pcm) {
                    prop_assert!(samples <= 320 * 6);
                }
            }
        }

        #[test]
        fn damaged_packets_decode_or_are_rejected(
            damage in prop::collection::vec((0..8_usize, 0..100_usize, any::<u8>()), 0..20),
            cut in 0..8_usize,
        ) {
            let mut packets: Vec<Vec<u8>> = encoded(Rate::Hz16000, &tone(Rate::Hz16000, 440.0, 8))
                .iter()
                .map(|frame| frame.to_vec())
                .collect();
            for (packet, at, byte) in damage {
                if let Some(old) = packets.get_mut(packet).and_then(|packet| packet.get_mut(at)) {
                    *old = byte;
                }
            }
            let length = packets[cut].len();
            packets[cut].truncate(length / 2);
            let (mut decoder, mut pcm) = (Decoder::new(Rate::Hz16000), Vec::new());
            for packet in packets {
                pcm.clear();
                let outcome = decoder.decode(Some(&packet), false, &mut pcm);
                prop_assert_eq!(outcome.unwrap_or_default(), pcm.len());
            }
        }

        #[test]
        fn any_pcm_encodes(pcm in prop::collection::vec(any::<i16>(), 3200)) {
            for frame in encoded(Rate::Hz16000, &pcm) {
                prop_assert!(!frame.is_empty());
            }
        }
    }
}
