//! `GET /recordings/{id}.{wav,mp3}`: a recording's file, for whoever knows its id (`interface.md` §3, R21).
//!
//! The id is the secret: 122 random bits, told only to the account. So whatever is asked for that is not there has one
//! answer, and nothing is looked for on the disk whose name is not an id's.

use std::io::SeekFrom;

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, StatusCode, header};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use uuid::Uuid;

use super::{App, error};
use crate::media::record::{Format, name};

/// Bytes read at once.
const CHUNK: u64 = 64 << 10;

/// `GET` and `HEAD`.
pub(super) async fn serve(State(shared): App, Path(file): Path<String>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let answer = error::json(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "a recording can be read", None);
        return super::with_header(answer, header::ALLOW, "GET, HEAD");
    }
    let missing = || error::json(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path", None);
    let Some((id, format)) = parse(&file) else { return missing() };
    let path = shared.api.recordings.folder().join(name(id, format));
    let Ok(file) = File::open(path).await else { return missing() };
    let Ok(meta) = file.metadata().await else { return missing() };
    let etag = format!("\"{}\"", id.as_hyphenated());
    let asked = asked(request.headers(), &etag, meta.len());
    match answer(file, id, format, &etag, meta.len(), asked).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::warn!(recording = %id, %error, "a recording could not be read");
            missing()
        }
    }
}

/// `^[0-9a-f-]{32,36}\.(wav|mp3)$`, and a UUID.
fn parse(file: &str) -> Option<(Uuid, Format)> {
    let (id, ending) = file.split_once('.')?;
    let fine = (32..=36).contains(&id.len()) && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b'-'));
    Some((fine.then(|| id.parse().ok()).flatten()?, Format::from_word(ending)?))
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
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(range) = text(header::RANGE).and_then(|range| range.trim().strip_prefix("bytes=")) else {
        return Asked::All;
    };
    if text(header::IF_RANGE).is_some_and(|known| known != etag) || range.contains(',') {
        return Asked::All;
    }
    let Some((first, last)) = range.trim().split_once('-') else { return Asked::All };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
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
    let mut answer = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, format.content_type())
        .header(header::CONTENT_LENGTH, count)
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::ETAG, etag)
        .header(header::CACHE_CONTROL, "private, no-store")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CONTENT_DISPOSITION, format!("inline; filename=\"{}\"", name(id, format)))
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox")
        .header(header::REFERRER_POLICY, "no-referrer");
    if let Some(range) = content_range {
        answer = answer.header(header::CONTENT_RANGE, range);
    }
    let body = stream::try_unfold((file, count), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; usize::try_from(left.min(CHUNK)).unwrap_or_default()];
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof));
        }
        chunk.truncate(read);
        let left = left.saturating_sub(u64::try_from(read).unwrap_or_default());
        Ok(Some((Bytes::from(chunk), (file, left))))
    });
    answer.body(Body::from_stream(body)).map_err(std::io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r21_only_the_names_of_recordings_are_looked_for() {
        let id = "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11";
        assert!(parse(&format!("{id}.wav")).is_some_and(|(_, format)| format == Format::Wav));
        assert!(parse(&format!("{}.mp3", id.replace('-', ""))).is_some_and(|(_, format)| format == Format::Mp3));
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
        for none in ["bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=+1-2", "bytes=0-1,5-6", "lines=0-1"] {
            assert_eq!(of(none), Asked::All, "{none}");
        }
        let mut headers: HeaderMap = [(header::RANGE, "bytes=0-1".parse().unwrap())].into_iter().collect();
        headers.insert(header::IF_RANGE, "\"b\"".parse().unwrap());
        assert_eq!(asked(&headers, "\"a\"", 1_000), Asked::All, "it has another file's beginning");
        headers.insert(header::IF_RANGE, "\"a\"".parse().unwrap());
        assert_eq!(asked(&headers, "\"a\"", 1_000), Asked::Part(0, 2));
    }
}
