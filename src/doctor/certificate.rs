//! How long the public URL's certificate is good. Of X.509 (RFC 5280 §4.1) only the end of its time is read: the TLS
//! library judges everything else, and tells no dates.

use super::Line;
use model::Timestamp;

/// Fewer days left than this: somebody should look why it is not renewed.
const DAYS: i64 = 14;
const DAY_SECS: i64 = 86_400;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version, which stands in front of the serial number where it is not 1.
const VERSION: u8 = 0xa0;

/// What there is to say of a good certificate.
pub(super) fn line(der: &[u8], now: Timestamp) -> Line {
    const IS: &str = "certificate";
    let Some(end) = not_after(der) else {
        return Line::warning(
            IS,
            "until when it is good can't be read",
            "look at it: `openssl x509 -noout -enddate`",
        );
    };
    let days = end.secs().saturating_sub(now.secs()).div_euclid(DAY_SECS);
    let what = format!("good for {days} more days, until {end}");
    if days < DAYS {
        return Line::warning(
            IS,
            what,
            "renew it now: what should have renewed it by itself does not",
        );
    }
    Line::ok(IS, what)
}

/// The end of a certificate's time.
fn not_after(der: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = element(der, SEQUENCE)?;
    let (mut body, _) = element(certificate, SEQUENCE)?;
    if body.first() == Some(&VERSION) {
        body = any(body)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        body = any(body)?.2;
    }
    let (validity, _) = element(body, SEQUENCE)?;
    let (_, _, rest) = any(validity)?;
    let (tag, end, _) = any(rest)?;
    time(tag, end)
}

/// The content of an element of this tag, and what stands behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = any(der)?;
    (found == tag).then_some((content, rest))
}

/// Tag, content, and what stands behind.
fn any(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ ..=0x7f => (short, rest),
        // So many bytes have the length; certificates need two or three.
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(long - 0x80)?;
            (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, whose years below 50 are of this century, or `YYYYMMDDHHMMSSZ`.
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

    fn made(end: (i32, u8, u8)) -> Vec<u8> {
        let mut params =
            rcgen::CertificateParams::new(vec!["calls.example.com".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(end.0, end.1, end.2);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificates_end_is_read_in_either_form_and_judged() {
        let day = |text: &str| {
            Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
        };
        let now = day("2026-11-21T00:00:00Z");
        for (end, is, state) in [
            ((2026, 12, 5), "2026-12-05T00:00:00Z", State::Ok),
            ((2026, 12, 4), "2026-12-04T00:00:00Z", State::Warning),
            // Behind 2049 it is written otherwise.
            ((2061, 1, 2), "2061-01-02T00:00:00Z", State::Ok),
        ] {
            let der = made(end);
            assert_eq!(not_after(&der), Some(day(is)));
            let line = line(&der, now);
            assert_eq!(
                (line.state, line.fix.is_some()),
                (state, state != State::Ok),
                "{}",
                line.what
            );
        }
        let der = made((2026, 12, 5));
        for end in 0..der.len().min(300) {
            let _ = not_after(&der[..end]);
        }
        assert_eq!(line(b"nonsense", now).state, State::Warning);
    }
}
