//! Tests of the listener over real sockets on loopback.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::{
    Download, HttpLimits, IN_PROGRESS_MIN, LimitedBody, Peer, STREAM_BYTES, ServerConfig, bind,
    client, has_one_authority, serve,
};
use crate::api::error::listener_error;
use engine::limiter::RequestClaims;
use model::Clock;

struct Running {
    at: SocketAddr,
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn start(limits: HttpLimits) -> Running {
    let (listener, at) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let slow = async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        "slept"
    };
    let config = ServerConfig {
        webhook: Some(Arc::new(|request: Request<LimitedBody>| {
            Box::pin(async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Response::new(Body::from(format!("webhook {}", body.len())))
            })
        })),
        router: Router::new()
            .route(
                "/peer",
                get(async |axum::Extension(Peer(ip)): axum::Extension<Peer>| ip.to_string()),
            )
            .route("/slow", get(slow))
            .route(
                "/follow",
                get(async || {
                    Body::from_stream(futures_util::stream::pending::<Result<String, String>>())
                }),
            )
            .route(
                "/of-account",
                get(async |axum::Extension(claims): axum::Extension<RequestClaims>| {
                    let body = Body::from_stream(futures_util::stream::pending::<
                        Result<String, String>,
                    >());
                    match claims.authenticate_caller(&"MA".into()) {
                        true => Response::new(body),
                        false => listener_error(StatusCode::TOO_MANY_REQUESTS, "in_progress", ""),
                    }
                }),
            )
            .route(
                "/empty-of-account",
                get(async |axum::Extension(claims): axum::Extension<RequestClaims>| {
                    assert!(claims.authenticate_caller(&"MA".into()));
                }),
            )
            .route(
                "/large-of-account",
                get(async |axum::Extension(claims): axum::Extension<RequestClaims>| {
                    assert!(claims.authenticate_caller(&"MA".into()));
                    vec![b'x'; 16 << 20]
                }),
            )
            .route(
                "/file",
                get(async || {
                    let chunks =
                        futures_util::stream::repeat(Ok::<_, String>("x".repeat(64 << 10)));
                    (axum::Extension(Download), Body::from_stream(chunks))
                }),
            )
            .route("/big", get(async || vec![b'x'; 64 << 20]))
            .route("/early", axum::routing::post(async || "not read"))
            .route("/echo", axum::routing::post(async |body: String| format!("<{body}>"))),
        https: None,
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        proxies_only: false,
        local_hosts_only: false,
        offenders: None,
        limits,
        clock: Clock::real(),
        is_https: true,
        has_metrics: true,
        pause: crate::api::server::Pause::default(),
    };
    let cancel = CancellationToken::new();
    let task = tokio::spawn(serve(listener, config, cancel.clone()));
    Running { at, cancel, task }
}

async fn connect(at: SocketAddr) -> TcpStream {
    #[allow(clippy::disallowed_methods, reason = "a test asks its own listener")]
    TcpStream::connect(at).await.unwrap()
}

/// Sends the bytes and reads until the server closes.
pub(in crate::api) async fn exchange(at: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(at).await;
    // The server may respond and close before everything is written.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> &str {
    answer.get(9..12).unwrap_or(answer)
}

