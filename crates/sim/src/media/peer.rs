//! A WebRTC peer, built on str0m: Meta's side of a call (ICE-lite, created from credentials) or the
//! end of a browser phone's connection (created from its offer). It does no I/O: datagrams go in,
//! datagrams and [`PeerEvent`]s come out.
//!
//! A *lightweight* peer, for load, sends and receives RTP with the media crate's `Transport` and
//! leaves only ICE and DTLS to str0m. Other peers use str0m for everything, so that the node's RTP
//! is also tested against an independent implementation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::change::SdpOffer;
use str0m::config::{CryptoProvider, DtlsCert, Fingerprint};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Frequency, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionMap, RtpWrite, Ssrc};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

use super::stun;
use media::packet::{self, KeyCell, with_key_cell};
use media::packet::{PacketKind, packet_kind};
use media::packet::{Transport, TransportConfig};
use model::Timestamp;

/// Maximum number of SSRCs that one call may use. A node uses one.
const SSRCS_MAX: usize = 8;
/// Maximum number of outputs that one call of str0m yields.
const OUTPUTS_MAX: usize = 256;

/// Certificate and crypto providers shared by all peers of the process.
#[derive(Clone)]
pub(crate) struct Identity {
    provider: Arc<CryptoProvider>,
    /// Like `provider`, but its DTLS exports the SRTP keys.
    key_export_provider: Arc<CryptoProvider>,
    cert: DtlsCert,
    /// SHA-256 fingerprint of the certificate, as `AB:CD:…`.
    pub(crate) fingerprint: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

/// Why a peer could not be created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("could not generate a certificate")]
    Certificate,
    #[error("the media address {0} cannot be a candidate")]
    Candidate(SocketAddr),
    #[error("could not apply the browser's offer: {0}")]
    Offer(String),
    #[error("could not start DTLS: {0}")]
    Dtls(String),
}

impl Identity {
    /// Generates a certificate. One serves the whole process.
    ///
    /// # Errors
    ///
    /// Fails if the crypto library returns none.
    pub(crate) fn new() -> Result<Self, PeerError> {
        let provider = str0m::crypto::from_feature_flags();
        let cert = provider.dtls_provider.generate_certificate().ok_or(PeerError::Certificate)?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &cert.certificate);
        let fingerprint =
            digest.as_ref().iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
        Ok(Self {
            provider: Arc::new(provider),
            key_export_provider: Arc::new(packet::crypto()),
            cert,
            fingerprint,
        })
    }

    fn config(&self, lightweight: bool) -> RtcConfig {
        RtcConfig::new()
            .set_crypto_provider(if lightweight {
                self.key_export_provider.clone()
            } else {
                self.provider.clone()
            })
            .set_dtls_cert(self.cert.clone())
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .clear_codecs()
            .set_extension_map(ExtensionMap::empty())
            .set_send_buffer_audio(8)
    }
}

/// Parameters of Meta's side of a call: its own from Meta's SDP, the remote ones from the node's
/// SDP.
#[derive(Clone, Debug)]
pub(crate) struct MetaLegParams {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) ssrc: u32,
    pub(crate) opus_pt: u8,
    pub(crate) digit_pt: Option<u8>,
    /// Whether this side is the DTLS client.
    pub(crate) dtls_active: bool,
    pub(crate) remote_ufrag: String,
    pub(crate) remote_pwd: String,
    pub(crate) remote_fingerprint: [u8; 32],
}

/// An event of a peer.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    /// ICE and DTLS are connected.
    Up,
    /// The other side has closed the connection (DTLS close_notify).
    Closed,
    /// The connection failed, with the reason.
    Failed(String),
    Packet {
        pt: u8,
        timestamp: u32,
        marker: bool,
        payload: Arc<[u8]>,
    },
}

