//! The pairs of a node: the permission of each user for each business number, and which pairs have
//! a live call.
//!
//! All of it is in memory, so that the gate can read it without waiting; changes are written to the
//! store in the background. A user is identified by digits, or by the business-scoped id if the
//! user hides the number.
//!
//! In a fleet, the memory is a copy that may be out of date. [`Consents::fetch`] reads a pair again,
//! the database decides which calls are placed ([`Consents::reserve`]), and each event is applied
//! to the pair as it is stored.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dashmap::mapref::entry::Entry;
use dashmap::mapref::one::RefMut;
use dashmap::{DashMap, DashSet};

use super::pair::{Event, Pair, Refusal, Reply, Rules, State, View};
use model::{PhoneNumberId, Timestamp};
use store::{
    ChangedPermission, EngageResult, Engagement, PermissionChange, PermissionReply, PermissionRow,
    PermissionWrite, Store, StoreError,
};
use uuid::Uuid;

/// Minimum time between two requests to Graph about one pair, in microseconds.
const ASK_AGAIN: i64 = 60_000_000;
/// Maximum number of pairs for which the last request to Graph is remembered. Beyond it old ones
/// are dropped.
const ASKED_MAX: usize = 10_000;
/// Maximum number of attempts at a decision if the pair changes concurrently.
const TRIES: usize = 8;
/// Pause between attempts to end an engagement while the store rejects writes.
const END_AGAIN: Duration = Duration::from_secs(1);
/// Maximum number of those attempts.
const END_TRIES: usize = 3_600;

/// A business number and a user.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairKey {
    pub number: PhoneNumberId,
    pub user: Arc<str>,
}

impl PairKey {
    /// Creates a key. `user` is a user's digits or business-scoped id.
    pub fn new(number: &PhoneNumberId, user: &str) -> Self {
        Self { number: number.clone(), user: user.into() }
    }
}

/// Omits the user's number.
impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairKey({})", self.number)
    }
}

/// The call permissions of all pairs of business number and user that this node serves.
#[derive(Default)]
pub struct Consents {
    pairs: DashMap<PairKey, Pair>,
    /// Live calls by pair.
    live: Arc<DashMap<PairKey, u32>>,
    /// The time of the last query to Graph, by pair.
    asked: DashMap<PairKey, Timestamp>,
    /// Pairs with a permission request in progress.
    asking: DashSet<PairKey>,
    /// The store for pairs, if there is one.
    store: Option<Store>,
    /// The run of this process, if it is in a fleet.
    run: OnceLock<Uuid>,
    /// Called when a user's permission changes.
    listener: Arc<OnceLock<PermissionListener>>,
}

/// Called with the new state when a user's permission changes. It must not block or wait.
pub type PermissionListener = Box<dyn Fn(&PairKey, State) + Send + Sync>;

/// Rows per read from the store.
const PAGE: u32 = 5_000;

/// The effect of an event.
pub struct AppliedEvent {
    /// `false` if the event was outdated and changed nothing.
    pub changed: bool,
    /// Completes when the change is stored. `None` if nothing is stored.
    pub stored: Option<Stored>,
}

/// Completes when a change is stored, with `false` if it cannot be.
pub type Stored = Pin<Box<dyn Future<Output = bool> + Send>>;

/// The store's queue is full, so the reply could not be stored. Meta is asked to send it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The mark that a call between a number and a user is live. Dropping it ends the mark.
#[derive(Debug)]
#[must_use = "a pair let go at once is free at once"]
pub struct Engaged {
    live: Arc<DashMap<PairKey, u32>>,
    key: PairKey,
    /// The reservation of the user against other nodes of a fleet.
    reservation: Option<Reservation>,
}

impl Engaged {
    /// Keeps a reservation until the call ends.
    pub fn hold(&mut self, reservation: Option<Reservation>) {
        self.reservation = reservation;
    }

    /// The id of the reservation's row.
    pub fn reservation(&self) -> Option<Uuid> {
        self.reservation.as_ref().map(Reservation::id)
    }

    /// Takes the reservation back.
    pub fn take_reservation(&mut self) -> Option<Reservation> {
        self.reservation.take()
    }
}

/// A user who is reserved for a call of this node, in a fleet. Dropping it ends the reservation,
/// after all writes queued so far.
#[must_use = "a reservation let go at once is over at once"]
pub struct Reservation {
    store: Store,
    id: Uuid,
    /// Whether the reservation's row may exist.
    is_made: bool,
}

