//! A call's end as metrics tell it, and what was found in its documents. Its record is `store::CallEnd`, made from the
//! same summary.

use tracing::{debug, info};

use machine::Summary;
use model::HangupCause;
use model::metric::outcome as word;
use xml::ast::{Finding, Severity};

/// Findings of one document that a line of the log names.
const LOGGED: usize = 10;
/// Findings that a record keeps: a call may have 2,000 documents with a hundred each.
const KEPT: usize = 200;

/// The linter's findings about a call's documents.
#[derive(Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// Those of a document that came in: a line for the log, and what the record keeps. A document that comes again and
    /// again has the same ones each time; they are kept once.
    pub(super) fn add(&mut self, findings: Vec<Finding>) {
        let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
        let named: Vec<String> =
            findings.iter().take(LOGGED).map(|f| format!("{}:{}", f.rule, f.at.line)).collect();
        info!(
            errors,
            warnings = findings.len() - errors,
            findings = named.join(" "),
            "a document has findings"
        );
        for finding in findings {
            let (rule, at) = (&finding.rule, finding.at);
            debug!(%rule, line = at.line, column = at.column, message = %finding.message, "finding");
            if self.0.len() < KEPT && !self.0.contains(&finding) {
                self.0.push(finding);
            }
        }
    }

    pub(super) fn kept(self) -> Vec<Finding> {
        self.0
    }
}

/// `outcome` of `offhook_calls_total` (`interface.md` §4).
pub(super) fn outcome(summary: &Summary) -> &'static str {
    use HangupCause as C;
    if summary.answered.is_some() {
        return word::COMPLETED;
    }
    match summary.cause {
        C::XmlBusy | C::UserBusy | C::NumberFull | C::CpsExceeded => word::BUSY,
        C::RingTimeout | C::NoAnswer | C::UserUnreachable => word::NO_ANSWER,
        C::XmlRejected | C::Rejected => word::REJECTED,
        C::CallerCancelled | C::CancelledByApi | C::LostRace => word::CANCELLED,
        C::GraphTimeout => word::TIMEOUT,
        C::EndOfInstructions
        | C::XmlHangup
        | C::CallerHangup
        | C::ApiHangup
        | C::ScheduledHangup
        | C::TimeLimit
        | C::NoPermission
        | C::PermissionRefused
        | C::GeoBlocked
        | C::CallingDisabled
        | C::InvalidDestination
        | C::DestinationBarred
        | C::EndpointNotRegistered
        | C::LoopDetected
        | C::ConfirmFailed
        | C::MpcKicked
        | C::MpcEnded
        | C::MpcStopped
        | C::DialEnded
        | C::GraphError
        | C::GraphRateLimited
        | C::MediaSetupTimeout
        | C::MediaTimeout
        | C::InternalError
        | C::UnsupportedElement
        | C::NodeFailure
        | C::Drained
        | C::InstructionLoop
        | C::Unreachable(_)
        | C::InvalidXml(_)
        | C::InvalidUrl(_)
        | C::InvalidMethod(_) => word::FAILED,
    }
}
