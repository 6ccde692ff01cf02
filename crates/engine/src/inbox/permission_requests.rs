//! Messages that request a user's permission to be called. Meta counts them against the same limits
//! as the permission requests of `call::consent` (`docs/reference/limits.md#l13`), so each is
//! counted before it is sent, and refused if a limit is reached.

use std::sync::Arc;

use serde_json::Value;
use uuid::Uuid;

use super::numbers::ServedNumbers;
use super::sending::{Outgoing, SendError};
use crate::admission::NumberEntry;
use crate::admission::permission::{ClaimError, Consents, Event, PairKey};
use crate::meta::code;
use machine::GraphOutcome;
use model::Clock;
use store::Pair;

/// The type of an interactive message, or of a template component, that requests permission.
const PERMISSION_REQUEST: &str = "call_permission_request";

/// Returns whether a message requests permission to call.
///
/// A template may contain such a component without the outgoing message naming it. That case is not
/// detected here; Meta's answer then corrects the count.
pub(super) fn is_permission_request(kind: &str, content: &Value) -> bool {
    let is = |held: Option<&Value>, name: &str| {
        let word = held.and_then(|held| held.get(name)).and_then(Value::as_str);
        word.is_some_and(|word| word.eq_ignore_ascii_case(PERMISSION_REQUEST))
    };
    match kind {
        "interactive" => is(content.get(kind), "type"),
        "template" => {
            let components = content.pointer("/template/components").and_then(Value::as_array);
            let named = |part: &Value| is(Some(part), "type") || is(Some(part), "sub_type");
            components.is_some_and(|parts| parts.iter().any(named))
        }
        _ => false,
    }
}

/// Permission requests that are counted but not queued yet. Dropping the value removes them from
/// the count, unless [`CountedRequests::keep`] was called.
pub(super) struct CountedRequests<'a> {
    all: &'a PermissionRequests,
    pair: &'a Pair,
    requests: usize,
}

impl CountedRequests<'_> {
    /// Keeps the requests counted, because their messages are queued.
    pub(super) fn keep(mut self) {
        self.requests = 0;
    }
}

impl Drop for CountedRequests<'_> {
    fn drop(&mut self) {
        for _ in 0..self.requests {
            self.all.withdraw(self.pair);
        }
    }
}

/// Counts permission requests.
pub(super) struct PermissionRequests {
    pub(super) consents: Arc<Consents>,
    pub(super) clock: Clock,
    pub(super) numbers: Arc<ServedNumbers>,
}

impl PermissionRequests {
    /// Counts the messages that request permission.
    ///
    /// # Errors
    /// Fails if another request to the user is in progress, if a limit on requests is reached, or
    /// in a fleet if the store fails. In that case the message is not counted.
    pub(super) async fn count<'a>(
        &'a self,
        number: &NumberEntry,
        pair: &'a Pair,
        outgoing: &[(Uuid, Outgoing)],
    ) -> Result<CountedRequests<'a>, SendError> {
        let key = PairKey::new(&number.spec.phone_number_id, &pair.user.id);
        let mut counted = CountedRequests { all: self, pair, requests: 0 };
        for _ in outgoing.iter().filter(|(_, one)| is_permission_request(&one.kind, &one.content)) {
            let rules = &number.spec.permissions;
            let claimed = self.consents.claim_request(&key, rules, self.clock.wall()).await;
            claimed.map_err(|error| match error {
                ClaimError::InProgress => SendError::RequestInProgress,
                ClaimError::Refused(refusal) => SendError::RequestTooSoon(refusal),
                ClaimError::Store(error) => SendError::Store(error),
            })?;
            counted.requests += 1;
        }
        Ok(counted)
    }

    /// Removes a permission request that did not reach Meta from the count.
    pub(super) fn withdraw(&self, pair: &Pair) {
        self.apply(pair, Event::Withdrawn);
    }

    /// Records the failure of a permission request that was sent to Graph.
    pub(super) fn failed(&self, pair: &Pair, outcome: &GraphOutcome) {
        match outcome {
            // Meta has counted more requests than we have, or may have accepted this one: ask Graph
            // for the permission before the next call.
            GraphOutcome::Refused { code: code::REQUESTS_USED_UP, .. }
            | GraphOutcome::Timeout
            | GraphOutcome::ServerError { .. } => self.apply(pair, Event::Doubted),
            GraphOutcome::Refused { .. }
            | GraphOutcome::RateLimited { .. }
            | GraphOutcome::Unreachable
            | GraphOutcome::Done
            | GraphOutcome::Gone => self.apply(pair, Event::Withdrawn),
        }
    }

    fn apply(&self, pair: &Pair, event: Event) {
        // A number that is no longer served places no calls.
        let Some(number) = self.numbers.number_of(pair) else { return };
        let key = PairKey::new(&number.spec.phone_number_id, &pair.user.id);
        self.consents.apply(&key, &number.spec.permissions, self.clock.wall(), event);
    }
}
