//! Tests of the HTTP client against servers on loopback.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::testing::{FakeResolver, Reply, Server, egress, egress_with, open_guard, tls_acceptor};
use super::{
    BodyPolicy, CustomerUrl, Egress, EgressConfig, EgressError, EgressRequest, EgressResponse,
    FetchedFile, FileResponse, FileSink, Guard, Lookup, OwnFiles, Refusal, Resolve,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A file as it was received.
#[derive(Default)]
struct Received {
    reserved: Vec<usize>,
    bytes: Vec<u8>,
}

impl FileSink for Received {
    fn reserve(&mut self, bytes: usize) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.reserved.push(bytes);
        Box::pin(std::future::ready(()))
    }

    fn chunk(&mut self, chunk: Bytes) {
        self.bytes.extend_from_slice(&chunk);
    }
}

fn get(url: &CustomerUrl) -> EgressRequest<'_> {
    EgressRequest {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        body: Bytes::new(),
        connect: TIMEOUT,
        read: TIMEOUT,
        body_policy: BodyPolicy::OnSuccess { max: 1_000 },
    }
}

async fn ask(egress: &Egress, url: &str) -> Result<EgressResponse, EgressError> {
    egress.request(get(&egress.url(url)?)).await
}

#[tokio::test]
async fn one_connection_serves_many_requests() {
    let server = Server::start(|_| Reply::ok("hello")).await;
    let egress = egress(open_guard(), Vec::new());
    for _ in 0..10 {
        assert_eq!(ask(&egress, &server.url("/a?b#c")).await.unwrap().body, "hello");
    }
    assert_eq!((server.connections(), server.seen().len()), (1, 10));
    let seen = &server.seen()[0];
    assert_eq!(
        (seen.target.as_str(), seen.header("host")),
        ("/a?b", server.address.to_string().as_str())
    );
}

#[tokio::test]
async fn http_2_requests_share_a_connection_and_http_1_is_the_fallback() {
    let (server, cert) = Server::start_tls(&["h2", "http/1.1"], |_| Reply::ok("hello")).await;
    let out = egress(open_guard(), vec![cert]);
    ask(&out, &server.https_url("/")).await.unwrap();
    let mut many = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (out, url) = (out.clone(), server.https_url("/x"));
        many.spawn(async move { ask(&out, &url).await.map(|a| a.status.as_u16()) });
    }
    assert!(many.join_all().await.into_iter().all(|status| status == Ok(200)));
    assert_eq!(server.connections(), 1);
    assert!(server.seen().iter().all(|s| s.version == Version::HTTP_2));

    let (server, cert) = Server::start_tls(&["http/1.1"], |_| Reply::ok("hello")).await;
    ask(&egress(open_guard(), vec![cert]), &server.https_url("/")).await.unwrap();
    assert_eq!(server.seen()[0].version, Version::HTTP_11);
}

