//! The OpenAPI document agrees with the routes and their responses.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{MAIN, SUB, run, uuid};
use crate::api::openapi::document;
use crate::api::routes::{BodyContent, Operation};
use crate::api::{number, plivo};

/// Validates a value against a schema. Supports only the keywords that our schemas use, and fails
/// on any other, so that a new keyword needs a check here first.
fn hold(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{at}: {what}"));
    for (keyword, rule) in schema.as_object().ok_or_else(|| format!("{at}: no schema: {schema}"))? {
        match keyword.as_str() {
            "$ref" => hold(document, resolved(document, rule), value, at)?,
            "type" => {
                let types: Vec<&Value> =
                    rule.as_array().map_or_else(|| vec![rule], |many| many.iter().collect());
                if !types.iter().any(|t| is_of(value, t.as_str().unwrap_or_default())) {
                    return wrong(format!("{value} is not {rule}"));
                }
            }
            "properties" => {
                for (name, schema) in rule.as_object().into_iter().flatten() {
                    if let Some(value) = value.get(name) {
                        hold(document, schema, value, &format!("{at}.{name}"))?;
                    }
                }
            }
            "required" => {
                for name in rule.as_array().into_iter().flatten().filter_map(Value::as_str) {
                    if value.get(name).is_none() {
                        return wrong(format!("{name} is missing"));
                    }
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    hold(document, rule, item, &format!("{at}[{n}]"))?;
                }
            }
            "enum" => {
                if !rule.as_array().is_some_and(|words| words.contains(value)) {
                    return wrong(format!("{value} is none of {rule}"));
                }
            }
            "allOf" => rule
                .as_array()
                .into_iter()
                .flatten()
                .try_for_each(|s| hold(document, s, value, at))?,
            "anyOf" | "oneOf" => {
                let tried: Vec<_> = rule
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|s| hold(document, s, value, at))
                    .collect();
                if !tried.iter().any(Result::is_ok) {
                    return wrong(format!("{value} matches no alternative: {tried:?}"));
                }
            }
            "format" => {
                let text = value.as_str();
                let fits = match rule.as_str().unwrap_or_default() {
                    "uuid" => text.is_none_or(|t| t.parse::<uuid::Uuid>().is_ok()),
                    "date-time" => text.is_none_or(|t| t.parse::<jiff::Timestamp>().is_ok()),
                    "int32" | "int64" => true,
                    other => panic!("{at}: format {other} is not checked"),
                };
                if !fits {
                    return wrong(format!("{value} is not {rule}"));
                }
            }
            "minimum" => {
                if value.as_f64().zip(rule.as_f64()).is_some_and(|(v, min)| v < min) {
                    return wrong(format!("{value} is less than {rule}"));
                }
            }
            "description" => {}
            other => panic!("{at}: the keyword {other} is not checked"),
        }
    }
    Ok(())
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

fn resolved<'d>(document: &'d Value, reference: &Value) -> &'d Value {
    let pointer = reference
        .as_str()
        .and_then(|r| r.strip_prefix('#'))
        .unwrap_or_else(|| panic!("{reference}"));
    document.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

/// The names of all properties that a schema has at this level.
fn named(document: &Value, schema: &Value) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name.clone())
        .collect();
    if schema.get("$ref").is_some() {
        names.extend(named(document, resolved(document, &schema["$ref"])));
    }
    for several in ["allOf", "anyOf", "oneOf"] {
        names.extend(
            schema[several].as_array().into_iter().flatten().flat_map(|s| named(document, s)),
        );
    }
    names
}

#[test]
fn the_document_is_complete() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} twice");
            let declared: BTreeSet<_> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|p| p["in"] == "path")
                .map(|p| format!("{{{}}}", p["name"].as_str().unwrap()))
                .collect();
            let used: BTreeSet<_> =
                path.split('/').filter(|s| s.starts_with('{')).map(str::to_owned).collect();
            assert_eq!(declared, used, "{method} {path}");
            let answers = operation["responses"].as_object().unwrap();
            assert!(answers.keys().any(|s| s.starts_with('2') || s == "101"), "{method} {path}");
            assert!(!operation["summary"].as_str().unwrap().is_empty());
        }
    }
    // Every reference resolves.
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"").skip(1) {
        let reference = reference.split('"').next().unwrap();
        resolved(&document, &reference.into());
    }
}

