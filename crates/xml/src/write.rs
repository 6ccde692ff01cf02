//! Writes typed elements as XML. Parsing the result with [`super::parse`] gives equal elements,
//! except for their positions.
//!
//! Attributes with their default value are left out. Values are not checked: a value that the
//! parser would refuse, such as a URL without a scheme, is written unchanged.

use std::fmt::Write as _;
use std::time::Duration;

use model::{Digit, Method};

use super::ast::{
    Beep, Conference, Dial, DialAddress, DialMusic, DialTarget, DocUrl, Element, ElementKind,
    GetDigits, GetInput, HangupReason, InputType, MemberSound, Message, Prompt, Record, Repeat,
    Speak, Speech, SpeechNode, Stream, Target, Transcription, Voice, Wait,
};

/// Writes a document with these elements as children of `Response`.
pub fn document(elements: &[Element]) -> String {
    let mut out = Writer { text: "<Response>".to_owned() };
    for element in elements {
        out.element(&element.kind);
    }
    out.text.push_str("</Response>");
    out.text
}

struct Writer {
    text: String,
}

impl Writer {
    fn element(&mut self, kind: &ElementKind) {
        match kind {
            ElementKind::Speak(speak) => self.speak(speak),
            ElementKind::Play(play) => self.play(&play.url, play.repeat),
            ElementKind::Wait(wait) => self.wait(wait),
            ElementKind::GetInput(get) => self.get_input(get),
            ElementKind::GetDigits(get) => self.get_digits(get),
            ElementKind::Record(record) => self.record(record),
            ElementKind::Dial(dial) => self.dial(dial),
            ElementKind::Conference(conference) => self.conference(conference),
            ElementKind::MultiPartyCall(call) => {
                self.open("MultiPartyCall").attribute("role", &call.role);
                for (name, value) in &call.attributes {
                    self.attribute(name, value);
                }
                self.body("MultiPartyCall", &call.name);
            }
            ElementKind::Stream(stream) => self.stream(stream),
            ElementKind::Dtmf(dtmf) => {
                self.open("DTMF").flag("async", dtmf.asynchronous, true).body("DTMF", &dtmf.digits);
            }
            ElementKind::Redirect(redirect) => {
                let Target { url, method } = &redirect.target;
                self.open("Redirect").method("method", *method).body("Redirect", &url.0);
            }
            ElementKind::Hangup(hangup) => {
                let reason = hangup.reason.map(|reason| match reason {
                    HangupReason::Rejected => "rejected",
                    HangupReason::Busy => "busy",
                });
                self.open("Hangup")
                    .optional("reason", reason)
                    .optional_seconds("schedule", hangup.schedule)
                    .end_empty_tag();
            }
            ElementKind::PreAnswer(pre_answer) => {
                self.open("PreAnswer").end_start_tag();
                for child in &pre_answer.children {
                    self.element(&child.kind);
                }
                self.close("PreAnswer");
            }
            ElementKind::Message(message) => self.message(message),
        }
    }

    fn speak(&mut self, speak: &Speak) {
        self.open("Speak");
        match &speak.voice {
            Voice::Woman => {}
            Voice::Man => {
                self.attribute("voice", "MAN");
            }
            Voice::Polly(name) => {
                self.attribute("voice", &format!("Polly.{name}"));
            }
        }
        self.optional("language", speak.language.as_deref()).repeat(speak.repeat).end_start_tag();
        self.speech(&speak.speech);
        self.close("Speak");
    }

    fn speech(&mut self, speech: &Speech) {
        for node in &speech.0 {
            match node {
                SpeechNode::Text(text) => self.escape(text),
                SpeechNode::Break { millis } => {
                    self.open("break").attribute("time", &format!("{millis}ms")).end_empty_tag()
                }
                SpeechNode::Tag { name, attributes, content } => {
                    self.open(name.name());
                    for (attribute, value) in attributes {
                        self.attribute(attribute, value);
                    }
                    self.end_start_tag();
                    self.speech(content);
                    self.close(name.name());
                }
            }
        }
    }

    fn play(&mut self, url: &DocUrl, repeat: Repeat) {
        self.open("Play").repeat(repeat).body("Play", &url.0);
    }

