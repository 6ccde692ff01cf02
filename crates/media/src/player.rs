//! Plays a list of prompts in steps of 20 ms, without gaps, each as often as requested.
//!
//! The player has no I/O and no clock. While a frame is not ready, the step is silence. The leg
//! decides when to play.

use crate::LegEvent;
use crate::prefetch::prefetch;
use crate::prompt::{Cursor, Frame, FrameState, Position, Prompt};
use crate::snapshot::{PromptId, PromptTable};
use machine::PlayId;
use serde::{Deserialize, Serialize};
use xml::ast::Repeat;

use std::sync::{Arc, OnceLock};

/// An entry of a playlist.
#[derive(Clone, Debug)]
pub struct PlayItem {
    pub prompt: Arc<Prompt>,
    pub repeat: Repeat,
}

/// The output of one tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Frame(Frame),
    /// The next frame is not ready yet.
    Silence,
    /// The list has ended, and its last event was reported.
    Over,
}

/// A playlist in progress.
#[derive(Debug)]
pub(super) struct Player {
    items: Vec<PlayItem>,
    /// Position in the prompt of the current item. `None` before its first frame.
    cursor: Option<Cursor>,
    progress: Progress,
}

/// The state of a [`Player`] in the snapshot of a leg.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PlayerState {
    items: Vec<(PromptId, Repeat)>,
    position: Option<Position>,
    progress: Progress,
}

/// The progress of a playlist.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Progress {
    play: PlayId,
    /// Index of the current item.
    at: usize,
    rounds_done: u16,
    /// Whether the current round had a frame. A prompt without frames must not repeat forever.
    round_has_frames: bool,
    started: bool,
    /// Whether the list restarts at its end.
    repeats: bool,
    /// Whether the list had a frame since its last start.
    list_has_frames: bool,
    paused: bool,
}

impl Player {
    pub(super) fn new(play: PlayId, items: Vec<PlayItem>) -> Self {
        let progress = Progress {
            play,
            at: 0,
            rounds_done: 0,
            round_has_frames: false,
            started: false,
            repeats: false,
            list_has_frames: false,
            paused: false,
        };
        Self { items, cursor: None, progress }
    }

    /// Returns whether a prompt of the list is still being produced.
    pub(super) fn is_loading(&self) -> bool {
        self.items.iter().any(|item| !item.prompt.is_finished())
    }

    /// Returns the prompts of the list.
    pub(super) fn prompts(&self) -> impl Iterator<Item = &Arc<Prompt>> {
        self.items.iter().map(|item| &item.prompt)
    }

    pub(super) fn snapshot(&self, prompts: &PromptTable) -> PlayerState {
        let items = self.items.iter().map(|item| (prompts.id_of(&item.prompt), item.repeat));
        PlayerState {
            items: items.collect(),
            position: self.cursor.as_ref().map(Cursor::position),
            progress: self.progress,
        }
    }

    /// Creates the player of a snapshot. Returns `None` if `prompts` lacks one of its prompts.
    pub(super) fn restore(state: PlayerState, prompts: &PromptTable) -> Option<Self> {
        let PlayerState { items, position, progress } = state;
        let item = |(id, repeat)| Some(PlayItem { prompt: prompts.get(id)?, repeat });
        let items = items.into_iter().map(item).collect::<Option<Vec<_>>>()?;
        let cursor = position.zip(items.get(progress.at));
        let cursor = cursor.map(|(position, item)| item.prompt.cursor_at(position));
        Some(Self { items, cursor, progress })
    }

    /// Pauses or resumes. A paused player returns silence and reports nothing.
    pub(super) fn pause(&mut self, on: bool) {
        self.progress.paused = on;
    }

    /// Sets whether the whole list repeats until it is stopped.
    pub(super) fn repeating(mut self, repeats: bool) -> Self {
        match self.items.as_mut_slice() {
            // A single prompt can repeat with a seamless transition.
            [one] if repeats && one.repeat != Repeat::Times(0) => one.repeat = Repeat::Endless,
            _ => self.progress.repeats = repeats,
        }
        self
    }

