//! Encryption of secrets in the database, so that a copy of the database files reveals none.
//!
//! Values are sealed with AES-256-GCM. The key is derived with HKDF from `store.secret_key` or, if
//! that is not set, from a key file. A sealed value opens only for the purpose that it was sealed
//! for. There is one key at a time: values that were sealed with another key can't be read.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::{hkdf, hmac, rand};
use zeroize::Zeroizing;

use model::Secret;

/// Name of the key file in `store.data_dir`.
const KEY_FILE: &str = "store.key";

/// Number of random bytes in a key file, which holds them in hexadecimal.
const KEY_BYTES: usize = 32;

/// Read limit in bytes, larger than any valid key file.
const READ_MAX: u64 = 200;

/// Version byte, the first byte of every sealed value.
const VERSION: u8 = 1;

/// HKDF info string of the encryption key. Each use of the secret has its own.
const PURPOSE: &[u8] = b"offhook store AES-256-GCM 1";

const LINK_PURPOSE: &[u8] = b"offhook links HMAC-SHA256 1";

/// The keys that encrypt secrets and sign links.
pub(crate) struct Seal {
    sealing: RandomizedNonceKey,
    /// Signs links.
    links: hmac::Key,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal(…)")
    }
}

impl Seal {
    /// Derives the keys from `secret` or, if that is `None`, from the key file in `folder`, which
    /// is created if it does not exist.
    ///
    /// # Errors
    /// Fails if the key file can't be read or created, or does not hold a key.
    pub(crate) fn of(secret: Option<&Secret>, folder: &Path) -> io::Result<Self> {
        match secret {
            Some(secret) => Self::derive(secret.reveal().as_bytes()),
            None => Self::derive(key_file(folder)?.as_bytes()),
        }
    }

    /// Like [`Seal::of`], but never creates a key file. Without a secret and a key file, no sealed
    /// value opens.
    ///
    /// # Errors
    /// Fails if the key file can't be read or does not hold a key.
    pub(crate) fn read_only(secret: Option<&Secret>, folder: &Path) -> io::Result<Self> {
        if secret.is_some() || folder.join(KEY_FILE).exists() {
            return Self::of(secret, folder);
        }
        let mut random = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(random.as_mut())
            .map_err(|_| io::Error::other("the system's random number generator failed"))?;
        Self::derive(random.as_ref())
    }

    fn derive(secret: &[u8]) -> io::Result<Self> {
        let failed = |_| io::Error::other("no key can be derived from the secret");
        let mut key = Zeroizing::new([0; 32]);
        let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
        let expanded = extracted.expand(&[PURPOSE], &AES_256_GCM).map_err(failed)?;
        expanded.fill(key.as_mut()).map_err(failed)?;
        let sealing = RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).map_err(failed)?;
        let expanded = extracted.expand(&[LINK_PURPOSE], hkdf::HKDF_SHA256).map_err(failed)?;
        expanded.fill(key.as_mut()).map_err(failed)?;
        Ok(Self { sealing, links: hmac::Key::new(hmac::HMAC_SHA256, key.as_ref()) })
    }

    /// The key that signs links of limited validity.
    pub(crate) fn links(&self) -> hmac::Key {
        self.links.clone()
    }

    /// Returns a fingerprint of the key, which identifies it without revealing it.
    pub(crate) fn fingerprint(&self) -> String {
        let tag = hmac::sign(&self.links, b"offhook: fingerprint");
        hex::encode(tag.as_ref().get(..8).unwrap_or_default())
    }

    /// Encrypts `plain`. [`Seal::open`] needs the same `purpose`.
    pub(crate) fn seal(&self, purpose: &[u8], mut plain: Vec<u8>) -> Vec<u8> {
        // Encryption fails only above 64 GiB. The empty result can't be opened and reveals nothing.
        let Ok(nonce) = self.sealing.seal_in_place_append_tag(Aad::from(purpose), &mut plain)
        else {
            return Vec::new();
        };
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len());
        sealed.push(VERSION);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.append(&mut plain);
        sealed
    }

    /// Decrypts a sealed value. Returns `None` if it was sealed with another key or for another
    /// purpose, or was changed.
    pub(crate) fn open(&self, purpose: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (nonce, sealed) = sealed.strip_prefix(&[VERSION])?.split_at_checked(NONCE_LEN)?;
        let mut text = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.sealing.open_in_place(nonce, Aad::from(purpose), &mut text).ok()?.len();
        text.truncate(plain);
        Some(text)
    }
}

