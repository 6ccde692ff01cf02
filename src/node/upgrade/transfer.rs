//! The data of calls on the way to another process: files in memory (`memfd_create(2)`), with a
//! JSON value per line. No file of the disk contains their keys.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum length of a line in bytes: an event log of 8 MiB, with an escape for each character.
const LINE_MAX: u64 = 32 * 1024 * 1024;
/// Maximum number of lines: one for each live or queued call of a node.
const LINES_MAX: usize = 1_000_000;
/// Maximum size of the prompts, in bytes.
const PROMPTS_MAX: u64 = 1024 * 1024 * 1024;

/// Writes values to a new file.
pub(super) fn write_lines<T: Serialize>(
    values: impl IntoIterator<Item = T>,
) -> io::Result<OwnedFd> {
    let mut file = BufWriter::new(create()?);
    for value in values {
        serde_json::to_writer(&mut file, &value)?;
        file.write_all(b"\n")?;
    }
    finish(file.into_inner()?)
}

/// Reads the values of a file.
pub(super) fn read_lines<T: DeserializeOwned>(file: OwnedFd) -> io::Result<Vec<T>> {
    let mut file = BufReader::new(File::from(file));
    let (mut values, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        if file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
            return Ok(values);
        }
        if line.last() != Some(&b'\n') || values.len() == LINES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the calls are too large"));
        }
        values.push(serde_json::from_slice(&line)?);
    }
}

/// Writes bytes to a new file.
pub(super) fn write_bytes(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = create()?;
    file.write_all(bytes)?;
    finish(file)
}

/// Reads the bytes of a file.
pub(super) fn read_bytes(file: OwnedFd) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(file).take(PROMPTS_MAX).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|read| read >= PROMPTS_MAX) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the prompts are too large"));
    }
    Ok(bytes)
}

fn create() -> io::Result<File> {
    Ok(memfd_create("offhook-calls", MemfdFlags::CLOEXEC)?.into())
}

/// Rewinds a file. The position is shared with the other process.
fn finish(mut file: File) -> io::Result<OwnedFd> {
    file.rewind()?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_back_and_a_cut_line_is_refused() {
        let lines: Vec<String> = (0..1_000).map(|n| "ü\n".repeat(n)).collect();
        let file = write_lines(&lines).unwrap();
        assert_eq!(read_lines::<String>(file).unwrap(), lines);
        assert!(read_lines::<String>(write_lines::<u8>([]).unwrap()).unwrap().is_empty());
        read_lines::<String>(write_bytes(b"\"a\"\n\"b\"").unwrap()).unwrap_err();
        assert_eq!(read_bytes(write_bytes(b"ab").unwrap()).unwrap(), b"ab");
    }
}
