//! `Record`, `Conference`, `MultiPartyCall`, `Stream`.

use crate::ast::{Conference, MemberSound, MultiPartyCall, Record, Stream, Transcription};
use crate::attributes::{self, Attributes, Table};
use crate::findings::Findings;
use crate::tree::Node;
use crate::value::{Case, Kind, Words};
use model::Digit;

use super::control::url_body;
use super::{no_children, report_text, text_body};

const FILE_FORMAT: Kind = Kind::one_of(&["mp3", "wav"]);
const TRANSCRIPTION_TYPE: Kind = Kind::one_of(&["auto", "hybrid", "manual"]);
const AUDIO_TYPE: Kind = Kind::Enum(Words {
    words: &["audio/x-l16;rate=8000", "audio/x-l16;rate=16000", "audio/x-mulaw;rate=8000"],
    undocumented: &["audio/x-l16;rate=24000"],
    case: Case::Sensitive,
});
/// Maximum length of the body of `Conference` and `MultiPartyCall`, in characters.
const MAX_NAME: usize = 128;

const RECORD: Table = &[
    ("action", Kind::Url),
    ("method", Kind::Method),
    ("redirect", Kind::Bool),
    ("fileFormat", FILE_FORMAT),
    ("timeout", Kind::Int(1, 3_600)),
    ("maxLength", Kind::Int(1, 14_400)),
    ("playBeep", Kind::Bool),
    ("finishOnKey", Kind::KeysOrNone),
    ("recordSession", Kind::Bool),
    ("startOnDialAnswer", Kind::Bool),
    ("recordChannelType", Kind::one_of(&["mono", "stereo"])),
    ("transcriptionType", TRANSCRIPTION_TYPE),
    ("transcriptionUrl", Kind::Url),
    ("transcriptionMethod", Kind::Method),
    ("transcriptionReportType", Kind::one_of(&["full", "compact"])),
    ("callbackUrl", Kind::Url),
    ("callbackMethod", Kind::Method),
];

const CONFERENCE: Table = &[
    ("muted", Kind::Bool),
    ("hangupOnStar", Kind::Bool),
    ("endConferenceOnExit", Kind::Bool),
    ("record", Kind::Bool),
    ("floorEvent", Kind::Bool),
    ("startConferenceOnEnter", Kind::Bool),
    ("stayAlone", Kind::Bool),
    ("redirect", Kind::Bool),
    ("relayDTMF", Kind::Bool),
    ("enterSound", MEMBER_SOUND),
    ("exitSound", MEMBER_SOUND),
    ("waitSound", Kind::Url),
    ("maxMembers", Kind::Int(1, 20)),
    ("timeLimit", Kind::Int(1, 86_400)),
    ("recordFileFormat", FILE_FORMAT),
    ("recordWhenAlone", Kind::Bool),
    ("action", Kind::Url),
    ("method", Kind::Method),
    ("callbackUrl", Kind::Url),
    ("callbackMethod", Kind::Method),
    ("digitsMatch", Kind::DigitsList),
    ("sendDigits", Kind::SendDigits),
    ("transcriptionType", TRANSCRIPTION_TYPE),
    ("transcriptionUrl", Kind::Url),
    ("transcriptionMethod", Kind::Method),
];
const MEMBER_SOUND: Kind = Kind::UrlOr(&["", "beep:1", "beep:2"]);

