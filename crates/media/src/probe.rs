//! For fuzzing only: feeds datagrams to a leg as if STUN had verified their source. This tests what
//! a peer can do, not what the shard keeps out (docs/reference/reliability.md#r25).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use str0m::crypto::dtls::{DtlsOutput, DtlsVersion};

use super::leg::{Counters, LegOrder};
use super::outbox::Outbox;
use super::sdp::Offer;
use super::{LegEvent, Media, MediaConfig};
use machine::MediaFact;
use model::Clock;
use model::Timestamp;

const OURS: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const THEIRS: ([u8; 4], u16) = ([10, 0, 0, 2], 3_480);
/// A peer that is the DTLS client or server. The key of its certificate is unknown.
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

/// What a leg did with the datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes sent in response to datagrams, timers excluded.
    pub answered: usize,
    /// Whether the leg connected, that is, accepted the peer as that of the offer.
    pub connected: bool,
    /// Number of events it reported.
    pub told: usize,
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

    /// Feeds the datagrams to a new leg, 20 ms apart. `peer_begins` makes the peer the DTLS client.
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
            if event == LegEvent::Fact(MediaFact::Connected) {
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

    /// Returns the first flight of a DTLS client.
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
