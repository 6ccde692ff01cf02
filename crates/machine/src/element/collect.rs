//! Collecting keys and speech: the engine behind `GetInput` and `GetDigits` (`plivo-xml.md` §5.5, §5.6).
//!
//! One attempt is: prompt (stopped by the first key, or by a voice) → listening, under up to three clocks → keys, what was
//! said, or nothing. Type-ahead is taken first, as if pressed the moment the attempt began. Whichever starts first wins:
//! a key stops the recognition, and once words are heard keys mean nothing.

use super::Flow;
use super::prompt::PromptPart;
use super::speech_input::SpeechInput;
use super::wait::EarlyEnd;
use crate::activity::{self, Activity, Completion, Env, Progress, Stop};
use crate::context::CallContext;
use crate::contract::display::foreign;
use crate::contract::{
    MediaCommand, Param, Params, PlayId, RecognitionId, SoundItem, SpeechEvent, VoiceEvent,
};
use crate::digits::{DigitBuffer, Key, Rules};
use crate::params;
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::timers::Timer;
use model::Digit;
use xml::ast::Target;

/// The clocks of a collection; each is `None` where the element has no such clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
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
enum AttemptResult {
    /// It goes on.
    More,
    /// All attempts are used up.
    NoInput,
    Input(CallerInput),
}

/// What the caller entered.
enum CallerInput {
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
        early: EarlyEnd,
    },
    Listening,
    /// The caller has spoken: what was said is being found out.
    Transcribing,
    /// The sound that an invalid key brings; the attempt is used up.
    Invalid(PlayId),
}

/// What one key did.
enum DigitEffect {
    Unheard,
    More,
    Complete,
    /// The finishing key with nothing before it: no input.
    Bare,
    Invalid,
}

/// A `GetInput` or `GetDigits` being carried out.
pub(super) struct InputCollector {
    rules: Rules,
    clocks: Timeouts,
    attempts_left: u8,
    prompt: Vec<PromptPart>,
    /// The next stretch of the prompt.
    next: usize,
    invalid_sound: Option<SoundItem>,
    action: Option<Action>,
    digits: String,
    /// One of `digits` must stay out of logs.
    secret: bool,
    hearing: Option<SpeechInput>,
    phase: Phase,
}

