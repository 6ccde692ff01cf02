//! The network side of a leg: its datagrams, the events of str0m, and its RTP, which [`Transport`]
//! carries once DTLS has negotiated keys. Without usable keys, str0m carries it.
//!
//! While a transport exists, str0m gets only STUN and DTLS, and its RTP and RTCP packets are not
//! sent. Two senders with the same keys would break the encryption (RFC 3711 §9.1).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};
use str0m::media::Mid;
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite};
use str0m::{Event, Input, Output, Rtc, RtcError};

use super::Leg;
use super::checks::CheckRetransmitter;
use super::inbound::{PacketHandler, count_excess};
use super::path_checks::PathChecks;
use crate::LegEvent;
use crate::MediaError;
use crate::dtls::KeyCell;
use crate::ice::{self, Identity, LocalAddresses, enable_rtp};
use crate::rtp::{PacketKind, packet_kind};
use crate::send_buffer::SendBuffer;
use crate::snapshot::{NotMovable, Offset, TimeBase};
use crate::sockets::ReceivedDatagram;
use crate::stun;
use crate::transport::{
    OutgoingPacket, ReceivedPacket, Transport, TransportConfig, TransportState,
};
use crate::watchdog::MissingStep;
use machine::{MediaEvent, MediaFault};
use model::Timestamp;

/// Maximum number of SSRCs of the peer that str0m knows at a time. There is more than one if the
/// peer has changed its SSRC.
const SSRCS_MAX: usize = 4;
/// Maximum length of a ufrag or password in characters (RFC 8445 §5.3).
const ICE_TEXT_MAX: usize = 256;
/// Time without a packet after which a nominated path may replace the current one.
const PATH_SILENT: Duration = Duration::from_secs(1);

/// Everything needed to create a [`Network`].
pub(crate) struct NetworkConfig {
    /// Boxed from its creation on, because it takes several kilobytes.
    pub(crate) rtc: Box<Rtc>,
    pub(crate) mid: Mid,
    /// Receives the SRTP keys when the DTLS handshake is complete.
    pub(crate) keys: KeyCell,
    pub(crate) cname: String,
    pub(crate) ssrc: u32,
    pub(crate) remote_ssrc: Option<u32>,
    pub(crate) opus_pt: u8,
    pub(crate) local_addresses: LocalAddresses,
    /// The local ICE password, which incoming requests use, and the remote one, which responses
    /// use.
    pub(crate) pwd: String,
    pub(crate) remote_ufrag: String,
    pub(crate) remote_pwd: String,
    /// Whether this side sends the ICE checks, because the offer was ICE-lite.
    pub(crate) controlling: bool,
    /// Whether this side is the DTLS client.
    pub(crate) dtls_client: bool,
    pub(crate) now: Instant,
    /// Wall-clock time at `now`.
    pub(crate) wall: Timestamp,
}

/// The network side of a leg. Fields that every packet needs come first, so that they share few
/// cache lines; `leg/prefetch.rs` depends on this order.
#[repr(C)]
pub(super) struct Network {
    /// The RTP path, once connected. `None` if str0m carries the RTP.
    pub(super) transport: Option<Box<Transport>>,
    last_valid: Instant,
    /// The destination of DTLS and RTP. `None` before the first packet is sent.
    path: Option<SocketAddr>,
    /// The time at which an authentic packet last arrived over this path.
    path_active_at: Instant,
    /// The next timeout of str0m.
    wake: Instant,
    pub(super) ice_up: bool,
    pub(super) connected: bool,
    pub(super) controlling: bool,

    /// The str0m instance, which is the first of the rarely used fields. It is boxed, because it is
    /// large.
    pub(super) rtc: Box<Rtc>,
    mid: Mid,
    keys: KeyCell,
    cname: String,
    ssrc: u32,
    opus_pt: u8,
    /// A point in time, and the wall-clock time at that moment.
    epoch: (Instant, Timestamp),
    local_addresses: LocalAddresses,
    pwd: String,
    remote_ufrag: String,
    remote_pwd: String,
    dtls_client: bool,
    /// NTP time of the peer's latest sender report.
    last_report: Option<SystemTime>,
    ssrcs: VecDeque<u32>,
    /// An unknown SSRC whose first packet is being verified.
    trial: Option<u32>,
    /// Retransmits our checks until the leg is connected. `None` if the peer sends the checks.
    checks: Option<Box<CheckRetransmitter>>,
    /// Our checks of addresses that the peer has nominated during the call.
    path_checks: PathChecks,
}

