//! A leg moves to another process during a call: its snapshot is written, read, and continued by a
//! new leg of another `Media`.

use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::Value;

use super::*;
use crate::leg::RestoreConfig;
use crate::prompt::{Frame, LoopJoin, Prompt};
use crate::snapshot::{LegSnapshot, NotMovable, PromptTable, TimeBase};
use crate::{MediaError, PlayItem};
use machine::{Overlay, OverlayKind, PlayId};
use xml::ast::{Beep, Repeat};

const PLAY: PlayId = PlayId(1);
const SECOND: Duration = Duration::from_secs(1);

impl Simulation {
    fn snapshot(&self, prompts: &PromptTable) -> Result<LegSnapshot, NotMovable> {
        Ok(LegSnapshot {
            taken: self.clock.uptime(),
            bound: SocketAddr::from(LOCAL),
            ufrag: self.ufrag.clone(),
            addresses: VecDeque::new(),
            leg: self.leg.snapshot(TimeBase(self.clock.now()), prompts)?,
            feed: None,
            bridge: None,
        })
    }

    /// Creates the leg of a snapshot in the process of `media`.
    fn restore(
        &self,
        media: &Media,
        snapshot: LegSnapshot,
        prompts: &PromptTable,
    ) -> Result<(Leg, Arc<Counters>), MediaError> {
        let base = snapshot.time_base(&self.clock);
        let log = self.events.clone();
        let config = RestoreConfig {
            ufrag: &snapshot.ufrag,
            identity: &media.identity,
            prompts,
            silence: media.silence.clone(),
            media_dead: media.media_dead,
            sink: Arc::new(move |event| log.lock().expect("log").push(event)),
            now: self.clock.now(),
            base,
        };
        Leg::restore(snapshot.leg, config)
    }

    /// Moves the leg to another process, after `change` has changed its snapshot.
    fn move_leg_with(&mut self, change: impl FnOnce(&mut Value)) {
        let (here, there) = (PromptTable::default(), PromptTable::default());
        let snapshot = self.snapshot(&here).expect("a movable leg");
        there.decode(&here.encode_new()).expect("prompts");
        let bytes = snapshot.to_bytes().expect("a snapshot");
        let again = LegSnapshot::from_bytes(&bytes).expect("a snapshot").to_bytes().expect("bytes");
        assert_eq!(*again, *bytes, "nothing is lost or changed");
        let mut json: Value = serde_json::from_slice(&bytes).expect("JSON");
        json["added_later"] = 1.into();
        change(&mut json);
        let snapshot = LegSnapshot::from_bytes(json.to_string().as_bytes()).expect("a snapshot");
        let other = media(&self.clock);
        (self.leg, self.counters) = self.restore(&other, snapshot, &there).expect("adopted");
        self._media = other;
    }

    fn move_leg(&mut self) {
        self.move_leg_with(|_| {});
    }

    fn play(&mut self, name: u8, frames: u8) -> Vec<Vec<u8>> {
        let (prompt, frames) = prompt(name, frames);
        let items = vec![PlayItem { prompt, repeat: Repeat::Times(1) }];
        self.command(LegCommand::Play(PLAY, items));
        frames
    }

    /// Returns the prompt frames of this name that the peer has received.
    fn received_frames(&self, name: u8) -> Vec<Vec<u8>> {
        let received = self.peer.received.iter().filter(|packet| packet.payload.len() == 4);
        let named = received.filter(|packet| packet.payload[1] == name);
        named.map(|packet| packet.payload.clone()).collect()
    }

    /// Asserts that the leg used no SRTP or SRTCP index twice and skipped none, and that the peer
    /// received all its packets.
    fn assert_one_stream(&self) {
        let sent = self.sent.iter().map(|(_, _, datagram)| datagram.as_slice());
        let sent: Vec<&[u8]> = sent.filter(|datagram| datagram[0] >= 128).collect();
        let (rtcp, rtp): (Vec<&[u8]>, Vec<&[u8]>) =
            sent.into_iter().partition(|datagram| (192..224).contains(&datagram[1]));
        let sequences = rtp.iter().map(|d| u16::from_be_bytes([d[2], d[3]]));
        let sequences: Vec<u16> = sequences.collect();
        assert!(
            sequences.windows(2).all(|two| two[1] == two[0].wrapping_add(1)),
            "each sequence number once: {sequences:?}"
        );
        let is_rtp = |datagram: &[u8]| datagram[0] >= 128 && !(192..224).contains(&datagram[1]);
        let in_flight = self.in_flight.values().filter(|(to_leg, d)| !to_leg && is_rtp(d)).count();
        let received = self.peer.received.len();
        let accepted: Vec<u16> = self.peer.received.iter().map(|p| p.sequence).collect();
        assert_eq!(
            received + in_flight,
            rtp.len(),
            "the peer accepts every packet: {sequences:?}, {accepted:?}"
        );
        let mut indexes = HashSet::new();
        for datagram in rtcp {
            let index = datagram.last_chunk::<4>().expect("an index");
            assert!(indexes.insert(*index), "SRTCP index {index:?} twice");
        }
    }
}

