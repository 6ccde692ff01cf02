//! `POST /api/v1/xml/check/`: the linter. The body is the document, and the response is the object that
//! `offhook xml check --json` prints.

use axum::response::Response;
use http::{HeaderMap, header};

use super::super::error::ApiError;
use super::super::routes::{Operation, RequestBody, ResponseSpec};
use super::super::turns;
use super::request::ApiRequest;
use super::response::ok;
use super::route::{Route, error, handler};
use model::Role;
use xml;

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Agent,
    handler: handler!(check),
    operation: Operation::post(
        "/api/v1/xml/check/",
        "checkXml",
        "Check a document, as `offhook xml check --json` does",
    )
    .body(RequestBody::raw("application/xml", "The document"))
    .responses(&[
        ResponseSpec::json::<xml::Report<'static>>(200, "The findings"),
        error(413, "The document is larger than 256 KiB"),
        error(415, "The document is compressed"),
    ]),
}];

async fn check(mut request: ApiRequest) -> Result<Response, ApiError> {
    let bytes = request.bytes().await?;
    if bytes.trim_ascii_start().starts_with(b"{") {
        return Err(ApiError::bad_body("the body must be the document itself, not JSON"));
    }
    let charset = charset(&request.head.headers);
    let turn = turns::next(&request.main_account()).await;
    let parsed = xml::parse(&bytes, charset.as_deref());
    drop(turn);
    let parsed = request.api().without_own_findings(parsed);
    Ok(ok(&xml::report("-", &parsed)))
}

/// The `charset` of `Content-Type`.
fn charset(headers: &HeaderMap) -> Option<String> {
    let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    kind.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"').to_owned())
    })
}
