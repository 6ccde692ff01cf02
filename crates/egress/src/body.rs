//! Reads a response body: decodes it as it arrives and limits its decoded size.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};

use super::EgressError;

/// Bytes on the wire that may exceed the limit of the decoded body. Covers gzip headers and deflate
/// blocks that decode to nothing.
const RAW_SLACK: usize = 64 * 1024;

/// Decodes a body chunk by chunk and fails as soon as the decoded size exceeds the limit.
pub(super) struct Reader {
    decoder: Decoder,
    raw: usize,
    max: usize,
    /// The size of an uncompressed body, if the server has declared it.
    declared: Option<usize>,
}

enum Decoder {
    Plain(BoundedBuffer),
    Gzip(MultiGzDecoder<BoundedBuffer>),
    /// `deflate` data of which the first two bytes have not arrived.
    Undetected(Vec<u8>),
    Zlib(ZlibDecoder<BoundedBuffer>),
    /// `deflate` without the zlib header, which some servers send.
    Raw(DeflateDecoder<BoundedBuffer>),
}

/// The decoded bytes. Writing more than `max` bytes fails with [`io::ErrorKind::FileTooLarge`].
struct BoundedBuffer {
    bytes: Vec<u8>,
    max: usize,
}

impl Write for BoundedBuffer {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        if chunk.len() > self.max.saturating_sub(self.bytes.len()) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(chunk);
        Ok(chunk.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Reader {
    /// Creates a reader for a response with these headers.
    ///
    /// # Errors
    ///
    /// Fails if `Content-Encoding` is not supported, or if `Content-Length` exceeds the limit.
    pub(super) fn new(headers: &HeaderMap, max: usize) -> Result<Self, EgressError> {
        let mut codings = headers.get_all(CONTENT_ENCODING).iter();
        let coding = match (codings.next(), codings.next()) {
            (None, _) => String::new(),
            (Some(one), None) => {
                String::from_utf8_lossy(one.as_bytes()).trim().to_ascii_lowercase()
            }
            (Some(_), Some(_)) => "several".to_owned(),
        };
        // An oversized body is refused before any of it is read. Otherwise the caller would hear
        // the beginning of a file that then fails.
        let declared = headers
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let is_plain = matches!(coding.as_str(), "" | "identity");
        let limit = if is_plain { max } else { max.saturating_add(RAW_SLACK) };
        if declared.is_some_and(|declared| declared > limit) {
            return Err(EgressError::TooLarge { max });
        }
        let into = BoundedBuffer { bytes: Vec::new(), max };
        let decoder = match coding.as_str() {
            "" | "identity" => Decoder::Plain(into),
            "gzip" | "x-gzip" => Decoder::Gzip(MultiGzDecoder::new(into)),
            "deflate" => Decoder::Undetected(Vec::new()),
            _ => return Err(EgressError::Coding(coding.chars().take(40).collect())),
        };
        Ok(Self { decoder, raw: 0, max, declared: declared.filter(|_| is_plain) })
    }

    /// Returns the largest size that the decoded body may have.
    pub(super) fn bytes_max(&self) -> usize {
        self.declared.unwrap_or(self.max)
    }

    /// Returns `true` if the body is not compressed, so that chunks can be passed on as they
    /// arrive.
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.decoder, Decoder::Plain(_))
    }

