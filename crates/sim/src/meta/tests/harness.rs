//! Test harness: a minimal node that receives webhooks, and a WebRTC peer with a full ICE agent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Direction, Frequency, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionMap, RtpWrite};
use str0m::{Candidate, Event, IceCreds, Input, Output, Rtc, RtcConfig};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::mpsc;

use crate::client;
use crate::world::{ACCESS_TOKEN, APP_SECRET, PHONE_NUMBER_ID, VERIFY_TOKEN};
use crate::{Sim, SimOptions, SimTimes};
use model::Clock;

/// Maximum time to wait for anything.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A received webhook.
#[derive(Debug)]
pub(super) struct ReceivedWebhook {
    pub(super) raw: Bytes,
    pub(super) signature: String,
    pub(super) body: Value,
}

impl ReceivedWebhook {
    /// The only item of `calls[]`.
    pub(super) fn call(&self) -> &Value {
        &self.body["entry"][0]["changes"][0]["value"]["calls"][0]
    }
}

/// State of the fake node, shared with its handlers.
pub(super) struct NodeState {
    hooks: mpsc::Sender<ReceivedWebhook>,
    pub(super) verifications: AtomicU64,
    /// Whether verification passes.
    pub(super) verifies: bool,
    /// Number of webhooks that are still answered with 500.
    pub(super) failures: AtomicU64,
    /// Event log of every call, as JSON lines.
    pub(super) events: String,
}

pub(super) struct Node {
    pub(super) sim: Sim,
    pub(super) url: String,
    pub(super) state: Arc<NodeState>,
    hooks: mpsc::Receiver<ReceivedWebhook>,
    client: client::Client,
}

async fn verify(
    State(state): State<Arc<NodeState>>,
    Query(query): Query<Vec<(String, String)>>,
) -> (StatusCode, String) {
    state.verifications.fetch_add(1, Ordering::SeqCst);
    let text = |name: &str| {
        query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).unwrap_or_default()
    };
    let right = text("hub.mode") == "subscribe" && text("hub.verify_token") == VERIFY_TOKEN;
    if right && state.verifies {
        (StatusCode::OK, text("hub.challenge").to_owned())
    } else {
        (StatusCode::FORBIDDEN, String::new())
    }
}

async fn hook(State(state): State<Arc<NodeState>>, headers: HeaderMap, raw: Bytes) -> StatusCode {
    let signature = headers
        .get("x-hub-signature-256")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    if signature != super::super::body::signature(APP_SECRET, &raw) {
        return StatusCode::UNAUTHORIZED;
    }
    let body = serde_json::from_slice(&raw).expect("a webhook is JSON");
    let _ = state.hooks.try_send(ReceivedWebhook { raw, signature, body });
    let left =
        state.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    if left.is_ok() { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK }
}

impl Node {
    pub(super) async fn start() -> Self {
        Self::with(|_| {}, |_| {}).await
    }

    /// Starts a node and a simulator that points at it.
    pub(super) async fn with(
        change_state: impl FnOnce(&mut NodeState),
        change_options: impl FnOnce(&mut SimOptions),
    ) -> Self {
        let (sender, hooks) = mpsc::channel(64);
        let mut state = NodeState {
            hooks: sender,
            verifications: AtomicU64::new(0),
            verifies: true,
            failures: AtomicU64::new(0),
            events: String::new(),
        };
        change_state(&mut state);
        let state = Arc::new(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let app = Router::new()
            .route("/webhooks/meta", get(verify).post(hook))
            .route(
                "/api/v1/calls/{uuid}/events",
                get(async |State(state): State<Arc<NodeState>>| state.events.clone()),
            )
            .with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        let mut options =
            SimOptions { node_url: Some(url.clone()), seed: Some(7), ..SimOptions::default() };
        change_options(&mut options);
        let sim = Sim::start(options).await.expect("sim");
        Self { sim, url, state, hooks, client: client::client().expect("client") }
    }

    /// Waits for the next webhook with a valid signature.
    pub(super) async fn next_webhook(&mut self) -> ReceivedWebhook {
        tokio::time::timeout(TIMEOUT, self.hooks.recv())
            .await
            .expect("a webhook in time")
            .expect("hook")
    }

    /// Sends a request to `/calls`. Returns status and body.
    pub(super) async fn graph(&self, body: Value) -> (u16, Value) {
        self.graph_as(ACCESS_TOKEN, PHONE_NUMBER_ID, &body.to_string()).await
    }

    pub(super) async fn graph_as(&self, token: &str, number: &str, body: &str) -> (u16, Value) {
        let request = Request::post(format!("{}/{number}/calls", self.sim.graph_url()))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Bytes::from(body.to_owned()))
            .expect("request");
        let answer =
            client::fetch(&self.client, request, TIMEOUT, 65_536).await.expect("an answer");
        (answer.status, serde_json::from_slice(&answer.body).expect("Graph answers JSON"))
    }

