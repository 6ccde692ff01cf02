//! Delivers the callbacks of the store's outbox (`docs/reference/reliability.md#r4`).
//!
//! A new callback is sent from memory as soon as its row is written, or for the end of a call, as
//! soon as the store has it on disk. Callbacks that wait for a
//! retry, come from another process or found no space in memory are read from the store when they
//! are due. Only a small part of each host's queue is in memory, so a dead host does not take space
//! from others. The store and `answer` decide the order and the retries. A crash at any time can
//! repeat a delivery but not lose one.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::failed::{self, Failed};
use super::links;
use super::trace::{ExportedTrace, Request, Sink, Trace, since as us_since};
use crate::admission::{Directory, NumberEntry, Webhook};
use crate::answer::{
    CallbackJob, CallbackOutcome, Delivery, Hops, Notifier, PAUSE_MAX, SigningKeys,
};
use crate::disk_space::DiskSpace;
use machine::log;
use machine::{CallSetup, CallbackKind};
use model::Clock;
use model::{AuthId, CallUuid, E164, Timestamp};
use store::{
    Callback, DeliveryOutcome, NewCallback, QueuedCallback, Settlement, Store, StoreError, WEBHOOK,
};
use xml::ast::DocUrl;

/// Maximum interval between two reads of the store. A redelivery that an operator requests is found
/// only by polling.
const POLL: Duration = Duration::from_secs(2);
/// Minimum interval between two reads.
const REST: Duration = Duration::from_millis(20);
/// Time to write the results of attempts that are cut off. Rows that the store has not written
/// after that are due again at the next start.
const NOTING: Duration = Duration::from_millis(250);

/// Maximum number of entries of [`InMemory::followed`], and of [`InMemory::shared`].
const FOLLOWED_MAX: usize = 20_000;

/// Maximum number of concurrent reads that other nodes cause.
const READS_FOR_OTHERS: usize = 16;

/// Number of callbacks of events after which an account's waiting ones are counted again.
const COUNT_AFTER: u32 = 500;
/// Minimum age of a count that is repeated. A count reads all waiting callbacks of the node.
const COUNT_AGE: Duration = Duration::from_secs(1);
/// Time for a query for due callbacks of a host beyond which further ones are delayed.
const SLOW: Duration = Duration::from_millis(5);
/// Number of times that such a query took, for which the next one is delayed, so that hosts with many
/// waiting callbacks leave the store to others.
const SLOW_PAUSE: u32 = 9;

/// Limits on the number of callbacks. Those that are not in memory wait in the store.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Maximum number of waiting callbacks of a main account, including those in memory, beyond
    /// which callbacks of its events are dropped.
    pub waiting_per_account: u32,
    /// Maximum number of callbacks in memory.
    pub held: usize,
    /// Maximum number of callbacks in memory for one main account, so that one with many dead hosts
    /// delays no other.
    pub held_per_account: usize,
    /// Maximum number of callbacks in memory for one host. It keeps the host's connections busy
    /// while more callbacks are read.
    pub held_per_host: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self {
            waiting_per_account: 20_000,
            held: 4_096,
            held_per_account: 1_024,
            held_per_host: 64,
        }
    }
}

/// Delivers the callbacks of the outbox. Cheap to clone.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    store: Store,
    notifier: Notifier,
    directory: Arc<Directory>,
    clock: Clock,
    node_id: String,
    limits: OutboxLimits,
    held: Mutex<InMemory>,
    /// The waiting callbacks of the main accounts.
    waiting: Mutex<HashMap<AuthId, Waiting>>,
    /// Wakes the reader, because the store may contain callbacks to read.
    woken: Notify,
    tasks: TaskTracker,
    /// Cancelled when no more deliveries may begin.
    stopping: CancellationToken,
    /// Cancelled to end running deliveries and store their results.
    cut: CancellationToken,
    /// Cancelled to drop the remaining deliveries.
    aborted: CancellationToken,
    traces: OnceLock<Sink>,
    links: OnceLock<Links>,
    undelivered: OnceLock<Undelivered>,
    /// Receives news for the other nodes. Set in a fleet.
    other_nodes: OnceLock<mpsc::Sender<QueueNews>>,
    reads_for_others: Arc<Semaphore>,
    /// The disk space of event logs and failed requests.
    space: OnceLock<Arc<DiskSpace>>,
}

