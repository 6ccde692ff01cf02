//! The fields of POSTs' bodies, for the OpenAPI document: what each may be, and which must be there. A test holds them
//! against what the resources read.

use serde_json::{Map, Value, json};

/// A field of a body.
pub(in crate::api) struct Field {
    pub(in crate::api) name: &'static str,
    pub(in crate::api) is: Is,
    pub(in crate::api) what: &'static str,
    /// Its absence is refused.
    pub(in crate::api) must: bool,
}

/// What a field's value may be. Numbers and booleans may also come as text, and `null` is absence (1.4).
pub(in crate::api) enum Is {
    /// Of so many characters at most.
    Text(u32),
    Url,
    Method,
    Flag,
    Integer(u32, u32),
    Words(&'static [&'static str]),
    Uuid,
    /// A list, or one text with commas between them.
    Urls,
}

const fn may(name: &'static str, is: Is, what: &'static str) -> Field {
    Field { name, is, what, must: false }
}

const fn must(name: &'static str, is: Is, what: &'static str) -> Field {
    Field { name, is, what, must: true }
}

const LEGS: Is = Is::Words(&["aleg", "bleg", "both"]);
const LEG: Is = Is::Words(&["aleg", "bleg"]);

/// By `operationId`.
pub(in crate::api) const BODIES: &[(&str, &[Field])] = &[
    (
        "makeCalls",
        &[
            must("from", Is::Text(32), "A number of the account's with calling enabled"),
            must("to", Is::Text(u32::MAX), "Users' numbers, at most 1,000, with < between them"),
            must("answer_url", Is::Url, "Where the document is, once the user has answered"),
            may("answer_method", Is::Method, "POST"),
            may("ring_url", Is::Url, "Told once that it rings"),
            may("ring_method", Is::Method, "POST"),
            may("hangup_url", Is::Url, "Told of the end; the answer URL"),
            may("hangup_method", Is::Method, "POST"),
            may("fallback_url", Is::Url, "Asked where the answer URL fails"),
            may("fallback_method", Is::Method, "POST"),
            may(
                "call_type",
                Is::Words(&["whatsapp_voice", "whatsapp"]),
                "Only WhatsApp users can be called",
            ),
            may("caller_name", Is::Text(50), "For callbacks"),
            may(
                "send_digits",
                Is::Text(70),
                "0-9, *, #, and w and W for pauses: sent after the answer",
            ),
            may("send_on_preanswer", Is::Flag, "Without effect"),
            may("time_limit", Is::Integer(1, 86_400), "Seconds of the call (14400)"),
            may("hangup_on_ring", Is::Integer(0, 600), "Seconds after it began to ring"),
            may("ring_timeout", Is::Integer(0, 600), "Seconds of ringing (120; 0 is 120)"),
            may(
                "sip_headers",
                Is::Text(u32::MAX),
                "name=value pairs with commas between them: X-PH- parameters",
            ),
            may("parent_call_uuid", Is::Uuid, "Stored with the call"),
            may("error_if_parent_not_found", Is::Flag, "404 where that call is not known (false)"),
            may("machine_detection", Is::Words(&["false"]), "Not available on WhatsApp"),
        ],
    ),
    (
        "transferCall",
        &[
            may("legs", LEGS, "aleg"),
            may("aleg_url", Is::Url, "The A-leg's document; must be there where that leg is meant"),
            may("aleg_method", Is::Method, "POST"),
            may("bleg_url", Is::Url, "The B-leg's"),
            may("bleg_method", Is::Method, "POST"),
        ],
    ),
    (
        "playInCall",
        &[
            must("urls", Is::Urls, "Sounds, 20 at most"),
            may("length", Is::Integer(1, 3_600), "Seconds"),
            may("legs", LEGS, "aleg"),
            may("loop", Is::Flag, "false"),
            may("mix", Is::Flag, "true: over the document's sound; false: instead of it"),
        ],
    ),
    (
        "speakInCall",
        &[
            must("text", Is::Text(3_000), "What is said"),
            may("voice", Is::Text(64), "WOMAN, MAN, or a voice's name"),
            may("language", Is::Text(64), "en-US"),
            may("type", Is::Words(&["text", "ssml"]), "text"),
            may("legs", LEGS, "aleg"),
            may("loop", Is::Flag, "false"),
            may("mix", Is::Flag, "true: over the document's sound; false: instead of it"),
        ],
    ),
    (
        "sendDigits",
        &[must("digits", Is::Text(64), "0-9, *, #, w and W"), may("leg", LEG, "aleg; also legs")],
    ),
    ("startMultiPartyCall", &[must("status", Is::Words(&["active"]), "")]),
    (
        "addParticipant",
        &[
            must("role", Is::Words(&["agent", "supervisor", "customer", "ai-agent"]), ""),
            may("call_uuid", Is::Uuid, "A call that is up; else from and to"),
            may("from", Is::Text(32), "A number of the account's with calling enabled"),
            may("to", Is::Text(u32::MAX), "Users' numbers with < between them"),
            may("caller_name", Is::Text(50), "For callbacks"),
            may("ring_timeout", Is::Integer(1, 600), "Seconds of ringing (120)"),
            may(
                "sip_headers",
                Is::Text(u32::MAX),
                "name=value pairs with commas between them: X-PH- parameters",
            ),
            may("call_status_callback_url", Is::Url, "Told that it rings, and of its end"),
            may("call_status_callback_method", Is::Method, "POST"),
            may(
                "confirm_key",
                Is::Text(1),
                "0-9, * or #: who picks up is in once they have pressed it",
            ),
            may(
                "confirm_key_sound_url",
                Is::Url,
                "A document of Speak, Play and Wait for who picks up, before they are in",
            ),
            may("confirm_key_sound_method", Is::Method, "GET"),
            may(
                "dial_music",
                Is::Text(2_048),
                "What those who are in hear until it is picked up: real (a ring-back tone, the default), none, or the URL of \
                 a document of Speak, Play and Wait",
            ),
        ],
    ),
    (
        "changeParticipant",
        &[
            may("mute", Is::Flag, "One of the three must be there"),
            may("hold", Is::Flag, ""),
            may("coach_mode", Is::Flag, "Heard by agents only"),
        ],
    ),
    ("playToParticipant", &[must("url", Is::Url, "A sound")]),
    (
        "speakToParticipant",
        &[
            must("text", Is::Text(3_000), "What is said"),
            may("voice", Is::Text(64), "WOMAN, MAN, or a voice's name"),
            may("language", Is::Text(64), "en-US"),
            may("type", Is::Words(&["text", "ssml"]), "text"),
        ],
    ),
    ("playToMembers", &[must("url", Is::Url, "A sound")]),
    (
        "speakToMembers",
        &[
            must("text", Is::Text(3_000), "What is said"),
            may("voice", Is::Text(64), "WOMAN, MAN, or a voice's name"),
            may("language", Is::Text(64), "en-US"),
            may("type", Is::Words(&["text", "ssml"]), "text"),
        ],
    ),
    (
        "beginStream",
        &[
            must("service_url", Is::Text(2_048), "ws:// or wss://"),
            may("bidirectional", Is::Flag, "false; true: what the server sends is played"),
            may(
                "audio_track",
                Is::Words(&["inbound", "outbound", "both"]),
                "inbound; with bidirectional nothing else",
            ),
            may("stream_timeout", Is::Integer(1, 86_400), "Seconds (86400)"),
            may("status_callback_url", Is::Url, "Told of the stream"),
            may("status_callback_method", Is::Method, "POST"),
            may(
                "content_type",
                Is::Words(&[
                    "audio/x-l16;rate=8000",
                    "audio/x-l16;rate=16000",
                    "audio/x-l16;rate=24000",
                    "audio/x-mulaw;rate=8000",
                ]),
                "audio/x-l16;rate=8000",
            ),
            may(
                "extra_headers",
                Is::Text(512),
                "name=value pairs with commas between them: in messages",
            ),
            may("noise_cancellation", Is::Flag, "The noise around the user is taken away"),
            may(
                "noise_cancellation_level",
                Is::Integer(60, 100),
                "How much of it, in per cent (85)",
            ),
        ],
    ),
    (
        "changeAccount",
        &[
            may("name", Is::Text(200), "One of the four must be there"),
            may("city", Is::Text(200), ""),
            may("address", Is::Text(200), ""),
            may("timezone", Is::Text(200), "Shown; times stay UTC"),
        ],
    ),
    (
        "makeSubaccount",
        &[must("name", Is::Text(200), ""), may("enabled", Is::Flag, "true: its token is taken")],
    ),
    (
        "changeSubaccount",
        &[may("name", Is::Text(200), "This or enabled"), may("enabled", Is::Flag, "")],
    ),
    (
        "changeNumber",
        &[
            may("alias", Is::Text(100), ""),
            may("app_id", Is::Text(64), "An application of the account's; empty: none"),
            may(
                "subaccount",
                Is::Text(20),
                "Has the whole WABA from then on; empty: the main account",
            ),
        ],
    ),
    (
        "makeEndpoint",
        &[
            must("username", Is::Text(64), "Letters, digits, dots, dashes and underscores"),
            must("password", Is::Text(128), "5 characters at least"),
            may("alias", Is::Text(100), "The username"),
            may(
                "app_id",
                Is::Text(64),
                "What its calls run by; empty: the account's default for endpoints",
            ),
        ],
    ),
    (
        "changeEndpoint",
        &[
            may("password", Is::Text(128), "Its phones have to register again"),
            may("alias", Is::Text(100), ""),
            may("app_id", Is::Text(64), "Empty: the account's default for endpoints"),
        ],
    ),
    ("makeApplication", &[must("app_name", Is::Text(100), ""), answer(), answer_method()]),
    ("changeApplication", &[may("app_name", Is::Text(100), ""), answer(), answer_method()]),
];