/// A prompt of distinguishable frames.
fn prompt(name: u8, frames: u8) -> (Arc<Prompt>, Vec<Vec<u8>>) {
    let frames: Vec<Vec<u8>> = (0..frames).map(|n| vec![0x48, name, n, 1]).collect();
    (Prompt::from_frames(frames.iter().map(|frame| Frame::from(frame.as_slice()))), frames)
}

fn connected(options: &PeerOptions) -> Simulation {
    let mut sim = Simulation::with(options, 3, NetworkConditions::default());
    sim.connect();
    assert!(sim.leg.has_transport());
    sim
}

#[test]
fn a_peer_hears_every_frame_once() {
    let mut sim = connected(&PeerOptions::default());
    let frames = sim.play(7, 100);
    for _ in 0..30 {
        sim.advance(Duration::from_millis(55));
        sim.move_leg();
    }
    sim.until(SECOND, |sim| sim.has(&LegEvent::Played(PLAY))).expect("played");
    sim.advance(6 * SECOND);
    assert_eq!(sim.received_frames(7), frames);
    let timestamps = sim.peer.received.windows(2);
    assert!(timestamps.clone().count() > 100);
    for two in timestamps {
        assert_eq!(two[1].timestamp, two[0].timestamp.wrapping_add(960));
        assert_eq!(two[1].ssrc, two[0].ssrc);
    }
    sim.assert_one_stream();
    let events = sim.events.lock().expect("log").clone();
    let once = |event: &LegEvent| assert_eq!(events.iter().filter(|e| *e == event).count(), 1);
    once(&LegEvent::PlayStarted(PLAY));
    once(&LegEvent::Played(PLAY));
    once(&LegEvent::FirstSent);
    once(&LegEvent::Media(MediaEvent::Connected));
}

#[test]
fn overlays_and_repeated_prompts_go_on() {
    let mut sim = connected(&PeerOptions::default());
    let (below, _) = prompt(5, 200);
    sim.command(LegCommand::Play(PLAY, vec![PlayItem { prompt: below, repeat: Repeat::Endless }]));
    let (looped, mut writer) = Prompt::new();
    (0..4).for_each(|n| writer.push(Frame::from([0x48, 9, n, 1])));
    let part = |names: &[u8]| names.iter().map(|n| Frame::from([0x48, 9, *n, 1])).collect();
    let (tail, head) = (part(&[30, 31]), part(&[20, 21, 22]));
    writer.finish_with(Some(LoopJoin { from: 3, tail, head, middle: Vec::new() }));
    let (failed, failing) = Prompt::new();
    failing.fail("no voice");
    let (other, _) = prompt(9, 2);
    let items = [
        (failed, Repeat::Times(1)),
        (looped.clone(), Repeat::Times(3)),
        (other, Repeat::Times(0)),
        (looped, Repeat::Times(1)),
    ];
    let items = items.map(|(prompt, repeat)| PlayItem { prompt, repeat });
    let overlay = Overlay {
        kind: OverlayKind::Play,
        items: Vec::new(),
        repeat: false,
        mix: false,
        length_ms: None,
    };
    sim.move_leg();
    sim.command(LegCommand::Overlay(PlayId(2), overlay, items.into()));
    for _ in 0..30 {
        sim.advance(Duration::from_millis(20));
        sim.move_leg();
    }
    let names: Vec<u8> = sim.received_frames(9).iter().map(|frame| frame[2]).collect();
    let expected = [&[0, 1, 2, 30, 31][..], &[20, 21, 22, 30, 31], &[20, 21, 22, 3], &[0, 1, 2, 3]];
    assert_eq!(names, expected.concat());
    assert!(sim.has(&LegEvent::Played(PlayId(2))) && !sim.has(&LegEvent::Played(PLAY)));
    assert!(sim.has(&LegEvent::PlayFailed {
        play: PlayId(2),
        item: 0,
        reason: "no voice".to_owned()
    }));
    sim.advance(SECOND);
    assert!(sim.received_frames(5).len() > 30, "the playlist below continued");
    sim.assert_one_stream();
}

