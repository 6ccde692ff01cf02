//! Maps voices and languages of documents to the speaker of a prompt and to embedded voices.

use xml::CLASSIC_LANGUAGES;
use xml::ast::Voice;

/// A voice embedded in the binary. There is one per language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EmbeddedVoice {
    EnUs,
    EnGb,
    DeDe,
    EsEs,
    FrFr,
    ItIt,
}

impl EmbeddedVoice {
    /// All embedded voices. The index identifies a voice in the helper protocol.
    pub const ALL: [Self; 6] =
        [Self::EnUs, Self::EnGb, Self::DeDe, Self::EsEs, Self::FrFr, Self::ItIt];

    /// Returns the voice's language as a BCP 47 tag.
    pub fn tag(self) -> &'static str {
        match self {
            Self::EnUs => "en-US",
            Self::EnGb => "en-GB",
            Self::DeDe => "de-DE",
            Self::EsEs => "es-ES",
            Self::FrFr => "fr-FR",
            Self::ItIt => "it-IT",
        }
    }

    /// Returns the names of the voice's two files: text analysis and signal generation.
    pub fn files(self) -> [&'static str; 2] {
        match self {
            Self::EnUs => ["en-US_ta.bin", "en-US_lh0_sg.bin"],
            Self::EnGb => ["en-GB_ta.bin", "en-GB_kh0_sg.bin"],
            Self::DeDe => ["de-DE_ta.bin", "de-DE_gl0_sg.bin"],
            Self::EsEs => ["es-ES_ta.bin", "es-ES_zl0_sg.bin"],
            Self::FrFr => ["fr-FR_ta.bin", "fr-FR_nk0_sg.bin"],
            Self::ItIt => ["it-IT_ta.bin", "it-IT_cm0_sg.bin"],
        }
    }

    /// Returns the voice for `tag`, or `None` if no embedded voice speaks this language.
    pub fn for_language(tag: &str) -> Option<Self> {
        match primary(tag).as_str() {
            // Canadian and Philippine English are closer to American English, all other regions to
            // British English.
            "en" => match region(tag).as_deref() {
                None | Some("us" | "ca" | "ph") => Some(Self::EnUs),
                Some(_) => Some(Self::EnGb),
            },
            "de" => Some(Self::DeDe),
            "es" => Some(Self::EsEs),
            "fr" => Some(Self::FrFr),
            "it" => Some(Self::ItIt),
            _ => None,
        }
    }

    /// Returns the nearest voice to `tag`: one of its language, otherwise `en-US`.
    pub fn nearest(tag: &str) -> Self {
        Self::for_language(tag).unwrap_or(Self::EnUs)
    }
}

/// Returns the primary language subtag in lower case.
pub fn primary(tag: &str) -> String {
    tag.split('-').next().unwrap_or_default().to_ascii_lowercase()
}

/// Returns `true` if the language is written in a script other than Latin, so that no embedded
/// voice can read it.
pub(super) fn has_other_script(tag: &str) -> bool {
    const LANGUAGES: &str = "am ar arb as ba be bg bn cmn el fa gu he hi hy ja ka kk kn ko kok ky mk ml mr my ne or pa ru \
                             sd si ta te th tt ug uk ur wuu yue zh";
    let primary = primary(tag);
    LANGUAGES.split(' ').any(|language| language == primary)
}

/// Returns the region subtag in lower case, or `None` if there is none.
pub(crate) fn region(tag: &str) -> Option<String> {
    let part = tag
        .split('-')
        .skip(1)
        .find(|part| part.len() == 2 || part.chars().all(|c| c.is_ascii_digit()))?;
    Some(part.to_ascii_lowercase())
}

/// The voice and language of a prompt, from the attributes of a document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Speaker {
    /// A BCP 47 tag, as written in the document.
    pub language: String,
    /// Whether the voice is male.
    pub male: bool,
    /// The requested Polly voice, without a `-Neural` suffix.
    pub polly: Option<String>,
}

