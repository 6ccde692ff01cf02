//! Reading JSON of which nothing is sure: one level at a time, by reference, nothing kept that was not asked for.
//!
//! serde_json checks the whole text once; after that a value is a slice of it ([`RawValue`]), and each level
//! picks the members it knows. So a wrong type spoils its own member only, unknown members cost a scan, and
//! nothing here recurses on what a stranger sends.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Levels of nesting that are still read (`meta-calling.md` §2.2).
const DEPTH_MAX: usize = 128;
/// Text that is kept is cut at that many bytes (`meta-calling.md` §1.3).
pub(super) const TEXT_MAX: usize = 4_096;

/// Checks that the bytes are one JSON value (§2.2) and gives it.
pub(super) fn document(body: &[u8]) -> Option<&RawValue> {
    if depth(body) > DEPTH_MAX {
        return None;
    }
    // Invalid UTF-8, a BOM, trailing text, `NaN`, bare control characters and cut text all end here.
    serde_json::from_str(std::str::from_utf8(body).ok()?).ok()
}

/// The deepest nesting of brackets outside strings; right for valid JSON, harmless for anything else.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let (mut in_string, mut escaped) = (false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// A value of the document. `null` is no value.
#[derive(Clone, Copy)]
pub(super) struct Value<'a>(&'a RawValue);

impl<'a> Value<'a> {
    pub(super) fn new(raw: &'a RawValue) -> Self {
        Self(raw)
    }

    fn given(raw: &'a RawValue) -> Option<Self> {
        (raw.get() != "null").then_some(Self(raw))
    }

    /// Its text as it came.
    pub(super) fn raw(self) -> &'a str {
        self.0.get()
    }

    /// The members of these names of an object: the last of each name, none where `null`. None if it is no object.
    pub(super) fn members<const N: usize>(self, names: [&str; N]) -> Option<[Option<Value<'a>>; N]> {
        struct Pick<'n, const N: usize>([&'n str; N]);
        impl<'de, const N: usize> Visitor<'de> for Pick<'_, N> {
            type Value = [Option<Value<'de>>; N];
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut picked = [None; N];
                while let Some(name) = map.next_key_seed(Name(&self.0))? {
                    match name.and_then(|index| picked.get_mut(index)) {
                        Some(place) => *place = Value::given(map.next_value()?),
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(picked)
            }
        }
        serde_json::Deserializer::from_str(self.0.get()).deserialize_map(Pick(names)).ok()
    }

    /// Hands over each element of an array, `null` ones included. False if it is no array.
    pub(super) fn each(self, take: impl FnMut(Value<'a>)) -> bool {
        struct Each<F>(F);
        impl<'de, F: FnMut(Value<'de>)> Visitor<'de> for Each<F> {
            type Value = ();
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }
            fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
                while let Some(raw) = seq.next_element::<&RawValue>()? {
                    (self.0)(Value(raw));
                }
                Ok(())
            }
        }
        serde_json::Deserializer::from_str(self.0.get()).deserialize_seq(Each(take)).is_ok()
    }

    /// The first element of an array, if there is one and it is not `null`.
    pub(super) fn first(self) -> Option<Value<'a>> {
        let mut first = None;
        let mut at_first = true;
        self.each(|value| {
            if std::mem::take(&mut at_first) {
                first = Value::given(value.0);
            }
        });
        first
    }

    /// A string, decoded; a lone surrogate becomes U+FFFD, one for each of its bytes.
    pub(super) fn string(self) -> Option<String> {
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
        self.0.get().starts_with('"').then_some(())?;
        serde_json::Deserializer::from_str(self.0.get()).deserialize_bytes(Text).ok()
    }

    /// A string cut at [`TEXT_MAX`] bytes on a character boundary.
    pub(super) fn text(self) -> Option<String> {
        let mut text = self.string()?;
        let mut end = text.len().min(TEXT_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Some(text)
    }

    /// A string, or a non-negative integer as its digits (§1.1).
    pub(super) fn id(self) -> Option<String> {
        self.string().or_else(|| {
            let digits = self.0.get();
            digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.to_owned())
        })
    }

    /// A non-negative integer below 2^63, as number or as decimal string.
    pub(super) fn integer(self) -> Option<i64> {
        let digits = self.id()?;
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    }
}

/// Reads a member's name and says which of the wanted ones it is.
struct Name<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;
    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        // As bytes: a name with a lone surrogate is some unknown name, and no reason to give up its object.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_bytes<E>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| wanted.as_bytes() == name))
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, document};

    fn value(text: &str) -> Value<'_> {
        Value::new(document(text.as_bytes()).unwrap())
    }

    #[test]
    fn what_is_not_json() {
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
            assert!(document(body).is_none(), "{body:?}");
        }
        for (levels, readable) in [(128, true), (129, false), (200, false), (100_000, false)] {
            let body = format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
            assert_eq!(document(body.as_bytes()).is_some(), readable, "{levels} levels");
        }
        assert!(document(br#"{"brackets in a string":"[[[[{{{{\"[[[\\"}"#).is_some());
    }

    #[test]
    fn members_take_the_last_of_a_name_and_skip_what_they_do_not_know() {
        let deep = format!("{}{}", "[".repeat(64), "]".repeat(64));
        let text = format!(r#"{{"\ud800":1,"a":1,"x":{deep},"a":"two","b":3,"b":null,"\u0063":4}}"#);
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
