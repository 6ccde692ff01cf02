//! The productions of XML 1.0 that a document without a DTD needs: characters, names, references
//! and attributes.
//!
//! quick-xml finds the end of each event. The content of an event is checked here.

use std::borrow::Cow;

use super::names::Attr;

/// A violation of the grammar in a piece of markup.
#[derive(Debug)]
pub(super) struct Fault {
    /// Byte offset from the beginning of the piece.
    pub(super) offset: usize,
    /// Whether the piece ended too early, so that a longer one might be valid.
    pub(super) truncated: bool,
    pub(super) message: String,
    pub(super) hint: &'static str,
}

const WRITE_AMP: &str = "write &amp; for a plain &";
const FIVE_ENTITIES: &str = "write the character itself: only &lt; &gt; &amp; &apos; &quot; and numbers such as &#233; are defined";
const WRITE_LT: &str = "write &lt; for a plain < (or is the closing quote before it missing?)";

/// Whether the character matches the production `Char`.
pub(super) fn is_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// Whether the character is XML white space (production `S`).
pub(super) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// Removes XML white space from both ends. `trim_ascii` would also remove form feeds, but these are
/// not allowed in XML.
pub(super) fn trim(text: &str) -> &str {
    text.trim_ascii()
}

/// Whether the text is ASCII, without control characters other than tab and line feed, and without
/// `]`. Most documents are, and need none of the checks for other characters. One pass without
/// branches establishes this.
pub(super) fn is_plain(text: &str) -> bool {
    // As signed numbers, bytes outside ASCII are less than a space, too.
    let other = |b: u8| (b.cast_signed() < 0x20) & (b != b'\t') & (b != b'\n') | (b == b']');
    !super::any_byte(text, other)
}

/// Returns the first character that is not allowed anywhere in XML, with its byte offset. `None` if
/// all are allowed.
pub(super) fn first_illegal(text: &str) -> Option<(usize, char)> {
    // Only control characters, U+FFFE and U+FFFF (EF BF BE, EF BF BF) are not allowed. Most texts
    // contain none of these bytes, which one pass without branches establishes.
    let suspect = |b: u8| (b < b' ') & (b != b'\t') & (b != b'\n') & (b != b'\r') | (b == 0xEF);
    if !super::any_byte(text, suspect) {
        return None;
    }
    text.char_indices().find(|&(_, c)| !is_char(c))
}

fn is_name_start(c: char) -> bool {
    matches!(c,
        ':' | 'A'..='Z' | '_' | 'a'..='z' | '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}'
        | '\u{370}'..='\u{37D}' | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}' | '\u{FDF0}'..='\u{FFFD}'
        | '\u{10000}'..='\u{EFFFF}')
}

fn is_name_char(c: char) -> bool {
    is_name_start(c)
        || matches!(c, '-' | '.' | '0'..='9' | '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// Class of the bytes that may occur in an ASCII name.
const NAME: u8 = 1;
/// Class of the bytes with which an ASCII name may start.
const NAME_START: u8 = 2;
/// Class of the bytes that make it necessary to normalise an attribute value: `&`, `<`, and white
/// space other than the space.
const SPECIAL: u8 = 4;

/// The classes of each byte. One look-up is faster than comparing each byte with several ranges.
static CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    classify(
        &mut classes,
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_:",
        NAME | NAME_START,
    );
    classify(&mut classes, b"0123456789-.", NAME);
    classify(&mut classes, b"&<\t\n\r", SPECIAL);
    classes
};

#[allow(
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "neither From nor get_mut is const; a byte always fits"
)]
const fn classify(classes: &mut [u8; 256], mut bytes: &[u8], class: u8) {
    while let [byte, rest @ ..] = bytes {
        classes[*byte as usize] = class;
        bytes = rest;
    }
}

fn class(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or(0)
}

/// Splits an ASCII `Name` off the front. `None` if the text does not start with one, or if the name
/// continues with a character outside ASCII.
pub(super) fn split_ascii_name(text: &str) -> Option<(&str, &str)> {
    let bytes = text.as_bytes();
    let end = bytes.iter().position(|b| class(*b) & NAME == 0).unwrap_or(bytes.len());
    let starts = class(*bytes.first()?) & NAME_START != 0;
    if starts && bytes.get(end).is_none_or(u8::is_ascii) {
        text.split_at_checked(end)
    } else {
        None
    }
}

