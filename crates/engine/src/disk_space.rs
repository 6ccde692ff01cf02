//! The disk space that recordings, users' files, event logs, long messages and changes may use.
//!
//! They share a disk with the rest of the store, without which no account can work. They leave a
//! reserve free. Changes, private notes and short messages may use half of it. The rest is for
//! calls, messages from users and sign-ins, which are not refused. On a node of several main
//! accounts, the files, event logs and long messages of one account take at most as much space as is
//! still free above the reserve. So an account always leaves as much room to the others as it has
//! taken. Changes, notes and short messages are limited in the same way, but not by what else the
//! account stores. See `docs/recordings.md#disk-space`.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use media::record::DISK_FULL;
use model::metric::{self, disk_refusal};
use model::{AuthId, Clock, Disk, Repeats};

/// Minimum interval between two readings of the file system.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Interval of [`DiskSpace::keep_counted`].
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum number of bytes that changes leave free, if the configured reserve is larger.
const CHANGE_RESERVE_MAX: u64 = 128 << 20;

/// What a change takes in the store besides its content: rows, entries of indexes and records of the
/// audit trail. In bytes.
const CHANGE_OVERHEAD: u64 = 2 << 10;

/// How long event logs, messages and changes count as used. Event logs are deleted after
/// `retention.event_log_days`, 30 by default.
const ROW_DAYS: i64 = 30;
/// Seconds of a day.
const DAY_SECS: i64 = 86_400;

/// What a file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    Recording,
    /// A file that a user has sent, or that is sent to a user.
    UserFile,
    /// The event log of a call, a part of the store.
    EventLog,
    /// A long message, a part of the store.
    Message,
    /// A change over an API, a private note or a short message to a user.
    Change,
}

impl Content {
    fn name(self) -> &'static str {
        match self {
            Self::Recording => "recordings",
            Self::UserFile => "users' files",
            Self::EventLog => "event logs",
            Self::Message => "long messages",
            Self::Change => "changes",
        }
    }

    fn refused_metric(self) -> &'static str {
        match self {
            Self::Recording => metric::RECORDINGS_REFUSED_TOTAL,
            Self::UserFile => metric::USER_FILES_REFUSED_TOTAL,
            Self::EventLog => metric::EVENT_LOGS_CUT_TOTAL,
            Self::Message => metric::MESSAGES_REFUSED_TOTAL,
            Self::Change => metric::CHANGES_REFUSED_TOTAL,
        }
    }
}

/// Why a file may not be begun or grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// The disk has less than the reserve.
    Reserve,
    /// The files of the account take more than is free above the reserve.
    Share,
}

impl Lack {
    /// The label of the metric.
    fn label(self) -> &'static str {
        match self {
            Self::Reserve => disk_refusal::DISK_FULL,
            Self::Share => disk_refusal::SHARE_USED,
        }
    }

    /// The remark in the record of the call.
    fn remark(self) -> &'static str {
        match self {
            Self::Reserve => DISK_FULL,
            Self::Share => {
                "the account's recordings, users' files, event logs and messages have used their share of the disk"
            }
        }
    }
}

/// Decides whether a file may grow. `used` is what the account's files use, or `None` if
/// the account does not share the disk.
fn lack(disk: Disk, reserve: u64, used: Option<u64>) -> Option<Lack> {
    match disk.free.checked_sub(reserve) {
        None => Some(Lack::Reserve),
        Some(left) if used.is_some_and(|used| used > left) => Some(Lack::Share),
        Some(_) => None,
    }
}

/// Reads the file system of the files.
pub type Probe = Box<dyn Fn() -> std::io::Result<Disk> + Send + Sync>;
/// Whether there is more than one main account.
pub type HasSeveralAccounts = Box<dyn Fn() -> bool + Send + Sync>;

/// The disk space of a node's files.
pub struct DiskSpace {
    probe: Probe,
    /// `recordings.reserve_mib` in bytes, if set.
    reserve: Option<u64>,
    has_several_accounts: HasSeveralAccounts,
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The last reading.
    disk: Option<(Instant, Disk)>,
    /// By main account.
    used: HashMap<AuthId, Used>,
    /// The refusals that were logged, by content and reason.
    refusals: HashMap<(&'static str, &'static str), Repeats>,
}