#[tokio::test]
async fn certificates_are_verified() {
    let (server, cert) = Server::start_tls(&["h2"], |_| Reply::ok("hello")).await;
    let untrusted = ask(&egress(open_guard(), Vec::new()), &server.https_url("/")).await;
    assert!(matches!(untrusted, Err(EgressError::Connect { .. })), "{untrusted:?}");
    let other_name = format!("https://other.example:{}/", server.address.port());
    let misnamed = ask(&egress(open_guard(), vec![cert]), &other_name).await;
    assert!(matches!(misnamed, Err(EgressError::Connect { .. })), "{misnamed:?}");
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn r17_a_name_that_resolves_to_a_private_address_is_refused_before_connecting() {
    let (server, cert) = Server::start_tls(&["h2"], |_| Reply::ok("secret")).await;
    let url = format!("https://app.example.com:{}/", server.address.port());
    let private = FakeResolver::new(&[&["127.0.0.1"]]);
    let refused = ask(&egress_with(Guard::default(), vec![cert.clone()], private), &url).await;
    let by_name = Refusal::AddressOf("app.example.com".to_owned());
    assert_eq!(refused.unwrap_err(), EgressError::Refused(by_name));
    // `localhost` is refused by its name.
    let refused = ask(&egress(Guard::default(), vec![cert.clone()]), &server.https_url("/")).await;
    let name = Refusal::LocalName("localhost".to_owned());
    assert_eq!(refused.unwrap_err(), EgressError::Refused(name));
    let own = Guard::new(true, vec![server.address]);
    let refused = ask(&egress(own, vec![cert]), &server.https_url("/")).await;
    assert_eq!(refused.unwrap_err(), EgressError::Refused(Refusal::OwnListener(server.address)));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn r17_dns_rebinding_has_no_effect() {
    let server = Server::start(|_| {
        Reply::Whole(200, vec![("connection", "close".to_owned())], Bytes::new())
    })
    .await;
    let url = format!("http://app.example.com:{}/", server.address.port());
    // The first lookup returns an allowed address, every later one a blocked address.
    let rebinding = FakeResolver::new(&[&["127.0.0.1"], &["169.254.169.254"]]);
    let first = egress_with(open_guard(), Vec::new(), rebinding.clone());
    for _ in 0..3 {
        ask(&first, &url).await.unwrap();
    }
    assert_eq!((rebinding.lookups(), server.connections()), (1, 3));
    // A new client resolves again, and that address is checked.
    let later = egress_with(open_guard(), Vec::new(), rebinding);
    let refused = ask(&later, &url).await.unwrap_err();
    let by_name = Refusal::AddressOf("app.example.com".to_owned());
    assert_eq!(refused, EgressError::Refused(by_name));
}

#[tokio::test]
async fn each_phase_has_its_own_timeout() {
    struct Unresponsive;
    impl Resolve for Unresponsive {
        fn lookup(&self, _: &str) -> Lookup {
            Box::pin(pending())
        }
    }
    let short = Duration::from_millis(50);
    let client = egress_with(open_guard(), Vec::new(), Arc::new(Unresponsive));
    let url = client.url("https://app.example.com/").unwrap();
    let error = client.request(EgressRequest { connect: short, ..get(&url) }).await.unwrap_err();
    assert_eq!(
        error,
        EgressError::ConnectTimeout { host: "https://app.example.com".to_owned(), waited: short }
    );

    // The kernel accepts the connection, but no TLS server responds.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let client = egress(open_guard(), Vec::new());
    let url = client.url(&format!("https://{}/", listener.local_addr().unwrap())).unwrap();
    let wait = Duration::from_millis(500);
    let error = client.request(EgressRequest { connect: wait, ..get(&url) }).await.unwrap_err();
    assert_eq!(error, EgressError::HandshakeTimeout { host: url.origin(), waited: wait });

    for reply in [|| Reply::Never, || Reply::Drip(TIMEOUT)] {
        let server = Server::start(move |_| reply()).await;
        let egress = egress(open_guard(), Vec::new());
        let url = egress.url(&server.url("/")).unwrap();
        let error = egress.request(EgressRequest { read: short, ..get(&url) }).await.unwrap_err();
        assert_eq!(error, EgressError::ReadTimeout { waited: short });
    }
}

#[tokio::test]
async fn a_body_ends_at_its_limit_and_error_bodies_are_discarded() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/endless" => Reply::Endless,
        "/exact" => Reply::ok(vec![b'x'; 1_000]),
        "/over" => Reply::ok(vec![b'x'; 1_001]),
        "/cut" => Reply::CutOff,
        "/head" => Reply::Whole(200, vec![("x-long", "x".repeat(300_000))], Bytes::new()),
        _ => Reply::Whole(500, Vec::new(), Bytes::from_static(b"internal details")),
    })
    .await;
    let egress = egress(open_guard(), Vec::new());
    let url = |path: &str| server.url(path);
    assert_eq!(ask(&egress, &url("/exact")).await.unwrap().body.len(), 1_000);
    for large in ["/over", "/endless"] {
        assert_eq!(
            ask(&egress, &url(large)).await.unwrap_err(),
            EgressError::TooLarge { max: 1_000 }
        );
    }
    for broken in ["/cut", "/head"] {
        assert!(
            matches!(ask(&egress, &url(broken)).await, Err(EgressError::Broken { .. })),
            "{broken}"
        );
    }
    let failed = ask(&egress, &url("/other")).await.unwrap();
    assert_eq!((failed.status.as_u16(), failed.body.len()), (500, 0));
    let target = egress.url(&url("/endless")).unwrap();
    let dropped = egress
        .request(EgressRequest { body_policy: BodyPolicy::Discard, ..get(&target) })
        .await
        .unwrap();
    assert_eq!((dropped.status.as_u16(), dropped.body.len()), (200, 0));
}

