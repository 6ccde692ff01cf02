//! Calls that an agent answers. This is an application inside the node: it writes documents
//! (`document`) that greet, listen for speech or digits, and speak the agent's reply, beginning
//! with its first sentence (`stream`). The machine, its event log and a replay need no special case
//! for it.
//!
//! The dialogue of a call is kept in memory until the call ends, and moves with the call to another
//! process at an upgrade. Its lines are also stored, so that the next process has them if this one
//! dies.

mod document;
mod playback;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::Agents;
use super::client::ReplySink;
use super::contract::{
    Action, Channel, Line, Piece, Question, Reply, Role, User, UserInput, text_of,
};
use super::escalation::{self, Reason};
use super::sentences::Sentences;
use crate::admission::NumberEntry;
use crate::call::author::{Author, DialogueLine, DocumentRequest};
use crate::inbox::Inbox;
use crate::notices::Notice;
use document::PromptSource;
use machine::{FetchFailure, Param, Params};
use media::prompt::Prompt;
use model::{AuthId, CallType, CallUuid, E164};
use playback::{Playback, estimate_spoken};
use speech::library::Library;
use store::{Agent, AgentChannel, AgentSpec, CallLine, Scope, Store, UserName};

/// The largest number of calls. Further ones are rejected as busy.
const CALLS_MAX: usize = 10_000;
/// The capacity of the channel of sentences to speak.
const SENTENCES_MAX: usize = 256;
/// How long after its first sentence a reply may take to complete before it is streamed.
const GRACE: Duration = Duration::from_millis(20);
/// The safety margin in the time that a call waits for a document.
const MARGIN: Duration = Duration::from_millis(700);
/// The maximum size of a transcript, in lines and in bytes.
const TRANSCRIPT_LINES: usize = 500;
const TRANSCRIPT_BYTES: usize = 64 * 1024;
/// The number of silent turns in a row after which the call is hung up.
const SILENCES_MAX: u32 = 3;

/// Answers calls with agents. Clones are cheap and share their state.
#[derive(Clone)]
pub struct VoiceAgents(Arc<Inner>);

struct Inner {
    agents: Agents,
    inbox: Inbox,
    library: Library,
    dialogues: Mutex<HashMap<CallUuid, Dialogue>>,
}

/// A call that an agent answers. Serialized for another process while the agent is [at
/// rest](RunningTurn::is_at_rest).
#[derive(Serialize, Deserialize)]
struct Dialogue {
    call: CallUuid,
    /// The agent. Another process reads its secrets from the store when the caller has said
    /// something.
    agent: Arc<Agent>,
    account: AuthId,
    main_account: AuthId,
    number: String,
    user: User,
    /// The id of the conversation, or the call's id if it has none.
    conversation: Uuid,
    turn: u64,
    history: VecDeque<Line>,
    /// All lines of the call, within the limits.
    transcript: Vec<Line>,
    /// The current or last turn.
    running: Option<RunningTurn>,
    silences: u32,
    /// How much of the last prompt was played before the caller interrupted it. `None` without an
    /// interruption.
    cut: Option<Duration>,
    /// Whether the agent has left the caller to people.
    #[serde(default)]
    needs_person: bool,
    /// The prompt that the last document names. It moves with the call's media.
    #[serde(skip)]
    stream: Option<(Uuid, Arc<Prompt>)>,
}

#[derive(Serialize, Deserialize)]
struct RunningTurn {
    progress: Arc<Progress>,
    /// The tasks that request the reply and speak it.
    #[serde(skip)]
    tasks: TaskTracker,
    #[serde(skip)]
    handles: Vec<AbortHandle>,
}

impl Drop for RunningTurn {
    fn drop(&mut self) {
        self.handles.iter().for_each(AbortHandle::abort);
    }
}

/// The progress of a turn.
#[derive(Default, Serialize, Deserialize)]
struct Progress {
    state: Mutex<Turn>,
    #[serde(skip)]
    news: Notify,
}

/// The state of a turn. The fields that are not serialized are used until the turn is over.
#[derive(Default, Serialize, Deserialize)]
struct Turn {
    reply: Reply,
    #[serde(skip)]
    text: Sentences,
    /// Characters of text so far.
    #[serde(skip)]
    spoken: usize,
    /// Sentences that are not yet passed to the speech stream.
    #[serde(skip)]
    sentences: VecDeque<String>,
    /// The channel to the speech stream, once the reply is streamed.
    #[serde(skip)]
    out: Option<mpsc::Sender<String>>,
    streamed: bool,
    /// When each streamed sentence is played.
    playback: Playback,
    /// Set when the turn is over: `true` on success, `false` on failure.
    done: Option<bool>,
    /// Why it failed. Empty if it did not.
    #[serde(default)]
    why: String,
    /// Whether it failed because the account has no requests to the node's model left.
    #[serde(default)]
    no_requests: bool,
    /// Whether the action was carried out.
    acted: bool,
}

