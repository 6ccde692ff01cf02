//! The units of this process: which of them admission may use, and how calls wait for more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fleet::{LimitKey, Supply, Usage};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use model::E164;
use tokio::sync::watch;

use super::peers::post;
use super::{Shared, WANT};
use crate::admission::{Caps, Counter, Gate, Lack, Lease};

/// Minimum time that a call waits for a unit that another node may hold. The wait ends after
/// [`EVIDENCE`](super::EVIDENCE) answered beats.
const UNIT_WAIT: Duration = Duration::from_millis(150);

/// Maximum time that a call waits for a unit.
const UNIT_WAIT_MAX: Duration = Duration::from_secs(1);

/// Maximum time that a call waits for a beat to be answered.
const CONTACT_WAIT: Duration = Duration::from_millis(500);

/// Maximum pause between two attempts to admit a waiting call.
const RETRY: Duration = Duration::from_millis(20);

/// Time during which calls don't wait for a limit whose units were recently requested in vain.
const EXHAUSTED: Duration = Duration::from_millis(20);

/// Minimum time between two messages to the other nodes about the same limit.
const TELL_INTERVAL: Duration = Duration::from_millis(50);

/// Time during which a call that did not wait counts as a waiting call.
const REQUESTED: Duration = Duration::from_secs(1);

/// Maximum number of waiting calls.
const WAITING_MAX: u32 = 1_024;

/// The units that admissions of this process lack.
#[derive(Debug, Default)]
pub(super) struct Demand(Mutex<Wants>);

#[derive(Debug, Default)]
struct Wants {
    waiting: u32,
    by_key: BTreeMap<LimitKey, Want>,
    /// Limits of which another node has requested units.
    elsewhere: Vec<LimitKey>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Want {
    /// Number of waiting calls.
    waiting: u32,
    /// End of the time during which a call that did not wait counts as a waiting call.
    requested: Option<Instant>,
    /// End of the time during which waiting is useless.
    exhausted: Option<Instant>,
    /// Time at which the other nodes were last informed that units are lacking.
    reported: Option<Instant>,
}

/// Maximum number of remembered limits whose units other nodes lack.
const ELSEWHERE_MAX: usize = 1_024;

impl Demand {
    fn wants(&self) -> MutexGuard<'_, Wants> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of units of a limit that calls lack.
    fn lacking(&self, key: &LimitKey, now: Instant) -> u32 {
        let mut wants = self.wants();
        let Some(want) = wants.by_key.get(key).copied() else { return 0 };
        let is_requested = want.requested.is_some_and(|until| until > now);
        let is_exhausted = want.exhausted.is_some_and(|until| until > now);
        if want.waiting == 0 && !is_requested && !is_exhausted {
            wants.by_key.remove(key);
        }
        want.waiting.max(u32::from(is_requested))
    }

    /// Registers a waiting call. `None` if waiting is useless.
    fn enter<'a>(&'a self, keys: &'a [LimitKey], now: Instant) -> Option<Waiting<'a>> {
        let mut wants = self.wants();
        let is_exhausted = |key: &LimitKey| {
            let until = wants.by_key.get(key).and_then(|want| want.exhausted);
            until.is_some_and(|until| until > now)
        };
        if wants.waiting >= WAITING_MAX || keys.iter().any(is_exhausted) {
            return None;
        }
        wants.waiting += 1;
        for key in keys {
            wants.by_key.entry(key.clone()).or_default().waiting += 1;
        }
        Some(Waiting { demand: self, keys })
    }

    /// Records that other nodes lack units of these limits.
    pub(super) fn look_at(&self, keys: impl Iterator<Item = LimitKey>) {
        let mut wants = self.wants();
        for key in keys {
            if wants.elsewhere.len() < ELSEWHERE_MAX && !wants.elsewhere.contains(&key) {
                wants.elsewhere.push(key);
            }
        }
    }

    /// Takes the limits whose units other nodes lack, as recorded since the last call.
    pub(super) fn take_elsewhere(&self) -> Vec<LimitKey> {
        std::mem::take(&mut self.wants().elsewhere)
    }

    /// Returns those of the limits about which the other nodes were not informed recently.
    fn to_tell(&self, keys: &[LimitKey], now: Instant) -> Vec<LimitKey> {
        let mut wants = self.wants();
        let mut is_due = |key: &&LimitKey| {
            let want = wants.by_key.entry((*key).clone()).or_default();
            let is_due =
                want.reported.is_none_or(|at| now.saturating_duration_since(at) >= TELL_INTERVAL);
            if is_due {
                want.reported = Some(now);
            }
            is_due
        };
        keys.iter().filter(|key| is_due(key)).cloned().collect()
    }

    fn exhaust(&self, keys: &[LimitKey], now: Instant) {
        let mut wants = self.wants();
        for key in keys {
            wants.by_key.entry(key.clone()).or_default().exhausted = Some(now + EXHAUSTED);
        }
    }

    fn request(&self, keys: &[LimitKey], now: Instant) {
        let mut wants = self.wants();
        for key in keys {
            wants.by_key.entry(key.clone()).or_default().requested = Some(now + REQUESTED);
        }
    }
}

/// A call that waits for units.
struct Waiting<'a> {
    demand: &'a Demand,
    keys: &'a [LimitKey],
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut wants = self.demand.wants();
        wants.waiting = wants.waiting.saturating_sub(1);
        for key in self.keys {
            if let Some(want) = wants.by_key.get_mut(key) {
                want.waiting = want.waiting.saturating_sub(1);
            }
        }
    }
}

