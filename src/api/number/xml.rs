//! `POST /api/v1/xml/check`: the linter; the body is the XML, the answer the object of `xml check --json`.

use axum::response::Response;
use http::{HeaderMap, header};

use super::super::error;
use super::super::routes::{Answer, Body, Content, Route, of};
use super::ask::{self, Asked, Fault};
use xml;

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "POST",
    path: "/api/v1/xml/check/",
    id: "checkXml",
    summary: "Lints a document, as `offhook xml check --json` does",
    query: &[],
    body: Some(Body { content_type: "application/xml", what: "The document" }),
    answers: &[
        Answer {
            status: 200,
            what: "What is wrong with it",
            content: Content::Json(of::<xml::Report<'static>>),
        },
        Answer {
            status: 413,
            what: "Larger than 256 KiB",
            content: Content::Json(of::<error::OurBody<'static>>),
        },
        Answer {
            status: 415,
            what: "Compressed",
            content: Content::Json(of::<error::OurBody<'static>>),
        },
    ],
}];

pub(super) async fn check(asked: Asked) -> Result<Response, Fault> {
    let charset = charset(&asked.head.headers);
    let bytes = asked.bytes().await?;
    Ok(ask::ok(&xml::report("-", &xml::parse(&bytes, charset.as_deref()))))
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
