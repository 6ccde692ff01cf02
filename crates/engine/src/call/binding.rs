//! Which of our calls a webhook of Meta's is about, where the call is one that we placed (`meta-calling.md` §7.3).
//!
//! Meta's id is known once Graph has answered `connect`; webhooks may come before. One that names our call ties the two
//! together at once; any other waits here for the id, a moment, and is forgotten then. What turns up at Meta and is no
//! call of ours any more is ended there. Decided without tokio: `registry` has the calls, `tests/simulation` others.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tracing::{error, info};

use machine::{CallSetup, Input, PhoneStatus, Termination};
use media::sdp::Offer;
use model::Secret;
use model::metric;
use model::{CallUuid, Direction, PhoneNumberId, Wacid};
use store::PlacedCall;

/// Meta's name of a call: its id, at one number.
pub type CallKey = (PhoneNumberId, Wacid);

/// T_park (`meta-calling.md` §7).
const PARK: Duration = Duration::from_secs(10);
/// Events that may wait; a call has four.
const PARKED_MAX: usize = 4_096;
/// How long a call may turn up of which nothing was known when it left (`meta-calling.md` §7.2).
const LEFT_MAX: Duration = Duration::from_secs(60);

/// What Meta says about a call that we placed.
#[derive(Clone, Debug)]
pub enum CallEvent {
    /// Its SDP answer; none: it is unusable.
    Answer(Option<Box<Offer>>),
    Status(PhoneStatus),
    Terminated(Termination),
}

/// What became of an event of a call that we placed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventTold {
    Yes,
    /// The call is past that, or over.
    Late,
    /// Its call is not known; it may be yet.
    Parked,
    /// Its mailbox is full.
    Full,
}

/// What is known of a call from Meta: its id there, and how far its phone is.
#[derive(Debug, Default)]
pub struct AtMeta {
    wacid: OnceLock<Wacid>,
    /// The id is waited for.
    awaited: AtomicBool,
    /// How far its phone was by the last status that moved it: the status' place, from 1.
    phone: AtomicU8,
}

impl AtMeta {
    /// Of a call whose id is known, or is to come.
    pub fn new(wacid: Option<Wacid>) -> Self {
        Self { wacid: wacid.map(OnceLock::from).unwrap_or_default(), ..Self::default() }
    }

    /// Meta's id of the call, once there is one.
    pub fn wacid(&self) -> Option<&Wacid> {
        self.wacid.get()
    }

    /// Whether a status says more than those before it.
    fn moves_to(&self, status: PhoneStatus) -> bool {
        let rank = match status {
            PhoneStatus::Ringing => 1,
            PhoneStatus::Accepted | PhoneStatus::Rejected => 2,
        };
        self.phone.fetch_max(rank, Ordering::AcqRel) < rank
    }
}

/// A live call, as it is told what Meta says of it.
pub trait Party {
    /// What it began with.
    fn setup(&self) -> &CallSetup;

    /// What Meta has said.
    fn at_meta(&self) -> &AtMeta;

    /// With which token Graph is asked about it.
    fn token(&self) -> Option<Secret>;

    /// Whether it has come to its end, and only Meta's word for it is missing.
    fn is_closing(&self) -> bool;

    /// Whether it still reads its mailbox.
    fn is_open(&self) -> bool;

    /// Puts a fact into its mailbox; `false`: the mailbox is closed or full.
    fn tell(&self, fact: Input) -> bool;

    /// Puts Meta's answer to our offer there.
    fn answer(&self, answer: Box<Offer>) -> bool;
}

/// The live calls, and Graph. Nothing here may block or wait.
pub trait Parties {
    type Party: Party;

    /// A live call.
    fn get(&self, call: CallUuid) -> Option<Arc<Self::Party>>;

    /// Graph is to end a call that is none of ours, or not any more; asked until it hears. `late`: the one of ours whose
    /// name this turns out to be, so that it can be written down.
    fn end_at_meta(&self, key: CallKey, token: Option<Secret>, late: Option<CallUuid>);
}

