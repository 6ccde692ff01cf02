//! Collecting keys and speech: the engine behind `GetInput` and `GetDigits` (`plivo-xml.md` §5.5, §5.6).
//!
//! One attempt is: prompt (stopped by the first key, or by a voice) → listening, under up to three clocks → keys, what was
//! said, or nothing. Type-ahead is taken first, as if pressed the moment the attempt began. Whichever starts first wins:
//! a key stops the recognition, and once words are heard keys mean nothing.

use super::Flow;
use super::hear::Hearing;
use super::prompt::Stretch;
use super::wait::Early;
use crate::activity::{self, Activity, Finished, Progress, Stop, Turn};
use crate::contract::display::foreign;
use crate::contract::{
    MediaOrder, Param, Params, PlayId, RecognitionId, SoundItem, SpeechFact, Voice,
};
use crate::desk::Desk;
use crate::keys::{Key, KeyBuffer, Rules};
use crate::params;
use crate::picture::{Sketch, text, word};
use crate::timers::Timer;
use model::Digit;
use xml::ast::Target;

/// The clocks of a collection; each is `None` where the element has no such clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    /// D, restarted by each key.
    pub(super) inter_digit_ms: u64,
    /// X, from the end of the prompt or the barge-in.
    pub(super) execution_ms: Option<u64>,
    /// S, from the end of the prompt, until the first key.
    pub(super) start_input_ms: Option<u64>,
}

/// Where the keys go.
pub(super) struct Action {
    pub(super) target: Target,
    pub(super) redirect: bool,
    /// The parameters that carry the keys.
    pub(super) params: fn(Param) -> Params,
}

/// What became of a collection.
enum Collected {
    /// It goes on.
    More,
    /// All attempts are used up.
    NoInput,
    Input(Entered),
}

/// What the caller entered.
enum Entered {
    Digits(Param),
    /// `confidence` in per cent.
    Speech {
        text: Param,
        confidence: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Prompt(PlayId),
    /// A wait within the prompt, that what is heard may end.
    Quiet {
        early: Early,
    },
    Listening,
    /// The caller has spoken: what was said is being found out.
    Transcribing,
    /// The sound that an invalid key brings; the attempt is used up.
    Invalid(PlayId),
}

/// What one key did.
enum Pressed {
    Unheard,
    More,
    Complete,
    /// The finishing key with nothing before it: no input.
    Bare,
    Invalid,
}

/// A `GetInput` or `GetDigits` being carried out.
pub(super) struct Collection {
    rules: Rules,
    clocks: Clocks,
    attempts_left: u8,
    prompt: Vec<Stretch>,
    /// The next stretch of the prompt.
    next: usize,
    invalid_sound: Option<SoundItem>,
    action: Option<Action>,
    digits: String,
    /// One of `digits` must stay out of logs.
    secret: bool,
    hearing: Option<Hearing>,
    phase: Phase,
}

impl Collection {
    pub(super) fn new(
        rules: Rules,
        clocks: Clocks,
        attempts: u8,
        prompt: Vec<Stretch>,
        invalid_sound: Option<SoundItem>,
        action: Option<Action>,
    ) -> Self {
        let (digits, phase) = (String::new(), Phase::Listening);
        Self {
            rules,
            clocks,
            attempts_left: attempts,
            prompt,
            next: 0,
            invalid_sound,
            action,
            digits,
            secret: rules.hidden,
            hearing: None,
            phase,
        }
    }

    /// Speech is listened for as well.
    pub(super) fn hearing(mut self, hearing: Hearing) -> Self {
        self.hearing = Some(hearing);
        self
    }

    /// Begins the first attempt.
    pub(super) fn start(mut self, turn: &mut Turn<'_>) -> Flow {
        let collected = self.next_attempt(turn);
        match self.finished(turn, collected) {
            Some(finished) => Flow::Finished(finished),
            None => Flow::run(self),
        }
    }

