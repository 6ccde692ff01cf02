//! `GET /recordings/{id}.{wav,mp3}`: the file of a recording, for clients that know its id
//! (`docs/reference/reliability.md#r21`).
//!
//! The id is the secret: 122 random bits that only the account knows. With `recordings.link_days` a
//! link also expires: it carries a time (`until`) and a signature (`tag`). A file that does not
//! exist results in 404, and only names that are ids are looked up on the disk. A file that is no
//! longer on the disk comes from its copy in a bucket: the node reads it for the client, or
//! redirects the client there.

use std::io::SeekFrom;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use http::response::Builder;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::fs::File;
use tokio::io::AsyncSeekExt as _;
use uuid::Uuid;

use super::error::ApiError;
use super::server::Download;
use super::{Api, ApiState, App, query_pairs};
use engine::objects::{self, BucketError};
use media::record::{Format, file_name};

/// Lifetime of a link to the bucket.
const LINK_LIFETIME: Duration = Duration::from_secs(300);

const NOT_FOUND: ApiError = ApiError::NotFound("no such recording");

/// Extension of a 404 response to a valid link: another node of the fleet has the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileElsewhere {
    /// The owner of the file. `None` if any node may have it.
    pub owner: Option<String>,
}

impl FileElsewhere {
    pub(super) fn response(self, error: ApiError) -> Response {
        let mut response = error.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
const EXPIRED: ApiError = ApiError::Forbidden {
    code: "link_expired",
    message: "the link has expired or is incomplete: read the recording over the API for a new link",
};

pub(super) async fn serve(
    State(state): App,
    Path(file): Path<String>,
    request: Request,
) -> Response {
    // The body of the request can't be borrowed across an await.
    let query = query_pairs(&request);
    let (head, _) = request.into_parts();
    get(&state, &file, &query, &head.method, &head.headers)
        .await
        .unwrap_or_else(ApiError::into_response)
}

async fn get(
    state: &ApiState,
    file: &str,
    query: &[(String, String)],
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(ApiError::MethodNotAllowed {
            code: "method_not_allowed",
            allow: "GET, HEAD".into(),
            message: "method not allowed",
        });
    }
    let (id, format) = parse(file).ok_or(NOT_FOUND)?;
    let value = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let until = value("until").and_then(|until| until.parse().ok());
    let tag = value("tag").unwrap_or_default();
    // Before looking for the file: who has no valid link learns nothing.
    if !state.api.recordings.is_valid_link(id, format.as_str(), until, tag) {
        return Err(EXPIRED);
    }
    let is_head = *method == Method::HEAD;
    let path = state.api.recordings.folder().join(file_name(id, format));
    let etag = format!("\"{}\"", id.as_hyphenated());
    let Ok((file, len)) = objects::open(&path).await else {
        if let Some(copy) = copy(&state.api, id, format, &etag, (is_head, headers)).await {
            return Ok(copy);
        }
        let owner = state.api.store.recordings().owner(id, format.as_str()).await;
        let owner = owner.map_err(ApiError::store("find a recording"))?.ok_or(NOT_FOUND)?;
        return Ok(FileElsewhere { owner: Some(owner) }.response(NOT_FOUND));
    };
    let part = part(headers, &etag, len);
    file_response(file, id, format, &etag, len, part).await.map_err(|error| {
        tracing::warn!(recording = %id, %error, "recording could not be read");
        NOT_FOUND
    })
}

/// Returns the copy of a recording in the bucket. `None` if there is no copy.
async fn copy(
    api: &Api,
    id: Uuid,
    format: Format,
    etag: &str,
    (is_head, headers): (bool, &HeaderMap),
) -> Option<Response> {
    let (bucket, redirect) = api.recordings.copies()?.bucket();
    let object = match api.store.recordings().object_name(id, format.as_str()).await {
        Ok(object) => object?,
        Err(error) => {
            tracing::warn!(recording = %id, %error, "copy of a recording could not be found");
            return Some(ApiError::from_store(&error).into_response());
        }
    };
    // A link is signed for GET: a HEAD is answered here. So are the pages of the console, which
    // may load files from their own origin only.
    let is_of_page = headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin");
    if redirect && !is_head && !is_of_page {
        let link = bucket.link(&object, LINK_LIFETIME).ok()?;
        let response = Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(header::LOCATION, link.as_str());
        return response
            .header(header::CACHE_CONTROL, "private, no-store")
            .body(Body::empty())
            .ok();
    }
    match bucket.get(&object, is_head, range(headers, etag)).await {
        Ok(copy) => {
            let mut response = response_head(copy.status(), id, format, etag);
            for name in [header::CONTENT_LENGTH, header::CONTENT_RANGE] {
                let is_of_error = copy.status() == StatusCode::RANGE_NOT_SATISFIABLE
                    && name == header::CONTENT_LENGTH;
                if let Some(value) = copy.headers().get(&name).filter(|_| !is_of_error) {
                    response = response.header(name, value);
                }
            }
            // The body of an error is not passed on.
            match copy.status() {
                StatusCode::RANGE_NOT_SATISFIABLE => response.body(Body::empty()).ok(),
                _ => response.extension(Download).body(Body::new(copy.into_body())).ok(),
            }
        }
        Err(BucketError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
            tracing::warn!(recording = %id, object, "copy of a recording is missing in the bucket");
            None
        }
        Err(error) => {
            tracing::warn!(recording = %id, %error, "copy of a recording could not be read");
            let error = ApiError::BadGateway {
                code: "storage_unreachable",
                message: "the storage of the recording can't be read now: try again later".into(),
                meta: None,
            };
            Some(error.into_response())
        }
    }
}

/// Returns the `Range` header if it is honoured: a single range of bytes, of this version of the
/// file.
fn range<'a>(headers: &'a HeaderMap, etag: &str) -> Option<&'a HeaderValue> {
    let range = headers.get(header::RANGE)?;
    let text = range.to_str().ok()?.trim();
    let is_same_version =
        headers.get(header::IF_RANGE).is_none_or(|known| known.as_bytes() == etag.as_bytes());
    (text.starts_with("bytes=") && !text.contains(',') && is_same_version).then_some(range)
}

