//! A sound that is played in the foreground: `Speak` and `Play`.

use super::Flow;
use crate::activity::{Activity, Finished, Progress, Stop, Turn};
use crate::contract::{MediaOrder, PlayId, SoundItem};
use crate::picture::{Sketch, text, word};

/// A sound that is being played.
struct Playback {
    play: PlayId,
    /// Why it could not be played.
    failed: Option<String>,
}

/// Plays one item and waits for its end.
pub(super) fn start(turn: &mut Turn<'_>, item: SoundItem) -> Flow {
    let play = turn.desk.play(vec![item]);
    Flow::run(Playback { play, failed: None })
}

impl Activity for Playback {
    fn played(&mut self, _: &mut Turn<'_>, play: PlayId) -> Progress {
        if play != self.play {
            return Progress::Pending;
        }
        Progress::Finished(match self.failed.take() {
            None => Finished::done(""),
            Some(why) => Finished::failed(why),
        })
    }

    fn play_failed(&mut self, turn: &mut Turn<'_>, play: PlayId, _: u16, reason: &str) {
        if play != self.play {
            return;
        }
        if let Some(place) = turn.place {
            turn.desk.remark(format!("{place} could not be played: {reason}; it is skipped"));
        }
        self.failed = Some(reason.to_owned());
    }

    fn stop(&mut self, turn: &mut Turn<'_>, why: Stop) {
        match why {
            Stop::Replaced => turn.desk.media(MediaOrder::Stop { play: self.play }),
            Stop::CallEnds => {}
        }
    }

    fn draw(&self, sketch: &mut Sketch) {
        sketch.say("waits_for", [word("play"), text(self.play.0)]);
    }
}