#[test]
fn a_key_across_the_move_counts_once() {
    for with_end in [true, false] {
        for cut in 1..=27 {
            let mut sim = connected(&PeerOptions::default());
            for k in 1..=27u16 {
                let [high, low] = (k.min(25) * 160).to_be_bytes();
                let end = if k >= 25 { 0x80 } else { 0 };
                if k < 25 || with_end {
                    sim.peer.send(126, 48_000, k == 1, &[5, end | 10, high, low]);
                }
                sim.advance(Duration::from_millis(20));
                if k == cut {
                    sim.move_leg();
                }
            }
            sim.advance(SECOND);
            assert_eq!(sim.digits(), "5", "moved after packet {cut}, end packets: {with_end}");
        }
    }
}

#[test]
fn digits_being_sent_arrive_once() {
    for (telephone_events, ticks) in [(vec![(126, 8_000)], 3), (vec![(101, 48_000)], 4)] {
        let mut sim = connected(&PeerOptions { telephone_events, ..PeerOptions::default() });
        sim.command(LegCommand::SendDigits(PLAY, "15w#@1900".to_owned()));
        sim.command(LegCommand::SendDigits(PlayId(2), "7".to_owned()));
        for _ in 0..120 {
            sim.advance(Duration::from_millis(20) * ticks);
            sim.move_leg();
        }
        let mut receiver = dtmf::Receiver::default();
        let mut digits = Vec::new();
        for packet in sim.peer.received.iter().filter(|packet| packet.pt != 111) {
            receiver.receive(
                packet.at,
                packet.ssrc,
                packet.timestamp,
                &packet.payload,
                &mut digits,
            );
        }
        assert_eq!(digits.iter().map(|digit| digit.as_char()).collect::<String>(), "15#7");
        let sent = [PLAY, PlayId(2)].map(LegEvent::DigitsSent);
        let events = sim.events.lock().expect("log").clone();
        let reported: Vec<_> = events.iter().filter(|event| sent.contains(event)).collect();
        assert_eq!(reported, sent.iter().collect::<Vec<_>>());
        sim.assert_one_stream();
    }
}

/// Tones are sent and recognised if no telephone-event was negotiated.
#[test]
fn tones_go_on() {
    let mut sim =
        connected(&PeerOptions { telephone_events: Vec::new(), ..PeerOptions::default() });
    sim.command(LegCommand::SendDigits(PLAY, "1590@400".to_owned()));
    for _ in 0..10 {
        sim.advance(Duration::from_millis(220));
        sim.move_leg();
    }
    assert!(sim.has(&LegEvent::DigitsSent(PLAY)));
    let sounds: Vec<_> = sim.peer.received.iter().map(|packet| packet.payload.clone()).collect();
    for (n, sound) in (0..).zip(sounds) {
        sim.peer.send(111, 960 * n, n == 0, &sound);
        sim.advance(Duration::from_millis(20));
        if n % 7 == 0 {
            sim.move_leg();
        }
    }
    assert_eq!(sim.digits(), "1590");
}

#[test]
fn consent_is_kept_and_its_loss_noticed() {
    for lite in [true, false] {
        let mut sim = connected(&PeerOptions { lite, ..PeerOptions::default() });
        sim.advance(3 * SECOND);
        sim.move_leg();
        sim.sent.clear();
        // A muted peer: only STUN shows that it is there.
        sim.advance(90 * SECOND);
        assert!(!sim.is_lost(), "lite: {lite}");
        let kind = |datagram: &[u8]| datagram.get(..2).map(|kind| [kind[0], kind[1]]);
        let count = |wanted: [u8; 2]| {
            sim.sent.iter().filter(|(_, _, datagram)| kind(datagram) == Some(wanted)).count()
        };
        // The lite peer is checked; the other one checks.
        let (requests, responses) = (count([0, 1]), count([1, 1]));
        let stun = if lite { requests } else { responses };
        assert!(
            (15..=60).contains(&stun),
            "lite: {lite}, {requests} requests, {responses} responses"
        );
        assert_eq!(requests > 0, lite);
        let is_lost = |sim: &Simulation| sim.is_lost();
        sim.is_blocked = |_, _| true;
        let lost = sim.until(40 * SECOND, is_lost).expect("noticed");
        assert!((25 * SECOND..36 * SECOND).contains(&lost), "lite: {lite}, {lost:?}");
    }
}

