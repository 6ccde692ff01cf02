//! Audio played over a leg's own audio, or in place of it: `Play` and `Speak` over REST
//! (docs/reference/rest.md#play).
//!
//! A leg has layers only while such audio is playing. A single source passes through unchanged as
//! prompt frames. Several sources are decoded, mixed and encoded again.

use machine::{Overlay, OverlayKind, PlayId};
use serde::{Deserialize, Serialize};

use super::LegEvent;
use super::packet_mixer::PacketMixer;
use super::player::{PlayItem, Player, PlayerState, Step};
use super::prompt::Frame;
use super::snapshot::PromptTable;
use crate::FRAME_MS;

/// The layers of a leg, the latest on top.
#[derive(Debug, Default)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    mixer: Option<Box<PacketMixer<3>>>,
}

/// The state of [`Layers`] in the snapshot of a leg. The mixer is made anew.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LayersState(Vec<Layer<PlayerState>>);

#[derive(Debug, Serialize, Deserialize)]
struct Layer<P = Player> {
    kind: OverlayKind,
    player: P,
    /// Whether the layer is mixed with the audio below. Otherwise it replaces that audio.
    mix: bool,
    /// The number of remaining frames. `None` if the length is unlimited.
    frames_left: Option<u64>,
    started: bool,
}

/// A layer's output for one tick.
enum LayerStep {
    /// The layer has not started, so the audio below it is used.
    NotStarted,
    Frame(Frame),
    /// The next frame is not ready yet.
    Silence,
    Over,
}

impl<P> Layer<P> {
    /// Returns the layer with another player, or with another form of it.
    fn with_player<Q>(&self, player: Q) -> Layer<Q> {
        let Self { kind, mix, frames_left, started, .. } = *self;
        Layer { kind, player, mix, frames_left, started }
    }
}

impl Layers {
    pub(super) fn players(&self) -> impl Iterator<Item = &Player> {
        self.layers.iter().map(|layer| &layer.player)
    }

    pub(super) fn snapshot(&self, prompts: &PromptTable) -> LayersState {
        let layers = self.layers.iter();
        LayersState(layers.map(|layer| layer.with_player(layer.player.snapshot(prompts))).collect())
    }

    /// Creates the layers of a snapshot. Returns `None` if `prompts` lacks one of their prompts.
    pub(super) fn restore(state: LayersState, prompts: &PromptTable) -> Option<Self> {
        let restore = |layer: Layer<PlayerState>| {
            let (shell, player) = (layer.with_player(()), layer.player);
            Some(shell.with_player(Player::restore(player, prompts)?))
        };
        let layers = state.0.into_iter().map(restore).collect::<Option<_>>()?;
        Some(Self { layers, mixer: None })
    }

    /// Plays `items` from the next tick on, in place of the layer of the same kind.
    pub(super) fn play(&mut self, play: PlayId, aside: &Overlay, items: Vec<PlayItem>) {
        self.layers.retain(|layer| layer.kind != aside.kind);
        self.layers.push(Layer {
            kind: aside.kind,
            player: Player::new(play, items).repeating(aside.repeat),
            mix: aside.mix,
            frames_left: aside.length_ms.map(|ms| ms.div_ceil(u64::from(FRAME_MS))),
            started: false,
        });
    }

    /// Removes the layer with this play id, if it exists.
    pub(super) fn stop(&mut self, play: PlayId) {
        self.layers.retain(|layer| layer.player.play() != play);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Returns the frame of this tick, or `None` for silence. `below` is the leg's own audio.
    pub(super) fn frame(
        &mut self,
        below: Option<Frame>,
        report: impl Fn(LegEvent),
    ) -> Option<Frame> {
        let mut frames = TickFrames { own: below, ..TickFrames::default() };
        self.layers.retain_mut(|layer| {
            let sound = layer.tick(&report);
            if !layer.mix && matches!(sound, LayerStep::Frame(_) | LayerStep::Silence) {
                frames = TickFrames::default();
            }
            match sound {
                LayerStep::Frame(frame) => {
                    match layer.kind {
                        OverlayKind::Play => frames.play = Some(frame),
                        OverlayKind::Speak => frames.speak = Some(frame),
                    }
                    true
                }
                LayerStep::NotStarted | LayerStep::Silence => true,
                LayerStep::Over => false,
            }
        });
        match frames {
            TickFrames { own: one, play: None, speak: None }
            | TickFrames { own: None, play: one, speak: None }
            | TickFrames { own: None, play: None, speak: one } => one,
            TickFrames { own, play, speak } => Some(self.mixer.get_or_insert_default().mix([
                own.as_ref(),
                play.as_ref(),
                speak.as_ref(),
            ])),
        }
    }
}

impl Layer {
    fn tick(&mut self, report: impl Fn(LegEvent)) -> LayerStep {
        if self.frames_left == Some(0) {
            report(LegEvent::Played(self.player.play()));
            return LayerStep::Over;
        }
        let sound = match self.player.step(report) {
            Step::Frame(frame) => {
                self.started = true;
                LayerStep::Frame(frame)
            }
            Step::Silence if self.started => LayerStep::Silence,
            Step::Silence => LayerStep::NotStarted,
            Step::Over => LayerStep::Over,
        };
        if self.started
            && let Some(left) = &mut self.frames_left
        {
            *left = left.saturating_sub(1);
        }
        sound
    }
}

/// The frames that are audible at one tick.
#[derive(Default)]
struct TickFrames {
    own: Option<Frame>,
    play: Option<Frame>,
    speak: Option<Frame>,
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use super::*;
    use crate::opus::{Decoder, Rate};
    use crate::packet_mixer::testing::{strength, tone};
    use crate::prompt::Prompt;
    use xml::ast::Repeat;

