//! Legs move between two `Media` with the same sockets.

use str0m::ice::StunMessage;

use super::strangers::{check, user};
use super::*;
use crate::tap::TapEntry;
use crate::test_peer::now;
use crate::{ContinuedLeg, HeldTap, LegSnapshot, NotMovable, OtherProcess, PromptTable, stun};

/// Creates the `Media` of a process that takes over.
fn successor(old: &Media) -> Arc<Media> {
    start(MediaConfig { inherited: old.sockets(), ..config() })
}

/// Freezes legs and returns their snapshots as the new process reads them, with the prompts.
fn freeze(old: &Media, legs: &[&LegHandle]) -> (Vec<LegSnapshot>, PromptTable) {
    let (here, there) = (PromptTable::default(), PromptTable::default());
    assert!(old.movable(legs, &here).iter().all(Result::is_ok));
    there.decode(&here.encode_new()).expect("prompts");
    let snapshots = old.hand_over(legs, &here);
    assert!(here.encode_new().is_empty(), "all prompts were sent before");
    let transfer = |snapshot: Result<LegSnapshot, NotMovable>| {
        let bytes = snapshot.expect("movable").to_bytes().expect("bytes");
        LegSnapshot::from_bytes(&bytes).expect("a snapshot")
    };
    (snapshots.into_iter().map(transfer).collect(), there)
}

/// Moves legs and returns the new handles and their events.
fn move_legs(old: &Media, new: &Media, legs: &[&LegHandle]) -> Vec<(LegHandle, Log)> {
    let (snapshots, prompts) = freeze(old, legs);
    let adopt = |snapshot| {
        let log = Log::default();
        (new.adopt(snapshot, &prompts, log.sink(), &[]).expect("adopted").leg, log)
    };
    let moved = snapshots.into_iter().map(adopt).collect();
    new.start_receiving();
    moved
}

/// Sends the packets of a key at once.
fn press(peer: &mut Peer, key: &str) {
    let mut sender = dtmf::Sender::new(key, 8_000);
    while let dtmf::Step::Event { payload, timestamp, marker } = sender.step(77) {
        peer.send(126, timestamp, marker, &payload);
    }
}

fn assert_one_stream(received: &[PeerPacket]) {
    for two in received.windows(2) {
        assert_eq!(two[1].sequence, two[0].sequence.wrapping_add(1));
        assert_eq!(two[1].timestamp, two[0].timestamp.wrapping_add(960));
        assert_eq!(two[1].ssrc, two[0].ssrc);
    }
}

#[test]
fn a_call_goes_on_in_another_process() {
    for lite in [true, false] {
        let old = start(config());
        let mut call = Call::live(&old, Peer::new(&PeerOptions { lite, ..PeerOptions::default() }));
        let new = successor(&old);
        let (prompt, frames) = prompt(7, 120);
        call.leg.play(PLAY, play_once(&prompt));
        call.until("a third", |peer, _| sound(&peer.received, 7).len() >= 40);
        let (leg, log) = move_legs(&old, &new, &[&call.leg]).pop().expect("one leg");
        let before = call.log.all().len();
        call.type_keys(126, 8_000, "42#");
        call.until("played", |_, _| log.has(&LegEvent::Played(PLAY)) && log.digits().len() == 3);
        assert_eq!(log.digits(), "42#");
        // The old process ends.
        let Call { mut peer, leg: old_leg, log: old_log } = call;
        drop(old_leg);
        drop(old);
        let received = peer[0].received.len();
        pump(&mut peer, "silence", |peers| peers[0].received.len() > received + 20);
        let received = &peer[0].received;
        assert_eq!(sound(received, 7), frames, "every frame once");
        assert_one_stream(received);
        assert!(!peer[0].closed, "the old process said no goodbye");
        assert_eq!(old_log.all().len(), before, "and reported nothing");
        assert!(!log.has(&LegEvent::FirstSent) && !log.has(&LegEvent::PlayStarted(PLAY)));
        // The counters continue, and no packet was sent that the peer did not take.
        let sent = leg.stats().rtp_out;
        pump(&mut peer, "the rest", |peers| peers[0].received.len() as u64 >= sent);
        assert!(leg.stats().rtp_out <= peer[0].received.len() as u64 + 2);
    }
}

