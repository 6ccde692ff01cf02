//! The file that names the runs of a fleet that have had this folder.
//!
//! One process at a time has the lock of a folder, so the runs in its file have ended. The kernel
//! that granted the lock knows only its own processes: a volume can be moved to another machine
//! while a process on the former one goes on. So the file counts only on the machine that wrote it,
//! until that machine restarts.

use std::io;
use std::path::Path;

use uuid::Uuid;

/// Name of the file in `store.data_dir`.
const NAME: &str = "fleet-runs";

/// Where Linux shows an id that differs for each start of each machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Returns the runs that have ended. Empty if none is known, or if that can't be proven.
pub(crate) fn read(folder: &Path) -> Vec<Uuid> {
    let text = std::fs::read_to_string(folder.join(NAME)).unwrap_or_default();
    std::fs::read_to_string(BOOT_ID).map_or(Vec::new(), |boot| parse(&text, &boot))
}

/// Replaces the file. It need not outlive a crash of the machine.
///
/// # Errors
/// Fails on I/O errors.
pub(crate) fn write(folder: &Path, runs: &[Uuid]) -> io::Result<()> {
    let path = folder.join(NAME);
    let new = path.with_extension("new");
    std::fs::write(&new, format(runs, &std::fs::read_to_string(BOOT_ID)?))?;
    std::fs::rename(new, path)
}

/// A line with the id of the machine's start, and a line for each run.
fn format(runs: &[Uuid], boot: &str) -> String {
    let lines = runs.iter().map(|run| format!("{run}\n"));
    std::iter::once(format!("{}\n", boot.trim())).chain(lines).collect()
}

fn parse(text: &str, boot: &str) -> Vec<Uuid> {
    match text.split_once('\n') {
        Some((written, runs)) if !written.is_empty() && written == boot.trim() => {
            runs.lines().filter_map(|run| run.parse().ok()).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_count_until_the_machine_starts_again() {
        let runs = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let text = format(&runs, "a-boot\n");
        assert_eq!(parse(&text, "a-boot\n"), runs);
        assert!(parse(&text, "another\n").is_empty());
        assert_eq!(parse(&format!("{text}garbage\n"), "a-boot"), runs);
        assert!(parse("", "a-boot").is_empty() && parse("", "").is_empty());
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).is_empty());
        for runs in [&runs[..], &runs[1..]] {
            write(folder.path(), runs).unwrap();
            assert_eq!(read(folder.path()), runs);
        }
    }
}
