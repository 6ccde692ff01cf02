//! Calls that an agent answers: an application inside the node. It writes documents (`document`) that greet, listen for
//! speech or keys, and say what the agent replies, from its first sentence on (`stream`); so that the machine, its log and a
//! replay know nothing new.
//!
//! A call's session is in memory, and goes with the call: what was said, the turn that is under way. What is said is in the
//! store besides until then, for the process after one that dies.

mod document;
mod stream;
mod voiced;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::Agents;
use super::asking::Hearer;
use super::contract::{Action, Channel, Line, Piece, Question, Reply, Role, Said, User, text_of};
use super::sentences::Sentences;
use crate::call::author::{Author, DialogueLine, DocumentRequest};
use crate::inbox::Inbox;
use crate::notices::Notice;
use document::Heard;
use machine::{FetchFailure, Param, Params};
use media::prompt::Prompt;
use model::{AuthId, CallType, CallUuid, E164, NotificationTopic};
use speech::library::Library;
use store::{Agent, AgentChannel, AgentSpec, CallLine, Scope, Store};
use voiced::{Voiced, heard_of};

/// Calls with a session at most; a further one finds the agent busy.
const SESSIONS_MAX: usize = 10_000;
/// Sentences that wait to be spoken.
const SENTENCES: usize = 256;
/// A reply that is complete a moment after its first sentence needs no stream.
const GRACE: Duration = Duration::from_millis(20);
/// Kept of the time that a call waits for a document.
const MARGIN: Duration = Duration::from_millis(700);
/// Lines of what was said that are kept, and bytes of them.
const TRANSCRIPT_LINES: usize = 500;
const TRANSCRIPT_BYTES: usize = 64 * 1024;
/// Silences in a row; then the call is over.
const SILENCES: u32 = 3;

/// Answers calls for agents; cheap to clone.
#[derive(Clone)]
pub struct VoiceAgents(Arc<Inner>);

struct Inner {
    agents: Agents,
    inbox: Inbox,
    library: Library,
    sessions: Mutex<HashMap<CallUuid, Session>>,
}

/// A call.
struct Session {
    call: CallUuid,
    store: Store,
    agent: Arc<Agent>,
    account: AuthId,
    main_account: AuthId,
    number: String,
    user: User,
    /// The conversation's id; where it has none, the call's.
    conversation: Uuid,
    turn: u64,
    history: VecDeque<Line>,
    /// All that was said, as far as it is kept.
    transcript: Vec<Line>,
    /// The turn under way, or the last one.
    running: Option<Running>,
    silences: u32,
    /// What it heard last was cut short after so long.
    cut: Option<Duration>,
    /// The sounds that its documents name: the last one only.
    stream: Option<(Uuid, Arc<Prompt>)>,
}

struct Running {
    progress: Arc<Progress>,
    task: AbortHandle,
    speaking: Option<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(speaking) = &self.speaking {
            speaking.abort();
        }
    }
}

/// How far a turn is.
#[derive(Default)]
struct Progress {
    state: Mutex<Turn>,
    news: Notify,
}

#[derive(Default)]
struct Turn {
    reply: Reply,
    text: Sentences,
    /// Characters of it.
    spoken: usize,
    /// Said, but not handed on yet.
    sentences: VecDeque<String>,
    /// Where they go once the reply is streamed.
    out: Option<mpsc::Sender<String>>,
    streamed: bool,
    /// When what is streamed is heard.
    voiced: Voiced,
    /// Over; `false`: it failed.
    done: Option<bool>,
    /// Its action was carried out.
    acted: bool,
}

impl Progress {
    fn state(&self) -> std::sync::MutexGuard<'_, Turn> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who hears a turn's reply for a call.
struct Told {
    progress: Arc<Progress>,
    max: usize,
}

impl Hearer for Told {
    fn hear(&mut self, piece: Piece) -> Result<(), String> {
        self.progress.state().add(piece, self.max);
        self.progress.news.notify_one();
        Ok(())
    }

    fn take_back(&mut self) -> bool {
        self.progress.state().take_back()
    }
}

impl Turn {
    /// What came is nothing, unless it is being spoken.
    fn take_back(&mut self) -> bool {
        if !self.streamed {
            *self = Self::default();
        }
        !self.streamed
    }

