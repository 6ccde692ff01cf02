//! Observability: logs, metrics, `/metrics`, `/livez` and `/readyz`.
//!
//! Other modules count and log directly (`metrics::counter!`, `tracing`) with the names in
//! [`model::metric`]. This module installs the recorder and the subscriber. It does not depend on
//! calls or the configuration.

pub mod exporter;
mod json_line;
pub mod logs;
pub mod tally;

pub use exporter::Metrics;
pub use tally::{Tallies, Tally};
