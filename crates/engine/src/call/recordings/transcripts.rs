//! Transcripts of complete recordings (`docs/reference/callbacks.md#transcription`).
//!
//! The file is read, split into utterances and recognised one utterance at a time, each channel
//! separately. Memory use is independent of the length of the recording, and recognitions of live
//! calls run in between. A failed recognition is retried later. After the last try, the callback
//! contains the partial text and the error.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Inner;
use super::utterances::{Cutter, Utterance};
use crate::answer::next_pause;
use machine::{TranscriptOrder, transcription_callback};
use media::record::{self, Format};
use model::metric::{self, transcript};
use model::{AuthId, Method};
use speech::recognise::{RecognitionError, RecognitionOptions, UtteranceAudio};
use store::{NewCallback, TranscriptWrite, TranscriptionJob};

/// Maximum number of tries. The pauses between them are those of callbacks.
const TRIES_MAX: u32 = 6;
/// Maximum number of times that an utterance waits for a busy recogniser.
const TURNS_MAX: u32 = 24;
/// How long it waits each time.
const TURN: Duration = Duration::from_secs(5);
/// Maximum size of the text in bytes: hours of speech, or much less in a GET URL.
const TEXT_MAX: usize = 256 << 10;
const TEXT_IN_URL_MAX: usize = 2 << 10;
/// Samples passed to the recogniser at a time: 100 ms.
const SAMPLES: usize = 1_600;

/// A recognised utterance.
struct RecognisedText {
    channel: usize,
    from_ms: u64,
    text: String,
}

impl Inner {
    /// Transcribes one recording.
    pub(super) async fn transcribe(&self, work: TranscriptionJob) {
        let Some(order) = work.start.transcript.clone() else { return };
        let last = work.tries + 1 >= TRIES_MAX;
        let (utterances, failure) = self.hear(&work, last).await;
        if let (Some(why), false) = (&failure, last) {
            let pause =
                next_pause(work.tries.saturating_add(1), Duration::ZERO, None, &self.random)
                    .unwrap_or(TURN);
            tracing::warn!(recording = %work.start.id, why, ?pause, "transcription failed, will be retried");
            metrics::counter!(metric::TRANSCRIPTS_TOTAL, "outcome" => transcript::RETRY)
                .increment(1);
            return self
                .transcribed(TranscriptWrite::Retry {
                    id: work.start.id,
                    at: self.clock.wall().plus(pause),
                })
                .await;
        }
        let outcome = if failure.is_some() { transcript::FAILED } else { transcript::DONE };
        metrics::counter!(metric::TRANSCRIPTS_TOTAL, "outcome" => outcome).increment(1);
        if let Some(why) = &failure {
            tracing::warn!(recording = %work.start.id, why, "transcription failed");
        }
        let (text, error) =
            (text(&order, &utterances, work.start.stereo), failure.unwrap_or_default());
        let notice = transcription_callback(
            &order,
            work.start.call,
            work.start.id,
            work.duration_ms,
            &text,
            &error,
        );
        let callback: NewCallback = self.callback(&work.start, notice);
        self.transcribed(TranscriptWrite::Done { id: work.start.id, callback: Box::new(callback) })
            .await;
    }

