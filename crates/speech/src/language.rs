//! Which language a prompt is spoken in: of Polly names, of BCP 47 tags, and which embedded voice is nearest.

use xml::CLASSIC_LANGUAGES;
use xml::ast::Voice;

/// A voice inside the binary: one a language (`media-notes` §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Embedded {
    EnUs,
    EnGb,
    DeDe,
    EsEs,
    FrFr,
    ItIt,
}

impl Embedded {
    /// All of them; the position is the number in the helper's protocol.
    pub const ALL: [Self; 6] =
        [Self::EnUs, Self::EnGb, Self::DeDe, Self::EsEs, Self::FrFr, Self::ItIt];

    /// The BCP 47 tag.
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

    /// Its two files: text analysis, signal generation.
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

    /// The one for `tag`: the same language, `None` where no embedded voice speaks it.
    pub fn for_language(tag: &str) -> Option<Self> {
        match primary(tag).as_str() {
            // Of the English regions these speak like the United States, the others are nearer to Britain.
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

    /// The nearest one to `tag`: its language, then `en-US` (`plivo-xml.md` §5.2).
    pub fn nearest(tag: &str) -> Self {
        Self::for_language(tag).unwrap_or(Self::EnUs)
    }
}

/// The language itself, without script and region, in lower case.
pub fn primary(tag: &str) -> String {
    tag.split('-').next().unwrap_or_default().to_ascii_lowercase()
}

fn region(tag: &str) -> Option<String> {
    let part = tag
        .split('-')
        .skip(1)
        .find(|part| part.len() == 2 || part.chars().all(|c| c.is_ascii_digit()))?;
    Some(part.to_ascii_lowercase())
}

/// How a document's `voice` and `language` sound.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Speaker {
    /// BCP 47, as written where the document says one.
    pub language: String,
    /// A man's voice.
    pub man: bool,
    /// The Polly name that was asked for, without `-Neural`.
    pub polly: Option<String>,
}

impl Speaker {
    /// `language` wins; without it a Polly voice has its own, everything else is `en-US`.
    pub fn of(voice: &Voice, language: Option<&str>) -> Self {
        let name = match voice {
            Voice::Woman | Voice::Man => None,
            Voice::Polly(name) => name.split('-').next(),
        };
        let (own, man) = name.and_then(polly).unwrap_or(("en-US", *voice == Voice::Man));
        Self { language: language.unwrap_or(own).to_owned(), man, polly: name.map(str::to_owned) }
    }
}

/// Whether a document's Polly name is one of the table's.
pub fn knows_polly(name: &str) -> bool {
    name.split('-').next().and_then(polly).is_some()
}

/// The Polly voices of the table, by name.
pub(super) fn polly_names() -> Vec<&'static str> {
    let mut names: Vec<_> =
        POLLY_WOMEN.iter().chain(POLLY_MEN).flat_map(|(_, names)| names.split(' ')).collect();
    names.sort_unstable();
    names
}

/// Languages that are listed: Plivo's for `WOMAN` and `MAN`, those of the Polly voices and of India, and with `espeak` all
/// that it speaks. Others are taken as well, and said in the nearest voice.
pub(super) fn known(espeak: bool) -> Vec<String> {
    let polly = POLLY_WOMEN.iter().chain(POLLY_MEN).map(|(language, _)| *language);
    let indian =
        ["bn-IN", "gu-IN", "hi-IN", "kn-IN", "ml-IN", "mr-IN", "pa-IN", "ta-IN", "te-IN", "ur-IN"];
    let mut known: Vec<String> =
        CLASSIC_LANGUAGES.iter().copied().chain(polly).chain(indian).map(str::to_owned).collect();
    if espeak {
        known.extend(super::espeak::languages().map(str::to_owned));
    }
    known.sort_unstable();
    known.dedup();
    known
}

/// Language of a Polly voice and whether it is a man's.
fn polly(name: &str) -> Option<(&'static str, bool)> {
    let find = |of: &[(&'static str, &str)]| {
        of.iter()
            .find(|(_, names)| names.split(' ').any(|n| n == name))
            .map(|(language, _)| *language)
    };
    find(POLLY_WOMEN)
        .map(|language| (language, false))
        .or_else(|| find(POLLY_MEN).map(|language| (language, true)))
}

// Amazon Polly's list of voices, as far as they are in common use.
const POLLY_WOMEN: &[(&str, &str)] = &[
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

const POLLY_MEN: &[(&str, &str)] = &[
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

    use super::{Embedded, Speaker};
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
    fn a_tag_has_its_embedded_voice(#[case] tag: &str, #[case] voice: Option<&str>) {
        assert_eq!(Embedded::for_language(tag).map(Embedded::tag), voice);
        assert_eq!(Embedded::nearest(tag).tag(), voice.unwrap_or("en-US"));
    }

    #[test]
    fn polly_names_are_known_by_their_name_alone() {
        assert!(super::knows_polly("Joanna-Neural") && super::knows_polly("Hans"));
        assert!(!super::knows_polly("Nobody") && !super::knows_polly(""));
    }

    #[rstest]
    #[case(Voice::Woman, None, "en-US", false)]
    #[case(Voice::Man, Some("de-DE"), "de-DE", true)]
    #[case(Voice::Polly("Joanna-Neural".into()), None, "en-US", false)]
    #[case(Voice::Polly("Hans".into()), None, "de-DE", true)]
    #[case(Voice::Polly("Aditi".into()), None, "en-IN", false)]
    #[case(Voice::Polly("Aditi".into()), Some("hi-IN"), "hi-IN", false)]
    #[case(Voice::Polly("Nobody".into()), None, "en-US", false)]
    fn a_voice_has_a_language(
        #[case] voice: Voice,
        #[case] language: Option<&str>,
        #[case] spoken: &str,
        #[case] man: bool,
    ) {
        let speaker = Speaker::of(&voice, language);
        assert_eq!((speaker.language.as_str(), speaker.man), (spoken, man));
    }
}
