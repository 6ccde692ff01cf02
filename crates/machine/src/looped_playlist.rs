//! Sounds that are played in a loop while a call waits: `dialMusic`, `waitSound`, music on hold.

use super::activity::Readiness;
use super::context::CallContext;
use super::sounds::prepare;
use crate::contract::{CallTime, MediaCommand, PlayId, SoundItem};
use xml::ast::Repeat;

/// Minimum duration of a round. A shorter round counts as a failure to play. Without the limit,
/// sounds that fail would cause a busy loop.
const ROUND_MIN_MS: u64 = 200;

/// A playlist that is repeated until it is stopped. See the [module documentation](self).
pub(crate) struct LoopedPlaylist {
    items: Vec<SoundItem>,
    /// The sounds that are played if `items` fail. If these fail too, nothing is played.
    fallback: Vec<SoundItem>,
    playing: Option<(PlayId, CallTime)>,
}

impl LoopedPlaylist {
    /// Returns a loop of `items` and prepares them.
    pub(crate) fn new(
        ctx: &mut CallContext,
        mut items: Vec<SoundItem>,
        fallback: Vec<SoundItem>,
    ) -> Self {
        prepare(ctx, &items);
        // A single sound is repeated by the player, without a gap.
        if let [one] = items.as_mut_slice()
            && one.repeat != Repeat::Times(0)
        {
            one.repeat = Repeat::Endless;
        }
        Self { items, fallback, playing: None }
    }

    /// Starts the sounds if the media path is up and they are not being played.
    pub(crate) fn play(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        if readiness == Readiness::Open && self.playing.is_none() && !self.items.is_empty() {
            self.playing = Some((ctx.play(self.items.clone()), ctx.now));
        }
    }

    /// Handles the end of a playlist. If it is this one, the next round begins.
    pub(crate) fn played(&mut self, ctx: &mut CallContext, readiness: Readiness, ended: PlayId) {
        let Some((_, since)) = self.playing.take_if(|(play, _)| *play == ended) else { return };
        if ctx.now.0.saturating_sub(since.0) < ROUND_MIN_MS {
            self.items = std::mem::take(&mut self.fallback);
        }
        self.play(ctx, readiness);
    }

    pub(crate) fn is_playing(&self, play_id: PlayId) -> bool {
        self.playing.is_some_and(|(play, _)| play == play_id)
    }

    /// Stops the sounds. They can be played again later.
    pub(crate) fn stop(&mut self, ctx: &mut CallContext) {
        if let Some((play, _)) = self.playing.take() {
            ctx.media(MediaCommand::Stop { play });
        }
    }
}
