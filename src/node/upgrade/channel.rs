//! Messages between the two processes of an upgrade, over a pair of Unix sockets. A message is a JSON
//! object in one packet, with file descriptors.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The version of the messages. A process that does not know it refuses to take over.
pub(super) const VERSION: u32 = 2;

/// Maximum size of a message, in bytes.
const MESSAGE_MAX: usize = 128 * 1024;

/// Maximum number of file descriptors in a message. Linux allows 253. More of them cross in several
/// messages.
pub(super) const SOCKETS_MAX: usize = 200;

/// A message of the running process.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum FromOld {
    /// The first message, with the listeners. `member` is the id of a node of a fleet.
    Offer {
        version: u32,
        offhook: String,
        #[serde(default)]
        member: Option<String>,
    },
    /// With media sockets that have no place in the next message, [`FromOld::Calls`].
    Sockets,
    /// The calls are suspended, and their media goes on. With a file of their snapshots, a file of
    /// prompts, and the media sockets. A later message of this kind replaces it.
    Calls { version: u32 },
    /// The legs are frozen. With a file of them and a file of further prompts.
    Legs,
    /// The store is closed, and this process serves no more requests. With a file of the calls'
    /// queued inputs and recordings, one of the calls that wait to be placed, one of the
    /// conferences, one of the phones, and one of the node's permits and membership.
    Released,
}

/// A message of the new process.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "message", rename_all = "snake_case")]
pub(super) enum FromNew {
    /// The process can use the configuration and the store. It waits for [`FromOld::Calls`].
    Ready { offhook: String },
    /// The process can take over the calls, except these. It waits for [`FromOld::Legs`] if it can
    /// take over all of them.
    Checked { refused: Vec<String> },
    /// The process sends and receives the media of the calls. It waits for [`FromOld::Released`].
    Playing,
    /// The process ends without having changed anything.
    Refused { why: String },
    /// The process serves requests.
    Serving,
}

/// One end of the pair. The socket keeps packets apart (`SOCK_SEQPACKET`), so it is never used as a
/// stream, although its type is one.
#[derive(Debug)]
pub(super) struct Channel(UnixStream);

impl Channel {
    /// Creates a pair. The second end is for the standard input of the new process.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (own, other) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::new(own)?, other))
    }

    /// Takes the standard input of this process, which the old process has set. Child processes of
    /// this one get an empty input.
    pub(super) fn of_standard_input() -> io::Result<Self> {
        let own = io::stdin().as_fd().try_clone_to_owned()?;
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        Self::new(own)
    }

    fn new(own: OwnedFd) -> io::Result<Self> {
        let own = std::os::unix::net::UnixStream::from(own);
        own.set_nonblocking(true)?;
        Ok(Self(UnixStream::from_std(own)?))
    }

    /// Sends a message with file descriptors, at most [`SOCKETS_MAX`].
    pub(super) async fn send(
        &self,
        message: &impl Serialize,
        sockets: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let json = serde_json::to_vec(message)?;
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !sockets.is_empty() && !control.push(SendAncillaryMessage::ScmRights(sockets)) {
                return Err(io::Error::other("too many sockets for one message"));
            }
            sendmsg(&self.0, &[IoSlice::new(&json)], &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        self.0.async_io(Interest::WRITABLE, send).await
    }

    /// Receives a message and its file descriptors. Fails with `UnexpectedEof` if the other process
    /// has ended.
    pub(super) async fn receive<M: DeserializeOwned>(&self) -> io::Result<(M, Vec<OwnedFd>)> {
        let mut text = vec![0; MESSAGE_MAX];
        let (bytes, sockets) = self
            .0
            .async_io(Interest::READABLE, || {
                let mut space =
                    [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SOCKETS_MAX))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let into = &mut [IoSliceMut::new(&mut text)];
                let got = recvmsg(&self.0, into, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                let mut sockets = Vec::new();
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        sockets.extend(rights);
                    }
                }
                if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
                    return Err(io::Error::other("a message was too long"));
                }
                Ok((got.bytes, sockets))
            })
            .await?;
        if bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other process ended"));
        }
        Ok((serde_json::from_slice(text.get(..bytes).unwrap_or_default())?, sockets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_message_arrives_with_its_sockets_and_an_end_is_seen() {
        let (old, new) = Channel::pair().unwrap();
        let new = Channel::new(new).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let offer = FromOld::Offer { version: VERSION, offhook: "1".to_owned(), member: None };
        old.send(&offer, &[socket.as_fd()]).await.unwrap();
        old.send(&FromOld::Released, &[]).await.unwrap();
        let (FromOld::Offer { version, .. }, sockets) = new.receive().await.unwrap() else {
            panic!("another message")
        };
        assert_eq!((version, sockets.len()), (VERSION, 1));
        let copy = std::net::UdpSocket::from(sockets.into_iter().next().unwrap());
        assert_eq!(copy.local_addr().unwrap(), socket.local_addr().unwrap());
        assert!(matches!(new.receive().await.unwrap().0, FromOld::Released));
        drop(old);
        let end = new.receive::<FromOld>().await.unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }
}
