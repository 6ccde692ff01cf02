//! The list of calls as a CSV file (RFC 4180).

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;

use super::auth::Visitor;
use super::call_row::{self, Row};
use super::page::{bad_query, failed};
use super::{App, Console, calls};
use crate::api::csv;
use crate::api::turns::{self, RECORDS_PER_TURN};
use store::{CallFilter, CallRecord, StoreError};

const HEAD: &str = "call_uuid,parent_call_uuid,started,direction,person,name,number,country,\
    duration_seconds,bill_seconds,cause,mos,answer_url_ms,agent\r\n";

/// A file that is being written.
struct Export {
    console: Arc<Console>,
    visitor: Visitor,
    filter: CallFilter,
    left: u32,
}

pub(super) async fn download(State(console): App, visitor: Visitor) -> Response {
    let filter = match calls::filter(&visitor.query) {
        Ok(filter) => CallFilter { without_legs: false, before: None, ..filter },
        Err(unreadable) => return bad_query(&console, &visitor, &unreadable),
    };
    console.apis.api().store.flush().await;
    let mut export = Export { console, visitor, filter, left: calls::CSV_MAX };
    let first = match export.next().await {
        Ok(first) => first,
        Err(error) => {
            tracing::warn!(%error, "calls not listed");
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return failed(&export.console, &export.visitor, status, "");
        }
    };
    let begin = format!("{HEAD}{}", first.unwrap_or_default());
    let rest = stream::unfold(export, |mut export| async move {
        // An error closes the connection, so that the file is not taken for a whole one.
        let text = export.next().await.map_err(io::Error::other).transpose()?;
        Some((text, export))
    });
    let begin = stream::once(std::future::ready(Ok(begin)));
    let head = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"calls.csv\""),
    ];
    (head, Body::from_stream(stream::StreamExt::chain(begin, rest))).into_response()
}

impl Export {
    /// The next lines. `None` at the end.
    async fn next(&mut self) -> Result<Option<String>, StoreError> {
        let limit = self.left.min(RECORDS_PER_TURN);
        if limit == 0 {
            return Ok(None);
        }
        let _turn = turns::next(&self.visitor.person.user.main_account).await;
        let calls = self.console.apis.api().store.calls();
        let records = calls.first(&self.visitor.person.scope(), &self.filter, limit).await?;
        let whole = u32::try_from(records.len()).is_ok_and(|read| read == limit);
        self.left = if whole { self.left - limit } else { 0 };
        let Some(last) = records.last() else { return Ok(None) };
        self.filter.before = Some(self.filter.sort.position(last));
        let lang = self.visitor.lang();
        let mut rows: Vec<_> =
            records.iter().map(|record| call_row::ended_row(lang, record)).collect();
        call_row::add_own_numbers(&self.console, &self.visitor, &mut rows).await;
        call_row::add_names(&self.console, &self.visitor, &mut rows).await;
        let lines = records.iter().zip(&rows).map(|(record, row)| line(record, row));
        Ok(Some(lines.collect()))
    }
}

fn line(record: &CallRecord, row: &Row) -> String {
    let (start, end) = (&record.start, record.end.as_ref());
    let person = match start.direction {
        model::Direction::Inbound => &start.from,
        model::Direction::Outbound => &start.to,
    };
    let mos = end.and_then(|end| end.quality.as_ref()?.mos());
    let country = call_row::country(start.direction, &start.from, &start.to);
    let or_empty = |text: Option<String>| text.unwrap_or_default();
    let cells = [
        start.call.to_string(),
        or_empty(start.parent_call.map(|call| call.to_string())),
        start.started.rfc3339(),
        start.direction.as_str().to_owned(),
        person.clone(),
        row.name.clone(),
        row.own().trim_start_matches('+').to_owned(),
        or_empty(country.map(|country| country.as_str().to_owned())),
        or_empty(end.map(|end| end.duration_secs.to_string())),
        or_empty(end.map(|end| end.bill_secs.to_string())),
        or_empty(end.map(|end| end.cause.clone())),
        or_empty(mos.map(|mos| format!("{mos:.1}"))),
        or_empty(end.and_then(|end| end.answer_ms).map(|ms| ms.to_string())),
        or_empty(end.and_then(|end| end.agent).map(|agent| agent.to_string())),
    ];
    cells.map(|text| csv::cell(&text)).join(",") + "\r\n"
}
