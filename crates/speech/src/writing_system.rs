//! Detects writing systems and splits text by them.
//!
//! An English voice skips Devanagari silently. Documents often contain text in a writing system
//! that does not match their `language` (Polly's `Aditi` speaks both Hindi and English). Such text
//! is spoken in a language of its writing system. Latin letters are left to the document's voice,
//! because voices of other writing systems read them too.

use super::language::{Speaker, primary};
use super::script::{Run, Segment};

/// Maximum number of segments of one text, because each may start a process. The voice of the last
/// segment speaks the rest of the text.
const SEGMENTS_MAX: usize = 64;

/// A writing system other than Latin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WritingSystem {
    /// The name used in logs.
    pub(super) name: &'static str,
    /// Code point ranges of its Unicode blocks.
    ranges: &'static [(u32, u32)],
    /// The languages that use it, as primary subtags. The first entry is the default language and
    /// has a region.
    languages: &'static [&'static str],
}

const fn writing_system(
    name: &'static str,
    ranges: &'static [(u32, u32)],
    languages: &'static [&'static str],
) -> WritingSystem {
    WritingSystem { name, ranges, languages }
}

static WRITING_SYSTEMS: &[WritingSystem] = &[
    writing_system(
        "Devanagari",
        &[(0x0900, 0x097f), (0xa8e0, 0xa8ff)],
        &["hi-IN", "hi", "mr", "ne", "kok", "sa"],
    ),
    writing_system(
        "Arabic",
        &[(0x0600, 0x06ff), (0x0750, 0x077f), (0xfb50, 0xfdff), (0xfe70, 0xfeff)],
        &["ar", "arb", "fa", "ur", "ps", "sd", "ug", "ku"],
    ),
    writing_system(
        "Cyrillic",
        &[(0x0400, 0x052f)],
        &[
            "ru-RU", "ru", "uk", "be", "bg", "mk", "sr", "kk", "ky", "tt", "ba", "cv", "mn", "tg",
            "uz", "bs", "az",
        ],
    ),
    writing_system("Bengali", &[(0x0980, 0x09ff)], &["bn-IN", "bn", "as"]),
    writing_system("Gurmukhi", &[(0x0a00, 0x0a7f)], &["pa-IN", "pa"]),
    writing_system("Gujarati", &[(0x0a80, 0x0aff)], &["gu-IN", "gu"]),
    writing_system("Odia", &[(0x0b00, 0x0b7f)], &["or-IN", "or"]),
    writing_system("Tamil", &[(0x0b80, 0x0bff)], &["ta-IN", "ta"]),
    writing_system("Telugu", &[(0x0c00, 0x0c7f)], &["te-IN", "te"]),
    writing_system("Kannada", &[(0x0c80, 0x0cff)], &["kn-IN", "kn"]),
    writing_system("Malayalam", &[(0x0d00, 0x0d7f)], &["ml-IN", "ml"]),
    writing_system("Sinhala", &[(0x0d80, 0x0dff)], &["si-LK", "si"]),
    writing_system("Thai", &[(0x0e00, 0x0e7f)], &["th-TH", "th"]),
    writing_system("Burmese", &[(0x1000, 0x109f)], &["my-MM", "my"]),
    writing_system("Georgian", &[(0x10a0, 0x10ff)], &["ka-GE", "ka"]),
    writing_system("Ethiopic", &[(0x1200, 0x137f)], &["am-ET", "am"]),
    writing_system("Greek", &[(0x0370, 0x03ff), (0x1f00, 0x1fff)], &["el-GR", "el"]),
    writing_system("Armenian", &[(0x0530, 0x058f)], &["hy-AM", "hy"]),
    writing_system("Hebrew", &[(0x0590, 0x05ff)], &["he-IL", "he", "yi"]),
    writing_system("kana", &[(0x3040, 0x30ff), (0xff66, 0xff9d)], &["ja-JP", "ja"]),
    writing_system(
        "Hangul",
        &[(0x1100, 0x11ff), (0x3130, 0x318f), (0xac00, 0xd7af)],
        &["ko-KR", "ko"],
    ),
    writing_system(
        "Chinese characters",
        &[(0x3400, 0x4dbf), (0x4e00, 0x9fff), (0x20000, 0x2ffff)],
        &["zh-CN", "zh", "cmn", "yue", "ja", "ko"],
    ),
];

