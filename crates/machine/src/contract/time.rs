//! The time of a call.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A time in milliseconds since the first input of the call.
///
/// Unlike an `Instant` it can be logged and replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallTime(pub u64);

impl CallTime {
    /// Returns the time `millis` milliseconds later.
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Returns the time `duration` later, rounded down to milliseconds.
    pub fn after(self, duration: Duration) -> Self {
        self.plus(millis(duration))
    }
}

/// Converts a duration to milliseconds, rounded down.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
