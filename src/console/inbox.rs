//! The inbox: the list of conversations, and one conversation as a chat with its messages and
//! calls. Changes go through the number API.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::agents::{Choice, choices};
use super::auth::{SubmittedForm, Visitor};
use super::form::Form;
use super::i18n::Lang;
use super::numbers::{find_number, number_label, number_with_alias};
use super::page::{Page, bad_form, bad_query, failed, html, missing, object, respond};
use super::phone::EndpointRow;
use super::view::{self, When};
use super::{App, Console};
use crate::api::{ApiResponse, Apis};
use engine::inbox::FILES;
use model::E164;
use store::{NOTE, RecordingFilter};

/// Number of conversations listed beside an open one.
const PANE_ROWS: u32 = 30;
/// People that a conversation can be assigned to, at most.
const ASSIGNEES_MAX: usize = 1_000;
/// Maximum number of recordings of a call in a conversation. The page of the call lists all of
/// them.
const RECORDINGS_PER_CALL: u32 = 3;

/// API path that places a call.
const CALLS: &str = "/api/v1/calls/";

/// API path of the labels.
pub(super) const LABELS: &str = "/api/v1/labels/";
/// API path of the canned replies.
pub(super) const REPLIES: &str = "/api/v1/canned-replies/";

/// A conversation in the number API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Conversation {
    pub(super) id: Uuid,
    account: String,
    pub(super) number: String,
    pub(super) user: User,
    status: String,
    active_agent: Option<Uuid>,
    webhook: Option<Uuid>,
    ai_enabled: bool,
    last_message: LastMessage,
    window_expires_at: Option<String>,
    unread: u64,
    sentiment: Option<String>,
    summary: Option<String>,
    assignee: Option<Assignee>,
    labels: Vec<Label>,
}

/// A label.
#[derive(Clone, Deserialize)]
pub(super) struct Label {
    pub(super) id: Uuid,
    pub(super) name: String,
    /// The colour. The CSS class is `label-` and this word.
    pub(super) colour: String,
    pub(super) account: String,
}

/// A canned reply.
#[derive(Deserialize)]
pub(super) struct CannedReply {
    pub(super) id: Uuid,
    pub(super) shortcut: String,
    pub(super) text: String,
}

/// A label that a conversation can have.
struct LabelChoice {
    label: Label,
    is_set: bool,
}

/// A person to whom conversations are assigned.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assignee {
    id: Uuid,
    name: String,
    full_name: String,
}

