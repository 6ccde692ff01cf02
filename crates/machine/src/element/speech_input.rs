//! The speech part of a `GetInput` (docs/reference/xml.md#getinput): one recognition for each
//! attempt, and its interim results.
//!
//! The module `collect` decides whether digits or speech end a collection.

use crate::context::CallContext;
use crate::contract::{
    CallTime, CallbackKind, CallbackRequest, Output, Param, RecognitionId, RecognitionSettings,
    SpeechCommand,
};
use crate::params::{self, Event};
use crate::timers::DocumentTimer;
use xml::ast::{Position, Target};

/// Minimum time between two requests with interim results, in milliseconds.
const INTERIM_MS: u64 = 200;
/// Timeout of the result after the end of the speech, in milliseconds.
const RESULT_MS: u64 = 15_000;

/// Silence in milliseconds that ends speech if the document does not set it.
const SILENCE_MS: u64 = 1_000;
/// Silence in milliseconds that ends speech that is possibly finished. Longer than without an
/// estimate, because callers who are cut off lose more than others who wait.
const POSSIBLY_FINISHED_SILENCE_MS: u64 = 1_500;
/// Silence in milliseconds that ends speech that is probably unfinished.
const UNFINISHED_SILENCE_MS: u64 = 2_500;
/// Probabilities in per cent from which speech is certainly or possibly finished
/// (docs/speech.md#turn-taking has the measurements).
const CERTAINLY_FINISHED: u8 = 98;
const POSSIBLY_FINISHED: u8 = 50;

/// Time in milliseconds after which a paused prompt continues if a short voice contained no words
/// (docs/reference/xml.md#barge-in).
const FALSE_BARGE_IN_MS: u64 = 500;
/// Minimum duration in milliseconds of voice activity that is considered speech with certainty.
/// Coughs and "mm-hm" are shorter.
const CERTAIN_SPEECH_MS: u64 = 1_000;

/// An interim result that has not been sent yet.
struct Interim {
    stable: String,
    unstable: String,
    stability: u8,
}

/// The speech recognition of an element.
pub(super) struct SpeechInput {
    settings: RecognitionSettings,
    /// The position of the element.
    at: Position,
    /// `speechEndTimeout` in milliseconds, if the document sets it.
    end_ms: Option<u64>,
    interim_url: Option<Target>,
    /// The recognition of this attempt. `None` after its end, or without a recogniser.
    open: Option<RecognitionId>,
    /// Whether no recogniser is available.
    no_recogniser: bool,
    /// Whether relevant speech has begun, and whether it continues.
    begun: bool,
    speaking: bool,
    /// Start of the most recent voice activity.
    voice_began: CallTime,
    /// End of the most recent voice activity.
    voice_ended: CallTime,
    /// Whether the result was requested from the recogniser.
    finishing: bool,
    /// Whether the speech began during a prompt that is still playing. Such speech without words
    /// does not count as missing input.
    over_prompt: bool,
    /// Whether an interim result contained words. Digits are ignored from then on.
    has_words: bool,
    /// The number of requests so far, the time of the last one, and the newest unsent result.
    sequence: u32,
    sent: Option<CallTime>,
    waiting: Option<Interim>,
}

impl SpeechInput {
    pub(super) fn new(
        settings: RecognitionSettings,
        at: Position,
        end_ms: Option<u64>,
        interim_url: Option<Target>,
    ) -> Self {
        Self {
            settings,
            at,
            end_ms,
            interim_url,
            open: None,
            no_recogniser: false,
            begun: false,
            speaking: false,
            voice_began: CallTime(0),
            voice_ended: CallTime(0),
            finishing: false,
            over_prompt: false,
            has_words: false,
            sequence: 0,
            sent: None,
            waiting: None,
        }
    }

    /// Starts a recognition for a new attempt.
    pub(super) fn begin(&mut self, ctx: &mut CallContext) {
        self.stop(ctx);
        (self.begun, self.speaking, self.has_words) = (false, false, false);
        (self.finishing, self.over_prompt) = (false, false);
        if !self.no_recogniser {
            let recognition = ctx.next_recognition();
            self.open = Some(recognition);
            send_command(
                ctx,
                recognition,
                SpeechCommand::Begin { settings: Box::new(self.settings.clone()) },
            );
        }
    }

