//! The RTP path of a leg, encrypted with the keys of its DTLS handshake. str0m is bypassed and
//! provides only ICE and DTLS.
//!
//! Incoming packets are decrypted, checked for replays and counted. Outgoing packets are written
//! and encrypted in place. A report is sent every 5 s, and reports of the peer are evaluated. There
//! is no allocation per packet. If a leg has no `Transport`, str0m carries its RTP.

use std::collections::VecDeque;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::quality::{Quality, Reception, StreamStats};
use super::rtcp::{self, Item, ReportBlock, SenderInfo};
use super::rtp::{self, Header};
use super::send_buffer::SendBuffer;
use super::srtp::{Keys, ReplayWindow, Transform, keys_in_snapshot};
use crate::prefetch::prefetch;
use crate::snapshot::{Offset, TimeBase};
use model::Timestamp;
use serde::{Deserialize, Serialize};

/// Interval of our reports (RFC 3550 §6.2).
const REPORT_INTERVAL: Duration = Duration::from_secs(5);
/// Time until the first report.
const FIRST_REPORT_AFTER: Duration = Duration::from_millis(2_500);
/// Interval at which the leg's quality figures are updated.
const QUALITY_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of known SSRCs of the peer. There is more than one if the peer has changed its
/// SSRC.
const SOURCES_MAX: usize = 4;
/// Maximum number of former SSRCs that are kept, so that their old packets are not accepted again.
const RETIRED_MAX: usize = 16;
/// Upper limit of the sequence numbers of a stream whose first received packet may have been sent
/// after a rollover: 2.7 minutes of packets of 20 ms.
const ROLLED_OVER_MAX: u16 = 0x2000;
/// Maximum number of packets for which a rollover is assumed, so that packets of strangers do not
/// cost twice the time.
const ROLLOVER_TRIES_MAX: u8 = 100;
/// Usual size of a payload in bytes.
const USUAL_PAYLOAD: usize = 128;
/// The last SRTCP index, which has 31 bits.
const REPORT_INDEX_MAX: u32 = 0x7fff_ffff;
/// Seconds from the NTP epoch, 1900, to the Unix epoch.
const NTP_EPOCH_SECS: u64 = 2_208_988_800;

/// Configuration of a [`Transport`], without the keys.
pub struct TransportConfig {
    /// Our SSRC.
    pub ssrc: u32,
    pub cname: String,
    pub opus_pt: u8,
    pub now: Instant,
    /// Wall-clock time at `now`.
    pub wall: Timestamp,
}

/// The RTP path of one leg. Fields that every packet needs come first; `Transport::prefetch`
/// depends on this order.
#[derive(Debug)]
#[repr(C)]
pub struct Transport {
    sources: Vec<Source>,
    /// The payload that was decrypted last.
    plain: Vec<u8>,
    ssrc: u32,
    opus_pt: u8,
    sent: SendStats,
    quality_at: Instant,
    open: Transform,
    seal: Transform,
    /// Must be the first of the rarely used fields.
    cname: String,
    /// The keys of `open` and `seal`, for a snapshot.
    keys: Keys,
    retired: VecDeque<(u32, u64)>,
    /// The number of further packets for which a rollover may be assumed.
    rollover_tries: u8,
    /// SSRCs that send reports, with their replay windows.
    reporters: VecDeque<(u32, ReplayWindow)>,
    /// The time of creation, and the NTP time at that moment.
    made: (Instant, u64),
    report_at: Instant,
    report_index: u32,
    outbound: StreamStats,
    round_trip: Option<Duration>,
}

/// The state of a [`Transport`] in the snapshot of a leg.
#[derive(Serialize, Deserialize)]
pub(crate) struct TransportState {
    #[serde(with = "keys_in_snapshot")]
    keys: Keys,
    ssrc: u32,
    opus_pt: u8,
    cname: String,
    sources: Vec<Source<Offset>>,
    retired: VecDeque<(u32, u64)>,
    reporters: VecDeque<(u32, ReplayWindow)>,
    sent: SendStats<Offset>,
    /// A time, and the NTP time at that moment.
    made: (Offset, u64),
    quality_at: Offset,
    report_at: Offset,
    report_index: u32,
    outbound: StreamStats,
    round_trip: Option<Duration>,
}

