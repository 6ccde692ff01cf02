//! Offers of the fixtures, compared with their index; arbitrary and mangled offers; our answers,
//! compared with models and checked by the strict reader.

use std::net::SocketAddr;
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::{LocalDescription, Offer, OfferError, Rule, Setup, check_answer};

const FINGERPRINT: [u8; 32] = [0xAB; 32];

fn fixture(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/meta").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn error_texts_fit_offers_and_answers() {
    let why = |fault: Result<Offer, OfferError>| fault.expect_err("unusable").to_string();
    assert_eq!(why(Offer::parse_phone("v=0")), "it has no audio section");
    assert_eq!(why(Offer::parse("", true)), "it is empty");
}

fn rows() -> Vec<Value> {
    let index: Value = serde_json::from_str(&fixture("index.json")).expect("index.json is JSON");
    index["sdp"].as_array().expect("rows").clone()
}

fn parse(file: &str) -> Offer {
    Offer::parse(&fixture(file), false).unwrap_or_else(|e| panic!("{file}: {e}"))
}

fn local_description<'a>(candidates: &'a [SocketAddr]) -> LocalDescription<'a> {
    LocalDescription {
        candidates,
        ufrag: "abcd+/12",
        pwd: "abcdefghijklmnopqrstuvwx",
        fingerprint: &FINGERPRINT,
        ssrc: 515_639_260,
        cname: "DmcLDltwzDB0ilbK",
        stream: "69e990f7-460a-4a84-ac9f-59a5aa6bf653",
        track: "bb10e8ed-1f00-4c45-bb09-bf945612ce3f",
        session: 5_493_349_234_715_655_308,
        ice_lite: false,
    }
}

#[test]
fn parses_every_usable_fixture() {
    let mut seen = 0;
    for row in rows().iter().filter(|r| r["usable"] == true) {
        let file = row["file"].as_str().expect("file");
        let offer = parse(file);
        let want = &row["parsed"];
        let hex: Vec<String> = offer.fingerprint.iter().map(|b| format!("{b:02X}")).collect();
        let candidates: Vec<Value> = offer
            .candidates
            .iter()
            .map(|c| serde_json::json!({"ip": c.addr.ip().to_string(), "port": c.addr.port()}))
            .collect();
        let dtmf = offer
            .telephone_events
            .first()
            .map(|t| serde_json::json!({"pt": t.pt, "clock": t.clock}));
        let got = serde_json::json!({
            "opus_pt": offer.opus_pt, "dtmf": dtmf, "ufrag": offer.ufrag, "pwd": offer.pwd,
            "fingerprint": hex.join(":"), "setup": offer.setup.as_str(), "ice_lite": offer.ice_lite,
            "mid": offer.mid, "candidates": candidates, "ssrc": offer.ssrc, "ptime": offer.ptime,
        });
        assert_eq!(&got, want, "{file}");
        seen += 1;
    }
    assert!(seen >= 18, "{seen} rows");
}

#[test]
fn rejects_every_bad_fixture() {
    for row in rows().iter().filter(|r| r["usable"] == false && r["role"] == "meta_offer") {
        let file = row["file"].as_str().expect("file");
        let fault = Offer::parse(&fixture(file), false).expect_err(file);
        let want = match row["reason"].as_str().expect("reason") {
            "empty" => OfferError::Empty,
            "no v=0" => OfferError::NotSdp,
            "no audio section" => OfferError::NoAudio,
            "no opus/48000" => OfferError::NoOpus,
            "no sha-256 fingerprint" => OfferError::Fingerprint,
            "no DTLS" => OfferError::NoDtls,
            "no usable candidate" => OfferError::NoCandidate,
            "no ice-ufrag" => OfferError::Ufrag,
            "no rtcp-mux" => OfferError::RtcpMux,
            "audio section refused (port 0)" => OfferError::PortZero,
            // It ends inside its password.
            "cut before the credentials" => OfferError::Pwd,
            other => panic!("{file}: a reason this test does not know: {other}"),
        };
        assert_eq!(fault, want, "{file}");
    }
}

