//! Assigns Meta's webhooks to outbound calls.
//!
//! Meta's call id is known when Graph answers `connect`, and webhooks may arrive before that. A
//! webhook that names the call in its opaque data binds the id immediately; any other is parked
//! until the id is known, for up to T_park. A call that appears at Meta but no longer exists here
//! is ended there. See `docs/reference/meta.md#races`.
//!
//! This module does not depend on tokio: `registry` provides the live calls, and `tests/simulation`
//! simulated ones.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use serde::{Deserialize, Serialize};
use tracing::{error, info};

use machine::{CallSetup, Input, PhoneStatus, Termination};
use media::sdp::Offer;
use model::Secret;
use model::metric;
use model::{CallUuid, Direction, PhoneNumberId, Wacid};
use store::PlacedCall;

/// Identifies a call at Meta.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CallKey {
    pub phone_number_id: PhoneNumberId,
    /// Meta's id of the call.
    pub wacid: Wacid,
}

/// T_park: how long an event waits until its call is known (`docs/reference/meta.md#t-park`).
const PARK: Duration = Duration::from_secs(10);
/// Maximum number of parked events. A call has about four.
const PARKED_MAX: usize = 4_096;
/// Time within which an ended call without a known id may still appear at Meta.
const ENDED_KEPT: Duration = Duration::from_secs(60);

/// An event that Meta reports for a call after its start. Only outbound calls have the first two.
#[derive(Clone, Debug)]
pub enum CallEvent {
    /// Meta's SDP answer. `None` if it is unusable.
    Answer(Option<Box<Offer>>),
    Status(PhoneStatus),
    Terminated(Termination),
}

impl CallEvent {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Answer(_) => "answer",
            Self::Status(_) => "status",
            Self::Terminated(_) => "terminate",
        }
    }
}

/// How an event of a call was handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    Delivered,
    /// The call is past the state that the event reports, or has ended.
    Late,
    /// The call is not known yet.
    Parked,
    /// The call's mailbox is full.
    Full,
}

/// The state of a call at Meta: its id and the state of the user's phone.
#[derive(Debug, Default)]
pub struct MetaState {
    wacid: OnceLock<Wacid>,
    /// Whether Meta's id is still expected.
    awaited: AtomicBool,
    /// Rank of the latest status that changed the phone's state, from 1. 0 before the first status.
    phone: AtomicU8,
}

impl MetaState {
    /// Creates the state of a call. `wacid` is `None` if the id is not known yet.
    pub fn new(wacid: Option<Wacid>) -> Self {
        Self { wacid: wacid.map(OnceLock::from).unwrap_or_default(), ..Self::default() }
    }

    /// Creates the state of a call that another process has handed over. `phone_rank` is that of
    /// [`MetaState::phone_rank`].
    pub(super) fn resumed(wacid: Option<Wacid>, phone_rank: u8) -> Self {
        Self { phone: AtomicU8::new(phone_rank), ..Self::new(wacid) }
    }

    /// Returns Meta's id of the call, if it is known.
    pub fn wacid(&self) -> Option<&Wacid> {
        self.wacid.get()
    }

    /// Rank of the latest status that changed the phone's state, or 0.
    pub(super) fn phone_rank(&self) -> u8 {
        self.phone.load(Ordering::Acquire)
    }

    /// Records a status. Returns whether it is newer than all earlier ones.
    fn moves_to(&self, status: PhoneStatus) -> bool {
        let rank = match status {
            PhoneStatus::Ringing => 1,
            PhoneStatus::Accepted | PhoneStatus::Rejected => 2,
        };
        self.phone.fetch_max(rank, Ordering::AcqRel) < rank
    }
}

/// A live call that receives events from Meta.
pub trait Party {
    /// The call's setup.
    fn setup(&self) -> &CallSetup;

    /// The state of the call at Meta.
    fn at_meta(&self) -> &MetaState;

    /// The access token for Graph requests about this call.
    fn token(&self) -> Option<Secret>;

    /// Whether the call has ended and waits only for Meta's `terminate`.
    fn is_closing(&self) -> bool;

    /// Whether the call still reads its mailbox.
    fn is_open(&self) -> bool;

