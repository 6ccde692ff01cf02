//! A `Dial`, drawn: its legs, by the last digits of whom they are for.

use super::{Dialing, Phase};
use crate::picture::{Sketch, text, word};
use model::last_four;

impl Dialing {
    pub(crate) fn draw(&self, sketch: &mut Sketch) {
        for (index, leg) in self.legs.iter().enumerate() {
            let won = self.winner == Some(index);
            let how = match (leg.phase, leg.answered) {
                (Phase::Over, _) => "leg_over",
                (_, Some(_)) if won && self.joined => "leg_joined",
                (_, Some(_)) => "leg_answered",
                (Phase::Placed, None) => "leg_placed",
                (Phase::Asked, None) => "leg_asked",
            };
            let name = format!("B{}", leg.position);
            sketch.say(
                "legs",
                [text(name), text(format_args!("…{}", last_four(&leg.to))), word(how)],
            );
        }
        let waits = match (self.winner, self.joined) {
            (None, _) => "leg_to_answer",
            (Some(_), false) => "leg_to_be_ready",
            (Some(_), true) => "legs_to_part",
        };
        sketch.say("waits_for", [word(waits)]);
    }
}
