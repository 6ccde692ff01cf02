//! The heads of a connection's HTTP/1 requests as they were on the wire, also of those that wait behind another one.
//!
//! hyper repairs heads that R14 wants refused and shows nothing of what it repaired; so a connection's bytes are read
//! beside it, far enough to know where one message ends and the next begins. Nothing is decided by this but refusals: where it
//! loses its way it sees no further head, and a request whose head was not seen is refused (`connection`). Framing is hyper's,
//! to the byte; what hyper gives up on needs no end here.

use std::collections::VecDeque;

/// Longest head (R14).
pub(super) const HEAD_BYTES_MAX: usize = 32 << 10;
/// Heads that wait for hyper, at most: more than the shortest ones that fit into what it reads ahead.
const WAITING_MAX: usize = 4_096;

/// Why a head is refused with 400, though hyper took it (R14).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadHead {
    LengthAndChunking,
    TwoLengths,
    BareLineFeed,
    /// A transfer coding other than `chunked`, or more than one.
    Coding,
    /// What it looked like is not known.
    Unseen,
}

/// A head that was read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) bad: Option<BadHead>,
    /// Its lines but for the first.
    pub(super) fields: usize,
}

/// What a connection's bytes have been so far.
#[derive(Default)]
pub(super) struct Heads {
    at: At,
    /// Of a head that has not come to its end.
    begun: Vec<u8>,
    /// For which hyper has not come with its request yet.
    waiting: VecDeque<Seen>,
    http2: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum At {
    #[default]
    Head,
    /// So many bytes of a body are to come.
    Body(u64),
    Chunked(Chunked),
    /// No further head is known.
    Lost,
}

/// Where in a chunked body (RFC 9112 §7.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chunked {
    /// In a size, so far this one; none: before its first digit.
    Size(Option<u64>),
    /// Behind the size's digits: white space, then an extension.
    Extension(u64, bool),
    /// The size's line feed.
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the beginning of a trailer's line.
    Line,
    Trailer,
    TrailerLf,
    /// The last line feed.
    Last,
}

/// What a head says of its body.
enum Framing {
    None,
    Length(u64),
    Chunked,
}

impl Heads {
    /// Of a connection that speaks HTTP/1 no more.
    pub(super) fn over() -> Self {
        Self { at: At::Lost, ..Self::default() }
    }

    /// Takes in what came.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while let (Some(first), true) = (bytes.first(), self.at != At::Lost) {
            bytes = match self.at {
                At::Lost => return,
                At::Head => self.head(bytes),
                At::Body(left) => {
                    let (left, rest) = skip(left, bytes);
                    self.at = if left == 0 { At::Head } else { At::Body(left) };
                    rest
                }
                At::Chunked(Chunked::Data(left)) => {
                    let (left, rest) = skip(left, bytes);
                    self.at =
                        At::Chunked(if left == 0 { Chunked::DataCr } else { Chunked::Data(left) });
                    rest
                }
                At::Chunked(at) => {
                    self.at = at.step(*first);
                    bytes.get(1..).unwrap_or_default()
                }
            };
        }
    }

    /// Takes in a piece of a head; gives what lies behind it.
    fn head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        // Empty lines before a request are nothing (RFC 9112 §2.2).
        let blank = bytes
            .iter()
            .take_while(|b| self.begun.is_empty() && matches!(b, b'\r' | b'\n'))
            .count();
        let bytes = bytes.get(blank..).unwrap_or_default();
        let before = self.begun.len();
        let piece = bytes.get(..HEAD_BYTES_MAX.saturating_sub(before)).unwrap_or(bytes);
        // Most heads come whole, often several together: what is not cut is not copied.
        if before > 0 {
            self.begun.extend_from_slice(piece);
        }
        let head = if before > 0 { &self.begun } else { piece };
        if head.starts_with(b"PRI * HTTP/2.0") {
            *self = Self { http2: true, ..Self::over() };
            return &[];
        }
        // The end can lie across two reads: look again from a little before.
        let from = before.saturating_sub(2);
        match end_of_head(head.get(from..).unwrap_or_default()) {
            Some(end) => {
                let end = from + end;
                let (seen, framing) = look(head.get(..end).unwrap_or_default());
                self.begun = Vec::new();
                self.at = match framing {
                    _ if self.waiting.len() >= WAITING_MAX => At::Lost,
                    None => At::Lost,
                    Some(Framing::None | Framing::Length(0)) => At::Head,
                    Some(Framing::Length(bytes)) => At::Body(bytes),
                    Some(Framing::Chunked) => At::Chunked(Chunked::Size(None)),
                };
                self.waiting.push_back(seen);
                bytes.get(end.saturating_sub(before)..).unwrap_or_default()
            }
            None => {
                if before == 0 {
                    self.begun = piece.to_vec();
                }
                if self.begun.len() >= HEAD_BYTES_MAX {
                    (self.at, self.begun) = (At::Lost, Vec::new());
                }
                &[]
            }
        }
    }

    /// The head of the next request, if it was seen.
    pub(super) fn next(&mut self) -> Option<Seen> {
        self.waiting.pop_front()
    }

    /// There is something of a message for which hyper has not come yet.
    pub(super) fn under_way(&self) -> bool {
        self.at != At::Head || !self.begun.is_empty() || !self.waiting.is_empty()
    }

    /// It began as HTTP/2 does; nothing of it is looked at.
    pub(super) fn is_http2(&self) -> bool {
        self.http2
    }
}

