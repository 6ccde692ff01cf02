//! What a leg tells of its sound: for the log, the trace, the metrics and the call's record.

use std::time::{Duration, Instant};

use tracing::warn;

use super::{Media, Shell};
use crate::call::sound;
use crate::call::trace::Trace;
use crate::media::Missing;
use crate::model::CallQuality;

impl Shell {
    /// Some seconds after `accept` there is no sound.
    pub(super) fn missing(&mut self, at: Instant, missing: Missing, waited: Duration, checking: bool) {
        let text = sound::remark(missing, waited, checking);
        warn!(missing = missing.as_str(), remark = %text, "a call has no sound");
        sound::count_missing(missing);
        self.journal.trace(&Trace::Remark { at_us: self.journal.us(at), text: text.clone() });
        self.remarks.push(text);
    }

    /// How its sound got through, told to the metrics and the trace too.
    pub(super) fn heard_as(&mut self) -> Option<CallQuality> {
        if let Media::Leg(leg) = &self.media {
            self.quality = sound::quality(&leg.stats().quality);
        }
        let quality = self.quality.take()?;
        sound::observe(&quality);
        let at_us = self.journal.us(self.services.clock.now());
        self.journal.trace(&Trace::Quality { at_us, quality });
        Some(quality)
    }
}
