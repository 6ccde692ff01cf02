//! A file while it comes: its pieces as one reader, a look ahead in it, and the moment when its sound may begin.

use std::io::{self, Read};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;

use bytes::Bytes;

use super::frames::{FrameMaker, FramesError};

/// Sound begins when so much of a second is there: what comes next is then likely to come in time (`plivo-xml.md` §5.3).
const LEAD: u32 = 5;

/// A file's pieces, read one after the other. Reading blocks until there is one; it is over when nobody sends any more.
pub(super) struct Pieces {
    /// Locked by nobody: whoever reads has it to himself.
    from: Mutex<Receiver<Bytes>>,
    piece: Bytes,
}

impl Pieces {
    pub(super) fn new(from: Receiver<Bytes>) -> Self {
        Self { from: Mutex::new(from), piece: Bytes::new() }
    }

    /// Waits for the first piece; `false`: none will come.
    pub(super) fn has_begun(&mut self) -> bool {
        while self.piece.is_empty() {
            let Ok(from) = self.from.get_mut() else { return false };
            let Ok(piece) = from.recv() else { return false };
            self.piece = piece;
        }
        true
    }
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !self.has_begun() {
            return Ok(0);
        }
        let piece = self.piece.split_to(into.len().min(self.piece.len()));
        piece.as_ref().read(into)
    }
}

/// A reader that can be looked into ahead, as far as is asked for and no further.
pub(super) struct Peeked {
    seen: Vec<u8>,
    /// Of `seen`, so much has been read.
    at: usize,
    rest: Box<dyn Read + Send + Sync>,
}

impl Peeked {
    pub(super) fn new(rest: Box<dyn Read + Send + Sync>) -> Self {
        Self { seen: Vec::new(), at: 0, rest }
    }

    /// The next `most` bytes, or as many as there are.
    pub(super) fn peek(&mut self, most: usize) -> &[u8] {
        let missing = most.saturating_sub(self.seen.len() - self.at);
        let missing = u64::try_from(missing).unwrap_or(u64::MAX);
        // A reader that fails has no more: what there is, is played.
        let _ = self.rest.by_ref().take(missing).read_to_end(&mut self.seen);
        let seen = self.seen.get(self.at..).unwrap_or_default();
        seen.get(..most).unwrap_or(seen)
    }

    pub(super) fn pass_over(&mut self, bytes: usize) {
        let seen = bytes.min(self.seen.len() - self.at);
        self.at += seen;
        let left = u64::try_from(bytes - seen).unwrap_or(u64::MAX);
        let _ = io::copy(&mut self.rest.by_ref().take(left), &mut io::sink());
    }

    /// To behind its ID3v2 tags (<https://id3.org/id3v2.4.0-structure> §3.1), which may hold pictures of any size.
    pub(super) fn pass_over_id3(&mut self) {
        while self.peek(3) == b"ID3"
            && let Some([_, _, _, _, _, flags, a, b, c, d]) = self.peek(10).first_chunk::<10>()
        {
            let size = [a, b, c, d]
                .into_iter()
                .fold(0, |size, &byte| (size << 7) | usize::from(byte & 0x7f));
            let footer = if flags & 0x10 == 0 { 0 } else { 10 };
            self.pass_over(10 + size + footer);
        }
    }
}

impl Read for Peeked {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.seen.get(self.at..) {
            Some(mut seen) if !seen.is_empty() => {
                let read = seen.read(into)?;
                self.at += read;
                Ok(read)
            }
            _ => self.rest.read(into),
        }
    }
}

/// Where a file's sound goes: held back until there is enough of it to begin with.
pub(super) struct Outlet<'m> {
    pub(super) maker: &'m mut FrameMaker,
    held: Vec<i16>,
    rate: u32,
    begun: bool,
}

impl<'m> Outlet<'m> {
    pub(super) fn new(maker: &'m mut FrameMaker) -> Self {
        Self { maker, held: Vec::new(), rate: 0, begun: false }
    }

    pub(super) fn push(&mut self, rate: u32, pcm: &[i16]) -> Result<(), FramesError> {
        if self.begun {
            return self.maker.push(rate, pcm);
        }
        if rate != self.rate {
            self.release()?;
            self.rate = rate;
        }
        self.held.extend_from_slice(pcm);
        let enough = usize::try_from(rate / LEAD).unwrap_or(usize::MAX);
        match self.held.len() >= enough {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// There is no more, or enough.
    pub(super) fn flush(&mut self) -> Result<(), FramesError> {
        self.begun = true;
        self.release()
    }

    fn release(&mut self) -> Result<(), FramesError> {
        match self.held.is_empty() {
            true => Ok(()),
            false => self.maker.push(self.rate, &std::mem::take(&mut self.held)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_look_ahead_takes_nothing_and_waits_for_no_more_than_it_wants() {
        let (to, pieces) = sync_channel(8);
        for piece in ["ID3\u{4}\0\0\0\0\0\u{3}", "", "tagso", "und"] {
            to.send(Bytes::from_static(piece.as_bytes())).unwrap();
        }
        let mut file = Peeked::new(Box::new(Pieces::new(pieces)));
        // Not over yet: a reader that wanted more would wait for ever.
        assert_eq!(file.peek(3), b"ID3");
        file.pass_over_id3();
        assert_eq!(file.peek(4), b"soun");
        drop(to);
        assert_eq!(file.peek(400), b"sound");
        file.pass_over(1);
        let mut rest = String::new();
        file.read_to_string(&mut rest).unwrap();
        assert_eq!((rest.as_str(), file.peek(1)), ("ound", &[][..]));
    }

    #[test]
    fn a_tag_that_claims_more_than_there_is_leaves_nothing() {
        let mut file = Peeked::new(Box::new(&b"ID3\x04\0\0\x7f\x7f\x7f\x7fsound"[..]));
        file.pass_over_id3();
        assert!(file.peek(1).is_empty());
    }
}
