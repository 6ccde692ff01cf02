//! Validates the call hours of a number as Meta does. Apart from the system's time zone database it
//! is pure.

use std::collections::BTreeMap;

use jiff::tz;
use serde_json::Value;

const DAYS: &[&str] =
    &["MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY", "SUNDAY"];
const SPANS_PER_DAY_MAX: usize = 2;
const HOLIDAYS_MAX: usize = 20;

/// Checks call hours.
///
/// # Errors
///
/// Returns a message about the first invalid member.
pub(super) fn check(hours: &Value) -> Result<(), String> {
    let hours = hours.as_object().ok_or("calling.call_hours must be an object")?;
    let member = |name: &str| hours.get(name).filter(|value| !value.is_null());
    let on = match member("status").map(Value::as_str) {
        Some(Some("ENABLED")) => true,
        Some(Some("DISABLED")) => false,
        _ => return Err("calling.call_hours.status must be one of ENABLED, DISABLED".to_owned()),
    };
    match member("timezone_id").map(|zone| zone.as_str().unwrap_or_default()) {
        Some(zone) if is_zone(zone) => {}
        Some(zone) => {
            return Err(format!("calling.call_hours.timezone_id {zone:?} is not a time zone"));
        }
        None if on => return Err("calling.call_hours.timezone_id is missing".to_owned()),
        None => {}
    }
    match member("weekly_operating_hours") {
        Some(weekly) => check_week(weekly)?,
        None if on => return Err("calling.call_hours.weekly_operating_hours is missing".to_owned()),
        None => {}
    }
    member("holiday_schedule").map_or(Ok(()), check_holidays)
}

fn check_week(weekly: &Value) -> Result<(), String> {
    let path = "calling.call_hours.weekly_operating_hours";
    let mut days: BTreeMap<&str, Vec<(u16, u16)>> = BTreeMap::new();
    for (nr, span) in
        weekly.as_array().ok_or(format!("{path} must be an array"))?.iter().enumerate()
    {
        let path = format!("{path}[{nr}]");
        let day = span["day_of_week"].as_str().filter(|day| DAYS.contains(day));
        let day = day.ok_or(format!("{path}.day_of_week must be one of {}", DAYS.join(", ")))?;
        days.entry(day).or_default().push(times(span, &path, "open_time", "close_time")?);
    }
    for (day, mut spans) in days {
        if spans.len() > SPANS_PER_DAY_MAX {
            return Err(format!("{path}: {day} has more than {SPANS_PER_DAY_MAX} spans"));
        }
        spans.sort_unstable();
        if spans.windows(2).any(|pair| pair[1].0 < pair[0].1) {
            return Err(format!("{path}: the spans of {day} overlap"));
        }
    }
    Ok(())
}

fn check_holidays(holidays: &Value) -> Result<(), String> {
    let path = "calling.call_hours.holiday_schedule";
    let holidays = holidays.as_array().ok_or(format!("{path} must be an array"))?;
    if holidays.len() > HOLIDAYS_MAX {
        return Err(format!("{path} has more than {HOLIDAYS_MAX} days"));
    }
    for (nr, holiday) in holidays.iter().enumerate() {
        let path = format!("{path}[{nr}]");
        let date = holiday["date"].as_str().unwrap_or_default();
        date.parse::<jiff::civil::Date>()
            .map_err(|_| format!("{path}.date {date:?} is not a day: YYYY-MM-DD"))?;
        times(holiday, &path, "start_time", "end_time")?;
    }
    Ok(())
}

/// Parses both times of a span. The first must be before the second.
fn times(span: &Value, path: &str, from: &str, to: &str) -> Result<(u16, u16), String> {
    let time = |name: &str| {
        let text = span[name].as_str().unwrap_or_default();
        let read = text
            .parse::<u16>()
            .ok()
            .filter(|_| text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit()));
        read.filter(|time| time / 100 < 24 && time % 100 < 60)
            .ok_or(format!("{path}.{name} {text:?} is not a time: HHMM, 0000 to 2359"))
    };
    match (time(from)?, time(to)?) {
        (first, last) if first < last => Ok((first, last)),
        (first, last) => Err(format!("{path}: {from} {first:04} must be before {to} {last:04}")),
    }
}

/// Whether the system knows the time zone. Without a time zone database, every name of the usual
/// form is accepted.
fn is_zone(name: &str) -> bool {
    if tz::db().is_definitively_empty() {
        return name == "UTC"
            || name
                .split_once('/')
                .is_some_and(|(area, place)| !area.is_empty() && !place.is_empty());
    }
    tz::TimeZone::get(name).is_ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::check;

    fn week(spans: Value) -> Value {
        json!({"status": "ENABLED", "timezone_id": "Asia/Kolkata", "weekly_operating_hours": spans})
    }

    fn span(open: &str, close: &str) -> Value {
        json!({"day_of_week": "MONDAY", "open_time": open, "close_time": close})
    }

    #[test]
    fn m20_validates_call_hours_as_meta_does() {
        let holiday = json!({"date": "2026-01-26", "start_time": "0000", "end_time": "2359"});
        let mut full = week(json!([span("0900", "1200"), span("1200", "1800")]));
        full["holiday_schedule"] = json!([holiday]);
        for good in [full, json!({"status": "DISABLED"})] {
            assert_eq!(check(&good), Ok(()), "{good}");
        }
        let with = |name: &str, value: Value| {
            let mut hours = week(json!([span("0900", "1800")]));
            hours[name] = value;
            hours
        };
        let holidays = vec![holiday; 21];
        for (bad, words) in [
            (week(json!([span("1800", "0900")])), "open_time 1800 must be before close_time 0900"),
            (week(json!([span("0900", "0900")])), "must be before"),
            (week(json!([span("9:00", "1800")])), "\"9:00\" is not a time"),
            (week(json!([span("0900", "2400")])), "\"2400\" is not a time"),
            (week(json!([span("0900", "1300"), span("1200", "1800")])), "overlap"),
            (
                week(json!([span("0100", "0200"), span("0300", "0400"), span("0500", "0600")])),
                "more than 2 spans",
            ),
            (
                week(json!([{"day_of_week": "FUNDAY", "open_time": "0900", "close_time": "1800"}])),
                "day_of_week",
            ),
            (with("timezone_id", json!("Nowhere")), "\"Nowhere\" is not a time zone"),
            (with("timezone_id", Value::Null), "timezone_id is missing"),
            (with("status", json!("MAYBE")), "status must be one of"),
            (with("holiday_schedule", json!(holidays)), "more than 20 days"),
            (with("holiday_schedule", json!([{"date": "26-01"}])), "\"26-01\" is not a day"),
            (json!("0900"), "must be an object"),
        ] {
            let error = check(&bad).expect_err(words);
            assert!(error.contains(words), "{bad}: {error}");
        }
    }
}