impl Assignee {
    fn display_name(&self) -> &str {
        if self.full_name.is_empty() { &self.name } else { &self.full_name }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct User {
    wa_id: Option<String>,
    user_id: Option<String>,
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LastMessage {
    text: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    sender: Option<String>,
    sender_name: Option<String>,
    at: String,
}

/// Call permission of a user, and the remaining limits.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Permission {
    status: String,
    expires_at: Option<String>,
    /// When Meta was asked. `None` if it never was.
    checked_at: Option<String>,
    /// When the user last replied to a request. `None` if they never did.
    replied_at: Option<String>,
    calls_left: u32,
    /// When a call is possible again, if a limit is reached.
    next_call_at: Option<String>,
    requests_left: u32,
    next_request_at: Option<String>,
    /// Number of unanswered calls in a row, and whether Meta asks the user because of them.
    missed: u32,
    warned: bool,
}

#[derive(Deserialize)]
struct ConversationList {
    items: Vec<Conversation>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Timeline {
    items: Vec<Value>,
    next: Option<String>,
}

impl User {
    /// Identifier in API paths.
    fn key(&self) -> &str {
        self.wa_id.as_deref().or(self.user_id.as_deref()).unwrap_or_default()
    }

    fn formatted(&self) -> String {
        view::party(self.key())
    }

    pub(super) fn display_name(&self) -> String {
        if self.name.is_empty() { self.formatted() } else { self.name.clone() }
    }
}

/// CSS class of a conversation's status.
fn tone(status: &str) -> &'static str {
    if status == "open" { "good" } else { "missed" }
}

/// A conversation in the list.
struct Row {
    id: Uuid,
    name: String,
    /// The person's number.
    user: String,
    number: String,
    /// Who wrote the last message, with a colon. Empty if the user did.
    from: String,
    text: String,
    at: When,
    unread: u64,
    status: String,
    tone: &'static str,
    sentiment: String,
    /// Name of the agent that answers. Empty if people or the webhook answer.
    agent: String,
    ai: bool,
    /// Name of the person to whom it is assigned. Empty if there is none.
    assignee: String,
    labels: Vec<Label>,
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
    assignee: String,
    labels: Vec<Label>,
    label: String,
    /// Whether `label` was deleted since this page was linked.
    is_label_deleted: bool,
}

pub(super) async fn page(State(console): App, visitor: Visitor) -> Response {
    const FILTERS: &[&str] = &["status", "q", "unread", "assignee", "label"];
    if let Err(unreadable) = visitor.query.check_names(&[FILTERS, &["cursor"]]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    let query = &visitor.query;
    let path = format!("/api/v1/conversations/{}", query.only(&[FILTERS, &["cursor"]].concat()));
    let answer = visitor.ask(&console, Method::GET, &path, None).await;
    let Ok(list) = serde_json::from_value::<ConversationList>(answer.body.clone()) else {
        return failed(&console, &visitor, answer.status, answer.message());
    };
    let first = query.some("cursor").is_none();
    let agents = choices(&console, &visitor).await;
    let labels: Vec<Label> = visitor.items(&console, LABELS).await;
    let label = query.get("label").to_owned();
    html(&Inbox {
        rows: list.items.into_iter().map(|one| row(&console, &visitor, &agents, one)).collect(),
        next: list.next.map(|cursor| query.with("cursor", Some(&cursor))).unwrap_or_default(),
        filtered: FILTERS.iter().any(|name| query.some(name).is_some()),
        status: query.get("status").to_owned(),
        q: query.get("q").to_owned(),
        unread: query.some("unread").is_some(),
        assignee: query.get("assignee").to_owned(),
        is_label_deleted: !label.is_empty()
            && labels.iter().all(|known| known.id.to_string() != label),
        labels,
        label,
        page: visitor.page(&console, visitor.lang().t("nav.inbox"), "inbox").listening(if first {
            "conversation number agent"
        } else {
            ""
        }),
    })
}

/// Translates the text of a call in a conversation, which is stored in English.
fn call_words(lang: Lang, text: String, cause: &str) -> String {
    let seconds = |rest: Option<&str>| {
        let digits = rest?.strip_suffix(" s")?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.to_owned())
    };
    match text.as_str() {
        "Missed call" => return lang.t("inbox.call_missed").to_owned(),
        "Call to the user, not answered" => {
            let text = lang.find(&format!("cause.{cause}"));
            return match text.filter(|_| !["no_answer", "ring_timeout"].contains(&cause)) {
                Some(text) => lang.with("inbox.call_failed", &[text]),
                None => lang.t("inbox.call_unanswered").to_owned(),
            };
        }
        _ => {}
    }
    if let Some(call) = text.strip_suffix(", a person is needed") {
        let call = call_words(lang, call.to_owned(), cause);
        return lang.with("inbox.call_needs_person", &[call.trim_end_matches('.')]);
    }
    let unanswered = text.strip_suffix(", phones not answered");
    for (text, begin, key) in [
        (unanswered, "Call from the user, ", "inbox.call_phones_unanswered"),
        (Some(&*text), "Call from the user, ", "inbox.call_in"),
        (Some(&*text), "Call to the user, ", "inbox.call_out"),
    ] {
        if let Some(seconds) = seconds(text.and_then(|text| text.strip_prefix(begin))) {
            return lang.with(key, &[&seconds]);
        }
    }
    text
}

/// Translates the one-line summary of a message, which is stored in English.
fn preview(lang: Lang, kind: &str, text: String) -> String {
    let word = |kind: &str| lang.t(&format!("message.{kind}")).to_owned();
    let (head, rest) = text.split_once(": ").unwrap_or((&text, ""));
    match kind {
        "call" => call_words(lang, text, ""),
        "location" | "contacts" | "image" | "audio" | "video" | "document" | "sticker" => {
            if !head.eq_ignore_ascii_case(kind) {
                return text;
            }
            match rest {
                "" => word(kind),
                rest => format!("{}: {rest}", word(kind)),
            }
        }
        "interactive" => match (head, rest) {
            ("Call permission", "accept") => word("permission_granted"),
            ("Call permission", _) => word("permission_denied"),
            ("Asked for permission to call", "") => word("permission_requested"),
            ("Interactive message", "") => word("interactive"),
            _ => text,
        },
        "reaction" => match text.strip_prefix("Reacted ") {
            Some(emoji) => format!("{}: {emoji}", word("reaction")),
            None => lang.t("inbox.reaction_removed").to_owned(),
        },
        "unsupported" | "unknown" => word("unsupported"),
        _ => text,
    }
}

/// Who wrote an outbound message.
#[derive(Debug, Default, PartialEq, Eq)]
struct Writer {
    /// A short note of the writer. Empty if not known.
    by: String,
    /// The writer as an introduction to the text, with a colon. Empty if not known.
    from: String,
}

impl Writer {
    /// Describes a sender of the number API to the person with the sign-in name `reader`.
    fn of(lang: Lang, reader: &str, sender: &str, full_name: &str) -> Self {
        if let Some(name) = sender.strip_prefix("user:") {
            let by = if full_name.is_empty() { name } else { full_name };
            let from = match name == reader {
                true => lang.t("inbox.you").to_owned(),
                false => format!("{by}:"),
            };
            return Self { by: by.to_owned(), from };
        }
        let (by, from) = match sender {
            "" => return Self::default(),
            _ if sender.starts_with("agent:") => ("inbox.by_agent", "inbox.from_agent"),
            _ => ("inbox.by_api", "inbox.from_api"),
        };
        Self { by: lang.t(by).to_owned(), from: lang.t(from).to_owned() }
    }
}

/// Name of an agent. Empty if there is none.
pub(super) async fn agent_name(
    console: &Console,
    visitor: &Visitor,
    agent: Option<Uuid>,
) -> String {
    let Some(agent) = agent else { return String::new() };
    let path = format!("/api/v1/agents/{agent}/");
    let agent = visitor.ask(console, Method::GET, &path, None).await;
    agent.body.get("name").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn row(console: &Console, visitor: &Visitor, agents: &[Choice], conversation: Conversation) -> Row {
    let lang = visitor.lang();
    let LastMessage { text, kind, sender, sender_name, at } = conversation.last_message;
    let (sender, full_name) = (sender.unwrap_or_default(), sender_name.unwrap_or_default());
    let id = conversation.active_agent.map(|id| id.to_string());
    let agent = agents.iter().find(|agent| Some(&agent.id) == id.as_ref());
    Row {
        agent: agent.map(|agent| agent.name.clone()).unwrap_or_default(),
        ai: conversation.ai_enabled,
        assignee: conversation
            .assignee
            .map(|person| person.display_name().to_owned())
            .unwrap_or_default(),
        labels: conversation.labels,
        id: conversation.id,
        name: conversation.user.display_name(),
        user: conversation.user.formatted(),
        number: number_with_alias(console, visitor, &conversation.number),
        from: Writer::of(lang, &visitor.person.user.name, &sender, &full_name).from,
        text: preview(lang, kind.as_deref().unwrap_or("call"), text),
        at: When::read(&at),
        unread: conversation.unread,
        tone: tone(&conversation.status),
        status: conversation.status,
        sentiment: conversation.sentiment.unwrap_or_default(),
    }
}

/// How the file of a message is shown inline.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Preview {
    Image,
    Audio,
    Video,
    None,
}

impl Preview {
    /// Selects the preview. Only files of this node can be shown, because the content security
    /// policy forbids other origins.
    fn of(kind: &str, media: &str) -> Self {
        match kind {
            _ if !media.starts_with("/media/") => Self::None,
            "image" | "sticker" => Self::Image,
            "audio" | "voice" => Self::Audio,
            "video" => Self::Video,
            _ => Self::None,
        }
    }

    /// Whether the preview is the complete file, so that no link is needed.
    fn is_whole(self) -> bool {
        matches!(self, Self::Image | Self::Audio)
    }
}

/// A message or a call of the timeline.
struct TimelineItem {
    kind: String,
    outbound: bool,
    text: String,
    status: String,
    at: When,
    writer: Writer,
    /// URL of the file. Empty if absent.
    media: String,
    filename: String,
    preview: Preview,
    error: String,
    /// Meta's code of the error. Empty if it has none.
    error_code: String,
    /// The likely cause of the error and what to check. Empty if not known.
    error_hint: String,
    /// UUID of the call. Empty for a message.
    call: String,
    missed: bool,
    /// Transcript of a call with an agent.
    transcript: Vec<TranscriptLine>,
    recordings: Vec<CallRecording>,
    /// Id of a private note that the visitor may delete. Otherwise empty.
    deletable: String,
}

/// A recording of a call in the timeline.
struct CallRecording {
    url: String,
    length: String,
}

/// A line of a transcript.
struct TranscriptLine {
    by_user: bool,
    text: String,
}

/// The transcript of a call.
fn transcript(item: &Value) -> Vec<TranscriptLine> {
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
        .map(|line| TranscriptLine {
            by_user: text(line, "role") == "user",
            text: text(line, "text"),
        })
        .collect()
}

/// Explains one of Meta's error codes for messages: the likely cause and what to check.
fn error_hint(lang: Lang, code: i64) -> String {
    let group = match code {
        0 | 3 | 10 | 190 | 200..=299 | 131_005 => "access",
        130_429 | 131_048 | 131_056 | 4 | 613 | 80_007 | 80_008 => "rate",
        131_026 | 131_021 => "undeliverable",
        131_047 => "window",
        131_042 | 131_044 => "payment",
        368 | 131_031 | 130_497 => "locked",
        131_049 | 131_050 => "marketing",
        131_052 | 131_053 => "media",
        100 | 131_008 | 131_009 | 131_051 => "content",
        132_000..=132_999 => "template",
        _ => return String::new(),
    };
    lang.t(&format!("message_error.{group}")).to_owned()
}

/// Returns Meta's text for the error of a message and our explanation. If Meta gave none, the
/// explanation takes its place, or a note that there is none. Both are empty if the message has no
/// error.
fn failure_texts(lang: Lang, item: &Value) -> [String; 2] {
    let Some(error) = item.get("error").filter(|error| !error.is_null()) else {
        return Default::default();
    };
    let text = error.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
    let code = error.get("code").and_then(Value::as_i64);
    let hint = code.map(|code| error_hint(lang, code)).unwrap_or_default();
    match (text.is_empty(), hint.is_empty()) {
        (true, true) => [lang.t("inbox.error_without_text").to_owned(), hint],
        (true, false) => [hint, text],
        (false, _) => [text, hint],
    }
}

/// Kind of a message about the call permission, which has no text.
fn permission_kind(item: &Value) -> Option<&'static str> {
    let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str);
    match text("/interactive/call_permission_reply/response") {
        Some("accept") => Some("permission_granted"),
        Some(_) => Some("permission_denied"),
        None => (text("/interactive/type") == Some("call_permission_request"))
            .then_some("permission_requested"),
    }
}

