//! `/api/v1/conversations/`: lists, one with its timeline, its state, who answers it (`number-api.md` §4).

use std::sync::Arc;

use axum::response::Response;
use http::header;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::routes::{Answer, Body, Content, Kind, Query, Route, of};
use super::super::{error, with_header};
use super::Timestamp3339;
use super::ask::{self, Asked, CHANGED, Fault, Page};
use super::bodies::Taken;
use crate::admission::NumberEntry;
use crate::api::Api;
use crate::inbox::{NotRouted, words};
use model::{ConversationStatus, Direction};
use store::{Conversation, ConversationChange, ConversationFilter, Message};

const JSON: &str = "application/json";

const fn changed(status: u16, what: &'static str) -> Answer {
    Answer { status, what, content: Content::Json(of::<Shown>) }
}

const fn refused(status: u16, what: &'static str) -> Answer {
    Answer { status, what, content: Content::Json(of::<error::OurBody<'static>>) }
}

const STATE: &[Answer] =
    &[changed(200, "As it is now"), refused(409, "It is not in a state for it")];

const fn post(path: &'static str, id: &'static str, summary: &'static str) -> Route {
    Route { method: "POST", path, id, summary, query: &[], body: None, answers: STATE }
}

/// What is read of bodies.
pub(super) const BODIES: &[Taken] =
    &[Taken::of::<Change>("changeConversation"), Taken::of::<Subscribe>("subscribeConversation")];

/// What is served.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        path: "/api/v1/conversations/",
        id: "listConversations",
        summary: "Conversations, the latest first",
        query: &[
            Query { name: "number", what: "A business number", kind: Kind::Text },
            Query {
                name: "status",
                what: "Where they stand",
                kind: Kind::Words(&["open", "closed", "archived"]),
            },
            Query {
                name: "unread",
                what: "true: those with unread messages",
                kind: Kind::Words(&["true", "false"]),
            },
            Query {
                name: "q",
                what: "In the user's number, name, or the last message",
                kind: Kind::Text,
            },
            Query { name: "agent", what: "An agent's id", kind: Kind::Uuid },
            Query { name: "limit", what: "Items a page", kind: Kind::Integer(1, 200) },
            Query { name: "cursor", what: "Where the page before ended", kind: Kind::Text },
        ],
        body: None,
        answers: &[Answer { status: 200, what: "A page", content: Content::Json(of::<ShownPage>) }],
    },
    Route {
        method: "GET",
        path: "/api/v1/conversations/{conversation_id}/",
        id: "conversation",
        summary: "One conversation",
        query: &[],
        body: None,
        answers: &[changed(200, "As it stands, with its ETag")],
    },
    Route {
        method: "PATCH",
        path: "/api/v1/conversations/{conversation_id}/",
        id: "changeConversation",
        summary: "Lets its agent answer, or people only",
        query: &[],
        body: Some(Body { content_type: JSON, what: "{\"aiEnabled\": true|false}" }),
        answers: &[changed(200, "As it is now, with its ETag"), CHANGED],
    },
    Route {
        method: "DELETE",
        path: "/api/v1/conversations/{conversation_id}/",
        id: "deleteConversation",
        summary: "Deletes a conversation with its messages and files; calls keep their records",
        query: &[],
        body: None,
        answers: &[Answer { status: 204, what: "Gone", content: Content::Nothing }],
    },
    Route {
        method: "GET",
        path: "/api/v1/conversations/{conversation_id}/timeline/",
        id: "conversationTimeline",
        summary: "Messages and calls: the latest page first, each page the oldest first",
        query: &[
            Query { name: "limit", what: "Items a page", kind: Kind::Integer(1, 200) },
            Query { name: "cursor", what: "Where the page before began", kind: Kind::Text },
        ],
        body: None,
        answers: &[Answer { status: 200, what: "A page", content: Content::Json(of::<Timeline>) }],
    },
    post("/api/v1/conversations/{conversation_id}/close/", "closeConversation", "open → closed"),
    post(
        "/api/v1/conversations/{conversation_id}/archive/",
        "archiveConversation",
        "closed → archived",
    ),
    post(
        "/api/v1/conversations/{conversation_id}/reopen/",
        "reopenConversation",
        "closed or archived → open",
    ),
    post(
        "/api/v1/conversations/{conversation_id}/read/",
        "readConversation",
        "All of it is read; the user sees it too",
    ),
    Route {
        body: Some(Body {
            content_type: JSON,
            what: "{\"webhook\"}: an id; the account's only one where it is absent",
        }),
        ..post(
            "/api/v1/conversations/{conversation_id}/subscribe/",
            "subscribeConversation",
            "This conversation alone goes to a webhook, which hears `subscription.activated`",
        )
    },
    post(
        "/api/v1/conversations/{conversation_id}/unsubscribe/",
        "unsubscribeConversation",
        "It goes where its number's go; the webhook hears `subscription.revoked`",
    ),
];

