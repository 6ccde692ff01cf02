//! Datagrams for legs that stay in the old process, while the new one reads the sockets.
//!
//! The new process forwards every datagram that none of its legs accepts, over a Unix socket that
//! keeps packets apart. The old process sends over its own copy of the UDP sockets.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, PoisonError};

use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::Media;
use super::shard::Command;

/// Size of the header: the bound port, the sender's port and the sender's address, IPv4 mapped.
const HEADER_SIZE: usize = 20;
/// Maximum size of a forwarded datagram in bytes. `sockets` receives no longer ones.
const DATAGRAM_MAX: usize = 2_048;

/// The new process's end.
#[derive(Clone, Debug)]
pub(super) struct Forwarder(Arc<OwnedFd>);

impl Forwarder {
    /// Forwards a datagram. It is dropped if the other process does not keep up. Returns `false` if
    /// the other process has closed its end.
    pub(super) fn forward(&self, port: u16, from: SocketAddr, datagram: &[u8]) -> bool {
        let ip = match from.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut message = Vec::with_capacity(HEADER_SIZE + datagram.len());
        message.extend_from_slice(&port.to_be_bytes());
        message.extend_from_slice(&from.port().to_be_bytes());
        message.extend_from_slice(&ip.octets());
        message.extend_from_slice(datagram);
        match send(&self.0, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(_) => true,
            Err(error) => io::Error::from(error).kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// Reads a message of [`Forwarder::forward`]: the number of our port, the sender, and the datagram.
fn read(message: &[u8]) -> Option<(u16, SocketAddr, &[u8])> {
    let (header, bytes) = message.split_first_chunk::<HEADER_SIZE>()?;
    let [p0, p1, f0, f1, ip @ ..] = *header;
    let ip = IpAddr::V6(Ipv6Addr::from(ip)).to_canonical();
    let from = SocketAddr::new(ip, u16::from_be_bytes([f0, f1]));
    Some((u16::from_be_bytes([p0, p1]), from, bytes))
}

impl Media {
    /// Forwards the datagrams that match no leg of this process to the old one, whose legs stay.
    /// `to` is one end of a pair of Unix sockets of the type `SOCK_SEQPACKET`. Call this before
    /// [`Media::start_receiving`]. It ends when the other end is closed.
    pub fn forward_unmatched(&self, to: OwnedFd) {
        let forwarder = Forwarder(Arc::new(to));
        for shard in &self.shards {
            shard.commands.send(Command::Forward(forwarder.clone()));
        }
    }

    /// Receives the datagrams that the new process forwards, until it closes its end. Legs that
    /// were not frozen by [`Media::hand_over`] then receive as before, at most 5 ms later. `from`
    /// is the other end of the pair of [`Media::forward_unmatched`].
    ///
    /// # Errors
    ///
    /// Returns an error if `from` is no socket or the thread that reads it cannot be started.
    pub fn receive_forwarded(&self, from: OwnedFd) -> io::Result<()> {
        // `recv` must wait, whatever the caller has set.
        rustix::io::ioctl_fionbio(&from, false)?;
        let shards: Vec<_> = self.shards.iter().map(|shard| shard.commands.clone()).collect();
        let ports = self.ports.clone();
        let run = move || {
            let mut message = vec![0; HEADER_SIZE + DATAGRAM_MAX];
            loop {
                let length = match recv(&from, &mut *message, RecvFlags::empty()) {
                    Ok((_, length)) if length > 0 => length,
                    Err(rustix::io::Errno::INTR) => continue,
                    Ok(_) | Err(_) => return,
                };
                let Some((number, from, bytes)) = message.get(..length).and_then(read) else {
                    continue;
                };
                let port = {
                    let ports = ports.lock().unwrap_or_else(PoisonError::into_inner);
                    ports.port_with_number(number).map(|port| (port.id, port.shard))
                };
                let Some((port, shard)) = port else { continue };
                // A flood must not delay the commands of calls.
                if let Some(shard) = shards.get(shard).filter(|shard| !shard.is_behind())
                    && !shard.send(Command::Forwarded(port, from, bytes.into()))
                {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("media-forwarded".to_owned()).spawn(run)?;
        Ok(())
    }
}
