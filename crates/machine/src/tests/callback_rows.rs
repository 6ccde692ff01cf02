//! Every row of the callback tables (`plivo-callbacks.md` §2–§4, §6.2) that a call of this version can make has a
//! scenario that shows it.

use std::collections::BTreeSet;
use std::path::Path;

/// Row, scenario, and what the scenario must say.
const ROWS: &[(&str, &str, &str)] = &[
    ("2 answer, inbound", "caller_details", "fetch 1 answer POST"),
    (
        "2 answer, outbound",
        "placed_answered",
        "fetch 1 answer POST https://app.example.com/answer in 10000 ms AnswerTime=",
    ),
    ("2 fallback", "fallback_after_a_refused_answer", "fetch 2 fallback POST"),
    (
        "2 ring",
        "placed_answered",
        "notify ring POST https://app.example.com/ring CallStatus=ringing",
    ),
    ("2 ring, once", "placed_rings_after_the_answer", "status ringing"),
    ("2 hangup", "caller_hangs_up", "hangup POST https://app.example.com/hangup"),
    ("2 hangup, never answered", "placed_declined", "CallStatus=busy"),
    ("2 redirect", "redirect", "fetch 2 redirect GET"),
    ("3.1 action", "menu_by_keys", "InputType=dtmf"),
    ("3.1 action without redirect", "get_input_redirect_false", "notify action GET"),
    (
        "3.1 action, speech",
        "speech_understood",
        "InputType=speech Speech=\"book a table\" SpeechConfidenceScore=0.87",
    ),
    ("3.1 action, speech without redirect", "speech_redirect_false", "notify action POST"),
    ("3.1 interim", "speech_interim", "CallStatus=in-progress SequenceNumber=1 Stability=0.00"),
    (
        "3.1 interim, at most five a second",
        "speech_interim",
        "@2650   timer\n          notify interim POST https://app.example.com/so-far",
    ),
    ("3.2 action", "retries_of_get_digits", "Digits="),
    ("3.2 action without redirect", "get_digits_redirect_false", "notify action GET"),
    ("3.3 DialAnswer", "dial_answered", "DialAction=answer"),
    ("3.3 DialConnected", "dial_answered", "DialAction=connected"),
    ("3.3 DialDigitsMatch, A", "dial_keys", "DialDigitsMatch=12 DialDigitsPressedBy=ALeg"),
    ("3.3 DialDigitsMatch, B", "dial_keys", "DialDigitsMatch=#9 DialDigitsPressedBy=BLeg"),
    ("3.3 DialHangup", "dial_answered", "DialAction=hangup"),
    ("3.3 confirmSound", "bleg_confirms", "fetch 1 sound POST"),
    ("3.3 dialMusic", "dial_music", "fetch 2 sound POST"),
    ("3.3 confirmSound, of who is added", "mpc_confirmed", "fetch 1 sound GET"),
    ("3.3 dialMusic, of who is added", "mpc_rings_with_music", "fetch 1 sound POST"),
    (
        "3.6 AddParticipantFailed, not confirmed",
        "mpc_not_confirmed",
        "EventName=AddParticipantFailed",
    ),
    ("xml 5.7 not confirmed, of who is added", "mpc_not_confirmed", "HangupCauseCode=9110"),
    ("xml 6 completed", "dial_answered", "DialStatus=completed"),
    ("xml 6 busy, declined", "dial_declined", "DialStatus=busy"),
    ("xml 6 busy, 138003", "dial_user_busy", "DialStatus=busy"),
    ("xml 6 no-answer", "dial_ring_timeout", "DialStatus=no-answer"),
    ("xml 6 no-answer, Meta", "dial_no_answer", "DialBLegHangupCauseCode=3000"),
    ("xml 6 cancel", "dial_caller_hangs_up_while_it_rings", "DialBLegHangupCauseCode=1000"),
    ("xml 6 timeout", "dial_meta_times_out", "DialStatus=timeout"),
    ("xml 6 failed", "dial_meta_fails", "DialStatus=failed"),
    ("xml 5.7 lost race", "dial_lost_race", "DialBLegHangupCauseCode=9000"),
    ("xml 5.7 not confirmed", "dial_confirm_fails", "DialBLegHangupCauseCode=9110"),
    (
        "xml 6 pstn_forwarding_not_supported",
        "dial_without_an_action",
        "pstn_forwarding_not_supported",
    ),
    (
        "xml 6 whatsapp_to_whatsapp_not_supported",
        "dial_whatsapp_to_whatsapp",
        "DialBLegHangupCauseCode=2040",
    ),
    ("xml 6 sip_not_supported", "dial_several_not_placed", "DialError=sip_not_supported"),
    ("xml 6 loop", "dial_loop", "DialBLegHangupCauseCode=2060"),
    (
        "xml 6 invalid_destination",
        "dial_meta_refuses_invalid_destination",
        "DialBLegHangupCauseCode=2000",
    ),
    (
        "xml 6 caller_id_not_enabled",
        "dial_refused_caller_id_not_enabled",
        "DialBLegHangupCauseCode=3030",
    ),
    ("xml 6 no_permission", "dial_refused_no_permission", "DialBLegHangupCauseCode=3040"),
    ("xml 6 geo_blocked", "dial_refused_geo_blocked", "DialBLegHangupCauseCode=2030"),
    ("xml 6 number_full", "dial_refused_number_full", "DialBLegHangupCauseCode=5030"),
    ("xml 6 cps_exceeded", "dial_refused_cps_exceeded", "DialBLegHangupCauseCode=5030"),
    ("xml 6 draining", "dial_refused_draining", "DialBLegHangupCauseCode=5010"),
    ("xml 6 overloaded", "dial_refused_overloaded", "DialBLegHangupCauseCode=5010"),
    (
        "xml 6 endpoint_not_registered",
        "dial_refused_endpoint_not_registered",
        "DialBLegHangupCauseCode=2020",
    ),
    ("3.5 enter", "conference_in_and_out", "ConferenceAction=enter"),
    ("3.5 exit", "conference_in_and_out", "ConferenceAction=exit"),
    ("3.5 exit, hung up", "conference_caller_hangs_up", "ConferenceAction=exit"),
    ("3.5 digits", "conference_in_and_out", "ConferenceAction=digits ConferenceDigitsMatch=12"),
    ("3.5 floor", "conference_in_and_out", "ConferenceAction=floor"),
    ("3.5 action", "conference_in_and_out", "fetch 2 action POST https://app.example.com/left"),
    ("3.5 action, full", "conference_full", "ConferenceMemberID= "),
    ("3.5 waitSound", "conference_waits", "sound POST https://app.example.com/wait"),
    ("3.5 enterSound", "conference_waits", "sound POST https://app.example.com/enter"),
    ("3.5 exitSound", "conference_waits", "sound POST https://app.example.com/exit"),
    ("3.6 MPCInitialized", "mpc_agent", "EventName=MPCInitialized"),
    ("3.6 MPCStart", "mpc_agent", "EventName=MPCStart"),
    ("3.6 MPCStart, later", "mpc_stopped", "EventName=MPCStart"),
    ("3.6 MPCEnd", "mpc_agent", "and that it is over where it was the last"),
    ("3.6 ParticipantJoin", "mpc_agent", "EventName=ParticipantJoin"),
    ("3.6 ParticipantExit", "mpc_agent", "EventName=ParticipantExit"),
    ("3.6 ParticipantMute", "mpc_agent", "EventName=ParticipantMute"),
    ("3.6 ParticipantUnmute", "mpc_agent", "EventName=ParticipantUnmute"),
    ("3.6 ParticipantHold", "mpc_agent", "EventName=ParticipantHold"),
    ("3.6 ParticipantUnhold", "mpc_agent", "EventName=ParticipantUnhold"),
    ("3.6 ParticipantSpeakStart", "mpc_customer_waits", "EventName=ParticipantSpeakStart"),
    ("3.6 ParticipantSpeakStop", "mpc_customer_waits", "EventName=ParticipantSpeakStop"),
    ("3.6 ParticipantDigitInput", "mpc_customer_waits", "Digits=4 EventName=ParticipantDigitInput"),
    ("3.6 onExitActionUrl", "mpc_agent", "fetch 2 action POST https://app.example.com/exit"),
    ("6.2 4020, of itself", "mpc_time_is_up", "HangupCauseCode=4020 HangupSource=Plivo"),
    ("6.2 4020, over REST", "mpc_stopped", "HangupCauseCode=4020 HangupSource=\"API Request\""),
    ("6.2 4030", "mpc_kicked", "HangupCauseCode=4030 HangupSource=\"API Request\""),
    ("4.3 answer unreachable", "answer_timeout", "HangupCauseCode=7011"),
    ("4.3 answer not 2xx", "answer_status", "HangupCauseCode=7011"),
    ("4.3 answer refused", "answer_refused", "HangupCauseCode=8011"),
    ("4.3 URL refused", "answer_url_refused", "HangupCauseCode=7011"),
    ("4.3 fallback fails too", "fallback_fails_too", "HangupCauseCode=8011"),
    ("4.3 answer budget", "fallback_within_the_budget", "HangupCauseCode=7011"),
    ("4.3 action unreachable", "action_unreachable", "HangupCauseCode=7012"),
    ("4.3 action refused", "action_refused", "HangupCauseCode=8012"),
    ("4.3 redirect unreachable", "redirect_unreachable", "HangupCauseCode=7014"),
    ("4.3 redirect refused", "redirect_refused", "HangupCauseCode=8014"),
    ("1.3 no-answer", "placed_not_answered", "CallStatus=no-answer"),
    ("1.3 timeout", "placed_unreachable", "CallStatus=timeout"),
    ("1.3 cancel", "placed_cancelled_while_it_rings", "CallStatus=cancel"),
    ("1.3 failed", "placed_refused_138006", "CallStatus=failed"),
    ("2 transfer", "transfer_ends_what_runs", " transfer POST"),
    ("4.3 transfer unreachable", "transfer_fails", "HangupCauseCode=7013"),
    ("4.3 transfer refused", "transfer_refused_xml", "HangupCauseCode=8013"),
    ("3.3 DialHangup, never placed", "dial_refused_geo_blocked", "DialBLegHangupCauseCode=2030"),
    ("3.3 action", "dial_answered", "DialStatus="),
    ("3.3 action, never placed", "dial_loop", "DialError="),
    ("3.8 StartStream", "stream_of_a_bot", "stream StartStream AnswerTime="),
    (
        "3.8 PlayedStream",
        "stream_of_a_bot",
        "PlayedStream AnswerTime=\"2026-11-20 06:03:11\" CallStatus=in-progress Name=hello",
    ),
    ("3.8 ClearedAudio", "stream_of_a_bot", "ClearedAudio"),
    ("3.8 DegradedStream", "stream_of_a_bot", "DegradedStream"),
    ("3.8 StopStream, closed", "stream_of_a_bot", "StatusReason=api_request"),
    ("3.8 StopStream, call end", "stream_in_the_background", "StatusReason=call_hangup"),
    ("3.8 StopStream, API", "stream_over_rest", "StatusReason=api_request"),
    ("3.8 StopStream, streamTimeout", "stream_timeout", "StatusReason=stream_timeout"),
    ("3.8 DroppedStream, lost", "stream_lost", "DroppedStream"),
    ("3.8 DroppedStream, connect failed", "stream_cannot_connect", "StatusReason=connection_error"),
    ("xml 5.11 one at a time", "stream_over_rest", "DroppedStream"),
    ("xml 4 rule 4, stream", "stream_transferred", "StatusReason=api_request"),
];

