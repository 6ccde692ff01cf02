//! The list of calls: live ones, and the history with its filters.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::Response;

use super::App;
use super::auth::Visitor;
use super::form::Form;
use super::i18n::Lang;
use super::page::{Page, failed, html};
use super::view::{self, When};
use crate::api::{LiveCall, LiveStatus};
use model::{CallUuid, Country, Direction, Timestamp};
use store::{CallFilter, CallRecord, Compare};

/// Number of ended calls per page, and maximum number of live ones.
const PAGE: u32 = 50;
const LIVE_MAX: usize = 1_000;
/// Maximum number of numbers in the filter.
const NUMBERS_MAX: usize = 500;

/// Filter fields of the history and of the live calls.
const FIELDS: &[&str] = &["from", "to", "direction", "outcome", "since", "until"];
const LIVE_FIELDS: &[&str] = &["up", "up_direction", "up_state"];

/// A call in a list.
pub(super) struct Row {
    pub(super) id: CallUuid,
    /// CSS class, `in` or `out`, and text key of the direction.
    pub(super) arrow: &'static str,
    pub(super) direction: &'static str,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) name: String,
    /// Country of the other party.
    pub(super) country: Option<Country>,
    pub(super) started: When,
    /// Empty while the call is live.
    pub(super) length: String,
    /// Text of the state, and CSS class of its mark.
    pub(super) state: String,
    pub(super) tone: &'static str,
}

impl Row {
    /// The other party, which titles the call: its name or number.
    pub(super) fn person(&self) -> &str {
        match (self.name.as_str(), self.arrow) {
            ("", "out") => &self.to,
            ("", _) => &self.from,
            (name, _) => name,
        }
    }

    /// Whether the title is the caller's number already.
    pub(super) fn is_titled_by_caller(&self) -> bool {
        self.name.is_empty() && self.arrow != "out"
    }
}

