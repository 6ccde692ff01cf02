//! The typed document. Every value is checked and defaulted by the parser: whoever walks this tree
//! needs no second look at an attribute.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use model::{Digit, Method};

/// 1-based line and column; columns count Unicode scalar values (`plivo-xml.md` §2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = XmlPosition))]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// Whether a finding refuses the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", schema(as = XmlSeverity))]
pub enum Severity {
    Error,
    Warning,
}

/// One thing the validator has to say; the rules are `plivo-xml.md` §2.1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = XmlFinding))]
pub struct Finding {
    /// `E101` … `W405`.
    pub rule: String,
    pub severity: Severity,
    #[serde(flatten)]
    pub at: Position,
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// A valid document, ready to run. Serialises as its source text and is parsed again when read back, so
/// that an event log holds what the customer sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The decoded text.
    pub source: Arc<str>,
    /// Children of `Response`, in order.
    pub elements: Vec<Element>,
    /// Findings that do not refuse it.
    pub warnings: Vec<Finding>,
}

/// One element and where its `<` stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    pub at: Position,
    pub kind: ElementKind,
}

/// The elements of `plivo-xml.md` §5.
#[derive(Clone, Debug, PartialEq)]
pub enum ElementKind {
    Speak(Speak),
    Play(Play),
    Wait(Wait),
    GetInput(GetInput),
    GetDigits(GetDigits),
    Record(Record),
    Dial(Dial),
    Conference(Conference),
    MultiPartyCall(MultiPartyCall),
    Stream(Stream),
    Dtmf(Dtmf),
    Redirect(Redirect),
    Hangup(Hangup),
    PreAnswer(PreAnswer),
    Message(Message),
}

impl ElementKind {
    /// Every name that [`ElementKind::name`] gives: what may stand in a document (`plivo-xml.md` §5).
    pub const NAMES: &[&str] = &[
        "Speak",
        "Play",
        "Wait",
        "GetInput",
        "GetDigits",
        "Record",
        "Dial",
        "Conference",
        "MultiPartyCall",
        "Stream",
        "DTMF",
        "Redirect",
        "Hangup",
        "PreAnswer",
        "Message",
    ];

    /// The element's name, also its metric label.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Speak(_) => "Speak",
            Self::Play(_) => "Play",
            Self::Wait(_) => "Wait",
            Self::GetInput(_) => "GetInput",
            Self::GetDigits(_) => "GetDigits",
            Self::Record(_) => "Record",
            Self::Dial(_) => "Dial",
            Self::Conference(_) => "Conference",
            Self::MultiPartyCall(_) => "MultiPartyCall",
            Self::Stream(_) => "Stream",
            Self::Dtmf(_) => "DTMF",
            Self::Redirect(_) => "Redirect",
            Self::Hangup(_) => "Hangup",
            Self::PreAnswer(_) => "PreAnswer",
            Self::Message(_) => "Message",
        }
    }
}

/// A URL that passed the document's rules (absolute, http or https, a host, ≤ 2,048 characters), as written:
/// signatures cover the text, so it is not normalised. The fragment (`plivo-callbacks.md` §4.2) is still on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DocUrl(pub Arc<str>);

/// How often something is repeated: `0` in the document means until the call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeat {
    Times(u16),
    Endless,
}

/// `WOMAN`, `MAN` or a Polly name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Voice {
    Woman,
    Man,
    /// Without the `Polly.` prefix, e.g. `Joanna-Neural`.
    Polly(String),
}

/// What is to be said: text and SSML, whitespace collapsed and trimmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Speech(pub Vec<SpeechNode>);

/// A piece of [`Speech`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeechNode {
    Text(String),
    /// A pause.
    Break {
        millis: u32,
    },
    /// An SSML element with its attributes as written (checked), in document order, and its content.
    Tag {
        name: SsmlTag,
        attributes: Vec<(String, String)>,
        content: Speech,
    },
}

impl Speech {
    /// Characters of text; markup does not count.
    pub fn characters(&self) -> usize {
        self.sum(|text| text.chars().count())
    }

    /// Bytes of text: at least as many.
    pub(super) fn bytes(&self) -> usize {
        self.sum(str::len)
    }

    fn sum(&self, of: fn(&str) -> usize) -> usize {
        let size = |node: &SpeechNode| match node {
            SpeechNode::Text(text) => of(text),
            SpeechNode::Break { .. } => 0,
            SpeechNode::Tag { content, .. } => content.sum(of),
        };
        self.0.iter().map(size).sum()
    }
}

impl Speech {
    /// The text alone, a pause as ` … `.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.text_into(&mut text);
        text.trim().to_owned()
    }

    fn text_into(&self, into: &mut String) {
        for node in &self.0 {
            match node {
                SpeechNode::Text(text) => into.push_str(text),
                SpeechNode::Break { .. } => into.push_str(" … "),
                SpeechNode::Tag { content, .. } => content.text_into(into),
            }
        }
    }
}