/// The state of a connected [`Network`] in the snapshot of a leg.
#[derive(Serialize, Deserialize)]
pub(super) struct NetworkState {
    transport: TransportState,
    last_valid: Offset,
    path: SocketAddr,
    path_active_at: Offset,
    controlling: bool,
    local_addresses: LocalAddresses,
    pwd: String,
    remote_ufrag: String,
    remote_pwd: String,
    ssrcs: VecDeque<u32>,
}

impl Leg {
    /// Processes a datagram of this leg: either authenticated STUN, or any other datagram from an
    /// address that has sent authenticated STUN.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        datagram: ReceivedDatagram<'_>,
        out: &mut SendBuffer,
    ) {
        let (network, mut handler) = self.split();
        network.receive(now, datagram, &mut handler, out);
    }
}

impl Network {
    pub(super) fn new(config: NetworkConfig) -> Self {
        Self {
            transport: None,
            last_valid: config.now,
            path: None,
            path_active_at: config.now,
            wake: config.now,
            ice_up: false,
            connected: false,
            controlling: config.controlling,
            rtc: config.rtc,
            mid: config.mid,
            keys: config.keys,
            cname: config.cname,
            ssrc: config.ssrc,
            opus_pt: config.opus_pt,
            epoch: (config.now, config.wall),
            local_addresses: config.local_addresses,
            pwd: config.pwd,
            remote_ufrag: config.remote_ufrag,
            remote_pwd: config.remote_pwd,
            dtls_client: config.dtls_client,
            last_report: None,
            ssrcs: config.remote_ssrc.into_iter().collect(),
            trial: None,
            checks: config.controlling.then(Box::default),
            path_checks: PathChecks::default(),
        }
    }

    /// Returns why the network side cannot move to another process, if it cannot.
    pub(super) fn movable(&self) -> Result<(), NotMovable> {
        match (self.connected, &self.transport, self.path) {
            (true, Some(_), Some(_)) => Ok(()),
            (true, None, _) => Err(NotMovable::NoKeys),
            (false, _, _) | (_, _, None) => Err(NotMovable::Connecting),
        }
    }

    /// Returns the state, or the reason why it has none.
    pub(super) fn snapshot(&self, base: TimeBase) -> Result<NetworkState, NotMovable> {
        self.movable()?;
        let transport = self.transport.as_ref().ok_or(NotMovable::NoKeys)?;
        Ok(NetworkState {
            transport: transport.snapshot(base),
            last_valid: base.offset(self.last_valid),
            path: self.path.ok_or(NotMovable::Connecting)?,
            path_active_at: base.offset(self.path_active_at),
            controlling: self.controlling,
            local_addresses: self.local_addresses,
            pwd: self.pwd.clone(),
            remote_ufrag: self.remote_ufrag.clone(),
            remote_pwd: self.remote_pwd.clone(),
            ssrcs: self.ssrcs.clone(),
        })
    }

    /// Creates the connected network side of a snapshot. `ufrag` is ours. The handshake is over,
    /// so there is no DTLS: the peer's close_notify is not understood, and none is sent.
    pub(super) fn restore(
        state: NetworkState,
        ufrag: &str,
        identity: &Identity,
        now: Instant,
        base: TimeBase,
    ) -> Result<Self, MediaError> {
        let transport = Transport::restore(state.transport, base).ok_or(MediaError::Snapshot)?;
        let is_served = state.local_addresses.for_peer(state.path.ip()).is_some();
        let texts = [ufrag, &state.pwd, &state.remote_ufrag, &state.remote_pwd];
        if !is_served || texts.iter().any(|text| text.is_empty() || text.len() > ICE_TEXT_MAX) {
            return Err(MediaError::Snapshot);
        }
        let agent = ice::resumed_agent(
            identity,
            state.local_addresses,
            (ufrag, &state.pwd),
            (state.remote_ufrag.clone(), state.remote_pwd.clone()),
            state.controlling,
            state.path,
            now,
        )?;
        Ok(Self {
            last_valid: base.at(state.last_valid),
            path: Some(state.path),
            path_active_at: base.at(state.path_active_at),
            wake: now,
            ice_up: true,
            connected: true,
            controlling: state.controlling,
            rtc: agent.rtc,
            mid: agent.mid,
            keys: KeyCell::default(),
            // These three are used only to create a transport.
            cname: String::new(),
            ssrc: 0,
            opus_pt: 0,
            epoch: (now, Timestamp::from_micros(0)),
            transport: Some(Box::new(transport)),
            local_addresses: state.local_addresses,
            pwd: state.pwd,
            remote_ufrag: state.remote_ufrag,
            remote_pwd: state.remote_pwd,
            dtls_client: false,
            last_report: None,
            ssrcs: state.ssrcs.into_iter().take(SSRCS_MAX).collect(),
            trial: None,
            checks: None,
            path_checks: PathChecks::default(),
        })
    }

