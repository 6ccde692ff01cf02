//! What REST does with a call that is up: transfer, play, speak, send digits (`plivo-call-api.md` §2.8, §2.10–2.12).
//!
//! Fields are read and checked here; the call is told, and answers nothing: what becomes of it is in its log.

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::fields::Fields;
use super::super::routes::{Answer, Body, Content, Route, of};
use super::super::{Api, LiveCall, LiveStatus, Told, error};
use super::place::url;
use super::{KEYS_MAX, No, URL_BYTES_MAX, are_keys};
use machine::{Command, Legs, Overlay, OverlayKind, Sound, SoundItem};
use model::CallUuid;
use store::Scope;
use xml::ast::{DocUrl, ElementKind, Speak, Speech, SpeechNode, Target};

const NOT_FOUND: No = No::NotFound("call not found");
const NO_B_LEG: No = No::NotFound("the call has no B leg");
/// §2.10.
const URLS_MAX: usize = 20;
const LENGTH_MAX: u64 = 3_600;
/// L2.
const TEXT_CHARS_MAX: usize = 3_000;

const fn body(what: &'static str) -> Option<Body> {
    Some(Body { content_type: "application/json", what })
}

const fn stops(path: &'static str, id: &'static str, summary: &'static str) -> Route {
    const DONE: &[Answer] = &[Answer {
        status: 204,
        what: "It is told, whether something played or not",
        content: Content::Nothing,
    }];
    Route { method: "DELETE", path, id, summary, query: &[], body: None, answers: DONE }
}

const DONE: &[Answer] =
    &[Answer { status: 202, what: "The call is told", content: Content::Plivo(&[of::<Done>]) }];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/",
        id: "transferCall",
        summary: "Has another document take over; what is being carried out stops at once",
        query: &[],
        body: body(
            "legs (aleg, bleg or both), aleg_url, aleg_method, bleg_url, bleg_method. A form is taken too",
        ),
        answers: &[Answer {
            status: 202,
            what: "The document is asked for",
            content: Content::Plivo(&[of::<Transferred>]),
        }],
    },
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/Play/",
        id: "playInCall",
        summary: "Plays files beside the document, over it or instead of it; replaces what was so played",
        query: &[],
        body: body(
            "urls (a list, or between commas), length, legs, loop, mix. A form is taken too",
        ),
        answers: DONE,
    },
    stops(
        "/v1/Account/{auth_id}/Call/{call_uuid}/Play/",
        "stopPlayingInCall",
        "Plays them no longer",
    ),
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/Speak/",
        id: "speakInCall",
        summary: "Says a text beside the document, over it or instead of it; replaces what was so said",
        query: &[],
        body: body(
            "text, type (text or ssml), voice, language, legs, loop, mix. A form is taken too",
        ),
        answers: DONE,
    },
    stops(
        "/v1/Account/{auth_id}/Call/{call_uuid}/Speak/",
        "stopSpeakingInCall",
        "Says it no longer",
    ),
    Route {
        method: "POST",
        path: "/v1/Account/{auth_id}/Call/{call_uuid}/DTMF/",
        id: "sendDigits",
        summary: "Sends digits, after those that go out already",
        query: &[],
        body: body(
            "digits (0-9, *, #; w waits half a second, W a second), leg. A form is taken too",
        ),
        answers: DONE,
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoMessage)]
pub(super) struct Done {
    message: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoTransfer)]
pub(super) struct Transferred {
    message: &'static str,
    #[schema(value_type = Vec<String>)]
    call_uuids: Vec<CallUuid>,
}

/// The call, if it is answered and the scope's.
pub(super) fn answered(api: &Api, scope: &Scope, uuid: &str) -> Result<LiveCall, No> {
    let uuid: CallUuid = uuid.parse().map_err(|_| NOT_FOUND)?;
    api.live.get(scope, uuid).filter(|call| call.status == LiveStatus::InProgress).ok_or(NOT_FOUND)
}

