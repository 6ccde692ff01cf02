//! What is played over a leg's own sound, or instead of it: `Play` and `Speak` over REST (`plivo-call-api.md` §2.10, §2.11).
//!
//! A leg has layers only while something is played so. One sound at a time passes through as it is, ready frames of a
//! prompt; where several are heard at once they are decoded, added and encoded anew, for that while only.

use machine::{Overlay, OverlayKind, PlayId};

use super::LegEvent;
use super::blend::Blend;
use super::player::{PlayItem, Player, Step};
use super::prompt::Frame;

/// Milliseconds of a frame.
const FRAME_MS: u64 = 20;

/// The sounds over a leg's own, the one begun last on top.
#[derive(Debug, Default)]
pub(super) struct Layers {
    layers: Vec<Layer>,
    blend: Option<Box<Blend<3>>>,
}

#[derive(Debug)]
struct Layer {
    kind: OverlayKind,
    player: Player,
    /// Over what is below it; else instead of that.
    mix: bool,
    /// Frames that may still be heard.
    frames_left: Option<u64>,
    begun: bool,
}

/// A layer's tick.
enum Sound {
    /// Not begun: what is below is heard.
    NotYet,
    Frame(Frame),
    /// Its next frame is not made yet.
    Silence,
    Over,
}

impl Layers {
    /// Plays these from the next tick on, in place of what plays of that kind.
    pub(super) fn play(&mut self, play: PlayId, aside: &Overlay, items: Vec<PlayItem>) {
        self.layers.retain(|layer| layer.kind != aside.kind);
        self.layers.push(Layer {
            kind: aside.kind,
            player: Player::new(play, items).again_and_again(aside.repeat),
            mix: aside.mix,
            frames_left: aside.length_ms.map(|ms| ms.div_ceil(FRAME_MS)),
            begun: false,
        });
    }

    /// Stops that play, if it is one of these.
    pub(super) fn stop(&mut self, play: PlayId) {
        self.layers.retain(|layer| layer.player.play() != play);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// This tick's frame; `below` is the leg's own.
    pub(super) fn frame(
        &mut self,
        below: Option<Frame>,
        report: impl Fn(LegEvent),
    ) -> Option<Frame> {
        let mut heard = Heard { own: below, ..Heard::default() };
        self.layers.retain_mut(|layer| {
            let sound = layer.tick(&report);
            if !layer.mix && matches!(sound, Sound::Frame(_) | Sound::Silence) {
                heard = Heard::default();
            }
            match sound {
                Sound::Frame(frame) => {
                    match layer.kind {
                        OverlayKind::Play => heard.play = Some(frame),
                        OverlayKind::Speak => heard.speak = Some(frame),
                    }
                    true
                }
                Sound::NotYet | Sound::Silence => true,
                Sound::Over => false,
            }
        });
        match heard {
            Heard { own: one, play: None, speak: None }
            | Heard { own: None, play: one, speak: None }
            | Heard { own: None, play: None, speak: one } => one,
            Heard { own, play, speak } => Some(self.blend.get_or_insert_default().of([
                own.as_ref(),
                play.as_ref(),
                speak.as_ref(),
            ])),
        }
    }
}

impl Layer {
    fn tick(&mut self, report: impl Fn(LegEvent)) -> Sound {
        if self.frames_left == Some(0) {
            report(LegEvent::Played(self.player.play()));
            return Sound::Over;
        }
        let sound = match self.player.step(report) {
            Step::Frame(frame) => {
                self.begun = true;
                Sound::Frame(frame)
            }
            Step::Silence if self.begun => Sound::Silence,
            Step::Silence => Sound::NotYet,
            Step::Over => Sound::Over,
        };
        if self.begun
            && let Some(left) = &mut self.frames_left
        {
            *left = left.saturating_sub(1);
        }
        sound
    }
}

/// What is to be heard at one tick.
#[derive(Default)]
struct Heard {
    own: Option<Frame>,
    play: Option<Frame>,
    speak: Option<Frame>,
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;

    use super::*;
    use crate::blend::testing::{strength, tone};
    use crate::opus::{Decoder, Rate};
    use crate::prompt::Prompt;
    use xml::ast::Repeat;

    fn aside(kind: OverlayKind, mix: bool) -> Overlay {
        Overlay { kind, items: Vec::new(), repeat: false, mix, length_ms: None }
    }

    fn item(prompt: &Arc<Prompt>) -> Vec<PlayItem> {
        vec![PlayItem { prompt: prompt.clone(), repeat: Repeat::Times(1) }]
    }

