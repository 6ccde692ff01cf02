//! The heads of HTTP/1 requests as received, including pipelined ones.
//!
//! hyper repairs heads that must be refused (`docs/reference/reliability.md#r14`), and does not
//! report this. So the bytes of a connection are also parsed here, far enough to find where one
//! message ends and the next begins. The result is only used to refuse requests. Once the framing
//! is lost, no further head is found, and [`connection`](super::connection) refuses a request
//! without a head. The framing of valid messages is exactly hyper's.

use std::collections::VecDeque;

/// Maximum length of a head, in bytes (`docs/reference/reliability.md#r14`).
pub(super) const HEAD_BYTES_MAX: usize = 32 << 10;
/// Maximum number of heads that hyper has not parsed yet. This is more than hyper reads ahead.
const HEADS_MAX: usize = 4_096;

/// Why a head is refused with 400 although hyper accepts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHead {
    #[error("it has both Content-Length and Transfer-Encoding")]
    LengthAndChunking,
    #[error("it has more than one Content-Length")]
    TwoLengths,
    #[error("it has a line feed without a carriage return")]
    BareLineFeed,
    /// A transfer coding other than `chunked`, or more than one.
    #[error("it has a transfer coding other than chunked")]
    Coding,
    /// The head was not found, or hyper parsed it differently.
    #[error("it is malformed")]
    Unseen,
}

/// A complete head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) bad: Option<BadHead>,
    /// The number of lines after the request line.
    pub(super) fields: usize,
}

/// Finds the heads in the bytes of a connection.
#[derive(Default)]
pub(super) struct Heads {
    state: State,
    /// The bytes of an incomplete head.
    partial: Vec<u8>,
    /// Heads whose requests hyper has not parsed yet.
    complete: VecDeque<Head>,
    http2: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// Inside a body. Contains the number of remaining bytes.
    Body(u64),
    Chunked(Chunked),
    /// The framing is lost: no further head is found.
    Lost,
}

/// A position in a chunked body (RFC 9112 §7.1).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Chunked {
    /// In a chunk size. Contains its value so far, or `None` before the first digit.
    Size(Option<u64>),
    /// After the digits of a size: white space, then an extension (`true`).
    Extension(u64, bool),
    /// Before the line feed of a size.
    SizeEnd(u64),
    Data(u64),
    DataCr,
    DataLf,
    /// At the start of a line of the trailer.
    Line,
    Trailer,
    TrailerLf,
    /// Before the last line feed.
    Last,
}

/// The framing of a body, as declared by the head.
enum Framing {
    None,
    Length(u64),
    Chunked,
}

impl Heads {
    /// Creates the state for a connection that no longer speaks HTTP/1.
    pub(super) fn stopped() -> Self {
        Self { state: State::Lost, ..Self::default() }
    }

    /// Parses bytes that were received.
    pub(super) fn read(&mut self, mut bytes: &[u8]) {
        while let (Some(first), true) = (bytes.first(), self.state != State::Lost) {
            bytes = match self.state {
                State::Lost => return,
                State::Head => self.head(bytes),
                State::Body(left) => {
                    let (left, rest) = skip(left, bytes);
                    self.state = if left == 0 { State::Head } else { State::Body(left) };
                    rest
                }
                State::Chunked(Chunked::Data(left)) => {
                    let (left, rest) = skip(left, bytes);
                    self.state = State::Chunked(if left == 0 {
                        Chunked::DataCr
                    } else {
                        Chunked::Data(left)
                    });
                    rest
                }
                State::Chunked(position) => {
                    self.state = position.step(*first);
                    bytes.get(1..).unwrap_or_default()
                }
            };
        }
    }