/// Statistics of sent packets.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct SendStats<T = Instant> {
    packets: u32,
    bytes: u32,
    /// The number of packets at the last report.
    reported: u32,
    /// Time and timestamp of the last audio packet.
    last: Option<(T, u32)>,
    /// Index of the first packet.
    first: Option<u64>,
}

impl<T> SendStats<T> {
    fn map_time<U>(self, time: impl Fn(T) -> U) -> SendStats<U> {
        SendStats {
            packets: self.packets,
            bytes: self.bytes,
            reported: self.reported,
            last: self.last.map(|(at, timestamp)| (time(at), timestamp)),
            first: self.first,
        }
    }
}

/// A stream of the peer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Source<T = Instant> {
    ssrc: u32,
    window: ReplayWindow,
    reception: Reception<T>,
    /// The arrival time of its last report, and the middle bits of that report's NTP time.
    report: Option<(T, u32)>,
    /// Whether the stream has sent anything since our last report.
    active: bool,
}

impl<T> Source<T> {
    fn map_time<U>(self, time: impl Fn(T) -> U) -> Source<U> {
        Source {
            ssrc: self.ssrc,
            window: self.window,
            reception: self.reception.map_time(&time),
            report: self.report.map(|(at, ntp)| (time(at), ntp)),
            active: self.active,
        }
    }
}

/// A received packet, new and authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedPacket<'a> {
    pub payload_type: u8,
    pub ssrc: u32,
    /// Extended sequence number, which does not wrap.
    pub sequence: u64,
    pub timestamp: u32,
    pub payload: &'a [u8],
}

/// A packet to send.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPacket<'a> {
    pub payload_type: u8,
    pub marker: bool,
    /// Extended sequence number. Must never be repeated.
    pub sequence: u64,
    pub timestamp: u32,
    pub payload: &'a [u8],
    /// The time that the timestamp represents.
    pub at: Instant,
}

impl Transport {
    /// Creates a transport. Returns `None` if the crypto library rejects the keys.
    pub fn new(keys: &Keys, config: TransportConfig) -> Option<Self> {
        let (seal, open) = keys.directions()?;
        let micros = u64::try_from(config.wall.micros()).unwrap_or_default();
        let fraction = (micros % 1_000_000) << 32;
        let ntp =
            ((micros / 1_000_000).wrapping_add(NTP_EPOCH_SECS) << 32) | (fraction / 1_000_000);
        Some(Self {
            seal,
            open,
            ssrc: config.ssrc,
            cname: config.cname,
            keys: keys.clone(),
            opus_pt: config.opus_pt,
            sources: Vec::with_capacity(1),
            retired: VecDeque::new(),
            rollover_tries: ROLLOVER_TRIES_MAX,
            reporters: VecDeque::new(),
            plain: Vec::new(),
            made: (config.now, ntp),
            report_at: config.now + FIRST_REPORT_AFTER,
            quality_at: config.now + QUALITY_INTERVAL,
            report_index: 0,
            sent: SendStats { packets: 0, bytes: 0, reported: 0, last: None, first: None },
            outbound: StreamStats::default(),
            round_trip: None,
        })
    }

    pub(crate) fn snapshot(&self, base: TimeBase) -> TransportState {
        let offset = |at| base.offset(at);
        let sources = self.sources.iter().map(|source| source.map_time(offset));
        TransportState {
            keys: self.keys.clone(),
            ssrc: self.ssrc,
            opus_pt: self.opus_pt,
            cname: self.cname.clone(),
            sources: sources.collect(),
            retired: self.retired.clone(),
            reporters: self.reporters.clone(),
            sent: self.sent.map_time(offset),
            made: (offset(self.made.0), self.made.1),
            quality_at: offset(self.quality_at),
            report_at: offset(self.report_at),
            report_index: self.report_index,
            outbound: self.outbound,
            round_trip: self.round_trip,
        }
    }