    /// Sends any request to Graph, at a path or at a URL that Graph returned.
    pub(super) async fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.sim.graph_url())
        };
        let request = Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {ACCESS_TOKEN}"))
            .body(if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) })
            .expect("request");
        let answer =
            client::fetch(&self.client, request, TIMEOUT, 65_536).await.expect("an answer");
        (answer.status, serde_json::from_slice(&answer.body).expect("Graph answers JSON"))
    }

    /// Sends a request to one of the `/_sim/` endpoints.
    pub(super) async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request =
            Request::post(format!("{}{path}", self.sim.url())).body(Bytes::from(body.to_string()));
        let answer = client::fetch(&self.client, request.expect("request"), TIMEOUT, 1 << 20)
            .await
            .expect("an answer");
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or_default())
    }

    /// Streams the lines of a response.
    pub(super) async fn lines(&self, request: Request<Bytes>) -> client::Lines {
        let response = client::send(&self.client, request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        client::Lines::new(response.into_body(), 1 << 20)
    }

    pub(super) async fn act(&self, action: &str, call: &str, sdp: Option<&str>) -> (u16, Value) {
        let mut body = json!({"messaging_product": "whatsapp", "call_id": call, "action": action});
        if let Some(sdp) = sdp {
            body["session"] = json!({"sdp_type": "answer", "sdp": sdp});
        }
        self.graph(body).await
    }
}

/// Short timeouts, for tests that wait for them.
pub(super) fn short_times() -> SimTimes {
    let mut times = SimTimes::default();
    times.webhook.first_retry = Duration::from_millis(20);
    times.accept_window = Duration::from_millis(300);
    times
}

/// An event of the business's peer.
#[derive(Debug)]
pub(super) enum PeerEvent {
    Up,
    Gone,
    Packet { pt: u8, time: u32, marker: bool, payload: Arc<[u8]> },
}

/// How the business's peer deviates from a correct one.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerFaults {
    /// The SDP has the fingerprint of another certificate.
    pub(super) wrong_fingerprint: bool,
    /// Claims the controlled ICE role.
    pub(super) controlled: bool,
}

/// A WebRTC peer with a full ICE agent and its socket.
pub(super) struct Business {
    pub(super) sdp: String,
    events: mpsc::Receiver<PeerEvent>,
    say: mpsc::Sender<Vec<Arc<[u8]>>>,
}

impl Business {
    pub(super) async fn answer(offer: &str) -> Self {
        Self::with(offer, PeerFaults::default()).await
    }

    pub(super) async fn with(offer: &str, faults: PeerFaults) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("port");
        let addr = socket.local_addr().expect("address");
        let creds = IceCreds { ufrag: "wyYbLd59".into(), pass: "0TjhjFxn2I1RNncKo8zHIYHh".into() };
        let mut config = RtcConfig::new()
            .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .set_extension_map(ExtensionMap::empty())
            .set_local_ice_credentials(creds);
        let digits = FormatParams::parse_line("0-15");
        config.codec_config().add_config(
            126.into(),
            None,
            Codec::Tele,
            Frequency::EIGHT_KHZ,
            None,
            digits,
        );
        let mut rtc = config.build(Clock::real().now());
        rtc.add_local_candidate(Candidate::host(addr, "udp").expect("candidate"));
        // str0m does not parse Meta's order of candidate extensions and would drop the candidate.
        let offer_for_str0m =
            offer.replace("a=setup:actpass", "a=setup:passive").replace(" network-cost 50", "");
        rtc.sdp_api()
            .accept_offer(SdpOffer::from_sdp_string(&offer_for_str0m).expect("offer"))
            .expect("answer");
        if faults.controlled {
            rtc.direct_api().set_ice_controlling(false);
        }
        let sdp = model_answer(&mut rtc, addr, offer, faults.wrong_fingerprint);
        let (events_tx, events) = mpsc::channel(4_096);
        let (say, frames) = mpsc::channel(4);
        tokio::spawn(run(rtc, "audio".into(), socket, addr, events_tx, frames));
        Self { sdp, events, say }
    }

    /// Sends these frames without pauses.
    pub(super) async fn say(&self, frames: Vec<Arc<[u8]>>) {
        self.say.send(frames).await.expect("peer");
    }

    pub(super) async fn next_event(&mut self) -> PeerEvent {
        tokio::time::timeout(TIMEOUT, self.events.recv())
            .await
            .expect("news in time")
            .expect("peer")
    }

    pub(super) async fn wait_until_up(&mut self) {
        while !matches!(self.next_event().await, PeerEvent::Up) {}
    }
}

