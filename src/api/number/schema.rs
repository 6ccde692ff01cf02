//! Parts of the schemas of JSON bodies, and the distinction between an absent field and `null` in a
//! body.

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

/// Deserializes a field that is present: `null` becomes `Some(None)`. With `#[serde(default)]` an
/// absent field is `None`.
pub(super) fn nullable<'de, T, D>(from: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(from).map(Some)
}

/// The schema of a field that is one of some words, or null.
pub(super) fn one_of(words: &[&str], description: &str) -> Object {
    let values = words.iter().map(|word| Value::from(*word)).chain([Value::Null]);
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(values))
        .description(Some(description))
        .build()
}

/// The schema of an HTTP method for requests to a customer's URL.
pub(super) fn method() -> Object {
    one_of(&["GET", "POST"], "Method of the request to the URL (default POST)")
}