    /// Parses a part of a head; returns the bytes after it.
    fn head<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        // Empty lines before a request are ignored (RFC 9112 §2.2).
        let blank = bytes
            .iter()
            .take_while(|b| self.partial.is_empty() && matches!(b, b'\r' | b'\n'))
            .count();
        let bytes = bytes.get(blank..).unwrap_or_default();
        let before = self.partial.len();
        let piece = bytes.get(..HEAD_BYTES_MAX.saturating_sub(before)).unwrap_or(bytes);
        // Most heads arrive complete, and are not copied.
        if before > 0 {
            self.partial.extend_from_slice(piece);
        }
        let head = if before > 0 { &self.partial } else { piece };
        if head.starts_with(b"PRI * HTTP/2.0") {
            *self = Self { http2: true, ..Self::stopped() };
            return &[];
        }
        // The end may be split between two reads: search from before the seam.
        let from = before.saturating_sub(2);
        match end_of_head(head.get(from..).unwrap_or_default()) {
            Some(end) => {
                let end = from + end;
                let (parsed, framing) = parse(head.get(..end).unwrap_or_default());
                self.partial = Vec::new();
                self.state = match framing {
                    _ if self.complete.len() >= HEADS_MAX => State::Lost,
                    None => State::Lost,
                    Some(Framing::None | Framing::Length(0)) => State::Head,
                    Some(Framing::Length(bytes)) => State::Body(bytes),
                    Some(Framing::Chunked) => State::Chunked(Chunked::Size(None)),
                };
                self.complete.push_back(parsed);
                bytes.get(end.saturating_sub(before)..).unwrap_or_default()
            }
            None => {
                if before == 0 {
                    self.partial = piece.to_vec();
                }
                if self.partial.len() >= HEAD_BYTES_MAX {
                    (self.state, self.partial) = (State::Lost, Vec::new());
                }
                &[]
            }
        }
    }

    /// The head of the next request, if it was found.
    pub(super) fn next(&mut self) -> Option<Head> {
        self.complete.pop_front()
    }

    /// Whether there are bytes of a message that hyper has not parsed yet.
    pub(super) fn is_in_progress(&self) -> bool {
        self.state != State::Head || !self.partial.is_empty() || !self.complete.is_empty()
    }

    /// Whether the connection began with the HTTP/2 preface. If so, no heads are parsed.
    pub(super) fn is_http2(&self) -> bool {
        self.http2
    }
}

impl Chunked {
    fn step(self, byte: u8) -> State {
        let digit = char::from(byte).to_digit(16).map(u64::from);
        State::Chunked(match (self, byte) {
            (Self::Size(size), _) if digit.is_some() => {
                let more = size
                    .unwrap_or(0)
                    .checked_mul(16)
                    .and_then(|size| size.checked_add(digit.unwrap_or(0)));
                let Some(size) = more else { return State::Lost };
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
            (Self::Last, b'\n') => return State::Head,
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
            ) => return State::Lost,
        })
    }
}

/// Skips up to `left` bytes; returns how many are left to skip, and the bytes after those skipped.
fn skip(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    (
        left.saturating_sub(u64::try_from(here).unwrap_or(u64::MAX)),
        bytes.get(here..).unwrap_or_default(),
    )
}

/// Returns the position after the empty line that ends a head. Lines may end with bare line feeds.
fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let feeds = bytes.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1);
    feeds.into_iter().find_map(|next| match bytes.get(next..) {
        Some([b'\n', ..]) => Some(next + 1),
        Some([b'\r', b'\n', ..]) => Some(next + 2),
        _ => None,
    })
}

/// Parses a complete head with its empty line. The framing is `None` if it can't be determined.
fn parse(head: &[u8]) -> (Head, Option<Framing>) {
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
    (Head { bad, fields }, framing.filter(|_| bad.is_none()))
}

/// Parses a `Content-Length` (RFC 9110 §8.6).
fn digits(value: &[u8]) -> Option<u64> {
    let text =
        std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BadHead, Head, Heads};

    fn parse_all(reads: &[&[u8]]) -> Vec<Head> {
        let mut heads = Heads::default();
        reads.iter().for_each(|bytes| heads.read(bytes));
        std::iter::from_fn(|| heads.next()).collect()
    }

    fn bad(text: &str) -> Vec<Option<BadHead>> {
        parse_all(&[text.as_bytes()]).into_iter().map(|head| head.bad).collect()
    }

    #[test]
    fn r14_finds_heads_that_hyper_repairs() {
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
            // Alone, after another request, and after one with a body that looks like a request.
            let behind: Vec<_> = [None].iter().chain(*expected).copied().collect();
            assert_eq!(bad(&format!("{get}{text}")), behind, "{text:?}");
            let body = format!("POST / HTTP/1.1\r\ncontent-length: {}\r\n\r\n{get}", get.len());
            assert_eq!(bad(&format!("{body}{text}")), behind, "{text:?}");
            let body = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;a=b\r\n\n\r\n\r\n0 \r\nx: y\r\n\r\n";
            assert_eq!(bad(&format!("{body}{text}")), behind, "{text:?}");
        }
    }

    #[test]
    fn finds_no_head_after_the_framing_is_lost() {
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
        /// Every head is found, however the requests are split into reads.
        #[test]
        fn finds_every_head_however_it_is_split(
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
                expected.push(Head { bad: None, fields: extra + usize::from(!framing.is_empty()) });
            }
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            at.extend([0, wire.len()]);
            at.sort_unstable();
            let reads: Vec<&[u8]> = at.windows(2).map(|two| &wire[two[0]..two[1]]).collect();
            prop_assert_eq!(parse_all(&reads), expected);
        }

        #[test]
        fn accepts_any_bytes(reads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..16)) {
            let reads: Vec<&[u8]> = reads.iter().map(Vec::as_slice).collect();
            parse_all(&reads);
        }
    }
}
