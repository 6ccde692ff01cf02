//! The speech half of a `GetInput` (`plivo-xml.md` §5.5): one recognition an attempt, and its interim results.
//!
//! Which half a collection ends by is decided in `collect`; here is what speech adds to it.

use crate::context::CallContext;
use crate::contract::{
    CallTime, CallbackKind, CallbackRequest, Output, Param, RecognitionId, RecognitionSettings,
    SpeechCommand,
};
use crate::params::{self, Event};
use crate::timers::Timer;
use xml;
use xml::ast::{Position, Target};

/// Milliseconds between two interim requests: five a second (L36).
const INTERIM_MS: u64 = 200;
/// How long a result may take, from the end of the speech.
const RESULT_MS: u64 = 15_000;

/// An interim result on its way to the application.
struct Interim {
    stable: String,
    unstable: String,
    stability: u8,
}

/// Whoever listens.
pub(super) struct SpeechInput {
    how: RecognitionSettings,
    /// Where its element stands.
    at: Position,
    /// Silence that ends speech.
    end_ms: u64,
    interim_url: Option<Target>,
    /// The recognition of this attempt; none: it has ended, or there is nobody to ask.
    open: Option<RecognitionId>,
    /// There is no recogniser.
    deaf: bool,
    /// A voice was heard that counts, and is heard now.
    begun: bool,
    speaking: bool,
    /// An interim result had words in it: keys count no more.
    won: bool,
    /// Requests so far, the moment of the last, and a newer result that waits for its turn.
    sequence: u32,
    sent: Option<CallTime>,
    waiting: Option<Interim>,
}

impl SpeechInput {
    pub(super) fn new(
        how: RecognitionSettings,
        at: Position,
        end_ms: u64,
        interim_url: Option<Target>,
    ) -> Self {
        Self {
            how,
            at,
            end_ms,
            interim_url,
            open: None,
            deaf: false,
            begun: false,
            speaking: false,
            won: false,
            sequence: 0,
            sent: None,
            waiting: None,
        }
    }

    /// A new attempt begins.
    pub(super) fn begin(&mut self, ctx: &mut CallContext) {
        self.stop(ctx);
        (self.begun, self.speaking, self.won) = (false, false, false);
        if !self.deaf {
            let recognition = ctx.next_recognition();
            self.open = Some(recognition);
            order(ctx, recognition, SpeechCommand::Begin { settings: Box::new(self.how.clone()) });
        }
    }

    /// What is heard from now on is nobody's business.
    pub(super) fn stop(&mut self, ctx: &mut CallContext) {
        self.forget_clocks(ctx);
        if let Some(recognition) = self.open.take() {
            order(ctx, recognition, SpeechCommand::Stop);
        }
    }

    /// The caller has ended: the result is waited for.
    pub(super) fn finish(&mut self, ctx: &mut CallContext) {
        self.forget_clocks(ctx);
        if let Some(recognition) = self.open {
            order(ctx, recognition, SpeechCommand::Finish);
            ctx.set(Timer::Transcript, RESULT_MS);
        }
    }

    /// The result is there, or none will be.
    pub(super) fn closed(&mut self, ctx: &mut CallContext) {
        self.forget_clocks(ctx);
        self.open = None;
    }

    /// There is no recogniser: that is said once.
    pub(super) fn unavailable(&mut self, ctx: &mut CallContext) {
        self.closed(ctx);
        if !std::mem::replace(&mut self.deaf, true) {
            ctx.findings(&[xml::unrecognised_language(self.at, &self.how.language)]);
            ctx.remark(format!(
                "speech is asked for, and no recogniser understands {}: it counts as no input; set [speech.transcribe] or \
                 [speech.websocket]", self.how.language ));
        }
    }

    fn forget_clocks(&mut self, ctx: &mut CallContext) {
        self.waiting = None;
        for clock in [Timer::SpeechEnd, Timer::Transcript, Timer::Interim] {
            ctx.timers.clear(clock);
        }
    }

    pub(super) fn is(&self, recognition: RecognitionId) -> bool {
        self.open == Some(recognition)
    }

    /// Somebody has said something, or does now.
    pub(super) fn has_begun(&self) -> bool {
        self.open.is_some() && self.begun
    }

    /// Words were heard before any key.
    pub(super) fn has_won(&self) -> bool {
        self.open.is_some() && self.won
    }

    pub(super) fn is_speaking(&self) -> bool {
        self.open.is_some() && self.speaking
    }

    /// A voice is heard; one during a prompt counts only once it has lasted.
    pub(super) fn voice(&mut self, ctx: &mut CallContext, counts: bool) {
        self.speaking = true;
        self.begun |= counts;
        ctx.timers.clear(Timer::SpeechEnd);
    }

    /// It is quiet again since `ago_ms`.
    pub(super) fn quiet(&mut self, ctx: &mut CallContext, ago_ms: u64) {
        self.speaking = false;
        if self.begun {
            ctx.set(Timer::SpeechEnd, self.end_ms.saturating_sub(ago_ms));
        }
    }

    /// Words were heard so far.
    pub(super) fn interim(
        &mut self,
        ctx: &mut CallContext,
        stable: String,
        unstable: String,
        stability: u8,
    ) {
        (self.begun, self.won) = (true, true);
        if self.interim_url.is_none() {
            return;
        }
        self.waiting = Some(Interim { stable, unstable, stability });
        let since_ms = self.sent.map_or(INTERIM_MS, |sent| ctx.now.0.saturating_sub(sent.0));
        if since_ms >= INTERIM_MS {
            self.tell(ctx);
        } else {
            // The latest one is told when its turn comes; those between are stale by then.
            ctx.set(Timer::Interim, INTERIM_MS - since_ms);
        }
    }

    /// Sends the interim result that waits.
    pub(super) fn tell(&mut self, ctx: &mut CallContext) {
        ctx.timers.clear(Timer::Interim);
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
        ctx.wish(Output::Callback {
            callback: CallbackRequest { kind: CallbackKind::Interim, url, method, params },
        });
    }

    /// The caller's words, as a parameter.
    pub(super) fn words(&self, text: String) -> Param {
        if self.how.hidden { Param::Secret(text) } else { Param::Plain(text.into()) }
    }
}

fn order(ctx: &mut CallContext, recognition: RecognitionId, order: SpeechCommand) {
    ctx.wish(Output::Speech { recognition, command: order });
}
