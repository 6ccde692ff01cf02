//! Converts a segment of a script to Pico's markup.
//!
//! Pico's markup cannot escape `<`, and has tags that read and *write files* (`<genfile>`,
//! `<play>`, `<usesig>`), so no `<` of the text may reach it. Signs are replaced with words, and
//! very long words are split because the tokeniser's buffers are small.

use std::fmt::Write as _;

use super::language::EmbeddedVoice;
use super::script::{Segment, Style};

/// Factor of the pitch for a male voice. Pico has only one female voice per language.
const MALE_PITCH: f32 = 0.7;
/// Volume for 100 %. At its own 100 %, Pico clips (1 % of samples at full scale) and is 10 dB
/// louder than people on telephones. The right volume is 45 %. Louder text would clip, so Pico
/// speaks more quietly by the factor [`GAIN`], and the limiter amplifies its output.
const NORMAL_VOLUME: f32 = 0.45 / GAIN;
/// Gain applied to Pico's output.
pub(super) const GAIN: f32 = 2.5;
/// Maximum volume in per cent at which Pico never clips.
const VOLUME_MAX: u16 = 80;
/// Largest number of characters in a word before it is split.
const WORD_CHARS_MAX: usize = 40;

/// Returns the Pico markup for a segment.
pub(super) fn pico_markup(segment: &Segment, voice: EmbeddedVoice) -> String {
    let mut markup = String::new();
    let mut last_levels = None;
    for run in &segment.runs {
        let levels = Levels::new(run.style, segment.speaker.male);
        if last_levels != Some(levels) {
            let Levels { speed, pitch, volume } = levels;
            // Levels are absolute and apply until the next tag. Every prompt starts with its own
            // levels, so that no end tags are needed.
            let _ = write!(
                markup,
                "<speed level=\"{speed}\"><pitch level=\"{pitch}\"><volume level=\"{volume}\">"
            );
            last_levels = Some(levels);
        }
        push_words(&mut markup, &run.text, voice);
    }
    markup
}

/// Pico's levels in per cent, within its limits (`picotok.c`).
#[derive(Clone, Copy, PartialEq)]
struct Levels {
    speed: u16,
    pitch: u16,
    volume: u16,
}

impl Levels {
    fn new(style: Style, male: bool) -> Self {
        let pitch = if male { style.pitch * MALE_PITCH } else { style.pitch };
        let volume = style.volume * NORMAL_VOLUME;
        Self {
            speed: level(style.rate, 20, 500),
            pitch: level(pitch, 50, 200),
            volume: level(volume, 0, VOLUME_MAX),
        }
    }
}

fn level(percent: f32, min: u16, max: u16) -> u16 {
    // `as` saturates and converts NaN to 0.
    (percent.round() as u16).clamp(min, max)
}

fn push_words(markup: &mut String, text: &str, voice: EmbeddedVoice) {
    let mut length = 0;
    for c in text.chars() {
        if let Some(word) = word_for_sign(c, voice) {
            let _ = write!(markup, " {word} ");
            length = 0;
            continue;
        }
        length = if c == ' ' { 0 } else { length + 1 };
        if length > WORD_CHARS_MAX {
            markup.push(' ');
            length = 1;
        }
        markup.push(if c.is_control() { ' ' } else { c });
    }
}

/// Returns the word for a sign that Pico's markup cannot contain. `None` for other characters.
fn word_for_sign(c: char, voice: EmbeddedVoice) -> Option<&'static str> {
    let [less, greater, and] = match voice {
        EmbeddedVoice::EnUs | EmbeddedVoice::EnGb => ["less than", "greater than", "and"],
        EmbeddedVoice::DeDe => ["kleiner als", "größer als", "und"],
        EmbeddedVoice::EsEs => ["menor que", "mayor que", "y"],
        EmbeddedVoice::FrFr => ["inférieur à", "supérieur à", "et"],
        EmbeddedVoice::ItIt => ["minore di", "maggiore di", "e"],
    };
    match c {
        '<' => Some(less),
        '>' => Some(greater),
        '&' => Some(and),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::pico_markup;
    use crate::language::{EmbeddedVoice, Speaker};
    use crate::script::{Part, Run, Script, Segment, Style};
    use xml::ast::{Speech, SpeechNode};

    const NORMAL: &str = "<speed level=\"100\"><pitch level=\"100\"><volume level=\"18\">";

    fn segment(text: &str, style: Style, male: bool) -> Segment {
        Segment {
            speaker: Speaker { language: "en-US".to_owned(), male, polly: None },
            runs: vec![Run { text: text.to_owned(), style }],
        }
    }

    #[rstest]
    #[case("a < b > c & d", "a  less than  b  greater than  c  and  d")]
    #[case("<genfile file=\"x\">", " less than genfile file=\"x\" greater than ")]
    #[case("&lt;play&gt;", " and lt;play and gt;")]
    #[case("a\u{0}b\u{7}c", "a b c")]
    fn signs_and_control_characters_are_replaced(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(
            pico_markup(&segment(text, Style::default(), false), EmbeddedVoice::EnUs),
            format!("{NORMAL}{expected}")
        );
    }

    #[test]
    fn signs_are_spoken_in_the_language_of_the_voice() {
        assert!(
            pico_markup(&segment("1 < 2", Style::default(), false), EmbeddedVoice::DeDe)
                .ends_with("1  kleiner als  2")
        );
    }

    #[test]
    fn long_words_are_split() {
        let markup =
            pico_markup(&segment(&"x".repeat(1_000), Style::default(), false), EmbeddedVoice::EnUs);
        assert!(
            markup.strip_prefix(NORMAL).unwrap().split(' ').all(|word| word.len() <= 40),
            "{markup}"
        );
    }

    #[test]
    fn a_male_voice_is_lower_and_levels_stay_within_limits() {
        let style = Style { rate: 1_000.0, pitch: 60.0, volume: 2_000.0 };
        let markup = pico_markup(&segment("x", style, true), EmbeddedVoice::EnUs);
        assert_eq!(markup, "<speed level=\"500\"><pitch level=\"50\"><volume level=\"80\">x");
        let markup = pico_markup(&segment("x", Style::default(), true), EmbeddedVoice::EnUs);
        assert_eq!(markup, "<speed level=\"100\"><pitch level=\"70\"><volume level=\"18\">x");
    }

    proptest! {
        /// The only tags in the markup are those written by this module.
        #[test]
        fn no_tag_from_the_text_reaches_pico(text in "\\PC*|[<>&\u{0}-\u{1f}a-z/\"=]*") {
            let speech = Speech(vec![SpeechNode::Text(text)]);
            let script = Script::new(&speech, &Speaker { language: "en-US".to_owned(), male: false, polly: None });
            for part in &script.0 {
                let Part::Speech(segment) = part else { continue };
                let markup = pico_markup(segment, EmbeddedVoice::EnUs);
                let words = markup.strip_prefix(NORMAL).unwrap();
                prop_assert!(!words.contains(['<', '>', '&', '\0']), "{words}");
            }
        }
    }
}
