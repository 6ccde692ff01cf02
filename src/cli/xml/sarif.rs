//! Findings as a SARIF 2.1.0 document (OASIS), for code hosts and editors: one run, the rules with
//! explanations, and one result per finding.

use serde_json::{Value, json};

use super::source::{STDIN, is_url};
use xml::ast::{Finding, Severity};
use xml::explain::{Explanation, all};
use xml::rules::{self, Rule};
use xml::{self, ParseOutcome};

/// Address of the SARIF schema.
const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";
/// Maximum length of a quoted line, in characters.
const SNIPPET_MAX: usize = 200;

/// Builder of the document.
#[derive(Default)]
pub(super) struct Sarif {
    artifacts: Vec<Value>,
    results: Vec<Value>,
    notifications: Vec<Value>,
}

impl Sarif {
    /// Adds the findings of an answer document.
    pub(super) fn add(&mut self, source: &str, parsed: &ParseOutcome) {
        let uri = uri(source);
        let index = self.artifacts.len();
        let mut artifact = json!({"location": {"uri": uri}, "roles": ["analysisTarget"]});
        if source == STDIN {
            artifact["location"]["description"] = json!({"text": "standard input"});
        }
        self.artifacts.push(artifact);
        self.results.extend(
            parsed.findings.iter().map(|f| result(f, &uri, index, parsed.source.as_deref())),
        );
        if parsed.omitted > 0 {
            let text = format!("{source}: {} more findings omitted", parsed.omitted);
            self.notifications.push(json!({"level": "note", "message": {"text": text}}));
        }
    }

    /// Adds a source that could not be read.
    pub(super) fn unreadable(&mut self, why: &str) {
        self.notifications.push(json!({"level": "error", "message": {"text": why}}));
    }

    /// The complete document.
    pub(super) fn document(self) -> Value {
        let failed = self.notifications.iter().any(|n| n["level"] == "error");
        json!({
            "$schema": SCHEMA,
            "version": "2.1.0",
            "runs": [{
                "tool": {"driver": {
                    "name": "Offhook",
                    "semanticVersion": env!("CARGO_PKG_VERSION"),
                    "rules": all().map(|e| rule(&e)).collect::<Vec<_>>(),
                }},
                // Columns count characters, not UTF-16 units.
                "columnKind": "unicodeCodePoints",
                "invocations": [{"executionSuccessful": !failed, "toolExecutionNotifications": self.notifications}],
                "artifacts": self.artifacts,
                "results": self.results,
            }],
        })
    }
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    }
}

fn rule(e: &Explanation) -> Value {
    let Rule { id, meaning } = e.rule;
    let (wrong, right) = (e.incorrect.text, e.correct.text);
    json!({
        "id": id,
        "shortDescription": {"text": meaning},
        "fullDescription": {"text": e.requirement},
        "help": {
            "text": format!("{}\n\nWrong:\n{wrong}\n\nRight:\n{right}", e.reason),
            "markdown": format!("{}\n\nWrong:\n\n```xml\n{wrong}\n```\n\nRight:\n\n```xml\n{right}\n```", e.reason),
        },
        "defaultConfiguration": {"level": level(e.rule.severity())},
    })
}

fn result(finding: &Finding, uri: &str, artifact: usize, text: Option<&str>) -> Value {
    let mut region = json!({"startLine": finding.at.line, "startColumn": finding.at.column});
    if let Some((line, _)) = text.and_then(|text| xml::line_at(text, finding.at)) {
        region["snippet"] = json!({"text": line.chars().take(SNIPPET_MAX).collect::<String>()});
    }
    let mut result = json!({
        "ruleId": finding.rule,
        "level": level(finding.severity),
        "message": {"text": format!("{}: {}", finding.message, finding.hint)},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": uri, "index": artifact},
            "region": region,
        }}],
    });
    if let Some(index) = rules::ALL.iter().position(|rule| rule.id == finding.rule) {
        result["ruleIndex"] = index.into();
    }
    result
}

/// The URI of a source: URLs stay, absolute paths become `file:` URLs, other paths become relative
/// references.
fn uri(source: &str) -> String {
    if source == STDIN {
        return "stdin".to_owned();
    }
    if is_url(source) {
        return url::Url::parse(source).map_or_else(|_| percent_encode(source), String::from);
    }
    match url::Url::from_file_path(source) {
        Ok(url) => url.into(),
        Err(()) => percent_encode(source),
    }
}