    /// Stops the recognition without a result.
    pub(super) fn stop(&mut self, ctx: &mut CallContext) {
        self.clear_timers(ctx);
        if let Some(recognition) = self.open.take() {
            send_command(ctx, recognition, SpeechCommand::Stop);
        }
    }

    /// Ends the recognition and waits for its result.
    pub(super) fn finish(&mut self, ctx: &mut CallContext) {
        if std::mem::replace(&mut self.finishing, true) {
            return;
        }
        self.waiting = None;
        // A prompt that a short voice has paused does not wait for the result.
        for clock in [DocumentTimer::SpeechEnd, DocumentTimer::Interim] {
            ctx.timers.clear(clock);
        }
        if let Some(recognition) = self.open {
            send_command(ctx, recognition, SpeechCommand::Finish);
            ctx.set_timer(DocumentTimer::Transcript, RESULT_MS);
        }
    }

    /// Handles the end of the recognition.
    pub(super) fn clear(&mut self, ctx: &mut CallContext) {
        self.clear_timers(ctx);
        self.open = None;
    }

    /// Handles a missing recogniser and logs this once.
    pub(super) fn unavailable(&mut self, ctx: &mut CallContext) {
        self.clear(ctx);
        if !std::mem::replace(&mut self.no_recogniser, true) {
            ctx.findings(&[xml::unrecognised_language(self.at, &self.settings.language)]);
            ctx.remark(format!(
                "speech is asked for, and no recogniser understands {}: it counts as no input; \
                 install whisper, set [speech.transcribe] or [speech.websocket], or add hints for pocketsphinx",
                self.settings.language
            ));
        }
    }

    fn clear_timers(&mut self, ctx: &mut CallContext) {
        self.waiting = None;
        for clock in [
            DocumentTimer::SpeechEnd,
            DocumentTimer::FalseBargeIn,
            DocumentTimer::Transcript,
            DocumentTimer::Interim,
        ] {
            ctx.timers.clear(clock);
        }
    }

    pub(super) fn is_current(&self, recognition: RecognitionId) -> bool {
        self.open == Some(recognition)
    }

    /// Whether the caller has begun to speak.
    pub(super) fn has_begun(&self) -> bool {
        self.open.is_some() && self.begun
    }

    /// Whether words were recognised before any digit.
    pub(super) fn has_words(&self) -> bool {
        self.open.is_some() && self.has_words
    }

    pub(super) fn is_speaking(&self) -> bool {
        self.open.is_some() && self.speaking
    }

    /// Whether the result was requested from the recogniser and has not arrived.
    pub(super) fn is_finishing(&self) -> bool {
        self.open.is_some() && self.finishing
    }

    /// Whether no recogniser is available.
    pub(super) fn is_unavailable(&self) -> bool {
        self.no_recogniser
    }

    /// Records that the prompt is still playing during this speech.
    pub(super) fn set_over_prompt(&mut self) {
        self.over_prompt = true;
    }

    pub(super) fn is_over_prompt(&self) -> bool {
        self.over_prompt
    }

    /// Returns `true` if the voice activity that ended `ago_ms` ago was so short that it may not be
    /// speech.
    fn was_short(&self, now: CallTime, ago_ms: u64) -> bool {
        now.0.saturating_sub(self.voice_began.0).saturating_sub(ago_ms) < CERTAIN_SPEECH_MS
    }

    /// Starts the timer after which the paused prompt continues, if the voice that ended `ago_ms`
    /// ago was short. After longer speech the prompt waits for the result.
    pub(super) fn doubt(&mut self, ctx: &mut CallContext, ago_ms: u64) {
        if self.was_short(ctx.now, ago_ms) {
            ctx.set_timer(DocumentTimer::FalseBargeIn, FALSE_BARGE_IN_MS.saturating_sub(ago_ms));
        }
    }

