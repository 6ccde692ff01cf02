//! A small HTTP client: one request, one response, a deadline.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("not JSON ({e}): {}", self.text()))
    }
}

/// Sends a request.
pub async fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    try_send(method, url, headers, body).await.unwrap_or_else(|e| panic!("{method} {url}: {e}"))
}

/// Sends a request that may fail.
pub async fn try_send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Answer, String> {
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).map_err(|e| e.to_string())?;
    let work = async {
        let response = client.request(request).await.map_err(|e| format!("{e:?}"))?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
        Ok(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
    };
    tokio::time::timeout(Duration::from_secs(20), work)
        .await
        .map_err(|_| "no answer within 20 s".to_owned())?
}

/// Sends a `GET` without headers.
pub async fn get(url: &str) -> Answer {
    send("GET", url, &[], Bytes::new()).await
}

/// Appended by [`raw`] if the connection stays open.
pub const OPEN: &str = "(still open)";

/// Sends bytes unchanged and reads until the server closes the connection, for at most three
/// seconds.
pub async fn raw(base: &str, bytes: &[u8]) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    #[allow(clippy::disallowed_methods, reason = "a test asks its own node")]
    let stream =
        tokio::net::TcpStream::connect(base.trim_start_matches("http://")).await.expect("connect");
    let (mut from, mut to) = stream.into_split();
    let bytes = bytes.to_vec();
    // The server may respond and close before everything is written.
    let writing = tokio::spawn(async move { to.write_all(&bytes).await.map(|()| to) });
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(3), from.read_to_end(&mut answer)).await;
    writing.abort();
    if read.is_err() {
        answer.extend_from_slice(OPEN.as_bytes());
    }
    String::from_utf8_lossy(&answer).into_owned()
}