    /// Creates the transport of a snapshot. Returns `None` if the snapshot is inconsistent.
    pub(crate) fn restore(state: TransportState, base: TimeBase) -> Option<Self> {
        let (seal, open) = state.keys.directions()?;
        let is_consistent = state.sources.len() <= SOURCES_MAX
            && state.retired.len() <= RETIRED_MAX
            && state.reporters.len() <= RETIRED_MAX
            && state.sources.iter().all(|source| source.reception.is_consistent())
            && state.report_index <= REPORT_INDEX_MAX;
        let sources = state.sources.into_iter().map(|source| source.map_time(|at| base.at(at)));
        is_consistent.then(|| Self {
            seal,
            open,
            ssrc: state.ssrc,
            cname: state.cname,
            keys: state.keys,
            opus_pt: state.opus_pt,
            sources: sources.collect(),
            retired: state.retired,
            rollover_tries: ROLLOVER_TRIES_MAX,
            reporters: state.reporters,
            plain: Vec::new(),
            made: (base.at(state.made.0), state.made.1),
            report_at: base.at(state.report_at),
            quality_at: base.at(state.quality_at),
            report_index: state.report_index,
            sent: state.sent.map_time(|at| base.at(at)),
            outbound: state.outbound,
            round_trip: state.round_trip,
        })
    }

    /// Skips this many reports, because their indexes may have been used.
    pub(crate) fn skip_reports(&mut self, reports: u32) {
        self.report_index = self.report_index.wrapping_add(reports) & REPORT_INDEX_MAX;
    }

    /// Prefetches the data that every packet needs.
    pub fn prefetch(&self) {
        prefetch(self, offset_of!(Self, open));
        self.open.prefetch();
        self.seal.prefetch();
    }

    /// Prefetches the data needed for received packets. Must be called after
    /// [`Transport::prefetch`].
    pub fn prefetch_for_receiving(&self) {
        self.open.prefetch_key();
        prefetch(self.sources.as_slice(), size_of::<Source>());
        prefetch(self.plain.as_slice(), USUAL_PAYLOAD);
    }

    /// Prefetches the data needed for packets to send. Must be called after
    /// [`Transport::prefetch`].
    pub fn prefetch_for_sending(&self) {
        self.seal.prefetch_key();
    }

    /// Returns whether the peer is known to use this SSRC.
    pub fn has_ssrc(&self, ssrc: u32) -> bool {
        self.sources.iter().any(|source| source.ssrc == ssrc)
    }

