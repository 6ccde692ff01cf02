//! Upgrades of a node that carries calls, requests and webhooks: whether anything is lost or
//! doubled, and how long callers hear nothing. `.ci/upgrades` measures it with more calls.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use model::Clock;
use sim::{
    ArrivalReport, Arrivals, CallEventKind, CallEvents, CallScript, HangupRule, PhoneKind, Sim,
    caller,
};
use tokio::task::JoinSet;

use super::upgrade::{World, end, text, until};
use crate::support::app::App;
use crate::support::chat::message_body;
use crate::support::database::counts;
use crate::support::node::{APP_SECRET, AUTH_ID, Node, NodeConfig, basic, program, sim_options};
use crate::support::{figures, http, sign};

/// Number of keys that a menu takes.
pub const KEYS: usize = 4;
/// Interval of requests of each kind.
const REQUEST_INTERVAL: Duration = Duration::from_millis(50);
/// Number of times that a webhook is delivered before it counts as failed.
const DELIVERIES_MAX: usize = 4;
/// Number of calls that are placed at the same time at the beginning.
const PLACED_AT_ONCE: usize = 20;
/// Interval between them, because an account has 100 calls per second.
const PLACING_INTERVAL: Duration = Duration::from_millis(300);
/// The goal for the 99th percentile of the longest gap of each call at each upgrade.
const GAP_MAX: Duration = Duration::from_millis(60);

/// A menu with a prompt that is longer than the wait for keys.
const MENU: &str = "<Response><GetInput action=\"ACTION\" numDigits=\"4\" digitEndTimeout=\"10\" executionTimeout=\"60\">\
    <Speak loop=\"30\">Please enter the four digits of your order.</Speak></GetInput></Response>";

/// The digits that the application got, by the caller's number.
pub type Received = Arc<Mutex<BTreeMap<String, String>>>;

/// A caller who presses 0123456789 again and again.
pub struct Caller {
    pub from: String,
    pub events: CallEvents,
    pub arrivals: Arc<Arrivals>,
    pub pressed: usize,
}

impl Caller {
    pub fn place(sim: &Sim, from: String) -> Self {
        let arrivals = Arc::new(Arrivals::default());
        let events = sim.place_call(CallScript {
            from: from.clone(),
            phone: PhoneKind::Counting,
            hangup: HangupRule::Never,
            arrivals: Some(arrivals.clone()),
            ..CallScript::default()
        });
        Self { from, events, arrivals, pressed: 0 }
    }

    /// Enters the keys of one menu after a pause of `waits` half seconds. Returns false if the call
    /// has ended.
    pub async fn enter_keys(&mut self, waits: usize) -> bool {
        let mut keys = "w".repeat(waits);
        keys.extend((self.pressed..self.pressed + KEYS).map(digit));
        self.events.control().press(caller::parse_keys(&keys).expect("keys")).await;
        let mut left = KEYS;
        while left > 0 {
            match self.events.next().await.map(|event| event.kind) {
                Some(CallEventKind::DigitSent { .. }) => left -= 1,
                Some(CallEventKind::Ended(outcome)) => {
                    report(&format!("{} lost: {outcome:?}", self.from));
                    return false;
                }
                Some(_) => {}
                None => return false,
            }
        }
        self.pressed += KEYS;
        true
    }

    /// Waits until the application has got as many digits as were pressed.
    pub async fn until_received(&self, received: &Received) {
        let mut every = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..500 {
            every.tick().await;
            if received.lock().unwrap().get(&self.from).map_or(0, String::len) >= self.pressed {
                return;
            }
        }
        report(&format!("digits of {} are missing after 10 s", self.from));
    }