    /// Returns the peer's address for DTLS and RTP. `None` before the leg is connected.
    pub(super) fn peer_address(&self) -> Option<SocketAddr> {
        self.path.filter(|_| self.connected)
    }

    /// Returns whether the peer is known to use this SSRC.
    pub(super) fn has_ssrc(&self, ssrc: u32) -> bool {
        self.ssrcs.contains(&ssrc)
            || self.transport.as_ref().is_some_and(|transport| transport.has_ssrc(ssrc))
    }

    /// Returns `true` if a STUN request is authenticated with our password.
    pub(super) fn authenticates_request(&self, request: &[u8]) -> bool {
        stun::is_authentic(request, &self.pwd)
    }

    /// Returns `true` if a STUN response is authenticated with the peer's password.
    pub(super) fn authenticates_response(&self, response: &[u8]) -> bool {
        stun::is_authentic(response, &self.remote_pwd)
    }

    /// Returns `true` if nothing authentic has arrived for the time `limit`.
    pub(super) fn is_silent(&self, now: Instant, limit: Duration) -> bool {
        self.connected && now.saturating_duration_since(self.last_valid) >= limit
    }

    /// Records that the call was accepted.
    pub(super) fn open(&mut self, now: Instant) {
        if let Some(checks) = &mut self.checks {
            checks.open(now);
        }
    }

    /// Passes RTP to the transport and everything else to str0m.
    fn receive(
        &mut self,
        now: Instant,
        ReceivedDatagram { from, bytes: datagram, waited }: ReceivedDatagram<'_>,
        handler: &mut PacketHandler<'_>,
        out: &mut SendBuffer,
    ) {
        let kind = packet_kind(datagram);
        // The figures of quality must not include the time until the socket was read.
        let arrived = now.checked_sub(waited).unwrap_or(now);
        if let Some(mut transport) = self.transport.take_if(|_| kind != PacketKind::Other) {
            match kind {
                PacketKind::Rtp | PacketKind::Rtcp if !handler.inbound.quota.has_packets(now) => {
                    count_excess();
                }
                PacketKind::Rtp => {
                    if let Some(received) = transport.receive_rtp(arrived, datagram) {
                        self.last_valid = now;
                        handler.inbound.quota.count_packet();
                        handler.handle(now, &received);
                    }
                }
                PacketKind::Rtcp => {
                    if transport.receive_rtcp(arrived, datagram) {
                        self.last_valid = now;
                        handler.inbound.quota.count_packet();
                    }
                }
                PacketKind::Other => {}
            }
            self.transport = Some(transport);
            if self.last_valid == now && self.path == Some(from) {
                self.path_active_at = now;
            }
            return;
        }
        let Some(local) = self.local_addresses.for_peer(from.ip()) else { return };
        let Ok(received) = Receive::new(Protocol::Udp, from, local, datagram) else { return };
        let stun_kind = stun::classify(datagram);
        if stun_kind != stun::Kind::NotStun {
            self.last_valid = now;
            self.follow_nomination(now, from, datagram, out);
        }
        if let stun::Kind::Response(id) = stun_kind
            && self.path_checks.take(from, id)
        {
            // str0m does not know the check.
            self.follow_answer(now, from, datagram);
            return;
        }
        if let (stun::Kind::Response(_), Some(checks)) = (stun_kind, &mut self.checks) {
            checks.note_response(from);
        }
        self.trial = None;
        if let Some(ssrc) = rtp_ssrc(kind, datagram).filter(|s| !self.ssrcs.contains(s)) {
            if !self.connected {
                return;
            }
            // An SSRC that the SDP does not announce is accepted only with an authentic packet. If
            // this packet is not authentic, the stream is removed again below.
            self.rtc.direct_api().expect_stream_rx(ssrc.into(), None, self.mid, None);
            self.trial = Some(ssrc);
        }
        // Invalid input is ignored. If it ended the instance, `poll` reports that.
        let _ = self.rtc.handle_input(Input::Receive(now, received));
        self.poll(now, handler, out);
        if let Some(ssrc) = self.trial.take() {
            self.rtc.direct_api().remove_stream_rx(ssrc.into());
        }
    }