impl Progress {
    fn state(&self) -> std::sync::MutexGuard<'_, Turn> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Receives the reply of a turn.
struct CallReply {
    progress: Arc<Progress>,
    max: usize,
}

impl ReplySink for CallReply {
    fn receive(&mut self, piece: Piece) -> Result<(), String> {
        self.progress.state().add(piece, self.max);
        self.progress.news.notify_one();
        Ok(())
    }

    fn retract(&mut self) -> bool {
        self.progress.state().retract()
    }
}

impl Turn {
    /// Discards the reply unless it is already being spoken.
    fn retract(&mut self) -> bool {
        if !self.streamed {
            *self = Self::default();
        }
        !self.streamed
    }

    fn add(&mut self, piece: Piece, max: usize) {
        // Streamed text has the same limit as that of a message.
        let left = max.saturating_sub(self.spoken);
        let cut = |text: &str| text.chars().take(left).collect::<String>();
        let (text, apart) = match &piece {
            Piece::Text(text) => (cut(text), false),
            // Items are separate sentences.
            Piece::Item(item) => (text_of(item).map(cut).unwrap_or_default(), true),
            Piece::Act(_) => (String::new(), false),
        };
        self.spoken += text.chars().count();
        let mut sentences = if text.is_empty() { Vec::new() } else { self.text.push(&text) };
        if apart && !text.is_empty() {
            sentences.extend(self.text.push("\n"));
        }
        // Items past the limit are dropped.
        let _ = self.reply.add(piece, max);
        sentences.into_iter().for_each(|sentence| self.say(sentence));
    }

    fn say(&mut self, sentence: String) {
        match &self.out {
            // The channel is only full for a reply that is far too long.
            Some(out) => drop(out.try_send(sentence)),
            None => self.sentences.push_back(sentence),
        }
    }

    fn end(&mut self, done: Result<(), Reason>) {
        if let Some(rest) = std::mem::take(&mut self.text).finish() {
            self.say(rest);
        }
        self.out = None;
        self.done = Some(done.is_ok());
        match done {
            Err(Reason::Failed { why }) => self.why = why,
            Err(reason) => self.no_requests = reason == Reason::NoRequests,
            Ok(()) => {}
        }
    }

    /// How the turn has ended. `None` while it runs.
    fn outcome(&self) -> Option<Result<(), Reason>> {
        Some(match (self.done?, self.no_requests) {
            (true, _) => Ok(()),
            (false, true) => Err(Reason::NoRequests),
            (false, false) => Err(Reason::Failed { why: self.why.clone() }),
        })
    }
}

/// The content of the next document.
enum ReplyState {
    /// The complete reply, or why there is none.
    Complete(Result<Reply, Reason>),
    /// The reply is streamed by the prompt of this id.
    Streamed(Uuid),
    /// No reply yet.
    Pending,
}

impl VoiceAgents {
    pub fn new(agents: Agents, inbox: Inbox, library: Library) -> Self {
        Self(Arc::new(Inner { agents, inbox, library, dialogues: Mutex::default() }))
    }

    fn dialogues(&self) -> std::sync::MutexGuard<'_, HashMap<CallUuid, Dialogue>> {
        self.0.dialogues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(self, request: DocumentRequest) -> Result<String, FetchFailure> {
        let (agent, what) = request.path.split_once('/').unwrap_or((&request.path, "answer"));
        let agent: Uuid = agent.parse().map_err(|_| FetchFailure::Status { status: 404 })?;
        let base = agent.to_string();
        match what {
            "answer" => self.answer(&request, agent, &base).await,
            "turn" => self.turn(&request, &base).await,
            "more" => self.reply(&request, &base).await,
            "silent" => self.silent(&request, &base).await,
            "dialled" => self.dialled(&request, &base),
            _ => Err(FetchFailure::Status { status: 404 }),
        }
    }

