//! `Record`, `Conference`, `MultiPartyCall`, `Stream`.

use crate::ast::{Conference, MemberSound, MultiPartyCall, Record, Stream, Target, Transcription};
use crate::attributes::{self, Attributes, Table};
use crate::findings::Findings;
use crate::names::Attr;
use crate::tree::Node;
use crate::value::{Case, Kind, Words};
use model::{Digit, Method};

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
    (Attr::Action, Kind::Url),
    (Attr::Method, Kind::Method),
    (Attr::Redirect, Kind::Bool),
    (Attr::FileFormat, FILE_FORMAT),
    (Attr::Timeout, Kind::Int(1, 3_600)),
    (Attr::MaxLength, Kind::Int(1, 14_400)),
    (Attr::PlayBeep, Kind::Bool),
    (Attr::FinishOnKey, Kind::KeysOrNone),
    (Attr::RecordSession, Kind::Bool),
    (Attr::StartOnDialAnswer, Kind::Bool),
    (Attr::RecordChannelType, Kind::one_of(&["mono", "stereo"])),
    (Attr::TranscriptionType, TRANSCRIPTION_TYPE),
    (Attr::TranscriptionUrl, Kind::Url),
    (Attr::TranscriptionMethod, Kind::Method),
    (Attr::TranscriptionReportType, Kind::one_of(&["full", "compact"])),
    (Attr::CallbackUrl, Kind::Url),
    (Attr::CallbackMethod, Kind::Method),
];

const CONFERENCE: Table = &[
    (Attr::Muted, Kind::Bool),
    (Attr::HangupOnStar, Kind::Bool),
    (Attr::EndConferenceOnExit, Kind::Bool),
    (Attr::Record, Kind::Bool),
    (Attr::FloorEvent, Kind::Bool),
    (Attr::StartConferenceOnEnter, Kind::Bool),
    (Attr::StayAlone, Kind::Bool),
    (Attr::Redirect, Kind::Bool),
    (Attr::RelayDtmf, Kind::Bool),
    (Attr::EnterSound, MEMBER_SOUND),
    (Attr::ExitSound, MEMBER_SOUND),
    (Attr::WaitSound, Kind::Url),
    (Attr::MaxMembers, Kind::Int(1, 20)),
    (Attr::TimeLimit, Kind::Int(1, 86_400)),
    (Attr::RecordFileFormat, FILE_FORMAT),
    (Attr::RecordWhenAlone, Kind::Bool),
    (Attr::Action, Kind::Url),
    (Attr::Method, Kind::Method),
    (Attr::CallbackUrl, Kind::Url),
    (Attr::CallbackMethod, Kind::Method),
    (Attr::DigitsMatch, Kind::DigitsList),
    (Attr::SendDigits, Kind::SendDigits),
    (Attr::TranscriptionType, TRANSCRIPTION_TYPE),
    (Attr::TranscriptionUrl, Kind::Url),
    (Attr::TranscriptionMethod, Kind::Method),
];
const MEMBER_SOUND: Kind = Kind::UrlOr(&["", "beep:1", "beep:2"]);