#[test]
fn taps_go_on_in_the_new_process() {
    let old = start(config());
    let mut call = Call::live(&old, Peer::new(&PeerOptions::default()));
    let mut first = call.leg.movable_tap(TapSides::Both);
    // More than a tap can queue.
    let (prompt, frames) = prompt(7, 200);
    call.leg.play(PLAY, play_once(&prompt));
    call.until("some", |peer, _| sound(&peer.received, 7).len() >= 20);
    // An abandoned hand-over leaves no trace.
    drop(freeze(&old, &[&call.leg]));
    old.resume(OtherProcess::SentNothing);
    call.until("more", |peer, _| sound(&peer.received, 7).len() >= 40);
    let new = successor(&old);
    let (mut snapshots, prompts) = freeze(&old, &[&call.leg]);
    let snapshot = snapshots.pop().expect("one leg");
    let log = Log::default();
    let adopted = new.adopt(snapshot, &prompts, log.sink(), &[TapSides::Both]);
    let ContinuedLeg { leg, mut taps, feed } = adopted.expect("adopted");
    assert!(feed.is_none());
    new.start_receiving();
    let second = HeldTap::new(taps.pop().expect("a tap"), new.workers());
    call.until("played", |_, _| log.has(&LegEvent::Played(PLAY)));
    let mut entries = Vec::new();
    for tap in [&mut first, &mut second.take().expect("the tap")] {
        assert_eq!(tap.dropped(), 0);
        entries.extend(std::iter::from_fn(|| tap.next()));
    }
    let sent: Vec<Vec<u8>> = entries
        .iter()
        .filter_map(|entry| match entry {
            TapEntry::Sent(frame) => Some(frame.to_vec()),
            _ => None,
        })
        .collect();
    assert_eq!(sent, frames, "every frame once");
    let is_sent = |entry: &TapEntry| matches!(entry, TapEntry::Sent(_));
    let begin = entries.iter().position(is_sent).expect("a frame");
    let end = entries.iter().rposition(is_sent).expect("a frame");
    let ticks = entries[begin..end].iter().filter(|entry| matches!(entry, TapEntry::Tick));
    assert_eq!(ticks.count(), frames.len() - 1, "and one tick for each");
    drop(leg);
}

#[test]
fn a_feed_goes_on_in_the_new_process() {
    let old = start(config());
    let mut call = Call::live(&old, Peer::new(&PeerOptions::default()));
    let (_, frames) = prompt(7, 13);
    let frame = |n: usize| Frame::from(frames[n].as_slice());
    let played = |peer: &Peer| sound(&peer.received, 7);
    let first = call.leg.movable_feed(1);
    (0..12).for_each(|n| assert!(first.push(frame(n))));
    call.until("some", |peer, _| played(peer).len() >= 2);
    // An abandoned hand-over loses nothing.
    drop(freeze(&old, &[&call.leg]));
    old.resume(OtherProcess::SentNothing);
    call.until("more", |peer, _| played(peer).len() >= 4);
    let new = successor(&old);
    let (mut snapshots, prompts) = freeze(&old, &[&call.leg]);
    let (snapshot, log) = (snapshots.pop().expect("one leg"), Log::default());
    let adopted = new.adopt(snapshot, &prompts, log.sink(), &[]).expect("adopted");
    let second = adopted.feed.expect("a feed");
    assert_eq!(first.taken() + second.pushed(), 12);
    assert!(second.push(frame(12)));
    new.start_receiving();
    call.until("all", |peer, _| played(peer).len() >= 13);
    assert_eq!(played(&call.peer[0]), frames, "every frame once");
    assert_eq!(second.waiting(), 0);
}