impl Speaker {
    /// Creates a speaker. Without `language`, a Polly voice speaks its own language and all others
    /// speak `en-US`.
    pub fn new(voice: &Voice, language: Option<&str>) -> Self {
        let name = match voice {
            Voice::Woman | Voice::Man => None,
            Voice::Polly(name) => name.split('-').next(),
        };
        let (default, male) = name.and_then(polly_voice).unwrap_or(("en-US", *voice == Voice::Man));
        Self {
            language: language.unwrap_or(default).to_owned(),
            male,
            polly: name.map(str::to_owned),
        }
    }
}

/// Returns `true` if a Polly voice is known.
pub fn is_known_polly_voice(name: &str) -> bool {
    name.split('-').next().and_then(polly_voice).is_some()
}

/// Returns the known Polly voices, sorted.
pub(super) fn polly_names() -> Vec<&'static str> {
    let mut names: Vec<_> =
        POLLY_FEMALE.iter().chain(POLLY_MALE).flat_map(|(_, names)| names.split(' ')).collect();
    names.sort_unstable();
    names
}

/// Returns the languages that a Polly voice speaks besides its own.
pub(super) fn further_languages(polly: &str) -> &'static [&'static str] {
    match polly {
        "Aditi" | "Kajal" => &["hi-IN"],
        _ => &[],
    }
}

/// Returns the languages that are listed: Plivo's for `WOMAN` and `MAN`, those of the Polly voices,
/// those of India, and `further` ones. Other languages are accepted too and spoken by the nearest
/// voice.
pub(super) fn listed_languages(further: impl Iterator<Item = &'static str>) -> Vec<String> {
    let polly = POLLY_FEMALE.iter().chain(POLLY_MALE).map(|(language, _)| *language);
    let indian =
        ["bn-IN", "gu-IN", "hi-IN", "kn-IN", "ml-IN", "mr-IN", "pa-IN", "ta-IN", "te-IN", "ur-IN"];
    let listed = CLASSIC_LANGUAGES.iter().copied().chain(polly).chain(indian).chain(further);
    let mut languages: Vec<String> = listed.map(str::to_owned).collect();
    languages.sort_unstable();
    languages.dedup();
    languages
}

