//! The names of elements and attributes as numbers.
//!
//! The name of a tag or attribute is looked up once, when it is read. All rules then compare
//! numbers instead of strings.

/// The slot of a name in a table of names. The factors spread the names below almost evenly.
const fn hash(name: &[u8]) -> usize {
    match name {
        [first, .., last] => {
            let (middle, _) = name.split_at(name.len() / 2 + 1);
            let [.., middle] = middle else { return 0 };
            let bytes = widen(*first) * 35 + widen(*middle) * 51 + widen(*last) * 7;
            bytes.wrapping_add(name.len().wrapping_mul(14))
        }
        [only] => widen(*only),
        [] => 0,
    }
}

#[allow(clippy::as_conversions, reason = "From is not const")]
const fn widen(byte: u8) -> usize {
    byte as usize
}

macro_rules! names {
    ($(#[$doc:meta])* $Name:ident in $slots:literal slots: $($variant:ident $text:literal)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum $Name { $($variant),* }

        impl $Name {
            /// A hash table. A name is in the first free slot from its hash on.
            const TABLE: &[Option<(&str, Self)>; $slots] = &Self::table();

            #[allow(clippy::indexing_slicing, reason = "get_mut is not const; the index is reduced")]
            const fn table() -> [Option<(&'static str, Self)>; $slots] {
                let mut table = [None; $slots];
                let mut names: &[(&str, Self)] = &[$(($text, Self::$variant)),*];
                while let [name, rest @ ..] = names {
                    let mut slot = hash(name.0.as_bytes()) % $slots;
                    while table[slot].is_some() {
                        slot = (slot + 1) % $slots;
                    }
                    table[slot] = Some(*name);
                    names = rest;
                }
                table
            }

            /// Looks up a name, which is case-sensitive. `None` if it is unknown.
            pub(super) fn from_name(name: &str) -> Option<Self> {
                let mut slot = hash(name.as_bytes());
                loop {
                    match Self::TABLE.get(slot % $slots)? {
                        Some((known, found)) if *known == name => return Some(*found),
                        Some(_) => slot += 1,
                        None => return None,
                    }
                }
            }

            /// The name in a document.
            pub(super) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names! {
    /// An element.
    Tag in 64 slots:
    Speak "Speak"
    Play "Play"
    Wait "Wait"
    GetInput "GetInput"
    GetDigits "GetDigits"
    Record "Record"
    Dial "Dial"
    Conference "Conference"
    MultiPartyCall "MultiPartyCall"
    Stream "Stream"
    Dtmf "DTMF"
    Redirect "Redirect"
    Hangup "Hangup"
    PreAnswer "PreAnswer"
    Message "Message"
    Response "Response"
    Number "Number"
    User "User"
    Break "break"
    Emphasis "emphasis"
    Lang "lang"
    P "p"
    Phoneme "phoneme"
    Prosody "prosody"
    S "s"
    SayAs "say-as"
    Sub "sub"
    W "w"
}

names! {
    /// An attribute of any element. The tables in `lint` say which element has which.
    Attr in 512 slots:
    Action "action"
    AgentHoldMusicMethod "agentHoldMusicMethod"
    AgentHoldMusicUrl "agentHoldMusicUrl"
    AiAgentStreamContentType "aiAgentStreamContentType"
    AiAgentStreamExtraHeaders "aiAgentStreamExtraHeaders"
    AiAgentStreamSamplingRate "aiAgentStreamSamplingRate"
    AiAgentStreamServiceUrl "aiAgentStreamServiceUrl"
    AiAgentStreamStatusCallbackMethod "aiAgentStreamStatusCallbackMethod"
    AiAgentStreamStatusCallbackUrl "aiAgentStreamStatusCallbackUrl"
    Alias "alias"
    Alphabet "alphabet"
    Async "async"
    AudioTrack "audioTrack"
    Beep "beep"
    Bidirectional "bidirectional"
    CallbackMethod "callbackMethod"
    CallbackUrl "callbackUrl"
    CallerId "callerId"
    CallerName "callerName"
    CallType "callType"
    CoachMode "coachMode"
    ConfirmKey "confirmKey"
    ConfirmSound "confirmSound"
    ConfirmTimeout "confirmTimeout"
    ContentType "contentType"
    CustomerHoldMusicMethod "customerHoldMusicMethod"
    CustomerHoldMusicUrl "customerHoldMusicUrl"
    DialMusic "dialMusic"
    DigitEndTimeout "digitEndTimeout"
    DigitsMatch "digitsMatch"
    DigitsMatchBLeg "digitsMatchBLeg"
    DigitTimeout "digitTimeout"
    Dst "dst"
    EndConferenceOnExit "endConferenceOnExit"
    EndMpcOnExit "endMpcOnExit"
    EnterSound "enterSound"
    EnterSoundMethod "enterSoundMethod"
    ExecutionTimeout "executionTimeout"
    ExitSound "exitSound"
    ExitSoundMethod "exitSoundMethod"
    ExtraHeaders "extraHeaders"
    FileFormat "fileFormat"
    FinishOnKey "finishOnKey"
    FloorEvent "floorEvent"
    Format "format"
    HangupOnStar "hangupOnStar"
    Hints "hints"
    Hold "hold"
    InputType "inputType"
    InterimSpeechResultsCallback "interimSpeechResultsCallback"
    InterimSpeechResultsCallbackMethod "interimSpeechResultsCallbackMethod"
    InterpretAs "interpret-as"
    InvalidDigitsSound "invalidDigitsSound"
    KeepCallAlive "keepCallAlive"
    Language "language"
    Length "length"
    Level "level"
    Log "log"
    Loop "loop"
    MaxDuration "maxDuration"
    MaxLength "maxLength"
    MaxMembers "maxMembers"
    MaxParticipants "maxParticipants"
    Method "method"
    MinSilence "minSilence"
    Mute "mute"
    Muted "muted"
    NoiseCancellation "noiseCancellation"
    NoiseCancellationLevel "noiseCancellationLevel"
    NumDigits "numDigits"
    OnExitActionMethod "onExitActionMethod"
    OnExitActionUrl "onExitActionUrl"
    Ph "ph"
    Pitch "pitch"
    PlayBeep "playBeep"
    ProfanityFilter "profanityFilter"
    Rate "rate"
    Reason "reason"
    Record "record"
    RecordChannelType "recordChannelType"
    RecordCoachVoice "recordCoachVoice"
    RecordFileFormat "recordFileFormat"
    RecordingCallbackMethod "recordingCallbackMethod"
    RecordingCallbackUrl "recordingCallbackUrl"
    RecordMinMemberCount "recordMinMemberCount"
    RecordParticipantTrack "recordParticipantTrack"
    RecordSession "recordSession"
    RecordWhenAlone "recordWhenAlone"
    Redirect "redirect"
    RelayDtmf "relayDTMF"
    RelayDtmfInputs "relayDTMFInputs"
    Retries "retries"
    Role "role"
    Schedule "schedule"
    SendDigits "sendDigits"
    SendDigitsMode "sendDigitsMode"
    SendOnPreanswer "sendOnPreanswer"
    Silence "silence"
    SipAuthPassword "sipAuthPassword"
    SipAuthUsername "sipAuthUsername"
    SipHeaders "sipHeaders"
    SpeechEndTimeout "speechEndTimeout"
    SpeechModel "speechModel"
    Src "src"
    StartConferenceOnEnter "startConferenceOnEnter"
    StartInputTimeout "startInputTimeout"
    StartMpcOnEnter "startMpcOnEnter"
    StartOnDialAnswer "startOnDialAnswer"
    StartRecordingAudio "startRecordingAudio"
    StartRecordingAudioMethod "startRecordingAudioMethod"
    StatusCallbackEvents "statusCallbackEvents"
    StatusCallbackMethod "statusCallbackMethod"
    StatusCallbackUrl "statusCallbackUrl"
    StayAlone "stayAlone"
    StopRecordingAudio "stopRecordingAudio"
    StopRecordingAudioMethod "stopRecordingAudioMethod"
    StreamTimeout "streamTimeout"
    Strength "strength"
    Time "time"
    TimeLimit "timeLimit"
    Timeout "timeout"
    Transcript "transcript"
    TranscriptionMethod "transcriptionMethod"
    TranscriptionReportType "transcriptionReportType"
    TranscriptionType "transcriptionType"
    TranscriptionUrl "transcriptionUrl"
    Type "type"
    ValidDigits "validDigits"
    Voice "voice"
    Volume "volume"
    WaitForAgent "waitForAgent"
    WaitMusicMethod "waitMusicMethod"
    WaitMusicUrl "waitMusicUrl"
    WaitSound "waitSound"
    WaitTime "waitTime"
    XmlLang "xml:lang"
}

impl Tag {
    /// The elements that may be children of `Response`.
    pub(super) const RESPONSE: &[Self] = &[
        Self::Speak,
        Self::Play,
        Self::Wait,
        Self::GetInput,
        Self::GetDigits,
        Self::Record,
        Self::Dial,
        Self::Conference,
        Self::MultiPartyCall,
        Self::Stream,
        Self::Dtmf,
        Self::Redirect,
        Self::Hangup,
        Self::PreAnswer,
        Self::Message,
    ];

    /// Whether the element has child elements, but no text that matters.
    pub(super) fn is_container(self) -> bool {
        matches!(
            self,
            Self::Response | Self::GetInput | Self::GetDigits | Self::Dial | Self::PreAnswer
        )
    }
}

/// Maximum length of a misspelt name that is compared with the known ones.
const MISSPELT_MAX: usize = 32;

/// Returns the known name that differs least, if at most a letter in three is wrong, and not the
/// first one. Few names are compared, because each comparison allocates.
pub(crate) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    if name.len() > MISSPELT_MAX {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let begins_alike = |known: &&str| {
        known.len().abs_diff(name.len()) <= known.len() / 3
            && known.bytes().next().map(|b| b.to_ascii_lowercase()) == name.bytes().next()
    };
    let distance = |known: &str| strsim::osa_distance(&name, &known.to_ascii_lowercase());
    let near = known.filter(begins_alike).map(|known| (distance(known), known));
    near.filter(|(distance, known)| *distance <= known.len() / 3).min().map(|(_, known)| known)
}
