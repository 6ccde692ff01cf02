//! Fetches and callbacks against customers' servers on loopback.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{Method as Verb, Version};
use uuid::Uuid;

use super::{
    AT_ONCE_PER_HOST, CallbackJob, CallbackOutcome, Delivery, DocumentBody, FetchJob, Fetcher,
    Hops, Notifier, RandomSource, SigningKeys, Validity, sign, sign_event,
};
use egress::testing::{ReceivedRequest, Reply, Server, egress, open_guard};
use egress::{Egress, Guard};
use machine::{CallbackKind, CallbackRequest, EVENT_BODY, FetchFailure, FetchKind, Param, Params};
use model::Clock;
use model::Secret;
use model::{CallUuid, Method};
use xml::ast::DocUrl;

const CALL: CallUuid = CallUuid(Uuid::from_u128(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736));
const MENU: &[u8] = b"<Response><Speak>Press one</Speak></Response>";

fn keys() -> SigningKeys {
    SigningKeys::new(
        &[Secret::new("new-token"), Secret::new("old-token")],
        &[Secret::new("main-token")],
    )
}

fn params() -> Params {
    let plain = [
        ("CallUUID", "3f0c2f1a"),
        ("Digits", ""),
        ("Speech", "naïve & co."),
        ("From", "919812345678"),
    ];
    let mut params: Params =
        plain.map(|(n, v)| (n.into(), Param::Plain(v.to_owned().into()))).into();
    params.insert("Pin".into(), Param::Secret("4711".to_owned()));
    params
}

fn job(url: impl Into<String>) -> FetchJob {
    FetchJob {
        call: CALL,
        main_account: "MAXXXXXXXXXXXXXXXXXX".into(),
        kind: FetchKind::Answer,
        url: DocUrl(url.into().into()),
        method: Method::Post,
        params: params(),
        keys: keys(),
        event_id: Uuid::from_u128(7),
        deadline: Duration::from_secs(10),
        max_body: 102_400,
        hops: Hops::new(),
    }
}

fn fetcher(egress: Egress) -> Fetcher {
    Fetcher::new(egress, Clock::real(), RandomSource::system())
}

fn open() -> Egress {
    egress(open_guard(), Vec::new())
}

/// Accepts the body unchanged.
async fn whole(body: DocumentBody) -> (DocumentBody, Validity) {
    (body, Validity::Valid)
}

async fn document(job: FetchJob) -> Result<DocumentBody, FetchFailure> {
    fetcher(open()).document(&job, whole).await
}

/// Checks a request's signatures as a customer's server does, with its own URL.
fn check_signatures(seen: &ReceivedRequest, url: &str) {
    let form: Vec<(String, String)> =
        url::form_urlencoded::parse(&seen.body).into_owned().collect();
    let pairs: Vec<(&str, &str)> = form.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let method = if seen.method == Verb::GET { Method::Get } else { Method::Post };
    let nonce = seen.header("x-plivo-signature-v3-nonce");
    assert!(nonce.len() == 20 && nonce.bytes().all(|b| b.is_ascii_digit()));
    for (name, value) in sign(method, url, &pairs, &keys(), nonce.to_owned()) {
        assert_eq!(seen.header(name.as_str()), value, "{name} of {url}");
    }
}

#[tokio::test]
async fn every_request_is_a_span_of_the_calls_trace_with_its_timings() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/moved" => Reply::Whole(302, vec![("location", "/there".to_owned())], Bytes::new()),
        _ => Reply::Whole(200, vec![], Bytes::from_static(MENU)),
    })
    .await;
    let wanted = job(server.url("/moved"));
    fetcher(open()).document(&wanted, whole).await.unwrap();
    let hops = wanted.hops.so_far();
    assert_eq!(hops.iter().map(|h| h.ended.unwrap().1).collect::<Vec<_>>(), [Ok(302), Ok(200)]);
    for (seen, hop) in server.seen().iter().zip(&hops) {
        let expected = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", hop.span);
        assert_eq!(seen.header("traceparent"), expected);
        let (answered, (ended, _)) = (hop.answered.unwrap(), hop.ended.unwrap());
        assert!(hop.begun <= answered && answered <= ended);
    }
    assert_ne!(hops[0].span, hops[1].span);
    let (looked_up, connected) = hops[0].dialled.expect("a connection was made for the first");
    assert!(
        hops[0].begun <= looked_up
            && looked_up <= connected
            && connected <= hops[0].answered.unwrap()
    );
    assert_eq!(hops[1].dialled, None, "the second used the same connection");

    let closed =
        std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).unwrap();
    let gone = job(format!("http://{closed}/"));
    fetcher(open()).document(&gone, whole).await.unwrap_err();
    assert_eq!(gone.hops.so_far()[0].ended.unwrap().1, Err("unreachable"));
}

