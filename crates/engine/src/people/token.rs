//! Random credentials of 256 bits. The store holds only their digests.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use model::Secret;

const BYTES: usize = 32;
/// Length of the text form.
const LENGTH: usize = 43;

/// A session cookie, invitation link or API key. `Debug` does not show the secret.
#[derive(Clone, Debug)]
pub struct Token(Secret);

impl Token {
    /// Creates a random token.
    #[allow(
        clippy::expect_used,
        reason = "without random numbers no credential is safe, and TLS would not work either"
    )]
    pub fn fresh() -> Self {
        let mut bytes = [0; BYTES];
        SystemRandom::new().fill(&mut bytes).expect("the system provides random numbers");
        Self(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Parses the text form, or returns `None` if it has another shape.
    pub fn read(text: &str) -> Option<Self> {
        let fits = text.len() == LENGTH
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        fits.then(|| Self(Secret::new(text)))
    }

    /// The secret text.
    pub fn reveal(&self) -> &str {
        self.0.reveal()
    }

    /// The SHA-256 digest by which the store identifies the token. A slow hash would not be safer,
    /// since the token is random.
    pub fn digest(&self) -> String {
        hex::encode(digest(&SHA256, self.reveal().as_bytes()).as_ref())
    }

    /// The CSRF token of a session. It is derived from the session token, which can't be computed
    /// from it.
    pub fn csrf(&self) -> String {
        let text = format!("form {}", self.reveal());
        URL_SAFE_NO_PAD.encode(digest(&SHA256, text.as_bytes()).as_ref())
    }

    /// The last characters, by which people recognise a key.
    pub(super) fn ending(&self) -> String {
        self.reveal().chars().skip(LENGTH - 4).collect()
    }
}
