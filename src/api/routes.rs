//! Route tables: one row per operation. Requests are dispatched from these rows, and the OpenAPI
//! document is generated from them.
//!
//! This module has the parts that the rows of both APIs share. Each API adds a handler, and the
//! number API also the required role. A request that matches no row is refused, so every operation
//! is documented.

use http::Method;
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// An operation: a method and a path, with everything that the OpenAPI document contains about
/// them.
pub(super) struct Operation {
    pub(super) method: &'static str,
    /// The path template. Parameters are in braces, and it ends with a slash.
    pub(super) path: &'static str,
    /// `operationId`.
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: &'static [QueryParameter],
    pub(super) body: Option<RequestBody>,
    /// The successful responses, and the errors that are particular to this operation. Errors that
    /// every operation of an API can return are added by [`openapi`](super::openapi).
    pub(super) responses: &'static [ResponseSpec],
}

impl Operation {
    pub(super) const fn get(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("GET", path, id, summary)
    }

    pub(super) const fn post(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("POST", path, id, summary)
    }

    pub(super) const fn patch(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("PATCH", path, id, summary)
    }

    pub(super) const fn delete(
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self::new("DELETE", path, id, summary)
    }

    const fn new(
        method: &'static str,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
    ) -> Self {
        Self { method, path, id, summary, query: &[], body: None, responses: &[] }
    }

    pub(super) const fn query(mut self, query: &'static [QueryParameter]) -> Self {
        self.query = query;
        self
    }

    pub(super) const fn body(mut self, body: RequestBody) -> Self {
        self.body = Some(body);
        self
    }

    pub(super) const fn responses(mut self, responses: &'static [ResponseSpec]) -> Self {
        self.responses = responses;
        self
    }
}

impl Operation {
    /// Removes the read-only fields of a JSON body: those that the schema of a successful response
    /// contains and that of the body does not. Some clients send back what they have read.
    pub(super) fn remove_read_only(&self, object: &mut Map<String, Value>) {
        let Some(RequestBody { content: BodyContent::Json { schema, .. }, .. }) = &self.body else {
            return;
        };
        let mut schemas = Schemas::new();
        let body = schema(&mut schemas);
        let mut read = Vec::new();
        for response in self.responses.iter().filter(|response| response.status < 300) {
            if let Content::Json(schema) = response.content {
                read.push(schema(&mut schemas));
            }
        }
        object.retain(|name, _| {
            has_property(&schemas, &body, name)
                || !read.iter().any(|schema| has_property(&schemas, schema, name))
        });
    }
}

/// Whether a schema has a property at its top level.
fn has_property(schemas: &Schemas, schema: &Value, name: &str) -> bool {
    let referred = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next());
    let referred = referred.and_then(|path| schemas.get(path));
    let mut parts = schema["allOf"].as_array().into_iter().flatten().chain(referred);
    schema["properties"].get(name).is_some() || parts.any(|part| has_property(schemas, part, name))
}

/// A query parameter. All query parameters are optional.
pub(super) struct QueryParameter {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) kind: ParameterKind,
}

/// The values of a flag.
const FLAG: &[&str] = &["true", "false"];

/// The values that a query parameter accepts.
pub(super) enum ParameterKind {
    Text,
    Uuid,
    /// An integer in a range that includes both ends.
    Integer(u32, u32),
    OneOf(&'static [&'static str]),
}

impl QueryParameter {
    pub(super) const fn text(name: &'static str, description: &'static str) -> Self {
        Self { name, description, kind: ParameterKind::Text }
    }

    pub(super) const fn uuid(name: &'static str, description: &'static str) -> Self {
        Self { name, description, kind: ParameterKind::Uuid }
    }

    pub(super) const fn integer(
        name: &'static str,
        min: u32,
        max: u32,
        description: &'static str,
    ) -> Self {
        Self { name, description, kind: ParameterKind::Integer(min, max) }
    }

    pub(super) const fn one_of(
        name: &'static str,
        words: &'static [&'static str],
        description: &'static str,
    ) -> Self {
        Self { name, description, kind: ParameterKind::OneOf(words) }
    }

    /// Why a value can't be one of this parameter. `None` if it can, or if the handler decides. An
    /// empty value counts as none.
    pub(super) fn refusal(&self, value: &str) -> Option<String> {
        let (name, value) = (self.name, value.trim());
        match self.kind {
            _ if value.is_empty() => None,
            // Handlers of flags accept these, too.
            ParameterKind::OneOf(FLAG) if matches!(value, "0" | "1") => None,
            ParameterKind::OneOf(words) => (!words.contains(&value)).then(|| {
                let (last, others) = words.split_last().unwrap_or((&"", &[]));
                format!("{name} must be {} or {last}", others.join(", "))
            }),
            ParameterKind::Text | ParameterKind::Uuid | ParameterKind::Integer(..) => None,
        }
    }

    /// A parameter that is `true` or `false`.
    pub(super) const fn flag(name: &'static str, description: &'static str) -> Self {
        Self::one_of(name, FLAG, description)
    }
}

