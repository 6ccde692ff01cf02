//! What a `Dial` says to the world and hears from it (`plivo-xml.md` §5.7, §6).
//!
//! Each of its targets is a *B-leg*: a call of its own, with its own machine, which the A-leg's machine orders and which
//! tells it how far it is. `element::dial` is the A-leg's side, `callee` the B-leg's.

use serde::{Deserialize, Serialize};

use super::command::Command;
use model::{CallUuid, Digit, HangupCause, Method};
use xml::ast::DocUrl;

/// Why a target is not placed: `DialError`.
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
    /// Meta knows no such user.
    InvalidDestination,
}

impl DialError {
    /// The word on the wire.
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

    /// What the B-leg that never was is said to have ended with (the table of §6).
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

    /// What a B-leg's end means that Graph never let begin; none: it was placed, and failed.
    pub fn of_refused(cause: HangupCause) -> Option<Self> {
        match cause {
            HangupCause::NoPermission | HangupCause::PermissionRefused => Some(Self::NoPermission),
            HangupCause::CallingDisabled => Some(Self::CallerIdNotEnabled),
            HangupCause::InvalidDestination | HangupCause::UserUnreachable => {
                Some(Self::InvalidDestination)
            }
            HangupCause::NumberFull => Some(Self::NumberFull),
            HangupCause::CpsExceeded => Some(Self::CpsExceeded),
            HangupCause::EndpointNotRegistered => Some(Self::EndpointNotRegistered),
            _ => None,
        }
    }

    /// For the log: what it means, and what to do about it.
    pub fn why(self) -> &'static str {
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

/// T_ring: Meta ends an unanswered call itself (`meta-calling.md` §7, L26).
pub const RING_MAX_MS: u64 = 60_000;

/// Where a B-leg goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum Destination {
    /// In the name of this business number, to this user: digits.
    Whatsapp { caller: String, user: String },
    /// An endpoint of the account; `caller` is what it is shown.
    Endpoint { caller: String, name: String },
}

/// A B-leg to be begun, with all that the A-leg knows of it.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DialOrder {
    /// Its name, which is the call's that it becomes.
    pub call: CallUuid,
    /// From 1.
    pub position: u8,
    pub destination: Destination,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub caller_name: String,
    /// `X-PH-*` parameters, without the prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// It rings no longer than this, whatever becomes of the A-leg.
    pub ring_timeout_ms: u64,
    /// Keys sent before it is brought together with the A-leg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_digits: Option<String>,
    pub dialled: DialledBy,
}

/// Its `Debug` names the call and nobody's number (R22).
impl std::fmt::Debug for DialOrder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DialOrder").field("call", &self.call).finish_non_exhaustive()
    }
}

/// What makes a call a B-leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DialledBy {
    /// The call that dialled it.
    pub a_leg: CallUuid,
    /// That one's request, where it was ordered over the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub a_request: Option<CallUuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirm>,
    /// Its keys are told while it is connected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tells_keys: bool,
}

/// `confirmSound`, `confirmKey`, `confirmTimeout`; of who is called into a multi-party call `confirm_key_sound_url` and
/// `confirm_key`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Confirm {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sound: Option<DocUrl>,
    /// How it is asked for.
    #[serde(default, skip_serializing_if = "is_post")]
    pub method: Method,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Digit>,
    /// From the end of the sound, where there is one.
    pub timeout_ms: u64,
}

fn is_post(method: &Method) -> bool {
    *method == Method::Post
}

/// What a B-leg tells its A-leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "news", rename_all = "snake_case")]
pub enum LegNews {
    /// It never began.
    Refused { error: DialError, detail: String },
    /// It is on its way: Meta has the call, or the endpoint's phones ring.
    Placed,
    /// The user's phone rings.
    Ringing,
    /// It was picked up, and waits for [`LegWish::Proceed`].
    Answered,
    /// Confirmed, and its media is up.
    Ready,
    /// A key was pressed while it was connected.
    Key { digit: Digit },
    /// The last.
    Ended { cause: HangupCause },
}

/// What an A-leg wants of a B-leg.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "leg", rename_all = "snake_case")]
pub enum LegWish {
    /// It answered first: on to the confirmation.
    Proceed,
    /// From now on the two hear each other.
    Join,
    HangUp {
        cause: HangupCause,
    },
    /// What REST wants of it, as if it was asked itself.
    Ask {
        command: Box<Command>,
    },
}

/// `X-PH-` parameters of `sipHeaders` pairs: names that Plivo keeps for itself are dropped, and a prefix that stands there
/// already is not doubled (`plivo-callbacks.md` §1.1).
pub(crate) fn headers(pairs: &[(String, String)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .filter_map(|(name, value)| Some((header_name(name)?.to_owned(), value.clone())))
        .collect()
}

/// A header's name behind `X-PH-`; none where it is one that Plivo keeps for itself.
pub fn header_name(name: &str) -> Option<&str> {
    const PREFIX: &str = "X-PH-";
    const RESERVED: [&str; 7] = ["ph-", "plivo", "fs-", "sipauth", "zt-", "twilio", "clientregion"];
    let bare = match name.split_at_checked(PREFIX.len()) {
        Some((prefix, rest)) if !rest.is_empty() && prefix.eq_ignore_ascii_case(PREFIX) => rest,
        _ => name,
    };
    let lower = bare.to_ascii_lowercase();
    (!RESERVED.iter().any(|reserved| lower.starts_with(reserved))).then_some(bare)
}
