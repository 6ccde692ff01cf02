//! The OpenAPI 3.1 document, made from the tables of what is served (`routes`): `/openapi.json`, `offhook openapi`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, header};
use serde_json::{Map, Value, json};

use super::error::{OurBody, PlivoError};
use super::routes::{Answer, Content, Kind, Query, Route, Schemas, of};
use super::{number, plivo};

/// The paths of the public listener that belong to no API.
const OTHERS: &[Route] = &[
    Route {
        method: "GET",
        path: "/openapi.json",
        id: "openapi",
        summary: "This document",
        query: &[],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "OpenAPI 3.1",
            content: Content::Text("application/json"),
        }],
    },
    Route {
        method: "GET",
        path: "/media/{id}",
        id: "messageFile",
        summary: "A file that a user sent, by a signed link that is good for an hour",
        query: &[
            Query { name: "until", what: "The end of its hour", kind: Kind::Text },
            Query { name: "tag", what: "The link's signature", kind: Kind::Text },
        ],
        body: None,
        answers: &[
            Answer {
                status: 200,
                what: "The file",
                content: Content::Text("application/octet-stream"),
            },
            Answer { status: 404, what: "The link is none, or over", content: Content::Nothing },
        ],
    },
    Route {
        method: "GET",
        path: "/recordings/{file}",
        id: "downloadRecording",
        summary: "A recording's file, {id}.wav or {id}.mp3: its id is all that it takes; with Range a part of it",
        query: &[],
        body: None,
        answers: &[
            Answer { status: 200, what: "The file", content: Content::Text("audio/wav") },
            Answer {
                status: 206,
                what: "The part that was asked for",
                content: Content::Text("audio/wav"),
            },
            Answer { status: 404, what: "There is none", content: Content::Nothing },
            Answer {
                status: 405,
                what: "Not by this method; Allow names those that are",
                content: Content::Nothing,
            },
            Answer { status: 416, what: "The range is behind its end", content: Content::Nothing },
        ],
    },
    Route {
        method: "GET",
        path: "/phone",
        id: "phone",
        summary: "The WebSocket of an endpoint's phone: JSON messages, see docs/phone.md",
        query: &[],
        body: None,
        answers: &[
            Answer {
                status: 101,
                what: "From here on it is a WebSocket",
                content: Content::Nothing,
            },
            Answer {
                status: 426,
                what: "No WebSocket was asked for",
                content: Content::Text("text/plain"),
            },
            Answer {
                status: 503,
                what: "As many phones are there as may be",
                content: Content::Text("text/plain"),
            },
        ],
    },
    Route {
        method: "GET",
        path: "/webhooks/meta",
        id: "verifyWebhook",
        summary: "Meta's verification of the webhook",
        query: &[
            Query {
                name: "hub.mode",
                what: "How the webhook is subscribed to",
                kind: Kind::Words(&["subscribe"]),
            },
            Query {
                name: "hub.verify_token",
                what: "The verify token of the configuration",
                kind: Kind::Text,
            },
            Query { name: "hub.challenge", what: "Comes back as the body", kind: Kind::Text },
        ],
        body: None,
        answers: &[
            Answer { status: 200, what: "The challenge", content: Content::Text("text/plain") },
            Answer { status: 403, what: "Another mode or token", content: Content::Nothing },
        ],
    },
    Route {
        method: "POST",
        path: "/webhooks/meta",
        id: "webhook",
        summary: "Meta's events, signed by X-Hub-Signature-256 over the raw bytes",
        query: &[],
        body: Some(super::routes::Body {
            content_type: "application/json",
            what: "A webhook of the Cloud API, 3 MiB at most",
        }),
        answers: &[
            Answer {
                status: 200,
                what: "Taken, also where nothing is known of it",
                content: Content::Nothing,
            },
            Answer { status: 400, what: "Signed, but no JSON", content: Content::Nothing },
            Answer {
                status: 401,
                what: "The signature is missing or wrong",
                content: Content::Nothing,
            },
            Answer { status: 413, what: "Larger than 3 MiB", content: Content::Nothing },
            Answer {
                status: 503,
                what: "Could be neither stored nor acted upon: to be sent again",
                content: Content::Nothing,
            },
        ],
    },
];

/// What the Plivo-compatible API takes as well.
const FORM: &str = "application/x-www-form-urlencoded";

/// One of the APIs, or neither.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Plivo,
    Number,
    Other,
}