    /// How the element ended. `None` while the collection goes on.
    fn finished(&mut self, turn: &mut Turn<'_>, collected: Collected) -> Option<Finished> {
        let entered = match collected {
            Collected::More => return None,
            Collected::NoInput => None,
            Collected::Input(entered) => Some(entered),
        };
        turn.keys.clear(self.rules.hidden);
        let note = if entered.is_some() { "input" } else { "no input" };
        let action = entered.and_then(|entered| self.action(entered));
        Some(Finished::done(note).with_action(action))
    }

    fn progress(&mut self, turn: &mut Turn<'_>, collected: Collected) -> Progress {
        self.finished(turn, collected).map_or(Progress::Pending, Progress::Finished)
    }

    /// Whether that is its prompt, or the sound an invalid key brings.
    fn is_playing(&self, which: PlayId) -> bool {
        matches!(self.phase, Phase::Prompt(play) | Phase::Invalid(play) if play == which)
    }

    /// Where that is to go, and the parameters that carry it.
    fn action(&mut self, entered: Entered) -> Option<activity::Action> {
        let Action { target, redirect, params } = self.action.take()?;
        let params = match entered {
            Entered::Digits(digits) => params(digits),
            Entered::Speech { text, confidence } => params::speech_of_get_input(text, confidence),
        };
        Some(activity::Action { target, redirect, params, repeat_after_hangup: false })
    }

    /// A playlist came to its end.
    fn sound_played(&mut self, turn: &mut Turn<'_>, which: PlayId) -> Collected {
        match self.phase {
            Phase::Prompt(play) if play == which => {
                self.go_on(turn.desk);
                Collected::More
            }
            Phase::Invalid(play) if play == which => self.next_attempt(turn),
            // One that was stopped in the moment it ended.
            Phase::Prompt(_)
            | Phase::Quiet { .. }
            | Phase::Invalid(_)
            | Phase::Listening
            | Phase::Transcribing => Collected::More,
        }
    }

    /// A key was pressed.
    fn pressed(&mut self, turn: &mut Turn<'_>, key: Key) -> Collected {
        if !self.rules.hears_keys || self.hearing.as_ref().is_some_and(Hearing::has_won) {
            return Collected::More;
        }
        match self.phase {
            Phase::Listening => {}
            // The speech came first. Should it turn out to have no words, the next attempt begins with this key.
            Phase::Transcribing => {
                turn.keys.push(key);
                return Collected::More;
            }
            // Barge-in: the rest of the prompt is skipped, the clocks start now.
            Phase::Prompt(_) | Phase::Quiet { .. } => {
                self.stop_prompt(turn.desk);
                self.start_execution(turn.desk);
            }
            // The key interrupts the sound and is the first of the next attempt.
            Phase::Invalid(play) => {
                turn.desk.media(MediaOrder::Stop { play });
                if !self.take_attempt() {
                    return Collected::NoInput;
                }
                self.start_execution(turn.desk);
            }
        }
        self.phase = Phase::Listening;
        self.hear_no_more(turn.desk);
        match self.press(key) {
            Pressed::Unheard => Collected::More,
            Pressed::More => {
                self.heard_one(turn.desk);
                Collected::More
            }
            Pressed::Complete => self.complete(turn.desk),
            Pressed::Bare => self.next_attempt(turn),
            Pressed::Invalid => self.spoiled(turn.desk).unwrap_or_else(|| self.next_attempt(turn)),
        }
    }

