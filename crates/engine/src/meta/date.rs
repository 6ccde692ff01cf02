//! The `Date` header of HTTP.

use model::Timestamp;

/// Parses an HTTP date (RFC 9110, section 5.6.7), such as `Sat, 21 Nov 2026 00:05:05 GMT`.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let rest = text.split_once(", ")?.1.strip_suffix(" GMT")?;
    let mut parts = rest.split([' ', ':']);
    let number = |parts: &mut std::str::Split<'_, [char; 2]>| parts.next()?.parse::<i64>().ok();
    let day = number(&mut parts)?;
    let name = parts.next()?;
    let month = i64::try_from(MONTHS.iter().position(|month| *month == name)?).ok()? + 1;
    let (year, hour) = (number(&mut parts)?, number(&mut parts)?);
    let (minute, second) = (number(&mut parts)?, number(&mut parts)?);
    let sound = (1970..=9999).contains(&year)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    // Days since 1970-01-01, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (m * 153 + 2) / 5 + day
            - 719_469;
    sound.then(|| Timestamp::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http() {
        for (text, secs) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Tue, 29 Feb 2028 23:59:59 GMT", Some(1_835_481_599)),
            ("Sat, 21 Nov 2026 00:05:05 GMT", Some(1_795_219_505)),
            ("Sat, 21 Nov 2026 00:05 GMT", None),
            ("21 Nov 2026", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), secs.map(Timestamp::from_secs), "{text}");
        }
    }
}