    /// Answers a call.
    async fn answer(
        &self,
        request: &DocumentRequest,
        id: Uuid,
        base: &str,
    ) -> Result<String, FetchFailure> {
        let scope = Scope::Main(request.main_account.clone());
        let found = self.0.agents.store().agents().get(&scope, id).await;
        let found = found.map_err(|e| FetchFailure::Unreachable { detail: e.to_string() })?;
        // The store scopes by main account. The agent must belong to the call's account or its main
        // account.
        let may = |agent: &Agent| {
            agent.account == request.account || agent.account == request.main_account
        };
        let Some(agent) =
            found.filter(|agent| agent.spec.serves(AgentChannel::Voice) && may(agent))
        else {
            tracing::info!(agent = %id, "agent missing or not enabled for calls");
            return Ok(self.without_agent(request));
        };
        let agent = Arc::new(agent);
        let of = |name: &str| value(&request.params, name).unwrap_or_default().to_owned();
        // In an outbound call, the user is the called party.
        let outbound = of("Direction") == "outbound";
        let (number, user) = if outbound { (of("From"), of("To")) } else { (of("To"), of("From")) };
        let dialogue = Dialogue {
            call: request.call,
            agent: agent.clone(),
            account: request.account.clone(),
            main_account: request.main_account.clone(),
            number,
            user: User { wa_id: user, user_id: None, name: of("CallerName") },
            conversation: self.conversation(request),
            turn: 0,
            history: VecDeque::new(),
            transcript: Vec::new(),
            running: None,
            silences: 0,
            cut: None,
            needs_person: false,
            stream: None,
        };
        {
            let mut dialogues = self.dialogues();
            if dialogues.len() >= CALLS_MAX {
                return Ok(document::busy());
            }
            dialogues.insert(request.call, dialogue);
        }
        if agent.spec.greeting.trim().is_empty() {
            self.begin(
                request.call,
                UserInput { kind: "start".to_owned(), ..UserInput::default() },
            );
            return self.reply(request, base).await;
        }
        self.record_line(request.call, Role::Assistant, &agent.spec.greeting);
        Ok(document::listen(&agent.spec, base, &PromptSource::Text(&agent.spec.greeting), false))
    }

    /// The document of a call that the agent does not answer: that of the number's answer URL, if
    /// the call has not run it yet.
    fn without_agent(&self, request: &DocumentRequest) -> String {
        let is_first = value(&request.params, "Event") == Some("StartApp");
        let number = self.number_of(request).filter(|_| is_first);
        number
            .and_then(|number| number.spec.answer.clone())
            .map_or_else(document::busy, |(url, method)| document::redirect(&url.0, method))
    }