    /// A prompt of frames that can be told apart, and that are no Opus.
    fn named(names: &[u8]) -> Arc<Prompt> {
        Prompt::of(names.iter().map(|n| Frame::from([*n])))
    }

    fn run(layers: &mut Layers, below: Option<u8>, ticks: usize) -> (Vec<u8>, Vec<LegEvent>) {
        let told = RefCell::new(Vec::new());
        let heard = (0..ticks)
            .map(|_| {
                let below = below.map(|n| Frame::from([n]));
                layers
                    .frame(below, |event| told.borrow_mut().push(event))
                    .map_or(0, |frame| frame[0])
            })
            .collect();
        (heard, told.into_inner())
    }

    #[test]
    fn instead_of_the_own_sound_or_through_silence_frames_pass_as_they_are() {
        let mut layers = Layers::default();
        layers.play(PlayId(1), &aside(OverlayKind::Play, false), item(&named(&[1, 2])));
        let (heard, told) = run(&mut layers, Some(9), 4);
        assert_eq!(heard, [1, 2, 9, 9]);
        assert_eq!(told, [LegEvent::PlayStarted(PlayId(1)), LegEvent::Played(PlayId(1))]);
        assert!(layers.is_empty() && layers.blend.is_none());

        layers.play(PlayId(2), &aside(OverlayKind::Play, true), item(&named(&[1, 2])));
        assert_eq!(run(&mut layers, None, 4).0, [1, 2, 0, 0]);
        assert!(layers.blend.is_none(), "nothing was mixed");
    }

    #[test]
    fn what_is_not_made_yet_silences_nothing_before_it_begins() {
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
    fn length_bounds_and_again_goes_round() {
        let mut layers = Layers::default();
        let bounded = Overlay { repeat: true, length_ms: Some(100), ..aside(OverlayKind::Play, false) };
        let (a, b) = (named(&[1, 2]), named(&[3]));
        layers.play(PlayId(1), &bounded, [item(&a), item(&b)].concat());
        let (heard, told) = run(&mut layers, Some(9), 7);
        assert_eq!(heard, [1, 2, 3, 1, 2, 9, 9]);
        assert_eq!(told.last(), Some(&LegEvent::Played(PlayId(1))));

        let empty = Overlay { repeat: true, ..aside(OverlayKind::Play, false) };
        layers.play(PlayId(2), &empty, item(&named(&[])));
        assert_eq!(run(&mut layers, Some(9), 2).0, [9, 9], "nothing goes round for ever");
        assert!(layers.is_empty());
    }

    #[test]
    fn a_new_one_of_a_kind_replaces_the_old_and_a_stop_stops_its_own() {
        let mut layers = Layers::default();
        let endless = Overlay { repeat: true, ..aside(OverlayKind::Play, false) };
        layers.play(PlayId(1), &endless, item(&named(&[1])));
        layers.play(PlayId(2), &endless, item(&named(&[2])));
        layers.play(
            PlayId(3),
            &Overlay { kind: OverlayKind::Speak, ..endless.clone() },
            item(&named(&[3])),
        );
        assert_eq!(run(&mut layers, Some(9), 2).0, [3, 3], "the last one is on top");
        layers.stop(PlayId(1));
        layers.stop(PlayId(3));
        assert_eq!(run(&mut layers, Some(9), 2).0, [2, 2]);
        layers.stop(PlayId(2));
        assert_eq!(run(&mut layers, Some(9), 2).0, [9, 9]);
    }

    #[test]
    fn both_are_heard_at_once() {
        let mut layers = Layers::default();
        layers.play(PlayId(1), &aside(OverlayKind::Play, true), item(&Prompt::of(tone(440.0))));
        let mut own = Player::new(PlayId(2), item(&Prompt::of(tone(1_000.0))));
        let mut ear = Decoder::new(Rate::Hz16000);
        let mut pcm = Vec::new();
        for _ in 0..50 {
            let Step::Frame(below) = own.step(|_| {}) else { panic!("a frame") };
            let frame = layers.frame(Some(below), |_| {}).expect("sound");
            ear.decode(Some(&frame), false, &mut pcm).expect("Opus");
        }
        let late = &pcm[8_000..];
        for hz in [440.0, 1_000.0] {
            assert!(strength(late, hz) > 0.1, "{hz}: {}", strength(late, hz));
        }
        assert!(strength(late, 700.0) < 0.02);
    }
}