#[test]
fn silence_is_counted_across_the_move() {
    let mut sim = connected(&PeerOptions::default());
    sim.is_blocked = |_, _| true;
    sim.advance(20 * SECOND);
    assert!(!sim.is_lost());
    sim.move_leg();
    let rest = sim.until(20 * SECOND, Simulation::is_lost).expect("lost");
    assert!((9 * SECOND..12 * SECOND).contains(&rest), "30 s in all: {rest:?}");
}

#[test]
fn the_watchdog_does_not_start_again() {
    let mut sim = connected(&PeerOptions::default());
    sim.advance(4 * SECOND);
    sim.move_leg();
    sim.advance(10 * SECOND);
    let waited = |event: &LegEvent| match event {
        LegEvent::NoAudio { waited, .. } => Some(waited.as_secs()),
        _ => None,
    };
    let reports: Vec<u64> = sim.events.lock().expect("log").iter().filter_map(waited).collect();
    assert_eq!(reports, [3, 8]);
}

#[test]
fn replays_from_before_the_move_are_refused() {
    let mut sim = connected(&PeerOptions::default());
    sim.captured.clear();
    for _ in 0..50 {
        sim.peer.send_audio(&[0x48, 1, 2]);
        sim.advance(Duration::from_millis(20));
    }
    let before = sim.counters.rtp_in.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(before, 50);
    let old: Vec<_> = sim.captured.iter().filter(|datagram| datagram[0] >= 128).cloned().collect();
    assert!(old.len() >= 50);
    sim.move_leg();
    for datagram in old {
        sim.transmit(true, datagram);
    }
    sim.advance(SECOND);
    let received =
        |sim: &Simulation| sim.counters.rtp_in.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(received(&sim), before, "replays");
    sim.peer.send_audio(&[0x48, 1, 2]);
    sim.advance(SECOND);
    assert_eq!(received(&sim), before + 1, "the total continues");
}

/// Both streams roll over around the move, several times.
#[test]
fn sequence_numbers_roll_over_around_the_move() {
    let mut sim = connected(&PeerOptions::default());
    sim.advance(SECOND);
    let sequence = |sim: &Simulation| {
        let snapshot = sim.snapshot(&PromptTable::default()).expect("movable");
        let json: Value =
            serde_json::from_slice(&snapshot.to_bytes().expect("bytes")).expect("JSON");
        json["leg"]["outbound"]["stream"]["sequence"].as_u64().expect("a number")
    };
    for (round, before) in (1_u64..=3).flat_map(|round| (0..4).map(move |n| (round, n))) {
        // A receiver follows steps of less than half the range.
        let end = round << 16;
        while sequence(&sim) < end - 10 {
            let next = (sequence(&sim) + 30_000).min(end - 10);
            sim.move_leg_with(|json| json["leg"]["outbound"]["stream"]["sequence"] = next.into());
            sim.peer.sequence = sim.peer.sequence.max(next);
            sim.peer.send_audio(&[0x48, 1, 2]);
            sim.advance(Duration::from_millis(40));
        }
        sim.until(SECOND, |sim| sim.in_flight.is_empty()).expect("all arrived");
        sim.sent.clear();
        sim.peer.received.clear();
        sim.peer.sequence = sim.peer.sequence.max(end - 5);
        let rtp_in = sim.counters.rtp_in.load(std::sync::atomic::Ordering::Relaxed);
        for n in 0..15 {
            sim.peer.send_audio(&[0x48, 1, 2]);
            sim.advance(Duration::from_millis(20));
            if n == before * 4 {
                sim.move_leg();
            }
        }
        sim.advance(Duration::from_millis(20));
        sim.assert_one_stream();
        let received = sim.counters.rtp_in.load(std::sync::atomic::Ordering::Relaxed) - rtp_in;
        assert_eq!(received, 15, "rollover {round}");
    }
    assert!(sequence(&sim) > 3 << 16);
}