    /// Handles speech or digits of the caller.
    async fn turn(&self, request: &DocumentRequest, base: &str) -> Result<String, FetchFailure> {
        let of = |name: &str| {
            value(&request.params, name).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let input = match (of("Speech"), of("Digits")) {
            (Some(speech), _) => UserInput {
                kind: "speech".to_owned(),
                text: speech.clone(),
                speech: Some(speech),
                ..UserInput::default()
            },
            (None, Some(digits)) => UserInput {
                kind: "digits".to_owned(),
                text: digits.clone(),
                digits: Some(digits),
                ..UserInput::default()
            },
            (None, None) => return self.silent(request, base).await,
        };
        let spec = self.spec(request.call).ok_or(FetchFailure::Status { status: 404 })?;
        // The caller speaks while a complete reply is played that announces what happens next.
        let binds = |action: &Action| matches!(action, Action::Escalate | Action::Transfer(_));
        if let Some(action) = self.take_action(request.call, binds) {
            self.record_line(request.call, Role::User, &input.text);
            return Ok(self.act_on_streamed(request.call, &spec, base, &action));
        }
        if !self.reload_agent(request).await {
            return Ok(self.give_up(request, &spec, base, Reason::Off));
        }
        self.begin(request.call, input);
        self.reply(request, base).await
    }

    /// Takes the action of the streamed reply, once it is complete, if it is one of those that are
    /// `wanted`.
    fn take_action(&self, call: CallUuid, wanted: impl Fn(&Action) -> bool) -> Option<Action> {
        let dialogues = self.dialogues();
        let mut turn = dialogues.get(&call)?.running.as_ref()?.progress.state();
        let is_due = turn.outcome() == Some(Ok(())) && !turn.acted;
        let action = turn.reply.action.clone().filter(|action| is_due && wanted(action))?;
        turn.acted = true;
        Some(action)
    }

    /// Writes the document for the action of a reply that was streamed.
    fn act_on_streamed(
        &self,
        call: CallUuid,
        spec: &AgentSpec,
        base: &str,
        action: &Action,
    ) -> String {
        // It was reported when the reply was complete, unless that was in a process of an earlier
        // version.
        if *action == Action::Escalate && !self.needs_person(call) {
            self.escalate(call, Reason::Requested);
        }
        document::act(spec, base, "", action)
    }

    /// Reloads the agent's settings. Returns `false` if it no longer answers calls.
    async fn reload_agent(&self, request: &DocumentRequest) -> bool {
        let Some(id) = self.dialogues().get(&request.call).map(|dialogue| dialogue.agent.id) else {
            return true;
        };
        match self
            .0
            .agents
            .store()
            .agents()
            .get(&Scope::Main(request.main_account.clone()), id)
            .await
        {
            Ok(Some(agent)) if agent.spec.serves(AgentChannel::Voice) => {
                if let Some(dialogue) = self.dialogues().get_mut(&request.call) {
                    dialogue.agent = Arc::new(agent);
                }
                true
            }
            Ok(_) => {
                tracing::info!(agent = %id, "agent disabled during a call; escalating");
                false
            }
            // If the store fails, the known settings remain in use.
            Err(_) => true,
        }
    }

    /// Handles a turn without input.
    async fn silent(&self, request: &DocumentRequest, base: &str) -> Result<String, FetchFailure> {
        if let Some(action) = self.take_action(request.call, |_| true) {
            let spec = self.spec(request.call).ok_or(FetchFailure::Status { status: 404 })?;
            return Ok(self.act_on_streamed(request.call, &spec, base, &action));
        }
        let (spec, silences, failure) = {
            let mut dialogues = self.dialogues();
            let dialogue =
                dialogues.get_mut(&request.call).ok_or(FetchFailure::Status { status: 404 })?;
            dialogue.silences += 1;
            // The reply broke off while it was being spoken.
            let failure = dialogue.running.as_ref().and_then(|running| {
                let mut turn = running.progress.state();
                let failure = turn.outcome().filter(|_| !turn.acted)?.err()?;
                turn.acted = true;
                Some(failure)
            });
            (dialogue.agent.spec.clone(), dialogue.silences, failure)
        };
        if let Some(reason) = failure {
            return Ok(self.give_up(request, &spec, base, reason));
        }
        if silences >= SILENCES_MAX {
            return Ok(document::act(&spec, base, "", &Action::Hangup));
        }
        Ok(document::listen(&spec, base, &PromptSource::Nothing, false))
    }

    /// Handles the end of a transfer.
    fn dialled(&self, request: &DocumentRequest, base: &str) -> Result<String, FetchFailure> {
        let spec = self.spec(request.call).ok_or(FetchFailure::Status { status: 404 })?;
        if value(&request.params, "DialStatus") == Some("completed") {
            return Ok(document::act(&spec, base, "", &Action::Hangup));
        }
        Ok(self.give_up(request, &spec, base, Reason::TransferFailed))
    }

    /// Writes the document for the agent's reply, within the time that the call waits for it.
    async fn reply(&self, request: &DocumentRequest, base: &str) -> Result<String, FetchFailure> {
        let spec = self.spec(request.call).ok_or(FetchFailure::Status { status: 404 })?;
        let patience = request.within.saturating_sub(MARGIN).max(MARGIN);
        let next = tokio::time::timeout(patience, self.await_reply(request.call))
            .await
            .unwrap_or(ReplyState::Pending);
        Ok(match next {
            ReplyState::Pending => document::wait(base),
            ReplyState::Streamed(id) => document::listen(
                &spec,
                base,
                &PromptSource::Stream(&format!("{base}/sound/{id}")),
                true,
            ),
            ReplyState::Complete(Err(reason)) => self.give_up(request, &spec, base, reason),
            ReplyState::Complete(Ok(reply)) => {
                let text = reply.text();
                self.record_line(request.call, Role::Assistant, &text);
                match &reply.action {
                    Some(action) => self.act(request, &spec, base, &text, action),
                    None if text.is_empty() => {
                        document::listen(&spec, base, &PromptSource::Nothing, false)
                    }
                    None => document::listen(&spec, base, &PromptSource::Text(&text), false),
                }
            }
        })
    }

    /// Waits for the first sentence or the end of the reply.
    async fn await_reply(&self, call: CallUuid) -> ReplyState {
        let progress =
            self.dialogues().get(&call).and_then(|s| Some(s.running.as_ref()?.progress.clone()));
        let Some(progress) = progress else { return ReplyState::Complete(Err(failed())) };
        loop {
            let news = progress.news.notified();
            let begun = {
                let mut turn = progress.state();
                if let Some(done) = turn.outcome() {
                    turn.acted = true;
                    return ReplyState::Complete(done.map(|()| turn.reply.clone()));
                }
                !turn.sentences.is_empty()
            };
            if begun {
                // The rest may follow immediately.
                tokio::time::sleep(GRACE).await;
                return self.stream(call, &progress);
            }
            news.await;
        }
    }

    /// Starts to speak the sentences of a reply as they arrive.
    fn stream(&self, call: CallUuid, progress: &Arc<Progress>) -> ReplyState {
        let (out, sentences) = mpsc::channel(SENTENCES_MAX);
        {
            let mut turn = progress.state();
            if let Some(done) = turn.outcome() {
                turn.acted = true;
                return ReplyState::Complete(done.map(|()| turn.reply.clone()));
            }
            for sentence in std::mem::take(&mut turn.sentences) {
                drop(out.try_send(sentence));
            }
            turn.out = Some(out);
            turn.streamed = true;
        }
        let mut dialogues = self.dialogues();
        let Some(dialogue) = dialogues.get_mut(&call) else {
            return ReplyState::Complete(Err(failed()));
        };
        let (prompt, writer) = Prompt::new();
        let spec = Arc::new(dialogue.agent.spec.clone());
        let speaking = stream::speak(
            self.0.library.clone(),
            dialogue.main_account.clone(),
            spec,
            sentences,
            writer,
            progress.clone(),
        );
        if let Some(running) = &mut dialogue.running {
            running.spawn(speaking);
        }
        let now = self.0.agents.clock().wall().rfc3339();
        dialogue.store_streamed(self.0.agents.store(), &now);
        let id = Uuid::new_v4();
        dialogue.stream = Some((id, prompt));
        ReplyState::Streamed(id)
    }

    /// Starts a turn and aborts the previous one.
    fn begin(&self, call: CallUuid, input: UserInput) {
        let (store, now) = (self.0.agents.store(), self.0.agents.clock().wall().rfc3339());
        let mut dialogues = self.dialogues();
        let Some(dialogue) = dialogues.get_mut(&call) else { return };
        dialogue.silences = 0;
        dialogue.stream = None;
        let cut = dialogue.cut.take();
        // Only now is it known how much of the streamed reply was played.
        match dialogue.running.take().and_then(|before| before.streamed(&now, cut)) {
            Some(line) => dialogue.say(store, line),
            None => dialogue.cut_last_line(store, cut),
        }
        dialogue.turn += 1;
        let question = Question {
            conversation: dialogue.conversation,
            call: Some(call.0),
            number: dialogue.number.clone(),
            user: dialogue.user.clone(),
            channel: Channel::Call,
            turn: dialogue.turn,
            input: input.clone(),
            history: dialogue.history.iter().cloned().collect(),
        };
        dialogue.say(store, Line { role: Role::User, text: input.text, at: now });
        let progress = Arc::new(Progress::default());
        let (agents, agent, turn) =
            (self.0.agents.clone(), dialogue.agent.clone(), progress.clone());
        let voices = self.clone();
        let mut running = RunningTurn::new(progress);
        running.spawn(async move {
            let mut sink =
                CallReply { progress: turn, max: usize::from(agent.spec.max_reply_chars) };
            let done = agents.ask(&agent, Uuid::new_v4(), &question, &mut sink).await;
            let turn = sink.progress;
            if let Err(error) = &done {
                tracing::warn!(agent = %agent.id, %error, "agent failed in a call");
            }
            let escalates = {
                let mut turn = turn.state();
                turn.end(done.map_err(|error| Reason::from(&error)));
                // The caller may hang up, or go on, while the reply is played.
                let asks = turn.reply.action == Some(Action::Escalate);
                turn.streamed && turn.done == Some(true) && asks
            };
            turn.news.notify_one();
            voices.store_streamed(call);
            if escalates {
                voices.escalate(call, Reason::Requested);
            }
        });
        dialogue.running = Some(running);
    }

    /// Writes the document for the action of a reply that was not streamed.
    fn act(
        &self,
        request: &DocumentRequest,
        spec: &AgentSpec,
        base: &str,
        text: &str,
        action: &Action,
    ) -> String {
        match action {
            Action::Escalate if text.is_empty() => {
                self.give_up(request, spec, base, Reason::Requested)
            }
            Action::Escalate => {
                self.escalate(request.call, Reason::Requested);
                document::act(spec, base, text, action)
            }
            Action::Close | Action::Hangup | Action::Transfer(_) => {
                document::act(spec, base, text, action)
            }
        }
    }

    /// Writes a document that apologises and ends the call, and reports that a person is needed.
    fn give_up(
        &self,
        request: &DocumentRequest,
        spec: &AgentSpec,
        base: &str,
        reason: Reason,
    ) -> String {
        self.escalate(request.call, reason);
        let apology = document::apology(&spec.language);
        self.record_line(request.call, Role::Assistant, apology);
        document::act(spec, base, apology, &Action::Escalate)
    }

    /// Reports that a person is needed. The call of an endpoint belongs to no conversation.
    fn escalate(&self, call: CallUuid, reason: Reason) {
        let (inbox, notices) = (&self.0.inbox, self.0.agents.notices());
        let mut dialogues = self.dialogues();
        let Some(dialogue) = dialogues.get_mut(&call) else { return };
        dialogue.needs_person = true;
        let User { wa_id, user_id, name } = dialogue.user.clone();
        let user = UserName { id: wa_id, bsuid: user_id, name };
        let agent = &dialogue.agent.spec.name;
        match self.number_of_dialogue(dialogue) {
            Some(number) => {
                let pair = inbox.numbers().pair(&number, user);
                let agent = (dialogue.agent.id, agent.as_str());
                escalation::report((inbox, notices), &pair, agent, Some(call), &reason);
            }
            None => {
                let accounts = [&dialogue.account, &dialogue.main_account];
                let number = &dialogue.number;
                let notice = escalation::notice(&reason, agent, accounts, number, &user);
                notices.note(Notice { call: Some(call), ..notice });
            }
        }
    }

    /// The business number of a call with a WhatsApp user, if it still belongs to the call's account:
    /// the people of another owner must not read about the call.
    fn number_of_dialogue(&self, dialogue: &Dialogue) -> Option<Arc<NumberEntry>> {
        if dialogue.conversation == dialogue.call.0 {
            return None;
        }
        let number = E164::parse(&dialogue.number).ok()?;
        let tables = self.0.agents.directory().tables();
        let number = tables.by_number(&number)?;
        (number.account.auth_id == dialogue.account).then(|| number.clone())
    }

    /// Stores the text of a streamed reply when it is complete, though not yet played.
    fn store_streamed(&self, call: CallUuid) {
        let now = self.0.agents.clock().wall().rfc3339();
        if let Some(dialogue) = self.dialogues().get(&call) {
            dialogue.store_streamed(self.0.agents.store(), &now);
        }
    }

    fn record_line(&self, call: CallUuid, role: Role, text: &str) {
        let (store, at) = (self.0.agents.store(), self.0.agents.clock().wall().rfc3339());
        if let Some(dialogue) = self.dialogues().get_mut(&call) {
            // A streamed reply that is over was played before this.
            let cut = dialogue.cut;
            if let Some(line) =
                dialogue.running.as_ref().and_then(|running| running.take_streamed(&at, cut))
            {
                dialogue.say(store, line);
                dialogue.cut = None;
            }
            dialogue.say(store, Line { role, text: text.to_owned(), at });
        }
    }

    /// The id of the conversation of a WhatsApp call. For an endpoint's call, it is the call's id.
    fn conversation(&self, request: &DocumentRequest) -> Uuid {
        let of = |name: &str| value(&request.params, name).unwrap_or_default();
        let user = if of("Direction") == "outbound" { "To" } else { "From" };
        match self.number_of(request) {
            Some(number) => self.0.inbox.numbers().conversation_of(&number, of(user)),
            None => request.call.0,
        }
    }

    /// The business number of a call with a WhatsApp user.
    fn number_of(&self, request: &DocumentRequest) -> Option<Arc<NumberEntry>> {
        let of = |name: &str| value(&request.params, name).unwrap_or_default();
        let number = if of("Direction") == "outbound" { "From" } else { "To" };
        let number = E164::parse(of(number)).ok()?;
        let tables = self.0.agents.directory().tables();
        tables.by_number(&number).filter(|_| of("CallType") == CallType::Whatsapp.as_str()).cloned()
    }

    fn spec(&self, call: CallUuid) -> Option<AgentSpec> {
        Some(self.dialogues().get(&call)?.agent.spec.clone())
    }
}

impl Dialogue {
    /// Adds a line to the history and the transcript. Empty lines are skipped.
    fn say(&mut self, store: &Store, line: Line) {
        if line.text.trim().is_empty() {
            return;
        }
        if self.has_room_for(&line) {
            self.store_line(store, self.transcript.len(), &line);
            self.transcript.push(line.clone());
        }
        self.history.push_back(line);
        // A turn has two lines.
        while self.history.len() > usize::from(self.agent.spec.history_turns) * 2 {
            self.history.pop_front();
        }
    }