    /// Returns the recognised utterances in order, and the first error. Only the `last` try
    /// continues after an utterance that failed.
    async fn hear(
        &self,
        work: &TranscriptionJob,
        last: bool,
    ) -> (Vec<RecognisedText>, Option<String>) {
        let (folder, id) = (self.recorder.folder().to_owned(), work.start.id);
        let format = Format::from_name(&work.start.format).unwrap_or(Format::Wav);
        let (to, mut pieces) = mpsc::channel::<(usize, Utterance)>(1);
        let reading = tokio::task::spawn_blocking(move || {
            let mut cutters = [Cutter::default(), Cutter::default()];
            let mut wanted = true;
            record::read(&folder, id, format, &mut |left, right| {
                for (n, (cutter, frame)) in cutters.iter_mut().zip([Some(left), right]).enumerate()
                {
                    if let Some(piece) = frame.and_then(|frame| cutter.push(frame)) {
                        wanted &= to.blocking_send((n, piece)).is_ok();
                    }
                }
                wanted
            })?;
            for (n, cutter) in cutters.iter_mut().enumerate() {
                if let Some(piece) = cutter.finish() {
                    let _ = to.blocking_send((n, piece));
                }
            }
            Ok::<_, std::io::Error>(())
        });
        let (mut utterances, mut failure, mut bytes) = (Vec::new(), None, 0);
        while let Some((channel, piece)) = pieces.recv().await {
            let from_ms = piece.from_ms;
            match self.understand(piece, &work.start.main_account).await {
                Ok(text) if text.is_empty() => {}
                Ok(text) => {
                    bytes += text.len();
                    utterances.push(RecognisedText { channel, from_ms, text });
                    if bytes > TEXT_MAX {
                        break;
                    }
                }
                Err(error) => {
                    failure.get_or_insert(error.to_string());
                    // A retry does not help if the language is not supported.
                    if !last && !matches!(error, RecognitionError::Language(_)) {
                        break;
                    }
                }
            }
        }
        drop(pieces);
        match reading.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                failure = failure.or(Some(format!("could not read the recording: {error}")))
            }
            Err(_) => failure = failure.or(Some("internal error".to_owned())),
        }
        utterances.sort_by_key(|one| (one.from_ms, one.channel));
        (utterances, failure)
    }

    /// Recognises one utterance.
    async fn understand(
        &self,
        piece: Utterance,
        account: &AuthId,
    ) -> Result<String, RecognitionError> {
        let ask = RecognitionOptions {
            language: self.recognisers.transcript_language().to_owned(),
            account: Some(account.clone()),
            ..RecognitionOptions::default()
        };
        let mut turns = 0;
        loop {
            let (to, mut sound) = UtteranceAudio::new();
            for samples in piece.pcm.chunks(SAMPLES) {
                // The channel has capacity for more than the longest utterance.
                let _ = to.try_send(samples.to_vec());
            }
            drop(to);
            match self.recognisers.recognise(&ask, &mut sound, |_| ()).await {
                Err(RecognitionError::Busy) if turns < TURNS_MAX => {
                    turns += 1;
                    tokio::time::sleep(TURN).await;
                }
                recognised => return recognised.map(|recognised| recognised.text),
            }
        }
    }

    async fn transcribed(&self, write: TranscriptWrite) {
        match self.store.recordings().write_transcript(write).await {
            Ok(written) => written.into_iter().for_each(|written| self.outbox.send(written, None)),
            Err(error) => self.not_written(&error).await,
        }
    }
}

/// Formats the transcript: the plain text, or one line per utterance with its time and, in stereo,
/// the speaker.
fn text(order: &TranscriptOrder, utterances: &[RecognisedText], stereo: bool) -> String {
    let mut text = String::new();
    for RecognisedText { channel, from_ms, text: words } in utterances {
        if order.full {
            let (minutes, seconds) = (from_ms / 60_000, from_ms / 1_000 % 60);
            let who = match (stereo, channel) {
                (false, _) => "",
                (true, 0) => " Caller:",
                (true, _) => " Called:",
            };
            let _ = writeln!(text, "[{minutes:02}:{seconds:02}]{who} {words}");
        } else {
            let _ = write!(text, "{}{words}", if text.is_empty() { "" } else { " " });
        }
    }
    let most = if order.to.method == Method::Get { TEXT_IN_URL_MAX } else { TEXT_MAX };
    let cut = text.floor_char_boundary(most.min(text.len()));
    text.truncate(cut);
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xml::ast::{DocUrl, Target};

    fn order(full: bool, method: Method) -> TranscriptOrder {
        TranscriptOrder {
            to: Target { url: DocUrl("https://a.example.com/".into()), method },
            full,
        }
    }

    #[test]
    fn transcripts_are_plain_text_or_lines_with_speaker_and_time() {
        let utterance = |channel, from_ms, text: &str| RecognisedText {
            channel,
            from_ms,
            text: text.to_owned(),
        };
        let all =
            [utterance(0, 400, "Good morning."), utterance(1, 61_000, "Hello, who is there?")];
        assert_eq!(
            text(&order(false, Method::Post), &all, true),
            "Good morning. Hello, who is there?"
        );
        let full = order(true, Method::Post);
        assert_eq!(
            text(&full, &all, true),
            "[00:00] Caller: Good morning.\n[01:01] Called: Hello, who is there?"
        );
        assert_eq!(text(&full, &all[..1], false), "[00:00] Good morning.");
        assert_eq!(text(&full, &[], true), "");
        let long = [utterance(0, 0, &"é".repeat(5_000))];
        assert_eq!(text(&order(false, Method::Get), &long, false).len(), TEXT_IN_URL_MAX);
    }
}
