//! What becomes of an item: duplicates, tombstones, age, then the gate and the calls (`meta-calling.md` §2.8, §7).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use super::calls::{Busy, Calls, Full, Heard, Incoming, Known, Said};
use super::decode::{self, BadJson};
use super::dedupe::{Seen, key_of};
use super::effect::{Effect, Handled, Tally, count};
use super::items::{CallKey, Connect, Item, PermissionReply, Sdp, What};
use super::kind::Kind;
use super::verify::Secrets;
use crate::admission::permission::{Consents, PairKey, Stored};
use crate::admission::{Gate, NumberEntry, Pressure, Reason, Refused};
use crate::inbox::{self, Inbox, StatusTold, UserMessage};
use crate::numbers::MetaEvent;
use machine::Termination;
use model::Clock;
use model::Secret;
use model::metric;
use model::{CallUuid, Direction, PhoneNumberId, Timestamp, Wacid};
use store::{KeyKind, SeenKey};

/// What the door must know of Meta.
#[derive(Clone, Debug)]
pub struct DoorConfig {
    pub app_secret: Secret,
    pub app_secret_previous: Option<Secret>,
    pub verify_token: Secret,
}

/// What keeps the keys of events for the process after this one. Nothing here may block or wait.
pub trait Ledger: Send + Sync {
    /// A key was seen for the first time.
    fn note(&self, key: u128, kind: KeyKind, seen: Timestamp);

    /// It is taken back: the event could not be acted upon, and will come again.
    fn forget(&self, key: u128);
}

/// The webhook's door: one per node.
pub struct Door<C> {
    calls: C,
    gate: Arc<Gate>,
    pub(super) clock: Clock,
    secrets: ArcSwap<Secrets>,
    /// Bytes of the bodies that are being read.
    pub(super) reading: AtomicUsize,
    events: Seen,
    changes: Seen,
    tombstones: Seen,
    ledger: Option<Arc<dyn Ledger>>,
    consents: Option<Arc<Consents>>,
    inbox: Option<Inbox>,
    pressure: Option<Arc<Pressure>>,
    changes_heard: Option<ChangesHeard>,
}

/// Told what Meta says of numbers and WABAs. It may neither block nor wait.
pub type ChangesHeard = Box<dyn Fn(MetaEvent) + Send + Sync>;

/// Something of a body that the 200 has to wait for: its key, and when it is on the disk (`meta-calling.md` §2.5).
pub struct Waiting {
    key: u128,
    stored: Stored,
    /// Of the item that it is of; set once the item has been looked at.
    tally: Option<Arc<Tally>>,
}

#[cfg(test)]
impl Waiting {
    /// Messages of one item, of which these are stored or not.
    pub(super) fn all_of(stored: &[bool]) -> Vec<Self> {
        let tally = Arc::new(Tally {
            kind: "messages.text",
            effect: Effect::MessageStored,
            busy: AtomicBool::new(false),
        });
        let one = |stored: &bool| {
            let stored = *stored;
            Self { key: 7, stored: Box::pin(async move { stored }), tally: Some(tally.clone()) }
        };
        stored.iter().map(one).collect()
    }
}

const DAY: Duration = Duration::from_secs(86_400);
/// How long a key of calls and messages is kept, and how many: Meta redelivers for a week (§2.7). 500,000 keys are
/// under 30 MB and six hours of a node under rated load; an older connect is `stale` anyway.
const EVENTS_KEPT: (Duration, usize) = (Duration::from_secs(7 * 86_400), 500_000);
/// The same of account events, which are rare.
const CHANGES_KEPT: (Duration, usize) = (DAY, 20_000);
/// T_tomb: how long a terminate without its call bars the connect that comes after it (§7.3).
const TOMBSTONES_KEPT: (Duration, usize) = (Duration::from_secs(600), 100_000);
/// A connect older than that is `stale`, in seconds: nobody listens any more.
const CONNECT_AGE_MAX: i64 = 60;
/// A connect further ahead of our clock than that is `stale` too, in seconds.
const CONNECT_AHEAD_MAX: i64 = 300;

/// For so long after a call began its connect may come again and not be `stale`.
pub const CONNECT_AGAIN: Duration =
    Duration::from_secs((CONNECT_AGE_MAX + CONNECT_AHEAD_MAX).unsigned_abs());

