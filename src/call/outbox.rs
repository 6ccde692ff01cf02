//! Delivers the callbacks of the store's outbox (R4).
//!
//! A fresh callback goes out from memory as soon as its row is written; what waits for a retry, was left by another
//! process, or found no room here is read from the store when it is due. So little of each host's queue is in memory,
//! and a dead host takes room from no other. Who may go first, when and how often is the store's and `answer`'s
//! business; a crash at any moment repeats a delivery at worst.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::links;
use super::trace::{Request, Sink, Trace, Traced, since as us_since};
use crate::admission::{Directory, Webhook};
use crate::answer::{Delivery, Hops, NoticeJob, NoticeOutcome, Notifier, SigningKeys};
use machine::CallbackKind;
use machine::log;
use model::Clock;
use model::{AuthId, Timestamp};
use store::{
    Callback, DeliveryOutcome, NewCallback, QueuedCallback, Settlement, Store, StoreError, WEBHOOK,
};

/// How often the store is asked for what is due, at least: an operator's "once more" comes by no other way.
const POLL: Duration = Duration::from_secs(1);
/// And at most.
const REST: Duration = Duration::from_millis(20);
/// For the rows of attempts that are cut off; what the store has not taken by then is due again at the next start.
const NOTING: Duration = Duration::from_millis(250);

/// How much is in memory at once; the rest waits in the store.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Callbacks in memory.
    pub held: usize,
    /// Of these, for one host: enough to keep its connections busy while more is read.
    pub held_per_host: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { held: 4_096, held_per_host: 64 }
    }
}

/// The outbox's delivering end; cheap to clone.
#[derive(Clone)]
pub struct Outbox(Arc<Inner>);

struct Inner {
    store: Store,
    notifier: Notifier,
    directory: Arc<Directory>,
    clock: Clock,
    node_id: String,
    limits: OutboxLimits,
    held: Mutex<Held>,
    /// There may be something to read from the store.
    woken: Notify,
    tasks: TaskTracker,
    /// Nothing more is begun.
    stopping: CancellationToken,
    /// What is under way ends, and its row says so.
    cut: CancellationToken,
    /// What is left is dropped.
    aborted: CancellationToken,
    traces: OnceLock<Sink>,
    links: OnceLock<Links>,
    undelivered: OnceLock<Undelivered>,
}

/// Hears of what reports messages and numbers and is given up.
pub type Undelivered = Box<dyn Fn(GivenUp) + Send + Sync>;

/// Something that its receiver would not take.
#[derive(Clone, Debug)]
pub struct GivenUp {
    pub account: AuthId,
    pub main_account: AuthId,
    /// The receiver: a webhook by its name, or scheme, host and port.
    pub to: String,
    /// How the last attempt ended.
    pub why: String,
}

/// Makes a link to a message's file that is good from now on.
pub type Links = Box<dyn Fn(Uuid) -> String + Send + Sync>;

/// What is in memory.
#[derive(Default)]
struct Held {
    ids: HashSet<i64>,
    of_origin: HashMap<String, usize>,
    /// Origins of which more waits in the store, for want of room here.
    left: HashSet<String>,
    /// Given back while the store is being read: what was read then may say that they wait still.
    gone: Option<HashSet<i64>>,
}

/// A callback's place in memory; goes back when dropped, after its row says what became of it.
struct Place {
    outbox: Arc<Inner>,
    id: i64,
    origin: String,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.outbox.held();
        held.ids.remove(&self.id);
        if let Some(gone) = &mut held.gone {
            gone.insert(self.id);
        }
        let left = held.of_origin.get_mut(&self.origin).map_or(0, |n| {
            *n = n.saturating_sub(1);
            *n
        });
        if left == 0 {
            held.of_origin.remove(&self.origin);
        }
        if left <= self.outbox.limits.held_per_host / 2 && held.left.contains(&self.origin) {
            self.outbox.woken.notify_one();
        }
    }
}

