//! A peer for tests: str0m over loopback UDP, as Meta's ICE-lite relay or as a browser.
//!
//! [`pump`] runs peers until a condition holds, without sleeping, and panics at its deadline. A
//! peer without a socket is part of a simulated network (`network_tests`).

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::config::Fingerprint;
use str0m::crypto::from_feature_flags;
use str0m::format::{Codec, FormatParams};
use str0m::media::{Frequency, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionMap, RtpWrite};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};

use super::sdp::{Offer, Setup};
use super::shared_paths;
use super::stun::{self, Kind};
use model::Clock;

/// Deadline of a test, sufficient for a heavily loaded machine.
const DEADLINE: Duration = Duration::from_secs(20);
/// Read timeout of a socket.
const READ_TIMEOUT: Duration = Duration::from_millis(1);

/// Properties of a peer.
#[derive(Clone, Debug)]
pub struct PeerOptions {
    pub lite: bool,
    pub setup: Setup,
    pub telephone_events: Vec<(u8, u32)>,
    /// Whether the offer announces the SSRC.
    pub announce_ssrc: bool,
}

impl Default for PeerOptions {
    fn default() -> Self {
        Self {
            lite: true,
            setup: Setup::Actpass,
            telephone_events: vec![(126, 8_000)],
            announce_ssrc: true,
        }
    }
}

/// A received RTP packet.
#[derive(Clone, Debug)]
pub struct PeerPacket {
    pub pt: u8,
    pub ssrc: u32,
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    pub payload: Vec<u8>,
    pub at: Instant,
}

/// A simulated peer.
pub struct Peer {
    pub rtc: Rtc,
    pub socket: Option<Arc<UdpSocket>>,
    /// Datagrams to send.
    pub out: Vec<(SocketAddr, Vec<u8>)>,
    pub addr: SocketAddr,
    /// Our address according to the answer.
    pub remote: Option<SocketAddr>,
    pub answer: Option<Offer>,
    pub received: Vec<PeerPacket>,
    pub connected: bool,
    pub closed: bool,
    /// Time of our last check.
    checked_at: Option<Instant>,
    pub ssrc: u32,
    pub sequence: u64,
    pub timestamp: u32,
    clock: Clock,
    setup: Setup,
    offer: String,
    wake: Instant,
    mid: Mid,
}

pub fn now() -> Instant {
    Clock::real().now()
}

/// Creates a socket for a peer.
pub fn socket(at: &str) -> Arc<UdpSocket> {
    let socket = UdpSocket::bind(at).expect("bind");
    socket.set_read_timeout(Some(READ_TIMEOUT)).expect("timeout");
    Arc::new(socket)
}

impl Peer {
    pub fn new(options: &PeerOptions) -> Self {
        Self::at(options, socket("127.0.0.1:0"))
    }

    pub fn at(options: &PeerOptions, socket: Arc<UdpSocket>) -> Self {
        let addr = socket.local_addr().expect("address");
        Self { socket: Some(socket), ..Self::simulated(options, addr, Clock::real()) }
    }

