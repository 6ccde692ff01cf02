//! Checks STUN messages strictly as an ICE-lite agent, before str0m sees them.
//!
//! A binding request passes if it has the right USERNAME, MESSAGE-INTEGRITY and FINGERPRINT and
//! does not claim the controlled role. A controlled peer is answered with 487 Role Conflict (RFC
//! 8445 §7.3.1.1, RFC 8489 §14).

use aws_lc_rs::hmac;

const MAGIC: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
const HEADER: usize = 20;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_ERROR: u16 = 0x0111;
const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const FINGERPRINT: u16 = 0x8028;
const ICE_CONTROLLED: u16 = 0x8029;
const FINGERPRINT_XOR: u32 = 0x5354_554e;

/// Whether a datagram is a STUN message.
pub(crate) fn is_stun(packet: &[u8]) -> bool {
    packet.first().is_some_and(|b| *b < 2) && packet.get(4..8) == Some(&MAGIC)
}

/// A parsed STUN message.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    packet: &'a [u8],
    kind: u16,
    attributes: Vec<(u16, usize, &'a [u8])>,
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Hand it to str0m.
    Pass,
    /// Send this response: role conflict.
    RoleConflict(Vec<u8>),
    /// Drop it, for this reason.
    Refuse(&'static str),
}

impl<'a> Message<'a> {
    /// Parses a message. `None` if it is truncated or its lengths are inconsistent.
    pub(crate) fn parse(packet: &'a [u8]) -> Option<Self> {
        if !is_stun(packet) {
            return None;
        }
        let kind = u16_at(packet, 0)?;
        let length = usize::from(u16_at(packet, 2)?);
        if packet.len() != HEADER + length || length % 4 != 0 {
            return None;
        }
        let mut attributes = Vec::new();
        let mut at = HEADER;
        while at < packet.len() {
            let value_len = usize::from(u16_at(packet, at + 2)?);
            let value = packet.get(at + 4..at + 4 + value_len)?;
            attributes.push((u16_at(packet, at)?, at, value));
            at += 4 + value_len.next_multiple_of(4);
        }
        Some(Self { packet, kind, attributes })
    }

    /// The local ufrag of a request's USERNAME, which identifies the call.
    pub(crate) fn local_ufrag(&self) -> Option<&'a str> {
        let name = std::str::from_utf8(self.find(USERNAME)?.1).ok()?;
        name.split_once(':').map(|(local, _)| local)
    }

    /// Checks a request against the credentials of its call.
    pub(crate) fn check(&self, local_pwd: &str, remote_ufrag: &str) -> Verdict {
        if self.kind != BINDING_REQUEST {
            return Verdict::Refuse(
                "not a binding request: an ICE-lite agent sends none that could be answered",
            );
        }
        let remote = self
            .find(USERNAME)
            .and_then(|(_, v)| std::str::from_utf8(v).ok()?.split_once(':').map(|p| p.1));
        if remote != Some(remote_ufrag) {
            return Verdict::Refuse("USERNAME does not match the SDP answer");
        }
        if !self.has_integrity(local_pwd) {
            return Verdict::Refuse("MESSAGE-INTEGRITY is missing or wrong");
        }
        if !self.has_fingerprint() {
            return Verdict::Refuse("FINGERPRINT is missing or wrong");
        }
        if self.find(ICE_CONTROLLED).is_some() {
            return Verdict::RoleConflict(self.role_conflict_reply(local_pwd));
        }
        Verdict::Pass
    }

    fn find(&self, kind: u16) -> Option<(usize, &'a [u8])> {
        self.attributes.iter().find(|(k, ..)| *k == kind).map(|(_, at, value)| (*at, *value))
    }

    fn has_integrity(&self, pwd: &str) -> bool {
        let Some((at, value)) = self.find(MESSAGE_INTEGRITY) else { return false };
        let Some(before) = self.packet.get(..at) else { return false };
        // The length in the header covers the message up to and including this attribute (RFC 8489
        // §14.5).
        let mut signed = before.to_vec();
        set_length(&mut signed, at + 24 - HEADER);
        hmac::verify(&key(pwd), &signed, value).is_ok()
    }

    fn has_fingerprint(&self) -> bool {
        let Some((at, value)) = self.find(FINGERPRINT) else { return false };
        let is_last = at + 8 == self.packet.len();
        is_last
            && self
                .packet
                .get(..at)
                .is_some_and(|b| value == (crc32(b) ^ FINGERPRINT_XOR).to_be_bytes())
    }

    fn role_conflict_reply(&self, pwd: &str) -> Vec<u8> {
        let mut reply = Vec::with_capacity(80);
        reply.extend(BINDING_ERROR.to_be_bytes());
        reply.extend([0, 0]);
        reply.extend(self.packet.get(4..HEADER).unwrap_or_default());
        push_attribute(&mut reply, ERROR_CODE, b"\0\0\x04\x57Role Conflict");
        let body = reply.len() + 24 - HEADER;
        set_length(&mut reply, body);
        let tag = hmac::sign(&key(pwd), &reply);
        push_attribute(&mut reply, MESSAGE_INTEGRITY, tag.as_ref());
        let body = reply.len() + 8 - HEADER;
        set_length(&mut reply, body);
        let crc = (crc32(&reply) ^ FINGERPRINT_XOR).to_be_bytes();
        push_attribute(&mut reply, FINGERPRINT, &crc);
        reply
    }
}