    /// Something about what the caller says.
    fn heard(
        &mut self,
        turn: &mut Turn<'_>,
        recognition: RecognitionId,
        fact: SpeechFact,
    ) -> Collected {
        let phase = self.phase;
        let Some(hearing) = self.hearing.as_mut().filter(|hearing| hearing.is(recognition)) else {
            return Collected::More;
        };
        match fact {
            SpeechFact::Began => {
                hearing.voice(turn.desk, phase == Phase::Listening);
                if phase == Phase::Listening {
                    turn.desk.timers.clear(Timer::StartInput);
                }
            }
            SpeechFact::Lasting => {
                hearing.voice(turn.desk, true);
                self.spoken_to(turn.desk);
            }
            SpeechFact::Ended { ago_ms } => match phase {
                // Too short to be speech, over a prompt: a cough, or an echo. What follows is heard afresh.
                Phase::Prompt(_) | Phase::Quiet { .. } if !hearing.has_begun() => {
                    hearing.begin(turn.desk)
                }
                Phase::Prompt(_) | Phase::Quiet { .. } | Phase::Listening | Phase::Invalid(_) => {
                    hearing.quiet(turn.desk, ago_ms);
                }
                Phase::Transcribing => {}
            },
            SpeechFact::Interim { stable, unstable, stability } => {
                hearing.interim(turn.desk, stable, unstable, stability);
                self.spoken_to(turn.desk);
            }
            SpeechFact::Understood { text, confidence } => {
                hearing.closed(turn.desk);
                if text.is_empty() {
                    return self.no_words(turn);
                }
                let text = hearing.words(text);
                self.spoken_to(turn.desk);
                Self::stop_clocks(turn.desk);
                return Collected::Input(Entered::Speech { text, confidence });
            }
            SpeechFact::Failed { reason } => {
                hearing.closed(turn.desk);
                let reason = foreign(&reason);
                turn.desk.remark(format!(
                    "speech could not be recognised: {reason}; it counts as no input"
                ));
                return self.no_words(turn);
            }
            SpeechFact::Unavailable => hearing.unavailable(turn.desk),
        }
        Collected::More
    }

    /// What is heard of the prompt, or of the sound that an invalid key brings, ends now.
    fn stop_prompt(&self, desk: &mut Desk) {
        match self.phase {
            Phase::Prompt(play) | Phase::Invalid(play) => desk.media(MediaOrder::Stop { play }),
            Phase::Quiet { early } => early.stop(desk),
            Phase::Listening | Phase::Transcribing => {}
        }
    }

    /// The call ends, and its media with it: nobody listens any more.
    fn hear_no_more(&mut self, desk: &mut Desk) {
        if let Some(hearing) = &mut self.hearing {
            hearing.stop(desk);
        }
    }

    /// One of its clocks ran out. What was typed or said counts; nothing is an attempt used up.
    fn timed_out(&mut self, turn: &mut Turn<'_>, timer: Timer) -> Collected {
        if matches!(timer, Timer::Wait | Timer::Silence) {
            if let Phase::Quiet { early } = self.phase {
                early.stop(turn.desk);
                self.go_on(turn.desk);
            }
            return Collected::More;
        }
        match (timer, &mut self.hearing) {
            (Timer::Interim, Some(hearing)) => {
                hearing.tell(turn.desk);
                Collected::More
            }
            (Timer::Transcript, Some(hearing)) => {
                hearing.stop(turn.desk);
                turn.desk.remark(
                    "speech could not be recognised: no result came in time; it counts as no input"
                        .to_owned(),
                );
                self.next_attempt(turn)
            }
            // Also where X runs out while somebody speaks: the result so far is used.
            (_, Some(hearing)) if hearing.has_begun() => {
                Self::stop_clocks(turn.desk);
                hearing.finish(turn.desk);
                self.phase = Phase::Transcribing;
                Collected::More
            }
            _ if self.digits.is_empty() => self.next_attempt(turn),
            _ => self.complete(turn.desk),
        }
    }

    /// A voice counts: it stops the prompt, and the clocks start.
    fn spoken_to(&mut self, desk: &mut Desk) {
        desk.timers.clear(Timer::StartInput);
        if matches!(self.phase, Phase::Prompt(_) | Phase::Quiet { .. }) {
            self.stop_prompt(desk);
            self.phase = Phase::Listening;
            self.start_execution(desk);
        }
    }

    /// There was speech, and no words in it: no input. What is heard over a prompt costs no attempt.
    fn no_words(&mut self, turn: &mut Turn<'_>) -> Collected {
        match self.phase {
            Phase::Prompt(_) | Phase::Quiet { .. } | Phase::Invalid(_) => Collected::More,
            Phase::Listening | Phase::Transcribing => self.next_attempt(turn),
        }
    }

