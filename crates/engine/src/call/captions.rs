//! Live captions: transcribes both sides of a web leg for the endpoint's phone.
//!
//! A worker job reads both sides of the leg as PCM. One `Cutter` per side splits the audio into
//! utterances, and one task per side sends them to the speech recogniser in order. Without a
//! request for captions no tap, job or task exists. Captions are not stored and are not part of
//! the event log.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug};

use super::caption::{Caption, Speaker};
use super::phones;
use media::opus::Rate;
use media::voice::VoiceDetector;
use media::workers::{Job, JobStatus, Workers};
use media::{Buffering, LegHandle, TapReader, TapSides};
use model::AuthId;
use speech::recognise::{InterimResult, Recognisers, RecognitionOptions, UtteranceAudio};

/// Number of frames before the first voiced frame that belong to the utterance: a soft onset, and
/// the frames that the voice detector needs.
const ONSET: usize = 20;
/// Number of silent frames that end an utterance: 700 ms. Shorter pauses are breaths.
const PAUSE: usize = 35;
/// Maximum length of an utterance in frames: 15 s. Longer speech is split.
const UTTERANCE_MAX: usize = 750;
/// Maximum number of queued utterances per side. If the recogniser is slower than the speakers,
/// further utterances are dropped.
const WAITING_MAX: usize = 3;
/// Consecutive failures after which the phone is notified that captions are unavailable.
const FAILURES_MAX: u32 = 3;

/// The captions of a web leg. Dropping the value stops them.
pub(super) struct Captions {
    options: CaptionOptions,
    stopped: Arc<AtomicBool>,
    /// Number of the latest line.
    lines: Arc<AtomicU32>,
    tasks: [AbortHandle; 2],
}

/// The captions that a phone has requested.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct CaptionOptions {
    pub(super) language: Box<str>,
    /// Number of the lines before these captions.
    pub(super) lines: u32,
}

/// The services that captions need.
pub(super) struct CaptionServices<'a> {
    pub(super) workers: &'a Workers,
    pub(super) recognisers: &'a Recognisers,
    pub(super) tasks: &'a TaskTracker,
    pub(super) phone: &'a Arc<phones::Line>,
    /// The main account of the call.
    pub(super) account: &'a AuthId,
}

impl Captions {
    /// Starts captions for `leg`.
    pub(super) fn begin(
        options: CaptionOptions,
        leg: &LegHandle,
        with: &CaptionServices<'_>,
    ) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let lines = Arc::new(AtomicU32::new(options.lines));
        let side = |speaker| {
            let (to, utterances) = mpsc::channel(WAITING_MAX);
            let writer = Writer {
                speaker,
                ask: RecognitionOptions {
                    language: options.language.clone().into(),
                    interim: true,
                    is_live: true,
                    account: Some(with.account.clone()),
                    ..RecognitionOptions::default()
                },
                recognisers: with.recognisers.clone(),
                phone: with.phone.clone(),
                lines: lines.clone(),
                stopped: stopped.clone(),
            };
            let task = with.tasks.spawn(writer.write(utterances).in_current_span());
            (UtteranceSender { cutter: Cutter::default(), to, open: None }, task.abort_handle())
        };
        let ((them, first), (you, second)) = (side(Speaker::Them), side(Speaker::You));
        let line = TapReader::new(leg.tap(TapSides::Both), Rate::Hz16000, Buffering::Jitter);
        with.workers.add(Box::new(Captioning { line, them, you, stopped: stopped.clone() }));
        Self { options, stopped, lines, tasks: [first, second] }
    }

    /// Returns what continues these captions after their end.
    pub(super) fn options(&self) -> CaptionOptions {
        CaptionOptions { lines: self.lines.load(Ordering::Acquire), ..self.options.clone() }
    }
}

impl Drop for Captions {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The worker job that reads the leg's audio.
struct Captioning {
    line: TapReader,
    them: UtteranceSender,
    you: UtteranceSender,
    stopped: Arc<AtomicBool>,
}

impl Job for Captioning {
    fn run(&mut self, _now: Instant) -> JobStatus {
        while let Some(frame) = self.line.next() {
            self.you.push(frame.received);
            self.them.push(frame.sent);
        }
        // Dropping the job closes the channels, which ends the tasks.
        if self.stopped.load(Ordering::Acquire) || self.line.is_over() {
            JobStatus::Done
        } else {
            JobStatus::Running
        }
    }
}

/// Passes the audio of one side to its writer.
struct UtteranceSender {
    cutter: Cutter,
    to: mpsc::Sender<UtteranceAudio>,
    /// The channel of the current utterance, if there is one.
    open: Option<mpsc::Sender<Vec<i16>>>,
}

impl UtteranceSender {
    fn push(&mut self, pcm: &[i16]) {
        match self.cutter.push(pcm) {
            Cut::Nothing => {}
            Cut::Begins(onset) => {
                let (pieces, sound) = UtteranceAudio::new();
                // The new channel is empty, so this cannot fail.
                let _ = pieces.try_send(onset);
                self.open = self.to.try_send(sound).is_ok().then_some(pieces);
            }
            Cut::Continues => self.pass_on(pcm),
            Cut::Ends => {
                self.pass_on(pcm);
                self.open = None;
            }
        }
    }

    fn pass_on(&self, pcm: &[i16]) {
        if let Some(pieces) = &self.open {
            // If the recogniser is a minute behind, the rest is dropped.
            let _ = pieces.try_send(pcm.to_vec());
        }
    }
}

/// Effect of a frame on the utterances of its side.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    /// Silence outside of an utterance.
    Nothing,
    /// An utterance begins. Contains this frame and the frames just before it.
    Begins(Vec<i16>),
    Continues,
    /// The frame is the last one of the utterance.
    Ends,
}

