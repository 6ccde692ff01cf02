//! Functions shared by conferences and multi-party calls.

use axum::response::Response;

use super::super::placement::customer_url;
use super::error::PlivoError;
use super::recording::{self, ROOM_MAX_MS};
use super::request::PlivoRequest;
use super::response::no_content;
use super::speech;
use engine::call::rooms::{MemberCommand, Members};
use machine::{RecordingOrder, RoomKind, Sound, SoundItem};
use media::SoundKind;
use media::record::Format;
use xml::ast::Speak;

pub(super) const NOT_RECORDED: PlivoError = PlivoError::NotFound("it is not being recorded");

pub(super) fn already_recorded() -> PlivoError {
    PlivoError::Conflict("it is already being recorded".to_owned())
}

/// Parses the ids of members: one id, several separated by commas, or `all`.
pub(super) fn parse_members(ids: &str) -> Option<Members> {
    if ids == "all" {
        return Some(Members::All);
    }
    ids.split(',').map(|id| id.trim().parse().ok()).collect::<Option<Vec<_>>>().map(Members::These)
}

/// Builds the command to play the sound in the field `url`.
pub(super) fn play_command(request: &PlivoRequest) -> Result<MemberCommand, PlivoError> {
    let url = request.fields()?.required("url").map_err(PlivoError::BadRequest)?;
    let url = customer_url(request.api(), "url", &url).map_err(PlivoError::BadRequest)?;
    Ok(MemberCommand::Play(SoundKind::Play, vec![SoundItem::once(Sound::File { url })]))
}

/// Builds the command to speak the text in the fields of a request.
pub(super) fn speak_command(request: &PlivoRequest) -> Result<MemberCommand, PlivoError> {
    let Speak { speech, voice, language, .. } =
        speech::parse(&request.fields()?).map_err(PlivoError::BadRequest)?;
    let sound = Sound::Speak { speech, voice, language };
    Ok(MemberCommand::Play(SoundKind::Speak, vec![SoundItem::once(sound)]))
}

/// Starts the recording of a room; returns the id and the URL of the recording, or `None` if the room
/// does not exist.
pub(super) fn start_recording(
    request: &PlivoRequest,
    kind: RoomKind,
    name: &str,
) -> Result<Option<(String, String)>, PlivoError> {
    let api = request.api();
    let (order, callback) =
        recording::parse_order(api, &request.fields()?).map_err(PlivoError::BadRequest)?;
    let order = RecordingOrder { stereo: false, max_ms: ROOM_MAX_MS, ..order };
    let (id, format) = (order.id.unwrap_or_default(), Format::of(order.mp3));
    match api.rooms.begin_recording(&request.scope, kind, name, order, callback) {
        Some(true) => {
            let url = api.recordings.url(id, format.as_str());
            Ok(Some((id.as_hyphenated().to_string(), url)))
        }
        Some(false) => Err(already_recorded()),
        None => Ok(None),
    }
}

/// Stops the recording of a room; `None` if the room does not exist.
pub(super) fn stop_recording(
    request: &PlivoRequest,
    kind: RoomKind,
    name: &str,
) -> Result<Option<Response>, PlivoError> {
    match request.api().rooms.end_recording(&request.scope, kind, name) {
        Some(true) => Ok(Some(no_content())),
        Some(false) => Err(NOT_RECORDED),
        None => Ok(None),
    }
}
