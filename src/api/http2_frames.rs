//! The frames of an HTTP/2 connection, as received.
//!
//! hyper answers PING and SETTINGS and skips unknown frames without a limit, so a client could keep
//! the node busy without a request. Neither does it limit how many requests wait for their handlers
//! if their streams were reset. [`connection`](super::connection) limits both.

/// The first bytes of a client's connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of the header of a frame (RFC 9113 §4.1).
const HEADER_BYTES: u8 = 9;

/// The weight of a request, which is given back when it has been handled.
pub(super) const REQUEST_WEIGHT: usize = 50;

/// Weighs the frames in the bytes of a client. Nothing is weighed unless the bytes begin
/// with the preface of HTTP/2.
#[derive(Default)]
pub(super) struct Http2Frames(State);

enum State {
    /// Within the preface. Contains the number of bytes that were received.
    Preface(usize),
    /// Within the header of a frame.
    Header {
        position: u8,
        length: u32,
        kind: u8,
    },
    /// Within the payload of a frame. Contains the number of remaining bytes.
    Payload(u32),
    OtherProtocol,
}

impl Default for State {
    fn default() -> Self {
        Self::Preface(0)
    }
}

impl Http2Frames {
    /// Parses the next bytes. Returns the number and the total weight of the frames whose headers end
    /// in them.
    pub(super) fn read(&mut self, mut bytes: &[u8]) -> (usize, usize) {
        let (mut count, mut weights) = (0, 0);
        while let Some((first, rest)) = bytes.split_first() {
            bytes = rest;
            self.0 = match self.0 {
                State::OtherProtocol => return (count, weights),
                State::Preface(at) if PREFACE.get(at) != Some(first) => State::OtherProtocol,
                State::Preface(at) if at + 1 < PREFACE.len() => State::Preface(at + 1),
                State::Preface(_) => State::header(),
                State::Header { position, length, kind } => {
                    let (length, kind) = match position {
                        0..3 => (length << 8 | u32::from(*first), kind),
                        3 => (length, *first),
                        _ => (length, kind),
                    };
                    if position + 1 < HEADER_BYTES {
                        State::Header { position: position + 1, length, kind }
                    } else {
                        count += 1;
                        weights += weight(kind);
                        State::after_payload(length)
                    }
                }
                State::Payload(left) => {
                    let skipped = usize::try_from(left - 1).unwrap_or(usize::MAX).min(rest.len());
                    bytes = rest.get(skipped..).unwrap_or_default();
                    State::after_payload(left - 1 - u32::try_from(skipped).unwrap_or(left - 1))
                }
            };
        }
        (count, weights)
    }
}

impl State {
    fn header() -> Self {
        Self::Header { position: 0, length: 0, kind: 0 }
    }

    /// Returns the state before the last `left` bytes of a payload.
    fn after_payload(left: u32) -> Self {
        if left == 0 { Self::header() } else { Self::Payload(left) }
    }
}

/// The weight of a frame of this type (RFC 9113 §6). Control frames that a client needs for each
/// request weigh less than those that it sends now and then. An honest client may send two
/// WINDOW_UPDATE frames for each small DATA frame of a large response, and they are not answered.
fn weight(kind: u8) -> usize {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const PRIORITY: u8 = 2;
    const RST_STREAM: u8 = 3;
    const WINDOW_UPDATE: u8 = 8;
    const CONTINUATION: u8 = 9;
    match kind {
        DATA | WINDOW_UPDATE | CONTINUATION => 0,
        HEADERS => REQUEST_WEIGHT,
        PRIORITY | RST_STREAM => 1,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::{Http2Frames, PREFACE};

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let [_, a, b, c] = u32::try_from(payload).unwrap().to_be_bytes();
        [&[a, b, c, kind, 0, 0, 0, 0, 0], vec![6; payload].as_slice()].concat()
    }

    #[test]
    fn frames_are_weighed_in_pieces_of_any_size() {
        let frames = [
            PREFACE.to_vec(),
            frame(4, 0),
            frame(1, 70_000),
            frame(6, 8),
            frame(0, 300),
            frame(8, 4),
            frame(0x77, 0),
        ]
        .concat();
        for size in [1, 2, 5, 9, 100, frames.len()] {
            let mut counter = Http2Frames::default();
            let read = frames.chunks(size).map(|piece| counter.read(piece));
            let read = read.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
            assert_eq!(read, (6, 80), "{size}");
        }
    }

    #[test]
    fn other_protocols_are_not_weighed() {
        let text = [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", frame(6, 0).as_slice()].concat();
        assert_eq!(Http2Frames::default().read(&text), (0, 0));
    }
}
