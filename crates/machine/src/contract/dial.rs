//! The messages between the two legs of a `Dial` (docs/reference/xml.md#dial).
//!
//! Each target of a `Dial` is a *B-leg*: a call with its own machine. The machine of the A-leg
//! sends it [`BLegCommand`]s, and it answers with [`BLegEvent`]s.

use serde::{Deserialize, Serialize};

use super::command::Command;
use model::{CallUuid, Digit, HangupCause, Method};
use xml::ast::DocUrl;

/// The reason why a target of a `Dial` is not called: the parameter `DialError`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DialError {
    PstnForwardingNotSupported,
    WhatsappToWhatsappNotSupported,
    SipNotSupported,
    EndpointNotRegistered,
    CallerIdNotEnabled,
    NoPermission,
    GeoBlocked,
    NumberFull,
    CpsExceeded,
    Draining,
    Overloaded,
    /// The target is the A-leg's own number.
    Loop,
    /// Meta does not know the user.
    InvalidDestination,
}

impl DialError {
    /// Returns the value of the parameter `DialError`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PstnForwardingNotSupported => "pstn_forwarding_not_supported",
            Self::WhatsappToWhatsappNotSupported => "whatsapp_to_whatsapp_not_supported",
            Self::SipNotSupported => "sip_not_supported",
            Self::EndpointNotRegistered => "endpoint_not_registered",
            Self::CallerIdNotEnabled => "caller_id_not_enabled",
            Self::NoPermission => "no_permission",
            Self::GeoBlocked => "geo_blocked",
            Self::NumberFull => "number_full",
            Self::CpsExceeded => "cps_exceeded",
            Self::Draining => "draining",
            Self::Overloaded => "overloaded",
            Self::Loop => "loop",
            Self::InvalidDestination => "invalid_destination",
        }
    }

    /// Returns the cause that callbacks report for the B-leg that was not created
    /// (docs/reference/xml.md#dialerror).
    pub fn cause(self) -> HangupCause {
        match self {
            Self::PstnForwardingNotSupported | Self::WhatsappToWhatsappNotSupported => {
                HangupCause::DestinationBarred
            }
            Self::SipNotSupported | Self::EndpointNotRegistered => {
                HangupCause::EndpointNotRegistered
            }
            Self::CallerIdNotEnabled => HangupCause::CallingDisabled,
            Self::NoPermission => HangupCause::NoPermission,
            Self::GeoBlocked => HangupCause::GeoBlocked,
            Self::NumberFull => HangupCause::NumberFull,
            Self::CpsExceeded => HangupCause::CpsExceeded,
            Self::Draining => HangupCause::Drained,
            Self::Overloaded => HangupCause::InternalError,
            Self::Loop => HangupCause::LoopDetected,
            Self::InvalidDestination => HangupCause::InvalidDestination,
        }
    }

    /// Returns the error for a B-leg that ended with `cause` before Graph had placed it. `None` if
    /// such a leg counts as placed.
    pub fn from_cause(cause: HangupCause) -> Option<Self> {
        match cause {
            HangupCause::NoPermission | HangupCause::PermissionRefused => Some(Self::NoPermission),
            HangupCause::CallingDisabled => Some(Self::CallerIdNotEnabled),
            HangupCause::InvalidDestination | HangupCause::UserUnreachable => {
                Some(Self::InvalidDestination)
            }
            HangupCause::NumberFull => Some(Self::NumberFull),
            HangupCause::CpsExceeded => Some(Self::CpsExceeded),
            HangupCause::EndpointNotRegistered => Some(Self::EndpointNotRegistered),
            // All other causes belong to legs that were placed.
            _ => None,
        }
    }

    /// Returns an explanation for the log, and a remedy if there is one.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::PstnForwardingNotSupported => {
                "calls end on this platform, there is no way to the phone network; dial an endpoint instead"
            }
            Self::WhatsappToWhatsappNotSupported => {
                "WhatsApp calls are not forwarded to another WhatsApp user; limits.allow_wa_bridge = true lifts this"
            }
            Self::SipNotSupported => {
                "no other SIP host is called; dial an endpoint of this platform, sip:NAME@ the host of public.base_url"
            }
            Self::EndpointNotRegistered => "no phone has registered as this endpoint",
            Self::CallerIdNotEnabled => {
                "callerId is no business number of this account with calling enabled"
            }
            Self::NoPermission => {
                "the user has not permitted calls from this number, or permits no more for now"
            }
            Self::GeoBlocked => "numbers of callerId's country can't call out",
            Self::NumberFull => "callerId has as many calls up as it may",
            Self::CpsExceeded => "the account's calls per second are used up",
            Self::Draining => "this node is being stopped",
            Self::Overloaded => "this node has no room for a further call",
            Self::Loop => "that is the number of this very call",
            Self::InvalidDestination => "it is not the number of a WhatsApp user who can be called",
        }
    }
}

