//! An in-memory cache of prompts, keyed by sound and shared between calls, with least-recently-used
//! eviction.
//!
//! It does no I/O and takes the time as a parameter. A prompt is inserted when its creation begins,
//! so that concurrent calls share it; its size counts once it is complete.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::Sound;
use media::prompt::Prompt;

/// The cached prompts.
pub(super) struct Cache {
    entries: HashMap<Sound, Entry>,
    bytes: usize,
    bytes_max: usize,
    /// The number of lookups so far, which serves as the timestamp of the last use.
    uses: u64,
    /// Recent failures, oldest first. A document's sounds are looked up when it is fetched and
    /// again when they are played. Without this list, a server that has failed twice would get two
    /// further requests.
    failures: VecDeque<(Instant, Sound, Arc<Prompt>)>,
}

/// Time for which a failure is remembered, followed by the maximum number of remembered failures.
const FAILURE_TTL: Duration = Duration::from_secs(1);
const FAILURES_MAX: usize = 256;

struct Entry {
    prompt: Arc<Prompt>,
    /// The size of the prompt in bytes. 0 until it is complete.
    bytes: usize,
    used: u64,
    validity: Validity,
}

/// Memory of an entry in addition to its prompt and key, in bytes.
const ENTRY_BYTES: usize = 256;

/// The period for which a complete prompt is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Validity {
    /// The prompt does not expire, because speech, tones and silence do not change.
    Forever,
    /// A file is valid until `at`. After that it must be requested from its server again.
    Until { at: Instant, etag: Option<String> },
}

/// The result of a lookup.
pub(super) enum Lookup {
    /// The prompt is complete or being created.
    Prompt(Arc<Prompt>),
    /// The prompt has expired. `etag` is the tag that its server sent, if any.
    Stale {
        prompt: Arc<Prompt>,
        etag: Option<String>,
    },
    Missing,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), bytes: 0, bytes_max, uses: 0, failures: VecDeque::new() }
    }

    /// Looks up a prompt and marks it as used. A failed prompt is returned for a short time and
    /// then treated as missing.
    pub(super) fn lookup(&mut self, sound: &Sound, now: Instant) -> Lookup {
        self.uses += 1;
        while self.failures.front().is_some_and(|(until, ..)| *until <= now) {
            self.failures.pop_front();
        }
        let Some(entry) =
            self.entries.get_mut(sound).filter(|entry| entry.prompt.failure().is_none())
        else {
            let failure = self
                .failures
                .iter()
                .rev()
                .find(|(until, failed, _)| now < *until && failed == sound);
            return failure
                .map_or(Lookup::Missing, |(_, _, prompt)| Lookup::Prompt(Arc::clone(prompt)));
        };
        entry.used = self.uses;
        let prompt = Arc::clone(&entry.prompt);
        match &entry.validity {
            Validity::Until { at, etag } if *at <= now => {
                Lookup::Stale { prompt, etag: etag.clone() }
            }
            _ => Lookup::Prompt(prompt),
        }
    }

    /// Inserts a prompt that is being created, and replaces an older one.
    pub(super) fn insert(&mut self, sound: &Sound, prompt: &Arc<Prompt>) {
        self.remove(sound);
        self.uses += 1;
        let entry = Entry {
            prompt: Arc::clone(prompt),
            bytes: 0,
            used: self.uses,
            validity: Validity::Forever,
        };
        self.entries.insert(sound.clone(), entry);
    }

    /// Records that a prompt is complete with this size.
    pub(super) fn complete(
        &mut self,
        sound: &Sound,
        prompt: &Arc<Prompt>,
        bytes: usize,
        validity: Validity,
    ) {
        let Some(entry) =
            self.entries.get_mut(sound).filter(|entry| Arc::ptr_eq(&entry.prompt, prompt))
        else {
            return;
        };
        entry.bytes = bytes + key_bytes(sound) + ENTRY_BYTES;
        entry.validity = validity;
        self.bytes += entry.bytes;
        self.evict();
    }

    /// Removes a failed prompt, so that a later lookup tries again. The failure of a file is
    /// remembered for a short time.
    pub(super) fn remove_failed(&mut self, sound: &Sound, prompt: &Arc<Prompt>, now: Instant) {
        if !self.has(sound, prompt) {
            return;
        }
        self.remove(sound);
        while self.failures.front().is_some_and(|(until, ..)| *until <= now)
            || self.failures.len() >= FAILURES_MAX
        {
            self.failures.pop_front();
        }
        if matches!(sound, Sound::File { .. }) && prompt.failure().is_some() {
            self.failures.push_back((now + FAILURE_TTL, sound.clone(), Arc::clone(prompt)));
        }
    }

    /// Removes a prompt that is being created if only its creator, with up to `own` references, and
    /// this cache refer to it. Returns whether only they do.
    pub(super) fn remove_unused(
        &mut self,
        sound: &Sound,
        prompt: &Arc<Prompt>,
        own: usize,
    ) -> bool {
        let is_here = self.has(sound, prompt);
        // Only this cache gives prompts to others, and it is borrowed here.
        let is_unused = Arc::strong_count(prompt) <= own + usize::from(is_here);
        if is_here && is_unused {
            self.remove(sound);
        }
        is_unused
    }

    fn has(&self, sound: &Sound, prompt: &Arc<Prompt>) -> bool {
        self.entries.get(sound).is_some_and(|entry| Arc::ptr_eq(&entry.prompt, prompt))
    }

    fn remove(&mut self, sound: &Sound) {
        if let Some(entry) = self.entries.remove(sound) {
            self.bytes -= entry.bytes;
        }
    }

    /// Removes all complete prompts, because memory is short. Calls keep those that they have.
    pub(super) fn free(&mut self) {
        self.entries.retain(|_, entry| entry.bytes == 0);
        self.bytes = 0;
    }

    /// Evicts down to seven eighths of the limit, so that entries are rarely sorted.
    fn evict(&mut self) {
        if self.bytes <= self.bytes_max {
            return;
        }
        let mut by_use: Vec<(u64, Sound)> = self
            .entries
            .iter()
            .filter(|(_, e)| e.bytes > 0)
            .map(|(sound, e)| (e.used, sound.clone()))
            .collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, sound) in by_use {
            if self.bytes <= self.bytes_max / 8 * 7 {
                break;
            }
            self.remove(&sound);
        }
    }
}

