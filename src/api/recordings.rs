//! `GET /recordings/{id}.{wav,mp3}`: a recording's file, for whoever knows its id (`interface.md` §3, R21).
//!
//! The id is the secret: 122 random bits, told only to the account. So whatever is asked for that is not there has one
//! answer, and nothing is looked for on the disk whose name is not an id's. What the disk has no more comes from its copy in
//! other storage, read for whoever asks, or they are sent there.

use std::io::SeekFrom;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use http::response::Builder;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use tokio::fs::File;
use tokio::io::AsyncSeekExt as _;
use uuid::Uuid;

use super::{Api, App, error};
use crate::objects::{self, BucketError};
use media::record::{Format, file_name};

/// How long whoever is sent to the bucket may read there.
const LINK: Duration = Duration::from_secs(300);

/// `GET` and `HEAD`.
pub(super) async fn serve(
    State(shared): App,
    Path(file): Path<String>,
    request: Request,
) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let answer = error::json(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "a recording can be read",
            None,
        );
        return super::with_header(answer, header::ALLOW, "GET, HEAD");
    }
    let missing =
        || error::json(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path", None);
    let Some((id, format)) = parse(&file) else { return missing() };
    let (head, headers) = (*request.method() == Method::HEAD, request.headers().clone());
    // Its body could not be held across a wait.
    drop(request);
    let path = shared.api.recordings.folder().join(file_name(id, format));
    let etag = format!("\"{}\"", id.as_hyphenated());
    let Ok(file) = File::open(path).await else {
        return copy(&shared.api, id, format, &etag, (head, &headers))
            .await
            .unwrap_or_else(missing);
    };
    let Ok(meta) = file.metadata().await else { return missing() };
    let asked = asked(&headers, &etag, meta.len());
    match answer(file, id, format, &etag, meta.len(), asked).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(recording = %id, %error, "a recording could not be read");
            missing()
        }
    }
}

/// A recording that the disk has no more, from where it was copied to; `None`: it was not.
async fn copy(
    api: &Api,
    id: Uuid,
    format: Format,
    etag: &str,
    (head, headers): (bool, &HeaderMap),
) -> Option<Response> {
    let (bucket, redirect) = api.recordings.copies()?.bucket();
    let object = match api.store.recordings().object_name(id, format.as_str()).await {
        Ok(object) => object?,
        Err(error) => {
            tracing::warn!(%error, "a recording's copy could not be looked for");
            return Some(error::store(&error));
        }
    };
    // A link is signed for one method: who asks by HEAD is answered here.
    if redirect && !head {
        let link = bucket.link(&object, LINK).ok()?;
        let answer = Response::builder()
            .status(StatusCode::TEMPORARY_REDIRECT)
            .header(header::LOCATION, link.as_str());
        return answer.header(header::CACHE_CONTROL, "private, no-store").body(Body::empty()).ok();
    }
    match bucket.get(&object, head, range(headers, etag)).await {
        Ok(copy) => {
            let mut answer = described(copy.status(), id, format, etag);
            for name in [header::CONTENT_LENGTH, header::CONTENT_RANGE] {
                let of_error = copy.status() == StatusCode::RANGE_NOT_SATISFIABLE
                    && name == header::CONTENT_LENGTH;
                if let Some(value) = copy.headers().get(&name).filter(|_| !of_error) {
                    answer = answer.header(name, value);
                }
            }
            // What stands in the body of an error is the storage's business.
            match copy.status() {
                StatusCode::RANGE_NOT_SATISFIABLE => answer.body(Body::empty()).ok(),
                _ => answer.body(Body::new(copy.into_body())).ok(),
            }
        }
        Err(BucketError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
            tracing::warn!(recording = %id, object, "a recording's copy is not where it was put");
            None
        }
        Err(error) => {
            tracing::warn!(recording = %id, %error, "a recording's copy could not be read");
            let what = "the storage that has it can't be read now; ask again later";
            Some(error::json(StatusCode::BAD_GATEWAY, "storage_unreachable", what, None))
        }
    }
}

/// `Range`, if it is to be heeded: one of bytes, of this very file.
fn range<'a>(headers: &'a HeaderMap, etag: &str) -> Option<&'a HeaderValue> {
    let range = headers.get(header::RANGE)?;
    let text = range.to_str().ok()?.trim();
    let same =
        headers.get(header::IF_RANGE).is_none_or(|known| known.as_bytes() == etag.as_bytes());
    (text.starts_with("bytes=") && !text.contains(',') && same).then_some(range)
}

