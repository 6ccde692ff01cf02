//! The time range of the operations page, divided into columns, and the values of each column.

use super::form::{Form, Unreadable};
use model::Timestamp;
use store::CallSpan;

/// The ranges to choose from: the word in the URL, the key of the name, and the length in seconds.
const RANGES: &[(&str, &str, i64)] = &[
    ("1h", "operations.range_1h", 3_600),
    ("6h", "operations.range_6h", 6 * 3_600),
    ("24h", "operations.range_24h", 24 * 3_600),
    ("7d", "operations.range_7d", 7 * DAY),
    ("30d", "operations.range_30d", 30 * DAY),
];
const DAY: i64 = 86_400;
/// The possible widths of a column, in seconds.
const STEPS: &[i64] =
    &[1, 5, 15, 60, 300, 600, 1_800, 3_600, 4 * 3_600, 6 * 3_600, 12 * 3_600, DAY];
const COLUMNS_MAX: i64 = 60;
/// Maximum length in seconds of a range whose charts are updated while they are shown.
const LIVE_MAX: i64 = 6 * 3_600;

/// A range of time, divided into columns of equal width.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TimeRange {
    /// The word of a range that ends now. Empty for a range with a fixed start and end.
    pub(super) word: &'static str,
    /// Start of the first column, in Unix seconds: a multiple of `step`.
    pub(super) from: i64,
    /// Width of a column, in seconds.
    pub(super) step: i64,
    pub(super) columns: usize,
}

/// A range to choose.
pub(super) struct Choice {
    pub(super) word: &'static str,
    /// Key of its name.
    pub(super) name: &'static str,
    pub(super) is_chosen: bool,
}

impl TimeRange {
    /// Reads `from` and `to` (Unix seconds), else `range`, from a query. The last hour if they are
    /// missing or invalid.
    pub(super) fn read(query: &Form, now: Timestamp) -> Self {
        let now = now.secs();
        let second = |name: &str| query.get(name).parse::<i64>().ok();
        if let (Some(from), Some(to)) = (second("from"), second("to"))
            && (now - 366 * DAY..to).contains(&from)
            && to <= now + DAY
        {
            return Self::fitting("", from, to.min(from + 31 * DAY));
        }
        let chosen = RANGES.iter().find(|(word, ..)| *word == query.get("range"));
        let (word, _, length) = chosen.or(RANGES.first()).copied().unwrap_or_default();
        // The last column contains the current second.
        let end = now + 1;
        Self::fitting(word, end - length, end)
    }

    /// Refuses a query with other parameters, or without a known range.
    pub(super) fn check(query: &Form) -> Result<(), Unreadable> {
        query.check_names(&[&["range", "from", "to"]])?;
        query.read_as("range", |word| RANGES.iter().find(|(known, ..)| *known == word))?;
        Ok(())
    }

    fn fitting(word: &'static str, from: i64, to: i64) -> Self {
        let fits = |step: &&i64| (to - from).div_euclid(**step) < COLUMNS_MAX + 1;
        let step = STEPS.iter().find(fits).or(STEPS.last()).copied().unwrap_or(DAY);
        let end = to + (step - to.rem_euclid(step)) % step;
        // Never longer than asked, so that the range is not rounded up by a whole column.
        let columns = ((to - from) / step).clamp(1, COLUMNS_MAX + 1);
        Self {
            word,
            from: end - columns * step,
            step,
            columns: usize::try_from(columns).unwrap_or(1),
        }
    }

    /// The ranges to choose from.
    pub(super) fn choices(&self) -> Vec<Choice> {
        let choice = |(word, name, _): &(&'static str, &'static str, i64)| Choice {
            word,
            name,
            is_chosen: *word == self.word,
        };
        RANGES.iter().map(choice).collect()
    }

    /// Start of the range.
    pub(super) fn start(&self) -> Timestamp {
        Timestamp::from_micros(self.from * 1_000_000)
    }

    /// End of the range, exclusive.
    pub(super) fn end(&self) -> Timestamp {
        let length = self.step * i64::try_from(self.columns).unwrap_or_default();
        Timestamp::from_micros((self.from + length) * 1_000_000)
    }

    /// Start of a column.
    pub(super) fn start_of(&self, column: usize) -> Timestamp {
        let seconds = self.from + self.step * i64::try_from(column).unwrap_or_default();
        Timestamp::from_micros(seconds * 1_000_000)
    }

    /// Whether the charts are updated as time passes.
    pub(super) fn is_live(&self) -> bool {
        let length = self.step * i64::try_from(self.columns).unwrap_or_default();
        !self.word.is_empty() && length <= LIVE_MAX
    }

    /// The column of a time. `None` if it is outside the range.
    pub(super) fn column(&self, at: Timestamp) -> Option<usize> {
        let column = (at.secs() - self.from).div_euclid(self.step);
        usize::try_from(column).ok().filter(|column| *column < self.columns)
    }

    /// Counts times by column.
    pub(super) fn count(&self, times: impl IntoIterator<Item = Timestamp>) -> Vec<usize> {
        self.sum(times.into_iter().map(|at| (at, 1)))
    }

