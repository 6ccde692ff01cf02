//! One WebRTC peer of the simulator, over str0m: Meta's side of a call (ICE-lite, direct from credentials), or the end
//! of a browser phone's connection (from its offer). Sans-IO: datagrams in, datagrams and [`PeerEvent`]s out.
//!
//! A *light* peer, one of many, has its RTP past str0m as a node's leg has ([`Peer::own`]); that of any other is str0m's, so
//! that a node's own RTP meets somebody else's.

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

/// SSRCs that one call may bring; a node has one.
const SSRC_MAX: usize = 8;
/// Datagrams handed out by one drive.
const OUT_MAX: usize = 256;

/// What every peer of the process shares.
#[derive(Clone)]
pub(crate) struct Identity {
    provider: Arc<CryptoProvider>,
    /// The same, whose DTLS hands its keys out.
    keyed: Arc<CryptoProvider>,
    cert: DtlsCert,
    /// `AB:CD:…`, SHA-256 of the certificate.
    pub(crate) fingerprint: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.fingerprint)
    }
}

/// A peer could not be made or fed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("make a certificate")]
    Certificate,
    #[error("use the media address {0} as a candidate")]
    Candidate(SocketAddr),
    #[error("take the browser's offer: {0}")]
    Offer(String),
    #[error("start DTLS: {0}")]
    Dtls(String),
}

impl Identity {
    /// A fresh certificate (M4: once per process).
    ///
    /// # Errors
    /// The crypto library gave none.
    pub(crate) fn new() -> Result<Self, PeerError> {
        let provider = str0m::crypto::from_feature_flags();
        let cert = provider.dtls_provider.generate_certificate().ok_or(PeerError::Certificate)?;
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &cert.certificate);
        let fingerprint =
            digest.as_ref().iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
        Ok(Self {
            provider: Arc::new(provider),
            keyed: Arc::new(packet::crypto()),
            cert,
            fingerprint,
        })
    }

    fn config(&self, light: bool) -> RtcConfig {
        RtcConfig::new()
            .set_crypto_provider(if light { self.keyed.clone() } else { self.provider.clone() })
            .set_dtls_cert(self.cert.clone())
            .set_ice_lite(true)
            .set_rtp_mode(true)
            .clear_codecs()
            .set_extension_map(ExtensionMap::empty())
            .set_send_buffer_audio(8)
    }
}

/// What Meta's side of one call is made from: our offer's half and the answer's half.
#[derive(Clone, Debug)]
pub(crate) struct MetaSide {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) ssrc: u32,
    pub(crate) opus_pt: u8,
    pub(crate) digit_pt: Option<u8>,
    /// We are the DTLS client.
    pub(crate) dtls_active: bool,
    pub(crate) remote_ufrag: String,
    pub(crate) remote_pwd: String,
    pub(crate) remote_fingerprint: [u8; 32],
}

