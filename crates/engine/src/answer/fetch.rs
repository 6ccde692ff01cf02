//! Fetches the documents that calls wait for. One deadline covers everything from name resolution
//! to the last byte, with redirects and retries. The body is not parsed here. Dropping the future
//! cancels the fetch.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use uuid::Uuid;

use super::fragment::Settings;
use super::hops::Hops;
use super::params;
use super::random::RandomSource;
use super::request::UrlRequest;
use super::sign::SigningKeys;
use egress::{BodyPolicy, Egress, EgressError, EgressResponse};
use machine::{FetchFailure, FetchKind, Params};
use model::Clock;
use model::metric;
use model::{AuthId, CallUuid, Method};
use xml::ast::DocUrl;

/// A document to fetch.
#[derive(Clone, Debug)]
pub struct FetchJob {
    /// The call, from which the trace id of the requests is derived.
    pub call: CallUuid,
    /// The main account of the call, which others take turns with.
    pub main_account: AuthId,
    pub kind: FetchKind,
    /// The URL as configured or as written in a document, including the fragment.
    pub url: DocUrl,
    pub method: Method,
    pub params: Params,
    pub keys: SigningKeys,
    /// The id of the event, identical in every attempt.
    pub event_id: Uuid,
    /// The total deadline. The URL's fragment can only shorten it.
    pub deadline: Duration,
    /// Maximum size of the decoded body in bytes (`[answer].max_body_bytes`).
    pub max_body: usize,
    /// Records the duration of each request.
    pub hops: Hops,
}

/// The body of a successful response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentBody {
    /// The body without content codings. The parser decodes the character encoding.
    pub bytes: Bytes,
    /// The `charset` parameter of `Content-Type`, as sent.
    pub charset: Option<String>,
    /// The status, which is 2xx.
    pub status: u16,
}

/// Whether a fetched body is a valid document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    Valid,
    Invalid,
}

/// Fetches documents; cheap to clone.
#[derive(Clone)]
pub struct Fetcher {
    egress: Egress,
    clock: Clock,
    random: RandomSource,
}

impl Fetcher {
    pub fn new(egress: Egress, clock: Clock, random: RandomSource) -> Self {
        Self { egress, clock, random }
    }

    /// Whether URLs without encryption are requested (`answer.allow_insecure`).
    pub fn allows_http(&self) -> bool {
        self.egress.guard().allows_insecure()
    }

    /// Fetches one document and passes its body to `read`. `read` also returns whether the document
    /// is valid, because the metrics include this.
    ///
    /// # Errors
    ///
    /// Returns the failure of the last attempt.
    pub async fn document<T>(
        &self,
        job: &FetchJob,
        read: impl AsyncFnOnce(DocumentBody) -> (T, Validity),
    ) -> Result<T, FetchFailure> {
        let begun = self.clock.now();
        let fetched = match self.fetch(job).await {
            Ok(body) => Ok(read(body).await),
            Err(failure) => Err(failure),
        };
        let outcome = match &fetched {
            Ok((_, Validity::Valid)) => metric::fetch::OK,
            Ok((_, Validity::Invalid)) => metric::fetch::INVALID,
            Err(failure) => failure.outcome(),
        };
        metrics::histogram!(metric::ANSWER_FETCH_SECONDS, "kind" => job.kind.as_str(), "outcome" => outcome)
            .record(self.clock.now().duration_since(begun));
        fetched.map(|(read, _)| read)
    }

    async fn fetch(&self, job: &FetchJob) -> Result<DocumentBody, FetchFailure> {
        let url = self
            .egress
            .url(&job.url.0)
            .map_err(|refusal| failure(EgressError::Refused(refusal)))?;
        let (mut settings, invalid) = Settings::of(url.fragment());
        if !invalid.is_empty() {
            tracing::info!(
                invalid = invalid.join(" "),
                kind = job.kind.as_str(),
                "invalid settings in a URL's fragment ignored"
            );
        }
        settings.total = settings.total.min(job.deadline);
        let request = UrlRequest {
            url: &url,
            method: job.method,
            pairs: &params::pairs(&job.params),
            keys: &job.keys,
            event: None,
            event_id: job.event_id,
            accept: "application/xml, text/xml, */*",
            body_policy: BodyPolicy::OnSuccess { max: job.max_body },
            trace: job.call.into(),
            hops: &job.hops,
            clock: &self.clock,
        };
        let egress = self.egress.of(job.main_account.as_str());
        let tried = request.send(&egress, &self.random, &settings, 0).await;
        match tried.outcome {
            Ok(answer) if answer.status.is_success() => Ok(DocumentBody::of(answer)),
            Ok(answer) => Err(FetchFailure::Status { status: answer.status.as_u16() }),
            Err(error) => {
                tracing::debug!(%error, attempts = tried.attempts, kind = job.kind.as_str(), "document fetch failed");
                Err(failure(error))
            }
        }
    }
}

impl DocumentBody {
    fn of(answer: EgressResponse) -> Self {
        let content_type = answer.headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
        let charset = content_type.and_then(charset).map(str::to_owned);
        Self { bytes: answer.body, charset, status: answer.status.as_u16() }
    }
}

/// Returns the `charset` parameter of a media type (RFC 9110 §8.3.1).
pub fn charset(content_type: &str) -> Option<&str> {
    content_type.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    })
}

/// Converts an error to the failures of the state machine.
fn failure(error: EgressError) -> FetchFailure {
    let what = error.to_string();
    match error {
        EgressError::Refused(_) => FetchFailure::UrlRefused { detail: what },
        EgressError::ConnectTimeout { .. } | EgressError::ReadTimeout { .. } => {
            FetchFailure::Timeout
        }
        EgressError::HandshakeTimeout { .. } => FetchFailure::Handshake,
        EgressError::Resolve { .. }
        | EgressError::Connect { .. }
        | EgressError::Broken { .. }
        | EgressError::Coding(_) => FetchFailure::Unreachable { detail: what },
        EgressError::TooLarge { .. } => FetchFailure::TooLarge,
        EgressError::Status(status) | EgressError::NotUpgraded(status) => {
            FetchFailure::Status { status }
        }
        EgressError::Undecodable(_) | EgressError::Redirects => {
            FetchFailure::Invalid { detail: what }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::charset;

    #[test]
    fn charsets() {
        for (content_type, want) in [
            ("text/xml", None),
            ("text/xml; charset=utf-8", Some("utf-8")),
            ("application/xml;version=1; Charset=\"US-ASCII\" ", Some("US-ASCII")),
            ("text/xml; charset", None),
        ] {
            assert_eq!(charset(content_type), want, "{content_type}");
        }
    }
}
