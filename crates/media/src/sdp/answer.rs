//! Writes the SDP of this side line by line: the answer to an offer, or an offer
//! (docs/reference/meta.md#offhooks-answer).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::{Direction, Offer, Setup, TelephoneEvent};

/// The local parameters of one leg.
#[derive(Clone, Copy)]
pub struct LocalDescription<'a> {
    /// Our addresses, best first. The list must not be empty. At most 8 are written.
    pub candidates: &'a [SocketAddr],
    pub ufrag: &'a str,
    pub pwd: &'a str,
    pub fingerprint: &'a [u8; 32],
    pub ssrc: u32,
    pub cname: &'a str,
    pub stream: &'a str,
    pub track: &'a str,
    /// Session id, below 2^62 (RFC 8829 §5.2.1).
    pub session: u64,
    /// Whether to answer as an ICE-lite agent. Only allowed if the offer is not ICE-lite.
    pub ice_lite: bool,
}

/// Maximum number of candidates in our SDP.
const CANDIDATES_MAX: usize = 8;
/// Format parameters of our Opus.
const OPUS_FORMAT: &str = "minptime=20;useinbandfec=1;maxplaybackrate=16000;stereo=0";

struct Lines(String);

impl Lines {
    fn write_line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{line}\r\n");
    }
}

pub(super) fn answer(offer: &Offer, local: &LocalDescription<'_>) -> String {
    let mut out = Lines(String::with_capacity(1_024));
    let first_address = session(&mut out, local, offer.mid.as_deref());
    for (index, section) in offer.sections.iter().enumerate() {
        if index == offer.audio {
            audio(&mut out, offer, local, first_address);
            continue;
        }
        let format = section.formats.first().map_or("0", String::as_str);
        out.write_line(format_args!("m={} 0 {} {format}", section.media, section.proto));
        out.write_line(format_args!("c=IN IP4 0.0.0.0"));
        if let Some(mid) = &section.mid {
            out.write_line(format_args!("a=mid:{mid}"));
        }
        out.write_line(format_args!("a=inactive"));
    }
    out.0
}

/// The payload types of our offers. They are those of Meta's own offers, to avoid unusual values.
const OPUS_PT: u8 = 111;
const TELEPHONE_EVENT: TelephoneEvent = TelephoneEvent { pt: 126, clock: 8_000 };

/// Writes our offer. Meta answers it by webhook as an ICE-lite agent. This side is never ICE-lite.
pub(super) fn offer(local: &LocalDescription<'_>) -> String {
    let mut out = Lines(String::with_capacity(1_024));
    let first_address = session(&mut out, local, Some(MID));
    let audio = Audio {
        proto: "UDP/TLS/RTP/SAVPF",
        formats: &format!("{OPUS_PT} {}", TELEPHONE_EVENT.pt),
        setup: Setup::Actpass,
        mid: Some(MID),
        direction: Direction::SendRecv,
        opus_pt: OPUS_PT,
        telephone_events: &[TELEPHONE_EVENT],
    };
    audio.write(&mut out, local, first_address);
    out.0
}

/// The mid of our offers, as in Meta's.
const MID: &str = "audio";

/// Writes the session-level lines. Returns our first address.
fn session(out: &mut Lines, local: &LocalDescription<'_>, mid: Option<&str>) -> SocketAddr {
    let unknown = SocketAddr::from(([0, 0, 0, 0], 9));
    let first_address = local.candidates.first().copied().unwrap_or(unknown);
    out.write_line(format_args!("v=0"));
    out.write_line(format_args!("o=- {} 1 {}", local.session, network_address(first_address.ip())));
    out.write_line(format_args!("s=offhook"));
    out.write_line(format_args!("t=0 0"));
    if let Some(mid) = mid {
        out.write_line(format_args!("a=group:BUNDLE {mid}"));
    }
    out.write_line(format_args!("a=msid-semantic: WMS {}", local.stream));
    if local.ice_lite {
        out.write_line(format_args!("a=ice-lite"));
    }
    first_address
}