    /// Cuts the agent's last line off at the point where the caller interrupted it.
    fn cut_last_line(&mut self, store: &Store, cut: Option<Duration>) {
        let Some(cut) = cut else { return };
        for line in [self.history.back_mut(), self.transcript.last_mut()].into_iter().flatten() {
            if line.role == Role::Assistant {
                line.text = estimate_spoken(&line.text, cut);
            }
        }
        if let Some((seq, line)) = self.transcript.iter().enumerate().next_back() {
            self.store_line(store, seq, line);
        }
    }

    /// Stores the text of the reply that is being streamed. It is corrected if the caller
    /// interrupts it.
    fn store_streamed(&self, store: &Store, now: &str) {
        let line = self.running.as_ref().and_then(|running| running.streamed(now, None));
        if let Some(line) =
            line.filter(|line| !line.text.trim().is_empty() && self.has_room_for(line))
        {
            self.store_line(store, self.transcript.len(), &line);
        }
    }

    /// Stores a line for the next process.
    fn store_line(&self, store: &Store, seq: usize, Line { role, text, at }: &Line) {
        let line = CallLine { role: role.as_str().to_owned(), text: text.clone(), at: at.clone() };
        store.dialogues().put(self.call, seq, line);
    }

    fn has_room_for(&self, line: &Line) -> bool {
        self.transcript.len() < TRANSCRIPT_LINES && line.text.len() <= self.transcript_room()
    }

