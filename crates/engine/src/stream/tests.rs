//! Tests of a stream between a leg and a server over loopback: TLS, and the latency of the audio.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::task::TaskTracker;

use super::{StreamHandle, StreamJob, Streams};
use crate::answer::{RandomSource, SigningKeys};
use egress::testing::{egress, open_guard};
use machine::{StreamEvent, StreamFormat, StreamOrder, StreamTrack};
use media::opus::{Decoder, Encoder, Rate};
use media::prompt::Frame;
use media::test_peer::{Peer, PeerOptions, now, pump};
use media::{LegHandle, Media, MediaConfig};
use model::Clock;
use model::Secret;
use model::{CallUuid, StreamId};
use xml::ast::DocUrl;

fn order(url: &str) -> StreamOrder {
    StreamOrder {
        url: DocUrl(url.into()),
        bidirectional: true,
        track: StreamTrack::Inbound,
        timeout_s: 60,
        status: None,
        format: StreamFormat::L16At16000,
        extra_headers: Vec::new(),
        keep_call_alive: true,
        noise_level: None,
        in_room: false,
    }
}

/// Opens a stream. Returns its handle and the receiver of its events.
fn open(
    url: &str,
    roots: Vec<CertificateDer<'static>>,
) -> (StreamHandle, mpsc::Receiver<StreamEvent>) {
    let (sink, events) = mpsc::sync_channel(100);
    let streams = Streams::new(
        egress(open_guard(), roots),
        Clock::real(),
        RandomSource::system(),
        TaskTracker::new(),
    );
    let job = StreamJob {
        call: CallUuid(uuid::Uuid::from_u128(1)),
        stream: StreamId(uuid::Uuid::from_u128(2)),
        account: "MAXXXXXXXXXXXXXXXXXX".into(),
        main_account: "MAXXXXXXXXXXXXXXXXXX".into(),
        order: order(url),
        keys: SigningKeys::of_main(&[Secret::new("token")]),
        sink: Arc::new(move |event| drop(sink.send(event))),
        on_first_sound: Arc::new(|| {}),
    };
    (streams.open(job), events)
}

#[tokio::test(flavor = "multi_thread")]
async fn r17_a_tls_server_needs_a_trusted_certificate() {
    let made =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let cert: CertificateDer<'static> = made.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS");
    let tls = tls.with_no_client_auth().with_single_cert(vec![cert.clone()], key).expect("a key");
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url =
        format!("wss://localhost:{}/socket", listener.local_addr().expect("its address").port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let mut socket = accept_async(stream).await.expect("an upgrade");
                let start = socket
                    .next()
                    .await
                    .expect("a message")
                    .expect("no fault")
                    .into_text()
                    .expect("text");
                assert!(start.contains("\"event\":\"start\""), "{start}");
                let _ = socket.close(None).await;
            });
        }
    });
    let first_event = |roots: Vec<CertificateDer<'static>>| {
        let url = url.clone();
        async move {
            let (handle, events) = open(&url, roots);
            let received =
                tokio::task::spawn_blocking(move || events.recv_timeout(Duration::from_secs(30)));
            (received.await.expect("no panic").expect("an event"), handle)
        }
    };
    let (event, _handle) = first_event(vec![cert]).await;
    assert_eq!(event, StreamEvent::Opened);
    let (event, _handle) = first_event(Vec::new()).await;
    assert!(matches!(event, StreamEvent::Failed { .. }), "{event:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r17_a_forbidden_address_is_not_tried() {
    for url in ["ws://169.254.169.254/", "wss://metadata.google.internal/", "ws://127.0.0.1:22/"] {
        let (_handle, events) = open(url, Vec::new());
        let received =
            tokio::task::spawn_blocking(move || events.recv_timeout(Duration::from_millis(900)));
        let event =
            received.await.expect("no panic").expect("at once: it will not be less forbidden");
        assert!(matches!(event, StreamEvent::Failed { .. }), "{url}: {event:?}");
    }
}

/// Creates a connected leg with its peer.
fn leg() -> (Arc<Media>, LegHandle, Peer) {
    let config = MediaConfig {
        listen: "127.0.0.1:0".parse().expect("address"),
        max_ports: 1,
        turn: None,
        public_ips: Vec::new(),
        shards: 1,
        media_dead: Duration::from_secs(30),
        loopback_offers: false,
        inherited: Vec::new(),
    };
    let media = Media::start(config, Clock::real()).expect("media");
    let mut peer = Peer::new(&PeerOptions::default());
    let (leg, answer) = media.answer(&peer.offer(), Arc::new(|_| {})).expect("an answer");
    peer.accept(&answer);
    leg.begin();
    leg.open();
    let mut peers = [peer];
    pump(&mut peers, "connected", |peers| peers[0].connected);
    let [peer] = peers;
    (media, leg, peer)
}

