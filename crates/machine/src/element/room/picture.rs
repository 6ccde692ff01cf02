//! A call in a room, drawn.

use super::{Attending, Element};
use crate::picture::{Sketch, brief, text, word};

impl Attending {
    pub(crate) fn draw(&self, sketch: &mut Sketch) {
        let what = match self.element {
            Element::Conference(_) => "conference",
            Element::MultiParty(_) => "multi_party_call",
        };
        match &self.inside {
            Some(inside) => {
                sketch.say("room", [word(what), text(brief(inside.room)), word("inside")])
            }
            None => sketch.say("room", [word(what), word("outside")]),
        }
        for (is, how) in
            [(self.waits, "room_waits"), (self.held, "room_held"), (self.muted, "room_muted")]
        {
            if is {
                sketch.say("room", [word(how)]);
            }
        }
        if let Some(track) = self.track {
            sketch.say("recording", [word("own_track"), text(track.0)]);
        }
        let waits = if self.inside.is_some() { "room_to_end" } else { "room_to_enter" };
        sketch.say("waits_for", [word(waits)]);
    }
}