#[derive(Template)]
#[template(path = "calls.html")]
struct CallsPage {
    page: Page,
    up: Vec<Row>,
    /// Number of live calls that match the filter, and of all.
    up_count: usize,
    up_all: usize,
    up_filtered: bool,
    up_query: String,
    up_direction: String,
    up_state: String,
    /// Each list has its own form. These are the fields of the other list that a form keeps, and
    /// the links that clear one filter.
    kept: Vec<(&'static str, String)>,
    up_kept: Vec<(&'static str, String)>,
    up_clear: String,
    clear: String,
    ended: Vec<Row>,
    next: String,
    first: bool,
    filtered: bool,
    from: String,
    to: String,
    direction: String,
    outcome: String,
    since: String,
    until: String,
    /// The numbers of the account with their aliases.
    numbers: Vec<(String, String)>,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    let (lang, query) = (visitor.lang(), &visitor.query);
    let api = console.apis.api();
    let scope = visitor.person.scope();
    let filter = filter(query);
    let filtered = FIELDS.iter().any(|name| query.some(name).is_some());
    let first = filter.before.is_none();
    let mut live = if first { api.live.list(&scope) } else { Vec::new() };
    let up_all = live.len();
    let live_filter = LiveCallFilter::read(query);
    live.retain(|call| live_filter.matches(call));
    api.store.flush().await;
    let mut records = match api.store.calls().newest(&scope, &filter, PAGE + 1).await {
        Ok(records) => records,
        Err(error) => {
            tracing::warn!(%error, "failed to list calls");
            return failed(&console, &visitor, axum::http::StatusCode::SERVICE_UNAVAILABLE, "");
        }
    };
    let more = records.len() > usize::try_from(PAGE).unwrap_or(usize::MAX);
    records.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    let cursor = records
        .last()
        .filter(|_| more)
        .map(|r| format!("{}.{}", r.start.started.micros(), r.start.call));
    let calls = CallsPage {
        up_count: live.len(),
        up_all,
        up_filtered: LIVE_FIELDS.iter().any(|name| query.some(name).is_some()),
        up_query: query.get("up").to_owned(),
        up_direction: query.get("up_direction").to_owned(),
        up_state: query.get("up_state").to_owned(),
        kept: kept(query, FIELDS),
        up_kept: kept(query, LIVE_FIELDS),
        up_clear: query.only(FIELDS),
        clear: query.only(LIVE_FIELDS),
        up: live.iter().take(LIVE_MAX).map(|call| live_row(lang, call)).collect(),
        ended: records
            .iter()
            .filter(|record| record.end.is_some())
            .map(|record| ended_row(lang, record))
            .collect(),
        next: cursor.map(|cursor| query.with("before", Some(&cursor))).unwrap_or_default(),
        first,
        filtered,
        from: query.get("from").to_owned(),
        to: query.get("to").to_owned(),
        direction: query.get("direction").to_owned(),
        outcome: query.get("outcome").to_owned(),
        since: query.get("since").to_owned(),
        until: query.get("until").to_owned(),
        numbers: {
            let book = api.keeper.book();
            let own = book.numbers(&scope).into_iter().take(NUMBERS_MAX);
            own.map(|number| (view::party(number.number.as_str()), number.set.alias.clone()))
                .collect()
        },
        page: visitor.page(&console, lang.t("nav.calls"), "calls").listening(if first {
            "call"
        } else {
            ""
        }),
    };
    html(&calls)
}

fn kept(query: &Form, fields: &[&'static str]) -> Vec<(&'static str, String)> {
    fields.iter().filter_map(|name| Some((*name, query.some(name)?.to_owned()))).collect()
}

/// Filter of the live calls.
struct LiveCallFilter {
    /// Text to find in a number or the caller's name, and the same as bare digits if it is a
    /// number.
    text: String,
    digits: String,
    direction: Option<Direction>,
    status: Option<LiveStatus>,
}

impl LiveCallFilter {
    fn read(query: &Form) -> Self {
        let text = query.get("up").to_lowercase();
        let bare: String =
            text.chars().filter(|c| !matches!(c, ' ' | '-' | '+' | '(' | ')')).collect();
        let is_number = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit());
        Self {
            digits: if is_number { bare } else { String::new() },
            text,
            direction: direction(query.get("up_direction")),
            status: match query.get("up_state") {
                "queued" => Some(LiveStatus::Queued),
                "ringing" => Some(LiveStatus::Ringing),
                "in-progress" => Some(LiveStatus::InProgress),
                _ => None,
            },
        }
    }

    fn matches(&self, call: &LiveCall) -> bool {
        let is_in = |party: &str| {
            let party = party.to_lowercase();
            party.contains(&self.text) || (!self.digits.is_empty() && party.contains(&self.digits))
        };
        (self.text.is_empty()
            || [&call.from, &call.to, &call.caller_name].into_iter().any(|party| is_in(party)))
            && self.direction.is_none_or(|direction| direction == call.direction)
            && self.status.is_none_or(|status| status == call.status)
    }
}

fn direction(word: &str) -> Option<Direction> {
    match word {
        "inbound" => Some(Direction::Inbound),
        "outbound" => Some(Direction::Outbound),
        _ => None,
    }
}

/// A number in a filter, as records of calls have it. Other text, such as a SIP address, is kept.
pub(super) fn number(query: &Form, name: &str) -> Option<String> {
    let text = query.some(name)?;
    let bare: String = text.chars().filter(|c| !matches!(c, ' ' | '-' | '+' | '(' | ')')).collect();
    Some(if bare.bytes().all(|b| b.is_ascii_digit()) { bare } else { text.to_owned() })
}

fn filter(query: &Form) -> CallFilter {
    let cursor = |text: &str| {
        let (micros, call) = text.split_once('.')?;
        Some((Timestamp::from_micros(micros.parse().ok()?), call.parse().ok()?))
    };
    CallFilter {
        from: number(query, "from"),
        to: number(query, "to"),
        direction: direction(query.get("direction")),
        bill_secs: match query.get("outcome") {
            "answered" => vec![(Compare::Greater, 0)],
            "missed" => vec![(Compare::Equal, 0)],
            _ => Vec::new(),
        },
        ended: days(query.get("since"), query.get("until")),
        before: query.some("before").and_then(cursor),
        ..CallFilter::default()
    }
}

/// The range from the start of one day to the end of another, in UTC. An unreadable date leaves its
/// side open.
pub(super) fn days(since: &str, until: &str) -> Vec<(Compare, Timestamp)> {
    let begins = |day: &str| {
        let day: jiff::civil::Date = day.parse().ok()?;
        let at = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        Some(Timestamp::from_micros(at.as_microsecond()))
    };
    let since = begins(since).map(|at| (Compare::GreaterEqual, at));
    let until = begins(until).map(|at| (Compare::Less, at.plus(Duration::from_secs(86_400))));
    since.into_iter().chain(until).collect()
}

/// The row of a live or queued call.
pub(super) fn live_row(lang: Lang, call: &LiveCall) -> Row {
    let (state, tone) = match call.status {
        LiveStatus::Queued => ("state.queued", "waiting"),
        LiveStatus::Ringing => ("state.ringing", "waiting"),
        LiveStatus::InProgress => ("state.live", "live"),
    };
    Row {
        id: call.call,
        arrow: arrow(call.direction),
        direction: view::direction(call.direction),
        from: view::party(&call.from),
        to: view::party(&call.to),
        name: call.caller_name.clone(),
        country: country(call.direction, &call.from, &call.to),
        started: When::of(call.started),
        length: String::new(),
        state: lang.t(state).to_owned(),
        tone,
    }
}

/// The row of an ended call.
pub(super) fn ended_row(lang: Lang, record: &CallRecord) -> Row {
    let (start, end) = (&record.start, record.end.as_ref());
    let cause = end.map_or("", |end| end.cause.as_str());
    let answered = end.is_some_and(|end| end.answered.is_some());
    Row {
        id: start.call,
        arrow: arrow(start.direction),
        direction: view::direction(start.direction),
        from: view::party(&start.from),
        to: view::party(&start.to),
        name: start.caller_name.clone(),
        country: country(start.direction, &start.from, &start.to),
        started: When::of(start.started),
        length: match end.filter(|_| answered) {
            Some(end) => view::clock(Duration::from_secs(end.bill_secs)),
            None => "–".to_owned(),
        },
        state: view::cause(lang, cause).0,
        tone: view::tone(cause, answered),
    }
}

/// The country of the other party.
fn country(direction: Direction, from: &str, to: &str) -> Option<Country> {
    view::country(match direction {
        Direction::Inbound => from,
        Direction::Outbound => to,
    })
}

fn arrow(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "in",
        Direction::Outbound => "out",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::AuthId;

    fn call(from: &str, name: &str, direction: Direction, status: LiveStatus) -> LiveCall {
        LiveCall {
            call: CallUuid(uuid::Uuid::nil()),
            account: AuthId::from("MA1"),
            main_account: AuthId::from("MA1"),
            direction,
            from: from.to_owned(),
            to: "918035737458".to_owned(),
            caller_name: name.to_owned(),
            status,
            started: Timestamp::from_micros(0),
            answered: None,
            parent_call: None,
            b_leg: None,
        }
    }

    #[test]
    fn history_covers_whole_days() {
        let range = |since, until| {
            days(since, until)
                .into_iter()
                .map(|(compare, at)| (compare, at.rfc3339()))
                .collect::<Vec<_>>()
        };
        let day = [
            (Compare::GreaterEqual, "2026-03-01T00:00:00.000Z".to_owned()),
            (Compare::Less, "2026-03-02T00:00:00.000Z".to_owned()),
        ];
        assert_eq!(range("2026-03-01", "2026-03-01"), day);
        assert_eq!(range("2026-02-30", "tomorrow"), []);
        assert_eq!(range("", "2026-03-01"), day[1..]);
    }

    #[test]
    fn rows_show_the_country_of_the_other_party() {
        let inbound = call("14165550123", "", Direction::Inbound, LiveStatus::Ringing);
        let mut outbound = call("918035737458", "", Direction::Outbound, LiveStatus::Ringing);
        outbound.to = "18765550123".to_owned();
        let endpoint = call("sip:desk@acme", "", Direction::Inbound, LiveStatus::Ringing);
        let rows = [inbound, outbound, endpoint].map(|call| live_row(Lang::En, &call).country);
        assert_eq!(rows, [Some(Country::CA), Country::parse("JM").ok(), None]);
    }

    #[test]
    fn filters_live_calls_by_number_name_direction_and_state() {
        let asha = call("919812345678", "Asha Verma", Direction::Inbound, LiveStatus::InProgress);
        let desk = call("sip:desk@acme", "", Direction::Outbound, LiveStatus::Queued);
        let cases = [
            ("", [true, true]),
            ("up=%2B91+98123-45", [true, false]),
            ("up=35737", [true, true]),
            ("up=asha+v", [true, false]),
            ("up=DESK", [false, true]),
            ("up=nobody", [false, false]),
            ("up_direction=outbound", [false, true]),
            ("up_state=in-progress", [true, false]),
            ("up_state=queued&up_direction=inbound", [false, false]),
            ("up_state=nonsense&up_direction=x", [true, true]),
        ];
        for (query, found) in cases {
            let live_filter = LiveCallFilter::read(&Form::read(query.as_bytes()));
            assert_eq!([&asha, &desk].map(|call| live_filter.matches(call)), found, "{query}");
        }
    }
}