    fn add(&mut self, piece: Piece, max: usize) {
        // What is spoken as it comes ends where a message's text would.
        let left = max.saturating_sub(self.spoken);
        let cut = |text: &str| text.chars().take(left).collect::<String>();
        let (text, apart) = match &piece {
            Piece::Text(text) => (cut(text), false),
            // Items are apart from each other.
            Piece::Item(item) => (text_of(item).map(cut).unwrap_or_default(), true),
            Piece::Act(_) => (String::new(), false),
        };
        self.spoken += text.chars().count();
        let mut said = if text.is_empty() { Vec::new() } else { self.text.push(&text) };
        if apart && !text.is_empty() {
            said.extend(self.text.push("\n"));
        }
        // More than there may be is left out.
        let _ = self.reply.add(piece, max);
        said.into_iter().for_each(|sentence| self.say(sentence));
    }

    fn say(&mut self, sentence: String) {
        match &self.out {
            // A queue that is full is a reply that is far too long.
            Some(out) => drop(out.try_send(sentence)),
            None => self.sentences.push_back(sentence),
        }
    }

    fn end(&mut self, well: bool) {
        if let Some(rest) = std::mem::take(&mut self.text).finish() {
            self.say(rest);
        }
        self.out = None;
        self.done = Some(well);
    }
}

/// What is heard next.
enum Next {
    /// The whole reply is there; `None`: it failed.
    Whole(Option<Reply>),
    /// It begins: this is its sound.
    Streamed(Uuid),
    /// Not yet.
    Later,
}

impl VoiceAgents {
    pub fn new(agents: Agents, inbox: Inbox, library: Library) -> Self {
        Self(Arc::new(Inner { agents, inbox, library, sessions: Mutex::default() }))
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<CallUuid, Session>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write(self, wish: DocumentRequest) -> Result<String, FetchFailure> {
        let (agent, what) = wish.path.split_once('/').unwrap_or((&wish.path, "answer"));
        let agent: Uuid = agent.parse().map_err(|_| FetchFailure::Status { status: 404 })?;
        let base = agent.to_string();
        match what {
            "answer" => self.answer(&wish, agent, &base).await,
            "turn" => self.turn(&wish, &base).await,
            "more" => self.reply(&wish, &base).await,
            "silent" => self.silent(&wish, &base).await,
            "dialled" => self.dialled(&wish, &base),
            _ => Err(FetchFailure::Status { status: 404 }),
        }
    }

    /// The call begins.
    async fn answer(
        &self,
        wish: &DocumentRequest,
        id: Uuid,
        base: &str,
    ) -> Result<String, FetchFailure> {
        let scope = Scope::Main(wish.main_account.clone());
        let found = self.0.agents.store().agents().get(&scope, id).await;
        let found = found.map_err(|e| FetchFailure::Unreachable { detail: e.to_string() })?;
        // An agent of the call's own account, or of its main account: the store knows main accounts alone.
        let may =
            |agent: &Agent| agent.account == wish.account || agent.account == wish.main_account;
        let Some(agent) =
            found.filter(|agent| agent.spec.serves(AgentChannel::Voice) && may(agent))
        else {
            tracing::info!(agent = %id, "a call is for an agent that is not there, or takes none: the caller hears busy");
            return Ok(document::busy());
        };
        let agent = Arc::new(agent);
        let of = |name: &str| value(&wish.params, name).unwrap_or_default().to_owned();
        // A call that we placed: the user is at its other end.
        let outbound = of("Direction") == "outbound";
        let (number, user) = if outbound { (of("From"), of("To")) } else { (of("To"), of("From")) };
        let session = Session {
            call: wish.call,
            store: self.0.agents.store().clone(),
            agent: agent.clone(),
            account: wish.account.clone(),
            main_account: wish.main_account.clone(),
            number,
            user: User { wa_id: user, user_id: None, name: of("CallerName") },
            conversation: self.conversation(wish),
            turn: 0,
            history: VecDeque::new(),
            transcript: Vec::new(),
            running: None,
            silences: 0,
            cut: None,
            stream: None,
        };
        {
            let mut sessions = self.sessions();
            if sessions.len() >= SESSIONS_MAX {
                return Ok(document::busy());
            }
            sessions.insert(wish.call, session);
        }
        if agent.spec.greeting.trim().is_empty() {
            self.begin(wish.call, Said { kind: "start".to_owned(), ..Said::default() });
            return self.reply(wish, base).await;
        }
        self.said(wish.call, Role::Assistant, &agent.spec.greeting);
        Ok(document::listen(&agent.spec, base, &Heard::Text(&agent.spec.greeting), false))
    }

    /// The caller has said or typed something.
    async fn turn(&self, wish: &DocumentRequest, base: &str) -> Result<String, FetchFailure> {
        let of = |name: &str| {
            value(&wish.params, name).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let said = match (of("Speech"), of("Digits")) {
            (Some(speech), _) => Said {
                kind: "speech".to_owned(),
                text: speech.clone(),
                speech: Some(speech),
                ..Said::default()
            },
            (None, Some(digits)) => Said {
                kind: "digits".to_owned(),
                text: digits.clone(),
                digits: Some(digits),
                ..Said::default()
            },
            (None, None) => return self.silent(wish, base).await,
        };
        if !self.renewed(wish).await {
            let spec = self.spec(wish.call).ok_or(FetchFailure::Status { status: 404 })?;
            return Ok(self.act(
                wish,
                &spec,
                base,
                document::sorry(&spec.language),
                &Action::Escalate,
            ));
        }
        self.begin(wish.call, said);
        self.reply(wish, base).await
    }

    /// The agent as it is set now answers the next turn; `false`: it takes no calls any more.
    async fn renewed(&self, wish: &DocumentRequest) -> bool {
        let Some(id) = self.sessions().get(&wish.call).map(|session| session.agent.id) else {
            return true;
        };
        match self.0.agents.store().agents().get(&Scope::Main(wish.main_account.clone()), id).await
        {
            Ok(Some(agent)) if agent.spec.serves(AgentChannel::Voice) => {
                if let Some(session) = self.sessions().get_mut(&wish.call) {
                    session.agent = Arc::new(agent);
                }
                true
            }
            Ok(_) => {
                tracing::info!(agent = %id, "an agent was switched off in the middle of a call: a person is wanted");
                false
            }
            // The one that is known is better than none.
            Err(_) => true,
        }
    }

    /// Nobody has said anything.
    async fn silent(&self, wish: &DocumentRequest, base: &str) -> Result<String, FetchFailure> {
        let (spec, silences, action) = {
            let mut sessions = self.sessions();
            let session =
                sessions.get_mut(&wish.call).ok_or(FetchFailure::Status { status: 404 })?;
            session.silences += 1;
            let over = session.running.as_ref().map(|running| {
                let mut turn = running.progress.state();
                let action = match turn.done.filter(|_| !turn.acted) {
                    Some(true) => turn.reply.action.clone(),
                    // It broke off in the middle of what it said.
                    Some(false) => Some(Action::Escalate),
                    None => None,
                };
                turn.acted |= action.is_some();
                action
            });
            (session.agent.spec.clone(), session.silences, over.flatten())
        };
        if let Some(action) = action {
            return Ok(self.act(wish, &spec, base, "", &action));
        }
        if silences >= SILENCES {
            return Ok(document::act(&spec, base, "", &Action::Hangup));
        }
        Ok(document::listen(&spec, base, &Heard::Nothing, false))
    }

    /// A transfer has ended: the call with it, or nobody was there.
    fn dialled(&self, wish: &DocumentRequest, base: &str) -> Result<String, FetchFailure> {
        let spec = self.spec(wish.call).ok_or(FetchFailure::Status { status: 404 })?;
        if value(&wish.params, "DialStatus") == Some("completed") {
            return Ok(document::act(&spec, base, "", &Action::Hangup));
        }
        Ok(self.act(wish, &spec, base, document::sorry(&spec.language), &Action::Escalate))
    }

    /// The document of what the agent replies, as far as it does within the call's patience.
    async fn reply(&self, wish: &DocumentRequest, base: &str) -> Result<String, FetchFailure> {
        let spec = self.spec(wish.call).ok_or(FetchFailure::Status { status: 404 })?;
        let patience = wish.within.saturating_sub(MARGIN).max(MARGIN);
        let next =
            tokio::time::timeout(patience, self.next(wish.call)).await.unwrap_or(Next::Later);
        Ok(match next {
            Next::Later => document::wait(base),
            Next::Streamed(id) => {
                document::listen(&spec, base, &Heard::Stream(&format!("{base}/sound/{id}")), true)
            }
            Next::Whole(None) => {
                self.act(wish, &spec, base, document::sorry(&spec.language), &Action::Escalate)
            }
            Next::Whole(Some(reply)) => {
                let text = reply.text();
                self.said(wish.call, Role::Assistant, &text);
                match &reply.action {
                    Some(action) => self.act(wish, &spec, base, &text, action),
                    None if text.is_empty() => {
                        document::listen(&spec, base, &Heard::Nothing, false)
                    }
                    None => document::listen(&spec, base, &Heard::Text(&text), false),
                }
            }
        })
    }

    /// Waits until there is something to be heard.
    async fn next(&self, call: CallUuid) -> Next {
        let progress =
            self.sessions().get(&call).and_then(|s| Some(s.running.as_ref()?.progress.clone()));
        let Some(progress) = progress else { return Next::Whole(None) };
        loop {
            let news = progress.news.notified();
            let begun = {
                let mut turn = progress.state();
                if let Some(well) = turn.done {
                    turn.acted = true;
                    return Next::Whole(well.then(|| turn.reply.clone()));
                }
                !turn.sentences.is_empty()
            };
            if begun {
                // Once, however fast the rest comes.
                tokio::time::sleep(GRACE).await;
                return self.stream(call, &progress);
            }
            news.await;
        }
    }

    /// What is there is spoken from now on, and what comes behind it.
    fn stream(&self, call: CallUuid, progress: &Arc<Progress>) -> Next {
        let (out, sentences) = mpsc::channel(SENTENCES);
        {
            let mut turn = progress.state();
            if turn.done.is_none() {
                for sentence in std::mem::take(&mut turn.sentences) {
                    drop(out.try_send(sentence));
                }
                turn.out = Some(out);
                turn.streamed = true;
            } else {
                turn.acted = true;
                return Next::Whole(turn.done.unwrap_or_default().then(|| turn.reply.clone()));
            }
        }
        let mut sessions = self.sessions();
        let Some(session) = sessions.get_mut(&call) else { return Next::Whole(None) };
        let (prompt, writer) = Prompt::new();
        let spec = Arc::new(session.agent.spec.clone());
        let speaking = tokio::spawn(stream::speak(
            self.0.library.clone(),
            spec,
            sentences,
            writer,
            progress.clone(),
        ));
        if let Some(running) = &mut session.running {
            running.speaking = Some(speaking.abort_handle());
        }
        session.keep_streamed(&self.0.agents.clock().wall().rfc3339());
        let id = Uuid::new_v4();
        session.stream = Some((id, prompt));
        Next::Streamed(id)
    }

    /// Begins a turn; the one before it is broken off.
    fn begin(&self, call: CallUuid, said: Said) {
        let now = self.0.agents.clock().wall().rfc3339();
        let mut sessions = self.sessions();
        let Some(session) = sessions.get_mut(&call) else { return };
        session.silences = 0;
        session.stream = None;
        let cut = session.cut.take();
        // What was streamed is known only now.
        match session.running.take().and_then(|before| before.streamed(&now, cut)) {
            Some(line) => session.say(line),
            None => session.heard_until(cut),
        }
        session.turn += 1;
        let question = Question {
            conversation: session.conversation,
            call: Some(call.0),
            number: session.number.clone(),
            user: session.user.clone(),
            channel: Channel::Call,
            turn: session.turn,
            input: said.clone(),
            history: session.history.iter().cloned().collect(),
        };
        session.say(Line { role: Role::User, text: said.text, at: now });
        let progress = Arc::new(Progress::default());
        let (agents, agent, told) =
            (self.0.agents.clone(), session.agent.clone(), progress.clone());
        let voices = self.clone();
        let task = tokio::spawn(async move {
            let mut told = Told { progress: told, max: usize::from(agent.spec.max_reply_chars) };
            let done = agents.ask(&agent, Uuid::new_v4(), &question, &mut told).await;
            let told = told.progress;
            if let Err(error) = &done {
                tracing::warn!(agent = %agent.id, %error, "an agent failed in a call");
            }
            told.state().end(done.is_ok());
            told.news.notify_one();
            voices.keep_streamed(call);
        });
        session.running = Some(Running { progress, task: task.abort_handle(), speaking: None });
    }

    /// The document of an action, and what else it brings.
    fn act(
        &self,
        wish: &DocumentRequest,
        spec: &AgentSpec,
        base: &str,
        text: &str,
        action: &Action,
    ) -> String {
        if *action == Action::Escalate {
            let sessions = self.sessions();
            if let Some(session) = sessions.get(&wish.call) {
                let who = if session.user.name.is_empty() {
                    &session.user.wa_id
                } else {
                    &session.user.name
                };
                let text =
                    format!("{} could not help {who} on the phone: a person is wanted", spec.name);
                let (account, main) = (session.account.clone(), session.main_account.clone());
                self.0.agents.notices().note(Notice {
                    number: Some(session.number.clone()),
                    user: Some(session.user.wa_id.clone()),
                    call: Some(wish.call),
                    ..Notice::new(account, main, NotificationTopic::Escalation, text)
                });
            }
        }
        let sorry = document::sorry(&spec.language);
        let text = if text.is_empty() && *action == Action::Escalate { sorry } else { text };
        if text == sorry {
            self.said(wish.call, Role::Assistant, sorry);
        }
        document::act(spec, base, text, action)
    }

    /// What is streamed of a reply that has come to its end is known, though not yet heard.
    fn keep_streamed(&self, call: CallUuid) {
        let now = self.0.agents.clock().wall().rfc3339();
        if let Some(session) = self.sessions().get(&call) {
            session.keep_streamed(&now);
        }
    }

    fn said(&self, call: CallUuid, role: Role, text: &str) {
        let at = self.0.agents.clock().wall().rfc3339();
        if let Some(session) = self.sessions().get_mut(&call) {
            // What was streamed and is over was heard before this.
            let cut = session.cut;
            if let Some(line) =
                session.running.as_ref().and_then(|running| running.take_streamed(&at, cut))
            {
                session.say(line);
                session.cut = None;
            }
            session.say(Line { role, text: text.to_owned(), at });
        }
    }

    /// The conversation that a call is of, as soon as its line is in it; of a phone's call it is the call itself.
    fn conversation(&self, wish: &DocumentRequest) -> Uuid {
        let of = |name: &str| value(&wish.params, name).unwrap_or_default();
        let (number, user) =
            if of("Direction") == "outbound" { ("From", "To") } else { ("To", "From") };
        let tables = self.0.agents.directory().tables();
        let number =
            E164::parse(of(number)).ok().and_then(|number| tables.by_number(&number).cloned());
        match number.filter(|_| of("CallType") == CallType::Whatsapp.as_str()) {
            Some(number) => self.0.inbox.conversation_of(&number, of(user)),
            None => wish.call.0,
        }
    }

    fn spec(&self, call: CallUuid) -> Option<AgentSpec> {
        Some(self.sessions().get(&call)?.agent.spec.clone())
    }
}

impl Session {
    /// A line was said; an empty one was not.
    fn say(&mut self, line: Line) {
        if line.text.trim().is_empty() {
            return;
        }
        if self.has_room_for(&line) {
            self.keep(self.transcript.len(), &line);
            self.transcript.push(line.clone());
        }
        self.history.push_back(line);
        // Two lines a turn.
        while self.history.len() > usize::from(self.agent.spec.history_turns) * 2 {
            self.history.pop_front();
        }
    }

    /// Who speaks into what the agent says has not heard the end of it: neither has the agent said it.
    fn heard_until(&mut self, cut: Option<Duration>) {
        let Some(cut) = cut else { return };
        for line in [self.history.back_mut(), self.transcript.last_mut()].into_iter().flatten() {
            if line.role == Role::Assistant {
                line.text = heard_of(&line.text, cut);
            }
        }
        if let Some((seq, line)) = self.transcript.iter().enumerate().next_back() {
            self.keep(seq, line);
        }
    }

    /// What is being streamed, in the place where it will stand: only its end says what of it was heard.
    fn keep_streamed(&self, now: &str) {
        let line = self.running.as_ref().and_then(|running| running.streamed(now, None));
        if let Some(line) =
            line.filter(|line| !line.text.trim().is_empty() && self.has_room_for(line))
        {
            self.keep(self.transcript.len(), &line);
        }
    }

    /// For the next process, should this one die.
    fn keep(&self, seq: usize, Line { role, text, at }: &Line) {
        let line = CallLine { role: role.as_str().to_owned(), text: text.clone(), at: at.clone() };
        self.store.dialogues().put(self.call, seq, line);
    }

    fn has_room_for(&self, line: &Line) -> bool {
        self.transcript.len() < TRANSCRIPT_LINES && line.text.len() <= self.transcript_room()
    }

    /// Bytes that the transcript may still have.
    fn transcript_room(&self) -> usize {
        TRANSCRIPT_BYTES.saturating_sub(self.transcript.iter().map(|line| line.text.len()).sum())
    }
}

impl Running {
    /// What was streamed of its reply: it is known only when it is over.
    fn streamed(&self, at: &str, cut: Option<Duration>) -> Option<Line> {
        let state = self.progress.state();
        let text = || cut.map_or_else(|| state.reply.text(), |cut| state.voiced.until(cut));
        state.streamed.then(|| Line { role: Role::Assistant, text: text(), at: at.to_owned() })
    }

    /// The same once it is over, for the transcript: then it stands there.
    fn take_streamed(&self, at: &str, cut: Option<Duration>) -> Option<Line> {
        let line = self.streamed(at, cut);
        let mut state = self.progress.state();
        let over = state.done.is_some();
        state.streamed &= !over;
        line.filter(|_| over)
    }
}

fn value<'a>(params: &'a Params, name: &str) -> Option<&'a str> {
    params.get(name).map(Param::reveal)
}

impl Author for VoiceAgents {
    fn document(&self, wish: DocumentRequest) -> BoxFuture<'static, Result<String, FetchFailure>> {
        self.clone().write(wish).boxed()
    }

