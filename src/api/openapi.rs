//! The OpenAPI 3.1 document: `/openapi.json` and `offhook openapi`. It is generated from the route
//! tables.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use super::error::ErrorBody;
use super::placement::URL_BYTES_MAX;
use super::plivo::error::PlivoErrorBody;
use super::routes::{
    BodyContent, Content, Field, FieldKind, Operation, ParameterKind, QueryParameter, RequestBody,
    ResponseSpec, Schema, Schemas, of,
};
use super::{number, plivo};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";

/// The operations of the public listener that belong to neither API.
const OTHERS: &[Operation] = &[
    Operation::get("/openapi.json", "openapi", "Retrieve this document")
        .responses(&[ResponseSpec::raw(200, "OpenAPI 3.1", &[JSON])]),
    Operation::get(
        "/media/{id}",
        "messageFile",
        "Download a file that a user sent, with a signed link that is valid for one hour",
    )
    .query(&[
        QueryParameter::text("until", "The end of the hour"),
        QueryParameter::text("tag", "The signature of the link"),
    ])
    .responses(&[
        ResponseSpec::raw(200, "The file", &["application/octet-stream"]),
        ResponseSpec::empty(404, "The link is invalid or has expired"),
    ]),
    Operation::get(
        "/recordings/{file}",
        "downloadRecording",
        "Download a recording, {id}.wav or {id}.mp3, without authentication but with the complete link; Range is supported",
    )
    .responses(&[
        ResponseSpec::raw(200, "The file", &["audio/wav"]),
        ResponseSpec::raw(206, "The requested range", &["audio/wav"]),
        ResponseSpec::empty(403, "The link has expired (recordings.link_days)"),
        ResponseSpec::empty(404, "Not found"),
        ResponseSpec::empty(405, "Method not allowed; Allow lists the others"),
        ResponseSpec::empty(416, "The range is after the end of the file"),
    ]),
    Operation::get(
        "/phone",
        "phone",
        "Open the WebSocket of an endpoint's phone: JSON messages, see docs/phone.md",
    )
    .responses(&[
        ResponseSpec::empty(101, "The WebSocket is open"),
        ResponseSpec::raw(426, "The request is not for a WebSocket", &["text/plain"]),
        ResponseSpec::raw(503, "The maximum number of phones is connected", &["text/plain"]),
    ]),
    Operation::get("/webhooks/meta", "verifyWebhook", "Verify the webhook for Meta")
        .query(&[
            QueryParameter::one_of("hub.mode", &["subscribe"], "The mode of the subscription"),
            QueryParameter::text("hub.verify_token", "The verify token of the configuration"),
            QueryParameter::text("hub.challenge", "Returned as the body"),
        ])
        .responses(&[
            ResponseSpec::raw(200, "The challenge", &["text/plain"]),
            ResponseSpec::empty(403, "Wrong mode or token"),
        ]),
    Operation::post(
        "/webhooks/meta",
        "webhook",
        "Receive events of Meta, signed by X-Hub-Signature-256 over the raw bytes",
    )
    .body(RequestBody::json_object(
        "A webhook of the Cloud API, at most 3 MiB",
        meta_webhook,
        #[cfg(test)]
        |_| Ok(()),
    ))
    .responses(&[
        ResponseSpec::empty(200, "Accepted, also if the events are unknown"),
        ResponseSpec::empty(400, "Signed, but not JSON"),
        ResponseSpec::empty(401, "The signature is missing or wrong"),
        ResponseSpec::empty(413, "Larger than 3 MiB"),
        ResponseSpec::empty(503, "Neither stored nor processed: to be sent again"),
    ]),
];

/// One of the APIs, or neither.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Plivo,
    Number,
    Other,
}

impl Family {
    const ALL: [Self; 3] = [Self::Plivo, Self::Number, Self::Other];

