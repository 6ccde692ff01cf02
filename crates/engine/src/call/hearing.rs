//! Speech recognition of a caller.
//!
//! An [`Utterance`] is a worker job: it reads the leg as PCM, detects where a voice begins and
//! ends, reports this to the call's machine, and passes the audio from the first voice on to a task
//! that runs the recogniser. The recognised text is reported as inputs, too. In each pause, a model
//! estimates whether the caller has finished, if one is installed. The machine decides when the
//! speech has ended.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, warn};

use super::mailbox::Mailbox;
use super::trace::{EventLogWriter, Trace};
use machine::{Input, RecognitionId, RecognitionSettings, SpeechEvent};
use media::opus::Rate;
use media::voice::VoiceDetector;
use media::workers::{Job, JobStatus, Workers};
use media::{FRAME_MS, TapReader};
use model::AuthId;
use speech::recognise::{InterimResult, Recognisers, RecognitionOptions, UtteranceAudio};
use speech::turn_estimator::{SAMPLES_MAX, TurnEstimator};

/// Frames before the first voiced frame that belong to the utterance: a soft onset, and the four
/// frames that the voice detector needs.
const ONSET: usize = 20;
/// Frames after the latest voiced one that are passed on at once: a soft end of a word. A recogniser
/// begins with its work when no more come, which is before the turn is decided.
const TAIL: u64 = 4;
/// Frames that the voice detector needs before it reports a voice.
const DETECTOR_FRAMES: u64 = 4;
/// A voice of this duration pauses the prompt (`docs/reference/xml.md#barge-in`).
const LASTING_MS: u64 = 250;
/// The age of the audio that is read: a packet of 20 ms is sent when it is complete, and the jitter
/// buffer holds two. A voice that still lasts in it has lasted so much longer.
const AGE_MS: u64 = 60;
/// Pauses shorter than this are part of the speech. With a turn model, it is asked this early.
const PAUSE_MS: u64 = 300;
const PAUSE_WITH_TURN_MODEL_MS: u64 = 200;
/// Maximum number of buffered frames of a longer pause. More than the largest `speechEndTimeout`
/// allows.
const PAUSED_MAX: usize = 600;
/// Maximum number of samples that are held for another process: 10 s, more than a hand-over takes.
const HELD_MAX: usize = 160_000;

const HEARING: u8 = 0;
const FINISHED: u8 = 1;
const STOPPED: u8 = 2;

/// A running recognition. Dropping the value stops it; no more events are reported.
pub(super) struct Hearing {
    recognition: RecognitionId,
    settings: RecognitionSettings,
    state: Arc<AtomicU8>,
    utterance: Arc<Mutex<Utterance>>,
    task: AbortHandle,
}

/// A recognition without speech so far, on its way to another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct MovedHearing {
    pub(super) recognition: RecognitionId,
    pub(super) settings: RecognitionSettings,
    voice_detector: VoiceDetector,
    /// The latest audio that the detector has processed, and the audio after it.
    onset: Vec<i16>,
    held: Vec<i16>,
}

/// The services that a recognition needs.
pub(super) struct Listener<'a> {
    pub(super) workers: &'a Workers,
    pub(super) recognisers: &'a Recognisers,
    pub(super) mailbox: &'a Mailbox,
    pub(super) journal: &'a EventLogWriter,
    pub(super) tasks: &'a TaskTracker,
    /// The main account of the call.
    pub(super) account: &'a AuthId,
}

impl Hearing {
    /// Starts to recognise the received audio of `line`.
    pub(super) fn begin(
        recognition: RecognitionId,
        how: RecognitionSettings,
        line: TapReader,
        with: &Listener<'_>,
    ) -> Self {
        Self::start(recognition, how, line, with, |_| {})
    }

    /// Continues a recognition of another process.
    pub(super) fn resume(moved: MovedHearing, line: TapReader, with: &Listener<'_>) -> Self {
        let MovedHearing { recognition, settings, voice_detector, onset, held } = moved;
        Self::start(recognition, settings, line, with, |utterance| {
            if let Some(detector) = &mut utterance.detector {
                detector.continue_with(voice_detector, &onset);
            }
            utterance.process(&held);
        })
    }

