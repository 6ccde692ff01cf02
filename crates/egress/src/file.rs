//! Fetches audio files for `Play`: 2 s to connect, 120 s to read, one retry. The requests are not
//! signed.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, ETAG, IF_NONE_MATCH, USER_AGENT as USER_AGENT_HEADER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::time::timeout;

use super::client::OpenResponse;
use super::{
    BodyPolicy, Egress, EgressError, EgressRequest, EgressResponse, REDIRECTS_MAX, USER_AGENT,
};
use model::metric;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of a whole attempt without the wait for room, so that a server that sends single bytes
/// slowly cannot extend it.
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

/// Receives a file.
pub trait FileSink: Send {
    /// Waits until there is room for a file of at most `bytes`, before any of it is read. A further
    /// attempt replaces the room of the one before.
    fn reserve(&mut self, bytes: usize) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Receives the file's bytes as they arrive, in order and without repeats across attempts. Not
    /// called for a compressed body.
    fn chunk(&mut self, chunk: Bytes);
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
        sink: &mut dyn FileSink,
    ) -> Result<FileResponse, EgressError> {
        let started = self.shared.clock.now();
        let response = self.fetch_with_retry(url, max, etag, sink).await;
        let outcome = response.as_ref().map_or_else(EgressError::outcome, |_| metric::fetch::OK);
        metrics::histogram!(metric::ANSWER_FETCH_SECONDS, "kind" => metric::fetch_kind::PLAY, "outcome" => outcome)
            .record(self.shared.clock.now().duration_since(started));
        response
    }

    async fn fetch_with_retry(
        &self,
        url: &str,
        max: usize,
        etag: Option<&str>,
        sink: &mut dyn FileSink,
    ) -> Result<FileResponse, EgressError> {
        let (mut attempts, mut delivered) = (0, 0_usize);
        loop {
            attempts += 1;
            match self.fetch_once(url, max, etag, sink, &mut delivered).await {
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

    /// Makes one attempt. `delivered` is the number of bytes that `sink` has received.
    async fn fetch_once(
        &self,
        url: &str,
        max: usize,
        etag: Option<&str>,
        sink: &mut dyn FileSink,
        delivered: &mut usize,
    ) -> Result<FileResponse, EgressError> {
        let timed_out = |_| EgressError::ReadTimeout { waited: READ_TIMEOUT };
        let started = self.shared.clock.now();
        let opened =
            timeout(READ_TIMEOUT, self.open_file(url, max, etag)).await.map_err(timed_out)??;
        let Some(response) = opened else { return Ok(FileResponse::NotModified) };
        let left = READ_TIMEOUT.saturating_sub(self.shared.clock.now().duration_since(started));
        sink.reserve(response.body_bytes_max()).await;
        // Skip the bytes that the first attempt has already delivered.
        let mut skip = *delivered;
        let mut deliver = |chunk: Bytes| {
            let skipped = skip.min(chunk.len());
            skip -= skipped;
            *delivered += chunk.len() - skipped;
            sink.chunk(chunk.slice(skipped..));
        };
        let response = timeout(left, response.read(&mut deliver)).await.map_err(timed_out)??;
        Ok(FileResponse::File(FetchedFile::from_response(response)))
    }

    /// Requests a file, and follows redirects. `None` if the file still matches `etag`.
    async fn open_file(
        &self,
        url: &str,
        max: usize,
        etag: Option<&str>,
    ) -> Result<Option<OpenResponse>, EgressError> {
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
            let opened = self.open_file_response(request).await?;
            if opened.is_success() {
                return Ok(Some(opened));
            }
            let response = opened.read(&mut |_| ()).await?;
            match response.redirect(&url, self.guard()) {
                Some(next) => url = next?,
                None if response.status == StatusCode::NOT_MODIFIED && etag.is_some() => {
                    return Ok(None);
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
