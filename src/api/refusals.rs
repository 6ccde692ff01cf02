//! Collects refused sign-ins for the audit trail.
//!
//! An attacker can cause any number of them. The first one is stored at once. Equal ones within the
//! next [`INTERVAL`] become one record with their number, and so do those that exceed
//! [`KINDS_MAX`]. After [`RECORDS_PER_HOUR`], the interval is longer, because the audit trail keeps a
//! limited number of records: an attacker must not displace those of earlier attacks soon. None is
//! dropped while the process lives. A response never waits for the store, because its duration would
//! reveal which names exist.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use model::{AuthId, Clock, Timestamp};
use store::{AuditRow, Store, StoreError};

/// Time between two batches of records.
const INTERVAL: Duration = Duration::from_secs(5);
/// The same once [`RECORDS_PER_HOUR`] are stored.
const BUSY_INTERVAL: Duration = Duration::from_secs(300);
/// Number of records of an hour after which further ones are gathered for longer.
const RECORDS_PER_HOUR: usize = 300;
const HOUR: Duration = Duration::from_secs(3_600);
/// Maximum number of different refused sign-ins in a batch. Further ones of an account become one
/// more record.
const KINDS_MAX: usize = 50;
/// The actor and the address of records that summarise several.
pub(super) const SEVERAL: &str = "several";

/// An account and its main account, which may be the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub account: AuthId,
    pub main_account: AuthId,
}

/// A refused sign-in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Refusal {
    pub owner: Owner,
    pub actor: String,
    /// The kind of credentials.
    pub by: &'static str,
    /// The address of the client. `None` for several addresses.
    pub from: Option<IpAddr>,
}

impl Refusal {
    fn row(self, Attempts { first, count }: Attempts) -> AuditRow {
        AuditRow {
            id: Uuid::new_v4(),
            account: self.owner.account,
            main_account: self.owner.main_account,
            at: first,
            actor: self.actor,
            action: AuditRow::SIGN_IN_REFUSED.to_owned(),
            object: self.by.to_owned(),
            source: self.from.map_or_else(|| SEVERAL.to_owned(), |from| from.to_string()),
            detail: match count {
                1 => "{}".to_owned(),
                _ => json!({"after": {"attempts": count}}).to_string(),
            },
        }
    }
}

/// The number of refusals of a sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attempts {
    first: Timestamp,
    count: u64,
}

/// Refused sign-ins that are not stored yet. A bounded number of them is kept separately.
#[derive(Debug, Default)]
struct Waiting(BTreeMap<Refusal, Attempts>);

impl Waiting {
    fn add(&mut self, mut refusal: Refusal, more: Attempts) {
        if self.0.len() >= KINDS_MAX && !self.0.contains_key(&refusal) {
            refusal.actor = SEVERAL.to_owned();
            refusal.from = None;
        }
        let attempts = self.0.entry(refusal).or_insert(Attempts { count: 0, ..more });
        attempts.first = attempts.first.min(more.first);
        attempts.count = attempts.count.saturating_add(more.count);
    }
}

/// Counts the records of an hour.
#[derive(Debug)]
struct Pace {
    hour_began: Timestamp,
    records: usize,
}

impl Pace {
    /// Counts records. Returns the time until the next ones may be stored.
    fn count(&mut self, records: usize, now: Timestamp) -> Duration {
        if now.since(self.hour_began) >= HOUR {
            *self = Self { hour_began: now, records: 0 };
        }
        self.records = self.records.saturating_add(records);
        if self.records < RECORDS_PER_HOUR { INTERVAL } else { BUSY_INTERVAL }
    }
}

#[derive(Debug)]
struct State {
    waiting: Waiting,
    pace: Pace,
    /// Whether a task is storing the waiting refusals.
    is_storing: bool,
}

