//! One call, from the offer to the last callback, as a pure state machine.
//!
//! [`Input`]s are facts that have happened; [`Output`]s are wishes, which `call::shell` carries out; `xml`
//! supplies the document walked. No clock, socket, lock or dice here: `call::replay` depends on it.

mod input;
mod output;

pub use input::{
    CallSetup, CallUrls, Command, FetchFailure, Fetched, FirstFault, GraphOutcome, Input, MachineLimits, MediaFact,
    MediaFault, Refusal, Termination,
};
pub use output::{
    CallState, FetchId, FetchKind, GraphAction, InstructionOutcome, MediaOrder, Notice, NoticeKind, Output, Param,
    Params, PlayId, Sound, SoundItem, Summary,
};

use serde::{Deserialize, Serialize};

/// Milliseconds since the call's first input. It can be logged, compared and replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallTime(pub u64);

impl CallTime {
    /// Later by that many milliseconds.
    pub fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }
    /// Later by `by`, rounded down to milliseconds.
    pub fn after(self, by: std::time::Duration) -> Self {
        self.plus(u64::try_from(by.as_millis()).unwrap_or(u64::MAX))
    }
}
