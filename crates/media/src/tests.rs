//! End-to-end tests of legs over loopback: a shard on one side, a str0m peer on the other.

mod hand_over;
mod strangers;

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::dtmf;
use super::packet_mixer::testing::{strength, tone};
use super::prompt::{Frame, Prompt};
use super::sdp::{Offer, Setup, check_answer};
use super::test_peer::{Peer, PeerOptions, PeerPacket, pump, pump_for, socket};
use super::{
    Buffering, EventSink, FEED_MAX, Feed, LegEvent, LegHandle, Media, MediaConfig, MediaError,
    PlayItem, TapReader, TapSides,
};
use crate::opus::{Decoder, Encoder, Rate};
use machine::{MediaEvent, MediaFault, PlayId};
use model::Clock;
use xml::ast::Repeat;

const PLAY: PlayId = PlayId(1);

fn config() -> MediaConfig {
    MediaConfig {
        listen: "127.0.0.1:0".parse().expect("address"),
        max_ports: 8,
        turn: None,
        public_ips: Vec::new(),
        shards: 1,
        media_dead: Duration::from_secs(30),
        loopback_offers: false,
        inherited: Vec::new(),
    }
}

fn start(config: MediaConfig) -> Arc<Media> {
    Media::start(config, Clock::real()).expect("media")
}

/// The events of a leg.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<LegEvent>>>);

impl Log {
    fn sink(&self) -> EventSink {
        let log = self.0.clone();
        Arc::new(move |event| log.lock().expect("log").push(event))
    }

    fn all(&self) -> Vec<LegEvent> {
        self.0.lock().expect("log").clone()
    }

    fn has(&self, event: &LegEvent) -> bool {
        self.all().contains(event)
    }

    fn has_media(&self, event: MediaEvent) -> bool {
        self.has(&LegEvent::Media(event))
    }

    fn digits(&self) -> String {
        let key = |e| if let LegEvent::Digit(d) = e { Some(d.as_char()) } else { None };
        self.all().into_iter().filter_map(key).collect()
    }
}

/// A call: the peer, our handle, and the leg's events.
struct Call {
    peer: [Peer; 1],
    leg: LegHandle,
    log: Log,
}

/// A leg that has answered and started its checks, but is not open.
fn call(media: &Media, peer: Peer) -> Call {
    let log = Log::default();
    let offer = peer.offer();
    let (leg, answer) = media.answer(&offer, log.sink()).expect("answer");
    check_answer(&offer, &answer).expect("an answer that Meta takes");
    let mut peer = [peer];
    peer[0].accept(&answer);
    leg.begin();
    Call { peer, leg, log }
}

impl Call {
    fn until(&mut self, what: &str, mut done: impl FnMut(&Peer, &Log) -> bool) {
        let log = self.log.clone();
        pump(&mut self.peer, what, |peers| done(&peers[0], &log));
    }

    fn connect(&mut self) {
        self.until("connected", |peer, log| peer.connected && log.has_media(MediaEvent::Connected));
    }

    fn live(media: &Media, peer: Peer) -> Self {
        let mut call = call(media, peer);
        call.leg.open();
        call.connect();
        call
    }

    fn type_keys(&mut self, pt: u8, clock: u32, keys: &str) {
        let mut sender = dtmf::Sender::new(keys, clock);
        let mut timestamp = 90_000;
        loop {
            match sender.step(timestamp) {
                dtmf::Step::Event { payload, timestamp, marker } => {
                    self.peer[0].send(pt, timestamp, marker, &payload)
                }
                dtmf::Step::Pause | dtmf::Step::Wait => {}
                dtmf::Step::Done => break,
            }
            timestamp += 960;
        }
    }
}

/// A prompt of distinguishable frames.
fn prompt(name: u8, frames: u8) -> (Arc<Prompt>, Vec<Vec<u8>>) {
    let frames: Vec<Vec<u8>> = (0..frames).map(|n| vec![0x48, name, n, 1, 2, 3]).collect();
    (Prompt::from_frames(frames.iter().map(|f| Frame::from(f.as_slice()))), frames)
}

fn play_once(prompt: &Arc<Prompt>) -> Vec<PlayItem> {
    vec![PlayItem { prompt: prompt.clone(), repeat: Repeat::Times(1) }]
}

/// The frames of a prompt have six bytes, silence has not.
fn is_frame_of(received: &PeerPacket, name: u8) -> bool {
    received.payload.len() == 6 && received.payload[1] == name
}

