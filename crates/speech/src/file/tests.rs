//! Half a second of a 440 Hz tone in every supported format, and invalid files.

use bytes::Bytes;
use proptest::prelude::*;
use rstest::rstest;

use super::decode;
use crate::prompt_builder::PromptBuilder;
use media::opus::{Decoder, Rate};
use media::prompt::{FrameState, Prompt};

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../../fixtures/audio/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Returns the audio of a file at 16 kHz and the outcome of decoding.
fn decode_to_pcm(file: &[u8]) -> (Vec<i16>, Result<(), String>) {
    let (prompt, writer) = Prompt::new();
    let mut builder = PromptBuilder::new(writer);
    let end = decode(&Bytes::copy_from_slice(file), &mut builder).map_err(|e| e.to_string());
    builder.finish().unwrap();
    let (mut decoder, mut cursor, mut pcm) =
        (Decoder::new(Rate::Hz16000), prompt.cursor(), Vec::new());
    while let FrameState::Ready(frame) = cursor.next() {
        decoder.decode(Some(&frame), false, &mut pcm).unwrap();
    }
    (pcm, end)
}

fn pitch(pcm: &[i16]) -> f64 {
    let crossings = pcm.windows(2).filter(|w| w[0] < 0 && w[1] >= 0).count();
    crossings as f64 * 16_000.0 / pcm.len() as f64
}

#[rstest]
#[case("tone-pcm16.wav")]
#[case("tone-mulaw.wav")]
#[case("tone-alaw.wav")]
#[case("tone-stereo.wav")]
#[case("tone-mono.mp3")]
#[case("tone-stereo.mp3")]
#[case("tone-vorbis.ogg")]
#[case("tone-opus.ogg")]
fn every_format_is_decoded(#[case] name: &str) {
    let (pcm, end) = decode_to_pcm(&fixture(name));
    assert_eq!(end, Ok(()));
    let seconds = pcm.len() as f64 / 16_000.0;
    assert!((0.45..0.65).contains(&seconds), "{seconds} s");
    let middle = &pcm[2_400..6_400];
    assert!((pitch(middle) - 440.0).abs() < 8.0, "{} Hz", pitch(middle));
    let peak = middle.iter().map(|s| s.abs()).max().unwrap();
    assert!((12_000..20_000).contains(&peak), "{peak}");
}

#[test]
fn an_mp3_is_detected_behind_tags_and_garbage() {
    let mp3 = fixture("tone-mono.mp3");
    let mut untagged = super::PeekReader::new(Box::new(std::io::Cursor::new(mp3)));
    untagged.skip_id3();
    let frames = untagged.peek(usize::MAX);
    let mut with_picture = b"ID3\x04\0\0\0\x00\x10\x00".to_vec();
    with_picture.extend([0xff; 0x800]);
    with_picture.extend(frames);
    let mut with_rubbish = vec![0; 300];
    with_rubbish.extend(frames);
    for file in [with_picture, with_rubbish] {
        let (pcm, end) = decode_to_pcm(&file);
        assert_eq!(end, Ok(()));
        assert!(pcm.len() > 6_000);
    }
}

#[rstest]
#[case::empty(b"", "it is empty")]
#[case::page(b"<!DOCTYPE html><html></html>", "an HTML or XML document")]
#[case::json(b"  {\"error\": 404}", "JSON")]
#[case::flac(b"fLaC\0\0\0\x22", "FLAC")]
#[case::text(b"404 page not found", "an unknown format")]
#[case::id3_of_everything(b"ID3\x04\0\0\x7f\x7f\x7f\x7fabc", "it is empty")]
#[case::riff_alone(b"RIFF", "does not start with RIFF and WAVE")]
#[case::ogg_alone(b"OggS", "could not read the Ogg file")]
#[case::ogg_of_zeros(&[b'O', b'g', b'g', b'S', 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0], "could not read the Ogg file")]
#[case::mp3_header_alone(&[0xff, 0xfb, 0x90, 0x64], "")]
fn invalid_files_are_refused_with_a_reason(#[case] file: &[u8], #[case] reason: &str) {
    let (pcm, end) = decode_to_pcm(file);
    assert!(pcm.is_empty());
    let error = end.unwrap_err();
    assert!(error.contains(reason), "{error}");
}

#[test]
fn a_truncated_wav_is_played_and_reported() {
    let mut wav = fixture("tone-pcm16.wav");
    wav.truncate(wav.len() / 2);
    let (pcm, end) = decode_to_pcm(&wav);
    assert!((3_500..4_500).contains(&pcm.len()), "{}", pcm.len());
    assert!(end.unwrap_err().contains("declared"));
}

#[test]
fn a_wav_longer_than_an_hour_is_refused_before_decoding() {
    let mut wav = fixture("tone-pcm16.wav");
    let at = wav.windows(4).position(|w| w == b"data").unwrap() + 4;
    wav[at..at + 4].copy_from_slice(&0x7000_0000u32.to_le_bytes());
    let (pcm, end) = decode_to_pcm(&wav);
    assert!(pcm.is_empty());
    assert_eq!(end.unwrap_err(), "the audio is longer than 3600 s");
}

#[rstest]
#[case("tone-mono.mp3")]
#[case("tone-vorbis.ogg")]
#[case("tone-opus.ogg")]
fn a_truncated_file_is_played_as_far_as_it_goes(#[case] name: &str) {
    let file = fixture(name);
    for part in 1..8 {
        let (pcm, _) = decode_to_pcm(&file[..file.len() * part / 8]);
        assert!(pcm.len() < 16_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn decoding_a_damaged_file_terminates(
        name in prop::sample::select(&["tone-mulaw.wav", "tone-stereo.mp3", "tone-vorbis.ogg", "tone-opus.ogg"][..]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
    ) {
        let mut file = fixture(name);
        for (at, byte) in damage {
            let at = at.index(file.len());
            file[at] = byte;
        }
        let (pcm, _) = decode_to_pcm(&file);
        prop_assert!(pcm.len() < 16_000 * 20);
    }
}
