//! Walks of documents without requests. Walks over HTTP are in `tests/outside/walk.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use super::{
    Bounds, CallParties, Callee, Caller, Event, Job, Key, PromptPiece, Step, WalkResult, Walker,
};
use crate::answer::{AT_ONCE_PER_HOST, Fetcher, Notifier, RandomSource, SigningKeys};
use egress::testing::{egress, open_guard};
use machine::{CallUrls, InstructionOutcome, MachineLimits};
use model::Clock;
use model::Secret;
use model::{AuthId, Digit, Direction, HangupCause, Method, PhoneNumberId};
use xml::ast::DocUrl;

fn keys(text: &str) -> Vec<Key> {
    text.chars()
        .map(|c| Key { after: Duration::ZERO, digit: Digit::try_from(c).expect("a key") })
        .collect()
}

fn job(document: &str, caller: Caller) -> Job {
    let answer = DocUrl("file:///menu.xml".into());
    let account = AuthId::from("MAXXXXXXXXXXXXXXXXXX");
    Job {
        calling: CallParties {
            from: "919812345678".to_owned(),
            to: "918035737458".to_owned(),
            caller_name: String::new(),
            cta_payload: None,
            deeplink_payload: None,
            phone_number_id: PhoneNumberId::from("106540352242922"),
            account: account.clone(),
            parent_account: account,
            urls: CallUrls {
                hangup: (answer.clone(), Method::Post),
                answer,
                answer_method: Method::Post,
                fallback: None,
            },
            limits: MachineLimits::default(),
        },
        keys: SigningKeys::of_main(&[Secret::new("token")]),
        max_body: 102_400,
        document: Some(document.to_owned().into()),
        caller,
        callbacks: true,
        bounds: Bounds { documents: 10, time: Duration::from_secs(20) },
    }
}

async fn walked(inner: &str, caller: Caller) -> (Vec<Step>, WalkResult) {
    let egress = egress(open_guard(), Vec::new());
    let (clock, random) = (Clock::real(), RandomSource::system());
    let walker = Walker {
        fetcher: Fetcher::new(egress.clone(), clock.clone(), random.clone()),
        notifier: Notifier::new(egress, clock.clone(), random.clone(), AT_ONCE_PER_HOST),
        clock,
        random,
    };
    let mut steps = Vec::new();
    let document = format!("<Response>\n{inner}\n</Response>");
    let walked = walker.walk(job(&document, caller), |step| steps.push(step)).await;
    (steps, walked)
}

fn typing(entries: &[&str]) -> Caller {
    Caller {
        keys: entries.iter().map(|entry| keys(entry)).collect::<VecDeque<_>>(),
        ..Caller::default()
    }
}

/// The displayed keys with their times.
fn pressed(steps: &[Step]) -> Vec<(u64, char)> {
    steps
        .iter()
        .filter_map(|s| if let Event::Key { key } = s.event { Some((s.at_ms, key)) } else { None })
        .collect()
}

#[tokio::test]
async fn a_greeting_plays_and_the_call_ends_normally() {
    let (steps, walked) =
        walked("<Speak loop=\"2\">Ten chars.</Speak><Wait length=\"3\"/>", Caller::default()).await;
    assert_eq!(
        (walked.cause, walked.ok(true)),
        (Some(HangupCause::EndOfInstructions), true),
        "{:?}",
        walked.faults
    );
    assert_eq!((walked.documents, walked.errors, walked.warnings), (1, 0, 0));
    let prompts: Vec<_> = steps
        .iter()
        .filter_map(|s| match &s.event {
            Event::Prompt { pieces, ms, endless } => Some((s.at_ms, pieces.clone(), *ms, *endless)),
            _ => None,
        })
        .collect();
    let piece = PromptPiece::Speak {
        text: "Ten chars.".to_owned(),
        voice: "WOMAN".to_owned(),
        language: None,
        times: 2,
    };
    assert_eq!(prompts, [(0, vec![piece], 1_300, false)]);
    let ends: Vec<_> = steps
        .iter()
        .filter_map(|s| match &s.event {
            Event::Instruction { element, line, outcome: InstructionOutcome::Done, .. } => {
                Some((s.at_ms, element.as_str(), *line))
            }
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(1_300, "Speak", 2), (4_300, "Wait", 2)]);
    // Each step serializes to a JSON object with its time and name.
    for step in &steps {
        let json = serde_json::to_value(step).expect("JSON");
        assert!(json["at_ms"].is_u64() && json["event"].is_string(), "{json}");
    }
    let callback = steps.iter().find_map(|s| match &s.event {
        Event::Callback { sent, params, .. } => {
            Some((*sent, params.get("HangupCauseCode")?.reveal().to_owned()))
        }
        _ => None,
    });
    assert_eq!(callback, Some((false, "4010".to_owned())), "a file takes none");
}

#[tokio::test]
async fn a_call_that_an_agent_takes_over_ends_without_a_fault() {
    let handed_over =
        "<Speak>One moment.</Speak><Redirect>https://agent.invalid/7/answer</Redirect>";
    let (steps, walked) = walked(handed_over, Caller::default()).await;
    assert!(walked.ok(true), "{:?}", walked.faults);
    let is_remark =
        |step: &Step| matches!(&step.event, Event::Remark { text } if text.contains("AI agent"));
    assert!(steps.iter().any(is_remark));
    let is_end = |step: &Step| matches!(&step.event, Event::Hangup { .. } | Event::Callback { .. });
    assert!(!steps.iter().any(is_end), "the call goes on");
}

