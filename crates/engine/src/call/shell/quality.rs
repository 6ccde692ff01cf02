//! Audio quality of a call: for the log, the trace, the metrics and the record.

use std::time::{Duration, Instant};

use tracing::warn;

use super::context::Context;
use super::ending::Report;
use crate::call::sound;
use crate::call::trace::Trace;
use media::{MissingStep, Quality};
use model::CallQuality;

/// The quality of a closed leg.
#[derive(Default)]
pub(super) struct FinalQuality(Option<CallQuality>);

impl FinalQuality {
    /// Records the last counters of the leg.
    pub(super) fn set(&mut self, call: &Context, measured: &Quality) {
        self.0 = sound::quality(measured);
        let now = call.services.clock.now();
        if let Some(course) = call.view.sampler.end(call.ms(now), measured) {
            call.journal.trace(&Trace::Course { at_us: call.journal.us(now), course });
        }
    }

    /// Takes the quality, and adds it to the metrics and the trace.
    pub(super) fn take(&mut self, call: &Context) -> Option<CallQuality> {
        let quality = self.0.take()?;
        sound::observe(&quality);
        let at_us = call.journal.us(call.services.clock.now());
        call.journal.trace(&Trace::Quality { at_us, quality });
        Some(quality)
    }
}

/// Reports missing audio some seconds after `accept`.
pub(super) fn report_missing(
    call: &Context,
    report: &mut Report,
    at: Instant,
    (missing, waited, checking): (MissingStep, Duration, bool),
) {
    let text = sound::remark(missing, waited, checking);
    warn!(missing = missing.as_str(), remark = %text, "call has no audio");
    sound::count_missing(missing);
    // Cloning gives the trace a string without spare capacity.
    report.remarks.add(text.clone());
    call.journal.trace(&Trace::Remark { at_us: call.journal.us(at), text });
}
