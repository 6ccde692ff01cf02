//! Selects the node or the store for a command: the one given by its options, else the running
//! `offhook dev` that was started last, else the one of `./offhook.toml`. Commands that need the
//! store itself prefer `./offhook.toml`: a copy of the wrong store is found out when it is needed.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::{Exit, config, print};
use engine::config::{Config, Listen, Store};
use model::{E164, Role, Secret};
use sim::world;
use store::Database;

/// The configuration file that is read if none is given.
const CONFIG: &str = "offhook.toml";
/// The directory of the store if there is no configuration.
const DATA_DIR: &str = "offhook-data";

/// Options that select the node.
#[derive(clap::Args, Clone, Debug)]
pub struct NodeArgs {
    /// Base URL of the node [default: the running `offhook dev`, else the node of --config]
    #[arg(long, value_name = "URL", value_parser = super::node_url, conflicts_with = "config")]
    pub node: Option<url::Url>,
    /// API key of the node [default: that of `offhook dev` on loopback, or an owner's key in the
    /// configuration]
    #[arg(
        long,
        alias = "key",
        value_name = "KEY",
        env = "OFFHOOK_API_KEY",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub api_key: Option<Secret>,
    /// Configuration file of the node, on this machine [default: ./offhook.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Options that select the store.
#[derive(clap::Args, Clone, Debug)]
pub struct StoreArgs {
    /// The store of this configuration file
    #[arg(long, value_name = "FILE", group = "where")]
    pub config: Option<PathBuf>,
    /// The store in this directory; no configuration or secret is read [default: that of the
    /// running `offhook dev`, else of ./offhook.toml, else ./offhook-data; for `backup` and
    /// `callbacks`, ./offhook.toml comes first]
    #[arg(long, value_name = "DIR", group = "where")]
    pub data_dir: Option<PathBuf>,
}

/// Options that select the store of a command that needs the store itself.
#[derive(clap::Args, Clone, Debug)]
pub struct LocalStoreArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The node. Refused with a reason, because most other commands have this option.
    #[arg(long, value_name = "URL", hide = true, value_parser = refuse_node)]
    node: Option<String>,
}

impl LocalStoreArgs {
    /// The selected store. Without options, `./offhook.toml` comes before a running `offhook dev`.
    ///
    /// # Errors
    /// As [`StoreArgs::database`].
    pub fn database(&self) -> Result<Database, Exit> {
        self.location().map(|(database, _)| database)
    }

    /// Like [`LocalStoreArgs::database`], with the folder of the journal and the key file.
    ///
    /// # Errors
    /// As [`StoreArgs::database`].
    pub fn location(&self) -> Result<(Database, PathBuf), Exit> {
        if !self.is_default() || !Path::new(CONFIG).exists() {
            return self.store.location();
        }
        let Store { database, data_dir, .. } = config::load(Path::new(CONFIG))?.store;
        if let Some(dev) = RunningDev::find() {
            print::error_text(&format!(
                "note: this is the store of ./{CONFIG}, {database}, not of the running \
                 `offhook dev` at {} (--data-dir {})\n",
                dev.node,
                dev.data_dir.display()
            ));
        }
        Ok((database, data_dir))
    }

    /// Whether no option selects the store.
    pub fn is_default(&self) -> bool {
        self.store.config.is_none() && self.store.data_dir.is_none()
    }
}

fn refuse_node(_: &str) -> Result<String, &'static str> {
    Err(
        "this command reads the store itself, with the data of all accounts, which no API key may read: run it \
         on the machine of the store, with --config FILE or --data-dir DIR. From elsewhere, the console \
         (Errors, Webhooks) and GET /api/v1/failed-requests/ show failed requests of an account",
    )
}

/// Options that select a store, or a node by its API.
#[derive(clap::Args, Clone, Debug)]
pub struct SourceArgs {
    /// The API of this node
    #[arg(long, value_name = "URL", value_parser = super::node_url, group = "where")]
    pub node: Option<url::Url>,
    /// API key of the node of --node [default on loopback: the key of `offhook dev`]
    #[arg(
        long,
        value_name = "KEY",
        env = "OFFHOOK_API_KEY",
        hide_env_values = true,
        allow_hyphen_values = true
    )]
    pub api_key: Option<Secret>,
    #[command(flatten)]
    pub store: StoreArgs,
}

