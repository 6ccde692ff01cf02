//! The setup of a call, which is fixed when the call begins.

use std::fmt::{self, Formatter};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::dial::{BLegSetup, Confirmation};
use model::{AuthId, CallType, CallUuid, Direction, Method, PhoneNumberId, Timestamp, Wacid};
use xml::ast::{DocUrl, ElementKind};

/// The setup of a call, which is fixed when the call begins.
///
/// Its `Debug` form contains no phone number.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct CallSetup {
    pub call: CallUuid,
    pub direction: Direction,
    pub call_type: CallType,
    /// Meta's id of the call. `None` on a web leg, and before it is known.
    pub wacid: Option<Wacid>,
    pub phone_number_id: PhoneNumberId,
    /// The parameter `From`: digits, a BSUID, or `anonymous` (docs/reference/meta.md#caller-name).
    pub from: String,
    /// The parameter `To`.
    pub to: String,
    /// The user's WhatsApp profile name. Empty if Meta sent none.
    pub caller_name: String,
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
    /// The account or subaccount that owns the call.
    pub account: AuthId,
    /// The main account of `account`.
    pub parent_account: AuthId,
    pub urls: CallUrls,
    /// The wall-clock time of the first input, to which all times of the call are added.
    pub started: Timestamp,
    pub limits: MachineLimits,
    /// The `X-PH-` parameters of an outbound call, named without the prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// The part of the setup that only outbound calls have. `None` on inbound calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Box<Outbound>>,
}

/// The part of the setup that only outbound calls have (docs/reference/rest.md#make-a-call). The id
/// of the call is also that of the request that placed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbound {
    /// The ring URL.
    pub ring: Option<(DocUrl, Method)>,
    /// `ring_timeout`, at most [`RING_MAX_MS`](super::RING_MAX_MS).
    pub ring_timeout_ms: u64,
    /// `hangup_on_ring`, from the status RINGING.
    pub hangup_on_ring_ms: Option<u64>,
    /// Digits that are sent when the call is answered: `0-9 * #`, `w` and `W` wait.
    pub send_digits: Option<String>,
    /// `parent_call_uuid`, or the A-leg of a B-leg. It is stored but has no effect.
    pub parent_call: Option<CallUuid>,
    /// The data about the A-leg. `None` if the call is not a B-leg.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "dialled")]
    pub b_leg: Option<Box<BLegSetup>>,
    /// The document that runs when the call is answered, instead of the one from the answer URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Arc<xml::Document>>,
    /// The confirmation that is required before `document` runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirmation>,
    /// The multi-party call that `document` enters, if it already existed when the call was
    /// ordered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Uuid>,
    /// The sound for the participants of that multi-party call until the call is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_music: Option<RoomMusic>,
    /// Whether the multi-party call does not start while this call is its only participant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_company: bool,
    /// Whether the call has not been placed yet: it waits for its account's calls per second.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_queued: bool,
}

impl CallSetup {
    /// Returns the data about the A-leg. `None` if the call is not a B-leg.
    pub fn b_leg(&self) -> Option<&BLegSetup> {
        self.outbound.as_ref()?.b_leg.as_deref()
    }

    /// Whether this is an outbound call that has not been placed yet.
    pub fn is_queued(&self) -> bool {
        self.outbound.as_ref().is_some_and(|outbound| outbound.is_queued)
    }

    /// Returns the name of the multi-party call that the call is placed for, and its id if it
    /// already existed when the call was ordered. `None` if the call is not placed for one.
    pub fn multi_party_call(&self) -> Option<(&str, Option<Uuid>)> {
        let outbound = self.outbound.as_ref()?;
        let mut elements = outbound.document.as_ref()?.elements.iter();
        let name = elements.find_map(|element| match &element.kind {
            ElementKind::MultiPartyCall(call) => Some(call.name.as_str()),
            // Other elements do not enter a multi-party call.
            _ => None,
        })?;
        Some((name, outbound.room))
    }
}

impl fmt::Debug for CallSetup {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallSetup")
            .field("call", &self.call)
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}

/// The URLs of the number or application at the start of the call. Later changes do not affect the
/// call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallUrls {
    pub answer: DocUrl,
    pub answer_method: Method,
    pub fallback: Option<(DocUrl, Method)>,
    /// The hangup URL, or the answer URL if no hangup URL is set.
    pub hangup: (DocUrl, Method),
}

/// Time limits of a call in milliseconds (docs/reference/meta.md#timers), and settings of the node
/// that affect calls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineLimits {
    /// `media.accept_wait_ms`: maximum time for which `accept` waits for ICE and DTLS.
    pub accept_wait_ms: u64,
    /// T_accept: the latest time for `accept`.
    pub accept_deadline_ms: u64,
    /// T_media: time limit for ICE and DTLS after the answer.
    pub media_setup_ms: u64,
    /// Timeout for the outcome of `accept` after the call has ended.
    pub accept_outcome_ms: u64,
    /// Timeout for Meta's webhook after Graph has confirmed `terminate`.
    pub close_ms: u64,
    /// T_reap: maximum time for which a closing call is kept.
    pub reap_ms: u64,
    /// `limits.max_call_seconds`, measured from the answer.
    pub max_call_ms: u64,
    /// `answer.timeout_ms`: time limit for one document.
    pub fetch_ms: u64,
    /// Time limit for the answer URL and the fallback URL of an inbound call together.
    pub answer_budget_ms: u64,
    /// `limits.allow_wa_bridge`: whether a WhatsApp call may dial a WhatsApp user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_wa_bridge: bool,
    /// The host of the SIP addresses of endpoints: that of `public.base_url`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sip_host: String,
    /// Whether the node can transcribe recordings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "transcribes")]
    pub can_transcribe: bool,
    /// `answer.allow_insecure`: whether URLs without encryption are accepted without a finding.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_plain_urls: bool,
}

impl Default for MachineLimits {
    fn default() -> Self {
        Self {
            accept_wait_ms: 3_000,
            accept_deadline_ms: 20_000,
            media_setup_ms: 15_000,
            accept_outcome_ms: 2_000,
            close_ms: 5_000,
            reap_ms: 90_000,
            max_call_ms: 14_400_000,
            fetch_ms: 10_000,
            answer_budget_ms: 20_000,
            allow_wa_bridge: false,
            sip_host: String::new(),
            can_transcribe: false,
            allow_plain_urls: false,
        }
    }
}

/// The sound for the participants of a multi-party call while a call is placed for it:
/// `dial_music`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "music", rename_all = "snake_case")]
pub enum RoomMusic {
    /// A ring-back tone.
    RingBack,
    /// The sounds of a document in a loop.
    Document { url: DocUrl },
}
