//! `/api/v1/conversations/`: conversations, their timelines, state and routing.

use std::collections::HashMap;
use std::iter::once;
use std::sync::Arc;

use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::error::ApiError;
use super::super::routes::{Operation, QueryParameter, RequestBody, ResponseSpec};
use super::super::turns;
use super::error::{NO_CONVERSATION, conversation_without_number};
use super::labels::LabelView;
use super::presets;
use super::request::{ApiRequest, parse_number, parse_position, position};
use super::response::{Page, Timestamp3339, etag, no_content, ok, with_etag};
use super::route::{CHANGED, CURSOR, LIMIT, PAGING, Route, error, handler};
use super::routing::answering_agent;
use super::schema::nullable;
use crate::api::Api;
use engine::admission::NumberEntry;
use engine::inbox::words;
use model::{ConversationStatus, Direction, Role};
use store::{
    AssigneeFilter, Conversation, ConversationChange, ConversationFilter, LABELS_MAX, LabelChange,
    Message, Preset, PresetKind, User,
};

/// Maximum length of a search text, in characters. The rest is ignored.
const SEARCH_CHARS_MAX: usize = 100;

const ITEM: &str = "/api/v1/conversations/{conversation_id}/";
const CONVERSATION: ResponseSpec =
    ResponseSpec::json::<ConversationView>(200, "The conversation with its ETag");
const STATE_CHANGE: &[ResponseSpec] = &[
    ResponseSpec::json::<ConversationView>(200, "The changed conversation"),
    error(409, "The state of the conversation does not allow it"),
];

