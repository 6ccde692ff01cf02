//! Relays the datagrams of a port over a TURN server (RFC 8656), for hosts that peers cannot reach
//! by UDP.
//!
//! The candidate of such a port is the relayed address. Legs are independent of TURN: the shard
//! passes their datagrams through the `Relay` of the port, which puts them into Send indications
//! and takes them out of Data indications. The crate `turn-client-proto` implements the protocol.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::{Clock, Secret};
use turn_client_proto::api::{TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

use crate::sockets::send_all;

/// Delay before another allocation is tried after one has failed or was lost.
const RETRY: Duration = Duration::from_secs(5);
/// Maximum number of peer addresses with a permission. The client refreshes them for as long as the
/// allocation lives. Beyond this number, datagrams to other peers are dropped. When no leg is left,
/// the allocation is replaced.
const PERMISSIONS_MAX: usize = 4_096;
/// Interval at which the allocation is checked. A server that restarts forgets it without notice, and
/// the client would find out after minutes.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// Maximum time for the server's response to a check, which is sent several times.
const CHECK_TIMEOUT: Duration = Duration::from_secs(8);
/// Number of addresses that checks use. When each has been used and no leg is left, the allocation is
/// replaced, since the client refreshes the permission of each.
const CHECKS_MAX: u8 = 254;
/// Maximum number of datagrams that wait for a permission, which takes a round trip.
const WAITING_MAX: usize = 64;
/// Maximum number of steps for which the client is polled at a time.
const STEPS_MAX: usize = 16;
/// Maximum size of a received datagram in bytes.
const DATAGRAM_MAX: usize = 2_048;
/// Timeout of [`allocate`] for receiving one datagram.
const RECEIVE_WAIT: Duration = Duration::from_millis(50);

/// A TURN server and the long-term credentials for it.
#[derive(Clone, Debug)]
pub struct TurnServer {
    pub address: SocketAddr,
    pub username: String,
    pub password: Secret,
}

/// The relayed address of a port, which its shard keeps up to date. `None` while there is no
/// allocation.
#[derive(Clone, Debug, Default)]
pub(crate) struct RelayedAddress(Arc<(Mutex<Option<SocketAddr>>, Condvar)>);

impl RelayedAddress {
    pub(crate) fn get(&self) -> Option<SocketAddr> {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, address: Option<SocketAddr>) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = address;
        self.0.1.notify_all();
    }

    /// Waits until there is an address. Returns `None` after the timeout.
    pub(crate) fn wait(&self, within: Duration) -> Option<SocketAddr> {
        let (address, changed) = &*self.0;
        let address = address.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = changed.wait_timeout_while(address, within, |address| address.is_none());
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// The allocation of one port.
pub(crate) struct Relay {
    server: TurnServer,
    client: TurnClientUdp,
    /// The local address in the client's configuration. It is compared but never sent.
    local: SocketAddr,
    /// The zero point of the client's clock.
    epoch: Instant,
    due: Instant,
    relayed: RelayedAddress,
    permissions: HashSet<IpAddr>,
    /// Datagrams to peers for which a permission has been requested but not granted yet.
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Messages to the server.
    out: Vec<Vec<u8>>,
    /// The number of checks of the allocation.
    checks: u8,
    /// Time at which the latest check was sent.
    checked: Instant,
    /// Time of the latest message from the server.
    last_received: Instant,
    /// Whether the message from the server that is being handled says that there is no allocation.
    is_forgotten: bool,
}

impl Relay {
    /// Creates a relay that allocates an address when it is polled.
    pub(crate) fn new(server: TurnServer, local: SocketAddr, now: Instant) -> Self {
        Self {
            client: client(&server, local),
            server,
            local,
            epoch: now,
            due: now,
            relayed: RelayedAddress::default(),
            permissions: HashSet::new(),
            waiting: VecDeque::new(),
            out: Vec::new(),
            checks: 0,
            checked: now,
            last_received: now,
            is_forgotten: false,
        }
    }

    /// Returns whether a datagram came from the server.
    pub(crate) fn is_server(&self, from: SocketAddr) -> bool {
        from == self.server.address
    }

    pub(crate) fn relayed(&self) -> RelayedAddress {
        self.relayed.clone()
    }

    /// Returns when [`Relay::poll`] must be called next.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Creates and refreshes the allocation, and repeats requests when that is due. The messages
    /// are sent by [`Relay::flush`].
    pub(crate) fn poll(&mut self, now: Instant) {
        if self.relayed.get().is_some() && !self.check(now) {
            return self.renew(now);
        }
        let time = self.time(now);
        self.due = now + RETRY;
        for _ in 0..STEPS_MAX {
            let Some(next) = self.guard(now, |client| client.poll(time)) else { return };
            while let Some(Some(message)) = self.guard(now, |client| client.poll_transmit(time)) {
                self.out.push(message.data.to_vec());
            }
            let mut is_lost = false;
            while let Some(Some(event)) = self.guard(now, TurnClientUdp::poll_event) {
                is_lost |= !self.handle(event, now);
            }
            match next {
                _ if is_lost => return self.renew(now),
                TurnPollRet::Closed => return self.renew(now),
                TurnPollRet::WaitUntil(at) if at > time => {
                    self.due = now + at.saturating_duration_since(time).min(RETRY);
                    return;
                }
                // The client may continue immediately.
                TurnPollRet::WaitUntil(_)
                | TurnPollRet::AllocateTcpSocket { .. }
                | TurnPollRet::TcpClose { .. } => {}
            }
        }
        self.due = now;
    }

    /// Handles an event. Returns `false` if there is no allocation.
    fn handle(&mut self, event: TurnEvent, now: Instant) -> bool {
        match event {
            TurnEvent::AllocationCreated(_, address) => {
                tracing::info!(server = %self.server.address, %address, "TURN address allocated");
                self.relayed.set(Some(address));
                self.checked = now;
            }
            TurnEvent::AllocationCreateFailed(_) => return false,
            TurnEvent::PermissionCreated(_, ip) => {
                for (to, datagram) in std::mem::take(&mut self.waiting) {
                    match to.ip() == ip {
                        true => self.send(now, to, &datagram),
                        false => self.waiting.push_back((to, datagram)),
                    }
                }
            }
            TurnEvent::PermissionCreateFailed(..) if self.is_forgotten => return false,
            // Some servers don't permit the address of a check, but respond.
            TurnEvent::PermissionCreateFailed(_, ip) if is_check(ip) => {}
            TurnEvent::PermissionCreateFailed(_, ip) => {
                tracing::warn!(server = %self.server.address, peer = %ip, "TURN permission refused");
                self.permissions.remove(&ip);
                self.waiting.retain(|(to, _)| to.ip() != ip);
            }
            TurnEvent::ChannelCreated(..)
            | TurnEvent::ChannelCreateFailed(..)
            | TurnEvent::TcpConnected(_)
            | TurnEvent::TcpConnectFailed(_) => {}
        }
        true
    }

    /// Sends a datagram to a peer, as soon as the server permits that.
    pub(crate) fn send(&mut self, now: Instant, to: SocketAddr, datagram: &[u8]) {
        let time = self.time(now);
        let is_permitted =
            self.guard(now, |client| client.have_permission(TransportType::Udp, to.ip()));
        if is_permitted == Some(true) {
            let sent = self.guard(now, |client| {
                let sent = client.send_to(TransportType::Udp, to, datagram, time);
                sent.ok().flatten().map(|message| message.data.build())
            });
            self.out.extend(sent.flatten());
            return;
        }
        if !self.permissions.contains(&to.ip()) {
            self.permit(now, to.ip());
        }
        if self.permissions.contains(&to.ip()) {
            if self.waiting.len() == WAITING_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back((to, datagram.to_vec()));
        }
    }

    /// Permits a peer to send. Peers that this side checks do not need this, because sending to
    /// them has the same effect.
    pub(crate) fn permit(&mut self, now: Instant, ip: IpAddr) {
        let time = self.time(now);
        if self.is_full() || !self.permissions.insert(ip) {
            return;
        }
        let asked = self
            .guard(now, |client| client.create_permission(TransportType::Udp, ip, time).is_ok());
        match asked {
            Some(true) => self.poll(now),
            Some(false) | None => drop(self.permissions.remove(&ip)),
        }
    }

    /// Returns whether the allocation has too many permissions to refresh, so that it should be
    /// replaced as soon as no call uses it.
    pub(crate) fn should_be_replaced(&self) -> bool {
        self.is_full() || self.checks == CHECKS_MAX
    }

    /// Returns whether no further peer can get a permission.
    pub(crate) fn is_full(&self) -> bool {
        self.permissions.len() >= PERMISSIONS_MAX
    }

    /// Extracts a peer's datagram from a message of the server. Returns `None` for any other
    /// message.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        from: SocketAddr,
        message: &[u8],
    ) -> Option<(SocketAddr, Vec<u8>)> {
        let (time, local) = (self.time(now), self.local);
        self.last_received = now;
        // RFC 8656, section 5, has 437; coturn 4.6 responds with 400.
        self.is_forgotten = matches!(error_code(message), Some((4, 0 | 37)));
        let received = self.guard(now, |client| {
            let message = Transmit::new(message, TransportType::Udp, from, local);
            match client.recv(message, time) {
                TurnRecvRet::PeerData(data) => Some((data.peer, data.data().to_vec())),
                TurnRecvRet::Handled | TurnRecvRet::Ignored(_) | TurnRecvRet::PeerIcmp { .. } => {
                    None
                }
            }
        });
        let received = received.flatten();
        if received.is_none() {
            self.poll(now);
        }
        self.is_forgotten = false;
        received
    }

    /// Checks from time to time that the server has the allocation, by a permission for an address that
    /// no peer has. Returns `false` if it has not responded.
    fn check(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.checked);
        if self.last_received < self.checked && since >= CHECK_TIMEOUT {
            return false;
        }
        if since >= CHECK_EVERY && self.checks < CHECKS_MAX {
            self.checks += 1;
            self.checked = now;
            let (time, ip) = (self.time(now), check_address(self.server.address, self.checks));
            self.guard(now, |client| {
                client.create_permission(TransportType::Udp, ip, time).is_ok()
            });
        }
        true
    }

    /// Sends the messages to the server.
    pub(crate) fn flush(&mut self, socket: &UdpSocket, to_v6: bool) {
        if !self.out.is_empty() {
            let to = self.server.address;
            send_all(socket, to_v6, self.out.iter().map(|message| (to, message.as_slice())));
            self.out.clear();
        }
    }

    /// Releases the allocation. The message is sent by [`Relay::flush`].
    pub(crate) fn close(&mut self, now: Instant) {
        let time = self.time(now);
        self.guard(now, |client| client.delete(time).is_ok());
        while let Some(Some(message)) = self.guard(now, |client| client.poll_transmit(time)) {
            self.out.push(message.data.to_vec());
        }
    }

    /// Schedules a new allocation after one has failed or ended.
    fn renew(&mut self, now: Instant) {
        let server = self.server.address;
        match self.relayed.get() {
            Some(address) => tracing::warn!(
                %server,
                %address,
                "TURN server lost an address; calls are impossible until it allocates another; see [turn]"
            ),
            None => tracing::warn!(
                %server,
                "TURN server allocated no address; calls are impossible until it does; see [turn]"
            ),
        }
        self.reset(now + RETRY);
    }

    /// Replaces the allocation.
    pub(crate) fn replace(&mut self, now: Instant) {
        self.close(now);
        self.reset(now);
    }

    fn reset(&mut self, due: Instant) {
        self.relayed.set(None);
        self.checks = 0;
        self.permissions.clear();
        self.waiting.clear();
        self.client = client(&self.server, self.local);
        self.due = due;
    }

    fn time(&self, now: Instant) -> turn_client_proto::stun::Instant {
        let nanos = now.saturating_duration_since(self.epoch).as_nanos();
        turn_client_proto::stun::Instant::from_nanos(i64::try_from(nanos).unwrap_or(i64::MAX))
    }

    /// Runs third-party code that parses messages. If it panics, restarts the relay and returns
    /// `None`.
    fn guard<T>(&mut self, now: Instant, act: impl FnOnce(&mut TurnClientUdp) -> T) -> Option<T> {
        let done = catch_unwind(AssertUnwindSafe(|| act(&mut self.client)));
        if done.is_err() {
            tracing::error!("TURN client panicked and was replaced");
            self.renew(now);
        }
        done.ok()
    }
}

