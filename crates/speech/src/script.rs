//! Converts the text and SSML of a document to a flat script: segments of text with voice, language
//! and style, and pauses between them.
//!
//! Engines support different markup, so a script contains none. Tags that affect sound
//! (`prosody`, `emphasis`) become a [`Style`], tags that affect words (`say-as`, `sub`) become
//! words, and breaks and paragraphs become pauses, which the library generates. An engine may
//! ignore a style, but never text (`docs/reference/xml.md#ssml`).

use super::language::Speaker;
use super::{normalise, say_as};
use xml::ast::{Speech, SpeechNode, SsmlTag};

/// Pause between paragraphs, as long as SSML's `x-strong` break.
const PARAGRAPH_MS: u32 = 1_000;

/// A sequence of speech and pauses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script(pub Vec<Part>);

/// An element of a [`Script`].
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Silence of exactly this length.
    Pause {
        ms: u32,
    },
    Speech(Segment),
}

/// Text in one language, spoken by one voice without inserted pauses.
#[derive(Clone, Debug, PartialEq)]
pub struct Segment {
    pub speaker: Speaker,
    /// The runs, at least one. Each of them contains a letter, digit or sign.
    pub runs: Vec<Run>,
}

impl Segment {
    /// Creates a segment in a female voice with the default style.
    pub(super) fn unstyled(language: &str, text: &str) -> Self {
        Self {
            speaker: Speaker { language: language.to_owned(), male: false, polly: None },
            runs: vec![Run { text: text.to_owned(), style: Style::default() }],
        }
    }
}

/// Text in one style, without control characters and with single spaces.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    pub text: String,
    pub style: Style,
}

/// The style of text, in per cent of the voice's normal rate, pitch and volume.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Style {
    pub rate: f32,
    pub pitch: f32,
    pub volume: f32,
}

impl Default for Style {
    fn default() -> Self {
        Self { rate: 100.0, pitch: 100.0, volume: 100.0 }
    }
}

impl Segment {
    /// Returns the text without styles, for engines without markup.
    pub fn plain(&self) -> String {
        self.runs.iter().map(|run| run.text.as_str()).collect::<String>().trim().to_owned()
    }

    /// Returns the style of the longest run, for engines that support one style per text.
    pub fn style(&self) -> Style {
        self.runs.iter().max_by_key(|run| run.text.len()).map(|run| run.style).unwrap_or_default()
    }
}

impl Script {
    /// Creates the script for `speech`, spoken by `speaker`.
    pub fn new(speech: &Speech, speaker: &Speaker) -> Self {
        let mut writer = Writer::default();
        writer.speech(speech, speaker, Style::default());
        writer.close();
        Self(writer.parts)
    }
}

#[derive(Default)]
struct Writer {
    parts: Vec<Part>,
    open: Option<Segment>,
    /// Whether a paragraph has ended. A pause is added if more text follows.
    paragraph_ended: bool,
}

impl Writer {
    fn speech(&mut self, speech: &Speech, speaker: &Speaker, style: Style) {
        for node in &speech.0 {
            match node {
                SpeechNode::Text(text) => self.text(text, speaker, style),
                SpeechNode::Break { millis } => self.pause(*millis),
                SpeechNode::Tag { name, attributes, content } => {
                    self.tag(*name, attributes, content, speaker, style)
                }
            }
        }
    }

    fn tag(
        &mut self,
        name: SsmlTag,
        attributes: &[(String, String)],
        content: &Speech,
        speaker: &Speaker,
        style: Style,
    ) {
        let value = |key: &str| {
            attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
        };
        match name {
            SsmlTag::Emphasis => self.speech(content, speaker, style.with_emphasis(value("level"))),
            SsmlTag::Lang => {
                let language = value("xml:lang").unwrap_or(&speaker.language).to_owned();
                self.speech(content, &Speaker { language, ..speaker.clone() }, style);
            }
            SsmlTag::Prosody => {
                self.speech(
                    content,
                    speaker,
                    style.with_prosody(value("rate"), value("pitch"), value("volume")),
                );
            }
            SsmlTag::Sub => self.text(value("alias").unwrap_or_default(), speaker, style),
            SsmlTag::SayAs => {
                let kind = value("interpret-as").unwrap_or_default();
                let text = say_as::spoken_form(
                    kind,
                    value("format"),
                    &text_of(content),
                    &speaker.language,
                );
                self.text(&text, speaker, style);
            }
            SsmlTag::S => {
                self.end_sentence();
                self.speech(content, speaker, style);
                self.end_sentence();
            }
            SsmlTag::P => {
                self.end_paragraph();
                self.speech(content, speaker, style);
                self.end_paragraph();
            }
            // No engine here supports IPA or parts of speech, so the written text is spoken.
            SsmlTag::Phoneme | SsmlTag::W => self.speech(content, speaker, style),
        }
    }

