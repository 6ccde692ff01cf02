//! Filters in the query of a list. An invalid value results in 400 with the name of its parameter.
//! Unknown parameters are ignored.

use std::time::Duration;

use jiff::civil::DateTime;

use super::error::PlivoError;
use model::{AuthId, Direction, HangupSource, Timestamp, digits_of};
use store::{CallFilter, Compare};

/// The names and values of a query, decoded.
pub(super) type Pairs = [(String, String)];

/// Returns the value of a parameter, or the last one if there are several.
pub(super) fn value<'q>(pairs: &'q Pairs, name: &str) -> Option<&'q str> {
    pairs.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
}

/// Parses the filters of the list of calls.
pub(super) fn call_filter(pairs: &Pairs) -> Result<CallFilter, PlivoError> {
    let mut filter = CallFilter::default();
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        match compared(name) {
            ("from_number", Compare::Equal) => filter.from = Some(number(value)),
            ("to_number", Compare::Equal) => filter.to = Some(number(value)),
            ("call_direction", Compare::Equal) => filter.direction = Some(direction(value)?),
            ("subaccount", Compare::Equal) => filter.subaccount = Some(account(name, value)?),
            ("parent_call_uuid", Compare::Equal) => {
                filter.parent_call =
                    Some(value.parse().map_err(|_| bad("parent_call_uuid", "a UUID"))?);
            }
            ("hangup_cause_code", Compare::Equal) => {
                let code = value.parse().map_err(|_| bad("hangup_cause_code", "an integer"))?;
                filter.hangup_codes = Some(code..=code);
            }
            ("hangup_source", Compare::Equal) => {
                let sources = HangupSource::ALL.map(HangupSource::as_str);
                if !sources.contains(&value.as_str()) {
                    return Err(bad(name, &format!("one of {}", sources.join(", "))));
                }
                filter.hangup_source = Some(value.clone());
            }
            ("bill_duration", compare) => {
                let secs = value.parse().ok().filter(|n: &i64| *n >= 0);
                filter
                    .bill_secs
                    .push((compare, secs.ok_or_else(|| bad(name, "an integer of 0 or more"))?));
            }
            ("end_time", compare) => {
                filter.ended.extend(time_bounds(name, compare, value)?);
            }
            _ => {}
        }
    }
    Ok(filter)
}

/// Splits the name of a filter like `end_time__gte` into the field and the comparison.
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

/// Parses the time of a filter, and returns the bounds that it sets. Responses have whole seconds, so
/// a time without a fraction stands for its second: `__gt` excludes the calls that a response shows
/// with this time, and `__lte` includes them.
pub(super) fn time_bounds(
    name: &str,
    compare: Compare,
    value: &str,
) -> Result<Vec<(Compare, Timestamp)>, PlivoError> {
    let wrong = || bad(name, "YYYY-MM-DD or YYYY-MM-DD HH:MM[:SS[.ffffff]]");
    let at = time(value).ok_or_else(wrong)?;
    if value.contains('.') {
        return Ok(vec![(compare, at)]);
    }
    let next = at.plus(Duration::from_secs(1));
    Ok(match compare {
        Compare::Equal => vec![(Compare::GreaterEqual, at), (Compare::Less, next)],
        Compare::Greater => vec![(Compare::GreaterEqual, next)],
        Compare::LessEqual => vec![(Compare::Less, next)],
        Compare::GreaterEqual | Compare::Less => vec![(compare, at)],
    })
}

/// The error for a parameter with an invalid value.
pub(super) fn bad(name: &str, expected: &str) -> PlivoError {
    PlivoError::BadRequest(format!("{name} must be {expected}"))
}

/// Removes the notation of a number. A text that is not a number, such as `anonymous`, is
/// unchanged.
pub(super) fn number(text: &str) -> String {
    let digits = digits_of(text);
    let plain =
        text.chars().all(|c| c.is_ascii_digit() || matches!(c, '+' | ' ' | '-' | '(' | ')' | '.'));
    if plain && !digits.is_empty() { digits } else { text.to_owned() }
}