impl WritingSystem {
    /// Returns the writing system of a letter, or `None` for Latin letters and other characters.
    fn of_letter(letter: char) -> Option<&'static Self> {
        // Most text is below all ranges.
        let code = u32::from(letter);
        let has = |writing: &&Self| {
            writing.ranges.iter().any(|(first, last)| (*first..=*last).contains(&code))
        };
        if code < 0x0370 { None } else { WRITING_SYSTEMS.iter().find(has) }
    }

    fn is_used_by(&self, language: &str) -> bool {
        let primary = primary(language);
        self.languages.iter().any(|known| *known == primary)
    }

    fn default_language(&self) -> &'static str {
        self.languages.first().copied().unwrap_or("en-US")
    }
}

/// Returns the first writing system in a segment that its language does not use, or `None` if there
/// is none.
pub(super) fn find_unsupported(segment: &Segment) -> Option<&'static WritingSystem> {
    let mut letters = segment.runs.iter().flat_map(|run| run.text.chars());
    letters.find_map(|letter| {
        WritingSystem::of_letter(letter)
            .filter(|writing| !writing.is_used_by(&segment.speaker.language))
    })
}

/// Returns the first writing system other than Latin in a segment, or `None` if there is none.
pub(super) fn find_first(segment: &Segment) -> Option<&'static WritingSystem> {
    segment.runs.iter().flat_map(|run| run.text.chars()).find_map(WritingSystem::of_letter)
}

/// Splits a segment into segments with languages that use the respective writing system. Characters
/// that are not letters stay with the preceding text.
pub(super) fn split(segment: Segment) -> Vec<Segment> {
    if find_unsupported(&segment).is_none() {
        return vec![segment];
    }
    let speaker = segment.speaker;
    let mut segments: Vec<Segment> = Vec::new();
    let mut language = speaker.language.clone();
    for run in segment.runs {
        let mut text = String::new();
        for letter in run.text.chars() {
            let target = match WritingSystem::of_letter(letter) {
                Some(writing) if writing.is_used_by(&speaker.language) => {
                    Some(speaker.language.as_str())
                }
                Some(writing) if writing.is_used_by(&language) => None,
                Some(writing) => Some(writing.default_language()),
                None if letter.is_alphabetic() => Some(speaker.language.as_str()),
                None => None,
            };
            if let Some(target) =
                target.filter(|target| *target != language && segments.len() + 1 < SEGMENTS_MAX)
            {
                push_run(&mut segments, &speaker, &language, std::mem::take(&mut text), run.style);
                target.clone_into(&mut language);
            }
            text.push(letter);
        }
        push_run(&mut segments, &speaker, &language, text, run.style);
    }
    segments
}

/// Splits a segment: words in Latin letters become English segments, and the rest stays in the
/// segment's language. So do abbreviations in capitals, because the voice of that language spells
/// them.
pub(super) fn split_latin(segment: Segment) -> Vec<Segment> {
    let is_english = |word: &str| {
        let letters = word.bytes().filter(u8::is_ascii_alphabetic).count();
        letters > 1
            && word.bytes().any(|b| b.is_ascii_lowercase())
            && word.chars().all(|c| WritingSystem::of_letter(c).is_none())
    };
    let speaker = segment.speaker;
    let mut segments: Vec<Segment> = Vec::new();
    for run in segment.runs {
        let mut parts: Vec<(bool, String)> = Vec::new();
        for word in run.text.split_inclusive(' ') {
            let english = is_english(word);
            let is_full = parts.len() + segments.len() >= SEGMENTS_MAX;
            match parts.last_mut() {
                // Numbers and signs stay with the preceding words.
                Some((last, text))
                    if is_full || *last == english || !word.contains(char::is_alphabetic) =>
                {
                    text.push_str(word);
                }
                _ => parts.push((english, word.to_owned())),
            }
        }
        for (english, text) in parts {
            let language = if english { "en-IN" } else { speaker.language.as_str() };
            push_run(&mut segments, &speaker, language, text, run.style);
        }
    }
    segments
}

