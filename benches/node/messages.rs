//! Benchmark of a user's message, from Meta's webhook to the customer's application: processor time
//! and latency, alternating with a lower bound that only checks the signature, stores the message
//! and posts it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use model::Clock;
use rusqlite::Connection;
use sim::client::fetch;
use sim::world;

use super::process::Process;
use super::subject::{Offhook, Setup};
use super::{World, env_number, say};

/// Number of users who write in turn, each in a separate conversation.
const USERS: u64 = 200;

/// Results of one round of one program.
struct Round {
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
}

pub(crate) async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let messages = env_number("OFFHOOK_BENCH_MESSAGES", 2_000);
    let rounds = env_number("OFFHOOK_BENCH_ROUNDS", 5);
    let rate = env_number("OFFHOOK_BENCH_RATE", 100);
    let mut world = World::new().await?;
    let (ours, theirs) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let places = world.places();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("message-floor")
        .arg(ours.path())
        .arg(format!("http://{}/messages", world.customer.at));
    let (floor, at) = Process::start(&mut command, true)?;
    let floor_url = format!("http://{at}");
    let setup = Setup {
        folder: theirs.path(),
        graph: &places.graph,
        answer: &places.answer,
        hangup: &places.hangup,
        accept_wait_ms: 0,
    };
    let node = Offhook::start(&world.client, &setup).await?;
    say(format_args!(
        "a user's message, {rate} a second, {messages} a round, floor and offhook by turns"
    ));
    let (mut floors, mut nodes) = (Vec::new(), Vec::new());
    let mut begun = 0;
    for number in 0..=rounds {
        let warm = number == 0;
        let count = if warm { 200 } else { messages };
        let one = round(&mut world, &floor, &floor_url, begun, count, rate).await?;
        let other = round(&mut world, &node.process, &node.url, begun + count, count, rate).await?;
        begun += 2 * count;
        if !warm {
            say(format_args!(
                "  round {number}: floor {:.0} µs, offhook {:.0} µs a message",
                one.cpu_us, other.cpu_us
            ));
            floors.push(one);
            nodes.push(other);
        }
    }
    let of = |rounds: &[Round], what: fn(&Round) -> f64| median(rounds.iter().map(what).collect());
    for (name, what) in [
        ("CPU per message, µs", (|r| r.cpu_us) as fn(&Round) -> f64),
        ("webhook sent → application told, p50, ms", |r| r.p50_ms),
        ("webhook sent → application told, p99, ms", |r| r.p99_ms),
    ] {
        let (low, high) = (of(&floors, what), of(&nodes, what));
        say(format_args!(
            "{name}: floor {low:.2}, offhook {high:.2}, ratio {:.2} (target 1.5)",
            high / low
        ));
    }
    Ok(())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Sends `count` messages at the given rate without waiting for earlier ones, then waits until the