/// What a peer tells.
#[derive(Debug)]
pub(crate) enum PeerEvent {
    /// ICE and DTLS are up.
    Up,
    /// The other side closed in good order (DTLS close_notify).
    Closed,
    /// The path failed, for this reason.
    Gone(String),
    Packet {
        pt: u8,
        time: u32,
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

/// One peer.
pub(crate) struct Peer {
    rtc: Rtc,
    local: SocketAddr,
    mid: Mid,
    opus_pt: u8,
    digit_pt: Option<u8>,
    seq: u64,
    ssrcs: Vec<u32>,
    /// The SSRCs come from SDP; an unknown one is not taken.
    ssrcs_fixed: bool,
    up: bool,
    gone: bool,
    /// When the agent wants to be driven next.
    wake: Instant,
    /// Where the agent's DTLS goes, and so RTP.
    path: Option<SocketAddr>,
    /// Of a light peer, until DTLS has left its keys there.
    keys: Option<(KeyCell, u32)>,
    /// Its own RTP, once a light peer is up. The agent gets and sends none then: the same index under the same key twice
    /// would be a fault.
    pub(crate) own: Option<Box<Transport>>,
    pub(crate) out: Vec<Datagram>,
    pub(crate) events: Vec<PeerEvent>,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Peer")
            .field("up", &self.up)
            .field("gone", &self.gone)
            .finish_non_exhaustive()
    }
}

impl Peer {
    /// Meta's side: ICE-lite, controlled, its certificate and the answer's fingerprint checked (M5, M6).
    ///
    /// # Errors
    /// The address is no candidate, or DTLS can't start.
    pub(crate) fn meta(
        identity: &Identity,
        side: &MetaSide,
        light: bool,
        local: SocketAddr,
        now: Instant,
    ) -> Result<Self, PeerError> {
        let mut config = identity.config(light).set_local_ice_credentials(IceCreds {
            ufrag: side.ufrag.clone(),
            pass: side.pwd.clone(),
        });
        let opus = FormatParams::parse_line("minptime=20;useinbandfec=1");
        config.codec_config().add_config(
            side.opus_pt.into(),
            None,
            Codec::Opus,
            Frequency::FORTY_EIGHT_KHZ,
            Some(2),
            opus,
        );
        if let Some(pt) = side.digit_pt {
            add_digits(&mut config, pt, Frequency::EIGHT_KHZ);
        }
        let (mut rtc, keys) = with_key_cell(|| config.build(now));
        add_candidate(&mut rtc, local)?;
        let mid: Mid = "audio".into();
        let mut direct = rtc.direct_api();
        direct.declare_media(mid, MediaKind::Audio);
        direct.set_remote_ice_credentials(IceCreds {
            ufrag: side.remote_ufrag.clone(),
            pass: side.remote_pwd.clone(),
        });
        direct.set_remote_fingerprint(Fingerprint {
            hash_func: "sha-256".into(),
            bytes: side.remote_fingerprint.to_vec(),
        });
        direct.set_ice_controlling(false);
        direct.declare_stream_tx(side.ssrc.into(), None, mid, None).set_rtx_cache(
            0,
            Duration::ZERO,
            None,
        );
        direct.start_dtls(side.dtls_active).map_err(|e| PeerError::Dtls(e.to_string()))?;
        let mut peer = Self::of(rtc, local, mid, side.opus_pt, side.digit_pt, now);
        peer.keys = light.then_some((keys, side.ssrc));
        Ok(peer)
    }

    /// The end of a browser's connection, with the SDP answer for it.
    ///
    /// # Errors
    /// The offer is no usable one.
    pub(crate) fn browser(
        identity: &Identity,
        offer: &str,
        local: SocketAddr,
        now: Instant,
    ) -> Result<(Self, String), PeerError> {
        // The browser's own key events are not used: the page sends keys as messages, and the phone makes the events.
        let mut rtc = identity.config(false).enable_opus(true, false).build(now);
        add_candidate(&mut rtc, local)?;
        let offer =
            SdpOffer::from_sdp_string(offer).map_err(|e| PeerError::Offer(e.to_string()))?;
        let answer =
            rtc.sdp_api().accept_offer(offer).map_err(|e| PeerError::Offer(e.to_string()))?;
        let answer = answer.to_sdp_string();
        let mid = answer.lines().find_map(|l| l.strip_prefix("a=mid:")).map(Mid::from);
        let mid = mid.ok_or_else(|| PeerError::Offer("no audio in it".into()))?;
        let mut peer = Self::of(rtc, local, mid, 111, None, now);
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
            .ok_or_else(|| PeerError::Offer("no Opus in it".into()))?;
        match peer.rtc.direct_api().stream_tx_by_mid(mid, None) {
            Some(stream) => stream.set_rtx_cache(0, Duration::ZERO, None),
            None => {
                return Err(PeerError::Offer(
                    "the audio can't be sent to: a=sendrecv is needed".into(),
                ));
            }
        }
        Ok((peer, answer))
    }

