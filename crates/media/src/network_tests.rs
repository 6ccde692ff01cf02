//! Tests of a leg and a peer under a stepped clock, connected by a simulated network with loss,
//! duplication, delay and outages.
//!
//! The tests use no sockets and no threads, and minutes pass in milliseconds. A seed reproduces the
//! network's behaviour, but not the keys and ids that the two sides generate.

mod hand_over;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::dtmf;
use super::leg::{Counters, Leg, LegCommand};
use super::sdp::Offer;
use super::send_buffer::SendBuffer;
use super::stun::{self, Kind};
use super::test_peer::{Peer, PeerOptions};
use super::{AnsweredLeg, LegEvent, Media, MediaConfig, MissingStep};
use crate::sockets::ReceivedDatagram;
use machine::{MediaEvent, MediaFault};
use model::Clock;
use model::Timestamp;

const STEP: Duration = Duration::from_millis(5);
const LOCAL: ([u8; 4], u16) = ([10, 0, 0, 1], 40_000);
const PEER: ([u8; 4], u16) = ([10, 0, 0, 2], 3_480);

/// The conditions of the network.
#[derive(Clone, Copy, Debug, Default)]
struct NetworkConditions {
    /// The rate of lost datagrams, in per cent.
    lost: u64,
    duplicated: u64,
    /// Maximum delay in milliseconds, drawn per datagram, so that datagrams are also reordered.
    jitter_ms: u64,
}

struct Simulation {
    clock: Clock,
    leg: Leg,
    /// Our ufrag.
    ufrag: String,
    counters: Arc<Counters>,
    peer: Peer,
    events: Arc<Mutex<Vec<LegEvent>>>,
    conditions: NetworkConditions,
    /// Datagrams that are always dropped. The flag is true for those sent to the leg.
    is_blocked: fn(bool, &[u8]) -> bool,
    in_flight: BTreeMap<(Instant, u64), (bool, Vec<u8>)>,
    /// All datagrams that the peer sent, as on the wire.
    captured: Vec<Vec<u8>>,
    seed: u64,
    steps: u32,
    /// The peer's address as seen from the leg.
    peer_address: SocketAddr,
    /// All datagrams that the leg sent.
    sent: Vec<(Instant, SocketAddr, Vec<u8>)>,
    _media: Arc<Media>,
}

fn create_leg(
    media: &Media,
    offer: &Offer,
    events: &Arc<Mutex<Vec<LegEvent>>>,
) -> (AnsweredLeg, Arc<Counters>) {
    let log = events.clone();
    let counters = Arc::new(Counters::default());
    let sink = Arc::new(move |event| log.lock().expect("log").push(event));
    let made = media
        .prepare_answer(offer, &[SocketAddr::from(LOCAL)], sink, counters.clone())
        .expect("a leg");
    (made, counters)
}

fn media(clock: &Clock) -> Arc<Media> {
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
    Media::start(config, clock.clone()).expect("media")
}

impl Simulation {
    fn new(seed: u64, conditions: NetworkConditions) -> Self {
        Self::with(&PeerOptions::default(), seed, conditions)
    }

    fn with(options: &PeerOptions, seed: u64, conditions: NetworkConditions) -> Self {
        let mut sim = Self::before_accept(options, seed, conditions);
        sim.command(LegCommand::Open);
        sim
    }

    /// Creates the state in which the peer has our answer but the call is not accepted.
    fn before_accept(options: &PeerOptions, seed: u64, conditions: NetworkConditions) -> Self {
        let clock = Clock::stepped(Timestamp::from_micros(1_790_000_000_000_000));
        let media = media(&clock);
        let mut peer = Peer::simulated(options, SocketAddr::from(PEER), clock.clone());
        let events = Arc::default();
        let (answered, counters) = create_leg(&media, &peer.offer(), &events);
        let AnsweredLeg { leg, ufrag, answer } = answered;
        peer.accept(&answer);
        let mut sim = Self {
            clock,
            leg,
            ufrag,
            counters,
            peer,
            events,
            conditions,
            is_blocked: |_, _| false,
            in_flight: BTreeMap::new(),
            captured: Vec::new(),
            seed,
            steps: 0,
            peer_address: SocketAddr::from(PEER),
            sent: Vec::new(),
            _media: media,
        };
        sim.command(LegCommand::Begin);
        sim
    }

