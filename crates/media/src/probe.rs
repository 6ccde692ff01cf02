//! Feeds datagrams to a leg as if STUN had verified their source, for fuzzing. This tests the input
//! of an authenticated peer, not the shard's filter (docs/reference/reliability.md#r25).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use str0m::crypto::dtls::{DtlsOutput, DtlsVersion};

use super::leg::{Counters, LegCommand};
use super::sdp::Offer;
use super::send_buffer::SendBuffer;
use super::sockets::ReceivedDatagram;
use super::{LegEvent, Media, MediaConfig};
use machine::MediaEvent;
use model::Clock;
use model::Timestamp;

const LOCAL: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const PEER: ([u8; 4], u16) = ([10, 0, 0, 2], 3_480);
/// The offer of a peer that can be the DTLS client or server. The key of its certificate is
/// unknown.
const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 10.0.0.2\r\ns=-\r\nt=0 0\r\na=group:BUNDLE audio\r\na=ice-lite\r\n\
    m=audio 3480 UDP/TLS/RTP/SAVPF 111 126\r\na=candidate:1 1 udp 2113937151 10.0.0.2 3480 typ host\r\n\
    a=ice-ufrag:ufraglong\r\na=ice-pwd:a-password-of-twenty-four\r\na=fingerprint:sha-256 FINGERPRINT\r\n\
    a=setup:SETUP\r\na=mid:audio\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
    a=rtpmap:126 telephone-event/8000\r\na=ssrc:305419896 cname:x\r\n";

/// Creates legs and feeds them datagrams.
pub struct Probe {
    media: Arc<Media>,
    clock: Mutex<Clock>,
    offers: [Offer; 2],
}

/// The reaction of a leg to the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The number of bytes sent in response to datagrams, without those sent by timers.
    pub bytes_sent: usize,
    /// Whether the leg connected, that is, accepted the peer as that of the offer.
    pub connected: bool,
    /// The number of events that the leg reported.
    pub events: usize,
}

impl Probe {
    /// Starts a media path on a loopback port that receives nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the media path cannot be started.
    pub fn new() -> std::io::Result<Self> {
        let clock = Clock::stepped(Timestamp::default());
        let config = MediaConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            max_ports: 1,
            turn: None,
            public_ips: Vec::new(),
            shards: 1,
            media_dead: Duration::from_secs(30),
            loopback_offers: false,
            inherited: Vec::new(),
        };
        let media = Media::start(config, clock.clone())?;
        let offer = |setup: &str| {
            let text = OFFER.replace("SETUP", setup).replace("FINGERPRINT", &["AB"; 32].join(":"));
            Offer::parse(&text, false).map_err(std::io::Error::other)
        };
        Ok(Self { media, clock: Mutex::new(clock), offers: [offer("actpass")?, offer("active")?] })
    }

    /// Feeds the datagrams to a new leg, 20 ms apart. `peer_begins` makes the peer the DTLS client.
    pub fn run<'a>(&self, peer_begins: bool, datagrams: impl Iterator<Item = &'a [u8]>) -> Outcome {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let (connected, events) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (is_connected, count) = (connected.clone(), events.clone());
        let sink = Arc::new(move |event| {
            count.fetch_add(1, Ordering::Relaxed);
            if event == LegEvent::Media(MediaEvent::Connected) {
                is_connected.store(true, Ordering::Relaxed);
            }
        });
        let [actpass_offer, active_offer] = &self.offers;
        let offer = if peer_begins { active_offer } else { actpass_offer };
        let made = self.media.prepare_answer(
            offer,
            &[SocketAddr::from(LOCAL)],
            sink,
            Arc::new(Counters::default()),
        );
        let Ok(mut made) = made else { return Outcome::default() };
        let (mut out, mut bytes_sent) = (SendBuffer::default(), 0);
        made.leg.execute(clock.now(), LegCommand::Begin, &mut out);
        made.leg.execute(clock.now(), LegCommand::Open, &mut out);
        let (from, waited) = (SocketAddr::from(PEER), Duration::ZERO);
        for bytes in datagrams {
            out.clear();
            made.leg.receive(clock.now(), ReceivedDatagram { from, bytes, waited }, &mut out);
            bytes_sent += out.iter().map(|(_, sent)| sent.len()).sum::<usize>();
            clock.step(Duration::from_millis(20));
            made.leg.tick(clock.now(), &mut out);
        }
        made.leg.execute(clock.now(), LegCommand::Close, &mut out);
        Outcome {
            bytes_sent,
            connected: connected.load(Ordering::Relaxed),
            events: events.load(Ordering::Relaxed),
        }
    }

    /// Returns the first flight of a DTLS client.
    pub fn first_flight(&self) -> Vec<Vec<u8>> {
        let provider = super::dtls::crypto().dtls_provider;
        let now = self.clock.lock().unwrap_or_else(PoisonError::into_inner).now();
        let client_dtls = provider
            .generate_certificate()
            .and_then(|cert| provider.new_dtls(&cert, now, DtlsVersion::Dtls12, Some(1_150)).ok());
        let Some(mut client) = client_dtls else { return Vec::new() };
        client.set_active(true);
        let _ = client.handle_timeout(now);
        let _ = client.handle_packet(&[]);
        let (mut buf, mut flight) = ([0; 2_048], Vec::new());
        loop {
            match client.poll_output(&mut buf) {
                DtlsOutput::Packet(packet) => flight.push(packet.to_vec()),
                DtlsOutput::Timeout(_) => return flight,
                _ => {}
            }
        }
    }
}
