//! A leg's WebRTC agent as we want it from str0m: one audio stream, the offer's payload types, our own timing.
//!
//! str0m reads no SDP here: what the offer said comes from `sdp`, and str0m is told it directly, so that nothing is
//! negotiated twice and both readings are one. The [`Identity`] is made once a process.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use str0m::config::{CryptoProvider, DtlsCert, Fingerprint};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Frequency, MediaKind, Mid};
use str0m::rtp::ExtensionMap;
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

use super::MediaError;
use super::dtls::{Keyring, with_keyring};
use super::sdp::{Offer, Setup};

/// Checks begin 50 ms apart and double to 5 s (`meta-calling.md` §5.3), where consent checks stay (RFC 7675); copies between
/// them are `leg/checks.rs`'s.
const CHECK_FIRST: Duration = Duration::from_millis(50);
const CHECK_LAST: Duration = Duration::from_secs(5);
/// Twelve unanswered checks take 31 s: consent is then lost for the 30 s that end a call (R12), and a candidate
/// that never answers has cost 12 packets, copies apart (R19 allows 30).
const CHECKS_UNANSWERED_MAX: usize = 12;

/// How soon a leg knows that ICE has found its peer somewhere else.
const STATS: Duration = Duration::from_secs(1);

/// The certificate that all legs of the process share, and the crypto it is used with.
pub(super) struct Identity {
    crypto: Arc<CryptoProvider>,
    cert: DtlsCert,
    /// SHA-256 of the certificate: what our SDP says.
    pub(super) fingerprint: [u8; 32],
}

impl Identity {
    /// Makes the certificate: ECDSA P-256, self-signed.
    pub(super) fn new() -> Result<Self, MediaError> {
        let crypto = super::dtls::crypto();
        let cert = crypto.dtls_provider.generate_certificate().ok_or(MediaError::Certificate)?;
        let fingerprint = crypto.sha256_provider.sha256(&cert.certificate);
        Ok(Self { crypto: Arc::new(crypto), cert, fingerprint })
    }
}

/// Where packets of one port are said to arrive, whatever public address they were sent to: str0m knows one
/// candidate per address family, so that it pairs and checks each candidate of the peer once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Homes {
    pub(super) v4: Option<SocketAddr>,
    pub(super) v6: Option<SocketAddr>,
}

impl Homes {
    /// The first of `public` in each family.
    pub(super) fn of(public: &[SocketAddr]) -> Self {
        Self {
            v4: public.iter().find(|a| a.is_ipv4()).copied(),
            v6: public.iter().find(|a| a.is_ipv6()).copied(),
        }
    }

    /// The home for a peer's address family.
    pub(super) fn towards(&self, peer: IpAddr) -> Option<SocketAddr> {
        if peer.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// An agent, ready for the shard.
pub(super) struct Agent {
    pub(super) rtc: Rtc,
    pub(super) mid: Mid,
    /// Where the keys will be that DTLS agrees on.
    pub(super) keys: Keyring,
}

/// Our credentials of one leg.
pub(super) struct Credentials {
    pub(super) ufrag: String,
    pub(super) pwd: String,
    pub(super) ssrc: u32,
    /// Of our RTCP.
    pub(super) cname: String,
}

/// Makes the agent that talks to the peer of this offer, or of this answer to our own. About a millisecond of CPU.
///
/// `controlling`: we send the checks and nominate, which a lite peer never does (A2).
pub(super) fn towards(
    identity: &Identity,
    offer: &Offer,
    homes: Homes,
    ours: &Credentials,
    controlling: bool,
    now: Instant,
) -> Result<Agent, MediaError> {
    let mut config = RtcConfig::new()
        .set_crypto_provider(identity.crypto.clone())
        .set_dtls_cert(identity.cert.clone())
        .set_local_ice_credentials(IceCreds { ufrag: ours.ufrag.clone(), pass: ours.pwd.clone() })
        // Where we do not check, we may be lite ourselves, which saves packets.
        .set_ice_lite(!controlling)
        .set_rtp_mode(true)
        .clear_codecs()
        // None: with transport-cc str0m would send 17 feedback packets a second.
        .set_extension_map(ExtensionMap::empty())
        .set_send_buffer_audio(4)
        // For where ICE has the peer (`leg/path.rs`): it tells in no other way.
        .set_stats_interval(controlling.then_some(STATS));
    config.set_initial_stun_rto(CHECK_FIRST);
    config.set_max_stun_rto(CHECK_LAST);
    config.set_max_stun_retransmits(CHECKS_UNANSWERED_MAX);
    let codecs = config.codec_config();
    let opus = FormatParams::parse_line("minptime=20;useinbandfec=1");
    codecs.add_config(
        offer.opus_pt.into(),
        None,
        Codec::Opus,
        Frequency::FORTY_EIGHT_KHZ,
        Some(2),
        opus,
    );
    for digits in &offer.telephone_events {
        let clock =
            if digits.clock == 8_000 { Frequency::EIGHT_KHZ } else { Frequency::FORTY_EIGHT_KHZ };
        codecs.add_config(
            digits.pt.into(),
            None,
            Codec::Tele,
            clock,
            None,
            FormatParams::parse_line("0-15"),
        );
    }

    let (mut rtc, keys) = with_keyring(|| config.build(now));
    for home in [homes.v4, homes.v6].into_iter().flatten() {
        rtc.add_local_candidate(Candidate::host(home, "udp").map_err(|_| MediaError::NoAddress)?);
    }
    // Before the remote candidates: pair priorities depend on the role.
    let mut api = rtc.direct_api();
    api.set_ice_controlling(controlling);
    api.set_remote_ice_credentials(IceCreds {
        ufrag: offer.ufrag.clone(),
        pass: offer.pwd.clone(),
    });
    api.set_remote_fingerprint(Fingerprint {
        hash_func: "sha-256".to_owned(),
        bytes: offer.fingerprint.to_vec(),
    });
    if offer.setup.answered() == Setup::Passive {
        // As the client we begin once ICE has a path; as the server we must be ready before.
        api.start_dtls(false).map_err(|_| MediaError::Certificate)?;
    }
    for peer in &offer.candidates {
        let line = format!(
            "candidate:1 1 udp {} {} {} typ host",
            peer.priority,
            peer.addr.ip(),
            peer.addr.port()
        );
        if let Ok(candidate) = Candidate::from_sdp_string(&line) {
            rtc.add_remote_candidate(candidate);
        }
    }
    Ok(Agent { rtc, mid: Mid::from("0"), keys })
}

/// Has the agent carry the leg's RTP: `ssrc` is ours, `peers` are those that are known of the other side. Its streams
/// are 20 KiB, and their reports work at every tick, so that a leg whose RTP is its own has none.
pub(super) fn carry_rtp(rtc: &mut Rtc, mid: Mid, ssrc: u32, peers: impl IntoIterator<Item = u32>) {
    let mut api = rtc.direct_api();
    api.declare_media(mid, MediaKind::Audio);
    // No NACK for audio: nothing is kept for a retransmission.
    api.declare_stream_tx(ssrc.into(), None, mid, None).set_rtx_cache(0, Duration::ZERO, None);
    for peer in peers {
        api.expect_stream_rx(peer.into(), None, mid, None);
    }
}
