//! A bucket of S3-compatible storage: whole files go into it, are read from it by range, and are taken away.
//!
//! Every request is signed in its URL (Signature Version 4, `rusty-s3`), so that the same URL also serves whoever is sent to
//! the bucket. A file is one `PUT`, streamed from the disk: what is cut off leaves no object. Nothing is tried twice here, and
//! nothing is known of recordings: `call::recordings` has both.

mod settings;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use rusty_s3::actions::{DeleteObject, GetObject, HeadObject, PutObject};
use rusty_s3::{Bucket as Named, Credentials, S3Action, UrlStyle};
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use url::Url;

pub use settings::S3Settings;

use egress::{DirectClient, direct_client, error_chain};
use model::Clock;

const CONNECT: Duration = Duration::from_secs(5);
/// Until the head of an answer that carries nothing of ours.
const ANSWER: Duration = Duration::from_secs(10);
/// A file may take a minute, and a second more for each piece of this size.
const SLOWEST: u64 = 64 << 10;
const FILE: Duration = Duration::from_secs(60);
/// How long a signed URL of our own requests is good for, the transfer's beginning meant.
const SIGNED: Duration = Duration::from_secs(900);
/// What of an error's body is looked at.
const ERROR_BYTES_MAX: usize = 4 << 10;
const CODE_CHARS_MAX: usize = 64;
/// Bytes of a file read at once.
const CHUNK: u64 = 64 << 10;

/// Why something could not be done with the bucket. The texts read well after "could not …".
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error("set up TLS for [recordings.s3]: {0}")]
    Tls(rustls::Error),
    #[error("use the bucket of [recordings.s3]: {0}")]
    Address(rusty_s3::BucketError),
    #[error("sign for the bucket: {0}")]
    Unsigned(String),
    #[error("reach the bucket: {0}")]
    Unreachable(String),
    #[error("have the bucket's answer within {0:?}")]
    Late(Duration),
    #[error("have the bucket do it: it answered {status}{code}")]
    Refused { status: StatusCode, code: ErrorCode },
}

/// The word of an error's body (`NoSuchBucket`), if it has one; bounded and plain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorCode(Option<String>);

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |code| write!(f, " ({code})"))
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The bucket; cheap to clone.
#[derive(Clone)]
pub struct Bucket(Arc<Inner>);

struct Inner {
    client: DirectClient<Body>,
    bucket: Named,
    credentials: Credentials,
    clock: Clock,
}

impl Bucket {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// The endpoint and the bucket's name make no address, or the system's certificate authorities.
    pub fn new(config: &S3Settings, clock: Clock) -> Result<Self, BucketError> {
        let style = if config.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let (name, region) = (config.bucket.clone(), config.region.clone());
        let bucket = Named::new(config.endpoint.clone(), style, name, region)
            .map_err(BucketError::Address)?;
        let credentials =
            Credentials::new(config.access_key_id.clone(), config.secret_access_key.reveal());
        let client = direct_client(CONNECT).map_err(BucketError::Tls)?;
        Ok(Self(Arc::new(Inner { client, bucket, credentials, clock })))
    }

    /// Makes this object of a file that is so long: all of it, or nothing.
    ///
    /// # Errors
    /// Not reached, not in time, refused, or the file could not be read.
    pub async fn put(
        &self,
        object: &str,
        file: File,
        len: u64,
        content_type: &'static str,
    ) -> Result<(), BucketError> {
        let mut action = PutObject::new(&self.0.bucket, Some(&self.0.credentials), object);
        action.headers_mut().insert("content-type", content_type);
        let url = self.signed(&action, SIGNED)?;
        let pieces = pieces(file, len).map_ok(Frame::data);
        let request = Request::put(url.as_str())
            .header(header::CONTENT_TYPE, content_type)
            .header(header::CONTENT_LENGTH, len)
            .body(StreamBody::new(pieces).boxed_unsync());
        self.ask(request, FILE + Duration::from_secs(len / SLOWEST)).await.map(drop)
    }

