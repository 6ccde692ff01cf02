//! `POST /api/v1/xml/check`: the linter; the body is the XML, the answer the object of `xml check --json`.

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};

use super::super::{body, error};
use crate::xml;

pub(super) async fn check(request: Request) -> Response {
    let (head, body) = request.into_parts();
    match body::read(&head.headers, body).await {
        Ok(bytes) => {
            let parsed = xml::parse(&bytes, charset(&head.headers).as_deref());
            error::body(StatusCode::OK, &xml::report("-", &parsed))
        }
        Err((status, code, message)) => error::json(status, code, message, None),
    }
}

/// The `charset` of `Content-Type`.
fn charset(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    kind.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"').to_owned())
    })
}
