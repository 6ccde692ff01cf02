//! What a `Dial` says to the world and hears from it (`plivo-xml.md` §5.7, §6).
//!
//! Each of its targets is a *B-leg*: a call of its own, with its own machine, which the A-leg's machine orders and which
//! tells it how far it is. `element::dial` is the A-leg's side, `callee` the B-leg's.

use serde::{Deserialize, Serialize};

use crate::model::HangupCause;

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
            Self::PstnForwardingNotSupported | Self::WhatsappToWhatsappNotSupported => HangupCause::DestinationBarred,
            Self::SipNotSupported | Self::EndpointNotRegistered => HangupCause::EndpointNotRegistered,
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
            HangupCause::InvalidDestination | HangupCause::UserUnreachable => Some(Self::InvalidDestination),
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
            Self::CallerIdNotEnabled => "callerId is no business number of this account with calling enabled",
            Self::NoPermission => "the user has not permitted calls from this number, or permits no more for now",
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