    fn aside(kind: OverlayKind, mix: bool) -> Overlay {
        Overlay { kind, items: Vec::new(), repeat: false, mix, length_ms: None }
    }

    fn item(prompt: &Arc<Prompt>) -> Vec<PlayItem> {
        vec![PlayItem { prompt: prompt.clone(), repeat: Repeat::Times(1) }]
    }

    /// A prompt of distinguishable frames, which are not valid Opus.
    fn named(names: &[u8]) -> Arc<Prompt> {
        Prompt::from_frames(names.iter().map(|n| Frame::from([*n])))
    }

    fn run(layers: &mut Layers, below: Option<u8>, ticks: usize) -> (Vec<u8>, Vec<LegEvent>) {
        let events = RefCell::new(Vec::new());
        let played = (0..ticks)
            .map(|_| {
                let below = below.map(|n| Frame::from([n]));
                layers
                    .frame(below, |event| events.borrow_mut().push(event))
                    .map_or(0, |frame| frame[0])
            })
            .collect();
        (played, events.into_inner())
    }

    #[test]
    fn passes_frames_of_a_single_source_unchanged() {
        let mut layers = Layers::default();
        layers.play(PlayId(1), &aside(OverlayKind::Play, false), item(&named(&[1, 2])));
        let (played, events) = run(&mut layers, Some(9), 4);
        assert_eq!(played, [1, 2, 9, 9]);
        assert_eq!(events, [LegEvent::PlayStarted(PlayId(1)), LegEvent::Played(PlayId(1))]);
        assert!(layers.is_empty() && layers.mixer.is_none());

        layers.play(PlayId(2), &aside(OverlayKind::Play, true), item(&named(&[1, 2])));
        assert_eq!(run(&mut layers, None, 4).0, [1, 2, 0, 0]);
        assert!(layers.mixer.is_none(), "nothing was mixed");
    }

    #[test]
    fn keeps_the_audio_below_until_the_first_frame() {
        let (slow, mut writer) = Prompt::new();
        let mut layers = Layers::default();
        layers.play(PlayId(1), &aside(OverlayKind::Speak, false), item(&slow));
        assert_eq!(run(&mut layers, Some(9), 2).0, [9, 9]);
        writer.push(Frame::from([1]));
        assert_eq!(run(&mut layers, Some(9), 3).0, [1, 0, 0]);
        writer.finish();
        assert_eq!(run(&mut layers, Some(9), 1).0, [9]);
        assert!(layers.is_empty());
    }

    #[test]
    fn limits_the_length_and_repeats() {
        let mut layers = Layers::default();
        let bounded =
            Overlay { repeat: true, length_ms: Some(100), ..aside(OverlayKind::Play, false) };
        let (a, b) = (named(&[1, 2]), named(&[3]));
        layers.play(PlayId(1), &bounded, [item(&a), item(&b)].concat());
        let (played, events) = run(&mut layers, Some(9), 7);
        assert_eq!(played, [1, 2, 3, 1, 2, 9, 9]);
        assert_eq!(events.last(), Some(&LegEvent::Played(PlayId(1))));

        let empty = Overlay { repeat: true, ..aside(OverlayKind::Play, false) };
        layers.play(PlayId(2), &empty, item(&named(&[])));
        assert_eq!(run(&mut layers, Some(9), 2).0, [9, 9], "an empty list does not repeat");
        assert!(layers.is_empty());
    }

    #[test]
    fn replaces_layers_of_a_kind_and_stops_by_id() {
        let mut layers = Layers::default();
        let endless = Overlay { repeat: true, ..aside(OverlayKind::Play, false) };
        layers.play(PlayId(1), &endless, item(&named(&[1])));
        layers.play(PlayId(2), &endless, item(&named(&[2])));
        layers.play(
            PlayId(3),
            &Overlay { kind: OverlayKind::Speak, ..endless.clone() },
            item(&named(&[3])),
        );
        assert_eq!(run(&mut layers, Some(9), 2).0, [3, 3], "the latest layer is on top");
        layers.stop(PlayId(1));
        layers.stop(PlayId(3));
        assert_eq!(run(&mut layers, Some(9), 2).0, [2, 2]);
        layers.stop(PlayId(2));
        assert_eq!(run(&mut layers, Some(9), 2).0, [9, 9]);
    }

    #[test]
    fn mixes_two_sources() {
        let mut layers = Layers::default();
        layers.play(
            PlayId(1),
            &aside(OverlayKind::Play, true),
            item(&Prompt::from_frames(tone(440.0))),
        );
        let mut own = Player::new(PlayId(2), item(&Prompt::from_frames(tone(1_000.0))));
        let mut decoder = Decoder::new(Rate::Hz16000);
        let mut pcm = Vec::new();
        for _ in 0..50 {
            let Step::Frame(below) = own.step(|_| {}) else { panic!("a frame") };
            let frame = layers.frame(Some(below), |_| {}).expect("sound");
            decoder.decode(Some(&frame), false, &mut pcm).expect("Opus");
        }
        let late = &pcm[8_000..];
        for hz in [440.0, 1_000.0] {
            assert!(strength(late, hz) > 0.1, "{hz}: {}", strength(late, hz));
        }
        assert!(strength(late, 700.0) < 0.02);
    }
}