#[tokio::test]
async fn r14_requests_are_bounded_and_dispatched() {
    let server = start(HttpLimits::default()).await;
    let close = "host: a\r\nconnection: close\r\n";
    let fields: String = (0..101).map(|n| format!("x-{n}: 1\r\n")).collect();
    let cases: Vec<(&str, String, &str, &str)> = vec![
        (
            "webhook",
            format!("POST /webhooks/meta HTTP/1.1\r\n{close}content-length: 3\r\n\r\nabc"),
            "200",
            "webhook 3",
        ),
        (
            "webhook, chunked",
            format!(
                "POST /webhooks/meta HTTP/1.1\r\n{close}transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
            ),
            "200",
            "webhook 3",
        ),
        ("router", format!("GET /peer HTTP/1.1\r\n{close}\r\n"), "200", "127.0.0.1"),
        (
            "forwarded",
            format!(
                "GET /peer HTTP/1.1\r\n{close}x-forwarded-for: 9.9.9.9, 203.0.113.5, 127.0.0.9\r\n\r\n"
            ),
            "200",
            "203.0.113.5",
        ),
        ("unknown", format!("GET /nope HTTP/1.1\r\n{close}\r\n"), "404", ""),
        (
            "long target",
            format!("GET /{} HTTP/1.1\r\n{close}\r\n", "a".repeat(9_000)),
            "414",
            "uri_too_long",
        ),
        (
            "long head",
            format!("GET /peer HTTP/1.1\r\nx: {}\r\n{close}\r\n", "a".repeat(33 << 10)),
            "431",
            "",
        ),
        ("many fields", format!("GET /peer HTTP/1.1\r\n{fields}{close}\r\n"), "431", ""),
        ("no host", "GET /peer HTTP/1.1\r\n\r\n".to_owned(), "400", "Host"),
        ("two hosts", format!("GET /peer HTTP/1.1\r\nhost: b\r\n{close}\r\n"), "400", "Host"),
        (
            "both lengths",
            format!(
                "POST /webhooks/meta HTTP/1.1\r\n{close}content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            "400",
            "both Content-Length and Transfer-Encoding",
        ),
        (
            "two lengths",
            format!(
                "POST /webhooks/meta HTTP/1.1\r\n{close}content-length: 3\r\ncontent-length: 3\r\n\r\nabc"
            ),
            "400",
            "more than one Content-Length",
        ),
        (
            "other lengths",
            format!(
                "POST /webhooks/meta HTTP/1.1\r\n{close}content-length: 3\r\ncontent-length: 4\r\n\r\nabc"
            ),
            "400",
            "",
        ),
        (
            "bare line feed",
            "GET /peer HTTP/1.1\r\nhost: a\nconnection: close\r\n\r\n".to_owned(),
            "400",
            "line feed without a carriage return",
        ),
        ("folded", format!("GET /peer HTTP/1.1\r\nx: a\r\n b\r\n{close}\r\n"), "400", ""),
        ("NUL", format!("GET /peer HTTP/1.1\r\nx: a\0b\r\n{close}\r\n"), "400", ""),
        ("nonsense", "\x16\x03\x01 hello\r\n\r\n".to_owned(), "400", ""),
    ];
    for (what, bytes, code, part) in cases {
        let answer = exchange(server.at, bytes.as_bytes()).await;
        assert_eq!(status(&answer), code, "{what}: {answer}");
        assert!(answer.contains(part), "{what}: {answer}");
    }
    server.cancel.cancel();
    server.task.await.unwrap();
}

/// Requests may be sent before the response to the previous one (RFC 9112 §9.3.2).
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(HttpLimits::default()).await;
    let post = |text: &str| {
        format!("POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{text}", text.len())
    };
    let chunked = "POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nch\r\n3\r\nunk\r\n0\r\n\r\n";
    let get = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";
    let last =
        "POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\nlast";
    let like_a_head = post("content-length: 1\n\nGET / HTTP/1.1\r\n\r\n");
    let all =
        [&post("one"), get, chunked, &post(""), &like_a_head, chunked, "\r\n", &post("two"), last]
            .concat();
    let expected = [
        "<one>",
        "slept",
        "<chunk>",
        "<>",
        "<content-length: 1\n\nGET / HTTP/1.1\r\n\r\n>",
        "<chunk>",
        "<two>",
        "<last>",
    ];
    let check = |answers: &str| {
        let mut from = 0;
        for part in expected {
            let at = answers
                .get(from..)
                .unwrap()
                .find(part)
                .unwrap_or_else(|| panic!("{part}: {answers}"));
            from += at + part.len();
        }
        assert_eq!(answers.matches("HTTP/1.1 200").count(), expected.len(), "{answers}");
    };
    // In one write, and split at every position.
    check(&exchange(server.at, all.as_bytes()).await);
    let mut stream = connect(server.at).await;
    for piece in all.as_bytes().chunks(7) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    check(&answers);
    // More than a hundred requests, with bodies of different sizes.
    let many: String =
        (0..150).map(|n| post(&"x".repeat(n * 100))).chain([last.to_owned()]).collect();
    let answers = exchange(server.at, many.as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 151);
    server.cancel.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn r14_refuses_a_bad_head_of_a_pipelined_request() {
    let server = start(HttpLimits::default()).await;
    let first = "POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\none";
    let next = "GET /peer HTTP/1.1\r\nhost: a\r\n\r\n";
    for (what, head, body) in [
        ("both lengths", "content-length: 3\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
        (
            "both lengths, the other way round",
            "transfer-encoding: chunked\r\ncontent-length: 3\r\n",
            "0\r\n\r\n",
        ),
        ("two lengths", "content-length: 3\r\ncontent-length: 3\r\n", "two"),
        ("other lengths", "content-length: 3\r\ncontent-length: 4\r\n", "two"),
        ("a list of lengths", "content-length: 3, 3\r\n", "two"),
        ("a signed length", "content-length: +3\r\n", "two"),
        ("another coding", "transfer-encoding: gzip, chunked\r\n", "0\r\n\r\n"),
        (
            "two codings",
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "0\r\n\r\n",
        ),
        ("folded", "x: a\r\n content-length: 3\r\n", ""),
        ("space before the colon", "content-length : 3\r\n", "two"),
        ("bare line feed", "content-length: 3\n", "two"),
        ("NUL", "x: \0\r\n", ""),
    ] {
        for first in [first.to_owned(), format!("{first}{first}{next}")] {
            let bytes = format!("{first}POST /echo HTTP/1.1\r\nhost: a\r\n{head}\r\n{body}{next}");
            let answer = exchange(server.at, bytes.as_bytes()).await;
            let good = first.matches("HTTP/1.1").count();
            assert_eq!(answer.matches("HTTP/1.1 200").count(), good, "{what}: {answer}");
            let bad = answer.rsplit("HTTP/1.1 ").next().unwrap();
            assert!(bad.starts_with("400") && !bad.contains("<two>"), "{what}: {answer}");
        }
    }
    server.cancel.cancel();
    server.task.await.unwrap();
}

/// The admin listener keeps the connection of a scraper alive, and answers `/livez` although all other
/// connections are in use.
#[tokio::test]
async fn r10_the_admin_listener_keeps_idle_connections_and_has_room() {
    let (listener, at) = bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let router = Router::new().route("/livez", get(async || "alive"));
    let config = ServerConfig::admin(router, false, Clock::real());
    assert_eq!(
        (config.limits.idle, config.limits.head),
        (Duration::from_secs(75), Duration::from_secs(10))
    );
    let most = config.limits.connections;
    let cancel = CancellationToken::new();
    let task = tokio::spawn(serve(listener, config, cancel.clone()));
    let mut held = Vec::new();
    for n in 0..most + 5 {
        let mut stream = connect(at).await;
        let begun = if n % 2 == 0 { "GET /livez HTTP/1.1\r\nhost: a\r\n\r\n" } else { "GET /li" };
        stream.write_all(begun.as_bytes()).await.unwrap();
        held.push(stream);
    }
    let asked = "POST /nowhere HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    let last = "GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    let answers = exchange(at, format!("{asked}{asked}{last}").as_bytes()).await;
    assert_eq!(answers.matches("HTTP/1.1 404").count(), 2, "{answers}");
    assert!(answers.ends_with("alive"), "{answers}");
    let both = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_eq!(status(&exchange(at, both.as_bytes()).await), "400");
    cancel.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn r10_closes_slow_and_idle_connections() {
    let ms = Duration::from_millis;
    let limits =
        HttpLimits { head: ms(80), idle: ms(80), stalled: ms(80), ..HttpLimits::default() };
    let server = start(limits).await;
    let mut sink = Vec::new();

    let mut silent = connect(server.at).await;
    assert_eq!(silent.read_to_end(&mut sink).await.unwrap(), 0, "a silent client");

    let mut dribbling = connect(server.at).await;
    dribbling.write_all(b"GET /peer HTTP/1.1\r\nho").await.unwrap();
    assert_eq!(
        dribbling.read_to_end(&mut sink).await.unwrap(),
        0,
        "a client that does not complete its head"
    );

    let mut idle = connect(server.at).await;
    idle.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    idle.read_to_end(&mut sink).await.unwrap();
    assert!(
        String::from_utf8_lossy(&sink).contains("slept"),
        "a response is completed, then the idle connection is closed"
    );

    let mut deaf = connect(server.at).await;
    deaf.write_all(b"GET /big HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut first = [0; 16];
    deaf.read_exact(&mut first).await.unwrap();
    tokio::time::sleep(ms(400)).await;
    let mut rest = Vec::new();
    let _ = deaf.read_to_end(&mut rest).await;
    assert!(rest.len() < 64 << 20, "a client that does not read");
    server.cancel.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn r10_refuses_a_body_that_arrives_too_slowly() {
    let limits = HttpLimits { body: Duration::from_millis(80), ..HttpLimits::default() };
    let server = start(limits).await;
    let begun = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nslow";
    let answer = exchange(server.at, begun).await;
    assert_eq!(status(&answer), "408", "{answer}");
    server.cancel.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn r10_drops_a_body_to_make_room_for_another() {
    let server = start(HttpLimits { body_bytes: 1_000, ..HttpLimits::default() }).await;
    let mut begun = b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 900\r\n\r\n".to_vec();
    begun.extend([b'x'; 600]);
    let (mut one, mut other) = (connect(server.at).await, connect(server.at).await);
    one.write_all(&begun).await.unwrap();
    other.write_all(&begun).await.unwrap();
    let (mut dropped, mut completed) = tokio::select! {
        readable = one.readable() => readable.map(|()| (one, other)),
        readable = other.readable() => readable.map(|()| (other, one)),
    }
    .unwrap();
    let mut head = [0; 12];
    dropped.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 503");
    completed.write_all(&[b'x'; 300]).await.unwrap();
    completed.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    server.cancel.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn r10_closes_an_http2_connection_without_a_window() {
    let ms = Duration::from_millis;
    let server = start(HttpLimits { stalled: ms(80), ..HttpLimits::default() }).await;
    let is_closed = async |path: &str, window: u32| {
        let io = hyper_util::rt::TokioIo::new(connect(server.at).await);
        let (mut send, connection) =
            hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .initial_stream_window_size(window)
                .handshake::<_, Body>(io)
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let request = Request::get(format!("http://a{path}")).body(Body::empty()).unwrap();
        let answer = send.send_request(request).await.unwrap();
        let end = tokio::time::timeout(Duration::from_secs(2), connection).await;
        drop((answer, send));
        end.is_ok()
    };
    assert!(is_closed("/peer", 0).await, "the response could never be sent");
    assert!(
        !is_closed("/follow", 1 << 16).await,
        "a response that pauses is not the fault of the client"
    );
    server.cancel.cancel();
    server.task.await.unwrap();
}

/// curl reports a reset in place of the response.
#[tokio::test]
async fn an_early_response_over_http2_does_not_reset_the_stream() {
    const DATA: u8 = 0;
    const RST_STREAM: u8 = 3;
    const PING: u8 = 6;
    const END_STREAM: u8 = 1;
    async fn receive(stream: &mut TcpStream) -> (u8, u8, u32) {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length.try_into().unwrap()];
        stream.read_exact(&mut payload).await.unwrap();
        (head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]))
    }
    fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &id.to_be_bytes(), payload].concat()
    }
    let server = start(HttpLimits::default()).await;
    let mut stream = connect(server.at).await;
    // POST http://a/nope without the end of the body (RFC 7541, appendix A).
    let head = frame(1, 4, 1, b"\x83\x86\x04\x05/nope\x01\x01a");
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, b""), head].concat();
    stream.write_all(&begin).await.unwrap();
    loop {
        let (kind, flags, id) = receive(&mut stream).await;
        if id == 1 && flags & END_STREAM > 0 {
            assert!(kind < 2, "the response ends the stream, not frame {kind}");
            break;
        }
    }
    let rest = [frame(DATA, END_STREAM, 1, b"{}"), frame(PING, 0, 0, b"8 bytes.")].concat();
    stream.write_all(&rest).await.unwrap();
    loop {
        let (kind, flags, _) = receive(&mut stream).await;
        assert_ne!(kind, RST_STREAM);
        if (kind, flags) == (PING, 1) {
            break;
        }
    }
    drop(stream);
    server.cancel.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn r10_closes_the_longest_idle_connection_to_make_room() {
    let server = start(HttpLimits { connections: 2, ..HttpLimits::default() }).await;
    let ask = b"GET /peer HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut first = connect(server.at).await;
    let mut second = connect(server.at).await;
    let mut answer = [0; 512];
    for stream in [&mut first, &mut second] {
        stream.write_all(ask).await.unwrap();
        assert!(stream.read(&mut answer).await.unwrap() > 0);
    }
    let mut third = connect(server.at).await;
    third.write_all(ask).await.unwrap();
    assert!(third.read(&mut answer).await.unwrap() > 0);
    assert_eq!(first.read(&mut answer).await.unwrap_or(0), 0, "the first one is closed");
    second.write_all(ask).await.unwrap();
    assert!(second.read(&mut answer).await.unwrap() > 0, "the second one is open");
    server.cancel.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn r10_the_requests_in_progress_of_an_account_leave_connections_to_others() {
    let server = start(HttpLimits { connections: 32, ..HttpLimits::default() }).await;
    let ask = async || {
        let mut stream = connect(server.at).await;
        stream.write_all(b"GET /of-account HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        (stream, String::from_utf8_lossy(&answer[9..]).into_owned())
    };
    let mut followed = Vec::new();
    for n in 0..40 {
        let (stream, status) = ask().await;
        assert_eq!(status, if n < IN_PROGRESS_MIN { "200" } else { "429" });
        followed.push(stream);
    }
    let webhook = b"POST /webhooks/meta HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\nabc";
    assert_eq!(status(&exchange(server.at, webhook).await), "200");
    // Shares come back when responses end.
    followed.clear();
    let mut every = tokio::time::interval(Duration::from_millis(10));
    while ask().await.1 != "200" {
        every.tick().await;
    }
    server.cancel.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn shutdown_completes_requests_and_closes_idle_connections() {
    let server = start(HttpLimits::default()).await;
    let mut idle = connect(server.at).await;
    let mut busy = connect(server.at).await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.cancel.cancel();
    let mut answer = String::new();
    busy.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("slept"), "{answer}");
    assert_eq!(idle.read(&mut [0; 1]).await.unwrap_or(0), 0);
    tokio::time::timeout(Duration::from_secs(4), server.task)
        .await
        .expect("ends before the grace period")
        .unwrap();
}

#[test]
fn r14_trusts_only_the_configured_proxies() {
    let trusted: Vec<ipnet::IpNet> = vec!["10.0.0.0/8".parse().unwrap()];
    let of = |from: &str, forwarded: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        client(from.parse::<IpAddr>().unwrap(), &headers, &trusted).to_string()
    };
    assert_eq!(of("203.0.113.9", &["1.2.3.4"]), "203.0.113.9");
    assert_eq!(of("10.0.0.1", &["1.2.3.4"]), "1.2.3.4");
    assert_eq!(of("::ffff:10.0.0.1", &["1.2.3.4, 10.9.9.9"]), "1.2.3.4");
    assert_eq!(of("10.0.0.1", &["6.6.6.6, 1.2.3.4", "10.0.0.2"]), "1.2.3.4");
    assert_eq!(of("10.0.0.1", &["1.2.3.4:5678, [::1]"]), "::1");
    assert_eq!(of("10.0.0.1", &["1.2.3.4:5678"]), "1.2.3.4");
    assert_eq!(of("10.0.0.1", &["[2001:db8::1]:99, 10.0.0.2"]), "2001:db8::1");
    assert_eq!(of("10.0.0.1", &["unknown"]), "10.0.0.1");
    let headers = HeaderMap::from_iter([(
        http::header::HeaderName::from_static("x-forwarded-for"),
        HeaderValue::from_bytes(b"\xff, 1.2.3.4").unwrap(),
    )]);
    let appended = client("10.0.0.1".parse().unwrap(), &headers, &trusted);
    assert_eq!(
        appended.to_string(),
        "1.2.3.4",
        "the hop of the proxy counts, although the client's part is not UTF-8"
    );
    assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
}

/// A client that keeps connections alive must not lose its next request after a body that was not read.
#[tokio::test]
async fn a_response_before_the_body_was_read_keeps_the_connection_or_announces_its_end() {
    let server = start(HttpLimits::default()).await;
    let ask = async |stream: &mut TcpStream, head: &str, body: &[u8]| -> String {
        stream
            .write_all(format!("POST /early HTTP/1.1\r\nhost: a\r\n{head}\r\n").as_bytes())
            .await
            .unwrap();
        // The handler has run by now, unless it waits for the body.
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        while !answer.ends_with(b"not read") {
            let mut some = [0; 1_024];
            match stream.read(&mut some).await.unwrap() {
                0 => break,
                read => answer.extend_from_slice(some.get(..read).unwrap()),
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    let mut stream = connect(server.at).await;
    for (head, body) in [
        ("content-length: 5\r\n", &b"hello"[..]),
        ("transfer-encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        ("content-length: 200000\r\n", &[b'x'; 200_000]),
        ("", b""),
    ] {
        let answer = ask(&mut stream, head, body).await;
        assert!(
            status(&answer) == "200" && !answer.contains("connection: close"),
            "{head}: {answer}"
        );
    }
    for (head, body) in [
        ("content-length: 1000000\r\n", &b""[..]),
        ("content-length: 5\r\nexpect: 100-continue\r\n", b""),
        ("content-length: 5\r\n", b"hell"),
    ] {
        let answer = ask(&mut connect(server.at).await, head, body).await;
        assert!(
            status(&answer) == "200" && answer.contains("connection: close"),
            "{head}: {answer}"
        );
    }
    server.cancel.cancel();
    server.task.await.unwrap();
}

#[tokio::test]
async fn r10_unread_responses_over_http2_make_room_for_others() {
    let server =
        start(HttpLimits { response_bytes: 8 * STREAM_BYTES, ..HttpLimits::default() }).await;
    let open = async |client: &str, requests: usize| {
        let io = hyper_util::rt::TokioIo::new(connect(server.at).await);
        let (mut send, connection) =
            hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
                .initial_stream_window_size(0)
                .handshake::<_, Body>(io)
                .await
                .unwrap();
        let connection = tokio::spawn(connection);
        let mut unread = Vec::new();
        for _ in 0..requests {
            let request = Request::get("http://a/peer").header("x-forwarded-for", client);
            unread.push(send.send_request(request.body(Body::empty()).unwrap()).await);
        }
        (connection, send, unread)
    };
    let other = open("203.0.113.9", 1).await;
    let (attacker, _send, _unread) = open("203.0.113.5", 12).await;
    let end = tokio::time::timeout(Duration::from_secs(10), attacker).await;
    assert!(end.is_ok(), "its connection is closed");
    assert!(!other.0.is_finished(), "that of another network is not");
    server.cancel.cancel();
}

/// If a connection was never closed again after one authenticated request, a client could occupy all
/// connections of the listener.
#[tokio::test]
async fn r10_an_authenticated_request_protects_its_connection_only_while_it_is_in_progress() {
    let server = start(HttpLimits { connections: 1, ..HttpLimits::default() }).await;
    let io = hyper_util::rt::TokioIo::new(connect(server.at).await);
    let (mut send, connection) =
        hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .initial_stream_window_size(0)
            .handshake::<_, Body>(io)
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let mut ask = async |path: &str| {
        let request = Request::get(format!("http://a{path}")).body(Body::empty()).unwrap();
        send.send_request(request).await.unwrap()
    };
    let _unread = ask("/peer").await;
    assert_eq!(ask("/empty-of-account").await.status(), 200);
    let mut next = connect(server.at).await;
    next.write_all(b"GET /peer HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    next.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    let end = tokio::time::timeout(Duration::from_secs(10), connection).await;
    assert!(end.is_ok(), "it made room");
    server.cancel.cancel();
}

#[test]
fn a_request_of_http_2_says_once_which_host_it_is_for() {
    let has_one = |uri: &str, hosts: &[&str]| {
        let mut request = Request::get(uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        has_one_authority(&request.body(()).unwrap())
    };
    assert!(has_one("https://a.example/", &[]));
    assert!(has_one("https://a.example:443/", &["A.example:443"]));
    assert!(has_one("/", &["a.example"]));
    assert!(!has_one("/", &[]));
    assert!(!has_one("/", &["a.example", "a.example"]));
    assert!(!has_one("https://a.example/", &["b.example"]));
    assert!(!has_one("https://a.example/", &["a.example", "a.example"]));
}

#[tokio::test]
async fn r10_the_oldest_download_or_large_response_of_the_network_with_most_makes_room() {
    let limits =
        HttpLimits { downloads: 3, response_bytes: 3 * (16 << 20), ..HttpLimits::default() };
    let server = start(limits).await;
    for path in ["/file", "/large-of-account"] {
        let ask = async |client: &str| {
            let mut stream = connect(server.at).await;
            let request =
                format!("GET {path} HTTP/1.1\r\nhost: a\r\nx-forwarded-for: {client}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            stream.read_exact(&mut [0; 15]).await.unwrap();
            stream
        };
        let other = ask("203.0.113.9").await;
        let mut slow = Vec::new();
        for _ in 0..5 {
            slow.push(ask("203.0.113.5").await);
        }
        // What the system had taken comes, and then the end.
        for mut stream in slow.drain(..3) {
            let mut read = Vec::new();
            let _ = stream.read_to_end(&mut read).await;
            assert!(read.len() < 16 << 20, "{path}");
        }
        for mut stream in slow.into_iter().chain([other]) {
            stream.read_exact(&mut vec![0; 16 << 20]).await.unwrap();
        }
    }
    server.cancel.cancel();
}