fn sound(received: &[PeerPacket], name: u8) -> Vec<Vec<u8>> {
    received
        .iter()
        .filter(|h| h.pt == 111 && is_frame_of(h, name))
        .map(|h| h.payload.clone())
        .collect()
}

#[test]
fn plays_the_first_frame_completely_and_nothing_before_open() {
    let media = start(config());
    let mut call = call(&media, Peer::new(&PeerOptions::default()));
    let (prompt, frames) = prompt(7, 30);
    call.leg.play(PLAY, play_once(&prompt));
    call.connect();
    pump_for(&mut call.peer, Duration::from_millis(100));
    assert!(call.peer[0].received.is_empty(), "nothing is sent before accept's 200");
    assert!(!call.log.has(&LegEvent::PlayStarted(PLAY)));

    call.leg.open();
    call.until("played", |_, log| log.has(&LegEvent::Played(PLAY)));
    let before = call.peer[0].received.len();
    call.until("silence", |peer, _| peer.received.len() >= before + 5);
    let received = &call.peer[0].received;
    assert_eq!(sound(received, 7), frames, "complete and in order");
    assert!(
        received[0].marker && received[0].payload == frames[0],
        "the first packet is the first frame"
    );
    assert_eq!(received.iter().filter(|h| h.marker).count(), 1);
    for pair in received.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(960));
        assert_eq!(
            pair[1].ssrc,
            call.peer[0].answer.as_ref().and_then(|a| a.ssrc).expect("announced")
        );
    }
    assert!(
        received[30..].iter().all(|h| h.payload == *crate::opus::silence_frame()),
        "silence afterwards"
    );

    let connected = [MediaEvent::IceUp, MediaEvent::Connected].map(LegEvent::Media);
    let events = call.log.all();
    let played = [LegEvent::PlayStarted(PLAY), LegEvent::FirstSent, LegEvent::Played(PLAY)];
    assert_eq!(events, [&connected[..], &played].concat());
    call.peer[0].send_audio(&[0x48, 1, 2]);
    call.until("the peer's first packet", |_, log| log.has_media(MediaEvent::FirstPacket));
    assert_eq!(call.leg.stats().rtp_in, 1);
    assert!(media.stats().packets_out >= 35);
}

#[test]
fn sends_a_packet_every_20_ms() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&PeerOptions::default()));
    call.until("a hundred packets", |peer, _| peer.received.len() >= 101);
    let received = &call.peer[0].received;
    let took = received[100].at - received[0].at;
    // `ticker` tests the exact timing; on a busy machine either thread may be delayed here.
    assert!((1_500..4_000).contains(&took.as_millis()), "100 packets in {took:?}");
}

#[test]
fn connects_in_every_role_with_audio_both_ways() {
    let media = start(config());
    for lite in [true, false] {
        for setup in [Setup::Actpass, Setup::Active, Setup::Passive] {
            let options = PeerOptions { lite, setup, ..PeerOptions::default() };
            let mut call = Call::live(&media, Peer::new(&options));
            let answer = call.peer[0].answer.clone().expect("answer");
            assert_eq!(answer.setup, setup.answer_role(), "{options:?}");
            assert_eq!(answer.ice_lite, !lite, "{options:?}");
            let (prompt, frames) = prompt(9, 5);
            call.leg.play(PLAY, play_once(&prompt));
            call.peer[0].send_audio(&[0x48, 1, 2]);
            call.until("audio both ways", |peer, log| {
                sound(&peer.received, 9).len() == frames.len()
                    && log.has_media(MediaEvent::FirstPacket)
            });
        }
    }
}

#[test]
fn receives_digits_at_both_clock_rates() {
    let media = start(config());
    for (pt, clock) in [(126, 8_000), (101, 48_000)] {
        let options = PeerOptions { telephone_events: vec![(pt, clock)], ..PeerOptions::default() };
        let mut call = Call::live(&media, Peer::new(&options));
        call.type_keys(pt, clock, "1990*#");
        call.until("six keys", |_, log| log.digits().len() >= 6);
        assert_eq!(call.log.digits(), "1990*#");

        // A key without end packets counts as well.
        call.peer[0].send(pt, 5_000_000, true, &[4, 0x0A, 0, 160]);
        call.until("a key without an end", |_, log| log.digits().len() >= 7);
        assert_eq!(call.log.digits(), "1990*#4");
    }
}

