//! Recordings (`plivo-call-api.md` §5), as far as there are any: none yet, so that lists are empty and
//! no id is known. Clients that look for them find that out, and not an error.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error;
use super::super::routes::{Answer, Content, Route, of};
use super::paging::{Meta, paged};
use super::{Ask, LIMIT, No, OFFSET, uri};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Recording/",
        id: "listRecordings",
        summary: "The account's recordings",
        query: &[LIMIT, OFFSET],
        body: None,
        answers: &[Answer { status: 200, what: "A page", content: Content::Plivo(&[of::<Recordings>]) }],
    },
    Route {
        method: "GET",
        path: "/v1/Account/{auth_id}/Recording/{recording_id}/",
        id: "recording",
        summary: "One recording: there is none yet",
        query: &[],
        body: None,
        answers: &[],
    },
    Route {
        method: "DELETE",
        path: "/v1/Account/{auth_id}/Recording/{recording_id}/",
        id: "removeRecording",
        summary: "Takes a recording away: there is none yet",
        query: &[],
        body: None,
        answers: &[],
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoRecordings)]
pub(super) struct Recordings {
    meta: Meta,
    #[schema(value_type = Vec<Object>)]
    objects: Vec<()>,
}

pub(super) fn list(ask: &Ask) -> Result<Response, No> {
    let (meta, objects) = paged(Vec::new(), &uri(&ask.scope, "Recording/"), &ask.pairs)?;
    Ok(error::plivo_body(StatusCode::OK, &Recordings { meta, objects }))
}
