//! Decodes a body to text: UTF-8, UTF-16 with a byte order mark, or US-ASCII
//! (docs/reference/xml.md#encoding).
//!
//! A byte order mark takes precedence over the XML declaration, and the declaration over the
//! `charset` parameter. The default is UTF-8.

use std::borrow::Cow;

use super::ast::Position;
use super::position::{Locator, START};
use super::tree::DECLARATION;

/// The reason why a body could not be decoded (E102).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DecodeError {
    pub(super) at: Position,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

const SAVE_AS_UTF8: &str =
    "send the document as UTF-8 (US-ASCII, and UTF-16 with a byte order mark, also work)";
const FIX_DECLARATION: &str =
    "declare the encoding of the byte order mark, or remove the declaration";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    Utf8,
    Ascii,
}

/// Decodes a body. The text does not include the byte order mark.
pub(super) fn decode<'b>(
    body: &'b [u8],
    charset: Option<&str>,
) -> Result<Cow<'b, str>, DecodeError> {
    if let Some(rest) = body.strip_prefix(b"\xEF\xBB\xBF") {
        let text = utf8(rest)?;
        return check_declaration(text, &["utf-8", "utf8"], "UTF-8").map(Cow::Borrowed);
    }
    for (mark, big_endian, names) in
        [(b"\xFF\xFE", false, ["utf-16", "utf-16le"]), (b"\xFE\xFF", true, ["utf-16", "utf-16be"])]
    {
        if let Some(rest) = body.strip_prefix(mark) {
            let text = utf16(rest, big_endian)?;
            check_declaration(&text, &names, if big_endian { "UTF-16BE" } else { "UTF-16LE" })?;
            return Ok(Cow::Owned(text));
        }
    }
    if body.starts_with(DECLARATION.as_bytes()) {
        return utf8(body).map(Cow::Borrowed);
    }
    let encoding = match declared_encoding(body) {
        Some(name) => encoding_by_name(&String::from_utf8_lossy(name)).map_err(|message| {
            let before =
                String::from_utf8_lossy(body.get(..offset_in(body, name)).unwrap_or_default());
            DecodeError {
                at: clamp_to_first_line(Locator::new(&before, false).locate(before.len())),
                message,
                hint: SAVE_AS_UTF8,
            }
        })?,
        None => match charset
            .map(|name| name.trim_matches([' ', '\t', '"', '\'']))
            .filter(|name| !name.is_empty())
        {
            Some(name) => encoding_by_name(name).map_err(|message| DecodeError {
                at: START,
                message,
                hint: SAVE_AS_UTF8,
            })?,
            None => Encoding::Utf8,
        },
    };
    match encoding {
        Encoding::Ascii => ascii(body),
        Encoding::Utf8 => utf8(body),
    }
    .map(Cow::Borrowed)
}

fn encoding_by_name(name: &str) -> Result<Encoding, String> {
    let is = |names: &[&str]| names.iter().any(|n| name.eq_ignore_ascii_case(n));
    if is(&["utf-8", "utf8"]) {
        Ok(Encoding::Utf8)
    } else if is(&["us-ascii", "ascii"]) {
        Ok(Encoding::Ascii)
    } else if is(&["utf-16", "utf-16le", "utf-16be"]) {
        Err(format!("{name} is declared, but the document does not begin with a byte order mark"))
    } else {
        Err(format!("the encoding {} is not supported", super::quoted(name)))
    }
}

/// Fails if the XML declaration names another encoding than the byte order mark.
fn check_declaration<'t>(
    text: &'t str,
    names: &[&str],
    mark: &str,
) -> Result<&'t str, DecodeError> {
    match declared_encoding(text.as_bytes()).and_then(|name| std::str::from_utf8(name).ok()) {
        Some(name) if !names.iter().any(|n| name.eq_ignore_ascii_case(n)) => Err(DecodeError {
            at: clamp_to_first_line(
                Locator::new(text, false).locate(offset_in(text.as_bytes(), name.as_bytes())),
            ),
            message: format!(
                "the byte order mark is {mark}, but the XML declaration names {}",
                super::quoted(name)
            ),
            hint: FIX_DECLARATION,
        }),
        _ => Ok(text),
    }
}

/// Moves a position to line 1, in which findings about the declared encoding are reported, even if
/// the declaration spans several lines.
fn clamp_to_first_line(at: Position) -> Position {
    if at.line == 1 { at } else { START }
}

/// Returns the offset of `part`, which must be a subslice of `whole`.
fn offset_in(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr().saturating_sub(whole.as_ptr().addr()).min(whole.len())
}

/// Returns the value of `encoding` in the XML declaration, if the body is in an ASCII-compatible
/// encoding. `None` if the declaration is not well-formed; `tree` reports that later.
fn declared_encoding(body: &[u8]) -> Option<&[u8]> {
    let rest = body.strip_prefix(b"<?xml")?;
    rest.first().filter(|b| b.is_ascii_whitespace())?;
    let end = rest.windows(2).position(|w| w == b"?>")?;
    let mut rest = rest.get(..end)?;
    loop {
        let name_at = rest.iter().position(|b| !b.is_ascii_whitespace())?;
        rest = rest.get(name_at..)?;
        let equals = rest.iter().position(|&b| b == b'=')?;
        let name = rest.get(..equals)?.trim_ascii();
        rest = rest.get(equals + 1..)?.trim_ascii_start();
        let (&quote, after) = rest.split_first().filter(|(q, _)| matches!(q, b'"' | b'\''))?;
        let close = after.iter().position(|&b| b == quote)?;
        let value = after.get(..close)?;
        if name == b"encoding" {
            return Some(value);
        }
        rest = after.get(close + 1..)?;
    }
}

fn utf8(body: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(body).map_err(|e| bad_byte(body, e.valid_up_to(), "UTF-8"))
}

fn ascii(body: &[u8]) -> Result<&str, DecodeError> {
    match body.iter().position(|b| !b.is_ascii()) {
        Some(at) => Err(bad_byte(body, at, "US-ASCII")),
        None => utf8(body),
    }
}

fn bad_byte(body: &[u8], at: usize, encoding: &str) -> DecodeError {
    let (before, rest) = body.split_at_checked(at).unwrap_or((body, &[]));
    let text = String::from_utf8_lossy(before);
    DecodeError {
        at: Locator::new(&text, false).locate(text.len()),
        message: format!(
            "the byte 0x{:02X} is not valid {encoding} here",
            rest.first().copied().unwrap_or(0)
        ),
        hint: SAVE_AS_UTF8,
    }
}

fn utf16(body: &[u8], big_endian: bool) -> Result<String, DecodeError> {
    let units = body.chunks(2).map(|pair| match *pair {
        [a, b] => {
            let pair = [a, b];
            if big_endian { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
        }
        // An odd byte at the end: the lone surrogate is refused below.
        _ => 0xD800,
    });
    let mut text = String::with_capacity(body.len() / 2 + body.len() / 4);
    for decoded in char::decode_utf16(units) {
        match decoded {
            Ok(c) => text.push(c),
            Err(e) => {
                return Err(DecodeError {
                    at: Locator::new(&text, false).locate(text.len()),
                    message: if body.len() % 2 == 1 && e.unpaired_surrogate() == 0xD800 {
                        "the UTF-16 text ends in the middle of a character, or has an unpaired surrogate"
                            .to_owned()
                    } else {
                        format!("0x{:04X} is an unpaired UTF-16 surrogate", e.unpaired_surrogate())
                    },
                    hint: SAVE_AS_UTF8,
                });
            }
        }
    }
    Ok(text)
}
