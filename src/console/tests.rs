//! Tests of texts, forms and templates that need no node.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::form::Form;
use super::i18n::Lang;

/// Prefixes of keys that are composed at run time.
const FAMILIES: &[&str] = &[
    "refused.",
    "bar.",
    "cause.",
    "lane.",
    "field.",
    "machine.",
    "mark.",
    "role.",
    "walk.",
    "phone.say.",
    "topic.",
    "status.",
    "sentiment.",
    "permission.",
    "delivery.",
    "message.",
    "message_error.",
    "quality.",
    "reference.family.",
    "reference.place.",
    "agents.wrong.",
    "inbox.assignee.",
    "inbox.colour.",
    "speech.kind.",
    "speech.improves.",
    "speech.gender.",
    "speech.engine.",
];

fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs" || e == "html")
            && !path.ends_with("console/tests.rs")
        {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn catalogues_have_the_same_keys_and_all_are_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    sources(&root.join("src/console"), &mut text);
    sources(&root.join("console/templates"), &mut text);
    let known: BTreeSet<&str> = Lang::En.words().keys().map(String::as_str).collect();
    assert!(known.len() > 100, "the catalogue reads");
    for lang in Lang::ALL {
        let other: BTreeSet<&str> = lang.words().keys().map(String::as_str).collect();
        let differ: Vec<_> = known.symmetric_difference(&other).collect();
        assert!(differ.is_empty(), "{}: {differ:?}", lang.tag());
        for (key, word) in lang.words() {
            let holes = |text: &str| (0..4).filter(|n| text.contains(&format!("{{{n}}}"))).count();
            assert!(
                !word.trim().is_empty() && holes(word) == holes(Lang::En.t(key)),
                "{key} in {}",
                lang.tag()
            );
        }
    }
    // Every key in code and templates exists.
    for call in ["page.t(\"", "page.t1(\"", "lang.t(\"", "lang.with(\"", "lang().t(\""] {
        for rest in text.split(call).skip(1) {
            let key = rest.split('"').next().unwrap();
            assert!(known.contains(key), "{key} is in no catalogue");
        }
    }
    let unused = known.iter().filter(|key| {
        !FAMILIES.iter().any(|family| key.starts_with(family))
            && !text.contains(&format!("\"{key}\""))
    });
    let unused: Vec<_> = unused.collect();
    assert!(unused.is_empty(), "unused: {unused:?}");
}

#[test]
fn each_cause_has_a_text() {
    let source = include_str!("../../crates/model/src/cause.rs");
    for word in source.split("=> \"").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        let is_cause =
            word.contains('_') && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        assert!(!is_cause || Lang::En.find(&format!("cause.{word}")).is_some(), "{word}");
    }
}

#[test]
fn each_reason_of_a_refused_call_has_a_text() {
    use model::metric::admission::{ADMITTED, ALL, DUPLICATE, UNKNOWN_NUMBER};
    let counted = |reason: &&&str| ![ADMITTED, DUPLICATE, UNKNOWN_NUMBER].contains(*reason);
    for reason in ALL.iter().filter(counted) {
        assert!(Lang::En.find(&format!("refused.{reason}")).is_some(), "{reason}");
    }
}

#[test]
fn selects_the_preferred_language() {
    for (header, lang) in [
        ("de-DE,de;q=0.9,en;q=0.8", Lang::De),
        ("fr,en-GB;q=0.7", Lang::En),
        ("", Lang::En),
        ("xx,,;;,de", Lang::De),
        ("en;q=0.2, de;q=0.9", Lang::De),
        ("en; q=0.9, de ; q=0.2", Lang::En),
        ("en;q=0, de;q=0.001", Lang::De),
        ("de;q=0", Lang::En),
        ("de;q=x", Lang::En),
        ("de;q=NaN, de;q=2, de;q", Lang::En),
    ] {
        assert_eq!(Lang::accepted(header), lang, "{header}");
    }
}

#[test]
fn parses_forms_and_edits_queries() {
    let form = Form::read(b"from=%2B91&to=&a=1&a=2");
    assert_eq!((form.get("from"), form.some("to"), form.get("a")), ("+91", None, "2"));
    assert_eq!(form.with("before", Some("7.x")), "?from=%2B91&a=1&a=2&before=7.x");
}

#[test]
fn r20_the_pages_have_nothing_inline() {
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("console/templates"), &mut text);
    for bad in [" style=", "<style", " onclick", " onload", "javascript:", "https://", "<script>"] {
        assert!(!text.contains(bad), "{bad}");
    }
}

#[test]
fn each_question_is_asked_without_scripts_too() {
    let mut text = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("console/templates"), &mut text);
    for rest in text.split("data-confirm=\"{{ page.t").skip(1) {
        let key = rest.split('"').nth(1).unwrap();
        let (_, address) = rest.split_once("}}\" formaction=\"").expect(key);
        let address = address.split('>').next().unwrap();
        assert!(address.contains(&format!("?ask={key}")), "{key}: {address}");
    }
}

#[test]
fn the_snippets_run_and_have_an_element_of_each_kind_among_them() {
    let mut all = String::new();
    for (name, source) in super::playground::SNIPPETS {
        assert!(xml::parse(source.as_bytes(), None).document.is_some(), "{name}");
        all.push_str(source);
    }
    for element in [
        "Speak",
        "Play",
        "Wait",
        "GetInput",
        "GetDigits",
        "Record",
        "DTMF",
        "Redirect",
        "Hangup",
        "PreAnswer",
        "Dial",
        "Conference",
        "MultiPartyCall",
        "Stream",
    ] {
        assert!(all.contains(&format!("<{element}")), "{element}");
    }
}

#[test]
fn a_refusal_names_the_label_of_the_field() {
    let error = serde_json::json!({"field": "displayName", "message": "displayName must be short"});
    let body = serde_json::json!({ "error": error });
    let answer = crate::api::ApiResponse { status: http::StatusCode::BAD_REQUEST, body };
    assert_eq!(Lang::En.refusal(&answer), "“Display Name” must be short");
}

#[test]
fn fields_of_the_apis_have_the_words_of_the_console() {
    let [en, de] = Lang::ALL;
    assert_eq!((en.field("answerUrl"), de.field("labels")), ("Answer URL".into(), "Labels".into()));
    assert_eq!(en.field("openConversations"), "open conversations");
    assert_eq!(en.field("auth_token"), "auth token");
}
