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
    fn slot(&mut self, kind: OverlayKind) -> &mut Option<PlayId> {
        match kind {
            OverlayKind::Play => &mut self.play,
            OverlayKind::Speak => &mut self.speak,
        }
    }

    pub(super) fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        for (label, play) in [("overlay_play", self.play), ("overlay_speak", self.speak)] {
            if let Some(play) = play {
                snapshot.add("beside", [word(label), text(play.0)]);
            }
        }
    }

    pub(super) fn play(&mut self, ctx: &mut CallContext, legs: Legs, overlay: Overlay) {
        if legs.has_a() {
            let play = ctx.next_play();
            *self.slot(overlay.kind) = Some(play);
            ctx.media(MediaCommand::Overlay { play, overlay });
        }
    }

    pub(super) fn stop(&mut self, ctx: &mut CallContext, kind: OverlayKind) {
        if let Some(play) = self.slot(kind).take() {
            ctx.media(MediaCommand::Stop { play });
        }
    }

    pub(super) fn send_digits(ctx: &mut CallContext, legs: Legs, digits: String) {
        if legs.has_a() {
            let play = ctx.next_play();
            ctx.media(MediaCommand::SendDigits { play, digits });
        }
    }

    /// Records that a playlist has ended.
    pub(super) fn played(&mut self, ended: PlayId) {
        for slot in [&mut self.play, &mut self.speak] {
            slot.take_if(|play| *play == ended);
        }
    }

    /// Logs that a sound could not be played. Returns whether it belongs to an overlay.
    pub(super) fn failed(
        &self,
        ctx: &mut CallContext,
        play_id: PlayId,
        item: u16,
        reason: &str,
    ) -> bool {
        let name = match (self.play, self.speak) {
            (Some(play), _) if play == play_id => "Play",
            (_, Some(play)) if play == play_id => "Speak",
            _ => return false,
        };
        let (number, reason) = (item.saturating_add(1), foreign(reason));
        ctx.remark(format!(
            "sound {number} of {name} over REST could not be played: {reason}; it is skipped"
        ));
        true
    }
}
