//! Speech recognition with an installed Whisper model, in the speech helpers.
//!
//! The model processes whole utterances. Audio pauses when the caller does, so the speech so far is
//! recognised in each pause: if the caller has finished, the result is there when the pause is long
//! enough to end the utterance.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    OnPartial, Recogniser, RecognitionError, RecognitionOptions, Transcript, UtteranceAudio,
};
use crate::builtin::Builtin;
use crate::config::SpeechConfig;
use crate::helper::{RECOGNISE, RecogniseRequest, RecognisedWords, SPEECH_SAMPLES_MAX};
use crate::language::primary;
use crate::models::ModelStore;
use crate::provider::{BoxFuture, SpeechError};

/// Without audio for this time, the caller pauses. Audio arrives every 20 ms.
const PAUSE: Duration = Duration::from_millis(60);
/// Speech after which there is another interim result while the caller speaks.
const INTERIM_SAMPLES: usize = super::RATE as usize * 3 / 2;
/// Width of the beam search in recordings, as in the reference code. In calls, decoding is greedy, which
/// is faster.
const BEAM: usize = 5;
/// Largest number of bytes of hints.
const HINTS_MAX: usize = 400;
/// Samples within which long speech is split, where it is quietest, and the window that is measured.
const SPLIT_SAMPLES: usize = 5 * super::RATE as usize;
const WINDOW_SAMPLES: usize = super::RATE as usize / 10;

/// An installed model as a [`Recogniser`].
pub(super) struct Whisper {
    /// Helpers of its own, so that prompts do not wait for recognitions.
    helpers: Builtin,
    folder: PathBuf,
    /// The folder of the model that tells speech from other sounds, if it is installed.
    detector: Option<String>,
}

impl Whisper {
    /// Returns the installed model, if there is one.
    pub(super) fn find(config: &SpeechConfig) -> Option<Self> {
        let models = ModelStore::new(&config.data_dir);
        let model = models.english_recogniser()?;
        let helpers = Builtin::for_models(config, &models);
        let detector = models.speech_detector().map(|path| path.to_string_lossy().into_owned());
        Some(Self { helpers, folder: models.folder_of(&model), detector })
    }

    async fn recognise_utterance(
        &self,
        options: &RecognitionOptions,
        utterance: &mut UtteranceAudio,
        on_partial: OnPartial<'_>,
    ) -> Result<Transcript, RecognitionError> {
        let mut pcm = Vec::new();
        // The latest result and the number of samples that it covers.
        let mut latest = (Transcript::default(), 0);
        let mut is_open = true;
        while is_open || latest.1 < pcm.len() {
            let pauses = tokio::time::sleep(PAUSE);
            let chunk = tokio::select! {
                biased;
                chunk = utterance.next(), if is_open => Some(chunk),
                () = pauses, if is_open && latest.1 < pcm.len() => None,
                else => None,
            };
            match chunk {
                Some(Some(chunk)) => {
                    pcm.extend_from_slice(&chunk);
                    if !options.interim || pcm.len() - latest.1 < INTERIM_SAMPLES {
                        continue;
                    }
                }
                Some(None) => {
                    is_open = false;
                    continue;
                }
                None => {}
            }
            let count = pcm.len();
            latest = (self.transcribe(options, &pcm).await?, count);
            on_partial(&latest.0.text);
        }
        Ok(latest.0)
    }

    /// Recognises speech of any length.
    async fn transcribe(
        &self,
        options: &RecognitionOptions,
        pcm: &[i16],
    ) -> Result<Transcript, RecognitionError> {
        let mut hints = options.hints.join(", ");
        hints.truncate(hints.floor_char_boundary(HINTS_MAX.min(hints.len())));
        let (mut text, mut confidence) = (String::new(), None::<f32>);
        let mut rest = pcm;
        while !rest.is_empty() {
            let (part, tail) = rest.split_at(split_position(rest));
            rest = tail;
            let words = match self.request(&hints, options, part).await {
                // The helper was replaced. The next one may succeed.
                Err(SpeechError::Helper(_)) => self.request(&hints, options, part).await?,
                outcome => outcome?,
            };
            if !words.text.is_empty() {
                if !text.is_empty() {
                    text.push(' ');
                }
                text.push_str(&words.text);
                confidence = Some(confidence.unwrap_or(1.0).min(words.confidence));
            }
        }
        Ok(Transcript { text, confidence })
    }

    async fn request(
        &self,
        hints: &str,
        options: &RecognitionOptions,
        pcm: &[i16],
    ) -> Result<RecognisedWords, SpeechError> {
        let request = RecogniseRequest {
            folder: self.folder.to_string_lossy().into_owned(),
            detector: self.detector.clone(),
            hints: if hints.is_empty() { String::new() } else { format!(" {hints}") },
            beam: if options.is_live { 1 } else { BEAM },
        };
        self.helpers.request_about(&options.account, pcm, RECOGNISE, &request).await
    }
}

/// Returns the position at which speech is split if it is too long to be recognised at once: the
/// quietest one within the last seconds that fit.
fn split_position(pcm: &[i16]) -> usize {
    let Some(head) = pcm.get(..SPEECH_SAMPLES_MAX).filter(|head| head.len() < pcm.len()) else {
        return pcm.len();
    };
    let from = SPEECH_SAMPLES_MAX - SPLIT_SAMPLES;
    let windows = head.get(from..).unwrap_or_default().chunks(WINDOW_SAMPLES);
    let energy = |window: &[i16]| window.iter().map(|s| i64::from(*s) * i64::from(*s)).sum::<i64>();
    let quietest = windows.enumerate().min_by_key(|(_, window)| energy(window));
    quietest.map_or(head.len(), |(index, _)| from + index * WINDOW_SAMPLES + WINDOW_SAMPLES / 2)
}

impl Recogniser for Whisper {
    fn name(&self) -> &'static str {
        "whisper"
    }

    fn can_recognise(&self, language: &str) -> bool {
        primary(language) == "en"
    }

    fn recognise<'a>(
        &'a self,
        options: &'a RecognitionOptions,
        utterance: &'a mut UtteranceAudio,
        on_partial: OnPartial<'a>,
    ) -> BoxFuture<'a, Result<Transcript, RecognitionError>> {
        Box::pin(self.recognise_utterance(options, utterance, on_partial))
    }
}
