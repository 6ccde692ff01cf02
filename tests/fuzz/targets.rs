//! One function per format. Each takes arbitrary bytes and panics if a guarantee about that format
//! is broken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use egress::{CustomerUrl, Egress, EgressConfig, Guard, is_public};
use engine::admission::book::{Book, Keeper};
use engine::admission::permission::Consents;
use engine::admission::{Directory, Gate, NumberEntry};
use engine::call::PermissionService;
use engine::call::dialer::CallOrder;
use engine::call::queues::NotPlaced;
use engine::call::streams::StreamView;
use engine::config::Config;
use engine::meta::{Graph, GraphConfig};
use engine::webhook::{Content, Secrets};
use engine::{answer, call, webhook};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::BodyExt as _;
use machine::{Command, RecordingOrder, StreamOrder};
use media::dtmf::Receiver;
use media::opus::{Decoder, Encoder, Rate};
use media::probe::Probe;
use media::sdp::{LocalDescription, Offer};
use media::stun;
use model::Clock;
use model::Health;
use model::Secret;
use model::{CallUuid, E164, StreamId, Timestamp};
use offhook::api::{
    self, Api, Apis, CallPlacer, CommandError, LiveCall, LiveCalls, LiveFilter, NodeStatus,
    Operator, ReloadOutcome,
};
use store::{ForgetOutcome, Scope, Store, StoreError};
use tower::ServiceExt as _;
use url::Host;
use xml::ast::{DocUrl, Target};

/// The body of a webhook.
pub fn webhook(body: &[u8]) {
    let mut items = 0;
    let outcome = webhook::decode(body, |item| {
        items += 1;
        let shown = format!("{item:?}");
        assert!(shown.len() < 20_000, "what is kept of an item is bounded");
        assert!(item.id.as_ref().is_none_or(|id| id.len() <= 512 && id.is_ascii()));
        if let Content::Connect(connect) = item.content {
            assert!(connect.name.len() <= 4_096 && !connect.name.contains(char::is_control));
            let business = E164::parse("918035737458").expect("a number");
            assert!(connect.user(&business).len() <= 4_096);
        }
    });
    assert!(outcome.is_ok() || items == 0, "what is not JSON has no item");
}

/// A document returned by an answer URL.
pub fn xml(body: &[u8]) {
    for charset in [None, Some("us-ascii")] {
        let parsed = xml::parse(body, charset);
        assert!(parsed.findings.len() <= 2_001);
        let report = serde_json::to_string(&xml::report("-", &parsed)).expect("a report");
        assert!(body.len() < 1_000 || report.len() < 2_000 * 2_000, "a report is bounded");
        if let Some(document) = &parsed.document {
            let text = serde_json::to_string(document).expect("a document");
            let again: xml::Document =
                serde_json::from_str(&text).expect("what was written can be read");
            assert_eq!(&again, document.as_ref());
        }
    }
}

/// An SDP offer.
pub fn sdp(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for allow_loopback in [false, true] {
        let Ok(offer) = Offer::parse(&text, allow_loopback) else { continue };
        assert!(text.len() <= 16_384 && offer.candidates.len() <= 16);
        for candidate in &offer.candidates {
            let ip = candidate.addr.ip();
            assert!(!ip.is_unspecified() && !ip.is_multicast() && candidate.addr.port() != 0);
            assert!(allow_loopback || !ip.is_loopback(), "{ip}");
            assert_eq!(ip, ip.to_canonical());
        }
        let shown = format!("{offer:?}");
        assert!(!shown.contains(&offer.pwd), "credentials are not shown");
        let address = SocketAddr::from(([198, 51, 100, 7], 3478));
        let answer = offer.answer(&LocalDescription {
            candidates: &[address],
            ufrag: "ufraglong",
            pwd: "a password of twenty-four",
            fingerprint: &[7; 32],
            ssrc: 1,
            cname: "cname",
            stream: "stream",
            track: "track",
            session: 1,
            ice_lite: !offer.ice_lite,
        });
        assert!(answer.len() <= 16_384, "{} bytes", answer.len());
        assert!(
            answer.lines().all(|line| line.as_bytes().get(1) == Some(&b'=')),
            "no line of somebody else's making"
        );
    }
}

