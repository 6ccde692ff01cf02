//! The exact parameters of requests (docs/reference/callbacks.md).

use super::{Bench, digit, document, fetched, setup};
use crate::contract::{CallSetup, FetchId, Input, Output, Param, Params, Termination};
use model::Leg;

const GET_INPUT: &str =
    r#"<Response><GetInput action="https://app.example.com/do" numDigits="2"/></Response>"#;

fn to_lines(params: &Params) -> Vec<String> {
    params.iter().map(|(name, value)| format!("{name}={}", value.reveal())).collect()
}

fn fetch_params(bench: &Bench, id: u32) -> Vec<String> {
    let find = |output: &Output| match output {
        Output::Fetch { fetch, params, .. } if *fetch == FetchId(id) => Some(to_lines(params)),
        _ => None,
    };
    bench.outputs.iter().find_map(|(_, output)| find(output)).expect("the fetch")
}

fn hangup_params(bench: &Bench) -> Vec<String> {
    let find = |output: &Output| match output {
        Output::Concluded { summary } => Some(to_lines(&summary.hangup.params)),
        _ => None,
    };
    bench.outputs.iter().find_map(|(_, output)| find(output)).expect("the end")
}

fn with_payloads() -> CallSetup {
    CallSetup {
        cta_payload: Some("order 7".to_owned()),
        deeplink_payload: Some("shop".to_owned()),
        headers: vec![("Plan".to_owned(), "gold".to_owned())],
        ..setup()
    }
}

#[test]
fn calls_of_a_subaccount_name_it() {
    let bench = Bench::new(CallSetup { account: "SAXXXXXXXXXXXXXXXXXX".into(), ..setup() });
    let params = fetch_params(&bench, 1);
    assert!(params.contains(&"AccountID=SAXXXXXXXXXXXXXXXXXX".to_owned()), "{params:?}");
    assert!(params.contains(&"ParentAuthID=MAXXXXXXXXXXXXXXXXXX".to_owned()), "{params:?}");
}

#[test]
fn answer_request_parameters() {
    let bench = Bench::new(with_payloads());
    let expected = [
        "BillRate=0.00000",
        "CallStatus=ringing",
        "CallType=whatsapp",
        "CallUUID=3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11",
        "CallerName=Asha",
        "Direction=inbound",
        "Event=StartApp",
        "From=919812345678",
        "ParentAuthID=MAXXXXXXXXXXXXXXXXXX",
        "STIRVerification=Not Applicable",
        "SessionStart=2026-11-20 06:03:11.120394",
        "To=918035737458",
        "WhatsAppCallID=wacid.HBgMOTE5ODEyMzQ1Njc4",
        "WhatsAppCtaPayload=order 7",
        "WhatsAppDeeplinkPayload=shop",
        "X-PH-Plan=gold",
    ];
    assert_eq!(fetch_params(&bench, 1), expected);
}

#[test]
fn get_input_action_parameters() {
    let mut bench = Bench::live(setup(), document(GET_INPUT));
    bench.now = 2_000;
    bench.give(digit('4'));
    bench.give(digit('2'));
    let expected = [
        "AnswerTime=2026-11-20 06:03:11",
        "BillRate=0.00000",
        "BilledAmount=0.00000",
        "CallStatus=in-progress",
        "CallType=whatsapp",
        "CallUUID=3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11",
        "CallerName=Asha",
        "Digits=42",
        "Direction=inbound",
        "Event=Redirect",
        "From=919812345678",
        "InputType=dtmf",
        "ParentAuthID=MAXXXXXXXXXXXXXXXXXX",
        "SessionStart=2026-11-20 06:03:11.120394",
        "Speech=",
        "SpeechConfidenceScore=",
        "StartTime=2026-11-20 06:03:11",
        "To=918035737458",
        "WhatsAppCallID=wacid.HBgMOTE5ODEyMzQ1Njc4",
    ];
    assert_eq!(fetch_params(&bench, 2), expected);
}

#[test]
fn hangup_parameters_of_an_answered_call() {
    let mut bench = Bench::live(setup(), document(GET_INPUT));
    bench.now = 4_001;
    bench.give(Input::Terminated { termination: Termination::default() });
    let expected = [
        "AnswerTime=2026-11-20 06:03:11",
        "BillDuration=5",
        "BillRate=0.00000",
        "CallStatus=completed",
        "CallType=whatsapp",
        "CallUUID=3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11",
        "CallerName=Asha",
        "Direction=inbound",
        "Duration=5",
        "EndTime=2026-11-20 06:03:15",
        "Event=Hangup",
        "From=919812345678",
        "HangupCause=NORMAL_CLEARING",
        "HangupCauseCode=4000",
        "HangupCauseName=Normal Hangup",
        "HangupSource=Caller",
        "ParentAuthID=MAXXXXXXXXXXXXXXXXXX",
        "STIRVerification=Not Applicable",
        "SessionStart=2026-11-20 06:03:11.120394",
        "StartTime=2026-11-20 06:03:11",
        "To=918035737458",
        "TotalCost=0.00000",
        "WhatsAppCallID=wacid.HBgMOTE5ODEyMzQ1Njc4",
    ];
    assert_eq!(hangup_params(&bench), expected);
}

#[test]
fn hangup_parameters_of_an_unanswered_call() {
    let mut bench = Bench::new(setup());
    bench.now = 3_000;
    bench.give(Input::Terminated { termination: Termination::default() });
    let params = hangup_params(&bench);
    for expected in [
        "AnswerTime=",
        "BillDuration=0",
        "Duration=3",
        "HangupCauseCode=1000",
        "HangupSource=Caller",
        "StartTime=2026-11-20 06:03:11",
        "EndTime=2026-11-20 06:03:14",
    ] {
        assert!(params.iter().any(|p| p == expected), "{expected} in {params:?}");
    }
}

#[test]
fn get_digits_action_adds_digits_only() {
    let xml =
        r#"<Response><GetDigits action="https://app.example.com/do" numDigits="1"/></Response>"#;
    let mut bench = Bench::live(
        CallSetup { from: "IN.21300411725500934".to_owned(), ..setup() },
        document(xml),
    );
    bench.give(digit('4'));
    let params = fetch_params(&bench, 2);
    assert!(
        params.iter().any(|p| p == "Digits=4")
            && params.iter().any(|p| p == "From=IN.21300411725500934")
    );
    assert!(!params.iter().any(|p| p.starts_with("InputType") || p.starts_with("Speech")));
    // Inputs about another leg have no effect.
    let outputs = bench.outputs.len();
    bench.give(Input::Digit { leg: Leg::B(1), digit: model::Digit::try_from('1').expect("a key") });
    bench.give(fetched(FetchId(9), document(xml)));
    assert_eq!(bench.outputs.len(), outputs);
}

#[test]
fn a_hang_up_during_the_beep_of_a_record_is_reported_to_its_action() {
    let xml = "<Response><Record action=\"https://app.example.com/done\"/></Response>";
    let mut bench = Bench::live(setup(), document(xml));
    assert!(bench.playing().is_some(), "the beep");
    bench.give(Input::Terminated { termination: Termination::default() });
    let params = bench.outputs.iter().find_map(|(_, output)| match output {
        Output::Callback { callback } if &*callback.url.0 == "https://app.example.com/done" => {
            Some(&callback.params)
        }
        _ => None,
    });
    let params = params.expect("the action");
    for (name, value) in
        [("CallStatus", "completed"), ("RecordingDuration", "0"), ("RecordingEndReason", "HungUp")]
    {
        assert_eq!(params.get(name).map(Param::reveal), Some(value), "{name}");
    }
}
