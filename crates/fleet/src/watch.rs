//! Determines which other runs are dead, and when the units of a dead run may be given back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use crate::beat::RunState;
use crate::membership::FRESH;

/// A run without a beat for this long is dead if its process is proven to have ended.
const STILL_PROVEN: Duration = Duration::from_millis(1_500);

/// A run without a beat for this long is dead if no other member is connected to it.
const STILL_SILENT: Duration = Duration::from_secs(10);

/// The units of a dead run are given back if it has sent no beat for this long. A run whose process
/// was taken for ended by mistake admits calls for [`FRESH`] after its last beat, and a permit rests
/// for 1 s: with clocks whose rates differ by 10 % each, 4.5 s × 1.1 / 0.9 + 1 s < 6.6 s.
pub(crate) const STILL_RELEASE: Duration = Duration::from_millis(6_600);

/// The same for a run whose process is known to have ended before this run began. Its last permit
/// was used then, and Graph has had this time to answer the `terminate`s of its calls.
const STILL_ENDED: Duration = Duration::from_secs(2);

/// Two readings that are further apart do not prove that the row was unchanged in between.
const GAP: Duration = Duration::from_secs(1);

/// The state of the connection from this run to another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The other run responds.
    Up,
    /// There is no connection, or no message arrives over it.
    Silent,
    /// The connection broke, and three further attempts within 500 ms were refused. The machine
    /// responds, so the process has ended.
    Refused,
}

/// One reading of the table of runs.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The time at which the query was sent, and the time of its answer.
    pub sent: Duration,
    pub received: Duration,
    /// The incarnation of the primary server that answered, and its term. If either has changed,
    /// the database may have been reset to an earlier state.
    pub mark: String,
    pub term: Uuid,
    pub runs: Vec<RunReading>,
}

/// A row of a reading.
#[derive(Clone, Debug)]
pub struct RunReading {
    pub run: Uuid,
    pub state: RunState,
    pub seq: i64,
    /// The other runs that this run is connected to over its peer links.
    pub sees: Vec<Uuid>,
}

/// A required action on another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The run must be declared dead, if its row still has this `seq`.
    Dead { run: Uuid, seq: i64, death: Death },
    /// The remaining calls of the dead run must be ended, and its units given back.
    Release { run: Uuid },
}

/// The evidence that a run is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The process of the run has ended.
    Proven,
    /// The run has sent no beat, and no other run is connected to it.
    Silent,
}

/// The state of the other runs, as seen in this run's own readings.
#[derive(Clone, Debug)]
pub struct Watch {
    me: Uuid,
    /// Runs whose processes are known to have ended before this run began.
    ended: BTreeSet<Uuid>,
    last: Option<Reading>,
    /// For each run, its `seq` and the time at which this run first read it.
    since: BTreeMap<Uuid, (i64, Duration)>,
}

impl Watch {
    /// Creates the state without a reading. The processes of `ended` must have ended.
    pub fn new(me: Uuid, ended: BTreeSet<Uuid>) -> Self {
        Self { me, ended, last: None, since: BTreeMap::new() }
    }

    /// Adds a reading. Two readings with the same `seq` prove a time without a beat only if they
    /// and all readings between them are at most a second apart and from one incarnation of the
    /// primary server.
    pub fn read(&mut self, reading: Reading) {
        let continues = self.last.as_ref().is_some_and(|last| {
            reading.sent.saturating_sub(last.received) <= GAP
                && reading.received.saturating_sub(reading.sent) <= GAP
                && (&last.mark, last.term) == (&reading.mark, reading.term)
        });
        let before = match continues {
            true => std::mem::take(&mut self.since),
            false => BTreeMap::new(),
        };
        let since = |row: &RunReading| match before.get(&row.run) {
            Some(seen) if seen.0 == row.seq => (row.run, *seen),
            _ => (row.run, (row.seq, reading.received)),
        };
        self.since = reading.runs.iter().map(since).collect();
        self.last = Some(reading);
    }

    /// Discards all readings, for example after a pause of this process.
    pub fn clear(&mut self) {
        self.last = None;
        self.since.clear();
    }

    /// Returns the members of the fleet, including this run.
    pub fn members(&self) -> impl Iterator<Item = &RunReading> {
        let rows = self.last.iter().flat_map(|last| &last.runs);
        rows.filter(|row| row.state.is_member())
    }

    /// Returns the actions that the last reading requires. `link` returns the state of the
    /// connection to another run.
    pub fn findings(&self, link: impl Fn(Uuid) -> Link) -> Vec<Finding> {
        let rows = self.last.iter().flat_map(|last| &last.runs);
        rows.filter(|row| row.run != self.me).filter_map(|row| self.finding(row, &link)).collect()
    }

    fn finding(&self, row: &RunReading, link: &impl Fn(Uuid) -> Link) -> Option<Finding> {
        let still = self.still(row);
        let (run, seq) = (row.run, row.seq);
        match (row.state, link(run)) {
            (RunState::Left | RunState::Reaped, _) => None,
            (RunState::Dead, _) => {
                let wait = if self.ended.contains(&run) { STILL_ENDED } else { STILL_RELEASE };
                (still >= wait).then_some(Finding::Release { run })
            }
            (_, Link::Up) => None,
            (_, Link::Refused) if still >= STILL_PROVEN => {
                Some(Finding::Dead { run, seq, death: Death::Proven })
            }
            (_, Link::Refused | Link::Silent) => (still >= STILL_SILENT && !self.is_seen(run))
                .then_some(Finding::Dead { run, seq, death: Death::Silent }),
        }
    }

