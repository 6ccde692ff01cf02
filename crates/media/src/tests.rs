//! Legs end to end over loopback: a shard on one side, a str0m peer on the other.

mod strangers;

use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::blend::testing::{strength, tone};
use super::dtmf;
use super::prompt::{Frame, Prompt};
use super::sdp::{Offer, Setup, check_answer};
use super::test_peer::{Heard, Manner, Peer, pump, pump_for, socket};
use super::{
    EventSink, FEED_MAX, Feed, LegEvent, LegHandle, Line, Media, MediaConfig, MediaError, Patience,
    PlayItem, Sides,
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
        public_ips: Vec::new(),
        shards: 1,
        media_dead: Duration::from_secs(30),
    }
}

fn start(config: MediaConfig) -> Arc<Media> {
    Media::start(config, Clock::real()).expect("media")
}

/// What a leg has told.
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
    fn fact(&self, fact: MediaEvent) -> bool {
        self.has(&LegEvent::Fact(fact))
    }
    fn digits(&self) -> String {
        let key = |e| if let LegEvent::Digit(d) = e { Some(d.as_char()) } else { None };
        self.all().into_iter().filter_map(key).collect()
    }
}

/// A call in one hand: the peer, our handle, what our leg tells.
struct Call {
    peer: [Peer; 1],
    leg: LegHandle,
    log: Log,
}

/// Answered, begun, not yet open.
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
        self.until("connected", |peer, log| peer.connected && log.fact(MediaEvent::Connected));
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

/// A prompt whose frames can be told apart.
fn prompt(name: u8, frames: u8) -> (Arc<Prompt>, Vec<Vec<u8>>) {
    let frames: Vec<Vec<u8>> = (0..frames).map(|n| vec![0x48, name, n, 1, 2, 3]).collect();
    (Prompt::of(frames.iter().map(|f| Frame::from(f.as_slice()))), frames)
}

fn once(prompt: &Arc<Prompt>) -> Vec<PlayItem> {
    vec![PlayItem { prompt: prompt.clone(), repeat: Repeat::Times(1) }]
}

/// A prompt's frames have six bytes, silence has not.
fn is_of(heard: &Heard, name: u8) -> bool {
    heard.payload.len() == 6 && heard.payload[1] == name
}

fn sound(heard: &[Heard], name: u8) -> Vec<Vec<u8>> {
    heard.iter().filter(|h| h.pt == 111 && is_of(h, name)).map(|h| h.payload.clone()).collect()
}

#[test]
fn the_first_syllable_is_heard_and_nothing_before_open() {
    let media = start(config());
    let mut call = call(&media, Peer::new(&Manner::default()));
    let (prompt, frames) = prompt(7, 30);
    call.leg.play(PLAY, once(&prompt));
    call.connect();
    pump_for(&mut call.peer, Duration::from_millis(100));
    assert!(call.peer[0].heard.is_empty(), "nothing is sent before accept's 200");
    assert!(!call.log.has(&LegEvent::PlayStarted(PLAY)));

    call.leg.open();
    call.until("played", |_, log| log.has(&LegEvent::Played(PLAY)));
    let before = call.peer[0].heard.len();
    call.until("silence", |peer, _| peer.heard.len() >= before + 5);
    let heard = &call.peer[0].heard;
    assert_eq!(sound(heard, 7), frames, "whole, in order, nothing clipped");
    assert!(
        heard[0].marker && heard[0].payload == frames[0],
        "the first packet is the first frame"
    );
    assert_eq!(heard.iter().filter(|h| h.marker).count(), 1);
    for pair in heard.windows(2) {
        assert_eq!(pair[1].sequence, pair[0].sequence.wrapping_add(1));
        assert_eq!(pair[1].timestamp, pair[0].timestamp.wrapping_add(960));
        assert_eq!(
            pair[1].ssrc,
            call.peer[0].answer.as_ref().and_then(|a| a.ssrc).expect("announced")
        );
    }
    assert!(
        heard[30..].iter().all(|h| h.payload == *crate::opus::silence_frame()),
        "silence goes on"
    );

    let facts = [MediaEvent::IceUp, MediaEvent::Connected].map(LegEvent::Fact);
    let told = call.log.all();
    let played = [LegEvent::PlayStarted(PLAY), LegEvent::FirstSent, LegEvent::Played(PLAY)];
    assert_eq!(told, [&facts[..], &played].concat());
    call.peer[0].say(&[0x48, 1, 2]);
    call.until("the caller's first packet", |_, log| log.fact(MediaEvent::FirstPacket));
    assert_eq!(call.leg.stats().rtp_in, 1);
    assert!(media.stats().packets_out >= 35);
}

