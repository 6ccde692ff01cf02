//! The location of the database.

use std::path::{Path, PathBuf};

use model::Secret;

/// The SQLite file's name, if only its folder is configured.
pub const SQLITE_FILE_NAME: &str = "offhook.db";

/// The database that holds the records, as `store.url` names it.
#[derive(Clone, Debug)]
pub enum Database {
    /// A SQLite file.
    File(PathBuf),
    /// A connection URL, which may contain a password.
    Postgres(Secret),
}

impl Database {
    /// Returns whether both name the same database.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(a), Self::File(b)) => a == b,
            (Self::Postgres(a), Self::Postgres(b)) => a.reveal() == b.reveal(),
            (Self::File(_), Self::Postgres(_)) | (Self::Postgres(_), Self::File(_)) => false,
        }
    }
}

/// Shows the file, or the URL without user name, password and parameters.
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
