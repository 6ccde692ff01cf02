//! Commands for a live call: transfer, play, speak, send digits.
//!
//! A request is validated and passed to the call. The response does not wait for the effect, which
//! the event log of the call shows.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::fields::Fields;
use super::super::placement::URL_BYTES_MAX;
use super::super::routes::{Field, FieldKind, Operation, RequestBody, ResponseSpec};
use super::super::{Api, LiveCall, LiveStatus};
use super::error::{CALL_NOT_FOUND, PlivoError};
use super::field_values::{KEYS_MAX, LEGS, SPEECH_FIELDS, is_keys, target};
use super::request::PlivoRequest;
use super::response::{accepted, no_content};
use super::route::{Route, handler, object};
use super::speech;
use machine::{Command, Legs, Overlay, OverlayKind, Sound, SoundItem};
use model::CallUuid;
use xml::ast::{DocUrl, Speak};

const URLS_MAX: usize = 20;
/// Maximum `length` of sounds, in seconds.
const LENGTH_MAX: u64 = 3_600;

const PLAY: &str = "/v1/Account/{auth_id}/Call/{call_uuid}/Play/";
const SPEAK: &str = "/v1/Account/{auth_id}/Call/{call_uuid}/Speak/";

const ASIDE_FIELDS: &[Field] = &[
    Field::optional("legs", LEGS, "Default aleg"),
    Field::optional("loop", FieldKind::Flag, "Default false"),
    Field::optional(
        "mix",
        FieldKind::Flag,
        "true: over the audio of the document (default); false: instead of it",
    ),
];
const COMMAND_ACCEPTED: &[ResponseSpec] =
    &[object::<Accepted>(202, "The command is passed to the call")];
const STOP_ACCEPTED: &[ResponseSpec] =
    &[ResponseSpec::empty(204, "Stopped, if something was playing")];

pub(super) const ROUTES: &[Route] = &[
    Route {
        handler: handler!(transfer),
        operation: Operation::post(
            "/v1/Account/{auth_id}/Call/{call_uuid}/",
            "transferCall",
            "Transfer a call to another document; the running element stops",
        )
        .body(RequestBody::fields(
            "legs (aleg, bleg or both), aleg_url, aleg_method, bleg_url, bleg_method. A form is \
             accepted too",
            &[&[
                Field::optional("legs", LEGS, "Default aleg"),
                Field::optional(
                    "aleg_url",
                    FieldKind::Url,
                    "URL of the document for the A-leg; required if that leg is transferred",
                )
                .in_example(),
                Field::optional("aleg_method", FieldKind::Method, "Default POST"),
                Field::optional("bleg_url", FieldKind::Url, "The same for the B-leg"),
                Field::optional("bleg_method", FieldKind::Method, "Default POST"),
            ]],
        ))
        .responses(&[object::<Transferred>(202, "The document is being requested")]),
    },
    Route {
        handler: handler!(play),
        operation: Operation::post(
            PLAY,
            "playInCall",
            "Play sounds in a call, over its audio or instead of it; replaces sounds that play so",
        )
        .body(RequestBody::fields(
            "urls (a list, or separated by commas), length, legs, loop, mix. A form is accepted too",
            &[
                &[
                    Field::required("urls", FieldKind::Urls, "URLs of sounds, at most 20"),
                    Field::optional("length", FieldKind::Integer(1, 3_600), "Seconds"),
                ],
                ASIDE_FIELDS,
            ],
        ))
        .responses(COMMAND_ACCEPTED),
    },
    Route {
        handler: handler!(stop_playing),
        operation: Operation::delete(PLAY, "stopPlayingInCall", "Stop playing sounds in a call")
            .responses(STOP_ACCEPTED),
    },
    Route {
        handler: handler!(speak),
        operation: Operation::post(
            SPEAK,
            "speakInCall",
            "Speak a text in a call, over its audio or instead of it; replaces a text that is spoken so",
        )
        .body(RequestBody::fields(
            "text, type (text or ssml), voice, language, legs, loop, mix. A form is accepted too",
            &[SPEECH_FIELDS, ASIDE_FIELDS],
        ))
        .responses(COMMAND_ACCEPTED),
    },
    Route {
        handler: handler!(stop_speaking),
        operation: Operation::delete(SPEAK, "stopSpeakingInCall", "Stop speaking in a call")
            .responses(STOP_ACCEPTED),
    },
    Route {
        handler: handler!(send_digits),
        operation: Operation::post(
            "/v1/Account/{auth_id}/Call/{call_uuid}/DTMF/",
            "sendDigits",
            "Send digits, after those that are already being sent",
        )
        .body(RequestBody::fields(
            "digits (0-9, *, #; w pauses half a second, W a second), leg. A form is accepted too",
            &[&[
                Field::required("digits", FieldKind::Text(64), "0-9, *, #, w and W"),
                Field::optional(
                    "leg",
                    FieldKind::OneOf(&["aleg", "bleg"]),
                    "Default aleg; the name legs is accepted too",
                ),
                Field::optional("legs", FieldKind::OneOf(&["aleg", "bleg"]), "The same as leg"),
            ]],
        ))
        .responses(COMMAND_ACCEPTED),
    },
];

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoMessage)]
struct Accepted {
    message: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = PlivoTransfer)]
