//! Offhook: a call-control engine for WhatsApp calls.
//!
//! Start at `ARCHITECTURE.md` for the map and one call's way through these rooms. What *decides* is pure
//! (`xml`, `call::machine`, `admission`); what *does* is thin (`call::shell`, `meta`, `answer`, `media`).

pub mod admission;
pub mod answer;
pub mod api;
pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod egress;
pub mod ffi;
pub mod media;
pub mod meta;
pub mod model;
pub mod node;
pub mod observe;
pub mod sim;
pub mod speech;
pub mod store;
pub mod webhook;
pub mod xml;
