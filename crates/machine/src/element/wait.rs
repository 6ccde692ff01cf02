//! `Wait`: silence (docs/reference/xml.md#wait). Before the answer, the phone continues to ring.
//!
//! With `silence="true"` it ends early after `minSilence` of silence. The leg reports the beginning
//! and the end of voice, and a timer runs in between. With `beep` it ends early after a voicemail
//! beep, which the leg reports.

use super::{At, Flow, Instruction};
use crate::activity::{Activity, Completion, Env, Progress, StopReason};
use crate::context::CallContext;
use crate::contract::time::millis;
use crate::contract::{MediaCommand, VoiceEvent};
use crate::snapshot::{SnapshotBuilder, text, word};
use crate::timers::DocumentTimer;
use xml::ast::{Beep, Wait};

impl Instruction for Wait {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        let early = EarlyEnd::of(self);
        match early {
            Some(early) => early.begin(env.ctx, millis(self.length)),
            None => env.ctx.set_timer(DocumentTimer::Wait, millis(self.length)),
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

/// A `Wait` that is being executed.
struct Pause {
    /// The conditions that end the wait early.
    early: Option<EarlyEnd>,
}

impl Activity for Pause {
    fn voice(&mut self, env: &mut Env<'_>, voice: VoiceEvent) -> Progress {
        match self.early {
            Some(early) if early.ends_wait(env.ctx, voice) => {
                early.stop(env.ctx);
                Progress::Finished(Completion::done("beep"))
            }
            Some(_) | None => Progress::Pending,
        }
    }

    fn timer(&mut self, env: &mut Env<'_>, timer: DocumentTimer) -> Progress {
        match (timer, self.early) {
            (DocumentTimer::Wait, None) => Progress::Finished(Completion::done("")),
            (DocumentTimer::Wait | DocumentTimer::Silence, Some(early)) => {
                early.stop(env.ctx);
                let note = if timer == DocumentTimer::Silence { "silence" } else { "" };
                Progress::Finished(Completion::done(note))
            }
            // Timers of other instructions.
            _ => Progress::Pending,
        }
    }

    fn stop(&mut self, env: &mut Env<'_>, reason: StopReason) {
        match (reason, self.early) {
            (StopReason::CallEnds, _) => {}
            (StopReason::Replaced, None) => env.ctx.timers.clear(DocumentTimer::Wait),
            (StopReason::Replaced, Some(early)) => early.stop(env.ctx),
        }
    }

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        let label = if self.early.is_some() { "wait_or_event" } else { "wait" };
        snapshot.add("waits_for", [word(label), text("")]);
    }
}

/// The conditions that end a wait early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EarlyEnd {
    /// The duration of silence that ends the wait, in milliseconds. `None` if silence does not end
    /// it.
    silence_ms: Option<u64>,
    beep: Option<Beep>,
}

impl EarlyEnd {
    /// Reads the attributes. `None` if the wait cannot end early.
    pub(super) fn of(wait: &Wait) -> Option<Self> {
        let early = Self { silence_ms: wait.min_silence.map(millis), beep: wait.beep };
        (early.silence_ms.is_some() || early.beep.is_some()).then_some(early)
    }

    /// Starts the timers and detectors of a wait of `ms` milliseconds.
    pub(super) fn begin(self, ctx: &mut CallContext, ms: u64) {
        ctx.set_timer(DocumentTimer::Wait, ms);
        if let Some(silence_ms) = self.silence_ms {
            ctx.media(MediaCommand::DetectVoice { on: true });
            ctx.set_timer(DocumentTimer::Silence, silence_ms);
        }
        if self.beep.is_some() {
            ctx.media(MediaCommand::DetectBeep { settings: self.beep });
        }
    }

    /// Handles a voice event. Returns `true` if it ends the wait.
    #[must_use]
    pub(super) fn ends_wait(self, ctx: &mut CallContext, voice: VoiceEvent) -> bool {
        match (voice, self.silence_ms) {
            (VoiceEvent::Beep, _) => return self.beep.is_some(),
            (VoiceEvent::Began, _) => ctx.timers.clear(DocumentTimer::Silence),
            (VoiceEvent::Ended { ago_ms }, Some(silence_ms)) => {
                ctx.set_timer(DocumentTimer::Silence, silence_ms.saturating_sub(ago_ms))
            }
            (VoiceEvent::Ended { .. }, None) => {}
        }
        false
    }

    /// Stops the timers and detectors.
    pub(super) fn stop(self, ctx: &mut CallContext) {
        ctx.timers.clear(DocumentTimer::Wait);
        if self.silence_ms.is_some() {
            ctx.timers.clear(DocumentTimer::Silence);
            ctx.media(MediaCommand::DetectVoice { on: false });
        }
        if self.beep.is_some() {
            ctx.media(MediaCommand::DetectBeep { settings: None });
        }
    }
}