    /// Begins the next attempt: type-ahead first, then the prompt.
    fn next_attempt(&mut self, turn: &mut Turn<'_>) -> Collected {
        Self::stop_clocks(turn.desk);
        self.hear_no_more(turn.desk);
        while self.take_attempt() {
            match self.take_type_ahead(turn.keys) {
                // Nothing was typed ahead (or nothing is listened for).
                Pressed::Unheard => {
                    if let Some(hearing) = &mut self.hearing {
                        hearing.begin(turn.desk);
                    }
                    self.next = 0;
                    self.go_on(turn.desk);
                    return Collected::More;
                }
                // As a barge-in in the prompt's first moment.
                Pressed::More => {
                    self.phase = Phase::Listening;
                    self.start_execution(turn.desk);
                    self.heard_one(turn.desk);
                    return Collected::More;
                }
                Pressed::Complete => return self.complete(turn.desk),
                Pressed::Bare => {}
                // A key typed after it interrupts the sound before it was heard.
                Pressed::Invalid => {
                    if turn.keys.is_empty()
                        && let Some(playing) = self.spoiled(turn.desk)
                    {
                        return playing;
                    }
                }
            }
        }
        Collected::NoInput
    }

    /// Feeds type-ahead to this attempt, as far as it takes any.
    fn take_type_ahead(&mut self, keys: &mut KeyBuffer) -> Pressed {
        let mut last = Pressed::Unheard;
        while let Some(key) = keys.pop() {
            match self.press(key) {
                Pressed::Unheard => {}
                Pressed::More => last = Pressed::More,
                ended @ (Pressed::Complete | Pressed::Bare | Pressed::Invalid) => return ended,
            }
        }
        last
    }

    fn press(&mut self, key: Key) -> Pressed {
        let Key { digit, hidden } = key;
        if !self.rules.hears_keys {
            Pressed::Unheard
        } else if self.rules.finish == Some(digit) {
            if self.digits.is_empty() { Pressed::Bare } else { Pressed::Complete }
        } else if !self.rules.valid.has(digit) {
            Pressed::Invalid
        } else {
            self.digits.push(digit.as_char());
            self.secret |= hidden;
            // All of them are ASCII.
            if self.digits.len() >= self.rules.count { Pressed::Complete } else { Pressed::More }
        }
    }

    /// Uses up one attempt, if there is one.
    fn take_attempt(&mut self) -> bool {
        self.digits.clear();
        self.secret = self.rules.hidden;
        match self.attempts_left.checked_sub(1) {
            Some(left) => {
                self.attempts_left = left;
                true
            }
            None => false,
        }
    }

    fn complete(&mut self, desk: &mut Desk) -> Collected {
        Self::stop_clocks(desk);
        let digits = std::mem::take(&mut self.digits);
        let digits = if self.secret { Param::Secret(digits) } else { Param::Plain(digits.into()) };
        Collected::Input(Entered::Digits(digits))
    }

    /// An invalid key: the attempt is used up, its sound plays if there is one.
    fn spoiled(&mut self, desk: &mut Desk) -> Option<Collected> {
        Self::stop_clocks(desk);
        self.digits.clear();
        let sound = self.invalid_sound.clone()?;
        self.phase = Phase::Invalid(desk.play(vec![sound]));
        Some(Collected::More)
    }

    /// The next stretch of the prompt, or its end.
    fn go_on(&mut self, desk: &mut Desk) {
        match self.prompt.get(self.next) {
            None => self.listen(desk),
            Some(Stretch::Sounds(items)) => self.phase = Phase::Prompt(desk.play(items.clone())),
            Some(Stretch::Quiet { ms, early }) => {
                early.begin(desk, *ms);
                self.phase = Phase::Quiet { early: *early };
            }
        }
        self.next = self.next.saturating_add(1);
    }

    /// The prompt is over and no key has come: X and S start.
    fn listen(&mut self, desk: &mut Desk) {
        self.phase = Phase::Listening;
        self.start_execution(desk);
        if let Some(hearing) = self.hearing.as_mut().filter(|hearing| hearing.is_speaking()) {
            hearing.voice(desk, true);
        } else if let Some(ms) = self.clocks.start_input_ms {
            desk.set(Timer::StartInput, ms);
        }
    }

    fn start_execution(&self, desk: &mut Desk) {
        if let Some(ms) = self.clocks.execution_ms {
            desk.set(Timer::Execution, ms);
        }
    }

