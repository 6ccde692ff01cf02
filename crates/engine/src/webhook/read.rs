//! A tolerant JSON reader that borrows from the body and reads one level at a time.
//!
//! serde_json validates the whole text once. After that a value is a part of the text, and each
//! level extracts the members it knows. A wrong type only affects its own member, unknown members
//! cost one scan, and nothing recurses on untrusted nesting. The longest text of a body, the SDP,
//! lies ten levels deep. [`Document`] remembers where the large values end, so that only the level
//! that contains it scans it.

use std::fmt;

use memchr::memchr2;
use serde::Deserializer as _;
use serde::de::Visitor;
use serde_json::value::RawValue;

/// Maximum nesting depth (`docs/reference/meta.md#not-json`).
const DEPTH_MAX: usize = 128;
/// Maximum length of a text in bytes. Longer texts are cut (`docs/reference/meta.md#bounds`).
pub(super) const TEXT_MAX: usize = 4_096;

/// Size in bytes from which the end of an object or array is remembered.
const LARGE: usize = 128;
/// Maximum number of remembered ends. Further values are scanned by every level around them.
const ENDS_MAX: usize = 1_024;

/// A validated JSON text.
pub(super) struct Document<'a> {
    text: &'a str,
    /// Start and end of large objects and arrays, by their start.
    ends: Vec<(usize, usize)>,
}

impl<'a> Document<'a> {
    /// Validates that the bytes are one JSON value within the maximum depth.
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let ends = large_values(text)?;
        // Rejects a BOM, trailing text, `NaN`, bare control characters and truncated text.
        serde_json::from_str::<&RawValue>(text).ok()?;
        Some(Self { text, ends })
    }

    /// The whole document as a value.
    pub(super) fn value(&self) -> Value<'_> {
        let from = self.text.len() - self.text.trim_start_matches(is_space).len();
        Value { document: self, from, to: self.text.trim_end_matches(is_space).len() }
    }

    /// The end of the large object or array that starts here.
    fn end_of(&self, from: usize) -> Option<usize> {
        let found = self.ends.binary_search_by_key(&from, |(from, _)| *from).ok()?;
        self.ends.get(found).map(|(_, to)| *to)
    }
}

/// Returns start and end of the large objects and arrays of a text, or `None` if brackets are
/// nested too deeply. Exact for valid JSON.
fn large_values(text: &str) -> Option<Vec<(usize, usize)>> {
    let mut open = Vec::new();
    let mut ends = Vec::new();
    let mut scan = Scan { text, at: 0 };
    while let Some(byte) = scan.byte() {
        match byte {
            b'"' => {
                scan.pass_string();
                continue;
            }
            b'[' | b'{' if open.len() == DEPTH_MAX => return None,
            b'[' | b'{' => open.push(scan.at),
            b']' | b'}' => {
                let end = scan.at + 1;
                let large = open.pop().filter(|from| end - from >= LARGE);
                ends.extend(large.filter(|_| ends.len() < ENDS_MAX).map(|from| (from, end)));
            }
            _ => {}
        }
        scan.at += 1;
    }
    ends.sort_unstable();
    Some(ends)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// A position in validated JSON. In other text the results are meaningless, but scanning still
/// terminates.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips white space and `mark`.
    fn pass(&mut self, mark: u8) {
        while self
            .byte()
            .is_some_and(|byte| byte == mark || matches!(byte, b' ' | b'\t' | b'\n' | b'\r'))
        {
            self.at += 1;
        }
    }

    /// Skips a string, starting at its opening quote.
    fn pass_string(&mut self) {
        self.at += 1;
        let rest = |at: usize| self.text.as_bytes().get(at..).unwrap_or_default();
        while let Some(found) = memchr2(b'"', b'\\', rest(self.at)) {
            self.at += found + 1;
            if self.text.as_bytes().get(self.at - 1) == Some(&b'"') {
                return;
            }
            // Skips the escaped character. The digits after `\u` are neither quotes nor
            // backslashes.
            self.at += 1;
        }
        self.at = self.text.len();
    }

    /// Skips a value. `end_of` returns the end of a large object or array.
    fn pass_value(&mut self, end_of: impl Fn(usize) -> Option<usize>) {
        let mut depth = 0usize;
        while let Some(byte) = self.byte() {
            match byte {
                b'"' => self.pass_string(),
                b'[' | b'{' => match end_of(self.at) {
                    Some(end) => self.at = end,
                    None => {
                        depth += 1;
                        self.at += 1;
                    }
                },
                b']' | b'}' if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                b']' | b'}' => break,
                _ if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                // A number or literal extends to the next delimiter.
                b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' => break,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                break;
            }
        }
    }
}

/// A value of the document. `null` counts as absent.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    document: &'a Document<'a>,
    from: usize,
    to: usize,
}