    fn start(
        recognition: RecognitionId,
        how: RecognitionSettings,
        line: TapReader,
        with: &Listener<'_>,
        prepare: impl FnOnce(&mut Utterance),
    ) -> Self {
        let state = Arc::new(AtomicU8::new(HEARING));
        let (to, sound) = UtteranceAudio::new();
        let reporter =
            EventReporter { recognition, mailbox: with.mailbox.clone(), state: state.clone() };
        let turns =
            with.recognisers.turn_estimator(&how.language).filter(|_| !how.fixed_silence).map(
                |estimator| {
                    let (turns, pauses) = TurnAudio::new();
                    let account = with.account.clone();
                    let estimates = estimate_turns(estimator, account, pauses, reporter.clone());
                    with.tasks.spawn(estimates.in_current_span());
                    turns
                },
            );
        let mut utterance = Utterance {
            line,
            detector: Some(UtteranceDetector::new(to, turns)),
            held: None,
            reporter: reporter.clone(),
        };
        prepare(&mut utterance);
        let utterance = Arc::new(Mutex::new(utterance));
        with.workers.add(Box::new(UtteranceJob(utterance.clone())));
        let (recognisers, journal) = (with.recognisers.clone(), with.journal.clone());
        let options = options(&how, with.account);
        let task = understand(recognisers, options, sound, reporter, journal).in_current_span();
        let task = with.tasks.spawn(task).abort_handle();
        Self { recognition, settings: how, state, utterance, task }
    }

    pub(super) fn is(&self, recognition: RecognitionId) -> bool {
        self.recognition == recognition
    }

    /// Ends the audio. The recogniser then reports the result.
    pub(super) fn finish(&self) {
        self.state.store(FINISHED, Ordering::Release);
    }

    /// Whether the caller has spoken, or the result is awaited.
    pub(super) fn is_busy(&self) -> bool {
        let hears = self.state.load(Ordering::Acquire) == HEARING;
        !hears || lock(&self.utterance).detector.as_ref().is_none_or(|detector| detector.begun)
    }

    /// Holds the audio from now on, without events. Returns `false` if the recognition is busy.
    pub(super) fn hold(&self) -> bool {
        // Locked first, so that no voice begins in between.
        let mut utterance = lock(&self.utterance);
        let hears = self.state.load(Ordering::Acquire) == HEARING;
        let is_silent = utterance.detector.as_ref().is_some_and(|detector| !detector.begun);
        if hears && is_silent {
            utterance.held = Some(Vec::new());
        }
        hears && is_silent
    }

    /// Processes the audio that was held, and continues.
    pub(super) fn release(&self) {
        let mut utterance = lock(&self.utterance);
        if let Some(held) = utterance.held.take() {
            utterance.process(&held);
        }
    }

    /// Ends a recognition that [holds](Hearing::hold) its audio, to continue it in another process.
    /// The audio of its tap must have ended.
    pub(super) fn detach(self) -> Option<MovedHearing> {
        let mut utterance = lock(&self.utterance);
        utterance.read();
        let held = utterance.held.take()?;
        let detector = utterance.detector.take()?;
        Some(MovedHearing {
            recognition: self.recognition,
            settings: self.settings.clone(),
            voice_detector: detector.voice_detector,
            onset: detector.kept.into_iter().flatten().collect(),
            held,
        })
    }
}

fn lock(utterance: &Mutex<Utterance>) -> MutexGuard<'_, Utterance> {
    utterance.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.state.store(STOPPED, Ordering::Release);
        self.task.abort();
    }
}

/// Reports the events of a recognition to its call.
#[derive(Clone)]
struct EventReporter {
    recognition: RecognitionId,
    mailbox: Mailbox,
    state: Arc<AtomicU8>,
}

impl EventReporter {
    fn tell(&self, what: SpeechEvent) {
        if self.state.load(Ordering::Acquire) != STOPPED {
            self.mailbox.tell(Input::Speech { recognition: self.recognition, event: what });
        }
    }
}

/// The settings of a recognition for a call of this main account.
fn options(settings: &RecognitionSettings, account: &AuthId) -> RecognitionOptions {
    let RecognitionSettings {
        language,
        hints,
        model,
        interim,
        profanity_filter,
        hidden: _,
        fixed_silence: _,
    } = settings.clone();
    let account = Some(account.clone());
    RecognitionOptions { language, hints, model, interim, profanity_filter, is_live: true, account }
}