    /// Sums values by the column that their time belongs to.
    pub(super) fn sum(&self, values: impl IntoIterator<Item = (Timestamp, u64)>) -> Vec<usize> {
        let mut sums = vec![0_usize; self.columns];
        for (at, value) in values {
            if let Some(sum) = self.column(at).and_then(|column| sums.get_mut(column)) {
                *sum = sum.saturating_add(usize::try_from(value).unwrap_or(usize::MAX));
            }
        }
        sums
    }

    /// The largest number of times within one second, by column.
    pub(super) fn peak_rate(&self, times: impl IntoIterator<Item = Timestamp>) -> Vec<usize> {
        let mut seconds: Vec<i64> = times.into_iter().map(Timestamp::secs).collect();
        seconds.sort_unstable();
        let mut peaks = vec![0; self.columns];
        for second in seconds.chunk_by(|a, b| a == b) {
            let at = second.first().copied().unwrap_or_default();
            let column = self.column(Timestamp::from_micros(at * 1_000_000));
            if let Some(peak) = column.and_then(|column| peaks.get_mut(column)) {
                *peak = second.len().max(*peak);
            }
        }
        peaks
    }

    /// The largest number of calls that were live at the same time, by column. `live` has the
    /// starts of calls that have not ended.
    pub(super) fn peak_live(&self, ended: &[CallSpan], live: &[Timestamp]) -> Vec<usize> {
        // Ends sort before starts at the same time: one call may follow the other.
        let mut changes: Vec<(i64, i64)> = Vec::with_capacity(2 * ended.len() + live.len());
        changes
            .extend(ended.iter().flat_map(|s| [(s.started.micros(), 1), (s.ended.micros(), -1)]));
        changes.extend(live.iter().map(|started| (started.micros(), 1)));
        changes.sort_unstable();
        let (mut changes, mut now) = (changes.into_iter().peekable(), 0);
        let peak = |column: usize| {
            let (from, to) = (self.start_of(column).micros(), self.start_of(column + 1).micros());
            while let Some((_, change)) = changes.next_if(|(at, _)| *at < from) {
                now += change;
            }
            let mut most = now;
            while let Some((_, change)) = changes.next_if(|(at, _)| *at < to) {
                now += change;
                most = most.max(now);
            }
            usize::try_from(most).unwrap_or_default()
        };
        (0..self.columns).map(peak).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{CallType, Direction};

    const NOW: i64 = 1_800_000_123;

    fn read(query: &str) -> TimeRange {
        TimeRange::read(&Form::read(query.as_bytes()), Timestamp::from_micros(NOW * 1_000_000))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_range_has_at_most_61_columns_and_contains_now() {
        for (query, step, columns) in [
            ("", 60, 60),
            ("range=6h", 600, 36),
            ("range=24h", 1_800, 48),
            ("range=7d", 14_400, 42),
            ("range=30d", 43_200, 60),
            ("range=decade", 60, 60),
            ("from=10&to=20", 60, 60),
        ] {
            let range = read(query);
            assert_eq!((range.step, range.columns), (step, columns), "{query}");
            assert_eq!(range.column(at(NOW)), Some(columns - 1), "{query}");
            assert_eq!(range.from % range.step, 0, "{query}");
        }
        assert!(read("range=6h").is_live() && !read("range=24h").is_live());
    }

    #[test]
    fn a_chosen_part_of_a_chart_is_a_range() {
        let (from, to) = (NOW - 7_200, NOW - 3_600);
        let range = read(&format!("from={from}&to={to}"));
        assert_eq!((range.word, range.step, range.columns), ("", 60, 60));
        assert!(range.column(at(to - 1)).is_some() && !range.is_live());
        for (from, to) in
            [(NOW - 10, NOW - 10), (NOW, NOW - 5), (i64::MIN, i64::MAX), (0, i64::MAX)]
        {
            let range = read(&format!("from={from}&to={to}"));
            assert_eq!(range.word, "1h", "{from} {to}");
        }
        let second = read(&format!("from={}&to={NOW}", NOW - 1));
        assert_eq!((second.step, second.columns), (1, 1));
    }

    #[test]
    fn columns_have_counts_and_peaks() {
        let range = TimeRange { word: "1h", from: 0, step: 10, columns: 3 };
        let times = [0, 9, 10, 10, 29, 30, -1].map(at);
        assert_eq!(range.count(times), [2, 2, 1]);
        assert_eq!(range.peak_rate(times), [1, 2, 1]);
        let call = |started, ended| CallSpan {
            started: at(started),
            answered: None,
            ended: at(ended),
            cause: String::new(),
            direction: Direction::Inbound,
            call_type: CallType::Whatsapp,
        };
        // One call from before the range, two that overlap, one after the other, and a live one.
        let ended = [call(-5, 5), call(2, 12), call(5, 8), call(12, 14)];
        assert_eq!(range.peak_live(&ended, &[at(25)]), [2, 1, 1]);
        assert_eq!(range.peak_live(&[], &[at(-9)]), [1, 1, 1]);
        assert_eq!(range.peak_live(&[], &[]), [0, 0, 0]);
    }
}