#[tokio::test]
async fn a_closed_port_is_a_connect_error() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = ask(&egress(open_guard(), Vec::new()), &format!("http://{free}/")).await;
    assert!(matches!(gone, Err(EgressError::Connect { .. })), "{gone:?}");
}

#[tokio::test]
async fn an_unreachable_address_does_not_hide_the_next() {
    let server = Server::start(|_| Reply::ok("hello")).await;
    let both = egress_with(
        open_guard(),
        Vec::new(),
        FakeResolver::new(&[&["::1", "127.0.0.2", "127.0.0.1"]]),
    );
    let answer =
        ask(&both, &format!("http://app.example.com:{}/", server.address.port())).await.unwrap();
    assert_eq!(answer.body, "hello");
}

#[tokio::test]
async fn r17_own_files_are_fetched_and_nothing_else_of_the_node() {
    let node = Server::start(|seen| match seen.target.as_str() {
        "/recordings/1.wav" => Reply::ok("RIFF"),
        "/recordings/moved" => Reply::redirect(302, "/v1/Account/"),
        _ => Reply::ok("secret"),
    })
    .await;
    let own_files = OwnFiles::new(&node.url(""), &["/recordings/"], open_guard());
    let config = EgressConfig {
        own_files: Some(own_files.unwrap()),
        system_roots: false,
        ..EgressConfig::new(Guard::new(true, vec![node.address]))
    };
    let egress = Egress::new(config).unwrap();
    let fetch = |path: &str| {
        let (egress, url) = (egress.clone(), node.url(path));
        async move { egress.fetch_file(&url, 10_000, None, &mut Received::default()).await }
    };
    let refused = EgressError::Refused(Refusal::OwnListener(node.address));
    let file = fetch("/recordings/1.wav").await.unwrap();
    assert!(matches!(file, FileResponse::File(file) if file.bytes == "RIFF"));
    assert_eq!(fetch("/v1/Account/").await, Err(refused.clone()));
    assert_eq!(fetch("/recordings/moved").await, Err(refused.clone()));
    // The connection that files were fetched on is kept, and not used for other requests.
    let document = ask(&egress, &node.url("/recordings/1.wav")).await;
    assert_eq!(document.unwrap_err(), refused);
    assert!(node.seen().iter().all(|seen| seen.target.starts_with("/recordings/")));
}

#[tokio::test]
async fn files_are_fetched_with_caching_headers_and_one_retry() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/moved" => Reply::redirect(302, "/tone.wav"),
        "/tone.wav" if seen.header("if-none-match") == "\"v1\"" => Reply::status(304),
        "/tone.wav" => Reply::Whole(
            200,
            vec![("etag", "\"v1\"".to_owned()), ("cache-control", "max-age=60".to_owned())],
            Bytes::from_static(b"RIFF"),
        ),
        "/round" => Reply::redirect(307, "/round"),
        "/inside" => Reply::redirect(302, "http://169.254.169.254/latest"),
        "/large" => Reply::Endless,
        _ => Reply::status(503),
    })
    .await;
    let egress = egress(open_guard(), Vec::new());
    let fetch = |path: &str, etag| {
        let (egress, url) = (egress.clone(), server.url(path));
        async move { egress.fetch_file(&url, 10_000, etag, &mut Received::default()).await }
    };
    let count = |path: &str| server.seen().iter().filter(|s| s.target == path).count();
    let file = FetchedFile {
        bytes: Bytes::from_static(b"RIFF"),
        etag: Some("\"v1\"".to_owned()),
        cache_control: Some("max-age=60".to_owned()),
    };
    assert_eq!(fetch("/moved", None).await, Ok(FileResponse::File(file)));
    let mut received = Received::default();
    let url = server.url("/moved");
    let result = egress.fetch_file(&url, 10_000, None, &mut received).await;
    assert!(result.is_ok() && received.bytes == b"RIFF", "{:?}", received.bytes);
    assert_eq!(received.reserved, [4], "what the server declares");
    assert_eq!(fetch("/tone.wav", Some("\"v1\"")).await, Ok(FileResponse::NotModified));
    assert!(server.seen().iter().all(|s| s.header("x-plivo-signature-v3").is_empty()));
    assert_eq!(fetch("/gone", None).await, Err(EgressError::Status(503)));
    assert_eq!(count("/gone"), 2);
    assert_eq!(fetch("/large", None).await, Err(EgressError::TooLarge { max: 10_000 }));
    assert_eq!(count("/large"), 1);
    assert_eq!(fetch("/round", None).await, Err(EgressError::Redirects));
    assert_eq!(count("/round"), 12);
    assert!(matches!(fetch("/inside", None).await, Err(EgressError::Refused(_))));
    assert_eq!(count("/inside"), 1);
}