/// Codes of §6.2 that a call, or a leg of it, can end with today.
const CODES: &[u16] = &[
    1000, 2000, 2020, 2030, 2040, 2060, 3000, 3010, 3020, 3030, 3040, 3070, 3080, 3090, 4000, 4010,
    4020, 4030, 5000, 5010, 5030, 6000, 6010, 6020, 7011, 7012, 7013, 7014, 7022, 7024, 7032, 7034,
    8011, 8012, 8013, 8014, 9000, 9110,
];

fn scenario(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fixtures/scenarios")
        .join(format!("{name}.scn"));
    std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

#[test]
fn every_row_has_its_scenario() {
    for (row, name, says) in ROWS {
        assert!(scenario(name).contains(*says), "{row}: {name}.scn does not say {says:?}");
    }
    let once = scenario("placed_rings_after_the_answer");
    assert!(once.matches("notify ring").count() <= 1);
}

#[test]
fn every_code_has_its_scenario() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/scenarios");
    let mut said = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let codes = text.split("HangupCauseCode=").skip(1);
        said.extend(codes.filter_map(|rest| rest.split_whitespace().next()?.parse::<u16>().ok()));
    }
    let missing: Vec<_> = CODES.iter().filter(|code| !said.contains(*code)).collect();
    assert!(missing.is_empty(), "no scenario ends with {missing:?}");
}

/// The store writes the word and reads the value.
#[test]
fn a_kind_is_read_by_the_word_it_is_written_with() {
    use crate::CallbackKind as K;
    for kind in [K::Hangup, K::Ring, K::Action, K::Dial, K::Interim, K::Conference, K::MultiParty] {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}
