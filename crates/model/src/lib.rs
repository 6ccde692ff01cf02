//! The words everybody speaks: ids, numbers, directions, hangup causes, time stamps, digits.
//!
//! Newtypes, so that two strings cannot change places. No IO, no clock, no policy.

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
mod endpoint;
mod health;
mod ids;
mod line;
pub mod metric;
mod network;
mod notice;
mod number;
mod permission;
mod quality;
mod role;
mod secret;
mod time;
mod trace;

pub use cause::{DocumentKind, HangupCause, HangupSource, WireCause};
pub use clock::Clock;
pub use conversation::{ConversationStatus, MessageStatus, Routing, stable_id};
pub use country::{Country, NoCountry, Origin};
pub use digit::Digit;
pub use endpoint::EndpointName;
pub use health::Health;
pub use ids::{AppId, AuthId, CallUuid, EndpointId, PhoneNumberId, StreamId, WabaId, Wacid};
pub use line::{Line, Place};
pub use network::{is_loopback, leads_to, network_of};
pub use notice::NoticeTopic;
pub use number::{E164, digits_of, last_four};
pub use permission::PermissionStatus;
pub use quality::{CallQuality, SoundWay};
pub use role::Role;
pub use secret::Secret;
pub use time::Timestamp;
pub use trace::{SpanId, TraceId, traceparent};

use serde::{Deserialize, Serialize};

/// Who began a call: the user (`inbound`) or the business (`outbound`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    /// The word on the wire and in metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What kind of path a leg is: a WhatsApp user's, or a browser endpoint's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CallType {
    Whatsapp,
    Web,
}

impl CallType {
    /// `CallType` in callbacks, `call_type` in records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Whatsapp => "whatsapp",
            Self::Web => "web",
        }
    }
}

/// One party's path in a call. The A-leg began the call; B-legs were made by `<Dial>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Leg {
    A,
    /// B-legs by position, from 1.
    B(u8),
}

/// How a customer's URL is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Method {
    #[serde(rename = "GET")]
    Get,
    #[default]
    #[serde(rename = "POST")]
    Post,
}

impl Method {
    /// The HTTP word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
        }
    }
}
