//! Two ends with the same keys, and an attacker with a recording of everything.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::srtp::Profile;
use model::Clock;

const LOCAL_SSRC: u32 = 7;
const PEER_SSRC: u32 = 9;

fn to() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 9))
}

fn end(client: bool, now: Instant, profile: Profile, bytes: usize) -> Transport {
    let keys = Keys::new(profile, &(0..).take(bytes).collect::<Vec<u8>>(), client).expect("keys");
    let ssrc = if client { LOCAL_SSRC } else { PEER_SSRC };
    let config = TransportConfig {
        ssrc,
        cname: "name".to_owned(),
        opus_pt: 111,
        now,
        wall: Timestamp::from_secs(1_790_000_000),
    };
    Transport::new(&keys, config).expect("a transport")
}

fn pair() -> (Transport, Transport, Instant) {
    let now = Clock::real().now();
    (end(true, now, Profile::Aes128Gcm, 56), end(false, now, Profile::Aes128Gcm, 56), now)
}

fn sending(sequence: u64, payload: &[u8], at: Instant) -> OutgoingPacket<'_> {
    OutgoingPacket {
        payload_type: 111,
        marker: false,
        sequence,
        timestamp: sequence as u32 * 960,
        payload,
        at,
    }
}

/// The datagrams that `act` sends.
fn sent(act: impl FnOnce(&mut SendBuffer)) -> Vec<Vec<u8>> {
    let mut out = SendBuffer::default();
    act(&mut out);
    out.iter().map(|(_, datagram)| datagram.to_vec()).collect()
}

fn send_packet(from: &mut Transport, sequence: u64, now: Instant) -> Vec<u8> {
    let mut packets = sent(|out| assert!(from.send(to(), sending(sequence, &[1, 2, 3], now), out)));
    packets.pop().expect("a packet")
}

#[test]
fn accepts_each_packet_once_with_any_profile() {
    let now = Clock::real().now();
    for (profile, bytes) in
        [(Profile::Aes128CmSha1, 60), (Profile::Aes128Gcm, 56), (Profile::Aes256Gcm, 88)]
    {
        let (mut one, mut other) =
            (end(true, now, profile, bytes), end(false, now, profile, bytes));
        let datagram = send_packet(&mut one, 40_000, now);
        assert!(one.receive_rtp(now, &datagram).is_none(), "reflected");
        let packet = other.receive_rtp(now, &datagram).expect("heard");
        assert_eq!(
            (packet.ssrc, packet.sequence, packet.payload),
            (LOCAL_SSRC, 40_000, &[1, 2, 3][..])
        );
        assert!(other.receive_rtp(now, &datagram).is_none(), "a replay");
        let report = sent(|out| one.report(now, to(), false, out));
        assert!(other.receive_rtcp(now, &report[0]));
        assert!(!other.receive_rtcp(now, &report[0]), "a replay");
        assert!(!one.receive_rtcp(now, &report[0]), "reflected");
    }
}

#[test]
fn indices_continue_across_rollovers() {
    let (mut one, mut other, now) = pair();
    let packets: Vec<Vec<u8>> = (65_530..65_550).map(|n| send_packet(&mut one, n, now)).collect();
    // Late packets around the rollover, each also as a replay.
    for (n, at) in [(0, 65_530), (8, 65_538), (3, 65_533), (19, 65_549), (7, 65_537)] {
        assert_eq!(other.receive_rtp(now, &packets[n]).map(|packet| packet.sequence), Some(at));
        assert_eq!(other.receive_rtp(now, &packets[n]), None);
    }
    let stats = other.quality().inbound;
    assert_eq!((stats.packets, stats.lost), (20, 15));
}

#[test]
fn a_stream_may_be_first_heard_after_its_rollover() {
    let now = Clock::real().now();
    for (profile, bytes) in [(Profile::Aes128CmSha1, 60), (Profile::Aes128Gcm, 56)] {
        let (mut one, mut other) =
            (end(true, now, profile, bytes), end(false, now, profile, bytes));
        for at in [65_536 + 3, 65_536 + 4, 65_535] {
            let datagram = send_packet(&mut one, at, now);
            assert_eq!(other.receive_rtp(now, &datagram).map(|packet| packet.sequence), Some(at));
            assert_eq!(other.receive_rtp(now, &datagram), None, "a replay");
        }
    }
}

