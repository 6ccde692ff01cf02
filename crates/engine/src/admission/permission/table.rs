//! The pairs of a node: what each user allows each business number, and who is on the line with whom.
//!
//! Everything is in memory and answered at once, so that the gate can ask it; what changes goes to the store behind it.
//! A user is named by their digits, or by their business-scoped id where they hide the number.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use dashmap::mapref::entry::Entry;
use dashmap::mapref::one::RefMut;
use dashmap::{DashMap, DashSet};

use super::pair::{Event, Pair, Refusal, Reply, Rules, State, View};
use model::{PhoneNumberId, Timestamp};
use store::{PermissionReply, PermissionRow, PermissionWrite, Store, StoreError};

/// Between two questions to Graph about one pair (`meta-calling.md` §4.2), in microseconds.
const ASK_AGAIN: i64 = 60_000_000;
/// Pairs that Graph was asked about are remembered up to here; past it the old ones are forgotten first.
const ASKED_MAX: usize = 10_000;

/// A (business number, user).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairKey {
    pub number: PhoneNumberId,
    pub user: Arc<str>,
}

impl PairKey {
    /// The pair of a number and a user: digits or a business-scoped id.
    pub fn new(number: &PhoneNumberId, user: &str) -> Self {
        Self { number: number.clone(), user: user.into() }
    }
}

/// Without the user's number (R22).
impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairKey({})", self.number)
    }
}

/// The pairs; one per node.
#[derive(Default)]
pub struct Consents {
    pairs: DashMap<PairKey, Pair>,
    /// Live calls by pair.
    live: Arc<DashMap<PairKey, u32>>,
    /// When Graph was asked last.
    asked: DashMap<PairKey, Timestamp>,
    /// Pairs whose user is being asked this moment.
    asking: DashSet<PairKey>,
    /// Where pairs outlive the process.
    store: Option<Store>,
    /// Who hears of it when a user allows something else than before.
    told: OnceLock<Hearer>,
}

/// Hears what a pair's user allows from now on. Nothing here may block or wait.
pub type Hearer = Box<dyn Fn(&PairKey, State) + Send + Sync>;

/// Read from the store in one go.
const PAGE: u32 = 5_000;

/// Something that was taken in.
pub struct Taken {
    /// `false`: it is older than what was known, and changed nothing.
    pub changed: bool,
    /// When it is in the store; none: nothing is kept.
    pub stored: Option<Stored>,
}

/// Ends when something is in the store: `false` if it can't come there.
pub type Stored = Pin<Box<dyn Future<Output = bool> + Send>>;

/// A reply that could not be kept: Meta is asked to come again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A call that is up between a number and a user; ends with its drop.
#[derive(Debug)]
#[must_use = "a pair let go at once is free at once"]
pub struct Engaged {
    live: Arc<DashMap<PairKey, u32>>,
    key: PairKey,
}

impl Drop for Engaged {
    fn drop(&mut self) {
        let Entry::Occupied(mut entry) = self.live.entry(self.key.clone()) else { return };
        match entry.get().checked_sub(1) {
            Some(left) if left > 0 => *entry.get_mut() = left,
            _ => drop(entry.remove()),
        }
    }
}

/// Why a request was not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// One is on its way.
    Asking,
    Refused(Refusal),
}

/// A request to a user is on its way; ends with its drop.
#[derive(Debug)]
#[must_use = "a request let go at once is over at once"]
pub struct Asking {
    table: Arc<Consents>,
    key: PairKey,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.table.asking.remove(&self.key);
    }
}

impl fmt::Debug for Consents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Consents({})", self.pairs.len())
    }
}

impl Consents {
    /// From now on, this hears of users who allow something else than before; the first who says so counts.
    pub fn tell(&self, told: Hearer) {
        let _ = self.told.set(told);
    }

