//! Decides whether a call may start.
//!
//! [`Directory`] holds the routing tables and their live counters: the [`Slots`] of each number and
//! the [`Ring`] of each account's calls per second. [`Gate::admit`] checks them without a lock and
//! returns an [`Admitted`], which nothing else can create, or a [`Refused`] with the reason.
//! [`Gate::admit_business`] also checks [`geo`] and [`permission`] for outbound calls. No function
//! in this module waits or reads a clock.

mod backlog;
pub mod book;
mod cps;
mod directory;
mod entry;
mod gate;
pub mod geo;
mod index;
mod lag;
mod message_routes;
pub mod permission;
mod pressure;
mod refusals;
pub mod settings;
mod slots;
mod strain;

#[cfg(test)]
mod loom_model;
#[cfg(test)]
mod tests;

/// The atomics of the counters. `loom_model` includes the same files with loom's atomics.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}

pub use cps::{Permit, Ring, Vacancy};
pub use directory::{
    ApplicationSpec, Caps, Counter, Directory, DirectoryError, Specs, Tables, UnitCounts,
};
pub use entry::{AccountEntry, AccountSpec, NumberEntry, NumberSpec};
pub use gate::{
    Admitted, Denied, Gate, Lack, Lease, Outgoing, Reason, RefusalDetail, Refused, WebAdmitted,
};
pub use lag::Lag;
pub use message_routes::{MessageRoutes, Routings, Webhook, Webhooks};
pub use pressure::{Pressure, SetUpTicket};
pub use refusals::Refusals;
pub use settings::AdmissionSettings;
pub use slots::{Slot, Slots};
pub use strain::Strain;
