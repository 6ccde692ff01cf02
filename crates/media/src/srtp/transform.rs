//! One direction of SRTP and SRTCP: encrypts and authenticates packets in place, without allocation
//! (RFC 3711, RFC 7714).
//!
//! The caller chooses the indices. Two packets that are encrypted with the same index could be
//! read, so a sender only increases the index. Decrypted packets are authentic. `window` determines
//! whether they are replays.

use std::fmt;

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{EncryptingKey, EncryptionContext};
use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;

use super::Profile;
use super::kdf::{Label, counter_key, derive};
use crate::prefetch::prefetch;

/// Size of a GCM tag in bytes.
const GCM_TAG_SIZE: usize = 16;
/// Number of bytes of the HMAC-SHA1 tag that are sent (RFC 3711 §5.2).
const SHA1_TAG_SIZE: usize = 10;
/// Size of the E flag and index at the end of an SRTCP packet.
const INDEX_SIZE: usize = 4;
/// Size of the unencrypted part of an RTCP packet: its first header and the sender's SSRC.
const RTCP_CLEAR_SIZE: usize = 8;
/// The E flag, which marks an SRTCP packet as encrypted (RFC 3711 §3.4).
const ENCRYPTED_FLAG: u32 = 0x8000_0000;

/// The session keys of one direction.
pub(crate) struct Transform {
    rtp: Cipher,
    rtcp: Cipher,
}

/// The keys of a cipher. Large variants are boxed, because a leg has four ciphers. A GCM key is a
/// pointer, and the keys of counter mode take 1,700 bytes.
enum Cipher {
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    CmSha1(Box<CounterMode>),
}

struct CounterMode {
    key: EncryptingKey,
    salt: [u8; 14],
    authentication: hmac::Key,
}

impl Transform {
    /// Derives the session keys. Returns `None` if the master key or salt does not fit the profile.
    pub(super) fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Option<Self> {
        use Label::{RtcpAuthentication, RtcpKey, RtcpSalt, RtpAuthentication, RtpKey, RtpSalt};
        let cipher = |for_key, for_authentication, for_salt| match profile {
            Profile::Aes128Gcm => {
                Cipher::gcm(&derive::<16>(key, salt, for_key)?, derive(key, salt, for_salt)?)
            }
            Profile::Aes256Gcm => {
                Cipher::gcm(&derive::<32>(key, salt, for_key)?, derive(key, salt, for_salt)?)
            }
            Profile::Aes128CmSha1 => Cipher::cm(
                &derive::<16>(key, salt, for_key)?,
                &derive::<20>(key, salt, for_authentication)?,
                derive(key, salt, for_salt)?,
            ),
        };
        Some(Self {
            rtp: cipher(RtpKey, RtpAuthentication, RtpSalt)?,
            rtcp: cipher(RtcpKey, RtcpAuthentication, RtcpSalt)?,
        })
    }

    /// Prefetches the keys for RTP, as far as they are stored in this value.
    pub(crate) fn prefetch(&self) {
        prefetch(&self.rtp, usize::MAX);
    }

    /// Prefetches the keys for RTP that are stored behind a pointer in this value.
    pub(crate) fn prefetch_key(&self) {
        match &self.rtp {
            // The pointer is internal to the crypto library.
            Cipher::Gcm { .. } => {}
            Cipher::CmSha1(mode) => prefetch(&**mode, usize::MAX),
        }
    }

