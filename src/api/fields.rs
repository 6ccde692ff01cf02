//! The fields of a request's body: a JSON object or a form, read alike (`plivo-call-api.md` 1.4, R14).
//!
//! Values keep what they were; numbers and booleans may have come as strings, and `null` is absent. A name that stands
//! twice is refused, since the two readers of a request must not disagree about it.

use std::collections::BTreeMap;
use std::fmt;

use http::{HeaderMap, header};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// R14.
const DEPTH_MAX: usize = 64;

/// A body's fields.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// Reads a body; an empty one has no fields.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, String> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Self::form(body);
        }
        let Object(object) = serde_json::from_slice(body).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => error.to_string(),
            _ => "the request body is not a JSON object".to_owned(),
        })?;
        if object.values().any(|value| depth(value) >= DEPTH_MAX) {
            return Err(format!("the request body is nested more than {DEPTH_MAX} levels"));
        }
        Ok(Self(object))
    }

    fn form(body: &[u8]) -> Result<Self, String> {
        let mut fields = BTreeMap::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            if fields.insert(name.clone().into_owned(), Value::String(value.into_owned())).is_some() {
                return Err(twice(&name));
            }
        }
        Ok(Self(fields))
    }

    /// A field as text; empty text counts as absent.
    ///
    /// # Errors
    /// It is an object or a list.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, String> {
        let text = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(is)) => is.to_string(),
            Some(Value::Array(_) | Value::Object(_)) => return Err(format!("{name} must be a string")),
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Whether a field is there and says something.
    pub(super) fn has(&self, name: &str) -> bool {
        !matches!(self.text(name), Ok(None))
    }

    /// A list of texts, or one text with commas between them; blank ones are left out.
    ///
    /// # Errors
    /// It is something else.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let wrong = || format!("{name} must be a list of strings, or a string with commas between them");
        let texts: Vec<&str> = match self.0.get(name) {
            Some(Value::Array(items)) => {
                items.iter().map(|item| item.as_str().ok_or_else(wrong)).collect::<Result<_, _>>()?
            }
            Some(Value::String(text)) => text.split(',').collect(),
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => return Err(wrong()),
        };
        Ok(texts.into_iter().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned).collect())
    }

    /// [`Fields::text`] of a field that must be there.
    ///
    /// # Errors
    /// It is not, or is no text.
    pub(super) fn required(&self, name: &str) -> Result<String, String> {
        self.text(name)?.ok_or_else(|| format!("{name} parameter is missing"))
    }

    /// An integer between the two.
    ///
    /// # Errors
    /// Something else.
    pub(super) fn integer(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let within = text.parse().ok().filter(|n| (least..=most).contains(n));
        within.map(Some).ok_or_else(|| format!("{name} must be an integer between {least} and {most}"))
    }

    /// A boolean.
    ///
    /// # Errors
    /// Another word.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        match self.text(name)?.map(|text| text.to_ascii_lowercase()).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(format!("{name} must be true or false")),
        }
    }
}

fn twice(name: &str) -> String {
    let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
    format!("{name} is given twice")
}

fn depth(value: &Value) -> usize {
    // serde_json itself stops at 128 levels.
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

/// A JSON object in which no name stands twice.
struct Object(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name.clone(), value).is_some() {
                        return Err(serde::de::Error::custom(twice(&name)));
                    }
                }
                Ok(Object(members))
            }
        }
        from.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};

    use super::Fields;

    fn read(kind: &'static str, body: &str) -> Result<Fields, String> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        Fields::read(&headers, body.as_bytes())
    }

    #[test]
    fn json_and_forms_say_the_same() {
        let json = r#"{"from":"+91 80357","ring_timeout":"30","flag":true,"n":5,"none":null,"blank":"  "}"#;
        let form = "from=%2B91+80357&ring_timeout=30&flag=true&n=5&blank=+";
        for (kind, body) in [("application/json; charset=utf-8", json), ("application/x-www-form-urlencoded", form)] {
            let fields = read(kind, body).expect("reads");
            assert_eq!(fields.required("from"), Ok("+91 80357".to_owned()));
            assert_eq!(fields.integer("ring_timeout", 1, 600), Ok(Some(30)));
            assert_eq!(fields.integer("n", 1, 4), Err("n must be an integer between 1 and 4".to_owned()));
            assert_eq!(fields.flag("flag"), Ok(Some(true)));
            assert_eq!(fields.text("none"), Ok(None));
            assert_eq!(fields.required("blank"), Err("blank parameter is missing".to_owned()));
        }
    }

    #[test]
    fn r14_what_is_no_object_or_says_something_twice_is_refused() {
        for bad in ["[1]", "{", "\"x\"", "nonsense", "{\"a\":1} x", r#"{"a":1,"a":2}"#] {
            assert!(read("application/json", bad).is_err(), "{bad}");
        }
        assert!(read("application/json", r#"{"a":1,"a":2}"#).is_err_and(|why| why.contains("a is given twice")));
        assert_eq!(
            read("application/x-www-form-urlencoded", "a=1&a=2").map(|_| ()),
            Err("a is given twice".to_owned())
        );
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(read("application/json", &deep(63)).is_ok());
        assert!(read("application/json", &deep(64)).is_err());
        assert!(read("application/json", &deep(100_000)).is_err());
        assert!(read("application/json", "").is_ok() && read("", "  ").is_ok());
        assert_eq!(read("application/json", r#"{"a":{}}"#).unwrap().text("a"), Err("a must be a string".to_owned()));
    }
}
