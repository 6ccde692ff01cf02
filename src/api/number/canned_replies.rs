//! `/api/v1/canned-replies/`: texts that people of the console insert by a shortcut.

use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, RequestBody, ResponseSpec};
use super::presets;
use super::request::ApiRequest;
use super::response::{created, etag, no_content, ok, ok_with_etag, with_etag};
use super::route::{CHANGED, Route, error, handler};
use model::{AuthId, Role};
use store::{Preset, PresetKind};

const COLLECTION: &str = "/api/v1/canned-replies/";
const ITEM: &str = "/api/v1/canned-replies/{reply_id}/";
const NOT_FOUND: &str = "no such canned reply";
/// Maximum length of a shortcut.
const SHORTCUT_MAX: usize = 32;
/// Maximum length of a text in characters, which is Meta's limit for a message.
const TEXT_CHARS_MAX: usize = 4_096;
const CONFLICT: ResponseSpec = error(
    409,
    "`name_taken`: a reply has this shortcut; `too_many`: the account has 200 canned replies",
);

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(get_all),
        operation: Operation::get(
            COLLECTION,
            "cannedReplies",
            "List canned replies, in the order of their shortcuts",
        )
        .responses(&[ResponseSpec::json::<ReplyList>(200, "The replies, up to 1,000")]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(create),
        operation: Operation::post(COLLECTION, "createCannedReply", "Create a canned reply")
            .body(RequestBody::json::<NewReply>("shortcut, text; optionally account"))
            .responses(&[
                ResponseSpec::json::<ReplyView>(201, "The canned reply with its ETag"),
                CONFLICT,
            ]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(get),
        operation: Operation::get(ITEM, "cannedReply", "Retrieve a canned reply")
            .responses(&[ResponseSpec::json::<ReplyView>(200, "The canned reply with its ETag")]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(change),
        operation: Operation::patch(ITEM, "changeCannedReply", "Change a canned reply")
            .body(RequestBody::json::<ReplyChange>("shortcut, text"))
            .responses(&[
                ResponseSpec::json::<ReplyView>(200, "The changed reply with its ETag"),
                CONFLICT,
                CHANGED,
            ]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(delete),
        operation: Operation::delete(ITEM, "deleteCannedReply", "Delete a canned reply")
            .responses(&[ResponseSpec::empty(204, "Deleted")]),
    },
];

/// A canned reply.
#[derive(Serialize, ToSchema)]
#[schema(as = CannedReply, examples(json!({"id": "a87ff679-a2f3-471d-9181-a67b7542122c", "shortcut": "hello", "text": "Hello! How can we help you?", "account": "MAXXXXXXXXXXXXXXXXXX"})))]
struct ReplyView {
    #[schema(value_type = String, format = Uuid)]
    id: Uuid,
    /// The shortcut, which is typed after a slash: lower-case letters, digits, `-` and `_`.
    shortcut: String,
    text: String,
    #[schema(value_type = String)]
    account: AuthId,
}

impl From<Preset> for ReplyView {
    fn from(reply: Preset) -> Self {
        Self { id: reply.id, shortcut: reply.name, text: reply.content, account: reply.account }
    }
}

/// The canned replies.
#[derive(Serialize, ToSchema)]
#[schema(as = CannedReplies)]
struct ReplyList {
    items: Vec<ReplyView>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewCannedReply, examples(json!({"shortcut": "hello", "text": "Hello! How can we help you?"})))]
struct NewReply {
    /// 1 to 32 letters, digits, `-` and `_`, with or without the slash.
    #[schema(min_length = 1, max_length = 33)]
    shortcut: String,
    /// 1 to 4,096 characters.
    #[schema(min_length = 1, max_length = 4096)]
    text: String,
    /// A subaccount. The default is the account of the request.
    account: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = CannedReplyChange, examples(json!({"text": "Hi! How can we help you?"})))]
struct ReplyChange {
    #[schema(min_length = 1, max_length = 33)]
    shortcut: Option<String>,
    #[schema(min_length = 1, max_length = 4096)]
    text: Option<String>,
}

fn check_shortcut(shortcut: &str) -> Result<String, ApiError> {
    let shortcut = shortcut.trim();
    let shortcut = shortcut.strip_prefix('/').unwrap_or(shortcut).to_ascii_lowercase();
    let is_fine = (1..=SHORTCUT_MAX).contains(&shortcut.len())
        && shortcut.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    match is_fine {
        true => Ok(shortcut),
        false => Err(ApiError::bad_value(
            "shortcut",
            "shortcut must be 1 to 32 letters (a to z), digits, - or _",
        )),
    }
}

fn check_text(text: &str) -> Result<String, ApiError> {
    let text = text.trim();
    match (1..=TEXT_CHARS_MAX).contains(&text.chars().count()) {
        true => Ok(text.to_owned()),
        false => Err(ApiError::bad_value("text", "text must be 1 to 4,096 characters")),
    }
}

async fn find(request: &ApiRequest) -> Result<Preset, ApiError> {
    let id = request.id("reply_id", NOT_FOUND)?;
    presets::find(request, PresetKind::CannedReply, id, NOT_FOUND).await
}

async fn get_all(request: ApiRequest) -> Result<Response, ApiError> {
    let replies = presets::list(&request, PresetKind::CannedReply).await?;
    Ok(ok(&ReplyList { items: replies.into_iter().map(ReplyView::from).collect() }))
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    Ok(ok_with_etag(&ReplyView::from(find(&request).await?)))
}

async fn create(mut request: ApiRequest) -> Result<Response, ApiError> {
    let new: NewReply = request.json().await?;
    let (shortcut, text) = (check_shortcut(&new.shortcut)?, check_text(&new.text)?);
    let account = new.account.as_deref();
    let kind = PresetKind::CannedReply;
    let reply = ReplyView::from(presets::create(&request, kind, account, shortcut, text).await?);
    Ok(with_etag(created(&reply), &etag(&reply)))
}

async fn change(mut request: ApiRequest) -> Result<Response, ApiError> {
    let body: ReplyChange = request.json().await?;
    let mut reply = find(&request).await?;
    request.check_if_match(&etag(&ReplyView::from(reply.clone())))?;
    if let Some(shortcut) = body.shortcut {
        reply.name = check_shortcut(&shortcut)?;
    }
    if let Some(text) = body.text {
        reply.content = check_text(&text)?;
    }
    Ok(ok_with_etag(&ReplyView::from(presets::change(&request, reply).await?)))
}

async fn delete(request: ApiRequest) -> Result<Response, ApiError> {
    let reply = find(&request).await?;
    presets::delete(&request, &reply, NOT_FOUND).await?;
    Ok(no_content())
}
