//! The room as a whole: every fixture, positions, hostile bodies.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/plivo-xml")
}

fn found(parsed: &Parsed) -> Vec<(&str, u32, u32)> {
    parsed.findings.iter().map(|f| (f.rule.as_str(), f.at.line, f.at.column)).collect()
}

#[test]
fn every_fixture_is_judged_as_expected() {
    let text = std::fs::read_to_string(fixtures().join("expectations.json")).unwrap();
    let expectations: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut wrong = Vec::new();
    for (file, expected) in &expectations {
        let parsed = parse(&std::fs::read(fixtures().join(file)).unwrap(), None);
        let want: BTreeSet<(&str, u64)> = expected["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|f| (f["rule"].as_str().unwrap(), f["line"].as_u64().unwrap()))
            .collect();
        let got: BTreeSet<(&str, u64)> = parsed.findings.iter().map(|f| (f.rule.as_str(), f.at.line.into())).collect();
        if got != want || parsed.ok() != expected["ok"].as_bool().unwrap() {
            wrong.push(format!("{file}: ok={} {got:?}, expected {want:?}", parsed.ok()));
        }
    }
    assert!(expectations.len() >= 100);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