/// A datagram received at the media port.
pub fn stun(datagram: &[u8]) {
    if let stun::Kind::Request { ufrag } = stun::classify(datagram) {
        assert!(ufrag.len() < datagram.len());
    }
    let _ = stun::check_id(datagram);
    for password in ["", "VOkJxbRl1RmTxUk/WvJxBt"] {
        // MESSAGE-INTEGRITY covers everything before it except the length field. At most a
        // FINGERPRINT follows it.
        let known = |known: &Vec<u8>| {
            let covered = known.len().saturating_sub(8);
            datagram.get(..2) == known.get(..2) && datagram.get(4..covered) == known.get(4..covered)
        };
        let authentic = stun::is_authentic(datagram, password);
        assert!(!authentic || stun_corpus().iter().any(known), "nobody else knows the password");
    }
}

/// The messages of RFC 5769, and some without attributes.
pub fn stun_corpus() -> Vec<Vec<u8>> {
    const REQUEST: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e00\
        01ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2\
        80280004e57a3bcf";
    const RESPONSE: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e1\
        12a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
    let bytes = |text: &str| hex::decode(text).expect("hex");
    vec![
        bytes(REQUEST),
        bytes(RESPONSE),
        bytes("000100002112a442b7e7a701bc34d686fa87dfae"),
        vec![0x80; 60],
        vec![22; 60],
    ]
}

/// Telephone events from a peer, as a sequence of (timestamp, event, four payload bytes).
pub fn telephone_event(bytes: &[u8]) {
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    let start = *START.get_or_init(|| Clock::real().now());
    let (mut receiver, mut digits) = (Receiver::default(), Vec::new());
    let mut packets = 0;
    for (n, packet) in (0u64..).zip(bytes.chunks(6)) {
        let now = start + Duration::from_millis(n * 20);
        let (head, payload) = packet.split_at(packet.len().min(1));
        let head = u32::from(head.first().copied().unwrap_or_default());
        receiver.receive(now, head >> 6, head << 28 | head, payload, &mut digits);
        receiver.tick(now, &mut digits);
        packets += 1;
    }
    assert!(digits.len() <= packets, "no packet is more than one digit");
}

fn probe() -> &'static Probe {
    static PROBE: OnceLock<Probe> = OnceLock::new();
    PROBE.get_or_init(|| Probe::new().expect("a media path"))
}

/// Splits an input into pieces, each preceded by a two-byte length.
fn pieces(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    let pieces = std::iter::from_fn(move || {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (piece, behind) = behind.split_at(length);
        rest = behind;
        Some(piece)
    });
    pieces.take(64)
}

/// Datagrams from a peer address that STUN has verified. The first byte selects the DTLS role.
pub fn datagrams(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let outcome = probe().run(first & 1 == 1, pieces(rest));
    assert!(!outcome.connected, "nobody has the key to the certificate");
    assert!(outcome.events <= 4, "{outcome:?}");
    // One flight and its retransmission, regardless of how often it is requested.
    assert!(outcome.bytes_sent <= 40 * bytes.len() + 8_000, "{outcome:?} to {} bytes", bytes.len());
}

/// Encodes datagrams as an input of [`datagrams`].
pub fn framed(first: u8, datagrams: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![first];
    for datagram in datagrams {
        bytes.extend_from_slice(&u16::try_from(datagram.len()).expect("short").to_be_bytes());
        bytes.extend_from_slice(datagram);
    }
    bytes
}