    /// Decodes the next chunk.
    ///
    /// # Errors
    ///
    /// Fails if the body is too large or cannot be decoded.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), EgressError> {
        self.raw = self.raw.saturating_add(chunk.len());
        if self.raw > self.max.saturating_add(RAW_SLACK) {
            return Err(EgressError::TooLarge { max: self.max });
        }
        let written = match &mut self.decoder {
            Decoder::Plain(into) => into.write_all(chunk),
            Decoder::Gzip(into) => into.write_all(chunk),
            Decoder::Zlib(into) => into.write_all(chunk),
            Decoder::Raw(into) => into.write_all(chunk),
            Decoder::Undetected(start) => {
                start.extend_from_slice(chunk);
                if start.len() < 2 {
                    return Ok(());
                }
                let start = std::mem::take(start);
                self.detect_deflate(&start)
            }
        };
        written.map_err(|e| write_error(&e, self.max))
    }

    /// Returns the whole decoded body.
    ///
    /// # Errors
    ///
    /// Fails if the compressed data ended early.
    pub(super) fn finish(self) -> Result<Bytes, EgressError> {
        if self.raw == 0 {
            return Ok(Bytes::new());
        }
        let decoded = match self.decoder {
            Decoder::Plain(into) => Ok(into),
            Decoder::Gzip(into) => into.finish(),
            Decoder::Zlib(into) => into.finish(),
            Decoder::Raw(into) => into.finish(),
            Decoder::Undetected(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        decoded.map(|d| Bytes::from(d.bytes)).map_err(|e| write_error(&e, self.max))
    }

    /// Chooses between zlib and raw deflate by the first two bytes (RFC 1950 §2.2). RFC 9110
    /// §8.4.1.2 requires zlib, but some servers send raw deflate.
    fn detect_deflate(&mut self, start: &[u8]) -> io::Result<()> {
        let into = BoundedBuffer { bytes: Vec::new(), max: self.max };
        let zlib = matches!(start, [cmf, flg, ..]
            if cmf & 0x0f == 8 && u16::from_be_bytes([*cmf, *flg]).is_multiple_of(31));
        if zlib {
            let mut decoder = ZlibDecoder::new(into);
            let written = decoder.write_all(start);
            self.decoder = Decoder::Zlib(decoder);
            written
        } else {
            let mut decoder = DeflateDecoder::new(into);
            let written = decoder.write_all(start);
            self.decoder = Decoder::Raw(decoder);
            written
        }
    }
}

fn write_error(error: &io::Error, max: usize) -> EgressError {
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

    fn read(header: &str, chunks: &[&[u8]], max: usize) -> Result<Bytes, EgressError> {
        let mut headers = HeaderMap::new();
        if !header.is_empty() {
            headers.insert(CONTENT_ENCODING, header.parse().unwrap());
        }
        let mut reader = Reader::new(&headers, max)?;
        chunks.iter().try_for_each(|chunk| reader.push(chunk))?;
        reader.finish()
    }

    #[test]
    fn l24_a_content_length_above_the_limit_is_rejected_before_reading() {
        let accepts = |coding: &str, length: usize| {
            let headers =
                [(CONTENT_ENCODING, coding.to_owned()), (CONTENT_LENGTH, length.to_string())];
            let headers = headers.into_iter().map(|(name, value)| (name, value.parse().unwrap()));
            Reader::new(&HeaderMap::from_iter(headers), 100).is_ok()
        };
        assert!(accepts("identity", 100) && !accepts("identity", 101));
        assert!(accepts("gzip", 101) && !accepts("gzip", 101 + super::RAW_SLACK));
    }

    #[test]
    fn every_coding_decodes_up_to_the_limit_whole_or_byte_by_byte() {
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
            for chunks in [vec![wire.as_slice()], single] {
                assert_eq!(read(header, &chunks, plain.len()).unwrap(), plain, "{header} {made}");
                let over = read(header, &chunks, plain.len() - 1);
                assert_eq!(
                    over,
                    Err(EgressError::TooLarge { max: plain.len() - 1 }),
                    "{header} {made}"
                );
            }
        }
    }

    #[test]
    fn a_decompression_bomb_stops_at_the_limit_and_unknown_codings_are_named() {
        let bomb = encoded("gzip", &vec![0; 50 << 20]);
        assert!(bomb.len() < 60_000);
        assert_eq!(read("gzip", &[&bomb], 102_400), Err(EgressError::TooLarge { max: 102_400 }));
        // Empty stored blocks decode to nothing, without end.
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
