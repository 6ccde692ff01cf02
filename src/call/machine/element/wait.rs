//! `Wait`: silence for a while (`plivo-xml.md` §5.4). Before the answer the phone goes on ringing meanwhile.
//!
//! With `silence="true"` it ends early once the caller has said nothing for `minSilence`: the leg tells where voice begins
//! and ends, a timer runs while there is none.

use super::{Flow, Running, millis};
use crate::call::machine::desk::{Desk, Place};
use crate::call::machine::timers::Timer;
use crate::call::machine::{MediaOrder, Voice};
use crate::xml::ast::Wait;

pub(super) fn start(wait: &Wait, desk: &mut Desk, place: Place) -> Flow {
    if wait.beep {
        desk.remark(format!(
            "{place}: listening for a voicemail beep is not built in this version; it runs its full length"
        ));
    }
    let quiet_ms = wait.min_silence.map(millis);
    match quiet_ms {
        Some(quiet_ms) => listen(desk, millis(wait.length), quiet_ms),
        None => desk.set(Timer::Wait, millis(wait.length)),
    }
    Flow::Run(Running::Waiting { quiet_ms })
}

/// Waits for `ms`, or until nobody has said anything for `quiet_ms`.
pub(super) fn listen(desk: &mut Desk, ms: u64, quiet_ms: u64) {
    desk.set(Timer::Wait, ms);
    desk.media(MediaOrder::Listen { on: true });
    desk.set(Timer::Silence, quiet_ms);
}

/// The caller's voice during a wait for `quiet_ms` of silence.
pub(in crate::call::machine) fn heard(desk: &mut Desk, quiet_ms: u64, what: Voice) {
    match what {
        Voice::Began => desk.timers.clear(Timer::Silence),
        Voice::Ended { ago_ms } => desk.set(Timer::Silence, quiet_ms.saturating_sub(ago_ms)),
    }
}

/// A wait for silence is over, one way or the other.
pub(in crate::call::machine) fn stop_listening(desk: &mut Desk) {
    desk.timers.clear(Timer::Wait);
    desk.timers.clear(Timer::Silence);
    desk.media(MediaOrder::Listen { on: false });
}