/// All properties of a body's schema, through references and `allOf`.
fn properties<'d>(document: &'d Value, schema: &'d Value) -> Vec<(&'d String, &'d Value)> {
    let own = schema["properties"].as_object().into_iter().flatten();
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let named = schema.get("$ref").map(|reference| resolved(document, reference));
    own.chain(parts.chain(named).flat_map(|part| properties(document, part))).collect()
}

fn example<'d>(document: &'d Value, schema: &'d Value) -> Option<&'d Value> {
    let parts = schema["allOf"].as_array().into_iter().flatten();
    let named = schema.get("$ref").map(|reference| resolved(document, reference));
    schema["examples"]
        .get(0)
        .or_else(|| parts.chain(named).find_map(|part| example(document, part)))
}

#[test]
fn every_body_has_a_schema_and_an_example() {
    let document = document();
    let mut seen = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for operation in operations.as_object().unwrap().values() {
            let Some(body) = operation.get("requestBody") else { continue };
            for (kind, content) in body["content"].as_object().unwrap() {
                // Files and XML documents have no JSON schema.
                if ["*/*", "application/xml"].contains(&kind.as_str()) {
                    continue;
                }
                seen += 1;
                let schema = &content["schema"];
                assert!(!properties(&document, schema).is_empty(), "{path}: {schema}");
                assert!(example(&document, schema).is_some(), "{path}: no example: {schema}");
                for status in ["408", "413", "415"] {
                    let ours = !path.starts_with("/webhooks/");
                    assert_eq!(
                        operation["responses"].get(status).is_some(),
                        ours || status == "413",
                        "{path} {status}"
                    );
                }
            }
        }
    }
    assert!(seen > 60, "{seen}");
}

/// The number API documents the types that it deserializes. The example of each body must be
/// accepted, and each documented field must be rejected if its value has the wrong type.
#[test]
fn the_number_api_reads_the_documented_bodies() {
    let document = document();
    let operations: Vec<&Value> = document["paths"]
        .as_object()
        .unwrap()
        .values()
        .flat_map(|path| path.as_object().unwrap().values())
        .collect();
    let mut seen = 0;
    for route in number::TABLES.iter().copied().flatten() {
        let Some(BodyContent::Json { read, .. }) =
            route.operation.body.as_ref().map(|body| &body.content)
        else {
            continue;
        };
        seen += 1;
        let id = route.operation.id;
        let operation = operations.iter().find(|operation| operation["operationId"] == id).unwrap();
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let example = example(&document, schema).unwrap();
        read(example.clone()).unwrap_or_else(|why| panic!("{id}: {example}: {why}"));
        for (name, _) in properties(&document, schema) {
            let mut with = example.clone();
            // The content of a message is only read if it matches the message's type.
            if id == "sendMessage" && !["type", "context"].contains(&name.as_str()) {
                with["type"] = name.as_str().into();
            }
            with[name] = serde_json::json!({"no": ["such", "thing"]});
            assert!(read(with).is_err(), "{id}: {name} is not read");
        }
    }
    assert!(seen > 15, "{seen}");
}

#[test]
fn documents_every_path_of_the_listener() {
    let document = document();
    // Web pages, and the fallbacks for all paths of an API.
    let others = [
        "/",
        "/console",
        "/console/",
        "/.well-known/offhook.json",
        "/examples/phone.html",
        "/examples/phone.js",
        "/v1/{*path}",
        "/api/v1/{*path}",
    ];
    let mut seen = 0;
    for source in [
        include_str!("../mod.rs"),
        include_str!("../../node/routes.rs"),
        include_str!("../../phone/mod.rs"),
    ] {
        for route in source.split(".route(\"").skip(1) {
            let path = route.split('"').next().unwrap();
            seen += 1;
            assert!(others.contains(&path) || document["paths"].get(path).is_some(), "{path}");
        }
    }
    assert!(seen >= 6, "{seen} paths");
}