/// DTLS: ClientHello messages, alerts, an invalid cookie, application data of another epoch.
pub fn dtls_corpus() -> Vec<Vec<u8>> {
    let hello = probe().first_flight();
    let record = |kind: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).expect("short").to_be_bytes();
        [&[kind, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9][..], &length, body].concat()
    };
    let verify =
        record(22, &[3, 0, 0, 23, 0, 0, 0, 0, 0, 0, 0, 23, 254, 255, 20, 1, 2, 3, 4, 5, 6, 7, 8]);
    vec![
        framed(1, &hello),
        framed(1, &[hello.clone(), hello.clone()].concat()),
        framed(
            1,
            &[hello.clone(), vec![record(20, &[1]), record(22, &[7; 60]), record(23, &[1; 30])]]
                .concat(),
        ),
        framed(
            0,
            &[verify.clone(), hello.concat(), record(22, &[2, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 40])],
        ),
        framed(1, &[record(21, &[2, 40]), record(21, &[1, 0]), verify]),
    ]
}

/// RTP, RTCP (reports, BYE, feedback, a compound packet), telephone events and STUN.
pub fn rtp_corpus() -> Vec<Vec<u8>> {
    let ssrc = 305_419_896u32.to_be_bytes();
    let rtp = |pt: u8, sequence: u8, payload: &[u8]| {
        [&[0x80, pt, 0, sequence, 0, 0, 3, 192][..], &ssrc, payload, &[0; 10]].concat()
    };
    let extended =
        [&[0x90, 111, 0, 1, 0, 0, 0, 1][..], &ssrc, &[0xBE, 0xDE, 0, 1, 0x10, 1, 0, 0], &[9; 20]]
            .concat();
    let rtcp = |kind: u8, count: u8, body: &[u8]| {
        let words = u16::try_from(body.len() / 4 + 1).expect("short").to_be_bytes();
        [&[0x80 | count, kind][..], &words, &ssrc, body].concat()
    };
    let report = rtcp(200, 0, &[1; 20]);
    vec![
        framed(
            0,
            &[
                rtp(111, 1, &[0x48, 1, 2]),
                rtp(126, 2, &[5, 10, 0, 160]),
                rtp(126, 3, &[5, 138, 0, 160]),
                extended,
            ],
        ),
        framed(
            1,
            &[report.clone(), rtcp(201, 1, &[2; 24]), rtcp(203, 1, &[]), rtcp(205, 15, &[3; 24])],
        ),
        framed(
            0,
            &[
                [report, rtcp(202, 1, &[1, 2, b'x', b'y', 0, 0, 0, 0])].concat(),
                rtcp(207, 0, &[4; 16]),
            ],
        ),
        framed(0, &stun_corpus()),
    ]
}

/// A caller's Opus packets, which are decoded to detect voice. The first byte selects the lost
/// packets.
pub fn opus(bytes: &[u8]) {
    let Some((first, rest)) = bytes.split_first() else { return };
    let (mut decoder, mut pcm) = (Decoder::new(Rate::Hz16000), Vec::new());
    for (n, packet) in pieces(rest).enumerate() {
        let lost = first >> (n % 8) & 1 == 1;
        for (packet, fec) in [(Some(packet), lost), ((!lost).then_some(packet), false)] {
            pcm.clear();
            let outcome = decoder.decode(packet, fec, &mut pcm);
            assert!(pcm.len() <= 1_920, "120 ms at most");
            assert_eq!(outcome.unwrap_or_default(), pcm.len(), "nothing of a packet that is none");
        }
    }
}

/// Opus packets of a tone, of noise and of silence, also several frames per packet.
pub fn opus_corpus() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::for_prompts();
    let samples = encoder.rate().frame();
    let sound = |n: usize, kind: usize| match kind {
        0 => i16::try_from((n * 2_000) % 20_000).unwrap_or_default(),
        1 => i16::from_be_bytes([
            n.wrapping_mul(97).to_le_bytes()[0],
            n.wrapping_mul(31).to_le_bytes()[0],
        ]),
        _ => 0,
    };
    let mut streams = Vec::new();
    for kind in 0..3 {
        let frame =
            |at: usize| (0..samples).map(|n| sound(at * samples + n, kind)).collect::<Vec<i16>>();
        let packets: Vec<Vec<u8>> = (0..8).map(|at| encoder.encode(&frame(at)).to_vec()).collect();
        // Code 3: an arbitrary number of frames in one packet (RFC 6716 §3.2.5).
        let toc = packets[0].first().copied().unwrap_or_default();
        let many =
            [&[toc | 3, 3][..], &[packets[0].get(1..).unwrap_or_default(); 3].concat()].concat();
        streams.push(framed(0b0010_0100, &packets));
        streams.push(framed(0, &[many]));
    }
    streams
}

