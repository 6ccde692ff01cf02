//! The contents of files, memory-mapped so that processes share them.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

/// The content of a file.
pub(crate) enum Mapped {
    File(memmap2::Mmap),
    #[allow(dead_code, reason = "tables in memory are for tests and conversion")]
    Memory(Vec<u8>),
}

impl Mapped {
    /// Maps a file into memory.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be opened or mapped.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        // SAFETY: model files are written under a temporary name, renamed, and never changed in
        // place. If a file is truncated nevertheless, the helper process ends with SIGBUS, which
        // the node handles like any failure of the helper.
        unsafe { memmap2::Mmap::map(&file) }.map(Self::File)
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::File(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Mapped {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Memory(bytes)
    }
}