impl InputCollector {
    pub(super) fn new(
        rules: Rules,
        clocks: Timeouts,
        attempts: u8,
        prompt: Vec<PromptPart>,
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
    pub(super) fn hearing(mut self, hearing: SpeechInput) -> Self {
        self.hearing = Some(hearing);
        self
    }

    /// Begins the first attempt.
    pub(super) fn start(mut self, env: &mut Env<'_>) -> Flow {
        let collected = self.next_attempt(env);
        match self.finished(env, collected) {
            Some(finished) => Flow::Finished(finished),
            None => Flow::run(self),
        }
    }

    /// How the element ended. `None` while the collection goes on.
    fn finished(&mut self, env: &mut Env<'_>, collected: AttemptResult) -> Option<Completion> {
        let entered = match collected {
            AttemptResult::More => return None,
            AttemptResult::NoInput => None,
            AttemptResult::Input(entered) => Some(entered),
        };
        env.keys.clear(self.rules.hidden);
        let note = if entered.is_some() { "input" } else { "no input" };
        let action = entered.and_then(|entered| self.action(entered));
        Some(Completion::done(note).with_action(action))
    }

    fn progress(&mut self, env: &mut Env<'_>, collected: AttemptResult) -> Progress {
        self.finished(env, collected).map_or(Progress::Pending, Progress::Finished)
    }

    /// Whether that is its prompt, or the sound an invalid key brings.
    fn is_playing(&self, which: PlayId) -> bool {
        matches!(self.phase, Phase::Prompt(play) | Phase::Invalid(play) if play == which)
    }

    /// Where that is to go, and the parameters that carry it.
    fn action(&mut self, entered: CallerInput) -> Option<activity::Action> {
        let Action { target, redirect, params } = self.action.take()?;
        let params = match entered {
            CallerInput::Digits(digits) => params(digits),
            CallerInput::Speech { text, confidence } => params::get_input_speech(text, confidence),
        };
        Some(activity::Action { target, redirect, params, repeat_after_hangup: false })
    }

    /// A playlist came to its end.
    fn sound_played(&mut self, env: &mut Env<'_>, which: PlayId) -> AttemptResult {
        match self.phase {
            Phase::Prompt(play) if play == which => {
                self.go_on(env.ctx);
                AttemptResult::More
            }
            Phase::Invalid(play) if play == which => self.next_attempt(env),
            // One that was stopped in the moment it ended.
            Phase::Prompt(_)
            | Phase::Quiet { .. }
            | Phase::Invalid(_)
            | Phase::Listening
            | Phase::Transcribing => AttemptResult::More,
        }
    }

    /// A key was pressed.
    fn pressed(&mut self, env: &mut Env<'_>, key: Key) -> AttemptResult {
        if !self.rules.hears_keys || self.hearing.as_ref().is_some_and(SpeechInput::has_won) {
            return AttemptResult::More;
        }
        match self.phase {
            Phase::Listening => {}
            // The speech came first. Should it turn out to have no words, the next attempt begins with this key.
            Phase::Transcribing => {
                env.keys.push(key);
                return AttemptResult::More;
            }
            // Barge-in: the rest of the prompt is skipped, the clocks start now.
            Phase::Prompt(_) | Phase::Quiet { .. } => {
                self.stop_prompt(env.ctx);
                self.start_execution(env.ctx);
            }
            // The key interrupts the sound and is the first of the next attempt.
            Phase::Invalid(play) => {
                env.ctx.media(MediaCommand::Stop { play });
                if !self.take_attempt() {
                    return AttemptResult::NoInput;
                }
                self.start_execution(env.ctx);
            }
        }
        self.phase = Phase::Listening;
        self.hear_no_more(env.ctx);
        match self.press(key) {
            DigitEffect::Unheard => AttemptResult::More,
            DigitEffect::More => {
                self.heard_one(env.ctx);
                AttemptResult::More
            }
            DigitEffect::Complete => self.complete(env.ctx),
            DigitEffect::Bare => self.next_attempt(env),
            DigitEffect::Invalid => self.spoiled(env.ctx).unwrap_or_else(|| self.next_attempt(env)),
        }
    }

    /// Something about what the caller says.
    fn heard(
        &mut self,
        env: &mut Env<'_>,
        recognition: RecognitionId,
        fact: SpeechEvent,
    ) -> AttemptResult {
        let phase = self.phase;
        let Some(hearing) = self.hearing.as_mut().filter(|hearing| hearing.is(recognition)) else {
            return AttemptResult::More;
        };
        match fact {
            SpeechEvent::Began => {
                hearing.voice(env.ctx, phase == Phase::Listening);
                if phase == Phase::Listening {
                    env.ctx.timers.clear(Timer::StartInput);
                }
            }
            SpeechEvent::Lasting => {
                hearing.voice(env.ctx, true);
                self.spoken_to(env.ctx);
            }
            SpeechEvent::Ended { ago_ms } => match phase {
                // Too short to be speech, over a prompt: a cough, or an echo. What follows is heard afresh.
                Phase::Prompt(_) | Phase::Quiet { .. } if !hearing.has_begun() => {
                    hearing.begin(env.ctx)
                }
                Phase::Prompt(_) | Phase::Quiet { .. } | Phase::Listening | Phase::Invalid(_) => {
                    hearing.quiet(env.ctx, ago_ms);
                }
                Phase::Transcribing => {}
            },
            SpeechEvent::Interim { stable, unstable, stability } => {
                hearing.interim(env.ctx, stable, unstable, stability);
                self.spoken_to(env.ctx);
            }
            SpeechEvent::Understood { text, confidence } => {
                hearing.closed(env.ctx);
                if text.is_empty() {
                    return self.no_words(env);
                }
                let text = hearing.words(text);
                self.spoken_to(env.ctx);
                Self::stop_clocks(env.ctx);
                return AttemptResult::Input(CallerInput::Speech { text, confidence });
            }
            SpeechEvent::Failed { reason } => {
                hearing.closed(env.ctx);
                let reason = foreign(&reason);
                env.ctx.remark(format!(
                    "speech could not be recognised: {reason}; it counts as no input"
                ));
                return self.no_words(env);
            }
            SpeechEvent::Unavailable => hearing.unavailable(env.ctx),
        }
        AttemptResult::More
    }

    /// What is heard of the prompt, or of the sound that an invalid key brings, ends now.
    fn stop_prompt(&self, ctx: &mut CallContext) {
        match self.phase {
            Phase::Prompt(play) | Phase::Invalid(play) => ctx.media(MediaCommand::Stop { play }),
            Phase::Quiet { early } => early.stop(ctx),
            Phase::Listening | Phase::Transcribing => {}
        }
    }

    /// The call ends, and its media with it: nobody listens any more.
    fn hear_no_more(&mut self, ctx: &mut CallContext) {
        if let Some(hearing) = &mut self.hearing {
            hearing.stop(ctx);
        }
    }

    /// One of its clocks ran out. What was typed or said counts; nothing is an attempt used up.
    fn timed_out(&mut self, env: &mut Env<'_>, timer: Timer) -> AttemptResult {
        if matches!(timer, Timer::Wait | Timer::Silence) {
            if let Phase::Quiet { early } = self.phase {
                early.stop(env.ctx);
                self.go_on(env.ctx);
            }
            return AttemptResult::More;
        }
        match (timer, &mut self.hearing) {
            (Timer::Interim, Some(hearing)) => {
                hearing.tell(env.ctx);
                AttemptResult::More
            }
            (Timer::Transcript, Some(hearing)) => {
                hearing.stop(env.ctx);
                env.ctx.remark(
                    "speech could not be recognised: no result came in time; it counts as no input"
                        .to_owned(),
                );
                self.next_attempt(env)
            }
            // Also where X runs out while somebody speaks: the result so far is used.
            (_, Some(hearing)) if hearing.has_begun() => {
                Self::stop_clocks(env.ctx);
                hearing.finish(env.ctx);
                self.phase = Phase::Transcribing;
                AttemptResult::More
            }
            _ if self.digits.is_empty() => self.next_attempt(env),
            _ => self.complete(env.ctx),
        }
    }

    /// A voice counts: it stops the prompt, and the clocks start.
    fn spoken_to(&mut self, ctx: &mut CallContext) {
        ctx.timers.clear(Timer::StartInput);
        if matches!(self.phase, Phase::Prompt(_) | Phase::Quiet { .. }) {
            self.stop_prompt(ctx);
            self.phase = Phase::Listening;
            self.start_execution(ctx);
        }
    }

    /// There was speech, and no words in it: no input. What is heard over a prompt costs no attempt.
    fn no_words(&mut self, env: &mut Env<'_>) -> AttemptResult {
        match self.phase {
            Phase::Prompt(_) | Phase::Quiet { .. } | Phase::Invalid(_) => AttemptResult::More,
            Phase::Listening | Phase::Transcribing => self.next_attempt(env),
        }
    }

    /// Begins the next attempt: type-ahead first, then the prompt.
    fn next_attempt(&mut self, env: &mut Env<'_>) -> AttemptResult {
        Self::stop_clocks(env.ctx);
        self.hear_no_more(env.ctx);
        while self.take_attempt() {
            match self.take_type_ahead(env.keys) {
                // Nothing was typed ahead (or nothing is listened for).
                DigitEffect::Unheard => {
                    if let Some(hearing) = &mut self.hearing {
                        hearing.begin(env.ctx);
                    }
                    self.next = 0;
                    self.go_on(env.ctx);
                    return AttemptResult::More;
                }
                // As a barge-in in the prompt's first moment.
                DigitEffect::More => {
                    self.phase = Phase::Listening;
                    self.start_execution(env.ctx);
                    self.heard_one(env.ctx);
                    return AttemptResult::More;
                }
                DigitEffect::Complete => return self.complete(env.ctx),
                DigitEffect::Bare => {}
                // A key typed after it interrupts the sound before it was heard.
                DigitEffect::Invalid => {
                    if env.keys.is_empty()
                        && let Some(playing) = self.spoiled(env.ctx)
                    {
                        return playing;
                    }
                }
            }
        }
        AttemptResult::NoInput
    }

    /// Feeds type-ahead to this attempt, as far as it takes any.
    fn take_type_ahead(&mut self, keys: &mut DigitBuffer) -> DigitEffect {
        let mut last = DigitEffect::Unheard;
        while let Some(key) = keys.pop() {
            match self.press(key) {
                DigitEffect::Unheard => {}
                DigitEffect::More => last = DigitEffect::More,
                ended @ (DigitEffect::Complete | DigitEffect::Bare | DigitEffect::Invalid) => {
                    return ended;
                }
            }
        }
        last
    }

    fn press(&mut self, key: Key) -> DigitEffect {
        let Key { digit, hidden } = key;
        if !self.rules.hears_keys {
            DigitEffect::Unheard
        } else if self.rules.finish == Some(digit) {
            if self.digits.is_empty() { DigitEffect::Bare } else { DigitEffect::Complete }
        } else if !self.rules.valid.has(digit) {
            DigitEffect::Invalid
        } else {
            self.digits.push(digit.as_char());
            self.secret |= hidden;
            // All of them are ASCII.
            if self.digits.len() >= self.rules.count {
                DigitEffect::Complete
            } else {
                DigitEffect::More
            }
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

    fn complete(&mut self, ctx: &mut CallContext) -> AttemptResult {
        Self::stop_clocks(ctx);
        let digits = std::mem::take(&mut self.digits);
        let digits = if self.secret { Param::Secret(digits) } else { Param::Plain(digits.into()) };
        AttemptResult::Input(CallerInput::Digits(digits))
    }

    /// An invalid key: the attempt is used up, its sound plays if there is one.
    fn spoiled(&mut self, ctx: &mut CallContext) -> Option<AttemptResult> {
        Self::stop_clocks(ctx);
        self.digits.clear();
        let sound = self.invalid_sound.clone()?;
        self.phase = Phase::Invalid(ctx.play(vec![sound]));
        Some(AttemptResult::More)
    }

    /// The next stretch of the prompt, or its end.
    fn go_on(&mut self, ctx: &mut CallContext) {
        match self.prompt.get(self.next) {
            None => self.listen(ctx),
            Some(PromptPart::Sounds(items)) => self.phase = Phase::Prompt(ctx.play(items.clone())),
            Some(PromptPart::Quiet { ms, early }) => {
                early.begin(ctx, *ms);
                self.phase = Phase::Quiet { early: *early };
            }
        }
        self.next = self.next.saturating_add(1);
    }

    /// The prompt is over and no key has come: X and S start.
    fn listen(&mut self, ctx: &mut CallContext) {
        self.phase = Phase::Listening;
        self.start_execution(ctx);
        if let Some(hearing) = self.hearing.as_mut().filter(|hearing| hearing.is_speaking()) {
            hearing.voice(ctx, true);
        } else if let Some(ms) = self.clocks.start_input_ms {
            ctx.set(Timer::StartInput, ms);
        }
    }

    fn start_execution(&self, ctx: &mut CallContext) {
        if let Some(ms) = self.clocks.execution_ms {
            ctx.set(Timer::Execution, ms);
        }
    }

    /// Input has begun: S is met, D starts again.
    fn heard_one(&self, ctx: &mut CallContext) {
        ctx.timers.clear(Timer::StartInput);
        ctx.set(Timer::InterDigit, self.clocks.inter_digit_ms);
    }

    fn stop_clocks(ctx: &mut CallContext) {
        for clock in [Timer::InterDigit, Timer::Execution, Timer::StartInput] {
            ctx.timers.clear(clock);
        }
    }
}

impl Activity for InputCollector {
    fn played(&mut self, env: &mut Env<'_>, play: PlayId) -> Progress {
        let collected = self.sound_played(env, play);
        self.progress(env, collected)
    }

    fn play_failed(&mut self, env: &mut Env<'_>, play: PlayId, item: u16, reason: &str) {
        if let Some(place) = env.place
            && self.is_playing(play)
        {
            env.ctx.remark(format!(
                "prompt {} of {place} could not be played: {reason}; it is skipped",
                item + 1
            ));
        }
    }

    fn digit(&mut self, env: &mut Env<'_>, key: Key) -> Progress {
        let collected = self.pressed(env, key);
        self.progress(env, collected)
    }

    /// The caller's voice, or a beep, while a wait within the prompt listens for it.
    fn voice(&mut self, env: &mut Env<'_>, voice: VoiceEvent) -> Progress {
        if let Phase::Quiet { early } = self.phase
            && early.heard(env.ctx, voice)
        {
            early.stop(env.ctx);
            self.go_on(env.ctx);
        }
        Progress::Pending
    }

    fn speech(
        &mut self,
        env: &mut Env<'_>,
        recognition: RecognitionId,
        event: SpeechEvent,
    ) -> Progress {
        let collected = self.heard(env, recognition, event);
        self.progress(env, collected)
    }

    fn timer(&mut self, env: &mut Env<'_>, timer: Timer) -> Progress {
        let collected = match timer {
            Timer::Wait
            | Timer::Silence
            | Timer::InterDigit
            | Timer::Execution
            | Timer::StartInput
            | Timer::SpeechEnd
            | Timer::Transcript
            | Timer::Interim => self.timed_out(env, timer),
            // Timers of other instructions.
            _ => return Progress::Pending,
        };
        self.progress(env, collected)
    }

    fn stop(&mut self, env: &mut Env<'_>, why: Stop) {
        match why {
            Stop::CallEnds => self.hear_no_more(env.ctx),
            Stop::Replaced => {
                env.keys.interrupted(self.rules.hidden);
                Self::stop_clocks(env.ctx);
                self.hear_no_more(env.ctx);
                self.stop_prompt(env.ctx);
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

    fn draw(&self, snapshot: &mut SnapshotBuilder) {
        let line = match self.phase {
            Phase::Prompt(play) => [word("prompt_or_key"), text(play.0)],
            Phase::Quiet { .. } => [word("prompts_pause"), text("")],
            Phase::Listening => [word("input"), text("")],
            Phase::Transcribing => [word("what_was_said"), text("")],
            Phase::Invalid(play) => [word("invalid_sound"), text(play.0)],
        };
        snapshot.say("waits_for", line);
        if !self.digits.is_empty() {
            let digits =
                if self.secret { "x".repeat(self.digits.len()) } else { self.digits.clone() };
            snapshot.say("digits", [text(digits)]);
        }
        if self.hearing.as_ref().is_some_and(SpeechInput::has_begun) {
            snapshot.say("digits", [word("speech_heard")]);
        }
        snapshot.say("digits", [word("attempts_left"), text(self.attempts_left)]);
    }
}
