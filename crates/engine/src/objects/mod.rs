//! A client for one bucket of S3-compatible storage: uploads files, reads objects by range and
//! deletes them.
//!
//! Every request is signed in its URL (Signature Version 4, `rusty-s3`), so that clients can also
//! be redirected to signed URLs. A file is uploaded with a single `PUT`, streamed from the disk; an
//! interrupted upload leaves no object. This module does not retry requests and does not depend on
//! recordings: see `call::recordings`.

mod settings;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use rustix::fs::OFlags;
use rusty_s3::actions::{DeleteObject, GetObject, HeadObject, PutObject};
use rusty_s3::{Bucket as S3Bucket, Credentials, S3Action, UrlStyle};
use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;
use url::Url;

pub use settings::S3Settings;

use egress::{DirectClient, direct_client, error_chain};
use model::Clock;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for the head of a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of an upload: a minute, and a second for each block of this size.
const UPLOAD_BLOCK: u64 = 64 << 10;
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Validity of the URLs that this client requests, which only has to cover the start of the
/// transfer.
const URL_VALIDITY: Duration = Duration::from_secs(900);
/// Maximum number of bytes of an error response that are read.
const ERROR_BYTES_MAX: usize = 4 << 10;
const CODE_CHARS_MAX: usize = 64;
/// Number of bytes read from a file at a time.
const CHUNK: u64 = 64 << 10;

/// Why a request to the bucket failed.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error("could not set up TLS for [recordings.s3]: {0}")]
    Tls(rustls::Error),
    #[error("could not form the bucket's URL from [recordings.s3]: {0}")]
    Address(rusty_s3::BucketError),
    #[error("could not sign the bucket request: {0}")]
    Unsigned(String),
    #[error("could not reach the bucket: {0}")]
    Unreachable(String),
    #[error("could not complete the bucket request within {0:?}")]
    Late(Duration),
    #[error("could not complete the bucket request: it failed with status {status}{code}")]
    Refused { status: StatusCode, code: ErrorCode },
    #[error("the bucket accepted {len} bytes but does not have them")]
    NotStored { len: u64 },
}

/// The error code in a response, such as `NoSuchBucket`, if there is one. Limited in length and
/// alphabet.
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
    bucket: S3Bucket,
    credentials: Credentials,
    clock: Clock,
}