#[tokio::test]
async fn endless_music_plays_once_unless_something_ends_it() {
    let music = "<Play loop=\"0\">https://app.example.com/a.mp3</Play>";
    let (steps, alone) = walked(music, Caller::default()).await;
    assert_eq!((alone.cause, alone.ok(true)), (Some(HangupCause::CallerHangup), true));
    assert_eq!(steps.iter().map(|s| s.at_ms).max(), Some(5_000));
    let (_, scheduled) =
        walked(&format!("<Hangup schedule=\"60\"/>{music}"), Caller::default()).await;
    assert_eq!((scheduled.cause, scheduled.ok(true)), (Some(HangupCause::ScheduledHangup), true));
    let impatient = Caller { hangs_up_after: Some(Duration::from_secs(2)), ..Caller::default() };
    let (steps, impatient) = walked(music, impatient).await;
    assert_eq!(impatient.cause, Some(HangupCause::CallerHangup));
    assert_eq!(steps.iter().map(|s| s.at_ms).max(), Some(2_000));
}

#[tokio::test]
async fn a_multi_party_call_that_ends_is_a_regular_end() {
    let last = "<MultiPartyCall role=\"agent\">care</MultiPartyCall>";
    let (_, walked) = walked(last, Caller::default()).await;
    assert_eq!(
        (walked.cause, walked.ok(true)),
        (Some(HangupCause::MpcEnded), true),
        "{:?}",
        walked.faults
    );
}

#[test]
fn failures_of_the_node_or_the_application_are_no_regular_end() {
    use HangupCause as C;
    let is_good = |cause: C| super::event::is_good_end(&cause.wire(Direction::Inbound));
    for cause in [C::MpcKicked, C::MpcStopped, C::XmlBusy, C::XmlRejected, C::CallerCancelled] {
        assert!(is_good(cause), "{cause:?}");
    }
    for cause in [C::InternalError, C::InstructionLoop, C::MediaTimeout, C::NumberFull] {
        assert!(!is_good(cause), "{cause:?}");
    }
}

#[tokio::test]
async fn each_collection_gets_its_keys_after_its_prompt() {
    let inner = "<GetDigits numDigits=\"2\"><Speak>Ten chars.</Speak></GetDigits>\n\
                 <GetDigits timeout=\"4\"/>\n\
                 <GetDigits numDigits=\"1\" log=\"false\"/>";
    let (steps, walked) = walked(inner, typing(&["12", "", "7", "8"])).await;
    assert!(walked.ok(true), "{:?}", walked.faults);
    assert_eq!(walked.unused_keys, 1, "there is no fourth collection");
    // 650 ms of prompt and 300 ms before the first key. The second collection times out after 4 s.
    assert_eq!(pressed(&steps), [(950, '1'), (1_100, '2'), (5_400, 'x')]);
    let notes: Vec<_> = steps
        .iter()
        .filter_map(|s| match &s.event {
            Event::Instruction { outcome: InstructionOutcome::Done, line, note, .. } => {
                Some((*line, note.as_str()))
            }
            _ => None,
        })
        .collect();
    assert_eq!(notes, [(2, "input"), (3, "no input"), (4, "input")]);
}

#[tokio::test]
async fn a_refused_document_is_a_fault_with_its_line() {
    let (steps, walked) = walked("<Speak>Hi</Speak>\n<Play/>\n<Bogus/>", Caller::default()).await;
    assert!(!walked.ok(false));
    assert_eq!(walked.errors, 2);
    let faults = [
        "the answer document is refused: E205 at line 3, Play is empty",
        "the call ended with 8011",
    ];
    for (fault, part) in walked.faults.iter().zip(faults) {
        assert!(fault.starts_with(part), "{fault}");
    }
    assert!(
        !steps.iter().any(|s| matches!(s.event, Event::Instruction { .. } | Event::Answered)),
        "nothing of it runs"
    );
    let (_, warned) = walked_with_a_warning().await;
    assert_eq!((warned.ok(false), warned.ok(true)), (true, false), "{:?}", warned.faults);
}

async fn walked_with_a_warning() -> (Vec<Step>, WalkResult) {
    walked("<Speak bogus=\"1\">Hi</Speak>", Caller::default()).await
}

#[tokio::test]
async fn a_dial_that_calls_nobody_is_a_fault() {
    let (_, phone) = walked("<Dial><Number>919876543210</Number></Dial>", Caller::default()).await;
    assert_eq!(phone.faults, ["Dial in line 2 failed: pstn_forwarding_not_supported"]);
    assert!(!phone.ok(false));
    let several = "<Dial><Number>919876543210</Number><User>sip:asha@phone.plivo.com</User></Dial>";
    let (_, one_of_two) = walked(several, Caller::default()).await;
    assert!(one_of_two.ok(false), "the endpoint was called: {:?}", one_of_two.faults);
}

#[tokio::test]
async fn a_dialled_party_follows_its_script() {
    let dial = "<Dial><User>sip:asha@phone.plivo.com</User></Dial><Hangup/>";
    for (callee, lasts_ms) in [
        (Callee::Answers, 12_000),
        (Callee::Declines, 2_000),
        (Callee::Busy, 0),
        (Callee::Absent, 60_000),
    ] {
        let (steps, walked) = walked(dial, Caller { callee, ..Caller::default() }).await;
        let called = steps.iter().find_map(|s| match &s.event {
            Event::Calls { to, position } => Some((to.as_str(), *position)),
            _ => None,
        });
        assert_eq!(called, Some(("asha", 1)));
        let ended = steps.iter().find_map(|s| match &s.event {
            Event::Instruction { element, outcome: InstructionOutcome::Done, .. }
                if element == "Dial" =>
            {
                Some(s.at_ms)
            }
            _ => None,
        });
        assert_eq!(ended, Some(lasts_ms), "{callee:?}");
        assert_eq!(walked.cause, Some(HangupCause::XmlHangup), "{callee:?}: {:?}", walked.faults);
    }
}
