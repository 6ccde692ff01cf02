//! Answers messages with AI agents. Turns come from the inbox. Each conversation has one turn at a
//! time, in order; conversations run concurrently within the limits of `places`.
//!
//! A turn stays pending in the store until it is answered, so that turns left by the previous
//! process, or that did not fit into memory, are found there. [`crate::inbox::MessageSender::reply`] sends the answer and
//! refuses it if the routing has changed. Loops between two automated systems, and agents that
//! fail, end with an escalation to people.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Agents;
use super::client::ReplySink;
use super::contract::{
    Action, Channel, Line, Piece, Question, Reply, Role, User, UserInput, text_of,
};
use super::escalation::{self, Reason};
use super::pace::Pace;
use super::scheduler::Scheduler;
use crate::inbox::{Inbox, LostReply, Outgoing, SendError, Turn, words};
use crate::limiter::{Share, Shares};
use model::{AuthId, ConversationStatus, Direction, stable_id};
use store::{AfterReply, Agent, AgentChannel, ConversationChange, PendingReply, Scope, StoreError};

/// The largest number of turns per conversation in memory. Further ones wait in the store.
const LANE_MAX: usize = 32;
/// The largest numbers of turns in memory: of all accounts, and of a main account with its
/// subaccounts. The others are in the store. So the backlog of one account does not delay the agents
/// of others.
const TURNS_MAX: usize = 4_096;
const ACCOUNT_TURNS_MAX: usize = TURNS_MAX / 4;
/// Interval at which the store is polled for pending turns that are not in memory.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// The longest interval. It doubles while turns fail because of the store: each repetition would
/// ask the agent again.
const POLL_INTERVAL_MAX: Duration = Duration::from_secs(40);
/// The largest number of conversations in [`TurnQueue::behind`].
const BEHIND_MAX: usize = 65_536;
/// Turns per page.
const PAGE: u32 = 500;
/// Maximum number of attempts to send a reply while its number is over the message rate.
const REPLY_TRIES: u32 = 10;
/// The longest pause between those attempts, in seconds.
const REPLY_WAIT: u64 = 5;
/// The age at which a message is left to people, because the user no longer expects an automated
/// answer.
const AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// Answers the inbox's turns until `stop` is cancelled. Returns immediately if another task answers
/// them.
pub async fn answer_messages(agents: Agents, inbox: Inbox, stop: CancellationToken) {
    let Some(turns) = inbox.turns().take() else { return };
    let worker = MessageAgents { agents, inbox };
    stop.run_until_cancelled(worker.run(turns)).await;
}

#[derive(Clone)]
struct MessageAgents {
    agents: Agents,
    inbox: Inbox,
}

/// A waiting turn.
struct WaitingTurn {
    turn: Turn,
    too_fast: bool,
    /// The remaining action, if the reply was already sent.
    then: Option<AfterReply>,
    _share: Share<AuthId>,
}

/// Collects a reply, which is sent when it is complete.
struct CollectedReply {
    reply: Reply,
    max: usize,
}

impl ReplySink for CollectedReply {
    fn receive(&mut self, piece: Piece) -> Result<(), String> {
        self.reply.add(piece, self.max)
    }

    fn retract(&mut self) -> bool {
        self.reply = Reply::default();
        true
    }
}

/// The turns in memory.
struct TurnQueue {
    /// By conversation. The first turn of each is running or queued for its agent.
    lanes: HashMap<Uuid, VecDeque<WaitingTurn>>,
    messages: HashSet<Uuid>,
    /// The shares of main accounts in the turns.
    shares: Shares<AuthId>,
    /// Conversations with turns that did not fit or failed, and their main accounts. Later turns must
    /// not overtake those, so they are read from the store as well.
    behind: HashMap<Uuid, AuthId>,
    scheduler: Scheduler<Uuid>,
    pace: Pace,
}

impl Default for TurnQueue {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            messages: HashSet::new(),
            shares: Shares::new(ACCOUNT_TURNS_MAX, TURNS_MAX),
            behind: HashMap::new(),
            scheduler: Scheduler::default(),
            pace: Pace::default(),
        }
    }
}