    fn operations(self) -> Vec<&'static Operation> {
        match self {
            Self::Plivo => plivo::TABLES.iter().copied().flatten().map(AsRef::as_ref).collect(),
            Self::Number => number::TABLES.iter().copied().flatten().map(AsRef::as_ref).collect(),
            Self::Other => OTHERS.iter().collect(),
        }
    }

    fn tag(self) -> &'static str {
        match self {
            Self::Plivo => "Plivo-compatible REST API",
            Self::Number => "Number API",
            Self::Other => "Public listener",
        }
    }

    /// The errors that every operation can return.
    fn common_errors(self) -> &'static [(u16, &'static str)] {
        match self {
            Self::Plivo => &[
                (400, "A field is missing, malformed or out of range; the error names the first"),
                (401, "Missing or wrong credentials"),
                (404, "Not found, or another account's"),
                (405, "Method not allowed; Allow lists the others"),
                (429, "Too many requests; see Retry-After"),
                (500, "Internal error"),
                (503, "The store is unavailable or the node is shutting down; see Retry-After"),
            ],
            Self::Number => &[
                (400, "A value is wrong; field names it"),
                (401, "Missing or invalid X-API-Key"),
                (403, "The role does not permit the operation"),
                (404, "Not found, or another account's"),
                (405, "Method not allowed; Allow lists the others"),
                (429, "Too many requests; see Retry-After"),
                (500, "Internal error"),
                (503, "The store is unavailable or the node is shutting down; see Retry-After"),
            ],
            Self::Other => &[],
        }
    }

    /// The errors that every operation with a body can return.
    fn body_errors(self) -> &'static [(u16, &'static str)] {
        match self {
            Self::Plivo | Self::Number => &[
                (408, "The body took longer than 15 s"),
                (413, "The body is larger than 256 KiB"),
                (415, "The body is compressed"),
            ],
            Self::Other => &[],
        }
    }

    fn error_schema(self, schemas: &mut Schemas) -> Value {
        match self {
            Self::Plivo => with_api_id(of::<PlivoErrorBody<'_>>, schemas),
            Self::Number | Self::Other => of::<ErrorBody<'_>>(schemas),
        }
    }

    fn security(self) -> Value {
        match self {
            Self::Plivo => json!([{"basic": []}]),
            Self::Number => json!([{"apiKey": []}]),
            Self::Other => json!([]),
        }
    }
}

/// The OpenAPI document.
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for family in Family::ALL {
        for operation in family.operations() {
            let object = operation_object(family, operation, &mut schemas);
            let methods = paths.entry(operation.path).or_default();
            methods.insert(operation.method.to_lowercase(), object);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Offhook",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Call control for WhatsApp calls. A missing final slash of a path makes no difference.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": Family::ALL.map(|family| json!({"name": family.tag()})),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic", "description": "auth_id:auth_token"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    })
}

/// Serves `GET /openapi.json`.
pub(super) async fn serve() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    let mut response = Response::new(Body::from(TEXT.as_str()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn operation_object(family: Family, operation: &Operation, schemas: &mut Schemas) -> Value {
    let parts = operation.path.split('/');
    let named = parts.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = named.map(path_parameter).collect();
    parameters.extend(operation.query.iter().map(query_parameter));
    let mut responses = Map::new();
    let body_errors = operation.body.iter().flat_map(|_| family.body_errors());
    for (status, description) in family.common_errors().iter().chain(body_errors) {
        let content = json!({JSON: {"schema": family.error_schema(schemas)}});
        let response = json!({"description": description, "content": content});
        responses.insert(status.to_string(), response);
    }
    for response in operation.responses {
        responses.insert(response.status.to_string(), response_object(response, schemas));
    }
    let mut object = Map::from_iter([
        ("tags".to_owned(), json!([family.tag()])),
        ("operationId".to_owned(), operation.id.into()),
        ("summary".to_owned(), operation.summary.into()),
        ("parameters".to_owned(), parameters.into()),
        ("security".to_owned(), family.security()),
        ("responses".to_owned(), responses.into()),
    ]);
    if let Some(body) = &operation.body {
        let content = body_content(&body.content, schemas);
        let body = json!({"description": body.description, "required": true, "content": content});
        object.insert("requestBody".to_owned(), body);
    }
    object.into()
}

fn body_content(content: &BodyContent, schemas: &mut Schemas) -> Value {
    match content {
        BodyContent::Json { schema, .. } => json!({JSON: {"schema": schema(schemas)}}),
        BodyContent::Fields(groups) => {
            let own = groups.iter().copied().flatten();
            let fields: Vec<&Field> = plivo::IGNORED.iter().chain(own).collect();
            let schema = fields_schema(&fields);
            json!({JSON: {"schema": schema}, FORM: {"schema": schema}})
        }
        BodyContent::Raw(content_type) => json!({*content_type: {}}),
    }
}

/// The schema of Meta's webhook body, limited to the members that the node uses.
fn meta_webhook(_: &mut Schemas) -> Value {
    json!({
        "type": "object",
        "properties": {
            "object": {"type": "string"},
            "entry": {"type": "array", "items": {"type": "object"}},
        },
        "examples": [{"object": "whatsapp_business_account", "entry": [{"id": "102290129340398", "changes": []}]}],
    })
}

fn fields_schema(fields: &[&Field]) -> Value {
    let properties: Map<String, Value> =
        fields.iter().map(|field| (field.name.to_owned(), field_schema(field))).collect();
    let required: Vec<&str> =
        fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
        "examples": [example(fields)],
    })
}

fn field_schema(field: &Field) -> Value {
    let mut schema = match field.kind {
        FieldKind::Unused => json!({}),
        FieldKind::Text(u32::MAX) => json!({"type": "string"}),
        FieldKind::Text(chars) => json!({"type": "string", "maxLength": chars}),
        FieldKind::Url => json!({"type": "string", "maxLength": URL_BYTES_MAX}),
        FieldKind::Method => json!({"type": "string", "enum": ["GET", "POST"]}),
        FieldKind::Flag => json!({"type": "boolean"}),
        FieldKind::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        FieldKind::OneOf(words) => json!({"type": "string", "enum": words}),
        FieldKind::Uuid => json!({"type": "string", "format": "uuid"}),
        FieldKind::Urls => {
            json!({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]})
        }
    };
    if let Some(schema) = schema.as_object_mut().filter(|_| !field.description.is_empty()) {
        schema.insert("description".to_owned(), field.description.into());
    }
    schema
}