#[test]
fn sends_digits_while_the_prompt_waits() {
    let media = start(config());
    for (pt, clock) in [(126, 8_000), (110, 48_000)] {
        let options = PeerOptions { telephone_events: vec![(pt, clock)], ..PeerOptions::default() };
        let mut call = Call::live(&media, Peer::new(&options));
        let (prompt, frames) = prompt(3, 20);
        call.leg.play(PLAY, play_once(&prompt));
        call.leg.send_digits(PlayId(2), "15w#");
        call.until("digits and prompt", |peer, log| {
            log.has(&LegEvent::DigitsSent(PlayId(2)))
                && sound(&peer.received, 3).len() == frames.len()
        });
        let received = &call.peer[0].received;
        assert_eq!(sound(received, 3), frames);
        let mut receiver = dtmf::Receiver::default();
        let mut digits = Vec::new();
        for h in received.iter().filter(|h| h.pt == pt) {
            receiver.receive(h.at, h.ssrc, h.timestamp, &h.payload, &mut digits);
        }
        assert_eq!(digits.iter().map(|d| d.as_char()).collect::<String>(), "15#");
        assert!(
            received.windows(2).all(|p| p[1].sequence == p[0].sequence.wrapping_add(1)),
            "consecutive sequence numbers"
        );
        assert_eq!(received.iter().filter(|h| h.pt == pt).count(), 30, "ten packets a digit");
        let last_key = received.iter().rposition(|h| h.pt == pt).expect("keys were sent");
        let frames_before = sound(&received[..last_key], 3).len();
        assert!(
            frames_before >= 20,
            "{frames_before}: the prompt plays during the pause between digits"
        );
    }

    // Without telephone-event, digits are sent and received as tones.
    let options = PeerOptions { telephone_events: vec![], ..PeerOptions::default() };
    let mut call = Call::live(&media, Peer::new(&options));
    call.leg.send_digits(PLAY, "15#w0");
    call.until("told", |_, log| log.has(&LegEvent::DigitsSent(PLAY)));
    let sounds: Vec<_> = call.peer[0].received.iter().map(|h| h.payload.clone()).collect();
    assert!(call.peer[0].received.iter().all(|h| h.pt == 111));
    for (n, payload) in sounds.iter().enumerate() {
        call.peer[0].send(111, n as u32 * 960, n == 0, payload);
    }
    call.until("keys", |_, log| log.digits() == "15#0");
}

#[test]
fn a_stopped_prompt_is_silent_within_60_ms() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&PeerOptions::default()));
    let (prompt, _) = prompt(5, 50);
    call.leg.play(PLAY, vec![PlayItem { prompt, repeat: Repeat::Endless }]);
    call.until("sound", |peer, _| sound(&peer.received, 5).len() > 60);
    call.leg.stop(PlayId(99));
    call.leg.stop(PLAY);
    let sent = call.leg.stats().rtp_out as usize;
    call.until("silence", |peer, _| peer.received.len() >= sent + 10);
    // Loopback loses nothing, so packets beyond this count were sent after the command.
    let after = call.peer[0].received[sent..].iter().filter(|h| is_frame_of(h, 5)).count();
    assert!(after <= 3, "{after} packets of 20 ms after the command");
    call.leg.play(PlayId(2), play_once(&self::prompt(6, 1).0));
    call.until("the next play", |_, log| log.has(&LegEvent::Played(PlayId(2))));
    assert!(!call.log.has(&LegEvent::Played(PLAY)), "a stopped play reports no end");
}

#[test]
fn a_new_playlist_replaces_the_old_one_and_skips_failed_prompts() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&PeerOptions::default()));
    let (endless, _) = prompt(1, 5);
    call.leg.play(PLAY, vec![PlayItem { prompt: endless, repeat: Repeat::Endless }]);
    call.until("the first", |_, log| log.has(&LegEvent::PlayStarted(PLAY)));
    let (slow, mut writer) = Prompt::new();
    let (failed, failing) = Prompt::new();
    let items = [failed, slow].map(|prompt| PlayItem { prompt, repeat: Repeat::Times(1) }).into();
    call.leg.play(PlayId(2), items);
    failing.fail("no voice");
    call.until("the failure", |_, log| {
        log.has(&LegEvent::PlayFailed { play: PlayId(2), item: 0, reason: "no voice".to_owned() })
    });
    let before = call.peer[0].received.len();
    call.until("silence while the prompt is pending", |peer, _| peer.received.len() > before + 3);
    writer.push(Frame::from([0x48, 2, 0, 1, 2, 3]));
    writer.finish();
    call.until("played", |_, log| log.has(&LegEvent::Played(PlayId(2))));
    assert_eq!(sound(&call.peer[0].received, 2).len(), 1);
    assert!(!call.log.has(&LegEvent::Played(PLAY)));
}