    /// Checks another address of the peer if it nominates one and the old path is silent. Only the
    /// side that sends checks nominates. Some peers nominate every path they have, and str0m leaves
    /// a path only after 15 s.
    fn follow_nomination(
        &mut self,
        now: Instant,
        from: SocketAddr,
        stun: &[u8],
        out: &mut SendBuffer,
    ) {
        if self.path == Some(from) {
            self.path_active_at = now;
        } else if !self.controlling
            && self.transport.is_some()
            && self.is_path_silent(now)
            && stun::is_nomination(stun)
            && !self.path_checks.is_pending(now, from)
        {
            tracing::debug!("peer nominated another address");
            let ours = self.rtc.direct_api().local_ice_credentials().ufrag;
            let user = format!("{}:{ours}", self.remote_ufrag);
            if let Some((id, check)) = stun::controlled_check(&user, &self.remote_pwd) {
                out.push(from, &check);
                self.path_checks.begin(now, from, id, check);
            }
        }
    }

    /// Follows the peer to an address that has answered our check, which proves that it is there.
    fn follow_answer(&mut self, now: Instant, from: SocketAddr, response: &[u8]) {
        if self.is_path_silent(now) && stun::is_success(response) {
            tracing::debug!("peer followed to another address");
            self.path = Some(from);
            self.path_active_at = now;
        }
    }