/// Appends a run to the last segment if that has the same language, otherwise starts a new one.
fn push_run(
    segments: &mut Vec<Segment>,
    speaker: &Speaker,
    language: &str,
    text: String,
    style: super::script::Style,
) {
    if !text.contains(char::is_alphanumeric) {
        // Spaces and punctuation start no segment and are added to the previous one.
        if let Some(run) = segments.last_mut().and_then(|segment| segment.runs.last_mut()) {
            run.text.push_str(&text);
        }
        return;
    }
    let run = Run { text, style };
    match segments.last_mut().filter(|segment| segment.speaker.language == language) {
        Some(segment) => segment.runs.push(run),
        None => {
            let speaker = Speaker { language: language.to_owned(), ..speaker.clone() };
            segments.push(Segment { speaker, runs: vec![run] });
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{SEGMENTS_MAX, find_unsupported, split, split_latin};
    use crate::script::Segment;

    #[rstest]
    #[case("en-US", "Press 1, please.", &[("en-US", "Press 1, please.")])]
    #[case("en-US", "नमस्ते दुनिया", &[("hi-IN", "नमस्ते दुनिया")])]
    #[case("en-US", "Hello नमस्ते, 12 world", &[("en-US", "Hello "), ("hi-IN", "नमस्ते, 12 "), ("en-US", "world")])]
    #[case("mr-IN", "नमस्कार Anita", &[("mr-IN", "नमस्कार Anita")])]
    #[case("ja-JP", "東京タワー", &[("ja-JP", "東京タワー")])]
    #[case("de-DE", "Москва und 北京", &[("ru-RU", "Москва "), ("de-DE", "und "), ("zh-CN", "北京")])]
    #[case("hi-IN", "नमस्ते தமிழ் फिर", &[("hi-IN", "नमस्ते "), ("ta-IN", "தமிழ் "), ("hi-IN", "फिर")])]
    #[case("ur-PK", "سلام", &[("ur-PK", "سلام")])]
    #[case("fr-FR", "« 12 »", &[("fr-FR", "« 12 »")])]
    fn text_is_split_by_writing_system(
        #[case] language: &str,
        #[case] text: &str,
        #[case] expected: &[(&str, &str)],
    ) {
        let segments = split(Segment::unstyled(language, text));
        let got: Vec<_> = segments
            .iter()
            .map(|segment| (segment.speaker.language.as_str(), segment.runs[0].text.as_str()))
            .collect();
        assert_eq!(got, expected);
        assert_eq!(
            find_unsupported(&Segment::unstyled(language, text)).is_some(),
            expected.iter().any(|(spoken, _)| *spoken != language)
        );
    }

    #[test]
    fn no_text_is_lost_and_the_number_of_segments_is_limited() {
        let text = "one एक ".repeat(500);
        let segments = split(Segment::unstyled("en-US", &text));
        assert_eq!(segments.len(), SEGMENTS_MAX);
        let all: String = segments
            .iter()
            .flat_map(|segment| &segment.runs)
            .map(|run| run.text.as_str())
            .collect();
        assert_eq!(all, text);
    }

    #[rstest]
    #[case("आपका order आ गया", &[("hi-IN", "आपका "), ("en-IN", "order "), ("hi-IN", "आ गया")])]
    #[case("Amazon Pay से 5 लें", &[("en-IN", "Amazon Pay "), ("hi-IN", "से 5 लें")])]
    #[case("OTP 12 A है", &[("hi-IN", "OTP 12 A है")])]
    #[case("नमस्ते।", &[("hi-IN", "नमस्ते।")])]
    fn words_in_latin_letters_are_split_off(#[case] text: &str, #[case] expected: &[(&str, &str)]) {
        let segments = split_latin(Segment::unstyled("hi-IN", text));
        let found: Vec<(&str, &str)> = segments
            .iter()
            .map(|segment| (segment.speaker.language.as_str(), segment.runs[0].text.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_number_of_english_segments_is_limited() {
        let text = "hello नमस्ते ".repeat(500);
        let segments = split_latin(Segment::unstyled("hi-IN", &text));
        assert_eq!(segments.len(), SEGMENTS_MAX);
        let spoken: String = segments.iter().map(|s| s.runs[0].text.as_str()).collect();
        assert_eq!(spoken, text);
    }
}