/// An audio file that a document plays.
pub fn audio(bytes: &[u8]) {
    let (frames, outcome) = speech::decode_file(bytes);
    assert!(frames > 0 || outcome.is_err(), "silence is told");
    // The lowest bit rate (MP3) needs at least 32 bytes for 72 ms.
    assert!(frames <= bytes.len() * 4 + 100, "{frames} frames of {} bytes", bytes.len());
}

/// A complete configuration with recognisable secrets.
pub const CONFIGURATION: &str = r#"
[listen]
public = "0.0.0.0:8080"
media_ports = 8
trusted_proxies = ["10.0.0.0/8"]
[public]
base_url = "https://offhook.example.com"
media_ips = ["203.0.113.7"]
[meta]
app_secret = "CANARY-1"
app_secret_previous = "CANARY-2"
verify_token = "CANARY-3"
access_token = { env = "TOKEN" }
[limits]
calls_per_number = 100
default_cps = 50
[answer]
timeout_ms = 5000
max_body_bytes = 102400
[[account]]
auth_id = "MATESTOFFHOOK0000001"
auth_token = "CANARY-4"
api_keys = ["CANARY-5", { key = "CANARY-6", role = "agent" }]
cps = 10
[[waba]]
id = "1029384756"
account = "MATESTOFFHOOK0000001"
access_token = "CANARY-7"
[[number]]
number = "918035737458"
phone_number_id = "106540352242922"
waba = "1029384756"
calling_enabled = true
answer_url = "https://app.example.com/answer"
answer_method = "GET"
"#;

/// A configuration file.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // A configuration may name files, and a fuzzer should not open them.
    if text.contains("file") {
        return;
    }
    let env = BTreeMap::from([("TOKEN".to_owned(), "CANARY-8".to_owned())]);
    match Config::from_parts("offhook.toml", &text, &env, &|_| Ok(())) {
        Ok(config) => assert!(!format!("{config:?}").contains("CANARY"), "secrets are not shown"),
        Err(problems) => {
            assert!(!problems.0.is_empty());
            assert!(
                !problems.to_string().contains("CANARY-8"),
                "nor is what the environment holds"
            );
        }
    }
}

/// A customer's URL, and redirect targets relative to a valid one.
pub fn url(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for open in [false, true] {
        let guard = Guard::new(open, Vec::new());
        let base =
            CustomerUrl::parse("https://app.example.com/a/b?c=d", &guard).expect("a good URL");
        for taken in
            [CustomerUrl::parse(&text, &guard), base.join(&text, &guard)].into_iter().flatten()
        {
            judge_url(&taken, &guard, open);
        }
    }
}

fn judge_url(url: &CustomerUrl, guard: &Guard, open: bool) {
    let parsed = url.parsed();
    assert!(parsed.scheme() == "https" || (open && parsed.scheme() == "http"));
    assert!(
        parsed.username().is_empty() && parsed.password().is_none() && parsed.fragment().is_none()
    );
    let may = |ip: IpAddr| is_public(ip) || guard.check_ip(ip).is_ok();
    match parsed.host() {
        Some(Host::Ipv4(ip)) => assert!(may(ip.into()), "{ip}"),
        Some(Host::Ipv6(ip)) => assert!(may(ip.into()), "{ip}"),
        // Cross-check: addresses that the C library's resolver would accept without a DNS query.
        Some(Host::Domain(name)) => {
            assert!(name.parse::<IpAddr>().is_err(), "{name}");
            assert!(
                inet_aton(name).is_none_or(|ip| may(ip.into())),
                "{name} is an address after all"
            );
        }
        None => panic!("no host"),
    }
    // Cross-check: the HTTP client parses the text to the same host and port.
    let uri: http::Uri = match parsed.as_str().parse() {
        Ok(uri) => uri,
        // The HTTP client rejects the URL, so nothing is sent.
        Err(_) => return,
    };
    assert_eq!(uri.host(), parsed.host_str());
    assert_eq!(uri.port_u16(), parsed.port());
}