    /// An object, or what `range` says of it (`bytes=0-99`); only its head with `head`. Its body comes as it is read.
    ///
    /// # Errors
    /// Not reached, not in time, refused: there may be none of this name.
    pub async fn get(
        &self,
        object: &str,
        head: bool,
        range: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, BucketError> {
        let (bucket, credentials) = (&self.0.bucket, Some(&self.0.credentials));
        let (method, url) = if head {
            (Method::HEAD, self.signed(&HeadObject::new(bucket, credentials, object), SIGNED)?)
        } else {
            (Method::GET, self.signed(&GetObject::new(bucket, credentials, object), SIGNED)?)
        };
        let mut request = Request::builder().method(method).uri(url.as_str());
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        self.ask(request.body(nothing()), ANSWER).await
    }

    /// Takes an object away; one that is not there is no fault.
    ///
    /// # Errors
    /// Not reached, not in time, refused.
    pub async fn remove(&self, object: &str) -> Result<(), BucketError> {
        let action = DeleteObject::new(&self.0.bucket, Some(&self.0.credentials), object);
        let url = self.signed(&action, SIGNED)?;
        match self.ask(Request::delete(url.as_str()).body(nothing()), ANSWER).await {
            Ok(_) | Err(BucketError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Where anybody can read an object for so long.
    ///
    /// # Errors
    /// The time is none that can be signed for.
    pub fn link(&self, object: &str, lasts: Duration) -> Result<Url, BucketError> {
        self.signed(&GetObject::new(&self.0.bucket, Some(&self.0.credentials), object), lasts)
    }

    fn signed<'a>(
        &'a self,
        action: &impl S3Action<'a>,
        lasts: Duration,
    ) -> Result<Url, BucketError> {
        let now = jiff::Timestamp::from_microsecond(self.0.clock.wall().micros());
        let now = now.map_err(|e| BucketError::Unsigned(e.to_string()))?;
        Ok(action.sign_with_time(lasts, &now))
    }

    /// Sends it; an answer that is no success and no part of one is an error, and its body is read for its word.
    async fn ask(
        &self,
        request: Result<Request<Body>, http::Error>,
        within: Duration,
    ) -> Result<Response<Incoming>, BucketError> {
        let request = request.map_err(|e| BucketError::Unsigned(e.to_string()))?;
        let asked = async {
            let answer = self
                .0
                .client
                .request(request)
                .await
                .map_err(|e| BucketError::Unreachable(error_chain(&e)))?;
            let status = answer.status();
            if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Ok(answer);
            }
            Err(BucketError::Refused { status, code: code_of(answer.into_body()).await })
        };
        timeout(within, asked).await.unwrap_or(Err(BucketError::Late(within)))
    }
}

fn nothing() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// So many bytes of a file from where it stands, piece by piece; a file that ends before is an error.
pub fn pieces(file: File, count: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((file, count), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut piece = vec![0; usize::try_from(left.min(CHUNK)).unwrap_or_default()];
        let read = file.read(&mut piece).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        piece.truncate(read);
        let left = left.saturating_sub(u64::try_from(read).unwrap_or_default());
        Ok(Some((Bytes::from(piece), (file, left))))
    })
}

/// What stands in `<Code>` of an error's beginning.
async fn code_of(mut body: Incoming) -> ErrorCode {
    let mut begin = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(bytes) = frame.data_ref() {
            begin.extend(bytes.iter().take(ERROR_BYTES_MAX - begin.len()));
        }
        if begin.len() >= ERROR_BYTES_MAX {
            break;
        }
    }
    code_in(&begin)
}

fn code_in(begin: &[u8]) -> ErrorCode {
    let text = String::from_utf8_lossy(begin);
    let inside = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"))
        .map(|(code, _)| code);
    let plain = |code: &&str| {
        (1..=CODE_CHARS_MAX).contains(&code.len())
            && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    ErrorCode(inside.filter(plain).map(str::to_owned))
}
