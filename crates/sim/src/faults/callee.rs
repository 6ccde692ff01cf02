//! What a user does whom the business calls, and in which order Meta tells of it (M15, M16). Pure.

use std::time::Duration;

use crate::caller::{Answering, Answers, Order};

/// What a rule has of it; the rest stays as it would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    pub(super) how: Option<Answers>,
    pub(super) order: Option<Order>,
    /// From the call's beginning until the phone rings.
    pub(super) rings_after: Option<Duration>,
    /// From then on: until the user picks up or declines.
    pub(super) acts_after: Option<Duration>,
    /// From the call's beginning until Meta gives up.
    pub(super) unanswered: Option<Duration>,
}

/// Orders by their words.
pub(super) const ORDERS: &[(&str, Order)] = &[
    ("connect-first", Order::ConnectFirst),
    ("ring-first", Order::RingFirst),
    ("accepted-first", Order::AcceptedFirst),
    ("before-reply", Order::BeforeReply),
];

impl Manner {
    /// Changes what would happen, and how long Meta lets it ring.
    pub(crate) fn apply(self, answering: &mut Answering, unanswered: &mut Duration) {
        answering.how = self.how.unwrap_or(answering.how);
        answering.order = self.order.unwrap_or(answering.order);
        answering.rings_after = self.rings_after.unwrap_or(answering.rings_after);
        answering.acts_after = self.acts_after.unwrap_or(answering.acts_after);
        *unanswered = self.unanswered.unwrap_or(*unanswered);
    }
}
