//! Hangup causes, and their form in callbacks and records (docs/reference/hangup-causes.md).

use serde::{Deserialize, Serialize};

use super::Direction;

/// Who ended a call: `HangupSource` of callbacks (docs/reference/callbacks.md#hangupsource).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HangupSource {
    Caller,
    Callee,
    Plivo,
    Carrier,
    #[serde(rename = "API Request")]
    ApiRequest,
    #[serde(rename = "Answer XML")]
    AnswerXml,
    Error,
    Unknown,
}

impl HangupSource {
    /// All sources.
    pub const ALL: [Self; 8] = [
        Self::Caller,
        Self::Callee,
        Self::Plivo,
        Self::Carrier,
        Self::ApiRequest,
        Self::AnswerXml,
        Self::Error,
        Self::Unknown,
    ];

    /// Returns the value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "Caller",
            Self::Callee => "Callee",
            Self::Plivo => "Plivo",
            Self::Carrier => "Carrier",
            Self::ApiRequest => "API Request",
            Self::AnswerXml => "Answer XML",
            Self::Error => "Error",
            Self::Unknown => "Unknown",
        }
    }
}

/// The document that an error concerns. It selects among the codes of an error, such as 7011 to
/// 7014.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DocumentKind {
    Answer,
    Action,
    Transfer,
    Redirect,
}

/// Why a leg ended, by the names used in logs, the event log and records. [`HangupCause::wire`]
/// converts it to Plivo's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HangupCause {
    /// The user hung up before the call was accepted.
    CallerCancelled,
    /// The call was ended over the API before it was answered.
    CancelledByApi,
    /// The user hung up an answered call. The source is `Caller` if inbound, `Callee` if outbound.
    CallerHangup,
    /// The call was ended over the API after it was answered.
    ApiHangup,
    /// A `Hangup` element ended an answered call.
    XmlHangup,
    /// A `Hangup` element without a reason, or with `reason="rejected"`, before the answer.
    XmlRejected,
    /// A `Hangup` element with `reason="busy"` before the answer.
    XmlBusy,
    /// The last element of the document ended.
    EndOfInstructions,
    /// The time of a `Hangup` element with `schedule` elapsed.
    ScheduledHangup,
    /// The call reached `limits.max_call_seconds` or its `time_limit`.
    TimeLimit,
    RingTimeout,
    NoAnswer,
    /// The user declined the call.
    Rejected,
    UserBusy,
    NumberFull,
    CpsExceeded,
    /// Refused before a Graph request, because the user has not permitted calls.
    NoPermission,
    /// Graph refused the call because the user has not permitted it.
    PermissionRefused,
    GeoBlocked,
    CallingDisabled,
    InvalidDestination,
    /// A `Dial` to the phone network, or between two WhatsApp users.
    DestinationBarred,
    /// A `Dial` to an endpoint without a registered phone, or to a SIP address of another host.
    EndpointNotRegistered,
    /// A `Dial` to the party that placed it.
    LoopDetected,
    /// Another target of the same `Dial` answered first.
    LostRace,
    /// A B-leg did not press `confirmKey` in time.
    ConfirmFailed,
    /// A participant was removed from a multi-party call over the API, and its document had no
    /// further element.
    MpcKicked,
    /// The multi-party call ended on its own, and the document had no further element.
    MpcEnded,
    /// The multi-party call was ended over the API, and the document had no further element.
    MpcStopped,
    /// An answered B-leg was ended by its A-leg.
    DialEnded,
    /// Graph reported that the user cannot be called: not on WhatsApp, terms not accepted, or an
    /// outdated client.
    UserUnreachable,
    /// Graph answered with a 5xx status or a permanent error.
    GraphError,
    /// Graph answered every attempt with status 429.
    GraphRateLimited,
    /// Graph did not answer in time.
    GraphTimeout,
    MediaSetupTimeout,
    MediaTimeout,
    InternalError,
    /// Only in records written by versions before 0.1, which did not support every element.
    #[serde(rename = "element_not_built")]
    UnsupportedElement,
    NodeFailure,
    Drained,
    InstructionLoop,
    /// The document's URL could not be reached, or the response was not 2xx.
    Unreachable(DocumentKind),
    /// The document was not valid.
    InvalidXml(DocumentKind),
    /// The first error of the document was an invalid URL of an `action` or a `Redirect`.
    InvalidUrl(DocumentKind),
    /// The first error of the document was an invalid method for such a URL.
    InvalidMethod(DocumentKind),
}

