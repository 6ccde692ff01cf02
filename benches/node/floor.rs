//! The lower bound for call set-up: a program that makes the HTTP exchanges and HMACs of a call and
//! nothing more.
//!
//! It has no gate, machine, document parser, media, store, log, metrics, retries or limits. It
//! shows the cost of the runtime, hyper and the kernel, to which Offhook's own work is compared.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sim::world;
use tokio::sync::oneshot;

/// An SDP answer of the usual length, as a node sends it to the simulator.
const ANSWER: &str = include_str!("answer.sdp");

/// URLs of the peers.
#[derive(Clone)]
pub(crate) struct Places {
    pub(crate) graph: String,
    pub(crate) answer: String,
    pub(crate) hangup: String,
}

struct Floor {
    places: Places,
    client: Client<HttpConnector, Full<Bytes>>,
    webhooks: hmac::Key,
    requests: hmac::Key,
    live: Mutex<HashMap<String, oneshot::Sender<()>>>,
}

/// Serves until the process is killed. Prints its address to standard output.
pub(crate) async fn serve(places: Places) -> Result<(), Box<dyn std::error::Error>> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    crate::say(format_args!("{}", listener.local_addr()?));
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let floor = Arc::new(Floor {
        places,
        client: Client::builder(TokioExecutor::new()).build(connector),
        webhooks: hmac::Key::new(hmac::HMAC_SHA256, world::APP_SECRET.as_bytes()),
        requests: hmac::Key::new(hmac::HMAC_SHA256, world::AUTH_TOKEN.as_bytes()),
        live: Mutex::default(),
    });
    loop {
        let (stream, _) = listener.accept().await?;
        let _ = stream.set_nodelay(true);
        let floor = floor.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request| {
                let floor = floor.clone();
                async move { Ok::<_, Infallible>(floor.webhook(request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[derive(serde::Deserialize)]
struct Body {
    entry: [Entry; 1],
}
#[derive(serde::Deserialize)]
struct Entry {
    changes: [Change; 1],
}
#[derive(serde::Deserialize)]
struct Change {
    value: Value,
}
#[derive(serde::Deserialize)]
struct Value {
    metadata: Metadata,
    calls: [Call; 1],
}
#[derive(serde::Deserialize)]
struct Metadata {
    phone_number_id: String,
}
#[derive(serde::Deserialize)]
struct Call {
    id: String,
    from: String,
    to: String,
    event: String,
    session: Option<Session>,
}
#[derive(serde::Deserialize)]
struct Session {
    sdp: String,
}

impl Floor {
    async fn webhook(self: &Arc<Self>, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = |status: u16, body: Bytes| {
            let mut answer = Response::new(Full::new(body));
            *answer.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
            answer
        };
        if request.method() == Method::GET {
            let query = request.uri().query().unwrap_or_default();
            let challenge = query.split('&').find_map(|pair| pair.strip_prefix("hub.challenge="));
            return answer(200, Bytes::copy_from_slice(challenge.unwrap_or_default().as_bytes()));
        }
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
            return answer(400, Bytes::new());
        };
        let tag = head
            .headers
            .get("x-hub-signature-256")
            .and_then(|tag| tag.as_bytes().strip_prefix(b"sha256="));
        let tag = tag.and_then(|tag| hex::decode(tag).ok()).unwrap_or_default();
        if hmac::verify(&self.webhooks, &body, &tag).is_err() {
            return answer(401, Bytes::new());
        }
        let Ok(Body { entry: [Entry { changes: [Change { value }] }] }) =
            serde_json::from_slice(&body)
        else {
            return answer(400, Bytes::new());
        };
        let Value { metadata: Metadata { phone_number_id }, calls: [call] } = value;
        if call.event == "connect" {
            let (end, ended) = oneshot::channel();
            self.live.lock().unwrap_or_else(|e| e.into_inner()).insert(call.id.clone(), end);
            tokio::spawn(self.clone().call(phone_number_id, call, ended));
        } else if let Some(end) =
            self.live.lock().unwrap_or_else(|e| e.into_inner()).remove(&call.id)
        {
            let _ = end.send(());
        }
        answer(200, Bytes::new())
    }

    /// Runs one call: `pre_accept` and the document fetch concurrently, then `accept`, and the
    /// hangup callback at the end.
    async fn call(
        self: Arc<Self>,
        phone_number_id: String,
        call: Call,
        ended: oneshot::Receiver<()>,
    ) {
        let active =
            call.session.as_ref().is_some_and(|session| session.sdp.contains("a=setup:active"));
        let sdp = if active {
            ANSWER.replace("a=setup:active", "a=setup:passive")
        } else {
            ANSWER.to_owned()
        };
        let mut params = format!(
            "CallStatus=ringing&Event=StartApp&From={}&To={}&CallUUID=0c2e4a31-7a55-4c2b-9c07-1f1b5d0d4b90&\
             Direction=inbound&BillRate=0.00000&CallType=whatsapp&CallerName=Asha+Verma&ParentAuthID={}&\
             SessionStart=2026-01-01+00%3A00%3A00.000000&STIRVerification=Not+Applicable&WhatsAppCallID={}",
            call.from,
            call.to,
            world::ACCOUNT,
            call.id
        );
        let answer = self.places.answer.clone();
        tokio::join!(
            self.graph(&phone_number_id, &call.id, "pre_accept", &sdp),
            self.ask(&answer, params.clone(), true)
        );
        self.graph(&phone_number_id, &call.id, "accept", &sdp).await;
        let _ = ended.await;
        let _ = write!(
            params,
            "&AnswerTime=2026-01-01+00%3A00%3A00&BillDuration=1&Duration=1&HangupCause=NORMAL_CLEARING&HangupCauseCode=4000&HangupSource=Caller&TotalCost=0.00000"
        );
        let hangup = self.places.hangup.clone();
        self.ask(&hangup, params, false).await;
    }

    async fn graph(&self, phone_number_id: &str, call: &str, action: &str, sdp: &str) {
        let body = serde_json::json!({
            "messaging_product": "whatsapp", "call_id": call, "action": action,
            "session": {"sdp_type": "answer", "sdp": sdp},
        });
        let request = Request::post(format!("{}/{phone_number_id}/calls", self.places.graph))
            .header("authorization", format!("Bearer {}", world::ACCESS_TOKEN))
            .header("content-type", "application/json")
            .header("user-agent", "floor/1")
            .body(Full::from(body.to_string()));
        self.send(request).await;
    }

    /// Posts a signed form. One signature per scheme is computed and each is sent twice, as for a
    /// main account.
    async fn ask(&self, url: &str, form: String, wants_document: bool) {
        let nonce = "01234567890123456789";
        let v3 =
            STANDARD.encode(hmac::sign(&self.requests, format!("{url}?{form}.{nonce}").as_bytes()));
        let v2 = STANDARD.encode(hmac::sign(&self.requests, format!("{url}{nonce}").as_bytes()));
        let request = Request::post(url)
            .header("user-agent", "floor/1")
            .header("accept", if wants_document { "application/xml" } else { "*/*" })
            .header("accept-encoding", "gzip, deflate")
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .header("x-offhook-event-id", "0c2e4a31-7a55-4c2b-9c07-1f1b5d0d4b90")
            .header("x-offhook-attempt", HeaderValue::from(1))
            .header("x-plivo-signature-v3", &v3)
            .header("x-plivo-signature-ma-v3", &v3)
            .header("x-plivo-signature-v3-nonce", nonce)
            .header("x-plivo-signature-v2", &v2)
            .header("x-plivo-signature-ma-v2", &v2)
            .header("x-plivo-signature-v2-nonce", nonce)
            .body(Full::from(form));
        self.send(request).await;
    }

    async fn send(&self, request: Result<Request<Full<Bytes>>, http::Error>) {
        let Ok(request) = request else { return };
        if let Ok(answer) = self.client.request(request).await {
            let _ = answer.into_body().collect().await;
        }
    }
}
