//! The metrics of a call's end and the linter findings of its documents. The record itself is
//! `store::CallEnd`, built from the same summary.

use serde::{Deserialize, Serialize};
use tracing::{debug, info};

use machine::Summary;
use model::HangupCause;
use model::metric::outcome as word;
use xml::ast::{Finding, Severity};

/// Maximum number of findings in one log message.
const LOGGED: usize = 10;
/// Maximum number of findings in a record: a call can run 2,000 documents with a hundred findings
/// each.
const KEPT: usize = 200;

/// Linter findings about a call's documents.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    /// Logs the findings of a document and keeps them for the record. Equal findings of repeated
    /// documents are kept once.
    pub(super) fn add(&mut self, findings: Vec<Finding>) {
        let errors = findings.iter().filter(|f| f.severity == Severity::Error).count();
        let named: Vec<String> =
            findings.iter().take(LOGGED).map(|f| format!("{}:{}", f.rule, f.at.line)).collect();
        info!(
            errors,
            warnings = findings.len() - errors,
            findings = named.join(" "),
            "document has findings"
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

/// The label `outcome` of `offhook_calls_total` (`docs/reference/metrics.md#calls`).
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
