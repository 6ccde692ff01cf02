//! Reads until when the public URL's certificate is valid. Only this field of X.509 (RFC 5280 §4.1)
//! is parsed: the TLS library verifies everything else but does not expose dates.

use super::Finding;
use model::Timestamp;

/// Days left below which the certificate should have been renewed.
const DAYS: i64 = 14;
const DAY_SECS: i64 = 86_400;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, which is present only if it is not 1.
const VERSION: u8 = 0xa0;

/// The finding for a valid certificate.
pub(super) fn finding(der: &[u8], now: Timestamp) -> Finding {
    const IS: &str = "certificate";
    let Some(end) = not_after(der) else {
        return Finding::warning(
            IS,
            "its end of validity can't be read",
            "inspect it with `openssl x509 -noout -enddate`",
        );
    };
    let days = end.secs().saturating_sub(now.secs()).div_euclid(DAY_SECS);
    let what = format!("valid for {days} more days, until {end}");
    if days < DAYS {
        return Finding::warning(IS, what, "renew it now; its automatic renewal does not work");
    }
    Finding::ok(IS, what)
}

/// The end of the validity period.
fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut body, _) = element(certificate, SEQUENCE)?;
    if body.first() == Some(&VERSION) {
        body = any(body)?.2;
    }
    // Skip the serial number, signature algorithm and issuer.
    for _ in 0..3 {
        body = any(body)?.2;
    }
    let (validity, _) = element(body, SEQUENCE)?;
    let (_, _, rest) = any(validity)?;
    let (tag, end, _) = any(rest)?;
    time(tag, end)
}

/// The content of an element with this tag, and the bytes after it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content and the bytes after the element.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ ..=0x7f => (short, rest),
        // The number of length bytes. Certificates need two or three.
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
            (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// Parses `YYMMDDHHMMSSZ`, where years below 50 are in this century, or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(text).ok()?;
    let full = match tag {
        UTC_TIME => {
            let year: u32 = text.get(..2)?.parse().ok()?;
            format!("{}{text}", if year < 50 { "20" } else { "19" })
        }
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let civil = jiff::civil::DateTime::strptime("%Y%m%d%H%M%SZ", &full).ok()?;
    let zoned = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp::from_micros(zoned.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn certificate(end: (i32, u8, u8)) -> Vec<u8> {
        let mut params =
            rcgen::CertificateParams::new(vec!["calls.example.com".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn reads_the_end_of_validity_in_both_forms() {
        let day = |text: &str| {
            Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
        };
        let now = day("2026-11-21T00:00:00Z");
        for (end, is, state) in [
            ((2026, 12, 5), "2026-12-05T00:00:00Z", State::Ok),
            ((2026, 12, 4), "2026-12-04T00:00:00Z", State::Warning),
            // From 2050 on the long form is used.
            ((2061, 1, 2), "2061-01-02T00:00:00Z", State::Ok),
        ] {
            let der = certificate(end);
            assert_eq!(not_after(&der), Some(day(is)));
            let finding = finding(&der, now);
            assert_eq!(
                (finding.state, finding.fix.is_some()),
                (state, state != State::Ok),
                "{}",
                finding.what
            );
        }
        let der = certificate((2026, 12, 5));
        for end in 0..der.len().min(300) {
            let _ = not_after(&der[..end]);
        }
        assert_eq!(finding(b"nonsense", now).state, State::Warning);
    }
}
