//! Faults of SDP offers. Pure: a valid offer in, a faulty one out.

/// A fault of an SDP offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfferFault {
    Empty,
    /// Truncated.
    Cut,
    VideoOnly,
    NoOpus,
    /// The offer has only a SHA-1 fingerprint.
    Sha1,
    /// The offer has SDES keys instead of a DTLS fingerprint.
    Sdes,
    NoCandidate,
    /// The ufrag has three characters; the minimum is four.
    BadUfrag,
    NoRtcpMux,
    /// A megabyte of attributes.
    Huge,
    /// The offer has only an IPv6 candidate, which is valid.
    Ipv6Only,
    /// The offer has Opus as payload type 96, which is valid.
    Opus96,
    /// The offer has no telephone-event, which is valid but leaves the call without digits.
    NoDigits,
    /// The fingerprint is that of another certificate.
    WrongFingerprint,
}

impl OfferFault {
    pub(super) const ALL: &[(&str, Self)] = &[
        ("empty", Self::Empty),
        ("cut", Self::Cut),
        ("video_only", Self::VideoOnly),
        ("no_opus", Self::NoOpus),
        ("sha1", Self::Sha1),
        ("sdes", Self::Sdes),
        ("no_candidate", Self::NoCandidate),
        ("bad_ufrag", Self::BadUfrag),
        ("no_rtcp_mux", Self::NoRtcpMux),
        ("huge", Self::Huge),
        ("ipv6_only", Self::Ipv6Only),
        ("opus_96", Self::Opus96),
        ("no_digits", Self::NoDigits),
        ("wrong_fingerprint", Self::WrongFingerprint),
    ];

    /// Returns the offer with this fault.
    pub(crate) fn apply(self, offer: &str) -> String {
        let without = |prefix: &str| {
            lines(offer, |line| (!line.starts_with(prefix)).then(|| line.to_owned()))
        };
        let instead = |prefix: &str, new: &str| {
            lines(offer, |line| {
                Some(if line.starts_with(prefix) { new.to_owned() } else { line.to_owned() })
            })
        };
        match self {
            Self::Empty => String::new(),
            Self::Cut => offer.get(..offer.len() / 3).unwrap_or_default().to_owned(),
            Self::VideoOnly => offer.replace("m=audio", "m=video"),
            Self::NoOpus => offer.replace("opus/48000/2", "PCMU/8000"),
            Self::Sha1 => instead(
                "a=fingerprint:",
                &format!("a=fingerprint:sha-1 {}", vec!["AB"; 20].join(":")),
            ),
            Self::Sdes => instead(
                "a=fingerprint:",
                "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:d0RmdmcmVCspeEc3QGZiNWpVLFJhQX1cfHAwJSoj",
            ),
            Self::NoCandidate => without("a=candidate:"),
            Self::BadUfrag => instead("a=ice-ufrag:", "a=ice-ufrag:abc"),
            Self::NoRtcpMux => without("a=rtcp-mux"),
            Self::Huge => {
                let attribute = format!("a=x-filler:{}\r\n", "x".repeat(1_000));
                format!("{offer}{}", attribute.repeat(1_024))
            }
            Self::Ipv6Only => lines(offer, |line| {
                let words: Vec<&str> = line.split(' ').collect();
                match words.as_slice() {
                    ["c=IN", ..] => Some("c=IN IP6 2001:db8::62".to_owned()),
                    [first, component, udp, priority, _, rest @ ..]
                        if first.starts_with("a=candidate:") =>
                    {
                        Some(format!(
                            "{first} {component} {udp} {priority} 2001:db8::62 {}",
                            rest.join(" ")
                        ))
                    }
                    _ => Some(line.to_owned()),
                }
            }),
            Self::Opus96 => offer.replace("SAVPF 111 ", "SAVPF 96 ").replace(":111 ", ":96 "),
            Self::NoDigits => lines(offer, |line| {
                (!line.starts_with("a=rtpmap:126"))
                    .then(|| line.replace("SAVPF 111 126", "SAVPF 111"))
            }),
            Self::WrongFingerprint => instead(
                "a=fingerprint:",
                &format!("a=fingerprint:sha-256 {}", vec!["AB"; 32].join(":")),
            ),
        }
    }
}

/// Maps the lines of an SDP. `f` returns `None` to drop a line.
fn lines(offer: &str, f: impl Fn(&str) -> Option<String>) -> String {
    offer.lines().filter_map(f).map(|line| line + "\r\n").collect()
}