/// Maximum time for which a user's phone rings, in milliseconds. Meta ends the call after that
/// (docs/reference/meta.md#t-ring).
pub const RING_MAX_MS: u64 = 60_000;

/// The destination of a B-leg.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum Destination {
    /// A WhatsApp user, called from the business number `caller`. Both are digits.
    Whatsapp { caller: String, user: String },
    /// An endpoint of the account. Its phone displays `caller`.
    Endpoint { caller: String, name: String },
}

/// A B-leg that is to be called.
///
/// Its `Debug` form contains no phone number.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DialOrder {
    /// The id of the call that the leg becomes.
    pub call: CallUuid,
    /// The position of the target in the `Dial`, from 1.
    pub position: u8,
    pub destination: Destination,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub caller_name: String,
    /// `X-PH-*` parameters, without the prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// Maximum time for which the leg may ring, in milliseconds, regardless of the A-leg.
    pub ring_timeout_ms: u64,
    /// Digits that are sent to the leg before it is connected to the A-leg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_digits: Option<String>,
    #[serde(rename = "dialled")]
    pub b_leg: BLegSetup,
}

impl std::fmt::Debug for DialOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DialOrder").field("call", &self.call).finish_non_exhaustive()
    }
}

/// The data about the A-leg in the setup of a B-leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BLegSetup {
    /// The call that dialled this leg.
    pub a_leg: CallUuid,
    /// The API request that placed the A-leg. `None` if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a_request: Option<CallUuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirmation>,
    /// Whether the leg reports its digits while it is connected to the A-leg.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "tells_keys")]
    pub report_digits: bool,
}

/// A confirmation that a person has answered. A called leg may require it before it is connected.
///
/// It is set by `confirmSound`, `confirmKey` and `confirmTimeout` of a `Dial`, or by
/// `confirm_key_sound_url` and `confirm_key` of a call that is added to a multi-party call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirmation {
    /// The URL of a document with the sounds that are played first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sound: Option<DocUrl>,
    /// The method of the request for `sound`.
    #[serde(default, skip_serializing_if = "is_post")]
    pub method: Method,
    /// The digit that confirms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digit>,
    /// Time limit for the digit, in milliseconds from the end of the sound.
    pub timeout_ms: u64,
}

fn is_post(method: &Method) -> bool {
    *method == Method::Post
}

/// A report of a B-leg to its A-leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub enum BLegEvent {
    /// The leg was never called. `detail` explains the error and may be empty.
    Refused { error: DialError, detail: String },
    /// Meta has accepted the call, or the phones of the endpoint ring.
    Placed,
    /// The phone rings.
    Ringing,
    /// The leg was answered and waits for [`BLegCommand::Proceed`].
    Answered,
    /// The leg is confirmed, and its media is up.
    Ready,
    /// A digit was pressed while the leg was connected.
    #[serde(rename = "key")]
    Digit { digit: Digit },
    /// The leg has ended. This is its last event.
    Ended { cause: HangupCause },
}

/// An instruction of an A-leg to its B-leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "leg", rename_all = "snake_case")]
pub enum BLegCommand {
    /// The leg was the first to answer. It continues with its confirmation.
    Proceed,
    /// Connects the audio of the two legs.
    Join,
    /// Ends the leg.
    HangUp { cause: HangupCause },
    /// Forwards a request of the REST API.
    #[serde(rename = "ask")]
    Forward { command: Box<Command> },
}

/// Returns the custom headers in the pairs of `sipHeaders`. Their names have no prefix `X-PH-`.
///
/// Reserved names are dropped, see [`sip_header_name`].
pub(crate) fn sip_headers(pairs: &[(String, String)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .filter_map(|(name, value)| Some((sip_header_name(name)?.to_owned(), value.clone())))
        .collect()
}

/// Returns the name of a custom header without its prefix `X-PH-`, if it has one.
///
/// Returns `None` if Plivo reserves the name (docs/reference/callbacks.md#common-parameters).
pub fn sip_header_name(name: &str) -> Option<&str> {
    const PREFIX: &str = "X-PH-";
    const RESERVED: [&str; 7] = ["ph-", "plivo", "fs-", "sipauth", "zt-", "twilio", "clientregion"];
    let bare = match name.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if !rest.is_empty() && prefix.eq_ignore_ascii_case(PREFIX) => rest,
        // A name without the prefix, or the bare prefix.
        _ => name,
    };
    let lower = bare.to_ascii_lowercase();
    (!RESERVED.iter().any(|reserved| lower.starts_with(reserved))).then_some(bare)
}
