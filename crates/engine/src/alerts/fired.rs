//! The file with the alerts that have fired and are not resolved. A node that starts reads it, so
//! that it reports their end, too.

use std::io::{self, Read};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::Alert;
use model::Timestamp;

/// Maximum size of the file in bytes.
const BYTES_MAX: u64 = 65_536;

/// An alert that has fired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Fired {
    pub(super) alert: Alert,
    pub(super) since: Timestamp,
    /// The readings behind the alert when it fired.
    pub(super) detail: String,
}

/// Reads the file. A missing or damaged file counts as empty.
pub(super) fn read(file: &Path) -> Vec<Fired> {
    let mut bytes = Vec::new();
    let read =
        std::fs::File::open(file).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
    read.ok().and_then(|_| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

/// Replaces the file.
///
/// # Errors
/// Fails on I/O errors.
pub(super) async fn write(file: &Path, fired: &[Fired]) -> io::Result<()> {
    let part = file.with_extension("part");
    tokio::fs::write(&part, serde_json::to_vec(fired)?).await?;
    tokio::fs::rename(part, file).await
}

#[cfg(test)]
mod tests {
    use super::{Alert, Fired, Timestamp, read, write};

    #[tokio::test]
    async fn the_file_is_read_as_written_and_damage_counts_as_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alerts.json");
        assert_eq!(read(&file), []);
        let fired = Alert::ALL.map(|alert| Fired {
            alert,
            since: Timestamp::from_secs(60),
            detail: "3 webhooks".to_owned(),
        });
        write(&file, &fired).await.unwrap();
        assert_eq!(read(&file), fired);
        for damaged in ["", "[{\"alert\":\"unknown\"}]", "[1,"] {
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(read(&file), []);
        }
    }
}
