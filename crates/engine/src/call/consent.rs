//! Call permissions of users, synchronised with Meta: queries Graph where the local table is
//! incomplete, and sends permission requests.
//!
//! The rules are in `admission::permission`, the formats of Graph's responses in `meta`. This
//! module connects both: the responses and refusals of Graph update the table. An outbound call
//! passes [`PermissionService::settle`] before it reaches the gate.

use std::sync::Arc;
use std::time::Duration;

use crate::admission::permission::{
    ClaimError, Consents, Counter, Event, GraphPermission, PairKey, Refusal, RefusalReason,
    Reservation, ReserveError, View,
};
use crate::admission::{Denied, Gate, NumberEntry};
use crate::meta::permissions::{CallPermissions, Limit, Request};
use crate::meta::{Graph, code};
use machine::GraphOutcome;
use model::Clock;
use model::Timestamp;

/// Time within which the database must reserve a user or store Graph's report.
const STORE_TIME: Duration = Duration::from_secs(1);

const DAY_SECS: u64 = 86_400;
const WEEK_SECS: u64 = 604_800;

/// Reads and requests call permissions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PermissionService {
    graph: Arc<Graph>,
    consents: Arc<Consents>,
    clock: Clock,
}

/// A permission request that was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRequest {
    /// Meta's id of the message.
    pub message: String,
    pub view: View,
}

/// Why a permission request was not sent.
#[derive(Clone, Debug, PartialEq)]
pub enum NotSent {
    /// The limit on requests is reached, according to the local count.
    TooSoon(Refusal),
    /// The limit on requests is reached, according to Meta's count.
    RequestLimit(Refusal, GraphOutcome),
    /// Another request to this user is in progress.
    UnderWay,
    /// Graph refused the request, or the request failed.
    Graph(GraphOutcome),
}

impl PermissionService {
    /// Creates the service over a permission table. `clock` is the node's clock.
    pub fn new(graph: Arc<Graph>, consents: Arc<Consents>, clock: Clock) -> Self {
        Self { graph, consents, clock }
    }

    /// The permission table.
    pub fn consents(&self) -> &Arc<Consents> {
        &self.consents
    }

    /// The current time for the table. It is wall-clock time, because Meta's calendar decides when
    /// a permission or a limit ends.
    pub fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// Queries Graph about a pair that is unknown or has a row that Graph contradicted, at most once
    /// a minute.
    pub async fn settle(&self, number: &NumberEntry, user: &str) {
        self.fetch(number, user).await;
        self.ask(number, user, false).await;
    }

    /// Returns the permission of a pair. With `refresh`, queries Graph first unless it was queried
    /// within the last minute.
    pub async fn view(&self, number: &NumberEntry, user: &str, refresh: bool) -> View {
        self.fetch(number, user).await;
        if refresh {
            self.ask(number, user, true).await;
        }
        let key = PairKey::new(&number.spec.phone_number_id, user);
        self.consents.view(&key, &number.spec.permissions, self.now())
    }

    /// Reserves a user for a call that is about to be placed, if the node is in a fleet. No other
    /// node calls the user until the reservation is dropped. If the database does not answer, this
    /// node's own data is used.
    ///
    /// # Errors
    /// Returns that the user's permission forbids the call, or that another call with the user is
    /// up.
    pub async fn reserve(
        &self,
        gate: &Gate,
        number: &Arc<NumberEntry>,
        user: &str,
    ) -> Result<Option<Reservation>, Denied> {
        let key = PairKey::new(&number.spec.phone_number_id, user);
        let reserved = self.consents.reserve(&key, &number.spec.permissions, self.now());
        match tokio::time::timeout(STORE_TIME, reserved).await {
            Ok(Ok(reservation)) => Ok(reservation),
            Ok(Err(ReserveError::Refused(refusal))) => Err(gate.not_permitted(number, refusal)),
            Ok(Err(ReserveError::UserBusy)) => Err(gate.user_busy(number)),
            Ok(Err(ReserveError::Store(error))) => {
                tracing::warn!(%error, "user not reserved for a call; deciding without the fleet");
                Ok(None)
            }
            Err(_) => {
                tracing::warn!("user not reserved for a call in time; deciding without the fleet");
                Ok(None)
            }
        }
    }

    /// Records an event between a number and a user.
    pub fn note(&self, number: &NumberEntry, user: &str, event: Event) {
        let key = PairKey::new(&number.spec.phone_number_id, user);
        self.consents.apply(&key, &number.spec.permissions, self.now(), event);
    }

    /// Reads a pair again that another node of the fleet may have changed. If the database does not
    /// answer, this node's own data stays unchanged.
    async fn fetch(&self, number: &NumberEntry, user: &str) {
        let key = PairKey::new(&number.spec.phone_number_id, user);
        if let Err(error) = self.consents.fetch(&key).await {
            tracing::warn!(%error, "call permission not read from the store");
        }
    }