#[tokio::test]
async fn a_post_carries_its_parameters_headers_and_signatures() {
    let server = Server::start(|_| {
        Reply::Whole(
            200,
            vec![("content-type", "text/xml; charset=utf-8".to_owned())],
            Bytes::from_static(MENU),
        )
    })
    .await;
    let fetched = document(job(server.url("/answer?tenant=acme#rc=2&x=1"))).await.unwrap();
    assert_eq!(
        fetched,
        DocumentBody {
            bytes: Bytes::from_static(MENU),
            charset: Some("utf-8".to_owned()),
            status: 200
        }
    );
    let seen = &server.seen()[0];
    assert_eq!((&seen.method, seen.target.as_str()), (&Verb::POST, "/answer?tenant=acme"));
    assert_eq!(
        seen.body,
        "CallUUID=3f0c2f1a&Digits=&From=919812345678&Pin=4711&Speech=na%C3%AFve+%26+co."
    );
    for (name, value) in [
        ("user-agent", concat!("Offhook/", env!("CARGO_PKG_VERSION"), " (Plivo-compatible)")),
        ("accept", "application/xml, text/xml, */*"),
        ("accept-encoding", "gzip, deflate"),
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("x-offhook-event-id", "00000000-0000-0000-0000-000000000007"),
        ("x-offhook-attempt", "1"),
        ("x-offhook-truncated", ""),
        ("cookie", ""),
    ] {
        assert_eq!(seen.header(name), value, "{name}");
    }
    check_signatures(seen, &server.url("/answer?tenant=acme"));
    assert_eq!(seen.header("x-plivo-signature-v3").split(',').count(), 2);
    assert_eq!(seen.header("x-plivo-signature-ma-v3").split(',').count(), 1);
}

#[tokio::test]
async fn a_get_appends_its_parameters_and_cuts_long_values() {
    let server = Server::start(|_| Reply::ok(MENU)).await;
    let get = FetchJob { method: Method::Get, ..job(server.url("/answer?z=1")) };
    document(get.clone()).await.unwrap();
    let mut long = get;
    long.params.insert("Speech".into(), Param::Plain("long ".repeat(3_000).into()));
    document(long).await.unwrap();
    let seen = server.seen();
    assert_eq!(
        seen[0].target,
        "/answer?z=1&CallUUID=3f0c2f1a&Digits=&From=919812345678&Pin=4711&Speech=na%C3%AFve+%26+co."
    );
    assert_eq!((seen[0].header("content-type"), seen[0].body.len()), ("", 0));
    assert_eq!(
        (seen[0].header("x-offhook-truncated"), seen[1].header("x-offhook-truncated")),
        ("", "1")
    );
    for seen in seen {
        assert!(server.url(&seen.target).len() <= 8_192);
        check_signatures(&seen, &server.url(&seen.target));
    }
}

#[tokio::test]
async fn r07_one_deadline_covers_everything() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/drip" => Reply::Drip(Duration::from_millis(20)),
        "/round" => Reply::Never,
        "/away" => Reply::redirect(307, "/round"),
        "/error" => Reply::status(503),
        _ => Reply::Never,
    })
    .await;
    let deadline = Duration::from_millis(300);
    // Slow bytes, silence, silence after a redirect and further retries do not extend the deadline.
    for path in ["/drip", "/drip#rt=40000&tt=55000", "/never", "/away", "/error#rc=5&rp=all"] {
        let begun = Clock::real().now();
        let late = document(FetchJob { deadline, ..job(server.url(path)) }).await;
        let took = Clock::real().now().duration_since(begun);
        assert_eq!(late, Err(FetchFailure::Timeout), "{path}");
        assert!(took >= deadline && took < deadline * 5, "{path} took {took:?}");
    }
    // The fragment may shorten it.
    let begun = Clock::real().now();
    assert_eq!(document(job(server.url("/drip#tt=200"))).await, Err(FetchFailure::Timeout));
    assert_eq!(document(job(server.url("/never#rt=100&rc=0"))).await, Err(FetchFailure::Timeout));
    assert!(Clock::real().now().duration_since(begun) < Duration::from_secs(5));
}