    /// Handles the beginning of speech. `counts` is false if the speech is over a prompt and not
    /// yet long enough.
    pub(super) fn voice(&mut self, ctx: &mut CallContext, counts: bool) {
        if !std::mem::replace(&mut self.speaking, true) {
            self.voice_began = ctx.now;
        }
        ctx.timers.clear(DocumentTimer::FalseBargeIn);
        self.begun |= counts;
        ctx.timers.clear(DocumentTimer::SpeechEnd);
    }

    /// Handles the end of speech `ago_ms` milliseconds ago.
    pub(super) fn quiet(&mut self, ctx: &mut CallContext, ago_ms: u64) {
        self.speaking = false;
        self.voice_ended = CallTime(ctx.now.0.saturating_sub(ago_ms));
        self.end_after_silence(ctx, self.end_ms.unwrap_or(SILENCE_MS));
    }

    /// Handles an estimate of whether the caller, who is silent, has finished.
    pub(super) fn turn(&mut self, ctx: &mut CallContext, finished: u8) {
        if self.end_ms.is_none() && !self.speaking {
            self.end_after_silence(ctx, silence_ms(finished));
        }
    }

    /// Ends speech that has begun when the silence has lasted for `silence_ms`.
    fn end_after_silence(&self, ctx: &mut CallContext, silence_ms: u64) {
        if self.begun && !self.finishing {
            let elapsed_ms = ctx.now.0.saturating_sub(self.voice_ended.0);
            ctx.set_timer(DocumentTimer::SpeechEnd, silence_ms.saturating_sub(elapsed_ms));
        }
    }

    /// Handles an interim result.
    pub(super) fn interim(
        &mut self,
        ctx: &mut CallContext,
        stable: String,
        unstable: String,
        stability: u8,
    ) {
        (self.begun, self.has_words) = (true, true);
        if self.interim_url.is_none() {
            return;
        }
        self.waiting = Some(Interim { stable, unstable, stability });
        let since_ms = self.sent.map_or(INTERIM_MS, |sent| ctx.now.0.saturating_sub(sent.0));
        if since_ms >= INTERIM_MS {
            self.send_interim(ctx);
        } else {
            // When the timer fires, the newest result is sent. Earlier ones are outdated.
            ctx.set_timer(DocumentTimer::Interim, INTERIM_MS - since_ms);
        }
    }

    /// Sends the pending interim result.
    pub(super) fn send_interim(&mut self, ctx: &mut CallContext) {
        ctx.timers.clear(DocumentTimer::Interim);
        let (Some(target), Some(Interim { stable, unstable, stability })) =
            (self.interim_url.clone(), self.waiting.take())
        else {
            return;
        };
        self.sequence = self.sequence.saturating_add(1);
        self.sent = Some(ctx.now);
        let mut params = params::common(ctx, Event::InterimSpeech);
        params.extend(params::interim(
            self.words(stable),
            self.words(unstable),
            stability,
            self.sequence,
        ));
        let Target { url, method } = target;
        ctx.emit(Output::Callback {
            callback: CallbackRequest { kind: CallbackKind::Interim, url, method, params },
        });
    }

    /// Returns the caller's words as a parameter.
    pub(super) fn words(&self, text: String) -> Param {
        if self.settings.hidden { Param::Secret(text) } else { Param::Plain(text.into()) }
    }
}

/// Returns the silence in milliseconds that ends speech which is finished with this probability.
fn silence_ms(finished: u8) -> u64 {
    match finished {
        CERTAINLY_FINISHED.. => 0,
        POSSIBLY_FINISHED.. => POSSIBLY_FINISHED_SILENCE_MS,
        _ => UNFINISHED_SILENCE_MS,
    }
}

fn send_command(ctx: &mut CallContext, recognition: RecognitionId, command: SpeechCommand) {
    ctx.emit(Output::Speech { recognition, command });
}

#[cfg(test)]
mod tests {
    use super::silence_ms;

    #[test]
    fn the_less_speech_is_finished_the_longer_is_the_silence_that_ends_it() {
        let silences = [(100, 0), (98, 0), (97, 1_500), (50, 1_500), (49, 2_500), (0, 2_500)];
        for (finished, silence) in silences {
            assert_eq!(silence_ms(finished), silence, "{finished}");
        }
    }
}
