//! Tests of rule files, of rule matching, and of the faults of offers, bodies and datagrams.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::body::{Batch, BodyVariant, skew};
use super::net::{MediaFault, MediaFaultKind, NetworkEmulator};
use super::offer::OfferFault;
use super::{FaultInjector, Faults, GraphBody, GraphFaultKind, WebhookFault, WebhookKind};
use crate::media::peer::Datagram;
use crate::meta::action::Action;
use crate::meta::offer::tests::fixture;
use media::sdp;

fn injector(text: &str) -> FaultInjector {
    FaultInjector::new(Faults::parse(text).expect("rules"), 7)
}

#[test]
fn errors_name_the_line_of_a_rule_file() {
    let error_text = |text: &str| Faults::parse(text).expect_err("bad rules").to_string();
    for (text, line, words) in [
        (
            "[[fault]]\ndo = \"loose\"\n",
            2,
            "`loose` is not a valid `do`: use one of duplicate, delay",
        ),
        ("[[fault]]\n\n[[fault]]\non = \"connect\"\n", 1, "`do` is missing"),
        (
            "seed = 1\n[[fault]]\ndo = \"lose\"\non = \"conect\"\n",
            4,
            "`on` cannot be \"conect\": use one of connect, ringing, accepted, rejected, terminate",
        ),
        ("[[fault]]\ndo = \"lose\"\nms = 5\n", 3, "`ms` does not belong to do = \"lose\""),
        ("[[fault]]\ndo = \"delay\"\n", 1, "`ms` is missing"),
        (
            "[[fault]]\ndo = \"delay\"\nms = \"5\"\n",
            3,
            "`ms` must be a whole number from 0 to 3600000",
        ),
        ("[[fault]]\ndo = \"media\"\nloss = 130\n", 3, "`loss` must be a percentage"),
        ("[[fault]]\ndo = \"media\"\n", 1, "the rule has no media fault"),
        (
            "[[fault]]\ndo = \"answer\"\nstatus = 503\non = \"ringing\"\n",
            4,
            "one of connect, pre_accept, accept, reject, terminate",
        ),
        (
            "[[fault]]\ndo = \"offer\"\nhow = \"empty\"\nnth = 2\n",
            4,
            "`nth` does not belong to do = \"offer\"",
        ),
        (
            "[[fault]]\ndo = \"storm\"\ncalls = 0\n",
            3,
            "`calls` must be a whole number from 1 to 10000",
        ),
        (
            "[[fault]]\ndo = \"order\"\nhow = \"last\"\n",
            3,
            "one of connect-first, ring-first, accepted-first, before-reply",
        ),
        (
            "[[fault]]\ndo = \"unanswered\"\nafter_ms = 5\n",
            3,
            "`after_ms` does not belong to do = \"unanswered\"",
        ),
        ("[[fault]]\ndo = \"decline\"\nnth = 2\n", 3, "`nth` does not belong to do = \"decline\""),
        ("fault = 3\n", 1, "write [[fault]]"),
        ("seed = -1\n", 1, "`seed` must be a whole number"),
        ("[[fault]\n", 1, ""),
        (
            "[[fault]]\ndo = \"lose\"\n[[faults]]\ndo = \"lose\"\n",
            3,
            "`faults` does not belong to the file: write [[fault]]",
        ),
    ] {
        let message = error_text(text);
        assert!(
            message.contains(&format!("line {line}:")) && message.contains(words),
            "{text:?}: {message}"
        );
    }
    let missing =
        Faults::read(std::path::Path::new("no/such/file.toml")).expect_err("no file").to_string();
    assert!(missing.contains("no/such/file.toml"), "{missing}");
}

#[test]
fn parses_the_documented_rule_file() {
    let text = include_str!("../../../../docs/faults.toml");
    let faults = Faults::parse(text).expect("rules");
    assert!(faults.rules.len() > 10);
}

