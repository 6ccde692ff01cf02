//! Estimates the duration of a prompt without synthesising or fetching it. This module has no I/O.

use super::event::PromptPiece;
use machine::{Sound, SoundItem};
use xml::ast::{Repeat, Speech, SpeechNode, Voice};

/// Synthesised speech has about 15 characters per second.
const CHARACTER_MS: u64 = 65;
/// Assumed duration of a file.
const FILE_MS: u64 = 5_000;
/// DTMF: 160 ms tone, 80 ms pause (`docs/reference/media.md#dtmf-sent`).
const TONE_MS: u64 = 160 + PAUSE_MS;
const PAUSE_MS: u64 = 80;

/// The duration of a playlist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length {
    /// Duration until an endless item has been played once.
    pub(super) once_ms: u64,
    pub(super) endless: bool,
}

/// Returns the pieces of a playlist and its duration. Items after an endless one are never heard
/// and are omitted.
pub(super) fn of(items: &[SoundItem]) -> (Vec<PromptPiece>, Length) {
    let mut pieces = Vec::new();
    let mut once_ms: u64 = 0;
    for SoundItem { sound, repeat } in items {
        let times = match repeat {
            Repeat::Times(times) => *times,
            Repeat::Endless => 0,
        };
        let (piece, ms) = one(sound, times);
        pieces.push(piece);
        once_ms = once_ms.saturating_add(ms.saturating_mul(u64::from(times.max(1))));
        if times == 0 {
            return (pieces, Length { once_ms, endless: true });
        }
    }
    (pieces, Length { once_ms, endless: false })
}

fn one(sound: &Sound, times: u16) -> (PromptPiece, u64) {
    match sound {
        Sound::Speak { speech, voice, language } => {
            let voice = match voice {
                Voice::Woman => "WOMAN".to_owned(),
                Voice::Man => "MAN".to_owned(),
                Voice::Polly(name) => format!("Polly.{name}"),
            };
            let piece = PromptPiece::Speak {
                text: speech.text(),
                voice,
                language: language.clone(),
                times,
            };
            (piece, spoken_ms(speech))
        }
        Sound::File { url } => (PromptPiece::Play { url: url.0.to_string(), times }, FILE_MS),
        Sound::Silence { ms } => {
            let ms = u64::from(*ms);
            (PromptPiece::Silence { ms: ms.saturating_mul(u64::from(times.max(1))) }, ms)
        }
        Sound::Tone { ms, .. } => {
            let ms = u64::from(*ms);
            (PromptPiece::Tone { ms }, ms)
        }
    }
}

fn spoken_ms(speech: &Speech) -> u64 {
    speech.0.iter().fold(0, |sum: u64, node| {
        sum.saturating_add(match node {
            SpeechNode::Text(text) => {
                u64::try_from(text.chars().count()).unwrap_or(0) * CHARACTER_MS
            }
            SpeechNode::Break { millis } => u64::from(*millis),
            SpeechNode::Tag { content, .. } => spoken_ms(content),
        })
    })
}

/// Duration of digits as sent by `DTMF`: `w` waits 0.5 s, `W` 1 s, and the part after `@` is the
/// duration of a tone in milliseconds.
pub(super) fn of_tones(digits: &str) -> u64 {
    let (digits, on_ms) = digits.split_once('@').unwrap_or((digits, ""));
    let tone_ms = on_ms.parse::<u64>().map_or(TONE_MS, |on_ms| on_ms.saturating_add(PAUSE_MS));
    digits
        .chars()
        .map(|c| match c {
            'w' => 500,
            'W' => 1_000,
            _ => tone_ms,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::{Length, of, of_tones};
    use machine::{Sound, SoundItem};
    use xml::ast::{DocUrl, Repeat};

    #[test]
    fn lengths_add_up() {
        let silence =
            |times| SoundItem { sound: Sound::Silence { ms: 1_000 }, repeat: Repeat::Times(times) };
        let file = |repeat| SoundItem {
            sound: Sound::File { url: DocUrl("https://a.example/".into()) },
            repeat,
        };
        assert_eq!(of(&[]).1, Length { once_ms: 0, endless: false });
        assert_eq!(
            of(&[silence(3), file(Repeat::Times(2))]).1,
            Length { once_ms: 13_000, endless: false }
        );
        let (pieces, length) = of(&[silence(1), file(Repeat::Endless), silence(9)]);
        assert_eq!((pieces.len(), length), (2, Length { once_ms: 6_000, endless: true }));
        assert_eq!(of_tones("1w2W#"), 3 * 240 + 500 + 1_000);
    }
}