/// The body of a request.
pub(super) struct RequestBody {
    pub(super) description: &'static str,
    pub(super) content: BodyContent,
}

/// The content of a request's body.
pub(super) enum BodyContent {
    /// A JSON object with a schema.
    Json {
        schema: Schema,
        /// Parses an example like the handler, or returns why it can't be parsed.
        #[cfg(test)]
        read: fn(Value) -> Result<(), String>,
    },
    /// The fields of a JSON object or a form, in groups that operations share.
    Fields(&'static [&'static [Field]]),
    /// Bytes of this content type, without a schema.
    Raw(&'static str),
}

impl RequestBody {
    /// A JSON object that is deserialized into a `T`.
    pub(super) const fn json<T>(description: &'static str) -> Self
    where
        T: ToSchema + serde::de::DeserializeOwned,
    {
        Self::json_with_schema::<T>(description, of::<T>)
    }

    /// A JSON object that is deserialized into a `T`, with a schema that is stricter than that of
    /// `T`.
    #[cfg_attr(not(test), allow(clippy::extra_unused_type_parameters, reason = "tests read a `T`"))]
    pub(super) const fn json_with_schema<T>(description: &'static str, schema: Schema) -> Self
    where
        T: serde::de::DeserializeOwned,
    {
        let content = BodyContent::Json {
            schema,
            #[cfg(test)]
            read: |body| serde_json::from_value::<T>(body).map(drop).map_err(|e| e.to_string()),
        };
        Self { description, content }
    }

    /// A JSON object that the handler reads field by field.
    pub(super) const fn json_object(
        description: &'static str,
        schema: Schema,
        #[cfg(test)] read: fn(Value) -> Result<(), String>,
    ) -> Self {
        let content = BodyContent::Json {
            schema,
            #[cfg(test)]
            read,
        };
        Self { description, content }
    }

    pub(super) const fn fields(
        description: &'static str,
        groups: &'static [&'static [Field]],
    ) -> Self {
        Self { description, content: BodyContent::Fields(groups) }
    }

    pub(super) const fn raw(content_type: &'static str, description: &'static str) -> Self {
        Self { description, content: BodyContent::Raw(content_type) }
    }
}

/// A field of a body that may be a JSON object or a form.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: FieldKind,
    pub(super) description: &'static str,
    /// Whether a request without the field is refused.
    pub(super) is_required: bool,
    /// Whether the example in the OpenAPI document contains the field although it is optional.
    pub(super) is_in_example: bool,
}

/// The values that a field accepts. Numbers and booleans may also be strings, and `null` counts as
/// absent.
pub(super) enum FieldKind {
    /// Text of at most this many characters; `u32::MAX` for no limit.
    Text(u32),
    Url,
    /// `GET` or `POST`.
    Method,
    Flag,
    /// An integer in a range that includes both ends.
    Integer(u32, u32),
    OneOf(&'static [&'static str]),
    Uuid,
    /// Any value: a parameter of Plivo's that has no effect here.
    Unused,
    /// A list of URLs, or one string of URLs separated by commas.
    Urls,
}

impl Field {
    pub(super) const fn optional(
        name: &'static str,
        kind: FieldKind,
        description: &'static str,
    ) -> Self {
        Self { name, kind, description, is_required: false, is_in_example: false }
    }

    pub(super) const fn required(
        name: &'static str,
        kind: FieldKind,
        description: &'static str,
    ) -> Self {
        Self { is_required: true, ..Self::optional(name, kind, description) }
    }

    pub(super) const fn in_example(mut self) -> Self {
        self.is_in_example = true;
        self
    }
}

/// A response of an operation.
pub(super) struct ResponseSpec {
    pub(super) status: u16,
    pub(super) description: &'static str,
    pub(super) content: Content,
}

/// The body of a response.
pub(super) enum Content {
    Empty,
    Json(Schema),
    /// One of these objects, with `api_id` in addition to its fields.
    Plivo(&'static [Schema]),
    /// Bytes of one of these content types, without a schema.
    Raw(&'static [&'static str]),
}

impl ResponseSpec {
    pub(super) const fn empty(status: u16, description: &'static str) -> Self {
        Self { status, description, content: Content::Empty }
    }

    pub(super) const fn json<T: ToSchema>(status: u16, description: &'static str) -> Self {
        Self { status, description, content: Content::Json(of::<T>) }
    }

    pub(super) const fn raw(
        status: u16,
        description: &'static str,
        content_types: &'static [&'static str],
    ) -> Self {
        Self { status, description, content: Content::Raw(content_types) }
    }
}

/// Named schemas: `components.schemas` of the OpenAPI document.
pub(super) type Schemas = Map<String, Value>;

/// Adds a schema to the named schemas and returns a reference to it.
pub(super) type Schema = fn(&mut Schemas) -> Value;