#[test]
fn packets_keep_the_pace_of_twenty_milliseconds() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&Manner::default()));
    call.until("a hundred packets", |peer, _| peer.heard.len() >= 101);
    let heard = &call.peer[0].heard;
    let took = heard[100].at - heard[0].at;
    // The beat itself is proven in `pace`; a busy machine may starve this thread or the shard's for a while.
    assert!((1_500..4_000).contains(&took.as_millis()), "100 packets in {took:?}");
}

#[test]
fn every_role_connects_and_sounds_both_ways() {
    let media = start(config());
    for lite in [true, false] {
        for setup in [Setup::Actpass, Setup::Active, Setup::Passive] {
            let manner = Manner { lite, setup, ..Manner::default() };
            let mut call = Call::live(&media, Peer::new(&manner));
            let answer = call.peer[0].answer.clone().expect("answer");
            assert_eq!(answer.setup, setup.answered(), "{manner:?}");
            assert_eq!(answer.ice_lite, !lite, "{manner:?}");
            let (prompt, frames) = prompt(9, 5);
            call.leg.play(PLAY, once(&prompt));
            call.peer[0].say(&[0x48, 1, 2]);
            call.until("sound both ways", |peer, log| {
                sound(&peer.heard, 9).len() == frames.len() && log.fact(MediaEvent::FirstPacket)
            });
        }
    }
}

#[test]
fn digits_come_through_at_both_clock_rates() {
    let media = start(config());
    for (pt, clock) in [(126, 8_000), (101, 48_000)] {
        let manner = Manner { telephone_events: vec![(pt, clock)], ..Manner::default() };
        let mut call = Call::live(&media, Peer::new(&manner));
        call.type_keys(pt, clock, "1990*#");
        call.until("six keys", |_, log| log.digits().len() >= 6);
        assert_eq!(call.log.digits(), "1990*#");

        // Its end is lost: it counts all the same.
        call.peer[0].send(pt, 5_000_000, true, &[4, 0x0A, 0, 160]);
        call.until("a key without an end", |_, log| log.digits().len() >= 7);
        assert_eq!(call.log.digits(), "1990*#4");
    }
}

#[test]
fn digits_go_out_and_the_prompt_waits_for_them() {
    let media = start(config());
    for (pt, clock) in [(126, 8_000), (110, 48_000)] {
        let manner = Manner { telephone_events: vec![(pt, clock)], ..Manner::default() };
        let mut call = Call::live(&media, Peer::new(&manner));
        let (prompt, frames) = prompt(3, 20);
        call.leg.play(PLAY, once(&prompt));
        call.leg.send_digits(PlayId(2), "15w#");
        call.until("digits and prompt", |peer, log| {
            log.has(&LegEvent::DigitsSent(PlayId(2))) && sound(&peer.heard, 3).len() == frames.len()
        });
        let heard = &call.peer[0].heard;
        assert_eq!(sound(heard, 3), frames);
        let mut receiver = dtmf::Receiver::default();
        let mut digits = Vec::new();
        for h in heard.iter().filter(|h| h.pt == pt) {
            receiver.packet(h.at, h.ssrc, h.timestamp, &h.payload, &mut digits);
        }
        assert_eq!(digits.iter().map(|d| d.as_char()).collect::<String>(), "15#");
        assert!(
            heard.windows(2).all(|p| p[1].sequence == p[0].sequence.wrapping_add(1)),
            "one sequence"
        );
        assert_eq!(heard.iter().filter(|h| h.pt == pt).count(), 30, "ten packets a digit");
        let last_key = heard.iter().rposition(|h| h.pt == pt).expect("keys were sent");
        let heard_before = sound(&heard[..last_key], 3).len();
        assert!(
            heard_before >= 20,
            "{heard_before}: the prompt is heard where the digits wait for half a second"
        );
    }

    // Not negotiated: they are tones, and tones are keys.
    let manner = Manner { telephone_events: vec![], ..Manner::default() };
    let mut call = Call::live(&media, Peer::new(&manner));
    call.leg.send_digits(PLAY, "15#w0");
    call.until("told", |_, log| log.has(&LegEvent::DigitsSent(PLAY)));
    let sounds: Vec<_> = call.peer[0].heard.iter().map(|h| h.payload.clone()).collect();
    assert!(call.peer[0].heard.iter().all(|h| h.pt == 111));
    for (n, payload) in sounds.iter().enumerate() {
        call.peer[0].send(111, n as u32 * 960, n == 0, payload);
    }
    call.until("keys", |_, log| log.digits() == "15#0");
}

