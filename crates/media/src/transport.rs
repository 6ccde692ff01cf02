//! A leg's own RTP: packets under the keys of its DTLS, past the WebRTC library, which keeps ICE and DTLS (`media-notes` §5).
//!
//! What comes is opened, told from replays (R19) and counted; what goes is written and sealed in place; every 5 s a
//! report goes out and what the peer's reports say is noted. No allocation per packet. Where a leg has no `Transport`,
//! its RTP is the WebRTC library's (`leg`).

use std::collections::VecDeque;
use std::mem::offset_of;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::outbox::Outbox;
use super::quality::{Quality, Reception, Way};
use super::rtcp::{self, Block, Item, Sender};
use super::rtp::{self, Header};
use super::srtp::{Keys, Transform, Window};
use crate::prefetch::fetch;
use model::Timestamp;

/// From one report of ours to the next (RFC 3550 §6.2), and to the first.
const REPORTS: Duration = Duration::from_secs(5);
const FIRST_REPORT: Duration = Duration::from_millis(2_500);
/// How often the leg's account is brought up to date.
const LOOKS: Duration = Duration::from_secs(1);
/// SSRCs of the peer that are known at a time; more than one comes of a change on its side.
const SOURCES_MAX: usize = 4;
/// Those it had before, of which nothing old is taken again.
const RETIRED_MAX: usize = 16;
/// Bytes of a payload, as a rule.
const PLAIN_USUAL: usize = 128;
/// From NTP's epoch, 1900, to ours.
const NTP_EPOCH_SECS: u64 = 2_208_988_800;

/// What there is to know besides the keys.
pub struct Making {
    /// Ours.
    pub ssrc: u32,
    pub cname: String,
    pub opus_pt: u8,
    pub now: Instant,
    /// The wall clock's time then.
    pub wall: Timestamp,
}

/// The own path of one leg. What each packet asks comes first (`Transport::fetch`).
#[derive(Debug)]
#[repr(C)]
pub struct Transport {
    sources: Vec<Source>,
    /// The payload that was opened last.
    plain: Vec<u8>,
    ssrc: u32,
    opus_pt: u8,
    sent: Sent,
    look_at: Instant,
    open: Transform,
    seal: Transform,
    /// The first of those that are seldom asked.
    cname: String,
    retired: VecDeque<(u32, u64)>,
    /// Who sends reports, and which of them have come.
    reporters: VecDeque<(u32, Window)>,
    /// When it was made, and NTP's time then.
    made: (Instant, u64),
    report_at: Instant,
    report_index: u32,
    outbound: Way,
    round_trip: Option<Duration>,
}

/// What we have sent.
#[derive(Debug, Default)]
struct Sent {
    packets: u32,
    bytes: u32,
    /// Packets when the last report went.
    reported: u32,
    /// When the last sound went, with its timestamp.
    last: Option<(Instant, u32)>,
    /// Index of the first packet.
    first: Option<u64>,
}

/// A stream of the peer's.
#[derive(Debug)]
struct Source {
    ssrc: u32,
    window: Window,
    reception: Reception,
    /// Its last report: when it came, and the middle of its NTP time.
    report: Option<(Instant, u32)>,
    /// It has sent since our last report.
    active: bool,
}

/// A packet of the peer's, new and authentic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received<'a> {
    pub payload_type: u8,
    pub ssrc: u32,
    /// Extended: it does not turn over.
    pub sequence: u64,
    pub timestamp: u32,
    pub payload: &'a [u8],
}

/// A packet of ours.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    pub payload_type: u8,
    pub marker: bool,
    /// Extended; never the same twice.
    pub sequence: u64,
    pub timestamp: u32,
    pub payload: &'a [u8],
    /// When that timestamp was.
    pub at: Instant,
}

impl Transport {
    /// None: the crypto refuses the keys.
    pub fn new(keys: &Keys, making: Making) -> Option<Self> {
        let (seal, open) = keys.directions()?;
        let micros = u64::try_from(making.wall.micros()).unwrap_or_default();
        let fraction = (micros % 1_000_000) << 32;
        let ntp =
            ((micros / 1_000_000).wrapping_add(NTP_EPOCH_SECS) << 32) | (fraction / 1_000_000);
        Some(Self {
            seal,
            open,
            ssrc: making.ssrc,
            cname: making.cname,
            opus_pt: making.opus_pt,
            sources: Vec::with_capacity(1),
            retired: VecDeque::new(),
            reporters: VecDeque::new(),
            plain: Vec::new(),
            made: (making.now, ntp),
            report_at: making.now + FIRST_REPORT,
            look_at: making.now + LOOKS,
            report_index: 0,
            sent: Sent::default(),
            outbound: Way::default(),
            round_trip: None,
        })
    }