/// Runs the recogniser on the audio to its end and reports the result.
async fn understand(
    recognisers: Recognisers,
    ask: RecognitionOptions,
    mut sound: UtteranceAudio,
    reporter: EventReporter,
    journal: EventLogWriter,
) {
    // Don't start the recogniser before there is speech.
    if !sound.wait_for_speech().await {
        return;
    }
    let so_far = reporter.clone();
    let interims = move |InterimResult { stable, unstable, stability }| {
        so_far.tell(SpeechEvent::Interim { stable, unstable, stability });
    };
    match recognisers.recognise(&ask, &mut sound, interims).await {
        Ok(recognised) => {
            journal.trace(&Trace::Recognised {
                recognition: reporter.recognition,
                recogniser: recognised.recogniser.to_owned(),
                language: ask.language,
            });
            reporter.tell(SpeechEvent::Understood {
                text: recognised.text,
                confidence: recognised.confidence,
            })
        }
        Err(error) => {
            warn!(%error, "speech recognition failed");
            reporter.tell(SpeechEvent::Failed { reason: error.to_string() });
        }
    }
}

/// A pause of the caller.
#[derive(Clone)]
struct Pause {
    number: u64,
    /// The speech before the pause, with the pause.
    pcm: Arc<Vec<i16>>,
}

/// The pauses of an utterance whose turn is to be estimated. Only the latest one is kept.
struct Pauses {
    latest: watch::Receiver<Option<Pause>>,
    /// The number of the current pause, which changes when the caller speaks again.
    current: Arc<AtomicU64>,
}

/// Collects the audio before pauses. Runs on the worker's thread.
struct TurnAudio {
    to: watch::Sender<Option<Pause>>,
    current: Arc<AtomicU64>,
    pcm: VecDeque<i16>,
}

impl TurnAudio {
    fn new() -> (Self, Pauses) {
        let (to, latest) = watch::channel(None);
        let current = Arc::new(AtomicU64::new(0));
        (Self { to, current: current.clone(), pcm: VecDeque::new() }, Pauses { latest, current })
    }

    /// Adds a frame and keeps the last `samples_max` samples.
    fn push(&mut self, frame: &[i16], samples_max: usize) {
        self.pcm.extend(frame);
        self.pcm.drain(..self.pcm.len().saturating_sub(samples_max));
    }

    /// Handles the beginning of a voice: the estimate of an earlier pause is outdated.
    fn end_pause(&self) {
        self.current.fetch_add(1, Ordering::AcqRel);
    }

    /// Requests an estimate.
    fn begin_pause(&self) {
        let pcm = Arc::new(self.pcm.iter().copied().collect());
        self.to.send_replace(Some(Pause { number: self.current.load(Ordering::Acquire), pcm }));
    }
}

/// Estimates the turn in each pause, until the utterance ends. An estimate in progress is completed,
/// because a helper cannot interrupt it, but not reported if the caller speaks again.
async fn estimate_turns(
    estimator: TurnEstimator,
    account: AuthId,
    mut pauses: Pauses,
    reporter: EventReporter,
) {
    estimator.prepare().await;
    while pauses.latest.changed().await.is_ok() {
        let pause = pauses.latest.borrow_and_update().clone();
        let is_current = |pause: &Pause| {
            pauses.current.load(Ordering::Acquire) == pause.number
                && reporter.state.load(Ordering::Acquire) == HEARING
        };
        let Some(pause) = pause.filter(is_current) else { continue };
        match estimator.estimate(Some(&account), &pause.pcm).await {
            Ok(finished) if is_current(&pause) => reporter.tell(SpeechEvent::Turn {
                // Rounded down, so that 100 means certainty.
                finished: (finished.clamp(0.0, 1.0) * 100.0) as u8,
                model: estimator.name().to_owned(),
            }),
            Ok(_) => {}
            Err(error) => warn!(%error, "turn estimate failed"),
        }
    }
}

/// Reads the leg's audio.
struct Utterance {
    line: TapReader,
    /// `None` after the end of the audio.
    detector: Option<UtteranceDetector>,
    /// The audio that is held. `None` if it is processed.
    held: Option<Vec<i16>>,
    reporter: EventReporter,
}

impl Utterance {
    /// Reads the audio that has arrived.
    fn read(&mut self) {
        while let Some(frame) = self.line.next() {
            if let Some(held) = &mut self.held {
                let space = HELD_MAX.saturating_sub(held.len());
                held.extend(frame.received.iter().take(space));
            } else if let Some(detector) = &mut self.detector
                && let Some(event) = detector.push(frame.received)
            {
                self.reporter.tell(event);
            }
        }
    }

