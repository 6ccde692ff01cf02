//! Agents answer messages: turns out of the inbox, one at a time in each conversation and in order, many conversations
//! beside each other, but of one agent and of one account not so many that others wait for them (`places`). What an agent
//! owes stands in the store until it is answered: what an earlier process left, and what found no room, is found there.
//! What an agent replies goes back by [`Inbox::reply`], which refuses it where somebody else answers by then. Automatons
//! that write to each other, and agents that fail, end with a person being wanted.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Agents;
use super::asking::Hearer;
use super::contract::{Action, Channel, Line, Piece, Question, Reply, Role, Said, User, text_of};
use super::pace::Pace;
use super::places::Places;
use crate::inbox::{Inbox, NotSent, Outgoing, Turn, words};
use crate::notices::Notice;
use model::{ConversationStatus, Direction, NotificationTopic, stable_id};
use store::{AfterReply, Agent, AgentChannel, ConversationChange, PendingReply, Scope, StoreError};

/// Turns of one conversation that wait in memory; a further one waits in the store.
const LANE_MAX: usize = 32;
/// Turns in memory at most.
const HELD_MAX: usize = 4_096;
/// How often the store is asked for what is owed and not in memory.
const LOOK: Duration = Duration::from_secs(5);
/// Turns read at once.
const PAGE: u32 = 500;
/// How often a reply is tried whose number has too much to say, and how many seconds it waits between two tries at most.
const REPLY_TRIES: u32 = 10;
const REPLY_WAIT: u64 = 5;
/// A message that waited longer is a person's to answer: the user does not expect an automaton any more.
const LATE: Duration = Duration::from_secs(15 * 60);

/// Why a person is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    /// The agent says so.
    Asked,
    /// It did not reply.
    Failed,
    /// The other end is an automaton too.
    Loop,
    /// It was switched off, has no messages any more, or is not there.
    Off,
    /// The message waited for too long.
    Late,
}

impl Why {
    fn word(self) -> &'static str {
        match self {
            Self::Asked => "agent",
            Self::Failed => "agent_failed",
            Self::Loop => "loop",
            Self::Off => "agent_off",
            Self::Late => "agent_late",
        }
    }

    /// Whether the agent is silent from now on: it may be well again after a failure.
    fn silences(self) -> bool {
        match self {
            Self::Asked | Self::Loop | Self::Off => true,
            Self::Failed | Self::Late => false,
        }
    }
}

/// Empties the inbox's turns until the node stops. Does nothing where somebody else does.
pub async fn answer_messages(agents: Agents, inbox: Inbox, stop: CancellationToken) {
    let Some(turns) = inbox.turns() else { return };
    let desk = Desk { agents, inbox };
    stop.run_until_cancelled(desk.run(turns)).await;
}

#[derive(Clone)]
struct Desk {
    agents: Agents,
    inbox: Inbox,
}

/// A turn as it waits.
struct Waits {
    turn: Turn,
    too_fast: bool,
    /// Its reply is out, and this is left.
    then: Option<AfterReply>,
}

/// A reply that is sent when it is whole: a try that breaks off is no part of it.
struct Heard {
    reply: Reply,
    max: usize,
}

impl Hearer for Heard {
    fn hear(&mut self, piece: Piece) -> Result<(), String> {
        self.reply.add(piece, self.max)
    }

    fn take_back(&mut self) -> bool {
        self.reply = Reply::default();
        true
    }
}

/// What is in memory.
#[derive(Default)]
struct Held {
    /// By conversation; the first of each is under way, or in line for its agent.
    lanes: HashMap<Uuid, VecDeque<Waits>>,
    messages: HashSet<Uuid>,
    places: Places<Uuid>,
    pace: Pace,
}

