//! `POST /api/v1/conversations/{conversation_id}/media/`: uploads a file for a message to Meta. The body
//! is the file and `Content-Type` its type. The id in the response is used in a message.

use axum::response::Response;
use http::header;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::body::BodyError;
use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, RequestBody, ResponseSpec};
use super::conversations;
use super::error::conversation_without_number;
use super::request::ApiRequest;
use super::response::created;
use super::route::{META_FAILED, Route, error, handler};
use engine::inbox::{FileKind, UploadError};
use model::{Role, is_line};

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Agent,
    handler: handler!(upload),
    operation: Operation::post(
        "/api/v1/conversations/{conversation_id}/media/",
        "uploadMedia",
        "Upload a file for a message of the conversation",
    )
    .query(&[QueryParameter::text("filename", "Name of the file, 1 to 240 characters")])
    .body(RequestBody::raw(
        "*/*",
        "The file, with its Content-Type: image/jpeg and image/png (5 MiB), image/webp as a sticker \
         (500 KiB), audio/aac, audio/amr, audio/mpeg, audio/mp4, audio/ogg, video/mp4 and \
         video/3gpp (16 MiB), text/plain, application/pdf and documents of Word, Excel and \
         PowerPoint (100 MiB)",
    ))
    .responses(&[
        ResponseSpec::json::<UploadedMedia>(201, "The file is at Meta for 30 days"),
        error(408, "The file took longer than 120 s"),
        error(
            409,
            "`disconnected`: the phone number must be reconnected first; `no_number`: it is no \
             longer connected to this node, or belongs to another account now",
        ),
        error(413, "The file is larger than WhatsApp accepts for its type"),
        error(415, "WhatsApp does not accept files of this type, or the body is compressed"),
        META_FAILED,
        error(503, "The file could not be stored on its way to Meta"),
    ]),
}];

/// A file that was uploaded to Meta.
#[derive(Serialize, ToSchema)]
struct UploadedMedia {
    /// Meta's id of the file, for a message: `{"type": "image", "image": {"id": …}}`.
    id: String,
    /// The type of message that can hold the file.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    kind: &'static str,
    #[serde(rename = "mimeType")]
    mime_type: &'static str,
    filename: String,
    bytes: u64,
}

/// Maximum length of a file name, in characters.
const NAME_CHARS_MAX: usize = 240;
/// Value of `Retry-After` if too many files are being uploaded, in seconds.
const RETRY_AFTER: u64 = 5;

async fn upload(mut request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = conversations::find(&request).await?;
    let filename = parse_filename(request.query("filename"))?;
    let length = request.file_length()?;
    let headers = &request.head.headers;
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = FileKind::of(content_type).ok_or(UNSUPPORTED_TYPE)?;
    if length.is_some_and(|length| length > kind.bytes_max) {
        return Err(too_large(kind));
    }
    let body = request.body().into_data_stream();
    let uploaded = request.api().inbox.uploads().upload(&conversation, kind, &filename, body).await;
    let (id, bytes) = uploaded.map_err(|why| match why {
        UploadError::NoNumber => request
            .disconnected(&conversation.pair.number)
            .unwrap_or_else(|| upload_error(why, kind)),
        why => upload_error(why, kind),
    })?;
    Ok(created(&UploadedMedia { id, kind: kind.kind, mime_type: kind.mime, filename, bytes }))
}

/// Parses the name of a file. It is shown to users and never used as a path.
fn parse_filename(given: Option<&str>) -> Result<String, ApiError> {
    let name = given.map(str::trim).filter(|name| !name.is_empty()).unwrap_or("file");
    match is_line(name, 0..=NAME_CHARS_MAX) && !name.contains(['/', '\\']) {
        true => Ok(name.to_owned()),
        false => {
            let message = "filename must be 1 to 240 characters without slashes";
            Err(ApiError::bad_value("filename", message))
        }
    }
}

const UNSUPPORTED_TYPE: ApiError = ApiError::UnsupportedMediaType {
    code: "unsupported_type",
    message: "the body must be the file itself, with a Content-Type that WhatsApp accepts: \
        image/jpeg, image/png, image/webp, audio/aac, audio/amr, audio/mpeg, audio/mp4, audio/ogg, video/mp4, video/3gpp, text/plain, \
        application/pdf, or a document of Word, Excel or PowerPoint",
    field: Some("Content-Type"),
};

fn too_large(kind: &FileKind) -> ApiError {
    let (mime, limit) = (kind.mime, kind.bytes_max >> 10);
    ApiError::PayloadTooLarge(
        format!("the file is too large: WhatsApp accepts at most {limit} KiB of {mime}").into(),
    )
}

fn upload_error(why: UploadError, kind: &FileKind) -> ApiError {
    match why {
        UploadError::NoNumber => conversation_without_number(),
        UploadError::TooMany => ApiError::TooManyRequests {
            code: "too_many_requests",
            message: "too many files are being uploaded: try again in a moment".into(),
            field: None,
            retry_after: Some(RETRY_AFTER),
        },
        UploadError::TooLarge => too_large(kind),
        UploadError::Empty => {
            ApiError::bad_body("the file is empty: the body of the request is the file itself")
        }
        UploadError::Broken => BodyError::Unreadable.into(),
        UploadError::Slow => ApiError::RequestTimeout("the file took longer than 120 s"),
        UploadError::Disk(error) => {
            tracing::warn!(%error, "uploaded file could not be stored");
            match error.kind() {
                std::io::ErrorKind::StorageFull => ApiError::Unavailable {
                    code: "not_stored",
                    message: "there is no space for the file now: try again later",
                },
                _ => ApiError::Internal,
            }
        }
        UploadError::Meta(outcome) => outcome.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_file_names_and_refuses_paths() {
        assert_eq!(
            (parse_filename(None).unwrap(), parse_filename(Some(" ")).unwrap()),
            ("file".to_owned(), "file".to_owned())
        );
        assert_eq!(parse_filename(Some("Übersicht 2026.pdf")).unwrap(), "Übersicht 2026.pdf");
        for wrong in ["a/b", "..\\b", "a\nb", &"x".repeat(241)] {
            assert!(
                matches!(parse_filename(Some(wrong)), Err(ApiError::BadRequest { .. })),
                "{wrong}"
            );
        }
    }
}
