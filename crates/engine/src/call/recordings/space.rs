//! The disk space that recordings may use.
//!
//! Recordings share a disk with the store, without which no account can work. They leave a reserve
//! free, and on a node of several main accounts, those of one account take at most as much space as
//! is still free above the reserve. So an account always leaves as much room to the others as it has
//! taken. See `docs/recordings.md#disk-space`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use media::record::DISK_FULL;
use model::metric::{self, recording_refusal};
use model::{AuthId, Clock};

/// Maximum default of the reserve, in bytes.
const RESERVE: u64 = 256 << 20;
/// Default of the reserve on small disks: this fraction of the file system.
const RESERVE_FRACTION: u64 = 20;
/// Minimum default of the reserve, in bytes: the write-ahead log and the journal of a busy store.
const RESERVE_MIN: u64 = 16 << 20;
/// Minimum interval between two readings of the file system.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// Minimum interval between two log lines of one kind.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Space of a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    pub size: u64,
    /// What a process without privileges can still use.
    pub free: u64,
}

impl Disk {
    /// Reads the file system of a file or directory.
    ///
    /// # Errors
    /// Fails if the path cannot be read.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        let read = rustix::fs::statvfs(path)?;
        let bytes = |blocks: u64| blocks.saturating_mul(read.f_frsize);
        Ok(Self { size: bytes(read.f_blocks), free: bytes(read.f_bavail) })
    }

    fn used(self) -> u64 {
        self.size.saturating_sub(self.free)
    }

    /// Returns the space that recordings leave free: `set` (`recordings.reserve_mib`, in bytes), or
    /// its default for this disk.
    pub fn reserve(self, set: Option<u64>) -> u64 {
        set.unwrap_or_else(|| (self.size / RESERVE_FRACTION).clamp(RESERVE_MIN, RESERVE))
    }
}

/// Why a recording may not begin or go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// The disk has less than the reserve.
    Reserve,
    /// The recordings of the account take more than is free above the reserve.
    Share,
}

impl Lack {
    /// The label of the metric.
    fn label(self) -> &'static str {
        match self {
            Self::Reserve => recording_refusal::DISK_FULL,
            Self::Share => recording_refusal::SHARE_USED,
        }
    }

    /// The remark in the record of the call.
    fn remark(self) -> &'static str {
        match self {
            Self::Reserve => DISK_FULL,
            Self::Share => {
                "the account's recordings have used their share of the disk; delete some"
            }
        }
    }
}

/// Decides whether a recording may go on. `used` is what the account's recordings use, or `None` if
/// the account does not share the disk.
fn lack(disk: Disk, reserve: u64, used: Option<u64>) -> Option<Lack> {
    match disk.free.checked_sub(reserve) {
        None => Some(Lack::Reserve),
        Some(left) if used.is_some_and(|used| used > left) => Some(Lack::Share),
        Some(_) => None,
    }
}

/// Reads the file system of the recordings.
type Probe = Box<dyn Fn() -> std::io::Result<Disk> + Send + Sync>;
/// Whether there is more than one main account.
pub type HasSeveralAccounts = Box<dyn Fn() -> bool + Send + Sync>;

/// The disk space of a node's recordings.
pub(super) struct DiskSpace {
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
    logged: HashMap<&'static str, Instant>,
}

/// What the recordings of an account use, in bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    /// At the last count of complete recordings in the store.
    counted: u64,
    /// By recordings that ended since.
    ended: u64,
    running: u64,
}

impl DiskSpace {
    pub(super) fn new(
        probe: Probe,
        reserve: Option<u64>,
        has_several_accounts: HasSeveralAccounts,
        clock: Clock,
    ) -> Self {
        Self { probe, reserve, has_several_accounts, clock, state: Mutex::default() }
    }

    /// Accounts for a new recording.
    pub(super) fn recording(self: &Arc<Self>, main_account: AuthId) -> RunningFile {
        RunningFile { space: self.clone(), main_account, bytes: 0 }
    }

    /// Whether what each account uses must be counted, because one may soon have used its share: more
    /// than half as much of the disk is used as an account may use. It is counted before it matters,
    /// because without a count, recordings that were deleted meanwhile still count as used.
    ///
    /// Blocks.
    pub(super) fn is_tight(&self) -> bool {
        let disk = self.disk(&mut self.state());
        (self.has_several_accounts)()
            && disk.is_some_and(|disk| {
                disk.used() > disk.free.saturating_sub(disk.reserve(self.reserve)) / 2
            })
    }

