//! Messages that ask a user to allow calls. Meta counts them as it counts those of `call::consent` (L13, L14), so they are
//! counted before they go out, and refused where there is no room.

use serde_json::Value;
use uuid::Uuid;

use super::sending::{NotSent, Outgoing};
use super::{Inbox, Pair};
use engine::admission::NumberEntry;
use engine::admission::permission::{ClaimError, Event, PairKey};
use engine::meta::code;
use machine::GraphOutcome;

/// Interactive type, and the component of a template.
const REQUEST: &str = "call_permission_request";

/// Whether a message asks for permission to call. A template may do so without a word of it in what is sent: what Meta says of
/// that one is what is known.
pub(super) fn asks(kind: &str, content: &Value) -> bool {
    let is = |held: Option<&Value>, name: &str| {
        let word = held.and_then(|held| held.get(name)).and_then(Value::as_str);
        word.is_some_and(|word| word.eq_ignore_ascii_case(REQUEST))
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

/// Requests that were counted and are not on their way yet: those that are not kept count no more.
pub(super) struct Claimed<'a> {
    inbox: &'a Inbox,
    pair: &'a Pair,
    requests: usize,
}

impl Claimed<'_> {
    /// They go out.
    pub(super) fn keep(mut self) {
        self.requests = 0;
    }
}

impl Drop for Claimed<'_> {
    fn drop(&mut self) {
        for _ in 0..self.requests {
            self.inbox.asked_for_nothing(self.pair);
        }
    }
}

impl Inbox {
    /// Counts those of these messages that ask for permission.
    pub(super) fn claim_requests<'a>(
        &'a self,
        number: &NumberEntry,
        pair: &'a Pair,
        outgoing: &[(Uuid, Outgoing)],
    ) -> Result<Claimed<'a>, NotSent> {
        let parts = self.parts();
        let key = PairKey::new(&number.spec.phone_number_id, &pair.user.id);
        let mut claimed = Claimed { inbox: self, pair, requests: 0 };
        for _ in outgoing.iter().filter(|(_, one)| asks(&one.kind, &one.content)) {
            let taken =
                parts.consents.claim_request(&key, &number.spec.permissions, parts.clock.steady());
            taken.map_err(|why| match why {
                ClaimError::InProgress => NotSent::Asking,
                ClaimError::Refused(refusal) => NotSent::TooSoon(refusal),
            })?;
            claimed.requests += 1;
        }
        Ok(claimed)
    }

    /// A message that asked for permission did not reach Meta.
    pub(super) fn asked_for_nothing(&self, pair: &Pair) {
        self.note_asking(pair, Event::Withdrawn);
    }

    /// Meta did not take a message that asks, as far as is known.
    pub(super) fn asking_failed(&self, pair: &Pair, outcome: &GraphOutcome) {
        match outcome {
            // It knows of more than we do, or may have it: Graph is asked before the next call.
            GraphOutcome::Refused { code: code::REQUESTS_USED_UP, .. }
            | GraphOutcome::Timeout
            | GraphOutcome::ServerError { .. } => self.note_asking(pair, Event::Doubted),
            GraphOutcome::Refused { .. }
            | GraphOutcome::RateLimited { .. }
            | GraphOutcome::Unreachable
            | GraphOutcome::Done
            | GraphOutcome::Gone => self.note_asking(pair, Event::Withdrawn),
        }
    }

    fn note_asking(&self, pair: &Pair, event: Event) {
        // Without its number nobody is called.
        let Some(number) = self.number_of(pair) else { return };
        let key = PairKey::new(&number.spec.phone_number_id, &pair.user.id);
        self.parts().consents.apply(
            &key,
            &number.spec.permissions,
            self.parts().clock.steady(),
            event,
        );
    }
}