impl Held {
    /// Takes a turn in; one that is here already, or that finds no room, is passed over.
    fn take(&mut self, desk: &Desk, turn: Turn, then: Option<AfterReply>) {
        let conversation = turn.pair.conversation;
        let full = self.messages.len() >= HELD_MAX
            || self.lanes.get(&conversation).is_some_and(|l| l.len() >= LANE_MAX);
        if full || !self.messages.insert(turn.message.id) {
            return;
        }
        let too_fast =
            then.is_none() && self.pace.is_too_fast(conversation, desk.agents.clock().now());
        let (agent, account) = (turn.agent, turn.pair.main_account.clone());
        let lane = self.lanes.entry(conversation).or_default();
        lane.push_back(Waits { turn, too_fast, then });
        if lane.len() == 1 {
            self.places.line_up(agent, account, conversation);
        }
    }
}

impl Desk {
    async fn run(self, mut turns: mpsc::Receiver<Turn>) {
        let mut held = Held::default();
        let mut work = JoinSet::new();
        let mut running: HashMap<Id, Uuid> = HashMap::new();
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                Some(done) = work.join_next_with_id(), if !work.is_empty() => {
                    // One that panicked leaves its conversation to the next turn.
                    let (id, forget) = done.unwrap_or_else(|fault| (fault.id(), false));
                    if let Some(conversation) = running.remove(&id) {
                        self.ended(&mut held, conversation, forget);
                    }
                }
                // Never waits for an agent: what does not fit stays in the store.
                turn = turns.recv() => {
                    let Some(turn) = turn else { return };
                    held.take(&self, turn, None);
                }
                _ = look.tick() => self.look(&mut held).await,
            }
            while let Some(conversation) = held.places.next() {
                let Some(first) =
                    held.lanes.get_mut(&conversation).and_then(|lane| lane.front_mut())
                else {
                    continue;
                };
                running.insert(self.begin(&mut work, first), conversation);
            }
        }
    }

    fn ended(&self, held: &mut Held, conversation: Uuid, forget: bool) {
        if forget {
            held.pace.forget(conversation);
        }
        let Some(lane) = held.lanes.get_mut(&conversation) else { return };
        if let Some(Waits { turn, .. }) = lane.pop_front() {
            held.messages.remove(&turn.message.id);
            held.places.free(&turn.agent, &turn.pair.main_account);
        }
        match lane.front() {
            Some(next) => held.places.line_up(
                next.turn.agent,
                next.turn.pair.main_account.clone(),
                conversation,
            ),
            None => drop(held.lanes.remove(&conversation)),
        }
    }

    /// Reads what is owed and not in memory: left by an earlier process, come by the journal, or turned away here.
    async fn look(&self, held: &mut Held) {
        let mut after = (i64::MIN, Uuid::nil());
        while held.messages.len() < HELD_MAX {
            let owed = match self
                .agents
                .store()
                .turns()
                .pending(self.inbox.node_id(), after, PAGE)
                .await
            {
                Ok(owed) => owed,
                Err(error) => {
                    return tracing::warn!(%error, "what agents are to answer can't be read; trying again");
                }
            };
            let Some(last) = owed.last() else { return };
            after = (last.message.message.at.micros(), last.message.message.id);
            for PendingReply { pair, message, agent, epoch, then } in owed {
                held.take(self, Turn { pair, agent, epoch, message: message.message }, then);
            }
        }
    }

    fn begin(&self, work: &mut JoinSet<bool>, waits: &Waits) -> Id {
        let desk = self.clone();
        let Waits { turn, too_fast, then } = waits;
        let (turn, too_fast, then) = (turn.clone(), *too_fast, *then);
        let task = work.spawn(async move {
            let conversation = turn.pair.conversation;
            let answered = match then {
                Some(then) => desk.finish(&turn, None, then).await,
                None => desk.answer(&turn, too_fast).await,
            };
            match answered {
                Ok(people) => {
                    // Answered, or not to be answered any more: a reply took it away already.
                    if let Err(error) = desk.agents.store().turns().finish(turn.message.id).await {
                        tracing::warn!(%conversation, %error, "an answer that was given is noted as owed");
                    }
                    people
                }
                Err(error) => {
                    tracing::warn!(%conversation, %error, "a message to an agent is answered later");
                    false
                }
            }
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
        let agent = store.agents().get(&scope, turn.agent).await?;
        // Its own account's conversations, and a main account's agent its subaccounts'.
        let may =
            |agent: &Agent| agent.account == pair.account || agent.account == pair.main_account;
        let Some(agent) =
            agent.filter(|agent| may(agent) && agent.spec.serves(AgentChannel::Whatsapp))
        else {
            return self.escalate(turn, None, Why::Off).await;
        };
        if too_fast || self.is_ours(&pair.user.id) {
            return self.escalate(turn, Some(&agent), Why::Loop).await;
        }
        if self.agents.clock().wall().since(turn.message.at) > LATE {
            return self.escalate(turn, Some(&agent), Why::Late).await;
        }
        let question = self.question(turn, &agent, &scope).await?;
        let mut heard =
            Heard { reply: Reply::default(), max: usize::from(agent.spec.max_reply_chars) };
        // A turn that is taken up again after a restart is the same event.
        let event = stable_id("turn", &[&turn.message.id.to_string()]);
        if let Err(error) = self.agents.ask(&agent, event, &question, &mut heard).await {
            tracing::warn!(agent = %agent.id, %error, "an agent failed in a conversation");
            return self.escalate(turn, Some(&agent), Why::Failed).await;
        }
        let reply = heard.reply;
        let then = match reply.action {
            Some(Action::Escalate) => Some(AfterReply::Escalate),
            Some(Action::Close) => Some(AfterReply::Close),
            // Of calls.
            Some(Action::Hangup | Action::Transfer(_)) | None => None,
        };
        let outgoing: Vec<Outgoing> = reply.items.iter().filter_map(outgoing).collect();
        if !outgoing.is_empty() {
            let mut sent = self.inbox.reply(turn, outgoing.clone(), then).await;
            for _ in 0..REPLY_TRIES {
                // The agent has answered: that its number has much to say just now only makes the user wait.
                let Err(NotSent::TooMany(secs)) = sent else { break };
                tokio::time::sleep(Duration::from_secs(secs.clamp(1, REPLY_WAIT))).await;
                sent = self.inbox.reply(turn, outgoing.clone(), then).await;
            }
            match sent {
                Ok(_) => {}
                // Somebody else answers now.
                Err(NotSent::Stale | NotSent::Gone) => return Ok(false),
                Err(NotSent::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(agent = %agent.id, ?error, "an agent's reply could not be sent");
                    return self.escalate(turn, Some(&agent), Why::Failed).await;
                }
            }
        }
        match then {
            Some(then) => self.finish(turn, Some(&agent), then).await,
            None => Ok(false),
        }
    }

    /// What the agent wants done, once its reply is out: it would hold back what is still to go.
    async fn finish(
        &self,
        turn: &Turn,
        agent: Option<&Agent>,
        then: AfterReply,
    ) -> Result<bool, StoreError> {
        let (pair, scope) = (&turn.pair, Scope::Main(turn.pair.main_account.clone()));
        self.inbox.posted(pair.conversation).await;
        match then {
            AfterReply::Escalate => self.escalate(turn, agent, Why::Asked).await,
            AfterReply::Close => {
                // Unless it is nobody's to close any more.
                if self.is_current(turn, &scope).await? {
                    let close = ConversationChange {
                        status: Some(ConversationStatus::Closed),
                        ..Default::default()
                    };
                    self.inbox.change(&scope, pair, close).await?;
                }
                Ok(false)
            }
        }
    }

    /// Whether the agent that was to answer still is.
    async fn is_current(&self, turn: &Turn, scope: &Scope) -> Result<bool, StoreError> {
        if self.inbox.is_silent(&turn.pair) {
            return Ok(false);
        }
        let found = self.agents.store().conversations().get(scope, turn.pair.conversation).await?;
        Ok(found.is_some_and(|conversation| {
            conversation.standing.answers(turn.epoch) == Some(turn.agent)
        }))
    }

    /// Whether that is a business number of this node's.
    fn is_ours(&self, user: &str) -> bool {
        let number = model::E164::parse(user);
        number.is_ok_and(|number| self.agents.directory().tables().by_number(&number).is_some())
    }

    async fn question(
        &self,
        turn: &Turn,
        agent: &Agent,
        scope: &Scope,
    ) -> Result<Question, StoreError> {
        let (pair, message) = (&turn.pair, &turn.message);
        let (lines, store) = (usize::from(agent.spec.history_turns) * 2, self.agents.store());
        let earlier = match lines {
            0 => Vec::new(),
            // What waits behind this one is not said yet; what was replied meanwhile is.
            lines => {
                let most = u32::try_from(lines + LANE_MAX).unwrap_or(u32::MAX);
                store.messages().list(scope, pair.conversation, None, most).await?
            }
        };
        let asked = (message.at, message.id);
        let said = |m: &&store::NewMessage| {
            let waits = m.direction == Direction::Inbound && (m.at, m.id) >= asked;
            !waits && m.kind != "call" && !m.text.is_empty()
        };
        let history = earlier.iter().map(|m| &m.message).filter(said).take(lines).map(|m| Line {
            role: if m.direction == Direction::Inbound { Role::User } else { Role::Assistant },
            text: words::asked_of(&m.kind, &m.content, &m.text),
            at: m.at.rfc3339(),
        });
        let mut history: Vec<Line> = history.collect();
        history.reverse();
        let turns = store.messages().count_until(pair.conversation, message.at, message.id).await?;
        let url =
            words::media(&message.content, &message.kind).map(|_| self.inbox.media_url(message.id));
        let shown = words::message(message, url.as_deref());
        let digits = pair.user.id.bytes().all(|b| b.is_ascii_digit());
        Ok(Question {
            conversation: pair.conversation,
            call: None,
            number: pair.number.as_str().to_owned(),
            user: User {
                wa_id: pair.user.id.clone(),
                user_id: pair
                    .user
                    .bsuid
                    .clone()
                    .or_else(|| (!digits).then(|| pair.user.id.clone())),
                name: pair.user.name.clone(),
            },
            channel: Channel::Message,
            turn: turns.max(1),
            input: Said {
                kind: message.kind.clone(),
                text: words::asked_of(&message.kind, &message.content, &message.text),
                media: shown.get("media").cloned().unwrap_or_default(),
                digits: None,
                speech: None,
            },
            history,
        })
    }

    /// A person is wanted: a notification, an event, and the agent is silent from now on unless it may be well again.
    async fn escalate(
        &self,
        turn: &Turn,
        agent: Option<&Agent>,
        why: Why,
    ) -> Result<bool, StoreError> {
        let (pair, scope) = (&turn.pair, Scope::Main(turn.pair.main_account.clone()));
        // Somebody else answers by now: nobody need be called.
        if !self.is_current(turn, &scope).await? {
            return Ok(false);
        }
        let who = if pair.user.name.is_empty() { &pair.user.id } else { &pair.user.name };
        let name = agent.map_or("An agent", |agent| &agent.spec.name);
        let text = match why {
            Why::Off => {
                format!("The agent for {who} answers no messages any more: a person is wanted")
            }
            Why::Late => format!("{name} did not come to answer {who}: a person is wanted"),
            Why::Asked => format!("{name} asks a person to take over from {who}"),
            Why::Failed => format!("{name} did not answer {who}: a person is wanted"),
            Why::Loop => format!("{who} seems to be an automaton: {name} answers no more"),
        };
        let topic = NotificationTopic::Escalation;
        self.agents.notices().note(Notice {
            number: Some(pair.number.as_str().to_owned()),
            user: Some(pair.user.id.clone()),
            conversation: Some(pair.conversation),
            ..Notice::new(pair.account.clone(), pair.main_account.clone(), topic, text)
        });
        if let Some(number) = self.inbox.number_of(pair) {
            let data = json!({
                "conversation": pair.conversation, "agent": turn.agent, "reason": why.word(), "user": pair.user.shown(),
            });
            self.inbox.tell_number(&number, "conversation.escalated", data);
        }
        if why.silences() {
            let silent = ConversationChange { ai_enabled: Some(false), ..Default::default() };
            self.inbox.change(&scope, pair, silent).await?;
        }
        Ok(why.silences())
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