    /// Processes a datagram that looks like RTP. Returns `None`, without any other effect, if it is
    /// not authentic, is a replay, or is not RTP.
    pub fn receive_rtp(&mut self, now: Instant, datagram: &[u8]) -> Option<ReceivedPacket<'_>> {
        let header = Header::parse(datagram)?;
        let known = self.sources.iter().position(|source| source.ssrc == header.ssrc);
        let window = match known.and_then(|at| self.sources.get(at)) {
            Some(source) => Some(source.window),
            None => self
                .retired
                .iter()
                .find(|(ssrc, _)| *ssrc == header.ssrc)
                .map(|(_, newest)| ReplayWindow::closed_at(*newest)),
        };
        let mut index = match &window {
            Some(window) => {
                window.index_of(header.sequence).filter(|index| window.is_new(*index))?
            }
            None => header.sequence.into(),
        };
        let mut is_authentic = self.open.open_rtp(datagram, header.length, index, &mut self.plain);
        // A stream may begin near the end of the range, and its packets before the rollover may be
        // lost (RFC 3711 §3.3.1).
        if !is_authentic
            && window.is_none()
            && header.sequence < ROLLED_OVER_MAX
            && self.rollover_tries > 0
        {
            self.rollover_tries -= 1;
            index += 1 << 16;
            is_authentic = self.open.open_rtp(datagram, header.length, index, &mut self.plain);
        }
        if !is_authentic {
            return None;
        }
        let is_sound = header.payload_type == self.opus_pt;
        let source = match known.and_then(|at| self.sources.get_mut(at)) {
            Some(source) => source,
            None => self.add_source(header.ssrc, index, window)?,
        };
        source.window.insert(index);
        source.active = true;
        source.reception.record(now, index, header.timestamp, is_sound);
        Some(ReceivedPacket {
            payload_type: header.payload_type,
            ssrc: header.ssrc,
            sequence: index,
            timestamp: header.timestamp,
            payload: header.payload(&self.plain)?,
        })
    }

    /// Adds a stream that is new or has returned. The oldest one is retired if necessary.
    fn add_source(
        &mut self,
        ssrc: u32,
        index: u64,
        window: Option<ReplayWindow>,
    ) -> Option<&mut Source> {
        if self.sources.len() == SOURCES_MAX {
            let gone = self.sources.remove(0);
            if self.retired.len() == RETIRED_MAX {
                self.retired.pop_front();
            }
            self.retired.push_back((gone.ssrc, gone.window.newest()));
        }
        self.retired.retain(|(retired, _)| *retired != ssrc);
        let window = window.unwrap_or(ReplayWindow::starting_at(index));
        self.sources.push(Source {
            ssrc,
            window,
            reception: Reception::starting_at(index),
            report: None,
            active: true,
        });
        self.sources.last_mut()
    }

    /// Processes a datagram that looks like RTCP. Returns `false` if it is not authentic or a
    /// replay.
    pub fn receive_rtcp(&mut self, now: Instant, datagram: &[u8]) -> bool {
        let Some(index) = self.open.rtcp_index(datagram).map(u64::from) else { return false };
        let Some(reporter) =
            datagram.get(4..8).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes)
        else {
            return false;
        };
        let known = self.reporters.iter_mut().find(|(ssrc, _)| *ssrc == reporter);
        if known.as_ref().is_some_and(|(_, window)| !window.is_new(index)) {
            return false;
        }
        if !self.open.open_rtcp(datagram, &mut self.plain) {
            return false;
        }
        match known {
            Some((_, window)) => window.insert(index),
            None => {
                // Reporters share their keys, so a peer that uses a seventeenth SSRC can only
                // replay its own packets.
                if self.reporters.len() == RETIRED_MAX {
                    self.reporters.pop_front();
                }
                self.reporters.push_back((reporter, ReplayWindow::starting_at(index)));
            }
        }
        let plain = std::mem::take(&mut self.plain);
        rtcp::parse(&plain, |item| self.apply_item(now, item));
        self.plain = plain;
        true
    }

    fn apply_item(&mut self, now: Instant, item: Item) {
        match item {
            Item::SenderReport(ssrc, sender) => {
                if let Some(source) = self.sources.iter_mut().find(|source| source.ssrc == ssrc) {
                    source.report = Some((now, rtcp::ntp_middle(sender.ntp)));
                }
            }
            Item::ReportBlock(block) if block.ssrc == self.ssrc => {
                self.apply_report_block(now, &block)
            }
            // A block about another stream, or a BYE, needs no action.
            Item::ReportBlock(_) | Item::Goodbye(_) => {}
        }
    }

    /// Evaluates the peer's report on our stream.
    fn apply_report_block(&mut self, now: Instant, block: &ReportBlock) {
        let Some(first) = self.sent.first else { return };
        let packets = u64::from(block.highest).checked_sub(first).map_or(0, |sent| sent + 1);
        // The peer cannot have received more than we sent.
        let packets = packets.min(u64::from(self.sent.packets));
        let jitter = Duration::from_micros(u64::from(block.jitter) * 1_000 / 48);
        self.outbound = StreamStats {
            packets,
            lost: u64::try_from(block.lost).unwrap_or_default().min(packets),
            jitter,
        };
        if block.last_report != 0 {
            let rtt = rtcp::ntp_middle(self.ntp(now))
                .wrapping_sub(block.last_report)
                .wrapping_sub(block.since_report);
            // Clock drift can make the value negative, which would be read as hours.
            if rtt < 60 << 16 {
                self.round_trip = Some(Duration::from_micros((u64::from(rtt) * 1_000_000) >> 16));
            }
        }
    }

    /// Encrypts and queues a packet. Returns `false` if the encryption failed.
    pub fn send(
        &mut self,
        to: SocketAddr,
        packet: OutgoingPacket<'_>,
        out: &mut SendBuffer,
    ) -> bool {
        let OutgoingPacket { payload_type, marker, sequence, timestamp, payload, at } = packet;
        let written = out.write(to, |bytes, from| {
            rtp::write(bytes, payload_type, marker, low16(sequence), timestamp, self.ssrc);
            bytes.extend_from_slice(payload);
            self.seal.seal_rtp(rtp::HEADER_SIZE, sequence, bytes, from)
        });
        if written {
            self.sent.first.get_or_insert(sequence);
            self.sent.packets = self.sent.packets.wrapping_add(1);
            self.sent.bytes =
                self.sent.bytes.wrapping_add(u32::try_from(payload.len()).unwrap_or_default());
            if payload_type == self.opus_pt {
                self.sent.last = Some((at, timestamp));
            }
        }
        written
    }

    /// Sends a report if one is due. Returns the quality figures about once a second, otherwise
    /// `None`.
    pub fn tick(&mut self, now: Instant, to: SocketAddr, out: &mut SendBuffer) -> Option<Quality> {
        if now < self.quality_at {
            return None;
        }
        if now >= self.report_at {
            self.report_at = now + REPORT_INTERVAL;
            self.report(now, to, false, out);
        }
        self.quality_at = (now + QUALITY_INTERVAL).min(self.report_at);
        Some(self.quality())
    }

    /// Sends the last report with a BYE. Returns the final quality figures.
    pub fn send_bye(&mut self, now: Instant, to: SocketAddr, out: &mut SendBuffer) -> Quality {
        self.report(now, to, true, out);
        self.quality()
    }

    /// Returns the quality figures so far.
    pub fn quality(&self) -> Quality {
        let mut inbound = StreamStats::default();
        for stats in self.sources.iter().map(|source| source.reception.stats()) {
            inbound.packets += stats.packets;
            inbound.lost += stats.lost;
            inbound.jitter = stats.jitter;
        }
        Quality { inbound, outbound: self.outbound, round_trip: self.round_trip }
    }

    fn report(&mut self, now: Instant, to: SocketAddr, with_bye: bool, out: &mut SendBuffer) {
        let has_sent =
            std::mem::replace(&mut self.sent.reported, self.sent.packets) != self.sent.packets;
        let sender = self.sent.last.filter(|_| has_sent).map(|(at, timestamp)| {
            let since =
                u64::try_from(now.saturating_duration_since(at).as_micros()).unwrap_or_default();
            SenderInfo {
                ntp: self.ntp(now),
                timestamp: timestamp.wrapping_add(low32(since * 48 / 1_000)),
                packets: self.sent.packets,
                bytes: self.sent.bytes,
            }
        });
        let mut blocks = [ReportBlock::default(); SOURCES_MAX];
        let mut count = 0;
        for (block, source) in
            blocks.iter_mut().zip(self.sources.iter_mut().filter(|source| source.active))
        {
            source.active = false;
            *block = source.report_block(now);
            count += 1;
        }
        let index = self.report_index;
        self.report_index = (index + 1) & REPORT_INDEX_MAX;
        out.write(to, |bytes, from| {
            rtcp::write_report(
                bytes,
                self.ssrc,
                sender,
                blocks.get(..count).unwrap_or_default(),
                &self.cname,
                with_bye,
            );
            self.seal.seal_rtcp(index, bytes, from)
        });
    }

    fn ntp(&self, now: Instant) -> u64 {
        let (made, ntp) = self.made;
        let since = now.saturating_duration_since(made);
        ntp.wrapping_add(
            (since.as_secs() << 32) | ((u64::from(since.subsec_nanos()) << 32) / 1_000_000_000),
        )
    }
}

impl Source {
    fn report_block(&mut self, now: Instant) -> ReportBlock {
        let (fraction, lost, jitter) = self.reception.report_figures();
        let (last_report, since_report) = self.report.map_or((0, 0), |(at, middle)| {
            let since = now.saturating_duration_since(at).as_micros();
            (middle, u32::try_from((since << 16) / 1_000_000).unwrap_or(u32::MAX))
        });
        let highest = low32(self.window.newest());
        ReportBlock { ssrc: self.ssrc, fraction, lost, highest, jitter, last_report, since_report }
    }
}

fn low32(n: u64) -> u32 {
    u32::try_from(n & 0xffff_ffff).unwrap_or_default()
}

fn low16(n: u64) -> u16 {
    u16::try_from(n & 0xffff).unwrap_or_default()
}

#[cfg(test)]
mod tests;