    /// Prefetches the data of the next step.
    pub(super) fn prefetch(&self) {
        if let Some(item) = self.items.get(self.progress.at) {
            prefetch(item, usize::MAX);
        }
        if let Some(slot) = self.cursor.as_ref().and_then(Cursor::slot) {
            prefetch(slot, usize::MAX);
        }
    }

    /// Prefetches the content of the frame.
    pub(super) fn prefetch_frame(&self) {
        if let Some(frame) = self.cursor.as_ref().and_then(Cursor::slot).and_then(OnceLock::get) {
            prefetch(&**frame, usize::MAX);
        }
    }

    pub(super) fn play(&self) -> PlayId {
        self.progress.play
    }

    /// Runs the step of this tick. `report` receives the start, failed items, and the end. The end
    /// is one tick after the last frame, when that frame has been played.
    pub(super) fn step(&mut self, mut report: impl FnMut(LegEvent)) -> Step {
        if self.progress.paused {
            return Step::Silence;
        }
        loop {
            let Some(item) = self.items.get(self.progress.at) else {
                // A list without frames must not repeat forever.
                if self.progress.repeats && std::mem::take(&mut self.progress.list_has_frames) {
                    self.progress.at = 0;
                    continue;
                }
                report(LegEvent::Played(self.progress.play));
                return Step::Over;
            };
            let cursor = self.cursor.get_or_insert_with(|| item.prompt.cursor());
            let another = match item.repeat {
                Repeat::Times(times) => self.progress.rounds_done.saturating_add(1) < times,
                Repeat::Endless => true,
            };
            match cursor.next_in_round(another) {
                _ if item.repeat == Repeat::Times(0) => self.next_item(),
                FrameState::Ready(frame) => {
                    self.progress.round_has_frames = true;
                    self.progress.list_has_frames = true;
                    if !std::mem::replace(&mut self.progress.started, true) {
                        report(LegEvent::PlayStarted(self.progress.play));
                    }
                    return Step::Frame(frame);
                }
                FrameState::Pending => return Step::Silence,
                FrameState::End => {
                    self.progress.rounds_done = self.progress.rounds_done.saturating_add(1);
                    if another && self.progress.round_has_frames {
                        self.progress.round_has_frames = false;
                        cursor.rewind();
                    } else {
                        self.next_item();
                    }
                }
                FrameState::Failed => {
                    report(LegEvent::PlayFailed {
                        play: self.progress.play,
                        item: u16::try_from(self.progress.at).unwrap_or(u16::MAX),
                        reason: item
                            .prompt
                            .failure()
                            .unwrap_or("the prompt could not be produced")
                            .to_owned(),
                    });
                    self.next_item();
                }
            }
        }
    }