/// application has received all of them.
async fn round(
    world: &mut World,
    process: &Process,
    url: &str,
    first: u64,
    count: u64,
    rate: u64,
) -> Result<Round, Box<dyn std::error::Error>> {
    let clock = Clock::real();
    let before = process.cpu();
    let begun = clock.now();
    let mut posts = tokio::task::JoinSet::new();
    let mut sent: HashMap<u64, Instant> = HashMap::new();
    for nr in 0..count {
        tokio::time::sleep_until((begun + Duration::from_micros(nr * 1_000_000 / rate)).into())
            .await;
        let body = body(first + nr);
        let request = Request::post(format!("{url}/webhooks/meta"))
            .header("content-type", "application/json")
            .header("x-hub-signature-256", signature(body.as_bytes()))
            .body(Bytes::from(body))?;
        sent.insert(first + nr, clock.now());
        let client = world.client.clone();
        posts.spawn(async move { fetch(&client, request, Duration::from_secs(10), 1 << 20).await });
    }
    for answer in posts.join_all().await {
        let status = answer?.status;
        if status != 200 {
            return Err(format!("a webhook was answered with {status}").into());
        }
    }
    let mut waits = Vec::new();
    while waits.len() < sent.len() {
        let received =
            tokio::time::timeout(Duration::from_secs(20), world.customer.messages.recv()).await?;
        let Some((text, at)) = received else { return Err("the application is gone".into()) };
        if let Some(at_first) = sent.get(&text) {
            waits.push(at.duration_since(*at_first).as_secs_f64() * 1e3);
        }
    }
    let cpu_us = process.cpu_since(&before).as_secs_f64() * 1e6 / count as f64;
    waits.sort_by(f64::total_cmp);
    let at =
        |share: f64| waits.get((waits.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
    Ok(Round { cpu_us, p50_ms: at(0.5), p99_ms: at(0.99) })
}

/// Returns a webhook with one text message in Meta's format. The text contains the message number.
fn body(nr: u64) -> String {
    let user = 919_600_000_000 + nr % USERS;
    let seconds = std::time::SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    serde_json::json!({"object": "whatsapp_business_account", "entry": [{"id": world::WABA, "changes": [{
        "field": "messages",
        "value": {
            "messaging_product": "whatsapp",
            "metadata": {"display_phone_number": world::NUMBER, "phone_number_id": world::PHONE_NUMBER_ID},
            "contacts": [{"profile": {"name": "Asha Verma"}, "wa_id": user.to_string()}],
            "messages": [{
                "from": user.to_string(), "id": format!("wamid.bench{nr}"), "timestamp": seconds.to_string(),
                "type": "text", "text": {"body": format!("message-{nr}-of-the-bench")},
            }],
        },
    }]}]})
    .to_string()
}

fn signature(body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, world::APP_SECRET.as_bytes());
    format!("sha256={}", hex::encode(hmac::sign(&key, body)))
}

struct Floor {
    store: Mutex<Connection>,
    client: Client<HttpConnector, Full<Bytes>>,
    target: String,
    webhooks: hmac::Key,
    requests: hmac::Key,
}

/// The lower bound: serves until the process is killed. Prints its address to standard output.
pub(crate) async fn serve(folder: &Path, target: String) -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    crate::say(format_args!("{}", listener.local_addr()?));
    let store = Connection::open(folder.join("floor.db"))?;
    store.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
         CREATE TABLE messages (wamid TEXT PRIMARY KEY, user_id TEXT NOT NULL, body TEXT NOT NULL)",
    )?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let floor = Arc::new(Floor {
        store: Mutex::new(store),
        client: Client::builder(TokioExecutor::new()).build(connector),
        target,
        webhooks: hmac::Key::new(hmac::HMAC_SHA256, world::APP_SECRET.as_bytes()),
        requests: hmac::Key::new(hmac::HMAC_SHA256, world::AUTH_TOKEN.as_bytes()),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let floor = floor.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| {
                let floor = floor.clone();
                async move {
                    let mut answer = Response::new(Full::<Bytes>::default());
                    *answer.status_mut() =
                        floor.webhook(request).await.err().unwrap_or(StatusCode::OK);
                    Ok::<_, Infallible>(answer)
                }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Floor {
    async fn webhook(self: &Arc<Self>, request: Request<Incoming>) -> Result<(), StatusCode> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map_err(|_| StatusCode::BAD_REQUEST)?.to_bytes();
        let tag = head
            .headers
            .get("x-hub-signature-256")
            .and_then(|tag| tag.as_bytes().strip_prefix(b"sha256="));
        let tag = tag.and_then(|tag| hex::decode(tag).ok()).unwrap_or_default();
        hmac::verify(&self.webhooks, &body, &tag).map_err(|_| StatusCode::UNAUTHORIZED)?;
        let body: serde_json::Value =
            serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
        let message = &body["entry"][0]["changes"][0]["value"]["messages"][0];
        let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let (wamid, user, text) =
            (word(&message["id"]), word(&message["from"]), word(&message["text"]["body"]));
        let insert = "INSERT INTO messages (wamid, user_id, body) VALUES (?1, ?2, ?3)";
        let stored = self
            .store
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .prepare_cached(insert)
            .and_then(|mut insert| insert.execute((&wamid, &user, &text)));
        stored.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
        tokio::spawn(self.clone().tell(wamid, user, text));
        Ok(())
    }

    /// Posts the form that an application receives, signed as Plivo does.
    async fn tell(self: Arc<Self>, wamid: String, user: String, text: String) {
        let form = format!(
            "Body={text}&ContentType=text&From={user}&MessageUUID=0c2e4a31-7a55-4c2b-9c07-1f1b5d0d4b90&\
             ProfileName=Asha+Verma&To={}&WhatsappMessageID={wamid}",
            world::NUMBER
        );
        let nonce = "01234567890123456789";
        let sign = |what: String| STANDARD.encode(hmac::sign(&self.requests, what.as_bytes()));
        let (v3, v2) = (
            sign(format!("{}?{form}.{nonce}", self.target)),
            sign(format!("{}{nonce}", self.target)),
        );
        let request = Request::post(&self.target)
            .header("user-agent", "floor/1")
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .header("x-plivo-signature-v3", &v3)
            .header("x-plivo-signature-ma-v3", &v3)
            .header("x-plivo-signature-v3-nonce", nonce)
            .header("x-plivo-signature-v2", &v2)
            .header("x-plivo-signature-ma-v2", &v2)
            .header("x-plivo-signature-v2-nonce", nonce)
            .body(Full::from(form));
        let Ok(request) = request else { return };
        if let Ok(answer) = self.client.request(request).await {
            let _ = answer.into_body().collect().await;
        }
    }
}
