//! Valid and invalid headers, in chunks of every size.

use proptest::prelude::*;
use rstest::rstest;

use super::{WavError, WavReader};

/// Creates a WAV file with one `fmt` chunk and one `data` chunk whose length field is `declared`.
fn wav(coding: u16, channels: u16, rate: u32, bits: u16, declared: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"RIFF\xff\xff\xff\xffWAVELIST\x03\0\0\0abc\0fmt \x10\0\0\0".to_vec();
    bytes.extend(coding.to_le_bytes());
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend((rate * u32::from(channels) * u32::from(bits) / 8).to_le_bytes());
    bytes.extend((channels * bits / 8).to_le_bytes());
    bytes.extend(bits.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(declared.to_le_bytes());
    bytes.extend(data);
    bytes
}

fn read(bytes: &[u8], chunk_size: usize) -> (Vec<i16>, Result<(), WavError>) {
    let mut reader = WavReader::default();
    let mut out = Vec::new();
    for chunk in bytes.chunks(chunk_size) {
        if let Err(e) = reader.push(chunk, &mut out) {
            return (out, Err(e));
        }
    }
    (out, reader.finish())
}

#[rstest]
#[case::pcm16(1, 1, 16, &[1, 0, 0xff, 0xff], &[1, -1])]
#[case::pcm16_stereo(1, 2, 16, &[100, 0, 50, 0, 0, 0x80, 0, 0x80], &[75, -32_768])]
#[case::pcm8(1, 1, 8, &[128, 255, 0], &[0, 127 << 8, -32_768])]
#[case::pcm24(1, 1, 24, &[9, 0xff, 0x7f], &[32_767])]
#[case::pcm32(1, 1, 32, &[9, 9, 0, 0x80], &[-32_768])]
#[case::float(3, 1, 32, &[0, 0, 0x80, 0x3f, 0, 0, 0xc0, 0x7f], &[32_767, 0])]
#[case::a_law(6, 1, 8, &[0xd5, 0x55, 0xaa, 0x2a], &[8, -8, 32_256, -32_256])]
#[case::mu_law(7, 1, 8, &[0xff, 0x7f, 0x80, 0x00], &[0, 0, 32_124, -32_124])]
fn every_coding_is_decoded(
    #[case] coding: u16,
    #[case] channels: u16,
    #[case] bits: u16,
    #[case] data: &[u8],
    #[case] pcm: &[i16],
) {
    let bytes = wav(coding, channels, 8_000, bits, data.len() as u32, data);
    for chunk_size in [1, 3, 1_000] {
        assert_eq!(read(&bytes, chunk_size), (pcm.to_vec(), Ok(())), "chunks of {chunk_size}");
    }
}

#[rstest]
#[case::empty(vec![], WavError::NotWav)]
#[case::html(b"<html><body>not found</body></html>".to_vec(), WavError::NotWav)]
#[case::short(b"RIFF".to_vec(), WavError::NotWav)]
#[case::only_header(wav(1, 1, 8_000, 16, 100, &[]), WavError::NoData)]
#[case::adpcm(wav(2, 1, 8_000, 4, 4, &[0; 4]), WavError::Coding { coding: 2, bits: 4 })]
#[case::six_channels(wav(1, 6, 8_000, 16, 4, &[0; 4]), WavError::Channels(6))]
#[case::no_channels(wav(1, 0, 8_000, 16, 4, &[0; 4]), WavError::Channels(0))]
#[case::slow(wav(1, 1, 4_000, 16, 4, &[0; 4]), WavError::Rate(4_000))]
#[case::fast(wav(1, 1, 96_000, 16, 4, &[0; 4]), WavError::Rate(96_000))]
#[case::data_first(b"RIFF....WAVEdata\x04\0\0\0abcd".to_vec(), WavError::Format)]
#[case::fmt_of_4_gib(b"RIFF....WAVEfmt \xff\xff\xff\xff".to_vec(), WavError::Format)]
#[case::fmt_of_nothing(b"RIFF....WAVEfmt \0\0\0\0data\x04\0\0\0abcd".to_vec(), WavError::Format)]
#[case::declares_too_much(wav(1, 1, 8_000, 16, 1_000, &[0; 4]), WavError::Truncated { declared: 1_000, received: 4 })]
fn invalid_files_are_refused(#[case] bytes: Vec<u8>, #[case] error: WavError) {
    for chunk_size in [1, 1_000] {
        assert_eq!(read(&bytes, chunk_size).1, Err(error.clone()), "chunks of {chunk_size}");
    }
}

#[rstest]
#[case::unknown_zero(0, 4)]
#[case::unknown_ones(u32::MAX, 4)]
#[case::unknown_espeak(0x7fff_f000, 4)]
#[case::declares_too_little(4, 2)]
#[case::half_a_sample(3, 1)]
fn unknown_and_short_lengths_are_accepted(#[case] declared: u32, #[case] samples: usize) {
    let (pcm, end) = read(&wav(1, 1, 8_000, 16, declared, &[0; 8]), 5);
    assert_eq!((pcm.len(), end), (samples, Ok(())));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_in_bounded_memory(bytes in prop::collection::vec(any::<u8>(), 0..400), chunk_size in 1usize..50) {
        let mut stream = wav(1, 2, 8_000, 16, 0, &[]);
        stream.truncate(bytes.len() % 60);
        stream.extend(bytes);
        let (pcm, _) = read(&stream, chunk_size);
        prop_assert!(pcm.len() <= stream.len());
    }
}