    fn next_item(&mut self) {
        self.progress.at += 1;
        self.cursor = None;
        self.progress.rounds_done = 0;
        self.progress.round_has_frames = false;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{PlayItem, Player, Step};
    use crate::LegEvent;
    use crate::prompt::{Frame, Prompt};
    use machine::PlayId;
    use xml::ast::Repeat;

    const PLAY: PlayId = PlayId(3);

    fn prompt(frames: &[u8]) -> Arc<Prompt> {
        Prompt::from_frames(frames.iter().map(|n| Frame::from([*n])))
    }

    fn item(prompt: &Arc<Prompt>, repeat: Repeat) -> PlayItem {
        PlayItem { prompt: prompt.clone(), repeat }
    }

    /// Runs until the end, at most `most` ticks. Returns the frames played (0 for silence), and the
    /// events with their ticks.
    fn run(player: &mut Player, most: usize) -> (Vec<u8>, Vec<(usize, LegEvent)>) {
        let (mut frames, mut events) = (Vec::new(), Vec::new());
        for tick in 0..most {
            match player.step(|e| events.push((tick, e))) {
                Step::Frame(frame) => frames.push(frame[0]),
                Step::Silence => frames.push(0),
                Step::Over => break,
            }
        }
        (frames, events)
    }

    #[test]
    fn plays_items_without_gaps() {
        let (a, b) = (prompt(&[1, 2]), prompt(&[3]));
        let items = vec![
            item(&a, Repeat::Times(2)),
            item(&b, Repeat::Times(0)),
            item(&b, Repeat::Times(1)),
            item(&a, Repeat::Times(1)),
        ];
        let (frames, events) = run(&mut Player::new(PLAY, items), 50);
        assert_eq!(frames, [1, 2, 1, 2, 3, 1, 2]);
        assert_eq!(events, [(0, LegEvent::PlayStarted(PLAY)), (7, LegEvent::Played(PLAY))]);
    }

    #[test]
    fn repeats_endlessly_unless_empty() {
        let (frames, events) =
            run(&mut Player::new(PLAY, vec![item(&prompt(&[1, 2]), Repeat::Endless)]), 9);
        assert_eq!(frames, [1, 2, 1, 2, 1, 2, 1, 2, 1]);
        assert_eq!(events.len(), 1);
        let (frames, events) =
            run(&mut Player::new(PLAY, vec![item(&prompt(&[]), Repeat::Endless)]), 9);
        assert!(frames.is_empty());
        assert_eq!(events, [(0, LegEvent::Played(PLAY))]);
    }

    #[test]
    fn goes_on_where_it_was_paused() {
        let mut player = Player::new(PLAY, vec![item(&prompt(&[1, 2, 3]), Repeat::Times(1))]);
        assert_eq!(run(&mut player, 2).0, [1, 2]);
        player.pause(true);
        assert_eq!(run(&mut player, 2), (vec![0, 0], Vec::new()));
        player.pause(false);
        assert_eq!(run(&mut player, 9), (vec![3], vec![(1, LegEvent::Played(PLAY))]));
    }

    #[test]
    fn plays_silence_until_a_frame_is_ready() {
        let (slow, mut writer) = Prompt::new();
        let mut player = Player::new(PLAY, vec![item(&slow, Repeat::Times(2))]);
        let mut events = Vec::new();
        assert_eq!(player.step(|e| events.push(e)), Step::Silence);
        assert!(events.is_empty(), "not started");
        writer.push(Frame::from([9]));
        assert_eq!(player.step(|e| events.push(e)), Step::Frame(Frame::from([9])));
        assert_eq!(events, [LegEvent::PlayStarted(PLAY)]);
        assert_eq!(player.step(|_| {}), Step::Silence);
        writer.finish();
        let (frames, events) = run(&mut player, 9);
        assert_eq!(frames, [9], "the second round");
        assert_eq!(events, [(1, LegEvent::Played(PLAY))]);
    }

    #[test]
    fn reports_and_skips_failed_items() {
        let (failed, writer) = Prompt::new();
        writer.fail("no such voice");
        let (half, mut writer) = Prompt::new();
        writer.push(Frame::from([5]));
        writer.fail("gone");
        let items = vec![
            item(&failed, Repeat::Times(1)),
            item(&half, Repeat::Endless),
            item(&prompt(&[7]), Repeat::Times(1)),
        ];
        let (frames, events) = run(&mut Player::new(PLAY, items), 9);
        assert_eq!(frames, [5, 7]);
        let failed = |item, reason: &str| LegEvent::PlayFailed {
            play: PLAY,
            item,
            reason: reason.to_owned(),
        };
        assert_eq!(
            events,
            [
                (0, failed(0, "no such voice")),
                (0, LegEvent::PlayStarted(PLAY)),
                (1, failed(1, "gone")),
                (2, LegEvent::Played(PLAY)),
            ]
        );
        let (frames, events) = run(&mut Player::new(PLAY, Vec::new()), 9);
        assert_eq!((frames, events), (vec![], vec![(0, LegEvent::Played(PLAY))]));
    }
}
