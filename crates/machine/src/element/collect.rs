//! Collecting keys and speech: the engine behind `GetInput` and `GetDigits` (`plivo-xml.md` §5.5, §5.6).
//!
//! One attempt is: prompt (stopped by the first key, or by a voice) → listening, under up to three clocks → keys, what was
//! said, or nothing. Type-ahead is taken first, as if pressed the moment the attempt began. Whichever starts first wins:
//! a key stops the recognition, and once words are heard keys mean nothing.

mod picture;

use super::hear::Hearing;
use super::{Early, Stretch};
use crate::contract::display::foreign;
use crate::contract::{
    MediaOrder, Param, Params, PlayId, RecognitionId, SoundItem, SpeechFact, Voice,
};
use crate::desk::Desk;
use crate::keys::KeyBuffer;
use crate::params;
use crate::timers::Timer;
use model::Digit;
use xml::ast::Target;

/// A set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeySet(u16);

impl KeySet {
    /// `0-9 * #`; letters never reach a collection.
    pub(super) fn all() -> Self {
        Self(0x0fff)
    }
    pub(super) fn of(digits: &[Digit]) -> Self {
        Self(digits.iter().fold(0, |set, d| set | 1 << d.event()))
    }
    fn has(self, digit: Digit) -> bool {
        self.0 & 1 << digit.event() != 0
    }
}

/// What a key means to a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(super) hears_keys: bool,
    /// Ends the input, is no part of it.
    pub(super) finish: Option<Digit>,
    /// So many keys are an input.
    pub(super) count: usize,
    pub(super) valid: KeySet,
    /// `log="false"`.
    pub(crate) hidden: bool,
}

impl Rules {
    /// Rules under which all keys are alike.
    pub(crate) fn taking_all() -> Self {
        Self {
            hears_keys: true,
            finish: None,
            count: usize::MAX,
            valid: KeySet::all(),
            hidden: false,
        }
    }

    /// A key that means the same here and does not tell which was pressed: the finishing key stays itself,
    /// every valid one becomes the first valid one, every invalid one the first invalid one.
    pub(crate) fn stand_in(&self, digit: Digit) -> Digit {
        if digit.is_letter() || self.finish == Some(digit) {
            return digit;
        }
        (0..12)
            .filter_map(Digit::from_event)
            .find(|d| self.finish != Some(*d) && self.valid.has(*d) == self.valid.has(digit))
            .unwrap_or(digit)
    }
}

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
#[derive(Clone)]
pub(crate) struct Action {
    pub(crate) target: Target,
    pub(crate) redirect: bool,
    /// The parameters that carry the keys.
    pub(super) params: fn(Param) -> Params,
}

/// What became of a collection.
pub(crate) enum Collected {
    /// It goes on.
    More,
    /// All attempts are used up.
    NoInput,
    Input(Entered),
}

/// What the caller entered.
pub(crate) enum Entered {
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
pub(crate) struct Collection {
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

    /// Whether its keys must stay out of logs.
    pub(crate) fn hides_keys(&self) -> bool {
        self.rules.hidden
    }

    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    /// Whether that is its prompt, or the sound an invalid key brings.
    pub(crate) fn is_playing(&self, which: PlayId) -> bool {
        matches!(self.phase, Phase::Prompt(play) | Phase::Invalid(play) if play == which)
    }

    /// Where that is to go, and the parameters that carry it.
    pub(crate) fn action(self, entered: Entered) -> Option<(Action, Params)> {
        let action = self.action?;
        let params = match entered {
            Entered::Digits(digits) => (action.params)(digits),
            Entered::Speech { text, confidence } => params::speech_of_get_input(text, confidence),
        };
        Some((action, params))
    }

    /// Whether it waits for that recognition.
    pub(crate) fn recognises(&self, recognition: RecognitionId) -> bool {
        self.hearing.as_ref().is_some_and(|hearing| hearing.is(recognition))
    }

    /// Begins the first attempt.
    pub(crate) fn begin(&mut self, desk: &mut Desk, keys: &mut KeyBuffer) -> Collected {
        self.next_attempt(desk, keys)
    }

