//! Collects digits and speech for `GetInput` and `GetDigits` (docs/reference/xml.md#getinput,
//! docs/reference/xml.md#getdigits).
//!
//! An attempt plays the prompt, which the first digit or speech stops. It then waits for input,
//! limited by up to three clocks. It ends with digits, with speech, or without input. Digits that
//! were pressed earlier are taken first, as if they were pressed at the beginning of the attempt.
//!
//! The kind of input that starts first is used: a digit stops the recognition, and digits are
//! ignored once words have been recognised.

use super::Flow;
use super::prompt::PromptPart;
use super::speech_input::SpeechInput;
use super::wait::EarlyEnd;
use crate::activity::{self, Activity, Completion, Env, Progress, StopReason};
use crate::context::CallContext;
use crate::contract::display::foreign;
use crate::contract::{
    MediaCommand, Param, Params, PlayId, RecognitionId, SoundItem, SpeechEvent, VoiceEvent,
};
use crate::digits::{DigitBuffer, Key, Rules};
use crate::params;
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::timers::DocumentTimer;
use model::Digit;
use xml::ast::Target;

/// The timeouts of a collection, called clocks (docs/reference/xml.md#getinput-clocks). `None` if
/// the element does not have the clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// Time limit for the next digit, restarted by each digit.
    pub(super) inter_digit_ms: u64,
    /// Clock X: the time limit from the end of the prompt or the barge-in.
    pub(super) execution_ms: Option<u64>,
    /// Clock S: the time limit from the end of the prompt to the first digit.
    pub(super) start_input_ms: Option<u64>,
}

/// The action URL of the element.
pub(super) struct Action {
    pub(super) target: Target,
    pub(super) redirect: bool,
    /// Builds the parameters for these digits.
    pub(super) params: fn(Param) -> Params,
}

/// The state of a collection after an input.
enum AttemptResult {
    /// The collection continues.
    Pending,
    /// All attempts have been used.
    NoInput,
    Input(CallerInput),
}

/// The input of the caller.
enum CallerInput {
    Digits(Param),
    /// Words that were recognised. `confidence` is in per cent.
    Speech {
        text: Param,
        confidence: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Prompt(PlayId),
    /// A wait within the prompt, which can end early.
    Wait {
        early: EarlyEnd,
    },
    /// A voice interrupts the prompt. If it contains words, the prompt ends, otherwise it
    /// continues.
    Interrupted(InterruptedPart),
    Listening,
    /// The caller has spoken. The result of the recognition is awaited.
    Transcribing,
    /// The sound for an invalid digit is played. The attempt is used up.
    Invalid(PlayId),
}

/// The part of the prompt that was interrupted by a voice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InterruptedPart {
    /// A playlist that is paused.
    Paused(PlayId),
    /// A wait that has ended, or a playlist that ended when it was paused.
    Over,
}

/// Maximum number of times that a voice without words pauses the prompt of an attempt. The next one
/// stops the prompt, so that noise cannot delay it forever.
const INTERRUPTIONS_MAX: u8 = 8;

/// The effect of a digit.
enum DigitEffect {
    Ignored,
    More,
    Complete,
    /// The finishing key without any digit before it, which counts as no input.
    BareFinish,
    Invalid,
}