/// Parses addresses like BSD's `inet_aton`: one to four parts, decimal, octal or hexadecimal.
fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text
        .strip_suffix('.')
        .unwrap_or(text)
        .split('.')
        .map(|part| {
            let lower = part.to_ascii_lowercase();
            // Rejects a sign, which `from_str_radix` would accept.
            let digits = |text: &str, radix: u32| {
                let plain = text.chars().all(|c| c.is_digit(radix));
                plain.then(|| u64::from_str_radix(text, radix).ok()).flatten()
            };
            match lower.strip_prefix("0x") {
                Some("") => Some(0),
                Some(hex) => digits(hex, 16),
                None if lower.len() > 1 && lower.starts_with('0') => digits(&lower, 8),
                None => digits(&lower, 10),
            }
        })
        .collect::<Option<_>>()?;
    let (last, before) = parts.split_last()?;
    if before.len() > 3
        || before.iter().any(|part| *part > 255)
        || *last >= 1 << (8 * (4 - before.len()))
    {
        return None;
    }
    let high = before.iter().zip([24, 16, 8]).fold(0, |sum, (part, shift)| sum | part << shift);
    u32::try_from(high | last).ok().map(Ipv4Addr::from)
}

struct NoCalls;

impl Operator for NoCalls {
    fn reload(&self) -> BoxFuture<'static, ReloadOutcome> {
        Box::pin(async { ReloadOutcome::NoFile })
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn nodes(&self) -> BoxFuture<'static, Option<Vec<NodeStatus>>> {
        Box::pin(async { None })
    }

    fn drain(&self, _: &str) -> bool {
        false
    }

    fn forget(&self, _: &str) -> BoxFuture<'static, Result<ForgetOutcome, StoreError>> {
        Box::pin(async { Ok(ForgetOutcome::Unknown) })
    }

    fn node_id(&self) -> &str {
        "n1"
    }
}

impl CallPlacer for NoCalls {
    fn number(&self, _: &Scope, _: &E164) -> Option<Arc<NumberEntry>> {
        None
    }

    fn check_url(&self, text: &str) -> Result<DocUrl, String> {
        Ok(DocUrl(text.into()))
    }

    fn check_socket_url(&self, _: &str) -> Result<DocUrl, String> {
        Err("go there".to_owned())
    }

    fn place<'a>(&'a self, _: &'a CallOrder) -> BoxFuture<'a, Result<Vec<CallUuid>, NotPlaced>> {
        Box::pin(async { Err(NotPlaced::Draining) })
    }
}

impl LiveCalls for NoCalls {
    fn list(&self, _: &Scope) -> Vec<LiveCall> {
        Vec::new()
    }

    fn page(&self, _: &Scope, _: &LiveFilter, _: usize, _: usize) -> Vec<CallUuid> {
        Vec::new()
    }

    fn get(&self, _: &Scope, _: CallUuid) -> Option<LiveCall> {
        None
    }

    fn hang_up(&self, _: &Scope, _: CallUuid) -> bool {
        false
    }

    fn cancel<'a>(&'a self, _: &'a Scope, _: CallUuid) -> BoxFuture<'a, bool> {
        Box::pin(async { false })
    }

    fn command(&self, _: &Scope, _: CallUuid, _: Command) -> Result<(), CommandError> {
        Err(CommandError::NotLive)
    }