    /// Enters keys until `stop`, and hangs up. Waits until the application has got the keys of a
    /// menu, since keys that are pressed between two documents do not count.
    async fn run(mut self, received: Received, stop: Arc<AtomicBool>, nr: usize) -> CallResult {
        let mut is_live = true;
        while is_live && !stop.load(Ordering::Relaxed) {
            is_live = self.enter_keys(nr % 4).await;
            self.until_received(&received).await;
        }
        let mut is_lost = !is_live;
        if is_live {
            self.events.control().hangup().await;
            is_lost = !end(self.events).await.ok;
        }
        let got = received.lock().unwrap().get(&self.from).cloned().unwrap_or_default();
        CallResult { is_lost, digits: Digits::of(&got, self.pressed) }
    }
}

fn digit(nr: usize) -> char {
    char::from_digit(u32::try_from(nr % 10).unwrap_or_default(), 10).expect("a digit")
}

struct CallResult {
    is_lost: bool,
    digits: Digits,
}

/// The number of digits that a caller pressed, and how many of them the application missed or got
/// twice.
#[derive(Debug, Default, PartialEq, Eq)]
struct Digits {
    pressed: usize,
    lost: usize,
    doubled: usize,
}

impl Digits {
    /// Compares the digits that the application got with those that were pressed.
    fn of(got: &str, pressed: usize) -> Self {
        let mut digits = Self { pressed, ..Self::default() };
        let mut next = 0;
        for one in got.chars().filter_map(|one| one.to_digit(10)) {
            let one = usize::try_from(one).unwrap_or_default();
            match (10 + one - next % 10) % 10 {
                // More than half of a round ahead is a digit of the past.
                6.. => digits.doubled += 1,
                skipped => {
                    digits.lost += skipped;
                    next += skipped + 1;
                }
            }
        }
        digits.lost += pressed.saturating_sub(next);
        digits.doubled += next.saturating_sub(pressed);
        digits
    }

    fn add(&mut self, other: &Self) {
        self.pressed += other.pressed;
        self.lost += other.lost;
        self.doubled += other.doubled;
    }
}

#[test]
fn digits_that_are_missing_and_that_come_twice_are_counted() {
    let of = |got, pressed| {
        let Digits { lost, doubled, .. } = Digits::of(got, pressed);
        (lost, doubled)
    };
    assert_eq!(of("012345678901", 12), (0, 0));
    assert_eq!(of("0124", 5), (1, 0));
    assert_eq!(of("01223", 4), (0, 1));
    assert_eq!(of("01230123", 4), (0, 4));
    assert_eq!(of("", 4), (4, 0));
}

