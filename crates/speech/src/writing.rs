//! In which writing a text is, and which language to take for a writing that a voice cannot read.
//!
//! A voice of English passes over Devanagari as if nothing stood there. Documents often have text in a writing that their
//! `language` does not say (Polly's `Aditi` speaks Hindi and English), so that such a stretch is said in a language of
//! its writing. Latin letters are left to every voice: those of other writings know them.

use super::language::{Speaker, primary};
use super::script::{Run, Say};

/// Changes of writing in one text: each may be a process. What comes after is said by the voice that speaks last.
const CHANGES_MAX: usize = 64;

/// A writing other than Latin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Writing {
    /// For logs.
    pub(super) name: &'static str,
    /// Code points (Unicode's blocks).
    ranges: &'static [(u32, u32)],
    /// Primary subtags of languages that are written so; the first with a region is spoken where nothing else is said.
    languages: &'static [&'static str],
}

const fn writing(
    name: &'static str,
    ranges: &'static [(u32, u32)],
    languages: &'static [&'static str],
) -> Writing {
    Writing { name, ranges, languages }
}

static WRITINGS: &[Writing] = &[
    writing(
        "Devanagari",
        &[(0x0900, 0x097f), (0xa8e0, 0xa8ff)],
        &["hi-IN", "hi", "mr", "ne", "kok", "sa"],
    ),
    writing(
        "Arabic",
        &[(0x0600, 0x06ff), (0x0750, 0x077f), (0xfb50, 0xfdff), (0xfe70, 0xfeff)],
        &["ar", "arb", "fa", "ur", "ps", "sd", "ug", "ku"],
    ),
    writing(
        "Cyrillic",
        &[(0x0400, 0x052f)],
        &[
            "ru-RU", "ru", "uk", "be", "bg", "mk", "sr", "kk", "ky", "tt", "ba", "cv", "mn", "tg",
            "uz", "bs", "az",
        ],
    ),
    writing("Bengali", &[(0x0980, 0x09ff)], &["bn-IN", "bn", "as"]),
    writing("Gurmukhi", &[(0x0a00, 0x0a7f)], &["pa-IN", "pa"]),
    writing("Gujarati", &[(0x0a80, 0x0aff)], &["gu-IN", "gu"]),
    writing("Odia", &[(0x0b00, 0x0b7f)], &["or-IN", "or"]),
    writing("Tamil", &[(0x0b80, 0x0bff)], &["ta-IN", "ta"]),
    writing("Telugu", &[(0x0c00, 0x0c7f)], &["te-IN", "te"]),
    writing("Kannada", &[(0x0c80, 0x0cff)], &["kn-IN", "kn"]),
    writing("Malayalam", &[(0x0d00, 0x0d7f)], &["ml-IN", "ml"]),
    writing("Sinhala", &[(0x0d80, 0x0dff)], &["si-LK", "si"]),
    writing("Thai", &[(0x0e00, 0x0e7f)], &["th-TH", "th"]),
    writing("Burmese", &[(0x1000, 0x109f)], &["my-MM", "my"]),
    writing("Georgian", &[(0x10a0, 0x10ff)], &["ka-GE", "ka"]),
    writing("Ethiopic", &[(0x1200, 0x137f)], &["am-ET", "am"]),
    writing("Greek", &[(0x0370, 0x03ff), (0x1f00, 0x1fff)], &["el-GR", "el"]),
    writing("Armenian", &[(0x0530, 0x058f)], &["hy-AM", "hy"]),
    writing("Hebrew", &[(0x0590, 0x05ff)], &["he-IL", "he", "yi"]),
    writing("kana", &[(0x3040, 0x30ff), (0xff66, 0xff9d)], &["ja-JP", "ja"]),
    writing("Hangul", &[(0x1100, 0x11ff), (0x3130, 0x318f), (0xac00, 0xd7af)], &["ko-KR", "ko"]),
    writing(
        "Chinese characters",
        &[(0x3400, 0x4dbf), (0x4e00, 0x9fff), (0x20000, 0x2ffff)],
        &["zh-CN", "zh", "cmn", "yue", "ja", "ko"],
    ),
];

