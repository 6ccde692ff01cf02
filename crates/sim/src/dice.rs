//! Where the simulator's chance comes from: one seeded source, so that a run can be repeated.

use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Seeded chance; shared.
#[derive(Debug)]
pub(crate) struct Dice(Mutex<StdRng>);

impl Dice {
    /// With a seed the same every time, else from the system.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let seed = seed.unwrap_or_else(|| rand::rng().next_u64());
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    pub(crate) fn number(&self) -> u64 {
        super::locked(&self.0).next_u64()
    }

    pub(crate) fn number32(&self) -> u32 {
        super::locked(&self.0).next_u32()
    }

    pub(crate) fn coin(&self) -> bool {
        self.number32() & 1 == 1
    }

    pub(crate) fn between(&self, low: u64, high: u64) -> u64 {
        super::locked(&self.0).random_range(low..=high)
    }

    pub(crate) fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        super::locked(&self.0).fill_bytes(&mut bytes);
        bytes
    }

    /// Characters of the Base64 alphabet: what ufrag, pwd and ids are made of.
    pub(crate) fn text(&self, length: usize) -> String {
        let mut dice = super::locked(&self.0);
        (0..length)
            .filter_map(|_| BASE64.get(usize::from(dice.next_u32().to_le_bytes()[0] & 63)))
            .map(|b| char::from(*b))
            .collect()
    }

    /// A v4 UUID.
    pub(crate) fn uuid(&self) -> uuid::Uuid {
        uuid::Builder::from_random_bytes(self.bytes()).into_uuid()
    }
}