/// Returns the language of a Polly voice and whether it is male. `None` if the voice is unknown.
fn polly_voice(name: &str) -> Option<(&'static str, bool)> {
    let find = |voices: &[(&'static str, &str)]| {
        voices
            .iter()
            .find(|(_, names)| names.split(' ').any(|n| n == name))
            .map(|(language, _)| *language)
    };
    find(POLLY_FEMALE)
        .map(|language| (language, false))
        .or_else(|| find(POLLY_MALE).map(|language| (language, true)))
}

// Commonly used voices of Amazon Polly.
const POLLY_FEMALE: &[(&str, &str)] = &[
    ("en-US", "Joanna Kendra Kimberly Salli Ivy Ruth Danielle"),
    ("en-GB", "Amy Emma"),
    ("en-AU", "Nicole Olivia"),
    ("en-IN", "Aditi Raveena Kajal"),
    ("en-IE", "Niamh"),
    ("en-NZ", "Aria"),
    ("en-ZA", "Ayanda"),
    ("en-SG", "Jasmine"),
    ("de-DE", "Marlene Vicki"),
    ("de-AT", "Hannah"),
    ("de-CH", "Sabrina"),
    ("es-ES", "Conchita Lucia Alba"),
    ("es-MX", "Mia"),
    ("es-US", "Lupe Penelope"),
    ("fr-FR", "Celine Lea"),
    ("fr-CA", "Chantal Gabrielle"),
    ("fr-BE", "Isabelle"),
    ("it-IT", "Carla Bianca Beatrice"),
    ("pt-BR", "Camila Vitoria"),
    ("pt-PT", "Ines"),
    ("nl-NL", "Lotte Laura"),
    ("nl-BE", "Lisa"),
    ("da-DK", "Naja Sofie"),
    ("sv-SE", "Astrid Elin"),
    ("nb-NO", "Liv Ida"),
    ("fi-FI", "Suvi"),
    ("is-IS", "Dora"),
    ("pl-PL", "Ewa Maja Ola"),
    ("cs-CZ", "Jitka"),
    ("ro-RO", "Carmen"),
    ("ru-RU", "Tatyana"),
    ("tr-TR", "Filiz Burcu"),
    ("cy-GB", "Gwyneth"),
    ("ca-ES", "Arlet"),
    ("arb", "Zeina"),
    ("ar-AE", "Hala"),
    ("cmn-CN", "Zhiyu"),
    ("yue-CN", "Hiujin"),
    ("ja-JP", "Mizuki Kazuha Tomoko"),
    ("ko-KR", "Seoyeon Jihye"),
];

const POLLY_MALE: &[(&str, &str)] = &[
    ("en-US", "Matthew Joey Justin Kevin Stephen Gregory Patrick"),
    ("en-GB", "Brian Arthur Geraint"),
    ("en-AU", "Russell"),
    ("de-DE", "Hans Daniel"),
    ("es-ES", "Enrique Sergio Raul"),
    ("es-MX", "Andres"),
    ("es-US", "Miguel Pedro"),
    ("fr-FR", "Mathieu Remi"),
    ("fr-CA", "Liam"),
    ("it-IT", "Giorgio Adriano"),
    ("pt-BR", "Ricardo Thiago"),
    ("pt-PT", "Cristiano"),
    ("nl-NL", "Ruben"),
    ("da-DK", "Mads"),
    ("is-IS", "Karl"),
    ("pl-PL", "Jacek Jan"),
    ("ru-RU", "Maxim"),
    ("ar-AE", "Zayd"),
    ("ja-JP", "Takumi"),
];

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{EmbeddedVoice, Speaker};
    use xml::ast::Voice;

    #[rstest]
    #[case("en-US", Some("en-US"))]
    #[case("EN-us", Some("en-US"))]
    #[case("en", Some("en-US"))]
    #[case("en-AU", Some("en-GB"))]
    #[case("en-IN", Some("en-GB"))]
    #[case("de-AT", Some("de-DE"))]
    #[case("es-US", Some("es-ES"))]
    #[case("es-419", Some("es-ES"))]
    #[case("fr-CA", Some("fr-FR"))]
    #[case("it", Some("it-IT"))]
    #[case("hi-IN", None)]
    #[case("zh-Hant-TW", None)]
    #[case("", None)]
    fn language_tags_map_to_embedded_voices(#[case] tag: &str, #[case] voice: Option<&str>) {
        assert_eq!(EmbeddedVoice::for_language(tag).map(EmbeddedVoice::tag), voice);
        assert_eq!(EmbeddedVoice::nearest(tag).tag(), voice.unwrap_or("en-US"));
    }

    #[test]
    fn polly_voices_are_found_with_and_without_engine_suffix() {
        assert!(
            super::is_known_polly_voice("Joanna-Neural") && super::is_known_polly_voice("Hans")
        );
        assert!(!super::is_known_polly_voice("Unknown") && !super::is_known_polly_voice(""));
    }

    #[rstest]
    #[case(Voice::Woman, None, "en-US", false)]
    #[case(Voice::Man, Some("de-DE"), "de-DE", true)]
    #[case(Voice::Polly("Joanna-Neural".into()), None, "en-US", false)]
    #[case(Voice::Polly("Hans".into()), None, "de-DE", true)]
    #[case(Voice::Polly("Aditi".into()), None, "en-IN", false)]
    #[case(Voice::Polly("Aditi".into()), Some("hi-IN"), "hi-IN", false)]
    #[case(Voice::Polly("Unknown".into()), None, "en-US", false)]
    fn voices_have_a_language_and_gender(
        #[case] voice: Voice,
        #[case] language: Option<&str>,
        #[case] spoken: &str,
        #[case] male: bool,
    ) {
        let speaker = Speaker::new(&voice, language);
        assert_eq!((speaker.language.as_str(), speaker.male), (spoken, male));
    }
}