    /// Encrypts the RTP packet that starts at `from` and ends with `packet`, and appends its tag.
    /// Its header of `header` bytes is not encrypted. Returns `false` if the packet must not be
    /// sent, because it is shorter than its header or the crypto library failed.
    #[must_use]
    pub(crate) fn seal_rtp(
        &self,
        header: usize,
        index: u64,
        packet: &mut Vec<u8>,
        from: usize,
    ) -> bool {
        let Some((head, body)) =
            packet.get_mut(from..).and_then(|p| p.split_at_mut_checked(header))
        else {
            return false;
        };
        let Some(ssrc) = read_u32(head, 8) else { return false };
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_rtp_nonce(salt, ssrc, index);
                let Ok(tag) = key.seal_in_place_separate_tag(nonce, Aad::from(&*head), body) else {
                    return false;
                };
                packet.extend_from_slice(tag.as_ref());
            }
            Cipher::CmSha1(mode) => {
                let CounterMode { key, salt, authentication } = &**mode;
                if key.less_safe_encrypt(body, cm_block(salt, ssrc, index)).is_err() {
                    return false;
                }
                let tag = sha1_tag(
                    authentication,
                    packet.get(from..).unwrap_or_default(),
                    &rollovers(index),
                );
                packet.extend_from_slice(tag.as_ref().get(..SHA1_TAG_SIZE).unwrap_or_default());
            }
        }
        true
    }

    /// Decrypts an RTP packet with a header of `header` bytes. Replaces the contents of `out` by
    /// the payload, padding included. Returns `false`, with `out` empty, if the packet is not
    /// authentic under this index.
    #[must_use]
    pub(crate) fn open_rtp(
        &self,
        packet: &[u8],
        header: usize,
        index: u64,
        out: &mut Vec<u8>,
    ) -> bool {
        out.clear();
        let Some((head, body)) = packet.split_at_checked(header) else { return false };
        let Some(ssrc) = read_u32(head, 8) else { return false };
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_rtp_nonce(salt, ssrc, index);
                gcm_open(key, nonce, head, body, out)
            }
            Cipher::CmSha1(mode) => {
                let CounterMode { key, salt, authentication } = &**mode;
                let Some((sealed, tag)) = split_tag(packet, SHA1_TAG_SIZE) else { return false };
                if !verify_sha1_tag(authentication, sealed, &rollovers(index), tag) {
                    return false;
                }
                out.extend_from_slice(sealed.get(header..).unwrap_or_default());
                key.less_safe_encrypt(out, cm_block(salt, ssrc, index)).is_ok()
            }
        }
    }

    /// Encrypts the compound RTCP packet that starts at `from` and ends with `packet`. Returns
    /// `false` if it must not be sent.
    #[must_use]
    pub(crate) fn seal_rtcp(&self, index: u32, packet: &mut Vec<u8>, from: usize) -> bool {
        let Some((head, body)) =
            packet.get_mut(from..).and_then(|p| p.split_at_mut_checked(RTCP_CLEAR_SIZE))
        else {
            return false;
        };
        let Some(ssrc) = read_u32(head, 4) else { return false };
        let trailer = (ENCRYPTED_FLAG | index).to_be_bytes();
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let aad = gcm_rtcp_aad(head, trailer);
                let nonce = gcm_rtcp_nonce(salt, ssrc, index);
                let Ok(tag) = key.seal_in_place_separate_tag(nonce, Aad::from(aad), body) else {
                    return false;
                };
                packet.extend_from_slice(tag.as_ref());
                packet.extend_from_slice(&trailer);
            }
            Cipher::CmSha1(mode) => {
                let CounterMode { key, salt, authentication } = &**mode;
                if key.less_safe_encrypt(body, cm_block(salt, ssrc, u64::from(index))).is_err() {
                    return false;
                }
                packet.extend_from_slice(&trailer);
                let tag = sha1_tag(authentication, packet.get(from..).unwrap_or_default(), &[]);
                packet.extend_from_slice(tag.as_ref().get(..SHA1_TAG_SIZE).unwrap_or_default());
            }
        }
        true
    }

    /// Reads the index of an SRTCP packet, which is not authenticated at this point. Returns `None`
    /// if the packet is too short or not encrypted, which our profiles require (RFC 5764 §4.1.2).
    pub(crate) fn rtcp_index(&self, packet: &[u8]) -> Option<u32> {
        let trailer_size = match &self.rtcp {
            Cipher::Gcm { .. } => 0,
            Cipher::CmSha1(_) => SHA1_TAG_SIZE,
        };
        let at = packet
            .len()
            .checked_sub(trailer_size + INDEX_SIZE)
            .filter(|at| *at >= RTCP_CLEAR_SIZE)?;
        read_u32(packet, at).filter(|w| w & ENCRYPTED_FLAG != 0).map(|w| w & !ENCRYPTED_FLAG)
    }

    /// Decrypts a compound RTCP packet into `out`, replacing its contents. Returns `false` if the
    /// packet is not authentic.
    #[must_use]
    pub(crate) fn open_rtcp(&self, packet: &[u8], out: &mut Vec<u8>) -> bool {
        out.clear();
        let (Some(index), Some(ssrc)) = (self.rtcp_index(packet), read_u32(packet, 4)) else {
            return false;
        };
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let Some((sealed, trailer)) = packet.split_last_chunk::<INDEX_SIZE>() else {
                    return false;
                };
                let Some((head, body)) = sealed.split_at_checked(RTCP_CLEAR_SIZE) else {
                    return false;
                };
                let aad = gcm_rtcp_aad(head, *trailer);
                out.extend_from_slice(head);
                let mut plain = Output { out, from: RTCP_CLEAR_SIZE };
                plain.gcm(key, gcm_rtcp_nonce(salt, ssrc, index), &aad, body)
            }
            Cipher::CmSha1(mode) => {
                let CounterMode { key, salt, authentication } = &**mode;
                let Some((sealed, tag)) = split_tag(packet, SHA1_TAG_SIZE) else { return false };
                if !verify_sha1_tag(authentication, sealed, &[], tag) {
                    return false;
                }
                out.extend_from_slice(
                    sealed.get(..sealed.len().saturating_sub(INDEX_SIZE)).unwrap_or_default(),
                );
                let Some(body) = out.get_mut(RTCP_CLEAR_SIZE..) else { return false };
                key.less_safe_encrypt(body, cm_block(salt, ssrc, u64::from(index))).is_ok()
            }
        }
    }
}

impl fmt::Debug for Transform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transform")
    }
}

impl Cipher {
    fn gcm(key: &[u8], salt: [u8; 12]) -> Option<Self> {
        let algorithm = if key.len() == 16 { &AES_128_GCM } else { &AES_256_GCM };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key).ok()?);
        Some(Self::Gcm { key, salt })
    }

    fn cm(key: &[u8], authentication: &[u8], salt: [u8; 14]) -> Option<Self> {
        let authentication = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, authentication);
        Some(Self::CmSha1(Box::new(CounterMode { key: counter_key(key)?, salt, authentication })))
    }
}

