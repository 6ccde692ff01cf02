//! Processes items: deduplication, tombstones and age, then admission and calls
//! (`docs/reference/meta.md#results`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::calls::Calls;
use super::claims::{Claim, ClaimPurpose, HandOver, OtherNodes, SignedWebhook, Unreachable};
use super::decode::{self, BadJson};
use super::dedupe::{KeyTable, key_of};
use super::effect::{Effect, ItemResult, Tally, count};
use super::in_flight::{Arrival, EventInFlight, InFlight};
use super::items::{Connect, Content, Item, PermissionReply, Sdp};
use super::kind::Kind;
use super::verify::Secrets;
use crate::admission::permission::{Consents, PairKey, Stored};
use crate::admission::{Admitted, Gate, NumberEntry, Pressure, Reason, Refused};
use crate::call::CallEvent;
use crate::call::registry::{CallKey, EventOutcome, Incoming, OnSettled, RejectsFull};
use crate::inbox::{self, Inbox, ReceivedStatus, UserMessage};
use crate::numbers::MetaEvent;
use machine::Termination;
use media::sdp::Offer;
use model::Clock;
use model::Secret;
use model::metric;
use model::{CallUuid, Direction, PhoneNumberId, Repeats, Timestamp, Wacid};
use store::{KeyKind, SeenKey};
use tokio::sync::oneshot;
use uuid::Uuid;

/// The secrets for Meta's webhook.
#[derive(Clone, Debug)]
pub struct WebhookConfig {
    pub app_secret: Secret,
    pub app_secret_previous: Option<Secret>,
    pub verify_token: Secret,
}

/// Stores the keys of events for the next process. No method may block or wait.
pub trait Ledger: Send + Sync {
    /// Stores a key that was seen for the first time.
    fn note(&self, key: u128, kind: KeyKind, seen: Timestamp);

    /// Removes a key because its event could not be processed and will be redelivered.
    fn forget(&self, key: u128);
}

/// The handler of Meta's webhook. One per node.
pub struct WebhookHandler<C> {
    calls: C,
    gate: Arc<Gate>,
    pub(super) clock: Clock,
    secrets: ArcSwap<Secrets>,
    events: KeyTable,
    in_flight: InFlight,
    changes: KeyTable,
    tombstones: KeyTable,
    ledger: Option<Arc<dyn Ledger>>,
    consents: Option<Arc<Consents>>,
    inbox: Option<Inbox>,
    pressure: Option<Arc<Pressure>>,
    account_news: Option<AccountNewsSink>,
    others: Option<Arc<dyn OtherNodes>>,
    /// Calls of unknown numbers.
    unknown_numbers: Repeats,
    /// Calls that were ignored because their webhooks are too old or from the future.
    stale_calls: Repeats,
}

/// Receives account news from Meta. It must not block or wait.
pub type AccountNewsSink = Box<dyn Fn(MetaEvent) + Send + Sync>;

/// A write that must be durable before the 200, and its event (`docs/reference/meta.md#when-200`).
pub struct PendingWrite {
    /// `None` for a copy of an event.
    event: Option<Arc<EventInFlight>>,
    work: Work,
    /// The count of the write's item. Set after the item was processed.
    tally: Option<Arc<Tally>>,
}

/// The work that must be done before the 200.
enum Work {
    Stored(Stored),
    /// An inbound call that a node of a fleet has to claim.
    Connect(Box<ReceivedConnect>),
    /// An event of a call that this node does not have.
    Foreign(ForeignEvent),
    /// A copy of an event in flight. Receives whether that event succeeded.
    Copy(oneshot::Receiver<bool>),
}

struct ReceivedConnect {
    connect: Connect,
    received: Instant,
    arrived: Instant,
    wall: Timestamp,
}

struct ForeignEvent {
    key: CallKey,
    named: Option<CallUuid>,
    event: CallEvent,
}

impl PendingWrite {
    fn new(event: Arc<EventInFlight>, work: Work) -> Self {
        Self { event: Some(event), work, tally: None }
    }

    fn foreign(
        id: Arc<EventInFlight>,
        key: &CallKey,
        named: Option<CallUuid>,
        event: CallEvent,
    ) -> Self {
        Self::new(id, Work::Foreign(ForeignEvent { key: key.clone(), named, event }))
    }
}

#[cfg(test)]
impl PendingWrite {
    /// Creates the writes of one item with these results.
    pub(super) fn all_of(stored: &[bool]) -> Vec<Self> {
        let tally = Tally::new("messages.text", Effect::MessageStored);
        let one = |stored: &bool| {
            let stored = *stored;
            let tally = Some(tally.clone());
            let event = EventInFlight::without_copies(7);
            Self { tally, ..Self::new(event, Work::Stored(Box::pin(async move { stored }))) }
        };
        stored.iter().map(one).collect()
    }
}

/// Pauses between attempts to find the node of an outbound call by Meta's id.
const ANSWER_PAUSES: [Duration; 6] = [
    Duration::from_millis(30),
    Duration::from_millis(60),
    Duration::from_millis(120),
    Duration::from_millis(240),
    Duration::from_millis(480),
    Duration::from_millis(600),
];