    fn text(&mut self, text: &str, speaker: &Speaker, style: Style) {
        let text = clean_text(text);
        let text = normalise::words(&text, &speaker.language);
        if text.trim().is_empty() {
            if let Some(run) = self.open.as_mut().and_then(|segment| segment.runs.last_mut())
                && !text.is_empty()
                && !run.text.ends_with(' ')
            {
                run.text.push(' ');
            }
            return;
        }
        if self.open.as_ref().is_some_and(|segment| segment.speaker != *speaker) {
            self.close();
        }
        if std::mem::take(&mut self.paragraph_ended) && !self.parts.is_empty() {
            self.parts.push(Part::Pause { ms: PARAGRAPH_MS });
        }
        let segment =
            self.open.get_or_insert_with(|| Segment { speaker: speaker.clone(), runs: Vec::new() });
        match segment.runs.last_mut() {
            Some(run) if run.style == style => run.text.push_str(&text),
            _ => segment.runs.push(Run { text: text.into_owned(), style }),
        }
    }

    fn pause(&mut self, ms: u32) {
        if ms > 0 {
            self.close();
            self.parts.push(Part::Pause { ms });
        }
    }

    fn end_paragraph(&mut self) {
        self.end_sentence();
        self.close();
        self.paragraph_ended = true;
    }

    /// Adds punctuation at the end of the text so far.
    fn end_sentence(&mut self) {
        if let Some(run) = self.open.as_mut().and_then(|segment| segment.runs.last_mut()) {
            let end = run.text.trim_end().len();
            run.text.truncate(end);
            if !run.text.ends_with(['.', '!', '?', ':', ';', ',', '…', '।', '。']) {
                run.text.push('.');
            }
            run.text.push(' ');
        }
    }

    fn close(&mut self) {
        self.parts.extend(self.open.take().map(Part::Speech));
    }
}

impl Style {
    /// Applies SSML's `emphasis`: louder and slower, or softer and faster.
    fn with_emphasis(self, level: Option<&str>) -> Self {
        let (rate, volume) = match level {
            Some("strong") => (0.85, 1.4),
            Some("reduced") => (1.1, 0.75),
            _ => (0.93, 1.2),
        };
        Self { rate: self.rate * rate, volume: self.volume * volume, ..self }
    }

    /// Applies SSML's `prosody`. Unknown values have no effect.
    fn with_prosody(self, rate: Option<&str>, pitch: Option<&str>, volume: Option<&str>) -> Self {
        let rate = match rate {
            Some("x-slow") => 0.5,
            Some("slow") => 0.75,
            Some("fast") => 1.4,
            Some("x-fast") => 1.8,
            Some(percent) => number(percent, "%").map_or(1.0, |n| n / 100.0),
            None => 1.0,
        };
        let pitch = match pitch {
            Some("x-low") => 0.7,
            Some("low") => 0.85,
            Some("high") => 1.15,
            Some("x-high") => 1.3,
            Some(percent) => number(percent, "%").map_or(1.0, |n| 1.0 + n / 100.0),
            None => 1.0,
        };
        let volume = match volume {
            Some("silent") => 0.0,
            Some("x-soft") => 0.3,
            Some("soft") => 0.6,
            Some("loud") => 1.5,
            Some("x-loud") => 2.2,
            Some(decibels) => number(decibels, "dB").map_or(1.0, |n| 10f32.powf(n / 20.0)),
            None => 1.0,
        };
        let scale = |value: f32, factor: f32| (value * factor.clamp(0.0, 10.0)).clamp(0.0, 1_000.0);
        Self {
            rate: scale(self.rate, rate),
            pitch: scale(self.pitch, pitch),
            volume: scale(self.volume, volume),
        }
    }
}

/// Parses the number in `+6dB`, `-10%` or `80%`. Returns `None` for other text.
fn number(text: &str, unit: &str) -> Option<f32> {
    text.strip_suffix(unit)?.parse().ok().filter(|n: &f32| n.is_finite())
}

/// Returns the text without tags.
fn text_of(speech: &Speech) -> String {
    speech
        .0
        .iter()
        .map(|node| match node {
            SpeechNode::Text(text) => text.clone(),
            SpeechNode::Break { .. } => " ".to_owned(),
            SpeechNode::Tag { content, .. } => text_of(content),
        })
        .collect()
}

/// Replaces control characters with spaces, and typographic signs with ASCII ones that every engine
/// supports.
fn clean_text(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '’' | '‘' | '‛' | '′' => cleaned.push('\''),
            '“' | '”' | '„' | '«' | '»' => cleaned.push('"'),
            '–' | '—' | '―' => cleaned.push_str(" - "),
            '…' => cleaned.push_str("... "),
            // Soft hyphens and zero-width characters are not spoken.
            '\u{ad}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}' => {}
            c if c.is_control() || c.is_whitespace() => {
                if !cleaned.ends_with(' ') {
                    cleaned.push(' ');
                }
            }
            c => cleaned.push(c),
        }
    }
    cleaned
}

#[cfg(test)]
mod tests;