/// Waits for a request, and then sends `beginning` once and `repeated` until the client closes the
/// connection.
async fn repeat(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    beginning: &[u8],
    repeated: &[u8],
) {
    let mut request = [0; 1024];
    assert_ne!(stream.read(&mut request).await.unwrap(), 0);
    let mut sending = stream.write_all(beginning).await;
    while sending.is_ok() {
        sending = stream.write_all(repeated).await;
    }
}

#[tokio::test]
async fn r14_endless_interim_responses_end_the_request() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let interim = format!("HTTP/1.1 103 Early Hints\r\n{}\r\n", "a: b\r\n".repeat(60));
    let server = tokio::spawn(async move {
        repeat(listener.accept().await.unwrap().0, b"", interim.repeat(100).as_bytes()).await;
    });
    let refused = ask(&egress(open_guard(), Vec::new()), &url).await;
    let reason = "the server sent more than 1 MiB, but no response".to_owned();
    assert_eq!(refused.unwrap_err(), EgressError::Broken { reason });
    server.await.unwrap();
}

#[tokio::test]
async fn r14_endless_interim_responses_over_http_2_end_the_request() {
    let (tls, cert) = tls_acceptor(&["h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let server = tokio::spawn(async move {
        let stream = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        // RFC 9113 §4.1: an empty SETTINGS frame, and HEADERS frames of stream 1 with END_HEADERS
        // and `:status: 103` (RFC 7541 §6.2.2).
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let interim = [&[0, 0, 5, 1, 4, 0, 0, 0, 1][..], b"\x08\x03103"].concat();
        repeat(stream, &settings, &interim.repeat(1_000)).await;
    });
    let refused = ask(&egress(open_guard(), vec![cert]), &url).await;
    let reason = "the server sent more than 1 MiB, but no response".to_owned();
    assert_eq!(refused.unwrap_err(), EgressError::Broken { reason });
    server.await.unwrap();
}

#[tokio::test]
async fn a_large_body_over_http_2_arrives_whole() {
    let (server, cert) = Server::start_tls(&["h2"], |_| Reply::ok(vec![b'x'; 5_000_000])).await;
    let egress = egress(open_guard(), vec![cert]);
    let url = egress.url(&server.https_url("/")).unwrap();
    let body_policy = BodyPolicy::OnSuccess { max: 5_000_000 };
    let reply = egress.request(EgressRequest { body_policy, ..get(&url) }).await.unwrap();
    assert_eq!(reply.body.len(), 5_000_000);
}

/// Answers for all names but those that begin with `dead`.
struct DeadNames;

impl Resolve for DeadNames {
    fn lookup(&self, name: &str) -> Lookup {
        match name.starts_with("dead") {
            true => Box::pin(pending()),
            false => Box::pin(async { Ok(vec![[127, 0, 0, 1].into()]) }),
        }
    }
}

#[tokio::test]
async fn the_dead_names_of_one_account_delay_no_other() {
    let server = Server::start(|_| Reply::ok("hello")).await;
    let egress = egress_with(open_guard(), Vec::new(), Arc::new(DeadNames));
    let mut slow = tokio::task::JoinSet::new();
    for n in 0..100 {
        let attacker = egress.of("MA1");
        slow.spawn(async move { ask(&attacker, &format!("http://dead.zone{n}.example/")).await });
    }
    tokio::task::yield_now().await;
    let url = format!("http://app.example:{}/", server.address.port());
    let asked = egress.of("MA2");
    assert_eq!(ask(&asked, &url).await.unwrap().body, "hello");
    assert!(slow.try_join_next().is_none(), "it was answered before the others gave up");
}
