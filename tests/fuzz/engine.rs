//! Mutates known-good inputs and checks how a target handles them.
//!
//! The nth input depends on the seed alone, so a failure can name the one command that reproduces
//! it. The limits are numbers and sizes of allocations, which are the same on a loaded machine. The
//! time per input is asserted only with `OFFHOOK_TEST_FIGURES` set.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use model::Clock;

use crate::alloc::{measure, thread_time};

/// A format with its inputs and limits.
pub struct Format {
    pub name: &'static str,
    /// Valid inputs, the starting points of mutations.
    pub corpus: Vec<Vec<u8>>,
    /// Tokens of the format, inserted by mutations.
    pub words: &'static [&'static str],
    /// The longest mutated input.
    pub bytes_max: usize,
    /// The largest single allocation, as a multiple of the input length, on top of 1 MiB.
    pub largest_max: usize,
    /// All allocated bytes together, as a multiple of the input length, on top of 4 MiB.
    pub total_max: usize,
    /// The number of allocations, as a multiple of the input length, on top of 10,000.
    pub count_max: usize,
    /// Processor time per input, asserted only on an otherwise idle machine.
    pub millis_max: u64,
    pub target: fn(&[u8]),
}

impl Format {
    /// Limits that apply to most formats.
    pub fn new(name: &'static str, target: fn(&[u8])) -> Self {
        Self {
            name,
            target,
            corpus: Vec::new(),
            words: &[],
            bytes_max: 30_000,
            largest_max: 16,
            total_max: 500,
            count_max: 4,
            millis_max: 100,
        }
    }

    /// Returns the `n`th input: the corpus first, then mutations of it.
    fn input(&self, seed: u64, n: u64) -> Vec<u8> {
        if let Some(valid) = usize::try_from(n).ok().and_then(|n| self.corpus.get(n)) {
            return valid.clone();
        }
        let mut rng = Rng(seed ^ n.wrapping_mul(0x2545_f491_4f6c_dd1d));
        if rng.below(32) == 0 {
            return (0..rng.below(300)).map(|_| rng.byte()).collect();
        }
        let mut input = self.corpus[rng.below(self.corpus.len())].clone();
        for _ in 0..1 << rng.below(5) {
            self.mutate(&mut input, &mut rng);
        }
        input.truncate(self.bytes_max);
        input
    }