/// Requests that are sent all the time, and how they fare.
#[derive(Default)]
struct Requests {
    sent: AtomicUsize,
    longest_us: AtomicUsize,
    /// Requests that were sent again because the node had closed the idle connection, and webhooks
    /// that it asked to be delivered again.
    resent: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Requests {
    /// Sends requests until `stop`, without waiting for their answers.
    async fn run<F>(self: Arc<Self>, stop: Arc<AtomicBool>, request: impl Fn(usize) -> F)
    where
        F: Future<Output = Result<u16, String>> + Send + 'static,
    {
        let mut every = tokio::time::interval(REQUEST_INTERVAL);
        let mut running = JoinSet::new();
        while !stop.load(Ordering::Relaxed) {
            every.tick().await;
            let (requests, request) =
                (self.clone(), request(self.sent.fetch_add(1, Ordering::Relaxed)));
            running.spawn(async move {
                let begun = Clock::real().now();
                let outcome = request.await;
                let took = Clock::real().now().duration_since(begun).as_micros();
                let took = usize::try_from(took).unwrap_or(usize::MAX);
                requests.longest_us.fetch_max(took, Ordering::Relaxed);
                if outcome != Ok(200) {
                    requests.failures.lock().unwrap().push(format!("{outcome:?}"));
                }
            });
        }
        running.join_all().await;
    }
}

/// Sends a request over a connection that is kept if possible. If the node has just closed it,
/// sends the request again, as clients do (RFC 9112, section 9.3.1). Another kept connection may be
/// closed at the same moment, so this is over a new one.
async fn kept(
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    requests: Arc<Requests>,
) -> Result<u16, String> {
    let request = ::http::Request::get(&url).header("authorization", basic());
    let request = client.request(request.body(Full::default()).expect("a request"));
    let Ok(response) = request.await else {
        requests.resent.fetch_add(1, Ordering::Relaxed);
        return fresh("GET", url, ("authorization", basic()), String::new()).await;
    };
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
    answered(parts.status.as_u16(), &body)
}

/// Returns the status, with the body if it is an error.
fn answered(status: u16, body: &[u8]) -> Result<u16, String> {
    if status == 200 { Ok(status) } else { Err(format!("{status} {}", text(body))) }
}

/// Delivers a webhook, again if the node asks for that, as Meta does. A node asks for it if its
/// disk takes some seconds to write.
async fn deliver(url: String, body: String, requests: Arc<Requests>) -> Result<u16, String> {
    let signature = sign(APP_SECRET, body.as_bytes());
    let mut deliveries = 1;
    loop {
        let header = ("x-hub-signature-256", signature.clone());
        match fresh("POST", url.clone(), header, body.clone()).await {
            Err(error) if deliveries < DELIVERIES_MAX && error.starts_with("503") => {
                deliveries += 1;
                requests.resent.fetch_add(1, Ordering::Relaxed);
            }
            outcome => return outcome,
        }
    }
}

async fn fresh(
    method: &'static str,
    url: String,
    header: (&'static str, String),
    body: String,
) -> Result<u16, String> {
    let headers = [(header.0, &*header.1)];
    http::try_send(method, &url, &headers, body)
        .await
        .and_then(|answer| answered(answer.status, &answer.body))
}

/// The kinds of requests that are sent during the upgrades.
const KINDS: [&str; 4] = ["REST, new connections", "REST, kept connection", "webhooks", "/readyz"];

/// Sends all kinds of requests until `stop`.
fn send_requests(
    node: &Node,
    stop: &Arc<AtomicBool>,
    to: &[Arc<Requests>; 4],
    all: &mut JoinSet<()>,
) {
    let [rest, kept_rest, webhooks, ready] = to.clone();
    let list = format!("{}/v1/Account/{AUTH_ID}/Call/?limit=1", node.public);
    let url = list.clone();
    all.spawn(rest.run(stop.clone(), move |_| {
        fresh("GET", url.clone(), ("authorization", basic()), String::new())
    }));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let requests = kept_rest.clone();
    all.spawn(
        kept_rest.run(stop.clone(), move |_| kept(client.clone(), list.clone(), requests.clone())),
    );
    let url = format!("{}/webhooks/meta", node.public);
    let requests = webhooks.clone();
    all.spawn(webhooks.run(stop.clone(), move |nr| {
        let message = serde_json::json!({"type": "text", "text": {"body": "Hello"}});
        let body = message_body("919412340000", &format!("wamid.{nr}"), message);
        deliver(url.clone(), body, requests.clone())
    }));
    let url = format!("{}/readyz", node.admin);
    all.spawn(ready.run(stop.clone(), move |_| {
        fresh("GET", url.clone(), ("accept", "*/*".to_owned()), String::new())
    }));
}

#[allow(clippy::print_stderr, reason = "figures")]
pub fn report(line: &str) {
    eprintln!("{line}");
}

/// Starts a node with an application that takes digits.
pub async fn start(calls: usize) -> Option<(World, Received)> {
    let (app, received) = (App::start().await, Received::default());
    let menu = MENU.replace("ACTION", &app.url("/menu"));
    app.xml("/answer", menu.clone()).xml("/hangup", "");
    let to = received.clone();
    app.route("/menu", move |request| {
        let mut received = to.lock().unwrap();
        received
            .entry(request.param("From").to_owned())
            .or_default()
            .push_str(request.param("Digits"));
        (200, menu.clone())
    });
    let sim = Sim::start(sim::SimOptions { relays: sim::LOAD_RELAYS, ..sim_options() })
        .await
        .expect("a Meta");
    let mut config = NodeConfig::new(&sim.graph_url(), &app.url("/answer"));
    config.hangup_url = app.url("/hangup");
    config.limits = format!("calls_per_number = {}", calls + 1);
    let node = Node::start(&config).await;
    sim.set_node_url(node.public.clone());
    Some((World::of(node, sim, app).await?, received))
}

/// Gaps of all calls in the periods with and without an upgrade.
#[derive(Default)]
struct Gaps {
    upgrading: Vec<Duration>,
    quiet: Vec<Duration>,
    reused_indexes: u64,
    repeated_datagrams: u64,
}

impl Gaps {
    fn take(&mut self, arrivals: &[Arc<Arrivals>], now: Instant, is_upgrading: bool) {
        let to = if is_upgrading { &mut self.upgrading } else { &mut self.quiet };
        for one in arrivals {
            let ArrivalReport { longest_gap, reused_indexes, repeated_datagrams, .. } =
                one.take(now);
            to.push(longest_gap);
            self.reused_indexes += reused_indexes;
            self.repeated_datagrams += repeated_datagrams;
        }
    }
}

/// The figures of a list in milliseconds: p50, p99, maximum.
pub fn percentiles(times: &mut [Duration]) -> [f64; 3] {
    times.sort_unstable();
    let at = |share: usize| {
        let nr = (times.len() * share).div_ceil(100).max(1) - 1;
        times.get(nr).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
    };
    [at(50), at(99), at(100)]
}

/// Waits until each call has entered another menu.
async fn until_all_entered(received: &Received, calls: usize) {
    let counts = || {
        let received = received.lock().unwrap();
        received
            .iter()
            .map(|(from, digits)| (from.clone(), digits.len()))
            .collect::<BTreeMap<_, _>>()
    };
    let before = counts();
    let mut every = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..400 {
        every.tick().await;
        let now = counts();
        let is_further = |(from, n): (&String, &usize)| before.get(from).is_none_or(|old| n > old);
        if now.len() >= calls && now.iter().all(is_further) {
            return;
        }
    }
    report("some calls have entered no menu for 20 s");
}

/// Waits until all calls are over, and returns the number of hangup callbacks.
pub async fn hangups(world: &World, calls: usize) -> usize {
    world.node.until_metric("offhook_calls_active", &[], 0.0).await;
    let mut every = tokio::time::interval(Duration::from_millis(100));
    for _ in 0..300 {
        every.tick().await;
        if world.app.count("/hangup") >= calls {
            break;
        }
    }
    world.app.count("/hangup")
}

/// Upgrades a node with `calls` live calls, `upgrades` times in a row, and prints the figures.
async fn measure(calls: usize, upgrades: usize) {
    let Some((mut world, received)) = start(calls).await else { return };
    let clock = Clock::real();
    let sim = world.sim.take().expect("a simulated Meta");
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    let mut placing = tokio::time::interval(PLACING_INTERVAL);
    for nr in 0..calls {
        if callers.len() % PLACED_AT_ONCE == 0 {
            placing.tick().await;
        }
        callers.push(Caller::place(&sim, format!("9194{nr:08}")));
        if callers.len() % PLACED_AT_ONCE == 0 || callers.len() == calls {
            let first = (callers.len() - 1) / PLACED_AT_ONCE * PLACED_AT_ONCE;
            for caller in &mut callers[first..] {
                until(&mut caller.events, |event| *event == CallEventKind::FirstAudio).await;
            }
        }
    }
    let arrivals: Vec<_> = callers.iter().map(|caller| caller.arrivals.clone()).collect();
    let mut running = JoinSet::new();
    for (nr, caller) in callers.into_iter().enumerate() {
        running.spawn(caller.run(received.clone(), stop.clone(), nr));
    }
    let requests: [Arc<Requests>; 4] = Default::default();
    let mut clients = JoinSet::new();
    send_requests(&world.node, &stop, &requests, &mut clients);
    let mut gaps = Gaps::default();
    gaps.take(&arrivals, clock.now(), false);
    gaps.quiet.clear();
    let other = std::env::var("OFFHOOK_TEST_OTHER_PROGRAM").unwrap_or_else(|_| program());
    for round in 0..upgrades {
        until_all_entered(&received, calls).await;
        gaps.take(&arrivals, clock.now(), false);
        let binary = if round % 2 == 0 { other.clone() } else { program() };
        // One more call comes in.
        let mut newcomer = Caller::place(&sim, format!("9195{round:08}"));
        let output = world.upgrade(&["--wait", "20", "--binary", &binary]).await;
        let printed = text(&output.stdout);
        assert!(output.status.success(), "{printed}{}", text(&output.stderr));
        report(&format!("upgrade {}: {}", round + 1, printed.trim_end().replace('\n', "; ")));
        until(&mut newcomer.events, |event| *event == CallEventKind::FirstAudio).await;
        gaps.take(&arrivals, clock.now(), true);
        newcomer.events.control().hangup().await;
        assert!(end(newcomer.events).await.ok, "the call that came in is a normal one");
    }
    until_all_entered(&received, calls).await;
    gaps.take(&arrivals, clock.now(), false);
    stop.store(true, Ordering::Relaxed);
    clients.join_all().await;
    let (mut lost, mut digits) = (0, Digits::default());
    for result in running.join_all().await {
        lost += usize::from(result.is_lost);
        digits.add(&result.digits);
    }
    let all = calls + upgrades;
    let hangups = hangups(&world, all).await;
    report(&format!(
        "{calls} calls, {upgrades} upgrades: {lost} calls lost, {hangups} hangup callbacks for {all} calls"
    ));
    report(&format!(
        "digits: {} pressed, {} lost, {} doubled",
        digits.pressed, digits.lost, digits.doubled
    ));
    report(&format!(
        "SRTP: {} indexes used twice, {} datagrams repeated",
        gaps.reused_indexes, gaps.repeated_datagrams
    ));
    let [p50, p99, max] = percentiles(&mut gaps.upgrading);
    report(&format!(
        "longest gap of a call at an upgrade: p50 {p50:.0} ms, p99 {p99:.0} ms, maximum {max:.0} ms"
    ));
    let [quiet50, quiet99, quiet] = percentiles(&mut gaps.quiet);
    report(&format!(
        "between upgrades: p50 {quiet50:.0} ms, p99 {quiet99:.0} ms, maximum {quiet:.0} ms"
    ));
    let mut failed = 0;
    for (kind, requests) in KINDS.iter().zip(&requests) {
        let failures = requests.failures.lock().unwrap();
        failed += failures.len();
        report(&format!(
            "{kind}: {} sent, {} failed, {} sent again, the longest took {} ms",
            requests.sent.load(Ordering::Relaxed),
            failures.len(),
            requests.resent.load(Ordering::Relaxed),
            requests.longest_us.load(Ordering::Relaxed) / 1_000
        ));
        failures.iter().take(5).for_each(|failure| report(&format!("  {failure}")));
    }
    let count = "SELECT count(wamid), count(DISTINCT wamid), 0, 0 FROM messages";
    let (stored, distinct, ..) = counts(world.node.dir.path(), count).await;
    assert_eq!((lost, hangups), (0, all));
    assert_eq!((digits.lost, digits.doubled), (0, 0));
    assert_eq!((gaps.reused_indexes, gaps.repeated_datagrams), (0, 0));
    assert_eq!(failed, 0, "failed requests");
    let sent = i64::try_from(requests[2].sent.load(Ordering::Relaxed)).unwrap();
    assert_eq!((stored, distinct), (sent, sent), "each message is stored once");
    assert!(!figures() || p99 <= GAP_MAX.as_secs_f64() * 1_000.0, "the gap is too long");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_a_busy_node_is_upgraded() {
    measure(10, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes; run it with .ci/upgrades"]
async fn nothing_is_lost_in_many_upgrades_of_many_calls() {
    let number = |name: &str, default| {
        std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    measure(number("OFFHOOK_UPGRADE_CALLS", 50), number("OFFHOOK_UPGRADES", 5)).await;
}