    /// An empty table, kept nowhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// The table that this store holds, kept there.
    ///
    /// # Errors
    /// The store's. A row that can't be read is left out: Graph is asked about its pair.
    pub async fn load(store: Store) -> Result<Self, StoreError> {
        let table = Self { store: None, ..Self::default() };
        let mut last: Option<(String, String)> = None;
        loop {
            let after = last.as_ref().map(|(number, user)| (number.as_str(), user.as_str()));
            let rows = store.permissions().list(after, PAGE).await?;
            let Some(end) = rows.last() else { break };
            last = Some((end.number.to_string(), end.user.clone()));
            for row in &rows {
                match serde_json::from_str(&row.pair) {
                    Ok(pair) => {
                        drop(table.pairs.insert(PairKey::new(&row.number, &row.user), pair))
                    }
                    Err(error) => {
                        tracing::warn!(number = %row.number, %error, "a user's permission can't be read")
                    }
                }
            }
        }
        Ok(Self { store: Some(store), ..table })
    }

    /// What is known of a pair.
    pub fn pair(&self, key: &PairKey) -> Option<Pair> {
        self.pairs.get(key).map(|pair| pair.clone())
    }

    /// May a call go out to the user, as far as their permission goes?
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn may_call(&self, key: &PairKey, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
        match self.pairs.get(key) {
            Some(pair) => pair.may_call(rules, now),
            None => Pair::default().may_call(rules, now),
        }
    }

    /// May the user be asked for permission?
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn may_request(&self, key: &PairKey, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
        self.pairs.get(key).map_or_else(
            || Pair::default().may_request(rules, now),
            |pair| pair.may_request(rules, now),
        )
    }

