//! A leg whose offer is ours: its port and credentials come first, its agent once the peer's answer is known.
//!
//! Until then nothing can arrive for it: a peer learns of our port from the offer, and of its own answer we only hear
//! through Meta. So nothing of it is in a shard yet, and giving it up costs nothing.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use super::agent::{self, Credentials, Homes};
use super::leg::Counters;
use super::ports::Port;
use super::sdp::{self, Offer, Ours};
use super::shard::{NewLeg, Order};
use super::{EventSink, LegHandle, LegId, Media, MediaError, Side};

/// A leg that has offered and waits for its answer. Dropping it gives its port back.
pub struct OfferedLeg {
    handle: LegHandle,
    port: Port,
    reachable: Vec<SocketAddr>,
    ours: Credentials,
}

impl Media {
    /// Finds a port and makes our offer for a call that we place (`meta-calling.md` §5.2).
    ///
    /// # Errors
    /// Media is stopped, or the system gives no random numbers.
    pub fn offer(&self) -> Result<(OfferedLeg, String), MediaError> {
        let id = LegId(self.next_leg.fetch_add(1, Ordering::Relaxed));
        let port = self.ports.lock().unwrap_or_else(PoisonError::into_inner).take_unknown(id);
        let orders = self
            .shards
            .get(port.shard)
            .map(|shard| shard.orders.clone())
            .ok_or(MediaError::Stopped)?;
        // From here on, dropping the handle gives the port back.
        let handle = LegHandle {
            id,
            orders,
            counters: Arc::new(Counters::default()),
            unborn: Some(self.ports.clone()),
        };
        let reachable = self.reachable(port.bound);
        let ours = self.credentials()?;
        let offer = sdp::offer(&Ours {
            candidates: &reachable,
            ufrag: &ours.ufrag,
            pwd: &ours.pwd,
            fingerprint: &self.identity.fingerprint,
            ssrc: ours.ssrc,
            cname: &ours.cname,
            stream: &self.uuid()?,
            track: &self.uuid()?,
            session: u64::from_be_bytes(self.bytes()?) >> 2,
            ice_lite: false,
        });
        Ok((OfferedLeg { handle, port, reachable, ours }, offer))
    }

    /// Makes the leg that an answer completes. It is silent until [`LegHandle::begin`].
    ///
    /// # Errors
    /// [`MediaError::NoFamily`] where the answer has only addresses of a family that we don't serve.
    pub fn answered(
        &self,
        leg: OfferedLeg,
        answer: &Offer,
        sink: EventSink,
    ) -> Result<LegHandle, MediaError> {
        let OfferedLeg { mut handle, port, reachable, ours } = leg;
        let now = self.clock.now();
        let homes = Homes::of(&reachable);
        if answer.candidates.iter().all(|c| homes.towards(c.addr.ip()).is_none()) {
            return Err(MediaError::NoFamily);
        }
        // Whoever offers has the controlling role, also towards a full agent (RFC 8445 §6.1.1).
        let agent = agent::towards(&self.identity, answer, homes, &ours, true, now)?;
        let (pwd, cname) = (ours.pwd.clone(), ours.cname.clone());
        let side = Side { homes, pwd, ssrc: ours.ssrc, cname, controlling: true, offered: true };
        let leg = self.leg(answer, agent, side, sink.clone(), handle.counters.clone(), now)?;
        let peers = answer.candidates.iter().map(|c| c.addr).collect();
        let rivals = {
            let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            ports.learn(handle.id, peers);
            ports.rivals(handle.id)
        };
        let new = NewLeg { id: handle.id, port, rivals, ufrag: ours.ufrag, leg, sink };
        if !handle.orders.send(Order::Add(Box::new(new))) {
            return Err(MediaError::Stopped);
        }
        // The shard gives the port back when the leg ends.
        handle.unborn = None;
        Ok(handle)
    }
}