/// Parses the name of a file: a UUID in lower case, and `.wav` or `.mp3`.
fn parse(file: &str) -> Option<(Uuid, Format)> {
    let (id, ending) = file.split_once('.')?;
    let is_valid = (32..=36).contains(&id.len())
        && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    Some((is_valid.then(|| id.parse().ok()).flatten()?, Format::from_name(ending)?))
}

/// The part of a file that a request selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    All,
    Range {
        start: u64,
        length: u64,
    },
    /// A range after the end of the file.
    Unsatisfiable,
}

/// Parses `Range`. Several ranges are ignored, as RFC 9110 §14.2 permits.
fn part(headers: &HeaderMap, etag: &str, len: u64) -> Part {
    let range = range(headers, etag).and_then(|range| range.to_str().ok());
    let Some(range) = range.and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Part::All;
    };
    let Some((first, last)) = range.trim().split_once('-') else { return Part::All };
    let (first, last) = (first.trim(), last.trim());
    let number =
        |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let (from, until) = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Part::All,
        (true, false) => match number(last) {
            Some(0) => return Part::Unsatisfiable,
            Some(count) => (len.saturating_sub(count), len),
            None => return Part::All,
        },
        (false, true) => match number(first) {
            Some(from) => (from, len),
            None => return Part::All,
        },
        (false, false) => match (number(first), number(last)) {
            (Some(from), Some(last)) if from <= last => (from, last.saturating_add(1).min(len)),
            _ => return Part::All,
        },
    };
    match from < until {
        true => Part::Range { start: from, length: until - from },
        false => Part::Unsatisfiable,
    }
}

