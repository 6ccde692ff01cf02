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
#![deny(clippy::undocumented_unsafe_blocks)]

#[forbid(unsafe_code)]
pub mod admission;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod agents;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod answer;
#[forbid(unsafe_code)]
pub mod api;
#[forbid(unsafe_code)]
pub mod call;
#[forbid(unsafe_code)]
#[allow(clippy::indexing_slicing, clippy::string_slice, reason = "prints for people what they asked for")]
pub mod cli;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod config;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod console;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod doctor;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod egress;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod erasure;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod feed;
#[allow(clippy::indexing_slicing, clippy::expect_used, reason = "lengths that C gave, checked where they come in")]
pub mod ffi;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod inbox;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod media;
#[forbid(unsafe_code)]
pub mod meta;
#[forbid(unsafe_code)]
pub mod node;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod notices;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod numbers;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod objects;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod observe;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod openid;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod people;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod phone;
#[forbid(unsafe_code)]
#[allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::string_slice,
    reason = "the stand-in of tests; not in a node's way"
)]
pub mod sim;
#[forbid(unsafe_code)]
pub mod speech;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod store;
#[forbid(unsafe_code)]
pub mod stream;
#[forbid(unsafe_code)]
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod webhook;