/// What the operations that record take.
const OF_RECORDS: &[Field] = &[may("file_format", Is::Words(&["mp3", "wav"]), "mp3")];
const OF_RECORDED_CALLS: &[Field] = &[
    may("time_limit", Is::Integer(1, 14_400), "Seconds (60)"),
    may("record_channel_type", Is::Words(&["mono", "stereo"]), "stereo"),
    may("callback_url", Is::Url, "Told when it is complete"),
    may("callback_method", Is::Method, "POST"),
    may("transcription_url", Is::Url, "Told what is said in it"),
    may("transcription_method", Is::Method, "POST"),
    may("transcription_type", Is::Words(&["auto", "hybrid", "manual"]), ""),
    may("transcription_report_type", Is::Words(&["full", "compact"]), "compact"),
];
const OF_RECORDED_ROOMS: &[Field] = &[
    may("callback_url", Is::Url, "Told when it is complete"),
    may("callback_method", Is::Method, "POST"),
];
const OF_RECORDED_MEMBERS: &[Field] = &[
    may("recording_callback_url", Is::Url, "Told when it is complete"),
    may("recording_callback_method", Is::Method, "POST"),
    may("transcription_url", Is::Url, "Told what is said in it"),
    may("transcription_method", Is::Method, "POST"),
    may("transcript", Is::Flag, "false: nothing is written down all the same"),
];

