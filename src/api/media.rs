//! `GET /media/{id}?until=…&tag=…`: a file that a user sent, for whoever has a link of ours (`number-api.md` §5).
//!
//! The link is the secret: it names the file and the end of its hour, and is signed. Whatever is not right about it has one
//! answer.

use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::{self, Stream};
use http::{Method, StatusCode, header};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;

use super::{App, error, pairs, with_header};
use crate::inbox::MediaFile;

/// `GET` and `HEAD`.
pub(super) async fn serve(
    State(shared): App,
    Path(id): Path<String>,
    request: Request,
) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let answer = error::json(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "a file can be read",
            None,
        );
        return with_header(answer, header::ALLOW, "GET, HEAD");
    }
    let given = pairs(&request);
    let value = |name: &str| given.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let (until, tag) =
        (value("until").and_then(|until| until.parse().ok()), value("tag").unwrap_or_default());
    let answer = match (id.parse::<Uuid>(), until) {
        (Ok(id), Some(until)) => match shared.api.inbox.media_file(id, until, tag).await {
            Ok(Some(found)) => answer(found).await,
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(%error, "a user's file could not be looked for");
                Some(error::store(&error))
            }
        },
        _ => None,
    };
    answer.unwrap_or_else(|| {
        error::json(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path", None)
    })
}

async fn answer(found: MediaFile) -> Option<Response> {
    let file = File::open(&found.path).await.ok()?;
    let length = file.metadata().await.ok()?.len();
    Response::builder()
        .header(header::CONTENT_TYPE, found.content_type)
        .header(header::CONTENT_LENGTH, length)
        .header(header::CACHE_CONTROL, "private, no-store")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .header(header::CONTENT_DISPOSITION, format!("attachment; filename=\"{}\"", found.filename))
        .header(header::CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox")
        .header(header::REFERRER_POLICY, "no-referrer")
        .body(Body::from_stream(chunks(file)))
        .ok()
}

/// Bytes read at once.
const CHUNK: usize = 64 << 10;

fn chunks(file: File) -> impl Stream<Item = std::io::Result<Bytes>> {
    stream::try_unfold(file, |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await?;
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    })
}