/// Id of a private note that the visitor may delete. Empty for everything else.
fn deletable_note(visitor: &Visitor, item: &Value) -> String {
    let text = |name: &str| item.get(name).and_then(Value::as_str).unwrap_or_default();
    let own = format!("user:{}", visitor.person.user.name);
    match text("type") == NOTE && (visitor.is_admin() || text("sender") == own) {
        true => text("id").to_owned(),
        false => String::new(),
    }
}

fn line(visitor: &Visitor, item: &Value, base_url: &str) -> TimelineItem {
    let lang = visitor.lang();
    let text = |pointer: &str| {
        item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let kind = text("/type");
    let media = text("/media/url");
    // A relative URL, since the reader may use another host name of this node.
    let media = media.strip_prefix(base_url).map_or(media.clone(), str::to_owned);
    let of_call = call_words(lang, text("/call/text"), &text("/call/cause"));
    let error_code = item.pointer("/error/code").and_then(Value::as_i64);
    let [error, error_hint] = failure_texts(lang, item);
    let texts = [text("/text"), text("/media/caption"), of_call, text("/location/name")];
    TimelineItem {
        outbound: text("/direction") == "outbound",
        text: texts.into_iter().find(|text| !text.is_empty()).unwrap_or_default(),
        status: text("/status"),
        at: When::read(&text("/at")),
        deletable: deletable_note(visitor, item),
        writer: Writer::of(lang, &visitor.person.user.name, &text("/sender"), &text("/senderName")),
        preview: Preview::of(&kind, &media),
        media,
        filename: text("/media/filename"),
        error,
        error_code: error_code.map(|code| code.to_string()).unwrap_or_default(),
        error_hint,
        call: text("/call/uuid").parse::<Uuid>().map(|call| call.to_string()).unwrap_or_default(),
        missed: ["/call/missed", "/call/phonesUnanswered", "/call/needsPerson"]
            .iter()
            .any(|name| item.pointer(name).and_then(Value::as_bool) == Some(true)),
        transcript: transcript(item),
        recordings: Vec::new(),
        kind: permission_kind(item).map_or(kind, str::to_owned),
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
    lines: Vec<TimelineItem>,
    older: String,
    /// The latest conversations, beside this one.
    rows: Vec<Row>,
    /// Whether the customer service window is open, and its end.
    open: bool,
    /// Whether the number is disconnected, or belongs to another account now.
    is_number_gone: bool,
    until: Option<When>,
    ai: bool,
    agent: String,
    /// Whether a webhook receives the messages.
    has_webhook: bool,
    /// Name of the number's agent, if it does not answer this conversation.
    other_agent: String,
    /// Whether the number is inactive, so that its agent is paused in all conversations.
    silent: bool,
    /// The people to whom the conversation can be assigned, and its assignee.
    assignees: Vec<Assignee>,
    assignee: Option<Assignee>,
    labels: Vec<Label>,
    label_choices: Vec<LabelChoice>,
    sentiment: String,
    summary: String,
    permission: Permission,
    granted_until: Option<When>,
    next_call: Option<When>,
    next_request: Option<When>,
    /// Whether the node checks the call permission, in addition to Meta.
    checks_permission: bool,
    may_delete: bool,
    may_call: bool,
    /// Query of the list of the person's calls.
    calls: String,
    draft: String,
    note: String,
    wrong: String,
    /// Media types that may be sent, as the `accept` attribute; and message type and maximum size
    /// of each, as JSON.
    accepted: String,
    kinds: String,
    /// The canned replies for the script: pairs of shortcut and text, as JSON.
    replies: String,
}

/// Content and error of a rejected form.
#[derive(Default)]
struct RejectedForm {
    /// The text of a reply.
    draft: String,
    /// The text of a note.
    note: String,
    wrong: String,
}

pub(super) fn path_of(id: Uuid) -> String {
    format!("/api/v1/conversations/{id}/")
}

pub(super) async fn chat(
    State(console): App,
    Path(id): Path<String>,
    visitor: Visitor,
) -> Response {
    if let Err(unreadable) = visitor.query.check_names(&[&["cursor"]]) {
        return bad_query(&console, &visitor, &unreadable);
    }
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    render_chat(&console, &visitor, id, StatusCode::OK, RejectedForm::default()).await
}

async fn render_chat(
    console: &Console,
    visitor: &Visitor,
    id: Uuid,
    status: StatusCode,
    refused: RejectedForm,
) -> Response {
    // The timeline comes first, so that the unread count includes every message that is shown.
    let timeline = format!("{}timeline/{}", path_of(id), visitor.query.only(&["cursor"]));
    let timeline = visitor.ask(console, Method::GET, &timeline, None).await;
    let answer = visitor.ask(console, Method::GET, &path_of(id), None).await;
    if answer.status == StatusCode::NOT_FOUND {
        return missing(console, visitor);
    }
    let (Ok(conversation), Ok(timeline)) = (
        serde_json::from_value::<Conversation>(answer.body.clone()),
        serde_json::from_value::<Timeline>(timeline.body),
    ) else {
        return failed(console, visitor, StatusCode::BAD_GATEWAY, answer.message());
    };
    if visitor.unread > 0 {
        read_notices(console, visitor, id).await;
    }
    // Opening the conversation marks it as read, for the user too.
    if conversation.unread > 0 {
        visitor.ask(console, Method::POST, &format!("{}read/", path_of(id)), None).await;
    }
    let permission =
        format!("/api/v1/permissions/{}/{}/", conversation.number, conversation.user.key());
    let permission = visitor.ask(console, Method::GET, &permission, None).await;
    let mut permission: Permission = serde_json::from_value(permission.body).unwrap_or_default();
    let checks_permission = checks_permission(console, &conversation.number);
    let is_known = permission.checked_at.is_some() || permission.replied_at.is_some();
    if permission.status == "none" && !is_known {
        permission.status = "unknown".to_owned();
    }
    let of_number = number_label(console, visitor, &conversation.number);
    let agent = agent_name(console, visitor, conversation.active_agent).await;
    let of_account = find_number(console, visitor, &conversation.number).await.ok();
    // The number may be disconnected, or belong to another account since then.
    let of_account = of_account.filter(|number| number.account == conversation.account);
    let is_number_gone = of_account.as_ref().is_none_or(|number| !number.connected);
    let other_agent =
        of_account.and_then(|number| number.active_agent).and_then(|agent| agent.parse().ok());
    let other_agent = other_agent.filter(|agent| Some(*agent) != conversation.active_agent);
    let other_agent = agent_name(console, visitor, other_agent).await;
    let rows = latest(console, visitor).await;
    let path = format!("{}assignees/?limit=200", path_of(id));
    let replies: Vec<CannedReply> = visitor.items(console, REPLIES).await;
    let replies: Vec<_> = replies.into_iter().map(|reply| (reply.shortcut, reply.text)).collect();
    let assignees = visitor.items_of_pages(console, &path, ASSIGNEES_MAX, |_| ());
    let assignees: Vec<Assignee> = assignees.await;
    let mut lines: Vec<TimelineItem> = timeline
        .items
        .iter()
        .map(|item| line(visitor, item, &console.apis.api().base_url))
        .collect();
    for line in &mut lines {
        line.recordings = recordings(console, visitor, line).await;
    }
    let now = console.apis.api().clock.wall().rfc3339();
    let until = conversation.window_expires_at.as_deref();
    // Both are in UTC and the same format, so their seconds compare as text.
    let open = !is_number_gone && until.is_some_and(|until| until.get(..19) > now.get(..19));
    let name = conversation.user.display_name();
    let live = visitor.query.some("cursor").is_none() && refused.wrong.is_empty();
    let about = if live { "conversation call number agent" } else { "" };
    let page = visitor.page(console, &name, "inbox").listening(about);
    respond(
        status,
        &Chat {
            page,
            id,
            user: conversation.user.formatted(),
            name,
            number: view::with_alias(&of_number.alias, &conversation.number),
            silent: of_number.inactive,
            assignees,
            assignee: conversation.assignee,
            label_choices: label_choices(
                console,
                visitor,
                &conversation.account,
                &conversation.labels,
            )
            .await,
            labels: conversation.labels,
            tone: tone(&conversation.status),
            status: conversation.status,
            lines,
            rows,
            older: timeline
                .next
                .map(|cursor| visitor.query.with("cursor", Some(&cursor)))
                .unwrap_or_default(),
            open,
            is_number_gone,
            until: until.map(When::read),
            ai: conversation.ai_enabled,
            agent,
            has_webhook: conversation.webhook.is_some(),
            other_agent,
            sentiment: conversation.sentiment.unwrap_or_default(),
            summary: conversation.summary.unwrap_or_default(),
            granted_until: permission.expires_at.as_deref().map(When::read),
            next_call: permission.next_call_at.as_deref().map(When::read),
            next_request: permission.next_request_at.as_deref().map(When::read),
            permission,
            checks_permission,
            may_delete: visitor.is_admin(),
            may_call: Apis::serves(&Method::POST, CALLS),
            calls: Form::default().with("party", Some(conversation.user.key())),
            draft: refused.draft,
            note: refused.note,
            wrong: refused.wrong,
            accepted: FILES.iter().map(|file| file.mime).collect::<Vec<_>>().join(","),
            kinds: Value::Object(
                FILES
                    .iter()
                    .map(|file| (file.mime.to_owned(), json!([file.kind, file.bytes_max])))
                    .collect(),
            )
            .to_string(),
            replies: json!(replies).to_string(),
        },
    )
}

/// Returns the labels that a conversation of an account can have, and whether it has them.
async fn label_choices(
    console: &Console,
    visitor: &Visitor,
    account: &str,
    labels: &[Label],
) -> Vec<LabelChoice> {
    let all: Vec<Label> = visitor.items(console, LABELS).await;
    let own = all.into_iter().filter(|label| label.account == account);
    own.map(|label| {
        let is_set = labels.iter().any(|one| one.id == label.id);
        LabelChoice { label, is_set }
    })
    .collect()
}

/// Returns the latest conversations. Empty if they can't be read, because they are not the page's
/// subject.
async fn latest(console: &Console, visitor: &Visitor) -> Vec<Row> {
    let path = format!("/api/v1/conversations/?limit={PANE_ROWS}");
    let answer = visitor.ask(console, Method::GET, &path, None).await;
    let list = serde_json::from_value::<ConversationList>(answer.body);
    let items = list.map(|list| list.items).unwrap_or_default();
    items.into_iter().map(|one| row(console, visitor, &[], one)).collect()
}

/// The recordings of a call of the timeline.
async fn recordings(
    console: &Console,
    visitor: &Visitor,
    line: &TimelineItem,
) -> Vec<CallRecording> {
    let Ok(call) = line.call.parse() else { return Vec::new() };
    let filter = RecordingFilter { call: Some(call), ..RecordingFilter::default() };
    let store = &console.apis.api().store;
    let found =
        store.recordings().list(&visitor.person.scope(), &filter, RECORDINGS_PER_CALL, 0).await;
    let found = found.map(|(found, _)| found).unwrap_or_default().into_iter();
    found
        .map(|recording| CallRecording {
            url: console.apis.api().recordings.path(recording.id, &recording.format),
            length: view::recording_length(recording.duration_ms),
        })
        .collect()
}

/// Marks the notifications of a conversation as read, among the latest 200 unread ones.
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

/// Handles an action on a conversation, named by the field `do`.
pub(super) async fn act(
    State(console): App,
    Path(id): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let Ok(id) = id.parse::<Uuid>() else { return missing(&console, &visitor) };
    let one = path_of(id);
    let to = format!("/console/inbox/{id}/");
    let post = |what: &str| (Method::POST, format!("{one}{what}/"), None);
    let action = form.get("do");
    let (method, path, body) = match action {
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
                return bad_form(&console, &visitor, "kind");
            };
            let mut file = json!({"link": form.get("link")});
            // Audio messages have no caption.
            if let (Some(members), Some(caption), true) =
                (file.as_object_mut(), form.some("caption"), kind != "audio")
            {
                members.insert("caption".to_owned(), caption.into());
            }
            (Method::POST, format!("{one}messages/"), Some(json!({"type": kind, kind: file})))
        }
        "labels" => {
            // Only the difference, since somebody else may have changed the labels meanwhile.
            let [shown, chosen] = ["shown", "label"].map(|name| form.all(name).collect::<Vec<_>>());
            let add: Vec<_> = chosen.iter().filter(|id| !shown.contains(id)).collect();
            let remove: Vec<_> = shown.iter().filter(|id| !chosen.contains(id)).collect();
            (Method::PATCH, one, Some(json!({"addLabels": add, "removeLabels": remove})))
        }
        "assign" => {
            let person = form.some("assignee").map(str::to_owned);
            (Method::PATCH, one, Some(json!({"assignee": person})))
        }
        "assign-me" => {
            let me = visitor.person.user.id;
            (Method::PATCH, one, Some(json!({"assignee": me})))
        }
        "note" => {
            let body = json!({"text": form.get("note")});
            (Method::POST, format!("{one}notes/"), Some(body))
        }
        "delete-note" => match form.get("note").parse::<Uuid>() {
            Ok(note) => (Method::DELETE, format!("{one}notes/{note}/"), None),
            Err(_) => return missing(&console, &visitor),
        },
        "connect-agent" => (Method::POST, format!("{one}connect-agent/"), Some(json!({}))),
        what @ ("close" | "archive" | "reopen" | "insights") => post(what),
        "ai-on" => (Method::PATCH, one, Some(json!({"aiEnabled": true}))),
        "ai-off" => (Method::PATCH, one, Some(json!({"aiEnabled": false}))),
        "delete" => (Method::DELETE, one, None),
        "permission" => match permission_path(&console, &visitor, &one).await {
            Some(path) => (Method::POST, path, None),
            None => return missing(&console, &visitor),
        },
        _ => return bad_form(&console, &visitor, "do"),
    };
    let answer = visitor.ask(&console, method, &path, body.as_ref()).await;
    match answer.is_ok() {
        true => {
            Redirect::to(if action == "delete" { "/console/inbox/" } else { &to }).into_response()
        }
        false => {
            let refused = RejectedForm {
                draft: form.get("text").to_owned(),
                note: form.some("note").filter(|_| action == "note").unwrap_or_default().to_owned(),
                wrong: error_text(visitor.lang(), &answer),
            };
            render_chat(&console, &visitor, id, answer.status, refused).await
        }
    }
}

