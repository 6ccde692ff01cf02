//! How strictly Meta looks at the business's SDP answer (M7): `meta-calling.md` §5.2 A1, A2, A4, A5, A6. Pure.
//!
//! Written from the specification alone and on purpose not shared with `media::sdp`, which writes the answers: a fault
//! in one of them must not be excused by the other.

/// Largest SDP (§1.3).
const SDP_BYTES_MAX: usize = 16_384;
/// A3: most candidates.
const CANDIDATES_MAX: usize = 8;

/// What Meta takes from an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) fingerprint: [u8; 32],
    /// The business is the DTLS client.
    pub(crate) business_active: bool,
    pub(crate) opus_pt: u8,
    pub(crate) digit_pt: Option<u8>,
}

/// Why an answer is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Names the line, or the line that is missing.
    pub(crate) details: String,
    pub(crate) subcode: Option<u32>,
}

fn fault(details: impl Into<String>) -> Fault {
    Fault { details: details.into(), subcode: None }
}

/// Checks an answer against the offer that it answers.
///
/// # Errors
/// The first rule that is broken, with the line that breaks it.
pub(crate) fn check(offer: &str, answer: &str) -> Result<Answer, Fault> {
    if answer.len() > SDP_BYTES_MAX {
        return Err(fault(format!("SDP is longer than {SDP_BYTES_MAX} bytes")));
    }
    let theirs = Sdp::read(offer).map_err(|_| fault("the offer is broken"))?;
    let ours = Sdp::read(answer)?;
    check_audio(&theirs, &ours)?;
    check_ice(&ours)?;
    let fingerprint = check_fingerprint(&ours)?;
    let business_active = check_setup(&theirs, &ours)?;
    let payloads = ours.payloads();
    Ok(Answer {
        ufrag: ours.need("ice-ufrag")?.to_owned(),
        pwd: ours.need("ice-pwd")?.to_owned(),
        fingerprint,
        business_active,
        opus_pt: ours.payload_of("opus/48000", &payloads).ok_or_else(|| fault("a=rtpmap: opus/48000/2 is missing"))?,
        digit_pt: ours.payload_of("telephone-event/8000", &payloads),
    })
}

/// A1.
fn check_audio(theirs: &Sdp<'_>, ours: &Sdp<'_>) -> Result<(), Fault> {
    let m = ours.m_line;
    let mut words = m.split(' ').skip(1);
    if words.next().is_none_or(|port| port == "0" || port.parse::<u16>().is_err()) {
        return Err(fault(format!("m={m}: the port must not be 0")));
    }
    let proto = theirs.m_line.split(' ').nth(2);
    if words.next() != proto {
        return Err(fault(format!("m={m}: the protocol must be that of the offer, {}", proto.unwrap_or_default())));
    }
    let (offered, taken) = (theirs.payloads(), ours.payloads());
    if let Some(foreign) = taken.iter().find(|pt| !offered.contains(pt)) {
        return Err(fault(format!("m={m}: payload type {foreign} was not offered")));
    }
    for codec in ["opus/48000", "telephone-event/8000"] {
        let Some(pt) = theirs.payload_of(codec, &offered) else { continue };
        match ours.payload_of(codec, &taken) {
            Some(same) if same == pt => {}
            Some(other) => return Err(fault(format!("a=rtpmap:{other} {codec}: the offer has it as {pt}"))),
            None => return Err(fault(format!("a=rtpmap: {codec} of the offer is missing"))),
        }
    }
    let mid = theirs.find("mid").unwrap_or("audio");
    if ours.need("mid")? != mid {
        return Err(fault(format!("a=mid: must be {mid:?} as in the offer")));
    }
    let group = ours.find("group").ok_or_else(|| fault("a=group:BUNDLE is missing"))?;
    if !group.split(' ').skip(1).any(|m| m == mid) {
        return Err(fault(format!("a=group:{group}: must bundle {mid:?}")));
    }
    for flag in ["rtcp-mux", "sendrecv"] {
        if !ours.has(flag) {
            return Err(fault(format!("a={flag} is missing")));
        }
    }
    Ok(())
}

