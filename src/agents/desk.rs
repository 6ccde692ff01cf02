//! Agents answer messages: turns out of the inbox, one at a time in each conversation and in order, many conversations
//! beside each other. What an agent replies goes back by [`Inbox::reply`], which refuses it where somebody else answers by
//! then. Automatons that write to each other, and agents that fail, end with a person being wanted.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Agents;
use super::contract::{Action, Channel, Line, Question, Reply, Role, Said, User, text_of};
use super::pace::Pace;
use crate::inbox::{Inbox, NotSent, Outgoing, Turn, words};
use crate::model::{ConversationStatus, Direction, NoticeTopic, stable_id};
use crate::notices::Notice;
use crate::store::{Agent, AgentChannel, ConversationChange, Scope, StoreError};

/// Turns under way at a time, of all conversations.
const AT_ONCE: usize = 256;
/// Turns of one conversation that wait; a further one is not answered.
const LANE_MAX: usize = 32;

/// Why a person is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The agent says so.
    Asked,
    /// It did not reply.
    Failed,
    /// The other end is an automaton too.
    Loop,
}

impl Why {
    fn word(self) -> &'static str {
        match self {
            Self::Asked => "agent",
            Self::Failed => "agent_failed",
            Self::Loop => "loop",
        }
    }
}

/// Empties the inbox's turns until the node stops. Does nothing where somebody else does.
pub async fn answer_messages(agents: Agents, inbox: Inbox, stop: CancellationToken) {
    let Some(turns) = inbox.turns() else { return };
    let desk = Desk { agents, inbox };
    desk.run(turns, stop).await;
}

#[derive(Clone)]
struct Desk {
    agents: Agents,
    inbox: Inbox,
}

