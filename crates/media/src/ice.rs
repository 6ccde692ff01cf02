//! The str0m instance of a leg, which provides ICE and DTLS: one audio stream, the payload types of
//! the offer, and shorter retransmission timers.
//!
//! str0m parses no SDP here. `sdp` parses the offer, and its values are passed to str0m directly,
//! so that there is a single interpretation of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use str0m::config::{CryptoProvider, DtlsCert, Fingerprint};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Frequency, MediaKind, Mid};
use str0m::rtp::ExtensionMap;
use str0m::{Candidate, IceCreds, Rtc, RtcConfig};

use super::MediaError;
use super::dtls::{KeyCell, with_key_cell};
use super::sdp::{Offer, Setup};

/// Retransmission timeouts of ICE checks, from 50 ms doubling to 5 s. The last one is also the
/// interval of consent checks (RFC 7675). `leg/checks.rs` sends further copies in between.
const CHECK_RTO_INITIAL: Duration = Duration::from_millis(50);
const CHECK_RTO_MAX: Duration = Duration::from_secs(5);
/// Number of retransmissions of an ICE check. Twelve unanswered checks take 31 s. Then consent is
/// lost, and the leg ends because nothing valid arrived for 30 s. A candidate that never answers
/// costs 12 packets, plus copies.
const CHECK_RETRANSMITS_MAX: usize = 12;

/// Interval at which str0m reports the selected candidate pair.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// The DTLS certificate that all legs of a process share, with its crypto provider.
pub(super) struct Identity {
    crypto: Arc<CryptoProvider>,
    cert: DtlsCert,
    /// The SHA-256 hash of the certificate, for our SDP.
    pub(super) fingerprint: [u8; 32],
}

impl Identity {
    /// Creates a self-signed ECDSA P-256 certificate.
    pub(super) fn new() -> Result<Self, MediaError> {
        let crypto = super::dtls::crypto();
        let cert = crypto.dtls_provider.generate_certificate().ok_or(MediaError::Certificate)?;
        Ok(Self::with(crypto, cert))
    }

    fn with(crypto: CryptoProvider, cert: DtlsCert) -> Self {
        let fingerprint = crypto.sha256_provider.sha256(&cert.certificate);
        Self { crypto: Arc::new(crypto), cert, fingerprint }
    }

    pub(super) fn snapshot(&self) -> IdentityState {
        let DtlsCert { certificate, private_key } = self.cert.clone();
        IdentityState { certificate, private_key }
    }

    /// Creates the identity of another process.
    pub(super) fn restore(state: IdentityState) -> Self {
        let IdentityState { certificate, private_key } = state;
        Self::with(super::dtls::crypto(), DtlsCert { certificate, private_key })
    }
}

/// The state of an [`Identity`] in a snapshot. Both parts are in DER format.
#[derive(Serialize, Deserialize)]
pub(super) struct IdentityState {
    certificate: Vec<u8>,
    private_key: Vec<u8>,
}

/// The local addresses that str0m knows for one port: one candidate per address family, regardless
/// of the public address that a packet was sent to. With more, str0m would pair and check each
/// candidate of the peer several times.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct LocalAddresses {
    pub(super) v4: Option<SocketAddr>,
    pub(super) v6: Option<SocketAddr>,
}

impl LocalAddresses {
    /// Takes the first address of each family.
    pub(super) fn first_per_family(public: &[SocketAddr]) -> Self {
        Self {
            v4: public.iter().find(|a| a.is_ipv4()).copied(),
            v6: public.iter().find(|a| a.is_ipv6()).copied(),
        }
    }

    /// Returns the local address for packets of this peer. `None` if there is none of its family.
    pub(super) fn for_peer(&self, peer: IpAddr) -> Option<SocketAddr> {
        if peer.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// A configured str0m instance.
pub(super) struct IceAgent {
    pub(super) rtc: Box<Rtc>,
    pub(super) mid: Mid,
    /// Receives the SRTP keys when the DTLS handshake is complete.
    pub(super) keys: KeyCell,
}

/// Our credentials for one leg.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Credentials {
    pub(super) ufrag: String,
    pub(super) pwd: String,
    pub(super) ssrc: u32,
    /// Name of this leg in RTCP reports.
    pub(super) cname: String,
}

/// Creates the instance that talks to the peer of `offer`, which may also be the answer to our own
/// offer. Takes about a millisecond of CPU time.
///
/// With `controlling`, this side sends the checks and nominates, which a lite peer never does.
pub(super) fn new_agent(
    identity: &Identity,
    offer: &Offer,
    local_addresses: LocalAddresses,
    ours: &Credentials,
    controlling: bool,
    now: Instant,
) -> Result<IceAgent, MediaError> {
    let mut config = config(identity, &ours.ufrag, &ours.pwd, controlling);
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
    for event in &offer.telephone_events {
        let clock =
            if event.clock == 8_000 { Frequency::EIGHT_KHZ } else { Frequency::FORTY_EIGHT_KHZ };
        codecs.add_config(
            event.pt.into(),
            None,
            Codec::Tele,
            clock,
            None,
            FormatParams::parse_line("0-15"),
        );
    }
    let remote = (offer.ufrag.clone(), offer.pwd.clone());
    let mut agent = build(config, local_addresses, remote, controlling, now)?;
    let mut api = agent.rtc.direct_api();
    api.set_remote_fingerprint(Fingerprint {
        hash_func: "sha-256".to_owned(),
        bytes: offer.fingerprint.to_vec(),
    });
    if offer.setup.answer_role() == Setup::Passive {
        // A client starts when ICE has found a path. A server must be ready before.
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
            agent.rtc.add_remote_candidate(candidate);
        }
    }
    Ok(agent)
}

