//! Queue of messages to a stream's server, numbered in order.
//!
//! Audio is produced every 20 ms, whether or not the server reads. When too much audio is queued,
//! the oldest message is dropped and counted; its number is missing, so that the server can detect
//! the gap. Other messages are rare and are not dropped.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use model::metric;

/// Maximum number of queued audio messages: five seconds of one track.
const MEDIA_MAX: usize = 250;
/// Maximum number of other queued messages. Further ones are dropped.
const OTHERS_MAX: usize = 2_000;

/// The next message or action of the socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NextSend {
    Text(String),
    Ping,
    /// The queue is closed and empty, so the socket must be closed.
    Over,
    /// The stream moves to another process, which sends the messages that wait.
    Detached,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Waiting {
    Media(String),
    Other(String),
    Ping,
}

/// The queue of a stream on its way to another process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OutboxState {
    sequence: u64,
    waiting: VecDeque<Waiting>,
    dropped: u64,
}

/// The queue. See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    inner: Mutex<Inner>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// The latest sequence number.
    sequence: u64,
    waiting: VecDeque<Waiting>,
    media: usize,
    closed: bool,
    detached: bool,
    dropped: u64,
}

impl Outbox {
    /// Continues the queue of another process.
    pub(super) fn resume(state: OutboxState) -> Self {
        let OutboxState { sequence, waiting, dropped } = state;
        let media = waiting.iter().filter(|waiting| matches!(waiting, Waiting::Media(_))).count();
        let inner = Inner { sequence, waiting, media, dropped, ..Inner::default() };
        Self { inner: Mutex::new(inner), woken: Notify::new() }
    }

    /// Stops the reader, which gets [`NextSend::Detached`]. Messages can still be added.
    pub(super) fn detach(&self) {
        self.inner().detached = true;
        self.woken.notify_one();
    }

    /// Returns the messages that were not read.
    pub(super) fn state(&self) -> OutboxState {
        let Inner { sequence, ref waiting, dropped, .. } = *self.inner();
        OutboxState { sequence, waiting: waiting.clone(), dropped }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues 20 ms of audio. `text` encodes the message with its sequence number.
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

    /// Enqueues another message.
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

    /// Enqueues a ping before all other messages.
    pub(super) fn ping(&self) {
        self.inner().waiting.push_front(Waiting::Ping);
        self.woken.notify_one();
    }

    /// Enqueues a final message and closes the queue.
    pub(super) fn close(&self, last: impl FnOnce(u64) -> String) {
        self.other(last);
        self.inner().closed = true;
        self.woken.notify_one();
    }

    /// Returns the next message, waiting for it if necessary. Only one reader is supported.
    pub(super) async fn next(&self) -> NextSend {
        loop {
            {
                let mut inner = self.inner();
                if inner.detached {
                    return NextSend::Detached;
                }
                match inner.waiting.pop_front() {
                    Some(Waiting::Media(text)) => {
                        inner.media -= 1;
                        return NextSend::Text(text);
                    }
                    Some(Waiting::Other(text)) => return NextSend::Text(text),
                    Some(Waiting::Ping) => return NextSend::Ping,
                    None if inner.closed => return NextSend::Over,
                    None => {}
                }
            }
            self.woken.notified().await;
        }
    }

    /// Number of dropped audio messages.
    pub(super) fn dropped(&self) -> u64 {
        self.inner().dropped
    }
}

#[cfg(test)]
mod tests {
    use super::{MEDIA_MAX, NextSend, Outbox};

    #[tokio::test]
    async fn the_oldest_audio_is_dropped_and_leaves_a_gap_in_the_sequence() {
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
        while let NextSend::Text(text) = outbox.next().await {
            all.push(text);
        }
        assert_eq!(all.len(), MEDIA_MAX + 3);
        assert_eq!((&*all[0], &*all[1], &*all[2]), ("start 1", "5", "6"));
        assert_eq!(all[all.len() - 2..], ["dtmf 255", "stop 256"]);
    }

    #[tokio::test]
    async fn messages_that_were_not_read_move() {
        let old = Outbox::default();
        old.other(|n| format!("start {n}"));
        old.media(|n| format!("media {n}"));
        assert_eq!(old.next().await, NextSend::Text("start 1".to_owned()));
        old.detach();
        assert_eq!(old.next().await, NextSend::Detached);
        old.media(|n| format!("media {n}"));
        let json = serde_json::to_string(&old.state()).unwrap();
        let new = Outbox::resume(serde_json::from_str(&json).unwrap());
        new.close(|n| format!("stop {n}"));
        for text in ["media 2", "media 3", "stop 4"] {
            assert_eq!(new.next().await, NextSend::Text(text.to_owned()));
        }
        assert_eq!(new.next().await, NextSend::Over);
    }

    #[tokio::test]
    async fn a_reader_waits_for_messages() {
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
        assert_eq!(
            reader.await.unwrap(),
            [NextSend::Ping, NextSend::Text("1".to_owned()), NextSend::Over]
        );
    }
}