    pub fn simulated(options: &PeerOptions, addr: SocketAddr, clock: Clock) -> Self {
        let now = clock.now();
        let mut config = RtcConfig::new()
            .set_crypto_provider(Arc::new(from_feature_flags()))
            .set_ice_lite(options.lite)
            .set_rtp_mode(true)
            .clear_codecs()
            .set_extension_map(ExtensionMap::empty());
        let codecs = config.codec_config();
        let no_params = || FormatParams::parse_line("");
        codecs.add_config(
            111.into(),
            None,
            Codec::Opus,
            Frequency::FORTY_EIGHT_KHZ,
            Some(2),
            no_params(),
        );
        for (pt, clock) in &options.telephone_events {
            let clock =
                if *clock == 8_000 { Frequency::EIGHT_KHZ } else { Frequency::FORTY_EIGHT_KHZ };
            codecs.add_config((*pt).into(), None, Codec::Tele, clock, None, no_params());
        }
        let mut rtc = config.build(now);
        rtc.add_local_candidate(Candidate::host(addr, "udp").expect("candidate"));
        let mid = Mid::from("0");
        let ssrc = 0x1234_5678;
        let mut api = rtc.direct_api();
        // The offerer controls, unless it is ICE-lite.
        api.set_ice_controlling(!options.lite);
        api.declare_media(mid, MediaKind::Audio);
        api.declare_stream_tx(ssrc.into(), None, mid, None);
        let IceCreds { ufrag, pass } = api.local_ice_credentials();
        let hex: Vec<String> =
            api.local_dtls_fingerprint().bytes.iter().map(|b| format!("{b:02X}")).collect();

        let mut lines =
            vec!["v=0".to_owned(), "o=- 1 2 IN IP4 127.0.0.1".to_owned(), "s=-".to_owned()];
        lines.extend(["t=0 0".to_owned(), "a=group:BUNDLE audio".to_owned()]);
        lines.extend(options.lite.then(|| "a=ice-lite".to_owned()));
        let formats: String =
            options.telephone_events.iter().map(|(pt, _)| format!(" {pt}")).collect();
        lines.push(format!("m=audio {} UDP/TLS/RTP/SAVPF 111{formats}", addr.port()));
        lines.push(format!(
            "a=candidate:1 1 udp 2113937151 {} {} typ host",
            addr.ip(),
            addr.port()
        ));
        lines.extend([format!("a=ice-ufrag:{ufrag}"), format!("a=ice-pwd:{pass}")]);
        lines.push(format!("a=fingerprint:sha-256 {}", hex.join(":")));
        lines.push(format!("a=setup:{}", options.setup.as_str()));
        lines.extend(
            ["a=mid:audio", "a=sendrecv", "a=rtcp-mux", "a=rtpmap:111 opus/48000/2"]
                .map(str::to_owned),
        );
        lines.extend(
            options
                .telephone_events
                .iter()
                .map(|(pt, c)| format!("a=rtpmap:{pt} telephone-event/{c}")),
        );
        lines.extend(options.announce_ssrc.then(|| format!("a=ssrc:{ssrc} cname:x")));
        Self {
            rtc,
            socket: None,
            out: Vec::new(),
            clock,
            addr,
            remote: None,
            answer: None,
            received: Vec::new(),
            connected: false,
            closed: false,
            checked_at: None,
            ssrc,
            sequence: 1,
            timestamp: 7_000,
            setup: options.setup,
            offer: lines.join("\r\n") + "\r\n",
            wake: now,
            mid,
        }
    }

    pub fn offer_text(&self) -> String {
        self.offer.clone()
    }

    pub fn offer(&self) -> Offer {
        Offer::parse(&self.offer, true).expect("a usable offer")
    }

    /// Applies our answer, as `pre_accept` delivers it, or our offer.
    pub fn accept(&mut self, answer: &str) {
        let answer = Offer::parse(answer, true).expect("a readable answer");
        let client = match (self.setup, answer.setup) {
            (Setup::Actpass | Setup::Passive, Setup::Active | Setup::Actpass) => false,
            (Setup::Active, Setup::Passive) => true,
            other => panic!("setup {other:?}"),
        };
        let mut api = self.rtc.direct_api();
        api.set_remote_ice_credentials(IceCreds {
            ufrag: answer.ufrag.clone(),
            pass: answer.pwd.clone(),
        });
        api.set_remote_fingerprint(Fingerprint {
            hash_func: "sha-256".into(),
            bytes: answer.fingerprint.into(),
        });
        api.expect_stream_rx(answer.ssrc.expect("our SSRC").into(), None, self.mid, None);
        api.start_dtls(client).expect("DTLS");
        let remote = answer.candidates.first().expect("our address").addr;
        self.rtc.add_remote_candidate(Candidate::host(remote, "udp").expect("candidate"));
        self.remote = Some(remote);
        self.answer = Some(answer);
    }

    /// Sends a packet of 20 ms.
    pub fn send_audio(&mut self, payload: &[u8]) {
        self.timestamp = self.timestamp.wrapping_add(960);
        self.send(111, self.timestamp, false, payload);
    }

    pub fn send(&mut self, pt: u8, timestamp: u32, marker: bool, payload: &[u8]) {
        let now = self.clock.now();
        let write =
            RtpWrite::new(pt.into(), self.sequence.into(), timestamp, now, payload.to_vec())
                .marker(marker);
        self.sequence += 1;
        let ssrc = self.ssrc.into();
        self.rtc.direct_api().stream_tx(&ssrc).expect("stream").write_rtp(write);
        self.drive();
    }