/// Returns the text of the key file in a folder, and creates the file if it does not exist.
fn key_file(folder: &Path) -> io::Result<Zeroizing<String>> {
    let path = folder.join(KEY_FILE);
    match File::open(&path) {
        Ok(file) => read(file, &path),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create_key_file(folder, &path)?;
            read(File::open(&path)?, &path)
        }
        Err(error) => Err(error),
    }
}

fn read(file: File, path: &Path) -> io::Result<Zeroizing<String>> {
    // The buffer must not grow: a reallocation would leave part of the key in freed memory.
    let mut text = Zeroizing::new(String::with_capacity(KEY_BYTES * 4));
    match file.take(READ_MAX).read_to_string(&mut text) {
        // Not UTF-8, so it does not hold a key.
        Err(error) if error.kind() == ErrorKind::InvalidData => text.clear(),
        read => drop(read?),
    }
    let key = text.trim_end().len();
    text.truncate(key);
    if text.len() == KEY_BYTES * 2 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text);
    }
    let detail = format!(
        "{} does not hold a key: restore the right file, or move it away to create a new key",
        path.display()
    );
    Err(io::Error::new(ErrorKind::InvalidData, detail))
}

/// Creates a key file atomically. The file is synced before anything is sealed with its key.
fn create_key_file(folder: &Path, path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    rand::fill(key.as_mut())
        .map_err(|_| io::Error::other("the system's random number generator failed"))?;
    let mut text = Zeroizing::new(hex::encode(key.as_ref()));
    text.push('\n');
    let unfinished = folder.join(format!("{KEY_FILE}.new"));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, path)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use crate::seal::KEY_FILE;
    use crate::seal::Seal;
    use model::Secret;

    fn of(secret: &str) -> Seal {
        Seal::of(Some(&Secret::new(secret)), std::path::Path::new("/nowhere")).unwrap()
    }

    #[test]
    fn r22_a_sealed_value_opens_only_with_its_key_and_purpose() {
        let (ours, theirs) = (of("a"), of("b"));
        let sealed = ours.seal(b"row 1", b"4711".to_vec());
        assert_eq!(sealed.len(), 1 + 12 + 4 + 16);
        assert!(!sealed.windows(4).any(|w| w == b"4711"));
        assert_ne!(sealed, ours.seal(b"row 1", b"4711".to_vec()), "each has its own nonce");
        assert_eq!(**of("a").open(b"row 1", &sealed).unwrap(), *b"4711");
        assert!(ours.open(b"row 2", &sealed).is_none() && theirs.open(b"row 1", &sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(
                ours.open(b"row 1", &changed).is_none()
                    && ours.open(b"row 1", &sealed[..at]).is_none()
            );
        }
        assert_eq!(format!("{ours:?}"), "Seal(…)");
    }

    #[test]
    fn r22_without_a_secret_a_key_file_with_mode_0600_is_created() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let sealed = Seal::of(None, &data).unwrap().seal(b"", b"4711".to_vec());
        assert_eq!(
            **Seal::of(None, &data).unwrap().open(b"", &sealed).unwrap(),
            *b"4711",
            "created once"
        );
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(data.clone()), mode(data.join(KEY_FILE))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(&data).unwrap().count(), 1);
        let elsewhere = folder.path().join("elsewhere");
        assert!(Seal::read_only(None, &elsewhere).unwrap().open(b"", &sealed).is_none());
        assert!(!elsewhere.exists(), "a reader creates no key file");
        assert_eq!(**Seal::read_only(None, &data).unwrap().open(b"", &sealed).unwrap(), *b"4711");
        for bad in ["", "xyz", &"f".repeat(63), &"g".repeat(64), &"f".repeat(65)] {
            std::fs::write(data.join(KEY_FILE), bad).unwrap();
            let refused = Seal::of(None, &data).unwrap_err().to_string();
            assert!(
                refused.contains("does not hold a key")
                    && (bad.is_empty() || !refused.contains(bad)),
                "{refused}"
            );
        }
        std::fs::write(data.join(KEY_FILE), [0xff; 64]).unwrap();
        let refused = Seal::of(None, &data).unwrap_err().to_string();
        assert!(refused.contains("does not hold a key"), "{refused}");
    }
}