impl NodeArgs {
    /// The base URL of the node, and the API key if one is known.
    ///
    /// # Errors
    /// Prints an error and returns the exit code if no node is named or configured.
    pub(super) fn find(&self) -> Result<(url::Url, Option<Secret>), Exit> {
        if let Some(node) = &self.node {
            return Ok((node.clone(), self.api_key.clone()));
        }
        let file = match &self.config {
            Some(file) => file.as_path(),
            None => match RunningDev::find() {
                // The variable OFFHOOK_API_KEY may hold the key of another node.
                Some(dev) => {
                    let node = super::http_url(&dev.chosen().node).map_err(Exit::failed)?;
                    return Ok((node, Some(Secret::new(world::API_KEY))));
                }
                None if Path::new(CONFIG).exists() => Path::new(CONFIG),
                None => {
                    return Err(Exit::usage(
                        "no running `offhook dev` and no offhook.toml in this directory\nname the \
                         node with --node, or its configuration with --config",
                    ));
                }
            },
        };
        let config = config::load(file)?;
        let node = local_url(&config.listen, config.public.base_url.as_ref()).ok_or_else(|| {
            Exit::usage(format_args!(
                "the node of {} has no address for this machine; name it with --node",
                file.display()
            ))
        })?;
        let mut keys = config.accounts.iter().flat_map(|account| &account.api_keys);
        let key = || keys.find(|key| key.role == Role::Owner).map(|key| key.key.clone());
        Ok((node, self.api_key.clone().or_else(key)))
    }
}