/// Percent-encodes all but unreserved characters and `/` (RFC 3986).
fn percent_encode(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(byte.into())
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::{Sarif, uri};
    use xml::{self, rules};

    /// Schema of the objects that we write: their required and their allowed keys. The schema has
    /// `additionalProperties: false`; some keys that we do not write are left out.
    const OBJECTS: &[(&str, &[&str], &[&str])] = &[
        ("", &["version", "runs"], &["$schema", "version", "runs"]),
        ("run", &["tool"], &["tool", "columnKind", "invocations", "artifacts", "results"]),
        ("tool", &["driver"], &["driver", "extensions"]),
        ("driver", &["name"], &["name", "version", "semanticVersion", "informationUri", "rules"]),
        (
            "rule",
            &["id"],
            &["id", "shortDescription", "fullDescription", "help", "defaultConfiguration"],
        ),
        ("result", &["message"], &["ruleId", "ruleIndex", "level", "message", "locations"]),
        (
            "invocation",
            &["executionSuccessful"],
            &["executionSuccessful", "toolExecutionNotifications"],
        ),
        ("notification", &["message"], &["level", "message"]),
        ("artifact", &[], &["location", "roles"]),
        ("location", &[], &["physicalLocation"]),
        ("physicalLocation", &[], &["artifactLocation", "region"]),
        ("artifactLocation", &[], &["uri", "index", "description"]),
        ("region", &[], &["startLine", "startColumn", "snippet"]),
        ("snippet", &[], &["text"]),
        ("message", &["text"], &["text", "markdown"]),
        ("configuration", &[], &["level"]),
    ];

    fn check_object(kind: &str, object: &Value) {
        let (_, required, known) = OBJECTS.iter().find(|(name, ..)| *name == kind).expect(kind);
        let object = object.as_object().unwrap_or_else(|| panic!("{kind} is an object: {object}"));
        for key in *required {
            assert!(object.contains_key(*key), "{kind} has {key}");
        }
        for (key, value) in object {
            assert!(known.contains(&key.as_str()), "{kind}: {key}");
            let each = |kind: &str| {
                value.as_array().expect(key).iter().for_each(|item| check_object(kind, item))
            };
            match key.as_str() {
                "runs" => each("run"),
                "rules" => each("rule"),
                "results" => each("result"),
                "invocations" => each("invocation"),
                "toolExecutionNotifications" => each("notification"),
                "artifacts" => each("artifact"),
                "locations" => each("location"),
                "tool" | "driver" | "physicalLocation" | "artifactLocation" | "region"
                | "snippet" => check_object(key, value),
                "location" => check_object("artifactLocation", value),
                "message" | "shortDescription" | "fullDescription" | "help" | "description" => {
                    check_object("message", value)
                }
                "defaultConfiguration" => check_object("configuration", value),
                "roles" => assert_eq!(value, &serde_json::json!(["analysisTarget"])),
                "level" => assert!(
                    ["none", "note", "warning", "error"].contains(&value.as_str().expect(key))
                ),
                "columnKind" => assert!(
                    ["utf16CodeUnits", "unicodeCodePoints"].contains(&value.as_str().expect(key))
                ),
                "startLine" | "startColumn" => assert!(value.as_u64().expect(key) >= 1, "{key}"),
                "index" | "ruleIndex" => assert!(value.as_i64().expect(key) >= -1, "{key}"),
                "executionSuccessful" => assert!(value.is_boolean()),
                "version" => assert_eq!(value, "2.1.0"),
                _ => assert!(
                    value.as_str().is_some_and(|text| !text.is_empty()),
                    "{kind}.{key}: {value}"
                ),
            }
        }
    }

    #[test]
    fn the_document_conforms_to_the_schema() {
        let mut sarif = Sarif::default();
        let documents = [
            ("menu.xml", "<Response>\n  <Play/>\n  <Speak a=\"1\">caf\u{e9}</Speak></Response>"),
            ("-", "<Response/>"),
            ("https://app.example.com/a b", "<Response><Wait/></Response>"),
            ("/tmp/x.xml", "\u{0}"),
        ];
        for (name, text) in documents {
            sarif.add(name, &xml::parse(text.as_bytes(), None));
        }
        sarif.unreadable("could not read x");
        let document = sarif.document();
        check_object("", &document);
        let run = &document["runs"][0];
        let uris: Vec<_> = (0..4)
            .map(|i| run["artifacts"][i]["location"]["uri"].as_str().expect("a URI"))
            .collect();
        assert_eq!(
            uris,
            ["menu.xml", "stdin", "https://app.example.com/a%20b", "file:///tmp/x.xml"]
        );
        assert_eq!(run["invocations"][0]["executionSuccessful"], false);
        let results = run["results"].as_array().expect("results");
        let rules_found: Vec<_> =
            results.iter().map(|r| r["ruleId"].as_str().expect("a rule")).collect();
        assert_eq!(rules_found, ["E205", "W301", "W308", "E103"]);
        for result in results {
            let index =
                usize::try_from(result["ruleIndex"].as_u64().expect("an index")).expect("small");
            assert_eq!(run["tool"]["driver"]["rules"][index]["id"], result["ruleId"]);
            assert_eq!(rules::ALL[index].id, result["ruleId"]);
        }
        let place = &results[1]["locations"][0]["physicalLocation"];
        assert_eq!(
            (&place["region"]["startLine"], &place["region"]["startColumn"]),
            (&3.into(), &10.into())
        );
        assert_eq!(
            place["region"]["snippet"]["text"],
            "  <Speak a=\"1\">caf\u{e9}</Speak></Response>"
        );
        let ids: BTreeSet<_> = run["tool"]["driver"]["rules"]
            .as_array()
            .expect("rules")
            .iter()
            .map(|r| r["id"].as_str())
            .collect();
        assert_eq!(ids.len(), rules::ALL.len());
    }

    #[test]
    fn a_run_without_documents_is_successful() {
        let document = Sarif::default().document();
        check_object("", &document);
        assert_eq!(document["runs"][0]["invocations"][0]["executionSuccessful"], true);
    }

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("a b/ü.xml"), "a%20b/%C3%BC.xml");
        assert_eq!(uri("./menu.xml"), "./menu.xml");
        assert_eq!(uri("/a b"), "file:///a%20b");
    }
}