impl<C: Calls> Door<C> {
    /// A door in front of `calls` and `gate`.
    pub fn new(calls: C, gate: Arc<Gate>, clock: Clock, config: &DoorConfig) -> Self {
        let seen = |(ttl, capacity)| Seen::new(ttl, capacity);
        Self {
            calls,
            gate,
            clock,
            secrets: ArcSwap::from_pointee(secrets(config)),
            reading: AtomicUsize::new(0),
            events: seen(EVENTS_KEPT),
            changes: seen(CHANGES_KEPT),
            tombstones: seen(TOMBSTONES_KEPT),
            ledger: None,
            consents: None,
            inbox: None,
            pressure: None,
            changes_heard: None,
        }
    }

    /// What Meta and we both know, as it stands for the next request.
    pub(super) fn secrets(&self) -> Arc<Secrets> {
        self.secrets.load_full()
    }

    /// From the next request on these count.
    pub fn replace_secrets(&self, config: &DoorConfig) {
        self.secrets.store(Arc::new(secrets(config)));
    }

    /// Takes the connect of a call as seen: the process before this one began the call, and Meta may say it once more
    /// (R5). Calls older than [`CONNECT_AGAIN`] need not be remembered.
    pub fn remember(&self, key: CallKey) {
        self.events.claim(call_event("connect", &key), self.clock.now());
    }