/// Two 20 ms packets: silence and a loud buzz.
fn packets() -> [Frame; 2] {
    let mut encoder = Encoder::for_prompts();
    let buzz: Vec<i16> = (0..320).map(|n| if n % 40 < 20 { 9_000 } else { -9_000 }).collect();
    let last = |encoder: &mut Encoder, pcm: &[i16]| {
        (0..10).map(|_| encoder.encode(pcm)).last().expect("ten")
    };
    [last(&mut encoder, &[0; 320]), last(&mut encoder, &buzz)]
}

fn percentiles(mut took: Vec<Duration>) -> [f64; 3] {
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 1_000].as_secs_f64() * 1_000.0;
    [at(500), at(990), at(1_000)]
}

/// Not part of a test run: prints the latency that the node adds in each direction, beyond the 20
/// ms of a packet. `cargo test --release --lib stream::tests::audio_latency -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, for benches/README.md"]
#[allow(clippy::print_stdout, reason = "prints its figures")]
async fn audio_latency() {
    const PACKETS: usize = 1_500;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}/", listener.local_addr().expect("its address"));
    let (came, coming) = mpsc::sync_channel::<Instant>(10_000);
    let (played, playing) = mpsc::sync_channel::<Instant>(10_000);
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        stream.set_nodelay(true).expect("no delay");
        let (mut to, mut from) = accept_async(stream).await.expect("an upgrade").split();
        tokio::spawn(async move {
            // 100 ms of a buzz every 400 ms.
            let buzz: Vec<u8> = (0..1_600_u32)
                .flat_map(|n| if n % 40 < 20 { 9_000_i16 } else { -9_000 }.to_le_bytes())
                .collect();
            let media = json!({"contentType": "audio/x-l16", "sampleRate": 16_000, "payload": STANDARD.encode(buzz)});
            let mut n = 0;
            loop {
                // Spread over the leg's tick.
                n += 1;
                tokio::time::sleep(Duration::from_micros(400_000 + n * 1_300 % 20_000)).await;
                let text = Message::text(json!({"event": "playAudio", "media": media}).to_string());
                if played.send(now()).is_err() || to.send(text).await.is_err() {
                    return;
                }
            }
        });
        while let Some(Ok(Message::Text(text))) = from.next().await {
            let at = now();
            let message: Value = serde_json::from_str(&text).expect("JSON");
            if message["event"] == "media" && came.send(at).is_err() {
                return;
            }
        }
    });
    let measured = tokio::task::spawn_blocking(move || {
        let (media, leg, peer) = leg();
        let (mut handle, events) = {
            let _guard = tokio::runtime::Handle::current().enter();
            open(&url, Vec::new())
        };
        assert_eq!(events.recv_timeout(Duration::from_secs(10)), Ok(StreamEvent::Opened));
        let [silence, buzz] = packets();
        let mut peers = [peer];
        handle.begin(&leg, media.workers());
        let (mut sent, mut due) = (Vec::new(), now());
        let mut delays: Vec<Duration> = Vec::new();
        let mut seen = peers[0].received.len();
        let mut decoder = Decoder::new(Rate::Hz16000);
        let (mut onset, mut quiet) = (None, 20);
        while sent.len() < PACKETS {
            pump(&mut peers, "a tick", |peers| {
                for packet in peers[0].received.iter().skip(seen) {
                    let mut pcm = Vec::new();
                    let _ = decoder.decode(Some(&packet.payload), false, &mut pcm);
                    let loud = pcm.iter().any(|s| s.abs() > 2_000);
                    if onset.is_none() {
                        onset = playing.try_recv().ok();
                    }
                    match (loud, onset) {
                        (true, Some(at)) if quiet > 3 => {
                            delays.push(packet.at.saturating_duration_since(at));
                            onset = None;
                            quiet = 0;
                        }
                        (true, _) => quiet = 0,
                        (false, _) => quiet += 1,
                    }
                }
                seen = peers[0].received.len();
                now() >= due
            });
            due += Duration::from_millis(20);
            sent.push(now());
            peers[0].send_audio(if sent.len() % 20 < 5 { &buzz } else { &silence });
        }
        pump(&mut peers, "the last", |_| now() >= due + Duration::from_millis(200));
        let came: Vec<Instant> = coming.try_iter().collect();
        // The first piece may be silence, sent before the first packet.
        let extra = came.len().saturating_sub(sent.len());
        let inward = sent
            .iter()
            .zip(came.iter().skip(extra))
            .map(|(s, c)| c.saturating_duration_since(*s))
            .collect();
        drop(handle);
        (extra, percentiles(inward), delays.len(), percentiles(delays))
    });
    let (extra, inward, bursts, outward) = measured.await.expect("no panic");
    println!(
        "caller to server: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms; {extra} pieces of silence",
        inward[0], inward[1], inward[2]
    );
    println!(
        "server to caller, the leg's tick (0 to 20 ms) included: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms of {bursts}",
        outward[0], outward[1], outward[2]
    );
}
