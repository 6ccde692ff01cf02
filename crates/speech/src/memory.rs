//! The memory of prompts, complete or not, for as long as a cache or a call has them.
//!
//! The prompts of one account take at most as much memory as is still free, like its files take of
//! the disk. So an account always leaves as much to the others as it has taken.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::prompt_builder::PromptError;
use super::provider::Owner;
use model::Clock;

/// Memory that prompts leave free, in bytes: live calls need it.
const RESERVE: u64 = 64 << 20;
/// What the prompts of an account may take even then, in bytes: some minutes of speech.
const MINIMUM: u64 = 4 << 20;
/// Minimum interval between two readings of the free memory.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Reads the free memory in bytes. `None` if the system does not report it.
pub type FreeMemory = fn() -> Option<u64>;

/// The memory of the prompts of a node.
pub(super) struct PromptMemory {
    /// `None` without a limit.
    free: Option<FreeMemory>,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last reading.
    free: Option<(Instant, u64)>,
    used: HashMap<Owner, u64>,
}

impl PromptMemory {
    pub(super) fn new(free: Option<FreeMemory>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { free, clock, state: Mutex::default() })
    }

    /// Accounts for a new prompt.
    pub(super) fn prompt(self: &Arc<Self>, owner: Owner) -> PromptBytes {
        let (bytes, refused) = (Mutex::new(0), AtomicBool::new(false));
        PromptBytes { memory: self.clone(), owner, bytes, refused }
    }

    fn free(&self, state: &mut State) -> Option<u64> {
        let now = self.clock.now();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < PROBE_INTERVAL;
        if let Some((_, free)) = state.free.filter(|(at, _)| is_recent(at)) {
            return Some(free);
        }
        state.free = self.free.and_then(|read| read()).map(|free| (now, free));
        state.free.map(|(_, free)| free)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a prompt takes. Given back on drop.
pub(super) struct PromptBytes {
    memory: Arc<PromptMemory>,
    owner: Owner,
    bytes: Mutex<u64>,
    refused: AtomicBool,
}

impl PromptBytes {
    /// Whether the prompt was not allowed to grow.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Sets the size of the prompt, and checks whether it may grow further.
    ///
    /// # Errors
    ///
    /// Fails if the prompts of its account take too much.
    pub(super) fn grow(&self, bytes: usize) -> Result<(), PromptError> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let mut own = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = bytes.saturating_sub(*own);
        *own += grown;
        let mut state = self.memory.state();
        let used = {
            let used = state.used.entry(self.owner.clone()).or_default();
            *used = used.saturating_add(grown);
            *used
        };
        let Some(free) = self.memory.free(&mut state) else { return Ok(()) };
        match used > free.saturating_sub(RESERVE).max(MINIMUM) {
            true => {
                self.refused.store(true, Ordering::Relaxed);
                Err(PromptError::Memory { mib: used >> 20 })
            }
            false => Ok(()),
        }
    }
}

impl Drop for PromptBytes {
    fn drop(&mut self) {
        let own = *self.bytes.get_mut().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.memory.state();
        if let Some(used) = state.used.get_mut(&self.owner) {
            *used = used.saturating_sub(own);
            if *used == 0 {
                state.used.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    #[test]
    fn an_account_takes_no_more_memory_than_it_leaves() {
        let clock = Clock::stepped(Timestamp::default());
        let memory = PromptMemory::new(Some(|| Some(RESERVE + (100 << 20))), clock);
        let prompt = |account: &str| memory.prompt(Some(account.into()));
        let (first, second) = (prompt("MA1"), prompt("MA1"));
        assert_eq!(first.grow(60 << 20), Ok(()));
        assert_eq!(first.grow(60 << 20), Ok(()), "it has not grown");
        assert_eq!(second.grow(41 << 20), Err(PromptError::Memory { mib: 101 }));
        assert_eq!(prompt("MA2").grow(41 << 20), Ok(()), "others go on");
        drop(first);
        assert_eq!(second.grow(42 << 20), Ok(()), "a prompt that is gone takes nothing");
        drop(second);
        assert!(memory.state().used.is_empty());
    }

    #[test]
    fn while_memory_is_low_short_prompts_are_still_made() {
        let clock = Clock::stepped(Timestamp::default());
        let memory = PromptMemory::new(Some(|| Some(0)), clock);
        let prompt = memory.prompt(None);
        assert_eq!(prompt.grow(4 << 20), Ok(()));
        assert_eq!(prompt.grow((4 << 20) + 1), Err(PromptError::Memory { mib: 4 }));
    }
}
