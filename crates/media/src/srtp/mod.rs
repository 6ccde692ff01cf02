//! SRTP and SRTCP of a leg, independent of str0m. Each direction encrypts or decrypts packets with
//! the keys of a DTLS handshake.
//!
//! The module has no I/O and no clock. [`Keys`] is the keying material (RFC 5764 §4.2), `kdf`
//! derives session keys, `transform` encrypts and decrypts packets, `window` rejects replays.
//! `transport` decides which packets are sent and to which stream a packet belongs.

mod kdf;
mod transform;
mod window;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use str0m::crypto::dtls::SrtpProfile;
use zeroize::Zeroizing;

pub(super) use transform::Transform;
pub(super) use window::ReplayWindow;

/// A protection profile (RFC 5764 §4.1.2, RFC 7714 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Profile {
    Aes128CmSha1,
    Aes128Gcm,
    Aes256Gcm,
}

impl Profile {
    /// Returns the size of a master key in bytes.
    const fn key_len(self) -> usize {
        match self {
            Self::Aes128CmSha1 | Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
        }
    }

    /// Returns the size of a master salt in bytes.
    const fn salt_len(self) -> usize {
        match self {
            Self::Aes128CmSha1 => 14,
            Self::Aes128Gcm | Self::Aes256Gcm => 12,
        }
    }

    /// Converts the profile that DTLS negotiated. Returns `None` for an unsupported profile. str0m
    /// then carries the RTP.
    pub(super) fn from_dtls(profile: SrtpProfile) -> Option<Self> {
        match profile {
            SrtpProfile::AES128_CM_SHA1_80 => Some(Self::Aes128CmSha1),
            SrtpProfile::AEAD_AES_128_GCM => Some(Self::Aes128Gcm),
            SrtpProfile::AEAD_AES_256_GCM => Some(Self::Aes256Gcm),
            _ => None,
        }
    }
}

/// The master keys and salts of both directions from a DTLS handshake. They are zeroed on drop.
#[derive(Clone)]
pub struct Keys {
    profile: Profile,
    /// Client key, server key, client salt, server salt (RFC 5764 §4.2).
    material: Zeroizing<Vec<u8>>,
    /// Whether this side was the DTLS client.
    client: bool,
}

impl Keys {
    /// Creates the keys from the keying material. Returns `None` if its length does not fit the
    /// profile.
    pub(super) fn new(profile: Profile, material: &[u8], client: bool) -> Option<Self> {
        let fits = material.len() == 2 * (profile.key_len() + profile.salt_len());
        fits.then(|| Self { profile, material: Zeroizing::new(material.to_vec()), client })
    }

    /// Returns the transforms for sending and receiving. `None` if the crypto library rejects the
    /// keys.
    pub(super) fn directions(&self) -> Option<(Transform, Transform)> {
        let (key_size, salt_size) = (self.profile.key_len(), self.profile.salt_len());
        let (keys, salts) = self.material.split_at_checked(2 * key_size)?;
        let side = |client: bool| {
            let n = usize::from(!client);
            let master_key = keys.chunks_exact(key_size).nth(n)?;
            let master_salt = salts.chunks_exact(salt_size).nth(n)?;
            Transform::new(self.profile, master_key, master_salt)
        };
        Some((side(self.client)?, side(!self.client)?))
    }
}

/// Serialisation of [`Keys`] in the snapshot of a leg. The type itself has none, so that keys cannot
/// be written elsewhere by accident. The material is a hexadecimal string, so that it can be decoded
/// without intermediate copies.
pub(super) mod keys_in_snapshot {
    use super::{Deserialize, Deserializer, Keys, Profile, Serialize, Serializer, Zeroizing};

    pub(crate) fn serialize<S: Serializer>(keys: &Keys, to: S) -> Result<S::Ok, S::Error> {
        let material = Zeroizing::new(hex::encode(&*keys.material));
        (keys.profile, keys.client, material.as_str()).serialize(to)
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Keys, D::Error> {
        let (profile, client, text) = <(Profile, bool, &str)>::deserialize(from)?;
        let mut material = Zeroizing::new(vec![0; text.len() / 2]);
        hex::decode_to_slice(text, &mut material)
            .ok()
            .and_then(|()| Keys::new(profile, &material, client))
            .ok_or_else(|| serde::de::Error::custom("malformed keys"))
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("profile", &self.profile).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
