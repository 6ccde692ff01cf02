//! Parses and writes RTP headers (RFC 3550 §5.1, §5.3.1). Every valid header can be parsed, and
//! minimal ones are written.

/// Size of a header without CSRCs and extension, in bytes.
pub(super) const HEADER_SIZE: usize = 12;

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Size in bytes, CSRCs and extension included.
    pub(super) length: usize,
    pub(super) padded: bool,
    pub(super) marker: bool,
    pub(super) payload_type: u8,
    pub(super) sequence: u16,
    pub(super) timestamp: u32,
    pub(super) ssrc: u32,
}

impl Header {
    /// Parses the header of a packet. Returns `None` if it is not RTP version 2 or shorter than its
    /// header claims.
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let fixed: &[u8; HEADER_SIZE] = packet.first_chunk()?;
        let [first, second, s0, s1, t0, t1, t2, t3, ssrc @ ..] = *fixed;
        if first >> 6 != 2 {
            return None;
        }
        let mut length = HEADER_SIZE + 4 * usize::from(first & 0x0f);
        if first & 0x10 != 0 {
            let [_, _, high, low] = packet.get(length..)?.first_chunk()?;
            length += 4 + 4 * usize::from(u16::from_be_bytes([*high, *low]));
        }
        (length <= packet.len()).then_some(Self {
            length,
            padded: first & 0x20 != 0,
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes(ssrc),
        })
    }

    /// Removes the padding of a payload. Returns `None` if the padding is longer than the payload.
    pub(super) fn payload<'a>(&self, payload: &'a [u8]) -> Option<&'a [u8]> {
        if !self.padded {
            return Some(payload);
        }
        let padding = usize::from(*payload.last()?);
        payload.get(..payload.len().checked_sub(padding).filter(|_| padding > 0)?)
    }
}

/// Appends a header without CSRCs, extension and padding.
pub(super) fn write(
    out: &mut Vec<u8>,
    payload_type: u8,
    marker: bool,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
) {
    out.extend_from_slice(&[0x80, payload_type & 0x7f | if marker { 0x80 } else { 0 }]);
    out.extend_from_slice(&sequence.to_be_bytes());
    out.extend_from_slice(&timestamp.to_be_bytes());
    out.extend_from_slice(&ssrc.to_be_bytes());
}

/// Kind of a datagram that is not STUN (RFC 7983, RFC 5761 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    Rtp,
    Rtcp,
    Other,
}

/// Classifies a datagram by its first bytes, without authenticating it.
pub fn packet_kind(datagram: &[u8]) -> PacketKind {
    match datagram {
        [128..192, 192..224, ..] => PacketKind::Rtcp,
        [128..192, ..] => PacketKind::Rtp,
        _ => PacketKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_csrcs_extension_and_padding() {
        let plain = [0x80, 0xef, 1, 2, 0, 0, 0, 3, 0, 0, 0, 4, 9];
        let header = Header::parse(&plain).expect("RTP");
        assert_eq!((header.length, header.marker, header.payload_type), (12, true, 111));
        assert_eq!((header.sequence, header.timestamp, header.ssrc), (0x0102, 3, 4));

        let mut rich = vec![0xb2, 111, 0, 1, 0, 0, 0, 3, 0, 0, 0, 4];
        rich.extend([0; 8]);
        rich.extend([0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0]);
        rich.extend([7, 7, 0, 2]);
        let header = Header::parse(&rich).expect("RTP");
        assert_eq!((header.length, header.padded), (28, true));
        assert_eq!(header.payload(&rich[28..]), Some(&[7, 7][..]));
        assert_eq!(header.payload(&[7, 0]), None, "padding of length 0");
        assert_eq!(header.payload(&[7, 3]), None, "longer than the payload");
        assert_eq!(header.payload(&[]), None);
        for cut in 0..28 {
            assert_eq!(Header::parse(&rich[..cut]), None, "{cut}");
        }
        assert_eq!(Header::parse(&[0x40; 20]), None, "version 1");
    }

    #[test]
    fn classifies_datagrams() {
        for (bytes, expected) in [
            (&[0x80, 111][..], PacketKind::Rtp),
            (&[0x80, 0x80 | 111], PacketKind::Rtp),
            (&[0x81, 200], PacketKind::Rtcp),
            (&[22, 254], PacketKind::Other),
            (&[0, 1], PacketKind::Other),
            (&[], PacketKind::Other),
        ] {
            assert_eq!(packet_kind(bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn parses_what_it_writes(pt in 0_u8..128, marker: bool, sequence: u16, timestamp: u32, ssrc: u32) {
            let mut out = Vec::new();
            write(&mut out, pt, marker, sequence, timestamp, ssrc);
            let expected = Header { length: HEADER_SIZE, padded: false, marker, payload_type: pt, sequence, timestamp, ssrc };
            prop_assert_eq!(Header::parse(&out), Some(expected));
        }

        #[test]
        fn garbage_is_parsed_within_bounds(garbage in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Some(header) = Header::parse(&garbage) {
                prop_assert!(header.length <= garbage.len());
                let _ = header.payload(&garbage[header.length..]);
            }
        }
    }
}