    /// Processes audio of an earlier time.
    fn process(&mut self, pcm: &[i16]) {
        let Some(detector) = &mut self.detector else { return };
        for event in pcm.chunks_exact(Rate::Hz16000.frame()).filter_map(|pcm| detector.push(pcm)) {
            self.reporter.tell(event);
        }
    }
}

/// The worker job of an [`Utterance`].
struct UtteranceJob(Arc<Mutex<Utterance>>);

impl Job for UtteranceJob {
    fn run(&mut self, _now: Instant) -> JobStatus {
        let mut utterance = lock(&self.0);
        utterance.read();
        let reporter = &utterance.reporter;
        let hears = reporter.state.load(Ordering::Acquire) == HEARING && !utterance.line.is_over();
        if hears && reporter.mailbox.is_open() && utterance.detector.is_some() {
            return JobStatus::Running;
        }
        // Closes the audio channel, which ends the utterance.
        utterance.detector = None;
        JobStatus::Done
    }
}

/// Runs the voice detector frame by frame, in media time, and passes on the audio of the utterance.
struct UtteranceDetector {
    voice_detector: VoiceDetector,
    to: mpsc::Sender<Vec<i16>>,
    /// Number of frames so far.
    at: u64,
    /// The current voice: its first frame, its latest voiced frame, and whether `Lasting` was
    /// reported. `None` during silence.
    voice: Option<(u64, u64, bool)>,
    /// Whether a voice has begun. All audio after that belongs to the utterance.
    begun: bool,
    /// Frames that are not passed on yet: before the first voice, or during a pause.
    kept: VecDeque<Vec<i16>>,
    /// `None` if turns are not estimated.
    turns: Option<TurnAudio>,
}

impl UtteranceDetector {
    fn new(to: mpsc::Sender<Vec<i16>>, turns: Option<TurnAudio>) -> Self {
        Self {
            voice_detector: VoiceDetector::default(),
            to,
            at: 0,
            voice: None,
            begun: false,
            kept: VecDeque::new(),
            turns,
        }
    }

    /// Continues after another detector, which has heard no voice. `onset` is the latest audio that it
    /// has processed.
    fn continue_with(&mut self, voice_detector: VoiceDetector, onset: &[i16]) {
        self.voice_detector = voice_detector;
        let onset = onset.chunks_exact(Rate::Hz16000.frame());
        self.kept.extend(onset.map(<[i16]>::to_vec).take(ONSET));
        if let Some(turns) = &mut self.turns {
            self.kept.iter().for_each(|pcm| turns.push(pcm, SAMPLES_MAX));
        }
    }

    /// Processes the next 20 ms of mono 16 kHz audio. Returns an event if the state changed.
    fn push(&mut self, pcm: &[i16]) -> Option<SpeechEvent> {
        let voiced = self.voice_detector.push(pcm);
        self.at += 1;
        let pause_ms = if self.turns.is_some() { PAUSE_WITH_TURN_MODEL_MS } else { PAUSE_MS };
        let event = match (&mut self.voice, voiced) {
            (voice @ None, true) => {
                *voice = Some((self.at, self.at, false));
                Some(SpeechEvent::Began)
            }
            (Some((first, last, lasting)), true) => {
                *last = self.at;
                let voice_ms = (self.at - *first + DETECTOR_FRAMES) * u64::from(FRAME_MS);
                let lasts = voice_ms + AGE_MS >= LASTING_MS;
                (lasts && !std::mem::replace(lasting, true)).then_some(SpeechEvent::Lasting)
            }
            (Some((_, last, _)), false) => {
                let ago_ms = (self.at - *last) * u64::from(FRAME_MS);
                (ago_ms >= pause_ms).then(|| {
                    self.voice = None;
                    self.voice_detector.reset();
                    SpeechEvent::Ended { ago_ms }
                })
            }
            (None, false) => None,
        };
        self.pass_on(pcm);
        if let Some(turns) = &mut self.turns {
            turns.push(pcm, if self.begun { SAMPLES_MAX } else { ONSET * pcm.len() });
            match event {
                Some(SpeechEvent::Began) => turns.end_pause(),
                Some(SpeechEvent::Ended { .. }) => turns.begin_pause(),
                _ => {}
            }
        }
        event
    }