    fn streams(&self, _: &Scope, _: CallUuid) -> Vec<StreamView> {
        Vec::new()
    }

    fn start_stream(
        &self,
        _: &Scope,
        _: CallUuid,
        _: StreamId,
        _: StreamOrder,
    ) -> Result<bool, CommandError> {
        Err(CommandError::NotLive)
    }

    fn record(
        &self,
        _: &Scope,
        _: CallUuid,
        _: RecordingOrder,
        _: Option<Target>,
    ) -> Result<bool, CommandError> {
        Err(CommandError::NotLive)
    }

    fn is_recorded(&self, _: &Scope, _: CallUuid) -> bool {
        false
    }

    fn course(&self, _: &Scope, _: CallUuid) -> Option<engine::call::course::Course> {
        None
    }

    fn events(&self, _: &Scope, _: CallUuid, _: bool) -> Option<BoxStream<'static, Arc<str>>> {
        None
    }
}

struct Rest {
    runtime: tokio::runtime::Runtime,
    router: axum::Router,
    _dir: tempfile::TempDir,
}

fn rest_api() -> &'static Rest {
    static REST: OnceLock<Rest> = OnceLock::new();
    REST.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("tokio");
        let dir = tempfile::tempdir().expect("a folder");
        let store = runtime
            .block_on(Store::open(&dir.path().join("fuzz.db"), Health::new()))
            .expect("a store");
        let config =
            Config::from_parts("offhook.toml", CONFIGURATION, &BTreeMap::new(), &|_| Ok(()))
                .expect("good");
        let (book, ..) = Book::read(config.admission(), Vec::new(), Timestamp::default());
        let credentials = api::auth::Credentials::new(&book.credentials());
        let clock = Clock::real();
        // The directory is empty, so no request reaches Graph.
        let gate = Arc::new(Gate::new(Arc::new(Directory::new(10)), clock.now()));
        let graph = GraphConfig::new("http://127.0.0.1:9/v23.0", Secret::new("CANARY-6"));
        let graph = Arc::new(Graph::new(graph, clock.clone()).expect("a client"));
        let permissions =
            PermissionService::new(graph.clone(), Arc::new(Consents::new()), clock.clone());
        let (live, placer, operator) = (Arc::new(NoCalls), Arc::new(NoCalls), Arc::new(NoCalls));
        let host = "localhost".to_owned();
        let keeper = Keeper::open(
            store.clone(),
            Arc::new(Directory::new(10)),
            config.admission(),
            clock.wall(),
        );
        let keeper = runtime.block_on(keeper).expect("a book");
        let rooms = engine::call::rooms::Rooms::silent(clock.clone());
        let out = Egress::new(EgressConfig::new(Guard::new(false, Vec::new()))).expect("a client");
        let numbers = {
            let _inside = runtime.enter();
            let feed = engine::feed::Feed::new();
            engine::numbers::Numbers::new(engine::numbers::Parts {
                keeper: keeper.clone(),
                graph: graph.clone(),
                clock: clock.clone(),
                notices: engine::notices::Notices::new(store.clone(), feed.clone(), clock.clone()),
                feed,
                guard: Guard::new(false, Vec::new()),
                fetcher: answer::Fetcher::new(
                    out.clone(),
                    clock.clone(),
                    answer::RandomSource::system(),
                ),
                sip_host: "phones.example.com".to_owned(),
                tasks: Default::default(),
            })
        };
        let notifier =
            answer::Notifier::new(out.clone(), clock.clone(), answer::RandomSource::system(), 1);
        let (node_id, nobody) = ("fuzz".to_owned(), Arc::new(Directory::new(10)));
        let outbox = call::Outbox::new(
            store.clone(),
            notifier,
            nobody,
            clock.clone(),
            node_id.clone(),
            Default::default(),
        );
        let (data_dir, base_url) = (dir.path().to_owned(), "http://localhost".to_owned());
        let space =
            engine::disk_space::DiskSpace::new(dir.path(), None, Box::new(|| false), clock.clone());
        let recognisers =
            speech::recognise::Recognisers::new(&Default::default()).expect("none is named");
        let kept = call::RecordingsConfig {
            data_dir,
            base_url,
            node_id,
            threads: 1,
            copies: None,
            recognisers,
            link_lifetime: None,
            space: space.clone(),
        };
        let (random, tasks) = (answer::RandomSource::system(), Default::default());
        let recordings = {
            let _inside = runtime.enter();
            call::Recordings::start(
                kept,
                store.clone(),
                outbox.clone(),
                clock.clone(),
                random,
                tasks,
            )
            .expect("a folder")
        };
        let agents = engine::agents::Agents::new(engine::agents::AgentsParts {
            store: store.clone(),
            directory: Arc::new(Directory::new(10)),
            notices: engine::notices::Notices::new(
                store.clone(),
                engine::feed::Feed::new(),
                clock.clone(),
            ),
            egress: out.clone(),
            model_egress: out.clone(),
            model: None,
            clock: clock.clone(),
        });
        let feed = engine::feed::Feed::new();
        let inbox = engine::inbox::Inbox::new(engine::inbox::InboxParts {
            store: store.clone(),
            outbox,
            directory: Arc::new(Directory::new(10)),
            graph,
            notices: engine::notices::Notices::new(store.clone(), feed.clone(), clock.clone()),
            feed: feed.clone(),
            clock: clock.clone(),
            node_id: "fuzz".to_owned(),
            base_url: "http://localhost".to_owned(),
            media: dir.path().join("messages"),
            space: space.clone(),
            consents: Arc::new(Consents::new()),
            tasks: Default::default(),
            stop: tokio_util::sync::CancellationToken::new(),
        });
        let people = engine::people::People::new(
            store.clone(),
            Default::default(),
            clock.clone(),
            feed.clone(),
            engine::limiter::Failures::new(None, std::time::Duration::ZERO),
        );
        let (prompts, models) = {
            use speech::recognise::Recognisers;
            let _inside = runtime.enter();
            let data_dir = dir.path().to_owned();
            let config = speech::config::SpeechConfig { data_dir, ..Default::default() };
            let (handle, files) = (runtime.handle().clone(), Arc::new(out.clone()));
            let library =
                speech::library::Library::new(config.clone(), clock.clone(), handle, files)
                    .expect("no endpoints");
            let recognisers = Recognisers::new(&config).expect("no endpoints");
            let models = speech::model_manager::ModelManager::new(
                config,
                library.clone(),
                recognisers,
                None,
            );
            (library, models)
        };
        let eraser = engine::erasure::Eraser::new(engine::erasure::ErasureParts {
            store: store.clone(),
            recordings: recordings.clone(),
            prompts,
            inbox: inbox.clone(),
            consents: Arc::new(Consents::new()),
            keeper: keeper.clone(),
            clock: clock.clone(),
        });
        let apis = Apis::new(Api {
            clock,
            feed,
            numbers,
            inbox,
            credentials,
            store,
            live,
            placer,
            operator,
            gate,
            host,
            keeper,
            permissions,
            passwords: Default::default(),
            people,
            base_url: "http://localhost".to_owned(),
            phones: Default::default(),
            rooms,
            models,
            recordings,
            space,
            agents,
            offenders: None,
            eraser,
        });
        Rest { runtime, router: apis.router(), _dir: dir }
    })
}

