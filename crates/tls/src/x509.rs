//! Reads the validity period of a certificate. Only this field of X.509 (RFC 5280 §4.1) is parsed:
//! the TLS library verifies everything else but does not expose dates.

use model::Timestamp;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The tag of the version field, which is present only if the version is not 1.
const VERSION: u8 = 0xa0;

/// The validity period of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl Validity {
    /// Reads the period of a certificate in DER format. Returns `None` if it can't be parsed.
    pub fn of(der: &[u8]) -> Option<Self> {
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
        let (tag, begin, rest) = any(validity)?;
        let not_before = time(tag, begin)?;
        let (tag, end, _) = any(rest)?;
        Some(Self { not_before, not_after: time(tag, end)? })
    }
}

/// Returns the content of an element with this tag, and the bytes after it. `None` if there is no
/// such element.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any(der)?;
    (found == tag).then_some((content, rest))
}

/// Returns the tag and the content of an element, and the bytes after it. `None` if it is
/// malformed.
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

/// Parses `YYMMDDHHMMSSZ`, where years below 50 are in this century, or `YYYYMMDDHHMMSSZ`. Returns
/// `None` for any other text.
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

    fn certificate(begin: (i32, u8, u8), end: (i32, u8, u8)) -> Vec<u8> {
        let mut params =
            rcgen::CertificateParams::new(vec!["calls.example.com".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(begin.0, begin.1, begin.2);
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn reads_the_validity_period_in_both_forms() {
        let day = |text: &str| {
            Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
        };
        for (begin, begins, end, ends) in [
            ((2026, 9, 6), "2026-09-06T00:00:00Z", (2026, 12, 5), "2026-12-05T00:00:00Z"),
            // From 2050 on the long form is used.
            ((2026, 9, 6), "2026-09-06T00:00:00Z", (2061, 1, 2), "2061-01-02T00:00:00Z"),
        ] {
            let der = certificate(begin, end);
            let validity = Validity { not_before: day(begins), not_after: day(ends) };
            assert_eq!(Validity::of(&der), Some(validity));
            for end in 0..der.len().min(300) {
                let _ = Validity::of(&der[..end]);
            }
        }
        assert_eq!(Validity::of(b"nonsense"), None);
    }
}
