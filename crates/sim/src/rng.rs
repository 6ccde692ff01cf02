//! The simulator's source of randomness. It has one seed, so that a run can be repeated.

use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A shared, seeded random number generator.
#[derive(Debug)]
pub(crate) struct SimRng(Mutex<StdRng>);

impl SimRng {
    /// Creates a generator with this seed, or with one from the system.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| rand::rng().next_u64());
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    pub(crate) fn next_u64(&self) -> u64 {
        super::locked(&self.0).next_u64()
    }

    pub(crate) fn next_u32(&self) -> u32 {
        super::locked(&self.0).next_u32()
    }

    pub(crate) fn next_bool(&self) -> bool {
        self.next_u32() & 1 == 1
    }

    pub(crate) fn range(&self, low: u64, high: u64) -> u64 {
        super::locked(&self.0).random_range(low..=high)
    }

    pub(crate) fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        super::locked(&self.0).fill_bytes(&mut bytes);
        bytes
    }

    /// Random characters of the Base64 alphabet, as in ICE credentials and ids.
    pub(crate) fn text(&self, length: usize) -> String {
        let mut rng = super::locked(&self.0);
        (0..length)
            .filter_map(|_| BASE64.get(usize::from(rng.next_u32().to_le_bytes()[0] & 63)))
            .map(|b| char::from(*b))
            .collect()
    }

    pub(crate) fn uuid(&self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }
}