/// A conversation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Conversation, examples(json!({"id": "5c0e6a1d-8a0e-5a53-9f2d-0c4d3b2a1f60", "number": "918035737458", "user": {"waId": "919812345678", "userId": null, "name": "Asha"}, "status": "open", "routing": "webhook", "activeAgent": null, "webhook": "8f14e45f-ceea-467f-a8d5-4b8b8d9a1c20", "aiEnabled": true, "lastMessage": {"text": "Where is my order?", "at": "2026-11-21T22:50:00.000Z", "direction": "inbound"}, "windowExpiresAt": "2026-11-22T22:50:00.000Z", "unread": 1, "sentiment": null, "score": null, "summary": null, "insightsBy": null, "insightsAt": null, "permission": "none"})))]
pub(super) struct Shown {
    id: Uuid,
    number: String,
    #[schema(value_type = Object)]
    user: Value,
    status: &'static str,
    routing: &'static str,
    active_agent: Option<Uuid>,
    webhook: Option<Uuid>,
    ai_enabled: bool,
    last_message: LastShown,
    /// Until then the user may be written to without a template.
    #[schema(value_type = Option<String>, format = DateTime)]
    window_expires_at: Option<Timestamp3339>,
    unread: u64,
    sentiment: Option<String>,
    /// From -1, the worst mood, to 1.
    score: Option<f64>,
    summary: Option<String>,
    /// Who found them: the model's name, or `local`.
    insights_by: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    insights_at: Option<Timestamp3339>,
    /// Whether the user may be called: `none`, `requested`, `temporary`, `permanent`.
    permission: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = LastMessage)]
struct LastShown {
    text: String,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp3339,
    #[schema(value_type = String)]
    direction: Direction,
}

/// A page of conversations.
#[derive(Serialize, ToSchema)]
#[schema(as = ConversationPage)]
pub(super) struct ShownPage {
    items: Vec<Shown>,
    next: Option<String>,
}

/// A page of a timeline.
#[derive(Serialize, ToSchema)]
pub(super) struct Timeline {
    #[schema(value_type = Vec<Object>)]
    items: Vec<Value>,
    next: Option<String>,
}

impl Shown {
    pub(super) async fn of(
        api: &Api,
        number: Option<&Arc<NumberEntry>>,
        conversation: &Conversation,
    ) -> Self {
        let Conversation { pair, status, standing, unread, last, heard, insights, .. } =
            conversation;
        let permission = match number {
            Some(number) => api.permissions.view(number, &pair.user.id, false).await.state.as_str(),
            None => "none",
        };
        Self {
            id: pair.conversation,
            number: pair.number.to_string(),
            user: pair.user.shown(),
            status: status.as_str(),
            routing: standing.routing.as_str(),
            active_agent: standing.routing.agent(),
            webhook: standing.routing.webhook(),
            ai_enabled: standing.ai_enabled,
            last_message: LastShown {
                text: last.text.clone(),
                at: Timestamp3339(last.at),
                direction: last.direction,
            },
            window_expires_at: heard.map(|heard| Timestamp3339(heard.plus(crate::inbox::WINDOW))),
            unread: *unread,
            sentiment: insights.as_ref().map(|i| i.sentiment.clone()),
            score: insights.as_ref().map(|i| i.score),
            summary: insights.as_ref().map(|i| i.summary.clone()),
            insights_by: insights.as_ref().map(|i| i.by.clone()),
            insights_at: insights.as_ref().map(|i| Timestamp3339(i.at)),
            permission,
        }
    }
}

const NONE: &str = "there is no such conversation";

/// The conversation that a path names; another account's is none (R16).
pub(super) async fn found(asked: &Asked, id: &str) -> Result<Conversation, Fault> {
    let id = id.parse::<Uuid>().map_err(|_| ask::missing(NONE))?;
    let found = asked
        .api()
        .store
        .conversations()
        .get(asked.scope(), id)
        .await
        .map_err(ask::store("read a conversation"))?;
    found.ok_or_else(|| ask::missing(NONE))
}

/// Of what people change: messages come by themselves.
fn tag_of(conversation: &Conversation) -> String {
    let Conversation { status, standing, .. } = conversation;
    let routing = &standing.routing;
    ask::tag_of(&(
        status.as_str(),
        standing.ai_enabled,
        routing.as_str(),
        routing.webhook(),
        routing.agent(),
    ))
}

/// A conversation as it stands, after something was done to it.
async fn shown(asked: &Asked, id: Uuid) -> Result<Response, Fault> {
    let conversation = found(asked, &id.to_string()).await?;
    let number = asked.api().inbox.number_of(&conversation.pair);
    let shown = ask::ok(&Shown::of(asked.api(), number.as_ref(), &conversation).await);
    Ok(with_header(shown, header::ETAG, &tag_of(&conversation)))
}

