//! Topics of notifications.

/// The topic of a notification. The API and the store use the name from [`Self::as_str`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NotificationTopic {
    /// A user sent a message.
    Message,
    /// An AI agent handed the conversation over to a person.
    Escalation,
    MissedCall,
    /// Meta lowered the quality rating of a number.
    Quality,
    /// The state of a number changed.
    Number,
    /// A message or a webhook could not be delivered.
    Delivery,
    /// An alert of the node fired or was resolved. Sent only if the node has one main account, to
    /// the people of that account.
    Alert,
}

impl NotificationTopic {
    /// All topics.
    pub const ALL: [Self; 7] = [
        Self::Message,
        Self::Escalation,
        Self::MissedCall,
        Self::Quality,
        Self::Number,
        Self::Delivery,
        Self::Alert,
    ];
    /// The names of every topic, in the order of [`Self::ALL`].
    pub const WORDS: &[&str] =
        &["message", "escalation", "missed_call", "quality", "number", "delivery", "alert"];

    /// The topic's name in the API and the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::Escalation => "escalation",
            Self::MissedCall => "missed_call",
            Self::Quality => "quality",
            Self::Number => "number",
            Self::Delivery => "delivery",
            Self::Alert => "alert",
        }
    }

    /// Returns the topic with this name, or `None` if there is none.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.as_str() == word)
    }
}

#[cfg(test)]
mod tests {
    use super::NotificationTopic;

    #[test]
    fn names_round_trip() {
        assert_eq!(NotificationTopic::ALL.map(NotificationTopic::as_str), NotificationTopic::WORDS);
        for topic in NotificationTopic::ALL {
            assert_eq!(NotificationTopic::parse(topic.as_str()), Some(topic));
        }
    }
}