/// A datagram to send.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// A WebRTC peer.
pub(crate) struct Peer {
    rtc: Rtc,
    local: SocketAddr,
    mid: Mid,
    opus_pt: u8,
    digit_pt: Option<u8>,
    seq: u64,
    ssrcs: Vec<u32>,
    /// Whether the remote SSRCs come from the SDP, so that unknown ones are ignored.
    ssrcs_fixed: bool,
    up: bool,
    ended: bool,
    /// When str0m wants to be polled next.
    wake: Instant,
    /// Remote address of DTLS, which is used for RTP as well.
    remote: Option<SocketAddr>,
    /// Receives the SRTP keys from DTLS, and the SSRC to use them with. Only set for a lightweight
    /// peer until it is connected.
    keys: Option<(KeyCell, u32)>,
    /// RTP transport of a connected lightweight peer. str0m then neither receives nor sends RTP,
    /// because the same packet index must not be encrypted twice under one key.
    pub(crate) transport: Option<Box<Transport>>,
    pub(crate) outgoing: Vec<Datagram>,
    pub(crate) events: Vec<PeerEvent>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("up", &self.up)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// Creates Meta's side of a call: ICE-lite and controlled. The remote certificate must match
    /// the fingerprint in `params`.
    ///
    /// # Errors
    ///
    /// Fails if the address cannot be a candidate or DTLS cannot start.
    pub(crate) fn meta(
        identity: &Identity,
        params: &MetaLegParams,
        lightweight: bool,
        local: SocketAddr,
        now: Instant,
    ) -> Result<Self, PeerError> {
        let mut config = identity.config(lightweight).set_local_ice_credentials(IceCreds {
            ufrag: params.ufrag.clone(),
            pass: params.pwd.clone(),
        });
        let opus = FormatParams::parse_line("minptime=20;useinbandfec=1");
        config.codec_config().add_config(
            params.opus_pt.into(),
            None,
            Codec::Opus,
            Frequency::FORTY_EIGHT_KHZ,
            Some(2),
            opus,
        );
        if let Some(pt) = params.digit_pt {
            add_digits(&mut config, pt, Frequency::EIGHT_KHZ);
        }
        let (mut rtc, keys) = with_key_cell(|| config.build(now));
        add_candidate(&mut rtc, local)?;
        let mid: Mid = "audio".into();
        let mut api = rtc.direct_api();
        api.declare_media(mid, MediaKind::Audio);
        api.set_remote_ice_credentials(IceCreds {
            ufrag: params.remote_ufrag.clone(),
            pass: params.remote_pwd.clone(),
        });
        api.set_remote_fingerprint(Fingerprint {
            hash_func: "sha-256".into(),
            bytes: params.remote_fingerprint.to_vec(),
        });
        api.set_ice_controlling(false);
        api.declare_stream_tx(params.ssrc.into(), None, mid, None).set_rtx_cache(
            0,
            Duration::ZERO,
            None,
        );
        api.start_dtls(params.dtls_active).map_err(|e| PeerError::Dtls(e.to_string()))?;
        let mut peer = Self::from_rtc(rtc, local, mid, params.opus_pt, params.digit_pt, now);
        peer.keys = lightweight.then_some((keys, params.ssrc));
        Ok(peer)
    }

    /// Creates the end of a browser's connection. Returns it with the SDP answer.
    ///
    /// # Errors
    ///
    /// Fails if the offer is unusable.
    pub(crate) fn browser(
        identity: &Identity,
        offer: &str,
        local: SocketAddr,
        now: Instant,
    ) -> Result<(Self, String), PeerError> {
        // Telephone events of the browser are not used: the page sends keys over HTTP, and Meta's
        // leg turns them into events.
        let mut rtc = identity.config(false).enable_opus(true, false).build(now);
        add_candidate(&mut rtc, local)?;
        let offer =
            SdpOffer::from_sdp_string(offer).map_err(|e| PeerError::Offer(e.to_string()))?;
        let answer =
            rtc.sdp_api().accept_offer(offer).map_err(|e| PeerError::Offer(e.to_string()))?;
        let answer = answer.to_sdp_string();
        let mid = answer.lines().find_map(|l| l.strip_prefix("a=mid:")).map(Mid::from);
        let mid = mid.ok_or_else(|| PeerError::Offer("it has no audio".into()))?;
        let mut peer = Self::from_rtc(rtc, local, mid, 111, None, now);
        peer.ssrcs_fixed = true;
        let pts: Vec<Pt> =
            peer.rtc.media(peer.mid).map(|m| m.remote_pts().to_vec()).unwrap_or_default();
        peer.opus_pt = peer
            .rtc
            .codec_config()
            .params()
            .iter()
            .find(|p| p.spec().codec == Codec::Opus && pts.contains(&p.pt()))
            .map(|p| *p.pt())
            .ok_or_else(|| PeerError::Offer("it has no Opus".into()))?;
        match peer.rtc.direct_api().stream_tx_by_mid(mid, None) {
            Some(stream) => stream.set_rtx_cache(0, Duration::ZERO, None),
            None => {
                return Err(PeerError::Offer("its audio must be a=sendrecv".into()));
            }
        }
        Ok((peer, answer))
    }