impl<'a> Value<'a> {
    /// Returns the value unless it is `null`.
    fn given(self) -> Option<Self> {
        (self.raw() != "null").then_some(self)
    }

    /// The text of the value.
    pub(super) fn raw(self) -> &'a str {
        self.document.text.get(self.from..self.to).unwrap_or_default()
    }

    /// Starts to scan after the opening bracket of an object or array.
    fn inside(self, bracket: u8) -> Option<Scan<'a>> {
        let text = self.document.text.get(..self.to)?;
        (text.as_bytes().get(self.from) == Some(&bracket))
            .then_some(Scan { text, at: self.from + 1 })
    }

    /// Returns the value at a position inside of this one. `None` at its end.
    fn next(self, scan: &mut Scan<'a>) -> Option<Self> {
        let from = scan.at;
        scan.pass_value(|at| self.document.end_of(at));
        (scan.at > from).then_some(Self { from, to: scan.at, ..self })
    }

    /// Returns the members with these names: the last one of each name, and `None` for `null`.
    /// Returns `None` if the value is not an object.
    pub(super) fn members<const N: usize>(
        self,
        names: [&str; N],
    ) -> Option<[Option<Value<'a>>; N]> {
        let mut scan = self.inside(b'{')?;
        let mut picked = [None; N];
        loop {
            scan.pass(b',');
            let Some(name) = self.next(&mut scan) else { return Some(picked) };
            scan.pass(b':');
            let Some(value) = self.next(&mut scan) else { return Some(picked) };
            let place = names.iter().position(|wanted| is_name(name.raw(), wanted));
            if let Some(place) = place.and_then(|place| picked.get_mut(place)) {
                *place = value.given();
            }
        }
    }

    /// Passes each element of an array to `take`, including `null`. Returns `false` if the value is
    /// not an array.
    pub(super) fn each(self, mut take: impl FnMut(Value<'a>)) -> bool {
        let Some(mut scan) = self.inside(b'[') else { return false };
        loop {
            scan.pass(b',');
            let Some(value) = self.next(&mut scan) else { return true };
            take(value);
        }
    }

    /// Returns the first element of an array, unless it is `null`.
    pub(super) fn first(self) -> Option<Value<'a>> {
        let mut first = None;
        let mut at_first = true;
        self.each(|value| {
            if std::mem::take(&mut at_first) {
                first = value.given();
            }
        });
        first
    }

    /// Decodes a string. Each byte of a lone surrogate becomes U+FFFD.
    pub(super) fn string(self) -> Option<String> {
        decode_string(self.raw())
    }

    /// Decodes a string and cuts it to [`TEXT_MAX`] bytes at a character boundary.
    pub(super) fn text(self) -> Option<String> {
        let mut text = self.string()?;
        let mut end = text.len().min(TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Some(text)
    }

    /// Returns a string, or the digits of a non-negative integer.
    pub(super) fn id(self) -> Option<String> {
        self.string().or_else(|| {
            let digits = self.raw();
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.to_owned())
        })
    }

    /// Returns a non-negative integer below 2^63, given as a number or a decimal string.
    pub(super) fn integer(self) -> Option<i64> {
        let digits = self.id()?;
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    }
}

/// Decodes a string, given with its quotes. Each byte of a lone surrogate becomes U+FFFD.
fn decode_string(raw: &str) -> Option<String> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(inner.to_owned());
    }

    struct Text;
    impl Visitor<'_> for Text {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<String, E> {
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
    }
    // Decoded as bytes, because serde_json rejects lone surrogates in a `str`.
    serde_json::Deserializer::from_str(raw).deserialize_bytes(Text).ok()
}

