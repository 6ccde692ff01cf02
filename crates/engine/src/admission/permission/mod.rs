//! Consent of users to be called by a business number, as described in
//! `docs/reference/meta.md#permissions`.
//!
//! [`Pair`] is the state machine of one business number and one user. It is pure: time and
//! [`Rules`] are arguments. `window` counts the events of the last day or week. [`Consents`] holds
//! the pairs of a node and tracks which have a live call.

mod pair;
mod table;
#[cfg(test)]
mod tests;
mod window;

pub use pair::{
    Counter, Event, GraphPermission, Pair, Refusal, RefusalReason, Reply, Rules, State, View,
};
pub use table::{
    AppliedEvent, ClaimError, Consents, Engaged, Full, PairKey, PermissionListener, RequestGuard,
    Reservation, ReserveError, Stored,
};
