//! `Wait`: silence for a while (`plivo-xml.md` §5.4). Before the answer the phone goes on ringing meanwhile.
//!
//! With `silence="true"` it ends early once the caller has said nothing for `minSilence`: the leg tells where voice begins
//! and ends, a timer runs while there is none. With `beep` it ends once a voicemail has beeped: the leg tells that.

use super::{At, Flow, Instruction};
use crate::activity::{Activity, Finished, Progress, Stop, Turn};
use crate::contract::time::millis;
use crate::contract::{MediaOrder, Voice};
use crate::desk::Desk;
use crate::picture::{Sketch, text, word};
use crate::timers::Timer;
use xml::ast::{Beep, Wait};

impl Instruction for Wait {
    fn start(&self, turn: &mut Turn<'_>, _: At) -> Flow {
        let early = Early::of(self);
        match early {
            Some(early) => early.begin(turn.desk, millis(self.length)),
            None => turn.desk.set(Timer::Wait, millis(self.length)),
        }
        Flow::run(Waiting { early })
    }

    fn needs_media(&self) -> bool {
        false
    }

    fn takes_time(&self) -> bool {
        true
    }
}

/// A `Wait` that runs.
struct Waiting {
    /// What ends it early, if something does.
    early: Option<Early>,
}

impl Activity for Waiting {
    fn voice(&mut self, turn: &mut Turn<'_>, voice: Voice) -> Progress {
        match self.early {
            Some(early) if early.heard(turn.desk, voice) => {
                early.stop(turn.desk);
                Progress::Finished(Finished::done("beep"))
            }
            Some(_) | None => Progress::Pending,
        }
    }

    fn timer(&mut self, turn: &mut Turn<'_>, timer: Timer) -> Progress {
        match (timer, self.early) {
            (Timer::Wait, None) => Progress::Finished(Finished::done("")),
            (Timer::Wait | Timer::Silence, Some(early)) => {
                early.stop(turn.desk);
                let note = if timer == Timer::Silence { "silence" } else { "" };
                Progress::Finished(Finished::done(note))
            }
            // Timers of other instructions.
            _ => Progress::Pending,
        }
    }

    fn stop(&mut self, turn: &mut Turn<'_>, why: Stop) {
        match (why, self.early) {
            (Stop::CallEnds, _) => {}
            (Stop::Replaced, None) => turn.desk.timers.clear(Timer::Wait),
            (Stop::Replaced, Some(early)) => early.stop(turn.desk),
        }
    }

    fn draw(&self, sketch: &mut Sketch) {
        let what = if self.early.is_some() { "wait_that_listens" } else { "wait" };
        sketch.say("waits_for", [word(what), text("")]);
    }
}

/// What ends a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Early {
    /// Nobody has said anything for so long.
    quiet_ms: Option<u64>,
    beep: Option<Beep>,
}

impl Early {
    /// None: the wait runs its length.
    pub(super) fn of(wait: &Wait) -> Option<Self> {
        let early = Self { quiet_ms: wait.min_silence.map(millis), beep: wait.beep };
        (early.quiet_ms.is_some() || early.beep.is_some()).then_some(early)
    }

    /// Waits for `ms`, or until what is listened for has been heard.
    pub(super) fn begin(self, desk: &mut Desk, ms: u64) {
        desk.set(Timer::Wait, ms);
        if let Some(quiet_ms) = self.quiet_ms {
            desk.media(MediaOrder::Listen { on: true });
            desk.set(Timer::Silence, quiet_ms);
        }
        if self.beep.is_some() {
            desk.media(MediaOrder::Beep { how: self.beep });
        }
    }

    /// Something of the caller's during the wait; `true`: it was waited for.
    #[must_use]
    pub(super) fn heard(self, desk: &mut Desk, what: Voice) -> bool {
        match (what, self.quiet_ms) {
            (Voice::Beep, _) => return self.beep.is_some(),
            (Voice::Began, _) => desk.timers.clear(Timer::Silence),
            (Voice::Ended { ago_ms }, Some(quiet_ms)) => {
                desk.set(Timer::Silence, quiet_ms.saturating_sub(ago_ms))
            }
            (Voice::Ended { .. }, None) => {}
        }
        false
    }

    /// The wait is over, one way or the other.
    pub(super) fn stop(self, desk: &mut Desk) {
        desk.timers.clear(Timer::Wait);
        if self.quiet_ms.is_some() {
            desk.timers.clear(Timer::Silence);
            desk.media(MediaOrder::Listen { on: false });
        }
        if self.beep.is_some() {
            desk.media(MediaOrder::Beep { how: None });
        }
    }
}
