//! A sound in the foreground: `Speak` and `Play`.

use super::Flow;
use crate::activity::{Activity, Completion, Env, Progress, StopReason};
use crate::contract::{MediaCommand, PlayId, SoundItem};
use crate::snapshot::{SnapshotBuilder, text, word};

/// A sound that is being played.
struct Playback {
    play: PlayId,
    /// The reason why the sound could not be played. `None` if it did not fail.
    failed: Option<String>,
}

/// Plays one item and waits for its end.
pub(super) fn start(env: &mut Env<'_>, item: SoundItem) -> Flow {
    let play = env.ctx.play(vec![item]);
    Flow::run(Playback { play, failed: None })
}

impl Activity for Playback {
    fn played(&mut self, _: &mut Env<'_>, play: PlayId) -> Progress {
        if play != self.play {
            return Progress::Pending;
        }
        Progress::Finished(match self.failed.take() {
            None => Completion::done(""),
            Some(reason) => Completion::failed(reason),
        })
    }

    fn play_failed(&mut self, env: &mut Env<'_>, play: PlayId, _: u16, reason: &str) {
        if play != self.play {
            return;
        }
        if let Some(place) = env.place {
            env.ctx.remark(format!("{place} could not be played: {reason}; it is skipped"));
        }
        self.failed = Some(reason.to_owned());
    }

    fn stop(&mut self, env: &mut Env<'_>, reason: StopReason) {
        match reason {
            StopReason::Replaced => env.ctx.media(MediaCommand::Stop { play: self.play }),
            StopReason::CallEnds => {}
        }
    }

    fn write_snapshot(&self, snapshot: &mut SnapshotBuilder) {
        snapshot.add("waits_for", [word("play"), text(self.play.0)]);
    }
}