#[test]
fn rules_match_number_user_call_and_event() {
    let injector = injector(
        r#"
        [[fault]]
        do = "lose"
        number = "+91 80357 37458"
        user = "919412341234"
        call = 2
        on = "terminate"
        [[fault]]
        do = "answer"
        status = 429
        retry_after = 1
        on = "accept"
        nth = 2
        [[fault]]
        do = "storm"
        calls = 200
        call = 3
        hangup_ms = 3000
        [[fault]]
        do = "reset"
        done = true
        on = "terminate"
        times = 2
        "#,
    );
    let (number, user) = ("918035737458", "919412341234");
    let first = injector.call(number, user);
    assert!(first.webhook(WebhookKind::Terminate).is_empty());
    let other = injector.call(number, "919412341235");
    assert!(other.webhook(WebhookKind::Terminate).is_empty(), "not that user, and not counted");
    let second = injector.call(number, user);
    assert!(second.webhook(WebhookKind::Connect).is_empty());
    assert_eq!(second.webhook(WebhookKind::Terminate), [WebhookFault::Lose]);
    assert!(injector.call(number, user).webhook(WebhookKind::Terminate).is_empty());

    assert_eq!(first.storm(), None);
    let storm = second.storm().map(|s| (s.calls, s.over, s.sequential, s.hangup, s.media));
    let second_s = Duration::from_secs(1);
    assert_eq!(storm, Some((200, second_s, false, (3 * second_s, 3 * second_s), false)));

    assert_eq!(first.graph(Action::Accept), None);
    let fault = first.graph(Action::Accept).expect("the second accept");
    assert_eq!(
        fault.kind,
        GraphFaultKind::Answer { status: 429, body: GraphBody::Error(4), retry_after: Some(1) }
    );
    assert_eq!(first.graph(Action::Accept), None);
    assert_eq!(first.graph(Action::PreAccept), None);
    let carried_out: Vec<bool> = (0..4)
        .filter_map(|_| first.graph(Action::Terminate))
        .map(|fault| fault.carried_out)
        .collect();
    assert_eq!(carried_out, [true, true]);
}

#[test]
fn same_seed_gives_the_same_faults() {
    let pattern = |seed: u64| {
        let injector =
            injector(&format!("seed = {seed}\n[[fault]]\ndo = \"lose\"\npercent = 30\n"));
        let hit = |_| injector.call("1", "2").webhook(WebhookKind::Connect).len();
        (0..200).map(hit).collect::<Vec<usize>>()
    };
    assert_eq!(pattern(1), pattern(1));
    assert_ne!(pattern(1), pattern(2));
    let hits: usize = pattern(3).iter().sum();
    assert!((35..=85).contains(&hits), "{hits} of 200 are not 30 %");

    // The outcome for a call does not depend on other callers or other rules.
    let rules = "seed = 5\n[[fault]]\ndo = \"lose\"\npercent = 50\n[[fault]]\ndo = \"reset\"\npercent = 50\n";
    let of_user = |injector: &FaultInjector, user: &str, graph_first: bool| {
        let call = injector.call("1", user);
        let graph = graph_first.then(|| call.graph(Action::Accept).is_some());
        let hooks =
            (0..40).map(|_| call.webhook(WebhookKind::Connect).len()).collect::<Vec<usize>>();
        (hooks, graph.unwrap_or_else(|| call.graph(Action::Accept).is_some()))
    };
    let (one, other) = (injector(rules), injector(rules));
    let first = of_user(&one, "2", true);
    of_user(&other, "3", true);
    of_user(&other, "4", true);
    assert_eq!(of_user(&other, "2", false), first);
    assert_ne!(of_user(&other, "2", false), first, "the next call of the same user has its own");
}

#[test]
fn h5_offer_faults_change_the_offer_as_named() {
    for (name, fault) in OfferFault::ALL {
        let offer = fault.apply(fixture());
        let usable = matches!(
            fault,
            OfferFault::Ipv6Only
                | OfferFault::Opus96
                | OfferFault::NoDigits
                | OfferFault::WrongFingerprint
        );
        let read = sdp::Offer::parse(&offer, true);
        assert_eq!(read.is_ok(), usable, "{name}: {read:?}");
        assert_ne!(offer, fixture(), "{name}");
    }
    let opus = sdp::Offer::parse(&OfferFault::Opus96.apply(fixture()), true).expect("usable");
    assert_eq!(opus.opus_pt, 96);
    let no_digits =
        sdp::Offer::parse(&OfferFault::NoDigits.apply(fixture()), true).expect("usable");
    assert!(no_digits.telephone_events.is_empty());
}

fn body() -> Value {
    json!({"object": "whatsapp_business_account", "entry": [{"id": "1029384756", "changes": [{"field": "calls", "value": {
        "metadata": {"display_phone_number": "918035737458", "phone_number_id": "106540352242922"},
        "contacts": [{"wa_id": "919412341234"}],
        "calls": [{"id": "wacid.A", "from": "919412341234", "to": "918035737458", "event": "connect",
            "timestamp": "1790000000", "direction": "USER_INITIATED", "session": {"sdp_type": "offer", "sdp": "v=0"}}],
    }}]}]})
}

