//! Counts events in sliding windows.
//!
//! A window includes the instant at which it begins and excludes its end: an event at `t` counts
//! until just before `t` plus the window's length.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use model::Timestamp;

/// Maximum number of times kept; the oldest are dropped. Limits above it are left to Meta.
const KEPT_MAX: usize = 1_000;

/// Times of one kind of event, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Times(Vec<Timestamp>);

impl Times {
    /// Adds an event at `at` and drops events older than `kept`.
    pub(super) fn add(&mut self, at: Timestamp, now: Timestamp, kept: Duration) {
        self.0.retain(|t| now.since(*t) < kept);
        let place = self.0.partition_point(|t| *t <= at);
        self.0.insert(place, at);
        if self.0.len() > KEPT_MAX {
            self.0.remove(0);
        }
    }

    /// Removes the newest event.
    pub(super) fn take_back(&mut self) {
        self.0.pop();
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Number of events in the window that ends at `now`.
    pub(super) fn count(&self, now: Timestamp, window: Duration) -> u32 {
        let inside = self.0.iter().filter(|t| now.since(**t) < window).count();
        u32::try_from(inside).unwrap_or(u32::MAX)
    }

    /// Returns when the count is next below `limit`, or `Ok(None)` if it is below `limit` now.
    ///
    /// # Errors
    ///
    /// Returns [`Never`] if the limit is 0.
    pub(super) fn room_at(
        &self,
        now: Timestamp,
        window: Duration,
        limit: u32,
    ) -> Result<Option<Timestamp>, Never> {
        let used = self.count(now, window);
        let Some(excess) = used.checked_sub(limit) else { return Ok(None) };
        if limit == 0 {
            return Err(Never);
        }
        // That is when the event `excess` places after the window's oldest leaves the window.
        let mut inside = self.0.iter().filter(|t| now.since(**t) < window);
        Ok(inside.nth(usize::try_from(excess).unwrap_or(usize::MAX)).map(|t| t.plus(window)))
    }

    /// Sets the count in the window to `used`. Surplus events are dropped from the oldest; missing
    /// ones are added at `at`.
    pub(super) fn replace_count(
        &mut self,
        used: u32,
        at: Timestamp,
        now: Timestamp,
        window: Duration,
    ) {
        let used = usize::try_from(used).unwrap_or(usize::MAX).min(KEPT_MAX);
        let inside = self.0.partition_point(|t| now.since(*t) >= window);
        let known = self.0.len() - inside;
        if known > used {
            self.0.drain(inside..inside + (known - used));
        }
        for _ in known..used {
            self.add(at, now, Duration::MAX);
        }
    }

    /// Returns the time of the newest event, or `None` if there is none.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.0.last().copied()
    }
}

/// The error for a limit of 0, under which no event is ever allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Never;
