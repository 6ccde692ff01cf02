//! Live captions: what each side of a web leg says, as text for the endpoint's phone, while it asks for them.
//!
//! A job beside the shards reads both sides of the leg as PCM. A `Cutter` for each decides where an utterance begins and
//! ends, and a task for each has the recognisers hear one after another. A phone that wants none costs nothing: there is no
//! tap, job or task then. What was said is told and kept nowhere; it is no fact of the call, and its log has none of it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug};

use super::phones;
use media::opus::Rate;
use media::voice::VoiceDetector;
use media::workers::{Job, JobStatus, Workers};
use media::{Buffering, LegHandle, TapReader, TapSides};
use speech::recognise::{InterimResult, Recognisers, RecognitionOptions, UtteranceAudio};

/// Frames before the first voice that are part of it: a soft onset, and those that the judge waits for.
const ONSET: usize = 20;
/// Frames of quiet that end an utterance: 700 ms. Shorter pauses are breath.
const PAUSE: usize = 35;
/// Frames of the longest utterance: who goes on for longer is read every 15 s all the same.
const UTTERANCE_MAX: usize = 750;
/// Utterances of a side that wait for the one before them; where a recogniser is slower than people speak, further ones are
/// left out.
const WAITING_MAX: usize = 3;
/// Failures in a row after which the phone is told that there are no captions.
const FAILURES_MAX: u32 = 3;

/// Who speaks, as the phone sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// Whoever the phone hears.
    Them,
    /// The phone itself.
    You,
}

impl Speaker {
    /// The protocol's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Them => "them",
            Self::You => "you",
        }
    }
}

/// What somebody said, or is saying.
#[derive(Clone, PartialEq, Eq)]
pub struct Caption {
    pub speaker: Speaker,
    /// Counts the call's utterances, from 1: what is told later of the same one takes its place.
    pub line: u32,
    /// All of the utterance so far. Empty with `last`: there were no words after all.
    pub text: String,
    /// It is complete.
    pub last: bool,
}

/// A web leg's captions. Dropping them ends them.
pub(super) struct Captions {
    stopped: Arc<AtomicBool>,
    tasks: [AbortHandle; 2],
}

/// What captions are made with.
pub(super) struct Maker<'a> {
    pub(super) workers: &'a Workers,
    pub(super) recognisers: &'a Recognisers,
    pub(super) tasks: &'a TaskTracker,
    pub(super) phone: &'a Arc<phones::Line>,
}

impl Captions {
    /// Captions of what is said in `language` at `leg` from now on.
    pub(super) fn begin(language: &str, leg: &LegHandle, with: &Maker<'_>) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let lines = Arc::new(AtomicU32::new(0));
        let side = |speaker| {
            let (to, utterances) = mpsc::channel(WAITING_MAX);
            let writer = Writer {
                speaker,
                ask: RecognitionOptions {
                    language: language.to_owned(),
                    interim: true,
                    ..RecognitionOptions::default()
                },
                recognisers: with.recognisers.clone(),
                phone: with.phone.clone(),
                lines: lines.clone(),
                stopped: stopped.clone(),
            };
            let task = with.tasks.spawn(writer.write(utterances).in_current_span());
            (Ear { cutter: Cutter::default(), to, open: None }, task.abort_handle())
        };
        let ((them, first), (you, second)) = (side(Speaker::Them), side(Speaker::You));
        let line = TapReader::new(leg.tap(TapSides::Both), Rate::Hz16000, Buffering::Jitter);
        with.workers.add(Box::new(Captioning { line, them, you, stopped: stopped.clone() }));
        Self { stopped, tasks: [first, second] }
    }
}

impl Drop for Captions {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Release);
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

/// The job.
struct Captioning {
    line: TapReader,
    them: Ear,
    you: Ear,
    stopped: Arc<AtomicBool>,
}

impl Job for Captioning {
    fn run(&mut self, _now: Instant) -> JobStatus {
        while let Some(frame) = self.line.next() {
            self.you.hear(frame.received);
            self.them.hear(frame.sent);
        }
        // With the ears the sound ends, and so do the tasks.
        if self.stopped.load(Ordering::Acquire) || self.line.is_over() {
            JobStatus::Done
        } else {
            JobStatus::Running
        }
    }
}

/// One side's sound on its way to its writer.
struct Ear {
    cutter: Cutter,
    to: mpsc::Sender<UtteranceAudio>,
    /// The utterance that goes on.
    open: Option<mpsc::Sender<Vec<i16>>>,
}