    /// Puts an input into the call's mailbox. Returns `false` if the mailbox is closed or full.
    fn tell(&self, input: Input) -> bool;

    /// Puts Meta's answer to our offer into the mailbox. Returns `false` like [`Party::tell`].
    fn answer(&self, answer: Box<Offer>) -> bool;
}

/// The live calls and access to Graph. No method may block or wait.
pub trait Parties {
    type Party: Party;

    /// Looks up a live call.
    fn get(&self, call: CallUuid) -> Option<Arc<Self::Party>>;

    /// Ends a call at Meta that does not exist here or no longer exists. The request is retried
    /// until Graph confirms it. `late` is the ended call that the id belongs to, so that the id can
    /// be stored with it.
    fn end_at_meta(&self, key: CallKey, token: Option<Secret>, late: Option<CallUuid>);
}

/// An outbound call that has ended.
struct EndedCall {
    since: Instant,
    number: PhoneNumberId,
    token: Option<Secret>,
    /// Meta's id of the ended call. `None` if it never became known.
    wacid: Option<Wacid>,
}

/// Maps Meta's call ids to calls of this node, and parks events of unknown calls.
#[derive(Default)]
pub struct Bindings {
    by_key: DashMap<CallKey, CallUuid>,
    /// Number of calls that wait for their id.
    unnamed: AtomicUsize,
    parked: Mutex<VecDeque<(Instant, CallKey, CallEvent)>>,
    left: DashMap<CallUuid, EndedCall>,
    /// Keys of `left`, oldest first.
    leaving: Mutex<VecDeque<(Instant, CallUuid)>>,
}

