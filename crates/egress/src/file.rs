//! Fetches a sound for `<Play>`: 2 s to connect, 120 s to read, one retry (L24); not signed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, ETAG, IF_NONE_MATCH, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::timeout;

use super::{
    Egress, EgressError, EgressRequest, EgressResponse, OnPiece, REDIRECTS_MAX, USER_AGENT, Want,
};
use model::metric;

const CONNECT: Duration = Duration::from_secs(2);
/// Over all of one try, so that a byte now and then gains nothing.
const READ: Duration = Duration::from_secs(120);
const TRIES: u32 = 2;

/// What came of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileAnswer {
    /// It is still what the `ETag` given stands for.
    NotModified,
    File(FetchedFile),
}

/// A file and what its server says about keeping it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFile {
    pub bytes: Bytes,
    pub etag: Option<String>,
    pub cache_control: Option<String>,
}

impl Egress {
    /// Fetches `url`, up to `max` bytes, following up to five redirects; `etag` is one of an earlier fetch.
    ///
    /// # Errors
    /// Those of [`Egress::request`] to the second try, too many redirects, an answer other than 2xx.
    pub async fn fetch_file(
        &self,
        url: &str,
        max: usize,
        etag: Option<&str>,
    ) -> Result<FileAnswer, EgressError> {
        self.fetch_file_in_pieces(url, max, etag, &mut |_| ()).await
    }

    /// The same; `on_piece` is given the file's bytes in order as they come, none twice, unless they come compressed.
    ///
    /// # Errors
    /// The same.
    pub async fn fetch_file_in_pieces(
        &self,
        url: &str,
        max: usize,
        etag: Option<&str>,
        on_piece: OnPiece<'_>,
    ) -> Result<FileAnswer, EgressError> {
        let begun = self.clock.now();
        let answer = self.fetch_twice(url, max, etag, on_piece).await;
        let outcome = answer.as_ref().map_or_else(EgressError::outcome, |_| metric::fetch::OK);
        metrics::histogram!(metric::ANSWER_FETCH_SECONDS, "kind" => metric::fetch_kind::PLAY, "outcome" => outcome)
            .record(self.clock.now().duration_since(begun));
        answer
    }

    async fn fetch_twice(
        &self,
        url: &str,
        max: usize,
        etag: Option<&str>,
        on_piece: OnPiece<'_>,
    ) -> Result<FileAnswer, EgressError> {
        let (mut tries, mut given) = (0, 0_usize);
        loop {
            tries += 1;
            // What the first try has given is not given again.
            let mut skip = given;
            let mut give = |piece: Bytes| {
                let known = skip.min(piece.len());
                skip -= known;
                given += piece.len() - known;
                on_piece(piece.slice(known..));
            };
            let outcome = timeout(READ, self.fetch_once(url, max, etag, &mut give)).await;
            match outcome.unwrap_or(Err(EgressError::ReadTimeout { waited: READ })) {
                Err(e)
                    if tries < TRIES
                        && !matches!(e, EgressError::Refused(_) | EgressError::TooLarge { .. }) =>
                {
                    tracing::debug!(error = %e, "a file could not be fetched; once more");
                }
                outcome => return outcome,
            }
        }
    }

    async fn fetch_once(
        &self,
        url: &str,
        max: usize,
        etag: Option<&str>,
        on_piece: OnPiece<'_>,
    ) -> Result<FileAnswer, EgressError> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("audio/*, */*"));
        if let Some(etag) = etag.and_then(|e| HeaderValue::from_str(e).ok()) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        let mut url = self.url(url)?;
        for _ in 0..=REDIRECTS_MAX {
            let ask = EgressRequest {
                method: Method::GET,
                url: &url,
                headers: headers.clone(),
                body: Bytes::new(),
                connect: CONNECT,
                read: READ,
                want: Want::Body { max },
            };
            let answer = self.request_in_pieces(ask, &|_| {}, &mut *on_piece).await?;
            match answer.redirect(&url, self.guard()) {
                Some(next) => url = next?,
                None if answer.status.is_success() => {
                    return Ok(FileAnswer::File(FetchedFile::of(answer)));
                }
                None if answer.status == StatusCode::NOT_MODIFIED && etag.is_some() => {
                    return Ok(FileAnswer::NotModified);
                }
                None => return Err(EgressError::Status(answer.status.as_u16())),
            }
        }
        Err(EgressError::Redirects)
    }
}

impl FetchedFile {
    fn of(answer: EgressResponse) -> Self {
        let text = |name| {
            answer.headers.get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned)
        };
        Self { etag: text(ETAG), cache_control: text(CACHE_CONTROL), bytes: answer.body }
    }
}