/// What the files of an account use, in bytes.
#[derive(Clone, Debug, Default)]
struct Used {
    /// At the last count of complete files.
    counted: u64,
    /// By files that were completed since.
    ended: u64,
    growing: u64,
    /// By event logs and long messages.
    rows: LatestDays,
    /// By changes, notes and short messages.
    changes: LatestDays,
}

impl Used {
    fn total(&self) -> u64 {
        let files = self.counted.saturating_add(self.ended).saturating_add(self.growing);
        files.saturating_add(self.rows.sum()).saturating_add(self.changes.sum())
    }
}

/// Numbers of bytes for each of the latest days of this process.
#[derive(Clone, Debug, Default)]
struct LatestDays(VecDeque<(i64, u64)>);

impl LatestDays {
    fn add(&mut self, day: i64, bytes: u64) {
        match self.0.back_mut() {
            Some((last, so_far)) if *last == day => *so_far = so_far.saturating_add(bytes),
            _ => self.0.push_back((day, bytes)),
        }
        while self.0.front().is_some_and(|(first, _)| first.saturating_add(ROW_DAYS) <= day) {
            self.0.pop_front();
        }
    }

    fn sum(&self) -> u64 {
        self.0.iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

impl DiskSpace {
    /// Limits the files in `folder`, which exists. `reserve` is `recordings.reserve_mib` in bytes;
    /// `None` means the default.
    pub fn new(
        folder: &Path,
        reserve: Option<u64>,
        has_several_accounts: HasSeveralAccounts,
        clock: Clock,
    ) -> Arc<Self> {
        let folder = folder.to_owned();
        Self::with_probe(Box::new(move || Disk::of(&folder)), reserve, has_several_accounts, clock)
    }

    /// Like [`DiskSpace::new`], with a function that reads the file system.
    pub fn with_probe(
        probe: Probe,
        reserve: Option<u64>,
        has_several_accounts: HasSeveralAccounts,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self { probe, reserve, has_several_accounts, clock, state: Mutex::default() })
    }

    /// Accounts for a new file that is kept, complete or not.
    pub fn file(self: &Arc<Self>, content: Content, main_account: AuthId) -> GrowingFile {
        GrowingFile { space: self.clone(), content, main_account, bytes: 0, is_kept: true }
    }

    /// Accounts for a new file that is deleted unless [`GrowingFile::keep`] is called.
    pub fn temporary_file(self: &Arc<Self>, content: Content, main_account: AuthId) -> GrowingFile {
        let mut file = self.file(content, main_account);
        file.is_kept = false;
        file
    }

    /// Counts every minute what each account's files use, with `count`, while the disk is so full
    /// that it matters. Ends at `stop`.
    pub async fn keep_counted<F: Future<Output = Option<Vec<(AuthId, u64)>>>>(
        self: Arc<Self>,
        count: impl Fn() -> F,
        stop: CancellationToken,
    ) {
        let mut every = tokio::time::interval(COUNT_INTERVAL);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            let space = self.clone();
            let is_tight = tokio::task::spawn_blocking(move || space.is_tight()).await;
            if is_tight.unwrap_or(true) {
                self.count(count()).await;
            }
        }
    }

    /// Whether what each account uses must be counted, because one may soon have used its share: more
    /// than half as much of the disk is used as an account may use. It is counted before it matters,
    /// because without a count, files that were deleted meanwhile still count as used.
    ///
    /// Blocks.
    fn is_tight(&self) -> bool {
        let disk = self.disk(&mut self.state());
        (self.has_several_accounts)()
            && disk.is_some_and(|disk| {
                disk.used() > disk.free.saturating_sub(disk.reserve(self.reserve)) / 2
            })
    }