/// Everything under `/api/v1/conversations/`.
pub(super) async fn serve(asked: Asked, rest: &[&str]) -> Result<Response, Fault> {
    match (asked.method().as_str(), rest) {
        ("GET", []) => list(&asked).await,
        ("GET", [id]) => {
            let id = found(&asked, id).await?.pair.conversation;
            shown(&asked, id).await
        }
        ("PATCH", [id]) => change(asked, id).await,
        ("DELETE", [id]) => delete(&asked, id).await,
        ("GET", [id, "timeline"]) => timeline(&asked, id).await,
        ("POST", [id, "close"]) => put(&asked, id, ConversationStatus::Closed).await,
        ("POST", [id, "archive"]) => put(&asked, id, ConversationStatus::Archived).await,
        ("POST", [id, "reopen"]) => put(&asked, id, ConversationStatus::Open).await,
        ("POST", [id, "read"]) => read(&asked, id).await,
        ("POST", [id, "insights"]) => super::insights::make(&asked, id).await,
        ("POST", [id, "messages"]) => super::messages::send(asked, id).await,
        ("POST", [id, "media"]) => super::uploads::upload(asked, id).await,
        ("POST", [id, "subscribe"]) => subscribe(asked, id).await,
        ("POST", [id, "unsubscribe"]) => unsubscribe(&asked, id).await,
        _ => Err(ask::missing("there is nothing at this path")),
    }
}

/// Where the page before ended.
fn cursor(text: &str) -> Option<(i64, Uuid)> {
    ask::placed(text).map(|(at, id)| (at.micros(), id))
}

async fn list(asked: &Asked) -> Result<Response, Fault> {
    let limit = asked.limit()?;
    let number = match asked.value("number").filter(|text| !text.is_empty()) {
        Some(text) => {
            Some(ask::digits(text).ok_or_else(|| ask::bad("number", "number must be digits"))?)
        }
        None => None,
    };
    let status = match asked.value("status").filter(|word| !word.is_empty()) {
        Some(word) => Some(
            ConversationStatus::parse(word)
                .ok_or_else(|| ask::bad("status", "status must be open, closed or archived"))?,
        ),
        None => None,
    };
    let agent = match asked.value("agent").filter(|id| !id.is_empty()) {
        Some(id) => Some(id.parse().map_err(|_| ask::bad("agent", "agent must be an agent's id"))?),
        None => None,
    };
    let search: String = asked.value("q").unwrap_or_default().chars().take(100).collect();
    let before = asked.cursor(cursor)?;
    let filter =
        ConversationFilter { number, status, unread: asked.flag("unread")?, agent, search, before };
    let page = asked.api().store.conversations().list(asked.scope(), &filter, limit).await;
    let page = page.map_err(ask::store("list conversations"))?;
    let mut items = Vec::with_capacity(page.found.len());
    for conversation in &page.found {
        let number = asked.api().inbox.number_of(&conversation.pair);
        items.push(Shown::of(asked.api(), number.as_ref(), conversation).await);
    }
    let next = asked.next(page.next.map(|(at, id)| format!("{at}.{id}")));
    Ok(ask::ok(&ShownPage { items, next }))
}

/// A message as the timeline shows it.
pub(super) fn line(asked: &Asked, found: &Message) -> Value {
    let message = &found.message;
    let url = words::media(&message.content, &message.kind)
        .map(|_| asked.api().inbox.media_url(message.id));
    let mut shown = words::message(message, url.as_deref());
    if let Some(members) = shown.as_object_mut() {
        members.insert("sender".to_owned(), message.sender.clone().into());
        members.insert("changedAt".to_owned(), found.changed.to_string().into());
        let error = found
            .error
            .as_ref()
            .map(|(code, text)| serde_json::json!({"code": code, "message": text}));
        members.insert("error".to_owned(), error.unwrap_or(Value::Null));
    }
    shown
}

async fn timeline(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let conversation = found(asked, id).await?;
    let (limit, before) = (asked.limit()?, asked.cursor(cursor)?);
    let found = asked
        .api()
        .store
        .messages()
        .list(asked.scope(), conversation.pair.conversation, before, limit + 1)
        .await;
    let found = found.map_err(ask::store("read a conversation"))?;
    let page = Page::of(found, limit, |last| ask::place(last.message.at, last.message.id));
    let items = page.items.iter().rev().map(|message| line(asked, message)).collect();
    Ok(ask::ok(&Timeline { items, next: asked.next(page.next) }))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ConversationChange, examples(json!({"aiEnabled": false})))]