/// Splits the audio of one side into utterances, in media time.
#[derive(Default)]
struct Cutter {
    detector: VoiceDetector,
    /// The current utterance: its number of frames, and how many of the latest were silent.
    open: Option<(usize, usize)>,
    /// The latest frames outside of an utterance.
    kept: VecDeque<Vec<i16>>,
}

impl Cutter {
    /// Processes the next 20 ms.
    fn push(&mut self, pcm: &[i16]) -> Cut {
        let voiced = self.detector.push(pcm);
        if let Some((frames, quiet)) = &mut self.open {
            *frames += 1;
            *quiet = if voiced { 0 } else { *quiet + 1 };
            if *quiet < PAUSE && *frames < UTTERANCE_MAX {
                return Cut::Continues;
            }
            if *quiet >= PAUSE {
                self.detector.reset();
            }
            self.open = None;
            return Cut::Ends;
        }
        self.kept.push_back(pcm.to_vec());
        if voiced {
            self.open = Some((1, 0));
            return Cut::Begins(self.kept.drain(..).flatten().collect());
        }
        if self.kept.len() > ONSET {
            self.kept.pop_front();
        }
        Cut::Nothing
    }
}

/// Transcribes the utterances of one side one after another, so that captions arrive in order.
struct Writer {
    speaker: Speaker,
    ask: RecognitionOptions,
    recognisers: Recognisers,
    phone: Arc<phones::Line>,
    lines: Arc<AtomicU32>,
    stopped: Arc<AtomicBool>,
}

impl Writer {
    async fn write(self, mut utterances: mpsc::Receiver<UtteranceAudio>) {
        let mut failures = 0;
        while let Some(mut sound) = utterances.recv().await {
            // Recognition that documents ask for has priority.
            if !self.recognisers.has_spare_capacity() {
                continue;
            }
            let line = self.lines.fetch_add(1, Ordering::Relaxed) + 1;
            let mut has_interim = false;
            let so_far = |InterimResult { stable, unstable, .. }: InterimResult| {
                has_interim = true;
                let text = [stable, unstable]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join(" ");
                self.tell(Caption { speaker: self.speaker, line, text, last: false });
            };
            let text = match self.recognisers.recognise(&self.ask, &mut sound, so_far).await {
                Ok(recognised) => {
                    failures = 0;
                    recognised.text
                }
                Err(error) => {
                    debug!(%error, "caption failed");
                    failures += 1;
                    String::new()
                }
            };
            // An empty final caption withdraws the interim text if no words were recognised.
            if has_interim || !text.is_empty() {
                self.tell(Caption { speaker: self.speaker, line, text, last: true });
            }
            if failures >= FAILURES_MAX && !self.stopped.swap(true, Ordering::AcqRel) {
                self.phone.no_captions();
            }
        }
    }

    fn tell(&self, caption: Caption) {
        if !self.stopped.load(Ordering::Acquire) {
            self.phone.caption(caption);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Cut, Cutter, ONSET, PAUSE, UTTERANCE_MAX};

    const FRAME: usize = 320;

    /// Lists where utterances begin (with their number of frames so far) and end, for stretches of
    /// frames that are loud or silent.
    fn cuts(stretches: &[(usize, bool)]) -> Vec<(usize, &'static str, usize)> {
        let mut cutter = Cutter::default();
        let sample = |i: usize, loud: bool| if loud { ((i % 114) as i16 - 57) * 60 } else { 0 };
        let frames = stretches
            .iter()
            .flat_map(|(frames, loud)| std::iter::repeat_n(*loud, *frames))
            .enumerate();
        let mut cuts = Vec::new();
        for (n, loud) in frames {
            let pcm: Vec<i16> = (0..FRAME).map(|i| sample(n * FRAME + i, loud)).collect();
            match cutter.push(&pcm) {
                Cut::Nothing | Cut::Continues => {}
                Cut::Begins(onset) => cuts.push((n, "begins", onset.len() / FRAME)),
                Cut::Ends => cuts.push((n, "ends", 0)),
            }
        }
        cuts
    }

    #[test]
    fn an_utterance_has_its_onset_and_ends_with_a_pause() {
        // The voice detector needs four frames.
        let expected = [(53, "begins", ONSET + 1), (50 + 60 + PAUSE - 1, "ends", 0)];
        assert_eq!(cuts(&[(50, false), (60, true), (100, false)]), expected);
    }

    #[test]
    fn a_short_pause_does_not_end_an_utterance() {
        let events = cuts(&[(50, false), (30, true), (PAUSE - 5, false), (30, true), (60, false)]);
        assert_eq!(events.iter().map(|cut| cut.1).collect::<Vec<_>>(), ["begins", "ends"]);
        assert_eq!(cuts(&[(500, false)]), []);
    }

    #[test]
    fn long_speech_is_split_and_continues() {
        let mut cutter = Cutter::default();
        // The detector adapts to a steady sound as background noise, so the test alternates like
        // syllables.
        let (mut begun, mut ended) = (0, 0);
        for n in 0..2 * UTTERANCE_MAX {
            let loud = n % 16 < 10;
            let pcm: Vec<i16> =
                (0..FRAME).map(|i| if loud { ((i % 114) as i16 - 57) * 60 } else { 0 }).collect();
            match cutter.push(&pcm) {
                Cut::Begins(_) => begun += 1,
                Cut::Ends => ended += 1,
                Cut::Nothing | Cut::Continues => {}
            }
        }
        assert_eq!((begun, ended), (2, 1), "one is under way");
    }
}