#[tokio::test]
async fn r07_bodies_end_at_the_limit_after_decoding() {
    let zipped = |plain: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(plain).and_then(|()| encoder.finish()).unwrap()
    };
    let (bomb, menu) = (zipped(&vec![b' '; 20 << 20]), zipped(MENU));
    let server = Server::start(move |seen| match seen.target.as_str() {
        "/endless" => Reply::Endless,
        "/bomb" => Reply::coded("gzip", bomb.clone()),
        "/menu" => Reply::coded("gzip", menu.clone()),
        "/exact" => Reply::ok(vec![b'x'; 102_400]),
        "/over" => Reply::ok(vec![b'x'; 102_401]),
        "/broken" => Reply::coded("gzip", MENU),
        "/brotli" => Reply::coded("br", MENU),
        "/cut" => Reply::CutOff,
        _ => Reply::ok("<!doctype html><p>Not found"),
    })
    .await;
    assert_eq!(document(job(server.url("/menu"))).await.unwrap().bytes, MENU);
    assert_eq!(document(job(server.url("/exact"))).await.unwrap().bytes.len(), 102_400);
    assert_eq!(
        document(job(server.url("/html"))).await.unwrap().bytes,
        "<!doctype html><p>Not found"
    );
    for large in ["/endless", "/bomb", "/over"] {
        assert_eq!(document(job(server.url(large))).await, Err(FetchFailure::TooLarge), "{large}");
    }
    assert!(matches!(
        document(job(server.url("/broken"))).await,
        Err(FetchFailure::Invalid { .. })
    ));
    for unreachable in ["/brotli", "/cut#rc=0"] {
        let failed = document(job(server.url(unreachable))).await;
        assert!(
            matches!(failed, Err(FetchFailure::Unreachable { .. })),
            "{unreachable}: {failed:?}"
        );
    }
}

#[tokio::test]
async fn redirects_are_followed_and_signed_for_their_own_url() {
    let server = Server::start(|seen| match seen.target.split('?').next().unwrap_or_default() {
        "/307" => Reply::redirect(307, "/answer/?kept=1"),
        "/308" => Reply::redirect(308, "/answer/"),
        "/301" => Reply::redirect(301, "/answer/?kept=1"),
        "/302" => Reply::redirect(302, "/answer/"),
        "/303" => Reply::redirect(303, "/answer/"),
        "/slash" => Reply::redirect(301, seen.target.replace("/slash", "/slash/")),
        "/1" => Reply::redirect(302, "/2"),
        "/2" => Reply::redirect(302, "/3"),
        "/3" => Reply::redirect(302, "/4"),
        "/4" => Reply::redirect(302, "/5"),
        "/5" => Reply::redirect(302, "/answer/"),
        "/0" => Reply::redirect(302, "/1"),
        "/nowhere" => Reply::status(302),
        _ => Reply::ok(MENU),
    })
    .await;
    let form = "CallUUID=3f0c2f1a&Digits=&From=919812345678&Pin=4711&Speech=na%C3%AFve+%26+co.";
    for (path, method, target, body) in [
        ("/307", Verb::POST, "/answer/?kept=1".to_owned(), form),
        ("/308", Verb::POST, "/answer/".to_owned(), form),
        ("/301", Verb::GET, format!("/answer/?kept=1&{form}"), ""),
        ("/302", Verb::GET, format!("/answer/?{form}"), ""),
        ("/303", Verb::GET, format!("/answer/?{form}"), ""),
        ("/1", Verb::GET, format!("/answer/?{form}"), ""),
    ] {
        assert_eq!(document(job(server.url(path))).await.unwrap().bytes, MENU, "{path}");
        let last = server.seen().pop().unwrap();
        assert_eq!(
            (&last.method, &last.target, last.body.as_ref()),
            (&method, &target, body.as_bytes()),
            "{path}"
        );
        check_signatures(&last, &server.url(&last.target));
        assert_eq!(last.header("x-offhook-attempt"), "1");
    }
    // A server that keeps the query in its redirect does not get the parameters twice.
    document(FetchJob { method: Method::Get, ..job(server.url("/slash?a=1")) }).await.unwrap();
    let last = server.seen().pop().unwrap();
    assert_eq!(last.target, format!("/slash/?a=1&{form}"));
    check_signatures(&last, &server.url(&last.target));

    let sixth = document(job(server.url("/0"))).await;
    assert!(matches!(sixth, Err(FetchFailure::Invalid { .. })), "{sixth:?}");
    assert_eq!(
        document(job(server.url("/nowhere"))).await,
        Err(FetchFailure::Status { status: 302 })
    );
}

