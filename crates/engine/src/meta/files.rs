//! Users' files at Meta: uploads with `POST /{phone_number_id}/media`, and downloads. Files are
//! streamed from and to the disk and never held in memory as a whole. Uploads are not retried: the
//! client that sent the file can try again.

use std::io;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::Frame;
use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use uuid::Uuid;

use super::error::{Verdict, classify_request, is_alarm};
use super::graph::{ANSWER_MAX, FileBody, Graph, UNREADABLE, retry_after};
use super::request::{Node, OTHER};
use super::retry::Fault;
use super::retry_state::outcome;
use super::status_label;
use machine::GraphOutcome;
use model::metric;
use model::{PhoneNumberId, Secret};

/// The time limit for one file.
const FILE_TIME: Duration = Duration::from_secs(120);
/// The maximum size of a downloaded file, which is Meta's limit for documents.
const FILE_MAX: usize = 100 << 20;
/// The maximum size of the answer that describes a file.
const NAMED_MAX: usize = 64 << 10;
/// The size of a read in bytes.
const CHUNK: usize = 64 << 10;
/// Domains from which Meta serves files.
const META_DOMAINS: [&str; 5] =
    ["fbsbx.com", "facebook.com", "fbcdn.net", "whatsapp.net", "whatsapp.com"];

/// A file to upload, read from its current position.
pub struct Upload<'a> {
    pub file: File,
    pub bytes: u64,
    pub mime: &'a str,
    pub filename: &'a str,
}

/// The files of a number's messages, with [`Graph::files`](super::Graph::files).
pub struct Files<'a>(Node<'a>);

impl Graph {
    /// The files of a number's messages.
    pub fn files(&self, number: &PhoneNumberId, token: Option<&Secret>) -> Files<'_> {
        Files(Node::new(self, number.as_str(), token))
    }
}

