//! Drafts: documents that a person is writing in the playground. Each draft runs in one call of
//! that person's phone, instead of the answer URL of an application.
//!
//! Drafts are kept in memory, for a minute until the call begins and then for its duration.
//! Absolute URLs in a draft are fetched as usual. A draft has no server: its own URL returns the
//! draft again, and relative URLs do not exist.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, ready};
use serde::Deserialize as _;
use serde_json::{Value, json};
use uuid::Uuid;

use super::author::{Author, DialogueLine, DocumentRequest, url_of};
use machine::FetchFailure;
use media::prompt::Prompt;
use model::{AuthId, CallUuid, Method};
use xml::ast::DocUrl;

/// How long a draft waits for its call.
const WAITS: Duration = Duration::from_secs(60);
/// Maximum number of waiting drafts. A further one displaces the oldest one of the account that has
/// most. Each has at most 100 KiB.
const WAITING_MAX: usize = 100;
/// The key of a draft that is handed over to another process of the node: its path and its text.
const DRAFT: &str = "draft";
/// Path prefix of draft URLs.
const BELOW: &str = "draft/";

/// The drafts of this node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Drafts(Arc<Mutex<Table>>);

#[derive(Default)]
struct Table {
    /// Waiting drafts, oldest first.
    waiting: VecDeque<Waiting>,
    running: HashMap<CallUuid, Running>,
}

struct Waiting {
    id: Arc<str>,
    account: AuthId,
    person: Uuid,
    text: Arc<str>,
    since: Instant,
    /// The account of the call that claimed the draft. It is the endpoint's account, which may be a
    /// subaccount of the author's.
    claimed: Option<AuthId>,
}

impl Waiting {
    /// Whether it is this draft of this person and no call has claimed it.
    fn is_free(&self, id: &str, account: &AuthId, person: Uuid) -> bool {
        *self.id == *id
            && self.claimed.is_none()
            && self.account == *account
            && self.person == person
    }
}

struct Running {
    path: String,
    text: Arc<str>,
}

impl Drafts {
    /// Stores a draft until its author's phone calls. `id` must not be guessable.
    pub fn keep(&self, id: &str, account: AuthId, person: Uuid, text: &str, now: Instant) {
        let mut table = self.table();
        table.forget(now);
        if table.waiting.len() >= WAITING_MAX {
            table.displace();
        }
        let (id, text) = (id.into(), text.into());
        table.waiting.push_back(Waiting { id, account, person, text, since: now, claimed: None });
    }

    /// Returns the answer URL for the call that runs the draft. A draft can be claimed once, by its
    /// author, for a call of the account `of`. Returns `None` if there is no such draft or it was
    /// already claimed.
    pub fn claim(
        &self,
        id: &str,
        (account, person): (&AuthId, Uuid),
        of: &AuthId,
        now: Instant,
    ) -> Option<(DocUrl, Method)> {
        let mut table = self.table();
        table.forget(now);
        let draft = table.waiting.iter_mut().find(|one| one.is_free(id, account, person))?;
        draft.claimed = Some(of.clone());
        Some((DocUrl(url_of(&format!("{BELOW}{id}")).into()), Method::Post))
    }

    /// Removes a draft that its author's phone runs at another node of the fleet. Returns its text.
    pub fn take(
        &self,
        id: &str,
        (account, person): (&AuthId, Uuid),
        now: Instant,
    ) -> Option<Arc<str>> {
        let mut table = self.table();
        table.forget(now);
        let at = table.waiting.iter().position(|one| one.is_free(id, account, person))?;
        Some(table.waiting.remove(at)?.text)
    }

