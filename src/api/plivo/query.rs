//! Query strings of lists (§2.3): filters and times. A bad value is 400 and names its field; an unknown
//! filter is nothing.

use jiff::civil::DateTime;

use super::No;
use model::{Direction, Timestamp, digits_of};
use store::{CallFilter, Compare};

/// A query's pairs.
pub(super) type Pairs = [(String, String)];

pub(super) fn value<'q>(pairs: &'q Pairs, name: &str) -> Option<&'q str> {
    pairs.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

pub(super) fn filter(pairs: &Pairs) -> Result<CallFilter, No> {
    let mut filter = CallFilter::default();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        match compared(name) {
            ("from_number", Compare::Equal) => filter.from = Some(number(value)),
            ("to_number", Compare::Equal) => filter.to = Some(number(value)),
            ("call_direction", Compare::Equal) => filter.direction = Some(direction(value)?),
            ("subaccount", Compare::Equal) => filter.subaccount = Some(value.as_str().into()),
            ("parent_call_uuid", Compare::Equal) => {
                filter.parent_call =
                    Some(value.parse().map_err(|_| bad("parent_call_uuid", "a UUID"))?);
            }
            ("hangup_cause_code", Compare::Equal) => {
                filter.hangup_code =
                    Some(value.parse().map_err(|_| bad("hangup_cause_code", "an integer"))?);
            }
            ("hangup_source", Compare::Equal) => filter.hangup_source = Some(value.clone()),
            ("bill_duration", compare) => {
                let secs = value.parse().ok().filter(|n: &i64| *n >= 0);
                filter
                    .bill_secs
                    .push((compare, secs.ok_or_else(|| bad(name, "an integer of 0 or more"))?));
            }
            ("end_time", compare) => {
                filter.ended.push((compare, time_of(name, value)?));
            }
            _ => {}
        }
    }
    Ok(filter)
}

/// A filter's field and its comparison: `end_time__gte`.
pub(super) fn compared(name: &str) -> (&str, Compare) {
    let suffixes = [
        ("__gte", Compare::GreaterEqual),
        ("__gt", Compare::Greater),
        ("__lte", Compare::LessEqual),
        ("__lt", Compare::Less),
    ];
    let of = |(suffix, compare)| Some((name.strip_suffix(suffix)?, compare));
    suffixes.into_iter().find_map(of).unwrap_or((name, Compare::Equal))
}

/// A filter's time.
pub(super) fn time_of(name: &str, value: &str) -> Result<Timestamp, No> {
    time(value).ok_or_else(|| bad(name, "YYYY-MM-DD or YYYY-MM-DD HH:MM[:SS[.ffffff]]"))
}

pub(super) fn bad(name: &str, wanted: &str) -> No {
    No::Bad(format!("{name} must be {wanted}"))
}

/// Numbers come with or without a plus; what is no number (`anonymous`) stays as it is.
pub(super) fn number(text: &str) -> String {
    let digits = digits_of(text);
    let plain =
        text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | ' ' | '-' | '(' | ')' | '.'));
    if plain && !digits.is_empty() { digits } else { text.to_owned() }
}

pub(super) fn direction(text: &str) -> Result<Direction, No> {
    match text {
        "inbound" => Ok(Direction::Inbound),
        "outbound" => Ok(Direction::Outbound),
        _ => Err(bad("call_direction", "inbound or outbound")),
    }
}

pub(super) fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim().trim_end_matches("+00:00");
    let formats = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"];
    let civil =
        formats.iter().find_map(|format| DateTime::strptime(format, text).ok()).or_else(|| {
            jiff::civil::Date::strptime("%Y-%m-%d", text).ok().map(|date| date.at(0, 0, 0, 0))
        })?;
    let utc = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp::from_micros(utc.timestamp().as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::{Compare, No, compared, filter, number, time};

    fn pairs(query: &str) -> Vec<(String, String)> {
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    #[test]
    fn times_have_four_forms() {
        let day = 1_795_132_800; // 2026-11-20
        let secs = |text: &str| time(text).map(model::Timestamp::micros);
        assert_eq!(secs("2026-11-20"), Some(day * 1_000_000));
        assert_eq!(secs("2026-11-20 06:03"), Some((day + 6 * 3600 + 180) * 1_000_000));
        assert_eq!(secs("2026-11-20 06:03:11"), Some((day + 6 * 3600 + 191) * 1_000_000));
        assert_eq!(
            secs("2026-11-20 06:03:11+00:00"),
            secs("2026-11-20 06:03:11"),
            "as we print it"
        );
        assert_eq!(
            secs("2026-11-20 06:03:11.120394"),
            Some((day + 6 * 3600 + 191) * 1_000_000 + 120_394)
        );
        for text in ["yesterday", "2026-13-01", "2026-11-20T06:03", "20.11.2026", ""] {
            assert_eq!(secs(text), None, "{text}");
        }
    }

    #[test]
    fn filters_are_read_or_named() {
        let all = "from_number=%2B91+98123&to_number=anonymous&call_direction=inbound&subaccount=SA1&hangup_cause_code=4000\
            &hangup_source=API+Request&bill_duration__gt=5&bill_duration=6&end_time__lte=2026-11-20&unknown=1&subaccount__gt=x";
        let f = filter(&pairs(all)).expect("good");
        assert_eq!((f.from.as_deref(), f.to.as_deref()), (Some("9198123"), Some("anonymous")));
        assert_eq!((f.hangup_code, f.hangup_source.as_deref()), (Some(4000), Some("API Request")));
        assert_eq!(f.bill_secs, [(Compare::Greater, 5), (Compare::Equal, 6)]);
        assert_eq!(f.ended.len(), 1);
        for query in [
            "call_direction=up",
            "parent_call_uuid=1",
            "hangup_cause_code=x",
            "bill_duration__lt=-1",
            "end_time__gte=soon",
        ] {
            let No::Bad(what) = filter(&pairs(query)).expect_err(query) else { panic!("{query}") };
            assert!(what.starts_with(query.split('=').next().unwrap()), "{what}");
        }
        assert_eq!(compared("end_time__gte"), ("end_time", Compare::GreaterEqual));
        assert_eq!(number("+91 (98) 1-2"), "919812");
    }
}