#[test]
fn calls_with_one_peer_address_get_separate_ports() {
    let media = start(config());
    let relay = socket("127.0.0.1:0");
    let mut peers = Vec::new();
    let mut legs = Vec::new();
    for n in 1..=2u8 {
        let mut peer = Peer::at(&PeerOptions::default(), relay.clone());
        let log = Log::default();
        let (leg, answer) = media.answer(&peer.offer(), log.sink()).expect("answer");
        peer.accept(&answer);
        leg.begin();
        leg.open();
        leg.play(PLAY, play_once(&prompt(n, 10).0));
        peers.push(peer);
        legs.push((leg, log));
    }
    assert_ne!(peers[0].remote, peers[1].remote, "one socket cannot tell them apart");
    assert_eq!(media.stats().ports_open, 2);
    pump(&mut peers, "both played", |_| {
        legs.iter().all(|(_, log)| log.has(&LegEvent::Played(PLAY)))
    });
    for (n, peer) in (1u8..).zip(&peers) {
        assert_eq!(sound(&peer.received, n), prompt(n, 10).1, "its own prompt");
        assert!(sound(&peer.received, 3 - n).is_empty());
    }
    for (peer, key) in peers.iter_mut().zip(["1", "2"]) {
        let mut sender = dtmf::Sender::new(key, 8_000);
        while let dtmf::Step::Event { payload, timestamp, marker } = sender.step(77) {
            peer.send(126, timestamp, marker, &payload);
        }
    }
    pump(&mut peers, "one digit each", |_| legs.iter().all(|(_, log)| !log.digits().is_empty()));
    assert_eq!(legs.iter().map(|(_, log)| log.digits()).collect::<Vec<_>>(), ["1", "2"]);
}

/// With a single port, legs that share a peer address share it
/// (docs/reference/media.md#shared-port).
#[test]
fn calls_with_one_peer_address_can_share_a_port() {
    let narrow = start(MediaConfig { max_ports: 1, ..config() });
    let relay = socket("127.0.0.1:0");
    let mut peers = Vec::new();
    let mut legs = Vec::new();
    for n in 1..=3u8 {
        let mut peer = Peer::at(&PeerOptions::default(), relay.clone());
        let log = Log::default();
        let (leg, answer) = narrow.answer(&peer.offer(), log.sink()).expect("answer");
        peer.accept(&answer);
        leg.begin();
        leg.open();
        leg.play(PLAY, play_once(&prompt(n, 10).0));
        peers.push(peer);
        legs.push((leg, log));
    }
    assert!(peers.iter().all(|p| p.remote == peers[0].remote));
    pump(&mut peers, "all connected", |_| {
        legs.iter().all(|(_, log)| log.has_media(MediaEvent::Connected))
    });
    pump(&mut peers, "all played", |_| {
        legs.iter().all(|(_, log)| log.has(&LegEvent::Played(PLAY)))
    });
    for (n, peer) in (1u8..).zip(&peers) {
        assert_eq!(sound(&peer.received, n), prompt(n, 10).1, "its own prompt");
    }
    // All use the same SSRC, then one changes it. Each digit reaches the right leg.
    peers[2].change_ssrc(77);
    for (peer, key) in peers.iter_mut().zip(["1", "2", "3"]) {
        let mut sender = dtmf::Sender::new(key, 8_000);
        while let dtmf::Step::Event { payload, timestamp, marker } = sender.step(77) {
            peer.send(126, timestamp, marker, &payload);
        }
    }
    pump(&mut peers, "one digit each", |_| legs.iter().all(|(_, log)| !log.digits().is_empty()));
    assert_eq!(legs.iter().map(|(_, log)| log.digits()).collect::<Vec<_>>(), ["1", "2", "3"]);
    // One peer hangs up; the other calls continue.
    peers[1].close();
    let closed = MediaEvent::Lost { fault: MediaFault::DtlsClosed };
    pump(&mut peers, "one closed", |_| legs[1].1.has_media(closed.clone()));
    let received = peers[2].received.len();
    pump(&mut peers, "the others continue", |peers| peers[2].received.len() > received + 20);
    assert!(!legs[0].1.has_media(closed.clone()) && !legs[2].1.has_media(closed));
}