/// SSML elements with content (`break` is [`SpeechNode::Break`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SsmlTag {
    Emphasis,
    Lang,
    P,
    Phoneme,
    Prosody,
    S,
    SayAs,
    Sub,
    W,
}

impl SsmlTag {
    const ALL: [Self; 9] = [
        Self::Emphasis,
        Self::Lang,
        Self::P,
        Self::Phoneme,
        Self::Prosody,
        Self::S,
        Self::SayAs,
        Self::Sub,
        Self::W,
    ];

    /// As written in a document.
    pub fn name(self) -> &'static str {
        match self {
            Self::Emphasis => "emphasis",
            Self::Lang => "lang",
            Self::P => "p",
            Self::Phoneme => "phoneme",
            Self::Prosody => "prosody",
            Self::S => "s",
            Self::SayAs => "say-as",
            Self::Sub => "sub",
            Self::W => "w",
        }
    }

    /// The tag of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tag| tag.name() == name)
    }
}

/// `plivo-xml.md` §5.2.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Speak {
    pub speech: Speech,
    pub voice: Voice,
    /// BCP 47 as written; `None`: the voice's own, `en-US` for `WOMAN` and `MAN`.
    pub language: Option<String>,
    #[serde(rename = "loop")]
    pub repeat: Repeat,
}

/// `plivo-xml.md` §5.3.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Play {
    pub url: DocUrl,
    #[serde(rename = "loop")]
    pub repeat: Repeat,
}

/// `plivo-xml.md` §5.4.
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    pub length: Duration,
    /// End early after this much silence of the caller (`silence="true"`).
    pub min_silence: Option<Duration>,
    /// `beep`: end at a voicemail beep.
    pub beep: Option<Beep>,
}

/// What is taken for a voicemail's beep: one steady tone, or a few of them, and then silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Beep {
    /// Tone there must be, in milliseconds, all its pieces together.
    pub duration_ms: u32,
    /// Silence after which it is over.
    pub inter_silence_ms: u32,
    /// Silence between two pieces of one beep, at most.
    pub intra_silence_ms: u32,
    /// What is silence: a mean of the samples below this, of 32,768.
    pub threshold: u32,
}

impl Default for Beep {
    fn default() -> Self {
        Self { duration_ms: 300, inter_silence_ms: 50, intra_silence_ms: 500, threshold: 256 }
    }
}

/// A URL with the method to ask it by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    pub url: DocUrl,
    pub method: Method,
}

/// What `GetInput` listens for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputType {
    Dtmf,
    Speech,
    DtmfSpeech,
}

/// Prompts inside `GetInput`, `GetDigits` (and `PreAnswer`, which takes more).
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    Speak(Speak),
    Play(Play),
    Wait(Wait),
}

/// `plivo-xml.md` §5.5.
#[derive(Clone, Debug, PartialEq)]
pub struct GetInput {
    pub action: Target,
    pub redirect: bool,
    pub input_type: InputType,
    pub execution_timeout: Duration,
    /// `auto` is 3 s.
    pub digit_end_timeout: Duration,
    /// `auto` is 1 s.
    pub speech_end_timeout: Duration,
    pub start_input_timeout: Option<Duration>,
    pub finish_on_key: Option<Digit>,
    pub num_digits: u8,
    pub retries: u8,
    pub speech_model: String,
    pub hints: Vec<String>,
    pub language: String,
    pub interim: Option<Target>,
    pub profanity_filter: bool,
    /// `false`: digits and speech never in logs, event log, traces, console.
    pub log: bool,
    pub prompts: Vec<Prompt>,
}

/// `plivo-xml.md` §5.6.
#[derive(Clone, Debug, PartialEq)]
pub struct GetDigits {
    /// `None`: digits are dropped and the next element runs.
    pub action: Option<Target>,
    pub redirect: bool,
    /// To the first digit.
    pub timeout: Duration,
    /// Between digits.
    pub digit_timeout: Duration,
    pub finish_on_key: Option<Digit>,
    pub num_digits: u8,
    pub retries: u8,
    pub play_beep: bool,
    pub valid_digits: Vec<Digit>,
    pub invalid_digits_sound: Option<DocUrl>,
    pub log: bool,
    pub prompts: Vec<Prompt>,
}

/// `plivo-xml.md` §5.12.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub target: Target,
}

/// `Hangup reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangupReason {
    Rejected,
    Busy,
}

/// `plivo-xml.md` §5.12.
#[derive(Clone, Debug, PartialEq)]
pub struct Hangup {
    pub reason: Option<HangupReason>,
    pub schedule: Option<Duration>,
}