pub(super) fn tell(api: &Api, scope: &Scope, call: &LiveCall, command: Command) -> Result<(), No> {
    match api.live.command(scope, call.call, command) {
        Told::Yes => Ok(()),
        Told::Full => Err(No::TooMany {
            why: "too much is asked of this call at once".to_owned(),
            seconds: 1,
        }),
        Told::NotUp => Err(NOT_FOUND),
    }
}

fn done(message: &'static str) -> Response {
    error::plivo_body(StatusCode::ACCEPTED, &Done { message })
}

/// `POST Call/{uuid}/`.
pub(super) fn transfer(
    api: &Api,
    scope: &Scope,
    uuid: &str,
    fields: &Fields,
) -> Result<Response, No> {
    let call = answered(api, scope, uuid)?;
    let legs = legs(fields, "legs", true).map_err(No::Bad)?;
    let target = |name: &'static str| -> Result<Target, String> {
        let (url, method) =
            url(api, fields, name)?.ok_or_else(|| format!("{name}_url parameter is missing"))?;
        Ok(Target { url, method })
    };
    let aleg = legs.has_a().then(|| target("aleg")).transpose().map_err(No::Bad)?;
    let bleg = legs.has_b().then(|| target("bleg")).transpose().map_err(No::Bad)?;
    let b_leg = has_b_leg(&call, legs.has_b())?;
    tell(api, scope, &call, Command::Transfer { aleg, bleg })?;
    let a_leg = legs.has_a().then_some(call.call);
    let call_uuids = a_leg.into_iter().chain(b_leg).collect();
    Ok(error::plivo_body(
        StatusCode::ACCEPTED,
        &Transferred { message: "call transfered", call_uuids },
    ))
}

/// `POST Call/{uuid}/Play/`.
pub(super) fn play(api: &Api, scope: &Scope, uuid: &str, fields: &Fields) -> Result<Response, No> {
    let call = answered(api, scope, uuid)?;
    let items = urls(api, fields)
        .map_err(No::Bad)?
        .into_iter()
        .map(|url| SoundItem::once(Sound::File { url }))
        .collect();
    let length = fields.integer("length", 1, LENGTH_MAX).map_err(No::Bad)?;
    let length_ms = length.map(|seconds| seconds.saturating_mul(1_000));
    aside(api, scope, &call, fields, OverlayKind::Play, items, length_ms)?;
    Ok(done("play started"))
}

/// `POST Call/{uuid}/Speak/`.
pub(super) fn speak(api: &Api, scope: &Scope, uuid: &str, fields: &Fields) -> Result<Response, No> {
    let call = answered(api, scope, uuid)?;
    let Speak { speech, voice, language, .. } = said(fields).map_err(No::Bad)?;
    let items = vec![SoundItem::once(Sound::Speak { speech, voice, language })];
    aside(api, scope, &call, fields, OverlayKind::Speak, items, None)?;
    Ok(done("speak started"))
}

/// Has these sounds played on the legs that are meant.
fn aside(
    api: &Api,
    scope: &Scope,
    call: &LiveCall,
    fields: &Fields,
    kind: OverlayKind,
    items: Vec<SoundItem>,
    length_ms: Option<u64>,
) -> Result<(), No> {
    let legs = legs(fields, "legs", true).map_err(No::Bad)?;
    let again = fields.flag("loop").map_err(No::Bad)?.unwrap_or(false);
    let mix = fields.flag("mix").map_err(No::Bad)?.unwrap_or(true);
    // Where both are meant, a leg that is not there misses nothing.
    has_b_leg(call, legs == Legs::B)?;
    tell(
        api,
        scope,
        call,
        Command::Play { legs, overlay: Overlay { kind, items, repeat: again, mix, length_ms } },
    )
}

/// `DELETE Call/{uuid}/Play/` and `…/Speak/`.
pub(super) fn stop(
    api: &Api,
    scope: &Scope,
    uuid: &str,
    what: OverlayKind,
) -> Result<Response, No> {
    let call = answered(api, scope, uuid)?;
    tell(api, scope, &call, Command::StopPlay { kind: what })?;
    Ok(error::plivo_no_content())
}

