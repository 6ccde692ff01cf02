//! The `[speech]` section of the configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};

use super::espeak;
use super::memory::FreeMemory;
use super::openai::OpenAi;
use super::subprocess::find_on_path;
use model::Secret;

/// Settings of speech synthesis and recognition. The defaults need no other software.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeechConfig {
    /// The engine that is tried first. The others follow if it fails or does not support the
    /// language.
    pub provider: ProviderName,
    /// Size of the in-memory prompt cache, in MiB.
    pub cache_mb: u32,
    /// Size of the prompt cache below `store.data_dir`, in MiB. 0 disables it.
    pub disk_cache_mb: u32,
    /// An OpenAI-compatible endpoint, if configured.
    pub openai: Option<OpenAiConfig>,
    /// Path of the `espeak-ng` program. By default the one on `PATH`, if any.
    pub espeak: Option<PathBuf>,
    /// The recogniser that is tried first. By default the first available one of `transcribe`,
    /// `websocket`, `whisper` and `pocketsphinx`.
    pub recogniser: Option<RecogniserName>,
    /// An OpenAI-compatible transcription endpoint, if configured.
    pub transcribe: Option<TranscribeConfig>,
    /// A streaming recogniser, if configured.
    pub websocket: Option<WebSocketConfig>,
    /// Path of the `pocketsphinx_continuous` program. By default the one on `PATH`, if any.
    pub pocketsphinx: Option<PathBuf>,
    /// The language of recordings that are transcribed. Documents cannot set it.
    pub transcript_language: String,
    /// Maximum number of concurrent recognitions. Further ones wait.
    pub recognitions_at_once: u16,
    /// `store.data_dir`. Voices are unpacked and prompts cached below it.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// The program with the `speech-helper` command. `None` means the running program.
    #[serde(skip)]
    pub helper: Option<PathBuf>,
    /// Disk space that the prompts and models leave free, in bytes. `None` means the default.
    #[serde(skip)]
    pub disk_reserve: Option<u64>,
    /// Limits the memory of prompts. `None` means no limit.
    #[serde(skip)]
    pub free_memory: Option<FreeMemory>,
}

impl Default for SpeechConfig {
    fn default() -> Self {
        Self {
            provider: ProviderName::default(),
            cache_mb: 64,
            disk_cache_mb: 256,
            openai: None,
            espeak: None,
            recogniser: None,
            transcribe: None,
            websocket: None,
            pocketsphinx: None,
            transcript_language: "en-US".to_owned(),
            recognitions_at_once: 64,
            data_dir: PathBuf::from("offhook-data"),
            helper: None,
            disk_reserve: None,
            free_memory: None,
        }
    }
}

/// The speech engines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProviderName {
    /// The embedded voice.
    #[default]
    Builtin,
    /// An OpenAI-compatible HTTP endpoint.
    OpenAi,
    /// The `espeak-ng` program.
    Espeak,
}

/// The speech recognisers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecogniserName {
    /// An OpenAI-compatible HTTP endpoint.
    Transcribe,
    /// A server that recognises over a WebSocket while the caller speaks.
    WebSocket,
    /// An installed model, run in the speech helper.
    Whisper,
    /// The `pocketsphinx_continuous` program.
    Pocketsphinx,
    /// No recogniser is used, and speech counts as no input.
    None,
}

/// Settings of an OpenAI-compatible `/v1/audio/transcriptions` endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranscribeConfig {
    /// The base URL (`https://api.openai.com/v1`) or the endpoint itself
    /// (`…/audio/transcriptions`).
    pub url: String,
    /// The API key, which is sent as a bearer token.
    #[serde(default, deserialize_with = "deserialize_secret")]
    pub api_key: Option<Secret>,
    #[serde(default = "default_transcribe_model")]
    pub model: String,
    /// The endpoint's model for each `speechModel` of documents (`default`, `command_and_search`,
    /// `phone_call`).
    #[serde(default)]
    pub models: BTreeMap<String, String>,
    /// `verbose_json` includes confidence values; some models support only `json`.
    #[serde(default)]
    pub format: TranscriptFormat,
    /// Interval in milliseconds at which the speech so far is transcribed for interim results. 0
    /// disables them.
    #[serde(default = "default_interim_ms")]
    pub interim_ms: u64,
    /// Time limit of one request, in milliseconds.
    #[serde(default = "default_recognise_timeout_ms")]
    pub timeout_ms: u64,
}

/// The response format to request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TranscriptFormat {
    #[default]
    VerboseJson,
    Json,
}

/// The messages of a streaming recogniser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebSocketProtocol {
    /// Those of Vosk's server.
    #[default]
    Vosk,
    /// Those of Deepgram's live transcription, `/v1/listen`.
    Deepgram,
    /// Those of AssemblyAI's streaming service, version 3.
    AssemblyAi,
}