#[test]
fn two_bridged_legs_hear_each_other_in_the_new_process() {
    let old = start(config());
    let calls = [(); 2].map(|()| Call::live(&old, Peer::new(&PeerOptions::default())));
    let (ours, theirs) = crate::bridge();
    calls[0].leg.bridge(ours);
    calls[1].leg.bridge(theirs);
    let (_, frames) = prompt(7, 60);
    let [first, second] = calls;
    let mut peers = [first.peer, second.peer].map(|[peer]| peer);
    let say = |peers: &mut [Peer; 2], frames: &[Vec<u8>]| {
        for frame in frames {
            peers.iter_mut().for_each(|peer| peer.send_audio(frame));
            pump_for(peers, Duration::from_millis(20));
        }
    };
    say(&mut peers, &frames[..20]);
    // An abandoned hand-over leaves the bridge as it was.
    drop(freeze(&old, &[&first.leg, &second.leg]));
    old.resume(OtherProcess::SentNothing);
    say(&mut peers, &frames[20..40]);
    let new = successor(&old);
    let _moved = move_legs(&old, &new, &[&first.leg, &second.leg]);
    say(&mut peers, &frames[40..]);
    let last = frames.last().expect("frames");
    pump(&mut peers, "the last frame", |peers| {
        peers.iter().all(|peer| sound(&peer.received, 7).last() == Some(last))
    });
    for peer in &peers {
        let played = sound(&peer.received, 7);
        assert!(played.is_sorted_by(|one, next| one < next), "in order, each once");
        assert_eq!(played, frames);
    }
}

#[test]
fn an_offer_is_answered_in_the_new_process() {
    let old = start(config());
    let (mut offered, offer) = old.offer().expect("an offer");
    let mut media = old;
    // It moves twice.
    for _ in 0..2 {
        let new = successor(&media);
        let snapshot = media.snapshot_offered(&offered).expect("movable");
        let json = serde_json::to_string(&snapshot).expect("JSON");
        assert!(format!("{snapshot:?}").len() < 100, "keys are not printed");
        offered = new.adopt_offered(serde_json::from_str(&json).expect("JSON")).expect("adopted");
        media = new;
    }
    media.start_receiving();
    let mut peer = [Peer::new(&PeerOptions { setup: Setup::Passive, ..PeerOptions::default() })];
    peer[0].accept(&offer);
    let log = Log::default();
    let leg = media.accept_answer(offered, &peer[0].offer(), log.sink()).expect("a leg");
    leg.begin();
    leg.open();
    pump(&mut peer, "connected", |peer| peer[0].connected && log.has_media(MediaEvent::Connected));
    peer[0].send_audio(&[0x48, 1, 2]);
    pump(&mut peer, "audio both ways", |peer| {
        !peer[0].received.is_empty() && log.has_media(MediaEvent::FirstPacket)
    });
}

#[test]
fn datagrams_wait_for_the_new_process() {
    let old = start(config());
    let mut call = Call::live(&old, Peer::new(&PeerOptions::default()));
    let new = successor(&old);
    // The new process waits for the sockets, even when it wakes up.
    call.type_keys(126, 8_000, "1");
    call.until("a key", |_, log| log.digits() == "1");
    let (snapshots, prompts) = freeze(&old, &[&call.leg]);
    call.type_keys(126, 8_000, "23");
    pump_for(&mut call.peer, Duration::from_millis(60));
    assert_eq!((call.log.digits(), new.stats().unmatched), ("1".to_owned(), 0));
    let log = Log::default();
    let adopted: Vec<LegHandle> = snapshots
        .into_iter()
        .map(|snapshot| new.adopt(snapshot, &prompts, log.sink(), &[]).expect("adopted").leg)
        .collect();
    pump_for(&mut call.peer, Duration::from_millis(60));
    assert_eq!(log.digits(), "", "not all legs may be adopted yet");
    new.start_receiving();
    call.until("the keys of the gap", |_, _| log.digits() == "23");
    assert_eq!(adopted[0].stats().rtp_in, 30, "each packet of three keys, once");
    assert_eq!(new.stats().unmatched, 0);
}

