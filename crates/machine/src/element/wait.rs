//! `Wait`: silence for a while (`plivo-xml.md` §5.4). Before the answer the phone goes on ringing meanwhile.
//!
//! With `silence="true"` it ends early once the caller has said nothing for `minSilence`: the leg tells where voice begins
//! and ends, a timer runs while there is none. With `beep` it ends once a voicemail has beeped: the leg tells that.

use super::{At, Flow, Instruction};
use crate::activity::{Activity, Completion, Env, Progress, Stop};
use crate::context::CallContext;
use crate::contract::time::millis;
use crate::contract::{MediaCommand, VoiceEvent};
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::timers::Timer;
use xml::ast::{Beep, Wait};

impl Instruction for Wait {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        let early = EarlyEnd::of(self);
        match early {
            Some(early) => early.begin(env.ctx, millis(self.length)),
            None => env.ctx.set(Timer::Wait, millis(self.length)),
        }
        Flow::run(Pause { early })
    }

    fn needs_media(&self) -> bool {
        false
    }

    fn takes_time(&self) -> bool {
        true
    }
}

/// A `Wait` that runs.
struct Pause {
    /// What ends it early, if something does.
    early: Option<EarlyEnd>,
}

impl Activity for Pause {
    fn voice(&mut self, env: &mut Env<'_>, voice: VoiceEvent) -> Progress {
        match self.early {
            Some(early) if early.heard(env.ctx, voice) => {
                early.stop(env.ctx);
                Progress::Finished(Completion::done("beep"))
            }
            Some(_) | None => Progress::Pending,
        }
    }

    fn timer(&mut self, env: &mut Env<'_>, timer: Timer) -> Progress {
        match (timer, self.early) {
            (Timer::Wait, None) => Progress::Finished(Completion::done("")),
            (Timer::Wait | Timer::Silence, Some(early)) => {
                early.stop(env.ctx);
                let note = if timer == Timer::Silence { "silence" } else { "" };
                Progress::Finished(Completion::done(note))
            }
            // Timers of other instructions.
            _ => Progress::Pending,
        }
    }

    fn stop(&mut self, env: &mut Env<'_>, why: Stop) {
        match (why, self.early) {
            (Stop::CallEnds, _) => {}
            (Stop::Replaced, None) => env.ctx.timers.clear(Timer::Wait),
            (Stop::Replaced, Some(early)) => early.stop(env.ctx),
        }
    }

    fn draw(&self, snapshot: &mut SnapshotBuilder) {
        let what = if self.early.is_some() { "wait_that_listens" } else { "wait" };
        snapshot.say("waits_for", [word(what), text("")]);
    }
}

/// What ends a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EarlyEnd {
    /// Nobody has said anything for so long.
    quiet_ms: Option<u64>,
    beep: Option<Beep>,
}

impl EarlyEnd {
    /// None: the wait runs its length.
    pub(super) fn of(wait: &Wait) -> Option<Self> {
        let early = Self { quiet_ms: wait.min_silence.map(millis), beep: wait.beep };
        (early.quiet_ms.is_some() || early.beep.is_some()).then_some(early)
    }

    /// Waits for `ms`, or until what is listened for has been heard.
    pub(super) fn begin(self, ctx: &mut CallContext, ms: u64) {
        ctx.set(Timer::Wait, ms);
        if let Some(quiet_ms) = self.quiet_ms {
            ctx.media(MediaCommand::DetectVoice { on: true });
            ctx.set(Timer::Silence, quiet_ms);
        }
        if self.beep.is_some() {
            ctx.media(MediaCommand::DetectBeep { settings: self.beep });
        }
    }

    /// Something of the caller's during the wait; `true`: it was waited for.
    #[must_use]
    pub(super) fn heard(self, ctx: &mut CallContext, what: VoiceEvent) -> bool {
        match (what, self.quiet_ms) {
            (VoiceEvent::Beep, _) => return self.beep.is_some(),
            (VoiceEvent::Began, _) => ctx.timers.clear(Timer::Silence),
            (VoiceEvent::Ended { ago_ms }, Some(quiet_ms)) => {
                ctx.set(Timer::Silence, quiet_ms.saturating_sub(ago_ms))
            }
            (VoiceEvent::Ended { .. }, None) => {}
        }
        false
    }

    /// The wait is over, one way or the other.
    pub(super) fn stop(self, ctx: &mut CallContext) {
        ctx.timers.clear(Timer::Wait);
        if self.quiet_ms.is_some() {
            ctx.timers.clear(Timer::Silence);
            ctx.media(MediaCommand::DetectVoice { on: false });
        }
        if self.beep.is_some() {
            ctx.media(MediaCommand::DetectBeep { settings: None });
        }
    }
}