impl Chunked {
    fn step(self, byte: u8) -> At {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        At::Chunked(match (self, byte) {
            (Self::Size(size), _) if digit.is_some() => {
                let more = size
                    .unwrap_or(0)
                    .checked_mul(16)
                    .and_then(|size| size.checked_add(digit.unwrap_or(0)));
                let Some(size) = more else { return At::Lost };
                Self::Size(Some(size))
            }
            (Self::Size(Some(size)) | Self::Extension(size, _), b'\r') => Self::SizeEnd(size),
            (Self::Size(Some(size)) | Self::Extension(size, false), b' ' | b'\t') => {
                Self::Extension(size, false)
            }
            (Self::Size(Some(size)) | Self::Extension(size, false), b';') => {
                Self::Extension(size, true)
            }
            (Self::Extension(size, true), byte) if byte != b'\n' => Self::Extension(size, true),
            (Self::SizeEnd(0), b'\n') => Self::Line,
            (Self::SizeEnd(size), b'\n') => Self::Data(size),
            (Self::DataCr, b'\r') => Self::DataLf,
            (Self::DataLf, b'\n') => Self::Size(None),
            (Self::Line, b'\r') => Self::Last,
            (Self::Trailer, b'\r') => Self::TrailerLf,
            (Self::Line | Self::Trailer, _) => Self::Trailer,
            (Self::TrailerLf, b'\n') => Self::Line,
            (Self::Last, b'\n') => return At::Head,
            (
                Self::Size(_)
                | Self::Extension(..)
                | Self::SizeEnd(_)
                | Self::Data(_)
                | Self::DataCr
                | Self::DataLf
                | Self::TrailerLf
                | Self::Last,
                _,
            ) => return At::Lost,
        })
    }
}

/// Leaves out up to `left` bytes: how many are still to come, and what lies behind them.
fn skip(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (
        left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX)),
        bytes.get(here..).unwrap_or_default(),
    )
}

/// Behind the empty line, also where line feeds are bare.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let feeds = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1);
    feeds.into_iter().find_map(|next| match bytes.get(next..) {
        Some([b'\n', ..]) => Some(next + 1),
        Some([b'\r', b'\n', ..]) => Some(next + 2),
        _ => None,
    })
}

/// A whole head, its empty line included; no framing: nothing behind it is known.
fn look(head: &[u8]) -> (Seen, Option<Framing>) {
    let (mut bare, mut lengths, mut codings, mut fields) = (false, 0, 0, 0_usize);
    let mut framing = Some(Framing::None);
    let lines = head.strip_suffix(b"\n").unwrap_or(head).split(|b| *b == b'\n');
    for (number, line) in lines.enumerate() {
        let Some(line) = line.strip_suffix(b"\r") else {
            bare = true;
            continue;
        };
        fields += usize::from(number > 0 && !line.is_empty());
        let Some(colon) = line.iter().position(|b| *b == b':').filter(|_| number > 0) else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths += 1;
            framing = digits(value).map(Framing::Length);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            codings += 1;
            framing = value.eq_ignore_ascii_case(b"chunked").then_some(Framing::Chunked);
        }
    }
    let bad = match (lengths, codings) {
        _ if bare => Some(BadHead::BareLineFeed),
        (1.., 1..) => Some(BadHead::LengthAndChunking),
        (2.., _) => Some(BadHead::TwoLengths),
        (_, 2..) => Some(BadHead::Coding),
        (_, 1) if framing.is_none() => Some(BadHead::Coding),
        _ => None,
    };
    (Seen { bad, fields }, framing.filter(|_| bad.is_none()))
}

