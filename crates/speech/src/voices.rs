//! The embedded voices' files: inside the binary, and unpacked where Pico can open them, for it reads files only.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::language::Embedded;

/// Name and content, as the build script found them.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/voices.rs"));

/// Why a voice can't be had.
#[derive(Debug, thiserror::Error)]
pub enum VoicesError {
    #[error("find the voice file {0} inside the program")]
    Missing(&'static str),
    #[error("write the voice file {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Makes sure that both files of `voice` lie in `folder` as they are in the binary, byte for byte; a damaged or
/// foreign one is replaced. Blocks.
///
/// # Errors
/// The folder can't be written.
pub(super) fn unpack(folder: &Path, voice: Embedded) -> Result<(), VoicesError> {
    for name in voice.files() {
        let (_, content) =
            FILES.iter().find(|(file, _)| *file == name).ok_or(VoicesError::Missing(name))?;
        let path = folder.join(name);
        if !holds(&path, content) {
            write(folder, &path, content).map_err(|source| VoicesError::Write { path, source })?;
        }
    }
    Ok(())
}

/// Comparing is as quick as hashing, and leaves no doubt.
fn holds(path: &Path, content: &[u8]) -> bool {
    let length = fs::metadata(path).map(|m| m.len());
    length.is_ok_and(|l| l == content.len() as u64)
        && fs::read(path).is_ok_and(|found| found == content)
}

/// Under another name first: whoever sees the file sees all of it. The process number keeps two nodes apart
/// that share a data directory.
fn write(folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = fs::File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{FILES, unpack};
    use crate::language::Embedded;

    #[test]
    fn every_voice_is_inside_and_unpacks_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("voices");
        for voice in Embedded::ALL {
            unpack(&folder, voice).unwrap();
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), FILES.len());
        let [name, _] = Embedded::DeDe.files();
        let written = fs::metadata(folder.join(name)).unwrap().modified().unwrap();
        unpack(&folder, Embedded::DeDe).unwrap();
        assert_eq!(fs::metadata(folder.join(name)).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let [name, _] = Embedded::ItIt.files();
        unpack(dir.path(), Embedded::ItIt).unwrap();
        let whole = fs::read(dir.path().join(name)).unwrap();
        let mut damaged = whole.clone();
        damaged[1_000] ^= 1;
        fs::write(dir.path().join(name), damaged).unwrap();
        unpack(dir.path(), Embedded::ItIt).unwrap();
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), whole);
    }
}