/// Estimates the memory of a key by its serialized size.
fn key_bytes(sound: &Sound) -> usize {
    serde_json::to_vec(sound).map_or(0, |serialized| serialized.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Cache, Lookup, Validity};
    use machine::Sound;
    use media::prompt::Prompt;
    use model::Clock;
    use model::Timestamp;

    fn sound(ms: u32) -> Sound {
        Sound::Silence { ms }
    }

    #[test]
    fn the_least_recently_used_prompt_is_evicted_first() {
        let now = Clock::stepped(Timestamp::from_micros(0)).now();
        let mut cache = Cache::new(80_000);
        let prompts: Vec<_> = (0..9).map(|_| Prompt::from_frames([])).collect();
        for (ms, prompt) in (0..).zip(&prompts[..8]) {
            cache.insert(&sound(ms), prompt);
            cache.complete(&sound(ms), prompt, 9_500, Validity::Forever);
        }
        assert!(
            matches!(cache.lookup(&sound(0), now), Lookup::Prompt(p) if Arc::ptr_eq(&p, &prompts[0]))
        );
        cache.insert(&sound(8), &prompts[8]);
        cache.complete(&sound(8), &prompts[8], 9_500, Validity::Forever);
        assert!(cache.bytes <= 70_000, "{}", cache.bytes);
        assert!(matches!(cache.lookup(&sound(0), now), Lookup::Prompt(_)), "recently used");
        assert!(matches!(cache.lookup(&sound(1), now), Lookup::Missing), "the oldest");
        assert!(matches!(cache.lookup(&sound(8), now), Lookup::Prompt(_)));
    }

    #[test]
    fn a_prompt_larger_than_the_cache_is_not_kept() {
        let now = Clock::stepped(Timestamp::from_micros(0)).now();
        let mut cache = Cache::new(80_000);
        let (prompt, _writer) = Prompt::new();
        cache.insert(&sound(1), &prompt);
        cache.complete(&sound(1), &prompt, 100_000, Validity::Forever);
        assert!(matches!(cache.lookup(&sound(1), now), Lookup::Missing));
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn a_file_expires_and_a_stale_failure_does_not_remove_a_newer_prompt() {
        let clock = Clock::stepped(Timestamp::from_micros(0));
        let mut cache = Cache::new(80_000);
        let (old, new) = (Prompt::from_frames([]), Prompt::from_frames([]));
        cache.insert(&sound(1), &old);
        let at = clock.now() + Duration::from_secs(60);
        cache.complete(&sound(1), &old, 10, Validity::Until { at, etag: Some("x".to_owned()) });
        assert!(matches!(cache.lookup(&sound(1), clock.now()), Lookup::Prompt(_)));
        clock.step(Duration::from_secs(60));
        let Lookup::Stale { etag: Some(etag), .. } = cache.lookup(&sound(1), clock.now()) else {
            panic!("not stale")
        };
        assert_eq!(etag, "x");
        cache.insert(&sound(1), &new);
        cache.remove_failed(&sound(1), &old, clock.now());
        assert!(
            matches!(cache.lookup(&sound(1), clock.now()), Lookup::Prompt(p) if Arc::ptr_eq(&p, &new))
        );
        cache.remove_failed(&sound(1), &new, clock.now());
        assert!(matches!(cache.lookup(&sound(1), clock.now()), Lookup::Missing));
        assert_eq!(cache.bytes, 0);
    }
}
