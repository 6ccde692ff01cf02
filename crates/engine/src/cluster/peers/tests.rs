use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const ONE: Uuid = Uuid::from_u128(1);
const TWO: Uuid = Uuid::from_u128(2);

/// Answers with who has asked, the path and the size of the body. `/hang` is never answered,
/// `/large` has a body of 10 MiB, and `/most` one of [`BODY_MAX`].
struct Echo;

impl PeerHandler for Echo {
    fn handle(&self, from: Uuid, request: Request<Bytes>) -> BoxFuture<'static, Response<Body>> {
        let text = format!("{from} {} {}", request.uri().path(), request.body().len());
        match request.uri().path() {
            "/hang" => std::future::pending().boxed(),
            "/most" => async { Response::new(Body::from(vec![7; BODY_MAX])) }.boxed(),
            "/large" => async { Response::new(Body::from(vec![7; 10 << 20])) }.boxed(),
            _ => async move { Response::new(Body::from(text)) }.boxed(),
        }
    }

    /// Sends back what comes.
    fn serve_seats(&self, _: Uuid, mut stream: Box<dyn ByteStream>) -> BoxFuture<'static, ()> {
        async move {
            let (mut reader, mut writer) = tokio::io::split(&mut stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
        .boxed()
    }
}

async fn peers() -> Peers {
    peers_with(PeerTimes { request: Duration::from_millis(500), ..PeerTimes::default() }).await
}

/// Peers that do not answer yet.
async fn bind(moved: Option<MovedPeers>) -> Peers {
    let times = PeerTimes::default();
    Peers::bind("127.0.0.1:0", None, times, Clock::real(), moved).await.unwrap()
}

async fn peers_with(times: PeerTimes) -> Peers {
    let peers = Peers::bind("127.0.0.1:0", None, times, Clock::real(), None).await.unwrap();
    peers.serve(Arc::new(Echo)).unwrap();
    peers
}

fn listed(run: Uuid, peers: &Peers) -> PeerAddress {
    PeerAddress { run, address: peers.address().to_owned(), pin: peers.pin() }
}

/// Two members that hear each other.
async fn pair() -> (Peers, Peers) {
    let (one, two) = (peers().await, peers().await);
    one.set_members(vec![listed(TWO, &two)]);
    two.set_members(vec![listed(ONE, &one)]);
    until(&one, TWO, Link::Up).await;
    until(&two, ONE, Link::Up).await;
    (one, two)
}

async fn until(peers: &Peers, run: Uuid, link: Link) {
    while peers.link(run) != link {
        tokio::task::yield_now().await;
    }
}

fn request(path: &'static str, body: usize) -> Request<Bytes> {
    Request::post(path).body(Bytes::from(vec![1; body])).unwrap()
}

#[tokio::test]
async fn members_answer_each_other() {
    let (one, two) = pair().await;
    let answer = one.send(TWO, request("/some", 3)).await.unwrap();
    assert_eq!(answer.body(), format!("{ONE} /some 3").as_bytes());
    let answer = two.send(ONE, request("/other", 0)).await.unwrap();
    assert_eq!(answer.body(), format!("{TWO} /other 0").as_bytes());
    assert_eq!((one.sees(), two.sees()), (vec![TWO], vec![ONE]));
    // A streamed response has no limit, and one that is read as a whole has.
    let large = one.open(TWO, request("/large", 0)).await.unwrap();
    assert_eq!(large.into_body().collect().await.unwrap().to_bytes().len(), 10 << 20);
    assert_eq!(one.send(TWO, request("/large", 0)).await.unwrap_err(), PeerError::TooLarge);
    assert_eq!(one.send(TWO, request("/", BODY_MAX + 1)).await.unwrap_err(), PeerError::TooLarge);
    assert_eq!(one.send(ONE, request("/", 0)).await.unwrap_err(), PeerError::Unknown);
}

#[tokio::test]
async fn f09_a_request_waits_a_limited_time_and_their_number_is_limited() {
    let (one, _two) = pair().await;
    assert_eq!(one.send(TWO, request("/hang", 0)).await.unwrap_err(), PeerError::TimedOut);
    let waiting: Vec<_> = (0..REQUESTS_MAX)
        .map(|_| {
            let one = one.clone();
            tokio::spawn(async move { one.send(TWO, request("/hang", 0)).await })
        })
        .collect();
    let member = one.0.member(TWO).unwrap();
    while member.requests.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(one.send(TWO, request("/quick", 0)).await.unwrap_err(), PeerError::Busy);
    for task in waiting {
        assert_eq!(task.await.unwrap().unwrap_err(), PeerError::TimedOut);
    }
    assert!(one.send(TWO, request("/after", 0)).await.is_ok());
}