/// What the nodes of a fleet tell each other about the callbacks of a conversation, which are delivered
/// in order although several nodes have some of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueNews {
    /// A callback to this URL waits behind an earlier one. The node that has the earlier one stores its
    /// result without delay, and tells when the queue has moved on.
    Waiting(CallUuid, String),
    /// A callback to this URL was delivered or given up, and the next one is that of another node.
    Next(CallUuid, String),
}

/// Maximum number of news that wait to be sent to the other nodes. Without them, these read what is
/// due at intervals.
const NEWS_MAX: usize = 1_024;

/// Receives the events and messages that could not be delivered.
pub type Undelivered = Box<dyn Fn(GivenUp) + Send + Sync>;

/// A callback that could not be delivered.
#[derive(Clone, Debug)]
pub struct GivenUp {
    pub account: AuthId,
    pub main_account: AuthId,
    /// The receiver: the name of a webhook, or scheme, host and port of a number's webhook URL.
    pub to: String,
    /// The number that the webhook URL belongs to.
    pub number: Option<E164>,
    /// The result of the last attempt.
    pub why: String,
}

/// Creates a link to the media file of a message, valid from now.
pub type Links = Box<dyn Fn(Uuid) -> String + Send + Sync>;

/// Identifies a callback in memory, whether its row is written or not: its event id and URL. The
/// webhooks of an event have the same event id.
type CallbackKey = (Uuid, DocUrl);

/// The callbacks in memory.
#[derive(Default)]
struct InMemory {
    keys: HashSet<CallbackKey>,
    of_origin: HashMap<String, OfOrigin>,
    /// The number of callbacks in memory of each main account.
    of_account: HashMap<String, usize>,
    /// Origins with more callbacks in the store than fit into memory.
    left: HashSet<String>,
    /// Calls and conversations of which a callback is known to wait behind another one. The result
    /// of the other one is stored without delay.
    followed: HashSet<CallUuid>,
    /// The number of callbacks in memory of each call or conversation.
    of_call: HashMap<CallUuid, usize>,
    /// The queues in which a callback of another node waits behind one of this node.
    shared: HashSet<(CallUuid, DocUrl)>,
    /// Callbacks released while the store is being read. A row that was read before the release may
    /// be out of date.
    gone: Option<HashSet<CallbackKey>>,
    /// The same for the calls of which the next callback is being read, with the number of these
    /// reads.
    gone_of_call: HashMap<CallUuid, (usize, HashSet<CallbackKey>)>,
}

impl InMemory {
    /// Notes that a callback of a call or conversation waits behind another one. Returns whether
    /// that was unknown.
    fn follow(&mut self, call: CallUuid) -> bool {
        // Without an entry, the next callback is delayed by up to half a second.
        if self.followed.len() >= FOLLOWED_MAX {
            self.followed.clear();
        }
        self.followed.insert(call)
    }

    /// Ends a read of the next callback of a call.
    fn end_reading(&mut self, call: CallUuid) {
        if let Some((reads, _)) = self.gone_of_call.get_mut(&call) {
            *reads -= 1;
            if *reads == 0 {
                self.gone_of_call.remove(&call);
            }
        }
    }
}

/// An estimate of the number of waiting callbacks of a main account.
#[derive(Clone, Copy)]
struct Waiting {
    /// The number at the last count, and when that was.
    counted: u32,
    at: Instant,
    /// Number of callbacks of events since then.
    since: u32,
    is_counting: bool,
}

/// The callbacks of an origin in memory.
#[derive(Clone, Copy, Default)]
struct OfOrigin {
    /// Number of callbacks that wait for an attempt or for its end.
    attempting: usize,
    /// Number of all callbacks, including those whose result is not stored yet.
    all: usize,
}

