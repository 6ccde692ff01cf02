//! Ready prompts by what they say, shared between calls, the longest unused thrown out first.
//!
//! Pure: the time comes in. A prompt is entered when its making begins, so that a second call joins it instead of
//! making it again; its size counts once it is ready.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use machine::Sound;
use media::prompt::Prompt;

/// The prompts there are.
pub(super) struct Cache {
    entries: HashMap<Sound, Entry>,
    bytes: usize,
    bytes_max: usize,
    /// Counts uses; stands in for the time of the last.
    uses: u64,
    /// What failed a moment ago, oldest first: a document's sounds are looked for when it comes and again when they play, and
    /// a server that has said no twice is not asked twice more (L24).
    failures: VecDeque<(Instant, Sound, Arc<Prompt>)>,
}

/// How long a failure is remembered, and how many are.
const FAILED: Duration = Duration::from_secs(1);
const FAILURES_MAX: usize = 256;

struct Entry {
    prompt: Arc<Prompt>,
    /// 0 while it is being made.
    bytes: usize,
    used: u64,
    kept: Kept,
}

/// What an entry takes beside its prompt and its key.
const ENTRY_BYTES: usize = 256;

/// How long a ready prompt holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// Text says the same tomorrow.
    Forever,
    /// A file: until then, afterwards after asking its server.
    Until { at: Instant, etag: Option<String> },
}

/// What is known of a sound.
pub(super) enum Found {
    /// Ready, or being made.
    Prompt(Arc<Prompt>),
    /// Ready, but to be asked for again; with the server's tag, if it gave one.
    Stale {
        prompt: Arc<Prompt>,
        etag: Option<String>,
    },
    Nothing,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { entries: HashMap::new(), bytes: 0, bytes_max, uses: 0, failures: VecDeque::new() }
    }

    /// Looks it up, which counts as a use. What failed is not there any more after a moment.
    pub(super) fn find(&mut self, sound: &Sound, now: Instant) -> Found {
        self.uses += 1;
        let Some(entry) =
            self.entries.get_mut(sound).filter(|entry| entry.prompt.failure().is_none())
        else {
            let failed =
                self.failures.iter().rev().find(|(until, other, _)| now < *until && other == sound);
            return failed
                .map_or(Found::Nothing, |(_, _, prompt)| Found::Prompt(Arc::clone(prompt)));
        };
        entry.used = self.uses;
        let prompt = Arc::clone(&entry.prompt);
        match &entry.kept {
            Kept::Until { at, etag } if *at <= now => Found::Stale { prompt, etag: etag.clone() },
            _ => Found::Prompt(prompt),
        }
    }

    /// Enters a prompt that is being made, in place of an older one.
    pub(super) fn begin(&mut self, sound: &Sound, prompt: &Arc<Prompt>) {
        self.forget(sound);
        self.uses += 1;
        let entry =
            Entry { prompt: Arc::clone(prompt), bytes: 0, used: self.uses, kept: Kept::Forever };
        self.entries.insert(sound.clone(), entry);
    }

    /// The prompt is ready and this large.
    pub(super) fn ready(&mut self, sound: &Sound, prompt: &Arc<Prompt>, bytes: usize, kept: Kept) {
        let Some(entry) =
            self.entries.get_mut(sound).filter(|entry| Arc::ptr_eq(&entry.prompt, prompt))
        else {
            return;
        };
        entry.bytes = bytes + key_bytes(sound) + ENTRY_BYTES;
        entry.kept = kept;
        self.bytes += entry.bytes;
        self.shrink();
    }

    /// The prompt failed: who wants it in a moment tries again.
    pub(super) fn failed(&mut self, sound: &Sound, prompt: &Arc<Prompt>, now: Instant) {
        if !self.entries.get(sound).is_some_and(|entry| Arc::ptr_eq(&entry.prompt, prompt)) {
            return;
        }
        self.forget(sound);
        while self.failures.front().is_some_and(|(until, ..)| *until <= now)
            || self.failures.len() >= FAILURES_MAX
        {
            self.failures.pop_front();
        }
        if matches!(sound, Sound::File { .. }) && prompt.failure().is_some() {
            self.failures.push_back((now + FAILED, sound.clone(), Arc::clone(prompt)));
        }
    }

    fn forget(&mut self, sound: &Sound) {
        if let Some(entry) = self.entries.remove(sound) {
            self.bytes -= entry.bytes;
        }
    }

    /// Down to seven eighths once it is too much, so that the search for the oldest is rare.
    fn shrink(&mut self) {
        if self.bytes <= self.bytes_max {
            return;
        }
        let mut by_age: Vec<(u64, Sound)> = self
            .entries
            .iter()
            .filter(|(_, e)| e.bytes > 0)
            .map(|(sound, e)| (e.used, sound.clone()))
            .collect();
        by_age.sort_unstable_by_key(|(used, _)| *used);
        for (_, sound) in by_age {
            if self.bytes <= self.bytes_max / 8 * 7 {
                break;
            }
            self.forget(&sound);
        }
    }
}