const MULTI_PARTY_CALL: Table = &[
    (
        Attr::Role,
        Kind::Enum(Words {
            words: &["agent", "supervisor", "customer", "ai-agent"],
            undocumented: &[],
            case: Case::Insensitive,
        }),
    ),
    (Attr::MaxDuration, Kind::Int(300, 28_800)),
    (Attr::MaxParticipants, Kind::Int(2, 10)),
    (Attr::RecordMinMemberCount, Kind::Int(1, 2)),
    (Attr::WaitTime, Kind::Int(0, 1_800)),
    (Attr::WaitMusicUrl, Kind::Url),
    (Attr::WaitMusicMethod, Kind::Method),
    (Attr::AgentHoldMusicUrl, Kind::Url),
    (Attr::AgentHoldMusicMethod, Kind::Method),
    (Attr::CustomerHoldMusicUrl, Kind::Url),
    (Attr::CustomerHoldMusicMethod, Kind::Method),
    (Attr::StartRecordingAudio, Kind::Url),
    (Attr::StartRecordingAudioMethod, Kind::Method),
    (Attr::StopRecordingAudio, Kind::Url),
    (Attr::StopRecordingAudioMethod, Kind::Method),
    (Attr::Record, Kind::Bool),
    (Attr::RecordParticipantTrack, Kind::Bool),
    (Attr::StayAlone, Kind::Bool),
    (Attr::Mute, Kind::Bool),
    (Attr::Hold, Kind::Bool),
    (Attr::EndMpcOnExit, Kind::Bool),
    (Attr::RelayDtmfInputs, Kind::Bool),
    (Attr::Transcript, Kind::Bool),
    (Attr::WaitForAgent, Kind::Bool),
    (Attr::RecordCoachVoice, Kind::Bool),
    (Attr::CoachMode, Kind::Bool),
    (Attr::StartMpcOnEnter, Kind::Bool),
    (Attr::RecordFileFormat, FILE_FORMAT),
    (Attr::RecordingCallbackUrl, Kind::Url),
    (Attr::RecordingCallbackMethod, Kind::Method),
    (Attr::StatusCallbackUrl, Kind::Url),
    (Attr::StatusCallbackMethod, Kind::Method),
    (Attr::OnExitActionUrl, Kind::Url),
    (Attr::OnExitActionMethod, Kind::Method),
    (
        Attr::StatusCallbackEvents,
        Kind::WordList(&[
            "mpc-state-changes",
            "participant-state-changes",
            "participant-speak-events",
            "participant-digit-input-events",
            "add-participant-api-events",
            "participant-audio-events",
        ]),
    ),
    (Attr::EnterSound, MPC_SOUND),
    (Attr::EnterSoundMethod, Kind::Method),
    (Attr::ExitSound, MPC_SOUND),
    (Attr::ExitSoundMethod, Kind::Method),
    (Attr::TranscriptionUrl, Kind::Url),
    (Attr::AiAgentStreamServiceUrl, Kind::WsUrl),
    (Attr::AiAgentStreamContentType, AUDIO_TYPE),
    (Attr::AiAgentStreamStatusCallbackUrl, Kind::Url),
    (Attr::AiAgentStreamStatusCallbackMethod, Kind::Method),
    (Attr::AiAgentStreamSamplingRate, Kind::Int(1, u32::MAX)),
    (Attr::AiAgentStreamExtraHeaders, Kind::Pairs(usize::MAX)),
];
const MPC_SOUND: Kind = Kind::UrlOr(&["none", "", "beep:1", "beep:2"]);

const STREAM: Table = &[
    (Attr::Bidirectional, Kind::Bool),
    (Attr::AudioTrack, Kind::one_of(&["inbound", "outbound", "both"])),
    (Attr::StreamTimeout, Kind::Int(1, 86_400)),
    (Attr::StatusCallbackUrl, Kind::Url),
    (Attr::StatusCallbackMethod, Kind::Method),
    (Attr::ContentType, AUDIO_TYPE),
    (Attr::ExtraHeaders, Kind::Pairs(512)),
    (Attr::KeepCallAlive, Kind::Bool),
    (Attr::NoiseCancellation, Kind::Bool),
    (Attr::NoiseCancellationLevel, Kind::Int(60, 100)),
];

pub(super) fn record(node: &Node<'_>, findings: &mut Findings) -> Record {
    let a = attributes::check(node, RECORD, &[], findings);
    let (record_session, start_on_dial_answer) =
        (a.flag(Attr::RecordSession, false), a.flag(Attr::StartOnDialAnswer, false));
    if record_session || start_on_dial_answer {
        for name in [Attr::Timeout, Attr::FinishOnKey, Attr::PlayBeep] {
            a.report_no_effect(name, "on a background recording", findings);
        }
    }
    report_text(node, findings);
    no_children(node, findings);
    Record {
        action: a.target(Attr::Action, Attr::Method),
        redirect: a.flag(Attr::Redirect, true),
        mp3: a.word(Attr::FileFormat) != Some("wav"),
        timeout: a.seconds(Attr::Timeout, 15),
        max_length: a.maybe_seconds(Attr::MaxLength),
        play_beep: a.flag(Attr::PlayBeep, true),
        finish_on_key: match a.keys(Attr::FinishOnKey) {
            Some(keys) => keys.collect(),
            None => Digit::try_from('#').into_iter().collect(),
        },
        record_session,
        start_on_dial_answer,
        stereo: a.word(Attr::RecordChannelType) != Some("mono"),
        transcription: transcription(&a),
        callback: a.target(Attr::CallbackUrl, Attr::CallbackMethod),
    }
}