    /// Input has begun: S is met, D starts again.
    fn heard_one(&self, desk: &mut Desk) {
        desk.timers.clear(Timer::StartInput);
        desk.set(Timer::InterDigit, self.clocks.inter_digit_ms);
    }

    fn stop_clocks(desk: &mut Desk) {
        for clock in [Timer::InterDigit, Timer::Execution, Timer::StartInput] {
            desk.timers.clear(clock);
        }
    }
}

impl Activity for Collection {
    fn played(&mut self, turn: &mut Turn<'_>, play: PlayId) -> Progress {
        let collected = self.sound_played(turn, play);
        self.progress(turn, collected)
    }

    fn play_failed(&mut self, turn: &mut Turn<'_>, play: PlayId, item: u16, reason: &str) {
        if let Some(place) = turn.place
            && self.is_playing(play)
        {
            turn.desk.remark(format!(
                "prompt {} of {place} could not be played: {reason}; it is skipped",
                item + 1
            ));
        }
    }

    fn digit(&mut self, turn: &mut Turn<'_>, key: Key) -> Progress {
        let collected = self.pressed(turn, key);
        self.progress(turn, collected)
    }

    /// The caller's voice, or a beep, while a wait within the prompt listens for it.
    fn voice(&mut self, turn: &mut Turn<'_>, voice: Voice) -> Progress {
        if let Phase::Quiet { early } = self.phase
            && early.heard(turn.desk, voice)
        {
            early.stop(turn.desk);
            self.go_on(turn.desk);
        }
        Progress::Pending
    }

    fn speech(
        &mut self,
        turn: &mut Turn<'_>,
        recognition: RecognitionId,
        event: SpeechFact,
    ) -> Progress {
        let collected = self.heard(turn, recognition, event);
        self.progress(turn, collected)
    }

    fn timer(&mut self, turn: &mut Turn<'_>, timer: Timer) -> Progress {
        let collected = match timer {
            Timer::Wait
            | Timer::Silence
            | Timer::InterDigit
            | Timer::Execution
            | Timer::StartInput
            | Timer::SpeechEnd
            | Timer::Transcript
            | Timer::Interim => self.timed_out(turn, timer),
            // Timers of other instructions.
            _ => return Progress::Pending,
        };
        self.progress(turn, collected)
    }

    fn stop(&mut self, turn: &mut Turn<'_>, why: Stop) {
        match why {
            Stop::CallEnds => self.hear_no_more(turn.desk),
            Stop::Replaced => {
                turn.keys.interrupted(self.rules.hidden);
                Self::stop_clocks(turn.desk);
                self.hear_no_more(turn.desk);
                self.stop_prompt(turn.desk);
            }
        }
    }

    fn hides_digits(&self) -> Option<bool> {
        Some(self.rules.hidden)
    }

    fn stand_in(&self, digit: Digit, _next: Rules) -> Digit {
        self.rules.stand_in(digit)
    }

    fn hides_speech(&self, recognition: RecognitionId) -> Option<bool> {
        let hearing = self.hearing.as_ref().filter(|hearing| hearing.is(recognition));
        hearing.map(|_| self.rules.hidden)
    }

    fn draw(&self, sketch: &mut Sketch) {
        let line = match self.phase {
            Phase::Prompt(play) => [word("prompt_or_key"), text(play.0)],
            Phase::Quiet { .. } => [word("prompts_pause"), text("")],
            Phase::Listening => [word("input"), text("")],
            Phase::Transcribing => [word("what_was_said"), text("")],
            Phase::Invalid(play) => [word("invalid_sound"), text(play.0)],
        };
        sketch.say("waits_for", line);
        if !self.digits.is_empty() {
            let digits =
                if self.secret { "x".repeat(self.digits.len()) } else { self.digits.clone() };
            sketch.say("digits", [text(digits)]);
        }
        if self.hearing.as_ref().is_some_and(Hearing::has_begun) {
            sketch.say("digits", [word("speech_heard")]);
        }
        sketch.say("digits", [word("attempts_left"), text(self.attempts_left)]);
    }
}
