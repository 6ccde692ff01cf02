//! SRTP and SRTCP of one leg, apart from the WebRTC library: what DTLS agreed on, as two directions that seal and open.
//!
//! Pure: no clock, no socket. [`Keys`] is what the handshake leaves (RFC 5764 §4.2), `kdf` makes session keys of it,
//! `transform` seals and opens packets under them, `window` knows which were there already (R19). Which packets are
//! sent, and whose they are, is `transport`'s.

mod kdf;
mod transform;
mod window;

use std::fmt;

use str0m::crypto::dtls::SrtpProfile;
use zeroize::Zeroizing;

pub(super) use transform::Transform;
pub(super) use window::Window;

/// A protection profile (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Profile {
    Aes128CmSha1,
    Aes128Gcm,
    Aes256Gcm,
}

impl Profile {
    /// Bytes of a master key.
    const fn key(self) -> usize {
        match self {
            Self::Aes128CmSha1 | Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
        }
    }

    /// Bytes of a master salt.
    const fn salt(self) -> usize {
        match self {
            Self::Aes128CmSha1 => 14,
            Self::Aes128Gcm | Self::Aes256Gcm => 12,
        }
    }

    /// None: one that we don't know; the WebRTC library's own RTP serves there.
    pub(super) fn of(profile: SrtpProfile) -> Option<Self> {
        match profile {
            SrtpProfile::AES128_CM_SHA1_80 => Some(Self::Aes128CmSha1),
            SrtpProfile::AEAD_AES_128_GCM => Some(Self::Aes128Gcm),
            SrtpProfile::AEAD_AES_256_GCM => Some(Self::Aes256Gcm),
            _ => None,
        }
    }
}

/// What a DTLS handshake leaves: master keys and salts of both directions. Wiped when it is dropped.
pub struct Keys {
    profile: Profile,
    /// Client's key, server's key, client's salt, server's salt (RFC 5764 §4.2).
    material: Zeroizing<Vec<u8>>,
    /// We were the DTLS client.
    client: bool,
}

impl Keys {
    /// None where the material's length is not the profile's.
    pub(super) fn new(profile: Profile, material: &[u8], client: bool) -> Option<Self> {
        let fits = material.len() == 2 * (profile.key() + profile.salt());
        fits.then(|| Self { profile, material: Zeroizing::new(material.to_vec()), client })
    }

    /// What we seal with and what we open with; none where the crypto refuses its keys.
    pub(super) fn directions(&self) -> Option<(Transform, Transform)> {
        let (key, salt) = (self.profile.key(), self.profile.salt());
        let (keys, salts) = self.material.split_at_checked(2 * key)?;
        let side = |client: bool| {
            let n = usize::from(!client);
            let key = keys.chunks_exact(key).nth(n)?;
            let salt = salts.chunks_exact(salt).nth(n)?;
            Transform::new(self.profile, key, salt)
        };
        Some((side(self.client)?, side(!self.client)?))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