/// Builds a body that is accepted: the required fields and those marked for the example, or the
/// first field if there are none.
fn example(fields: &[&Field]) -> Value {
    let is_shown = |field: &&&Field| field.is_required || field.is_in_example;
    let shown: Vec<&&Field> = match fields.iter().any(|field| is_shown(&field)) {
        true => fields.iter().filter(is_shown).collect(),
        false => fields.iter().take(1).collect(),
    };
    let example = shown.into_iter().map(|field| (field.name.to_owned(), example_value(field)));
    example.collect::<Map<_, _>>().into()
}

fn example_value(field: &Field) -> Value {
    match (field.name, &field.kind) {
        ("from", _) => "918035737458".into(),
        ("to", _) => "919812345678".into(),
        ("digits", _) => "1w2".into(),
        ("service_url", _) => "wss://app.example.com/stream".into(),
        ("text", _) => "Hello.".into(),
        ("username", _) => "asha".into(),
        ("password", _) => "a longer secret".into(),
        (_, FieldKind::Text(_) | FieldKind::Unused) => "Desk".into(),
        (_, FieldKind::Url) => "https://app.example.com/answer".into(),
        (_, FieldKind::Urls) => json!(["https://app.example.com/hold.mp3"]),
        (_, FieldKind::Method) => "POST".into(),
        (_, FieldKind::Flag) => true.into(),
        (_, FieldKind::Integer(min, _)) => (*min).into(),
        (_, FieldKind::OneOf(words)) => words.first().copied().into(),
        (_, FieldKind::Uuid) => "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11".into(),
    }
}

fn path_parameter(name: &str) -> Value {
    let schema = match name {
        "call_uuid" => json!({"type": "string", "format": "uuid"}),
        _ => json!({"type": "string"}),
    };
    json!({"name": name, "in": "path", "required": true, "schema": schema})
}

fn query_parameter(parameter: &QueryParameter) -> Value {
    let schema = match parameter.kind {
        ParameterKind::Text => json!({"type": "string"}),
        ParameterKind::Uuid => json!({"type": "string", "format": "uuid"}),
        ParameterKind::Integer(min, max) => {
            json!({"type": "integer", "minimum": min, "maximum": max})
        }
        ParameterKind::OneOf(words) => json!({"type": "string", "enum": words}),
    };
    json!({
        "name": parameter.name,
        "in": "query",
        "required": false,
        "description": parameter.description,
        "schema": schema,
    })
}

fn response_object(response: &ResponseSpec, schemas: &mut Schemas) -> Value {
    let description = response.description;
    let schema = match &response.content {
        Content::Empty => return json!({"description": description}),
        Content::Raw(content_types) => {
            let content: Map<String, Value> =
                content_types.iter().map(|kind| ((*kind).to_owned(), json!({}))).collect();
            return json!({"description": description, "content": content});
        }
        Content::Json(schema) => schema(schemas),
        Content::Plivo([only]) => with_api_id(*only, schemas),
        Content::Plivo(several) => {
            let several: Vec<Value> =
                several.iter().map(|schema| with_api_id(*schema, schemas)).collect();
            json!({"anyOf": several})
        }
    };
    json!({"description": description, "content": {JSON: {"schema": schema}}})
}

/// The schema of an object in the Plivo-compatible API, which has `api_id` in addition to its own
/// fields.
fn with_api_id(schema: Schema, schemas: &mut Schemas) -> Value {
    let id = json!({
        "type": "object",
        "required": ["api_id"],
        "properties": {"api_id": {"type": "string", "format": "uuid"}},
    });
    json!({"allOf": [id, schema(schemas)]})
}
