//! The languages and voices that documents may use and the engine that speaks each, as listed by
//! `offhook voices` and `GET /api/v1/voices/`. Engines are considered in the library's order; no
//! engine is contacted.

use serde::Serialize;
use utoipa::ToSchema;

use super::config::{ProviderName, SpeechConfig};
use super::espeak::{self, Espeak};
use super::kokoro;
use super::kokoro_provider;
use super::language::{self, EmbeddedVoice, Speaker, primary};
use super::models::ModelStore;
use super::openai;
use super::provider::Provider as _;
use xml::ast::{SsmlTag, Voice};

/// All voices and languages.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Voices)]
pub struct Catalogue {
    /// The languages of `WOMAN` and `MAN`.
    pub languages: Vec<SpokenLanguage>,
    pub voices: Vec<DocumentVoice>,
}

/// A language and the engine that speaks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SpokenLanguage {
    /// A BCP 47 tag.
    pub language: String,
    /// `neural`, `builtin`, `espeak` or `openai`.
    pub engine: &'static str,
    /// Whether the engine supports this language. Otherwise it is spoken by the nearest voice.
    pub exact: bool,
}

/// A voice that documents can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DocumentVoice {
    /// The value of `voice` in a document: `WOMAN`, `MAN`, `Polly.…`.
    pub voice: String,
    /// The language used if the document sets no `language`.
    pub language: String,
    /// The gender of the voice: `female` or `male`.
    pub gender: &'static str,
    pub engine: &'static str,
    /// The engine's own voice. The embedded engine has one female voice per language and lowers its
    /// pitch for a male one.
    pub engine_voice: String,
    /// See [`SpokenLanguage::exact`].
    pub exact: bool,
}

/// An available engine.
enum Engine<'a> {
    /// The neural voice for English with this name.
    Neural(String),
    /// The neural voices for these languages.
    Kokoro(Vec<kokoro::Language>),
    Builtin,
    Espeak(Espeak),
    OpenAi(&'a super::config::OpenAiConfig),
}

impl Engine<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Neural(_) | Self::Kokoro(_) => "neural",
            Self::Builtin => "builtin",
            Self::Espeak(_) => "espeak",
            Self::OpenAi(_) => "openai",
        }
    }

    /// Returns the engine's voice for a speaker, or `None` if the engine does not support the
    /// language.
    fn voice(&self, speaker: &Speaker) -> Option<String> {
        match self {
            Self::Neural(name) => (primary(&speaker.language) == "en").then(|| name.clone()),
            Self::Kokoro(languages) => {
                kokoro_provider::voice_name(languages, speaker).map(str::to_owned)
            }
            Self::Builtin => {
                EmbeddedVoice::for_language(&speaker.language).map(|voice| voice.tag().to_owned())
            }
            Self::Espeak(espeak) => {
                espeak.can_speak(&speaker.language).then(|| espeak::voice_for(speaker))
            }
            Self::OpenAi(config) => Some(openai::voice_for(config, speaker).to_owned()),
        }
    }
}

/// Returns the engines in the order in which the library tries them.
fn engines<'a>(
    config: &'a SpeechConfig,
    espeak: Option<Espeak>,
) -> Vec<(ProviderName, Engine<'a>)> {
    let models = ModelStore::new(&config.data_dir);
    let mut engines: Vec<_> = models
        .english_voice()
        .map(|voice| Engine::Neural(voice.name))
        .into_iter()
        .chain(models.multilingual_voice().map(|v| Engine::Kokoro(v.kokoro_languages())))
        .chain([Engine::Builtin])
        .map(|engine| (ProviderName::Builtin, engine))
        .collect();
    engines.extend(espeak.map(|espeak| (ProviderName::Espeak, Engine::Espeak(espeak))));
    engines
        .extend(config.openai.iter().map(|openai| (ProviderName::OpenAi, Engine::OpenAi(openai))));
    engines.sort_by_key(|(name, _)| *name != config.provider);
    engines
}

/// Returns `true` if the engine that speaks this voice and language supports an SSML tag
/// (`docs/reference/xml.md#ssml`). Tags that affect words and pauses are handled before synthesis
/// and work with every engine.
pub fn supports_tag(
    config: &SpeechConfig,
    voice: &Voice,
    language: Option<&str>,
    tag: SsmlTag,
) -> bool {
    let path = std::env::var_os("PATH");
    let engines = engines(config, Espeak::find(config.espeak.as_deref(), path.as_deref()));
    let speaker = Speaker::new(voice, language);
    let engine = engines.iter().find(|(_, engine)| engine.voice(&speaker).is_some());
    match tag {
        SsmlTag::Phoneme | SsmlTag::W => false,
        // The endpoint has one speed for the whole text, and supports neither pitch nor volume.
        SsmlTag::Emphasis | SsmlTag::Prosody => !matches!(engine, Some((ProviderName::OpenAi, _))),
        SsmlTag::Lang | SsmlTag::P | SsmlTag::S | SsmlTag::SayAs | SsmlTag::Sub => true,
    }
}

