//! Sounds that are played again and again while something is waited for: `dialMusic`, `waitSound`, music on hold.

use super::activity::Gate;
use super::desk::Desk;
use super::sounds::prepare;
use crate::contract::{CallTime, MediaOrder, PlayId, SoundItem};
use xml::ast::Repeat;

/// A round that is over sooner could not be had: again and again would be a loop without sound.
const ROUND_MIN_MS: u64 = 200;

/// See the module's note.
pub(crate) struct Round {
    items: Vec<SoundItem>,
    /// What is played where the items can't be had; then nothing.
    instead: Vec<SoundItem>,
    playing: Option<(PlayId, CallTime)>,
}

impl Round {
    /// These, made ready.
    pub(crate) fn of(desk: &mut Desk, mut items: Vec<SoundItem>, instead: Vec<SoundItem>) -> Self {
        prepare(desk, &items);
        // One alone goes over into itself.
        if let [one] = items.as_mut_slice()
            && one.repeat != Repeat::Times(0)
        {
            one.repeat = Repeat::Endless;
        }
        Self { items, instead, playing: None }
    }

    /// Plays, unless it does, if it can be heard.
    pub(crate) fn play(&mut self, desk: &mut Desk, gate: Gate) {
        if gate == Gate::Open && self.playing.is_none() && !self.items.is_empty() {
            self.playing = Some((desk.play(self.items.clone()), desk.now));
        }
    }

    /// A round is over: the next one.
    pub(crate) fn played(&mut self, desk: &mut Desk, gate: Gate, ended: PlayId) {
        let Some((_, since)) = self.playing.take_if(|(play, _)| *play == ended) else { return };
        if desk.now.0.saturating_sub(since.0) < ROUND_MIN_MS {
            self.items = std::mem::take(&mut self.instead);
        }
        self.play(desk, gate);
    }

    pub(crate) fn is_playing(&self, which: PlayId) -> bool {
        self.playing.is_some_and(|(play, _)| play == which)
    }

    /// Silence, until it is played again.
    pub(crate) fn stop(&mut self, desk: &mut Desk) {
        if let Some((play, _)) = self.playing.take() {
            desk.media(MediaOrder::Stop { play });
        }
    }
}
