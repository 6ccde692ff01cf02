//! Sounds and digits that API requests play beside the document (docs/reference/rest.md#play). They
//! do not affect the document, which continues.

use super::context::CallContext;
use super::snapshot::{SnapshotBuilder, text, word};
use crate::contract::display::foreign;
use crate::contract::{Legs, MediaCommand, Overlay, OverlayKind, PlayId};

/// The overlays of a call, one of each kind.
#[derive(Debug, Default)]
pub(super) struct Overlays {
    play: Option<PlayId>,
    speak: Option<PlayId>,
}

impl Overlays {
    fn place(&mut self, kind: OverlayKind) -> &mut Option<PlayId> {
        match kind {
            OverlayKind::Play => &mut self.play,
            OverlayKind::Speak => &mut self.speak,
        }
    }

    pub(super) fn draw(&self, snapshot: &mut SnapshotBuilder) {
        for (what, play) in [("aside_play", self.play), ("aside_speak", self.speak)] {
            if let Some(play) = play {
                snapshot.say("beside", [word(what), text(play.0)]);
            }
        }
    }

    pub(super) fn play(&mut self, ctx: &mut CallContext, legs: Legs, aside: Overlay) {
        if legs.has_a() {
            let play = ctx.next_play();
            *self.place(aside.kind) = Some(play);
            ctx.media(MediaCommand::Overlay { play, overlay: aside });
        }
    }

    pub(super) fn stop(&mut self, ctx: &mut CallContext, what: OverlayKind) {
        if let Some(play) = self.place(what).take() {
            ctx.media(MediaCommand::Stop { play });
        }
    }

    pub(super) fn send_digits(ctx: &mut CallContext, legs: Legs, digits: String) {
        if legs.has_a() {
            let play = ctx.next_play();
            ctx.media(MediaCommand::SendDigits { play, digits });
        }
    }

    /// Notes that a playlist has ended.
    pub(super) fn played(&mut self, ended: PlayId) {
        for place in [&mut self.play, &mut self.speak] {
            place.take_if(|play| *play == ended);
        }
    }

    /// Logs that a sound could not be played. Returns whether it belongs to an overlay.
    pub(super) fn failed(
        &self,
        ctx: &mut CallContext,
        which: PlayId,
        item: u16,
        reason: &str,
    ) -> bool {
        let what = match (self.play, self.speak) {
            (Some(play), _) if play == which => "Play",
            (_, Some(play)) if play == which => "Speak",
            _ => return false,
        };
        let (nr, reason) = (item.saturating_add(1), foreign(reason));
        ctx.remark(format!(
            "sound {nr} of {what} over REST could not be played: {reason}; it is skipped"
        ));
        true
    }
}
