//! Which of our calls a webhook of Meta's is about, where the call is one that we placed (`meta-calling.md` §7.3).
//!
//! Meta's id is known once Graph has answered `connect`; webhooks may come before. One that names our call ties the two
//! together at once; any other waits here for the id, a moment, and is forgotten then.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;

use super::machine::{PhoneStatus, Termination};
use super::registry::CallKey;
use crate::media::sdp::Offer;
use crate::model::CallUuid;
use crate::observe::names;

/// T_park (`meta-calling.md` §7).
const PARK: Duration = Duration::from_secs(10);
/// Events that may wait; a call has four.
const PARKED_MAX: usize = 4_096;

/// What Meta says about a call that we placed.
#[derive(Clone, Debug)]
pub enum CallEvent {
    /// Its SDP answer; none: it is unusable.
    Answer(Option<Box<Offer>>),
    Status(PhoneStatus),
    Terminated(Termination),
}

/// Meta's names of the calls of a node, and the events whose call is not known yet.
#[derive(Default)]
pub(super) struct Bindings {
    by_key: DashMap<CallKey, CallUuid>,
    /// Calls whose id is still to come.
    unnamed: AtomicUsize,
    parked: Mutex<VecDeque<(Instant, CallKey, CallEvent)>>,
}

impl Bindings {
    pub(super) fn find(&self, key: &CallKey) -> Option<CallUuid> {
        self.by_key.get(key).map(|call| *call.value())
    }

    /// From now on the call is found by its key; gives what has waited for that, in order.
    pub(super) fn claim(&self, key: CallKey, call: CallUuid, now: Instant) -> Vec<CallEvent> {
        self.by_key.insert(key.clone(), call);
        if self.unnamed.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut parked = self.parked.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut parked, now);
        let (mine, others) = std::mem::take(&mut *parked).into_iter().partition(|(_, of, _)| *of == key);
        *parked = others;
        let mine: VecDeque<(Instant, CallKey, CallEvent)> = mine;
        mine.into_iter().map(|(_, _, event)| event).collect()
    }

    pub(super) fn forget(&self, key: &CallKey, call: CallUuid) {
        self.by_key.remove_if(key, |_, of| *of == call);
    }

    /// Keeps an event until its call is known, if there is one that may be it. Gives the call if it is known by now.
    pub(super) fn park(&self, key: &CallKey, event: &CallEvent, now: Instant) -> Option<CallUuid> {
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
            names::queue::refused(names::queue::PARKED);
        }
        None
    }

    /// A call was placed, and Meta's id of it is to come.
    pub(super) fn expect(&self) {
        self.unnamed.fetch_add(1, Ordering::AcqRel);
    }

    /// It has come, or never will.
    pub(super) fn expect_no_more(&self) {
        self.unnamed.fetch_sub(1, Ordering::AcqRel);
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
    use super::{Bindings, CallEvent, PARK, PARKED_MAX};
    use crate::call::machine::{PhoneStatus, Termination};
    use crate::clock::Clock;
    use crate::model::{CallUuid, Timestamp};

    fn key(wacid: &str) -> super::CallKey {
        ("106540352242922".into(), wacid.into())
    }

    #[test]
    fn what_comes_before_the_id_waits_for_it_in_order_and_ten_seconds_at_most() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let (bindings, call) = (Bindings::default(), CallUuid(uuid::Uuid::from_u128(1)));
        let ringing = CallEvent::Status(PhoneStatus::Ringing);
        assert_eq!(bindings.park(&key("a"), &ringing, clock.now()), None);
        bindings.expect();
        assert!(bindings.claim(key("a"), call, clock.now()).is_empty(), "no call was expected then");
        bindings.forget(&key("a"), call);

        let over = CallEvent::Terminated(Termination::default());
        for (wacid, event) in [("a", &ringing), ("b", &ringing), ("a", &over)] {
            assert_eq!(bindings.park(&key(wacid), event, clock.now()), None);
        }
        let waited = bindings.claim(key("a"), call, clock.now());
        assert!(matches!(waited.as_slice(), [CallEvent::Status(_), CallEvent::Terminated(_)]), "{waited:?}");
        assert_eq!(bindings.park(&key("a"), &over, clock.now()), Some(call), "known by now");
        clock.step(PARK);
        assert!(bindings.claim(key("b"), call, clock.now()).is_empty(), "too late");
    }

    #[test]
    fn what_waits_is_bounded() {
        let clock = Clock::stepped(Timestamp::from_secs(0));
        let bindings = Bindings::default();
        bindings.expect();
        for n in 0..PARKED_MAX + 10 {
            bindings.park(&key(&n.to_string()), &CallEvent::Answer(None), clock.now());
        }
        assert_eq!(bindings.parked.lock().unwrap().len(), PARKED_MAX);
    }
}
