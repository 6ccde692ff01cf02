//! `/api/v1/notifications/`: messages to the people of an account. They can be marked as read
//! individually or all at once.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, ResponseSpec};
use super::request::{ApiRequest, parse_position, position};
use super::response::{Page, Timestamp3339, ok};
use super::route::{CURSOR, LIMIT, NOT_FOUND, Route, handler};
use engine::feed::{Audience, FeedChange};
use model::{CallUuid, NotificationTopic, Role, Timestamp};
use store::{NoticeFilter, NoticeRow};

const NO_NOTIFICATION: &str = "no such notification";
const UNREAD: ResponseSpec =
    ResponseSpec::json::<UnreadNotifications>(200, "The number of unread notifications");

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(list),
        operation: Operation::get(
            "/api/v1/notifications/",
            "notifications",
            "List notifications, newest first, with the number of unread ones",
        )
        .query(&[
            QueryParameter::one_of(
                "type",
                NotificationTopic::WORDS,
                "Only notifications of this type",
            ),
            QueryParameter::flag("unread", "true: only unread notifications"),
            LIMIT,
            CURSOR,
        ])
        .responses(&[ResponseSpec::json::<NotificationList>(200, "A page of notifications")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(read),
        operation: Operation::post(
            "/api/v1/notifications/{notification_id}/read/",
            "readNotification",
            "Mark a notification as read",
        )
        .responses(&[UNREAD, NOT_FOUND]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(read_all),
        operation: Operation::post(
            "/api/v1/notifications/read-all/",
            "readAllNotifications",
            "Mark all notifications as read",
        )
        .responses(&[UNREAD]),
    },
];

/// A page of notifications.
#[derive(Serialize, ToSchema)]
#[schema(as = Notifications)]
struct NotificationList {
    items: Vec<NotificationView>,
    next: Option<String>,
    /// The number of unread notifications of all types, on all pages.
    unread: u64,
}

/// A notification.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Notification, examples(json!({"id": "0d2c1a52-13b5-4b7e-8a3c-5b7f9b0c6e11", "type": "message", "text": "Asha: Where is my order?", "number": "918035737458", "conversation": "5c0e6a1d-8a0e-5a53-9f2d-0c4d3b2a1f60", "callUuid": null, "createdAt": "2026-11-21T22:50:00.000Z", "read": false, "readAt": null})))]
struct NotificationView {
    id: Uuid,
    #[serde(rename = "type")]
    topic: &'static str,
    text: String,
    number: Option<String>,
    /// The conversation that the notification is about.
    conversation: Option<Uuid>,
    #[schema(value_type = Option<String>, format = Uuid)]
    call_uuid: Option<CallUuid>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
    read: bool,
    #[schema(value_type = Option<String>, format = DateTime)]
    read_at: Option<Timestamp3339>,
}

/// The number of unread notifications.
#[derive(Serialize, ToSchema)]
#[schema(as = NotificationsLeft)]
struct UnreadNotifications {
    unread: u64,
}

impl From<NoticeRow> for NotificationView {
    fn from(row: NoticeRow) -> Self {
        Self {
            id: row.id,
            topic: row.topic.as_str(),
            text: row.text,
            number: row.number,
            conversation: row.conversation,
            call_uuid: row.call,
            created_at: Timestamp3339(row.created),
            read: row.read.is_some(),
            read_at: row.read.map(Timestamp3339),
        }
    }
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    let limit = request.limit()?;
    let topic = match request.query_text("type") {
        None => None,
        Some(word) => Some(NotificationTopic::parse(word).ok_or_else(|| {
            let words = NotificationTopic::WORDS.join(", ");
            ApiError::bad_value("type", format!("type must be one of {words}"))
        })?),
    };
    let read = request.query_flag("unread")?.map(|unread| !unread);
    let filter = NoticeFilter { topic, read, before: request.cursor(parse_cursor)? };
    // The latest notification may still be on its way to the store.
    api.store.flush().await;
    let failed = ApiError::store("list notifications");
    let rows = api.store.notifications().list(scope, &filter, limit + 1).await.map_err(&failed)?;
    let unread = api.store.notifications().count_unread(scope).await.map_err(&failed)?;
    let page = Page::new(rows, limit, |row| cursor(row.created, row.id));
    let items = page.items.into_iter().map(NotificationView::from).collect();
    Ok(ok(&NotificationList { items, next: request.next_cursor(page.next), unread }))
}

/// The cursor of a notification. Its letter distinguishes it from cursors of other lists.
fn cursor(at: Timestamp, id: Uuid) -> String {
    format!("n{}", position(at, id))
}

fn parse_cursor(text: &str) -> Option<(Timestamp, Uuid)> {
    parse_position(text.strip_prefix('n')?)
}

async fn read(request: ApiRequest) -> Result<Response, ApiError> {
    let (api, scope) = (request.api(), request.scope());
    let id: Uuid = request.id("notification_id", NO_NOTIFICATION)?;
    api.store.flush().await;
    let found = api.store.notifications().get(scope, id).await;
    let found = found.map_err(ApiError::store("read a notification"))?;
    if found.ok_or(ApiError::NotFound(NO_NOTIFICATION))?.read.is_none() {
        mark(&request, Some(id)).await?;
    }
    unread(&request).await
}

async fn read_all(request: ApiRequest) -> Result<Response, ApiError> {
    mark(&request, None).await?;
    unread(&request).await
}

/// Marks one notification as read, or all of them.
async fn mark(request: &ApiRequest, id: Option<Uuid>) -> Result<(), ApiError> {
    let api = request.api();
    let marked = api.store.notifications().mark_read(request.scope(), id, api.clock.steady()).await;
    if marked.map_err(ApiError::store("mark notifications as read"))? > 0 {
        // The nil id stands for all notifications: watchers count them again.
        let main_account = request.main_account();
        let all = Audience { main_account: &main_account, account: None };
        api.feed.publish(all, FeedChange::Notification(id.unwrap_or_default()));
    }
    Ok(())
}

async fn unread(request: &ApiRequest) -> Result<Response, ApiError> {
    let unread = request.api().store.notifications().count_unread(request.scope()).await;
    let unread = unread.map_err(ApiError::store("count notifications"))?;
    Ok(ok(&UnreadNotifications { unread }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_not_those_of_other_lists() {
        let (at, id) = (Timestamp::from_secs(7), Uuid::max());
        assert_eq!(parse_cursor(&cursor(at, id)), Some((at, id)));
        assert_eq!(parse_cursor(&position(at, id)), None);
        assert_eq!(parse_position::<Uuid>(&cursor(at, id)), None);
    }
}
