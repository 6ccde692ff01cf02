//! Overrides how a user reacts to a business-initiated call and in which order Meta sends its
//! events.

use std::time::Duration;

use crate::caller::{CalleeAction, CalleeBehaviour, EventOrder};

/// The changes made by one rule. `None` leaves a value unchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CalleeOverride {
    pub(super) action: Option<CalleeAction>,
    pub(super) order: Option<EventOrder>,
    /// Time from the placing of the call until the phone rings.
    pub(super) rings_after: Option<Duration>,
    /// Time from the first ring until the user accepts or rejects.
    pub(super) acts_after: Option<Duration>,
    /// Time from the placing of the call until Meta ends it unanswered.
    pub(super) unanswered: Option<Duration>,
}

/// The names of event orders in rule files.
pub(super) const EVENT_ORDERS: &[(&str, EventOrder)] = &[
    ("connect-first", EventOrder::ConnectFirst),
    ("ring-first", EventOrder::RingFirst),
    ("accepted-first", EventOrder::AcceptedFirst),
    ("before-reply", EventOrder::BeforeReply),
];

impl CalleeOverride {
    /// Applies the changes to the user's behaviour and to Meta's ring timeout.
    pub(crate) fn apply(self, behaviour: &mut CalleeBehaviour, unanswered: &mut Duration) {
        behaviour.action = self.action.unwrap_or(behaviour.action);
        behaviour.order = self.order.unwrap_or(behaviour.order);
        behaviour.rings_after = self.rings_after.unwrap_or(behaviour.rings_after);
        behaviour.acts_after = self.acts_after.unwrap_or(behaviour.acts_after);
        *unanswered = self.unanswered.unwrap_or(*unanswered);
    }
}