#[tokio::test]
async fn responses_that_nobody_reads_delay_no_others() {
    let (one, _two) = pair().await;
    let mut unread = Vec::new();
    for _ in 0..STREAMED_MAX {
        unread.push(one.open(TWO, request("/large", 0)).await.unwrap());
    }
    assert_eq!(one.open(TWO, request("/large", 0)).await.unwrap_err(), PeerError::Busy);
    for _ in 0..8 {
        let large = one.send(TWO, request("/most", 0)).await.unwrap();
        assert_eq!(large.body().len(), BODY_MAX);
    }
    unread.clear();
    assert!(one.open(TWO, request("/large", 0)).await.is_ok());
}

#[tokio::test]
async fn a_connection_for_seats_ends_with_the_membership() {
    let (one, two) = pair().await;
    let mut stream = one.connect_seats(TWO).await.unwrap();
    stream.write_all(b"packets").await.unwrap();
    let mut back = [0; 7];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"packets");
    two.set_members(Vec::new());
    assert_eq!(stream.read_to_end(&mut Vec::new()).await.unwrap_or(0), 0);
    assert_eq!(two.connect_seats(ONE).await.err(), Some(PeerError::Unknown));
}

#[tokio::test]
async fn f50_strangers_get_no_answer() {
    let (one, two) = pair().await;
    // A certificate that is no member's.
    let stranger = peers().await;
    stranger.set_members(vec![listed(ONE, &one)]);
    let mut refused = one.send(TWO, request("/", 0)).await.is_err();
    for _ in 0..20 {
        refused |= stranger.send(ONE, request("/", 0)).await.is_ok();
    }
    assert!(!refused);
    // Another certificate than the one in the table.
    let wrong = PeerAddress { pin: stranger.pin(), ..listed(TWO, &two) };
    one.set_members(vec![wrong]);
    assert_eq!(one.send(TWO, request("/", 0)).await.unwrap_err(), PeerError::Unreachable);
    // Garbage, and no TLS at all.
    for bytes in [
        &[0xff; 4096][..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff",
    ] {
        #[allow(clippy::disallowed_methods, reason = "a stranger")]
        let mut stream = TcpStream::connect(two.address()).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.windows(4).any(|part| part == b"HTTP"), "{answer:?}");
    }
    one.set_members(vec![listed(TWO, &two)]);
    until(&one, TWO, Link::Up).await;
    assert!(one.send(TWO, request("/", 0)).await.is_ok());
}

#[tokio::test]
async fn f50_silent_connections_of_one_address_keep_no_member_out() {
    let patient = PeerTimes { handshake: Duration::from_secs(3_600), ..PeerTimes::default() };
    let (one, two) = (peers().await, peers_with(patient).await);
    let port = two.address().rsplit(':').next().unwrap().parse().unwrap();
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS_MAX * 3 {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.9:0".parse().unwrap()).unwrap();
        #[allow(clippy::disallowed_methods, reason = "a stranger")]
        silent.push(socket.connect(([127, 0, 0, 1], port).into()).await.unwrap());
    }
    one.set_members(vec![listed(TWO, &two)]);
    two.set_members(vec![listed(ONE, &one)]);
    // The first of the silent ones have made room.
    assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
    until(&one, TWO, Link::Up).await;
    assert!(one.send(TWO, request("/", 0)).await.is_ok());
}

#[tokio::test]
async fn f26_a_process_that_has_ended_is_refused_and_comes_back() {
    let (one, two) = pair().await;
    let address = two.address().to_owned();
    drop(two);
    until(&one, TWO, Link::Refused).await;
    assert_eq!(one.send(TWO, request("/", 0)).await.unwrap_err(), PeerError::Unreachable);
    // Another process at the address has another certificate.
    let third =
        Peers::bind(&address, None, PeerTimes::default(), Clock::real(), None).await.unwrap();
    third.serve(Arc::new(Echo)).unwrap();
    third.set_members(vec![listed(ONE, &one)]);
    until(&one, TWO, Link::Silent).await;
    one.set_members(vec![listed(TWO, &third)]);
    until(&one, TWO, Link::Up).await;
}

/// Announces that another process takes over, and then executes nothing.
struct Leaving;