async fn file_response(
    mut file: File,
    id: Uuid,
    format: Format,
    etag: &str,
    len: u64,
    part: Part,
) -> std::io::Result<Response> {
    let (status, start, length) = match part {
        Part::All => (StatusCode::OK, 0, len),
        Part::Range { start, length } => (StatusCode::PARTIAL_CONTENT, start, length),
        Part::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    if start > 0 {
        file.seek(SeekFrom::Start(start)).await?;
    }
    let content_range = match part {
        Part::All => None,
        Part::Range { .. } => Some(format!("bytes {start}-{}/{len}", start + length - 1)),
        Part::Unsatisfiable => Some(format!("bytes */{len}")),
    };
    let head = response_head(status, id, format, etag);
    let mut response = head.header(header::CONTENT_LENGTH, length);
    if let Some(range) = content_range {
        response = response.header(header::CONTENT_RANGE, range);
    }
    let body = Body::from_stream(objects::chunks(file, length));
    response.extension(Download).body(body).map_err(std::io::Error::other)
}

/// A response with the headers of every recording.
fn response_head(status: StatusCode, id: Uuid, format: Format, etag: &str) -> Builder {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, format.content_type())
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, etag)
        .header(header::CACHE_CONTROL, "private, no-store")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(
            header::CONTENT_DISPOSITION,
            format!("inline; filename=\"{}\"", file_name(id, format)),
        )
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox")
        .header(header::REFERRER_POLICY, "no-referrer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r21_looks_up_only_names_of_recordings() {
        let id = "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11";
        assert!(parse(&format!("{id}.wav")).is_some_and(|(_, format)| format == Format::Wav));
        assert!(
            parse(&format!("{}.mp3", id.replace('-', "")))
                .is_some_and(|(_, format)| format == Format::Mp3)
        );
        for file in [
            "",
            ".wav",
            id,
            "../../etc/passwd.wav",
            "3F0C2F1A-6A1E-4F0E-9A2B-5D7F3F0A9B11.wav",
            "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11.wav.part",
            "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11.ogg",
            "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b1.wav",
            "------------------------------------.wav",
            "{3f0c2f1a6a1e4f0e9a2b5d7f3f0a9b11}.wav",
        ] {
            assert_eq!(parse(file), None, "{file}");
        }
    }

    #[test]
    fn parses_a_single_range_and_ignores_invalid_ones() {
        let of = |range: &str| {
            let headers = [(header::RANGE, range.parse().unwrap())].into_iter().collect();
            part(&headers, "\"a\"", 1_000)
        };
        assert_eq!(of("bytes=0-99"), Part::Range { start: 0, length: 100 });
        assert_eq!(of("bytes=900-"), Part::Range { start: 900, length: 100 });
        assert_eq!(of("bytes=-10"), Part::Range { start: 990, length: 10 });
        assert_eq!(of("bytes=-5000"), Part::Range { start: 0, length: 1_000 });
        assert_eq!(of("bytes=999-99999999999"), Part::Range { start: 999, length: 1 });
        for behind in ["bytes=1000-", "bytes=1000-1001", "bytes=-0"] {
            assert_eq!(of(behind), Part::Unsatisfiable, "{behind}");
        }
        for none in [
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=a-b",
            "bytes=+1-2",
            "bytes=0-1,5-6",
            "lines=0-1",
        ] {
            assert_eq!(of(none), Part::All, "{none}");
        }
        let mut headers: HeaderMap =
            [(header::RANGE, "bytes=0-1".parse().unwrap())].into_iter().collect();
        headers.insert(header::IF_RANGE, "\"b\"".parse().unwrap());
        assert_eq!(
            part(&headers, "\"a\"", 1_000),
            Part::All,
            "the client has a part of another version"
        );
        headers.insert(header::IF_RANGE, "\"a\"".parse().unwrap());
        assert_eq!(part(&headers, "\"a\"", 1_000), Part::Range { start: 0, length: 2 });
    }
}