    fn wait(&mut self, wait: &Wait) {
        self.open("Wait").seconds("length", wait.length, 1);
        if let Some(silence) = wait.min_silence {
            self.attribute("silence", "true")
                .attribute("minSilence", &silence.as_millis().to_string());
        }
        match wait.beep {
            None => {}
            Some(beep) if beep == Beep::default() => {
                self.attribute("beep", "true");
            }
            Some(Beep { duration_ms, inter_silence_ms, intra_silence_ms, threshold }) => {
                let numbers = format!(
                    "duration={duration_ms},inter_silence={inter_silence_ms},intra_silence={intra_silence_ms},\
                     threshold={threshold}"
                );
                self.attribute("beep", &numbers);
            }
        }
        self.end_empty_tag();
    }

    fn prompts(&mut self, prompts: &[Prompt]) {
        for prompt in prompts {
            match prompt {
                Prompt::Speak(speak) => self.speak(speak),
                Prompt::Play(play) => self.play(&play.url, play.repeat),
                Prompt::Wait(wait) => self.wait(wait),
            }
        }
    }

    fn get_input(&mut self, get: &GetInput) {
        let input_type = match get.input_type {
            InputType::Dtmf => None,
            InputType::Speech => Some("speech"),
            InputType::DtmfSpeech => Some("dtmf speech"),
        };
        self.open("GetInput")
            .target("action", "method", Some(&get.action))
            .flag("redirect", get.redirect, true)
            .optional("inputType", input_type)
            .seconds("executionTimeout", get.execution_timeout, 15)
            .seconds("digitEndTimeout", get.digit_end_timeout, 3)
            .optional_seconds("speechEndTimeout", get.speech_end_timeout)
            .optional_seconds("startInputTimeout", get.start_input_timeout)
            .finish_key(get.finish_on_key)
            .number("numDigits", get.num_digits, 32)
            .number("retries", get.retries, 1)
            .with_default("speechModel", &get.speech_model, "default")
            .with_default("hints", &get.hints.join(","), "")
            .with_default("language", &get.language, "en-US")
            .target(
                "interimSpeechResultsCallback",
                "interimSpeechResultsCallbackMethod",
                get.interim.as_ref(),
            )
            .flag("profanityFilter", get.profanity_filter, false)
            .flag("log", get.log, true)
            .end_start_tag();
        self.prompts(&get.prompts);
        self.close("GetInput");
    }

    fn get_digits(&mut self, get: &GetDigits) {
        self.open("GetDigits")
            .target("action", "method", get.action.as_ref())
            .flag("redirect", get.redirect, true)
            .seconds("timeout", get.timeout, 5)
            .seconds("digitTimeout", get.digit_timeout, 2)
            .finish_key(get.finish_on_key)
            .number("numDigits", get.num_digits, 99)
            .number("retries", get.retries, 1)
            .flag("playBeep", get.play_beep, false)
            .with_default("validDigits", &keys(&get.valid_digits), "1234567890*#")
            .url("invalidDigitsSound", get.invalid_digits_sound.as_ref())
            .flag("log", get.log, true)
            .end_start_tag();
        self.prompts(&get.prompts);
        self.close("GetDigits");
    }

    fn record(&mut self, record: &Record) {
        let finish = if record.finish_on_key.is_empty() {
            "none".to_owned()
        } else {
            keys(&record.finish_on_key)
        };
        self.open("Record")
            .target("action", "method", record.action.as_ref())
            .flag("redirect", record.redirect, true)
            .with_default("fileFormat", if record.mp3 { "mp3" } else { "wav" }, "mp3")
            .seconds("timeout", record.timeout, 15)
            .optional_seconds("maxLength", record.max_length)
            .flag("playBeep", record.play_beep, true)
            .with_default("finishOnKey", &finish, "#")
            .flag("recordSession", record.record_session, false)
            .flag("startOnDialAnswer", record.start_on_dial_answer, false)
            .with_default(
                "recordChannelType",
                if record.stereo { "stereo" } else { "mono" },
                "stereo",
            )
            .transcription(record.transcription.as_ref())
            .target("callbackUrl", "callbackMethod", record.callback.as_ref())
            .end_empty_tag();
    }

