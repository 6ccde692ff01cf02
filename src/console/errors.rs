//! The pages of failed requests to the account's URLs across calls: by URL and kind, and those of
//! one URL with the data sent and received. That data comes from the event logs of the calls.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use uuid::Uuid;

use super::auth::Visitor;
use super::call::{BodyView, bar_name, body_view};
use super::form::{Form, Unreadable};
use super::page::{Page, bad_query, failed, html};
use super::view::When;
use super::{App, Console};
use crate::api::{evaluate_log, turns};
use engine::call::FETCH_FILE;
use engine::call::waterfall::{Actor, Body, Flow, Waterfall};
use model::{CallUuid, Timestamp};
use store::{FailedRequest, FailedRequestFilter, FailedRequestGroup, StoreError};

/// Maximum number of requests on a page. Each may need the event log of a call.
const PAGE: u32 = 10;
/// Maximum size of all bodies on a page, in bytes.
const BODIES_MAX: usize = 128 * 1024;
/// The ranges of the page, in hours, with the keys of their names.
const RANGES: &[(u64, &str)] =
    &[(1, "errors.hour"), (24, "errors.day"), (7 * 24, "errors.week"), (30 * 24, "errors.month")];
/// The default range, in hours.
const HOURS: u64 = 24;

struct GroupRow {
    kind: String,
    url: String,
    requests: u64,
    calls: u64,
    last: When,
    /// Query of the requests of this group.
    query: String,
}

struct RequestRow {
    at: When,
    call: CallUuid,
    outcome: String,
    attempts: u32,
    /// The beginning of the response. Empty if it had no text.
    response: String,
    bodies: Vec<BodyView>,
}

struct Range {
    name: &'static str,
    query: String,
    is_chosen: bool,
}

#[derive(Template)]
#[template(path = "errors.html")]
struct ErrorsPage {
    page: Page,
    ranges: Vec<Range>,
    groups: Vec<GroupRow>,
    /// The URL of the listed requests. Empty on the page of all groups.
    url: String,
    kind: String,
    /// Whether the listed requests are for audio files. Event logs do not contain audio.
    is_file: bool,
    requests: Vec<RequestRow>,
    /// Query of the page of all groups.
    all: String,
    /// Query of the next page. Empty on the last one.
    next: String,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    let hours = match read_hours(&visitor.query) {
        Ok(hours) => hours,
        Err(unreadable) => return bad_query(&console, &visitor, &unreadable),
    };
    match load_page(&console, &visitor, hours).await {
        Ok(page) => html(&page),
        Err(error) => {
            tracing::warn!(%error, "failed requests not listed");
            failed(&console, &visitor, StatusCode::SERVICE_UNAVAILABLE, "")
        }
    }
}

/// The range of the page.
fn read_hours(query: &Form) -> Result<u64, Unreadable> {
    query.check_names(&[&["hours", "url", "kind", "cursor"]])?;
    let known = |text: &str| {
        let hours: u64 = text.parse().ok()?;
        RANGES.iter().map(|(known, _)| *known).find(|known| *known == hours)
    };
    Ok(query.read_as("hours", known)?.unwrap_or(HOURS))
}