#[test]
fn a_stopped_prompt_is_silent_within_sixty_milliseconds() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&Manner::default()));
    let (prompt, _) = prompt(5, 50);
    call.leg.play(PLAY, vec![PlayItem { prompt, repeat: Repeat::Endless }]);
    call.until("sound", |peer, _| sound(&peer.heard, 5).len() > 60);
    call.leg.stop(PlayId(99));
    call.leg.stop(PLAY);
    let sent = call.leg.stats().rtp_out as usize;
    call.until("silence", |peer, _| peer.heard.len() >= sent + 10);
    // Loopback loses nothing: what was heard beyond what had been sent was sent after the order.
    let after = call.peer[0].heard[sent..].iter().filter(|h| is_of(h, 5)).count();
    assert!(after <= 3, "{after} packets of 20 ms after the order");
    call.leg.play(PlayId(2), once(&self::prompt(6, 1).0));
    call.until("the next play", |_, log| log.has(&LegEvent::Played(PlayId(2))));
    assert!(!call.log.has(&LegEvent::Played(PLAY)), "a stopped play does not end");
}

#[test]
fn a_new_play_replaces_the_old_one_and_a_failed_prompt_is_passed_over() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&Manner::default()));
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
    let before = call.peer[0].heard.len();
    call.until("silence while it is made", |peer, _| peer.heard.len() > before + 3);
    writer.push(Frame::from([0x48, 2, 0, 1, 2, 3]));
    writer.finish();
    call.until("played", |_, log| log.has(&LegEvent::Played(PlayId(2))));
    assert_eq!(sound(&call.peer[0].heard, 2).len(), 1);
    assert!(!call.log.has(&LegEvent::Played(PLAY)));
}

#[test]
fn two_calls_through_one_relay_port_get_two_ports_of_ours() {
    let media = start(config());
    let relay = socket("127.0.0.1:0");
    let mut peers = Vec::new();
    let mut legs = Vec::new();
    for n in 1..=2u8 {
        let mut peer = Peer::at(&Manner::default(), relay.clone());
        let log = Log::default();
        let (leg, answer) = media.answer(&peer.offer(), log.sink()).expect("answer");
        peer.accept(&answer);
        leg.begin();
        leg.open();
        leg.play(PLAY, once(&prompt(n, 10).0));
        peers.push(peer);
        legs.push((leg, log));
    }
    assert_ne!(peers[0].remote, peers[1].remote, "one socket could not tell them apart");
    assert_eq!(media.stats().ports_open, 2);
    pump(&mut peers, "both heard", |_| {
        legs.iter().all(|(_, log)| log.has(&LegEvent::Played(PLAY)))
    });
    for (n, peer) in (1u8..).zip(&peers) {
        assert_eq!(sound(&peer.heard, n), prompt(n, 10).1, "each its own");
        assert!(sound(&peer.heard, 3 - n).is_empty());
    }
    for (peer, key) in peers.iter_mut().zip(["1", "2"]) {
        let mut sender = dtmf::Sender::new(key, 8_000);
        while let dtmf::Step::Event { payload, timestamp, marker } = sender.step(77) {
            peer.send(126, timestamp, marker, &payload);
        }
    }
    pump(&mut peers, "a key each", |_| legs.iter().all(|(_, log)| !log.digits().is_empty()));
    assert_eq!(legs.iter().map(|(_, log)| log.digits()).collect::<Vec<_>>(), ["1", "2"]);
}