    /// The bytes left in the transcript.
    fn transcript_room(&self) -> usize {
        TRANSCRIPT_BYTES.saturating_sub(self.transcript.iter().map(|line| line.text.len()).sum())
    }
}

impl RunningTurn {
    fn new(progress: Arc<Progress>) -> Self {
        Self { progress, tasks: TaskTracker::new(), handles: Vec::new() }
    }

    /// Runs a task of the turn until the turn is dropped.
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.handles.push(self.tasks.spawn(task).abort_handle());
    }

    /// Whether the reply is complete and its speech is synthesized.
    fn is_at_rest(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The streamed text of the reply, up to `cut`. `None` if the reply is not streamed.
    fn streamed(&self, at: &str, cut: Option<Duration>) -> Option<Line> {
        let state = self.progress.state();
        let text =
            || cut.map_or_else(|| state.reply.text(), |cut| state.playback.spoken_until(cut));
        state.streamed.then(|| Line { role: Role::Assistant, text: text(), at: at.to_owned() })
    }

    /// Like [`RunningTurn::streamed`], but once, after the reply is complete.
    fn take_streamed(&self, at: &str, cut: Option<Duration>) -> Option<Line> {
        let line = self.streamed(at, cut);
        let mut state = self.progress.state();
        let over = state.done.is_some();
        state.streamed &= !over;
        line.filter(|_| over)
    }
}

/// The reason of a call that is no longer known.
fn failed() -> Reason {
    Reason::Failed { why: String::new() }
}

fn value<'a>(params: &'a Params, name: &str) -> Option<&'a str> {
    params.get(name).map(Param::reveal)
}