    fn command(&mut self, command: LegCommand) {
        let mut out = SendBuffer::default();
        self.leg.execute(self.clock.now(), command, &mut out);
        self.send_all(out);
    }

    fn random_below(&mut self, below: u64) -> u64 {
        // splitmix64.
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn transmit(&mut self, to_leg: bool, datagram: Vec<u8>) {
        if (self.is_blocked)(to_leg, &datagram) {
            return;
        }
        let copies = u64::from(self.random_below(100) >= self.conditions.lost)
            + u64::from(self.random_below(100) < self.conditions.duplicated);
        for _ in 0..copies {
            let late = Duration::from_millis(self.random_below(self.conditions.jitter_ms + 1));
            let sequence = self.in_flight.len() as u64 + (u64::from(self.steps) << 20);
            let mut key = (self.clock.now() + late, sequence + self.random_below(1 << 10));
            while self.in_flight.contains_key(&key) {
                key.1 += 1;
            }
            self.in_flight.insert(key, (to_leg, datagram.clone()));
        }
    }

    /// Passes the leg's datagrams to the network.
    fn send_all(&mut self, out: SendBuffer) {
        for (to, datagram) in out.iter() {
            self.sent.push((self.clock.now(), to, datagram.to_vec()));
            if to == self.peer_address {
                self.transmit(false, datagram.to_vec());
            }
        }
    }

    fn step(&mut self) {
        self.clock.step(STEP);
        self.steps += 1;
        let now = self.clock.now();
        while let Some(first) = self.in_flight.first_entry().filter(|e| e.key().0 <= now) {
            let (to_leg, datagram) = first.remove();
            if !to_leg {
                self.peer.receive(SocketAddr::from(LOCAL), &datagram);
                continue;
            }
            // As in the shard, STUN counts only if it is authentic.
            let trusted = match stun::classify(&datagram) {
                Kind::Request { .. } => self.leg.authenticates_request(&datagram),
                Kind::Response(_) => self.leg.authenticates_response(&datagram),
                Kind::OtherStun => false,
                Kind::NotStun => true,
            };
            if trusted {
                let mut out = SendBuffer::default();
                let (from, waited) = (self.peer_address, Duration::ZERO);
                let datagram = ReceivedDatagram { from, bytes: &datagram, waited };
                self.leg.receive(now, datagram, &mut out);
                self.send_all(out);
            }
        }
        if self.steps.is_multiple_of(4) {
            let mut out = SendBuffer::default();
            self.leg.tick(now, &mut out);
            self.send_all(out);
        }
        self.peer.run_timers();
        for (_, datagram) in std::mem::take(&mut self.peer.out) {
            self.captured.push(datagram.clone());
            self.transmit(true, datagram);
        }
    }

    /// Advances time until `done` is true, by at most `most`. Returns the elapsed time, or `None`
    /// if `done` stays false.
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

    fn advance(&mut self, time: Duration) {
        self.until(time, |_| false);
    }

    fn connect(&mut self) -> Duration {
        let up = |w: &Self| w.peer.connected && w.has(&LegEvent::Media(MediaEvent::Connected));
        self.until(Duration::from_secs(15), up).expect("connected within 15 s")
    }

    fn has(&self, event: &LegEvent) -> bool {
        self.events.lock().expect("log").contains(event)
    }

    fn is_lost(&self) -> bool {
        self.has(&LegEvent::Media(MediaEvent::Lost { fault: MediaFault::Silent }))
    }

    /// Simulates keys pressed by the peer: 500 ms each with 100 ms in between, as in WhatsApp, and
    /// no other audio.
    fn type_keys(&mut self, keys: &str) {
        for (n, key) in (0u32..).zip(keys.bytes()) {
            let timestamp = 48_000 + n * 28_800;
            for k in 1..=27u16 {
                let [high, low] = (k.min(25) * 160).to_be_bytes();
                let end = if k >= 25 { 0x80 } else { 0 };
                self.peer.send(126, timestamp, k == 1, &[key - b'0', end | 10, high, low]);
                self.advance(Duration::from_millis(20));
            }
            self.advance(Duration::from_millis(60));
        }
        self.advance(Duration::from_secs(1));
    }

    fn digits(&self) -> String {
        let key = |e: &LegEvent| if let LegEvent::Digit(d) = e { Some(d.as_char()) } else { None };
        self.events.lock().expect("log").iter().filter_map(key).collect()
    }
}

#[test]
fn connects_quickly_and_sends_every_20_ms_on_a_good_network() {
    let mut sim = Simulation::new(1, NetworkConditions::default());
    let took = sim.connect();
    assert!(took <= Duration::from_millis(500), "{took:?}");
    sim.peer.received.clear();
    sim.sent.clear();
    sim.advance(Duration::from_secs(60));
    assert!((2_999..=3_001).contains(&sim.peer.received.len()), "{}", sim.peer.received.len());
    let rtcp =
        sim.sent.iter().filter(|(_, _, d)| d[0] >= 128 && (200..=206).contains(&d[1])).count();
    assert!((8..=40).contains(&rtcp), "sender reports about every 5 s and no feedback: {rtcp}");
    let checks = sim.sent.iter().filter(|(_, _, d)| stun::check_id(d).is_some()).count();
    assert!((10..=30).contains(&checks), "consent about every 5 s: {checks}");
}

/// Meta's relay drops our packets until it has our answer.
#[test]
fn finds_a_peer_soon_after_it_becomes_reachable() {
    for blocked_ms in [90, 170, 250, 390, 570, 790, 1_190, 1_570, 2_990] {
        let mut sim = Simulation::new(blocked_ms, NetworkConditions::default());
        sim.is_blocked = |_, _| true;
        sim.advance(Duration::from_millis(blocked_ms));
        sim.is_blocked = |_, _| false;
        let up = |w: &Simulation| w.has(&LegEvent::Media(MediaEvent::IceUp));
        let took = sim.until(Duration::from_secs(15), up).expect("a path");
        // The next check, and the nomination.
        let most = Duration::from_millis(80.max(blocked_ms / 8 + 60) + 90);
        assert!(took <= most, "blocked for {blocked_ms} ms, found after {took:?}");
        let first = sim.sent.first().expect("a check").0;
        let soon = sim.sent.iter().filter(|(at, ..)| {
            at.duration_since(first) < Duration::from_millis(blocked_ms.min(400))
        });
        assert!(soon.count() as u64 >= blocked_ms.min(400) / 60, "every 50 ms at first");
    }
}

/// If `pre_accept` failed, the relay starts with `accept`, however late that is.
#[test]
fn finds_a_peer_that_becomes_reachable_with_accept() {
    for blocked_ms in [1_000, 3_250, 4_010, 7_030, 9_000, 14_990] {
        let mut sim = Simulation::before_accept(
            &PeerOptions::default(),
            blocked_ms,
            NetworkConditions::default(),
        );
        sim.is_blocked = |_, _| true;
        sim.advance(Duration::from_millis(blocked_ms));
        sim.is_blocked = |_, _| false;
        sim.command(LegCommand::Open);
        let up = |w: &Simulation| w.has(&LegEvent::Media(MediaEvent::IceUp));
        let took = sim.until(Duration::from_secs(15), up).expect("a path");
        assert!(
            took <= Duration::from_millis(300),
            "accepted after {blocked_ms} ms, found after {took:?}"
        );
    }
}

#[test]
fn repeats_a_lost_nomination() {
    let mut sim = Simulation::new(9, NetworkConditions::default());
    sim.is_blocked = |to_leg, datagram| {
        stun::classify(datagram) == Kind::NotStun || (!to_leg && stun::is_nomination(datagram))
    };
    sim.advance(Duration::from_millis(500));
    let nominations = sim.sent.iter().filter(|(_, _, d)| stun::is_nomination(d)).count();
    assert!((6..=10).contains(&nominations), "{nominations}");
    sim.is_blocked = |_, _| false;
    sim.connect();
}

#[test]
fn carries_its_own_rtp_and_measures_quality() {
    let mut sim = Simulation::new(11, NetworkConditions::default());
    sim.connect();
    assert!(sim.leg.has_transport());
    sim.conditions = NetworkConditions { lost: 10, jitter_ms: 30, ..NetworkConditions::default() };
    for _ in 0..1_500 {
        sim.peer.send_audio(&[0x48, 1, 2]);
        sim.advance(Duration::from_millis(20));
    }
    let quality = sim.counters.quality.read();
    let loss = quality.inbound.loss();
    assert!((0.06..0.14).contains(&loss), "{quality:?}");
    assert!((5..25).contains(&quality.inbound.jitter.as_millis()), "{quality:?}");
    assert!(quality.outbound.packets > 1_000, "{quality:?}");
    assert!((0.06..0.14).contains(&quality.outbound.loss()), "{quality:?}");
    let rtt = quality.round_trip.expect("reports went both ways");
    assert!(rtt <= Duration::from_millis(100), "{rtt:?}");
    let mos = quality.mos(&quality.inbound).expect("a figure");
    assert!((2.5..4.2).contains(&mos), "{mos}");
}

#[test]
fn the_time_in_the_socket_buffer_is_not_jitter() {
    let mut sim = Simulation::new(12, NetworkConditions::default());
    sim.connect();
    let mut out = SendBuffer::default();
    for n in 0..150 {
        sim.peer.send_audio(&[0x48, 1, 2]);
        let datagrams: Vec<Vec<u8>> = sim.peer.out.drain(..).map(|(_, bytes)| bytes).collect();
        // Every other packet is read 15 ms late.
        let waited = if n % 2 == 0 { Duration::ZERO } else { Duration::from_millis(15) };
        sim.advance(waited);
        for bytes in &datagrams {
            let datagram = ReceivedDatagram { from: sim.peer_address, bytes, waited };
            sim.leg.receive(sim.clock.now(), datagram, &mut out);
        }
        sim.advance(Duration::from_millis(20) - waited);
    }
    let inbound = sim.counters.quality.read().inbound;
    assert!(inbound.packets > 90 && inbound.jitter < Duration::from_millis(1), "{inbound:?}");
}

#[test]
fn datagrams_are_urgent_while_a_leg_connects_and_while_somebody_listens() {
    let mut sim = Simulation::new(13, NetworkConditions::default());
    assert!(sim.leg.is_live(), "connecting");
    sim.connect();
    sim.advance(Duration::from_secs(1));
    assert!(!sim.leg.is_live(), "only plays");
    let (end, tap) = super::tap::tap(super::tap::TapSides::Received);
    sim.command(LegCommand::Tap(end));
    assert!(sim.leg.is_live(), "tapped");
    drop(tap);
    sim.advance(Duration::from_millis(40));
    assert!(!sim.leg.is_live(), "the tap has ended");
    let (_feed, end) = super::feed::feed(2);
    sim.command(LegCommand::Feed(Box::new(end)));
    assert!(sim.leg.is_live(), "fed");
}

#[test]
fn reports_the_missing_step_after_3_and_8_seconds() {
    let missing = |sim: &Simulation| -> Vec<(MissingStep, u64)> {
        let events = sim.events.lock().expect("log");
        let missing = events.iter().filter_map(|event| match event {
            LegEvent::NoAudio { missing, waited, .. } => Some((*missing, waited.as_secs())),
            _ => None,
        });
        missing.collect()
    };
    let mut sim = Simulation::new(14, NetworkConditions::default());
    sim.is_blocked = |_, _| true;
    sim.advance(Duration::from_secs(12));
    assert_eq!(missing(&sim), [(MissingStep::Check, 3), (MissingStep::Check, 8)]);

    let mut sim = Simulation::new(15, NetworkConditions::default());
    sim.is_blocked = |_, datagram| stun::classify(datagram) == Kind::NotStun;
    sim.advance(Duration::from_secs(5));
    assert_eq!(missing(&sim), [(MissingStep::Handshake, 3)]);
    sim.is_blocked = |_, _| false;
    sim.advance(Duration::from_secs(5));
    assert_eq!(missing(&sim), [(MissingStep::Handshake, 3), (MissingStep::Packet, 8)]);

    let mut sim = Simulation::new(16, NetworkConditions::default());
    sim.connect();
    sim.peer.send_audio(&[0x48, 1, 2]);
    sim.advance(Duration::from_secs(12));
    assert!(missing(&sim).is_empty(), "nothing is missing");
}

#[test]
fn str0m_carries_rtp_without_usable_keys() {
    let mut sim = Simulation::new(12, NetworkConditions::default());
    sim.leg.disable_transport();
    sim.connect();
    assert!(!sim.leg.has_transport());
    sim.peer.received.clear();
    sim.advance(Duration::from_secs(10));
    assert!((499..=501).contains(&sim.peer.received.len()), "{}", sim.peer.received.len());
    sim.type_keys("17");
    assert_eq!(sim.digits(), "17");
}

#[test]
fn follows_a_peer_to_another_address() {
    let options = PeerOptions { lite: false, ..PeerOptions::default() };
    let mut sim = Simulation::with(&options, 13, NetworkConditions::default());
    sim.connect();
    sim.advance(Duration::from_secs(1));
    sim.peer_address = SocketAddr::from(([10, 9, 9, 9], 5_555));
    sim.peer.received.clear();
    let took =
        sim.until(Duration::from_secs(20), |w| w.peer.received.len() > 50).expect("audio again");
    assert!(took <= Duration::from_secs(8), "{took:?}");
    sim.type_keys("3");
    assert_eq!(sim.digits(), "3");
    assert!(!sim.is_lost());
}

/// Somebody sends a copy of one of the peer's checks, and of its DTLS packets, from their own address
/// while the peer is silent.
#[test]
fn r19_a_copied_nomination_moves_no_media() {
    let options = PeerOptions { lite: false, ..PeerOptions::default() };
    let mut sim = Simulation::with(&options, 14, NetworkConditions::default());
    sim.connect();
    sim.advance(Duration::from_secs(1));
    let mut nominations = sim.captured.iter().filter(|datagram| stun::is_nomination(datagram));
    let nomination = nominations.next_back().expect("a nomination").clone();
    let is_dtls = |datagram: &&Vec<u8>| (20..64).contains(&datagram[0]);
    let dtls: Vec<_> = sim.captured.iter().filter(is_dtls).cloned().collect();
    sim.is_blocked = |to_leg, _| to_leg;
    sim.advance(Duration::from_secs(2));
    let thief = SocketAddr::from(([10, 6, 6, 6], 666));
    sim.sent.clear();
    for datagram in std::iter::once(&nomination).chain(&dtls).chain([&nomination]) {
        let mut out = SendBuffer::default();
        let datagram = ReceivedDatagram { from: thief, bytes: datagram, waited: Duration::ZERO };
        sim.leg.receive(sim.clock.now(), datagram, &mut out);
        sim.send_all(out);
    }
    sim.advance(Duration::from_secs(5));
    let to_thief = |(_, to, datagram): &&(Instant, SocketAddr, Vec<u8>)| {
        *to == thief && (128..192).contains(&datagram[0])
    };
    assert_eq!(sim.sent.iter().filter(to_thief).count(), 0, "media");
    let checks = sim.sent.iter().filter(|(_, to, d)| *to == thief && stun::check_id(d).is_some());
    assert!((1..=4).contains(&checks.count()), "the address is checked");
    sim.is_blocked = |_, _| false;
    sim.peer.received.clear();
    sim.until(Duration::from_secs(1), |w| w.peer.received.len() > 20).expect("audio");
    sim.type_keys("3");
    assert_eq!(sim.digits(), "3");
}

#[test]
fn follows_a_peer_to_another_address_on_a_lossy_network() {
    let options = PeerOptions { lite: false, ..PeerOptions::default() };
    for seed in 0..5 {
        let mut sim = Simulation::with(&options, seed, NetworkConditions::default());
        sim.connect();
        sim.advance(Duration::from_secs(1));
        sim.conditions = NetworkConditions { lost: 30, duplicated: 5, jitter_ms: 60 };
        sim.peer_address = SocketAddr::from(([10, 9, 9, 9], 5_555));
        sim.peer.received.clear();
        sim.until(Duration::from_secs(25), |w| w.peer.received.len() > 50).expect("audio again");
        assert!(!sim.is_lost(), "seed {seed}");
    }
}

#[test]
fn connects_on_a_lossy_network() {
    let mut slowest = Duration::ZERO;
    for seed in 0..10 {
        let mut sim =
            Simulation::new(seed, NetworkConditions { lost: 10, duplicated: 5, jitter_ms: 60 });
        slowest = slowest.max(sim.connect());
    }
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
}

#[test]
fn counts_every_key_once_on_a_bad_network() {
    let conditions = NetworkConditions { lost: 30, duplicated: 5, jitter_ms: 200 };
    for seed in 0..5 {
        let mut sim = Simulation::new(seed, NetworkConditions::default());
        sim.connect();
        sim.conditions = conditions;
        sim.type_keys("1223334444555550");
        assert_eq!(sim.digits(), "1223334444555550", "seed {seed}");
        assert!(!sim.is_lost(), "seed {seed}");
    }
}

#[test]
fn survives_an_outage_of_20_seconds_but_not_a_permanent_one() {
    let mut sim =
        Simulation::new(3, NetworkConditions { jitter_ms: 40, ..NetworkConditions::default() });
    sim.connect();
    sim.is_blocked = |_, _| true;
    sim.advance(Duration::from_secs(20));
    sim.is_blocked = |_, _| false;
    sim.advance(Duration::from_secs(40));
    assert!(!sim.is_lost());
    sim.type_keys("5");
    assert_eq!(sim.digits(), "5", "both directions work again");

    sim.is_blocked = |_, _| true;
    let took =
        sim.until(Duration::from_secs(60), Simulation::is_lost).expect("lost after the timeout");
    assert!((25..=31).contains(&took.as_secs()), "30 s after the last valid packet: {took:?}");
}

#[test]
fn keeps_a_muted_peer_that_answers_checks() {
    let mut sim = Simulation::new(4, NetworkConditions::default());
    sim.connect();
    sim.advance(Duration::from_secs(120));
    assert!(!sim.is_lost(), "checks are answered");
}

#[test]
fn drops_a_peer_without_consent_even_if_it_sends() {
    let mut sim = Simulation::new(5, NetworkConditions::default());
    sim.connect();
    sim.is_blocked = |to_leg, datagram| to_leg && stun::classify(datagram) != Kind::NotStun;
    let mut took = Duration::ZERO;
    while !sim.is_lost() && took < Duration::from_secs(60) {
        sim.peer.send_audio(&[0x48, 1, 2]);
        sim.advance(Duration::from_millis(20));
        took += Duration::from_millis(20);
    }
    assert!((30..=40).contains(&took.as_secs()), "{took:?}");
}

#[test]
fn r19_sends_at_most_thirty_paced_checks_to_a_dead_candidate() {
    let clock = Clock::stepped(Timestamp::from_micros(1_790_000_000_000_000));
    let media = media(&clock);
    let peer = Peer::simulated(&PeerOptions::default(), SocketAddr::from(PEER), clock.clone());
    let more: String =
        (1..=30).map(|n| format!("a=candidate:{n} 1 udp 1 10.1.0.{n} 9 typ host\r\n")).collect();
    let offer = Offer::parse(&(peer.offer_text() + &more), true).expect("offer");
    let AnsweredLeg { mut leg, .. } = create_leg(&media, &offer, &Arc::default()).0;
    let mut sent: HashMap<SocketAddr, usize> = HashMap::new();
    let mut out = SendBuffer::default();
    let mut run = |leg: &mut Leg, seconds: u32| {
        for _ in 0..seconds * 50 {
            clock.step(Duration::from_millis(20));
            leg.tick(clock.now(), &mut out);
            assert!(out.len() <= 1, "{} datagrams in one tick", out.len());
            for (to, datagram) in out.iter() {
                assert!(stun::check_id(datagram).is_some(), "only checks");
                *sent.entry(to).or_default() += 1;
            }
            out.clear();
        }
        sent.clone()
    };
    assert!(run(&mut leg, 5).is_empty(), "nothing before Begin");
    leg.execute(clock.now(), LegCommand::Begin, &mut SendBuffer::default());
    leg.execute(clock.now(), LegCommand::Open, &mut SendBuffer::default());
    let sent = run(&mut leg, 120);
    assert_eq!(sent.len(), 16, "the first sixteen candidates");
    assert!(sent.values().all(|n| (3..=30).contains(n)), "{sent:?}");

    let AnsweredLeg { mut leg, .. } = create_leg(&media, &peer.offer(), &Arc::default()).0;
    leg.execute(clock.now(), LegCommand::Begin, &mut SendBuffer::default());
    let mut sent = 0;
    for _ in 0..120 * 50 {
        clock.step(Duration::from_millis(20));
        leg.tick(clock.now(), &mut out);
        assert!(out.len() <= 1, "{} datagrams in one tick", out.len());
        sent += out.len();
        out.clear();
    }
    assert!((20..=30).contains(&sent), "{sent}");
}

#[test]
fn sent_digits_arrive_on_a_bad_network() {
    let mut sim = Simulation::new(8, NetworkConditions::default());
    sim.connect();
    sim.conditions = NetworkConditions { lost: 20, duplicated: 5, jitter_ms: 30 };
    sim.peer.received.clear();
    let play = machine::PlayId(4);
    sim.command(LegCommand::SendDigits(play, "0123456789*#".to_owned()));
    sim.until(Duration::from_secs(10), |w| w.has(&LegEvent::DigitsSent(play))).expect("sent");
    sim.advance(Duration::from_secs(1));
    let mut receiver = dtmf::Receiver::default();
    let mut digits = Vec::new();
    let mut received = sim.peer.received.clone();
    received.sort_by_key(|h| h.at);
    for h in received.iter().filter(|h| h.pt == 126) {
        receiver.tick(h.at, &mut digits);
        receiver.receive(h.at, h.ssrc, h.timestamp, &h.payload, &mut digits);
    }
    receiver.tick(sim.clock.now(), &mut digits);
    assert_eq!(digits.iter().map(|d| d.as_char()).collect::<String>(), "0123456789*#");
}

#[test]
fn r19_replayed_and_forged_packets_have_no_effect() {
    let mut sim = Simulation::new(6, NetworkConditions::default());
    sim.connect();
    sim.type_keys("159");
    sim.peer.send_audio(&[0x48, 1, 2]);
    sim.advance(Duration::from_secs(6));
    assert_eq!(sim.digits(), "159");
    // The recording of an eavesdropper: SRTP, SRTCP and the whole handshake.
    let captured: Vec<Vec<u8>> =
        sim.captured.iter().filter(|d| stun::classify(d) == Kind::NotStun).cloned().collect();
    assert!(captured.len() > 80, "{}", captured.len());
    let altered = |datagram: &[u8], n: usize| {
        let mut altered = datagram.to_vec();
        match n % 6 {
            // Unchanged.
            0 => {}
            1 => *altered.last_mut().expect("a byte") ^= 1,
            // In RTP: sequence number, timestamp, SSRC, payload type; in DTLS: epoch, sequence
            // number, length.
            2 => altered[3] = altered[3].wrapping_add(77),
            3 => altered[7] ^= 0x55,
            4 => altered[9] ^= 0x55,
            _ => altered[1] ^= 0x11,
        }
        altered
    };
    sim.is_blocked = |_, _| true;
    let events = sim.events.lock().expect("log").len();
    let _ = sim.leg.take_counts();
    let mut tries = 0;
    let mut took = Duration::ZERO;
    while !sim.is_lost() && took < Duration::from_secs(60) {
        for _ in 0..4 {
            let datagram = altered(&captured[tries % captured.len()], tries / captured.len());
            let mut out = SendBuffer::default();
            let (from, waited) = (SocketAddr::from(PEER), Duration::ZERO);
            let datagram = ReceivedDatagram { from, bytes: &datagram, waited };
            sim.leg.receive(sim.clock.now(), datagram, &mut out);
            sim.send_all(out);
            tries += 1;
        }
        sim.advance(Duration::from_millis(20));
        took += Duration::from_millis(20);
    }
    assert!((24..=31).contains(&took.as_secs()), "30 s after the last valid packet: {took:?}");
    assert!(tries > captured.len() * 6, "every packet in every form");
    assert_eq!(sim.digits(), "159", "no digit counts again");
    assert_eq!(sim.leg.take_counts().0, 0, "nothing authenticated");
    assert_eq!(sim.events.lock().expect("log").len(), events + 1, "only the loss is reported");
}
