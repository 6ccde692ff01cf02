//! What is fixed when a call begins.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dial::{Confirm, DialledBy};
use model::{AuthId, CallType, CallUuid, Direction, Method, PhoneNumberId, Timestamp, Wacid};
use xml::ast::{DocUrl, ElementKind};

/// What is fixed when a call begins. Its `Debug` names the call and nobody's number (R22).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct CallSetup {
    pub call: CallUuid,
    pub direction: Direction,
    pub call_type: CallType,
    /// Meta's id; none on a web leg.
    pub wacid: Option<Wacid>,
    pub phone_number_id: PhoneNumberId,
    /// `From` as callbacks give it: digits, a BSUID, or `anonymous` (`meta-calling.md` §1.2).
    pub from: String,
    /// `To` as callbacks give it.
    pub to: String,
    /// The user's WhatsApp profile name; empty where Meta sent none.
    pub caller_name: String,
    pub cta_payload: Option<String>,
    pub deeplink_payload: Option<String>,
    /// The account that owns the call (a subaccount, maybe) and its main account.
    pub account: AuthId,
    pub parent_account: AuthId,
    pub urls: CallUrls,
    /// Wall-clock time of the first input; every printed time is this plus [`super::CallTime`].
    pub started: Timestamp,
    pub limits: MachineLimits,
    /// `X-PH-*` parameters of outbound calls, without the prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// What an outbound call has besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound: Option<Box<Outbound>>,
}

/// What only a business-initiated call begins with (`plivo-call-api.md` §2.1). Its request's UUID is the call's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outbound {
    pub ring: Option<(DocUrl, Method)>,
    /// `ring_timeout`, cut to T_ring (L26).
    pub ring_timeout_ms: u64,
    /// `hangup_on_ring`, from RINGING on.
    pub hangup_on_ring_ms: Option<u64>,
    /// Keys sent once the call is answered: `0-9 * #`, `w` and `W` wait.
    pub send_digits: Option<String>,
    /// `parent_call_uuid`: stored, and nothing more. On a B-leg the A-leg.
    pub parent_call: Option<CallUuid>,
    /// Of a B-leg.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialled: Option<Box<DialledBy>>,
    /// What it runs once answered, in place of the answer URL's document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Arc<xml::Document>>,
    /// Before that, somebody has to confirm that they are there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<Confirm>,
    /// The multi-party call that it enters, if there was one when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<uuid::Uuid>,
    /// What those in the multi-party call that it enters hear until it is answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_music: Option<RoomMusic>,
    /// The multi-party call that it enters does not start with it alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_company: bool,
}

impl CallSetup {
    /// Who dialled it, if it is a B-leg.
    pub fn dialled(&self) -> Option<&DialledBy> {
        self.outbound.as_ref()?.dialled.as_deref()
    }
}

impl std::fmt::Debug for CallSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallSetup")
            .field("call", &self.call)
            .field("direction", &self.direction)
            .finish_non_exhaustive()
    }
}

/// The number's URLs, as they stood when the call began (S0.25: a call keeps what it began with).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallUrls {
    pub answer: DocUrl,
    pub answer_method: Method,
    pub fallback: Option<(DocUrl, Method)>,
    /// Already the answer URL where none was set (`interface.md` §2).
    pub hangup: (DocUrl, Method),
}

/// Times that bound a call, in milliseconds (`meta-calling.md` §7), and whom it may dial; the defaults are the spec's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineLimits {
    /// `[media].accept_wait_ms`.
    pub accept_wait_ms: u64,
    /// T_accept: our own deadline to have `accept` sent.
    pub accept_deadline_ms: u64,
    /// T_media: ICE and DTLS up, from `accept`'s 200.
    pub media_setup_ms: u64,
    /// Wait for `accept`'s outcome after a terminate webhook overtook it.
    pub accept_outcome_ms: u64,
    /// `closing` after terminate's 200, if no webhook comes.
    pub close_ms: u64,
    /// T_reap: `closing` ends whatever happens.
    pub reap_ms: u64,
    /// `[limits].max_call_seconds`, from the answer.
    pub max_call_ms: u64,
    /// `[answer].timeout_ms`: one document.
    pub fetch_ms: u64,
    /// Answer and fallback together on an inbound call.
    pub answer_budget_ms: u64,
    /// `[limits].allow_wa_bridge`: a WhatsApp leg may dial a WhatsApp user.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_wa_bridge: bool,
    /// The host of this platform's SIP addresses: that of `[public].base_url`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sip_host: String,
    /// Somebody on this node writes down what is said in recordings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transcribes: bool,
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
            transcribes: false,
        }
    }
}

/// What is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "music", rename_all = "snake_case")]
pub enum RoomMusic {
    /// A ring-back tone.
    RingBack,
    /// The sounds of a document, again and again.
    Document { url: DocUrl },
}

/// The multi-party call that a call is placed for, by its name, and its id where it was there when that was ordered.
pub fn placed_for(setup: &CallSetup) -> Option<(&str, Option<uuid::Uuid>)> {
    let placed = setup.outbound.as_ref()?;
    let name = placed.document.as_ref()?.elements.iter().find_map(|element| match &element.kind {
        ElementKind::MultiPartyCall(call) => Some(call.name.as_str()),
        _ => None,
    });
    Some((name?, placed.room))
}
