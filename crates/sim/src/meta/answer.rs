//! What Meta makes of the business's SDP answer (M7): refused by `meta-calling.md` §5.2 A1, A2, A4, A5, A6 with the line
//! named, or read. Pure; the rules are `media::sdp`'s, which has them apart from what writes our answers.

use media::sdp::{Offer, Rule, Setup, check_answer};

/// Largest SDP (§1.3).
const SDP_BYTES_MAX: usize = 16_384;
/// Graph's subcode for a fingerprint it does not take (§4.6).
const FINGERPRINT_SUBCODE: u32 = 2_494_010;

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
    let offer =
        Offer::parse(offer, true).map_err(|e| fault(format!("the offer is not usable: {e}")))?;
    check_answer(&offer, answer).map_err(|f| Fault {
        details: f.to_string(),
        subcode: (f.rule == Rule::A5).then_some(FINGERPRINT_SUBCODE),
    })?;
    // The reader of offers reads answers too: A3's candidates are looked for there.
    let read =
        Offer::parse(answer, true).map_err(|e| fault(format!("the answer is not usable: {e}")))?;
    Ok(Answer {
        digit_pt: read.telephone_event_out().map(|t| t.pt),
        ufrag: read.ufrag,
        pwd: read.pwd,
        fingerprint: read.fingerprint,
        business_active: read.setup == Setup::Active,
        opus_pt: read.opus_pt,
    })
}

#[cfg(test)]
mod tests {
    use super::check;

    fn fixture(name: &str) -> String {
        let path = format!("{}/../../fixtures/meta/sdp/{name}", env!("CARGO_MANIFEST_DIR"));
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
            let taken = check(&fixture(offer), &fixture(answer))
                .unwrap_or_else(|f| panic!("{answer}: {}", f.details));
            assert_eq!(taken.business_active, active, "{answer}");
        }
        let taken = check(&fixture("offer_pt96_dtmf101.sdp"), &fixture("answer_to_pt96.sdp"))
            .expect("answer");
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
            ("m=audio 40000", "m=audio 0", "m=audio 0"),
            ("SAVPF 111 126", "SAVP 111 126", "protocol"),
            ("SAVPF 111 126", "SAVPF 111 126 0", "not offered"),
            ("SAVPF 111 126", "SAVPF 111", "telephone-event"),
            ("a=mid:audio", "a=mid:0", "a=mid"),
            ("a=group:BUNDLE audio", "a=group:BUNDLE 0", "a=group"),
            ("a=rtcp-mux\r\n", "", "a=rtcp-mux"),
            ("a=sendrecv", "a=sendonly", "a=sendrecv"),
            ("a=ice-ufrag:wyYbLd59", "a=ice-ufrag:wyY", "a=ice-ufrag"),
            ("a=ice-pwd:0TjhjFxn2I1RNncKo8zHIYHh", "a=ice-pwd:0TjhjFxn2I1RNncKo8zHIY", "a=ice-pwd"),
            ("a=fingerprint:sha-256", "a=fingerprint:sha-512", "a=fingerprint:sha-512"),
            ("0F:41", "0f:41", "upper-case"),
            ("a=setup:active", "a=setup:passive", "a=setup:passive"),
            ("a=setup:active\r\n", "", "a=setup"),
            ("a=candidate:1 1 udp", "a=x-candidate:1 1 udp", "candidate"),
            ("v=0", "v=1", "v=1"),
        ] {
            assert!(good.contains(from), "{from}");
            let fault = check(&offer, &good.replacen(from, to, 1)).expect_err(from);
            assert!(fault.details.contains(said), "{from}: {}", fault.details);
        }
        let none = good.replacen("a=candidate:1 1 udp", "a=x-candidate:1 1 udp", 1);
        let told = check(&offer, &none).expect_err("no candidate").details;
        assert_eq!(told, "the answer is not usable: it has no UDP candidate with a usable address");
        assert!(check(&offer, "").is_err());
        assert!(check(&offer, &"a".repeat(20_000)).is_err());
    }
}
