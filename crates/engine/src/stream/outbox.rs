//! Messages on their way to a stream's server, in their order and numbered by it.
//!
//! Sound comes every 20 ms whether the server reads or not: of sound so much waits, and then the oldest is left out and
//! counted, its number with it, so that the server sees the gap. Other messages are few, and wait.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use model::metric;

/// Sound that waits at most, in messages: five seconds of one track.
const MEDIA_MAX: usize = 250;
/// Other messages that wait at most; a server that asks for more answers than it reads has none of them.
const OTHERS_MAX: usize = 2_000;

/// What goes out next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Going {
    Text(String),
    Ping,
    /// Nothing comes any more: the socket is to be closed.
    Over,
}

#[derive(Debug)]
enum Waiting {
    Media(String),
    Other(String),
    Ping,
}

/// See the module's note.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// The last number given.
    sequence: u64,
    waiting: VecDeque<Waiting>,
    media: usize,
    closed: bool,
    dropped: u64,
}

impl Outbox {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts 20 ms of sound in; `text` writes the message with this number.
    pub(super) fn media(&self, text: impl FnOnce(u64) -> String) {
        let mut inner = self.inner();
        if inner.closed {
            return;
        }
        if inner.media >= MEDIA_MAX
            && let Some(oldest) =
                inner.waiting.iter().position(|waiting| matches!(waiting, Waiting::Media(_)))
        {
            inner.waiting.remove(oldest);
            inner.media -= 1;
            inner.dropped += 1;
            metrics::counter!(metric::STREAM_MESSAGES_DROPPED_TOTAL).increment(1);
        }
        inner.sequence += 1;
        let text = text(inner.sequence);
        inner.waiting.push_back(Waiting::Media(text));
        inner.media += 1;
        drop(inner);
        self.woken.notify_one();
    }

    /// Puts another message in.
    pub(super) fn other(&self, text: impl FnOnce(u64) -> String) {
        let mut inner = self.inner();
        if inner.closed || inner.waiting.len() - inner.media >= OTHERS_MAX {
            return;
        }
        inner.sequence += 1;
        let text = text(inner.sequence);
        inner.waiting.push_back(Waiting::Other(text));
        drop(inner);
        self.woken.notify_one();
    }

    /// Asks the server for a sign of life, before all that waits.
    pub(super) fn ping(&self) {
        self.inner().waiting.push_front(Waiting::Ping);
        self.woken.notify_one();
    }

    /// Takes nothing more: after what waits, and after this last message, the socket is to be closed.
    pub(super) fn close(&self, last: impl FnOnce(u64) -> String) {
        self.other(last);
        self.inner().closed = true;
        self.woken.notify_one();
    }

    /// The next one, as soon as there is one. For one reader.
    pub(super) async fn next(&self) -> Going {
        loop {
            {
                let mut inner = self.inner();
                match inner.waiting.pop_front() {
                    Some(Waiting::Media(text)) => {
                        inner.media -= 1;
                        return Going::Text(text);
                    }
                    Some(Waiting::Other(text)) => return Going::Text(text),
                    Some(Waiting::Ping) => return Going::Ping,
                    None if inner.closed => return Going::Over,
                    None => {}
                }
            }
            self.woken.notified().await;
        }
    }

    /// Messages of sound that were left out so far.
    pub(super) fn dropped(&self) -> u64 {
        self.inner().dropped
    }
}

#[cfg(test)]
mod tests {
    use super::{Going, MEDIA_MAX, Outbox};

    #[tokio::test]
    async fn of_sound_the_oldest_is_left_out_and_the_gap_is_seen() {
        let outbox = Outbox::default();
        outbox.other(|n| format!("start {n}"));
        for _ in 0..MEDIA_MAX + 3 {
            outbox.media(|n| n.to_string());
        }
        outbox.other(|n| format!("dtmf {n}"));
        outbox.close(|n| format!("stop {n}"));
        outbox.media(|_| unreachable!("it is closed"));
        assert_eq!(outbox.dropped(), 3);
        let mut all = Vec::new();
        while let Going::Text(text) = outbox.next().await {
            all.push(text);
        }
        assert_eq!(all.len(), MEDIA_MAX + 3);
        assert_eq!((&*all[0], &*all[1], &*all[2]), ("start 1", "5", "6"));
        assert_eq!(all[all.len() - 2..], ["dtmf 255", "stop 256"]);
    }

    #[tokio::test]
    async fn a_reader_waits_for_what_comes() {
        let outbox = std::sync::Arc::new(Outbox::default());
        let writer = outbox.clone();
        let reader =
            tokio::spawn(
                async move { [outbox.next().await, outbox.next().await, outbox.next().await] },
            );
        tokio::task::yield_now().await;
        writer.ping();
        tokio::task::yield_now().await;
        writer.close(|n| n.to_string());
        assert_eq!(reader.await.unwrap(), [Going::Ping, Going::Text("1".to_owned()), Going::Over]);
    }
}