    /// Replaces the count of complete files by what `count` returns, unless that is `None`.
    async fn count(&self, count: impl Future<Output = Option<Vec<(AuthId, u64)>>>) {
        // A file that is completed during the count may be counted twice, and a recording whose row
        // is completed after the count may be left out. The next count corrects both.
        let before: Vec<_> =
            self.state().used.iter().map(|(account, used)| (account.clone(), used.ended)).collect();
        let Some(counts) = count.await else { return };
        let mut state = self.state();
        for used in state.used.values_mut() {
            used.counted = 0;
        }
        for (account, ended) in before {
            let used = state.used.entry(account).or_default();
            used.ended = used.ended.saturating_sub(ended);
        }
        for (account, bytes) in counts {
            state.used.entry(account).or_default().counted += bytes;
        }
        state.used.retain(|_, used| used.total() > 0);
    }

    /// Returns whether rows of a call's history may be stored, and counts them.
    pub fn take_history(&self, main_account: &AuthId, bytes: usize) -> bool {
        let mut state = self.state();
        let used = state.used.entry(main_account.clone()).or_default();
        used.rows.add(self.day(), bytes.try_into().unwrap_or(u64::MAX));
        self.check(&mut state, Content::EventLog, main_account).is_ok()
    }

    /// The current day, as a number of days since 1970.
    fn day(&self) -> i64 {
        self.clock.wall().secs() / DAY_SECS
    }