#[test]
fn skipped_indexes_are_never_used_again() {
    let mut sim = connected(&PeerOptions::default());
    sim.advance(7 * SECOND);
    let prompts = PromptTable::default();
    let snapshot = sim.snapshot(&prompts).expect("movable");
    // Another process runs the leg for 20 s and ends.
    let other = media(&sim.clock);
    let (mut leg, _) = sim.restore(&other, snapshot, &prompts).expect("adopted");
    std::mem::swap(&mut sim.leg, &mut leg);
    sim.advance(20 * SECOND);
    std::mem::swap(&mut sim.leg, &mut leg);
    sim.leg.skip_sent(sim.clock.now());
    sim.advance(20 * SECOND);
    let mut indexes = HashSet::new();
    for (_, _, datagram) in sim.sent.iter().filter(|(_, _, datagram)| datagram[0] >= 128) {
        let index = match (192..224).contains(&datagram[1]) {
            true => datagram.last_chunk::<4>().expect("an index").to_vec(),
            false => datagram[2..4].to_vec(),
        };
        assert!(indexes.insert(index), "an index was used twice");
    }
    let received = sim.peer.received.len();
    sim.advance(SECOND);
    assert!(sim.peer.received.len() >= received + 49, "the peer follows");
}

#[test]
fn settings_and_quality_figures_move() {
    let mut sim = connected(&PeerOptions::default());
    sim.command(LegCommand::Mute(true));
    sim.command(LegCommand::DetectVoice(true));
    sim.command(LegCommand::DetectBeep(Some(Beep::default())));
    for _ in 0..500 {
        sim.peer.send_audio(&[0x48, 1, 2]);
        sim.advance(Duration::from_millis(20));
    }
    let before = sim.counters.quality.read();
    assert!(before.inbound.packets > 400 && before.outbound.packets > 200, "{before:?}");
    let json = |sim: &Simulation| -> Value {
        let snapshot = sim.snapshot(&PromptTable::default()).expect("movable");
        serde_json::from_slice(&snapshot.to_bytes().expect("bytes")).expect("JSON")
    };
    let first = json(&sim);
    sim.move_leg();
    assert_eq!(json(&sim), first, "a snapshot of the new leg equals that of the old one");
    let after = sim.counters.quality.read();
    assert!(after.inbound.packets >= before.inbound.packets, "the record continues: {after:?}");
    assert!(after.outbound.packets >= before.outbound.packets, "{after:?}");
    assert_eq!(after.round_trip, before.round_trip);
}

#[test]
fn legs_that_cannot_move_give_the_reason() {
    let prompts = PromptTable::default();
    let mut sim = Simulation::new(1, NetworkConditions::default());
    assert_eq!(sim.snapshot(&prompts).map(drop), Err(NotMovable::Connecting));
    sim.connect();
    assert_eq!(sim.snapshot(&prompts).map(drop), Ok(()));

    let (loading, writer) = Prompt::new();
    let item = PlayItem { prompt: loading, repeat: Repeat::Times(1) };
    sim.command(LegCommand::Play(PLAY, vec![item]));
    assert_eq!(sim.snapshot(&prompts).map(drop), Err(NotMovable::PromptLoading));
    writer.finish();
    assert_eq!(sim.snapshot(&prompts).map(drop), Ok(()));

    let (end, tap) = crate::tap::tap(crate::TapSides::Both);
    sim.command(LegCommand::Tap(end));
    assert_eq!(sim.snapshot(&prompts).map(drop), Err(NotMovable::Tapped));
    drop(tap);
    sim.advance(Duration::from_millis(40));
    let (end, tap) = crate::tap::tap(crate::TapSides::Both);
    sim.command(LegCommand::Tap(end.movable()));
    assert_eq!(sim.snapshot(&prompts).map(drop), Ok(()));
    drop(tap);

    let (feed, end) = crate::feed::feed(1);
    sim.command(LegCommand::RoomFeed(Box::new(end)));
    assert_eq!(sim.snapshot(&prompts).map(drop), Ok(()));
    drop(feed);
    let (feed, end) = crate::feed::feed(1);
    sim.command(LegCommand::Feed(Box::new(end)));
    assert_eq!(sim.snapshot(&prompts).map(drop), Err(NotMovable::Fed));
    drop(feed);
    sim.advance(Duration::from_millis(40));

    let (ours, theirs) = crate::bridge();
    sim.command(LegCommand::Bridge(Box::new(ours)));
    assert_eq!(sim.snapshot(&prompts).map(drop), Ok(()));
    sim.command(LegCommand::Unbridge);
    drop(theirs);
    assert_eq!(sim.snapshot(&prompts).map(drop), Ok(()));

    sim.command(LegCommand::Close);
    assert_eq!(sim.snapshot(&prompts).map(drop), Err(NotMovable::Ended));

    let mut sim = Simulation::new(1, NetworkConditions::default());
    sim.leg.disable_transport();
    sim.connect();
    assert_eq!(sim.snapshot(&prompts).map(drop), Err(NotMovable::NoKeys));
}

