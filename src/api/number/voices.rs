//! `GET /api/v1/voices/`: the languages and voices that documents may use.

use axum::response::Response;

use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, ResponseSpec};
use super::request::ApiRequest;
use super::response::ok;
use super::route::{Route, handler};
use model::Role;
use speech::catalogue::Catalogue;

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Agent,
    handler: handler!(list),
    operation: Operation::get(
        "/api/v1/voices/",
        "voices",
        "List the languages and voices that documents may use, and the engine that speaks them",
    )
    .query(&[QueryParameter::text("language", "Only this language: en, or en-GB")])
    .responses(&[ResponseSpec::json::<Catalogue>(200, "Languages and voices")]),
}];

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let voices = (*request.api().voices).clone();
    Ok(ok(&match request.query_text("language") {
        Some(language) => voices.filter_language(language),
        None => voices,
    }))
}