/// A2, A3, A4.
fn check_ice(ours: &Sdp<'_>) -> Result<(), Fault> {
    if ours.has("ice-lite") {
        return Err(fault("a=ice-lite: the business must be a full ICE agent"));
    }
    for (name, least) in [("ice-ufrag", 8), ("ice-pwd", 24)] {
        let value = ours.need(name)?;
        if value.len() < least || value.len() > 256 {
            return Err(fault(format!("a={name}: must have {least} to 256 characters")));
        }
        if let Some(c) = value.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '+' && *c != '/') {
            return Err(fault(format!("a={name}: {c:?} is not an ICE character")));
        }
    }
    let candidates = ours.all("candidate").count();
    if candidates == 0 || candidates > CANDIDATES_MAX {
        return Err(fault(format!("a=candidate: 1 to {CANDIDATES_MAX} are needed, not {candidates}")));
    }
    Ok(())
}

/// A5.
fn check_fingerprint(ours: &Sdp<'_>) -> Result<[u8; 32], Fault> {
    let wrong = |details: String| Fault { details, subcode: Some(2_494_010) };
    let mut lines = ours.all("fingerprint");
    let line = lines.next().ok_or_else(|| wrong("a=fingerprint is missing".into()))?;
    if let Some(second) = lines.next() {
        let name = second.split(' ').next().unwrap_or_default();
        return Err(wrong(format!("a=fingerprint:{name}: exactly one line is allowed, sha-256")));
    }
    let Some(("sha-256", digest)) = line.split_once(' ') else {
        return Err(wrong("Fingerprint algo is not SHA256".into()));
    };
    let bytes: Option<Vec<u8>> = digest
        .split(':')
        .map(|b| {
            let upper = b.len() == 2 && b.bytes().all(|c| c.is_ascii_digit() || (b'A'..=b'F').contains(&c));
            upper.then(|| u8::from_str_radix(b, 16).ok()).flatten()
        })
        .collect();
    bytes
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| wrong("a=fingerprint: 32 bytes in upper-case hex with colons are needed".into()))
}

/// A6. Gives whether the business is the DTLS client.
fn check_setup(theirs: &Sdp<'_>, ours: &Sdp<'_>) -> Result<bool, Fault> {
    let offered = theirs.find("setup").unwrap_or("actpass");
    let wanted = if offered == "active" { "passive" } else { "active" };
    let got = ours.need("setup")?;
    if got == wanted {
        Ok(wanted == "active")
    } else {
        Err(fault(format!("a=setup:{got}: must be {wanted} to an offer that says {offered}")))
    }
}

/// An SDP of one audio section; session attributes stand in where the section has none.
struct Sdp<'a> {
    m_line: &'a str,
    media: Vec<&'a str>,
    session: Vec<&'a str>,
}

impl<'a> Sdp<'a> {
    fn read(text: &'a str) -> Result<Self, Fault> {
        if text.bytes().any(|b| b < 0x20 && b != b'\r' && b != b'\n') {
            return Err(fault("the SDP has control characters in it"));
        }
        let mut lines = text.lines().map(str::trim_end);
        if lines.next() != Some("v=0") {
            return Err(fault("v=0 must be the first line"));
        }
        let mut sdp = Self { m_line: "", media: Vec::new(), session: Vec::new() };
        for line in lines {
            if let Some(m) = line.strip_prefix("m=") {
                if !m.starts_with("audio ") || !sdp.m_line.is_empty() {
                    return Err(fault(format!("m={m}: exactly one audio section is allowed")));
                }
                sdp.m_line = m;
            } else if let Some(attribute) = line.strip_prefix("a=") {
                let section = if sdp.m_line.is_empty() { &mut sdp.session } else { &mut sdp.media };
                section.push(attribute);
            }
        }
        if sdp.m_line.is_empty() { Err(fault("m=audio is missing")) } else { Ok(sdp) }
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.media.iter().chain(&self.session).filter_map(move |a| a.strip_prefix(name)?.strip_prefix(':'))
    }