    /// A playlist came to its end.
    pub(crate) fn played(
        &mut self,
        desk: &mut Desk,
        keys: &mut KeyBuffer,
        which: PlayId,
    ) -> Collected {
        match self.phase {
            Phase::Prompt(play) if play == which => {
                self.go_on(desk);
                Collected::More
            }
            Phase::Invalid(play) if play == which => self.next_attempt(desk, keys),
            // One that was stopped in the moment it ended.
            Phase::Prompt(_)
            | Phase::Quiet { .. }
            | Phase::Invalid(_)
            | Phase::Listening
            | Phase::Transcribing => Collected::More,
        }
    }

    /// A key was pressed.
    pub(crate) fn pressed(
        &mut self,
        desk: &mut Desk,
        keys: &mut KeyBuffer,
        digit: Digit,
        hidden: bool,
    ) -> Collected {
        if !self.rules.hears_keys || self.hearing.as_ref().is_some_and(Hearing::has_won) {
            return Collected::More;
        }
        match self.phase {
            Phase::Listening => {}
            // The speech came first. Should it turn out to have no words, the next attempt begins with this key.
            Phase::Transcribing => {
                keys.push(digit, hidden);
                return Collected::More;
            }
            // Barge-in: the rest of the prompt is skipped, the clocks start now.
            Phase::Prompt(_) | Phase::Quiet { .. } => {
                self.stop_prompt(desk);
                self.start_execution(desk);
            }
            // The key interrupts the sound and is the first of the next attempt.
            Phase::Invalid(play) => {
                desk.media(MediaOrder::Stop { play });
                if !self.take_attempt() {
                    return Collected::NoInput;
                }
                self.start_execution(desk);
            }
        }
        self.phase = Phase::Listening;
        self.hear_no_more(desk);
        match self.press(digit, hidden) {
            Pressed::Unheard => Collected::More,
            Pressed::More => {
                self.heard_one(desk);
                Collected::More
            }
            Pressed::Complete => self.complete(desk),
            Pressed::Bare => self.next_attempt(desk, keys),
            Pressed::Invalid => self.spoiled(desk).unwrap_or_else(|| self.next_attempt(desk, keys)),
        }
    }

    /// Something about what the caller says.
    pub(crate) fn heard(
        &mut self,
        desk: &mut Desk,
        keys: &mut KeyBuffer,
        recognition: RecognitionId,
        fact: SpeechFact,
    ) -> Collected {
        let phase = self.phase;
        let Some(hearing) = self.hearing.as_mut().filter(|hearing| hearing.is(recognition)) else {
            return Collected::More;
        };
        match fact {
            SpeechFact::Began => {
                hearing.voice(desk, phase == Phase::Listening);
                if phase == Phase::Listening {
                    desk.timers.clear(Timer::StartInput);
                }
            }
            SpeechFact::Lasting => {
                hearing.voice(desk, true);
                self.spoken_to(desk);
            }
            SpeechFact::Ended { ago_ms } => match phase {
                // Too short to be speech, over a prompt: a cough, or an echo. What follows is heard afresh.
                Phase::Prompt(_) | Phase::Quiet { .. } if !hearing.has_begun() => {
                    hearing.begin(desk)
                }
                Phase::Prompt(_) | Phase::Quiet { .. } | Phase::Listening | Phase::Invalid(_) => {
                    hearing.quiet(desk, ago_ms);
                }
                Phase::Transcribing => {}
            },
            SpeechFact::Interim { stable, unstable, stability } => {
                hearing.interim(desk, stable, unstable, stability);
                self.spoken_to(desk);
            }
            SpeechFact::Understood { text, confidence } => {
                hearing.closed(desk);
                if text.is_empty() {
                    return self.no_words(desk, keys);
                }
                let text = hearing.words(text);
                self.spoken_to(desk);
                Self::stop_clocks(desk);
                return Collected::Input(Entered::Speech { text, confidence });
            }
            SpeechFact::Failed { reason } => {
                hearing.closed(desk);
                let reason = foreign(&reason);
                desk.remark(format!(
                    "speech could not be recognised: {reason}; it counts as no input"
                ));
                return self.no_words(desk, keys);
            }
            SpeechFact::Unavailable => hearing.unavailable(desk),
        }
        Collected::More
    }