/// Splits a known attribute name off the front. `None` if there is none that `=` directly follows.
// Calls of this function and of `value_end` cost a document 4 % of its time.
#[inline]
pub(super) fn split_known_name(text: &str) -> Option<(&str, Attr, &str)> {
    // No known name is longer.
    const LONGEST: usize = 40;
    let bytes = text.as_bytes();
    let end = find(bytes.get(..LONGEST).unwrap_or(bytes), [b'='])?;
    let (name, rest) = text.split_at_checked(end)?;
    Some((name, Attr::from_name(name)?, rest))
}

/// Finds the closing quote of an attribute value. Returns its offset, and whether the value
/// contains no [`SPECIAL`] byte and so needs no normalisation. Returns `None` if there is no
/// closing quote.
#[inline]
pub(super) fn value_end(text: &[u8], quote: u8) -> Option<(usize, bool)> {
    let first = find(text, [quote, b'&', b'<'])?;
    let (_, rest) = text.split_at_checked(first)?;
    match rest.first() {
        Some(byte) if *byte == quote => Some((first, true)),
        _ => memchr::memchr(quote, rest).map(|more| (first + more, false)),
    }
}

/// Finds the first byte that is one of `bytes` or a control character. Names and values are short,
/// so that this is faster than a vectorized search: eight bytes at a time, by the formulas for a
/// word with a byte that is zero or less than n (Warren, Hacker's Delight, 6-1). `None` if there is
/// no such byte.
fn find<const N: usize>(text: &[u8], bytes: [u8; N]) -> Option<usize> {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = EACH << 7;
    let (words, rest) = text.as_chunks();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let mut found = word.wrapping_sub(EACH * 0x20) & !word;
        for byte in bytes {
            let zero = word ^ (EACH * u64::from(byte));
            found |= zero.wrapping_sub(EACH) & !zero;
        }
        found &= HIGH;
        if found != 0 {
            return Some(index * 8 + usize::try_from(found.trailing_zeros() / 8).unwrap_or(0));
        }
    }
    let at = rest.iter().position(|b| *b < b' ' || bytes.contains(b))?;
    Some(text.len() - rest.len() + at)
}

/// Finds the end of a comment, given the bytes after `<!--`. `None` if the comment is not closed,
/// not well-formed or in an unusual form.
pub(super) fn comment_end(inner: &[u8]) -> Option<usize> {
    if matches!(inner, [b'-' | b'>', ..]) {
        return None;
    }
    let mut dashes = memchr::memchr_iter(b'-', inner);
    let first = dashes.find(|at| inner.get(at + 1) == Some(&b'-'))?;
    (inner.get(first + 2) == Some(&b'>')).then_some(first + 3)
}

/// Splits a `Name` off the front. The name is empty if the text does not start with one.
pub(super) fn split_name(text: &str) -> (&str, &str) {
    let end = if text.starts_with(is_name_start) {
        text.find(|c| !is_name_char(c)).unwrap_or(text.len())
    } else {
        0
    };
    text.split_at_checked(end).unwrap_or(("", text))
}

/// Returns the character of a reference, given the text between `&` and `;`. `None` if the
/// reference is invalid.
pub(super) fn reference(name: &str) -> Option<char> {
    match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "apos" => Some('\''),
        "quot" => Some('"'),
        _ => {
            let number = name.strip_prefix('#')?;
            let (digits, radix) = number.strip_prefix('x').map_or((number, 10), |hex| (hex, 16));
            // `from_str_radix` accepts a sign.
            if !digits.starts_with(|c: char| c.is_ascii_hexdigit()) {
                return None;
            }
            u32::from_str_radix(digits, radix).ok().and_then(char::from_u32).filter(|&c| is_char(c))
        }
    }
}

/// Creates the fault for an invalid reference.
pub(super) fn bad_reference(offset: usize, name: &str) -> Fault {
    let (message, hint) = match split_name(name) {
        (whole, "") if !whole.is_empty() => {
            (format!("the entity &{}; is not defined", super::shortened(name)), FIVE_ENTITIES)
        }
        _ if name.starts_with('#') => (
            format!("&{}; is not a character", super::shortened(name)),
            "write the character itself",
        ),
        _ => return bare_ampersand(offset),
    };
    Fault { offset, truncated: false, message, hint }
}

/// Creates the fault for a `&` that does not start a reference.
pub(super) fn bare_ampersand(offset: usize) -> Fault {
    Fault {
        offset,
        truncated: false,
        message: "& does not start a reference".to_owned(),
        hint: WRITE_AMP,
    }
}