    fn find(&self, name: &str) -> Option<&'a str> {
        self.all(name).next()
    }

    fn need(&self, name: &str) -> Result<&'a str, Fault> {
        self.find(name).ok_or_else(|| fault(format!("a={name} is missing")))
    }

    fn has(&self, flag: &str) -> bool {
        self.media.contains(&flag) || self.session.contains(&flag)
    }

    fn payloads(&self) -> Vec<u8> {
        self.m_line.split(' ').skip(3).filter_map(|pt| pt.parse().ok()).collect()
    }

    fn payload_of(&self, codec: &str, among: &[u8]) -> Option<u8> {
        self.all("rtpmap").find_map(|map| {
            let (pt, name) = map.split_once(' ')?;
            let pt = pt.parse().ok()?;
            let same = name.get(..codec.len()).is_some_and(|n| n.eq_ignore_ascii_case(codec));
            (same && among.contains(&pt)).then_some(pt)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    fn fixture(name: &str) -> String {
        let path = format!("{}/fixtures/meta/sdp/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect("fixture")
    }

    #[test]
    fn m7_the_model_answers_pass() {
        for (offer, answer, active) in [
            ("offer_relay_full.sdp", "answer_to_relay_full.sdp", true),
            ("offer_minimal.sdp", "answer_to_minimal.sdp", true),
            ("offer_dual_stack.sdp", "answer_to_dual_stack.sdp", true),
            ("offer_pt96_dtmf101.sdp", "answer_to_pt96.sdp", true),
            ("offer_setup_active.sdp", "answer_to_setup_active.sdp", false),
        ] {
            let taken = check(&fixture(offer), &fixture(answer)).unwrap_or_else(|f| panic!("{answer}: {}", f.details));
            assert_eq!(taken.business_active, active, "{answer}");
        }
        let taken = check(&fixture("offer_pt96_dtmf101.sdp"), &fixture("answer_to_pt96.sdp")).expect("answer");
        assert_eq!((taken.opus_pt, taken.digit_pt), (96, Some(101)));
    }

    #[test]
    fn m7_each_bad_answer_is_refused_naming_the_line() {
        let offer = fixture("offer_relay_full.sdp");
        for (file, line) in [
            ("bad_our_answer_actpass.sdp", "a=setup:actpass"),
            ("bad_our_answer_ice_lite.sdp", "a=ice-lite"),
            ("bad_our_answer_three_fingerprints.sdp", "a=fingerprint"),
        ] {
            let fault = check(&offer, &fixture(file)).expect_err(file);
            assert!(fault.details.contains(line), "{file}: {}", fault.details);
        }
    }

    #[test]
    fn m7_one_line_wrong_at_a_time() {
        let offer = fixture("offer_relay_full.sdp");
        let good = fixture("answer_to_relay_full.sdp");
        for (from, to, said) in [
            ("m=audio 40000", "m=audio 0", "port"),
            ("SAVPF 111 126", "SAVP 111 126", "protocol"),
            ("SAVPF 111 126", "SAVPF 111 126 0", "payload type 0"),
            ("a=rtpmap:126 telephone-event/8000\r\n", "", "telephone-event/8000"),
            ("a=mid:audio", "a=mid:0", "a=mid"),
            ("a=group:BUNDLE audio", "a=group:BUNDLE 0", "a=group"),
            ("a=rtcp-mux\r\n", "", "a=rtcp-mux"),
            ("a=sendrecv", "a=sendonly", "a=sendrecv"),
            ("a=ice-ufrag:wyYbLd59", "a=ice-ufrag:wyY", "a=ice-ufrag"),
            ("a=ice-pwd:0TjhjFxn2I1RNncKo8zHIYHh", "a=ice-pwd:0TjhjFxn2I1RNncKo8zHIY", "a=ice-pwd"),
            ("a=fingerprint:sha-256", "a=fingerprint:sha-512", "SHA256"),
            ("0F:41", "0f:41", "upper-case"),
            ("a=setup:active", "a=setup:passive", "a=setup:passive"),
            ("a=setup:active\r\n", "", "a=setup"),
            ("a=candidate:1 1 udp", "a=x-candidate:1 1 udp", "a=candidate"),
            ("v=0", "v=1", "v=0"),
            ("m=audio", "m=video", "audio section"),
        ] {
            assert!(good.contains(from), "{from}");
            let fault = check(&offer, &good.replacen(from, to, 1)).expect_err(from);
            assert!(fault.details.contains(said), "{from}: {}", fault.details);
        }
        assert!(check(&offer, "").is_err());
        assert!(check(&offer, &"a".repeat(20_000)).is_err());
    }
}