impl TurnQueue {
    /// Adds a turn. A turn that is already present or does not fit is ignored.
    fn take(&mut self, turn: Turn, then: Option<AfterReply>) {
        let (conversation, account) = (turn.pair.conversation, turn.pair.main_account.clone());
        if self.messages.contains(&turn.message.id) {
            return;
        }
        let must_wait = self.behind.contains_key(&conversation)
            || self.lanes.get(&conversation).is_some_and(|lane| lane.len() >= LANE_MAX);
        let share = if must_wait { None } else { self.shares.take(account.clone()) };
        let Some(share) = share else { return self.set_behind(conversation, account) };
        self.messages.insert(turn.message.id);
        let message = &turn.message;
        let too_fast =
            then.is_none() && self.pace.is_too_fast(conversation, message.id, message.at);
        let agent = turn.agent;
        let lane = self.lanes.entry(conversation).or_default();
        lane.push_back(WaitingTurn { turn, too_fast, then, _share: share });
        if lane.len() == 1 {
            self.scheduler.push(agent, account, conversation);
        }
    }

    /// Removes the first turn of a conversation and queues the next one.
    fn end(&mut self, conversation: Uuid) {
        let Some(lane) = self.lanes.get_mut(&conversation) else { return };
        let ended = lane.pop_front();
        match lane.front() {
            Some(WaitingTurn { turn, .. }) => {
                self.scheduler.push(turn.agent, turn.pair.main_account.clone(), conversation);
            }
            None => drop(self.lanes.remove(&conversation)),
        }
        if let Some(WaitingTurn { turn, .. }) = ended {
            self.scheduler.free(&turn.agent, &turn.pair.main_account);
            self.messages.remove(&turn.message.id);
        }
    }

    /// Drops the queued turns of a conversation after a failure of the store at the first one. They are
    /// read from the store again later, so that they keep their order.
    fn defer(&mut self, conversation: Uuid) {
        let lane = self.lanes.remove(&conversation).unwrap_or_default();
        if let Some(WaitingTurn { turn, .. }) = lane.front() {
            self.scheduler.free(&turn.agent, &turn.pair.main_account);
            self.set_behind(conversation, turn.pair.main_account.clone());
        }
        for WaitingTurn { turn, .. } in &lane {
            self.messages.remove(&turn.message.id);
        }
    }

    fn set_behind(&mut self, conversation: Uuid, account: AuthId) {
        if self.behind.len() < BEHIND_MAX {
            self.behind.insert(conversation, account);
        }
    }
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TurnEnd {
    Answered,
    /// People have taken over, which resets the loop detection.
    LeftToPeople,
    /// The store failed. The turn is still pending there.
    Deferred,
}

impl MessageAgents {
    async fn run(self, mut turns: mpsc::Receiver<Turn>) {
        let mut queue = TurnQueue::default();
        let mut work = JoinSet::new();
        let mut running: HashMap<Id, Uuid> = HashMap::new();
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        let mut pause = POLL_INTERVAL;
        // Whether a turn failed because of the store since the last poll.
        let mut is_deferred = false;
        loop {
            tokio::select! {
                biased;
                Some(done) = work.join_next_with_id(), if !work.is_empty() => {
                    // A task that panicked only ends its own turn.
                    let (id, end) = done.unwrap_or_else(|fault| (fault.id(), TurnEnd::Answered));
                    let conversation = running.remove(&id);
                    if end == TurnEnd::Deferred {
                        is_deferred = true;
                    } else if pause > POLL_INTERVAL {
                        pause = POLL_INTERVAL;
                        poll.reset_after(pause);
                    }
                    if let Some(conversation) = conversation {
                        match end {
                            TurnEnd::Answered => queue.end(conversation),
                            TurnEnd::LeftToPeople => {
                                queue.pace.forget(conversation);
                                queue.end(conversation);
                            }
                            TurnEnd::Deferred => queue.defer(conversation),
                        }
                    }
                }
                // This branch never waits for an agent. What does not fit stays in the store.
                turn = turns.recv() => {
                    let Some(turn) = turn else { return };
                    queue.take(turn, None);
                }
                () = self.inbox.turns().stored_elsewhere() => {
                    self.load_pending(&mut queue).await;
                }
                _ = poll.tick() => {
                    self.load_pending(&mut queue).await;
                    pause = if std::mem::take(&mut is_deferred) { pause * 2 } else { POLL_INTERVAL };
                    pause = pause.min(POLL_INTERVAL_MAX);
                    poll.reset_after(pause);
                }
            }
            while let Some(conversation) = queue.scheduler.next() {
                let Some(first) =
                    queue.lanes.get_mut(&conversation).and_then(|lane| lane.front_mut())
                else {
                    continue;
                };
                running.insert(self.spawn_turn(&mut work, first), conversation);
            }
        }
    }

