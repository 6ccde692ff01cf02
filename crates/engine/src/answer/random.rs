//! Random numbers for nonces and jitter. `node` provides the source.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A source of random 64-bit numbers; cheap to clone.
#[derive(Clone)]
pub struct RandomSource(Arc<dyn Fn() -> u64 + Send + Sync>);

impl fmt::Debug for RandomSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RandomSource")
    }
}

impl RandomSource {
    /// The system's random number generator.
    pub fn system() -> Self {
        Self::from_fn(rand::random)
    }

    /// Creates a source from a function, such as a seeded generator.
    pub fn from_fn(roll: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(roll))
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        (self.0)()
    }

    /// A nonce of 20 decimal digits for Plivo's signatures.
    pub fn nonce(&self) -> String {
        let wide = u128::from((self.0)()) << 64 | u128::from((self.0)());
        format!("{:020}", wide % 100_000_000_000_000_000_000)
    }

    /// A random duration within 20 % of `around`.
    pub fn spread(&self, around: Duration) -> Duration {
        let per_mille = u32::try_from((self.0)() % 401).unwrap_or(200) + 800;
        around.saturating_mul(per_mille) / 1000
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::RandomSource;

    #[test]
    fn nonces_have_20_digits_and_spreads_stay_within_a_fifth() {
        for roll in [0, 1, 400, 401, u64::MAX, 0x9e37_79b9_7f4a_7c15] {
            let random = RandomSource::from_fn(move || roll);
            let nonce = random.nonce();
            assert!(nonce.len() == 20 && nonce.bytes().all(|b| b.is_ascii_digit()), "{nonce}");
            let spread = random.spread(Duration::from_secs(10));
            assert!((8_000..=12_000).contains(&spread.as_millis()), "{spread:?}");
        }
        assert_ne!(RandomSource::system().nonce(), RandomSource::system().nonce());
    }
}
