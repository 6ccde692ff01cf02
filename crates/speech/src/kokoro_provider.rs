//! The neural voice for Hindi and Portuguese as a [`Provider`]. Text becomes phonemes in this
//! process, by rules, and phonemes become sound in helper processes of its own, because its network
//! needs more memory and time than other voices.

use std::path::PathBuf;

use super::builtin::Builtin;
use super::helper::{KokoroRequest, SPEAK_KOKORO, frame};
use super::kokoro::{Language, VoiceName};
use super::language::Speaker;
use super::provider::{BoxFuture, Provider, Sink, SpeechError};
use super::script::Segment;
use super::sentences;

/// Gain that makes the voice as loud as the embedded one, including the headroom that the helper
/// leaves.
const GAIN: f32 = 1.5;
/// Maximum length of phonemes in bytes that are spoken at once: about 5 s. Longer sentences are spoken
/// in parts.
const PART_BYTES_MAX: usize = 120;

/// An installed voice.
pub(super) struct KokoroVoice {
    helpers: Builtin,
    folder: PathBuf,
    languages: Vec<Language>,
}

impl KokoroVoice {
    /// Creates the provider for the languages of the model in `folder`, which must be below the folder
    /// of models that `helpers` may read.
    pub(super) fn new(helpers: Builtin, folder: PathBuf, languages: Vec<Language>) -> Self {
        Self { helpers, folder, languages }
    }

    async fn speak(&self, segment: &Segment, sink: &mut Sink) -> Result<(), SpeechError> {
        let speaker = &segment.speaker;
        let language = Language::of(&speaker.language).ok_or_else(|| {
            SpeechError::Engine(format!("it does not speak {}", speaker.language))
        })?;
        for run in &segment.runs {
            let phonemes = language.phonemes(&run.text);
            for part in sentences::split(&phonemes, PART_BYTES_MAX) {
                let request = KokoroRequest {
                    folder: self.folder.to_string_lossy().into_owned(),
                    phonemes: part.trim().to_owned(),
                    voice: voice_for(language, speaker).name().to_owned(),
                    rate: run.style.rate / 100.0,
                    pitch: run.style.pitch / 100.0,
                };
                let request =
                    serde_json::to_vec(&request).map_err(|e| SpeechError::Engine(e.to_string()))?;
                let gain = GAIN * run.style.volume / 100.0;
                self.helpers.speak_whole(&frame(SPEAK_KOKORO, &request), gain, sink).await?;
            }
        }
        Ok(())
    }
}

/// Returns the name of the voice for a speaker, or `None` if none of the installed languages is the
/// speaker's.
pub(super) fn voice_name(installed: &[Language], speaker: &Speaker) -> Option<&'static str> {
    let language = Language::of(&speaker.language).filter(|of| installed.contains(of))?;
    Some(voice_for(language, speaker).name())
}

fn voice_for(language: Language, speaker: &Speaker) -> VoiceName {
    match (language, speaker.male, speaker.polly.as_deref()) {
        (Language::Hindi, true, _) => VoiceName::HmOmega,
        (Language::Hindi, false, Some("Kajal")) => VoiceName::HfBeta,
        (Language::Hindi, false, _) => VoiceName::HfAlpha,
        (Language::Portuguese, true, _) => VoiceName::PmAlex,
        (Language::Portuguese, false, _) => VoiceName::PfDora,
    }
}

impl Provider for KokoroVoice {
    fn name(&self) -> &'static str {
        "neural"
    }

    fn can_speak(&self, language: &str) -> bool {
        Language::of(language).is_some_and(|language| self.languages.contains(&language))
    }

    fn can_read_latin(&self, language: &str) -> bool {
        Language::of(language) != Some(Language::Hindi)
    }

    fn voice(&self, speaker: &Speaker) -> String {
        voice_name(&self.languages, speaker).unwrap_or_default().to_owned()
    }

    fn synthesise<'a>(
        &'a self,
        segment: &'a Segment,
        sink: &'a mut Sink,
    ) -> BoxFuture<'a, Result<(), SpeechError>> {
        Box::pin(self.speak(segment, sink))
    }
}

#[cfg(test)]
mod tests;
