//! The messages between two nodes, for calls of one node in rooms of the other.
//!
//! A frame consists of its length (4 bytes), its kind (1 byte) and its content: a message in JSON,
//! the packets of all seats in 20 ms, or nothing. Unknown kinds are ignored.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio_util::codec::LengthDelimitedCodec;
use uuid::Uuid;

use machine::{CallSetup, Command, RecordingOrder, RoomEntry, RoomEvent, SoundItem};
use media::SeatPacket;
use model::{Digit, Timestamp};
use xml::ast::Target;

/// Maximum size of a frame in bytes.
const FRAME_MAX: usize = 4 * 1024 * 1024;

/// Maximum size of a packet in bytes: somewhat more than the longest Opus packet (RFC 6716 §3.4).
const PAYLOAD_MAX: usize = 1_500;

const MESSAGE: u8 = 0;
const PACKETS: u8 = 1;
const PING: u8 = 2;
/// The separate recording of a call has ended by itself. A kind of its own, because earlier builds
/// close the connection at an unknown request.
const TRACK_ENDED: u8 = 3;

/// A message to the node that hosts a room.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub(super) enum Request {
    /// A call enters a room. The response is [`Event::Seated`] or [`Event::Missing`].
    Enter {
        seat: u32,
        setup: Box<CallSetup>,
        /// When the call was answered.
        answered: Option<Timestamp>,
        entry: Box<RoomEntry>,
        room: Uuid,
        /// Whether the host did not have the room at an earlier attempt. If it still does not, it
        /// releases the name of the room.
        again: bool,
    },
    /// The call leaves its room. The response is [`Event::Left`].
    Leave { seat: u32, sounds: Vec<SoundItem> },
    /// Plays sounds to all members.
    Sound { seat: u32, items: Vec<SoundItem> },
    /// Sends a digit to the other members.
    Digit { seat: u32, digit: Digit },
    /// Records the room.
    Record { seat: u32, id: Uuid, url: String, order: Box<RecordingOrder>, when_alone: bool },
    /// Attaches an AI agent to the call. Its packets carry `port` as their seat number.
    Agent { seat: u32, port: u32 },
}

/// A message to the node of a call that has a seat.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// The call is in the room. If the room is full, this follows as well, and an event for the
    /// call's machine reports that.
    Seated { seat: u32 },
    /// The room does not exist.
    Missing { seat: u32 },
    /// An input for the call's machine.
    Room {
        seat: u32,
        #[serde(rename = "of")]
        event: Box<RoomEvent>,
    },
    /// An input for the call's machine.
    Command { seat: u32, command: Box<Command> },
    /// The call has left the room.
    Left {
        seat: u32,
        last: bool,
        #[serde(rename = "told")]
        end_callbacks: Vec<Target>,
        lasted_ms: u64,
    },
}

/// A received frame.
#[derive(Debug, PartialEq)]
pub(super) enum Received<M> {
    Message(M),
    /// Packets, and the sender's time in milliseconds.
    Packets(u32, Vec<SeatPacket>),
    /// The separate recording of the call with this seat has ended by itself.
    TrackEnded(u32),
    Nothing,
}

/// An invalid frame.
#[derive(Debug, thiserror::Error)]
#[error("invalid message: {0}")]
pub(super) struct Unreadable(String);

/// Splits a stream into frames.
pub(super) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().max_frame_length(FRAME_MAX).new_codec()
}

pub(super) fn message(message: &impl Serialize) -> Bytes {
    let mut frame = vec![MESSAGE];
    // These types have no maps with keys that JSON lacks, so this does not fail.
    let _ = serde_json::to_writer(&mut frame, message);
    frame.into()
}

pub(super) fn ping() -> Bytes {
    Bytes::from_static(&[PING])
}

pub(super) fn track_ended(seat: u32) -> Bytes {
    let mut frame = BytesMut::with_capacity(5);
    frame.put_u8(TRACK_ENDED);
    frame.put_u32(seat);
    frame.freeze()
}

/// Encodes packets. `at` is this node's time in milliseconds.
pub(super) fn packets(at: u32, packets: &[SeatPacket]) -> Bytes {
    let size = packets.iter().map(|packet| packet.payload.len() + 22).sum::<usize>();
    let mut frame = BytesMut::with_capacity(size + 5);
    frame.put_u8(PACKETS);
    frame.put_u32(at);
    for SeatPacket { seat, ssrc, sequence, timestamp, payload } in packets {
        let Some(size) = u16::try_from(payload.len()).ok().filter(|_| payload.len() <= PAYLOAD_MAX)
        else {
            continue;
        };
        frame.put_u32(*seat);
        frame.put_u32(*ssrc);
        frame.put_u64(*sequence);
        frame.put_u32(*timestamp);
        frame.put_u16(size);
        frame.put_slice(payload);
    }
    frame.freeze()
}

