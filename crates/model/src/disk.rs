//! The space of a file system.

use std::path::Path;

/// Maximum default of the reserve, in bytes.
const RESERVE: u64 = 256 << 20;
/// Default of the reserve on small disks: this fraction of the file system.
const RESERVE_FRACTION: u64 = 20;
/// Minimum default of the reserve, in bytes: the write-ahead log and the journal of a busy store.
const RESERVE_MIN: u64 = 16 << 20;

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

    /// Returns the space in use.
    pub fn used(self) -> u64 {
        self.size.saturating_sub(self.free)
    }

    /// Returns the space that is left free for the store: `set` (`recordings.reserve_mib`, in
    /// bytes), or its default for this disk.
    pub fn reserve(self, set: Option<u64>) -> u64 {
        set.unwrap_or_else(|| (self.size / RESERVE_FRACTION).clamp(RESERVE_MIN, RESERVE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_5_percent_of_a_small_disk_and_256_mib_of_a_large_one() {
        const GIB: u64 = 1 << 30;
        let disk = |size| Disk { size, free: 0 };
        assert_eq!(disk(GIB).reserve(None), GIB / 20);
        assert_eq!(disk(500 * GIB).reserve(None), 256 << 20);
        assert_eq!(disk(GIB / 16).reserve(None), 16 << 20, "the store needs this much");
        assert_eq!(disk(500 * GIB).reserve(Some(0)), 0);
        let here = Disk::of(Path::new(".")).unwrap();
        assert!(here.size >= here.free && here.size > 0, "{here:?}");
        assert!(Disk::of(Path::new("/there/is/none")).is_err());
    }
}
