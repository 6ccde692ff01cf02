//! Writes and parses RTCP packets: sender and receiver reports with a CNAME, and BYE (RFC 3550 §6).
//!
//! The module has no I/O and no clock: times are passed in as NTP timestamps in 32.32 fixed point.
//! `transport` decides when to report and evaluates the peer's reports.

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// SDES item type of the CNAME.
const CNAME: u8 = 1;
/// Size of a reception report block in bytes.
const BLOCK_SIZE: usize = 24;
/// Maximum number of packets parsed in one compound packet.
const PACKETS_MAX: usize = 16;

/// A reception report block (§6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ReportBlock {
    /// SSRC of the stream that it reports on.
    pub(super) ssrc: u32,
    /// The share of packets lost since the previous report, in 1/256.
    pub(super) fraction: u8,
    /// The total number of lost packets, negative if there were duplicates. 24 bits.
    pub(super) lost: i32,
    /// Rollover count and highest sequence number.
    pub(super) highest: u32,
    /// Jitter in ticks of the stream's clock.
    pub(super) jitter: u32,
    /// Middle 32 bits of the NTP time of the last sender report, 0 if there was none.
    pub(super) last_report: u32,
    /// Time since that report arrived, in 1/65536 s.
    pub(super) since_report: u32,
}

/// The sender information of a sender report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SenderInfo {
    pub(super) ntp: u64,
    pub(super) timestamp: u32,
    pub(super) packets: u32,
    pub(super) bytes: u32,
}

/// The contents of a compound packet that are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// The sender information of this SSRC.
    SenderReport(u32, SenderInfo),
    ReportBlock(ReportBlock),
    /// This SSRC has left (BYE).
    Goodbye(u32),
}

/// Appends a compound packet: a report, the CNAME, and with `goodbye` a BYE. At most 31 blocks are
/// written.
pub(super) fn write_report(
    out: &mut Vec<u8>,
    ssrc: u32,
    sender: Option<SenderInfo>,
    blocks: &[ReportBlock],
    cname: &str,
    goodbye: bool,
) {
    let blocks = blocks.get(..31).unwrap_or(blocks);
    let kind = if sender.is_some() { SENDER_REPORT } else { RECEIVER_REPORT };
    packet(out, kind, blocks.len(), |out| {
        out.extend_from_slice(&ssrc.to_be_bytes());
        if let Some(sender) = sender {
            out.extend_from_slice(&sender.ntp.to_be_bytes());
            for word in [sender.timestamp, sender.packets, sender.bytes] {
                out.extend_from_slice(&word.to_be_bytes());
            }
        }
        for block in blocks {
            let [_, lost @ ..] = block.lost.clamp(-0x80_0000, 0x7f_ffff).to_be_bytes();
            out.extend_from_slice(&block.ssrc.to_be_bytes());
            out.push(block.fraction);
            out.extend_from_slice(&lost);
            for word in [block.highest, block.jitter, block.last_report, block.since_report] {
                out.extend_from_slice(&word.to_be_bytes());
            }
        }
    });
    packet(out, DESCRIPTION, 1, |out| {
        let name = cname.as_bytes();
        let name = name.get(..255).unwrap_or(name);
        out.extend_from_slice(&ssrc.to_be_bytes());
        out.extend_from_slice(&[CNAME, u8::try_from(name.len()).unwrap_or(255)]);
        out.extend_from_slice(name);
        // The list of items ends with at least one zero byte.
        out.push(0);
    });
    if goodbye {
        packet(out, GOODBYE, 1, |out| out.extend_from_slice(&ssrc.to_be_bytes()));
    }
}

/// Appends a packet with its header, padded to a multiple of four bytes.
fn packet(out: &mut Vec<u8>, kind: u8, count: usize, write_body: impl FnOnce(&mut Vec<u8>)) {
    let from = out.len();
    out.extend_from_slice(&[0x80 | u8::try_from(count).unwrap_or(31), kind, 0, 0]);
    write_body(out);
    while !(out.len() - from).is_multiple_of(4) {
        out.push(0);
    }
    let words = u16::try_from((out.len() - from) / 4 - 1).unwrap_or(u16::MAX).to_be_bytes();
    if let Some(length) = out.get_mut(from + 2..from + 4) {
        length.copy_from_slice(&words);
    }
}

