//! The rules by which several nodes share one PostgreSQL database.
//!
//! A *node* is a name; a *run* is one process of it. A *limit* is a number's slots or an account's
//! calls per second, and a *unit* is one slot or one permit of it. A run admits calls with the
//! units that it holds, without a query. Each run sends a *beat* twice a second: a transaction that
//! proves that the run is alive and moves units.
//!
//! Two properties always hold, even if messages are lost, duplicated, delayed or reordered, and
//! even if the database loses data:
//!
//! - A run never admits calls with more units than the database has granted to it. It lowers its
//!   own limit before it reports the new one, and raises it only on the answer to its newest beat
//!   ([`Membership`]).
//! - The database never grants more units than a limit has. It locks the limit before it counts the
//!   units. [`Ledger`] reimplements the SQL function.
//!
//! A database that may have forgotten units, because it was promoted or restored, begins a new
//! *term*. In this term no run gets more units until all runs have stated the units that they hold.
//!
//! Neither property compares the clocks of two machines. Each run measures its own intervals, and
//! the rates of clocks must differ by at most 10 %. This crate has no I/O, and time is an argument:
//! a [`Duration`] since any instant of the run's own monotonic clock.
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
pub use self::membership::{ASKS_MAX, Contact, Membership, OVERDUE, RunSnapshot, Supply};
pub use self::share::Usage;
pub use self::watch::{Death, Finding, Link, Reading, RunReading, Watch};
