//! The simulator's own HTTP client: one request, one deadline, a bounded answer. Plain HTTP, as everything it talks to
//! is on loopback or behind a proxy of the developer's.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A pooled client.
pub type Client = hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>;

/// An answer read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Bytes,
}

/// A new client.
pub fn client() -> Client {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http()
}

/// Sends a request and reads the answer, all within `deadline`.
///
/// # Errors
/// In words: no connection, no answer in time, or a body of more than `body_bytes_max`.
pub async fn ask(
    client: &Client,
    request: Request<Bytes>,
    deadline: Duration,
    body_bytes_max: usize,
) -> Result<Answer, String> {
    let whom = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    let read = async {
        let response = send(client, request).await?;
        let status = response.status().as_u16();
        let mut lines = response.into_body();
        let mut body = BytesMut::new();
        while let Some(frame) = lines.frame().await {
            let frame = frame.map_err(|e| format!("{whom} broke off its answer: {e}"))?;
            if let Some(data) = frame.data_ref() {
                if body.len() + data.len() > body_bytes_max {
                    return Err(format!("{whom} answered with more than {body_bytes_max} bytes"));
                }
                body.extend_from_slice(data);
            }
        }
        Ok(Answer { status, body: body.freeze() })
    };
    tokio::time::timeout(deadline, read).await.unwrap_or_else(|_| {
        Err(format!("{whom} did not answer within {} s", deadline.as_secs_f32()))
    })
}

/// Sends a request; the answer's body is still to be read.
///
/// # Errors
/// In words: no connection.
pub async fn send(
    client: &Client,
    request: Request<Bytes>,
) -> Result<http::Response<Incoming>, String> {
    let whom = request.uri().authority().map(ToString::to_string).unwrap_or_default();
    client.request(request.map(Full::new)).await.map_err(|e| {
        let cause =
            std::error::Error::source(&e).map(ToString::to_string).unwrap_or_else(|| e.to_string());
        format!("{whom} can't be reached: {cause}")
    })
}

/// Lines of a body as they come.
#[derive(Debug)]
pub struct Lines {
    body: Incoming,
    rest: BytesMut,
    line_bytes_max: usize,
    ended: bool,
}

impl Lines {
    /// Reads `body` line by line; a longer line than `line_bytes_max` ends it.
    pub fn of(body: Incoming, line_bytes_max: usize) -> Self {
        Self { body, rest: BytesMut::new(), line_bytes_max, ended: false }
    }

    /// The next line without its end; none at the end of the body.
    pub async fn next(&mut self) -> Option<Bytes> {
        let mut searched = 0;
        loop {
            let found =
                self.rest.get(searched..).and_then(|new| new.iter().position(|b| *b == b'\n'));
            if let Some(at) = found {
                let mut line = self.rest.split_to(searched + at + 1);
                line.truncate(searched + at);
                return Some(line.freeze());
            }
            searched = self.rest.len();
            if self.ended || searched > self.line_bytes_max {
                return (!self.rest.is_empty() && searched <= self.line_bytes_max)
                    .then(|| self.rest.split().freeze());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.rest.extend_from_slice(data);
                    }
                }
                Some(Err(_)) | None => self.ended = true,
            }
        }
    }
}
