//! Random ids and tokens in the formats that Plivo's SDKs expect.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::PlivoError;

/// Number of characters of an `auth_id` after its two letters.
const ID_CHARS: usize = 18;
/// The characters of an `auth_id` after its two letters.
const ID_ALPHABET: &[u8; 36] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
/// Number of random bytes of an auth token, which has 40 characters.
const TOKEN_BYTES: usize = 30;

fn fill(bytes: &mut [u8]) -> Result<(), PlivoError> {
    rand::fill(bytes).map_err(|_| PlivoError::Internal)
}

/// Random decimal digits, at most 19, of which the first is not zero.
pub(super) fn digits(count: u32) -> Result<String, PlivoError> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    let least = count.checked_sub(1).and_then(|zeros| 10_u64.checked_pow(zeros));
    let least = least.ok_or(PlivoError::Internal)?;
    Ok((least + u64::from_be_bytes(bytes) % (least * 9)).to_string())
}

/// A random UUID.
pub(super) fn uuid() -> Result<uuid::Uuid, PlivoError> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    Ok(uuid::Builder::from_random_bytes(bytes).into_uuid())
}

/// The `auth_id` and the auth token of a new subaccount.
pub(super) fn credentials() -> Result<(String, String), PlivoError> {
    let (mut id, mut token) = ([0; 2 * ID_CHARS], [0; TOKEN_BYTES]);
    fill(&mut id)?;
    fill(&mut token)?;
    // Two bytes per character keep the bias of the remainder negligible.
    let letter = |pair: &[u8; 2]| {
        let letter = ID_ALPHABET.get(usize::from(u16::from_be_bytes(*pair)) % ID_ALPHABET.len());
        char::from(letter.copied().unwrap_or(b'X'))
    };
    let id = "SA".chars().chain(id.as_chunks::<2>().0.iter().map(letter)).collect();
    Ok((id, URL_SAFE_NO_PAD.encode(token)))
}

#[cfg(test)]
mod tests {
    use super::{credentials, digits};

    #[test]
    fn makes_as_many_digits_as_requested() {
        for count in [1, 12, 14, 17] {
            let made = digits(count).unwrap();
            assert_eq!((made.len(), made.parse::<u64>().is_ok()), (count as usize, true), "{made}");
        }
        assert_ne!(digits(14).unwrap(), digits(14).unwrap());
    }

    #[test]
    fn makes_credentials_in_the_form_that_sdks_expect() {
        let (id, token) = credentials().unwrap();
        assert!(id.len() == 20 && id.starts_with("SA"), "{id}");
        assert!(id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()), "{id}");
        assert_eq!(token.len(), 40);
        assert_ne!(credentials().unwrap().0, id);
    }
}