struct Transferred {
    message: &'static str,
    #[schema(value_type = Vec<String>)]
    call_uuids: Vec<CallUuid>,
}

/// Returns the answered call in the path.
pub(super) fn answered_call(request: &PlivoRequest) -> Result<LiveCall, PlivoError> {
    let uuid: CallUuid = request.id("call_uuid", CALL_NOT_FOUND)?;
    let call = request.api().live.get(&request.scope, uuid);
    call.filter(|call| call.status == LiveStatus::InProgress).ok_or(CALL_NOT_FOUND)
}

/// Passes a command to a call.
pub(super) fn command(
    request: &PlivoRequest,
    call: &LiveCall,
    command: Command,
) -> Result<(), PlivoError> {
    Ok(request.api().live.command(&request.scope, call.call, command)?)
}

async fn transfer(request: PlivoRequest) -> Result<Response, PlivoError> {
    let (api, fields) = (request.api(), request.fields()?);
    let call = answered_call(&request)?;
    let legs = parse_legs(&fields, "legs", true).map_err(PlivoError::BadRequest)?;
    let target = |name: &str| {
        let target = target(api, &fields, name).map_err(PlivoError::BadRequest)?;
        let missing = || PlivoError::BadRequest(format!("{name}_url parameter is missing"));
        target.ok_or_else(missing)
    };
    let aleg = legs.has_a().then(|| target("aleg")).transpose()?;
    let bleg = legs.has_b().then(|| target("bleg")).transpose()?;
    let b_leg = b_leg(&call, legs.has_b())?;
    command(&request, &call, Command::Transfer { aleg, bleg })?;
    let a_leg = legs.has_a().then_some(call.call);
    let call_uuids = a_leg.into_iter().chain(b_leg).collect();
    // The spelling is Plivo's.
    Ok(accepted(&Transferred { message: "call transfered", call_uuids }))
}

async fn play(request: PlivoRequest) -> Result<Response, PlivoError> {
    let fields = request.fields()?;
    let call = answered_call(&request)?;
    let urls = parse_urls(request.api(), &fields).map_err(PlivoError::BadRequest)?;
    let items = urls.into_iter().map(|url| SoundItem::once(Sound::File { url })).collect();
    let length = fields.integer("length", 1, LENGTH_MAX).map_err(PlivoError::BadRequest)?;
    let length_ms = length.map(|seconds| seconds.saturating_mul(1_000));
    play_aside(&request, &call, &fields, OverlayKind::Play, items, length_ms)?;
    Ok(accepted(&Accepted { message: "play started" }))
}

async fn speak(request: PlivoRequest) -> Result<Response, PlivoError> {
    let fields = request.fields()?;
    let call = answered_call(&request)?;
    let Speak { speech, voice, language, .. } =
        speech::parse(&fields).map_err(PlivoError::BadRequest)?;
    let items = vec![SoundItem::once(Sound::Speak { speech, voice, language })];
    play_aside(&request, &call, &fields, OverlayKind::Speak, items, None)?;
    Ok(accepted(&Accepted { message: "speak started" }))
}

/// Plays sounds on the legs given in the fields.
fn play_aside(
    request: &PlivoRequest,
    call: &LiveCall,
    fields: &Fields,
    kind: OverlayKind,
    items: Vec<SoundItem>,
    length_ms: Option<u64>,
) -> Result<(), PlivoError> {
    let legs = parse_legs(fields, "legs", true).map_err(PlivoError::BadRequest)?;
    let repeat = fields.flag("loop").map_err(PlivoError::BadRequest)?.unwrap_or(false);
    let mix = fields.flag("mix").map_err(PlivoError::BadRequest)?.unwrap_or(true);
    // A request for both legs also succeeds without a B-leg.
    b_leg(call, legs == Legs::B)?;
    let overlay = Overlay { kind, items, repeat, mix, length_ms };
    command(request, call, Command::Play { legs, overlay })
}

async fn stop_playing(request: PlivoRequest) -> Result<Response, PlivoError> {
    stop(&request, OverlayKind::Play)
}

