//! Passes the messages of a socket on to another process.
//!
//! A connection with TLS cannot move to another process. After an upgrade, the process that has
//! opened it keeps it and passes its messages on to the process that runs the call, over a Unix
//! socket. That one connects again after a further upgrade, or if it has failed.

use std::collections::HashMap;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener as StdListener, UnixStream as StdStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{SinkExt as _, StreamExt as _};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_util::codec::{Decoder, Encoder, Framed, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use egress::{Socket, is_too_large};

/// Maximum size of a message on the Unix socket. The node's own messages are of a few kilobytes,
/// and those of servers are limited to 64 KiB.
const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Time for the other process to connect, and to connect again after it has failed.
const CONNECT: Duration = Duration::from_secs(60);
/// Time for a connection to name its stream.
const GREETING: Duration = Duration::from_secs(2);
/// Time to pass on the last messages.
const CLOSING: Duration = Duration::from_secs(2);
/// Number of connections to one stream that wait. There is one at a time.
const WAITING_MAX: usize = 4;
/// The code of the close frame with which a process lets go of a stream that goes on. It never leaves
/// the node.
const MOVED: u16 = 4_900;

/// Where another process finds a stream's socket.
#[derive(Clone, Serialize, Deserialize)]
pub struct RelayAddress {
    /// The name of the Unix socket in the abstract namespace (`unix(7)`).
    name: String,
    /// Identifies the stream, and is known to no other process.
    key: Uuid,
}

impl std::fmt::Debug for RelayAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelayAddress({})", self.name)
    }
}

impl RelayAddress {
    /// Connects to the process that has the socket.
    pub(super) async fn connect(&self) -> io::Result<RelayedSocket> {
        let stream = StdStream::connect_addr(&SocketAddr::from_abstract_name(&self.name)?)?;
        stream.set_nonblocking(true)?;
        let mut socket = MessageCodec::framed(UnixStream::from_std(stream)?);
        let greeting = Message::Binary(Bytes::copy_from_slice(self.key.as_bytes()));
        socket.send(greeting).await.map_err(io::Error::other)?;
        Ok(socket)
    }
}

/// The message that lets go of a stream.
pub(super) fn moved() -> Message {
    Message::Close(Some(CloseFrame { code: MOVED.into(), reason: Utf8Bytes::default() }))
}

fn is_moved(message: &Message) -> bool {
    matches!(message, Message::Close(Some(frame)) if u16::from(frame.code) == MOVED)
}

/// A socket of another process.
pub(super) type RelayedSocket = Framed<UnixStream, MessageCodec>;

/// Writes a message as its kind and its content.
pub(super) struct MessageCodec(LengthDelimitedCodec);

impl MessageCodec {
    fn framed(stream: UnixStream) -> RelayedSocket {
        let frames = LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec();
        Framed::new(stream, Self(frames))
    }
}

impl Encoder<Message> for MessageCodec {
    type Error = Error;

    fn encode(&mut self, message: Message, into: &mut BytesMut) -> Result<(), Error> {
        let kind = match &message {
            Message::Text(_) => b't',
            Message::Binary(_) => b'b',
            Message::Ping(_) => b'i',
            Message::Pong(_) => b'o',
            Message::Close(_) => b'c',
            Message::Frame(_) => return Ok(()),
        };
        let mut frame = BytesMut::with_capacity(message.len() + 3);
        frame.put_u8(kind);
        match message {
            Message::Close(Some(CloseFrame { code, reason })) => {
                frame.put_u16(code.into());
                frame.put_slice(reason.as_bytes());
            }
            Message::Close(None) => {}
            message => frame.put_slice(&message.into_data()),
        }
        Ok(self.0.encode(frame.freeze(), into)?)
    }
}

impl Decoder for MessageCodec {
    type Item = Message;
    type Error = Error;

    fn decode(&mut self, from: &mut BytesMut) -> Result<Option<Message>, Error> {
        let Some(mut frame) = self.0.decode(from)? else { return Ok(None) };
        let invalid = || Error::Io(io::ErrorKind::InvalidData.into());
        let kind = frame.try_get_u8().map_err(|_| invalid())?;
        let text = |frame: BytesMut| Utf8Bytes::try_from(frame.freeze()).map_err(|_| invalid());
        Ok(Some(match kind {
            b't' => Message::Text(text(frame)?),
            b'b' => Message::Binary(frame.freeze()),
            b'i' => Message::Ping(frame.freeze()),
            b'o' => Message::Pong(frame.freeze()),
            b'c' => Message::Close(match frame.try_get_u16() {
                Ok(code) => Some(CloseFrame { code: code.into(), reason: text(frame)? }),
                Err(_) => None,
            }),
            _ => return Err(invalid()),
        }))
    }
}

/// The sockets of streams that run in another process. They are closed when this is dropped.
pub struct Relays(Arc<RelayState>);

struct RelayState {
    name: String,
    waiting: Mutex<HashMap<Uuid, mpsc::Sender<RelayedSocket>>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Relays {
    /// Listens for the other process.
    ///
    /// # Errors
    /// Returns an error if there can be no socket.
    pub fn listen() -> io::Result<Self> {
        let name = format!("offhook-relay-{}", Uuid::new_v4());
        let listener = StdListener::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (tasks, closing) = (TaskTracker::new(), CancellationToken::new());
        let relays = Arc::new(RelayState { name, waiting: Mutex::default(), tasks, closing });
        relays.tasks.close();
        let (accepting, closing) = (relays.clone(), relays.closing.clone());
        tokio::spawn(async move { closing.run_until_cancelled(accepting.accept(listener)).await });
        Ok(Self(relays))
    }

    /// Keeps a socket for the process that gets the address.
    pub(super) fn add(&self, socket: Socket) -> RelayAddress {
        let Self(relays) = self;
        let address = RelayAddress { name: relays.name.clone(), key: Uuid::new_v4() };
        let (to, connections) = mpsc::channel(WAITING_MAX);
        relays.lock().insert(address.key, to);
        let (of, key) = (relays.clone(), address.key);
        relays.tasks.spawn(async move {
            relay(socket, connections, of.closing.clone()).await;
            of.lock().remove(&key);
        });
        address
    }

    /// The number of sockets.
    pub fn len(&self) -> usize {
        self.0.tasks.len()
    }

    /// Whether there are no sockets.
    pub fn is_empty(&self) -> bool {
        self.0.tasks.is_empty()
    }

    /// Closes all sockets.
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.all_closed().await;
    }