/// Settings of a streaming recogniser.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocketConfig {
    #[serde(default)]
    pub protocol: WebSocketProtocol,
    /// A `ws://` or `wss://` URL for all languages without an entry in `languages`. If absent, only
    /// those languages are supported.
    pub url: Option<String>,
    /// The server URL by language (`hi-IN`, `hi`).
    #[serde(default)]
    pub languages: BTreeMap<String, String>,
    /// The API key, which is sent as the protocol requires.
    #[serde(default, deserialize_with = "deserialize_secret")]
    pub api_key: Option<Secret>,
    /// The service's model. By default one that fits the language. Vosk's servers have one each.
    #[serde(default)]
    pub model: Option<String>,
    /// The service's model for each `speechModel` of documents.
    #[serde(default)]
    pub models: BTreeMap<String, String>,
    /// Time limit from the end of the speech to the last result, in milliseconds.
    #[serde(default = "default_recognise_timeout_ms")]
    pub timeout_ms: u64,
}

impl WebSocketConfig {
    /// Whether a model is set that no server would be asked for.
    fn has_unused_model(&self) -> bool {
        self.protocol == WebSocketProtocol::Vosk
            && (self.model.is_some() || !self.models.is_empty())
    }
}

/// Settings of an OpenAI-compatible `/v1/audio/speech` endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiConfig {
    /// The base URL (`https://api.openai.com/v1`) or the endpoint itself (`…/audio/speech`).
    pub url: String,
    /// The API key, which is sent as a bearer token.
    #[serde(default, deserialize_with = "deserialize_secret")]
    pub api_key: Option<Secret>,
    #[serde(default = "default_model")]
    pub model: String,
    /// The voice used if `voices` has no matching entry.
    #[serde(default = "default_voice")]
    pub voice: String,
    /// The endpoint's voice by `WOMAN`, `MAN`, a Polly name without prefix, or a language (`hi-IN`,
    /// `hi`).
    #[serde(default)]
    pub voices: BTreeMap<String, String>,
    /// `wav`, or `pcm` (16 bit, mono, at `pcm_rate`).
    #[serde(default)]
    pub format: ResponseFormat,
    /// Sample rate of `pcm`, in Hz.
    #[serde(default = "default_pcm_rate")]
    pub pcm_rate: u32,
    /// Time limit of one prompt from the request to the last sample, in milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

/// The audio format to request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResponseFormat {
    #[default]
    Wav,
    Pcm,
}

fn default_model() -> String {
    "gpt-4o-mini-tts".to_owned()
}

fn default_voice() -> String {
    "alloy".to_owned()
}

fn default_pcm_rate() -> u32 {
    24_000
}

fn default_timeout_ms() -> u64 {
    30_000
}

fn default_transcribe_model() -> String {
    "whisper-1".to_owned()
}

fn default_interim_ms() -> u64 {
    1_000
}

fn default_recognise_timeout_ms() -> u64 {
    10_000
}

impl SpeechConfig {
    /// Parses the `[speech]` table.
    ///
    /// # Errors
    ///
    /// Fails on unknown keys and invalid values. The message names the key.
    pub fn from_table(table: toml::Table) -> Result<Self, toml::de::Error> {
        let config: Self = table.try_into()?;
        let invalid = |message: &str| Err(serde::de::Error::custom(message));
        if let Some(openai) = &config.openai {
            OpenAi::endpoint(openai).map_err(serde::de::Error::custom)?;
        }
        let timeouts = [
            ("openai", config.openai.as_ref().map(|openai| openai.timeout_ms)),
            ("transcribe", config.transcribe.as_ref().map(|transcribe| transcribe.timeout_ms)),
            ("websocket", config.websocket.as_ref().map(|websocket| websocket.timeout_ms)),
        ];
        if let Some((table, _)) = timeouts.into_iter().find(|(_, timeout)| *timeout == Some(0)) {
            return invalid(&format!("[speech.{table}] timeout_ms must be at least 1"));
        }
        if config.provider == ProviderName::OpenAi && config.openai.is_none() {
            return invalid("provider = \"openai\" requires [speech.openai] with a url");
        }
        match config.recogniser {
            Some(RecogniserName::Transcribe) if config.transcribe.is_none() => {
                invalid("recogniser = \"transcribe\" requires [speech.transcribe] with a url")
            }
            Some(RecogniserName::WebSocket) if config.websocket.is_none() => {
                invalid("recogniser = \"websocket\" requires [speech.websocket] with a url")
            }
            _ if config
                .websocket
                .as_ref()
                .is_some_and(|w| w.url.is_none() && w.languages.is_empty()) =>
            {
                invalid("[speech.websocket] requires a url or languages")
            }
            _ if config.websocket.as_ref().is_some_and(WebSocketConfig::has_unused_model) => {
                invalid(
                    "[speech.websocket] model and models require protocol \"deepgram\" or \"assemblyai\"",
                )
            }
            _ if config.recognitions_at_once == 0 => {
                invalid("recognitions_at_once must be at least 1")
            }
            Some(_) | None => Ok(config),
        }
    }