#[test]
fn checks_are_answered_after_the_move() {
    let old = start(config());
    let peer = Peer::new(&PeerOptions { lite: false, ..PeerOptions::default() });
    let mut call = Call::live(&old, peer);
    let new = successor(&old);
    let _moved = move_legs(&old, &new, &[&call.leg]);
    let pwd = call.peer[0].answer.as_ref().expect("answer").pwd.clone();
    let at = UdpSocket::bind("127.0.0.1:0").expect("bind");
    at.set_nonblocking(true).expect("nonblocking");
    let ours = call.peer[0].remote.expect("our address");
    // Only a request that authenticates is answered.
    at.send_to(&check(&user(&call.peer[0]), "another password"), ours).expect("send");
    let request = check(&user(&call.peer[0]), &pwd);
    at.send_to(&request, ours).expect("send");
    let mut response = [0; 2_000];
    let mut length = 0;
    call.until("a response", |_, _| {
        length = at.recv(&mut response).unwrap_or_default();
        length > 0
    });
    let response = &response[..length];
    let id = stun::check_id(&request).expect("a check");
    assert_eq!(stun::classify(response), stun::Kind::Response(id));
    assert!(stun::is_authentic(response, &pwd));
    assert_eq!(stun::mapped_address(response, id), at.local_addr().ok());
    StunMessage::parse(response).expect("a valid FINGERPRINT");
    assert!(at.recv(&mut [0; 2_000]).is_err(), "one response");
}

#[test]
fn an_abandoned_hand_over_leaves_no_trace() {
    let old = start(config());
    let mut call = Call::live(&old, Peer::new(&PeerOptions::default()));
    let (prompt, frames) = prompt(7, 60);
    call.leg.play(PLAY, play_once(&prompt));
    call.until("some", |peer, _| sound(&peer.received, 7).len() >= 20);
    for key in ["8", "9", "0"] {
        let new = successor(&old);
        let (snapshots, _) = freeze(&old, &[&call.leg]);
        assert_eq!(old.stats().legs, 1);
        let sent = call.leg.stats().rtp_out;
        call.leg.send_digits(PlayId(9), "5");
        call.type_keys(126, 8_000, key);
        pump_for(&mut call.peer, Duration::from_millis(30));
        assert_eq!(call.leg.stats().rtp_out, sent, "frozen");
        drop((snapshots, new));
        old.resume(OtherProcess::SentNothing);
        call.until("on", |peer, _| peer.received.len() as u64 > sent + 2);
    }
    call.until("played", |peer, log| {
        log.has(&LegEvent::Played(PLAY))
            && log.digits().len() == 3
            && sound(&peer.received, 7).len() >= frames.len()
    });
    assert_eq!(call.log.digits(), "890", "what came meanwhile was read");
    let digits = call.log.all();
    let digits = digits.iter().filter(|event| **event == LegEvent::DigitsSent(PlayId(9)));
    assert_eq!(digits.count(), 3, "commands have waited");
    let received = &call.peer[0].received;
    assert_eq!(sound(received, 7), frames);
    assert!(received.windows(2).all(|two| two[1].sequence == two[0].sequence.wrapping_add(1)));
    // Without a tick in between, the leg still has one tick every 20 ms.
    for _ in 0..3 {
        let _ = freeze(&old, &[&call.leg]);
        old.resume(OtherProcess::SentNothing);
    }
    let before = call.peer[0].received.len();
    pump_for(&mut call.peer, Duration::from_secs(1));
    let sent = call.peer[0].received.len() - before;
    assert!((1..90).contains(&sent), "{sent} packets in a second");
    // The certificate and the handshake are still there.
    call.peer[0].close();
    call.until("closed", |_, log| {
        log.has_media(MediaEvent::Lost { fault: MediaFault::DtlsClosed })
    });
}

#[test]
fn the_old_process_continues_if_the_new_one_dies() {
    let old = start(config());
    let mut call = Call::live(&old, Peer::new(&PeerOptions::default()));
    let new = successor(&old);
    let moved = move_legs(&old, &new, &[&call.leg]);
    let received = call.peer[0].received.len();
    call.until("the new one sends", |peer, _| peer.received.len() > received + 20);
    // A process that is killed says no goodbye.
    let (snapshots, _) = freeze(&new, &[&moved[0].0]);
    drop((snapshots, moved, new));
    let received = call.peer[0].received.len();
    old.resume(OtherProcess::MayHaveSent);
    call.type_keys(126, 8_000, "9");
    call.until("the old one sends", |peer, log| {
        peer.received.len() > received + 20 && log.digits() == "9"
    });
    let sequences: Vec<u16> = call.peer[0].received.iter().map(|p| p.sequence).collect();
    assert!(sequences.windows(2).all(|two| (1..200).contains(&two[1].wrapping_sub(two[0]))));
    assert!(sequences.windows(2).any(|two| two[1].wrapping_sub(two[0]) > 20), "some are skipped");
}

