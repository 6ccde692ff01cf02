//! Tests of the decisions that need no network.

use serde_json::json;

use super::sync::{NumberReading, has_fallen};
use super::{Change, Credentials, MetaEvent, NumberError, parse_change};
use crate::admission::book::testing::number;
use crate::admission::book::{Book, Configuration, Link, Number, NumberSet, Registration};
use crate::config::Config;
use crate::meta::numbers::{CallingSettings, PhoneNumber};
use egress::Guard;
use model::Secret;
use model::Timestamp;

fn book() -> Book {
    Book::of_file(Config::with(Secret::new("a"), Secret::new("b")).admission())
}

fn some(text: &str) -> Option<Option<String>> {
    Some(Some(text.to_owned()))
}

/// The field or code that a change is refused with, or `None` if it is accepted.
fn fault(change: &Change, number: &Number) -> Option<&'static str> {
    match change.applied(&book(), number, &Guard::new(false, Vec::new())) {
        Ok(_) => None,
        Err(NumberError::Bad { field, .. }) => Some(field),
        Err(NumberError::State { code, .. }) => Some(code),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn s0_09_s0_17_unusable_urls_are_refused_with_their_field() {
    let of = number(NumberSet::default());
    let long = format!("https://a.example.com/{}", "x".repeat(2_100));
    for bad in [
        "http://a.example.com/",
        "https://",
        "junk",
        "ftp://a.example.com/",
        "https://127.0.0.1/",
        "https://u:p@a.example.com/",
        &long,
    ] {
        let change = Change { webhook_url: some(bad), ..Change::default() };
        assert_eq!(fault(&change, &of), Some("webhookUrl"), "{bad}");
        let change = Change { answer_url: some(bad), ..Change::default() };
        assert_eq!(fault(&change, &of), Some("answerUrl"), "{bad}");
    }
    let change = Change { webhook_url: some("https://a.example.com/hook"), ..Change::default() };
    assert_eq!(fault(&change, &of), None);
}

#[test]
fn s0_08_s0_16_rules_are_checked_if_the_change_concerns_them() {
    let of = number(NumberSet::default());
    let webhook = Change { configuration: Some("webhook".to_owned()), ..Change::default() };
    assert_eq!(fault(&webhook, &of), None, "nothing changes");
    let by_agent =
        number(NumberSet { configuration: Configuration::Agent, ..NumberSet::default() });
    assert_eq!(fault(&webhook, &by_agent), Some("webhookUrl"));
    let url = || Some(xml::ast::DocUrl("https://a.example.com/".into()));
    let with_url = number(NumberSet { webhook_url: url(), ..NumberSet::default() });
    let removed = Change { webhook_url: Some(None), ..Change::default() };
    assert_eq!(fault(&removed, &with_url), Some("webhookUrl"));
    assert_eq!(
        fault(&Change { configuration: Some("robot".to_owned()), ..Change::default() }, &of),
        Some("configurationType")
    );
    assert_eq!(
        fault(&Change { configuration: Some("agent".to_owned()), ..Change::default() }, &of),
        None,
        "s0.07"
    );
    assert_eq!(
        fault(&Change { alias: Some(String::new()), ..Change::default() }, &of),
        None,
        "s0.04"
    );
    let on = Change { calling_enabled: Some(true), ..Change::default() };
    assert_eq!(fault(&on, &of), Some("answerUrl"));
    assert_eq!(fault(&Change { calling_enabled: Some(false), ..Change::default() }, &of), None);
    let with = Change { answer_url: some("https://a.example.com/"), ..on.clone() };
    assert_eq!(fault(&with, &of), None);
    assert_eq!(fault(&with, &Number { waba: None, ..of.clone() }), Some("no_waba"), "s1.04");
    let answer = Link { url: url(), ..Link::default() };
    let answered = number(NumberSet { answer: answer.clone(), ..by_agent.set.clone() });
    assert_eq!(fault(&webhook, &answered), None, "its document answers calls");
    // Its agent answered the calls.
    let calls =
        number(NumberSet { calling_enabled: true, webhook_url: url(), ..by_agent.set.clone() });
    assert_eq!(fault(&webhook, &calls), Some("answerUrl"));
    // URLs and a missing answer URL that are there already are not refused.
    let odd = Some(xml::ast::DocUrl("http://10.0.0.1/".into()));
    let odd = number(NumberSet { calling_enabled: true, webhook_url: odd, ..NumberSet::default() });
    let same = Change {
        configuration: Some("webhook".to_owned()),
        webhook_url: some("http://10.0.0.1/"),
        answer_url: Some(None),
        calling_enabled: Some(true),
        ..Change::default()
    };
    assert_eq!(fault(&same, &odd), None);
    let live = number(NumberSet { calling_enabled: true, answer, ..NumberSet::default() });
    assert_eq!(
        fault(&Change { answer_url: Some(None), ..Change::default() }, &live),
        Some("answerUrl")
    );
    assert_eq!(fault(&Change { alias: Some("x".to_owned()), ..Change::default() }, &live), None);
    for (calls, bad) in [(Some(0), true), (Some(1), false), (Some(100_001), true), (None, false)] {
        let change = Change { calls_per_number: Some(calls), ..Change::default() };
        assert_eq!(fault(&change, &live).is_some(), bad, "{calls:?}");
    }
}

#[test]
fn a_known_number_with_a_new_token_keeps_its_settings() {
    let given = |active| Credentials {
        display_name: "Shop".to_owned(),
        number: None,
        id: "106540352242922".into(),
        waba: None,
        token: Secret::new("new"),
        active,
    };
    let settled = |set: &NumberSet, active, was_here| {
        let mut set = set.clone();
        given(active).settle(&mut set, was_here);
        (set.alias, set.inactive)
    };
    let set = NumberSet { alias: "Desk".to_owned(), inactive: false, ..NumberSet::default() };
    assert_eq!(settled(&set, None, true), ("Desk".to_owned(), false));
    assert_eq!(settled(&set, Some(false), true), ("Desk".to_owned(), true));
    let silent = NumberSet { inactive: true, ..NumberSet::default() };
    assert_eq!(settled(&silent, None, true), ("Shop".to_owned(), true), "it had no name");
    assert!(!settled(&silent, Some(true), true).1);
    assert_eq!(
        settled(&NumberSet::default(), None, false),
        ("Shop".to_owned(), true),
        "a new one has no agent"
    );
}

#[test]
fn state_fetched_from_meta_is_applied_and_changes_are_listed() {
    let mut set = NumberSet {
        calling_enabled: true,
        configuration: Configuration::Agent,
        ..NumberSet::default()
    };
    let panel = set.panel();
    let number = PhoneNumber {
        verified_name: "Shop".to_owned(),
        platform_type: "CLOUD_API".to_owned(),
        ..PhoneNumber::default()
    };
    let calling = Some(CallingSettings { enabled: Some(false), ..CallingSettings::default() });
    let reading = NumberReading { number, calling, as_of: 0 };
    let fields = reading.apply(&mut set, Timestamp::from_secs(7), true);
    assert_eq!(fields, ["verifiedName", "platformType", "callingDrift"]);
    assert_eq!(set.drift().calling_enabled, Some(false));
    assert_eq!(set.panel(), panel, "none of it is a setting");
    assert!(reading.apply(&mut set, Timestamp::from_secs(8), true).is_empty());
    set.at_meta.calling.enabled = Some(true);
    assert!(
        reading.apply(&mut set, Timestamp::from_secs(8), false).is_empty(),
        "read before the last write"
    );
    assert_eq!(set.at_meta.calling.enabled, Some(true));
    // A recent failure is not overruled by state that Meta may have had before.
    let [soon, later] = [9, 99].map(Timestamp::from_secs);
    set.registration = Registration::Failed { reason: "133005".to_owned(), again: later };
    assert!(reading.apply(&mut set, soon, false).is_empty());
    assert_eq!(reading.apply(&mut set, later, false), ["registration"]);
    assert!(set.is_cloud());
    for (was, is, fallen) in [
        ("GREEN", "YELLOW", true),
        ("YELLOW", "RED", true),
        ("RED", "GREEN", false),
        ("GREEN", "UNKNOWN", false),
        ("", "RED", false),
    ] {
        assert_eq!(has_fallen(was, is), fallen, "{was} {is}");
    }
}

#[test]
fn parses_the_webhook_fixtures() {
    let fixture = |name: &str| -> serde_json::Value {
        let path =
            format!("{}/../../fixtures/meta/webhooks/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let body: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        body["entry"][0].clone()
    };
    let read = |name: &str| {
        let entry = fixture(name);
        let change = &entry["changes"][0];
        parse_change(
            entry["id"].as_str().unwrap(),
            change["field"].as_str().unwrap(),
            &change["value"],
        )
    };
    assert!(
        matches!(read("settings_update"), Some(MetaEvent::Settings { .. })),
        "{:?}",
        read("settings_update")
    );
    assert!(
        matches!(read("phone_quality"), Some(MetaEvent::Number { .. })),
        "{:?}",
        read("phone_quality")
    );
    for name in [
        "account_disabled",
        "account_restriction",
        "account_low_pickup_warning",
        "account_future_event",
    ] {
        let Some(MetaEvent::Waba { event, .. }) = read(name) else {
            panic!("{name}: {:?}", read(name))
        };
        assert!(!event.is_empty());
    }
    for (field, value) in [
        ("account_settings_update", json!({"type": "x"})),
        ("account_update", json!({})),
        ("phone_number_quality_update", json!({"display_phone_number": "no"})),
        ("flows", json!({"event": "x"})),
    ] {
        assert_eq!(parse_change("1", field, &value), None, "{field}");
    }
}
