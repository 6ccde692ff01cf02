//! The list of calls: live ones, and the history with its filters, which users can save.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse as _, Redirect, Response};

use super::App;
use super::auth::{SubmittedForm, Visitor};
use super::call_row::{self, Row};
use super::form::{Form, Unreadable};
use super::page::{Page, bad_query, failed, html};
use super::view;
use crate::api::{LiveCall, LiveStatus, turns};
use model::{Direction, Timestamp, is_line};
use store::{CallFilter, CallSort, Compare};

/// Maximum number of calls in a file.
pub(super) const CSV_MAX: u32 = 10_000;

/// Number of ended calls per page, and maximum number of live ones.
const PAGE: u32 = 50;
const LIVE_MAX: usize = 1_000;
/// Maximum number of phone numbers in the filter.
const NUMBERS_MAX: usize = 500;

/// Maximum number of legs on a page.
const LEGS_MAX: u32 = 500;
/// Maximum length of a saved filter's name in characters, and of its query.
const FILTER_NAME_MAX: usize = 60;
const FILTER_MAX: usize = 1_000;

/// Filter fields of the history and of the live calls.
const FIELDS: &[&str] =
    &["party", "from", "to", "direction", "outcome", "since", "until", "agent", "sort"];
const LIVE_FIELDS: &[&str] = &["up", "up_direction", "up_state"];

/// A saved filter.
struct SavedFilter {
    name: String,
    query: String,
    /// Whether the page shows this filter.
    chosen: bool,
}

/// A heading that sorts the list.
struct SortLink {
    query: String,
    /// Value of `aria-sort`.
    order: &'static str,
}

impl SortLink {
    /// The heading of a column. It sorts by `first`, and by `second` when chosen again.
    fn of(query: &Form, now: CallSort, first: CallSort, second: CallSort) -> Self {
        let next = if now == first { second } else { first };
        let order = match (now == first || now == second, now.is_ascending()) {
            (false, _) => "none",
            (true, true) => "ascending",
            (true, false) => "descending",
        };
        Self { query: query.without("before").with("sort", sort_word(next)), order }
    }
}

fn sort(word: &str) -> Option<CallSort> {
    match word {
        "newest" => Some(CallSort::Newest),
        "oldest" => Some(CallSort::Oldest),
        "longest" => Some(CallSort::Longest),
        "shortest" => Some(CallSort::Shortest),
        "best" => Some(CallSort::BestQuality),
        "worst" => Some(CallSort::WorstQuality),
        _ => None,
    }
}

