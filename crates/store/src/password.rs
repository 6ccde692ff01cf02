//! Password hashing with Argon2id for console users and endpoints. Hashing runs on the blocking
//! pool, a few passwords at a time.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

use model::{Secret, network_prefix};

/// Argon2id parameters: 19 MiB and two passes, as OWASP recommends.
const MEMORY_KIB: u32 = 19 * 1024;

const PASSES: u32 = 2;

const SALT_BYTES: usize = 16;

const HASH_BYTES: usize = 32;

/// Number of concurrent hash computations. Each takes 19 MiB.
const CONCURRENT: usize = 2;

/// Number of requests that may wait for a computation. Further ones fail as busy.
const MAX_WAITING: usize = 256;

/// Number of waiting requests from one network, so that it can't take all places.
const MAX_WAITING_OF_NETWORK: usize = 48;

/// Number of waiting requests of known browsers, beside the others.
const MAX_WAITING_KNOWN: usize = 32;

/// Hashes and verifies passwords. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Passwords {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    /// Places of known clients among the waiting ones.
    waiting_known: Arc<Semaphore>,
    /// Number of waiting requests by network.
    from: Arc<Mutex<HashMap<IpAddr, usize>>>,
    computed: Arc<AtomicU64>,
}

/// A waiting request's place in its network's quota, given back on drop.
struct WaitingPlace {
    from: Arc<Mutex<HashMap<IpAddr, usize>>>,
    network: IpAddr,
}

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        let mut from = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = from.get_mut(&self.network) {
            *places = places.saturating_sub(1);
            if *places == 0 {
                from.remove(&self.network);
            }
        }
    }
}

/// The reason why a password was neither hashed nor verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    #[error("could not check a password: too many requests are waiting")]
    Busy,
    #[error("could not hash a password")]
    Hash,
}

impl Default for Passwords {
    fn default() -> Self {
        let [running, waiting, waiting_known] = [CONCURRENT, MAX_WAITING, MAX_WAITING_KNOWN]
            .map(|places| Arc::new(Semaphore::new(places)));
        Self { running, waiting, waiting_known, from: Arc::default(), computed: Arc::default() }
    }
}

impl Passwords {
    /// Hashes a password with a fresh salt. The result has the form
    /// `argon2id$MEMORY$PASSES$SALT$HASH`.
    ///
    /// # Errors
    /// Fails if too many requests wait, or if the system's random number generator fails.
    pub async fn hash(&self, password: Secret) -> Result<String, PasswordError> {
        let mut salt = [0; SALT_BYTES];
        SystemRandom::new().fill(&mut salt).map_err(|_| PasswordError::Hash)?;
        let made =
            self.run(&self.waiting, move || derive(&password, &salt, MEMORY_KIB, PASSES)).await??;
        let (salt, made) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(made));
        Ok(format!("argon2id${MEMORY_KIB}${PASSES}${salt}${made}"))
    }

    /// Returns whether a password matches `hash`. With `None` it takes as long and returns `false`,
    /// so that the response time doesn't reveal which user names exist.
    ///
    /// # Errors
    /// Fails if too many requests wait.
    pub async fn verify(
        &self,
        password: Secret,
        hash: Option<&str>,
    ) -> Result<bool, PasswordError> {
        self.compare(&self.waiting, password, hash).await
    }

    async fn compare(
        &self,
        waiting: &Semaphore,
        password: Secret,
        hash: Option<&str>,
    ) -> Result<bool, PasswordError> {
        let known = hash.and_then(StoredHash::read);
        let kept = known.clone().unwrap_or_else(StoredHash::dummy);
        let same = move || {
            let made = derive(&password, &kept.salt, kept.memory_kib, kept.passes)?;
            Ok(bool::from(made.as_slice().ct_eq(&kept.hash)))
        };
        Ok(self.run(waiting, same).await?? && known.is_some())
    }

    /// The number of hashes computed so far, which is the work that callers have caused.
    pub fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    /// Like [`Passwords::verify`], with a limit on the requests that wait for the network of `from`.
    ///
    /// # Errors
    /// Fails if too many requests wait, in total or from this network.
    pub async fn verify_from(
        &self,
        from: IpAddr,
        password: Secret,
        hash: Option<&str>,
    ) -> Result<bool, PasswordError> {
        let _place = self.place(network_prefix(from))?;
        self.verify(password, hash).await
    }

    /// Like [`Passwords::verify`], for a client that is recognised, such as a browser in which the
    /// user has signed in before. It has a place even if strangers take all others.
    ///
    /// # Errors
    /// Fails if too many recognised clients wait.
    pub async fn verify_known(
        &self,
        password: Secret,
        hash: Option<&str>,
    ) -> Result<bool, PasswordError> {
        self.compare(&self.waiting_known, password, hash).await
    }

    fn place(&self, network: IpAddr) -> Result<WaitingPlace, PasswordError> {
        let mut from = self.from.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = from.get(&network).copied().unwrap_or_default();
        if taken >= MAX_WAITING_OF_NETWORK {
            return Err(PasswordError::Busy);
        }
        from.insert(network, taken + 1);
        Ok(WaitingPlace { from: self.from.clone(), network })
    }

    async fn run<T: Send + 'static>(
        &self,
        waiting: &Semaphore,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let _waits = waiting.try_acquire().map_err(|_| PasswordError::Busy)?;
        let turn = self.running.clone().acquire_owned().await.map_err(|_| PasswordError::Busy)?;
        self.computed.fetch_add(1, Ordering::Relaxed);
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        done.await.map_err(|_| PasswordError::Hash)
    }
}

