//! Audio quality of a call: for the log, the trace, the metrics and the record, and when to read
//! the counters.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{Media, Shell};
use crate::call::sound;
use crate::call::trace::Trace;
use media::{MissingStep, Quality};
use model::CallQuality;

impl Shell {
    /// Reports missing audio some seconds after `accept`.
    pub(super) fn missing(
        &mut self,
        at: Instant,
        missing: MissingStep,
        waited: Duration,
        checking: bool,
    ) {
        let text = sound::remark(missing, waited, checking);
        warn!(missing = missing.as_str(), remark = %text, "call has no audio");
        sound::count_missing(missing);
        // Cloning gives the trace a string without spare capacity.
        self.report.remarks.push(text.clone());
        self.journal.trace(&Trace::Remark { at_us: self.journal.us(at), text });
    }

    /// Starts quality readings: the user may hear audio from now.
    pub(super) fn start_sampling(&self) {
        self.view.sampler.begin(self.ms(self.services.clock.now()));
    }

    /// When to read the counters again.
    pub(super) fn next_sample(&self) -> Option<Instant> {
        let due = self.view.sampler.due_ms()?;
        Some(self.journal.zero() + Duration::from_millis(due.into()))
    }

    /// Reads the leg's counters.
    pub(super) fn sample(&self, at: Instant) {
        // Without a leg there are no further counts.
        let measured = match &self.a_leg.media {
            Media::Leg(leg) => leg.stats().quality,
            _ => Quality::default(),
        };
        self.view.sampler.look(self.ms(at), &measured);
    }

    /// Records the final counters of the leg.
    pub(super) fn report_quality(&mut self, measured: &Quality) {
        self.a_leg.quality = sound::quality(measured);
        let now = self.services.clock.now();
        if let Some(course) = self.view.sampler.end(self.ms(now), measured) {
            self.journal.trace(&Trace::Course { at_us: self.journal.us(now), course });
        }
    }

    /// Converts to milliseconds of the call.
    fn ms(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.journal.zero());
        u32::try_from(since.as_millis()).unwrap_or(u32::MAX)
    }

    /// Returns the call's final quality and adds it to the metrics and the trace.
    pub(super) fn final_quality(&mut self) -> Option<CallQuality> {
        if let Media::Leg(leg) = &self.a_leg.media {
            let measured = leg.stats().quality;
            self.report_quality(&measured);
        }
        let quality = self.a_leg.quality.take()?;
        sound::observe(&quality);
        let at_us = self.journal.us(self.services.clock.now());
        self.journal.trace(&Trace::Quality { at_us, quality });
        Some(quality)
    }
}