    fn dial(&mut self, dial: &Dial) {
        self.open("Dial")
            .optional("callType", dial.whatsapp.then_some("whatsapp"))
            .optional("callerId", dial.caller_id.as_deref())
            .optional("callerName", dial.caller_name.as_deref())
            .target("action", "method", dial.action.as_ref())
            .flag("redirect", dial.redirect, true)
            .seconds("timeout", dial.timeout, 120)
            .seconds("timeLimit", dial.time_limit, 14_400)
            .flag("hangupOnStar", dial.hangup_on_star, false)
            .url("confirmSound", dial.confirm_sound.as_ref())
            .optional(
                "confirmKey",
                dial.confirm_key.map(|key| key.as_char().to_string()).as_deref(),
            )
            .seconds("confirmTimeout", dial.confirm_timeout, 120);
        match &dial.dial_music {
            DialMusic::RingBack => {}
            DialMusic::None => {
                self.attribute("dialMusic", "none");
            }
            DialMusic::Document(url) => {
                self.attribute("dialMusic", &url.0);
            }
        }
        self.target("callbackUrl", "callbackMethod", dial.callback.as_ref())
            .with_default("digitsMatch", &dial.digits_match.join(","), "")
            .with_default("digitsMatchBLeg", &dial.digits_match_b_leg.join(","), "")
            .pairs("sipHeaders", &dial.sip_headers)
            .end_start_tag();
        for target in &dial.targets {
            self.dial_target(target);
        }
        self.close("Dial");
    }

    fn dial_target(&mut self, target: &DialTarget) {
        let (name, address) = match &target.address {
            DialAddress::Pstn(number) => ("Number", number),
            DialAddress::WhatsappUser(number) => ("User", number),
            DialAddress::Sip(address) => ("User", address),
        };
        self.open(name)
            .optional("sendDigits", target.send_digits.as_deref())
            .flag("sendOnPreanswer", target.send_on_preanswer, false)
            .pairs("sipHeaders", &target.sip_headers)
            .optional("callerId", target.caller_id.as_deref())
            .optional("callerName", target.caller_name.as_deref())
            .body(name, address);
    }

    fn conference(&mut self, conference: &Conference) {
        self.open("Conference")
            .flag("muted", conference.muted, false)
            .flag("hangupOnStar", conference.hangup_on_star, false)
            .flag("endConferenceOnExit", conference.end_on_exit, false)
            .flag("record", conference.record, false)
            .flag("floorEvent", conference.floor_event, false)
            .flag("startConferenceOnEnter", conference.start_on_enter, true)
            .flag("stayAlone", conference.stay_alone, true)
            .flag("redirect", conference.redirect, true)
            .flag("relayDTMF", conference.relay_dtmf, true)
            .member_sound("enterSound", &conference.enter_sound)
            .member_sound("exitSound", &conference.exit_sound)
            .url("waitSound", conference.wait_sound.as_ref())
            .number("maxMembers", conference.max_members, 20)
            .seconds("timeLimit", conference.time_limit, 86_400)
            .with_default(
                "recordFileFormat",
                if conference.record_mp3 { "mp3" } else { "wav" },
                "mp3",
            )
            .flag("recordWhenAlone", conference.record_when_alone, true)
            .target("action", "method", conference.action.as_ref())
            .target("callbackUrl", "callbackMethod", conference.callback.as_ref())
            .with_default("digitsMatch", &conference.digits_match.join(","), "")
            .optional("sendDigits", conference.send_digits.as_deref())
            .transcription(conference.transcription.as_ref())
            .body("Conference", &conference.name);
    }

    fn stream(&mut self, stream: &Stream) {
        self.open("Stream")
            .flag("bidirectional", stream.bidirectional, false)
            .with_default("audioTrack", &stream.audio_track, "inbound")
            .seconds("streamTimeout", stream.timeout, 86_400)
            .target("statusCallbackUrl", "statusCallbackMethod", stream.status_callback.as_ref())
            .with_default("contentType", &stream.content_type, "audio/x-l16;rate=8000")
            .pairs("extraHeaders", &stream.extra_headers)
            .flag("keepCallAlive", stream.keep_call_alive, false)
            .flag("noiseCancellation", stream.noise_cancellation, false)
            .number("noiseCancellationLevel", stream.noise_cancellation_level, 85)
            .body("Stream", &stream.url.0);
    }

    fn message(&mut self, message: &Message) {
        self.open("Message")
            .attribute("src", &message.src)
            .attribute("dst", &message.dst.join("<"))
            .with_default("type", &message.kind, "sms")
            .target("callbackUrl", "callbackMethod", message.callback.as_ref())
            .body("Message", &message.text);
    }

    /// Starts a start tag.
    fn open(&mut self, name: &str) -> &mut Self {
        self.text.push('<');
        self.text.push_str(name);
        self
    }