/// A hangup cause as callbacks and records carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WireCause {
    /// `HangupCauseCode`.
    pub code: u16,
    /// `HangupCauseName`.
    pub name: &'static str,
    /// `HangupSource`.
    pub source: HangupSource,
    /// `HangupCause`, such as `NORMAL_CLEARING`.
    pub word: &'static str,
}

impl WireCause {
    /// Returns the `CallStatus` of an outbound call that was never answered
    /// (docs/reference/callbacks.md#callstatus).
    pub fn unanswered_status(&self) -> &'static str {
        match self.code {
            1000..=1999 | 9000 => "cancel",
            3010 | 3020 => "busy",
            3000 | 6010 => "no-answer",
            3070 => "timeout",
            _ => "failed",
        }
    }
}

impl HangupCause {
    /// Returns the form of this cause in callbacks and records, for a leg of this direction. The
    /// table is docs/reference/hangup-causes.md.
    pub fn wire(self, direction: Direction) -> WireCause {
        use HangupSource as S;
        let (code, name, source, word) = match self {
            Self::CallerCancelled => (1000, "Canceled", S::Caller, "ORIGINATOR_CANCEL"),
            Self::CancelledByApi => (1000, "Canceled", S::ApiRequest, "ORIGINATOR_CANCEL"),
            Self::CallerHangup => match direction {
                Direction::Inbound => (4000, "Normal Hangup", S::Caller, "NORMAL_CLEARING"),
                Direction::Outbound => (4000, "Normal Hangup", S::Callee, "NORMAL_CLEARING"),
            },
            Self::ApiHangup => (4000, "Normal Hangup", S::ApiRequest, "NORMAL_CLEARING"),
            Self::XmlHangup => (4000, "Normal Hangup", S::AnswerXml, "NORMAL_CLEARING"),
            Self::XmlRejected => (3020, "Rejected", S::AnswerXml, "CALL_REJECTED"),
            Self::XmlBusy => (3010, "Busy Line", S::AnswerXml, "USER_BUSY"),
            Self::EndOfInstructions => {
                (4010, "End Of XML Instructions", S::Plivo, "NORMAL_CLEARING")
            }
            Self::ScheduledHangup => (6000, "Scheduled Hangup", S::AnswerXml, "ALLOTTED_TIMEOUT"),
            Self::TimeLimit => (6000, "Scheduled Hangup", S::Plivo, "ALLOTTED_TIMEOUT"),
            Self::RingTimeout => (6010, "Ring Timeout Reached", S::Plivo, "NO_ANSWER"),
            Self::NoAnswer | Self::UserUnreachable => {
                (3000, "No Answer", S::Carrier, "NO_USER_RESPONSE")
            }
            Self::Rejected => (3020, "Rejected", S::Callee, "CALL_REJECTED"),
            Self::UserBusy => (3010, "Busy Line", S::Carrier, "USER_BUSY"),
            Self::NumberFull | Self::CpsExceeded => match direction {
                Direction::Inbound => (3010, "Busy Line", S::Plivo, "USER_BUSY"),
                Direction::Outbound => {
                    (5030, "Concurrency Limit Breached", S::Plivo, "SWITCH_CONGESTION")
                }
            },
            Self::NoPermission => (3040, "Forbidden", S::Plivo, "CALL_REJECTED"),
            Self::PermissionRefused => (3040, "Forbidden", S::Carrier, "CALL_REJECTED"),
            Self::GeoBlocked => {
                (2030, "Destination Country Barred", S::Plivo, "OUTGOING_CALL_BARRED")
            }
            Self::CallingDisabled => (3030, "Unknown Caller ID", S::Plivo, "CALL_REJECTED"),
            Self::InvalidDestination => {
                (2000, "Invalid Destination Address", S::Carrier, "UNALLOCATED_NUMBER")
            }
            Self::DestinationBarred => {
                (2040, "Destination Number Barred", S::Plivo, "OUTGOING_CALL_BARRED")
            }
            Self::EndpointNotRegistered => {
                (2020, "Endpoint Not Registered", S::Plivo, "USER_NOT_REGISTERED")
            }
            Self::LoopDetected => (2060, "Loop Detected", S::Plivo, "LOOP_DETECTED"),
            Self::LostRace => (9000, "Lost Race", S::Plivo, "LOSE_RACE"),
            Self::ConfirmFailed => (9110, "Confirm Key Challenge Failed", S::Plivo, "NO_ANSWER"),
            Self::MpcKicked => {
                (4030, "Kicked Out Of Multiparty Call", S::ApiRequest, "NORMAL_CLEARING")
            }
            Self::MpcEnded => (4020, "Multiparty Call Ended", S::Plivo, "NORMAL_CLEARING"),
            Self::MpcStopped => (4020, "Multiparty Call Ended", S::ApiRequest, "NORMAL_CLEARING"),
            Self::DialEnded => (4000, "Normal Hangup", S::Caller, "NORMAL_CLEARING"),
            Self::GraphError => {
                (3080, "Internal server error from carrier", S::Carrier, "NORMAL_TEMPORARY_FAILURE")
            }
            Self::GraphRateLimited => {
                (3090, "Network congestion from carrier", S::Carrier, "SWITCH_CONGESTION")
            }
            Self::GraphTimeout => (3070, "Request timeout", S::Carrier, "RECOVERY_ON_TIMER_EXPIRE"),
            Self::MediaSetupTimeout => (5000, "Network Error", S::Plivo, "NETWORK_OUT_OF_ORDER"),
            Self::MediaTimeout => (6020, "Media Timeout", S::Plivo, "MEDIA_TIMEOUT"),
            Self::InternalError | Self::UnsupportedElement | Self::NodeFailure | Self::Drained => {
                (5010, "Internal Error", S::Error, "NORMAL_TEMPORARY_FAILURE")
            }
            Self::InstructionLoop => {
                (8014, "Invalid Redirect XML", S::Error, "NORMAL_TEMPORARY_FAILURE")
            }
            Self::Unreachable(doc) => {
                let (code, name) = match doc {
                    DocumentKind::Answer => (7011, "Error Reaching Answer URL"),
                    DocumentKind::Action => (7012, "Error Reaching Action URL"),
                    DocumentKind::Transfer => (7013, "Error Reaching Transfer URL"),
                    DocumentKind::Redirect => (7014, "Error Reaching Redirect URL"),
                };
                (code, name, S::Error, "NORMAL_TEMPORARY_FAILURE")
            }
            Self::InvalidXml(doc) => {
                let (code, name) = match doc {
                    DocumentKind::Answer => (8011, "Invalid Answer XML"),
                    DocumentKind::Action => (8012, "Invalid Action XML"),
                    DocumentKind::Transfer => (8013, "Invalid Transfer XML"),
                    DocumentKind::Redirect => (8014, "Invalid Redirect XML"),
                };
                (code, name, S::Error, "NORMAL_TEMPORARY_FAILURE")
            }
            Self::InvalidUrl(doc) => {
                let (code, name) = match doc {
                    DocumentKind::Answer | DocumentKind::Action => (7022, "Invalid Action URL"),
                    DocumentKind::Transfer => (7023, "Invalid Transfer URL"),
                    DocumentKind::Redirect => (7024, "Invalid Redirect URL"),
                };
                (code, name, S::Error, "NORMAL_TEMPORARY_FAILURE")
            }
            Self::InvalidMethod(doc) => {
                let (code, name) = match doc {
                    DocumentKind::Answer | DocumentKind::Action => {
                        (7032, "Invalid Method For Action URL")
                    }
                    DocumentKind::Transfer => (7033, "Invalid Method For Transfer URL"),
                    DocumentKind::Redirect => (7034, "Invalid Method For Redirect URL"),
                };
                (code, name, S::Error, "NORMAL_TEMPORARY_FAILURE")
            }
        };
        WireCause { code, name, source, word }
    }

