//! The inbox: conversations, and one of them as a chat with its messages and calls. What is done is the number API's.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::agents::{Choice, choices};
use super::door::{Posted, Visitor};
use super::form::Form;
use super::i18n::Lang;
use super::numbers::{known, named};
use super::page::{Page, failed, html, missing, respond};
use super::phone::Named;
use super::view::{self, When};
use super::{App, Console};
use crate::api::Apis;
use engine::inbox::FILES;

/// Where calls are placed.
const CALLS: &str = "/api/v1/calls/";

/// A conversation as the API has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conversation {
    id: Uuid,
    number: String,
    user: User,
    status: String,
    active_agent: Option<Uuid>,
    ai_enabled: bool,
    last_message: Last,
    window_expires_at: Option<String>,
    unread: u64,
    sentiment: Option<String>,
    summary: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct User {
    wa_id: Option<String>,
    user_id: Option<String>,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Last {
    text: String,
    at: String,
    direction: String,
}

/// What a user allows, and what remains of the limits.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Permission {
    status: String,
    expires_at: Option<String>,
    calls_left: u32,
    requests_left: u32,
}

#[derive(Deserialize)]
struct Listed {
    items: Vec<Conversation>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Timeline {
    items: Vec<Value>,
    next: Option<String>,
}

impl User {
    /// As a path names them.
    fn key(&self) -> &str {
        self.wa_id.as_deref().or(self.user_id.as_deref()).unwrap_or_default()
    }

    fn shown(&self) -> String {
        view::party(self.key())
    }

    fn called(&self) -> String {
        if self.name.is_empty() { self.shown() } else { self.name.clone() }
    }
}

/// How a conversation's status looks.
fn tone(status: &str) -> &'static str {
    if status == "open" { "good" } else { "missed" }
}

/// A conversation in the list.
struct Row {
    id: Uuid,
    name: String,
    number: String,
    text: String,
    outbound: bool,
    at: When,
    unread: u64,
    status: String,
    tone: &'static str,
    sentiment: String,
}

#[derive(Template)]
#[template(path = "inbox.html")]
struct Inbox {
    page: Page,
    rows: Vec<Row>,
    next: String,
    filtered: bool,
    status: String,
    q: String,
    unread: bool,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    const FILTERS: [&str; 3] = ["status", "q", "unread"];
    let query = &visitor.query;
    let path =
        format!("/api/v1/conversations/{}", query.only(&["status", "q", "unread", "cursor"]));
    let answer = visitor.ask(&console, Method::GET, &path, None).await;
    let Ok(list) = serde_json::from_value::<Listed>(answer.body.clone()) else {
        return failed(&console, &visitor, answer.status, answer.message());
    };
    let first = query.some("cursor").is_none();
    html(&Inbox {
        rows: list.items.into_iter().map(|one| row(&console, &visitor, one)).collect(),
        next: list.next.map(|cursor| query.with("cursor", Some(&cursor))).unwrap_or_default(),
        filtered: FILTERS.iter().any(|name| query.some(name).is_some()),
        status: query.get("status").to_owned(),
        q: query.get("q").to_owned(),
        unread: query.some("unread").is_some(),
        page: visitor.page(&console, visitor.lang().t("nav.inbox"), "inbox").listening(if first {
            "conversation"
        } else {
            ""
        }),
    })
}

/// The words that a call has in a conversation, which are kept in English, in the reader's language.
fn call_words(lang: Lang, text: String) -> String {
    let seconds = |rest: Option<&str>| {
        let digits = rest?.strip_suffix(" s")?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.to_owned())
    };
    match text.as_str() {
        "Missed call" => return lang.t("inbox.call_missed").to_owned(),
        "Call to the user, not answered" => return lang.t("inbox.call_unanswered").to_owned(),
        _ => {}
    }
    for (begin, key) in
        [("Call from the user, ", "inbox.call_in"), ("Call to the user, ", "inbox.call_out")]
    {
        if let Some(seconds) = seconds(text.strip_prefix(begin)) {
            return lang.with(key, &[&seconds]);
        }
    }
    text
}

