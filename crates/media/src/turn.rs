//! Relays the datagrams of a port over a TURN server (RFC 8656), for hosts that peers cannot reach
//! by UDP.
//!
//! The candidate of such a port is the relayed address. Legs are independent of TURN: the shard
//! passes their datagrams through the `Relay` of the port, which puts them into Send indications
//! and takes them out of Data indications. The crate `turn-client-proto` implements the protocol.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use model::{Clock, Secret};
use turn_client_proto::api::{TurnConfig, TurnEvent, TurnPollRet, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::stun::types::attribute::{ErrorCode, MessageIntegritySha256, Realm};
use turn_client_proto::stun::types::message::{
    IntegrityAlgorithm, LongTermCredentials, Message, MessageClass, MessageWriteVec,
};
use turn_client_proto::stun::types::prelude::*;
use turn_client_proto::types::attribute::XorPeerAddress;
use turn_client_proto::types::message::CREATE_PERMISSION;
use turn_client_proto::types::{AddressFamily, TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

use crate::sockets::send_all;

/// Delay before another allocation is tried after one has failed or was lost.
const RETRY: Duration = Duration::from_secs(5);
/// Maximum number of peer addresses with a permission, which include those of legs that have ended
/// up to four minutes ago. Beyond this number, datagrams to other peers are dropped.
const PERMISSIONS_MAX: usize = 4_096;
/// Maximum number of permissions while a phone may get one. Phones choose the addresses of their
/// offers, so the rest is for WhatsApp calls.
const PHONE_PERMISSIONS_MAX: usize = PERMISSIONS_MAX / 2;
/// Maximum number of permissions for one phone.
const PERMISSIONS_PER_PHONE: usize = 4;
/// Interval at which the allocation is checked. A server that restarts forgets it without notice, and
/// the client would find out after minutes.
const CHECK_EVERY: Duration = Duration::from_secs(10);
/// Maximum time for the server's response to a check, which is sent several times.
const CHECK_TIMEOUT: Duration = Duration::from_secs(8);
/// Number of addresses that checks use in turn. A permission has expired before its address is used
/// again.
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
    permissions: HashMap<IpAddr, Permission>,
    /// Whether the lack of permissions was logged.
    has_warned: bool,
    /// Datagrams to peers for which a permission has been requested but not granted yet.
    waiting: VecDeque<(SocketAddr, Vec<u8>)>,
    /// Messages to the server.
    out: Vec<Vec<u8>>,
    /// The number of the latest check, from 1 to [`CHECKS_MAX`].
    checks: u8,
    /// Time at which the latest check was sent.
    checked: Instant,
    /// Time of the latest message from the server.
    last_received: Instant,
    /// Whether the message from the server that is being handled says that there is no allocation.
    is_forgotten: bool,
}

/// The permission of a peer address.
#[derive(Debug, Default)]
struct Permission {
    /// The number of legs that need it. The client refreshes it until [`Relay::poll`] ends it.
    legs: usize,
    /// Whether the client has requested it.
    is_requested: bool,
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
            permissions: HashMap::new(),
            has_warned: false,
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
                let message = message.data.to_vec();
                if !self.end_permission(now, &message) {
                    self.out.push(message);
                }
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
                let ips: Vec<IpAddr> = self.permissions.keys().copied().collect();
                ips.into_iter().for_each(|ip| self.request(now, ip));
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
            TurnEvent::PermissionCreateFailed(_, ip) if !self.is_needed(ip) => {
                self.permissions.remove(&ip);
                self.has_warned &= self.permissions.len() > PHONE_PERMISSIONS_MAX / 2;
            }
            TurnEvent::PermissionCreateFailed(..) if self.is_forgotten => return false,
            // Some servers don't permit the address of a check, but respond.
            TurnEvent::PermissionCreateFailed(_, ip) if is_check(ip) => {}
            TurnEvent::PermissionCreateFailed(_, ip) => {
                tracing::warn!(server = %self.server.address, peer = %ip, "TURN permission refused");
                if let Some(permission) = self.permissions.get_mut(&ip) {
                    permission.is_requested = false;
                }
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
        if !self.is_needed(to.ip()) {
            return;
        }
        self.request(now, to.ip());
        if self.permissions.get(&to.ip()).is_some_and(|permission| permission.is_requested) {
            if self.waiting.len() == WAITING_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back((to, datagram.to_vec()));
        }
    }

    /// Permits the peer of a leg to send, from the addresses of its offer as far as there is room.
    /// Returns those, which must be [released](Relay::release) at the end of the leg.
    pub(crate) fn permit(
        &mut self,
        now: Instant,
        peers: &[SocketAddr],
        is_phone: bool,
    ) -> Vec<IpAddr> {
        let is_v4 = self.server.address.is_ipv4();
        let mut ips = Vec::new();
        for ip in peers.iter().map(SocketAddr::ip).filter(|ip| ip.is_ipv4() == is_v4) {
            if !ips.contains(&ip) {
                ips.push(ip);
            }
        }
        let mut max = PERMISSIONS_MAX;
        if is_phone {
            // A server of a provider cannot reach private addresses.
            ips.sort_by_key(|ip| match ip {
                IpAddr::V4(ip) => ip.is_private(),
                IpAddr::V6(ip) => ip.is_unique_local(),
            });
            ips.truncate(PERMISSIONS_PER_PHONE);
            max = PHONE_PERMISSIONS_MAX;
        }
        ips.retain(|ip| self.add_permission(*ip, max));
        ips.iter().for_each(|ip| self.request(now, *ip));
        ips
    }

    /// Counts a leg that needs a permission. Returns `false` if there are too many.
    fn add_permission(&mut self, ip: IpAddr, max: usize) -> bool {
        if self.permissions.len() >= max && !self.permissions.contains_key(&ip) {
            if !std::mem::replace(&mut self.has_warned, true) {
                tracing::warn!(
                    server = %self.server.address,
                    max,
                    "TURN permissions used up; new calls with other addresses are without audio until earlier ones have ended for 4 minutes"
                );
            }
            return false;
        }
        self.permissions.entry(ip).or_default().legs += 1;
        true
    }

    /// Gives back a permission of a leg. The server's expires.
    pub(crate) fn release(&mut self, ip: IpAddr) {
        let Some(permission) = self.permissions.get_mut(&ip) else { return };
        permission.legs = permission.legs.saturating_sub(1);
        if permission.legs == 0 && !permission.is_requested {
            self.permissions.remove(&ip);
        }
    }

    /// Requests a permission, unless that was done.
    fn request(&mut self, now: Instant, ip: IpAddr) {
        if self.permissions.get(&ip).is_none_or(|permission| permission.is_requested) {
            return;
        }
        let time = self.time(now);
        let asked = self
            .guard(now, |client| client.create_permission(TransportType::Udp, ip, time).is_ok());
        if asked == Some(true)
            && let Some(permission) = self.permissions.get_mut(&ip)
        {
            permission.is_requested = true;
            self.poll(now);
        }
    }

    /// Whether a leg, or the latest check, needs a permission.
    fn is_needed(&self, ip: IpAddr) -> bool {
        self.permissions.get(&ip).is_some_and(|permission| permission.legs > 0)
            || ip == check_address(self.server.address, self.checks)
    }

    /// Ends a permission that nothing needs when the client requests or refreshes it. The client
    /// cannot be told to give one up, so it gets a refusal in place of the server's response. Returns
    /// `false` if the message must be sent.
    fn end_permission(&mut self, now: Instant, message: &[u8]) -> bool {
        let (time, local, server) = (self.time(now), self.local, self.server.clone());
        let Some(Some(ip)) = self.guard(now, |_| permission_request(message)) else { return false };
        if self.is_needed(ip) {
            return false;
        }
        let is_ended = self.guard(now, |client| {
            let refusal = refusal(message, &server)?;
            let refusal = Transmit::new(refusal, TransportType::Udp, server.address, local);
            Some(matches!(client.recv(refusal, time), TurnRecvRet::Handled))
        });
        is_ended.flatten().unwrap_or(false)
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
        if since >= CHECK_EVERY {
            self.checks = self.checks % CHECKS_MAX + 1;
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

    fn reset(&mut self, due: Instant) {
        self.relayed.set(None);
        self.checks = 0;
        self.permissions.retain(|_, permission| {
            permission.is_requested = false;
            permission.legs > 0
        });
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

/// Returns the peer address of a request for a permission. `None` for other messages.
fn permission_request(message: &[u8]) -> Option<IpAddr> {
    let request = Message::from_bytes(message).ok()?;
    let is_request =
        request.has_class(MessageClass::Request) && request.has_method(CREATE_PERMISSION);
    let peer = is_request.then(|| request.attribute::<XorPeerAddress>().ok())??;
    Some(peer.addr(request.transaction_id()).ip())
}

/// Returns the response of a server that refuses a request.
fn refusal(request: &[u8], server: &TurnServer) -> Option<Vec<u8>> {
    let request = Message::from_bytes(request).ok()?;
    let realm = request.attribute::<Realm>().ok()?.realm().to_owned();
    let algorithm = match request.has_attribute(MessageIntegritySha256::TYPE) {
        true => IntegrityAlgorithm::Sha256,
        false => IntegrityAlgorithm::Sha1,
    };
    let password = server.password.reveal().to_owned();
    let credentials = LongTermCredentials::new(server.username.clone(), password).to_key(realm);
    let mut refusal = Message::builder_error(&request, MessageWriteVec::new());
    refusal.add_attribute(&ErrorCode::new(ErrorCode::FORBIDDEN, "").ok()?).ok()?;
    refusal.add_message_integrity(&credentials.into(), algorithm).ok()?;
    Some(refusal.finish())
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
    use super::*;
    use turn_client_proto::stun::types::attribute::{MessageIntegrity, Nonce};
    use turn_client_proto::types::attribute::{Lifetime, XorRelayedAddress};
    use turn_client_proto::types::message::{ALLOCATE, REFRESH};

    /// A server that permits everything.
    struct Server {
        relay: Relay,
        now: Instant,
        /// The time of the latest request for each permission.
        permitted: HashMap<IpAddr, Instant>,
    }

    const RELAYED: &str = "198.51.100.1:50000";

    impl Server {
        fn start() -> Self {
            let now = Clock::real().now();
            let server = TurnServer {
                address: "198.51.100.1:3478".parse().expect("address"),
                username: "offhook".to_owned(),
                password: Secret::new("a-password"),
            };
            let relay = Relay::new(server, "10.0.0.1:4000".parse().expect("address"), now);
            let mut server = Self { relay, now, permitted: HashMap::new() };
            server.run(Duration::from_secs(2));
            assert_eq!(server.relay.relayed.get(), RELAYED.parse().ok());
            server
        }

        fn run(&mut self, time: Duration) {
            let end = self.now + time;
            while self.now < end {
                self.now += Duration::from_millis(50);
                if self.relay.due() <= self.now {
                    self.relay.poll(self.now);
                }
                for message in std::mem::take(&mut self.relay.out) {
                    let response = self.response(&message);
                    let from = self.relay.server.address;
                    assert_eq!(self.relay.receive(self.now, from, &response), None);
                }
            }
        }

        fn response(&mut self, request: &[u8]) -> Vec<u8> {
            let message = Message::from_bytes(request).expect("a message");
            let id = message.transaction_id();
            if !message.has_attribute(MessageIntegrity::TYPE) {
                let mut response = Message::builder_error(&message, MessageWriteVec::new());
                let code = ErrorCode::new(ErrorCode::UNAUTHORIZED, "").expect("a code");
                response.add_attribute(&code).expect("fits");
                response.add_attribute(&Realm::new("example.com").expect("a realm")).expect("fits");
                response.add_attribute(&Nonce::new("a-nonce").expect("a nonce")).expect("fits");
                return response.finish();
            }
            let mut response = Message::builder_success(&message, MessageWriteVec::new());
            match message.method() {
                ALLOCATE => {
                    let address = XorRelayedAddress::new(RELAYED.parse().expect("address"), id);
                    response.add_attribute(&address).expect("fits");
                    response.add_attribute(&Lifetime::new(1_800)).expect("fits");
                }
                REFRESH => response.add_attribute(&Lifetime::new(1_800)).expect("fits"),
                CREATE_PERMISSION => {
                    let ip = permission_request(request).expect("an address");
                    self.permitted.insert(ip, self.now);
                }
                other => panic!("{other:?}"),
            }
            let credentials =
                LongTermCredentials::new("offhook".to_owned(), "a-password".to_owned())
                    .to_key("example.com".to_owned());
            let signed =
                response.add_message_integrity(&credentials.into(), IntegrityAlgorithm::Sha1);
            signed.expect("fits");
            response.finish()
        }

        /// Whether a permission is in force.
        fn is_permitted(&self, ip: IpAddr) -> bool {
            let age = |at: &Instant| self.now.saturating_duration_since(*at);
            self.permitted.get(&ip).is_some_and(|at| age(at) < Duration::from_secs(300))
        }
    }

    fn peers(third: u8, count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|n| SocketAddr::from(([203, 0, third, n], 9))).collect()
    }

    #[test]
    fn permissions_are_refreshed_while_a_leg_needs_them_and_end_afterwards() {
        let mut server = Server::start();
        let (stays, ends) = (peers(113, 1), peers(114, 1));
        let (one, other) = (stays[0].ip(), ends[0].ip());
        assert_eq!(server.relay.permit(server.now, &stays, false), [one]);
        for _ in 0..2 {
            assert_eq!(server.relay.permit(server.now, &ends, false), [other]);
        }
        server.run(Duration::from_secs(600));
        assert!(server.is_permitted(one) && server.is_permitted(other));
        server.relay.release(other);
        server.run(Duration::from_secs(600));
        assert!(server.is_permitted(other), "another leg needs it");
        server.relay.release(other);
        server.run(Duration::from_secs(100));
        // A leg that needs it in time continues it.
        server.relay.permit(server.now, &ends, false);
        server.run(Duration::from_secs(600));
        assert!(server.is_permitted(other));
        server.relay.release(other);
        server.run(Duration::from_secs(600));
        assert!(server.is_permitted(one) && !server.is_permitted(other));
        assert_eq!(server.relay.permissions.len(), 1);
        server.relay.send(server.now, ends[0], b"too late");
        assert!(server.relay.out.is_empty() && server.relay.waiting.is_empty());
        server.relay.permit(server.now, &ends, false);
        server.run(Duration::from_secs(1));
        assert!(server.is_permitted(other), "it can be had again");
    }

    #[test]
    fn phones_leave_permissions_to_whatsapp_calls() {
        let mut server = Server::start();
        let offer: Vec<SocketAddr> =
            [SocketAddr::from(([192, 168, 0, 7], 9))].into_iter().chain(peers(113, 16)).collect();
        let permitted = server.relay.permit(server.now, &offer, true);
        assert_eq!(permitted.len(), PERMISSIONS_PER_PHONE);
        assert!(permitted.iter().all(|ip| offer[1..].iter().any(|peer| peer.ip() == *ip)));
        for third in 0..=255 {
            for n in 0..4 {
                let host = |at: u8| SocketAddr::from(([172, 16 + n, third, at], 9));
                let offer: Vec<SocketAddr> = (0..4).map(host).collect();
                server.relay.permit(server.now, &offer, true);
            }
        }
        assert_eq!(server.relay.permissions.len(), PHONE_PERMISSIONS_MAX);
        assert!(server.relay.has_warned);
        assert_eq!(server.relay.permit(server.now, &peers(113, 4), true).len(), 4, "as before");
        assert!(server.relay.permit(server.now, &peers(114, 4), true).is_empty());
        assert_eq!(server.relay.permit(server.now, &peers(114, 16), false).len(), 16);
    }

    #[test]
    fn checks_go_on_and_their_permissions_end() {
        let mut server = Server::start();
        server.run(Duration::from_secs(4_000));
        assert_eq!(server.relay.relayed.get(), RELAYED.parse().ok());
        let checks = |server: &Server| {
            let client = &server.relay.client;
            let permissions = client.permissions(TransportType::Udp, RELAYED.parse().unwrap());
            permissions.count()
        };
        assert!((20..=26).contains(&checks(&server)), "{}", checks(&server));
        assert!(server.now.saturating_duration_since(server.relay.checked) <= CHECK_EVERY);
    }

    #[test]
    fn a_new_allocation_has_the_permissions_of_the_old_one() {
        let mut server = Server::start();
        let ip = peers(113, 1)[0].ip();
        server.relay.permit(server.now, &peers(113, 1), false);
        server.run(Duration::from_secs(1));
        server.permitted.clear();
        server.relay.renew(server.now);
        server.run(Duration::from_secs(10));
        assert!(server.is_permitted(ip));
    }

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
