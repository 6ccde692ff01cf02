//! A small S3 server: one bucket in memory that verifies the signature of every request.
//!
//! The verification follows Amazon's page "Authenticating Requests: Using Query Parameters (AWS
//! Signature Version 4)" and shares no code with the library that signs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_lc_rs::{digest, hmac};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use tokio::sync::watch;

pub const KEY_ID: &str = "AKIDTESTOFFHOOK";
pub const SECRET: &str = "secret/of+the=storage";
pub const REGION: &str = "eu-test-1";
pub const NAME: &str = "calls";

/// A stored object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    pub content_type: String,
    pub bytes: Vec<u8>,
}

struct Inner {
    objects: Mutex<BTreeMap<String, Object>>,
    /// Status codes of the next responses, which fail.
    failing: Mutex<Vec<u16>>,
    /// Method, key and status of the requests.
    requests: Mutex<Vec<(String, String, u16)>>,
    changed: watch::Sender<u64>,
}

/// A running server.
#[derive(Clone)]
pub struct Bucket {
    inner: Arc<Inner>,
    pub base: String,
}

impl Bucket {
    pub async fn start() -> Self {
        let inner = Arc::new(Inner {
            objects: Mutex::default(),
            failing: Mutex::default(),
            requests: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port for the storage");
        let base = format!("http://{}", listener.local_addr().expect("its address"));
        let router = Router::new().fallback(handle).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { inner, base }
    }

    /// Returns a `[recordings.s3]` table.
    pub fn toml(&self, more: &str) -> String {
        format!(
            "[recordings.s3]\nendpoint = \"{}\"\nregion = \"{REGION}\"\nbucket = \"{NAME}\"\nprefix = \"offhook/\"\n\
             access_key_id = \"{KEY_ID}\"\nsecret_access_key = \"{SECRET}\"\n{more}\n",
            self.base
        )
    }

    /// Makes the next requests fail with these status codes.
    pub fn fail(&self, statuses: &[u16]) {
        self.inner.failing.lock().expect("failing").extend(statuses);
    }

    pub fn objects(&self) -> BTreeMap<String, Object> {
        self.inner.objects.lock().expect("objects").clone()
    }

    pub fn requests(&self) -> Vec<(String, String, u16)> {
        self.inner.requests.lock().expect("requests").clone()
    }

    /// Waits until `count` requests have been received.
    pub async fn until_requests(&self, count: usize) {
        let mut changed = self.inner.changed.subscribe();
        let requests = async {
            while self.requests().len() < count {
                changed.changed().await.expect("the storage lives");
            }
        };
        let requests = tokio::time::timeout(std::time::Duration::from_secs(40), requests).await;
        requests.unwrap_or_else(|_| {
            panic!("{count} not within 40 s; requests: {:#?}", self.requests())
        });
    }

    /// Waits until the objects satisfy a condition.
    pub async fn until(
        &self,
        holds: impl Fn(&BTreeMap<String, Object>) -> bool,
    ) -> BTreeMap<String, Object> {
        let mut changed = self.inner.changed.subscribe();
        let found = async {
            loop {
                let objects = self.objects();
                if holds(&objects) {
                    return objects;
                }
                changed.changed().await.expect("the storage lives");
            }
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(40), found).await;
        found.unwrap_or_else(|_| panic!("not within 40 s; requests: {:#?}", self.requests()))
    }
}

async fn handle(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let key = head.uri.path().strip_prefix(&format!("/{NAME}/")).map(str::to_owned);
    let body = to_bytes(body, 64 << 20).await.unwrap_or_default().to_vec();
    let failing = {
        let mut failing = inner.failing.lock().expect("failing");
        (!failing.is_empty()).then(|| failing.remove(0))
    };
    let answer = match (failing, checked(&head), key.clone()) {
        (Some(status), _, _) => error(status, "SlowDown"),
        (None, Err(code), _) => error(403, code),
        (None, Ok(()), None) => error(404, "NoSuchBucket"),
        (None, Ok(()), Some(key)) => carry_out(&inner, &head, key, body),
    };
    let requests = (head.method.to_string(), key.unwrap_or_default(), answer.status().as_u16());
    inner.requests.lock().expect("requests").push(requests);
    inner.changed.send_modify(|n| *n += 1);
    answer
}

fn carry_out(
    inner: &Inner,
    head: &axum::http::request::Parts,
    key: String,
    bytes: Vec<u8>,
) -> Response {
    let text = |name: header::HeaderName| {
        head.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
    };
    let mut objects = inner.objects.lock().expect("objects");
    match head.method.as_str() {
        "PUT" => {
            if text(header::CONTENT_LENGTH).and_then(|n| n.parse().ok()) != Some(bytes.len()) {
                return error(411, "MissingContentLength");
            }
            objects.insert(
                key,
                Object { content_type: text(header::CONTENT_TYPE).unwrap_or_default(), bytes },
            );
            Response::new(Body::empty())
        }
        "DELETE" => {
            objects.remove(&key);
            let mut answer = Response::new(Body::empty());
            *answer.status_mut() = StatusCode::NO_CONTENT;
            answer
        }
        "GET" | "HEAD" => {
            let Some(object) = objects.get(&key) else { return error(404, "NoSuchKey") };
            let len = object.bytes.len();
            let range = text(header::RANGE).and_then(|range| {
                let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
                Some((
                    first.parse::<usize>().ok()?,
                    last.parse::<usize>().unwrap_or(len - 1).min(len - 1),
                ))
            });
            let answer = Response::builder().header(header::CONTENT_TYPE, &object.content_type);
            let answer = match range {
                Some((first, _)) if first >= len => return error(416, "InvalidRange"),
                Some((first, last)) => answer
                    .status(206)
                    .header(header::CONTENT_RANGE, format!("bytes {first}-{last}/{len}"))
                    .body(Body::from(object.bytes[first..=last].to_vec())),
                None if head.method == "HEAD" => {
                    answer.header(header::CONTENT_LENGTH, len).body(Body::empty())
                }
                None => answer.body(Body::from(object.bytes.clone())),
            };
            answer.expect("an answer")
        }
        _ => error(405, "MethodNotAllowed"),
    }
}

fn error(status: u16, code: &str) -> Response {
    let body =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>");
    Response::builder().status(status).body(Body::from(body)).expect("an answer")
}

/// Verifies that the request is signed with our key, is current, and matches the signature.
fn checked(head: &axum::http::request::Parts) -> Result<(), &'static str> {
    let pairs: Vec<(String, String)> =
        url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let get = |name: &str| {
        pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).ok_or("MissingParameter")
    };
    let (date, expires) = (get("X-Amz-Date")?, get("X-Amz-Expires")?);
    let scope = get("X-Amz-Credential")?
        .strip_prefix(KEY_ID)
        .and_then(|s| s.strip_prefix('/'))
        .ok_or("InvalidKey")?;
    let day = date.get(..8).ok_or("BadDate")?;
    if get("X-Amz-Algorithm")? != "AWS4-HMAC-SHA256"
        || scope != format!("{day}/{REGION}/s3/aws4_request")
    {
        return Err("InvalidScope");
    }
    let began = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", date).map_err(|_| "BadDate")?;
    let began = began.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| "BadDate")?.timestamp();
    let age = jiff::Timestamp::now().as_second() - began.as_second();
    if age < -60 || age > expires.parse::<i64>().map_err(|_| "BadExpires")? {
        return Err("RequestExpired");
    }
    // The canonical request: names and values percent-encoded, sorted by their encoded names.
    let mut canonical: Vec<String> = pairs
        .iter()
        .filter(|(name, _)| name != "X-Amz-Signature")
        .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
        .collect();
    canonical.sort();
    let signed = get("X-Amz-SignedHeaders")?;
    if !signed.split(';').any(|name| name == "host") {
        return Err("HostNotSigned");
    }
    let headers: String = signed
        .split(';')
        .map(|name| {
            let value = head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
            format!("{name}:{}\n", value.trim())
        })
        .collect();
    let request = format!(
        "{}\n{}\n{}\n{headers}\n{signed}\nUNSIGNED-PAYLOAD",
        head.method,
        head.uri.path(),
        canonical.join("&")
    );
    let hash = hex::encode(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{hash}");
    let mac = |key: &[u8], data: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data.as_bytes()).as_ref().to_vec()
    };
    let key = [day, REGION, "s3", "aws4_request"]
        .iter()
        .fold(format!("AWS4{SECRET}").into_bytes(), |key, part| mac(&key, part));
    match hex::encode(mac(&key, &to_sign)) == get("X-Amz-Signature")? {
        true => Ok(()),
        false => Err("SignatureDoesNotMatch"),
    }
}

/// Percent-encodes everything except RFC 3986's unreserved characters.
fn encoded(text: &str) -> String {
    let one = |b: u8| match b {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(b).to_string()
        }
        _ => format!("%{b:02X}"),
    };
    text.bytes().map(one).collect()
}
