use std::path::{Path, PathBuf};

/// Returns the path with `ending` appended to its file name.
pub(crate) fn with_suffix(file: &Path, ending: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Creates the folder with mode 0700 and the file with mode 0600. SQLite gives its side files the
/// mode of the database file. An existing file is not opened: see `connect::open_beside_node`.
pub(crate) fn create_file(file: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = file.parent().filter(|f| !f.as_os_str().is_empty()) {
        create_folder(folder)?;
    }
    match std::fs::OpenOptions::new().append(true).create_new(true).mode(0o600).open(file) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

pub(crate) fn create_folder(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Adds the file's name to an error.
pub(crate) fn naming(file: &Path, error: std::io::Error) -> std::io::Error {
    std::io::Error::new(error.kind(), format!("{}: {error}", file.display()))
}
