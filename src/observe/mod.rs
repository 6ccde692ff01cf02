//! Tracing set-up, every metric name as a constant, `/metrics`, `/livez`, `/readyz`.

pub mod logs;
pub mod names;