/// The audio section that is written.
struct Audio<'a> {
    proto: &'a str,
    /// The payload types as in the `m=` line.
    formats: &'a str,
    setup: Setup,
    mid: Option<&'a str>,
    direction: Direction,
    opus_pt: u8,
    telephone_events: &'a [TelephoneEvent],
}

fn audio(out: &mut Lines, offer: &Offer, local: &LocalDescription<'_>, first_address: SocketAddr) {
    let Some(section) = offer.sections.get(offer.audio) else { return };
    let is_supported = |format: &&String| {
        format.parse().is_ok_and(|pt: u8| {
            pt == offer.opus_pt || offer.telephone_events.iter().any(|t| t.pt == pt)
        })
    };
    let formats: Vec<&str> =
        section.formats.iter().filter(is_supported).map(String::as_str).collect();
    let audio = Audio {
        proto: &section.proto,
        formats: &formats.join(" "),
        setup: offer.setup.answer_role(),
        mid: offer.mid.as_deref(),
        direction: offer.direction.mirrored(),
        opus_pt: offer.opus_pt,
        telephone_events: &offer.telephone_events,
    };
    audio.write(out, local, first_address);
}

impl Audio<'_> {
    fn write(&self, out: &mut Lines, local: &LocalDescription<'_>, first_address: SocketAddr) {
        let Self { proto, formats, setup, mid, direction, opus_pt, telephone_events } = self;
        out.write_line(format_args!("m=audio {} {proto} {formats}", first_address.port()));
        out.write_line(format_args!("c={}", network_address(first_address.ip())));
        out.write_line(format_args!(
            "a=rtcp:{} {}",
            first_address.port(),
            network_address(first_address.ip())
        ));
        for (n, addr) in (1u32..).zip(local.candidates.iter().take(CANDIDATES_MAX)) {
            // RFC 8445 §5.1.2.1: type preference of host candidates, local preference by position,
            // component 1.
            let priority = (126 << 24) + ((65_536 - n) << 8) + 255;
            out.write_line(format_args!(
                "a=candidate:{n} 1 udp {priority} {} {} typ host",
                addr.ip(),
                addr.port()
            ));
        }
        out.write_line(format_args!("a=end-of-candidates"));
        out.write_line(format_args!("a=ice-ufrag:{}", local.ufrag));
        out.write_line(format_args!("a=ice-pwd:{}", local.pwd));
        let hex: Vec<String> = local.fingerprint.iter().map(|b| format!("{b:02X}")).collect();
        out.write_line(format_args!("a=fingerprint:sha-256 {}", hex.join(":")));
        out.write_line(format_args!("a=setup:{}", setup.as_str()));
        if let Some(mid) = mid {
            out.write_line(format_args!("a=mid:{mid}"));
        }
        out.write_line(format_args!("a={}", direction.as_str()));
        out.write_line(format_args!("a=rtcp-mux"));
        out.write_line(format_args!("a=rtpmap:{opus_pt} opus/48000/2"));
        out.write_line(format_args!("a=fmtp:{opus_pt} {OPUS_FORMAT}"));
        for event in *telephone_events {
            out.write_line(format_args!("a=rtpmap:{} telephone-event/{}", event.pt, event.clock));
            out.write_line(format_args!("a=fmtp:{} 0-15", event.pt));
        }
        out.write_line(format_args!("a=ptime:20"));
        out.write_line(format_args!("a=ssrc:{} cname:{}", local.ssrc, local.cname));
        out.write_line(format_args!("a=ssrc:{} msid:{} {}", local.ssrc, local.stream, local.track));
    }
}

fn network_address(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => format!("IN IP4 {v4}"),
        IpAddr::V6(v6) => format!("IN IP6 {v6}"),
    }
}