#[test]
fn a_frozen_leg_ends_silently() {
    let old = start(config());
    let call = Call::live(&old, Peer::new(&PeerOptions::default()));
    let (snapshots, _) = freeze(&old, &[&call.leg]);
    let Call { peer: mut peers, leg, log } = call;
    let events = log.all().len();
    drop(leg);
    pump(&mut peers, "no leg is left", |_| old.stats().legs == 0);
    pump_for(&mut peers, Duration::from_millis(50));
    assert!(!peers[0].closed);
    assert_eq!(log.all().len(), events);
    // It can be adopted by the same process, too.
    let log = Log::default();
    let received = peers[0].received.len();
    let prompts = PromptTable::default();
    let adopted: Vec<_> = snapshots
        .into_iter()
        .map(|snapshot| old.adopt(snapshot, &prompts, log.sink(), &[]).expect("adopted").leg)
        .collect();
    old.start_receiving();
    pump(&mut peers, "on", |peers| peers[0].received.len() > received + 10);
    assert_one_stream(&peers[0].received);
    drop(adopted);
    pump(&mut peers, "the port is free", |_| old.stats().legs == 0);
}

/// Calls of one peer address have a port each, which they keep.
#[test]
fn legs_keep_their_ports() {
    let old = start(config());
    let relay = socket("127.0.0.1:0");
    let (mut peers, mut legs) = (Vec::new(), Vec::new());
    for n in 1..=3u8 {
        let mut peer = Peer::at(&PeerOptions::default(), relay.clone());
        let log = Log::default();
        let (leg, answer) = old.answer(&peer.offer(), log.sink()).expect("answer");
        peer.accept(&answer);
        leg.begin();
        leg.open();
        leg.play(PLAY, play_once(&prompt(n, 200).0));
        peers.push(peer);
        legs.push((leg, log));
    }
    pump(&mut peers, "all connected", |_| {
        legs.iter().all(|(_, log)| log.has_media(MediaEvent::Connected))
    });
    assert_eq!(old.stats().ports_open, 3);
    let new = successor(&old);
    let handles: Vec<&LegHandle> = legs.iter().map(|(leg, _)| leg).collect();
    let moved = move_legs(&old, &new, &handles);
    assert_eq!(new.stats().ports_open, 3);
    pump(&mut peers, "played", |peers| {
        let played = (1u8..).zip(peers).map(|(n, peer)| sound(&peer.received, n).len());
        moved.iter().all(|(_, log)| log.has(&LegEvent::Played(PLAY)))
            && played.sum::<usize>() >= 600
    });
    for (n, peer) in (1u8..).zip(&peers) {
        assert_eq!(sound(&peer.received, n), prompt(n, 200).1, "its own prompt");
        assert_one_stream(&peer.received);
    }
    for (peer, key) in peers.iter_mut().zip(["1", "2", "3"]) {
        press(peer, key);
    }
    pump(&mut peers, "keys", |_| moved.iter().all(|(_, log)| !log.digits().is_empty()));
    let digits: Vec<_> = moved.iter().map(|(_, log)| log.digits()).collect();
    assert_eq!(digits, ["1", "2", "3"]);
    drop(moved);
    pump(&mut peers, "extra ports are closed", |_| new.stats().ports_open == 1);
}

/// With a single port, calls of one peer address share it.
#[test]
fn legs_on_a_shared_path_move() {
    let narrow = MediaConfig { max_ports: 1, ..config() };
    let old = start(narrow.clone());
    let relay = socket("127.0.0.1:0");
    let (mut peers, mut legs) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let mut peer = Peer::at(&PeerOptions::default(), relay.clone());
        let log = Log::default();
        let (leg, answer) = old.answer(&peer.offer(), log.sink()).expect("answer");
        peer.accept(&answer);
        leg.begin();
        leg.open();
        peers.push(peer);
        legs.push((leg, log));
    }
    pump(&mut peers, "all connected", |_| {
        legs.iter().all(|(_, log)| log.has_media(MediaEvent::Connected))
    });
    let new = start(MediaConfig { inherited: old.sockets(), ..narrow });
    let handles: Vec<&LegHandle> = legs.iter().map(|(leg, _)| leg).collect();
    let moved = move_legs(&old, &new, &handles);
    for (peer, key) in peers.iter_mut().zip(["1", "2"]) {
        press(peer, key);
    }
    pump(&mut peers, "keys", |_| moved.iter().all(|(_, log)| !log.digits().is_empty()));
    assert_eq!(moved.iter().map(|(_, log)| log.digits()).collect::<Vec<_>>(), ["1", "2"]);
}