    /// Ends a start tag.
    fn end_start_tag(&mut self) {
        self.text.push('>');
    }

    /// Ends the tag of an empty element.
    fn end_empty_tag(&mut self) {
        self.text.push_str("/>");
    }

    /// Writes an end tag.
    fn close(&mut self, name: &str) {
        // Writing to a `String` cannot fail.
        let _ = write!(self.text, "</{name}>");
    }

    /// Ends a start tag, then writes the body and the end tag.
    fn body(&mut self, name: &str, body: &str) {
        self.end_start_tag();
        self.escape(body);
        self.close(name);
    }

    fn attribute(&mut self, name: &str, value: &str) -> &mut Self {
        let _ = write!(self.text, " {name}=\"");
        self.escape(value);
        self.text.push('"');
        self
    }

    fn optional(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        if let Some(value) = value { self.attribute(name, value) } else { self }
    }

    /// Writes an attribute unless it has its default value.
    fn with_default(&mut self, name: &str, value: &str, default: &str) -> &mut Self {
        self.optional(name, (value != default).then_some(value))
    }

    fn flag(&mut self, name: &str, value: bool, default: bool) -> &mut Self {
        self.optional(name, (value != default).then_some(if value { "true" } else { "false" }))
    }

    fn number(&mut self, name: &str, value: u8, default: u8) -> &mut Self {
        self.with_default(name, &value.to_string(), &default.to_string())
    }

    fn seconds(&mut self, name: &str, value: Duration, default: u64) -> &mut Self {
        self.optional_seconds(name, (value != Duration::from_secs(default)).then_some(value))
    }

    fn optional_seconds(&mut self, name: &str, value: Option<Duration>) -> &mut Self {
        self.optional(name, value.map(|v| v.as_secs().to_string()).as_deref())
    }

    fn repeat(&mut self, repeat: Repeat) -> &mut Self {
        match repeat {
            Repeat::Times(1) => self,
            Repeat::Times(times) => self.attribute("loop", &times.to_string()),
            Repeat::Endless => self.attribute("loop", "0"),
        }
    }

    fn url(&mut self, name: &str, url: Option<&DocUrl>) -> &mut Self {
        self.optional(name, url.map(|url| &*url.0))
    }

    fn method(&mut self, name: &str, method: Method) -> &mut Self {
        self.with_default(name, method.as_str(), Method::Post.as_str())
    }

    fn target(&mut self, url: &str, method: &str, target: Option<&Target>) -> &mut Self {
        match target {
            Some(target) => self.attribute(url, &target.url.0).method(method, target.method),
            None => self,
        }
    }

    fn finish_key(&mut self, key: Option<Digit>) -> &mut Self {
        let word = key.map_or_else(|| "none".to_owned(), |key| key.as_char().to_string());
        self.with_default("finishOnKey", &word, "#")
    }

    fn pairs(&mut self, name: &str, pairs: &[(String, String)]) -> &mut Self {
        let items: Vec<String> =
            pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        self.with_default(name, &items.join(","), "")
    }

    fn member_sound(&mut self, name: &str, sound: &MemberSound) -> &mut Self {
        match sound {
            MemberSound::None => self,
            MemberSound::Beep(which) => self.attribute(name, &format!("beep:{which}")),
            MemberSound::Document(target) => self.attribute(name, &target.url.0),
        }
    }

    fn transcription(&mut self, transcription: Option<&Transcription>) -> &mut Self {
        let Some(transcription) = transcription else { return self };
        self.attribute("transcriptionType", &transcription.kind)
            .target("transcriptionUrl", "transcriptionMethod", transcription.target.as_ref())
            .optional("transcriptionReportType", transcription.report_full.then_some("full"))
    }

    /// Escapes text for a body or an attribute. Tabs and line breaks become references, because a
    /// parser turns them into spaces in attributes.
    fn escape(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '<' => self.text.push_str("&lt;"),
                '>' => self.text.push_str("&gt;"),
                '&' => self.text.push_str("&amp;"),
                '"' => self.text.push_str("&quot;"),
                '\t' | '\n' | '\r' => drop(write!(self.text, "&#{};", u32::from(c))),
                c => self.text.push(c),
            }
        }
    }
}

fn keys(digits: &[Digit]) -> String {
    digits.iter().map(|digit| digit.as_char()).collect()
}
