//! `/api/v1/voices/`: the languages and voices that documents may use, and samples of them.

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::header;
use serde::Deserialize;
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, RequestBody, ResponseSpec};
use super::super::with_header;
use super::models::{IF_SHARED, SHARED};
use super::request::ApiRequest;
use super::response::ok;
use super::route::{Route, error, handler};
use machine::Sound;
use model::Role;
use speech::catalogue::Catalogue;
use speech::model_manager::SampleError;
use xml::ast::{Speech, SpeechNode, Voice};

/// Maximum length of the text of a sample, in characters.
pub const SAMPLE_CHARS_MAX: usize = 300;
/// Value of `Retry-After` if too many samples are being made, in seconds.
const RETRY_AFTER: u64 = 3;

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(list),
        operation: Operation::get(
            "/api/v1/voices/",
            "voices",
            "List the languages and voices that documents may use, and the engine that speaks them",
        )
        .query(&[QueryParameter::text("language", "Only this language: en, or en-GB")])
        .responses(&[ResponseSpec::json::<Catalogue>(200, "Languages and voices")]),
    },
    Route {
        role: Role::Owner,
        handler: handler!(speak_sample),
        operation: Operation::post(
            "/api/v1/voices/sample/",
            "speakSample",
            "Hear a voice: speaks a text as in a call. For an owner of the node's only main account, \
             20 times a minute. The header X-Offhook-Voice names the engine and its voice",
        )
        .body(RequestBody::json::<SampleText>("The text and the voice"))
        .responses(&[
            ResponseSpec::raw(200, "A WAV file", &["audio/wav"]),
            SHARED,
            error(422, "`not_spoken`: no engine could speak the text"),
        ]),
    },
];

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = VoiceSample, examples(json!({"text": "Hello", "voice": "WOMAN", "language": "en-US"})))]
struct SampleText {
    /// At most 300 characters.
    #[schema(min_length = 1, max_length = 300)]
    text: String,
    /// The voice, as in the list of voices.
    voice: String,
    /// The language of `WOMAN` and `MAN`.
    #[serde(default)]
    language: Option<String>,
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let voices = (*request.api().models.voices()).clone();
    Ok(ok(&match request.query_text("language") {
        Some(language) => voices.filter_language(language),
        None => voices,
    }))
}

async fn speak_sample(mut request: ApiRequest) -> Result<Response, ApiError> {
    request.check_operator(IF_SHARED)?;
    let SampleText { text, voice, language } = request.json().await?;
    let sound = parse_sample(&text, &voice, language)?;
    request.state.rate_limits.record_sample(&request.principal.actor.name)?;
    let sample = request.api().models.speak_sample(&sound).await.map_err(|why| match why {
        SampleError::Busy => ApiError::TooManyRequests {
            code: "too_many_requests",
            message: why.to_string().into(),
            field: None,
            retry_after: Some(RETRY_AFTER),
        },
        SampleError::Timeout | SampleError::Failed(_) => {
            ApiError::rule("not_spoken", format!("the text could not be spoken: {why}"), None)
        }
    })?;
    let voices: Vec<String> = sample.voices.iter().map(ToString::to_string).collect();
    let response = ([(header::CONTENT_TYPE, "audio/wav")], Body::from(sample.wav)).into_response();
    Ok(with_header(response, http::HeaderName::from_static("x-offhook-voice"), &voices.join(", ")))
}

fn parse_sample(text: &str, voice: &str, language: Option<String>) -> Result<Sound, ApiError> {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if !(1..=SAMPLE_CHARS_MAX).contains(&text.chars().count()) {
        return Err(ApiError::bad_value("text", "text must have 1 to 300 characters"));
    }
    let polly = || voice.strip_prefix("Polly.").filter(|name| name.split('-').all(is_word));
    let voice = match (voice, polly()) {
        ("WOMAN", _) => Voice::Woman,
        ("MAN", _) => Voice::Man,
        (_, Some(name)) => Voice::Polly(name.to_owned()),
        (_, None) => {
            return Err(ApiError::bad_value("voice", "voice must be WOMAN, MAN or Polly.NAME"));
        }
    };
    // A Polly voice has a language of its own.
    let language = language.filter(|_| !matches!(voice, Voice::Polly(_)));
    if language.as_deref().is_some_and(|tag| !tag.split('-').all(is_word)) {
        return Err(ApiError::bad_value("language", "language must be a language like en-US"));
    }
    Ok(Sound::Speak { speech: Speech(vec![SpeechNode::Text(text)]), voice, language })
}

fn is_word(word: &str) -> bool {
    (1..=40).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric())
}
