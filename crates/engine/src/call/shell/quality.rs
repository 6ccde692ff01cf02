//! What a leg tells of its sound: for the log, the trace, the metrics and the call's record; and when it is asked.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{Media, Shell};
use crate::call::sound;
use crate::call::trace::Trace;
use media::{MissingStep, Quality};
use model::CallQuality;

impl Shell {
    /// Some seconds after `accept` there is no sound.
    pub(super) fn missing(
        &mut self,
        at: Instant,
        missing: MissingStep,
        waited: Duration,
        checking: bool,
    ) {
        let text = sound::remark(missing, waited, checking);
        warn!(missing = missing.as_str(), remark = %text, "a call has no sound");
        sound::count_missing(missing);
        // The copy has no room to spare.
        self.remarks.push(text.clone());
        self.journal.trace(&Trace::Remark { at_us: self.journal.us(at), text });
    }

    /// From now on the user may hear us, and how goes into the call's course.
    pub(super) fn begin_to_look(&self) {
        self.view.sampler.begin(self.ms(self.services.clock.now()));
    }

    /// When to look how the sound goes.
    pub(super) fn next_look(&self) -> Option<Instant> {
        let due = self.view.sampler.due_ms()?;
        Some(self.journal.zero() + Duration::from_millis(due.into()))
    }

    /// It is time to.
    pub(super) fn look(&self, at: Instant) {
        // Without a leg there is nothing more to come.
        let measured = match &self.media {
            Media::Leg(leg) => leg.stats().quality,
            _ => Quality::default(),
        };
        self.view.sampler.look(self.ms(at), &measured);
    }

    /// The leg has said its last.
    pub(super) fn was_heard(&mut self, measured: &Quality) {
        self.quality = sound::quality(measured);
        let now = self.services.clock.now();
        if let Some(course) = self.view.sampler.end(self.ms(now), measured) {
            self.journal.trace(&Trace::Course { at_us: self.journal.us(now), course });
        }
    }

    /// Milliseconds of the call.
    fn ms(&self, at: Instant) -> u32 {
        let since = at.saturating_duration_since(self.journal.zero());
        u32::try_from(since.as_millis()).unwrap_or(u32::MAX)
    }

    /// How its sound got through, told to the metrics and the trace too.
    pub(super) fn heard_as(&mut self) -> Option<CallQuality> {
        if let Media::Leg(leg) = &self.media {
            let measured = leg.stats().quality;
            self.was_heard(&measured);
        }
        let quality = self.quality.take()?;
        sound::observe(&quality);
        let at_us = self.journal.us(self.services.clock.now());
        self.journal.trace(&Trace::Quality { at_us, quality });
        Some(quality)
    }
}