/// A length as RFC 9110 §8.6 has it.
fn digits(value: &[u8]) -> Option<u64> {
    let text =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BadHead, Heads, Seen};

    fn seen(reads: &[&[u8]]) -> Vec<Seen> {
        let mut heads = Heads::default();
        reads.iter().for_each(|bytes| heads.read(bytes));
        std::iter::from_fn(|| heads.next()).collect()
    }

    fn bad(text: &str) -> Vec<Option<BadHead>> {
        seen(&[text.as_bytes()]).into_iter().map(|head| head.bad).collect()
    }

    #[test]
    fn r14_heads_that_hyper_repairs_are_seen() {
        let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let cases: &[(&str, &[Option<BadHead>])] = &[
            ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc", &[None]),
            (
                "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
                &[Some(BadHead::LengthAndChunking)],
            ),
            (
                "POST / HTTP/1.1\r\ncontent-length: 3\r\nCONTENT-LENGTH: 3\r\n\r\n",
                &[Some(BadHead::TwoLengths)],
            ),
            ("POST / HTTP/1.1\r\ntransfer-encoding: Chunked\r\n\r\n", &[None]),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
                &[Some(BadHead::Coding)],
            ),
            (
                "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n\r\n",
                &[Some(BadHead::Coding)],
            ),
            ("POST / HTTP/1.1\r\nhost: a\n\r\n", &[Some(BadHead::BareLineFeed)]),
            ("POST / HTTP/1.1\r\nhost: a\r\n\n", &[Some(BadHead::BareLineFeed)]),
            ("POST / HTTP/1.1\nhost: a\n\n", &[Some(BadHead::BareLineFeed)]),
            ("GET / HTT", &[]),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n\r\n", &[None]),
        ];
        for (text, expected) in cases {
            assert_eq!(bad(text), *expected, "{text:?}");
            // Alone, behind another request, and behind one with a body that looks like one.
            let behind: Vec<_> = [None].iter().chain(*expected).copied().collect();
            assert_eq!(bad(&format!("{get}{text}")), behind, "{text:?}");
            let body = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{get}", get.len());
            assert_eq!(bad(&format!("{body}{text}")), behind, "{text:?}");
            let body = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\n\n\r\n\r\n0 \r\nx: y\r\n\r\n";
            assert_eq!(bad(&format!("{body}{text}")), behind, "{text:?}");
        }
    }

    #[test]
    fn behind_what_cannot_be_framed_no_head_is_seen() {
        let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        for (head, body) in [
            ("content-length: 3\r\ncontent-length: 3\r\n", "abc"),
            ("content-length: 3\r\ntransfer-encoding: chunked\r\n", "0\r\n\r\n"),
            ("content-length: +3\r\n", "abc"),
            ("content-length: 3, 3\r\n", "abc"),
            ("content-length:\r\n", ""),
            ("content-length: 99999999999999999999\r\n", ""),
            ("transfer-encoding: gzip\r\n", "0\r\n\r\n"),
            ("transfer-encoding: chunked\r\n", "3\nabc\r\n0\r\n\r\n"),
            ("transfer-encoding: chunked\r\n", "3\r\nabcd\r\n0\r\n\r\n"),
            ("transfer-encoding: chunked\r\n", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
            ("transfer-encoding: chunked\r\n", "11111111111111111\r\nabc\r\n0\r\n\r\n"),
            ("transfer-encoding: chunked\r\n", "\r\n0\r\n\r\n"),
            ("transfer-encoding: chunked\r\n", "0\r\n\rx"),
        ] {
            let text = format!("POST / HTTP/1.1\r\n{head}\r\n{body}{get}");
            assert_eq!(bad(&text).len(), 1, "{text:?}");
        }
        assert_eq!(
            bad(&format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n{get}", "a".repeat(40_000))).len(),
            0
        );
    }

    proptest! {
        /// However requests are cut into reads, each has its head, with what is in it.
        #[test]
        fn every_head_is_seen_however_it_comes(
            requests in prop::collection::vec((0_usize..5, prop::option::of((any::<bool>(), ".{0,40}"))), 1..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut wire = Vec::new();
            let mut expected = Vec::new();
            for (extra, body) in &requests {
                let fields: String = (0..*extra).map(|n| format!("x-{n}: a\r\n")).collect();
                let (framing, body) = match body {
                    None => (String::new(), String::new()),
                    Some((false, text)) => (format!("content-length: {}\r\n", text.len()), text.clone()),
                    Some((true, text)) => {
                        let chunk = match text.len() {
                            0 => String::new(),
                            bytes => format!("{bytes:x}\r\n{text}\r\n"),
                        };
                        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{chunk}0\r\n\r\n"))
                    }
                };
                wire.extend_from_slice(format!("POST / HTTP/1.1\r\n{fields}{framing}\r\n{body}").as_bytes());
                expected.push(Seen { bad: None, fields: extra + usize::from(!framing.is_empty()) });
            }
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            at.extend([0, wire.len()]);
            at.sort_unstable();
            let reads: Vec<&[u8]> = at.windows(2).map(|two| &wire[two[0]..two[1]]).collect();
            prop_assert_eq!(seen(&reads), expected);
        }

        #[test]
        fn any_bytes_are_read(reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let reads: Vec<&[u8]> = reads.iter().map(Vec::as_slice).collect();
            seen(&reads);
        }
    }
}
