//! Offhook: a call-control engine for WhatsApp calls.
//!
//! Start at `ARCHITECTURE.md` for the map and one call's way through these rooms. What *decides* is pure
//! (`xml`, `call::machine`, `admission`); what *does* is thin (`call::shell`, `meta`, `answer`, `media`).

// Nobody's bytes make this process panic (R26): where one of these must stand, an `allow` says why. Tests may.
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

pub mod admission;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod agents;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod answer;
pub mod api;
pub mod call;
#[allow(
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "prints for people what they asked for"
)]
pub mod cli;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod config;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod console;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod doctor;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod erasure;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod feed;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod inbox;
pub mod meta;
pub mod node;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod notices;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod numbers;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod objects;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod observe;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod openid;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod people;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod phone;
pub mod stream;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod webhook;