/// Creates the instance of a leg that was connected in another process, with the same credentials.
/// It answers requests, and with `controlling` it checks the address `path` and nothing else. DTLS
/// is not started, so str0m ignores its packets.
pub(super) fn resumed_agent(
    identity: &Identity,
    local_addresses: LocalAddresses,
    (ufrag, pwd): (&str, &str),
    remote: (String, String),
    controlling: bool,
    path: SocketAddr,
    now: Instant,
) -> Result<IceAgent, MediaError> {
    let config = config(identity, ufrag, pwd, controlling);
    let mut agent = build(config, local_addresses, remote, controlling, now)?;
    if controlling {
        let candidate = Candidate::host(path, "udp").map_err(|_| MediaError::NoAddress)?;
        agent.rtc.add_remote_candidate(candidate);
    }
    Ok(agent)
}

/// Returns the settings that all instances have in common.
fn config(identity: &Identity, ufrag: &str, pwd: &str, controlling: bool) -> RtcConfig {
    let mut config = RtcConfig::new()
        .set_crypto_provider(identity.crypto.clone())
        .set_dtls_cert(identity.cert.clone())
        .set_local_ice_credentials(IceCreds { ufrag: ufrag.to_owned(), pass: pwd.to_owned() })
        // A leg that sends no checks can be ICE-lite, which saves packets.
        .set_ice_lite(!controlling)
        .set_rtp_mode(true)
        .clear_codecs()
        // RTP extensions are disabled, because with transport-cc str0m would send 17 feedback
        // packets a second.
        .set_extension_map(ExtensionMap::empty())
        .set_send_buffer_audio(4)
        // The statistics are the only way in which str0m reports the selected pair, from which
        // `leg/network.rs` learns the peer's address.
        .set_stats_interval(controlling.then_some(STATS_INTERVAL));
    config.set_initial_stun_rto(CHECK_RTO_INITIAL);
    config.set_max_stun_rto(CHECK_RTO_MAX);
    config.set_max_stun_retransmits(CHECK_RETRANSMITS_MAX);
    config
}

/// Creates an instance with its local candidates, its role and the peer's credentials. The role
/// must be set before remote candidates are added, because pair priorities depend on it.
fn build(
    config: RtcConfig,
    local_addresses: LocalAddresses,
    (ufrag, pass): (String, String),
    controlling: bool,
    now: Instant,
) -> Result<IceAgent, MediaError> {
    let (mut rtc, keys) = with_key_cell(|| Box::new(config.build(now)));
    for address in [local_addresses.v4, local_addresses.v6].into_iter().flatten() {
        rtc.add_local_candidate(
            Candidate::host(address, "udp").map_err(|_| MediaError::NoAddress)?,
        );
    }
    let mut api = rtc.direct_api();
    api.set_ice_controlling(controlling);
    api.set_remote_ice_credentials(IceCreds { ufrag, pass });
    Ok(IceAgent { rtc, mid: Mid::from("0"), keys })
}

/// Makes str0m carry the leg's RTP. `ssrc` is ours; `peers` are the known SSRCs of the peer.
/// Streams take 20 KiB and CPU time at every tick, so a leg with a `Transport` has none.
pub(super) fn enable_rtp(rtc: &mut Rtc, mid: Mid, ssrc: u32, peers: impl IntoIterator<Item = u32>) {
    let mut api = rtc.direct_api();
    api.declare_media(mid, MediaKind::Audio);
    // Audio is not retransmitted, so no packets are kept.
    api.declare_stream_tx(ssrc.into(), None, mid, None).set_rtx_cache(0, Duration::ZERO, None);
    for peer in peers {
        api.expect_stream_rx(peer.into(), None, mid, None);
    }
}