/// Replaces each value of a snapshot by others. The snapshot is refused, or the leg works without a
/// panic.
#[test]
fn malformed_snapshots_are_refused_without_a_panic() {
    let mut sim = connected(&PeerOptions::default());
    sim.play(7, 100);
    sim.command(LegCommand::SendDigits(PLAY, "12".to_owned()));
    sim.command(LegCommand::DetectVoice(true));
    sim.peer.send(126, 1_000, true, &[5, 10, 0, 160]);
    for _ in 0..10 {
        sim.peer.send_audio(&[0x48, 1, 2]);
        sim.advance(Duration::from_millis(20));
    }
    let prompts = PromptTable::default();
    let bytes = sim.snapshot(&prompts).expect("movable").to_bytes().expect("bytes");
    for cut in 0..bytes.len() {
        assert!(LegSnapshot::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let whole: Value = serde_json::from_slice(&bytes).expect("JSON");
    let other = media(&sim.clock);
    let mut outcomes = [0, 0];
    for path in leaves(&whole) {
        let values = [
            Value::Null,
            0.into(),
            (-1_i64).into(),
            255.into(),
            65_535.into(),
            u32::MAX.into(),
            u64::MAX.into(),
            i64::MIN.into(),
            "".into(),
            "0".repeat(300).into(),
            true.into(),
            Value::Array(Vec::new()),
        ];
        for value in values {
            let mut json = whole.clone();
            *json.pointer_mut(&path).expect("the path of a value") = value.clone();
            let what = format!("{path} = {value}");
            let Ok(snapshot) = LegSnapshot::from_bytes(json.to_string().as_bytes()) else {
                outcomes[0] += 1;
                continue;
            };
            outcomes[1] += 1;
            let run = || {
                let Ok((mut leg, _)) = sim.restore(&other, snapshot, &prompts) else { return };
                let mut out = SendBuffer::default();
                for n in 0..100 {
                    leg.tick(sim.clock.now() + Duration::from_millis(n * 20), &mut out);
                }
                for datagram in sim.captured.iter().rev().take(30) {
                    let (from, waited) = (sim.peer_address, Duration::ZERO);
                    let datagram = ReceivedDatagram { from, bytes: datagram, waited };
                    leg.receive(sim.clock.now() + 2 * SECOND, datagram, &mut out);
                }
            };
            assert!(catch_unwind(AssertUnwindSafe(run)).is_ok(), "{what} panicked");
        }
    }
    assert!(outcomes.iter().all(|count| *count > 100), "{outcomes:?}");
}

/// The JSON pointers of all values that are not objects or non-empty arrays.
fn leaves(value: &Value) -> Vec<String> {
    let below = |key: String, value: &Value| -> Vec<String> {
        leaves(value).into_iter().map(|path| format!("/{key}{path}")).collect()
    };
    match value {
        Value::Object(fields) => {
            fields.iter().flat_map(|(key, value)| below(key.clone(), value)).collect()
        }
        Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().flat_map(|(n, value)| below(n.to_string(), value)).collect()
        }
        _ => vec![String::new()],
    }
}

#[test]
fn keys_are_not_printed() {
    let sim = connected(&PeerOptions::default());
    let snapshot = sim.snapshot(&PromptTable::default()).expect("movable");
    let json: Value = serde_json::from_slice(&snapshot.to_bytes().expect("bytes")).expect("JSON");
    let network = &json["leg"]["network"];
    let printed = format!("{snapshot:?} {:?}", LegSnapshot::from_bytes(b"{\"leg\": 1}"));
    for secret in [&network["transport"]["keys"][2], &network["pwd"], &network["remote_pwd"]] {
        let secret = secret.as_str().expect("a secret");
        assert!(secret.len() >= 20 && !printed.contains(secret));
    }
}
