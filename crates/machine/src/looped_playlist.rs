//! Sounds that are played again and again while something is waited for: `dialMusic`, `waitSound`, music on hold.

use super::activity::Readiness;
use super::context::CallContext;
use super::sounds::prepare;
use crate::contract::{CallTime, MediaCommand, PlayId, SoundItem};
use xml::ast::Repeat;

/// A round that is over sooner could not be had: again and again would be a loop without sound.
const ROUND_MIN_MS: u64 = 200;

/// See the module's note.
pub(crate) struct LoopedPlaylist {
    items: Vec<SoundItem>,
    /// What is played where the items can't be had; then nothing.
    instead: Vec<SoundItem>,
    playing: Option<(PlayId, CallTime)>,
}

impl LoopedPlaylist {
    /// These, made ready.
    pub(crate) fn of(
        ctx: &mut CallContext,
        mut items: Vec<SoundItem>,
        instead: Vec<SoundItem>,
    ) -> Self {
        prepare(ctx, &items);
        // One alone goes over into itself.
        if let [one] = items.as_mut_slice()
            && one.repeat != Repeat::Times(0)
        {
            one.repeat = Repeat::Endless;
        }
        Self { items, instead, playing: None }
    }

    /// Plays, unless it does, if it can be heard.
    pub(crate) fn play(&mut self, ctx: &mut CallContext, readiness: Readiness) {
        if readiness == Readiness::Open && self.playing.is_none() && !self.items.is_empty() {
            self.playing = Some((ctx.play(self.items.clone()), ctx.now));
        }
    }

    /// A round is over: the next one.
    pub(crate) fn played(&mut self, ctx: &mut CallContext, readiness: Readiness, ended: PlayId) {
        let Some((_, since)) = self.playing.take_if(|(play, _)| *play == ended) else { return };
        if ctx.now.0.saturating_sub(since.0) < ROUND_MIN_MS {
            self.items = std::mem::take(&mut self.instead);
        }
        self.play(ctx, readiness);
    }

    pub(crate) fn is_playing(&self, which: PlayId) -> bool {
        self.playing.is_some_and(|(play, _)| play == which)
    }

    /// Silence, until it is played again.
    pub(crate) fn stop(&mut self, ctx: &mut CallContext) {
        if let Some((play, _)) = self.playing.take() {
            ctx.media(MediaCommand::Stop { play });
        }
    }
}