/// A `GetInput` or `GetDigits` that is being executed.
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
    /// Whether at least one of `digits` must stay out of logs.
    secret: bool,
    speech_input: Option<SpeechInput>,
    /// Number of further interruptions after which the prompt of this attempt can continue.
    interruptions_left: u8,
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
            speech_input: None,
            interruptions_left: INTERRUPTIONS_MAX,
            phase,
        }
    }

    /// Adds speech recognition.
    pub(super) fn with_speech(mut self, speech: SpeechInput) -> Self {
        self.speech_input = Some(speech);
        self
    }

    /// Starts the first attempt.
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
            AttemptResult::Pending => return None,
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
    fn is_playing(&self, play_id: PlayId) -> bool {
        matches!(self.phase, Phase::Prompt(play) | Phase::Invalid(play) if play == play_id)
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
    fn sound_played(&mut self, env: &mut Env<'_>, play_id: PlayId) -> AttemptResult {
        match self.phase {
            Phase::Prompt(play) if play == play_id => {
                self.begin_next_part(env.ctx);
                AttemptResult::Pending
            }
            Phase::Invalid(play) if play == play_id => self.next_attempt(env),
            // The playlist ended when it was paused.
            Phase::Interrupted(InterruptedPart::Paused(play)) if play == play_id => {
                self.phase = Phase::Interrupted(InterruptedPart::Over);
                AttemptResult::Pending
            }
            // A playlist that was stopped just as it ended.
            Phase::Prompt(_)
            | Phase::Wait { .. }
            | Phase::Interrupted(_)
            | Phase::Invalid(_)
            | Phase::Listening
            | Phase::Transcribing => AttemptResult::Pending,
        }
    }

    /// Handles a digit.
    fn handle_digit(&mut self, env: &mut Env<'_>, key: Key) -> AttemptResult {
        if !self.rules.accepts_digits
            || self.speech_input.as_ref().is_some_and(SpeechInput::has_words)
        {
            return AttemptResult::Pending;
        }
        match self.phase {
            Phase::Listening => {}
            // Speech began first. If it contains no words, the next attempt takes this digit.
            Phase::Transcribing => {
                env.keys.push(key);
                return AttemptResult::Pending;
            }
            // Barge-in: the rest of the prompt is skipped, and the clocks start.
            Phase::Prompt(_) | Phase::Wait { .. } | Phase::Interrupted(_) => {
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
        self.stop_recognition(env.ctx);
        match self.take_digit(key) {
            DigitEffect::Ignored => AttemptResult::Pending,
            DigitEffect::More => {
                self.begin_input(env.ctx);
                AttemptResult::Pending
            }
            DigitEffect::Complete => self.complete(env.ctx),
            DigitEffect::BareFinish => self.next_attempt(env),
            DigitEffect::Invalid => {
                self.reject_digit(env.ctx).unwrap_or_else(|| self.next_attempt(env))
            }
        }
    }

    /// Handles an event of the recognition.
    fn handle_speech(
        &mut self,
        env: &mut Env<'_>,
        recognition: RecognitionId,
        event: SpeechEvent,
    ) -> AttemptResult {
        let phase = self.phase;
        let Some(speech_input) =
            self.speech_input.as_mut().filter(|speech_input| speech_input.is_current(recognition))
        else {
            return AttemptResult::Pending;
        };
        match event {
            SpeechEvent::Began => {
                speech_input.voice(env.ctx, phase == Phase::Listening);
                if phase == Phase::Listening {
                    env.ctx.timers.clear(DocumentTimer::StartInput);
                }
            }
            SpeechEvent::Lasting => {
                speech_input.voice(env.ctx, true);
                self.interrupt_prompt(env.ctx);
            }
            SpeechEvent::Ended { ago_ms } => match phase {
                // A short sound over the prompt, such as a cough or an echo, is not treated as
                // speech. Recognition starts again.
                Phase::Prompt(_) | Phase::Wait { .. } if !speech_input.has_begun() => {
                    speech_input.begin(env.ctx)
                }
                Phase::Prompt(_) | Phase::Wait { .. } | Phase::Listening | Phase::Invalid(_) => {
                    speech_input.quiet(env.ctx, ago_ms);
                }
                Phase::Interrupted(_) => {
                    speech_input.quiet(env.ctx, ago_ms);
                    if !speech_input.is_finishing() {
                        speech_input.doubt(env.ctx, ago_ms);
                    }
                }
                Phase::Transcribing => {}
            },
            SpeechEvent::Turn { finished, model: _ } => {
                if phase != Phase::Transcribing {
                    speech_input.turn(env.ctx, finished);
                }
            }
            SpeechEvent::Interim { stable, unstable, stability } => {
                speech_input.interim(env.ctx, stable, unstable, stability);
                self.accept_speech(env.ctx);
            }
            SpeechEvent::Understood { text, confidence } => {
                speech_input.clear(env.ctx);
                if text.is_empty() {
                    return self.no_words(env);
                }
                let text = speech_input.words(text);
                self.accept_speech(env.ctx);
                Self::stop_clocks(env.ctx);
                return AttemptResult::Input(CallerInput::Speech { text, confidence });
            }
            SpeechEvent::Failed { reason } => {
                speech_input.clear(env.ctx);
                let reason = foreign(&reason);
                env.ctx.remark(format!(
                    "speech could not be recognised: {reason}; it counts as no input"
                ));
                return self.no_words(env);
            }
            SpeechEvent::Unavailable => {
                speech_input.unavailable(env.ctx);
                // No input is possible in this attempt or a later one.
                if !self.rules.accepts_digits {
                    self.attempts_left = 0;
                    if self.phase == Phase::Listening {
                        return self.next_attempt(env);
                    }
                }
            }
        }
        AttemptResult::Pending
    }

    /// Stops the prompt, or the sound for an invalid digit.
    fn stop_prompt(&self, ctx: &mut CallContext) {
        match self.phase {
            Phase::Prompt(play)
            | Phase::Invalid(play)
            | Phase::Interrupted(InterruptedPart::Paused(play)) => {
                ctx.media(MediaCommand::Stop { play });
            }
            Phase::Wait { early } => early.stop(ctx),
            Phase::Interrupted(InterruptedPart::Over) | Phase::Listening | Phase::Transcribing => {}
        }
    }

    /// Stops the recognition.
    fn stop_recognition(&mut self, ctx: &mut CallContext) {
        if let Some(speech_input) = &mut self.speech_input {
            speech_input.stop(ctx);
        }
    }

    /// Handles a timer. Digits or speech so far become the input. If there are none, the attempt is
    /// used up.
    fn handle_timer(&mut self, env: &mut Env<'_>, timer: DocumentTimer) -> AttemptResult {
        if matches!(timer, DocumentTimer::Wait | DocumentTimer::Silence) {
            if let Phase::Wait { early } = self.phase {
                early.stop(env.ctx);
                self.begin_next_part(env.ctx);
            }
            return AttemptResult::Pending;
        }
        match (timer, &mut self.speech_input) {
            (DocumentTimer::Interim, Some(speech_input)) => {
                speech_input.send_interim(env.ctx);
                AttemptResult::Pending
            }
            (DocumentTimer::Transcript, Some(speech_input)) => {
                speech_input.stop(env.ctx);
                env.ctx.remark(
                    "speech could not be recognised: no result came in time; it counts as no input"
                        .to_owned(),
                );
                self.no_words(env)
            }
            (DocumentTimer::FalseBargeIn, Some(speech_input))
                if matches!(self.phase, Phase::Interrupted(_)) =>
            {
                // Even a word as short as a cough can be recognised.
                speech_input.set_over_prompt();
                self.resume_prompt(env.ctx);
                AttemptResult::Pending
            }
            // The prompt stays paused, or continues, until the result shows whether there were
            // words.
            (DocumentTimer::FalseBargeIn, _) => AttemptResult::Pending,
            (DocumentTimer::SpeechEnd | DocumentTimer::Execution, Some(speech_input))
                if speech_input.has_begun()
                    && matches!(
                        self.phase,
                        Phase::Prompt(_) | Phase::Wait { .. } | Phase::Interrupted(_)
                    ) =>
            {
                env.ctx.timers.clear(DocumentTimer::Execution);
                speech_input.finish(env.ctx);
                AttemptResult::Pending
            }
            // Also reached if clock X runs out while the caller speaks. The partial result is used.
            (_, Some(speech_input)) if speech_input.has_begun() => {
                Self::stop_clocks(env.ctx);
                speech_input.finish(env.ctx);
                self.phase = Phase::Transcribing;
                AttemptResult::Pending
            }
            _ if self.digits.is_empty() => self.next_attempt(env),
            _ => self.complete(env.ctx),
        }
    }

    /// Handles relevant speech: stops the prompt and starts the clocks.
    fn accept_speech(&mut self, ctx: &mut CallContext) {
        ctx.timers.clear(DocumentTimer::FalseBargeIn);
        ctx.timers.clear(DocumentTimer::StartInput);
        if matches!(self.phase, Phase::Prompt(_) | Phase::Wait { .. } | Phase::Interrupted(_)) {
            self.stop_prompt(ctx);
            if !matches!(self.phase, Phase::Interrupted(_)) {
                self.start_execution(ctx);
            }
            self.phase = Phase::Listening;
        }
    }

    /// Handles a voice of sufficient length: pauses the prompt and starts the clocks. Words will
    /// end the prompt.
    fn interrupt_prompt(&mut self, ctx: &mut CallContext) {
        let part = match self.phase {
            Phase::Prompt(play) => InterruptedPart::Paused(play),
            Phase::Wait { .. } => InterruptedPart::Over,
            Phase::Interrupted(_) => return,
            Phase::Listening | Phase::Transcribing | Phase::Invalid(_) => {
                return self.accept_speech(ctx);
            }
        };
        let Some(left) = self.interruptions_left.checked_sub(1) else {
            return self.accept_speech(ctx);
        };
        self.interruptions_left = left;
        match part {
            InterruptedPart::Paused(play) => ctx.media(MediaCommand::PlayPause { play, on: true }),
            InterruptedPart::Over => self.stop_prompt(ctx),
        }
        self.phase = Phase::Interrupted(part);
        self.start_execution(ctx);
    }

    /// Resumes a prompt that was interrupted by a voice without words.
    fn resume_prompt(&mut self, ctx: &mut CallContext) {
        let Phase::Interrupted(part) = self.phase else { return };
        ctx.timers.clear(DocumentTimer::Execution);
        match part {
            InterruptedPart::Paused(play) => {
                ctx.media(MediaCommand::PlayPause { play, on: false });
                self.phase = Phase::Prompt(play);
            }
            InterruptedPart::Over => self.begin_next_part(ctx),
        }
    }

    /// Handles speech without words. It counts as no input. During a prompt it does not use up the
    /// attempt: the prompt continues, and recognition starts again.
    fn no_words(&mut self, env: &mut Env<'_>) -> AttemptResult {
        let over_prompt = self.speech_input.as_ref().is_some_and(SpeechInput::is_over_prompt);
        match self.phase {
            Phase::Listening | Phase::Transcribing if !over_prompt => self.next_attempt(env),
            Phase::Invalid(_) => AttemptResult::Pending,
            Phase::Prompt(_)
            | Phase::Wait { .. }
            | Phase::Interrupted(_)
            | Phase::Listening
            | Phase::Transcribing => {
                // The clocks of an attempt that is waiting for input continue.
                if let Some(speech_input) = &mut self.speech_input {
                    speech_input.begin(env.ctx);
                }
                self.resume_prompt(env.ctx);
                if self.phase == Phase::Transcribing {
                    self.listen(env.ctx);
                }
                AttemptResult::Pending
            }
        }
    }

    /// Starts the next attempt. Digits pressed earlier are taken first, then the prompt is played.
    fn next_attempt(&mut self, env: &mut Env<'_>) -> AttemptResult {
        Self::stop_clocks(env.ctx);
        self.stop_recognition(env.ctx);
        while self.take_attempt() {
            match self.take_type_ahead(env.keys) {
                // There are no digits from before, or none are collected.
                DigitEffect::Ignored => {
                    if let Some(speech_input) = &mut self.speech_input {
                        speech_input.begin(env.ctx);
                    }
                    self.next = 0;
                    self.interruptions_left = INTERRUPTIONS_MAX;
                    self.begin_next_part(env.ctx);
                    return AttemptResult::Pending;
                }
                // Handled like a barge-in at the beginning of the prompt.
                DigitEffect::More => {
                    self.phase = Phase::Listening;
                    self.start_execution(env.ctx);
                    self.begin_input(env.ctx);
                    return AttemptResult::Pending;
                }
                DigitEffect::Complete => return self.complete(env.ctx),
                DigitEffect::BareFinish => {}
                // Digits that follow the invalid one stop its sound before it begins.
                DigitEffect::Invalid => {
                    if env.keys.is_empty()
                        && let Some(playing) = self.reject_digit(env.ctx)
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
        let mut last = DigitEffect::Ignored;
        while let Some(key) = keys.pop() {
            match self.take_digit(key) {
                DigitEffect::Ignored => {}
                DigitEffect::More => last = DigitEffect::More,
                ended
                @ (DigitEffect::Complete | DigitEffect::BareFinish | DigitEffect::Invalid) => {
                    return ended;
                }
            }
        }
        last
    }

    fn take_digit(&mut self, key: Key) -> DigitEffect {
        let Key { digit, hidden } = key;
        if !self.rules.accepts_digits {
            DigitEffect::Ignored
        } else if self.rules.finish == Some(digit) {
            if self.digits.is_empty() { DigitEffect::BareFinish } else { DigitEffect::Complete }
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

    /// Uses up an attempt. Returns `false` if no attempt is left.
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
    fn reject_digit(&mut self, ctx: &mut CallContext) -> Option<AttemptResult> {
        Self::stop_clocks(ctx);
        self.digits.clear();
        let sound = self.invalid_sound.clone()?;
        self.phase = Phase::Invalid(ctx.play(vec![sound]));
        Some(AttemptResult::Pending)
    }

    /// Plays the next part of the prompt, or handles the end of the prompt.
    fn begin_next_part(&mut self, ctx: &mut CallContext) {
        match self.prompt.get(self.next) {
            None => self.listen(ctx),
            Some(PromptPart::Sounds(items)) => self.phase = Phase::Prompt(ctx.play(items.clone())),
            Some(PromptPart::Wait { ms, early }) => {
                early.begin(ctx, *ms);
                self.phase = Phase::Wait { early: *early };
            }
        }
        self.next = self.next.saturating_add(1);
    }

    /// Handles the end of the prompt without input: starts the clocks X (time limit) and S (first
    /// input).
    fn listen(&mut self, ctx: &mut CallContext) {
        self.phase = Phase::Listening;
        self.start_execution(ctx);
        if let Some(speech_input) =
            self.speech_input.as_mut().filter(|speech_input| speech_input.is_speaking())
        {
            speech_input.voice(ctx, true);
        } else if !self.can_receive_input() {
            // No input is possible, so the timer fires immediately.
            ctx.set_timer(DocumentTimer::StartInput, 0);
        } else if let Some(ms) = self.clocks.start_input_ms {
            ctx.set_timer(DocumentTimer::StartInput, ms);
        }
    }

    /// Whether digits are collected or a recogniser is available.
    fn can_receive_input(&self) -> bool {
        self.rules.accepts_digits
            || self.speech_input.as_ref().is_some_and(|speech| !speech.is_unavailable())
    }

    fn start_execution(&self, ctx: &mut CallContext) {
        if let Some(ms) = self.clocks.execution_ms {
            ctx.set_timer(DocumentTimer::Execution, ms);
        }
    }

    /// Handles a digit that was taken: clears clock S (first input) and restarts clock D (next
    /// digit).
    fn begin_input(&self, ctx: &mut CallContext) {
        ctx.timers.clear(DocumentTimer::StartInput);
        ctx.set_timer(DocumentTimer::InterDigit, self.clocks.inter_digit_ms);
    }

    fn stop_clocks(ctx: &mut CallContext) {
        for clock in
            [DocumentTimer::InterDigit, DocumentTimer::Execution, DocumentTimer::StartInput]
        {
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
        let collected = self.handle_digit(env, key);
        self.progress(env, collected)
    }

    /// Handles voice or a beep during a wait within the prompt.
    fn voice(&mut self, env: &mut Env<'_>, voice: VoiceEvent) -> Progress {
        if let Phase::Wait { early } = self.phase
            && early.ends_wait(env.ctx, voice)
        {
            early.stop(env.ctx);
            self.begin_next_part(env.ctx);
        }
        Progress::Pending
    }

    fn speech(
        &mut self,
        env: &mut Env<'_>,
        recognition: RecognitionId,
        event: SpeechEvent,
    ) -> Progress {
        let collected = self.handle_speech(env, recognition, event);
        self.progress(env, collected)
    }

    fn timer(&mut self, env: &mut Env<'_>, timer: DocumentTimer) -> Progress {
        let collected = match timer {
            DocumentTimer::Wait
            | DocumentTimer::Pace
            | DocumentTimer::Silence
            | DocumentTimer::InterDigit
            | DocumentTimer::Execution
            | DocumentTimer::StartInput
            | DocumentTimer::SpeechEnd
            | DocumentTimer::FalseBargeIn
            | DocumentTimer::Transcript
            | DocumentTimer::Interim => self.handle_timer(env, timer),
            // Timers of other instructions.
            _ => return Progress::Pending,
        };
        self.progress(env, collected)
    }

    fn stop(&mut self, env: &mut Env<'_>, reason: StopReason) {
        match reason {
            StopReason::CallEnds => self.stop_recognition(env.ctx),
            StopReason::Replaced => {
                env.keys.interrupted(self.rules.hidden);
                Self::stop_clocks(env.ctx);
                self.stop_recognition(env.ctx);
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
        let speech_input =
            self.speech_input.as_ref().filter(|speech_input| speech_input.is_current(recognition));
        speech_input.map(|_| self.rules.hidden)
    }

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        let line = match self.phase {
            Phase::Prompt(play) => [word("prompt_or_digit"), text(play.0)],
            Phase::Wait { .. } => [word("prompt_pause"), text("")],
            Phase::Interrupted(_) => [word("speech_result"), text("")],
            Phase::Listening => [word("input"), text("")],
            Phase::Transcribing => [word("speech_result"), text("")],
            Phase::Invalid(play) => [word("invalid_sound"), text(play.0)],
        };
        snapshot.add("waits_for", line);
        if !self.digits.is_empty() {
            let digits =
                if self.secret { "x".repeat(self.digits.len()) } else { self.digits.clone() };
            snapshot.add("digits", [text(digits)]);
        }
        if self.speech_input.as_ref().is_some_and(SpeechInput::has_begun) {
            snapshot.add("digits", [word("speech_heard")]);
        }
        snapshot.add("digits", [word("attempts_left"), text(self.attempts_left)]);
    }
}
