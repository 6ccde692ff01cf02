//! Mutates known-good inputs and checks how a target handles them.
//!
//! The nth input depends on the seed alone, so a failure can name the one command that reproduces
//! it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use model::Clock;

use crate::alloc::{largest_in, worked};

/// A format and what its readers must keep to.
pub struct Format {
    pub name: &'static str,
    pub corpus: Vec<Vec<u8>>,
    /// Tokens of the format, inserted by mutations.
    pub words: &'static [&'static str],
    pub bytes_max: usize,
    pub millis_max: u64,
    /// The largest single allocation, as a multiple of the input length, on top of 1 MiB.
    pub memory_max: usize,
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
            millis_max: 100,
            memory_max: 16,
        }
    }

    /// Returns the `n`th input: the corpus first, then mutations of it.
    fn input(&self, seed: u64, n: u64) -> Vec<u8> {
        if let Some(whole) = usize::try_from(n).ok().and_then(|n| self.corpus.get(n)) {
            return whole.clone();
        }
        let mut dice = Dice(seed ^ n.wrapping_mul(0x2545_f491_4f6c_dd1d));
        if dice.below(32) == 0 {
            return (0..dice.below(300)).map(|_| dice.byte()).collect();
        }
        let mut input = self.corpus[dice.below(self.corpus.len())].clone();
        for _ in 0..1 << dice.below(5) {
            self.bend(&mut input, &mut dice);
        }
        input.truncate(self.bytes_max);
        input
    }

    fn bend(&self, input: &mut Vec<u8>, dice: &mut Dice) {
        let at = dice.below(input.len() + 1);
        let span = at..at + dice.short().min(input.len() - at);
        match dice.below(11) {
            0 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << dice.below(8);
                }
            }
            1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = MARKS[dice.below(MARKS.len())];
                }
            }
            2 if !self.words.is_empty() => {
                let word = self.words[dice.below(self.words.len())].bytes();
                drop(input.splice(at..at, word));
            }
            3 if !self.words.is_empty() => {
                let word = self.words[dice.below(self.words.len())].bytes();
                drop(input.splice(span, word));
            }
            4 => drop(input.drain(span)),
            5 => {
                // Usually once, sometimes as often as it fits.
                let piece = input[span].to_vec();
                let room = self.bytes_max.saturating_sub(input.len()) / piece.len().max(1);
                let times = if dice.below(12) == 0 { room } else { 1 };
                drop(input.splice(at..at, piece.repeat(times.min(room))));
            }
            6 => {
                let other = &self.corpus[dice.below(self.corpus.len())];
                input.truncate(at);
                input.extend_from_slice(&other[dice.below(other.len() + 1)..]);
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
                        input.splice(
                            from..from + digits,
                            NUMBERS[dice.below(NUMBERS.len())].bytes(),
                        ),
                    );
                }
            }
            9 => {
                let noise: Vec<u8> = (0..dice.short()).map(|_| dice.byte()).collect();
                drop(input.splice(at..at, noise));
            }
            _ => {
                let piece: Vec<u8> = input.drain(span).collect();
                let to = dice.below(input.len() + 1);
                drop(input.splice(to..to, piece));
            }
        }
    }

    /// One input; what is wrong, if something is.
    fn judge(&self, input: &[u8]) -> Result<(), String> {
        let mut quickest = Duration::MAX;
        let limit = Duration::from_millis(self.millis_max);
        // In time at work; and even so only what is slow each time is slow.
        for _ in 0..5 {
            let begun = worked();
            let mut outcome = Ok(());
            let largest =
                largest_in(|| outcome = catch_unwind(AssertUnwindSafe(|| (self.target)(input))));
            quickest = quickest.min(worked() - begun);
            outcome.map_err(|_| "panics".to_owned())?;
            let allowed = self.memory_max * input.len() + (1 << 20);
            if largest > allowed {
                return Err(format!("asks for {largest} bytes at once; {allowed} are allowed"));
            }
            if quickest <= limit {
                return Ok(());
            }
        }
        Err(format!("takes {quickest:?}; {limit:?} are allowed"))
    }
}

/// Fails with the first input that is not taken calmly.
pub fn check(format: &Format) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("OFFHOOK_FUZZ_SEED").unwrap_or(0x0ff_400c);
    let clock = Clock::real();
    let until = clock.now() + Duration::from_secs(number("OFFHOOK_FUZZ_SECONDS").unwrap_or(5));
    let whole = format.corpus.len() as u64;
    let (from, to) = number("OFFHOOK_FUZZ_ONLY").map_or((0, u64::MAX), |n| (n, n));
    for n in from..=to {
        if n >= whole && clock.now() > until && from != to {
            break;
        }
        let input = format.input(seed, n);
        if let Err(what) = format.judge(&input) {
            let shown: String = input.escape_ascii().to_string().chars().take(4_000).collect();
            panic!(
                "{} {what}: input {n} of seed {seed}, {} bytes. Again:\n  \
                 OFFHOOK_FUZZ_SEED={seed} OFFHOOK_FUZZ_ONLY={n} cargo test --test fuzz {}\n{shown}",
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
struct Dice(u64);

impl Dice {
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
