//! The only reader of the time: a real clock, and for tests one whose wall time jumps, and a stepped one.
//!
//! Durations, timeouts and ages come from [`Clock::now`] (monotonic, R8); [`Clock::wall`] is for what is
//! printed or compared with a timestamp of Meta's, [`Clock::steady`] for what is stored to be waited for. Nothing else in
//! the house reads a clock.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::Timestamp;

/// Where the time comes from; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    Real,
    /// By how many microseconds the wall time is off.
    Jumping(Arc<AtomicI64>),
    Stepped(Arc<Stepped>),
}

#[derive(Debug)]
struct Stepped {
    start: Instant,
    wall_start: Timestamp,
    passed_micros: AtomicU64,
    /// By how many microseconds the wall time is off.
    off: AtomicI64,
}

impl Clock {
    /// The machine's own clock.
    pub fn real() -> Self {
        Self(Source::Real)
    }

    /// The machine's own clock, but for a wall time that [`Clock::jump`] moves, as an operator or NTP would.
    pub fn jumping() -> Self {
        Self(Source::Jumping(Arc::default()))
    }

    /// Moves the wall time of a jumping or a stepped clock by so many seconds, and nothing else; a real one takes no
    /// notice.
    pub fn jump(&self, seconds: i64) {
        let off = match &self.0 {
            Source::Real => return,
            Source::Jumping(off) => off.as_ref(),
            Source::Stepped(s) => &s.off,
        };
        off.fetch_add(seconds.saturating_mul(1_000_000), Ordering::SeqCst);
    }

    /// A clock that stands still at `wall` until [`Clock::step`] moves it.
    #[allow(clippy::disallowed_methods, reason = "an `Instant` has no other origin")]
    pub fn stepped(wall: Timestamp) -> Self {
        Self(Source::Stepped(Arc::new(Stepped {
            start: Instant::now(),
            wall_start: wall,
            passed_micros: AtomicU64::new(0),
            off: AtomicI64::new(0),
        })))
    }

    /// Moves a stepped clock on; a real one takes no notice.
    pub fn step(&self, by: Duration) {
        if let Source::Stepped(s) = &self.0 {
            s.passed_micros
                .fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// Monotonic time.
    #[allow(clippy::disallowed_methods, reason = "this is the source")]
    pub fn now(&self) -> Instant {
        match &self.0 {
            Source::Real | Source::Jumping(_) => Instant::now(),
            Source::Stepped(s) => {
                s.start + Duration::from_micros(s.passed_micros.load(Ordering::SeqCst))
            }
        }
    }

    /// Wall-clock time as it was when this process first asked, carried on by the monotonic clock: for moments that
    /// are stored to be waited for. A wall clock that is set moves none of them (R8).
    pub fn steady(&self) -> Timestamp {
        static BEGINNING: OnceLock<(Timestamp, Instant)> = OnceLock::new();
        match &self.0 {
            Source::Real | Source::Jumping(_) => {
                let (wall, begun) =
                    BEGINNING.get_or_init(|| (Timestamp::from_micros(system_micros()), self.now()));
                wall.plus(self.now().saturating_duration_since(*begun))
            }
            Source::Stepped(s) => s.steady(),
        }
    }

    /// Wall-clock time, for printing and for Meta's timestamps.
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
