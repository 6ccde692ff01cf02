//! A leg for which this side makes the offer. Its port and credentials are assigned with the offer;
//! its str0m instance is created when the peer's answer is known.
//!
//! Nothing can arrive for it before that, because the peer learns our port from the offer, and its
//! answer reaches us through Meta. No shard has the leg yet, so it can be dropped without further
//! effort. For the same reason, it can move to another process at any time.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use serde::{Deserialize, Serialize};

use super::ice::{self, Credentials, Identity, IdentityState, LocalAddresses};
use super::leg::Counters;
use super::ports::{Port, PortTable};
use super::sdp::{self, LocalDescription, Offer};
use super::shard::{Command, NewLeg};
use super::{EventSink, LegHandle, LegId, LocalSide, Media, MediaError};

/// A leg that has made an offer and waits for the answer. Dropping it releases the port.
pub struct OfferedLeg {
    handle: LegHandle,
    port: Port,
    reachable: Vec<SocketAddr>,
    ours: Credentials,
    /// The certificate whose fingerprint is in the offer.
    identity: Arc<Identity>,
}

/// The state of an [`OfferedLeg`], with which another process of this machine that has the same
/// sockets continues it. Contains keys: it must be sent only to that process, and is never printed.
#[derive(Serialize, Deserialize)]
pub struct OfferedLegSnapshot {
    /// The bound address of the leg's UDP port.
    bound: SocketAddr,
    reachable: Vec<SocketAddr>,
    credentials: Credentials,
    identity: IdentityState,
}

impl fmt::Debug for OfferedLegSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfferedLegSnapshot").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl Media {
    /// Reserves a port and writes our offer for a call that we place
    /// (docs/reference/meta.md#business-initiated-calls).
    ///
    /// # Errors
    ///
    /// Returns an error if the media threads have stopped or the system provides no random numbers.
    pub fn offer(&self) -> Result<(OfferedLeg, String), MediaError> {
        let (handle, port) = self.reserve(|ports, id| Ok(ports.allocate_unknown(id)))?;
        let reachable = self.reachable(&port);
        let ours = self.credentials()?;
        let offer = sdp::offer(&LocalDescription {
            candidates: &reachable,
            ufrag: &ours.ufrag,
            pwd: &ours.pwd,
            fingerprint: &self.identity.fingerprint,
            ssrc: ours.ssrc,
            cname: &ours.cname,
            stream: &self.random_uuid()?,
            track: &self.random_uuid()?,
            session: u64::from_be_bytes(self.random_bytes()?) >> 2,
            ice_lite: false,
        });
        let identity = self.identity.clone();
        Ok((OfferedLeg { handle, port, reachable, ours, identity }, offer))
    }

    /// Reserves a port for a new leg. Dropping the handle releases it.
    fn reserve(
        &self,
        allocate: impl FnOnce(&mut PortTable, LegId) -> Result<Port, MediaError>,
    ) -> Result<(LegHandle, Port), MediaError> {
        let id = LegId(self.next_leg.fetch_add(1, Ordering::Relaxed));
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let port = allocate(&mut ports, id)?;
        drop(ports);
        let shard = self.shards.get(port.shard).ok_or(MediaError::Stopped)?;
        let handle = LegHandle {
            id,
            commands: shard.commands.clone(),
            counters: Arc::new(Counters::default()),
            reserved_in: Some(self.ports.clone()),
        };
        Ok((handle, port))
    }

    /// Returns the state of a leg for another process. `None` if a TURN server relays the leg.
    pub fn snapshot_offered(&self, leg: &OfferedLeg) -> Option<OfferedLegSnapshot> {
        self.relayed.is_empty().then(|| OfferedLegSnapshot {
            bound: leg.port.bound,
            reachable: leg.reachable.clone(),
            credentials: leg.ours.clone(),
            identity: leg.identity.snapshot(),
        })
    }

    /// Continues a leg of another process on the port that it had.
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::PortNotInherited`] if this process does not have the leg's socket.
    pub fn adopt_offered(&self, snapshot: OfferedLegSnapshot) -> Result<OfferedLeg, MediaError> {
        let OfferedLegSnapshot { bound, reachable, credentials, identity } = snapshot;
        let not_inherited = MediaError::PortNotInherited(bound);
        let allocate =
            |ports: &mut PortTable, id| ports.allocate_unknown_at(id, bound).ok_or(not_inherited);
        let (handle, port) = self.reserve(allocate)?;
        let identity = Arc::new(Identity::restore(identity));
        Ok(OfferedLeg { handle, port, reachable, ours: credentials, identity })
    }

    /// Creates the leg from the peer's answer. It sends nothing until [`LegHandle::begin`].
    ///
    /// # Errors
    ///
    /// Returns [`MediaError::NoFamily`] if the answer has only candidates of address families that
    /// this node does not serve.
    pub fn accept_answer(
        &self,
        leg: OfferedLeg,
        answer: &Offer,
        sink: EventSink,
    ) -> Result<LegHandle, MediaError> {
        let OfferedLeg { mut handle, port, reachable, ours, identity } = leg;
        let now = self.clock.now();
        let local_addresses = LocalAddresses::first_per_family(&reachable);
        if answer.candidates.iter().all(|c| local_addresses.for_peer(c.addr.ip()).is_none()) {
            return Err(MediaError::NoFamily);
        }
        // The offerer has the controlling role, also towards a full agent (RFC 8445 §6.1.1).
        let ice_agent = ice::new_agent(&identity, answer, local_addresses, &ours, true, now)?;
        let (pwd, cname) = (ours.pwd.clone(), ours.cname.clone());
        let side = LocalSide {
            local_addresses,
            pwd,
            ssrc: ours.ssrc,
            cname,
            controlling: true,
            offered: true,
        };
        let leg =
            self.build_leg(answer, ice_agent, side, sink.clone(), handle.counters.clone(), now)?;
        let peers: Vec<SocketAddr> = answer.candidates.iter().map(|c| c.addr).collect();
        let conflicts = {
            let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            ports.set_candidates(handle.id, peers.clone());
            ports.conflicts(handle.id)
        };
        let ufrag = ours.ufrag;
        let new = NewLeg { id: handle.id, port, conflicts, ufrag, peers, leg, sink };
        if !handle.commands.send(Command::Add(Box::new(new))) {
            return Err(MediaError::Stopped);
        }
        // The shard releases the port when the leg ends.
        handle.reserved_in = None;
        Ok(handle)
    }
}
