//! An answer's body: decoded while it comes in, bounded after decoding (`plivo-xml.md` §1 rule 1).

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use super::EgressError;

/// Bytes on the wire that may go beyond the limit: gzip's frame, and blocks that decode to nothing.
const RAW_SLACK: usize = 64 * 1024;

/// Takes a body in piece by piece; stops at the first byte past its limit.
pub(super) struct Reader {
    decoder: Decoder,
    raw: usize,
    max: usize,
}

enum Decoder {
    Plain(Bounded),
    Gzip(MultiGzDecoder<Bounded>),
    /// `deflate` whose first two bytes have not come yet.
    Undecided(Vec<u8>),
    Zlib(ZlibDecoder<Bounded>),
    /// `deflate` without zlib's frame, as some servers send it.
    Raw(DeflateDecoder<Bounded>),
}

/// What was decoded so far. Refuses to grow past `max`, with [`io::ErrorKind::FileTooLarge`].
struct Bounded {
    bytes: Vec<u8>,
    max: usize,
}

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if piece.len() > self.max.saturating_sub(self.bytes.len()) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Reader {
    /// A reader for an answer with these headers.
    pub(super) fn new(headers: &HeaderMap, max: usize) -> Result<Self, EgressError> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let coding = match (codings.next(), codings.next()) {
            (None, _) => String::new(),
            (Some(one), None) => {
                String::from_utf8_lossy(one.as_bytes()).trim().to_ascii_lowercase()
            }
            (Some(_), Some(_)) => "several".to_owned(),
        };
        // What says itself that it is too much is not begun with: of a sound nothing is heard.
        let told = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let most = if matches!(coding.as_str(), "" | "identity") {
            max
        } else {
            max.saturating_add(RAW_SLACK)
        };
        if told.is_some_and(|told| told > most) {
            return Err(EgressError::TooLarge { max });
        }
        let into = Bounded { bytes: Vec::new(), max };
        let decoder = match coding.as_str() {
            "" | "identity" => Decoder::Plain(into),
            "gzip" | "x-gzip" => Decoder::Gzip(MultiGzDecoder::new(into)),
            "deflate" => Decoder::Undecided(Vec::new()),
            _ => return Err(EgressError::Coding(coding.chars().take(40).collect())),
        };
        Ok(Self { decoder, raw: 0, max })
    }

    /// Whether a piece is, as it comes, a piece of the body.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.decoder, Decoder::Plain(_))
    }

    /// Takes the next piece in.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), EgressError> {
        self.raw = self.raw.saturating_add(piece.len());
        if self.raw > self.max.saturating_add(RAW_SLACK) {
            return Err(EgressError::TooLarge { max: self.max });
        }
        let written = match &mut self.decoder {
            Decoder::Plain(into) => into.write_all(piece),
            Decoder::Gzip(into) => into.write_all(piece),
            Decoder::Zlib(into) => into.write_all(piece),
            Decoder::Raw(into) => into.write_all(piece),
            Decoder::Undecided(begun) => {
                begun.extend_from_slice(piece);
                if begun.len() < 2 {
                    return Ok(());
                }
                let begun = std::mem::take(begun);
                self.decide(&begun)
            }
        };
        written.map_err(|e| fault(&e, self.max))
    }

    /// The whole body.
    pub(super) fn finish(self) -> Result<Bytes, EgressError> {
        if self.raw == 0 {
            return Ok(Bytes::new());
        }
        let decoded = match self.decoder {
            Decoder::Plain(into) => Ok(into),
            Decoder::Gzip(into) => into.finish(),
            Decoder::Zlib(into) => into.finish(),
            Decoder::Raw(into) => into.finish(),
            Decoder::Undecided(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        decoded.map(|d| Bytes::from(d.bytes)).map_err(|e| fault(&e, self.max))
    }

    /// RFC 9110 §8.4.1.2: `deflate` is zlib's format; the first two bytes tell (RFC 1950 §2.2).
    fn decide(&mut self, begun: &[u8]) -> io::Result<()> {
        let into = Bounded { bytes: Vec::new(), max: self.max };
        let zlib = matches!(begun, [cmf, flg, ..]
            if cmf & 0x0f == 8 && u16::from_be_bytes([*cmf, *flg]).is_multiple_of(31));
        if zlib {
            let mut decoder = ZlibDecoder::new(into);
            let written = decoder.write_all(begun);
            self.decoder = Decoder::Zlib(decoder);
            written
        } else {
            let mut decoder = DeflateDecoder::new(into);
            let written = decoder.write_all(begun);
            self.decoder = Decoder::Raw(decoder);
            written
        }
    }
}

fn fault(error: &io::Error, max: usize) -> EgressError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => EgressError::TooLarge { max },
        _ => EgressError::Undecodable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use bytes::Bytes;
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    use http::HeaderMap;
    use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

    use super::Reader;
    use crate::EgressError;

    fn encoded(coding: &str, plain: &[u8]) -> Vec<u8> {
        let level = Compression::best();
        match coding {
            "gzip" => {
                let mut e = GzEncoder::new(Vec::new(), level);
                e.write_all(plain).and_then(|()| e.finish()).unwrap()
            }
            "zlib" => {
                let mut e = ZlibEncoder::new(Vec::new(), level);
                e.write_all(plain).and_then(|()| e.finish()).unwrap()
            }
            "raw" => {
                let mut e = DeflateEncoder::new(Vec::new(), level);
                e.write_all(plain).and_then(|()| e.finish()).unwrap()
            }
            _ => plain.to_vec(),
        }
    }

    fn read(header: &str, pieces: &[&[u8]], max: usize) -> Result<Bytes, EgressError> {
        let mut headers = HeaderMap::new();
        if !header.is_empty() {
            headers.insert(CONTENT_ENCODING, header.parse().unwrap());
        }
        let mut reader = Reader::new(&headers, max)?;
        pieces.iter().try_for_each(|piece| reader.push(piece))?;
        reader.finish()
    }

    #[test]
    fn l24_what_says_that_it_is_too_much_is_not_begun_with() {
        let begun = |coding: &str, length: usize| {
            let headers =
                [(CONTENT_ENCODING, coding.to_owned()), (CONTENT_LENGTH, length.to_string())];
            let headers = headers.into_iter().map(|(name, value)| (name, value.parse().unwrap()));
            Reader::new(&HeaderMap::from_iter(headers), 100).is_ok()
        };
        assert!(begun("identity", 100) && !begun("identity", 101));
        assert!(begun("gzip", 101) && !begun("gzip", 101 + super::RAW_SLACK));
    }

    #[test]
    fn each_coding_whole_and_byte_by_byte_up_to_the_limit_and_one_past_it() {
        let plain = b"<Response><Hangup/></Response>".repeat(20);
        for (header, made) in [
            ("", ""),
            ("identity", ""),
            ("gzip", "gzip"),
            ("X-GZip", "gzip"),
            ("deflate", "zlib"),
            ("deflate", "raw"),
        ] {
            let wire = encoded(made, &plain);
            let single: Vec<&[u8]> = wire.chunks(1).collect();
            for pieces in [vec![wire.as_slice()], single] {
                assert_eq!(read(header, &pieces, plain.len()).unwrap(), plain, "{header} {made}");
                let over = read(header, &pieces, plain.len() - 1);
                assert_eq!(
                    over,
                    Err(EgressError::TooLarge { max: plain.len() - 1 }),
                    "{header} {made}"
                );
            }
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit_and_broken_codings_are_named() {
        let bomb = encoded("gzip", &vec![0; 50 << 20]);
        assert!(bomb.len() < 60_000);
        assert_eq!(read("gzip", &[&bomb], 102_400), Err(EgressError::TooLarge { max: 102_400 }));
        // Stored blocks of no bytes decode to nothing for ever.
        let endless = [[0, 0, 0, 0xff, 0xff]; 40_000].concat();
        assert_eq!(
            read("deflate", &[&endless], 102_400),
            Err(EgressError::TooLarge { max: 102_400 })
        );
        for other in ["br", "zstd", "gzip, gzip", "compress"] {
            assert_eq!(read(other, &[b"x"], 10), Err(EgressError::Coding(other.to_owned())));
        }
        let whole = encoded("gzip", b"hello hello");
        let cut = whole.get(..whole.len() - 6).unwrap();
        assert!(matches!(read("gzip", &[cut], 100), Err(EgressError::Undecodable(_))));
        assert!(matches!(read("gzip", &[b"<Response/>"], 100), Err(EgressError::Undecodable(_))));
        assert!(matches!(read("deflate", &[b"x"], 100), Err(EgressError::Undecodable(_))));
        assert_eq!(read("gzip", &[], 100).unwrap(), Bytes::new());
        assert_eq!(read("deflate", &[], 100).unwrap(), Bytes::new());
    }
}