const MULTI_PARTY_CALL: Table = &[
    (
        "role",
        Kind::Enum(Words {
            words: &["agent", "supervisor", "customer", "ai-agent"],
            undocumented: &[],
            case: Case::Insensitive,
        }),
    ),
    ("maxDuration", Kind::Int(300, 28_800)),
    ("maxParticipants", Kind::Int(2, 10)),
    ("recordMinMemberCount", Kind::Int(1, 2)),
    ("waitTime", Kind::Int(0, 1_800)),
    ("waitMusicUrl", Kind::Url),
    ("waitMusicMethod", Kind::Method),
    ("agentHoldMusicUrl", Kind::Url),
    ("agentHoldMusicMethod", Kind::Method),
    ("customerHoldMusicUrl", Kind::Url),
    ("customerHoldMusicMethod", Kind::Method),
    ("startRecordingAudio", Kind::Url),
    ("startRecordingAudioMethod", Kind::Method),
    ("stopRecordingAudio", Kind::Url),
    ("stopRecordingAudioMethod", Kind::Method),
    ("record", Kind::Bool),
    ("recordParticipantTrack", Kind::Bool),
    ("stayAlone", Kind::Bool),
    ("mute", Kind::Bool),
    ("hold", Kind::Bool),
    ("endMpcOnExit", Kind::Bool),
    ("relayDTMFInputs", Kind::Bool),
    ("transcript", Kind::Bool),
    ("waitForAgent", Kind::Bool),
    ("recordCoachVoice", Kind::Bool),
    ("coachMode", Kind::Bool),
    ("startMpcOnEnter", Kind::Bool),
    ("recordFileFormat", FILE_FORMAT),
    ("recordingCallbackUrl", Kind::Url),
    ("recordingCallbackMethod", Kind::Method),
    ("statusCallbackUrl", Kind::Url),
    ("statusCallbackMethod", Kind::Method),
    ("onExitActionUrl", Kind::Url),
    ("onExitActionMethod", Kind::Method),
    (
        "statusCallbackEvents",
        Kind::WordList(&[
            "mpc-state-changes",
            "participant-state-changes",
            "participant-speak-events",
            "participant-digit-input-events",
            "add-participant-api-events",
            "participant-audio-events",
        ]),
    ),
    ("enterSound", MPC_SOUND),
    ("enterSoundMethod", Kind::Method),
    ("exitSound", MPC_SOUND),
    ("exitSoundMethod", Kind::Method),
    ("transcriptionUrl", Kind::Url),
    ("aiAgentStreamServiceUrl", Kind::WsUrl),
    ("aiAgentStreamContentType", AUDIO_TYPE),
    ("aiAgentStreamStatusCallbackUrl", Kind::Url),
    ("aiAgentStreamStatusCallbackMethod", Kind::Method),
    ("aiAgentStreamSamplingRate", Kind::Int(1, u32::MAX)),
    ("aiAgentStreamExtraHeaders", Kind::Pairs(usize::MAX)),
];
const MPC_SOUND: Kind = Kind::UrlOr(&["none", "", "beep:1", "beep:2"]);

const STREAM: Table = &[
    ("bidirectional", Kind::Bool),
    ("audioTrack", Kind::one_of(&["inbound", "outbound", "both"])),
    ("streamTimeout", Kind::Int(1, 86_400)),
    ("statusCallbackUrl", Kind::Url),
    ("statusCallbackMethod", Kind::Method),
    ("contentType", AUDIO_TYPE),
    ("extraHeaders", Kind::Pairs(512)),
    ("keepCallAlive", Kind::Bool),
    ("noiseCancellation", Kind::Bool),
    ("noiseCancellationLevel", Kind::Int(60, 100)),
];

pub(super) fn record(node: &Node<'_>, findings: &mut Findings) -> Record {
    let a = attributes::check(node, RECORD, &[], findings);
    let (record_session, start_on_dial_answer) =
        (a.flag("recordSession", false), a.flag("startOnDialAnswer", false));
    if record_session || start_on_dial_answer {
        for name in ["timeout", "finishOnKey", "playBeep"] {
            a.report_no_effect(name, "on a background recording", findings);
        }
    }
    report_text(node, findings);
    no_children(node, findings);
    Record {
        action: a.target("action", "method"),
        redirect: a.flag("redirect", true),
        mp3: a.word("fileFormat") != Some("wav"),
        timeout: a.seconds("timeout", 15),
        max_length: a.maybe_seconds("maxLength"),
        play_beep: a.flag("playBeep", true),
        finish_on_key: match a.keys("finishOnKey") {
            Some(keys) => keys.collect(),
            None => Digit::try_from('#').into_iter().collect(),
        },
        record_session,
        start_on_dial_answer,
        stereo: a.word("recordChannelType") != Some("mono"),
        transcription: transcription(&a),
        callback: a.target("callbackUrl", "callbackMethod"),
    }
}