    /// Notes keys for the process after this one.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<dyn Ledger>) -> Self {
        self.ledger = Some(ledger);
        self
    }

    /// Takes users' answers to permission requests in.
    #[must_use]
    pub fn with_consents(mut self, consents: Arc<Consents>) -> Self {
        self.consents = Some(consents);
        self
    }

    /// Has somebody told what Meta says of numbers.
    #[must_use]
    pub fn with_changes(mut self, heard: ChangesHeard) -> Self {
        self.changes_heard = Some(heard);
        self
    }

    /// Keeps what users write.
    #[must_use]
    pub fn with_inbox(mut self, inbox: Inbox) -> Self {
        self.inbox = Some(inbox);
        self
    }

    /// Sheds webhooks where that says so.
    #[must_use]
    pub fn with_pressure(mut self, pressure: Arc<Pressure>) -> Self {
        self.pressure = Some(pressure);
        self
    }

    /// Whether a further webhook is looked at, or Meta is asked to come again.
    pub(super) fn accepts_webhook(&self) -> bool {
        self.pressure.as_ref().is_none_or(|pressure| pressure.accepts_webhook())
    }

    /// Remembers what an earlier process noted. The newest come first; `false`: there is no room for older ones.
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

    /// Who runs the calls.
    pub fn calls(&self) -> &C {
        &self.calls
    }

    /// [`Door::deliver_received`] of a body that comes just now.
    ///
    /// # Errors
    /// The same.
    pub fn deliver(&self, body: &[u8], each: impl FnMut(Handled)) -> Result<(), BadJson> {
        self.deliver_received(self.clock.now(), body, each).map(drop)
    }

    /// Carries out a signed body, item by item, and tells what became of each. Its request came at `received`. What
    /// comes back is to be waited for before the answer.
    ///
    /// # Errors
    /// The body is not JSON; nothing has happened.
    pub fn deliver_received(
        &self,
        received: Instant,
        body: &[u8],
        mut each: impl FnMut(Handled),
    ) -> Result<Vec<Waiting>, BadJson> {
        let mut waiting = Vec::<Waiting>::new();
        decode::decode(body, |item| {
            let before = waiting.len();
            let Item { kind, id, what } = item;
            let effect = match what {
                What::Permission(reply) => self.permission(*reply, &mut waiting),
                What::Message { phone_number_id, said } => {
                    self.message(&phone_number_id, *said, &mut waiting)
                }
                What::MessageStatus { phone_number_id, told } => {
                    self.message_status(&phone_number_id, *told, &mut waiting)
                }
                what => self.item(&kind, what, received),
            };
            let tally =
                Arc::new(Tally { kind: kind.label(), effect, busy: AtomicBool::new(false) });
            waiting.iter_mut().skip(before).for_each(|one| one.tally = Some(tally.clone()));
            each(Handled { kind, id, effect });
        })?;
        Ok(waiting)
    }

    /// Waits until all of a body is on the disk, at most so long. `false`: something is not, and is to come again.
    pub(super) async fn settle(&self, waiting: Vec<Waiting>, at_most: Duration) -> bool {
        let all = waiting.into_iter().map(|one| async move {
            let stored = tokio::time::timeout(at_most, one.stored).await.unwrap_or(false);
            if !stored {
                self.unclaim(one.key);
                if let Some(tally) = &one.tally {
                    tally.busy.store(true, Ordering::Relaxed);
                }
            }
            stored
        });
        futures_util::future::join_all(all).await.into_iter().all(|stored| stored)
    }

    /// Stored with all that reports it, before the 200.
    fn kept(
        &self,
        number: &PhoneNumberId,
        key: u128,
        effect: Effect,
        waiting: &mut Vec<Waiting>,
        keep: impl FnOnce(&Inbox, &Arc<NumberEntry>) -> Result<Option<inbox::Stored>, inbox::Full>,
    ) -> Effect {
        let now = self.clock.now();
        let (Some(entry), Some(inbox)) = (self.gate.directory().number(number), &self.inbox) else {
            return self.once(number, key, now, effect);
        };
        if !self.events.claim(key, now) {
            return Effect::Duplicate;
        }
        match keep(inbox, &entry) {
            Ok(stored) => {
                // Behind the message in the store's queue: a key that is kept stands for a message that is.
                self.note(key);
                waiting.extend(stored.map(|stored| Waiting { key, stored, tally: None }));
                effect
            }
            Err(inbox::Full) => {
                self.events.forget(key);
                Effect::Busy
            }
        }
    }

    fn message(
        &self,
        number: &PhoneNumberId,
        said: UserMessage,
        waiting: &mut Vec<Waiting>,
    ) -> Effect {
        let key = key_of(&[b"message", of(number), said.wamid.as_bytes()]);
        self.kept(number, key, Effect::MessageStored, waiting, |inbox, entry| {
            inbox.came(entry, said)
        })
    }

    fn message_status(
        &self,
        number: &PhoneNumberId,
        told: StatusTold,
        waiting: &mut Vec<Waiting>,
    ) -> Effect {
        let code = told.error.as_ref().map(|(code, _)| code.to_string()).unwrap_or_default();
        let words =
            [of(number), told.wamid.as_bytes(), told.status.as_str().as_bytes(), code.as_bytes()];
        let key = key_of(&[&[b"message status".as_slice()], words.as_slice()].concat());
        self.kept(number, key, Effect::MessageStatusApplied, waiting, |inbox, entry| {
            inbox.status(entry, told).map(Some)
        })
    }

    fn permission(&self, said: PermissionReply, waiting: &mut Vec<Waiting>) -> Effect {
        let now = self.clock.now();
        let key = key_of(&[b"message", of(&said.phone_number_id), said.id.as_bytes()]);
        let (Some(number), Some(consents)) =
            (self.gate.directory().number(&said.phone_number_id), &self.consents)
        else {
            return self.once(&said.phone_number_id, key, now, Effect::Ignored);
        };
        if !self.events.claim(key, now) {
            return Effect::Duplicate;
        }
        let pair = PairKey::new(&said.phone_number_id, &said.user);
        let (rules, at) = (&number.spec.permissions, said.timestamp.map(Timestamp::from_secs));
        let Ok(taken) = consents.reply(&pair, rules, self.clock.steady(), at, said.reply, &said.id)
        else {
            self.events.forget(key);
            return Effect::Busy;
        };
        // Behind the reply in the store's queue: a key that is kept stands for a reply that is.
        self.note(key);
        waiting.extend(taken.stored.map(|stored| Waiting { key, stored, tally: None }));
        if let Some(inbox) = &self.inbox {
            // The reply is a message too; what the user allows is kept without it, so that a full queue costs no more.
            match inbox.came(&number, said.said) {
                Ok(stored) => {
                    waiting.extend(stored.map(|stored| Waiting { key, stored, tally: None }))
                }
                Err(inbox::Full) => {
                    tracing::warn!("there is no room for a permission reply in its conversation")
                }
            }
        }
        if taken.changed { Effect::PermissionUpdated } else { Effect::MessageStored }
    }

    /// Counts an effect of an item, or of a whole body as kind `body`.
    pub(super) fn count(&self, kind: &Kind, effect: Effect) {
        count(kind.label(), effect);
    }

    fn item(&self, kind: &Kind, what: What, received: Instant) -> Effect {
        let now = self.clock.now();
        match what {
            What::Connect(connect) => self.connect(*connect, now, received),
            What::Terminate { key, named, termination } => {
                self.terminate(&key, named, termination, now)
            }
            What::Status { key, named, status } => {
                let id = key_of(&[
                    b"status",
                    of(&key.phone_number_id),
                    of(&key.wacid),
                    status.as_str().as_bytes(),
                ]);
                match self.once(&key.phone_number_id, id, now, Effect::StatusApplied) {
                    Effect::StatusApplied => {
                        let effect = self.placed(&key, named, Said::Status(status), now);
                        if effect == Effect::Busy {
                            self.unclaim(id);
                        }
                        effect
                    }
                    other => other,
                }
            }
            What::Change { digest, heard } if self.changes.claim(key_of(&[&digest]), now) => {
                tracing::info!(kind = kind.label(), "Meta reports a change of the account");
                self.changed(heard)
            }
            What::Change { .. } => Effect::Duplicate,
            // Taken in by the one who asks, which has something to wait for.
            What::Permission(_)
            | What::Message { .. }
            | What::MessageStatus { .. }
            | What::Ignored => Effect::Ignored,
            What::Malformed => Effect::Malformed,
        }
    }

    /// Meta says something about a number or a WABA.
    fn changed(&self, heard: Option<Box<MetaEvent>>) -> Effect {
        let (Some(heard), Some(hear)) = (heard, &self.changes_heard) else {
            return Effect::Ignored;
        };
        let effect = match *heard {
            MetaEvent::Settings { .. } => Effect::SettingsNoted,
            MetaEvent::Number { .. } | MetaEvent::Waba { .. } | MetaEvent::TokenRefused { .. } => {
                Effect::AccountNoted
            }
        };
        hear(*heard);
        effect
    }

    /// Whether an event is the first of its key; if so, the key is noted.
    fn claim(&self, key: u128, now: Instant) -> bool {
        let first = self.events.claim(key, now);
        if first {
            self.note(key);
        }
        first
    }

    /// Notes an event's key for the process after this one.
    fn note(&self, key: u128) {
        if let Some(ledger) = &self.ledger {
            ledger.note(key, KeyKind::Event, self.clock.wall());
        }
    }

    fn unclaim(&self, key: u128) {
        self.events.forget(key);
        if let Some(ledger) = &self.ledger {
            ledger.forget(key);
        }
    }

    /// Tells a call that we placed.
    fn placed(
        &self,
        key: &CallKey,
        named: Option<CallUuid>,
        said: Said<C::Offer>,
        now: Instant,
    ) -> Effect {
        if self.tombstones.contains(tombstone(key), now) {
            return Effect::Late;
        }
        let applied = match &said {
            Said::Answer(Some(_)) => Effect::AnswerApplied,
            Said::Answer(None) => Effect::AnswerBad,
            Said::Status(_) => Effect::StatusApplied,
        };
        match self.calls.placed(key, named, said) {
            Heard::Yes => applied,
            Heard::Late => Effect::Late,
            Heard::Parked => Effect::Parked,
            Heard::Busy => Effect::Busy,
        }
    }

    /// An event of this key: what it is, if it is new and the number ours.
    fn once(&self, number: &PhoneNumberId, key: u128, now: Instant, effect: Effect) -> Effect {
        if !self.claim(key, now) {
            Effect::Duplicate
        } else if self.gate.directory().number(number).is_none() {
            Effect::UnknownNumber
        } else {
            effect
        }
    }

    fn connect(&self, connect: Connect, now: Instant, received: Instant) -> Effect {
        let key = call_event("connect", &connect.key);
        if !self.events.claim(key, now) {
            if connect.direction == Direction::Inbound {
                self.gate.count(Direction::Inbound, Reason::Duplicate.as_str());
            }
            return Effect::Duplicate;
        }
        let effect = self.connected(connect, now, received);
        // Noted when its effect is known: what is put off in overload comes again and again, and costs the store nothing.
        // A call that began is remembered by its beginning, should the process end just here.
        match effect {
            Effect::Busy => self.events.forget(key),
            _ => self.note(key),
        }
        effect
    }

    /// A connect that was not seen before.
    fn connected(&self, connect: Connect, now: Instant, received: Instant) -> Effect {
        if self.tombstones.contains(tombstone(&connect.key), now) {
            return Effect::Late;
        }
        let wall = self.clock.wall();
        let age = connect.timestamp.map_or(0, |then| wall.secs().saturating_sub(then));
        if !(-CONNECT_AHEAD_MAX..=CONNECT_AGE_MAX).contains(&age) {
            return Effect::Stale;
        }
        match connect.direction {
            Direction::Inbound => self.admit(connect, received, now, wall),
            Direction::Outbound
                if self.gate.directory().number(&connect.key.phone_number_id).is_none() =>
            {
                Effect::UnknownNumber
            }
            Direction::Outbound => {
                let answer = self.read(&connect.sdp);
                self.placed(&connect.key, connect.named, Said::Answer(answer), now)
            }
        }
    }

    fn read(&self, sdp: &Sdp) -> Option<C::Offer> {
        match sdp {
            Sdp::Given(sdp) => self.calls.read_offer(sdp),
            Sdp::Bad => None,
        }
    }

    fn admit(&self, connect: Connect, received: Instant, now: Instant, wall: Timestamp) -> Effect {
        let key = connect.key.clone();
        let offer = || {
            let room = self.calls.room(&key.phone_number_id).ok_or(Reason::Overloaded)?;
            self.read(&connect.sdp).map(|offer| (room, offer)).ok_or(Reason::BadOffer)
        };
        match self.gate.admit(now, &key.phone_number_id, Direction::Inbound, offer) {
            Ok((admitted, (room, offer))) => {
                let number = admitted.number().clone();
                log_difference(&connect, &number);
                let incoming =
                    Incoming { connect, offer, received, arrived: now, arrived_wall: wall };
                if let Err(Busy(admitted)) = self.calls.start(room, admitted, incoming) {
                    admitted.withdraw();
                    self.gate.count(Direction::Inbound, Reason::Overloaded.as_str());
                    return self.reject(&number, key.wacid, Reason::Overloaded);
                }
                self.gate.count(Direction::Inbound, metric::admission::ADMITTED);
                // Its terminate may have come while it was being started, and found nothing to end.
                if self.tombstones.contains(tombstone(&key), now) {
                    self.calls.terminated(&key, None, Termination::default());
                }
                Effect::Admitted
            }
            Err(Refused { reason, number: Some(number) }) => {
                self.reject(&number, key.wacid, reason)
            }
            Err(Refused { number: None, .. }) => Effect::UnknownNumber,
        }
    }

    fn reject(&self, number: &Arc<NumberEntry>, wacid: Wacid, reason: Reason) -> Effect {
        match self.calls.reject(number, wacid, reason) {
            Ok(()) => Effect::Rejected(reason),
            Err(Full) => Effect::Busy,
        }
    }

    fn terminate(
        &self,
        key: &CallKey,
        named: Option<CallUuid>,
        termination: Termination,
        now: Instant,
    ) -> Effect {
        let event = call_event("terminate", key);
        if !self.claim(event, now) {
            return Effect::Duplicate;
        }
        let mut known = self.calls.terminated(key, named, termination.clone());
        if known == Known::Unknown {
            // Asked again behind the tombstone: a call that is being started meanwhile sees one or the other. Where its
            // connect was seen, the next process needs none: the connect that could come then is a copy.
            if self.tombstones.claim(tombstone(key), now)
                && !self.events.contains(call_event("connect", key), now)
                && let Some(ledger) = &self.ledger
            {
                ledger.note(tombstone(key), KeyKind::Tombstone, self.clock.wall());
            }
            known = self.calls.terminated(key, named, termination);
        }
        match known {
            Known::Ended => Effect::Ended,
            Known::Unknown if self.gate.directory().number(&key.phone_number_id).is_none() => {
                Effect::UnknownNumber
            }
            Known::Unknown => Effect::Late,
            Known::Busy => {
                self.unclaim(event);
                Effect::Busy
            }
        }
    }
}

fn secrets(config: &DoorConfig) -> Secrets {
    Secrets::new(
        &config.app_secret,
        config.app_secret_previous.as_ref(),
        config.verify_token.clone(),
    )
}

/// The key of an event of a call (`meta-calling.md` §2.7).
fn call_event(event: &str, key: &CallKey) -> u128 {
    key_of(&[event.as_bytes(), of(&key.phone_number_id), of(&key.wacid)])
}

fn tombstone(key: &CallKey) -> u128 {
    call_event("tombstone", key)
}

fn of(id: &impl AsRef<str>) -> &[u8] {
    id.as_ref().as_bytes()
}

/// Says once a call that Meta names another number than the one it is for (`meta-calling.md` §3.2.2).
fn log_difference(connect: &Connect, number: &NumberEntry) {
    if connect.to.as_deref().is_some_and(|to| to != number.spec.number.as_str()) {
        tracing::debug!(number = ?number.spec.number, wacid = %connect.key.wacid, "the connect names another callee");
    }
}