/// The URL at which this machine reaches the node of a configuration.
fn local_url(listen: &Listen, base_url: Option<&url::Url>) -> Option<url::Url> {
    let mut at = listen.public;
    if at.ip().is_unspecified() {
        at.set_ip(match at.ip() {
            std::net::IpAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::IpAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    // A connection to an address of this machine comes from the same address.
    let is_refused =
        listen.proxies_only && !listen.trusted_proxies.iter().any(|net| net.contains(&at.ip()));
    if is_refused || at.port() == 0 {
        return base_url.cloned();
    }
    url::Url::parse(&format!("http://{at}")).ok()
}

impl StoreArgs {
    /// Whether the selected configuration contains this account. Returns `false` without a
    /// configuration.
    pub fn names_account(&self, account: &str) -> bool {
        self.config_has(|config| {
            config.accounts.iter().any(|known| known.auth_id.as_str() == account)
        })
    }

    /// Like [`StoreArgs::names_account`], for a business number.
    pub fn names_number(&self, number: &E164) -> bool {
        self.config_has(|config| config.numbers.iter().any(|known| known.number == *number))
    }

    fn config_has(&self, find: impl FnOnce(&Config) -> bool) -> bool {
        let default = || (self.data_dir.is_none()).then_some(Path::new(CONFIG));
        let file = self.config.as_deref().or_else(default);
        file.is_some_and(|file| config::read(file).is_ok_and(|config| find(&config)))
    }

    /// The selected store, which need not exist.
    ///
    /// # Errors
    /// As [`config::load`], or if no store is named or configured.
    pub fn database(&self) -> Result<Database, Exit> {
        self.location().map(|(database, _)| database)
    }

    fn location(&self) -> Result<(Database, PathBuf), Exit> {
        let of = |file: &Path| {
            config::load(file).map(|config| (config.store.database, config.store.data_dir))
        };
        match (&self.config, &self.data_dir) {
            (Some(file), _) => return of(file),
            (None, Some(folder)) => return Ok((database_in(folder), folder.clone())),
            (None, None) => {}
        }
        if let Some(dev) = RunningDev::find() {
            let dev = dev.chosen();
            let data_dir = dev.data_dir.clone();
            return Ok((dev.database(), data_dir));
        }
        if Path::new(CONFIG).exists() {
            return of(Path::new(CONFIG));
        }
        match database_in(Path::new(DATA_DIR)) {
            Database::File(file) if !file.exists() => Err(Exit::usage(
                "no running `offhook dev`, and no offhook.toml or offhook-data in this \
                 directory\nname the directory with --data-dir, or the configuration with --config",
            )),
            store => Ok((store, DATA_DIR.into())),
        }
    }
}

fn database_in(folder: &Path) -> Database {
    Database::File(folder.join(store::SQLITE_FILE_NAME))
}

/// The address of a running `offhook dev`, which it writes for other commands of the same user.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RunningDev {
    pub(super) node: String,
    pub(super) data_dir: PathBuf,
    /// The database of a fleet. `None` if the store is in `data_dir`.
    #[serde(default)]
    pub(super) database_url: Option<String>,
}

/// Name of the file: this prefix, the process id and [`SUFFIX`].
const PREFIX: &str = "offhook-dev-";
const SUFFIX: &str = ".json";
const BYTES_MAX: u64 = 64 << 10;

impl RunningDev {
    /// Writes the address to a file in the directory of temporary files. The file is locked while
    /// the returned value exists, so that the file of a killed process is ignored.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn register(&self) -> std::io::Result<Registration> {
        let name = format!("{PREFIX}{}{SUFFIX}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Left by a killed process that had the same id.
        let _ = std::fs::remove_file(&path);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.lock()?;
        file.write_all(&serde_json::to_vec(self)?)?;
        Ok(Registration { path, _file: file })
    }

    /// Returns the running `offhook dev` that was started last.
    pub(super) fn find() -> Option<Self> {
        Self::running().pop()
    }

    /// Returns each running `offhook dev`, the last started one last.
    fn running() -> Vec<Self> {
        let files = std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
        let found = files.filter_map(|file| {
            let name = file.file_name();
            let name = name.to_str()?;
            name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse::<u32>().ok()?;
            Self::read(&file.path())
        });
        let mut found: Vec<_> = found.collect();
        found.sort_by_key(|(written, _)| *written);
        found.into_iter().map(|(_, dev)| dev).collect()
    }

    fn database(self) -> Database {
        match self.database_url {
            Some(url) => Database::Postgres(Secret::new(url)),
            None => database_in(&self.data_dir),
        }
    }

    /// Reads a file that a running process of this user wrote.
    fn read(path: &Path) -> Option<(SystemTime, Self)> {
        let is_ours = |about: &std::fs::Metadata| {
            about.is_file() && about.uid() == rustix::process::geteuid().as_raw()
        };
        std::fs::symlink_metadata(path).ok().filter(is_ours)?;
        let file = File::open(path).ok()?;
        let about = file.metadata().ok().filter(is_ours)?;
        if !matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock)) {
            return None;
        }
        let mut text = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut text).ok()?;
        Some((about.modified().ok()?, serde_json::from_slice(&text).ok()?))
    }

    /// Prints which node is used if another one could be meant as well: that of the configuration
    /// in this directory, or of another `offhook dev`.
    fn chosen(self) -> Self {
        let others = Self::running().into_iter().filter(|dev| dev.node != self.node);
        let others: Vec<String> = others.map(|dev| dev.node).collect();
        if !others.is_empty() {
            print::error_text(&format!(
                "note: this is the `offhook dev` at {}, which was started last; also running: {}\n",
                self.node,
                others.join(", ")
            ));
        }
        if Path::new(CONFIG).exists() {
            print::error_text(&format!(
                "note: this is the running `offhook dev` at {}, not the node of ./{CONFIG} \
                 (--config {CONFIG})\n",
                self.node
            ));
        }
        self
    }
}

/// A registered `offhook dev`. Removes the file when dropped.
pub(super) struct Registration {
    path: PathBuf,
    _file: File,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_reached_on_this_machine_or_through_its_proxy() {
        let url = |listen: &str, proxies_only: bool, base: Option<&str>| {
            let public = listen.parse().expect("an address");
            let listen = Listen { public, proxies_only, ..Listen::default() };
            let base: Option<url::Url> = base.map(|url| url.parse().expect("a URL"));
            local_url(&listen, base.as_ref()).map(String::from)
        };
        let base = Some("https://calls.example.com/");
        let local = |url: &str| Some(url.to_owned());
        assert_eq!(url("0.0.0.0:8080", false, base), local("http://127.0.0.1:8080/"));
        assert_eq!(url("[::]:8080", false, base), local("http://[::1]:8080/"));
        assert_eq!(url("10.1.2.3:80", false, None), local("http://10.1.2.3/"));
        assert_eq!(url("0.0.0.0:8080", true, base), base.map(str::to_owned));
        assert_eq!(url("127.0.0.1:0", false, None), None);
    }
}
