//! `GET /api/v1/voices/`: the languages and voices that documents may name, and who says them on this node.

use axum::response::Response;

use super::super::routes::{Answer, Content, Kind, Query, Route, of};
use super::ask::{self, Asked};
use speech::catalogue::Catalogue;

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "GET",
    path: "/api/v1/voices/",
    id: "voices",
    summary: "The languages and voices that documents may name, and who says them on this node",
    query: &[Query { name: "language", what: "Only this one: en, or en-GB", kind: Kind::Text }],
    body: None,
    answers: &[Answer {
        status: 200,
        what: "All of them",
        content: Content::Json(of::<Catalogue>),
    }],
}];

pub(super) fn list(asked: &Asked) -> Response {
    let voices = (*asked.api().voices).clone();
    ask::ok(&match asked.value("language").filter(|language| !language.is_empty()) {
        Some(language) => voices.filter_language(language),
        None => voices,
    })
}
