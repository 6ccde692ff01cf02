//! `POST /api/v1/conversations/{id}/insights/`: how a user feels, and what it was about (`number-api.md` §4).

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::super::error;
use super::super::routes::{Answer, Content, Route, of};
use super::ask::{self, Asked, Fault};
use crate::agents::contract::{Line, Role};
use crate::inbox::words;
use model::Direction;
use store::{ConversationChange, Insights};

/// Messages that are looked at, the latest.
const MESSAGES: u32 = 200;

/// What is served.
pub(super) const ROUTES: &[Route] = &[Route {
    method: "POST",
    path: "/api/v1/conversations/{conversation_id}/insights/",
    id: "assessConversation",
    summary: "Sentiment and summary, by the node's model or, without one, by a plain reckoning",
    query: &[],
    body: None,
    answers: &[
        Answer { status: 200, what: "What it is like", content: Content::Json(of::<Shown>) },
        Answer {
            status: 404,
            what: "There is none",
            content: Content::Json(of::<error::OurBody<'static>>),
        },
    ],
}];

/// What a conversation is like.
#[derive(Serialize, ToSchema)]
#[schema(as = ConversationInsights)]
pub(super) struct Shown {
    /// `positive`, `neutral` or `negative`.
    sentiment: String,
    /// From -1 to 1.
    score: f64,
    summary: String,
    /// The model's name, or `local`.
    by: String,
}

/// `POST …/conversations/{id}/insights/`.
pub(super) async fn make(asked: &Asked, id: &str) -> Result<Response, Fault> {
    let conversation = super::conversations::found(asked, id).await?;
    let (api, scope) = (asked.api(), asked.scope());
    let messages =
        api.store.messages().list(scope, conversation.pair.conversation, None, MESSAGES).await;
    let mut messages = messages.map_err(ask::store("read a conversation's messages"))?;
    messages.reverse();
    let lines = messages.iter().map(|m| &m.message).filter(|m| m.kind != "call").map(|m| Line {
        role: if m.direction == Direction::Inbound { Role::User } else { Role::Assistant },
        text: words::text_of(&m.kind, &m.content).unwrap_or_else(|| m.text.clone()),
        at: m.at.rfc3339(),
    });
    let made = api.agents.insight(&lines.collect::<Vec<_>>()).await;
    let insights = Insights {
        sentiment: made.sentiment.to_owned(),
        score: made.score,
        summary: made.summary.clone(),
        by: made.by.clone(),
        at: api.clock.wall(),
    };
    let change = ConversationChange { insights: Some(insights), ..ConversationChange::default() };
    let kept = api.inbox.change(scope, &conversation.pair, change).await;
    kept.map_err(ask::store("keep what a conversation is like"))?;
    let (sentiment, score) = (made.sentiment.to_owned(), made.score);
    Ok(ask::ok(&Shown { sentiment, score, summary: made.summary, by: made.by }))
}
