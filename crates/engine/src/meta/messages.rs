//! Sending messages and fetching users' files (`meta-calling.md` §4.3, §4.5). What a message says is its sender's.

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Value, json};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::graph::Graph;
use super::question::Question;
use machine::GraphOutcome;
use model::PhoneNumberId;
use model::Secret;

/// Largest file that is fetched: Meta's own bound of a document.
const FILE_MAX: usize = 100 << 20;
/// Largest answer that names one.
const NAMED_MAX: usize = 64 << 10;
/// One file, to its last byte.
const FILE_TIME: std::time::Duration = std::time::Duration::from_secs(120);

impl Graph {
    /// `POST /{phone_number_id}/messages`; gives the message's id.
    ///
    /// # Errors
    /// How it failed, further tries included. After a time-out it may have been sent.
    pub async fn send_message(
        &self,
        number: &PhoneNumberId,
        token: Option<&Secret>,
        message: &Value,
    ) -> Result<String, GraphOutcome> {
        let body = message.to_string().into_bytes();
        let answer = self
            .question(&Question::post(number, token, "messages".to_owned(), "message", body))
            .await?;
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let id =
            answer.pointer("/messages/0/id").and_then(Value::as_str).filter(|id| !id.is_empty());
        id.map(str::to_owned).ok_or(GraphOutcome::ServerError { status: 200 })
    }

    /// Tells the user that a message of theirs was read.
    ///
    /// # Errors
    /// How it failed, further tries included.
    pub async fn mark_read(
        &self,
        number: &PhoneNumberId,
        token: Option<&Secret>,
        wamid: &str,
    ) -> Result<(), GraphOutcome> {
        let body = json!({"messaging_product": "whatsapp", "status": "read", "message_id": wamid});
        let body = body.to_string().into_bytes();
        self.question(&Question::post(number, token, "messages".to_owned(), "message", body))
            .await
            .map(drop)
    }

    /// A user's file: where it is (`GET /{media_id}`), then its bytes, both with the token. They go `into` this as they come,
    /// so that a file is never in memory whole; how many there were, once they add up to Meta's sum.
    ///
    /// # Errors
    /// In words; what was written until then is nothing.
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
            return Err("its id is none".to_owned());
        }
        let about = format!("{}/{media}", self.config.base_url)
            .parse::<Uri>()
            .map_err(|e| e.to_string())?;
        let mut named = Vec::new();
        self.download(&about, token, NAMED_MAX, &mut named).await?;
        let named: Value = serde_json::from_slice(&named)
            .map_err(|_| "Meta's word on it is no JSON".to_owned())?;
        let url = named.get("url").and_then(Value::as_str).unwrap_or_default();
        let url = url.parse::<Uri>().map_err(|_| "Meta gives no URL for it".to_owned())?;
        // The token goes to Meta over TLS, or where Graph itself is.
        let at_graph = url.authority().is_some() && url.authority() == about.authority();
        if url.scheme_str() != Some("https") && !at_graph {
            return Err("Meta's URL for it is not https".to_owned());
        }
        let (bytes, sum) = self.download(&url, token, FILE_MAX, into).await?;
        match named.get("sha256").and_then(Value::as_str) {
            Some(told) if told.len() == sum.len() && !told.eq_ignore_ascii_case(&sum) => {
                Err("it is not what Meta says it is: the sums differ".to_owned())
            }
            _ => Ok(bytes),
        }
    }

    /// How many bytes there were, and their SHA-256.
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
                return Err(format!("the answer was {}", answer.status().as_u16()));
            }
            let (mut body, mut sum) =
                (Limited::new(answer.into_body(), at_most), Context::new(&SHA256));
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| format!("it could not be read: {e}"))?;
                let Ok(data) = frame.into_data() else { continue };
                sum.update(&data);
                bytes += u64::try_from(data.len()).unwrap_or_default();
                into.write_all(&data).await.map_err(|e| format!("it could not be written: {e}"))?;
            }
            Ok((bytes, hex::encode(sum.finish())))
        };
        tokio::time::timeout(FILE_TIME, exchange)
            .await
            .unwrap_or_else(|_| Err("it took too long".to_owned()))
    }
}