/// With one port only, it serves all the same (`interface.md` §2).
#[test]
fn calls_with_one_peer_address_on_one_port_come_up_and_hear_each_its_own() {
    let narrow = start(MediaConfig { max_ports: 1, ..config() });
    let relay = socket("127.0.0.1:0");
    let mut peers = Vec::new();
    let mut legs = Vec::new();
    for n in 1..=3u8 {
        let mut peer = Peer::at(&Manner::default(), relay.clone());
        let log = Log::default();
        let (leg, answer) = narrow.answer(&peer.offer(), log.sink()).expect("answer");
        peer.accept(&answer);
        leg.begin();
        leg.open();
        leg.play(PLAY, once(&prompt(n, 10).0));
        peers.push(peer);
        legs.push((leg, log));
    }
    assert!(peers.iter().all(|p| p.remote == peers[0].remote));
    pump(&mut peers, "all up", |_| legs.iter().all(|(_, log)| log.fact(MediaEvent::Connected)));
    pump(&mut peers, "all heard", |_| legs.iter().all(|(_, log)| log.has(&LegEvent::Played(PLAY))));
    for (n, peer) in (1u8..).zip(&peers) {
        assert_eq!(sound(&peer.heard, n), prompt(n, 10).1, "each its own");
    }
    // All send under the same SSRC, and one goes on under another; the keys come to whom they were meant for.
    peers[2].change_ssrc(77);
    for (peer, key) in peers.iter_mut().zip(["1", "2", "3"]) {
        let mut sender = dtmf::Sender::new(key, 8_000);
        while let dtmf::Step::Event { payload, timestamp, marker } = sender.step(77) {
            peer.send(126, timestamp, marker, &payload);
        }
    }
    pump(&mut peers, "a key each", |_| legs.iter().all(|(_, log)| !log.digits().is_empty()));
    assert_eq!(legs.iter().map(|(_, log)| log.digits()).collect::<Vec<_>>(), ["1", "2", "3"]);
    // One hangs up: that one is over, the others go on.
    peers[1].hang_up();
    let closed = MediaEvent::Lost { fault: MediaFault::DtlsClosed };
    pump(&mut peers, "the end of one", |_| legs[1].1.fact(closed.clone()));
    let heard = peers[2].heard.len();
    pump(&mut peers, "the others go on", |peers| peers[2].heard.len() > heard + 20);
    assert!(!legs[0].1.fact(closed.clone()) && !legs[2].1.fact(closed));
}

#[test]
fn a_browser_that_hides_its_addresses_comes_to_us() {
    let media = start(config());
    let mut peer = [Peer::new(&Manner { lite: false, ..Manner::default() })];
    let hidden = peer[0].offer_text().replace(" 127.0.0.1 ", " 4b2a-11.local ");
    let offer = Offer::parse(&hidden, true).expect("usable");
    assert!(offer.candidates.is_empty());
    let log = Log::default();
    let (leg, answer) = media.answer(&offer, log.sink()).expect("answer");
    peer[0].accept(&answer);
    leg.begin();
    leg.open();
    pump(&mut peer, "heard", |peers| log.fact(MediaEvent::Connected) && !peers[0].heard.is_empty());
}

#[test]
fn an_unannounced_ssrc_and_a_change_of_it_are_followed() {
    let media = start(config());
    let manner = Manner { announce_ssrc: false, ..Manner::default() };
    let mut call = Call::live(&media, Peer::new(&manner));
    call.peer[0].say(&[0x48, 1, 2]);
    call.until("heard", |_, log| log.fact(MediaEvent::FirstPacket));
    for ssrc in 1..=6 {
        call.peer[0].change_ssrc(ssrc);
        call.type_keys(126, 8_000, "7");
        let want = ssrc as usize;
        call.until("a key under a new SSRC", |_, log| log.digits().len() == want);
    }
}