impl Author for VoiceAgents {
    fn document(
        &self,
        request: DocumentRequest,
    ) -> BoxFuture<'static, Result<String, FetchFailure>> {
        self.clone().write(request).boxed()
    }

    fn sound(&self, call: CallUuid, path: &str) -> Option<Arc<Prompt>> {
        let dialogues = self.dialogues();
        let (id, prompt) = dialogues.get(&call)?.stream.as_ref()?;
        path.ends_with(&id.to_string()).then(|| prompt.clone())
    }

    fn cut(&self, call: CallUuid, after: Duration) {
        if let Some(dialogue) = self.dialogues().get_mut(&call) {
            dialogue.cut = Some(after);
        }
    }

    fn dialogue(&self, call: CallUuid) -> Vec<DialogueLine> {
        let now = self.0.agents.clock().wall().rfc3339();
        let mut dialogues = self.dialogues();
        let Some(dialogue) = dialogues.get_mut(&call) else { return Vec::new() };
        let cut = dialogue.cut.take();
        let last = dialogue.running.as_ref().and_then(|running| running.streamed(&now, cut));
        if last.is_none() {
            dialogue.cut_last_line(self.0.agents.store(), cut);
        }
        let lines = dialogue
            .transcript
            .iter()
            .cloned()
            .chain(last)
            .filter(|line| !line.text.trim().is_empty());
        lines
            .map(|Line { role, text, at }| DialogueLine { role: role.as_str(), text, at })
            .collect()
    }

    fn needs_person(&self, call: CallUuid) -> bool {
        self.dialogues().get(&call).is_some_and(|dialogue| dialogue.needs_person)
    }

    fn over(&self, call: CallUuid) {
        if self.dialogues().remove(&call).is_some() {
            // The record of the call's end, which contains the dialogue, is already queued.
            self.0.agents.store().dialogues().delete(call);
        }
    }

    fn until_at_rest(&self, call: CallUuid) -> Option<BoxFuture<'static, ()>> {
        let dialogues = self.dialogues();
        let running = dialogues.get(&call)?.running.as_ref();
        let tasks = running.filter(|running| !running.is_at_rest())?.tasks.clone();
        tasks.close();
        Some(async move { tasks.wait().await }.boxed())
    }

    fn detach(&self, call: CallUuid) -> Option<Value> {
        let dialogue = self.dialogues().remove(&call)?;
        match serde_json::to_value(dialogue) {
            Ok(dialogue) => Some(dialogue),
            Err(error) => {
                tracing::error!(%error, "dialogue of a call not serialized");
                None
            }
        }
    }

    fn resume(&self, call: CallUuid, dialogue: Value) {
        match serde_json::from_value(dialogue) {
            Ok(dialogue) => drop(self.dialogues().insert(call, dialogue)),
            Err(error) => tracing::error!(%error, "dialogue of a call not read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn takes_streamed_text_once() {
        let progress = Arc::new(Progress::default());
        let running = RunningTurn::new(progress.clone());
        {
            let mut turn = progress.state();
            turn.add(Piece::Text("One moment. I am looking".to_owned()), 100);
            turn.streamed = true;
        }
        assert!(running.take_streamed("now", None).is_none(), "it still comes");
        progress.state().end(Err(failed()));
        assert_eq!(running.take_streamed("now", None).unwrap().text, "One moment. I am looking");
        assert!(running.streamed("now", None).is_none(), "once");
    }

    #[tokio::test]
    async fn a_turn_at_rest_goes_on_in_another_process() {
        let mut running = RunningTurn::new(Arc::default());
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        running.spawn(ended.map(drop));
        assert!(!running.is_at_rest());
        {
            let mut turn = running.progress.state();
            turn.add(Piece::Text("One moment, please. I am looking".to_owned()), 100);
            turn.add(Piece::Act(Action::Transfer("asha".to_owned())), 100);
            turn.streamed = true;
            turn.playback.begin(Duration::ZERO, "One moment, please.".to_owned());
            turn.playback.end(Duration::from_secs(2));
            turn.end(Ok(()));
        }
        drop(end);
        running.tasks.close();
        running.tasks.wait().await;
        assert!(running.is_at_rest());
        let moved: RunningTurn =
            serde_json::from_value(serde_json::to_value(&running).unwrap()).unwrap();
        let cut = Some(Duration::from_secs(3));
        assert_eq!(moved.streamed("now", cut).unwrap().text, "One moment, please.");
        let turn = moved.progress.state();
        assert_eq!(turn.reply, running.progress.state().reply);
        assert_eq!((turn.done, turn.acted), (Some(true), false));
    }

    #[test]
    fn retracts_a_reply_until_it_is_spoken() {
        let mut turn = Turn::default();
        turn.add(Piece::Text("Half an answer. And".to_owned()), 100);
        assert!(turn.retract());
        turn.add(Piece::Text("A whole one. ".to_owned()), 100);
        assert_eq!((turn.reply.text().as_str(), turn.sentences.len()), ("A whole one. ", 1));
        turn.streamed = true;
        assert!(!turn.retract());
        assert_eq!(turn.reply.text(), "A whole one. ", "the caller has heard it");
    }

    #[test]
    fn limits_streamed_text() {
        let mut turn = Turn::default();
        for piece in ["One two. ", "Three four. ", "Five six. "] {
            turn.add(Piece::Text(piece.to_owned()), 15);
        }
        turn.sentences.extend(turn.text.finish());
        let sentences: Vec<String> = turn.sentences.into_iter().collect();
        assert_eq!(sentences.join(" "), "One two. Three");
        assert_eq!(turn.reply.text(), "One two. Three ");
    }
}
