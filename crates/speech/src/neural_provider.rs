//! The neural voice as a [`Provider`]: English, spoken sentence by sentence in the speech helpers.

use std::path::PathBuf;
use std::sync::Arc;

use super::builtin::Builtin;
use super::helper::{FRAME_MAX, NeuralRequest, SPEAK_NEURAL, frame};
use super::language::{Speaker, primary};
use super::provider::{BoxFuture, Provider, Sink, SpeechError};
use super::script::{Run, Segment};
use super::sentences;

/// Gain that makes the voice as loud as the embedded one, including the headroom that the helper
/// leaves.
const GAIN: f32 = 5.5;

/// Maximum length of a sentence in bytes. A longer one is spoken in parts.
const SENTENCE_BYTES_MAX: usize = 400;

/// An installed voice.
pub(super) struct Neural {
    helpers: Arc<Builtin>,
    /// The model's name.
    name: String,
    folder: PathBuf,
}

impl Neural {
    /// Creates the provider for the voice `name` in `folder`, which must be below the folder of models that
    /// `helpers` may read.
    pub(super) fn new(helpers: Arc<Builtin>, name: String, folder: PathBuf) -> Self {
        Self { helpers, name, folder }
    }

    async fn speak(&self, segment: &Segment, sink: &mut Sink) -> Result<(), SpeechError> {
        for (index, run) in segment.runs.iter().enumerate() {
            let mut done = 0;
            for sentence in sentences::split(&run.text, SENTENCE_BYTES_MAX) {
                if let Err(error) = self.speak_sentence(segment, run, sentence, sink).await {
                    // Sentences that have been played cannot be retracted, so the embedded voice
                    // speaks the remaining ones.
                    if matches!(error, SpeechError::Cancelled) || !sink.has_audio() {
                        return Err(error);
                    }
                    tracing::warn!(%error, "neural voice failed within a prompt, using the embedded one");
                    let rest = rest(segment, index, run.text.get(done..).unwrap_or_default());
                    sink.set_voice(self.helpers.prompt_voice(&segment.speaker));
                    return self.helpers.synthesise(&rest, sink).await;
                }
                done = end_of(&run.text, sentence);
            }
        }
        Ok(())
    }

    /// Speaks one sentence. If the helper fails, nothing is spoken.
    async fn speak_sentence(
        &self,
        segment: &Segment,
        run: &Run,
        sentence: &str,
        sink: &mut Sink,
    ) -> Result<(), SpeechError> {
        let request = NeuralRequest {
            folder: self.folder.to_string_lossy().into_owned(),
            text: sentence.to_owned(),
            rate: run.style.rate / 100.0,
            pitch: run.style.pitch / 100.0,
            male: segment.speaker.male,
        };
        let body = serde_json::to_vec(&request).map_err(|e| SpeechError::Engine(e.to_string()))?;
        if body.len() >= FRAME_MAX {
            return Err(SpeechError::TooLong(body.len()));
        }
        let gain = GAIN * run.style.volume / 100.0;
        self.helpers.speak_whole(&frame(SPEAK_NEURAL, &body), gain, sink).await
    }
}

/// Returns the position in a text after a part of it.
fn end_of(text: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize) + part.len()
}

/// Returns the runs of a segment from `index` on, with `text` as the text of the first one.
fn rest(segment: &Segment, index: usize, text: &str) -> Segment {
    let mut runs: Vec<Run> = segment.runs.iter().skip(index).cloned().collect();
    if let Some(first) = runs.first_mut() {
        text.clone_into(&mut first.text);
    }
    Segment { speaker: segment.speaker.clone(), runs }
}

impl Provider for Neural {
    fn name(&self) -> &'static str {
        "neural"
    }

    fn can_speak(&self, language: &str) -> bool {
        primary(language) == "en"
    }

    fn voice(&self, _: &Speaker) -> String {
        self.name.clone()
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