/// Returns the main account of an [origin](Outbox::queue).
fn account_of(origin: &str) -> &str {
    origin.split(' ').next().unwrap_or_default()
}

/// Reduces a count by one. A count of 0 has no entry.
fn count_down<K, Q>(counts: &mut HashMap<K, usize>, key: &Q)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// The slot of a callback in memory. Released on drop, after the result is stored.
struct MemorySlot {
    outbox: Arc<Inner>,
    call: CallUuid,
    key: CallbackKey,
    origin: String,
    is_attempting: bool,
}

impl MemorySlot {
    /// Allows an attempt at another callback of the origin.
    fn attempted(&mut self) {
        if !std::mem::take(&mut self.is_attempting) {
            return;
        }
        let mut held = self.outbox.held();
        let left = held.of_origin.get_mut(&self.origin).map_or(0, |of| {
            of.attempting = of.attempting.saturating_sub(1);
            of.attempting
        });
        if left <= self.outbox.limits.held_per_host / 2 && held.left.contains(&self.origin) {
            self.outbox.woken.notify_one();
        }
    }
}

impl Drop for MemorySlot {
    fn drop(&mut self) {
        self.attempted();
        let mut held = self.outbox.held();
        held.keys.remove(&self.key);
        count_down(&mut held.of_call, &self.call);
        if let Some(gone) = &mut held.gone {
            gone.insert(self.key.clone());
        }
        if let Some((_, gone)) = held.gone_of_call.get_mut(&self.call) {
            gone.insert(self.key.clone());
        }
        if let Some(of) = held.of_origin.get_mut(&self.origin) {
            of.all = of.all.saturating_sub(1);
            if of.all == 0 {
                held.of_origin.remove(&self.origin);
            }
        }
        count_down(&mut held.of_account, account_of(&self.origin));
    }
}