/// Implements admission's access to the fleet.
#[derive(Debug)]
pub struct FleetLease(Arc<Shared>);

impl FleetLease {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Informs the other nodes that this one lacks units. They give back unused ones.
    fn tell(&self, keys: &[LimitKey]) {
        let keys = self.0.demand.to_tell(keys, self.0.clock.now());
        if keys.is_empty() {
            return;
        }
        let keys: Vec<&str> = keys.iter().map(LimitKey::as_str).collect();
        let body = Bytes::from(serde_json::to_vec(&keys).unwrap_or_default());
        for run in self.0.peers.sees() {
            let (peers, body) = (self.0.peers.clone(), body.clone());
            tokio::spawn(async move {
                let request = post(WANT, body);
                // The next beats of the other node do the same, later.
                let _ = peers.send(run, request).await;
            });
        }
    }
}

impl Lease for FleetLease {
    fn is_peer_moving(&self) -> bool {
        self.0.peers.is_any_moving()
    }

    fn admits(&self) -> bool {
        self.0.admits()
    }

    fn request(&self, lack: &Lack) {
        if let Lack::Units(keys) = lack {
            self.0.demand.request(keys, self.0.clock.now());
            self.tell(keys);
        }
        self.0.hurry();
    }

    fn wait<'a>(&'a self, lack: &'a Lack, since: Instant) -> BoxFuture<'a, bool> {
        async move {
            let shared = &self.0;
            let now = shared.clock.now();
            let (keys, at_most): (&[LimitKey], _) = match lack {
                Lack::Units(keys) if shared.is_evident(since) => (keys, UNIT_WAIT),
                Lack::Units(keys) => (keys, UNIT_WAIT_MAX),
                Lack::Contact => (&[], CONTACT_WAIT),
            };
            let left = at_most.saturating_sub(now.saturating_duration_since(since));
            if left.is_zero() {
                shared.demand.exhaust(keys, now);
                return false;
            }
            let Some(_waiting) = shared.demand.enter(keys, now) else { return false };
            let mut state = shared.state.subscribe();
            state.mark_unchanged();
            shared.hurry();
            self.tell(keys);
            let _ = tokio::time::timeout(left.min(RETRY), state.changed()).await;
            true
        }
        .boxed()
    }
}

/// The counters of admission, as used by the beats.
pub(super) struct Units {
    shared: Arc<Shared>,
    gate: Arc<Gate>,
    caps: Option<watch::Receiver<Caps>>,
}

impl Units {
    pub(super) fn new(shared: Arc<Shared>, gate: Arc<Gate>) -> Self {
        let caps = gate.directory().caps().map(|mut caps| {
            caps.mark_changed();
            caps
        });
        Self { shared, gate, caps }
    }

    /// Returns the configured limits if they have changed since the last call.
    pub(super) fn changed_caps(&mut self) -> Option<Caps> {
        let caps = self.caps.as_mut()?;
        caps.has_changed().is_ok_and(|changed| changed).then(|| caps.borrow_and_update().clone())
    }

    /// Makes [`Units::changed_caps`] return the limits again.
    pub(super) fn retry_caps(&mut self) {
        if let Some(caps) = &mut self.caps {
            caps.mark_changed();
        }
    }

    /// Returns how many calls an account has started within the last second.
    fn starts(&self, key: &LimitKey, now: Instant) -> u32 {
        let number = key.as_str().strip_prefix("n:").and_then(|number| E164::parse(number).ok());
        let tables = self.gate.directory().tables();
        let account =
            number.and_then(|number| tables.by_number(&number).map(|n| n.account.clone()));
        account
            .map_or(0, |account| u32::try_from(self.gate.cps(now, &account).1).unwrap_or(u32::MAX))
    }
}

impl Supply for Units {
    fn usage(&mut self, key: &LimitKey) -> Usage {
        let now = self.shared.clock.now();
        let waiting = self.shared.demand.lacking(key, now);
        match self.gate.directory().counter(key) {
            None => Usage { waiting, ..Usage::default() },
            Some(Counter::Slots(slots)) => {
                let used = slots.in_use();
                let is_busy = used > 0 || waiting > 0;
                Usage { used, waiting, starts: if is_busy { self.starts(key, now) } else { 0 } }
            }
            Some(Counter::Ring(ring)) => {
                let used = ring.spent(self.gate.since(now));
                Usage { used: u32::try_from(used).unwrap_or(u32::MAX), waiting, starts: 0 }
            }
        }
    }

    fn lower(&mut self, key: &LimitKey, to: u32) -> u32 {
        match self.gate.directory().counter(key) {
            None => 0,
            Some(Counter::Slots(slots)) => slots.lower_to(to),
            Some(Counter::Ring(ring)) => {
                let lowered = ring.lower_to(to, self.gate.since(self.shared.clock.now()));
                u32::try_from(lowered).unwrap_or(u32::MAX)
            }
        }
    }

    fn raise(&mut self, key: &LimitKey, to: u32) {
        match self.gate.directory().counter(key) {
            None => {}
            Some(Counter::Slots(slots)) => slots.set_limit(to),
            Some(Counter::Ring(ring)) => ring.set_limit(to),
        }
    }
}
