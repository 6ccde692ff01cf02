//! May this call start? One synchronous, lock-free answer with a named reason.
//!
//! [`Directory`] holds the routing tables with their live counters: [`Slots`] of a number, [`Ring`] of an
//! account's calls per second. [`Gate::admit`] asks them and gives an [`Admitted`], which can be had in no other
//! way, or a [`Refused`]; for a call that goes out, [`Gate::admit_business`] asks [`geo`] and [`permission`] too. Nothing
//! here waits, reads a clock or knows a call.

mod backlog;
pub mod book;
mod cps;
mod directory;
mod gate;
pub mod geo;
mod index;
mod lag;
mod mail;
pub mod permission;
mod pressure;
pub mod settings;
mod slots;

#[cfg(test)]
mod loom_model;
#[cfg(test)]
mod tests;

/// The atomics the counters are built on; `loom_model` includes the same files with loom's.
mod sync {
    pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
}

pub use cps::{Permit, Ring};
pub use directory::{
    AccountEntry, AccountSpec, ApplicationSpec, Directory, DirectoryError, NumberEntry, NumberSpec,
    Specs, Tables,
};
pub use gate::{Admitted, Because, Denied, Gate, Outgoing, Reason, Refused, WebAdmitted};
pub use lag::Lag;
pub use mail::{MailRoutes, Routings, Webhook, Webhooks};
pub use pressure::{Pressure, Starting, Strain};
pub use settings::AdmissionSettings;
pub use slots::{Slot, Slots};
