//! The embedded voice files. They are part of the binary and are unpacked to a folder because Pico
//! reads only files.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::language::EmbeddedVoice;

/// The names and contents of the files, listed by the build script.
static FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/voices.rs"));

/// The reason why a voice file is not available.
#[derive(Debug, thiserror::Error)]
pub enum VoiceFileError {
    #[error("could not find the voice file {0} in the program")]
    Missing(&'static str),
    #[error("could not write the voice file {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Makes sure that `folder` contains both files of `voice`, byte for byte. A file that differs is
/// replaced. Blocks.
///
/// # Errors
///
/// Fails if the folder cannot be written.
pub(super) fn unpack(folder: &Path, voice: EmbeddedVoice) -> Result<(), VoiceFileError> {
    for name in voice.files() {
        let (_, content) =
            FILES.iter().find(|(file, _)| *file == name).ok_or(VoiceFileError::Missing(name))?;
        let path = folder.join(name);
        if !has_content(&path, content) {
            write(folder, &path, content)
                .map_err(|source| VoiceFileError::Write { path, source })?;
        }
    }
    Ok(())
}

/// Returns `true` if the file has exactly this content. A comparison is as fast as a hash.
fn has_content(path: &Path, content: &[u8]) -> bool {
    let length = fs::metadata(path).map(|m| m.len());
    length.is_ok_and(|l| l == content.len() as u64)
        && fs::read(path).is_ok_and(|found| found == content)
}

/// Writes to a temporary file and renames it, so that readers never see a partial file. The process
/// id separates nodes that share a data directory.
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
    use crate::language::EmbeddedVoice;

    #[test]
    fn every_voice_is_embedded_and_unpacked_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("voices");
        for voice in EmbeddedVoice::ALL {
            unpack(&folder, voice).unwrap();
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), FILES.len());
        let [name, _] = EmbeddedVoice::DeDe.files();
        let written = fs::metadata(folder.join(name)).unwrap().modified().unwrap();
        unpack(&folder, EmbeddedVoice::DeDe).unwrap();
        assert_eq!(fs::metadata(folder.join(name)).unwrap().modified().unwrap(), written);
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let [name, _] = EmbeddedVoice::ItIt.files();
        unpack(dir.path(), EmbeddedVoice::ItIt).unwrap();
        let whole = fs::read(dir.path().join(name)).unwrap();
        let mut damaged = whole.clone();
        damaged[1_000] ^= 1;
        fs::write(dir.path().join(name), damaged).unwrap();
        unpack(dir.path(), EmbeddedVoice::ItIt).unwrap();
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), whole);
    }
}