impl Writing {
    /// The writing of a letter; none: Latin, or no letter.
    fn of(letter: char) -> Option<&'static Self> {
        // Most text is below all of them.
        let code = u32::from(letter);
        let has = |writing: &&Self| {
            writing.ranges.iter().any(|(first, last)| (*first..=*last).contains(&code))
        };
        if code < 0x0370 { None } else { WRITINGS.iter().find(has) }
    }

    fn is_of(&self, language: &str) -> bool {
        let primary = primary(language);
        self.languages.iter().any(|known| *known == primary)
    }

    fn language(&self) -> &'static str {
        self.languages.first().copied().unwrap_or("en-US")
    }
}

/// The first letters in `say` that its language is not written with.
pub(super) fn strange(say: &Say) -> Option<&'static Writing> {
    let mut letters = say.runs.iter().flat_map(|run| run.text.chars());
    letters.find_map(|letter| {
        Writing::of(letter).filter(|writing| !writing.is_of(&say.speaker.language))
    })
}

/// The first writing in `say` but Latin.
pub(super) fn of(say: &Say) -> Option<&'static Writing> {
    say.runs.iter().flat_map(|run| run.text.chars()).find_map(Writing::of)
}

/// `say` in pieces, each in a language that is written so. What is no letter stays with what is before it.
pub(super) fn apart(say: Say) -> Vec<Say> {
    if strange(&say).is_none() {
        return vec![say];
    }
    let speaker = say.speaker;
    let mut pieces: Vec<Say> = Vec::new();
    let mut language = speaker.language.clone();
    for run in say.runs {
        let mut text = String::new();
        for letter in run.text.chars() {
            let wanted = match Writing::of(letter) {
                Some(writing) if writing.is_of(&speaker.language) => {
                    Some(speaker.language.as_str())
                }
                Some(writing) if writing.is_of(&language) => None,
                Some(writing) => Some(writing.language()),
                None if letter.is_alphabetic() => Some(speaker.language.as_str()),
                None => None,
            };
            if let Some(wanted) =
                wanted.filter(|wanted| *wanted != language && pieces.len() + 1 < CHANGES_MAX)
            {
                add(&mut pieces, &speaker, &language, std::mem::take(&mut text), run.style);
                wanted.clone_into(&mut language);
            }
            text.push(letter);
        }
        add(&mut pieces, &speaker, &language, text, run.style);
    }
    pieces
}

/// A run of text goes to the piece before it, where that is in the same language.
fn add(
    pieces: &mut Vec<Say>,
    speaker: &Speaker,
    language: &str,
    text: String,
    style: super::script::Style,
) {
    if !text.contains(char::is_alphanumeric) {
        // A piece is not begun for a space; a comma behind one belongs to it.
        if let Some(run) = pieces.last_mut().and_then(|piece| piece.runs.last_mut()) {
            run.text.push_str(&text);
        }
        return;
    }
    let run = Run { text, style };
    match pieces.last_mut().filter(|piece| piece.speaker.language == language) {
        Some(piece) => piece.runs.push(run),
        None => {
            let speaker = Speaker { language: language.to_owned(), ..speaker.clone() };
            pieces.push(Say { speaker, runs: vec![run] });
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{CHANGES_MAX, apart, strange};
    use crate::script::Say;

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
    fn text_is_said_in_a_language_that_is_written_so(
        #[case] language: &str,
        #[case] text: &str,
        #[case] wanted: &[(&str, &str)],
    ) {
        let pieces = apart(Say::in_no_style(language, text));
        let got: Vec<_> = pieces
            .iter()
            .map(|piece| (piece.speaker.language.as_str(), piece.runs[0].text.as_str()))
            .collect();
        assert_eq!(got, wanted);
        assert_eq!(
            strange(&Say::in_no_style(language, text)).is_some(),
            wanted.iter().any(|(said, _)| *said != language)
        );
    }

    #[test]
    fn nothing_is_lost_and_changes_are_bounded() {
        let text = "one एक ".repeat(500);
        let pieces = apart(Say::in_no_style("en-US", &text));
        assert_eq!(pieces.len(), CHANGES_MAX);
        let all: String =
            pieces.iter().flat_map(|piece| &piece.runs).map(|run| run.text.as_str()).collect();
        assert_eq!(all, text);
    }
}
