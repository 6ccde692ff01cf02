//! Messages of the stream protocol (`docs/stream.md`): JSON text, encoded for sending, or decoded
//! from the server. No I/O; the socket limits the message size.

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::mulaw;
use machine::{StreamFormat, StreamOrder, StreamTrack};

/// A Base64 decoder that accepts input with or without padding, since libraries differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Maximum length of a checkpoint's name, in characters.
const NAME_CHARS_MAX: usize = 256;
/// Maximum number of keys in a `sendDTMF` message.
const KEYS_MAX: usize = 64;

/// The values that all messages of a stream share.
#[derive(Clone, Debug)]
pub(super) struct StreamIds {
    pub(super) call: String,
    pub(super) stream: String,
    pub(super) account: String,
    pub(super) extra_headers: String,
}

/// A message to the server. Each has a sequence number, from 1.
#[derive(Clone, Copy, Debug)]
pub(super) enum ServerMessage<'a> {
    Start {
        order: &'a StreamOrder,
    },
    /// 20 ms of audio.
    Media {
        track: Track,
        at_ms: i64,
        chunk: u64,
        pcm: &'a [i16],
        format: StreamFormat,
    },
    Dtmf {
        digit: char,
        at_ms: i64,
    },
    PlayedStream {
        name: &'a str,
    },
    ClearedAudio,
    Error {
        code: Fault,
    },
    Stop,
}

/// The direction of audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Track {
    Inbound,
    Outbound,
}

/// Returns the tracks of an order.
pub(super) fn tracks(track: StreamTrack) -> &'static [Track] {
    match track {
        StreamTrack::Inbound => &[Track::Inbound],
        StreamTrack::Outbound => &[Track::Outbound],
        StreamTrack::Both => &[Track::Inbound, Track::Outbound],
    }
}

/// Why a message of the server was not executed: the `code` of an error message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The playback buffer is full.
    BufferOverflow,
    /// The message is not JSON or not an object, or a field is missing or has the wrong type.
    InvalidMessage,
    /// `contentType` and `sampleRate` are not supported by this stream.
    InvalidFormat,
    /// The payload is not Base64, or has an incomplete sample at the end.
    InvalidPayload,
    /// The server sent audio for a stream that is not bidirectional.
    NotBidirectional,
    /// The digits are not keys, or there are too many.
    InvalidDigits,
    /// There are too many pending checkpoints, or the name is too long.
    InvalidCheckpoint,
}

impl Fault {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::BufferOverflow => "buffer_overflow",
            Self::InvalidMessage => "invalid_message",
            Self::InvalidFormat => "invalid_format",
            Self::InvalidPayload => "invalid_payload",
            Self::NotBidirectional => "not_bidirectional",
            Self::InvalidDigits => "invalid_digits",
            Self::InvalidCheckpoint => "invalid_checkpoint",
        }
    }
}

impl StreamIds {
    /// Returns the JSON text of a message.
    pub(super) fn text(&self, sequence: u64, ours: ServerMessage<'_>) -> String {
        let stream_id = &self.stream;
        match ours {
            ServerMessage::Start { order } => json(&Start {
                sequence_number: sequence,
                event: "start",
                start: Starting {
                    call_id: &self.call,
                    stream_id,
                    account_id: &self.account,
                    tracks: tracks(order.track),
                    media_format: MediaFormat {
                        encoding: order.format.encoding(),
                        sample_rate: order.format.hz(),
                    },
                },
                extra_headers: &self.extra_headers,
            }),
            ServerMessage::Media { track, at_ms, chunk, pcm, format } => json(&Media {
                sequence_number: sequence,
                event: "media",
                stream_id,
                media: Piece {
                    track,
                    timestamp: at_ms.to_string(),
                    chunk,
                    payload: payload(pcm, format),
                },
                extra_headers: &self.extra_headers,
            }),
            ServerMessage::Dtmf { digit, at_ms } => json(&Dtmf {
                event: "dtmf",
                stream_id,
                sequence_number: sequence,
                dtmf: Key { track: Track::Inbound, digit, timestamp: at_ms.to_string() },
            }),
            ServerMessage::PlayedStream { name } => {
                json(&Plain { name: Some(name), ..Plain::of("playedStream", sequence, stream_id) })
            }
            ServerMessage::ClearedAudio => json(&Plain::of("clearedAudio", sequence, stream_id)),
            ServerMessage::Error { code } => json(&Plain {
                code: Some(code.as_str()),
                ..Plain::of("error", sequence, stream_id)
            }),
            ServerMessage::Stop => json(&Plain::of("stop", sequence, stream_id)),
        }
    }
}

