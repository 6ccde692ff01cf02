//! `DTMF`: sends tones to the user (docs/reference/xml.md#dtmf).

use super::{At, Flow, Instruction, pre_answer};
use crate::activity::{Activity, Completion, Env, Progress, Readiness, StopReason};
use crate::contract::{MediaCommand, PlayId};
use crate::snapshot::{SnapshotBuilder, text, word};
use xml::ast::Dtmf;

impl Instruction for Dtmf {
    fn start(&self, env: &mut Env<'_>, _: At) -> Flow {
        let play = env.ctx.next_play();
        env.ctx.media(MediaCommand::SendDigits { play, digits: self.digits.clone() });
        match self.asynchronous {
            true => Flow::Tones(play),
            false => Flow::run(ToneWait { play, in_background: false }),
        }
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        !self.asynchronous
    }

    fn skip_reason(&self, _: Readiness, within_pre_answer: bool) -> Option<&'static str> {
        within_pre_answer.then_some(pre_answer::NO_AUDIO)
    }
}

/// The activity that waits until tones have been sent.
pub(crate) struct ToneWait {
    pub(crate) play: PlayId,
    /// Whether the tones were started in the background, so that only the end of the document waits
    /// for them.
    pub(crate) in_background: bool,
}

impl Activity for ToneWait {
    fn digits_sent(&mut self, _: &mut Env<'_>, play: PlayId) -> Progress {
        match play == self.play {
            true => Progress::Finished(Completion::done("")),
            false => Progress::Pending,
        }
    }

    fn stop(&mut self, env: &mut Env<'_>, reason: StopReason) {
        if reason == StopReason::Replaced && !self.in_background {
            env.ctx.media(MediaCommand::Stop { play: self.play });
        }
    }

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.add("waits_for", [word("tones"), text(self.play.0)]);
    }
}