impl PeerHandler for Leaving {
    fn handle(&self, _: Uuid, _: Request<Bytes>) -> BoxFuture<'static, Response<Body>> {
        async { Peers::moving() }.boxed()
    }

    fn serve_seats(&self, _: Uuid, _: Box<dyn ByteStream>) -> BoxFuture<'static, ()> {
        async {}.boxed()
    }
}

/// Takes the listener and the certificate of a process that ends.
async fn take_over(old: &Peers) -> MovedPeers {
    let listener = std::net::TcpListener::from(old.listener().unwrap().unwrap());
    listener.set_nonblocking(true).unwrap();
    MovedPeers {
        listener: TcpListener::from_std(listener).unwrap(),
        identity: old.hand_over().await,
    }
}

#[tokio::test]
async fn f40_requests_wait_for_the_process_that_takes_over() {
    let (one, old) = (peers().await, bind(None).await);
    old.serve(Arc::new(Leaving)).unwrap();
    one.set_members(vec![listed(TWO, &old)]);
    old.set_members(vec![listed(ONE, &one)]);
    until(&one, TWO, Link::Up).await;
    let (sender, at) = (one.clone(), listed(TWO, &old));
    let mut waiting = tokio::spawn(async move { sender.send(TWO, request("/some", 3)).await });
    let member = one.0.member(TWO).unwrap();
    while !member.is_moving(one.0.clock.now()) {
        tokio::task::yield_now().await;
    }
    let moved = take_over(&old).await;
    until(&one, TWO, Link::Silent).await;
    assert!((&mut waiting).now_or_never().is_none(), "it waits");
    let new = bind(Some(moved)).await;
    new.set_members(vec![listed(ONE, &one)]);
    new.serve(Arc::new(Echo)).unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().body(), format!("{ONE} /some 3").as_bytes());
    assert_eq!(listed(TWO, &new), at, "the address and certificate are the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn f40_no_request_is_lost_when_another_process_takes_over() {
    let patient = PeerTimes { request: Duration::from_secs(60), ..PeerTimes::default() };
    for _ in 0..10 {
        let (one, old) = (peers_with(patient).await, bind(None).await);
        old.serve(Arc::new(Leaving)).unwrap();
        // A process closes connections of processes that it does not know.
        old.set_members(vec![listed(ONE, &one)]);
        one.set_members(vec![listed(TWO, &old)]);
        until(&one, TWO, Link::Up).await;
        // They are sent again and again, also while the connection is being closed.
        let waiting: Vec<_> = (0..64)
            .map(|_| {
                let one = one.clone();
                tokio::spawn(async move { one.send(TWO, request("/some", 3)).await })
            })
            .collect();
        let member = one.0.member(TWO).unwrap();
        while !member.is_moving(one.0.clock.now()) {
            tokio::task::yield_now().await;
        }
        let new = bind(Some(take_over(&old).await)).await;
        new.set_members(vec![listed(ONE, &one)]);
        new.serve(Arc::new(Echo)).unwrap();
        for request in waiting {
            assert_eq!(request.await.unwrap().err(), None);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_request_ends_when_its_connection_does() {
    let ms = Duration::from_millis;
    let times = PeerTimes { request: ms(20_000), retry: ms(1), ..PeerTimes::default() };
    let (one, two) = (peers_with(times).await, peers_with(times).await);
    one.set_members(vec![listed(TWO, &two)]);
    let stop = CancellationToken::new();
    let senders: Vec<_> = (0..16)
        .map(|_| {
            let (one, stop) = (one.clone(), stop.clone());
            tokio::spawn(async move {
                while !stop.is_cancelled() {
                    let sent = one.send(TWO, request("/some", 3)).await;
                    assert!(matches!(sent, Ok(_) | Err(PeerError::Unreachable)), "{sent:?}");
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for _ in 0..150 {
        two.set_members(vec![listed(ONE, &one)]);
        until(&one, TWO, Link::Up).await;
        // The connection is closed.
        two.set_members(Vec::new());
        until(&one, TWO, Link::Silent).await;
    }
    stop.cancel();
    for sender in senders {
        sender.await.unwrap();
    }
}

#[tokio::test]
async fn a_run_that_is_no_member_any_more_is_disconnected() {
    let (one, two) = pair().await;
    one.set_members(Vec::new());
    assert_eq!(one.send(TWO, request("/", 0)).await.unwrap_err(), PeerError::Unknown);
    until(&two, ONE, Link::Silent).await;
    assert!(one.sees().is_empty());
}
