//! Which database holds the records.

use std::path::{Path, PathBuf};

use model::Secret;

/// The SQLite file's name where only its folder is given.
pub const SQLITE_FILE_NAME: &str = "offhook.db";

/// `store.url`: the database of the records.
#[derive(Clone, Debug)]
pub enum Database {
    /// A SQLite file.
    File(PathBuf),
    /// A URL, with a password in it perhaps.
    Postgres(Secret),
}

impl Database {
    /// Whether it is the same one.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a == b,
            (Self::Postgres(a), Self::Postgres(b)) => a.reveal() == b.reveal(),
            (Self::File(_), Self::Postgres(_)) | (Self::Postgres(_), Self::File(_)) => false,
        }
    }
}

/// The file, or the URL without what is secret in it.
impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Postgres(url) => match url::Url::parse(url.reveal()) {
                Ok(url) => {
                    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                    write!(
                        f,
                        "postgres://{}{port}{}",
                        url.host_str().unwrap_or_default(),
                        url.path()
                    )
                }
                Err(_) => f.write_str("postgres://…"),
            },
        }
    }
}

impl From<&Path> for Database {
    fn from(file: &Path) -> Self {
        Self::File(file.to_owned())
    }
}

impl From<&PathBuf> for Database {
    fn from(file: &PathBuf) -> Self {
        Self::File(file.clone())
    }
}