/// Reads a frame.
pub(super) fn read<M: serde::de::DeserializeOwned>(
    frame: &[u8],
) -> Result<Received<M>, Unreadable> {
    let short = || Unreadable("too short".to_owned());
    match frame.split_first() {
        Some((&MESSAGE, json)) => {
            let message = serde_json::from_slice(json);
            message.map(Received::Message).map_err(|error| Unreadable(error.to_string()))
        }
        Some((&TRACK_ENDED, mut rest)) => {
            rest.try_get_u32().map(Received::TrackEnded).map_err(|_| short())
        }
        Some((&PACKETS, mut rest)) => {
            let at = rest.try_get_u32().map_err(|_| short())?;
            let mut packets = Vec::new();
            while rest.has_remaining() {
                packets.push(read_packet(&mut rest).ok_or_else(short)?);
            }
            Ok(Received::Packets(at, packets))
        }
        Some(_) | None => Ok(Received::Nothing),
    }
}

fn read_packet(rest: &mut &[u8]) -> Option<SeatPacket> {
    let seat = rest.try_get_u32().ok()?;
    let ssrc = rest.try_get_u32().ok()?;
    let sequence = rest.try_get_u64().ok()?;
    let timestamp = rest.try_get_u32().ok()?;
    let size = usize::from(rest.try_get_u16().ok()?);
    let (payload, behind) = rest.split_at_checked(size)?;
    *rest = behind;
    (size <= PAYLOAD_MAX).then(|| SeatPacket {
        seat,
        ssrc,
        sequence,
        timestamp,
        payload: payload.into(),
    })
}

/// Recognises packets that were delayed on the way, by comparing their travel time with the
/// shortest one in the last seconds. The clocks of the nodes need not agree.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// The shortest travel times of this window and of the previous one, each plus the difference
    /// of the clocks.
    shortest: Option<(i64, i64)>,
    window_ends: i64,
}

impl Lateness {
    /// Maximum delay of packets in milliseconds. Later ones are dropped.
    pub(super) const MAX_MS: i64 = 60;
    /// Length of a window in milliseconds. It is short, so that the drift between the clocks does
    /// not matter.
    const WINDOW_MS: i64 = 5_000;

    /// Returns `true` if packets are too late. `sent` is the sender's time in milliseconds, and
    /// `now` that of this node.
    pub(super) fn is_late(&mut self, sent: u32, now: u32) -> bool {
        let (sent, now) = (i64::from(sent), i64::from(now));
        let travel = now - sent;
        let (mut this, mut before) = self.shortest.unwrap_or((travel, travel));
        if now >= self.window_ends {
            (this, before) = (travel, this);
            self.window_ends = now + Self::WINDOW_MS;
        }
        this = this.min(travel);
        self.shortest = Some((this, before));
        travel - this.min(before) > Self::MAX_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(seat: u32, size: usize) -> SeatPacket {
        let payload = vec![7; size].into();
        SeatPacket { seat, ssrc: 3, sequence: u64::MAX - 1, timestamp: 960, payload }
    }

    #[test]
    fn packets_and_messages_survive_the_way() {
        let sent = vec![packet(1, 80), packet(u32::MAX, 0), packet(3, PAYLOAD_MAX)];
        let Ok(Received::Packets(9, read_back)) = read::<Event>(&packets(9, &sent)) else {
            panic!()
        };
        assert_eq!(read_back, sent);
        // Never sent by a leg.
        let longer = packets(9, &[packet(1, PAYLOAD_MAX + 1), packet(2, 1)]);
        assert_eq!(read::<Event>(&longer).unwrap(), Received::Packets(9, vec![packet(2, 1)]));
        let event = Event::Room { seat: 4, event: Box::new(RoomEvent::Muted { on: true }) };
        let frame = message(&event);
        let Ok(Received::Message(Event::Room { seat: 4, event })) = read(&frame) else { panic!() };
        assert_eq!(*event, RoomEvent::Muted { on: true });
        assert_eq!(read::<Request>(&track_ended(7)).unwrap(), Received::TrackEnded(7));
        assert_eq!(read::<Event>(&ping()).unwrap(), Received::Nothing);
    }

    #[test]
    fn unreadable_frames_are_refused_and_unknown_kinds_ignored() {
        assert_eq!(read::<Event>(&[]).unwrap(), Received::Nothing);
        assert_eq!(read::<Event>(&[99, 1, 2]).unwrap(), Received::Nothing);
        assert!(read::<Event>(b"\0{}").is_err());
        let whole = packets(9, &[packet(1, 20)]);
        for cut in 1..whole.len() {
            // Only the time without packets is complete.
            assert_eq!(read::<Event>(&whole[..cut]).is_ok(), cut == 5, "{cut}");
        }
    }

    #[test]
    fn f31_packets_that_have_waited_longer_than_60_ms_are_late() {
        let mut lateness = Lateness::default();
        let start = 1_000_000;
        for n in 0..1_000 {
            assert!(!lateness.is_late(n * 20, start + n * 20 + n % 3));
        }
        let at = 1_000 * 20;
        assert!(!lateness.is_late(at, start + at + 59));
        assert!(lateness.is_late(at, start + at + 70));
        assert!(!lateness.is_late(at + 20, start + at + 20));
        // The sender's clock is slow by 0.1 %: 1 s in 1,000 s.
        let mut lateness = Lateness::default();
        let late = (0..50_000_u32).filter(|n| lateness.is_late(n * 20 - n / 50, n * 20));
        assert_eq!(late.count(), 0);
    }
}