/// A stranger can name the address of another call's peer in an offer.
#[test]
fn calls_that_nobody_connects_do_not_delay_another_with_their_address() {
    let narrow = start(MediaConfig { max_ports: 1, ..config() });
    let relay = socket("127.0.0.1:0");
    let begin = || {
        let peer = Peer::at(&PeerOptions::default(), relay.clone());
        let log = Log::default();
        let (leg, answer) = narrow.answer(&peer.offer(), log.sink()).expect("answer");
        leg.begin();
        leg.open();
        (peer, leg, log, answer)
    };
    let strangers: Vec<_> = (0..24).map(|_| begin()).collect();
    let (mut peer, leg, log, answer) = begin();
    peer.accept(&answer);
    leg.play(PLAY, play_once(&prompt(1, 10).0));
    let mut peers = [peer];
    pump(&mut peers, "connected", |_| log.has_media(MediaEvent::Connected));
    pump(&mut peers, "played", |_| log.has(&LegEvent::Played(PLAY)));
    assert_eq!(sound(&peers[0].received, 1), prompt(1, 10).1);
    let connected = |(_, _, log, _): &(_, _, Log, _)| log.has_media(MediaEvent::Connected);
    assert!(!strangers.iter().any(connected));
}

#[test]
fn connects_a_browser_without_candidates() {
    let media = start(config());
    let mut peer = [Peer::new(&PeerOptions { lite: false, ..PeerOptions::default() })];
    let hidden = peer[0].offer_text().replace(" 127.0.0.1 ", " 4b2a-11.local ");
    let offer = Offer::parse(&hidden, true).expect("usable");
    assert!(offer.candidates.is_empty());
    let log = Log::default();
    let (leg, answer) = media.answer(&offer, log.sink()).expect("answer");
    peer[0].accept(&answer);
    leg.begin();
    leg.open();
    pump(&mut peer, "heard", |peers| {
        log.has_media(MediaEvent::Connected) && !peers[0].received.is_empty()
    });
}

#[test]
fn follows_unannounced_and_changed_ssrcs() {
    let media = start(config());
    let options = PeerOptions { announce_ssrc: false, ..PeerOptions::default() };
    let mut call = Call::live(&media, Peer::new(&options));
    call.peer[0].send_audio(&[0x48, 1, 2]);
    call.until("heard", |_, log| log.has_media(MediaEvent::FirstPacket));
    for ssrc in 1..=6 {
        call.peer[0].change_ssrc(ssrc);
        call.type_keys(126, 8_000, "7");
        let want = ssrc as usize;
        call.until("a key under a new SSRC", |_, log| log.digits().len() == want);
    }
}

#[test]
fn both_ends_report_the_others_close() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&PeerOptions::default()));
    call.peer[0].close();
    call.until("told", |_, log| log.has_media(MediaEvent::Lost { fault: MediaFault::DtlsClosed }));
    drop(call);

    let mut call = Call::live(&media, Peer::new(&PeerOptions::default()));
    call.leg.close();
    call.until("closed", |peer, _| peer.closed);
    let events = call.log.all().len();
    drop(call.leg);
    pump(&mut call.peer, "no leg is left", |_| media.stats().legs == 0);
    assert_eq!(call.log.all().len(), events, "nothing follows a close");
}

#[test]
fn a_vanished_peer_is_lost_after_the_timeout() {
    let media = start(MediaConfig { media_dead: Duration::from_millis(400), ..config() });
    let mut call = Call::live(&media, Peer::new(&PeerOptions::default()));
    // Muted but present: occasional audio keeps the leg alive.
    for _ in 0..3 {
        pump_for(&mut call.peer, Duration::from_millis(150));
        call.peer[0].send_audio(&[0x48, 1, 2]);
    }
    let lost = LegEvent::Media(MediaEvent::Lost { fault: MediaFault::Silent });
    assert!(!call.log.has(&lost));
    let Call { peer, leg: _leg, log } = call;
    drop(peer);
    pump(&mut [], "lost", |_| log.has(&lost));
    assert_eq!(log.all().iter().filter(|e| **e == lost).count(), 1, "once");
}