struct Change {
    /// false: people only, its agent stays silent.
    ai_enabled: Option<bool>,
}

async fn change(asked: Asked, id: &str) -> Result<Response, Fault> {
    let conversation = found(&asked, id).await?;
    let (asked, change) = asked.json::<Change>().await?;
    if asked.is_conditional() {
        // The body may have taken its time.
        asked.matches(&tag_of(&found(&asked, id).await?))?;
    }
    if let Some(on) = change.ai_enabled {
        let change = ConversationChange { ai_enabled: Some(on), ..ConversationChange::default() };
        carry_out(&asked, &conversation, change).await?;
    }
    shown(&asked, conversation.pair.conversation).await
}

async fn carry_out(
    asked: &Asked,
    conversation: &Conversation,
    change: ConversationChange,
) -> Result<bool, Fault> {
    let done = asked.api().inbox.change(asked.scope(), &conversation.pair, change).await;
    done.map_err(ask::store("change a conversation"))
}

async fn put(asked: &Asked, id: &str, status: ConversationStatus) -> Result<Response, Fault> {
    let conversation = found(asked, id).await?;
    let change = ConversationChange { status: Some(status), ..ConversationChange::default() };
    if !carry_out(asked, &conversation, change).await? {
        let now = conversation.status.as_str();
        let why = format!(
            "it is {now}, and can't become {}: open → closed → archived, reopen from both",
            status.as_str()
        );
        return Err(ask::conflict("wrong_state", &why));
    }
    shown(asked, conversation.pair.conversation).await
}

async fn read(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let conversation = found(asked, id).await?;
    let change = ConversationChange { read: true, ..ConversationChange::default() };
    carry_out(asked, &conversation, change).await?;
    asked
        .api()
        .inbox
        .tell_read(asked.scope(), &conversation)
        .await
        .map_err(ask::store("read a conversation"))?;
    shown(asked, conversation.pair.conversation).await
}

async fn delete(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let conversation = found(asked, id).await?;
    let done = asked.api().inbox.delete(asked.scope(), &conversation.pair).await;
    match done.map_err(ask::store("delete a conversation"))? {
        true => Ok(ask::gone()),
        false => Err(ask::missing(NONE)),
    }
}

#[derive(Deserialize, ToSchema)]
#[schema(as = ConversationSubscribe, examples(json!({"webhook": null})))]
struct Subscribe {
    /// The account's only one where it is absent.
    webhook: Option<Uuid>,
}

async fn subscribe(asked: Asked, id: &str) -> Result<Response, Fault> {
    let conversation = found(&asked, id).await?;
    let (asked, wanted) = asked.json::<Subscribe>().await?;
    let inbox = &asked.api().inbox;
    let number = owned(&asked, &conversation)?;
    let webhook =
        inbox.webhook_or_only(asked.scope(), &number, wanted.webhook).map_err(not_routed)?;
    inbox.subscribe(asked.scope(), &conversation, webhook.id).await.map_err(not_routed)?;
    shown(&asked, conversation.pair.conversation).await
}

/// The number of a conversation, which is its account's still.
fn owned(asked: &Asked, conversation: &Conversation) -> Result<Arc<NumberEntry>, Fault> {
    let found = asked.api().inbox.number_of(&conversation.pair);
    found.ok_or_else(|| ask::conflict("no_number", "its number is not there any more"))
}

async fn unsubscribe(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let conversation = found(asked, id).await?;
    let number = owned(asked, &conversation)?;
    let done = asked.api().inbox.unsubscribe(asked.scope(), &number, &conversation).await;
    done.map_err(not_routed)?;
    shown(asked, conversation.pair.conversation).await
}

/// Why a webhook stays.
const IN_USE: &str =
    "numbers or conversations go to it: subscribe them to another one first, with applyToExisting";

pub(super) fn not_routed(why: NotRouted) -> Fault {
    match why {
        NotRouted::NoWebhook => ask::bad("webhook", "there is no such webhook"),
        NotRouted::WhichWebhook => ask::bad(
            "webhook",
            "name a webhook: the account has none, or more than one; they are made in the console",
        ),
        NotRouted::Not(why) => ask::conflict("wrong_state", why),
        NotRouted::TooMany => {
            ask::conflict("too_many", "there are as many webhooks as there may be")
        }
        NotRouted::InFile => {
            ask::conflict("in_file", "it stands in the configuration: change it there")
        }
        NotRouted::InUse => ask::conflict("in_use", IN_USE),
        NotRouted::NoAgent => ask::bad("agent", "this account has no such agent"),
        NotRouted::Answers(whose) => {
            let message =
                format!("it answers {whose}: connect another agent there, or add ?force=true");
            ask::conflict("in_use", &message)
        }
        NotRouted::Store(error) => ask::store("change the routing")(error),
    }
}
