//! The fields of a request's body: a JSON object or a form. See `docs/reference/rest.md#bodies`.
//!
//! Numbers and booleans may be strings, and `null` counts as absent. A name that occurs twice is
//! refused, because a proxy in front of the node might read the other value.

use std::fmt;

use engine::config::suggestion;
use http::{HeaderMap, header};
use model::is_line;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::routes::{Field, FieldKind};

/// Maximum nesting of a JSON body (`docs/reference/reliability.md#r14`).
const DEPTH_MAX: usize = 64;

/// The fields of a body.
#[derive(Debug, Default)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// The fields of a JSON body.
    #[cfg(test)]
    pub(super) fn of_json(body: &serde_json::Value) -> Self {
        let json = http::HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
        Self::read(&headers, body.to_string().as_bytes()).expect("a JSON object")
    }

    /// Reads a body. An empty body has no fields.
    ///
    /// # Errors
    /// Returns a sentence that describes the fault.
    pub(super) fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, String> {
        let kind = headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
            return Self::form(body);
        }
        object(body).map(Self)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn form(body: &[u8]) -> Result<Self, String> {
        let mut fields = Map::new();
        for (name, value) in url::form_urlencoded::parse(body) {
            if fields.insert(name.clone().into_owned(), Value::String(value.into_owned())).is_some()
            {
                return Err(given_twice(&name));
            }
        }
        Ok(Self(fields))
    }

    /// Checks that all fields are known.
    ///
    /// # Errors
    /// Fails for the first field that is not, with the known name that is nearest to it.
    pub(super) fn check_names<'k>(
        &self,
        known: impl Iterator<Item = &'k Field> + Clone,
    ) -> Result<(), String> {
        let is_known = |name: &str| known.clone().any(|field| field.name == name);
        match self.0.keys().find(|name| !is_known(name)) {
            None => Ok(()),
            Some(name) => {
                let used = known.filter(|field| !matches!(field.kind, FieldKind::Unused));
                Err(unknown(name, used.map(|field| field.name)))
            }
        }
    }

    /// A field as text. Empty text counts as absent.
    ///
    /// # Errors
    /// Fails if the field is an object or a list.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, String> {
        let text = match self.0.get(name) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text.trim().to_owned(),
            Some(Value::Number(number)) => number.to_string(),
            Some(Value::Bool(is)) => is.to_string(),
            Some(Value::Array(_) | Value::Object(_)) => {
                return Err(format!("{name} must be a string"));
            }
        };
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    /// Whether a field is present and not empty.
    pub(super) fn has(&self, name: &str) -> bool {
        !matches!(self.text(name), Ok(None))
    }

    /// A list of texts, or the parts of one text that are separated by commas, without empty ones.
    ///
    /// # Errors
    /// Fails if the field is neither.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let wrong = || format!("{name} must be a list of strings, or a string separated by commas");
        let texts: Vec<&str> = match self.0.get(name) {
            Some(Value::Array(items)) => items
                .iter()
                .map(|item| item.as_str().ok_or_else(wrong))
                .collect::<Result<_, _>>()?,
            Some(Value::String(text)) => text.split(',').collect(),
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Bool(_) | Value::Number(_) | Value::Object(_)) => return Err(wrong()),
        };
        Ok(texts
            .into_iter()
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// Returns a field as text. Empty text, which removes a value, is included.
    ///
    /// # Errors
    /// Fails if the field is an object or a list.
    pub(super) fn given(&self, name: &str) -> Result<Option<String>, String> {
        match self.0.get(name) {
            Some(Value::String(text)) if text.trim().is_empty() => Ok(Some(String::new())),
            _ => self.text(name),
        }
    }

    /// A field as text without trimming, for passwords.
    ///
    /// # Errors
    /// Fails if the field is an object or a list.
    pub(super) fn verbatim(&self, name: &str) -> Result<Option<String>, String> {
        match self.0.get(name) {
            Some(Value::String(text)) => Ok(Some(text.clone())),
            _ => self.text(name),
        }
    }

    /// [`Fields::given`] for a line of text of limited length.
    ///
    /// # Errors
    /// Fails if the text is too long or has control characters.
    pub(super) fn bounded(&self, name: &str, chars_max: usize) -> Result<Option<String>, String> {
        let text = self.given(name)?;
        let fits = |text: &String| is_line(text, 0..=chars_max);
        match text.as_ref().is_none_or(fits) {
            true => Ok(text),
            false => Err(format!("{name} must be at most {chars_max} characters on one line")),
        }
    }

    /// [`Fields::text`] for a required field.
    ///
    /// # Errors
    /// Fails if the field is missing or not a text.
    pub(super) fn required(&self, name: &str) -> Result<String, String> {
        self.text(name)?.ok_or_else(|| format!("{name} parameter is missing"))
    }

    /// An integer in a range, both ends included.
    ///
    /// # Errors
    /// Fails if the field is not an integer or out of range.
    pub(super) fn integer(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, String> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let within = text.parse().ok().filter(|n| (least..=most).contains(n));
        within
            .map(Some)
            .ok_or_else(|| format!("{name} must be an integer between {least} and {most}"))
    }

    /// A boolean.
    ///
    /// # Errors
    /// Fails if the field is not a boolean.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, String> {
        match self.text(name)?.map(|text| text.to_ascii_lowercase()).as_deref() {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(_) => Err(format!("{name} must be true or false")),
        }
    }
}

fn given_twice(name: &str) -> String {
    format!("{} is given twice", printable(name))
}

/// The error text for an unknown field, with the known name that is nearest to it.
pub(super) fn unknown<'k>(name: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let name = printable(name);
    let hint = match known.clone().next() {
        None => "this request has no fields".to_owned(),
        Some(_) => suggestion(&name, known),
    };
    format!("unknown field {name}: {hint}")
}

