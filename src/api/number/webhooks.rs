//! `/api/v1/webhooks/`: an account's webhooks and their deliveries. They are made in the console only: POST, PATCH and
//! DELETE of one are 405 (`number-api.md` §5).

use std::cmp::Reverse;

use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error;
use super::super::routes::{Answer, Content, Kind, Query, Route, of};
use super::Timestamp3339;
use super::ask::{self, Asked, Fault, Page};
use crate::admission::Webhook;
use store::{CallbackState, DeliveryView};

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/webhooks/",
        id: "listWebhooks",
        summary: "The account's webhooks, newest first; they are made in the console",
        query: &[
            Query { name: "limit", what: "Items a page", kind: Kind::Integer(1, 200) },
            Query { name: "cursor", what: "Where the page before ended", kind: Kind::Text },
        ],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "A page",
            content: Content::Json(of::<WebhookPage>),
        }],
    },
    Route {
        method: "GET",
        path: "/api/v1/webhooks/{webhook_id}/deliveries/",
        id: "listDeliveries",
        summary: "What was posted to a webhook, or waits for it, the latest first",
        query: &[
            Query { name: "limit", what: "Items a page", kind: Kind::Integer(1, 200) },
            Query { name: "cursor", what: "Where the page before ended", kind: Kind::Text },
        ],
        body: None,
        answers: &[Answer {
            status: 200,
            what: "A page",
            content: Content::Json(of::<DeliveryPage>),
        }],
    },
    Route {
        method: "POST",
        path: "/api/v1/webhooks/{webhook_id}/deliveries/{event_id}/redeliver/",
        id: "redeliver",
        summary: "Posts an event once more, with the same id",
        query: &[],
        body: None,
        answers: &[Answer {
            status: 202,
            what: "It is on its way",
            content: Content::Json(of::<Redelivered>),
        }],
    },
];

/// A webhook. Its secret is shown where it is made, once.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook, examples(json!({"id": "8f14e45f-ceea-467f-a8d5-4b8b8d9a1c20", "name": "crm", "url": "https://app.example.com/offhook", "secrets": 1, "inConfiguration": false, "createdAt": "2026-11-21T22:50:00.000Z"})))]
pub(super) struct Shown {
    id: Uuid,
    name: String,
    url: String,
    /// Two while one takes the other's place.
    secrets: usize,
    /// It stands in the configuration file.
    in_configuration: bool,
    /// None of one that stands in the configuration file.
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp3339>,
}

impl Shown {
    fn of(webhook: &Webhook) -> Self {
        Self {
            id: webhook.id,
            name: webhook.name.clone(),
            url: webhook.url.0.to_string(),
            secrets: webhook.secrets.len(),
            in_configuration: webhook.in_file,
            created_at: (!webhook.in_file).then_some(Timestamp3339(webhook.created)),
        }
    }
}

/// An account's webhooks.
#[derive(Serialize, ToSchema)]
pub(super) struct WebhookPage {
    items: Vec<Shown>,
    next: Option<String>,
}

/// An event on its way, or delivered, or given up.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub(super) struct DeliveryShown {
    /// The event's: `X-Offhook-Event-Id`.
    id: String,
    #[serde(rename = "type")]
    kind: String,
    /// `waiting`, `delivered` or `failed`.
    state: &'static str,
    attempts: u32,
    /// The last answer's status, or what went wrong.
    last: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp3339>,
    #[schema(value_type = Option<String>, format = DateTime)]
    done_at: Option<Timestamp3339>,
}

impl From<&DeliveryView> for DeliveryShown {
    fn from(view: &DeliveryView) -> Self {
        let (next, done) = match view.state {
            CallbackState::Waiting { due } => (Some(due), None),
            CallbackState::Delivered { at } | CallbackState::Failed { at } => (None, Some(at)),
        };
        Self {
            id: view.event_id.clone(),
            kind: view.event.clone(),
            state: view.state.as_str(),
            attempts: view.attempts,
            last: view.last.clone(),
            created_at: Timestamp3339(view.created),
            next_attempt_at: next.map(Timestamp3339),
            done_at: done.map(Timestamp3339),
        }
    }
}

/// A page of deliveries.
#[derive(Serialize, ToSchema)]
pub(super) struct DeliveryPage {
    items: Vec<DeliveryShown>,
    next: Option<String>,
}

/// An event that goes out once more.
#[derive(Serialize, ToSchema)]
pub(super) struct Redelivered {
    id: Uuid,
    state: &'static str,
}

/// Everything under `/api/v1/webhooks/`.
pub(super) async fn serve(asked: Asked, rest: &[&str]) -> Result<Response, Fault> {
    match (asked.method().as_str(), rest) {
        ("GET", []) => {
            let (limit, after) = (asked.limit()?, asked.cursor(ask::placed::<Uuid>)?);
            let place = |webhook: &Webhook| (Reverse(webhook.created), webhook.id);
            let mut all = asked.api().inbox.webhooks(asked.scope());
            all.retain(|webhook| after.is_none_or(|(at, id)| place(webhook) > (Reverse(at), id)));
            let page = Page::of(all, limit, |last| ask::place(last.created, last.id));
            let items = page.items.iter().map(|webhook| Shown::of(webhook)).collect();
            Ok(ask::ok(&WebhookPage { items, next: asked.next(page.next) }))
        }
        ("GET", [id, "deliveries"]) => deliveries(&asked, id).await,
        ("POST", [id, "deliveries", delivery, "redeliver"]) => {
            redeliver(&asked, id, delivery).await
        }
        _ => Err(ask::missing("there is nothing at this path")),
    }
}

fn found(asked: &Asked, id: &str) -> Result<Uuid, Fault> {
    let webhook = id.parse().ok().and_then(|id| asked.api().inbox.webhook(asked.scope(), id));
    webhook.map(|webhook| webhook.id).ok_or_else(|| ask::missing("there is no such webhook"))
}

async fn deliveries(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let webhook = found(asked, id)?;
    let (limit, before) = (asked.limit()?, asked.cursor(|text| text.parse().ok())?);
    let found = asked.api().store.webhooks().deliveries(webhook, before, limit + 1).await;
    let found = found.map_err(ask::store("list a webhook's deliveries"))?;
    let page = Page::of(found, limit, |last| last.row.to_string());
    Ok(ask::ok(&DeliveryPage {
        items: page.items.iter().map(DeliveryShown::from).collect(),
        next: asked.next(page.next),
    }))
}

async fn redeliver(asked: &Asked, id: &str, delivery: &str) -> Result<Response, Fault> {
    let webhook = found(asked, id)?;
    let none = || ask::missing("there is no such delivery");
    let event: Uuid = delivery.parse().map_err(|_| none())?;
    let now = asked.api().clock.steady();
    let done = asked
        .api()
        .store
        .webhooks()
        .redeliver(webhook, event, now)
        .await
        .map_err(ask::store("send an event once more"))?;
    if !done {
        return Err(none());
    }
    Ok(error::body(StatusCode::ACCEPTED, &Redelivered { id: event, state: "waiting" }))
}