impl Outbox {
    /// Creates the delivery of the callbacks that `store` holds for this node, signed with the keys
    /// from `directory`. Nothing is delivered before [`Outbox::start`].
    pub fn new(
        store: Store,
        notifier: Notifier,
        directory: Arc<Directory>,
        clock: Clock,
        node_id: String,
        limits: OutboxLimits,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            notifier,
            directory,
            clock,
            node_id,
            limits,
            held: Mutex::default(),
            waiting: Mutex::default(),
            woken: Notify::new(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            aborted: CancellationToken::new(),
            traces: OnceLock::new(),
            links: OnceLock::new(),
            undelivered: OnceLock::new(),
            other_nodes: OnceLock::new(),
            reads_for_others: Arc::new(Semaphore::new(READS_FOR_OTHERS)),
            space: OnceLock::new(),
        }))
    }

    /// Exports a trace of each delivery to `sink`.
    pub fn export_traces(&self, sink: Sink) {
        let _ = self.0.traces.set(sink);
    }

    /// Sets the function that creates links to media files. Only the first call has an effect.
    pub fn set_link_signer(&self, links: Links) {
        let _ = self.0.links.set(links);
    }

    /// Sets the receiver of given-up callbacks. Only the first call has an effect.
    pub fn set_undelivered(&self, undelivered: Undelivered) {
        let _ = self.0.undelivered.set(undelivered);
    }

    /// Sets the disk space that event logs and failed requests respect. Only the first call has an
    /// effect.
    pub fn set_space(&self, space: Arc<DiskSpace>) {
        let _ = self.0.space.set(space);
    }

    /// Returns the news for the other nodes of a fleet. They are only created after the first call.
    pub fn news(&self) -> mpsc::Receiver<QueueNews> {
        let (sender, receiver) = mpsc::channel(NEWS_MAX);
        let _ = self.0.other_nodes.set(sender);
        receiver
    }

    /// Takes news of another node.
    pub fn receive(&self, news: QueueNews) {
        let inner = self.0.clone();
        if inner.stopping.is_cancelled() {
            return;
        }
        match news {
            QueueNews::Waiting(call, url) => {
                {
                    let mut held = inner.held();
                    if !held.of_call.contains_key(&call) && !held.followed.contains(&call) {
                        return;
                    }
                    if held.shared.len() < FOLLOWED_MAX {
                        held.shared.insert((call, DocUrl(url.into())));
                    }
                }
                inner.follow(call);
            }
            QueueNews::Next(call, url) => {
                let Ok(permit) = inner.reads_for_others.clone().try_acquire_owned() else {
                    inner.woken.notify_one();
                    return;
                };
                inner.held().follow(call);
                self.0.tasks.spawn(async move {
                    inner.follow_up(call, &DocUrl(url.into())).await;
                    drop(permit);
                });
            }
        }
    }

    /// Reads due callbacks from the store soon.
    pub fn read_again(&self) {
        self.0.woken.notify_one();
    }

    /// Starts to read due callbacks from the store.
    pub fn start(&self) {
        let inner = self.0.clone();
        self.0.tasks.spawn(async move {
            let stopping = inner.stopping.clone();
            stopping.run_until_cancelled(inner.keep_reading()).await;
        });
    }

    /// Returns the queue of the callbacks of a main account to the origin of a URL. Those of other
    /// accounts to the same origin do not wait for them.
    pub fn queue(&self, main_account: &AuthId, url: &str) -> String {
        format!("{main_account} {}", self.0.notifier.origin(url))
    }

    /// Sends a callback that was just written, if there is space in memory and no other callback
    /// precedes it. Otherwise it is read from the store later. `keys` sign it if its account is
    /// deleted.
    pub fn send(&self, written: QueuedCallback, keys: impl Into<Option<SigningKeys>>) {
        if !written.first {
            let new = &written.callback.new;
            self.0.follow(new.call);
            let queue = (new.call, new.notice.url.clone());
            // The earlier one may be of another node, unless it is in memory here.
            let may_be_elsewhere = {
                let held = self.0.held();
                !held.of_call.contains_key(&new.call) || held.shared.contains(&queue)
            };
            if may_be_elsewhere && !is_of_call(new.notice.kind) {
                self.0.tell_others(|| QueueNews::Waiting(queue.0, queue.1.0.as_ref().to_owned()));
            }
            return;
        }
        if let Some(place) = self.0.place(&written.callback, true) {
            self.0.spawn(written.callback, place, keys.into());
        }
    }

    /// Whether another callback of an event of this main account may wait. If not, too many of its
    /// callbacks wait, for example because its server does not answer.
    pub(super) fn admits_event(&self, main_account: &AuthId) -> bool {
        let (now, most) = (self.0.clock.now(), self.0.limits.waiting_per_account);
        let mut accounts = self.0.waiting();
        let waiting = accounts.entry(main_account.clone()).or_insert(Waiting {
            counted: 0,
            at: now,
            since: 0,
            is_counting: false,
        });
        waiting.since = waiting.since.saturating_add(1);
        let is_full = waiting.counted.saturating_add(waiting.since) > most;
        let is_old = now.saturating_duration_since(waiting.at) >= COUNT_AGE;
        if is_old && (is_full || waiting.since >= COUNT_AFTER) && !waiting.is_counting {
            waiting.is_counting = true;
            let (inner, account) = (self.0.clone(), main_account.clone());
            self.0.tasks.spawn(async move { inner.count_waiting(account).await });
        }
        !is_full
    }

    /// Returns the signing keys of an account, or of its main account if it was deleted. `None` if
    /// there is neither.
    pub(super) fn keys(&self, account: &AuthId, main: &AuthId) -> Option<SigningKeys> {
        self.0.keys(account, main, None)
    }

    /// Returns the current signing keys of a call's account, which may have rotated its token since
    /// the call began, and the `known` ones, with which it began.
    pub(super) fn current_keys(&self, setup: &CallSetup, known: &SigningKeys) -> SigningKeys {
        let known = known.clone();
        let keys = self.0.keys(&setup.account, &setup.parent_account, Some(known.clone()));
        keys.unwrap_or(known)
    }

    /// Number of callbacks in memory.
    pub fn held(&self) -> usize {
        self.0.held().keys.len()
    }

    /// Stops accepting callbacks and waits until those in memory are delivered or postponed, for
    /// `deadline` at most. Returns how many were cut off; a running attempt counts as failed.
    /// Undelivered callbacks stay in the store.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.0.stopping.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(deadline, self.0.tasks.wait()).await.is_ok() {
            return 0;
        }
        let left = self.held();
        self.0.cut.cancel();
        if tokio::time::timeout(NOTING, self.0.tasks.wait()).await.is_err() {
            self.0.aborted.cancel();
            self.0.tasks.wait().await;
        }
        left
    }
}

