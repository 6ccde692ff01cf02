//! The languages and voices that documents may name, and who says them here: what `offhook voices` and `GET
//! /api/v1/voices/` list. Follows the order in which the library asks its engines; nothing is asked.

use serde::Serialize;
use utoipa::ToSchema;

use super::config::{ProviderName, SpeechConfig};
use super::espeak::{self, Espeak};
use super::language::{self, Embedded, Speaker, primary};
use super::openai;
use super::provider::Provider as _;
use xml::ast::{SsmlTag, Voice};

/// Every voice in every language that it speaks.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Voices)]
pub struct Catalogue {
    /// The languages of WOMAN and MAN.
    pub languages: Vec<Spoken>,
    pub voices: Vec<Entry>,
}

/// A language, and who speaks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SpokenLanguage)]
pub struct Spoken {
    /// BCP 47.
    pub language: String,
    /// `builtin`, `espeak` or `openai`.
    pub engine: &'static str,
    /// Whether the engine has this language, or says it in the nearest voice that it has.
    pub exact: bool,
}

/// A voice of documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DocumentVoice)]
pub struct Entry {
    /// As `voice` of a document names it: `WOMAN`, `MAN`, `Polly.…`.
    pub voice: String,
    /// What it speaks where the document says no `language`.
    pub language: String,
    /// `female` or `male`.
    pub gender: &'static str,
    pub engine: &'static str,
    /// The engine's own voice. The embedded engine has one a language, a woman's; a man's is the same one lower.
    pub engine_voice: String,
    /// As of [`Spoken::exact`].
    pub exact: bool,
}

/// An engine that may be asked, in the order of the library.
enum Engine<'a> {
    Builtin,
    Espeak(Espeak),
    OpenAi(&'a super::config::OpenAiConfig),
}

impl Engine<'_> {
    fn name(&self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Espeak(_) => "espeak",
            Self::OpenAi(_) => "openai",
        }
    }

    /// Its voice for this speaker; none: it does not know the language.
    fn voice(&self, speaker: &Speaker) -> Option<String> {
        match self {
            Self::Builtin => {
                Embedded::for_language(&speaker.language).map(|voice| voice.tag().to_owned())
            }
            Self::Espeak(espeak) => {
                espeak.speaks(&speaker.language).then(|| espeak::voice_of(speaker))
            }
            Self::OpenAi(config) => Some(openai::voice_of(config, speaker).to_owned()),
        }
    }
}

/// The engines in the order in which they are asked.
fn engines<'a>(
    config: &'a SpeechConfig,
    espeak: Option<Espeak>,
) -> Vec<(ProviderName, Engine<'a>)> {
    let mut engines = vec![(ProviderName::Builtin, Engine::Builtin)];
    engines.extend(espeak.map(|espeak| (ProviderName::Espeak, Engine::Espeak(espeak))));
    engines
        .extend(config.openai.iter().map(|openai| (ProviderName::OpenAi, Engine::OpenAi(openai))));
    engines.sort_by_key(|(name, _)| *name != config.provider);
    engines
}

/// Whether whoever says this voice in this language does what an SSML tag asks for (`plivo-xml.md` §5.2). What acts on
/// words and pauses is made here, whoever speaks.
pub fn says(config: &SpeechConfig, voice: &Voice, language: Option<&str>, tag: SsmlTag) -> bool {
    let path = std::env::var_os("PATH");
    let engines = engines(config, Espeak::find(config.espeak.as_deref(), path.as_deref()));
    let speaker = Speaker::of(voice, language);
    let engine = engines.iter().find(|(_, engine)| engine.voice(&speaker).is_some());
    match tag {
        SsmlTag::Phoneme | SsmlTag::W => false,
        // It has a speed for the whole text, no pitch and no volume.
        SsmlTag::Emphasis | SsmlTag::Prosody => !matches!(engine, Some((ProviderName::OpenAi, _))),
        SsmlTag::Lang | SsmlTag::P | SsmlTag::S | SsmlTag::SayAs | SsmlTag::Sub => true,
    }
}

impl Catalogue {
    /// What `config` says, with the engines found on this machine.
    pub fn of(config: &SpeechConfig) -> Self {
        let path = std::env::var_os("PATH");
        Self::with(config, Espeak::find(config.espeak.as_deref(), path.as_deref()))
    }