/// The error text for an unknown query parameter, with the known name that is nearest to it.
pub(super) fn unknown_parameter<'k>(
    name: &str,
    known: impl Iterator<Item = &'k str> + Clone,
) -> String {
    let name = printable(name);
    let hint = match known.clone().next() {
        None => "this request has no query parameters".to_owned(),
        Some(_) => suggestion(&name, known),
    };
    format!("unknown query parameter {name}: {hint}")
}

/// The beginning of a name from a request, without control characters.
pub(super) fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Reads a JSON object.
///
/// # Errors
/// Fails if the body is not a JSON object, if a name is given twice in an object, or if it is
/// nested too deeply. The message is a sentence.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let read =
        Strict { depth: 0 }.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match read {
        Ok(Value::Object(object)) => Ok(object),
        Err(error) if error.classify() == serde_json::error::Category::Data => {
            Err(error.to_string())
        }
        Err(error) if !body.is_empty() => {
            Err(format!("the request body is not valid JSON: {error}"))
        }
        Ok(_) | Err(_) => Err("the request body is not a JSON object".to_owned()),
    }
}

/// Deserializes any value, `depth` levels inside the body.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.depth {
            DEPTH_MAX.. => Err(E::custom(format_args!(
                "the request body is nested more than {DEPTH_MAX} levels"
            ))),
            depth => Ok(Self { depth: depth + 1 }),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Value, E> {
        Ok(is.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(inner)?;
            if members.contains_key(&name) {
                return Err(serde::de::Error::custom(given_twice(&name)));
            }
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, header};

    use super::super::routes::{Field, FieldKind};
    use super::Fields;

    fn read(kind: &'static str, body: &str) -> Result<Fields, String> {
        let headers =
            HeaderMap::from_iter([(header::CONTENT_TYPE, http::HeaderValue::from_static(kind))]);
        Fields::read(&headers, body.as_bytes())
    }

    #[test]
    fn reads_json_and_forms_alike() {
        let json = r#"{"from":"+91 80357","ring_timeout":"30","flag":true,"n":5,"none":null,"blank":"  "}"#;
        let form = "from=%2B91+80357&ring_timeout=30&flag=true&n=5&blank=+";
        for (kind, body) in
            [("application/json; charset=utf-8", json), ("application/x-www-form-urlencoded", form)]
        {
            let fields = read(kind, body).expect("reads");
            assert_eq!(fields.required("from"), Ok("+91 80357".to_owned()));
            assert_eq!(fields.integer("ring_timeout", 1, 600), Ok(Some(30)));
            assert_eq!(
                fields.integer("n", 1, 4),
                Err("n must be an integer between 1 and 4".to_owned())
            );
            assert_eq!(fields.flag("flag"), Ok(Some(true)));
            assert_eq!(fields.text("none"), Ok(None));
            assert_eq!(fields.given("blank"), Ok(Some(String::new())));
            assert_eq!(fields.given("nothing"), Ok(None));
            assert_eq!(fields.bounded("from", 9), Ok(Some("+91 80357".to_owned())));
            assert!(
                fields.bounded("from", 8).is_err_and(|why| why.contains("at most 8 characters"))
            );
            assert_eq!(fields.required("blank"), Err("blank parameter is missing".to_owned()));
        }
    }

    #[test]
    fn names_the_nearest_known_field() {
        let known = ["from", "answer_url"].map(|name| Field::optional(name, FieldKind::Url, ""));
        let unused = Field::optional("callback_url", FieldKind::Unused, "");
        let check = |body: &str| {
            let known = known.iter().chain([&unused]);
            read("application/json", body).expect("reads").check_names(known)
        };
        assert_eq!(check(r#"{"callback_url":{}}"#), Ok(()));
        assert_eq!(check(r#"{"from":"1","answer_url":null}"#), Ok(()));
        assert_eq!(
            check(r#"{"from":"1","answerURL":"https://a.example"}"#),
            Err("unknown field answerURL: did you mean `answer_url`?".to_owned())
        );
        assert_eq!(
            check(r#"{"colour":1}"#),
            Err("unknown field colour: known are `from`, `answer_url`".to_owned())
        );
        // Half of the letters differ.
        assert_eq!(
            check(r#"{"foo":1}"#),
            Err("unknown field foo: known are `from`, `answer_url`".to_owned())
        );
    }

    #[test]
    fn r14_refuses_what_is_not_an_object_or_has_a_name_twice() {
        for bad in [
            "[1]",
            "{",
            "\"x\"",
            "nonsense",
            "{\"a\":1} x",
            r#"{"a":1,"a":2}"#,
            r#"{"a":[{"b":1,"b":1}]}"#,
        ] {
            assert!(read("application/json", bad).is_err(), "{bad}");
        }
        let cut = read("application/json", "{\"a\":1,\n\"b\"").unwrap_err();
        assert!(cut.starts_with("the request body is not valid JSON: EOF"), "{cut}");
        assert!(cut.ends_with("at line 2 column 3"), "{cut}");
        assert!(
            read("application/json", r#"{"a":1,"a":2}"#)
                .is_err_and(|why| why.contains("a is given twice"))
        );
        assert_eq!(
            read("application/x-www-form-urlencoded", "a=1&a=2").map(|_| ()),
            Err("a is given twice".to_owned())
        );
        let deep =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert!(read("application/json", &deep(63)).is_ok());
        assert!(read("application/json", &deep(64)).is_err());
        assert!(read("application/json", &deep(100_000)).is_err());
        assert!(read("application/json", "").is_ok() && read("", "  ").is_ok());
        assert_eq!(
            read("application/json", r#"{"a":{}}"#).unwrap().text("a"),
            Err("a must be a string".to_owned())
        );
    }
}