#[test]
fn a_leg_without_its_socket_or_prompt_is_refused() {
    let old = start(config());
    let mut call = Call::live(&old, Peer::new(&PeerOptions::default()));
    call.leg.play(PLAY, play_once(&prompt(7, 200).0));
    call.until("started", |_, log| log.has(&LegEvent::PlayStarted(PLAY)));
    let (snapshots, prompts) = freeze(&old, &[&call.leg]);
    let bytes = snapshots[0].to_bytes().expect("bytes");
    let snapshot = || LegSnapshot::from_bytes(&bytes).expect("a snapshot");
    let stranger = start(config());
    let adopt = |media: &Media, prompts: &PromptTable| {
        media.adopt(snapshot(), prompts, Log::default().sink(), &[])
    };
    let refused = adopt(&stranger, &prompts);
    assert!(matches!(refused, Err(MediaError::PortNotInherited(_))), "{refused:?}");
    let new = successor(&old);
    let refused = adopt(&new, &PromptTable::default());
    assert!(matches!(refused, Err(MediaError::Snapshot)), "{refused:?}");
    assert_eq!((stranger.stats().legs, new.stats().legs), (0, 0));
    new.stop();
    let refused = adopt(&new, &prompts);
    assert!(matches!(refused, Err(MediaError::Stopped)), "{refused:?}");
    assert_eq!(new.stats().legs, 0);
}

/// Legs of both shards move at once.
#[test]
fn two_hundred_legs_move_at_once() {
    const LEGS: usize = 200;
    let wide = MediaConfig { shards: 2, ..config() };
    let old = start(wide.clone());
    let mut calls: Vec<Call> = (0..LEGS)
        .map(|_| {
            let peer = Peer::new(&PeerOptions::default());
            peer.socket.as_ref().expect("a socket").set_nonblocking(true).expect("nonblocking");
            let call = call(&old, peer);
            call.leg.open();
            call
        })
        .collect();
    let pump_all = |calls: &mut Vec<Call>, what: &str, done: &dyn Fn(&Call) -> bool| {
        let mut waiting = true;
        let deadline = now() + Duration::from_secs(60);
        while waiting {
            assert!(now() < deadline, "timed out waiting for: {what}");
            waiting = false;
            for call in calls.iter_mut() {
                pump_for(&mut call.peer, Duration::from_micros(1));
                waiting |= !done(call);
            }
        }
    };
    pump_all(&mut calls, "connected", &|call| call.log.has_media(MediaEvent::Connected));
    let (prompt, frames) = prompt(7, 200);
    calls.iter().for_each(|call| call.leg.play(PLAY, play_once(&prompt)));
    pump_all(&mut calls, "heard", &|call| sound(&call.peer[0].received, 7).len() > 3);
    let new = start(MediaConfig { inherited: old.sockets(), ..wide });
    let handles: Vec<&LegHandle> = calls.iter().map(|call| &call.leg).collect();
    let moved = move_legs(&old, &new, &handles);
    for (call, (leg, log)) in calls.iter_mut().zip(moved) {
        (call.leg, call.log) = (leg, log);
    }
    drop(old);
    assert_eq!(new.stats().legs, LEGS);
    pump_all(&mut calls, "played", &|call| {
        call.log.has(&LegEvent::Played(PLAY))
            && sound(&call.peer[0].received, 7).len() >= frames.len()
    });
    for call in &calls {
        assert!(sound(&call.peer[0].received, 7) == frames, "every frame once");
        assert_one_stream(&call.peer[0].received);
    }
}