/// A longer one made str0m panic when it answered a check.
#[test]
fn rejects_a_ufrag_that_is_too_long_for_our_checks() {
    let offer = |chars: usize| {
        let named = |line: &str| {
            if line.starts_with("a=ice-ufrag:") {
                "a=ice-ufrag:".to_owned() + &"u".repeat(chars)
            } else {
                line.to_owned()
            }
        };
        fixture("sdp/offer_relay_full.sdp").lines().map(named).collect::<Vec<_>>().join("\r\n")
            + "\r\n"
    };
    for (chars, fault) in [
        (3, Some(OfferError::Ufrag)),
        (4, None),
        (119, None),
        (120, Some(OfferError::OverlongUfrag)),
        (256, Some(OfferError::OverlongUfrag)),
        (257, Some(OfferError::Ufrag)),
    ] {
        assert_eq!(Offer::parse(&offer(chars), false).err(), fault, "{chars}");
    }
}

#[test]
fn check_answer_rejects_the_bad_answers() {
    for row in rows().iter().filter(|r| r["role"] == "our_answer") {
        let file = row["file"].as_str().expect("file");
        let offer = parse(row["answers"].as_str().unwrap_or("sdp/offer_relay_full.sdp"));
        let result = check_answer(&offer, &fixture(file));
        let want = match file {
            "sdp/bad_our_answer_three_fingerprints.sdp" => {
                Some((Rule::A5, "a=fingerprint:sha-384 "))
            }
            "sdp/bad_our_answer_ice_lite.sdp" => Some((Rule::A2, "a=ice-lite")),
            "sdp/bad_our_answer_actpass.sdp" => Some((Rule::A6, "a=setup:actpass")),
            _ => None,
        };
        match (result, want) {
            (Ok(()), None) => assert_eq!(row["usable"], true, "{file}"),
            (Err(fault), Some((rule, line))) => {
                assert_eq!(fault.rule, rule, "{file}");
                assert!(fault.line.starts_with(line), "{file}: {fault}");
            }
            (result, want) => panic!("{file}: {result:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn answers_equal_the_models() {
    let own: SocketAddr = "203.0.113.7:40000".parse().expect("address");
    let own6: SocketAddr = "[2001:db8:0:7::1]:40000".parse().expect("address");
    for row in rows().iter().filter(|r| r["role"] == "our_answer" && r["usable"] == true) {
        let file = row["file"].as_str().expect("file");
        let offer = parse(row["answers"].as_str().expect("answers"));
        let candidates = if file.contains("dual_stack") { vec![own, own6] } else { vec![own] };
        let text = offer.answer(&local_description(&candidates));
        check_answer(&offer, &text).unwrap_or_else(|e| panic!("{file}: {e}"));
        assert!(text.ends_with("\r\n") && text.len() <= 8_192, "A8");
        assert_eq!(text.matches('\n').count(), text.matches("\r\n").count(), "A8");

        // Values that are random for each leg are masked; everything else must equal the model.
        let mask = |line: &str| {
            let fresh = [
                "o=- ",
                "a=ice-ufrag:",
                "a=ice-pwd:",
                "a=fingerprint:sha-256 ",
                "a=msid-semantic: WMS ",
                "a=ssrc:",
            ];
            match fresh.iter().find(|f| line.starts_with(**f)) {
                Some(&"a=ssrc:") => {
                    if line.contains("cname:") { "a=ssrc cname" } else { "a=ssrc msid" }.to_owned()
                }
                Some(&"o=- ") => line.split(' ').skip(2).collect::<Vec<_>>().join(" "),
                Some(prefix) => (*prefix).to_owned(),
                None => line.to_owned(),
            }
        };
        let model = fixture(file);
        let got: Vec<String> = text.lines().map(mask).collect();
        let want: Vec<String> = model.lines().map(mask).collect();
        assert_eq!(got, want, "{file}");
    }
}

#[test]
fn rejects_other_sections_in_place() {
    let own: [SocketAddr; 1] = ["203.0.113.7:40000".parse().expect("address")];
    let offer = parse("sdp/offer_audio_and_video.sdp");
    let text = offer.answer(&local_description(&own));
    check_answer(&offer, &text).expect("a valid answer");
    assert!(text.contains("a=group:BUNDLE audio\r\n"), "video is not in the bundle");
    assert!(text.contains("m=video 0 UDP/TLS/RTP/SAVPF 97\r\n"), "{text}");

    // Video first: the audio section keeps its position.
    let full = fixture("sdp/offer_audio_and_video.sdp");
    let at = full.find("m=audio").expect("audio");
    let video = full.find("m=video").expect("video");
    let swapped = format!("{}{}{}", &full[..at], &full[video..], &full[at..video]);
    let offer = Offer::parse(&swapped, false).expect("usable");
    let text = offer.answer(&local_description(&own));
    check_answer(&offer, &text).expect("a valid answer");
    assert!(text.find("m=video 0").expect("video") < text.find("m=audio 40000").expect("audio"));
}

#[test]
fn parses_a_browser_offer_with_both_clock_rates() {
    let text = fixture("sdp/offer_relay_full.sdp")
        .replace("a=ice-lite\r\n", "")
        .replace("SAVPF 111 126", "SAVPF 111 63 9 0 110 126")
        .replace(
            "a=rtpmap:126 ",
            "a=rtpmap:9 G722/8000\r\na=rtpmap:110 telephone-event/48000\r\na=rtpmap:126 ",
        )
        .replace("typ host", "typ host generation 0");
    let offer = Offer::parse(&text, false).expect("usable");
    assert!(!offer.ice_lite);
    assert_eq!(offer.telephone_events.len(), 2);
    assert_eq!(offer.telephone_event_out().map(|t| (t.pt, t.clock)), Some((126, 8000)));
    let own = ["203.0.113.7:40000".parse().expect("address")];
    let answer = offer.answer(&LocalDescription { ice_lite: true, ..local_description(&own) });
    assert!(answer.contains("m=audio 40000 UDP/TLS/RTP/SAVPF 111 110 126\r\n"), "{answer}");
    assert!(answer.contains("a=ice-lite\r\n"));
    check_answer(&offer, &answer).expect("ICE-lite is allowed towards a full offer");
}

/// Changes of a good offer, and whether the result is usable.
#[test]
fn r19_edges_of_usability() {
    let base = fixture("sdp/offer_relay_full.sdp");
    let candidate =
        base.lines().find(|l| l.starts_with("a=candidate")).expect("candidate").to_owned();
    let with_ip = |ip: &str| base.replace("198.51.100.62 3482 typ", &format!("{ip} 3482 typ"));
    let cases: Vec<(&str, String, Result<usize, OfferError>)> = vec![
        ("unchanged", base.clone(), Ok(1)),
        ("17 KiB", format!("{base}{}", "a=x:y\r\n".repeat(2_500)), Err(OfferError::TooLong)),
        ("NUL", base.replace("s=-", "s=\0"), Err(OfferError::ControlCharacter)),
        ("tab", base.replace("s=-", "s=\t"), Err(OfferError::ControlCharacter)),
        (
            "17 sections",
            format!("{base}{}", "m=video 0 UDP/TLS/RTP/SAVPF 97\r\n".repeat(16)),
            Err(OfferError::TooManySections),
        ),
        ("loopback", with_ip("127.0.0.1"), Err(OfferError::NoCandidate)),
        ("loopback, mapped", with_ip("::ffff:127.0.0.1"), Err(OfferError::NoCandidate)),
        ("link-local", with_ip("169.254.1.1"), Err(OfferError::NoCandidate)),
        ("link-local v6", with_ip("fe80::1"), Err(OfferError::NoCandidate)),
        ("multicast", with_ip("224.0.0.1"), Err(OfferError::NoCandidate)),
        ("broadcast", with_ip("255.255.255.255"), Err(OfferError::NoCandidate)),
        ("unspecified", with_ip("0.0.0.0"), Err(OfferError::NoCandidate)),
        ("private address", with_ip("10.0.0.7"), Ok(1)),
        ("mDNS name, lite", with_ip("aa-bb.local"), Err(OfferError::NoCandidate)),
        ("mDNS name, a browser", with_ip("aa-bb.local").replace("a=ice-lite\r\n", ""), Ok(0)),
        ("component 2", base.replace(" 1 udp ", " 2 udp "), Err(OfferError::NoCandidate)),
        (
            "port 0 of a candidate",
            base.replace(" 3482 typ", " 0 typ"),
            Err(OfferError::NoCandidate),
        ),
        (
            "port 70000 of a candidate",
            base.replace(" 3482 typ", " 70000 typ"),
            Err(OfferError::NoCandidate),
        ),
        ("UDP in upper case", base.replace(" udp ", " UDP "), Ok(1)),
        (
            "twenty candidates",
            (0..20).fold(base.clone(), |t, n| {
                t + &candidate.replace("3482", &(4000 + n).to_string()) + "\r\n"
            }),
            Ok(16),
        ),
        ("one address twice", format!("{base}{candidate}\r\n"), Ok(1)),
        ("hex in lower case", base.replace("4E:FC", "4e:fc").replace("sha-256", "SHA-256"), Ok(1)),
        ("a byte too few", base.replace("4E:FC:", "4E:"), Err(OfferError::Fingerprint)),
        ("setup holdconn", base.replace("actpass", "holdconn"), Err(OfferError::Setup)),
        ("ice-lite at media level", base.replace("a=ice-lite\r\n", "") + "a=ice-lite\r\n", Ok(1)),
        (
            "pwd of 21",
            base.replace("YIBkQhhkP1/Gurf0j3gCcimn9mI6xfbP", "123456789012345678901"),
            Err(OfferError::Pwd),
        ),
        ("opus at 8000", base.replace("opus/48000/2", "opus/8000"), Err(OfferError::NoOpus)),
        (
            "opus not in the m-line",
            base.replace("SAVPF 111 126", "SAVPF 126"),
            Err(OfferError::NoOpus),
        ),
        ("over TCP", base.replace("UDP/TLS/RTP", "TCP/TLS/RTP"), Err(OfferError::Transport)),
        (
            "a very long mid",
            base.replace("a=mid:audio", &format!("a=mid:{}", "x".repeat(100))),
            Err(OfferError::OverlongToken),
        ),
        (
            "first audio section rejected, second usable",
            base.replace("m=audio", "m=audio 0 UDP/TLS/RTP/SAVPF 111\r\nm=audio"),
            Ok(1),
        ),
    ];
    for (name, text, want) in cases {
        let got = Offer::parse(&text, false);
        assert_eq!(got.as_ref().map(|o| o.candidates.len()).map_err(|e| *e), want, "{name}");
        if let Ok(offer) = got {
            assert_eq!(offer.ice_lite, !name.contains("browser"), "{name}");
        }
    }
    let looped = with_ip("127.0.0.1");
    assert_eq!(
        Offer::parse(&looped, true).map(|o| o.candidates.len()),
        Ok(1),
        "allowed for a loopback Graph"
    );
}

#[test]
fn setups_are_answered() {
    assert_eq!(Setup::Actpass.answer_role(), Setup::Active);
    assert_eq!(Setup::Passive.answer_role(), Setup::Active);
    assert_eq!(Setup::Active.answer_role(), Setup::Passive);
}

#[test]
fn r22_debug_shows_no_credentials() {
    let offer = parse("sdp/offer_relay_full.sdp");
    let redacted = format!("{offer:?}");
    assert!(
        !redacted.contains(&offer.pwd)
            && !redacted.contains(&offer.ufrag)
            && !redacted.contains("198.51"),
        "{redacted}"
    );
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_rejected(text in "\\PC{0,400}") {
        let _ = Offer::parse(&format!("v=0\r\n{text}"), true);
        let _ = check_answer(&parse("sdp/offer_minimal.sdp"), &format!("v=0\r\n{text}"));
    }

    /// Lines dropped, duplicated and swapped: it never panics, and usable offers get a valid
    /// answer.
    #[test]
    fn mangled_offers_are_rejected_or_answered(seed in proptest::collection::vec((0usize..40, 0usize..40, 0u8..3), 0..12)) {
        let base = fixture("sdp/offer_audio_and_video.sdp");
        let mut lines: Vec<&str> = base.lines().collect();
        for (a, b, what) in seed {
            let (a, b) = (a % lines.len(), b % lines.len());
            match what {
                0 if lines.len() > 1 => { lines.remove(a); }
                1 => lines.swap(a, b),
                _ => lines.insert(a, lines[b]),
            }
        }
        let own = ["203.0.113.7:40000".parse().expect("address")];
        if let Ok(offer) = Offer::parse(&lines.join("\n"), false) {
            let answer = offer.answer(&local_description(&own));
            prop_assert!(answer.len() <= 8_192);
            prop_assert_eq!(check_answer(&offer, &answer), Ok(()));
        }
    }
}
