//! `Hangup`: ends the call now or later (docs/reference/xml.md#hangup).

use super::{At, Flow, Instruction};
use crate::activity::{Completion, Env};
use crate::contract::InstructionOutcome;
use crate::contract::time::millis;
use crate::timers::Timer;
use model::HangupCause;
use xml::ast::{Hangup, HangupReason};

impl Instruction for Hangup {
    fn start(&self, env: &mut Env<'_>, at: At) -> Flow {
        match self.schedule {
            // No later element could fill the time, so the call ends now (W305).
            Some(_) if at.is_last => end(HangupCause::ScheduledHangup),
            Some(schedule) => {
                env.ctx.set_timer(Timer::ScheduledHangup, millis(schedule));
                Flow::Finished(Completion::done(""))
            }
            None if env.readiness.is_answered() => end(HangupCause::XmlHangup),
            None => end(match self.reason {
                Some(HangupReason::Busy) => HangupCause::XmlBusy,
                Some(HangupReason::Rejected) | None => HangupCause::XmlRejected,
            }),
        }
    }

    fn needs_media(&self) -> bool {
        false
    }

    fn takes_time(&self) -> bool {
        false
    }
}

fn end(cause: HangupCause) -> Flow {
    Flow::End { cause, outcome: InstructionOutcome::Done, note: "" }
}
