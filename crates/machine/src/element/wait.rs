//! `Wait`: silence for a while (`plivo-xml.md` §5.4). Before the answer the phone goes on ringing meanwhile.
//!
//! With `silence="true"` it ends early once the caller has said nothing for `minSilence`: the leg tells where voice begins
//! and ends, a timer runs while there is none. With `beep` it ends once a voicemail has beeped: the leg tells that.

use super::{Flow, Running, millis};
use crate::contract::{MediaOrder, Voice};
use crate::desk::Desk;
use crate::timers::Timer;
use xml::ast::{Beep, Wait};

/// What ends a wait before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Early {
    /// Nobody has said anything for so long.
    quiet_ms: Option<u64>,
    beep: Option<Beep>,
}

pub(super) fn start(wait: &Wait, desk: &mut Desk) -> Flow {
    let early = Early::of(wait);
    match early {
        Some(early) => early.begin(desk, millis(wait.length)),
        None => desk.set(Timer::Wait, millis(wait.length)),
    }
    Flow::Run(Running::Waiting { early })
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
    pub(crate) fn heard(self, desk: &mut Desk, what: Voice) -> bool {
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
    pub(crate) fn stop(self, desk: &mut Desk) {
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
