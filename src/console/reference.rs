//! The reference of the REST APIs, from the OpenAPI document of this node.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::App;
use super::auth::Visitor;
use super::page::{Page, bad_query, html};
use crate::api::openapi;

/// Responses whose description is shared by more operations than this are omitted.
const SHARED_BY: usize = 15;
/// Description of fields that Plivo has and this node ignores.
const IGNORED: &str = "Accepted, without effect";

/// An operation of an API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OperationView {
    id: String,
    family: String,
    method: String,
    path: String,
    summary: String,
    fields: Vec<FieldView>,
    body: String,
    /// An example of the body, as JSON. Empty if there is none.
    example: String,
    /// Statuses with descriptions.
    responses: Vec<(String, String)>,
    /// Name of the security scheme. Empty if none is needed.
    security: String,
}

/// A parameter, or a field of the body.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldView {
    /// Location of the field: `path`, `query` or `body`.
    place: String,
    name: String,
    kind: String,
    required: bool,
    text: String,
}

#[derive(Template)]
#[template(path = "reference.html")]
struct ReferencePage {
    page: Page,
    families: Vec<(String, Vec<OperationView>)>,
    count: usize,
    q: String,
    base_url: String,
    auth_id: String,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    if let Err(unreadable) = visitor.query.check_names(&[&["q"]]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    static ALL: OnceLock<Vec<OperationView>> = OnceLock::new();
    let all = ALL.get_or_init(|| operations(&openapi::document()));
    let q = visitor.query.get("q").to_lowercase();
    let found: Vec<OperationView> =
        all.iter().filter(|operation| operation.matches(&q)).cloned().collect();
    let count = found.len();
    let mut families: Vec<(String, Vec<OperationView>)> = Vec::new();
    for operation in found {
        match families.last_mut().filter(|(family, _)| *family == operation.family) {
            Some((_, operations)) => operations.push(operation),
            None => families.push((operation.family.clone(), vec![operation])),
        }
    }
    html(&ReferencePage {
        families,
        count,
        q: visitor.query.get("q").to_owned(),
        base_url: console.apis.api().base_url.clone(),
        auth_id: visitor.person.user.account.to_string(),
        page: visitor.page(&console, visitor.lang().t("nav.reference"), "reference"),
    })
}

impl ReferencePage {
    /// The name of a family, by the first word of its tag.
    fn family<'t>(&self, tag: &'t str) -> &'t str {
        let word = tag.split(' ').next().unwrap_or_default().to_lowercase();
        self.page.lang.find(&format!("reference.family.{word}")).unwrap_or(tag)
    }

    /// The location of a field.
    fn place<'f>(&self, field: &'f FieldView) -> &'f str {
        self.page.lang.find(&format!("reference.place.{}", field.place)).unwrap_or(&field.place)
    }
}

impl OperationView {
    fn matches(&self, q: &str) -> bool {
        q.split_whitespace().all(|word| {
            [&self.path, &self.summary, &self.method, &self.id]
                .into_iter()
                .any(|text| text.to_lowercase().contains(word))
        })
    }

    /// A request for the command line.
    fn curl(&self, base_url: &str, auth_id: &str) -> String {
        let path = self.path.replace("{auth_id}", auth_id);
        let mut text = String::from("curl");
        match self.security.as_str() {
            "basic" => text.push_str(&format!(" -u \"{auth_id}:$OFFHOOK_AUTH_TOKEN\"")),
            "apiKey" => text.push_str(" -H \"X-API-Key: $OFFHOOK_API_KEY\""),
            _ => {}
        }
        if self.method != "GET" {
            text.push_str(&format!(" -X {}", self.method));
        }
        text.push_str(&format!(" \\\n  '{base_url}{path}'"));
        if !self.example.is_empty() {
            let body = self.example.replace('\'', "'\\''");
            text.push_str(&format!(" \\\n  -H 'content-type: application/json' \\\n  -d '{body}'"));
        }
        text
    }
}

