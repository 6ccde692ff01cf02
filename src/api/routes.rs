//! What the APIs serve, as tables: each operation with its parameters, bodies and answers.
//!
//! The tables say what is served (a request that no row knows is refused before it is dispatched) and what the OpenAPI
//! document says (`openapi`): nothing can be served and undocumented.

use http::Method;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// One operation.
pub(super) struct Route {
    pub(super) method: &'static str,
    /// With its parameters in braces and its last slash.
    pub(super) path: &'static str,
    /// `operationId`.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: &'static [Query],
    pub(super) body: Option<Body>,
    /// Those of success, and those of failure that its API does not have everywhere.
    pub(super) answers: &'static [Answer],
}

/// A parameter of the query.
pub(super) struct Query {
    pub(super) name: &'static str,
    pub(super) what: &'static str,
    pub(super) kind: Kind,
}

/// What a parameter's value is.
pub(super) enum Kind {
    Text,
    Uuid,
    Integer(u32, u32),
    Words(&'static [&'static str]),
}

/// A request's body.
pub(super) struct Body {
    pub(super) content_type: &'static str,
    pub(super) what: &'static str,
}

/// What comes back.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) what: &'static str,
    pub(super) content: Content,
}

/// An answer's body.
pub(super) enum Content {
    Nothing,
    /// A schema of ours.
    Json(Schema),
    /// One of these, beside Plivo's `api_id`.
    Plivo(&'static [Schema]),
    /// Text of another type.
    Text(&'static str),
}

/// Named schemas, as `components.schemas` has them.
pub(super) type Schemas = Map<String, Value>;

/// Puts a schema among the named ones and gives a reference to it.
pub(super) type Schema = fn(&mut Schemas) -> Value;

/// The schema of a type.
pub(super) fn of<T: ToSchema>(into: &mut Schemas) -> Value {
    let mut nested = Vec::new();
    T::schemas(&mut nested);
    nested.push((T::name().into_owned(), T::schema()));
    for (name, schema) in nested {
        into.insert(name, serde_json::to_value(&schema).unwrap_or(Value::Null));
    }
    serde_json::json!({"$ref": format!("#/components/schemas/{}", T::name())})
}

/// Whether a table has a request's method and path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Served,
    /// The path with other methods: `Allow`.
    Method(String),
    Nothing,
}

/// Looks a request up. A missing last slash and doubled ones make no difference.
pub(super) fn find(tables: &[&[Route]], method: &Method, segments: &[&str]) -> Found {
    let mut allowed = Vec::new();
    for route in tables.iter().copied().flatten().filter(|route| is_at(route.path, segments)) {
        if route.method == method.as_str() {
            return Found::Served;
        }
        allowed.push(route.method);
    }
    match allowed.is_empty() {
        true => Found::Nothing,
        false => Found::Method(allowed.join(", ")),
    }
}

fn is_at(path: &str, segments: &[&str]) -> bool {
    let mut wanted = path.split('/').filter(|segment| !segment.is_empty());
    segments
        .iter()
        .all(|have| wanted.next().is_some_and(|want| want.starts_with('{') || want == *have))
        && wanted.next().is_none()
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Found, Route, find};

    const fn at(method: &'static str, path: &'static str) -> Route {
        Route { method, path, id: "", summary: "", query: &[], body: None, answers: &[] }
    }

    #[test]
    fn a_row_is_found_by_method_and_path() {
        let table = [at("GET", "/a/{id}/"), at("DELETE", "/a/{id}/"), at("GET", "/a/")];
        let find = |method: Method, segments: &[&str]| find(&[&table], &method, segments);
        assert_eq!(find(Method::GET, &["a"]), Found::Served);
        assert_eq!(find(Method::GET, &["a", "7"]), Found::Served);
        assert_eq!(find(Method::POST, &["a", "7"]), Found::Method("GET, DELETE".to_owned()));
        for segments in [&[][..], &["b"], &["a", "7", "b"]] {
            assert_eq!(find(Method::GET, segments), Found::Nothing);
        }
    }
}
