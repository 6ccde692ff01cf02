//! Types shared by every crate: identifiers, phone numbers, hangup causes, timestamps, digits.
//!
//! Identifiers are newtypes, so that one kind cannot be passed as another by mistake. Except for
//! [`Clock`] and [`Disk`], which ask the system, nothing here performs I/O.

// Input from the network must never cause a panic. Every `allow` of these lints states a reason.
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
        clippy::string_slice,
        clippy::as_conversions
    )
)]
#![forbid(unsafe_code)]

mod cause;
mod clock;
mod conversation;
mod country;
mod country_names;
mod digit;
mod disk;
mod endpoint;
mod health;
mod ids;
mod line;
pub mod metric;
mod network;
mod notification;
mod number;
mod permission;
mod quality;
mod repeats;
mod role;
mod sample;
mod secret;
mod speech;
mod time;
mod trace;
mod wait_meter;

pub use cause::{DocumentKind, HangupCause, HangupSource, WireCause};
pub use clock::Clock;
pub use conversation::{ConversationStatus, MessageStatus, Routing, stable_id};
pub use country::{Country, CountryError, Origin};
pub use digit::Digit;
pub use disk::Disk;
pub use endpoint::EndpointName;
pub use health::Health;
pub use ids::{AppId, AuthId, CallUuid, EndpointId, PhoneNumberId, StreamId, WabaId, Wacid};
pub use line::{is_line, is_visible};
pub use network::{can_reach, is_local_host, is_loopback, network_prefix};
pub use notification::NotificationTopic;
pub use number::{E164, digits_of, last_four};
pub use permission::PermissionStatus;
pub use quality::{CallQuality, DirectionQuality};
pub use repeats::Repeats;
pub use role::Role;
pub use sample::Sample;
pub use secret::Secret;
pub use speech::PromptVoice;
pub use time::Timestamp;
pub use trace::{SpanId, TraceId, traceparent};
pub use wait_meter::{WaitMeter, WaitToken};

use serde::{Deserialize, Serialize};

/// Which side started a call: the user (`inbound`) or the business (`outbound`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    /// The direction's name on the wire and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// The kind of party on a leg: a WhatsApp user, or an endpoint's phone (`Web`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallType {
    Whatsapp,
    Web,
}

impl CallType {
    /// The value of `CallType` in callbacks and of `call_type` in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whatsapp => "whatsapp",
            Self::Web => "web",
        }
    }
}

/// One side of a call with its own media. The A-leg's document contains the `Dial` that creates the
/// B-legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Leg {
    A,
    /// A B-leg, numbered from 1.
    B(u8),
}

/// The HTTP method of a request to a customer's URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    #[serde(rename = "GET")]
    Get,
    #[default]
    #[serde(rename = "POST")]
    Post,
}

impl Method {
    /// The method's name in HTTP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}
