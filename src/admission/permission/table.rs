//! The pairs of a node: what each user allows each business number, and who is on the line with whom.
//!
//! Everything is in memory and answered at once, so that the gate can ask it. A user is named by their digits, or by
//! their business-scoped id where they hide the number.

use std::fmt;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use super::pair::{Event, Pair, Refusal, Rules, View, Why};
use crate::model::{PhoneNumberId, Timestamp};

/// Between two questions to Graph about one pair (`meta-calling.md` §4.2), in microseconds.
const ASK_AGAIN: i64 = 60_000_000;
/// Pairs that Graph was asked about are remembered up to here; past it the old ones are forgotten first.
const ASKED_MAX: usize = 10_000;

/// A (business number, user).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PairKey {
    pub number: PhoneNumberId,
    pub user: Arc<str>,
}

impl PairKey {
    /// The pair of a number and a user: digits or a business-scoped id.
    pub fn new(number: &PhoneNumberId, user: &str) -> Self {
        Self { number: number.clone(), user: user.into() }
    }
}

/// Without the user's number (R22).
impl fmt::Debug for PairKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairKey({})", self.number)
    }
}

/// The pairs; one per node.
#[derive(Debug, Default)]
pub struct Consents {
    pairs: DashMap<PairKey, Pair>,
    /// Live calls by pair.
    live: Arc<DashMap<PairKey, u32>>,
    /// When Graph was asked last.
    asked: DashMap<PairKey, Timestamp>,
}

/// A call that is up between a number and a user; ends with its drop.
#[derive(Debug)]
#[must_use = "a pair let go at once is free at once"]
pub struct Engaged {
    live: Arc<DashMap<PairKey, u32>>,
    key: PairKey,
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

impl Consents {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is known of a pair.
    pub fn pair(&self, key: &PairKey) -> Option<Pair> {
        self.pairs.get(key).map(|pair| pair.clone())
    }

    /// Takes a pair as it was kept.
    pub fn restore(&self, key: PairKey, pair: Pair) {
        self.pairs.insert(key, pair);
    }

    /// May a call go out to the user, as far as their permission goes?
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn may_call(&self, key: &PairKey, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
        match self.pairs.get(key) {
            Some(pair) => pair.may_call(rules, now),
            None => Pair::default().may_call(rules, now),
        }
    }

    /// May the user be asked for permission?
    ///
    /// # Errors
    /// The rule that forbids it.
    pub fn may_request(&self, key: &PairKey, rules: &Rules, now: Timestamp) -> Result<(), Refusal> {
        self.pairs.get(key).map_or_else(|| Pair::default().may_request(rules, now), |pair| pair.may_request(rules, now))
    }

    /// What the number API shows.
    pub fn view(&self, key: &PairKey, rules: &Rules, now: Timestamp) -> View {
        self.pairs.get(key).map_or_else(|| Pair::default().view(rules, now), |pair| pair.view(rules, now))
    }

    /// Takes in what happened to a pair. `false`: a reply older than what is known.
    pub fn apply(&self, key: &PairKey, rules: &Rules, now: Timestamp, event: Event) -> bool {
        // A user's call says nothing of a pair that nothing is known of.
        if event == Event::UserConnected && !self.pairs.contains_key(key) {
            return true;
        }
        self.pairs.entry(key.clone()).or_default().apply(rules, now, event)
    }

    /// Whether Graph is to be asked about a pair now, and that it will be: nothing is known of it, or what is known
    /// was contradicted (`always`: or somebody wants to know), and it was not asked within the last minute.
    pub fn ask(&self, key: &PairKey, now: Timestamp, always: bool) -> bool {
        let known = self.pairs.get(key).is_some_and(|pair| !pair.is_doubtful());
        if known && !always {
            return false;
        }
        let recent = |at: Timestamp| now.micros().saturating_sub(at.micros()).abs() < ASK_AGAIN;
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

    /// A call with the user is up, whoever began it.
    pub fn engage(&self, key: PairKey) -> Engaged {
        *self.live.entry(key.clone()).or_default() += 1;
        Engaged { live: self.live.clone(), key }
    }

    /// The same, unless one is up already (L9).
    pub fn engage_alone(&self, key: PairKey) -> Option<Engaged> {
        match self.live.entry(key.clone()) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(entry) => entry.insert(1),
        };
        Some(Engaged { live: self.live.clone(), key })
    }

    /// Whether a call with the user is up.
    pub fn is_engaged(&self, key: &PairKey) -> bool {
        self.live.contains_key(key)
    }

    /// Forgets pairs of which nothing is in force any more.
    pub fn forget_blank(&self, now: Timestamp, rules: impl Fn(&PhoneNumberId) -> Option<Rules>) -> Vec<PairKey> {
        let mut blank = Vec::new();
        self.pairs.retain(|key, pair| {
            let keep = !rules(&key.number).is_some_and(|rules| pair.is_blank(&rules, now));
            if !keep {
                blank.push(key.clone());
            }
            keep
        });
        blank
    }
}

impl Refusal {
    /// Whether it is the limit of the day, and no lack of permission.
    pub fn is_limit(&self) -> bool {
        self.why == Why::DailyLimit
    }
}
