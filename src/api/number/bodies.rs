//! The JSON bodies of the number API, for the OpenAPI document: by operation, made of the very types that the resources read
//! them into, so that neither has a field that the other lacks.

use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use super::super::routes::{Schema, Schemas, of};
use super::{
    agents, api_keys, conversations, messages, numbers, permissions, place, routing, tokens, users,
    wabas,
};

/// An operation's body.
pub(in crate::api) struct Taken {
    /// `operationId`.
    pub(in crate::api) id: &'static str,
    schema: Schema,
    /// Reads one as the resource does; else why not.
    #[cfg(test)]
    pub(in crate::api) read: fn(Value) -> Result<(), String>,
}

impl Taken {
    /// A body that is read into a `T`.
    pub(super) const fn of<T: ToSchema + DeserializeOwned>(id: &'static str) -> Self {
        Self::with::<T>(id, of::<T>)
    }

    /// The same, with a schema that says more than the type's.
    #[cfg_attr(not(test), allow(clippy::extra_unused_type_parameters, reason = "tests read by it"))]
    pub(super) const fn with<T: DeserializeOwned>(id: &'static str, schema: Schema) -> Self {
        Self {
            id,
            schema,
            #[cfg(test)]
            read: |body| serde_json::from_value::<T>(body).map(drop).map_err(|why| why.to_string()),
        }
    }

    /// A body whose fields are looked at one by one.
    pub(super) const fn looked_at(
        id: &'static str,
        schema: Schema,
        #[cfg(test)] read: fn(Value) -> Result<(), String>,
    ) -> Self {
        Self {
            id,
            schema,
            #[cfg(test)]
            read,
        }
    }
}

/// All of them.
pub(in crate::api) const BODIES: &[&[Taken]] = &[
    agents::BODIES,
    api_keys::BODIES,
    conversations::BODIES,
    messages::BODIES,
    numbers::BODIES,
    permissions::BODIES,
    place::BODIES,
    routing::BODIES,
    tokens::BODIES,
    users::BODIES,
    wabas::BODIES,
];

/// The schema of an operation's body; none: it is no JSON of ours.
pub(in crate::api) fn schema(id: &str, into: &mut Schemas) -> Option<Value> {
    BODIES.iter().copied().flatten().find(|taken| taken.id == id).map(|taken| (taken.schema)(into))
}

/// One of some words, or null: nothing is said.
pub(super) fn one_of(words: &[&str], what: &str) -> Object {
    let values = words.iter().map(|word| Value::from(*word)).chain([Value::Null]);
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::String, Type::Null]))
        .enum_values(Some(values))
        .description(Some(what))
        .build()
}

/// How a URL is asked.
pub(super) fn method() -> Object {
    one_of(&["GET", "POST"], "How the URL is asked (POST)")
}