/// The operations of an OpenAPI document, by family and path.
fn operations(document: &Value) -> Vec<OperationView> {
    let schemas = document.pointer("/components/schemas").unwrap_or(&Value::Null);
    let families: Vec<&str> = list(document, "tags").map(|tag| text(tag, "name")).collect();
    let paths = document.get("paths").and_then(Value::as_object);
    let mut all: Vec<OperationView> = paths
        .into_iter()
        .flatten()
        .flat_map(|(path, methods)| {
            methods.as_object().into_iter().flatten().map(move |(method, operation)| {
                view(schemas, &method.to_uppercase(), path, operation)
            })
        })
        .collect();
    let mut shared: BTreeMap<String, usize> = BTreeMap::new();
    for (_, description) in all.iter().flat_map(|operation| &operation.responses) {
        *shared.entry(description.clone()).or_default() += 1;
    }
    let is_own = |(_, description): &(String, String)| {
        shared.get(description).is_none_or(|count| *count <= SHARED_BY)
    };
    all.iter_mut().for_each(|operation| operation.responses.retain(is_own));
    let position = |family: &str| families.iter().position(|known| *known == family);
    all.sort_by_key(|operation| position(&operation.family));
    all
}

fn view(schemas: &Value, method: &str, path: &str, operation: &Value) -> OperationView {
    let mut fields: Vec<FieldView> = list(operation, "parameters")
        .map(|parameter| FieldView {
            place: text(parameter, "in").to_owned(),
            name: text(parameter, "name").to_owned(),
            kind: kind(parameter.get("schema").unwrap_or(&Value::Null)),
            required: parameter.get("required") == Some(&Value::Bool(true)),
            text: text(parameter, "description").to_owned(),
        })
        .collect();
    let schema = operation.pointer("/requestBody/content/application~1json/schema");
    let schema = schema.map(|schema| resolved(schemas, schema)).unwrap_or(&Value::Null);
    let required: Vec<&str> = list(schema, "required").filter_map(Value::as_str).collect();
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let about = text(property, "description");
        if about != IGNORED {
            fields.push(FieldView {
                place: "body".to_owned(),
                name: name.clone(),
                kind: kind(property),
                required: required.contains(&name.as_str()),
                text: about.to_owned(),
            });
        }
    }
    let example = list(schema, "examples").next();
    let security = operation.pointer("/security/0").and_then(Value::as_object);
    OperationView {
        id: text(operation, "operationId").to_owned(),
        family: list(operation, "tags").next().and_then(Value::as_str).unwrap_or_default().into(),
        method: method.to_owned(),
        path: path.to_owned(),
        summary: text(operation, "summary").to_owned(),
        fields,
        body: operation
            .pointer("/requestBody/description")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned(),
        example: example.and_then(|it| serde_json::to_string(it).ok()).unwrap_or_default(),
        responses: operation
            .get("responses")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(status, response)| (status.clone(), text(response, "description").to_owned()))
            .collect(),
        security: security.and_then(|one| one.keys().next()).cloned().unwrap_or_default(),
    }
}

/// The schema that a reference names, or the schema itself.
fn resolved<'a>(schemas: &'a Value, schema: &'a Value) -> &'a Value {
    let name = text(schema, "$ref").rsplit('/').next().unwrap_or_default();
    schemas.get(name).unwrap_or(schema)
}

/// Describes the type of a value: `string`, `integer`, the allowed words, or the name of a schema.
fn kind(schema: &Value) -> String {
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
        return words.join(" | ");
    }
    match schema.get("type") {
        Some(Value::String(kind)) => match text(schema, "format") {
            "" => kind.clone(),
            format => format.to_lowercase(),
        },
        Some(Value::Array(kinds)) => {
            let kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
            kinds.join(" | ")
        }
        _ => text(schema, "$ref").rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_path_a_summary_and_its_own_responses() {
        let all = operations(&openapi::document());
        assert!(all.len() > 100, "{}", all.len());
        for operation in &all {
            assert!(!operation.summary.is_empty() && !operation.family.is_empty(), "{operation:?}");
        }
        let found: Vec<_> =
            all.iter().filter(|operation| operation.matches("post /call/")).collect();
        let call = found
            .iter()
            .find(|operation| operation.id == "placeCall" || operation.path.ends_with("/Call/"));
        let call = call.expect("the operation that places a call");
        assert!(call.fields.iter().any(|field| field.name == "from" && field.required), "{call:?}");
        assert!(call.fields.iter().all(|field| field.text != IGNORED));
        let curl = call.curl("https://calls.example.com", "MA1");
        assert!(curl.contains("'https://calls.example.com/v1/Account/MA1/Call/'"), "{curl}");
        assert!(curl.contains("-u \"MA1:$OFFHOOK_AUTH_TOKEN\" -X POST"), "{curl}");
    }
}