#[test]
fn both_ends_hear_of_the_others_goodbye() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&Manner::default()));
    call.peer[0].hang_up();
    call.until("told", |_, log| log.fact(MediaEvent::Lost { fault: MediaFault::DtlsClosed }));
    drop(call);

    let mut call = Call::live(&media, Peer::new(&Manner::default()));
    call.leg.close();
    call.until("closed", |peer, _| peer.closed);
    let told = call.log.all().len();
    drop(call.leg);
    pump(&mut call.peer, "no leg is left", |_| media.stats().legs == 0);
    assert_eq!(call.log.all().len(), told, "nothing follows a close");
}

#[test]
fn a_vanished_peer_is_lost_after_its_time_and_not_before() {
    let media = start(MediaConfig { media_dead: Duration::from_millis(400), ..config() });
    let mut call = Call::live(&media, Peer::new(&Manner::default()));
    // Muted, but there: sound from time to time is enough.
    for _ in 0..3 {
        pump_for(&mut call.peer, Duration::from_millis(150));
        call.peer[0].say(&[0x48, 1, 2]);
    }
    let lost = LegEvent::Fact(MediaEvent::Lost { fault: MediaFault::Silent });
    assert!(!call.log.has(&lost));
    let Call { peer, leg: _leg, log } = call;
    drop(peer);
    pump(&mut [], "lost", |_| log.has(&lost));
    assert_eq!(log.all().iter().filter(|e| **e == lost).count(), 1, "once");
}

#[test]
fn a_leg_that_is_let_go_leaves_nothing() {
    let media = start(config());
    let relay = socket("127.0.0.1:0");
    for _ in 0..3 {
        let calls: Vec<_> = (0..3)
            .map(|_| {
                media.answer(
                    &Peer::at(&Manner::default(), relay.clone()).offer(),
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
    let late = media.answer(&Peer::new(&Manner::default()).offer(), Log::default().sink());
    assert!(matches!(late, Err(MediaError::Stopped)), "{late:?}");
}

#[test]
fn families_that_do_not_meet_are_refused_and_dual_stack_serves_both() {
    let media = start(config());
    let six = "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-lite\r\na=ice-ufrag:abcd\r\na=ice-pwd:1234567890123456789012\r\n\
               a=setup:actpass\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
               a=candidate:1 1 udp 1 2001:db8::1 3480 typ host\r\n";
    let six = format!("{six}a=fingerprint:sha-256 {}\r\n", ["AB"; 32].join(":"));
    let offer = Offer::parse(&six, false).expect("usable where there is IPv6");
    let refused = media.answer(&offer, Log::default().sink());
    assert!(matches!(refused, Err(MediaError::NoFamily)), "{refused:?}");

    let both = MediaConfig {
        listen: "[::]:0".parse().expect("address"),
        public_ips: vec!["127.0.0.1".parse().expect("address"), "::1".parse().expect("address")],
        ..config()
    };
    // A machine without IPv6 cannot be asked.
    let Ok(media) = Media::start(both, Clock::real()) else { return };
    for at in ["127.0.0.1:0", "[::1]:0"] {
        let peer = Peer::at(&Manner::default(), socket(at));
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
        pump(&mut peer, "connected", |peers| peers[0].connected && log.fact(MediaEvent::Connected));
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
fn what_passes_can_be_tapped_and_live_sound_be_fed() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&Manner::default()));
    let mut line = Line::new(call.leg.tap(Sides::Both), Rate::Hz16000, Patience::Network);
    let feed = call.leg.feed(2);
    let mut encoder = Encoder::for_prompts();
    let loud: Vec<i16> = (0..320).map(|n| if n % 40 < 20 { 9_000 } else { -9_000 }).collect();
    let said: Vec<Frame> = (0..12).map(|_| encoder.encode(&loud)).collect();
    said.iter().for_each(|frame| assert!(feed.push(frame.clone())));
    let (prompt, _) = prompt(7, 3);
    call.until("fed", |peer, _| {
        said.iter().all(|frame| peer.heard.iter().any(|h| h.payload[..] == frame[..]))
    });
    assert_eq!((feed.taken(), feed.waiting()), (12, 0));

    said.iter()
        .enumerate()
        .for_each(|(n, frame)| call.peer[0].send(111, n as u32 * 960, n == 0, frame));
    let is_loud = |pcm: &[i16]| pcm.iter().filter(|s| s.abs() > 3_000).count() > 100;
    let (mut heard, mut sent) = (0, 0);
    call.until("tapped", |_, _| {
        while let Some(twenty) = line.next() {
            heard += usize::from(is_loud(twenty.heard));
            sent += usize::from(is_loud(twenty.sent));
        }
        heard >= 8 && sent >= 8
    });

    // A prompt goes before what is fed, and a feed that nobody holds is over.
    (0..10).for_each(|_| assert!(feed.push(said[0].clone())));
    call.leg.play(PLAY, once(&prompt));
    call.until("played", |_, log| log.has(&LegEvent::Played(PLAY)));
    drop(feed);
    drop(call.leg);
    pump(&mut call.peer, "over", |_| {
        while line.next().is_some() {}
        line.is_over()
    });
}

#[test]
fn what_a_room_says_is_heard_over_the_music_of_who_waits() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&Manner::default()));
    let (music, _) = prompt(7, 100);
    call.leg.play(PLAY, once(&music));
    let feed = call.leg.room_feed(1);
    let mut encoder = Encoder::for_prompts();
    let loud: Vec<i16> = (0..320).map(|n| if n % 40 < 20 { 9_000 } else { -9_000 }).collect();
    let said: Vec<Frame> = (0..5).map(|_| encoder.encode(&loud)).collect();
    // A room in which nothing is said has silence for everybody.
    let quiet = crate::opus::silence_frame();
    assert!(
        feed.push(quiet.clone())
            && said.iter().all(|frame| feed.push(frame.clone()))
            && feed.push(quiet)
    );
    call.until("played", |_, log| log.has(&LegEvent::Played(PLAY)));
    let heard = &call.peer[0].heard;
    let told: Vec<usize> =
        (0..heard.len()).filter(|n| said.iter().any(|s| heard[*n].payload[..] == s[..])).collect();
    assert_eq!(told.len(), said.len(), "all of it");
    assert!(told.windows(2).all(|pair| pair[1] == pair[0] + 1), "in one piece: {told:?}");
    assert_eq!(
        sound(heard, 7).len(),
        100 - said.len(),
        "the music went on meanwhile, and was not put off"
    );
}