/// An authenticated API request: method, target, a newline, the body.
pub fn rest(bytes: &[u8]) {
    use base64::Engine as _;
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let (line, body) = bytes.split_at(end);
    let line = String::from_utf8_lossy(line);
    let Some((method, target)) = line.split_once(' ') else { return };
    let basic = base64::engine::general_purpose::STANDARD.encode("MATESTOFFHOOK0000001:CANARY-4");
    let request = Request::builder()
        .method(method)
        .uri(target)
        .header("authorization", format!("Basic {basic}"))
        .header("x-api-key", "CANARY-5")
        .body(axum::body::Body::from(body.get(1..).unwrap_or_default().to_vec()));
    let Ok(request) = request else { return };
    let api = rest_api();
    let (head, body) = api.runtime.block_on(async {
        let (head, body) =
            api.router.clone().oneshot(request).await.expect("an answer").into_parts();
        (head, body.collect().await.expect("a body").to_bytes())
    });
    let text = String::from_utf8_lossy(&body);
    assert!(head.status.as_u16() < 500, "{}: {text}", head.status);
    assert!(!text.contains("CANARY") && !text.contains("SQL") && !text.contains("/src/"), "{text}");
    if !body.is_empty() {
        serde_json::from_slice::<serde_json::Value>(&body).expect("JSON");
    }
}

