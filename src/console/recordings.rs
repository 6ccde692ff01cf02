//! The recordings of the account, with a player.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use uuid::Uuid;

use super::auth::{SubmittedForm, Visitor};
use super::call_row::{self, Row};
use super::calls::{days, number};
use super::form::{Form, Unreadable};
use super::page::{Page, bad_query, failed, forbidden, html, missing};
use super::view::{self, When};
use super::{App, Console};
use crate::api::turns;
use model::CallUuid;
use store::{Recording, RecordingFilter, StoreError};

const PAGE: u32 = 20;
/// Filter fields.
const FIELDS: &[&str] = &["from", "to", "since", "until"];

struct RecordingRow {
    id: Uuid,
    url: String,
    length: String,
    started: When,
    call: CallUuid,
    /// The call. `None` if its record was deleted.
    of: Option<Row>,
    conference: String,
    multi_party: bool,
}

#[derive(Template)]
#[template(path = "recordings.html")]
struct RecordingsPage {
    page: Page,
    rows: Vec<RecordingRow>,
    total: u64,
    /// Query of the next page. Empty on the last one.
    next: String,
    filtered: bool,
    from: String,
    to: String,
    since: String,
    until: String,
    may_delete: bool,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    let asked = match read(&visitor.query) {
        Ok(asked) => asked,
        Err(unreadable) => return bad_query(&console, &visitor, &unreadable),
    };
    match load_page(&console, &visitor, asked).await {
        Ok(page) => html(&page),
        Err(error) => {
            tracing::warn!(%error, "recordings not listed");
            failed(&console, &visitor, StatusCode::SERVICE_UNAVAILABLE, "")
        }
    }
}

/// The filter of the page, and the number of recordings before it.
fn read(query: &Form) -> Result<(RecordingFilter, u64), Unreadable> {
    query.check_names(&[FIELDS, &["offset"]])?;
    let filter = RecordingFilter {
        from: number(query, "from"),
        to: number(query, "to"),
        added: days(query)?,
        ..RecordingFilter::default()
    };
    Ok((filter, query.read_as("offset", |text| text.parse().ok())?.unwrap_or_default()))
}

async fn load_page(
    console: &Console,
    visitor: &Visitor,
    (filter, offset): (RecordingFilter, u64),
) -> Result<RecordingsPage, StoreError> {
    let (query, scope) = (&visitor.query, visitor.person.scope());
    let store = &console.apis.api().store;
    let turn = turns::next(&visitor.person.user.main_account).await;
    let (found, total) = store.recordings().list(&scope, &filter, PAGE, offset).await?;
    drop(turn);
    let mut rows = Vec::with_capacity(found.len());
    for recording in found {
        let record = store.calls().get(&scope, recording.call).await?;
        let of = record.map(|record| call_row::ended_row(visitor.lang(), &record));
        let mut of = of;
        call_row::add_names(console, visitor, of.as_mut_slice()).await;
        let url = console.apis.api().recordings.path(recording.id, &recording.format);
        rows.push(row(recording, url, of));
    }
    let end = offset.saturating_add(PAGE.into());
    let has_more = end < total;
    Ok(RecordingsPage {
        rows,
        total,
        next: if has_more { query.with("offset", Some(&end.to_string())) } else { String::new() },
        filtered: FIELDS.iter().any(|name| query.some(name).is_some()),
        from: query.get("from").to_owned(),
        to: query.get("to").to_owned(),
        since: query.get("since").to_owned(),
        until: query.get("until").to_owned(),
        may_delete: visitor.is_admin(),
        page: visitor.page(console, visitor.lang().t("nav.recordings"), "recordings"),
    })
}

fn row(recording: Recording, url: String, of: Option<Row>) -> RecordingRow {
    RecordingRow {
        id: recording.id,
        url,
        length: view::recording_length(recording.duration_ms),
        started: When::of(recording.started),
        call: recording.call,
        of,
        conference: recording.conference.unwrap_or_default(),
        multi_party: recording.multi_party,
    }
}

/// Deletes a recording and its file.
pub(super) async fn delete(
    State(console): App,
    Path(id): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let visitor = submitted.visitor;
    if !visitor.is_admin() {
        return forbidden(&console, &visitor);
    }
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    let path = format!("Recording/{id}/");
    let deleted = console
        .apis
        .plivo_request((&visitor.person, visitor.from), Method::DELETE, &path, None)
        .await;
    match deleted.status {
        status if status.is_success() => Redirect::to("/console/recordings/").into_response(),
        StatusCode::NOT_FOUND => missing(&console, &visitor),
        status => failed(&console, &visitor, status, deleted.message()),
    }
}