/// The address of the nth check, of those for documentation (RFC 5737, RFC 3849).
fn check_address(server: SocketAddr, n: u8) -> IpAddr {
    match server {
        SocketAddr::V4(_) => IpAddr::from([192, 0, 2, n]),
        SocketAddr::V6(_) => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(n)]),
    }
}

fn is_check(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().starts_with(&[192, 0, 2]),
        IpAddr::V6(ip) => ip.segments().starts_with(&[0x2001, 0xdb8]),
    }
}

/// Returns the class and the number of the error code of a STUN error response (RFC 8489, section 14.8).
fn error_code(message: &[u8]) -> Option<(u8, u8)> {
    const ERROR_CODE: u16 = 0x0009;
    let ([first, second, ..], mut attributes) = message.split_at_checked(20)? else { return None };
    if u16::from_be_bytes([*first, *second]) & 0xc110 != 0x0110 {
        return None;
    }
    loop {
        let (&[kind, of_kind, length, of_length], rest) = attributes.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes([length, of_length]));
        let (value, _) = rest.split_at_checked(length)?;
        if u16::from_be_bytes([kind, of_kind]) == ERROR_CODE {
            let [_, _, class, number, ..] = value else { return None };
            return Some((class & 7, *number));
        }
        (_, attributes) = rest.split_at_checked(length.next_multiple_of(4))?;
    }
}