    /// Returns the draft of a call. `None` if the path is not that of a draft.
    fn text(&self, request: &DocumentRequest) -> Option<Result<String, FetchFailure>> {
        let gone = |what: &str| Some(Err(FetchFailure::Unreachable { detail: what.to_owned() }));
        let mut table = self.table();
        if let Some(running) = table.running.get(&request.call) {
            return match running.path == request.path {
                true => Some(Ok(running.text.to_string())),
                false => gone("a draft has no server: use absolute URLs in it"),
            };
        }
        let id = request.path.strip_prefix(BELOW)?;
        let found = table
            .waiting
            .iter()
            .position(|one| *one.id == *id && one.claimed.as_ref() == Some(&request.account));
        let Some(draft) = found.and_then(|at| table.waiting.remove(at)) else {
            return gone("this draft has expired: run it again");
        };
        let text = draft.text.to_string();
        table
            .running
            .insert(request.call, Running { path: request.path.clone(), text: draft.text });
        Some(Ok(text))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn forget(&mut self, now: Instant) {
        self.waiting.retain(|one| now.saturating_duration_since(one.since) < WAITS);
    }

    /// Removes the oldest draft of the account that has most.
    fn displace(&mut self) {
        let mut counts = HashMap::<&AuthId, usize>::new();
        for one in &self.waiting {
            *counts.entry(&one.account).or_default() += 1;
        }
        let most = counts.values().copied().max().unwrap_or_default();
        let oldest = self.waiting.iter().position(|one| counts.get(&one.account) == Some(&most));
        if let Some(oldest) = oldest {
            self.waiting.remove(oldest);
        }
    }
}

/// An author that serves drafts and passes all other requests on.
pub struct WithDrafts {
    pub drafts: Drafts,
    pub others: Arc<dyn Author>,
}

impl Author for WithDrafts {
    fn document(
        &self,
        request: DocumentRequest,
    ) -> BoxFuture<'static, Result<String, FetchFailure>> {
        match self.drafts.text(&request) {
            Some(text) => ready(text).boxed(),
            None => self.others.document(request),
        }
    }

    fn sound(&self, call: CallUuid, path: &str) -> Option<Arc<Prompt>> {
        self.others.sound(call, path)
    }

    fn cut(&self, call: CallUuid, after: Duration) {
        self.others.cut(call, after);
    }

    fn dialogue(&self, call: CallUuid) -> Vec<DialogueLine> {
        self.others.dialogue(call)
    }

    fn needs_person(&self, call: CallUuid) -> bool {
        self.others.needs_person(call)
    }

    fn over(&self, call: CallUuid) {
        self.drafts.table().running.remove(&call);
        self.others.over(call);
    }

