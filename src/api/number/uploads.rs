//! `POST /api/v1/conversations/{conversation_id}/media/`: a file that a message is to hold, handed to Meta. The body is the
//! file itself, `Content-Type` its type; what comes back stands in the message (`messages`).

use axum::response::Response;
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error;
use super::super::routes::{Answer, Body, Content, Kind, Query, Route, of};
use super::super::with_header;
use super::ask::{self, Asked, Fault};
use super::{conversations, internal, numbers};
use crate::inbox::{FileKind, NotUploaded};

const fn no(status: u16, what: &'static str) -> Answer {
    Answer { status, what, content: Content::Json(of::<error::OurBody<'static>>) }
}

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "POST",
    path: "/api/v1/conversations/{conversation_id}/media/",
    id: "uploadMedia",
    summary: "Uploads a file for a message of this conversation: what comes back names it there",
    query: &[Query {
        name: "filename",
        what: "How it is called; 1 to 240 characters",
        kind: Kind::Text,
    }],
    body: Some(Body {
        content_type: "*/*",
        what: "The file, with its own Content-Type: image/jpeg and image/png (5 MiB), image/webp as a sticker (500 KiB), \
            audio/aac, audio/amr, audio/mpeg, audio/mp4, audio/ogg, video/mp4 and video/3gpp (16 MiB), text/plain, \
            application/pdf and documents of Word, Excel and PowerPoint (100 MiB)",
    }),
    answers: &[
        Answer {
            status: 201,
            what: "Meta has it, for 30 days",
            content: Content::Json(of::<Uploaded>),
        },
        no(408, "The file took longer than 120 s"),
        no(
            409,
            "`disconnected`: its number is to be reconnected first; `no_number`: it is not there any more",
        ),
        no(413, "The file is larger than WhatsApp takes of its type"),
        no(415, "WhatsApp does not take files of this type, or the body is compressed"),
        no(502, "Meta refused or failed"),
        no(503, "It could not be kept while it is on its way"),
    ],
}];

/// A file that Meta has.
#[derive(Serialize, ToSchema)]
#[schema(as = UploadedMedia)]
struct Uploaded {
    /// Meta's id of it: `{"type": "image", "image": {"id": …}}`.
    id: String,
    /// The type of the message that holds it.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    kind: &'static str,
    #[serde(rename = "mimeType")]
    mime_type: &'static str,
    filename: String,
    bytes: u64,
}

/// Characters of a file's name.
const NAME_MAX: usize = 240;

pub(super) async fn upload(mut asked: Asked, id: &str) -> Result<Response, Fault> {
    let conversation = conversations::found(&asked, id).await?;
    let filename = name(asked.value("filename"))?;
    let headers = &asked.head.headers;
    if headers.get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return Err(refuse(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "compressed",
            "compressed request bodies are not taken",
            None,
        ));
    }
    let content_type =
        headers.get(header::CONTENT_TYPE).and_then(|of| of.to_str().ok()).unwrap_or_default();
    let kind = FileKind::of(content_type).ok_or_else(wrong_type)?;
    // Said before it comes, where its length is told.
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > kind.bytes_max) {
        return Err(too_large(kind));
    }
    let body = asked.body().into_data_stream();
    let uploaded = asked.api().inbox.upload(&conversation, kind, &filename, body).await;
    let refused = |why| match why {
        NotUploaded::NoNumber => ask::out_of_service(&asked, &conversation.pair.number)
            .unwrap_or_else(|| not_uploaded(why, kind)),
        why => not_uploaded(why, kind),
    };
    let (media, bytes) = uploaded.map_err(refused)?;
    let uploaded = Uploaded { id: media, kind: kind.kind, mime_type: kind.mime, filename, bytes };
    Ok(error::body(StatusCode::CREATED, &uploaded))
}

/// A file's name, which is shown and never a path.
fn name(given: Option<&str>) -> Result<String, Fault> {
    let name = given.map(str::trim).filter(|name| !name.is_empty()).unwrap_or("file");
    let fits = name.chars().count() <= NAME_MAX
        && !name.chars().any(|c| c.is_control() || c == '/' || c == '\\');
    match fits {
        true => Ok(name.to_owned()),
        false => {
            Err(ask::bad("filename", "filename has 1 to 240 characters, and no slash among them"))
        }
    }
}

fn refuse(status: StatusCode, code: &str, message: &str, field: Option<&str>) -> Fault {
    Box::new(error::json(status, code, message, field))
}

fn wrong_type() -> Fault {
    let why = "WhatsApp does not take files of this Content-Type: image/jpeg, image/png, image/webp, audio/aac, audio/amr, \
        audio/mpeg, audio/mp4, audio/ogg, video/mp4, video/3gpp, text/plain, application/pdf, or a document of Word, Excel \
        or PowerPoint";
    refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_type", why, Some("Content-Type"))
}

fn too_large(kind: &FileKind) -> Fault {
    let why = format!(
        "the file is too large: of {}, WhatsApp takes {} KiB at most",
        kind.mime,
        kind.bytes_max >> 10
    );
    refuse(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &why, None)
}

fn not_uploaded(why: NotUploaded, kind: &FileKind) -> Fault {
    match why {
        NotUploaded::NoNumber => ask::conflict("no_number", "its number is not there any more"),
        NotUploaded::TooMany => {
            let why = "too many files are on their way: try again in a moment";
            let answer = error::json(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", why, None);
            Box::new(with_header(answer, header::RETRY_AFTER, "5"))
        }
        NotUploaded::TooLarge => too_large(kind),
        NotUploaded::Empty => refuse(
            StatusCode::BAD_REQUEST,
            "bad_value",
            "the file is empty: the body is the file itself",
            None,
        ),
        NotUploaded::Broken => {
            refuse(StatusCode::BAD_REQUEST, "bad_body", "the request body can't be read", None)
        }
        NotUploaded::Slow => {
            refuse(StatusCode::REQUEST_TIMEOUT, "slow", "the file took longer than 120 s", None)
        }
        NotUploaded::Disk(error) => {
            tracing::warn!(%error, "could not keep a file that is on its way to Meta");
            match error.kind() {
                std::io::ErrorKind::StorageFull => {
                    let why = "there is no room for the file now: try again later";
                    let no = error::json(StatusCode::SERVICE_UNAVAILABLE, "not_stored", why, None);
                    Box::new(error::in_a_moment(no))
                }
                _ => Box::new(internal()),
            }
        }
        NotUploaded::Meta(outcome) => numbers::refused(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_shown_and_no_path() {
        assert_eq!(
            (name(None).unwrap(), name(Some(" ")).unwrap()),
            ("file".to_owned(), "file".to_owned())
        );
        assert_eq!(name(Some("Übersicht 2026.pdf")).unwrap(), "Übersicht 2026.pdf");
        for wrong in ["a/b", "..\\b", "a\nb", &"x".repeat(241)] {
            assert_eq!(name(Some(wrong)).unwrap_err().status(), StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}