/// The event log of a call.
pub fn event_log(bytes: &[u8]) {
    let mut steps = 0u64;
    if let Ok(replayed) = machine::replay::replay(bytes, |_| steps += 1) {
        assert_eq!(replayed.same + u64::from(replayed.difference.is_some()), steps);
    }
}

/// The query of a webhook verification, also parsed as a URL fragment; then a newline and a
/// signature.
pub fn webhook_request(bytes: &[u8]) {
    let secrets =
        Secrets::new(&Secret::new("app"), Some(&Secret::new("before")), Secret::new("token"));
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let (query, signature) = bytes.split_at(end);
    let query = String::from_utf8_lossy(query);
    if secrets.challenge(&query).is_some() {
        assert!(query.contains("token"));
    }
    let (settings, passed_over) = answer::Settings::of(Some(&query));
    assert!(settings.retries <= 5 && passed_over.len() <= query.len() + 1);
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(signature.get(1..).unwrap_or_default()) {
        headers.append("x-hub-signature-256", value);
    }
    assert!(!secrets.signed(&headers, bytes));
}

/// Messages of a stream's server, one per line.
pub fn stream_message(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let trial = engine::stream::read_messages(text.lines());
    // A sample takes at least one byte (µ-law), and each message may end in a partial frame.
    assert!(trial.frames <= text.len() / 160 + trial.outcomes.len() + 1, "{} frames", trial.frames);
    assert!(trial.frames <= 40 * 50, "what waits is bounded");
    assert!(
        trial.checkpoints.iter().all(|name| name.chars().count() <= 256)
            && trial.checkpoints.len() <= 1_000
    );
    assert!(trial.keys.chars().all(|key| "0123456789*#wW".contains(key)));
    assert_eq!(trial.outcomes.len(), text.lines().count());
    for code in trial.outcomes.into_iter().filter_map(Result::err) {
        assert!(
            !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'),
            "{code}"
        );
    }
}

/// The answer of a recogniser over HTTP, and its WebSocket messages, one per line.
pub fn recogniser(bytes: &[u8]) {
    use speech::config::WebSocketProtocol;
    use speech::recognise::{parse_messages, parse_response};
    let is_bounded = |text: &str| {
        assert!(
            text.chars().count() <= 4_096
                && !text.contains(char::is_control)
                && text.trim() == text,
            "{text:?}"
        );
    };
    if let Ok(recognised) = parse_response(bytes) {
        is_bounded(&recognised.text);
        assert!(recognised.confidence <= 100);
    }
    let text = String::from_utf8_lossy(bytes);
    for protocol in
        [WebSocketProtocol::Vosk, WebSocketProtocol::Deepgram, WebSocketProtocol::AssemblyAi]
    {
        let Ok((recognised, interim)) = parse_messages(protocol, text.lines()) else { continue };
        is_bounded(&recognised.text);
        assert!(recognised.confidence <= 100 && interim.len() <= text.lines().count());
        for now in interim {
            is_bounded(&now.stable);
            is_bounded(&now.unstable);
            assert!(now.stability <= 100 && !(now.stable.is_empty() && now.unstable.is_empty()));
        }
    }
}