impl Bucket {
    /// Creates the client without any request.
    ///
    /// # Errors
    ///
    /// Returns an error if endpoint and bucket name do not form a URL, or if the system's
    /// certificate authorities cannot be loaded.
    pub fn new(config: &S3Settings, clock: Clock) -> Result<Self, BucketError> {
        let style = if config.path_style { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let (name, region) = (config.bucket.clone(), config.region.clone());
        let bucket = S3Bucket::new(config.endpoint.clone(), style, name, region)
            .map_err(BucketError::Address)?;
        let credentials =
            Credentials::new(config.access_key_id.clone(), config.secret_access_key.reveal());
        let client = direct_client(CONNECT_TIMEOUT).map_err(BucketError::Tls)?;
        Ok(Self(Arc::new(Inner { client, bucket, credentials, clock })))
    }

    /// Uploads a file of `len` bytes as one object, all or nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the bucket is unreachable, too slow or refuses, or if the file cannot be
    /// read.
    pub async fn put(
        &self,
        object: &str,
        file: File,
        len: u64,
        content_type: &'static str,
    ) -> Result<(), BucketError> {
        let mut action = PutObject::new(&self.0.bucket, Some(&self.0.credentials), object);
        action.headers_mut().insert("content-type", content_type);
        let url = self.signed(&action, URL_VALIDITY)?;
        let chunks = chunks(file, len).map_ok(Frame::data);
        let request = Request::put(url.as_str())
            .header(header::CONTENT_TYPE, content_type)
            .header(header::CONTENT_LENGTH, len)
            .body(StreamBody::new(chunks).boxed_unsync());
        self.ask(request, UPLOAD_TIMEOUT + Duration::from_secs(len / UPLOAD_BLOCK)).await.map(drop)
    }

    /// Gets an object, or the part in `range` (such as `bytes=0-99`), or only its headers with
    /// `head`. The body is streamed.
    ///
    /// # Errors
    ///
    /// Returns an error if the bucket is unreachable, too slow or refuses, for example because the
    /// object does not exist.
    pub async fn get(
        &self,
        object: &str,
        head: bool,
        range: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, BucketError> {
        let (bucket, credentials) = (&self.0.bucket, Some(&self.0.credentials));
        let (method, url) = if head {
            (
                Method::HEAD,
                self.signed(&HeadObject::new(bucket, credentials, object), URL_VALIDITY)?,
            )
        } else {
            (Method::GET, self.signed(&GetObject::new(bucket, credentials, object), URL_VALIDITY)?)
        };
        let mut request = Request::builder().method(method).uri(url.as_str());
        if let Some(range) = range {
            request = request.header(header::RANGE, range);
        }
        self.ask(request.body(empty_body()), RESPONSE_TIMEOUT).await
    }

    /// Checks that the bucket has an object of `len` bytes.
    ///
    /// # Errors
    ///
    /// Returns [`BucketError::NotStored`] if it has not, and other errors if the request fails.
    pub async fn check_stored(&self, object: &str, len: u64) -> Result<(), BucketError> {
        let not_stored = BucketError::NotStored { len };
        let answer = match self.get(object, true, None).await {
            Err(BucketError::Refused { status: StatusCode::NOT_FOUND, .. }) => {
                return Err(not_stored);
            }
            answer => answer?,
        };
        let stored = answer.headers().get(header::CONTENT_LENGTH);
        let stored = stored.and_then(|stored| stored.to_str().ok()?.parse().ok());
        if stored == Some(len) { Ok(()) } else { Err(not_stored) }
    }

    /// Deletes an object. A missing object is no error.
    ///
    /// # Errors
    ///
    /// Returns an error if the bucket is unreachable, too slow or refuses.
    pub async fn remove(&self, object: &str) -> Result<(), BucketError> {
        let action = DeleteObject::new(&self.0.bucket, Some(&self.0.credentials), object);
        let url = self.signed(&action, URL_VALIDITY)?;
        match self.ask(Request::delete(url.as_str()).body(empty_body()), RESPONSE_TIMEOUT).await {
            Ok(_) | Err(BucketError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns a URL that is valid for this long and gives access to an object.
    ///
    /// # Errors
    ///
    /// Returns an error if the current time cannot be signed.
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

    /// Sends a request. A status other than success or 416 is an error, with the code from the
    /// body.
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
            Err(BucketError::Refused { status, code: read_error_code(answer.into_body()).await })
        };
        timeout(within, asked).await.unwrap_or(Err(BucketError::Late(within)))
    }
}

fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Opens a regular file and returns it with its size in bytes. Symbolic links and special files count
/// as missing: a link in a restored backup could lead to any file that the node can read.
///
/// # Errors
/// Fails if the file does not exist or can't be read.
pub async fn open(path: &Path) -> io::Result<(File, u64)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).await?;
    let metadata = file.metadata().await?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// The next `count` bytes of a file, in chunks. A file that ends earlier is an error.
pub fn chunks(file: File, count: u64) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((file, count), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut chunk = vec![0; usize::try_from(left.min(CHUNK)).unwrap_or_default()];
        let read = file.read(&mut chunk).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        chunk.truncate(read);
        let left = left.saturating_sub(u64::try_from(read).unwrap_or_default());
        Ok(Some((Bytes::from(chunk), (file, left))))
    })
}

/// The `<Code>` at the beginning of an error response.
async fn read_error_code(mut body: Incoming) -> ErrorCode {
    let mut begin = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Some(bytes) = frame.data_ref() {
            begin.extend(bytes.iter().take(ERROR_BYTES_MAX - begin.len()));
        }
        if begin.len() >= ERROR_BYTES_MAX {
            break;
        }
    }
    parse_error_code(&begin)
}

fn parse_error_code(begin: &[u8]) -> ErrorCode {
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
