//! The parts of STUN that str0m does not cover: assigning a message to its leg, authenticating it,
//! and requesting the public address of a socket from a server.
//!
//! Demultiplexing reads only a few bytes, so that a datagram from an unknown source costs one table
//! lookup. str0m handles the connectivity checks themselves.

use std::net::{IpAddr, SocketAddr};
use std::panic::catch_unwind;

use str0m::ice::{StunMessage, TransId};

/// Magic cookie (RFC 8489 §5).
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER_SIZE: usize = 20;
const MAPPED_ADDRESS: u16 = 0x0001;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const USE_CANDIDATE: u16 = 0x0025;
/// A success response to a Binding request.
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
/// The priority in our checks of a nominated address: that of a peer-reflexive candidate (RFC 8445
/// §5.1.2.1).
const PEER_REFLEXIVE: u32 = 110 << 24 | 0xFFFF << 8 | 255;
/// Maximum size of such a check. Its USERNAME has two ufrags.
const CHECK_BYTES_MAX: usize = 1_024;
/// Maximum number of attributes examined. Regular messages have six or seven.
const ATTRIBUTES_MAX: usize = 16;

/// Identifies a check. The response contains the same id.
pub type TransactionId = [u8; 12];

/// The class of a datagram, with the data needed for routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A check for the ICE agent with this ufrag.
    Request { ufrag: &'a str },
    /// A success or error response to one of our checks.
    Response(TransactionId),
    /// Another STUN message. Indications keep a path open and need no reply.
    OtherStun,
    /// DTLS, SRTP, SRTCP, or an invalid datagram.
    NotStun,
}

/// Classifies a datagram without copying or authenticating it.
pub fn classify(datagram: &[u8]) -> Kind<'_> {
    let Some((head, body)) = datagram.split_at_checked(HEADER_SIZE) else {
        return Kind::NotStun;
    };
    let [t0, t1, l0, l1, m0, m1, m2, m3, id @ ..] = head else { return Kind::NotStun };
    if *t0 >= 0x40 || [*m0, *m1, *m2, *m3] != MAGIC_COOKIE {
        return Kind::NotStun;
    }
    if usize::from(u16::from_be_bytes([*l0, *l1])) != body.len() {
        return Kind::OtherStun;
    }
    match u16::from_be_bytes([*t0, *t1]) {
        0x0101 | 0x0111 => TransactionId::try_from(id).map_or(Kind::OtherStun, Kind::Response),
        0x0001 => {
            let name = attributes(body)
                .find(|(kind, _)| *kind == USERNAME)
                .and_then(|(_, value)| std::str::from_utf8(value).ok());
            // USERNAME is "receiver:sender" (RFC 8445 §7.2.2).
            match name.and_then(|name| name.split_once(':')) {
                Some((ufrag, _)) => Kind::Request { ufrag },
                None => Kind::OtherStun,
            }
        }
        _ => Kind::OtherStun,
    }
}

/// Returns the types and values of the attributes in a message, up to the first truncated one.
fn attributes(mut body: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [t0, t1, l0, l1, rest @ ..] = body else { return None };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = rest.get(..length)?;
        body = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_be_bytes([*t0, *t1]), value))
    })
    .take(ATTRIBUTES_MAX)
}

/// Returns whether an authenticated request nominates its path (RFC 8445 §7.3.2).
pub fn is_nomination(request: &[u8]) -> bool {
    let body =
        request.get(HEADER_SIZE..).filter(|_| request.starts_with(&[0, 1])).unwrap_or_default();
    attributes(body)
        // Attributes after MESSAGE-INTEGRITY are not authenticated.
        .take_while(|(kind, _)| *kind != MESSAGE_INTEGRITY)
        .any(|(kind, _)| kind == USE_CANDIDATE)
}

/// Writes a Binding request without attributes, which requests the public address of the socket
/// from a STUN server (RFC 8489 §2).
pub fn binding_request(id: TransactionId) -> [u8; HEADER_SIZE] {
    let mut request = [0; HEADER_SIZE];
    let fields = [0, 1, 0, 0].into_iter().chain(MAGIC_COOKIE).chain(id);
    request.iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
    request
}