/// Parses a compound packet. `on_item` receives its items up to the first malformed packet.
pub(super) fn parse(compound: &[u8], mut on_item: impl FnMut(Item)) {
    let mut rest = compound;
    for _ in 0..PACKETS_MAX {
        let Some(([first, kind, high, low], _)) = rest.split_first_chunk() else { return };
        let length = 4 + 4 * usize::from(u16::from_be_bytes([*high, *low]));
        if first >> 6 != 2 {
            return;
        }
        let Some((packet, more)) = rest.split_at_checked(length) else { return };
        let count = usize::from(first & 0x1f);
        match *kind {
            SENDER_REPORT => {
                let sender = (|| {
                    let ntp = u64::from(word(packet, 8)?) << 32 | u64::from(word(packet, 12)?);
                    let (timestamp, packets, bytes) =
                        (word(packet, 16)?, word(packet, 20)?, word(packet, 24)?);
                    Some(Item::SenderReport(
                        word(packet, 4)?,
                        SenderInfo { ntp, timestamp, packets, bytes },
                    ))
                })();
                sender.into_iter().for_each(&mut on_item);
                blocks(packet, 28, count).for_each(&mut on_item);
            }
            RECEIVER_REPORT => blocks(packet, 8, count).for_each(&mut on_item),
            GOODBYE => (0..count)
                .filter_map(|n| word(packet, 4 + 4 * n))
                .map(Item::Goodbye)
                .for_each(&mut on_item),
            _ => {}
        }
        rest = more;
    }
}

fn blocks(packet: &[u8], at: usize, count: usize) -> impl Iterator<Item = Item> {
    let blocks = packet.get(at..).unwrap_or_default().chunks_exact(BLOCK_SIZE).take(count);
    blocks.filter_map(|block| {
        let loss = word(block, 4)?;
        let [fraction, ..] = loss.to_be_bytes();
        Some(Item::ReportBlock(ReportBlock {
            ssrc: word(block, 0)?,
            fraction,
            // The sign is the 24th bit.
            lost: (loss << 8).cast_signed() >> 8,
            highest: word(block, 8)?,
            jitter: word(block, 12)?,
            last_report: word(block, 16)?,
            since_report: word(block, 20)?,
        }))
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

/// Returns the middle 32 bits of an NTP timestamp: 16 bits of seconds, 16 bits of fraction (§4).
pub(super) fn ntp_middle(ntp: u64) -> u32 {
    u32::try_from((ntp >> 16) & 0xffff_ffff).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(compound: &[u8]) -> Vec<Item> {
        let mut items = Vec::new();
        parse(compound, |item| items.push(item));
        items
    }

    fn block(ssrc: u32, lost: i32) -> ReportBlock {
        ReportBlock {
            ssrc,
            fraction: 3,
            lost,
            highest: 0x1_0005,
            jitter: 77,
            last_report: 0xaabb_ccdd,
            since_report: 65_536,
        }
    }

    #[test]
    fn writes_compound_packets_of_whole_words() {
        let sender =
            SenderInfo { ntp: 0x0102_0304_0506_0708, timestamp: 9, packets: 10, bytes: 11 };
        let mut out = vec![0xEE; 3];
        write_report(&mut out, 5, Some(sender), &[block(6, -2), block(7, 0x7f_ffff)], "abc", true);
        let out = out.split_off(3);
        assert_eq!(out.len() % 4, 0);
        assert_eq!(out[..4], [0x82, 200, 0, 18]);
        assert_eq!(
            out[76..96],
            [0x81, 202, 0, 3, 0, 0, 0, 5, 1, 3, b'a', b'b', b'c', 0, 0, 0, 0x81, 203, 0, 1]
        );
        let expected = [
            Item::SenderReport(5, sender),
            Item::ReportBlock(block(6, -2)),
            Item::ReportBlock(block(7, 0x7f_ffff)),
            Item::Goodbye(5),
        ];
        assert_eq!(items(&out), expected);
        assert_eq!(ntp_middle(sender.ntp), 0x0304_0506);

        let mut out = Vec::new();
        write_report(&mut out, 5, None, &[], "name", false);
        assert_eq!((out[1], items(&out)), (201, vec![]));
    }

    proptest! {
        #[test]
        fn garbage_is_parsed_within_bounds(mut garbage in proptest::collection::vec(any::<u8>(), 0..200), kind in 200_u8..204) {
            let _ = items(&garbage);
            if let [first, second, ..] = garbage.as_mut_slice() {
                *first = *first & 0x3f | 0x80;
                *second = kind;
                prop_assert!(items(&garbage).len() <= 31 * PACKETS_MAX + PACKETS_MAX);
            }
        }

        #[test]
        fn truncated_packets_yield_a_prefix(cut in 0_usize..100) {
            let mut out = Vec::new();
            write_report(&mut out, 5, None, &[block(6, 1)], "abc", true);
            let whole = items(&out);
            let cut = items(&out[..cut.min(out.len())]);
            prop_assert_eq!(&whole[..cut.len()], &cut[..]);
        }
    }
}
