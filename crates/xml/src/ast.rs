//! The typed document. The parser has validated every value and filled in every default, so code
//! that walks this tree does not have to check attributes again.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use model::{Digit, Method};

use super::names::Tag;
use super::{rules, sip};

/// A position in the document's text. Lines and columns start at 1, and columns count Unicode
/// scalar values.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = XmlPosition))]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// The severity of a finding. An error refuses the whole document; a warning does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", schema(as = XmlSeverity))]
pub enum Severity {
    Error,
    Warning,
}

/// A violation of a rule, found by the validator. The rules are listed in
/// docs/reference/xml.md#rule-codes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(as = XmlFinding))]
pub struct Finding {
    /// The rule's code, such as `E101`.
    pub rule: String,
    pub severity: Severity,
    #[serde(flatten)]
    pub at: Position,
    pub message: String,
    /// A hint on how to correct the document.
    pub hint: String,
}

impl Finding {
    /// Whether this is W311, a URL without encryption. It is not reported where the node requests
    /// such URLs (`answer.allow_insecure`).
    pub fn is_plain_url(&self) -> bool {
        self.rule == rules::W311.id
    }
}

/// A valid document.
///
/// Serializes as its source text and is parsed again when deserialized, so that an event log holds
/// the text the customer sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The text, decoded to UTF-8.
    pub source: Arc<str>,
    /// The children of `Response`, in document order.
    pub elements: Vec<Element>,
    /// The first warnings of the validator, at most [`Document::MAX_WARNINGS`].
    pub warnings: Vec<Finding>,
}

impl Document {
    /// Number of findings that a call reports and logs.
    pub const MAX_WARNINGS: usize = 100;

    /// Removes W403 for addresses at a host of the node, which is that of `public.base_url`, from
    /// findings about this document.
    pub fn allow_sip_host(&self, findings: &mut Vec<Finding>, own: &str) {
        let is_own = |address: &DialAddress| match address {
            DialAddress::Sip(address) => {
                sip::name_and_host(address).is_some_and(|(_, host)| host.eq_ignore_ascii_case(own))
            }
            DialAddress::Pstn(_) | DialAddress::WhatsappUser(_) => false,
        };
        let dials = self.elements.iter().filter_map(|element| match &element.kind {
            ElementKind::Dial(dial) => Some(&**dial),
            _ => None,
        });
        let own_targets: Vec<Position> = dials
            .flat_map(|dial| &dial.targets)
            .filter(|target| is_own(&target.address))
            .map(|target| target.at)
            .collect();
        findings.retain(|f| f.rule != rules::W403.id || !own_targets.contains(&f.at));
    }
}

/// An element of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// The position of the `<` of its start tag.
    pub at: Position,
    pub kind: ElementKind,
}

/// The kinds of elements, with their attributes and content (docs/reference/xml.md#elements). The
/// large ones are in boxes, because a document may have 2,000 small ones.
#[derive(Clone, Debug, PartialEq)]
pub enum ElementKind {
    Speak(Speak),
    Play(Play),
    Wait(Wait),
    GetInput(Box<GetInput>),
    GetDigits(Box<GetDigits>),
    Record(Box<Record>),
    Dial(Box<Dial>),
    Conference(Box<Conference>),
    MultiPartyCall(MultiPartyCall),
    Stream(Box<Stream>),
    Dtmf(Dtmf),
    Redirect(Redirect),
    Hangup(Hangup),
    PreAnswer(PreAnswer),
    Message(Box<Message>),
}

impl ElementKind {
    /// The names of all elements that may be children of `Response`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Tag::RESPONSE.iter().map(|tag| tag.as_str())
    }

    /// The element's name, which is also its metric label.
    pub fn name(&self) -> &'static str {
        let tag = match self {
            Self::Speak(_) => Tag::Speak,
            Self::Play(_) => Tag::Play,
            Self::Wait(_) => Tag::Wait,
            Self::GetInput(_) => Tag::GetInput,
            Self::GetDigits(_) => Tag::GetDigits,
            Self::Record(_) => Tag::Record,
            Self::Dial(_) => Tag::Dial,
            Self::Conference(_) => Tag::Conference,
            Self::MultiPartyCall(_) => Tag::MultiPartyCall,
            Self::Stream(_) => Tag::Stream,
            Self::Dtmf(_) => Tag::Dtmf,
            Self::Redirect(_) => Tag::Redirect,
            Self::Hangup(_) => Tag::Hangup,
            Self::PreAnswer(_) => Tag::PreAnswer,
            Self::Message(_) => Tag::Message,
        };
        tag.as_str()
    }
}