#[test]
fn a_dropped_leg_leaves_nothing() {
    let media = start(config());
    let relay = socket("127.0.0.1:0");
    for _ in 0..3 {
        let calls: Vec<_> = (0..3)
            .map(|_| {
                media.answer(
                    &Peer::at(&PeerOptions::default(), relay.clone()).offer(),
                    Log::default().sink(),
                )
            })
            .map(|made| made.expect("answer").0)
            .collect();
        assert!(media.stats().ports_open <= 3);
        drop(calls);
        pump(&mut [], "gone", |_| media.stats().legs == 0);
    }
    media.stop();
    let late = media.answer(&Peer::new(&PeerOptions::default()).offer(), Log::default().sink());
    assert!(matches!(late, Err(MediaError::Stopped)), "{late:?}");
}

#[test]
fn rejects_unserved_address_families_and_serves_dual_stack() {
    let media = start(config());
    let six = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-lite\r\na=ice-ufrag:abcd\r\na=ice-pwd:1234567890123456789012\r\n\
               a=setup:actpass\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
               a=candidate:1 1 udp 1 2001:db8::1 3480 typ host\r\n";
    let six = format!("{six}a=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":"));
    let offer = Offer::parse(&six, false).expect("usable with IPv6");
    let refused = media.answer(&offer, Log::default().sink());
    assert!(matches!(refused, Err(MediaError::NoFamily)), "{refused:?}");

    let both = MediaConfig {
        listen: "[::]:0".parse().expect("address"),
        public_ips: vec!["127.0.0.1".parse().expect("address"), "::1".parse().expect("address")],
        ..config()
    };
    // Skipped on machines without IPv6.
    let Ok(media) = Media::start(both, Clock::real()) else { return };
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let peer = Peer::at(&PeerOptions::default(), socket(at));
        let log = Log::default();
        let (leg, answer) = media.answer(&peer.offer(), log.sink()).expect("answer");
        let mut peer = [peer];
        peer[0].accept(&answer);
        let family = peer[0].addr.is_ipv6();
        peer[0].remote = peer[0]
            .answer
            .as_ref()
            .and_then(|a| a.candidates.iter().map(|c| c.addr).find(|a| a.is_ipv6() == family));
        leg.begin();
        leg.open();
        pump(&mut peer, "connected", |peers| {
            peers[0].connected && log.has_media(MediaEvent::Connected)
        });
    }
}

#[test]
fn silence_is_small_and_quiet() {
    use crate::opus::{Decoder, Rate};
    let frame = crate::opus::silence_frame();
    assert!(frame.len() <= 12, "{} bytes", frame.len());
    let mut decoder = Decoder::new(Rate::Hz16000);
    let mut pcm = Vec::new();
    for _ in 0..5 {
        decoder.decode(Some(&frame), false, &mut pcm).expect("decodes");
        assert!(
            pcm.iter().all(|s| s.unsigned_abs() <= 4),
            "{:?}",
            pcm.iter().map(|s| s.unsigned_abs()).max()
        );
    }
}

#[test]
fn taps_and_feeds_audio() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&PeerOptions::default()));
    let mut line = TapReader::new(call.leg.tap(TapSides::Both), Rate::Hz16000, Buffering::Jitter);
    let feed = call.leg.feed(2);
    let mut encoder = Encoder::for_prompts();
    let loud: Vec<i16> = (0..320).map(|n| if n % 40 < 20 { 9_000 } else { -9_000 }).collect();
    let loud_frames: Vec<Frame> = (0..12).map(|_| encoder.encode(&loud)).collect();
    loud_frames.iter().for_each(|frame| assert!(feed.push(frame.clone())));
    let (prompt, _) = prompt(7, 3);
    call.until("fed", |peer, _| {
        loud_frames.iter().all(|frame| peer.received.iter().any(|h| h.payload[..] == frame[..]))
    });
    assert_eq!((feed.taken(), feed.waiting()), (12, 0));

    loud_frames
        .iter()
        .enumerate()
        .for_each(|(n, frame)| call.peer[0].send(111, n as u32 * 960, n == 0, frame));
    let is_loud = |pcm: &[i16]| pcm.iter().filter(|s| s.abs() > 3_000).count() > 100;
    let (mut loud_received, mut loud_sent) = (0, 0);
    call.until("tapped", |_, _| {
        while let Some(frame) = line.next() {
            loud_received += usize::from(is_loud(frame.received));
            loud_sent += usize::from(is_loud(frame.sent));
        }
        loud_received >= 8 && loud_sent >= 8
    });

    // A prompt has precedence over the feed. A feed ends when its sender is dropped.
    (0..10).for_each(|_| assert!(feed.push(loud_frames[0].clone())));
    call.leg.play(PLAY, play_once(&prompt));
    call.until("played", |_, log| log.has(&LegEvent::Played(PLAY)));
    drop(feed);
    drop(call.leg);
    pump(&mut call.peer, "over", |_| {
        while line.next().is_some() {}
        line.is_over()
    });
}