/// Parses the id of an account.
pub(super) fn account(name: &str, text: &str) -> Result<AuthId, PlivoError> {
    AuthId::parse(text).ok_or_else(|| bad(name, "an auth_id: SA and 18 of A-Z and 0-9"))
}

fn direction(text: &str) -> Result<Direction, PlivoError> {
    match text {
        "inbound" => Ok(Direction::Inbound),
        "outbound" => Ok(Direction::Outbound),
        _ => Err(bad("call_direction", "inbound or outbound")),
    }
}

fn time(text: &str) -> Option<Timestamp> {
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
    use super::{Compare, PlivoError, call_filter, compared, number, time, time_bounds};

    fn pairs(query: &str) -> Vec<(String, String)> {
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    #[test]
    fn parses_times_in_four_notations() {
        let day = 1_795_132_800; // 2026-11-20
        let secs = |text: &str| time(text).map(model::Timestamp::micros);
        assert_eq!(secs("2026-11-20"), Some(day * 1_000_000));
        assert_eq!(secs("2026-11-20 06:03"), Some((day + 6 * 3600 + 180) * 1_000_000));
        assert_eq!(secs("2026-11-20 06:03:11"), Some((day + 6 * 3600 + 191) * 1_000_000));
        assert_eq!(
            secs("2026-11-20 06:03:11+00:00"),
            secs("2026-11-20 06:03:11"),
            "as responses have it"
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
    fn parses_filters_and_names_bad_ones() {
        let all = "from_number=%2B91+98123&to_number=anonymous&call_direction=inbound&subaccount=SAXXXXXXXXXXXXXXXXXX&hangup_cause_code=4000\
            &hangup_source=API+Request&bill_duration__gt=5&bill_duration=6&end_time__lte=2026-11-20&unknown=1&subaccount__gt=x";
        let f = call_filter(&pairs(all)).expect("valid");
        assert_eq!((f.from.as_deref(), f.to.as_deref()), (Some("9198123"), Some("anonymous")));
        assert_eq!(
            (f.hangup_codes, f.hangup_source.as_deref()),
            (Some(4000..=4000), Some("API Request"))
        );
        assert_eq!(f.bill_secs, [(Compare::Greater, 5), (Compare::Equal, 6)]);
        assert_eq!(f.ended.len(), 1);
        for query in [
            "call_direction=up",
            "parent_call_uuid=1",
            "hangup_cause_code=x",
            "bill_duration__lt=-1",
            "end_time__gte=soon",
            "hangup_source=Foo",
            "subaccount=SAfoo",
        ] {
            let PlivoError::BadRequest(what) = call_filter(&pairs(query)).expect_err(query) else {
                panic!("{query}")
            };
            assert!(what.starts_with(query.split('=').next().unwrap()), "{what}");
        }
        assert_eq!(compared("end_time__gte"), ("end_time", Compare::GreaterEqual));
        let shown = "2026-11-20 06:03:11+00:00";
        let at = time("2026-11-20 06:03:11.400").expect("a time");
        for (compare, is_found) in [
            (Compare::Equal, true),
            (Compare::Greater, false),
            (Compare::GreaterEqual, true),
            (Compare::Less, false),
            (Compare::LessEqual, true),
        ] {
            let bounds = time_bounds("end_time", compare, shown).expect("valid");
            let holds = bounds.iter().all(|(compare, bound)| compare.holds(&at, bound));
            assert_eq!(holds, is_found, "{compare:?}");
        }
        let exact = time_bounds("end_time", Compare::Greater, "2026-11-20 06:03:11.400");
        assert_eq!(exact.expect("valid"), [(Compare::Greater, at)]);
        assert_eq!(number("+91 (98) 1-2"), "919812");
    }
}
