//! The audio sources of a leg, and the selection of the audio for each tick.

use super::reporter::Reporter;
use crate::bridge::BridgeEnd;
use crate::feed::FeedEnd;
use crate::layers::{Layers, LayersState};
use crate::packet_mixer::{BridgeAudio, PacketMixer, next_bridge_audio};
use crate::player::{Player, PlayerState, Step};
use crate::prompt::{Frame, Prompt};
use crate::snapshot::{NotMovable, PromptTable};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The sources of a leg's audio.
pub(super) struct AudioSources {
    pub(super) player: Option<Player>,
    /// The bridge to another leg.
    pub(super) bridge: Option<Box<BridgeEnd>>,
    /// Audio from a room.
    pub(super) room: Option<Box<FeedEnd>>,
    /// Other live audio for the peer, followed by the mixer that adds it to the rest.
    pub(super) feed: Option<Box<FeedEnd>>,
    mixer: Option<Box<PacketMixer<2>>>,
    /// Audio that is played over the player's, if there is any.
    pub(super) layers: Option<Box<Layers>>,
    pub(super) silence: Frame,
}

/// The state of [`AudioSources`] in the snapshot of a leg. A bridge and a feed have states of their
/// own. The other process connects a leg with its room anew.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct AudioState {
    player: Option<PlayerState>,
    layers: Option<LayersState>,
}

impl AudioSources {
    pub(super) fn new(silence: Frame) -> Self {
        Self {
            player: None,
            bridge: None,
            room: None,
            feed: None,
            mixer: None,
            layers: None,
            silence,
        }
    }

    /// Returns why the sources cannot move to another process, if they cannot.
    pub(super) fn movable(&self) -> Result<(), NotMovable> {
        if self.feed.as_ref().is_some_and(|feed| !feed.is_movable()) {
            return Err(NotMovable::Fed);
        }
        if self.players().any(Player::is_loading) {
            return Err(NotMovable::PromptLoading);
        }
        Ok(())
    }

    fn players(&self) -> impl Iterator<Item = &Player> {
        self.player.iter().chain(self.layers.iter().flat_map(|layers| layers.players()))
    }

    /// Returns the prompts that are being played.
    pub(super) fn prompts(&self) -> impl Iterator<Item = &Arc<Prompt>> {
        self.players().flat_map(Player::prompts)
    }

    pub(super) fn snapshot(&self, prompts: &PromptTable) -> AudioState {
        AudioState {
            player: self.player.as_ref().map(|player| player.snapshot(prompts)),
            layers: self.layers.as_ref().map(|layers| layers.snapshot(prompts)),
        }
    }

    /// Creates the sources of a snapshot. Returns `None` if `prompts` lacks one of the prompts.
    pub(super) fn restore(
        state: AudioState,
        prompts: &PromptTable,
        silence: Frame,
    ) -> Option<Self> {
        let mut sources = Self::new(silence);
        if let Some(player) = state.player {
            sources.player = Some(Player::restore(player, prompts)?);
        }
        if let Some(layers) = state.layers {
            sources.layers = Some(Box::new(Layers::restore(layers, prompts)?));
        }
        Some(sources)
    }

    /// Returns whether there is live audio for the peer.
    pub(super) fn is_live(&self) -> bool {
        self.bridge.is_some() || self.room.is_some() || self.feed.is_some()
    }

    /// Returns the bridge if its packets can be forwarded unchanged. `None` if other audio has
    /// precedence or must be mixed with it.
    pub(super) fn sole_bridge(&mut self) -> Option<&mut BridgeEnd> {
        let is_mixed =
            self.layers.is_some() || self.feed.as_ref().is_some_and(|feed| feed.has_queued());
        let bridge = self.bridge.as_deref_mut().filter(|_| self.player.is_none() && !is_mixed)?;
        self.mixer = None;
        Some(bridge)
    }

    /// Returns the next 20 ms, or `None` for silence.
    pub(super) fn next(&mut self, reporter: &Reporter) -> Option<Frame> {
        let own = self.next_own(reporter);
        let Some(layers) = &mut self.layers else { return own };
        let frame = layers.frame(own, |event| reporter.report(event));
        if layers.is_empty() {
            self.layers = None;
        }
        frame
    }

    /// Returns the next frame of the leg's own audio: the playlist, the bridge, the room or the
    /// feed. `None` if they are silent. They advance even while a layer replaces them.
    fn next_own(&mut self, reporter: &Reporter) -> Option<Frame> {
        let room = next_feed_frame(&mut self.room);
        if self.player.is_some() {
            let played_frame = self.next_played(reporter);
            return room.filter(|frame| **frame != *self.silence).or(played_frame);
        }
        let feed_frame = next_feed_frame(&mut self.feed);
        let bridged = match &mut self.bridge {
            Some(bridge) => match next_bridge_audio(bridge, &mut self.mixer) {
                BridgeAudio::Frame(frame) => Some(frame),
                BridgeAudio::Packets(mixer) => return Some(mixer.mix([None, feed_frame.as_ref()])),
                BridgeAudio::Nothing => None,
            },
            None => room,
        };
        if self.feed.is_none() {
            self.mixer = None;
        }
        match (bridged, feed_frame) {
            (Some(bridged), Some(feed_frame)) if *bridged != *self.silence => {
                Some(self.mixer.get_or_insert_default().mix([Some(&bridged), Some(&feed_frame)]))
            }
            (bridged, feed_frame) => feed_frame.or(bridged),
        }
    }

    fn next_played(&mut self, reporter: &Reporter) -> Option<Frame> {
        match self.player.as_mut()?.step(|event| reporter.report(event)) {
            Step::Frame(frame) => Some(frame),
            Step::Silence => None,
            Step::Over => {
                self.player = None;
                None
            }
        }
    }
}

/// Takes the next frame of a feed, and drops the feed if its sender was dropped.
fn next_feed_frame(feed: &mut Option<Box<FeedEnd>>) -> Option<Frame> {
    let (frame, is_open) = feed.as_mut()?.next();
    if !is_open {
        *feed = None;
    }
    frame
}