impl Desk {
    async fn run(self, mut turns: mpsc::Receiver<Turn>, stop: CancellationToken) {
        let mut lanes: HashMap<Uuid, VecDeque<(Turn, bool)>> = HashMap::new();
        let mut work = JoinSet::new();
        let mut running: HashMap<Id, Uuid> = HashMap::new();
        let mut pace = Pace::default();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(done) = work.join_next_with_id(), if !work.is_empty() => {
                    // One that panicked leaves its conversation to the next turn.
                    let (id, forget) = done.unwrap_or_else(|fault| (fault.id(), false));
                    let Some(conversation) = running.remove(&id) else { continue };
                    if forget {
                        pace.forget(conversation);
                    }
                    match lanes.get_mut(&conversation).and_then(VecDeque::pop_front) {
                        Some((turn, too_fast)) => {
                            running.insert(self.begin(&mut work, turn, too_fast), conversation);
                        }
                        None => drop(lanes.remove(&conversation)),
                    }
                }
                turn = turns.recv(), if work.len() < AT_ONCE => {
                    let Some(turn) = turn else { return };
                    let conversation = turn.pair.conversation;
                    let too_fast = pace.is_too_fast(conversation, self.agents.clock().now());
                    match lanes.get_mut(&conversation) {
                        Some(lane) if lane.len() < LANE_MAX => lane.push_back((turn, too_fast)),
                        Some(_) => {
                            tracing::warn!(%conversation, "too many messages wait for an agent: one is not answered");
                            self.inbox.settle_turn(&turn).await;
                        }
                        None => {
                            lanes.insert(conversation, VecDeque::new());
                            running.insert(self.begin(&mut work, turn, too_fast), conversation);
                        }
                    }
                }
            }
        }
    }

    fn begin(&self, work: &mut JoinSet<bool>, turn: Turn, too_fast: bool) -> Id {
        let desk = self.clone();
        let task = work.spawn(async move {
            let conversation = turn.pair.conversation;
            let answered = desk.answer(&turn, too_fast).await;
            match &answered {
                Ok(_) => desk.inbox.settle_turn(&turn).await,
                // The next process tries once more.
                Err(error) => tracing::warn!(%conversation, %error, "a message to an agent could not be answered"),
            }
            answered.unwrap_or_default()
        });
        task.id()
    }

    /// One turn; whether people have taken over, and the count of turns begins anew.
    async fn answer(&self, turn: &Turn, too_fast: bool) -> Result<bool, StoreError> {
        let (pair, scope) = (&turn.pair, Scope::Main(turn.pair.main_account.clone()));
        let store = self.agents.store();
        if !self.is_current(turn, &scope).await? {
            return Ok(false);
        }
        let agent = store.agent(&scope, turn.agent).await?;
        let Some(agent) = agent.filter(|agent| agent.spec.serves(AgentChannel::Whatsapp)) else { return Ok(false) };
        if too_fast || self.is_ours(&pair.user.id) {
            return self.escalate(turn, &agent, Why::Loop).await;
        }
        let question = self.question(turn, &agent, &scope).await?;
        let mut reply = Reply::default();
        let (max, mut wrong) = (usize::from(agent.spec.max_reply_chars), None);
        let mut on = |piece| {
            if let Err(why) = reply.add(piece, max) {
                wrong = Some(why);
            }
        };
        // A turn that is taken up again after a restart is the same event.
        let event = stable_id("turn", &[&turn.message.id.to_string()]);
        let asked = self.agents.ask(&agent, event, &question, &mut on).await;
        if let Some(why) = asked.err().map(|e| e.to_string()).or(wrong) {
            tracing::warn!(agent = %agent.id, why, "an agent failed in a conversation");
            return self.escalate(turn, &agent, Why::Failed).await;
        }
        let outgoing: Vec<Outgoing> = reply.items.iter().filter_map(outgoing).collect();
        if !outgoing.is_empty() {
            match self.inbox.reply(turn, outgoing).await {
                Ok(_) => {}
                // Somebody else answers now.
                Err(NotSent::Stale | NotSent::Gone) => return Ok(false),
                Err(error) => {
                    tracing::warn!(agent = %agent.id, ?error, "an agent's reply could not be sent");
                    return self.escalate(turn, &agent, Why::Failed).await;
                }
            }
        }
        match reply.action {
            Some(Action::Escalate) => self.escalate(turn, &agent, Why::Asked).await,
            Some(Action::Close) if self.is_current(turn, &scope).await? => {
                let close = ConversationChange { status: Some(ConversationStatus::Closed), ..Default::default() };
                self.inbox.change(&scope, pair, close).await?;
                Ok(false)
            }
            // Of calls; or it is nobody's to close any more.
            Some(Action::Close | Action::Hangup | Action::Transfer(_)) | None => Ok(false),
        }
    }

    /// Whether the agent that was to answer still is.
    async fn is_current(&self, turn: &Turn, scope: &Scope) -> Result<bool, StoreError> {
        if self.inbox.is_silent(&turn.pair.number) {
            return Ok(false);
        }
        let found = self.agents.store().conversation(scope, turn.pair.conversation).await?;
        Ok(found.is_some_and(|conversation| {
            let now = conversation.standing;
            now.ai_enabled && now.epoch == turn.epoch && now.routing.agent() == Some(turn.agent)
        }))
    }

    /// Whether that is a business number of this node's.
    fn is_ours(&self, user: &str) -> bool {
        let number = crate::model::E164::parse(user);
        number.is_ok_and(|number| self.agents.directory().tables().by_number(&number).is_some())
    }

    async fn question(&self, turn: &Turn, agent: &Agent, scope: &Scope) -> Result<Question, StoreError> {
        let (pair, message) = (&turn.pair, &turn.message);
        let before = Some((message.at.micros(), message.id));
        let lines = u32::from(agent.spec.history_turns) * 2;
        let mut earlier = match lines {
            0 => Vec::new(),
            lines => self.agents.store().messages(scope, pair.conversation, before, lines).await?,
        };
        earlier.reverse();
        let said = |kind: &str, text: &str| kind != "call" && !text.is_empty();
        let history = earlier.iter().map(|m| &m.message).filter(|m| said(&m.kind, &m.text)).map(|m| Line {
            role: if m.direction == Direction::Inbound { Role::User } else { Role::Assistant },
            text: words::text_of(&m.kind, &m.content).unwrap_or_else(|| m.text.clone()),
            at: m.at.rfc3339(),
        });
        let history: Vec<Line> = history.collect();
        let turns = history.iter().filter(|line| line.role == Role::User).count();
        let url = words::media(&message.content, &message.kind).map(|_| self.inbox.media_url(message.id));
        let shown = words::message(message, url.as_deref());
        let digits = pair.user.id.bytes().all(|b| b.is_ascii_digit());
        Ok(Question {
            conversation: pair.conversation,
            call: None,
            number: pair.number.as_str().to_owned(),
            user: User {
                wa_id: pair.user.id.clone(),
                user_id: pair.user.bsuid.clone().or_else(|| (!digits).then(|| pair.user.id.clone())),
                name: pair.user.name.clone(),
            },
            channel: Channel::Message,
            turn: u64::try_from(turns).unwrap_or_default() + 1,
            input: Said {
                kind: message.kind.clone(),
                text: words::text_of(&message.kind, &message.content).unwrap_or_else(|| message.text.clone()),
                media: shown.get("media").cloned().unwrap_or_default(),
                digits: None,
                speech: None,
            },
            history,
        })
    }

    /// A person is wanted: a notification, an event, and the agent is silent from now on unless it may be well again.
    async fn escalate(&self, turn: &Turn, agent: &Agent, why: Why) -> Result<bool, StoreError> {
        let (pair, scope) = (&turn.pair, Scope::Main(turn.pair.main_account.clone()));
        // Somebody else answers by now: nobody need be called.
        if !self.is_current(turn, &scope).await? {
            return Ok(false);
        }
        let who = if pair.user.name.is_empty() { &pair.user.id } else { &pair.user.name };
        let name = &agent.spec.name;
        let text = match why {
            Why::Asked => format!("{name} asks a person to take over from {who}"),
            Why::Failed => format!("{name} did not answer {who}: a person is wanted"),
            Why::Loop => format!("{who} seems to be an automaton: {name} answers no more"),
        };
        let topic = NoticeTopic::Escalation;
        self.agents.notices().note(Notice {
            number: Some(pair.number.as_str().to_owned()),
            user: Some(pair.user.id.clone()),
            conversation: Some(pair.conversation),
            ..Notice::new(pair.account.clone(), pair.main_account.clone(), topic, text)
        });
        let number = self.agents.directory().tables().by_number(&pair.number).cloned();
        if let Some(number) = number {
            let data = json!({
                "conversation": pair.conversation, "agent": agent.id, "reason": why.word(), "user": words::user(&pair.user),
            });
            self.inbox.tell_number(&number, "conversation.escalated", data);
        }
        if why != Why::Failed {
            let silent = ConversationChange { ai_enabled: Some(false), ..Default::default() };
            self.inbox.change(&scope, pair, silent).await?;
        }
        Ok(why != Why::Failed)
    }
}

/// A message of a reply, as it goes out; none: it has nothing in it.
fn outgoing(item: &Map<String, Value>) -> Option<Outgoing> {
    if let Some(text) = text_of(item) {
        return (!text.trim().is_empty()).then(|| Outgoing::text(text));
    }
    let kind = item.get("type")?.as_str()?.to_owned();
    let mut content = item.clone();
    content.remove("type");
    Some(Outgoing { kind, content: Value::Object(content) })
}
