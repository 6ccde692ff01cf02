//! What a server's messages come to, without a socket: for fuzzing (R25).

use super::message::{self, Theirs};
use super::queue::Queue;

/// What came of some messages.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Trial {
    /// Of each in its order: what it asked for (nothing where its event is not known), or the code of the error frame.
    pub outcomes: Vec<Result<&'static str, &'static str>>,
    /// Frames of 20 ms that would be played then.
    pub frames: usize,
    /// Checkpoints that would be told of.
    pub checkpoints: Vec<String>,
    /// Keys that would be sent.
    pub keys: String,
}

/// What these do to a stream that plays sound of 8 kHz, one after the other; what waits at the end is played.
#[doc(hidden)]
pub fn read_messages<'a>(messages: impl Iterator<Item = &'a str>) -> Trial {
    let mut trial = Trial::default();
    let mut queue = Queue::new(8_000);
    for text in messages {
        let outcome = match message::read(text) {
            Ok(Some(Theirs::PlayAudio(sound))) => queue.push(sound).map(|_| "playAudio"),
            Ok(Some(Theirs::Checkpoint { name })) => queue.checkpoint(name).map(|()| "checkpoint"),
            Ok(Some(Theirs::ClearAudio)) => {
                queue.clear();
                Ok("clearAudio")
            }
            Ok(Some(Theirs::SendDtmf { digits })) => {
                trial.keys.push_str(&digits);
                Ok("sendDTMF")
            }
            Ok(None) => Ok(""),
            Err(fault) => Err(fault),
        };
        trial.outcomes.push(outcome.map_err(message::Fault::as_str));
    }
    let mut frame = [0; 160];
    let mut heard = 0;
    loop {
        trial.checkpoints.extend(std::iter::from_fn(|| queue.heard(heard)));
        if queue.is_empty() {
            return trial;
        }
        queue.take(&mut frame);
        trial.frames += 1;
        heard += 1;
    }
}
