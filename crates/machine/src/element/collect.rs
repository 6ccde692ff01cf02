//! Collects digits and speech for `GetInput` and `GetDigits` (docs/reference/xml.md#getinput,
//! docs/reference/xml.md#getdigits).
//!
//! An attempt plays the prompt, which the first digit or speech stops, then waits for input under
//! up to three clocks. It ends with digits, with speech, or without input. Digits that were pressed
//! earlier are taken first, as if they were pressed at the beginning of the attempt.
//!
//! The kind of input that starts first is used: a digit stops the recognition, and digits are
//! ignored once words have been recognised.

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

/// The clocks of a collection (docs/reference/xml.md#getinput-clocks). `None` if the element does
/// not have the clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// Clock D, restarted by each digit.
    pub(super) inter_digit_ms: u64,
    /// Clock X, from the end of the prompt or the barge-in.
    pub(super) execution_ms: Option<u64>,
    /// Clock S, from the end of the prompt until the first digit.
    pub(super) start_input_ms: Option<u64>,
}

/// The action URL of the element.
pub(super) struct Action {
    pub(super) target: Target,
    pub(super) redirect: bool,
    /// Returns the parameters for these digits.
    pub(super) params: fn(Param) -> Params,
}

/// The state of a collection after an input.
enum AttemptResult {
    /// The collection continues.
    More,
    /// All attempts have been used.
    NoInput,
    Input(CallerInput),
}

/// The input of the caller.
enum CallerInput {
    Digits(Param),
    /// `confidence` is in per cent.
    Speech {
        text: Param,
        confidence: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Prompt(PlayId),
    /// A wait within the prompt that can end early.
    Quiet {
        early: EarlyEnd,
    },
    Listening,
    /// The caller has spoken. Waits for the result of the recognition.
    Transcribing,
    /// Plays the sound for an invalid digit. The attempt is used up.
    Invalid(PlayId),
}

/// The effect of a digit.
enum DigitEffect {
    Unheard,
    More,
    Complete,
    /// The finishing key without any digit before it, which counts as no input.
    Bare,
    Invalid,
}

/// A `GetInput` or `GetDigits` that runs.
pub(super) struct InputCollector {
    rules: Rules,
    clocks: Timeouts,
    attempts_left: u8,
    prompt: Vec<PromptPart>,
    /// The index of the next part of the prompt.
    next: usize,
    invalid_sound: Option<SoundItem>,
    action: Option<Action>,
    digits: String,
    /// At least one of `digits` must stay out of logs.
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

    /// Adds speech recognition.
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

    /// Returns how the element ended. `None` while the collection continues.
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

    /// Whether the playlist belongs to the prompt or is the sound for an invalid digit.
    fn is_playing(&self, which: PlayId) -> bool {
        matches!(self.phase, Phase::Prompt(play) | Phase::Invalid(play) if play == which)
    }

    /// Returns the request that reports the input. `None` if the element has no action.
    fn action(&mut self, entered: CallerInput) -> Option<activity::Action> {
        let Action { target, redirect, params } = self.action.take()?;
        let params = match entered {
            CallerInput::Digits(digits) => params(digits),
            CallerInput::Speech { text, confidence } => params::get_input_speech(text, confidence),
        };
        Some(activity::Action { target, redirect, params, repeat_after_hangup: false })
    }

    /// Handles the end of a playlist.
    fn sound_played(&mut self, env: &mut Env<'_>, which: PlayId) -> AttemptResult {
        match self.phase {
            Phase::Prompt(play) if play == which => {
                self.go_on(env.ctx);
                AttemptResult::More
            }
            Phase::Invalid(play) if play == which => self.next_attempt(env),
            // A playlist that was stopped while it ended.
            Phase::Prompt(_)
            | Phase::Quiet { .. }
            | Phase::Invalid(_)
            | Phase::Listening
            | Phase::Transcribing => AttemptResult::More,
        }
    }