/// A validated URL: absolute, `http` or `https` (`ws` or `wss` in `Stream`), with a host, at most
/// 2,048 characters.
///
/// The text is kept as written, because signatures cover it. It includes the fragment, which may
/// contain settings (docs/reference/callbacks.md#url-settings).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DocUrl(pub Arc<str>);

/// The number of times that an element is repeated: the value of its `loop` attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Repeat {
    Times(u16),
    /// The element is repeated until the call ends. Written as `0`.
    Endless,
}

/// A voice of `Speak`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Voice {
    Woman,
    Man,
    /// The name of an Amazon Polly voice without the `Polly.` prefix, such as `Joanna-Neural`.
    Polly(String),
}

/// The content of `Speak`: text and SSML, with white space collapsed and trimmed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Speech(pub Vec<SpeechNode>);

/// A text, pause or SSML element in [`Speech`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpeechNode {
    Text(String),
    /// The SSML element `break`.
    Break {
        millis: u32,
    },
    /// An SSML element other than `break`.
    Tag {
        name: SsmlTag,
        /// Names and validated values, as written and in document order.
        attributes: Vec<(String, String)>,
        content: Speech,
    },
}

impl Speech {
    /// The number of characters of text, without markup.
    pub fn characters(&self) -> usize {
        self.sum(|text| text.chars().count())
    }

    /// The number of bytes of text, without markup. An upper bound of [`Speech::characters`].
    pub(super) fn bytes(&self) -> usize {
        self.sum(str::len)
    }

    fn sum(&self, length: fn(&str) -> usize) -> usize {
        let size = |node: &SpeechNode| match node {
            SpeechNode::Text(text) => length(text),
            SpeechNode::Break { .. } => 0,
            SpeechNode::Tag { content, .. } => content.sum(length),
        };
        self.0.iter().map(size).sum()
    }
}

impl Speech {
    /// The text without markup. A pause becomes ` … `.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.append_text(&mut text);
        text.trim().to_owned()
    }

    fn append_text(&self, out: &mut String) {
        for node in &self.0 {
            match node {
                SpeechNode::Text(text) => out.push_str(text),
                SpeechNode::Break { .. } => out.push_str(" … "),
                SpeechNode::Tag { content, .. } => content.append_text(out),
            }
        }
    }
}

/// The SSML elements that can have content. `break` is [`SpeechNode::Break`] instead.
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
    /// The element's name in a document.
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
}

/// Speaks a text (docs/reference/xml.md#speak).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Speak {
    pub speech: Speech,
    pub voice: Voice,
    /// BCP 47 tag as written. `None` means the voice's own language, which is `en-US` for `WOMAN`
    /// and `MAN`.
    pub language: Option<String>,
    #[serde(rename = "loop")]
    pub repeat: Repeat,
}

/// Plays an audio file (docs/reference/xml.md#play).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Play {
    pub url: DocUrl,
    #[serde(rename = "loop")]
    pub repeat: Repeat,
}

/// Waits in silence (docs/reference/xml.md#wait).
#[derive(Clone, Debug, PartialEq)]
pub struct Wait {
    pub length: Duration,
    /// The wait ends early after the caller has been silent for this long (`silence="true"`).
    /// `None` if silence does not end it.
    pub min_silence: Option<Duration>,
    /// The wait ends early after the beep of a voicemail. `None` if a beep does not end it.
    pub beep: Option<Beep>,
}

/// Settings of the detector of voicemail beeps. A beep is one steady tone, or several with short
/// gaps, followed by silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Beep {
    /// Minimum length of the tone, without gaps, in milliseconds.
    pub duration_ms: u32,
    /// Silence after which the beep has ended, in milliseconds.
    pub inter_silence_ms: u32,
    /// Maximum gap within a beep, in milliseconds.
    pub intra_silence_ms: u32,
    /// Audio counts as silence if its mean amplitude is below this value. Full scale is 32,768.
    pub threshold: u32,
}

impl Default for Beep {
    fn default() -> Self {
        Self { duration_ms: 300, inter_silence_ms: 50, intra_silence_ms: 500, threshold: 256 }
    }
}

/// A URL with the method of its request.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    pub url: DocUrl,
    pub method: Method,
}

/// The input that `GetInput` collects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputType {
    Dtmf,
    Speech,
    DtmfSpeech,
}

/// A child of `GetInput` or `GetDigits`, played while input is awaited.
#[derive(Clone, Debug, PartialEq)]
pub enum Prompt {
    Speak(Speak),
    Play(Play),
    Wait(Wait),
}