/// Whether a callback belongs to a call, which one node has. Messages and events belong to a
/// conversation.
fn is_of_call(kind: CallbackKind) -> bool {
    !matches!(kind, CallbackKind::Event | CallbackKind::Message)
}

impl Inner {
    /// Makes the result of an earlier callback of a call or conversation be stored without delay.
    fn follow(&self, call: CallUuid) {
        if self.held().follow(call) {
            // It may be on its way to the store already.
            self.store.outbox().settle_now();
        }
    }

    fn tell_others(&self, news: impl FnOnce() -> QueueNews) {
        if let Some(sender) = self.other_nodes.get() {
            let _ = sender.try_send(news());
        }
    }

    fn held(&self) -> MutexGuard<'_, InMemory> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<AuthId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the waiting callbacks of a main account. After an error, the estimate stays, so that
    /// events are dropped at last while the database does not answer.
    async fn count_waiting(&self, account: AuthId) {
        let most = self.limits.waiting_per_account.saturating_add(1);
        let counted = self.store.outbox().count_waiting(&self.node_id, &account, most).await;
        let counted = counted.inspect_err(|error| tracing::warn!(%error, "callbacks not counted"));
        if let Some(waiting) = self.waiting().get_mut(&account) {
            waiting.is_counting = false;
            if let Ok(counted) = counted {
                (waiting.counted, waiting.since) = (counted, 0);
            }
            waiting.at = self.clock.now();
        }
    }

    /// Reserves a slot. Returns `None` if the callback already has one or memory is full. A new
    /// callback must wait behind earlier ones of its origin in the store.
    fn place(self: &Arc<Self>, callback: &Callback, fresh: bool) -> Option<MemorySlot> {
        let (key, origin) =
            ((callback.new.event_id, callback.new.notice.url.clone()), &callback.new.origin);
        let mut held = self.held();
        let of_call = held.gone_of_call.get(&callback.new.call).map(|(_, gone)| gone);
        let is_gone = held.gone.iter().chain(of_call).any(|gone| gone.contains(&key));
        if self.stopping.is_cancelled() || (is_gone && !fresh) || held.keys.contains(&key) {
            return None;
        }
        let here = held.of_origin.get(origin).copied().unwrap_or_default();
        if here.attempting >= self.room(&held, origin) || (fresh && held.left.contains(origin)) {
            held.left.insert(origin.clone());
            return None;
        }
        held.keys.insert(key.clone());
        *held.of_call.entry(callback.new.call).or_default() += 1;
        let of = held.of_origin.entry(origin.clone()).or_default();
        *of = OfOrigin { attempting: of.attempting + 1, all: of.all + 1 };
        *held.of_account.entry(account_of(origin).to_owned()).or_default() += 1;
        Some(MemorySlot {
            outbox: self.clone(),
            call: callback.new.call,
            key,
            origin: origin.clone(),
            is_attempting: true,
        })
    }

    /// Maximum number of callbacks in memory for one host: a share of the space that is free for its
    /// account, so that many dead hosts leave space for others.
    fn room(&self, held: &InMemory, origin: &str) -> usize {
        let of_account = held.of_account.get(account_of(origin)).copied().unwrap_or_default();
        let free = self
            .limits
            .held
            .saturating_sub(held.keys.len())
            .min(self.limits.held_per_account.saturating_sub(of_account));
        (free / 8).clamp(usize::from(free > 0), self.limits.held_per_host)
    }