    /// Returns whether an active member reports a connection to this run.
    fn is_seen(&self, run: Uuid) -> bool {
        self.members()
            .any(|row| row.run != self.me && self.still(row) < FRESH && row.sees.contains(&run))
    }

    /// Returns the time for which this row has provably not changed.
    fn still(&self, row: &RunReading) -> Duration {
        match (&self.last, self.since.get(&row.run)) {
            (Some(last), Some((_, since))) => last.sent.saturating_sub(*since),
            _ => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);
    const THIRD: Uuid = Uuid::from_u128(3);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A reading at a time, in which this run and the third one beat.
    fn reading(at: u64, state: RunState, seq: i64, sees: &[Uuid]) -> Reading {
        let beats = i64::try_from(at).unwrap();
        let runs = vec![
            RunReading { run: ME, state: RunState::Up, seq: beats, sees: vec![] },
            RunReading { run: OTHER, state, seq, sees: vec![] },
            RunReading { run: THIRD, state: RunState::Up, seq: beats, sees: sees.to_vec() },
        ];
        let (sent, received) = (ms(at), ms(at + 10));
        Reading { sent, received, mark: "life".into(), term: Uuid::nil(), runs }
    }

    /// When this run first finds something, with a reading each half second up to 15 s.
    fn first(sees: &[Uuid], state: RunState, link: Link) -> Option<(u64, Finding)> {
        first_of(Watch::new(ME, BTreeSet::new()), sees, state, link)
    }

    fn first_of(
        mut watch: Watch,
        sees: &[Uuid],
        state: RunState,
        link: Link,
    ) -> Option<(u64, Finding)> {
        (0..=15_000).step_by(500).find_map(|at| {
            watch.read(reading(at, state, 7, sees));
            watch.findings(|_| link).first().map(|finding| (at, *finding))
        })
    }

    #[test]
    fn f26_a_run_that_nobody_hears_is_dead_after_ten_seconds() {
        let dead = Finding::Dead { run: OTHER, seq: 7, death: Death::Silent };
        assert_eq!(first(&[], RunState::Up, Link::Silent), Some((10_500, dead)));
    }

    #[test]
    fn f26_a_run_that_a_member_hears_is_not_dead() {
        assert_eq!(first(&[OTHER], RunState::Up, Link::Silent), None);
        assert_eq!(first(&[], RunState::Draining, Link::Up), None);
    }

    #[test]
    fn f26_a_run_that_refuses_connections_is_dead_after_a_second_and_a_half() {
        let dead = Finding::Dead { run: OTHER, seq: 7, death: Death::Proven };
        assert_eq!(first(&[OTHER], RunState::Up, Link::Refused), Some((2_000, dead)));
    }

    #[test]
    fn f27_the_units_of_a_dead_run_are_given_back_after_seven_seconds() {
        let release = Finding::Release { run: OTHER };
        assert_eq!(first(&[], RunState::Dead, Link::Up), Some((7_000, release)));
        assert_eq!(first(&[], RunState::Reaped, Link::Silent), None);
    }

    #[test]
    fn f27_the_units_of_a_run_that_is_known_to_have_ended_are_given_back_after_two_seconds() {
        let first = |ended, state| {
            first_of(Watch::new(ME, BTreeSet::from([ended])), &[], state, Link::Silent)
        };
        let release = Finding::Release { run: OTHER };
        assert_eq!(first(OTHER, RunState::Dead), Some((2_500, release)));
        assert_eq!(first(THIRD, RunState::Dead), Some((7_000, release)));
        let dead = Finding::Dead { run: OTHER, seq: 7, death: Death::Silent };
        assert_eq!(first(OTHER, RunState::Up), Some((10_500, dead)));
    }

    #[test]
    fn f26_a_gap_in_the_readings_or_another_database_begins_the_wait_again() {
        let mut gap = Watch::new(ME, BTreeSet::new());
        let mut other = Watch::new(ME, BTreeSet::new());
        for at in (0..=15_000).step_by(500).filter(|at| !(6_000..7_500).contains(at)) {
            gap.read(reading(at, RunState::Up, 7, &[]));
            assert!(gap.findings(|_| Link::Silent).is_empty());
        }
        for at in (0..=15_000).step_by(500) {
            let mark = if at < 6_000 { "life" } else { "another" }.to_owned();
            other.read(Reading { mark, ..reading(at, RunState::Up, 7, &[]) });
            assert!(other.findings(|_| Link::Silent).is_empty());
        }
    }

    #[test]
    fn f26_a_beat_begins_the_wait_again() {
        let mut watch = Watch::new(ME, BTreeSet::new());
        for at in (0..=15_000).step_by(500) {
            watch.read(reading(at, RunState::Up, i64::from(at > 6_000), &[]));
            assert!(watch.findings(|_| Link::Silent).is_empty());
        }
    }
}
