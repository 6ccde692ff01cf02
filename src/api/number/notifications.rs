//! `GET /api/v1/notifications/`: what people should know of, newest first; marked as read one by one or all at once.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error;
use super::super::routes::{Answer, Content, Kind, Query, Route, of};
use super::Timestamp3339;
use super::ask::{self, Asked, Fault};
use crate::feed::What;
use model::{CallUuid, NotificationTopic, Timestamp};
use store::{NoticeFilter, NoticeRow};

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/notifications/",
        id: "notifications",
        summary: "Notifications, newest first, and how many are unread",
        query: &[
            Query {
                name: "type",
                what: "Only of this type",
                kind: Kind::Words(NotificationTopic::WORDS),
            },
            Query {
                name: "unread",
                what: "true: only unread ones",
                kind: Kind::Words(&["true", "false"]),
            },
            Query { name: "limit", what: "Items of a page (50)", kind: Kind::Integer(1, 200) },
            Query {
                name: "cursor",
                what: "Where the page before ended: its `next`",
                kind: Kind::Text,
            },
        ],
        body: None,
        answers: &[Answer { status: 200, what: "A page", content: Content::Json(of::<List>) }],
    },
    Route {
        method: "POST",
        path: "/api/v1/notifications/{notification_id}/read/",
        id: "readNotification",
        summary: "Marks a notification as read; one that is stays so",
        query: &[],
        body: None,
        answers: &[
            Answer {
                status: 200,
                what: "How many are unread now",
                content: Content::Json(of::<Left>),
            },
            Answer {
                status: 404,
                what: "There is none",
                content: Content::Json(of::<error::OurBody<'static>>),
            },
        ],
    },
    Route {
        method: "POST",
        path: "/api/v1/notifications/read-all/",
        id: "readAllNotifications",
        summary: "Marks all notifications as read",
        query: &[],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "How many are unread now",
            content: Content::Json(of::<Left>),
        }],
    },
];

/// A page of notifications.
#[derive(Serialize, ToSchema)]
#[schema(as = Notifications)]
pub(super) struct List {
    items: Vec<Shown>,
    next: Option<String>,
    /// Of all pages, and of every type.
    unread: u64,
}

/// A notification.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Notification, examples(json!({"id": "0d2c1a52-13b5-4b7e-8a3c-5b7f9b0c6e11", "type": "message", "text": "Asha: Where is my order?", "number": "918035737458", "conversation": "5c0e6a1d-8a0e-5a53-9f2d-0c4d3b2a1f60", "callUuid": null, "createdAt": "2026-11-21T22:50:00.000Z", "read": false, "readAt": null})))]
struct Shown {
    id: Uuid,
    #[serde(rename = "type")]
    topic: &'static str,
    text: String,
    number: Option<String>,
    /// The conversation that it is about.
    conversation: Option<Uuid>,
    #[schema(value_type = Option<String>, format = Uuid)]
    call_uuid: Option<CallUuid>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
    read: bool,
    #[schema(value_type = Option<String>, format = DateTime)]
    read_at: Option<Timestamp3339>,
}

/// What is left to read.
#[derive(Serialize, ToSchema)]
#[schema(as = NotificationsLeft)]
pub(super) struct Left {
    unread: u64,
}

impl From<NoticeRow> for Shown {
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

/// `GET …/notifications/`.
pub(super) async fn list(asked: &Asked) -> Result<Response, Fault> {
    let (api, scope) = (asked.api(), asked.scope());
    let limit = asked.limit()?;
    let topic = match asked.value("type").filter(|word| !word.is_empty()) {
        None => None,
        Some(word) => Some(NotificationTopic::parse(word).ok_or_else(|| {
            ask::bad(
                "type",
                &format!("type must be one of {}", NotificationTopic::WORDS.join(", ")),
            )
        })?),
    };
    let read = asked.flag("unread")?.map(|unread| !unread);
    let filter = NoticeFilter { topic, read, before: asked.cursor(placed)? };
    // One that was told of a moment ago may still be on its way.
    api.store.flush().await;
    let wrong = ask::store("list notifications");
    let rows = api.store.notifications().list(scope, &filter, limit + 1).await.map_err(&wrong)?;
    let unread = api.store.notifications().count_unread(scope).await.map_err(&wrong)?;
    let page = ask::Page::of(rows, limit, |row| place(row.created, row.id));
    Ok(ask::ok(&List {
        items: page.items.into_iter().map(Shown::from).collect(),
        next: asked.next(page.next),
        unread,
    }))
}

/// Where a page ended. The letter tells it from other lists' places, which would be taken for one of these.
fn place(at: Timestamp, id: Uuid) -> String {
    format!("n{}", ask::place(at, id))
}

fn placed(text: &str) -> Option<(Timestamp, Uuid)> {
    ask::placed(text.strip_prefix('n')?)
}

/// `POST …/notifications/{id}/read/`.
pub(super) async fn read(asked: &Asked, id: &str) -> Result<Response, Fault> {
    const NONE: &str = "there is no such notification";
    let (api, scope) = (asked.api(), asked.scope());
    let id: Uuid = id.parse().map_err(|_| ask::missing(NONE))?;
    api.store.flush().await;
    let found = api
        .store
        .notifications()
        .get(scope, id)
        .await
        .map_err(ask::store("read a notification"))?;
    let found = found.ok_or_else(|| ask::missing(NONE))?;
    if found.read.is_none() {
        mark(asked, Some(id)).await?;
    }
    left(asked).await
}

/// `POST …/notifications/read-all/`.
pub(super) async fn read_all(asked: &Asked) -> Result<Response, Fault> {
    mark(asked, None).await?;
    left(asked).await
}

async fn mark(asked: &Asked, id: Option<Uuid>) -> Result<(), Fault> {
    let api = asked.api();
    let marked = api.store.notifications().mark_read(asked.scope(), id, api.clock.steady()).await;
    if marked.map_err(ask::store("mark notifications as read"))? > 0 {
        // Of no one in particular: who watches counts anew.
        api.feed.tell(&asked.main_account(), What::Notification(id.unwrap_or_default()));
    }
    Ok(())
}

async fn left(asked: &Asked) -> Result<Response, Fault> {
    let unread = asked.api().store.notifications().count_unread(asked.scope()).await;
    Ok(ask::ok(&Left { unread: unread.map_err(ask::store("count notifications"))? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_of_this_list_alone() {
        let (at, id) = (Timestamp::from_secs(7), Uuid::max());
        assert_eq!(placed(&place(at, id)), Some((at, id)));
        assert_eq!(placed(&ask::place(at, id)), None);
        assert_eq!(ask::placed::<Uuid>(&place(at, id)), None);
    }
}