/// Serializes a message. This can't fail for strings, numbers and lists.
fn json(message: &impl Serialize) -> String {
    serde_json::to_string(message).unwrap_or_default()
}

/// Encodes audio in the format of the stream.
fn payload(pcm: &[i16], format: StreamFormat) -> String {
    let bytes: Vec<u8> = match format {
        StreamFormat::Mulaw8000 => pcm.iter().map(|sample| mulaw::encode(*sample)).collect(),
        StreamFormat::L16At8000 | StreamFormat::L16At16000 | StreamFormat::L16At24000 => {
            pcm.iter().flat_map(|sample| sample.to_le_bytes()).collect()
        }
    };
    BASE64.encode(bytes)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Start<'a> {
    sequence_number: u64,
    event: &'static str,
    start: Starting<'a>,
    #[serde(rename = "extra_headers")]
    extra_headers: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Starting<'a> {
    call_id: &'a str,
    stream_id: &'a str,
    account_id: &'a str,
    tracks: &'static [Track],
    media_format: MediaFormat,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MediaFormat {
    encoding: &'static str,
    sample_rate: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Media<'a> {
    sequence_number: u64,
    event: &'static str,
    stream_id: &'a str,
    media: Piece,
    #[serde(rename = "extra_headers")]
    extra_headers: &'a str,
}

#[derive(Serialize)]
struct Piece {
    track: Track,
    timestamp: String,
    chunk: u64,
    payload: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Dtmf<'a> {
    event: &'static str,
    stream_id: &'a str,
    sequence_number: u64,
    dtmf: Key,
}

#[derive(Serialize)]
struct Key {
    track: Track,
    digit: char,
    timestamp: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Plain<'a> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    sequence_number: u64,
    stream_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

impl<'a> Plain<'a> {
    fn of(event: &'static str, sequence_number: u64, stream_id: &'a str) -> Self {
        Self { event, code: None, sequence_number, stream_id, name: None }
    }
}

/// A command from the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    PlayAudio(Sound),
    Checkpoint { name: String },
    ClearAudio,
    SendDtmf { digits: String },
}

/// Audio to play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sound {
    pub(super) hz: u32,
    pub(super) pcm: Vec<i16>,
}

/// Parses a message. Returns `None` for an unknown event, which is ignored.
///
/// # Errors
/// Returns the code for an error message.
pub(super) fn read(text: &str) -> Result<Option<Command>, Fault> {
    let message: Message<'_> = serde_json::from_str(text).map_err(|_| Fault::InvalidMessage)?;
    match message.event.as_deref() {
        Some("playAudio") => {
            let media = message.media.ok_or(Fault::InvalidMessage)?;
            let media: TheirMedia =
                serde_json::from_str(media.get()).map_err(|_| Fault::InvalidMessage)?;
            sound(&media).map(|sound| Some(Command::PlayAudio(sound)))
        }
        Some("checkpoint") => {
            let name = message.name.map(|name| serde_json::from_str::<String>(name.get()));
            let name = name.and_then(Result::ok).ok_or(Fault::InvalidMessage)?;
            let fits = name.chars().count() <= NAME_CHARS_MAX;
            fits.then_some(Some(Command::Checkpoint { name })).ok_or(Fault::InvalidCheckpoint)
        }
        Some("clearAudio") => Ok(Some(Command::ClearAudio)),
        Some("sendDTMF") => {
            let digits = message.dtmf.map(|dtmf| serde_json::from_str::<String>(dtmf.get()));
            let digits = digits.and_then(Result::ok).ok_or(Fault::InvalidMessage)?;
            let keys = (1..=KEYS_MAX).contains(&digits.len())
                && digits.chars().all(|c| "0123456789*#wW".contains(c));
            keys.then_some(Some(Command::SendDtmf { digits })).ok_or(Fault::InvalidDigits)
        }
        Some(_) => Ok(None),
        None => Err(Fault::InvalidMessage),
    }
}

/// A message. Fields of other events are not parsed.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(default, borrow)]
    event: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, borrow)]
    media: Option<&'a RawValue>,
    #[serde(default, borrow)]
    name: Option<&'a RawValue>,
    #[serde(default, borrow)]
    dtmf: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TheirMedia {
    content_type: String,
    sample_rate: Hertz,
    payload: String,
}

/// A number, possibly as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Hertz {
    Number(u32),
    Text(String),
}

