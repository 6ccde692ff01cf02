//! Tests of the crate: the fixtures here, and one module per topic.

mod elements;
mod hostile;
mod round_trip;
mod values;
mod wellformed;

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::ast::ElementKind;
use super::*;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/plivo-xml")
}

/// The documents of the fixtures, sorted by file name.
fn fixture_documents() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "xml"))
        .map(|path| {
            (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(path).unwrap())
        })
        .collect();
    all.sort();
    all
}

/// Rule, line and column of each finding.
fn found(body: &[u8]) -> Vec<(String, u32, u32)> {
    parse(body, None).findings.into_iter().map(|f| (f.rule, f.at.line, f.at.column)).collect()
}

/// The rules violated by the content of `Response`, in the order of the checks.
fn violated_rules(inner: &str) -> Vec<String> {
    let document = format!("<Response>{inner}</Response>");
    parse(document.as_bytes(), None).findings.into_iter().map(|f| f.rule).collect()
}

/// The elements of a valid document with this content of `Response`.
fn elements(inner: &str) -> Vec<ElementKind> {
    let parsed = parse(format!("<Response>{inner}</Response>").as_bytes(), None);
    let document = parsed.document.unwrap_or_else(|| panic!("{inner}: {:?}", parsed.findings));
    document.elements.iter().map(|e| e.kind.clone()).collect()
}

#[test]
fn fixtures_have_the_expected_findings() {
    let text = std::fs::read_to_string(fixtures().join("expectations.json")).unwrap();
    let expectations: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    let documents = fixture_documents();
    for (file, body) in &documents {
        let parsed = parse(body, None);
        let expected = &expectations[file];
        let want: BTreeSet<(&str, u64)> = expected["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| (f["rule"].as_str().unwrap(), f["line"].as_u64().unwrap()))
            .collect();
        let got: BTreeSet<(&str, u64)> =
            parsed.findings.iter().map(|f| (f.rule.as_str(), f.at.line.into())).collect();
        if got != want || parsed.is_ok() != expected["ok"].as_bool().unwrap() {
            wrong.push(format!("{file}: ok={} {got:?}, expected {want:?}", parsed.is_ok()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(documents.len(), expectations.len());
    assert!(documents.len() >= 108);
}

/// Asserts the invariants of every outcome.
fn check_invariants(parsed: &ParseOutcome) {
    let errors = parsed.findings.iter().filter(|f| f.severity == ast::Severity::Error).count();
    assert_eq!(parsed.is_ok(), errors == 0, "{:?}", parsed.findings);
    assert_eq!(parsed.first_fault.is_some(), errors > 0);
    assert!(parsed.findings.len() <= findings::MAX_FINDINGS + 1);
    for finding in &parsed.findings {
        let rule = rules::rule(&finding.rule)
            .unwrap_or_else(|| panic!("{} is not in the table", finding.rule));
        assert_eq!(rule.severity(), finding.severity);
        assert!(finding.at.line >= 1 && finding.at.column >= 1);
        assert!(!finding.message.is_empty() && !finding.hint.is_empty(), "{finding:?}");
        assert!(!finding.message.chars().any(char::is_control), "{finding:?}");
        assert!(finding.message.len() < 1_000, "{finding:?}");
    }
    // E101 to E201 stop the validation and are reported alone.
    if parsed.findings.iter().any(|f| f.rule.starts_with("E10") || f.rule == "E201") {
        assert_eq!(parsed.findings.len(), 1);
    }
    if let (Some(source), Some(finding)) = (&parsed.source, parsed.findings.first()) {
        assert!(line_at(source, finding.at).is_some(), "{finding:?} is outside the text");
    }
}

#[test]
fn fixtures_keep_the_invariants_and_round_trip_through_serde() {
    for (file, body) in fixture_documents() {
        let parsed = parse(&body, None);
        check_invariants(&parsed);
        if let Some(document) = parsed.document {
            let logged = serde_json::to_string(&document).unwrap();
            assert_eq!(serde_json::from_str::<Document>(&logged).unwrap(), *document, "{file}");
        }
    }
}

#[test]
fn deserializing_ignores_size_limit_and_declared_encoding() {
    // Declares UTF-16, and exceeds the size limit when encoded in UTF-8.
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-16\"?><Response><!--{}--><Wait/></Response>",
        "अ".repeat(40_000)
    );
    let mut body = vec![0xFF, 0xFE];
    body.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    let document = parse(&body, None).document.unwrap();
    assert!(document.source.len() > MAX_BODY);
    let logged = serde_json::to_string(&*document).unwrap();
    assert_eq!(serde_json::from_str::<Document>(&logged).unwrap(), *document);
}

#[test]
fn enforces_the_size_limit() {
    let body = b"<Response><Wait/></Response>";
    assert!(parse_with_limit(body, None, body.len()).is_ok());
    assert_eq!(parse_with_limit(body, None, body.len() - 1).findings[0].rule, "E101");
    let padded = |n: usize| {
        format!("<Response><Wait/></Response>{}", " ".repeat(n - body.len())).into_bytes()
    };
    assert!(parse(&padded(102_400), None).is_ok());
    assert_eq!(found(&padded(102_401)), [("E101".to_owned(), 1, 1)]);
    assert!(parse_with_limit(&padded(300_000), None, 300_000).is_ok());
}

#[test]
fn report_serializes_to_the_documented_object() {
    let parsed = parse(b"<Response>\n <Play/></Response>", None);
    let object = serde_json::to_value(report("a.xml", &parsed)).unwrap();
    let hint = object["findings"][0]["hint"].as_str().unwrap();
    assert_eq!(
        object,
        serde_json::json!({
            "file": "a.xml",
            "ok": false,
            "findings": [{
                "rule": "E205", "severity": "error", "line": 2, "column": 2, "message": "Play is empty", "hint": hint,
            }],
        })
    );
}

#[test]
fn rule_codes_are_unique() {
    let ids: BTreeSet<&str> = rules::ALL.iter().map(|r| r.id).collect();
    assert_eq!(ids.len(), rules::ALL.len());
    assert_eq!(rules::rule("W312").map(|r| r.severity()), Some(ast::Severity::Warning));
    assert_eq!(rules::rule("E999"), None);
}