    fn spawn(self: &Arc<Self>, callback: Callback, place: MemorySlot, keys: Option<SigningKeys>) {
        let inner = self.clone();
        let aborted = self.aborted.clone();
        self.tasks.spawn(async move {
            // Boxed, because tokio copies a task several times when it is spawned and when it ends.
            let work = Box::pin(inner.deliver(callback, place, keys));
            aborted.run_until_cancelled(work).await
        });
    }

    /// Returns the current signing keys of an account, with the `known` ones that a call began with. If
    /// the account was deleted, returns only these, or else those of its main account.
    fn keys(
        &self,
        account: &AuthId,
        main: &AuthId,
        known: Option<SigningKeys>,
    ) -> Option<SigningKeys> {
        let tables = self.directory.tables();
        if let Some(account) = tables.account(account) {
            let (own, main) = (&account.tokens, &account.main().tokens);
            return Some(match known {
                Some(known) => known.renewed(own, main),
                None => SigningKeys::new(own, main),
            });
        }
        known.or_else(|| Some(SigningKeys::of_main(&tables.account(main)?.tokens)))
    }

    /// Returns the webhook of an event. Only webhooks of the event's account and of its main
    /// account are eligible, whatever the routing says.
    fn webhook(&self, new: &NewCallback) -> Option<Arc<Webhook>> {
        let id = new.notice.url.0.strip_prefix(WEBHOOK)?.parse().ok()?;
        let found = self.directory.message_routes().webhook(id);
        found
            .filter(|webhook| webhook.account == new.account || webhook.account == new.main_account)
    }

    /// Returns the number whose own webhook URL receives the callback, unless it has moved to
    /// another account.
    fn number(&self, new: &NewCallback) -> Option<Arc<NumberEntry>> {
        let about = new.number_event.as_ref()?;
        let found = self.directory.tables().by_first_id(&about.number).cloned();
        found.filter(|number| number.account.auth_id == new.account)
    }

