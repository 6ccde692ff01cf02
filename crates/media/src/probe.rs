//! For fuzzing alone (R25): a leg that takes any datagrams as its peer's, as though STUN had vouched for where they
//! come from. What the shard keeps off strangers is not tried here; what a peer itself may do is.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use str0m::crypto::dtls::{DtlsOutput, DtlsVersion};

use super::leg::{Counters, LegOrder};
use super::outbox::Outbox;
use super::sdp::Offer;
use super::{LegEvent, Media, MediaConfig};
use machine::MediaEvent;
use model::Clock;
use model::Timestamp;

const OURS: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const THEIRS: ([u8; 4], u16) = ([10, 0, 0, 2], 3_480);
/// A peer that is the DTLS client, or leaves it to us; nobody knows the key of its certificate.
const OFFER: &str = "v=0\r\no=- 1 2 IN IP4 10.0.0.2\r\ns=-\r\nt=0 0\r\na=group:BUNDLE audio\r\na=ice-lite\r\n\
    m=audio 3480 UDP/TLS/RTP/SAVPF 111 126\r\na=candidate:1 1 udp 2113937151 10.0.0.2 3480 typ host\r\n\
    a=ice-ufrag:ufraglong\r\na=ice-pwd:a-password-of-twenty-four\r\na=fingerprint:sha-256 FINGERPRINT\r\n\
    a=setup:SETUP\r\na=mid:audio\r\na=sendrecv\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
    a=rtpmap:126 telephone-event/8000\r\na=ssrc:305419896 cname:x\r\n";

/// Makes legs and hands them datagrams.
pub struct Probe {
    media: Arc<Media>,
    clock: Mutex<Clock>,
    offers: [Offer; 2],
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes sent because of a datagram, not of the time.
    pub answered: usize,
    /// It took the peer for the one of the offer.
    pub connected: bool,
    /// What it told its call, goodbye included.
    pub told: usize,
}

impl Probe {
    /// The media path on a port of the loopback that nothing is sent to.
    ///
    /// # Errors
    /// The system's, or an offer of ours that is none.
    pub fn new() -> std::io::Result<Self> {
        let clock = Clock::stepped(Timestamp::default());
        let config = MediaConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            max_ports: 1,
            public_ips: Vec::new(),
            shards: 1,
            media_dead: Duration::from_secs(30),
        };
        let media = Media::start(config, clock.clone())?;
        let offer = |setup: &str| {
            let text = OFFER.replace("SETUP", setup).replace("FINGERPRINT", &["AB"; 32].join(":"));
            Offer::parse(&text, false).map_err(std::io::Error::other)
        };
        Ok(Self { media, clock: Mutex::new(clock), offers: [offer("actpass")?, offer("active")?] })
    }

    /// Gives the datagrams to a fresh leg, 20 ms apart; `peer_begins` makes the peer the DTLS client.
    pub fn take<'a>(
        &self,
        peer_begins: bool,
        datagrams: impl Iterator<Item = &'a [u8]>,
    ) -> Outcome {
        let clock = self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let (connected, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (up, count) = (connected.clone(), told.clone());
        let sink = Arc::new(move |event| {
            count.fetch_add(1, Ordering::Relaxed);
            if event == LegEvent::Fact(MediaEvent::Connected) {
                up.store(true, Ordering::Relaxed);
            }
        });
        let [ours, theirs] = &self.offers;
        let offer = if peer_begins { theirs } else { ours };
        let made =
            self.media.make(offer, &[SocketAddr::from(OURS)], sink, Arc::new(Counters::default()));
        let Ok(mut made) = made else { return Outcome::default() };
        let (mut out, mut answered) = (Outbox::default(), 0);
        made.leg.order(clock.now(), LegOrder::Begin, &mut out);
        made.leg.order(clock.now(), LegOrder::Open, &mut out);
        for datagram in datagrams {
            out.clear();
            made.leg.receive(clock.now(), SocketAddr::from(THEIRS), datagram, &mut out);
            answered += out.iter().map(|(_, sent)| sent.len()).sum::<usize>();
            clock.step(Duration::from_millis(20));
            made.leg.tick(clock.now(), &mut out);
        }
        made.leg.order(clock.now(), LegOrder::Close, &mut out);
        Outcome {
            answered,
            connected: connected.load(Ordering::Relaxed),
            told: told.load(Ordering::Relaxed),
        }
    }

    /// How a DTLS client begins.
    pub fn first_flight(&self) -> Vec<Vec<u8>> {
        let provider = super::dtls::crypto().dtls_provider;
        let now = self.clock.lock().unwrap_or_else(PoisonError::into_inner).now();
        let begun = provider
            .generate_certificate()
            .and_then(|cert| provider.new_dtls(&cert, now, DtlsVersion::Dtls12, Some(1_150)).ok());
        let Some(mut client) = begun else { return Vec::new() };
        client.set_active(true);
        let _ = client.handle_timeout(now);
        let _ = client.handle_packet(&[]);
        let (mut room, mut flight) = ([0; 2_048], Vec::new());
        loop {
            match client.poll_output(&mut room) {
                DtlsOutput::Packet(packet) => flight.push(packet.to_vec()),
                DtlsOutput::Timeout(_) => return flight,
                _ => {}
            }
        }
    }
}