    async fn ask(&self, number: &NumberEntry, user: &str, always: bool) {
        let spec = &number.spec;
        let key = PairKey::new(&spec.phone_number_id, user);
        if !spec.permissions.enforce && !always || !self.consents.ask(&key, self.now(), always) {
            return;
        }
        let asked = self.now();
        let permissions = self.graph.permissions(&spec.phone_number_id, spec.access_token.as_ref());
        match permissions.of_user(user).await {
            Ok(permissions) => {
                let report = Event::GraphReport(permission_of(&permissions, asked));
                let applied = self.consents.take(&key, &spec.permissions, self.now(), report);
                if let Some(stored) = applied.stored.filter(|_| self.consents.is_shared()) {
                    // The other nodes of the fleet should not ask again.
                    let _ = tokio::time::timeout(STORE_TIME, stored).await;
                }
            }
            // The known permission stays. Error 613 of Meta's permission API is a rate limit
            // (`docs/reference/meta.md#error-codes`).
            Err(outcome) => {
                tracing::info!(number = %spec.number, %outcome, "call permission query failed")
            }
        }
    }

    /// Sends the user a permission request.
    ///
    /// # Errors
    /// Returns the rule that forbids the request and the time when it expires, or Graph's error.
    pub async fn request(
        &self,
        number: &NumberEntry,
        user: &str,
        request: &Request,
    ) -> Result<SentRequest, NotSent> {
        let spec = &number.spec;
        let key = PairKey::new(&spec.phone_number_id, user);
        self.fetch(number, user).await;
        let may = || self.consents.may_request(&key, &spec.permissions, self.now());
        may().map_err(NotSent::TooSoon)?;
        let _under_way = self.consents.begin_request(&key).ok_or(NotSent::UnderWay)?;
        let is_counted = match self.consents.count_shared(&key, &spec.permissions, self.now()).await
        {
            Ok(is_counted) => is_counted,
            Err(ClaimError::Refused(refusal)) => return Err(NotSent::TooSoon(refusal)),
            Err(error) => {
                tracing::warn!(%error, "permission request not counted in the store");
                false
            }
        };
        if !is_counted {
            // A request may have been sent in a conversation since the first check.
            may().map_err(NotSent::TooSoon)?;
        }
        let permissions = self.graph.permissions(&spec.phone_number_id, spec.access_token.as_ref());
        match permissions.request(user, request).await {
            Ok(message) => {
                // The request counts even if the process dies now.
                if !is_counted
                    && let Some(stored) = self
                        .consents
                        .take(&key, &spec.permissions, self.now(), Event::Requested)
                        .stored
                {
                    stored.await;
                }
                Ok(SentRequest { message, view: self.view(number, user, false).await })
            }
            Err(outcome @ GraphOutcome::Refused { code: code::REQUESTS_USED_UP, .. }) => {
                self.note(number, user, Event::Doubted);
                self.settle(number, user).await;
                let unknown = Refusal { why: RefusalReason::RequestLimit, again: None };
                Err(NotSent::RequestLimit(may().err().unwrap_or(unknown), outcome))
            }
            Err(outcome) => {
                if matches!(outcome, GraphOutcome::Timeout | GraphOutcome::ServerError { .. }) {
                    // Meta may have sent the request despite the error, so the row must be checked
                    // with Graph.
                    self.note(number, user, Event::Doubted);
                } else if is_counted {
                    self.note(number, user, Event::Withdrawn);
                }
                Err(NotSent::Graph(outcome))
            }
        }
    }
}

/// Converts Graph's response to an update of the table.
fn permission_of(permissions: &CallPermissions, asked: Timestamp) -> GraphPermission {
    let counter = |limits: &[Limit], period| {
        CallPermissions::of_period(limits, period)
            .map(|limit| Counter { used: limit.used, room_at: limit.expires })
    };
    GraphPermission {
        asked: Some(asked),
        status: permissions.status,
        calls: counter(&permissions.start_call, DAY_SECS),
        requests_of_day: counter(&permissions.send_request, DAY_SECS),
        requests_of_week: counter(&permissions.send_request, WEEK_SECS),
    }
}

/// Returns the event that Graph's refusal of a `connect` implies for the pair. `None` if the error
/// code says nothing about the permission.
pub fn refusal_of(code: i64, details: &str) -> Option<Event> {
    match code {
        code::NO_PERMISSION => Some(Event::NoPermission),
        code::CALLS_USED_UP => Some(Event::CallsUsedUp { until: time_in(details) }),
        _ => None,
    }
}

/// Finds a time in Unix seconds in Meta's text, such as "Next call allowed at 1790050000".
fn time_in(details: &str) -> Option<Timestamp> {
    let mut numbers =
        details.split(|c: char| !c.is_ascii_digit()).filter(|digits| digits.len() == 10);
    numbers.next_back()?.parse().ok().map(Timestamp::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_refusals_map_to_events_by_code() {
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