impl Outbox {
    /// Delivers what `store` holds for this node, signed with the keys that `directory` has, once [`Outbox::start`]
    /// is said.
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
            woken: Notify::new(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            cut: CancellationToken::new(),
            aborted: CancellationToken::new(),
            traces: OnceLock::new(),
            links: OnceLock::new(),
            undelivered: OnceLock::new(),
        }))
    }

    /// From now on each stage is also told to whoever exports traces.
    pub fn export_traces(&self, sink: Sink) {
        let _ = self.0.traces.set(sink);
    }

    /// From now on links to users' files are made by this; the first who says so counts.
    pub fn links_by(&self, links: Links) {
        let _ = self.0.links.set(links);
    }

    /// From now on whoever this is hears of each that is given up; the first who says so counts.
    pub fn undelivered_to(&self, undelivered: Undelivered) {
        let _ = self.0.undelivered.set(undelivered);
    }

    /// Begins to read what waits in the store.
    pub fn start(&self) {
        let inner = self.0.clone();
        self.0.tasks.spawn(async move {
            let stopping = inner.stopping.clone();
            stopping.run_until_cancelled(inner.keep_reading()).await;
        });
    }

    /// Whose queue a URL stands in.
    pub fn origin(&self, url: &str) -> String {
        self.0.notifier.origin(url)
    }

    /// Sends a callback that was just written, if there is room and no other goes before it; if
    /// not, it is read again in time. `keys` are those that its call began with, if they are known.
    pub fn send(&self, written: QueuedCallback, keys: impl Into<Option<SigningKeys>>) {
        if !written.first {
            return;
        }
        if let Some(place) = self.0.place(&written.callback, true) {
            self.0.spawn(written.callback, place, keys.into());
        }
    }

    /// Callbacks in memory.
    pub fn held(&self) -> usize {
        self.0.held().ids.len()
    }

    /// Takes on nothing more, and waits until what is in memory is delivered or put off, until `deadline` is over.
    /// Returns how many were cut off by it; an attempt of theirs that was under way counts as one that failed. Whatever is
    /// not delivered stays in the store.
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

impl Inner {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a callback; none: it has one, or there is no room. A fresh one comes after those left in the store.
    fn place(self: &Arc<Self>, callback: &Callback, fresh: bool) -> Option<Place> {
        let (id, origin) = (callback.id, &callback.new.origin);
        let mut held = self.held();
        let gone = !fresh && held.gone.as_ref().is_some_and(|gone| gone.contains(&id));
        if self.stopping.is_cancelled() || gone || held.ids.contains(&id) {
            return None;
        }
        let here = held.of_origin.get(origin).copied().unwrap_or_default();
        if here >= self.room(&held) || (fresh && held.left.contains(origin)) {
            held.left.insert(origin.clone());
            return None;
        }
        held.ids.insert(id);
        *held.of_origin.entry(origin.clone()).or_default() += 1;
        Some(Place { outbox: self.clone(), id, origin: origin.clone() })
    }

    /// What one host may hold just now: a share of what is free, so that many dead ones leave room for the living.
    fn room(&self, held: &Held) -> usize {
        let free = self.limits.held.saturating_sub(held.ids.len());
        (free / 8).clamp(usize::from(free > 0), self.limits.held_per_host)
    }

    fn spawn(self: &Arc<Self>, callback: Callback, place: Place, keys: Option<SigningKeys>) {
        let inner = self.clone();
        let aborted = self.aborted.clone();
        let work = async move { inner.deliver(callback, place, keys).await };
        self.tasks.spawn(async move { aborted.run_until_cancelled(work).await });
    }

    fn keys(&self, account: &AuthId, main: &AuthId) -> Option<SigningKeys> {
        let tables = self.directory.tables();
        let main = tables.account(main)?;
        // A subaccount that was taken away meanwhile: its main account has what is left of it.
        let account = tables.account(account).unwrap_or(main);
        Some(SigningKeys::new(account.tokens.clone(), main.tokens.clone()))
    }

    /// The webhook of an event. It is told of its own account, and a main account's of its subaccounts: whatever routing
    /// says, no account's events go to another.
    fn webhook(&self, new: &NewCallback) -> Option<Arc<Webhook>> {
        let id = new.notice.url.0.strip_prefix(WEBHOOK)?.parse().ok()?;
        let found = self.directory.mail().webhook(id);
        found
            .filter(|webhook| webhook.account == new.account || webhook.account == new.main_account)
    }