    /// Makes one delivery attempt and stores its result.
    async fn deliver(
        self: &Arc<Self>,
        callback: Callback,
        mut place: MemorySlot,
        keys: Option<SigningKeys>,
    ) {
        let Callback { row, new, since, attempts, retries } = callback;
        let (call, kind, event_id, hops) = (new.call, new.notice.kind, new.event_id, Hops::new());
        let of_a_call = is_of_call(kind);
        let (webhook, number) = (self.webhook(&new), self.number(&new));
        let (began, begun) = (self.clock.wall(), self.clock.now());
        let (method, url) = (new.notice.method, new.notice.url.0.clone());
        let failed = |why: &str| Delivery {
            attempts,
            outcome: CallbackOutcome::Failed { why: why.to_owned() },
        };
        let delivery = match self.keys(&new.account, &new.main_account, keys) {
            None => failed("its account was deleted: there is no key to sign it with"),
            Some(_) if new.shut.is_some() => {
                failed("its parameters were sealed with another store.secret_key: restore that key")
            }
            Some(_) if kind == CallbackKind::Event && webhook.is_none() => {
                failed("its webhook was deleted or belongs to another account")
            }
            Some(_) if webhook.as_ref().is_some_and(|webhook| webhook.secrets.is_empty()) => {
                failed(
                    "the webhook's secret was sealed with another store.secret_key: restore that key or rotate the secret",
                )
            }
            Some(keys) => {
                let age = self.clock.steady().since(since);
                let mut notice = new.notice;
                // The current URL, which may have been corrected since the event.
                let own_url = || number.as_ref()?.spec.messages.as_ref();
                if let Some(url) = webhook.as_ref().map(|webhook| &webhook.url).or_else(own_url) {
                    notice.url.clone_from(url);
                }
                if let Some(link) = self.links.get() {
                    links::sign(&mut notice, link);
                }
                let job = CallbackJob {
                    call: new.call,
                    main_account: new.main_account.clone(),
                    notice,
                    keys,
                    secrets: webhook
                        .as_ref()
                        .map(|webhook| webhook.secrets.clone())
                        .unwrap_or_default(),
                    event_id: new.event_id,
                    attempts,
                    retries,
                    age,
                    hops: hops.clone(),
                };
                let mut delivering =
                    pin!(AssertUnwindSafe(self.notifier.deliver(&job)).catch_unwind());
                // `biased`: a slot at the host that becomes free during shutdown must not start
                // this delivery. Without a running attempt the row stays unchanged.
                let delivery = tokio::select! {
                    biased;
                    () = self.cut.cancelled() => match self.notifier.cut_off(&job) {
                        Some(cut_off) => Ok(cut_off),
                        None => return,
                    },
                    delivery = &mut delivering => delivery,
                };
                delivery.unwrap_or_else(|_| failed("an internal error ended the attempt"))
            }
        };
        let now = self.clock.now();
        let trace = Trace::Callback {
            kind: kind.as_str().to_owned(),
            event_id: Some(event_id),
            began,
            took_us: us_since(begun, now),
            attempts: delivery.attempts,
            outcome: delivery.outcome.as_str().to_owned(),
            tries: hops.so_far().iter().map(|hop| Request::of(hop, begun, now)).collect(),
        };
        // Written directly to the store, since the call has usually ended.
        let space = self.space.get();
        if let (true, Ok(line)) = (of_a_call, log::trace_line(&trace))
            && space.is_none_or(|space| space.take_history(&new.main_account, line.len()))
        {
            self.store.event_log().append_late(call, line.trim_end().to_owned());
        }
        if let Some(sink) = self.traces.get() {
            sink(ExportedTrace::Callback { call, trace });
        }
        let at = self.clock.steady();
        let (outcome, last) = match delivery.outcome {
            CallbackOutcome::Delivered { status } => {
                (DeliveryOutcome::Delivered, status.to_string())
            }
            CallbackOutcome::Retry { why, after } => {
                (DeliveryOutcome::Retry { due: at.plus(after) }, why)
            }
            CallbackOutcome::Failed { why } => (DeliveryOutcome::Failed, why),
        };
        if of_a_call
            && !matches!(outcome, DeliveryOutcome::Delivered)
            && let Some(space) = space
        {
            let failed = Failed {
                call,
                account: &new.account,
                main_account: &new.main_account,
                kind: format!("callback {}", kind.as_str()),
                method: method.as_str(),
                url: &url,
                outcome: &last,
                attempts: delivery.attempts,
                response: hops.error_body(),
            };
            failed::record(&self.store, space, Uuid::new_v4(), began, failed);
        }
        let why = (!of_a_call && matches!(outcome, DeliveryOutcome::Failed)).then(|| last.clone());
        place.attempted();
        let settlement = Settlement { row, attempts: delivery.attempts, at, outcome, last };
        let is_done = !matches!(outcome, DeliveryOutcome::Retry { .. });
        let settled = self.store.outbox().settle(settlement);
        // Callbacks of other calls may wait for the last one of a multi-party call.
        let is_room = kind == CallbackKind::MultiParty;
        if is_done && (is_room || self.held().followed.contains(&call)) {
            self.store.outbox().settle_now();
        }
        // Fails only while the store closes. The row is then due again at the next start.
        let others_wait = settled.await.unwrap_or_default();
        let row_url = place.key.1.clone();
        drop(place);
        if is_done {
            let mut held = self.held();
            if others_wait {
                held.follow(call);
            } else {
                held.followed.remove(&call);
                held.shared.remove(&(call, row_url.clone()));
            }
        }
        if let (Some(why), Some(tell)) = (why, self.undelivered.get()) {
            // The queue of a URL ends with its origin.
            let origin = || new.origin.rsplit(' ').next().unwrap_or_default().to_owned();
            let to = webhook.map_or_else(origin, |webhook| format!("webhook {}", webhook.name));
            let number = number.map(|number| number.spec.number.clone());
            tell(GivenUp { account: new.account, main_account: new.main_account, to, number, why });
        }
        let is_empty_here = others_wait && !self.follow_up(call, &row_url).await;
        if is_empty_here && is_done && self.held().shared.contains(&(call, row_url.clone())) {
            self.tell_others(|| QueueNews::Next(call, row_url.0.as_ref().to_owned()));
        }
        if others_wait || is_room || !is_done {
            self.woken.notify_one();
        }
    }