    /// Asks the processor for what packets are going to ask of it.
    pub fn fetch(&self) {
        fetch(self, offset_of!(Self, open));
        self.open.fetch();
        self.seal.fetch();
    }

    /// Then for what that points at: of packets that come.
    pub fn fetch_for_opening(&self) {
        self.open.fetch_key();
        fetch(self.sources.as_slice(), size_of::<Source>());
        fetch(self.plain.as_slice(), PLAIN_USUAL);
    }

    /// And of those that go.
    pub fn fetch_for_sealing(&self) {
        self.seal.fetch_key();
    }

    /// Whether the peer is known to send with this SSRC.
    pub fn knows(&self, ssrc: u32) -> bool {
        self.sources.iter().any(|source| source.ssrc == ssrc)
    }

    /// Takes in what looks like RTP. None: it is not authentic, came before, or is no RTP; nothing has changed then.
    pub fn rtp(&mut self, now: Instant, datagram: &[u8]) -> Option<Received<'_>> {
        let header = Header::read(datagram)?;
        let known = self.sources.iter().position(|source| source.ssrc == header.ssrc);
        let window = match known.and_then(|at| self.sources.get(at)) {
            Some(source) => Some(source.window),
            None => self
                .retired
                .iter()
                .find(|(ssrc, _)| *ssrc == header.ssrc)
                .map(|(_, newest)| Window::after(*newest)),
        };
        let index = match &window {
            Some(window) => {
                window.index_of(header.sequence).filter(|index| window.is_new(*index))?
            }
            None => header.sequence.into(),
        };
        if !self.open.open_rtp(datagram, header.length, index, &mut self.plain) {
            return None;
        }
        let is_sound = header.payload_type == self.opus_pt;
        let source = match known.and_then(|at| self.sources.get_mut(at)) {
            Some(source) => source,
            None => self.begin_source(header.ssrc, index, window)?,
        };
        source.window.take(index);
        source.active = true;
        source.reception.packet(now, index, header.timestamp, is_sound);
        Some(Received {
            payload_type: header.payload_type,
            ssrc: header.ssrc,
            sequence: index,
            timestamp: header.timestamp,
            payload: header.payload(&self.plain)?,
        })
    }

    /// A stream that is new, or back. The oldest one makes room.
    fn begin_source(
        &mut self,
        ssrc: u32,
        index: u64,
        window: Option<Window>,
    ) -> Option<&mut Source> {
        if self.sources.len() == SOURCES_MAX {
            let gone = self.sources.remove(0);
            if self.retired.len() == RETIRED_MAX {
                self.retired.pop_front();
            }
            self.retired.push_back((gone.ssrc, gone.window.newest()));
        }
        self.retired.retain(|(retired, _)| *retired != ssrc);
        let window = window.unwrap_or(Window::beginning(index));
        self.sources.push(Source {
            ssrc,
            window,
            reception: Reception::beginning(index),
            report: None,
            active: true,
        });
        self.sources.last_mut()
    }

    /// Takes in what looks like RTCP. False: it is not authentic, or came before.
    pub fn rtcp(&mut self, now: Instant, datagram: &[u8]) -> bool {
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
            Some((_, window)) => window.take(index),
            None => {
                // Each of these holds the keys: one that draws a seventeenth SSRC has only itself to replay.
                if self.reporters.len() == RETIRED_MAX {
                    self.reporters.pop_front();
                }
                self.reporters.push_back((reporter, Window::beginning(index)));
            }
        }
        let plain = std::mem::take(&mut self.plain);
        rtcp::read(&plain, |item| self.told(now, item));
        self.plain = plain;
        true
    }

    fn told(&mut self, now: Instant, item: Item) {
        match item {
            Item::Sender(ssrc, sender) => {
                if let Some(source) = self.sources.iter_mut().find(|source| source.ssrc == ssrc) {
                    source.report = Some((now, rtcp::middle(sender.ntp)));
                }
            }
            Item::Block(block) if block.ssrc == self.ssrc => self.heard_as(now, &block),
            // Somebody else's stream; or one that ends: its packets stop coming, which is all there is to it.
            Item::Block(_) | Item::Goodbye(_) => {}
        }
    }

    /// How the peer hears us.
    fn heard_as(&mut self, now: Instant, block: &Block) {
        let Some(first) = self.sent.first else { return };
        let packets = u64::from(block.highest).checked_sub(first).map_or(0, |sent| sent + 1);
        // It can't have heard more than we sent.
        let packets = packets.min(u64::from(self.sent.packets));
        let jitter = Duration::from_micros(u64::from(block.jitter) * 1_000 / 48);
        self.outbound = Way {
            packets,
            lost: u64::try_from(block.lost).unwrap_or_default().min(packets),
            jitter,
        };
        if block.last_report != 0 {
            let trip = rtcp::middle(self.ntp(now))
                .wrapping_sub(block.last_report)
                .wrapping_sub(block.since_report);
            // Clocks that run apart can make it less than nothing, which reads as hours.
            if trip < 60 << 16 {
                self.round_trip = Some(Duration::from_micros((u64::from(trip) * 1_000_000) >> 16));
            }
        }
    }

    /// Writes and seals a packet; false: it could not be sealed and does not go.
    pub fn send(&mut self, to: SocketAddr, sending: Sending<'_>, out: &mut Outbox) -> bool {
        let Sending { payload_type, marker, sequence, timestamp, payload, at } = sending;
        let written = out.write(to, |bytes, from| {
            rtp::write(bytes, payload_type, marker, low16(sequence), timestamp, self.ssrc);
            bytes.extend_from_slice(payload);
            self.seal.seal_rtp(rtp::HEADER, sequence, bytes, from)
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

    /// Sends a report where one is due; says what was measured where somebody should look.
    pub fn tick(&mut self, now: Instant, to: SocketAddr, out: &mut Outbox) -> Option<Quality> {
        if now < self.look_at {
            return None;
        }
        if now >= self.report_at {
            self.report_at = now + REPORTS;
            self.report(now, to, false, out);
        }
        self.look_at = (now + LOOKS).min(self.report_at);
        Some(self.quality())
    }

    /// The last report, and that we leave.
    pub fn goodbye(&mut self, now: Instant, to: SocketAddr, out: &mut Outbox) -> Quality {
        self.report(now, to, true, out);
        self.quality()
    }

    /// What was measured so far.
    pub fn quality(&self) -> Quality {
        let mut inbound = Way::default();
        for way in self.sources.iter().map(|source| source.reception.way()) {
            inbound.packets += way.packets;
            inbound.lost += way.lost;
            inbound.jitter = way.jitter;
        }
        Quality { inbound, outbound: self.outbound, round_trip: self.round_trip }
    }

    fn report(&mut self, now: Instant, to: SocketAddr, goodbye: bool, out: &mut Outbox) {
        let sends =
            std::mem::replace(&mut self.sent.reported, self.sent.packets) != self.sent.packets;
        let sender = self.sent.last.filter(|_| sends).map(|(at, timestamp)| {
            let since =
                u64::try_from(now.saturating_duration_since(at).as_micros()).unwrap_or_default();
            Sender {
                ntp: self.ntp(now),
                timestamp: timestamp.wrapping_add(low32(since * 48 / 1_000)),
                packets: self.sent.packets,
                bytes: self.sent.bytes,
            }
        });
        let mut blocks = [Block::default(); SOURCES_MAX];
        let mut count = 0;
        for (block, source) in
            blocks.iter_mut().zip(self.sources.iter_mut().filter(|source| source.active))
        {
            source.active = false;
            *block = source.block(now);
            count += 1;
        }
        let index = self.report_index;
        self.report_index = (index + 1) & 0x7fff_ffff;
        out.write(to, |bytes, from| {
            rtcp::write(
                bytes,
                self.ssrc,
                sender,
                blocks.get(..count).unwrap_or_default(),
                &self.cname,
                goodbye,
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
    fn block(&mut self, now: Instant) -> Block {
        let (fraction, lost, jitter) = self.reception.since_last();
        let (last_report, since_report) = self.report.map_or((0, 0), |(at, middle)| {
            let since = now.saturating_duration_since(at).as_micros();
            (middle, u32::try_from((since << 16) / 1_000_000).unwrap_or(u32::MAX))
        });
        let highest = low32(self.window.newest());
        Block { ssrc: self.ssrc, fraction, lost, highest, jitter, last_report, since_report }
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
