//! A leg and a peer under a stepped clock, with a network between them that loses, doubles, delays and goes away.
//!
//! No socket, no thread: minutes pass in milliseconds. A seed brings the weather back, though not the keys and ids that
//! the agents draw.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::dtmf;
use super::leg::{Counters, Leg, LegOrder};
use super::outbox::Outbox;
use super::sdp::Offer;
use super::stun::{self, Kind};
use super::test_peer::{Manner, Peer};
use super::{LegEvent, Media, MediaConfig, Missing};
use machine::{MediaEvent, MediaFault};
use model::Clock;
use model::Timestamp;

const STEP: Duration = Duration::from_millis(5);
const OURS: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const THEIRS: ([u8; 4], u16) = ([10, 0, 0, 2], 3_480);

/// What the network does to each datagram.
#[derive(Clone, Copy, Debug, Default)]
struct Weather {
    /// Per cent.
    lost: u64,
    doubled: u64,
    /// Up to so many milliseconds late, each by itself: reorders too.
    jitter_ms: u64,
}

struct World {
    clock: Clock,
    leg: Leg,
    counters: Arc<Counters>,
    peer: Peer,
    told: Arc<Mutex<Vec<LegEvent>>>,
    weather: Weather,
    /// Which datagrams go nowhere, whatever the weather; the flag is set towards the leg.
    cut: fn(bool, &[u8]) -> bool,
    under_way: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    /// Everything the peer sent, as it was on the wire.
    caught: Vec<Vec<u8>>,
    seed: u64,
    steps: u32,
    /// Where the peer is, as the network shows it.
    theirs: SocketAddr,
    /// Everything the leg sent.
    sent: Vec<(Instant, SocketAddr, Vec<u8>)>,
    _media: Arc<Media>,
}

fn make(
    media: &Media,
    offer: &Offer,
    told: &Arc<Mutex<Vec<LegEvent>>>,
) -> (Leg, String, Arc<Counters>) {
    let log = told.clone();
    let counters = Arc::new(Counters::default());
    let sink = Arc::new(move |event| log.lock().expect("log").push(event));
    let made = media.make(offer, &[SocketAddr::from(OURS)], sink, counters.clone()).expect("a leg");
    (made.leg, made.answer, counters)
}

fn media(clock: &Clock) -> Arc<Media> {
    let config = MediaConfig {
        listen: "127.0.0.1:0".parse().expect("address"),
        max_ports: 1,
        public_ips: Vec::new(),
        shards: 1,
        media_dead: Duration::from_secs(30),
    };
    Media::start(config, clock.clone()).expect("media")
}

impl World {
    fn new(seed: u64, weather: Weather) -> Self {
        Self::with(&Manner::default(), seed, weather)
    }

    fn with(manner: &Manner, seed: u64, weather: Weather) -> Self {
        let mut world = Self::not_accepted(manner, seed, weather);
        world.order(LegOrder::Open);
        world
    }

    /// The peer has our answer, and nobody has told it that we accept.
    fn not_accepted(manner: &Manner, seed: u64, weather: Weather) -> Self {
        let clock = Clock::stepped(Timestamp::from_micros(1_790_000_000_000_000));
        let media = media(&clock);
        let mut peer = Peer::simulated(manner, SocketAddr::from(THEIRS), clock.clone());
        let told = Arc::default();
        let (leg, answer, counters) = make(&media, &peer.offer(), &told);
        peer.accept(&answer);
        let mut world = Self {
            clock,
            leg,
            counters,
            peer,
            told,
            weather,
            cut: |_, _| false,
            under_way: BTreeMap::new(),
            caught: Vec::new(),
            seed,
            steps: 0,
            theirs: SocketAddr::from(THEIRS),
            sent: Vec::new(),
            _media: media,
        };
        world.order(LegOrder::Begin);
        world
    }

    fn order(&mut self, order: LegOrder) {
        let mut out = Outbox::default();
        self.leg.order(self.clock.now(), order, &mut out);
        self.post(out);
    }

