//! A connection between two nodes, for calls of one node in rooms of the other.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::codec::{FramedRead, FramedWrite};
use tokio_util::sync::CancellationToken;

use super::wire::{self, Lateness, Received};
use media::SeatPacket;
use model::Clock;

/// Maximum number of frames that wait to be sent. If there are more, the other node is treated as
/// unreachable.
const QUEUE: usize = 1_024;

/// Maximum time that packets wait to be sent. Older ones are dropped.
const AGE_MAX: Duration = Duration::from_millis(60);

/// Interval between pings.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// Timeout after which a node that sends nothing is treated as unreachable.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A byte stream to another node, encrypted and authenticated.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

enum Outgoing {
    Message(Bytes),
    Packets { since: Instant, frame: Bytes },
}

/// The sending side of a connection. Cheap to clone.
#[derive(Clone)]
pub(super) struct Link {
    queue: mpsc::Sender<Outgoing>,
    clock: Clock,
    start: Instant,
    closed: CancellationToken,
}

impl Link {
    /// Sends a message. If the queue is full, the connection is closed.
    pub(super) fn send(&self, message: &impl Serialize) {
        self.send_frame(wire::message(message));
    }

    /// Sends a frame. If the queue is full, the connection is closed.
    pub(super) fn send_frame(&self, frame: Bytes) {
        if self.queue.try_send(Outgoing::Message(frame)).is_err() {
            self.closed.cancel();
        }
    }

    /// Sends packets. If the queue is full, they are dropped.
    pub(super) fn send_packets(&self, packets: &[SeatPacket]) {
        let (since, frame) = (self.clock.now(), wire::packets(self.now_ms(), packets));
        let _ = self.queue.try_send(Outgoing::Packets { since, frame });
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Milliseconds since the connection was opened.
    fn now_ms(&self) -> u32 {
        let age = self.clock.now().saturating_duration_since(self.start);
        u32::try_from(age.as_millis()).unwrap_or(u32::MAX)
    }
}

/// The receiving side of a connection, which also sends the queued frames.
pub(super) struct Connection {
    stream: Box<dyn ByteStream>,
    queue: mpsc::Receiver<Outgoing>,
    link: Link,
}

/// Splits a byte stream into the sending and the receiving side of a connection.
pub(super) fn connection(stream: Box<dyn ByteStream>, clock: &Clock) -> (Link, Connection) {
    let (sender, queue) = mpsc::channel(QUEUE);
    let closed = CancellationToken::new();
    let link = Link { queue: sender, clock: clock.clone(), start: clock.now(), closed };
    (link.clone(), Connection { stream, queue, link })
}

impl Connection {
    /// Drives the connection until it ends. `receive` is called with the messages and packets from
    /// the other node. The link is closed when this returns or is dropped.
    pub(super) async fn run<M: DeserializeOwned>(
        self,
        mut receive: impl FnMut(Received<M>) + Send,
    ) {
        let Self { stream, queue, link } = self;
        let closed = link.closed.clone();
        let _closing = closed.clone().drop_guard();
        let (reader, writer) = tokio::io::split(stream);
        let mut reader = FramedRead::new(reader, wire::codec());
        let reading = async {
            let mut lateness = Lateness::default();
            loop {
                let frame = match tokio::time::timeout(SILENCE_MAX, reader.next()).await {
                    Ok(Some(Ok(frame))) => frame,
                    Ok(Some(Err(_)) | None) => return "closed by the other node",
                    Err(_) => return "the other node is silent",
                };
                match wire::read(&frame) {
                    Ok(Received::Packets(at, _)) if lateness.is_late(at, link.now_ms()) => {}
                    Ok(received) => receive(received),
                    Err(error) => {
                        tracing::warn!(%error, "invalid message from another node");
                        return "invalid message";
                    }
                }
            }
        };
        let writing = write(FramedWrite::new(writer, wire::codec()), queue, &link.clock);
        let why = tokio::select! {
            why = reading => why,
            () = writing => "not writable",
            () = closed.cancelled() => "no longer needed, or queue full",
        };
        tracing::debug!(why, "room connection closed");
    }
}

async fn write<W: AsyncWrite + Unpin>(
    mut to: FramedWrite<W, tokio_util::codec::LengthDelimitedCodec>,
    mut queue: mpsc::Receiver<Outgoing>,
    clock: &Clock,
) {
    let mut pings = tokio::time::interval(PING_INTERVAL);
    loop {
        let frame = tokio::select! {
            next = queue.recv() => match next {
                None => return,
                Some(Outgoing::Message(frame)) => frame,
                Some(Outgoing::Packets { since, frame }) => {
                    if clock.now().saturating_duration_since(since) > AGE_MAX {
                        continue;
                    }
                    frame
                }
            },
            _ = pings.tick() => wire::ping(),
        };
        if to.send(frame).await.is_err() {
            return;
        }
    }
}
