//! Determines which part of a spoken reply was heard before an interruption.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The duration of a frame.
pub(super) const FRAME: Duration = Duration::from_millis(20);
/// The estimated duration of a character, at about 150 words a minute.
const CHARACTER_MS: u128 = 70;

/// The sentences of a streamed reply with their times.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Playback(Vec<Sentence>);

#[derive(Debug, Serialize, Deserialize)]
struct Sentence {
    text: String,
    begins: Duration,
    /// End of the sentence. `None` while it is still being synthesized.
    ends: Option<Duration>,
}

impl Playback {
    pub(super) fn begin(&mut self, begins: Duration, text: String) {
        self.0.push(Sentence { text, begins, ends: None });
    }

    pub(super) fn end(&mut self, ends: Duration) {
        if let Some(sentence) = self.0.last_mut() {
            sentence.ends = Some(ends);
        }
    }

    /// The text that was played until `cut`.
    pub(super) fn spoken_until(&self, cut: Duration) -> String {
        let begun = self.0.iter().filter(|sentence| sentence.begins < cut);
        let texts: Vec<String> = begun
            .map(|sentence| match sentence.ends {
                Some(ends) if ends <= cut => sentence.text.trim().to_owned(),
                Some(ends) => part(
                    &sentence.text,
                    cut - sentence.begins,
                    ends.saturating_sub(sentence.begins),
                ),
                None => estimate_spoken(&sentence.text, cut - sentence.begins),
            })
            .collect();
        texts.join(" ").trim().to_owned()
    }
}

/// The part of `text` that is spoken within `time`, estimated by its length.
pub(super) fn estimate_spoken(text: &str, time: Duration) -> String {
    let whole = u64::try_from(CHARACTER_MS * characters_of(text)).unwrap_or(u64::MAX);
    part(text, time, Duration::from_millis(whole))
}

fn characters_of(text: &str) -> u128 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX).into()
}

/// The words of `text` that begin within `time`, if the text takes `whole`. An ellipsis marks
/// missing words.
fn part(text: &str, time: Duration, whole: Duration) -> String {
    if time >= whole {
        return text.trim().to_owned();
    }
    let characters = characters_of(text) * time.as_millis() / whole.as_millis().max(1);
    let mut spoken = 0;
    let mut end = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        // At least the first word has begun when the caller interrupts.
        if spoken > 0 && spoken >= characters {
            break;
        }
        spoken += characters_of(word);
        end += word.len();
    }
    match text.get(..end).map(str::trim).unwrap_or_default() {
        "" => String::new(),
        spoken if end >= text.trim_end().len() => spoken.to_owned(),
        spoken if spoken.ends_with(char::is_alphanumeric) => format!("{spoken}\u{2026}"),
        spoken => format!("{spoken} \u{2026}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Playback, estimate_spoken};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn cuts_sentences_at_the_interruption() {
        let mut playback = Playback::default();
        playback.begin(ms(0), "One moment. ".to_owned());
        playback.end(ms(1_000));
        playback.begin(ms(1_000), "I am looking for it now.".to_owned());
        playback.end(ms(3_000));
        playback.begin(ms(3_000), "Here it is".to_owned());
        for (at, expected) in [
            (0, ""),
            (300, "One\u{2026}"),
            (500, "One moment."),
            (600, "One moment."),
            (1_000, "One moment."),
            (2_000, "One moment. I am looking\u{2026}"),
            (3_000, "One moment. I am looking for it now."),
            (3_100, "One moment. I am looking for it now. Here\u{2026}"),
            (9_000, "One moment. I am looking for it now. Here it is"),
        ] {
            assert_eq!(playback.spoken_until(ms(at)), expected, "{at}");
        }
    }

    #[test]
    fn estimates_speech_by_length() {
        assert_eq!(estimate_spoken("Good day to you.", ms(60_000)), "Good day to you.");
        assert_eq!(estimate_spoken("Good day to you.", ms(300)), "Good\u{2026}");
        assert_eq!(
            estimate_spoken("\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947} \u{926}\u{941}", ms(1)),
            "\u{928}\u{92e}\u{938}\u{94d}\u{924}\u{947}\u{2026}"
        );
        assert_eq!(estimate_spoken("", ms(5)), "");
    }
}