/// The message of a refused request, with a hint about Meta's error code.
pub(super) fn error_text(lang: Lang, answer: &ApiResponse) -> String {
    let code = answer.body.pointer("/error/meta/code").and_then(Value::as_i64);
    let hint = code.map(|code| error_hint(lang, code)).unwrap_or_default();
    format!("{} {hint}", answer.message()).trim_end().to_owned()
}

#[derive(Template)]
#[template(path = "chat_call.html")]
struct CallDialog {
    page: Page,
    id: Uuid,
    name: String,
    number: String,
    endpoints: Vec<EndpointRow>,
    agents: Vec<Choice>,
    wrong: String,
}

/// Whether the node checks the permission for calls from a number, in addition to Meta.
fn checks_permission(console: &Console, number: &str) -> bool {
    let tables = console.apis.api().gate.directory().tables();
    let number = E164::parse(number.trim_start_matches('+')).ok();
    number.and_then(|number| tables.by_number(&number)).is_none_or(|n| n.spec.permissions.enforce)
}

/// The conversation with this id, or the error page if the visitor can't see it.
pub(super) async fn find_conversation(
    console: &Console,
    visitor: &Visitor,
    id: &str,
) -> Result<Conversation, Box<Response>> {
    let id = id.parse::<Uuid>().map_err(|_| Box::new(missing(console, visitor)))?;
    let answer = visitor.ask(console, Method::GET, &path_of(id), None).await;
    object(console, visitor, &answer)
}

