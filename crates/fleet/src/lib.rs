//! The rules by which several nodes share one PostgreSQL database.
//!
//! A *node* is a name; a *run* is one process of it. A *limit* is a number's slots or an account's
//! calls per second, and a *unit* is one slot or one permit of it. A run admits calls with the units
//! that it holds, without asking anybody. Each run sends a *beat* twice a second: one transaction
//! that proves that it lives and moves units.
//!
//! Two properties hold at every instant, whatever messages are lost, doubled, late or overtaken,
//! and whatever the database forgets:
//!
//! - The limit that a run admits with is at most what the database says it holds. A run lowers its
//!   limit before it tells, and raises it only on the answer to its newest beat ([`Membership`]).
//! - The database never gives out more units than a limit has. It locks the limit first and counts
//!   afterwards ([`Ledger`] is the twin of the SQL function).
//!
//! A database that may have forgotten units, because it was promoted or restored, begins a new
//! *term*, in which no run gets more units until all runs have stated what they hold.
//!
//! No property depends on clocks of two machines. Each run measures its own waits, and the rates of
//! clocks differ by at most 10 %. This crate has no I/O, and time is an argument: a [`Duration`]
//! since any instant of the run's own monotonic clock.
//!
//! [`Duration`]: std::time::Duration

// Input from the network must never cause a panic. Every `allow` of these lints states a reason.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented,
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::as_conversions
    )
)]
#![forbid(unsafe_code)]

mod beat;
mod ledger;
mod membership;
mod share;
mod watch;

pub use self::beat::{
    Answer, Ask, Beat, Grant, LimitKey, LimitKind, Register, Request, RunState, TermState, Verdict,
};
pub use self::ledger::{Ledger, RunRow, Units};
pub use self::membership::{ASKS_MAX, Contact, Membership, OVERDUE, Supply};
pub use self::share::Usage;
pub use self::watch::{Death, Finding, Link, Reading, RunSeen, Watch};
