//! The services of a node for its calls and conversations.
//!
//! [`webhook`] receives Meta's events, [`admission`] decides which calls may start, [`call`] drives
//! the machine of each call, [`answer`] asks the customer's server, [`meta`] calls the Graph API,
//! [`inbox`] and [`agents`] handle conversations, and [`numbers`] and [`people`] manage the
//! settings behind the REST APIs. [`cluster`] connects the node to a fleet, [`limiter`] limits
//! unauthenticated clients, [`alerts`] reports to the operator, [`config`] reads the configuration
//! file.

// Bytes from outside must not make the process panic: where one of these is needed, an `allow` gives the reason.
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
pub mod alerts;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod answer;
pub mod call;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod cluster;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod config;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod disk_space;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod erasure;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod feed;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod inbox;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod limiter;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod links;
pub mod meta;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod notices;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod numbers;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod objects;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod openid;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod people;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod shared_settings;
pub mod stream;
#[cfg_attr(not(test), deny(clippy::as_conversions))]
pub mod webhook;

/// Counts an entry that a full queue refused. `queue` is a word of [`model::metric::queue`].
pub(crate) fn count_refused(queue: &'static str) {
    metrics::counter!(model::metric::QUEUE_REFUSED_TOTAL, "queue" => queue).increment(1);
}