/// The page that selects who talks to the user when they answer.
pub(super) async fn call_dialog(
    State(console): App,
    Path(id): Path<String>,
    visitor: Visitor,
) -> Response {
    match find_conversation(&console, &visitor, &id).await {
        Ok(conversation) if Apis::serves(&Method::POST, CALLS) => {
            call_page(&console, &visitor, &conversation, StatusCode::OK, String::new()).await
        }
        Ok(_) => missing(&console, &visitor),
        Err(answer) => *answer,
    }
}

async fn call_page(
    console: &Console,
    visitor: &Visitor,
    conversation: &Conversation,
    status: StatusCode,
    wrong: String,
) -> Response {
    let page = CallDialog {
        page: visitor.page(console, visitor.lang().t("inbox.call"), "inbox"),
        id: conversation.id,
        name: conversation.user.display_name(),
        number: number_with_alias(console, visitor, &conversation.number),
        endpoints: super::phone::endpoints(console, visitor).await,
        agents: choices(console, visitor).await.into_iter().filter(|agent| agent.voice).collect(),
        wrong,
    };
    respond(status, &page)
}

/// Calls the user of a conversation.
pub(super) async fn call(
    State(console): App,
    Path(id): Path<String>,
    submitted: SubmittedForm,
) -> Response {
    let SubmittedForm { visitor, form } = submitted;
    let conversation = match find_conversation(&console, &visitor, &id).await {
        Ok(conversation) => conversation,
        Err(answer) => return *answer,
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

/// API path that requests the call permission of a conversation's user.
async fn permission_path(console: &Console, visitor: &Visitor, one: &str) -> Option<String> {
    let answer = visitor.ask(console, Method::GET, one, None).await;
    let conversation: Conversation = serde_json::from_value(answer.body).ok()?;
    Some(format!(
        "/api/v1/permissions/{}/{}/request/",
        conversation.number,
        conversation.user.key()
    ))
}

/// `/app/{tenant}/whatsapp`: target of links in other systems.
pub(super) async fn from_app(
    State(console): App,
    Path(tenant): Path<String>,
    visitor: Visitor,
) -> Response {
    open_from_app(&console, &visitor, &tenant, "/console/inbox/")
}

/// `/app/{tenant}/whatsapp/{id}`.
pub(super) async fn conversation_from_app(
    State(console): App,
    Path((tenant, id)): Path<(String, String)>,
    visitor: Visitor,
) -> Response {
    let target = match id.parse::<Uuid>() {
        Ok(id) => format!("/console/inbox/{id}/"),
        Err(_) if id == "notifications" => "/console/notifications/".to_owned(),
        Err(_) => "/console/inbox/".to_owned(),
    };
    open_from_app(&console, &visitor, &tenant, &target)
}

/// Redirects to a page, unless the tenant is the auth ID of another main account. Other names of
/// tenants come from the linking system and are not checked.
fn open_from_app(console: &Console, visitor: &Visitor, tenant: &str, target: &str) -> Response {
    let is_main_account = tenant.len() == 20 && tenant.starts_with("MA");
    match is_main_account && visitor.person.user.account.as_str() != tenant {
        true => {
            failed(console, visitor, StatusCode::NOT_FOUND, visitor.lang().t("inbox.other_account"))
        }
        false => Redirect::to(target).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_message_without_a_text_is_shown_as_failed() {
        let texts = |error: Value| failure_texts(Lang::En, &json!({"error": error}));
        let hint = error_hint(Lang::En, 131_026);
        assert_eq!(texts(json!({"code": 1, "message": ""})), ["Meta gave no reason.", ""]);
        assert_eq!(texts(json!({"code": 131_026, "message": ""})), [&*hint, ""]);
        assert_eq!(texts(json!({"code": 131_026, "message": "Because."})), ["Because.", &hint]);
        assert_eq!(texts(Value::Null), ["", ""]);
    }

    #[test]
    fn previews_are_translated_except_what_people_wrote() {
        for (kind, stored, shown) in [
            ("text", "Image: Missed call", "Image: Missed call"),
            ("image", "Image", "Bild"),
            ("document", "Document: Order: 4711", "Dokument: Order: 4711"),
            ("location", "Location: Home", "Standort: Home"),
            ("contacts", "Contacts", "Kontakte"),
            ("call", "Missed call", "Verpasster Anruf"),
            ("reaction", "Reacted 👍", "Reaktion: 👍"),
            ("reaction", "Reaction removed", "Reaktion entfernt"),
            ("interactive", "Call permission: accept", "Anrufberechtigung erteilt"),
            ("interactive", "Asked for permission to call", "Anrufberechtigung angefragt"),
            ("interactive", "Yes, please", "Yes, please"),
        ] {
            assert_eq!(preview(Lang::De, kind, stored.to_owned()), shown, "{kind}");
        }
    }

    #[test]
    fn names_the_writer_of_a_message() {
        let of = |sender, full_name| {
            let Writer { by, from } = Writer::of(Lang::En, "asha", sender, full_name);
            (by, from)
        };
        let is = |by: &str, from: &str| (by.to_owned(), from.to_owned());
        assert_eq!(of("user:asha", "Asha Verma"), is("Asha Verma", "You:"));
        assert_eq!(of("user:ravi", "Ravi Iyer"), is("Ravi Iyer", "Ravi Iyer:"));
        assert_eq!(of("user:former", ""), is("former", "former:"));
        assert_eq!(of("agent:5c0e6a1d", ""), is("by agent", "Agent:"));
        assert_eq!(of("api-key:5c0e6a1d", ""), is("over the API", "API:"));
        assert_eq!(of("", ""), is("", ""));
    }

    #[test]
    fn an_outgoing_call_that_failed_names_the_cause() {
        let words =
            |cause| call_words(Lang::En, "Call to the user, not answered".to_owned(), cause);
        assert_eq!(words("no_permission"), "Outgoing call: No call permission");
        assert_eq!(words("no_answer"), "Outgoing call, not answered");
        assert_eq!(words(""), "Outgoing call, not answered");
        let text = "Call from the user, 12 s, phones not answered".to_owned();
        assert_eq!(
            call_words(Lang::En, text, ""),
            "Incoming call, 12 s. Nobody answered the phones."
        );
        let text = "Call from the user, 12 s, a person is needed".to_owned();
        let shown = call_words(Lang::En, text, "");
        assert_eq!(shown, "Incoming call, 12\u{a0}s. A person is needed.");
    }
}
