//! The secrets of a new configuration: one file each in a folder beside it, so that the
//! configuration itself can be shown and kept under version control, `offhook serve` needs no
//! environment, and a reload reads a rotated secret again.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use toml::Value;

use model::Secret;

/// Number of random bytes in a secret.
const RANDOM_BYTES: usize = 32;
/// Secrets that `offhook init` generates, in addition to [`SECRET_KEY`] if the store is to be
/// encrypted with it. Existing files are kept, because the store may already be encrypted with the
/// key, and Meta and applications use the other secrets.
const MADE: &[&str] = &["verify_token", "auth_token", "api_key"];
const SECRET_KEY: &str = "secret_key";

/// The folder with the secrets of a configuration file.
pub(super) struct Secrets(PathBuf);

impl Secrets {
    /// Returns the folder: `offhook-secrets` for `offhook.toml`.
    pub(super) fn beside(config: &Path) -> Self {
        let mut name = config.file_stem().unwrap_or_default().to_owned();
        name.push("-secrets");
        Self(config.with_file_name(name))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.0
    }

    /// The value of a key that reads a secret from its file.
    pub(super) fn reference(&self, name: &str) -> Value {
        let path = self.0.join(name).display().to_string();
        Value::Table([("file".to_owned(), path.into())].into_iter().collect())
    }

    /// Whether an earlier run has generated the key that encrypts the store's secrets.
    pub(super) fn has_key(&self) -> bool {
        self.0.join(SECRET_KEY).exists()
    }

    /// Writes all secrets. Those issued by Meta replace earlier ones.
    ///
    /// # Errors
    /// Returns the error of the first file that can't be written.
    pub(super) fn write(
        &self,
        app_secret: &Secret,
        access_token: &Secret,
        seals_store: bool,
    ) -> io::Result<()> {
        if let Err(e) = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0) {
            return Err(io::Error::new(e.kind(), format!("{}: {e}", self.0.display())));
        }
        let owner = Owner::of(self.0.parent().unwrap_or(Path::new("/")))?;
        owner.give(&self.0, 0o700)?;
        for (name, secret) in [("app_secret", app_secret), ("access_token", access_token)] {
            write_private(&self.0.join(name), secret.reveal(), true, &owner)?;
        }
        for name in MADE.iter().chain(seals_store.then_some(&SECRET_KEY)) {
            let file = self.0.join(name);
            if !file.exists() {
                let random: [u8; RANDOM_BYTES] = rand::random();
                write_private(&file, &URL_SAFE_NO_PAD.encode(random), false, &owner)?;
            }
        }
        Ok(())
    }

    /// The verify token, which a person enters at Meta.
    ///
    /// # Errors
    /// Returns a text for people if the file can't be read.
    pub(super) fn verify_token(&self) -> Result<Secret, String> {
        let file = self.0.join("verify_token");
        let text = std::fs::read_to_string(&file)
            .map_err(|e| format!("could not read {}: {e}", file.display()))?;
        Ok(Secret::new(text.trim_end()))
    }
}

/// Writes a file that only the node may read. Replaces an existing one only if `replace` is set.
///
/// # Errors
/// Returns the errors of the file system.
pub(super) fn write_file(file: &Path, text: &str, replace: bool) -> io::Result<()> {
    let owner = Owner::of(file.parent().unwrap_or(Path::new("/")))?;
    write_private(file, text, replace, &owner)
}

fn write_private(file: &Path, text: &str, replace: bool, owner: &Owner) -> io::Result<()> {
    let part = file.with_added_extension("part");
    let _ = std::fs::remove_file(&part);
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .and_then(|mut open| {
            open.write_all(text.as_bytes())?;
            open.write_all(if text.ends_with('\n') { b"" } else { b"\n" })?;
            open.sync_all()
        })
        .and_then(|()| owner.give(&part, 0o600))
        // A hard link, unlike a rename, does not replace a file.
        .and_then(|()| match replace {
            true => std::fs::rename(&part, file),
            false => std::fs::hard_link(&part, file),
        });
    let _ = std::fs::remove_file(&part);
    written
}