/// A call that we placed and that is no more.
struct Left {
    since: Instant,
    number: PhoneNumberId,
    token: Option<Secret>,
    /// Meta's id of it, which is over. None: it never came.
    wacid: Option<Wacid>,
}

/// Meta's names of the calls of a node, and the events whose call is not known yet.
#[derive(Default)]
pub struct Bindings {
    by_key: DashMap<CallKey, CallUuid>,
    /// Calls whose id is still to come.
    unnamed: AtomicUsize,
    parked: Mutex<VecDeque<(Instant, CallKey, CallEvent)>>,
    left: DashMap<CallUuid, Left>,
    /// Those, the oldest first.
    leaving: Mutex<VecDeque<(Instant, CallUuid)>>,
}

impl Bindings {
    /// A call enters the tables.
    pub fn enter(&self, call: &impl Party, now: Instant) {
        match call.at_meta().wacid() {
            Some(wacid) => drop(self.claim(key_of(call, wacid), call.setup().call, now)),
            None => {
                call.at_meta().awaited.store(true, Ordering::Release);
                self.unnamed.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// It leaves them, whatever way it ended.
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

    /// Whether no call is known here, or waited for.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.unnamed.load(Ordering::Acquire) == 0
    }

    /// Graph has told Meta's id of a call that we placed. One that is not the call's, since it has another by now or has
    /// left, is ended.
    pub fn bind<C: Parties>(&self, calls: &C, call: &C::Party, wacid: Wacid, now: Instant) {
        if !self.takes(call, &wacid, now) {
            end_stray(calls, call, &wacid);
        }
    }

    /// Whether a call at Meta is this one of ours, which will see to it.
    fn takes(&self, call: &impl Party, wacid: &Wacid, now: Instant) -> bool {
        let is_news = call.at_meta().wacid().is_none();
        self.name(call, wacid, now) && (call.is_open() || !is_news)
    }

    /// This is the call's id, unless it has one; whether it is now.
    fn name(&self, call: &impl Party, wacid: &Wacid, now: Instant) -> bool {
        let mut first = false;
        let known = call.at_meta().wacid.get_or_init(|| {
            first = true;
            wacid.clone()
        });
        if first {
            // Before anybody finds the call by it.
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

    /// Meta says something about a call that we placed. `named`: the call that its opaque data name.
    pub fn event<C: Parties>(
        &self,
        calls: &C,
        key: &CallKey,
        named: Option<CallUuid>,
        event: CallEvent,
        now: Instant,
    ) -> EventTold {
        let ends = matches!(event, CallEvent::Terminated(_));
        let found = match self.find(key) {
            Some(call) => calls.get(call),
            None => named.and_then(|call| calls.get(call)).filter(|call| {
                let setup = call.setup();
                setup.direction == Direction::Outbound && setup.phone_number_id == key.0
            }),
        };
        if let Some(call) = &found
            && !self.takes(&**call, &key.1, now)
        {
            // Of another call that Meta made of this one, or of one whose task is no more: not for its ears.
            if !ends {
                end_stray(calls, &**call, &key.1);
            }
            return EventTold::Late;
        }
        match found.or_else(|| calls.get(self.park(key, &event, now)?)) {
            Some(call) => tell(&*call, event),
            None => {
                if !ends {
                    self.end_left(calls, key, named, now);
                }
                EventTold::Parked
            }
        }
    }

    /// A call that we placed is no more, in this process or in an earlier one: should it, or another of its name, turn up
    /// at Meta within a minute, that is ended.
    pub fn remember(&self, placed: PlacedCall, token: Option<Secret>, now: Instant) {
        let PlacedCall { call, phone_number_id: number, wacid } = placed;
        self.left.insert(call, Left { since: now, number, token, wacid });
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.push_back((now, call));
        while let Some((_, old)) =
            leaving.pop_front_if(|(at, _)| now.saturating_duration_since(*at) >= LEFT_MAX)
        {
            self.left.remove(&old);
        }
    }

    /// Ends a call at Meta that is none of ours any more, if it is one.
    fn end_left(&self, calls: &impl Parties, key: &CallKey, named: Option<CallUuid>, now: Instant) {
        let young = |left: &Left| {
            left.number == key.0 && now.saturating_duration_since(left.since) < LEFT_MAX
        };
        let Some(call) = named else { return };
        let (token, late) = match self.left.get_mut(&call) {
            Some(mut left) if young(&left) && left.wacid.as_ref() != Some(&key.1) => {
                let late = left.wacid.is_none();
                left.wacid.get_or_insert_with(|| key.1.clone());
                (left.token.clone(), late.then_some(call))
            }
            _ => return,
        };
        info!(call_uuid = %call, "a call that was given up turns up at Meta: it is ended");
        calls.end_at_meta(key.clone(), token, late);
    }

    fn find(&self, key: &CallKey) -> Option<CallUuid> {
        self.by_key.get(key).map(|call| *call.value())
    }

    /// From now on the call is found by its key; gives what has waited for that, in order.
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

    /// Keeps an event until its call is known, if there is one that may be it. Gives the call if it is known by now.
    fn park(&self, key: &CallKey, event: &CallEvent, now: Instant) -> Option<CallUuid> {
        if self.unnamed.load(Ordering::Acquire) == 0 {
            return self.find(key);
        }
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        // Claimed meanwhile: whoever claims looks here only after the key is in its place.
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

    /// A call's id has come, or never will.
    fn expect_no_more(&self, call: &impl Party) {
        if call.at_meta().awaited.swap(false, Ordering::AcqRel) {
            self.unnamed.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn key_of(call: &impl Party, wacid: &Wacid) -> CallKey {
    (call.setup().phone_number_id.clone(), wacid.clone())
}

/// A call at Meta that is not, or not any more, the one that is named: Graph made one without telling us, and we asked
/// again; or it told us when the call had left.
fn end_stray<C: Parties>(calls: &C, call: &C::Party, wacid: &Wacid) {
    error!(call_uuid = %call.setup().call, "Meta holds a call of this name that is none of ours; it is ended");
    calls.end_at_meta(key_of(call, wacid), call.token(), None);
}

/// Tells a call that we placed what Meta says of it.
fn tell(call: &impl Party, event: CallEvent) -> EventTold {
    let told = match event {
        CallEvent::Answer(_) | CallEvent::Status(_) if call.is_closing() => return EventTold::Late,
        CallEvent::Answer(Some(answer)) => call.answer(answer),
        CallEvent::Answer(None) => call.tell(Input::SdpAnswer { usable: false }),
        CallEvent::Status(status) if !call.at_meta().moves_to(status) => return EventTold::Late,
        CallEvent::Status(status) => call.tell(Input::Status { status }),
        CallEvent::Terminated(termination) => call.tell(Input::Terminated { termination }),
    };
    match told {
        true => EventTold::Yes,
        false if call.is_open() => EventTold::Full,
        false => EventTold::Late,
    }
}

fn forget(parked: &mut VecDeque<(Instant, CallKey, CallEvent)>, now: Instant) {
    while let Some((at, (number, _), event)) = parked.front()
        && now.saturating_duration_since(*at) >= PARK
    {
        tracing::debug!(%number, ?event, "late: no call of ours turned out to be meant");
        parked.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{Bindings, CallEvent, PARK, PARKED_MAX};
    use machine::{PhoneStatus, Termination};
    use model::Clock;
    use model::{CallUuid, Timestamp};

    fn key(wacid: &str) -> super::CallKey {
        ("106540352242922".into(), wacid.into())
    }

    #[test]
    fn what_comes_before_the_id_waits_for_it_in_order_and_ten_seconds_at_most() {
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
    fn what_waits_is_bounded() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let bindings = Bindings::default();
        bindings.unnamed.fetch_add(1, Ordering::AcqRel);
        for n in 0..PARKED_MAX + 10 {
            bindings.park(&key(&n.to_string()), &CallEvent::Answer(None), clock.now());
        }
        assert_eq!(bindings.parked.lock().unwrap().len(), PARKED_MAX);
    }
}