impl Reservation {
    /// The id of the reservation's row.
    pub fn id(&self) -> Uuid {
        self.id
    }

    /// Drops a reservation without ending it, because it has no row or belongs to another node.
    pub fn dismiss(mut self) {
        self.is_made = false;
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({})", self.id)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_made {
            return;
        }
        // Without a runtime, the process ends, and the reservation ends with the run.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (store, id) = (self.store.clone(), self.id);
        let mut ended = Box::pin(store.permissions().disengage(id));
        runtime.spawn(async move {
            for _ in 0..END_TRIES {
                if ended.as_mut().await.is_ok() {
                    return;
                }
                tokio::time::sleep(END_AGAIN).await;
                ended = Box::pin(store.permissions().disengage(id));
            }
        });
    }
}

/// Why a user was not reserved.
#[derive(Debug, thiserror::Error)]
pub enum ReserveError {
    #[error("{0}")]
    Refused(Refusal),
    #[error("another call with the user is in progress")]
    UserBusy,
    #[error(transparent)]
    Store(#[from] StoreError),
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
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error("another permission request is in progress")]
    InProgress,
    #[error("{0}")]
    Refused(Refusal),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A permission request in progress. Dropping the guard ends it.
#[derive(Debug)]
#[must_use = "a request let go at once is over at once"]
pub struct RequestGuard {
    table: Arc<Consents>,
    key: PairKey,
}

impl Drop for RequestGuard {
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
    /// Sets the listener for changed permissions. Only the first is kept.
    pub fn tell(&self, listener: PermissionListener) {
        let _ = self.listener.set(listener);
    }

