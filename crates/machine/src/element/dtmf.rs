//! `DTMF`: tones towards the user (`plivo-xml.md` §5.12).

use super::{At, Flow, Instruction, pre_answer};
use crate::activity::{Activity, Finished, Gate, Progress, Stop, Turn};
use crate::contract::{MediaOrder, PlayId};
use crate::picture::{Sketch, text, word};
use xml::ast::Dtmf;

impl Instruction for Dtmf {
    fn start(&self, turn: &mut Turn<'_>, _: At) -> Flow {
        let play = turn.desk.next_play();
        turn.desk.media(MediaOrder::SendDigits { play, digits: self.digits.clone() });
        match self.asynchronous {
            true => Flow::Tones(play),
            false => Flow::run(SendingDigits { play, in_background: false }),
        }
    }

    fn needs_media(&self) -> bool {
        true
    }

    fn takes_time(&self) -> bool {
        !self.asynchronous
    }

    fn skip_reason(&self, _: Gate, within_pre_answer: bool) -> Option<&'static str> {
        within_pre_answer.then_some(pre_answer::UNHEARD)
    }
}

/// Tones that are waited for.
pub(crate) struct SendingDigits {
    pub(crate) play: PlayId,
    /// They began in the background. Only the end of the document waits for them.
    pub(crate) in_background: bool,
}

impl Activity for SendingDigits {
    fn digits_sent(&mut self, _: &mut Turn<'_>, play: PlayId) -> Progress {
        match play == self.play {
            true => Progress::Finished(Finished::done("")),
            false => Progress::Pending,
        }
    }

    fn stop(&mut self, turn: &mut Turn<'_>, why: Stop) {
        if why == Stop::Replaced && !self.in_background {
            turn.desk.media(MediaOrder::Stop { play: self.play });
        }
    }

    fn draw(&self, sketch: &mut Sketch) {
        sketch.say("waits_for", [word("tones"), text(self.play.0)]);
    }
}