#[tokio::test]
async fn r17_redirects_into_each_range_and_to_http_are_refused() {
    let own = Server::start(|_| Reply::ok("inside")).await;
    let own_by_name = format!("http://other.example:{}/back", own.address.port());
    let inside = [
        "http://169.254.169.254/",
        "http://0xa9fea9fe/",
        "http://metadata.google.internal/",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://0.0.0.0/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://198.51.100.7/",
        "http://user@127.0.0.1/",
        "http://127.0.0.1:22/",
        "ftp://127.0.0.1/",
        &own_by_name,
    ]
    .map(str::to_owned);
    let targets = inside.clone();
    let server = Server::start(move |seen| {
        let n: usize = seen.target.trim_start_matches('/').parse().unwrap();
        Reply::redirect(307, targets[n].as_str())
    })
    .await;
    let fetcher = fetcher(egress(Guard::new(true, vec![own.address]), Vec::new()));
    for (n, target) in inside.iter().enumerate() {
        let refused = fetcher.document(&job(server.url(&format!("/{n}#rp=all&rc=5"))), whole).await;
        assert!(matches!(refused, Err(FetchFailure::UrlRefused { .. })), "{target}: {refused:?}");
    }
    assert_eq!((server.seen().len(), own.connections()), (inside.len(), 0));

    let plain = Server::start(|_| Reply::ok("in the clear")).await;
    let to = plain.url("/");
    let (secure, cert) =
        Server::start_tls(&["h2"], move |_| Reply::redirect(302, to.clone())).await;
    let refused = self::fetcher(egress(open_guard(), vec![cert]))
        .document(&job(secure.https_url("/")), whole)
        .await;
    assert!(matches!(refused, Err(FetchFailure::UrlRefused { .. })), "{refused:?}");
    assert_eq!((secure.seen().len(), plain.connections()), (1, 0));
}