/// Collects digits or speech (docs/reference/xml.md#getinput).
#[derive(Clone, Debug, PartialEq)]
pub struct GetInput {
    pub action: Target,
    pub redirect: bool,
    pub input_type: InputType,
    pub execution_timeout: Duration,
    /// Time without a further digit after which the input ends. `auto` is 3 s.
    pub digit_end_timeout: Duration,
    /// Duration of silence that ends speech. `None` is `auto`: 1 s, or as long as a turn model
    /// estimates (docs/speech.md#turn-taking).
    pub speech_end_timeout: Option<Duration>,
    pub start_input_timeout: Option<Duration>,
    pub finish_on_key: Option<Digit>,
    pub num_digits: u8,
    pub retries: u8,
    pub speech_model: String,
    pub hints: Vec<String>,
    pub language: String,
    pub interim: Option<Target>,
    pub profanity_filter: bool,
    /// Whether digits and speech may appear in logs, event log, traces and console.
    pub log: bool,
    pub prompts: Vec<Prompt>,
}

/// Collects digits (docs/reference/xml.md#getdigits).
#[derive(Clone, Debug, PartialEq)]
pub struct GetDigits {
    /// The URL that receives the digits. If `None`, they are dropped and the next element runs.
    pub action: Option<Target>,
    pub redirect: bool,
    /// Time limit from the end of the prompt to the first digit.
    pub timeout: Duration,
    /// Time limit between two digits.
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

/// Transfers the call to another document (docs/reference/xml.md#redirect).
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    pub target: Target,
}

/// The `reason` attribute of `Hangup`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HangupReason {
    Rejected,
    Busy,
}

/// Hangs up or rejects the call (docs/reference/xml.md#hangup).
#[derive(Clone, Debug, PartialEq)]
pub struct Hangup {
    pub reason: Option<HangupReason>,
    pub schedule: Option<Duration>,
}

/// Runs its children before the call is answered (docs/reference/xml.md#preanswer).
#[derive(Clone, Debug, PartialEq)]
pub struct PreAnswer {
    pub children: Vec<Element>,
}

/// Sends digits (docs/reference/xml.md#dtmf).
#[derive(Clone, Debug, PartialEq)]
pub struct Dtmf {
    /// Keys `0-9 * #`; `w` pauses for half a second, `W` for one second.
    pub digits: String,
    pub asynchronous: bool,
}

/// Accepted for compatibility and skipped, since Offhook sends no SMS
/// (docs/reference/xml.md#message).
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub text: String,
    pub src: String,
    pub dst: Vec<String>,
    pub kind: String,
    pub callback: Option<Target>,
}

/// Records the caller or the call (docs/reference/xml.md#record).
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub action: Option<Target>,
    pub redirect: bool,
    pub mp3: bool,
    pub timeout: Duration,
    /// Maximum duration. `None` means the default: 60 s, or 14,400 s with `recordSession`.
    pub max_length: Option<Duration>,
    pub play_beep: bool,
    pub finish_on_key: Vec<Digit>,
    pub record_session: bool,
    pub start_on_dial_answer: bool,
    pub stereo: bool,
    pub transcription: Option<Transcription>,
    pub callback: Option<Target>,
}

/// The `transcription*` attributes of `Record` and `Conference`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transcription {
    pub kind: String,
    pub target: Option<Target>,
    pub report_full: bool,
}

/// Calls other parties and connects the first that answers (docs/reference/xml.md#dial).
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

/// The audio for the A-leg while the targets ring.
#[derive(Clone, Debug, PartialEq)]
pub enum DialMusic {
    /// A ring-back tone, which is the default and is also written as `real`.
    RingBack,
    None,
    /// The sounds of the document at this URL, repeated.
    Document(DocUrl),
}

/// A `Number` or `User` element in `Dial`.
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

/// The address of a [`DialTarget`].
#[derive(Clone, Debug, PartialEq)]
pub enum DialAddress {
    /// A phone number from `Number`. The phone network is not reachable.
    Pstn(String),
    /// E.164 digits from `User`, with `callType="whatsapp"`.
    WhatsappUser(String),
    /// A SIP address from `User`.
    Sip(String),
}

/// Joins a conference (docs/reference/xml.md#conference).
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

/// The `enterSound` or `exitSound` of a conference.
#[derive(Clone, Debug, PartialEq)]
pub enum MemberSound {
    None,
    /// `beep:1` or `beep:2`.
    Beep(u8),
    /// The sounds of the document at this URL.
    Document(Target),
}

/// Joins a multi-party call (docs/reference/xml.md#multipartycall).
#[derive(Clone, Debug, PartialEq)]
pub struct MultiPartyCall {
    pub name: String,
    pub role: String,
    /// Names and validated values of all other attributes, in document order.
    pub attributes: Vec<(String, String)>,
}

/// Streams the call's audio to a WebSocket (docs/reference/xml.md#stream).
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
