//! How often something happened lately: times, and windows that slide over them (L13–L15).
//!
//! A window includes the instant it begins and excludes the one it ends: what happened at `t` counts until just before
//! `t` + its length.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use model::Timestamp;

/// Times kept at most, the newest: a limit above it is left to Meta.
const KEPT_MAX: usize = 1_000;

/// Times of one kind of event, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Times(Vec<Timestamp>);

impl Times {
    /// It happened. What is older than `kept` is forgotten.
    pub(super) fn add(&mut self, at: Timestamp, now: Timestamp, kept: Duration) {
        self.0.retain(|t| now.since(*t) < kept);
        let place = self.0.partition_point(|t| *t <= at);
        self.0.insert(place, at);
        if self.0.len() > KEPT_MAX {
            self.0.remove(0);
        }
    }

    /// The newest did not happen.
    pub(super) fn take_back(&mut self) {
        self.0.pop();
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// How often in the window that ends at `now`.
    pub(super) fn count(&self, now: Timestamp, window: Duration) -> u32 {
        let inside = self.0.iter().filter(|t| now.since(**t) < window).count();
        u32::try_from(inside).unwrap_or(u32::MAX)
    }

    /// When there is room again under `limit`: at once where there is (`Ok(None)`).
    ///
    /// # Errors
    /// Never: the limit is 0.
    pub(super) fn room_at(
        &self,
        now: Timestamp,
        window: Duration,
        limit: u32,
    ) -> Result<Option<Timestamp>, Never> {
        let used = self.count(now, window);
        let Some(over) = used.checked_sub(limit) else { return Ok(None) };
        if limit == 0 {
            return Err(Never);
        }
        // Room comes when the one that is `over` places behind the oldest in the window leaves it.
        let mut inside = self.0.iter().filter(|t| now.since(**t) < window);
        Ok(inside.nth(usize::try_from(over).unwrap_or(usize::MAX)).map(|t| t.plus(window)))
    }

    /// Makes it `used` in the window: the newest stay, missing ones are taken to have happened at `at`.
    pub(super) fn take_over(&mut self, used: u32, at: Timestamp, now: Timestamp, window: Duration) {
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

    /// The newest.
    pub(super) fn last(&self) -> Option<Timestamp> {
        self.0.last().copied()
    }
}

/// There is never room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Never;
