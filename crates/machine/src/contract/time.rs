//! Time, as a call's machine counts it.

use serde::{Deserialize, Serialize};

/// Milliseconds since the call's first input. It can be logged, compared and replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallTime(pub u64);

impl CallTime {
    /// Later by that many milliseconds.
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
    /// Later by `by`, rounded down to milliseconds.
    pub fn after(self, by: std::time::Duration) -> Self {
        self.plus(millis(by))
    }
}

/// A duration in whole milliseconds.
pub(crate) fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