fn row(console: &Console, visitor: &Visitor, conversation: Conversation) -> Row {
    Row {
        id: conversation.id,
        name: conversation.user.called(),
        number: named(console, visitor, &conversation.number),
        outbound: conversation.last_message.direction == "outbound",
        text: call_words(visitor.lang(), conversation.last_message.text),
        at: When::read(&conversation.last_message.at),
        unread: conversation.unread,
        tone: tone(&conversation.status),
        status: conversation.status,
        sentiment: conversation.sentiment.unwrap_or_default(),
    }
}

/// How a message's file can be shown where it stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preview {
    Picture,
    Sound,
    Film,
    None,
}

impl Preview {
    /// Of our own files: a page loads nothing from elsewhere.
    fn of(kind: &str, media: &str) -> Self {
        match kind {
            _ if !media.starts_with("/media/") => Self::None,
            "image" | "sticker" => Self::Picture,
            "audio" | "voice" => Self::Sound,
            "video" => Self::Film,
            _ => Self::None,
        }
    }

    /// Nothing is left to open.
    fn is_whole(self) -> bool {
        matches!(self, Self::Picture | Self::Sound)
    }
}

/// A message or a call of the timeline.
struct Line {
    kind: String,
    outbound: bool,
    text: String,
    status: String,
    at: When,
    /// An agent's, or a person's by the API.
    sender: String,
    /// Where its file is; empty: it has none.
    media: String,
    filename: String,
    preview: Preview,
    error: String,
    /// The call that it tells of.
    call: String,
    missed: bool,
    /// What an agent and the user said in it.
    transcript: Vec<Spoken>,
}

/// A line of a call's transcript.
struct Spoken {
    by_user: bool,
    text: String,
}

/// What was said in a call.
fn transcript(item: &Value) -> Vec<Spoken> {
    let lines = item
        .pointer("/call/transcript")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    let text = |line: &Value, name: &str| {
        line.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    lines
        .iter()
        .map(|line| Spoken { by_user: text(line, "role") == "user", text: text(line, "text") })
        .collect()
}

/// What a message says of the permission to call: it has no words of its own.
fn consent(item: &Value) -> Option<&'static str> {
    let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str);
    match text("/interactive/call_permission_reply/response") {
        Some("accept") => Some("permission_granted"),
        Some(_) => Some("permission_denied"),
        None => (text("/interactive/type") == Some("call_permission_request"))
            .then_some("permission_requested"),
    }
}