fn sound(media: &TheirMedia) -> Result<Sound, Fault> {
    let hz = match &media.sample_rate {
        Hertz::Number(hz) => *hz,
        Hertz::Text(text) => text.trim().parse().map_err(|_| Fault::InvalidFormat)?,
    };
    // Some servers repeat the rate in `contentType`.
    let encoding = media.content_type.split(';').next().unwrap_or_default().trim();
    let format = StreamFormat::parse(&format!("{};rate={hz}", encoding.to_ascii_lowercase()))
        .ok_or(Fault::InvalidFormat)?;
    let bytes = BASE64.decode(media.payload.as_bytes()).map_err(|_| Fault::InvalidPayload)?;
    let pcm = match format {
        StreamFormat::Mulaw8000 => bytes.iter().map(|coded| mulaw::decode(*coded)).collect(),
        StreamFormat::L16At8000 | StreamFormat::L16At16000 | StreamFormat::L16At24000 => {
            let samples = bytes.chunks_exact(2);
            if !samples.remainder().is_empty() {
                return Err(Fault::InvalidPayload);
            }
            samples.filter_map(|two| Some(i16::from_le_bytes(two.try_into().ok()?))).collect()
        }
    };
    Ok(Sound { hz, pcm })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use xml::ast::DocUrl;

    fn ids() -> StreamIds {
        StreamIds {
            call: "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11".to_owned(),
            stream: "20170ada-f610-433b-8758-c02a2aab3662".to_owned(),
            account: "MAXXXXXXXXXXXXXXXXXX".to_owned(),
            extra_headers: "user=42,lang=hi".to_owned(),
        }
    }

    fn message(sequence: u64, ours: ServerMessage<'_>) -> Value {
        serde_json::from_str(&ids().text(sequence, ours)).expect("JSON")
    }

    #[test]
    fn sent_messages_match_the_protocol() {
        let stream = "20170ada-f610-433b-8758-c02a2aab3662";
        let order = StreamOrder {
            url: DocUrl("wss://bot.example.com/".into()),
            bidirectional: true,
            track: StreamTrack::Both,
            timeout_s: 60,
            status: None,
            format: StreamFormat::Mulaw8000,
            extra_headers: Vec::new(),
            keep_call_alive: true,
            noise_level: None,
            in_room: false,
        };
        let media = |pcm, format| ServerMessage::Media {
            track: Track::Outbound,
            at_ms: 1_795_154_591_120,
            chunk: 7,
            pcm,
            format,
        };
        for (ours, wanted) in [
            (
                ServerMessage::Start { order: &order },
                json!({"sequenceNumber": 3, "event": "start", "start": {
                    "callId": "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11", "streamId": stream, "accountId": "MAXXXXXXXXXXXXXXXXXX",
                    "tracks": ["inbound", "outbound"],
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000}},
                    "extra_headers": "user=42,lang=hi"}),
            ),
            (
                media(&[0, 1_000, -1_000], StreamFormat::L16At16000),
                json!({"sequenceNumber": 3, "event": "media", "streamId": stream, "media": {
                    "track": "outbound", "timestamp": "1795154591120", "chunk": 7, "payload": "AADoAxj8"},
                    "extra_headers": "user=42,lang=hi"}),
            ),
            (
                media(&[0, i16::MAX, i16::MIN], StreamFormat::Mulaw8000),
                json!({"sequenceNumber": 3, "event": "media", "streamId": stream, "media": {
                    "track": "outbound", "timestamp": "1795154591120", "chunk": 7, "payload": "/4AA"},
                    "extra_headers": "user=42,lang=hi"}),
            ),
            (
                ServerMessage::Dtmf { digit: '5', at_ms: 9 },
                json!({"event": "dtmf", "streamId": stream, "sequenceNumber": 3,
                    "dtmf": {"track": "inbound", "digit": "5", "timestamp": "9"}}),
            ),
            (
                ServerMessage::PlayedStream { name: "a \"b\"" },
                json!({"event": "playedStream", "sequenceNumber": 3, "streamId": stream, "name": "a \"b\""}),
            ),
            (
                ServerMessage::ClearedAudio,
                json!({"event": "clearedAudio", "sequenceNumber": 3, "streamId": stream}),
            ),
            (
                ServerMessage::Error { code: Fault::BufferOverflow },
                json!({"event": "error", "code": "buffer_overflow", "sequenceNumber": 3, "streamId": stream}),
            ),
            (
                ServerMessage::Stop,
                json!({"event": "stop", "sequenceNumber": 3, "streamId": stream}),
            ),
        ] {
            assert_eq!(message(3, ours), wanted);
        }
    }

    #[test]
    fn parses_the_messages_of_a_server() {
        let play =
            |hz: u32, pcm: &[i16]| Ok(Some(Command::PlayAudio(Sound { hz, pcm: pcm.to_vec() })));
        for (text, read_as) in [
            (
                json!({"event": "playAudio", "media": {"contentType": "audio/x-l16", "sampleRate": 16000, "payload": "AADoAxj8"}}),
                play(16_000, &[0, 1_000, -1_000]),
            ),
            (
                json!({"event": "playAudio", "media": {"contentType": "audio/x-mulaw", "sampleRate": "8000", "payload": "/4AA"}}),
                play(8_000, &[0, 32_124, -32_124]),
            ),
            (
                json!({"event": "playAudio", "media": {"contentType": "audio/x-mulaw;rate=8000", "sampleRate": 8000, "payload": "/w"}}),
                play(8_000, &[0]),
            ),
            (
                json!({"event": "playAudio", "streamId": "x", "media": {"contentType": "audio/x-l16", "sampleRate": 24000, "payload": "", "more": [1]}}),
                play(24_000, &[]),
            ),
            (
                json!({"event": "checkpoint", "streamId": "x", "name": "end \u{1f600}"}),
                Ok(Some(Command::Checkpoint { name: "end 😀".to_owned() })),
            ),
            (json!({"event": "clearAudio", "streamId": "x"}), Ok(Some(Command::ClearAudio))),
            (
                json!({"event": "sendDTMF", "dtmf": "12#w"}),
                Ok(Some(Command::SendDtmf { digits: "12#w".to_owned() })),
            ),
            (json!({"event": "somethingElse", "media": 7, "name": {"a": []}}), Ok(None)),
        ] {
            assert_eq!(read(&text.to_string()), read_as, "{text}");
        }
    }

    #[test]
    fn invalid_messages_return_their_error_code() {
        let play = |media: Value| json!({"event": "playAudio", "media": media}).to_string();
        for (text, fault) in [
            (String::new(), Fault::InvalidMessage),
            ("[1]".to_owned(), Fault::InvalidMessage),
            ("{}".to_owned(), Fault::InvalidMessage),
            ("[".repeat(60_000), Fault::InvalidMessage),
            (
                format!("{{\"event\":\"playAudio\",\"media\":{}", "[".repeat(60_000)),
                Fault::InvalidMessage,
            ),
            (json!({"event": 7}).to_string(), Fault::InvalidMessage),
            (json!({"event": "playAudio"}).to_string(), Fault::InvalidMessage),
            (play(json!({"contentType": "audio/x-l16", "payload": ""})), Fault::InvalidMessage),
            (
                play(json!({"contentType": "audio/x-l16", "sampleRate": 44_100, "payload": ""})),
                Fault::InvalidFormat,
            ),
            (
                play(json!({"contentType": "audio/x-l16", "sampleRate": "fast", "payload": ""})),
                Fault::InvalidFormat,
            ),
            (
                play(json!({"contentType": "audio/x-mulaw", "sampleRate": 16_000, "payload": ""})),
                Fault::InvalidFormat,
            ),
            (
                play(json!({"contentType": "audio/wav", "sampleRate": 8_000, "payload": ""})),
                Fault::InvalidFormat,
            ),
            (
                play(json!({"contentType": "audio/x-l16", "sampleRate": 8_000, "payload": "AA=="})),
                Fault::InvalidPayload,
            ),
            (
                play(json!({"contentType": "audio/x-l16", "sampleRate": 8_000, "payload": "*"})),
                Fault::InvalidPayload,
            ),
            (json!({"event": "checkpoint"}).to_string(), Fault::InvalidMessage),
            (
                json!({"event": "checkpoint", "name": "x".repeat(257)}).to_string(),
                Fault::InvalidCheckpoint,
            ),
            (json!({"event": "sendDTMF"}).to_string(), Fault::InvalidMessage),
            (json!({"event": "sendDTMF", "dtmf": "1-2"}).to_string(), Fault::InvalidDigits),
            (json!({"event": "sendDTMF", "dtmf": ""}).to_string(), Fault::InvalidDigits),
        ] {
            assert_eq!(read(&text), Err(fault), "{}", text.chars().take(80).collect::<String>());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}", event in "playAudio|checkpoint|clearAudio|sendDTMF", media in any::<Vec<u8>>()) {
            let _ = read(&text);
            let _ = read(&json!({"event": event, "media": text, "name": media, "dtmf": text}).to_string());
        }

        #[test]
        fn sent_audio_can_be_parsed_as_received_audio(pcm in prop::collection::vec(any::<i16>(), 0..400)) {
            for format in [StreamFormat::L16At8000, StreamFormat::L16At16000, StreamFormat::L16At24000] {
                let media = json!({"contentType": format.encoding(), "sampleRate": format.hz(), "payload": payload(&pcm, format)});
                let back = read(&json!({"event": "playAudio", "media": media}).to_string());
                prop_assert_eq!(back, Ok(Some(Command::PlayAudio(Sound { hz: format.hz(), pcm: pcm.clone() }))));
            }
        }
    }
}