impl Ear {
    fn hear(&mut self, pcm: &[i16]) {
        match self.cutter.hear(pcm) {
            Cut::Nothing => {}
            Cut::Begins(onset) => {
                let (pieces, sound) = UtteranceAudio::new();
                // There is room: nothing is in it yet.
                let _ = pieces.try_send(onset);
                self.open = self.to.try_send(sound).is_ok().then_some(pieces);
            }
            Cut::GoesOn => self.pass_on(pcm),
            Cut::Ends => {
                self.pass_on(pcm);
                self.open = None;
            }
        }
    }

    fn pass_on(&self, pcm: &[i16]) {
        if let Some(pieces) = &self.open {
            // A recogniser that is a minute behind hears no more.
            let _ = pieces.try_send(pcm.to_vec());
        }
    }
}

/// What a frame is to its side's utterances.
#[derive(Debug, PartialEq, Eq)]
enum Cut {
    /// Nobody speaks.
    Nothing,
    /// Somebody has begun: this frame, and what was heard just before it.
    Begins(Vec<i16>),
    GoesOn,
    /// It is the last of its utterance.
    Ends,
}

/// Cuts a side's sound into utterances, in media time.
#[derive(Default)]
struct Cutter {
    judge: VoiceDetector,
    /// Of the utterance that goes on: its frames, and how many of the latest were quiet.
    open: Option<(usize, usize)>,
    /// The latest frames while nobody speaks.
    kept: VecDeque<Vec<i16>>,
}

impl Cutter {
    /// Takes in the next 20 ms.
    fn hear(&mut self, pcm: &[i16]) -> Cut {
        let voiced = self.judge.push(pcm);
        if let Some((frames, quiet)) = &mut self.open {
            *frames += 1;
            *quiet = if voiced { 0 } else { *quiet + 1 };
            if *quiet < PAUSE && *frames < UTTERANCE_MAX {
                return Cut::GoesOn;
            }
            if *quiet >= PAUSE {
                self.judge.reset();
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

/// Has one side's utterances recognised, one after another, so that lines come in their order.
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
            // What documents ask for goes first.
            if !self.recognisers.has_spare_capacity() {
                continue;
            }
            let line = self.lines.fetch_add(1, Ordering::Relaxed) + 1;
            let mut told = false;
            let so_far = |InterimResult { stable, unstable, .. }: InterimResult| {
                told = true;
                let text = [stable, unstable]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join(" ");
                self.tell(Caption { speaker: self.speaker, line, text, last: false });
            };
            let text = match self.recognisers.recognise(&self.ask, &mut sound, so_far).await {
                Ok(said) => {
                    failures = 0;
                    said.text
                }
                Err(error) => {
                    debug!(%error, "no caption");
                    failures += 1;
                    String::new()
                }
            };
            // What was shown on the way is taken back where there were no words.
            if told || !text.is_empty() {
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

    /// Where utterances begin (with how many frames at once) and end, of stretches of frames with a buzz or without.
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
            match cutter.hear(&pcm) {
                Cut::Nothing | Cut::GoesOn => {}
                Cut::Begins(onset) => cuts.push((n, "begins", onset.len() / FRAME)),
                Cut::Ends => cuts.push((n, "ends", 0)),
            }
        }
        cuts
    }

    #[test]
    fn an_utterance_has_its_onset_and_ends_with_a_pause() {
        // The judge waits for four frames.
        let expected = [(53, "begins", ONSET + 1), (50 + 60 + PAUSE - 1, "ends", 0)];
        assert_eq!(cuts(&[(50, false), (60, true), (100, false)]), expected);
    }

    #[test]
    fn a_breath_is_no_end_and_a_quiet_line_is_nothing() {
        let told = cuts(&[(50, false), (30, true), (PAUSE - 5, false), (30, true), (60, false)]);
        assert_eq!(told.iter().map(|cut| cut.1).collect::<Vec<_>>(), ["begins", "ends"]);
        assert_eq!(cuts(&[(500, false)]), []);
    }

    #[test]
    fn who_goes_on_is_cut_and_heard_on() {
        let mut cutter = Cutter::default();
        // Syllables: a steady sound would be taken for the line's own before long.
        let (mut begun, mut ended) = (0, 0);
        for n in 0..2 * UTTERANCE_MAX {
            let loud = n % 16 < 10;
            let pcm: Vec<i16> =
                (0..FRAME).map(|i| if loud { ((i % 114) as i16 - 57) * 60 } else { 0 }).collect();
            match cutter.hear(&pcm) {
                Cut::Begins(_) => begun += 1,
                Cut::Ends => ended += 1,
                Cut::Nothing | Cut::GoesOn => {}
            }
        }
        assert_eq!((begun, ended), (2, 1), "one is under way");
    }
}