    /// One stage of a callback, written down.
    async fn deliver(&self, callback: Callback, place: Place, keys: Option<SigningKeys>) {
        let Callback { id, new, since, attempts, retries } = callback;
        let (call, kind, event_id, hops) = (new.call, new.notice.kind, new.event_id, Hops::new());
        // What reports messages and numbers is no call's.
        let of_a_call = !matches!(kind, CallbackKind::Event | CallbackKind::Message);
        let webhook = self.webhook(&new);
        let (began, begun) = (self.clock.wall(), self.clock.now());
        let failed = |why: &str| Delivery {
            attempts,
            outcome: NoticeOutcome::Failed { why: why.to_owned() },
        };
        let delivery = match keys.or_else(|| self.keys(&new.account, &new.main_account)) {
            None => failed("its account is not there any more: nothing to sign it with"),
            Some(_) if new.shut.is_some() => {
                failed("another store.secret_key sealed its parameters: put that one back")
            }
            Some(_) if kind == CallbackKind::Event && webhook.is_none() => {
                failed("its webhook is not there any more, or another account's")
            }
            Some(keys) => {
                let age = self.clock.steady().since(since);
                let mut notice = new.notice;
                if let Some(webhook) = &webhook {
                    // Where it is now, whatever it was when the event came up.
                    notice.url.clone_from(&webhook.url);
                }
                if let Some(link) = self.links.get() {
                    links::sign(&mut notice, link);
                }
                let job = NoticeJob {
                    call: new.call,
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
                // The cut first: a place that another one leaves now is nobody's.
                let delivery = tokio::select! {
                    biased;
                    // It is due as it was, if it waited still.
                    () = self.cut.cancelled() => match self.notifier.cut_off(&job) {
                        Some(cut_off) => Ok(cut_off),
                        None => return,
                    },
                    delivery = &mut delivering => delivery,
                };
                delivery.unwrap_or_else(|_| failed("a fault of ours ended the attempt"))
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
        // There is no log that anything else could stand in.
        if let (true, Ok(line)) = (of_a_call, log::trace_line(&trace)) {
            self.store.event_log().append_late(call, line.trim_end().to_owned());
        }
        if let Some(sink) = self.traces.get() {
            sink(Traced::Callback { call, trace });
        }
        let at = self.clock.steady();
        let (outcome, last) = match delivery.outcome {
            NoticeOutcome::Delivered { status } => (DeliveryOutcome::Delivered, status.to_string()),
            NoticeOutcome::Retry { why, after } => {
                (DeliveryOutcome::Retry { due: at.plus(after) }, why)
            }
            NoticeOutcome::Failed { why } => (DeliveryOutcome::Failed, why),
        };
        let why = (!of_a_call && matches!(outcome, DeliveryOutcome::Failed)).then(|| last.clone());
        let settlement = Settlement { id, attempts: delivery.attempts, at, outcome, last };
        // Only a store that is being closed fails here: then the row is due at the next start.
        let others_wait = self.store.outbox().settle(settlement).await.unwrap_or_default();
        drop(place);
        if let (Some(why), Some(tell)) = (why, self.undelivered.get()) {
            let to = webhook.map_or(new.origin, |webhook| format!("webhook {}", webhook.name));
            tell(GivenUp { account: new.account, main_account: new.main_account, to, why });
        }
        // What a multi-party call's end waits for is other calls'.
        if others_wait
            || kind == CallbackKind::MultiParty
            || matches!(outcome, DeliveryOutcome::Retry { .. })
        {
            self.woken.notify_one();
        }
    }

    async fn keep_reading(self: &Arc<Self>) {
        loop {
            let pause = match self.read().await {
                Ok(Some(next)) => next.since(self.clock.steady()).clamp(REST, POLL),
                Ok(None) => POLL,
                Err(error) => {
                    tracing::warn!(%error, "callbacks that wait can't be read; trying again");
                    POLL
                }
            };
            if tokio::time::timeout(pause, self.woken.notified()).await.is_ok() {
                tokio::time::sleep(REST).await;
            }
        }
    }

    /// Takes in what is due, as far as there is room; gives when more will be.
    async fn read(self: &Arc<Self>) -> Result<Option<Timestamp>, StoreError> {
        let now = self.clock.steady();
        let (origins, next) = self.store.outbox().due_origins(&self.node_id, now).await?;
        for origin in origins {
            let limit = {
                let mut held = self.held();
                let here = held.of_origin.get(&origin).copied().unwrap_or_default();
                let room = self.room(&held).saturating_sub(here);
                if room == 0 {
                    held.left.insert(origin);
                    continue;
                }
                // What is left out from now on is told again.
                held.left.remove(&origin);
                held.gone = Some(HashSet::new());
                // Those in memory may be read again, and are passed over.
                here + room
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