    /// It is ended from outside: no sound and no clock of it is left.
    pub(crate) fn cut(&mut self, desk: &mut Desk) {
        Self::stop_clocks(desk);
        self.hear_no_more(desk);
        self.stop_prompt(desk);
    }

    /// The caller's voice, or a beep, while a wait within the prompt listens for it.
    pub(crate) fn voice(&mut self, desk: &mut Desk, what: Voice) {
        if let Phase::Quiet { early } = self.phase
            && early.heard(desk, what)
        {
            early.stop(desk);
            self.go_on(desk);
        }
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
    pub(crate) fn hear_no_more(&mut self, desk: &mut Desk) {
        if let Some(hearing) = &mut self.hearing {
            hearing.stop(desk);
        }
    }

    /// One of its clocks ran out. What was typed or said counts; nothing is an attempt used up.
    pub(crate) fn timed_out(
        &mut self,
        desk: &mut Desk,
        keys: &mut KeyBuffer,
        timer: Timer,
    ) -> Collected {
        if matches!(timer, Timer::Wait | Timer::Silence) {
            if let Phase::Quiet { early } = self.phase {
                early.stop(desk);
                self.go_on(desk);
            }
            return Collected::More;
        }
        match (timer, &mut self.hearing) {
            (Timer::Interim, Some(hearing)) => {
                hearing.tell(desk);
                Collected::More
            }
            (Timer::Transcript, Some(hearing)) => {
                hearing.stop(desk);
                desk.remark(
                    "speech could not be recognised: no result came in time; it counts as no input"
                        .to_owned(),
                );
                self.next_attempt(desk, keys)
            }
            // Also where X runs out while somebody speaks: the result so far is used.
            (_, Some(hearing)) if hearing.has_begun() => {
                Self::stop_clocks(desk);
                hearing.finish(desk);
                self.phase = Phase::Transcribing;
                Collected::More
            }
            _ if self.digits.is_empty() => self.next_attempt(desk, keys),
            _ => self.complete(desk),
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
    fn no_words(&mut self, desk: &mut Desk, keys: &mut KeyBuffer) -> Collected {
        match self.phase {
            Phase::Prompt(_) | Phase::Quiet { .. } | Phase::Invalid(_) => Collected::More,
            Phase::Listening | Phase::Transcribing => self.next_attempt(desk, keys),
        }
    }

    /// Begins the next attempt: type-ahead first, then the prompt.
    fn next_attempt(&mut self, desk: &mut Desk, keys: &mut KeyBuffer) -> Collected {
        Self::stop_clocks(desk);
        self.hear_no_more(desk);
        while self.take_attempt() {
            match self.take_type_ahead(keys) {
                // Nothing was typed ahead (or nothing is listened for).
                Pressed::Unheard => {
                    if let Some(hearing) = &mut self.hearing {
                        hearing.begin(desk);
                    }
                    self.next = 0;
                    self.go_on(desk);
                    return Collected::More;
                }
                // As a barge-in in the prompt's first moment.
                Pressed::More => {
                    self.phase = Phase::Listening;
                    self.start_execution(desk);
                    self.heard_one(desk);
                    return Collected::More;
                }
                Pressed::Complete => return self.complete(desk),
                Pressed::Bare => {}
                // A key typed after it interrupts the sound before it was heard.
                Pressed::Invalid => {
                    if keys.is_empty()
                        && let Some(playing) = self.spoiled(desk)
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
        while let Some((digit, hidden)) = keys.pop() {
            match self.press(digit, hidden) {
                Pressed::Unheard => {}
                Pressed::More => last = Pressed::More,
                ended @ (Pressed::Complete | Pressed::Bare | Pressed::Invalid) => return ended,
            }
        }
        last
    }

    fn press(&mut self, digit: Digit, hidden: bool) -> Pressed {
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