#[tokio::test]
async fn every_operation_is_served_and_answers_as_documented() {
    let document = document();
    let node = run().await;
    // (method, requested path, path in the document, body)
    let mut asked = Vec::new();
    let plivo = plivo::TABLES.iter().copied().flatten().map(AsRef::as_ref);
    let number = number::TABLES.iter().copied().flatten().map(AsRef::as_ref);
    for operation in plivo.chain(number) {
        let operation: &Operation = operation;
        // `uuid(101)` is live, `uuid(3)` has ended, and `uuid(99)` does not exist.
        for call in [3, 101, 99] {
            let call = uuid(call).to_string();
            let named = [
                ("auth_id", MAIN),
                ("call_uuid", &*call),
                ("request_uuid", &*call),
                ("endpoint_id", "12345678901234"),
                ("number", "918035737458"),
                ("waba_id", "700"),
                ("node_id", "n1"),
                ("wa_id", "919412341234"),
                ("subauth_id", SUB),
                ("app_id", "1"),
                ("recording_id", "1"),
                ("stream_id", "00000000-0000-0000-0000-000000000007"),
                ("name", "room"),
                ("member_ids", "1"),
                ("member_id", "1"),
                ("mpc", "name_room"),
                ("user_id", "919412341234"),
                ("agent_id", "00000000-0000-0000-0000-000000000007"),
                ("notification_id", "00000000-0000-0000-0000-000000000007"),
                ("conversation_id", "00000000-0000-0000-0000-000000000007"),
                ("webhook_id", "00000000-0000-0000-0000-000000000007"),
                ("event_id", "00000000-0000-0000-0000-000000000007"),
                ("label_id", "00000000-0000-0000-0000-000000000007"),
                ("reply_id", "00000000-0000-0000-0000-000000000007"),
                ("note_id", "00000000-0000-0000-0000-000000000007"),
                ("key_id", &*call),
            ];
            let path = named.iter().fold(operation.path.to_owned(), |path, (name, value)| {
                path.replace(&format!("{{{name}}}"), value)
            });
            assert!(!path.contains('{'), "{path}: what is this parameter?");
            for query in ["", "?status=live", "?status=nonsense", "?limit=0"] {
                asked.push((operation.method, format!("{path}{query}"), operation.path));
            }
        }
    }
    for (method, path, template) in asked {
        let body = if path.contains("xml/check") { "<Response><Speek/></Response>" } else { "" };
        let answer = match path.strip_prefix("/api/v1/") {
            Some(rest) => node.ours(MAIN, method, rest, body).await,
            None => {
                node.plivo(MAIN, method, path.split_once(MAIN).unwrap().1.trim_start_matches('/'))
                    .await
            }
        };
        let operation = &document["paths"][template][method.to_lowercase()];
        let documented = &operation["responses"][answer.status.to_string()];
        assert!(documented.is_object(), "{method} {path}: {} is not documented", answer.status);
        assert_ne!(answer.status, 405, "{method} {path}");
        assert!(
            !answer.body.contains("no such path") && !answer.body.contains("not available"),
            "{path}"
        );
        let schema = &documented["content"]["application/json"]["schema"];
        if schema.is_object() {
            let value = answer.json();
            hold(&document, schema, &value, &format!("{method} {path}")).unwrap();
            let known = named(&document, schema);
            for name in value.as_object().unwrap().keys() {
                assert!(known.contains(name), "{method} {path}: {name} is not documented");
            }
        }
    }
    let served = node.ask("GET", "/openapi.json", "", "").await;
    assert_eq!((served.status, served.json()), (200, document));
    node.cancel.cancel();
}
