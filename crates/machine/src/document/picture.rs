//! A script, drawn: where in its document it stands, and what it waits for.

use super::super::element::Running;
use super::super::picture::{Sketch, text, word};
use super::Script;

impl Script {
    pub(crate) fn draw(&self, sketch: &mut Sketch) {
        if let Some(document) = &self.document {
            let (next, all) = (self.next.min(document.elements.len()), document.elements.len());
            sketch.say(
                "document",
                [
                    word("number"),
                    text(self.documents),
                    word("element"),
                    text(format!("{next}/{all}")),
                ],
            );
        }
        if let Some(place) = self.place {
            sketch.say(
                "instruction",
                [text(format!("<{}>", place.element)), word("line"), text(place.line)],
            );
        }
        if !self.keys.is_empty() {
            sketch.say("typed_ahead", [text(self.keys.shown())]);
        }
        if let Some(play) = self.tones {
            sketch.say("beside", [word("tones"), text(play.0)]);
        }
        if let Some(tape) = &self.tape {
            tape.draw(sketch);
        }
        let line = match &self.running {
            Running::Nothing => return,
            Running::AtGate => [word("answered_and_connected"), text("")],
            Running::Fetching { fetch, kind } => {
                return sketch
                    .say("waits_for", [word("fetch"), text(fetch.0), text(kind.as_str())]);
            }
            Running::Playing { play, .. } => [word("play"), text(play.0)],
            Running::Waiting { early: None } => [word("wait"), text("")],
            Running::Waiting { early: Some(_) } => [word("wait_that_listens"), text("")],
            Running::Collecting(collection) => return collection.draw(sketch),
            Running::Dialing(dialing) => return dialing.draw(sketch),
            Running::Called(callee) => return callee.draw(sketch),
            Running::Attending(attending) => return attending.draw(sketch),
            Running::Streaming { .. } => [word("stream_to_end"), text("")],
            Running::Recording(recording) => return recording.draw(sketch),
            Running::Naming { record, .. } => [word("name_of_recording"), text(record.0)],
            Running::SendingDigits { play } => [word("tones"), text(play.0)],
        };
        sketch.say("waits_for", line);
    }
}