fn key(pwd: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pwd.as_bytes())
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

fn set_length(message: &mut [u8], length: usize) {
    let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&length);
    }
}

fn push_attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{
        BINDING_REQUEST, FINGERPRINT, FINGERPRINT_XOR, HEADER, ICE_CONTROLLED, MAGIC,
        MESSAGE_INTEGRITY, Message, USERNAME, Verdict, crc32, key, push_attribute, set_length,
    };

    const PWD: &str = "YIBkQhhkP1/Gurf0j3gCcimn9mI6xfbP";
    const ICE_CONTROLLING: u16 = 0x802A;

    /// A binding request as a full ICE agent sends it.
    pub(crate) fn request(user: &str, pwd: &str, role: u16) -> Vec<u8> {
        let mut m = Vec::new();
        m.extend(BINDING_REQUEST.to_be_bytes());
        m.extend([0, 0]);
        m.extend(MAGIC);
        m.extend([7; 12]);
        push_attribute(&mut m, USERNAME, user.as_bytes());
        push_attribute(&mut m, role, &[1; 8]);
        let body = m.len() + 24 - HEADER;
        set_length(&mut m, body);
        let tag = aws_lc_rs::hmac::sign(&key(pwd), &m);
        push_attribute(&mut m, MESSAGE_INTEGRITY, tag.as_ref());
        let body = m.len() + 8 - HEADER;
        set_length(&mut m, body);
        let crc = (crc32(&m) ^ FINGERPRINT_XOR).to_be_bytes();
        push_attribute(&mut m, FINGERPRINT, &crc);
        m
    }

    fn check(packet: &[u8]) -> Verdict {
        Message::parse(packet).expect("STUN").check(PWD, "peer")
    }

    #[test]
    fn m5_passes_valid_requests_and_drops_others() {
        let good = request("meta:peer", PWD, ICE_CONTROLLING);
        assert_eq!(
            Message::parse(&good).and_then(|m| m.local_ufrag().map(str::to_owned)).as_deref(),
            Some("meta")
        );
        assert_eq!(check(&good), Verdict::Pass);
        let refused = |packet: &[u8], expected: &str| match check(packet) {
            Verdict::Refuse(reason) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}"),
        };
        refused(
            &request("meta:peer", "another password, long enough", ICE_CONTROLLING),
            "MESSAGE-INTEGRITY",
        );
        refused(&request("meta:other", PWD, ICE_CONTROLLING), "USERNAME");
        // Without FINGERPRINT: cut off, with the length corrected.
        let mut bare = good.clone();
        bare.truncate(good.len() - 8);
        let body = bare.len() - HEADER;
        set_length(&mut bare, body);
        refused(&bare, "FINGERPRINT");
        let mut wrong = good.clone();
        *wrong.last_mut().expect("bytes") ^= 1;
        refused(&wrong, "FINGERPRINT");
        for cut in 0..good.len() {
            assert!(Message::parse(&good[..cut]).is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn m5_answers_a_controlled_peer_with_487() {
        let Verdict::RoleConflict(reply) = check(&request("meta:peer", PWD, ICE_CONTROLLED)) else {
            panic!("a conflict is due");
        };
        assert_eq!(&reply[..2], [0x01, 0x11]);
        assert_eq!(&reply[8..20], [7; 12]);
        let reply = Message::parse(&reply).expect("STUN");
        assert!(reply.has_integrity(PWD) && reply.has_fingerprint());
        assert_eq!(reply.find(super::ERROR_CODE).map(|(_, v)| v[2..4].to_vec()), Some(vec![4, 87]));
    }
}