    /// Sends the next callback of a call to a URL, so that a long queue of one call or conversation
    /// need not be searched for each of its callbacks. Returns `false` if none of this node is due.
    async fn follow_up(self: &Arc<Self>, call: CallUuid, url: &DocUrl) -> bool {
        let now = self.clock.steady();
        self.held().gone_of_call.entry(call).or_default().0 += 1;
        let next = self.store.outbox().next_of_call(&self.node_id, call, url, now).await;
        let placed = next.map(|next| next.map(|next| (self.place(&next, false), next)));
        self.held().end_reading(call);
        match placed {
            Ok(Some((Some(place), next))) => self.spawn(next, place, None),
            // It is in memory, or was delivered during the read.
            Ok(Some((None, _))) => {}
            // The reader of due callbacks was faster, or the next one is not due, or of another node.
            Ok(None) => {
                self.held().followed.remove(&call);
                return false;
            }
            Err(error) => tracing::warn!(%error, "next callback of a call not read"),
        }
        true
    }

    /// Makes callbacks due that were written while the system's clock was ahead of today's time.
    async fn bring_forward(&self) {
        let now = self.clock.steady();
        let latest = now.plus(PAUSE_MAX);
        match self.store.outbox().bring_forward(&self.node_id, latest, now).await {
            Ok(0) => {}
            Ok(callbacks) => tracing::warn!(
                callbacks,
                "callbacks made due now: they were written while the clock was ahead"
            ),
            Err(error) => tracing::warn!(%error, "due times of callbacks not checked"),
        }
    }

    async fn keep_reading(self: &Arc<Self>) {
        self.bring_forward().await;
        let mut slow = HashMap::new();
        loop {
            let pause = match self.read(&mut slow).await {
                Ok(Some(next)) => next.since(self.clock.steady()).clamp(REST, POLL),
                Ok(None) => POLL,
                Err(error) => {
                    tracing::warn!(%error, "reading due callbacks failed");
                    POLL
                }
            };
            if tokio::time::timeout(pause, self.woken.notified()).await.is_ok() {
                tokio::time::sleep(REST).await;
            }
        }
    }

    /// Reads due callbacks as space permits. Returns when the next one is due. `slow` are the origins
    /// that are not read until a time.
    async fn read(
        self: &Arc<Self>,
        slow: &mut HashMap<String, Timestamp>,
    ) -> Result<Option<Timestamp>, StoreError> {
        let now = self.clock.steady();
        let (origins, mut next) = self.store.outbox().due_origins(&self.node_id, now).await?;
        slow.retain(|_, until| *until > now);
        for origin in origins {
            if let Some(until) = slow.get(&origin) {
                next = Some(next.map_or(*until, |next| next.min(*until)));
                continue;
            }
            let begun = self.clock.now();
            let limit = {
                let mut held = self.held();
                let here = held.of_origin.get(&origin).copied().unwrap_or_default();
                let room = self.room(&held, &origin).saturating_sub(here.attempting);
                if room == 0 {
                    held.left.insert(origin);
                    continue;
                }
                // Set again by `place` if another callback finds no space.
                held.left.remove(&origin);
                held.gone = Some(HashSet::new());
                // The result may include rows that are already in memory, so the limit includes
                // them.
                here.all + room
            };
            let rows = self
                .store
                .outbox()
                .due(&self.node_id, &origin, now, u32::try_from(limit).unwrap_or(1))
                .await?;
            let more = rows.len() >= limit;
            for row in rows {
                if let Some(place) = self.place(&row, false) {
                    self.spawn(row, place, None);
                }
            }
            let took = self.clock.now().saturating_duration_since(begun);
            if took > SLOW {
                let pause = (took * SLOW_PAUSE).min(POLL);
                slow.insert(origin.clone(), self.clock.steady().plus(pause));
            }
            if more {
                self.held().left.insert(origin);
            }
        }
        self.held().gone = None;
        Ok(next)
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