    /// Loads pending turns that are not in memory: those of the previous process, from the journal,
    /// and those that did not fit.
    async fn load_pending(&self, queue: &mut TurnQueue) {
        for lost in self.inbox.sender().take_lost_replies() {
            self.report_lost(&lost).await;
        }
        let mut after = (i64::MIN, Uuid::nil());
        let (before, mut left_out) = (std::mem::take(&mut queue.behind), HashSet::new());
        while queue.messages.len() < TURNS_MAX {
            let full = queue.shares.full_holders();
            left_out.extend(full.iter().cloned());
            let owed = match self.inbox.turns().pending(after, &full, PAGE).await {
                Ok(owed) => owed,
                Err(error) => {
                    tracing::warn!(%error, "reading pending agent turns failed; retrying");
                    break;
                }
            };
            let Some(last) = owed.last() else {
                // The turns of the others were read.
                let unread = before.into_iter().filter(|(_, account)| left_out.contains(account));
                return queue.behind.extend(unread);
            };
            after = (last.message.message.at.micros(), last.message.message.id);
            for PendingReply { pair, message, agent, epoch, then } in owed {
                queue.take(Turn { pair, agent, epoch, message: message.message }, then);
            }
        }
        queue.behind.extend(before);
    }

    /// Requests a person for a conversation whose user may not have received the agent's reply.
    async fn report_lost(&self, lost: &LostReply) {
        const WHY: &str = "the node ended while it sent the reply, which the user may not have got";
        let scope = Scope::Main(lost.pair.main_account.clone());
        // Without the store, people still hear of it.
        let agent = self.agents.store().agents().get(&scope, lost.agent).await.ok().flatten();
        let name = agent.as_ref().map_or("An agent", |agent| &agent.spec.name);
        let to = (&self.inbox, self.agents.notices());
        let reason = Reason::Failed { why: WHY.to_owned() };
        escalation::report(to, &lost.pair, (lost.agent, name), None, &reason);
    }

    fn spawn_turn(&self, work: &mut JoinSet<TurnEnd>, waiting: &WaitingTurn) -> Id {
        let worker = self.clone();
        let WaitingTurn { turn, too_fast, then, .. } = waiting;
        let (turn, too_fast, then) = (turn.clone(), *too_fast, *then);
        let task = work.spawn(async move {
            let conversation = turn.pair.conversation;
            let answered = match then {
                Some(then) => worker.finish(&turn, None, then).await,
                None => worker.answer(&turn, too_fast).await,
            };
            match answered {
                Ok(people) => {
                    // The turn needs no answer any more. A sent reply has already removed it.
                    let finish = worker.agents.store().turns().finish(turn.message.id).await;
                    match (finish, people) {
                        (Err(error), _) => {
                            tracing::warn!(
                                %conversation, %error, "answered turn still marked as pending"
                            );
                            TurnEnd::Deferred
                        }
                        (Ok(()), true) => TurnEnd::LeftToPeople,
                        (Ok(()), false) => TurnEnd::Answered,
                    }
                }
                Err(error) => {
                    tracing::warn!(%conversation, %error, "agent turn deferred");
                    TurnEnd::Deferred
                }
            }
        });
        task.id()
    }