    fn until_at_rest(&self, call: CallUuid) -> Option<BoxFuture<'static, ()>> {
        self.others.until_at_rest(call)
    }

    fn detach(&self, call: CallUuid) -> Option<Value> {
        let draft = self.drafts.table().running.remove(&call);
        match draft {
            Some(Running { path, text }) => Some(json!({ DRAFT: [path, text] })),
            None => self.others.detach(call),
        }
    }

    fn resume(&self, call: CallUuid, dialogue: Value) {
        match dialogue.get(DRAFT).map(<[String; 2]>::deserialize) {
            Some(Ok([path, text])) => {
                let running = Running { path, text: text.into() };
                self.drafts.table().running.insert(call, running);
            }
            _ => self.others.resume(call, dialogue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::author::{NoAuthor, path_of};
    use model::Clock;

    const TEXT: &str = "<Response><Speak>Hi</Speak></Response>";

    fn request(call: u128, account: &AuthId, path: &str) -> DocumentRequest {
        DocumentRequest {
            call: CallUuid(Uuid::from_u128(call)),
            account: account.clone(),
            main_account: account.clone(),
            path: path.to_owned(),
            params: Default::default(),
            within: Duration::from_secs(1),
        }
    }

    fn asked(author: &WithDrafts, request: DocumentRequest) -> Result<String, FetchFailure> {
        author.document(request).now_or_never().expect("a draft is there or not")
    }

    #[test]
    fn a_draft_is_taken_once_by_its_author_for_a_call_of_another_node() {
        let (account, now) = (AuthId::from("MAAAAAAAAAAAAAAAAAAA"), Clock::real().now());
        let (asha, ravi) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let drafts = Drafts::default();
        drafts.keep("x7", account.clone(), asha, TEXT, now);
        assert_eq!(drafts.take("x7", (&account, ravi), now), None);
        assert_eq!(drafts.take("x7", (&account, asha), now).as_deref(), Some(TEXT));
        assert_eq!(drafts.take("x7", (&account, asha), now), None);
        drafts.keep("x8", account.clone(), asha, TEXT, now);
        assert!(drafts.claim("x8", (&account, asha), &account, now).is_some());
        assert_eq!(drafts.take("x8", (&account, asha), now), None, "a call of this node has it");
    }

    #[test]
    fn a_draft_serves_one_call_of_its_author() {
        let (account, other) =
            (AuthId::from("MAAAAAAAAAAAAAAAAAAA"), AuthId::from("MABBBBBBBBBBBBBBBBBB"));
        let (asha, ravi, now) = (Uuid::from_u128(1), Uuid::from_u128(2), Clock::real().now());
        let drafts = Drafts::default();
        let author = WithDrafts { drafts: drafts.clone(), others: Arc::new(NoAuthor) };
        let hers = (&account, asha);
        drafts.keep("x7", account.clone(), asha, TEXT, now);
        assert!(drafts.claim("x7", (&account, ravi), &account, now).is_none(), "another person");
        assert!(drafts.claim("x7", (&other, asha), &account, now).is_none(), "another account");
        assert!(drafts.claim("x8", hers, &account, now).is_none(), "another id");
        assert!(asked(&author, request(1, &account, "draft/x7")).is_err(), "no phone has called");
        let (url, _) = drafts.claim("x7", hers, &account, now).expect("hers");
        let path = path_of(&url.0).expect("below our host");
        assert!(drafts.claim("x7", hers, &account, now).is_none(), "once");
        assert!(asked(&author, request(9, &other, path)).is_err(), "another account's call");
        assert_eq!(asked(&author, request(1, &account, path)).as_deref(), Ok(TEXT));
        assert_eq!(
            asked(&author, request(1, &account, path)).as_deref(),
            Ok(TEXT),
            "an element without an action"
        );
        let dialogue = author.detach(CallUuid(Uuid::from_u128(1))).expect("the draft");
        assert!(asked(&author, request(1, &account, path)).is_err(), "in another process");
        author.resume(CallUuid(Uuid::from_u128(1)), dialogue);
        assert_eq!(asked(&author, request(1, &account, path)).as_deref(), Ok(TEXT));
        assert!(asked(&author, request(2, &account, path)).is_err(), "another call");
        assert!(asked(&author, request(1, &account, "next")).is_err(), "nothing else is below it");
        author.over(CallUuid(Uuid::from_u128(1)));
        assert!(asked(&author, request(1, &account, path)).is_err(), "the call is over");
    }

    #[test]
    fn drafts_expire_after_a_minute_and_are_bounded() {
        let (account, asha, now) =
            (AuthId::from("MAAAAAAAAAAAAAAAAAAA"), Uuid::from_u128(1), Clock::real().now());
        let (drafts, hers) = (Drafts::default(), (&account, asha));
        drafts.keep("old", account.clone(), asha, TEXT, now);
        assert!(drafts.claim("old", hers, &account, now + WAITS).is_none());
        for n in 0..=WAITING_MAX {
            drafts.keep(&n.to_string(), account.clone(), asha, TEXT, now);
        }
        assert!(
            drafts.claim("0", hers, &account, now).is_none()
                && drafts.claim("1", hers, &account, now).is_some()
        );
        assert_eq!(drafts.table().waiting.len(), WAITING_MAX);
    }

    #[test]
    fn an_account_with_many_drafts_displaces_none_of_another() {
        let [many, few] = ["MA1", "MA2"].map(AuthId::from);
        let (person, now, drafts) = (Uuid::from_u128(1), Clock::real().now(), Drafts::default());
        drafts.keep("few", few.clone(), person, TEXT, now);
        for n in 0..2 * WAITING_MAX {
            drafts.keep(&n.to_string(), many.clone(), person, TEXT, now);
        }
        assert!(drafts.claim("few", (&few, person), &few, now).is_some());
        assert_eq!(drafts.table().waiting.len(), WAITING_MAX);
    }
}