    /// Changes the SSRC without announcing it.
    pub fn change_ssrc(&mut self, ssrc: u32) {
        let mut api = self.rtc.direct_api();
        api.remove_stream_tx(self.ssrc.into());
        api.declare_stream_tx(ssrc.into(), None, self.mid, None);
        self.ssrc = ssrc;
        self.sequence = 500;
    }

    pub fn close(&mut self) {
        self.rtc.close().expect("close");
        self.drive();
    }

    fn drive(&mut self) {
        let now = self.clock.now();
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.poll(now);
    }

    /// Runs due timers.
    pub fn run_timers(&mut self) {
        if self.wake <= self.clock.now() {
            self.drive();
        }
    }

    pub fn receive(&mut self, from: SocketAddr, datagram: &[u8]) {
        let now = self.clock.now();
        if let Ok(input) = Receive::new(Protocol::Udp, from, self.addr, datagram) {
            let _ = self.rtc.handle_input(Input::Receive(now, input));
            self.poll(now);
        }
    }

    fn poll(&mut self, now: Instant) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(wake)) => {
                    self.wake = wake;
                    return;
                }
                Ok(Output::Transmit(t)) => {
                    self.out.push((t.destination, t.contents.to_vec()));
                }
                Ok(Output::Event(Event::Connected)) => self.connected = true,
                Ok(Output::Event(Event::Closed)) => self.closed = true,
                Ok(Output::Event(Event::RtpPacket(p))) => self.received.push(PeerPacket {
                    pt: *p.header.payload_type,
                    ssrc: *p.header.ssrc,
                    sequence: p.header.sequence_number,
                    timestamp: p.header.timestamp,
                    marker: p.header.marker,
                    payload: p.payload.to_vec(),
                    at: now,
                }),
                Ok(Output::Event(_)) => {}
                Err(_) => return,
            }
        }
    }
}

/// Runs peers until `done` returns true. Peers that share a socket are distinguished by our
/// address, as at a relay.
pub fn pump(peers: &mut [Peer], what: &str, mut done: impl FnMut(&mut [Peer]) -> bool) {
    let deadline = now() + DEADLINE;
    while !done(peers) {
        assert!(now() < deadline, "timed out waiting for: {what}");
        step(peers);
    }
}

/// Runs peers for this long.
pub fn pump_for(peers: &mut [Peer], time: Duration) {
    let end = now() + time;
    while now() < end {
        step(peers);
    }
}

fn step(peers: &mut [Peer]) {
    let mut buf = [0; 2_048];
    for n in 0..peers.len() {
        let Some(socket) = peers[n].socket.clone() else { continue };
        for (to, datagram) in peers[n].out.drain(..) {
            socket.send_to(&datagram, to).expect("send");
        }
        match socket.recv_from(&mut buf) {
            Ok((length, from)) => {
                let is_addressed = |p: &Peer| {
                    p.remote == Some(from)
                        && p.socket.as_ref().is_some_and(|s| Arc::ptr_eq(s, &socket))
                };
                if let Some(peer) = addressee(
                    peers.iter_mut().filter(|p| is_addressed(p)).collect(),
                    &buf[..length],
                ) {
                    peer.receive(from, &buf[..length]);
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => panic!("receive: {e}"),
        }
        peers[n].run_timers();
    }
}

/// Finds the receiver among peers that also share our address: by ufrag, by our SSRC, and during a
/// handshake by the latest check. Returns `None` if there is none.
fn addressee<'a>(mut peers: Vec<&'a mut Peer>, datagram: &[u8]) -> Option<&'a mut Peer> {
    if peers.len() < 2 {
        return peers.pop();
    }
    if let Kind::Request { ufrag } = stun::classify(datagram) {
        let peer = peers.into_iter().find(|p| p.offer().ufrag == ufrag)?;
        peer.checked_at = Some(now());
        return Some(peer);
    }
    match shared_paths::sender_ssrc(datagram) {
        Some(ssrc) => {
            peers.into_iter().find(|p| p.answer.as_ref().is_some_and(|a| a.ssrc == Some(ssrc)))
        }
        None => peers.into_iter().filter(|p| !p.connected).max_by_key(|p| p.checked_at),
    }
}
