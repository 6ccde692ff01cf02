//! The part of STUN that routing needs: the leg that a message belongs to, and its authentication.
//!
//! It reads only a few bytes, so that a datagram of a stranger costs one table lookup. str0m
//! handles the messages themselves.

use std::panic::catch_unwind;

use str0m::ice::StunMessage;

/// Magic cookie (RFC 8489 §5).
const MAGIC: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER: usize = 20;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const USE_CANDIDATE: u16 = 0x0025;
/// Maximum number of attributes examined. Regular messages have six or seven.
const ATTRIBUTES_MAX: usize = 16;

/// Identifies a check; the response repeats it.
pub type TransactionId = [u8; 12];

/// Routing information of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind<'a> {
    /// A check for the ICE agent with this ufrag.
    Request { ufrag: &'a str },
    /// A success or error response to a check of ours.
    Response(TransactionId),
    /// Other STUN: indications keep a path open and need no reply.
    OtherStun,
    /// DTLS, SRTP, SRTCP or garbage.
    Else,
}

/// Classifies a datagram without copying or authenticating it.
pub fn kind(datagram: &[u8]) -> Kind<'_> {
    let Some((head, mut rest)) = datagram.split_at_checked(HEADER) else { return Kind::Else };
    let [t0, t1, l0, l1, m0, m1, m2, m3, id @ ..] = head else { return Kind::Else };
    if *t0 >= 0x40 || [*m0, *m1, *m2, *m3] != MAGIC {
        return Kind::Else;
    }
    if usize::from(u16::from_be_bytes([*l0, *l1])) != rest.len() {
        return Kind::OtherStun;
    }
    match u16::from_be_bytes([*t0, *t1]) {
        0x0101 | 0x0111 => TransactionId::try_from(id).map_or(Kind::OtherStun, Kind::Response),
        0x0001 => {
            for _ in 0..ATTRIBUTES_MAX {
                let [t0, t1, l0, l1, value @ ..] = rest else { break };
                let length = usize::from(u16::from_be_bytes([*l0, *l1]));
                if u16::from_be_bytes([*t0, *t1]) == USERNAME {
                    let name = value.get(..length).and_then(|v| std::str::from_utf8(v).ok());
                    // USERNAME is "receiver:sender" (RFC 8445 §7.2.2).
                    return match name.and_then(|n| n.split_once(':')) {
                        Some((ufrag, _)) => Kind::Request { ufrag },
                        None => Kind::OtherStun,
                    };
                }
                rest = value.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
            Kind::OtherStun
        }
        _ => Kind::OtherStun,
    }
}

/// Returns whether an authenticated request nominates its path (RFC 8445 §7.3.2).
pub fn nominates(request: &[u8]) -> bool {
    let mut rest =
        request.get(HEADER..).filter(|_| request.starts_with(&[0, 1])).unwrap_or_default();
    for _ in 0..ATTRIBUTES_MAX {
        let [t0, t1, l0, l1, value @ ..] = rest else { break };
        match u16::from_be_bytes([*t0, *t1]) {
            USE_CANDIDATE => return true,
            // Attributes after this one are not authenticated.
            MESSAGE_INTEGRITY => return false,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        rest = value.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

/// Returns whether a message has a MESSAGE-INTEGRITY made with `pwd`. The parser is foreign code
/// that reads strangers' input; if it panics, the message counts as invalid and the shard
/// continues.
pub fn is_authentic(datagram: &[u8], pwd: &str) -> bool {
    catch_unwind(|| has_integrity(datagram, pwd)).unwrap_or(false)
}

fn has_integrity(datagram: &[u8], pwd: &str) -> bool {
    StunMessage::parse(datagram).is_ok_and(|message| {
        message.verify(pwd.as_bytes(), |key, parts| {
            let key =
                aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
            let mut context = aws_lc_rs::hmac::Context::with_key(&key);
            parts.iter().for_each(|p| context.update(p));
            let mut tag = [0; 20];
            // An HMAC-SHA1 tag has 20 bytes.
            tag.copy_from_slice(context.sign().as_ref());
            tag
        })
    })
}

/// Returns the transaction id of an outgoing check, if the datagram is one.
pub fn check_sent(datagram: &[u8]) -> Option<TransactionId> {
    let head = datagram.get(..HEADER)?;
    (head.starts_with(&[0, 1]) && head.get(4..8) == Some(&MAGIC))
        .then(|| head.get(8..)?.try_into().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use str0m::ice::{StunMessage, TransId};

    use super::{Kind, check_sent, is_authentic, kind};

    fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
        aws_lc_rs::hmac::sign(&key, &parts.concat()).as_ref().try_into().expect("20 bytes")
    }

    fn bytes(message: &StunMessage<'_>, pwd: &str) -> Vec<u8> {
        let mut room = vec![0; 500];
        let n = message.to_bytes(Some(pwd.as_bytes()), &mut room, hmac).expect("fits");
        room.truncate(n);
        room
    }

    #[test]
    fn a_nomination_counts_before_the_integrity_only() {
        let request = |attributes: &[u8]| [&[0, 1, 0, 0][..], &[0; 16], attributes].concat();
        let integrity = [&[0, 8, 0, 20][..], &[0; 20]].concat();
        let nomination = [0, 0x25, 0, 0];
        let other = [0, 6, 0, 3, b'a', b':', b'b', 0];
        assert!(super::nominates(&request(&[&other[..], &nomination, &integrity].concat())));
        assert!(!super::nominates(&request(&[&other[..], &integrity, &nomination].concat())));
        assert!(!super::nominates(&request(&other)));
        assert!(!super::nominates(&[&[1, 1][..], &[0; 18], &nomination].concat()), "a response");
        assert!(!super::nominates(&[0, 1, 0]));
    }

    #[test]
    fn requests_name_their_call_and_responses_their_check() {
        let id = TransId::new();
        let request = bytes(
            &StunMessage::binding_request("ours:theirs", id, true, 1, 1, false),
            "a password",
        );
        assert_eq!(kind(&request), Kind::Request { ufrag: "ours" });
        assert!(is_authentic(&request, "a password"));
        assert!(!is_authentic(&request, "another"));
        let sent = check_sent(&request).expect("a check");
        let reply = bytes(
            &StunMessage::binding_reply(id, "192.0.2.1:9".parse().expect("address")),
            "a password",
        );
        assert_eq!(kind(&reply), Kind::Response(sent));
        assert_eq!(check_sent(&reply), None);

        let mut cut = request.clone();
        cut.pop();
        assert_eq!(kind(&cut), Kind::OtherStun, "a length that lies");
        let mut bent = request;
        bent[8] ^= 1;
        assert_eq!(kind(&bent), Kind::Request { ufrag: "ours" });
        assert!(!is_authentic(&bent, "a password"), "another transaction than was signed");
        assert_eq!(kind(&[0x80; 40]), Kind::Else, "RTP");
        assert_eq!(kind(&[22; 40]), Kind::Else, "DTLS");
        assert_eq!(kind(&[]), Kind::Else);
    }

    proptest! {
        #[test]
        fn any_datagram_is_taken_calmly(mut datagram in proptest::collection::vec(any::<u8>(), 0..200), stun in any::<bool>()) {
            if stun && datagram.len() >= 20 {
                let length = u16::try_from(datagram.len() - 20).expect("short").to_be_bytes();
                datagram[..8].copy_from_slice(&[0, 1, length[0], length[1], 0x21, 0x12, 0xA4, 0x42]);
            }
            let _ = kind(&datagram);
            let _ = check_sent(&datagram);
            prop_assert!(!is_authentic(&datagram, "a password"));
        }
    }
}
