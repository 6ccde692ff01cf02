//! `POST /api/v1/conversations/{conversation_id}/insights/`: the sentiment and a summary of a
//! conversation.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error::ApiError;
use super::super::routes::{Operation, ResponseSpec};
use super::conversations;
use super::request::ApiRequest;
use super::response::ok;
use super::route::{NOT_FOUND, Route, handler};
use engine::agents::contract::{Line, Role as Speaker};
use engine::inbox::words;
use model::{Direction, Role};
use store::{ConversationChange, Insights};

/// Maximum number of messages that are assessed. The latest ones are used.
const MESSAGES: u32 = 200;

pub(super) const ROUTES: &[Route] = &[Route {
    role: Role::Agent,
    handler: handler!(assess),
    operation: Operation::post(
        "/api/v1/conversations/{conversation_id}/insights/",
        "assessConversation",
        "Assess a conversation: sentiment and summary, by the node's model or a simple estimate",
    )
    .responses(&[ResponseSpec::json::<ConversationInsights>(200, "The insights"), NOT_FOUND]),
}];

/// The sentiment and the summary of a conversation.
#[derive(Serialize, ToSchema)]
struct ConversationInsights {
    /// `positive`, `neutral` or `negative`.
    sentiment: String,
    /// The sentiment score, from -1 (negative) to 1 (positive).
    score: f64,
    summary: String,
    /// The origin of the insights: the name of the model, or `local`.
    by: String,
}

async fn assess(request: ApiRequest) -> Result<Response, ApiError> {
    let conversation = conversations::find(&request).await?;
    let (api, scope) = (request.api(), request.scope());
    let messages =
        api.store.messages().list(scope, conversation.pair.conversation, None, MESSAGES).await;
    let mut messages = messages.map_err(ApiError::store("read the messages of a conversation"))?;
    messages.reverse();
    let lines = messages.iter().map(|m| &m.message).filter(|m| m.is_exchanged()).map(|m| Line {
        role: if m.direction == Direction::Inbound { Speaker::User } else { Speaker::Assistant },
        text: words::text_of(&m.kind, &m.content).unwrap_or_else(|| m.text.clone()),
        at: m.at.rfc3339(),
    });
    let insight = api.agents.insight(&request.main_account(), &lines.collect::<Vec<_>>()).await;
    let insights = Insights {
        sentiment: insight.sentiment.to_owned(),
        score: insight.score,
        summary: insight.summary.clone(),
        by: insight.by.clone(),
        at: api.clock.wall(),
    };
    let change = ConversationChange { insights: Some(insights), ..ConversationChange::default() };
    let stored = api.inbox.conversations().change(scope, &conversation.pair, change).await;
    stored.map_err(ApiError::store("store the insights of a conversation"))?;
    let (sentiment, score) = (insight.sentiment.to_owned(), insight.score);
    Ok(ok(&ConversationInsights { sentiment, score, summary: insight.summary, by: insight.by }))
}
