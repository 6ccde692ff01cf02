//! Escalations: an agent leaves a message or a call to people.

use serde_json::json;
use uuid::Uuid;

use super::AgentError;
use crate::inbox::Inbox;
use crate::notices::{Notice, Notices};
use model::{AuthId, CallUuid, NotificationTopic};
use store::{Pair, UserName};

/// The reason for an escalation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The agent requested it.
    Requested,
    /// The agent did not reply, or its reply was not sent. `why` is the error, if it is known.
    Failed { why: String },
    /// The account has no requests to the node's model left.
    NoRequests,
    /// The user seems to be an automated system.
    Loop,
    /// The agent was deleted, switched off, or no longer answers on this channel.
    Off,
    /// The message has waited too long.
    Late,
    /// The agent transferred the call to a phone, which did not answer.
    TransferFailed,
}

impl From<&AgentError> for Reason {
    fn from(error: &AgentError) -> Self {
        match error {
            AgentError::Budget => Self::NoRequests,
            error => Self::Failed { why: error.to_string() },
        }
    }
}

impl Reason {
    /// The word in the event.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Requested => "agent",
            Self::Failed { .. } | Self::NoRequests => "agent_failed",
            Self::Loop => "loop",
            Self::Off => "agent_off",
            Self::Late => "agent_late",
            Self::TransferFailed => "transfer_failed",
        }
    }

    /// Returns whether the agent stays silent in this conversation afterwards. It does not after a
    /// failure, from which it may recover.
    pub(super) fn silences(&self) -> bool {
        match self {
            Self::Requested | Self::Loop | Self::Off => true,
            Self::Failed { .. } | Self::NoRequests | Self::Late | Self::TransferFailed => false,
        }
    }

    /// The text of the notification. `name` is the agent's, `who` is the user's name or number.
    fn text(&self, name: &str, who: &str) -> String {
        match self {
            Self::Requested => format!("{name} asks a person to take over from {who}"),
            Self::Failed { why } if why.is_empty() => {
                format!("{name} failed to answer {who}: a person is needed")
            }
            Self::Failed { why } => {
                format!("{name} failed to answer {who}, a person is needed: {why}")
            }
            Self::NoRequests => format!(
                "{name} did not answer {who}: the account has used all of its requests to the node's model within 24 \
                 hours ([model] requests_per_day); a person is needed"
            ),
            Self::Loop => {
                format!("{who} seems to be an automated system: {name} has stopped answering")
            }
            Self::Off => format!("The agent for {who} no longer answers: a person is needed"),
            Self::Late => format!("{name} did not answer {who} in time: a person is needed"),
            Self::TransferFailed => {
                format!(
                    "{name} transferred the call of {who}, but nobody answered: a person is needed"
                )
            }
        }
    }
}

/// Creates the notification about an escalation of a number of these accounts, without the
/// conversation and the call that it belongs to.
pub(super) fn notice(
    reason: &Reason,
    agent: &str,
    [account, main_account]: [&AuthId; 2],
    number: &str,
    user: &UserName,
) -> Notice {
    let who = if user.name.is_empty() { &user.id } else { &user.name };
    let (account, main_account) = (account.clone(), main_account.clone());
    let (topic, text) = (NotificationTopic::Escalation, reason.text(agent, who));
    Notice {
        number: Some(number.to_owned()),
        user: Some(user.id.clone()),
        ..Notice::new(account, main_account, topic, text)
    }
}

/// Reports an escalation by a notification and an event. `call` is the call in which it happened.
pub(super) fn report(
    (inbox, notices): (&Inbox, &Notices),
    pair: &Pair,
    (agent, name): (Uuid, &str),
    call: Option<CallUuid>,
    reason: &Reason,
) {
    let accounts = [&pair.account, &pair.main_account];
    notices.note(Notice {
        conversation: Some(pair.conversation),
        call,
        ..notice(reason, name, accounts, pair.number.as_str(), &pair.user)
    });
    if let Some(number) = inbox.numbers().number_of(pair) {
        let data = json!({
            "conversation": pair.conversation, "agent": agent, "reason": reason.as_str(),
            "user": pair.user.shown(), "call": call,
        });
        let kind = "conversation.escalated";
        inbox.events().notify_in_order(&number, kind, data, pair.conversation);
    }
}