    fn pass_on(&mut self, pcm: &[i16]) {
        self.begun |= self.voice.is_some();
        self.kept.push_back(pcm.to_vec());
        if self.voice.is_some_and(|(_, last, _)| self.at - last <= TAIL) {
            for frame in self.kept.drain(..) {
                // If the recogniser is a minute behind, the rest is dropped.
                let _ = self.to.try_send(frame);
            }
        }
        let most = if self.begun { PAUSED_MAX } else { ONSET };
        if self.kept.len() > most {
            self.kept.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ONSET, SpeechEvent, TurnAudio, UtteranceDetector};
    use crate::call::hearing::SAMPLES_MAX;
    use std::sync::atomic::Ordering;
    use tokio::sync::mpsc;

    const FRAME: usize = 320;

    /// Generates frames of a buzz or of silence.
    fn sound(frames: usize, loud: bool) -> Vec<[i16; FRAME]> {
        let sample = |i: usize| if loud { ((i % 114) as i16 - 57) * 60 } else { 0 };
        (0..frames).map(|n| std::array::from_fn(|i| sample(n * FRAME + i))).collect()
    }

    /// Returns the events for these stretches, each with its frame number, and the number of frames
    /// that were passed on.
    fn events(stretches: &[(usize, bool)]) -> (Vec<(usize, SpeechEvent)>, usize) {
        let (to, mut from) = mpsc::channel(10_000);
        let mut detector = UtteranceDetector::new(to, None);
        let frames = stretches.iter().flat_map(|(frames, loud)| sound(*frames, *loud));
        let events =
            frames.enumerate().filter_map(|(n, frame)| Some((n, detector.push(&frame)?))).collect();
        let passed = std::iter::from_fn(|| from.try_recv().ok()).count();
        (events, passed)
    }

    #[test]
    fn a_sentence_begins_lasts_and_ends_with_its_onset() {
        let (events, passed) = events(&[(50, false), (60, true), (50, false)]);
        assert_eq!(
            events,
            [
                (53, SpeechEvent::Began),
                // At least 190 ms of voice, in audio that is 60 ms old.
                (59, SpeechEvent::Lasting),
                (124, SpeechEvent::Ended { ago_ms: 300 }),
            ]
        );
        // The frames before the voice, the voice, and the begin of the pause.
        assert_eq!(passed, ONSET - 3 + 60 + 4, "{passed}");
    }

    #[test]
    fn a_cough_is_not_lasting_and_a_pause_within_speech_is_passed_on() {
        let (cough, _) = events(&[(50, false), (8, true), (30, false)]);
        assert_eq!(cough, [(53, SpeechEvent::Began), (72, SpeechEvent::Ended { ago_ms: 300 })]);
        let (sentence, passed) =
            events(&[(50, false), (30, true), (40, false), (30, true), (30, false)]);
        assert_eq!(sentence.len(), 6, "{sentence:?}");
        assert_eq!(passed, ONSET - 3 + 30 + 40 + 30 + 4);
    }

    #[test]
    fn the_turn_of_each_pause_is_estimated_until_the_caller_speaks_again() {
        let (to, _from) = mpsc::channel(10_000);
        let (turns, mut pauses) = TurnAudio::new();
        let mut detector = UtteranceDetector::new(to, Some(turns));
        let mut push = |frames, loud| -> Vec<SpeechEvent> {
            sound(frames, loud).iter().filter_map(|frame| detector.push(frame)).collect()
        };
        push(50, false);
        assert!(!pauses.latest.has_changed().unwrap(), "silence is no pause");
        push(60, true);
        assert_eq!(push(13, false), [SpeechEvent::Ended { ago_ms: 200 }]);
        let pause = pauses.latest.borrow_and_update().clone().unwrap();
        // The onset, the voice, and the pause until its report.
        assert_eq!(pause.pcm.len(), (ONSET - 3 + 60 + 10) * FRAME);
        let current = || pauses.current.load(Ordering::Acquire);
        assert_eq!(current(), pause.number);
        push(10, true);
        assert_ne!(current(), pause.number, "the caller speaks again");
        // Long speech is cut at its beginning.
        push(450, true);
        push(20, false);
        let pause = pauses.latest.borrow_and_update().clone().unwrap();
        assert_eq!((pause.pcm.len(), pause.number), (SAMPLES_MAX, current()));
    }

    #[test]
    fn silence_reports_and_passes_on_nothing() {
        assert_eq!(events(&[(500, false)]), (Vec::new(), 0));
    }
}