    /// Returns the name in logs, records and the output of `offhook call`, such as `caller_hangup`
    /// or `invalid_answer_xml`.
    pub fn as_str(self) -> &'static str {
        use DocumentKind as D;
        match self {
            Self::CallerCancelled => "caller_cancelled",
            Self::CancelledByApi => "cancelled_by_api",
            Self::CallerHangup => "caller_hangup",
            Self::ApiHangup => "api_hangup",
            Self::XmlHangup => "xml_hangup",
            Self::XmlRejected => "xml_rejected",
            Self::XmlBusy => "xml_busy",
            Self::EndOfInstructions => "end_of_instructions",
            Self::ScheduledHangup => "scheduled_hangup",
            Self::TimeLimit => "time_limit",
            Self::RingTimeout => "ring_timeout",
            Self::NoAnswer => "no_answer",
            Self::Rejected => "rejected",
            Self::UserBusy => "user_busy",
            Self::NumberFull => "number_full",
            Self::CpsExceeded => "cps_exceeded",
            Self::NoPermission | Self::PermissionRefused => "no_permission",
            Self::GeoBlocked => "geo_blocked",
            Self::CallingDisabled => "calling_disabled",
            Self::InvalidDestination => "invalid_destination",
            Self::UserUnreachable => "user_unreachable",
            Self::DestinationBarred => "destination_barred",
            Self::EndpointNotRegistered => "endpoint_not_registered",
            Self::LoopDetected => "loop_detected",
            Self::LostRace => "lost_race",
            Self::ConfirmFailed => "confirm_failed",
            Self::MpcKicked => "mpc_kicked",
            Self::MpcEnded => "mpc_ended",
            Self::MpcStopped => "mpc_stopped",
            Self::DialEnded => "dial_ended",
            Self::GraphError => "graph_error",
            Self::GraphRateLimited => "graph_rate_limited",
            Self::GraphTimeout => "graph_timeout",
            Self::MediaSetupTimeout => "media_setup_timeout",
            Self::MediaTimeout => "media_timeout",
            Self::InternalError => "internal_error",
            Self::UnsupportedElement => "element_not_built",
            Self::NodeFailure => "node_failure",
            Self::Drained => "drained",
            Self::InstructionLoop => "instruction_loop",
            Self::Unreachable(D::Answer) => "answer_url_unreachable",
            Self::Unreachable(D::Action) => "action_url_unreachable",
            Self::Unreachable(D::Transfer) => "transfer_url_unreachable",
            Self::Unreachable(D::Redirect) => "redirect_url_unreachable",
            Self::InvalidXml(D::Answer) => "invalid_answer_xml",
            Self::InvalidXml(D::Action) => "invalid_action_xml",
            Self::InvalidXml(D::Transfer) => "invalid_transfer_xml",
            Self::InvalidXml(D::Redirect) => "invalid_redirect_xml",
            Self::InvalidUrl(D::Answer | D::Action) => "invalid_action_url",
            Self::InvalidUrl(D::Transfer) => "invalid_transfer_url",
            Self::InvalidUrl(D::Redirect) => "invalid_redirect_url",
            Self::InvalidMethod(D::Answer | D::Action) => "invalid_action_method",
            Self::InvalidMethod(D::Transfer) => "invalid_transfer_method",
            Self::InvalidMethod(D::Redirect) => "invalid_redirect_method",
        }
    }
}