    fn mutate(&self, input: &mut Vec<u8>, rng: &mut Rng) {
        let at = rng.below(input.len() + 1);
        let span = at..at + rng.short().min(input.len() - at);
        match rng.below(11) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << rng.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = MARKS[rng.below(MARKS.len())];
                }
            }
            2 if !self.words.is_empty() => {
                let word = self.words[rng.below(self.words.len())].bytes();
                drop(input.splice(at..at, word));
            }
            3 if !self.words.is_empty() => {
                let word = self.words[rng.below(self.words.len())].bytes();
                drop(input.splice(span, word));
            }
            4 => drop(input.drain(span)),
            5 => {
                // Usually once, sometimes as often as it fits.
                let piece = input[span].to_vec();
                let room = self.bytes_max.saturating_sub(input.len()) / piece.len().max(1);
                let times = if rng.below(12) == 0 { room } else { 1 };
                drop(input.splice(at..at, piece.repeat(times.min(room))));
            }
            6 => {
                let other = &self.corpus[rng.below(self.corpus.len())];
                input.truncate(at);
                input.extend_from_slice(&other[rng.below(other.len() + 1)..]);
            }
            7 => input.truncate(at),
            8 => {
                if let Some(from) = input[at..].iter().position(u8::is_ascii_digit).map(|p| at + p)
                {
                    let digits = input[from..].iter().take_while(|b| b.is_ascii_digit()).count();
                    const NUMBERS: [&str; 10] = [
                        "0",
                        "-1",
                        "65536",
                        "2147483648",
                        "4294967295",
                        "9223372036854775807",
                        "18446744073709551615",
                        "99999999999999999999999",
                        "1e308",
                        "0.00001",
                    ];
                    drop(
                        input
                            .splice(from..from + digits, NUMBERS[rng.below(NUMBERS.len())].bytes()),
                    );
                }
            }
            9 => {
                let noise: Vec<u8> = (0..rng.short()).map(|_| rng.byte()).collect();
                drop(input.splice(at..at, noise));
            }
            _ => {
                let piece: Vec<u8> = input.drain(span).collect();
                let to = rng.below(input.len() + 1);
                drop(input.splice(to..to, piece));
            }
        }
    }

    /// Runs the target on one input. Fails with the limit that it exceeds.
    fn judge(&self, input: &[u8]) -> Result<(), String> {
        let run = || catch_unwind(AssertUnwindSafe(|| (self.target)(input)));
        let (outcome, usage) = measure(run);
        outcome.map_err(|_| "panics".to_owned())?;
        let allowed = |per_byte: usize, base: usize| per_byte * input.len() + base;
        for (what, used, allowed) in [
            ("bytes in one allocation", usage.largest, allowed(self.largest_max, 1 << 20)),
            ("bytes in all allocations", usage.total, allowed(self.total_max, 4 << 20)),
            ("allocations", usage.count, allowed(self.count_max, 10_000)),
        ] {
            if used > allowed {
                return Err(format!("needs {used} {what}; {allowed} are allowed"));
            }
        }
        if !crate::figures() {
            return Ok(());
        }
        let limit = Duration::from_millis(self.millis_max);
        let fastest = fastest_of_five(|| (self.target)(input));
        if fastest > limit {
            return Err(format!("takes {fastest:?}; {limit:?} are allowed"));
        }
        Ok(())
    }
}

/// Returns the lowest processor time of five runs.
pub fn fastest_of_five(run: impl Fn()) -> Duration {
    let time = |_| {
        let begun = thread_time();
        run();
        thread_time() - begun
    };
    (0..5).map(time).min().unwrap_or_default()
}

/// Runs the corpus and then mutated inputs until the time is up. Panics at the first input that
/// exceeds a limit.
pub fn check(format: &Format) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("OFFHOOK_FUZZ_SEED").unwrap_or(0x0ff_400c);
    let clock = Clock::real();
    let until = clock.now() + Duration::from_secs(number("OFFHOOK_FUZZ_SECONDS").unwrap_or(5));
    let corpus_len = format.corpus.len() as u64;
    // Exclude lazy initialisation from the measurements.
    drop(catch_unwind(AssertUnwindSafe(|| (format.target)(&format.corpus[0]))));
    let (from, to) = number("OFFHOOK_FUZZ_ONLY").map_or((0, u64::MAX), |n| (n, n));
    for n in from..=to {
        if n >= corpus_len && clock.now() > until && from != to {
            break;
        }
        let input = format.input(seed, n);
        if let Err(fault) = format.judge(&input) {
            let excerpt: String = input.escape_ascii().to_string().chars().take(4_000).collect();
            panic!(
                "{} {fault}: input {n} of seed {seed}, {} bytes. Reproduce with:\n  \
                 OFFHOOK_FUZZ_SEED={seed} OFFHOOK_FUZZ_ONLY={n} cargo test --test fuzz {}\n{excerpt}",
                format.name,
                input.len(),
                format.name
            );
        }
    }
}

/// Bytes that are significant in most formats.
const MARKS: &[u8] = b"\0\x01\x7f\x80\xff\"'<>&[]{}:,= \n\r\\/09-.";

/// The SplitMix64 generator.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number below `n`, or 0 if `n` is 0.
    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or_default()
    }

    /// Returns a length that is usually small and sometimes in the hundreds.
    fn short(&mut self) -> usize {
        let most = 1 << (1 + self.below(9));
        1 + self.below(most)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