#[test]
fn r19_a_rollover_is_assumed_a_limited_number_of_times() {
    let (mut one, mut other, now) = pair();
    let rolled_over = send_packet(&mut one, 65_536 + 3, now);
    let mut altered = rolled_over.clone();
    altered[20] ^= 1;
    for _ in 0..ROLLOVER_TRIES_MAX {
        assert_eq!(other.receive_rtp(now, &altered), None);
    }
    assert_eq!(other.receive_rtp(now, &rolled_over), None);
    let first = send_packet(&mut one, 3, now);
    assert_eq!(other.receive_rtp(now, &first).map(|packet| packet.sequence), Some(3));
}

#[test]
fn r19_altered_packets_change_nothing() {
    let (mut one, mut other, now) = pair();
    let good = send_packet(&mut one, 100, now);
    for at in 0..good.len() {
        let mut altered = good.clone();
        altered[at] ^= 0x10;
        assert!(other.receive_rtp(now, &altered).is_none(), "byte {at}");
        assert!(!other.receive_rtcp(now, &altered), "byte {at}");
        assert!(other.receive_rtp(now, &good[..at]).is_none(), "cut at {at}");
    }
    assert!(!other.has_ssrc(LOCAL_SSRC) && other.sources.is_empty() && other.reporters.is_empty());
    assert!(other.receive_rtp(now, &good).is_some());
}

#[test]
fn r19_bounds_streams_and_rejects_replays_of_former_ones() {
    let (_, mut other, now) = pair();
    let captured: Vec<Vec<u8>> = (0..40)
        .map(|ssrc| {
            let mut one = end(true, now, Profile::Aes128Gcm, 56);
            one.ssrc = 1_000 + ssrc;
            send_packet(&mut one, 5, now)
        })
        .collect();
    for datagram in &captured {
        assert!(other.receive_rtp(now, datagram).is_some());
        assert!(other.sources.len() <= SOURCES_MAX && other.retired.len() <= RETIRED_MAX);
    }
    assert!(
        captured[40 - SOURCES_MAX - RETIRED_MAX..]
            .iter()
            .all(|datagram| other.receive_rtp(now, datagram).is_none())
    );
    let mut one = end(true, now, Profile::Aes128Gcm, 56);
    one.ssrc = 1_030;
    let next = send_packet(&mut one, 6, now);
    assert_eq!(
        other.receive_rtp(now, &next).map(|packet| packet.sequence),
        Some(6),
        "the stream continues"
    );
}

#[test]
fn reports_every_five_seconds_with_loss_and_round_trip() {
    let (mut one, mut other, start) = pair();
    let trip = Duration::from_millis(40);
    let mut reports = 0;
    for n in 0..1_000_u64 {
        let now = start + Duration::from_millis(n * 20);
        let datagram = send_packet(&mut one, 300 + n, now);
        if n % 10 != 3 {
            assert!(other.receive_rtp(now + trip / 2, &datagram).is_some());
        }
        for report in sent(|out| _ = one.tick(now, to(), out)) {
            reports += 1;
            assert!(other.receive_rtcp(now + trip / 2, &report));
        }
        for report in sent(|out| _ = other.tick(now + trip / 2, to(), out)) {
            assert!(one.receive_rtcp(now + trip, &report));
        }
    }
    assert_eq!(reports, 4, "in 20 s: at 2.5 s, 7.5 s and so on");
    let packet = other.quality();
    assert_eq!((packet.inbound.packets, packet.inbound.lost), (1_000, 100));
    let stats = one.quality();
    assert!((85..=92).contains(&stats.outbound.lost), "{stats:?}");
    assert!((850..=900).contains(&stats.outbound.packets), "{stats:?}");
    let measured = stats.round_trip.expect("a round trip");
    assert!((measured.as_millis()).abs_diff(40) <= 2, "{measured:?}");
    assert_eq!(
        packet.round_trip, None,
        "none without packets sent: receiver reports carry no time"
    );
}

#[test]
fn a_bye_contains_a_report() {
    let (mut one, mut other, now) = pair();
    let datagram = send_packet(&mut one, 1, now);
    assert!(other.receive_rtp(now, &datagram).is_some());
    let bye = sent(|out| _ = one.send_bye(now, to(), out));
    let mut plain = Vec::new();
    assert!(other.open.open_rtcp(&bye[0], &mut plain));
    let mut items = Vec::new();
    rtcp::parse(&plain, |item| items.push(item));
    assert!(
        matches!(items.as_slice(), [Item::SenderReport(LOCAL_SSRC, _), Item::Goodbye(LOCAL_SSRC)]),
        "{items:?}"
    );
}