fn transcription(a: &Attributes<'_>) -> Option<Transcription> {
    let target = a.target("transcriptionUrl", "transcriptionMethod");
    let kind = a.word("transcriptionType");
    (target.is_some() || kind.is_some()).then(|| Transcription {
        kind: kind.unwrap_or("auto").to_owned(),
        target,
        report_full: a.word("transcriptionReportType") == Some("full"),
    })
}

fn member_sound(a: &Attributes<'_>, name: &str) -> MemberSound {
    match a.word(name) {
        Some("beep:1") => MemberSound::Beep(1),
        Some("beep:2") => MemberSound::Beep(2),
        Some(_) => MemberSound::None,
        None => a.target(name, "").map_or(MemberSound::None, MemberSound::Document),
    }
}

pub(super) fn conference(node: &Node<'_>, findings: &mut Findings) -> Conference {
    let a = attributes::check(node, CONFERENCE, &[], findings);
    let name = text_body(node, "the name of the conference", MAX_NAME, findings);
    no_children(node, findings);
    Conference {
        name,
        muted: a.flag("muted", false),
        hangup_on_star: a.flag("hangupOnStar", false),
        end_on_exit: a.flag("endConferenceOnExit", false),
        record: a.flag("record", false),
        floor_event: a.flag("floorEvent", false),
        start_on_enter: a.flag("startConferenceOnEnter", true),
        stay_alone: a.flag("stayAlone", true),
        redirect: a.flag("redirect", true),
        relay_dtmf: a.flag("relayDTMF", true),
        enter_sound: member_sound(&a, "enterSound"),
        exit_sound: member_sound(&a, "exitSound"),
        wait_sound: a.url("waitSound"),
        max_members: a.small("maxMembers", 20),
        time_limit: a.seconds("timeLimit", 86_400),
        record_mp3: a.word("recordFileFormat") != Some("wav"),
        record_when_alone: a.flag("recordWhenAlone", true),
        action: a.target("action", "method"),
        callback: a.target("callbackUrl", "callbackMethod"),
        digits_match: a.list("digitsMatch"),
        send_digits: a.owned("sendDigits"),
        transcription: transcription(&a),
    }
}

pub(super) fn multi_party_call(node: &Node<'_>, findings: &mut Findings) -> MultiPartyCall {
    let a = attributes::check(node, MULTI_PARTY_CALL, &[], findings);
    a.require("role", findings);
    let name = text_body(node, "the name of the multi-party call", MAX_NAME, findings);
    no_children(node, findings);
    let attributes = a
        .texts()
        .filter(|(name, _)| *name != "role")
        .map(|(name, text)| (name.to_owned(), text.to_owned()))
        .collect();
    MultiPartyCall { name, role: a.word("role").unwrap_or_default().to_owned(), attributes }
}

pub(super) fn stream(node: &Node<'_>, findings: &mut Findings) -> Option<Stream> {
    let a = attributes::check(node, STREAM, &[], findings);
    let bidirectional = a.flag("bidirectional", false);
    let audio_track = a.word("audioTrack").unwrap_or("inbound");
    if bidirectional && audio_track != "inbound" {
        let message = format!("audioTrack=\"{audio_track}\" with bidirectional=\"true\"");
        let hint = "write audioTrack=\"inbound\", or remove bidirectional";
        a.report_contradiction("audioTrack", &message, hint, findings);
    }
    let noise_cancellation = a.flag("noiseCancellation", false);
    if !noise_cancellation {
        a.report_no_effect(
            "noiseCancellationLevel",
            "without noiseCancellation=\"true\"",
            findings,
        );
    }
    let url = url_body(node, Kind::WsUrl, findings);
    no_children(node, findings);
    Some(Stream {
        url: url?,
        bidirectional,
        audio_track: audio_track.to_owned(),
        timeout: a.seconds("streamTimeout", 86_400),
        status_callback: a.target("statusCallbackUrl", "statusCallbackMethod"),
        content_type: a.word("contentType").unwrap_or("audio/x-l16;rate=8000").to_owned(),
        extra_headers: a.pairs("extraHeaders"),
        keep_call_alive: a.flag("keepCallAlive", false),
        noise_cancellation,
        noise_cancellation_level: a.small("noiseCancellationLevel", 85),
    })
}