    /// Answers one turn. Returns whether people have taken over, which resets the loop detection.
    async fn answer(&self, turn: &Turn, too_fast: bool) -> Result<bool, StoreError> {
        let (pair, scope) = (&turn.pair, Scope::Main(turn.pair.main_account.clone()));
        let store = self.agents.store();
        if !self.is_current(turn, &scope).await? {
            return Ok(false);
        }
        let agent = store.agents().get(&scope, turn.agent).await?;
        // An agent serves its own account's conversations; a main account's agent also serves those
        // of subaccounts.
        let may =
            |agent: &Agent| agent.account == pair.account || agent.account == pair.main_account;
        let Some(agent) =
            agent.filter(|agent| may(agent) && agent.spec.serves(AgentChannel::Whatsapp))
        else {
            return self.escalate(turn, None, Reason::Off).await;
        };
        if self.is_own_number(&pair.user.id) {
            return self.escalate(turn, Some(&agent), Reason::Loop).await;
        }
        if self.agents.clock().wall().since(turn.message.at) > AGE_MAX {
            return self.escalate(turn, Some(&agent), Reason::Late).await;
        }
        if too_fast {
            return self.escalate(turn, Some(&agent), Reason::Loop).await;
        }
        let question = self.question(turn, &agent, &scope).await?;
        let mut collected = CollectedReply {
            reply: Reply::default(),
            max: usize::from(agent.spec.max_reply_chars),
        };
        // A turn that is repeated after a restart has the same event id.
        let event = stable_id("turn", &[&turn.message.id.to_string()]);
        if let Err(error) = self.agents.ask(&agent, event, &question, &mut collected).await {
            tracing::warn!(agent = %agent.id, %error, "agent failed in a conversation");
            return self.escalate(turn, Some(&agent), Reason::from(&error)).await;
        }
        let reply = collected.reply;
        let then = match reply.action {
            Some(Action::Escalate) => Some(AfterReply::Escalate),
            Some(Action::Close) => Some(AfterReply::Close),
            // Actions for calls only.
            Some(Action::Hangup | Action::Transfer(_)) | None => None,
        };
        let outgoing: Vec<Outgoing> = reply.items.iter().filter_map(outgoing).collect();
        if !outgoing.is_empty() {
            let mut sent = self.inbox.sender().reply(turn, outgoing.clone(), then).await;
            for _ in 0..REPLY_TRIES {
                // The reply exists; a rate limit only delays it.
                let Err(SendError::TooMany(secs)) = sent else { break };
                tokio::time::sleep(Duration::from_secs(secs.clamp(1, REPLY_WAIT))).await;
                sent = self.inbox.sender().reply(turn, outgoing.clone(), then).await;
            }
            match sent {
                Ok(_) => {}
                // The routing has changed.
                Err(SendError::Stale | SendError::NoConversation) => return Ok(false),
                Err(SendError::Store(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(agent = %agent.id, %error, "sending an agent's reply failed");
                    let why = format!("its reply was not sent: {error}");
                    return self.escalate(turn, Some(&agent), Reason::Failed { why }).await;
                }
            }
        }
        match then {
            Some(then) => self.finish(turn, Some(&agent), then).await,
            None => Ok(false),
        }
    }

    /// Carries out the agent's action. It waits until the reply is sent, because the action would
    /// hold back unsent messages.
    async fn finish(
        &self,
        turn: &Turn,
        agent: Option<&Agent>,
        then: AfterReply,
    ) -> Result<bool, StoreError> {
        let (pair, scope) = (&turn.pair, Scope::Main(turn.pair.main_account.clone()));
        if agent.is_none() {
            // The reply was sent by another process, or not yet.
            self.inbox.sender().queue_adopted().await?;
        }
        self.inbox.sender().wait_until_sent(pair.conversation).await;
        match then {
            AfterReply::Escalate => self.escalate(turn, agent, Reason::Requested).await,
            AfterReply::Close => {
                // The conversation may have got another routing.
                if self.is_current(turn, &scope).await? {
                    let close = ConversationChange {
                        status: Some(ConversationStatus::Closed),
                        ..Default::default()
                    };
                    self.inbox.conversations().change(&scope, pair, close).await?;
                }
                Ok(false)
            }
        }
    }

    /// Returns whether the turn's agent still answers the conversation.
    async fn is_current(&self, turn: &Turn, scope: &Scope) -> Result<bool, StoreError> {
        if self.inbox.numbers().is_silent(&turn.pair) {
            return Ok(false);
        }
        let found = self.agents.store().conversations().get(scope, turn.pair.conversation).await?;
        Ok(found.is_some_and(|conversation| {
            conversation.standing.answers(turn.epoch) == Some(turn.agent)
        }))
    }

    /// Returns whether the user is a business number of this node.
    fn is_own_number(&self, user: &str) -> bool {
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
            // Exclude messages that wait behind this one, but include replies that were sent after
            // it.
            lines => {
                let most = u32::try_from(lines + LANE_MAX).unwrap_or(u32::MAX);
                store.messages().list(scope, pair.conversation, None, most).await?
            }
        };
        let asked = (message.at, message.id);
        let is_history = |m: &&store::NewMessage| {
            let waits = m.direction == Direction::Inbound && (m.at, m.id) >= asked;
            !waits && m.is_exchanged() && !m.text.is_empty()
        };
        let history =
            earlier.iter().map(|m| &m.message).filter(is_history).take(lines).map(|m| Line {
                role: if m.direction == Direction::Inbound { Role::User } else { Role::Assistant },
                text: words::text_for_agent(&m.kind, &m.content, &m.text),
                at: m.at.rfc3339(),
            });
        let mut history: Vec<Line> = history.collect();
        history.reverse();
        let turns = store.messages().count_until(pair.conversation, message.at, message.id).await?;
        let url = words::media(&message.content, &message.kind)
            .map(|_| self.inbox.user_files().link(message.id));
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
            input: UserInput {
                kind: message.kind.clone(),
                text: words::text_for_agent(&message.kind, &message.content, &message.text),
                media: shown.get("media").cloned().unwrap_or_default(),
                digits: None,
                speech: None,
            },
            history,
        })
    }

    /// Hands the conversation over to people: creates a notification and an event, and silences the
    /// agent if the reason requires it.
    async fn escalate(
        &self,
        turn: &Turn,
        agent: Option<&Agent>,
        reason: Reason,
    ) -> Result<bool, StoreError> {
        let (pair, scope) = (&turn.pair, Scope::Main(turn.pair.main_account.clone()));
        // The routing has changed, so there is nothing to hand over.
        if !self.is_current(turn, &scope).await? {
            return Ok(false);
        }
        let name = agent.map_or("An agent", |agent| &agent.spec.name);
        let to = (&self.inbox, self.agents.notices());
        escalation::report(to, pair, (turn.agent, name), None, &reason);
        if reason.silences() {
            let silent = ConversationChange { ai_enabled: Some(false), ..Default::default() };
            self.inbox.conversations().change(&scope, pair, silent).await?;
        }
        Ok(reason.silences())
    }
}