/// Reads the address from the success response to the request with this id. `None` if the datagram
/// is anything else. Servers of RFC 3489 send the address in the clear.
pub fn mapped_address(response: &[u8], id: TransactionId) -> Option<SocketAddr> {
    let (head, body) = response.split_at_checked(HEADER_SIZE)?;
    let [t0, t1, l0, l1, key @ ..] = head else { return None };
    let is_answer = [*t0, *t1] == BINDING_SUCCESS
        && usize::from(u16::from_be_bytes([*l0, *l1])) == body.len()
        && key.starts_with(&MAGIC_COOKIE)
        && key.ends_with(&id);
    if !is_answer {
        return None;
    }
    let find = |wanted| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let xored = find(XOR_MAPPED_ADDRESS).and_then(|value| address(value, key));
    xored.or_else(|| address(find(MAPPED_ADDRESS)?, &[]))
}

/// Reads the value of an address attribute. Port and address are XORed with `key`, the magic cookie
/// and the transaction id (RFC 8489 §14.2). Returns `None` if the value is malformed.
fn address(value: &[u8], key: &[u8]) -> Option<SocketAddr> {
    let [_, family, p0, p1, ip @ ..] = value else { return None };
    let xor = |bytes: &[u8]| -> Vec<u8> {
        let key = key.iter().copied().chain(std::iter::repeat(0));
        bytes.iter().zip(key).map(|(byte, key)| byte ^ key).collect()
    };
    let port = u16::from_be_bytes(xor(&[*p0, *p1]).try_into().ok()?);
    let ip = match family {
        1 => IpAddr::from(<[u8; 4]>::try_from(xor(ip)).ok()?),
        2 => IpAddr::from(<[u8; 16]>::try_from(xor(ip)).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// Returns whether a message has a MESSAGE-INTEGRITY computed with `pwd`. The parser is third-party
/// code that reads untrusted input. If it panics, the message counts as invalid and the shard
/// continues.
pub fn is_authentic(datagram: &[u8], pwd: &str) -> bool {
    catch_unwind(|| has_integrity(datagram, pwd)).unwrap_or(false)
}

fn has_integrity(datagram: &[u8], pwd: &str) -> bool {
    StunMessage::parse(datagram).is_ok_and(|message| message.verify(pwd.as_bytes(), hmac_sha1))
}

fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let mut context = aws_lc_rs::hmac::Context::with_key(&key);
    parts.iter().for_each(|p| context.update(p));
    let mut tag = [0; 20];
    // An HMAC-SHA1 tag has 20 bytes.
    tag.copy_from_slice(context.sign().as_ref());
    tag
}

/// Writes a check of the side that does not nominate, with a random transaction id. `user` is
/// "receiver:sender", and `pwd` the receiver's password. `None` if the texts are too long.
pub fn controlled_check(user: &str, pwd: &str) -> Option<(TransactionId, Vec<u8>)> {
    // The tie-breaker matters only if both sides nominate.
    let message =
        StunMessage::binding_request(user, TransId::new(), false, 0, PEER_REFLEXIVE, false);
    let mut datagram = vec![0; CHECK_BYTES_MAX];
    let written = message.to_bytes(Some(pwd.as_bytes()), &mut datagram, hmac_sha1).ok()?;
    datagram.truncate(written);
    Some((check_id(&datagram)?, datagram))
}

/// Returns whether a datagram is a success response to a check.
pub fn is_success(response: &[u8]) -> bool {
    response.starts_with(&BINDING_SUCCESS)
}

/// Returns the transaction id of an outgoing check, if the datagram is one.
pub fn check_id(datagram: &[u8]) -> Option<TransactionId> {
    let head = datagram.get(..HEADER_SIZE)?;
    (head.starts_with(&[0, 1]) && head.get(4..8) == Some(&MAGIC_COOKIE))
        .then(|| head.get(8..)?.try_into().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use str0m::ice::{StunMessage, TransId};

    use super::{Kind, binding_request, check_id, classify, is_authentic, mapped_address};

    fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        aws_lc_rs::hmac::sign(&key, &parts.concat()).as_ref().try_into().expect("20 bytes")
    }

    fn bytes(message: &StunMessage<'_>, pwd: &str) -> Vec<u8> {
        let mut buf = vec![0; 500];
        let n = message.to_bytes(Some(pwd.as_bytes()), &mut buf, hmac).expect("fits");
        buf.truncate(n);
        buf
    }

    #[test]
    fn a_server_tells_the_mapped_address() {
        for at in ["192.0.2.1:32853", "[2001:db8:1234:5678:11:2233:4455:6677]:32853"] {
            let at = at.parse().expect("address");
            let sent = TransId::new();
            let reply = bytes(&StunMessage::binding_reply(sent, at), "a password");
            let id = reply[8..20].try_into().expect("12 bytes");
            assert_eq!(mapped_address(&reply, id), Some(at));
            assert_eq!(mapped_address(&reply, [7; 12]), None, "another transaction");
            assert_eq!(mapped_address(&reply[..reply.len() - 4], id), None, "cut");
        }
        let request = binding_request([7; 12]);
        assert_eq!(classify(&request), Kind::OtherStun, "no USERNAME");
        assert_eq!(check_id(&request), Some([7; 12]));
        assert_eq!(mapped_address(&request, [7; 12]), None);
        let old = [
            &[1, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42][..],
            &[7; 12],
            &[0, 1, 0, 8, 0, 1, 0x1F, 0x90, 198, 51, 100, 4],
        ];
        let at = "198.51.100.4:8080".parse().expect("address");
        assert_eq!(mapped_address(&old.concat(), [7; 12]), Some(at), "RFC 3489");
    }

    #[test]
    fn a_nomination_must_precede_the_integrity() {
        let request = |attributes: &[u8]| [&[0, 1, 0, 0][..], &[0; 16], attributes].concat();
        let integrity = [&[0, 8, 0, 20][..], &[0; 20]].concat();
        let nomination = [0, 0x25, 0, 0];
        let other = [0, 6, 0, 3, b'a', b':', b'b', 0];
        assert!(super::is_nomination(&request(&[&other[..], &nomination, &integrity].concat())));
        assert!(!super::is_nomination(&request(&[&other[..], &integrity, &nomination].concat())));
        assert!(!super::is_nomination(&request(&other)));
        assert!(
            !super::is_nomination(&[&[1, 1][..], &[0; 18], &nomination].concat()),
            "a response"
        );
        assert!(!super::is_nomination(&[0, 1, 0]));
    }

    #[test]
    fn classifies_requests_by_ufrag_and_responses_by_check() {
        let id = TransId::new();
        let request = bytes(
            &StunMessage::binding_request("ours:theirs", id, true, 1, 1, false),
            "a password",
        );
        assert_eq!(classify(&request), Kind::Request { ufrag: "ours" });
        assert!(is_authentic(&request, "a password"));
        assert!(!is_authentic(&request, "another"));
        let sent = check_id(&request).expect("a check");
        let reply = bytes(
            &StunMessage::binding_reply(id, "192.0.2.1:9".parse().expect("address")),
            "a password",
        );
        assert_eq!(classify(&reply), Kind::Response(sent));
        assert_eq!(check_id(&reply), None);

        let mut cut = request.clone();
        cut.pop();
        assert_eq!(classify(&cut), Kind::OtherStun, "a wrong length");
        let mut altered = request;
        altered[8] ^= 1;
        assert_eq!(classify(&altered), Kind::Request { ufrag: "ours" });
        assert!(!is_authentic(&altered, "a password"), "another transaction id than was signed");
        assert_eq!(classify(&[0x80; 40]), Kind::NotStun, "RTP");
        assert_eq!(classify(&[22; 40]), Kind::NotStun, "DTLS");
        assert_eq!(classify(&[]), Kind::NotStun);
    }

    proptest! {
        #[test]
        fn any_datagram_is_handled(mut datagram in proptest::collection::vec(any::<u8>(), 0..200), stun in any::<bool>()) {
            if stun && datagram.len() >= 20 {
                let length = u16::try_from(datagram.len() - 20).expect("short").to_be_bytes();
                datagram[..8].copy_from_slice(&[0, 1, length[0], length[1], 0x21, 0x12, 0xA4, 0x42]);
            }
            let _ = classify(&datagram);
            let _ = check_id(&datagram);
            let _ = mapped_address(&datagram, [0; 12]);
            prop_assert!(!is_authentic(&datagram, "a password"));
        }
    }
}