fn transcription(a: &Attributes<'_>) -> Option<Transcription> {
    let target = a.target(Attr::TranscriptionUrl, Attr::TranscriptionMethod);
    let kind = a.word(Attr::TranscriptionType);
    (target.is_some() || kind.is_some()).then(|| Transcription {
        kind: kind.unwrap_or("auto").to_owned(),
        target,
        report_full: a.word(Attr::TranscriptionReportType) == Some("full"),
    })
}

fn member_sound(a: &Attributes<'_>, name: Attr) -> MemberSound {
    match a.word(name) {
        Some("beep:1") => MemberSound::Beep(1),
        Some("beep:2") => MemberSound::Beep(2),
        Some(_) => MemberSound::None,
        None => a.url(name).map_or(MemberSound::None, |url| {
            MemberSound::Document(Target { url, method: Method::Post })
        }),
    }
}

pub(super) fn conference(node: &Node<'_>, findings: &mut Findings) -> Conference {
    let a = attributes::check(node, CONFERENCE, &[], findings);
    let name = text_body(node, "the name of the conference", MAX_NAME, findings);
    no_children(node, findings);
    Conference {
        name,
        muted: a.flag(Attr::Muted, false),
        hangup_on_star: a.flag(Attr::HangupOnStar, false),
        end_on_exit: a.flag(Attr::EndConferenceOnExit, false),
        record: a.flag(Attr::Record, false),
        floor_event: a.flag(Attr::FloorEvent, false),
        start_on_enter: a.flag(Attr::StartConferenceOnEnter, true),
        stay_alone: a.flag(Attr::StayAlone, true),
        redirect: a.flag(Attr::Redirect, true),
        relay_dtmf: a.flag(Attr::RelayDtmf, true),
        enter_sound: member_sound(&a, Attr::EnterSound),
        exit_sound: member_sound(&a, Attr::ExitSound),
        wait_sound: a.url(Attr::WaitSound),
        max_members: a.small(Attr::MaxMembers, 20),
        time_limit: a.seconds(Attr::TimeLimit, 86_400),
        record_mp3: a.word(Attr::RecordFileFormat) != Some("wav"),
        record_when_alone: a.flag(Attr::RecordWhenAlone, true),
        action: a.target(Attr::Action, Attr::Method),
        callback: a.target(Attr::CallbackUrl, Attr::CallbackMethod),
        digits_match: a.list(Attr::DigitsMatch),
        send_digits: a.owned(Attr::SendDigits),
        transcription: transcription(&a),
    }
}

pub(super) fn multi_party_call(node: &Node<'_>, findings: &mut Findings) -> MultiPartyCall {
    let a = attributes::check(node, MULTI_PARTY_CALL, &[], findings);
    a.require(Attr::Role, findings);
    let name = text_body(node, "the name of the multi-party call", MAX_NAME, findings);
    no_children(node, findings);
    let attributes = a
        .texts()
        .filter(|(name, _)| *name != Attr::Role)
        .map(|(name, text)| (name.as_str().to_owned(), text.to_owned()))
        .collect();
    MultiPartyCall { name, role: a.word(Attr::Role).unwrap_or_default().to_owned(), attributes }
}

pub(super) fn stream(node: &Node<'_>, findings: &mut Findings) -> Option<Stream> {
    let a = attributes::check(node, STREAM, &[], findings);
    let bidirectional = a.flag(Attr::Bidirectional, false);
    let audio_track = a.word(Attr::AudioTrack).unwrap_or("inbound");
    if bidirectional && audio_track != "inbound" {
        let message = format!("audioTrack=\"{audio_track}\" with bidirectional=\"true\"");
        let hint = "write audioTrack=\"inbound\", or remove bidirectional";
        a.report_contradiction(Attr::AudioTrack, &message, hint, findings);
    }
    let noise_cancellation = a.flag(Attr::NoiseCancellation, false);
    if !noise_cancellation {
        a.report_no_effect(
            Attr::NoiseCancellationLevel,
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
        timeout: a.seconds(Attr::StreamTimeout, 86_400),
        status_callback: a.target(Attr::StatusCallbackUrl, Attr::StatusCallbackMethod),
        content_type: a.word(Attr::ContentType).unwrap_or("audio/x-l16;rate=8000").to_owned(),
        extra_headers: a.pairs(Attr::ExtraHeaders),
        keep_call_alive: a.flag(Attr::KeepCallAlive, false),
        noise_cancellation,
        noise_cancellation_level: a.small(Attr::NoiseCancellationLevel, 85),
    })
}
