//! Two ends with the same keys, and an attacker who has recorded everything.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::srtp::Profile;
use model::Clock;

const OURS: u32 = 7;
const THEIRS: u32 = 9;

fn to() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 9))
}

fn end(client: bool, now: Instant, profile: Profile, bytes: usize) -> Transport {
    let keys = Keys::new(profile, &(0..).take(bytes).collect::<Vec<u8>>(), client).expect("keys");
    let ssrc = if client { OURS } else { THEIRS };
    let making = Making {
        ssrc,
        cname: "name".to_owned(),
        opus_pt: 111,
        now,
        wall: Timestamp::from_secs(1_790_000_000),
    };
    Transport::new(&keys, making).expect("a transport")
}

fn pair() -> (Transport, Transport, Instant) {
    let now = Clock::real().now();
    (end(true, now, Profile::Aes128Gcm, 56), end(false, now, Profile::Aes128Gcm, 56), now)
}

fn sending(sequence: u64, payload: &[u8], at: Instant) -> Sending<'_> {
    Sending {
        payload_type: 111,
        marker: false,
        sequence,
        timestamp: sequence as u32 * 960,
        payload,
        at,
    }
}

/// The datagrams that `act` sends.
fn sent(act: impl FnOnce(&mut Outbox)) -> Vec<Vec<u8>> {
    let mut out = Outbox::default();
    act(&mut out);
    out.iter().map(|(_, datagram)| datagram.to_vec()).collect()
}

fn packet(from: &mut Transport, sequence: u64, now: Instant) -> Vec<u8> {
    let mut packets = sent(|out| assert!(from.send(to(), sending(sequence, &[1, 2, 3], now), out)));
    packets.pop().expect("a packet")
}

#[test]
fn a_packet_is_heard_once_whatever_the_profile() {
    let now = Clock::real().now();
    for (profile, bytes) in
        [(Profile::Aes128CmSha1, 60), (Profile::Aes128Gcm, 56), (Profile::Aes256Gcm, 88)]
    {
        let (mut one, mut other) =
            (end(true, now, profile, bytes), end(false, now, profile, bytes));
        let datagram = packet(&mut one, 40_000, now);
        assert!(one.rtp(now, &datagram).is_none(), "our own");
        let heard = other.rtp(now, &datagram).expect("heard");
        assert_eq!((heard.ssrc, heard.sequence, heard.payload), (OURS, 40_000, &[1, 2, 3][..]));
        assert!(other.rtp(now, &datagram).is_none(), "a replay");
        let report = sent(|out| one.report(now, to(), false, out));
        assert!(other.rtcp(now, &report[0]));
        assert!(!other.rtcp(now, &report[0]), "a replay");
        assert!(!one.rtcp(now, &report[0]), "our own");
    }
}

#[test]
fn indices_go_on_where_sequence_numbers_turn_over() {
    let (mut one, mut other, now) = pair();
    let packets: Vec<Vec<u8>> = (65_530..65_550).map(|n| packet(&mut one, n, now)).collect();
    // Late packets around the rollover, each also as a replay.
    for (n, at) in [(0, 65_530), (8, 65_538), (3, 65_533), (19, 65_549), (7, 65_537)] {
        assert_eq!(other.rtp(now, &packets[n]).map(|heard| heard.sequence), Some(at));
        assert_eq!(other.rtp(now, &packets[n]), None);
    }
    let way = other.quality().inbound;
    assert_eq!((way.packets, way.lost), (20, 15));
}

#[test]
fn r19_what_was_bent_changes_nothing() {
    let (mut one, mut other, now) = pair();
    let good = packet(&mut one, 100, now);
    for at in 0..good.len() {
        let mut bent = good.clone();
        bent[at] ^= 0x10;
        assert!(other.rtp(now, &bent).is_none(), "byte {at}");
        assert!(!other.rtcp(now, &bent), "byte {at}");
        assert!(other.rtp(now, &good[..at]).is_none(), "cut at {at}");
    }
    assert!(!other.knows(OURS) && other.sources.is_empty() && other.reporters.is_empty());
    assert!(other.rtp(now, &good).is_some());
}

#[test]
fn r19_streams_are_bounded_and_one_that_was_there_is_not_heard_again() {
    let (_, mut other, now) = pair();
    let caught: Vec<Vec<u8>> = (0..40)
        .map(|ssrc| {
            let mut one = end(true, now, Profile::Aes128Gcm, 56);
            one.ssrc = 1_000 + ssrc;
            packet(&mut one, 5, now)
        })
        .collect();
    for datagram in &caught {
        assert!(other.rtp(now, datagram).is_some());
        assert!(other.sources.len() <= SOURCES_MAX && other.retired.len() <= RETIRED_MAX);
    }
    assert!(
        caught[40 - SOURCES_MAX - RETIRED_MAX..]
            .iter()
            .all(|datagram| other.rtp(now, datagram).is_none())
    );
    let mut one = end(true, now, Profile::Aes128Gcm, 56);
    one.ssrc = 1_030;
    let next = packet(&mut one, 6, now);
    assert_eq!(other.rtp(now, &next).map(|heard| heard.sequence), Some(6), "it goes on");
}

#[test]
fn reports_go_every_five_seconds_and_tell_loss_and_round_trip() {
    let (mut one, mut other, start) = pair();
    let trip = Duration::from_millis(40);
    let mut reports = 0;
    for n in 0..1_000_u64 {
        let now = start + Duration::from_millis(n * 20);
        let datagram = packet(&mut one, 300 + n, now);
        if n % 10 != 3 {
            assert!(other.rtp(now + trip / 2, &datagram).is_some());
        }
        for report in sent(|out| _ = one.tick(now, to(), out)) {
            reports += 1;
            assert!(other.rtcp(now + trip / 2, &report));
        }
        for report in sent(|out| _ = other.tick(now + trip / 2, to(), out)) {
            assert!(one.rtcp(now + trip, &report));
        }
    }
    assert_eq!(reports, 4, "in 20 s: at 2.5 s, 7.5 s and so on");
    let heard = other.quality();
    assert_eq!((heard.inbound.packets, heard.inbound.lost), (1_000, 100));
    let told = one.quality();
    assert!((85..=92).contains(&told.outbound.lost), "{told:?}");
    assert!((850..=900).contains(&told.outbound.packets), "{told:?}");
    let measured = told.round_trip.expect("a round trip");
    assert!((measured.as_millis()).abs_diff(40) <= 2, "{measured:?}");
    assert_eq!(heard.round_trip, None, "who sends nothing has none: its reports carry no time");
}

#[test]
fn a_goodbye_is_a_report_too() {
    let (mut one, mut other, now) = pair();
    let datagram = packet(&mut one, 1, now);
    assert!(other.rtp(now, &datagram).is_some());
    let goodbye = sent(|out| _ = one.goodbye(now, to(), out));
    let mut plain = Vec::new();
    assert!(other.open.open_rtcp(&goodbye[0], &mut plain));
    let mut items = Vec::new();
    rtcp::read(&plain, |item| items.push(item));
    assert!(matches!(items.as_slice(), [Item::Sender(OURS, _), Item::Goodbye(OURS)]), "{items:?}");
}