impl Bindings {
    /// Registers a call.
    pub fn enter(&self, call: &impl Party, now: Instant) {
        match call.at_meta().wacid() {
            Some(wacid) => drop(self.claim(key_of(call, wacid), call.setup().call, now)),
            None => {
                call.at_meta().awaited.store(true, Ordering::Release);
                self.unnamed.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Removes a call after its end.
    pub fn leave(&self, call: &impl Party, now: Instant) {
        let (setup, wacid) = (call.setup(), call.at_meta().wacid());
        if setup.direction == Direction::Outbound {
            let (phone_number_id, wacid) = (setup.phone_number_id.clone(), wacid.cloned());
            self.remember(
                PlacedCall { call: setup.call, phone_number_id, wacid },
                call.token(),
                now,
            );
        }
        self.expect_no_more(call);
        if let Some(wacid) = wacid {
            self.forget(&key_of(call, wacid), setup.call);
        }
    }

    /// Whether no call is registered or waits for its id.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.unnamed.load(Ordering::Acquire) == 0
    }

    /// Whether a call with this id of Meta's is registered.
    pub fn has(&self, key: &CallKey) -> bool {
        self.by_key.contains_key(key)
    }

    /// Binds the id that Graph returned for an outbound call. If the call already has another id or
    /// has ended, the call at Meta is ended.
    pub fn bind<C: Parties>(&self, calls: &C, call: &C::Party, wacid: Wacid, now: Instant) {
        if !self.takes(call, &wacid, now) {
            end_stray(calls, call, &wacid);
        }
    }

    /// Whether `wacid` is the id of this call at Meta and the call handles its events.
    fn takes(&self, call: &impl Party, wacid: &Wacid, now: Instant) -> bool {
        let is_news = call.at_meta().wacid().is_none();
        self.name(call, wacid, now) && (call.is_open() || !is_news)
    }

    /// Sets the call's id unless it has one. Returns whether `wacid` is now the call's id.
    fn name(&self, call: &impl Party, wacid: &Wacid, now: Instant) -> bool {
        let mut first = false;
        let known = call.at_meta().wacid.get_or_init(|| {
            first = true;
            wacid.clone()
        });
        if first {
            // The input precedes the entry in `by_key`, so no event overtakes it.
            call.tell(Input::Bound { wacid: wacid.clone() });
            let key = key_of(call, wacid);
            let waited = self.claim(key.clone(), call.setup().call, now);
            self.expect_no_more(call);
            for event in waited {
                tell(call, event);
            }
            if !call.is_open() {
                self.forget(&key, call.setup().call);
            }
        }
        known == wacid
    }

    /// Delivers an event of an outbound call. `named` is the call in the event's opaque data.
    pub fn event<C: Parties>(
        &self,
        calls: &C,
        key: &CallKey,
        named: Option<CallUuid>,
        event: CallEvent,
        now: Instant,
    ) -> EventOutcome {
        let ends = matches!(event, CallEvent::Terminated(_));
        let found = match self.find(key) {
            Some(call) => calls.get(call),
            None => named.and_then(|call| calls.get(call)).filter(|call| {
                let setup = call.setup();
                setup.direction == Direction::Outbound
                    && setup.phone_number_id == key.phone_number_id
            }),
        };
        if let Some(call) = &found
            && !self.takes(&**call, &key.wacid, now)
        {
            // Meta made a second call for this one, or the call's task has ended. The call must not
            // receive the event.
            if !ends {
                end_stray(calls, &**call, &key.wacid);
            }
            return EventOutcome::Late;
        }
        match found.or_else(|| calls.get(self.park(key, &event, now)?)) {
            Some(call) => tell(&*call, event),
            None => {
                if !ends {
                    self.end_ended(calls, key, named, now);
                }
                EventOutcome::Parked
            }
        }
    }

    /// Remembers an ended outbound call, of this process or an earlier one. If this call or a
    /// second one with its opaque data appears at Meta within a minute, it is ended there.
    pub fn remember(&self, placed: PlacedCall, token: Option<Secret>, now: Instant) {
        let PlacedCall { call, phone_number_id: number, wacid } = placed;
        self.left.insert(call, EndedCall { since: now, number, token, wacid });
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.push_back((now, call));
        while let Some((_, old)) =
            leaving.pop_front_if(|(at, _)| now.saturating_duration_since(*at) >= ENDED_KEPT)
        {
            self.left.remove(&old);
        }
    }

    /// Ends a call at Meta if it belongs to an ended call of this node.
    fn end_ended(
        &self,
        calls: &impl Parties,
        key: &CallKey,
        named: Option<CallUuid>,
        now: Instant,
    ) {
        let young = |left: &EndedCall| {
            left.number == key.phone_number_id
                && now.saturating_duration_since(left.since) < ENDED_KEPT
        };
        let Some(call) = named else { return };
        let (token, late) = match self.left.get_mut(&call) {
            Some(mut left) if young(&left) && left.wacid.as_ref() != Some(&key.wacid) => {
                let late = left.wacid.is_none();
                left.wacid.get_or_insert_with(|| key.wacid.clone());
                (left.token.clone(), late.then_some(call))
            }
            _ => return,
        };
        info!(call_uuid = %call, "call that was given up has started at Meta; ending it");
        calls.end_at_meta(key.clone(), token, late);
    }

    fn find(&self, key: &CallKey) -> Option<CallUuid> {
        self.by_key.get(key).map(|call| *call.value())
    }

    /// Maps `key` to `call`. Returns the parked events of that key, in order.
    fn claim(&self, key: CallKey, call: CallUuid, now: Instant) -> Vec<CallEvent> {
        self.by_key.insert(key.clone(), call);
        if self.unnamed.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut parked, now);
        let (mine, others) =
            std::mem::take(&mut *parked).into_iter().partition(|(_, of, _)| *of == key);
        *parked = others;
        let mine: VecDeque<(Instant, CallKey, CallEvent)> = mine;
        mine.into_iter().map(|(_, _, event)| event).collect()
    }

    fn forget(&self, key: &CallKey, call: CallUuid) {
        self.by_key.remove_if(key, |_, of| *of == call);
    }

    /// Parks an event if some call still waits for its id. Returns the call if the key has become
    /// known in the meantime.
    fn park(&self, key: &CallKey, event: &CallEvent, now: Instant) -> Option<CallUuid> {
        if self.unnamed.load(Ordering::Acquire) == 0 {
            return self.find(key);
        }
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        // `claim` inserts the key before it takes this lock, so checking again under the lock
        // misses no event.
        if let Some(call) = self.find(key) {
            return Some(call);
        }
        forget(&mut parked, now);
        if parked.len() < PARKED_MAX {
            parked.push_back((now, key.clone(), event.clone()));
        } else {
            crate::count_refused(metric::queue::PARKED);
        }
        None
    }

    /// Marks the call's id as no longer expected.
    fn expect_no_more(&self, call: &impl Party) {
        if call.at_meta().awaited.swap(false, Ordering::AcqRel) {
            self.unnamed.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn key_of(call: &impl Party, wacid: &Wacid) -> CallKey {
    CallKey { phone_number_id: call.setup().phone_number_id.clone(), wacid: wacid.clone() }
}

/// Ends a call at Meta whose opaque data names a live call with another id. Graph can create a
/// second call when a `connect` is retried after a lost response, or can answer after the call has
/// ended.
fn end_stray<C: Parties>(calls: &C, call: &C::Party, wacid: &Wacid) {
    error!(call_uuid = %call.setup().call, "ending a call at Meta that belongs to no call of this node");
    calls.end_at_meta(key_of(call, wacid), call.token(), None);
}

/// Delivers an event to its call.
fn tell(call: &impl Party, event: CallEvent) -> EventOutcome {
    let delivered = match event {
        CallEvent::Answer(_) | CallEvent::Status(_) if call.is_closing() => {
            return EventOutcome::Late;
        }
        CallEvent::Answer(Some(answer)) => call.answer(answer),
        CallEvent::Answer(None) => call.tell(Input::SdpAnswer { usable: false }),
        CallEvent::Status(status) if !call.at_meta().moves_to(status) => return EventOutcome::Late,
        CallEvent::Status(status) => call.tell(Input::Status { status }),
        CallEvent::Terminated(termination) => call.tell(Input::Terminated { termination }),
    };
    match delivered {
        true => EventOutcome::Delivered,
        false if call.is_open() => EventOutcome::Full,
        false => EventOutcome::Late,
    }
}

fn forget(parked: &mut VecDeque<(Instant, CallKey, CallEvent)>, now: Instant) {
    while let Some((at, CallKey { phone_number_id: number, .. }, event)) = parked.front()
        && now.saturating_duration_since(*at) >= PARK
    {
        tracing::debug!(%number, event = event.as_str(), "parked event expired without a call");
        parked.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{Bindings, CallEvent, CallKey, PARK, PARKED_MAX};
    use machine::{PhoneStatus, Termination};
    use model::Clock;
    use model::{CallUuid, Timestamp};

    fn key(wacid: &str) -> CallKey {
        CallKey { phone_number_id: "106540352242922".into(), wacid: wacid.into() }
    }

    #[test]
    fn events_before_the_id_are_parked_in_order_for_ten_seconds() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let (bindings, call) = (Bindings::default(), CallUuid(uuid::Uuid::from_u128(1)));
        let ringing = CallEvent::Status(PhoneStatus::Ringing);
        assert_eq!(bindings.park(&key("a"), &ringing, clock.now()), None);
        bindings.unnamed.fetch_add(1, Ordering::AcqRel);
        assert!(
            bindings.claim(key("a"), call, clock.now()).is_empty(),
            "no call was expected then"
        );
        bindings.forget(&key("a"), call);

        let over = CallEvent::Terminated(Termination::default());
        for (wacid, event) in [("a", &ringing), ("b", &ringing), ("a", &over)] {
            assert_eq!(bindings.park(&key(wacid), event, clock.now()), None);
        }
        let waited = bindings.claim(key("a"), call, clock.now());
        assert!(
            matches!(waited.as_slice(), [CallEvent::Status(_), CallEvent::Terminated(_)]),
            "{waited:?}"
        );
        assert_eq!(bindings.park(&key("a"), &over, clock.now()), Some(call), "known by now");
        clock.step(PARK);
        assert!(bindings.claim(key("b"), call, clock.now()).is_empty(), "too late");
    }

    #[test]
    fn parked_events_are_bounded() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let bindings = Bindings::default();
        bindings.unnamed.fetch_add(1, Ordering::AcqRel);
        for n in 0..PARKED_MAX + 10 {
            bindings.park(&key(&n.to_string()), &CallEvent::Answer(None), clock.now());
        }
        assert_eq!(bindings.parked.lock().unwrap().len(), PARKED_MAX);
    }
}
