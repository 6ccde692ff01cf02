//! What a notification is about (`number-api.md` §4).

/// Its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NoticeTopic {
    /// A user wrote.
    Message,
    /// An agent gave up: a person is wanted.
    Escalation,
    MissedCall,
    /// Meta's rating of a number fell.
    Quality,
    /// A number's state changed.
    Number,
    /// A message or a webhook could not be delivered.
    Delivery,
}

impl NoticeTopic {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Message,
        Self::Escalation,
        Self::MissedCall,
        Self::Quality,
        Self::Number,
        Self::Delivery,
    ];
    /// The words of all of them.
    pub const WORDS: &[&str] =
        &["message", "escalation", "missed_call", "quality", "number", "delivery"];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Escalation => "escalation",
            Self::MissedCall => "missed_call",
            Self::Quality => "quality",
            Self::Number => "number",
            Self::Delivery => "delivery",
        }
    }

    /// The one of that word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::NoticeTopic;

    #[test]
    fn words() {
        assert_eq!(NoticeTopic::ALL.map(NoticeTopic::as_str), NoticeTopic::WORDS);
        for topic in NoticeTopic::ALL {
            assert_eq!(NoticeTopic::parse(topic.as_str()), Some(topic));
        }
    }
}