impl Family {
    const ALL: [(Self, &'static [&'static [Route]]); 3] =
        [(Self::Plivo, plivo::ROUTES), (Self::Number, number::TABLES), (Self::Other, &[OTHERS])];

    fn tag(self) -> &'static str {
        match self {
            Self::Plivo => "Plivo-compatible REST API",
            Self::Number => "Number API",
            Self::Other => "Public listener",
        }
    }

    /// Answers that every operation of the API may have.
    fn common(self) -> &'static [(u16, &'static str)] {
        match self {
            Self::Plivo => &[
                (
                    400,
                    "A value is missing, malformed or out of range; the first bad field is named",
                ),
                (401, "No or wrong credentials"),
                (404, "Not there, or another account's"),
                (405, "Not by this method; Allow names those that are"),
                (429, "Too many; Retry-After says when"),
                (500, "Our fault"),
                (503, "The store is away, or this node stops; Retry-After says when to ask again"),
            ],
            Self::Number => &[
                (400, "A value is bad; field names it"),
                (401, "No or a wrong X-API-Key"),
                (403, "Not with this role"),
                (404, "Not there, or another account's"),
                (405, "Not by this method; Allow names those that are"),
                (429, "Too many; Retry-After says when"),
                (500, "Our fault"),
                (503, "The store is away, or this node stops; Retry-After says when to ask again"),
            ],
            Self::Other => &[],
        }
    }

    /// Answers that every operation with a body may have.
    fn of_bodies(self) -> &'static [(u16, &'static str)] {
        match self {
            Self::Plivo | Self::Number => &[
                (408, "The body took longer than 15 s"),
                (413, "The body is larger than 256 KiB"),
                (415, "The body is compressed"),
            ],
            Self::Other => &[],
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

/// The document.
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (family, tables) in Family::ALL {
        for route in tables.iter().copied().flatten() {
            let operation = operation(family, route, &mut schemas);
            paths.entry(route.path).or_default().insert(route.method.to_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Offhook",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Call control for WhatsApp calls. A missing last slash of a path makes no difference.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": Family::ALL.map(|(family, _)| json!({"name": family.tag()})),
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

/// `GET /openapi.json`.
pub(super) async fn serve() -> Response {
    static TEXT: LazyLock<String> = LazyLock::new(|| document().to_string());
    let mut response = Response::new(Body::from(TEXT.as_str()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn operation(family: Family, route: &Route, schemas: &mut Schemas) -> Value {
    let named =
        route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = named.map(path_parameter).collect();
    parameters.extend(route.query.iter().map(query_parameter));
    let mut answers = Map::new();
    let no = |schemas: &mut Schemas| match family {
        Family::Plivo => in_plivos_shape(of::<PlivoError<'_>>, schemas),
        Family::Number | Family::Other => of::<OurBody<'_>>(schemas),
    };
    let of_body = route.body.iter().flat_map(|_| family.of_bodies());
    for (status, what) in family.common().iter().chain(of_body) {
        answers.insert(
            status.to_string(),
            answer(what, Some(("application/json", Some(no(schemas))))),
        );
    }
    for Answer { status, what, content } in route.answers {
        answers.insert(status.to_string(), answer(what, media(content, schemas)));
    }
    let mut operation = Map::from_iter([
        ("tags".to_owned(), json!([family.tag()])),
        ("operationId".to_owned(), route.id.into()),
        ("summary".to_owned(), route.summary.into()),
        ("parameters".to_owned(), parameters.into()),
        ("security".to_owned(), family.security()),
        ("responses".to_owned(), answers.into()),
    ]);
    if let Some(body) = &route.body {
        let content =
            match (plivo::bodies::schema(route.id), number::bodies::schema(route.id, schemas)) {
                (Some(schema), _) => {
                    json!({body.content_type: {"schema": schema}, FORM: {"schema": schema}})
                }
                (None, Some(schema)) => json!({body.content_type: {"schema": schema}}),
                (None, None) if route.id == "webhook" => {
                    json!({body.content_type: {"schema": of_meta()}})
                }
                // A file or a document.
                (None, None) => json!({body.content_type: {}}),
            };
        let body = json!({"description": body.what, "required": true, "content": content});
        operation.insert("requestBody".to_owned(), body);
    }
    operation.into()
}

/// What Meta posts, as far as anything is taken for granted of it.
fn of_meta() -> Value {
    json!({
        "type": "object",
        "properties": {
            "object": {"type": "string"},
            "entry": {"type": "array", "items": {"type": "object"}},
        },
        "examples": [{"object": "whatsapp_business_account", "entry": [{"id": "102290129340398", "changes": []}]}],
    })
}

fn path_parameter(name: &str) -> Value {
    let schema = match name {
        "call_uuid" => json!({"type": "string", "format": "uuid"}),
        _ => json!({"type": "string"}),
    };
    json!({"name": name, "in": "path", "required": true, "schema": schema})
}

fn query_parameter(query: &Query) -> Value {
    let schema = match query.kind {
        Kind::Text => json!({"type": "string"}),
        Kind::Uuid => json!({"type": "string", "format": "uuid"}),
        Kind::Integer(min, max) => json!({"type": "integer", "minimum": min, "maximum": max}),
        Kind::Words(words) => json!({"type": "string", "enum": words}),
    };
    json!({"name": query.name, "in": "query", "required": false, "description": query.what, "schema": schema})
}

fn answer(what: &str, media: Option<(&'static str, Option<Value>)>) -> Value {
    match media {
        None => json!({"description": what}),
        Some((content_type, None)) => json!({"description": what, "content": {content_type: {}}}),
        Some((content_type, Some(schema))) => {
            json!({"description": what, "content": {content_type: {"schema": schema}}})
        }
    }
}

fn media(content: &Content, schemas: &mut Schemas) -> Option<(&'static str, Option<Value>)> {
    const JSON: &str = "application/json";
    match content {
        Content::Nothing => None,
        Content::Json(schema) => Some((JSON, Some(schema(schemas)))),
        Content::Plivo([only]) => Some((JSON, Some(in_plivos_shape(*only, schemas)))),
        Content::Plivo(several) => {
            let several: Vec<Value> =
                several.iter().map(|schema| in_plivos_shape(*schema, schemas)).collect();
            Some((JSON, Some(json!({"anyOf": several}))))
        }
        Content::Text(content_type) => Some((content_type, None)),
    }
}

/// The object's fields beside `api_id` (`plivo-call-api.md` §1.5).
fn in_plivos_shape(schema: super::routes::Schema, schemas: &mut Schemas) -> Value {
    let id = json!({
        "type": "object", "required": ["api_id"], "properties": {"api_id": {"type": "string", "format": "uuid"}},
    });
    json!({"allOf": [id, schema(schemas)]})
}