const DAY: Duration = Duration::from_secs(86_400);
/// Lifetime and number of keys of calls and messages. Meta redelivers for a week. 500,000 keys need
/// less than 30 MB and correspond to six hours of rated load; older connects are `stale` anyway.
const EVENTS_KEPT: (Duration, usize) = (Duration::from_secs(7 * 86_400), 500_000);
/// Lifetime and number of keys of account events, which are rare.
const CHANGES_KEPT: (Duration, usize) = (DAY, 20_000);
/// T_tomb: how long a `terminate` without its call bars a later connect
/// (`docs/reference/meta.md#t-tomb`).
const TOMBSTONES_KEPT: (Duration, usize) = (Duration::from_secs(600), 100_000);
/// Maximum age of a connect in seconds. Older ones are `stale`, because the user has hung up.
const CONNECT_AGE_MAX: i64 = 60;
/// Maximum time in seconds that a connect may be ahead of our clock.
const CONNECT_AHEAD_MAX: i64 = 300;

/// How long after the start of a call its connect can be redelivered without being `stale`.
pub const CONNECT_AGAIN: Duration =
    Duration::from_secs((CONNECT_AGE_MAX + CONNECT_AHEAD_MAX).unsigned_abs());

impl<C: Calls> WebhookHandler<C> {
    /// Creates the handler in front of `calls` and `gate`.
    pub fn new(calls: C, gate: Arc<Gate>, clock: Clock, config: &WebhookConfig) -> Self {
        let seen = |(ttl, capacity)| KeyTable::new(ttl, capacity);
        Self {
            calls,
            gate,
            clock,
            secrets: ArcSwap::from_pointee(secrets(config)),
            events: seen(EVENTS_KEPT),
            in_flight: InFlight::default(),
            changes: seen(CHANGES_KEPT),
            tombstones: seen(TOMBSTONES_KEPT),
            ledger: None,
            consents: None,
            inbox: None,
            pressure: None,
            account_news: None,
            others: None,
            unknown_numbers: Repeats::default(),
            stale_calls: Repeats::default(),
        }
    }

    /// Returns the current secrets.
    pub(super) fn secrets(&self) -> Arc<Secrets> {
        self.secrets.load_full()
    }

    /// Replaces the secrets for later requests.
    pub fn replace_secrets(&self, config: &WebhookConfig) {
        self.secrets.store(Arc::new(secrets(config)));
    }

    /// Marks the connect of a call as seen, in this process and those after it: an earlier process
    /// started the call but may not have stored its key, and Meta may redeliver the connect. Not
    /// needed for calls older than [`CONNECT_AGAIN`].
    pub fn remember(&self, key: CallKey) {
        let event = call_event("connect", &key);
        self.events.claim(event, self.clock.now());
        self.note(event);
    }

    /// Stores keys for the next process.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<dyn Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// Processes replies to permission requests.
    #[must_use]
    pub fn with_consents(mut self, consents: Arc<Consents>) -> Self {
        self.consents = Some(consents);
        self
    }

    /// Sets the receiver of account news.
    #[must_use]
    pub fn with_changes(mut self, sink: AccountNewsSink) -> Self {
        self.account_news = Some(sink);
        self
    }

    /// Shares Meta's webhooks with the other nodes of a fleet.
    #[must_use]
    pub fn with_others(mut self, others: Arc<dyn OtherNodes>) -> Self {
        self.others = Some(others);
        self
    }

    /// Stores inbound messages.
    #[must_use]
    pub fn with_inbox(mut self, inbox: Inbox) -> Self {
        self.inbox = Some(inbox);
        self
    }

    /// Sheds webhooks when the node is overloaded.
    #[must_use]
    pub fn with_pressure(mut self, pressure: Arc<Pressure>) -> Self {
        self.pressure = Some(pressure);
        self
    }

    /// Whether a webhook is processed. If not, Meta is asked to retry.
    pub(super) fn accepts_webhook(&self) -> bool {
        self.pressure.as_ref().is_none_or(|pressure| pressure.accepts_webhook())
    }

    /// Inserts a key of an earlier process. Keys must be passed newest first. Returns `false` if
    /// older keys have no space.
    pub fn remember_key(&self, noted: &SeenKey) -> bool {
        let now = self.clock.now();
        let age = self.clock.wall().since(noted.seen);
        match noted.kind {
            KeyKind::Event => self.events.remember(noted.key, age, now),
            KeyKind::Tombstone => {
                self.tombstones.remember(noted.key, age, now) || age < TOMBSTONES_KEPT.0
            }
        }
    }

    /// The calls.
    pub fn calls(&self) -> &C {
        &self.calls
    }

    /// Like [`WebhookHandler::deliver_received`] for a body that arrives now.
    ///
    /// # Errors
    /// Returns an error if the body is not JSON.
    pub fn deliver(&self, body: &[u8], each: impl FnMut(ItemResult)) -> Result<(), BadJson> {
        self.deliver_received(self.clock.now(), body, true, each).map(drop)
    }

    /// Processes the items of a verified body and passes each result to `each`. `received` is when
    /// its request arrived. `has_messages` is false if another node has taken its messages. The
    /// caller must wait for the returned writes before it responds.
    ///
    /// # Errors
    /// Returns an error if the body is not JSON. Nothing has been processed then.
    pub fn deliver_received(
        &self,
        received: Instant,
        body: &[u8],
        has_messages: bool,
        mut each: impl FnMut(ItemResult),
    ) -> Result<Vec<PendingWrite>, BadJson> {
        let mut waiting = Vec::<PendingWrite>::new();
        decode::decode(body, |item| {
            let before = waiting.len();
            let Item { kind, id, content } = item;
            let effect = match content {
                // The other node counts it.
                content if content.is_of_conversation() && !has_messages => Effect::Duplicate,
                content => self.item(&kind, content, received, &mut waiting),
            };
            let tally = Tally::new(kind.label(), effect);
            waiting.iter_mut().skip(before).for_each(|one| one.tally = Some(tally.clone()));
            each(ItemResult { kind, id, effect });
        })?;
        Ok(waiting)
    }