/// Normalises line ends (XML 1.0 §2.11): CRLF and a lone CR become LF.
pub(super) fn normalise_line_ends(text: &str) -> Cow<'_, str> {
    if super::any_byte(text, |b| b == b'\r') {
        text.replace("\r\n", "\n").replace('\r', "\n").into()
    } else {
        text.into()
    }
}

/// An attribute of a tag, with its value normalised (XML 1.0 §3.3.3).
#[derive(Debug)]
pub(super) struct RawAttribute<'t> {
    /// Offset of the name in the text given to [`attributes`].
    pub(super) offset: usize,
    pub(super) name: &'t str,
    pub(super) value: Cow<'t, str>,
}

/// Iterates over the attributes in the rest of a tag after its name. Ends after the first fault.
pub(super) fn attributes(text: &str) -> impl Iterator<Item = Result<RawAttribute<'_>, Fault>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let trimmed = rest.trim_start_matches(is_space);
        if trimmed.is_empty() {
            return None;
        }
        let spaced = trimmed.len() < rest.len();
        match attribute(text, trimmed, spaced) {
            Ok((attribute, after)) => {
                rest = after;
                Some(Ok(attribute))
            }
            Err(fault) => {
                rest = "";
                Some(Err(fault))
            }
        }
    })
}

fn attribute<'t>(
    text: &'t str,
    at: &'t str,
    spaced: bool,
) -> Result<(RawAttribute<'t>, &'t str), Fault> {
    let offset_of = |rest: &str| text.len() - rest.len();
    let fault = |rest: &str, message: String, hint| Fault {
        offset: offset_of(rest),
        truncated: false,
        message,
        hint,
    };
    let (name, rest) = split_name(at);
    if name.is_empty() {
        let found = at.chars().next().unwrap_or(' ');
        return Err(match found {
            '<' => fault(
                at,
                "unexpected < inside a tag".to_owned(),
                "close the tag with > first, or write &lt;",
            ),
            _ => fault(
                at,
                format!("unexpected {found:?} where an attribute should start"),
                "write attributes as name=\"value\"",
            ),
        });
    }
    if !spaced {
        return Err(fault(
            at,
            format!("missing space before {}", super::quoted(name)),
            "put a space between attributes",
        ));
    }
    // If the text ends here, the missing part may have been cut off.
    let missing = |rest: &str, what: &str| Fault {
        offset: offset_of(at),
        truncated: rest.is_empty(),
        message: format!("missing {what} {}", super::quoted(name)),
        hint: "write attributes as name=\"value\"",
    };
    let rest = rest.trim_start_matches(is_space);
    let Some(rest) = rest.strip_prefix('=') else {
        return Err(missing(rest, "value of"));
    };
    let rest = rest.trim_start_matches(is_space);
    let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
        return Err(missing(rest, "quotes around the value of"));
    };
    let inner = rest.get(1..).unwrap_or("");
    let (raw, after) =
        inner.split_once(quote).map_or((inner, None), |(raw, after)| (raw, Some(after)));
    let value =
        attribute_value(raw).map_err(|f| Fault { offset: f.offset + offset_of(inner), ..f })?;
    let after = after.ok_or_else(|| missing("", "closing quote of"))?;
    Ok((RawAttribute { offset: offset_of(at), name, value }, after))
}

/// Normalises the raw value of an attribute (XML 1.0 §3.3.3).
pub(super) fn attribute_value(raw: &str) -> Result<Cow<'_, str>, Fault> {
    let find_special = |text: &str| text.bytes().position(|b| class(b) & SPECIAL != 0);
    let mut next = find_special(raw);
    if next.is_none() {
        return Ok(raw.into());
    }
    let mut value = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = next {
        let (before, from) = rest.split_at_checked(at).unwrap_or((rest, ""));
        value.push_str(before);
        let offset = raw.len() - from.len();
        let mut used = 1;
        match from.as_bytes().first() {
            Some(b'<') => {
                let message = "unexpected < inside an attribute value".to_owned();
                return Err(Fault { offset, truncated: false, message, hint: WRITE_LT });
            }
            Some(b'&') => {
                let end = memchr::memchr(b';', from.as_bytes());
                let Some(name) = end.and_then(|end| from.get(1..end)) else {
                    return Err(bare_ampersand(offset));
                };
                value.push(reference(name).ok_or_else(|| bad_reference(offset, name))?);
                used = name.len() + 2;
            }
            _ => {
                value.push(' ');
                if from.starts_with("\r\n") {
                    used = 2;
                }
            }
        }
        rest = from.get(used..).unwrap_or("");
        next = find_special(rest);
    }
    value.push_str(rest);
    Ok(value.into())
}
