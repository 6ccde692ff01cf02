//! `Hangup`: now, or later (`plivo-xml.md` §5.12).

use super::{Flow, millis};
use crate::contract::InstructionOutcome;
use crate::desk::Desk;
use crate::document::Gate;
use crate::timers::Timer;
use model::HangupCause;
use xml::ast::{Hangup, HangupReason};

pub(super) fn start(hangup: &Hangup, desk: &mut Desk, gate: Gate, is_last: bool) -> Flow {
    match hangup.schedule {
        // Nothing follows that could pass the time: at once (W305).
        Some(_) if is_last => end(HangupCause::ScheduledHangup),
        Some(schedule) => {
            desk.set(Timer::ScheduledHangup, millis(schedule));
            Flow::Next
        }
        None if gate.is_answered() => end(HangupCause::XmlHangup),
        None => end(match hangup.reason {
            Some(HangupReason::Busy) => HangupCause::XmlBusy,
            Some(HangupReason::Rejected) | None => HangupCause::XmlRejected,
        }),
    }
}

fn end(cause: HangupCause) -> Flow {
    Flow::End { cause, outcome: InstructionOutcome::Done, note: "" }
}
