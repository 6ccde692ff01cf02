use std::net::{IpAddr, SocketAddr};

use super::choice::{Answer, DetectedAddresses, choose};
use super::memory::{self, Memory, Sighting};
use super::stun::{ask, look_up};
use super::{Family, Source};
use media::stun::{Kind, check_id, classify};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn answer(server: &str, mapped: &str) -> Answer {
    let mapped = mapped.parse().expect("an address and port");
    Answer { server: server.to_owned(), local: ip("10.0.0.2"), mapped }
}

/// A machine with a private IPv4 address.
fn behind_nat(answers: Vec<Answer>) -> DetectedAddresses {
    DetectedAddresses { answers, ..DetectedAddresses::new(Family::V4, vec![ip("10.0.0.2")]) }
}

fn earlier(local: &str) -> Memory {
    let mut memory = Memory::default();
    *memory.of_mut(Family::V4) = Some(Sighting { local: ip(local), public: ip("8.8.4.4") });
    memory
}

#[test]
fn a_public_address_of_an_interface_is_used_without_asking() {
    let locals = [ip("10.0.0.2"), ip("8.8.8.8")];
    let v4 = DetectedAddresses::new(Family::V4, locals.to_vec());
    let v6 = DetectedAddresses::new(Family::V6, vec![ip("2600:1f18::7")]);
    assert!(!v4.needs_stun() && !v6.needs_stun());
    let (found, seen) = choose(&[v4, v6], &Memory::default()).expect("found");
    let found: Vec<_> = found.addresses.into_iter().map(|found| (found.ip, found.source)).collect();
    let expected = ["8.8.8.8", "2600:1f18::7"].map(|text| (ip(text), Source::Interface));
    assert_eq!((found, seen), (expected.to_vec(), Memory::default()));
}

#[test]
fn behind_nat_the_first_answer_is_used_and_remembered() {
    let detected = behind_nat(vec![answer("a", "8.8.8.8:4000"), answer("b", "8.8.8.8:4000")]);
    assert!(detected.needs_stun());
    let (found, seen) = choose(&[detected], &Memory::default()).expect("found");
    assert_eq!(found.addresses[0].ip, ip("8.8.8.8"));
    assert_eq!(found.addresses[0].source, Source::Stun("a".to_owned()));
    assert!(found.warnings.is_empty());
    let sighting = seen.of(Family::V4).expect("remembered");
    assert_eq!((sighting.local, sighting.public), (ip("10.0.0.2"), ip("8.8.8.8")));
}

#[test]
fn servers_that_see_different_ports_or_addresses_are_reported() {
    for (second, words) in [("8.8.8.8:4001", "symmetric NAT"), ("8.8.4.4:4000", "several public")] {
        let detected = behind_nat(vec![answer("a", "8.8.8.8:4000"), answer("b", second)]);
        let (found, _) = choose(&[detected], &Memory::default()).expect("found");
        assert_eq!(found.addresses.len(), 1);
        assert!(found.warnings[0].contains(words), "{:?}", found.warnings);
    }
}

#[test]
fn without_an_answer_the_earlier_address_is_used_in_the_same_network_only() {
    let silent = || {
        let mut detected = behind_nat(Vec::new());
        detected.failures.push("stun.example.com:3478 did not answer".to_owned());
        detected
    };
    let (found, seen) = choose(&[silent()], &earlier("10.0.0.2")).expect("found");
    assert_eq!(found.addresses[0].ip, ip("8.8.4.4"));
    assert_eq!(found.addresses[0].source, Source::Earlier);
    assert!(found.warnings[0].contains("may have changed"), "{:?}", found.warnings);
    assert_eq!(seen, earlier("10.0.0.2"), "it is kept for further starts");

    let error = choose(&[silent()], &earlier("192.168.1.2")).expect_err("another network");
    let error = error.to_string();
    assert!(error.contains("stun.example.com:3478 did not answer"), "{error}");
    assert!(error.contains("set [public] media_ips"), "{error}");
}

#[test]
fn a_missing_ipv4_address_is_a_warning_beside_ipv6_and_the_reverse_is_silent() {
    let public = |family, text| DetectedAddresses::new(family, vec![ip(text)]);
    let detected = [behind_nat(Vec::new()), public(Family::V6, "2600:1f18::7")];
    let (found, _) = choose(&detected, &Memory::default()).expect("IPv6");
    assert!(found.warnings[0].contains("callers with IPv4"), "{:?}", found.warnings);
    let detected =
        [public(Family::V4, "8.8.8.8"), DetectedAddresses::new(Family::V6, vec![ip("fd00::2")])];
    let (found, _) = choose(&detected, &Memory::default()).expect("IPv4");
    assert!(found.warnings.is_empty());
    assert!(choose(&[DetectedAddresses::new(Family::V4, Vec::new())], &Memory::default()).is_err());
}

#[test]
fn the_memory_survives_a_restart_and_damage_is_ignored() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = memory::file_in(&folder.path().join("data"));
    assert_eq!(memory::read(&file), Memory::default());
    memory::write(&file, &Memory::default(), &earlier("10.0.0.2")).expect("written");
    assert_eq!(memory::read(&file), earlier("10.0.0.2"));
    std::fs::write(&file, "{\"ipv4\": 1").expect("damaged");
    assert_eq!(memory::read(&file), Memory::default());
}

/// A STUN server that answers each request with `mapped`, after `ignored` requests without answer.
async fn server(mapped: &str, ignored: usize) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let at = socket.local_addr().expect("its address");
    let mapped: SocketAddr = mapped.parse().expect("an address");
    tokio::spawn(async move {
        let mut bytes = [0; 100];
        for n in 0.. {
            let (length, from) = socket.recv_from(&mut bytes).await.expect("a request");
            assert_eq!(classify(&bytes[..length]), Kind::OtherStun);
            let id = check_id(&bytes[..length]).expect("a Binding request");
            if n < ignored {
                continue;
            }
            // A forged response comes first.
            for id in [[7; 12], id] {
                socket.send_to(&response(id, mapped), from).await.expect("sent");
            }
        }
    });
    at
}

/// A success response with MAPPED-ADDRESS.
fn response(id: [u8; 12], mapped: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(v4) = mapped.ip() else { panic!("an IPv4 address") };
    let port = mapped.port().to_be_bytes();
    [&[1, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42][..], &id, &[0, 1, 0, 8, 0, 1], &port, &v4.octets()]
        .concat()
}

#[tokio::test]
async fn servers_are_asked_again_until_they_answer_and_dead_ones_are_named() {
    let deaf = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let deaf = deaf.local_addr().expect("its address");
    let servers = [server("8.8.8.8:7", 1).await, deaf];
    let servers: Vec<_> =
        servers.iter().map(|at| at.to_string().parse().expect("a server")).collect();
    let six = "[::1]:9".parse().expect("a server");
    let looked_up = look_up(&[servers.clone(), vec![six]].concat()).await;
    let mut detected = DetectedAddresses::new(Family::V4, vec![ip("127.0.0.1")]);
    ask(&mut detected, ip("127.0.0.1"), &looked_up).await;
    let seen: Vec<_> =
        detected.answers.iter().map(|answer| (answer.local, answer.mapped)).collect();
    assert_eq!(seen, [(ip("127.0.0.1"), "8.8.8.8:7".parse().expect("an address"))]);
    let failures = detected.failures.join(", ");
    assert!(failures.contains(&format!("{deaf} did not answer")), "{failures}");
    assert!(failures.contains("[::1]:9 has no IPv4 address"), "{failures}");
}