/// Converts an item of a reply into a message. `None` if it is empty.
fn outgoing(item: &Map<String, Value>) -> Option<Outgoing> {
    if let Some(text) = text_of(item) {
        return (!text.trim().is_empty()).then(|| Outgoing::text(text));
    }
    let kind = item.get("type")?.as_str()?.to_owned();
    let mut content = item.clone();
    content.remove("type");
    Some(Outgoing { kind, content: Value::Object(content) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::testing::{message, pair};
    use model::MessageStatus;

    fn turn(account: &str) -> Turn {
        Turn {
            pair: pair(account),
            agent: Uuid::from_u128(1),
            epoch: 0,
            message: message(Direction::Inbound, MessageStatus::Received),
        }
    }

    #[test]
    fn r10_an_account_leaves_room_for_the_turns_of_others() {
        let mut queue = TurnQueue::default();
        for _ in 0..TURNS_MAX {
            queue.take(turn("MA1"), None);
        }
        assert_eq!(queue.messages.len(), ACCOUNT_TURNS_MAX);
        assert_eq!(queue.shares.full_holders(), [AuthId::from("MA1")]);
        queue.take(turn("MA2"), None);
        assert_eq!(queue.messages.len(), ACCOUNT_TURNS_MAX + 1);
        // A conversation's next turn waits for the one that did not fit.
        assert_eq!(queue.behind.len(), TURNS_MAX - ACCOUNT_TURNS_MAX);
        let behind = *queue.behind.keys().next().unwrap();
        let mut next = turn("MA1");
        next.pair.conversation = behind;
        let done = queue.scheduler.next().unwrap();
        queue.end(done);
        assert_eq!(queue.shares.full_holders(), []);
        queue.take(next, None);
        assert!(!queue.lanes.contains_key(&behind));
        // Nor does it overtake one that failed.
        let (first, mut second) = (turn("MA3"), turn("MA3"));
        let conversation = first.pair.conversation;
        second.pair.conversation = conversation;
        queue.take(first, None);
        queue.take(second, None);
        queue.defer(conversation);
        assert!(
            !queue.lanes.contains_key(&conversation) && queue.behind.contains_key(&conversation)
        );
        assert!(!queue.shares.has_any(&AuthId::from("MA3")));
    }
}
