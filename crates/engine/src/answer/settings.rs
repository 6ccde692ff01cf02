//! `[answer]`: how documents are fetched.

/// `[answer]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerSettings {
    /// Time for fetching one document, redirects and retry included.
    pub timeout_ms: u64,
    /// Longest document in bytes, after decoding.
    pub max_body_bytes: usize,
    /// Whether customers' URLs may use plain http and private addresses.
    pub allow_insecure: bool,
}

impl Default for AnswerSettings {
    fn default() -> Self {
        Self { timeout_ms: 10_000, max_body_bytes: 102_400, allow_insecure: false }
    }
}