    fn with(config: &SpeechConfig, espeak: Option<Espeak>) -> Self {
        let engines = engines(config, espeak);
        let said_by = |speaker: &Speaker| {
            let found = engines
                .iter()
                .find_map(|(_, engine)| Some((engine.name(), engine.voice(speaker)?, true)));
            found.unwrap_or_else(|| {
                ("builtin", Embedded::nearest(&speaker.language).tag().to_owned(), false)
            })
        };
        let entry = |voice: String, speaker: &Speaker| {
            let (engine, engine_voice, exact) = said_by(speaker);
            let gender = if speaker.man { "male" } else { "female" };
            Entry { voice, language: speaker.language.clone(), gender, engine, engine_voice, exact }
        };
        let has_espeak = engines.iter().any(|(name, _)| *name == ProviderName::Espeak);
        let (mut languages, mut voices) = (Vec::new(), Vec::new());
        for language in language::known(has_espeak) {
            for (name, voice) in [("WOMAN", Voice::Woman), ("MAN", Voice::Man)] {
                voices.push(entry(name.to_owned(), &Speaker::of(&voice, Some(&language))));
            }
            let (engine, _, exact) = said_by(&Speaker::of(&Voice::Woman, Some(&language)));
            languages.push(Spoken { language, engine, exact });
        }
        for name in language::polly_names() {
            voices.push(entry(
                format!("Polly.{name}"),
                &Speaker::of(&Voice::Polly(name.to_owned()), None),
            ));
        }
        Self { languages, voices }
    }

    /// Only what speaks `language`: a whole tag (`en-GB`), or a language whatever the region (`en`).
    pub fn of_language(mut self, language: &str) -> Self {
        let fits = |tag: &str| match language.contains('-') {
            true => tag.eq_ignore_ascii_case(language),
            false => primary(tag) == primary(language),
        };
        self.languages.retain(|spoken| fits(&spoken.language));
        self.voices.retain(|entry| fits(&entry.language));
        self
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Catalogue, Entry};
    use crate::config::SpeechConfig;
    use crate::espeak::Espeak;

    fn config(text: &str) -> SpeechConfig {
        SpeechConfig::from_table(text.parse().unwrap()).unwrap()
    }

    fn find<'a>(all: &'a Catalogue, voice: &str, language: &str) -> &'a Entry {
        let found =
            all.voices.iter().find(|entry| entry.voice == voice && entry.language == language);
        found.unwrap_or_else(|| panic!("no {voice} in {language}"))
    }

    #[test]
    fn every_voice_has_who_says_it() {
        let all = Catalogue::with(&config(""), None);
        let joanna = find(&all, "Polly.Joanna", "en-US");
        assert_eq!(
            (joanna.gender, joanna.engine, joanna.engine_voice.as_str(), joanna.exact),
            ("female", "builtin", "en-US", true)
        );
        assert_eq!(find(&all, "MAN", "fr-CA").engine_voice, "fr-FR");
        let russian = find(&all, "WOMAN", "ru-RU");
        assert_eq!(
            (russian.engine_voice.as_str(), russian.exact),
            ("en-US", false),
            "the nearest there is"
        );
        let languages: Vec<_> =
            all.languages.iter().map(|spoken| spoken.language.as_str()).collect();
        assert!(
            languages.is_sorted() && languages.contains(&"hi-IN") && languages.len() > 30,
            "{languages:?}"
        );
    }

    #[test]
    fn engines_follow_the_configuration() {
        let espeak = || Espeak::find(Some(Path::new("/nowhere/espeak-ng")), None);
        let russian = |all: &Catalogue| find(all, "Polly.Tatyana", "ru-RU").clone();
        let with_espeak = Catalogue::with(&config(""), espeak());
        assert_eq!(
            (russian(&with_espeak).engine, russian(&with_espeak).engine_voice),
            ("espeak", "ru+f3".to_owned())
        );
        let text =
            "provider = \"openai\"\n[openai]\nurl = \"http://x\"\nvoices = { Tatyana = \"nova\" }";
        let openai = Catalogue::with(&config(text), espeak());
        assert_eq!(
            (russian(&openai).engine, russian(&openai).engine_voice),
            ("openai", "nova".to_owned())
        );
        assert_eq!(find(&openai, "WOMAN", "en-US").engine_voice, "alloy");
    }

    #[test]
    fn a_language_is_looked_for_with_and_without_its_region() {
        let all = || Catalogue::with(&config(""), None);
        let british = all().of_language("en-gb");
        assert_eq!(british.languages.len(), 1);
        assert!(
            british.voices.iter().all(|entry| entry.language == "en-GB")
                && british.voices.len() > 4
        );
        assert!(all().of_language("EN").languages.len() > 4);
        assert!(all().of_language("tlh").voices.is_empty());
    }
}