#[test]
fn h8_h9_h10_reshapes_bodies() {
    let call = |body: &Value| body["entry"][0]["changes"][0]["value"]["calls"][0].clone();
    for (name, reshape) in BodyVariant::ALL {
        let mut reshaped = body();
        reshape.apply(&mut reshaped);
        assert_ne!(reshaped, body(), "{name}");
    }
    // The status of a call that the business has placed.
    let mut status = body();
    status["entry"][0]["changes"][0]["value"] = json!({
        "metadata": {"display_phone_number": "918035737458", "phone_number_id": "106540352242922"},
        "statuses": [{"id": "wacid.A", "type": "call", "status": "RINGING", "timestamp": "1790000000"}],
    });
    let statuses = |body: &Value| {
        body["entry"][0]["changes"].as_array().unwrap().last().unwrap()["value"]["statuses"].clone()
    };
    for (name, reshape) in BodyVariant::ALL {
        let mut reshaped = status.clone();
        reshape.apply(&mut reshaped);
        let known = statuses(&reshaped).as_array().unwrap().iter().any(|one| {
            one["id"] == "wacid.A"
                && one["status"].as_str().is_some_and(|word| word.eq_ignore_ascii_case("ringing"))
        });
        assert!(known, "{name}: {reshaped}");
    }
    let mut skewed = status.clone();
    skew(&mut skewed, -61);
    assert_eq!(statuses(&skewed)[0]["timestamp"], "1789999939");
    let mut reshaped = body();
    BodyVariant::Numbers.apply(&mut reshaped);
    assert_eq!(call(&reshaped)["timestamp"], 1_790_000_000);
    assert_eq!(call(&reshaped)["id"], "wacid.A");
    let mut reshaped = body();
    BodyVariant::Case.apply(&mut reshaped);
    assert_eq!(call(&reshaped)["event"], "CONNECT");
    assert_eq!(call(&reshaped).get("status"), None);
    let mut skewed = body();
    skew(&mut skewed, -61);
    assert_eq!(call(&skewed)["timestamp"], "1789999939");
    assert_eq!(call(&skewed).get("start_time"), None);

    for items in [1, 2, 9, 1_000] {
        let mut batch = body();
        Batch { items, malformed: true }.apply(
            &mut batch,
            "mark",
            &["1".to_owned(), "2".to_owned()],
        );
        let entries = batch["entry"].as_array().expect("entries");
        assert_eq!(entries.len(), items);
        assert_eq!(
            entries
                .iter()
                .filter(|e| e["changes"][0]["value"]["calls"][0]["id"] == "wacid.A")
                .count(),
            1
        );
    }
}

fn delivered(net: &mut NetworkEmulator, start: Instant, count: u8) -> Vec<(Duration, Vec<u8>)> {
    let to = SocketAddr::from(([127, 0, 0, 1], 9));
    let mut out = Vec::new();
    for n in 0..200u64 {
        let now = start + Duration::from_millis(20 * n);
        if n < u64::from(count) {
            net.send(
                now,
                Datagram {
                    to,
                    bytes: vec![128, 111, 0, u8::try_from(n).expect("small"), 5, 5, 5, 5],
                },
            );
        }
        while let Some(datagram) = net.due(now) {
            out.push((now - start, datagram.bytes));
        }
    }
    out
}

#[test]
fn h6_network_loses_delays_and_duplicates_repeatably() {
    let start = model::Clock::real().now();
    let run = |fault: MediaFault, seed| {
        delivered(&mut NetworkEmulator::new(vec![fault], seed), start, 100)
    };
    let lossy = MediaFault { loss: 30.0, ..MediaFault::default() };
    let left = run(lossy.clone(), 1).len();
    assert!((55..=85).contains(&left), "{left} of 100");
    assert_eq!(run(lossy.clone(), 4), run(lossy, 4));
    assert_eq!(run(MediaFault { duplicate: 100.0, ..MediaFault::default() }, 1).len(), 200);
    let late = run(MediaFault { jitter: Duration::from_millis(200), ..MediaFault::default() }, 1);
    assert_eq!(late.len(), 100);
    assert!(!late.is_sorted_by_key(|(_, bytes)| bytes.get(3).copied()), "jitter overtakes");
    let replayed = run(
        MediaFault {
            kind: Some((Duration::ZERO, MediaFaultKind::Replay)),
            ..MediaFault::default()
        },
        1,
    );
    assert_eq!(replayed.len(), 150);
    let corrupt = run(MediaFault { corrupt: 100.0, ..MediaFault::default() }, 1);
    assert!(corrupt.iter().all(|(at, bytes)| {
        let n = u8::try_from(at.as_millis() / 20).expect("small");
        *bytes != [128, 111, 0, n, 5, 5, 5, 5]
    }));

    let gap = (Duration::from_secs(1), Duration::from_millis(500));
    let mut net =
        NetworkEmulator::new(vec![MediaFault { gap: Some(gap), ..MediaFault::default() }], 1);
    net.accepted(start);
    assert_eq!(delivered(&mut net, start, 100).len(), 75);
    let mut net = NetworkEmulator::new(
        vec![MediaFault { kind: Some((gap.0, MediaFaultKind::Vanish)), ..MediaFault::default() }],
        1,
    );
    assert!(net.admits(start + gap.0), "times count from the answer");
    net.accepted(start);
    assert!(!net.admits(start + gap.0));
}
