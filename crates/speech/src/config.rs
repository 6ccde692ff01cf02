//! `[speech]` of the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use model::Secret;

/// How prompts are made. The default needs nothing installed and nothing set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeechConfig {
    /// Who is asked first; where it fails or lacks the language, the others follow.
    pub provider: ProviderName,
    /// Megabytes of ready frames kept in memory.
    pub cache_mb: u32,
    /// Megabytes of spoken prompts kept below `store.data_dir`, for the next start; 0: none.
    pub disk_cache_mb: u32,
    /// An HTTP endpoint; absent: none.
    pub openai: Option<OpenAiConfig>,
    /// The `espeak-ng` program; absent: the one on `PATH`, if any.
    pub espeak: Option<PathBuf>,
    /// Who is asked what a caller said; absent: the first of those below that is set, then `pocketsphinx`.
    pub recogniser: Option<RecogniserName>,
    /// An HTTP endpoint for sound; absent: none.
    pub transcribe: Option<TranscribeConfig>,
    /// A recogniser that hears as the caller speaks; absent: none.
    pub websocket: Option<WebSocketConfig>,
    /// The `pocketsphinx_continuous` program; absent: the one on `PATH`, if any.
    pub pocketsphinx: Option<PathBuf>,
    /// What is spoken in recordings that are transcribed: documents have no word for it.
    pub transcript_language: String,
    /// Recognitions under way at a time; further ones wait for their turn as long as a result may take.
    pub recognitions_at_once: u16,
    /// `store.data_dir`: voices are unpacked below it.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// The program with the `speech-helper` command; `None`: this one.
    #[serde(skip)]
    pub helper: Option<PathBuf>,
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
        }
    }
}

/// The engines there are.
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

/// Who understands speech.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RecogniserName {
    /// An OpenAI-compatible HTTP endpoint.
    Transcribe,
    /// A server that speaks Vosk's WebSocket protocol.
    WebSocket,
    /// The `pocketsphinx_continuous` program.
    Pocketsphinx,
    /// Nobody: speech counts as no input.
    None,
}

/// An OpenAI-compatible `/v1/audio/transcriptions`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranscribeConfig {
    /// The base (`https://api.openai.com/v1`) or the endpoint itself (`…/audio/transcriptions`).
    pub url: String,
    /// Sent as a bearer token, if set.
    #[serde(default, deserialize_with = "secret")]
    pub api_key: Option<Secret>,
    #[serde(default = "transcribe_model")]
    pub model: String,
    /// By `speechModel` of the document (`default`, `command_and_search`, `phone_call`): the endpoint's model.
    #[serde(default)]
    pub models: BTreeMap<String, String>,
    /// `verbose_json` tells how sure the model is; some models have only `json`.
    #[serde(default)]
    pub format: TranscriptFormat,
    /// Where interim results are wanted: what was said so far is sent again after so long; 0: never.
    #[serde(default = "interim_ms")]
    pub interim_ms: u64,
    /// One request.
    #[serde(default = "recognise_timeout_ms")]
    pub timeout_ms: u64,
}

/// What the endpoint is asked to answer with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TranscriptFormat {
    #[default]
    VerboseJson,
    Json,
}

/// A server that speaks Vosk's WebSocket protocol.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebSocketConfig {
    /// `ws://` or `wss://`: for every language that `languages` has no entry for. Absent: those alone.
    pub url: Option<String>,
    /// By language (`hi-IN`, `hi`): its server.
    #[serde(default)]
    pub languages: BTreeMap<String, String>,
    /// Sent as a bearer token, if set.
    #[serde(default, deserialize_with = "secret")]
    pub api_key: Option<Secret>,
    /// From the end of the speech to the last result.
    #[serde(default = "recognise_timeout_ms")]
    pub timeout_ms: u64,
}

/// An OpenAI-compatible `/v1/audio/speech`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenAiConfig {
    /// The base (`https://api.openai.com/v1`) or the endpoint itself (`…/audio/speech`).
    pub url: String,
    /// Sent as a bearer token, if set.
    #[serde(default, deserialize_with = "secret")]
    pub api_key: Option<Secret>,
    #[serde(default = "model")]
    pub model: String,
    /// For whatever `voices` has no entry for.
    #[serde(default = "voice")]
    pub voice: String,
    /// By `WOMAN`, `MAN`, a Polly name without prefix, or a language (`hi-IN`, `hi`): the provider's voice.
    #[serde(default)]
    pub voices: BTreeMap<String, String>,
    /// `wav`, or `pcm` (16 bit, mono, `pcm_rate`).
    #[serde(default)]
    pub format: ResponseFormat,
    /// Samples a second of `pcm`.
    #[serde(default = "pcm_rate")]
    pub pcm_rate: u32,
    /// One prompt, from the request to the last sample.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

