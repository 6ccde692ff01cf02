//! Decides which other runs are dead, and when a dead run's units may be given back.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use crate::beat::RunState;

/// A run without a beat for this long is dead if it is proven that its process has ended.
const STILL_PROVEN: Duration = Duration::from_millis(1_500);

/// A run without a beat for this long is dead if no member hears it. More than the 7 s for which a
/// run admits calls after its last beat, with clocks that differ by 10 %.
const STILL_SILENT: Duration = Duration::from_secs(10);

/// A dead run's units are given back when it has not beaten for this long.
const STILL_RELEASE: Duration = Duration::from_secs(9);

/// What a member says about others counts if it has beaten within this time.
const FRESH: Duration = Duration::from_secs(7);

/// Readings further apart do not show that nothing happened in between.
const GAP: Duration = Duration::from_secs(1);

/// The connection of this run to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// The other run answers.
    Up,
    /// There is no connection, or nothing comes over it.
    Silent,
    /// The connection was up and broke, and three attempts to connect again, within 500 ms, were
    /// refused: the machine answers, and the process has ended.
    Refused,
}

/// One reading of the table of runs.
#[derive(Clone, Debug)]
pub struct Reading {
    /// When the query was sent, and when its answer came.
    pub sent: Duration,
    pub received: Duration,
    /// The life of the primary that answered, and its term. If either is another one than before,
    /// the database may have gone back in time.
    pub mark: String,
    pub term: Uuid,
    pub runs: Vec<RunSeen>,
}

/// A row of a reading.
#[derive(Clone, Debug)]
pub struct RunSeen {
    pub run: Uuid,
    pub state: RunState,
    pub seq: i64,
    /// The runs that this one hears over its peer links.
    pub sees: Vec<Uuid>,
}

/// What is to be done about another run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Declare it dead, if its row still has this `seq`.
    Dead { run: Uuid, seq: i64, death: Death },
    /// End what is left of the dead run's calls, and give back its units.
    Release { run: Uuid },
}

/// Why a run is taken for dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Its process has ended.
    Proven,
    /// No other run has heard from it.
    Silent,
}

/// What a run knows about the others from its own readings.
#[derive(Clone, Debug)]
pub struct Watch {
    me: Uuid,
    last: Option<Reading>,
    /// Per run, its `seq` and when this run first read it.
    since: BTreeMap<Uuid, (i64, Duration)>,
}

impl Watch {
    pub fn new(me: Uuid) -> Self {
        Self { me, last: None, since: BTreeMap::new() }
    }

    /// Takes in a reading. Two readings of one `seq` show a time without a beat only if they and
    /// all between them are at most a second apart and from one life of the database.
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
        let since = |row: &RunSeen| match before.get(&row.run) {
            Some(seen) if seen.0 == row.seq => (row.run, *seen),
            _ => (row.run, (row.seq, reading.received)),
        };
        self.since = reading.runs.iter().map(since).collect();
        self.last = Some(reading);
    }

    /// Forgets all readings, for example after a pause of this process.
    pub fn clear(&mut self) {
        self.last = None;
        self.since.clear();
    }

    /// The runs that are members, this one included.
    pub fn members(&self) -> impl Iterator<Item = &RunSeen> {
        let rows = self.last.iter().flat_map(|last| &last.runs);
        rows.filter(|row| row.state.is_member())
    }

    /// What follows from the last reading. `link` is the connection to another run.
    pub fn findings(&self, link: impl Fn(Uuid) -> Link) -> Vec<Finding> {
        let rows = self.last.iter().flat_map(|last| &last.runs);
        rows.filter(|row| row.run != self.me).filter_map(|row| self.finding(row, &link)).collect()
    }

    fn finding(&self, row: &RunSeen, link: &impl Fn(Uuid) -> Link) -> Option<Finding> {
        let still = self.still(row);
        let (run, seq) = (row.run, row.seq);
        match (row.state, link(run)) {
            (RunState::Left | RunState::Reaped, _) => None,
            (RunState::Dead, _) => (still >= STILL_RELEASE).then_some(Finding::Release { run }),
            (_, Link::Up) => None,
            (_, Link::Refused) if still >= STILL_PROVEN => {
                Some(Finding::Dead { run, seq, death: Death::Proven })
            }
            (_, Link::Refused | Link::Silent) => (still >= STILL_SILENT && !self.is_heard(run))
                .then_some(Finding::Dead { run, seq, death: Death::Silent }),
        }
    }

    /// Returns whether a member that beats says that it hears this run.
    fn is_heard(&self, run: Uuid) -> bool {
        self.members()
            .any(|row| row.run != self.me && self.still(row) < FRESH && row.sees.contains(&run))
    }

    /// For how long this row has certainly not changed.
    fn still(&self, row: &RunSeen) -> Duration {
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
            RunSeen { run: ME, state: RunState::Up, seq: beats, sees: vec![] },
            RunSeen { run: OTHER, state, seq, sees: vec![] },
            RunSeen { run: THIRD, state: RunState::Up, seq: beats, sees: sees.to_vec() },
        ];
        let (sent, received) = (ms(at), ms(at + 10));
        Reading { sent, received, mark: "life".into(), term: Uuid::nil(), runs }
    }

    /// When this run first finds something, with a reading each half second up to 15 s.
    fn first(sees: &[Uuid], state: RunState, link: Link) -> Option<(u64, Finding)> {
        let mut watch = Watch::new(ME);
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
    fn f27_the_units_of_a_dead_run_are_given_back_after_nine_seconds() {
        let release = Finding::Release { run: OTHER };
        assert_eq!(first(&[], RunState::Dead, Link::Up), Some((9_500, release)));
        assert_eq!(first(&[], RunState::Reaped, Link::Silent), None);
    }

    #[test]
    fn f26_a_gap_in_the_readings_or_another_database_begins_the_wait_again() {
        let mut gap = Watch::new(ME);
        let mut other = Watch::new(ME);
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
        let mut watch = Watch::new(ME);
        for at in (0..=15_000).step_by(500) {
            watch.read(reading(at, RunState::Up, i64::from(at > 6_000), &[]));
            assert!(watch.findings(|_| Link::Silent).is_empty());
        }
    }
}