/// Counts refused sign-ins and stores them. Clones share the counts.
#[derive(Clone)]
pub(super) struct Refusals {
    store: Store,
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl Refusals {
    pub(super) fn new(store: Store, clock: Clock) -> Self {
        let pace = Pace { hour_began: clock.steady(), records: 0 };
        let state = State { waiting: Waiting::default(), pace, is_storing: false };
        Self { store, clock, state: Arc::new(Mutex::new(state)) }
    }

    /// Counts a refused sign-in, which is stored within [`INTERVAL`] or [`BUSY_INTERVAL`].
    pub(super) fn add(&self, refusal: Refusal) {
        let attempts = Attempts { first: self.clock.steady(), count: 1 };
        let is_storing = self.with_state(|state| {
            state.waiting.add(refusal, attempts);
            std::mem::replace(&mut state.is_storing, true)
        });
        if !is_storing {
            let refusals = self.clone();
            tokio::spawn(async move {
                while let Some(pause) =
                    refusals.store_waiting(|state| state.is_storing = false).await
                {
                    tokio::time::sleep(pause).await;
                }
            });
        }
    }

    /// Stores the waiting refusals. Completes when the records are readable, including those of an
    /// earlier batch.
    pub(super) async fn flush(&self) {
        self.store_waiting(|_| ()).await;
        self.store.flush().await;
    }

    /// Stores the waiting refusals and returns the time until the next batch. If there are none, it
    /// calls `idle` and returns `None`.
    async fn store_waiting(&self, idle: impl FnOnce(&mut State) + Send) -> Option<Duration> {
        // Queued under the lock, so that `flush` does not overtake another batch.
        let (batch, pause): (Vec<_>, _) = self.with_state(|state| {
            if state.waiting.0.is_empty() {
                idle(state);
            }
            let waiting = std::mem::take(&mut state.waiting.0).into_iter();
            let insert = |(refusal, attempts): (Refusal, Attempts)| {
                let stored = self.store.audit().insert(refusal.clone().row(attempts));
                (refusal, attempts, stored)
            };
            let batch: Vec<_> = waiting.map(insert).collect();
            let pause = state.pace.count(batch.len(), self.clock.steady());
            (batch, pause)
        });
        let pause = (!batch.is_empty()).then_some(pause);
        for (refusal, attempts, stored) in batch {
            match stored.await {
                Ok(_) | Err(StoreError::Journalled) => {}
                Err(error) => {
                    tracing::warn!(%error, "refused sign-in not recorded; retrying");
                    self.with_state(|state| state.waiting.add(refusal, attempts));
                }
            }
        }
        pause
    }

    fn with_state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn refusal(actor: &str, n: u32) -> Refusal {
        let owner = Owner { account: "MA1".into(), main_account: "MA1".into() };
        let from = Some(Ipv4Addr::from(n).into());
        Refusal { owner, actor: actor.to_owned(), by: "password", from }
    }

    fn once(second: i64) -> Attempts {
        Attempts { first: Timestamp::from_secs(second), count: 1 }
    }

    #[test]
    fn counts_every_attempt_in_a_bounded_number_of_records() {
        let mut waiting = Waiting::default();
        for n in 0..10_000 {
            waiting.add(refusal("user:asha", n), once(i64::from(n)));
            waiting.add(refusal("user:asha", 7), once(i64::from(n)));
        }
        assert_eq!(waiting.0.len(), KINDS_MAX + 1);
        assert_eq!(waiting.0.values().map(|attempts| attempts.count).sum::<u64>(), 20_000);
        let several = Refusal { from: None, ..refusal(SEVERAL, 0) };
        let rest = waiting.0[&several];
        assert_eq!(rest.first, Timestamp::from_secs(50), "the first of those beyond");
        let row = several.row(rest);
        assert_eq!((&*row.actor, &*row.source), ("several", "several"));
        assert_eq!(row.detail, format!("{{\"after\":{{\"attempts\":{}}}}}", rest.count));
    }

    #[test]
    fn many_records_in_an_hour_are_stored_less_often() {
        let mut pace = Pace { hour_began: Timestamp::from_secs(0), records: 0 };
        let mut count = |records, second| pace.count(records, Timestamp::from_secs(second));
        assert_eq!(count(RECORDS_PER_HOUR - 1, 10), INTERVAL);
        assert_eq!(count(1, 15), BUSY_INTERVAL);
        assert_eq!(count(1, 3_599), BUSY_INTERVAL);
        assert_eq!(count(1, 3_600), INTERVAL, "the next hour");
    }

    #[tokio::test]
    async fn stores_the_first_attempt_at_once_and_counts_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("o.db"), model::Health::new()).await.unwrap();
        let refusals = Refusals::new(store.clone(), Clock::stepped(Timestamp::from_secs(9)));
        let scope = store::Scope::of("MA1".into());
        let list = async || {
            let rows = store.audit().list(&scope, &Default::default(), 99).await.unwrap();
            let attempts = |row: &AuditRow| {
                serde_json::from_str::<serde_json::Value>(&row.detail).unwrap()["after"]["attempts"]
                    .as_u64()
                    .unwrap_or(1)
            };
            (rows.len(), rows.iter().map(attempts).sum::<u64>())
        };
        refusals.add(refusal("user:asha", 1));
        while list().await != (1, 1) {
            tokio::task::yield_now().await;
        }
        (0..20).for_each(|_| refusals.add(refusal("user:asha", 1)));
        assert_eq!(list().await, (1, 1));
        refusals.flush().await;
        assert_eq!(list().await, (2, 21));
        (0..20).for_each(|_| refusals.add(refusal("user:asha", 1)));
        refusals.flush().await;
        assert_eq!(list().await, (3, 41));
        store.close().await;
    }
}
