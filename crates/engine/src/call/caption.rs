//! A live caption, as a phone shows it.

/// The speaker, from the phone's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    /// The other party.
    Them,
    /// The person at the phone.
    You,
}

impl Speaker {
    /// Returns the word in the phone protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Them => "them",
            Self::You => "you",
        }
    }
}

/// The text of an utterance, complete or partial.
#[derive(Clone, PartialEq, Eq)]
pub struct Caption {
    pub speaker: Speaker,
    /// Number of the utterance in the call, from 1. A later caption of the same line replaces the
    /// earlier one.
    pub line: u32,
    /// The whole utterance so far. Empty together with `last` if no words were recognised.
    pub text: String,
    /// Whether the utterance is complete.
    pub last: bool,
}
