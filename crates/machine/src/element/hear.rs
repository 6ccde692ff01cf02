//! The speech half of a `GetInput` (`plivo-xml.md` §5.5): one recognition an attempt, and its interim results.
//!
//! Which half a collection ends by is decided in `collect`; here is what speech adds to it.

use crate::contract::{
    CallTime, Listening, Notice, NoticeKind, Output, Param, RecognitionId, SpeechOrder,
};
use crate::desk::Desk;
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
pub(super) struct Hearing {
    how: Listening,
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

impl Hearing {
    pub(super) fn new(
        how: Listening,
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
    pub(super) fn begin(&mut self, desk: &mut Desk) {
        self.stop(desk);
        (self.begun, self.speaking, self.won) = (false, false, false);
        if !self.deaf {
            let recognition = desk.next_recognition();
            self.open = Some(recognition);
            order(desk, recognition, SpeechOrder::Begin { how: Box::new(self.how.clone()) });
        }
    }

    /// What is heard from now on is nobody's business.
    pub(super) fn stop(&mut self, desk: &mut Desk) {
        self.forget_clocks(desk);
        if let Some(recognition) = self.open.take() {
            order(desk, recognition, SpeechOrder::Stop);
        }
    }

    /// The caller has ended: the result is waited for.
    pub(super) fn finish(&mut self, desk: &mut Desk) {
        self.forget_clocks(desk);
        if let Some(recognition) = self.open {
            order(desk, recognition, SpeechOrder::Finish);
            desk.set(Timer::Transcript, RESULT_MS);
        }
    }

    /// The result is there, or none will be.
    pub(super) fn closed(&mut self, desk: &mut Desk) {
        self.forget_clocks(desk);
        self.open = None;
    }

    /// There is no recogniser: that is said once.
    pub(super) fn unavailable(&mut self, desk: &mut Desk) {
        self.closed(desk);
        if !std::mem::replace(&mut self.deaf, true) {
            desk.findings(&[xml::unheard(self.at, &self.how.language)]);
            desk.remark(format!(
                "speech is asked for, and no recogniser understands {}: it counts as no input; set [speech.transcribe] or \
                 [speech.websocket]",
                self.how.language
            ));
        }
    }

    fn forget_clocks(&mut self, desk: &mut Desk) {
        self.waiting = None;
        for clock in [Timer::SpeechEnd, Timer::Transcript, Timer::Interim] {
            desk.timers.clear(clock);
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
    pub(super) fn voice(&mut self, desk: &mut Desk, counts: bool) {
        self.speaking = true;
        self.begun |= counts;
        desk.timers.clear(Timer::SpeechEnd);
    }

    /// It is quiet again since `ago_ms`.
    pub(super) fn quiet(&mut self, desk: &mut Desk, ago_ms: u64) {
        self.speaking = false;
        if self.begun {
            desk.set(Timer::SpeechEnd, self.end_ms.saturating_sub(ago_ms));
        }
    }

    /// Words were heard so far.
    pub(super) fn interim(
        &mut self,
        desk: &mut Desk,
        stable: String,
        unstable: String,
        stability: u8,
    ) {
        (self.begun, self.won) = (true, true);
        if self.interim_url.is_none() {
            return;
        }
        self.waiting = Some(Interim { stable, unstable, stability });
        let since_ms = self.sent.map_or(INTERIM_MS, |sent| desk.now.0.saturating_sub(sent.0));
        if since_ms >= INTERIM_MS {
            self.tell(desk);
        } else {
            // The latest one is told when its turn comes; those between are stale by then.
            desk.set(Timer::Interim, INTERIM_MS - since_ms);
        }
    }

    /// Sends the interim result that waits.
    pub(super) fn tell(&mut self, desk: &mut Desk) {
        desk.timers.clear(Timer::Interim);
        let (Some(target), Some(Interim { stable, unstable, stability })) =
            (self.interim_url.clone(), self.waiting.take())
        else {
            return;
        };
        self.sequence = self.sequence.saturating_add(1);
        self.sent = Some(desk.now);
        let mut params = params::common(desk, Event::InterimSpeech);
        params.extend(params::interim(
            self.words(stable),
            self.words(unstable),
            stability,
            self.sequence,
        ));
        let Target { url, method } = target;
        desk.wish(Output::Notify {
            notice: Notice { kind: NoticeKind::Interim, url, method, params },
        });
    }

    /// The caller's words, as a parameter.
    pub(super) fn words(&self, text: String) -> Param {
        if self.how.hidden { Param::Secret(text) } else { Param::Plain(text.into()) }
    }
}

fn order(desk: &mut Desk, recognition: RecognitionId, order: SpeechOrder) {
    desk.wish(Output::Speech { recognition, order });
}