/// The owner of the folder of the configuration. Root writes files for the node's user, who owns
/// the folder or is in its group.
struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    fn of(folder: &Path) -> io::Result<Self> {
        let about = std::fs::metadata(folder)?;
        Ok(Self { user: about.uid(), group: about.gid() })
    }

    /// Gives a file to the owner, if this process is root, and sets its mode. The group gets read
    /// access (and access to a folder) if only the group differs from root's.
    fn give(&self, file: &Path, mode: u32) -> io::Result<()> {
        use std::os::unix::fs::{PermissionsExt as _, chown};
        let mut mode = mode;
        if rustix::process::geteuid().is_root() {
            chown(file, Some(self.user), Some(self.group))?;
            if self.user == 0 && self.group != 0 {
                mode |= (mode & 0o500) >> 3;
            }
        }
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode))
    }
}

/// Returns the id of the account for a WABA. It is the same at each run, because the store
/// identifies the account by it.
pub(super) fn account_id(waba: &str) -> String {
    const CHARS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, waba.as_bytes());
    let pick = |byte: &u8| CHARS.get(usize::from(byte & 31)).copied().map_or('A', char::from);
    std::iter::once("MA".to_owned())
        .chain(digest.as_ref().iter().take(18).map(|byte| pick(byte).to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_are_private_and_those_made_here_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = Secrets::beside(&folder.path().join("offhook.toml"));
        assert_eq!(secrets.folder(), folder.path().join("offhook-secrets"));
        let read = |name: &str| std::fs::read_to_string(secrets.folder().join(name)).unwrap();
        secrets.write(&Secret::new("app"), &Secret::new("token"), true).unwrap();
        let made: Vec<String> = ["verify_token", "auth_token", "api_key", "secret_key"]
            .into_iter()
            .map(|name| {
                let mode = secrets.folder().join(name).metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o777, 0o600, "{name}");
                read(name)
            })
            .collect();
        assert!(made.iter().all(|secret| secret.trim_end().len() == 43));
        assert!(made.iter().skip(1).all(|secret| *secret != made[0]));
        secrets.write(&Secret::new("other"), &Secret::new("token"), true).unwrap();
        assert_eq!((read("verify_token"), read("secret_key")), (made[0].clone(), made[3].clone()));
        assert_eq!(read("app_secret"), "other\n");
        assert_eq!(secrets.folder().read_dir().unwrap().count(), 6, "no partial files");
    }

    /// The folder belongs to root and the group of the node's user, as the packages install it.
    #[test]
    fn root_lets_the_group_of_the_folder_read() {
        const GROUP: u32 = 54_321;
        let folder = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(folder.path(), None, Some(GROUP)).is_err() {
            return;
        }
        let secrets = Secrets::beside(&folder.path().join("offhook.toml"));
        secrets.write(&Secret::new("app"), &Secret::new("token"), true).unwrap();
        for (path, mode) in [("", 0o750), ("secret_key", 0o640)] {
            let about = secrets.folder().join(path).metadata().unwrap();
            assert_eq!((about.gid(), about.permissions().mode() & 0o777), (GROUP, mode), "{path}");
        }
    }

    #[test]
    fn a_file_is_replaced_only_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("offhook.toml");
        write_file(&file, "a = 1\n", false).unwrap();
        let error = write_file(&file, "b = 1\n", false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        write_file(&file, "b = 1\n", true).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "b = 1\n");
    }

    #[test]
    fn the_account_id_is_derived_from_the_waba() {
        let id = account_id("1029384756");
        assert_eq!((id.len(), &id), (20, &account_id("1029384756")));
        assert_ne!(id, account_id("1029384757"));
    }
}
