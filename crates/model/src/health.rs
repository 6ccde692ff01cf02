//! Readiness of the node, as `/readyz` reports it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Readiness of the node. Clones share one state, which begins as "starting".
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    phase: AtomicU8,
    store_broken: AtomicBool,
    cut_off: AtomicBool,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Health {
    /// Creates the state of a node that is starting.
    pub fn new() -> Self {
        Self::default()
    }

    /// Marks the start as complete. Has no effect if the node is draining.
    pub fn set_ready(&self) {
        let _ =
            self.0.phase.compare_exchange(STARTING, READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Marks the node as draining: it takes no new calls. This cannot be undone.
    pub fn set_draining(&self) {
        self.0.phase.store(DRAINING, Ordering::Relaxed);
    }

    /// Whether [`Health::set_draining`] was called.
    pub fn is_draining(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == DRAINING
    }

    /// Sets whether both the store and its journal reject writes. A call that could not be
    /// recorded must not start (docs/reference/reliability.md#r11).
    pub fn set_store_broken(&self, broken: bool) {
        self.0.store_broken.store(broken, Ordering::Relaxed);
    }

    /// Whether both the store and its journal reject writes.
    pub fn is_store_broken(&self) -> bool {
        self.0.store_broken.load(Ordering::Relaxed)
    }

    /// Sets whether the node admits no calls because the database does not answer its beats.
    pub fn set_cut_off(&self, cut_off: bool) {
        self.0.cut_off.store(cut_off, Ordering::Relaxed);
    }

    /// Returns the reason why the node should get no new calls, or `None` if it should get them.
    pub fn unready_reason(&self) -> Option<&'static str> {
        match self.0.phase.load(Ordering::Relaxed) {
            STARTING => Some("starting"),
            DRAINING => Some("draining"),
            _ if self.is_store_broken() => Some("calls can be neither stored nor journalled"),
            _ if self.0.cut_off.load(Ordering::Relaxed) => Some("cut off from the fleet"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Health;

    #[test]
    fn every_unready_state_has_a_reason() {
        let health = Health::new();
        assert_eq!(health.unready_reason(), Some("starting"));
        health.set_ready();
        assert_eq!(health.unready_reason(), None);
        health.set_store_broken(true);
        assert!(health.unready_reason().is_some_and(|why| why.contains("stored")));
        health.set_store_broken(false);
        health.set_cut_off(true);
        assert_eq!(health.unready_reason(), Some("cut off from the fleet"));
        health.set_cut_off(false);
        health.set_draining();
        health.set_ready();
        assert_eq!(health.unready_reason(), Some("draining"), "draining cannot be undone");
    }
}