    fn of(
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
            gone: false,
            wake: now,
            path: None,
            keys: None,
            own: None,
            out: Vec::new(),
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

    /// Takes in a datagram.
    pub(crate) fn receive(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        if self.gone {
            return;
        }
        self.expect_ssrc(bytes);
        let Ok(receive) = Receive::new(Protocol::Udp, from, self.local, bytes) else { return };
        if let Err(error) = self.rtc.handle_input(Input::Receive(now, receive)) {
            self.end(PeerEvent::Gone(error.to_string()));
        }
        self.pump();
    }

    /// Time has passed.
    pub(crate) fn pass(&mut self, now: Instant) {
        // Without RTP of its own to send, the agent has nothing to do before its time.
        if self.gone || (self.own.is_some() && now < self.wake) {
            return;
        }
        self.drive(now);
    }

    fn drive(&mut self, now: Instant) {
        if let Err(error) = self.rtc.handle_input(Input::Timeout(now)) {
            self.end(PeerEvent::Gone(error.to_string()));
        }
        self.pump();
    }

    /// The next packet's place in the stream, and where it goes, for RTP past the agent.
    pub(crate) fn next(&mut self) -> Option<(u64, SocketAddr)> {
        let to = self.path?;
        let sequence = self.seq;
        self.seq += 1;
        Some((sequence, to))
    }

    /// Where its packets go.
    pub(crate) fn path(&self) -> Option<SocketAddr> {
        self.path
    }

    /// A light peer that is up takes its RTP to itself. Without keys that are of use it stays the agent's.
    pub(crate) fn take_over(&mut self, now: Instant, wall: Timestamp) {
        let Some((keys, ssrc)) = self.keys.take() else { return };
        let Some(keys) = keys.take() else { return };
        let making =
            TransportConfig { ssrc, cname: "meta".to_owned(), opus_pt: self.opus_pt, now, wall };
        self.own = Transport::new(&keys, making).map(Box::new);
        if self.own.is_some() {
            self.rtc.direct_api().remove_stream_tx(ssrc.into());
        }
    }

    /// Queues an RTP packet; it goes out with the next [`Peer::pass`].
    pub(crate) fn write(
        &mut self,
        now: Instant,
        pt: u8,
        time: u32,
        marker: bool,
        payload: Arc<[u8]>,
    ) {
        if !self.up || self.gone {
            return;
        }
        let mid = self.mid;
        let seq = self.seq;
        if let Some(stream) = self.rtc.direct_api().stream_tx_by_mid(mid, None) {
            self.seq += 1;
            stream
                .write_rtp(RtpWrite::new(pt.into(), seq.into(), time, now, payload).marker(marker));
        }
    }

    /// Goes on under another SSRC (H6).
    pub(crate) fn change_ssrc(&mut self, ssrc: u32) {
        let mid = self.mid;
        self.rtc.direct_api().reset_stream_tx(mid, None, ssrc.into(), None);
    }

    /// Says goodbye (RTCP BYE, DTLS close_notify); what there is to send is in `out`.
    pub(crate) fn close(&mut self, now: Instant) {
        if !self.gone {
            let _ = self.rtc.close();
            self.drive(now);
        }
    }

    /// Meta's answerer may leave `a=ssrc` out of its answer: the first SSRCs that come are taken (§5.1).
    fn expect_ssrc(&mut self, bytes: &[u8]) {
        // RTP: version 2, and no RTCP packet type (RFC 5761 §4).
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
            || self.ssrcs.len() >= SSRC_MAX
        {
            return;
        }
        self.ssrcs.push(ssrc);
        let mid = self.mid;
        self.rtc.direct_api().expect_stream_rx(Ssrc::from(ssrc), None, mid, None);
    }

    fn end(&mut self, how: PeerEvent) {
        if !std::mem::replace(&mut self.gone, true) {
            self.events.push(how);
        }
    }

    fn pump(&mut self) {
        let mut told = Vec::new();
        self.drain(|event| told.push(event));
        for event in told {
            match event {
                Event::Connected => {
                    self.up = true;
                    self.events.push(PeerEvent::Up);
                }
                Event::RtpPacket(packet) => self.events.push(PeerEvent::Packet {
                    pt: *packet.header.payload_type,
                    time: packet.header.timestamp,
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

    fn drain(&mut self, mut told: impl FnMut(Event)) {
        for _ in 0..OUT_MAX {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(wake)) => {
                    self.wake = wake;
                    return;
                }
                Ok(Output::Transmit(t)) => {
                    let rtp = packet_kind(&t.contents) != PacketKind::Other;
                    if rtp && self.own.is_some() {
                        continue;
                    }
                    if !stun::is_stun(&t.contents) {
                        self.path = Some(t.destination);
                    }
                    self.out.push(Datagram { to: t.destination, bytes: t.contents.to_vec() });
                }
                Ok(Output::Event(event)) => told(event),
                Err(error) => return self.end(PeerEvent::Gone(error.to_string())),
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