    fn is_path_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.path_active_at) >= PATH_SILENT
    }

    /// Sends an RTP packet. Returns `false` if it could not be sent.
    pub(super) fn send(&mut self, packet: OutgoingPacket<'_>, out: &mut SendBuffer) -> bool {
        match (&mut self.transport, self.path) {
            (Some(transport), Some(to)) => transport.send(to, packet, out),
            (Some(_), None) => false,
            (None, _) => {
                let OutgoingPacket { payload_type, marker, sequence, timestamp, payload, at } =
                    packet;
                let write =
                    RtpWrite::new(payload_type.into(), sequence.into(), timestamp, at, payload)
                        .marker(marker);
                let stream = self
                    .rtc
                    .direct_api()
                    .stream_tx_by_mid(self.mid, None)
                    .map(|s| s.write_rtp(write));
                stream.is_some()
            }
        }
    }

    /// Performs the periodic work of an open leg: reports, quality figures, and str0m's timers.
    /// Without a transport, str0m runs at every tick, so that it sends its pending packet.
    pub(super) fn maintain(
        &mut self,
        now: Instant,
        handler: &mut PacketHandler<'_>,
        out: &mut SendBuffer,
    ) {
        if let (Some(transport), Some(to)) = (&mut self.transport, self.path) {
            if let Some(quality) = transport.tick(now, to, out) {
                handler.reporter.report_quality(&quality);
            }
            if now < self.wake {
                return;
            }
        }
        self.drive(now, handler, out);
    }

    /// Performs the periodic work of a leg that is not open: str0m's timers, and retransmission of
    /// checks.
    pub(super) fn connect(
        &mut self,
        now: Instant,
        handler: &mut PacketHandler<'_>,
        out: &mut SendBuffer,
    ) {
        if now >= self.wake {
            self.drive(now, handler, out);
        }
        if let Some((to, check)) =
            self.checks.as_mut().and_then(|checks| checks.next_copy(now, self.wake))
        {
            out.push(to, check);
        }
    }

    /// Sends RTCP BYE and DTLS close_notify.
    pub(super) fn send_goodbye(
        &mut self,
        now: Instant,
        handler: &mut PacketHandler<'_>,
        out: &mut SendBuffer,
    ) {
        if let (Some(transport), Some(to)) = (&mut self.transport, self.path) {
            let quality = transport.send_bye(now, to, out);
            handler.reporter.report_quality(&quality);
        }
        if self.connected && self.rtc.close().is_ok() {
            self.drive(now, handler, out);
        }
    }

    /// Sends due copies of our own checks, advances str0m's time and processes its output.
    fn drive(&mut self, now: Instant, handler: &mut PacketHandler<'_>, out: &mut SendBuffer) {
        while let Some((to, check)) = self.path_checks.next_copy(now) {
            out.push(to, check);
        }
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.poll(now, handler, out);
    }

    fn poll(&mut self, now: Instant, handler: &mut PacketHandler<'_>, out: &mut SendBuffer) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(wake)) => {
                    self.wake = self.path_checks.due().map_or(wake, |due| due.min(wake));
                    return;
                }
                Ok(Output::Transmit(t)) => {
                    let is_rtp =
                        self.transport.is_some() && packet_kind(&t.contents) != PacketKind::Other;
                    if !is_rtp {
                        // The handshake proves the peer's address. Afterwards, DTLS may go to one
                        // that is only nominated, which `follow_nomination` checks.
                        if self.transport.is_none()
                            && stun::classify(&t.contents) == stun::Kind::NotStun
                        {
                            self.path = Some(t.destination);
                        }
                        if let Some(checks) = &mut self.checks {
                            checks.note_sent(now, t.destination, &t.contents);
                        }
                        out.push(t.destination, &t.contents);
                    }
                }
                Ok(Output::Event(event)) => self.on_event(now, event, handler),
                Err(error) => {
                    if !self.rtc.is_alive() {
                        self.fail(&error, handler);
                    }
                    return;
                }
            }
        }
    }

    fn on_event(&mut self, now: Instant, event: Event, handler: &mut PacketHandler<'_>) {
        match event {
            Event::IceConnectionStateChange(state) if state.is_connected() && !self.ice_up => {
                self.ice_up = true;
                handler.reporter.report(LegEvent::Media(MediaEvent::IceUp));
                if self.dtls_client && self.rtc.direct_api().start_dtls(true).is_err() {
                    handler.reporter.fail(MediaFault::DtlsFailed);
                }
            }
            // Our checks were not answered for 30 s. If the peer sends the checks, the media
            // timeout detects this.
            Event::IceConnectionStateChange(state)
                if state.is_disconnected() && self.connected && self.controlling =>
            {
                handler.reporter.fail(MediaFault::Silent);
            }
            Event::Connected => {
                self.connected = true;
                self.checks = None;
                self.last_valid = now;
                self.start_transport(now);
                handler.reporter.report(LegEvent::Media(MediaEvent::Connected));
            }
            // ICE has selected another pair. No other output of str0m contains the new address. A
            // nomination by the peer is followed earlier.
            Event::PeerStats(stats) if self.controlling && self.transport.is_some() => {
                if let Some(pair) = stats.selected_candidate_pair {
                    self.path = Some(pair.remote.addr);
                }
            }
            Event::RtpPacket(packet) => self.on_agent_packet(now, &packet, handler),
            // An authentic sender report. str0m has no replay window for SRTCP, so a repeated or
            // older report does not prove that the peer is alive.
            Event::SenderFeedback(report) => {
                let sent = Some(report.sender_info.ntp_time);
                if sent > self.last_report {
                    self.last_report = sent;
                    self.last_valid = now;
                }
            }
            Event::Closed => handler.reporter.fail(MediaFault::DtlsClosed),
            _ => {}
        }
    }

    /// Takes over the RTP from str0m before the first packet. If there are no usable keys, str0m
    /// keeps it.
    fn start_transport(&mut self, now: Instant) {
        let (then, wall) = self.epoch;
        let config = TransportConfig {
            ssrc: self.ssrc,
            cname: std::mem::take(&mut self.cname),
            opus_pt: self.opus_pt,
            now,
            wall: wall.plus(now.saturating_duration_since(then)),
        };
        self.transport =
            self.keys.take().and_then(|keys| Transport::new(&keys, config)).map(Box::new);
        if self.transport.is_none() {
            enable_rtp(&mut self.rtc, self.mid, self.ssrc, self.ssrcs.iter().copied());
        }
    }

    /// Processes a packet that str0m has authenticated and checked for replay.
    fn on_agent_packet(
        &mut self,
        now: Instant,
        packet: &RtpPacket,
        handler: &mut PacketHandler<'_>,
    ) {
        let ssrc = *packet.header.ssrc;
        if self.trial.take_if(|trial| *trial == ssrc).is_some() {
            if self.ssrcs.len() == SSRCS_MAX
                && let Some(oldest) = self.ssrcs.pop_front()
            {
                self.rtc.direct_api().remove_stream_rx(oldest.into());
            }
            self.ssrcs.push_back(ssrc);
        }
        let received = ReceivedPacket {
            payload_type: *packet.header.payload_type,
            ssrc,
            sequence: *packet.seq_no,
            timestamp: packet.header.timestamp,
            payload: &packet.payload,
        };
        self.last_valid = now;
        handler.handle(now, &received);
    }

    /// Reports the error that ended the str0m instance.
    fn fail(&self, error: &RtcError, handler: &mut PacketHandler<'_>) {
        let RtcError::RemoteSdp(_) = error else {
            return handler.reporter.fail(MediaFault::DtlsFailed);
        };
        let (missing, waited) = (MissingStep::Fingerprint, Duration::ZERO);
        let checking = self.controlling;
        handler.reporter.report(LegEvent::NoAudio { missing, waited, checking });
        handler.reporter.fail(MediaFault::Fingerprint);
    }

    /// Makes str0m carry the RTP, as if there were no usable keys.
    #[cfg(test)]
    pub(super) fn disable_transport(&mut self) {
        self.keys = crate::dtls::KeyCell::default();
    }
}

