//! Datagrams from strangers before, during and after a handshake: no reply and no effect
//! (docs/reference/reliability.md#r19).

use std::collections::BTreeSet;

use str0m::ice::{StunMessage, TransId};

use super::*;
use crate::MissingStep;

/// A STUN check with this USERNAME and password.
pub(super) fn check(user: &str, pwd: &str) -> Vec<u8> {
    let hmac = |key: &[u8], parts: &[&[u8]]| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        <[u8; 20]>::try_from(aws_lc_rs::hmac::sign(&key, &parts.concat()).as_ref())
            .expect("20 bytes")
    };
    let mut buf = vec![0; 300];
    let message = StunMessage::binding_request(user, TransId::new(), true, 1, 1, true);
    let n = message.to_bytes(Some(pwd.as_bytes()), &mut buf, hmac).expect("fits");
    buf.truncate(n);
    buf
}

/// The USERNAME of a call's checks.
pub(super) fn user(peer: &Peer) -> String {
    format!("{}:{}", peer.answer.as_ref().expect("answer").ufrag, peer.offer().ufrag)
}

/// Invalid datagrams: checks with wrong credentials, DTLS, RTP, RTCP, TURN, garbage.
fn junk(peer: &Peer) -> Vec<Vec<u8>> {
    let answer = peer.answer.as_ref().expect("answer");
    let mut client_hello = vec![22, 254, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 54, 1, 0, 0, 42];
    client_hello.resize(67, 0);
    let rtp =
        |ssrc: u32| [&[0x80, 111, 0, 1, 0, 0, 0, 1][..], &ssrc.to_be_bytes(), &[0; 40]].concat();
    vec![
        check(&user(peer), "a wrong password of length"),
        check("nobody:here", &answer.pwd),
        client_hello,
        // A fatal alert, a close_notify, application data.
        vec![21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 2, 40],
        vec![21, 254, 253, 0, 0, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0],
        vec![23, 254, 253, 0, 1, 0, 0, 0, 0, 0, 9, 0, 2, 1, 0],
        rtp(peer.ssrc),
        rtp(99),
        // A sender report, a BYE.
        vec![0x80, 200, 0, 1, 0, 0, 0, 1],
        [&[0x81, 203, 0, 1][..], &peer.ssrc.to_be_bytes()].concat(),
        // TURN: Allocate, ChannelData.
        vec![0, 3, 0, 0, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12],
        vec![0x40, 0, 0, 4, 1, 2, 3, 4],
        vec![],
        vec![1],
        vec![0; 1_400],
        vec![0xff; 1_400],
    ]
}

fn stranger() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
    socket.set_nonblocking(true).expect("nonblocking");
    socket
}

fn assert_no_reply(stranger: &UdpSocket) {
    let got = stranger.recv_from(&mut [0; 2_000]);
    assert!(got.is_err(), "{got:?}");
}

#[test]
fn r19_strangers_get_no_reply_and_have_no_effect() {
    let media = start(config());
    let mut call = Call::live(&media, Peer::new(&PeerOptions::default()));
    let ours = call.peer[0].remote.expect("our address");
    let junk = junk(&call.peer[0]);
    let stranger = stranger();
    for datagram in &junk {
        stranger.send_to(datagram, ours).expect("send");
    }
    call.until("counted", |_, _| media.stats().unmatched >= junk.len() as u64);
    // The same from a spoofed peer address: nothing authenticates, nothing changes.
    for datagram in &junk {
        call.peer[0].out.push((ours, datagram.clone()));
    }
    let (prompt, frames) = prompt(8, 20);
    call.leg.play(PLAY, play_once(&prompt));
    call.type_keys(126, 8_000, "5");
    call.until("the call continues", |peer, log| {
        sound(&peer.received, 8).len() == frames.len()
            && log.digits() == "5"
            && log.has(&LegEvent::Played(PLAY))
    });
    assert_eq!(call.leg.stats().rtp_in, 10, "only the digit's packets");
    assert_no_reply(&stranger);
    assert!(!call.log.all().iter().any(|e| matches!(e, LegEvent::Media(MediaEvent::Lost { .. }))));
}

#[test]
fn r19_a_wrong_certificate_ends_the_leg() {
    let media = start(config());
    let mut peer = [Peer::new(&PeerOptions::default())];
    let text = peer[0].offer_text();
    let hex = text.split("sha-256 ").nth(1).and_then(|t| t.lines().next()).expect("fingerprint");
    let offer = Offer::parse(&text.replace(hex, &["AB"; 32].join(":")), true).expect("offer");
    let log = Log::default();
    let (leg, answer) = media.answer(&offer, log.sink()).expect("answer");
    peer[0].accept(&answer);
    leg.begin();
    leg.open();
    pump(&mut peer, "told", |_| log.has_media(MediaEvent::Lost { fault: MediaFault::Fingerprint }));
    let missing = LegEvent::NoAudio {
        missing: MissingStep::Fingerprint,
        waited: Duration::ZERO,
        checking: true,
    };
    assert!(log.has(&missing), "the reason is reported: {:?}", log.all());
    assert!(!log.has_media(MediaEvent::Connected));
    assert!(peer[0].received.is_empty());
}