/// A browser: sends an offer and applies the simulator's answer.
pub(super) struct Browser {
    pub(super) id: String,
    pub(super) peer: Business,
}

impl Browser {
    pub(super) async fn call(node: &Node) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("port");
        let addr = socket.local_addr().expect("address");
        let mut rtc = RtcConfig::new()
            .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
            .set_rtp_mode(true)
            .build(Clock::real().now());
        rtc.add_local_candidate(Candidate::host(addr, "udp").expect("candidate"));
        let mut api = rtc.sdp_api();
        let mid = api.add_media(MediaKind::Audio, Direction::SendRecv, None, None, None);
        let (offer, pending) = api.apply().expect("changes");
        let sdp = offer.to_sdp_string();
        let answer = node.post("/_sim/phone/calls", &json!({"sdp": sdp})).await.1;
        let sdp = answer["sdp"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        let parsed = SdpAnswer::from_sdp_string(&sdp).expect("SDP");
        rtc.sdp_api().accept_answer(pending, parsed).expect("a usable answer");
        let (events_tx, events) = mpsc::channel(4_096);
        let (say, frames) = mpsc::channel(4);
        tokio::spawn(run(rtc, mid, socket, addr, events_tx, frames));
        Self {
            id: answer["id"].as_str().expect("id").to_owned(),
            peer: Business { sdp, events, say },
        }
    }
}

/// The answer fixture with the values of this peer.
fn model_answer(rtc: &mut Rtc, addr: SocketAddr, offer: &str, wrong_fingerprint: bool) -> String {
    let mut digest = rtc.direct_api().local_dtls_fingerprint().bytes.clone();
    if wrong_fingerprint {
        digest[0] ^= 1;
    }
    let digest = digest.iter().map(|b| format!("{b:02X}")).collect::<Vec<_>>().join(":");
    let ssrc = rtc.direct_api().stream_tx_by_mid("audio".into(), None).expect("stream").ssrc();
    let model = include_str!("../../../../../fixtures/meta/sdp/answer_to_relay_full.sdp");
    let setup = if offer.contains("a=setup:active") { "passive" } else { "active" };
    model
        .replace("203.0.113.7", "127.0.0.1")
        .replace("40000", &addr.port().to_string())
        .replace("515639260", &ssrc.to_string())
        .replace("a=setup:active", &format!("a=setup:{setup}"))
        .lines()
        .map(|l| {
            if l.starts_with("a=fingerprint") {
                format!("a=fingerprint:sha-256 {digest}\r\n")
            } else {
                format!("{l}\r\n")
            }
        })
        .collect()
}

async fn run(
    mut rtc: Rtc,
    mid: Mid,
    socket: UdpSocket,
    addr: SocketAddr,
    events_tx: mpsc::Sender<PeerEvent>,
    mut frames: mpsc::Receiver<Vec<Arc<[u8]>>>,
) {
    let clock = Clock::real();
    let (mut seq, mut time) = (1u64, 0u32);
    let mut buffer = vec![0; 2_048];
    loop {
        let wait = loop {
            match rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    break at.saturating_duration_since(clock.now()).min(Duration::from_millis(20));
                }
                Ok(Output::Transmit(t)) => {
                    let _ = socket.send_to(&t.contents, t.destination).await;
                }
                Ok(Output::Event(Event::Connected)) => drop(events_tx.try_send(PeerEvent::Up)),
                Ok(Output::Event(Event::RtpPacket(p))) => {
                    let (pt, time, marker) =
                        (*p.header.payload_type, p.header.timestamp, p.header.marker);
                    drop(events_tx.try_send(PeerEvent::Packet {
                        pt,
                        time,
                        marker,
                        payload: p.payload,
                    }));
                }
                Ok(Output::Event(_)) => {}
                Err(_) => return drop(events_tx.try_send(PeerEvent::Gone)),
            }
        };
        if !rtc.is_alive() {
            return drop(events_tx.try_send(PeerEvent::Gone));
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => drop(rtc.handle_input(Input::Timeout(clock.now()))),
            got = socket.recv_from(&mut buffer) => {
                let (length, from) = got.expect("socket");
                if let Ok(receive) = Receive::new(Protocol::Udp, from, addr, &buffer[..length]) {
                    let _ = rtc.handle_input(Input::Receive(clock.now(), receive));
                }
            }
            some = frames.recv() => {
                let Some(some) = some else { return };
                for frame in some {
                    let now = clock.now();
                    let pt = 111.into();
                    if let Some(stream) = rtc.direct_api().stream_tx_by_mid(mid, None) {
                        stream.write_rtp(RtpWrite::new(pt, seq.into(), time, now, frame));
                    }
                    (seq, time) = (seq + 1, time.wrapping_add(960));
                    let _ = rtc.handle_input(Input::Timeout(now));
                }
            }
        }
    }
}