    /// Handles a digit.
    fn pressed(&mut self, env: &mut Env<'_>, key: Key) -> AttemptResult {
        if !self.rules.hears_keys || self.hearing.as_ref().is_some_and(SpeechInput::has_won) {
            return AttemptResult::More;
        }
        match self.phase {
            Phase::Listening => {}
            // Speech came first. If it turns out to contain no words, the next attempt takes this
            // digit.
            Phase::Transcribing => {
                env.keys.push(key);
                return AttemptResult::More;
            }
            // Barge-in: the rest of the prompt is skipped, and the clocks start.
            Phase::Prompt(_) | Phase::Quiet { .. } => {
                self.stop_prompt(env.ctx);
                self.start_execution(env.ctx);
            }
            // The digit stops the sound and is the first one of the next attempt.
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

    /// Handles an event of the recognition.
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
                // A short sound over the prompt, such as a cough or an echo. It is not taken as
                // speech, and recognition starts over.
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

    /// Stops the prompt, or the sound for an invalid digit.
    fn stop_prompt(&self, ctx: &mut CallContext) {
        match self.phase {
            Phase::Prompt(play) | Phase::Invalid(play) => ctx.media(MediaCommand::Stop { play }),
            Phase::Quiet { early } => early.stop(ctx),
            Phase::Listening | Phase::Transcribing => {}
        }
    }

    /// Stops the recognition.
    fn hear_no_more(&mut self, ctx: &mut CallContext) {
        if let Some(hearing) = &mut self.hearing {
            hearing.stop(ctx);
        }
    }

    /// Handles a timer. Digits or speech so far become the input. If there are none, the attempt is
    /// used up.
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
            // Also reached if clock X runs out while the caller speaks. The result so far is used.
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

    /// Handles speech that counts: stops the prompt and starts the clocks.
    fn spoken_to(&mut self, ctx: &mut CallContext) {
        ctx.timers.clear(Timer::StartInput);
        if matches!(self.phase, Phase::Prompt(_) | Phase::Quiet { .. }) {
            self.stop_prompt(ctx);
            self.phase = Phase::Listening;
            self.start_execution(ctx);
        }
    }

    /// Handles speech without words, which counts as no input. During the prompt it does not use up
    /// the attempt.
    fn no_words(&mut self, env: &mut Env<'_>) -> AttemptResult {
        match self.phase {
            Phase::Prompt(_) | Phase::Quiet { .. } | Phase::Invalid(_) => AttemptResult::More,
            Phase::Listening | Phase::Transcribing => self.next_attempt(env),
        }
    }

    /// Begins the next attempt. Digits pressed earlier are taken first, then the prompt is played.
    fn next_attempt(&mut self, env: &mut Env<'_>) -> AttemptResult {
        Self::stop_clocks(env.ctx);
        self.hear_no_more(env.ctx);
        while self.take_attempt() {
            match self.take_type_ahead(env.keys) {
                // No digits were pressed earlier, or none are collected.
                DigitEffect::Unheard => {
                    if let Some(hearing) = &mut self.hearing {
                        hearing.begin(env.ctx);
                    }
                    self.next = 0;
                    self.go_on(env.ctx);
                    return AttemptResult::More;
                }
                // Handled like a barge-in at the beginning of the prompt.
                DigitEffect::More => {
                    self.phase = Phase::Listening;
                    self.start_execution(env.ctx);
                    self.heard_one(env.ctx);
                    return AttemptResult::More;
                }
                DigitEffect::Complete => return self.complete(env.ctx),
                DigitEffect::Bare => {}
                // Digits that follow the invalid one stop its sound before it begins.
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

    /// Takes the digits that were pressed earlier, up to the end of this attempt.
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
            // All digits are ASCII.
            if self.digits.len() >= self.rules.count {
                DigitEffect::Complete
            } else {
                DigitEffect::More
            }
        }
    }

    /// Uses up an attempt. Returns `false` if none is left.
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

    /// Handles an invalid digit: uses up the attempt and plays the sound, if one is set.
    fn spoiled(&mut self, ctx: &mut CallContext) -> Option<AttemptResult> {
        Self::stop_clocks(ctx);
        self.digits.clear();
        let sound = self.invalid_sound.clone()?;
        self.phase = Phase::Invalid(ctx.play(vec![sound]));
        Some(AttemptResult::More)
    }

    /// Plays the next part of the prompt, or ends it.
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

    /// The prompt has ended without input: starts the clocks X and S.
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

    /// A digit has been taken: clears clock S and restarts clock D.
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

    /// Handles voice or a beep while a wait within the prompt listens.
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