    /// Checks whether a change, a note or a short message with this content may be stored, and
    /// counts it.
    ///
    /// # Errors
    /// Returns the reason if it may not.
    pub fn take_change(&self, main_account: &AuthId, bytes: usize) -> Result<(), &'static str> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).saturating_add(CHANGE_OVERHEAD);
        let mut state = self.state();
        self.check(&mut state, Content::Change, main_account)?;
        state.used.entry(main_account.clone()).or_default().changes.add(self.day(), bytes);
        Ok(())
    }

    fn check(
        &self,
        state: &mut State,
        content: Content,
        account: &AuthId,
    ) -> Result<(), &'static str> {
        // If the file system cannot be read, writing will show whether there is space.
        let Some(disk) = self.disk(state) else { return Ok(()) };
        let reserve = disk.reserve(self.reserve);
        let used = state.used.get(account);
        let (reserve, used) = match content {
            Content::Change => {
                ((reserve / 2).min(CHANGE_RESERVE_MAX), used.map_or(0, |used| used.changes.sum()))
            }
            _ => (reserve, used.map_or(0, Used::total)),
        };
        // The count may be older than what has been deleted since.
        let used = used.min(disk.used());
        let used = (self.has_several_accounts)().then_some(used);
        let Some(lack) = lack(disk, reserve, used) else { return Ok(()) };
        let why = lack.label();
        metrics::counter!(content.refused_metric(), "why" => why).increment(1);
        let files = content.name();
        let refusals = state.refusals.entry((files, why)).or_default();
        if refusals.count(self.clock.now()).is_some() {
            let [free_mib, reserve_mib] = [disk.free, reserve].map(|bytes| bytes >> 20);
            match lack {
                Lack::Reserve => tracing::error!(
                    files,
                    free_mib,
                    reserve_mib,
                    "files, event logs or changes not stored, because the disk is almost full; make room in store.data_dir, lower retention.recording_days or recordings.reserve_mib"
                ),
                Lack::Share => tracing::warn!(
                    files,
                    main_account = %account,
                    used_mib = used.unwrap_or_default() >> 20,
                    free_mib,
                    reserve_mib,
                    "files, event logs or changes of an account that has used its share of the disk not stored; delete some of its recordings or conversations, lower retention.event_log_days, or enlarge the disk"
                ),
            }
        }
        Err(lack.remark())
    }

    /// Returns the space of the disk, read at most twice a second. `None` if it cannot be read.
    fn disk(&self, state: &mut State) -> Option<Disk> {
        let now = self.clock.now();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < PROBE_INTERVAL;
        if let Some((_, disk)) = state.disk.filter(|(at, _)| is_recent(at)) {
            return Some(disk);
        }
        state.disk = (self.probe)().ok().map(|disk| (now, disk));
        state.disk.map(|(_, disk)| disk)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is written.
pub struct GrowingFile {
    space: Arc<DiskSpace>,
    content: Content,
    main_account: AuthId,
    bytes: u64,
    /// Whether it counts as complete when this is dropped, or as deleted.
    is_kept: bool,
}

impl GrowingFile {
    /// Sets the size of the file, and checks whether it may grow further.
    ///
    /// # Errors
    /// Returns the reason if it may not.
    pub fn grow(&mut self, bytes: u64) -> Result<(), &'static str> {
        let mut state = self.space.state();
        count_growth(&mut state, &self.main_account, &mut self.bytes, bytes);
        self.space.check(&mut state, self.content, &self.main_account)
    }

    /// Sets the size of the file, which does not grow further.
    pub fn set_size(&mut self, bytes: u64) {
        count_growth(&mut self.space.state(), &self.main_account, &mut self.bytes, bytes);
    }

    /// Like [`GrowingFile::grow`], with an I/O error.
    ///
    /// # Errors
    /// Returns an error of the kind `StorageFull` if the file may not grow further.
    pub fn reserve(&mut self, bytes: u64) -> std::io::Result<()> {
        self.grow(bytes).map_err(|why| std::io::Error::new(std::io::ErrorKind::StorageFull, why))
    }

    /// Completes a temporary file.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

/// Counts a file of `account` that has grown from `before` to `bytes`.
fn count_growth(state: &mut State, account: &AuthId, before: &mut u64, bytes: u64) {
    let grown = bytes.saturating_sub(*before);
    if grown > 0 {
        state.used.entry(account.clone()).or_default().growing += grown;
        *before = bytes;
    }
}

impl Drop for GrowingFile {
    fn drop(&mut self) {
        let day = self.space.day();
        if let Some(used) = self.space.state().used.get_mut(&self.main_account) {
            used.growing = used.growing.saturating_sub(self.bytes);
            match self.content {
                _ if !self.is_kept => {}
                Content::EventLog | Content::Message => used.rows.add(day, self.bytes),
                Content::Recording | Content::UserFile | Content::Change => {
                    used.ended = used.ended.saturating_add(self.bytes);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use model::Timestamp;

    const GIB: u64 = 1 << 30;

    /// A node with a disk of 100 GiB and a reserve of 1 GiB.
    struct Node {
        free: Arc<AtomicU64>,
        several: Arc<AtomicBool>,
        clock: Clock,
        space: Arc<DiskSpace>,
    }

    impl Node {
        fn new(free_gib: u64) -> Self {
            let free = Arc::new(AtomicU64::new(free_gib * GIB));
            let several = Arc::new(AtomicBool::new(true));
            let clock = Clock::stepped(Timestamp::from_secs(1_000));
            let (left, shared) = (free.clone(), several.clone());
            let probe = move || Ok(Disk { size: 100 * GIB, free: left.load(Ordering::Relaxed) });
            let space = DiskSpace::with_probe(
                Box::new(probe),
                Some(GIB),
                Box::new(move || shared.load(Ordering::Relaxed)),
                clock.clone(),
            );
            Self { free, several, clock, space }
        }

        fn file(&self, account: &str) -> GrowingFile {
            self.space.file(Content::Recording, account.into())
        }

        fn free(&self, bytes: u64) {
            self.free.store(bytes, Ordering::Relaxed);
            self.clock.step(PROBE_INTERVAL);
        }
    }

    #[test]
    fn r11_recordings_leave_a_reserve_for_the_store() {
        let node = Node::new(1);
        node.several.store(false, Ordering::Relaxed);
        let mut file = node.file("MA1");
        assert_eq!(file.grow(0), Ok(()));
        node.free(GIB - 1);
        assert_eq!(file.grow(64_000), Err(DISK_FULL), "a running one ends");
        assert_eq!(node.file("MA2").grow(0), Err(DISK_FULL), "none begins");
        node.free(GIB);
        assert_eq!(node.file("MA2").grow(0), Ok(()));
    }

    #[test]
    fn r11_changes_leave_half_of_the_reserve_to_calls() {
        let node = Node::new(1);
        let change = || node.space.take_change(&"MA1".into(), 100);
        node.free(CHANGE_RESERVE_MAX);
        assert!(change().is_ok() && node.file("MA1").grow(0).is_err());
        node.free(CHANGE_RESERVE_MAX - 1);
        assert_eq!(change(), Err(DISK_FULL));
    }

    #[test]
    fn r11_changes_of_an_account_take_no_more_than_they_leave() {
        let node = Node::new(3);
        let gib = usize::try_from(GIB).unwrap();
        let change = |account: &str, bytes| node.space.take_change(&account.into(), bytes);
        assert_eq!(node.file("MA1").grow(GIB / 2), Ok(()));
        assert_eq!(change("MA1", gib), Ok(()));
        node.free(GIB + CHANGE_RESERVE_MAX);
        assert!(change("MA1", 1).is_err_and(|why| why.contains("share of the disk")));
        assert_eq!(change("MA2", 1), Ok(()), "others go on");
        assert_eq!(change("MA3", 2 * gib), Ok(()), "a single one may exceed it");
        node.several.store(false, Ordering::Relaxed);
        assert_eq!(change("MA1", 1), Ok(()), "an account that is alone has the whole disk");
        // Recordings don't keep an account from changes.
        node.several.store(true, Ordering::Relaxed);
        let mut file = node.file("MA4");
        assert!(file.grow(9 * GIB).is_err());
        assert_eq!(change("MA4", 1), Ok(()));
    }

    #[tokio::test]
    async fn r11_event_logs_count_for_a_month() {
        let node = Node::new(41);
        let log = |account: &str| node.space.file(Content::EventLog, account.into());
        for _ in 0..2 {
            assert_eq!(log("MA1").grow(20 * GIB), Ok(()));
            node.clock.step(Duration::from_secs(86_400));
        }
        node.free(40 * GIB);
        assert!(log("MA1").grow(0).is_err() && log("MA2").grow(0).is_ok());
        // The counts of the store do not include event logs.
        node.space.count(async { Some(Vec::new()) }).await;
        assert!(log("MA1").grow(0).is_err());
        node.clock.step(Duration::from_secs(28 * 86_400));
        assert!(log("MA1").grow(1).is_err(), "the oldest day ends with the next log");
        assert!(log("MA1").grow(0).is_ok());
        node.free(GIB - 1);
        assert_eq!(log("MA2").grow(0), Err(DISK_FULL), "the reserve is for the records of calls");
    }

    #[tokio::test]
    async fn r11_an_account_takes_no_more_of_the_disk_than_it_leaves() {
        let node = Node::new(61);
        let mut file = node.file("MA1");
        assert_eq!(file.grow(40 * GIB), Ok(()));
        node.free(41 * GIB - 1);
        assert!(file.grow(40 * GIB).is_err_and(|why| why.contains("share of the disk")));
        assert_eq!(node.file("MA2").grow(0), Ok(()), "others go on");
        drop(file);
        let begins = |account: &str| node.file(account).grow(0).is_ok();
        assert_eq!(["MA1", "MA2"].map(begins), [false, true], "an ended one counts");
        let mut download = node.space.temporary_file(Content::UserFile, "MA2".into());
        assert!(download.grow(41 * GIB).is_err(), "users' files count too");
        assert!(!begins("MA2"));
        drop(download);
        assert!(begins("MA2"), "it was deleted");
        node.space.count(async { None }).await;
        assert!(!begins("MA1"), "the count has failed");
        let counts = |gib: u64| vec![("MA1".into(), (gib - 1) * GIB), ("MA1".into(), GIB)];
        node.space.count(async { Some(counts(40)) }).await;
        assert!(!begins("MA1"), "counted in the store, and not twice");
        assert!(node.space.is_tight());
        node.space.count(async { Some(counts(39)) }).await;
        assert!(begins("MA1"), "some were deleted");
        node.space.count(async { Some(counts(60)) }).await;
        node.free(51 * GIB);
        assert!(begins("MA1") && node.space.is_tight(), "the count is old");
        node.free(68 * GIB);
        assert!(!node.space.is_tight());
        node.free(41 * GIB);
        node.several.store(false, Ordering::Relaxed);
        assert!(begins("MA1"), "an account that is alone has the whole disk");
        assert!(!node.space.is_tight());
    }
}
