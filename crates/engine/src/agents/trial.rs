//! One turn of an agent without a conversation, to try its settings.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use store::Agent;

use super::client::ReplySink;
use super::contract::{Channel, Piece, Question, Reply, User, UserInput};
use super::{AgentError, Agents};

/// The name of the user in the question.
const USER: &str = "Trial";

/// What an agent replied, and how long it took.
#[derive(Debug)]
pub struct Trial {
    pub reply: Result<Reply, AgentError>,
    pub took: Duration,
}

struct Sink {
    reply: Reply,
    chars_max: usize,
}

impl ReplySink for Sink {
    fn receive(&mut self, piece: Piece) -> Result<(), String> {
        self.reply.add(piece, self.chars_max)
    }

    fn receive_unknown(&mut self, key: &str) -> Result<(), String> {
        Err(format!("it has no `reply`, but the unknown key `{key}`"))
    }

    /// A trial shows the first error.
    fn retract(&mut self) -> bool {
        false
    }
}

impl Agents {
    /// Asks an agent for its reply to a text message. The question names a conversation that does
    /// not exist. Nothing is stored, and no user gets the reply.
    pub async fn try_turn(&self, agent: &Agent, number: &str, text: &str) -> Trial {
        let question = Question {
            conversation: Uuid::new_v4(),
            call: None,
            number: number.to_owned(),
            user: User { name: USER.to_owned(), ..User::default() },
            channel: Channel::Message,
            turn: 1,
            input: UserInput {
                kind: "text".to_owned(),
                text: text.to_owned(),
                media: Value::Null,
                digits: None,
                speech: None,
            },
            history: Vec::new(),
        };
        let mut sink =
            Sink { reply: Reply::default(), chars_max: agent.spec.max_reply_chars.into() };
        let _permit = match self.request_of_person(&agent.main_account).await {
            Ok(permit) => permit,
            Err(error) => return Trial { reply: Err(error), took: Duration::ZERO },
        };
        let begun = self.clock().now();
        let done = self.ask(agent, Uuid::new_v4(), &question, &mut sink).await;
        let took = self.clock().now().saturating_duration_since(begun);
        Trial { reply: done.map(|()| sink.reply), took }
    }
}
