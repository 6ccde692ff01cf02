//! `GET /api/v1/voices/`: the languages and voices that documents may name, and who says them on this node.

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;

use super::super::{Api, error, pairs};

pub(super) fn list(api: &Api, request: &Request) -> Response {
    let language = pairs(request).into_iter().find(|(name, _)| name == "language").map(|(_, value)| value);
    let voices = (*api.voices).clone();
    error::body(
        StatusCode::OK,
        &match language.filter(|language| !language.is_empty()) {
            Some(language) => voices.of_language(&language),
            None => voices,
        },
    )
}