impl Files<'_> {
    /// Uploads a file. Returns Meta's media id.
    ///
    /// # Errors
    /// Returns the outcome of the request.
    pub async fn upload(&self, upload: Upload<'_>) -> Result<String, GraphOutcome> {
        let Node { graph, id: number, token } = &self.0;
        let (uri, mut headers) =
            graph.head(number, "media", token.as_ref()).ok_or(GraphOutcome::Unreachable)?;
        let form = Form::of(&upload, &Uuid::new_v4().simple().to_string());
        headers.insert(CONTENT_TYPE, form.content_type.clone().ok_or(GraphOutcome::Unreachable)?);
        headers.insert(CONTENT_LENGTH, HeaderValue::from(form.bytes));
        let begun = graph.clock.now();
        let exchange = self.exchange_upload(uri, headers, form.body(upload.file, upload.bytes));
        let answered =
            tokio::time::timeout(FILE_TIME, exchange).await.unwrap_or(Err(Fault::Timeout));
        let status = match &answered {
            Ok((status, ..)) => status_label::of(*status),
            Err(Fault::Timeout) => status_label::TIMEOUT.to_owned(),
            Err(_) => status_label::ERROR.to_owned(),
        };
        let took = graph.clock.now().saturating_duration_since(begun).as_secs_f64();
        metrics::histogram!(metric::GRAPH_REQUEST_SECONDS, "action" => OTHER, "status" => status)
            .record(took);
        match answered {
            Ok((_, Verdict::Done, body)) => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let id = body.get("id").and_then(Value::as_str).filter(|id| !id.is_empty());
                id.map(str::to_owned).ok_or(UNREADABLE)
            }
            Ok((_, Verdict::Refused { status, code, details }, _)) => {
                if is_alarm(status, code) {
                    tracing::error!(phone_number_id = %number, code, details, "graph refused the request; check the token, the account and its payment");
                }
                Err(GraphOutcome::Refused { status, code, details })
            }
            Ok((_, Verdict::Retryable(again), _)) => Err(outcome(Fault::Answered(again))),
            // These verdicts only occur for calls.
            Ok((
                _,
                Verdict::Connected { .. } | Verdict::Gone | Verdict::AlreadyAccepted { .. },
                _,
            )) => Err(GraphOutcome::Gone),
            Err(fault) => Err(outcome(fault)),
        }
    }

    async fn exchange_upload(
        &self,
        uri: Uri,
        headers: HeaderMap,
        body: FileBody,
    ) -> Result<(u16, Verdict, Bytes), Fault> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers.clone();
        let answer = self.0.graph.upload_http.request(request).await.map_err(|error| {
            tracing::debug!(%error, "no answer from graph");
            if error.is_connect() { Fault::Unreachable } else { Fault::Broken }
        })?;
        let status = answer.status().as_u16();
        let after = retry_after(answer.headers());
        let body = Limited::new(answer.into_body(), ANSWER_MAX)
            .collect()
            .await
            .map_err(|_| Fault::Broken)?
            .to_bytes();
        let redacted = self.0.graph.redact_tokens(&body, &headers);
        Ok((status, classify_request(status, after, &redacted), Bytes::from(redacted.into_owned())))
    }

    /// Downloads a file of the number's messages: gets its URL from
    /// `GET /{media_id}?phone_number_id=…`, then writes its bytes to `into` as they arrive. Both
    /// requests carry the token. With the parameter, Meta refuses files of other numbers. Returns the
    /// number of bytes once they match Meta's checksum.
    ///
    /// # Errors
    /// Returns a description of the failure. The bytes written so far must be discarded.
    pub async fn download(
        &self,
        media: &str,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, String> {
        let plain = !media.is_empty()
            && media.len() <= 128
            && media.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if !plain {
            return Err("invalid media id".to_owned());
        }
        let Node { graph, id: number, .. } = &self.0;
        let about = format!("{}/{media}?phone_number_id={number}", graph.config.base_url)
            .parse::<Uri>()
            .map_err(|e| e.to_string())?;
        let mut named = Vec::new();
        self.write(&about, NAMED_MAX, &mut named).await?;
        let named: Value = serde_json::from_slice(&named)
            .map_err(|_| "Meta's description of the file is not JSON".to_owned())?;
        let url = named.get("url").and_then(Value::as_str).unwrap_or_default();
        let url = url
            .parse::<Uri>()
            .map_err(|_| "Meta's description of the file has no URL".to_owned())?;
        if !may_get_token(&url, &about) {
            return Err("Meta's URL of the file is not https, or not at Meta".to_owned());
        }
        let (bytes, sum) = self.write(&url, FILE_MAX, into).await?;
        match named.get("sha256").and_then(Value::as_str) {
            Some(checksum)
                if checksum.len() == sum.len() && !checksum.eq_ignore_ascii_case(&sum) =>
            {
                Err("checksum differs from Meta's".to_owned())
            }
            _ => Ok(bytes),
        }
    }

    /// Downloads a file. Returns the number of bytes and their SHA-256.
    async fn write(
        &self,
        uri: &Uri,
        at_most: usize,
        into: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(u64, String), String> {
        let Node { graph, token, .. } = &self.0;
        let token = token.as_ref().unwrap_or(&graph.config.token);
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
            .map_err(|e| e.to_string())?;
        bearer.set_sensitive(true);
        let agent = HeaderValue::try_from(&graph.config.user_agent).map_err(|e| e.to_string())?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = uri.clone();
        *request.headers_mut() =
            HeaderMap::from_iter([(AUTHORIZATION, bearer), (USER_AGENT, agent)]);
        let exchange = async {
            let answer =
                graph.http.request(request).await.map_err(|e| format!("no answer: {e}"))?;
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

/// Whether the token may be sent to this URL: to the host and port of Graph, or over TLS to one of
/// Meta's hosts. A tenant chooses the id of the object that contains the URL.
fn may_get_token(url: &Uri, graph: &Uri) -> bool {
    if url.authority().is_some() && url.authority() == graph.authority() {
        return true;
    }
    let host = url.host().unwrap_or_default().to_ascii_lowercase();
    let is_below =
        |domain: &&str| host.strip_suffix(*domain).is_some_and(|name| name.ends_with('.'));
    url.scheme_str() == Some("https") && META_DOMAINS.iter().any(is_below)
}

/// A multipart form around a file.
struct Form {
    content_type: Option<HeaderValue>,
    before: String,
    after: String,
    /// The size of the whole form.
    bytes: u64,
}

impl Form {
    fn of(upload: &Upload<'_>, boundary: &str) -> Self {
        // Prevents line breaks and quotes in the headers.
        let plain = |text: &str, also: &str| -> String {
            let fits = |c: char| c.is_ascii_alphanumeric() || also.contains(c);
            text.chars().map(|c| if fits(c) { c } else { '_' }).take(100).collect()
        };
        let (mime, filename) = (plain(upload.mime, "/.+-"), plain(upload.filename, ".-_ ()"));
        let field = |name: &str, value: &str| {
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
            )
        };
        let before = format!(
            "{}{}--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\nContent-Type: {mime}\r\n\r\n",
            field("messaging_product", "whatsapp"),
            field("type", &mime),
        );
        let after = format!("\r\n--{boundary}--\r\n");
        let around = u64::try_from(before.len() + after.len()).unwrap_or_default();
        let content_type =
            HeaderValue::try_from(format!("multipart/form-data; boundary={boundary}")).ok();
        Self { content_type, before, after, bytes: upload.bytes + around }
    }

    fn body(self, file: File, bytes: u64) -> FileBody {
        let whole = |text: String| stream::iter([Ok(Bytes::from(text))]);
        let pieces = whole(self.before).chain(chunks(file, bytes)).chain(whole(self.after));
        StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
    }
}

/// The first `bytes` of the file, in chunks.
fn chunks(file: File, bytes: u64) -> impl stream::Stream<Item = io::Result<Bytes>> {
    stream::try_unfold(file.take(bytes), |mut file| async move {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = (&mut file).take(CHUNK as u64).read_to_end(&mut chunk).await?;
        Ok((read > 0).then(|| (Bytes::from(chunk), file)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_form_has_the_declared_length_and_escaped_names() {
        use tokio::io::AsyncSeekExt as _;
        let mut file = File::from_std(tempfile::tempfile().unwrap());
        let content = vec![b'x'; CHUNK + 7];
        file.write_all(&content).await.unwrap();
        file.rewind().await.unwrap();
        let bytes = u64::try_from(content.len()).unwrap();
        let upload = Upload { file, bytes, mime: "image/png", filename: "a\"\r\nX: y é.png" };
        let form = Form::of(&upload, "BOUNDARY");
        let bytes_stated = form.bytes;
        let sent = form.body(upload.file, bytes).collect().await.unwrap().to_bytes();
        assert_eq!(u64::try_from(sent.len()).unwrap(), bytes_stated);
        let text = String::from_utf8(sent.to_vec()).unwrap();
        let expected = format!(
            "--BOUNDARY\r\nContent-Disposition: form-data; name=\"messaging_product\"\r\n\r\nwhatsapp\r\n\
             --BOUNDARY\r\nContent-Disposition: form-data; name=\"type\"\r\n\r\nimage/png\r\n\
             --BOUNDARY\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a___X_ y _.png\"\r\n\
             Content-Type: image/png\r\n\r\n{}\r\n--BOUNDARY--\r\n",
            "x".repeat(content.len())
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn r17_the_token_is_sent_to_meta_only() {
        let may = |url: &str| {
            let graph = http::Uri::from_static("https://graph.facebook.com/v23.0/7");
            may_get_token(&url.parse().expect("a URL"), &graph)
        };
        for url in [
            "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=1",
            "https://mmg.WhatsApp.net/a",
            "https://graph.facebook.com/a",
        ] {
            assert!(may(url), "{url}");
        }
        for url in [
            "http://lookaside.fbsbx.com/a",
            "https://lookaside.fbsbx.com.example.com/a",
            "https://evilfbsbx.com/a",
            "https://example.com/a",
            "https://169.254.169.254/a",
            "/a",
        ] {
            assert!(!may(url), "{url}");
        }
        let simulated = http::Uri::from_static("http://127.0.0.1:8081/v23.0/7");
        let url = http::Uri::from_static("http://127.0.0.1:8081/_sim/media/7");
        assert!(may_get_token(&url, &simulated));
        let other = http::Uri::from_static("http://127.0.0.1:8082/_sim/media/7");
        assert!(!may_get_token(&other, &simulated));
    }
}
