//! Offhook: a call-control engine for WhatsApp calls.
//!
//! This package is the node around the engine: the REST APIs, the console, the browser phone, the
//! commands and the process itself. See `ARCHITECTURE.md` for an overview.

// No input may make the process panic. Where one of these constructs is needed, an `allow` gives
// the reason. Tests are exempt.
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
        clippy::string_slice
    )
)]
#![forbid(unsafe_code)]

pub mod api;
#[allow(
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "formats output for the person who runs the command"
)]
pub mod cli;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod console;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod doctor;
pub mod node;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod observe;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod phone;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod public_address;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod speech_settings;