fn sort_word(sort: CallSort) -> Option<&'static str> {
    match sort {
        CallSort::Newest => None,
        CallSort::Oldest => Some("oldest"),
        CallSort::Longest => Some("longest"),
        CallSort::Shortest => Some("shortest"),
        CallSort::BestQuality => Some("best"),
        CallSort::WorstQuality => Some("worst"),
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
    /// The fields that a form keeps from the other list, since each list has its own form, and the
    /// links that clear one filter.
    kept: Vec<(&'static str, String)>,
    up_kept: Vec<(&'static str, String)>,
    up_clear: String,
    clear: String,
    ended: Vec<Row>,
    next: String,
    first: bool,
    filtered: bool,
    by_time: SortLink,
    by_length: SortLink,
    by_quality: SortLink,
    /// Whether calls without a measured quality are left out.
    is_by_quality: bool,
    /// Order of the history, for the forms.
    sort: String,
    saved: Vec<SavedFilter>,
    /// The filter as a query, for the file and for saving.
    query: String,
    csv_max: String,
    party: String,
    /// Id and name of the agent whose calls are shown.
    agent: String,
    agent_name: String,
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
    let (filter, live_filter) = match read(query) {
        Ok(filters) => filters,
        Err(unreadable) => return bad_query(&console, &visitor, &unreadable),
    };
    let filtered = FIELDS.iter().any(|name| *name != "sort" && query.some(name).is_some());
    let first = filter.before.is_none();
    let mut live = if first { api.live.list_all(&scope).await.calls } else { Vec::new() };
    let up_all = live.len();
    live.retain(|call| live_filter.matches(call));
    api.store.flush().await;
    let turn = turns::next_if(filter.takes_long(), &visitor.person.user.main_account).await;
    let found = api.store.calls().first(&scope, &filter, PAGE + 1).await;
    drop(turn);
    let mut records = match found {
        Ok(records) => records,
        Err(error) => {
            tracing::warn!(%error, "calls not listed");
            return failed(&console, &visitor, axum::http::StatusCode::SERVICE_UNAVAILABLE, "");
        }
    };
    let more = records.len() > usize::try_from(PAGE).unwrap_or(usize::MAX);
    records.truncate(usize::try_from(PAGE).unwrap_or(usize::MAX));
    let cursor = records
        .last()
        .filter(|_| more)
        .map(|last| filter.sort.position(last))
        .map(|(value, call)| format!("{value}.{call}"));
    let ids: Vec<_> = records.iter().map(|record| record.start.call).collect();
    let legs = api.store.calls().legs(&scope, &ids, LEGS_MAX).await.unwrap_or_default();
    let [mut ended, mut legs] = [&records, &legs]
        .map(|calls| calls.iter().map(|call| call_row::ended_row(lang, call)).collect::<Vec<_>>());
    let mut up: Vec<Row> =
        live.iter().take(LIVE_MAX).map(|call| call_row::live_row(lang, call)).collect();
    for rows in [&mut ended, &mut legs, &mut up] {
        call_row::add_own_numbers(&console, &visitor, rows).await;
        call_row::add_names(&console, &visitor, rows).await;
    }
    let saved = api.store.saved_filters().list(visitor.person.user.id).await.unwrap_or_default();
    let shown = query.only(FIELDS);
    let agent_name = match query.some("agent") {
        Some(agent) => super::inbox::agent_name(&console, &visitor, agent.parse().ok()).await,
        None => String::new(),
    };
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
        up: call_row::with_legs(up, Vec::new()),
        ended: call_row::with_legs(ended, legs),
        by_time: SortLink::of(query, filter.sort, CallSort::Newest, CallSort::Oldest),
        by_length: SortLink::of(query, filter.sort, CallSort::Longest, CallSort::Shortest),
        by_quality: SortLink::of(query, filter.sort, CallSort::WorstQuality, CallSort::BestQuality),
        is_by_quality: matches!(filter.sort, CallSort::WorstQuality | CallSort::BestQuality),
        sort: query.get("sort").to_owned(),
        saved: saved
            .into_iter()
            .map(|(name, query)| SavedFilter { chosen: query == shown, name, query })
            .collect(),
        query: shown,
        csv_max: format!("{}\u{202f}000", CSV_MAX / 1_000),
        party: query.get("party").to_owned(),
        agent: query.get("agent").to_owned(),
        agent_name,
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

/// Saves the filter of the page under a name, or deletes a saved one.
pub(super) async fn save_filter(State(console): App, submitted: SubmittedForm) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let filters = console.apis.api().store.saved_filters();
    let (user, name) = (visitor.person.user.id, form.get("name").to_owned());
    let query = Form::read(form.get("query").trim_start_matches('?').as_bytes()).only(FIELDS);
    let done = if form.get("do") == "delete" {
        filters.delete(user, name).await.map(|_| true)
    } else if !is_line(&name, 1..=FILTER_NAME_MAX) || query.len() > FILTER_MAX {
        Ok(false)
    } else {
        filters.put(user, name, query.clone()).await
    };
    match done {
        Ok(true) => Redirect::to(&format!("/console/calls/{query}")).into_response(),
        Ok(false) => {
            let text =
                visitor.lang().with("calls.not_saved", &[&store::SavedFilters::MAX.to_string()]);
            failed(&console, &visitor, axum::http::StatusCode::BAD_REQUEST, &text)
        }
        Err(error) => {
            tracing::warn!(%error, "filter not saved");
            failed(&console, &visitor, axum::http::StatusCode::SERVICE_UNAVAILABLE, "")
        }
    }
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
    fn read(query: &Form) -> Result<Self, Unreadable> {
        let text = query.get("up").to_lowercase();
        let bare: String =
            text.chars().filter(|c| !matches!(c, ' ' | '-' | '+' | '(' | ')')).collect();
        let is_number = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit());
        Ok(Self {
            digits: if is_number { bare } else { String::new() },
            text,
            direction: query.read_as("up_direction", direction)?,
            status: query.read_as("up_state", |word| match word {
                "queued" => Some(LiveStatus::Queued),
                "ringing" => Some(LiveStatus::Ringing),
                "in-progress" => Some(LiveStatus::InProgress),
                _ => None,
            })?,
        })
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

/// The filters of the page.
fn read(query: &Form) -> Result<(CallFilter, LiveCallFilter), Unreadable> {
    Ok((filter(query)?, LiveCallFilter::read(query)?))
}

/// The filter of the history.
pub(super) fn filter(query: &Form) -> Result<CallFilter, Unreadable> {
    query.check_names(&[FIELDS, LIVE_FIELDS, &["before"]])?;
    let cursor = |text: &str| {
        let (value, call) = text.split_once('.')?;
        Some((value.parse().ok()?, call.parse().ok()?))
    };
    let selects = ["party", "from", "to", "direction", "outcome", "agent"];
    let of_outcome = query.read_as("outcome", outcome)?.unwrap_or_default();
    Ok(CallFilter {
        party: number(query, "party"),
        agent: query.read_as("agent", |id| id.parse().ok())?,
        // Legs are shown with their calls. A filter may match a leg but not its call.
        without_legs: selects.iter().all(|name| query.some(name).is_none()),
        sort: query.read_as("sort", sort)?.unwrap_or(CallSort::Newest),
        from: number(query, "from"),
        to: number(query, "to"),
        direction: query.read_as("direction", direction)?,
        ended: days(query)?,
        before: query.read_as("before", cursor)?,
        ..of_outcome
    })
}

/// Selects calls with an outcome.
fn outcome(word: &str) -> Option<CallFilter> {
    let any = CallFilter::default();
    match word {
        "answered" => Some(CallFilter { bill_secs: vec![(Compare::Greater, 0)], ..any }),
        "missed" => Some(CallFilter { bill_secs: vec![(Compare::Equal, 0)], ..any }),
        // Those of the application's URLs and documents (docs/reference/hangup-causes.md).
        "failed" => Some(CallFilter { hangup_codes: Some(7000..=8999), ..any }),
        _ => None,
    }
}

/// The range from the start of the day `since` to the end of the day `until`, in UTC.
pub(super) fn days(query: &Form) -> Result<Vec<(Compare, Timestamp)>, Unreadable> {
    let begins = |day: &str| {
        let day: jiff::civil::Date = day.parse().ok()?;
        let at = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
        Some(Timestamp::from_micros(at.as_microsecond()))
    };
    let since = query.read_as("since", begins)?.map(|at| (Compare::GreaterEqual, at));
    let until = query.read_as("until", begins)?;
    let until = until.map(|at| (Compare::Less, at.plus(Duration::from_secs(86_400))));
    Ok(since.into_iter().chain(until).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{AuthId, CallUuid};

    fn call(from: &str, name: &str, direction: Direction, status: LiveStatus) -> LiveCall {
        LiveCall {
            call: CallUuid(uuid::Uuid::nil()),
            account: AuthId::from("MA1"),
            main_account: AuthId::from("MA1"),
            direction,
            call_type: model::CallType::Whatsapp,
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
        let range = |query: &str| {
            let days = days(&Form::read(query.as_bytes()))?.into_iter();
            Ok(days.map(|(compare, at)| (compare, at.rfc3339())).collect::<Vec<_>>())
        };
        let unreadable = |name: &str, value: &str| {
            Err(Unreadable { name: name.to_owned(), value: value.to_owned() })
        };
        let day = [
            (Compare::GreaterEqual, "2026-03-01T00:00:00.000Z".to_owned()),
            (Compare::Less, "2026-03-02T00:00:00.000Z".to_owned()),
        ];
        assert_eq!(range("since=2026-03-01&until=2026-03-01"), Ok(day.to_vec()));
        assert_eq!(range("since=&until=2026-03-01"), Ok(day[1..].to_vec()));
        assert_eq!(range("since=2026-02-30"), unreadable("since", "2026-02-30"));
        assert_eq!(range("until=tomorrow"), unreadable("until", "tomorrow"));
    }

    #[test]
    fn no_misspelt_filter_is_ignored() {
        for query in [
            "sinse=2026-03-01",
            "direction=in",
            "outcome=lost",
            "sort=best+first",
            "up_state=gone",
            "up_direction=both",
            "agent=7",
            "before=7",
        ] {
            let (name, _) = query.split_once('=').unwrap();
            let read = read(&Form::read(query.as_bytes()));
            assert_eq!(read.err().map(|error| error.name).as_deref(), Some(name));
        }
        let all = "party=1&from=2&to=3&direction=&outcome=missed&since=2026-03-01&up=x&sort=newest";
        assert!(read(&Form::read(all.as_bytes())).is_ok());
        let (failed, _) = read(&Form::read(b"outcome=failed")).unwrap();
        assert!(failed.hangup_codes.is_some_and(|codes| codes.contains(&8011)));
    }

    #[test]
    fn headings_sort_the_list_and_start_at_its_beginning() {
        let query = Form::read(b"party=9198&before=5.x&sort=longest");
        let now = sort(query.get("sort")).unwrap();
        let time = SortLink::of(&query, now, CallSort::Newest, CallSort::Oldest);
        let length = SortLink::of(&query, now, CallSort::Longest, CallSort::Shortest);
        assert_eq!((time.query.as_str(), time.order), ("?party=9198", "none"));
        assert_eq!(
            (length.query.as_str(), length.order),
            ("?party=9198&sort=shortest", "descending")
        );
        let query = Form::read(b"sort=worst");
        let now = sort(query.get("sort")).unwrap();
        let quality = SortLink::of(&query, now, CallSort::WorstQuality, CallSort::BestQuality);
        assert_eq!((quality.query.as_str(), quality.order), ("?sort=best", "ascending"));
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
        ];
        for (query, found) in cases {
            let live_filter = LiveCallFilter::read(&Form::read(query.as_bytes())).unwrap();
            assert_eq!([&asha, &desk].map(|call| live_filter.matches(call)), found, "{query}");
        }
    }
}
