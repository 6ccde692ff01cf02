//! `/api/v1/webhooks/`: the webhooks of an account and their deliveries, and the deliveries to the webhook URL of a
//! number. Webhooks are created, changed and removed in the console only.

use std::cmp::Reverse;

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, ResponseSpec};
use super::super::turns;
use super::request::{ApiRequest, NO_NUMBER, parse_number, parse_position, position};
use super::response::{Page, Timestamp3339, accepted, ok};
use super::route::{PAGING, Route, handler};
use engine::admission::Webhook;
use model::Role;
use store::{CallbackState, DeliveryView, Receiver};

const NO_DELIVERY: &str = "no such delivery";

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(list),
        operation: Operation::get(
            "/api/v1/webhooks/",
            "listWebhooks",
            "List the account's webhooks, newest first; they are created in the console",
        )
        .query(PAGING)
        .responses(&[ResponseSpec::json::<WebhookPage>(200, "A page of webhooks")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(deliveries),
        operation: Operation::get(
            "/api/v1/webhooks/{webhook_id}/deliveries/",
            "listDeliveries",
            "List the deliveries to a webhook, waiting ones included, newest first",
        )
        .query(PAGING)
        .responses(&[ResponseSpec::json::<DeliveryPage>(200, "A page of deliveries")]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(redeliver),
        operation: Operation::post(
            "/api/v1/webhooks/{webhook_id}/deliveries/{event_id}/redeliver/",
            "redeliver",
            "Redeliver an event, with the same id",
        )
        .responses(&[ResponseSpec::json::<Redelivered>(202, "The delivery is scheduled")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(deliveries_of_number),
        operation: Operation::get(
            "/api/v1/phone-numbers/{number}/deliveries/",
            "listNumberDeliveries",
            "List the deliveries of messages and statuses to the number's own webhook URL, waiting \
             ones included, newest first",
        )
        .query(PAGING)
        .responses(&[ResponseSpec::json::<DeliveryPage>(200, "A page of deliveries")]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(redeliver_to_number),
        operation: Operation::post(
            "/api/v1/phone-numbers/{number}/deliveries/{event_id}/redeliver/",
            "redeliverToNumber",
            "Redeliver a message or status to the number's webhook URL, with the same id",
        )
        .responses(&[ResponseSpec::json::<Redelivered>(202, "The delivery is scheduled")]),
    },
];

/// A webhook. Its secret is shown only when it is created.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Webhook, examples(json!({"id": "8f14e45f-ceea-467f-a8d5-4b8b8d9a1c20", "name": "crm", "url": "https://app.example.com/offhook", "secrets": 1, "inConfiguration": false, "createdAt": "2026-11-21T22:50:00.000Z"})))]
struct WebhookView {
    id: Uuid,
    name: String,
    url: String,
    /// The number of valid secrets. It is two during a rotation, and 0 if they are sealed with
    /// another `store.secret_key`: nothing is delivered then.
    secrets: usize,
    /// Whether the webhook is defined in the configuration file.
    in_configuration: bool,
    /// Null if the webhook is defined in the configuration file.
    #[schema(value_type = Option<String>, format = DateTime)]
    created_at: Option<Timestamp3339>,
}

impl WebhookView {
    fn new(webhook: &Webhook) -> Self {
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

/// A page of webhooks.
#[derive(Serialize, ToSchema)]
struct WebhookPage {
    items: Vec<WebhookView>,
    next: Option<String>,
}

/// The delivery of an event to a webhook.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
struct DeliveryDetail {
    /// The id of the event: `X-Offhook-Event-Id`.
    id: String,
    #[serde(rename = "type")]
    kind: String,
    /// `waiting`, `delivered` or `failed`.
    state: &'static str,
    attempts: u32,
    /// The status of the last response, or its error.
    last: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp3339>,
    #[schema(value_type = Option<String>, format = DateTime)]
    done_at: Option<Timestamp3339>,
}

impl From<&DeliveryView> for DeliveryDetail {
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
struct DeliveryPage {
    items: Vec<DeliveryDetail>,
    next: Option<String>,
}

/// An event that is delivered again.
#[derive(Serialize, ToSchema)]
struct Redelivered {
    id: Uuid,
    state: &'static str,
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let (limit, after) = (request.limit()?, request.cursor(parse_position::<Uuid>)?);
    let order = |webhook: &Webhook| (Reverse(webhook.created), webhook.id);
    let mut webhooks = request.api().inbox.webhooks().list(request.scope());
    webhooks.retain(|webhook| after.is_none_or(|(at, id)| order(webhook) > (Reverse(at), id)));
    let page = Page::new(webhooks, limit, |last| position(last.created, last.id));
    let items = page.items.iter().map(|webhook| WebhookView::new(webhook)).collect();
    Ok(ok(&WebhookPage { items, next: request.next_cursor(page.next) }))
}

/// Returns the webhook in the path.
fn find(request: &ApiRequest) -> Result<Receiver, ApiError> {
    const NO_WEBHOOK: &str = "no such webhook";
    let id = request.id("webhook_id", NO_WEBHOOK)?;
    let webhook = request.api().inbox.webhooks().get(request.scope(), id);
    let found = webhook.map(|webhook| Receiver::Webhook(webhook.id));
    found.ok_or(ApiError::NotFound(NO_WEBHOOK))
}

/// Returns the webhook URL of the number in the path. The number may be disconnected.
fn find_number(request: &ApiRequest) -> Result<Receiver, ApiError> {
    let number = parse_number(request.parameter("number"));
    let book = request.api().keeper.book();
    let entry = number.and_then(|number| book.number(request.scope(), &number));
    let receiver = entry.map(|entry| Receiver::Number(entry.first_id().clone()));
    receiver.ok_or(ApiError::NotFound(NO_NUMBER))
}

async fn deliveries(request: ApiRequest) -> Result<Response, ApiError> {
    let receiver = find(&request)?;
    page_of(&request, &receiver).await
}

async fn deliveries_of_number(request: ApiRequest) -> Result<Response, ApiError> {
    let receiver = find_number(&request)?;
    page_of(&request, &receiver).await
}

async fn page_of(request: &ApiRequest, receiver: &Receiver) -> Result<Response, ApiError> {
    let (limit, before) = (request.limit()?, request.cursor(|text| text.parse().ok())?);
    let webhooks = request.api().store.webhooks();
    let found = webhooks.deliveries(receiver, request.scope(), before, limit + 1).await;
    let found = found.map_err(ApiError::store("list the deliveries of a webhook"))?;
    let page = Page::new(found, limit, |last| last.row.to_string());
    let items = page.items.iter().map(DeliveryDetail::from).collect();
    Ok(ok(&DeliveryPage { items, next: request.next_cursor(page.next) }))
}

async fn redeliver(request: ApiRequest) -> Result<Response, ApiError> {
    let receiver = find(&request)?;
    schedule(&request, &receiver).await
}

async fn redeliver_to_number(request: ApiRequest) -> Result<Response, ApiError> {
    let receiver = find_number(&request)?;
    schedule(&request, &receiver).await
}

async fn schedule(request: &ApiRequest, receiver: &Receiver) -> Result<Response, ApiError> {
    let id: Uuid = request.id("event_id", NO_DELIVERY)?;
    let (api, now) = (request.api(), request.api().clock.steady());
    let (webhooks, owner) = (api.store.webhooks(), api.inbox.owner());
    // The search for an unknown event reads all deliveries of the webhook.
    let _turn = turns::next(&request.main_account()).await;
    let is_scheduled = webhooks.redeliver(receiver, request.scope(), id, owner, now).await;
    match is_scheduled.map_err(ApiError::store("redeliver an event"))? {
        true => Ok(accepted(&Redelivered { id, state: "waiting" })),
        false => Err(ApiError::NotFound(NO_DELIVERY)),
    }
}
