//! Attacks on the limits of a node.
//!
//! During six of them, from one address, signed webhooks arrive from another
//! (`docs/reference/reliability.md#r10`). None of the webhooks may be lost. Each attack lasts
//! `OFFHOOK_ATTACK_SECONDS`, 5 by default. The 99th percentile of the response time is asserted
//! only with `OFFHOOK_TEST_FIGURES`.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::{Full, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::console::{OTHER, PASSWORD, Session, people};
use crate::support::app::App;
use crate::support::meta::Graph;
use crate::support::node::{APP_SECRET, AUTH_ID, AUTH_TOKEN, Node, NodeConfig};
use crate::support::phone::Phone;
use crate::support::{figures, has_peer, http, sign};

const META: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
/// The default source address, so that attacks need not bind one: finding a free port to bind takes
/// long with thousands of connections.
const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// Held during an attack. Together, two attacks may open connections more slowly than the node
/// closes them.
static ATTACK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Webhooks per second.
const RATE: u32 = 50;

fn now() -> Instant {
    model::Clock::real().now()
}

fn duration() -> Duration {
    let seconds = std::env::var("OFFHOOK_ATTACK_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// Raises the limit of descriptors. Returns whether there are enough for the attacks.
fn has_descriptors() -> bool {
    let limit = getrlimit(Resource::Nofile);
    let raised = limit.maximum.map_or(32_768, |hard| hard.min(32_768));
    let enough = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), ..limit }) {
        Ok(()) => raised,
        Err(_) => limit.current.unwrap_or(u64::MAX),
    };
    has_peer("descriptors", enough >= 20_000, "20,000 of them: ulimit -n")
}

async fn node(extra: &str) -> (Node, Graph, App) {
    let app = App::start().await;
    let graph = Graph::start().await;
    let mut config = NodeConfig::new(&graph.url, &app.url("/answer"));
    config.is_single = true;
    config.extra = extra.to_owned();
    (Node::start(&config).await, graph, app)
}

async fn connect(node: &Node, from: IpAddr) -> std::io::Result<TcpStream> {
    connect_to(node.public.trim_start_matches("http://").parse().unwrap(), from).await
}

#[allow(clippy::disallowed_methods, reason = "a test's own peer")]
async fn connect_to(to: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if from != ATTACKER {
        socket.bind((from, 0).into())?;
    }
    socket.connect(to).await
}

/// The metrics of the connections that the node closed, for the text of a failed assertion.
async fn closed_connections(node: &Node) -> String {
    let metrics = crate::support::http::get(&format!("{}/metrics", node.admin)).await.text();
    let is_of_connections = |line: &&str| {
        line.starts_with("offhook_http_connections") || line.starts_with("offhook_limited_total")
    };
    metrics.lines().filter(is_of_connections).collect::<Vec<_>>().join(", ")
}

/// Sends webhooks from one address for the duration of the attack, and asserts that each is
/// accepted and that the attacker was counted and logged.
async fn webhooks_arrive(node: &Node, resource: &str, attacker: &str) {
    let mut connector = HttpConnector::new();
    connector.set_local_address(Some(META));
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let mut every = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut posts = tokio::task::JoinSet::new();
    let end = now() + duration();
    while now() < end {
        every.tick().await;
        let body = r#"{"object":"whatsapp_business_account","entry":[]}"#;
        let request = ::http::Request::post(format!("{}/webhooks/meta", node.public))
            .header("x-hub-signature-256", sign(APP_SECRET, body.as_bytes()))
            .body(Full::from(body))
            .unwrap();
        let client = client.clone();
        posts.spawn(async move {
            let begun = now();
            let answer = tokio::time::timeout(Duration::from_secs(20), client.request(request));
            let answer = answer.await.map_err(|e| e.to_string())?.map_err(|e| format!("{e:?}"))?;
            Ok::<_, String>((answer.status().as_u16(), begun.elapsed()))
        });
    }
    let (mut took, mut lost) = (Vec::new(), Vec::new());
    while let Some(done) = posts.join_next().await {
        match done.unwrap() {
            Ok((200, after)) => took.push(after),
            other => lost.push(other),
        }
    }
    took.sort_unstable();
    let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or_default();
    #[allow(clippy::print_stderr, reason = "prints the measured figure")]
    if figures() {
        eprintln!("{resource}: {} webhooks, p99 {p99:?}", took.len());
    }
    if !lost.is_empty() {
        let closed = closed_connections(node).await;
        panic!("{} of {} lost; {closed}; {:?}", lost.len(), lost.len() + took.len(), lost[0]);
    }
    assert!(!figures() || p99 <= Duration::from_millis(50), "p99 {p99:?}");
    let refused = node.metric("offhook_limited_total", &[("resource", resource)]).await;
    assert!(refused > 0.0, "the attack did not reach the limit");
    node.until_log("limit reached").await;
    let log = node.log();
    let line = log.lines().find(|line| line.contains("limit reached")).unwrap();
    assert!(line.contains(attacker), "{line}");
}