    fn from_rtc(
        rtc: Rtc,
        local: SocketAddr,
        mid: Mid,
        opus_pt: u8,
        digit_pt: Option<u8>,
        now: Instant,
    ) -> Self {
        Self {
            rtc,
            local,
            mid,
            opus_pt,
            digit_pt,
            seq: 1,
            ssrcs: Vec::new(),
            ssrcs_fixed: false,
            up: false,
            ended: false,
            wake: now,
            remote: None,
            keys: None,
            transport: None,
            outgoing: Vec::new(),
            events: Vec::new(),
        }
    }

    pub(crate) fn opus_pt(&self) -> u8 {
        self.opus_pt
    }

    pub(crate) fn digit_pt(&self) -> Option<u8> {
        self.digit_pt
    }

    pub(crate) fn is_up(&self) -> bool {
        self.up
    }

    pub(crate) fn local_ufrag(&mut self) -> String {
        self.rtc.direct_api().local_ice_credentials().ufrag
    }

    /// Processes a received datagram.
    pub(crate) fn receive(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        if self.ended {
            return;
        }
        self.expect_ssrc(bytes);
        let Ok(receive) = Receive::new(Protocol::Udp, from, self.local, bytes) else { return };
        if let Err(error) = self.rtc.handle_input(Input::Receive(now, receive)) {
            self.end(PeerEvent::Failed(error.to_string()));
        }
        self.process_output();
    }

    /// Advances the time.
    pub(crate) fn advance(&mut self, now: Instant) {
        // Without RTP to send, str0m has nothing to do before its timeout.
        if self.ended || (self.transport.is_some() && now < self.wake) {
            return;
        }
        self.drive(now);
    }

