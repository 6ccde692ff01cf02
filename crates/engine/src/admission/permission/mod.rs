//! A user's consent to be called by a business number (`meta-calling.md` §6, L13–L17, L20).
//!
//! [`Pair`] is the state machine of one (business number, user): pure, its time and its [`Rules`] come in. `window`
//! counts what happened in the last day or week. [`Consents`] holds the pairs of a node, and who is on the line with whom.

mod pair;
mod table;
#[cfg(test)]
mod tests;
mod window;

pub use pair::{Counter, Event, Pair, Refusal, Reply, Rules, State, Told, View, Why};
pub use table::{Asking, Consents, Engaged, Full, Hearer, PairKey, Stored, Taken, Unclaimed};