    /// Replaces the count of complete recordings by what `count` returns, unless that is `None`.
    pub(super) async fn count(&self, count: impl Future<Output = Option<Vec<(AuthId, u64)>>>) {
        // A recording that ends during the count may be in both `counts` and `ended`. One whose row is
        // completed only after it is in neither. The next count corrects both.
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
            state.used.entry(account).or_default().counted = bytes;
        }
        state.used.retain(|_, used| used.counted + used.ended + used.running > 0);
    }

    fn check(&self, state: &mut State, account: &AuthId) -> Result<(), &'static str> {
        // If the file system cannot be read, writing will show whether there is space.
        let Some(disk) = self.disk(state) else { return Ok(()) };
        let reserve = disk.reserve(self.reserve);
        let used = state.used.get(account).copied().unwrap_or_default();
        let used = used.counted.saturating_add(used.ended).saturating_add(used.running);
        // The count may be older than what has been deleted since.
        let used = used.min(disk.used());
        let used = (self.has_several_accounts)().then_some(used);
        let Some(lack) = lack(disk, reserve, used) else { return Ok(()) };
        let why = lack.label();
        metrics::counter!(metric::RECORDINGS_REFUSED_TOTAL, "why" => why).increment(1);
        let now = self.clock.now();
        let last = state.logged.get(why);
        if last.is_none_or(|last| now.saturating_duration_since(*last) >= LOG_INTERVAL) {
            state.logged.insert(why, now);
            let [free_mib, reserve_mib] = [disk.free, reserve].map(|bytes| bytes >> 20);
            match lack {
                Lack::Reserve => tracing::error!(
                    free_mib,
                    reserve_mib,
                    "no recordings, because the disk is almost full; make room in store.data_dir, lower retention.recording_days or recordings.reserve_mib"
                ),
                Lack::Share => tracing::warn!(
                    main_account = %account,
                    used_mib = used.unwrap_or_default() >> 20,
                    free_mib,
                    reserve_mib,
                    "no recordings of an account that has used its share of the disk; delete some of them, or enlarge the disk"
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

/// The file of a running recording. Counts as ended when dropped.
pub(super) struct RunningFile {
    space: Arc<DiskSpace>,
    main_account: AuthId,
    bytes: u64,
}

impl RunningFile {
    /// Sets the size of the file, and checks whether the recording may go on.
    ///
    /// # Errors
    /// Returns the reason if it may not.
    pub(super) fn grow(&mut self, bytes: u64) -> Result<(), &'static str> {
        let grown = bytes.saturating_sub(self.bytes);
        let mut state = self.space.state();
        if grown > 0 {
            state.used.entry(self.main_account.clone()).or_default().running += grown;
            self.bytes = bytes;
        }
        self.space.check(&mut state, &self.main_account)
    }
}

impl Drop for RunningFile {
    fn drop(&mut self) {
        if let Some(used) = self.space.state().used.get_mut(&self.main_account) {
            used.running = used.running.saturating_sub(self.bytes);
            used.ended = used.ended.saturating_add(self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    use super::*;
    use model::Timestamp;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_reserve_is_5_percent_of_a_small_disk_and_256_mib_of_a_large_one() {
        let disk = |size| Disk { size, free: 0 };
        assert_eq!(disk(GIB).reserve(None), GIB / 20);
        assert_eq!(disk(500 * GIB).reserve(None), 256 << 20);
        assert_eq!(disk(GIB / 16).reserve(None), 16 << 20, "the store needs this much");
        assert_eq!(disk(500 * GIB).reserve(Some(0)), 0);
        let here = Disk::of(Path::new(".")).unwrap();
        assert!(here.size >= here.free && here.size > 0, "{here:?}");
        assert!(Disk::of(Path::new("/there/is/none")).is_err());
    }

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
            let space = DiskSpace::new(
                Box::new(probe),
                Some(GIB),
                Box::new(move || shared.load(Ordering::Relaxed)),
                clock.clone(),
            );
            Self { free, several, clock, space: Arc::new(space) }
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
        let mut file = node.space.recording("MA1".into());
        assert_eq!(file.grow(0), Ok(()));
        node.free(GIB - 1);
        assert_eq!(file.grow(64_000), Err(DISK_FULL), "a running one ends");
        assert_eq!(node.space.recording("MA2".into()).grow(0), Err(DISK_FULL), "none begins");
        node.free(GIB);
        assert_eq!(node.space.recording("MA2".into()).grow(0), Ok(()));
    }

    #[tokio::test]
    async fn r11_an_account_takes_no_more_of_the_disk_than_it_leaves() {
        let node = Node::new(61);
        let mut file = node.space.recording("MA1".into());
        assert_eq!(file.grow(40 * GIB), Ok(()));
        node.free(41 * GIB - 1);
        assert!(file.grow(40 * GIB).is_err_and(|why| why.contains("share of the disk")));
        assert_eq!(node.space.recording("MA2".into()).grow(0), Ok(()), "others go on");
        drop(file);
        let begins = |account: &str| node.space.recording(account.into()).grow(0).is_ok();
        assert_eq!(["MA1", "MA2"].map(begins), [false, true], "an ended one counts");
        node.space.count(async { None }).await;
        assert!(!begins("MA1"), "the count has failed");
        let counts = |gib: u64| vec![("MA1".into(), gib * GIB)];
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