    /// Waits until all sockets are closed.
    pub async fn all_closed(&self) {
        self.0.tasks.wait().await;
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        self.0.closing.cancel();
    }
}

impl RelayState {
    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, mpsc::Sender<RelayedSocket>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn accept(self: Arc<Self>, listener: UnixListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            let is_own = stream.peer_cred().is_ok_and(|peer| peer.uid() == geteuid().as_raw());
            if is_own {
                let relays = self.clone();
                tokio::spawn(async move { relays.greet(stream).await });
            }
        }
    }

    /// Reads which socket a connection is for.
    async fn greet(&self, stream: UnixStream) {
        let mut connection = MessageCodec::framed(stream);
        let Ok(Some(Ok(Message::Binary(key)))) = timeout(GREETING, connection.next()).await else {
            return;
        };
        let to = Uuid::from_slice(&key).ok().and_then(|key| self.lock().get(&key).cloned());
        if let Some(to) = to {
            let _ = to.try_send(connection);
        }
    }
}

/// How a connection of the other process ended.
enum Ended {
    /// The stream is over.
    Closed,
    /// The same, because of a message from the server.
    TooLarge,
    /// The other process has let go of the stream, or failed. Another one may connect.
    Left,
}

async fn relay(
    mut server: Socket,
    mut connections: mpsc::Receiver<RelayedSocket>,
    closing: CancellationToken,
) {
    let passing_on = async {
        while let Ok(Some(connection)) = timeout(CONNECT, connections.recv()).await {
            match pass_on(&mut server, connection).await {
                Ended::Closed | Ended::TooLarge => return,
                Ended::Left => {}
            }
        }
    };
    let _ = closing.run_until_cancelled(passing_on).await;
    // Without effect on a closed socket.
    let away = CloseFrame { code: CloseCode::Away, reason: Utf8Bytes::default() };
    let _ = timeout(CLOSING, server.close(Some(away))).await;
}

async fn pass_on(server: &mut Socket, connection: RelayedSocket) -> Ended {
    let ended = {
        let (mut to_server, mut from_server) = (&mut *server).split();
        let (mut to_process, mut from_process) = connection.split();
        let leaving = CancellationToken::new();
        let to_the_server = async {
            while let Some(Ok(message)) = from_process.next().await {
                if is_moved(&message) {
                    return Ended::Left;
                }
                let is_close = matches!(message, Message::Close(_));
                if to_server.send(message).await.is_err() || is_close {
                    return Ended::Closed;
                }
            }
            Ended::Left
        };
        let to_the_process = async {
            // A message that was read is passed on.
            while let Some(next) = leaving.run_until_cancelled(from_server.next()).await {
                let message = match next {
                    // The library has answered it.
                    Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                    Some(Ok(message)) => message,
                    Some(Err(error)) if is_too_large(&error) => return Ended::TooLarge,
                    // The other process sees the end of the connection.
                    Some(Err(_)) | None => return Ended::Closed,
                };
                let is_close = matches!(message, Message::Close(_));
                if to_process.send(message).await.is_err() {
                    return Ended::Left;
                }
                if is_close {
                    return Ended::Closed;
                }
            }
            let _ = to_process.send(moved()).await;
            Ended::Left
        };
        tokio::pin!(to_the_server, to_the_process);
        tokio::select! {
            ended = &mut to_the_server => {
                leaving.cancel();
                let _ = timeout(CLOSING, to_the_process).await;
                ended
            }
            ended = &mut to_the_process => ended,
        }
    };
    let last = match ended {
        Ended::Left => return ended,
        Ended::Closed => None,
        Ended::TooLarge => {
            Some(CloseFrame { code: CloseCode::Size, reason: "message too large".into() })
        }
    };
    // Reading completes the closing handshake.
    let closing = async {
        let _ = server.close(last).await;
        while let Some(Ok(_)) = server.next().await {}
    };
    let _ = timeout(CLOSING, closing).await;
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_cross_and_foreign_bytes_are_an_error() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut a, mut b) = (MessageCodec::framed(a), MessageCodec::framed(b));
        let close = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
        let messages = [
            Message::text("{\"ü\":1}"),
            Message::binary(vec![0, 255]),
            Message::Ping(Bytes::new()),
            Message::Pong(Bytes::from_static(b"x")),
            Message::Close(Some(close)),
            Message::Close(None),
            moved(),
        ];
        for message in &messages {
            a.send(message.clone()).await.unwrap();
            assert_eq!(&b.next().await.unwrap().unwrap(), message);
        }
        for frame in [&b""[..], b"x", b"t\xff"] {
            let mut bytes = BytesMut::new();
            bytes.put_u32(u32::try_from(frame.len()).unwrap());
            bytes.put_slice(frame);
            let codec = LengthDelimitedCodec::builder().max_frame_length(9).new_codec();
            MessageCodec(codec).decode(&mut bytes).unwrap_err();
        }
        drop(a);
        assert!(b.next().await.is_none());
    }
}
