//! The new process of an upgrade: takes the sockets and calls of the running process, and starts to
//! serve requests once that process has closed the store.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tracing::warn;

use super::super::StartError;
use super::CALLS_MAX;
use super::channel::{Channel, FromNew, FromOld, VERSION};
use super::transfer::{read_bytes, read_lines};
use crate::api;
use crate::phone::MovedPhones;
use engine::call::dialer::MovedCall;
use engine::call::handover::{self, CallSnapshot, IncomingCall, Leftover};
use engine::call::rooms::RoomSnapshot;
use engine::cluster::{MovedMember, Peers};
use media::{LegSnapshot, Media, PromptTable};
use model::{AuthId, CallUuid, Clock};
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
    #[error("the running process sent calls of version {version}; this binary supports {own}")]
    CallsVersion { version: u32, own: u32 },
    #[error(
        "the new configuration has another cluster.node_id, or makes the node leave or join a fleet (cluster.peer); drain it and start it again"
    )]
    OtherMember,
    #[error("the running process sent an unexpected message")]
    Message,
    #[error("could not read the calls of the running process: {0}")]
    Calls(io::Error),
    #[error("could not continue the media of a call: {0}")]
    Media(#[from] media::MediaError),
}

/// The process that hands over to this one.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    sockets: Inherited,
    /// The id of the node, if it is part of a fleet.
    member: Option<String>,
}

impl Predecessor {
    /// Receives the sockets of the process that has started this one.
    ///
    /// # Errors
    /// Returns an error if that process is gone, or speaks another version.
    pub async fn meet() -> Result<Self, TakeOverError> {
        let channel = Channel::of_standard_input()?;
        match Self::receive(&channel).await {
            Ok((sockets, member)) => Ok(Self { channel, sockets, member }),
            Err(error) => {
                let refused = FromNew::Refused { why: error.to_string() };
                let _ = channel.send(&refused, &[]).await;
                Err(error)
            }
        }
    }

    async fn receive(channel: &Channel) -> Result<(Inherited, Option<String>), TakeOverError> {
        let (offer, sockets) = channel.receive().await?;
        let FromOld::Offer { version, member, .. } = offer else {
            return Err(TakeOverError::Message);
        };
        if version != VERSION {
            return Err(TakeOverError::Version(version));
        }
        let listeners = sockets.into_iter().map(listener).collect::<io::Result<_>>()?;
        Ok((Inherited { listeners }, member))
    }

    /// Takes the sockets.
    pub(in crate::node) fn take_sockets(&mut self) -> Inherited {
        std::mem::take(&mut self.sockets)
    }

    /// Reports that this process can take over, continues the media of the other one's calls, and
    /// waits until it has closed the store. `member` is the id of a node of a fleet. `start_media`
    /// opens the media path with these sockets.
    pub(in crate::node) async fn take_over(
        &self,
        database: &Database,
        member: Option<&str>,
        clock: &Clock,
        start_media: impl Fn(Vec<Arc<UdpSocket>>) -> Result<Arc<Media>, StartError>,
    ) -> Result<TakenOver, StartError> {
        let own = match (member, self.member.as_deref()) {
            (None, None) => handover::VERSION,
            (Some(new), Some(old)) if new == old => handover::FLEET_VERSION,
            _ => return Err(TakeOverError::OtherMember.into()),
        };
        store::check_schema(database).await?;
        self.reply(&FromNew::Ready { offhook: env!("CARGO_PKG_VERSION").to_owned() }).await?;
        let mut offered = None;
        let mut further_sockets = Vec::new();
        loop {
            let (message, mut files) = self.channel.receive().await.map_err(TakeOverError::from)?;
            match (message, &mut offered) {
                (FromOld::Sockets, _) => further_sockets.extend(files),
                (FromOld::Calls { version }, _) => {
                    if version != own {
                        return Err(TakeOverError::CallsVersion { version, own }.into());
                    }
                    // Ends the threads of an earlier offer.
                    drop(offered.take());
                    files.append(&mut further_sockets);
                    let (calls, refused) = Offered::read(files, clock, &start_media)?;
                    offered = Some(calls);
                    self.reply(&FromNew::Checked { refused }).await?;
                }
                (FromOld::Legs, Some(offered)) => {
                    offered.adopt(files)?;
                    self.reply(&FromNew::Playing).await?;
                }
                (FromOld::Released, Some(_)) => {
                    let Some(offered) = offered else { continue };
                    return Ok(offered.complete(files)?);
                }
                (FromOld::Offer { .. } | FromOld::Legs | FromOld::Released, _) => {
                    return Err(TakeOverError::Message.into());
                }
            }
        }
    }