pub(super) const ROUTES: &[Route] = &[
    Route {
        role: Role::Agent,
        handler: handler!(list),
        operation: Operation::get(
            "/api/v1/conversations/",
            "listConversations",
            "List conversations, those with the latest message first",
        )
        .query(&[
            QueryParameter::text("number", "Only conversations of this business number"),
            QueryParameter::one_of(
                "status",
                &["open", "closed", "archived"],
                "Only conversations with this status",
            ),
            QueryParameter::flag("unread", "true: only conversations with unread messages"),
            QueryParameter::text("q", "Text in the user's number, name, or the last message"),
            QueryParameter::uuid("agent", "Only conversations of the agent with this id"),
            QueryParameter::uuid("label", "Only conversations with this label"),
            QueryParameter::text(
                "assignee",
                "Only conversations assigned to the person with this id; `me`: to the person who \
                 makes the request; `none`: only unassigned ones",
            ),
            LIMIT,
            CURSOR,
        ])
        .responses(&[ResponseSpec::json::<ConversationPage>(200, "A page of conversations")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(get),
        operation: Operation::get(ITEM, "conversation", "Retrieve a conversation")
            .responses(&[CONVERSATION]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(change),
        operation: Operation::patch(
            ITEM,
            "changeConversation",
            "Enable or disable the agent in a conversation, assign it to a person, or set its labels",
        )
        .body(RequestBody::json::<ChangeBody>(
            "{\"aiEnabled\": true|false}, {\"assignee\": an id or null}, \
             {\"labels\": ids}",
        ))
        .responses(&[CONVERSATION, CHANGED]),
    },
    Route {
        role: Role::Admin,
        handler: handler!(delete),
        operation: Operation::delete(
            ITEM,
            "deleteConversation",
            "Delete a conversation with its messages and files; calls keep their records",
        )
        .responses(&[ResponseSpec::empty(204, "Deleted")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(timeline),
        operation: Operation::get(
            "/api/v1/conversations/{conversation_id}/timeline/",
            "conversationTimeline",
            "List the messages, calls and private notes of a conversation: the latest page first, \
             each page in the order of time",
        )
        .query(PAGING)
        .responses(&[ResponseSpec::json::<Timeline>(200, "A page of messages and calls")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(assignees),
        operation: Operation::get(
            "/api/v1/conversations/{conversation_id}/assignees/",
            "conversationAssignees",
            "List the people to whom a conversation can be assigned, newest first",
        )
        .query(PAGING)
        .responses(&[ResponseSpec::json::<AssigneePage>(200, "A page of people")]),
    },
    Route {
        role: Role::Agent,
        handler: handler!(close),
        operation: Operation::post(
            "/api/v1/conversations/{conversation_id}/close/",
            "closeConversation",
            "Close an open conversation",
        )
        .responses(STATE_CHANGE),
    },
    Route {
        role: Role::Agent,
        handler: handler!(archive),
        operation: Operation::post(
            "/api/v1/conversations/{conversation_id}/archive/",
            "archiveConversation",
            "Archive a closed conversation",
        )
        .responses(STATE_CHANGE),
    },
    Route {
        role: Role::Agent,
        handler: handler!(reopen),
        operation: Operation::post(
            "/api/v1/conversations/{conversation_id}/reopen/",
            "reopenConversation",
            "Reopen a closed or archived conversation",
        )
        .responses(STATE_CHANGE),
    },
    Route {
        role: Role::Agent,
        handler: handler!(read),
        operation: Operation::post(
            "/api/v1/conversations/{conversation_id}/read/",
            "readConversation",
            "Mark all messages as read, also for the user",
        )
        .responses(STATE_CHANGE),
    },
    Route {
        role: Role::Admin,
        handler: handler!(subscribe),
        operation: Operation::post(
            "/api/v1/conversations/{conversation_id}/subscribe/",
            "subscribeConversation",
            "Route one conversation to a webhook, which receives `subscription.activated`",
        )
        .body(RequestBody::json::<SubscribeBody>(
            "{\"webhook\"}: an id; by default the account's only webhook",
        ))
        .responses(STATE_CHANGE),
    },
    Route {
        role: Role::Admin,
        handler: handler!(connect_agent),
        operation: Operation::post(
            "/api/v1/conversations/{conversation_id}/connect-agent/",
            "connectConversationAgent",
            "Let an agent answer one conversation",
        )
        .body(RequestBody::json::<ConnectAgentBody>(
            "{\"agent\"}: an id; by default the agent of the number",
        ))
        .responses(STATE_CHANGE),
    },
    Route {
        role: Role::Admin,
        handler: handler!(unsubscribe),
        operation: Operation::post(
            "/api/v1/conversations/{conversation_id}/unsubscribe/",
            "unsubscribeConversation",
            "Let a conversation follow the routing of its number again; its webhook receives \
             `subscription.revoked`",
        )
        .responses(STATE_CHANGE),
    },
];

/// A conversation.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Conversation, examples(json!({"id": "5c0e6a1d-8a0e-5a53-9f2d-0c4d3b2a1f60", "account": "MAXXXXXXXXXXXXXXXXXX", "createdAt": "2026-11-20T09:12:00.000Z", "number": "918035737458", "user": {"waId": "919812345678", "userId": null, "name": "Asha"}, "status": "open", "routing": "webhook", "activeAgent": null, "webhook": "8f14e45f-ceea-467f-a8d5-4b8b8d9a1c20", "aiEnabled": true, "lastMessage": {"text": "Where is my order?", "type": "text", "sender": null, "senderName": null, "at": "2026-11-21T22:50:00.000Z", "direction": "inbound"}, "windowExpiresAt": "2026-11-22T22:50:00.000Z", "unread": 1, "sentiment": null, "score": null, "summary": null, "insightsBy": null, "insightsAt": null, "assignee": null, "labels": [], "permission": "none"})))]
struct ConversationView {
    id: Uuid,
    /// The account or subaccount of the number.
    account: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp3339,
    number: String,
    #[schema(value_type = Object)]
    user: Value,
    status: &'static str,
    routing: &'static str,
    active_agent: Option<Uuid>,
    webhook: Option<Uuid>,
    ai_enabled: bool,
    last_message: LastMessage,
    /// The time until which the user can be written to without a template.
    #[schema(value_type = Option<String>, format = DateTime)]
    window_expires_at: Option<Timestamp3339>,
    unread: u64,
    sentiment: Option<String>,
    /// The sentiment score, from -1 (negative) to 1 (positive).
    score: Option<f64>,
    summary: Option<String>,
    /// The origin of the insights: the name of the model, or `local`.
    insights_by: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    insights_at: Option<Timestamp3339>,
    /// The person to whom the conversation is assigned.
    assignee: Option<AssigneeView>,
    labels: Vec<LabelView>,
    /// The permission to call the user: `none`, `requested`, `temporary`, `permanent`.
    permission: &'static str,
}

/// A person to whom conversations are assigned.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Assignee)]
struct AssigneeView {
    id: Uuid,
    /// The sign-in name.
    name: String,
    /// The person's full name. May be empty.
    full_name: String,
}

/// A page of people.
#[derive(Serialize, ToSchema)]
struct AssigneePage {
    items: Vec<AssigneeView>,
    next: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LastMessage {
    text: String,
    /// The message type, `call` for a call. null if it is not known any more.
    #[serde(rename = "type")]
    kind: Option<String>,
    /// Who wrote an outbound message: `user:NAME`, `api-key:ID` or `agent:ID`.
    sender: Option<String>,
    /// The full name of the person who wrote it.
    sender_name: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp3339,
    #[schema(value_type = String)]
    direction: Direction,
}

/// A page of conversations.
#[derive(Serialize, ToSchema)]
struct ConversationPage {
    items: Vec<ConversationView>,
    next: Option<String>,
}

/// A page of a timeline.
#[derive(Serialize, ToSchema)]
struct Timeline {
    #[schema(value_type = Vec<Object>)]
    items: Vec<Value>,
    next: Option<String>,
}

/// The full names of people who wrote messages.
struct SenderNames(HashMap<String, String>);

impl SenderNames {
    /// Reads the names of the people among `senders`, as far as the caller may see them.
    async fn read<'a>(
        request: &ApiRequest,
        senders: impl Iterator<Item = Option<&'a str>>,
    ) -> Result<Self, ApiError> {
        let names = senders.flatten().filter_map(sign_in_name).collect();
        let people = request.api().store.people();
        let names = people.full_names(request.scope(), &names).await;
        names.map(Self).map_err(ApiError::store("read names"))
    }

    fn of(&self, sender: Option<&str>) -> Option<String> {
        self.0.get(sender.and_then(sign_in_name)?).cloned()
    }
}

/// The sign-in name of a sender that is a person.
fn sign_in_name(sender: &str) -> Option<&str> {
    sender.strip_prefix("user:")
}

impl ConversationView {
    /// Creates the view. `labels` are those of the scope, `names` those of the last sender.
    async fn new(
        api: &Api,
        conversation: &Conversation,
        labels: &[Preset],
        names: &SenderNames,
    ) -> Self {
        let Conversation {
            pair,
            status,
            standing,
            unread,
            last,
            last_inbound,
            insights,
            assignee,
            labels: label_ids,
            created,
        } = conversation;
        let permission = match api.inbox.numbers().number_of(pair) {
            Some(number) => {
                api.permissions.view(&number, &pair.user.id, false).await.state.as_str()
            }
            None => "none",
        };
        Self {
            id: pair.conversation,
            account: pair.account.to_string(),
            created_at: Timestamp3339(*created),
            number: pair.number.to_string(),
            user: pair.user.shown(),
            status: status.as_str(),
            routing: standing.routing.as_str(),
            active_agent: standing.routing.agent(),
            webhook: standing.routing.webhook(),
            ai_enabled: standing.ai_enabled,
            last_message: LastMessage {
                text: last.text.clone(),
                at: Timestamp3339(last.at),
                direction: last.direction,
                kind: last.kind.clone(),
                sender: last.sender.clone(),
                sender_name: names.of(last.sender.as_deref()),
            },
            window_expires_at: last_inbound
                .map(|last_inbound| Timestamp3339(last_inbound.plus(engine::inbox::WINDOW))),
            unread: *unread,
            sentiment: insights.as_ref().map(|i| i.sentiment.clone()),
            score: insights.as_ref().map(|i| i.score),
            summary: insights.as_ref().map(|i| i.summary.clone()),
            insights_by: insights.as_ref().map(|i| i.by.clone()),
            insights_at: insights.as_ref().map(|i| Timestamp3339(i.at)),
            assignee: assignee.as_ref().map(|person| AssigneeView {
                id: person.id,
                name: person.name.clone(),
                full_name: person.full_name.clone(),
            }),
            labels: labels
                .iter()
                .filter(|label| label_ids.contains(&label.id))
                .cloned()
                .map(LabelView::from)
                .collect(),
            permission,
        }
    }
}

/// Returns the conversation in the path. A conversation outside the scope does not exist.
pub(super) async fn find(request: &ApiRequest) -> Result<Conversation, ApiError> {
    find_id(request, request.id("conversation_id", NO_CONVERSATION)?).await
}

async fn find_id(request: &ApiRequest, id: Uuid) -> Result<Conversation, ApiError> {
    let found = request.api().store.conversations().get(request.scope(), id).await;
    let found = found.map_err(ApiError::store("read a conversation"))?;
    found.ok_or(ApiError::NotFound(NO_CONVERSATION))
}

/// The ETag of a conversation. It covers the fields that people change, not the messages.
fn tag(conversation: &Conversation) -> String {
    let Conversation { status, standing, assignee, labels, .. } = conversation;
    let routing = &standing.routing;
    etag(&(
        status.as_str(),
        standing.ai_enabled,
        routing.as_str(),
        routing.webhook(),
        routing.agent(),
        assignee.as_ref().map(|person| person.id),
        labels,
    ))
}

/// 200 with the current conversation.
async fn view(request: &ApiRequest, id: Uuid) -> Result<Response, ApiError> {
    let conversation = find_id(request, id).await?;
    let labels = presets::list(request, PresetKind::Label).await?;
    let names = SenderNames::read(request, once(conversation.last.sender.as_deref())).await?;
    let view = ConversationView::new(request.api(), &conversation, &labels, &names).await;
    Ok(with_etag(ok(&view), &tag(&conversation)))
}

fn parse_cursor(text: &str) -> Option<(i64, Uuid)> {
    parse_position(text).map(|(at, id)| (at.micros(), id))
}

async fn list(request: ApiRequest) -> Result<Response, ApiError> {
    let limit = request.limit()?;
    let number = match request.query_text("number") {
        Some(text) => {
            let number = parse_number(text);
            let error = || ApiError::bad_value("number", "number must be a phone number");
            Some(number.ok_or_else(error)?)
        }
        None => None,
    };
    let status = match request.query_text("status") {
        Some(word) => {
            let message = "status must be open, closed or archived";
            let error = || ApiError::bad_value("status", message);
            Some(ConversationStatus::parse(word).ok_or_else(error)?)
        }
        None => None,
    };
    let agent = match request.query_text("agent") {
        Some(id) => {
            let error = |_| ApiError::bad_value("agent", "agent must be the id of an agent");
            Some(id.parse().map_err(error)?)
        }
        None => None,
    };
    let assignee = match (request.query_text("assignee"), request.principal.user) {
        (None, _) => None,
        (Some("none"), _) => Some(AssigneeFilter::Unassigned),
        (Some("me"), Some(person)) => Some(AssigneeFilter::Person(person)),
        (Some(id), _) => {
            let message = "assignee must be the id of a person, none, or in a session me";
            let error = |_| ApiError::bad_value("assignee", message);
            Some(AssigneeFilter::Person(id.parse().map_err(error)?))
        }
    };
    let label = match request.query_text("label") {
        Some(id) => {
            let error = |_| ApiError::bad_value("label", "label must be the id of a label");
            Some(id.parse().map_err(error)?)
        }
        None => None,
    };
    let search = request.query("q").unwrap_or_default().chars().take(SEARCH_CHARS_MAX).collect();
    let (unread, before) = (request.query_flag("unread")?, request.cursor(parse_cursor)?);
    let filter =
        ConversationFilter { number, status, unread, agent, assignee, label, search, before };
    let api = request.api();
    // Such a list reads conversations that the filter leaves out, too.
    let is_search =
        !filter.search.is_empty() || filter.label.is_some() || filter.assignee.is_some();
    let turn = turns::next_if(is_search, &request.main_account()).await;
    let page = api.store.conversations().list(request.scope(), &filter, limit).await;
    drop(turn);
    let page = page.map_err(ApiError::store("list conversations"))?;
    let labels = presets::list(&request, PresetKind::Label).await?;
    let senders = page.found.iter().map(|conversation| conversation.last.sender.as_deref());
    let names = SenderNames::read(&request, senders).await?;
    let mut items = Vec::with_capacity(page.found.len());
    for conversation in &page.found {
        items.push(ConversationView::new(api, conversation, &labels, &names).await);
    }
    let next = request.next_cursor(page.next.map(|(at, id)| format!("{at}.{id}")));
    Ok(ok(&ConversationPage { items, next }))
}

async fn get(request: ApiRequest) -> Result<Response, ApiError> {
    view(&request, request.id("conversation_id", NO_CONVERSATION)?).await
}

/// Builds the JSON of a message or call in the timeline.
fn timeline_item(api: &Api, message: &Message, names: &SenderNames) -> Value {
    let Message { message, changed, error, .. } = message;
    let url = words::media(&message.content, &message.kind)
        .map(|_| api.inbox.user_files().link(message.id));
    let mut item = words::message(message, url.as_deref());
    if let Some(members) = item.as_object_mut() {
        members.insert("sender".to_owned(), message.sender.clone().into());
        members.insert("senderName".to_owned(), names.of(message.sender.as_deref()).into());
        members.insert("changedAt".to_owned(), changed.to_string().into());
        let error =
            error.as_ref().map(|(code, text)| serde_json::json!({"code": code, "message": text}));
        members.insert("error".to_owned(), error.unwrap_or(Value::Null));
    }
    item
}

async fn timeline(request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = find(&request).await?;
    let (limit, before) = (request.limit()?, request.cursor(parse_cursor)?);
    let (api, id) = (request.api(), conversation.pair.conversation);
    let messages = api.store.messages().list(request.scope(), id, before, limit + 1).await;
    let messages = messages.map_err(ApiError::store("read a conversation"))?;
    let page = Page::new(messages, limit, |last| position(last.message.at, last.message.id));
    let senders = page.items.iter().map(|message| message.message.sender.as_deref());
    let names = SenderNames::read(&request, senders).await?;
    let items = page.items.iter().rev().map(|message| timeline_item(api, message, &names));
    Ok(ok(&Timeline { items: items.collect(), next: request.next_cursor(page.next) }))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ConversationChange, examples(json!({"aiEnabled": false, "assignee": null})))]
struct ChangeBody {
    /// Whether an AI agent may answer. With false, the agent stays silent and only people answer.
    ai_enabled: Option<bool>,
    /// The id of a person from `assignees/`. null removes the assignee.
    #[serde(default, deserialize_with = "nullable")]
    #[schema(value_type = Option<Uuid>)]
    assignee: Option<Option<Uuid>>,
    /// The ids of all labels that the conversation has from now on, up to 10.
    #[schema(max_items = 10)]
    labels: Option<Vec<Uuid>>,
    /// The ids of labels to add, instead of `labels`. Other labels stay, including those that
    /// somebody else changes at the same time.
    #[schema(max_items = 10)]
    add_labels: Option<Vec<Uuid>>,
    /// The ids of labels to remove, instead of `labels`. Labels that the conversation does not have
    /// are ignored.
    remove_labels: Option<Vec<Uuid>>,
}

/// Checks the change of a conversation's labels. `None` if they stay.
async fn check_labels(
    request: &ApiRequest,
    conversation: &Conversation,
    body: &ChangeBody,
) -> Result<Option<LabelChange>, ApiError> {
    let unique = |ids: &Option<Vec<Uuid>>| {
        let mut ids = ids.clone().unwrap_or_default();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let known = presets::list(request, PresetKind::Label).await?;
    let is_known = |id: &Uuid| {
        known.iter().any(|label| label.id == *id && label.account == conversation.pair.account)
    };
    let (add, mut remove) = (unique(&body.add_labels), unique(&body.remove_labels));
    remove.retain(|id| is_known(id) && !add.contains(id));
    let (field, new, change) = match &body.labels {
        Some(_) if body.add_labels.is_some() || body.remove_labels.is_some() => {
            let message = "labels can't be combined with addLabels or removeLabels";
            return Err(ApiError::bad_value("labels", message));
        }
        Some(_) => {
            let labels = unique(&body.labels);
            ("labels", labels.clone(), LabelChange::Set(labels))
        }
        None if add.is_empty() && remove.is_empty() => return Ok(None),
        None => ("addLabels", add.clone(), LabelChange::Adjust { add, remove }),
    };
    let error = |message: String| ApiError::bad_value(field, message);
    if !new.iter().all(is_known) {
        return Err(error(format!("{field} must be ids of labels of the conversation's account")));
    }
    let kept = match &change {
        LabelChange::Set(_) => 0,
        LabelChange::Adjust { add, remove } => {
            let stays = |id: &&Uuid| is_known(id) && !add.contains(id) && !remove.contains(id);
            conversation.labels.iter().filter(stays).count()
        }
    };
    match kept + new.len() <= usize::from(LABELS_MAX) {
        true => Ok(Some(change)),
        false => Err(too_many_labels(field)),
    }
}

fn too_many_labels(field: &'static str) -> ApiError {
    ApiError::bad_value(field, format!("a conversation can have {LABELS_MAX} labels"))
}

/// Whether a person can see a conversation.
fn can_see(user: &User, conversation: &Conversation) -> bool {
    let pair = &conversation.pair;
    user.account == pair.account || user.account == pair.main_account
}

async fn assignees(request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = find(&request).await?;
    let (limit, before) = (request.limit()?, request.cursor(parse_position)?);
    let users = request.api().people.users(request.scope(), before, limit + 1).await;
    let users = users.map_err(ApiError::store("list people"))?;
    let page = Page::new(users, limit, |last| position(last.created, last.id));
    let items = page.items.into_iter().filter(|user| can_see(user, &conversation));
    let items =
        items.map(|user| AssigneeView { id: user.id, name: user.name, full_name: user.full_name });
    let next = request.next_cursor(page.next);
    Ok(ok(&AssigneePage { items: items.collect(), next }))
}

/// Checks that a conversation can be assigned to a person.
async fn check_assignee(
    request: &ApiRequest,
    conversation: &Conversation,
    person: Uuid,
) -> Result<(), ApiError> {
    let user = request.api().people.user(request.scope(), person).await;
    let user = user.map_err(ApiError::store("read a person"))?;
    match user.is_some_and(|user| can_see(&user, conversation)) {
        true => Ok(()),
        false => Err(ApiError::bad_value(
            "assignee",
            "assignee must be the id of a person who can see the conversation: GET …/assignees/",
        )),
    }
}

async fn change(mut request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = find(&request).await?;
    let body: ChangeBody = request.json().await?;
    if request.is_conditional() {
        // Read again, because the body may have taken its time.
        request.check_if_match(&tag(&find(&request).await?))?;
    }
    if let Some(Some(person)) = body.assignee {
        check_assignee(&request, &conversation, person).await?;
    }
    let labels = check_labels(&request, &conversation, &body).await?;
    if body.ai_enabled.is_some() || body.assignee.is_some() || labels.is_some() {
        let adds_labels = body.add_labels.as_ref().is_some_and(|ids| !ids.is_empty());
        let change = ConversationChange {
            ai_enabled: body.ai_enabled,
            assignee: body.assignee,
            labels,
            ..ConversationChange::default()
        };
        // Somebody else may have added labels since the check.
        if !apply(&request, &conversation, change).await? && adds_labels {
            find(&request).await?;
            return Err(too_many_labels("addLabels"));
        }
    }
    view(&request, conversation.pair.conversation).await
}

/// Changes a conversation. Returns `false` if its state or the number of its labels does not allow
/// the change.
async fn apply(
    request: &ApiRequest,
    conversation: &Conversation,
    change: ConversationChange,
) -> Result<bool, ApiError> {
    let is_changed = request
        .api()
        .inbox
        .conversations()
        .change(request.scope(), &conversation.pair, change)
        .await;
    is_changed.map_err(ApiError::store("change a conversation"))
}

async fn close(request: ApiRequest) -> Result<Response, ApiError> {
    set_status(request, ConversationStatus::Closed).await
}

async fn archive(request: ApiRequest) -> Result<Response, ApiError> {
    set_status(request, ConversationStatus::Archived).await
}

async fn reopen(request: ApiRequest) -> Result<Response, ApiError> {
    set_status(request, ConversationStatus::Open).await
}

async fn set_status(request: ApiRequest, status: ConversationStatus) -> Result<Response, ApiError> {
    let conversation = find(&request).await?;
    let change = ConversationChange { status: Some(status), ..ConversationChange::default() };
    if !apply(&request, &conversation, change).await? {
        let message = format!(
            "the conversation is {} and can't become {}: open → closed → archived, reopen from both",
            conversation.status.as_str(),
            status.as_str()
        );
        return Err(ApiError::conflict("wrong_state", message));
    }
    view(&request, conversation.pair.conversation).await
}

async fn read(request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = find(&request).await?;
    let change = ConversationChange { read: true, ..ConversationChange::default() };
    apply(&request, &conversation, change).await?;
    let sent =
        request.api().inbox.conversations().mark_last_read(request.scope(), &conversation).await;
    sent.map_err(ApiError::store("read a conversation"))?;
    view(&request, conversation.pair.conversation).await
}

async fn delete(request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = find(&request).await?;
    let is_deleted =
        request.api().inbox.conversations().delete(request.scope(), &conversation.pair).await;
    match is_deleted.map_err(ApiError::store("delete a conversation"))? {
        true => Ok(no_content()),
        false => Err(ApiError::NotFound(NO_CONVERSATION)),
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConversationSubscribe, examples(json!({"webhook": null})))]
struct SubscribeBody {
    /// The webhook's id. The default is the account's only webhook.
    webhook: Option<Uuid>,
}

async fn subscribe(mut request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = find(&request).await?;
    let body: SubscribeBody = request.json().await?;
    let (inbox, scope) = (&request.api().inbox, request.scope());
    let number = connected_number(&request, &conversation)?;
    let webhook = inbox.webhooks().get_or_only(scope, &number, body.webhook)?;
    inbox.router().subscribe(scope, &conversation, webhook.id).await?;
    view(&request, conversation.pair.conversation).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ConversationConnectAgent, examples(json!({"agent": null})))]
struct ConnectAgentBody {
    /// The agent's id. The default is the agent of the number.
    agent: Option<Uuid>,
}

async fn connect_agent(mut request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = find(&request).await?;
    let body: ConnectAgentBody = request.json().await?;
    let number = connected_number(&request, &conversation)?;
    let inbox = &request.api().inbox;
    let agent = body.agent.or_else(|| inbox.numbers().routing_of(&number).agent());
    let agent = agent.ok_or_else(|| ApiError::bad_value("agent", "the number has no agent"))?;
    let agent = answering_agent(&request, &number, agent).await?;
    inbox.router().connect_agent(request.scope(), &conversation, agent.id).await?;
    view(&request, conversation.pair.conversation).await
}

/// The business number of a conversation, if it is still connected.
fn connected_number(
    request: &ApiRequest,
    conversation: &Conversation,
) -> Result<Arc<NumberEntry>, ApiError> {
    let number = request.api().inbox.numbers().number_of(&conversation.pair);
    number.ok_or_else(conversation_without_number)
}

async fn unsubscribe(request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = find(&request).await?;
    let number = connected_number(&request, &conversation)?;
    request.api().inbox.router().unsubscribe(request.scope(), &number, &conversation).await?;
    view(&request, conversation.pair.conversation).await
}
