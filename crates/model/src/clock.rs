//! The only source of time in the process. Tests use clocks that jump or that advance on request.
//!
//! Use [`Clock::now`] (monotonic) for durations, timeouts and ages, [`Clock::wall`] for times that
//! are printed or compared with Meta's timestamps, [`Clock::steady`] for stored deadlines, and
//! [`Clock::uptime`] for what another machine concludes from this one's silence. A change of the
//! system's wall clock therefore affects no timer (docs/reference/reliability.md#r8).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::Timestamp;

/// The clock that counts the time a machine is suspended. Outside Linux it is the monotonic one.
#[cfg(target_os = "linux")]
const UPTIME: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const UPTIME: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

/// A source of time. Clones share the same clock.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    Real,
    /// The system clock, with this offset of the wall time in microseconds.
    Jumping(Arc<AtomicI64>),
    Stepped(Arc<Stepped>),
}

#[derive(Debug)]
struct Stepped {
    start: Instant,
    wall_start: Timestamp,
    passed_micros: AtomicU64,
    /// Offset of the wall time in microseconds.
    off: AtomicI64,
}

impl Clock {
    /// Creates the system clock.
    pub fn real() -> Self {
        Self(Source::Real)
    }

    /// Creates a system clock with a wall time that [`Clock::jump`] changes, as an operator or NTP
    /// would.
    pub fn jumping() -> Self {
        Self(Source::Jumping(Arc::default()))
    }

    /// Moves the wall time of a jumping or stepped clock by a number of seconds. Monotonic time
    /// does not change. Has no effect on a real clock.
    pub fn jump(&self, seconds: i64) {
        let off = match &self.0 {
            Source::Real => return,
            Source::Jumping(off) => off.as_ref(),
            Source::Stepped(s) => &s.off,
        };
        off.fetch_add(seconds.saturating_mul(1_000_000), Ordering::SeqCst);
    }

    /// Creates a clock that stands still at `wall` until [`Clock::step`] advances it.
    #[allow(clippy::disallowed_methods, reason = "an `Instant` has no other origin")]
    pub fn stepped(wall: Timestamp) -> Self {
        Self(Source::Stepped(Arc::new(Stepped {
            start: Instant::now(),
            wall_start: wall,
            passed_micros: AtomicU64::new(0),
            off: AtomicI64::new(0),
        })))
    }

    /// Advances a stepped clock. Has no effect on the others.
    pub fn step(&self, by: Duration) {
        if let Source::Stepped(s) = &self.0 {
            s.passed_micros
                .fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// Returns the current monotonic time.
    #[allow(clippy::disallowed_methods, reason = "this is the source")]
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::Real | Source::Jumping(_) => Instant::now(),
            Source::Stepped(s) => {
                s.start + Duration::from_micros(s.passed_micros.load(Ordering::SeqCst))
            }
        }
    }

    /// Returns the time since the machine was booted, including the time it was suspended, which
    /// [`Clock::now`] leaves out.
    pub fn uptime(&self) -> Duration {
        match &self.0 {
            Source::Real | Source::Jumping(_) => {
                let at = rustix::time::clock_gettime(UPTIME);
                Duration::try_from(at).unwrap_or_default()
            }
            Source::Stepped(s) => Duration::from_micros(s.passed_micros.load(Ordering::SeqCst)),
        }
    }

    /// Returns the wall-clock time of this process's first reading plus the monotonic time since
    /// then. Meant for stored deadlines: setting the system's wall clock does not move them.
    pub fn steady(&self) -> Timestamp {
        static FIRST_READING: OnceLock<(Timestamp, Instant)> = OnceLock::new();
        match &self.0 {
            Source::Real | Source::Jumping(_) => {
                let (wall, at) = FIRST_READING
                    .get_or_init(|| (Timestamp::from_micros(system_micros()), self.now()));
                wall.plus(self.now().saturating_duration_since(*at))
            }
            Source::Stepped(s) => s.steady(),
        }
    }

    /// Returns the current wall-clock time, for printing and for comparison with Meta's timestamps.
    #[allow(clippy::disallowed_methods, reason = "this is the source")]
    pub fn wall(&self) -> Timestamp {
        match &self.0 {
            Source::Real => Timestamp::from_micros(system_micros()),
            Source::Jumping(off) => {
                Timestamp::from_micros(system_micros().saturating_add(off.load(Ordering::SeqCst)))
            }
            Source::Stepped(s) => Timestamp::from_micros(
                s.steady().micros().saturating_add(s.off.load(Ordering::SeqCst)),
            ),
        }
    }
}

impl Stepped {
    fn steady(&self) -> Timestamp {
        self.wall_start.plus(Duration::from_micros(self.passed_micros.load(Ordering::SeqCst)))
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the source")]
fn system_micros() -> i64 {
    let since =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_uptime_is_that_of_the_system() {
        // Hundredths of a second since boot, with the time the machine was suspended.
        let read = || -> f64 {
            let text = std::fs::read_to_string("/proc/uptime").unwrap();
            text.split(' ').next().unwrap().parse().unwrap()
        };
        let before = read();
        let uptime = Clock::real().uptime().as_secs_f64();
        assert!((before - 0.01..=read() + 0.01).contains(&uptime), "{before} {uptime}");
    }

    #[test]
    fn the_uptime_of_a_stepped_clock_advances_on_request() {
        let clock = Clock::stepped(Timestamp::from_micros(0));
        clock.step(Duration::from_secs(3));
        assert_eq!(clock.uptime(), Duration::from_secs(3));
    }
}