/// The parts of a stored hash.
#[derive(Clone)]
struct StoredHash {
    memory_kib: u32,
    passes: u32,
    salt: Vec<u8>,
    hash: Vec<u8>,
}

impl StoredHash {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('$');
        let (kind, memory, passes) =
            (parts.next()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let (salt, hash) = (
            STANDARD_NO_PAD.decode(parts.next()?).ok()?,
            STANDARD_NO_PAD.decode(parts.next()?).ok()?,
        );
        let sound = kind == "argon2id" && parts.next().is_none() && hash.len() == HASH_BYTES;
        sound.then_some(Self { memory_kib: memory, passes, salt, hash })
    }

    fn dummy() -> Self {
        Self {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt: vec![0; SALT_BYTES],
            hash: vec![0; HASH_BYTES],
        }
    }
}

fn derive(
    password: &Secret,
    salt: &[u8],
    memory_kib: u32,
    passes: u32,
) -> Result<[u8; HASH_BYTES], PasswordError> {
    let params =
        Params::new(memory_kib, passes, 1, Some(HASH_BYTES)).map_err(|_| PasswordError::Hash)?;
    let mut made = [0; HASH_BYTES];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.reveal().as_bytes(), salt, &mut made)
        .map_err(|_| PasswordError::Hash)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use crate::password::{MAX_WAITING, MAX_WAITING_OF_NETWORK, PasswordError, Passwords, Secret};

    #[tokio::test]
    async fn r15_verifies_the_right_password_only() {
        let passwords = Passwords::default();
        let secret = |text: &str| Secret::new(text);
        let hash = passwords.hash(secret("correct horse")).await.unwrap();
        assert!(hash.starts_with("argon2id$19456$2$") && !hash.contains("horse"), "{hash}");
        assert_ne!(
            hash,
            passwords.hash(secret("correct horse")).await.unwrap(),
            "each has its own salt"
        );
        let cases =
            [("correct horse", Some(hash.as_str()), true), ("correct hors", Some(&hash), false)];
        let others = [
            ("", Some(hash.as_str()), false),
            ("correct horse", None, false),
            ("x", Some("x$1"), false),
        ];
        for (password, hash, same) in cases.into_iter().chain(others) {
            assert_eq!(
                passwords.verify(secret(password), hash).await,
                Ok(same),
                "{password} {hash:?}"
            );
        }
        let [here, there] = ["192.0.2.1", "198.51.100.1"].map(|ip| ip.parse().unwrap());
        let mut places: Vec<_> =
            (0..MAX_WAITING_OF_NETWORK).map(|_| passwords.place(here).unwrap()).collect();
        assert_eq!(
            passwords.verify_from(here, secret("x"), Some(&hash)).await,
            Err(PasswordError::Busy),
            "the network's quota is used up"
        );
        assert_eq!(
            passwords.verify_from(there, secret("correct horse"), Some(&hash)).await,
            Ok(true)
        );
        places.pop();
        assert_eq!(passwords.verify_from(here, secret("x"), Some(&hash)).await, Ok(false));
        drop(places);
        assert!(passwords.from.lock().unwrap().is_empty());
        let all = u32::try_from(MAX_WAITING).unwrap();
        let _all = passwords.waiting.clone().acquire_many_owned(all).await.unwrap();
        assert_eq!(passwords.verify(secret("x"), Some(&hash)).await, Err(PasswordError::Busy));
        assert_eq!(
            passwords.verify_known(secret("correct horse"), Some(&hash)).await,
            Ok(true),
            "a known browser has a place"
        );
    }
}