/// What the endpoint is asked to answer with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResponseFormat {
    #[default]
    Wav,
    Pcm,
}

fn model() -> String {
    "gpt-4o-mini-tts".to_owned()
}

fn voice() -> String {
    "alloy".to_owned()
}

fn pcm_rate() -> u32 {
    24_000
}

fn timeout_ms() -> u64 {
    30_000
}

fn transcribe_model() -> String {
    "whisper-1".to_owned()
}

fn interim_ms() -> u64 {
    1_000
}

fn recognise_timeout_ms() -> u64 {
    10_000
}

impl SpeechConfig {
    /// `[speech]` as the configuration's reader hands it over.
    ///
    /// # Errors
    /// Unknown keys and wrong values, in words that name the key.
    pub fn from_table(table: toml::Table) -> Result<Self, toml::de::Error> {
        let config: Self = table.try_into()?;
        let wrong = |what: &str| Err(serde::de::Error::custom(what));
        if config.provider == ProviderName::OpenAi && config.openai.is_none() {
            return wrong("provider = \"openai\" needs [speech.openai] with its url");
        }
        match config.recogniser {
            Some(RecogniserName::Transcribe) if config.transcribe.is_none() => {
                wrong("recogniser = \"transcribe\" needs [speech.transcribe] with its url")
            }
            Some(RecogniserName::WebSocket) if config.websocket.is_none() => {
                wrong("recogniser = \"websocket\" needs [speech.websocket] with its url")
            }
            _ if config
                .websocket
                .as_ref()
                .is_some_and(|w| w.url.is_none() && w.languages.is_empty()) =>
            {
                wrong("[speech.websocket] needs a url, or languages with theirs")
            }
            _ if config.recognitions_at_once == 0 => {
                wrong("recognitions_at_once = 0: nobody would ever be understood")
            }
            Some(_) | None => Ok(config),
        }
    }
}

/// The three forms of a secret (`interface.md` §2); a variable or file that isn't there is an absent key.
#[derive(Deserialize)]
#[serde(untagged, expecting = "text, { env = \"NAME\" } or { file = \"PATH\" }")]
enum SecretForm {
    Text(String),
    Env { env: String },
    File { file: PathBuf },
}

fn secret<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Secret>, D::Error> {
    let text = match Option::<SecretForm>::deserialize(d)? {
        None => None,
        Some(SecretForm::Text(text)) => Some(text),
        Some(SecretForm::Env { env }) => std::env::var(env).ok(),
        Some(SecretForm::File { file }) => match std::fs::read_to_string(&file) {
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
    Ok(text.map(Secret::new))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{ProviderName, ResponseFormat, SpeechConfig};

    #[test]
    fn nothing_set_is_the_embedded_voice() {
        let config: SpeechConfig = toml::from_str("").unwrap();
        assert_eq!(config.provider, ProviderName::Builtin);
        assert!(config.openai.is_none());
    }

    #[test]
    fn an_endpoint_is_read_and_its_key_not_shown() {
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
    fn unknown_keys_and_an_endpoint_without_address_are_refused() {
        for (text, word) in [
            ("color = 1", "color"),
            ("provider = \"flite\"", "flite"),
            ("provider = \"openai\"", "[speech.openai]"),
            ("[openai]\nurl = \"x\"\nsecret = \"y\"", "secret"),
            ("[openai]\nurl = \"x\"\napi_key = 5", "env"),
            ("[openai]\nmodel = \"x\"", "url"),
            ("recogniser = \"whisper\"", "whisper"),
            ("recogniser = \"transcribe\"", "[speech.transcribe]"),
            ("recogniser = \"websocket\"", "[speech.websocket]"),
            ("[websocket]\ntimeout_ms = 1", "[speech.websocket]"),
            ("[transcribe]\nmodel = \"x\"", "url"),
            ("recognitions_at_once = 0", "recognitions_at_once"),
        ] {
            let error = SpeechConfig::from_table(text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_comes_from_a_file_or_is_absent() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"canary\n").unwrap();
        for (path, key) in [
            (file.path().display().to_string(), Some("canary")),
            ("/nowhere/at/all".to_owned(), None),
        ] {
            let text = format!("[openai]\nurl = \"x\"\napi_key = {{ file = \"{path}\" }}");
            let config = SpeechConfig::from_table(text.parse().unwrap()).unwrap();
            assert_eq!(config.openai.unwrap().api_key.as_ref().map(|k| k.reveal()), key);
        }
    }
}
