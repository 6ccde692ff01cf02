//! The checks that Meta applies to an answer, for the simulated Meta and for tests
//! (docs/reference/meta.md#m7).
//!
//! This module is independent of `answer`, so that each tests the other.

use std::fmt;

use super::parse::sha256;
use super::{Direction, Offer, Setup};

/// A rule for answers (docs/reference/meta.md#offhooks-answer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The sections, payload types and attributes mirror the offer.
    A1,
    /// The answer to an ICE-lite offer is not ICE-lite.
    A2,
    /// The ICE credentials have a valid length and alphabet.
    A4,
    /// There is exactly one SHA-256 fingerprint.
    A5,
    /// The DTLS role fits that of the offer.
    A6,
}

/// A reason for which Meta would refuse an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {problem}: {line}")]
pub struct AnswerError {
    pub rule: Rule,
    /// The offending or missing line.
    pub line: String,
    pub problem: &'static str,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn error<T>(rule: Rule, problem: &'static str, line: impl Into<String>) -> Result<T, AnswerError> {
    // The line may contain credentials, so it is truncated.
    Err(AnswerError { rule, problem, line: line.into().chars().take(120).collect() })
}

/// Checks that `answer` answers `offer` according to rules A1, A2, A4, A5 and A6.
///
/// # Errors
///
/// Returns the first violation.
pub fn check_answer(offer: &Offer, answer: &str) -> Result<(), AnswerError> {
    use Rule::{A1, A2, A4, A5, A6};
    let lines: Vec<&str> =
        answer.split("\r\n").flat_map(|l| l.split('\n')).filter(|l| !l.is_empty()).collect();
    if lines.first() != Some(&"v=0") {
        return error(A1, "answer is not SDP", lines.first().copied().unwrap_or("(empty)"));
    }
    if let Some(lite) = lines.iter().find(|l| **l == "a=ice-lite")
        && offer.ice_lite
    {
        return error(A2, "both sides are ICE-lite", *lite);
    }

    let mut levels = lines.chunk_by(|_, next| !next.starts_with("m="));
    let session = levels.next().unwrap_or_default();
    let media: Vec<&[&str]> = levels.collect();
    if media.len() != offer.sections.len() {
        return error(
            A1,
            "number of media sections differs from the offer",
            format!("m= ({})", media.len()),
        );
    }
    for (index, (section, offered)) in media.iter().zip(&offer.sections).enumerate() {
        let line = section.first().copied().unwrap_or_default();
        let words: Vec<&str> = line.strip_prefix("m=").unwrap_or_default().split(' ').collect();
        let [kind, port, proto, formats @ ..] = words.as_slice() else {
            return error(A1, "line is malformed", line);
        };
        if *kind != offered.media || *proto != offered.proto {
            return error(A1, "medium or protocol differs from the offer", line);
        }
        if index != offer.audio {
            if *port != "0" {
                return error(A1, "only audio may be accepted", line);
            }
            continue;
        }
        if !port.parse::<u16>().is_ok_and(|p| p != 0) {
            return error(A1, "port is not 1 to 65535", line);
        }
        let taken = |pt: u8| formats.iter().any(|f| f.parse() == Ok(pt));
        if formats.is_empty() || formats.iter().any(|f| offered.formats.iter().all(|o| o != f)) {
            return error(A1, "payload type was not offered", line);
        }
        if !taken(offer.opus_pt) {
            return error(A1, "opus is not accepted with the offer's payload type", line);
        }
        if offer.telephone_event_out().is_some_and(|t| !taken(t.pt)) {
            return error(
                A1,
                "telephone-event is not accepted with the offer's payload type",
                line,
            );
        }
        audio(offer, session, section)?;
    }

    let audio = media.get(offer.audio).copied().unwrap_or_default();
    let credential = |name: &str, min: usize| {
        let value = audio
            .iter()
            .chain(session)
            .find_map(|l| l.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':'));
        let fits = |v: &str| {
            (min..=256).contains(&v.len())
                && v.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        };
        match value {
            Some(value) if fits(value) => Ok(()),
            Some(_) => {
                error(A4, "too short, too long or with invalid characters", format!("a={name}"))
            }
            None => error(A4, "missing", format!("a={name}")),
        }
    };
    credential("ice-ufrag", 8)?;
    credential("ice-pwd", 24)?;

    let mut fingerprints = lines.iter().filter(|l| l.starts_with("a=fingerprint:"));
    let Some(first) = fingerprints.next() else { return error(A5, "missing", "a=fingerprint") };
    let value = first.trim_start_matches("a=fingerprint:");
    let (hash, hex) = value.split_once(' ').unwrap_or_default();
    if hash != "sha-256" || sha256(value).is_none() || hex.bytes().any(|b| b.is_ascii_lowercase()) {
        return error(A5, "not sha-256 in upper-case hex with colons", *first);
    }
    if let Some(second) = fingerprints.next() {
        return error(A5, "Fingerprint algo is not SHA256", *second);
    }

    let setups: Vec<&&str> = lines.iter().filter(|l| l.starts_with("a=setup:")).collect();
    let expected = match offer.setup {
        Setup::Active => "a=setup:passive",
        Setup::Actpass | Setup::Passive => "a=setup:active",
    };
    match setups.as_slice() {
        [one] if **one == expected => Ok(()),
        [one, ..] => error(A6, "DTLS role does not fit that of the offer", **one),
        [] => error(A6, "missing", "a=setup"),
    }
}

fn audio(offer: &Offer, session: &[&str], lines: &[&str]) -> Result<(), AnswerError> {
    let has = |expected: &str| lines.contains(&expected);
    if let Some(mid) = &offer.mid {
        let (line, group) = (format!("a=mid:{mid}"), format!("a=group:BUNDLE {mid}"));
        if !has(&line) {
            return error(Rule::A1, "missing", line);
        }
        if !session.contains(&group.as_str()) {
            return error(Rule::A1, "missing", group);
        }
    }
    if !has("a=rtcp-mux") {
        return error(Rule::A1, "missing", "a=rtcp-mux");
    }
    let direction = format!("a={}", offer.direction.mirrored().as_str());
    // A missing direction means sendrecv (RFC 8866 §6.7), but A1 requires it to be stated.
    if !has(&direction)
        || (offer.direction == Direction::SendRecv
            && ["a=sendonly", "a=recvonly", "a=inactive"].iter().any(|l| has(l)))
    {
        return error(Rule::A1, "missing", direction);
    }
    let opus = format!("a=rtpmap:{} opus/48000/2", offer.opus_pt);
    if !has(&opus) {
        return error(Rule::A1, "missing", opus);
    }
    Ok(())
}