fn rtp_ssrc(kind: PacketKind, datagram: &[u8]) -> Option<u32> {
    let ssrc = datagram.get(8..12)?.try_into().ok()?;
    (kind == PacketKind::Rtp).then(|| u32::from_be_bytes(ssrc))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::leg::inbound::Inbound;
    use crate::leg::reporter::Reporter;
    use crate::srtp::{Keys, Profile};
    use crate::tap::Taps;
    use crate::test_peer::{Peer, PeerOptions, now};

    fn transport(client: bool, now: Instant) -> Transport {
        let keys = Keys::new(Profile::Aes128Gcm, &[7; 56], client).expect("keys");
        let (ssrc, cname) = (5 + u32::from(client), "name".to_owned());
        let wall = Timestamp::from_secs(1_000);
        let config = TransportConfig { ssrc, cname, opus_pt: 111, now, wall };
        Transport::new(&keys, config).expect("a transport")
    }

    fn network(now: Instant) -> Network {
        let ours = ice::Credentials {
            ufrag: "a-ufrag".to_owned(),
            pwd: "a-password-of-24-letters".to_owned(),
            ssrc: 5,
            cname: "name".to_owned(),
        };
        let offer = Peer::new(&PeerOptions::default()).offer();
        let identity = Identity::new().expect("an identity");
        let v4 = "127.0.0.1:9".parse().ok();
        let local_addresses = LocalAddresses { v4, v6: None };
        let agent = ice::new_agent(&identity, &offer, local_addresses, &ours, true, now);
        let agent = agent.expect("an agent");
        let mut network = Network::new(NetworkConfig {
            rtc: agent.rtc,
            mid: agent.mid,
            keys: agent.keys,
            cname: ours.cname,
            ssrc: ours.ssrc,
            remote_ssrc: None,
            opus_pt: 111,
            local_addresses,
            pwd: ours.pwd,
            remote_ufrag: offer.ufrag,
            remote_pwd: offer.pwd,
            controlling: true,
            dtls_client: true,
            now,
            wall: Timestamp::from_secs(1_000),
        });
        network.transport = Some(Box::new(transport(false, now)));
        network
    }

    #[test]
    fn r19_reports_count_as_packets_of_the_peer() {
        let now = now();
        let (mut network, mut peer) = (network(now), transport(true, now));
        let mut inbound = Inbound::new(111, vec![], false, None);
        let mut reporter = Reporter::new(Arc::new(|_| ()), Arc::default());
        let mut taps = Taps::default();
        let from = "127.0.0.1:8".parse().expect("address");
        let mut receive = |network: &mut Network, at: Instant, sent: &SendBuffer| {
            let (inbound, reporter) = (&mut inbound, &mut reporter);
            let mut handler = PacketHandler { inbound, reporter, taps: &mut taps, bridge: None };
            for (_, bytes) in sent.iter() {
                let datagram = ReceivedDatagram { from, bytes, waited: Duration::ZERO };
                network.receive(at, datagram, &mut handler, &mut SendBuffer::default());
            }
            reporter.packets_received()
        };
        let mut reports = SendBuffer::default();
        for _ in 0..1_000 {
            peer.send_bye(now, from, &mut reports);
        }
        receive(&mut network, now, &reports);
        for (ms, heard) in [(999, 0), (1_000, 1)] {
            let at = now + Duration::from_millis(ms);
            let packet = OutgoingPacket {
                payload_type: 111,
                marker: false,
                sequence: ms,
                timestamp: 7,
                payload: &[0x48, 1, 2],
                at,
            };
            let mut sent = SendBuffer::default();
            assert!(peer.send(from, packet, &mut sent));
            assert_eq!(receive(&mut network, at, &sent), heard, "after {ms} ms");
        }
    }
}