/// What both operations with applications take besides.
const OF_APPLICATIONS: &[Field] = &[
    may("fallback_answer_url", Is::Url, ""),
    may("fallback_method", Is::Method, "POST"),
    may("hangup_url", Is::Url, "The answer URL"),
    may("hangup_method", Is::Method, "POST"),
    may("message_url", Is::Url, "Kept"),
    may("message_method", Is::Method, "POST"),
    may("default_number_app", Is::Flag, "For numbers that come later"),
    may("default_endpoint_app", Is::Flag, "For endpoints that name none"),
    may("subaccount", Is::Text(20), "Whose it is; empty: the main account's"),
    may("public_uri", Is::Flag, "Kept"),
    may("log_incoming_messages", Is::Flag, "Kept"),
];

const fn answer() -> Field {
    may("answer_url", Is::Url, "An empty text takes a URL away")
}

const fn answer_method() -> Field {
    may("answer_method", Is::Method, "POST")
}

/// An operation's fields.
pub(in crate::api) fn fields(id: &str) -> Vec<&'static Field> {
    let own = BODIES.iter().filter(|(of, _)| *of == id).flat_map(|(_, fields)| *fields);
    let shared: &[&[Field]] = match id {
        "makeApplication" | "changeApplication" => &[OF_APPLICATIONS],
        "recordCall" => &[OF_RECORDS, OF_RECORDED_CALLS],
        "recordConference" => &[OF_RECORDS, OF_RECORDED_ROOMS],
        "recordMultiPartyCall" | "recordParticipant" => &[OF_RECORDS, OF_RECORDED_MEMBERS],
        _ => &[],
    };
    own.chain(shared.iter().copied().flatten()).collect()
}

