//! A call: the pure [`machine`] that decides, and the thin rooms that run it.
//!
//! `shell` carries the machine's outputs out and facts in, `step` tells the machine the time, `registry` knows the
//! live calls, `log` writes the event log down, `replay` runs one again. Media, Graph, fetching and the store are
//! services below.

pub mod live;
pub mod log;
pub mod machine;
mod record;
pub mod registry;
pub mod replay;
pub mod services;
mod shell;
pub mod step;

pub use registry::{LiveCall, Registry};
pub use services::Services;