    /// Counts a request that is about to go out, if it may; of two at the same moment, one is refused where there is room for one.
    ///
    /// # Errors
    /// The rule that forbids it, or that one is on its way.
    pub fn claim_request(
        &self,
        key: &PairKey,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<Taken, Unclaimed> {
        let pair = self.pairs.entry(key.clone()).or_default();
        // Under the entry's lock: who begins one looks at the pair after that, and sees what is counted here.
        if self.asking.contains(key) {
            return Err(Unclaimed::Asking);
        }
        pair.may_request(rules, now).map_err(Unclaimed::Refused)?;
        Ok(self.change(key, pair, rules, now, Event::Requested))
    }

    /// Begins a request whose end somebody waits for: nobody else may ask this user until the guard is dropped. `None`: one is on its
    /// way. Whether it may be sent is to be asked after that.
    pub fn begin_request(self: &Arc<Self>, key: &PairKey) -> Option<Asking> {
        self.asking.insert(key.clone()).then(|| Asking { table: self.clone(), key: key.clone() })
    }

    /// What the number API shows.
    pub fn view(&self, key: &PairKey, rules: &Rules, now: Timestamp) -> View {
        self.pairs
            .get(key)
            .map_or_else(|| Pair::default().view(rules, now), |pair| pair.view(rules, now))
    }

    /// Takes in what happened to a pair. `false`: a reply older than what is known.
    pub fn apply(&self, key: &PairKey, rules: &Rules, now: Timestamp, event: Event) -> bool {
        self.take(key, rules, now, event).changed
    }

    /// [`Consents::apply`], and when it is in the store.
    pub fn take(&self, key: &PairKey, rules: &Rules, now: Timestamp, event: Event) -> Taken {
        // A user's call says nothing of a pair that nothing is known of.
        if event == Event::UserConnected && !self.pairs.contains_key(key) {
            return Taken { changed: true, stored: None };
        }
        let pair = self.pairs.entry(key.clone()).or_default();
        self.change(key, pair, rules, now, event)
    }

    fn change(
        &self,
        key: &PairKey,
        mut pair: RefMut<'_, PairKey, Pair>,
        rules: &Rules,
        now: Timestamp,
        event: Event,
    ) -> Taken {
        let before = pair.state(rules, now);
        let changed = pair.apply(rules, now, event);
        let after = pair.state(rules, now);
        // Under the entry's lock: rows come to the store in the order in which they changed. What finds no room there
        // goes with the next change.
        let stored = self.keep(key, &pair, rules, now, None).unwrap_or_default();
        drop(pair);
        self.tell_of(key, before, after);
        Taken { changed, stored }
    }

    /// Takes in a user's reply, message `id` of Meta's, sent at `at` by Meta's clock. It is stored when it is on the
    /// disk.
    ///
    /// # Errors
    /// The store's queue is full. It may be taken in again.
    pub fn reply(
        &self,
        key: &PairKey,
        rules: &Rules,
        now: Timestamp,
        at: Option<Timestamp>,
        reply: Reply,
        id: &str,
    ) -> Result<Taken, Full> {
        let mut pair = self.pairs.entry(key.clone()).or_default();
        let before = pair.state(rules, now);
        let changed = pair.apply(rules, now, Event::Replied { at, reply });
        let after = pair.state(rules, now);
        // Words and numbers: there is nothing in it that JSON could not say.
        let text = serde_json::to_string(&reply).unwrap_or_default();
        let reply = PermissionReply { message: id.to_owned(), reply: text, applied: changed };
        let stored = self.keep(key, &pair, rules, now, Some(reply));
        drop(pair);
        // In memory it counts, also where it has to come again.
        self.tell_of(key, before, after);
        Ok(Taken { changed, stored: stored? })
    }

    fn tell_of(&self, key: &PairKey, before: State, after: State) {
        if let Some(told) = self.told.get().filter(|_| before != after) {
            told(key, after);
        }
    }

    fn keep(
        &self,
        key: &PairKey,
        pair: &Pair,
        rules: &Rules,
        now: Timestamp,
        reply: Option<PermissionReply>,
    ) -> Result<Option<Stored>, Full> {
        let Some(store) = &self.store else { return Ok(None) };
        let row = PermissionRow {
            number: key.number.clone(),
            user: key.user.to_string(),
            state: pair.state(rules, now).as_str().to_owned(),
            pair: serde_json::to_string(pair).unwrap_or_default(),
            updated: now,
        };
        let queued = store.permissions().put(PermissionWrite { row, reply }).ok_or(Full)?;
        Ok(Some(Box::pin(async move { queued.await.is_ok() })))
    }

    /// Whether Graph is to be asked about a pair now, and that it will be: nothing is known of it, or what is known
    /// was contradicted (`always`: or somebody wants to know), and it was not asked within the last minute.
    pub fn ask(&self, key: &PairKey, now: Timestamp, always: bool) -> bool {
        let known = self.pairs.get(key).is_some_and(|pair| !pair.is_doubtful());
        if known && !always {
            return false;
        }
        let recent = |at: Timestamp| now.micros().saturating_sub(at.micros()).abs() < ASK_AGAIN;
        if self.asked.len() >= ASKED_MAX {
            self.asked.retain(|_, at| recent(*at));
        }
        match self.asked.entry(key.clone()) {
            Entry::Occupied(entry) if recent(*entry.get()) => false,
            Entry::Occupied(mut entry) => {
                entry.insert(now);
                true
            }
            Entry::Vacant(entry) => {
                entry.insert(now);
                true
            }
        }
    }

    /// A call with the user is up, whoever began it.
    pub fn engage(&self, key: PairKey) -> Engaged {
        *self.live.entry(key.clone()).or_default() += 1;
        Engaged { live: self.live.clone(), key }
    }

    /// The same, unless one is up already (L9).
    pub fn engage_alone(&self, key: PairKey) -> Option<Engaged> {
        match self.live.entry(key.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(entry) => entry.insert(1),
        };
        Some(Engaged { live: self.live.clone(), key })
    }

    /// Whether a call with the user is up.
    pub fn is_engaged(&self, key: &PairKey) -> bool {
        self.live.contains_key(key)
    }

    /// Forgets a pair in memory; its row is its owner's to forget.
    pub fn forget(&self, key: &PairKey) {
        self.pairs.remove(key);
    }

    /// Forgets pairs of which nothing is in force any more, by the rules of their numbers.
    pub fn forget_blank(&self, now: Timestamp, is_blank: impl Fn(&PhoneNumberId, &Pair) -> bool) {
        self.pairs.retain(|key, pair| {
            let blank = is_blank(&key.number, pair);
            if blank && let Some(store) = &self.store {
                store.permissions().delete_unchanged(&key.number, &key.user, now);
            }
            !blank
        });
    }
}
