//! Whether the node may be given work: what `/readyz` says, and why.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// Shared by everybody who can tell; cheap to clone. Begins as starting.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    phase: AtomicU8,
    store_broken: AtomicBool,
}

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Health {
    /// Still starting.
    pub fn new() -> Self {
        Self::default()
    }

    /// Started. A node that drains stays so.
    pub fn ready(&self) {
        let _ =
            self.0.phase.compare_exchange(STARTING, READY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Takes no new calls any more.
    pub fn draining(&self) {
        self.0.phase.store(DRAINING, Ordering::Relaxed);
    }

    /// Whether [`Health::draining`] was said.
    pub fn is_draining(&self) -> bool {
        self.0.phase.load(Ordering::Relaxed) == DRAINING
    }

    /// Calls can be neither stored nor journalled (R11), or can again.
    pub fn store_broken(&self, broken: bool) {
        self.0.store_broken.store(broken, Ordering::Relaxed);
    }

    /// Whether calls can be neither stored nor journalled.
    pub fn is_store_broken(&self) -> bool {
        self.0.store_broken.load(Ordering::Relaxed)
    }

    /// Why the node should get no new calls; `None`: it should.
    pub fn not_ready(&self) -> Option<&'static str> {
        match self.0.phase.load(Ordering::Relaxed) {
            STARTING => Some("starting"),
            DRAINING => Some("draining"),
            _ if self.is_store_broken() => Some("calls can be neither stored nor journalled"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Health;

    #[test]
    fn each_state_has_its_reason() {
        let health = Health::new();
        assert_eq!(health.not_ready(), Some("starting"));
        health.ready();
        assert_eq!(health.not_ready(), None);
        health.store_broken(true);
        assert!(health.not_ready().is_some_and(|why| why.contains("stored")));
        health.store_broken(false);
        health.draining();
        health.ready();
        assert_eq!(health.not_ready(), Some("draining"), "there is no way back");
    }
}
