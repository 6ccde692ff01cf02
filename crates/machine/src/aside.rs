//! What REST has played and typed beside the document (`plivo-call-api.md` §2.10–2.12): the document goes on meanwhile,
//! whatever is heard of it, and knows nothing of it.

use super::desk::Desk;
use super::picture::{Sketch, text, word};
use crate::contract::display::foreign;
use crate::contract::{Aside, AsideKind, Legs, MediaOrder, PlayId};

/// What plays beside the document, and what of it may still be told of.
#[derive(Debug, Default)]
pub(super) struct Asides {
    play: Option<PlayId>,
    speak: Option<PlayId>,
}

impl Asides {
    fn place(&mut self, kind: AsideKind) -> &mut Option<PlayId> {
        match kind {
            AsideKind::Play => &mut self.play,
            AsideKind::Speak => &mut self.speak,
        }
    }

    pub(super) fn draw(&self, sketch: &mut Sketch) {
        for (what, play) in [("aside_play", self.play), ("aside_speak", self.speak)] {
            if let Some(play) = play {
                sketch.say("beside", [word(what), text(play.0)]);
            }
        }
    }

    pub(super) fn play(&mut self, desk: &mut Desk, legs: Legs, aside: Aside) {
        if legs.has_a() {
            let play = desk.next_play();
            *self.place(aside.kind) = Some(play);
            desk.media(MediaOrder::Aside { play, aside });
        }
    }

    pub(super) fn stop(&mut self, desk: &mut Desk, what: AsideKind) {
        if let Some(play) = self.place(what).take() {
            desk.media(MediaOrder::Stop { play });
        }
    }

    pub(super) fn send_digits(desk: &mut Desk, legs: Legs, digits: String) {
        if legs.has_a() {
            let play = desk.next_play();
            desk.media(MediaOrder::SendDigits { play, digits });
        }
    }

    /// One has come to its end.
    pub(super) fn played(&mut self, ended: PlayId) {
        for place in [&mut self.play, &mut self.speak] {
            place.take_if(|play| *play == ended);
        }
    }

    /// A sound could not be had. Gives whether it was one of these.
    pub(super) fn failed(&self, desk: &mut Desk, which: PlayId, item: u16, reason: &str) -> bool {
        let what = match (self.play, self.speak) {
            (Some(play), _) if play == which => "Play",
            (_, Some(play)) if play == which => "Speak",
            _ => return false,
        };
        let (nr, reason) = (item.saturating_add(1), foreign(reason));
        desk.remark(format!(
            "sound {nr} of {what} over REST could not be played: {reason}; it is skipped"
        ));
        true
    }
}