    /// Processes the events of this node's calls in a webhook that another node has received. The
    /// other node has handled everything else, and counts all events.
    ///
    /// # Errors
    /// Returns an error if the body is not JSON. Nothing has been processed then.
    pub(super) fn deliver_forwarded(&self, body: &[u8]) -> Result<bool, BadJson> {
        let (now, mut busy, mut waiting) = (self.clock.now(), false, Vec::new());
        decode::decode(body, |Item { kind, content, .. }| {
            let (key, named) = match &content {
                Content::Connect(connect) if connect.direction == Direction::Outbound => {
                    (&connect.key, connect.named)
                }
                Content::Terminate { key, named, .. } | Content::Status { key, named, .. } => {
                    (key, *named)
                }
                _ => return,
            };
            let effect = if self.calls.has(key, named) {
                self.item(&kind, content, now, &mut waiting)
            } else if let Content::Terminate { key, named, termination } = content {
                // This node may have claimed the call and not started it yet.
                self.terminate_here(&key, named, termination)
            } else {
                return;
            };
            busy |= effect == Effect::Busy;
        })?;
        // Copies of events that this node received itself and is passing on.
        busy |= !waiting.is_empty();
        waiting.iter().for_each(|write| self.fail(write.event.as_deref(), None));
        Ok(!busy)
    }

    /// Lets another node process the messages of a webhook if the database does not answer this one.
    /// Returns `false` if there are none, or if no node took them.
    pub(super) async fn hand_messages_over(&self, webhook: &SignedWebhook) -> bool {
        let Some(others) = self.others.as_ref().filter(|others| others.is_cut_off()) else {
            return false;
        };
        let mut has_messages = false;
        let decoded = decode::decode(&webhook.body, |item| {
            has_messages |= item.content.is_of_conversation();
        });
        decoded.is_ok()
            && has_messages
            && others.hand_over(webhook.clone(), HandOver::Messages).await.is_ok()
    }

    /// Takes what another node hands over of a webhook that it has received, with the time limit
    /// `at_most` for writes. Returns `false` if this node can't take it either.
    ///
    /// # Errors
    /// Returns an error if the body is not JSON. Nothing has been processed then.
    pub(super) async fn take_over(
        &self,
        body: &[u8],
        reason: HandOver,
        at_most: Duration,
    ) -> Result<bool, BadJson> {
        let is_starting = || self.others.as_ref().is_some_and(|others| others.is_starting());
        let is_refused = match reason {
            HandOver::NotAdmitted => self.passes_calls_on(),
            HandOver::NoUnits => self.gate.is_draining() || is_starting(),
            HandOver::Messages => self.others.as_ref().is_some_and(|others| others.is_cut_off()),
        };
        if is_refused {
            return Ok(false);
        }
        let (now, mut waiting, mut busy) = (self.clock.now(), Vec::new(), false);
        decode::decode(body, |Item { kind, content, .. }| {
            let is_handed_over = match (&content, reason) {
                (content, HandOver::Messages) => content.is_of_conversation(),
                (Content::Connect(connect), HandOver::NotAdmitted | HandOver::NoUnits) => {
                    connect.direction == Direction::Inbound
                }
                _ => false,
            };
            if !is_handed_over {
                return;
            }
            if let (Content::Connect(connect), HandOver::NoUnits) = (&content, reason)
                && !self.gate.has_units(now, &connect.key.phone_number_id)
            {
                busy = true;
                return;
            }
            let before = waiting.len();
            let effect = self.item(&kind, content, now, &mut waiting);
            let tally = Tally::new(kind.label(), effect);
            waiting.iter_mut().skip(before).for_each(|one| one.tally = Some(tally.clone()));
            busy |= effect == Effect::Busy;
        })?;
        Ok(self.settle(waiting, at_most).await && !busy)
    }

    /// Waits for the writes of a body, for `at_most`. Returns `false` if one of them failed, so
    /// that Meta must redeliver the body.
    pub(super) async fn settle(&self, waiting: Vec<PendingWrite>, at_most: Duration) -> bool {
        self.settle_shared(waiting, None, at_most).await
    }