/// `POST Call/{uuid}/DTMF/`.
pub(super) fn send_digits(
    api: &Api,
    scope: &Scope,
    uuid: &str,
    fields: &Fields,
) -> Result<Response, No> {
    let call = answered(api, scope, uuid)?;
    let digits = digits(fields).map_err(No::Bad)?;
    let name = if fields.has("leg") { "leg" } else { "legs" };
    let legs = legs(fields, name, false).map_err(No::Bad)?;
    has_b_leg(&call, legs.has_b())?;
    tell(api, scope, &call, Command::SendDigits { legs, digits })?;
    Ok(done("digits sent"))
}

fn digits(fields: &Fields) -> Result<String, String> {
    let digits = fields.required("digits")?;
    let fine = are_keys(&digits);
    fine.then_some(digits)
        .ok_or_else(|| format!("digits must be 1 to {KEYS_MAX} of 0-9, *, #, w and W"))
}

fn legs(fields: &Fields, name: &str, both: bool) -> Result<Legs, String> {
    match fields.text(name)?.map(|word| word.to_ascii_lowercase()).as_deref() {
        None | Some("aleg") => Ok(Legs::A),
        Some("bleg") => Ok(Legs::B),
        Some("both") if both => Ok(Legs::Both),
        Some(_) => Err(format!(
            "{name} must be {}",
            if both { "aleg, bleg or both" } else { "aleg or bleg" }
        )),
    }
}

/// The B-leg's UUID where one is meant.
fn has_b_leg(call: &LiveCall, meant: bool) -> Result<Option<CallUuid>, No> {
    match (meant, call.b_leg) {
        (false, _) => Ok(None),
        (true, Some(b_leg)) => Ok(Some(b_leg)),
        (true, None) => Err(NO_B_LEG),
    }
}

/// `urls`: a list, or a text with commas between them.
fn urls(api: &Api, fields: &Fields) -> Result<Vec<DocUrl>, String> {
    let urls = fields.texts("urls")?;
    if urls.is_empty() {
        return Err("urls parameter is missing".to_owned());
    }
    if urls.len() > URLS_MAX {
        return Err(format!("urls must be at most {URLS_MAX} URLs"));
    }
    if urls.iter().any(|url| url.len() > URL_BYTES_MAX) {
        return Err(format!("urls must be URLs of at most {URL_BYTES_MAX} bytes"));
    }
    let url = |text: &String| {
        api.placing.url(text).map_err(|why| format!("urls is invalid: could not {why}"))
    };
    urls.iter().map(url).collect()
}

/// What is to be said, by the rules of `<Speak>` (`plivo-xml.md` §5.2).
pub(super) fn said(fields: &Fields) -> Result<Speak, String> {
    let text = fields.required("text")?;
    // plivo-go sends the voice as `length` (§2.11).
    let length = fields.text("length")?.filter(|length| length.parse::<f64>().is_err());
    let voice =
        fields.text("voice")?.or_else(|| length.filter(|word| element("voice", word, "a").is_ok()));
    let voice = voice.unwrap_or_else(|| "WOMAN".to_owned());
    let language = fields.text("language")?;
    let kind = fields.text("type")?.map(|kind| kind.to_ascii_lowercase());
    let mut speak = element("voice", &voice, "a")
        .map_err(|_| "voice must be WOMAN, MAN or Polly and a name")?;
    if let Some(language) = &language {
        let with = element("language", language, "a")
            .map_err(|_| "language must be a language like en-US")?;
        speak.language = with.language;
    }
    let too_long = || format!("text must be at most {TEXT_CHARS_MAX} characters");
    speak.speech = match kind.as_deref() {
        None | Some("text") => {
            Speech(vec![SpeechNode::Text(text.split_whitespace().collect::<Vec<_>>().join(" "))])
        }
        Some("ssml") => {
            let why = |why: String| {
                // That would be ours around it, which nobody wrote.
                let is_around = why.starts_with("the end tag") && why.contains("Speak>");
                let why = if is_around { "its start and end tags do not match" } else { &why };
                format!("text is invalid: {why}")
            };
            element("voice", &voice, inside_speak(&text)).map_err(why)?.speech
        }
        Some(_) => return Err("type must be text or ssml".to_owned()),
    };
    if speak.speech.0.is_empty() {
        return Err("text is invalid: it says nothing".to_owned());
    }
    if speak.speech.characters() > TEXT_CHARS_MAX {
        return Err(too_long());
    }
    Ok(speak)
}