/// The [`Schema`] of a type, with the types that it contains.
pub(super) fn of<T: ToSchema>(schemas: &mut Schemas) -> Value {
    let mut nested = Vec::new();
    T::schemas(&mut nested);
    nested.push((T::name().into_owned(), T::schema()));
    for (name, schema) in nested {
        schemas.insert(name, serde_json::to_value(&schema).unwrap_or(Value::Null));
    }
    serde_json::json!({"$ref": format!("#/components/schemas/{}", T::name())})
}

/// The methods of operations, in the order in which `Allow` lists them.
const METHODS: [&str; 4] = ["GET", "POST", "PATCH", "DELETE"];

/// The result of looking up a request in route tables.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match<'t, R> {
    Found(&'t R),
    /// Other methods are served at this path: the value of `Allow`.
    WrongMethod(String),
    NotFound,
}

/// Finds the row for a method and a path, given as its non-empty segments.
pub(super) fn find<'t, R: AsRef<Operation>>(
    tables: &[&'t [R]],
    method: &Method,
    segments: &[&str],
) -> Match<'t, R> {
    let mut allowed = Vec::new();
    for row in tables.iter().copied().flatten() {
        let operation = row.as_ref();
        if !matches(operation.path, segments) {
            continue;
        }
        if operation.method == method.as_str() {
            return Match::Found(row);
        }
        allowed.push(operation.method);
    }
    if allowed.is_empty() {
        return Match::NotFound;
    }
    allowed.sort_by_key(|method| METHODS.iter().position(|known| known == method));
    Match::WrongMethod(allowed.join(", "))
}

fn matches(template: &'static str, segments: &[&str]) -> bool {
    let mut parts = parts(template);
    segments
        .iter()
        .all(|segment| parts.next().is_some_and(|part| name(part).is_some() || part == *segment))
        && parts.next().is_none()
}

/// The path parameters of a request, percent-decoded, by their names in the template.
pub(super) struct PathParameters(Vec<(&'static str, String)>);

impl PathParameters {
    /// Reads the parameters of a path that matches the template.
    pub(super) fn read(template: &'static str, segments: &[&str]) -> Self {
        let named = parts(template).zip(segments);
        Self(named.filter_map(|(part, value)| Some((name(part)?, super::decoded(value)))).collect())
    }

    /// Returns a parameter of the path. Empty if the template has no such parameter.
    pub(super) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value)
    }
}

fn parts(template: &'static str) -> impl Iterator<Item = &'static str> {
    template.split('/').filter(|part| !part.is_empty())
}

/// The name of a parameter in braces; `None` for a literal part.
fn name(part: &str) -> Option<&str> {
    part.strip_prefix('{')?.strip_suffix('}')
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::{Match, Operation, PathParameters, QueryParameter, find};

    #[derive(Debug, PartialEq, Eq)]
    struct Row(&'static str);

    impl AsRef<Operation> for Row {
        fn as_ref(&self) -> &Operation {
            static GET_ONE: Operation = Operation::get("/a/{id}/", "", "");
            static DELETE_ONE: Operation = Operation::delete("/a/{id}/", "", "");
            static GET_ALL: Operation = Operation::get("/a/", "", "");
            match self.0 {
                "get one" => &GET_ONE,
                "delete one" => &DELETE_ONE,
                _ => &GET_ALL,
            }
        }
    }

    #[test]
    fn query_parameters_refuse_values_that_they_cannot_have() {
        let one_of = QueryParameter::one_of("platform", &["A", "B", "C"], "");
        for value in ["", " A ", "C"] {
            assert_eq!(one_of.refusal(value), None, "{value}");
        }
        assert_eq!(one_of.refusal("a").as_deref(), Some("platform must be A, B or C"));
        let flag = QueryParameter::flag("hidden", "");
        for value in ["true", "false", "1", "0"] {
            assert_eq!(flag.refusal(value), None, "{value}");
        }
        assert_eq!(flag.refusal("yes").as_deref(), Some("hidden must be true or false"));
    }

    #[test]
    fn finds_rows_by_method_and_path() {
        let table = [Row("get one"), Row("delete one"), Row("get all")];
        let tables = [&table[..]];
        let find = |method: Method, segments: &[&str]| find(&tables, &method, segments);
        assert_eq!(find(Method::GET, &["a"]), Match::Found(&Row("get all")));
        assert_eq!(find(Method::GET, &["a", "7"]), Match::Found(&Row("get one")));
        assert_eq!(find(Method::DELETE, &["a", "7"]), Match::Found(&Row("delete one")));
        assert_eq!(find(Method::POST, &["a", "7"]), Match::WrongMethod("GET, DELETE".to_owned()));
        for segments in [&[][..], &["b"], &["a", "7", "b"]] {
            assert_eq!(find(Method::GET, segments), Match::NotFound);
        }
    }

    #[test]
    fn reads_path_parameters_by_name() {
        let parameters =
            PathParameters::read("/a/{id}/b/{name}/", &["a", "7", "b", "R%26D+%C3%9C"]);
        assert_eq!((parameters.get("id"), parameters.get("name")), ("7", "R&D+Ü"));
        assert_eq!(parameters.get("other"), "");
    }
}
