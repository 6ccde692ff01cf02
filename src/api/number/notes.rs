//! `/api/v1/conversations/{conversation_id}/notes/`: private notes, which appear in the timeline
//! and are never sent.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, RequestBody, ResponseSpec};
use super::conversations;
use super::error::NO_DISK_SPACE;
use super::request::ApiRequest;
use super::response::{Timestamp3339, created, no_content};
use super::route::{Route, error, handler};
use engine::inbox::NoteError;
use model::Role;
use store::NOTE;

const NO_NOTE: &str = "no such note";
/// Maximum length of a note, in characters.
const TEXT_CHARS_MAX: usize = 4_096;

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(create),
        operation: Operation::post(
            "/api/v1/conversations/{conversation_id}/notes/",
            "createNote",
            "Add a private note to a conversation; the user does not get it",
        )
        .body(RequestBody::json::<NewNote>("text"))
        .responses(&[
            ResponseSpec::json::<NoteView>(201, "The note"),
            error(409, "`too_many`: the conversation has 1,000 notes"),
        ]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(delete),
        operation: Operation::delete(
            "/api/v1/conversations/{conversation_id}/notes/{note_id}/",
            "deleteNote",
            "Delete a private note; agents only their own",
        )
        .responses(&[ResponseSpec::empty(204, "Deleted")]),
    },
];

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"text": "Wants a refund. Call back on Monday."})))]
struct NewNote {
    /// The text, at most 4,096 characters.
    #[schema(min_length = 1, max_length = 4096)]
    text: String,
}

/// A private note.
#[derive(Serialize, ToSchema)]
#[schema(as = Note)]
struct NoteView {
    id: Uuid,
    text: String,
    /// `user:NAME`, or `api-key:ID`.
    sender: String,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp3339,
}

async fn create(mut request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = conversations::find(&request).await?;
    let body: NewNote = request.json().await?;
    let text = body.text.trim();
    if text.is_empty() || text.chars().count() > TEXT_CHARS_MAX {
        return Err(ApiError::bad_value("text", "text must be 1 to 4,096 characters"));
    }
    let author = &request.principal.actor.name;
    let note = request.api().inbox.notes().add(&conversation.pair, text, author).await;
    let note = note.map_err(|error| match error {
        NoteError::TooMany => ApiError::conflict("too_many", error.to_string()),
        NoteError::NoSpace(_) => NO_DISK_SPACE,
        NoteError::Store(error) => ApiError::store("store a note")(error),
    })?;
    let view = NoteView {
        id: note.id,
        text: text.to_owned(),
        sender: author.clone(),
        at: Timestamp3339(note.at),
    };
    Ok(created(&view))
}

async fn delete(request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = conversations::find(&request).await?;
    let id: Uuid = request.id("note_id", NO_NOTE)?;
    let store = request.api().store.messages();
    let found = store.get(id).await.map_err(ApiError::store("read a note"))?;
    let is_here = |conversation_id: Uuid| conversation_id == conversation.pair.conversation;
    let (_, note) = found
        .filter(|(pair, note)| is_here(pair.conversation) && note.message.kind == NOTE)
        .ok_or(ApiError::NotFound(NO_NOTE))?;
    let is_own = note.message.sender.as_ref() == Some(&request.principal.actor.name);
    if !is_own && request.principal.role < Role::Admin {
        return Err(ApiError::forbidden("agents delete only their own notes"));
    }
    let is_deleted = request.api().inbox.notes().delete(&conversation.pair, id).await;
    match is_deleted.map_err(ApiError::store("delete a note"))? {
        true => Ok(no_content()),
        false => Err(ApiError::NotFound(NO_NOTE)),
    }
}