impl Catalogue {
    /// Lists the voices of `config` with the engines found on this machine.
    pub fn new(config: &SpeechConfig) -> Self {
        let path = std::env::var_os("PATH");
        Self::with_espeak(config, Espeak::find(config.espeak.as_deref(), path.as_deref()))
    }

    fn with_espeak(config: &SpeechConfig, espeak: Option<Espeak>) -> Self {
        let engines = engines(config, espeak);
        let spoken_by = |speaker: &Speaker| {
            let found = engines
                .iter()
                .find_map(|(_, engine)| Some((engine.name(), engine.voice(speaker)?, true)));
            found.unwrap_or_else(|| {
                ("builtin", EmbeddedVoice::nearest(&speaker.language).tag().to_owned(), false)
            })
        };
        let entry = |voice: String, speaker: &Speaker| {
            let (engine, engine_voice, exact) = spoken_by(speaker);
            let gender = if speaker.male { "male" } else { "female" };
            DocumentVoice {
                voice,
                language: speaker.language.clone(),
                gender,
                engine,
                engine_voice,
                exact,
            }
        };
        let has_espeak = engines.iter().any(|(name, _)| *name == ProviderName::Espeak);
        let (mut languages, mut voices) = (Vec::new(), Vec::new());
        let further = has_espeak.then(espeak::languages).into_iter().flatten();
        for language in language::listed_languages(further) {
            for (name, voice) in [("WOMAN", Voice::Woman), ("MAN", Voice::Man)] {
                voices.push(entry(name.to_owned(), &Speaker::new(&voice, Some(&language))));
            }
            let (engine, _, exact) = spoken_by(&Speaker::new(&Voice::Woman, Some(&language)));
            languages.push(SpokenLanguage { language, engine, exact });
        }
        for name in language::polly_names() {
            let further = language::further_languages(name).iter().copied().map(Some);
            for language in std::iter::once(None).chain(further) {
                let speaker = Speaker::new(&Voice::Polly(name.to_owned()), language);
                voices.push(entry(format!("Polly.{name}"), &speaker));
            }
        }
        // The nearest voice cannot read other scripts: it would be silent.
        languages.retain(|spoken| spoken.exact || !language::has_other_script(&spoken.language));
        voices.retain(|entry| entry.exact || !language::has_other_script(&entry.language));
        Self { languages, voices }
    }

    /// Keeps the entries of a language, given as a full tag (`en-GB`) or without region (`en`).
    pub fn filter_language(mut self, language: &str) -> Self {
        let matches = |tag: &str| match language.contains('-') {
            true => tag.eq_ignore_ascii_case(language),
            false => primary(tag) == primary(language),
        };
        self.languages.retain(|spoken| matches(&spoken.language));
        self.voices.retain(|entry| matches(&entry.language));
        self
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Catalogue, DocumentVoice};
    use crate::config::SpeechConfig;
    use crate::espeak::Espeak;

    fn config(text: &str) -> SpeechConfig {
        SpeechConfig::from_table(text.parse().unwrap()).unwrap()
    }

