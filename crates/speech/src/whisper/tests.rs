//! Decoding and model files, good and bad. The real model is tested through the whole program.

use super::{Spectrogram, Whisper, check, is_doubled, repetition, tokens, weights};

#[test]
fn repetitions_end_the_text() {
    assert_eq!(repetition(&[1, 2, 3]), None);
    assert_eq!(repetition(&[9, 5, 5, 5, 5, 5, 5, 5, 5]), Some(2));
    assert_eq!(repetition(&[0, 1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]), Some(4));
    assert_eq!(repetition(&[7, 7, 7, 7]), None, "no, no, no, no");
}

#[test]
fn a_sentence_that_is_found_twice_is_decoded_again() {
    assert!(is_doubled(&[1, 2, 3, 1, 2, 3]));
    assert!(is_doubled(&[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4]));
    for once in [&[][..], &[1, 2], &[1, 2, 1, 2], &[1, 2, 3, 1, 2, 4], &[0, 1, 2, 3, 1, 2, 3]] {
        assert!(!is_doubled(once), "{once:?}");
    }
}

#[test]
fn the_spectrum_of_a_tone_has_one_peak_and_silence_is_flat() {
    let spectrogram = Spectrogram::new();
    let tone: Vec<f32> =
        (0..16_000).map(|n| (n as f32 * std::f32::consts::FRAC_PI_8).sin() * 0.25).collect();
    let values = spectrogram.log_mel(&tone, 100);
    let row = &values[50 * 80..51 * 80];
    let loudest = row.iter().copied().fold(f32::MIN, f32::max);
    // 1 kHz is where the scale becomes logarithmic, at band 27 of 80.
    let peak = row.iter().position(|value| *value == loudest).unwrap();
    assert!((24..=28).contains(&peak), "{peak}");
    let silence = spectrogram.log_mel(&[], 10);
    assert!(silence.iter().all(|value| (value - silence[0]).abs() < 1e-6) && silence.len() == 800);
}

/// A file as CTranslate2 writes it, with these variables: name, dimensions, type and values.
fn model_file(spec: &str, variables: &[(&str, &[u32], u8, &[u8])]) -> Vec<u8> {
    let text = |text: &str| {
        let mut bytes = (text.len() as u16 + 1).to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
        bytes
    };
    let mut file = 6u32.to_le_bytes().to_vec();
    file.extend(text(spec));
    file.extend(3u32.to_le_bytes());
    file.extend((variables.len() as u32).to_le_bytes());
    for (name, shape, kind, values) in variables {
        file.extend(text(name));
        file.push(shape.len() as u8);
        file.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
        file.push(*kind);
        file.extend((values.len() as u32).to_le_bytes());
        file.extend_from_slice(values);
    }
    file
}

#[test]
fn weights_are_converted() {
    // 1, -2, the smallest subnormal number, and 0.
    let halves = [0x00, 0x3c, 0x00, 0xc0, 0x01, 0x00, 0x00, 0x00];
    let file = model_file("WhisperSpec", &[("a", &[2, 2], 4, &halves), ("n", &[], 2, &[6, 0])]);
    let converted = weights::convert(&file).unwrap();
    let loaded = weights::Weights::new(converted.clone().into()).unwrap();
    let values = loaded.values(&loaded.find("a", &[2, 2]).unwrap()).to_vec();
    assert_eq!(values, [1.0, -2.0, 2f32.powi(-24), 0.0]);
    for (name, shape) in [("a", &[4][..]), ("n", &[]), ("b", &[2, 2])] {
        assert!(loaded.find(name, shape).is_err(), "{name} {shape:?}");
    }
    let truncated = converted[..converted.len() - 1].to_vec();
    let loaded = weights::Weights::new(truncated.into()).unwrap();
    assert!(loaded.find("a", &[2, 2]).unwrap_err().to_string().contains("truncated"));
}

#[test]
fn foreign_truncated_and_malicious_weights_are_refused_with_the_reason() {
    let values = [0u8; 8];
    let whole = model_file("WhisperSpec", &[("a", &[2, 2], 4, &values)]);
    for length in 0..whole.len() {
        assert_eq!(weights::convert(&whole[..length]).unwrap_err(), "it is truncated", "{length}");
    }
    for (file, reason) in [
        (model_file("TransformerSpec", &[]), "TransformerSpec"),
        (model_file("WhisperSpec", &[("a", &[3, 2], 4, &values)]), "do not match"),
        (model_file("WhisperSpec", &[("a", &[u32::MAX, u32::MAX, 3], 4, &values)]), "do not match"),
        (model_file("WhisperSpec", &[("a", &[1; 9], 4, &values)]), "9 dimensions"),
        (model_file("WhisperSpec", &[("a", &[1], 4, &[0x00, 0x7c])]), "not finite"),
        ([&whole[..22], &[0xff; 4], &whole[26..]].concat(), "variables"),
    ] {
        let error = weights::convert(&file).unwrap_err();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn models_that_are_not_whisper_are_refused_before_they_are_installed() {
    let vocabulary = "a\n".repeat(tokens::ENGLISH);
    let settings = br#"{"suppress_ids":[1],"suppress_ids_begin":[2]}"#;
    let refused = |file: &[u8]| {
        let file = weights::convert(file).unwrap();
        check(&file, vocabulary.as_bytes(), settings).unwrap_err().to_string()
    };
    assert!(refused(&model_file("WhisperSpec", &[])).contains("is missing"));
    let odd = [0; 4];
    let file = model_file(
        "WhisperSpec",
        &[
            ("decoder/embeddings/weight", &[1, 2], 4, &odd),
            ("encoder/position_encodings/encodings", &[1, 2], 4, &odd),
            ("decoder/position_encodings/encodings", &[1, 2], 4, &odd),
        ],
    );
    assert!(refused(&file).contains("a width of 2"));
    for header in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff{}", b"\x02\0\0\0\0\0\0\0[]"] {
        assert!(check(header, vocabulary.as_bytes(), settings).is_err());
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(Whisper::load(dir.path()).is_err());
}