    fn sound(&self, call: CallUuid, path: &str) -> Option<Arc<Prompt>> {
        let sessions = self.sessions();
        let (id, prompt) = sessions.get(&call)?.stream.as_ref()?;
        path.ends_with(&id.to_string()).then(|| prompt.clone())
    }

    fn cut(&self, call: CallUuid, after: Duration) {
        if let Some(session) = self.sessions().get_mut(&call) {
            session.cut = Some(after);
        }
    }

    fn said(&self, call: CallUuid) -> Vec<DialogueLine> {
        let now = self.0.agents.clock().wall().rfc3339();
        let mut sessions = self.sessions();
        let Some(session) = sessions.get_mut(&call) else { return Vec::new() };
        let cut = session.cut.take();
        let last = session.running.as_ref().and_then(|running| running.streamed(&now, cut));
        if last.is_none() {
            session.heard_until(cut);
        }
        let lines = session
            .transcript
            .iter()
            .cloned()
            .chain(last)
            .filter(|line| !line.text.trim().is_empty());
        lines
            .map(|Line { role, text, at }| DialogueLine { role: role.as_str(), text, at })
            .collect()
    }

    fn over(&self, call: CallUuid) {
        let mut sessions = self.sessions();
        if let Some(session) = sessions.remove(&call) {
            // The call's end has been queued, and all of it with that.
            session.store.dialogues().delete(call);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_streamed_stands_before_what_is_said_after_it() {
        let progress = Arc::new(Progress::default());
        let task = tokio::spawn(async {}).abort_handle();
        let running = Running { progress: progress.clone(), task, speaking: None };
        {
            let mut turn = progress.state();
            turn.add(Piece::Text("One moment. I am looking".to_owned()), 100);
            turn.streamed = true;
        }
        assert!(running.take_streamed("now", None).is_none(), "it still comes");
        progress.state().end(false);
        assert_eq!(running.take_streamed("now", None).unwrap().text, "One moment. I am looking");
        assert!(running.streamed("now", None).is_none(), "once");
    }

    #[test]
    fn a_try_is_taken_back_until_it_is_spoken() {
        let mut turn = Turn::default();
        turn.add(Piece::Text("Half an answer. And".to_owned()), 100);
        assert!(turn.take_back());
        turn.add(Piece::Text("A whole one. ".to_owned()), 100);
        assert_eq!((turn.reply.text().as_str(), turn.sentences.len()), ("A whole one. ", 1));
        turn.streamed = true;
        assert!(!turn.take_back());
        assert_eq!(turn.reply.text(), "A whole one. ", "the caller has heard it");
    }

    #[test]
    fn what_is_spoken_as_it_comes_is_no_longer_than_a_reply_may_be() {
        let mut turn = Turn::default();
        for piece in ["One two. ", "Three four. ", "Five six. "] {
            turn.add(Piece::Text(piece.to_owned()), 15);
        }
        turn.sentences.extend(turn.text.finish());
        let said: Vec<String> = turn.sentences.into_iter().collect();
        assert_eq!(said.join(" "), "One two. Three");
        assert_eq!(turn.reply.text(), "One two. Three ");
    }
}
