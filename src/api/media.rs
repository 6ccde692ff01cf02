//! `GET /media/{id}?until=…&tag=…`: a file that a user sent, for clients that know its link.
//!
//! The link is the secret: it contains the file's id and an expiry time, and is signed. Any invalid
//! link results in 404.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::{Method, header};
use uuid::Uuid;

use super::error::ApiError;
use super::recordings::FileElsewhere;
use super::server::Download;
use super::{ApiState, App, query_pairs};
use engine::inbox::MediaFile;
use engine::objects;

const NOT_FOUND: ApiError = ApiError::NotFound("no such file");

pub(super) async fn serve(State(state): App, Path(id): Path<String>, request: Request) -> Response {
    let (method, query) = (request.method().clone(), query_pairs(&request));
    get(&state, &id, &method, &query).await.unwrap_or_else(ApiError::into_response)
}

async fn get(
    state: &ApiState,
    id: &str,
    method: &Method,
    query: &[(String, String)],
) -> Result<Response, ApiError> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::MethodNotAllowed {
            code: "method_not_allowed",
            allow: "GET, HEAD".into(),
            message: "method not allowed",
        });
    }
    let value = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let until = value("until").and_then(|until| until.parse().ok());
    let tag = value("tag").unwrap_or_default();
    let (Ok(id), Some(until)) = (id.parse::<Uuid>(), until) else { return Err(NOT_FOUND) };
    let found = state.api.inbox.user_files().get(id, until, tag).await;
    let found = found.map_err(ApiError::store("find a user's file"))?;
    let file = match found {
        Some(found) => file_response(found).await,
        None => None,
    };
    let is_valid = || state.api.inbox.user_files().is_valid_link(id, until, tag);
    Ok(file.unwrap_or_else(|| match is_valid() {
        true => FileElsewhere { owner: None }.response(NOT_FOUND),
        false => NOT_FOUND.into_response(),
    }))
}

async fn file_response(found: MediaFile) -> Option<Response> {
    let (file, length) = objects::open(&found.path).await.ok()?;
    Response::builder()
        .header(header::CONTENT_TYPE, found.content_type)
        .header(header::CONTENT_LENGTH, length)
        .header(header::CACHE_CONTROL, "private, no-store")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", found.filename))
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox")
        .header(header::REFERRER_POLICY, "no-referrer")
        .extension(Download)
        .body(Body::from_stream(objects::chunks(file, length)))
        .ok()
}
