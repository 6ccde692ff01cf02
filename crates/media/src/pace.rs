//! Determines when worker jobs process their next frame of 20 ms.

use std::time::{Duration, Instant};

/// Duration of a step: one frame.
pub(crate) const STEP: Duration = Duration::from_millis(20);
/// Maximum delay of a step. If a job is delayed further, the missed steps are skipped.
const LATE_MAX: Duration = Duration::from_millis(200);

/// Counts the steps that are due. Step n is due n × 20 ms after the first one, even if earlier ones
/// took long, so that small delays do not accumulate.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Time of the next step. `None` before the first one, which is due immediately.
    due: Option<Instant>,
}

impl Pace {
    /// Returns the number of steps that are due since the last call.
    pub(crate) fn steps(&mut self, now: Instant) -> u32 {
        let mut due = *self.due.get_or_insert(now);
        if now.saturating_duration_since(due) > LATE_MAX {
            due = now;
        }
        let mut steps = 0;
        while due <= now {
            steps += 1;
            due += STEP;
        }
        self.due = Some(due);
        steps
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Pace;
    use crate::test_peer::now;

    #[test]
    fn late_steps_are_made_up_for_and_missed_ones_skipped() {
        let (start, mut pace) = (now(), Pace::default());
        let steps = [0, 10, 20, 59, 60, 260, 10_000, 10_019, 10_020]
            .map(|ms| pace.steps(start + Duration::from_millis(ms)));
        assert_eq!(steps, [1, 0, 1, 1, 1, 10, 1, 0, 1]);
    }
}