/// The schema of an operation's body; none: it says nothing of its fields.
pub(in crate::api) fn schema(id: &str) -> Option<Value> {
    let fields = fields(id);
    if fields.is_empty() {
        return None;
    }
    let of = |field: &Field| {
        let mut schema = match field.is {
            Is::Text(u32::MAX) => json!({"type": "string"}),
            Is::Text(chars) => json!({"type": "string", "maxLength": chars}),
            Is::Url => json!({"type": "string", "maxLength": super::URL_BYTES_MAX}),
            Is::Method => json!({"type": "string", "enum": ["GET", "POST"]}),
            Is::Flag => json!({"type": "boolean"}),
            Is::Integer(least, most) => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            Is::Words(words) => json!({"type": "string", "enum": words}),
            Is::Uuid => json!({"type": "string", "format": "uuid"}),
            Is::Urls => {
                json!({"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]})
            }
        };
        if let Some(schema) = schema.as_object_mut().filter(|_| !field.what.is_empty()) {
            schema.insert("description".to_owned(), field.what.into());
        }
        (field.name.to_owned(), schema)
    };
    let properties: Map<String, Value> = fields.iter().map(|field| of(field)).collect();
    let required: Vec<&str> =
        fields.iter().filter(|field| field.must).map(|field| field.name).collect();
    Some(json!({
        "type": "object", "properties": properties, "required": required, "examples": [example(id, &fields)],
    }))
}

/// A body that is taken: what must be there, or the first of what may.
fn example(id: &str, fields: &[&Field]) -> Value {
    let must = fields.iter().filter(|field| field.must).count();
    let said = match (id, must) {
        ("transferCall", _) => {
            fields.iter().filter(|field| field.name == "aleg_url").collect::<Vec<_>>()
        }
        ("makeCalls", _) => {
            fields.iter().filter(|field| field.must || field.name == "answer_method").collect()
        }
        (_, 0) => fields.iter().take(1).collect(),
        _ => fields.iter().filter(|field| field.must).collect(),
    };
    let value = |field: &Field| match (field.name, &field.is) {
        ("from", _) => "918035737458".into(),
        ("to", _) => "919812345678".into(),
        ("digits", _) => "1w2".into(),
        ("service_url", _) => "wss://app.example.com/stream".into(),
        ("text", _) => "Hello.".into(),
        ("username", _) => "asha".into(),
        ("password", _) => "a longer secret".into(),
        (_, Is::Text(_)) => "Desk".into(),
        (_, Is::Url) => "https://app.example.com/answer".into(),
        (_, Is::Urls) => json!(["https://app.example.com/hold.mp3"]),
        (_, Is::Method) => "POST".into(),
        (_, Is::Flag) => true.into(),
        (_, Is::Integer(least, _)) => (*least).into(),
        (_, Is::Words(words)) => words.first().copied().into(),
        (_, Is::Uuid) => "3f0c2f1a-6a1e-4f0e-9a2b-5d7f3f0a9b11".into(),
    };
    said.into_iter()
        .map(|field| (field.name.to_owned(), value(field)))
        .collect::<Map<_, _>>()
        .into()
}
