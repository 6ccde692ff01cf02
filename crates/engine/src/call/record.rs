//! The metrics of a call's end, its remarks, and the linter findings of its documents. The record
//! itself is `store::CallEnd`, built from the same summary.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use tracing::{debug, info};

use machine::Summary;
use model::HangupCause;
use model::metric::{self, outcome as word};
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
            debug!(%rule, line = at.line, column = at.column, text = %finding.message, "finding");
            if self.0.len() < KEPT && !self.0.contains(&finding) {
                self.0.push(finding);
            }
        }
    }

    pub(super) fn kept(self) -> Vec<Finding> {
        self.0
    }
}

/// Maximum numbers of a call's first and of its last remarks in its record. A document can cause
/// twenty a second.
const FIRST_REMARKS: usize = 150;
const LAST_REMARKS: usize = 50;

/// The remarks about a call. Equal ones are kept once.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(from = "Vec<String>", into = "Vec<String>")]
pub(super) struct Remarks {
    first: Vec<String>,
    last: VecDeque<String>,
    left_out: u64,
}

impl Remarks {
    pub(super) fn add(&mut self, text: String) {
        if self.contains(&text) {
            return;
        }
        if self.first.len() < FIRST_REMARKS {
            self.first.push(text);
            return;
        }
        self.last.push_back(text);
        if self.last.len() > LAST_REMARKS {
            self.last.pop_front();
            self.left_out += 1;
        }
    }

    pub(super) fn contains(&self, text: &str) -> bool {
        self.first.iter().chain(&self.last).any(|kept| kept == text)
    }

    /// The remarks in their order, with one about those that were left out.
    pub(super) fn kept(self) -> Vec<String> {
        let Self { first: mut all, last, left_out } = self;
        if left_out > 0 {
            all.push(format!("{left_out} further remarks are left out here"));
        }
        all.extend(last);
        all
    }
}

impl From<Vec<String>> for Remarks {
    fn from(remarks: Vec<String>) -> Self {
        let mut all = Self::default();
        remarks.into_iter().for_each(|text| all.add(text));
        all
    }
}

impl From<Remarks> for Vec<String> {
    fn from(remarks: Remarks) -> Self {
        remarks.kept()
    }
}

/// Counts an ended call in `offhook_calls_total`.
pub(super) fn count(summary: &Summary) {
    let (direction, outcome) = (summary.direction.as_str(), outcome(summary));
    metrics::counter!(metric::CALLS_TOTAL, "direction" => direction, "outcome" => outcome)
        .increment(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_remarks_of_a_call_are_kept() {
        let mut remarks = Remarks::default();
        for n in 0..10_000 {
            remarks.add(format!("target {n} is not called"));
            remarks.add("target 0 is not called".to_owned());
        }
        let kept = remarks.kept();
        assert_eq!(kept.len(), FIRST_REMARKS + 1 + LAST_REMARKS);
        assert_eq!(kept[1], "target 1 is not called");
        assert_eq!(kept[FIRST_REMARKS], "9800 further remarks are left out here");
        assert_eq!(kept.last().unwrap(), "target 9999 is not called");
    }
}