#[test]
fn r19_junk_before_and_during_the_handshake_has_no_effect() {
    let media = start(config());
    for setup in [Setup::Actpass, Setup::Active] {
        for lite in [true, false] {
            let peer = Peer::new(&PeerOptions { setup, lite, ..PeerOptions::default() });
            let mut call = call(&media, peer);
            call.leg.open();
            let (ours, junk) = (call.peer[0].remote.expect("our address"), junk(&call.peer[0]));
            let (stranger, mut sent) = (stranger(), media.stats().unmatched);
            // Keeps some junk in flight, but not enough to overflow the port's buffer, which would
            // lose packets of the peer.
            let mut flood = || {
                if media.stats().unmatched >= sent {
                    for datagram in &junk {
                        sent += u64::from(stranger.send_to(datagram, ours).is_ok());
                    }
                }
            };
            call.until("connected", |peer, log| {
                flood();
                peer.connected && log.has_media(MediaEvent::Connected)
            });
            call.type_keys(126, 8_000, "5");
            call.until("the key", |_, log| {
                flood();
                log.digits() == "5"
            });
            call.until("all junk counted", |_, _| media.stats().unmatched >= sent);
            assert_no_reply(&stranger);
            assert!(
                !call
                    .log
                    .all()
                    .iter()
                    .any(|e| matches!(e, LegEvent::Media(MediaEvent::Lost { .. })))
            );
        }
    }
    assert!(media.stats().unmatched > 0);
}

#[test]
fn r19_a_reply_to_a_check_is_at_most_twice_its_size() {
    let media = start(config());
    let call =
        Call::live(&media, Peer::new(&PeerOptions { lite: false, ..PeerOptions::default() }));
    let ours = call.peer[0].remote.expect("our address");
    let request = check(&user(&call.peer[0]), &call.peer[0].answer.as_ref().expect("answer").pwd);
    let checker = socket("127.0.0.1:0");
    checker.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
    checker.send_to(&request, ours).expect("send");
    let (length, from) = checker.recv_from(&mut [0; 2_000]).expect("an answer");
    assert_eq!(from, ours);
    assert!(length <= 2 * request.len(), "{length} to {}", request.len());
    // A source that may check may do nothing more: its DTLS and RTP do not match the leg's
    // handshake and keys.
    for datagram in junk(&call.peer[0]) {
        checker.send_to(&datagram, ours).expect("send");
    }
    let mut call = call;
    call.type_keys(126, 8_000, "7");
    call.until("the key", |_, log| log.digits() == "7");
    assert!(!call.log.all().iter().any(|e| matches!(e, LegEvent::Media(MediaEvent::Lost { .. }))));
}

#[test]
fn r19_a_peer_that_checks_from_many_ports_is_answered_at_some_and_keeps_its_call() {
    let media = start(config());
    let mut call =
        Call::live(&media, Peer::new(&PeerOptions { lite: false, ..PeerOptions::default() }));
    let ours = call.peer[0].remote.expect("our address");
    let request = check(&user(&call.peer[0]), &call.peer[0].answer.as_ref().expect("answer").pwd);
    let unmatched = media.stats().unmatched;
    let sockets: Vec<UdpSocket> = (0..50).map(|_| stranger()).collect();
    let flood = || {
        for socket in &sockets {
            socket.send_to(&request, ours).expect("send");
        }
    };
    let answers = || {
        let got = |socket: &&UdpSocket| socket.recv_from(&mut [0; 2_000]).is_ok();
        sockets.iter().filter(got).count()
    };
    // With the peer's own, these are 32 addresses. They may check again.
    for round in 1..=2 {
        flood();
        let mut answered = 0;
        call.until("answered", |_, _| {
            answered += answers();
            answered >= 31 && media.stats().unmatched - unmatched >= 19 * round
        });
        assert_eq!((answered, media.stats().unmatched - unmatched), (31, 19 * round));
    }
    call.type_keys(126, 8_000, "7");
    call.until("the key", |_, log| log.digits() == "7");
    assert!(!call.log.all().iter().any(|e| matches!(e, LegEvent::Media(MediaEvent::Lost { .. }))));
}

#[test]
fn r19_credentials_are_long_and_unique() {
    let media = start(config());
    let (mut credentials, mut legs) = (BTreeSet::new(), Vec::new());
    for _ in 0..50 {
        let offer = Peer::new(&PeerOptions::default()).offer();
        let (leg, answer) = media.answer(&offer, Log::default().sink()).expect("answer");
        let answer = Offer::parse(&answer, true).expect("readable");
        assert!(
            answer.ufrag.len() >= 8 && answer.pwd.len() >= 24,
            "{} and {}",
            answer.ufrag.len(),
            answer.pwd.len()
        );
        credentials.extend([answer.ufrag, answer.pwd]);
        legs.push(leg);
    }
    assert_eq!(credentials.len(), 100);
}
