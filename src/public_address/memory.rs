//! The file with the addresses that STUN servers reported at the last start.

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Family;

/// Maximum size of the file in bytes.
const BYTES_MAX: u64 = 4_096;

/// A public address reported by a STUN server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sighting {
    /// The local address from which the request was sent. If this machine no longer has the
    /// address, the network has changed.
    pub(super) local: IpAddr,
    pub(super) public: IpAddr,
}

/// The reported address of each family.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    ipv4: Option<Sighting>,
    ipv6: Option<Sighting>,
}

impl Memory {
    pub(super) fn of(&self, family: Family) -> Option<&Sighting> {
        match family {
            Family::V4 => self.ipv4.as_ref(),
            Family::V6 => self.ipv6.as_ref(),
        }
    }

    pub(super) fn of_mut(&mut self, family: Family) -> &mut Option<Sighting> {
        match family {
            Family::V4 => &mut self.ipv4,
            Family::V6 => &mut self.ipv6,
        }
    }
}

pub(super) fn file_in(data_dir: &Path) -> PathBuf {
    data_dir.join("public-address.json")
}

/// Reads the file. A missing or damaged file counts as empty.
pub(super) fn read(file: &Path) -> Memory {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(file).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
    read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Writes the file if the reported addresses have changed.
pub(super) fn write(file: &Path, before: &Memory, now: &Memory) -> io::Result<()> {
    if before == now {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let part = file.with_extension("part");
    std::fs::write(&part, serde_json::to_vec(now)?)?;
    std::fs::rename(part, file)
}
