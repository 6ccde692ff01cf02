//! `[speech]` of the configuration.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use crate::config::Secret;

/// How prompts are made. The default needs nothing installed and nothing set.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpeechConfig {
    /// Who is asked first; where it fails or lacks the language, the others follow.
    pub provider: ProviderName,
    /// Megabytes of ready frames kept in memory.
    pub cache_mb: u32,
    /// An HTTP endpoint; absent: none.
    pub openai: Option<OpenAiConfig>,
    /// The `espeak-ng` program; absent: the one on `PATH`, if any.
    pub espeak: Option<PathBuf>,
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
            openai: None,
            espeak: None,
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

impl SpeechConfig {
    /// `[speech]` as the configuration's reader hands it over.
    ///
    /// # Errors
    /// Unknown keys and wrong values, in words that name the key.
    pub fn from_table(table: toml::Table) -> Result<Self, toml::de::Error> {
        let config: Self = table.try_into()?;
        match config.provider {
            ProviderName::OpenAi if config.openai.is_none() => {
                Err(serde::de::Error::custom("provider = \"openai\" needs [speech.openai] with its url"))
            }
            _ => Ok(config),
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
            Err(e) => return Err(serde::de::Error::custom(format!("could not read {}: {e}", file.display()))),
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
        ] {
            let error = SpeechConfig::from_table(text.parse().unwrap()).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_comes_from_a_file_or_is_absent() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"canary\n").unwrap();
        for (path, key) in [(file.path().display().to_string(), Some("canary")), ("/nowhere/at/all".to_owned(), None)] {
            let text = format!("[openai]\nurl = \"x\"\napi_key = {{ file = \"{path}\" }}");
            let config = SpeechConfig::from_table(text.parse().unwrap()).unwrap();
            assert_eq!(config.openai.unwrap().api_key.as_ref().map(|k| k.reveal()), key);
        }
    }
}
