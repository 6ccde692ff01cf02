//! What somebody shows to be known again: 256 random bits, of which the store has the digest.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use model::Secret;

const BYTES: usize = 32;
/// As text.
const LENGTH: usize = 43;

/// A session's cookie, an invitation's link or an API key. Its `Debug` shows nothing of it.
#[derive(Clone, Debug)]
pub struct Token(Secret);

impl Token {
    /// A new one.
    #[allow(
        clippy::expect_used,
        reason = "without random numbers nobody may be let in, and no TLS would work either"
    )]
    pub fn fresh() -> Self {
        let mut bytes = [0; BYTES];
        SystemRandom::new().fill(&mut bytes).expect("the system gives random numbers");
        Self(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// One that somebody shows; none: it is of no such form.
    pub fn read(text: &str) -> Option<Self> {
        let fits = text.len() == LENGTH
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        fits.then(|| Self(Secret::new(text)))
    }

    /// The text, for whom it is made.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }

    /// What the store knows it by. It is random: nothing is gained by a slower one.
    pub fn digest(&self) -> String {
        hex::encode(digest(&SHA256, self.reveal().as_bytes()).as_ref())
    }

    /// What forms of a session bring along: it follows from the token, and the token does not follow from it.
    pub fn csrf(&self) -> String {
        let text = format!("form {}", self.reveal());
        URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()).as_ref())
    }

    /// By which people tell it from others.
    pub(super) fn ending(&self) -> String {
        self.reveal().chars().skip(LENGTH - 4).collect()
    }
}