/// What stands inside `<speak>`, whatever attributes that has, with or without an XML declaration before it; all of the text
/// where it is no such document.
fn inside_speak(text: &str) -> &str {
    let text = text.trim();
    let document = match text.strip_prefix("<?xml") {
        Some(rest) => rest.split_once("?>").map_or(text, |(_, document)| document.trim_start()),
        None => text,
    };
    let content = || {
        let rest = document.strip_prefix("<speak")?.strip_suffix("</speak>")?;
        rest.starts_with(|c: char| c == '>' || c.is_ascii_whitespace()).then_some(())?;
        // A `>` may stand in an attribute's value.
        let mut quote = None;
        let end = rest.find(|c: char| match (quote, c) {
            (None, '>') => true,
            (None, '"' | '\'') => {
                quote = Some(c);
                false
            }
            (Some(open), c) if open == c => {
                quote = None;
                false
            }
            _ => false,
        });
        rest.get(end?.saturating_add(1)..)
    };
    content().unwrap_or(text)
}

/// A `<Speak>` with this attribute and content, as a document's would be read; what is wrong with it.
fn element(attribute: &str, value: &str, content: &str) -> Result<Speak, String> {
    let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let document = format!("<Response><Speak {attribute}=\"{value}\">{content}</Speak></Response>");
    let parsed = xml::parse(document.as_bytes(), None);
    let speak =
        parsed.document.as_deref().and_then(|document| match document.elements.as_slice() {
            // Another one has closed this, and begun something else.
            [only] => match &only.kind {
                ElementKind::Speak(speak) => Some(speak.clone()),
                _ => None,
            },
            _ => None,
        });
    speak.ok_or_else(|| {
        let error = parsed.findings.iter().find(|f| f.severity == xml::ast::Severity::Error);
        error.map_or_else(
            || "it is no content of one Speak".to_owned(),
            |finding| finding.message.clone(),
        )
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};

    use super::*;
    use xml::ast::Voice;

    fn fields(body: &serde_json::Value) -> Fields {
        let json = HeaderValue::from_static("application/json");
        Fields::read(
            &HeaderMap::from_iter([(header::CONTENT_TYPE, json)]),
            body.to_string().as_bytes(),
        )
        .expect("reads")
    }

    fn speak(body: serde_json::Value) -> Result<(String, Voice, Option<String>), String> {
        said(&fields(&body)).map(|speak| (speak.speech.text(), speak.voice, speak.language))
    }

    #[test]
    fn texts_are_said_as_a_document_would() {
        use serde_json::json;
        let said = |text: &str| text.to_owned();
        assert_eq!(
            speak(json!({"text": " Hello\n you "})),
            Ok((said("Hello you"), Voice::Woman, None))
        );
        assert_eq!(
            speak(
                json!({"text": "a < b & c", "voice": "man", "language": "hi-IN", "type": "text"})
            ),
            Ok((said("a < b & c"), Voice::Man, Some("hi-IN".to_owned())))
        );
        assert_eq!(
            speak(json!({"text": "Hi", "length": "Polly.Joanna"})).map(|spoken| spoken.1),
            Ok(Voice::Polly("Joanna".to_owned())),
            "plivo-go's own"
        );
        for length in [json!("30"), json!(30), json!("anything")] {
            assert_eq!(
                speak(json!({"text": "Hi", "length": length})).map(|spoken| spoken.1),
                Ok(Voice::Woman)
            );
        }
        for ssml in [
            "<speak>One <break time=\"1s\"/> two</speak>",
            "One <break time=\"1s\"/> two",
            " <speak version='1.1' xml:lang=\"en-US\" note=\"a>b\">One <break time=\"1s\"/> two</speak>\n",
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<speak>One <break time=\"1s\"/> two</speak>",
        ] {
            assert_eq!(
                speak(json!({"text": ssml, "type": "ssml"})).map(|spoken| spoken.0),
                Ok(said("One  … two"))
            );
        }
        let long = "x".repeat(3_001);
        for (body, field) in [
            (json!({}), "text parameter is missing"),
            (json!({"text": "  "}), "text parameter is missing"),
            (json!({"text": long}), "text must"),
            (json!({"text": "a", "voice": "ROBOT"}), "voice must"),
            (json!({"text": "a", "voice": "WOMAN\" loop=\"0"}), "voice must"),
            (json!({"text": "a", "language": "english"}), "language must"),
            (json!({"text": "a", "type": "markdown"}), "type must"),
            (
                json!({"text": "<b>a", "type": "ssml"}),
                "text is invalid: its start and end tags do not match",
            ),
            (
                json!({"text": "a</b>", "type": "ssml"}),
                "text is invalid: its start and end tags do not match",
            ),
            (
                json!({"text": "<speak>hi</speak", "type": "ssml"}),
                "text is invalid: its start and end tags do not match",
            ),
            (
                json!({"text": "<b><i>a</b></i>", "type": "ssml"}),
                "text is invalid: the end tag </b> does not match <i>",
            ),
            (json!({"text": "<speaker>a</speak>", "type": "ssml"}), "text is invalid"),
            (json!({"text": "<speak note=\"a</speak>", "type": "ssml"}), "text is invalid"),
            (json!({"text": "<?xml version=\"1.0\"?>a", "type": "ssml"}), "text is invalid"),
            (json!({"text": "a</Speak><Hangup/><Speak>b", "type": "ssml"}), "text is invalid"),
            (
                json!({"text": "a<Play>https://a.example.com/x.mp3</Play>", "type": "ssml"}),
                "text is invalid",
            ),
        ] {
            let why = speak(body.clone()).expect_err("bad");
            assert!(why.starts_with(field), "{body}: {why}");
        }
    }

    #[test]
    fn digits_and_legs_are_words_of_closed_sets() {
        use serde_json::json;
        assert_eq!(digits(&fields(&json!({"digits": "1w#W*"}))), Ok("1w#W*".to_owned()));
        assert_eq!(digits(&fields(&json!({"digits": 123}))), Ok("123".to_owned()));
        for bad in [
            json!({}),
            json!({"digits": "12a"}),
            json!({"digits": "1".repeat(65)}),
            json!({"digits": "1@100"}),
        ] {
            assert!(digits(&fields(&bad)).is_err(), "{bad}");
        }
        assert_eq!(legs(&fields(&json!({"legs": "Both"})), "legs", true), Ok(Legs::Both));
        assert_eq!(legs(&fields(&json!({})), "leg", false), Ok(Legs::A));
        assert_eq!(
            legs(&fields(&json!({"leg": "both"})), "leg", false),
            Err("leg must be aleg or bleg".to_owned())
        );
        assert!(legs(&fields(&json!({"legs": "cleg"})), "legs", true).is_err());
    }

    #[test]
    fn urls_come_as_a_list_or_between_commas() {
        use serde_json::json;
        let all = ["https://a.example.com/1.mp3", "https://a.example.com/2.mp3"].map(str::to_owned);
        assert_eq!(fields(&json!({"urls": all})).texts("urls"), Ok(all.to_vec()));
        assert_eq!(
            fields(&json!({"urls": format!("{}, {},", all[0], all[1])})).texts("urls"),
            Ok(all.to_vec())
        );
        assert_eq!(fields(&json!({"urls": null})).texts("urls"), Ok(Vec::new()));
        assert!(fields(&json!({"urls": [1, {}]})).texts("urls").is_err());
    }
}