/// Waits until the attack has reached the limit.
async fn until_limited(node: &Node, resource: &str) {
    let mut every = tokio::time::interval(Duration::from_millis(50));
    // Thousands of connections take long on a busy machine.
    for _ in 0..6_000 {
        every.tick().await;
        if node.metric("offhook_limited_total", &[("resource", resource)]).await > 0.0 {
            return;
        }
    }
    panic!("{resource}: the attack did not reach the limit within 300 s");
}

/// Opens 2,000 connections per second that send `bytes` and wait, and keeps the latest `most` of
/// them open. Without a limit the attack would use the processor that the node needs. Until `limited`,
/// it waits for the responses to whole requests: on a busy machine, a node that is given more than it
/// can read would close connections faster than they come, and never reach its limit.
async fn hold(to: SocketAddr, bytes: &[u8], most: usize, [limited, stop]: [&CancellationToken; 2]) {
    const AT_ONCE: usize = 8;
    let is_request = bytes.ends_with(b"\r\n\r\n");
    let one = async || {
        let mut held = VecDeque::new();
        let mut every = tokio::time::interval(Duration::from_millis(4));
        while !stop.is_cancelled() {
            every.tick().await;
            if let Ok(mut stream) = connect_to(to, ATTACKER).await
                && stream.write_all(bytes).await.is_ok()
            {
                if is_request {
                    let _ = limited.run_until_cancelled(stream.read_exact(&mut [0; 12])).await;
                }
                held.push_back(stream);
            }
            if held.len() > most / AT_ONCE {
                held.pop_front();
            }
        }
    };
    futures_util::future::join_all((0..AT_ONCE).map(|_| one())).await;
}