/// The strengths of 440 Hz and of 1,000 Hz in what the peer heard from its `from`th packet on.
fn tones_heard(peer: &Peer, from: usize) -> [f64; 2] {
    let (mut ear, mut pcm) = (Decoder::new(Rate::Hz16000), Vec::new());
    for packet in &peer.heard[from..] {
        ear.decode(Some(&packet.payload), false, &mut pcm).expect("Opus");
    }
    [440.0, 1_000.0].map(|hz| strength(&pcm, hz))
}

#[test]
fn a_room_is_heard_beneath_who_feeds_the_leg_whoever_came_first() {
    let media = start(config());
    for room_first in [true, false] {
        let mut call = Call::live(&media, Peer::new(&Manner::default()));
        let early = room_first.then(|| call.leg.room_feed(1));
        let feed = call.leg.feed(1);
        let room = early.unwrap_or_else(|| call.leg.room_feed(1));
        let (says, plays) = (tone(440.0), tone(1_000.0));
        let mut since = 0;
        let mut hear = |call: &mut Call, frames: &[(&Feed, &[Frame])]| {
            since = call.peer[0].heard.len();
            for (feed, frames) in frames {
                assert!(frames.iter().take(FEED_MAX).all(|frame| feed.push(frame.clone())));
            }
            call.until("heard", |_, _| frames.iter().all(|(feed, _)| feed.waiting() == 0));
            tones_heard(&call.peer[0], since)
        };
        // The other says nothing: what there is passes as it is.
        let [low, high] = hear(&mut call, &[(&room, &says)]);
        assert!(low > 0.05 && high < 0.01, "the room alone: {low} {high}");
        let [low, high] = hear(&mut call, &[(&feed, &plays)]);
        assert!(low < 0.01 && high > 0.05, "the feed alone: {low} {high}");
        let [low, high] = hear(&mut call, &[(&room, &says), (&feed, &plays)]);
        assert!(low > 0.05 && high > 0.05, "both: {low} {high}");
        drop(feed);
        let [low, _] = hear(&mut call, &[(&room, &says)]);
        assert!(low > 0.05, "and the room after it: {low}");
    }
}