    fn dice(&mut self, below: u64) -> u64 {
        // splitmix64: enough for weather.
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn carry(&mut self, to_leg: bool, datagram: Vec<u8>) {
        if (self.cut)(to_leg, &datagram) {
            return;
        }
        let copies = u64::from(self.dice(100) >= self.weather.lost)
            + u64::from(self.dice(100) < self.weather.doubled);
        for _ in 0..copies {
            let late = Duration::from_millis(self.dice(self.weather.jitter_ms + 1));
            let order = self.under_way.len() as u64 + (u64::from(self.steps) << 20);
            let key = (self.clock.now() + late, order + self.dice(1 << 10));
            self.under_way.insert(key, (to_leg, datagram.clone()));
        }
    }

    /// What the leg sent goes on its way.
    fn post(&mut self, out: Outbox) {
        for (to, datagram) in out.iter() {
            self.sent.push((self.clock.now(), to, datagram.to_vec()));
            if to == self.theirs {
                self.carry(false, datagram.to_vec());
            }
        }
    }

    fn step(&mut self) {
        self.clock.step(STEP);
        self.steps += 1;
        let now = self.clock.now();
        while let Some(first) = self.under_way.first_entry().filter(|e| e.key().0 <= now) {
            let (to_leg, datagram) = first.remove();
            if !to_leg {
                self.peer.receive(SocketAddr::from(OURS), &datagram);
                continue;
            }
            // The shard's part: STUN counts only when it authenticates.
            let trusted = match stun::kind(&datagram) {
                Kind::Request { .. } => self.leg.authenticates_request(&datagram),
                Kind::Response(_) => self.leg.authenticates_response(&datagram),
                Kind::OtherStun => false,
                Kind::Else => true,
            };
            if trusted {
                let mut out = Outbox::default();
                self.leg.receive(now, self.theirs, &datagram, &mut out);
                self.post(out);
            }
        }
        if self.steps.is_multiple_of(4) {
            let mut out = Outbox::default();
            self.leg.tick(now, &mut out);
            self.post(out);
        }
        self.peer.wake_up();
        for (_, datagram) in std::mem::take(&mut self.peer.out) {
            self.caught.push(datagram.clone());
            self.carry(true, datagram);
        }
    }

    /// Lets time pass until `done`, `most` at most; how long it took.
    fn until(&mut self, most: Duration, done: impl Fn(&Self) -> bool) -> Option<Duration> {
        let start = self.clock.now();
        while self.clock.now() - start < most {
            if done(self) {
                return Some(self.clock.now() - start);
            }
            self.step();
        }
        done(self).then_some(most)
    }

    fn pass(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    fn connect(&mut self) -> Duration {
        let up = |w: &Self| w.peer.connected && w.has(&LegEvent::Fact(MediaEvent::Connected));
        self.until(Duration::from_secs(15), up).expect("connected within T_media")
    }

    fn has(&self, event: &LegEvent) -> bool {
        self.told.lock().expect("log").contains(event)
    }

    fn is_lost(&self) -> bool {
        self.has(&LegEvent::Fact(MediaEvent::Lost { fault: MediaFault::Silent }))
    }

    /// The peer types: 500 ms a key, 100 ms between, as WhatsApp does; nothing else is said.
    fn type_keys(&mut self, keys: &str) {
        for (n, key) in (0u32..).zip(keys.bytes()) {
            let timestamp = 48_000 + n * 28_800;
            for k in 1..=27u16 {
                let [high, low] = (k.min(25) * 160).to_be_bytes();
                let end = if k >= 25 { 0x80 } else { 0 };
                self.peer.send(126, timestamp, k == 1, &[key - b'0', end | 10, high, low]);
                self.pass(Duration::from_millis(20));
            }
            self.pass(Duration::from_millis(60));
        }
        self.pass(Duration::from_secs(1));
    }

    fn digits(&self) -> String {
        let key = |e: &LegEvent| if let LegEvent::Digit(d) = e { Some(d.as_char()) } else { None };
        self.told.lock().expect("log").iter().filter_map(key).collect()
    }
}

#[test]
fn in_fair_weather_it_connects_at_once_and_a_packet_goes_every_twenty_milliseconds() {
    let mut world = World::new(1, Weather::default());
    let took = world.connect();
    assert!(took <= Duration::from_millis(500), "{took:?}");
    world.peer.heard.clear();
    world.sent.clear();
    world.pass(Duration::from_secs(60));
    assert!((2_999..=3_001).contains(&world.peer.heard.len()), "{}", world.peer.heard.len());
    let rtcp =
        world.sent.iter().filter(|(_, _, d)| d[0] >= 128 && (200..=206).contains(&d[1])).count();
    assert!(
        (8..=40).contains(&rtcp),
        "sender reports about every 5 s, not feedback by the dozen: {rtcp}"
    );
    let checks = world.sent.iter().filter(|(_, _, d)| stun::check_sent(d).is_some()).count();
    assert!((10..=30).contains(&checks), "consent about every 5 s: {checks}");
}

/// Meta's relay knows of us only once it has our answer: what comes before is lost.
#[test]
fn a_peer_that_hears_nothing_at_first_is_found_as_soon_as_it_does() {
    for deaf_ms in [90, 170, 250, 390, 570, 790, 1_190, 1_570, 2_990] {
        let mut world = World::new(deaf_ms, Weather::default());
        world.cut = |_, _| true;
        world.pass(Duration::from_millis(deaf_ms));
        world.cut = |_, _| false;
        let up = |w: &World| w.has(&LegEvent::Fact(MediaEvent::IceUp));
        let took = world.until(Duration::from_secs(15), up).expect("a path");
        // To the next check, and to what nominates.
        let most = Duration::from_millis(80.max(deaf_ms / 8 + 60) + 90);
        assert!(took <= most, "deaf for {deaf_ms} ms, found after {took:?}");
        let first = world.sent.first().expect("a check").0;
        let soon = world
            .sent
            .iter()
            .filter(|(at, ..)| at.duration_since(first) < Duration::from_millis(deaf_ms.min(400)));
        assert!(soon.count() as u64 >= deaf_ms.min(400) / 60, "every 50 ms at first");
    }
}

/// So it is where `pre_accept` failed: the relay begins with `accept`, however late that is.
#[test]
fn a_peer_that_hears_us_from_accept_on_is_found_at_once() {
    for deaf_ms in [1_000, 3_250, 4_010, 7_030, 9_000, 14_990] {
        let mut world = World::not_accepted(&Manner::default(), deaf_ms, Weather::default());
        world.cut = |_, _| true;
        world.pass(Duration::from_millis(deaf_ms));
        world.cut = |_, _| false;
        world.order(LegOrder::Open);
        let up = |w: &World| w.has(&LegEvent::Fact(MediaEvent::IceUp));
        let took = world.until(Duration::from_secs(15), up).expect("a path");
        assert!(
            took <= Duration::from_millis(300),
            "accepted after {deaf_ms} ms, found after {took:?}"
        );
    }
}

#[test]
fn a_nomination_that_is_lost_goes_out_again_soon() {
    let mut world = World::new(9, Weather::default());
    world.cut = |to_leg, datagram| {
        stun::kind(datagram) == Kind::Else || (!to_leg && stun::nominates(datagram))
    };
    world.pass(Duration::from_millis(500));
    let nominations = world.sent.iter().filter(|(_, _, d)| stun::nominates(d)).count();
    assert!((6..=10).contains(&nominations), "{nominations}");
    world.cut = |_, _| false;
    world.connect();
}

#[test]
fn rtp_is_the_legs_own_and_its_quality_is_told() {
    let mut world = World::new(11, Weather::default());
    world.connect();
    assert!(world.leg.has_own_path());
    world.weather = Weather { lost: 10, jitter_ms: 30, ..Weather::default() };
    for _ in 0..1_500 {
        world.peer.say(&[0x48, 1, 2]);
        world.pass(Duration::from_millis(20));
    }
    let quality = world.counters.quality.read();
    let loss = quality.inbound.loss();
    assert!((0.06..0.14).contains(&loss), "{quality:?}");
    assert!((5..25).contains(&quality.inbound.jitter.as_millis()), "{quality:?}");
    assert!(quality.outbound.packets > 1_000, "{quality:?}");
    assert!((0.06..0.14).contains(&quality.outbound.loss()), "{quality:?}");
    let trip = quality.round_trip.expect("reports went both ways");
    assert!(trip <= Duration::from_millis(100), "{trip:?}");
    let mos = quality.mos(&quality.inbound).expect("a figure");
    assert!((2.5..4.2).contains(&mos), "{mos}");
}

#[test]
fn what_is_missing_after_three_and_eight_seconds_is_told() {
    let missing = |world: &World| -> Vec<(Missing, u64)> {
        let told = world.told.lock().expect("log");
        let missing = told.iter().filter_map(|event| match event {
            LegEvent::Missing { missing, waited, .. } => Some((*missing, waited.as_secs())),
            _ => None,
        });
        missing.collect()
    };
    let mut world = World::new(14, Weather::default());
    world.cut = |_, _| true;
    world.pass(Duration::from_secs(12));
    assert_eq!(missing(&world), [(Missing::Check, 3), (Missing::Check, 8)]);

    let mut world = World::new(15, Weather::default());
    world.cut = |_, datagram| stun::kind(datagram) == Kind::Else;
    world.pass(Duration::from_secs(5));
    assert_eq!(missing(&world), [(Missing::Handshake, 3)]);
    world.cut = |_, _| false;
    world.pass(Duration::from_secs(5));
    assert_eq!(missing(&world), [(Missing::Handshake, 3), (Missing::Packet, 8)]);

    let mut world = World::new(16, Weather::default());
    world.connect();
    world.peer.say(&[0x48, 1, 2]);
    world.pass(Duration::from_secs(12));
    assert!(missing(&world).is_empty(), "all is there");
}

#[test]
fn without_keys_that_we_can_use_rtp_is_the_agents() {
    let mut world = World::new(12, Weather::default());
    world.leg.without_own_path();
    world.connect();
    assert!(!world.leg.has_own_path());
    world.peer.heard.clear();
    world.pass(Duration::from_secs(10));
    assert!((499..=501).contains(&world.peer.heard.len()), "{}", world.peer.heard.len());
    world.type_keys("17");
    assert_eq!(world.digits(), "17");
}

#[test]
fn a_peer_whose_address_changes_is_followed() {
    let manner = Manner { lite: false, ..Manner::default() };
    let mut world = World::with(&manner, 13, Weather::default());
    world.connect();
    world.pass(Duration::from_secs(1));
    world.theirs = SocketAddr::from(([10, 9, 9, 9], 5_555));
    world.peer.heard.clear();
    let took =
        world.until(Duration::from_secs(20), |w| w.peer.heard.len() > 50).expect("heard again");
    assert!(took <= Duration::from_secs(8), "{took:?}");
    world.type_keys("3");
    assert_eq!(world.digits(), "3");
    assert!(!world.is_lost());
}

#[test]
fn in_rough_weather_it_still_connects_soon() {
    let mut slowest = Duration::ZERO;
    for seed in 0..10 {
        let mut world = World::new(seed, Weather { lost: 10, doubled: 5, jitter_ms: 60 });
        slowest = slowest.max(world.connect());
    }
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
}

#[test]
fn in_bad_weather_every_key_counts_once() {
    let weather = Weather { lost: 30, doubled: 5, jitter_ms: 200 };
    for seed in 0..5 {
        let mut world = World::new(seed, Weather::default());
        world.connect();
        world.weather = weather;
        world.type_keys("1223334444555550");
        assert_eq!(world.digits(), "1223334444555550", "seed {seed}");
        assert!(!world.is_lost(), "seed {seed}");
    }
}

#[test]
fn an_outage_of_twenty_seconds_is_survived_one_for_good_is_not() {
    let mut world = World::new(3, Weather { jitter_ms: 40, ..Weather::default() });
    world.connect();
    world.cut = |_, _| true;
    world.pass(Duration::from_secs(20));
    world.cut = |_, _| false;
    world.pass(Duration::from_secs(40));
    assert!(!world.is_lost());
    world.type_keys("5");
    assert_eq!(world.digits(), "5", "both ways are open again");

    world.cut = |_, _| true;
    let took = world.until(Duration::from_secs(60), World::is_lost).expect("lost in the end");
    assert!((25..=31).contains(&took.as_secs()), "30 s after the last valid packet: {took:?}");
}

#[test]
fn a_muted_peer_that_answers_checks_stays() {
    let mut world = World::new(4, Weather::default());
    world.connect();
    world.pass(Duration::from_secs(120));
    assert!(!world.is_lost(), "consent is answered");
}

#[test]
fn a_peer_whose_consent_is_lost_goes_though_it_sends() {
    let mut world = World::new(5, Weather::default());
    world.connect();
    world.cut = |to_leg, datagram| to_leg && stun::kind(datagram) != Kind::Else;
    let mut took = Duration::ZERO;
    while !world.is_lost() && took < Duration::from_secs(60) {
        world.peer.say(&[0x48, 1, 2]);
        world.pass(Duration::from_millis(20));
        took += Duration::from_millis(20);
    }
    assert!((30..=40).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn r19_candidates_that_never_answer_cost_thirty_paced_checks_at_most() {
    let clock = Clock::stepped(Timestamp::from_micros(1_790_000_000_000_000));
    let media = media(&clock);
    let peer = Peer::simulated(&Manner::default(), SocketAddr::from(THEIRS), clock.clone());
    let more: String =
        (1..=30).map(|n| format!("a=candidate:{n} 1 udp 1 10.1.0.{n} 9 typ host\r\n")).collect();
    let offer = Offer::parse(&(peer.offer_text() + &more), true).expect("offer");
    let (mut leg, ..) = make(&media, &offer, &Arc::default());
    let mut sent: HashMap<SocketAddr, usize> = HashMap::new();
    let mut out = Outbox::default();
    let mut run = |leg: &mut Leg, seconds: u32| {
        for _ in 0..seconds * 50 {
            clock.step(Duration::from_millis(20));
            leg.tick(clock.now(), &mut out);
            assert!(out.len() <= 1, "paced: {} at once", out.len());
            for (to, datagram) in out.iter() {
                assert!(stun::check_sent(datagram).is_some(), "nothing but checks");
                *sent.entry(to).or_default() += 1;
            }
            out.clear();
        }
        sent.clone()
    };
    assert!(run(&mut leg, 5).is_empty(), "nothing before it begins");
    leg.order(clock.now(), LegOrder::Begin, &mut Outbox::default());
    leg.order(clock.now(), LegOrder::Open, &mut Outbox::default());
    let sent = run(&mut leg, 120);
    assert_eq!(sent.len(), 16, "the first sixteen candidates");
    assert!(sent.values().all(|n| (3..=30).contains(n)), "{sent:?}");

    let (mut leg, ..) = make(&media, &peer.offer(), &Arc::default());
    leg.order(clock.now(), LegOrder::Begin, &mut Outbox::default());
    let mut sent = 0;
    for _ in 0..120 * 50 {
        clock.step(Duration::from_millis(20));
        leg.tick(clock.now(), &mut out);
        assert!(out.len() <= 1, "paced: {} at once", out.len());
        sent += out.len();
        out.clear();
    }
    assert!((20..=30).contains(&sent), "{sent}");
}

#[test]
fn digits_of_ours_arrive_through_bad_weather() {
    let mut world = World::new(8, Weather::default());
    world.connect();
    world.weather = Weather { lost: 20, doubled: 5, jitter_ms: 30 };
    world.peer.heard.clear();
    let play = machine::PlayId(4);
    world.order(LegOrder::SendDigits(play, "0123456789*#".to_owned()));
    world.until(Duration::from_secs(10), |w| w.has(&LegEvent::DigitsSent(play))).expect("sent");
    world.pass(Duration::from_secs(1));
    let mut receiver = dtmf::Receiver::default();
    let mut digits = Vec::new();
    let mut heard = world.peer.heard.clone();
    heard.sort_by_key(|h| h.at);
    for h in heard.iter().filter(|h| h.pt == 126) {
        receiver.tick(h.at, &mut digits);
        receiver.packet(h.at, h.ssrc, h.timestamp, &h.payload, &mut digits);
    }
    receiver.tick(world.clock.now(), &mut digits);
    assert_eq!(digits.iter().map(|d| d.as_char()).collect::<String>(), "0123456789*#");
}

#[test]
fn r19_replayed_and_forged_packets_change_nothing_and_keep_nobody_alive() {
    let mut world = World::new(6, Weather::default());
    world.connect();
    world.type_keys("159");
    world.peer.say(&[0x48, 1, 2]);
    world.pass(Duration::from_secs(6));
    assert_eq!(world.digits(), "159");
    // What a listener on the way has: SRTP, SRTCP, the whole handshake.
    let caught: Vec<Vec<u8>> =
        world.caught.iter().filter(|d| stun::kind(d) == Kind::Else).cloned().collect();
    assert!(caught.len() > 80, "{}", caught.len());
    let bent = |datagram: &[u8], n: usize| {
        let mut bent = datagram.to_vec();
        match n % 6 {
            // As it was.
            0 => {}
            1 => *bent.last_mut().expect("a byte") ^= 1,
            // Of RTP: sequence number, timestamp, SSRC, payload type; of DTLS: epoch, sequence number, length.
            2 => bent[3] = bent[3].wrapping_add(77),
            3 => bent[7] ^= 0x55,
            4 => bent[9] ^= 0x55,
            _ => bent[1] ^= 0x11,
        }
        bent
    };
    world.cut = |_, _| true;
    let told = world.told.lock().expect("log").len();
    let _ = world.leg.counted();
    let mut tries = 0;
    let mut took = Duration::ZERO;
    while !world.is_lost() && took < Duration::from_secs(60) {
        for _ in 0..4 {
            let datagram = bent(&caught[tries % caught.len()], tries / caught.len());
            let mut out = Outbox::default();
            world.leg.receive(world.clock.now(), SocketAddr::from(THEIRS), &datagram, &mut out);
            world.post(out);
            tries += 1;
        }
        world.pass(Duration::from_millis(20));
        took += Duration::from_millis(20);
    }
    assert!(
        (24..=31).contains(&took.as_secs()),
        "30 s after the last packet that was valid: {took:?}"
    );
    assert!(tries > caught.len() * 6, "all of it, in every form");
    assert_eq!(world.digits(), "159", "no key counts again");
    assert_eq!(world.leg.counted().0, 0, "nothing authenticated");
    assert_eq!(world.told.lock().expect("log").len(), told + 1, "only its loss is told");
}