/// `plivo-xml.md` §5.12, §6: children run or are skipped before the answer.
#[derive(Clone, Debug, PartialEq)]
pub struct PreAnswer {
    pub children: Vec<Element>,
}

/// `plivo-xml.md` §5.12.
#[derive(Clone, Debug, PartialEq)]
pub struct Dtmf {
    /// `0-9 * #`, `w` half a second, `W` a second.
    pub digits: String,
    pub asynchronous: bool,
}

/// `plivo-xml.md` §5.12: skipped with a log line, there is no SMS here.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub text: String,
    pub src: String,
    pub dst: Vec<String>,
    pub kind: String,
    pub callback: Option<Target>,
}

/// `plivo-xml.md` §5.8.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub action: Option<Target>,
    pub redirect: bool,
    pub mp3: bool,
    pub timeout: Duration,
    /// `None`: the element's default (60 s; 14,400 s with `recordSession`).
    pub max_length: Option<Duration>,
    pub play_beep: bool,
    pub finish_on_key: Vec<Digit>,
    pub record_session: bool,
    pub start_on_dial_answer: bool,
    pub stereo: bool,
    pub transcription: Option<Transcription>,
    pub callback: Option<Target>,
}

/// `transcription*` attributes of `Record` and `Conference`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcription {
    pub kind: String,
    pub target: Option<Target>,
    pub report_full: bool,
}

/// `plivo-xml.md` §5.7.
#[derive(Clone, Debug, PartialEq)]
pub struct Dial {
    pub whatsapp: bool,
    pub caller_id: Option<String>,
    pub caller_name: Option<String>,
    pub action: Option<Target>,
    pub redirect: bool,
    pub timeout: Duration,
    pub time_limit: Duration,
    pub hangup_on_star: bool,
    pub confirm_sound: Option<DocUrl>,
    pub confirm_key: Option<Digit>,
    pub confirm_timeout: Duration,
    pub dial_music: DialMusic,
    pub callback: Option<Target>,
    pub digits_match: Vec<String>,
    pub digits_match_b_leg: Vec<String>,
    pub sip_headers: Vec<(String, String)>,
    pub targets: Vec<DialTarget>,
}

/// What the A-leg hears while B rings.
#[derive(Clone, Debug, PartialEq)]
pub enum DialMusic {
    /// Ring-back tone: the default, and `real`.
    RingBack,
    None,
    Document(DocUrl),
}

/// `Number` or `User` inside `Dial`.
#[derive(Clone, Debug, PartialEq)]
pub struct DialTarget {
    pub at: Position,
    pub address: DialAddress,
    pub send_digits: Option<String>,
    pub send_on_preanswer: bool,
    pub sip_headers: Vec<(String, String)>,
    pub caller_id: Option<String>,
    pub caller_name: Option<String>,
}

/// Whom a [`DialTarget`] names.
#[derive(Clone, Debug, PartialEq)]
pub enum DialAddress {
    /// `<Number>`: the phone network.
    Pstn(String),
    /// `<User>` with `callType="whatsapp"`: E.164 digits.
    WhatsappUser(String),
    /// `<User>sip:…`.
    Sip(String),
}

/// `plivo-xml.md` §5.9.
#[derive(Clone, Debug, PartialEq)]
pub struct Conference {
    pub name: String,
    pub muted: bool,
    pub hangup_on_star: bool,
    pub end_on_exit: bool,
    pub record: bool,
    pub floor_event: bool,
    pub start_on_enter: bool,
    pub stay_alone: bool,
    pub redirect: bool,
    pub relay_dtmf: bool,
    pub enter_sound: MemberSound,
    pub exit_sound: MemberSound,
    pub wait_sound: Option<DocUrl>,
    pub max_members: u8,
    pub time_limit: Duration,
    pub record_mp3: bool,
    pub record_when_alone: bool,
    pub action: Option<Target>,
    pub callback: Option<Target>,
    pub digits_match: Vec<String>,
    pub send_digits: Option<String>,
    pub transcription: Option<Transcription>,
}

/// `enterSound`, `exitSound`.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberSound {
    None,
    Beep(u8),
    Document(Target),
}

/// `plivo-xml.md` §5.10; attributes as checked text, by name, until the engine runs it.
#[derive(Clone, Debug, PartialEq)]
pub struct MultiPartyCall {
    pub name: String,
    pub role: String,
    pub attributes: Vec<(String, String)>,
}

/// `plivo-xml.md` §5.11.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    pub url: DocUrl,
    pub bidirectional: bool,
    pub audio_track: String,
    pub timeout: Duration,
    pub status_callback: Option<Target>,
    pub content_type: String,
    pub extra_headers: Vec<(String, String)>,
    pub keep_call_alive: bool,
    pub noise_cancellation: bool,
    pub noise_cancellation_level: u8,
}
