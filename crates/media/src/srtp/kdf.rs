//! Derivation of SRTP session keys from master keys (RFC 3711 §4.3): AES in counter mode over a
//! label.
//!
//! DTLS-SRTP uses a key derivation rate of 0 (RFC 5764 §4.1.2), so keys are derived once,
//! regardless of the packet index.

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};

/// Purpose of a derived key (RFC 3711 §4.3.2).
#[derive(Clone, Copy, Debug)]
pub(super) enum Label {
    RtpKey,
    RtpAuthentication,
    RtpSalt,
    RtcpKey,
    RtcpAuthentication,
    RtcpSalt,
}

impl Label {
    const fn byte(self) -> u8 {
        match self {
            Self::RtpKey => 0,
            Self::RtpAuthentication => 1,
            Self::RtpSalt => 2,
            Self::RtcpKey => 3,
            Self::RtcpAuthentication => 4,
            Self::RtcpSalt => 5,
        }
    }
}

/// Derives `N` bytes. `key` must have 16 or 32 bytes, `salt` 14, or 12 (padded with zeroes, RFC
/// 7714 §11). Returns `None` otherwise.
pub(super) fn derive<const N: usize>(key: &[u8], salt: &[u8], label: Label) -> Option<[u8; N]> {
    let mut block = [0; 16];
    block.get_mut(..14)?.get_mut(..salt.len())?.copy_from_slice(salt);
    // The label precedes the 48 bits of the index, which is 0.
    block[7] ^= label.byte();
    let mut out = [0; N];
    xor_key_stream(key, block, &mut out)?;
    Some(out)
}

/// Creates a key for AES in counter mode. `key` must have 16 or 32 bytes. Returns `None` otherwise.
pub(super) fn counter_key(key: &[u8]) -> Option<EncryptingKey> {
    let algorithm = match key.len() {
        16 => &AES_128,
        32 => &AES_256,
        _ => return None,
    };
    EncryptingKey::ctr(UnboundCipherKey::new(algorithm, key).ok()?).ok()
}

/// XORs `bytes` with the key stream that starts at `block`. Returns `None` if the key has the wrong
/// length.
fn xor_key_stream(key: &[u8], block: [u8; 16], bytes: &mut [u8]) -> Option<()> {
    let context = EncryptionContext::Iv128(block.into());
    counter_key(key)?.less_safe_encrypt(bytes, context).ok()?;
    Some(())
}