/// Destination of decrypted bytes.
struct Output<'a> {
    out: &'a mut Vec<u8>,
    from: usize,
}

impl Output<'_> {
    fn gcm(&mut self, key: &LessSafeKey, nonce: Nonce, aad: &[u8], sealed: &[u8]) -> bool {
        let Some((sealed, tag)) = split_tag(sealed, GCM_TAG_SIZE) else { return false };
        self.out.resize(self.from + sealed.len(), 0);
        let Some(space) = self.out.get_mut(self.from..) else { return false };
        let opened = key.open_separate_gather(nonce, Aad::from(aad), sealed, tag, space).is_ok();
        if !opened {
            self.out.clear();
        }
        opened
    }
}

fn gcm_open(key: &LessSafeKey, nonce: Nonce, aad: &[u8], sealed: &[u8], out: &mut Vec<u8>) -> bool {
    Output { out, from: 0 }.gcm(key, nonce, aad, sealed)
}

/// Returns the nonce of RFC 7714 §8.1: two zero bytes, SSRC, rollover counter and sequence number,
/// XORed with the salt.
fn gcm_rtp_nonce(salt: &[u8; 12], ssrc: u32, index: u64) -> Nonce {
    gcm_nonce(salt, u128::from(ssrc) << 48 | u128::from(index & 0xffff_ffff_ffff))
}

/// Returns the nonce of RFC 7714 §9.1: two zero bytes, SSRC, two zero bytes, index, XORed with the
/// salt.
fn gcm_rtcp_nonce(salt: &[u8; 12], ssrc: u32, index: u32) -> Nonce {
    gcm_nonce(salt, u128::from(ssrc) << 48 | u128::from(index & !ENCRYPTED_FLAG))
}

fn gcm_nonce(salt: &[u8; 12], position: u128) -> Nonce {
    let mut nonce = *salt;
    let [_, _, _, _, position @ ..] = position.to_be_bytes();
    nonce.iter_mut().zip(position).for_each(|(byte, position)| *byte ^= position);
    Nonce::assume_unique_for_key(nonce)
}

/// Returns the associated data of RFC 7714 §9.2.
fn gcm_rtcp_aad(head: &[u8], trailer: [u8; INDEX_SIZE]) -> [u8; RTCP_CLEAR_SIZE + INDEX_SIZE] {
    let mut aad = [0; RTCP_CLEAR_SIZE + INDEX_SIZE];
    aad.iter_mut()
        .zip(head.iter().take(RTCP_CLEAR_SIZE).chain(&trailer))
        .for_each(|(position, byte)| *position = *byte);
    aad
}

/// Returns the initial counter block of RFC 3711 §4.1.1: salt, SSRC and index at their offsets,
/// followed by a 16-bit block counter from 0.
fn cm_block(salt: &[u8; 14], ssrc: u32, index: u64) -> EncryptionContext {
    let position = u128::from(ssrc) << 64 | u128::from(index & 0xffff_ffff_ffff) << 16;
    let mut block = position.to_be_bytes();
    block.iter_mut().zip(salt).for_each(|(byte, salt)| *byte ^= salt);
    EncryptionContext::Iv128(block.into())
}

fn rollovers(index: u64) -> [u8; 4] {
    let [_, _, rollovers @ .., _, _] = index.to_be_bytes();
    rollovers
}

/// Returns the tag of RFC 3711 §4.2.1: an HMAC over the packet and, for SRTP, its rollover counter.
fn sha1_tag(key: &hmac::Key, packet: &[u8], rollovers: &[u8]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(packet);
    context.update(rollovers);
    context.sign()
}

fn verify_sha1_tag(key: &hmac::Key, packet: &[u8], rollovers: &[u8], tag: &[u8]) -> bool {
    let ours = sha1_tag(key, packet, rollovers);
    ours.as_ref().get(..SHA1_TAG_SIZE).is_some_and(|ours| bool::from(ours.ct_eq(tag)))
}

fn split_tag(sealed: &[u8], tag: usize) -> Option<(&[u8], &[u8])> {
    sealed.split_at_checked(sealed.len().checked_sub(tag)?)
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}

#[cfg(test)]
impl Transform {
    /// Uses the given session keys for RTP and RTCP without derivation, as in the examples of RFC
    /// 7714.
    pub(super) fn of_session_keys(key: &[u8], salt: [u8; 12]) -> Self {
        Self {
            rtp: Cipher::gcm(key, salt).expect("a key"),
            rtcp: Cipher::gcm(key, salt).expect("a key"),
        }
    }

    /// Uses the given counter-mode session keys for RTP and RTCP without derivation, as in the
    /// examples of RFC 3711.
    pub(super) fn of_cm_keys(key: &[u8], authentication: &[u8], salt: [u8; 14]) -> Self {
        let cipher = || Cipher::cm(key, authentication, salt).expect("keys");
        Self { rtp: cipher(), rtcp: cipher() }
    }
}
