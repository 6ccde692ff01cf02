//! Checks the node's SDP answer as Meta does: by rules A1, A2, A4, A5 and A6 of
//! `docs/reference/meta.md#offhooks-answer`. Errors name the offending line. The rules are those of
//! `media::sdp`, which implements them independently of the code that writes answers.

use media::sdp::{Offer, Rule, Setup, check_answer};

/// Maximum size of an SDP.
const SDP_BYTES_MAX: usize = 16_384;
/// Graph's subcode for an unacceptable fingerprint.
const FINGERPRINT_SUBCODE: u32 = 2_494_010;

/// The parts of an SDP answer that Meta uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
    pub(crate) fingerprint: [u8; 32],
    /// Whether the business is the DTLS client.
    pub(crate) business_active: bool,
    pub(crate) opus_pt: u8,
    pub(crate) digit_pt: Option<u8>,
}

/// Why an answer is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnswerError {
    /// Names the offending or missing line.
    pub(crate) details: String,
    pub(crate) subcode: Option<u32>,
}

fn error(details: impl Into<String>) -> AnswerError {
    AnswerError { details: details.into(), subcode: None }
}

/// Parses an answer and checks it against its offer.
///
/// # Errors
///
/// Returns the first violated rule, with the line that violates it.
pub(crate) fn parse_answer(offer: &str, answer: &str) -> Result<Answer, AnswerError> {
    if answer.len() > SDP_BYTES_MAX {
        return Err(error(format!("SDP is longer than {SDP_BYTES_MAX} bytes")));
    }
    let offer =
        Offer::parse(offer, true).map_err(|e| error(format!("the offer is not usable: {e}")))?;
    check_answer(&offer, answer).map_err(|e| AnswerError {
        details: e.to_string(),
        subcode: (e.rule == Rule::A5).then_some(FINGERPRINT_SUBCODE),
    })?;
    // `Offer` parses answers as well, and checks the candidates (rule A3).
    let sdp =
        Offer::parse(answer, true).map_err(|e| error(format!("the answer is not usable: {e}")))?;
    Ok(Answer {
        digit_pt: sdp.telephone_event_out().map(|t| t.pt),
        ufrag: sdp.ufrag,
        pwd: sdp.pwd,
        fingerprint: sdp.fingerprint,
        business_active: sdp.setup == Setup::Active,
        opus_pt: sdp.opus_pt,
    })
}

#[cfg(test)]
mod tests {
    use super::parse_answer;

    fn fixture(name: &str) -> String {
        let path = format!("{}/../../fixtures/meta/sdp/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect("fixture")
    }

    #[test]
    fn m7_accepts_the_valid_answers() {
        for (offer, answer, active) in [
            ("offer_relay_full.sdp", "answer_to_relay_full.sdp", true),
            ("offer_minimal.sdp", "answer_to_minimal.sdp", true),
            ("offer_dual_stack.sdp", "answer_to_dual_stack.sdp", true),
            ("offer_pt96_dtmf101.sdp", "answer_to_pt96.sdp", true),
            ("offer_setup_active.sdp", "answer_to_setup_active.sdp", false),
        ] {
            let parsed = parse_answer(&fixture(offer), &fixture(answer))
                .unwrap_or_else(|e| panic!("{answer}: {}", e.details));
            assert_eq!(parsed.business_active, active, "{answer}");
        }
        let parsed =
            parse_answer(&fixture("offer_pt96_dtmf101.sdp"), &fixture("answer_to_pt96.sdp"))
                .expect("answer");
        assert_eq!((parsed.opus_pt, parsed.digit_pt), (96, Some(101)));
    }

    #[test]
    fn m7_refuses_bad_answers_and_names_the_line() {
        let offer = fixture("offer_relay_full.sdp");
        for (file, line) in [
            ("bad_our_answer_actpass.sdp", "a=setup:actpass"),
            ("bad_our_answer_ice_lite.sdp", "a=ice-lite"),
            ("bad_our_answer_three_fingerprints.sdp", "a=fingerprint"),
        ] {
            let error = parse_answer(&offer, &fixture(file)).expect_err(file);
            assert!(error.details.contains(line), "{file}: {}", error.details);
        }
    }

    #[test]
    fn m7_refuses_each_single_wrong_line() {
        let offer = fixture("offer_relay_full.sdp");
        let good = fixture("answer_to_relay_full.sdp");
        for (from, to, expected) in [
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
            let error = parse_answer(&offer, &good.replacen(from, to, 1)).expect_err(from);
            assert!(error.details.contains(expected), "{from}: {}", error.details);
        }
        let none = good.replacen("a=candidate:1 1 udp", "a=x-candidate:1 1 udp", 1);
        let details = parse_answer(&offer, &none).expect_err("no candidate").details;
        assert_eq!(
            details,
            "the answer is not usable: it has no UDP candidate with a usable address"
        );
        assert!(parse_answer(&offer, "").is_err());
        assert!(parse_answer(&offer, &"a".repeat(20_000)).is_err());
    }
}