fn line(lang: Lang, item: &Value, base_url: &str) -> Line {
    let text = |pointer: &str| {
        item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let kind = text("/type");
    let media = text("/media/url");
    // By path: the reader may have come by another name of this host.
    let media = media.strip_prefix(base_url).map_or(media.clone(), str::to_owned);
    let of_call = call_words(lang, text("/call/text"));
    let said = [text("/text"), text("/media/caption"), of_call, text("/location/name")];
    Line {
        outbound: text("/direction") == "outbound",
        text: said.into_iter().find(|said| !said.is_empty()).unwrap_or_default(),
        status: text("/status"),
        at: When::read(&text("/at")),
        sender: text("/sender"),
        preview: Preview::of(&kind, &media),
        media,
        filename: text("/media/filename"),
        error: text("/error/message"),
        call: text("/call/uuid").parse::<Uuid>().map(|call| call.to_string()).unwrap_or_default(),
        missed: item.pointer("/call/missed").and_then(Value::as_bool).unwrap_or_default(),
        transcript: transcript(item),
        kind: consent(item).map_or(kind, str::to_owned),
    }
}

#[derive(Template)]
#[template(path = "chat.html")]
struct Chat {
    page: Page,
    id: Uuid,
    name: String,
    user: String,
    number: String,
    status: String,
    tone: &'static str,
    lines: Vec<Line>,
    older: String,
    /// Whether anything may be written, and until when.
    open: bool,
    until: Option<When>,
    ai: bool,
    agent: String,
    /// The number is inactive: its agent is silent in all conversations.
    silent: bool,
    sentiment: String,
    summary: String,
    permission: Permission,
    granted_until: Option<When>,
    may_delete: bool,
    may_call: bool,
    draft: String,
    wrong: String,
    /// Media types that may be sent, as a file field has them; and what each is sent as, with the most bytes of it, as JSON.
    accepted: String,
    kinds: String,
}

/// What a form that was refused said.
#[derive(Default)]
struct Refused {
    draft: String,
    wrong: String,
}

fn path_of(id: Uuid) -> String {
    format!("/api/v1/conversations/{id}/")
}

pub(super) async fn chat(
    State(console): App,
    Path(id): Path<String>,
    visitor: Visitor,
) -> Response {
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    shown(&console, &visitor, id, StatusCode::OK, Refused::default()).await
}

async fn shown(
    console: &Console,
    visitor: &Visitor,
    id: Uuid,
    status: StatusCode,
    refused: Refused,
) -> Response {
    let answer = visitor.ask(console, Method::GET, &path_of(id), None).await;
    if answer.status == StatusCode::NOT_FOUND {
        return missing(console, visitor);
    }
    let timeline = format!("{}timeline/{}", path_of(id), visitor.query.only(&["cursor"]));
    let timeline = visitor.ask(console, Method::GET, &timeline, None).await;
    let (Ok(conversation), Ok(timeline)) = (
        serde_json::from_value::<Conversation>(answer.body.clone()),
        serde_json::from_value::<Timeline>(timeline.body),
    ) else {
        return failed(console, visitor, StatusCode::BAD_GATEWAY, answer.message());
    };
    if visitor.unread > 0 {
        read_notices(console, visitor, id).await;
    }
    // Opened is read; the user is told, too.
    if conversation.unread > 0 {
        visitor.ask(console, Method::POST, &format!("{}read/", path_of(id)), None).await;
    }
    let permission =
        format!("/api/v1/permissions/{}/{}/", conversation.number, conversation.user.key());
    let permission = visitor.ask(console, Method::GET, &permission, None).await;
    let permission: Permission = serde_json::from_value(permission.body).unwrap_or_default();
    let agent = match conversation.active_agent {
        Some(agent) => {
            let agent =
                visitor.ask(console, Method::GET, &format!("/api/v1/agents/{agent}/"), None).await;
            agent.body.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        None => String::new(),
    };
    let now = console.apis.api().clock.wall().rfc3339();
    let until = conversation.window_expires_at.as_deref();
    // Both in UTC, of the same shape: their seconds compare as texts.
    let open = until.is_some_and(|until| until.get(..19) > now.get(..19));
    let name = conversation.user.called();
    let live = visitor.query.some("cursor").is_none() && refused.wrong.is_empty();
    let about = if live { "conversation call number agent" } else { "" };
    let page = visitor.page(console, &name, "inbox").listening(about);
    let of_number = known(console, visitor, &conversation.number);
    respond(
        status,
        &Chat {
            page,
            id,
            user: conversation.user.shown(),
            name,
            number: view::aliased(&of_number.alias, &conversation.number),
            silent: of_number.inactive,
            tone: tone(&conversation.status),
            status: conversation.status,
            lines: timeline
                .items
                .iter()
                .map(|item| line(visitor.lang(), item, &console.apis.api().base_url))
                .collect(),
            older: timeline
                .next
                .map(|cursor| visitor.query.with("cursor", Some(&cursor)))
                .unwrap_or_default(),
            open,
            until: until.map(When::read),
            ai: conversation.ai_enabled,
            agent,
            sentiment: conversation.sentiment.unwrap_or_default(),
            summary: conversation.summary.unwrap_or_default(),
            granted_until: permission.expires_at.as_deref().map(When::read),
            permission,
            may_delete: visitor.is_admin(),
            may_call: Apis::serves(&Method::POST, CALLS),
            draft: refused.draft,
            wrong: refused.wrong,
            accepted: FILES.iter().map(|file| file.mime).collect::<Vec<_>>().join(","),
            kinds: Value::Object(
                FILES
                    .iter()
                    .map(|file| (file.mime.to_owned(), json!([file.kind, file.bytes_max])))
                    .collect(),
            )
            .to_string(),
        },
    )
}

/// What notifications told of a conversation is seen by whoever opens it; those of the latest page.
async fn read_notices(console: &Console, visitor: &Visitor, id: Uuid) {
    let answer = visitor
        .ask(console, Method::GET, "/api/v1/notifications/?unread=true&limit=200", None)
        .await;
    let all =
        answer.body.get("items").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let of = |notice: &&Value| {
        let about = notice.get("conversation").and_then(Value::as_str);
        about.and_then(|about| about.parse::<Uuid>().ok()) == Some(id)
    };
    for notice in all.iter().filter(of).filter_map(|notice| notice.get("id")?.as_str()) {
        visitor
            .ask(console, Method::POST, &format!("/api/v1/notifications/{notice}/read/"), None)
            .await;
    }
}

/// What is done with one: `do` says what.
pub(super) async fn act(State(console): App, Path(id): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    let one = path_of(id);
    let to = format!("/console/inbox/{id}/");
    let post = |what: &str| (Method::POST, format!("{one}{what}/"), None);
    let (method, path, body) = match form.get("do") {
        "send" => (
            Method::POST,
            format!("{one}messages/"),
            Some(json!({"type": "text", "text": form.get("text")})),
        ),
        "file" => {
            let kind = ["image", "video", "audio", "document"]
                .into_iter()
                .find(|kind| *kind == form.get("kind"));
            let Some(kind) = kind else {
                return failed(&console, &visitor, StatusCode::BAD_REQUEST, "");
            };
            let mut file = json!({"link": form.get("link")});
            // Sound has no words beside it.
            if let (Some(members), Some(caption), true) =
                (file.as_object_mut(), form.some("caption"), kind != "audio")
            {
                members.insert("caption".to_owned(), caption.into());
            }
            (Method::POST, format!("{one}messages/"), Some(json!({"type": kind, kind: file})))
        }
        "template" => {
            let template = template(&form);
            (
                Method::POST,
                format!("{one}messages/"),
                Some(json!({"type": "template", "template": template})),
            )
        }
        what @ ("close" | "archive" | "reopen" | "insights") => post(what),
        "ai-on" => (Method::PATCH, one, Some(json!({"aiEnabled": true}))),
        "ai-off" => (Method::PATCH, one, Some(json!({"aiEnabled": false}))),
        "delete" => (Method::DELETE, one, None),
        "permission" => match permission_path(&console, &visitor, &one).await {
            Some(path) => (Method::POST, path, None),
            None => return missing(&console, &visitor),
        },
        _ => return failed(&console, &visitor, StatusCode::BAD_REQUEST, ""),
    };
    let gone = method == Method::DELETE;
    let answer = visitor.ask(&console, method, &path, body.as_ref()).await;
    match answer.is_ok() {
        true => Redirect::to(if gone { "/console/inbox/" } else { &to }).into_response(),
        false => {
            let refused =
                Refused { draft: form.get("text").to_owned(), wrong: answer.message().to_owned() };
            shown(&console, &visitor, id, answer.status, refused).await
        }
    }
}

/// A template with what stands in its holes, one a line.
fn template(form: &Form) -> Value {
    let mut template =
        json!({"name": form.get("name"), "language": {"code": form.get("language")}});
    let values = form.get("values").lines().map(str::trim).filter(|value| !value.is_empty());
    let values: Vec<Value> = values.map(|value| json!({"type": "text", "text": value})).collect();
    if let (Some(members), false) = (template.as_object_mut(), values.is_empty()) {
        members.insert("components".to_owned(), json!([{"type": "body", "parameters": values}]));
    }
    template
}

#[derive(Template)]
#[template(path = "chat_call.html")]
struct Calling {
    page: Page,
    id: Uuid,
    name: String,
    number: String,
    endpoints: Vec<Named>,
    agents: Vec<Choice>,
    wrong: String,
}

async fn found(console: &Console, visitor: &Visitor, id: &str) -> Option<Conversation> {
    let id = id.parse::<Uuid>().ok()?;
    let answer = visitor.ask(console, Method::GET, &path_of(id), None).await;
    serde_json::from_value(answer.body).ok().filter(|_| Apis::serves(&Method::POST, CALLS))
}

/// What is to answer when the user picks up.
pub(super) async fn calling(
    State(console): App,
    Path(id): Path<String>,
    visitor: Visitor,
) -> Response {
    match found(&console, &visitor, &id).await {
        Some(conversation) => {
            call_page(&console, &visitor, &conversation, StatusCode::OK, String::new()).await
        }
        None => missing(&console, &visitor),
    }
}

async fn call_page(
    console: &Console,
    visitor: &Visitor,
    conversation: &Conversation,
    status: StatusCode,
    wrong: String,
) -> Response {
    let page = Calling {
        page: visitor.page(console, visitor.lang().t("inbox.call"), "inbox"),
        id: conversation.id,
        name: conversation.user.called(),
        number: named(console, visitor, &conversation.number),
        endpoints: super::phone::endpoints(console, visitor).await,
        agents: choices(console, visitor).await.into_iter().filter(|agent| agent.voice).collect(),
        wrong,
    };
    respond(status, &page)
}

/// Calls the user.
pub(super) async fn call(State(console): App, Path(id): Path<String>, posted: Posted) -> Response {
    let Posted { visitor, form } = posted;
    let Some(conversation) = found(&console, &visitor, &id).await else {
        return missing(&console, &visitor);
    };
    let mut order = json!({"from": conversation.number, "to": conversation.user.key()});
    if let (Some(members), Some((what, whom))) =
        (order.as_object_mut(), form.get("with").split_once(':'))
        && ["agent", "endpoint"].contains(&what)
    {
        members.insert(what.to_owned(), whom.into());
    }
    let answer = visitor.ask(&console, Method::POST, CALLS, Some(&order)).await;
    match answer
        .body
        .get("callUuid")
        .and_then(Value::as_str)
        .and_then(|call| call.parse::<Uuid>().ok())
    {
        Some(call) => Redirect::to(&format!("/console/calls/{call}/")).into_response(),
        None => {
            call_page(&console, &visitor, &conversation, answer.status, answer.message().to_owned())
                .await
        }
    }
}

/// Where a conversation's user is asked whether they may be called.
async fn permission_path(console: &Console, visitor: &Visitor, one: &str) -> Option<String> {
    let answer = visitor.ask(console, Method::GET, one, None).await;
    let conversation: Conversation = serde_json::from_value(answer.body).ok()?;
    Some(format!(
        "/api/v1/permissions/{}/{}/request/",
        conversation.number,
        conversation.user.key()
    ))
}

/// `/app/{tenant}/whatsapp`: where links of elsewhere lead. The tenant is the one of who is signed in.
pub(super) async fn from_app() -> Redirect {
    Redirect::to("/console/inbox/")
}

/// `/app/{tenant}/whatsapp/{id}`.
pub(super) async fn one_from_app(Path((_, id)): Path<(String, String)>) -> Redirect {
    match id.parse::<Uuid>() {
        Ok(id) => Redirect::to(&format!("/console/inbox/{id}/")),
        Err(_) if id == "notifications" => Redirect::to("/console/notifications/"),
        Err(_) => Redirect::to("/console/inbox/"),
    }
}