    /// Like [`WebhookHandler::settle`]. Other nodes get `webhook` if it has events of their calls.
    pub(super) async fn settle_shared(
        &self,
        waiting: Vec<PendingWrite>,
        webhook: Option<SignedWebhook>,
        at_most: Duration,
    ) -> bool {
        let (mut writes, mut foreign, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        for PendingWrite { event: id, work, tally } in waiting {
            match work {
                Work::Foreign(event) => foreign.push((id, event, tally)),
                Work::Copy(succeeded) => copies.push((succeeded, tally)),
                work => writes.push((id, work, tally)),
            }
        }
        let webhook = webhook.as_ref();
        let all = writes.into_iter().map(|(id, work, tally)| async move {
            let stored = match work {
                Work::Stored(stored) => {
                    tokio::time::timeout(at_most, stored).await.unwrap_or(false)
                }
                Work::Connect(connect) => {
                    self.connect_shared(*connect, webhook, tally.as_deref()).await
                }
                Work::Foreign(_) | Work::Copy(_) => true,
            };
            if !stored {
                self.fail(id.as_deref(), tally.as_deref());
            }
            stored
        });
        let written = futures_util::future::join_all(all).await.into_iter().all(|stored| stored);
        let mut forwarded = true;
        let mut sent = BTreeMap::new();
        for (id, event, tally) in foreign {
            let done = self.pass_on(event, webhook, &mut sent, tally.as_deref()).await;
            match (done, id) {
                // Only now: a process that takes over from the call's node meanwhile reads the keys of
                // all nodes, and would take the event for a copy.
                (Ok(()), Some(id)) => self.note(id.key),
                (Ok(()), None) => {}
                (Err(_), id) => {
                    self.fail(id.as_deref(), tally.as_deref());
                    forwarded = false;
                }
            }
        }
        // Last, because a body can contain an event and a copy of it.
        let mut copied = true;
        for (succeeded, tally) in copies {
            if !succeeded.await.unwrap_or(false) {
                self.fail(None, tally.as_deref());
                copied = false;
            }
        }
        written && forwarded && copied
    }

    /// Lets Meta deliver an event again that was not written or passed on.
    fn fail(&self, event: Option<&EventInFlight>, tally: Option<&Tally>) {
        if let Some(event) = event {
            self.unclaim(event);
        }
        if let Some(tally) = tally {
            tally.busy.store(true, Ordering::Relaxed);
        }
    }

    /// Forwards an event to the node that owns its call. `sent` are the nodes that already have the
    /// webhook.
    async fn pass_on(
        &self,
        event: ForeignEvent,
        webhook: Option<&SignedWebhook>,
        sent: &mut BTreeMap<Uuid, Result<(), Unreachable>>,
        tally: Option<&Tally>,
    ) -> Result<(), Unreachable> {
        let (Some(others), Some(webhook)) = (&self.others, webhook) else { return Ok(()) };
        let ForeignEvent { key, named, event } = event;
        let mut owner = others.owner(key.clone(), named).await?;
        if let (None, None, CallEvent::Answer(_)) = (owner, named, &event) {
            // If the call is this node's, Graph's response ties the event to it.
            let effect = self.apply(&key, named, event.clone());
            if effect == Effect::Parked {
                owner = self.until_owner(&**others, &key).await?;
            }
            if let (None, Some(tally)) = (owner, tally) {
                tally.set(effect);
            }
            if owner.is_none() {
                return if effect == Effect::Busy { Err(Unreachable) } else { Ok(()) };
            }
        }
        if let (None, None, CallEvent::Terminated(_)) = (owner, named, &event) {
            // If its `connect` comes later, to any node, it must not begin.
            owner = match others.claim(key.clone(), ClaimPurpose::Bury).await {
                Claim::Theirs(owner) => Some(owner),
                Claim::Ours | Claim::Over => None,
                Claim::Denied => return Err(Unreachable),
            };
        }
        let Some(owner) = owner else {
            let effect = match event {
                CallEvent::Terminated(termination) => self.terminate_here(&key, named, termination),
                event => self.apply(&key, named, event),
            };
            if let Some(tally) = tally {
                tally.set(effect);
            }
            return if effect == Effect::Busy { Err(Unreachable) } else { Ok(()) };
        };
        let result = match sent.get(&owner) {
            Some(result) => *result,
            None => others.forward(owner, webhook.clone()).await,
        };
        sent.insert(owner, result);
        if let (Ok(()), Some(tally)) = (result, tally) {
            tally.set(applied(&event));
        }
        result
    }

    /// Waits until the node of an outbound call is known by Meta's id of the call. Meta can send its
    /// SDP answer, which names nothing else, before the node has Graph's response with that id.
    async fn until_owner(
        &self,
        others: &dyn OtherNodes,
        key: &CallKey,
    ) -> Result<Option<Uuid>, Unreachable> {
        for pause in ANSWER_PAUSES {
            tokio::time::sleep(pause).await;
            if self.calls.has(key, None) {
                break;
            }
            if let Some(owner) = others.owner(key.clone(), None).await? {
                return Ok(Some(owner));
            }
        }
        Ok(None)
    }

    /// Admits a call, claims it and starts it. Returns `false` if Meta must redeliver the webhook.
    async fn connect_shared(
        &self,
        received: ReceivedConnect,
        webhook: Option<&SignedWebhook>,
        tally: Option<&Tally>,
    ) -> bool {
        let key = call_event("connect", &received.connect.key);
        let number = &received.connect.key.phone_number_id;
        let effect = match self.hand_over(number, webhook).await {
            // Counted as a copy: the other node counts the call.
            true => Effect::Duplicate,
            false if self.others.as_ref().is_some_and(|others| others.is_starting()) => {
                Effect::Busy
            }
            false => {
                let call = received.connect.key.clone();
                let effect = self.admit_shared(received).await;
                if let (Effect::Busy, Some(others)) = (effect, &self.others) {
                    others.withdraw(&call);
                }
                effect
            }
        };
        if effect != Effect::Busy {
            self.note(key);
        }
        if let Some(tally) = tally {
            tally.set(effect);
        }
        effect != Effect::Busy
    }

    /// Whether this node has a live call. `named` is the outbound call in an event's opaque data.
    pub fn has_call(&self, key: &CallKey, named: Option<CallUuid>) -> bool {
        self.calls.has(key, named)
    }

    /// Whether another node should take the calls that arrive here: this one drains, has no units yet,
    /// or can't claim them.
    fn passes_calls_on(&self) -> bool {
        let others = self.others.as_ref();
        self.gate.is_draining()
            || others.is_some_and(|others| others.is_cut_off() || others.is_starting())
    }

    /// Hands the calls of a webhook over to another node if this one should not take them, or if it
    /// holds no units for a call of `number` and can't get any. The balancer may not have noticed
    /// that yet. Returns `false` if this node must decide about them.
    async fn hand_over(&self, number: &PhoneNumberId, webhook: Option<&SignedWebhook>) -> bool {
        let (Some(others), Some(webhook)) = (&self.others, webhook) else { return false };
        let hand_over = |reason| others.hand_over(webhook.clone(), reason);
        if self.passes_calls_on() && hand_over(HandOver::NotAdmitted).await.is_ok() {
            return true;
        }
        others.is_cut_off()
            && !self.gate.has_units(self.clock.now(), number)
            && hand_over(HandOver::NoUnits).await.is_ok()
    }

    async fn admit_shared(&self, received: ReceivedConnect) -> Effect {
        let ReceivedConnect { connect, received, arrived, wall } = received;
        let (key, Some(others)) = (connect.key.clone(), &self.others) else { return Effect::Busy };
        let offer = |number: &NumberEntry| {
            let room = self.calls.room(number).ok_or(Reason::Overloaded)?;
            self.read(&connect.sdp).map(|offer| (room, offer)).ok_or(Reason::BadOffer)
        };
        let number = &key.phone_number_id;
        let asked = self.gate.admit_shared(&self.clock, number, Direction::Inbound, offer).await;
        let (number, reason) = match asked {
            Ok((admitted, (room, offer))) => {
                let number = admitted.number().clone();
                log_difference(&connect, &number);
                let mut incoming = incoming(connect, &number, offer, received, arrived, wall);
                match self.calls.birth(&number, &mut incoming) {
                    None => {
                        admitted.withdraw();
                        let reason = Reason::CallingDisabled;
                        self.gate.count_refusal(Direction::Inbound, Some(&number), reason);
                        (number, reason)
                    }
                    Some(birth) => {
                        let purpose = ClaimPurpose::Begin(Box::new(birth));
                        match others.claim(key.clone(), purpose).await {
                            Claim::Ours => return self.start(&number, room, admitted, incoming),
                            claim => {
                                admitted.withdraw();
                                return self.not_ours(claim);
                            }
                        }
                    }
                }
            }
            Err(Refused { reason, number: Some(number) }) => (number, reason),
            Err(Refused { number: None, .. }) => return self.unknown_number(number, arrived),
        };
        // A call is never rejected by one node and accepted by another.
        match others.claim(key.clone(), ClaimPurpose::Reject).await {
            Claim::Ours => {
                let (others, wacid) = (others.clone(), key.wacid.clone());
                let settled = Box::new(move || others.rejected(&key));
                self.reject(&number, wacid, reason, Some(settled))
            }
            claim => self.not_ours(claim),
        }
    }

    fn not_ours(&self, claim: Claim) -> Effect {
        match claim {
            Claim::Denied => Effect::Busy,
            Claim::Ours | Claim::Over | Claim::Theirs(_) => {
                self.gate.count(Direction::Inbound, Reason::Duplicate.as_str());
                Effect::Duplicate
            }
        }
    }

    /// Processes an event that must be stored, with its notifications, before the 200.
    fn kept(
        &self,
        number: &PhoneNumberId,
        key: u128,
        effect: Effect,
        waiting: &mut Vec<PendingWrite>,
        keep: impl FnOnce(
            &Inbox,
            &Arc<NumberEntry>,
        ) -> Result<Option<inbox::StoredFuture>, inbox::QueueFull>,
    ) -> Effect {
        let now = self.clock.now();
        let (Some(entry), Some(inbox)) = (self.gate.directory().number(number), &self.inbox) else {
            return self.once(number, key, now, effect);
        };
        let Some(event) = self.arrive(key, now, waiting) else { return Effect::Duplicate };
        match keep(inbox, &entry) {
            Ok(stored) => {
                // Enqueued after the message, so that a stored key implies a stored message.
                self.note(key);
                waiting.extend(stored.map(|stored| PendingWrite::new(event, Work::Stored(stored))));
                effect
            }
            Err(inbox::QueueFull) => {
                self.unclaim_unstored(&event);
                Effect::Busy
            }
        }
    }

    fn message(
        &self,
        number: &PhoneNumberId,
        message: UserMessage,
        waiting: &mut Vec<PendingWrite>,
    ) -> Effect {
        let key = key_of(&[b"message", of(number), message.wamid.as_bytes()]);
        self.kept(number, key, Effect::MessageStored, waiting, |inbox, entry| {
            inbox.timeline().receive(entry, message)
        })
    }

    fn message_status(
        &self,
        number: &PhoneNumberId,
        status: ReceivedStatus,
        waiting: &mut Vec<PendingWrite>,
    ) -> Effect {
        let code = status.error.as_ref().map(|(code, _)| code.to_string()).unwrap_or_default();
        let words = [
            of(number),
            status.wamid.as_bytes(),
            status.status.as_str().as_bytes(),
            code.as_bytes(),
        ];
        let key = key_of(&[&[b"message status".as_slice()], words.as_slice()].concat());
        self.kept(number, key, Effect::MessageStatusApplied, waiting, |inbox, entry| {
            inbox.statuses().receive(entry, status).map(Some)
        })
    }

    fn permission(&self, reply: PermissionReply, waiting: &mut Vec<PendingWrite>) -> Effect {
        let now = self.clock.now();
        let key = key_of(&[b"message", of(&reply.phone_number_id), reply.id.as_bytes()]);
        let (Some(number), Some(consents)) =
            (self.gate.directory().number(&reply.phone_number_id), &self.consents)
        else {
            return self.once(&reply.phone_number_id, key, now, Effect::Ignored);
        };
        let Some(event) = self.arrive(key, now, waiting) else { return Effect::Duplicate };
        let pair = PairKey::new(&reply.phone_number_id, &reply.user);
        let (rules, at) = (&number.spec.permissions, reply.timestamp.map(Timestamp::from_secs));
        let Ok(taken) = consents.reply(&pair, rules, self.clock.wall(), at, reply.reply, &reply.id)
        else {
            self.unclaim_unstored(&event);
            return Effect::Busy;
        };
        let pending = |stored| PendingWrite::new(event.clone(), Work::Stored(stored));
        // Enqueued after the reply, so that a stored key implies a stored reply.
        self.note(key);
        waiting.extend(taken.stored.map(pending));
        if let Some(inbox) = &self.inbox {
            // The reply is also a message. The permission is stored even if the message queue is
            // full.
            match inbox.timeline().receive(&number, reply.message) {
                Ok(stored) => waiting.extend(stored.map(pending)),
                Err(inbox::QueueFull) => {
                    tracing::warn!("permission reply not added to its conversation: queue full")
                }
            }
        }
        if taken.changed { Effect::PermissionUpdated } else { Effect::MessageStored }
    }

    /// Counts the result of an item, or of a whole body as kind `body`.
    pub(super) fn count(&self, kind: &Kind, effect: Effect) {
        count(kind.label(), effect);
    }

    fn item(
        &self,
        kind: &Kind,
        content: Content,
        received: Instant,
        waiting: &mut Vec<PendingWrite>,
    ) -> Effect {
        let now = self.clock.now();
        match content {
            Content::Connect(connect) => self.connect(*connect, now, received, waiting),
            Content::Terminate { key, named, termination } => {
                self.terminate(&key, named, termination, now, waiting)
            }
            Content::Status { key, named, status } => {
                let id = key_of(&[
                    b"status",
                    of(&key.phone_number_id),
                    of(&key.wacid),
                    status.as_str().as_bytes(),
                ]);
                let Some(id) = self.arrive(id, now, waiting) else { return Effect::Duplicate };
                if self.gate.directory().number(&key.phone_number_id).is_none() {
                    return Effect::UnknownNumber;
                }
                let before = waiting.len();
                let effect = self.placed(&id, &key, named, CallEvent::Status(status), waiting);
                match effect {
                    Effect::Busy => self.unclaim(&id),
                    _ if waiting.len() == before => self.note(id.key),
                    _ => {}
                }
                effect
            }
            Content::Change { digest, event } if self.changes.claim(key_of(&[&digest]), now) => {
                tracing::info!(kind = kind.label(), "account change received");
                self.changed(event)
            }
            Content::Change { .. } => Effect::Duplicate,
            Content::Permission(reply) => self.permission(*reply, waiting),
            Content::Message { phone_number_id, message } => {
                self.message(&phone_number_id, *message, waiting)
            }
            Content::MessageStatus { phone_number_id, status } => {
                self.message_status(&phone_number_id, *status, waiting)
            }
            Content::Ignored => Effect::Ignored,
            Content::Malformed => Effect::Malformed,
        }
    }

    /// Reports account news.
    fn changed(&self, event: Option<Box<MetaEvent>>) -> Effect {
        let (Some(event), Some(sink)) = (event, &self.account_news) else {
            return Effect::Ignored;
        };
        let effect = match *event {
            MetaEvent::Settings { .. } => Effect::SettingsNoted,
            MetaEvent::Number { .. } | MetaEvent::Waba { .. } | MetaEvent::TokenRefused { .. } => {
                Effect::AccountNoted
            }
        };
        sink(*event);
        effect
    }

    /// Claims a key and stores it. Returns whether this is the first event with the key.
    fn claim(&self, key: u128, now: Instant) -> bool {
        let first = self.events.claim(key, now);
        if first {
            self.note(key);
        }
        first
    }

    /// Stores the key of an event for the next process.
    fn note(&self, key: u128) {
        if let Some(ledger) = &self.ledger {
            ledger.note(key, KeyKind::Event, self.clock.wall());
        }
    }

    /// Claims the key of an event that may have to be written or passed on. Returns `None` for a
    /// copy. A copy of an event in flight waits for that event.
    fn arrive(
        &self,
        key: u128,
        now: Instant,
        waiting: &mut Vec<PendingWrite>,
    ) -> Option<Arc<EventInFlight>> {
        match self.in_flight.arrive(key, || self.events.claim(key, now)) {
            Arrival::First(event) => Some(event),
            Arrival::CopyInFlight(succeeded) => {
                waiting.push(PendingWrite {
                    event: None,
                    work: Work::Copy(succeeded),
                    tally: None,
                });
                None
            }
            Arrival::Copy => None,
        }
    }

    /// Releases an event whose key was stored, so that it is processed when it is delivered again.
    fn unclaim(&self, event: &EventInFlight) {
        self.unclaim_unstored(event);
        if let Some(ledger) = &self.ledger {
            ledger.forget(event.key);
        }
    }

    /// Like [`WebhookHandler::unclaim`], for an event whose key was not stored.
    fn unclaim_unstored(&self, event: &EventInFlight) {
        self.events.forget(event.key);
        event.fail();
    }

    /// Reports an event to an outbound call.
    fn placed(
        &self,
        id: &Arc<EventInFlight>,
        key: &CallKey,
        named: Option<CallUuid>,
        event: CallEvent,
        waiting: &mut Vec<PendingWrite>,
    ) -> Effect {
        if self.tombstones.contains(tombstone(key), self.clock.now()) {
            return Effect::Late;
        }
        if self.is_foreign(key, named) {
            let effect = applied(&event);
            waiting.push(PendingWrite::foreign(id.clone(), key, named, event));
            return effect;
        }
        self.apply(key, named, event)
    }

    /// Whether another node of the fleet may have a call.
    fn is_foreign(&self, key: &CallKey, named: Option<CallUuid>) -> bool {
        self.others.is_some() && !self.calls.has(key, named)
    }

    fn apply(&self, key: &CallKey, named: Option<CallUuid>, event: CallEvent) -> Effect {
        let applied = applied(&event);
        match self.calls.event(key, named, event) {
            EventOutcome::Delivered => applied,
            EventOutcome::Late => Effect::Late,
            EventOutcome::Parked => Effect::Parked,
            EventOutcome::Full => Effect::Busy,
        }
    }

    /// Returns the result of an event that is processed once: `effect`, or the result for a
    /// duplicate or an unknown number.
    fn once(&self, number: &PhoneNumberId, key: u128, now: Instant, effect: Effect) -> Effect {
        if !self.claim(key, now) {
            Effect::Duplicate
        } else if self.gate.directory().number(number).is_none() {
            Effect::UnknownNumber
        } else {
            effect
        }
    }

    fn connect(
        &self,
        connect: Connect,
        now: Instant,
        received: Instant,
        waiting: &mut Vec<PendingWrite>,
    ) -> Effect {
        let key = call_event("connect", &connect.key);
        let first = match self.others {
            Some(_) => self.arrive(key, now, waiting),
            // Decided before this returns.
            None => self.events.claim(key, now).then(|| EventInFlight::without_copies(key)),
        };
        let Some(event) = first else {
            if connect.direction == Direction::Inbound {
                self.gate.count(Direction::Inbound, Reason::Duplicate.as_str());
            }
            return Effect::Duplicate;
        };
        let waits_before = waiting.len();
        let effect = self.connected(&event, connect, now, received, waiting);
        if waiting.len() > waits_before {
            return effect;
        }
        // Stored after processing: in an overload the same connects are redelivered repeatedly and
        // should not load the store. If the process ends here, the call's record replaces the key.
        match effect {
            Effect::Busy => self.unclaim_unstored(&event),
            _ => self.note(key),
        }
        effect
    }

    /// Processes a connect that is not a duplicate.
    fn connected(
        &self,
        id: &Arc<EventInFlight>,
        connect: Connect,
        now: Instant,
        received: Instant,
        waiting: &mut Vec<PendingWrite>,
    ) -> Effect {
        if self.tombstones.contains(tombstone(&connect.key), now) {
            return Effect::Late;
        }
        let wall = self.clock.wall();
        let age = connect.timestamp.map_or(0, |then| wall.secs().saturating_sub(then));
        if !(-CONNECT_AHEAD_MAX..=CONNECT_AGE_MAX).contains(&age) {
            if let Some(calls) = self.stale_calls.count(now) {
                tracing::error!(
                    calls,
                    age_s = age,
                    "calls ignored: their webhooks are too old or from the future; check this machine's clock"
                );
            }
            return Effect::Stale;
        }
        match connect.direction {
            Direction::Inbound if self.others.is_some() => {
                let connect = ReceivedConnect { connect, received, arrived: now, wall };
                let work = Work::Connect(Box::new(connect));
                waiting.push(PendingWrite::new(id.clone(), work));
                Effect::Admitted
            }
            Direction::Inbound => self.admit(connect, received, now, wall),
            Direction::Outbound
                if self.gate.directory().number(&connect.key.phone_number_id).is_none() =>
            {
                Effect::UnknownNumber
            }
            Direction::Outbound => {
                let answer = self.read(&connect.sdp);
                let event = CallEvent::Answer(answer.map(Box::new));
                self.placed(id, &connect.key, connect.named, event, waiting)
            }
        }
    }

    fn read(&self, sdp: &Sdp) -> Option<Offer> {
        match sdp {
            Sdp::Given(sdp) => self.calls.read_offer(sdp),
            Sdp::Bad => None,
        }
    }

    fn admit(&self, connect: Connect, received: Instant, now: Instant, wall: Timestamp) -> Effect {
        let key = connect.key.clone();
        let offer = |number: &NumberEntry| {
            let room = self.calls.room(number).ok_or(Reason::Overloaded)?;
            self.read(&connect.sdp).map(|offer| (room, offer)).ok_or(Reason::BadOffer)
        };
        match self.gate.admit(now, &key.phone_number_id, Direction::Inbound, offer) {
            Ok((admitted, (room, offer))) => {
                let number = admitted.number().clone();
                log_difference(&connect, &number);
                let incoming = incoming(connect, &number, offer, received, now, wall);
                self.start(&number, room, admitted, incoming)
            }
            Err(Refused { reason, number: Some(number) }) => {
                self.reject(&number, key.wacid, reason, None)
            }
            Err(Refused { number: None, .. }) => self.unknown_number(&key.phone_number_id, now),
        }
    }

    /// Logs a call of a number that is not configured, at most once a minute.
    fn unknown_number(&self, number: &PhoneNumberId, now: Instant) -> Effect {
        if self.unknown_numbers.count(now).is_some() {
            tracing::warn!(phone_number_id = %number, "call ignored: its number is not connected here");
        }
        Effect::UnknownNumber
    }

    fn start(
        &self,
        number: &Arc<NumberEntry>,
        room: C::Room,
        admitted: Admitted,
        incoming: Incoming,
    ) -> Effect {
        let (key, now) = (incoming.key.clone(), incoming.arrived);
        if let Err((admitted, reason)) = self.calls.start(room, admitted, incoming) {
            admitted.withdraw();
            self.gate.count_refusal(Direction::Inbound, Some(number), reason);
            return self.reject(number, key.wacid, reason, None);
        }
        self.gate.count(Direction::Inbound, metric::admission::ADMITTED);
        // A concurrent `terminate` may have found no call while this one was being started.
        if self.tombstones.contains(tombstone(&key), now) {
            self.calls.event(&key, None, CallEvent::Terminated(Termination::default()));
        }
        Effect::Admitted
    }

    fn reject(
        &self,
        number: &Arc<NumberEntry>,
        wacid: Wacid,
        reason: Reason,
        settled: Option<OnSettled>,
    ) -> Effect {
        match self.calls.reject(number, wacid, reason, settled) {
            Ok(()) => Effect::Rejected(reason),
            Err(RejectsFull) => Effect::Busy,
        }
    }

    fn terminate(
        &self,
        key: &CallKey,
        named: Option<CallUuid>,
        termination: Termination,
        now: Instant,
        waiting: &mut Vec<PendingWrite>,
    ) -> Effect {
        let event = call_event("terminate", key);
        let Some(event) = self.arrive(event, now, waiting) else { return Effect::Duplicate };
        if self.is_foreign(key, named) {
            let terminated = CallEvent::Terminated(termination);
            waiting.push(PendingWrite::foreign(event, key, named, terminated));
            return Effect::Ended;
        }
        self.note(event.key);
        let effect = self.terminate_here(key, named, termination);
        if effect == Effect::Busy {
            self.unclaim(&event);
        }
        effect
    }

    fn terminate_here(
        &self,
        key: &CallKey,
        named: Option<CallUuid>,
        termination: Termination,
    ) -> Effect {
        let now = self.clock.now();
        let unknown = |outcome| matches!(outcome, EventOutcome::Parked | EventOutcome::Late);
        let mut outcome = self.calls.event(key, named, CallEvent::Terminated(termination.clone()));
        if unknown(outcome) {
            // Checked again after the tombstone is set, so that a call that is being started
            // concurrently sees either the tombstone or this. If its connect was seen, the
            // tombstone need not be stored: a later connect would be a duplicate.
            if self.tombstones.claim(tombstone(key), now)
                && !self.events.contains(call_event("connect", key), now)
                && let Some(ledger) = &self.ledger
            {
                ledger.note(tombstone(key), KeyKind::Tombstone, self.clock.wall());
            }
            outcome = self.calls.event(key, named, CallEvent::Terminated(termination));
        }
        match outcome {
            EventOutcome::Delivered => Effect::Ended,
            EventOutcome::Parked | EventOutcome::Late
                if self.gate.directory().number(&key.phone_number_id).is_none() =>
            {
                Effect::UnknownNumber
            }
            EventOutcome::Parked | EventOutcome::Late => Effect::Late,
            EventOutcome::Full => Effect::Busy,
        }
    }
}

/// Returns the result of an event that was delivered to its call.
fn applied(event: &CallEvent) -> Effect {
    match event {
        CallEvent::Answer(Some(_)) => Effect::AnswerApplied,
        CallEvent::Answer(None) => Effect::AnswerBad,
        CallEvent::Status(_) => Effect::StatusApplied,
        CallEvent::Terminated(_) => Effect::Ended,
    }
}

fn incoming(
    connect: Connect,
    number: &NumberEntry,
    offer: Offer,
    received: Instant,
    arrived: Instant,
    arrived_wall: Timestamp,
) -> Incoming {
    Incoming {
        from: connect.user(&number.spec.number),
        key: connect.key,
        call: None,
        caller_name: connect.name,
        cta_payload: connect.cta_payload,
        deeplink_payload: connect.deeplink_payload,
        offer,
        received,
        arrived,
        arrived_wall,
    }
}

fn secrets(config: &WebhookConfig) -> Secrets {
    Secrets::new(
        &config.app_secret,
        config.app_secret_previous.as_ref(),
        config.verify_token.clone(),
    )
}

/// Returns the key of a call event (`docs/reference/meta.md#duplicates`).
fn call_event(event: &str, key: &CallKey) -> u128 {
    key_of(&[event.as_bytes(), of(&key.phone_number_id), of(&key.wacid)])
}

fn tombstone(key: &CallKey) -> u128 {
    call_event("tombstone", key)
}

fn of(id: &impl AsRef<str>) -> &[u8] {
    id.as_ref().as_bytes()
}

/// Logs a connect webhook that names another business number than the one it was sent for (`docs/reference/meta.md#connect-parties`).
fn log_difference(connect: &Connect, number: &NumberEntry) {
    if connect.to.as_deref().is_some_and(|to| to != number.spec.number.as_str()) {
        tracing::debug!(number = %number.spec.number, wacid = %connect.key.wacid, "connect webhook names another business number");
    }
}