/// The feed for what a room sends to a leg.
fn room_feed(leg: &LegHandle) -> Feed {
    leg.room_jack().connect().feed
}

#[test]
fn room_audio_precedes_hold_music() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&PeerOptions::default()));
    let (music, _) = prompt(7, 100);
    call.leg.play(PLAY, play_once(&music));
    let feed = room_feed(&call.leg);
    let mut encoder = Encoder::for_prompts();
    let loud: Vec<i16> = (0..320).map(|n| if n % 40 < 20 { 9_000 } else { -9_000 }).collect();
    let loud_frames: Vec<Frame> = (0..5).map(|_| encoder.encode(&loud)).collect();
    // A quiet room sends silence to everybody.
    let quiet = crate::opus::silence_frame();
    assert!(
        feed.push(quiet.clone())
            && loud_frames.iter().all(|frame| feed.push(frame.clone()))
            && feed.push(quiet)
    );
    call.until("played", |_, log| log.has(&LegEvent::Played(PLAY)));
    let received = &call.peer[0].received;
    let places: Vec<usize> = (0..received.len())
        .filter(|n| loud_frames.iter().any(|s| received[*n].payload[..] == s[..]))
        .collect();
    assert_eq!(places.len(), loud_frames.len(), "all frames");
    assert!(places.windows(2).all(|pair| pair[1] == pair[0] + 1), "consecutive: {places:?}");
    assert_eq!(sound(received, 7).len(), 100 - loud_frames.len(), "the music continued meanwhile");
}

/// Strengths of 440 Hz and 1,000 Hz in what the peer received from its `from`th packet on.
fn received_tones(peer: &Peer, from: usize) -> [f64; 2] {
    let (mut decoder, mut pcm) = (Decoder::new(Rate::Hz16000), Vec::new());
    for packet in &peer.received[from..] {
        decoder.decode(Some(&packet.payload), false, &mut pcm).expect("Opus");
    }
    [440.0, 1_000.0].map(|hz| strength(&pcm, hz))
}

#[test]
fn mixes_room_and_feed_in_any_order() {
    let media = start(config());
    for room_first in [true, false] {
        let mut call = Call::live(&media, Peer::new(&PeerOptions::default()));
        let early = room_first.then(|| room_feed(&call.leg));
        let feed = call.leg.feed(1);
        let room = early.unwrap_or_else(|| room_feed(&call.leg));
        let (says, plays) = (tone(440.0), tone(1_000.0));
        let mut since = 0;
        let mut hear = |call: &mut Call, frames: &[(&Feed, &[Frame])]| {
            // What was sent before must have arrived.
            let sent = call.leg.stats().rtp_out;
            call.until("arrived", |peer, _| peer.received.len() as u64 >= sent);
            since = call.peer[0].received.len();
            for (feed, frames) in frames {
                assert!(frames.iter().take(FEED_MAX).all(|frame| feed.push(frame.clone())));
            }
            call.until("heard", |_, _| frames.iter().all(|(feed, _)| feed.waiting() == 0));
            received_tones(&call.peer[0], since)
        };
        // With a single source, frames pass unchanged.
        let [low, high] = hear(&mut call, &[(&room, &says)]);
        assert!(low > 0.05 && high < 0.01, "the room alone: {low} {high}");
        let [low, high] = hear(&mut call, &[(&feed, &plays)]);
        assert!(low < 0.01 && high > 0.05, "the feed alone: {low} {high}");
        let [low, high] = hear(&mut call, &[(&room, &says), (&feed, &plays)]);
        assert!(low > 0.05 && high > 0.05, "both: {low} {high}");
        drop(feed);
        let [low, _] = hear(&mut call, &[(&room, &says)]);
        assert!(low > 0.05, "the room after the feed: {low}");
    }
}