/// Roughly what the key takes, by its written form.
fn key_bytes(sound: &Sound) -> usize {
    serde_json::to_vec(sound).map_or(0, |written| written.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::{Cache, Found, Kept};
    use machine::Sound;
    use media::prompt::Prompt;
    use model::Clock;
    use model::Timestamp;

    fn sound(ms: u32) -> Sound {
        Sound::Silence { ms }
    }

    #[test]
    fn the_longest_unused_goes_first_and_the_sum_stays_bounded() {
        let now = Clock::stepped(Timestamp::from_micros(0)).now();
        let mut cache = Cache::new(80_000);
        let prompts: Vec<_> = (0..9).map(|_| Prompt::from_frames([])).collect();
        for (ms, prompt) in (0..).zip(&prompts[..8]) {
            cache.begin(&sound(ms), prompt);
            cache.ready(&sound(ms), prompt, 9_500, Kept::Forever);
        }
        assert!(
            matches!(cache.find(&sound(0), now), Found::Prompt(p) if Arc::ptr_eq(&p, &prompts[0]))
        );
        cache.begin(&sound(8), &prompts[8]);
        cache.ready(&sound(8), &prompts[8], 9_500, Kept::Forever);
        assert!(cache.bytes <= 70_000, "{}", cache.bytes);
        assert!(matches!(cache.find(&sound(0), now), Found::Prompt(_)), "used lately");
        assert!(matches!(cache.find(&sound(1), now), Found::Nothing), "the oldest");
        assert!(matches!(cache.find(&sound(8), now), Found::Prompt(_)));
    }

    #[test]
    fn one_that_is_larger_than_all_is_not_kept() {
        let now = Clock::stepped(Timestamp::from_micros(0)).now();
        let mut cache = Cache::new(80_000);
        let (prompt, _writer) = Prompt::new();
        cache.begin(&sound(1), &prompt);
        cache.ready(&sound(1), &prompt, 100_000, Kept::Forever);
        assert!(matches!(cache.find(&sound(1), now), Found::Nothing));
        assert_eq!(cache.bytes, 0);
    }

    #[test]
    fn a_file_goes_stale_and_a_newer_prompt_is_left_alone() {
        let clock = Clock::stepped(Timestamp::from_micros(0));
        let mut cache = Cache::new(80_000);
        let (old, new) = (Prompt::from_frames([]), Prompt::from_frames([]));
        cache.begin(&sound(1), &old);
        let at = clock.now() + Duration::from_secs(60);
        cache.ready(&sound(1), &old, 10, Kept::Until { at, etag: Some("x".to_owned()) });
        assert!(matches!(cache.find(&sound(1), clock.now()), Found::Prompt(_)));
        clock.step(Duration::from_secs(60));
        let Found::Stale { etag: Some(etag), .. } = cache.find(&sound(1), clock.now()) else {
            panic!("stale")
        };
        assert_eq!(etag, "x");
        cache.begin(&sound(1), &new);
        cache.failed(&sound(1), &old, clock.now());
        assert!(
            matches!(cache.find(&sound(1), clock.now()), Found::Prompt(p) if Arc::ptr_eq(&p, &new))
        );
        cache.failed(&sound(1), &new, clock.now());
        assert!(matches!(cache.find(&sound(1), clock.now()), Found::Nothing));
        assert_eq!(cache.bytes, 0);
    }
}