fn client(server: &TurnServer, local: SocketAddr) -> TurnClientUdp {
    let credentials = TurnCredentials::new(&server.username, server.password.reveal());
    let mut config = TurnConfig::new(credentials);
    config.set_address_family(match server.address {
        SocketAddr::V4(_) => AddressFamily::IPV4,
        SocketAddr::V6(_) => AddressFamily::IPV6,
    });
    TurnClientUdp::allocate(local, server.address, config)
}

/// Allocates an address and releases it. Blocks.
///
/// # Errors
///
/// Returns the errors of the socket, or [`std::io::ErrorKind::TimedOut`] if the server assigns no
/// address in time.
pub fn allocate(
    server: &TurnServer,
    clock: &Clock,
    within: Duration,
) -> std::io::Result<SocketAddr> {
    let unspecified = match server.address {
        SocketAddr::V4(_) => IpAddr::from([0u8; 4]),
        SocketAddr::V6(_) => IpAddr::from([0u16; 8]),
    };
    let socket = UdpSocket::bind((unspecified, 0))?;
    socket.set_read_timeout(Some(RECEIVE_WAIT))?;
    let started = clock.now();
    let mut relay = Relay::new(server.clone(), socket.local_addr()?, started);
    let mut bytes = [0; DATAGRAM_MAX];
    loop {
        let now = clock.now();
        if relay.due() <= now {
            relay.poll(now);
        }
        relay.flush(&socket, false);
        if let Some(address) = relay.relayed.get() {
            relay.close(now);
            relay.flush(&socket, false);
            return Ok(address);
        }
        if now.saturating_duration_since(started) >= within {
            let message = format!("{} gave no address within {within:?}", server.address);
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message));
        }
        if let Ok((length, from)) = socket.recv_from(&mut bytes)
            && relay.is_server(from)
        {
            relay.receive(clock.now(), from, bytes.get(..length).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::error_code;

    #[test]
    fn reads_the_code_of_error_responses_only() {
        let message = |kind: u16, code: &[u8]| {
            let head = [&kind.to_be_bytes()[..], &[0, 20], &[0x21, 0x12, 0xa4, 0x42], &[7; 12]];
            // An attribute of five bytes and its padding comes first.
            let software = [&[0x80, 0x22, 0, 5][..], b"abcde", &[0; 3]].concat();
            [&head.concat()[..], &software, &[0, 9, 0, 4], code].concat()
        };
        assert_eq!(error_code(&message(0x0118, &[0, 0, 4, 37])), Some((4, 37)));
        assert_eq!(error_code(&message(0x0108, &[0, 0, 4, 37])), None, "a success response");
        let whole = message(0x0118, &[0, 0, 4, 0]);
        for length in 0..whole.len() {
            assert_eq!(error_code(whole.get(..length).unwrap()), None, "{length}");
        }
    }
}