async fn load_page(
    console: &Console,
    visitor: &Visitor,
    hours: u64,
) -> Result<ErrorsPage, StoreError> {
    let (query, scope, lang) = (&visitor.query, visitor.person.scope(), visitor.lang());
    let api = console.apis.api();
    let since = api.clock.wall().minus(Duration::from_secs(hours * 3_600));
    let ranges = RANGES.iter().map(|(range, key)| Range {
        name: lang.t(key),
        query: fields(&query.only(&["url", "kind"])).with("hours", Some(&range.to_string())),
        is_chosen: *range == hours,
    });
    let mut page = ErrorsPage {
        page: visitor.page(console, lang.t("errors.title"), "errors"),
        ranges: ranges.collect(),
        groups: Vec::new(),
        url: query.get("url").to_owned(),
        kind: bar_name(lang, query.get("kind")),
        is_file: query.get("kind") == FETCH_FILE,
        requests: Vec::new(),
        all: query.only(&["hours"]),
        next: String::new(),
    };
    // The latest request may still be on its way to the store.
    api.store.flush().await;
    let requests = api.store.failed_requests();
    let turn = turns::next(&visitor.person.user.main_account).await;
    let Some(url) = query.some("url") else {
        let groups = requests.groups(&scope, since).await?.into_iter();
        page.groups = groups
            .map(|group| {
                let FailedRequestGroup { kind, url, requests, calls, last } = group;
                let of_url = query.with("url", Some(&url));
                GroupRow {
                    query: fields(&of_url).with("kind", Some(&kind)),
                    kind: bar_name(lang, &kind),
                    url,
                    requests,
                    calls,
                    last: When::of(last),
                }
            })
            .collect();
        return Ok(page);
    };
    let filter = FailedRequestFilter {
        kind: query.some("kind").map(str::to_owned),
        url: Some(url.to_owned()),
        since: Some(since),
        before: query.some("cursor").and_then(position),
    };
    let mut found = requests.list(&scope, &filter, PAGE + 1).await?;
    drop(turn);
    if found.len() > usize::try_from(PAGE).unwrap_or(usize::MAX) {
        found.pop();
        if let Some(last) = found.last() {
            let cursor = format!("{}.{}", last.at.micros(), last.id);
            page.next = query.with("cursor", Some(&cursor));
        }
    }
    let mut falls: BTreeMap<CallUuid, Option<Waterfall>> = BTreeMap::new();
    let mut room = BODIES_MAX;
    for request in found {
        let call = request.call;
        let fall = match falls.entry(call) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let owner = (&scope, &visitor.person.user.main_account);
                new.insert(evaluate_log(api, owner, call, |_, fall| fall).await?)
            }
        };
        let bodies = fall.as_ref().and_then(|fall| {
            let bodies = &fall.bars.get(bar_of(fall, &request)?)?.bodies;
            let bodies = bodies.iter().map(|body| (body, body_view(lang, body, &mut room)));
            // The log lacks the response that the list of failed requests has.
            let has_response = request.response.is_some();
            let without_note = |(body, view): (&Body, BodyView)| match body.way {
                Flow::In if has_response => BodyView { says: String::new(), ..view },
                Flow::In | Flow::Out => view,
            };
            Some(bodies.map(without_note).collect())
        });
        page.requests.push(RequestRow {
            at: When::of(request.at),
            call,
            outcome: request.outcome,
            attempts: request.attempts,
            response: request.response.unwrap_or_default(),
            bodies: bodies.unwrap_or_default(),
        });
    }
    Ok(page)
}

/// The fields of a query, with or without its question mark.
fn fields(query: &str) -> Form {
    Form::read(query.trim_start_matches('?').as_bytes())
}

/// Returns the bar of a request: the bar with its name that is nearest in time. The bar of a refused
/// document has not failed, because the response was 2xx.
fn bar_of(fall: &Waterfall, request: &FailedRequest) -> Option<usize> {
    let at = request.at.micros().saturating_sub(fall.started?.micros());
    let bars = fall
        .bars
        .iter()
        .enumerate()
        .filter(|(_, bar)| bar.what == Actor::Customer && bar.name == request.kind);
    let nearest = bars.min_by_key(|(_, bar)| {
        let ends = [bar.from_us, bar.to_us.unwrap_or(bar.from_us)];
        (ends.map(|end| end.abs_diff(at)).into_iter().min(), !bar.failed)
    });
    nearest.map(|(index, _)| index)
}

fn position(text: &str) -> Option<(Timestamp, Uuid)> {
    let (micros, id) = text.split_once('.')?;
    Some((Timestamp::from_micros(micros.parse().ok()?), id.parse().ok()?))
}