    fn find<'a>(all: &'a Catalogue, voice: &str, language: &str) -> &'a DocumentVoice {
        let found =
            all.voices.iter().find(|entry| entry.voice == voice && entry.language == language);
        found.unwrap_or_else(|| panic!("no {voice} in {language}"))
    }

    #[test]
    fn polly_voices_are_listed_in_each_of_their_languages() {
        let espeak = Espeak::find(Some(Path::new("/nowhere/espeak-ng")), None);
        let all = Catalogue::with_espeak(&config(""), espeak);
        for language in ["en-IN", "hi-IN"] {
            find(&all, "Polly.Aditi", language);
        }
        let hindi = all.filter_language("hi");
        assert!(hindi.voices.iter().all(|entry| entry.language.starts_with("hi")));
        find(&hindi, "Polly.Kajal", "hi-IN");
    }

    #[test]
    fn every_voice_has_an_engine() {
        let all = Catalogue::with_espeak(&config(""), None);
        let joanna = find(&all, "Polly.Joanna", "en-US");
        assert_eq!(
            (joanna.gender, joanna.engine, joanna.engine_voice.as_str(), joanna.exact),
            ("female", "builtin", "en-US", true)
        );
        assert_eq!(find(&all, "MAN", "fr-CA").engine_voice, "fr-FR");
        let polish = find(&all, "WOMAN", "pl-PL");
        assert_eq!(
            (polish.engine_voice.as_str(), polish.exact),
            ("en-US", false),
            "the nearest voice"
        );
        let languages: Vec<_> =
            all.languages.iter().map(|spoken| spoken.language.as_str()).collect();
        assert!(
            languages.is_sorted() && languages.contains(&"en-IN") && languages.len() > 20,
            "{languages:?}"
        );
    }

    #[test]
    fn a_language_that_no_engine_can_read_is_not_listed() {
        assert!(Catalogue::with_espeak(&config(""), None).filter_language("hi").voices.is_empty());
        let espeak = Espeak::find(Some(Path::new("/nowhere/espeak-ng")), None);
        let voices = Catalogue::with_espeak(&config(""), espeak).filter_language("hi").voices;
        assert!(!voices.is_empty() && voices.iter().all(|voice| voice.engine == "espeak"));
    }

    #[test]
    fn an_installed_voice_speaks_its_languages_before_espeak() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("models/kokoro");
        std::fs::create_dir_all(&folder).unwrap();
        let catalogue = |voices: &[&str]| {
            let list = voices.iter().map(|voice| {
                std::fs::write(folder.join(format!("{voice}.bin")), "").unwrap();
                format!(r#"{{"name":"{voice}.bin","bytes":0,"sha256":""}}"#)
            });
            let files = list.collect::<Vec<_>>().join(",");
            // The kind is that of earlier versions.
            let manifest = format!(
                r#"{{"name":"kokoro","version":"1.0","kind":"hindi_voice","licence":"","bytes":0,
                "sha256":"","files":[{files}]}}"#
            );
            std::fs::write(folder.join("manifest.json"), manifest).unwrap();
            let config = SpeechConfig { data_dir: dir.path().to_owned(), ..config("") };
            let espeak = Espeak::find(Some(Path::new("/nowhere/espeak-ng")), None);
            Catalogue::with_espeak(&config, espeak)
        };
        let all = catalogue(&["hf_alpha", "hf_beta", "hm_omega", "pf_dora", "pm_alex"]);
        for (voice, language, spoken_by) in [
            ("WOMAN", "hi-IN", "hf_alpha"),
            ("MAN", "hi-IN", "hm_omega"),
            ("WOMAN", "pt-BR", "pf_dora"),
            ("MAN", "pt-BR", "pm_alex"),
            ("WOMAN", "pt-PT", "pf_dora"),
            ("Polly.Camila", "pt-BR", "pf_dora"),
            ("Polly.Thiago", "pt-BR", "pm_alex"),
        ] {
            let entry = find(&all, voice, language);
            assert_eq!((entry.engine, entry.engine_voice.as_str()), ("neural", spoken_by));
        }
        assert_eq!(find(&all, "WOMAN", "mr-IN").engine, "espeak");
        assert_eq!(find(&all, "WOMAN", "en-US").engine, "builtin");
        // An earlier version installed the voices for Hindi only.
        let hindi = catalogue(&["hf_alpha", "hf_beta", "hm_omega"]);
        assert_eq!(find(&hindi, "WOMAN", "hi-IN").engine, "neural");
        assert_eq!(find(&hindi, "WOMAN", "pt-BR").engine, "espeak");
    }

    #[test]
    fn engines_follow_the_configuration_order() {
        let espeak = || Espeak::find(Some(Path::new("/nowhere/espeak-ng")), None);
        let russian = |all: &Catalogue| find(all, "Polly.Tatyana", "ru-RU").clone();
        let with_espeak = Catalogue::with_espeak(&config(""), espeak());
        assert_eq!(
            (russian(&with_espeak).engine, russian(&with_espeak).engine_voice),
            ("espeak", "ru+f3".to_owned())
        );
        let text =
            "provider = \"openai\"\n[openai]\nurl = \"http://x\"\nvoices = { Tatyana = \"nova\" }";
        let openai = Catalogue::with_espeak(&config(text), espeak());
        assert_eq!(
            (russian(&openai).engine, russian(&openai).engine_voice),
            ("openai", "nova".to_owned())
        );
        assert_eq!(find(&openai, "WOMAN", "en-US").engine_voice, "alloy");
    }

    #[test]
    fn languages_match_with_and_without_region() {
        let all = || Catalogue::with_espeak(&config(""), None);
        let british = all().filter_language("en-gb");
        assert_eq!(british.languages.len(), 1);
        assert!(
            british.voices.iter().all(|entry| entry.language == "en-GB")
                && british.voices.len() > 4
        );
        assert!(all().filter_language("EN").languages.len() > 4);
        assert!(all().filter_language("tlh").voices.is_empty());
    }
}
