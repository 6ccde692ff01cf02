//! Sends messages and downloads users' files through Graph. The caller builds the messages.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::graph::Graph;
use super::request::GraphRequest;
use machine::GraphOutcome;
use model::PhoneNumberId;
use model::Secret;

/// The maximum size of a downloaded file, which is Meta's limit for documents.
const FILE_MAX: usize = 100 << 20;
/// The maximum size of the answer that describes a file.
const NAMED_MAX: usize = 64 << 10;
/// The time limit for downloading one file.
const FILE_TIME: std::time::Duration = std::time::Duration::from_secs(120);

impl Graph {
    /// Sends a message with `POST /{phone_number_id}/messages`. Returns its id.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt. After a timeout, the message may have been sent.
    pub async fn send_message(
        &self,
        number: &PhoneNumberId,
        token: Option<&Secret>,
        message: &Value,
    ) -> Result<String, GraphOutcome> {
        let answer = self.post_message(number, token, message).await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let id =
            answer.pointer("/messages/0/id").and_then(Value::as_str).filter(|id| !id.is_empty());
        id.map(str::to_owned).ok_or(GraphOutcome::ServerError { status: 200 })
    }

    /// Marks a user's message as read.
    ///
    /// # Errors
    /// Returns the outcome of the last attempt.
    pub async fn mark_read(
        &self,
        number: &PhoneNumberId,
        token: Option<&Secret>,
        wamid: &str,
    ) -> Result<(), GraphOutcome> {
        let body = json!({"messaging_product": "whatsapp", "status": "read", "message_id": wamid});
        self.post_message(number, token, &body).await.map(drop)
    }

    /// Sends a body with `POST /{phone_number_id}/messages`. Returns the body of the response.
    pub(super) async fn post_message(
        &self,
        number: &PhoneNumberId,
        token: Option<&Secret>,
        body: &Value,
    ) -> Result<Bytes, GraphOutcome> {
        let (path, body) = ("messages".to_owned(), body.to_string().into_bytes());
        self.send_request(&GraphRequest::post(number, token, path, "message", body)).await
    }

    /// Downloads a user's file: gets its URL from `GET /{media_id}`, then writes its bytes to
    /// `into` as they arrive. Both requests carry the token. Returns the number of bytes once they
    /// match Meta's checksum.
    ///
    /// # Errors
    /// Returns a description of the failure. The bytes written so far must be discarded.
    pub async fn media(
        &self,
        token: Option<&Secret>,
        media: &str,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, String> {
        let plain = !media.is_empty()
            && media.len() <= 128
            && media.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !plain {
            return Err("invalid media id".to_owned());
        }
        let about = format!("{}/{media}", self.config.base_url)
            .parse::<Uri>()
            .map_err(|e| e.to_string())?;
        let mut named = Vec::new();
        self.download(&about, token, NAMED_MAX, &mut named).await?;
        let named: Value = serde_json::from_slice(&named)
            .map_err(|_| "Meta's description of the file is not JSON".to_owned())?;
        let url = named.get("url").and_then(Value::as_str).unwrap_or_default();
        let url = url
            .parse::<Uri>()
            .map_err(|_| "Meta's description of the file has no URL".to_owned())?;
        // The token is only sent over TLS, or to the same host as Graph.
        let at_graph = url.authority().is_some() && url.authority() == about.authority();
        if url.scheme_str() != Some("https") && !at_graph {
            return Err("Meta's URL of the file is not https".to_owned());
        }
        let (bytes, sum) = self.download(&url, token, FILE_MAX, into).await?;
        match named.get("sha256").and_then(Value::as_str) {
            Some(told) if told.len() == sum.len() && !told.eq_ignore_ascii_case(&sum) => {
                Err("checksum differs from Meta's".to_owned())
            }
            _ => Ok(bytes),
        }
    }

    /// Returns the number of bytes and their SHA-256.
    async fn download(
        &self,
        uri: &Uri,
        token: Option<&Secret>,
        at_most: usize,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(u64, String), String> {
        let token = token.unwrap_or(&self.config.token);
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
            .map_err(|e| e.to_string())?;
        bearer.set_sensitive(true);
        let agent = HeaderValue::try_from(&self.config.user_agent).map_err(|e| e.to_string())?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = uri.clone();
        *request.headers_mut() =
            HeaderMap::from_iter([(AUTHORIZATION, bearer), (USER_AGENT, agent)]);
        let exchange = async {
            let answer = self.http.request(request).await.map_err(|e| format!("no answer: {e}"))?;
            if !answer.status().is_success() {
                return Err(format!("download failed with status {}", answer.status().as_u16()));
            }
            let (mut body, mut sum) =
                (Limited::new(answer.into_body(), at_most), Context::new(&SHA256));
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| format!("reading the file failed: {e}"))?;
                let Ok(data) = frame.into_data() else { continue };
                sum.update(&data);
                bytes += u64::try_from(data.len()).unwrap_or_default();
                into.write_all(&data).await.map_err(|e| format!("writing the file failed: {e}"))?;
            }
            Ok((bytes, hex::encode(sum.finish())))
        };
        tokio::time::timeout(FILE_TIME, exchange)
            .await
            .unwrap_or_else(|_| Err("download timed out".to_owned()))
    }
}
