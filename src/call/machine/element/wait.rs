//! `Wait`: silence for a while (`plivo-xml.md` §5.4). Before the answer the phone goes on ringing meanwhile.

use super::{Flow, Running, millis};
use crate::call::machine::desk::{Desk, Place};
use crate::call::machine::timers::Timer;
use crate::xml::ast::Wait;

pub(super) fn start(wait: &Wait, desk: &mut Desk, place: Place) -> Flow {
    if wait.min_silence.is_some() || wait.beep {
        let what = if wait.beep { "a voicemail beep" } else { "silence" };
        desk.remark(format!("{place}: listening for {what} is not built in this version; it runs its full length"));
    }
    desk.set(Timer::Wait, millis(wait.length));
    Flow::Run(Running::Waiting)
}
