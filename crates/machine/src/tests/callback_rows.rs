//! Checks that every row of the callback tables (docs/reference/callbacks.md,
//! docs/reference/hangup-causes.md) has a scenario.

use std::collections::BTreeSet;
use std::path::Path;

/// The row, the scenario, and a text that the scenario must contain.
const ROWS: &[(&str, &str, &str)] = &[
    ("call: answer, inbound", "caller_details", "fetch 1 answer POST"),
    (
        "call: answer, outbound",
        "placed_answered",
        "fetch 1 answer POST https://app.example.com/answer in 10000 ms AnswerTime=",
    ),
    ("call: fallback", "fallback_after_a_refused_answer", "fetch 2 fallback POST"),
    (
        "call: ring",
        "placed_answered",
        "notify ring POST https://app.example.com/ring CallStatus=ringing",
    ),
    ("call: ring, once", "placed_rings_after_the_answer", "status ringing"),
    ("call: hangup", "caller_hangs_up", "hangup POST https://app.example.com/hangup"),
    ("call: hangup, never answered", "placed_declined", "CallStatus=busy"),
    ("call: redirect", "redirect", "fetch 2 redirect GET"),
    ("GetInput: action", "menu_by_keys", "InputType=dtmf"),
    ("GetInput: action without redirect", "get_input_redirect_false", "notify action GET"),
    (
        "GetInput: action, speech",
        "speech_understood",
        "InputType=speech Speech=\"book a table\" SpeechConfidenceScore=0.87",
    ),
    ("GetInput: action, speech without redirect", "speech_redirect_false", "notify action POST"),
    (
        "GetInput: interim",
        "speech_interim",
        "CallStatus=in-progress SequenceNumber=1 Stability=0.00",
    ),
    (
        "GetInput: interim, at most five a second",
        "speech_interim",
        "@2650   timer\n          notify interim POST https://app.example.com/so-far",
    ),
    ("GetDigits: action", "retries_of_get_digits", "Digits="),
    ("GetDigits: action without redirect", "get_digits_redirect_false", "notify action GET"),
    ("Dial: DialAnswer", "dial_answered", "DialAction=answer"),
    ("Dial: DialConnected", "dial_answered", "DialAction=connected"),
    ("Dial: DialDigitsMatch, A", "dial_keys", "DialDigitsMatch=12 DialDigitsPressedBy=ALeg"),
    ("Dial: DialDigitsMatch, B", "dial_keys", "DialDigitsMatch=#9 DialDigitsPressedBy=BLeg"),
    ("Dial: DialHangup", "dial_answered", "DialAction=hangup"),
    ("Dial: confirmSound", "bleg_confirms", "fetch 1 sound POST"),
    ("Dial: dialMusic", "dial_music", "fetch 2 sound POST"),
    ("Dial: confirmSound, added participant", "mpc_confirmed", "fetch 1 sound GET"),
    ("Dial: dialMusic, added participant", "mpc_rings_with_music", "fetch 1 sound POST"),
    (
        "MultiPartyCall: AddParticipantFailed, not confirmed",
        "mpc_not_confirmed",
        "EventName=AddParticipantFailed",
    ),
    ("Dial: not confirmed, added participant", "mpc_not_confirmed", "HangupCauseCode=9110"),
    ("Dial result: completed", "dial_answered", "DialStatus=completed"),
    ("Dial result: busy, declined", "dial_declined", "DialStatus=busy"),
    ("Dial result: busy, 138003", "dial_user_busy", "DialStatus=busy"),
    ("Dial result: no-answer", "dial_ring_timeout", "DialStatus=no-answer"),
    ("Dial result: no-answer, Meta", "dial_no_answer", "DialBLegHangupCauseCode=3000"),
    ("Dial result: cancel", "dial_caller_hangs_up_while_it_rings", "DialBLegHangupCauseCode=1000"),
    ("Dial result: timeout", "dial_meta_times_out", "DialStatus=timeout"),
    ("Dial result: failed", "dial_meta_fails", "DialStatus=failed"),
    ("Dial: lost race", "dial_lost_race", "DialBLegHangupCauseCode=9000"),
    ("Dial: not confirmed", "dial_confirm_fails", "DialBLegHangupCauseCode=9110"),
    (
        "Dial result: pstn_forwarding_not_supported",
        "dial_without_an_action",
        "pstn_forwarding_not_supported",
    ),
    (
        "Dial result: whatsapp_to_whatsapp_not_supported",
        "dial_whatsapp_to_whatsapp",
        "DialBLegHangupCauseCode=2040",
    ),
    ("Dial result: sip_not_supported", "dial_several_not_placed", "DialError=sip_not_supported"),
    ("Dial result: loop", "dial_loop", "DialBLegHangupCauseCode=2060"),
    (
        "Dial result: invalid_destination",
        "dial_meta_refuses_invalid_destination",
        "DialBLegHangupCauseCode=2000",
    ),
    (
        "Dial result: caller_id_not_enabled",
        "dial_refused_caller_id_not_enabled",
        "DialBLegHangupCauseCode=3030",
    ),
    ("Dial result: no_permission", "dial_refused_no_permission", "DialBLegHangupCauseCode=3040"),
    ("Dial result: geo_blocked", "dial_refused_geo_blocked", "DialBLegHangupCauseCode=2030"),
    ("Dial result: number_full", "dial_refused_number_full", "DialBLegHangupCauseCode=5030"),
    ("Dial result: cps_exceeded", "dial_refused_cps_exceeded", "DialBLegHangupCauseCode=5030"),
    ("Dial result: draining", "dial_refused_draining", "DialBLegHangupCauseCode=5010"),
    ("Dial result: overloaded", "dial_refused_overloaded", "DialBLegHangupCauseCode=5010"),
    (
        "Dial result: endpoint_not_registered",
        "dial_refused_endpoint_not_registered",
        "DialBLegHangupCauseCode=2020",
    ),
    ("Conference: enter", "conference_in_and_out", "ConferenceAction=enter"),
    ("Conference: exit", "conference_in_and_out", "ConferenceAction=exit"),
    ("Conference: exit, hung up", "conference_caller_hangs_up", "ConferenceAction=exit"),
    (
        "Conference: digits",
        "conference_in_and_out",
        "ConferenceAction=digits ConferenceDigitsMatch=12",
    ),
    ("Conference: floor", "conference_in_and_out", "ConferenceAction=floor"),
    (
        "Conference: action",
        "conference_in_and_out",
        "fetch 2 action POST https://app.example.com/left",
    ),
    ("Conference: action, full", "conference_full", "ConferenceMemberID= "),
    ("Conference: waitSound", "conference_waits", "sound POST https://app.example.com/wait"),
    ("Conference: enterSound", "conference_waits", "sound POST https://app.example.com/enter"),
    ("Conference: exitSound", "conference_waits", "sound POST https://app.example.com/exit"),
    ("MultiPartyCall: MPCInitialized", "mpc_agent", "EventName=MPCInitialized"),
    ("MultiPartyCall: MPCStart", "mpc_agent", "EventName=MPCStart"),
    ("MultiPartyCall: MPCStart, later", "mpc_stopped", "EventName=MPCStart"),
    ("MultiPartyCall: MPCEnd", "mpc_agent", "and that it is over where it was the last"),
    ("MultiPartyCall: ParticipantJoin", "mpc_agent", "EventName=ParticipantJoin"),
    ("MultiPartyCall: ParticipantExit", "mpc_agent", "EventName=ParticipantExit"),
    ("MultiPartyCall: ParticipantMute", "mpc_agent", "EventName=ParticipantMute"),
    ("MultiPartyCall: ParticipantUnmute", "mpc_agent", "EventName=ParticipantUnmute"),
    ("MultiPartyCall: ParticipantHold", "mpc_agent", "EventName=ParticipantHold"),
    ("MultiPartyCall: ParticipantUnhold", "mpc_agent", "EventName=ParticipantUnhold"),
    (
        "MultiPartyCall: ParticipantSpeakStart",
        "mpc_customer_waits",
        "EventName=ParticipantSpeakStart",
    ),
    (
        "MultiPartyCall: ParticipantSpeakStop",
        "mpc_customer_waits",
        "EventName=ParticipantSpeakStop",
    ),
    (
        "MultiPartyCall: ParticipantDigitInput",
        "mpc_customer_waits",
        "Digits=4 EventName=ParticipantDigitInput",
    ),
    (
        "MultiPartyCall: onExitActionUrl",
        "mpc_agent",
        "fetch 2 action POST https://app.example.com/exit",
    ),
    ("hangup code: 4020, own limit", "mpc_time_is_up", "HangupCauseCode=4020 HangupSource=Plivo"),
    (
        "hangup code: 4020, over REST",
        "mpc_stopped",
        "HangupCauseCode=4020 HangupSource=\"API Request\"",
    ),
    ("hangup code: 4030", "mpc_kicked", "HangupCauseCode=4030 HangupSource=\"API Request\""),
    ("failure: answer unreachable", "answer_timeout", "HangupCauseCode=7011"),
    ("failure: answer not 2xx", "answer_status", "HangupCauseCode=7011"),
    ("failure: answer refused", "answer_refused", "HangupCauseCode=8011"),
    ("failure: URL refused", "answer_url_refused", "HangupCauseCode=7011"),
    ("failure: fallback fails too", "fallback_fails_too", "HangupCauseCode=8011"),
    ("failure: answer budget", "fallback_within_the_budget", "HangupCauseCode=7011"),
    ("failure: action unreachable", "action_unreachable", "HangupCauseCode=7012"),
    ("failure: action refused", "action_refused", "HangupCauseCode=8012"),
    ("failure: redirect unreachable", "redirect_unreachable", "HangupCauseCode=7014"),
    ("failure: redirect refused", "redirect_refused", "HangupCauseCode=8014"),
    ("CallStatus: no-answer", "placed_not_answered", "CallStatus=no-answer"),
    ("CallStatus: timeout", "placed_unreachable", "CallStatus=timeout"),
    ("CallStatus: cancel", "placed_cancelled_while_it_rings", "CallStatus=cancel"),
    ("CallStatus: failed", "placed_refused_138006", "CallStatus=failed"),
    ("call: transfer", "transfer_ends_what_runs", " transfer POST"),
    ("failure: transfer unreachable", "transfer_fails", "HangupCauseCode=7013"),
    ("failure: transfer refused", "transfer_refused_xml", "HangupCauseCode=8013"),
    ("Dial: DialHangup, never placed", "dial_refused_geo_blocked", "DialBLegHangupCauseCode=2030"),
    ("Dial: action", "dial_answered", "DialStatus="),
    ("Dial: action, never placed", "dial_loop", "DialError="),
    ("Stream: StartStream", "stream_of_a_bot", "stream StartStream AnswerTime="),
    (
        "Stream: PlayedStream",
        "stream_of_a_bot",
        "PlayedStream AnswerTime=\"2026-11-20 06:03:11\" CallStatus=in-progress Name=hello",
    ),
    ("Stream: ClearedAudio", "stream_of_a_bot", "ClearedAudio"),
    ("Stream: DegradedStream", "stream_of_a_bot", "DegradedStream"),
    ("Stream: StopStream, closed", "stream_of_a_bot", "StatusReason=api_request"),
    ("Stream: StopStream, call end", "stream_in_the_background", "StatusReason=call_hangup"),
    ("Stream: StopStream, API", "stream_over_rest", "StatusReason=api_request"),
    ("Stream: StopStream, streamTimeout", "stream_timeout", "StatusReason=stream_timeout"),
    ("Stream: DroppedStream, lost", "stream_lost", "DroppedStream"),
    (
        "Stream: DroppedStream, connect failed",
        "stream_cannot_connect",
        "StatusReason=connection_error",
    ),
    ("Stream: one at a time", "stream_over_rest", "DroppedStream"),
    ("Stream: ended by a transfer", "stream_transferred", "StatusReason=api_request"),
];

/// The hangup codes with which a call or one of its legs can end.
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
    for (row, name, text) in ROWS {
        assert!(scenario(name).contains(*text), "{row}: {name}.scn does not say {text:?}");
    }
    let once = scenario("placed_rings_after_the_answer");
    assert!(once.matches("notify ring").count() <= 1);
}

#[test]
fn every_code_has_its_scenario() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/scenarios");
    let mut codes_seen = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let codes = text.split("HangupCauseCode=").skip(1);
        codes_seen
            .extend(codes.filter_map(|rest| rest.split_whitespace().next()?.parse::<u16>().ok()));
    }
    let missing: Vec<_> = CODES.iter().filter(|code| !codes_seen.contains(*code)).collect();
    assert!(missing.is_empty(), "no scenario ends with {missing:?}");
}

/// The store writes the label and reads the serialized form.
#[test]
fn callback_kinds_serialize_as_their_label() {
    use crate::CallbackKind as K;
    for kind in [K::Hangup, K::Ring, K::Action, K::Dial, K::Interim, K::Conference, K::MultiParty] {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
    }
}
