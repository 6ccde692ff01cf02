//! What users allow, in step with Meta: asks Graph where the table knows too little, and sends users requests.
//!
//! The rules are `admission::permission`'s; what Graph's answers look like is `meta`'s. Here they meet, and what Graph
//! did or refused goes into the table. A call that goes out passes [`PermissionDesk::settle`] before the gate is asked.

use std::sync::Arc;

use crate::admission::NumberEntry;
use crate::admission::permission::{
    Consents, Counter, Event, GraphPermission, PairKey, Refusal, RefusalReason, View,
};
use crate::meta::permissions::{CallPermissions, Limit, Request};
use crate::meta::{Graph, code};
use machine::GraphOutcome;
use model::Clock;
use model::Timestamp;

const DAY_SECS: u64 = 86_400;
const WEEK_SECS: u64 = 604_800;

/// Reads and asks for permissions; cheap to clone.
#[derive(Clone, Debug)]
pub struct PermissionDesk {
    graph: Arc<Graph>,
    consents: Arc<Consents>,
    clock: Clock,
}

/// A request that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Meta's id of the message.
    pub message: String,
    pub view: View,
}

/// Why a request was not sent.
#[derive(Clone, Debug, PartialEq)]
pub enum NotSent {
    /// As many were sent as may be: by our count, or by Meta's.
    TooSoon(Refusal),
    /// One to this user is on its way.
    UnderWay,
    /// Graph refused or failed.
    Graph(GraphOutcome),
}

impl PermissionDesk {
    /// A desk of this table; `clock` is the node's.
    pub fn new(graph: Arc<Graph>, consents: Arc<Consents>, clock: Clock) -> Self {
        Self { graph, consents, clock }
    }

    /// The table it keeps.
    pub fn consents(&self) -> &Arc<Consents> {
        &self.consents
    }

    /// The time by which the table goes.
    pub fn now(&self) -> Timestamp {
        self.clock.steady()
    }

    /// Asks Graph about a pair of which nothing is known, or whose row Graph contradicted; at most once a minute.
    pub async fn settle(&self, number: &NumberEntry, user: &str) {
        self.ask(number, user, false).await;
    }

    /// What is known of a pair; with `refresh`, Graph is asked first, unless it was within the last minute.
    pub async fn view(&self, number: &NumberEntry, user: &str, refresh: bool) -> View {
        if refresh {
            self.ask(number, user, true).await;
        }
        let key = PairKey::new(&number.spec.phone_number_id, user);
        self.consents.view(&key, &number.spec.permissions, self.now())
    }

    /// Something happened between a number and a user.
    pub fn note(&self, number: &NumberEntry, user: &str, event: Event) {
        let key = PairKey::new(&number.spec.phone_number_id, user);
        self.consents.apply(&key, &number.spec.permissions, self.now(), event);
    }

    async fn ask(&self, number: &NumberEntry, user: &str, always: bool) {
        let spec = &number.spec;
        let key = PairKey::new(&spec.phone_number_id, user);
        if !spec.permissions.enforce && !always || !self.consents.ask(&key, self.now(), always) {
            return;
        }
        let asked = self.now();
        match self
            .graph
            .call_permissions(&spec.phone_number_id, spec.access_token.as_ref(), user)
            .await
        {
            Ok(said) => self.note(number, user, Event::GraphReport(told(&said, asked))),
            // What was known stays (`meta-calling.md` §4.6, code 613).
            Err(outcome) => {
                tracing::info!(number = %spec.number, ?outcome, "Graph does not say what a user allows")
            }
        }
    }

    /// Asks the user for permission.
    ///
    /// # Errors
    /// The rule that forbids it, and when it will not any more; or what Graph said.
    pub async fn request(
        &self,
        number: &NumberEntry,
        user: &str,
        request: &Request,
    ) -> Result<Sent, NotSent> {
        let spec = &number.spec;
        let key = PairKey::new(&spec.phone_number_id, user);
        let may = || self.consents.may_request(&key, &spec.permissions, self.now());
        may().map_err(NotSent::TooSoon)?;
        let _under_way = self.consents.begin_request(&key).ok_or(NotSent::UnderWay)?;
        // One that went into a conversation meanwhile counts too.
        may().map_err(NotSent::TooSoon)?;
        let sent = self
            .graph
            .request_permission(&spec.phone_number_id, spec.access_token.as_ref(), user, request)
            .await;
        match sent {
            Ok(message) => {
                // It counts, whatever becomes of this process.
                if let Some(stored) =
                    self.consents.take(&key, &spec.permissions, self.now(), Event::Requested).stored
                {
                    stored.await;
                }
                Ok(Sent { message, view: self.view(number, user, false).await })
            }
            Err(GraphOutcome::Refused { code: code::REQUESTS_USED_UP, .. }) => {
                self.note(number, user, Event::Doubted);
                self.settle(number, user).await;
                let unknown = Refusal { why: RefusalReason::RequestLimit, again: None };
                Err(NotSent::TooSoon(may().err().unwrap_or(unknown)))
            }
            Err(outcome) => {
                if matches!(outcome, GraphOutcome::Timeout | GraphOutcome::ServerError { .. }) {
                    // It may have been sent all the same: Graph knows.
                    self.note(number, user, Event::Doubted);
                }
                Err(NotSent::Graph(outcome))
            }
        }
    }
}

/// Graph's word, as the table takes it.
fn told(said: &CallPermissions, asked: Timestamp) -> GraphPermission {
    let counter = |limits: &[Limit], period| {
        CallPermissions::of_period(limits, period)
            .map(|limit| Counter { used: limit.used, room_at: limit.expires })
    };
    GraphPermission {
        asked: Some(asked),
        status: said.status,
        calls: counter(&said.start_call, DAY_SECS),
        requests_of_day: counter(&said.send_request, DAY_SECS),
        requests_of_week: counter(&said.send_request, WEEK_SECS),
    }
}

/// What Graph's refusal of a `connect` says of the pair (§4.6); none: nothing.
pub fn refusal_of(code: i64, details: &str) -> Option<Event> {
    match code {
        code::NO_PERMISSION => Some(Event::NoPermission),
        code::CALLS_USED_UP => Some(Event::CallsUsedUp { until: time_in(details) }),
        _ => None,
    }
}

/// A time in Unix seconds in a text of Meta's: "Next call allowed at 1790050000".
fn time_in(details: &str) -> Option<Timestamp> {
    let mut numbers =
        details.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() == 10);
    numbers.next_back()?.parse().ok().map(Timestamp::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_a_connect_are_read_by_their_code() {
        let rows = [
            (138_006, "Call permission not found.", Some(Event::NoPermission)),
            (
                138_012,
                "Next call allowed at 1790050000",
                Some(Event::CallsUsedUp { until: Some(Timestamp::from_secs(1_790_050_000)) }),
            ),
            (138_012, "Limit of 5 calls hit", Some(Event::CallsUsedUp { until: None })),
            (138_003, "", None),
            (100, "Next call allowed at 1790050000", None),
        ];
        for (code, details, event) in rows {
            assert_eq!(refusal_of(code, details), event, "{code}");
        }
    }
}
