//! Parses offers: lines, levels, and the first usable audio section.

use std::net::{IpAddr, SocketAddr};

use super::{
    CANDIDATES_MAX, Direction, OFFER_BYTES_MAX, Offer, OfferError, RemoteCandidate, SECTIONS_MAX,
    Section, Setup, TelephoneEvent, UFRAG_MAX,
};

/// Maximum length of a mid, protocol or media token that the answer repeats. It keeps the answer
/// below 8 KiB.
const TOKEN_MAX: usize = 64;
/// Maximum number of payload types kept per section.
const FORMATS_MAX: usize = 64;
/// Maximum number of `telephone-event` payload types. Meta offers one rate, Chromium two.
const TELEPHONE_EVENTS_MAX: usize = 2;

/// The lines of one level. If an attribute is repeated, the first one counts.
#[derive(Clone, Copy)]
struct Level<'a>(&'a [&'a str]);

impl<'a> Level<'a> {
    fn attributes(self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter_map(move |l| l.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
    }

    fn attribute(self, name: &'a str) -> Option<&'a str> {
        self.attributes(name).next()
    }

    fn has(self, flag: &str) -> bool {
        self.0.iter().any(|l| l.strip_prefix("a=").is_some_and(|a| a.trim() == flag))
    }
}

/// The sender of the offer.
#[derive(Clone, Copy)]
pub(super) enum Sender {
    Meta {
        allow_loopback: bool,
    },
    /// An endpoint's phone. Unless it is ICE-lite, it sends the checks, so its addresses do not
    /// matter.
    Phone,
}

pub(super) fn offer(text: &str, from: Sender) -> Result<Offer, OfferError> {
    if text.len() > OFFER_BYTES_MAX {
        return Err(OfferError::TooLong);
    }
    if text.trim().is_empty() {
        return Err(OfferError::Empty);
    }
    if text.bytes().any(|b| b < 0x20 && b != b'\r' && b != b'\n') {
        return Err(OfferError::ControlCharacter);
    }
    let lines: Vec<&str> = text.split(['\r', '\n']).filter(|l| !l.is_empty()).collect();
    if lines.first().map(|l| l.trim_end()) != Some("v=0") {
        return Err(OfferError::NotSdp);
    }

    let mut levels = lines.chunk_by(|_, next| !next.starts_with("m="));
    let session = Level(levels.next().unwrap_or_default());
    let media: Vec<Level<'_>> = levels.map(Level).collect();
    if media.len() > SECTIONS_MAX {
        return Err(OfferError::TooManySections);
    }
    // Meta states ICE-lite at session level. At media level it has the same meaning.
    let ice_lite = session.has("ice-lite") || media.iter().any(|m| m.has("ice-lite"));
    let mut sections = media.iter().map(|m| section(*m)).collect::<Result<Vec<_>, _>>()?;

    let mut first_error = OfferError::NoAudio;
    for (index, (level, section)) in media.iter().zip(&sections).enumerate() {
        if section.media != "audio" {
            continue;
        }
        match audio(*level, session, section, ice_lite, from) {
            Ok(audio) => {
                for (other, refused) in sections.iter_mut().enumerate() {
                    if other != index {
                        refused.formats.truncate(1);
                    }
                }
                return Ok(Offer {
                    audio: index,
                    sections,
                    redacted: super::redacted(text).into(),
                    ..audio
                });
            }
            // Report the fault of the first audio section.
            Err(error) if first_error == OfferError::NoAudio => first_error = error,
            Err(_) => {}
        }
    }
    Err(first_error)
}

/// Parses the `m=` line and the mid of a section.
fn section(level: Level<'_>) -> Result<Section, OfferError> {
    let line = level.0.first().and_then(|l| l.strip_prefix("m=")).unwrap_or_default();
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let media = words.next().unwrap_or_default();
    let _port = words.next();
    let proto = words.next().unwrap_or_default();
    let mid = level.attribute("mid").filter(|m| !m.is_empty()).map(str::to_owned);
    if [&media, &proto].into_iter().chain(&mid).any(|t| t.len() > TOKEN_MAX) {
        return Err(OfferError::OverlongToken);
    }
    let formats = words.filter(|f| f.len() <= TOKEN_MAX).take(FORMATS_MAX).collect();
    Ok(Section { media, proto, formats, mid })
}

/// Parses an audio section together with session-level attributes. The caller sets `audio` and
/// `sections`.
fn audio(
    level: Level<'_>,
    session: Level<'_>,
    section: &Section,
    ice_lite: bool,
    from: Sender,
) -> Result<Offer, OfferError> {
    let attribute = |name: &'static str| level.attribute(name).or_else(|| session.attribute(name));

    let port = level.0.first().and_then(|l| l.split_ascii_whitespace().nth(1)).unwrap_or_default();
    // The grammar allows `port/count`.
    if port.split('/').next().and_then(|p| p.parse::<u16>().ok()).unwrap_or_default() == 0 {
        return Err(OfferError::PortZero);
    }
    let proto = section.proto.to_ascii_uppercase();
    if !proto.contains("RTP/") || proto.starts_with("TCP/") {
        return Err(OfferError::Transport);
    }

    let ufrag = attribute("ice-ufrag").filter(|u| is_credential(u, 4)).ok_or(OfferError::Ufrag)?;
    if ufrag.len() > UFRAG_MAX {
        return Err(OfferError::OverlongUfrag);
    }
    let pwd = attribute("ice-pwd").filter(|p| is_credential(p, 22)).ok_or(OfferError::Pwd)?;
    let fingerprint = level
        .attributes("fingerprint")
        .chain(session.attributes("fingerprint"))
        .find_map(sha256)
        .ok_or_else(|| match attribute("fingerprint") {
            None if attribute("crypto").is_some() => OfferError::NoDtls,
            _ => OfferError::Fingerprint,
        })?;
    let setup = attribute("setup").and_then(setup).ok_or(OfferError::Setup)?;
    if !level.has("rtcp-mux") && !session.has("rtcp-mux") {
        return Err(OfferError::RtcpMux);
    }

    let codecs = || {
        level.attributes("rtpmap").filter_map(|map| {
            let (pt, codec) = map.split_once(' ')?;
            let offered = section.formats.iter().any(|f| f == pt);
            let pt = pt.parse::<u8>().ok().filter(|pt| *pt <= 127 && offered)?;
            let mut parts = codec.trim().split('/');
            Some((pt, parts.next()?, parts.next()?.parse::<u32>().ok()?))
        })
    };
    let opus_pt = codecs()
        .find(|(_, name, clock)| name.eq_ignore_ascii_case("opus") && *clock == 48_000)
        .ok_or(OfferError::NoOpus)?
        .0;
    let mut telephone_events: Vec<TelephoneEvent> = Vec::new();
    for (pt, name, clock) in codecs() {
        let new = pt != opus_pt && telephone_events.iter().all(|t| t.pt != pt && t.clock != clock);
        if name.eq_ignore_ascii_case("telephone-event")
            && matches!(clock, 8_000 | 48_000)
            && new
            && telephone_events.len() < TELEPHONE_EVENTS_MAX
        {
            telephone_events.push(TelephoneEvent { pt, clock });
        }
    }

    // This side sends no checks to a peer that sends them itself, so any address is harmless.
    let (allow_loopback, may_lack_candidates) = match from {
        Sender::Meta { allow_loopback } => (allow_loopback, false),
        Sender::Phone => (!ice_lite, true),
    };
    let (candidates, has_mdns) = candidates(level.attributes("candidate"), allow_loopback);
    // A browser hides its addresses behind mDNS names until the microphone is allowed. It sends the
    // checks.
    if candidates.is_empty() && (ice_lite || !(has_mdns || may_lack_candidates)) {
        return Err(OfferError::NoCandidate);
    }

    let number = |name: &'static str| {
        attribute(name).and_then(|v| v.split_ascii_whitespace().next()?.parse::<u32>().ok())
    };
    Ok(Offer {
        ice_lite,
        ufrag: ufrag.to_owned(),
        pwd: pwd.to_owned(),
        fingerprint,
        setup,
        candidates,
        opus_pt,
        telephone_events,
        ssrc: number("ssrc"),
        ptime: number("ptime").filter(|ms| (1..=1_000).contains(ms)).unwrap_or(20),
        mid: section.mid.clone(),
        direction: direction(level).or_else(|| direction(session)).unwrap_or(Direction::SendRecv),
        audio: 0,
        sections: Vec::new(),
        redacted: "".into(),
    })
}

/// Whether the text has a valid length and consists of printable ASCII characters. These include
/// all characters of ICE. A colon is not allowed, because it would break the USERNAME of STUN.
fn is_credential(text: &str, min: usize) -> bool {
    (min..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && b != b':')
}

fn setup(word: &str) -> Option<Setup> {
    [Setup::Actpass, Setup::Active, Setup::Passive]
        .into_iter()
        .find(|s| word.eq_ignore_ascii_case(s.as_str()))
}

fn direction(level: Level<'_>) -> Option<Direction> {
    level.0.iter().find_map(|l| match l.strip_prefix("a=")?.trim() {
        "sendrecv" => Some(Direction::SendRecv),
        "sendonly" => Some(Direction::SendOnly),
        "recvonly" => Some(Direction::RecvOnly),
        "inactive" => Some(Direction::Inactive),
        _ => None,
    })
}

/// Parses `sha-256 AB:CD:…` into 32 bytes, in either letter case. Returns `None` if the value is
/// invalid.
pub(super) fn sha256(value: &str) -> Option<[u8; 32]> {
    let (hash, hex) = value.split_once(' ')?;
    if !hash.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let mut bytes = [0; 32];
    let mut pairs = hex.trim().split(':');
    for byte in &mut bytes {
        let pair =
            pairs.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    pairs.next().is_none().then_some(bytes)
}

/// Returns the usable addresses, and whether there were mDNS names among the other ones.
fn candidates<'a>(
    lines: impl Iterator<Item = &'a str>,
    allow_loopback: bool,
) -> (Vec<RemoteCandidate>, bool) {
    let mut candidates: Vec<RemoteCandidate> = Vec::new();
    let mut has_mdns = false;
    for line in lines {
        // The words are: foundation, component, transport, priority, address, port, "typ", type,
        // then extensions.
        let words: Vec<&str> = line.split_ascii_whitespace().take(6).collect();
        let [_, component, transport, priority, address, port] = words.as_slice() else { continue };
        let (Ok(port), Ok(priority)) = (port.parse::<u16>(), priority.parse::<u32>()) else {
            continue;
        };
        if *component != "1" || !transport.eq_ignore_ascii_case("udp") || port == 0 {
            continue;
        }
        let Ok(ip) = address.parse::<IpAddr>() else {
            has_mdns |= address.ends_with(".local");
            continue;
        };
        let ip = ip.to_canonical();
        let addr = SocketAddr::new(ip, port);
        if is_usable(ip, allow_loopback)
            && candidates.len() < CANDIDATES_MAX
            && candidates.iter().all(|c| c.addr != addr)
        {
            candidates.push(RemoteCandidate { addr, priority });
        }
    }
    (candidates, has_mdns)
}

fn is_usable(ip: IpAddr, allow_loopback: bool) -> bool {
    if ip.is_unspecified() || ip.is_multicast() || (ip.is_loopback() && !allow_loopback) {
        return false;
    }
    match ip {
        IpAddr::V4(v4) => !v4.is_link_local() && !v4.is_broadcast() && v4.octets()[0] != 0,
        IpAddr::V6(v6) => !v6.is_unicast_link_local(),
    }
}
