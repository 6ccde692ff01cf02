//! What people and machines see of a running node: logs, every metric's name, `/metrics`, `/livez`, `/readyz`.
//!
//! Rooms count and log by themselves (`metrics::counter!`, `tracing`), with the names of [`names`]; this room sets
//! up what carries it out. It knows no call and no configuration.

pub mod exporter;
mod json_line;
pub mod logs;
pub mod tally;

pub use exporter::Metrics;
pub use tally::{Tallies, Tally};
