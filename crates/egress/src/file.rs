//! Fetches audio files for `Play`: 2 s to connect, 120 s to read, one retry. The requests are not
//! signed.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, ETAG, IF_NONE_MATCH, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::timeout;

use super::{
    BodyPolicy, Egress, EgressError, EgressRequest, EgressResponse, OnChunk, REDIRECTS_MAX,
    USER_AGENT,
};
use model::metric;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of a whole attempt, so that a server that sends single bytes slowly cannot extend it.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
const ATTEMPTS_MAX: u32 = 2;

/// The result of a file fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileResponse {
    /// The file still matches the given `ETag`.
    NotModified,
    File(FetchedFile),
}

/// A file and its caching headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedFile {
    pub bytes: Bytes,
    pub etag: Option<String>,
    pub cache_control: Option<String>,
}

impl Egress {
    /// Fetches `url`, at most `max` bytes, following up to five redirects. `etag` comes from an
    /// earlier fetch.
    ///
    /// # Errors
    ///
    /// Fails if both attempts fail, after too many redirects, or if the status is not 2xx. A
    /// refused URL or a file that is too large is not retried.
    pub async fn fetch_file(
        &self,
        url: &str,
        max: usize,
        etag: Option<&str>,
    ) -> Result<FileResponse, EgressError> {
        self.fetch_file_streaming(url, max, etag, &mut |_| ()).await
    }

    /// Like [`Egress::fetch_file`], and calls `on_chunk` with the file's bytes as they arrive, in
    /// order and without repeats across attempts. It is not called for a compressed body.
    ///
    /// # Errors
    ///
    /// See [`Egress::fetch_file`].
    pub async fn fetch_file_streaming(
        &self,
        url: &str,
        max: usize,
        etag: Option<&str>,
        on_chunk: OnChunk<'_>,
    ) -> Result<FileResponse, EgressError> {
        let started = self.clock.now();
        let response = self.fetch_with_retry(url, max, etag, on_chunk).await;
        let outcome = response.as_ref().map_or_else(EgressError::outcome, |_| metric::fetch::OK);
        metrics::histogram!(metric::ANSWER_FETCH_SECONDS, "kind" => metric::fetch_kind::PLAY, "outcome" => outcome)
            .record(self.clock.now().duration_since(started));
        response
    }

    async fn fetch_with_retry(
        &self,
        url: &str,
        max: usize,
        etag: Option<&str>,
        on_chunk: OnChunk<'_>,
    ) -> Result<FileResponse, EgressError> {
        let (mut attempts, mut delivered) = (0, 0_usize);
        loop {
            attempts += 1;
            // Skip the bytes that the first attempt has already delivered.
            let mut skip = delivered;
            let mut deliver = |chunk: Bytes| {
                let skipped = skip.min(chunk.len());
                skip -= skipped;
                delivered += chunk.len() - skipped;
                on_chunk(chunk.slice(skipped..));
            };
            let outcome =
                timeout(READ_TIMEOUT, self.fetch_once(url, max, etag, &mut deliver)).await;
            match outcome.unwrap_or(Err(EgressError::ReadTimeout { waited: READ_TIMEOUT })) {
                Err(e)
                    if attempts < ATTEMPTS_MAX
                        && !matches!(e, EgressError::Refused(_) | EgressError::TooLarge { .. }) =>
                {
                    tracing::debug!(error = %e, "file fetch failed, retrying");
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
        on_chunk: OnChunk<'_>,
    ) -> Result<FileResponse, EgressError> {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT_HEADER, HeaderValue::from_static(USER_AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("audio/*, */*"));
        if let Some(etag) = etag.and_then(|e| HeaderValue::from_str(e).ok()) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        let mut url = self.url(url)?;
        for _ in 0..=REDIRECTS_MAX {
            let request = EgressRequest {
                method: Method::GET,
                url: &url,
                headers: headers.clone(),
                body: Bytes::new(),
                connect: CONNECT_TIMEOUT,
                read: READ_TIMEOUT,
                body_policy: BodyPolicy::OnSuccess { max },
            };
            let response = self.request_streaming(request, &|_| {}, &mut *on_chunk).await?;
            match response.redirect(&url, self.guard()) {
                Some(next) => url = next?,
                None if response.status.is_success() => {
                    return Ok(FileResponse::File(FetchedFile::from_response(response)));
                }
                None if response.status == StatusCode::NOT_MODIFIED && etag.is_some() => {
                    return Ok(FileResponse::NotModified);
                }
                None => return Err(EgressError::Status(response.status.as_u16())),
            }
        }
        Err(EgressError::Redirects)
    }
}

impl FetchedFile {
    fn from_response(response: EgressResponse) -> Self {
        let text = |name| {
            response
                .headers
                .get(name)
                .and_then(|v: &HeaderValue| v.to_str().ok())
                .map(str::to_owned)
        };
        Self { etag: text(ETAG), cache_control: text(CACHE_CONTROL), bytes: response.body }
    }
}
