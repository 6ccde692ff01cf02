//! A script's text as Pico reads it.
//!
//! Pico's markup has no way to escape a `<`, and knows tags that read and *write files* (`<genfile>`, `<play>`,
//! `<usesig>`): of the caller's text not one `<` may arrive. Signs become words, and words longer than any
//! language has are broken up, for the tokeniser's buffers are small and old.

use std::fmt::Write as _;

use super::language::Embedded;
use super::script::{Say, Style};

/// Pico has one voice a language, a woman's; a man's is the same one lower (`media-notes` §9).
const MAN_PITCH: f32 = 0.7;
/// At its own 100 per cent Pico clips (one sample in a hundred at full scale) and is 10 dB louder than people on
/// telephones: 45 is right. What is loud may be more, and Pico would clip it: so it says all of it softer, by [`GAIN`], and
/// whoever hears it brings it up (`limiter`).
const USUAL_VOLUME: f32 = 0.45 / GAIN;
/// How much louder what Pico says is to be.
pub(super) const GAIN: f32 = 2.5;
/// Its volume where it never clips, per cent.
const VOLUME_MAX: u16 = 80;
/// Characters of a word that pass in one piece.
const WORD_MAX: usize = 40;

/// What Pico is given for `say`.
pub(super) fn pico(say: &Say, voice: Embedded) -> String {
    let mut markup = String::new();
    let mut level_of_last = None;
    for run in &say.runs {
        let levels = Levels::of(run.style, say.speaker.man);
        if level_of_last != Some(levels) {
            let Levels { speed, pitch, volume } = levels;
            // Absolute values and no end tags: each holds until the next, and every prompt begins with its own.
            let _ = write!(
                markup,
                "<speed level=\"{speed}\"><pitch level=\"{pitch}\"><volume level=\"{volume}\">"
            );
            level_of_last = Some(levels);
        }
        push_words(&mut markup, &run.text, voice);
    }
    markup
}

/// Pico's levels, per cent, within what it takes (`picotok.c`).
#[derive(Clone, Copy, PartialEq)]
struct Levels {
    speed: u16,
    pitch: u16,
    volume: u16,
}

impl Levels {
    fn of(style: Style, man: bool) -> Self {
        let pitch = if man { style.pitch * MAN_PITCH } else { style.pitch };
        let volume = style.volume * USUAL_VOLUME;
        Self {
            speed: level(style.rate, 20, 500),
            pitch: level(pitch, 50, 200),
            volume: level(volume, 0, VOLUME_MAX),
        }
    }
}

fn level(percent: f32, least: u16, most: u16) -> u16 {
    // `as` saturates and takes NaN for 0.
    (percent.round() as u16).clamp(least, most)
}

fn push_words(markup: &mut String, text: &str, voice: Embedded) {
    let mut length = 0;
    for c in text.chars() {
        if let Some(word) = spoken_sign(c, voice) {
            let _ = write!(markup, " {word} ");
            length = 0;
            continue;
        }
        length = if c == ' ' { 0 } else { length + 1 };
        if length > WORD_MAX {
            markup.push(' ');
            length = 1;
        }
        markup.push(if c.is_control() { ' ' } else { c });
    }
}

/// Signs that may not pass as they are, as words.
fn spoken_sign(c: char, voice: Embedded) -> Option<&'static str> {
    let [less, greater, and] = match voice {
        Embedded::EnUs | Embedded::EnGb => ["less than", "greater than", "and"],
        Embedded::DeDe => ["kleiner als", "größer als", "und"],
        Embedded::EsEs => ["menor que", "mayor que", "y"],
        Embedded::FrFr => ["inférieur à", "supérieur à", "et"],
        Embedded::ItIt => ["minore di", "maggiore di", "e"],
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

    use super::pico;
    use crate::language::{Embedded, Speaker};
    use crate::script::{Part, Run, Say, Script, Style};
    use xml::ast::{Speech, SpeechNode};

    const USUAL: &str = "<speed level=\"100\"><pitch level=\"100\"><volume level=\"18\">";

    fn say(text: &str, style: Style, man: bool) -> Say {
        Say {
            speaker: Speaker { language: "en-US".to_owned(), man, polly: None },
            runs: vec![Run { text: text.to_owned(), style }],
        }
    }

    #[rstest]
    #[case("a < b > c & d", "a  less than  b  greater than  c  and  d")]
    #[case("<genfile file=\"x\">", " less than genfile file=\"x\" greater than ")]
    #[case("&lt;play&gt;", " and lt;play and gt;")]
    #[case("a\u{0}b\u{7}c", "a b c")]
    fn strange_signs_become_words(#[case] text: &str, #[case] passed: &str) {
        assert_eq!(
            pico(&say(text, Style::default(), false), Embedded::EnUs),
            format!("{USUAL}{passed}")
        );
    }

    #[test]
    fn signs_are_named_in_the_voices_language() {
        assert!(
            pico(&say("1 < 2", Style::default(), false), Embedded::DeDe)
                .ends_with("1  kleiner als  2")
        );
    }

    #[test]
    fn endless_words_are_broken_up() {
        let markup = pico(&say(&"x".repeat(1_000), Style::default(), false), Embedded::EnUs);
        assert!(
            markup.strip_prefix(USUAL).unwrap().split(' ').all(|word| word.len() <= 40),
            "{markup}"
        );
    }

    #[test]
    fn a_man_is_lower_and_values_stay_within_picos_limits() {
        let style = Style { rate: 1_000.0, pitch: 60.0, volume: 2_000.0 };
        let markup = pico(&say("x", style, true), Embedded::EnUs);
        assert_eq!(markup, "<speed level=\"500\"><pitch level=\"50\"><volume level=\"80\">x");
        let markup = pico(&say("x", Style::default(), true), Embedded::EnUs);
        assert_eq!(markup, "<speed level=\"100\"><pitch level=\"70\"><volume level=\"18\">x");
    }

    proptest! {
        /// Whatever the text, the only tags are ours.
        #[test]
        fn no_tag_but_ours_arrives(text in "\\PC*|[<>&\u{0}-\u{1f}a-z/\"=]*") {
            let speech = Speech(vec![SpeechNode::Text(text)]);
            let script = Script::of(&speech, &Speaker { language: "en-US".to_owned(), man: false, polly: None });
            for part in &script.0 {
                let Part::Say(say) = part else { continue };
                let markup = pico(say, Embedded::EnUs);
                let words = markup.strip_prefix(USUAL).unwrap();
                prop_assert!(!words.contains(['<', '>', '&', '\0']), "{words}");
            }
        }
    }
}
