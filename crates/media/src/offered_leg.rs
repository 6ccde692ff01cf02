//! A leg for which this side makes the offer. Its port and credentials are assigned with the offer;
//! its str0m instance is created when the peer's answer is known.
//!
//! Nothing can arrive for it before that, because the peer learns our port from the offer, and its
//! answer reaches us through Meta. No shard has the leg yet, so it can be dropped without further
//! effort.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::ice::{self, Credentials, LocalAddresses};
use super::leg::Counters;
use super::ports::Port;
use super::sdp::{self, LocalDescription, Offer};
use super::shard::{Command, NewLeg};
use super::{EventSink, LegHandle, LegId, LocalSide, Media, MediaError};

/// A leg that has made an offer and waits for the answer. Dropping it releases the port.
pub struct OfferedLeg {
    handle: LegHandle,
    port: Port,
    reachable: Vec<SocketAddr>,
    ours: Credentials,
}

impl Media {
    /// Reserves a port and writes our offer for a call that we place
    /// (docs/reference/meta.md#business-initiated-calls).
    ///
    /// # Errors
    ///
    /// Returns an error if the media threads have stopped or the system provides no random numbers.
    pub fn offer(&self) -> Result<(OfferedLeg, String), MediaError> {
        let id = LegId(self.next_leg.fetch_add(1, Ordering::Relaxed));
        let port = self.ports.lock().unwrap_or_else(PoisonError::into_inner).allocate_unknown(id);
        let commands = self
            .shards
            .get(port.shard)
            .map(|shard| shard.commands.clone())
            .ok_or(MediaError::Stopped)?;
        // From here on, dropping the handle releases the port.
        let handle = LegHandle {
            id,
            commands,
            counters: Arc::new(Counters::default()),
            reserved_in: Some(self.ports.clone()),
        };
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
        Ok((OfferedLeg { handle, port, reachable, ours }, offer))
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
        let OfferedLeg { mut handle, port, reachable, ours } = leg;
        let now = self.clock.now();
        let local_addresses = LocalAddresses::first_per_family(&reachable);
        if answer.candidates.iter().all(|c| local_addresses.for_peer(c.addr.ip()).is_none()) {
            return Err(MediaError::NoFamily);
        }
        // The offerer has the controlling role, also towards a full agent (RFC 8445 §6.1.1).
        let ice_agent = ice::new_agent(&self.identity, answer, local_addresses, &ours, true, now)?;
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
