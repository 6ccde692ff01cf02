//! The state of one browser that signs in at the provider, and its check when the browser returns.
//! Pure.
//!
//! Everything is derived from 256 random bits in a cookie, so that the node keeps no state and any
//! node can accept the browser. `state` (this browser began the sign-in), `nonce` (the token was
//! issued for it) and the PKCE verifier (RFC 7636: an intercepted code is useless) are digests of
//! these bits.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use model::Secret;
use model::Timestamp;

/// Longest time for signing in at the provider.
pub const AT_MOST: Duration = Duration::from_secs(600);
/// Tolerated difference between the clocks of nodes.
const SKEW: Duration = Duration::from_secs(60);
/// Maximum length in bytes of the path that the browser returns to after sign-in.
const TO_BYTES_MAX: usize = 1_000;

/// A sign-in in progress.
#[derive(Clone, Debug)]
pub struct Flow {
    secret: Secret,
    begun: Timestamp,
    /// The page to open afterwards. It comes from the browser, so the caller has to validate it.
    pub to: String,
}

impl Flow {
    /// Starts a sign-in. Returns `None` if the system provides no random numbers.
    pub fn begin(to: &str, now: Timestamp) -> Option<Self> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).ok()?;
        let to = if to.len() > TO_BYTES_MAX { String::new() } else { to.to_owned() };
        let begun = Timestamp::from_secs(now.secs());
        Some(Self { secret: Secret::new(URL_SAFE_NO_PAD.encode(bytes)), begun, to })
    }

    /// The value of the cookie.
    pub fn cookie(&self) -> String {
        format!(
            "{}.{}.{}",
            self.secret.reveal(),
            self.begun.secs(),
            URL_SAFE_NO_PAD.encode(&self.to)
        )
    }

    /// Parses the cookie. Returns `None` if it is malformed or too old.
    pub fn read(cookie: &str, now: Timestamp) -> Option<Self> {
        let mut parts = cookie.splitn(3, '.');
        let (secret, begun, to) = (parts.next()?, parts.next()?, parts.next()?);
        if URL_SAFE_NO_PAD.decode(secret).ok()?.len() != 32 || to.len() > TO_BYTES_MAX * 2 {
            return None;
        }
        let begun = Timestamp::from_secs(begun.parse().ok()?);
        if now.since(begun) > AT_MOST || begun.since(now) > SKEW {
            return None;
        }
        let to = String::from_utf8(URL_SAFE_NO_PAD.decode(to).ok()?).ok()?;
        Some(Self { secret: Secret::new(secret), begun, to })
    }

    fn derive(&self, what: &str) -> String {
        let text = format!("openid {what} {} {}", self.begun.secs(), self.secret.reveal());
        URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()).as_ref())
    }

    pub(super) fn state(&self) -> String {
        self.derive("state")
    }

    pub(super) fn nonce(&self) -> String {
        self.derive("nonce")
    }

    pub(super) fn verifier(&self) -> String {
        self.derive("verifier")
    }

    /// The PKCE challenge (`S256`), which may be public.
    pub(super) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.verifier().as_bytes()).as_ref())
    }

    /// Whether the returned `state` belongs to this browser.
    pub(super) fn is_state(&self, given: &str) -> bool {
        bool::from(self.state().as_bytes().ct_eq(given.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_is_restored_from_its_cookie() {
        let now = Timestamp::from_secs(1_800_000_000);
        let flow = Flow::begin("/console/calls/?to=91", now).unwrap();
        let read = Flow::read(&flow.cookie(), now.plus(AT_MOST)).expect("in time");
        assert_eq!((read.to.as_str(), read.nonce()), ("/console/calls/?to=91", flow.nonce()));
        assert!(
            read.is_state(&flow.state()) && !read.is_state("") && !read.is_state(&flow.nonce())
        );
        let other = Flow::begin("/", now).unwrap();
        assert!(!other.is_state(&flow.state()));
        // RFC 7636 §4.1 requires 43 to 128 characters. The cookie cannot be derived from the
        // request.
        assert!(flow.verifier().len() == 43 && flow.challenge() != flow.verifier());
        // A forged date yields another state.
        let later = flow.cookie().replacen("1800000000", "1800000500", 1);
        assert!(!Flow::read(&later, now.plus(AT_MOST)).unwrap().is_state(&flow.state()));
    }

    #[test]
    fn rejects_malformed_and_expired_cookies() {
        let now = Timestamp::from_secs(1_800_000_000);
        let cookie = Flow::begin("", now).unwrap().cookie();
        assert!(Flow::read(&cookie, now.plus(AT_MOST + Duration::from_secs(1))).is_none());
        assert!(Flow::read(&cookie, now.minus(SKEW + Duration::from_secs(1))).is_none());
        for bad in [
            "",
            ".",
            "..",
            "a.1.b",
            &cookie.replace('.', ""),
            &format!("x{cookie}"),
            &format!("{cookie}?"),
        ] {
            assert!(Flow::read(bad, now).is_none(), "{bad}");
        }
        assert_eq!(Flow::begin(&"x".repeat(5_000), now).unwrap().to, "");
    }
}