async fn stop_speaking(request: PlivoRequest) -> Result<Response, PlivoError> {
    stop(&request, OverlayKind::Speak)
}

fn stop(request: &PlivoRequest, kind: OverlayKind) -> Result<Response, PlivoError> {
    let call = answered_call(request)?;
    command(request, &call, Command::StopPlay { kind })?;
    Ok(no_content())
}

async fn send_digits(request: PlivoRequest) -> Result<Response, PlivoError> {
    let fields = request.fields()?;
    let call = answered_call(&request)?;
    let digits = parse_digits(&fields).map_err(PlivoError::BadRequest)?;
    let name = if fields.has("leg") { "leg" } else { "legs" };
    let legs = parse_legs(&fields, name, false).map_err(PlivoError::BadRequest)?;
    b_leg(&call, legs.has_b())?;
    command(&request, &call, Command::SendDigits { legs, digits })?;
    Ok(accepted(&Accepted { message: "digits sent" }))
}

/// Parses `digits`.
fn parse_digits(fields: &Fields) -> Result<String, String> {
    let digits = fields.required("digits")?;
    let is_valid = is_keys(&digits);
    is_valid
        .then_some(digits)
        .ok_or_else(|| format!("digits must be 1 to {KEYS_MAX} of 0-9, *, #, w and W"))
}

/// Parses the legs to which a command applies. The default is the A-leg.
fn parse_legs(fields: &Fields, name: &str, accepts_both: bool) -> Result<Legs, String> {
    match fields.text(name)?.map(|word| word.to_ascii_lowercase()).as_deref() {
        None | Some("aleg") => Ok(Legs::A),
        Some("bleg") => Ok(Legs::B),
        Some("both") if accepts_both => Ok(Legs::Both),
        Some(_) => Err(format!(
            "{name} must be {}",
            if accepts_both { "aleg, bleg or both" } else { "aleg or bleg" }
        )),
    }
}

/// Returns the UUID of the B-leg if the request applies to that leg.
fn b_leg(call: &LiveCall, is_required: bool) -> Result<Option<CallUuid>, PlivoError> {
    match (is_required, call.b_leg) {
        (false, _) => Ok(None),
        (true, Some(b_leg)) => Ok(Some(b_leg)),
        (true, None) => Err(PlivoError::NotFound("the call has no B leg")),
    }
}

/// Parses `urls`: a list, or a string of URLs separated by commas.
fn parse_urls(api: &Api, fields: &Fields) -> Result<Vec<DocUrl>, String> {
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
    let url =
        |text: &String| api.placer.check_url(text).map_err(|why| format!("urls is invalid: {why}"));
    urls.iter().map(url).collect()
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn parses_digits_and_legs() {
        use serde_json::json;
        assert_eq!(
            parse_digits(&Fields::of_json(&json!({"digits": "1w#W*"}))),
            Ok("1w#W*".to_owned())
        );
        assert_eq!(parse_digits(&Fields::of_json(&json!({"digits": 123}))), Ok("123".to_owned()));
        for bad in [
            json!({}),
            json!({"digits": "12a"}),
            json!({"digits": "1".repeat(65)}),
            json!({"digits": "1@100"}),
        ] {
            assert!(parse_digits(&Fields::of_json(&bad)).is_err(), "{bad}");
        }
        assert_eq!(
            parse_legs(&Fields::of_json(&json!({"legs": "Both"})), "legs", true),
            Ok(Legs::Both)
        );
        assert_eq!(parse_legs(&Fields::of_json(&json!({})), "leg", false), Ok(Legs::A));
        assert_eq!(
            parse_legs(&Fields::of_json(&json!({"leg": "both"})), "leg", false),
            Err("leg must be aleg or bleg".to_owned())
        );
        assert!(parse_legs(&Fields::of_json(&json!({"legs": "cleg"})), "legs", true).is_err());
    }

    #[test]
    fn parses_urls_in_a_list_or_separated_by_commas() {
        use serde_json::json;
        let all = ["https://a.example.com/1.mp3", "https://a.example.com/2.mp3"].map(str::to_owned);
        assert_eq!(Fields::of_json(&json!({"urls": all})).texts("urls"), Ok(all.to_vec()));
        assert_eq!(
            Fields::of_json(&json!({"urls": format!("{}, {},", all[0], all[1])})).texts("urls"),
            Ok(all.to_vec())
        );
        assert_eq!(Fields::of_json(&json!({"urls": null})).texts("urls"), Ok(Vec::new()));
        assert!(Fields::of_json(&json!({"urls": [1, {}]})).texts("urls").is_err());
    }
}
