//! The part of STUN that routing needs: the leg that a message belongs to, and its authentication.
//!
//! It reads only a few bytes, so that a datagram of a stranger costs one table lookup. str0m
//! handles the messages themselves.

use std::panic::catch_unwind;

use str0m::ice::StunMessage;

/// Magic cookie (RFC 8489 §5).
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER_SIZE: usize = 20;
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
    /// A success or error response to one of our checks.
    Response(TransactionId),
    /// Other STUN: indications keep a path open and need no reply.
    OtherStun,
    /// DTLS, SRTP, SRTCP or garbage.
    NotStun,
}

/// Classifies a datagram without copying or authenticating it.
pub fn classify(datagram: &[u8]) -> Kind<'_> {
    let Some((head, mut attributes)) = datagram.split_at_checked(HEADER_SIZE) else {
        return Kind::NotStun;
    };
    let [t0, t1, l0, l1, m0, m1, m2, m3, id @ ..] = head else { return Kind::NotStun };
    if *t0 >= 0x40 || [*m0, *m1, *m2, *m3] != MAGIC_COOKIE {
        return Kind::NotStun;
    }
    if usize::from(u16::from_be_bytes([*l0, *l1])) != attributes.len() {
        return Kind::OtherStun;
    }
    match u16::from_be_bytes([*t0, *t1]) {
        0x0101 | 0x0111 => TransactionId::try_from(id).map_or(Kind::OtherStun, Kind::Response),
        0x0001 => {
            for _ in 0..ATTRIBUTES_MAX {
                let [t0, t1, l0, l1, value @ ..] = attributes else { break };
                let length = usize::from(u16::from_be_bytes([*l0, *l1]));
                if u16::from_be_bytes([*t0, *t1]) == USERNAME {
                    let name = value.get(..length).and_then(|v| std::str::from_utf8(v).ok());
                    // USERNAME is "receiver:sender" (RFC 8445 §7.2.2).
                    return match name.and_then(|n| n.split_once(':')) {
                        Some((ufrag, _)) => Kind::Request { ufrag },
                        None => Kind::OtherStun,
                    };
                }
                attributes = value.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
            Kind::OtherStun
        }
        _ => Kind::OtherStun,
    }
}

/// Returns whether an authenticated request nominates its path (RFC 8445 §7.3.2).
pub fn is_nomination(request: &[u8]) -> bool {
    let mut attributes =
        request.get(HEADER_SIZE..).filter(|_| request.starts_with(&[0, 1])).unwrap_or_default();
    for _ in 0..ATTRIBUTES_MAX {
        let [t0, t1, l0, l1, value @ ..] = attributes else { break };
        match u16::from_be_bytes([*t0, *t1]) {
            USE_CANDIDATE => return true,
            // Attributes after this one are not authenticated.
            MESSAGE_INTEGRITY => return false,
            _ => {}
        }
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        attributes = value.get(length.next_multiple_of(4)..).unwrap_or_default();
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

    use super::{Kind, check_id, classify, is_authentic};

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
            prop_assert!(!is_authentic(&datagram, "a password"));
        }
    }
}