/// Holds `most` connections that sent `bytes`, more than the node allows of `resource`. Meanwhile
/// sends webhooks and then runs `check`.
async fn during_connections(
    resource: &str,
    bytes: &[u8],
    most: usize,
    check: impl AsyncFnOnce(&Node),
) {
    if !has_descriptors() {
        return;
    }
    let _attack = ATTACK.lock().await;
    let (node, _graph, _app) = node("").await;
    let (limited, stop) = (CancellationToken::new(), CancellationToken::new());
    let meta = async {
        until_limited(&node, resource).await;
        limited.cancel();
        webhooks_arrive(&node, resource, "127.0.0.1").await;
        check(&node).await;
        stop.cancel();
    };
    let to = node.public.trim_start_matches("http://").parse().unwrap();
    tokio::join!(meta, hold(to, bytes, most, [&limited, &stop]));
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_unfinished_webhooks_of_one_address_keep_none_of_meta_out() {
    // An unfinished head is closed after 10 s, an unfinished body already after 5 s, which a slow
    // machine may need to open as many connections as it takes.
    let begun = b"POST /webhooks/meta HTTP/1.1\r\nhost: x\r\n";
    during_connections("connections", begun, 8_300, async |_| ()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_unfinished_handshakes_of_one_address_keep_no_webhook_out() {
    if !has_descriptors() {
        return;
    }
    let _attack = ATTACK.lock().await;
    let world = crate::tls::World::start("").await;
    let (node, mut client) = (&world.node, world.client.clone());
    client.from = Some(META);
    let stop = CancellationToken::new();
    let meta = async {
        until_limited(node, "connections").await;
        webhooks_arrive(node, "connections", "127.0.0.1").await;
        for is_http2 in [false, true] {
            let webhook = crate::tls::webhook();
            assert_eq!(
                client.send(crate::tls::HOST, is_http2, webhook, crate::tls::EMPTY).await.status,
                200
            );
        }
        stop.cancel();
    };
    // The head of a handshake record whose message never comes.
    let begun = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    tokio::join!(meta, hold(client.to(), begun, 8_300, [&stop, &stop]));
}

/// From many addresses, since what one may send without valid credentials does not fill the memory for
/// bodies.
#[tokio::test(flavor = "multi_thread")]
async fn r10_large_bodies_leave_room_for_those_of_meta() {
    let _attack = ATTACK.lock().await;
    let (node, _graph, _app) = node("").await;
    let mut attack = tokio::task::JoinSet::new();
    for n in 1..=64 {
        let from = IpAddr::from([127, 0, 1, n]);
        let stream = TokioIo::new(connect(&node, from).await.unwrap());
        let (send, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        attack.spawn(async move { drop(connection.await) });
        for _ in 0..30 {
            let mut send = send.clone();
            let url = format!("{}/webhooks/meta", node.public);
            attack.spawn(async move {
                let piece = Bytes::from(vec![b' '; 60 << 10]);
                loop {
                    let first = Ok::<_, Infallible>(Frame::data(piece.clone()));
                    let frames =
                        futures_util::stream::iter([first]).chain(futures_util::stream::pending());
                    let request =
                        ::http::Request::post(&url).body(StreamBody::new(frames)).unwrap();
                    if send.ready().await.is_err() || send.send_request(request).await.is_err() {
                        return;
                    }
                }
            });
        }
    }
    until_limited(&node, "bodies").await;
    webhooks_arrive(&node, "bodies", "127.0.1.").await;
    attack.abort_all();
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_unregistered_sockets_of_one_address_keep_no_phone_out() {
    let upgrade =
        b"GET /phone HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    during_connections("sockets", upgrade, 5_300, async |node| {
        for _ in 0..20 {
            let mut phone = connect(node, META).await.unwrap();
            phone.write_all(upgrade).await.unwrap();
            let mut answer = [0; 12];
            if let Err(error) = phone.read_exact(&mut answer).await {
                panic!("{error}: {}", closed_connections(node).await);
            }
            assert_eq!(&answer, b"HTTP/1.1 101", "a phone connects");
        }
    })
    .await;
}

/// Connections that always have the next request ready, with as many fields as are allowed.
#[tokio::test(flavor = "multi_thread")]
async fn r10_requests_of_one_address_do_not_delay_those_of_meta() {
    let _attack = ATTACK.lock().await;
    let (node, _graph, _app) = node("").await;
    // `GET /missing` of `a` with 90 empty cookies (RFC 7541).
    let head = [b"\x82\x86\x04\x08/missing\x01\x01a".as_slice(), &[0xa0; 90]].concat();
    let http1 = format!("GET /missing HTTP/1.1\r\nhost: a\r\n{}\r\n", "cookie: \r\n".repeat(90));
    let mut attack = tokio::task::JoinSet::new();
    for n in 0..120_u32 {
        let (mut read, mut write) = connect(&node, ATTACKER).await.unwrap().into_split();
        let (head, http1) = (head.clone(), http1.clone());
        attack.spawn(async move { drop(tokio::io::copy(&mut read, &mut tokio::io::sink()).await) });
        attack.spawn(async move {
            let is_http2 = n % 2 == 0;
            if is_http2 {
                let begun = [PREFACE, &frame(4, 0, 0, &[])].concat();
                write.write_all(&begun).await.unwrap();
            }
            for stream in (1..).step_by(2) {
                let next = match is_http2 {
                    true => &frame(1, 5, stream, &head),
                    false => http1.as_bytes(),
                };
                if write.write_all(next).await.is_err() {
                    return;
                }
            }
        });
    }
    until_limited(&node, "requests").await;
    webhooks_arrive(&node, "requests", "127.0.0.1").await;
    // Another client of the network is answered, too, and does not wait behind the others.
    let mut neighbour = connect(&node, ATTACKER).await.unwrap();
    neighbour.write_all(b"GET /missing HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    neighbour.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");
    attack.abort_all();
}

/// Connections that send one request in endless small parts, or none but frames, or that read no
/// response.
#[tokio::test(flavor = "multi_thread")]
async fn r10_bytes_of_one_address_do_not_delay_the_webhooks_of_meta() {
    let _attack = ATTACK.lock().await;
    let (node, _graph, _app) = node("").await;
    let http2 = |first: &[u8]| [PREFACE, &frame(4, 0, 0, &[]), first].concat();
    let get = frame(1, 5, 1, b"\x82\x86\x04\x08/missing\x01\x01a");
    let chunked =
        b"POST /webhooks/meta HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    let unread = b"GET /openapi.json HTTP/1.1\r\nhost: a\r\n\r\n".to_vec();
    let attacks = [
        (http2(&get), frame(8, 0, 0, &[0, 0, 0, 1]).repeat(1_000)),
        (http2(&get), frame(8, 0, 1, &[0, 0, 0, 1]).repeat(1_000)),
        (chunked, b"1\r\nx\r\n".repeat(1_000)),
        (unread, Vec::new()),
    ];
    let to = node.public.trim_start_matches("http://").parse().unwrap();
    let mut attack = tokio::task::JoinSet::new();
    for n in 0..160 {
        let (begin, more) = attacks[n % attacks.len()].clone();
        attack.spawn(async move {
            let mut every = tokio::time::interval(Duration::from_millis(100));
            loop {
                let Ok(mut stream) = connect_to(to, ATTACKER).await else { return };
                if stream.write_all(&begin).await.is_err() {
                    continue;
                }
                if more.is_empty() {
                    every.tick().await;
                }
                while !more.is_empty() && stream.write_all(&more).await.is_ok() {}
            }
        });
    }
    until_limited(&node, "requests").await;
    webhooks_arrive(&node, "requests", "127.0.0.1").await;
    // Right credentials are accepted meanwhile, also with a body, and the network is not refused.
    let body = "x".repeat(100_000);
    let mut own = connect(&node, ATTACKER).await.unwrap();
    let authorization = STANDARD.encode(format!("{AUTH_ID}:{AUTH_TOKEN}"));
    let head = format!(
        "POST /v1/Account/{AUTH_ID}/Call/ HTTP/1.1\r\nhost: a\r\nauthorization: Basic {authorization}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    own.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    own.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 400");
    attack.abort_all();
}

/// The first bytes of a client of HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Streams that the node resets are not counted among the concurrent ones, so a client that causes
/// resets is disconnected.
#[tokio::test(flavor = "multi_thread")]
async fn r10_a_client_that_causes_resets_is_disconnected() {
    let (node, _graph, _app) = node("").await;
    // `POST /webhooks/meta` of `a` with a content length of 5, and 7 bytes of content (RFC 7541).
    let head = b"\x83\x86\x04\x0e/webhooks/meta\x01\x01a\x0f\x0d\x015";
    let mut sent = PREFACE.to_vec();
    sent.extend(frame(4, 0, 0, &[]));
    for stream in (1..2_000).step_by(2) {
        sent.extend(frame(1, 4, stream, head));
        sent.extend(frame(0, 1, stream, b"1234567"));
    }
    let (mut read, mut write) = connect(&node, META).await.unwrap().into_split();
    // The node may close the connection before it has read everything.
    let sending = tokio::spawn(async move { write.write_all(&sent).await.map(|()| write) });
    let mut answer = Vec::new();
    let _ = read.read_to_end(&mut answer).await;
    // The type, the flags and the stream of a GOAWAY frame. The last stream and the code follow.
    let goaway = answer.windows(6).position(|part| part == [7, 0, 0, 0, 0, 0]);
    let goaway = &answer[goaway.expect("a GOAWAY")..];
    assert_eq!(goaway[10..14], 11_u32.to_be_bytes(), "ENHANCE_YOUR_CALM");
    let last = u32::from_be_bytes(goaway[6..10].try_into().unwrap());
    assert!(last < 200, "{last}");
    drop(sending.await);
}

/// What a client sends before the response would be taken for its first frame or for another request.
#[tokio::test(flavor = "multi_thread")]
async fn r14_an_upgrade_with_bytes_after_it_is_refused() {
    let (node, _graph, _app) = node("").await;
    let empty_frame = "\u{1}\0";
    for (fields, after, status) in
        [("", "", "101"), ("", empty_frame, "400"), ("content-length: 2\r\n", empty_frame, "400")]
    {
        let upgrade = format!(
            "GET /phone HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             {fields}\r\n{after}"
        );
        let mut client = connect(&node, META).await.unwrap();
        client.write_all(upgrade.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert_eq!(answer, format!("HTTP/1.1 {status}"), "{fields}{after:?}");
    }
}

/// Creates an endpoint and registers phones with it until it has ten, or the account has its share.
/// Returns the number of phones.
async fn register_phones(
    node: &Node,
    session: &Session<'_>,
    account: [&str; 2],
    n: usize,
) -> usize {
    let name = format!("{}{n}", account[0].to_lowercase());
    let basic = format!("Basic {}", STANDARD.encode(account.join(":")));
    let headers = [("authorization", basic.as_str()), ("content-type", "application/json")];
    let endpoint = json!({"username": name, "password": "correct horse", "alias": name});
    let url = format!("{}/v1/Account/{}/Endpoint/", node.public, account[0]);
    let created = http::send("POST", &url, &headers, endpoint.to_string()).await;
    assert_eq!(created.status, 201, "{}", created.text());
    for registered in 0..10 {
        let cookie = [("cookie", session.cookie.as_str())];
        let mut phone = Phone::open_with(&node.public, &cookie).await;
        phone.say(json!({"type": "register", "endpoint": name})).await;
        let answer = phone.receive_any().await;
        match answer["type"].as_str() {
            Some("registered") => drop(tokio::spawn(phone.stay())),
            _ => {
                assert_eq!(answer["code"], "too_many_phones", "{answer}");
                return registered;
            }
        }
    }
    10
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_registered_phones_of_one_account_keep_none_of_another_out() {
    // Half of the 5,000 sockets is shared out among the main accounts, 100 to each.
    const ACCOUNTS: usize = 25;
    if !has_descriptors() {
        return;
    }
    let _attack = ATTACK.lock().await;
    let mut accounts = people();
    for n in 2..ACCOUNTS {
        accounts += &format!(
            "[[account]]\nauth_id = \"MATESTOFFHOOK10000{n:02}\"\n\
             auth_token = \"test-token-of-account-{n:02}\"\n"
        );
    }
    let (node, _graph, _app) = node(&accounts).await;
    let asha = Session::at(&node.public, "asha").await;
    let eve = Session::at(&node.public, "eve").await;
    let next = AtomicUsize::new(0);
    let fill = async || {
        let mut all = 0;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let registered = register_phones(&node, &asha, [AUTH_ID, AUTH_TOKEN], n).await;
            all += registered;
            if registered < 10 {
                return all;
            }
        }
    };
    let of_asha: usize = futures_util::future::join_all((0..8).map(|_| fill())).await.iter().sum();
    assert_eq!(of_asha, 5_000 - 100 * (ACCOUNTS - 1));
    let mut of_eve = 0;
    for n in 0..10 {
        let account = [OTHER, "test-token-of-other-account"];
        of_eve += register_phones(&node, &eve, account, n).await;
    }
    assert_eq!(of_eve, 100, "the guaranteed share");
}

/// All clients have the same address here, as behind a proxy that is not in `listen.trusted_proxies`.
#[tokio::test(flavor = "multi_thread")]
async fn r15_wrong_passwords_of_others_refuse_no_right_one() {
    let user = |name: &str| {
        format!(
            "[[user]]\nname = \"{name}\"\npassword = \"correct horse\"\naccount = \"{AUTH_ID}\"\n\
             role = \"admin\"\n"
        )
    };
    let (node, _graph, _app) = node(&(user("asha") + &user("ravi"))).await;
    let sign_in = async |name: &str, password: &str, cookie: &str| {
        let url = format!("{}/console/sign-in", node.public);
        let form = "application/x-www-form-urlencoded";
        let headers = [("content-type", form), ("cookie", cookie)];
        let body = format!("name={name}&password={password}");
        http::send("POST", &url, &headers, body).await
    };
    let answer = sign_in("asha", "correct+horse", "").await;
    assert_eq!(answer.status, 303);
    let cookies = answer.headers.get_all("set-cookie").iter();
    let browser = cookies
        .filter_map(|line| line.to_str().ok()?.split(';').next())
        .find(|pair| pair.starts_with("offhook-browser="))
        .unwrap()
        .to_owned();
    let reserve_is_used = tokio::sync::Notify::new();
    // Guesses for asha, one after the other, for as long as the others sign in.
    let mut guesses = 0;
    let mut refused = 0;
    let guessing = async {
        loop {
            let status = sign_in("asha", &format!("wrong-{guesses}"), "").await.status;
            guesses += 1;
            refused += u32::from(status == 429);
            if refused == 1 {
                reserve_is_used.notify_one();
            }
        }
    };
    let others = async {
        for n in 0..12 {
            assert_eq!(sign_in(&format!("name-{n}"), "wrong", "").await.status, 401);
            let again = sign_in("ravi", "old+password", "").await;
            assert_eq!(again.status, if n < 10 { 401 } else { 429 }, "{n}");
        }
        reserve_is_used.notified().await;
        assert_eq!(sign_in("asha", "correct+horse", &browser).await.status, 303, "asha's browser");
        assert_eq!(sign_in("ravi", "correct+horse", "").await.status, 303, "another name");
        // From a new browser, asha shares the rare checks with the guesses.
        assert_eq!(sign_in("asha", "correct+horse", "").await.status, 303, "a new browser");
    };
    tokio::select! {
        _ = guessing => {}
        () = others => {}
    }
    assert!(refused >= 1 && guesses <= 20, "{refused} of {guesses}: guessing is limited");
    assert!(node.metric("offhook_limited_total", &[("resource", "sign_ins")]).await > 0.0);
    // The cookie of a browser opens nothing, and is no way around the limit.
    let mut refused = 0;
    for n in 0..12 {
        let password = format!("wrong-{n}");
        refused += u32::from(sign_in("asha", &password, &browser).await.status == 429);
    }
    assert!(refused >= 1, "{refused}");
}

/// One address tries passwords with many names.
#[tokio::test(flavor = "multi_thread")]
async fn r15_one_network_can_not_try_many_names_and_refuses_no_right_password() {
    let (app, graph) = (App::start().await, Graph::start().await);
    let mut config = NodeConfig::new(&graph.url, &app.url("/answer"));
    config.is_single = true;
    config.listen = "trusted_proxies = [\"127.0.0.1\"]".to_owned();
    config.extra = people();
    let node = Node::start(&config).await;
    let sign_in = async |from: &str, name: &str, password: &str, cookie: &str| {
        let headers = [
            ("content-type", "application/x-www-form-urlencoded"),
            ("x-forwarded-for", from),
            ("cookie", cookie),
        ];
        let body = format!("name={name}&password={password}&account={AUTH_ID}");
        http::send("POST", &format!("{}/console/sign-in", node.public), &headers, body).await
    };
    let (attacker, elsewhere) = ("192.0.2.1", "198.51.100.1");
    let right = PASSWORD.replace(' ', "+");
    let answer = sign_in(attacker, "asha", &right, "").await;
    assert_eq!(answer.status, 303);
    let cookies = answer.headers.get_all("set-cookie").iter();
    let browser = cookies
        .filter_map(|line| line.to_str().ok()?.split(';').next())
        .find(|pair| pair.starts_with("offhook-browser="))
        .unwrap()
        .to_owned();
    let begun = now();
    let guesses = AtomicUsize::new(0);
    let is_limited = tokio::sync::Notify::new();
    let spraying = async {
        loop {
            let n = guesses.fetch_add(1, Ordering::Relaxed);
            let status = sign_in(attacker, &format!("name-{n}"), "Summer2026", "").await.status;
            assert!(matches!(status, 401 | 429), "{status}");
            if status == 429 {
                is_limited.notify_one();
            }
        }
    };
    let others = async {
        is_limited.notified().await;
        assert_eq!(sign_in(attacker, "asha", &right, &browser).await.status, 303, "her browser");
        assert_eq!(sign_in(attacker, "asha", &right, "").await.status, 303, "known there");
        assert_eq!(sign_in(elsewhere, "ravi", &right, "").await.status, 303, "another network");
        assert_eq!(sign_in(attacker, "ravi", &right, "").await.status, 303, "in the same network");
        // One wrong password a second is checked, whatever the node could compute.
        while guesses.load(Ordering::Relaxed) < 66 {
            is_limited.notified().await;
        }
    };
    tokio::select! {
        () = spraying => {}
        () = others => {}
    }
    let (guesses, took) = (guesses.into_inner(), begun.elapsed());
    let allowed = 60.0 + took.as_secs_f64() + 1.0;
    assert!(guesses as f64 - 1.0 <= allowed, "{guesses} guesses in {took:?}");
    assert!(node.metric("offhook_limited_total", &[("resource", "sign_ins")]).await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_proxies_connect_if_configured() {
    let app = App::start().await;
    let graph = Graph::start().await;
    let mut config = NodeConfig::new(&graph.url, &app.url("/answer"));
    config.is_single = true;
    config.listen = "trusted_proxies = [\"127.0.0.1\"]\nproxies_only = true".to_owned();
    let node = Node::start(&config).await;
    assert_eq!(node.post_webhook("{}").await.status, 200, "from 127.0.0.1");
    let mut stream = connect(&node, META).await.unwrap();
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    node.until_metric("offhook_http_connections_closed_total", &[("reason", "not_proxy")], 1.0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r10_slow_downloads_of_one_address_leave_memory_and_room_for_others() {
    const LENGTH: usize = 8 << 20;
    let (node, _graph, _app) = node("").await;
    let folder = node.dir.path().join("recordings");
    std::fs::create_dir_all(&folder).unwrap();
    let id = "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11";
    std::fs::write(folder.join(format!("{id}.wav")), vec![0; LENGTH]).unwrap();
    let url = format!("{}/recordings/{id}.wav", node.public);
    assert_eq!(http::get(&url).await.body.len(), LENGTH);
    // A link to another file is no recording.
    let link = "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b12";
    std::os::unix::fs::symlink("../offhook.toml", folder.join(format!("{link}.wav"))).unwrap();
    assert_eq!(http::get(&url.replace(id, link)).await.status, 404);

    let (before, _) = node.memory_kib();
    let request = format!("GET /recordings/{id}.wav HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut slow = Vec::new();
    for _ in 0..700 {
        let mut stream = connect(&node, ATTACKER).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        slow.push(stream);
    }
    let ended = [("resource", "downloads")];
    node.until_metric("offhook_limited_total", &ended, 188.0).await;
    let mut other = connect(&node, META).await.unwrap();
    other.write_all(request.as_bytes()).await.unwrap();
    other.read_exact(&mut vec![0; LENGTH]).await.unwrap();
    node.until_metric("offhook_limited_total", &ended, 189.0).await;
    let (after, _) = node.memory_kib();
    assert!(after < before + 150 * 1024, "{before} KiB before, {after} KiB with slow downloads");
}