/// Whether a member's name, given with its quotes, equals `wanted` after decoding.
fn is_name(name: &str, wanted: &str) -> bool {
    if name.len() <= wanted.len() + 2 {
        return name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) == Some(wanted);
    }
    // Only an escaped name is longer.
    memchr::memchr(b'\\', name.as_bytes()).is_some()
        && decode_string(name).is_some_and(|name| name == wanted)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Document, Value};

    fn value(text: &str) -> Value<'static> {
        let text: &'static str = text.to_owned().leak();
        Box::leak(Box::new(Document::parse(text.as_bytes()).unwrap())).value()
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let text = || prop_oneof!["[a-c\"\\\\{}\\[\\],: \n]{0,12}", any::<String>()];
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<i32>().prop_map(|n| (f64::from(n) / 8.0).into()),
            text().prop_map(Into::into),
        ];
        leaf.prop_recursive(5, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((text(), inner), 0..6).prop_map(|members| members
                    .into_iter()
                    .collect::<serde_json::Map<_, _>>()
                    .into()),
            ]
        })
    }

    /// Compares each value with that of serde_json, level by level.
    fn same(found: Value<'_>, expected: &serde_json::Value) {
        let read: serde_json::Value = serde_json::from_str(found.raw()).expect("a whole value");
        assert_eq!(&read, expected);
        match expected {
            serde_json::Value::Object(members) => {
                for (name, expected) in members {
                    let [found] = found.members([name]).expect("an object");
                    assert_eq!(found.is_none(), expected.is_null(), "{name:?}");
                    found.into_iter().for_each(|found| same(found, expected));
                }
                assert!(!found.each(|_| ()));
            }
            serde_json::Value::Array(elements) => {
                let mut all = Vec::new();
                assert!(found.each(|one| all.push(one)));
                assert_eq!(all.len(), elements.len());
                all.into_iter().zip(elements).for_each(|(found, expected)| same(found, expected));
                assert!(found.members(["a"]).is_none());
            }
            serde_json::Value::String(text) => assert_eq!(found.string().as_ref(), Some(text)),
            _ => assert!(found.string().is_none() && found.members(["a"]).is_none()),
        }
    }

    proptest! {
        #[test]
        fn a_scan_finds_what_serde_json_finds(json in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&json) } else { serde_json::to_string(&json) };
            same(value(&text.expect("JSON")), &json);
        }

        /// Arbitrary bytes never cause a panic, and only valid JSON is accepted.
        #[test]
        fn any_bytes_are_json_or_not(body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            "[a\"\\\\{}\\[\\],:0 ]{0,64}".prop_map(String::into_bytes),
        ]) {
            let document = Document::parse(&body);
            let read = document.as_ref().map(Document::value);
            let text = std::str::from_utf8(&body);
            let is_json = text.is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok());
            prop_assert_eq!(read.is_some(), is_json);
            if let Some(read) = read {
                let _ = (read.members(["a"]), read.each(|_| ()), read.string(), read.first(), read.integer());
            }
        }
    }

    #[test]
    fn rejects_invalid_json() {
        let bad: [&[u8]; 14] = [
            b"",
            b" ",
            b"\xff\xfe",
            b"\xef\xbb\xbf{}",
            b"{} x",
            b"{}{}",
            b"NaN",
            b"{\"a\":Infinity}",
            b"\"a\nb\"",
            b"{\"a\":[1,2",
            b"{\"a\":1,}",
            b"{'a':1}",
            b"\"\xc3\x28\"",
            b"{\"a\":\"\\x\"}",
        ];
        for body in bad {
            assert!(Document::parse(body).is_none(), "{body:?}");
        }
        for (levels, readable) in [(128, true), (129, false), (200, false), (100_000, false)] {
            let body = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            assert_eq!(Document::parse(body.as_bytes()).is_some(), readable, "{levels} levels");
        }
        assert!(Document::parse(br#"{"brackets in a string":"[[[[{{{{\"[[[\\"}"#).is_some());
    }

    #[test]
    fn members_returns_the_last_of_a_name_and_skips_unknown_ones() {
        let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
        let text =
            format!(r#"{{"\ud800":1,"a":1,"x":{deep},"a":"two","b":3,"b":null,"\u0063":4}}"#);
        let [a, b, c, d] = value(&text).members(["a", "b", "c", "d"]).unwrap();
        assert_eq!(a.unwrap().string().as_deref(), Some("two"));
        assert!(b.is_none() && d.is_none());
        assert_eq!(c.unwrap().integer(), Some(4));
        for no_object in ["[]", "1", "\"{}\"", "null", "true"] {
            assert!(value(no_object).members(["a"]).is_none(), "{no_object}");
        }
    }

    #[test]
    fn integers_and_ids_come_as_string_or_number() {
        let rows = [
            ("17", Some(17)),
            ("\"17\"", Some(17)),
            ("\"0017\"", Some(17)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("-1", None),
            ("1.0", None),
            ("1e3", None),
            ("\"\"", None),
            ("\"+5\"", None),
            ("true", None),
            ("{}", None),
        ];
        for (text, expected) in rows {
            assert_eq!(value(text).integer(), expected, "{text}");
        }
        assert_eq!(value("106540352242922").id().as_deref(), Some("106540352242922"));
        assert_eq!(value("17.5").id(), None);
        assert_eq!(value("[]").id(), None);
        assert_eq!(value("-3").id(), None);
    }

    #[test]
    fn text_is_cut_between_characters() {
        let text = format!("\"{}\"", "é".repeat(3_000));
        assert_eq!(value(&text).text().unwrap().len(), 4_096);
        let text = format!("\"a{}\"", "é".repeat(3_000));
        assert_eq!(value(&text).text().unwrap().len(), 4_095);
        assert_eq!(value(r#""\ud83d\ude00\ud83d""#).text().unwrap(), "😀\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(value("[1]").first().unwrap().integer(), Some(1));
        assert!(value("[null,1]").first().is_none());
    }
}
