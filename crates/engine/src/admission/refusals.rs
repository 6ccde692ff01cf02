//! Counts of refused calls by number. A refused call has no record, so these counts are what the
//! console shows of it.

use dashmap::DashMap;

use super::gate::Reason;
use model::{Direction, E164};

/// The refused calls of a number in one direction, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusals {
    pub number: E164,
    pub direction: Direction,
    pub reason: Reason,
}

/// The number of refused calls since the process started. It has entries for connected numbers
/// only, which bounds its size.
#[derive(Debug, Default)]
pub(super) struct RefusalCounts(DashMap<Refusals, u64>);

impl RefusalCounts {
    pub(super) fn add(&self, refused: Refusals) {
        *self.0.entry(refused).or_default() += 1;
    }

    pub(super) fn all(&self) -> Vec<(Refusals, u64)> {
        self.0.iter().map(|entry| (entry.key().clone(), *entry.value())).collect()
    }
}