/// `^[0-9a-f-]{32,36}\.(wav|mp3)$`, and a UUID.
fn parse(file: &str) -> Option<(Uuid, Format)> {
    let (id, ending) = file.split_once('.')?;
    let fine = (32..=36).contains(&id.len())
        && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    Some((fine.then(|| id.parse().ok()).flatten()?, Format::from_name(ending)?))
}

/// What of a file is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    All,
    /// From this byte, so many.
    Part(u64, u64),
    /// Behind its end.
    Nothing,
}

/// RFC 9110 §14.2: one range is given, several are as good as none.
fn asked(headers: &HeaderMap, etag: &str, len: u64) -> Asked {
    let range = range(headers, etag).and_then(|range| range.to_str().ok());
    let Some(range) = range.and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Asked::All;
    };
    let Some((first, last)) = range.trim().split_once('-') else { return Asked::All };
    let (first, last) = (first.trim(), last.trim());
    let number =
        |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let (from, until) = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Asked::All,
        (true, false) => match number(last) {
            Some(0) => return Asked::Nothing,
            Some(count) => (len.saturating_sub(count), len),
            None => return Asked::All,
        },
        (false, true) => match number(first) {
            Some(from) => (from, len),
            None => return Asked::All,
        },
        (false, false) => match (number(first), number(last)) {
            (Some(from), Some(last)) if from <= last => (from, last.saturating_add(1).min(len)),
            _ => return Asked::All,
        },
    };
    if from < until { Asked::Part(from, until - from) } else { Asked::Nothing }
}

async fn answer(
    mut file: File,
    id: Uuid,
    format: Format,
    etag: &str,
    len: u64,
    asked: Asked,
) -> std::io::Result<Response> {
    let (status, from, count) = match asked {
        Asked::All => (StatusCode::OK, 0, len),
        Asked::Part(from, count) => (StatusCode::PARTIAL_CONTENT, from, count),
        Asked::Nothing => (StatusCode::RANGE_NOT_SATISFIABLE, 0, 0),
    };
    if from > 0 {
        file.seek(SeekFrom::Start(from)).await?;
    }
    let content_range = match asked {
        Asked::All => None,
        Asked::Part(..) => Some(format!("bytes {from}-{}/{len}", from + count - 1)),
        Asked::Nothing => Some(format!("bytes */{len}")),
    };
    let mut answer = described(status, id, format, etag).header(header::CONTENT_LENGTH, count);
    if let Some(range) = content_range {
        answer = answer.header(header::CONTENT_RANGE, range);
    }
    answer.body(Body::from_stream(objects::pieces(file, count))).map_err(std::io::Error::other)
}

/// An answer with all that is said of every recording.
fn described(status: StatusCode, id: Uuid, format: Format, etag: &str) -> Builder {
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
    fn r21_only_the_names_of_recordings_are_looked_for() {
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
    fn one_range_is_given_and_what_is_none_is_the_whole() {
        let of = |range: &str| {
            let headers = [(header::RANGE, range.parse().unwrap())].into_iter().collect();
            asked(&headers, "\"a\"", 1_000)
        };
        assert_eq!(of("bytes=0-99"), Asked::Part(0, 100));
        assert_eq!(of("bytes=900-"), Asked::Part(900, 100));
        assert_eq!(of("bytes=-10"), Asked::Part(990, 10));
        assert_eq!(of("bytes=-5000"), Asked::Part(0, 1_000));
        assert_eq!(of("bytes=999-99999999999"), Asked::Part(999, 1));
        for behind in ["bytes=1000-", "bytes=1000-1001", "bytes=-0"] {
            assert_eq!(of(behind), Asked::Nothing, "{behind}");
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
            assert_eq!(of(none), Asked::All, "{none}");
        }
        let mut headers: HeaderMap =
            [(header::RANGE, "bytes=0-1".parse().unwrap())].into_iter().collect();
        headers.insert(header::IF_RANGE, "\"b\"".parse().unwrap());
        assert_eq!(asked(&headers, "\"a\"", 1_000), Asked::All, "it has another file's beginning");
        headers.insert(header::IF_RANGE, "\"a\"".parse().unwrap());
        assert_eq!(asked(&headers, "\"a\"", 1_000), Asked::Part(0, 2));
    }
}
