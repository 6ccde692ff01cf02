//! Effects of a server's messages without a socket, for fuzzing
//! (`docs/reference/reliability.md#r25`).

use super::message::{self, Command};
use super::queue::Queue;

/// Effects of a list of messages.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Trial {
    /// For each message in order: its event (empty if unknown), or the code of the error message.
    pub outcomes: Vec<Result<&'static str, &'static str>>,
    /// Number of 20 ms frames that would be played.
    pub frames: usize,
    /// Checkpoints that would be reported.
    pub checkpoints: Vec<String>,
    /// Keys that would be sent.
    pub keys: String,
}

/// Applies messages in order to a stream with 8 kHz audio, then plays the rest of the buffer.
#[doc(hidden)]
pub fn read_messages<'a>(messages: impl Iterator<Item = &'a str>) -> Trial {
    let mut trial = Trial::default();
    let mut queue = Queue::new(8_000);
    for text in messages {
        let outcome = match message::read(text) {
            Ok(Some(Command::PlayAudio(sound))) => queue.push(sound).map(|_| "playAudio"),
            Ok(Some(Command::Checkpoint { name })) => queue.checkpoint(name).map(|()| "checkpoint"),
            Ok(Some(Command::ClearAudio)) => {
                queue.clear();
                Ok("clearAudio")
            }
            Ok(Some(Command::SendDtmf { digits })) => {
                trial.keys.push_str(&digits);
                Ok("sendDTMF")
            }
            Ok(None) => Ok(""),
            Err(fault) => Err(fault),
        };
        trial.outcomes.push(outcome.map_err(message::Fault::as_str));
    }
    let mut frame = [0; 160];
    let mut played = 0;
    loop {
        trial.checkpoints.extend(std::iter::from_fn(|| queue.record_played(played)));
        if queue.is_empty() {
            return trial;
        }
        queue.take(&mut frame);
        trial.frames += 1;
        played += 1;
    }
}
