//! The new process of an upgrade: takes the sockets of the running process, and starts to serve
//! requests once that process has closed the store.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::channel::{Channel, FromNew, FromOld, VERSION};
use crate::api;
use store::Database;

/// Why a process did not take over.
#[derive(Debug, thiserror::Error)]
pub enum TakeOverError {
    #[error("could not talk to the running process: {0}")]
    Channel(#[from] io::Error),
    #[error(
        "the running process sent version {0} of the hand-over; this binary supports {VERSION}"
    )]
    Version(u32),
    #[error("the running process sent an unexpected message")]
    Message,
}

/// The process that hands over to this one.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    sockets: Inherited,
}

impl Predecessor {
    /// Receives the sockets of the process that has started this one.
    ///
    /// # Errors
    /// Returns an error if that process is gone, or speaks another version.
    pub async fn meet() -> Result<Self, TakeOverError> {
        let channel = Channel::of_standard_input()?;
        match Self::receive(&channel).await {
            Ok(sockets) => Ok(Self { channel, sockets }),
            Err(error) => {
                let refused = FromNew::Refused { why: error.to_string() };
                let _ = channel.send(&refused, &[]).await;
                Err(error)
            }
        }
    }

    async fn receive(channel: &Channel) -> Result<Inherited, TakeOverError> {
        let (offer, mut sockets) = channel.receive().await?;
        let FromOld::Offer { version, listeners, .. } = offer else {
            return Err(TakeOverError::Message);
        };
        if version != VERSION {
            return Err(TakeOverError::Version(version));
        }
        let media = sockets.split_off(listeners.min(sockets.len()));
        Ok(Inherited {
            listeners: sockets.into_iter().map(listener).collect::<io::Result<_>>()?,
            media: media.into_iter().map(|socket| Arc::new(socket.into())).collect(),
        })
    }

    /// Takes the sockets.
    pub(in crate::node) fn take_sockets(&mut self) -> Inherited {
        std::mem::take(&mut self.sockets)
    }

    /// Reports that this process can take over, and waits until the other one has closed the store.
    pub(in crate::node) async fn until_released(
        &self,
        database: &Database,
    ) -> Result<(), super::super::StartError> {
        store::check_schema(database).await?;
        let ready = FromNew::Ready { offhook: env!("CARGO_PKG_VERSION").to_owned() };
        self.channel.send(&ready, &[]).await.map_err(TakeOverError::from)?;
        match self.channel.receive().await.map_err(TakeOverError::from)?.0 {
            FromOld::Released => Ok(()),
            FromOld::Offer { .. } => Err(TakeOverError::Message.into()),
        }
    }

    /// Reports why this process does not take over.
    pub async fn refuse(self, why: String) {
        let _ = self.channel.send(&FromNew::Refused { why }, &[]).await;
    }

    /// Reports that this process serves requests. The other process may have ended by then.
    pub async fn report_serving(self) {
        let _ = self.channel.send(&FromNew::Serving, &[]).await;
    }
}

/// Sockets of the previous process. Those that are not in the configuration are closed.
#[derive(Debug, Default)]
pub(in crate::node) struct Inherited {
    listeners: Vec<TcpListener>,
    pub(in crate::node) media: Vec<Arc<UdpSocket>>,
}

impl Inherited {
    /// Returns the listener at this address, or binds a new one.
    pub(in crate::node) fn listen(
        &mut self,
        at: SocketAddr,
    ) -> Result<(Arc<TcpListener>, SocketAddr), String> {
        let is_here = |listener: &TcpListener| listener.local_addr().is_ok_and(|own| own == at);
        match self.listeners.iter().position(is_here) {
            Some(index) => Ok((Arc::new(self.listeners.swap_remove(index)), at)),
            None => api::server::bind(at),
        }
    }
}

fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