    async fn reply(&self, message: &FromNew) -> Result<(), TakeOverError> {
        Ok(self.channel.send(message, &[]).await?)
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

/// The media path and the calls of the previous process.
pub(in crate::node) struct TakenOver {
    pub(in crate::node) media: Arc<Media>,
    /// The calls, with their legs.
    pub(in crate::node) calls: Vec<IncomingCall>,
    /// The calls that wait to be placed.
    pub(in crate::node) queued: Vec<MovedCall>,
    pub(in crate::node) rooms: Vec<RoomSnapshot>,
    pub(in crate::node) phones: MovedPhones,
    pub(in crate::node) node: MovedNode,
}

/// What crosses of the node itself.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(in crate::node) struct MovedNode {
    /// The permits that each account has spent within the last second.
    pub(in crate::node) permits: Vec<(AuthId, u32)>,
    /// The node's membership of its fleet.
    pub(in crate::node) member: Option<MovedMember>,
}

impl TakenOver {
    /// The media path of a process without a predecessor.
    pub(in crate::node) fn nothing(media: Arc<Media>) -> Self {
        Self {
            media,
            calls: Vec::new(),
            queued: Vec::new(),
            rooms: Vec::new(),
            phones: MovedPhones::default(),
            node: MovedNode::default(),
        }
    }
}

/// The calls that the other process offers.
struct Offered {
    media: Arc<Media>,
    prompts: PromptTable,
    calls: Vec<IncomingCall>,
}

impl Offered {
    /// Rebuilds the calls of an offer. Returns the calls, and why others are refused.
    fn read(
        files: Vec<OwnedFd>,
        clock: &Clock,
        start_media: impl Fn(Vec<Arc<UdpSocket>>) -> Result<Arc<Media>, StartError>,
    ) -> Result<(Self, Vec<String>), StartError> {
        let mut files = files.into_iter();
        let snapshots: Vec<CallSnapshot> = read_lines(next(&mut files)?).map_err(invalid)?;
        let prompts = PromptTable::default();
        decode(&prompts, next(&mut files)?)?;
        let media = start_media(files.map(|socket| Arc::new(socket.into())).collect())?;
        let (mut calls, mut refused) = (Vec::with_capacity(snapshots.len()), Vec::new());
        for snapshot in snapshots {
            let call = snapshot.call;
            match IncomingCall::rebuild(snapshot, clock) {
                Ok(call) => calls.push(call),
                Err(error) => {
                    warn!(call_uuid = %call, %error, "call not rebuilt");
                    refused.push(format!("{call}: {error}"));
                }
            }
        }
        refused.truncate(CALLS_MAX);
        Ok((Self { media, prompts, calls }, refused))
    }

    /// Continues the legs.
    fn adopt(&mut self, files: Vec<OwnedFd>) -> Result<(), StartError> {
        let mut files = files.into_iter();
        let mut legs: HashMap<CallUuid, LegSnapshot> = read_map(next(&mut files)?)?;
        decode(&self.prompts, next(&mut files)?)?;
        for call in &mut self.calls {
            if let Some(leg) = legs.remove(&call.call()) {
                let adopted = call.adopt_leg(&self.media, leg, &self.prompts);
                adopted.map_err(TakeOverError::from)?;
            }
            call.adopt_offered_leg(&self.media).map_err(TakeOverError::from)?;
        }
        self.media.start_receiving();
        // If this process fails to start, it must not say goodbye to the peers: another one
        // continues their calls.
        std::mem::forget(self.media.clone());
        Ok(())
    }

    /// Adds what has crossed after the legs.
    fn complete(mut self, files: Vec<OwnedFd>) -> Result<TakenOver, TakeOverError> {
        let mut files = files.into_iter();
        let mut left: HashMap<CallUuid, Leftover> = read_map(next(&mut files)?)?;
        for call in &mut self.calls {
            call.complete(left.remove(&call.call()).unwrap_or_default());
        }
        let queued = read_lines(next(&mut files)?).map_err(invalid)?;
        let rooms = read_lines(next(&mut files)?).map_err(invalid)?;
        let phones = read_lines(next(&mut files)?).map_err(invalid)?.pop().unwrap_or_default();
        // Earlier versions do not send it.
        let node = match files.next() {
            Some(file) => read_lines(file).map_err(invalid)?.pop().unwrap_or_default(),
            None => MovedNode::default(),
        };
        let Self { media, calls, .. } = self;
        Ok(TakenOver { media, calls, queued, rooms, phones, node })
    }
}

fn next(files: &mut impl Iterator<Item = OwnedFd>) -> Result<OwnedFd, TakeOverError> {
    files.next().ok_or(TakeOverError::Message)
}

/// Reads the pairs of a call and a value that a file contains.
fn read_map<T: DeserializeOwned>(file: OwnedFd) -> Result<HashMap<CallUuid, T>, TakeOverError> {
    let pairs: Vec<(CallUuid, T)> = read_lines(file).map_err(invalid)?;
    Ok(pairs.into_iter().collect())
}

fn decode(prompts: &PromptTable, file: OwnedFd) -> Result<(), TakeOverError> {
    Ok(prompts.decode(&read_bytes(file).map_err(invalid)?)?)
}

fn invalid(error: io::Error) -> TakeOverError {
    TakeOverError::Calls(error)
}

/// Listeners of the previous process. Those that are not in the configuration are closed.
#[derive(Debug, Default)]
pub(in crate::node) struct Inherited {
    listeners: Vec<TcpListener>,
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

    /// Returns the listener at this host and port, or binds a new one.
    pub(in crate::node) async fn listener_at(&mut self, host: &str) -> io::Result<TcpListener> {
        let addresses = Peers::addresses(host).await?;
        let is_here = |listener: &TcpListener| {
            listener.local_addr().is_ok_and(|own| addresses.contains(&own))
        };
        match self.listeners.iter().position(is_here) {
            Some(index) => Ok(self.listeners.swap_remove(index)),
            None => TcpListener::bind(host).await,
        }
    }
}

fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}
