//! Writes SDP as Meta does (`docs/reference/meta.md#metas-offer`). Pure: all random values are
//! passed in.

use std::fmt::Write as _;
use std::net::SocketAddr;

/// Payload types in Meta's offers.
const OPUS_PT: u8 = 111;
const DIGIT_PT: u8 = 126;

/// The parts of an offer that differ between calls.
#[derive(Clone, Debug)]
pub(crate) struct OfferSpec {
    /// Session id of the `o=` line: up to 19 digits.
    pub(crate) session: u64,
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) fingerprint: String,
    pub(crate) ssrc: u32,
    pub(crate) cname: String,
    /// UUIDs of the media stream and of its track.
    pub(crate) stream: String,
    pub(crate) track: String,
    /// Foundation of the ICE candidate.
    pub(crate) foundation: u32,
    pub(crate) relay: SocketAddr,
    /// Writes `a=setup:active` instead of `actpass`.
    pub(crate) dtls_active: bool,
}

/// The offer of a user-initiated call, with CRLF line ends.
pub(crate) fn offer(spec: &OfferSpec) -> String {
    let OfferSpec {
        session, ufrag, pwd, fingerprint, ssrc, cname, stream, track, foundation, ..
    } = spec;
    let (ip, port) = (spec.relay.ip(), spec.relay.port());
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    let setup = if spec.dtls_active { "active" } else { "actpass" };
    let lines = [
        "v=0".to_owned(),
        format!("o=- {session} 2 IN IP4 127.0.0.1"),
        "s=-".to_owned(),
        "t=0 0".to_owned(),
        "a=group:BUNDLE audio".to_owned(),
        format!("a=msid-semantic: WMS {stream}"),
        "a=ice-lite".to_owned(),
        format!("m=audio {port} UDP/TLS/RTP/SAVPF {OPUS_PT} {DIGIT_PT}"),
        format!("c=IN {family} {ip}"),
        "a=rtcp:9 IN IP4 0.0.0.0".to_owned(),
        format!(
            "a=candidate:{foundation} 1 udp 2113937151 {ip} {port} typ host generation 0 network-cost 50 ufrag {ufrag}"
        ),
        format!("a=ice-ufrag:{ufrag}"),
        format!("a=ice-pwd:{pwd}"),
        format!("a=fingerprint:sha-256 {fingerprint}"),
        format!("a=setup:{setup}"),
        "a=mid:audio".to_owned(),
        "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level".to_owned(),
        "a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
            .to_owned(),
        "a=sendrecv".to_owned(),
        "a=rtcp-mux".to_owned(),
        format!("a=rtpmap:{OPUS_PT} opus/48000/2"),
        format!("a=rtcp-fb:{OPUS_PT} transport-cc"),
        format!(
            "a=fmtp:{OPUS_PT} maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;sprop-maxcapturerate=16000;useinbandfec=1"
        ),
        format!("a=rtpmap:{DIGIT_PT} telephone-event/8000"),
        "a=maxptime:20".to_owned(),
        "a=ptime:20".to_owned(),
        format!("a=ssrc:{ssrc} cname:{cname}"),
        format!("a=ssrc:{ssrc} msid:{stream} {track}"),
        format!("a=ssrc:{ssrc} mslabel:{stream}"),
        format!("a=ssrc:{ssrc} label:{track}"),
    ];
    lines.iter().fold(String::with_capacity(1_600), |mut text, line| {
        let _ = write!(text, "{line}\r\n");
        text
    })
}

/// The answer to an offer of the business. It differs from an offer only in `a=setup`.
pub(crate) fn answer(spec: &OfferSpec, dtls_active: bool) -> String {
    let setup = if dtls_active { "a=setup:active" } else { "a=setup:passive" };
    offer(&OfferSpec { dtls_active: false, ..spec.clone() }).replacen("a=setup:actpass", setup, 1)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{OfferSpec, offer};

    pub(crate) fn fixture() -> &'static str {
        include_str!("../../../../fixtures/meta/sdp/offer_relay_full.sdp")
    }

    #[test]
    fn m4_offer_matches_the_fixture() {
        // With the values of the fixture the offer must be the fixture.
        let ours = offer(&OfferSpec {
            session: 2_210_720_909_430_344_344,
            ufrag: "zfIenSuP5MAEDPy/".into(),
            pwd: "YIBkQhhkP1/Gurf0j3gCcimn9mI6xfbP".into(),
            fingerprint:
                "4E:FC:23:F9:2D:5A:06:53:2D:19:E3:46:A2:8F:83:47:06:80:EC:5D:F2:B0:22:2A:7F:63:1B:C2:1A:51:FC:87".into(),
            ssrc: 2_082_597_104,
            cname: "bl9NkvnM7VgNyZOX".into(),
            stream: "a9229763-3e54-49d5-adca-fcba3a74c07b".into(),
            track: "71f981e2-a657-4df5-b897-63ecddd805e8".into(),
            foundation: 1_528_855_624,
            relay: ([198, 51, 100, 62], 3482).into(),
            dtls_active: false,
        });
        assert_eq!(ours, fixture());
    }
}
