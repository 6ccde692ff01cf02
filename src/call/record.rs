//! A call's end as metrics tell it. Its record is `store::CallEnd`, made from the same summary.

use super::machine::Summary;
use crate::model::HangupCause;
use crate::observe::names::outcome as word;

/// `outcome` of `offhook_calls_total` (`interface.md` §4).
pub(super) fn outcome(summary: &Summary) -> &'static str {
    use HangupCause as C;
    if summary.answered.is_some() {
        return word::COMPLETED;
    }
    match summary.cause {
        C::XmlBusy | C::UserBusy | C::NumberFull | C::CpsExceeded => word::BUSY,
        C::RingTimeout | C::NoAnswer => word::NO_ANSWER,
        C::XmlRejected | C::Rejected => word::REJECTED,
        C::CallerCancelled | C::CancelledByApi => word::CANCELLED,
        C::GraphTimeout => word::TIMEOUT,
        C::EndOfInstructions
        | C::XmlHangup
        | C::CallerHangup
        | C::ApiHangup
        | C::ScheduledHangup
        | C::TimeLimit
        | C::NoPermission
        | C::GeoBlocked
        | C::CallingDisabled
        | C::InvalidDestination
        | C::GraphError
        | C::GraphRateLimited
        | C::MediaSetupTimeout
        | C::MediaTimeout
        | C::InternalError
        | C::ElementNotBuilt
        | C::NodeFailure
        | C::Drained
        | C::InstructionLoop
        | C::Unreachable(_)
        | C::InvalidXml(_)
        | C::InvalidUrl(_)
        | C::InvalidMethod(_) => word::FAILED,
    }
}