    /// Creates an empty table without a store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loads the table from the store.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails. An unreadable row is skipped; Graph is then asked about
    /// its pair.
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
                        tracing::warn!(number = %row.number, %error, "malformed permission row skipped")
                    }
                }
            }
        }
        Ok(Self { store: Some(store), ..table })
    }

    /// Starts to share the pairs with the other nodes of a fleet. `run` is the run of this process.
    /// The store must be PostgreSQL.
    pub fn share(&self, run: Uuid) {
        let _ = self.run.set(run);
    }

    /// Whether the pairs are shared with the other nodes of a fleet.
    pub fn is_shared(&self) -> bool {
        self.shared().is_some()
    }

    /// Returns the store and the run if the node is in a fleet.
    fn shared(&self) -> Option<(&Store, Uuid)> {
        Some((self.store.as_ref()?, *self.run.get()?))
    }

    /// In a fleet, reads a pair again from the store. Otherwise does nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the store fails.
    pub async fn fetch(&self, key: &PairKey) -> Result<(), StoreError> {
        let Some((store, _)) = self.shared() else { return Ok(()) };
        let stored = store.permissions().pair(&key.number, &key.user).await?;
        self.put_stored(key, stored.as_deref());
        Ok(())
    }

    fn put_stored(&self, key: &PairKey, stored: Option<&str>) {
        match stored {
            Some(text) => drop(self.pairs.insert(key.clone(), parse(Some(text)))),
            None => drop(self.pairs.remove(key)),
        }
    }

    /// Reserves a user for a call that is about to be placed, if the user's permission allows the
    /// call and the user is in no other call of the fleet. Call it before the gate, and keep the
    /// reservation with [`Engaged::hold`]. Without a fleet the gate alone decides, and the result
    /// is `None`.
    ///
    /// # Errors
    ///
    /// Returns the reason why the call must not be placed.
    pub async fn reserve(
        &self,
        key: &PairKey,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<Option<Reservation>, ReserveError> {
        let Some((store, run)) = self.shared() else { return Ok(None) };
        let (id, user) = (Uuid::new_v4(), key.user.to_string());
        let engagement = Engagement { id, number: key.number.clone(), user, run };
        for _ in 0..TRIES {
            let stored = store.permissions().pair(&key.number, &key.user).await?;
            self.put_stored(key, stored.as_deref());
            let allowed = parse(stored.as_deref()).may_call(rules, now);
            allowed.map_err(ReserveError::Refused)?;
            // Without an answer the row may be there. Dropping this deletes it.
            let reservation = Reservation { store: store.clone(), id, is_made: true };
            match store.permissions().engage(&engagement, stored.as_deref()).await? {
                EngageResult::Engaged => return Ok(Some(reservation)),
                EngageResult::Busy => {
                    reservation.dismiss();
                    return Err(ReserveError::UserBusy);
                }
                EngageResult::Changed => reservation.dismiss(),
            }
        }
        Err(ReserveError::Store(StoreError::Contended))
    }

    /// Returns the reservation of a call that this node has adopted or taken over, by the id of its row.
    pub fn adopted(&self, id: Uuid) -> Option<Reservation> {
        let (store, _) = self.shared()?;
        Some(Reservation { store: store.clone(), id, is_made: true })
    }

    /// In a fleet, counts a request that is about to be sent in the database, if it is allowed, so
    /// that no other node sends one as well. Returns `false` without a fleet.
    ///
    /// # Errors
    ///
    /// Returns the rule that refuses it. If the store fails, nothing is counted.
    pub async fn count_shared(
        &self,
        key: &PairKey,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<bool, ClaimError> {
        let Some((store, _)) = self.shared() else { return Ok(false) };
        for _ in 0..TRIES {
            let stored = store.permissions().pair(&key.number, &key.user).await?;
            self.put_stored(key, stored.as_deref());
            let mut pair = parse(stored.as_deref());
            pair.may_request(rules, now).map_err(ClaimError::Refused)?;
            let before = pair.state(rules, now);
            pair.apply(rules, now, Event::Requested);
            let row = row(key, &pair, rules, now);
            if store.permissions().replace(&row, stored.as_deref()).await? {
                let after = pair.state(rules, now);
                self.pairs.insert(key.clone(), pair);
                notify(&self.listener, key, before, after);
                return Ok(true);
            }
        }
        Err(ClaimError::Store(StoreError::Contended))
    }

    /// Returns the state of a pair, or `None` if it is unknown.
    pub fn pair(&self, key: &PairKey) -> Option<Pair> {
        self.pairs.get(key).map(|pair| pair.clone())
    }

    /// Checks whether the user's permission allows a call.
    ///
    /// # Errors
    ///
    /// Returns the rule that refuses it.
    pub fn may_call(&self, key: &PairKey, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
        match self.pairs.get(key) {
            Some(pair) => pair.may_call(rules, now),
            None => Pair::default().may_call(rules, now),
        }
    }

    /// Checks whether the user may be asked for permission.
    ///
    /// # Errors
    ///
    /// Returns the rule that refuses it.
    pub fn may_request(&self, key: &PairKey, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
        self.pairs.get(key).map_or_else(
            || Pair::default().may_request(rules, now),
            |pair| pair.may_request(rules, now),
        )
    }

    /// Counts a request that is about to be sent, if it is allowed. Concurrent requests never
    /// exceed the limit, in a fleet those of all nodes.
    ///
    /// # Errors
    ///
    /// Returns the rule that refuses it, that another request is in progress, or in a fleet that
    /// the store failed.
    pub async fn claim_request(
        &self,
        key: &PairKey,
        rules: &Rules,
        now: Timestamp,
    ) -> Result<(), ClaimError> {
        if self.is_shared() {
            if self.asking.contains(key) {
                return Err(ClaimError::InProgress);
            }
            return self.count_shared(key, rules, now).await.map(drop);
        }
        let pair = self.pairs.entry(key.clone()).or_default();
        // Checked under the entry's lock: a task that begins a request reads the pair afterwards
        // and sees this count.
        if self.asking.contains(key) {
            return Err(ClaimError::InProgress);
        }
        pair.may_request(rules, now).map_err(ClaimError::Refused)?;
        self.change(key, pair, rules, now, Event::Requested);
        Ok(())
    }

    /// Begins a permission request. No other request to this user can begin before the guard is
    /// dropped. Returns `None` if one is in progress. Check [`Consents::may_request`] afterwards.
    pub fn begin_request(self: &Arc<Self>, key: &PairKey) -> Option<RequestGuard> {
        self.asking
            .insert(key.clone())
            .then(|| RequestGuard { table: self.clone(), key: key.clone() })
    }

    /// The pair in the number API.
    pub fn view(&self, key: &PairKey, rules: &Rules, now: Timestamp) -> View {
        self.pairs
            .get(key)
            .map_or_else(|| Pair::default().view(rules, now), |pair| pair.view(rules, now))
    }

    /// Applies an event. Returns `false` if it is an outdated reply.
    pub fn apply(&self, key: &PairKey, rules: &Rules, now: Timestamp, event: Event) -> bool {
        self.take(key, rules, now, event).changed
    }

    /// Like [`Consents::apply`], and also returns a future that completes when the change is
    /// stored.
    pub fn take(&self, key: &PairKey, rules: &Rules, now: Timestamp, event: Event) -> AppliedEvent {
        // A user's call does not create a pair. In a fleet, another node may have created it.
        if event == Event::UserConnected && !self.pairs.contains_key(key) && self.shared().is_none()
        {
            return AppliedEvent { changed: true, stored: None };
        }
        let pair = self.pairs.entry(key.clone()).or_default();
        self.change(key, pair, rules, now, event)
    }

    fn change(
        &self,
        key: &PairKey,
        pair: RefMut<'_, PairKey, Pair>,
        rules: &Rules,
        now: Timestamp,
        event: Event,
    ) -> AppliedEvent {
        let (changed, stored) = self.record(key, pair, rules, now, event, None);
        // A row that does not fit into the queue is written with the next change.
        AppliedEvent { changed, stored: stored.unwrap_or_default() }
    }

    /// Applies a user's reply, which is Meta's message `id`, sent at `at` by Meta's clock. The
    /// stored reply is synced to disk.
    ///
    /// # Errors
    ///
    /// Returns an error if the store's queue is full. The reply may be applied again.
    pub fn reply(
        &self,
        key: &PairKey,
        rules: &Rules,
        now: Timestamp,
        at: Option<Timestamp>,
        reply: Reply,
        id: &str,
    ) -> Result<AppliedEvent, Full> {
        let pair = self.pairs.entry(key.clone()).or_default();
        // Serializing cannot fail: it contains only strings and numbers.
        let text = serde_json::to_string(&reply).unwrap_or_default();
        let stored = PermissionReply { message: id.to_owned(), reply: text, applied: false };
        let event = Event::Replied { at, reply };
        let (changed, stored) = self.record(key, pair, rules, now, event, Some(stored));
        Ok(AppliedEvent { changed, stored: stored? })
    }

    /// Applies an event in memory, queues it for the store, and calls the listener. Returns whether
    /// the event had an effect, and what completes when it is stored.
    fn record(
        &self,
        key: &PairKey,
        mut pair: RefMut<'_, PairKey, Pair>,
        rules: &Rules,
        now: Timestamp,
        event: Event,
        reply: Option<PermissionReply>,
    ) -> (bool, Result<Option<Stored>, Full>) {
        let before = pair.state(rules, now);
        let changed = pair.apply(rules, now, event.clone());
        let after = pair.state(rules, now);
        let reply = reply.map(|reply| PermissionReply { applied: changed, ..reply });
        // Queued under the entry's lock, so that rows are stored in the order of their changes.
        let stored = self.keep(key, &pair, rules, now, event, reply);
        drop(pair);
        if !self.is_shared() {
            // The event is in force in memory even if the queue is full.
            notify(&self.listener, key, before, after);
        }
        (changed, stored)
    }

    fn keep(
        &self,
        key: &PairKey,
        pair: &Pair,
        rules: &Rules,
        now: Timestamp,
        event: Event,
        reply: Option<PermissionReply>,
    ) -> Result<Option<Stored>, Full> {
        let Some(store) = &self.store else { return Ok(None) };
        let row = row(key, pair, rules, now);
        let put = |change| {
            let write = PermissionWrite { row, reply, change };
            store.permissions().put(write).ok_or(Full)
        };
        if !self.is_shared() {
            let queued = put(None)?;
            return Ok(Some(Box::pin(async move { queued.await.is_ok() })));
        }
        // The pair in memory may be out of date: only the stored one shows what the event changes.
        let states = Arc::new(Mutex::new(None));
        let queued = put(Some(change_of(rules.clone(), now, event, states.clone())))?;
        let (listener, key) = (self.listener.clone(), key.clone());
        let stored = tokio::spawn(async move {
            let is_stored = queued.await.is_ok();
            let states = states.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((before, after)) = states.filter(|_| is_stored) {
                notify(&listener, &key, before, after);
            }
            is_stored
        });
        Ok(Some(Box::pin(async move { stored.await.unwrap_or(false) })))
    }

    /// Returns whether to query Graph about a pair now, and records the query if so. True if the
    /// pair is unknown or was contradicted, or with `always`, unless this node queried Graph within
    /// the last minute, or the report of another one is as recent.
    pub fn ask(&self, key: &PairKey, now: Timestamp, always: bool) -> bool {
        let recent = |at: Timestamp| now.micros().saturating_sub(at.micros()).abs() < ASK_AGAIN;
        // In a fleet, another node may have asked.
        let is_known = self.pairs.get(key).is_some_and(|pair| {
            !pair.is_doubtful() && !always || pair.checked().is_some_and(recent)
        });
        if is_known {
            return false;
        }
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

    /// Marks a user as being in a call that the user has placed. In a fleet, the other nodes are
    /// informed soon.
    pub fn engage(&self, key: PairKey) -> Engaged {
        self.engage_moved(key, None)
    }

    /// The same for a call that another process of this node has handed over. In a fleet,
    /// `reservation` is the id of the row of its reservation. Without one, the user is reserved now.
    pub fn engage_moved(&self, key: PairKey, reservation: Option<Uuid>) -> Engaged {
        *self.live.entry(key.clone()).or_default() += 1;
        let reservation = self.shared().map(|(store, run)| {
            let id = reservation.unwrap_or_else(|| {
                let (id, user) = (Uuid::new_v4(), key.user.to_string());
                let engagement = Engagement { id, number: key.number.clone(), user, run };
                store.permissions().engage_inbound(engagement);
                id
            });
            Reservation { store: store.clone(), id, is_made: true }
        });
        Engaged { live: self.live.clone(), key, reservation }
    }

    /// Like [`Consents::engage`], but returns `None` if the user is already in a call.
    pub fn engage_alone(&self, key: PairKey) -> Option<Engaged> {
        match self.live.entry(key.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(entry) => entry.insert(1),
        };
        Some(Engaged { live: self.live.clone(), key, reservation: None })
    }

    /// Whether the user is in a call.
    pub fn is_engaged(&self, key: &PairKey) -> bool {
        self.live.contains_key(key)
    }

    /// Removes a pair from memory. The caller deletes its row.
    pub fn forget(&self, key: &PairKey) {
        self.pairs.remove(key);
    }

    /// Removes pairs that have no effect any more under the rules of their numbers.
    pub fn forget_blank(&self, now: Timestamp, is_blank: impl Fn(&PhoneNumberId, &Pair) -> bool) {
        self.pairs.retain(|key, pair| {
            let blank = is_blank(&key.number, pair);
            if blank && let Some(store) = &self.store {
                // Another node may have changed the row long ago.
                let same = self.shared().and_then(|_| serde_json::to_string(pair).ok());
                store.permissions().delete_unchanged(&key.number, &key.user, now, same);
            }
            !blank
        });
    }
}

/// The row of a pair.
fn row(key: &PairKey, pair: &Pair, rules: &Rules, now: Timestamp) -> PermissionRow {
    PermissionRow {
        number: key.number.clone(),
        user: key.user.to_string(),
        state: pair.state(rules, now).as_str().to_owned(),
        pair: serde_json::to_string(pair).unwrap_or_default(),
        updated: now,
    }
}

/// Parses a stored pair. For an unreadable one, Graph is queried.
fn parse(stored: Option<&str>) -> Pair {
    stored.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn notify(listener: &OnceLock<PermissionListener>, key: &PairKey, before: State, after: State) {
    if let Some(listener) = listener.get().filter(|_| before != after) {
        listener(key, after);
    }
}

/// Returns the change that an event makes to a stored pair. It puts the states before and after into
/// `states`.
fn change_of(
    rules: Rules,
    now: Timestamp,
    event: Event,
    states: Arc<Mutex<Option<(State, State)>>>,
) -> PermissionChange {
    Box::new(move |stored| {
        if stored.is_none() && event == Event::UserConnected {
            return None;
        }
        let mut pair = parse(stored);
        let before = pair.state(&rules, now);
        let applied = pair.apply(&rules, now, event.clone());
        let after = pair.state(&rules, now);
        *states.lock().unwrap_or_else(PoisonError::into_inner) = Some((before, after));
        Some(ChangedPermission {
            state: after.as_str().to_owned(),
            pair: serde_json::to_string(&pair).unwrap_or_default(),
            applied,
        })
    })
}