    /// Returns a warning for each configured program that does not exist. It is started for each
    /// text or utterance, and the next engine takes its place when that fails.
    pub fn missing_programs(&self) -> Vec<String> {
        let path = std::env::var_os("PATH");
        let exists = |program: &Path| match program.components().count() {
            1 => find_on_path(program, path.as_deref()).is_some(),
            _ => program.is_file(),
        };
        let speaks = self.provider == ProviderName::Espeak;
        let espeak = self.espeak.clone().or(speaks.then(|| espeak::PROGRAM.into()));
        [("espeak", espeak), ("pocketsphinx", self.pocketsphinx.clone())]
            .into_iter()
            .filter_map(|(key, program)| {
                let program = program.filter(|program| !exists(program))?;
                Some(format!(
                    "[speech] {key} is {}, which does not exist: install it, or correct the path",
                    program.display()
                ))
            })
            .collect()
    }
}

/// The three ways to set a secret. A missing or blank variable or file counts as an absent key; the
/// engine's reader of the configuration warns of it.
#[derive(Deserialize)]
#[serde(untagged, expecting = "text, { env = \"NAME\" } or { file = \"PATH\" }")]
enum SecretSource {
    Text(String),
    Env { env: String },
    File { file: PathBuf },
}

fn deserialize_secret<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Secret>, D::Error> {
    let text = match Option::<SecretSource>::deserialize(d)? {
        None => None,
        Some(SecretSource::Text(text)) => Some(text),
        Some(SecretSource::Env { env }) => std::env::var(env).ok(),
        Some(SecretSource::File { file }) => match std::fs::read_to_string(&file) {
            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(e) => {
                return Err(serde::de::Error::custom(format!(
                    "could not read {}: {e}",
                    file.display()
                )));
            }
        },
    };
    Ok(text.filter(|text| !text.trim().is_empty()).map(Secret::new))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{ProviderName, ResponseFormat, SpeechConfig};

    #[test]
    fn the_default_is_the_embedded_voice() {
        let config: SpeechConfig = toml::from_str("").unwrap();
        assert_eq!(config.provider, ProviderName::Builtin);
        assert!(config.openai.is_none());
    }

    #[test]
    fn an_endpoint_is_parsed_and_its_key_is_redacted() {
        let config: SpeechConfig = toml::from_str(
            "provider = \"openai\"\n[openai]\nurl = \"https://tts.example.com/v1\"\napi_key = \"canary\"\n\
             voices = { MAN = \"onyx\" }\nformat = \"pcm\"",
        )
        .unwrap();
        assert!(!format!("{config:?}").contains("canary"));
        let openai = config.openai.unwrap();
        assert_eq!((openai.format, openai.pcm_rate), (ResponseFormat::Pcm, 24_000));
        assert_eq!(openai.api_key.unwrap().reveal(), "canary");
        assert_eq!(openai.voices.get("MAN").map(String::as_str), Some("onyx"));
    }

    #[test]
    fn unknown_keys_and_endpoints_without_url_are_refused() {
        for (text, word) in [
            ("color = 1", "color"),
            ("provider = \"flite\"", "flite"),
            ("provider = \"openai\"", "[speech.openai]"),
            ("[openai]\nurl = \"x\"\nsecret = \"y\"", "secret"),
            ("[openai]\nurl = \"x\"\napi_key = 5", "env"),
            ("[openai]\nmodel = \"x\"", "url"),
            ("recogniser = \"vosk\"", "vosk"),
            ("recogniser = \"transcribe\"", "[speech.transcribe]"),
            ("recogniser = \"websocket\"", "[speech.websocket]"),
            ("[websocket]\ntimeout_ms = 1", "[speech.websocket]"),
            ("[websocket]\nurl = \"ws://x\"\nprotocol = \"grpc\"", "assemblyai"),
            ("[websocket]\nurl = \"ws://x\"\nmodel = \"nova-3\"", "require protocol"),
            ("[transcribe]\nmodel = \"x\"", "url"),
            ("recognitions_at_once = 0", "recognitions_at_once"),
            ("[openai]\nurl = \"\"", "[speech.openai] url"),
            ("[openai]\nurl = \"http://x\"\ntimeout_ms = 0", "[speech.openai] timeout_ms"),
            ("[transcribe]\nurl = \"http://x\"\ntimeout_ms = 0", "[speech.transcribe] timeout_ms"),
        ] {
            let error = SpeechConfig::from_table(text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_is_read_from_a_file_or_absent() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"canary\n").unwrap();
        let empty = tempfile::NamedTempFile::new().unwrap();
        for (path, key) in [
            (file.path().display().to_string(), Some("canary")),
            (empty.path().display().to_string(), None),
            ("/nowhere/at/all".to_owned(), None),
        ] {
            let text = format!("[openai]\nurl = \"http://x\"\napi_key = {{ file = \"{path}\" }}");
            let config = SpeechConfig::from_table(text.parse().unwrap()).unwrap();
            assert_eq!(config.openai.unwrap().api_key.as_ref().map(|k| k.reveal()), key);
        }
    }
}