    fn drive(&mut self, now: Instant) {
        if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
            self.end(PeerEvent::Failed(error.to_string()));
        }
        self.process_output();
    }

    /// Sequence number and destination of the next packet that bypasses str0m.
    pub(crate) fn next_packet(&mut self) -> Option<(u64, SocketAddr)> {
        let to = self.remote?;
        let sequence = self.seq;
        self.seq += 1;
        Some((sequence, to))
    }

    /// The remote address of media.
    pub(crate) fn remote(&self) -> Option<SocketAddr> {
        self.remote
    }

    /// Lets a connected lightweight peer handle its RTP itself. Without usable keys, str0m keeps
    /// doing so.
    pub(crate) fn start_own_transport(&mut self, now: Instant, wall: Timestamp) {
        let Some((keys, ssrc)) = self.keys.take() else { return };
        let Some(keys) = keys.take() else { return };
        let making =
            TransportConfig { ssrc, cname: "meta".to_owned(), opus_pt: self.opus_pt, now, wall };
        self.transport = Transport::new(&keys, making).map(Box::new);
        if self.transport.is_some() {
            self.rtc.direct_api().remove_stream_tx(ssrc.into());
        }
    }

    /// Queues an RTP packet, which is sent by the next [`Peer::advance`].
    pub(crate) fn write(
        &mut self,
        now: Instant,
        pt: u8,
        timestamp: u32,
        marker: bool,
        payload: Arc<[u8]>,
    ) {
        if !self.up || self.ended {
            return;
        }
        let mid = self.mid;
        let seq = self.seq;
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, None) {
            self.seq += 1;
            stream.write_rtp(
                RtpWrite::new(pt.into(), seq.into(), timestamp, now, payload).marker(marker),
            );
        }
    }

    /// Continues the stream under another SSRC.
    pub(crate) fn change_ssrc(&mut self, ssrc: u32) {
        let mid = self.mid;
        self.rtc.direct_api().reset_stream_tx(mid, None, ssrc.into(), None);
    }

    /// Closes the connection with RTCP BYE and DTLS close_notify. The resulting datagrams are in
    /// `outgoing`.
    pub(crate) fn close(&mut self, now: Instant) {
        if !self.ended {
            let _ = self.rtc.close();
            self.drive(now);
        }
    }

    /// Announces an SSRC to str0m when its first packet arrives, because an SDP answer may lack
    /// `a=ssrc`.
    fn expect_ssrc(&mut self, bytes: &[u8]) {
        // RTP has version 2 and no payload type of RTCP (RFC 5761 §4).
        let is_rtp = bytes.first().is_some_and(|b| b >> 6 == 2)
            && bytes.get(1).is_some_and(|b| !(192..=223).contains(b));
        let Some(ssrc) = bytes.get(8..12).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
        else {
            return;
        };
        if self.ssrcs_fixed
            || !is_rtp
            || !self.up
            || self.ssrcs.contains(&ssrc)
            || self.ssrcs.len() >= SSRCS_MAX
        {
            return;
        }
        self.ssrcs.push(ssrc);
        let mid = self.mid;
        self.rtc.direct_api().expect_stream_rx(Ssrc::from(ssrc), None, mid, None);
    }

    fn end(&mut self, event: PeerEvent) {
        if !std::mem::replace(&mut self.ended, true) {
            self.events.push(event);
        }
    }

    fn process_output(&mut self) {
        let mut events = Vec::new();
        self.drain_output(|event| events.push(event));
        for event in events {
            match event {
                Event::Connected => {
                    self.up = true;
                    self.events.push(PeerEvent::Up);
                }
                Event::RtpPacket(packet) => self.events.push(PeerEvent::Packet {
                    pt: *packet.header.payload_type,
                    timestamp: packet.header.timestamp,
                    marker: packet.header.marker,
                    payload: packet.payload,
                }),
                Event::Closed => self.end(PeerEvent::Closed),
                _ => {}
            }
        }
        if !self.rtc.is_alive() {
            self.end(PeerEvent::Closed);
        }
    }

    fn drain_output(&mut self, mut on_event: impl FnMut(Event)) {
        for _ in 0..OUTPUTS_MAX {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(wake)) => {
                    self.wake = wake;
                    return;
                }
                Ok(Output::Transmit(t)) => {
                    let rtp = packet_kind(&t.contents) != PacketKind::Other;
                    if rtp && self.transport.is_some() {
                        continue;
                    }
                    if !stun::is_stun(&t.contents) {
                        self.remote = Some(t.destination);
                    }
                    self.outgoing.push(Datagram { to: t.destination, bytes: t.contents.to_vec() });
                }
                Ok(Output::Event(event)) => on_event(event),
                Err(error) => return self.end(PeerEvent::Failed(error.to_string())),
            }
        }
    }
}

fn add_digits(config: &mut RtcConfig, pt: u8, clock: Frequency) {
    config.codec_config().add_config(
        pt.into(),
        None,
        Codec::Tele,
        clock,
        None,
        FormatParams::parse_line("0-15"),
    );
}

fn add_candidate(rtc: &mut Rtc, local: SocketAddr) -> Result<(), PeerError> {
    let candidate = Candidate::host(local, "udp").map_err(|_| PeerError::Candidate(local))?;
    rtc.add_local_candidate(candidate).map(|_| ()).ok_or(PeerError::Candidate(local))
}