#[tokio::test]
async fn r17_without_allow_insecure_private_addresses_are_refused() {
    let (server, cert) = Server::start_tls(&["h2"], |_| Reply::ok(MENU)).await;
    let strict = fetcher(egress(Guard::default(), vec![cert]));
    for url in [server.https_url("/"), server.url("/"), format!("https://{}/", server.address)] {
        let refused = strict.document(&job(url.clone()), whole).await;
        assert!(matches!(refused, Err(FetchFailure::UrlRefused { .. })), "{url}: {refused:?}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn retries_are_numbered_and_signed_anew() {
    let failures = Arc::new(Mutex::new(2));
    let left = failures.clone();
    let server =
        Server::start(move |seen| match (seen.target.as_str(), &mut *left.lock().unwrap()) {
            ("/turns", left @ 1..) => {
                *left -= 1;
                Reply::status(500)
            }
            ("/turns", _) => Reply::ok(MENU),
            _ => Reply::status(500),
        })
        .await;
    assert_eq!(document(job(server.url("/turns#rc=2&rp=5xx"))).await.unwrap().bytes, MENU);
    let seen = server.seen();
    assert_eq!(
        seen.iter().map(|s| s.header("x-offhook-attempt")).collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
    assert!(seen.iter().all(|s| s.header("x-offhook-event-id").ends_with("7")));
    let mut nonces: Vec<_> = seen.iter().map(|s| s.header("x-plivo-signature-v3-nonce")).collect();
    nonces.dedup();
    assert_eq!(nonces.len(), 3);
    seen.iter().for_each(|s| check_signatures(s, &server.url("/turns")));

    for (path, attempts) in
        [("/always", 1), ("/always#rc=1&rp=5xx", 2), ("/always#rc=3&rp=4xx,ct", 1)]
    {
        let before = server.seen().len();
        assert_eq!(
            document(job(server.url(path))).await,
            Err(FetchFailure::Status { status: 500 })
        );
        assert_eq!(server.seen().len() - before, attempts, "{path}");
    }
}

#[tokio::test]
async fn http_2_to_a_customer_and_its_connection_is_kept() {
    let (server, cert) = Server::start_tls(&["h2", "http/1.1"], |_| Reply::ok(MENU)).await;
    let fetcher = fetcher(egress(open_guard(), vec![cert]));
    for _ in 0..5 {
        fetcher.document(&job(server.https_url("/answer")), whole).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    for seen in server.seen() {
        assert_eq!(seen.version, Version::HTTP_2);
        check_signatures(&seen, &server.https_url("/answer"));
    }
}

#[test]
fn each_fetch_is_measured() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(
            async {
                let server = Server::start(|seen| {
                    if seen.target == "/" { Reply::ok(MENU) } else { Reply::status(404) }
                })
                .await;
                document(job(server.url("/"))).await.unwrap();
                document(FetchJob { kind: FetchKind::Fallback, ..job(server.url("/x")) })
                    .await
                    .unwrap_err();
                document(job("http://169.254.169.254/")).await.unwrap_err();
            },
        );
    });
    let text = handle.render();
    for labels in [
        "kind=\"answer\",outcome=\"ok\"",
        "kind=\"fallback\",outcome=\"status\"",
        "kind=\"answer\",outcome=\"refused\"",
    ] {
        assert!(
            text.contains(&format!("offhook_answer_fetch_seconds_count{{{labels}}} 1")),
            "{labels} in {text}"
        );
    }
}

// Callbacks.

fn notifier() -> Notifier {
    Notifier::new(open(), Clock::real(), RandomSource::system(), AT_ONCE_PER_HOST)
}

fn notice(event: u128, kind: CallbackKind, url: impl Into<String>) -> CallbackJob {
    CallbackJob {
        call: CallUuid(Uuid::from_u128(1)),
        main_account: "MATEST".into(),
        notice: CallbackRequest {
            kind,
            url: DocUrl(url.into().into()),
            method: Method::Post,
            params: params(),
        },
        keys: keys(),
        secrets: std::sync::Arc::default(),
        event_id: Uuid::from_u128(event),
        attempts: 0,
        retries: 0,
        hops: Hops::new(),
        age: Duration::ZERO,
    }
}

#[tokio::test]
async fn a_callback_carries_its_parameters_headers_and_signatures() {
    let server = Server::start(|_| Reply::status(204)).await;
    let delivery =
        notifier().deliver(&notice(7, CallbackKind::Hangup, server.url("/hangup"))).await;
    assert_eq!(
        delivery,
        Delivery { attempts: 1, outcome: CallbackOutcome::Delivered { status: 204 } }
    );
    let seen = &server.seen()[0];
    assert_eq!(seen.header("accept"), "*/*");
    assert_eq!(seen.header("x-offhook-event-id"), Uuid::from_u128(7).to_string());
    check_signatures(seen, &server.url("/hangup"));
}

#[tokio::test]
async fn r04_lasting_callbacks_are_retried_and_others_are_not() {
    let failures = Arc::new(Mutex::new(2));
    let server =
        Server::start(move |seen| match (seen.target.as_str(), &mut *failures.lock().unwrap()) {
            ("/back", left @ 1..) => {
                *left -= 1;
                Reply::Whole(503, vec![("retry-after", "1200".to_owned())], Bytes::new())
            }
            ("/back", _) => Reply::status(200),
            ("/gone", _) => Reply::status(410),
            _ => Reply::status(503),
        })
        .await;
    let notifier = notifier();
    // The fragment's own retries belong to the first stage. Each later stage is a single attempt.
    let mut job = notice(1, CallbackKind::Hangup, server.url("/back#rc=1&rp=5xx"));
    let Delivery { attempts, outcome } = notifier.deliver(&job).await;
    assert!(
        matches!(&outcome, CallbackOutcome::Retry { after, .. } if *after == Duration::from_secs(1_200)),
        "{outcome:?}"
    );
    assert_eq!(attempts, 2);
    (job.attempts, job.retries) = (2, 1);
    assert_eq!(
        notifier.deliver(&job).await,
        Delivery { attempts: 3, outcome: CallbackOutcome::Delivered { status: 200 } }
    );
    let back: Vec<_> = server.seen();
    assert_eq!(
        back.iter().map(|s| s.header("x-offhook-attempt")).collect::<Vec<_>>(),
        ["1", "2", "3"]
    );
    assert!(back.iter().all(|s| s.header("x-offhook-event-id") == Uuid::from_u128(1).to_string()));
    assert_ne!(
        back[0].header("x-plivo-signature-v3-nonce"),
        back[2].header("x-plivo-signature-v3-nonce")
    );

    for (kind, path) in [
        (CallbackKind::Hangup, "/gone"),
        (CallbackKind::Dial, "/down"),
        (CallbackKind::Action, "/down"),
        (CallbackKind::Stream, "/down#rc=3&rp=5xx"),
    ] {
        let Delivery { attempts, outcome } =
            notifier.deliver(&notice(2, kind, server.url(path))).await;
        assert!(matches!(outcome, CallbackOutcome::Failed { .. }), "{path}: {outcome:?}");
        assert_eq!(attempts, 1);
    }
    let mut late = notice(3, CallbackKind::Hangup, server.url("/down"));
    (late.retries, late.age) = (20, Duration::from_secs(23 * 3_600 + 1_800));
    assert!(
        matches!(notifier.deliver(&late).await.outcome, CallbackOutcome::Failed { .. }),
        "past its 24 hours"
    );
    let refused =
        notifier.deliver(&notice(5, CallbackKind::Hangup, "http://169.254.169.254/")).await;
    assert!(
        matches!(refused, Delivery { attempts: 0, outcome: CallbackOutcome::Failed { .. } }),
        "{refused:?}"
    );
}

/// As a GET without its body, an event would be lost with a 2xx.
#[tokio::test]
async fn a_redirected_event_is_posted_with_its_body_or_fails() {
    let server = Server::start(|seen| match seen.target.as_str() {
        "/301" => Reply::redirect(301, "/events/"),
        "/302" => Reply::redirect(302, "/301"),
        "/303" => Reply::redirect(303, "/events/"),
        "/307" => Reply::redirect(307, "/events/"),
        _ => Reply::status(204),
    })
    .await;
    let json = r#"{"id":"7","type":"test"}"#;
    let event = |path| {
        let mut job = notice(7, CallbackKind::Event, server.url(path));
        job.notice.params = [(EVENT_BODY.into(), Param::Plain(json.to_owned().into()))].into();
        job.secrets = [Secret::new("whsec_new")].into();
        job
    };
    for path in ["/301", "/302", "/307"] {
        let delivery = notifier().deliver(&event(path)).await;
        assert_eq!(delivery.outcome, CallbackOutcome::Delivered { status: 204 }, "{path}");
        let last = server.seen().pop().unwrap();
        assert_eq!((&last.method, last.target.as_str()), (&Verb::POST, "/events/"), "{path}");
        assert_eq!(last.body, json, "{path}");
        let signed = last.header("x-offhook-signature");
        let unix = signed.strip_prefix("t=").and_then(|t| t.split(',').next()).unwrap();
        let expected = sign_event(&last.body, &[Secret::new("whsec_new")], unix.parse().unwrap());
        assert_eq!(signed, expected, "{path}");
    }
    let before = server.seen().len();
    let Delivery { outcome, .. } = notifier().deliver(&event("/303")).await;
    let why = "the response status was 303".to_owned();
    assert_eq!(outcome, CallbackOutcome::Failed { why });
    assert_eq!(server.seen().len() - before, 1);
}
